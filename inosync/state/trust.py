"""Whether what is kept can be relied on: each answer is a reason for full mirrors, or empty. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from inosync.changes import Kind
from inosync.config.nodes import NodeSpec, Tree
from inosync.rsync.options import unwatched
from inosync.state.document import RootFacts, SavedNode, SavedTree, State

MARGIN_SECONDS = 2.1
"""How much older than the moment of a change the time may be that a file gets: the coarsest file systems
count two seconds, and the kernel's own clock for times of files is some milliseconds late."""
CLOCK_TOLERANCE_SECONDS = 0.5
"""A clock that was set back by less than this cannot hide a change, because of the margin."""

_CHANGED = {
    "node": "the node is another place now",
    "rpath": "its rpath has changed",
    "extra": "its extra has changed",
    "rules": "its filter rules have changed",
    "ruser": "ruser has changed",
    "emask": "emask has changed",
    "rdelete": "rdelete has changed",
}
"""By what decides what is sent."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment by the clocks of this machine."""

    wall: float
    """Seconds since the epoch."""
    boot: str
    """Which boot of the machine it is in; empty if the kernel does not say."""
    clock_offset: float
    """How far the clock is ahead of the time since that boot, in seconds."""


@dataclass(frozen=True, slots=True)
class TreeFacts:
    """What a tree is now."""

    root: RootFacts
    identity: tuple[int, int]
    """Device and inode of the root."""
    mounts: Mapping[str, str] = field(default_factory=dict)
    """What is mounted below it: an identity, by the path from the root."""
    devices: frozenset[int] = frozenset()
    """The devices of these file systems."""
    untrusted: str = ""
    """The path from the root of something that is mounted, and whose times cannot be relied on."""


def decisive(spec: NodeSpec, tree: Tree) -> dict[str, str]:
    """Return what decides what a node is sent of a tree, as short checksums: it may hold secrets."""
    return {
        "node": _digest([spec.node]),
        "rpath": _digest([tree.rpath]),
        "extra": _digest(spec.extra),
        "rules": _digest(rule.word for rule in spec.rules(tree)),
    }


def decisive_for_all(ruser: str | None, emask: Iterable[str], rdelete: bool | str) -> dict[str, str]:
    """Return what decides what all nodes are sent, as short checksums."""
    return {
        "ruser": _digest([repr(ruser)]),
        "emask": _digest(sorted(emask)),
        "rdelete": _digest([repr(rdelete)]),
    }


def _digest(words: Iterable[str]) -> str:
    data = b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in words)
    return hashlib.sha256(data).hexdigest()[:16]


def doubt_state(state: State, config: str, now: Moment) -> str:
    """Return why nothing of a state can be relied on. ``config``: the real path of the configuration file."""
    if state.config != config:
        return f"the state belongs to {state.config}"
    if state.written > now.wall + CLOCK_TOLERANCE_SECONDS:
        return f"the clock was set back: the state is from {state.written - now.wall:.0f} s in the future"
    went_back = state.clock_offset - now.clock_offset
    if now.boot == state.boot and went_back > CLOCK_TOLERANCE_SECONDS:
        return f"the clock was set back by {went_back:.0f} s"
    return ""


def doubt_settings(state: State, common: Mapping[str, str], rdelete: bool | str) -> str:
    """Return why no node can be relied on to have what it would be sent now."""
    if rdelete in ("startup", "running"):
        return f'rdelete is "{rdelete}", and tells starts from changes'
    return _difference(state.common, common)


def doubt_tree(saved: SavedTree | None, found: TreeFacts | None) -> str:
    """Return why the times of the files in a tree do not tell what has changed."""
    if saved is None:
        return "it was not mirrored before"
    if found is None:
        return "its root was not there at the start"
    if not found.root.fs_type:
        return "the times of files cannot be relied on, on a file system of this type"
    if saved.root.fs_id != found.root.fs_id:
        return "its root is on another file system than before"
    if saved.root != found.root:
        return "its root is another directory than before"
    if found.untrusted:
        return f"the times of files cannot be relied on in {found.untrusted}, on a file system of that type"
    if saved.mounts != found.mounts:
        other = {path for path, _ in saved.mounts.items() ^ found.mounts.items()}
        return f"other file systems are mounted in it than before, such as at {min(other)}"
    if saved.has_unreadable:
        return "there were directories in it that could not be read"
    return ""


def doubt_node(saved: SavedNode | None, wpath: str, decisive: Mapping[str, str], extra: Iterable[str]) -> str:
    """Return why it is not known what a node has of a tree."""
    if saved is None or wpath not in saved.trees:
        return "it was not mirrored there before"
    if options := sorted(unwatched(extra)):
        return f"what {options[0]} in extra leads to is not watched"
    if changed := _difference(saved.trees[wpath], decisive):
        return changed
    if any(one.kind is Kind.TREE and one.wpath == wpath for one in saved.owed):
        return "its last full mirror had not come through"
    return "it had still to get too much, or files with old times" if saved.time is None else ""


def _difference(saved: Mapping[str, str], now: Mapping[str, str]) -> str:
    for what, digest in now.items():
        if saved.get(what) != digest:
            return _CHANGED[what]
    return ""
