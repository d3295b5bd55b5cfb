"""A restart sends what has changed meanwhile, and a full mirror only where the log says why."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import procs
from support.daemon import Daemon, MakeDaemon
from support.wait import until

NODES = ("a", "b")
SETTLE_SECONDS = 2.5
"""Longer than what a restart looks back, because of file systems with coarse times."""


class Setup:
    """A daemon with two local nodes, whose tree is level and has not changed for a while."""

    def __init__(self, home: Path, daemon: MakeDaemon) -> None:
        self.home, self.tree = home, home / "tree"
        for path in ("a/b/c", "d", "e"):
            (self.tree / path).mkdir(parents=True)
        for path in ("top", "a/1", "a/b/2", "a/b/c/3", "d/4", "e/5"):
            (self.tree / path).write_text(path)
        self.settings: dict[str, Any] = {
            "wpaths": [str(self.tree)],
            "rpaths": [""],
            "rnodes": [{"node": f"{home}/{name}/", "name": name} for name in NODES],
            "edelay": 1.0,
            "equiet": 0,
            "rretry": (0.1, 0.5),
        }
        self.daemon: Daemon = daemon(self.settings)
        self.seen = 0

    def begin(self) -> None:
        self.daemon.start()
        self.until_level()
        self.daemon.until_kept()
        time.sleep(SETTLE_SECONDS)

    def until_level(self) -> None:
        self.daemon.until_level([(self.tree, self.home / name) for name in NODES])

    def state(self) -> Path:
        (found,) = self.daemon.statedir.glob("*.state")
        return found

    def restart(self, meanwhile: Callable[[], object] = lambda: None, *args: str, **settings: object) -> None:
        """Stop it, make changes, and start it with other settings; until all is level."""
        assert self.daemon.stop() == 0
        meanwhile()
        self.start(*args, **settings)

    def start(self, *args: str, **settings: object) -> None:
        if settings:
            self.settings |= settings
            self.daemon.configure(self.settings)
        self.daemon.args, self.seen = args, len(self.daemon.log())
        self.daemon.start()
        self.until_level()

    def log(self) -> str:
        """Return what the last start has logged."""
        return self.daemon.log()[self.seen :]

    def nodes(self) -> dict[str, dict[str, Any]]:
        return {node["name"]: node for node in self.daemon.ask("status")["nodes"]}

    def fulls(self) -> dict[str, int]:
        return {name: node["fulls"] for name, node in self.nodes().items()}

    def reasons(self) -> list[str]:
        return re.findall(r"full mirror to .*, because .*", self.log())


def set_attribute(path: Path, attribute: str) -> None:
    """Make a directory immutable, or not; skip where that is impossible."""
    done = subprocess.run(["chattr", attribute, path], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"chattr: {done.stderr.strip()}")


@pytest.fixture
def setup(tmp_path: Path, daemon: MakeDaemon) -> Setup:
    made = Setup(tmp_path, daemon)
    made.begin()
    return made


def change(tree: Path) -> None:
    (tree / "a/b/c/3").write_text("other")
    (tree / "e").rename(tree / "a/e")
    (tree / "d/4").unlink()
    (tree / "new/deep").mkdir(parents=True)
    (tree / "new/deep/6").write_text("new")
    os.utime(tree / "top", (1, 1))


def test_stop_and_start_send_what_has_changed_meanwhile(setup: Setup) -> None:
    setup.restart(lambda: change(setup.tree))
    assert setup.fulls() == {"a": 0, "b": 0}
    assert "since the last process, for 2 nodes" in setup.log()
    assert setup.reasons() == []


def test_nothing_is_sent_if_nothing_has_changed(setup: Setup) -> None:
    before = setup.daemon.ask("events")["events"]
    assert {event["node"] for event in before} == {"a", "b"}
    setup.restart()
    assert setup.daemon.ask("events")["events"][: len(before)] == before
    assert len(setup.daemon.ask("events")["events"]) > len(before)
    assert {name: node["batches"] for name, node in setup.nodes().items()} == {"a": 0, "b": 0}
    assert re.search("0 changes since the last process", setup.log())


def test_killed_with_all_its_processes_it_needs_no_full_mirror(setup: Setup) -> None:
    old = setup.state().read_bytes()
    (setup.tree / "before").write_text("x")
    setup.until_level()
    until(lambda: setup.state().read_bytes() != old, 30, "a newer state")
    for meanwhile in (
        lambda: change(setup.tree),
        lambda: (setup.state().write_bytes(old), (setup.tree / "a/e").rename(setup.tree / "e")),
    ):
        for process in procs.family([setup.daemon.pid]):
            procs.send(process, signal.SIGKILL)
        setup.daemon.wait()
        meanwhile()
        setup.start()
        assert setup.fulls() == {"a": 0, "b": 0}


def test_first_full_mirror_that_had_not_come_through_is_made_again(
    tmp_path: Path, daemon: MakeDaemon
) -> None:
    setup = Setup(tmp_path, daemon)
    (setup.home / "b").touch()
    setup.daemon.start()
    until(lambda: setup.daemon.state("a") == "ok" and setup.nodes()["b"]["failures"], 60, "one node")
    assert setup.daemon.stop() == 0
    (setup.home / "b").unlink()
    setup.start()
    assert setup.fulls() == {"a": 0, "b": 1}
    assert setup.reasons() == ["full mirror to b, because its last full mirror had not come through"]


def test_file_that_was_open_at_the_kill_is_sent(setup: Setup) -> None:
    with (setup.tree / "open").open("wb", buffering=0) as file:
        file.write(b"written long before the kill")
        until(lambda: b"open" in setup.state().read_bytes(), 30, "the open file in the state")
        time.sleep(SETTLE_SECONDS)
        setup.daemon.kill9()
    setup.start()
    assert setup.fulls() == {"a": 0, "b": 0}


def test_node_that_was_behind_gets_its_own_changes(setup: Setup) -> None:
    setup.daemon.ask("pause", node="a")
    (setup.tree / "while paused").write_text("x")
    until(lambda: (setup.home / "b/while paused").exists(), 30, "the other node")
    time.sleep(SETTLE_SECONDS)
    assert setup.daemon.stop() == 0
    setup.daemon.start()
    until(lambda: setup.nodes()["b"]["state"] == "ok", 30, "the other node to be ok")
    assert setup.nodes()["a"]["state"] == "paused"
    assert not (setup.home / "a/while paused").exists()
    setup.daemon.ask("resume", node="a")
    setup.until_level()
    assert setup.fulls() == {"a": 0, "b": 0}


def test_name_that_failed_is_owed_after_the_start(setup: Setup) -> None:
    set_attribute(setup.home / "a", "+i")
    try:
        (setup.tree / "top").write_text("new")
        until(lambda: setup.nodes()["a"]["state"] == "degraded", 60, "the node to be degraded")
        assert setup.daemon.stop() == 0
        assert re.search(rb'"top".*"problem":"[^"]*mkstemp.*not permitted', setup.state().read_bytes())
        setup.daemon.start()
        until(lambda: setup.daemon.state("a") == "degraded", 60, "the node to be degraded again")
    finally:
        set_attribute(setup.home / "a", "-i")
    setup.until_level()
    assert setup.fulls() == {"a": 0, "b": 0}


def test_verification_times_survive(setup: Setup) -> None:
    setup.daemon.ask("verify", node="all")
    until(lambda: all(node["verified_at"] for node in setup.nodes().values()), 60, "the verification")
    before = {name: node["verified_at"] for name, node in setup.nodes().items()}
    setup.restart()
    after = {name: node["verified_at"] for name, node in setup.nodes().items()}
    assert all(abs(after[name] - before[name]) < 1 for name in NODES)


def test_hold_survives_a_restart(setup: Setup) -> None:
    setup.daemon.ask("hold")
    (setup.tree / "while held").write_text("x")
    assert setup.daemon.stop() == 0
    setup.daemon.start()
    until(lambda: setup.nodes()["a"]["reason"] == "held by the operator until release", 30, "the reason")
    assert not (setup.home / "a/while held").exists()
    setup.daemon.ask("release")
    setup.until_level()
    assert (setup.home / "a/while held").exists()


def test_full_option_compares_everything_and_keeps_pauses(setup: Setup) -> None:
    setup.daemon.ask("pause", node="a")
    assert setup.daemon.stop() == 0
    setup.daemon.args = ("--full",)
    setup.daemon.start()
    until(lambda: setup.nodes()["b"]["state"] == "ok", 30, "the other node to be ok")
    assert setup.nodes()["a"]["state"] == "paused"
    setup.daemon.ask("resume", node="a")
    setup.until_level()
    assert setup.fulls() == {"a": 1, "b": 1}
    assert "because of --full" in setup.daemon.log()


def replace_root(setup: Setup) -> None:
    shutil.copytree(setup.tree, setup.home / "other", symlinks=True)
    shutil.rmtree(setup.tree)
    (setup.home / "other").rename(setup.tree)


def spoil(setup: Setup, data: bytes) -> None:
    setup.state().write_bytes(data)


REASONS: dict[str, tuple[Callable[[Setup], object], dict[str, object], str]] = {
    "root": (replace_root, {}, "its root is another directory than before"),
    "rules": (lambda _s: None, {"rexcludes": ["/none"]}, "its filter rules have changed"),
    "extra": (lambda _s: None, {"extra": "--partial"}, "its extra has changed"),
    "emask": (lambda _s: None, {"emask": ["IN_CLOSE_WRITE", "IN_MOVED_TO"]}, "emask has changed"),
    "rdelete": (
        lambda _s: None,
        {"rdelete": "startup"},
        'rdelete is "startup", and tells starts from changes',
    ),
    "empty": (lambda s: spoil(s, b""), {}, "the state is empty"),
    "torn": (
        lambda s: spoil(s, s.state().read_bytes()[:-9]),
        {},
        "the state is damaged: its checksum is wrong",
    ),
    "version": (
        lambda s: spoil(s, s.state().read_bytes().replace(b"state 1", b"state 9", 1)),
        {},
        "the state is of another version of inosync (format '9', not 1)",
    ),
    "none": (lambda s: s.state().unlink(), {}, "the state does not exist yet"),
}


@pytest.mark.parametrize("case", REASONS)
def test_full_mirror_has_its_reason_in_the_log(case: str, setup: Setup) -> None:
    spoiled, settings, why = REASONS[case]
    setup.restart(lambda: spoiled(setup), **settings)
    assert setup.fulls() == {"a": 1, "b": 1}
    (reason,) = setup.reasons()
    assert reason.startswith(f"full mirror to all nodes, because {why}")


def test_other_rpath_of_one_node_is_a_full_mirror_of_that_one(setup: Setup) -> None:
    nodes = [{"node": f"{setup.home}/c/", "name": "a"}, setup.settings["rnodes"][1]]
    assert setup.daemon.stop() == 0
    setup.daemon.configure({**setup.settings, "rnodes": nodes})
    setup.daemon.start()
    setup.daemon.until_level([(setup.tree, setup.home / name) for name in "cb"])
    assert setup.fulls() == {"a": 1, "b": 0}
    assert "full mirror to a, because the node is another place now" in setup.daemon.log()


def test_state_that_cannot_be_written_is_one_warning_and_full_mirrors(setup: Setup) -> None:
    shutil.rmtree(setup.daemon.statedir)
    setup.daemon.statedir.touch()
    for number in range(2):
        (setup.tree / f"new{number}").touch()
        setup.until_level()
        time.sleep(SETTLE_SECONDS)
    assert setup.daemon.log().count("the state is not kept, and the next start makes full mirrors") == 1
    assert setup.daemon.stop() == 0
    setup.daemon.statedir.unlink()
    setup.daemon.statedir.symlink_to("nowhere")
    setup.start()
    assert setup.fulls() == {"a": 1, "b": 1}
    assert "no state is kept, and each start makes full mirrors" in setup.log()


def test_node_added_meanwhile_is_the_only_one_that_is_mirrored_in_full(setup: Setup) -> None:
    added = [*setup.settings["rnodes"], {"node": f"{setup.home}/c/", "name": "c"}]
    setup.restart(lambda: change(setup.tree), rnodes=added)
    setup.daemon.until_level([(setup.tree, setup.home / "c")])
    assert setup.fulls() == {"a": 0, "b": 0, "c": 1}
    assert setup.reasons() == ["full mirror to c, because it was not mirrored there before"]


def test_more_changes_than_the_journal_holds_are_a_full_mirror(tmp_path: Path, patched: Any) -> None:
    small = "from inosync.journal import journal; journal.Journal.__init__.__defaults__ = (3, 1000)"
    setup = Setup(tmp_path, patched(small))
    setup.begin()

    def make_many() -> None:
        for number in range(9):
            (setup.tree / f"a/b/new{number}").mkdir()

    setup.restart(make_many)
    assert setup.fulls() == {"a": 1, "b": 1}
    assert "because more has changed meanwhile than the journal holds" in setup.log()
