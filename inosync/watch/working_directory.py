"""The current directory, changed for a moment: chdir(2).

A process has only one, for all of its code: a caller that enters another directory leaves it at once.
"""

from __future__ import annotations

import os


class WorkingDirectory:
    """Enters open directories, and returns to where the process was."""

    def __init__(self) -> None:
        self._home = -1
        """The directory to return to, opened; -1: not known."""

    def enter(self, directory: int) -> bool:
        """Make a directory the current one. False, and no change, if it is barred or the way back is."""
        try:
            if self._home < 0:
                self._home = _open_current()
            os.fchdir(directory)
        except OSError:
            return False
        return True

    def leave(self) -> None:
        """Return from the directory that was entered."""
        try:
            os.fchdir(self._home)
        except OSError:
            os.chdir("/")  # the way back was barred meanwhile, and a daemon may as well be here

    def close(self) -> None:
        """Keep nothing open. The next ``enter`` finds out anew where to return to."""
        if self._home >= 0:
            os.close(self._home)
            self._home = -1


def _open_current() -> int:
    """The current directory, opened; OSError unless this process may enter it again."""
    home = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchdir(home)
    except OSError:
        os.close(home)
        raise
    return home
