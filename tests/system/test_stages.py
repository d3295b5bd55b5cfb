"""Roll-outs in stages: what a stage gets, what holds it, and what lets it go on."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.daemon import LAUNCHER, Daemon, MakeDaemon
from support.wait import until

LIMIT_SECONDS = 60.0
CHECK = """#!/bin/sh
# Passes unless the first node of the stage has a file "bad"; notes what it was told.
{
    echo "$INOSYNC_EVENT $INOSYNC_STAGE nodes $INOSYNC_NODES full $INOSYNC_FULL"
    [ -n "$INOSYNC_NAMES" ] && tr '\\0' '\\n' < "$INOSYNC_NAMES"
} >> HOME/asked
if [ -e HOME/nodes/a/bad ]; then
    echo "a page is broken"
    exit 3
fi
"""


@dataclass
class Farm:
    """A daemon with three local nodes in three stages, and the check between them."""

    home: Path
    daemon: Daemon

    def configure(self, **more: object) -> None:
        settings = {
            "wpaths": [str(self.home / "tree")],
            "rpaths": ["/"],
            "rnodes": [{"node": f"{self.home}/nodes/{name}", "name": name} for name in "abc"],
            "rstages": [["a"], ["b"], "rest"],
            "equiet": 0.0,
            "rretry": (0.1, 0.5),
            "on_stage": {"command": [str(self.home / "check")], "settle": 0.1},
        }
        self.daemon.configure(settings | more)

    def write(self, name: str, text: str = "x") -> None:
        path = self.home / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def has(self, node: str, name: str) -> bool:
        return (self.home / "nodes" / node / name).exists()

    def until_has(self, node: str, name: str) -> None:
        until(lambda: self.has(node, name), LIMIT_SECONDS, f"{name} on {node}")

    def say(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, str(LAUNCHER), "-c", str(self.daemon.file), "-s", *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60)

    def reload(self, **more: object) -> None:
        self.configure(**more)
        done = self.say("reload")
        assert done.returncode == 0, done.stderr

    def described(self, node: str) -> dict[str, Any]:
        (found,) = (one for one in self.daemon.ask("status")["nodes"] if one["name"] == node)
        return dict(found)

    def until_reason(self, node: str, reason: str) -> None:
        until(lambda: reason in self.described(node)["reason"], LIMIT_SECONDS, f"{node}: {reason}")

    def until_state(self, node: str, state: str) -> dict[str, Any]:
        until(lambda: self.described(node)["state"] == state, LIMIT_SECONDS, f"{node} is {state}")
        return self.described(node)

    def asked(self) -> list[str]:
        path = self.home / "asked"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def farm(tmp_path: Path, daemon: MakeDaemon) -> Farm:
    (tmp_path / "tree").mkdir()
    for name in "abc":
        (tmp_path / "nodes" / name).mkdir(parents=True)
    check = tmp_path / "check"
    check.write_text(CHECK.replace("HOME", str(tmp_path)))
    check.chmod(0o755)
    made = Farm(tmp_path, daemon({}))
    made.write("first")
    made.configure()
    return made


def test_roll_out_goes_from_stage_to_stage_unless_a_check_fails(farm: Farm) -> None:
    farm.daemon.start()
    for node in "abc":
        farm.until_has(node, "first")
    assert farm.asked()[0] == "stage 1 nodes a full 1"
    farm.until_state("c", "ok")  # a full mirror that runs would take along what is written now
    farm.write("page")
    farm.until_has("c", "page")
    farm.until_state("c", "ok")
    assert f"{farm.home}/tree/page" in farm.asked()

    farm.write("bad")
    farm.until_has("a", "bad")
    held = farm.until_state("b", "held")
    assert held["reason"] == "stage 1 was not let pass: on_stage ended with exit code 3: a page is broken"
    assert held["pending"] == 1
    assert held["lag"] > 0
    farm.until_state("c", "held")
    assert farm.say("flush", "--stage", "1").returncode == 0
    done = farm.say("flush")
    assert done.returncode == 1, "what is held does not come by waiting"
    assert "held" in done.stderr
    farm.write("later")
    farm.until_has("a", "later")
    assert not farm.has("b", "later")

    os.unlink(farm.home / "tree" / "bad")  # the fix rolls out as the fault does
    farm.until_has("c", "later")
    farm.until_state("c", "ok")
    assert not farm.has("b", "bad")
    assert not farm.has("c", "bad")


def test_operator_lets_go_or_has_asked_again_what_is_held(farm: Farm) -> None:
    farm.daemon.start()
    farm.until_state("c", "ok")
    farm.write("bad")
    farm.until_state("b", "held")
    asked = len(farm.asked())
    assert farm.say("retry").stdout == "stage 1: is checked again\n"
    until(lambda: len(farm.asked()) > asked, LIMIT_SECONDS, "it is asked again")
    farm.until_state("b", "held")
    assert farm.say("accept").stdout == "stage 1: what was not let pass goes on\n"
    farm.until_has("b", "bad")
    farm.until_state("c", "held")  # the second stage has a check of its own
    assert farm.say("accept").stdout == "stage 2: what was not let pass goes on\n"
    farm.until_has("c", "bad")
    assert farm.say("retry").stdout == "no stage was refused\n"


def test_hold_of_a_stage_outlives_a_restart_and_ends_without_stages(farm: Farm) -> None:
    farm.daemon.start()
    farm.until_state("c", "ok")
    farm.write("bad")
    farm.until_state("b", "held")
    farm.daemon.stop()
    farm.daemon.start()
    farm.until_state("b", "held")
    assert not farm.has("b", "bad")
    farm.reload(rstages=None, on_stage=None)
    farm.until_has("b", "bad")
    farm.until_has("c", "bad")


def test_dead_node_of_a_stage_is_given_up_after_patience(farm: Farm) -> None:
    (farm.home / "nodes" / "b").rmdir()
    (farm.home / "nodes" / "b").write_text("not a directory: rsync fails")
    farm.configure(rstages=[["a", "b"], ["c"]], on_stage={"patience": 1.0})
    farm.daemon.start()
    farm.until_has("c", "first")
    assert "stage 1: b: not waited for any more" in farm.daemon.log()


def test_on_stage_says_what_is_checked_and_how_soon(farm: Farm) -> None:
    check = {"command": [str(farm.home / "check")], "only": ["*.html"]}
    other = farm.home / "other"
    other.mkdir()
    trees = {"wpaths": [str(farm.home / "tree"), str(other)], "rpaths": ["/www", "/other"], "edelay": 0.2}
    farm.configure(on_stage=check, **trees)
    farm.daemon.start()
    for node in "abc":
        farm.until_state(node, "ok")
    asked = farm.asked()
    farm.write("picture")
    farm.until_has("c", "www/picture")
    assert farm.asked() == asked, "nothing that matters has changed"
    (other / "page.html").write_text("x")
    farm.until_has("c", "other/page.html")
    facts = farm.asked()[len(asked) :]
    assert [line for line in facts if line.startswith("/")] == [f"{other}/page.html"] * 2
    assert [line.split()[1] for line in facts if line.startswith("stage")] == ["1", "2"]

    farm.reload(on_stage={**check, "settle": 10_000.0}, **trees)
    farm.write("second.html")
    farm.until_has("a", "www/second.html")
    farm.until_reason("b", "stage 1 is checked in ")
    assert farm.say("retry").stdout == "no stage was refused\n"
    assert farm.say("accept").stdout == "nothing is halted or refused that could be accepted\n"
    done = farm.say("flush", "--timeout", "0.1")
    assert "stage 1 is checked in" in done.stderr, "a flush waits for a check that is still to run"
    assert not farm.has("b", "www/second.html")
    farm.reload(on_stage=check, **trees)
    farm.until_has("c", "www/second.html")


def test_paused_nodes_of_a_stage_are_not_waited_for_unless_all_are(farm: Farm) -> None:
    farm.configure(rstages=[["a", "b"], ["c"]], on_stage=None)
    farm.daemon.start()
    farm.until_state("c", "ok")
    farm.say("pause", "b")
    farm.write("page")
    farm.until_has("c", "page")
    assert not farm.has("b", "page")
    farm.say("pause", "a")
    farm.write("second")
    assert farm.until_state("c", "held")["reason"] == "all nodes of stage 1 are paused"
    done = farm.say("flush", "c")
    assert (done.returncode, farm.has("c", "second")) == (1, False)
    assert "held: all nodes of stage 1 are paused" in done.stderr
    farm.say("resume", "a")
    farm.until_has("c", "second")
    farm.say("resume", "b")
    farm.until_has("b", "second")


def test_full_mirror_of_a_held_node_waits_and_so_does_a_new_node(farm: Farm) -> None:
    farm.daemon.start()
    farm.until_state("c", "ok")
    farm.write("bad")
    farm.until_state("b", "held")
    done = farm.say("resync", "b", "--wait")
    assert done.returncode == 1, "it ends, because waiting does not help"
    assert "held: stage 1 was not let pass" in done.stderr
    (farm.home / "nodes" / "d").mkdir()
    names = "abcd"
    nodes = [{"node": f"{farm.home}/nodes/{name}", "name": name} for name in names]
    farm.reload(rnodes=nodes)
    farm.until_state("b", "held")
    farm.until_state("d", "held")
    assert not farm.has("b", "bad")
    farm.reload(rnodes=nodes, rstages=[["a"], ["d"], ["c"], ["b"]])  # other stages: all is checked again
    farm.until_state("b", "held")
    assert not any(farm.has(name, "bad") for name in "bcd")
    os.unlink(farm.home / "tree" / "bad")
    for name in names:
        farm.until_state(name, "ok")
    assert farm.has("d", "first")
    farm.write("bad")
    farm.until_has("a", "bad")
    farm.reload(rnodes=nodes, rstages=[["a", "b"], ["c", "d"]])
    farm.until_has("b", "bad")  # it belongs to the first stage now
    farm.until_state("c", "held")


def test_check_that_hangs_floods_or_dies_does_not_pass(farm: Farm) -> None:
    def check(script: str, timeout: float = 60.0) -> dict[str, object]:
        return {"command": ["/bin/sh", "-c", script], "timeout": timeout}

    lost = farm.home / "lost"
    lost.write_text("#!/bin/sh\n")
    lost.chmod(0o755)
    farm.configure(on_stage=check("sleep 1000 & wait", 0.3))
    farm.daemon.start()
    farm.until_reason("b", "on_stage was ended after 0.3 s")
    flood = "head -c 5000000 /dev/zero | tr '\\0' x; echo; echo the end; exit 4"
    cases: list[tuple[dict[str, object], str]] = [
        (check(flood), "on_stage ended with exit code 4: the end"),
        (check("kill -9 $$"), "on_stage was killed by signal 9"),
        ({"command": [str(lost)]}, "on_stage cannot be started: "),
    ]
    for on_stage, reason in cases:
        farm.reload(on_stage=on_stage)
        lost.write_text("#!/no/shell\n")  # after it was looked at
        assert farm.say("retry").stdout == "stage 1: is checked again\n"
        farm.until_reason("b", reason)
        assert not farm.has("b", "first")
    farm.reload(on_stage=check("exit 0"))
    farm.say("retry")
    farm.until_has("c", "first")


def test_once_rolls_out_in_stages_and_ends_when_nothing_comes_any_more(farm: Farm) -> None:
    def once() -> int:
        argv = [sys.executable, str(LAUNCHER), "-c", str(farm.daemon.file), "--once"]
        return subprocess.run(argv, capture_output=True, timeout=LIMIT_SECONDS, check=False).returncode

    assert once() == 0
    assert farm.has("c", "first")
    assert [line.split()[1] for line in farm.asked() if line.startswith("stage")][-1] == "2"
    farm.write("bad")
    assert once() != 0, "it is refused"
    assert farm.has("a", "bad")
    assert not farm.has("b", "bad")
    os.unlink(farm.home / "tree" / "bad")
    farm.write("page")
    assert once() == 0, "the fix goes through, although the stage has the fault at first"
    assert farm.has("c", "page")
    (farm.home / "nodes" / "a").rename(farm.home / "away")
    (farm.home / "nodes" / "a").write_text("not a directory: rsync fails")
    farm.write("second")
    assert once() != 0, "the second stage waits for a dead node"
    assert not farm.has("b", "second")
