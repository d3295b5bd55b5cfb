"""The benchmarks still run. Their figures are for people; no time is checked here.

They run at tiny sizes, a few at a time.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench import plot
from bench.nodes import missing
from bench.report import Figure, Latency, rst, text
from bench.sizes import Cost, Point
from bench.tools import tools
from support import procs
from support.redis_server import REDIS
from support.wait import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

BENCH = Path(__file__).resolve().parents[1] / "bench"

EDIT = ("compare.py", "--quick", "--apart=0", "--nodes=1", "--rounds=1", "--work=edit")
# In the order of the tests.
TINY = {
    "decode": ("decode.py", "--quick"),
    "filters": ("filters.py", "--quick"),
    "hard links": ("hardlinks.py", "--quick"),
    "edit": (*EDIT, "--transports=daemon", "--tools=inosync;rsync by hand"),
    "ssh": (*EDIT, "--transports=ssh", "--tools=rsync by hand"),
    "files": ("compare.py", "--quick", "--apart=0", "--nodes=1", "--transports=daemon", "--work=files"),
    "cpu": ("compare.py", "--quick", "--work=cpu"),
    "pss": ("pss.py", "--nodes=1", "--transports=daemon"),
    "cost": ("change_cost.py", "--quick", "--apart=0", "--transports=daemon", "--profile=10"),
    "rhythm": ("rhythm.py", "--quick", "--rows=trickle,burst"),
    "many trees": ("many_trees.py", "--trees=3", "--nodes=2", "--changes=1", "--transports=daemon"),
    "restart": ("restart.py", "--quick"),
    "deployment": ("deployment.py", "--quick", "--transports=local"),
    "metrics": ("metrics.py", "--quick"),
    "fleet": ("fleet.py", "--quick", "--senders=1", "--stages"),
    "directories": ("directories.py", "--dirs=20", "--rounds=1"),
    "nodes": ("growth.py", "--quick", "--apart=0", "--axes=nodes"),
    "local": ("growth.py", "--quick", "--apart=0", "--axes=local"),
    "changes": ("growth.py", "--quick", "--apart=0", "--axes=changes"),
    "tree": ("growth.py", "--quick", "--apart=0", "--axes=directories"),
}

Run = Callable[[str], str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Return what a benchmark prints, followed by the table it writes, if any."""
    home = tmp_path_factory.mktemp("bench")
    started: dict[str, subprocess.Popen[str]] = {}

    def start(name: str) -> None:
        words = TINY[name]
        table = [f"--rst={home / name}"] if words[0] in ("compare.py", "growth.py", "rhythm.py") else []
        started[name] = _start(*words, *table)

    def wait(name: str) -> str:
        # Start the next ones too, but not all: they would take the processors from every other test.
        names = [*TINY]
        for each in names[names.index(name) :][:3]:
            if each not in started:
                start(each)
        out, err = started[name].communicate(timeout=300)
        assert started[name].returncode == 0, f"{out}\n{err}"
        return out + ((home / name).read_text() if (home / name).exists() else "")

    yield wait
    for process in started.values():
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def _start(*words: str, **env: str) -> subprocess.Popen[str]:
    argv = [sys.executable, str(BENCH / words[0]), *words[1:]]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, env=os.environ | env)


def test_decoder_sees_as_many_events_as_pyinotify(run: Run) -> None:
    assert re.search(r"inosync's rate is [\d.]+ times pyinotify's", run("decode"))


def test_filters_benchmark_prints_cost_for_each_number_of_rules(run: Run) -> None:
    found = re.findall(r"^ *(\d+) rules: +[\d.]+ us a path, .* ms$", run("filters"), re.MULTILINE)
    assert found == ["1", "10", "100", "1000"]


def test_hardlinks_benchmark_prints_cost_of_a_search(run: Run) -> None:
    assert re.search(r"^a search of 2000 entries: [\d.]+ s", run("hard links"), re.MULTILINE)


def test_compare_prints_latency_of_isolated_changes(run: Run) -> None:
    out = run("edit")
    assert re.search(r"^\d+ processors .*; Linux .*, Python .*, rsync ", out)
    assert re.search(r"^isolated change, daemon, 1 node$", out, re.MULTILINE)
    for tool in ("inosync", "rsync by hand"):
        assert re.search(rf"^  {tool} +median +[\d.]+ m?s   p90 +[\d.]+ m?s   n   2", out, re.MULTILINE)
    assert re.search(r"^isolated change, daemon +1 ", out, re.MULTILINE)


def test_compare_prints_latency_of_isolated_changes_over_ssh(run: Run) -> None:
    if missing("ssh") or os.geteuid() != 0:
        pytest.skip("an sshd of this user may let nobody in")
    assert re.search(r"^  rsync by hand +median +[\d.]+ m?s", run("ssh"), re.MULTILINE)


