"""A program in place of rsync that transfers nothing: what is measured with it is the tool's own work."""

from __future__ import annotations

import shutil
from pathlib import Path

FAKE = """#!/bin/sh
case "$*" in
    *--version*) exec @REAL@ --version ;;
    *--dirs* | *--include-from=-*) cat >/dev/null ;;
    *--files-from=-*) cat >/dev/null; echo >>@STARTED@ ;;
    *) echo >>@STARTED@ ;;
esac
exit 0
"""
"""Takes every name, and notes the start of each run over a whole tree: then a tool has watched all of it.

``cat`` is no exec: an idle rsync without a child looks as if it had lost its node.
"""


class Fake:
    """The program, and what it has noted."""

    def __init__(self, home: Path) -> None:
        self.path = home / "rsync"
        self._started = home / "started"
        real = shutil.which("rsync")
        assert real, "rsync is not installed"
        self.path.write_text(FAKE.replace("@REAL@", real).replace("@STARTED@", str(self._started)))
        self.path.chmod(0o755)

    def starts(self) -> int:
        """Runs over a whole tree so far."""
        return self._started.stat().st_size if self._started.exists() else 0

    def last(self) -> float:
        """When the last of them began, in seconds of the clock on the wall."""
        return self._started.stat().st_mtime
