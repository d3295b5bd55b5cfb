"""The vocabulary: changes, as the journal keeps them, and the messages between the master and its workers.

All of it is frozen, so that a message means the same at both ends.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

WORTHWHILE_BYTES = 100_000
"""How much has to be renamed before a run of rsync that sends none of it pays."""
MAX_REASON_BYTES = 500
"""How much of a reason travels in a message, as UTF-8."""


class Kind(enum.IntEnum):
    """How much of a path to look at. A higher kind covers every lower one of the same path."""

    NAME = 0
    """This file, or this directory itself: gone, there, its content or attributes."""
    LIST = 1
    """This directory and its listing, one level deep, deletions included (a relist)."""
    TREE = 2
    """Everything at and below this path: a full comparison."""


class Step(enum.IntEnum):
    """When a change is sent within its batch: what leads to something, or takes it away, comes late.

    A hint: what is there when the batch begins decides. A link is SWITCHED then, what is gone REMOVED.
    """

    NEW = 0
    """There was nothing of that name, so nothing can depend on when it arrives."""
    CHANGED = 1
    UNKNOWN = 2
    """It may be new, or have taken the place of something else: nothing says so."""
    SWITCHED = 3
    """It takes the place of something else: a link, or what was moved there."""
    REMOVED = 4


@dataclass(frozen=True, slots=True)
class Change:
    """A path that may differ on the nodes: what to look at, never what to do."""

    tree: int
    """The number of the wpath."""
    path: bytes
    """Relative to the wpath, in bytes, without a slash at either end; empty for the wpath itself."""
    kind: Kind
    ignore_times: bool = False
    """Whether the content of a file is compared although its size and time are the same."""
    step: Step = field(default=Step.CHANGED, compare=False)
    is_again: bool = field(default=False, compare=False)
    """Whether it is only looked at again, because a try that was cut off may have changed it on the node."""

    @property
    def wire(self) -> bytes:
        """Return the path as rsync's --files-from wants it: ``a``; relisted ``a/``; the root ``./``."""
        if not self.path:
            return b"./"
        return self.path if self.kind is Kind.NAME else self.path + b"/"


def from_wire(tree: int, wire: bytes, ignore_times: bool = False, step: Step = Step.CHANGED) -> Change:
    """Return the change that has this ``Change.wire``; the root, and a trailing slash, mean a relist."""
    if wire == b"./":
        return Change(tree, b"", Kind.LIST, step=step)
    if wire.endswith(b"/"):
        return Change(tree, wire[:-1], Kind.LIST, step=step)
    return Change(tree, wire, Kind.NAME, ignore_times, step)


_RESOLVED = frozenset((b"", b".", b".."))
"""Parts of a path that the kernel or rsync would resolve."""


def is_below_root(path: bytes) -> bool:
    """Return whether ``Change.path`` may be this: below the wpath, or itself, with nothing to be resolved."""
    return not path or _RESOLVED.isdisjoint(path.split(b"/"))


@dataclass(frozen=True, slots=True)
class Source:
    """What the root of a tree has to be, or nothing of the tree is sent."""

    identity: tuple[int, int]
    """Device and inode."""
    whole: bool
    """Whether an empty root is a loss, which must not be mirrored."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many entries may be removed from a node at once (``rmaxdelete``)."""

    count: int
    """So many in any case."""
    left_for_each: float
    """More if the tree has this many entries for each of them; 0: never more."""


@dataclass(frozen=True, slots=True)
class Rename:
    """A hint: what a node has at ``old`` is to be at ``new``. Only how much is sent depends on it."""

    old: bytes
    """Paths as in ``Change``."""
    new: bytes
    is_directory: bool
    at: float = field(default=0.0, compare=False)
    """When it was noticed, by ``time.monotonic``; of renames that follow each other, the first."""


