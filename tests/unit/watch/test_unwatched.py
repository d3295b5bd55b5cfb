"""The account of directories without a watch: counts, reasons, and what is worth a line in the log."""

from __future__ import annotations

from inosync.watch.tree import Directory
from inosync.watch.unwatched import NO_WATCHES, Unwatched


def directories(count: int) -> list[Directory]:
    return [Directory(b"%d" % number) for number in range(count)]


def filled(count: int, tree: int = 1, why: str = NO_WATCHES, is_polled: bool = True) -> Unwatched:
    found = Unwatched()
    for each in directories(count):
        found.add(each, tree, f"/tree{tree}", each.name, why, 0.0, is_polled)
    return found


def test_directories_are_counted_by_tree_with_the_most_frequent_reason() -> None:
    unwatched = filled(3)
    denied = directories(2)
    for each in denied:
        unwatched.add(each, 2, "/tree2", each.name, "Permission denied", 0.0, is_polled=False)
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
    unwatched.add(one, 1, "/tree1", b"one", "Permission denied", 0.0, is_polled=False)
    unwatched.add(one, 1, "/tree1", b"one", NO_WATCHES, 0.0)
    assert unwatched.of(None) == (1, NO_WATCHES)
    assert unwatched.unreadable([1]) == 0
    assert len(unwatched) == 1


def test_has_changed_compares_with_the_last_digest_and_trusts_no_zero() -> None:
    unwatched, [one, other] = Unwatched(), directories(2)
    unwatched.add(one, 1, "/tree1", b"one", NO_WATCHES, 0.0)
    assert [unwatched.has_changed(one, digest, 1) for digest in (5, 5, 6, 6, 0, 0, 6)] == [
        True,
        False,
        True,
        False,
        True,
        True,
        True,
    ]
    assert unwatched.compared_at(one) == 1
    assert unwatched.compared_at(other) == 0
    assert unwatched.has_changed(other, 5, 1), "nothing is known of it"


def test_news_tells_only_of_numbers_that_have_doubled_halved_or_vanished() -> None:
    unwatched, found = Unwatched(), directories(10)

    def news_after(count: int) -> list[int]:
        for number, each in enumerate(found):
            if number < count:
                unwatched.add(each, 1, "/tree1", each.name, NO_WATCHES, 0.0)
            else:
                unwatched.discard(each)
        return [count for _, count, _, _ in unwatched.news()]

    heard = [news_after(count) for count in (4, 4, 7, 8, 10, 5, 4, 0, 0, 1)]
    assert heard == [[4], [], [], [8], [], [], [4], [0], [], [1]]


def test_unseen_since_is_the_last_comparison_or_when_it_was_closed() -> None:
    unwatched, [polled, late, closed, closed_later, other] = Unwatched(), directories(5)
    never = float("-inf")
    assert unwatched.unseen_since([1, 2], never) is None
    unwatched.add(polled, 1, "/tree1", b"0", NO_WATCHES, 100.0)
    unwatched.add(late, 1, "/tree1", b"1", NO_WATCHES, 110.0)
    assert unwatched.unseen_since([1], never) == 100.0, "it was read when it was found"
    assert unwatched.unseen_since([1], 150.0) == 150.0
    assert unwatched.unseen_since([2], 150.0) is None
    unwatched.add(closed, 1, "/tree1", b"2", "Permission denied", 120.0, is_polled=False)
    unwatched.add(closed_later, 1, "/tree1", b"3", "Permission denied", 140.0, is_polled=False)
    unwatched.add(closed, 1, "/tree1", b"2", "Permission denied", 160.0, is_polled=False)
    assert unwatched.unseen_since([1], 150.0) == 120.0, "a try in vain is no comparison"
    unwatched.add(closed, 1, "/tree1", b"2", NO_WATCHES, 165.0)
    assert unwatched.unseen_since([1], 150.0) == 140.0
    unwatched.discard(closed_later)
    assert unwatched.unseen_since([1], 150.0) == 150.0
    for each in (polled, late, closed):
        unwatched.discard(each)
    assert unwatched.unseen_since([1], 150.0) is None
    unwatched.add(other, 1, "/tree1", b"4", NO_WATCHES, 200.0)
    assert unwatched.unseen_since([1], 150.0) == 200.0
