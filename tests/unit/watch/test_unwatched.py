"""The account of directories without a watch: counts, reasons, and what is worth a line in the log."""

from __future__ import annotations

from inosync.watch.tree import Directory
from inosync.watch.unwatched import NO_WATCHES, Unwatched


def directories(count: int) -> list[Directory]:
    return [Directory(b"%d" % number, None) for number in range(count)]


def filled(count: int, tree: int = 1, why: str = NO_WATCHES, is_polled: bool = True) -> Unwatched:
    found = Unwatched()
    for each in directories(count):
        found.add(each, tree, f"/tree{tree}", each.name, why, is_polled)
    return found


def test_directories_are_counted_by_tree_with_the_most_frequent_reason() -> None:
    unwatched = filled(3)
    denied = directories(2)
    for each in denied:
        unwatched.add(each, 2, "/tree2", each.name, "Permission denied", is_polled=False)
    assert unwatched.of(None) == (5, NO_WATCHES)
    assert unwatched.of([2]) == (2, "Permission denied")
    assert unwatched.of([3]) == (0, "")
    assert unwatched.because(NO_WATCHES) == 3
    assert unwatched.unreadable([1]) == 0
    assert unwatched.unreadable([1, 2]) == 2
    unwatched.discard(denied[0])
    unwatched.discard(denied[0])
    assert unwatched.of([2]) == (1, "Permission denied")
    assert denied[0] not in unwatched


def test_directory_whose_reason_changes_is_counted_once() -> None:
    unwatched, [one] = Unwatched(), directories(1)
    unwatched.add(one, 1, "/tree1", b"one", "Permission denied", is_polled=False)
    unwatched.add(one, 1, "/tree1", b"one", NO_WATCHES)
    assert unwatched.of(None) == (1, NO_WATCHES)
    assert unwatched.unreadable([1]) == 0
    assert len(unwatched) == 1


def test_has_changed_compares_with_the_last_digest_and_trusts_no_zero() -> None:
    unwatched, [one, other] = Unwatched(), directories(2)
    unwatched.add(one, 1, "/tree1", b"one", NO_WATCHES)
    assert [unwatched.has_changed(one, digest) for digest in (5, 5, 6, 6, 0, 0, 6)] == [
        True,
        False,
        True,
        False,
        True,
        True,
        True,
    ]
    assert unwatched.has_changed(other, 5), "nothing is known of it"


def test_news_tells_only_of_numbers_that_have_doubled_halved_or_vanished() -> None:
    unwatched, found = Unwatched(), directories(10)

    def news_after(count: int) -> list[int]:
        for number, each in enumerate(found):
            if number < count:
                unwatched.add(each, 1, "/tree1", each.name, NO_WATCHES)
            else:
                unwatched.discard(each)
        return [count for _, count, _, _ in unwatched.news()]

    heard = [news_after(count) for count in (4, 4, 7, 8, 10, 5, 4, 0, 0, 1)]
    assert heard == [[4], [], [], [8], [], [], [4], [0], [], [1]]
