"""Directories for which there is no watch: how many are counted, and when they were polled."""

from __future__ import annotations

import errno
import re
import time

import pytest
from support.trees import exchange
from support.watched_tree import (
    TREE,
    WALKED,
    Field,
    assert_seen_at,
    limit,
    lines_up,
    listing,
    write,
)

from inosync.watch import scan
from inosync.watch.inotify import Inotify, InotifyError
from inosync.watch.poller import DEFAULT_INTERVAL_SECONDS as EVERY
from inosync.watch.watcher import CHECK_SECONDS


def test_directories_without_a_watch_are_counted_and_tried_again(
    field: Field, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    field.add()
    add = Inotify.add

    def refused(_self: Inotify, _directory: int, _mask: int) -> int:
        raise InotifyError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Inotify, "add_near", lambda _self, _name, _mask: -1)
    monkeypatch.setattr(Inotify, "add", refused)
    (field.root / "a/b").mkdir(parents=True)
    field.settle()
    count, why = field.watcher.coverage.unwatched()
    assert count == 2
    assert re.search(r"no watches left: sysctl \S+inotify\S+_watches=\d+$", why)
    assert field.watcher.coverage.unwatched((TREE,)) == (count, why)
    assert field.watcher.coverage.unwatched((TREE + 1,)) == (0, "")
    field.later(CHECK_SECONDS)
    assert f"2 directories are not watched, such as a: {why}" in caplog.text
    field.later(EVERY + 1)
    assert field.watcher.coverage.unwatched()[0] == 2
    assert caplog.text.count("not watched") == 1
    field.take()
    monkeypatch.setattr(Inotify, "add", add)
    field.later(EVERY + 1)
    assert field.watcher.coverage.unwatched() == (0, "")
    assert {listing(b"a"), listing(b"a/b")} <= set(field.take())
    field.later(CHECK_SECONDS)
    assert "all directories are watched again: no watches left" in caplog.text
    lines_up(field)


def test_removed_directory_does_not_count_as_unwatched(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    field.add()

    def refused(_self: Inotify, _directory: int, _mask: int) -> int:
        raise InotifyError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(Inotify, "add", refused)
        (field.root / "a").mkdir()
        field.settle()
    assert field.watcher.coverage.unwatched()[0] == 1
    (field.root / "a").rmdir()
    field.settle()
    assert field.watcher.coverage.unwatched()[0] == 0


def test_watched_directories_exchanged_in_an_unwatched_one_are_walked(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in ("a", "b"):
        (field.outside / f"top/{each}/deep").mkdir(parents=True)
    field.add()
    with monkeypatch.context() as patch:
        limit(field, 1, patch)
        (field.outside / "top").rename(field.root / "top")
        field.settle()
    assert field.watcher.coverage.unwatched()[0] == 5
    unwatched = field.watcher._watches.unwatched
    top, *below = unwatched
    assert top.name == b"top"
    for directory in below:
        field.watcher._poller.poll_soon(directory)
    with monkeypatch.context() as patch:
        limit(field, 5, patch)
        field.settle()
        assert list(unwatched) == [top]
        field.take()
        exchange(field.root / "top/a", field.root / "top/b")
        field.later(EVERY)
        assert {listing(b"top/a/deep"), listing(b"top/b/deep")} <= set(field.take())
    field.later(EVERY)
    field.later(EVERY)
    field.take()
    assert_seen_at(field, "top/a/deep/f")


def test_watched_directory_that_was_away_between_two_rounds_is_walked(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What was sent of it while it was away has removed it from the nodes.
    (field.outside / "top/a/deep").mkdir(parents=True)
    (field.outside / "top/b/deep").mkdir(parents=True)
    field.add()
    monkeypatch.setattr(scan, "_CLOCK_TICK_NS", 0)
    with monkeypatch.context() as patch:
        limit(field, 1, patch)
        (field.outside / "top").rename(field.root / "top")
        field.settle()
        top, *below = field.watcher._watches.unwatched
        for directory in below:
            field.watcher._poller.poll_soon(directory)
    with monkeypatch.context() as patch:
        limit(field, 5, patch)
        field.settle()
        for _ in range(2):
            time.sleep(0.02)  # longer than a tick of the file system's clock
            field.later(EVERY)
        time.sleep(0.02)
        assert list(field.watcher._watches.unwatched) == [top]
        field.take()
        for place in ("elsewhere", "a"):
            [now] = [each for each in ("a", "elsewhere") if (field.root / "top" / each).exists()]
            (field.root / "top" / now).rename(field.root / "top" / place)
        assert field.recorded() == set(), "nothing sees it"
        field.later(EVERY)
        assert set(field.take()) == {listing(b"top"), listing(b"top/a"), listing(b"top/a/deep")}
        field.later(EVERY)
        assert field.take() == [], "once is enough"


@pytest.mark.parametrize("overflows", [False, True])
def test_polling_rounds_follow_each_other_in_the_smallest_slices(
    field: Field, monkeypatch: pytest.MonkeyPatch, overflows: bool
) -> None:
    # Each slice ends after one step: the last visit of a round is the last step of a slice, too.
    def work() -> None:
        while not field.watcher.is_idle:
            field.watcher.work(0.0)

    (field.root / "a").mkdir()
    with monkeypatch.context() as patch:
        limit(field, 1, patch)
        field.add()
        field.take()
        for each in range(3):
            write(field.root / f"a/{each}")
            field.clock.now += EVERY
            field.watcher.run_due()
            if overflows and not each:
                field.watcher.work(0.0)
                field.watcher._walker.rescan()
            work()
            assert (WALKED if overflows and not each else listing(b"a")) in field.take(), each


def test_unwatched_directories_are_polled_on_request(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    trees, watcher, clock = (TREE,), field.watcher, field.clock
    (field.root / "a").mkdir()
    with monkeypatch.context() as patch:
        limit(field, 1, patch)
        field.add()
        field.take()
        assert watcher.coverage.has_polled((TREE + 1,), clock.now)
        for each in range(3):
            write(field.root / f"a/{each}")
            clock.now += 0.1
            since = clock.now
            assert not watcher.coverage.has_polled(trees, since)
            assert watcher.deadline() <= since, "at once"
            watcher.run_due()
            # What is written now may lie behind the round that is under way, for who asks now.
            clock.now += 0.1
            assert not watcher.coverage.has_polled(trees, clock.now)
            while not watcher.coverage.has_polled(trees, since):
                watcher.work(0.0)
            assert field.take() == [listing(b"a")]
            assert not watcher.coverage.has_polled(trees, clock.now)
            assert watcher.deadline() <= clock.now, "the next round follows at once"
            watcher.run_due()
            while not watcher.coverage.has_polled(trees, clock.now):
                watcher.work(0.0)
            field.take()
            assert watcher.deadline() > clock.now
    field.later(EVERY)
    assert watcher.coverage.unwatched() == (0, "")
    assert watcher.coverage.has_polled(trees, clock.now + 1)
