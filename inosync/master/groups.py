"""The groups that the master is made of. ``wiring`` makes them, and ``master`` is their loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from inosync.config.load import Config
from inosync.console.control import Control
from inosync.master.commands import Commands
from inosync.master.flush import Flushes
from inosync.master.metrics_process import MetricsProcess
from inosync.master.mirror import Mirror
from inosync.master.once import Once
from inosync.master.pacing import Pacing
from inosync.master.reload import Reloader
from inosync.master.resume import Resume
from inosync.master.staging import Staging
from inosync.master.tree_events import TreeEvents
from inosync.master.trees import Trees
from inosync.master.verification import Verification
from inosync.master.worker_pool import WorkerPool
from inosync.nodes.pace import Pace
from inosync.state.store import Past
from inosync.status.events import NodeEvents
from inosync.status.publisher import StatePublisher
from inosync.status.snapshot import Reloads, SnapshotBuilder
from inosync.status.state import NodeStates
from inosync.status.transitions import StateLog
from inosync.system.loop import Loop
from inosync.system.signals import Signals
from inosync.system.systemd import ServiceManager
from inosync.watch.watcher import Watcher


@dataclass(frozen=True, slots=True)
class System:
    """What the daemon has of its operating system."""

    loop: Loop
    signals: Signals
    manager: ServiceManager


@dataclass(frozen=True, slots=True)
class Given:
    """With what a daemon starts, and what all of it has in common."""

    config: Config
    """That of the start."""
    in_force: Callable[[], Config]
    """Returns the configuration after reloads."""
    directory: str
    """For batches and marks."""
    past: Past
    """What an earlier process has left, and where this one leaves the same."""
    system: System
    inherited: Callable[[], list[int]]
    """Returns the descriptors of the master, which a forked child has to close."""

    @property
    def loop(self) -> Loop:
        return self.system.loop

    @property
    def clock(self) -> Callable[[], float]:
        return self.system.loop.clock


@dataclass(frozen=True, slots=True)
class Watching:
    """From the kernel to the nodes."""

    mirror: Mirror
    watcher: Watcher
    events: TreeEvents
    trees: Trees
    pacing: Pacing
    pace: Pace
    verification: Verification
    resume: Resume


@dataclass(frozen=True, slots=True)
class Status:
    """What is known about the nodes."""

    events: NodeEvents
    log: StateLog
    states: NodeStates
    publisher: StatePublisher
    reloads: Reloads
    snapshots: SnapshotBuilder


@dataclass(frozen=True, slots=True)
class Workers:
    pool: WorkerPool
    staging: Staging


@dataclass(frozen=True, slots=True)
class Operator:
    """What an operator asks for, and how."""

    flushes: Flushes
    reloader: Reloader
    commands: Commands
    control: Control
    metrics: MetricsProcess
    once: Once | None
    """Ends the daemon when everything was mirrored; None: it runs until it is stopped."""


@dataclass(frozen=True, slots=True)
class Calls:
    """What is called now and then."""

    each_turn: Sequence[Callable[[], object]]
    each_second: Sequence[Callable[[], object]]
    at_end: Sequence[Callable[[], object]]


class HasDescriptors(Protocol):
    def descriptors(self) -> Iterable[int]:
        """What a forked child has to close."""


class FleetRole(HasDescriptors, Protocol):
    """What a daemon of a fleet does for it, as the origin or as a sender."""

    def keeps_after(self) -> float:
        """Return the position after which changes are still needed by other machines."""

    def turn(self) -> None:
        """To be called in each turn of the loop."""

    def tick(self) -> None:
        """To be called every second or so."""

    def finish(self) -> None:
        """The daemon ends."""
