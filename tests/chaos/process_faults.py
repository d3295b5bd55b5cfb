"""Faults of processes: killed, stopped, ended and restarted."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from support import procs
from support.churn import FILE, RESERVED
from support.procs import Process
from support.wait import until

from chaos.faults import Draw, Happened, Impossible, Kind, Lasting, Once, free
from chaos.orphans import end_orphans, settle
from chaos.testbed import LEFT, TREES, Testbed

QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")
MOST_EVENTS = 300_000
"""With a longer kernel queue there is no overflow."""
HIDDEN = 50
"""Files that change while the queue is full."""


def _worker(testbed: Testbed, draw: Draw) -> tuple[str, Process]:
    node = draw.among(sorted(testbed.nodes))
    pid = testbed.daemon.workers().get(node)
    process = procs.look(pid) if pid else None
    if process is None or process.state in "ZX":
        raise Impossible(f"{node} has no worker")
    return node, process


def _transfer(testbed: Testbed, draw: Draw) -> tuple[str, Process]:
    """Choose a process of a transfer, also a warm one, here or on the node."""
    node, worker = _worker(testbed, draw)
    here = procs.family([worker.pid])[1:]
    server = testbed.nodes[node].server
    there = server.connections() if server is not None else []
    candidates = there if there and (draw.how < 0.5 or not here) else here
    if not candidates:
        raise Impossible(f"{node} has no rsync")
    return node, candidates[int(draw.how * 1000) % len(candidates)]


def kill_worker(testbed: Testbed, draw: Draw) -> Happened:
    node, process = _worker(testbed, draw)
    procs.send(process, signal.SIGKILL)
    return Once(frozenset({node}), node)


def kill_all_workers(testbed: Testbed, _draw: Draw) -> Happened:
    for pid in testbed.daemon.workers().values():
        process = procs.look(pid)
        if process is not None:
            procs.send(process, signal.SIGKILL)
    return Once(frozenset(testbed.nodes))


def kill_transfer(testbed: Testbed, draw: Draw) -> Happened:
    node, process = _transfer(testbed, draw)
    what = procs.title(process.pid)[:60]
    procs.send(process, signal.SIGKILL)
    return Once(frozenset({node}), f"{node}: {what}")


def stop_worker(testbed: Testbed, draw: Draw) -> Happened:
    return _stopped(testbed, "worker", *_worker(testbed, draw))


def stop_transfer(testbed: Testbed, draw: Draw) -> Happened:
    return _stopped(testbed, "transfer", *_transfer(testbed, draw))


def _stopped(testbed: Testbed, what: str, node: str, process: Process) -> Lasting:
    resource = free(testbed, f"{what} of {node}")
    title = procs.title(process.pid)[:60]
    procs.send(process, signal.SIGSTOP)

    def cont() -> None:
        server = testbed.nodes[node].server
        if server is not None and not testbed.late_writers:
            end_orphans(server)
        procs.send(process, signal.SIGCONT)

    return Lasting(
        resource,
        cont,
        frozenset({node}),
        f"{node}: {title}",
    )


def kill_master(testbed: Testbed, draw: Draw) -> Happened:
    """Kill the master, check that nothing is left of it, and start it again."""
    daemon = testbed.daemon
    daemon.kill9()
    before = testbed.now()
    _until_nothing_is_left(testbed, "killed")
    took = testbed.now() - before
    testbed.longest_left = max(testbed.longest_left, took)
    if draw.how < 0.3:
        # The trees change meanwhile.
        _pause(testbed, draw.seconds / 4)
    settle(testbed, testbed.nodes)
    daemon.start()
    return Once(frozenset(testbed.nodes), f"nothing left after {took:.1f} s")


def _until_nothing_is_left(testbed: Testbed, how: str) -> None:
    try:
        until(lambda: not testbed.daemon.descendants(), LEFT, f"all that the {how} master had to end")
    except AssertionError as error:
        left = [f"{pid} {procs.title(pid)}" for pid in testbed.daemon.descendants()]
        raise AssertionError(f"{error}: {'; '.join(left)}") from None


def restart(testbed: Testbed, _draw: Draw) -> Happened:
    """Stop the daemon with SIGTERM and start it again."""
    before = testbed.now()
    code = testbed.daemon.stop()
    assert code == 0, f"it ended with {code}"
    took = testbed.now() - before
    _until_nothing_is_left(testbed, "ended")
    settle(testbed, testbed.nodes)
    testbed.daemon.start()
    return Once(frozenset(testbed.nodes), f"in {took:.1f} s")


def stop_master(testbed: Testbed, draw: Draw) -> Happened:
    """Stop the master with SIGSTOP for a while."""
    _stop(testbed)
    try:
        _pause(testbed, min(draw.seconds, 3.0))
    finally:
        testbed.daemon.signal(signal.SIGCONT)
    return Once(frozenset(testbed.nodes))


def overflow(testbed: Testbed, draw: Draw) -> Happened:
    """Fill the kernel's queue while the master is stopped, and then make changes without events."""
    size = int(QUEUE.read_text())
    if size > MOST_EVENTS:
        raise Impossible("the queue is too long")
    free(testbed, "stderr")  # the log tells of the overflow
    since = len(testbed.daemon.log())
    _stop(testbed)
    try:
        _fill(testbed, size)
        for tree in TREES:
            _change_unseen(testbed, tree, draw)
    finally:
        testbed.daemon.signal(signal.SIGCONT)
    testbed.daemon.until_logged("overflowed", since=since)
    return Once(frozenset(testbed.nodes))


