"""The books about a batch, as far as no transfer is needed for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.wait import until

from inosync.changes import Lane, OwedNames, Part, Rename, Step
from inosync.filters.rules import Rules
from inosync.nodes.messages import Batch
from inosync.rsync.argv import TransferSettings
from inosync.rsync.exit_codes import ExitKind
from inosync.rsync.outcome import Outcome
from inosync.system import spool
from inosync.worker import frozen, switches
from inosync.worker.batch_run import BatchRun
from inosync.worker.lanes import Lanes, UnderWay
from inosync.worker.order import only_removes


@pytest.mark.parametrize("is_hopeless", [False, True])
def test_names_put_aside_are_not_found_again_by_tidying_relists(tmp_path: Path, is_hopeless: bool) -> None:
    for name in ("big", "small"):
        (tmp_path / name).write_text(name)
    owed = OwedNames(hopeless=(b"big",) if is_hopeless else ())
    part = Part(1, False, (b"big", b"small"))
    payload, _ = spool.pack((replace(part, owed=owed),), str(tmp_path / "spool"))
    task = BatchRun(Batch(1, 2, False, payload, tidy_since=0.0), 0.0)
    settings = TransferSettings("rsync", str(tmp_path), "h:")
    assert task.has_something(settings, Rules(()))
    tidying = Part(1, False, (b"./",), step=Step.REMOVED)
    assert task.current.send == [b"big", b"small"]
    assert [replace(each, owed=OwedNames()) for each in task.parts] == [part, tidying]
    rest, aside = Part(1, False, (b"small",)), Part(1, False, (b"big",))
    task.failed(Outcome(ExitKind.RETRY, "no room", due=(aside,), instead=(rest,)), 11, True)
    assert task.has_something(settings, Rules(()))
    assert task.current.send == [b"small"]
    assert task.results.due == [aside]
    task.came_through(Outcome(), 0)
    # It sends nothing, so it may be about all names. It may make the room that is lacking.
    assert task.has_something(settings, Rules(())) == is_hopeless
    assert names_in(task.results.behind) == ([] if is_hopeless else [b"./"])
    if is_hopeless:
        assert (task.current.send, only_removes(task.part)) == ([b"./"], True)
        task.came_through(Outcome(), 0)
    else:
        task.skip_part()
    # It is told with the end of the batch.
    assert (task.parts, task.results.due, task.results.code, task.results.worry) == (
        [],
        [aside],
        11,
        "no room",
    )


def test_outdated_name_that_is_gone_waits_for_its_removal(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    payload, _ = spool.pack((Part(1, False, (b"gone", b"there"), ignore_times=True),), "")
    run = BatchRun(Batch(1, 2, False, payload), 0.0)
    settings = TransferSettings("rsync", str(tmp_path), "h:")
    assert run.has_something(settings, Rules(()))
    assert run.current.send == [b"there"]
    assert run.results.leftovers().waiting == (
        Part(1, False, (b"gone",), ignore_times=True, step=Step.REMOVED),
    )


# Two lanes -----------------------------------------------------------------------------------------------


def run_of(tmp_path: Path, lane: Lane, *names: bytes, full: bool = False) -> BatchRun:
    """A batch for a tree with the big files big, d/big and the small ones small, d/small."""
    (tmp_path / "tree/d").mkdir(parents=True)
    for path, size in (("big", 11), ("small", 3), ("d/big", 11), ("d/small", 3), ("middle", 8)):
        (tmp_path / "tree" / path).write_bytes(b"x" * size)
    payload, _ = spool.pack((Part(1, full, names),), "")
    return BatchRun(Batch(1, len(names), full, payload, lane=lane), 0.0)


def look(run: BatchRun, tmp_path: Path, other: UnderWay | None = None) -> bool:
    settings = TransferSettings("rsync", str(tmp_path / "tree"), "h:")
    return run.has_something(settings, Rules(()), 10, other)


def under_way(lane: Lane, *names: bytes) -> UnderWay:
    lanes = Lanes()
    lanes.begin(lane, Part(1, not names, names), names)
    other = lanes.other(Lane.SECOND if lane is Lane.FIRST else Lane.FIRST, 1)
    assert other is not None
    return other


def names_in(parts: list[Part]) -> list[bytes]:
    return [name for part in parts for name in part.names]


def test_first_lane_leaves_big_files_to_the_second(tmp_path: Path) -> None:
    run = run_of(tmp_path, Lane.FIRST, b"small", b"big", b"d/")
    assert look(run, tmp_path)
    assert (run.current.send, names_in(run.results.big)) == ([b"small", b"d", b"d/small"], [b"big", b"d/big"])
    assert run.part.names == (b"small", b"d", b"d/small"), "what has not arrived is not reported as arrived"
    run.came_through(Outcome(), 0)
    assert names_in(run.results.arrived) == [b"small", b"d", b"d/small"]
    # The relist is there for what is gone, and does not find the big file again.
    assert look(run, tmp_path)
    assert (run.current.send, names_in(run.results.big)) == ([b"d/"], [b"big", b"d/big"])


def test_names_beside_those_that_are_sent_again_have_arrived(tmp_path: Path) -> None:
    run = run_of(tmp_path, Lane.FIRST, b"small", b"d/", b"failed", b"again")
    due, instead = Part(1, False, (b"failed",)), Part(1, False, (b"again",))
    run.came_through(Outcome(reason="no", due=(due,), instead=(instead,)), 23)
    assert (names_in(run.results.arrived), run.parts) == ([b"small", b"d/"], [instead])
    run.came_through(Outcome(), 0)
    assert names_in(run.results.arrived) == [b"small", b"d/", b"again"]


def test_names_of_a_batch_that_becomes_a_full_mirror_arrive_with_it(tmp_path: Path) -> None:
    run = run_of(tmp_path, Lane.FIRST, b"small")
    run.came_through(Outcome(instead=(Part(1, True),)), 3)
    assert run.results.arrived == []
    run.came_through(Outcome(), 0)
    assert run.results.arrived == [Part(1, True)]


def test_batch_of_big_files_only_is_nothing_for_the_first_lane(tmp_path: Path) -> None:
    run = run_of(tmp_path, Lane.FIRST, b"big")
    assert not look(run, tmp_path)
    assert names_in(run.results.big) == [b"big"]


def test_second_lane_sends_big_files_only(tmp_path: Path) -> None:
    run = run_of(tmp_path, Lane.SECOND, b"small", b"big", b"gone", b"d", b"middle")
    assert look(run, tmp_path)
    assert (run.current.send, run.current.missing) == ([b"big", b"middle"], set())
    assert names_in(run.results.later) == [b"small", b"gone", b"d"]
    assert run.part.names == (b"big", b"middle")


def test_first_lane_leaves_what_is_under_way_for_later(tmp_path: Path) -> None:
    run = run_of(tmp_path, Lane.FIRST, b"d/small", b"d/", b"small", b"gone")
    assert look(run, tmp_path, under_way(Lane.SECOND, b"d/big", b"small", b"gone"))
    assert (run.current.send, run.current.missing) == ([b"d/small", b"d"], set())
    assert names_in(run.results.later) == [b"d/", b"small", b"gone"]


def test_full_mirror_waits_for_a_big_file_of_its_tree(tmp_path: Path) -> None:
    run = run_of(tmp_path, Lane.FIRST, full=True)
    assert not look(run, tmp_path, under_way(Lane.SECOND, b"big"))
    assert run.results.later == [Part(1, True)]


def test_second_lane_waits_for_a_full_mirror_of_its_tree(tmp_path: Path) -> None:
    run = run_of(tmp_path, Lane.SECOND, b"big")
    assert not look(run, tmp_path, under_way(Lane.FIRST))
    assert names_in(run.results.later) == [b"big"]


def test_second_lane_leaves_relists_and_full_mirrors_to_the_first(tmp_path: Path) -> None:
    run = run_of(tmp_path, Lane.SECOND, b"big")
    assert look(run, tmp_path)
    run.came_through(Outcome(instead=(Part(1, True),)), 3)
    assert (run.parts, run.results.later) == ([], [Part(1, True)])


def test_second_lane_gives_up_what_is_left(tmp_path: Path) -> None:
    run = run_of(tmp_path, Lane.SECOND, b"big", b"d/big")
    assert look(run, tmp_path)
    run.give_up(12, "broken")
    assert (run.parts, names_in(run.results.due), run.results.code, run.results.worry) == (
        [],
        [b"big", b"d/big"],
        12,
        "broken",
    )


def test_directories_of_big_files_are_looked_at_again(tmp_path: Path) -> None:
    run = run_of(tmp_path, Lane.SECOND, b"big", b"d/big")
    assert look(run, tmp_path)
    run.look_at_directories()
    assert run.results.later == [Part(1, False, (b"d",))]


# What is owed --------------------------------------------------------------------------------------------


def published(tmp_path: Path, *parts: Part) -> tuple[BatchRun, Callable[[], bool]]:
    """A batch for a tree in which links lead to release 2 and to a page; and what looks at its first part."""
    (tmp_path / "releases/2").mkdir(parents=True)
    (tmp_path / "d").mkdir()
    for name in ("releases/2/f", "asset", "page"):
        (tmp_path / name).touch()
    (tmp_path / "current").symlink_to("releases/2")
    (tmp_path / "elsewhere").symlink_to("page")
    payload, _ = spool.pack(parts, str(tmp_path / "spool"))
    run = BatchRun(Batch(1, 6, False, payload), 0.0)
    settings = TransferSettings("rsync", str(tmp_path), "h:")
    return run, lambda: run.has_something(settings, Rules(()))


SWITCHED = Part(1, False, (b"current", b"elsewhere"), step=Step.SWITCHED)
REMOVED = Part(1, False, (b"releases/1", b"d/old"), step=Step.REMOVED)


def test_links_and_removals_wait_for_what_has_failed(tmp_path: Path) -> None:
    fresh = Part(1, False, (b"releases/2/", b"asset"), step=Step.NEW)
    run, look = published(tmp_path, fresh, SWITCHED, REMOVED)
    assert look()
    failed = Part(1, False, (b"releases/2/f",), step=Step.NEW)
    run.came_through(Outcome(reason="no room", due=(failed,)), 23)
    assert look()
    assert run.current.send == [b"elsewhere"]
    assert run.results.due == [failed]
    run.came_through(Outcome(), 0)
    assert not look()
    assert names_in(run.results.behind) == [b"current", b"releases/1", b"d/old"]
    assert (run.results.worry, run.results.leftovers().behind) == ("no room", tuple(run.results.behind))


@pytest.mark.parametrize(
    ("owed", "sent", "held"),
    [
        (OwedNames(failed=(b"releases/2/f",)), [b"elsewhere"], [b"current", b"releases/1", b"d/old"]),
        (OwedNames(big=(b"releases/2/f",)), [b"elsewhere"], [b"current", b"releases/1", b"d/old"]),
        (OwedNames(hopeless=(b"releases/2/f",)), [b"elsewhere", b"releases/1", b"d/old"], [b"current"]),
        (OwedNames(failed=(b"d/f",)), [b"current", b"elsewhere"], [b"releases/1", b"d/old"]),
        (OwedNames(big=(b"d/f",)), [b"current", b"elsewhere", b"releases/1"], [b"d/old"]),
        (OwedNames(failed=(b"elsewhere",)), [b"current", b"elsewhere", b"releases/1", b"d/old"], []),
    ],
)
def test_links_and_removals_wait_for_earlier_batches(
    tmp_path: Path, owed: OwedNames, sent: list[bytes], held: list[bytes]
) -> None:
    run, look = published(tmp_path, replace(SWITCHED, owed=owed), REMOVED)
    found = []
    while run.parts:
        if look():
            found += run.current.send
            run.came_through(Outcome(), 0)
        else:
            run.skip_part()
    assert (found, names_in(run.results.behind)) == (sent, held)
    assert {part.step for part in run.results.behind} <= {Step.REMOVED}, (
        "it may be gone when it is looked at again"
    )


def test_new_link_waits_for_a_big_file_of_its_own_batch(tmp_path: Path) -> None:
    run = run_of(tmp_path, Lane.FIRST, b"d/", b"new")
    (tmp_path / "tree/new").symlink_to("d")
    assert look(run, tmp_path)
    assert (run.current.send, names_in(run.results.big)) == ([b"d", b"d/small"], [b"d/big"])
    run.came_through(Outcome(), 0)
    assert not look(run, tmp_path)
    assert names_in(run.results.behind) == [b"new"]


def test_rename_to_what_waits_is_not_followed(tmp_path: Path) -> None:
    renames = (Rename(b"site.new", b"page", True), Rename(b"x", b"elsewhere", False))
    part = Part(1, False, (b"page", b"elsewhere"), step=Step.SWITCHED)
    run, look = published(tmp_path, replace(part, renames=renames, owed=OwedNames(failed=(b"d/f",))))
    assert look()
    assert (run.current.send, names_in(run.results.behind)) == ([b"elsewhere"], [b"page"])
    assert run.take_renames() == renames[1:]


def published_at(tmp_path: Path, complete_at: int, *parts: Part) -> tuple[BatchRun, Callable[[], bool]]:
    """The same, with all changes up to a time, in nanoseconds since the epoch; the tree may be there."""
    if not (tmp_path / "current").is_symlink():
        published(tmp_path)
    payload, _ = spool.pack(parts, str(tmp_path / "spool"))
    run = BatchRun(Batch(1, 6, False, payload, complete_at=complete_at), 0.0)
    settings = TransferSettings("rsync", str(tmp_path), "h:")
    return run, lambda: run.has_something(settings, Rules(()))


def last_change(tree: Path) -> int:
    return max(map(changed_at, (tree, *tree.rglob("*"))))


def changed_at(path: Path) -> int:
    return path.lstat().st_ctime_ns


def test_link_that_was_switched_again_waits_even_if_it_goes_alone(tmp_path: Path) -> None:
    link = replace(SWITCHED, names=(b"current",))
    published(tmp_path)
    at = changed_at(tmp_path / "current")
    run, look = published_at(tmp_path, at, link)
    assert look(), "seen within the tick in which it was made"
    run, look = published_at(tmp_path, at - 1, link)
    assert (look(), names_in(run.results.waiting), names_in(run.parts)) == (False, [b"current"], [])


def test_link_that_is_switched_while_it_is_copied_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, copies = tmp_path / "tree", tmp_path / "copies"
    tree.mkdir()
    published(tree)
    at = time.time_ns() + 1

    def switch_and_copy(*args: Any) -> frozen.Frozen:
        until(lambda: time.time_ns() > at + 10_000_000, 10, "another time of the file system")
        (tree / "fresh").symlink_to("page")
        (tree / "fresh").rename(tree / "current")
        return frozen.Frozen(*args)

    monkeypatch.setattr(switches, "Frozen", switch_and_copy)
    fresh = Part(1, False, (b"page",), step=Step.NEW)
    payload, _ = spool.pack((fresh, replace(SWITCHED, names=(b"current",))), "")
    run = BatchRun(Batch(1, 2, False, payload, complete_at=at), 0.0, str(copies))
    assert run.has_something(TransferSettings("rsync", str(tree), "h:"), Rules(()))
    assert names_in(run.results.waiting) == [b"current"]
    run.end()


@pytest.mark.parametrize("is_alone", [True, False])
def test_link_that_is_switched_while_rsync_connects_waits(tmp_path: Path, is_alone: bool) -> None:
    published(tmp_path)
    parts = [replace(SWITCHED, names=(b"current", b"page"))]
    if not is_alone:
        parts += [Part(1, False, (b"d/old",), step=Step.REMOVED)]
    run, look = published_at(tmp_path, last_change(tmp_path) + 1, *parts)
    assert look()
    run.leave_newer(str(tmp_path))
    assert set(run.names) == {b"current", b"page"}
    switch_again(tmp_path, run)
    run.leave_newer(str(tmp_path))
    assert (run.names, names_in(run.results.waiting)) == ([b"page"], [b"current"])
    if not is_alone:
        run.came_through(Outcome(), 0)
        assert not look(), "the link on the node may lead to what is to be removed"
        assert names_in(run.results.waiting) == [b"current", b"d/old"]


def switch_again(tree: Path, run: BatchRun) -> None:
    """Switch the link after the changes of a batch."""

    def has_switched() -> bool:
        (tree / "fresh").symlink_to("page")
        (tree / "fresh").rename(tree / "current")
        return changed_at(tree / "current") > run.batch.complete_at

    until(has_switched, 10, "a time of the file system after the batch")


def test_relist_of_a_directory_that_changes_while_rsync_connects_waits(tmp_path: Path) -> None:
    relist = Part(1, False, (b"./", b"d/old"), step=Step.REMOVED)
    published(tmp_path)
    run, look = published_at(tmp_path, last_change(tmp_path) + 1, relist, Part(1, False, (b"page",)))
    assert look()
    run.came_through(Outcome(), 0)
    assert look()
    switch_again(tmp_path, run)
    run.leave_newer(str(tmp_path))
    assert (run.names, names_in(run.results.waiting)) == ([b"d/old"], [b"./"])


@pytest.mark.parametrize("when", ["before", "while rsync connects"])
def test_relist_of_a_directory_that_is_gone_since_waits(tmp_path: Path, when: str) -> None:
    published(tmp_path)
    (tmp_path / "releases/0").mkdir()
    relist = Part(1, False, (b"releases/0/", b"d/old"), step=Step.REMOVED)
    run, look = published_at(tmp_path, last_change(tmp_path) + 1, relist, Part(1, False, (b"page",)))
    assert look()
    run.came_through(Outcome(), 0)
    if when == "before":
        (tmp_path / "releases/0").rmdir()
        assert look()
    else:
        assert look()
        (tmp_path / "releases/0").rmdir()
        run.leave_newer(str(tmp_path))
    assert (run.names, names_in(run.results.waiting)) == ([b"d/old"], [b"releases/0/"])


def test_content_that_is_compared_is_newer_than_the_batch_and_waits(tmp_path: Path) -> None:
    part = Part(1, False, (b"current", b"page"), ignore_times=True)
    published(tmp_path)
    run, look = published_at(tmp_path, last_change(tmp_path) + 1, part)
    assert look()
    switch_again(tmp_path, run)
    run.leave_newer(str(tmp_path))
    left = [replace(part, names=(b"current",))]
    assert (run.names, run.results.outdated) == ([b"page"], left)
    run, look = published_at(tmp_path, changed_at(tmp_path / "current"), part)
    assert look()
    run.leave_newer(str(tmp_path))
    assert run.results.outdated == left, "it may have changed later within the tick of the clock"


def test_second_look_leaves_out_what_is_newer_than_the_batch(tmp_path: Path) -> None:
    published(tmp_path)
    again = Part(1, False, (b"./",), again=frozenset({b"./"}))
    run, look = published_at(tmp_path, last_change(tmp_path) + 1, again)
    until(lambda: write_again(tmp_path / "page") > run.batch.complete_at, 10, "a later time")
    assert look()
    assert b"page" not in [*run.names, *(name for part in run.parts for name in part.names)]
    left = Part(1, False, (b"page",), step=Step.SWITCHED, again=frozenset({b"page"}))
    assert run.results.outdated == [left], "it is not known to be a change to come"
    run, look = published_at(tmp_path, last_change(tmp_path) + 1, again)
    assert look()
    assert b"page" in run.names
    until(lambda: write_again(tmp_path / "page") > run.batch.complete_at, 10, "a later time")
    run.leave_newer(str(tmp_path))
    assert b"page" not in run.names


def test_second_look_at_what_is_gone_waits_for_the_change_to_come(tmp_path: Path) -> None:
    published(tmp_path)
    names = (b"gone", b"page")
    again = Part(1, False, names, step=Step.SWITCHED, again=frozenset(names))
    run, look = published_at(tmp_path, last_change(tmp_path) + 1, again)
    assert look()
    assert (names_in(run.results.waiting), run.results.outdated) == ([b"gone"], [])
    assert run.names == [b"page"]


@pytest.mark.parametrize("step", [Step.NEW, Step.CHANGED, Step.UNKNOWN])
def test_name_that_goes_while_rsync_connects_waits(tmp_path: Path, step: Step) -> None:
    published(tmp_path)
    (tmp_path / "other").write_text("x")
    run, look = published_at(
        tmp_path, last_change(tmp_path) + 1, Part(1, False, (b"page", b"other"), step=step)
    )
    assert look()
    (tmp_path / "page").unlink()
    run.leave_newer(str(tmp_path))
    assert (names_in(run.results.waiting), run.names) == ([b"page"], [b"other"])


def test_what_may_be_new_stays_so_while_it_waits(tmp_path: Path) -> None:
    published(tmp_path)
    unseen = Part(1, False, (b"page", b"current", b"gone"), step=Step.UNKNOWN)
    run, look = published_at(tmp_path, changed_at(tmp_path / "page"), unseen)
    assert not look()
    found = {part.step: set(part.names) for part in run.results.waiting if part.names != (b"gone",)}
    assert found == {Step.UNKNOWN: {b"page"}, Step.REMOVED: {b"current"}}
    run, look = published_at(tmp_path, last_change(tmp_path) + 1, unseen)
    assert look()
    steps = [(part.step, set(part.names)) for part in run.parts]
    assert steps == [(Step.UNKNOWN, {b"page"}), (Step.SWITCHED, {b"page", b"current"})]
    run.answered({b"current": True}, True, str(tmp_path), 0)
    assert (run.results.arrived, look()) == ([], True)
    until(lambda: write_again(tmp_path / "page") > run.batch.complete_at, 10, "a later time")
    run.leave_newer(str(tmp_path))
    assert run.names == [b"current"]
    assert [part.step for part in run.results.waiting if part.names == (b"page",)] == [Step.UNKNOWN]


def test_what_the_node_lacks_is_sent_before_it_is_switched_to_anything(tmp_path: Path) -> None:
    published(tmp_path)
    (tmp_path / "asset").write_text("x")
    unseen = Part(1, False, (b"page", b"current", b"asset"), step=Step.UNKNOWN)
    run, look = published_at(tmp_path, last_change(tmp_path) + 1, unseen)
    assert look()
    run.answered({b"asset": False, b"elsewhere": False}, True, str(tmp_path), 0)
    steps = [(part.step, set(part.names)) for part in run.parts]
    assert steps == [(Step.NEW, {b"asset"}), (Step.SWITCHED, {b"page", b"current"})]


@pytest.mark.parametrize(
    ("lacking", "is_all", "expected"),
    [
        pytest.param({}, True, [], id="nothing"),
        pytest.param({b"asset": False, b"l": True}, True, [(False, (b"asset",))], id="little"),
        pytest.param({b"asset": False}, False, [(True, ())], id="not known"),
        pytest.param({b"asset": False, b"": False}, True, [(True, ())], id="its root"),
        pytest.param({b"asset": False, b"big": False}, True, [(True, ())], id="a big file"),
        pytest.param(
            {b"asset": False, b"big": False, b"l": True}, True, [(True, ())], id="everything, one big"
        ),
        pytest.param({b"l": True}, True, [], id="a link"),
    ],
)
def test_full_mirror_sends_first_what_the_node_lacks(
    tmp_path: Path, lacking: dict[bytes, bool], is_all: bool, expected: list[tuple[bool, tuple[bytes, ...]]]
) -> None:
    (tmp_path / "asset").write_text("x")
    (tmp_path / "big").write_text("x" * 200)
    (tmp_path / "l").symlink_to("asset")
    run, look = published_at(tmp_path, 0, Part(1, True))
    assert look()
    run.answered(lacking, is_all, str(tmp_path), 100)
    parts = [(part.full, part.names) for part in run.parts if part.step is Step.NEW]
    assert (parts, run.parts[-1]) == (expected, Part(1, True, step=Step.REMOVED))
    assert look()


def test_full_mirror_of_an_empty_node_is_one_run_after_the_question(tmp_path: Path) -> None:
    run, look = published_at(tmp_path, 0, Part(1, True))
    assert look()
    everything = {path.name.encode(): path.is_symlink() for path in tmp_path.iterdir()}
    run.answered(everything, True, str(tmp_path), 10_000)
    assert run.parts == [Part(1, True, step=Step.REMOVED)]


def write_again(path: Path) -> int:
    path.write_text("again")
    return changed_at(path)


def test_removals_wait_for_a_link_that_waits_for_a_big_file(tmp_path: Path) -> None:
    relist = Part(1, False, (b"releases/", b"d/old"), step=Step.REMOVED)
    owed = OwedNames(big=(b"releases/2/f",))
    run, look = published(tmp_path, replace(SWITCHED, owed=owed), relist)
    assert look()
    run.came_through(Outcome(), 0)
    assert not look()
    assert names_in(run.results.behind) == [b"current", b"releases/", b"d/old"]


def test_removals_go_beside_a_link_that_waits_for_something_hopeless(tmp_path: Path) -> None:
    owed = OwedNames(hopeless=(b"releases/2/f",))
    relist = Part(1, False, (b"releases/",), step=Step.REMOVED)
    run, look = published(tmp_path, replace(SWITCHED, owed=owed), relist)
    assert look()
    run.came_through(Outcome(), 0)
    assert look()
    assert (run.current.send, names_in(run.results.behind)) == ([b"releases/"], [b"current"])


def test_relist_of_a_directory_that_has_changed_since_waits(tmp_path: Path) -> None:
    relist = Part(1, False, (b"d/", b"d/old"), step=Step.REMOVED)
    published(tmp_path)
    at = changed_at(tmp_path / "d")
    run, look = published_at(tmp_path, at + 1, relist)
    assert look()
    assert (sorted(run.current.send), run.results.waiting) == ([b"d/", b"d/old"], [])
    run, look = published_at(tmp_path, at, relist)
    assert look(), "something may have gone later within the tick of the clock"
    assert (run.current.send, names_in(run.results.waiting)) == ([b"d/old"], [b"d/"])


def test_link_that_is_switched_again_after_it_was_copied_waits_as_the_copy(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    owed = OwedNames(big=(b"releases/2/f",))
    fresh = Part(1, False, (b"asset",), step=Step.NEW, owed=owed)
    published(tmp_path / "tree")
    payload, _ = spool.pack((fresh, replace(SWITCHED, names=(b"current",))), "")
    run = BatchRun(Batch(1, 2, False, payload), 0.0, str(tmp_path / "copies"))
    settings = TransferSettings("rsync", str(tmp_path / "tree"), "h:")
    assert run.has_something(settings, Rules(()))
    link = tmp_path / "tree/current"
    link.unlink()
    link.symlink_to("page")
    run.came_through(Outcome(), 0)
    assert not run.has_something(settings, Rules(()))
    assert names_in(run.results.behind) == [b"current"]
    run.end()


def test_relist_for_what_was_refused_waits_for_nothing(tmp_path: Path) -> None:
    refused = replace(SWITCHED, owed=OwedNames(failed=(b"other",)))
    run, look = published(tmp_path, refused)
    assert look()
    mending = replace(run.part, names=(b"./",), make_way=(b"page",), step=Step.REMOVED)
    run.came_through(
        Outcome(reason="no", instead=(mending, replace(mending, names=(b"d/", b"page"), make_way=()))), 23
    )
    for names in ([b"./"], [b"d/"]):
        assert look()
        assert [name for name in run.names if name.endswith(b"/")] == names
        run.came_through(Outcome(), 0)
