"""Many nodes on loopback: modules of one real rsync daemon, or directories behind one real sshd."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.rsyncd import Rsyncd
from support.sshd import Sshd

TRANSPORTS = {"daemon": ("rsync",), "ssh": ("rsync", "ssh", "sshd")}
"""Each with the programs that it needs on this machine."""
LOCAL = "local"
"""Nodes that are directories of this machine, for numbers that no server on it would bear."""


@dataclass(frozen=True)
class Case:
    """A tree, and the nodes that one tool is to mirror it to."""

    home: Path
    """For the tool's own files."""
    source: Path
    rpath: str
    nodes: tuple[str, ...]
    """In rsync's syntax. The target of a transfer is one of them followed by ``rpath``."""
    copies: tuple[Path, ...]
    """Where the copies come to be, in the order of ``nodes``."""
    sshd: Sshd | None
    """With the transport ssh."""

    @property
    def targets(self) -> list[str]:
        """One for each node, for rsync."""
        return [f"{node}{self.rpath}/" for node in self.nodes]


class Nodes:
    """``count`` nodes behind one server. ``case`` gives fresh directories for one tool at a time."""

    def __init__(self, home: Path, transport: str, count: int) -> None:
        self._home = home
        self._roots = [home / "nodes" / str(number) for number in range(count)]
        for root in self._roots:
            root.mkdir(parents=True)
        self._sshd = Sshd(home / "sshd") if transport == "ssh" else None
        modules = {f"n{number}": root for number, root in enumerate(self._roots)}
        self._server = self._sshd or (Rsyncd(home / "rsyncd", modules) if transport == "daemon" else None)
        if isinstance(self._server, Rsyncd):
            names = [self._server.url(module).rstrip("/") for module in modules]
        elif self._server is not None:
            names = [self._server.node(root.name, root) for root in self._roots]
        else:
            names = [str(root) for root in self._roots]
        self._names = tuple(names)
        self._made = 0

    def start(self) -> None:
        """Start the server; ``AssertionError`` when it does not let anybody in."""
        if self._server is not None:
            self._server.start()
        refusal = self._sshd.refusal() if self._sshd else ""
        assert not refusal, f"nobody can log in: {refusal}"

    def close(self) -> None:
        """End the server, and every connection to it."""
        if self._server is not None:
            self._server.kill()

    @contextmanager
    def case(self) -> Iterator[Case]:
        """An empty tree and empty nodes, gone afterwards."""
        self._made += 1
        work = self._home / f"case-{self._made}"
        copies = tuple(root / work.name for root in self._roots)
        source = work / "tree"
        source.mkdir(parents=True)
        try:
            yield Case(work, source, f"/{work.name}", self._names, copies, self._sshd)
        finally:
            for directory in (work, *copies):
                shutil.rmtree(directory, ignore_errors=True)


def missing(transport: str) -> str:
    """A program that this transport needs and that is not installed; empty if all are."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin:/sbin"
    return next((name for name in TRANSPORTS[transport] if not shutil.which(name, path=path)), "")
