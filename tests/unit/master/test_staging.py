"""Stages joined with nodes, the journal and checks: real ones of all but nodes and workers."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.filters import excludes

from inosync.changes import Change, Kind
from inosync.config.hook import Hook, OnStage
from inosync.filters.rules import Rules
from inosync.journal.journal import Journal
from inosync.journal.subscription import Subscription
from inosync.master.staging import Staging
from inosync.master.trees import TreeTable
from inosync.nodes.lifecycle import Phase
from inosync.nodes.retries import RetrySet
from inosync.nodes.roll_out import RollOut
from inosync.system.loop import Loop

LIMIT_SECONDS = 60.0
STAGES = (("a",), ("b",))
ASK = """
exec 3>> "$0"
echo "$INOSYNC_STAGE $INOSYNC_NODES $INOSYNC_COUNT $INOSYNC_FULL" >&3
tr '\\0' '\\n' < "${INOSYNC_NAMES:-/dev/null}" >&3
read -r code < "$1"
echo "said $code"
exit "$code"
"""


class World:
    """A node in each of two stages, and a check that does what a file says."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.loop = Loop()
        self.journal = Journal()
        self.offered: list[str] = []
        self.replaced: list[str] = []
        self.incomplete: set[int] = set()
        self.nodes = {name: self.node(name) for name in "ab"}
        dispatch = SimpleNamespace(
            roll_out=RollOut(), offer_batch=lambda node: self.offered.append(node.name)
        )
        pool = SimpleNamespace(
            nodes=self.nodes,
            dispatch=dispatch,
            loop=self.loop,
            publisher=SimpleNamespace(publish_soon=lambda: None),
            is_stopping=False,
            replace_worker=lambda node: self.replaced.append(node.name),
        )
        watcher = SimpleNamespace(incomplete_trees=self.incomplete)
        table = TreeTable({"/www": 1})
        self.staging = Staging(cast(Any, pool), self.journal, cast(Any, watcher), table, str(home))
        self.answer(0)

    @staticmethod
    def node(name: str) -> Any:
        state = SimpleNamespace(phase=Phase.IDLE)
        return SimpleNamespace(
            name=name,
            cursor=0,
            paused=False,
            trees=(1,),
            subscription=Subscription({1: Rules(())}, frozenset(), True),
            retries=RetrySet((1.0, 2.0)),
            worker=SimpleNamespace(state=state),
            outstanding=None,
        )

    def answer(self, code: int) -> None:
        (self.home / "code").write_text(f"{code}\n")

    def configure(self, **settings: Any) -> None:
        hook = Hook(("/bin/sh", "-c", ASK, str(self.home / "asked"), str(self.home / "code")))
        self.staging.configure(STAGES, OnStage(hook, **settings))

    def record(self, *paths: bytes) -> int:
        for path in paths:
            self.journal.record(Change(1, path, Kind.NAME), self.loop.clock())
        return self.journal.head

    @property
    def limit(self) -> int:
        return self.staging.roll_out.limits["b"]

    @property
    def refusal(self) -> str:
        return self.staging.roll_out.hold_before("b")

    @property
    def asked(self) -> list[str]:
        path = self.home / "asked"
        return path.read_text().splitlines() if path.exists() else []

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + LIMIT_SECONDS
        while not condition():
            assert time.monotonic() < end
            self.staging.advance()
            self.loop.turn(0.02)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_check_is_told_what_is_new_in_a_stage(world: World) -> None:
    world.configure()
    world.until(lambda: world.limit == 0)
    assert world.asked == ["1 a 0 1"], "what was there before is not known"
    head = world.nodes["a"].cursor = world.record(b"p", b"q")
    world.offered.clear()
    world.until(lambda: world.limit == head)
    assert world.asked[1:] == ["1 a 2 0", "/www/p", "/www/q"]
    assert "b" in world.offered
    assert sorted(path.name for path in world.home.iterdir()) == ["asked", "code"]


def test_check_that_fails_holds_until_it_is_asked_again(world: World) -> None:
    world.configure()
    world.answer(3)
    world.until(lambda: world.refusal)
    assert world.refusal == "stage 1 was not let pass: on_stage ended with exit code 3: said 3"
    world.answer(0)
    assert world.staging.retry() == [1]
    world.until(lambda: world.limit == 0)
    assert world.staging.retry() == []


def test_check_that_cannot_be_started_does_not_pass(world: World) -> None:
    world.staging.configure(STAGES, OnStage(Hook((str(world.home / "none"),))))
    world.until(lambda: world.refusal)
    assert "No such file or directory" in world.refusal
    assert world.staging.accept() == [1]
    assert world.limit == 0


