"""What travels: changes through the journal, batches and reports over the queues.

All of it is frozen, so that a message means the same to the one who sent it and the one who reads it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.IntEnum):
    """How much of a path to look at. A higher kind covers every lower one of the same path."""

    NAME = 0
    """This file, or this directory itself: gone, there, its content or attributes."""
    LIST = 1
    """This directory and its listing, one level deep, deletions included (a relist)."""
    TREE = 2
    """Everything at and below this path: a full comparison."""


@dataclass(frozen=True, slots=True)
class Change:
    """A path that may differ on the nodes: what to look at, never what to do.

    ``tree`` is the number of the wpath; ``path`` is relative to it, in bytes as the kernel gave them,
    without a leading or trailing slash; ``b""`` is the wpath itself.
    """

    tree: int
    path: bytes
    kind: Kind
    ignore_times: bool = False
    """Whether a file is to be read on the node although its size and its time are right."""

    @property
    def wire(self) -> bytes:
        """The path in the form of a names list: ``a`` or, to be relisted, ``a/``; the root is ``./``."""
        if not self.path:
            return b"./"
        return self.path if self.kind is Kind.NAME else self.path + b"/"


def from_wire(tree: int, wire: bytes, ignore_times: bool = False) -> Change:
    """The change that ``Change.wire`` was made of; the root, and a trailing slash, mean a relist."""
    if wire == b"./":
        return Change(tree, b"", Kind.LIST)
    if wire.endswith(b"/"):
        return Change(tree, wire[:-1], Kind.LIST)
    return Change(tree, wire, Kind.NAME, ignore_times)


@dataclass(frozen=True, slots=True)
class Source:
    """What the root of a tree has to be for a transfer that was meant for it."""

    identity: tuple[int, int]
    """Device and inode."""
    whole: bool
    """Whether nothing at all in it is a loss, which must not be mirrored (``policy.guard``)."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a batch says of one tree: the names to look at, or that all of it is to be compared (FULL)."""

    tree: int
    full: bool
    names: tuple[bytes, ...] = ()
    """In the form of ``Change.wire``; empty when ``full``."""
    source: Source | None = None
    """What the root has to be, or nothing is sent; None: whatever it is."""
    ignore_times: bool = False
    """As in ``Change``; never with ``full``."""


class NodeState(enum.StrEnum):
    """What the mirror on a node is worth, in the words that ``ps`` and status show."""

    STARTING = "starting"
    FULL = "full"
    OK = "ok"
    SYNCING = "syncing"
    LAGGING = "lagging"
    RETRYING = "retrying"
    PAUSED = "paused"
    HALTED = "halted"
    DEGRADED = "degraded"


# From the master to a worker -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Batch:
    """One piece of work, complete in itself. Doing it twice is harmless; skipping it is not."""

    id: int
    count: int
    """Names in it."""
    full: bool
    """Whether any part of it is FULL."""
    payload: bytes = b""
    """The pickled parts, when they are short enough to travel in the message ..."""
    file: str = ""
    """... else the path of a file in the run directory that holds them."""
    tidy: bool = False
    """Whether a transfer of these names may have been killed, and its temporary files be left."""
    heavy: bool = False
    """Whether each try of it needs a slot. The first one has it; ``SlotRequest`` asks for the next."""


@dataclass(frozen=True, slots=True)
class TitleUpdate:
    """The title that a worker shows while it runs no transfer."""

    text: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Finish what is running if ``grace`` seconds are enough for it, and end."""

    grace: float


@dataclass(frozen=True, slots=True)
class SlotGranted:
    """The batch may be tried again: the slot that ``SlotRequest`` asked for is there."""

    batch: int


@dataclass(frozen=True, slots=True)
class Halt:
    """Send nothing of this tree any more: end what runs, and report it as ``held``."""

    tree: int


@dataclass(frozen=True, slots=True)
class Compare:
    """Compare a tree with its copy, and change nothing; beside the batches, however long that takes."""

    id: int
    tree: int
    source: Source | None
    """As in ``Part``."""
    checksum: bool
    """Whether the contents of all files are compared."""


@dataclass(frozen=True, slots=True)
class CancelCompare:
    """End the comparison that runs: nobody wants to know any more."""


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The state of the node has changed, or stayed as bad as it is for long: for the hook."""

    state: str
    """A ``lifecycle.NodeState``."""
    before: str
    """What was told last; empty if nothing was."""
    seconds: float
    """How long that took which this is the end of, or tells of."""
    reason: str
    lag: float
    """Seconds, as of now."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Nothing: that it is taken is the sign that the worker does not hang."""


