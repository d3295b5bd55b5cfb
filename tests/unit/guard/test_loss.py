"""What is the loss of a whole tree, judged by two looks at its root."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.guard import loss
from inosync.guard.loss import ACCEPTED, MANY, Memory, RootLook, is_doubtful, is_loss, judge, seen

PATIENCE = 10.0


def after(*looks: RootLook | tuple[int, float], since: Memory | None = None) -> Memory:
    """What is known after these looks, each of which was no loss; a number of entries and a time will do."""
    memory, now = since or Memory(), 0.0
    for look in looks:
        found, now = (look, now) if isinstance(look, RootLook) else (RootLook(look[0]), look[1])
        assert judge(memory, found, now, PATIENCE) == ""
        memory = seen(memory, found, now)
    return memory


def test_many_entries_gone_at_once_are_a_loss() -> None:
    assert judge(after((MANY, 0)), RootLook(0), 1_000, PATIENCE) == "is empty"


def test_only_entry_may_go() -> None:
    assert judge(after((1, 0)), RootLook(0), 0, PATIENCE) == ""


def test_many_entries_that_go_within_the_patience_are_a_loss() -> None:
    memory = after((MANY, 0), (1, 100))
    assert judge(memory, RootLook(0), 100 + PATIENCE - 0.1, PATIENCE) == "is empty"
    assert judge(memory, RootLook(0), 100 + PATIENCE, PATIENCE) == ""


def test_empty_root_never_seen_before_is_doubtful_but_no_loss() -> None:
    assert judge(Memory(), RootLook(0), 0, PATIENCE) == ""
    assert is_doubtful(Memory())
    assert is_doubtful(after((0, 0), (0, 1)))


def test_empty_root_that_was_seen_to_become_so_is_not_doubtful() -> None:
    memory = after((1, 0), (0, 1), (0, 2))
    assert not is_doubtful(memory)
    assert is_doubtful(loss.refiltered(memory)) is False
    assert is_doubtful(loss.lost(memory))


def test_root_with_entries_is_not_doubtful() -> None:
    assert not is_doubtful(after((1, 0)))
    assert not is_doubtful(after((MANY, 0)))


@pytest.mark.parametrize("entries", [1, MANY])
def test_replaced_root_with_nothing_in_it_is_a_loss(entries: int) -> None:
    assert judge(loss.lost(after((entries, 0))), RootLook(0), 1_000, PATIENCE) == "is empty"


def test_replaced_root_with_something_in_it_is_no_loss() -> None:
    memory = after(RootLook(1), since=loss.lost(after((MANY, 0))))
    assert judge(memory, RootLook(0), 1_000, PATIENCE) == ""


def test_accepted_loss_is_none_until_there_is_something_again() -> None:
    assert judge(ACCEPTED, RootLook(0), 0, PATIENCE) == ""
    assert not is_doubtful(ACCEPTED)
    assert not is_doubtful(after((0, 0), since=ACCEPTED))
    assert judge(after((MANY, 0), since=ACCEPTED), RootLook(0), 1, PATIENCE) == "is empty"


@pytest.mark.parametrize("entries", [0, 1, MANY])
def test_missing_mount_of_fstab_is_a_loss_whatever_is_below(entries: int) -> None:
    assert judge(Memory(), RootLook(entries, expected=True), 0, PATIENCE) == "is not mounted"
    assert judge(Memory(), RootLook(entries, mounted=True, expected=True), 0, PATIENCE) == ""


def test_ended_mount_is_a_loss_with_or_without_fstab() -> None:
    assert judge(after(RootLook(MANY, mounted=True)), RootLook(MANY), 0, PATIENCE) == "is not mounted"


def test_accepted_missing_mount_stays_so_until_it_is_mounted() -> None:
    bare = after(RootLook(MANY, expected=True), RootLook(1, expected=True), since=ACCEPTED)
    assert bare.bare
    mounted = after(RootLook(MANY, mounted=True, expected=True), since=bare)
    assert judge(mounted, RootLook(MANY, expected=True), 0, PATIENCE) == "is not mounted"


def test_entries_are_unknown_after_other_rules() -> None:
    assert judge(loss.refiltered(after((MANY, 0))), RootLook(0), 0, PATIENCE) == ""
    assert is_doubtful(loss.refiltered(after((MANY, 0))))


MEMORIES = st.builds(
    Memory,
    entries=st.sampled_from([None, 0, 1, MANY]),
    fell_at=st.sampled_from([float("-inf"), 0.0, 95.0]),
    mounted=st.booleans(),
    replaced=st.booleans(),
    accepted=st.booleans(),
    bare=st.booleans(),
)


@given(MEMORIES, st.booleans())
def test_look_that_finds_entries_is_never_an_empty_root(memory: Memory, mounted: bool) -> None:
    assert judge(memory, RootLook(1, mounted), 100.0, PATIENCE) != "is empty"


@given(MEMORIES)
def test_empty_root_is_a_loss_or_doubtful_or_accepted(memory: Memory) -> None:
    said = memory.accepted or (memory.entries == 1 and not memory.replaced)
    assert is_loss(memory, 100.0, PATIENCE) or is_doubtful(memory) or said
