"""The journal's entries: their order, their index by directory, and what a new one covers."""

from __future__ import annotations

import random

import pytest

from inosync.changes import Kind, Step
from inosync.journal.entries import Entries, JournalEntry, Key, Steps

NAME, LIST, TREE = Kind.NAME, Kind.LIST, Kind.TREE


def entries_of(*recorded: tuple[bytes, Kind]) -> Entries:
    """The entries of tree 1 after these records, at the positions 1, 2, 3 ..."""
    entries = Entries()
    for position, (path, kind) in enumerate(recorded, 1):
        entries.add((1, path), JournalEntry(position, kind, float(position), position))
    return entries


def paths(entries: Entries, position: int = 0) -> list[bytes]:
    return [path for (_, path), _ in entries.after(position)]


def check_index(entries: Entries) -> None:
    """Check that the index by directory holds all entries, and nothing else."""
    keys = [key for key, _ in entries.after(0)]
    expected: dict[Key, set[Key]] = {}
    for key in keys:
        tree, path = key
        while path:
            child, path = path, path.rpartition(b"/")[0]
            expected.setdefault((tree, path), set()).add((tree, child))
    assert {key: set(entries.in_directory(key)) for key in entries._below} == expected


def test_entry_that_is_added_again_is_the_newest() -> None:
    entries = entries_of((b"a", NAME), (b"b", NAME), (b"a", LIST))
    assert (paths(entries), paths(entries, 2), paths(entries, 3)) == ([b"a", b"b"], [b"a"], [])
    assert len(entries) == 2
    oldest = entries.oldest()
    assert oldest is not None
    assert oldest[0] == (1, b"b")


def test_entries_without_any_have_no_oldest() -> None:
    assert Entries().oldest() is None
    assert Entries().remove((1, b"a")) is None


@pytest.mark.parametrize(
    ("key", "everything", "left"),
    [
        (b"a", False, [b"a", b"a/d/f", b"a/d", b"ab"]),
        (b"a", True, [b"a", b"ab"]),
        (b"a/d", False, [b"a", b"a/f", b"a/d", b"ab"]),
        (b"", False, [b"a", b"a/f", b"a/d/f", b"a/d"]),
        (b"", True, []),
        (b"other", True, [b"a", b"a/f", b"a/d/f", b"a/d", b"ab"]),
    ],
)
def test_listing_covers_names_and_a_whole_tree_everything_below(
    key: bytes, everything: bool, left: list[bytes]
) -> None:
    entries = entries_of((b"ab", NAME), (b"a/d", LIST), (b"a/d/f", NAME), (b"a/f", NAME), (b"a", LIST))
    before = dict(entries.after(0))
    removed = entries.remove_covered((1, key), everything)
    assert paths(entries) == left
    assert {entry.position for entry in removed} == {
        entry.position for (_, path), entry in before.items() if path not in left
    }
    check_index(entries)


def test_index_holds_what_has_entries_whatever_happens(seed: int) -> None:
    draw, entries = random.Random(seed), Entries()
    for position in range(1, 2_000):
        key = draw.randint(1, 2), b"/".join(draw.choices((b"a", b"b", b"c"), k=draw.randint(0, 5)))
        match draw.randrange(6):
            case 0:
                entries.remove(key)
            case 1:
                entries.remove_covered(key, everything=draw.random() < 0.3)
            case _:
                entries.add(key, JournalEntry(position, draw.choice(list(Kind)), 0.0, position))
    check_index(entries)
    positions = [entry.position for _, entry in entries.after(0)]
    assert positions == sorted(positions, reverse=True)


def test_steps_of_a_new_directory_are_new_for_nodes_that_lack_it() -> None:
    entries = Entries()
    for position, (path, step) in enumerate(
        [(b"d", Step.NEW), (b"d/e/f", Step.CHANGED), (b"g", Step.CHANGED)], 1
    ):
        entry = JournalEntry(position, NAME, 0.0, position)
        entry.follow(step, None)
        entries.add((1, path), entry)

    def steps(cursor: int) -> dict[bytes, Step]:
        found = Steps(entries, cursor)
        return {path: found.of((tree, path), entry) for (tree, path), entry in entries.after(cursor)}

    assert steps(0) == {b"d": Step.NEW, b"d/e/f": Step.NEW, b"g": Step.CHANGED}
    assert steps(1) == {b"d/e/f": Step.CHANGED, b"g": Step.CHANGED}


def test_steps_are_found_below_a_thousand_directories() -> None:
    deep = b"/".join([b"d"] * 3_000)
    entries = entries_of((deep, NAME))
    [(key, entry)] = entries.after(0)
    assert Steps(entries, 0).of(key, entry) is Step.CHANGED
