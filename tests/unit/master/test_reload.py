"""What a reload does, and what one that is refused leaves as it is; real configurations, made-up parts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from support import configs
from support.recorder import Recorder

from inosync.changes import Change, Kind
from inosync.config.errors import ConfigError, ConfigProblem
from inosync.config.load import Config
from inosync.master.reload import RETRY_SECONDS, Reloader
from inosync.master.trees import TreeTable
from inosync.status.snapshot import Reloads
from inosync.system.loop import Loop
from inosync.system.systemd import NotifyTarget, ServiceManager


class World:
    """A daemon with the nodes of a configuration; ``file`` is what reading it again brings."""

    def __init__(self, config: Config) -> None:
        self.now = 100.0
        self.loop = Loop(lambda: self.now)
        self.file: Config | ConfigError = config
        self.is_slow = False
        self.reads: list[Callable[[Config | ConfigError], None]] = []
        self.log_error: OSError | None = None
        self.calls: list[tuple[Any, ...]] = []
        self.table = TreeTable({tree.wpath: number for number, tree in enumerate(config.trees, 1)})
        self.pool: Any = Recorder(
            self.calls, nodes={}, loop=self.loop, is_stopping=False, add=lambda spec, *_: self.node(spec.name)
        )
        for spec in config.nodes:
            self.node(spec.name)
        self.status = Reloads(config.path)
        trees = Recorder(self.calls, table=self.table, guard=Recorder(self.calls))
        self.reloader = Reloader(
            config,
            self.read,
            self.log_to,
            cast(Any, trees),
            cast(Any, self.pool),
            lambda new: self.calls.append(("configure", new)),
            self.status,
            lambda _node: None,
            ServiceManager(NotifyTarget(), self.loop),
        )
        self.calls.clear()

    def node(self, name: str) -> Recorder:
        node = Recorder(self.calls, name=name, trees=tuple(self.table.numbers.values()))
        self.pool.nodes[name] = node
        return node

    def read(self, path: str, done: Callable[[Config | ConfigError], None]) -> None:
        assert path == self.reloader.config.path
        self.reads.append(done)
        if not self.is_slow:
            self.end_read()

    def end_read(self) -> None:
        """The file that is being read was read."""
        self.reads.pop(0)(self.file)

    def reload(self) -> Sequence[str]:
        answers: list[Sequence[str]] = []
        self.reloader.reload(answers.append)
        [answer] = answers
        return answer

    def log_to(self, _config: Config) -> None:
        if self.log_error is not None:
            raise self.log_error

    def called(self) -> list[tuple[Any, ...]]:
        return [call[:2] for call in self.calls if call[0] not in ("follow_config", "follow")]


@pytest.fixture
def world(here: Path) -> World:
    assert here.is_absolute()
    return World(configs.config(rnodes="['a:', 'b:']"))


def problem() -> ConfigError:
    return ConfigError(ConfigProblem("conf.py", "no such thing"))


def test_start_knows_all_nodes_before_it_starts_their_workers(world: World) -> None:
    world.reloader.start(lambda: world.calls.append(("before workers",)))
    config = world.reloader.config
    assert [call[:2] for call in world.calls] == [
        ("enroll", config.nodes[0]),
        ("enroll", config.nodes[1]),
        ("configure", config),
        ("before workers",),
        ("start", world.pool.nodes["a"]),
        ("start", world.pool.nodes["b"]),
    ]


def test_nodes_are_removed_changed_and_added(world: World) -> None:
    world.file = new = configs.config(rnodes="[{'node': 'b:', 'rspeed': 7}, 'c:']")
    b = world.pool.nodes["b"]
    assert world.reload() == ()
    assert world.called() == [
        ("remove", "a"),
        ("replace_worker", b),
        ("add", new.nodes[1]),
        ("retry", Change(1, b"", Kind.TREE)),
        ("configure", new),
        ("check_unknown",),
    ]
    assert world.reloader.config is new
    assert world.status.succeeded_at == 100.0


def test_node_with_another_place_is_compared_before_its_worker_is_replaced(world: World) -> None:
    world.file = configs.config(rnodes="['a:', 'b:']", rpaths="['/other']")
    world.reloader.reload()
    assert [call[0] for call in world.called()][:4] == ["retry", "replace_worker"] * 2


def test_trees_that_are_walked_are_not_compared_before(world: World, here: Path) -> None:
    world.table.numbers[f"{here}/b"] = 2
    world.file = configs.config(wpaths=f"['{here}/b/']", rnodes="['a:', 'b:', 'c:']")
    del world.table.numbers[f"{here}/a"]
    world.reloader.reload()
    assert "retry" not in [call[0] for call in world.calls]


@pytest.mark.parametrize(
    ("file", "log_error", "reason"),
    [
        (problem(), None, "conf.py: no such thing"),
        ("another user", None, "another user takes effect only when inosync is started again"),
        ("the same", OSError(13, "Permission denied"), "logfile: [Errno 13] Permission denied"),
    ],
)
def test_refused_reload_changes_nothing_and_says_why(
    world: World,
    file: object,
    log_error: OSError | None,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = world.reloader.config
    if isinstance(file, ConfigError):
        world.file = file
    elif file == "another user":
        world.file = replace(before, ruser="www-data")
    world.log_error = log_error
    [refused] = world.reload()
    assert reason in refused
    assert world.status.refused == (refused,)
    assert world.status.succeeded_at is None
    assert world.reloader.config is before
    assert world.calls == []
    assert "was not reloaded: the old configuration stays in force" in caplog.text


def test_reload_is_refused_while_the_daemon_stops(world: World) -> None:
    world.pool.is_stopping = True
    assert world.reload() == ("inosync is stopping",)
    assert world.calls == []


def test_pattern_file_that_changed_is_read_again_until_it_is_accepted(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    patterns = here / "patterns"
    patterns.write_text("*.tmp\n")
    world = World(configs.config(extra=f"'--exclude-from={patterns}'"))
    world.reloader.check_files()
    assert caplog.text == ""
    patterns.write_text("*.tmp\n*.bak\n")
    world.file = problem()
    for _ in range(2):  # it may have been half written at the first look
        world.reloader.check_files()
    assert f"changed: {patterns}: the configuration is read again" in caplog.text
    assert caplog.text.count("was not reloaded") == 1
    for _ in range(3):
        world.now += RETRY_SECONDS
        world.loop.turn(0)
    assert caplog.text.count("was not reloaded") == 1, "the same reason is logged once"
    world.file = configs.config(extra=f"'--exclude-from={patterns}'")
    world.now += RETRY_SECONDS
    world.loop.turn(0)
    assert world.status.refused == ()
    assert world.loop.next_timer == float("inf")


def test_warnings_of_the_new_file_are_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    new = replace(world.reloader.config, warnings=("that looks odd",), rundir="/run/other")
    world.file = new
    world.reloader.reload()
    assert "that looks odd" in caplog.text
    assert "rundir: /run/other takes effect when inosync is started again" in caplog.text


def test_requests_while_a_file_is_read_are_answered_by_the_next_read(world: World) -> None:
    world.is_slow = True
    answers: list[tuple[str, Sequence[str]]] = []
    world.reloader.reload(lambda refused: answers.append(("first", refused)))
    for name in ("second", "third"):
        world.reloader.reload(lambda refused, name=name: answers.append((name, refused)))  # type: ignore[misc]
    assert len(world.reads) == 1
    world.end_read()
    assert answers == [("first", ())]
    world.file = problem()
    world.end_read()
    reason = ("conf.py: no such thing",)
    assert answers[1:] == [("second", reason), ("third", reason)]
    assert world.reads == []


def test_daemon_that_stops_while_a_file_is_read_does_not_follow_it(world: World) -> None:
    world.is_slow = True
    answers: list[Sequence[str]] = []
    for _ in range(2):
        world.reloader.reload(answers.append)
    world.pool.is_stopping = True
    world.file = configs.config(rnodes="['c:']")
    world.end_read()
    assert answers == [("inosync is stopping",)] * 2
    assert world.calls == []
