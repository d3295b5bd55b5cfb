"""Processes as /proc shows them, and servers that a test starts and ends, always by pid."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.network import Place
from support.wait import until


def free_port() -> int:
    """Return a port of 127.0.0.1 on which no process listens.

    It is not one of the kernel's ephemeral ports: another client or test might get those while the server of
    a test is down.
    """
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = [port for port in range(10_000, 1 << 16) if not first <= port <= last]
    # Seeded random numbers may be the same in tests that run in parallel.
    for port in random.SystemRandom().sample(ports, min(len(ports), 100)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Process:
    """A process. ``start``, in clock ticks after boot, distinguishes it from later ones with its pid."""

    pid: int
    state: str
    ppid: int
    pgrp: int
    session: int
    start: int


def look(pid: int) -> Process | None:
    """Return the process with this pid, or None if it is gone."""
    try:
        text = read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may contain spaces and parentheses: proc(5).
    fields = text.rpartition(b")")[2].split(None, 20)
    ppid, pgrp, session = map(int, fields[1:4])
    return Process(pid, fields[0].decode(), ppid, pgrp, session, int(fields[19]))


def read(path: str) -> bytes:
    """Return the content of a file in /proc. Tests read many of them, and this is the cheapest way."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while part := os.read(handle, 1 << 16):
            content += part
        return content
    finally:
        os.close(handle)


def table() -> dict[int, Process]:
    """Return all processes of the system by pid."""
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdecimal())
    return {process.pid: process for process in found if process is not None}


def family(roots: Iterable[int], among: Mapping[int, Process] | None = None) -> list[Process]:
    """Return the processes ``roots`` and their descendants, parents first."""
    processes = table() if among is None else among
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.ppid, []).append(process.pid)
    order: list[Process] = []
    todo = list(roots)
    seen: set[int] = set()
    while todo:
        pid = todo.pop(0)
        if pid in processes and pid not in seen:
            seen.add(pid)
            order.append(processes[pid])
            todo.extend(children.get(pid, ()))
    return order


def alive(process: Process) -> bool:
    """Whether this very process still runs; a zombie does not."""
    now = look(process.pid)
    return now is not None and now.start == process.start and now.state not in "ZX"


def send(process: Process, number: signal.Signals) -> None:
    """Send a signal to this very process, if it is still there."""
    if alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _is_stopped(pid: int) -> bool:
    process = look(pid)
    return process is not None and process.state in "Tt"


def title(pid: int) -> str:
    """Return the command line of a process as ``ps`` shows it, empty if it is gone."""
    try:
        raw = read(f"/proc/{pid}/cmdline")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return raw.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace").rstrip()


def session_of(leader: int) -> dict[int, int]:
    """Return a session that has just begun, in the form of ``still``."""
    process = look(leader)
    assert process is not None
    return {leader: process.start}


def still(sessions: Mapping[int, int], found: Mapping[int, Process]) -> dict[int, int]:
    """Return those of these sessions, each with the start of its leader, that still exist.

    A session without processes is over, and a later one may get its number.
    """
    numbers = {process.session for process in found.values()}
    return {
        number: start
        for number, start in sessions.items()
        if number in numbers and (number not in found or found[number].start == start)
    }


