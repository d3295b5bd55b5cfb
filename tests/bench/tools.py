"""The tools that are compared, each as well tuned for the work as it can be."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol

from support import procs
from support.daemon import LAUNCHER, Daemon
from support.procs import Server
from support.wait import until

from bench.nodes import Case

# Without it each run with an rsync daemon costs some 100 ms in delayed ACKs.
NODELAY = "--sockopts=TCP_NODELAY"

DEFAULT, QUICKEST, COLD = "inosync", "inosync, equiet 0", "inosync, cold"
LSYNCD, TUNED, DELAYED = "lsyncd", "lsyncd, tuned", "lsyncd, delay 1"
RSH, OWN_MASTER = "inosync, --rsh", "inosync, own master"
"""With a remote shell of the user's choice, and with the user's own ControlMaster in its options."""
BY_HAND = "rsync by hand"


def byte_code(home: Path) -> dict[str, str]:
    """Return an environment that keeps byte code, as an installation has it; the checkout stays as it is."""
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(home / "pycache")}


class Tool(Protocol):
    """A tool at work on one case."""

    def start(self) -> None:
        """Begin to mirror."""

    def written(self) -> None:
        """All changes of the tree are made for now."""

    def said(self) -> str:
        """The end of its log."""

    def stop(self) -> None:
        """End it, and all that it has started."""


class Resident(Tool, Protocol):
    """A tool that stays."""

    @property
    def pid(self) -> int:
        """Its master, from which all its other processes come."""

    @property
    def roots(self) -> list[int]:
        """The pids of the processes from which all others come, the master first."""

    def parts(self) -> dict[str, list[int]]:
        """The pids of all its processes, by what they do: "master", "workers", "rsync and ssh", "state"."""


Make = Callable[[Case], Tool]


class Inosync:
    """This checkout's inosync."""

    def __init__(
        self,
        case: Case,
        launcher: Path = LAUNCHER,
        environment: Mapping[str, str] | None = None,
        **settings: object,
    ) -> None:
        config = {"wpaths": [str(case.source)], "rpaths": [case.rpath], "rnodes": list(case.nodes)}
        env = {**(case.sshd.env() if case.sshd else {}), **(environment or {})}
        self._daemon = Daemon(case.home / "inosync", config | settings, env=env, launcher=launcher)

    @property
    def pid(self) -> int:
        return self._daemon.pid

    @property
    def roots(self) -> list[int]:
        return [self.pid]

    def start(self) -> None:
        self._daemon.start()

    def written(self) -> None:
        pass

    def said(self) -> str:
        return self._daemon.log_tail()

    def stop(self) -> None:
        self._daemon.close()

    def parts(self) -> dict[str, list[int]]:
        workers = list(self._daemon.workers().values())
        known = [self.pid, *workers]
        others = [process.pid for process in procs.family(known) if process.pid not in known]
        writers = [pid for pid in others if procs.title(pid).startswith("inosync: state")]
        others = [pid for pid in others if pid not in writers]
        return {"master": [self.pid], "workers": workers, "rsync and ssh": others, "state": writers}


class InosyncOwnShell(Inosync):
    """inosync with ``--rsh=ssh ...``; ``shared``: with a ControlMaster of the user's, which stays, in it."""

    def __init__(self, case: Case, shared: bool = False) -> None:
        assert case.sshd is not None
        self._case = case
        own = f"-o ControlMaster=auto -o ControlPath={case.home}/u-%n -o ControlPersist=600" if shared else ""
        super().__init__(case, equiet=0, extra=[f"--rsh={case.sshd.rsh} {own}".strip()])

    def stop(self) -> None:
        for socket in self._case.home.glob("u-*"):
            argv = ["ssh", "-S", str(socket), "-O", "exit", "any"]
            subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        super().stop()


