"""The journal: what it keeps of many changes, its bounds, and that no node ever misses one.

The last part plays a source, its watcher and a few nodes against each other, without any I/O: whatever the
order of changes, batches, acks, deaths and reloads, all nodes have to end like the source.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inosync.changes import Change, Kind, Rename
from inosync.changes import Step as Order
from inosync.journal.journal import Journal

NAME, LIST, TREE = Kind.NAME, Kind.LIST, Kind.TREE
GONE = "gone"

Step = tuple[bytes, Kind | str]


def journal_of(steps: Iterable[Step], limit: int = 1000) -> Journal:
    """A journal with these records, at 1, 2, 3 ... seconds."""
    journal = Journal(limit)
    for now, (path, what) in enumerate(steps, 1):
        if isinstance(what, Kind):
            journal.record(Change(1, path, what), now)
        else:
            journal.gone(1, path, now)
    return journal


def content(journal: Journal, cursor: int = 0) -> list[tuple[bytes, Kind]]:
    """What a node at this cursor has to look at."""
    changes = journal.since(cursor)
    assert changes is not None
    return [(change.path, change.kind) for change in changes]


def check_index(journal: Journal) -> None:
    """The index of what lies below holds all entries, and nothing else."""
    expected: dict[tuple[int, bytes], set[bytes]] = {}
    for (tree, path), _ in journal._entries.after(0):
        while path:
            path, _, last = path.rpartition(b"/")
            expected.setdefault((tree, path), set()).add(last)
    assert journal._entries._below == expected


# When a change is sent within its batch ------------------------------------------------------------------


NEW, CHANGED, UNKNOWN, SWITCHED, REMOVED = Order


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        pytest.param([CHANGED], [CHANGED], id="changed"),
        pytest.param([NEW], [NEW], id="new"),
        pytest.param([NEW, CHANGED], [NEW, CHANGED], id="new where it was not confirmed, changed elsewhere"),
        pytest.param([CHANGED, NEW], [CHANGED, CHANGED], id="what was there is not new"),
        pytest.param([SWITCHED, CHANGED], [SWITCHED, CHANGED], id="switched, then changed"),
        pytest.param([CHANGED, SWITCHED], [SWITCHED, SWITCHED], id="changed, then switched"),
        pytest.param([NEW, SWITCHED], [NEW, SWITCHED], id="new, then switched"),
        pytest.param([REMOVED, NEW], [SWITCHED, NEW], id="removed and made again"),
        pytest.param([NEW, REMOVED], [NEW, REMOVED], id="a temporary name"),
        pytest.param([NEW, REMOVED, NEW], [NEW, SWITCHED, NEW], id="a temporary name, again"),
        pytest.param([REMOVED, NEW, CHANGED], [SWITCHED, NEW, CHANGED], id="made again and changed"),
        pytest.param([REMOVED, SWITCHED], [SWITCHED, SWITCHED], id="removed, then replaced"),
        pytest.param([REMOVED, UNKNOWN], [SWITCHED, NEW], id="removed, and something else moved there"),
        pytest.param([UNKNOWN, CHANGED], [UNKNOWN, CHANGED], id="changed unseen, then changed"),
        pytest.param([NEW, UNKNOWN], [NEW, UNKNOWN], id="new, then found by a walk"),
        pytest.param([UNKNOWN, SWITCHED], [SWITCHED, SWITCHED], id="changed unseen, then switched"),
        pytest.param([UNKNOWN, REMOVED, NEW], [SWITCHED, SWITCHED, NEW], id="changed unseen, and made again"),
    ],
)
def test_step_depends_on_what_a_node_has_confirmed(records: list[Order], expected: list[Order]) -> None:
    journal = Journal()
    for step in records:
        if step is REMOVED:
            journal.gone(1, b"d/f", 1.0)
        else:
            journal.record(Change(1, b"d/f", NAME, step=step), 1.0)
    found = [(journal.since(cursor) or [])[0].step for cursor in range(len(records))]
    assert found == expected


@pytest.mark.parametrize(
    ("directory", "below", "expected"),
    [
        pytest.param(NEW, SWITCHED, NEW, id="moved to a name in a new directory"),
        pytest.param(NEW, CHANGED, NEW, id="changed in a new directory"),
        pytest.param(CHANGED, NEW, NEW, id="new in a directory whose attributes have changed"),
        pytest.param(CHANGED, CHANGED, CHANGED, id="changed in such a directory"),
        pytest.param(SWITCHED, NEW, SWITCHED, id="new in a directory that has replaced something"),
        pytest.param(REMOVED, CHANGED, SWITCHED, id="changed in a directory that was made again"),
        pytest.param(UNKNOWN, NEW, NEW, id="new in a directory that has changed unseen"),
    ],
)
@pytest.mark.parametrize("path", [b"d/f", b"d/sub/f"])
def test_step_in_a_directory_follows_the_directory(
    directory: Order, below: Order, expected: Order, path: bytes
) -> None:
    journal = Journal()
    if directory is REMOVED:
        journal.gone(1, b"d", 1.0)
        directory = NEW
    journal.record(Change(1, b"d", LIST, step=directory), 1.0)
    confirmed = journal.head
    journal.record(Change(1, path, NAME, step=below), 1.0)
    assert [change.step for change in journal.since(0) or [] if change.path == path] == [expected]
    # A node that has the directory by now goes by the name alone.
    assert [change.step for change in journal.since(confirmed) or []] == [below]


def test_step_in_a_deep_directory_needs_no_recursion() -> None:
    journal = Journal()
    journal.record(Change(1, b"d", LIST, step=NEW), 1.0)
    journal.record(Change(1, b"d" + b"/d" * 5_000, NAME, step=SWITCHED), 1.0)
    assert [change.step for change in journal.since(0) or []] == [NEW, NEW]


# What is kept --------------------------------------------------------------------------------------------


def test_thousand_changes_of_one_file_are_one_entry() -> None:
    journal = journal_of([(b"a/f", NAME)] * 1000)
    assert len(journal) == 1
    assert content(journal) == [(b"a/f", NAME)]
    assert journal.head == 1000


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param(
            [(b"b", NAME), (b"a", NAME), (b"b", NAME)],
            [(b"a", NAME), (b"b", NAME)],
            id="order is that of the last records",
        ),
        pytest.param([(b"a", NAME), (b"a", LIST)], [(b"a", LIST)], id="a name becomes a listing"),
        pytest.param([(b"a", LIST), (b"a", NAME)], [(b"a", LIST)], id="a listing stays one"),
        pytest.param([(b"a", TREE), (b"a", LIST)], [(b"a", TREE)], id="a whole tree stays one"),
        pytest.param(
            [(b"a/f", NAME), (b"a/d/f", NAME), (b"a", GONE)],
            [(b"a", NAME)],
            id="what is gone swallows all below it",
        ),
        pytest.param(
            [(b"a", LIST), (b"a/d", LIST), (b"a/d/e", TREE), (b"a", GONE)],
            [(b"a", NAME)],
            id="what is gone is a name, whatever was to be listed",
        ),
        pytest.param(
            [(b"ab/f", NAME), (b"a.b", NAME), (b"a/f", NAME), (b"a", GONE)],
            [(b"ab/f", NAME), (b"a.b", NAME), (b"a", NAME)],
            id="names that only begin alike stay",
        ),
        pytest.param(
            [(b"a", GONE), (b"a", LIST), (b"a/f", NAME)],
            [(b"a", LIST), (b"a/f", NAME)],
            id="a recreated directory is relisted",
        ),
        pytest.param(
            [(b"a", GONE), (b"a", LIST), (b"a", GONE)],
            [(b"a", NAME)],
            id="a recreated directory that is gone again is a name",
        ),
        pytest.param(
            [(b"a/f", NAME), (b"a/d", NAME), (b"a/d/f", NAME), (b"a", LIST)],
            [(b"a/d/f", NAME), (b"a", LIST)],
            id="a listing covers the names in it, not what is below them",
        ),
        pytest.param(
            [(b"a/d", LIST), (b"a/t", TREE), (b"a", LIST)],
            [(b"a/d", LIST), (b"a/t", TREE), (b"a", LIST)],
            id="a listing does not cover the listings of its subdirectories",
        ),
        pytest.param(
            [(b"a", LIST), (b"a/f", NAME)],
            [(b"a", LIST), (b"a/f", NAME)],
            id="a name after the listing stays: the listing may have been sent",
        ),
        pytest.param(
            [(b"a/f", NAME), (b"a/d", LIST), (b"a/d/e/f", NAME), (b"b", NAME), (b"a", TREE)],
            [(b"b", NAME), (b"a", TREE)],
            id="a whole tree swallows all below it",
        ),
        pytest.param(
            [(b"a", NAME), (b"d/e", LIST), (b"", LIST), (b"f", NAME)],
            [(b"d/e", LIST), (b"", LIST), (b"f", NAME)],
            id="the root is a directory like others",
        ),
        pytest.param(
            [(b"a", NAME), (b"d/e", LIST), (b"", TREE)], [(b"", TREE)], id="the whole root swallows all"
        ),
        pytest.param([(b"a", NAME), (b"d/e", LIST), (b"", GONE)], [(b"", NAME)], id="the root is gone"),
        pytest.param(
            [(b"a\n", NAME), (b"#", NAME), (b"\xff/x", NAME), (b"\xff", GONE)],
            [(b"a\n", NAME), (b"#", NAME), (b"\xff", NAME)],
            id="names are any bytes",
        ),
    ],
)
def test_journal_keeps_what_a_history_needs(steps: Sequence[Step], kept: list[tuple[bytes, Kind]]) -> None:
    journal = journal_of(steps)
    assert content(journal) == kept
    assert len(journal) == len(kept)
    assert journal.head == len(steps)
    check_index(journal)


def test_node_in_the_middle_gets_only_newer_changes() -> None:
    journal = journal_of([(b"a", NAME), (b"b", NAME), (b"c", NAME), (b"a", NAME)])
    assert content(journal, 0) == [(b"b", NAME), (b"c", NAME), (b"a", NAME)]
    assert content(journal, 2) == [(b"c", NAME), (b"a", NAME)]
    assert content(journal, 3) == [(b"a", NAME)]
    assert content(journal, 4) == []
    assert [journal.backlog(cursor)[0] for cursor in range(5)] == [3, 3, 2, 1, 0]
    assert journal.backlog(0, lambda _change: False) == (0, None)
    newest = journal.since(3)
    assert newest is not None
    assert [journal.backlog(cursor, newest.__contains__)[0] for cursor in range(5)] == [1, 1, 1, 1, 0]


def test_listing_confirmed_by_one_node_is_still_due_to_another() -> None:
    journal = journal_of([(b"a", LIST), (b"a", NAME)])
    assert content(journal, 0) == [(b"a", LIST)]
    assert content(journal, 1) == [(b"a", LIST)]


def test_trees_do_not_touch_each_other() -> None:
    journal = Journal()
    journal.record(Change(1, b"a/f", NAME), 1)
    journal.record(Change(2, b"a/f", NAME), 2)
    journal.gone(1, b"a", 3)
    assert journal.since(0) == [Change(2, b"a/f", NAME), Change(1, b"a", NAME)]
    journal.record(Change(3, b"", TREE), 4)
    assert len(journal) == 3
    check_index(journal)


def test_dropped_tree_is_forgotten_alone() -> None:
    journal = Journal()
    for tree in (1, 2):
        for path in (b"", b"a", b"a/b/c"):
            journal.record(Change(tree, path, LIST), tree)
    head = journal.head
    journal.drop_tree(1)
    assert journal.since(0) == [Change(2, path, LIST) for path in (b"", b"a", b"a/b/c")]
    assert journal.head == head
    assert journal.floor == 0
    check_index(journal)
    journal.drop_tree(9)
    assert len(journal) == 3


# Bounds --------------------------------------------------------------------------------------------------


def test_entries_over_the_limit_make_old_cursors_fall_off() -> None:
    journal = journal_of([(b"%d" % i, NAME) for i in range(1, 6)], limit=3)
    assert len(journal) == 3
    assert journal.floor == 2
    assert [journal.since(cursor) is None for cursor in range(4)] == [True, True, False, False]
    assert content(journal, 2) == [(b"3", NAME), (b"4", NAME), (b"5", NAME)]
    assert content(journal, 4) == [(b"5", NAME)]


def test_changes_of_the_same_file_never_push_anything_out() -> None:
    journal = journal_of([(b"old", NAME), *[(b"busy", NAME)] * 100], limit=2)
    assert content(journal) == [(b"old", NAME), (b"busy", NAME)]
    assert journal.floor == 0


def test_confirmed_changes_are_dropped_and_no_cursor_falls_off() -> None:
    journal = journal_of([(b"a/b", NAME), (b"c", NAME), (b"a/b", NAME), (b"d", NAME)])
    journal.drop_confirmed(2)
    assert content(journal, 2) == [(b"a/b", NAME), (b"d", NAME)]
    journal.drop_confirmed(3)
    assert content(journal, 3) == [(b"d", NAME)]
    assert journal.floor == 0
    journal.drop_confirmed(journal.head)
    assert len(journal) == 0
    assert content(journal, journal.head) == []
    assert journal.oldest_since(journal.head) is None


@pytest.mark.parametrize("levels", [10, 1500])
@pytest.mark.parametrize("what", [GONE, TREE])
def test_depth_is_no_limit(levels: int, what: Kind | str) -> None:
    # 1,500 levels with names of one byte are well below rsync's longest name.
    path = b"/".join([b"d"] * levels)
    journal = journal_of([(path, LIST), (path + b"/f", NAME), (b"d", what)])
    assert content(journal) == [(b"d", NAME if what == GONE else TREE)]
    journal.drop_confirmed(journal.head)
    check_index(journal)


@pytest.mark.parametrize("levels", [10, 1500])
def test_deep_tree_is_forgotten_whole(levels: int) -> None:
    journal = journal_of([(b"/".join([b"d"] * levels), LIST)])
    journal.drop_tree(1)
    assert len(journal) == 0
    check_index(journal)


# Lag -----------------------------------------------------------------------------------------------------


def test_age_of_a_change_is_that_of_its_first_unconfirmed_record() -> None:
    journal = journal_of([(b"a", NAME), (b"b", NAME), (b"a", NAME), (b"a", NAME)])
    assert [journal.oldest_since(cursor) for cursor in range(5)] == [1, 2, 3, 4, None]


def test_records_of_one_read_are_one_mark() -> None:
    journal = Journal(marks=4)
    for i in range(1000):
        journal.record(Change(1, b"%d" % i, NAME), i // 500)
    assert journal.oldest_since(499) == 0
    assert journal.oldest_since(500) == 1
    assert len(journal._times._marks) == 2


@given(
    gaps=st.lists(st.sampled_from([0.0, 0.001, 1.0, 100.0]), max_size=200),
    marks=st.integers(0, 12),
    confirmed=st.integers(0, 200),
    data=st.data(),
)
def test_age_of_the_oldest_change_is_never_understated(
    gaps: list[float], marks: int, confirmed: int, data: st.DataObject
) -> None:
    journal = Journal(limit=20, marks=marks)
    times: list[float] = []
    now = 0.0
    for i, gap in enumerate(gaps):
        now += gap
        times.append(now)
        journal.record(Change(1, b"%d" % (i % 7), NAME), now)
        assert len(journal._times._marks) <= max(marks, 4)
    confirmed = min(confirmed, journal.head)
    journal.drop_confirmed(confirmed)
    cursor = data.draw(st.integers(confirmed, journal.head))
    oldest = journal.oldest_since(cursor)
    if cursor == journal.head:
        assert oldest is None
    else:
        assert oldest is not None
        assert times[0] <= oldest <= times[cursor]


@given(gaps=st.lists(st.sampled_from([0.0, 0.5, 2.0]), max_size=60), data=st.data())
def test_age_is_exact_with_room_for_all_marks(gaps: list[float], data: st.DataObject) -> None:
    journal = Journal()
    times: list[float] = []
    for gap in gaps:
        times.append((times[-1] if times else 0.0) + gap)
        journal.record(Change(1, b"f", NAME), times[-1])
    cursor = data.draw(st.integers(0, len(times)))
    assert journal.oldest_since(cursor) == (times[cursor] if cursor < len(times) else None)


def concerns_f(change: Change) -> bool:
    return change.path.startswith(b"f")


def test_lag_of_a_part_begins_with_its_oldest_change() -> None:
    journal = Journal()
    journal.record(Change(1, b"other", NAME), 10.0)
    journal.record(Change(1, b"f/1", NAME), 20.0)
    journal.record(Change(1, b"other", NAME), 30.0)
    journal.record(Change(1, b"f/1", NAME), 40.0)
    assert journal.backlog(0) == (2, 10.0)
    assert journal.backlog(0, concerns_f) == (1, 20.0)
    assert journal.backlog(2, concerns_f) == (1, 30.0)  # never too late, but it may be too early
    assert journal.backlog(4, concerns_f) == (0, None)


@pytest.mark.parametrize("by", ["gone", "a listing", "a tree"])
def test_change_that_covers_older_ones_is_as_old_as_they_are(by: str) -> None:
    journal = Journal()
    journal.record(Change(1, b"x", NAME), 5.0)
    journal.record(Change(1, b"f/1", NAME), 10.0)
    if by == "gone":
        journal.gone(1, b"f", 20.0)
    else:
        kind, path = (Kind.LIST, b"f") if by == "a listing" else (Kind.TREE, b"")
        journal.record(Change(1, path, kind), 20.0)
    assert journal.backlog(0, lambda change: change.path != b"x") == (1, 5.0 if by == "a tree" else 10.0)


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([b"f", b"f/1", b"f/2", b"o", b"o/1"]),
            st.sampled_from(["name", "list", "gone"]),
            st.sampled_from([0.0, 0.5, 2.0]),
        ),
        max_size=60,
    ),
    data=st.data(),
)
def test_lag_of_a_part_is_never_understated_nor_more_than_that_of_all(
    steps: list[tuple[bytes, str, float]], data: st.DataObject
) -> None:
    journal, now, recorded = Journal(), 0.0, []
    for path, how, gap in steps:
        now += gap
        if how == "gone":
            journal.gone(1, path, now)
        else:
            journal.record(Change(1, path, NAME if how == "name" else Kind.LIST), now)
        recorded.append((path, now))
    cursor = data.draw(st.integers(0, len(steps)))
    true = min((at for path, at in recorded[cursor:] if path.startswith(b"f")), default=None)
    count, found = journal.backlog(cursor, concerns_f)
    assert (true is None) == (found is None) == (count == 0)
    if true is not None and found is not None:
        assert recorded[cursor][1] <= found <= true


# The index -----------------------------------------------------------------------------------------------

paths = st.lists(st.sampled_from([b"a", b"b", b"c", b"ab"]), max_size=4).map(b"/".join)


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("record"), st.integers(1, 2), paths, st.sampled_from(Kind)),
            st.tuples(st.just("gone"), st.integers(1, 2), paths, st.just(NAME)),
            st.tuples(st.just("forget"), st.integers(0, 60), st.just(b""), st.just(NAME)),
            st.tuples(st.just("forget tree"), st.integers(1, 2), st.just(b""), st.just(NAME)),
        ),
        max_size=60,
    ),
    limit=st.integers(1, 12),
)
def test_index_fits_the_entries_after_any_history(
    steps: list[tuple[str, int, bytes, Kind]], limit: int
) -> None:
    journal = Journal(limit)
    for now, (what, number, path, kind) in enumerate(steps):
        match what:
            case "record":
                journal.record(Change(number, path, kind), now)
            case "gone":
                journal.gone(number, path, now)
            case "forget":
                journal.drop_confirmed(min(number, journal.head))
            case "forget tree":
                journal.drop_tree(number)
        check_index(journal)
        assert len(journal) <= limit
        assert [entry.position for entry in journal._entries._entries.values()] == sorted(
            {entry.position for entry in journal._entries._entries.values()}
        )
        assert journal.floor <= journal.head
    journal.drop_confirmed(journal.head)
    assert len(journal) == 0
    assert journal._entries._below == {}


# Nobody misses anything ----------------------------------------------------------------------------------

ALPHABET = (b"a", b"b", b"c")
DEEPEST = 4
DIRECTORY = 0
"""What stands for a directory in a tree; a file is its version, from 1."""

Tree = dict[bytes, int]


def parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def at_and_below(tree: Tree, path: bytes) -> list[bytes]:
    return [each for each in tree if each == path or each.startswith(path + b"/")]


def entries(tree: Tree, path: bytes) -> list[bytes]:
    prefix = path + b"/" if path else b""
    return [each for each in tree if each.startswith(prefix) and b"/" not in each[len(prefix) :]]


def is_directory(tree: Tree, path: bytes) -> bool:
    return not path or tree.get(path) == DIRECTORY


@dataclass
class Node:
    """A node as the master sees it, and what it has."""

    cursor: int
    has: Tree = field(default_factory=dict)
    due: set[Change] = field(default_factory=set)
    batch: list[Change] | None = None
    upto: int = 0
    trying: set[Change] = field(default_factory=set)


class World:
    """A source, its watcher, the journal, and some nodes. ``dice`` makes every choice."""

    def __init__(self, dice: random.Random, limit: int, punctual: bool) -> None:
        self.dice = dice
        self.limit = limit
        self.journal = Journal(limit)
        self.source: Tree = {}
        self.events: list[tuple[str, bytes]] = []
        """What the kernel has queued, in the watcher's conventions."""
        self.unseen = set[bytes]()
        """Directories that are not watched yet: what happens in them sends no event."""
        self.punctual = punctual
        self.nodes = [self.new_node() for _ in range(2)]
        self.version = 0
        self.now = 0.0
        self.story: list[str] = []

    # The source ----------------------------------------------------------------------------------------

    def random_path(self) -> bytes:
        """A place in a directory; something may be there."""
        above = [path for path in sorted(self.source) if self.source[path] == DIRECTORY]
        directory = self.dice.choice([b"", *(path for path in above if path.count(b"/") < DEEPEST - 1)])
        last = self.dice.choice(ALPHABET)
        return directory + b"/" + last if directory else last

    def existing(self) -> bytes:
        return self.dice.choice(sorted(self.source)) if self.source else b""

    def change(self) -> None:
        what = ("write", "mkdir", "remove", "rename", "touch")
        match self.dice.choices(what, (30, 30, 12 if len(self.source) > 12 else 3, 20, 8))[0]:
            case "write":
                self.write(self.dice.choice((self.random_path(), self.existing())))
            case "mkdir":
                self.mkdir(self.random_path())
            case "remove":
                self.remove(self.existing())
            case "rename":
                self.rename(self.existing(), self.dice.choice((self.random_path(), self.existing())))
            case "touch":
                self.touch(self.dice.choice((b"", self.existing())))
        if self.punctual:
            self.watch()

    def event(self, what: str, path: bytes) -> None:
        if parent(path) not in self.unseen:
            self.events.append((what, path))

    def touch(self, path: bytes) -> None:
        """Change the attributes of a directory; the root's are told as its listing."""
        if is_directory(self.source, path):
            self.event("name" if path else "root", path)
            self.story.append(f"touch {path!r}")

    def write(self, path: bytes) -> None:
        if path and is_directory(self.source, parent(path)) and self.source.get(path) != DIRECTORY:
            self.version += 1
            self.source[path] = self.version
            self.event("name", path)
            self.story.append(f"write {path!r}")

    def mkdir(self, path: bytes) -> None:
        if is_directory(self.source, parent(path)) and path not in self.source:
            self.source[path] = DIRECTORY
            self.event("directory", path)
            self.unseen.add(path)
            self.story.append(f"mkdir {path!r}")

    def remove(self, path: bytes) -> None:
        # Bottom up, as rm does; a half removed directory is another history.
        for each in sorted(at_and_below(self.source, path), key=len, reverse=True) if path else []:
            del self.source[each]
            self.unseen.discard(each)
            self.event("gone", each)
            self.story.append(f"remove {each!r}")
            if self.dice.random() < 0.1:
                return

    def rename(self, old: bytes, new: bytes) -> None:
        if not old or not new or old == new or new.startswith(old + b"/") or old.startswith(new + b"/"):
            return
        if not is_directory(self.source, parent(new)) or old not in self.source:
            return
        if new in self.source:
            both_directories = self.source[old] == self.source[new] == DIRECTORY
            both_files = self.source[old] != DIRECTORY and self.source[new] != DIRECTORY
            if not both_files and not (both_directories and not entries(self.source, new)):
                return
        moved = {new + each[len(old) :]: self.source.pop(each) for each in at_and_below(self.source, old)}
        if any(each.count(b"/") >= 2 * DEEPEST for each in moved):
            self.story.append("too deep")
            self.source.update({old + each[len(new) :]: version for each, version in moved.items()})
            return
        self.source.update(moved)
        self.unseen.discard(new)
        still = {each for each in self.unseen if each == old or each.startswith(old + b"/")}
        self.unseen = (self.unseen - still) | {new + each[len(old) :] for each in still}
        self.event("gone", old)
        self.event("gone", new)
        if moved[new] == DIRECTORY:
            self.event("walk", new)
        self.story.append(f"rename {old!r} {new!r}")

    # The watcher ---------------------------------------------------------------------------------------

    def watch(self, most: int = 1_000_000) -> None:
        """Handle events in their order; directories are listed as they are by now."""
        taken, self.events = self.events[:most], self.events[most:]
        for what, path in taken:
            self.now += 0.25
            match what:
                case "name":
                    self.record(path, NAME)
                case "gone":
                    self.journal.gone(1, path, self.now)
                case "directory":
                    self.record(path, NAME)
                    self.walk(path)
                case "walk":
                    self.walk(path)
                case "root":
                    self.record(b"", LIST)
            assert len(self.journal) <= self.limit

    def record(self, path: bytes, kind: Kind) -> None:
        self.journal.record(Change(1, path, kind), self.now)
        assert len(self.journal) <= self.limit

    def walk(self, path: bytes) -> None:
        if self.source.get(path) == DIRECTORY and parent(path) not in self.unseen:
            self.unseen.discard(path)
            self.record(path, LIST)
            for each in self.dice.sample(entries(self.source, path), k=len(entries(self.source, path))):
                self.walk(each)

    # The nodes -----------------------------------------------------------------------------------------

    def new_node(self) -> Node:
        return Node(self.journal.head, {b"a": 10**6, b"stale": 10**6}, {Change(1, b"", TREE)})

    def send(self, node: Node) -> None:
        """Cut a batch. What of the due is not tried this time stays due."""
        changes = self.journal.since(node.cursor)
        if changes is None:
            changes = [Change(1, b"", TREE)]
        node.trying = {change for change in sorted(node.due, key=repr) if self.dice.random() < 0.7}
        node.due -= node.trying
        node.batch = [*changes, *sorted(node.trying, key=repr)]
        node.upto = self.journal.head

    def die(self, node: Node) -> None:
        """The worker died: its batch counts as unsent, however much of it was done."""
        node.due |= node.trying
        node.batch = None
        node.trying = set()

    def acknowledge(self, node: Node, complaints: float) -> None:
        """The batch is through, but for what rsync complained of."""
        assert node.batch is not None
        left = self.apply(node, node.batch, complaints)
        node.cursor = max(node.cursor, node.upto)
        node.due |= left
        node.batch = None
        node.trying = set()

    def apply(self, node: Node, batch: Sequence[Change], complaints: float = 0.0) -> set[Change]:
        """Make the names on a node like the source; what was complained of instead."""
        left = set[Change]()
        for change in self.dice.sample(batch, k=len(batch)):
            if self.dice.random() < complaints:
                left.add(change)
            else:
                self.make_like_source(node.has, change)
        return left

    def make_like_source(self, has: Tree, change: Change) -> None:
        path, kind = change.path, change.kind
        if kind is TREE:
            assert not path
            has.clear()
            has.update(self.source)
            return
        topmost = next((above for above in ancestry(path) if not is_directory(self.source, above)), path)
        if topmost != path:
            path, kind = topmost, NAME
        self.make_one(has, path)
        if kind is LIST and is_directory(self.source, path):
            for each in {*entries(self.source, path), *entries(has, path)}:
                self.make_one(has, each)

    def make_one(self, has: Tree, path: bytes) -> None:
        if not path:
            return
        version = self.source.get(path)
        if version is None or version != DIRECTORY or has.get(path) != DIRECTORY:
            for each in at_and_below(has, path):
                del has[each]
        if version is not None:
            for above in ancestry(path):
                if has.get(above) not in (None, DIRECTORY):
                    del has[above]
                has.setdefault(above, DIRECTORY)
            has[path] = version

    def forget(self) -> None:
        self.journal.drop_confirmed(min((node.cursor for node in self.nodes), default=self.journal.head))

    # All of it -----------------------------------------------------------------------------------------

    def step(self) -> None:
        node = self.dice.choice(self.nodes)
        match self.dice.choices(
            ("change", "watch", "send", "try", "die", "ack", "forget", "reload"),
            (30, 15, 12, 6, 3, 12, 4, 1),
        )[0]:
            case "change":
                self.change()
            case "watch":
                self.watch(self.dice.randint(1, 4))
            case "send" if node.batch is None:
                self.send(node)
            case "try" if node.batch is not None:  # a transfer that fails on the way
                self.apply(node, node.batch, self.dice.random())
            case "die" if node.batch is not None:
                self.die(node)
            case "ack" if node.batch is not None:
                self.acknowledge(node, self.dice.choice((0, 0, 0.3, 1)))
            case "forget":
                self.forget()
            case "reload":
                self.reload(node)

    def reload(self, node: Node) -> None:
        match self.dice.randrange(4):
            case 0 if len(self.nodes) > 1:
                self.nodes.remove(node)
            case 1 if len(self.nodes) < 4:
                self.nodes.append(self.new_node())
            case 2:  # restarted with other settings: it keeps its place
                self.die(node)
            case 3:  # another target: its worker is told to end, nobody knows what is there
                self.die(node)
                node.has = {b"b": DIRECTORY, b"b/stale": 10**6}
                node.due.add(Change(1, b"", TREE))

    def finish(self) -> None:
        """Deliver everything."""
        self.watch()
        assert not self.unseen
        for node in self.nodes:
            if node.batch is not None:
                self.acknowledge(node, 0)
            while node.due or node.cursor < self.journal.head:
                self.send(node)
                self.acknowledge(node, 0)
        self.forget()
        assert len(self.journal) == 0
        assert self.journal._entries._below == {}
        for number, node in enumerate(self.nodes):
            assert node.has == self.source, (number, self.story)


