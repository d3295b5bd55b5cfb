"""Warm rsyncs and connections whose end nobody tells of, black-box."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from support import procs
from support.daemon import Patched
from support.rsyncd import MakeRsyncd, Rsyncd
from support.sshd import Sshd
from support.warm import OK, RETRY, MakeWarm, below, end, set_up_everywhere, stop

ROOT = os.geteuid() == 0


# Where the kernel does not let us look ---------------------------------------------------------------------

NOT_PERMITTED = """
from inosync.system import peers
def refuse(process, number):
    raise PermissionError(1, "Operation not permitted")
peers._duplicate = refuse
"""


def test_a_death_is_noticed_where_the_connections_of_others_may_not_be_looked_at(
    tmp_path: Path, patched: Patched, rsyncd: MakeRsyncd, own_sshd: Sshd
) -> None:
    everywhere = set_up_everywhere(tmp_path, patched(NOT_PERMITTED), rsyncd, own_sshd)
    w, servers = everywhere.warm, (everywhere.rsyncd, own_sshd)
    w.watched = False
    w.daemon.start()
    w.until_level()
    before = {node: spares["tree"] for node, spares in w.until_warm().items()}
    end([below(before["local"])])
    for server in servers:
        server.kill()
    for node in ("daemon", "ssh"):
        w.until_title(node, rf"{RETRY} .*Connection refused.*, 0 behind")
    w.until_warm("local", but=[before["local"]])
    for server in servers:
        server.start()
    for node in before:
        w.until_title(node, OK)
    w.until_warm(but=list(before.values()))
    counts = {node: w.batches(node) for node in before}
    w.change("file")
    w.until_level()
    w.until_warm()
    assert {node: w.batches(node) - counts[node] for node in before} == dict.fromkeys(before, 1)


# A network that is gone ------------------------------------------------------------------------------------


class Namespace:
    """A network namespace with one link to here, and addresses of the range for benchmarks (RFC 2544)."""

    def __init__(self) -> None:
        self.name = f"inosync-{os.getpid()}"
        # At most 15 letters.
        self.link = f"ino{os.getpid()}"[:13]
        third = os.getpid() % 250
        self.here, self.there = f"198.18.{third}.1", f"198.18.{third}.2"

    def make(self) -> None:
        ip("netns", "add", self.name)
        ip(
            "link",
            "add",
            self.link + "a",
            "type",
            "veth",
            "peer",
            "name",
            self.link + "b",
            "netns",
            self.name,
        )
        ip("addr", "add", f"{self.here}/30", "dev", self.link + "a")
        ip("link", "set", self.link + "a", "up")
        ip("-n", self.name, "addr", "add", f"{self.there}/30", "dev", self.link + "b")
        ip("-n", self.name, "link", "set", self.link + "b", "up")

    def remove(self) -> None:
        """The link goes with it."""
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)

    def swallow(self) -> None:
        """From now on nothing comes back from there, and nobody is told."""
        ip("-n", self.name, "route", "add", "blackhole", f"{self.here}/32")

    def answer(self) -> None:
        """As before."""
        ip("-n", self.name, "route", "del", "blackhole", f"{self.here}/32")


def ip(*words: str) -> None:
    done = subprocess.run(
        ["ip", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (words, done.stderr)


class FarRsyncd(Rsyncd):
    """An rsync daemon in a network namespace."""

    def __init__(self, home: Path, place: Namespace, modules: Mapping[str, Path]) -> None:
        super().__init__(home, modules, options={"address": place.there})
        self.place = place

    def command(self) -> Sequence[str]:
        return ("ip", "netns", "exec", self.place.name, *super().command())

    def accepts(self) -> bool:
        try:
            with socket.create_connection((self.place.there, self.port), timeout=5) as probe:
                return probe.recv(8) == b"@RSYNCD:"
        except OSError:
            return False

    def url(self, module: str, path: str = "") -> str:
        return super().url(module, path).replace("127.0.0.1", self.place.there)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """One of the test's own."""
    if not ROOT or shutil.which("ip") is None:
        pytest.skip("only root, with iproute2, makes network namespaces")
    one = Namespace()
    try:
        try:
            one.make()
        except AssertionError as error:
            pytest.skip(f"no network namespace can be made: {error}")
        yield one
    finally:
        one.remove()


def test_a_connection_that_is_dead_without_a_word_is_noticed(
    tmp_path: Path, warm: MakeWarm, namespace: Namespace
) -> None:
    server = FarRsyncd(tmp_path / "rsyncd", namespace, {"far": tmp_path / "nodes/far"})
    w = warm({"far": server.url("far"), "other": ""})
    server.start()
    try:
        w.daemon.start()
        before = w.until_warm()
        w.until_level()
        namespace.swallow()
        silent = "(no answer for .*|.*timed out.*)"
        w.until_title("far", f"{RETRY} {silent}, 0 behind")
        w.until_gone(before["far"]["tree"])
        w.change("file")
        w.until_arrived("other", "file")
        w.until_title("far", f"{RETRY} {silent}, 1 behind")
        namespace.answer()
        w.until_level()
        w.until_warm()
    finally:
        server.kill()


# Sessions that hang ----------------------------------------------------------------------------------------


def test_an_ssh_connection_that_hangs_is_noticed_without_a_change(
    tmp_path: Path, warm: MakeWarm, own_sshd: Sshd
) -> None:
    w = warm({"ssh": own_sshd.node("a", f"{tmp_path}/nodes/ssh/"), "other": ""}, env=own_sshd.env())
    w.daemon.start()
    before = w.until_warm()
    w.until_level()
    hung = own_sshd.connections()
    for process in hung:
        stop(process)
    w.until_warm("ssh", but=[before["ssh"]["tree"]])
    w.until_gone(before["ssh"]["tree"])
    assert w.spare("other") == before["other"]["tree"]
    w.change("file")
    w.until_level()
    assert all(map(procs.alive, hung))


def test_a_batch_on_an_ssh_connection_that_hangs_is_sent_again_on_another(
    tmp_path: Path, warm: MakeWarm, own_sshd: Sshd
) -> None:
    node = {"node": own_sshd.node("a", f"{tmp_path}/nodes/ssh/"), "rtimeout": 2}
    w = warm({"ssh": node, "other": ""}, env=own_sshd.env())
    w.daemon.start()
    w.until_warm()
    w.until_level()
    hung = own_sshd.connections()
    for process in hung:
        stop(process)
    w.change("file")
    w.until_level()
    w.until_warm()
    assert all(map(procs.alive, hung))
