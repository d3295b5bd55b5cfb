"""A network of the test's own that can drop all packets, and whose far end can lose power."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

_numbers = itertools.count()


class NoNetwork(Exception):
    """No network can be made here; the text says why."""


class Place(Protocol):
    """Where a server runs in a network of its own."""

    @property
    def there(self) -> str:
        """Its address."""

    @property
    def inside(self) -> Sequence[str]:
        """The words before the command of the server."""

    def listens(self, pid: int, port: int) -> bool:
        """Whether a process there listens on the port, even if it cannot be reached."""


class Network:
    """The network namespace of a node behind that of a router.

    The addresses are of the range for benchmarks (RFC 2544). The router drops packets in both directions
    without an ICMP reply, and links stay up.
    """

    def __init__(self) -> None:
        number = next(_numbers) % 10
        self.router, self.node = (f"inosync-{os.getpid()}-{number}-{end}" for end in ("router", "node"))
        # At most 15 letters, for each of the four ends.
        self._link = f"ino{os.getpid() % 10**7}-{number}"
        third = (os.getpid() + number) % 250
        self.here, self._near = f"198.18.{third}.1", f"198.18.{third}.2"
        self._far, self.there = f"198.19.{third}.1", f"198.19.{third}.2"

    @property
    def inside(self) -> Sequence[str]:
        """The words before the command of a server that runs on the node."""
        return ("ip", "netns", "exec", self.node)

    def make(self) -> None:
        """Make the network; raise NoNetwork if that is not possible."""
        if os.geteuid() != 0 or shutil.which("ip") is None:
            raise NoNetwork("only root, with iproute2, makes network namespaces")
        ip("netns", "add", self.router)
        self._join(None, f"{self._link}a", self.here, self.router, f"{self._link}b", self._near)
        done = subprocess.run(
            ["ip", "netns", "exec", self.router, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NoNetwork(done.stderr.strip())
        ip("route", "add", f"{self.there}/32", "via", self._near)
        self._plug_in()

    def remove(self) -> None:
        """Remove whatever exists of it; links go with their ends."""
        for command in (
            ("ip", "link", "del", f"{self._link}a"),
            ("ip", "netns", "del", self.node),
            ("ip", "netns", "del", self.router),
        ):
            with contextlib.suppress(OSError):
                subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)

    def swallow(self) -> None:
        """Drop all packets silently."""
        for address in (self.here, self.there):
            ip("-n", self.router, "route", "add", "blackhole", f"{address}/32")

    def answer(self) -> None:
        """Forward packets again."""
        for address in (self.here, self.there):
            ip("-n", self.router, "route", "del", "blackhole", f"{address}/32")

    def reboot(self) -> None:
        """Let the node forget its connections silently. Its servers must have been killed before."""
        ip("netns", "del", self.node)
        # Otherwise the kernel removes it some time later.
        ip("-n", self.router, "link", "del", f"{self._link}c")
        self._plug_in()

    def listens(self, pid: int, port: int) -> bool:
        """Whether a process on the node listens on the port, even if it cannot be reached."""
        try:
            table = Path(f"/proc/{pid}/net/tcp").read_text()
        except OSError:
            return False
        return re.search(rf":{port:04X} 00000000:0000 0A ", table) is not None

    def _plug_in(self) -> None:
        ip("netns", "add", self.node)
        self._join(self.router, f"{self._link}c", self._far, self.node, f"{self._link}d", self.there)
        ip("-n", self.node, "route", "add", "default", "via", self._far)

    def _join(self, one: str | None, a: str, address: str, two: str, b: str, other: str) -> None:
        at = ("-n", one) if one else ()
        ip(*at, "link", "add", a, "type", "veth", "peer", "name", b, "netns", two)
        for end, link, own in ((at, a, address), (("-n", two), b, other)):
            ip(*end, "addr", "add", f"{own}/30", "dev", link)
            ip(*end, "link", "set", link, "up")


def ip(*words: str) -> None:
    """Call ip(8); raise NoNetwork with its message if that fails."""
    done = subprocess.run(
        ["ip", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NoNetwork(f"ip {' '.join(words)}: {done.stderr.strip()}")
