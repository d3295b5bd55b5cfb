"""The title of a worker: its own while it runs a transfer, otherwise the one that the master sends."""

from __future__ import annotations

from inosync.changes import Part
from inosync.system import process
from inosync.text import plural


class Title:
    """Sets the title of this process. ``name`` is the node's."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._transferring = False
        """Whether a transfer runs, about which the master knows less."""
        self._stopping = False
        """Whether no other title is set any more."""

    def starting(self) -> None:
        self._set("[starting]")

    def transferring(self, part: Part, count: int, percent: int | None = None) -> None:
        """Show the transfer of a part of a batch of ``count`` names.

        ``percent`` is how much of a full mirror is done; None until rsync has said so.
        """
        self._transferring = True
        full = "[full]" if percent is None else f"[full] {percent}%"
        self._set(full if part.full else f"[syncing] {plural(count, 'path')}")

    def transfer_ended(self) -> None:
        """Show what the master sends from now on."""
        self._transferring = False

    def show(self, text: str) -> None:
        """Show a title that the master has sent, unless a transfer has begun meanwhile."""
        if not (self._transferring or self._stopping):
            process.set_title(text)

    def stopping(self) -> None:
        self._set("[stopping]")
        self._stopping = True

    def _set(self, text: str) -> None:
        if not self._stopping:
            process.set_title(f"inosync: {self._name} {text}")
