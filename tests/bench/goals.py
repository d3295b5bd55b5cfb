"""What inosync is to reach, as shares of what another tool takes: for docs/performance.rst, not for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.tools import BY_HAND, COLD, DEFAULT, LSYNCD, QUICKEST, TUNED

COLUMNS = {
    DEFAULT: "inosync",
    QUICKEST: "equiet 0",
    COLD: "cold",
    LSYNCD: "lsyncd",
    TUNED: "tuned",
    BY_HAND: "by hand",
}
"""How tools are called in the table's head. What else is measured is in the text only."""


@dataclass(frozen=True)
class Goal:
    """At most this share of what ``of`` takes."""

    most: float
    of: str

    def __str__(self) -> str:
        return f"{self.most:.2f} of {self.of}"

    @property
    def short(self) -> str:
        """The same with the words of the table's head, and without any for lsyncd."""
        return f"{self.most:.2f}" if self.of == LSYNCD else f"{self.most:.2f} of {COLUMNS[self.of]}"


LATENCY: Mapping[tuple[str, str, int], Sequence[Goal]] = {
    ("edit", "daemon", 1): [Goal(0.10, LSYNCD)],
    ("edit", "daemon", 10): [Goal(0.15, LSYNCD)],
    ("edit", "daemon", 50): [Goal(0.30, LSYNCD)],
    ("edit", "ssh", 1): [Goal(0.30, TUNED), Goal(0.05, LSYNCD)],
    ("edit", "ssh", 10): [Goal(0.35, TUNED), Goal(0.05, LSYNCD)],
    ("files", "daemon", 10): [Goal(0.35, LSYNCD), Goal(1.50, BY_HAND)],
    ("files", "daemon", 50): [Goal(0.30, LSYNCD)],
}
"""By work, transport and number of nodes. Without anything said lsyncd has ``delay = 0``."""

MASTER_CPU = 2.0
"""The master's processor time for 3,000 changes to 40 nodes, in that to one node."""
READY = 1.0
"""Until 50,000 directories are watched, in lsyncd's time."""
MEMORY = 2.0
"""The master's memory with them, in lsyncd's."""
WORKER = 2.5e6
"""Bytes (PSS) of a worker at 50 nodes, its rsync apart: less than that."""
EACH = 50
"""Nodes for which the memory is told."""


def reached(share: float | None, most: float) -> str:
    """Whether a goal is: yes, no, or a dash when it is not known."""
    return "-" if share is None else "yes" if share <= most else "no"
