"""The changes of state that a node's worker runs the on_state hook for. Pure."""

from __future__ import annotations

from dataclasses import replace

from inosync.nodes.messages import StateChanged


class StateHookQueue:
    """Changes of state, one at a time; those that wait for a hook that runs become one change."""

    def __init__(self) -> None:
        self._running: StateChanged | None = None
        self._waiting: StateChanged | None = None

    def add(self, change: StateChanged) -> None:
        """Have the hook run for a change; a change back to the state before is none."""
        if self._waiting is not None:
            change = replace(change, before=self._waiting.before)
        self._waiting = None if change.state == change.before else change

    def next(self) -> StateChanged | None:
        """Return the change for which the hook is to run now; None while it runs."""
        if self._running is not None:
            return None
        self._running, self._waiting = self._waiting, None
        return self._running

    def finish(self) -> None:
        self._running = None

    def restart(self) -> None:
        """The worker is gone: its successor runs the hook again, for the newest change."""
        self._running, self._waiting = None, self._waiting or self._running
