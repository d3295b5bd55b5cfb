"""A running inosync seen from outside: command line, titles, log, processes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from inosync.changes import Kind
from inosync.console.client import Client
from inosync.console.protocol import ALL
from inosync.state.document import decode
from support import procs, trees
from support.procs import Process
from support.wait import until

CHECKOUT = Path(__file__).resolve().parents[2]
LAUNCHER = CHECKOUT / "bin" / "inosync"

MARK = "INOSYNC_TEST_MARK"
WORKER = re.compile(r"^inosync: (?P<node>.+?) \[(?P<state>[a-z]+)(?P<more>[^]]*)\]")
MASTER = "inosync: master "
WRITER = "inosync: state "
ANSWER = 120.0
"""Seconds to wait for an answer over the control socket."""
LEFT_AFTER = 30.0
"""Seconds after the end of its master until which other processes of an inosync may exist."""


def ask(path: str | Path, request: Mapping[str, Any], timeout: float = 10.0) -> dict[str, Any]:
    """Return the reply of the daemon that listens at ``path``; NotRunning or Refused."""
    with Client(str(path), timeout) as client:
        return client.ask(request)


class Daemon:
    """One inosync and all the processes that come from it.

    ``config`` is the text of a configuration file, or its settings by name; a ``rundir`` and a
    ``statedir`` below ``home`` are added if it has none. ``args`` follow ``-c FILE`` on the command line,
    ``env`` is added to the environment. Nothing runs before ``start()``. ``close()`` at the end of a test
    ends everything that is left, and fails if anything was left that should not be, or if a traceback was
    printed.
    """

    def __init__(
        self,
        home: Path,
        config: Mapping[str, object] | str,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        launcher: Path = LAUNCHER,
    ) -> None:
        self.home = home
        self.launcher = launcher
        self.args = tuple(args)
        self.rundir = home / "run"
        self.statedir = home / "state"
        self.stderr = home / "stderr"
        self.stdout = home / "stdout"
        self.file = home / "etc" / "default.py"
        for directory in (home, self.rundir, self.file.parent):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # With any umask: inosync refuses a configuration that others can change.
            directory.chmod(0o700)
        self._nodes: int | None = None
        self._mark = uuid.uuid4().hex
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", MARK: self._mark, **(env or {})}
        self._main: subprocess.Popen[bytes] | None = None
        self._mains: dict[int, int] = {}
        """The sessions in which masters were started, with the start time of each leader."""
        self._seen: dict[tuple[int, int], Process] = {}
        self.configure(config)

    # Starting and ending -------------------------------------------------------------------------------

    def configure(self, config: Mapping[str, object] | str) -> None:
        """Write the configuration file; a running daemon reads it after ``hup()``."""
        if isinstance(config, str):
            text = config
            for name, directory in (("statedir", self.statedir), ("rundir", self.rundir)):
                if not re.search(rf"^{name}\b", text, re.MULTILINE):
                    text = f"{name} = {str(directory)!r}\n{text}"
            self._nodes = None
        else:
            own = {"rundir": str(self.rundir), "statedir": str(self.statedir)}
            settings = {**own, **_tools(), **config}
            text = "".join(f"{name} = {value!r}\n" for name, value in settings.items())
            nodes = settings.get("rnodes")
            self._nodes = len(nodes) if isinstance(nodes, list | tuple) else None
        fresh = self.file.with_name("new")
        fresh.touch(mode=0o600)
        fresh.write_text(text)
        fresh.rename(self.file)

    @property
    def command(self) -> list[str]:
        """The argument vector that starts it."""
        return [sys.executable, str(self.launcher), "-c", str(self.file), *self.args]

    def start(self, ready: bool = True) -> None:
        """Start it in the foreground; with ``ready``, wait until the master has its title."""
        assert self._main is None, "inosync runs already"
        with self.open_stderr() as err, self.stdout.open("ab") as out:
            self._main = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=self._env,
                cwd=self.home,
                start_new_session=True,
            )
        self._mains |= procs.session_of(self._main.pid)
        if ready:
            until(lambda: self.exit_code is not None or self.title(), 60, "the master's title")
            assert self.exit_code is None, f"inosync ended with {self.exit_code}:\n{self.log()}"

    def open_stderr(self) -> IO[bytes]:
        """Return the stream that becomes its standard error."""
        return self.stderr.open("ab")

    @property
    def pid(self) -> int:
        """The master's process."""
        assert self._main is not None, "inosync does not run"
        return self._main.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code (negative: the signal that killed it), or None while it runs."""
        assert self._main is not None, "inosync was not started"
        return self._main.poll()

    def wait(self, timeout: float = 60) -> int:
        """Wait for its end, and return the exit code."""
        assert self._main is not None, "inosync was not started"
        try:
            code = self._main.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(self._report(f"inosync did not end within {timeout:g} s")) from None
        self.descendants()
        self._main = None
        return code

    def stop(self, timeout: float = 30) -> int:
        """End it with SIGTERM and return its exit code."""
        self.descendants()
        os.kill(self.pid, signal.SIGTERM)
        return self.wait(timeout)

    def kill9(self) -> None:
        """Kill only the master, as the out-of-memory killer does."""
        self.descendants()
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def hup(self) -> None:
        """Make it read its configuration file again."""
        os.kill(self.pid, signal.SIGHUP)

    def signal(self, number: signal.Signals) -> None:
        """Send the master any other signal."""
        os.kill(self.pid, number)

    def close(self) -> None:
        """End all that is left by pid; raise AssertionError if something should not have been left."""
        try:
            if self._main is not None and self._main.poll() is None:
                os.kill(self._main.pid, signal.SIGCONT)
                self.stop()
            elif self._main is not None:
                self.wait()
            until(lambda: not self.descendants(), LEFT_AFTER, "all processes of inosync to end")
        except AssertionError as error:
            left = "\n".join(f"  {pid}: {procs.title(pid)}" for pid in self.descendants())
            raise AssertionError(f"{error}\nleft were:\n{left}\nthe log:\n{self.log_tail()}") from None
        finally:
            self._kill_all()
        log = self.log()
        assert "Traceback" not in log, f"a traceback in the log:\n{log[-8000:]}"

    def _kill_all(self) -> None:
        def gone() -> bool:
            self.descendants()
            for process in self._seen.values():
                procs.send(process, signal.SIGKILL)
            return not self._seen

        if self._main is not None:
            self._main.kill()
            self._main.wait(10)
            self._main = None
        until(gone, 10, "the killed processes of inosync to end")

    # Looking at it -------------------------------------------------------------------------------------

    def log(self) -> str:
        """Return all that it has written to stderr in all its starts."""
        return self.stderr.read_text(errors="replace") if self.stderr.exists() else ""

    def log_tail(self, lines: int = 60) -> str:
        """Return the end of the log."""
        return "\n".join(self.log().splitlines()[-lines:])

    def output(self) -> str:
        """Return all that it has written to stdout."""
        return self.stdout.read_text(errors="replace") if self.stdout.exists() else ""

    @property
    def socket(self) -> str:
        """The path of the control socket."""
        return str(self.rundir / f"{self.file.stem}.sock")

    def ask(self, command: str, **more: object) -> dict[str, Any]:
        """Send a command and return the reply; raise NotRunning or Refused.

        A status is that of this moment: one for which no nodes are named may be ``MAX_AGE_SECONDS`` old.
        """
        if command == "status":
            more = {"node": ALL, **more}
        return ask(self.socket, {"command": command, **more}, ANSWER)

    def descendants(self) -> list[int]:
        """Return the pids of all processes of this daemon, including the master and orphans.

        They are found as descendants, by the session of the master, and by a mark in the environment. The
        mark finds detached processes, but not those whose title has overwritten it. A process found once is
        followed until it ends.
        """
        found = procs.table()
        self._mains = procs.still(self._mains, found)
        mark = f"{MARK}={self._mark}".encode()
        roots = {process.pid for process in self._seen.values() if procs.alive(process)}
        for process in found.values():
            if process.session in self._mains or _has_mark(process.pid, mark):
                roots.add(process.pid)
        own = [process for process in procs.family(sorted(roots), found) if procs.alive(process)]
        self._seen = {(process.pid, process.start): process for process in own}
        return [process.pid for process in own]

    def children(self) -> list[Process]:
        """Return the children of the master, which are the workers, whatever their titles say.

        A child of a worker has the worker's title until it executes another program. A worker of an earlier
        master, which may not have ended yet, is not included.
        """
        self.descendants()
        master = self._main and self._main.pid
        own = [process for process in self._seen.values() if process.ppid == master]
        return [process for process in own if not procs.title(process.pid).startswith(WRITER)]

    def title(self) -> str:
        """Return the master's title, empty before it has one."""
        if self._main is None:
            return ""
        text = procs.title(self._main.pid)
        return text if text.startswith(MASTER) else ""

    def titles(self) -> list[str]:
        """Return the titles of the master and the workers, as ``ps`` shows them."""
        texts = (procs.title(pid) for pid in self.descendants())
        return [text for text in texts if text.startswith("inosync: ")]

    def workers(self) -> dict[str, int]:
        """Return the pids of the workers by node name."""
        return {node: pid for node, (pid, _) in self._worker_titles().items()}

    def states(self) -> dict[str, str]:
        """Return the word in the brackets of each worker's title, by node name."""
        return {node: match["state"] for node, (_, match) in self._worker_titles().items()}

    def state(self, node: str) -> str:
        """Return the word in the brackets of this node's title, empty without a worker."""
        return self.states().get(node, "")

    def rsyncs(self, node: str | None = None) -> list[int]:
        """Return the pids of the processes below all workers or one node's: rsync, and ssh if used."""
        workers = self.workers()
        roots = [pid for name, pid in workers.items() if node in (None, name)]
        return [process.pid for process in procs.family(roots) if process.pid not in roots]

    def _worker_titles(self) -> dict[str, tuple[int, re.Match[str]]]:
        found = {}
        for process in self.children():
            text = procs.title(process.pid)
            # A new worker has the master's title at first.
            if (match := WORKER.match(text)) and not text.startswith(MASTER):
                found[match["node"]] = (process.pid, match)
        return found

    # Waiting -------------------------------------------------------------------------------------------

    def until_kept(self) -> None:
        """Wait until a state is on the disk with which no node needs a full mirror at the next start."""

        def is_kept() -> bool:
            states = [decode(path.read_bytes()) for path in self.statedir.glob("*.state")]
            nodes = [node for state in states for node in state.nodes.values()]
            return bool(nodes) and all(
                node.time is not None and not any(one.kind is Kind.TREE for one in node.owed)
                for node in nodes
            )

        until(is_kept, 60, "the state")

    def until_level(
        self,
        pairs: Iterable[tuple[trees.Path, trees.Path]],
        timeout: float = 60,
        states: Collection[str] = ("ok",),
        ignore: Callable[[bytes], bool] | None = None,
        nodes: int | None = None,
    ) -> None:
        """Wait until each pair of directories (wpath, copy) is equal and every node is in one of ``states``.

        There must be ``nodes`` workers, by default one for each node of the configuration, with such titles.
        Entries for whose relative names ``ignore`` is true do not count.
        """
        expected = self._nodes if nodes is None else nodes
        todo = list(pairs)

        def apart() -> list[str]:
            lines = []
            for wpath, copy in todo:
                if not os.path.isdir(copy):
                    lines.append(f"{os.fsdecode(copy)}: not there")
                    continue
                found = trees.diff(trees.snapshot(wpath, ignore=ignore), trees.snapshot(copy, ignore=ignore))
                lines += [f"{os.fsdecode(copy)}: {line}" for line in found]
            return lines

        def equal(content: bool) -> bool:
            source: tuple[trees.Path, trees.Tree] | None = None
            for wpath, copy in todo:
                if not os.path.isdir(copy):
                    return False
                if source is None or source[0] != wpath:
                    source = wpath, trees.snapshot(wpath, content, ignore)
                if not trees.is_copy(source[1], copy, content, ignore):
                    return False
            return True

        def confirmed() -> bool:
            now = self.states()
            return (len(now) == expected if expected is not None else bool(now)) and all(
                state in states for state in now.values()
            )

        def level() -> bool:
            if self._main is None or self._main.poll() is not None:
                raise AssertionError("inosync does not run")
            if "Traceback" in self.log():
                raise AssertionError("a traceback in the log")
            # Contents are compared only when all else is equal, because that is expensive.
            return equal(content=False) and confirmed() and equal(content=True)

        try:
            until(level, timeout, "the nodes to be level")
        except AssertionError as error:
            differences = apart()
            shown = "\n".join(f"  {line}" for line in differences[:40]) or "  none"
            message = f"{error}\n{len(differences)} differences, the first of them:\n{shown}"
            raise AssertionError(self._report(message)) from None

    def until_state(self, node: str, states: Collection[str], timeout: float = 60) -> str:
        """Wait until the brackets of this node's title have one of ``states``, and return it."""
        try:
            return until(
                lambda: state if (state := self.state(node)) in states else "",
                timeout,
                f"{node} to be {' or '.join(states)}",
            )
        except AssertionError as error:
            raise AssertionError(self._report(str(error))) from None

    def until_logged(self, pattern: str, timeout: float = 60, since: int = 0) -> re.Match[str]:
        """Wait until the log, from character ``since`` on, matches ``pattern``."""
        return until(
            lambda: re.search(pattern, self.log()[since:], re.MULTILINE), timeout, f"{pattern!r} in the log"
        )

    def _report(self, message: str) -> str:
        titles = "\n".join(f"  {title}" for title in self.titles()) or "  none"
        return f"{message}\ntitles:\n{titles}\nthe end of the log:\n{self.log_tail()}"


