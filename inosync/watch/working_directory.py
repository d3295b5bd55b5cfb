"""The current directory as a place to look from: chdir(2).

A process has one only, and all of the process has it: whoever goes elsewhere comes back at once.
"""

from __future__ import annotations

import os


class WorkingDirectory:
    """Goes to open directories, and back to where the process was."""

    def __init__(self) -> None:
        self._home = -1

    def go(self, directory: int) -> bool:
        """Make a directory the current one. False, and no change, if it is barred or the way back is."""
        try:
            if self._home < 0:
                self._home = _way_back()
            os.fchdir(directory)
        except OSError:
            return False
        return True

    def back(self) -> None:
        """Return from where ``go`` led."""
        try:
            os.fchdir(self._home)
        except OSError:
            os.chdir("/")  # it was barred meanwhile, and a daemon is at home here, too

    def close(self) -> None:
        """Keep nothing open. The next ``go`` finds out anew what to come back to."""
        if self._home >= 0:
            os.close(self._home)
            self._home = -1


def _way_back() -> int:
    """The current directory, opened; OSError unless this process may enter it again."""
    home = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchdir(home)
    except OSError:
        os.close(home)
        raise
    return home
