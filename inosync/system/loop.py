"""Waiting for several descriptors at once, and calling who is concerned."""

from __future__ import annotations

import contextlib
import selectors
from collections.abc import Callable
from typing import Protocol


class _HasDescriptor(Protocol):
    def fileno(self) -> int: ...


Source = int | _HasDescriptor


class Loop:
    """Descriptors and the calls that are due when they become readable (or writable)."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def on_readable(self, source: Source, call: Callable[[], object]) -> None:
        """Call when there is something to read, or the end."""
        self._selector.register(source, selectors.EVENT_READ, call)

    def on_writable(self, source: Source, call: Callable[[], object]) -> None:
        """Call when writing would not block, or would fail."""
        self._selector.register(source, selectors.EVENT_WRITE, call)

    def drop(self, source: Source) -> None:
        """Call for a descriptor no longer; before it is closed. One that is not known is fine."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(source)

    def turn(self, timeout: float | None) -> None:
        """Wait for at most ``timeout`` seconds (None: for ever) and make the calls."""
        for key, _ in self._selector.select(timeout):
            # A call may have dropped another descriptor, and its number may already be somebody else's.
            if self._selector.get_map().get(key.fd) is key:
                key.data()

    def descriptors(self) -> list[int]:
        """What a forked child has to close."""
        fileno = getattr(self._selector, "fileno", None)  # select and poll, the fallbacks, have none
        return [fileno()] if fileno is not None else []
