"""The lines of the log, as text and as JSON, and the rotation of its file."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support import procs
from support.daemon import LAUNCHER, Daemon, FakeRsync, MakeDaemon, Patched, ask
from support.wait import until

FAST = {"edelay": 0.2, "equiet": 0.02, "rretry": (0.05, 0.1)}


@dataclass
class Setup:
    """A daemon with two local nodes, not started."""

    home: Path
    make: MakeDaemon
    rsync: FakeRsync
    settings: dict[str, object] = field(default_factory=dict)
    made: Daemon | None = None

    @property
    def tree(self) -> Path:
        return self.home / "tree"

    @property
    def daemon(self) -> Daemon:
        assert self.made is not None
        return self.made

    def config(self, **settings: object) -> dict[str, object]:
        self.settings.update(settings)
        return {
            "wpaths": [str(self.tree)],
            "rpaths": ["tree"],
            "rnodes": [{"node": f"{self.home}/nodes/{node}/", "name": node} for node in "ab"],
            "rsync": str(self.rsync.path),
            "rwarm": False,
            **FAST,
            **self.settings,
        }

    def start(self, *words: str, **settings: object) -> None:
        for node in "ab":
            (self.home / "nodes" / node).mkdir(parents=True, exist_ok=True)
        self.made = self.make(self.config(**settings), words)
        self.daemon.start()
        self.flush()

    def ask(self, command: str, **more: object) -> dict[str, Any]:
        return self.daemon.ask(command, **more)

    def flush(self, node: str | None = None) -> None:
        assert self.ask("flush", node=node, timeout=60)["behind"] == []

    def until_tries(self, node: str, count: int) -> None:
        until(lambda: self.ask("status", node=node)["nodes"][0]["attempts"] >= count, 60, f"{count} tries")

    def objects(self, **wanted: object) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.daemon.log().splitlines()]
        return [line for line in lines if all(line.get(key) == value for key, value in wanted.items())]


@pytest.fixture
def setup(tmp_path: Path, daemon: MakeDaemon) -> Setup:
    (tmp_path / "tree").mkdir()
    return Setup(tmp_path, daemon, FakeRsync(tmp_path))


def test_stuck_stderr_stops_nothing_and_lost_lines_are_counted(setup: Setup) -> None:
    s = setup
    for node in "ab":
        (s.home / "nodes" / node).mkdir(parents=True)
    s.made = s.make(s.config(), ("-v",))
    os.mkfifo(s.daemon.stderr)
    pipe = os.open(s.daemon.stderr, os.O_RDWR | os.O_NONBLOCK)
    try:
        s.daemon.start()
        s.flush()
        with contextlib.suppress(BlockingIOError):
            while os.write(pipe, b"x" * 512):
                pass
        for number in range(10):
            (s.tree / "file").write_text(f"{number}")
            s.flush()
        found = bytearray()

        def lost() -> re.Match[bytes] | None:
            with contextlib.suppress(BlockingIOError):
                found.extend(os.read(pipe, 1 << 20))
            return re.search(rb"WARNING: log lines lost because their reader was stuck: (\d+)\n", found)

        lost()
        (s.tree / "file").write_text("read again")
        s.flush()
        match = until(lost, 60, "the number of lost lines")
        assert int(match[1]) >= 10
        s.daemon.stop()
    finally:
        s.daemon.stderr.unlink()  # before its end is read from it
        s.daemon.stderr.touch()
        os.close(pipe)


def test_log_file_that_hangs_stops_nothing(tmp_path: Path, patched: Patched) -> None:
    (tmp_path / "tree").mkdir()
    make = patched("from inosync.system import mounts\nmounts.is_remote = lambda _path: True\n")
    s = Setup(tmp_path, make, FakeRsync(tmp_path))
    path = tmp_path / "log"
    s.start(logfile=str(path))
    title = f"inosync: log {path}"
    [writer] = [
        pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if procs.title(pid) == title
    ]
    os.kill(writer, signal.SIGSTOP)
    try:
        for number in range(3):
            (s.tree / "file").write_text(f"{number}")
            s.flush()
        s.ask("reload")
        s.flush()
    finally:
        os.kill(writer, signal.SIGCONT)
    assert s.daemon.stop() == 0
    until(lambda: path.read_text().endswith("stopped\n"), 60, "the last line")
    until(lambda: procs.title(writer) != title, 60, "the end of the writer")


def test_log_has_a_line_for_what_all_nodes_got_and_each_change_of_state(setup: Setup) -> None:
    s = setup
    s.start()
    for number in range(20):
        (s.tree / f"file {number}").write_text("x" * 1000)
        s.flush()

    def mirrored() -> int | None:
        lines = re.findall(r"INFO: (\d+) paths? to (?:2 nodes|a|b), (\d+) bytes, \d+\.\d\d s", s.daemon.log())
        return len(lines) if sum(int(size) for _paths, size in lines) > 40_000 else None

    lines = until(mirrored, 60, "the lines about 20 changes")
    batches = sum(node["batches"] - node["fulls"] for node in s.ask("status")["nodes"])
    assert lines < batches / 2
    for node in "ab":
        s.daemon.until_logged(rf"INFO: {node}: is ok")
    log = s.daemon.log()
    assert len(re.findall(r"INFO: [ab]: full mirror in ", log)) == 2
    assert not re.search(r"INFO: [ab]: \d+ paths? in ", log)
    s.rsync.fault("a", "exit 12")
    (s.tree / "more").write_text("x")
    s.daemon.until_logged(r"WARNING: a: is retrying after ok for \d+\.\d s: .*exit 12")
    s.until_tries("a", 8)
    s.rsync.mend("a")
    s.flush()
    s.daemon.until_logged(r"INFO: a: is ok after retrying for \d+\.\d s$")
    log = s.daemon.log()
    assert len(re.findall(r": a: is retrying", log)) == 1
    # The same failure is logged once a minute.
    assert len(re.findall(r"WARNING: a: .*; try \d+ in", log)) == 1
    assert not re.search(r": b: is (retrying|lagging)", log)
    assert "changed (" not in log


def test_log_with_verbose_has_paths_and_every_try(setup: Setup) -> None:
    s = setup
    s.start("-v")
    name = os.fsdecode(b"new\nline \xff")
    (s.tree / name).write_text("x")
    s.flush()
    s.daemon.until_logged(rf"DEBUG: changed \(name\): {re.escape(str(s.tree))}/new\\x0aline \\xff$")
    s.daemon.until_logged(r"DEBUG: a: sent: .*new\\x0aline \\xff")
    s.rsync.fault("a", "exit 12")
    (s.tree / "more").write_text("x")
    s.until_tries("a", 4)
    assert len(re.findall(r"WARNING: a: .*; try \d+ in", s.daemon.log())) >= 3


def test_log_as_json_has_an_object_in_every_line(setup: Setup) -> None:
    s = setup
    s.start("-v", logformat="json", on_sync=["/bin/false"])
    name = os.fsdecode(b"new\nline \xff")
    (s.tree / name).write_text("x" * 1000)
    s.flush()
    s.rsync.fault("a", "exit 12")
    (s.tree / "more").write_text("x")
    s.until_tries("a", 3)
    s.rsync.mend("a")
    s.flush()
    until(lambda: s.objects(event="state", node="a", state="ok", before="retrying"), 60, "the line")
    until(lambda: s.objects(event="hook", node="a"), 60, "the hook's line")
    assert s.objects(event="hook", node="a")[0]["reason"] == "ended with exit code 1"
    failed = s.objects(event="failed", node="a")[0]
    assert (failed["code"], failed["attempt"], failed["level"]) == (12, 1, "warning")
    assert "exit 12" in failed["reason"]
    assert failed["retry_in"] > 0
    batches = s.objects(event="batch", node="b")
    assert len(batches) == s.ask("status", node="b")["nodes"][0]["batches"]
    assert batches[0]["full"] is True
    assert sum(line["bytes"] for line in batches) > 1000
    every = s.objects()
    assert all({"time", "level", "pid", "message"} <= set(line) for line in every)
    assert any("new\\x0aline \\xff" in line["message"] for line in every)


def test_logformat_takes_effect_at_a_reload(setup: Setup) -> None:
    s = setup
    s.start()
    s.daemon.configure(s.config(logformat="json"))
    assert s.ask("reload") == {}
    (s.tree / "file").write_text("x")
    s.flush()
    s.daemon.until_logged(r'^\{.*"event": "batch".*\}$')
    s.daemon.configure(s.config(logformat="xml"))
    answer = s.daemon.log()
    s.daemon.hup()
    s.daemon.until_logged(r"logformat: 'xml': is not known; write 'text' or 'json'", since=len(answer))


# Rotation ------------------------------------------------------------------------------------------------


CONF = Path(__file__).resolve().parents[2] / "conf"
PROGRAM = shutil.which("logrotate", path=os.environ.get("PATH", "") + ":/usr/sbin")


@pytest.mark.skipif(PROGRAM is None, reason="logrotate is not installed")
@pytest.mark.parametrize("signalled", [True, False])
def test_logrotate_loses_no_line(tmp_path: Path, daemon: MakeDaemon, signalled: bool) -> None:
    """With ``signalled``, logrotate signals inosync; without, inosync notices by itself."""
    assert PROGRAM is not None
    tree, node, logs = (tmp_path / name for name in ("tree", "node", "logs"))
    for path in (tree, node, logs):
        path.mkdir(mode=0o755)
    log = logs / "default.log"
    made = daemon(
        {
            "wpaths": [str(tree)],
            "rpaths": ["/"],
            "rnodes": [{"node": str(node), "name": "node"}],
            "equiet": 0.01,
            "edelay": 0.1,
            "logfile": str(log),
        },
        ("-v",),
    )
    wrapper = tmp_path / "bin" / "inosync"
    wrapper.parent.mkdir()
    words = " ".join(map(shlex.quote, (sys.executable, str(LAUNCHER))))
    wrapper.write_text(f'#!/bin/sh\nexec {words} "$@"\n' if signalled else "#!/bin/sh\nexit 3\n")
    wrapper.chmod(0o755)
    text = (CONF / "inosync.logrotate").read_text()
    assert "/var/log/inosync/*.log" in text
    assert "/run/inosync/*.pid" in text
    text = text.replace("/var/log/inosync", str(logs)).replace("/run/inosync", str(made.rundir))
    rules = tmp_path / "rules"
    rules.write_text(text)
    rules.chmod(0o644)
    made.start()
    socket = str(made.rundir / "default.sock")

    def change(number: int) -> None:
        (tree / f"file {number}").write_text("x")
        assert ask(socket, {"command": "flush", "timeout": 60}, 90)["behind"] == []

    change(0)
    if signalled:
        (made.rundir / "stale.pid").write_text(f"{os.getpid()}\n/nowhere/at/all.py\n")
    for number in range(1, 4):
        done = subprocess.run(
            [PROGRAM, "--force", "--state", tmp_path / "state", rules],
            env={**os.environ, "PATH": f"{wrapper.parent}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        if signalled:
            until(log.exists, 60, "the new file")
        change(number)
    until(log.exists, 60, "the new file")
    assert log.stat().st_mode & 0o777 == 0o640
    count = ask(socket, {"command": "status"}, 60)["nodes"][0]["batches"]
    assert made.stop() == 0
    lines: list[str] = []
    for path in sorted(logs.iterdir(), key=lambda path: path.name, reverse=True):
        unpacked = ["zcat" if path.suffix == ".gz" else "cat", str(path)]
        lines += subprocess.run(unpacked, capture_output=True, text=True, check=True).stdout.splitlines()
    batches = [line for line in lines if re.search(r"node: \d+ paths? in|node: full mirror in", line)]
    assert len(batches) == count >= 4
    assert sum("log file reopened" in line for line in lines) == (3 if signalled else 0)
    assert "stopped" in lines[-1]
    # The lines are in order: no line went into an older file.
    times = [line[:23] for line in lines if re.match(r"\d{4}-", line)]
    assert times == sorted(times)
