"""When unwatched directories are scanned again; the scanner takes as long as the test says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from inosync.watch.poller import DEFAULT_INTERVAL_SECONDS, TIME_SHARE, Poller
from inosync.watch.scan import Scanner
from inosync.watch.tree import Directory
from inosync.watch.unwatched import NO_WATCHES, Unwatched

EVERY = DEFAULT_INTERVAL_SECONDS


class World:
    def __init__(self, directories: int = 2) -> None:
        self.now = 1000.0
        self.cost = 0.0
        """Seconds that the scan of a directory takes."""
        self.scanned: list[bytes] = []
        self.unwatched = Unwatched()
        self.directories = [Directory(b"%d" % number) for number in range(directories)]
        for each in self.directories:
            self.unwatched.add(each, 1, "/tree", each.name, NO_WATCHES, 0.0)
        self.poller = Poller(cast(Scanner, self), self.unwatched, lambda: self.now, lambda: 0.0)

    def scan(self, directory: Directory, refilter: bool = False, poll: bool = False) -> Iterator[None]:
        assert poll
        assert not refilter
        self.now += self.cost
        self.scanned.append(directory.name)
        yield

    def work(self) -> list[bytes]:
        """Begin what is due and do all of it; return what was scanned."""
        self.poller.run_due(self.now)
        while self.poller.step():
            pass
        assert self.poller.is_idle
        found, self.scanned = self.scanned, []
        return found


def test_round_scans_every_unwatched_directory_in_their_order() -> None:
    world = World(3)
    assert world.work() == [b"0", b"1", b"2"]
    assert world.work() == []
    assert world.poller.deadline() == world.now + EVERY
    world.now += EVERY
    world.unwatched.discard(world.directories[1])
    assert world.work() == [b"0", b"2"]


def test_round_is_never_due_when_all_is_watched() -> None:
    world = World(0)
    assert world.poller.deadline() == float("inf")
    assert world.work() == []
    world.unwatched.add(Directory(b"new"), 1, "/tree", b"new", NO_WATCHES, 0.0)
    assert world.poller.deadline() == world.now + EVERY, "it was just tried"


def test_round_that_takes_long_puts_off_the_next_one() -> None:
    world = World(2)
    world.cost = EVERY
    began = world.now
    world.work()
    assert world.poller.deadline() == began + TIME_SHARE * 2 * EVERY


def test_has_covered_asks_for_a_round_and_knows_its_end() -> None:
    world = World()
    world.work()
    since = world.now + 1
    assert not world.poller.has_covered(since)
    assert world.poller.deadline() == since
    world.now = since
    assert world.work() == [b"0", b"1"]
    assert world.poller.has_covered(since)
    assert not world.poller.has_covered(since + 0.1)


def test_directory_polled_soon_is_scanned_only_if_it_is_unwatched() -> None:
    world = World()
    world.work()
    world.poller.poll_soon(world.directories[1])
    world.poller.poll_soon(Directory(b"watched"))
    assert not world.poller.is_idle
    assert world.work() == [b"1"]


def test_clear_ends_the_round_without_further_scans() -> None:
    world = World()
    world.poller.run_due(world.now)
    assert world.poller.step()
    world.poller.clear()
    assert world.work() == []
    assert world.poller.deadline() == world.now + EVERY


def test_set_interval_counts_from_the_next_round_on() -> None:
    world = World()
    world.poller.set_interval(5.0)
    world.work()
    assert world.poller.deadline() == world.now + 5.0
