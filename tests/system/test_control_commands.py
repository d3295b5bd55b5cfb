"""The commands of ``inosync -s``, from the command line as an operator uses them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support import procs, trees
from support.child_process import in_child
from support.churn import Churn
from support.daemon import LAUNCHER, Daemon, FakeRsync, MakeDaemon, ask
from support.wait import until

from inosync.console.client import NotRunning, Refused
from inosync.console.commands import status_code

FAST = {"edelay": 0.2, "equiet": 0.02, "rretry": (0.1, 0.5)}
ROOT = os.geteuid() == 0


@dataclass
class Commands:
    """A daemon with three local nodes, and the commands of an operator."""

    home: Path
    daemon: Daemon
    rsync: FakeRsync
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def tree(self) -> Path:
        return self.home / "tree"

    @property
    def socket(self) -> str:
        return self.daemon.socket

    def copy(self, node: str) -> Path:
        return self.home / "nodes" / node / "tree"

    def configure(self, **settings: object) -> None:
        for node in "abc":
            (self.home / "nodes" / node).mkdir(parents=True, exist_ok=True)
        self.settings.update(settings)
        self.daemon.configure(
            {
                "wpaths": [str(self.tree)],
                "rpaths": ["tree"],
                "rnodes": [{"node": f"{self.home}/nodes/{node}/", "name": node} for node in "abc"],
                "rsync": str(self.rsync.path),
                "rwarm": False,
                **FAST,
                **self.settings,
            }
        )

    def start(self, **settings: object) -> None:
        self.configure(**settings)
        self.daemon.start()
        self.until_level()

    def until_level(self) -> None:
        """Wait until ``status`` would end with 0.

        A process for each look would cost most of the test, and would leave a status behind that is given to
        who asks within ``MAX_AGE_SECONDS``.
        """

        def is_level() -> bool:
            try:
                return status_code(self.daemon.ask("status")["nodes"]) == 0
            except NotRunning:
                return False

        until(is_level, 60, "all nodes to be level")

    def command(self, *words: str) -> list[str]:
        return [sys.executable, str(LAUNCHER), "-c", str(self.daemon.file), "-s", *words]

    def say(self, *words: str, timeout: float = 120, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=timeout, check=False, **more
        )

    def status(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.say("status", *words, "--json").stdout)
        return found

    def node(self, name: str) -> dict[str, Any]:
        [found] = ask(self.socket, {"command": "status", "node": name})["nodes"]
        assert isinstance(found, dict)
        return found

    def until_state(self, name: str, *states: str) -> dict[str, Any]:
        return until(
            lambda: node if (node := self.node(name))["state"] in states else None, 60, f"{name}: {states}"
        )


@pytest.fixture
def stopped(tmp_path: Path, daemon: MakeDaemon) -> Commands:
    made = Commands(tmp_path, daemon({}, ("-v",)), FakeRsync(tmp_path / "fake"))
    made.tree.mkdir()
    (made.tree / "file").write_text("content")
    made.configure()
    return made


@pytest.fixture
def running(stopped: Commands) -> Iterator[Commands]:
    stopped.start()
    yield stopped
    for node in "abc":
        stopped.rsync.mend(node)


# status --------------------------------------------------------------------------------------------------


def test_status_shows_all_nodes_ok(running: Commands) -> None:
    done = running.say("status")
    assert (done.returncode, done.stderr) == (0, "")
    head, *nodes, last = done.stdout.splitlines()
    assert head.split()[:4] == ["NODE", "STATE", "LAG", "WAITING"]
    assert [line.split()[:2] for line in nodes] == [["a", "ok"], ["b", "ok"], ["c", "ok"]]
    assert last.startswith("3 nodes: 3 ok; 1 directory watched; up ")


def test_status_as_json_has_all_facts(running: Commands) -> None:
    (running.tree / "new").write_text("new")
    assert running.say("flush").returncode == 0
    status = running.status()
    assert status["master"]["pid"] == running.daemon.pid
    assert status["master"]["config"] == str(running.daemon.file)
    assert status["master"]["states"] == {"ok": 3}
    assert status["master"]["directories"] == 1
    assert status["master"]["events"] > 0
    assert {node["name"]: node["pid"] for node in status["nodes"]} == running.daemon.workers()
    for node in status["nodes"]:
        assert node["node"] == f"{running.home}/nodes/{node['name']}/"
        assert node["lag"] == node["pending"] == node["attempts"] == 0
        assert node["last_ok"] <= time.time() + 1
        assert node["rss"] > 1_000_000
        assert (node["reason"], node["retry_at"], node["percent"]) == ("", None, None)
    assert running.status("b")["nodes"][0]["name"] == "b"
    assert len(running.status("b")["nodes"]) == 1


def test_status_lists_the_worst_node_first_and_exits_by_it(running: Commands) -> None:
    running.rsync.hold("b")
    (running.tree / "file").write_text("more")
    running.rsync.until_held("b")
    node = running.until_state("b", "syncing", "lagging")
    assert node["pending"] == 1
    until(lambda: running.node("a")["pending"] == running.node("c")["pending"] == 0, 60, "the others")
    assert running.say("status").returncode == 1
    assert [node["name"] for node in running.status()["nodes"]] == ["b", "a", "c"]
    running.rsync.fault("c", "echo 'rsync: [Receiver] it is broken (5)' >&2; exit 12")
    (running.tree / "file").write_text("even more")
    node = running.until_state("c", "retrying")
    assert node["retry_at"] > time.time() - 60
    assert node["attempts"] >= 1

    def failing() -> subprocess.CompletedProcess[str] | None:
        done = running.say("status")  # for a moment of each try it is syncing
        return done if done.returncode == 2 else None

    first, second = until(failing, 60, "exit code 2").stdout.splitlines()[1:3]
    assert re.match(r"c +retrying \d+ +\d+\.\d s +\d+ ", first)
    assert "broken" in first
    assert second.startswith("b ")
    assert running.say("status", "a").returncode == 0
    assert running.say("status", "b").returncode == 1
    assert running.say("status", "--lag", "3600", "b").returncode == 0
    running.rsync.mend("b")
    running.rsync.mend("c")
    running.until_level()


def test_lag_is_the_age_of_the_oldest_unconfirmed_change(running: Commands) -> None:
    """It lies between the time since the event was read and the time since before the change."""
    running.rsync.hold("b")
    since = len(running.daemon.log())
    before = time.monotonic()
    (running.tree / "late").write_text("late")
    running.daemon.until_logged(r"changed \(.*late", since=since)
    read = time.monotonic()
    until(lambda: running.node("b")["lag"] > 0.5, 60, "some lag")
    for _ in range(20):
        (running.tree / "late").write_text("later and later")  # which makes the change no younger
        asked = time.monotonic()
        lag = running.node("b")["lag"]
        replied = time.monotonic()
        assert asked - read - 0.001 <= lag <= replied - before + 0.001
    until(lambda: running.node("a")["lag"] == 0.0 == running.node("c")["lag"], 60, "the others to be level")
    running.rsync.mend("b")
    running.until_level()
    assert running.node("b")["lag"] == 0.0


def test_lag_does_not_count_changes_excluded_for_the_node(stopped: Commands) -> None:
    nodes: list[dict[str, object]] = [
        {"node": f"{stopped.home}/nodes/{name}/", "name": name} for name in "abc"
    ]
    nodes[0]["rexcludes"] = ["/mine"]
    stopped.start(rnodes=nodes)
    (stopped.tree / "mine").mkdir()
    stopped.rsync.hold("b")
    (stopped.tree / "mine" / "x").write_text("x")
    (stopped.tree / "other").write_text("x")
    stopped.rsync.until_held("b")
    stopped.until_state("b", "syncing", "lagging")
    until(lambda: stopped.node("a")["pending"] == 0, 60, "a to be level")
    before = time.monotonic()
    stopped.rsync.hold("a")
    (stopped.tree / "mine" / "x").write_text("y")
    (stopped.tree / "other").write_text("y")
    until(lambda: stopped.node("a")["pending"] == 1, 60, "a to be behind")
    a, b = stopped.node("a")["lag"], stopped.node("b")["lag"]
    assert 0 < a <= time.monotonic() - before < b
    stopped.rsync.mend("a")
    stopped.rsync.mend("b")
    stopped.until_level()


def test_status_says_when_no_daemon_runs(stopped: Commands) -> None:
    done = stopped.say("status")
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr == f"inosync: not running: no daemon listens at {stopped.socket}\n"
    stopped.start()
    stopped.daemon.kill9()
    assert Path(stopped.socket).is_socket()  # a stale one
    assert stopped.say("status").returncode == 3
    stopped.daemon.start()
    stopped.until_level()
    assert stopped.daemon.stop() == 0
    assert not Path(stopped.socket).exists()


def test_status_works_when_the_configuration_has_become_bad(running: Commands) -> None:
    good = running.daemon.file.read_text()
    running.daemon.file.write_text(f"{good}\nwpaths = (((\n")
    done = running.say("status")
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 nodes: 3 ok" in done.stdout
    running.daemon.file.write_text("import os\nrundir = os.fspath('/nonexistent')\nwpaths = (((\n")
    done = running.say("status")
    assert done.returncode == 78  # which is not to say that nothing runs
    assert "SyntaxError" in done.stderr
    assert "looking in " in done.stderr
    assert "its run directory is not known for sure: it may run all the same" in done.stderr
    running.daemon.file.write_text(f"{good}\nwpaths = 7\nno_such = 1\n")
    assert running.say("status").returncode == 0
    reply = running.say("reload")
    assert reply.returncode == 78
    assert "wpaths" in reply.stderr
    assert "the old configuration stays in force" in reply.stderr
    done = running.say("status")
    assert "not reloaded: " in done.stdout
    running.daemon.file.write_text(good)
    assert running.say("reload").returncode == 0
    assert "not reloaded" not in running.say("status").stdout


# flush ---------------------------------------------------------------------------------------------------


def test_flush_returns_when_every_earlier_change_has_arrived(running: Commands) -> None:
    for number in range(15):
        deep = running.tree / f"d{number}" / "x" / "y"
        deep.mkdir(parents=True)
        (deep / "new").write_text(str(number))
        (running.tree / "file").write_text(str(number))
        os.truncate(running.tree / "file", 1)  # which sends no IN_CLOSE_WRITE
        if number:
            (running.tree / f"d{number - 1}").rename(running.tree / f"moved{number - 1}")
        assert ask(running.socket, {"command": "flush"}, 60)["behind"] == []
        for node in "abc":
            assert trees.diff(trees.snapshot(running.tree), trees.snapshot(running.copy(node))) == []


def test_flush_waits_for_directories_that_are_walked(running: Commands) -> None:
    away = running.home / "away"
    for number in range(60):
        for below in range(60):
            (away / f"{number}/{below}").mkdir(parents=True)
        (away / f"{number}/59/last").write_text("x")
    away.rename(running.tree / "here")
    assert ask(running.socket, {"command": "flush", "timeout": 60}, 90)["behind"] == []
    for node in "abc":
        assert trees.diff(trees.snapshot(running.tree), trees.snapshot(running.copy(node))) == []


def test_flush_waits_for_a_full_mirror(running: Commands) -> None:
    running.rsync.hold("b")
    assert running.say("resync", "b").returncode == 0
    running.until_state("b", "full")
    assert running.say("flush", "a").returncode == 0
    assert running.say("flush", "b", "--timeout", "0.5").returncode == 1
    running.rsync.mend("b")
    assert running.say("flush", "b").returncode == 0


def test_flush_does_not_wait_for_the_tree_to_be_quiet(stopped: Commands) -> None:
    stopped.start(edelay=3600, equiet=1800)
    (stopped.tree / "file").write_text("now")
    assert stopped.say("flush").returncode == 0
    assert [(stopped.copy(node) / "file").read_text() for node in "abc"] == ["now"] * 3


def test_flush_under_churn_ends(running: Commands) -> None:
    churn = Churn(os.fsencode(running.tree), 11)
    script = f"import sys; from pathlib import Path\nimport itertools\nroot = Path({str(running.tree)!r})\n"
    script += "for n in itertools.count():\n d = root / f'c{n % 50}'\n d.mkdir(exist_ok=True)\n"
    script += " (d / 'f').write_text(str(n))\n"
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        for number in range(5):
            churn.step()
            mark = running.tree / f"mark{number}"
            mark.write_text("here")
            done = running.say("flush", "--timeout", "60")
            assert (done.returncode, done.stderr) == (0, "")
            assert [(running.copy(node) / mark.name).read_text() for node in "abc"] == ["here"] * 3
    finally:
        process.kill()
        process.wait()


def test_flush_of_one_node_does_not_wait_for_the_others(running: Commands) -> None:
    running.rsync.hold("b")
    (running.tree / "file").write_text("x")
    assert running.say("flush", "a").returncode == 0
    assert (running.copy("a") / "file").read_text() == "x"
    done = running.say("flush", "--timeout", "0.3")
    assert done.returncode == 1
    assert re.fullmatch(
        r"inosync: b is behind by \d+\.\d s, \d+ changes, (syncing|lagging)(: .*)?\n", done.stderr
    )
    late = json.loads(running.say("flush", "--timeout", "0", "--json").stdout)
    assert [node["name"] for node in late["behind"]][-1] == "b" or late["behind"][0]["name"] in "abc"
    waiting = subprocess.Popen(running.command("flush", "b"))
    assert running.say("status", "a").returncode == 0
    assert waiting.poll() is None
    running.rsync.mend("b")
    assert waiting.wait(60) == 0
    assert (running.copy("b") / "file").read_text() == "x"


def test_flush_fails_while_a_name_cannot_be_sent(running: Commands) -> None:
    running.rsync.fault("c", "[ $kind = full ] || exit 12")
    (running.tree / "file").write_text("x")
    done = running.say("flush", "--timeout", "1")
    assert done.returncode == 1
    assert done.stderr.startswith("inosync: c is behind by ")
    running.rsync.mend("c")
    assert running.say("flush").returncode == 0


def test_flush_ends_with_its_client_or_its_daemon(running: Commands) -> None:
    running.rsync.hold("a")
    (running.tree / "file").write_text("x")
    waiting = subprocess.Popen(running.command("flush"), stderr=subprocess.PIPE)
    running.daemon.until_logged("flush was asked for: a, b, c")
    again = subprocess.Popen(running.command("flush"), stderr=subprocess.PIPE)
    again.kill()
    again.communicate()
    running.daemon.kill9()
    _, stderr = waiting.communicate(timeout=60)
    assert waiting.returncode == 3
    assert b"has ended before it replied" in stderr


def test_flush_marks_are_sent_to_no_node_and_leave_nothing(running: Commands) -> None:
    starts = len(running.rsync.starts())
    head = running.status()["master"]["journal"]
    for _ in range(5):
        assert running.say("flush").returncode == 0
    assert len(running.rsync.starts()) == starts
    assert running.status()["master"]["journal"] == head
    assert os.listdir(running.daemon.rundir / "default.spool" / "marks") == []


# pause, resume, resync, verify ---------------------------------------------------------------------------


def test_pause_sends_nothing_to_a_node_until_resume(running: Commands) -> None:
    assert running.say("pause", "b").returncode == 0
    running.until_state("b", "paused")
    starts = len(running.rsync.starts("/b/"))
    (running.tree / "file").write_text("while paused")
    assert running.say("flush", "a").returncode == 0
    since = len(running.daemon.log())
    running.daemon.hup()
    running.daemon.until_logged("reloaded", since=since)
    worker = until(lambda: running.daemon.workers().get("b"), 60, "its worker")
    os.kill(worker, signal.SIGKILL)
    until(lambda: running.daemon.workers().get("b") not in (None, worker), 60, "another worker")
    until(
        lambda: " [paused] by the operator, 1 behind" in "\n".join(running.daemon.titles()), 60, "the title"
    )
    assert running.node("b")["lag"] > 0
    assert running.node("b")["paused"]
    assert len(running.rsync.starts("/b/")) == starts
    assert (running.copy("b") / "file").read_text() == "content"
    done = running.say("status")
    assert done.returncode == 1
    assert re.search(r"^b +paused .*by the operator$", done.stdout, re.MULTILINE)
    done = running.say("flush")  # which would last for ever
    assert done.returncode == 1
    assert re.fullmatch(r"inosync: b is behind by .*, 1 changes, paused: by the operator\n", done.stderr)
    assert running.say("resume", "b").returncode == 0
    assert running.say("flush").returncode == 0
    assert (running.copy("b") / "file").read_text() == "while paused"


def test_hold_sends_all_at_once_when_it_is_released(running: Commands) -> None:
    assert running.say("hold").returncode == 0
    starts = len(running.rsync.starts())
    (running.tree / "release").mkdir()
    for number in range(3):
        (running.tree / f"release/{number}").write_text("content")
    running.daemon.hup()
    running.daemon.until_logged("reloaded")
    running.until_state("a", "lagging")
    assert running.node("a")["reason"] == "held by the operator until release"
    assert re.search(
        r"^held: nothing is sent to any node until release, or ", running.say("status").stdout, re.M
    )
    (running.tree / "current").symlink_to("release")
    assert running.say("flush", "--timeout", "0.2").returncode == 1
    assert len(running.rsync.starts()) == starts
    assert not any((running.copy(node) / "release").exists() for node in "abc")
    assert running.say("release").returncode == 0
    assert running.say("flush").returncode == 0
    assert all((running.copy(node) / "current/2").exists() for node in "abc")
    assert running.say("release").stdout == "nothing is held\n"


def test_hold_ends_by_itself(running: Commands) -> None:
    assert running.say("hold", "--timeout", "0.5").returncode == 0
    (running.tree / "file").write_text("while held")
    assert running.say("flush").returncode == 0
    assert all((running.copy(node) / "file").read_text() == "while held" for node in "abc")
    assert "the hold has lasted as long as it may" in running.daemon.log()


def test_pause_keeps_no_connection_to_the_node(stopped: Commands) -> None:
    stopped.start(rwarm=True)
    until(lambda: all(stopped.daemon.rsyncs(node) for node in "ab"), 60, "an rsync that waits, for each")
    assert stopped.say("pause", "a").returncode == 0
    stopped.until_state("a", "paused")
    until(lambda: not stopped.daemon.rsyncs("a"), 60, "none for the paused one")
    gone: list[int | None] = [None]
    # A new worker starts its rsync after up to a second; by then the paused node would have one, too.
    for _ in range(2):
        gone.append(stopped.daemon.workers()["b"])
        os.kill(stopped.daemon.workers()["b"], signal.SIGKILL)
        until(lambda: stopped.daemon.workers().get("b") not in gone, 60, "another worker")
        until(lambda: stopped.daemon.rsyncs("b"), 60, "an rsync of its own that waits")
    assert not stopped.daemon.rsyncs("a")
    assert stopped.say("resume", "a").returncode == 0
    until(lambda: stopped.daemon.rsyncs("a"), 60, "one for it again")


def test_pause_ends_a_running_transfer_and_loses_nothing(running: Commands) -> None:
    running.rsync.hold("a")
    (running.tree / "file").write_text("x")
    running.rsync.until_held("a")
    assert running.say("pause", "all").returncode == 0
    until(lambda: not running.daemon.rsyncs("a"), 60, "its end")
    for node in "abc":
        running.until_state(node, "paused")
    running.rsync.mend("a")
    assert running.say("resume", "all").returncode == 0
    assert running.say("flush").returncode == 0
    assert (running.copy("a") / "file").read_text() == "x"


def test_resync_repairs_what_was_changed_on_a_node(running: Commands) -> None:
    (running.copy("a") / "file").write_text("tampered")
    (running.copy("b") / "file").write_text("tampered")
    assert running.say("resync", "a").returncode == 0
    until(lambda: (running.copy("a") / "file").read_text() == "content", 60, "a to be mended")
    assert (running.copy("b") / "file").read_text() == "tampered"
    assert running.say("resync", "all").returncode == 0
    until(lambda: (running.copy("b") / "file").read_text() == "content", 60, "b to be mended")


def test_resync_does_not_wait_for_the_next_try(stopped: Commands) -> None:
    stopped.start(rretry=(3600, 3600))
    stopped.rsync.fault("c", "exit 12")
    (stopped.tree / "file").write_text("x")
    stopped.until_state("c", "retrying")
    stopped.rsync.mend("c")
    assert stopped.say("resync", "c").returncode == 0
    stopped.until_level()
    assert (stopped.copy("c") / "file").read_text() == "x"


@pytest.mark.parametrize("every", [0, 86_400])
def test_verify_finds_what_was_changed_on_a_node(stopped: Commands, every: float) -> None:
    stopped.start(rverify=every)
    assert stopped.node("b")["verified_at"] is None
    (stopped.copy("b") / "file").write_text("tampered")
    os.utime(stopped.copy("b") / "file", (1, 1))
    assert stopped.say("verify", "b").returncode == 0
    until(lambda: stopped.node("b")["verified_at"], 60, "b to be verified")
    assert stopped.node("b")["differences"] == 1
    assert stopped.node("a")["verified_at"] is None
    until(lambda: (stopped.copy("b") / "file").read_text() == "content", 60, "b to be mended")


def tamper(copy: Path) -> None:
    (copy / "file").write_text("tampered")
    os.utime(copy / "file", (1, 1))
    (copy / "extra").write_text("of the node")


def test_diff_shows_what_differs_and_changes_nothing(running: Commands) -> None:
    tamper(running.copy("b"))
    done = running.say("diff", "b")
    assert (done.returncode, done.stderr) == (1, "")
    first, *lines = done.stdout.splitlines()
    assert first.startswith("b: 2 differences in ")
    assert sorted(lines) == [f"  content     {running.tree}/file", f"  extra       {running.tree}/extra"]
    assert (running.copy("b") / "file").read_text() == "tampered"
    assert running.node("b")["verified_at"] is None
    done = running.say("diff", "all", "--json")
    assert done.returncode == 1
    found = {one["node"]: one["count"] for one in json.loads(done.stdout)["comparisons"]}
    assert found == {"a": 0, "b": 2, "c": 0}
    assert running.say("diff", "a").returncode == 0


def test_verify_waits_and_shows_what_it_sends_again(running: Commands) -> None:
    tamper(running.copy("b"))
    done = running.say("verify", "b", "--wait", "--timeout", "60")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[0].endswith(", sent again")
    assert running.say("flush").returncode == 0
    assert (running.copy("b") / "file").read_text() == "content"
    assert not (running.copy("b") / "extra").exists()
    assert running.node("b")["differences"] == 2
    assert running.say("verify", "all", "--wait").returncode == 0


def test_resync_waits_until_the_node_is_level(running: Commands) -> None:
    tamper(running.copy("b"))
    done = running.say("resync", "b", "--wait")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("b: compared in full, and level; ")
    assert (running.copy("b") / "file").read_text() == "content"
    done = running.say("resync", "all", "--wait", "--json")
    assert sorted(json.loads(done.stdout)["bytes"]) == ["a", "b", "c"]


def test_comparison_names_a_node_that_cannot_be_compared(running: Commands) -> None:
    assert running.say("pause", "b").returncode == 0
    done = running.say("diff", "b")
    assert (done.returncode, done.stdout) == (2, "b: not compared: is paused\n")
    assert running.say("resume", "b").returncode == 0
    running.until_level()
    running.rsync.fault("b", '[ "$kind" = verify ] && exit 12; exit 12')
    (running.tree / "new").write_text("x")
    running.until_state("b", "retrying")
    done = running.say("diff", "b", "--timeout", "0.2")
    assert (done.returncode, done.stdout) == (2, "b: not compared: was not compared in time\n")
    running.rsync.mend("b")
    running.until_level()


# The daemon ----------------------------------------------------------------------------------------------


def test_accept_mirrors_an_emptied_tree(running: Commands) -> None:
    (running.tree / "second").write_text("second")
    assert running.say("flush").returncode == 0
    done = running.say("accept")
    assert (done.returncode, done.stdout) == (0, "nothing is halted or refused that could be accepted\n")
    os.kill(running.daemon.pid, signal.SIGSTOP)  # so that it is one event
    for name in ("file", "second"):
        (running.tree / name).unlink()
    os.kill(running.daemon.pid, signal.SIGCONT)
    running.until_state("a", "halted")
    done = running.say("status")
    assert done.returncode == 2
    assert f"halted: {running.tree} is empty" in done.stdout
    done = running.say("accept")
    assert (done.returncode, done.stdout) == (0, f"{running.tree}: is mirrored as it is\n")
    until(lambda: not any(os.listdir(running.copy(node)) for node in "abc"), 60, "the nodes to be empty")


def test_reload_takes_a_new_configuration(running: Commands) -> None:
    running.configure(rnodes=[{"node": f"{running.home}/nodes/a/", "name": "z"}])
    assert running.say("reload").returncode == 0
    assert [node["name"] for node in running.status()["nodes"]] == ["z"]
    assert running.status()["master"]["reloaded_at"] is not None


def test_reopen_makes_a_new_log_file(stopped: Commands) -> None:
    log = stopped.home / "the.log"
    stopped.start(logfile=str(log))
    log.rename(stopped.home / "old.log")
    assert stopped.say("reopen").returncode == 0
    until(lambda: "log file reopened" in log.read_text(), 60, "a new file")


def test_stop_returns_when_the_daemon_has_ended(stopped: Commands) -> None:
    for _ in range(3):
        stopped.daemon.start()
        stopped.until_level()
        master = stopped.daemon.pid
        assert stopped.say("stop").returncode == 0
        process = procs.look(master)
        assert process is None or process.state == "Z"
        assert stopped.daemon.wait() == 0
        assert not (stopped.daemon.rundir / "default.pid").exists()


def test_second_daemon_does_not_start_when_the_run_directory_was_removed(running: Commands) -> None:
    shutil.rmtree(running.daemon.rundir)
    second = subprocess.run(
        [sys.executable, str(LAUNCHER), "-c", running.daemon.file],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 1
    assert f"already running with pid {running.daemon.pid}" in second.stderr
    until(lambda: Path(running.socket).is_socket(), 60, "the socket to be made again")
    assert running.say("status").returncode == 0


# Bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["statsu"], "there is no command 'statsu'; did you mean status?"),
        (["x\x1b[2J"], r"there is no command 'x\x1b[2J'"),
        (["status", "aa"], "there is no node 'aa'; did you mean a?"),
        (["pause", "zzz"], "there is no node 'zzz'; there are a, b, c"),
        (["pause"], "-s pause of which node? Say its name, or all"),
        (["reload", "a"], "-s reload takes no node"),
        (["status", "--timeout", "3"], "--timeout belongs to -s flush, -s diff, -s hold, and --wait"),
        (["verify", "a", "--timeout", "3"], "--timeout belongs to -s flush, -s diff, -s hold, and --wait"),
        (["pause", "a", "--wait"], "--wait belongs to -s resync and -s verify"),
        (["flush", "--timeout", "soon"], "invalid number of seconds value: 'soon'"),
        (["flush", "--timeout", "-1"], "argument"),
        (["flush", "--lag", "1"], "--lag belongs to -s status"),
        (["status", "-d"], "-s asks a daemon that runs"),
    ],
)
def test_wrong_usage_is_one_clear_line(shared: Commands, words: list[str], expected: str) -> None:
    done = shared.say(*words)
    assert done.returncode == 64
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("words", [["--json"], ["--timeout", "1"], ["a"], ["--lag", "2"]])
def test_options_of_a_command_need_a_command(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(LAUNCHER), *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 64
    assert "-s COMMAND" in done.stderr


def test_node_is_known_by_its_address_or_its_name(shared: Commands) -> None:
    for text in ("a", f"{shared.home}/nodes/a/", f"{shared.home}/nodes/a"):
        assert [node["name"] for node in shared.status(text)["nodes"]] == ["a"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """A running daemon for tests that change nothing."""
    home = tmp_path_factory.mktemp("shared")
    daemon = Daemon(home / "daemon", {})
    made = Commands(home, daemon, FakeRsync(home / "fake"))
    made.tree.mkdir()
    (made.tree / "file").write_text("content")
    try:
        made.start()
        yield made
    finally:
        daemon.close()


@pytest.mark.skipif(not ROOT, reason="only root can be another user")
def test_other_user_is_refused_in_one_line(shared: Commands) -> None:
    for path in (shared.daemon.rundir, Path(shared.socket)):
        assert path.stat().st_mode & 0o077 == 0

    def asked() -> object:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        return ask(shared.socket, {"command": "status"})

    refusal = in_child(asked, lambda problem: f"{getattr(problem, 'code', repr(problem))} {problem}")
    # Whose it is cannot be seen from outside of a directory that is closed as well.
    assert re.fullmatch(rf"77 {shared.socket}: only (root|its owner) may ask this daemon", refusal)


def test_clients_that_are_silent_or_send_garbage_delay_nothing(shared: Commands) -> None:
    silent = []
    with contextlib.ExitStack() as stack:
        for number in range(200):
            client = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):  # the backlog is full
                client.connect(shared.socket)
                silent.append(client)
                if number % 2:
                    client.send(b"\xff{{{\n" * 3)
        assert len(silent) > 100
        (shared.tree / "file").write_text("through all of it")
        for node in "abc":
            path = shared.copy(node) / "file"
            until(lambda: path.read_text() == "through all of it", 60, node)  # noqa: B023
        # It asks when those in front of it have been let go.
        assert shared.say("status").returncode == 0
    script = "import sys; from inosync.console.client import Client\n"
    script += (
        "for _ in range(250):\n with Client(sys.argv[1], 60) as client: client.ask({'command': 'status'})\n"
    )
    many = [
        subprocess.Popen(
            [sys.executable, "-c", script, shared.socket],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(4)
    ]
    (shared.tree / "file").write_text("and that")
    assert shared.say("flush", "--timeout", "60").returncode == 0
    assert [process.wait(120) for process in many] == [0] * 4
    assert shared.say("status").returncode == 0


def test_command_given_up_by_its_client_is_not_done_later(running: Commands) -> None:
    pid = running.daemon.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(Refused) as refused:
            ask(running.socket, {"command": "pause", "node": "all"}, 0.2)
        assert refused.value.code == 75
        # One that is still there, but will not wait for long enough.
        late = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        late.connect(running.socket)
        request = {"command": "pause", "node": "all", "until": time.monotonic() + 0.1}
        late.sendall(json.dumps(request).encode() + b"\n")
        time.sleep(0.2)
    finally:
        os.kill(pid, signal.SIGCONT)
    with late:
        assert json.loads(late.recv(1 << 16)) == {"error": "asked for too late: not done", "code": 75}
    assert {node["state"] for node in running.status()["nodes"]} == {"ok"}
    assert ": paused" not in running.daemon.log()


def test_flushes_that_wait_do_not_lock_the_operator_out(running: Commands) -> None:
    running.rsync.hold("b")
    (running.tree / "file").write_text("never there")
    running.rsync.until_held("b")
    running.until_state("b", "syncing", "lagging")
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            client = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            client.connect(running.socket)
            client.sendall(b'{"command": "flush"}\n')
        for command, code in ((["status"], 1), (["resync", "a"], 0), (["flush", "--timeout", "1"], 75)):
            asked = time.monotonic()
            done = running.say(*command)
            assert done.returncode == code, f"{command}\n{done.stdout}\n{running.daemon.log_tail()}"
            assert time.monotonic() - asked < 60
    running.rsync.mend("b")
    running.until_level()
    assert running.say("flush", "--timeout", "60").returncode == 0


@pytest.mark.parametrize("timeout", ["1e308", "1e10", "-1", "true", '"5"', "1" + "0" * 400, "NaN", "[]"])
def test_flush_with_an_impossible_timeout_is_refused(shared: Commands, timeout: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(shared.socket)
        client.sendall(b'{"command": "flush", "timeout": %s}\n' % timeout.encode())
        reply = json.loads(client.recv(1 << 16))
    assert reply["code"] == 64
    assert reply["error"].startswith("timeout: not a number of seconds")
    assert shared.say("flush", "--timeout", "1e300").returncode == 64
    assert shared.say("status").returncode == 0


def test_comparison_of_a_paused_node_says_that_it_waits_for_resume(running: Commands) -> None:
    assert running.say("pause", "b").returncode == 0
    for command in ("verify", "resync"):
        done = running.say(command, "all")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "b is paused: it is compared when it is resumed\n"
        assert running.say(command, "a").stdout == ""
    assert running.say("resume", "b").returncode == 0
    running.until_level()


# top -----------------------------------------------------------------------------------------------------


def test_top_shows_nodes_live_and_restores_the_terminal(running: Commands) -> None:
    ours, theirs = pty.openpty()
    with open(ours, "r+b", buffering=0) as screen:
        process = subprocess.Popen(
            running.command("top"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "COLUMNS": "150", "LINES": "20", "PYTHONIOENCODING": "utf-8"},
        )
        os.close(theirs)
        shown = b""

        def has(*texts: str) -> bool:
            nonlocal shown
            while select.select([screen], [], [], 0.05)[0]:
                try:
                    shown += os.read(screen.fileno(), 1 << 16)
                except OSError:  # EIO: the other side has ended
                    break
            return all(text.encode() in shown for text in texts)

        until(lambda: has("3 nodes: 3 ok", "NODE", "▁", "q: leave"), 60, "the first screen")
        running.rsync.hold("b")
        (running.tree / "file").write_text("x")
        until(lambda: has("█"), 60, "lag as a mark")
        screen.write(b"x")
        screen.write(b"q")
        assert process.wait(60) == 0
        has()
        assert shown.count(b"\x1b[?1049h") == shown.count(b"\x1b[?1049l") == 1
    running.rsync.mend("b")


def test_top_without_a_terminal_says_so(shared: Commands) -> None:
    done = shared.say("top", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (64, "inosync: top needs a terminal; use status\n")


def test_status_ends_silently_when_its_reader_is_gone(shared: Commands) -> None:
    process = subprocess.Popen(
        shared.command("status", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    process.wait(60)
