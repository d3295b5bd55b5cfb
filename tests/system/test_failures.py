"""Failures of rsyncs, workers, nodes and the master.

Whatever fails: the title says what, no other node notices, and everything is level when it is over.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from support import procs, trees
from support.churn import Churn
from support.daemon import Daemon, FakeRsync, MakeDaemon
from support.procs import Process
from support.rsyncd import MakeRsyncd, Rsyncd
from support.sshd import Sshd
from support.wait import until

from inosync.rsync.binary import supports_option

ROOT = os.geteuid() == 0
FIRST, LONGEST = 0.1, 0.5
FAST = {"edelay": 0.2, "equiet": 0.02, "rretry": (FIRST, LONGEST)}
GONE = 30.0
"""Seconds after which nothing may be left of an inosync whose master was killed."""
TIME = r"\d\d:\d\d:\d\d"


@dataclass(frozen=True)
class Setup:
    """A daemon, its tree, and local nodes named like their directories below ``nodes``."""

    daemon: Daemon
    rsync: FakeRsync
    tree: Path
    nodes: Path

    def copy(self, node: str) -> Path:
        return self.nodes / node / self.tree.name

    def pairs(self, *nodes: str) -> list[tuple[Path, Path]]:
        return [(self.tree, self.copy(node)) for node in nodes or sorted(os.listdir(self.nodes))]

    def until_ok(self, churn: Churn | None = None) -> None:
        """Wait until every node is level, and says so."""
        try:
            self.daemon.until_level(self.pairs(), 90)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{churn.tail(150) if churn else ''}") from None

    def change(self, name: str, content: str = "content") -> None:
        trees.replace(self.tree / name, content, self.tree.parent / "fresh")

    def until_arrived(self, node: str, name: str, content: str = "content") -> None:
        until(lambda: arrived(self.copy(node) / name, content), 60, f"{name} on {node}")

    def until_title(self, node: str, pattern: str) -> re.Match[str]:
        """Wait until the node's title, less its name, matches the whole pattern."""
        title = ""

        def look() -> re.Match[str] | None:
            nonlocal title
            pid = self.daemon.workers().get(node)
            title = procs.title(pid) if pid else ""
            return re.fullmatch(f"inosync: {re.escape(node)} {pattern}", title)

        try:
            return until(look, 60, f"{pattern!r} in the title of {node}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it was {title!r}\n{self.daemon.log_tail()}") from None


def arrived(path: Path, content: str) -> bool:
    try:
        return path.read_text() == content
    except FileNotFoundError:
        return False


def set_up(home: Path, make: MakeDaemon, nodes: Mapping[str, str | Mapping[str, object]]) -> Setup:
    """Make a setup. A node is its settings or its location in rsync's syntax, ``""`` for a local one."""
    tree, places = home / "tree", home / "nodes"
    tree.mkdir()
    rsync = FakeRsync(home / "fake")
    items = []
    for name, settings in nodes.items():
        (places / name).mkdir(parents=True, exist_ok=True)
        item = {"node": settings} if isinstance(settings, str) else dict(settings)
        items.append({**item, "node": item.get("node") or f"{places / name}/", "name": name})
    config = {"wpaths": [str(tree)], "rpaths": ["tree"], "rnodes": items, "rsync": str(rsync.path), **FAST}
    return Setup(make(config, ("-v",)), rsync, tree, places)


Make = Callable[[Mapping[str, str | Mapping[str, object]]], Setup]


@pytest.fixture
def setup(tmp_path: Path, daemon: MakeDaemon) -> Make:
    return lambda nodes: set_up(tmp_path, daemon, nodes)


