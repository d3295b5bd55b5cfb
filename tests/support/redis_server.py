"""A real Redis on loopback."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.network import Place
from support.procs import Server, free_port
from support.wait import until

REDIS = shutil.which("redis-server") or shutil.which("valkey-server")


class RedisServer(Server):
    """Redis, or Valkey, on a port and on a socket in ``home``. What it holds ends with it.

    ``options`` are added to its configuration. With ``place`` it is in that network.
    """

    name = "redis-server"

    def __init__(
        self, home: Path, options: Mapping[str, str] | None = None, place: Place | None = None
    ) -> None:
        super().__init__(home / "redis.log", place)
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.options = dict(options or {})
        self.port = free_port()
        self.socket = home / "redis.sock"

    def command(self) -> Sequence[str]:
        assert REDIS, "redis-server is not installed"
        options = {"port": str(self.port), "bind": self.address, "dir": str(self.home), "save": ""}
        options |= {"unixsocket": str(self.socket), "daemonize": "no", "protected-mode": "no", **self.options}
        return (REDIS, *(word for name, value in options.items() for word in (f"--{name}", value)))

    def accepts(self) -> bool:
        if self.place is not None:
            return self.place.listens(self.pid, self.port)
        try:
            with socket.create_connection((self.address, self.port), timeout=5) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(5) in (b"+PONG", b"-NOAU")  # maybe it wants a password first
        except OSError:
            return False

    @property
    def url(self) -> str:
        """Return where it is."""
        return f"redis://{self.address}:{self.port}/0"


class SentinelServer(RedisServer):
    """A Sentinel that finds after a moment that the primary is gone, and decides by itself."""

    name = "sentinel"

    def __init__(self, home: Path, primary: RedisServer, passwords: tuple[str, str] = ("", "")) -> None:
        super().__init__(home)
        self.config = home / "sentinel.conf"
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"sentinel monitor main {primary.address} {primary.port} 1",
            "sentinel down-after-milliseconds main 300",
            "sentinel failover-timeout main 2000",
        ]
        own, of_redis = passwords
        lines += [f"requirepass {own}"] if own else []
        lines += [f"sentinel auth-pass main {of_redis}"] if of_redis else []
        self.config.write_text("\n".join(lines) + "\n")

    def command(self) -> Sequence[str]:
        assert REDIS, "redis-server is not installed"
        return REDIS, str(self.config), "--sentinel"

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.port}/main"


class ReplicatedRedis:
    """A primary, a replica of it, and a Sentinel.

    ``passwords``: that of the Sentinel, and that of Redis; empty: none.
    """

    def __init__(self, home: Path, passwords: tuple[str, str] = ("", "")) -> None:
        common = {"requirepass": passwords[1], "masterauth": passwords[1]} if passwords[1] else {}
        self.primary = RedisServer(home / "primary", {"repl-diskless-sync-delay": "0", **common})
        self.replica = RedisServer(
            home / "replica", {"replicaof": f"127.0.0.1 {self.primary.port}", **common}
        )
        self.sentinel = SentinelServer(home / "sentinel", self.primary, passwords)
        self.url = self.sentinel.url

    def start(self) -> None:
        """Start them, and wait until the replica has what the primary has."""
        self.primary.start()
        self.replica.start()
        until(lambda: "Finished with success" in self.replica.log(), 30, "the replica to be there")
        self.sentinel.start()
        until(lambda: "+slave" in self.sentinel.log(), 30, "the Sentinel to know it")

    def stop(self) -> None:
        """End them."""
        for server in (self.sentinel, self.replica, self.primary):
            server.stop()
