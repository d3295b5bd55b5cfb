"""How rsync is called: what is kept of an argument vector is never out of date."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inosync.changes import Lane, Part
from inosync.rsync.argv import CONFINE_ROOT, TransferSettings
from inosync.system.loop import Loop
from inosync.worker.calls import RsyncCalls


class World:
    """What the calls depend on."""

    def __init__(self, home: Path) -> None:
        self.home = home
        for name in ("first", "second"):
            (home / name).mkdir()
        self.tree = home / "tree"
        self.tree.symlink_to("first")
        self.rsync = home / "rsync"
        self.write_rsync(0)
        trees = {1: TransferSettings(str(self.rsync), str(self.tree), "host::m/t")}
        self.job = SimpleNamespace(trees=trees, timeout=5.0)
        self.ssh = SimpleNamespace(rsh="", rsh_direct="direct", note_try=lambda: None)
        self.throttle = SimpleNamespace(limit=0)
        self.refused = SimpleNamespace(list_missing=True, stats=True, max_size=True)
        self.lanes = SimpleNamespace(big_size=0)
        parts: list[Any] = [self.job, self.ssh, self.throttle, self.refused, self.lanes, Loop()]
        self.calls = RsyncCalls(*cast(Any, parts))

    def write_rsync(self, code: int) -> None:
        """Have an rsync that accepts options, or does not."""
        fresh = self.home / "fresh"
        fresh.write_text(f"#!/bin/sh\nexit {code}\n")
        fresh.chmod(0o755)
        fresh.rename(self.rsync)

    def argv(self, lane: Lane = Lane.FIRST, ignore_times: bool = False) -> tuple[str, ...]:
        return self.calls.argv(Part(1, False, (b"a",), ignore_times=ignore_times), lane=lane)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_argv_is_made_once_while_nothing_changes(world: World) -> None:
    assert world.argv() is world.argv()


def test_argv_confines_to_where_the_tree_is_now(world: World) -> None:
    real = os.path.realpath(world.home)
    assert f"{CONFINE_ROOT}={real}/first" in world.argv()
    world.tree.unlink()
    world.tree.symlink_to("second")
    assert f"{CONFINE_ROOT}={real}/second" in world.argv()


def test_argv_does_not_confine_an_rsync_that_cannot(world: World) -> None:
    assert any(word.startswith(CONFINE_ROOT) for word in world.argv())
    world.write_rsync(1)
    assert not any(word.startswith(CONFINE_ROOT) for word in world.argv())


def test_argv_of_a_tree_that_is_gone_can_be_made(world: World) -> None:
    world.tree.unlink()
    assert f"{CONFINE_ROOT}={os.path.realpath(world.home)}/tree" in world.argv()


def test_argv_follows_what_changes(world: World) -> None:
    plain = world.argv()
    world.throttle.limit = 70
    assert "--bwlimit=70" in world.argv()
    world.throttle.limit = 0
    assert world.argv() == plain
    world.refused.stats = False
    assert "--stats" in plain
    assert "--stats" not in world.argv()
    world.refused.list_missing = False
    assert "--delete-missing-args" in plain
    assert "--delete-missing-args" not in world.argv()
    world.lanes.big_size = 5000
    assert "--max-size=5000" in world.argv()
    assert not any(word.startswith("--max-size") for word in world.argv(Lane.SECOND))
    assert "--ignore-times" in world.argv(ignore_times=True)
    assert "--ignore-times" not in world.argv()
    world.ssh.rsh = "ssh -x"
    assert "--rsh=ssh -x" in world.argv()


def test_settings_know_a_direct_connection(world: World) -> None:
    assert world.calls.settings(1, is_direct=True).rsh == "direct"
    assert world.calls.settings(1).rsh == ""