def test_check_may_be_a_function_which_runs_in_a_process_of_its_own(world: World) -> None:
    def check(event: Mapping[str, Any]) -> None:
        facts = [str(event[name]) for name in ("event", "stage", "nodes", "full")]
        (world.home / "told").write_text(" ".join([*facts, str(os.getpid() != master)]))

    master = os.getpid()
    world.staging.configure(STAGES, OnStage(Hook(call=check)))
    world.until(lambda: world.limit == 0)
    assert (world.home / "told").read_text() == "stage 1 a 1 True"


def test_stage_has_not_confirmed_what_a_node_of_it_is_owed(world: World) -> None:
    world.staging.configure(STAGES, None)
    world.until(lambda: world.limit == 0)
    world.record(b"p")
    world.record(b"q")
    world.nodes["a"].retries.add(Change(1, b"q", Kind.NAME), world.loop.clock())
    world.nodes["a"].cursor = head = world.record(b"r")
    world.until(lambda: world.limit == 1)
    world.nodes["a"].retries.forget_tree(1)
    world.until(lambda: world.limit == head)


def test_stage_has_confirmed_nothing_while_a_tree_is_walked(world: World) -> None:
    world.staging.configure(STAGES, None)
    world.incomplete.add(1)
    world.staging.advance()
    assert world.limit == -1
    world.incomplete.clear()
    world.until(lambda: world.limit == 0)


def test_change_that_no_pattern_names_needs_no_check(world: World) -> None:
    world.configure(only=excludes(["*.html"]))
    world.until(lambda: world.limit == 0)
    head = world.nodes["a"].cursor = world.record(b"picture")
    world.until(lambda: world.limit == head)
    assert len(world.asked) == 1
    head = world.nodes["a"].cursor = world.record(b"page.html")
    world.until(lambda: world.limit == head)
    assert world.asked[1:] == ["1 a 1 0", "/www/page.html"]


def test_check_that_a_reload_has_made_meaningless_changes_nothing(world: World) -> None:
    slow = Hook(("/bin/sh", "-c", "sleep 1000"))
    world.staging.configure(STAGES, OnStage(slow))
    world.until(world.staging.descriptors)
    world.staging.configure((("b",), ("a",)), OnStage(slow))
    world.until(world.staging.descriptors)
    assert world.staging.roll_out.limits == {"a": -1}
    assert world.staging.roll_out.hold_before("a") == ""
    world.staging.close()


def test_batch_with_something_newer_is_taken_back_before_its_next_try(world: World) -> None:
    world.staging.configure(STAGES, None)
    head = world.nodes["a"].cursor = world.record(b"p")
    world.until(lambda: world.limit == head)
    node = world.nodes["b"]
    batch = SimpleNamespace(id=1)
    node.outstanding = SimpleNamespace(batch=batch, changes=lambda _trees: {Change(1, b"p", Kind.NAME)})
    node.worker.state.phase = Phase.WAITING
    world.record(b"q")
    world.staging.take_back()
    assert world.replaced == [], "nothing of it has changed again"
    world.record(b"p")
    world.staging.take_back()
    assert world.replaced == ["b"]


def test_stages_that_are_given_up_let_all_go(world: World) -> None:
    world.configure()
    world.staging.configure((), None)
    assert world.staging.roll_out.limits == {}
    assert set(world.offered) == {"a", "b"}


def test_cost_of_looking_at_200_nodes_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Counter[str] = Counter()

    def count(kind: type, name: str) -> None:
        call = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda *arguments: (counts.update([name]), call(*arguments))[1])

    names = [f"n{number}" for number in range(200)]
    world.nodes.clear()
    world.nodes.update({name: world.node(name) for name in names})
    stages = tuple(names[:100]), tuple(names[100:])
    check = OnStage(Hook(("/bin/true",)), only=excludes(["*.html"]))
    world.staging.configure(stages, check)
    world.until(lambda: world.staging.roll_out.limits[names[-1]] == 0)
    world.staging.configure(stages, replace(check, settle=1e6))
    head = world.record(b"page.html", *(b"%d" % number for number in range(1_000)))
    for node in world.nodes.values():
        node.cursor = head
    now = world.loop.clock() + 1e3
    monkeypatch.setattr(world.loop, "clock", lambda: now)
    count(RollOut, "advance")
    count(Journal, "since")
    for _ in range(1_000):  # turns of the loop within a moment
        world.staging.advance()
    assert counts == {"advance": 1, "since": 1}
    for _ in range(10):
        now += 1.0
        world.staging.advance()
    assert counts == {"advance": 11, "since": 1}, "nothing new was recorded"
