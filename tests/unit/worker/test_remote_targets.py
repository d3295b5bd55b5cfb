"""Whether a remote target has what it was sent: the looks, and what follows from what they find."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest

from inosync.changes import Part, Source
from inosync.config.timetable import constant
from inosync.filters.rule import from_pattern
from inosync.filters.rules import Rules
from inosync.rsync.argv import TransferSettings
from inosync.system.loop import Loop
from inosync.worker import remote_targets
from inosync.worker.compare import Comparisons, Found
from inosync.worker.job import Job
from inosync.worker.remote_targets import RemoteTargets, is_replaced, lost_paths

FAR, NEAR, OTHER = 1, 2, 3
LONG_AGO, NOW = 10_000.0, 20_000.0


@dataclass
class FakeComparisons:
    """In place of ``Comparisons``: keeps what is asked for."""

    is_running: bool = False
    asked: list[tuple[int, set[bytes]]] = field(default_factory=list)
    answer: Callable[[Found], None] = lambda _found: None

    def compare_names(
        self, tree: int, _source: Source | None, names: Iterable[bytes], done: Callable[[Found], None]
    ) -> None:
        self.asked.append((tree, set(names)))
        self.answer = done


class Bench:
    """Trees 1 and 3 on a node far away, tree 2 on one that is local; all of it was made long ago."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.changed_at: dict[bytes, float] = {}
        self.reports: list[tuple[int, str]] = []
        self.accepts = True
        self.renewed = 0
        self.comparisons = FakeComparisons()
        self.loop = Loop(lambda: self.now)
        self.src = home / "src"
        self.src.mkdir()
        for name in ("a", "b", "c", "d", "skipped"):
            (self.src / name).touch()
        targets = {FAR: "host:/far", NEAR: str(home / "near"), OTHER: "rsync://host/m/other"}
        rules = {tree: Rules(from_pattern("/skipped")) for tree in targets}
        trees = {tree: TransferSettings("rsync", str(self.src), target) for tree, target in targets.items()}
        job = Job("n", "n", trees, rules, constant(0), {}, 60.0, (1.0, 2.0), False, "", wall=self.wall)
        monkeypatch.setattr(remote_targets, "_look_up", self.look_up)
        self.targets = RemoteTargets(
            job, cast(Comparisons, self.comparisons), self.report, self.renew, self.loop, lambda: 0.0
        )

    def look_up(self, path: bytes) -> tuple[float, int] | None:
        if not os.path.exists(path):
            return None
        return self.changed_at.get(os.path.basename(path), LONG_AGO), os.stat(path).st_ino

    def wall(self) -> float:
        return NOW + self.now

    def report(self, tree: int, reason: str) -> bool:
        self.reports.append((tree, reason))
        return self.accepts

    def renew(self) -> None:
        self.renewed += 1

    def sent(self, *names: bytes, tree: int = FAR) -> None:
        self.targets.came_through(Part(tree, False, names), names, self.now - 5, self.now)

    def mirrored(self, tree: int = FAR) -> None:
        self.targets.begin_full(tree)
        self.targets.came_through(Part(tree, True), (b"./",), self.now - 5, self.now)

    def wait(self, seconds: float) -> list[tuple[int, set[bytes]]]:
        """Let time pass; return what was asked for meanwhile."""
        before, end = len(self.comparisons.asked), self.now + seconds
        while self.now < end:
            self.now += 0.5
            self.loop.turn(0)
        return self.comparisons.asked[before:]

    def answer(self, *missing: bytes, reason: str = "") -> None:
        lines = tuple(b"inosync:<f+++++++++ " + name for name in missing)
        self.comparisons.answer(Found(reason, count=len(lines), lines=lines))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_what_was_sent_and_the_old_entries_of_the_root_are_looked_for(bench: Bench) -> None:
    bench.mirrored()
    bench.changed_at[b"d"] = NOW - 1  # after the full mirror has begun
    bench.now = 5.0
    (bench.src / "sub").mkdir()
    bench.sent(b"sub/", b"a", b"./")
    assert bench.wait(0.5) == []
    assert bench.wait(2) == [(FAR, {b"a", b"b", b"c", b"sub"})]


def test_full_mirror_alone_and_local_targets_are_not_looked_at(bench: Bench) -> None:
    bench.mirrored()
    bench.sent(b"a", tree=NEAR)
    assert bench.wait(300) == []


def test_lost_name_is_reported_and_the_other_tree_looked_at_soon(bench: Bench) -> None:
    bench.mirrored(OTHER)
    bench.mirrored()
    bench.sent(b"a")
    bench.wait(2)
    bench.answer(b"a")
    assert [tree for tree, _ in bench.reports] == [FAR]
    assert "host:/far lacks what it was sent" in bench.reports[0][1]
    assert bench.renewed == 1
    assert [tree for tree, _ in bench.wait(2)] == [OTHER]
    bench.answer()
    assert bench.wait(300) == []


