"""Which runs follow renames before a part is sent, and what their ends lead to. No rsync is started."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inosync.changes import WORTHWHILE_BYTES, Part, Rename, Step
from inosync.filters.rule import from_filter
from inosync.filters.rules import Rules
from inosync.nodes.messages import Batch
from inosync.rsync.argv import EVERYTHING, RenameWay, TransferSettings, names_input
from inosync.rsync.outcome import Outcome
from inosync.system import spool
from inosync.worker import rename_plan
from inosync.worker.batch_run import BatchRun
from inosync.worker.calls import RsyncCalls
from inosync.worker.job import Job
from inosync.worker.refused_options import RETRY_SECONDS, RefusedOptions
from inosync.worker.rename_plan import MAX_RUNS
from inosync.worker.rename_runs import RenameRuns
from inosync.worker.sent_directories import SentDirectories

TARGET = "rsync://host/module/www"


@dataclass
class FakeTransfer:
    """An rsync that was started: for what, what it was fed, and whether it would be."""

    what: tuple[Rename, RenameWay]
    directory: Path
    names: bytes = b""
    may_send: Callable[[], bool] = lambda: True
    stdout: list[bytes] = field(default_factory=list)
    stderr: list[bytes] = field(default_factory=list)
    names_sent_at: float | None = 1.0
    cancelled: bool = False
    is_truncated: bool = False

    def send_when_connected(self, names: bytes, may_send: Callable[[], bool]) -> None:
        self.names, self.may_send = names, may_send

    @property
    def directory_status(self) -> os.stat_result:
        return self.directory.stat()

    @property
    def rename(self) -> tuple[bytes, bytes]:
        return self.what[0].old, self.what[0].new

    @property
    def way(self) -> RenameWay:
        return self.what[1]


class World:
    """A tree, and the runs for parts of it."""

    def __init__(self, home: Path) -> None:
        self.tree = home / "tree"
        self.tree.mkdir()
        self.now = 0.0
        self.refused = RefusedOptions(lambda: self.now)
        self.given = TransferSettings("rsync", str(self.tree), TARGET)
        self.rules: tuple[str, ...] = ()
        self.sent = SentDirectories(float("-inf"))
        self.made: RenameRuns | None = None

    @property
    def rules_now(self) -> Rules:
        return Rules([rule for text in self.rules for rule in from_filter(text)])

    @property
    def runs(self) -> RenameRuns:
        if self.made is None:
            job = SimpleNamespace(trees={1: self.given}, rules={1: self.rules_now})
            self.made = RenameRuns(cast(Job, job), cast(RsyncCalls, self), self.refused, self.sent)
        return self.made

    # In place of RsyncCalls

    def settings(self, _tree: int) -> TransferSettings:
        return self.given

    def start_rename(self, _tree: int, rename: Rename, way: RenameWay) -> FakeTransfer:
        new = self.tree / os.fsdecode(rename.new)
        return FakeTransfer((rename, way), new if rename.is_directory else new.parent)

    # What the test does

    def fill(self, name: str, size: int = WORTHWHILE_BYTES) -> Path:
        """Make a directory with a file of that size at its second level."""
        (self.tree / name / "sub").mkdir(parents=True)
        (self.tree / name / "sub" / "file").write_bytes(bytes(size))
        return self.tree / name

    def batch(self, *renames: tuple[str, str], is_directory: bool = True) -> BatchRun:
        hints = tuple(Rename(old.encode(), new.encode(), is_directory) for old, new in renames)
        payload, _ = spool.pack((Part(1, False, (b"x",), renames=hints),), "")
        return BatchRun(Batch(7, 1, False, payload), 0.0)

    def next(self, run: BatchRun) -> FakeTransfer | None:
        """The next run for the first part that is one for renames; others come through."""
        while run.parts:
            if transfer := self.runs.start(run):
                return cast(FakeTransfer, transfer)
            if len(run.parts) == 1:
                return None
            run.came_through(Outcome(), 0)
        return None

    def end(self, transfer: FakeTransfer, code: int = 0) -> None:
        self.runs.done(code, cast(Any, transfer))
        self.runs.end_run()

    def fails(self, transfer: FakeTransfer, code: int) -> bool:
        """Whether the part is sent without the run."""
        found = self.runs.is_given_up(code, cast(Any, transfer))
        self.runs.end_run()
        return found

    def all(self, run: BatchRun) -> list[FakeTransfer]:
        """Let all runs come through."""
        found = []
        while transfer := self.next(run):
            found.append(transfer)
            self.end(transfer)
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def step_of(world: World, run: BatchRun) -> FakeTransfer:
    """The first run that follows a rename."""
    found = world.next(run)
    assert found is not None
    return found


def test_directories_are_made_with_other_names_before_a_rename_is_followed(world: World) -> None:
    world.fill("x/y/new")
    run = world.batch(("old", "x/y/new"))
    run.parts[0] = replace(
        run.part, step=Step.NEW, names=(b"x", b"x/y/new", b"x/y/new/sub/", b"page", b"old/again")
    )
    assert world.runs.start(run) is None
    assert run.part.names == (b"x", b"x/y", b"x/y/new", b"page")
    assert list(run.names) == [b"x", b"x/y", b"x/y/new"], "what was found of it, and what is needed"
    assert not world.runs.is_running
    run.came_through(Outcome(), 0)
    second = world.next(run)
    assert second is not None
    assert world.runs.is_running
    assert second.rename == (b"old", b"x/y/new")
    assert second.names == names_input(EVERYTHING)
    assert second.way == RenameWay(links=True, whole=True, anchored=False, deletes=True)
    second.stdout = [b"Total file size: 1,000 bytes", b"Literal data: 1 bytes"]
    world.end(second)
    assert world.runs.start(run) is None
    assert not world.runs.is_running
    assert (world.runs.bytes, run.part.renames, run.part.names) == (999, (), (b"old/again",))


def test_directory_read_while_it_was_renamed_is_compared_by_content(world: World) -> None:
    world.fill("new")
    world.sent.ended(Part(1, False, ()), [b"old/sub/file"], 1.0)
    found = step_of(world, world.batch(("old", "new")))
    assert found.way == RenameWay(links=True, whole=True, anchored=False, compares=True)
    world.runs.note_sent(2.0)
    world.end(found)
    world.fill("next")
    assert step_of(world, world.batch(("new", "next"))).way.compares, "the run itself has read it"


@pytest.mark.parametrize(("old", "name"), [(b"old", b"new"), (b"d/old", b"d/new")])
def test_file_is_followed_in_its_directory_or_in_the_root(world: World, old: bytes, name: bytes) -> None:
    (world.tree / "d").mkdir()
    (world.tree / "d/new").write_bytes(bytes(WORTHWHILE_BYTES))
    run = world.batch((os.fsdecode(old), "d/new"), is_directory=False)
    found = step_of(world, run)
    assert found.names == names_input([name])
    assert not found.way.whole
    found.directory = world.tree / (b"d/new".removesuffix(name).decode())
    assert found.may_send()


# What a rename costs -------------------------------------------------------------------------------------


def runs_for(world: World, run: BatchRun) -> list[str]:
    """Send a batch as its sender does; return what each run of rsync is for."""
    found = []
    while run.parts:
        rules = world.rules_now
        if not (
            run.prepare_part(world.given, rules) or run.part.renames or world.runs.has_steps(run.part.tree)
        ):
            run.skip_part()
        elif transfer := world.runs.start(run):
            found.append("rename")
            world.end(cast(FakeTransfer, transfer))
        elif run.names:
            found.append(run.part.step.name)
            run.came_through(Outcome(), 0)
        else:
            run.skip_part()
    return found


def batch_of(*renames: Rename, **names: Step) -> BatchRun:
    parts: dict[Step, list[bytes]] = {}
    for name, step in names.items():
        parts.setdefault(step, []).append(name.replace("__", "/").encode())
    made = tuple(
        Part(1, False, tuple(parts[step]), step=step, renames=renames if step == min(parts) else ())
        for step in sorted(parts)
    )
    payload, _ = spool.pack(made, "")
    return BatchRun(Batch(7, 1, False, payload), 0.0)


NEW, CHANGED, UNKNOWN, SWITCHED, REMOVED = Step
DIRECTORY = Rename(b"old", b"new", True)
INTO = Rename(b"old", b"d/f", False)
BESIDE = Rename(b"d/old", b"d/f", False)


@pytest.mark.parametrize(
    ("rename", "names", "rules", "without", "following"),
    [
        pytest.param(
            DIRECTORY,
            {"new__": NEW, "new__sub__": NEW, "old": REMOVED},
            (),
            ["NEW", "REMOVED"],
            ["NEW", "rename", "REMOVED"],
            id="a directory",
        ),
        pytest.param(
            DIRECTORY,
            {"new__": NEW, "new__sub__": NEW, "page": NEW, "d__f": CHANGED, "old": REMOVED},
            (),
            ["NEW", "CHANGED", "REMOVED"],
            ["NEW", "rename", "CHANGED", "REMOVED"],
            id="a directory beside other changes",
        ),
        pytest.param(
            DIRECTORY,
            {"new__": SWITCHED, "new__sub__": SWITCHED, "old": REMOVED},
            (),
            ["SWITCHED", "REMOVED"],
            ["SWITCHED", "rename", "REMOVED"],
            id="a directory in the place of another one",
        ),
        pytest.param(
            DIRECTORY,
            {"new__": NEW, "new__sub__": NEW, "page": NEW},
            (),
            ["NEW"],
            ["NEW", "rename"],
            id="a directory whose old name is not for this node",
        ),
        pytest.param(
            INTO,
            {"d__f": SWITCHED, "old": REMOVED},
            (),
            ["SWITCHED", "REMOVED"],
            ["SWITCHED", "rename", "REMOVED"],
            id="a file into another directory",
        ),
        pytest.param(
            INTO,
            {"d": NEW, "d__": NEW, "d__f": SWITCHED, "old": REMOVED},
            (),
            ["NEW", "SWITCHED", "REMOVED"],
            ["NEW", "SWITCHED", "rename", "REMOVED"],
            id="a file into a new directory",
        ),
        pytest.param(
            BESIDE,
            {"d__f": NEW, "d__old": REMOVED},
            (),
            ["NEW", "REMOVED"],
            ["rename", "REMOVED"],
            id="a file in its directory",
        ),
        pytest.param(
            BESIDE,
            {"d__f": SWITCHED, "page": SWITCHED},
            (),
            ["SWITCHED"],
            ["rename", "SWITCHED"],
            id="a file whose name is taken again",
        ),
        # Names are listed, so nothing is deleted below the new directory, and it is looked at once more.
        pytest.param(
            DIRECTORY,
            {"new__": NEW, "new__sub__": NEW, "old": REMOVED},
            ("- /elsewhere/x",),
            ["NEW", "REMOVED"],
            ["NEW", "rename", "NEW", "REMOVED"],
            id="a directory, and rules that depend on the place",
        ),
    ],
)
def test_rename_costs_one_run_of_rsync(
    world: World,
    rename: Rename,
    names: dict[str, Step],
    rules: tuple[str, ...],
    without: list[str],
    following: list[str],
) -> None:
    world.fill("new")
    (world.tree / "d").mkdir()
    (world.tree / "d/f").write_bytes(bytes(WORTHWHILE_BYTES))
    (world.tree / "page").write_text("x")
    world.rules = rules
    assert runs_for(world, batch_of(**names)) == without
    assert runs_for(world, batch_of(rename, **names)) == following


def test_names_of_a_rename_that_left_something_undone_are_sent(world: World) -> None:
    world.fill("new")
    run = batch_of(DIRECTORY, new__=NEW, new__sub__=NEW, old=REMOVED)
    assert run.prepare_part(world.given, world.rules_now)
    transfer = step_of(world, run)
    world.end(transfer, 23)
    assert runs_for(world, run) == ["NEW", "REMOVED"]


def test_big_file_that_is_renamed_is_not_left_to_the_second_lane(world: World) -> None:
    (world.tree / "d").mkdir()
    (world.tree / "d/f").write_bytes(bytes(WORTHWHILE_BYTES))
    run = batch_of(BESIDE, d__f=NEW, d__old=REMOVED)
    assert not run.prepare_part(world.given, world.rules_now, 10)
    assert [part.names for part in run.results.big] == [(b"d/f",)]
    assert runs_for(world, run) == ["rename"]
    assert run.results.big == []
    assert [part.names for part in run.results.behind] == [(b"d/old",)], "it was to wait for the big file"


def test_file_in_the_root_needs_no_directory(world: World) -> None:
    (world.tree / "new").write_bytes(bytes(WORTHWHILE_BYTES))
    found = world.next(world.batch(("d/old", "new"), is_directory=False))
    assert found is not None
    assert found.rename == (b"d/old", b"new")


def replaced_by_a_link(world: World) -> None:
    (world.tree / "real").mkdir()
    world.fill("real/new")
    (world.tree / "d").symlink_to("real")


def having(new: str = "new", **values: Any) -> Callable[[World], object]:
    """Make a directory that would be followed, were it not for these attributes of the world."""

    def prepare(world: World) -> None:
        world.fill(new)
        for name, value in values.items():
            setattr(world, name, value)

    return prepare


def small(world: World) -> None:
    world.fill("new", WORTHWHILE_BYTES - 1)


def a_link(world: World) -> None:
    world.fill("target")
    (world.tree / "new").symlink_to("target")


def a_file(world: World) -> None:
    (world.tree / "new").write_bytes(bytes(WORTHWHILE_BYTES))


def refused(world: World) -> None:
    world.fill("new")
    world.refused.refuse_renames()


@pytest.mark.parametrize(
    ("prepare", "new"),
    [
        (small, "new"),
        (lambda _world: None, "new"),
        (a_link, "new"),
        (replaced_by_a_link, "d/new"),
        (a_file, "new"),
        (having(rules=("- /new",)), "new"),
        (having(rules=("- old",)), "new"),
        (having(rules=("- sub",)), "new"),
        (having("d/new", rules=("- /d/",)), "d/new"),
        (refused, "new"),
        (having(given=TransferSettings("rsync", "", TARGET, extra=("--inplace",))), "new"),
        (having("n[e]w"), "n[e]w"),
    ],
)
def test_rename_is_not_followed_if(world: World, prepare: Callable[[World], object], new: str) -> None:
    prepare(world)
    run = world.batch(("old", new))
    assert world.next(run) is None
    assert run.part.renames == ()


def test_renames_are_followed_again_after_an_hour(world: World) -> None:
    world.fill("new")
    world.refused.refuse_renames()
    world.now += RETRY_SECONDS
    assert world.next(world.batch(("old", "new"))) is not None


def test_rules_that_depend_on_the_place_are_applied_to_each_name(world: World) -> None:
    world.rules = ("- /new/sub/hidden", "- *.tmp")
    new = world.fill("new")
    for name in ("sub/hidden", "sub/x.tmp", "hidden"):
        (new / name).write_text("x")
    found = step_of(world, world.batch(("old", "new")))
    assert sorted(found.names.split(b"\0")) == [b"", b"hidden", b"sub", b"sub/file"]
    assert not found.way.whole


def test_names_are_not_listed_for_a_local_node(world: World) -> None:
    world.fill("new")
    world.given = replace(world.given, target="/srv/www")
    world.rules = ("- /elsewhere",)
    assert world.next(world.batch(("old", "new"))) is None


def test_directory_with_too_many_names_to_list_is_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.rules = ("- /elsewhere",)
    world.fill("new")
    monkeypatch.setattr(rename_plan, "MAX_LISTED", 1)
    assert world.next(world.batch(("old", "new"))) is None


def test_largest_renames_are_followed_in_their_order(world: World) -> None:
    for number in range(MAX_RUNS + 3):
        world.fill(f"new{number}", WORTHWHILE_BYTES * (1 if number in (0, 4, 9) else 2))
    run = world.batch(*((f"old{number}", f"new{number}") for number in range(MAX_RUNS + 3)))
    found = [transfer.rename[1] for transfer in world.all(run)]
    assert found == [b"new%d" % number for number in range(MAX_RUNS + 3) if number not in (0, 4, 9)]


@pytest.mark.parametrize(
    ("rdelete", "has_old", "links"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_files_are_linked_only_if_the_old_name_goes(
    world: World, rdelete: bool, has_old: bool, links: bool
) -> None:
    world.fill("new")
    if has_old:
        world.fill("old")
    world.given = replace(world.given, rdelete=rdelete)
    assert step_of(world, world.batch(("old", "new"))).way.links == links


def test_names_that_were_exchanged_are_not_followed(world: World) -> None:
    for name in "ab":
        world.fill(name)
    assert world.all(world.batch(("b", "a"), ("a", "b"))) == []


def test_deployment_copies_first_and_links_then(world: World) -> None:
    for name in ("site", "site.old"):
        world.fill(name)
    found = world.all(world.batch(("site", "site.old"), ("site.new", "site")))
    assert [(t.rename[1], t.way.links) for t in found] == [(b"site.old", False), (b"site", True)]


def test_directory_that_is_another_by_then_is_not_sent(world: World) -> None:
    new = world.fill("new")
    found = step_of(world, world.batch(("old", "new")))
    assert found.may_send()
    new.rename(world.tree / "moved")
    world.fill("new")
    assert not found.may_send()


# Ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "is_fed", "has_failed"),
    [
        (0, True, False),
        (23, True, False),
        (24, True, False),
        (0, False, True),
        (4, False, True),
        (12, True, True),
        (-9, True, True),
    ],
)
def test_run_has_failed_if(world: World, code: int, is_fed: bool, has_failed: bool) -> None:
    world.fill("new")
    transfer = step_of(world, world.batch(("old", "new")))
    transfer.names_sent_at = 1.0 if is_fed else None
    outcome = world.runs.outcome(code, cast(Any, transfer))
    assert (outcome.retry is not None, outcome.untidy) == (has_failed, has_failed and is_fed)
    assert outcome.instead == ()


@pytest.mark.parametrize(("due", "is_followed"), [(b"new", False), (b"x", True)])
def test_rename_is_not_followed_if_its_directory_was_not_made(
    world: World, due: bytes, is_followed: bool
) -> None:
    world.fill("new")
    run = world.batch(("old", "new"))
    assert world.runs.start(run) is None
    run.came_through(Outcome(reason="denied", due=(Part(1, False, (due,)),)), 23)
    assert (world.next(run) is not None) == is_followed


def test_run_that_breaks_twice_is_given_up(world: World) -> None:
    world.fill("new")
    run = world.batch(("old", "new"))
    assert not world.fails(step_of(world, run), 12)
    again = world.next(run)
    assert again is not None
    assert again.rename == (b"old", b"new")
    assert world.fails(again, 12)
    assert world.next(run) is None
    assert world.refused.follows_renames()


def test_run_that_the_node_refuses_is_given_up_with_those_to_come(world: World) -> None:
    for name in ("new", "other"):
        world.fill(name)
    run = world.batch(("old", "new"), ("o", "other"))
    refused = step_of(world, run)
    refused.stderr = [b"rsync: The server is configured to refuse --link-dest"]
    assert world.fails(refused, 4)
    assert world.next(run) is None
    assert not world.refused.follows_renames()
    assert "refuse --link-dest" in world.runs.problem


def test_run_whose_directory_was_replaced_is_given_up(world: World) -> None:
    world.fill("new")
    run = world.batch(("old", "new"))
    transfer = step_of(world, run)
    transfer.cancelled, transfer.names_sent_at = True, None
    assert world.fails(transfer, 20)
    assert world.refused.follows_renames()


def test_path_is_named_from_the_root_if_rrsync_wants_that(world: World) -> None:
    world.given = replace(world.given, target="host:www")
    world.fill("new")
    run = world.batch(("old", "new"))
    refused = step_of(world, run)
    refused.stderr = [b"/usr/bin/rrsync error: do not use .. in --link-dest"]
    assert world.fails(refused, 12)
    again = world.next(run)
    assert again is not None
    assert again.way.anchored
    again.stderr = refused.stderr
    assert not world.fails(again, 12), "the first failure that counts"


def test_steps_of_one_tree_are_not_taken_for_another(world: World) -> None:
    world.fill("new")
    run = world.batch(("old", "new"))
    assert world.next(run) is not None
    run.parts[:] = [Part(2, False, (b"x",))]
    assert world.next(run) is None


# Hard links that would stay ------------------------------------------------------------------------------


def still_linked(world: World) -> list[tuple[bytes, ...]]:
    parts = world.runs.harmed()
    assert all(part.tree == 1 for part in parts)
    return [part.names for part in parts if part.ignore_times]


def write_protected(world: World) -> list[bytes]:
    parts = world.runs.harmed()
    return sorted(name for part in parts if not part.ignore_times for name in part.names)


def test_copies_that_take_the_old_name_meanwhile_are_written_anew(world: World) -> None:
    new = world.fill("new")
    (new / "other").write_text("x")
    world.all(world.batch(("old", "new")))
    assert still_linked(world) == []
    shutil.copytree(new, world.tree / "old")
    (world.tree / "old/other").write_text("something else")
    assert still_linked(world) == [(b"old/sub/file",)]
    world.runs.begin_batch(is_cut_off=False)
    assert still_linked(world) == []


def test_file_that_takes_the_old_name_meanwhile_is_written_anew(world: World) -> None:
    (world.tree / "new").write_bytes(bytes(WORTHWHILE_BYTES))
    world.all(world.batch(("old", "new"), is_directory=False))
    shutil.copy2(world.tree / "new", world.tree / "old")
    assert still_linked(world) == [(b"old",)]
    (world.tree / "old").write_text("x")
    assert still_linked(world) == []


def test_files_that_an_rsync_without_root_made_writable_are_sent_again(world: World) -> None:
    new = world.fill("new")
    (new / "other").write_text("x")
    (new / "sub/file").chmod(0o444)
    run = world.batch(("old", "new"))
    assert write_protected(world) == []
    world.all(run)
    assert write_protected(world) == [b"new/sub/file"]
    (new / "sub/file").chmod(0o644)
    assert write_protected(world) == []


def test_file_that_an_rsync_without_root_made_writable_is_sent_again(world: World) -> None:
    (world.tree / "new").write_bytes(bytes(WORTHWHILE_BYTES))
    (world.tree / "new").chmod(0o400)
    world.all(world.batch(("old", "new"), is_directory=False))
    assert write_protected(world) == [b"new"]


@pytest.mark.skipif(os.geteuid() != 0, reason="removes as another user")
def test_local_rsync_of_root_leaves_write_protection_alone(world: World) -> None:
    world.given = replace(world.given, target="/node")
    (world.fill("new") / "sub/file").chmod(0o444)
    world.all(world.batch(("old", "new")))
    assert write_protected(world) == []


def test_links_of_a_worker_that_died_are_suspected_too(world: World) -> None:
    shutil.copytree(world.fill("new"), world.tree / "old")
    world.runs.begin_batch(is_cut_off=True)
    world.all(world.batch(("old", "new")))
    assert still_linked(world) == [(b"old/sub/file",)]


def test_copies_on_the_node_are_not_suspected(world: World) -> None:
    shutil.copytree(world.fill("new"), world.tree / "old")
    world.all(world.batch(("old", "new")))
    assert still_linked(world) == []
