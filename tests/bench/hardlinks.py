"""What files with several names cost the master: a look at each change, and searches.

python tests/bench/hardlinks.py [--entries 100000] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))
sys.path.insert(0, str(CHECKOUT / "tests"))

from bench.machine import workspace  # noqa: E402
from inosync.changes import Change, Rename, Step  # noqa: E402
from inosync.watch.hardlinks import HardLinks  # noqa: E402
from inosync.watch.watcher import Watcher  # noqa: E402

EVENTS = frozenset(("IN_CLOSE_WRITE", "IN_CREATE", "IN_DELETE", "IN_MOVED_FROM", "IN_MOVED_TO", "IN_ATTRIB"))
ROUNDS = 5
FILES = 20
"""In each directory, beside its directories."""


class Counter:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.count = 0

    def record(self, _change: Change, _now: float) -> None:
        self.count += 1

    def gone(self, _tree: int, _path: bytes, _now: float, _step: Step = Step.REMOVED) -> None:
        pass

    def directory_left(self, _tree: int, _path: bytes) -> None:
        pass

    def renamed(self, _tree: int, _rename: Rename) -> None:
        pass

    def walked(self, _tree: int, _now: float) -> None:
        pass

    def caught_up(self, _tree: int, _now: float) -> None:
        pass

    def refiltered(self, _tree: int, _now: float) -> None:
        pass

    def lost(self, _tree: int, _why: str) -> None:
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--quick", action="store_true", help="a small tree: does it work at all?")
    arguments = parser.parse_args()
    entries = 2_000 if arguments.quick else arguments.entries
    rounds = 1 if arguments.quick else ROUNDS
    with workspace() as home:
        root = home / "tree"
        directories = _fill(root, entries)
        listener = Counter()
        watcher = Watcher(HardLinks(listener, time.monotonic))
        with contextlib.closing(watcher):
            watcher.roots.add(1, str(root), EVENTS, lambda _path, _is_directory: False)
            _settle(watcher)
            one = [min(_changes(watcher, directories, f"{n}") for _ in range(rounds)) for n in range(2)]
            several = _changes(watcher, directories, "linked")
            search = min(_search(watcher, listener, directories[0], number) for number in range(rounds))
    print(f"a change of a file with one name: {min(one) * 1e6:.1f} us in the master, the look at it included")
    print(f"a change of a file with two names that are known: {several * 1e6:.1f} us")
    per = search * 100_000 / entries
    print(f"a search of {entries} entries: {search:.3f} s, that is {per:.3f} s for each 100,000")
    return 0


def _fill(root: Path, entries: int) -> list[Path]:
    """A tree of so many entries; the directories in it."""
    root.mkdir()
    made = [root]
    for number in range(entries // (FILES + 1)):
        above = made[number // 10]
        made.append(above / f"d{number}")
        made[-1].mkdir()
        for each in range(FILES):
            (made[-1] / f"file-{each}").touch()
    for place in made[:1000]:
        (place / "linked").touch()
        os.link(place / "linked", place / "name")
        (place / "0").touch()
        (place / "1").touch()
    for number in range(ROUNDS):
        (root / f"new-{number}").touch()
        os.link(root / f"new-{number}", root / f"another-{number}")
    return made


def _settle(watcher: Watcher) -> None:
    while watcher.read() or not watcher.is_idle:
        watcher.work(0.01)


def _changes(watcher: Watcher, directories: list[Path], name: str) -> float:
    """Seconds for one change, from the kernel's queue to the record of it."""
    paths = [each / name for each in directories[:1000]]
    for path in paths:
        os.utime(path)
    _settle(watcher)
    _wait(watcher)  # let the names be known
    for path in paths:
        os.utime(path)
    began = time.process_time()
    while watcher.read():
        pass
    return (time.process_time() - began) / len(paths)


def _wait(watcher: Watcher) -> None:
    while watcher.searching_since is not None:
        time.sleep(max(watcher.deadline() - time.monotonic(), 0))
        _settle(watcher)


def _search(watcher: Watcher, listener: Counter, directory: Path, number: int) -> float:
    """Seconds of processor time for a search of all directories."""
    name = directory / f"new-{number}"
    os.utime(name)
    while watcher.read():
        pass
    known = listener.count
    began = time.process_time()
    _wait(watcher)
    took = time.process_time() - began
    assert listener.count == known + 1, "it was no test"
    return took


if __name__ == "__main__":
    sys.exit(main())
