"""Short runs of the chaos; ``chaos.py`` is for long ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chaos.report import report
from chaos.run import Options, Run

SECONDS = 12.0
ROUND = 10
SEEDS = [int(os.environ["INOSYNC_SEED"])] if "INOSYNC_SEED" in os.environ else [20, 21]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", SEEDS)
def test_chaos_ends_level_and_loses_nothing(number: int, tmp_path: Path) -> None:
    run = Run(Options(number, SECONDS, round=ROUND, begin=120, home=tmp_path), print)
    result = run.run()
    lines = "\n".join(report(run))
    print(lines)
    assert result.good, f"to repeat this: INOSYNC_SEED={number}\n{lines}"
