"""What the watcher and the guard are told of the trees, at the start and by a reload."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from support import configs
from support.recorder import Recorder

from inosync.config.diff import diff
from inosync.config.load import Config
from inosync.master.trees import Trees, TreeTable


class World:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.table = TreeTable()
        self.trees = Trees(self.table, *[cast(Any, Recorder(self.calls)) for _ in range(3)])

    def begin(self, config: Config) -> None:
        for tree in config.trees:
            self.trees.add(tree, config, wait=False)
        self.config = config
        self.calls.clear()

    def follow(self, **values: str) -> list[tuple[Any, ...]]:
        """What is called by a reload, but for what says that nothing is different."""
        new = configs.config(**values)
        self.trees.follow(self.config, new, diff(self.config, new))
        return [call for call in self.calls if call[0] != "set_one_file_system"]


@pytest.fixture
def world(here: Path) -> World:
    assert here.is_absolute()
    return World()


def test_tree_has_a_number_and_is_guarded_before_it_is_watched(world: World, here: Path) -> None:
    config = configs.config(rexcludes="['*.tmp']")
    world.trees.add(config.trees[0], config, wait=True)
    excluded = world.table.excluded[1]
    assert world.calls == [
        ("add_tree", 1, f"{here}/a", excluded),
        ("add", 1, f"{here}/a", config.emask, excluded, True, False, None),
    ]
    assert excluded(b"x.tmp", False)
    assert not excluded(b"x", False)
    assert world.table.wpath(1) == f"{here}/a"


def test_number_of_a_removed_tree_is_never_used_again(world: World, here: Path) -> None:
    world.begin(configs.config())
    called = world.follow(wpaths=f"['{here}/b/']")
    assert called[:3] == [("remove", 1), ("remove_tree", 1), ("drop_tree", 1)]
    assert [(call[0], call[1]) for call in called[3:]] == [("add_tree", 2), ("add", 2)]
    assert called[-1][-3:] == (True, False, None), "a root that is not there is waited for"
    assert world.table.numbers == {f"{here}/b": 2}


def test_other_rules_reach_the_guard_and_the_watcher(world: World) -> None:
    world.begin(configs.config())
    excluded, places = world.follow(rexcludes="['*.tmp']")[-1][2:]
    assert excluded(b"x.tmp", False)
    assert places is None
    assert [call[:2] for call in world.calls if call[0] == "refilter"] == [("refilter", 1)] * 2
    assert set(world.table.refiltering) == {1}


def test_other_events_are_told_to_the_watcher_only_if_they_are_others(world: World) -> None:
    world.begin(configs.config())
    assert world.follow() == []
    assert world.follow(emask="['IN_CLOSE_WRITE']") == [("set_events", 1, frozenset({"IN_CLOSE_WRITE"}))]


def test_tree_without_mounts_for_any_node_stays_in_its_file_system(world: World) -> None:
    world.begin(configs.config())
    world.follow(extra="'-x'")
    assert world.calls[-1] == ("set_one_file_system", 1, True)