def test_lost_entries_of_the_root_count_when_they_are_half_of_it(bench: Bench) -> None:
    bench.mirrored()
    bench.sent(b"a")
    bench.wait(2)
    bench.answer(b"b")
    assert bench.reports == []
    bench.sent(b"a")
    bench.wait(62)
    bench.answer(b"b", b"c")
    assert len(bench.reports) == 1


def test_name_that_has_changed_since_it_was_sent_does_not_count(bench: Bench) -> None:
    bench.mirrored()
    bench.sent(b"a")
    bench.wait(2)
    bench.changed_at[b"a"] = NOW + 1
    bench.answer(b"a")
    (bench.src / "b").unlink()
    assert bench.reports == []


def test_name_that_is_another_file_by_now_does_not_count(bench: Bench) -> None:
    for name in ("a", "b"):
        (bench.src / f"sub-{name}").mkdir()
        (bench.src / f"sub-{name}/file").touch()
    bench.sent(b"sub-a/file")
    (bench.src / "sub-a").rename(bench.src / "away")
    (bench.src / "sub-b").rename(bench.src / "sub-a")
    bench.wait(2)
    bench.answer(b"sub-a/file")
    assert bench.reports == []


def test_entries_are_known_to_be_there_only_if_they_are_old(bench: Bench) -> None:
    bench.changed_at = dict.fromkeys((b"a", b"b", b"c"), NOW - 30)
    bench.sent(b"sub/")  # which is gone by now
    assert bench.wait(2) == [(FAR, {b"d"})]


def test_looks_are_a_minute_apart_and_in_turn(bench: Bench) -> None:
    for _ in range(130):
        bench.sent(b"a")
        bench.sent(b"b", tree=OTHER)
        asked = bench.wait(1)
        if asked:
            bench.answer()
    trees = [tree for tree, _ in bench.comparisons.asked]
    assert trees == [FAR, OTHER, FAR]


def test_look_that_fails_connects_anew_and_comes_back_less_and_less_often(bench: Bench) -> None:
    bench.sent(b"a")
    times = []
    for _ in range(8_000):
        if bench.wait(0.5):
            times.append(bench.now)
            bench.answer(reason="connection refused")
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses == sorted(pauses)
    assert 60 <= pauses[0] < 70
    assert pauses[3] > 400
    assert bench.renewed == 1
    bench.wait(3700)
    bench.answer(b"a")
    assert len(bench.reports) == 1, "what was sent at first is still looked for"


def test_look_refused_beside_a_kept_connection_ends_no_connection(bench: Bench) -> None:
    bench.sent(b"a")
    bench.wait(2)
    bench.answer(reason="@ERROR: max connections (1) reached -- try again later")
    assert bench.renewed == 0


def test_full_mirror_makes_an_earlier_look_meaningless(bench: Bench) -> None:
    bench.sent(b"a")
    bench.wait(2)
    bench.mirrored()
    bench.answer(b"a")
    assert bench.reports == []


def test_look_waits_for_another_comparison(bench: Bench) -> None:
    bench.comparisons.is_running = True
    bench.sent(b"a")
    assert bench.wait(10) == []
    bench.comparisons.is_running = False
    assert len(bench.wait(4)) == 1


def test_comparison_that_is_cancelled_is_made_again(bench: Bench) -> None:
    bench.sent(b"a")
    assert len(bench.wait(2)) == 1
    assert len(bench.wait(63)) == 1


def test_report_that_is_too_much_changes_nothing(bench: Bench) -> None:
    bench.accepts = False
    bench.sent(b"a")
    bench.wait(2)
    bench.answer(b"a")
    assert (len(bench.reports), bench.renewed) == (1, 0)


@pytest.mark.parametrize(
    ("batches", "entries", "lost", "replaced"),
    [
        ([{b"a"}], [], [], False),
        ([], [], [b"a"], False),
        ([{b"a"}, {b"b"}], [], [b"b"], True),
        ([{b"a", b"b"}], [], [b"b"], False),
        ([{b"a", b"b"}], [], [b"a", b"b"], True),
        ([{b"x"}], [b"a", b"b", b"c"], [b"a"], False),
        ([{b"x"}], [b"a", b"b", b"c"], [b"a", b"b"], True),
        ([{b"x"}], [b"a", b"b"], [b"a"], True),
        ([{b"x"}], [b"a", b"b", b"c"], [b"a", b"other", b"more"], False),
    ],
)
def test_replaced_target_lacks_a_whole_batch_or_half_of_its_root(
    batches: list[set[bytes]], entries: list[bytes], lost: list[bytes], replaced: bool
) -> None:
    assert is_replaced(batches, entries, set(lost)) is replaced


def test_lost_is_what_is_missing_or_of_another_size() -> None:
    lines = (
        b"inosync:<f+++++++++ new",
        b"inosync:<f.st...... size",
        b"inosync:<f..t...... time",
        b"inosync:.d..t...... dir/",
        b"inosync:cd+++++++++ newdir/",
        b"inosync:cL+++++++++ link",
        b"something else",
    )
    assert lost_paths(lines) == {b"new", b"size", b"newdir", b"link"}