class MakeDaemon(Protocol):
    """The fixture ``daemon``: makes an inosync, not started yet, in a directory of its own."""

    def __call__(
        self,
        config: Mapping[str, object] | str,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> Daemon:
        """See ``Daemon``."""


Patched = Callable[[str], MakeDaemon]
"""The fixture ``patched``: makes daemons that first run Python code of the test."""


class FakeRsync:
    """A program for the setting ``rsync``: it records its starts, has faults on request, and else runs rsync.

    The kind of a start is ``full`` (a full mirror begins, and asks what the node lacks), ``adds`` (it sends
    that), ``second`` (it sends everything, with links and deletions), ``batch``, or ``verify``, which only
    compares.

    A node is recognized by a component ``/NODE/`` of the target.
    """

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        real = shutil.which("rsync")
        assert real, "rsync is not installed"
        self.home = home
        self.path = home / "rsync"
        self._started = home / "started"
        self._started.touch()
        self.path.write_text(
            FAKE_RSYNC.replace("@HOME@", shlex.quote(str(home))).replace("@REAL@", shlex.quote(real))
        )
        self.path.chmod(0o755)

    def fault(self, node: str, shell: str) -> None:
        """Run this shell code before each start for the node; the file ``$fault`` exists until ``mend``.

        ``$kind`` is the kind of the start.
        """
        fresh = self.home / "new"
        fresh.write_text(shell + "\n")
        fresh.rename(self.home / f"fault-{node}")

    def hold(self, node: str) -> None:
        """Let each transfer to the node wait for ``mend``."""
        held = self._held(node)
        held.unlink(missing_ok=True)
        note = f'[ "$kind" = verify ] || : >{shlex.quote(str(held))}'
        self.fault(node, note + '; while [ -e "$fault" ]; do sleep 0.05; done')

    def until_held(self, node: str) -> None:
        """Wait until a transfer to the node has begun since ``hold``.

        The node's state does not say that: it may be that of a transfer that began earlier.
        """
        until(self._held(node).exists, 60, f"a transfer to {node} to be held")

    def _held(self, node: str) -> Path:
        return self.home / f"held-{node}"

    def mend(self, node: str) -> None:
        """Remove the node's fault, if it has one."""
        (self.home / f"fault-{node}").unlink(missing_ok=True)

    def starts(self, of: str = "") -> list[str]:
        """Return the starts so far as ``KIND TARGET``, only those that contain ``of``."""
        return [line for line in self._started.read_text(errors="surrogateescape").splitlines() if of in line]


FAKE_RSYNC = """#!/bin/sh
case "$1" in -V | --version) exec @REAL@ "$@" ;; esac
kind=second asked=full
for word; do
    case "$word" in
        --dirs) kind=batch asked=batch ;;
        --dry-run) kind=verify ;;
        --no-links) [ $kind = batch ] || kind=adds ;;
        --max-delete=0) kind=full ;;
        --ignore-existing) asks=yes ;;
    esac
done
[ -z "$asks" ] || kind=$asked
echo "$kind $word" >>@HOME@/started
for fault in @HOME@/fault-*; do
    case "$word" in
        */"${fault##*/fault-}"/*) [ ! -e "$fault" ] || . "$fault" ;;
    esac
done
exec @REAL@ "$@"
"""


def _tools() -> dict[str, str]:
    """Return the setting ``rsync`` if rsync is not at its usual path."""
    rsync = shutil.which("rsync")
    return {} if rsync in (None, "/usr/bin/rsync") else {"rsync": str(rsync)}


def _has_mark(pid: int, mark: bytes) -> bool:
    try:
        return mark in procs.read(f"/proc/{pid}/environ")
    except OSError:
        # Gone, or another user's: not ours.
        return False
