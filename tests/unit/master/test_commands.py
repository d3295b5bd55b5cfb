"""What an operator's commands lead to, by what a node's worker does at that moment."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inosync.changes import Change, Kind
from inosync.master.commands import Commands
from inosync.master.hold import Hold
from inosync.master.once import Once
from inosync.master.staging import Staging
from inosync.master.verification import Verification
from inosync.master.worker_pool import KILL_SECONDS, KILLED_SECONDS, WorkerPool
from inosync.nodes.lifecycle import Phase
from inosync.nodes.node import Node
from inosync.system.loop import Loop
from inosync.system.systemd import ServiceManager

NOW = 7.0


class Bench:
    """The commands, and a record of what they have had done."""

    def __init__(self, once: bool = False) -> None:
        self.done: list[tuple[Any, ...]] = []
        self.pool = SimpleNamespace(
            is_stopping=False,
            loop=Loop(lambda: NOW),
            replace_worker=lambda node: self.done.append(("replace", node.name)),
            offer_batch=lambda node: self.done.append(("offer", node.name)),
            stop=lambda grace: self.done.append(("stop", grace)),
        )
        verification = SimpleNamespace(
            request=lambda name: self.done.append(("verify", name)),
            wait=lambda waiter: self.done.append(("wait", waiter.node, waiter.may_repair)),
        )
        manager = SimpleNamespace(stopping=lambda within: self.done.append(("stopping", within)))
        ending = SimpleNamespace(conclude=lambda: self.done.append(("conclude",)))
        self.commands = Commands(
            cast(WorkerPool, self.pool),
            cast(Verification, verification),
            cast(ServiceManager, manager),
            cast(Hold, None),
            cast(Staging, None),
            cast(Once, ending) if once else None,
        )

    def node(self, phase: Phase = Phase.IDLE, paused: bool = False) -> Node:
        node = SimpleNamespace(
            name="n",
            trees=(1, 2),
            paused=paused,
            worker=SimpleNamespace(state=SimpleNamespace(phase=phase)),
            retry=lambda change, now: self.done.append((change, now)),
        )

        def set_paused(wanted: bool) -> None:
            node.paused = wanted

        node.set_paused = set_paused
        return cast(Node, node)


WHOLE = [(Change(tree, b"", Kind.TREE), NOW) for tree in (1, 2)]


@pytest.mark.parametrize(
    ("phase", "is_stopping", "then"),
    [
        (Phase.IDLE, False, "offer"),
        (Phase.BUSY, False, "offer"),
        (Phase.WAITING, False, "replace"),
        (Phase.AWAY, False, "replace"),
        (Phase.WAITING, True, "offer"),
    ],
)
def test_resync_does_not_wait_for_the_time_of_the_next_try(
    phase: Phase, is_stopping: bool, then: str
) -> None:
    bench = Bench()
    bench.pool.is_stopping = is_stopping
    bench.commands.resync(bench.node(phase))
    assert bench.done == [*WHOLE, (then, "n")]


@pytest.mark.parametrize(
    ("before", "wanted", "is_stopping", "is_replaced"),
    [
        (False, True, False, True),
        (True, False, False, True),
        (True, True, False, False),
        (False, False, False, False),
        (False, True, True, False),
    ],
)
def test_worker_is_replaced_when_a_node_is_paused_or_resumed(
    before: bool, wanted: bool, is_stopping: bool, is_replaced: bool
) -> None:
    bench = Bench()
    bench.pool.is_stopping = is_stopping
    node = bench.node(paused=before)
    (bench.commands.pause if wanted else bench.commands.resume)(node)
    assert bench.done == ([("replace", "n")] if is_replaced else [])
    assert node.paused is (wanted if is_replaced else before)


@pytest.mark.parametrize("once", [False, True])
def test_daemon_is_stopped_once(once: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench = Bench(once)
    bench.commands.stop("SIGTERM", 5.0)
    within = 5.0 + KILL_SECONDS + 2 * KILLED_SECONDS
    assert bench.done == [*([("conclude",)] if once else []), ("stopping", within), ("stop", 5.0)]
    assert "SIGTERM: stopping" in caplog.text
    bench.pool.is_stopping = True
    bench.done.clear()
    bench.commands.stop("SIGINT")
    assert bench.done == []


@pytest.mark.parametrize("may_repair", [True, False])
def test_comparison_is_asked_for_only_if_it_may_repair(may_repair: bool) -> None:
    bench = Bench()
    bench.commands.compare([bench.node()], may_repair, 60.0, lambda _found: None)
    assert bench.done == [("wait", "n", may_repair), *([("verify", "n")] if may_repair else [])]
