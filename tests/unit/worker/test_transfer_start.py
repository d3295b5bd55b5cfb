"""Which rsync is started for a part, or why none is. The tree is real, rsyncs are played."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inosync.changes import Allowance, Lane, Part, Source, Step
from inosync.filters.rules import Rules
from inosync.nodes.messages import Batch
from inosync.rsync.argv import TransferSettings
from inosync.rsync.exit_codes import ExitKind
from inosync.rsync.outcome import Outcome
from inosync.system import process, spool
from inosync.worker.batch_run import BatchRun
from inosync.worker.beside import Beside
from inosync.worker.job import Job
from inosync.worker.lanes import Lanes
from inosync.worker.rename_runs import RenameRuns
from inosync.worker.transfer_start import Start, TransferStarter


def played(name: str) -> Any:
    found = SimpleNamespace(name=name)
    found.send_when_connected = lambda _names, may_send: setattr(found, "may_send", may_send)
    return found


def question(name: str) -> Any:
    return SimpleNamespace(transfer=played(name))


class Bench:
    """A starter for a tree with a file and a link. Of what is around it, it notes what is asked of that."""

    def __init__(self, tree: Path) -> None:
        (tree / "f").write_text("xx")
        (tree / "l").symlink_to("f")
        self.tree, self.target, self.asked = tree, "h:", list[str]()
        self.error: OSError | None = None
        self.big_size = 0
        self.lanes = Lanes()

    def _start(self, *_rest: object) -> Any:
        if self.error is not None:
            raise self.error
        return played("new")

    def start(self, *parts: Part, lane: Lane = Lane.FIRST) -> tuple[Start, BatchRun]:
        payload, _ = spool.pack(parts, str(self.tree.parent / "spool"))
        run = BatchRun(Batch(1, 1, False, payload, lane=lane), 0.0)
        return self.starter().start(run), run

    def starter(self) -> TransferStarter:
        settings = TransferSettings("rsync", str(self.tree), self.target)
        job = SimpleNamespace(trees={1: settings}, rules={1: Rules(())}, excluded={1: Rules(()).excluded})
        calls = SimpleNamespace(
            settings=lambda _tree: settings,
            big_size=lambda _tree: self.big_size,
            start=self._start,
            ask=lambda _part: question("question"),
            count_removals=lambda _tree: question("count"),
        )

        def note(what: str) -> Any:
            return lambda _tree: self.asked.append(what)

        beside = SimpleNamespace(
            calls=calls,
            local_targets=SimpleNamespace(begin_full=note("begin full"), check=note("check")),
            remote_targets=SimpleNamespace(begin_full=note("begin full there")),
            warm=SimpleNamespace(take=lambda _tree: played("warm"), end=note("end warm")),
            lanes=self.lanes,
        )
        renames = SimpleNamespace(has_steps=lambda _tree: False, start=lambda _run: None)
        return TransferStarter(cast(Job, job), cast(Beside, beside), cast(RenameRuns, renames))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "tree").mkdir()
    return Bench(tmp_path / "tree")


@pytest.mark.parametrize(
    ("part", "rsync"),
    [
        pytest.param(Part(1, False, (b"f",)), "warm", id="a changed file"),
        pytest.param(Part(1, False, (b"f",), ignore_times=True), "new", id="content is compared"),
        pytest.param(Part(1, True, step=Step.NEW), "new", id="a full mirror"),
        pytest.param(Part(1, True), "question", id="a full mirror begins"),
        pytest.param(Part(1, False, (b"f", b"l"), step=Step.UNKNOWN), "question", id="what may be new"),
        pytest.param(
            Part(1, False, (b"gone",), step=Step.REMOVED, allowance=Allowance(0, 0.0)),
            "count",
            id="a removal that is counted",
        ),
    ],
)
def test_rsync_that_is_started(bench: Bench, part: Part, rsync: str) -> None:
    start, _ = bench.start(part)
    assert cast(Any, start.transfer).name == rsync
    assert (start.question is not None) == (rsync in ("question", "count"))
    assert bench.asked == (["begin full", "begin full there", "end warm"] if part.full else ["check"])
    assert bench.lanes.other(Lane.SECOND, 1) is not None


def test_relist_that_only_removes_takes_no_warm_rsync(bench: Bench) -> None:
    start, run = bench.start(Part(1, False, (b"f",)), Part(1, False, (b"./",), step=Step.REMOVED))
    assert cast(Any, start.transfer).name == "warm"
    run.came_through(Outcome(), 0)
    assert run.part.names == (b"./",)
    assert cast(Any, bench.starter().start(run).transfer).name == "new"


def test_second_lane_takes_no_warm_rsync(bench: Bench) -> None:
    bench.big_size = 2
    start, _ = bench.start(Part(1, False, (b"f",)), lane=Lane.SECOND)
    assert cast(Any, start.transfer).name == "new"


@pytest.mark.parametrize(
    ("where", "is_wrapped", "expected"),
    [
        pytest.param("tree", False, True, id="in its source"),
        pytest.param("other", False, False, id="elsewhere"),
        pytest.param("other", True, True, id="a wrapper that stayed where it was started"),
    ],
)
def test_rsync_that_has_connected_sends_only_from_its_source(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, where: str, is_wrapped: bool, expected: bool
) -> None:
    directory = bench.tree.parent / where
    directory.mkdir(exist_ok=True)
    status = bench.tree.stat()
    source = Source((status.st_dev, status.st_ino), whole=True)
    start, _ = bench.start(Part(1, False, (b"f",), source=source))
    transfer = cast(Any, start.transfer)
    transfer.directory, transfer.directory_status = str(directory), directory.stat()
    if is_wrapped:
        monkeypatch.setattr(process, "START_DIRECTORY", str(directory))
    assert transfer.may_send() is expected


def names(run: BatchRun) -> list[bytes]:
    return [name for part in run.parts for name in part.names]


def test_tree_whose_root_is_another_is_held(bench: Bench) -> None:
    start, run = bench.start(Part(1, False, (b"f",), source=Source((0, 0), whole=True)))
    assert (start, run.parts, list(run.results.held)) == (Start(is_held=True), [], [1])


def test_part_that_waits_for_later_changes_is_taken_out(bench: Bench) -> None:
    start, run = bench.start(Part(1, False, (b"gone",)))
    assert (start, run.parts) == (Start(), [])
    assert [part.names for part in run.results.waiting] == [(b"gone",)]


def test_target_in_the_tree_is_a_problem_that_lasts(bench: Bench) -> None:
    bench.target = str(bench.tree / "copy")
    start, run = bench.start(Part(1, False, (b"f",)))
    assert (start.transfer, start.kind, bool(start.problem)) == (None, ExitKind.SLOW, True)
    assert names(run) == [b"f"]


def test_rsync_that_cannot_be_started_is_a_problem_and_leaves_the_lane(bench: Bench) -> None:
    bench.error = FileNotFoundError(2, "No such file or directory", "/usr/bin/rsync")
    start, run = bench.start(Part(1, False, (b"f",), ignore_times=True))
    assert start == Start(problem="/usr/bin/rsync: No such file or directory")
    assert (names(run), bench.lanes.other(Lane.SECOND, 1)) == ([b"f"], None)