Order = Batch | TitleUpdate | Stop | SlotGranted | Halt | Compare | CancelCompare | StateChanged | Ping


# From a worker to the master -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The worker runs and waits for its first batch."""

    pid: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a FULL has come, in percent of the entries that rsync knows of so far."""

    batch: int
    percent: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A transfer failed as a whole and will be tried again. The batch is still the worker's."""

    batch: int
    attempt: int
    code: int
    """rsync's exit code; negative for death by a signal, 0 if it did not even start."""
    reason: str
    retry_in: float
    """Seconds until the next try."""
    rsyncs: int = 0
    """Starts of rsync since the last report that tells of them."""


@dataclass(frozen=True, slots=True)
class SlotRequest:
    """The pause after a failed try is over, and the next one needs a slot (``Batch.heavy``)."""

    batch: int


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The worker has nothing to do, and cannot keep an rsync connected to its node."""

    attempt: int
    code: int
    """As in ``Failed``."""
    reason: str
    retry_in: float
    """Seconds until the next try."""
    rsyncs: int = 0
    """Starts of rsync since the last report that tells of them."""


@dataclass(frozen=True, slots=True)
class Reachable:
    """After ``Unreachable``: the node answers again, or nobody looks any more whether it does."""


@dataclass(frozen=True, slots=True)
class WarmSuspended:
    """No rsync is kept connected to the node for a while: each transfer connects anew."""

    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Relisting:
    """The node's rsync cannot be told of names that are gone: it gets the listings of their directories."""

    reason: str


@dataclass(frozen=True, slots=True)
class Throttled:
    """By the node's timetable another limit is in force, and no rsync with the old one runs for long."""

    rspeed: int
    """KB/s; 0 is without a limit."""


@dataclass(frozen=True, slots=True)
class Done:
    """The batch is through: all that could arrive has arrived."""

    batch: int
    count: int
    seconds: float
    code: int = 0
    """The last exit code of rsync that was not 0; 23 and 24 leave names due."""
    reason: str = ""
    """rsync's last complaint; empty if there was none."""
    payload: bytes = b""
    """The pickled parts that are still due (``Part``), when they are short ..."""
    file: str = ""
    """... else the path of a file in the run directory that holds them."""
    held: tuple[int, ...] = ()
    """Trees of which something was not sent since the guard is against it; all of them is due."""
    pretended: bool = False
    """Whether the calls of rsync were shown instead of made."""
    cut_off: bool = False
    """Whether a try of it was cut off that the node may still be at work on."""
    bytes: int = 0
    """What rsync said that it had sent and received."""
    rsyncs: int = 0
    """Starts of rsync since the last report that tells of them."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison has ended."""

    id: int
    """Of the ``Compare``."""
    reason: str = ""
    """Why it came to nothing; empty if all was compared."""
    held: bool = False
    """Whether it came to nothing since the root of the tree was not what it had to be."""
    count: int = 0
    """How many differences there are ..."""
    payload: bytes = b""
    """... and the pickled lines that tell of them, the first ``differences.MOST``, when they are short ..."""
    file: str = ""
    """... else the path of a file in the run directory that holds them."""


@dataclass(frozen=True, slots=True)
class HookFinished:
    """A hook has ended."""

    kind: str
    """The setting: ``on_sync`` or ``on_state``."""
    reason: str = ""
    """Why it was no success; empty if it was."""


Report = (
    Started
    | Progress
    | Failed
    | SlotRequest
    | Unreachable
    | Reachable
    | WarmSuspended
    | Relisting
    | Throttled
    | Done
    | Compared
    | HookFinished
)
