"""The last changes of state and failures of each node, as the log tells them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from inosync.state.document import NodeEvent
from inosync.text import shortened, without_password

MAX_EVENTS = 20
"""Of a node."""
MAX_BRIEF_EVENTS = 5
MAX_TEXT_BYTES = 300


class NodeEvents(logging.Handler):
    """Remembers events, of which each is a line of the log. ``past``: by node, those of earlier processes."""

    def __init__(self, past: Mapping[str, Sequence[NodeEvent]]) -> None:
        super().__init__()
        self.recorded = 0
        """How many there have been in this process."""
        self._events = {name: deque(events, MAX_EVENTS) for name, events in past.items()}
        """By node, oldest first."""

    def emit(self, record: logging.LogRecord) -> None:
        """Remember a line if it tells of a change of state, or of a failure of a node."""
        facts: Mapping[str, object] = getattr(record, "facts", {})
        name, kind = str(facts.get("node", "")), str(facts.get("event", ""))
        if not name or not (kind == "state" or record.levelno >= logging.WARNING):
            return
        text = record.getMessage().removeprefix(f"{name}: ")
        if kind == "failed":  # without the number of the try, so that equal ones are one
            code = f" (rsync's exit code {facts['code']})" if facts.get("code") else ""
            text = f"{facts.get('reason')}{code}"
        event = NodeEvent(record.created, kind, shortened(without_password(text), MAX_TEXT_BYTES))
        self.recorded += 1
        known = self._events.setdefault(name, deque(maxlen=MAX_EVENTS))
        is_repeated = bool(known) and (known[-1].kind, known[-1].text) == (kind, event.text)
        if is_repeated and kind != "state":  # the same state is another one after a restart
            event = replace(event, count=known.pop().count + 1)
        known.append(event)

    def of(self, name: str, most: int = MAX_EVENTS) -> tuple[NodeEvent, ...]:
        """Return the last events of a node, oldest first."""
        return tuple(self._events.get(name, ()))[-most:]

    def brief(self, name: str) -> list[tuple[float, str, str, int]]:
        """Return what the page shows of ``of``."""
        return [(one.at, one.kind, one.text, one.count) for one in self.of(name, MAX_BRIEF_EVENTS)]

    def forget_all_but(self, names: Collection[str]) -> None:
        self._events = {name: events for name, events in self._events.items() if name in names}