@dataclass(frozen=True, slots=True)
class OwedNames:
    """What a node lacks of a tree apart from the batch, in the form of ``Change.wire``."""

    failed: tuple[bytes, ...] = ()
    big: tuple[bytes, ...] = ()
    """What is for the second lane, or in it."""
    hopeless: tuple[bytes, ...] = ()
    """What has failed so often that only links to it wait; the batch may try it once more."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a batch holds of one tree: the names to look at, or that all of it is compared (a full mirror)."""

    tree: int
    full: bool
    names: tuple[bytes, ...] = ()
    """In the form of ``Change.wire``; empty when ``full``."""
    source: Source | None = None
    """None if the root may be anything."""
    ignore_times: bool = False
    """As in ``Change``."""
    renames: tuple[Rename, ...] = ()
    """How some of the names came about; none when ``full``."""
    step: Step = Step.CHANGED
    """As in ``Change``. A tree has a part for each step, in their order."""
    owed: OwedNames = OwedNames()
    """Said with the first part of a tree."""
    again: frozenset[bytes] = frozenset()
    """Those of the names that are ``Change.is_again``."""
    make_way: tuple[bytes, ...] = ()
    """Names of which the node loses what it has, in a relist that leaves them out; see ``outcome``."""
    allowance: Allowance | None = None
    """The node counts what it would lose, and loses no more than this; None: it does not count."""


class NodeState(enum.StrEnum):
    """How well a node is mirrored, in the words that users see."""

    STARTING = "starting"
    FULL = "full"
    OK = "ok"
    SYNCING = "syncing"
    LAGGING = "lagging"
    RETRYING = "retrying"
    PAUSED = "paused"
    HALTED = "halted"
    HELD = "held"
    DEGRADED = "degraded"


class Lane(enum.IntEnum):
    """Which of a worker's two transfers at once."""

    FIRST = 1
    """All but big files."""
    SECOND = 2
    """Big files, so that small changes do not wait for them."""


# Orders, from the master to a worker ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Batch:
    """One piece of work. Doing it twice is harmless; skipping it is not."""

    id: int
    count: int
    """Names in it."""
    full: bool
    """Whether any part of it is a full mirror."""
    payload: bytes = b""
    file: str = ""
    """The parts, as ``spool.pack`` returns them."""
    tidy_since: float | None = None
    """Since when transfers may have been under way that were killed, by the clock that all processes share:
    temporary files are to be removed. None: there were none."""
    heavy: bool = False
    """Whether each try needs a slot. The first try has it; ``SlotRequest`` asks for the next one's."""
    lane: Lane = Lane.FIRST
    complete_at: int = 0
    """Up to when it has all changes, in nanoseconds since the epoch; 0 if that is not known."""
    is_ahead: bool = False
    """Whether the node may have some of them, because they were made while it got a full mirror."""


@dataclass(frozen=True, slots=True)
class TitleUpdate:
    """The title that a worker shows while it runs no transfer."""

    text: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End; a transfer that runs may finish first."""

    grace: float
    """Seconds that it may take."""


@dataclass(frozen=True, slots=True)
class SlotGranted:
    """Try the batch again: here is the slot that ``SlotRequest`` asked for."""

    batch: int


@dataclass(frozen=True, slots=True)
class Halt:
    """End what runs of this tree, and report the tree as ``held``."""

    tree: int


@dataclass(frozen=True, slots=True)
class Compare:
    """Compare a tree with its copy, beside the batches, and change nothing."""

    id: int
    tree: int
    source: Source | None
    """As in ``Part``."""
    checksum: bool
    """Whether the contents of files are compared, too."""


@dataclass(frozen=True, slots=True)
class CancelCompare:
    """End the comparison that runs; nothing is reported of it."""


@dataclass(frozen=True, slots=True)
class StateChanged:
    """Run the on_state hook: the state of the node has changed, or has been bad for long."""

    state: str
    """A ``NodeState``."""
    before: str
    """The ``NodeState`` that the hook was run for last; empty if it never was."""
    seconds: float
    """Duration of the state that has ended, or that lasts."""
    reason: str
    lag: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Do nothing: a worker that reads it does not hang."""


Order = Batch | TitleUpdate | Stop | SlotGranted | Halt | Compare | CancelCompare | StateChanged | Ping


# Reports, from a worker to the master --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The worker waits for its first batch."""

    pid: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a full mirror, or a big file, has come."""

    batch: int
    percent: int
    """Of the entries that rsync knows of so far; in the second lane of the bytes."""


@dataclass(frozen=True, slots=True)
class Through:
    """The node has the whole batch, and its rsync only has to end. ``Done`` follows, as a rule."""

    batch: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A try of the batch has failed as a whole. The worker keeps the batch, and tries again."""

    batch: int
    attempt: int
    code: int
    """rsync's exit code; negative for a signal, 0 if rsync did not even start."""
    reason: str
    retry_in: float
    """Seconds until the next try."""
    is_hopeless: bool = False
    """Whether it will hardly get better by itself."""
    rsyncs: int = 0
    """Starts of rsync since the last report that counts them."""


