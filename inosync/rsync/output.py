"""What an rsync prints, taken apart line by line."""

from __future__ import annotations

from collections.abc import Callable, Collection

from inosync.rsync import stdout

_MAX_LINES = 2_000
_MAX_PART_BYTES = 1 << 16
"""The most of a line without an end that is kept."""


class RsyncOutput:
    """``listener`` gets the lines of standard output, which are not kept then.

    ``says_end``: rsync says when only its end is missing. ``owns``: whether one of these pids is of its own.
    """

    def __init__(
        self,
        says_end: bool,
        owns: Callable[[Collection[int]], bool],
        listener: Callable[[list[bytes]], None] | None = None,
    ) -> None:
        self._says_end, self._owns, self._listener = says_end, owns, listener
        self.stderr: list[bytes] = []
        """Lines of standard error without line ends; the last ones if there are too many."""
        self.stdout: list[bytes] = []
        """Lines of standard output without progress; the last ones if there are too many."""
        self.is_truncated = False
        """Whether older lines of either were dropped."""
        self.percent: int | None = None
        """The progress of a full mirror."""
        self.byte_percent: int | None = None
        """The share of the bytes that have arrived, where rsync prints its progress."""
        self.stderr_bytes = 0
        """What was read from standard error."""
        self.has_said_end = False
        """Whether it has said that only its end is missing."""
        self._stdout_part = self._stderr_part = b""
        """What came after the last line end of each."""

    def add_stdout(self, data: bytes) -> None:
        """Take what was read; nothing: the stream has ended."""
        lines, self._stdout_part = self._lines(self._stdout_part, data)
        if self._listener is not None:
            self._listener(lines)
        elif not any(b"%" in line for line in lines):  # no progress, as nearly always
            if self._says_end:
                self._note_end(lines)
            self._keep(self.stdout, lines)
        else:
            for line in lines:
                entries, share = stdout.percent(line), stdout.byte_percent(line)
                self.percent = self.percent if entries is None else entries
                self.byte_percent = self.byte_percent if share is None else share
                if entries is None and share is None and not line.startswith(stdout.SKIPPED):
                    self._keep(self.stdout, [line])

    def add_stderr(self, data: bytes) -> None:
        """Take what was read; nothing: the stream has ended."""
        lines, self._stderr_part = self._lines(self._stderr_part, data)
        self.stderr_bytes += len(data)
        self._keep(self.stderr, lines)

    def _lines(self, part: bytes, data: bytes) -> tuple[list[bytes], bytes]:
        """Return the whole lines that end in the data, and what comes after them."""
        # Progress is updated in place, with carriage returns; ssh ends its lines with them as well.
        *lines, rest = (part + data).replace(b"\r", b"\n").split(b"\n")
        rest = rest[-_MAX_PART_BYTES:]
        if not data:
            lines, rest = [*lines, rest], b""
        lines = [line for line in lines if line.strip()]
        if self._says_end:
            lines = [line for line in lines if not stdout.is_exit_note(line)]
        return lines, rest

    def _note_end(self, lines: list[bytes]) -> None:
        waits_for = {pid for line in lines if (pid := stdout.waits_for(line))}
        # A file may have such a name, and extra may have names printed.
        if waits_for and self._owns(waits_for):
            self.has_said_end = True

    def _keep(self, kept: list[bytes], lines: list[bytes]) -> None:
        kept += lines
        if len(kept) > _MAX_LINES:
            self.is_truncated = True
            del kept[: -_MAX_LINES // 2]
