"""Which renames a node can use: what it has under another name, by its cursor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.changes import Change, Kind, Rename
from inosync.journal.journal import Journal
from inosync.journal.renames import MAX_HINTS

Pair = tuple[str, str]


def move(
    journal: Journal, old: str, new: str, is_directory: bool = True, tree: int = 1, at: float = 0.0
) -> None:
    """Report a rename as the watcher does."""
    journal.gone(tree, old.encode(), 0.0)
    journal.gone(tree, new.encode(), 0.0)
    journal.renamed(tree, Rename(old.encode(), new.encode(), is_directory, at))


def found(journal: Journal, cursor: int = 0, tree: int = 1) -> list[Pair]:
    return [(each.old.decode(), each.new.decode()) for each in journal.renames_after(cursor).get(tree, ())]


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ([("a", "b")], [("a", "b")]),
        ([("a", "b"), ("b", "c")], [("a", "c")]),
        ([("a", "b"), ("b", "c"), ("c", "d")], [("a", "d")]),
        ([("a", "b"), ("b", "a")], []),
        ([("a", "b"), ("c", "d")], [("a", "b"), ("c", "d")]),
        # A deployment: what is read is read before it is replaced.
        ([("site", "old"), ("new", "site")], [("site", "old"), ("new", "site")]),
        (
            [("old", "older"), ("site", "old"), ("new", "site")],
            [("old", "older"), ("site", "old"), ("new", "site")],
        ),
        # Names exchanged through a third one.
        ([("a", "t"), ("b", "a"), ("t", "b")], [("b", "a"), ("a", "b")]),
        # Out of, into and below what was renamed.
        ([("a", "b"), ("b/x", "c")], [("a", "b"), ("a/x", "c")]),
        ([("a", "b/x"), ("b", "c")], [("a", "c/x"), ("b", "c")]),
        ([("b", "c"), ("a", "c/x")], [("a", "c/x"), ("b", "c")]),
        ([("b", "c"), ("c/x", "c/y"), ("c", "d")], [("b/x", "d/y"), ("b", "d")]),
        ([("a/x", "y"), ("a", "b"), ("y", "b/x")], [("a", "b")]),
        # What was at the new name is replaced, with what had come into it.
        ([("a", "b"), ("c", "b")], [("c", "b")]),
        ([("a", "b/x"), ("c", "b")], [("c", "b")]),
        # Names that only begin alike.
        ([("a", "b"), ("bc", "d"), ("ab", "e")], [("a", "b"), ("bc", "d"), ("ab", "e")]),
    ],
)
def test_renames_of_renames_are_joined(moves: list[Pair], expected: list[Pair]) -> None:
    journal = Journal()
    for old, new in moves:
        move(journal, old, new)
    assert found(journal) == expected


def test_rename_is_for_nodes_that_have_not_removed_the_old_name() -> None:
    journal = Journal()
    journal.record(Change(1, b"other", Kind.NAME), 0.0)
    move(journal, "a", "b")  # positions 2 and 3
    assert [found(journal, cursor) for cursor in range(4)] == [[("a", "b")], [("a", "b")], [], []]


@pytest.mark.parametrize(
    ("kind", "path", "is_directory", "needs"),
    [
        (Kind.NAME, b"d/f", False, True),  # a file that was just written: the node does not have it
        (Kind.NAME, b"d/f", True, False),  # attributes of a directory
        (Kind.LIST, b"d/f", True, True),  # a new directory
        (Kind.LIST, b"d", False, True),  # a file of a new directory
        (Kind.NAME, b"d", False, False),
        (Kind.NAME, b"d/f/g", True, False),  # something in the directory
        (Kind.NAME, b"d/other", False, False),
    ],
)
def test_rename_of_what_a_node_may_not_have_is_none(
    kind: Kind, path: bytes, is_directory: bool, needs: bool
) -> None:
    journal = Journal()
    journal.record(Change(1, path, kind), 0.0)
    move(journal, "d/f", "new", is_directory)
    assert found(journal, 0) == ([] if needs else [("d/f", "new")])
    assert found(journal, 1) == [("d/f", "new")], "it has confirmed what was recorded"


def test_rename_is_kept_apart_by_tree_and_goes_with_it() -> None:
    journal = Journal()
    move(journal, "a", "b", tree=1)
    move(journal, "c", "d", tree=2)
    assert found(journal, tree=1) == [("a", "b")]
    assert found(journal, tree=2) == [("c", "d")]
    journal.drop_tree(1)
    assert found(journal, tree=1) == []
    assert found(journal, tree=2) == [("c", "d")]


def test_renames_are_bounded_and_the_newest_stay() -> None:
    journal = Journal()
    for number in range(MAX_HINTS + 3):
        move(journal, f"a{number}", f"b{number}")
    assert len(found(journal)) == MAX_HINTS
    assert found(journal)[0] == ("a3", "b3")


def test_confirmed_rename_is_dropped() -> None:
    journal = Journal()
    move(journal, "a", "b")
    journal.drop_confirmed(journal.head)
    assert not journal._renames._hints


def test_rename_without_a_record_of_the_old_name_is_ignored() -> None:
    journal = Journal(limit=1)
    move(journal, "a", "b")  # the record of the new name has pushed the old one out
    assert found(journal) == []


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd"), st.booleans()), max_size=12))
def test_joined_renames_say_where_a_tree_had_its_directories(steps: list[tuple[str, str, bool]]) -> None:
    """Play renames on a tree of two levels, and find for each directory where it was at first."""
    journal = Journal()
    now = {path: path for top in "abcd" for path in (top, f"{top}/x")}  # by path: where it was
    for old, new, is_below in steps:
        source = f"{old}/x" if is_below else old
        if source not in now or new == old:
            continue
        for path in [path for path in now if path == new or path.startswith(new + "/")]:
            del now[path]
        for path in [path for path in now if path == source or path.startswith(source + "/")]:
            now[new + path[len(source) :]] = now.pop(path)
        move(journal, source, new)
    moves = found(journal)
    for new, old in now.items():
        known = [(to, at) for at, to in moves if new == to or new.startswith(to + "/")]
        to, at = max(known, key=lambda each: len(each[0]), default=(new, new))
        assert at + new[len(to) :] == old


def test_joined_rename_was_noticed_when_the_first_of_them_was() -> None:
    journal = Journal()
    for at, (old, new) in enumerate([("a", "b"), ("b/x", "c"), ("b", "d"), ("f", "d/g"), ("d", "e")], 1):
        move(journal, old, new, at=float(at))
    found = {(each.old, each.new): each.at for each in journal.renames_after(0)[1]}
    assert found == {(b"a", b"e"): 1.0, (b"a/x", b"c"): 1.0, (b"f", b"e/g"): 4.0}