class Lsyncd(Server):
    """lsyncd, with ``delay`` in seconds.

    ``tuned``: over ssh it finds a connection to each node waiting (ControlMaster), and to a daemon rsync
    sends without delay. The latter is in no manual of lsyncd's, but whoever knows rsync can have it.
    """

    name = "lsyncd"

    def __init__(self, case: Case, delay: int = 0, tuned: bool = False) -> None:
        super().__init__(case.home / "lsyncd.log")
        self._case = case
        self._config = case.home / "lsyncd.lua"
        self._masters: list[subprocess.Popen[bytes]] = []
        # One socket for each host, as it is written; Unix allows a path of some 90 bytes.
        self._control = shlex.quote(f"-oControlPath={case.home}/%n") if tuned and case.sshd else ""
        rsync = ["archive = true"]
        if tuned:
            rsync.append(f"_extra = {{ {_lua(NODELAY)} }}")
        if case.sshd:
            rsync.append(f"rsh = {_lua(f'{case.sshd.rsh} {self._control}'.strip())}")
        self._config.write_text(
            "".join(
                f"sync {{ default.rsync, source = {_lua(f'{case.source}/')}, target = {_lua(target)}, "
                f"delay = {delay}, rsync = {{ {', '.join(rsync)} }} }}\n"
                for target in case.targets
            )
        )

    def command(self) -> Sequence[str]:
        return (self.name, "-nodaemon", str(self._config))

    def accepts(self) -> bool:
        return True  # what it mirrors tells when it is ready

    def start(self) -> None:
        if self._control and self._case.sshd:
            self._share(self._case.sshd.rsh)
        super().start()

    def _share(self, rsh: str) -> None:
        hosts = [node.partition(":")[0] for node in self._case.nodes]
        for host in hosts:
            argv = [*shlex.split(f"{rsh} {self._control}"), "-N", "-M", host]
            self._masters.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True))
        until(lambda: all((self._case.home / host).exists() for host in hosts), 60, "the shared connections")

    def written(self) -> None:
        pass

    def said(self) -> str:
        return self.log()[-4000:]

    @property
    def roots(self) -> list[int]:
        return [self.pid, *(master.pid for master in self._masters)]

    def parts(self) -> dict[str, list[int]]:
        others = [process.pid for process in self.connections()]
        return {"master": [self.pid], "rsync and ssh": [*others, *(one.pid for one in self._masters)]}

    def stop(self) -> None:
        try:
            if self.running:
                # It leaves behind what it has started, even while being told to end. The group is its own.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
            super().kill()
        finally:
            for master in self._masters:
                master.terminate()
            for master in self._masters:
                master.wait()


class ByHand:
    """rsync of the whole tree to each node, started after the last write; so many ``at_once``.

    More than two at a time for each processor, the default, only get into each other's way.
    """

    def __init__(self, case: Case, at_once: int = 0) -> None:
        rsh = [f"--rsh={case.sshd.rsh}"] if case.sshd else []
        argv = ["rsync", "-a", "--delete", NODELAY, *rsh, f"{case.source}/"]
        self._calls = [[*argv, target] for target in case.targets]
        self._pool = ThreadPoolExecutor(at_once or 2 * (os.cpu_count() or 1))

    def start(self) -> None:
        pass

    def written(self) -> None:
        for call in self._calls:
            self._pool.submit(subprocess.run, call, stdin=subprocess.DEVNULL, check=True)

    def said(self) -> str:
        return ""

    def stop(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def tools(work: str, transport: str = "") -> dict[str, Make]:
    """What is compared in this work, by name; inosync first."""
    found: dict[str, Make] = {DEFAULT: Inosync, QUICKEST: partial(Inosync, equiet=0)}
    if work == "edit":
        found[COLD] = partial(Inosync, equiet=0, rwarm=False)
        if transport == "ssh":
            found |= {RSH: InosyncOwnShell, OWN_MASTER: partial(InosyncOwnShell, shared=True)}
    if shutil.which(Lsyncd.name):
        found |= {LSYNCD: Lsyncd, TUNED: partial(Lsyncd, tuned=True)}
        if work == "files":
            # With delay 0 it starts with the first few of many files; 1 is the next value that it takes.
            found[DELAYED] = partial(Lsyncd, delay=1, tuned=True)
    return found | {BY_HAND: ByHand}


def _lua(text: str) -> str:
    """A string for Lua, which reads JSON's as long as they are printable ASCII."""
    return json.dumps(text)
