"""The messages between the master and its workers, which are frozen: each means the same at both ends."""

from __future__ import annotations

from dataclasses import dataclass

from inosync.changes import Lane, Part, Source

MAX_REASON_BYTES = 500
"""How much of a reason travels in a message, as UTF-8."""


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
