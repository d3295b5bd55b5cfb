"""What a start takes over: times by its own clock, what is owed, pauses, and nothing that is doubted."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from support import configs

from inosync.changes import Change, Kind
from inosync.config.load import Config
from inosync.guard.loss import Memory
from inosync.master import resume
from inosync.master.resume import Resume, log_doubts
from inosync.nodes.retries import Retry, RetrySet
from inosync.state import facts, trust
from inosync.state.document import Owed, SavedNode, SavedTree, State
from inosync.state.saved_fleet import SavedFleet
from inosync.state.trust import MARGIN_SECONDS

NOW, WALL = 1000.0, 50_000.0


class FakeNode:
    def __init__(self, name: str) -> None:
        self.name, self.trees = name, (1,)
        self.retries = RetrySet((1, 300))
        self.taken: dict[str, Any] = {}

    def set_paused(self, paused: bool) -> None:
        self.taken["paused"] = paused

    def take_over(self, retries: Any, problem: str, untidy_since: float | None, hooks_lost: bool) -> None:
        self.retries.take_over(retries)
        self.taken |= {"problem": problem, "untidy_since": untidy_since, "hooks_lost": hooks_lost}

    def take_over_times(self, last_ok: Any, verified_at: Any, differences: int) -> None:
        self.taken |= {"last_ok": last_ok, "verified_at": verified_at, "differences": differences}


class World:
    def __init__(self) -> None:
        self.config: Config = configs.config()
        (self.tree,), (self.spec,) = self.config.trees, self.config.nodes
        self.numbers = {self.tree.wpath: 1}
        root, self.identity = facts.of_root(self.tree.wpath)
        self.saved = SavedNode(
            time=WALL - 100,
            trees={self.tree.wpath: trust.decisive(self.spec, self.tree)},
            owed=(
                Owed(self.tree.wpath, b"failed", Kind.NAME, False, 3, WALL - 60),
                Owed(self.tree.wpath, b"look again"),
                Owed("/gone", b"x"),
            ),
            problem="full disk",
            last_ok=WALL - 100,
            verified_at=WALL - 900,
            differences=2,
        )
        self.state = State(
            config=self.config.path,
            written=WALL - 90,
            boot="",
            clock_offset=0.0,
            clean=True,
            common=trust.decisive_for_all(None, self.config.emask, True),
            trees={self.tree.wpath: SavedTree(root, memory=Memory(entries=2))},
            nodes={self.spec.name: self.saved},
        )

    def resume(self, state: State | None, why: str = "") -> Resume:
        return Resume(state, why, self.config, lambda: NOW, lambda: WALL)

    def restored(self, state: State | None, why: str = "") -> dict[str, Any]:
        made, node = self.resume(state, why), FakeNode(self.spec.name)
        made.judge(self.tree, ())
        made.restore(cast(Any, node), self.numbers)
        self.retries = dict(node.retries.items())
        return node.taken


@pytest.fixture
def world(here: Path) -> World:  # noqa: ARG001 - configurations are written there
    return World()


def test_walk_begins_at_the_oldest_time_less_a_margin(world: World) -> None:
    older = replace(world.saved, time=WALL - 500)
    world.config = replace(world.config, nodes=(world.spec, replace(world.spec, name="older")))
    state = replace(world.state, nodes={**world.state.nodes, "older": older})
    since = world.resume(state).judge(world.tree, ())
    assert since is not None
    assert since.after == int((WALL - 500 - MARGIN_SECONDS) * 1e9)
    assert since.root == world.identity
    assert world.identity[0] in since.devices


def test_node_gets_what_it_had_by_the_clock_of_this_process(world: World) -> None:
    assert world.restored(world.state) == {
        "paused": False,
        "problem": "full disk",
        "untidy_since": None,
        "hooks_lost": False,
        "last_ok": NOW - 100,
        "verified_at": NOW - 900,
        "differences": 2,
    }
    assert world.retries == {
        Change(1, b"failed", Kind.NAME): Retry(3, NOW, NOW - 60),
        Change(1, b"look again", Kind.NAME): Retry(0, NOW, math.inf),
    }


def test_without_an_orderly_end_transfers_and_hooks_may_have_been_cut_off(world: World) -> None:
    taken = world.restored(replace(world.state, clean=False))
    assert world.saved.time is not None
    assert taken["untidy_since"] == NOW - (WALL - world.saved.time)
    assert taken["hooks_lost"]


def test_doubted_node_gets_its_pause_and_nothing_else(world: World) -> None:
    state = replace(world.state, nodes={world.spec.name: replace(world.saved, time=None, paused=True)})
    assert world.restored(state) == {"paused": True}
    assert world.retries == {}


@pytest.mark.parametrize("state", ["none", "full"])
def test_no_tree_is_caught_up_with_without_a_state(state: str, world: World) -> None:
    made = world.resume(None if state == "none" else world.state, f"of {state}")
    assert made.judge(world.tree, ()) is None
    assert made.take_doubts(world.tree.wpath) == {world.spec.name: f"of {state}"}
    assert made.take_doubts(world.tree.wpath) == {}, "a later walk has other reasons"


def test_root_that_is_not_there_is_doubted(world: World) -> None:
    tree = replace(world.tree, wpath=f"{world.tree.wpath}/none")
    made = world.resume(world.state)
    assert made.judge(tree, ()) is None
    assert set(made.take_doubts(tree.wpath).values()) == {"it was not mirrored before"}


def test_guard_remembers_only_a_root_that_is_the_same(world: World) -> None:
    remembered: list[object] = []
    guard = cast(Any, type("Guard", (), {"remember": lambda _self, *what: remembered.append(what)})())
    world.resume(world.state).restore_memory(guard, world.numbers)
    assert remembered == [(1, Memory(entries=2))]
    tree = world.state.trees[world.tree.wpath]
    other = replace(tree, root=replace(tree.root, inode=tree.root.inode + 1))
    world.resume(replace(world.state, trees={world.tree.wpath: other})).restore_memory(guard, world.numbers)
    world.resume(None, "none").restore_memory(guard, world.numbers)
    assert len(remembered) == 1


def test_reasons_are_logged_once_with_their_nodes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    names = [f"n{number}" for number in range(6)]
    log_doubts("/w", dict.fromkeys(names[:5], "one") | {"n5": "two"}, names)
    assert [record.getMessage() for record in caplog.records] == [
        f"/w: full mirror to n0, n1, n2 and {5 - resume.MAX_NAMED} more, because one",
        "/w: full mirror to n5, because two",
    ]


FLEET = {
    "rpaths": "['/www']",
    "rnodes": "[{'node': '/n', 'extra': EXTRA}]",
    "rsenders": "[{'node': '/s', 'name': 's'}]",
    "fleet": "'redis://r/0'",
}


def fleet_world(world: World, extra: str = "[]", age: float = 300.0) -> World:
    """Make it the origin of a fleet, whose state is so old."""
    world.config = configs.config(**FLEET | {"rnodes": FLEET["rnodes"].replace("EXTRA", extra)})
    (world.tree,), (world.spec,) = world.config.trees, world.config.nodes
    assert world.config.fleet is not None
    world.saved = replace(
        world.saved, trees={world.tree.wpath: trust.decisive(world.spec, world.tree)}, owed=()
    )
    fleet = SavedFleet(world.config.fleet.fingerprint, "e", 1000, 3, WALL - age)
    common = trust.decisive_for_all(world.config.ruser, world.config.emask, world.config.rdelete)
    world.state = replace(world.state, nodes={world.spec.name: world.saved}, fleet=fleet, common=common)
    return world


def test_walk_finds_what_redis_or_a_far_node_may_lack(world: World) -> None:
    made = fleet_world(world).resume(world.state)
    since = made.judge(world.tree, ())
    assert since is not None
    assert since.after == int((WALL - 300 - MARGIN_SECONDS) * 1e9)
    assert made.fleet() == world.state.fleet
    assert made.take_doubts(world.tree.wpath) == {}


def test_fleet_of_another_configuration_begins_anew(world: World) -> None:
    fleet_world(world)
    assert world.state.fleet is not None
    state = replace(world.state, fleet=replace(world.state.fleet, config="other"))
    made = world.resume(state)
    assert made.fleet() is None
    since = made.judge(world.tree, ())
    assert since is not None
    assert since.after == int((WALL - 100 - MARGIN_SECONDS) * 1e9), "what senders lack is found by its times"
    assert made.take_doubts(world.tree.wpath) == {resume.FAR: "it is not known what they have"}


def test_far_nodes_are_doubted_with_links_that_lead_elsewhere(world: World) -> None:
    made = fleet_world(world, "['--copy-links']").resume(world.state)
    made.judge(world.tree, ())
    doubts = made.take_doubts(world.tree.wpath)
    assert doubts[resume.FAR] == "what --copy-links in extra leads to is not watched"


def test_far_nodes_are_doubted_with_their_tree(world: World) -> None:
    state = replace(fleet_world(world).state, trees={})
    made = world.resume(state)
    assert made.judge(world.tree, ()) is None
    assert made.take_doubts(world.tree.wpath)[resume.FAR] == "it was not mirrored before"


def test_fleet_is_nothing_to_a_full_start_or_a_sender(world: World) -> None:
    fleet_world(world)
    assert world.resume(world.state, "of --full").fleet() is None
    assert world.resume(None).fleet() is None
    assert world.config.fleet is not None
    world.config = replace(world.config, fleet=replace(world.config.fleet, me="s"))
    assert world.resume(world.state).fleet() is None
