"""What a node does with the process of its worker and the queue to it; real processes, no worker's code."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from inosync.messages import Ping, Started, Stop
from inosync.nodes import lifecycle
from inosync.nodes.lifecycle import Phase
from inosync.nodes.worker_handle import WorkerHandle
from inosync.system import channel, process
from inosync.system.channel import Endpoint, QueueError


class Bench:
    """A handle, and processes for it."""

    def __init__(self) -> None:
        self.handle = WorkerHandle()
        self.ends: list[Endpoint] = []

    def attach(self, run: Callable[[], object]) -> Endpoint:
        """Fork a process that ends with ``run``; return its end of the queue."""
        ours, theirs = channel.pair()

        def live() -> None:
            run()
            os._exit(0)

        self.handle.step(lifecycle.TimePassed(), 0.0)
        self.handle.attach(process.fork(live, "worker"), ours)
        self.ends += [ours, theirs]
        return theirs


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    if bench.handle.process is not None:
        bench.handle.kill(0.0)
        bench.handle.reap()
    for end in bench.ends:
        end.close()


def rest() -> None:
    os.setsid()  # a worker leads a group
    time.sleep(60)


def test_handle_without_a_process_does_nothing(bench: Bench) -> None:
    bench.handle.put(Ping())
    bench.handle.kill(1.0)
    bench.handle.release()
    assert (bench.handle.pid, bench.handle.get(), bench.handle.killed_at) == (None, None, None)


def test_orders_and_reports_pass_through_the_queue(bench: Bench) -> None:
    worker = bench.attach(rest)
    bench.handle.put(Ping())
    assert worker.get() == Ping()
    worker.put(Started(7))
    assert (bench.handle.get(), bench.handle.get()) == (Started(7), None)
    worker.close()
    bench.handle.kill(0.0)
    assert bench.handle.process is not None
    bench.handle.process.join(20)
    assert bench.handle.get() is None, "the end of the process itself is what counts"
    with pytest.raises(QueueError):
        bench.handle.put(Ping())


def test_process_that_was_killed_gets_no_more_orders(bench: Bench) -> None:
    worker = bench.attach(rest)
    bench.handle.step(Started(bench.handle.pid or 0), 0.0)
    bench.handle.step(lifecycle.Hung("worker takes no orders"), 1.0)
    assert bench.handle.state.phase is Phase.KILLED
    bench.handle.put(Ping())
    assert worker.get() is None


def test_time_of_the_first_kill_is_kept(bench: Bench) -> None:
    bench.attach(rest)
    assert bench.handle.killed_at is None
    bench.handle.kill(5.0)
    bench.handle.kill(9.0)
    assert bench.handle.killed_at == 5.0
    assert bench.handle.reap() == f"worker killed by signal {signal.SIGKILL.value}"
    bench.handle.release()
    bench.attach(rest)
    assert bench.handle.killed_at is None, "that was another process"


@pytest.mark.parametrize("code", [0, 3])
def test_exit_code_is_how_a_process_has_ended(bench: Bench, code: int) -> None:
    bench.attach(lambda: os._exit(code))
    assert bench.handle.reap() == f"worker ended with exit code {code}"


def test_released_handle_has_closed_its_queue(bench: Bench) -> None:
    worker = bench.attach(rest)
    bench.handle.kill(0.0)
    bench.handle.reap()
    bench.handle.release()
    assert (bench.handle.pid, bench.handle.queue) == (None, None)
    with pytest.raises(QueueError):
        worker.get()


def test_restart_is_allowed_only_when_the_process_is_gone_for_good(bench: Bench) -> None:
    bench.attach(rest)
    bench.handle.step(Stop(0.0), 0.0)
    bench.handle.allow_restart()
    phases = [bench.handle.state.phase]
    bench.handle.kill(0.0)
    bench.handle.reap()
    bench.handle.step(lifecycle.Died("worker ended with exit code 0", 0.0), 1.0)
    bench.handle.allow_restart()
    phases.append(bench.handle.state.phase)  # its process is still held
    bench.handle.release()
    bench.handle.allow_restart()
    assert [*phases, bench.handle.state.phase] == [Phase.STOPPING, Phase.STOPPED, Phase.DOWN]
