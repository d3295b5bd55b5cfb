"""inosync as a service of the type notify: what a real notification socket hears of it."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import procs
from support.daemon import LAUNCHER, Daemon, MakeDaemon, Patched
from support.wait import until

from inosync.console.client import ask

FAST = {"edelay": 0.2, "equiet": 0.02, "rretry": (0.1, 0.5)}

SERVICE = """
import os, sys
os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execv(sys.argv[1], sys.argv[1:])
"""
"""What systemd does between fork and exec."""


class Ear:
    """A notification socket that remembers what it has heard, and from whom (unix(7), SO_PASSCRED)."""

    def __init__(self, name: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(name)
        self.messages: list[dict[str, str]] = []
        self.senders: list[int] = []

    def listen(self) -> list[dict[str, str]]:
        """All messages so far, each as a dictionary."""
        while True:
            try:
                data, told, _flags, _from = self.socket.recvmsg(65536, 256)
            except BlockingIOError:
                return self.messages
            [credentials] = [item for _level, kind, item in told if kind == socket.SCM_CREDENTIALS]
            self.senders.append(int.from_bytes(credentials[:4], sys.byteorder))
            self.messages.append(dict(line.split("=", 1) for line in data.decode().split("\n")))

    def has(self, name: str, since: int = 0) -> list[dict[str, str]]:
        return [message for message in self.listen()[since:] if name in message]

    def until(self, name: str, since: int = 0) -> dict[str, str]:
        return until(lambda: self.has(name, since), 60, f"{name}, after {self.messages}")[0]

    def until_status(self, text: str) -> None:
        until(lambda: any(text in message["STATUS"] for message in self.has("STATUS")), 60, f"STATUS={text}")


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    made = Ear(str(tmp_path / "notify"))
    yield made
    made.socket.close()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}


def config(tmp_path: Path, nodes: int = 2, **settings: object) -> dict[str, object]:
    tree = tmp_path / "tree"
    tree.mkdir(exist_ok=True)
    (tree / "file").write_text("content")
    for number in range(nodes):
        (tmp_path / f"node{number}").mkdir(exist_ok=True)
    return {
        "wpaths": [str(tree)],
        "rpaths": ["tree"],
        "rnodes": [f"{tmp_path}/node{number}/" for number in range(nodes)],
        **FAST,
        **settings,
    }


@pytest.fixture
def service(tmp_path: Path, daemon: MakeDaemon, ear: Ear, environment: dict[str, str]) -> Daemon:
    made = daemon(config(tmp_path), env=environment)
    made.start()
    ear.until("READY")
    return made


def test_ready_and_status_are_sent(service: Daemon, ear: Ear, tmp_path: Path) -> None:
    [ready] = ear.has("READY")
    assert "MAINPID" not in ready
    ear.until_status("2 nodes: 2 ok")
    # What the title says in brackets, word for word.
    until(lambda: f"[{ear.has('STATUS')[-1]['STATUS']}]" in service.title(), 30, "the title to say the same")
    (tmp_path / "node0").rename(tmp_path / "elsewhere")
    (tmp_path / "node0").write_text("no directory")
    (tmp_path / "tree" / "more").write_text("more")
    ear.until_status("1 retrying")
    assert set(ear.senders) == {service.pid}


@pytest.mark.usefixtures("service")
def test_status_is_not_sent_twice(ear: Ear) -> None:
    ear.until_status("2 nodes: 2 ok")
    before = len(ear.has("STATUS"))
    beats = len(ear.has("WATCHDOG"))
    until(lambda: len(ear.has("WATCHDOG")) >= beats + 4, 60, "two seconds of signs of life")
    told = [message["STATUS"] for message in ear.has("STATUS")]
    assert len(told) == before
    assert all(one != other for one, other in itertools.pairwise(told))


def test_watchdog_is_sent_while_it_runs_and_not_while_stopped(service: Daemon, ear: Ear) -> None:
    until(lambda: len(ear.has("WATCHDOG")) >= 3, 60, "signs of life")
    service.signal(signal.SIGSTOP)
    try:
        until(lambda: (found := procs.look(service.pid)) and found.state == "T", 30, "it to be stopped")
        heard = len(ear.listen())
        quiet_until = time.monotonic() + 2.5
        until(lambda: time.monotonic() > quiet_until, 30, "the time in which five were due")
        assert len(ear.listen()) == heard
    finally:
        service.signal(signal.SIGCONT)
    ear.until("WATCHDOG", heard)


def test_socket_and_its_name_are_not_passed_to_children(service: Daemon, ear: Ear) -> None:
    ear.until_status("2 nodes: 2 ok")
    rsyncs = until(service.rsyncs, 60, "an rsync that waits")
    for pid in rsyncs:
        words = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"PATH=" in words
        assert b"NOTIFY_SOCKET" not in words
        assert b"WATCHDOG_" not in words
    datagram = {
        line.split()[6]
        for line in Path("/proc/net/unix").read_text().splitlines()[1:]
        if line.split()[4] == "0002"
    }

    def held(pid: int) -> set[str]:
        links = (os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir())
        return {link[8:-1] for link in links if link.startswith("socket:[")} & datagram

    assert held(service.pid)  # else this looks at nothing
    for pid in [*service.workers().values(), *rsyncs]:
        assert not held(pid)


def test_reload_sends_reloading_and_ready(service: Daemon, ear: Ear, tmp_path: Path) -> None:
    since = len(ear.listen())
    before = time.monotonic_ns() // 1000
    service.configure(config(tmp_path, 3))
    service.hup()
    begun = ear.until("RELOADING", since)
    assert before <= int(begun["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    ear.until("READY", since)
    names = [name for message in ear.listen()[since:] for name in message if name in ("RELOADING", "READY")]
    assert names == ["RELOADING", "READY"]
    ear.until_status("3 nodes: 3 ok")


def test_reload_refused_sends_reloading_and_ready(service: Daemon, ear: Ear) -> None:
    since = len(ear.listen())
    service.configure("wpaths = [")
    service.hup()
    ear.until("READY", since)
    since = len(ear.listen())
    told = subprocess.run(
        [sys.executable, str(LAUNCHER), "-c", str(service.file), "-s", "reload"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "NOTIFY_SOCKET": ear.socket.getsockname()},
    )
    # The run directory stands in a file that cannot be read: it is asked through the socket itself.
    assert told.returncode != 0
    path = str(service.rundir / "default.sock")
    with pytest.raises(Exception, match=r"default\.py"):
        ask(path, {"command": "reload"})
    assert ear.until("RELOADING", since)
    assert ear.until("READY", since)
    assert set(ear.senders) == {service.pid}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_sends_stopping(service: Daemon, ear: Ear, number: signal.Signals) -> None:
    service.signal(number)
    assert service.wait() == 0
    stopping = ear.until("STOPPING")
    assert int(stopping["EXTEND_TIMEOUT_USEC"]) > 8_000_000
    assert stopping["STATUS"].startswith("stopping")


def test_daemon_works_when_nobody_listens_on_the_socket(
    tmp_path: Path, daemon: MakeDaemon, environment: dict[str, str], ear: Ear
) -> None:
    ear.socket.close()
    made = daemon(config(tmp_path), env=environment)
    made.start()
    made.until_level([(tmp_path / "tree", tmp_path / "node0" / "tree")])


def test_daemon_works_when_the_socket_is_full(
    tmp_path: Path, daemon: MakeDaemon, environment: dict[str, str], ear: Ear
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as full:
        try:
            while True:
                full.sendto(b"STUFFED=1", str(tmp_path / "notify"))
        except BlockingIOError:
            pass
    made = daemon(config(tmp_path), env=environment)
    made.start()
    made.until_level([(tmp_path / "tree", tmp_path / "node0" / "tree")])
    assert ear.until("READY")  # reading has made room


def test_walk_that_lasts_asks_for_time_and_sends_watchdog(
    tmp_path: Path, patched: Patched, environment: dict[str, str], ear: Ear
) -> None:
    """A tree whose directories take long to watch: 400 of them at 10 ms each."""
    patch = """
