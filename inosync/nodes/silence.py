"""When a worker that takes no orders is given up, pure.

A worker never waits for a transfer, so it takes an order at once. An order that is still unread after the
patience of its node is over tells that it is stopped, or hangs. No answer is needed for that, and a worker
that has nothing to do is sent an order that means nothing (``HangFinding.ASK``), a few times a minute at
most: never while another one is unread, so that these alone cannot fill its queue.

HangDetector counts only as far as whoever looks was awake himself: the gap between two looks is worth ``GAP``
seconds at most, however long it was. After a suspended machine, or a master that was stopped, nobody is
blamed for it; and where a machine is so loaded that looks are rare, patience lasts longer.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

LEAST, MOST = 10.0, 60.0
"""Bounds of the patience with a worker, in seconds. When it starts, ssh may be asked for 5 s (``Line``)."""
LONGEST = 3600.0
"""... and how far it grows while one worker after the other takes no orders. To look at very many names on
a slow disk is no hanging, and must come to an end at last."""
GAP = 2.0


class HangFinding(enum.Enum):
    """What a look at a worker says."""

    FINE = "fine"
    ASK = "ask"
    """It has taken all, and that was long ago: send it something."""
    GIVE_UP = "give up"


@dataclass(frozen=True, slots=True)
class HangDetector:
    """What is known of one process. Times by the clock, in seconds."""

    looked: float
    """When it was looked at last."""
    ask_at: float
    """When it is sent something, if it has taken everything until then."""
    taken: int = 0
    """Bytes of orders that it had taken by then."""
    seconds: float = 0.0
    """For how long it has taken none, though there were some."""


def patience(timeout: float, silences: int) -> float:
    """Seconds without a sign of life after which a worker is replaced.

    ``timeout``: the node's rtimeout, 0 is without a limit; ``silences``: how many workers of the node were
    replaced for that in a row.
    """
    first = min(max(timeout, LEAST), MOST) if timeout else MOST
    return min(first * 2.0 ** min(silences, 64), LONGEST)


def start(now: float, patience: float, rand: float) -> HangDetector:
    """A process that was just forked. ``rand`` in [0, 1) keeps a hundred of them from waking together."""
    return HangDetector(now, now + _pause(patience, rand))


def look(
    before: HangDetector, now: float, taken: int, unread: int, patience: float, rand: float
) -> tuple[HangDetector, HangFinding]:
    """Look again: ``taken`` and ``unread`` are bytes of orders, since its start and at this moment."""
    known = replace(before, looked=now, taken=taken)
    if unread and taken == before.taken:
        seconds = before.seconds + min(max(now - before.looked, 0.0), GAP)
        return replace(
            known, seconds=seconds
        ), HangFinding.GIVE_UP if seconds >= patience else HangFinding.FINE
    known = replace(known, seconds=0.0)
    if unread or now < before.ask_at:
        return known, HangFinding.FINE
    return replace(known, ask_at=now + _pause(patience, rand)), HangFinding.ASK


def _pause(patience: float, rand: float) -> float:
    return patience / 2 * (1 - rand / 2)