def reopen_log(testbed: Testbed, _draw: Draw) -> Happened:
    testbed.daemon.signal(signal.SIGUSR1)
    return Once(frozenset(), "SIGUSR1")


def block_stderr(testbed: Testbed, _draw: Draw) -> Happened:
    """Let nothing read the pipe that is the daemon's standard error."""
    resource = free(testbed, "stderr")
    testbed.daemon.block_stderr()
    return Lasting(resource, testbed.daemon.unblock_stderr)


def _stop(testbed: Testbed) -> None:
    pid = testbed.daemon.pid
    os.kill(pid, signal.SIGSTOP)
    until(lambda: (p := procs.look(pid)) is None or p.state == "T", 30, "the master to be stopped")


def _pause(testbed: Testbed, seconds: float) -> None:
    """Let that much time pass."""
    end = testbed.now() + seconds
    until(lambda: testbed.now() >= end, seconds + 60, "time to pass")


def _fill(testbed: Testbed, events: int) -> None:
    """Make at least so many events, no two of them equal in a row, because the kernel merges those."""
    directory = testbed.tree(TREES[0]) / RESERVED.decode()
    directory.mkdir(exist_ok=True)
    files = [os.open(directory / f"fill-{n}", os.O_RDONLY | os.O_CREAT | FILE, 0o600) for n in range(2)]
    try:
        for number in range(events + 100):
            os.fchmod(files[number % 2], 0o600 if number % 4 < 2 else 0o640)
    finally:
        for file in files:
            os.close(file)


def _change_unseen(testbed: Testbed, tree: str, draw: Draw) -> None:
    root = testbed.tree(tree) / RESERVED.decode()
    hidden = root / "hidden"
    hidden.mkdir(parents=True, exist_ok=True)
    for name in sorted(os.listdir(hidden))[:: 2 if draw.how < 0.7 else 1]:
        (hidden / name).unlink()
    for number in range(HIDDEN):
        (hidden / f"{number}").write_text(f"{draw.how:.12f}")
    if draw.which < 0.5:
        hidden.rename(root / "away")
        (root / "away").rename(hidden)


KINDS = [
    Kind("kill a worker", 8, kill_worker),
    Kind("kill all workers", 1, kill_all_workers),
    Kind("kill an rsync or ssh", 14, kill_transfer),
    Kind("stop a worker", 6, stop_worker),
    Kind("stop an rsync or ssh", 6, stop_transfer),
    Kind("kill the master", 5, kill_master, compares=True),
    Kind("restart the master", 2, restart, compares=True),
    Kind("stop the master", 3, stop_master),
    Kind("overflow the queue", 3, overflow, compares=True),
    Kind("SIGUSR1", 2, reopen_log),
    Kind("block stderr", 3, block_stderr),
]
