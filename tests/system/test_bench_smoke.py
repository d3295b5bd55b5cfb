"""The benchmarks are for people to run; here only that they still work, where that is quickly found out."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

from bench.report import Result, rst, text

BENCH = Path(__file__).resolve().parents[1] / "bench"

RESULTS = [
    Result("edit of one file", "daemon", 1, {"inosync": [0.002] * 10, "lsyncd": [0.02] * 10}),
    Result("edit of one file", "ssh", 10, {"inosync": [0.5], "lsyncd, ControlMaster": [math.inf]}),
]


def test_the_decoder_sees_as_many_events_as_pyinotify() -> None:
    argv = [sys.executable, str(BENCH / "decode.py"), "--quick"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"inosync's rate is [\d.]+ times pyinotify's", done.stdout), done.stdout


def test_the_table_has_a_row_for_each_work_and_a_dash_for_what_was_not_measured() -> None:
    rule, head, _, first, second, *_ = rst(RESULTS).splitlines()
    assert set(rule) == {"=", " "}
    ends = [match.end() for match in re.finditer("=+", rule)]
    starts = [match.start() for match in re.finditer("=+", rule)]
    table = [[line[a:b].strip() for a, b in zip(starts, ends, strict=True)] for line in (head, first, second)]
    assert table == [
        ["work", "nodes", "inosync", "lsyncd", "lsyncd, tuned"],
        ["edit of one file, daemon", "1", "2.0 ms (2.0 ms)", "20.0 ms (20.0 ms): 0.10", "-"],
        ["edit of one file, ssh", "10", "500 ms", "-", "never: -"],
    ]


def test_a_tool_that_never_delivers_is_said_to() -> None:
    assert re.search(r"lsyncd, ControlMaster +median +never .* inosync takes - of it", text(RESULTS[1]))
