"""The process of a worker and the queue to it: real processes, no worker's code, and time that is played."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkProcess

import pytest

from inosync.config.nodes import NodeSpec
from inosync.config.timetable import Timetable
from inosync.nodes.counters import Counters
from inosync.nodes.lifecycle import Phase
from inosync.nodes.messages import (
    Batch,
    Done,
    Failed,
    HookFinished,
    Ping,
    Started,
    StateChanged,
    Stop,
    TitleUpdate,
    Unreachable,
)
from inosync.nodes.worker_handle import MAX_TITLE, WorkerHandle
from inosync.system import channel, process
from inosync.system.channel import Endpoint
from inosync.system.loop import Loop
from inosync.text import NodeState


def rest() -> None:
    os.setsid()  # a worker leads a group
    time.sleep(60)


class Bench:
    """A handle, its owner, and processes for it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.loop = Loop(lambda: self.now)
        self.spec = NodeSpec("n:", "n", Timetable(((0, 0),)), (), (), 300.0)
        self.counters = Counters()
        self.run: Callable[[], object] = rest
        """What the next process does."""
        self.calls: list[object] = []
        """What the handle has asked its owner for, but for processes."""
        self.ends: list[Endpoint] = []
        self.handle = WorkerHandle(self, self.loop, lambda: 0.0)

    # What the handle asks for

    def fork_worker(self) -> tuple[ForkProcess, Endpoint]:
        ours, theirs = channel.pair()
        self.ends += [ours, theirs]

        def live() -> None:
            self.run()
            os._exit(0)

        return process.fork(live, "worker"), ours

    def offer_batch(self) -> None:
        self.calls.append("offer")

    def confirm_batch(self, done: Done) -> None:
        self.calls.append(done)

    def worker_died(self) -> None:
        assert self.handle.process is not None or self.handle.queue is None, "released afterwards"
        self.calls.append("died")

    def worker_stopped(self) -> None:
        self.calls.append("stopped")

    # What the test does

    def start(self, run: Callable[[], object] | None = None) -> Endpoint:
        """Start a process that ends with ``run``; return its end of the queue."""
        self.run = run or rest
        self.handle.start()
        return self.ends[-1]

    def started(self) -> Endpoint:
        """Start a process that has reported; return its end of the queue."""
        worker = self.start()
        self.handle.note_start(Started(self.handle.pid or 0))
        self.calls.clear()
        return worker

    def end(self) -> None:
        """Kill the process, and notice its end."""
        self.handle.kill()
        self.handle.collect()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.loop.turn(0)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    if bench.handle.process is not None:
        bench.end()
    for end in bench.ends:
        end.close()


def test_handle_without_a_process_does_nothing(bench: Bench) -> None:
    bench.handle.put(Ping())
    bench.handle.kill()
    assert (bench.handle.pid, bench.handle.get(), bench.handle.killed_at) == (None, None, None)


def test_orders_and_reports_pass_through_the_queue(bench: Bench) -> None:
    worker = bench.start()
    bench.handle.put(Ping())
    assert worker.get() == Ping()
    worker.put(Started(7))
    assert (bench.handle.get(), bench.handle.get()) == (Started(7), None)


def test_order_for_a_process_that_is_gone_waits_for_its_end_to_be_noticed(bench: Bench) -> None:
    worker = bench.start()
    worker.close()
    assert bench.handle.process is not None
    bench.handle.process.kill()
    bench.handle.process.join(20)
    assert bench.handle.get() is None, "the end of the process itself is what counts"
    bench.handle.ping()
    assert bench.handle.killed_at == 100.0
    bench.handle.collect()
    assert bench.handle.state.reason == f"worker killed by signal {signal.SIGKILL.value}"


def test_process_that_was_killed_gets_no_more_orders(bench: Bench) -> None:
    worker = bench.started()
    bench.handle.replace("worker takes no orders")
    assert bench.handle.state.phase is Phase.KILLED
    bench.handle.put(Ping())
    assert worker.get() is None


def test_time_of_the_first_kill_is_kept(bench: Bench) -> None:
    bench.start()
    assert bench.handle.killed_at is None
    bench.handle.kill()
    bench.now += 4
    bench.end()
    assert bench.handle.killed_at == 100.0
    bench.pass_time(1)
    assert bench.handle.killed_at is None, "that was another process"


@pytest.mark.parametrize("code", [0, 3])
def test_exit_code_is_how_a_process_has_ended(bench: Bench, code: int) -> None:
    bench.start(lambda: os._exit(code))
    bench.handle.collect()
    assert bench.handle.state.reason == f"worker ended with exit code {code}"


def test_process_that_dies_is_followed_by_another_after_a_pause(bench: Bench) -> None:
    worker = bench.started()
    first = bench.handle.pid
    bench.end()
    assert (bench.handle.pid, bench.handle.queue, bench.calls) == (None, None, ["died"])
    with pytest.raises(channel.QueueError):
        worker.get()
    assert (bench.counters.deaths, bench.handle.hooks_lost) == (1, True)
    assert bench.handle.state.wake_at > bench.now
    bench.pass_time(0.01)
    assert bench.handle.pid is None
    bench.pass_time(1)
    assert bench.handle.pid not in (None, first)


