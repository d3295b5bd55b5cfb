"""What a node is owed: when it is sent, what a batch carries of it, and what a batch leaves of it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from inosync.changes import Change, Kind, Lane, OwedNames, Step
from inosync.nodes.retries import BEHIND_SECONDS, MAX_RETRIES, PATIENT_TRIES, Retry, RetrySet

FIRST, LONGEST = 1.0, 100.0
NOW = 1_000.0


def name(path: bytes, tree: int = 1) -> Change:
    return Change(tree, path, Kind.NAME)


def whole(tree: int) -> Change:
    return Change(tree, b"", Kind.TREE)


A, B = name(b"a"), name(b"b")


@pytest.fixture
def retries() -> RetrySet:
    return RetrySet((FIRST, LONGEST))


def settle(retries: RetrySet, *failed: Change, held: tuple[int, ...] = (), now: float = NOW) -> None:
    retries.settle(failed, held, since=now - 5, now=now, rand=0.0)


def test_added_change_is_ready_at_once(retries: RetrySet) -> None:
    retries.add(A, NOW)
    assert retries.ready(NOW) == [A]
    assert (retries.count, retries.oldest, retries.has_failed) == (1, NOW, False)
    assert retries.next_at(NOW) is None, "what is ready waits for something else than the time"


def test_change_added_twice_is_as_old_as_the_first(retries: RetrySet) -> None:
    retries.add(A, NOW)
    retries.add(A, NOW + 50)
    assert retries.waiting == {A: Retry(0, NOW + 50, NOW)}


def test_carried_change_counts_but_waits_no_more(retries: RetrySet) -> None:
    retries.add(A, NOW)
    retries.carry([A])
    assert retries.ready(NOW) == []
    assert (retries.count, retries.oldest, retries.lacks_since(NOW)) == (1, NOW, True)
    settle(retries)
    assert (retries.count, retries.oldest, retries.lacks_since(NOW)) == (0, None, False)


def test_lost_batch_gives_back_what_it_carried(retries: RetrySet) -> None:
    retries.add(A, NOW)
    retries.add(B, NOW)
    before = dict(retries.waiting)
    retries.carry([A, B])
    retries.put_back()
    assert retries.waiting == before
    settle(retries)
    assert retries.waiting == before, "nothing is carried any more"


def test_lost_batch_does_not_replace_what_was_added_meanwhile(retries: RetrySet) -> None:
    retries.add(A, NOW)
    retries.carry([A])
    retries.add(A, NOW + 1)
    retries.put_back()
    assert retries.waiting == {A: Retry(0, NOW + 1, NOW + 1)}


def test_change_added_while_it_is_carried_is_sent_again(retries: RetrySet) -> None:
    retries.add(A, NOW)
    retries.carry([A])
    retries.add(A, NOW + 1)
    settle(retries)
    assert list(retries.waiting) == [A]


def test_failed_change_is_retried_after_growing_pauses(retries: RetrySet) -> None:
    now = NOW
    for attempt in range(1, 10):
        settle(retries, A, now=now)
        pause = min(FIRST * 2 ** (attempt - 1), LONGEST)
        assert retries.waiting == {A: Retry(attempt, now + pause, NOW - 5)}
        assert (retries.ready(now), retries.next_at(now)) == ([], now + pause)
        now += pause
        assert retries.ready(now) == [A]
        retries.carry([A])
    assert (retries.oldest_untried, retries.oldest, retries.count) == (None, NOW - 5, 1)


def test_failed_changes_go_together(retries: RetrySet) -> None:
    retries.settle([A, B], (), NOW, NOW, rand=0.9)
    assert {retry.at for retry in retries} == {NOW + FIRST * (1 - 0.9 / 4)}
    assert retries.has_failed


def test_held_tree_is_retried_as_a_whole(retries: RetrySet) -> None:
    settle(retries, held=(2,))
    assert retries.waiting == {whole(2): Retry(1, NOW + FIRST, NOW - 5)}
    settle(retries, held=(2,), now=NOW + 50)
    assert retries.waiting == {whole(2): Retry(1, NOW + FIRST, NOW - 5)}, "it waits already"


def test_full_mirror_pays_what_failed_of_its_tree(retries: RetrySet) -> None:
    contents = Change(1, b"contents", Kind.NAME, ignore_times=True)
    settle(retries, A, contents, name(b"other", 2))
    retries.add(B, NOW)
    retries.add_second_look([name(b"second")], NOW + 10)
    retries.settle([], [], NOW, NOW, 0.0, mirrored=[1])
    assert set(retries.waiting) == {B, contents, name(b"second"), name(b"other", 2)}


@pytest.mark.parametrize(("failed", "held"), [([B], []), ([], [1])], ids=["failed", "held"])
def test_full_mirror_that_failed_pays_nothing(
    retries: RetrySet, failed: list[Change], held: list[int]
) -> None:
    settle(retries, A)
    retries.settle(failed, held, NOW, NOW, 0.0, mirrored=[1])
    assert A in retries.waiting


def test_second_look_is_no_lag_until_it_fails(retries: RetrySet) -> None:
    retries.add_second_look([A], NOW + 10)
    assert retries.waiting == {A: Retry(0, NOW + 10, math.inf)}
    assert (retries.count, retries.oldest, retries.has_failed) == (0, None, False)
    assert retries.next_at(NOW) == NOW + 10
    retries.carry(retries.ready(NOW + 10))
    assert (retries.count, retries.oldest) == (0, None)
    settle(retries, A, now=NOW + 15)
    assert retries.waiting[A].since == NOW + 10, "it is lacking since that batch"


def test_second_look_that_fails_leaves_a_try_of_its_own_alone(retries: RetrySet) -> None:
    again = replace(A, is_again=True, step=Step.SWITCHED)
    settle(retries, again)
    ((change, retry),) = retries.waiting.items()
    assert (change, change.step, retry.attempt) == (A, Step.UNKNOWN, 1)
    settle(retries, again, replace(again, path=B.path, step=Step.REMOVED), now=NOW + 1)
    assert (retries.waiting[A], retries.waiting[B].attempt) == (retry, 1)
    assert {change: change.step for change in retries.waiting} == {A: Step.UNKNOWN, B: Step.REMOVED}


def test_second_look_does_not_delay_what_waits(retries: RetrySet) -> None:
    retries.add(A, NOW)
    retries.add_second_look([A, B], NOW + 10)
    assert retries.ready(NOW) == [A]


def test_what_waits_for_changes_to_come_goes_with_the_next_batch(retries: RetrySet) -> None:
    retries.add_waiting([A], NOW + 10, NOW)
    retries.add_second_look([B], NOW + 10)
    assert (retries.ready(NOW), retries.riding(NOW)) == ([], [A])
    assert (retries.ready(NOW + 10), retries.riding(NOW + 10)) == ([A, B], [])
    assert retries.oldest == NOW, "the node lacks it"


@pytest.mark.parametrize("first", [Step.REMOVED, Step.CHANGED])
@pytest.mark.parametrize("is_lost", [False, True])
def test_relist_that_only_removes_gives_way_to_one_that_sends(
    retries: RetrySet, first: Step, is_lost: bool
) -> None:
    removes, sends = (Change(1, b"d", Kind.LIST, step=step) for step in (Step.REMOVED, Step.CHANGED))
    both = [removes, sends] if first is Step.REMOVED else [sends, removes]
    retries.add(both[0], NOW)
    if is_lost:
        retries.carry(retries.ready(NOW))
    retries.add(both[1], NOW)
    retries.put_back()
    assert [change.step for change in retries.waiting] == [Step.CHANGED]


def test_second_look_at_very_much_is_at_whole_trees(retries: RetrySet) -> None:
    retries.add_second_look([name(b"%d" % number, 2) for number in range(MAX_RETRIES + 1)], NOW + 10)
    assert retries.waiting == {whole(2): Retry(0, NOW + 10, math.inf)}


def test_second_look_at_very_many_contents_is_at_contents_of_whole_trees(retries: RetrySet) -> None:
    changes = [replace(name(b"%d" % number, 2), ignore_times=True) for number in range(MAX_RETRIES + 1)]
    retries.add_second_look(changes, NOW + 10)
    assert list(retries.waiting) == [replace(whole(2), ignore_times=True)]
    retries.add(A, NOW)
    for change in changes[:MAX_RETRIES]:
        retries.add(change, NOW)
    retries.limit(NOW)
    assert set(retries.waiting) == {whole(1), replace(whole(2), ignore_times=True)}


def test_too_many_retries_become_whole_trees(retries: RetrySet) -> None:
    settle(retries, *(name(b"%d" % number, 2) for number in range(MAX_RETRIES)))
    retries.limit(NOW)
    assert len(retries.waiting) == MAX_RETRIES
    retries.add(A, NOW)
    retries.limit(NOW)
    assert retries.waiting == {tree: Retry(1, NOW + FIRST, NOW - 5) for tree in (whole(1), whole(2))}


def test_forgotten_tree_is_owed_no_more(retries: RetrySet) -> None:
    for tree in (1, 2):
        retries.add(name(b"carried", tree), NOW)
    retries.carry(retries.ready(NOW))
    for tree in (1, 2):
        retries.add(name(b"waits", tree), NOW)
    retries.forget_tree(1)
    assert retries.count == 2
    retries.put_back()
    assert set(retries.waiting) == {name(b"carried", 2), name(b"waits", 2)}


# The second lane -----------------------------------------------------------------------------------------


def test_big_file_is_ready_for_the_second_lane_only(retries: RetrySet) -> None:
    retries.add_big([A], NOW, NOW - 3)
    assert retries.ready(NOW) == []
    assert retries.ready(NOW, Lane.SECOND) == [A]
    assert (retries.count, retries.oldest, retries.has_failed) == (1, NOW - 3, False)


def test_lanes_carry_and_settle_apart(retries: RetrySet) -> None:
    retries.add_big([A], NOW, NOW)
    retries.add(B, NOW)
    retries.carry([A], Lane.SECOND)
    retries.carry([B])
    settle(retries)
    assert retries.count == 1, "the big one is on its way"
    retries.settle([], [], NOW, NOW, 0.0, lane=Lane.SECOND)
    assert retries.count == 0


def test_big_file_that_failed_is_retried_in_the_second_lane(retries: RetrySet) -> None:
    retries.add_big([A], NOW, NOW)
    retries.carry([A], Lane.SECOND)
    retries.settle([A, whole(1)], [], NOW, NOW, 0.0, lane=Lane.SECOND)
    assert retries.waiting[A] == Retry(1, NOW + FIRST, NOW, Lane.SECOND)
    assert retries.waiting[whole(1)].lane is Lane.FIRST
    retries.add_big([A], NOW + 0.1, NOW)
    assert retries.ready(NOW + 0.1, Lane.SECOND) == [], "it keeps its pause"


def test_what_has_to_wait_is_ready_when_the_second_lane_has_ended(retries: RetrySet) -> None:
    retries.add_big([A], NOW, NOW)
    retries.carry([A], Lane.SECOND)
    retries.add_later([A, B], NOW, NOW - 5)
    assert (retries.ready(NOW + 1e9), retries.next_at(NOW)) == ([], None)
    assert (retries.oldest, retries.count) == (NOW - 5, 3)
    settle(retries)
    assert retries.ready(NOW + 1e9) == [], "the first lane is not meant"
    retries.settle([], [], NOW, NOW + 50, 0.0, lane=Lane.SECOND)
    assert retries.ready(NOW + 50) == [A, B]


def test_what_had_to_wait_is_ready_at_once_if_nothing_is_under_way(retries: RetrySet) -> None:
    retries.add_later([A], NOW, NOW - 5)
    assert retries.ready(NOW) == [A]


def test_lost_worker_gives_both_lanes_back(retries: RetrySet) -> None:
    retries.add_big([A], NOW, NOW)
    retries.add(B, NOW)
    retries.carry([A], Lane.SECOND)
    retries.carry([B])
    retries.add_later([name(b"c")], NOW, NOW)
    retries.put_back()
    assert retries.ready(NOW, Lane.SECOND) == [A]
    assert set(retries.ready(NOW)) == {B, name(b"c")}


def test_too_many_big_files_become_their_trees(retries: RetrySet) -> None:
    retries.add_big([name(b"%d" % number) for number in range(MAX_RETRIES)], NOW, NOW)
    retries.carry([name(b"0")], Lane.SECOND)
    retries.add_later([A, B], NOW, NOW)
    retries.limit(NOW)
    assert retries.ready(NOW) == [whole(1)]


def test_forgotten_tree_is_forgotten_in_both_lanes(retries: RetrySet) -> None:
    retries.add_big([A, B], NOW, NOW)
    retries.carry([A], Lane.SECOND)
    retries.forget_tree(1)
    assert retries.count == 0


# What must not arrive before what is owed ------------------------------------------------------------------


def test_owed_names_are_told_by_tree_and_by_what_waits_for_them(retries: RetrySet) -> None:
    far, big, again = name(b"far", 2), name(b"d/big"), Change(1, b"d", Kind.LIST)
    retries.add_second_look([name(b"second")], NOW, NOW - 5)
    retries.add(name(b"asked"), NOW)
    settle(retries, A, far, again)
    retries.add_big([big], NOW, NOW)
    first = {1: OwedNames((b"a", b"d/"), (b"d/big",)), 2: OwedNames((b"far",))}
    assert retries.owed([]) == first
    assert retries.owed([A, far]) == {1: OwedNames((b"d/",), (b"d/big",))}, "these are in the batch"
    retries.carry([big], Lane.SECOND)
    assert retries.owed([]) == first
    for _ in range(PATIENT_TRIES):
        retries.carry([A])
        settle(retries, A)
    assert retries.owed([A])[1] == OwedNames((b"d/",), (b"d/big",), (b"a",))
    retries.settle([], [], NOW, NOW, 0.0, mirrored=[1])
    assert retries.owed([]) == {1: OwedNames((), (b"d/big",)), 2: OwedNames((b"far",))}


def test_second_looks_are_not_owed(retries: RetrySet) -> None:
    retries.add_second_look([A], NOW)
    retries.add_later([B], NOW, NOW)
    assert retries.owed([]) == {}


def test_change_behind_others_rides_with_their_next_try(retries: RetrySet) -> None:
    settle(retries, A, name(b"other", 2))
    retries.add_behind([B], NOW, NOW - 7)
    assert retries.waiting[B] == Retry(0, NOW + FIRST, NOW - 7, is_behind=True)
    assert (retries.behind, retries.oldest, retries.oldest_untried) == ([b"b"], NOW - 7, None)
    assert (retries.ready(NOW), retries.riding(NOW)) == ([], [B]), "no removal may overtake it"
    assert retries.ready(NOW + FIRST) == [A, name(b"other", 2), B]
    assert retries.riding(NOW + FIRST) == []
    assert retries.owed([]) == {1: OwedNames((b"a",)), 2: OwedNames((b"other",))}, (
        "nothing waits for what waits"
    )
    retries.carry([B])
    assert retries.behind == [b"b"]
    settle(retries)
    assert retries.behind == []


def test_change_that_waits_is_lacking_though_a_second_look_is_due_later(retries: RetrySet) -> None:
    retries.add_second_look([A], NOW + 10)
    assert not retries.lacks_since(NOW)
    retries.add_waiting([A, B], NOW + 0.05, NOW - 3)
    for change in (A, B):
        assert retries.waiting[change] == Retry(0, NOW + 0.05, NOW - 3, is_waiting=True)
    assert retries.lacks_since(NOW - 3), "a flush would return before it is sent"
    settle(retries, name(b"failed"))
    before = retries.waiting[name(b"failed")]
    retries.add_waiting([name(b"failed")], NOW + 0.05, NOW)
    assert retries.waiting[name(b"failed")] == before


def test_change_behind_a_big_file_is_sent_after_it(retries: RetrySet) -> None:
    big = name(b"d/big")
    retries.add_big([big], NOW, NOW)
    retries.add_behind([B], NOW, NOW)
    assert retries.waiting[B].at == NOW + BEHIND_SECONDS, "the second lane begins with it"
    retries.carry([big], Lane.SECOND)
    retries.add_behind([B], NOW, NOW)
    assert (retries.waiting[B].at, retries.next_at(NOW)) == (math.inf, None)
    retries.settle([big], [], NOW, NOW + 5, 0.0, lane=Lane.SECOND)
    assert retries.ready(NOW + 5) == [B]
    retries.carry([B])
    settle(retries)
    retries.add_behind([B], NOW + 5, NOW)
    assert retries.waiting[B].at == retries.waiting[big].at == NOW + 5 + FIRST


def test_change_behind_a_big_file_that_waits_for_its_lane_waits_with_it(retries: RetrySet) -> None:
    big, other = name(b"d/big"), name(b"other", 2)
    retries.add_big([other], NOW, NOW)
    retries.carry([other], Lane.SECOND)
    retries.add_big([big], NOW, NOW)
    retries.add_behind([B], NOW + 3, NOW)
    assert retries.waiting[B].at == math.inf, "another tree has the lane, and may have it for long"
    retries.settle([], [], NOW, NOW + 5, 0.0, lane=Lane.SECOND)
    assert retries.ready(NOW + 5) == [B]
    assert retries.ready(NOW + 5, Lane.SECOND) == [big]


@pytest.mark.parametrize(
    "owed", [None, name(b"a", 2)], ids=["nothing is owed any more", "another tree is owed something"]
)
def test_change_behind_nothing_is_looked_at_soon(retries: RetrySet, owed: Change | None) -> None:
    settle(retries, *([owed] if owed else []))
    retries.add_behind([B], NOW, NOW)
    assert retries.waiting[B].at == NOW + BEHIND_SECONDS


def test_change_behind_others_that_has_failed_itself_keeps_its_pause(retries: RetrySet) -> None:
    settle(retries, B)
    before = retries.waiting[B]
    retries.add_behind([B], NOW, NOW)
    assert retries.waiting[B] == before


def test_too_many_changes_that_wait_for_the_second_lane_become_trees(retries: RetrySet) -> None:
    big = name(b"big")
    retries.add_big([big], NOW, NOW)
    retries.carry([big], Lane.SECOND)
    retries.add_behind([name(b"%d" % number) for number in range(MAX_RETRIES + 1)], NOW, NOW)
    retries.limit(NOW)
    assert retries.waiting == {whole(1): Retry(0, NOW, NOW)}
