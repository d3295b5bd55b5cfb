"""Which fault comes when, when it is healed, and whether those without one notice anything."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from chaos import command_faults, node_faults, process_faults, reload_faults
from chaos.faults import Impossible, Kind, Lasting, draw
from chaos.markers import Lag, Markers
from chaos.testbed import World

KINDS = [*process_faults.KINDS, *node_faults.KINDS, *reload_faults.KINDS, *command_faults.KINDS]
LONGEST = 8.0
"""Seconds that a fault lasts at most, if everybody else is served in that time."""
ISOLATED = 90.0
"""Seconds after which a node without a fault that has not been served while another had one has failed."""


@dataclass
class _Active:
    """A fault that lasts. It is not healed before the marker is on all nodes that are expected to have it."""

    kind: Kind
    fault: Lasting
    until: float
    since: float
    marker: int
    expected: set[str]


@dataclass
class Schedule:
    """Faults at random, the same ones for the same ``seed``. Times in seconds since the world's beginning.

    ``pause``: the mean between two. ``only``: the names of the kinds that are left, or empty for all. After
    each ``round`` of so many all is to be healed and compared; in every second round there is none that makes
    the daemon compare whole trees, so that what is lost stays lost.
    """

    world: World
    markers: Markers
    seed: str
    pause: float
    only: Collection[str] = ()
    round: int = 20
    tell: Callable[[str], None] = print
    count: Counter[str] = field(default_factory=Counter)
    """Faults by kind."""
    impossible: int = 0
    probes: int = 0
    """Markers that had to arrive while somebody else had a fault."""
    failures: list[str] = field(default_factory=list)
    """Of isolation."""
    isolation: Lag = field(default_factory=Lag)
    """The longest that such a marker took."""
    rounds: int = 0
    """Those that are over."""
    _drawn: int = 0
    _active: dict[str, _Active] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._chances = random.Random(self.seed)
        self._next = self.world.now()
        kinds = [kind for kind in KINDS if not self.only or kind.name in self.only]
        assert kinds, f"no such kind of fault; there are: {', '.join(kind.name for kind in KINDS)}"
        self._kinds = [kinds, [kind for kind in kinds if not kind.compares] or kinds]

    @property
    def faulty(self) -> set[str]:
        """The nodes that have a fault at the moment."""
        return {node for active in self._active.values() for node in active.fault.nodes}

    def step(self) -> None:
        """Heal what it is time for, and begin what it is time for."""
        self.markers.disturb(self.faulty)
        for resource, active in list(self._active.items()):
            if self._served(active) and self.world.now() >= active.until:
                self._heal(resource)
        if self.world.now() >= self._next and not self.is_over:
            self._begin()

    @property
    def is_over(self) -> bool:
        """Whether the round is."""
        return self._drawn >= self.round * (self.rounds + 1)

    def heal_all(self) -> None:
        """Heal everything, in the order in which it began; if the round is over, begin the next one."""
        for resource in list(self._active):
            self._heal(resource)
        self.rounds += self.is_over

    @property
    def waits(self) -> bool:
        """Whether somebody without a fault is still to be served."""
        return any(not self._served(active) for active in self._active.values())

    def _begin(self) -> None:
        chances = draw(self._chances, LONGEST, self.pause)
        kinds = self._kinds[self.rounds % 2]
        [kind] = random.Random(chances.kind).choices(kinds, [kind.weight for kind in kinds])
        self._drawn += 1
        try:
            happened = kind.begin(self.world, chances)
        except Impossible as why:
            self.impossible += 1
            self.tell(f"{kind.name}: not now: {why}")
        else:
            self.count[kind.name] += 1
            lasts = f", for {chances.seconds:.1f} s" if isinstance(happened, Lasting) else ""
            self.tell(f"{kind.name}: {happened.told or 'done'}{lasts}")
            self.markers.disturb(happened.nodes)
            if isinstance(happened, Lasting):
                self._add(kind, happened, chances.seconds)
        self._next = self.world.now() + chances.pause

    def _add(self, kind: Kind, fault: Lasting, seconds: float) -> None:
        self.world.busy.add(fault.resource)
        marker = self.markers.write() if fault.nodes else 0
        now = self.world.now()
        self._active[fault.resource] = _Active(kind, fault, now + seconds, now, marker, set())
        faulty = self.faulty
        self._active[fault.resource].expected.update(
            node for node in self.world.nodes if marker and node not in faulty
        )
        # Whoever has a fault himself now is not expected to be served any more.
        for active in self._active.values():
            active.expected.difference_update(fault.nodes)

    def _served(self, active: _Active) -> bool:
        for node in sorted(active.expected):
            if self.markers.has(node, active.marker):
                active.expected.discard(node)
                self.probes += 1
                self.isolation.add(self.world.now() - active.since, node)
            elif self.world.now() - active.since > ISOLATED:
                active.expected.discard(node)
                self.failures.append(f"{node} was not served while: {active.kind.name}: {active.fault.told}")
        return not active.expected

    def _heal(self, resource: str) -> None:
        active = self._active.pop(resource)
        self.markers.disturb(active.fault.nodes)
        active.fault.heal()
        self.world.busy.discard(resource)
        lasted = self.world.now() - active.since
        self.tell(f"healed after {lasted:.1f} s: {active.kind.name}: {active.fault.told}")
