"""Reading the configuration again, and following what is different in it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from inosync.changes import Change, Kind
from inosync.config.diff import Diff, diff
from inosync.config.errors import ConfigError, ConfigProblem
from inosync.config.file_monitor import FileMonitor
from inosync.config.load import Config
from inosync.journal.subscription import subscriptions
from inosync.master.trees import Trees
from inosync.master.worker_pool import WorkerPool
from inosync.nodes.node import Node
from inosync.status.snapshot import Reloads
from inosync.system.loop import Timer
from inosync.system.systemd import ServiceManager

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
"""The time between two tries to read a configuration that was refused after its pattern files changed."""


@dataclass(slots=True)
class Reloader:
    """Knows the configuration that is in force."""

    config: Config
    read: Callable[[str, Callable[[Config | ConfigError], None]], None]
    """Reads a file, and passes on what came of it, later."""
    log_to: Callable[[Config], None]
    """Directs the log as a configuration wants. OSError if that cannot be."""
    trees: Trees
    pool: WorkerPool
    configure: Callable[[Config], None]
    """Has all other parts follow the settings."""
    status: Reloads
    """What became of the last reload, for status."""
    restore: Callable[[Node], None]
    """Gives a node what an earlier process has known of it."""
    manager: ServiceManager
    _monitor: FileMonitor = field(init=False)
    """The pattern files of the configuration."""
    _retry: Timer | None = None
    """Reads the file again after a refusal, if no operator has asked for the reload."""
    _requests: list[Callable[[Sequence[str]], None]] = field(default_factory=list)
    """Called with what comes of the next read of the file."""
    _is_reading: bool = False

    def __post_init__(self) -> None:
        self._monitor = FileMonitor(self.config.pattern_files)

    def start(self, before_workers: Callable[[], None]) -> None:
        """Begin with all nodes. ``before_workers`` is called when they are known, but no worker is forked."""
        config = self.config
        known = subscriptions(config.watched_for, config.trees, self.trees.table.numbers)
        for spec in config.nodes:
            self.pool.enroll(spec, known[spec.name], config.rretry, self.restore)
        self.configure(config)
        before_workers()
        for node in list(self.pool.nodes.values()):
            self.pool.start(node)

    def check_files(self) -> None:
        """Reload if pattern files have changed. To be called every second or so."""
        if changed := self._monitor.changed():
            log.info("changed: %s: the configuration is read again", ", ".join(changed))
            self.reload(lambda _refused: self._retry_later())

    def reload(self, done: Callable[[Sequence[str]], None] = lambda _refused: None) -> None:
        """Read the file again, and follow it. ``done`` gets why it was refused, which changes nothing."""

        def finished(refused: Sequence[str]) -> None:
            if refused and not self.pool.is_stopping:
                self._log_refusal(refused)
            done(refused)

        self._request(finished)

    def _retry_later(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        if self.status.refused:
            self._retry = self.pool.loop.call_at(self.pool.loop.clock() + RETRY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        """Read the file again: the reason for the refusal may lie outside of it, and be over."""
        before = self.status.refused
        if self.pool.is_stopping or not before:
            return

        def finished(refused: Sequence[str]) -> None:
            if refused and refused != before:
                self._log_refusal(refused)
            self._retry_later()

        self._request(finished)

    def _request(self, done: Callable[[Sequence[str]], None]) -> None:
        """Read the file as it is from now on: one that is being read may have changed since."""
        self._requests.append(done)
        if not self._is_reading:
            self._read_file()

    def _read_file(self) -> None:
        if self.pool.is_stopping:
            self._answer(("inosync is stopping",))
            return
        self._is_reading = True
        requests, self._requests = self._requests, []
        context = ExitStack()
        context.enter_context(self.manager.reloading())

        def finished(found: Config | ConfigError) -> None:
            with context:
                self._is_reading = False
                refused = ("inosync is stopping",) if self.pool.is_stopping else self._take(found)
            for done in requests:
                done(refused)
            if self._requests:
                self._read_file()

        self.read(self.config.path, finished)

    def _answer(self, refused: Sequence[str]) -> None:
        requests, self._requests = self._requests, []
        for done in requests:
            done(refused)

    def _take(self, found: Config | ConfigError) -> Sequence[str]:
        """Follow what was read; return why it is refused."""
        refused: Sequence[str] = ()
        try:
            if isinstance(found, ConfigError):
                raise found
            if found.ruser != self.config.ruser:
                when = "another user takes effect only when inosync is started again"
                raise ConfigError(ConfigProblem(found.path, when, setting="ruser"))
            if _of_fleet(found) != _of_fleet(self.config):
                when = "what all machines of a fleet share takes effect when all of them are started again"
                raise ConfigError(ConfigProblem(found.path, when, setting="fleet"))
            self.log_to(found)  # nothing of what follows can fail
        except ConfigError as error:
            refused = tuple(map(str, error.problems))
        except OSError as error:
            refused = (f"logfile: {error}",)
        self.status.refused = refused
        if not refused:
            assert isinstance(found, Config)
            self._follow(found)
            self.status.succeeded_at = self.pool.loop.clock()
        return refused

    def _log_refusal(self, refused: Iterable[str]) -> None:
        for mistake in refused:
            log.error("%s", mistake)
        log.error("%s was not reloaded: the old configuration stays in force", self.config.path)

    def _follow(self, new: Config) -> None:
        old, self.config = self.config, new
        self._monitor = FileMonitor(new.pattern_files)
        for warning in new.warnings:
            log.warning("%s", warning)
        for name in ("rundir", "statedir"):
            if getattr(new, name) != getattr(old, name):
                log.warning("%s: %s takes effect when inosync is started again", name, getattr(new, name))
        changes = diff(old, new)
        self.trees.follow(old, new, changes)
        self._follow_nodes(new, changes)
        self.configure(new)
        self.trees.guard.check_unknown()
        counts = (len(changes.nodes_added), len(changes.nodes_removed), len(changes.nodes_changed))
        log.info("%s reloaded: nodes: %d added, %d removed, %d changed", new.path, *counts)

    def _follow_nodes(self, new: Config, changes: Diff) -> None:
        numbers = self.trees.table.numbers
        specs = {spec.name: spec for spec in new.nodes}
        known = subscriptions(new.watched_for, new.trees, numbers)
        for name in known.keys() & self.pool.nodes:
            self.pool.nodes[name].follow_config(specs[name], known[name], new.rretry)
        for name in changes.nodes_removed:
            self.pool.remove(name)
        everywhere = {wpath for wpath, refilter in changes.refilter.items() if refilter.places is None}
        # Trees that are walked now are compared as a whole when that is done.
        walked = {numbers[wpath] for wpath in everywhere.union(changes.trees_added)}
        for name in changes.nodes_changed:
            node = self.pool.nodes[name]
            self._compare(node, {numbers[wpath] for wpath in changes.full[name]} - walked)
            self.pool.replace_worker(node)
        for name in changes.nodes_added:
            node = self.pool.add(specs[name], known[name], new.rretry)
            self._compare(node, set(node.trees) - walked)

    def _compare(self, node: Node, trees: Iterable[int]) -> None:
        for tree in trees:
            node.retry(Change(tree, b"", Kind.TREE), self.pool.loop.clock())


def _of_fleet(config: Config) -> object:
    return None if config.fleet is None else (config.fleet.redis, config.fleet.fingerprint)