def ancestry(path: bytes) -> list[bytes]:
    """The directories above a path, topmost first, without the root."""
    parts = path.split(b"/")
    return [b"/".join(parts[:count]) for count in range(1, len(parts))]


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(
    dice=st.randoms(use_true_random=True),
    steps=st.integers(1, 150),
    limit=st.sampled_from([1, 2, 5, 20, 1000]),
    punctual=st.booleans(),
)
def test_no_node_ever_misses_a_change(dice: random.Random, steps: int, limit: int, punctual: bool) -> None:
    world = World(dice, limit, punctual)
    for _ in range(steps):
        world.step()
    world.finish()


@pytest.mark.parametrize("limit", [1, 7, 50, 100_000])
def test_no_node_ever_misses_a_change_in_a_long_life(seed: int, limit: int) -> None:
    world = World(random.Random(seed), limit, punctual=False)
    for _ in range(200):
        for _ in range(world.dice.choice((5, 20, 60))):
            world.step()
        # Seldom enough for histories to grow, often enough that chance mends nothing before it is seen.
        world.finish()


# Up to a position --------------------------------------------------------------------------------------


def sent(journal: Journal, cursor: int, upto: int) -> list[bytes]:
    """What a node at a cursor is sent up to a position, as rsync is told."""
    changes = journal.since(cursor, upto)
    assert changes is not None
    return [change.wire for change in changes]


