"""The simulated machines of a fleet, with their clocks, and a Redis with all its faults.

The content of a file is the number of its newest change: a deletion is a content like others. 0 is a file
that was never there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from inosync.fleet import recovery
from inosync.fleet.leases import Lease
from inosync.fleet.records import Arrived, JournalSpan, NodeRecord, OriginPosition

T = TypeVar("T")
PATHS = ("a/1", "a/2", "b/1", "b/2")
SENDERS = ("s0", "s1", "s2")
NODES: Mapping[str, tuple[str, ...] | None] = {"n0": None, "n1": ("s0", "s1"), "n2": ("s1", "s2")}
LINKS = ("ok", "ok", "down", "late", "slow", "twice")
Files = dict[str, int]


class Away(Exception):
    """Redis did not answer in time; the request may still be executed."""


class InstanceChanged(Exception):
    """This is another Redis than the one that was known."""


def covered(name: str) -> tuple[str, ...]:
    """Return the files of a name: itself, or with a slash those in that directory (a relist)."""
    return tuple(path for path in PATHS if path.startswith(name)) if name.endswith("/") else (name,)


@dataclass
class Data:
    """What Redis holds."""

    span: JournalSpan | None = None
    journal: dict[str, int] = field(default_factory=dict)
    records: dict[str, NodeRecord] = field(default_factory=dict)
    arrived: dict[str, Arrived] = field(default_factory=dict)
    leases: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    """Value, and when Redis forgets it by its clock."""
    beats: dict[str, tuple[str, bool, float]] = field(default_factory=dict)
    """Copy, whether the sender takes nodes, and when Redis forgets it."""
    asked: int = 0
    position: OriginPosition | None = None

    def copy(self) -> Data:
        return replace(
            self,
            journal=dict(self.journal),
            records=dict(self.records),
            arrived=dict(self.arrived),
            leases=dict(self.leases),
            beats=dict(self.beats),
        )

    def has_lease(self, node: str, value: bytes) -> bool:
        return node in self.leases and self.leases[node][0] == value


class Redis:
    """One instance after the other."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.instance = 0
        self.data = Data()
        self.is_down = False
        self.kept: list[tuple[float, Data]] = []
        """What was there at the times of the last seconds."""

    def execute(self, act: Callable[[Data, float], T], now: float) -> T:
        """Do one request, all at once."""
        clock = now * self.rate
        self.kept = [(at, data) for at, data in self.kept if at > now - 2] + [(now, self.data.copy())]
        self.data.leases = {node: held for node, held in self.data.leases.items() if held[1] > clock}
        self.data.beats = {name: beat for name, beat in self.data.beats.items() if beat[2] > clock}
        return act(self.data, clock)

    def restart(self, data: Data) -> None:
        """Come back as another instance."""
        self.instance += 1
        self.data = data
        self.kept = []


@dataclass
class Machine:
    """A clock of its own, and a way to Redis."""

    rate: float
    offset: float
    link: str = "ok"
    is_up: bool = True
    instance: int | None = None
    met_at: float = 0.0


@dataclass
class Held:
    """A node that a sender holds the lease of."""

    lease: Lease
    question: int
    record: NodeRecord | None
    since: OriginPosition | None = None
    upto: int | None = None
    """The upper position of the batch under way."""
    todo: list[str] = field(default_factory=list)
    """Files that are to be sent yet."""
    has_failed: bool = False


class Sender(Machine):
    """A machine with a copy."""

    def __init__(self, name: str, rate: float, offset: float) -> None:
        super().__init__(rate, offset)
        self.name = name
        self.files: Files = dict.fromkeys(PATHS, 0)
        self.copy = f"{name} 0"
        self.held: dict[str, Held] = {}
        self.known: dict[str, NodeRecord] = {}
        """Records that this process knows to be true."""
        self.taken = 0
        self.must_restore = False
        self.is_reached = True
        """Whether the origin can send to it."""


@dataclass
class Mirror:
    """What the origin knows of a sender, and its transfer to it."""

    cursor: int = 0
    copy: str = ""
    """Which copy the cursor is true of; empty: none, a full mirror is due."""
    upto: int | None = None
    to_copy: str = ""
    todo: list[str] = field(default_factory=list)


class Origin(Machine):
    """The machine where changes are made."""

    def __init__(self, rate: float, offset: float) -> None:
        super().__init__(rate, offset)
        self.files: Files = dict.fromkeys(PATHS, 0)
        self.events: list[str] = []
        self.begin_epoch("e0")

    def begin_epoch(self, epoch: str) -> None:
        self.epoch = epoch
        self.head = self.floor = 0
        self.kept = recovery.reserved(0, 0)
        """On disk, as ``saved``: up to where positions may have been given."""
        self.journal: dict[str, int] = {}
        self.seen: dict[str, NodeRecord] = {}
        self.mirrors = {name: Mirror() for name in SENDERS}
        self.appended: int | None = None
        """What this instance of Redis has; None before recovery."""
        self.saved: list[tuple[int, dict[str, NodeRecord], dict[str, str]]] = []
        """What was kept last: floor, records of nodes, and which copies senders had."""
        self.recorded: dict[str, int] = {}
        """All that was ever recorded in this epoch: what the times of files say."""
        self.settled: int | None = None
        """The position at which all is known that had changed before this process began."""
        self.events = []

    def after(self, position: int) -> dict[str, int]:
        return {name: at for name, at in self.journal.items() if at > position}

    def read_events(self) -> None:
        for name in self.events:
            self.kept = recovery.reserved(self.head, self.kept)
            self.head += 1
            self.journal[name] = self.recorded[name] = self.head
        self.events = []
        if self.settled is None:
            self.settled = self.head

    def restart(self, age: int) -> None:
        """Go on with a state of the last run, or an older one: what changed since is found by its times."""
        kept, saved, recorded = self.kept, self.saved[: max(len(self.saved) - age, 1)], self.recorded
        if not saved:
            self.begin_epoch(f"{self.epoch}+")
            return
        floor, seen, copies = saved[-1]
        again = [*(name for name, at in recorded.items() if at > floor), *self.events]
        self.begin_epoch(self.epoch)
        self.kept, self.saved, self.recorded, self.events = kept, saved, recorded, again
        self.head = kept
        self.floor, self.seen = floor, dict(seen)
        for name, copy in copies.items():
            self.mirrors[name] = Mirror(self.head, copy)
