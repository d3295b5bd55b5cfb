"""Names that change before or during their transfer converge; nothing from outside is sent."""

from __future__ import annotations

import functools
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import trees
from support.daemon import Daemon, FakeRsync, MakeDaemon
from support.wait import until

from inosync.rsync import binary

FAST = {"edelay": 0.2, "equiet": 0.02, "rretry": (0.1, 0.5)}
SECRET = "from outside"


class Setup:
    """A daemon with the nodes a and b. Transfers to a start cold, so that a test can hold them."""

    def __init__(self, home: Path, daemon: MakeDaemon) -> None:
        self.home = home
        self.tree = home / "tree"
        self.tree.mkdir()
        self.outside = home / "outside"
        self.outside.mkdir()
        self.rsync = FakeRsync(home / "fake")
        self.daemon: Daemon = daemon({}, ("-v",))
        self.configure()

    def configure(self, **settings: object) -> None:
        nodes = []
        for name in "ab":
            place = self.home / "nodes" / name
            place.mkdir(parents=True, exist_ok=True)
            nodes.append({"node": f"{place}/", "name": name, "rwarm": name != "a", **settings})
        config = {
            "wpaths": [str(self.tree)],
            "rpaths": ["tree"],
            "rnodes": nodes,
            "rsync": str(self.rsync.path),
            **FAST,
        }
        self.daemon.configure(config)

    def copy(self, node: str) -> Path:
        return self.home / "nodes" / node / "tree"

    def start(self) -> None:
        self.daemon.start()
        self.until_level()

    def until_level(self) -> None:
        self.daemon.until_level([(self.tree, self.copy(node)) for node in "ab"], nodes=2)

    def between(self, before: Callable[[], object], after: Callable[[], object]) -> None:
        """Call ``before``, wait for a transfer to a to start, and call ``after`` before rsync reads."""
        self.rsync.hold("a")
        before()
        self.rsync.until_held("a")
        after()
        self.rsync.mend("a")


@pytest.fixture
def setup(tmp_path: Path, daemon: MakeDaemon) -> Iterator[Setup]:
    s = Setup(tmp_path, daemon)
    yield s
    s.rsync.mend("a")


# Symlinks to the outside ---------------------------------------------------------------------------------

# Counts the transfers to the node; each waits for its own go-N file.
ONE_BY_ONE = """
echo >>{home}/count
mine=$(wc -l <{home}/count)
while [ -e "$fault" ] && [ ! -e {home}/go-$mine ]; do sleep 0.02; done
"""


def test_directory_replaced_by_symlink_sends_nothing_from_outside(
    setup: Setup,
) -> None:
    s = setup
    if not binary.supports_option(str(s.rsync.path), "--confine-root=/"):
        pytest.skip("an rsync that cannot be confined")
    (s.tree / "d/deep").mkdir(parents=True)
    (s.tree / "d/deep/file").write_text("inside")
    (s.outside / "deep").mkdir()
    (s.outside / "deep/file").write_text(SECRET)
    s.start()
    count = s.home / "count"
    s.rsync.fault("a", ONE_BY_ONE.format(home=s.home))
    (s.tree / "d/deep/file").write_text("inside, changed")
    until(count.exists, 30, "a transfer to begin")
    (s.tree / "d").rename(s.home / "away")
    (s.tree / "d").symlink_to("../outside")
    (s.home / "go-1").touch()
    until(lambda: count.read_text().count("\n") == 2, 30, "the next transfer to begin")
    found = {path: path.read_text() for path in s.copy("a").rglob("*") if path.is_file()}
    assert SECRET not in found.values(), found
    s.rsync.mend("a")
    s.until_level()
    assert (s.copy("a") / "d").is_symlink()


# Files ---------------------------------------------------------------------------------------------------


def test_file_rewritten_during_its_transfer_arrives_in_its_last_version(setup: Setup) -> None:
    s = setup
    s.configure(rspeed=2_000)
    s.start()
    dice = random.Random(1)
    big = s.tree / "big"
    for times in range(2):
        big.write_bytes(dice.randbytes(3_000_000))
        # rsync writes to a temporary file during the transfer.
        until(lambda: any(s.copy("a").glob(".big.*")), 30, "the transfer to be on its way")
        with big.open("r+b") as file:
            # Change what was sent already and what was not, and keep the size.
            file.write(dice.randbytes(1000))
            file.seek(2_900_000)
            file.write(dice.randbytes(1000))
        if times:
            big.write_bytes(dice.randbytes(1_000_000))
    s.until_level()