def stop(pid: int) -> None:
    """Send SIGSTOP and wait until the process is stopped."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: (p := procs.look(pid)) is not None and p.state == "T", 30, f"{pid} to be stopped")


def has_open(process: Process, part: str) -> bool:
    """Whether a process has a file open with this in its path."""
    return any(part in os.readlink(link) for link in Path(f"/proc/{process.pid}/fd").iterdir())


# Killed and stopped processes ----------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_workers_killed_under_churn_are_replaced_and_lose_nothing(setup: Make, seed: int) -> None:
    s = setup({"victim": "", "other": ""})
    churn = Churn(os.fsencode(s.tree), seed)
    churn.run(100)
    s.daemon.start()
    s.until_ok(churn)
    pids = s.daemon.workers()
    victims = [pids["victim"]]
    for _ in range(5):
        churn.run(30, seconds=0.2)
        os.kill(victims[-1], signal.SIGKILL)
        churn.run(30)
        # A new worker is recognized by its own title.
        victims.append(
            until(
                lambda: pid if (pid := s.daemon.workers().get("victim")) not in (None, *victims) else 0,
                60,
                "another worker",
            )
            or 0
        )
    s.until_ok(churn)
    assert s.daemon.workers() == {"victim": victims[-1], "other": pids["other"]}
    assert len(set(victims)) == len(victims)
    assert f"victim: worker killed by signal 9 (pid {victims[0]})" in s.daemon.log()


def test_worker_killed_at_rest_is_replaced_by_one_that_is_ok(setup: Make) -> None:
    s = setup({"a": "", "b": ""})
    s.daemon.start()
    s.until_ok()
    before = s.daemon.workers()
    os.kill(before["a"], signal.SIGKILL)
    until(lambda: s.daemon.workers().get("a", before["a"]) != before["a"], 60, "another worker")
    s.until_ok()
    assert s.daemon.workers()["b"] == before["b"]


def test_workers_killed_all_at_once_are_replaced(setup: Make) -> None:
    s = setup({"a": "", "b": "", "c": ""})
    s.daemon.start()
    s.until_ok()
    before = s.daemon.workers()
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    s.change("file")
    s.until_ok()
    assert not set(before.values()) & set(s.daemon.workers().values())


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("killed", ["rsync", "its child"])
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_rsyncs_killed_under_churn_are_failures_and_lose_nothing(
    setup: Make, seed: int, killed: str, warm: bool
) -> None:
    s = setup({"victim": {"rspeed": 400, "rwarm": warm}, "other": {"rwarm": warm}})
    churn = Churn(os.fsencode(s.tree), seed)
    churn.run(100)
    s.daemon.start()
    s.until_ok(churn)
    pids = s.daemon.workers()

    def kill_one() -> bool:
        family = procs.family([pids["victim"]])
        # Below the worker runs rsync, and below that the receiver.
        victims = family[1:2] if killed == "rsync" else family[2:3]
        # It may have ended by now, and its worker may not have noticed that.
        victims = [process for process in victims if procs.alive(process)]
        for process in victims:
            procs.send(process, signal.SIGKILL)
        churn.run(3)
        return bool(victims)

    for _ in range(6):
        churn.run(20)
        until(kill_one, 60, "an rsync to kill")
    if not warm:  # a warm rsync may count as a connection that was dead before its use
        failure = (
            r"WARNING: victim: killed by SIGKILL.*; try \d+ in" if killed == "rsync" else r"; try \d+ in"
        )
        # One that was asked for its version, or renamed something, is no failed try of a batch.
        until(lambda: re.search(failure, s.daemon.log()) or (kill_one() and None), 60, "a failed try")
    s.until_ok(churn)
    # No rsync of this node was killed. But the churn may change a name while rsync makes its list or
    # sends it: a parent vanishes, or a file becomes a FIFO.
    tries = [line for line in s.daemon.log().splitlines() if "other: " in line and "; try " in line]
    assert all(re.search("invalid path from sender|became a FIFO", line) for line in tries), tries
    assert s.daemon.workers() == pids


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_killed_receiver_leaves_no_temporary_file_for_good(setup: Make, warm: bool) -> None:
    s = setup({"victim": {"rspeed": 400, "rwarm": warm}})
    (s.tree / "dir").mkdir()
    s.daemon.start()
    s.until_ok()
    # The first try takes long enough to be seen; the second is short.
    (s.tree / "dir/big").write_bytes(os.urandom(8_000_000))
    until(lambda: any((s.copy("victim") / "dir").glob(".big.*")), 60, "the transfer")
    # Not just any rsync: the sender, the generator or a warm one.
    family = procs.family([s.daemon.workers()["victim"]])
    receiver = next(process for process in family if has_open(process, "/dir/.big."))
    s.change("dir/big", "small")
    procs.send(receiver, signal.SIGKILL)
    if not warm:  # with warm rsyncs it is tried again without them, before it counts as a failure
        # A big file goes in the second lane, and is owed after a failure.
        s.daemon.until_logged(r"WARNING: victim: 1 path in .* s, \d+ bytes, but: ")
    s.until_ok()


@pytest.mark.slow
def test_stopped_worker_delays_no_other_node_and_catches_up(setup: Make, seed: int) -> None:
    s = setup({"stopped": "", "other": "", "third": ""})
    s.daemon.start()
    s.until_ok()
    pids = s.daemon.workers()
    stop(pids["stopped"])
    churn = Churn(os.fsencode(s.tree), seed)
    try:
        for _ in range(4):
            churn.run(50, seconds=0.2)
            s.daemon.until_level(s.pairs("other", "third"))
            s.until_title("other", rf"\[ok\] synced {TIME}")
        # If each change were a message, these would be more than a pipe holds.
        for number in range(1600):
            s.change(f"many-{number % 800}", f"{number}")
        s.daemon.until_level(s.pairs("other", "third"), 60, states=("ok", "syncing"))
        until(lambda: re.search(r"\[3 nodes: 2 ok, 1 (syncing|lagging)\]", s.daemon.title()), 60, "the truth")
        assert not arrived(s.copy("stopped") / "many-0", "800")
        # The master also does other work.
        since = len(s.daemon.log())
        s.daemon.hup()
        s.daemon.until_logged("reloaded", since=since)
    finally:
        os.kill(pids["stopped"], signal.SIGCONT)
    s.until_ok(churn)
    assert s.daemon.workers() == pids


# rsyncs that fail ----------------------------------------------------------------------------------------

INJECTED = "rsync: [sender] injected fault: no luck today (5)"


def failing(code: int) -> str:
    return f"echo '{INJECTED}' >&2; echo 'rsync error: some (code {code}) at main.c(1)' >&2; exit {code}"


READ = "cat >/dev/null; "
"""rsync reads all names before it exits with a code for names that were not transferred."""

NO_LUCK = r"injected fault: no luck today \(5\)"


@dataclass(frozen=True)
class Fault:
    """What an rsync does, and what the title of its node then says."""

    shell: str
    reason: str = ".+"
    state: str = rf"\[retry [1-9]\d* at {TIME}\]"
    behind: str = r", [1-9]\d* behind"
    tries: int = 3
    """Failed tries to wait for; few where each takes long."""


DEGRADED = r"\[degraded\]"
FAULTS: dict[str, Fault] = {
    **{f"exits with {code}": Fault(failing(code), NO_LUCK) for code in (1, 5, 12, 30, 35, 255, 99)},
    **{
        f"exits with {code}": Fault(READ + failing(code), NO_LUCK, DEGRADED, "", tries=5)
        for code in (23, 24, 25)
    },
    "exits with 12 and says nothing": Fault("exit 12", r"[^,]*\(exit 12\)"),
    "exits with 99 and says nothing": Fault("exit 99", r"[^,]*\(exit 99\)"),
    "exits with 23 and says nothing": Fault(READ + "exit 23", r"[^,]*\(exit 23\)", DEGRADED, "", tries=5),
    "says something else than it means": Fault(
        READ + "echo nonsense >&2; echo 'rsync: more nonsense' >&2; exit 23",
        ".*nonsense",
        DEGRADED,
        "",
        tries=5,
    ),
    "dies by SIGKILL": Fault("kill -KILL $$", "killed by SIGKILL.*"),
    "dies by SIGSEGV": Fault("ulimit -c 0; kill -SEGV $$", "killed by SIGSEGV.*"),
    "exits before it has read its names": Fault("exec 0<&-; exit 12", r"[^,]*\(exit 12\)"),
    "hangs": Fault("exec sleep 1000", "no progress for 1 s", tries=2),
    "hangs and ignores SIGTERM": Fault("trap '' TERM; exec sleep 1000", "no progress for 1 s", tries=1),
    "hangs with its output closed": Fault("exec sleep 1000 >&- 2>&-", "no progress for 1 s", tries=1),
    "stops itself": Fault("kill -STOP $$", "no progress for 1 s", tries=1),
    "leaves a child that keeps its output open": Fault("sleep 1000 & exit 12", r"[^,]*\(exit 12\)"),
    "leaves a child that writes for ever": Fault("yes noise >&2 & exit 12"),
    "leaves a child in a session of its own": Fault(
        "setsid sleep 1000 & sleep 0.1; exit 12", r"[^,]*\(exit 12\)"
    ),
    "writes 20 MB to stderr": Fault(READ + "yes 'rsync: noise' | head -n 1500000 >&2; exit 12", ".*noise"),
    "floods stderr before it reads names": Fault("exec yes noise >&2", "more than 1 MiB of errors"),
    "writes 50 MB to stdout": Fault("head -c 50000000 /dev/zero; exit 12", r"[^,]*\(exit 12\)"),
    "writes a line of 50 MB to stderr": Fault("head -c 50000000 /dev/zero | tr '\\0' x >&2; exit 12"),
    "writes bytes that are no text": Fault(
        r"printf 'rsync: \377\033[31m\001\r\n\n' >&2; exit 12", r"[ -~]*(31m|12)[ -~]*"
    ),
    "cannot be executed": Fault("", ".+"),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """One daemon for the whole table, with one node that has the faults."""
    home = tmp_path_factory.mktemp("faults")
    # A fault is met by the next rsync that is started: that has to be the one for the next change.
    cold = {"rwarm": False}
    s = set_up(home, partial(Daemon, home / "inosync"), {"faulty": {"rtimeout": 1, **cold}, "sound": cold})
    try:
        s.daemon.start()
        s.until_ok()
        yield s
        s.daemon.close()
    finally:
        s.rsync.mend("faulty")
        with contextlib.suppress(AssertionError):
            s.daemon.close()


def failures_of(s: Setup, fault: Fault, before: int) -> int | None:
    """Return how many failures in a row lie behind the faulty node, once there are as many as the fault asks.

    A batch says itself how often it has failed in a row: a relist that came through just before it is no
    failure. Names that are left from a batch do not delay the next, and a relist may be a batch of its own.
    """
    if fault.state == DEGRADED:
        tries = len(s.rsync.starts("/faulty/")) - before
        return tries - 2 if tries >= fault.tries else None
    title = procs.title(s.daemon.workers()["faulty"])
    found = re.match(r"inosync: faulty \[retry (\d+) ", title)
    return int(found[1]) if found and int(found[1]) >= fault.tries else None


@pytest.mark.parametrize("name", FAULTS)
def test_worker_recovers_from_an_rsync_that(name: str, table: Setup) -> None:
    s, fault = table, FAULTS[name]
    executable = s.rsync.path.stat().st_mode
    s.until_ok()
    pids = s.daemon.workers()
    before, began = len(s.rsync.starts("/faulty/")), time.monotonic()
    if name == "cannot be executed":
        # The other node fails, too. For this one the script that runs rsync is changed.
        s.rsync.fault("faulty", "chmod a-x $0; exec $0")
    else:
        s.rsync.fault("faulty", fault.shell)
    try:
        s.change(name)
        if name == "cannot be executed":
            until(lambda: s.rsync.path.stat().st_mode & 0o111 == 0, 60, "it to be no program any more")
            s.change(name, "more")
            s.until_title("sound", rf"\[retry [1-9]\d* at {TIME}\] .*[Pp]ermission denied, [1-9]\d* behind")
            return
        s.until_arrived("sound", name)
        s.until_title("faulty", f"{fault.state} {fault.reason}{fault.behind}")
        failures = until(lambda: failures_of(s, fault, before), 60, "it to be tried again")
        took = time.monotonic() - began
        pauses = [0.75 * min(FIRST * 2**n, LONGEST) for n in range(failures - 1)]
        assert took >= sum(pauses), f"{failures} failures"
        s.change("meanwhile", name)
        s.until_arrived("sound", "meanwhile", name)
        s.until_title("sound", rf"\[ok\] synced {TIME}")
        words = "retrying|syncing|degraded"
        until(
            lambda: re.fullmatch(
                rf"inosync: master default\.py \[2 nodes: 1 ok, 1 ({words})\] \d+ dirs", s.daemon.title()
            ),
            60,
            "the master's title to tell",
        )
    finally:
        s.rsync.mend("faulty")
        s.rsync.path.chmod(executable)
    s.until_ok()
    assert s.daemon.workers() == pids
    assert (s.copy("faulty") / name).exists()


SILENT = """#!/bin/sh
if [ "$1" = --version ]; then
    echo $PPID >>@HOME@/asked
    [ ! -e @HOME@/silent ] || exec sleep 1000