def wires(changes: Iterable[Change]) -> list[bytes]:
    return [change.wire for change in changes]


def test_change_is_sent_up_to_its_newest_record() -> None:
    journal = journal_of([(b"a", NAME), (b"b", NAME), (b"a", NAME), (b"c", NAME)])
    assert sent(journal, 0, 2) == [b"b"]
    assert sent(journal, 0, 3) == [b"b", b"a"]
    assert sent(journal, 2, 4) == [b"a", b"c"]
    assert sent(journal, 0, 0) == []


def test_listing_waits_for_what_is_newer_in_its_directory() -> None:
    journal = journal_of([(b"d", LIST), (b"d/s", LIST), (b"x", NAME), (b"d/f", NAME), (b"d/s/g", NAME)])
    assert sent(journal, 0, 3) == [b"x"]
    assert wires(journal.unsettled(0, 3)) == [b"d/s/", b"d/"]
    assert sent(journal, 0, 4) == [b"d/", b"x", b"d/f"], "what is newer below a subdirectory is not listed"
    assert wires(journal.unsettled(0, 4)) == [b"d/s/"]
    assert sent(journal, 0, 5) == [b"d/", b"d/s/", b"x", b"d/f", b"d/s/g"]
    assert journal.unsettled(0, 5) == []


def test_tree_waits_for_what_is_newer_in_it() -> None:
    journal = journal_of([(b"", TREE), (b"a", NAME)])
    assert sent(journal, 0, 1) == []
    assert wires(journal.unsettled(0, 1)) == [b"./"]
    assert [change.kind for change in journal.since(0, 2) or ()] == [TREE, NAME]
    whole = Change(2, b"", TREE)
    assert journal.is_settled(whole, 0)
    journal.record_unknown(2, 3.0)
    assert (journal.head, journal.is_settled(whole, 2), journal.is_settled(whole, 3)) == (3, False, True)
    journal.drop_tree(2)
    assert journal.is_settled(whole, 0)


