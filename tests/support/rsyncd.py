"""A real rsync daemon on loopback."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from support.network import Place
from support.procs import Server, free_port


class Rsyncd(Server):
    """An rsync daemon with a writable module for each item of ``modules``, on 127.0.0.1.

    ``home`` is a directory for its configuration and log. With ``user`` and ``password`` every module asks
    for them. ``options`` are added to the global part of the configuration, and win. ``port`` stays the
    same over stop and start, so that a node can die and come back. With ``place`` it is in that network.
    """

    name = "rsyncd"

    def __init__(
        self,
        home: Path,
        modules: Mapping[str, Path],
        user: str = "",
        password: str = "",
        options: Mapping[str, str] | None = None,
        place: Place | None = None,
    ) -> None:
        super().__init__(home / "rsyncd.log", place)
        self.port = free_port()
        self.user = user
        self.config = home / "rsyncd.conf"
        home.mkdir(parents=True, exist_ok=True)
        root = os.geteuid() == 0
        settings = {
            "address": self.address,
            "port": str(self.port),
            "log file": str(self.logfile),
            "lock file": str(home / "rsyncd.lock"),
            "reverse lookup": "no",
            "max connections": "0",
            # One daemon serves many nodes. With the default of 5, clients that connect together wait a
            # second.
            "listen backlog": "1024",
            "socket options": "TCP_NODELAY",
            # Without chroot, which needs root, the daemon changes absolute symlinks unless it munges them;
            # trees.snapshot undoes that.
            "use chroot": "yes" if root else "no",
            "munge symlinks": "no" if root else "yes",
            "read only": "no",
            "list": "yes",
        }
        if root:
            # The default, nobody, can neither write there nor change owners.
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
        return self.greets(b"@RSYNCD:")

    def url(self, module: str, path: str = "") -> str:
        """Return a path in a module as ``rsync://[user@]host:port/module/path``."""
        login = f"{self.user}@" if self.user else ""
        return f"rsync://{login}{self.address}:{self.port}/{module}/{path}"

    def colons(self, module: str, path: str = "") -> str:
        """Return it as ``[user@]host::module/path``, for which rsync also needs ``port_option``."""
        login = f"{self.user}@" if self.user else ""
        return f"{login}{self.address}::{module}/{path}"

    @property
    def port_option(self) -> str:
        """The option for rsync that goes with ``colons``; other transports ignore it."""
        return f"--port={self.port}"


class MakeRsyncd(Protocol):
    """The fixture ``rsyncd``: makes an rsync daemon with these modules and starts it."""

    def __call__(
        self,
        modules: Mapping[str, Path],
        user: str = "",
        password: str = "",
        options: Mapping[str, str] | None = None,
    ) -> Rsyncd:
        """See ``Rsyncd``."""
