"""Changes: what may differ on the nodes, from the watcher to rsync, and what a batch holds of one tree."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

WORTHWHILE_BYTES = 100_000
"""How much has to be renamed before a run of rsync that sends none of it pays."""


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
    is_again: bool = False
    """Whether it is only looked at again, because a try that was cut off may have changed it on the node.

    It is a debt of its own, beside one of the same path that is due earlier.
    """

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
class Rename:
    """A hint: what a node has at ``old`` is to be at ``new``. Only how much is sent depends on it."""

    old: bytes
    """Paths as in ``Change``."""
    new: bytes
    is_directory: bool
    at: float = field(default=0.0, compare=False)
    """When it was noticed, by ``time.monotonic``; of renames that follow each other, the first."""


@dataclass(frozen=True, slots=True)
class Source:
    """What the root of a tree has to be, or nothing of the tree is sent."""

    identity: tuple[int, int]
    """Device and inode."""
    whole: bool
    """Whether an empty root is a loss, which must not be mirrored."""


@dataclass(frozen=True, slots=True)
class OwedNames:
    """What a node lacks of a tree apart from the batch, in the form of ``Change.wire``."""

    failed: tuple[bytes, ...] = ()
    big: tuple[bytes, ...] = ()
    """What is for the second lane, or in it."""
    hopeless: tuple[bytes, ...] = ()
    """What has failed so often that only links to it wait; the batch may try it once more."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many entries may be removed from a node at once (``rmaxdelete``)."""

    count: int
    """So many in any case."""
    left_for_each: float
    """More if the tree has this many entries for each of them; 0: never more."""


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
    """Names that are ``Change.is_again``. Those that the part does not have mean nothing."""
    make_way: tuple[bytes, ...] = ()
    """Names of which the node loses what it has, in a relist that leaves them out; see ``outcome``."""
    allowance: Allowance | None = None
    """The node counts what it would lose, and loses no more than this; None: it does not count."""


class Lane(enum.IntEnum):
    """Which of a worker's two transfers at once."""

    FIRST = 1
    """All but big files."""
    SECOND = 2
    """Big files, so that small changes do not wait for them."""
