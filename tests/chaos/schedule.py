"""When each fault begins and is healed, and whether nodes without a fault are delayed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from chaos import command_faults, mount_faults, node_faults, process_faults, reload_faults
from chaos.faults import Impossible, Kind, Lasting, draw
from chaos.markers import Lag, Markers
from chaos.testbed import Testbed

KINDS = [
    *process_faults.KINDS,
    *node_faults.KINDS,
    *mount_faults.KINDS,
    *reload_faults.KINDS,
    *command_faults.KINDS,
]
LONGEST = 8.0
"""The most seconds that a fault lasts, if the other nodes get their changes in that time."""
ISOLATED = 90.0
"""Seconds within which a node without a fault must get a change while another node has one."""


@dataclass
class _Active:
    """A lasting fault. It is healed only when the marker is on all nodes that are expected to get it."""

    kind: Kind
    fault: Lasting
    until: float
    since: float
    marker: int
    expected: set[str]


@dataclass
class Schedule:
    """Random faults, the same ones for the same ``seed``. Times are in seconds since the beginning.

    ``pause`` is the mean time between two, ``only`` the names of the kinds, empty for all but ``without``.
    After each ``round`` of so many faults all is healed and compared. In every second round no fault causes a
    full mirror, so that a loss is not repaired.
    """

    testbed: Testbed
    markers: Markers
    seed: str
    pause: float
    only: Collection[str] = ()
    without: Collection[str] = ()
    round: int = 20
    tell: Callable[[str], None] = print
    count: Counter[str] = field(default_factory=Counter)
    """The number of faults by kind."""
    impossible: int = 0
    probes: int = 0
    """The number of markers that had to arrive during a fault of another node."""
    failures: list[str] = field(default_factory=list)
    """Failures of isolation."""
    isolation: Lag = field(default_factory=Lag)
    """The longest time that such a marker took."""
    rounds: int = 0
    """The number of rounds that are over."""
    _drawn: int = 0
    _active: dict[str, _Active] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._chances = random.Random(self.seed)
        self._next = self.testbed.now()
        names = {kind.name for kind in KINDS}
        unknown = {*self.only, *self.without} - names
        assert not unknown, f"no such kind of fault; there are: {', '.join(names)}"
        chosen = set(self.only or names).difference(self.without)
        kinds = [kind for kind in KINDS if kind.name in chosen]
        self._kinds = [kinds, [kind for kind in kinds if not kind.compares] or kinds]

    @property
    def faulty(self) -> set[str]:
        """The nodes that have a fault now."""
        return {node for active in self._active.values() for node in active.fault.nodes}

    def step(self) -> None:
        """Heal the faults that are over, and begin the next one if it is due."""
        self.markers.disturb(self.faulty)
        for resource, active in list(self._active.items()):
            if self._served(active) and self.testbed.now() >= active.until:
                self._heal(resource)
        if self.testbed.now() >= self._next and not self.is_over:
            self._begin()

    @property
    def compares(self) -> bool:
        """Whether faults of this round cause full mirrors."""
        return self.rounds % 2 == 0

    @property
    def is_over(self) -> bool:
        """Whether the round is over."""
        return self._drawn >= self.round * (self.rounds + 1)

    def heal_all(self) -> None:
        """Heal all faults in the order of their beginning; if the round is over, begin the next one."""
        for resource in list(self._active):
            self._heal(resource)
        self.rounds += self.is_over

    @property
    def waits(self) -> bool:
        """Whether a node without a fault still lacks a marker."""
        return any(not self._served(active) for active in self._active.values())

    def _begin(self) -> None:
        chances = draw(self._chances, LONGEST, self.pause)
        kinds = self._kinds[self.rounds % 2]
        [kind] = random.Random(chances.kind).choices(kinds, [kind.weight for kind in kinds])
        self._drawn += 1
        try:
            happened = kind.begin(self.testbed, chances)
        except Impossible as why:
            self.impossible += 1
            self.tell(f"{kind.name}: not now: {why}")
        else:
            self.count[kind.name] += 1
            lasts = f", for {chances.seconds:.1f} s" if isinstance(happened, Lasting) else ""
            self.tell(f"{kind.name}: {happened.description or 'done'}{lasts}")
            self.markers.disturb(happened.nodes)
            if isinstance(happened, Lasting):
                self._add(kind, happened, chances.seconds)
        self._next = self.testbed.now() + chances.pause

    def _add(self, kind: Kind, fault: Lasting, seconds: float) -> None:
        self.testbed.busy.add(fault.resource)
        marker = self.markers.write() if fault.nodes else 0
        now = self.testbed.now()
        self._active[fault.resource] = _Active(kind, fault, now + seconds, now, marker, set())
        faulty = self.faulty
        self._active[fault.resource].expected.update(
            node for node in self.testbed.nodes if marker and node not in faulty
        )
        # A node that has a fault itself is no longer expected to get the markers.
        for active in self._active.values():
            active.expected.difference_update(fault.nodes)

    def _served(self, active: _Active) -> bool:
        for node in sorted(active.expected):
            if self.markers.has(node, active.marker):
                active.expected.discard(node)
                self.probes += 1
                self.isolation.add(self.testbed.now() - active.since, node)
            elif self.testbed.now() - active.since > ISOLATED:
                active.expected.discard(node)
                self.failures.append(
                    f"{node} was not served while: {active.kind.name}: {active.fault.description}"
                )
        return not active.expected

    def _heal(self, resource: str) -> None:
        active = self._active.pop(resource)
        self.markers.disturb(active.fault.nodes)
        active.fault.heal()
        self.testbed.busy.discard(resource)
        lasted = self.testbed.now() - active.since
        self.tell(f"healed after {lasted:.1f} s: {active.kind.name}: {active.fault.description}")
