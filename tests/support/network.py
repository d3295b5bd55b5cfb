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
        join(None, f"{self._link}a", self.here, self.router, f"{self._link}b", self._near)
        _forward(self.router)
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
        return _listens(pid, port)

    def _plug_in(self) -> None:
        ip("netns", "add", self.node)
        join(self.router, f"{self._link}c", self._far, self.node, f"{self._link}d", self.there)
        ip("-n", self.node, "route", "add", "default", "via", self._far)


class Islands:
    """Machines, each in a network namespace of its own, that reach each other through a router.

    The router drops packets between two of them silently, or forwards them. Nothing of it is in the network
    of the test.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._base = f"inosync-{os.getpid()}-{next(_numbers) % 10}"
        self.router = f"{self._base}-router"
        self.machines = {name: Island(f"{self._base}-{name}", 4 * at) for at, name in enumerate(names)}
        self.cuts: set[tuple[str, str]] = set()
        """The pairs that do not reach each other."""

    def make(self) -> None:
        """Make the networks; raise NoNetwork if that is not possible."""
        if os.geteuid() != 0 or shutil.which("ip") is None:
            raise NoNetwork("only root, with iproute2, makes network namespaces")
        ip("netns", "add", self.router)
        _forward(self.router)
        for at, one in enumerate(self.machines.values()):
            ip("netns", "add", one.namespace)
            ip("-n", one.namespace, "link", "set", "lo", "up")
            join(self.router, f"here{at}", one.gateway, one.namespace, f"there{at}", one.there)
            ip("-n", one.namespace, "route", "add", "default", "via", one.gateway)

    def remove(self) -> None:
        """Remove whatever exists of it; links go with their ends."""
        for name in (*(one.namespace for one in self.machines.values()), self.router):
            with contextlib.suppress(NoNetwork):
                ip("netns", "del", name)

    def cut(self, one: str, other: str) -> None:
        """Drop all packets between two machines silently."""
        self.cuts.add((one, other))
        self._rules("add", one, other)

    def mend(self, one: str, other: str) -> None:
        """Forward their packets again."""
        self.cuts.remove((one, other))
        self._rules("del", one, other)

    def _rules(self, what: str, one: str, other: str) -> None:
        for a, b in ((one, other), (other, one)):
            way = ("from", self.machines[a].there, "to", self.machines[b].there)
            ip("-n", self.router, "rule", what, *way, "blackhole")


class Island:
    """A machine of ``Islands``."""

    def __init__(self, namespace: str, number: int) -> None:
        self.namespace = namespace
        self.gateway, self.there = f"198.18.0.{number + 1}", f"198.18.0.{number + 2}"

    @property
    def inside(self) -> Sequence[str]:
        """The words before the command of what runs there."""
        return ("ip", "netns", "exec", self.namespace)

    def listens(self, pid: int, port: int) -> bool:
        """Whether a process there listens on the port, even if it cannot be reached."""
        return _listens(pid, port)


def join(one: str | None, a: str, address: str, two: str, b: str, other: str) -> None:
    """Connect two namespaces (None: that of the test) by a link with these ends and addresses."""
    at = ("-n", one) if one else ()
    ip(*at, "link", "add", a, "type", "veth", "peer", "name", b, "netns", two)
    for end, link, own in ((at, a, address), (("-n", two), b, other)):
        ip(*end, "addr", "add", f"{own}/30", "dev", link)
        ip(*end, "link", "set", link, "up")


def _forward(namespace: str) -> None:
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NoNetwork(done.stderr.strip())


def _listens(pid: int, port: int) -> bool:
    try:
        table = Path(f"/proc/{pid}/net/tcp").read_text()
    except OSError:
        return False
    return re.search(rf":{port:04X} 00000000:0000 0A ", table) is not None


def ip(*words: str) -> None:
    """Call ip(8); raise NoNetwork with its message if that fails."""
    done = subprocess.run(
        ["ip", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NoNetwork(f"ip {' '.join(words)}: {done.stderr.strip()}")
