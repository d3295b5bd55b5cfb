"""What is sent of the first part, in two lanes, and at a second look."""

from __future__ import annotations

from pathlib import Path

from support.wait import until
from unit.worker.batches import (
    changed_at,
    last_change,
    look,
    names_in,
    published,
    published_at,
    run_of,
    under_way,
    write_again,
)

from inosync.changes import Lane, Part, Step
from inosync.filters.rules import Rules
from inosync.nodes.messages import Batch
from inosync.rsync.argv import TransferSettings
from inosync.rsync.outcome import Outcome
from inosync.system import spool
from inosync.worker.batch_run import BatchRun


def test_outdated_name_that_is_gone_waits_for_its_removal(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    payload, _ = spool.pack((Part(1, False, (b"gone", b"there"), ignore_times=True),), "")
    run = BatchRun(Batch(1, 2, False, payload), 0.0)
    settings = TransferSettings("rsync", str(tmp_path), "h:")
    assert run.prepare_part(settings, Rules(()))
    assert run.current.send == [b"there"]
    assert run.results.leftovers().waiting == (
        Part(1, False, (b"gone",), ignore_times=True, step=Step.REMOVED),
    )


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


def test_second_lane_waits_for_a_full_mirror_of_its_tree(tmp_path: Path) -> None:
    run = run_of(tmp_path, Lane.SECOND, b"big")
    assert not look(run, tmp_path, under_way(Lane.FIRST))
    assert names_in(run.results.later) == [b"big"]


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
    run.take_answer({b"current": True}, True, str(tmp_path), 0)
    assert (run.results.arrived, look()) == ([], True)
    until(lambda: write_again(tmp_path / "page") > run.batch.complete_at, 10, "a later time")
    run.leave_newer(str(tmp_path))
    assert run.names == [b"current"]
    assert [part.step for part in run.results.waiting if part.names == (b"page",)] == [Step.UNKNOWN]