@pytest.mark.parametrize(
    ("records", "change", "expected"),
    [
        ([(b"x", NAME), (b"a", NAME)], Change(1, b"a", NAME), False),
        ([(b"a", NAME), (b"x", NAME)], Change(1, b"a", NAME), True),
        ([(b"x", NAME), (b"a/b", NAME)], Change(1, b"a", NAME), True),
        ([(b"x", NAME), (b"a/b", NAME)], Change(1, b"a", LIST), False),
        ([(b"x", NAME), (b"a/b/c", NAME)], Change(1, b"a", LIST), True),
        ([(b"x", NAME), (b"a/b/c", NAME)], Change(1, b"", TREE), False),
        ([(b"x", NAME), (b"a", NAME)], Change(1, b"a/b/c", NAME), False),
        ([(b"a", NAME), (b"x", NAME)], Change(1, b"a/b/c", NAME), True),
        ([(b"x", NAME), (b"a", LIST)], Change(1, b"a/b", NAME), False),
        ([(b"x", NAME), (b"a", GONE)], Change(1, b"a/b/c", NAME), False),
        ([(b"x", NAME), (b"", TREE)], Change(1, b"a/b/c", NAME), False),
        ([(b"x", NAME), (b"a", GONE)], Change(2, b"a/b/c", NAME), True),
    ],
)
def test_change_is_settled_unless_it_carries_what_is_newer(
    records: list[Step], change: Change, expected: bool
) -> None:
    assert journal_of(records).is_settled(change, 1) is expected


