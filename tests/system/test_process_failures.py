"""Workers that are stopped, hang or die at each start, and masters that are killed.

The process is replaced, its work is done, and other nodes do not notice. No test depends on time other than
the daemon's own deadlines.
"""

from __future__ import annotations

import itertools
import random
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import procs
from support.daemon import MakeDaemon
from support.hanging_filesystem import hanging
from support.procs import Process
from support.sshd import Sshd
from support.wait import until
from support.warm import (
    OK,
    TIME,
    AllTransports,
    Location,
    MakeWarm,
    Warm,
    cont,
    end,
    locations,
    set_up,
    start_with_churn,
    stop,
)

TREES = ("tree", "still", "hang")
SILENT = r"worker did not answer for 1\d s"
"""The log line with the shortest time limit, 10 seconds."""
HASTY: dict[str, Any] = {"rtimeout": 5}
GONE = 15.0
"""Seconds after which nothing may be left of an inosync whose master was killed. Workers need 5 at most; the
rest is for a busy machine."""


def look(pid: int) -> Process:
    found = procs.look(pid)
    assert found is not None
    return found


def until_other_worker(w: Warm, node: str, before: Process) -> None:
    def found() -> bool:
        pid = w.daemon.workers().get(node)
        return pid not in (None, before.pid)

    until(found, 60, f"another worker of {node}; the log:\n{w.daemon.log_tail()}")


# Stopped and hanging workers -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_workers_that_are_stopped_or_hang_delay_no_other_node(warm: MakeWarm) -> None:
    cold: dict[str, object] = {"rwarm": False}
    w = warm(dict.fromkeys(["quiet", "idle", "busy", "waiting", "hung", "other", "third"], ""), TREES)
    tree, still, hang = (str(w.tree(name)) for name in TREES)
    places: dict[str, Location] = {
        "quiet": {"wpaths": [still]},
        "hung": {"wpaths": [hang], **cold},
        "third": {"wpaths": [tree, hang]},
        **{key: {"wpaths": [tree], **cold} for key in ["busy", "waiting"]},
        **{key: {"wpaths": [tree]} for key in ["idle", "other"]},
    }
    w.configure({node: places[node] for node in locations(w)}, **HASTY)
    sub = w.tree("hang") / "sub"
    sub.mkdir()
    w.daemon.start()
    for node in w.nodes():
        w.until_title(node, OK)
    w.rsync.hold("busy")
    w.rsync.fault("waiting", "exit 12")
    w.change("first")
    w.until_title("busy", r"\[syncing\] 1 path")
    w.until_title("waiting", rf"\[retry [1-9]\d* at {TIME}\] .*")
    before = w.workers()
    victims = ["quiet", "idle", "busy", "waiting", "hung"]
    running = until(
        lambda: [p for pid in w.daemon.rsyncs("busy") if (p := procs.look(pid)) is not None],
        60,
        "the transfer",
    )
    families = [each for victim in victims for each in procs.family([before[victim].pid])]
    for victim in victims:
        stop(before[victim])
    (sub / "file").write_text("content")
    w.until_arrived("third", "sub/file", tree="hang")
    with hanging(sub, before["hung"].pid) as mounted:
        # The worker checks the name it was sent, on a file system that does not answer it.
        cont(before["hung"])
        if not mounted:
            victims.remove("hung")
        _others_go_on(w, "sooner")
        assert all(procs.alive(before[victim]) for victim in victims), "it was no test"
        for victim in victims:
            expected = rf"WARNING: {victim}: {SILENT} \(pid {before[victim].pid}\): it is killed"
            w.daemon.until_logged(expected, 60)
            if victim != "hung":
                until_other_worker(w, victim, before[victim])
        # Its transfer was killed with it; that of its successor is still held.
        gone = [each for each in (*families, *running) if each.pid != before["hung"].pid]
        until(lambda: not any(map(procs.alive, gone)), 30, "what they had started to end")
        w.until_title("busy", r"\[syncing\] \d+ paths?")
        until(lambda: re.search(rf" dirs, .*busy: {SILENT}(;|$)", w.daemon.title()), 30, "the title to tell")
        w.rsync.mend("busy")
        w.rsync.mend("waiting")
        if mounted:
            _it_hangs(w, before["hung"])
            assert w.daemon.stop() == 0
            assert "hung: its worker hangs in the kernel, and ends when it wakes" in w.daemon.log()
    if mounted:
        w.until_gone(before["hung"])
        w.daemon.start()
    w.change("last")
    for node in w.nodes():
        names = {tree: "tree", still: "still", hang: "hang"}
        pairs = [(w.tree(names[path]), w.copy(node, names[path])) for path in _wpaths(places[node])]
        w.daemon.until_level(pairs, nodes=len(w.nodes()))
    if not mounted:
        assert all(w.daemon.workers()[node] == before[node].pid for node in ("other", "third"))
    assert len(re.findall("did not answer.*: it is killed", w.daemon.log())) == len(victims)


