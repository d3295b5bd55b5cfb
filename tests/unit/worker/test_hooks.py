"""Hooks of one node: real programs and functions on a real loop."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inosync.changes import Part
from inosync.config.hook import Hook, Place
from inosync.config.timetable import constant
from inosync.nodes.messages import HookFinished, StateChanged
from inosync.system.loop import Loop
from inosync.worker import hook_run
from inosync.worker import hooks as hooks_module
from inosync.worker.hooks import Hooks
from inosync.worker.job import Job

LIMIT_SECONDS = 60.0
RECORDER = """import json, os, sys
facts = {key: value for key, value in os.environ.items() if key.startswith("INOSYNC_")}
if os.environ.get("INOSYNC_NAMES"):
    facts["listed"] = open(os.environ["INOSYNC_NAMES"]).read()
with open(sys.argv[1], "a") as file:
    file.write(json.dumps(facts) + "\\n")
"""


class Bench:
    """Hooks on a loop, and what was reported of them."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.loop = Loop()
        self.reports: list[HookFinished] = []
        self.home = home
        places = {number: Place(f"/srv/{number}", f"r{number}") for number in (1, 2)}
        node = "rsync://john:secret@h/m"
        job = Job("n0", node, {}, {}, constant(0), {}, 10.0, (1.0, 2.0), False, str(home), places, **settings)
        self.hooks = Hooks(job, self.reports.append, self.loop)

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + LIMIT_SECONDS
        while not condition():
            assert time.monotonic() < end, self.reports
            self.loop.turn(0.05)

    def until_idle(self) -> None:
        self.until(lambda: not self.hooks.is_busy)

    def recorded(self) -> list[dict[str, Any]]:
        path = self.home / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def recorder(home: Path) -> Hook:
    return Hook((sys.executable, "-c", RECORDER, str(home / "calls")))


def sleeper(timeout: float = 1_000.0) -> Hook:
    return Hook(("/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"), timeout=timeout)


def test_names_are_told_in_a_file_that_is_removed_afterwards(tmp_path: Path) -> None:
    bench = Bench(tmp_path, on_sync=recorder(tmp_path))
    bench.hooks.synced([Part(1, False, (b"a", b"d/"))])
    bench.until_idle()
    (one,) = bench.recorded()
    assert one["listed"] == "a\0d/\0"
    assert (one["INOSYNC_COUNT"], one["INOSYNC_FULL"], one["INOSYNC_EVENT"]) == ("2", "0", "sync")
    assert (one["INOSYNC_WPATH"], one["INOSYNC_RPATH"], one["INOSYNC_NAME"]) == ("/srv/1", "r1", "n0")
    assert "secret" not in one["INOSYNC_NODE"]
    assert [path.name for path in tmp_path.iterdir()] == ["calls"]
    assert bench.reports == [HookFinished("on_sync")]


def test_names_that_arrive_while_a_hook_runs_are_told_together_after_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, on_sync=recorder(tmp_path))
    for name in (b"a", b"b", b"c", b"b"):
        bench.hooks.synced([Part(1, False, (name,))])
    bench.until_idle()
    assert [one["listed"] for one in bench.recorded()] == ["a\0", "b\0c\0"]


def test_full_mirror_is_told_without_names_and_covers_those_that_wait(tmp_path: Path) -> None:
    bench = Bench(tmp_path, on_sync=recorder(tmp_path))
    bench.hooks.synced([Part(2, False, (b"x",))])
    bench.hooks.synced([Part(1, False, (b"a",)), Part(1, True), Part(1, False, (b"b",))])
    bench.until_idle()
    calls = [(one["INOSYNC_WPATH"], one["INOSYNC_FULL"], one["INOSYNC_NAMES"]) for one in bench.recorded()]
    assert calls[1:] == [("/srv/1", "1", "")]
    assert len(calls) == 2


def test_too_many_names_are_told_as_a_full_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks_module, "MAX_NAMES", 2)
    bench = Bench(tmp_path, on_sync=recorder(tmp_path))
    bench.hooks.synced([Part(1, False, (b"a", b"b")), Part(2, False, (b"a", b"b", b"c"))])
    bench.until_idle()
    assert [one["INOSYNC_FULL"] for one in bench.recorded()] == ["0", "1"]


