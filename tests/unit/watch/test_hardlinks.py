"""Files with several names: a change through one is told under all, and names are searched for once."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.watched_tree import EVENTS, TREE, WALKED, Field, gone, listing, name, overflow, write

from inosync.changes import Kind
from inosync.watch import hardlinks, inotify


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Field]:
    made = Field(tmp_path)
    yield made
    made.watcher.close()
    known = made.links
    assert known._names == {name: file for file in known._files.values() for name in file.names}
    assert all(file.names for file in known._files.values()), "what has no names could never be forgotten"


def link(field: Field, *paths: str) -> None:
    """Make one file with these names; those that begin with a slash are outside of the tree."""
    places = [field.outside / path[1:] if path[0] == "/" else field.root / path for path in paths]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
    write(places[0])
    for place in places[1:]:
        os.link(places[0], place)


def searches(field: Field) -> int:
    return field.links.searches


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


CHANGES: dict[str, Callable[[Path], object]] = {
    "write": lambda path: path.write_bytes(b"other"),
    "append": lambda path: append(path, b"more"),
    "truncate": lambda path: os.truncate(path, 1),
    "chmod": lambda path: path.chmod(0o600),
    "utime": lambda path: os.utime(path, (1, 1)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_change_through_one_name_is_recorded_under_all(
    field: Field, change: Callable[[Path], object]
) -> None:
    link(field, "one", "a/two", "a/b/three")
    field.add()
    for times in range(3):
        change(field.root / "a/two")
        field.calm()
        assert set(field.take()) == {name(b"one"), name(b"a/two"), name(b"a/b/three")}
        assert searches(field) == 1, times


def test_file_with_one_name_is_never_searched_for(field: Field) -> None:
    link(field, "one", "two")
    field.add()
    write(field.root / "new")
    (field.root / "new").chmod(0o600)
    (field.root / "one").unlink()
    write(field.root / "two")
    assert name(b"two") in field.recorded()
    assert searches(field) == 0


def test_names_made_moved_and_removed_are_known_without_a_search(
    field: Field,
) -> None:
    link(field, "one", "two")
    (field.root / "d").mkdir()
    field.add()
    write(field.root / "one")
    assert field.recorded() == {name(b"one"), name(b"two")}
    os.link(field.root / "one", field.root / "d/three")
    (field.root / "two").rename(field.root / "d/four")
    field.calm()
    field.take()
    write(field.root / "d/three")
    assert field.recorded() == {name(b"one"), name(b"d/three"), name(b"d/four")}
    (field.root / "one").unlink()
    (field.root / "d").rename(field.root / "e")
    field.settle()
    field.take()
    write(field.root / "e/four")
    assert field.recorded() == {name(b"e/three"), name(b"e/four")}
    assert searches(field) == 1


def test_unreported_names_are_searched_for(field: Field) -> None:
    link(field, "one", "two")
    field.add()
    write(field.root / "one")
    field.recorded()
    # Faster than a watch can be set.
    (field.root / "new").mkdir()
    os.link(field.root / "one", field.root / "new/three")
    field.settle()
    field.take()
    write(field.root / "two")
    assert field.recorded() == {name(b"one"), name(b"two"), name(b"new/three")}
    assert searches(field) == 2


def test_file_with_names_outside_is_searched_again_only_if_needed(
    field: Field,
) -> None:
    link(field, "one", "/outside", "two", "/there/too")
    field.add()
    for content in (b"1", b"22"):
        write(field.root / "one", content)
        assert field.recorded() == {name(b"one"), name(b"two")}
    assert searches(field) == 1
    (field.outside / "there").rename(field.root / "here")
    field.settle()
    field.take()
    write(field.root / "one", b"333")
    assert field.recorded() == {name(b"one"), name(b"two"), name(b"here/too")}
    assert searches(field) == 2
    (field.outside / "outside").rename(field.root / "in")
    field.settle()
    field.take()
    write(field.root / "one", b"4444")
    assert field.recorded() == {name(b"one"), name(b"two"), name(b"here/too"), name(b"in")}


def test_excluded_names_are_not_recorded(field: Field) -> None:
    link(field, "one", "hidden/two", "three.tmp", "four")
    field.add(lambda path, _is_directory: path.startswith(b"hidden") or path.endswith(b".tmp"))
    write(field.root / "one")
    assert field.recorded() == {name(b"one"), name(b"four")}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_change_through_an_excluded_name_is_recorded_under_the_others(
    field: Field, change: Callable[[Path], object]
) -> None:
    link(field, "one", "a/two.tmp", "a/three", "four.tmp", "hidden/five")
    write(field.root / "alone.tmp")
    field.add(lambda path, _is_directory: path.startswith(b"hidden") or path.endswith(b".tmp"))
    for _ in range(3):
        change(field.root / "a/two.tmp")
        change(field.root / "four.tmp")
        change(field.root / "alone.tmp")
        field.calm()
        assert set(field.take()) == {name(b"one"), name(b"a/three")}
    assert searches(field) <= 2, "once, and once more for an excluded name that was not known before"


def test_names_in_another_tree_are_recorded_there(field: Field, tmp_path: Path) -> None:
    link(field, "one", "/two")
    field.add()
    field.watcher.roots.add(TREE + 1, str(tmp_path / "outside"), EVENTS, lambda _path, _is_directory: False)
    field.settle()
    field.take()
    write(field.root / "one")
    assert field.recorded() == {name(b"one"), ("record", TREE + 1, b"two", Kind.NAME)}
    field.watcher.roots.remove(TREE + 1)
    write(field.root / "one", b"again")
    assert field.recorded() == {name(b"one")}


def test_overflow_forgets_all_names(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    link(field, "one", "two")
    field.add()
    write(field.root / "one")
    field.recorded()
    (field.root / "two").rename(field.root / "three")
    overflow(field, monkeypatch)
    field.calm()
    assert WALKED in field.take()
    write(field.root / "one", b"again")
    assert field.recorded() == {name(b"one"), name(b"three")}


def test_name_that_moves_while_it_is_searched_for_is_recorded(field: Field) -> None:
    for number in range(40):
        (field.root / f"{number}/deep").mkdir(parents=True)
    link(field, "0/one", "1/two", "2/box/three", "3/deep/four")
    field.add()
    dice = random.Random(1)
    for times in range(60):
        write(field.root / "0/one", b"%d" % times)
        field.clock.tick = 0.001
        for _ in range(dice.randrange(12)):
            field.watcher.read()
            field.watcher.work(0.002)
        two = next(field.root.glob("**/two"))
        two.rename(field.root / str(dice.randrange(40)) / "two")
        three = next(field.root.glob("**/three")).parent
        three.rename(field.root / f"{dice.randrange(40)}/deep/{times}")
        field.clock.tick = 0
        field.settle()
        field.clock.now += 100
        field.calm()
        recorded = set(field.take())
        for each in ("one", "two", "three", "four"):
            path = os.fsencode(next(field.root.glob(f"**/{each}")).relative_to(field.root))
            above = path.rpartition(b"/")[0]
            assert recorded & {name(path), gone(path), listing(above)}, (times, path)


def test_long_search_is_not_followed_by_another_at_once(field: Field) -> None:
    for number in range(10):
        (field.root / f"{number}").mkdir()
    link(field, "one", "1/two", "/outside")
    link(field, "2/three", "3/four")
    field.add()
    field.clock.tick = 0.05
    write(field.root / "one")
    while not searches(field):
        field.watcher.read()
        field.watcher.work(0.01)
    took = field.links._spent
    assert took > 0.5
    field.clock.tick = 0
    field.take()
    write(field.root / "2/three")
    assert field.recorded() == {name(b"2/three")}
    since = field.watcher.searching_since
    assert since == field.clock.now
    assert field.watcher.is_idle
    assert field.watcher.deadline() <= since + 10 * took
    field.later(10 * took)
    assert set(field.take()) == {name(b"3/four")}
    assert field.watcher.searching_since is None


def test_very_many_files_are_compared_instead_of_searched_for(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardlinks, "MAX_WANTED", 5)
    for number in range(8):
        link(field, f"{number}", f"a/{number}")
    field.add()
    for number in range(8):
        (field.root / f"{number}").chmod(0o600)
    recorded = field.recorded()
    assert ("record", TREE, b"", Kind.TREE) in recorded
    assert name(b"a/7") in recorded


def test_names_beyond_what_is_remembered_are_searched_for_again(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardlinks, "MAX_NAMES", 3)
    for number in range(4):
        link(field, f"{number}", f"a/{number}")
    field.add()
    for number in (0, 1, 2, 3, 0):
        (field.root / f"{number}").chmod(0o600)
        assert field.recorded() == {name(b"%d" % number), name(b"a/%d" % number)}
    assert searches(field) == 5
    assert len(field.links._names) == 2


def below(*names: str) -> Callable[[bytes, bool], bool]:
    """The rule that excludes these directories, and all files that end in .tmp."""
    return lambda path, is_directory: (
        path.split(b"/")[0].decode() in names or (path.endswith(b".tmp") and not is_directory)
    )


FOUND = {
    "moved": "echo more >>one/a; mv one/a c",
    "moved twice": "echo more >>one/a; mv one/a c; mv c two/d",
    "moved back": "echo more >>one/a; mv one/a c; mv c one/a",
    "moved to an excluded name": "echo more >>one/a; mv one/a one/a.tmp",
    "moved, and another one made": "echo more >>one/a; mv one/a c; echo >one/a",
    "moved while it is open": "exec 3>>one/a; echo more >&3; mv one/a c",
    "its directory renamed": "echo more >>one/a; mv one uno",
    "its directory renamed twice": "echo more >>one/a; mv one uno; mv uno two/eins",
    "directories renamed": "echo more >>one/a; mv one two/one; mv two dos",
}
"""A file has two names, and is changed through one of them, which is gone when that is looked at; but the
file is found under its new name."""
KNOWN = {
    "removed": "echo more >>one/a; rm one/a",
    "removed while it is open": "exec 3>>one/a; echo more >&3; rm one/a",
    "removed with its directory": "echo more >>one/a; rm -r one",
    "removed and made again": "echo more >>one/a; rm one/a; echo >one/a",
    "replaced": "echo more >>one/a; mv one/x one/a",
    "moved out of the tree": "echo more >>one/a; mv one/a ../outside",
    "moved into an excluded directory": "echo more >>one/a; mv one/a hidden",
    "moved into a new directory": "echo more >>one/a; mkdir new; mv one/a new",
    "its directory moved out of the tree": "echo more >>one/a; mv one ../outside",
    "its directory replaced": "echo more >>one/a; mv one uno; mv other one",
    "changed on the move": "mkdir new; mv one new; echo more >>new/one/a",
    "excluded and removed while it is open": "exec 3>>one/b.tmp; echo more >&3; rm one/b.tmp",
}
"""It is not, but it was known which file had that name."""


@pytest.mark.parametrize(
    ("how", "known"),
    [
        *(pytest.param(how, False, id=f"unknown, {each}") for each, how in FOUND.items()),
        *(pytest.param(how, True, id=f"known, {each}") for each, how in {**FOUND, **KNOWN}.items()),
    ],
)
@pytest.mark.parametrize("size", [32, 65536], ids=["event by event", "at once"])
def test_change_is_recorded_under_the_other_name_of_a_gone_one(
    field: Field, monkeypatch: pytest.MonkeyPatch, how: str, known: bool, size: int
) -> None:
    monkeypatch.setattr(inotify, "_READ_BYTES", size)
    link(field, "one/a", "two/b", "one/b.tmp")
    link(field, "other/a")
    link(field, "one/x")
    (field.root / "hidden").mkdir()
    field.add(below("hidden"))
    for each in ("one/a", "one/b.tmp") if known else ():
        append(field.root / each, b"more")
        field.recorded()
    subprocess.run(["sh", "-ec", how], cwd=field.root, check=True)
    while field.watcher.read():
        pass  # as the master does before it walks
    field.calm()
    assert {name(b"two/b"), listing(b"dos")} & set(field.take())
    assert not field.links._missed, "it would be looked for again and again"


def test_unclosed_file_is_recorded_though_its_directory_has_gone(field: Field) -> None:
    link(field, "one/a", "two/b")
    field.add()
    append(field.root / "one/a", b"more")
    field.recorded()
    os.truncate(field.root / "one/a", 1)
    (field.root / "one").rename(field.outside / "one")
    field.calm()
    assert name(b"two/b") in field.take()


def test_directory_on_the_move_between_two_reads_is_waited_for(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inotify, "_READ_BYTES", 32)
    link(field, "one/a", "two/b")
    field.add()
    append(field.root / "one/a", b"more")
    (field.root / "one").rename(field.root / "uno")
    while not field.watcher._handler.is_moving:
        field.watcher.read()
    with monkeypatch.context() as patch:
        patch.setattr(field.watcher._inotify, "read", lambda: b"")
        field.watcher.read()
    while field.watcher.read():
        pass
    assert name(b"two/b") in field.recorded()


def test_change_is_recorded_though_its_name_went_before_a_search_ended(field: Field) -> None:
    for number in range(10):
        (field.root / f"d/{number}").mkdir(parents=True)
    link(field, "one", "two")
    field.add()
    append(field.root / "one", b"more")
    field.clock.tick = 0.01
    while name(b"two") not in field.take():
        field.watcher.read()
        field.watcher.work(0.001)
    append(field.root / "one", b"more")
    (field.root / "one").unlink()
    assert not searches(field)
    while not searches(field):
        field.watcher.work(0.001)
    field.clock.tick = 0
    assert name(b"two") in field.recorded()


def test_name_that_another_file_has_taken_is_of_that_file(field: Field) -> None:
    link(field, "a", "b", "/outside")
    link(field, "c", "d")
    field.add()
    for each in "ac":
        append(field.root / each, b"more")
    field.recorded()
    (field.root / "a").unlink()
    os.link(field.root / "c", field.root / "a")
    field.recorded()
    append(field.root / "d", b"more")
    assert field.recorded() == {name(b"a"), name(b"c"), name(b"d")}
    append(field.root / "b", b"more")
    assert field.recorded() == {name(b"b")}
    assert searches(field) == 1


def test_other_names_are_searched_for_when_no_known_one_is_left(field: Field) -> None:
    link(field, "one", "two")
    field.add()
    append(field.root / "one", b"more")
    assert field.recorded() == {name(b"one"), name(b"two")}
    # Faster than a watch can be set.
    (field.root / "new").mkdir()
    (field.root / "two").rename(field.root / "new/three")
    field.settle()
    field.take()
    append(field.root / "one", b"more")
    (field.root / "one").unlink()
    assert name(b"new/three") in field.recorded()


def test_file_without_any_name_is_not_searched_for(field: Field) -> None:
    link(field, "one", "two")
    field.add()
    append(field.root / "one", b"more")
    field.recorded()
    append(field.root / "one", b"more")
    (field.root / "one").unlink()
    (field.root / "two").unlink()
    field.recorded()
    assert searches(field) == 1


def test_short_lived_files_are_not_looked_for_where_directories_go(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardlinks, "MAX_MISSED", 5)
    (field.root / "d").mkdir()
    field.add()
    for number in range(20):
        write(field.root / f"{number}")
        (field.root / f"{number}").unlink()
        write(field.root / f"d/{number}")
    (field.root / "d").rename(field.root / "e")
    field.watcher.read()
    assert len(field.links._missed) <= 5
    field.settle()
    assert not field.links._missed


@pytest.mark.parametrize("is_linked", [True, False], ids=["a name of another file", "a file of its own"])
def test_name_made_changed_and_removed_before_a_look_is_not_searched_for(
    field: Field, monkeypatch: pytest.MonkeyPatch, is_linked: bool
) -> None:
    # A limit that the manual tells of. The kernel reports both alike; a search for each short-lived file, by
    # nothing but its time, would never end.
    write(field.root / "one")
    field.add()
    if is_linked:
        os.link(field.root / "one", field.root / "two")
    append(field.root / "two", b"more")
    (field.root / "two").unlink()
    data = field.watcher._inotify.read()
    masks = [event.mask for event in inotify.decode(data)]
    assert masks == [inotify.IN_CREATE, inotify.IN_MODIFY, inotify.IN_CLOSE_WRITE, inotify.IN_DELETE]
    with monkeypatch.context() as patch:
        patch.setattr(field.watcher._inotify, "read", lambda: data)
        field.watcher.read()
    field.calm()
    assert {path for _, _, path, _ in field.take()} == {b"two"}
    assert searches(field) == 0
    assert not field.links._missed


def test_name_entering_with_a_new_directory_is_searched_for(
    field: Field,
) -> None:
    link(field, "one", "stage/two")
    field.add(below("stage"))
    write(field.root / "one")
    assert field.recorded() == {name(b"one")}
    # Faster than a watch can be set.
    (field.root / "new").mkdir()
    (field.root / "stage/two").rename(field.root / "new/two")
    field.settle()
    field.take()
    write(field.root / "one", b"again")
    assert field.recorded() == {name(b"one"), name(b"new/two")}


def test_endless_new_directories_do_not_cause_endless_searches(field: Field) -> None:
    link(field, "one", "/outside")
    for number in range(30):
        (field.root / f"{number}").mkdir()
    field.add()
    field.clock.tick = 0.001
    began = field.clock.now
    spent: list[float] = []
    for number in range(300):
        (field.root / f"{number % 30}/{number}").mkdir()
        write(field.root / "one", b"%d" % number)
        before = searches(field)
        field.watcher.read()
        field.watcher.work(0.1)
        if searches(field) > before:
            spent.append(field.links._spent)
        field.clock.now += 0.05
    assert len(spent) > 1
    assert sum(spent[:-1]) <= (field.clock.now - began) / hardlinks.TIME_SHARE
    field.clock.tick = 0
    field.calm()
    field.later(hardlinks.TIME_SHARE * max(spent) + 1)
    done = searches(field)
    write(field.root / "one", b"the last one")
    field.calm()
    assert searches(field) == done
