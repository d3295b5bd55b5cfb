"""What waits for a later batch: links, replacements and removals that must not arrive yet."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.wait import until
from unit.worker.batches import (
    REMOVED,
    SWITCHED,
    changed_at,
    last_change,
    look,
    names_in,
    published,
    published_at,
    run_of,
    switch_again,
)

from inosync.changes import Lane, OwedNames, Part, Rename, Step
from inosync.filters.rules import Rules
from inosync.nodes.messages import Batch
from inosync.rsync.argv import TransferSettings
from inosync.rsync.outcome import Outcome
from inosync.system import spool
from inosync.worker import frozen, switches
from inosync.worker.batch_run import BatchRun


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
    assert run.prepare_part(TransferSettings("rsync", str(tree), "h:"), Rules(()))
    assert names_in(run.results.waiting) == [b"current"]
    run.remove_copies()


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


def test_name_below_what_is_no_directory_does_not_wait_for_ever(tmp_path: Path) -> None:
    published(tmp_path)
    part = Part(1, False, (b"asset", b"page/f", b"elsewhere/f"), ignore_times=True)
    run, look = published_at(tmp_path, last_change(tmp_path) + 1, part)
    assert look()
    run.leave_newer(str(tmp_path))
    assert run.results.outdated == []
    assert sorted(run.names) == [b"asset", b"page"], "the link has its own turn"


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
    assert run.prepare_part(settings, Rules(()))
    link = tmp_path / "tree/current"
    link.unlink()
    link.symlink_to("page")
    run.came_through(Outcome(), 0)
    assert not run.prepare_part(settings, Rules(()))
    assert names_in(run.results.behind) == [b"current"]
    run.remove_copies()


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
