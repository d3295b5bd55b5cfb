"""Which nodes a sender takes and gives up, so that all are served, and the work is divided evenly. Pure.

Every sender decides for itself. Senders that see the same take different nodes; what they see may differ for
a moment, and then leases decide. Nodes move one by one, and only to a sender that has at least two less: so
no move calls for another one back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FleetView:
    """What a sender sees. Senders and nodes by their names."""

    nodes: Mapping[str, Collection[str] | None]
    """Every node, with the senders that may serve it; None: all."""
    ready: Collection[str]
    """Senders whose heartbeat says that they take nodes: clean, and with the configuration of the origin."""
    held: Mapping[str, str]
    """For nodes whose lease is held: by which sender, ready or not."""
    late: Collection[str] = ()
    """Ready senders whose copies stay behind: they serve only what no other can."""

    def may_serve(self, sender: str, node: str) -> bool:
        """Whether the configuration lets a sender serve a node."""
        senders = self.nodes.get(node, ())
        return senders is None or sender in senders

    def prompt(self, node: str) -> list[str]:
        """Return the ready senders that may serve a node and are not late, by their names."""
        return [one for one in sorted(self.ready) if one not in self.late and self.may_serve(one, node)]

    def loads(self) -> Counter[str]:
        """Return how many nodes each ready sender holds."""
        held = Counter(sender for node, sender in self.held.items() if node in self.nodes)
        return Counter({sender: held[sender] for sender in self.ready})


@dataclass(frozen=True, slots=True)
class Shift:
    """What changes for a sender."""

    take: tuple[str, ...] = ()
    give_up: tuple[str, ...] = ()
    """Each once its batch has ended."""


def shift(view: FleetView, me: str) -> Shift:
    """Return what a sender takes and gives up now."""
    mine = sorted(node for node, sender in view.held.items() if sender == me)
    if me not in view.ready:
        return Shift(give_up=tuple(mine))
    foreign = tuple(node for node in mine if not view.may_serve(me, node))
    loads = view.loads()
    take = tuple(node for node, sender in _assigned(view, loads) if sender == me)
    if me in view.late:
        foreign = tuple(node for node in mine if node in foreign or view.prompt(node))
    if foreign or take or me in view.late:
        return Shift(take, foreign)
    return Shift(give_up=_excess(view, me, mine, loads))


def unserved(view: FleetView) -> tuple[str, ...]:
    """Return the nodes that no sender holds, and none can take now."""
    free = sorted(view.nodes.keys() - view.held.keys())
    return tuple(node for node in free if not any(view.may_serve(sender, node) for sender in view.ready))


def _assigned(view: FleetView, loads: Counter[str]) -> Iterator[tuple[str, str]]:
    """Yield each free node with the sender that has the least of those that may serve it.

    Nodes with few senders come first, while there is still a choice for the others.
    """
    options = {
        node: view.prompt(node) or [sender for sender in sorted(view.ready) if view.may_serve(sender, node)]
        for node in view.nodes.keys() - view.held.keys()
    }
    for node in sorted(options, key=lambda node: (len(options[node]), node)):
        if options[node]:
            sender = _least(options[node], loads)
            loads[sender] += 1
            yield node, sender


def _excess(view: FleetView, me: str, mine: Iterable[str], loads: Counter[str]) -> tuple[str, ...]:
    """Return the one node that makes the fleet most even if another sender has it."""
    targets = {}
    for node in mine:
        others = [sender for sender in view.prompt(node) if sender != me]
        if others:
            targets[node] = loads[_least(others, loads)]
    if not targets:
        return ()
    node = min(targets, key=lambda node: (targets[node], node))
    return (node,) if targets[node] <= loads[me] - 2 else ()


def _least(senders: Iterable[str], loads: Counter[str]) -> str:
    return min(senders, key=lambda sender: (loads[sender], sender))
