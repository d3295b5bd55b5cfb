"""The shared ssh connection with a real ssh and sshd: which runs use it, and what happens without it."""

from __future__ import annotations

import dataclasses
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from support import procs
from support.procs import free_port
from support.sshd import Sshd
from support.wait import until

from inosync.rsync import ssh as rsync_ssh
from inosync.system import process
from inosync.system.loop import Loop
from inosync.worker import ssh_query
from inosync.worker.ssh_master import SshMaster

CHECKOUT = Path(__file__).resolve().parents[2]


class Clock:
    """A clock that a test sets forward; it follows the real one unless it is stopped."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._stopped: float | None = None

    def __call__(self) -> float:
        return (time.monotonic() if self._stopped is None else self._stopped) + self.ahead

    def stop(self) -> None:
        """Move only when set, for a test in which something must not be due yet."""
        self._stopped = time.monotonic()


@dataclasses.dataclass
class Harness:
    """An SshMaster on a loop of its own, and runs of rsync beside it."""

    master: SshMaster
    loop: Loop
    clock: Clock
    home: Path
    directory: Path

    @property
    def socket(self) -> Path:
        return self.directory / f"ssh-{os.getpid()}"

    def pump(self, condition: Callable[[], object], what: str, timeout: float = 60) -> None:
        """Run the loop, as a worker does, until a condition holds."""

        def turned() -> bool:
            self.loop.turn(0.02)
            return bool(condition())

        until(turned, timeout, what)

    def begin(self) -> procs.Process:
        """Start the master, wait until its connection can be shared, and return its process."""
        self.master.node_reached()
        self.pump(self.socket.exists, "the socket of the shared connection")
        (pid,) = self.master.pids
        found = procs.look(pid)
        assert found is not None
        return found

    def ended(self) -> bool:
        return self.master.pids == ()

    def start(self, rsh: str, *more: str) -> subprocess.Popen[bytes]:
        """Start a cold run of rsync to the node."""
        (self.home / "tree").mkdir(exist_ok=True)
        (self.home / "tree" / "file").write_text("x")
        shell = [f"--rsh={rsh}"] if rsh else []
        target = f"node-a:{self.home}/copy"
        return subprocess.Popen(
            ["rsync", "-a", *shell, *more, f"{self.home}/tree/", target],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
        )

    def run(self, rsh: str | None = None) -> tuple[int, list[str]]:
        """Return the exit code of a cold run and the lines on its standard error."""
        run = self.start(self.master.rsh if rsh is None else rsh)
        _, stderr = run.communicate(timeout=60)
        return run.returncode, stderr.decode(errors="replace").split("\r\n")[:-1] or stderr.decode().split()

    def long_run(self) -> subprocess.Popen[bytes]:
        """Start a slow run through the shared connection, and wait until it transfers."""
        (self.home / "tree").mkdir(exist_ok=True)
        (self.home / "tree" / "large").write_bytes(random.Random(1).randbytes(4 << 20))
        run = self.start(self.master.rsh, "--bwlimit=200")
        copy = self.home / "copy"
        self.pump(lambda: copy.exists() and any(copy.glob(".large.*")), "the run to have begun")
        return run


MakeHarness = Callable[..., Harness]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A run directory with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="ssh") as name:
        yield Path(name)


@pytest.fixture
def harness(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[MakeHarness]:
    """Harnesses for the node of an sshd; ``config`` comes first in the user's ssh_config."""
    made: list[Harness] = []
    monkeypatch.delenv("RSYNC_RSH", raising=False)
    monkeypatch.setattr(ssh_query, "_ASK_SECONDS", 60.0)  # ssh may be slow to answer where much else runs

    def make(
        config: str = "", sshd: Sshd | None = None, node: str = "node-a:", extra: tuple[str, ...] = ()
    ) -> Harness:
        server = sshd or request.getfixturevalue("sshd")
        monkeypatch.setenv("PATH", server.env_of_user(tmp_path / "user", config)["PATH"])
        clock = Clock()
        loop = Loop(clock)
        master = SshMaster(node, extra, str(directory), loop, lambda: 0.0, os.environ)
        made.append(Harness(master, loop, clock, tmp_path, directory))
        return made[-1]

    yield make
    for one in made:
        one.master.close()
    assert list(directory.iterdir()) == []


# Runs that share the connection --------------------------------------------------------------------------


