"""File systems whose times are whole seconds: a second change within the second of the first one arrives."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import mount_namespace
from support.daemon import LAUNCHER, Daemon
from support.wait import until

MAKE = {"ext4": ("mkfs.ext4", "-q", "-I", "128"), "vfat": ("mkfs.vfat",)}
"""How file systems with times of one and two seconds are made."""
MIB = 1 << 20
HITS = 2
"""Pairs of changes with the same time that are to be seen."""
ATTEMPTS = 40

_PROGRAM = """\
import os, sys
mount = 'mount -o loop "$0" "$1" && shift && exec "$@"'
command = ["unshare", "-m", "--propagation", "private", "sh", "-ec", mount, {image!r}, {place!r}]
os.execvp(command[0], [*command, sys.executable, {launcher!r}, *sys.argv[1:]])
"""


class Setup:
    """A daemon in whose mount namespace the source or the node is on such a file system."""

    def __init__(self, home: Path, kind: str, side: str, extra: str) -> None:
        mount_namespace.launcher(home)  # skips where nothing can be mounted
        make = MAKE[kind]
        if shutil.which(make[0]) is None:
            pytest.skip(f"{make[0]} is not installed")
        image = home / "image"
        image.write_bytes(b"")
        os.truncate(image, 16 * MIB)
        subprocess.run([*make, str(image)], check=True, capture_output=True)
        places = {"source": home / "tree", "node": home / "copy"}
        for place in places.values():
            place.mkdir()
        self._loop_or_skip(image, places[side])
        launcher = home / "mounting.py"
        text = _PROGRAM.format(image=str(image), place=str(places[side]), launcher=str(LAUNCHER))
        launcher.write_text(text)
        config = {
            "wpaths": [str(places["source"])],
            "rpaths": [""],
            "rnodes": [{"node": f"{places['node']}/", "name": "n", "extra": extra}],
            "edelay": 1.0,
            "equiet": 0,
            "rretry": (0.1, 0.5),
            "rguard": False,
        }
        self.daemon = Daemon(home / "inosync", config, ("-v",), launcher=launcher)
        self.daemon.start()
        inside = Path(f"/proc/{self.daemon.pid}/root")
        self.tree = inside / str(places["source"]).lstrip("/")
        self.copy = inside / str(places["node"]).lstrip("/")

    def _loop_or_skip(self, image: Path, place: Path) -> None:
        mount = ["mount", "-o", "loop", str(image), str(place)]
        done = subprocess.run(
            ["unshare", "-m", "--propagation", "private", *mount], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no loop mounts: {done.stderr.strip()}")

    def node_has(self, content: str) -> bool:
        try:
            return (self.copy / "counter").read_text() == content
        except FileNotFoundError:
            return False

    def change_twice(self, number: int) -> bool:
        """Write two contents of one size; return whether the first one arrived, and both have one time."""
        file = self.tree / "counter"
        first, second = f"{number:03} first.", f"{number:03} second"
        file.write_text(first)
        before = file.stat().st_mtime_ns
        until(lambda: self.node_has(first), 30, "the first content on the node")
        file.write_text(second)
        return file.stat().st_mtime_ns == before


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Callable[[str, str, str], Setup]]:
    made: list[Setup] = []

    def make(kind: str, side: str, extra: str = "") -> Setup:
        made.append(Setup(tmp_path, kind, side, extra))
        return made[-1]

    yield make
    for each in made:
        each.daemon.close()


@pytest.mark.parametrize("kind", ["ext4", "vfat"])
def test_second_change_within_a_second_arrives(setup: Callable[[str, str, str], Setup], kind: str) -> None:
    s = setup(kind, "source", "--no-owner --no-group" if kind == "vfat" else "")
    hits = 0
    for number in range(ATTEMPTS):
        same_time = s.change_twice(number)
        assert s.daemon.ask("flush", timeout=60)["behind"] == []
        assert s.node_has(f"{number:03} second"), "flush has returned before the node had it"
        hits += same_time
        if hits == HITS:
            return
    raise AssertionError(f"no two changes had the same time in {ATTEMPTS} attempts")


def test_file_moved_over_another_of_its_size_and_second_arrives(
    setup: Callable[[str, str, str], Setup],
) -> None:
    s = setup("ext4", "source", "")
    for name in ("counter", "other"):
        (s.tree / name).write_text(f"{name:10}")
        os.utime(s.tree / name, (1_000_000_000, 1_000_000_000))
    assert s.daemon.ask("flush", timeout=60)["behind"] == []
    assert s.node_has(f"{'counter':10}")
    (s.tree / "other").rename(s.tree / "counter")
    assert s.daemon.ask("flush", timeout=60)["behind"] == []
    assert s.node_has(f"{'other':10}")


def test_second_change_after_the_death_of_a_worker_arrives(
    setup: Callable[[str, str, str], Setup],
) -> None:
    s = setup("ext4", "source", "")
    file = s.tree / "counter"

    def is_later() -> bool:
        """Whether a file that is sent now is not sent once more for its time alone."""
        return time.time() > file.stat().st_mtime + 3.5

    for number in range(ATTEMPTS):
        confirmed = s.daemon.log().count("n: sent: counter")
        file.write_text(f"{number:03} first.")
        before = file.stat().st_mtime_ns
        until(lambda: s.node_has(file.read_text()), 30, "the first content on the node")
        os.kill(s.daemon.workers()["n"], signal.SIGKILL)  # its rsync takes 20 ms to end
        file.write_text(f"{number:03} second")
        has_same_time = file.stat().st_mtime_ns == before
        s.daemon.ask("pause", node="n")
        is_lost = s.daemon.log().count("n: sent: counter") == confirmed
        if has_same_time and is_lost:
            until(is_later, 30, "the time of another second look")
        s.daemon.ask("resume", node="n")
        assert s.daemon.ask("flush", timeout=60)["behind"] == []
        assert s.node_has(f"{number:03} second"), "flush has returned before the node had it"
        if has_same_time and is_lost:
            return
    raise AssertionError(f"no worker was killed between two such changes in {ATTEMPTS} attempts")


@pytest.mark.parametrize("kind", ["ext4", "vfat"])
@pytest.mark.parametrize("extra", ["", "--modify-window=2"])
def test_second_change_arrives_on_a_node_with_coarse_times(
    setup: Callable[[str, str, str], Setup], kind: str, extra: str
) -> None:
    s = setup(kind, "node", f"{extra} --no-owner --no-group --no-perms")
    s.change_twice(1)
    until(lambda: s.node_has("001 second"), 30, "the second content on the node")