def test_names_that_cannot_be_written_are_told_as_a_full_mirror(tmp_path: Path) -> None:
    bench = Bench(tmp_path, on_sync=recorder(tmp_path))
    (tmp_path / f"hook-{os.getpid()}-1").mkdir()
    bench.hooks.synced([Part(1, False, (b"a",))])
    bench.until_idle()
    assert [one["INOSYNC_FULL"] for one in bench.recorded()] == ["1"]


def test_hooks_that_an_earlier_worker_has_lost_are_made_up_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path, on_sync=recorder(tmp_path), hooks_lost=True)
    bench.until_idle()
    calls = [(one["INOSYNC_WPATH"], one["INOSYNC_FULL"]) for one in bench.recorded()]
    assert calls == [("/srv/1", "1"), ("/srv/2", "1")]


def test_hook_that_does_not_exist_is_reported_and_the_next_one_follows(tmp_path: Path) -> None:
    bench = Bench(tmp_path, on_sync=Hook((str(tmp_path / "none"),)), hooks_lost=True)
    bench.until_idle()
    assert [one.reason for one in bench.reports] == [f"{tmp_path}/none: No such file or directory"] * 2


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("exit 3", "ended with exit code 3"),
        ("echo why; exit 1", "ended with exit code 1: why"),
        ("kill -9 $$", "was killed by signal 9"),
        ("exit 0", ""),
    ],
)
def test_end_of_a_hook_is_reported_with_its_reason(tmp_path: Path, command: str, reason: str) -> None:
    bench = Bench(tmp_path, on_sync=Hook(("/bin/sh", "-c", command)))
    bench.hooks.synced([Part(1, True)])
    bench.until_idle()
    assert bench.reports == [HookFinished("on_sync", reason)]


@pytest.mark.parametrize("kind", ["program", "function"])
def test_password_of_rsync_does_not_reach_a_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("RSYNC_PASSWORD", "secret")
    written = tmp_path / "calls"

    def call(_facts: Any) -> None:
        written.write_text(json.dumps(dict(os.environ)))

    script = f"import json, os; open({str(written)!r}, 'w').write(json.dumps(dict(os.environ)))"
    hook = Hook((sys.executable, "-c", script)) if kind == "program" else Hook(call=call)
    bench = Bench(tmp_path, on_sync=hook)
    bench.hooks.synced([Part(1, True)])
    bench.until_idle()
    (environ,) = bench.recorded()
    assert "PATH" in environ
    assert "RSYNC_PASSWORD" not in environ


def test_function_is_called_in_a_process_of_its_own(tmp_path: Path) -> None:
    def call(facts: Any) -> None:
        (tmp_path / "calls").write_text(json.dumps({**facts, "pid": os.getpid()}))

    bench = Bench(tmp_path, on_state=Hook(call=call))
    bench.hooks.state_changed(StateChanged("ok", "full", 2.00049, "one\ntwo", 0.5))
    bench.until_idle()
    (one,) = bench.recorded()
    assert one["pid"] != os.getpid()
    assert (one["state"], one["before"], one["seconds"], one["lag"]) == ("ok", "full", 2.0, 0.5)
    assert "\n" not in one["reason"]


def test_hook_that_ignores_sigterm_at_its_timeout_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_run, "KILL_AFTER_SECONDS", 0.1)
    bench = Bench(tmp_path, on_sync=sleeper(timeout=0.2))
    bench.hooks.synced([Part(1, True)])
    bench.until_idle()
    assert bench.reports == [HookFinished("on_sync", "was ended after 0.2 s")]


def test_hooks_that_are_killed_with_their_worker_do_not_start_others(tmp_path: Path) -> None:
    bench = Bench(tmp_path, on_sync=sleeper())
    bench.hooks.synced([Part(1, True), Part(2, True)])
    (pid,) = bench.hooks.pids
    bench.hooks.kill_all()
    bench.until_idle()
    assert [one.reason for one in bench.reports] == [
        "was not run: its worker had to end",
        f"was killed by signal {signal.SIGKILL.value}",
    ]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_state_without_a_hook_is_reported_as_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.hooks.state_changed(StateChanged("ok", "", 0.0, "", 0.0))
    bench.hooks.synced([Part(1, True)])
    assert bench.reports == [HookFinished("on_state")]
    assert not bench.hooks.is_busy