def test_first_run_connects_directly_and_the_others_share(harness: MakeHarness, sshd: Sshd) -> None:
    one = harness()
    before = sshd.logins
    assert one.master.pids == ()
    assert one.run() == (0, [])
    assert sshd.logins == before + 1
    one.begin()
    for _ in range(3):
        assert one.run() == (0, [])
    assert sshd.logins == before + 2
    assert one.run(one.master.rsh_direct) == (0, [])
    assert sshd.logins == before + 3


def test_master_ends_when_the_worker_closes_it(harness: MakeHarness) -> None:
    one = harness()
    child = one.begin()
    one.master.close()
    assert not procs.alive(child)
    assert not one.socket.exists()
    one.master.node_reached()
    assert one.master.pids == ()
    one.master.close()


def test_master_does_not_outlive_a_killed_worker(harness: MakeHarness, directory: Path) -> None:
    harness()  # for its PATH
    script = """if True:
        import os, sys
        from inosync.worker.ssh_master import SshMaster
        from inosync.system.loop import Loop
        loop = Loop(lambda: 0.0)
        master = SshMaster("node-a:", (), sys.argv[1], loop, lambda: 0.0, {})
        master.node_reached()
        print(*master.pids, flush=True)
        while True:
            loop.turn(None)
    """
    worker = subprocess.Popen(
        [sys.executable, "-c", script, str(directory)], stdout=subprocess.PIPE, cwd=CHECKOUT
    )
    try:
        assert worker.stdout is not None
        child = procs.look(int(worker.stdout.readline()))
        assert child is not None
        socket = directory / f"ssh-{worker.pid}"
        until(socket.exists, 60, "the socket")
    finally:
        worker.kill()
        worker.communicate()
    until(lambda: not procs.alive(child), 60, "the connection to end")
    until(lambda: not socket.exists(), 60, "the socket to be removed")


def test_master_is_no_orphan_of_a_transfer(harness: MakeHarness) -> None:
    one = harness()
    child = one.begin()
    assert child.pid not in process.orphans(one.master.pids)
    assert procs.alive(child)


def test_forced_command_sees_only_the_runs(harness: MakeHarness, own_sshd: Sshd) -> None:
    keys = own_sshd.home / "authorized_keys"
    log = own_sshd.home / "commands"
    command = f'echo \\"$SSH_ORIGINAL_COMMAND\\" >>{log}; eval \\"$SSH_ORIGINAL_COMMAND\\"'
    keys.write_text(f'command="{command}",restrict {keys.read_text()}')
    one = harness(sshd=own_sshd)
    one.begin()
    assert not log.exists()
    assert one.run() == (0, [])
    assert [line.split()[:2] for line in log.read_text().splitlines()] == [["rsync", "--server"]]


def test_forwardings_of_the_user_do_not_interfere(harness: MakeHarness) -> None:
    one = harness(f"Host *\n  LocalForward 127.0.0.1:{free_port()} 127.0.0.1:9")
    one.begin()
    assert one.run() == (0, [])
    assert one.run(one.master.rsh_direct) == (0, [])


# Runs without the connection -----------------------------------------------------------------------------


def test_run_without_a_free_session_connects_directly(harness: MakeHarness, own_sshd: Sshd) -> None:
    config = own_sshd.home / "sshd_config"
    config.write_text(config.read_text().replace("MaxSessions 1000", "MaxSessions 1"))
    own_sshd.stop()
    own_sshd.start()
    one = harness(sshd=own_sshd)
    one.begin()
    first = one.long_run()
    assert one.run() == (
        0,
        ["mux_client_request_session: session request failed: Session open refused by peer"],
    )
    assert first.poll() is None
    first.kill()
    first.communicate()