class Server:
    """A server in the foreground, with the processes for its connections."""

    name = "server"

    def __init__(self, log: Path, place: Place | None = None) -> None:
        self.logfile = log
        self.place = place
        self.address = place.there if place else "127.0.0.1"
        self.port = 0
        self._main: subprocess.Popen[bytes] | None = None
        self._sessions: dict[int, int] = {}
        """The start of each session's leader, by the number of the session."""
        self._seen: dict[tuple[int, int], Process] = {}

    def command(self) -> Sequence[str]:
        """Return the argument vector that starts it."""
        raise NotImplementedError

    def accepts(self) -> bool:
        """Whether it serves connections by now."""
        raise NotImplementedError

    def greets(self, word: bytes) -> bool:
        """Whether it listens on its port and, if it can be reached, greets with this word."""
        if self.place is not None:
            return self.place.listens(self.pid, self.port)
        try:
            with socket.create_connection((self.address, self.port), timeout=5) as probe:
                return probe.recv(len(word)) == word
        except OSError:
            return False

    def start(self) -> None:
        """Start it, and return when it accepts connections."""
        assert self._main is None, f"{self.name} runs already"
        with self.logfile.open("ab") as log:
            self._main = subprocess.Popen(
                [*(self.place.inside if self.place else ()), *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._sessions |= session_of(self._main.pid)
        try:
            until(lambda: not self.running or self.accepts(), 60, f"{self.name} to accept connections")
            assert self.running, f"{self.name} ended at once:\n{self.log()}"
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """The pid of the process that listens."""
        assert self._main is not None, f"{self.name} does not run"
        return self._main.pid

    @property
    def running(self) -> bool:
        """Whether the listening process runs."""
        return self._main is not None and self._main.poll() is None

    def processes(self) -> list[Process]:
        """Return the listening process and those of connections, including orphans of earlier servers."""
        found = table()
        roots = [self._main.pid] if self._main is not None else []
        roots += [process.pid for process in self._seen.values() if alive(process)]
        self._sessions = still(self._sessions, found)
        # A child of a process that has just ended has another parent.
        roots += [process.pid for process in found.values() if process.session in self._sessions]
        for process in family(roots, found):
            self._seen[process.pid, process.start] = process
        self._seen = {key: process for key, process in self._seen.items() if alive(process)}
        return list(self._seen.values())

    def connections(self) -> list[Process]:
        """Return the processes that serve a connection."""
        return [
            process for process in self.processes() if self._main is None or process.pid != self._main.pid
        ]

    def drop(self) -> None:
        """Cut every connection, and go on listening."""
        cut = self.connections()
        for process in cut:
            send(process, signal.SIGKILL)
        until(lambda: not any(map(alive, cut)), 30, f"the connections of {self.name} to end")
        # Children forked since would hold the connections open.
        pids = {process.pid for process in self.processes()}
        for process in self.connections():
            if process.ppid not in pids:
                send(process, signal.SIGKILL)

    def pause(self) -> None:
        """Hang: the kernel accepts connections and no process answers."""

        def stopped() -> bool:
            running = [process for process in self.processes() if process.state not in "Tt"]
            for process in running:
                send(process, signal.SIGSTOP)
            return not running

        until(stopped, 30, f"{self.name} to be stopped")

    def resume(self) -> None:
        """Go on after ``pause``."""
        for process in self.processes():
            send(process, signal.SIGCONT)

    def stop(self) -> None:
        """End it with SIGTERM, and kill what is left."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it and all its connections at once, like a power failure."""
        self._end(signal.SIGKILL)

    def log(self) -> str:
        """Return what it has logged."""
        return self.logfile.read_text(errors="replace") if self.logfile.exists() else ""

    def _stop_main(self) -> None:
        main = look(self.pid)
        if main is not None:
            send(main, signal.SIGSTOP)
            until(lambda: not alive(main) or _is_stopped(main.pid), 30, f"{self.name} to be stopped")

    def _end(self, number: signal.Signals) -> None:
        if self._main is None:
            return
        # While it runs it might accept a connection whose process would not be found afterwards.
        self._stop_main()
        processes = self.processes()
        for process in processes:
            send(process, number)
            # A stopped process handles SIGTERM only when it is continued.
            send(process, signal.SIGCONT)
        try:
            self._main.wait(5)
        except subprocess.TimeoutExpired:
            self._main.kill()
            self._main.wait(30)
        self._main = None

        def gone() -> bool:
            left = self.processes()
            for process in left:
                send(process, signal.SIGKILL)
            return not left

        until(gone, 30, f"the processes of {self.name} to end")
