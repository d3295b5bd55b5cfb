"""A fleet in which disks, mounts, networks and Redis fail, each in a namespace of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fleet import Fleet
from support.network import NoNetwork
from support.procs import Server
from support.redis_server import REDIS, ReplicatedRedis
from support.scattered import Scattered
from support.wait import until

pytestmark = [
    pytest.mark.skipif(REDIS is None, reason="redis-server is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes namespaces"),
    pytest.mark.slow,
]
SMALL = "size=1m"
TTL_SECONDS = 2.0


class Mounts(Server):
    """A mount namespace that lasts as long as a process in it."""

    name = "sleep"

    def command(self) -> tuple[str, ...]:
        return ("unshare", "-m", "--propagation", "private", "sleep", "1000")

    def accepts(self) -> bool:
        return os.readlink(f"/proc/{self.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")

    @property
    def inside(self) -> tuple[str, ...]:
        return ("nsenter", "-t", str(self.pid), "-m")

    def run(self, *command: str) -> None:
        done = subprocess.run(
            [*self.inside, *command], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[Mounts]:
    if not shutil.which("nsenter") or not shutil.which("unshare"):
        pytest.skip("nsenter and unshare are not installed")
    made = Mounts(tmp_path / "mounts.log")
    made.start()
    yield made
    made.stop()


def sender(fleet: Fleet, name: str) -> dict[str, object]:
    """Return what the origin says of a sender."""
    found: dict[str, object] = next(one for one in fleet.ask("senders")["senders"] if one["name"] == name)
    return found


def is_ready(fleet: Fleet, name: str) -> bool:
    """Whether a sender takes nodes, and its copy does not stay behind."""
    found = sender(fleet, name)
    return bool(found["ready"]) and not found["late"]


def test_fleet_goes_on_without_disk_storage_or_primary(tmp_path: Path, mounts: Mounts) -> None:
    passwords = ("of-Sentinel", "of-Redis")
    servers = ReplicatedRedis(tmp_path / "servers", passwords)
    files = {"sentinel_password_file": tmp_path / "sentinel", "password_file": tmp_path / "redis"}
    for file, password in zip(files.values(), passwords, strict=True):
        file.write_text(password)
        file.chmod(0o600)
    home = tmp_path / "fleet"
    place, names = home / "places", ("full", "good", "nas")
    settings = {
        "fleet": {"url": servers.url, **{key: str(file) for key, file in files.items()}},
        "edelay": 0.3,  # and lost roots are looked for more often
        "rsenders": [
            {"node": f"{place}/full/", "name": "full"},
            {"node": f"{place}/good/", "name": "good"},
            {"name": "nas", "shared": True, "path": f"{place}/nas"},
        ],
    }
    inside = dict.fromkeys(("origin", *names), mounts.inside)
    fleet = Fleet(home, names, settings=settings, inside=inside, ttl=TTL_SECONDS).trust_redis()
    storage = fleet.copy("nas")
    storage.mkdir()
    mounts.run("mount", "-t", "tmpfs", "-o", SMALL, "tmpfs", str(fleet.place("full")))
    mounts.run("mount", "--bind", str(fleet.tree), str(storage))
    (fleet.tree / "page").write_text("1")
    servers.start()
    try:
        with fleet.running():
            until(lambda: set(fleet.until_served().values()) == set(names), 60, "all to serve nodes")
            fleet.until_level()

            # A disk is full, and the shared storage is not there any more: an empty directory is, which
            # is not sent. Both senders leave their nodes to the last one, and the operator sees why.
            mounts.run("umount", "-l", str(storage))
            (fleet.tree / "big").write_bytes(os.urandom(3 << 20))
            until(lambda: set(fleet.until_served().values()) == {"good"}, 60, "the last one to serve all")
            fleet.until_level()
            until(lambda: sender(fleet, "full")["late"], 60, "it to be late")
            assert "stays behind" in str(sender(fleet, "full")["reason"])
            until(lambda: "No space left" in fleet.status()["full"]["reason"], 60, "the reason")
            assert not sender(fleet, "nas")["ready"]

            # There is room again, and the storage is back.
            mounts.run("mount", "--bind", str(fleet.tree), str(storage))
            (fleet.tree / "big").unlink()
            until(lambda: set(fleet.until_served().values()) == set(names), 60, "all to serve nodes")

            # Another Redis takes over. Leases that it knows are renewed, and nothing is compared.
            assert fleet.ask("flush", timeout=60)["behind"] == []
            marks = {daemon: len(daemon.log()) for daemon in fleet.daemons()}
            servers.primary.kill()
            (fleet.tree / "page").write_text("2")
            fleet.until_level()
            for daemon, mark in marks.items():
                daemon.until_logged("is another one than before", since=mark)
                assert "in full" not in daemon.log()[mark:]
            logs = "".join(daemon.log() for daemon in fleet.daemons())
            assert not [password for password in passwords if password in logs]
    finally:
        servers.stop()


@pytest.fixture
def scattered(tmp_path: Path) -> Iterator[Scattered]:
    made = Scattered(tmp_path, TTL_SECONDS)
    try:
        made.islands.make()
    except NoNetwork as error:
        made.islands.remove()
        pytest.skip(f"no network: {error}")
    with made.running():
        yield made


def test_fleet_goes_on_around_each_partition(scattered: Scattered) -> None:
    """No content goes back, no node is served twice, and nothing that was known is compared in full."""
    fleet, islands = scattered.fleet, scattered.islands
    fleet.until_served()
    assert fleet.ask("flush", timeout=60)["behind"] == []
    marks = {daemon: len(daemon.log()) for daemon in fleet.daemons()}

    # The origin without Redis: the senders get what is new, and wait with it. A sender without the nodes.
    islands.cut("origin", "redis")
    islands.cut("sa", "nodes")
    scattered.count()
    until(lambda: scattered.has("sa") and scattered.has("sb"), 60, "the senders to have it")
    fleet.origin.until_logged("changes are kept in memory", since=marks[fleet.origin])
    assert not any(map(scattered.has, fleet.nodes))
    islands.mend("origin", "redis")
    islands.mend("sa", "nodes")
    scattered.until_level()

    # A sender without Redis: it stops in time, and the other one goes on.
    islands.cut("sa", "redis")
    scattered.count()
    until(lambda: set(fleet.until_served().values()) == {"sb"}, 60, "the other sender to serve all")
    scattered.until_level()
    sender = fleet.senders["sa"]
    sender.until_logged("what is being sent goes on until leases end", since=marks[sender])
    islands.mend("sa", "redis")

    # A sender without the origin: its copy stays behind, and the other one goes on.
    until(lambda: fleet.senders["sa"].log().count("Redis: fleet ") > 1, 60, "the sender to be back")
    islands.cut("origin", "sb")
    scattered.count()
    until(lambda: set(fleet.until_served().values()) == {"sa"}, 60, "the first sender to serve all")
    scattered.until_level()
    islands.mend("origin", "sb")

    # A sender that is stopped for longer than its leases last: the other one goes on.
    until(lambda: fleet.until_served() and is_ready(fleet, "sb"), 60, "the other sender to be back")
    mark = len(fleet.senders["sa"].log())
    fleet.senders["sa"].signal(signal.SIGSTOP)
    scattered.count()
    until(lambda: set(fleet.until_served().values()) == {"sb"}, 60, "the other sender to serve all")
    scattered.until_level()
    fleet.senders["sa"].signal(signal.SIGCONT)
    fleet.senders["sa"].until_logged("its lease could not be renewed in time", since=mark)

    # Redis is restarted with all that it had: its append-only file.
    scattered.redis.stop()
    scattered.count()
    scattered.redis.start()
    scattered.until_level()
    for daemon, mark in marks.items():
        assert "in full" not in daemon.log()[mark:]
        assert "full mirror started" not in daemon.log()[mark:]