def test_compare_prints_latency_of_many_new_files(run: Run) -> None:
    out = run("files")
    for tool in tools("files"):
        assert re.search(rf"^  {tool} +median +[\d.]+ m?s", out, re.MULTILINE), out
    assert re.search(r"^100 new files, daemon +1 ", out, re.MULTILINE)


def test_compare_prints_processor_time_of_the_master(run: Run) -> None:
    out = run("cpu")
    assert re.search(r"^master's CPU for 60 changes, 3 nodes: .* against 1 node: .*: [\d.]+$", out, re.M)
    assert re.search(r"^master's CPU for 60 changes, 3 nodes  ", out, re.MULTILINE)


def test_pss_prints_memory_for_each_node(run: Run) -> None:
    out = run("pss")
    for tool, parts in {"inosync": "1 workers .*, 1 rsync", "inosync, rwarm off": "1 workers"}.items():
        found = rf"^daemon, 1 node, {tool} +PSS for each node +[\d.]+ MB   a worker .*\(1 master .*, {parts}"
        assert re.search(found, out, re.MULTILINE), out


def test_many_trees_benchmark_prints_what_is_kept(run: Run) -> None:
    out = run("many trees")
    found = (
        r"^daemon, inosync, 3 trees, 2 nodes: 10 processes, 6 of them rsync and ssh, PSS .*: first .*, next "
    )
    assert re.search(found, out, re.MULTILINE), out


def test_change_cost_prints_its_parts_and_what_a_worker_spends_it_on(run: Run) -> None:
    out = run("cost")
    found = r"^daemon, 2 nodes, inosync +for a change and node +[\d.]+ ms   \(master .*, worker .*\)$"
    assert re.search(found, out, re.MULTILINE), out
    assert re.search(r"^ +[\d.]+ +\d+ us +\d+ us  worker.py:\d+ _turn$", out, re.MULTILINE), out


def test_rhythm_prints_how_late_changes_arrive_and_the_table(run: Run) -> None:
    out = run("rhythm")
    assert re.search(r"^a file each 0.3 s, daemon, 2 nodes$", out, re.MULTILINE), out
    times = r" +[\d.]+ m?s" * 3
    assert re.search(rf"^  inosync +{times} +[\d.]+ m?s", out, re.MULTILINE), out
    for tool in ("inosync", "rsync by hand"):
        assert re.search(rf"^  {tool} +{times} +-", out, re.MULTILINE), out
        assert re.search(rf"^2,000 new files, daemon +2 +{tool} +{times} ", out, re.MULTILINE), out


def test_restart_benchmark_prints_what_restarts_take(run: Run) -> None:
    out = run("restart")
    for name in ("restart", "restart --full"):
        assert re.search(rf"^{name} +time +[\d.]+ m?s   CPU +[\d.]+ m?s .* transfers$", out, re.MULTILINE), (
            out
        )
    assert re.search("^restart .* 0 transfers$", out, re.MULTILINE), out


def test_deployment_benchmark_prints_what_deployments_take(run: Run) -> None:
    out = run("deployment")
    for tool in ("inosync", "rsync by hand"):
        found = rf"^deployment of 20 files, local, {tool} +median +[\d.]+ m?s "
        assert re.search(found, out, re.MULTILINE), out
    assert re.search(r"^isolated change, local, inosync +median +[\d.]+ m?s ", out, re.MULTILINE), out


def test_metrics_benchmark_prints_what_each_path_takes(run: Run) -> None:
    out = run("metrics")
    for path in ("/metrics", "/", "/status.json"):
        assert len(re.findall(rf"^    {path} +median +[\d.]+ m?s ", out, re.MULTILINE)) == 3, out


@pytest.mark.skipif(REDIS is None, reason="redis-server is not installed")
def test_fleet_benchmark_prints_latency_cost_and_stages(run: Run) -> None:
    out = run("fleet")
    found = r"^1 senders, 4 nodes: p50 [\d.]+ m?s, one daemon [\d.]+ m?s: [\d.]+   .*CPU of all [\d.]+ m?s: "
    assert re.search(found, out, re.MULTILINE), out
    for stage in ("recorded in Redis", "the last sender is told", "on the last node"):
        assert re.search(rf"^ +[\d.]+ m?s  {stage}$", out, re.MULTILINE), out


