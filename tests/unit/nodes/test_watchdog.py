"""Workers that are stopped, or do not take what they are sent: real processes, and time that is played."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkProcess
from typing import cast

import pytest
from support import procs
from support.wait import until

from inosync.config.nodes import NodeSpec
from inosync.config.timetable import Timetable
from inosync.nodes.lifecycle import Phase
from inosync.nodes.messages import Batch, Compared, TooManyRemovals
from inosync.nodes.node import Node
from inosync.nodes.pace import Cost
from inosync.nodes.watchdog import MAX_GAP_SECONDS, MAX_PATIENCE_SECONDS, Watchdog
from inosync.system import channel, process
from inosync.system.channel import Endpoint
from inosync.system.loop import Loop, Timer

REASON = "worker did not answer for "


class Bench:
    """What a node asks of its master. The workers take what they are sent and do nothing about it."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self.finishes: list[str] = []
        self.dead: list[Endpoint] = []
        self.forked: list[procs.Process] = []
        self.nodes = [self._node(name) for name in ("a", "b")]
        self.watchdog = Watchdog(lambda: self.now, lambda: 0.0)

    def _node(self, name: str) -> Node:
        spec = NodeSpec(f"{name}:", name, Timetable(((0, 0),)), (), (), 300.0)
        node = Node(spec, 0, self, cast(Loop, self), lambda: 0.0, (1, 10))
        node.worker.start()
        return node

    # What a node asks for

    def fork_worker(self, node: Node) -> tuple[ForkProcess, Endpoint]:
        ours, theirs = channel.pair()

        def take() -> None:
            os.setsid()
            process.close(ours.descriptors())
            os.set_blocking(theirs.fileno(), True)
            while os.read(theirs.fileno(), 1 << 16):
                pass
            process.leave(0)

        child = process.fork(take, node.name)
        theirs.close()
        assert child.pid is not None
        # A stopped one must not have been stopped before it has a group of its own.
        until(lambda: (p := procs.look(child.pid or 0)) and p.pgrp == p.pid, 30, "the worker")
        found = procs.look(child.pid)
        assert found is not None
        self.forked.append(found)
        return child, ours

    def clock(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        self.timers.append((when, call))
        return Timer(when, call)

    def big_file_advanced(self) -> None:
        pass

    def batch_finished(self, _node: Node, batch: Batch, _cost: Cost | None = None) -> None:
        self.finishes.append(batch.file)

    def offer_batch(self, _node: Node) -> None:
        pass

    def worker_died(self, _node: Node) -> None:
        pass

    node_returned = worker_stopped = try_failed = slot_requested = offer_batch

    def tree_held(self, _node: Node, _tree: int) -> None:
        pass

    def removals_counted(self, _report: TooManyRemovals) -> None:
        pass

    def tree_compared(self, _node: Node, _report: Compared) -> None:
        pass

    # What the test does

    def stop(self, node: Node) -> None:
        pid = self.pid(node)
        os.kill(pid, signal.SIGSTOP)
        until(lambda: (p := procs.look(pid)) is not None and p.state == "T", 30, "it to be stopped")

    def go_on(self, node: Node) -> None:
        os.kill(self.pid(node), signal.SIGCONT)

    def pid(self, node: Node) -> int:
        assert node.worker.process is not None
        assert node.worker.process.pid is not None
        return node.worker.process.pid

    def live(self, seconds: float) -> None:
        """Let time pass, in which the workers that go on take what they are sent."""
        until_then = self.now + seconds
        while self.now < until_then:
            self.now += 1
            self.watchdog.check_workers(self.nodes)
            until(lambda: all(map(self._has_taken_all, self.nodes)), 30, "the orders to be taken")

    def _has_taken_all(self, node: Node) -> bool:
        if node.worker.queue is None or node.worker.process is None:
            return True
        found = procs.look(self.pid(node))
        return found is None or found.state in "TZ" or not process.unread(node.worker.queue.send_fd)

    def close(self) -> None:
        for each in self.forked:
            procs.send(each, signal.SIGKILL)
        for node in self.nodes:
            if node.worker.process is not None:
                node.worker.process.join(30)


@pytest.fixture
def bench() -> Iterator[Bench]:
    one = Bench()
    yield one
    one.close()


def test_stopped_worker_alone_is_killed_and_has_a_successor(bench: Bench) -> None:
    a, b = bench.nodes
    bench.stop(a)
    bench.live(MAX_PATIENCE_SECONDS / 2 + MAX_PATIENCE_SECONDS - 2 * MAX_GAP_SECONDS)
    assert {node.worker.state.phase for node in bench.nodes} == {Phase.STARTING}
    bench.live(4 * MAX_GAP_SECONDS)
    assert (a.worker.state.phase, b.worker.state.phase) == (Phase.KILLED, Phase.STARTING)
    assert a.worker.process is not None
    a.worker.process.join(30)
    assert a.worker.process.exitcode == -signal.SIGKILL
    first = bench.forked[0].pid
    a.collect_worker()
    assert a.worker.state.reason == f"{REASON}60 s"
    [(when, wake)] = bench.timers
    bench.now = when
    wake()
    assert bench.pid(a) != first
    # The next one is given more time, so that one that is only slow comes to its end.
    bench.stop(a)
    bench.live(2 * MAX_PATIENCE_SECONDS)
    assert a.worker.state.phase is Phase.STARTING
    bench.live(2 * MAX_PATIENCE_SECONDS)
    assert (a.worker.state.phase, b.worker.state.phase) == (Phase.KILLED, Phase.STARTING)


def test_worker_that_goes_on_in_time_stays(bench: Bench) -> None:
    a, _ = bench.nodes
    pid = bench.pid(a)
    for _ in range(3):
        bench.stop(a)
        bench.live(MAX_PATIENCE_SECONDS - 2 * MAX_GAP_SECONDS)
        bench.go_on(a)
        bench.live(5)
    assert bench.pid(a) == pid
    assert a.worker.state.phase is Phase.STARTING


def test_workers_stay_when_there_was_no_check_for_long(bench: Bench) -> None:
    a, b = bench.nodes
    for node in bench.nodes:
        bench.stop(node)
    bench.live(MAX_PATIENCE_SECONDS / 2 + 10)  # all of them have been asked
    bench.now += 10_000
    bench.watchdog.check_workers(bench.nodes)
    for node in bench.nodes:
        bench.go_on(node)
    bench.live(2 * MAX_PATIENCE_SECONDS)
    assert (a.worker.state.phase, b.worker.state.phase) == (Phase.STARTING, Phase.STARTING)


def test_killed_worker_is_left_alone_until_it_is_gone(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    a, b = bench.nodes
    bench.stop(a)
    a.send_batch(Batch(7, 1, False, file="a-file"), 5, 0.0, ())
    bench.live(MAX_PATIENCE_SECONDS + 2)
    assert a.worker.state.phase is Phase.KILLED
    assert a.worker.queue is not None
    written = a.worker.queue.written
    # Its end was not noticed yet, as that of one that hangs in the kernel would not be.
    bench.live(10 * MAX_PATIENCE_SECONDS)
    a.worker.send_title("some title")
    assert a.worker.queue.written == written
    assert a.outstanding is not None
    assert [record.message for record in caplog.records] == [
        f"a: {REASON}60 s (pid {bench.pid(a)}): it is killed, and replaced when it is gone"
    ]
    a.collect_worker()
    assert (a.outstanding is None, bench.finishes, a.untidy_since is None) == (True, ["a-file"], False)
    assert b.worker.state.phase is Phase.STARTING


def test_worker_with_a_full_queue_is_killed_at_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    a, _ = bench.nodes
    bench.stop(a)
    for _ in range(10_000):
        a.worker.ping()
    assert a.worker.state.phase is Phase.KILLED
    assert a.worker.state.reason == "worker takes no orders"
    assert len(caplog.records) == 1


def test_worker_that_does_not_hear_stop_is_killed(bench: Bench) -> None:
    a, _ = bench.nodes
    bench.stop(a)
    a.worker.stop(5.0)
    bench.live(MAX_PATIENCE_SECONDS + 2)
    assert a.worker.killed_at is not None
    assert a.worker.process is not None
    a.worker.process.join(30)
    a.collect_worker()
    assert a.worker.state.phase is Phase.STOPPED


def test_descendants_in_other_groups_are_killed_with_the_worker(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = bench.nodes
    made: list[int] = []

    def fork_worker(_node: Node) -> tuple[ForkProcess, Endpoint]:
        reader, writer = os.pipe()

        def run() -> None:
            os.setsid()
            child = os.fork()
            if child == 0:
                os.setsid()
                os.write(writer, b"%d\n" % os.getpid())
            signal.pause()

        child = process.fork(run, "a")
        os.close(writer)
        with open(reader) as pipe:
            made.append(int(pipe.readline()))
        ours, theirs = channel.pair()
        theirs.close()
        found = [procs.look(pid) for pid in (child.pid or 0, *made)]
        bench.forked += [each for each in found if each is not None]
        return child, ours

    monkeypatch.setattr(bench, "fork_worker", fork_worker)
    node = Node(a.spec, 0, bench, cast(Loop, bench), lambda: 0.0, (1, 10))
    bench.nodes.append(node)
    node.worker.start()
    [orphan] = [each for each in bench.forked if each.pid == made[0]]
    assert procs.alive(orphan)
    node.worker.replace("worker did not answer")
    until(lambda: not procs.alive(orphan), 30, "the descendant to end")
