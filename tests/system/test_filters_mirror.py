"""Filter rules at work: a node ends where rsync, called by hand with the same rules, would have it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.churn import Churn
from support.daemon import Daemon, MakeDaemon
from support.wait import until

RSYNC = shutil.which("rsync") or ""
pytestmark = pytest.mark.skipif(not RSYNC, reason="rsync is not installed")

FAST = {"edelay": 0.3, "equiet": 0.02, "rretry": (0.2, 1)}


def apart(tree: Path, copy: Path, rules: Sequence[str]) -> str:
    """What rsync would do to make a copy level, by its own words; "" for nothing.

    Times of directories do not count: they change with what is excluded in them, and nobody is told.
    """
    argv = [RSYNC, "-rlptgoDniO", "--delete", "--modify-window=-1", "--out-format=%i %n", *rules]
    done = subprocess.run(
        [*argv, f"{tree}/", f"{copy}/"],
        capture_output=True,
        timeout=60,
        check=False,
        text=True,
        errors="replace",
    )
    changes = [line for line in done.stdout.splitlines() if not re.match(r"\.d\.\.t\.+ ", line)]
    return done.stderr + "\n".join(changes)


class Field:
    """Trees that churn, two local nodes, and the rules that each of them has for each tree."""

    def __init__(self, home: Path, make: MakeDaemon, rules: dict[str, list[str]], **settings: object) -> None:
        self.home = home
        self.trees = [home / "trees" / name for name in rules]
        self.copies = {node: home / "nodes" / node for node in ("one", "two")}
        for path in (*self.trees, *self.copies.values()):
            path.mkdir(parents=True)
        self.of_trees = list(rules.values())
        own = {"name": "two", "rexcludes": ["+ lib", "+ *.html", "b*"], "extra": ["--exclude=data"]}
        config: dict[str, object] = {
            "wpaths": [str(tree) for tree in self.trees],
            "rpaths": [tree.name for tree in self.trees],
            "rnodes": [
                {"node": f"{self.copies['one']}/", "name": "one"},
                {"node": f"{self.copies['two']}/", **own},
            ],
            "rexcludes": {
                str(tree): patterns for tree, patterns in zip(self.trees, self.of_trees, strict=True)
            },
            **FAST,
            **settings,
        }
        self.daemon: Daemon = make(config, ("-v",))

    def level(self, extra: Sequence[str], churns: Sequence[Churn]) -> None:
        """Wait until every node is where rsync would have it, ``extra`` being the file's."""
        own = ["--include=lib", "--include=*.html", "--exclude=b*"]

        def missing() -> str:
            if "Traceback" in self.daemon.log():
                raise AssertionError("a traceback in the log")
            for tree, patterns in zip(self.trees, self.of_trees, strict=True):
                words = [f"--exclude={pattern}" for pattern in patterns]
                for node, rules in (
                    ("one", [*words, *extra]),
                    ("two", [*own, *words, *extra, "--exclude=data"]),
                ):
                    if found := apart(tree, self.copies[node] / tree.name, rules):
                        return f"{node}, {tree.name}:\n{found}"
            return ""

        def arrived() -> bool:
            return set(self.daemon.states().values()) == {"ok"} and not missing()

        try:
            until(arrived, 90, "the nodes to be level")
        except AssertionError as error:
            tails = "\n".join(churn.tail(60) for churn in churns)
            raise AssertionError(f"{error}\n{missing()}\n{tails}\n{self.daemon.log_tail()}") from None


RULES: dict[str, list[str]] = {
    "names": ["*.txt", "/a/", "lib", "[!a-z]*"],
    "few": ["+ */", "+ *.html", "+ d*", "*"],
    "deep": ["b/", "/c/**/d", "d/a", "/data/***"],
    "none": [],
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "extra",
    [
        ["--exclude=x.txt", "-f", "H d/"],
        ["--filter=-! *[a-z]*", "--delete-excluded"],
        ["--filter", "-s c", "--include=data", "--exclude=/*/a"],
    ],
    ids=["hidden", "delete-excluded", "sides"],
)
def test_rules_hold_under_churn(tmp_path: Path, daemon: MakeDaemon, seed: int, extra: list[str]) -> None:
    field = Field(tmp_path, daemon, RULES, extra=extra)
    churns = [Churn(os.fsencode(tree), seed + number) for number, tree in enumerate(field.trees)]
    for churn in churns:
        churn.run(150)
    field.daemon.start(ready=False)
    for seconds in (2, 0, 1):
        for churn in churns:
            churn.run(150, seconds / len(churns))
        field.level(extra, churns)