def test_run_with_a_dead_socket_connects_directly(harness: MakeHarness) -> None:
    one = harness()
    child = one.begin()
    procs.send(child, signal.SIGKILL)
    until(lambda: not procs.alive(child), 60, "the connection to end")
    assert one.run() == (0, [f"Control socket connect({one.socket}): Connection refused"])
    one.pump(one.ended, "the end to be noticed")
    assert not one.socket.exists()
    assert one.run() == (0, [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_run_fails_when_its_master_ends(harness: MakeHarness, number: signal.Signals) -> None:
    one = harness()
    child = one.begin()
    run = one.long_run()
    procs.send(child, number)
    one.pump(lambda: run.poll() is not None, "the run to fail")
    stderr = run.communicate()[1]
    assert run.returncode in (12, 255), stderr


def test_master_ends_when_the_node_no_longer_answers(harness: MakeHarness, own_sshd: Sshd) -> None:
    """By default this takes 30 s; the user's configuration makes it shorter here."""
    one = harness("Host *\n  ServerAliveInterval 1\n  ServerAliveCountMax 2", sshd=own_sshd)
    assert "ServerAlive" not in one.master.rsh
    one.begin()
    run = one.long_run()
    own_sshd.pause()
    try:
        one.pump(one.ended, "the connection to end")
        assert not one.socket.exists()
        one.pump(lambda: run.poll() is not None, "the run to fail")
    finally:
        own_sshd.resume()
    stderr = run.communicate()[1]
    assert run.returncode in (12, 255), stderr


def test_master_that_hangs_locally_is_ended_by_distrust(harness: MakeHarness) -> None:
    one = harness()
    child = one.begin()
    os.kill(child.pid, signal.SIGSTOP)
    run = one.start(one.master.rsh)
    one.master.distrust()
    assert one.run() == (0, [])  # at once, whether or not the master has ended by now
    one.clock.ahead -= 3600  # nothing is killed
    one.pump(one.ended, "the connection to end")
    run.communicate(timeout=30)  # it connects directly when it loses the master
    assert run.returncode == 0


def test_distrust_without_a_master_changes_nothing(harness: MakeHarness) -> None:
    one = harness()
    one.master.distrust()
    assert one.loop.next_timer == math.inf
    one.begin()


def test_master_that_ignores_sigterm_is_killed(harness: MakeHarness, tmp_path: Path) -> None:
    one = harness()
    (tmp_path / "user" / "ssh").write_text(
        "#!/bin/sh\ntrap '' TERM\necho up >&2\nwhile :; do sleep 1; done\n"
    )
    one.master.node_reached()
    (pid,) = one.master.pids
    child = procs.look(pid)
    assert child is not None
    until(lambda: len(procs.family([pid])) > 1, 60, "the program to have begun")
    one.socket.touch()
    one.master.distrust()
    assert not one.socket.exists()
    assert one.loop.next_timer < math.inf
    one.clock.ahead += 60
    one.pump(one.ended, "the connection to be killed")
    assert not procs.alive(child)
    assert one.loop.next_timer == math.inf


# Restarts ------------------------------------------------------------------------------------------------


def test_master_that_ended_early_is_restarted_after_a_growing_pause(harness: MakeHarness) -> None:
    one = harness()
    one.clock.stop()
    for pause in (5, 10, 20):
        procs.send(one.begin(), signal.SIGKILL)
        one.pump(one.ended, "the end to be noticed")
        one.clock.ahead += pause / 2
        one.master.node_reached()
        assert one.master.pids == ()
        one.clock.ahead += pause / 2
    one.begin()


def test_master_that_has_lasted_is_restarted_at_once(harness: MakeHarness) -> None:
    one = harness()
    procs.send(one.begin(), signal.SIGKILL)
    one.pump(one.ended, "the end to be noticed")
    for _ in range(2):
        one.clock.ahead += 61
        procs.send(one.begin(), signal.SIGKILL)
        one.clock.ahead += 61
        one.pump(one.ended, "the end to be noticed")
        one.begin()


def test_master_without_its_socket_is_ended(harness: MakeHarness) -> None:
    """It may hang in its login, or the socket was removed; both look the same."""
    one = harness()
    child = one.begin()
    one.socket.unlink()
    one.master.node_reached()
    assert one.loop.next_timer == math.inf  # it may still be connecting
    one.clock.ahead += 61
    one.master.node_reached()
    one.pump(one.ended, "the connection to end")
    assert not procs.alive(child)
    one.begin()


def test_master_refused_by_the_node_is_retried_after_a_pause(harness: MakeHarness, own_sshd: Sshd) -> None:
    one = harness(sshd=own_sshd)
    one.clock.stop()
    own_sshd.stop()
    one.master.node_reached()
    one.pump(one.ended, "the connection to fail")
    one.master.node_reached()
    assert one.master.pids == ()
    own_sshd.start()
    one.clock.ahead += 5
    one.begin()


def test_socket_of_an_earlier_process_is_removed(harness: MakeHarness, directory: Path) -> None:
    (directory / f"ssh-{os.getpid()}").touch()
    one = harness()
    assert not one.socket.exists()
    assert one.run() == (0, [])
    one.begin()


def test_runs_go_on_when_no_process_can_be_made(
    harness: MakeHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = harness()

    def no_more(argv: tuple[str, ...], **_how: object) -> subprocess.Popen[bytes]:
        raise BlockingIOError(11, "Resource temporarily unavailable", argv[0])

    with monkeypatch.context() as patched:
        patched.setattr(process, "spawn", no_more)
        one.master.node_reached()
    assert one.master.pids == ()
    assert one.run() == (0, [])
    one.clock.ahead += 5
    one.begin()


def test_socket_of_the_longest_allowed_path_works(harness: MakeHarness, directory: Path) -> None:
    one = harness()
    deep = directory / ("d" * (90 - len(f"{directory}//ssh-{os.getpid()}")))
    deep.mkdir()
    master = SshMaster("node-a:", (), str(deep), one.loop, lambda: 0.0, {})
    try:
        master.node_reached()
        socket = deep / f"ssh-{os.getpid()}"
        assert len(str(socket)) == 90
        one.pump(socket.exists, "the socket")
    finally:
        master.close()
        deep.rmdir()


# Options of the user and our own -------------------------------------------------------------------------


def test_options_are_all_set_for_a_user_without_any(harness: MakeHarness) -> None:
    one = harness()
    assert one.master.rsh_direct == (
        "ssh -o BatchMode=yes -o ClearAllForwardings=yes -o ConnectTimeout=20 -o ServerAliveInterval=5"
    )
    through = f"-o ControlMaster=no -o ControlPath={one.socket} -o ControlPersist=no"
    assert one.master.rsh == f"{one.master.rsh_direct} {through}"


def test_batch_mode_of_the_user_is_not_taken_for_an_alive_interval(harness: MakeHarness) -> None:
    assert "ServerAliveInterval=5" in harness("Host *\n  BatchMode yes").master.rsh


def test_options_of_the_user_for_this_host_stay(harness: MakeHarness) -> None:
    one = harness("Host node-a\n  ConnectTimeout 7\n  ServerAliveInterval 70")
    assert one.master.rsh_direct == "ssh -o BatchMode=yes -o ClearAllForwardings=yes"


def test_options_that_depend_on_the_login_name_are_seen(harness: MakeHarness) -> None:
    config = "Match user john\n  ConnectTimeout 7"
    assert "ConnectTimeout" not in harness(config, node="john@node-a:").master.rsh
    assert "ConnectTimeout" in harness(config).master.rsh


@pytest.mark.parametrize(
    ("node", "extra", "environ"),
    [
        ("node-a:", ("-e", "ssh gateway ssh"), {}),
        ("node-a:", (), {"RSYNC_RSH": "ssh gateway ssh"}),
        ("node-a:", ("-e", "ssh 'a"), {}),
        ("node-a:", (), {"RSYNC_RSH": ""}),
        ("node-a::module", (), {}),
        ("rsync://node-a/module", (), {}),
        ("/srv/mirror", (), {}),
    ],
)
def test_other_transports_and_an_ssh_behind_a_gateway_are_left_alone(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    node: str,
    extra: tuple[str, ...],
    environ: Mapping[str, str],
) -> None:
    monkeypatch.setattr(process, "spawn", lambda argv: pytest.fail(f"{argv} was started"))
    loop = Loop()
    master = SshMaster(node, extra, str(directory), loop, lambda: 0.0, environ)
    assert (master.rsh, master.rsh_direct) == ("", "")
    master.node_reached()
    master.distrust()
    assert (master.pids, loop.next_timer) == ((), math.inf)
    master.close()


@pytest.mark.parametrize("ssh", [None, "#!/bin/sh\nexit 1\n", "#!/bin/sh\nexit 0\n"])
def test_options_are_empty_without_an_ssh_that_answers(
    harness: MakeHarness, tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch, ssh: str | None
) -> None:
    """ssh is missing, is another program, or has mistakes in its configuration; rsync will report it."""
    one = harness()
    (tmp_path / "bin").mkdir()
    if ssh is not None:
        (tmp_path / "bin" / "ssh").write_text(ssh)
        (tmp_path / "bin" / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    master = SshMaster("node-a:", (), str(directory), one.loop, lambda: 0.0, {})
    assert (master.rsh, master.rsh_direct) == ("", "")
    master.node_reached()
    assert master.pids == ()


def test_ssh_that_hangs_when_asked_gets_the_default_options(
    harness: MakeHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_query, "_ASK_SECONDS", 3.0)  # in which the program has to have begun
    pid = tmp_path / "pid"
    one = harness(f'Match exec "echo $$ >{pid}; exec sleep 600"')
    assert one.master.rsh == one.master.rsh_direct == rsync_ssh.rsh(rsync_ssh.options({}))
    one.master.node_reached()
    assert one.master.pids == ()
    asked = procs.look(int(pid.read_text()))
    until(lambda: asked is None or not procs.alive(asked), 60, "nothing of it to be left")
