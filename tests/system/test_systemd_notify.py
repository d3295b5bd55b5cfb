"""inosync as a service of type notify: the messages on its notification socket."""

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
from support.daemon import LAUNCHER, Daemon, MakeDaemon, Patched, ask
from support.wait import until

FAST = {"edelay": 0.2, "equiet": 0.02, "rretry": (0.1, 0.5)}

SERVICE = """
import os, sys
os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execv(sys.argv[1], sys.argv[1:])
"""
"""As systemd does between fork and exec."""


class NotifySocket:
    """A notification socket that records messages and their senders (unix(7), SO_PASSCRED)."""

    def __init__(self, name: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(name)
        self.messages: list[dict[str, str]] = []
        self.senders: list[int] = []

    def listen(self) -> list[dict[str, str]]:
        """Return all messages so far, each as a dictionary."""
        while True:
            try:
                data, ancillary, _flags, _from = self.socket.recvmsg(65536, 256)
            except BlockingIOError:
                return self.messages
            [credentials] = [item for _level, kind, item in ancillary if kind == socket.SCM_CREDENTIALS]
            self.senders.append(int.from_bytes(credentials[:4], sys.byteorder))
            self.messages.append(dict(line.split("=", 1) for line in data.decode().split("\n")))

    def has(self, name: str, since: int = 0) -> list[dict[str, str]]:
        return [message for message in self.listen()[since:] if name in message]

    def until(self, name: str, since: int = 0) -> dict[str, str]:
        return until(lambda: self.has(name, since), 60, f"{name}, after {self.messages}")[0]

    def until_status(self, text: str) -> None:
        until(lambda: any(text in message["STATUS"] for message in self.has("STATUS")), 60, f"STATUS={text}")


@pytest.fixture
def notified(tmp_path: Path) -> Iterator[NotifySocket]:
    made = NotifySocket(str(tmp_path / "notify"))
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
def service(
    tmp_path: Path, daemon: MakeDaemon, notified: NotifySocket, environment: dict[str, str]
) -> Daemon:
    made = daemon(config(tmp_path), env=environment)
    made.start()
    notified.until("READY")
    return made


def test_ready_and_status_are_sent(service: Daemon, notified: NotifySocket, tmp_path: Path) -> None:
    [ready] = notified.has("READY")
    assert "MAINPID" not in ready
    notified.until_status("2 nodes: 2 ok")
    # The words in the brackets of the title.
    until(
        lambda: f"[{notified.has('STATUS')[-1]['STATUS']}]" in service.title(),
        30,
        "the title to say the same",
    )
    (tmp_path / "node0").rename(tmp_path / "elsewhere")
    (tmp_path / "node0").write_text("no directory")
    (tmp_path / "tree" / "more").write_text("more")
    notified.until_status("1 retrying")
    assert set(notified.senders) == {service.pid}


@pytest.mark.usefixtures("service")
def test_status_is_not_sent_twice(notified: NotifySocket) -> None:
    notified.until_status("2 nodes: 2 ok")
    before = len(notified.has("STATUS"))
    beats = len(notified.has("WATCHDOG"))
    until(lambda: len(notified.has("WATCHDOG")) >= beats + 4, 60, "two seconds of watchdog messages")
    statuses = [message["STATUS"] for message in notified.has("STATUS")]
    assert len(statuses) == before
    assert all(one != other for one, other in itertools.pairwise(statuses))


def test_watchdog_is_sent_while_it_runs_and_not_while_stopped(
    service: Daemon, notified: NotifySocket
) -> None:
    until(lambda: len(notified.has("WATCHDOG")) >= 3, 60, "watchdog messages")
    service.signal(signal.SIGSTOP)
    try:
        until(lambda: (found := procs.look(service.pid)) and found.state == "T", 30, "it to be stopped")
        heard = len(notified.listen())
        quiet_until = time.monotonic() + 2.5
        until(lambda: time.monotonic() > quiet_until, 30, "the time in which five were due")
        assert len(notified.listen()) == heard
    finally:
        service.signal(signal.SIGCONT)
    notified.until("WATCHDOG", heard)


def test_socket_and_its_name_are_not_passed_to_children(service: Daemon, notified: NotifySocket) -> None:
    notified.until_status("2 nodes: 2 ok")
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


def test_reload_sends_reloading_and_ready(service: Daemon, notified: NotifySocket, tmp_path: Path) -> None:
    since = len(notified.listen())
    before = time.monotonic_ns() // 1000
    service.configure(config(tmp_path, 3))
    service.hup()
    begun = notified.until("RELOADING", since)
    assert before <= int(begun["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    notified.until("READY", since)
    names = [
        name for message in notified.listen()[since:] for name in message if name in ("RELOADING", "READY")
    ]
    assert names == ["RELOADING", "READY"]
    notified.until_status("3 nodes: 3 ok")


def test_reload_refused_sends_reloading_and_ready(service: Daemon, notified: NotifySocket) -> None:
    since = len(notified.listen())
    service.configure("wpaths = [")
    service.hup()
    notified.until("READY", since)
    since = len(notified.listen())
    done = subprocess.run(
        [sys.executable, str(LAUNCHER), "-c", str(service.file), "-s", "reload"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "NOTIFY_SOCKET": notified.socket.getsockname()},
    )
    # The file with rundir cannot be read, so the daemon is asked through its socket.
    assert done.returncode != 0
    path = str(service.rundir / "default.sock")
    with pytest.raises(Exception, match=r"default\.py"):
        ask(path, {"command": "reload"})
    assert notified.until("RELOADING", since)
    assert notified.until("READY", since)
    assert set(notified.senders) == {service.pid}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_sends_stopping(service: Daemon, notified: NotifySocket, number: signal.Signals) -> None:
    service.signal(number)
    assert service.wait() == 0
    stopping = notified.until("STOPPING")
    assert int(stopping["EXTEND_TIMEOUT_USEC"]) > 8_000_000
    assert stopping["STATUS"].startswith("stopping")


def test_daemon_works_when_nobody_listens_on_the_socket(
    tmp_path: Path, daemon: MakeDaemon, environment: dict[str, str], notified: NotifySocket
) -> None:
    notified.socket.close()
    made = daemon(config(tmp_path), env=environment)
    made.start()
    made.until_level([(tmp_path / "tree", tmp_path / "node0" / "tree")])


def test_daemon_works_when_the_socket_is_full(
    tmp_path: Path, daemon: MakeDaemon, environment: dict[str, str], notified: NotifySocket
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
    assert notified.until("READY")  # reading has made room


def test_walk_that_lasts_asks_for_time_and_sends_watchdog(
    tmp_path: Path, patched: Patched, environment: dict[str, str], notified: NotifySocket
) -> None:
    """400 directories that take 10 ms each to watch."""
    patch = """
import time
from inosync.system import systemd
systemd.EXTEND_SECONDS = 1.5
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
    until(lambda: len(notified.has("EXTEND_TIMEOUT_USEC")) >= 3, 60, "time to be asked for")
    assert not notified.has("READY")
    notified.until("READY")
    # Everything is walked again for seconds, with a message every half second.
    since = len(notified.listen())
    began = time.monotonic()
    made.configure({**settings, "emask": ["IN_CLOSE_WRITE", "IN_CREATE", "IN_DELETE", "IN_MODIFY"]})
    made.hup()
    notified.until("READY", since)
    path = str(made.rundir / "default.sock")
    gaps = [began]

    def walked() -> bool:
        nonlocal since
        for message in notified.listen()[since:]:
            since += 1
            if "WATCHDOG" in message:
                gaps.append(time.monotonic())
        return time.monotonic() - began > 3 and ask(path, {"command": "status"})["nodes"][0]["state"] == "ok"

    until(walked, 60, "the walk to end")
    assert len(gaps) >= 5
    assert max(after - before for before, after in itertools.pairwise(gaps)) < 1.0


def test_watchdog_is_sent_only_by_the_process_of_watchdog_pid(
    tmp_path: Path, daemon: MakeDaemon, notified: NotifySocket, environment: dict[str, str]
) -> None:
    made = daemon(config(tmp_path), env={**environment, "WATCHDOG_PID": str(os.getpid())})
    made.start()
    notified.until_status("2 nodes: 2 ok")
    assert not notified.has("WATCHDOG")


def test_detached_daemon_sends_its_pid_and_watchdog(
    tmp_path: Path, daemon: MakeDaemon, notified: NotifySocket, environment: dict[str, str]
) -> None:
    made = daemon(config(tmp_path, logfile=str(tmp_path / "log")), ("-d",), env=environment)
    command = [sys.executable, "-c", SERVICE, *made.command]
    subprocess.run(command, env={**os.environ, **environment}, check=True, timeout=60)
    pid = int((made.rundir / "default.pid").read_text().split()[0])
    try:
        assert notified.until("READY")["MAINPID"] == str(pid)
        assert notified.until("WATCHDOG")
        assert set(notified.senders) == {pid}
    finally:
        os.kill(pid, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{pid}").exists(), 60, "its end")
