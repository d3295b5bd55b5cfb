"""What a start takes over from an earlier process, so that it needs no full mirrors."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from inosync.changes import Change, Step
from inosync.config.load import Config
from inosync.config.nodes import Tree
from inosync.guard.guard import Guard
from inosync.master.trees import excluded_by_all, is_one_file_system
from inosync.nodes.node import Node
from inosync.nodes.retries import Retry
from inosync.rsync.options import unwatched
from inosync.state import facts, trust
from inosync.state.document import SavedNode, State
from inosync.state.trust import TreeFacts
from inosync.watch.tree import Since

if TYPE_CHECKING:  # loaded where there is a fleet
    from inosync.state.saved_fleet import SavedFleet

log = logging.getLogger(__name__)

MAX_NAMED = 3
"""Nodes that a line of the log names."""
FAR = ""
"""Stands for the nodes of the senders of a fleet, in place of a name."""


@dataclass(slots=True)
class Resume:
    """Decides which tree of which node needs no full mirror. Times of the state are since the epoch."""

    state: State | None
    """What was left; None if it cannot be used."""
    why: str
    """Why it cannot be used."""
    config: Config
    clock: Callable[[], float]
    wall: Callable[[], float] = time.time
    _doubts: dict[str, dict[str, str]] = field(default_factory=dict)
    """By wpath and name: why nodes get a full mirror of a tree. A tree that was walked is not in it."""

    # Trees -------------------------------------------------------------------------------------------

    def judge(self, tree: Tree, points: Iterable[bytes]) -> Since | None:
        """Return since when the changes in a tree are to be recorded; None if no node can be relied on.

        ``points``: all mount points.
        """
        found: TreeFacts | None = None
        try:
            found = facts.of_tree(tree.wpath, points, excluded_by_all(tree, self.config))
        except OSError as error:
            log.debug("%s: %s", tree.wpath, error)
        if found is not None and is_one_file_system(tree, self.config):
            found = replace(found, untrusted="")  # nothing of it is sent
        doubts = self._doubts[tree.wpath] = {}
        times = []
        why = self._doubt_tree(tree, found)
        for spec in filter(lambda spec: spec.gets(tree), self.config.nodes):
            saved = self._saved(spec.name)
            decisive = trust.decisive(spec, tree)
            if doubt := why or trust.doubt_node(saved, tree.wpath, decisive, spec.extra):
                doubts[spec.name] = doubt
            elif saved is not None and saved.time is not None:
                times.append(saved.time)
        if self.config.is_origin:
            fleet = self.fleet()
            if doubt := why or self._doubt_far():
                doubts[FAR] = doubt
            elif fleet is not None:
                times.append(fleet.time)
        if not times or found is None:
            return None
        after = int((min(times) - trust.MARGIN_SECONDS) * 1e9)
        return Since(after, found.identity, found.devices)

    def _doubt_tree(self, tree: Tree, found: TreeFacts | None) -> str:
        if self.state is None or self.why:
            return self.why
        common = trust.decisive_for_all(self.config.ruser, self.config.emask, self.config.rdelete)
        return trust.doubt_settings(self.state, common, self.config.rdelete) or trust.doubt_tree(
            self.state.trees.get(tree.wpath), found
        )

    def take_doubts(self, wpath: str) -> dict[str, str]:
        """Return why nodes need a full mirror of a tree that was walked; once, for the first walk only.

        With FAR, the nodes of senders do.
        """
        return self._doubts.pop(wpath, {})

    # A fleet -----------------------------------------------------------------------------------------

    def fleet(self) -> SavedFleet | None:
        """Return how far the fleet is of which this is the origin; None if that cannot be relied on."""
        fleet, saved = self.config.fleet, None if self.state is None else self.state.fleet
        if self.why or fleet is None or saved is None or fleet.me:
            return None
        return saved if saved.config == fleet.fingerprint else None

    def _doubt_far(self) -> str:
        assert self.config.fleet is not None
        if self.fleet() is None:
            return "it is not known what they have"
        options = {option for spec in self.config.fleet.nodes for option in unwatched(spec.extra)}
        return f"what {min(options)} in extra leads to is not watched" if options else ""

    # Nodes -------------------------------------------------------------------------------------------

    def _saved(self, name: str) -> SavedNode | None:
        return None if self.state is None else self.state.nodes.get(name)

    def time_of(self, name: str) -> float | None:
        """Return the time before which a node has everything, as the state says."""
        saved = self._saved(name)
        return None if saved is None else saved.time

    def restore(self, node: Node, numbers: Mapping[str, int]) -> None:
        """Give a node what is known of it, before its worker starts. ``numbers``: of the trees, by wpath."""
        saved = self._saved(node.name)
        if saved is None or self.state is None:
            return
        node.set_paused(saved.paused)
        if saved.paused:
            log.warning("%s: is paused, as it was: -s resume continues", node.name)
        wpaths = [wpath for wpath, number in numbers.items() if number in node.trees]
        resumed = [wpath for wpath in wpaths if node.name not in self._doubts.get(wpath, {})]
        if not resumed:
            return
        node.take_over(
            dict(self._owed(saved, {wpath: numbers[wpath] for wpath in resumed})),
            problem=saved.problem,
            # Without an orderly end, what was on its way is not known.
            untidy_since=self._by_clock(saved.time) if saved.untidy or not self.state.clean else None,
            hooks_lost=saved.hooks_lost or not self.state.clean,
        )
        node.take_over_times(
            self._by_clock(saved.last_ok), self._by_clock(saved.verified_at), saved.differences
        )

    def _owed(self, saved: SavedNode, numbers: Mapping[str, int]) -> Iterable[tuple[Change, Retry]]:
        now = self.clock()
        for one in saved.owed:
            if one.wpath in numbers:
                since = self._by_clock(one.since)
                retry = Retry(one.attempt, now, math.inf if since is None else since)
                tree = numbers[one.wpath]
                yield Change(tree, one.path, one.kind, one.ignore_times, Step.UNKNOWN), retry

    def _by_clock(self, wall: float | None) -> float | None:
        return None if wall is None else self.clock() - max(self.wall() - wall, 0.0)

    def restore_memory(self, guard: Guard, numbers: Mapping[str, int]) -> None:
        """Give the guard what it knew of the roots that are what they were."""
        for wpath, number in numbers.items() if self.state is not None else ():
            assert self.state is not None
            saved = self.state.trees.get(wpath)
            try:
                is_same = saved is not None and facts.of_root(wpath)[0] == saved.root
            except OSError:
                is_same = False
            if saved is not None and is_same:
                guard.remember(number, saved.memory)


def log_doubts(wpath: str, doubts: Mapping[str, str], nodes: Collection[str]) -> None:
    """Log why nodes get a full mirror of a tree; ``nodes``: all that get it, one way or the other."""
    by_reason: dict[str, list[str]] = {}
    for name, why in doubts.items():
        by_reason.setdefault(why, []).append(name)
    for why, names in by_reason.items():
        rest = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        who = "all nodes" if len(names) == len(nodes) else ", ".join(names[:MAX_NAMED]) + rest
        log.info("%s: full mirror to %s, because %s", wpath, who, why)