def test_directories_benchmark_prints_time_to_watch_a_tree(run: Run) -> None:
    assert re.search(r"^20 directories, inosync  watched in ", run("directories"), re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "axis", "most"),
    [("nodes", "nodes", 2), ("changes", "changes", 200), ("tree", "directories", 100)],
)
def test_growth_prints_latency_and_cpu_for_each_size(run: Run, name: str, axis: str, most: int) -> None:
    out = run(name)
    for size in (1, most):
        found = rf"^{axis} +{size}   inosync, equiet 0 +latency +[\d.]+ m?s   CPU +[\d.]+ m?s   its master "
        assert re.search(found, out, re.MULTILINE), out
        assert re.search(rf"^{size} +[\d.]+ m?s  ", out, re.MULTILINE), out


def test_growth_prints_what_the_master_takes_for_each_node(run: Run) -> None:
    out = run("local")
    for size in (1, 2):
        each = r"\(for each node [\d.]+ m?s(, [\d.]+ system calls)?\)$"
        assert re.search(rf"^local +{size}   inosync, cold .* its master .* {each}", out, re.MULTILINE), out


@pytest.mark.skipif(not importlib.util.find_spec("matplotlib"), reason="matplotlib is optional")
def test_plot_is_the_same_for_the_same_points(tmp_path: Path) -> None:
    points = [Point("nodes", size, "inosync", size / 1000, Cost(0.1, 0.0)) for size in (1, 10)]
    points.append(Point("nodes", 100, "inosync", math.inf, Cost(0.1, 0.1)))
    files = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for file in files:
        plot.draw(points, {"nodes": ("one", "one")}, file)
    assert b"<svg" in files[0].read_bytes() == files[1].read_bytes()


def test_benchmark_ends_all_processes_it_started(tmp_path: Path) -> None:
    bench = _start(*EDIT, "--transports=daemon", "--apart=60", TMPDIR=str(tmp_path))

    def running() -> list[procs.Process]:
        family = procs.family([bench.pid])
        titles = [procs.title(process.pid) for process in family]
        return family if any(title.startswith("inosync: 1") or " [ok]" in title for title in titles) else []

    family = until(running, 90, "inosync to be at work")
    assert len(family) > 3  # with its worker, and the rsync daemon
    bench.send_signal(signal.SIGTERM)
    bench.communicate(timeout=60)
    assert bench.returncode == 128 + signal.SIGTERM
    until(lambda: not any(map(procs.alive, family)), 30, "what was killed to be gone")
    assert not list(tmp_path.iterdir())


RESULTS = [
    Latency("edit", "daemon", 1, {"inosync, equiet 0": [0.002] * 10, "lsyncd": [0.04] * 10}, "a change"),
    Latency("edit", "ssh", 10, {"inosync": [0.5], "lsyncd, tuned": [math.inf], "lsyncd": []}, "a change"),
    Latency("files", "daemon", 10, {"inosync": [2.0], "lsyncd": [4.0], "rsync by hand": [2.0]}, "files"),
]
FIGURES = [
    Figure("CPU", "2.0 s", "1 node: 1.0 s", 2.0, 1.5),
    Figure("memory", "2 MB"),
]


def test_tables_have_a_row_for_each_work_and_a_dash_for_unknown_values() -> None:
    assert _rows(rst(RESULTS, [])) == [
        "work | nodes | inosync | equiet 0 | cold | lsyncd | tuned | by hand"
        " | of lsyncd | of tuned | goal | reached",
        "a change, daemon | 1 | - | 2.0 ms | - | 40.0 ms | - | - | 0.050 | - | 0.10 | yes",
        "a change, ssh | 10 | 500 ms | - | - | - | never | - | - | - | 0.35 of tuned; 0.05 | -; -",
        "files, daemon | 10 | 2.00 s | - | - | 4.00 s | - | 2.00 s"
        " | 0.50 | - | 0.35; 1.50 of by hand | no; yes",
    ]
    assert _rows(rst([], FIGURES)) == [
        "measured | inosync | beside | share | goal | reached",
        "CPU | 2.0 s | 1 node: 1.0 s | 2.00 | 1.50 | no",
        "memory | 2 MB | - | - | - | -",
    ]


def _rows(table: str) -> list[str]:
    """Return the rows of a simple table, head first, with bars between the cells."""
    rule, head, again, *rest = table.splitlines()
    assert rule == again
    assert set(rule) == {"=", " "}
    cells = [match.span() for match in re.finditer("=+", rule)]
    return [" | ".join(line[a:b].strip() for a, b in cells) for line in [head, *rest[: rest.index(rule)]]]


def test_report_says_when_a_tool_never_delivers_or_fails() -> None:
    said = text(RESULTS[1])
    assert re.search(r"lsyncd, tuned +median +never .* takes - of it", said)
    assert re.search(r"lsyncd +failed", said)
    assert re.search(r"goal 0.05 of lsyncd: -, reached: -", said)