def test_change_is_overtaken_by_a_newer_record_of_it() -> None:
    steps: list[Step] = [(b"a", NAME), (b"d/f", NAME), (b"old", NAME)]
    journal = journal_of([*steps, (b"a", NAME), (b"d", LIST), (b"old", GONE), (b"new", NAME)])
    assert journal.overtaken(3) == {1: (b"old", b"d/", b"a")}
    assert journal.overtaken(6) == journal.overtaken(0) == {}


def test_rename_after_the_position_is_left_out() -> None:
    journal = journal_of([(b"x", NAME)])
    journal.gone(1, b"a", 2.0)
    journal.record(Change(1, b"b", NAME), 2.0)
    journal.renamed(1, Rename(b"a", b"b", False))
    assert journal.renames_after(0, 1) == {}
    assert journal.renames_after(0, 2) == journal.renames_after(0) != {}


def test_position_that_was_recorded_before_a_time_is_known() -> None:
    journal = Journal(marks=4)
    assert journal.recorded_before(5.0) == -1
    for now in range(1, 4):
        journal.record(Change(1, b"%d" % now, NAME), now)
    assert [journal.recorded_before(when) for when in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5)] == [
        *(-1, -1, -1, 1, 1, 2, 3)
    ]
    journal.drop_confirmed(3)
    assert journal.recorded_before(9.0) == -1