fi
case "$*" in *--dirs*--confine-root=*) echo "$*" >>@HOME@/confined ;; esac
exec @REAL@ "$@"
"""


@pytest.mark.slow
def test_rsync_that_hangs_on_version_delays_only_its_worker(setup: Make) -> None:
    s = setup({"a": {"node": "", "rwarm": False}})
    real, home = shutil.which("rsync"), s.rsync.home
    s.rsync.path.write_text(SILENT.replace("@HOME@", str(home)).replace("@REAL@", str(real)))
    can_be_confined = supports_option(str(real), "--confine-root=/")
    (home / "silent").touch()
    s.daemon.start()
    s.until_ok()
    s.change("one")
    s.daemon.until_logged(r" a: .*: no answer to --version for 5 s; try 2 in ")
    assert set((home / "asked").read_text().split()) == {str(s.daemon.workers()["a"])}
    assert not (home / "confined").exists()
    assert not (s.copy("a") / "one").exists(), "it was sent without what keeps names in the tree"
    # The missing answer is not remembered, although the file is the same.
    (home / "silent").unlink()
    s.until_arrived("a", "one")
    s.until_ok()
    assert (home / "confined").exists() is can_be_confined


def test_rsync_that_writes_errors_without_end_delays_no_other_node(table: Setup) -> None:
    s = table
    s.until_ok()
    s.rsync.fault(
        "faulty",
        f"{READ}yes 'rsync: noise' >&2 & noise=$!; trap 'kill $noise' EXIT; trap 'exit 20' TERM\n"
        'while [ -e "$fault" ]; do sleep 0.05; done; exit 12',
    )
    try:
        s.change("noise")
        s.until_title("faulty", r"\[syncing\] .*")
        for number in range(5):
            s.change("during noise", f"{number}")
            s.until_arrived("sound", "during noise", f"{number}")
        s.until_title("faulty", r"\[retry [1-9]\d* at .*more than 256 MiB of errors.*")
        status = Path(f"/proc/{s.daemon.workers()['faulty']}/status").read_text()
        [kilobytes] = re.findall(r"VmRSS:\s+(\d+) kB", status)
        assert int(kilobytes) < 200_000
    finally:
        s.rsync.mend("faulty")
    s.until_ok()


def test_first_full_mirror_that_fails_is_retried_until_level(setup: Make) -> None:
    s = setup({"faulty": {"rwarm": False}, "sound": ""})
    s.change("before")
    s.rsync.fault("faulty", failing(12))
    s.daemon.start()
    s.until_arrived("sound", "before")
    s.until_title("faulty", rf"\[retry ([2-9]|\d\d+) at {TIME}\] {NO_LUCK}, [1-9]\d* behind")
    s.change("after")
    s.rsync.mend("faulty")
    s.until_ok()


@pytest.mark.slow
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_changes_made_while_a_node_fails_arrive_afterwards(setup: Make, seed: int, warm: bool) -> None:
    s = setup({"faulty": {"rwarm": warm}, "sound": ""})
    churn = Churn(os.fsencode(s.tree), seed)
    churn.run(50)
    s.daemon.start()
    s.until_ok(churn)
    full = len(s.rsync.starts("full "))
    for shell in (failing(12), failing(23), "kill -KILL $$", "x=$(cat | head -c 10); " + failing(24)):
        s.rsync.fault("faulty", shell)
        churn.run(60, seconds=0.5)
        s.daemon.until_level(s.pairs("sound"), states=("ok", "syncing", "retry", "degraded"))
        s.rsync.mend("faulty")
    s.until_ok(churn)
    # The journal made it level, not a full mirror.
    assert len(s.rsync.starts("full ")) == full


def test_rtimeout_does_not_end_a_slow_transfer(setup: Make) -> None:
    s = setup({"slow": {"rtimeout": 3, "rspeed": 100}, "other": ""})
    s.daemon.start()
    s.until_ok()
    (s.tree / "big").write_bytes(os.urandom(600_000))
    # What takes so long at that speed goes in the second lane.
    took = s.daemon.until_logged(r"slow: 1 path in ([\d.]+) s, \d{6} bytes")[1]
    s.until_ok()
    assert "no progress" not in s.daemon.log()
    assert float(took) > 3, "it was no test"


# Nodes that refuse, and nodes that are not there ---------------------------------------------------------


def without_owners(path: Path) -> dict[bytes, tuple[object, ...]]:
    tree = trees.snapshot(path)
    return {name: (e.type, e.mode, e.mtime_ns, e.digest, e.target) for name, e in tree.items()}


@pytest.mark.skipif(not ROOT, reason="only root runs a node as somebody else")
def test_node_that_may_not_set_times_of_the_root_is_degraded(
    setup: Make, rsyncd: MakeRsyncd, tmp_path: Path
) -> None:
    server = rsyncd({"www": tmp_path / "nodes/foreign"}, options={"uid": "65534", "gid": "65534"})
    s = setup({"foreign": server.url("www"), "own": ""})
    s.copy("foreign").mkdir()
    s.copy("foreign").chmod(0o777)
    (s.tree / "dir").mkdir()
    s.change("dir/first")
    s.daemon.start()
    s.until_title("foreign", r"\[degraded\] failed to set (times|permissions) on .*: .*[Nn]ot permitted.*")
    for number in range(4):
        # Only changes that an ordinary user may make there.
        for name in ("file", "dir/file", f"new-{number}"):
            s.change(name, f"{number}")
        (s.tree / f"made-{number}/sub").mkdir(parents=True)
        s.change(f"made-{number}/sub/file", f"{number}")
        os.utime(s.tree, ns=(10**18 + number, 10**18 + number))
        s.until_arrived("foreign", f"made-{number}/sub/file", f"{number}")
        s.until_arrived("foreign", "file", f"{number}")
    (s.tree / "made-0/sub/file").unlink()
    (s.tree / "made-1").rename(s.tree / "renamed")
    until(
        lambda: without_owners(s.tree) == without_owners(s.copy("foreign")),
        60,
        "it to be level",
    )
    s.until_title("foreign", r"\[degraded\] failed to set (times|permissions) on .*")
    until(lambda: "[2 nodes: 1 ok, 1 degraded]" in s.daemon.title(), 60, "the master to tell")
    s.daemon.until_level(s.pairs("own"), states=("ok", "degraded", "syncing"))
    # The owner repairs it.
    s.copy("foreign").chmod(s.tree.stat().st_mode & 0o7777)
    os.chown(s.copy("foreign"), 65534, 65534)
    s.until_title("foreign", rf"\[ok\] synced {TIME}")


@pytest.mark.skipif(not ROOT, reason="only root runs a node as somebody else")
def test_name_refused_by_a_node_delays_no_other_and_arrives_after_repair(
    setup: Make, rsyncd: MakeRsyncd, tmp_path: Path
) -> None:
    server = rsyncd({"www": tmp_path / "nodes/foreign"}, options={"uid": "65534", "gid": "65534"})
    s = setup({"foreign": server.url("www"), "own": ""})
    for directory in (s.nodes / "foreign", s.tree):
        os.chown(directory, 65534, 65534)
    for name in ("locked", "open"):
        (s.tree / name).mkdir()
    s.daemon.start()
    until(lambda: (s.copy("foreign") / "locked").exists(), 60, "the first mirror")
    s.daemon.until_state("foreign", ("ok",))
    os.chown(s.copy("foreign") / "locked", 0, 0)
    # With more than one complaint each name has its own time of retry.
    for number in range(4):
        s.change(f"locked/refused too {number}")
    for number in range(3):
        s.change("locked/refused", f"{number}")
        s.change("open/taken", f"{number}")
        s.change("taken", f"{number}")
        s.until_arrived("foreign", "open/taken", f"{number}")
        s.until_arrived("foreign", "taken", f"{number}")
    s.until_title("foreign", r'\[degraded\] .*"?/?locked.*: Permission denied.*')
    assert not (s.copy("foreign") / "locked/refused").exists()
    os.chown(s.copy("foreign") / "locked", 65534, 65534)
    s.until_arrived("foreign", "locked/refused", "2")
    s.until_title("foreign", rf"\[ok\] synced {TIME}")
    until(lambda: without_owners(s.tree) == without_owners(s.copy("foreign")), 60, "it to be level")


def test_node_down_at_start_becomes_level_when_it_is_up(
    setup: Make, rsyncd: MakeRsyncd, tmp_path: Path, seed: int
) -> None:
    server = rsyncd({"www": tmp_path / "nodes/remote"})
    server.kill()
    s = setup({"remote": server.url("www"), "own": ""})
    s.change("before")
    s.daemon.start()
    s.until_arrived("own", "before")
    refused = rf"\[retry [1-9]\d* at {TIME}\] .*Connection refused.*, [1-9]\d* behind"
    s.until_title("remote", refused)
    s.change("during")
    s.until_arrived("own", "during")
    server.start()
    s.until_ok()
    # Stopped later, with changes meanwhile.
    server.kill()
    churn = Churn(os.fsencode(s.tree), seed)
    churn.run(100)
    s.until_title("remote", refused)
    churn.run(100)
    s.change("last")
    s.until_arrived("own", "last")
    server.start()
    s.until_ok(churn)
    # Cut off in the middle, and up again at once.
    for _ in range(3):
        churn.run(30)
        server.drop()
        churn.run(30)
    server.stop()
    server.start()
    s.until_ok(churn)


def test_node_that_hangs_is_given_up_and_level_when_it_resumes(
    setup: Make, rsyncd: MakeRsyncd, tmp_path: Path
) -> None:
    server = rsyncd({"www": tmp_path / "nodes/remote"})
    s = setup({"remote": {"node": server.url("www"), "rtimeout": 1}, "own": ""})
    s.daemon.start()
    s.until_ok()
    server.pause()
    try:
        s.change("file")
        s.until_arrived("own", "file")
        s.until_title("remote", rf"\[retry [1-9]\d* at {TIME}\] no progress for 1 s, 1 behind")
    finally:
        server.resume()
    s.until_ok()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["its worker is killed", "it is given up"])
def test_late_writes_of_an_orphaned_receiver_are_undone(
    setup: Make, rsyncd: MakeRsyncd, tmp_path: Path, how: str
) -> None:
    server = rsyncd({"www": tmp_path / "nodes/remote"})
    s = setup({"remote": {"node": server.url("www"), "rtimeout": 1 if "given up" in how else 300}})
    s.daemon.start()
    s.until_ok()
    # The warm rsync: what is sent to it stays in its socket.
    late = until(lambda: waiting(s, server), 60, "an rsync that waits")
    until(lambda: unread(server.port) == 0, 60, "it to have read all so far")
    stop(late.pid)
    (s.tree / "dir").mkdir()
    s.change("dir/file")
    until(lambda: unread(server.port), 60, "it to have something before it")
    if "killed" in how:
        os.kill(s.daemon.workers()["remote"], signal.SIGKILL)
    else:
        s.daemon.until_logged("remote: no progress")
    shutil.rmtree(s.tree / "dir")
    s.until_ok()
    procs.send(late, signal.SIGCONT)
    until((s.copy("remote") / "dir").exists, 60, "it to do what was right once")
    until(lambda: not (s.copy("remote") / "dir").exists(), 60, "that to be undone")
    s.until_ok()


def waiting(s: Setup, server: Rsyncd) -> Process | None:
    """Return the node's side of the warm rsync, once that of the full mirror is gone."""
    ours = [found for pid in s.daemon.rsyncs("remote") if (found := procs.look(pid)) is not None]
    theirs = server.connections()
    if len(ours) == len(theirs) == 1 and theirs[0].start >= ours[0].start:
        return theirs[0]
    return None


