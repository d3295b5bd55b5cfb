"""What an operator or a neighbour does to a daemon that runs or starts, black-box.

Events faster than they can be read, directories that go away under it, disks that are full, reloads that
overlap with each other and with the end: none of it starves anybody, forgets a node, or ends the master.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import procs, trees
from support.daemon import Daemon, FakeRsync, MakeDaemon
from support.wait import until

from inosync.console.client import ask

ROOT = os.geteuid() == 0
FAST = {"edelay": 0.2, "equiet": 0.02, "rretry": (0.1, 0.5)}
CONFIG, FAILED = 78, 1
IN_TIME = 30.0
"""Seconds that a stop may take: 5 s are for the transfers that run, the rest for a machine that is busy."""


@dataclass
class Setup:
    """A daemon with local nodes, not started, and its tree."""

    home: Path
    rsync: FakeRsync
    daemon: Daemon

    @property
    def tree(self) -> Path:
        return self.home / "tree"

    def node(self, name: str, place: str = "", **settings: object) -> dict[str, object]:
        """An item for rnodes: the node ``NAME`` at ``nodes/PLACE``, which is ``nodes/NAME`` by default."""
        path = self.home / "nodes" / (place or name)
        path.mkdir(parents=True, exist_ok=True)
        return {"node": f"{path}/", "name": name, **settings}

    def copy(self, node: str, tree: str = "tree") -> Path:
        return self.home / "nodes" / node / tree

    def configure(self, **settings: object) -> None:
        """Write the settings that every test begins with, and these."""
        base: dict[str, object] = {
            "wpaths": [str(self.tree)],
            "rpaths": ["tree"],
            # What holds or fails a transfer of a's does so when its rsync is started.
            "rnodes": [self.node("a", rwarm=False), self.node("b")],
            "rsync": str(self.rsync.path),
            **FAST,
        }
        self.daemon.configure({**base, **settings})

    def hup(self, expect: str = r"default\.py reloaded") -> str:
        """SIGHUP; return the line that tells of its end."""
        since = len(self.daemon.log())
        self.daemon.hup()
        return self.daemon.until_logged(f"{expect}.*\n", since=since)[0]

    def reload(self, **settings: object) -> str:
        self.configure(**settings)
        return self.hup()

    def change(self, name: str, content: str = "content") -> None:
        trees.replace(self.tree / name, content, self.home / "fresh")

    def until_arrived(self, node: str, name: str, content: str = "content", tree: str = "tree") -> None:
        path = self.copy(node, tree) / name
        until(
            lambda: path.exists() and path.read_text() == content,
            60,
            f"{name} on {node}; the log:\n{self.daemon.log_tail()}",
        )

    def until_ok(self, *nodes: str) -> None:
        """Wait until these nodes (by default those of the beginning) are level, and no others are there."""
        names = nodes or ("a", "b")
        self.daemon.until_level([(self.tree, self.copy(node)) for node in names], nodes=len(names))
        # Those that it was level with may be the workers of before a reload.
        until(lambda: set(self.daemon.workers()) == set(names), 60, f"workers of {names}")

    def hold_a_transfer(self, node: str) -> None:
        """Let a transfer to the node begin that does not end before ``self.rsync.mend(node)``."""
        self.rsync.hold(node)
        self.change("held")
        self.daemon.until_state(node, ("syncing",))

    @contextlib.contextmanager
    def big_batch(self, prefix: str, count: int) -> Iterator[list[str]]:
        """Changes that are sent to a as one batch, at the end of this; each name has 200 characters."""
        self.hold_a_transfer("a")
        names = [f"{prefix}-{number}-".ljust(200, "x") for number in range(count)]
        try:
            for name in names:
                self.change(name, prefix)
            self.change("last", prefix)
            # Were it read late it would be two batches: what is on another node has been read.
            self.until_arrived("b", "last", prefix)
            yield names
        finally:
            self.rsync.mend("a")

    def kill_worker(self, node: str) -> None:
        """Kill -9 it, and wait for its successor."""
        # After a reload it may have none for a moment.
        victim = until(lambda: self.daemon.workers().get(node), 60, f"a worker of {node}")
        os.kill(victim, signal.SIGKILL)
        until(lambda: self.daemon.workers().get(node, victim) != victim, 60, f"another worker of {node}")


def make_setup(home: Path, make: Callable[[], Daemon]) -> Setup:
    (home / "tree").mkdir()
    setup = Setup(home, FakeRsync(home / "fake"), make())
    setup.configure()
    return setup


@pytest.fixture
def setup(tmp_path: Path, daemon: MakeDaemon) -> Setup:
    return make_setup(tmp_path, lambda: daemon({}, ("-v",)))


def suspend(pid: int) -> None:
    """SIGSTOP, and wait until it has."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: (p := procs.look(pid)) is not None and p.state == "T", 30, f"{pid} to be stopped")