def test_rewrites_of_the_same_size_in_the_same_second_are_not_missed(setup: Setup) -> None:
    s = setup
    file = s.tree / "file"
    file.write_bytes(b"0000")
    s.start()
    second = 1_600_000_000 * 10**9
    times = iter(range(second, second + 1000))

    def rewrite() -> None:
        at = next(times)
        file.write_bytes(b"%04d" % (at - second))
        os.utime(file, ns=(at, at))

    for _ in range(5):
        rewrite()
        s.between(rewrite, rewrite)
        s.until_level()


def test_names_alternating_between_types_converge(setup: Setup) -> None:
    s = setup
    (s.outside / "file").write_text(SECRET)
    s.start()
    name = s.tree / "name"

    def clear() -> None:
        if name.is_dir() and not name.is_symlink():
            (name / "file").unlink()
            name.rmdir()
        elif os.path.lexists(name):
            name.unlink()

    def be_file() -> None:
        clear()
        name.write_text("file")

    def be_directory() -> None:
        clear()
        name.mkdir()
        (name / "file").write_text("inside")

    def be_symlink() -> None:
        clear()
        name.symlink_to("../outside")

    kinds = [be_file, be_directory, be_symlink]
    for before in kinds:
        for after in kinds:
            if before is not after:
                s.between(before, after)
                s.until_level()
    dice = random.Random(2)
    for _ in range(300):
        dice.choice(kinds)()
    s.until_level()


def test_swapped_files_and_directories_converge(setup: Setup) -> None:
    s = setup
    for name in ("one", "two"):
        (s.tree / name / "deep").mkdir(parents=True)
        (s.tree / name / "deep/file").write_text(name)
        (s.tree / f"{name}.txt").write_text(name)  # of the same size
    s.start()

    def in_three_steps(one: str, two: str) -> None:
        (s.tree / one).rename(s.tree / "tmp")
        (s.tree / two).rename(s.tree / one)
        (s.tree / "tmp").rename(s.tree / two)

    def at_once(one: str, two: str) -> None:
        trees.exchange(s.tree / one, s.tree / two)

    for swap in (in_three_steps, at_once):
        for one, two in (("one.txt", "two.txt"), ("one", "two"), ("one", "two.txt")):
            again = functools.partial(swap, one, two)
            again()
            s.until_level()
            s.between(again, (s.tree / "x").touch)
            s.until_level()
        s.between(functools.partial(swap, "one", "two"), functools.partial(swap, "one", "two.txt"))
        s.until_level()


def test_tree_renamed_while_it_is_walked_converges(setup: Setup) -> None:
    s = setup
    s.start()
    script = (
        "for i in 1 2 3 4 5 6 7 8; do for j in 1 2 3 4 5; do mkdir -p new/$i/$j/deep;"
        " echo $i $j >new/$i/$j/deep/file; done; done"
    )
    for number in range(3):
        subprocess.run(["sh", "-ec", script], cwd=s.tree, stdin=subprocess.DEVNULL, check=True)
        (s.tree / "new").rename(s.tree / f"moved-{number}")
        (s.tree / f"moved-{number}/3").rename(s.tree / f"three-{number}")
        (s.tree / f"three-{number}/2").rename(s.tree / f"moved-{number}/1/1/two")
    s.until_level()
    assert len(trees.snapshot(s.copy("b"))) > 300


# Times ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 1, -(10**9), 4 * 10**9])
def test_files_with_old_and_future_times_are_mirrored_and_followed(setup: Setup, seconds: int) -> None:
    s = setup
    (s.tree / "before").write_text("before")
    os.utime(s.tree / "before", (seconds, seconds))
    s.start()
    for content in ("one", "three"):
        for name in ("before", "new"):
            (s.tree / name).write_text(content)
            os.utime(s.tree / name, (seconds, seconds))
        s.until_level()
        # The mtime has not changed by a nanosecond.
        assert (s.copy("a") / "before").stat().st_mtime == seconds