def _others_go_on(w: Warm, what: str) -> None:
    """Check that changes keep arriving on the other nodes."""
    for number in range(5):
        w.change(what, f"{number}")
        for node in ("other", "third"):
            w.until_arrived(node, what, f"{number}")


def _it_hangs(w: Warm, victim: Process) -> None:
    """Check that a killed worker that cannot end is reported and has no successor yet."""
    expected = rf"\[7 nodes: 6 ok, 1 retrying\] \d+ dirs, hung: {SILENT}, and is not gone yet$"
    until(
        lambda: re.search(expected, w.daemon.title()),
        60,
        f"the master's title to tell\n{w.daemon.log_tail()}",
    )
    _others_go_on(w, "later")
    assert look(victim.pid).state == "D"
    assert len(w.daemon.children()) == len(w.nodes())


def _wpaths(location: Location) -> list[str]:
    assert not isinstance(location, str)
    found = location["wpaths"]
    assert isinstance(found, list)
    return found


def test_worker_that_resumes_in_time_stays(warm: MakeWarm) -> None:
    w = warm({"stopped": "", "other": ""}, **HASTY)
    w.daemon.start()
    w.until_level()
    before = w.workers()
    for number in range(3):
        stop(before["stopped"])
        for turn in range(3):
            w.change("file", f"{number} {turn}")
            w.until_arrived("other", "file", f"{number} {turn}")
        cont(before["stopped"])
        w.until_arrived("stopped", "file", f"{number} 2")
    w.until_level()
    assert w.daemon.workers() == {node: process.pid for node, process in before.items()}
    assert w.warnings() == []


# Workers that die at once --------------------------------------------------------------------------------

SICK = """
import os

def die_at_once():
    if os.getppid() == {parent} and os.path.exists({flag!r}):
        os._exit(3)

{parent_is}
os.register_at_fork(after_in_child=die_at_once)
"""


