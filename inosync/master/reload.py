"""Reading the configuration again, and following what is different in it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from inosync.config.diff import Diff, diff
from inosync.config.errors import ConfigError, ConfigProblem
from inosync.config.file_monitor import FileMonitor
from inosync.config.load import Config
from inosync.journal.subscription import subscriptions
from inosync.master.trees import Trees
from inosync.master.worker_pool import WorkerPool
from inosync.messages import Change, Kind
from inosync.nodes.node import Node
from inosync.status.snapshot import Reloads
from inosync.system.loop import Loop, Timer
from inosync.system.systemd import ServiceManager

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
"""The time between two tries to read a configuration that was refused after its pattern files changed."""


@dataclass(slots=True)
class Reloader:
    """Knows the configuration that is in force."""

    config: Config
    read: Callable[[str], Config]
    """Reads a file. ConfigError if it has mistakes."""
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
    loop: Loop
    _monitor: FileMonitor = field(init=False)
    """The pattern files of the configuration."""
    _retry: Timer | None = None
    """Reads the file again after a refusal, if no operator has asked for the reload."""

    def __post_init__(self) -> None:
        self._monitor = FileMonitor(self.config.pattern_files)

    def start(self) -> None:
        """Begin with all nodes."""
        config = self.config
        known = subscriptions(config.nodes, config.trees, self.trees.table.numbers)
        for spec in config.nodes:
            self.pool.add(spec, known[spec.name], config.rretry, self.restore)
        self.configure(config)

    def check_files(self) -> None:
        """Reload if pattern files have changed. To be called every second or so."""
        if changed := self._monitor.changed():
            log.info("changed: %s: the configuration is read again", ", ".join(changed))
            self.reload()
            self._retry_later()

    def reload(self) -> Sequence[str]:
        """Read the file again, and follow it; why it was refused, which changes nothing."""
        if self.pool.is_stopping:
            return ("inosync is stopping",)
        with self.manager.reloading():
            if refused := self._reload():
                self._log_refusal(refused)
        return refused

    def _retry_later(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        if self.status.refused:
            self._retry = self.loop.call_at(self.loop.clock() + RETRY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        """What kept the change from taking effect may lie elsewhere, and be over."""
        if self.pool.is_stopping or not self.status.refused:
            return
        before = self.status.refused
        refused = self._reload()
        if refused and refused != before:
            self._log_refusal(refused)
        self._retry_later()

    def _reload(self) -> Sequence[str]:
        refused: Sequence[str] = ()
        try:
            new = self.read(self.config.path)
            if new.ruser != self.config.ruser:
                when = "another user takes effect only when inosync is started again"
                raise ConfigError(ConfigProblem(new.path, when, setting="ruser"))
            self.log_to(new)  # nothing of what follows can fail
        except ConfigError as error:
            refused = tuple(map(str, error.problems))
        except OSError as error:
            refused = (f"logfile: {error}",)
        self.status.refused = refused
        if not refused:
            self._follow(new)
            self.status.succeeded_at = self.loop.clock()
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
        known = subscriptions(new.nodes, new.trees, numbers)
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
            node.retry(Change(tree, b"", Kind.TREE), self.loop.clock())