def test_process_that_was_stopped_has_no_successor_until_that_is_allowed(bench: Bench) -> None:
    worker = bench.started()
    bench.handle.stop(5.0)
    assert worker.get() == Stop(5.0)
    bench.handle.allow_restart()
    assert bench.handle.state.phase is Phase.STOPPING, "its process is still held"
    bench.end()
    assert (bench.calls, bench.counters.deaths, bench.handle.hooks_lost) == (["died", "stopped"], 0, False)
    bench.pass_time(1_000)
    bench.handle.start()
    assert bench.handle.pid is None
    bench.handle.allow_restart()
    bench.handle.start()
    assert bench.handle.pid is not None


def test_process_that_cannot_be_started_is_a_death(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> tuple[ForkProcess, Endpoint]:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(bench, "fork_worker", refuse)
    bench.handle.start()
    assert bench.handle.state.reason == "no worker could be started: no more processes"
    assert (bench.handle.state.phase, bench.counters.deaths, bench.calls) == (Phase.DOWN, 1, ["died"])
    monkeypatch.undo()
    bench.pass_time(1)
    assert bench.handle.pid is not None


def test_process_is_started_with_the_address_of_the_node_as_it_is_now(bench: Bench) -> None:
    bench.start()
    bench.spec = NodeSpec("other:", "n", Timetable(((0, 0),)), (), (), 300.0)
    assert bench.handle.address == "n:", "it writes there until it has ended"
    bench.end()
    bench.pass_time(1)
    assert bench.handle.address == "other:"


def test_batches_that_fail_are_tried_again_by_the_worker_itself(bench: Bench) -> None:
    worker = bench.started()
    bench.handle.send(Batch(1, 1, False))
    assert worker.get() == Batch(1, 1, False)
    bench.handle.note_failure(Failed(1, 1, 12, "no", 7.0))
    assert (bench.handle.state.phase, bench.handle.state.wake_at) == (Phase.WAITING, 107.0)
    bench.pass_time(7)
    assert bench.handle.state.phase is Phase.BUSY
    done = Done(1, 0.1)
    bench.handle.step(done)
    assert bench.calls == [done, "offer"]


def test_node_out_of_reach_is_reported_and_not_timed(bench: Bench) -> None:
    bench.started()
    bench.handle.note_failure(Unreachable(1, 255, "no", 7.0))
    bench.pass_time(100)
    assert bench.handle.state.phase is Phase.AWAY


def test_title_is_shown_until_the_next_transfer(bench: Bench) -> None:
    worker = bench.started()
    assert bench.handle.shows_sent_title
    bench.handle.send_title("x" * (MAX_TITLE + 1))
    assert (worker.get(), len(bench.handle.title)) == (TitleUpdate("x" * MAX_TITLE), MAX_TITLE + 1)
    bench.handle.send(Batch(1, 1, False))
    assert (bench.handle.shows_sent_title, bench.handle.title) == (False, "")


def changed(state: NodeState, before: str) -> StateChanged:
    return StateChanged(state, before, 1.0, "", 0.0)


def test_state_hooks_run_one_by_one_and_again_if_their_worker_dies(bench: Bench) -> None:
    bench.start()
    bench.handle.announce_state(changed(NodeState.OK, "starting"))
    worker = bench.ends[-1]
    assert worker.get() is None, "the process has not reported yet"
    bench.handle.note_start(Started(1))
    assert worker.get() == changed(NodeState.OK, "starting")
    bench.handle.announce_state(changed(NodeState.RETRYING, "ok"))
    assert worker.get() is None
    bench.end()
    bench.pass_time(1)
    worker = bench.ends[-1]
    bench.handle.note_start(Started(1))
    assert worker.get() == changed(NodeState.RETRYING, "ok"), "the newest"
    bench.handle.note_hook(HookFinished("on_state"))
    bench.handle.announce_state(changed(NodeState.OK, "retrying"))
    assert worker.get() == changed(NodeState.OK, "retrying")


@pytest.mark.parametrize(
    ("kind", "reason", "stops", "lost"),
    [
        ("on_sync", "killed by signal 15", True, True),
        ("on_sync", "killed by signal 15", False, False),
        ("on_sync", "", True, False),
        ("on_state", "killed by signal 15", True, False),
    ],
)
def test_hook_that_fails_while_its_worker_stops_is_lost(
    bench: Bench, kind: str, reason: str, stops: bool, lost: bool
) -> None:
    bench.started()
    if stops:
        bench.handle.stop(5.0)
    bench.handle.note_hook(HookFinished(kind, reason))
    assert bench.handle.hooks_lost is lost


def test_hooks_that_were_lost_are_told_to_the_next_process_only(bench: Bench) -> None:
    bench.handle.take_over(hooks_lost=True)
    bench.start()
    assert bench.handle.hooks_lost
    bench.handle.note_start(Started(1))
    assert not bench.handle.hooks_lost