@dataclass(frozen=True, slots=True)
class SlotRequest:
    """The pause after a failed try is over, and the next one needs a slot (``Batch.heavy``)."""

    batch: int


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The worker has no batch, and cannot reach its node."""

    attempt: int
    code: int
    """As in ``Failed``."""
    reason: str
    retry_in: float
    """Seconds until the next try."""
    rsyncs: int = 0
    """Starts of rsync since the last report that counts them."""


@dataclass(frozen=True, slots=True)
class Reachable:
    """After ``Unreachable``: the node answers again, or the worker no longer tries to reach it."""


@dataclass(frozen=True, slots=True)
class TargetReplaced:
    """The target of a tree is another directory than before: the node may lack all of the tree."""

    tree: int
    reason: str


@dataclass(frozen=True, slots=True)
class TooManyRemovals:
    """A batch would remove more from the node than ``Part.allowance``. Nothing of the tree was sent."""

    tree: int
    count: int
    place: bytes
    """The directory, relative to the wpath, that all of it is, or is below."""


@dataclass(frozen=True, slots=True)
class WarmSuspended:
    """No warm rsync is kept for a while: each transfer connects anew."""

    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Relisting:
    """The node's rsync is too old for names that are gone: it gets the listings of their directories."""

    reason: str


@dataclass(frozen=True, slots=True)
class Throttled:
    """The node's timetable has put another limit in force."""

    rspeed: int
    """KB/s; 0 for no limit."""


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What a batch that is done leaves to be sent."""

    due: tuple[Part, ...] = ()
    """What has failed: after a pause."""
    outdated: tuple[Part, ...] = ()
    """Files that may have changed without another time: soon."""
    big: tuple[Part, ...] = ()
    """Big files, of which nothing was sent: in the second lane."""
    waiting: tuple[Part, ...] = ()
    """What has to wait for something else, as order wants it: soon."""
    later: tuple[Part, ...] = ()
    """What the other lane stood in the way of: in the first lane, when the second has ended."""
    behind: tuple[Part, ...] = ()
    """What must not arrive before names that are owed: together with the next try of those."""

    def all(self) -> tuple[tuple[Part, ...], ...]:
        """Return the parts of each kind."""
        return self.due, self.outdated, self.big, self.waiting, self.later, self.behind


@dataclass(frozen=True, slots=True)
class Done:
    """The batch is done: all that could arrive has arrived."""

    batch: int
    seconds: float
    code: int = 0
    """The last exit code of rsync that was not 0; after 23 and 24 some names have to be retried."""
    reason: str = ""
    """rsync's last complaint; empty if there was none."""
    payload: bytes = b""
    file: str = ""
    """The ``Leftovers``, as ``spool.pack`` returns them; both are empty if there are none."""
    held: tuple[int, ...] = ()
    """Trees of which something was not sent, because their roots were not what they had to be."""
    cut_off: bool = False
    """Whether the node may still work on a try that was cut off."""
    bytes: int = 0
    """Sent and received, as rsync says."""
    renamed_bytes: int = 0
    """What was not sent because the node had it under another name."""
    rename_problem: str = ""
    """Why something that was renamed was sent all the same; empty if nothing was in the way."""
    rsyncs: int = 0
    """Starts of rsync since the last report that counts them."""
    cpu: float = 0.0
    """Processor time that the worker and its transfers have taken for it, in seconds."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison has ended."""

    id: int
    """As in ``Compare``."""
    reason: str = ""
    """Why the comparison failed; empty if it did not."""
    held: bool = False
    """Whether nothing was compared, because the root of the tree was not what it had to be."""
    count: int = 0
    """All differences."""
    payload: bytes = b""
    file: str = ""
    """The lines about the first differences, as ``spool.pack`` returns them."""


@dataclass(frozen=True, slots=True)
class HookFinished:
    """A hook has ended."""

    kind: str
    """The setting: ``on_sync`` or ``on_state``."""
    reason: str = ""
    """Why it failed; empty if it did not."""


Report = (
    Started
    | Progress
    | Through
    | Failed
    | SlotRequest
    | Unreachable
    | Reachable
    | TargetReplaced
    | TooManyRemovals
    | WarmSuspended
    | Relisting
    | Throttled
    | Done
    | Compared
    | HookFinished
)