# Events --------------------------------------------------------------------------------------------------

WRITER = """
import os, sys
one, two = (os.open(path, os.O_WRONLY | os.O_CREAT, 0o600) for path in sys.argv[1:])
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1000):
        # Alternately: the kernel makes one of equal events that follow each other.
        os.pwrite(one, b"x", 0)
        os.pwrite(two, b"x", 0)
"""


@contextlib.contextmanager
def writing(*files: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that writes to two files as fast as it can, and keeps them open."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, *files], stdin=subprocess.DEVNULL)
    try:
        until(lambda: all(file.exists() and file.stat().st_size for file in files), 60, "the writer")
        yield writer
    finally:
        writer.kill()
        writer.wait()


EMASK = ["IN_CLOSE_WRITE", "IN_CREATE", "IN_DELETE", "IN_MOVED_FROM", "IN_MOVED_TO", "IN_ATTRIB"]


# A write that is no change costs little. One that is costs more than it takes to make it.
@pytest.mark.parametrize("emask", [EMASK, [*EMASK, "IN_MODIFY"]], ids=["as usual", "each a change"])
def test_a_program_that_writes_without_end_starves_nobody(setup: Setup, emask: list[str]) -> None:
    s = setup
    s.configure(emask=emask)
    s.daemon.start()
    s.until_ok()
    with writing(s.tree / "one", s.tree / "two") as writer:
        s.change("during")
        s.until_arrived("a", "during")
        s.until_arrived("b", "during")
        s.kill_worker("a")
        s.hup()
        assert s.daemon.stop(IN_TIME) == 0
        assert writer.poll() is None, "it was no test"


# Directories that go away --------------------------------------------------------------------------------


def test_a_log_directory_that_is_removed_ends_nobody_and_is_used_again_when_it_is_back(setup: Setup) -> None:
    s = setup
    directory = s.home / "log"
    directory.mkdir()
    log = directory / "inosync.log"
    s.configure(logfile=str(log))
    s.daemon.start()
    s.until_ok()
    pids = s.daemon.workers()
    shutil.rmtree(directory)
    for number in (signal.SIGHUP, signal.SIGUSR1):
        s.daemon.signal(number)
        s.change("without", number.name)
        s.until_arrived("a", "without", number.name)
        s.until_arrived("b", "without", number.name)
    assert not directory.exists()
    directory.mkdir()
    s.daemon.signal(signal.SIGUSR1)
    until(lambda: log.exists() and "log file reopened" in log.read_text(), 60, "the log to be back")
    s.daemon.hup()
    until(lambda: "default.py reloaded" in log.read_text(), 60, "the reload in the log")
    s.change("with")
    s.until_ok()
    assert s.daemon.workers() == pids
    assert "Traceback" not in log.read_text()


def test_a_run_directory_that_is_removed_is_made_again_and_does_not_disturb_the_end(setup: Setup) -> None:
    s = setup
    s.daemon.start()
    s.until_ok()
    for prefix in ("first", "second"):
        with s.big_batch(prefix, 60) as names:
            remove_run_directory(s)
        for name in names:
            s.until_arrived("a", name, prefix)
        assert s.daemon.rundir.is_dir(), "it was no test"
        assert s.daemon.rundir.stat().st_mode & 0o777 == 0o700
        s.until_ok()
    remove_run_directory(s)
    socket = s.daemon.rundir / "default.sock"
    until(socket.is_socket, 60, "the control socket to be made again")
    assert ask(str(socket), {"command": "flush", "timeout": 60}, 90)["behind"] == []
    assert stat.S_IMODE(s.daemon.rundir.stat().st_mode) == 0o700
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    remove_run_directory(s)
    assert s.daemon.stop(IN_TIME) == 0
    assert "Traceback" not in s.daemon.log()


def lists(rundir: Path) -> list[Path]:
    """The long lists in a run directory."""
    return [path for path in rundir.glob("*.spool/*") if path.name != "marks"]


def remove_run_directory(s: Setup) -> None:
    # What b was sent may not have been removed yet, and rmtree does not like what goes by itself.
    until(lambda: not lists(s.daemon.rundir), 60, "long lists to be removed")
    shutil.rmtree(s.daemon.rundir)


ROOM = 256 * 1024
FILLED = 120 * 1024


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of ``ROOM`` bytes."""
    path = tmp_path / "tiny"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=700", "tmpfs", str(path)]
    done = subprocess.run(mount, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted: {done.stderr.strip()}")
    yield path
    # Lazily: a process of a test that failed must not leave it mounted.
    subprocess.run(["umount", "-l", str(path)], stdin=subprocess.DEVNULL, check=True)


@pytest.mark.skipif(not ROOT, reason="only root mounts")
def test_a_run_directory_that_was_full_is_used_again_when_it_has_room(tiny: Path, setup: Setup) -> None:
    s = setup
    s.configure(rundir=str(tiny))
    s.daemon.start()
    s.until_ok()
    filler = tiny / "filler"
    # It fits into the whole, but neither beside the filler nor beside a first try that was left there.
    with s.big_batch("many", 800) as names:
        until(lambda: not lists(tiny), 60, "what b was sent to be removed")
        filler.write_bytes(bytes(FILLED))
    s.daemon.until_logged("No space left on device: batches cannot be written: they wait")
    until(lambda: re.search(r"\[lagging\] no room in ", _title_of(s, "a")), 60, "the title to say why")
    assert not (s.copy("a") / names[0]).exists(), "it was no test"
    filler.unlink()
    s.until_arrived("a", names[-1], "many")
    s.until_ok()
    assert len(s.rsync.starts("full ")) == 2


@pytest.mark.skipif(not ROOT, reason="only root mounts")
def test_a_log_on_a_full_disk_ends_nobody_and_is_written_again_when_it_has_room(
    tiny: Path, setup: Setup
) -> None:
    s = setup
    log = tiny / "inosync.log"
    s.configure(logfile=str(log))
    s.daemon.start()
    s.until_ok()
    pids = s.daemon.workers()
    filler = tiny / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:  # also what is left of the log's last page
            file.write(bytes(4096))
    for number in range(25):
        s.change("meanwhile", f"{number}")
        s.until_arrived("b", "meanwhile", f"{number}")
    size = log.stat().st_size
    # What the handler could not write is no reason to fail when it is replaced by another one.
    s.configure(logfile=str(log), rnodes=[s.node("a", rwarm=False), s.node("b"), s.node("c")])
    s.daemon.hup()
    s.until_ok("a", "b", "c")
    s.daemon.signal(signal.SIGUSR1)
    s.change("meanwhile", "the last")
    s.until_arrived("b", "meanwhile", "the last")
    filler.unlink()
    s.change("afterwards")
    s.until_ok("a", "b", "c")
    until(lambda: log.stat().st_size > size, 30, "the log to go on")
    s.daemon.signal(signal.SIGUSR1)
    until(lambda: "log file reopened" in log.read_text(), 30, "a line in the log")
    assert {name: pid for name, pid in s.daemon.workers().items() if name != "c"} == pids
    assert "Traceback" not in log.read_text()


def _title_of(s: Setup, node: str) -> str:
    pid = s.daemon.workers().get(node)
    return procs.title(pid) if pid else ""


# Reloads that fail ---------------------------------------------------------------------------------------


def test_a_reload_that_cannot_open_its_log_changes_nothing_and_can_be_repeated(setup: Setup) -> None:
    s = setup
    (s.home / "other").mkdir()
    s.daemon.start()
    s.until_ok()
    pids = s.daemon.workers()
    # Nobody can make a file there.
    s.configure(
        logfile="/proc/inosync.log",
        wpaths=[str(s.tree), str(s.home / "other")],
        rpaths=["tree", "other"],
        rnodes=[s.node("a", rspeed=100_000), s.node("c")],
    )
    since = len(s.daemon.log())
    s.hup("was not reloaded")
    assert "logfile: " in s.daemon.log()[since:]
    s.change("after the failure")
    s.until_ok()
    assert s.daemon.workers() == pids
    assert s.rsync.starts("/c/") == []
    assert s.rsync.starts("/other") == []
    line = s.reload(rnodes=[s.node("a", rspeed=100_000), s.node("c")])
    assert "1 added, 1 removed, 1 changed" in line
    s.change("after the correction")
    s.until_ok("a", "c")
    assert not (s.copy("b") / "after the correction").exists()


# Reloads that overlap ------------------------------------------------------------------------------------


def test_a_node_that_changes_again_as_its_worker_ends_has_one_worker(setup: Setup) -> None:
    s = setup
    s.daemon.start()
    s.until_ok()
    old = s.daemon.workers()["a"]
    suspend(old)
    s.reload(rnodes=[s.node("a", rspeed=100_000), s.node("b")])
    suspend(s.daemon.pid)
    try:
        os.kill(old, signal.SIGCONT)
        until(lambda: (p := procs.look(old)) is None or p.state == "Z", 60, "the old worker to end")
        s.configure(rnodes=[s.node("a", rspeed=200_000), s.node("b")])
        since = len(s.daemon.log())
        s.daemon.hup()
    finally:
        os.kill(s.daemon.pid, signal.SIGCONT)
    s.daemon.until_logged(r"default\.py reloaded", since=since)
    s.change("file", "1")
    s.until_ok()
    assert {p.pid for p in s.daemon.children()} == set(s.daemon.workers().values())
    killed = s.daemon.children()
    for child in killed:
        procs.send(child, signal.SIGKILL)
    until(lambda: not any(map(procs.alive, killed)), 60, "their end")
    until(lambda: len(s.daemon.children()) == len(s.daemon.workers()) == 2, 60, "successors")
    s.change("file", "2")
    s.until_ok()
    assert {p.pid for p in s.daemon.children()} == set(s.daemon.workers().values())


def test_a_hup_during_the_end_starts_nothing(setup: Setup) -> None:
    s = setup
    s.daemon.start()
    s.until_ok()
    s.hold_a_transfer("a")
    pid = s.daemon.pid
    s.daemon.signal(signal.SIGTERM)
    s.daemon.until_logged("SIGTERM: stopping")
    s.configure(rnodes=[s.node("a"), s.node("b", rspeed=100_000), s.node("new")])
    s.daemon.hup()
    until(lambda: not _pending(pid, signal.SIGHUP), 60, "the signal to be taken")
    s.rsync.mend("a")
    assert s.daemon.wait(IN_TIME) == 0
    log = s.daemon.log()
    assert "reloaded" not in log
    assert "new: " not in log
    assert s.rsync.starts("/new/") == []
    assert "killed by signal" not in log


def _pending(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a signal before it; one that has ended has none."""
    process = procs.look(pid)
    if process is None or process.state in "ZX":
        return False
    masks = re.findall(r"^(?:SigPnd|ShdPnd):\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


ONE_AT_A_TIME = """
while read -r pid worker; do
    # One that has ended and was not collected yet has no exe. What one worker does is its own affair.
    if [ $worker != $PPID ] && [ -e /proc/$pid/exe ]; then echo "$pid and $$" >>{home}/together; fi
done <{home}/pids
echo $$ $PPID >>{home}/pids
while [ -e {home}/held ]; do sleep 0.02; done
"""


@pytest.mark.parametrize("how", ["gets another name", "is removed and added again"])
def test_two_transfers_never_write_to_one_place_when_a_node(how: str, setup: Setup) -> None:
    s = setup
    fresh = "renamed" if how == "gets another name" else "a"
    s.daemon.start()
    s.until_ok()
    pids, held = s.home / "pids", s.home / "held"
    pids.touch()
    held.touch()
    s.rsync.fault("a", ONE_AT_A_TIME.format(home=s.home))
    try:
        s.change("begun")
        until(pids.read_text, 60, "a transfer")
        if fresh == "a":
            s.reload(rnodes=[s.node("b")])
        s.reload(rnodes=[s.node(fresh, "a"), s.node("b")])
        # A successor has time to do wrong.
        for number in range(8):
            s.change("meanwhile", f"{number}")
            s.until_arrived("b", "meanwhile", f"{number}")
    finally:
        held.unlink()
    s.daemon.until_level([(s.tree, s.copy("a")), (s.tree, s.copy("b"))], nodes=2)
    until(lambda: set(s.daemon.workers()) == {fresh, "b"}, 60, "the workers")
    assert len(s.rsync.starts("full ")) == 3
    assert not (s.home / "together").exists(), (s.home / "together").read_text()


# Starts --------------------------------------------------------------------------------------------------


@dataclass
class Detached:
    """A setup that is started with -d, in a way of the test's own."""

    setup: Setup

    @property
    def pid(self) -> int:
        return int((self.setup.daemon.rundir / "default.pid").read_text().split("\n")[0])

    def start(self, shell: str, *args: str, config: str = "") -> subprocess.CompletedProcess[str]:
        """Let a shell start it, which has ``args`` before the command."""
        command = [config or word if word == str(self.setup.daemon.file) else word for word in self._command]
        return subprocess.run(
            ["sh", "-c", shell, "sh", *args, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def _command(self) -> Sequence[str]:
        return [*self.setup.daemon.command, "-d"]

    def stop(self) -> None:
        """End it with SIGTERM, and see that nothing is left."""
        family = procs.family([self.pid])
        os.kill(self.pid, signal.SIGTERM)
        until(lambda: not any(map(procs.alive, family)), IN_TIME, "everything to be gone")
        assert list(self.setup.daemon.rundir.iterdir()) == []
        assert "Traceback" not in (self.setup.home / "log").read_text()

    def close(self) -> None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            family = procs.family([self.pid])
            for process in family:
                procs.send(process, signal.SIGKILL)
            until(lambda: not any(map(procs.alive, family)), IN_TIME, "everything to be gone")


@pytest.fixture
def detached(setup: Setup) -> Iterator[Detached]:
    setup.configure(logfile=str(setup.home / "log"))
    one = Detached(setup)
    yield one
    one.close()


def works(detached: Detached) -> None:
    """It mirrors, and is known to be there."""
    s = detached.setup
    for node in "ab":
        s.change("file", node)
        s.until_arrived(node, "file", node)
    again = detached.start('exec "$@"')
    assert again.returncode == FAILED
    assert f"already running with pid {detached.pid}" in again.stderr


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "<&-", ">&-", "2>&-"])
def test_detached_it_starts_with_closed_standard_streams(detached: Detached, closed: str) -> None:
    done = detached.start(f'exec "$@" {closed}')
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {os.readlink(f"/proc/{detached.pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
    works(detached)
    detached.stop()


IN_NOTHING = 'cd "$1" && rmdir "$1" && shift && exec "$@"'


def test_detached_it_starts_in_a_directory_that_was_removed(detached: Detached, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = detached.start(IN_NOTHING, str(gone))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    works(detached)
    s = detached.setup
    s.configure(logfile=str(s.home / "log"), rnodes=[s.node("a"), s.node("b"), s.node("c")])
    os.kill(detached.pid, signal.SIGHUP)
    s.until_arrived("c", "file", "b")
    assert trees.diff(trees.snapshot(s.tree), trees.snapshot(s.copy("c"))) == []
    detached.stop()


def test_a_configuration_that_is_relative_to_a_removed_directory_is_told_of(
    detached: Detached, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = detached.start(IN_NOTHING, str(gone), config="default.py")
    assert (done.returncode, done.stdout) == (CONFIG, "")
    [line] = done.stderr.splitlines()
    assert "current directory is gone" in line
