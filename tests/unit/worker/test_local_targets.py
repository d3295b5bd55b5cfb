"""Whether the target of a local node is still the directory that was mirrored to."""

from __future__ import annotations

from pathlib import Path

import pytest

from inosync.nodes.messages import TargetReplaced
from inosync.worker.local_targets import REPORT_SECONDS, LocalTargets, TargetReports


class Bench:
    """A local target of tree 1, one behind ssh of tree 2, and what was reported."""

    def __init__(self, home: Path) -> None:
        self.target = home / "target"
        self.target.mkdir()
        self.now = 1_000.0
        self.reports: list[TargetReplaced] = []
        trees = {1: str(self.target), 2: f"host:{self.target}"}
        self.targets = LocalTargets(trees, TargetReports(self.reports.append, lambda: self.now).add)

    def replace(self) -> None:
        self.target.rename(self.target.with_name(f"old-{len(self.reports)}-{self.now}"))
        self.target.mkdir()

    def check(self) -> int:
        """Check both trees; return the number of reports since."""
        before = len(self.reports)
        self.targets.check(1)
        self.targets.check(2)
        return len(self.reports) - before


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_target_that_was_replaced_is_reported_once(bench: Bench) -> None:
    assert bench.check() == 0
    (bench.target / "file").touch()
    assert bench.check() == 0
    bench.replace()
    assert bench.check() == 1
    assert bench.reports == [TargetReplaced(1, f"{bench.target} is another directory than before")]
    assert bench.check() == 0


def test_target_that_is_away_is_compared_with_what_comes_after(bench: Bench) -> None:
    bench.check()
    away = bench.target.rename(bench.target.with_name("away"))
    assert bench.check() == 0
    away.rename(bench.target)
    assert bench.check() == 0
    bench.replace()
    assert bench.check() == 1


def test_target_that_a_full_mirror_is_sent_to_is_not_reported(bench: Bench) -> None:
    bench.check()
    bench.replace()
    bench.targets.begin_full(1)
    assert bench.check() == 0
    bench.target.rename(bench.target.with_name("away"))
    bench.targets.begin_full(1)
    bench.target.mkdir()
    assert bench.check() == 0
    bench.replace()
    assert bench.check() == 1


def test_target_replaced_again_and_again_is_reported_once_an_hour(bench: Bench) -> None:
    bench.check()
    bench.replace()
    assert bench.check() == 1
    bench.replace()
    bench.now += REPORT_SECONDS - 1
    assert bench.check() == 0
    bench.now += 1
    assert bench.check() == 1