@given(
    gaps=st.lists(st.sampled_from([0.0, 0.5, 1.0]), max_size=60),
    marks=st.integers(4, 12),
    when=st.sampled_from([0.5 * half for half in range(70)]),
)
def test_position_recorded_before_a_time_is_never_too_new(gaps: list[float], marks: int, when: float) -> None:
    journal, now = Journal(marks=marks), 0.0
    times = []
    for number, gap in enumerate(gaps):
        now += gap
        times.append(now)
        journal.record(Change(1, b"%d" % number, NAME), now)
    position = journal.recorded_before(when)
    assert all(at < when for at in times[: max(position, 0)])


class StagedWorld(World):
    """A source and a node that is given nothing newer than a position, which moves on as it likes."""

    def __init__(self, dice: random.Random, limit: int) -> None:
        super().__init__(dice, limit, punctual=False)
        self.node = self.nodes[0]
        self.nodes = [self.node]
        self.node.has = {}
        self.journal.record_unknown(1, 0.0)
        self.passed = -1
        self.states = {self.journal.head: dict(self.source)}
        """What the source was when all was recorded, by the journal's position."""

    def all_is_seen(self) -> None:
        self.watch()
        self.states[self.journal.head] = dict(self.source)

    def send_up_to_limit(self) -> None:
        """Cut a batch, as the dispatcher does."""
        self.all_is_seen()
        node, upto = self.node, self.passed
        if node.cursor < self.journal.floor:
            node.due.add(Change(1, b"", TREE))
            node.cursor = self.journal.floor
        upto = max(upto, node.cursor)
        changes = self.journal.since(node.cursor, self.passed)
        assert changes is not None
        node.due |= set(self.journal.unsettled(node.cursor, self.passed))
        node.trying = {one for one in sorted(node.due, key=repr) if self.journal.is_settled(one, self.passed)}
        node.due -= node.trying
        node.batch, node.upto = [*changes, *sorted(node.trying, key=repr)], upto
        self.acknowledge(node, self.dice.choice((0, 0, 0.3, 1)))
        allowed = [state for position, state in self.states.items() if position <= self.passed]
        for path, version in node.has.items():
            assert any(state.get(path) == version for state in allowed), (path, self.story)

    def step(self) -> None:
        match self.dice.choices(("change", "watch", "see", "pass", "send", "forget"), (30, 8, 8, 5, 12, 2))[
            0
        ]:
            case "change":
                self.change()
            case "watch":
                self.watch(self.dice.randint(1, 4))
            case "see":
                self.all_is_seen()
            case "pass":
                self.passed = self.dice.choice([at for at in self.states if at >= self.passed])
            case "send":
                self.send_up_to_limit()
            case "forget":
                self.forget()


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    dice=st.randoms(use_true_random=True),
    steps=st.integers(1, 150),
    limit=st.sampled_from([3, 20, 1000]),
)
def test_node_is_given_nothing_newer_than_its_limit(dice: random.Random, steps: int, limit: int) -> None:
    world = StagedWorld(dice, limit)
    for _ in range(steps):
        world.step()
    world.all_is_seen()
    world.passed = world.journal.head
    world.finish()


