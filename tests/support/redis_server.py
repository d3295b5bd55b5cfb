"""A real Redis on loopback."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from support.procs import Server, free_port

REDIS = shutil.which("redis-server") or shutil.which("valkey-server")


class RedisServer(Server):
    """Redis, or Valkey, on 127.0.0.1 and on a socket in ``home``. What it holds ends with it."""

    name = "redis-server"

    def __init__(self, home: Path) -> None:
        super().__init__(home / "redis.log")
        self.home = home
        self.port = free_port()
        self.socket = home / "redis.sock"

    def command(self) -> Sequence[str]:
        assert REDIS, "redis-server is not installed"
        options = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.home), "save": ""}
        options |= {"unixsocket": str(self.socket), "daemonize": "no"}
        return (REDIS, *(word for name, value in options.items() for word in (f"--{name}", value)))

    def accepts(self) -> bool:
        try:
            with socket.create_connection((self.address, self.port), timeout=5) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(5) == b"+PONG"
        except OSError:
            return False

    @property
    def url(self) -> str:
        """Return where it is."""
        return f"redis://127.0.0.1:{self.port}/0"