@pytest.fixture
def sick(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A flag, and the environment of a daemon whose workers exit at once while the flag exists."""
    flag = tmp_path / "sick"
    (tmp_path / "site").mkdir()
    text = SICK.format(parent="MASTER", flag=str(flag), parent_is="MASTER = os.getpid()")
    (tmp_path / "site/sitecustomize.py").write_text(text)
    return flag, {"PYTHONPATH": str(tmp_path / "site")}


def test_worker_that_dies_at_each_start_is_restarted_with_growing_pauses(
    sick: tuple[Path, dict[str, str]], warm: MakeWarm
) -> None:
    flag, env = sick
    w = warm({"victim": "", "other": ""}, env=env)
    w.daemon.start()
    w.until_level()
    before = w.workers()
    flag.touch()
    end([before["victim"]])
    pattern = r"victim: worker ended with exit code 3 \(pid \d+\), {} times in a row; .* starts in (\S+) s"
    pauses = []
    for deaths in range(2, 6):
        w.change("during", f"{deaths}")
        w.until_arrived("other", "during", f"{deaths}")
        pauses.append(float(w.daemon.until_logged(pattern.format(deaths))[1]))
    assert all(later > 1.3 * sooner for sooner, later in itertools.pairwise(pauses)), pauses
    named = (
        r"\[2 nodes: 1 ok, 1 retrying\] \d+ dirs, victim: worker ended with exit code 3, \d times in a row$"
    )
    until(lambda: re.search(named, w.daemon.title()), 30, "the master's title to name it")
    flag.unlink()
    w.until_level()
    until(lambda: w.daemon.title().endswith("dirs"), 30, "the master's title to tell of nobody any more")
    assert w.daemon.workers()["other"] == before["other"].pid
    # It had recovered, so the next death counts as the first.
    victim = w.workers()["victim"]
    end([victim])
    until_other_worker(w, "victim", victim)
    w.daemon.until_logged(rf"victim: worker killed by signal 9 \(pid {victim.pid}\); the next one starts")


# The master is killed ------------------------------------------------------------------------------------


@pytest.fixture
def short() -> Iterator[Path]:
    """A run directory with a path short enough for that of a socket, 108 bytes at most (unix(7))."""
    path = Path(tempfile.mkdtemp(prefix="inosync-"))
    yield path
    shutil.rmtree(path)


def test_new_master_after_a_killed_one_works_and_removes_its_files(
    tmp_path: Path, daemon: MakeDaemon, sshd: Sshd, short: Path
) -> None:
    nodes: dict[str, Location] = {"ssh": sshd.node("a", f"{tmp_path}/nodes/ssh/"), "local": {"rwarm": False}}
    w = set_up(tmp_path, daemon, nodes, env=sshd.env())
    w.daemon.rundir = short
    w.configure(nodes)
    spool = short / "default.spool"

    def until_connected() -> None:
        until(lambda: any(path.is_socket() for path in spool.iterdir()), 60, "the socket of ssh")

    w.daemon.start()
    w.until_level()
    until_connected()
    _have_a_long_batch_outstanding(w, "local")
    stale = {path.name for path in spool.iterdir()}
    old = _everything(w)
    assert any(name.startswith("batch-") for name in stale)
    # All at once, so that no process can clean up.
    for number in (signal.SIGSTOP, signal.SIGKILL):
        end(old, number)
    w.daemon.wait()
    # ssh may have removed its socket, because its connection ended before it was stopped.
    kept = {name for name in stale if not name.startswith("ssh-")}
    assert {path.name for path in spool.iterdir()} >= kept
    assert (short / "default.pid").exists()
    w.rsync.mend("local")
    w.daemon.start()
    w.until_level()
    assert stale & {path.name for path in spool.iterdir()} == {"marks"}
    # A killed worker: the master removes its files.
    until_connected()
    victim = w.workers()["ssh"]
    end([victim])
    until(lambda: not (spool / f"ssh-{victim.pid}").exists(), 30, "its socket to be removed")
    w.change("before")
    w.until_level()
    # A killed master: all its processes end by themselves.
    until_connected()
    old = _everything(w)
    assert any("ControlMaster=yes" in procs.title(process.pid) for process in old)
    w.daemon.kill9()
    until(lambda: not any(map(procs.alive, old)), GONE, "everything to be gone")
    w.change("after")
    w.daemon.start()
    w.until_level()
    assert w.daemon.stop() == 0
    assert list(short.iterdir()) == []


def test_transfer_ends_when_master_and_worker_are_killed_at_once(warm: MakeWarm) -> None:
    """Check that the kernel ends what a worker has started: no process of ours is left to do it."""
    w = warm({"cold": {"rwarm": False}, "warm": ""})
    w.daemon.start()
    w.until_level()
    kept = w.until_warm("warm")["warm"]["tree"]
    w.rsync.fault("cold", "sleep 1000 & wait")
    w.change("file")
    worker = w.workers()["cold"]
    transfer = until(lambda: f[1:] if len(f := procs.family([worker.pid])) > 2 else [], 60, "the transfer")
    for process in transfer:
        stop(process)  # a stopped process hears of no signal but SIGKILL
    left = [*transfer, kept, *procs.family([kept.pid])]
    end([look(w.daemon.pid), *w.workers().values()])
    w.daemon.wait()
    until(lambda: not any(map(procs.alive, left)), GONE, "everything to be gone")
    w.rsync.mend("cold")
    w.daemon.start()
    w.until_level()


def _everything(w: Warm) -> list[Process]:
    """Return all processes of the daemon, even short-lived ones."""
    return [found for pid in w.daemon.descendants() if (found := procs.look(pid)) is not None]


def _have_a_long_batch_outstanding(w: Warm, node: str) -> None:
    """Make a batch that does not fit into a message, and hold its transfer until ``mend``."""
    first = w.home / "first"
    first.touch()
    held = "while [ -e {} ]; do sleep 0.05; done"
    w.rsync.fault(node, f"if [ -e {first} ]; then {held.format(first)}; else {held.format('$fault')}; fi")
    w.change("first")
    w.until_title(node, r"\[syncing\] 1 path")
    until(lambda: w.daemon.rsyncs(node), 60, "the transfer")
    starts = w.batches(node)
    for number in range(60):
        w.change(f"{number}-".ljust(200, "x"))
    w.change("last")
    w.until_arrived("ssh", "last")
    first.unlink()
    w.until_title(node, r"\[syncing\] 61 paths")
    until(lambda: w.batches(node) > starts, 60, "the transfer")


# Everything at once --------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_churn_while_processes_of_all_kinds_are_killed_ends_level(
    all_transports: AllTransports, seed: int
) -> None:
    w = all_transports.warm
    w.configure(locations(w), rtimeout=1)
    churn, rand = start_with_churn(w, seed), random.Random(seed)
    for turn in range(15):
        churn.run(rand.randrange(1, 20), seconds=rand.choice([0, 0, 0.1, 0.2]))
        workers = list(w.workers().values())
        below = [each for worker in workers for each in procs.family([worker.pid])[1:]]
        if workers and rand.random() < 0.6:
            end([rand.choice(workers)])
        if below and rand.random() < 0.6:
            victim = rand.choice(below)
            # A stopped grandchild whose ancestors all die would never end, because nobody continues it.
            kinds = (
                [signal.SIGKILL, signal.SIGSTOP] if victim.ppid in map(_pid, workers) else [signal.SIGKILL]
            )
            end([victim], rand.choice(kinds))
        if turn in (5, 10):
            w.daemon.kill9()
            w.daemon.start(ready=rand.random() < 0.5)
    try:
        w.until_level(timeout=90)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{churn.tail(150)}") from None


def _pid(process: Process) -> int:
    return process.pid
