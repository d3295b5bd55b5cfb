"""What follows for a batch from the end of its transfers, as far as no transfer is needed for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from unit.worker.batches import (
    last_change,
    look,
    names_in,
    published,
    published_at,
    run_of,
    under_way,
)

from inosync.changes import Lane, OwedNames, Part, Step
from inosync.filters.rules import Rules
from inosync.nodes.messages import Batch
from inosync.rsync.argv import TransferSettings
from inosync.rsync.exit_codes import ExitKind
from inosync.rsync.outcome import Outcome
from inosync.system import spool
from inosync.worker.batch_run import BatchRun
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
    assert task.prepare_part(settings, Rules(()))
    tidying = Part(1, False, (b"./",), step=Step.REMOVED)
    assert task.current.send == [b"big", b"small"]
    assert [replace(each, owed=OwedNames()) for each in task.parts] == [part, tidying]
    rest, aside = Part(1, False, (b"small",)), Part(1, False, (b"big",))
    task.failed(Outcome(ExitKind.RETRY, "no room", due=(aside,), instead=(rest,)), 11, True)
    assert task.prepare_part(settings, Rules(()))
    assert task.current.send == [b"small"]
    assert task.results.due == [aside]
    task.came_through(Outcome(), 0)
    # It sends nothing, so it may be about all names. It may make the room that is lacking.
    assert task.prepare_part(settings, Rules(())) == is_hopeless
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


def test_full_mirror_waits_for_a_big_file_of_its_tree(tmp_path: Path) -> None:
    run = run_of(tmp_path, Lane.FIRST, full=True)
    assert not look(run, tmp_path, under_way(Lane.SECOND, b"big"))
    assert run.results.later == [Part(1, True)]


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


def test_what_the_node_lacks_is_sent_before_it_is_switched_to_anything(tmp_path: Path) -> None:
    published(tmp_path)
    (tmp_path / "asset").write_text("x")
    unseen = Part(1, False, (b"page", b"current", b"asset"), step=Step.UNKNOWN)
    run, look = published_at(tmp_path, last_change(tmp_path) + 1, unseen)
    assert look()
    run.take_answer({b"asset": False, b"elsewhere": False}, True, str(tmp_path), 0)
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
    run.take_answer(lacking, is_all, str(tmp_path), 100)
    parts = [(part.full, part.names) for part in run.parts if part.step is Step.NEW]
    assert (parts, run.parts[-1]) == (expected, Part(1, True, step=Step.REMOVED))
    assert look()


def test_full_mirror_of_an_empty_node_is_one_run_after_the_question(tmp_path: Path) -> None:
    run, look = published_at(tmp_path, 0, Part(1, True))
    assert look()
    everything = {path.name.encode(): path.is_symlink() for path in tmp_path.iterdir()}
    run.take_answer(everything, True, str(tmp_path), 10_000)
    assert run.parts == [Part(1, True, step=Step.REMOVED)]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (Part(1, False, (b"current", b"gone", b"page"), step=Step.SWITCHED), (b"page",)),
        (Part(1, False, (b"page",)), ()),
        (Part(1, False, (b"asset", b"page"), step=Step.SWITCHED, again=frozenset({b"page"})), (b"asset",)),
        (Part(1, False, (b"page",), step=Step.SWITCHED, ignore_times=True), ()),
        (Part(1, True), ()),
    ],
)
def test_files_that_were_moved_over_something_are_known(
    tmp_path: Path, part: Part, expected: tuple[bytes, ...]
) -> None:
    run, look = published(tmp_path, part)
    assert look()
    assert run.replacing == expected
