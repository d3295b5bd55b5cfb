"""Rotation by the real logrotate, of a real daemon's log: no line is lost."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.daemon import LAUNCHER, MakeDaemon
from support.wait import until

from inosync.console.client import ask

CONF = Path(__file__).resolve().parents[2] / "conf"
PROGRAM = shutil.which("logrotate", path=os.environ.get("PATH", "") + ":/usr/sbin")


@pytest.mark.skipif(PROGRAM is None, reason="logrotate is not installed")
@pytest.mark.parametrize("told", [True, False])
def test_no_line_is_lost(tmp_path: Path, daemon: MakeDaemon, told: bool) -> None:
    """``told``: whether inosync is; without it notices by itself."""
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
        }
    )
    wrapper = tmp_path / "bin" / "inosync"
    wrapper.parent.mkdir()
    words = " ".join(map(shlex.quote, (sys.executable, str(LAUNCHER))))
    wrapper.write_text(f'#!/bin/sh\nexec {words} "$@"\n' if told else "#!/bin/sh\nexit 3\n")
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
    if told:
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
        if told:
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
    assert sum("log file reopened" in line for line in lines) == (3 if told else 0)
    assert "stopped" in lines[-1]
    # In the order in which they were written: nothing came into an older file later.
    times = [line[:23] for line in lines if re.match(r"\d{4}-", line)]
    assert times == sorted(times)