# Machines of a fleet -----------------------------------------------------------------------------------


PATHS = (b"", b"a", b"a/b", b"a/b/c", b"d", b"d/e")
EVENTS = st.lists(
    st.tuples(st.sampled_from(PATHS), st.sampled_from((*Kind, "gone", "moved")), st.booleans()), max_size=25
)


def play(journal: Journal, path: bytes, what: Kind | str, gone: set[bytes]) -> None:
    """Record something. A directory in ``gone`` is listed, when it is made again, before what is in it."""
    for at in (at for at, byte in enumerate(path) if byte == ord("/")):
        if path[:at] in gone:
            journal.record(Change(1, path[:at], Kind.LIST), 0.0)
            gone.remove(path[:at])
    if isinstance(what, Kind):
        journal.record(Change(1, path, what), 0.0)
        gone -= {path} if what is not Kind.NAME else set()
    elif path:
        journal.gone(1, path, 0.0, Order.REMOVED if what == "gone" else Order.SWITCHED)
        gone.add(path)


@given(EVENTS, st.integers(0, 30))
def test_journal_that_follows_another_lacks_nothing_that_it_has(
    events: list[tuple[bytes, Kind | str, bool]], cursor: int
) -> None:
    """It may have more: what the other one has dropped because something newer covers it."""
    origin, follower, appended, gone = Journal(), Journal(), 0, set[bytes]()
    for path, what, is_read in events:
        play(origin, path, what, gone)
        if is_read:
            follower.follow(origin.head, origin.floor, origin.entries_after(appended), 0.0)
            appended = origin.head
    follower.follow(origin.head, origin.floor, origin.entries_after(appended), 0.0)
    assert (follower.head, follower.floor) == (origin.head, origin.floor)
    wanted = {(change.path, change.kind) for change in origin.since(cursor) or ()}
    found = {(change.path, change.kind) for change in follower.since(cursor) or ()}
    kinds: dict[bytes, Kind] = {}
    for path, kind in found:
        kinds[path] = max(kind, kinds.get(path, Kind.NAME))

    def has(path: bytes, kind: Kind) -> bool:
        """Whether it has that, or what covers it: a listing of its directory, or a tree that it is in."""
        if path in kinds and kinds[path] >= kind:
            return True
        is_covered, above = False, path
        while above and not is_covered:
            is_parent = above == path
            above = above.rpartition(b"/")[0]
            cover = kinds.get(above, Kind.NAME)
            is_covered = cover is Kind.TREE or (cover is Kind.LIST and is_parent and kind is Kind.NAME)
        return is_covered

    assert all(has(path, kind) for path, kind in wanted)