def unread(port: int) -> int:
    """Return the bytes that wait in the sockets of a local port: proc_pid_net(5), rx_queue."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    queues = [words[4] for words in lines if int(words[1].rpartition(":")[2], 16) == port]
    return sum(int(queue.rpartition(":")[2], 16) for queue in queues)


# The master is killed ------------------------------------------------------------------------------------


def fill(tree: Path, size: int) -> None:
    """Write files that take long where the speed is limited."""
    for number in range(4):
        (tree / f"big-{number}").write_bytes(os.urandom(size))


@pytest.mark.parametrize("stopped", ["", "daemon", "ssh"])
def test_killed_master_leaves_no_process_during_a_full_mirror(
    tmp_path: Path, daemon: MakeDaemon, rsyncd: MakeRsyncd, sshd: Sshd, stopped: str
) -> None:
    server = rsyncd({"www": tmp_path / "nodes/daemon"})
    s = set_up(
        tmp_path,
        lambda config, args=(), env=None: daemon(config, args, env or sshd.env()),
        {"daemon": server.url("www"), "ssh": sshd.node("a", f"{tmp_path}/nodes/ssh/"), "local": ""},
    )
    text = s.daemon.file.read_text()
    settings = dict(line.split(" = ", 1) for line in text.splitlines())
    assert "rspeed" not in settings
    s.daemon.configure(text + "rspeed = 100\n")
    fill(s.tree, 1_000_000)
    s.daemon.start()
    until(lambda: list(s.daemon.states().values()) == ["full"] * 3, 60, "the full mirrors")
    until(lambda: all(len(s.daemon.rsyncs(node)) >= 1 for node in ("daemon", "ssh", "local")), 60, "rsyncs")
    until(lambda: all(any(s.nodes.glob(f"{n}/tree/.big-*")) for n in ("daemon", "ssh")), 60, "transfers")
    if stopped:
        stop(s.daemon.workers()[stopped])
    s.daemon.kill9()
    until(lambda: not s.daemon.descendants(), GONE, "everything to be gone")
    assert (s.daemon.rundir / "default.pid").exists()
    s.daemon.configure(text)
    s.daemon.start()
    s.daemon.until_level(s.pairs(), nodes=3)


def test_killed_master_leaves_no_process_and_starts_again(setup: Make, seed: int) -> None:
    s = setup({"stopped": "", "other": ""})
    churn = Churn(os.fsencode(s.tree), seed)
    churn.run(50)
    s.daemon.start()
    s.until_ok(churn)
    stop(s.daemon.workers()["stopped"])
    s.daemon.kill9()
    until(lambda: not s.daemon.descendants(), GONE, "everything to be gone")
    churn.run(50)
    s.daemon.start()
    s.until_ok(churn)
    # Start again at once, while workers of the dead master may still exist.
    s.daemon.kill9()
    s.daemon.start()
    churn.run(50)
    s.until_ok(churn)


def test_master_killed_together_with_a_worker_leaves_no_process(setup: Make) -> None:
    # An rsync connected before the fault would still deliver the change.
    cold = {"rwarm": False}
    s = setup({"hanging": cold, "waiting": cold, "other": ""})
    s.daemon.start()
    s.until_ok()
    s.rsync.fault("hanging", "exec sleep 1000")
    s.rsync.fault("waiting", "exit 12")
    s.change("file")
    s.until_title("hanging", r"\[syncing\] 1 path")
    s.until_title("waiting", r"\[retry .*")
    until(lambda: s.daemon.rsyncs("hanging"), 60, "the rsync that hangs")
    os.kill(s.daemon.workers()["hanging"], signal.SIGKILL)
    s.daemon.kill9()
    until(lambda: not s.daemon.descendants(), GONE, "everything to be gone")