import time
from inosync.system import systemd
systemd.PROLONG = 1.5
from inosync.watch.inotify import Inotify
def slow(call):
    def slowly(*args):
        time.sleep(0.01)
        return call(*args)
    return slowly
Inotify.add, Inotify.add_near = slow(Inotify.add), slow(Inotify.add_near)
"""
    settings = config(tmp_path, 1)
    for number in range(400):
        (tmp_path / "tree" / f"d{number}").mkdir()
    made = patched(patch)(settings, env=environment)
    made.start()
    until(lambda: len(ear.has("EXTEND_TIMEOUT_USEC")) >= 3, 60, "time to be asked for")
    assert not ear.has("READY")
    ear.until("READY")
    # All is walked again, beside what else there is to do: for seconds, with a beat every half of one.
    since = len(ear.listen())
    began = time.monotonic()
    made.configure({**settings, "emask": ["IN_CLOSE_WRITE", "IN_CREATE", "IN_DELETE", "IN_MODIFY"]})
    made.hup()
    ear.until("READY", since)
    path = str(made.rundir / "default.sock")
    gaps = [began]

    def walked() -> bool:
        nonlocal since
        for message in ear.listen()[since:]:
            since += 1
            if "WATCHDOG" in message:
                gaps.append(time.monotonic())
        return time.monotonic() - began > 3 and ask(path, {"command": "status"})["nodes"][0]["state"] == "ok"

    until(walked, 60, "the walk to end")
    assert len(gaps) >= 5
    assert max(after - before for before, after in itertools.pairwise(gaps)) < 1.0


def test_watchdog_is_sent_only_by_the_process_of_watchdog_pid(
    tmp_path: Path, daemon: MakeDaemon, ear: Ear, environment: dict[str, str]
) -> None:
    made = daemon(config(tmp_path), env={**environment, "WATCHDOG_PID": str(os.getpid())})
    made.start()
    ear.until_status("2 nodes: 2 ok")
    assert not ear.has("WATCHDOG")


def test_detached_daemon_sends_its_pid_and_watchdog(
    tmp_path: Path, daemon: MakeDaemon, ear: Ear, environment: dict[str, str]
) -> None:
    made = daemon(config(tmp_path, logfile=str(tmp_path / "log")), ("-d",), env=environment)
    command = [sys.executable, "-c", SERVICE, *made.command]
    subprocess.run(command, env={**os.environ, **environment}, check=True, timeout=60)
    pid = int((made.rundir / "default.pid").read_text().split()[0])
    try:
        assert ear.until("READY")["MAINPID"] == str(pid)
        assert ear.until("WATCHDOG")
        assert set(ear.senders) == {pid}
    finally:
        os.kill(pid, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{pid}").exists(), 60, "its end")
