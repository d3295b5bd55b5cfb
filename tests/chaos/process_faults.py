"""Faults of processes: killed, stopped, ended and started again."""

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
from chaos.testbed import LEFT, TREES, World

QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")
MOST_EVENTS = 300_000
"""Where the kernel's queue holds more, it is not made to overflow."""
HIDDEN = 50
"""Files that change while nobody is told of it."""


def _worker(world: World, draw: Draw) -> tuple[str, Process]:
    node = draw.among(sorted(world.nodes))
    pid = world.daemon.workers().get(node)
    process = procs.look(pid) if pid else None
    if process is None or process.state in "ZX":
        raise Impossible(f"{node} has no worker")
    return node, process


def _transfer(world: World, draw: Draw) -> tuple[str, Process]:
    """A process that takes part in a transfer, or waits for one: of the daemon's, or on the node."""
    node, worker = _worker(world, draw)
    here = procs.family([worker.pid])[1:]
    server = world.nodes[node].server
    there = server.connections() if server is not None else []
    candidates = there if there and (draw.how < 0.5 or not here) else here
    if not candidates:
        raise Impossible(f"{node} has no rsync")
    return node, candidates[int(draw.how * 1000) % len(candidates)]


def kill_worker(world: World, draw: Draw) -> Happened:
    node, process = _worker(world, draw)
    procs.send(process, signal.SIGKILL)
    return Once(frozenset({node}), node)


def kill_all_workers(world: World, _draw: Draw) -> Happened:
    for pid in world.daemon.workers().values():
        process = procs.look(pid)
        if process is not None:
            procs.send(process, signal.SIGKILL)
    return Once(frozenset(world.nodes))


def kill_transfer(world: World, draw: Draw) -> Happened:
    node, process = _transfer(world, draw)
    what = procs.title(process.pid)[:60]
    procs.send(process, signal.SIGKILL)
    return Once(frozenset({node}), f"{node}: {what}")


def stop_worker(world: World, draw: Draw) -> Happened:
    return _stopped(world, "worker", *_worker(world, draw))


def stop_transfer(world: World, draw: Draw) -> Happened:
    return _stopped(world, "transfer", *_transfer(world, draw))


def _stopped(world: World, what: str, node: str, process: Process) -> Lasting:
    resource = free(world, f"{what} of {node}")
    title = procs.title(process.pid)[:60]
    procs.send(process, signal.SIGSTOP)

    def cont() -> None:
        server = world.nodes[node].server
        if server is not None and not world.late_writers:
            end_orphans(server)
        procs.send(process, signal.SIGCONT)

    return Lasting(
        resource,
        cont,
        frozenset({node}),
        f"{node}: {title}",
    )


def kill_master(world: World, draw: Draw) -> Happened:
    """Kill it, see that nothing is left of it, and start it again."""
    daemon = world.daemon
    daemon.kill9()
    before = world.now()
    _until_nothing_is_left(world, "killed")
    took = world.now() - before
    world.longest_left = max(world.longest_left, took)
    if draw.how < 0.3:
        # The tree goes on changing meanwhile.
        _pause(world, draw.seconds / 4)
    settle(world, world.nodes)
    daemon.start()
    return Once(frozenset(world.nodes), f"nothing left after {took:.1f} s")


def _until_nothing_is_left(world: World, how: str) -> None:
    try:
        until(lambda: not world.daemon.descendants(), LEFT, f"all that the {how} master had to end")
    except AssertionError as error:
        left = [f"{pid} {procs.title(pid)}" for pid in world.daemon.descendants()]
        raise AssertionError(f"{error}: {'; '.join(left)}") from None


def restart(world: World, _draw: Draw) -> Happened:
    """End it politely and start it again."""
    before = world.now()
    code = world.daemon.stop()
    assert code == 0, f"it ended with {code}"
    took = world.now() - before
    _until_nothing_is_left(world, "ended")
    settle(world, world.nodes)
    world.daemon.start()
    return Once(frozenset(world.nodes), f"in {took:.1f} s")


def stop_master(world: World, draw: Draw) -> Happened:
    """Let it not run for a while."""
    _stop(world)
    try:
        _pause(world, min(draw.seconds, 3.0))
    finally:
        world.daemon.signal(signal.SIGCONT)
    return Once(frozenset(world.nodes))


def overflow(world: World, draw: Draw) -> Happened:
    """Fill the kernel's queue while nobody reads it, then change what nobody will be told of."""
    size = int(QUEUE.read_text())
    if size > MOST_EVENTS:
        raise Impossible("the queue is too long")
    since = len(world.daemon.log())
    _stop(world)
    try:
        _fill(world, size)
        for tree in TREES:
            _change_unseen(world, tree, draw)
    finally:
        world.daemon.signal(signal.SIGCONT)
    world.daemon.until_logged("overflowed", since=since)
    return Once(frozenset(world.nodes))


def reopen_log(world: World, _draw: Draw) -> Happened:
    world.daemon.signal(signal.SIGUSR1)
    return Once(frozenset(), "SIGUSR1")


def _stop(world: World) -> None:
    pid = world.daemon.pid
    os.kill(pid, signal.SIGSTOP)
    until(lambda: (p := procs.look(pid)) is None or p.state == "T", 30, "the master to be stopped")


def _pause(world: World, seconds: float) -> None:
    """Let that much time pass, which is all that is wanted here."""
    end = world.now() + seconds
    until(lambda: world.now() >= end, seconds + 60, "time to pass")


def _fill(world: World, events: int) -> None:
    """Make at least so many events. Equal ones that follow each other the kernel makes one of."""
    directory = world.tree(TREES[0]) / RESERVED.decode()
    directory.mkdir(exist_ok=True)
    files = [os.open(directory / f"fill-{n}", os.O_RDONLY | os.O_CREAT | FILE, 0o600) for n in range(2)]
    try:
        for number in range(events + 100):
            os.fchmod(files[number % 2], 0o600 if number % 4 < 2 else 0o640)
    finally:
        for file in files:
            os.close(file)


def _change_unseen(world: World, tree: str, draw: Draw) -> None:
    root = world.tree(tree) / RESERVED.decode()
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
]