def test_entries_have_the_positions_of_their_last_records() -> None:
    journal = Journal()
    for path in (b"a", b"b", b"a"):
        journal.record(Change(1, path, Kind.NAME), 0.0)
    assert [(at, change.path) for at, change in journal.entries_after(0)] == [(2, b"b"), (3, b"a")]
    assert [(at, change.path) for at, change in journal.entries_after(2)] == [(3, b"a")]
    assert journal.entries_after(3) == []


def test_journal_that_follows_one_that_has_begun_anew_forgets_all() -> None:
    journal = Journal()
    journal.follow(50, 10, [(20, Change(1, b"old", Kind.NAME))], 0.0)
    assert (journal.head, journal.floor) == (50, 10)
    journal.follow(0, 0, (), 0.0)
    assert (journal.head, journal.floor, len(journal)) == (0, 0, 0)
    journal.follow(3, 0, [(2, Change(1, b"new", Kind.NAME))], 1.0)
    assert journal.since(0) == [Change(1, b"new", Kind.NAME)]
    assert journal.oldest_since(0) == 1.0


def test_cursor_below_the_floor_of_the_other_journal_has_fallen_off() -> None:
    journal = Journal()
    journal.follow(9, 5, [(7, Change(1, b"a", Kind.NAME))], 0.0)
    assert journal.since(4) is None
    assert journal.since(5) == [Change(1, b"a", Kind.NAME)]


def test_journal_that_goes_on_gives_no_position_twice() -> None:
    journal = Journal()
    journal.go_on(100, 40)
    assert (journal.head, journal.floor, journal.start) == (100, 40, 100)
    journal.record(Change(1, b"a", Kind.NAME), 1.0)
    assert journal.since(100) == journal.since(40) == [Change(1, b"a", Kind.NAME)]
    assert journal.since(39) is None
