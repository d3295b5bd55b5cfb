"""A real rsync daemon on loopback."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from support.procs import Server


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on at the moment.

    None of those that the kernel gives to whoever asks for any: while its server is down, a client of
    another one, or another test, might get it.
    """
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = [port for port in range(10_000, 1 << 16) if not first <= port <= last]
    # Not by the random numbers of a test, which may be the same for those that run beside it.
    for port in random.SystemRandom().sample(ports, min(len(ports), 100)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Rsyncd(Server):
    """An rsync daemon with a writable module for each item of ``modules``, on 127.0.0.1.

    ``home`` is a directory for its configuration and log. With ``user`` and ``password`` every module asks
    for them. ``options`` are added to the global part of the configuration, and win. ``port`` stays the
    same over stop and start, so that a node can die and come back.
    """

    name = "rsyncd"

    def __init__(
        self,
        home: Path,
        modules: Mapping[str, Path],
        user: str = "",
        password: str = "",
        options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(home / "rsyncd.log")
        self.port = free_port()
        self.user = user
        self.config = home / "rsyncd.conf"
        home.mkdir(parents=True, exist_ok=True)
        root = os.geteuid() == 0
        settings = {
            "address": "127.0.0.1",
            "port": str(self.port),
            "log file": str(self.logfile),
            "lock file": str(home / "rsyncd.lock"),
            "reverse lookup": "no",
            "max connections": "0",
            # Many nodes are one daemon here. With 5, the default, those that connect together wait a second.
            "listen backlog": "1024",
            "socket options": "TCP_NODELAY",
            # Without chroot, which only root has, the daemon takes the slash from absolute symlinks unless it
            # munges them; that can be undone, and trees.snapshot does.
            "use chroot": "yes" if root else "no",
            "munge symlinks": "no" if root else "yes",
            "read only": "no",
            "list": "yes",
        }
        if root:
            # The default is nobody, who can neither write there nor give files away.
            settings |= {"uid": "0", "gid": "0"}
        if user:
            secrets = home / "rsyncd.secrets"
            secrets.write_text(f"{user}:{password}\n")
            secrets.chmod(0o600)
            settings |= {"auth users": user, "secrets file": str(secrets)}
        settings |= options or {}
        lines = [f"{key} = {value}" for key, value in settings.items()]
        for module, path in modules.items():
            path.mkdir(parents=True, exist_ok=True)
            lines += [f"[{module}]", f"path = {path}"]
        self.config.write_text("\n".join(lines) + "\n")

    def command(self) -> Sequence[str]:
        rsync = shutil.which("rsync")
        assert rsync, "rsync is not installed"
        return (rsync, "--daemon", "--no-detach", f"--config={self.config}")

    def accepts(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                return probe.recv(8) == b"@RSYNCD:"
        except OSError:
            return False

    def url(self, module: str, path: str = "") -> str:
        """The module, and a path in it, in the syntax with a port: ``rsync://[user@]host:port/module/path``."""
        login = f"{self.user}@" if self.user else ""
        return f"rsync://{login}127.0.0.1:{self.port}/{module}/{path}"

    def colons(self, module: str, path: str = "") -> str:
        """The same as ``[user@]host::module/path``, for which rsync has to be given ``port_option`` too."""
        login = f"{self.user}@" if self.user else ""
        return f"{login}127.0.0.1::{module}/{path}"

    @property
    def port_option(self) -> str:
        """The parameter of rsync that goes with ``colons``; other transports do not mind it."""
        return f"--port={self.port}"


class MakeRsyncd(Protocol):
    """The fixture ``rsyncd``: make an rsync daemon with these modules, and start it."""

    def __call__(
        self,
        modules: Mapping[str, Path],
        user: str = "",
        password: str = "",
        options: Mapping[str, str] | None = None,
    ) -> Rsyncd:
        """See ``Rsyncd``."""
