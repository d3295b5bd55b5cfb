"""The state as it is kept in a file: bytes with a checksum, and what they mean. Pure; times since the epoch.

The first line says what the file is, in which version, and has a checksum of the rest, which is JSON. Names
of files are text with surrogate escapes, so that all bytes survive.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from inosync.changes import Kind
from inosync.guard.loss import Memory

if TYPE_CHECKING:  # loaded where there is a fleet
    from inosync.state.saved_fleet import SavedFleet

VERSION = 1
MAX_BYTES = 64 << 20
"""A file that is larger is not read."""
MAX_OWED = 50_000
"""Names that are owed to all nodes together. Nodes with more get full mirrors of their trees."""
MAX_OWED_BYTES = 8 << 20
"""The same, in bytes of these names."""
_MAGIC = "inosync-state"
_MEMORY = ("entries", "mounted", "accepted", "bare", "excess")
"""What is kept of a ``Memory``: its times are those of a clock that ends with the machine."""

T = TypeVar("T")


class StateError(Exception):
    """Why a file holds no state that can be used, in words that follow "the state"."""


@dataclass(frozen=True, slots=True)
class RootFacts:
    """Which directory a root is."""

    fs_type: str
    """Empty if the ctime of its files cannot be relied on, or the type is not known."""
    fs_id: str
    """Tells this file system from others, as far as the kernel says."""
    inode: int


@dataclass(frozen=True, slots=True)
class SavedTree:
    """A tree, by its wpath in ``State.trees``."""

    root: RootFacts
    mounts: Mapping[str, str] = field(default_factory=dict)
    """What is mounted below the root: an identity, by the path from the root."""
    memory: Memory = field(default_factory=Memory)
    """What the guard knows of the root."""
    has_unreadable: bool = False
    """Whether directories could be neither watched nor read."""


@dataclass(frozen=True, slots=True)
class Owed:
    """A change that a node is owed apart from the journal."""

    wpath: str
    path: bytes
    kind: Kind = Kind.NAME
    ignore_times: bool = False
    attempt: int = 0
    """Tries that failed."""
    since: float | None = None
    """Since when the node lacks it; None if it lacks nothing, as far as is known."""


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """A change of a node's state, or a failure."""

    at: float
    """When it happened, for the last time."""
    kind: str
    text: str
    count: int = 1
    """How often, one after the other."""


@dataclass(frozen=True, slots=True)
class SavedNode:
    """A node, by its name in ``State.nodes``."""

    time: float | None = None
    """The node has everything that was changed before, but for ``owed``; None: that is not known."""
    trees: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By wpath what decides what it is sent, in words and as checksums (``trust.decisive``)."""
    owed: tuple[Owed, ...] = ()
    problem: str = ""
    """What rsync complained of last."""
    paused: bool = False
    untidy: bool = False
    """Whether a transfer may have been cut off, and have left temporary files."""
    hooks_lost: bool = False
    """Whether hooks for what the node has may not have been run."""
    last_ok: float | None = None
    verified_at: float | None = None
    differences: int = 0
    events: tuple[NodeEvent, ...] = ()
    """The last ones, oldest first."""


@dataclass(frozen=True, slots=True)
class State:
    """All that is kept."""

    config: str
    """The real path of the configuration file."""
    written: float
    boot: str
    """Which boot of the machine it was written in; empty if the kernel does not say."""
    clock_offset: float
    """How far the clock was ahead of the time since that boot, in seconds."""
    clean: bool
    """Whether the daemon had ended all that it did."""
    common: Mapping[str, str] = field(default_factory=dict)
    """What decides what all nodes are sent, in words and as checksums."""
    trees: Mapping[str, SavedTree] = field(default_factory=dict)
    nodes: Mapping[str, SavedNode] = field(default_factory=dict)
    held_until: float | None = None
    """Until when nothing is sent to any node; None: no operator holds it back."""
    fleet: SavedFleet | None = None
    """None: this is not the origin of one, or it has to begin anew."""
    far_orders: Mapping[str, str] | None = None
    """What an operator has ordered for nodes of senders (``fleet.orders``); None: there are no senders."""


def encode(state: State) -> bytes:
    """Return the content of a file. Too many owed names become whole trees."""
    body = json.dumps(_bounded(_plain(state)), separators=(",", ":")).encode("ascii")
    return f"{_MAGIC} {VERSION} {_checksum(body)}\n".encode("ascii") + body


def decode(data: bytes) -> State:
    """Return the state in the content of a file; StateError if there is none."""
    if not data:
        raise StateError("is empty")
    head, newline, body = data.partition(b"\n")
    words = head[:200].decode("ascii", "replace").split(" ")
    if not newline or len(words) != 3 or words[0] != _MAGIC:
        raise StateError("is not readable")
    if words[1] != str(VERSION):
        raise StateError(f"is of another version of inosync (format {words[1][:20]!r}, not {VERSION})")
    if words[2] != _checksum(body):
        raise StateError("is damaged: its checksum is wrong")
    try:
        return _state(_Reader(json.loads(body, parse_constant=_no_number)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StateError(f"is not readable ({type(error).__name__})") from None


def _no_number(text: str) -> None:
    raise ValueError(text)  # NaN or infinite


def _checksum(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def to_text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _plain(state: State) -> dict[str, Any]:
    nodes = {
        name: {
            "time": node.time,
            "trees": {wpath: dict(key) for wpath, key in node.trees.items()},
            "owed": [
                [one.wpath, to_text(one.path), int(one.kind), one.ignore_times, one.attempt, one.since]
                for one in node.owed
            ],
            "problem": node.problem,
            "paused": node.paused,
            "untidy": node.untidy,
            "hooks_lost": node.hooks_lost,
            "last_ok": node.last_ok,
            "verified_at": node.verified_at,
            "differences": node.differences,
            "events": [[one.at, one.kind, one.text, one.count] for one in node.events],
        }
        for name, node in state.nodes.items()
    }
    trees = {
        wpath: {
            "root": [tree.root.fs_type, tree.root.fs_id, tree.root.inode],
            "mounts": dict(tree.mounts),
            "memory": [getattr(tree.memory, name) for name in _MEMORY],
            "has_unreadable": tree.has_unreadable,
        }
        for wpath, tree in state.trees.items()
    }
    return {
        "config": state.config,
        "written": state.written,
        "boot": state.boot,
        "clock_offset": state.clock_offset,
        "clean": state.clean,
        "common": dict(state.common),
        "trees": trees,
        "nodes": nodes,
        "held_until": state.held_until,
        "far_orders": None if state.far_orders is None else dict(state.far_orders),
        "fleet": None if state.fleet is None else _plain_fleet(state.fleet),
    }


def _plain_fleet(fleet: SavedFleet) -> dict[str, Any]:
    from inosync.state import saved_fleet

    return saved_fleet.plain(fleet)


def _bounded(plain: dict[str, Any]) -> dict[str, Any]:
    """Replace the names owed to nodes by their trees, once there are too many."""
    names, size = MAX_OWED, MAX_OWED_BYTES
    for node in plain["nodes"].values():
        names -= len(node["owed"])
        size -= sum(len(one[1]) for one in node["owed"])
        if min(names, size) < 0 and node["owed"]:
            names, size = max(names, 0), max(size, 0)
            wpaths = dict.fromkeys(one[0] for one in node["owed"])
            node["owed"] = [[wpath, "", int(Kind.TREE), False, 0, None] for wpath in wpaths]
    return plain


class _Reader:
    """A dictionary whose values have to have the right types; ValueError if one has not."""

    def __init__(self, found: object) -> None:
        if not isinstance(found, dict):
            raise ValueError
        self._found = found

    def get(self, key: str, *types: type) -> Any:
        value = self._found[key]
        if type(value) not in types:
            raise ValueError(key)
        return value

    def maybe_list(self, key: str) -> list[Any]:
        """Return a list that a state of an older inosync may lack."""
        return self.get(key, list) if key in self._found else []

    def maybe_texts(self, key: str) -> dict[str, str] | None:
        found = self._found.get(key)
        return None if found is None else _texts(found)

    def has(self, key: str) -> bool:
        return key in self._found

    def fleet(self) -> SavedFleet | None:
        found = self._found.get("fleet")
        if found is None:
            return None
        from inosync.state import saved_fleet

        return saved_fleet.read(found)

    def seconds(self, key: str) -> float:
        return float(self.get(key, int, float))

    def maybe_seconds(self, key: str) -> float | None:
        return _maybe_seconds(self._found[key])

    def each(self, key: str, read: Callable[[_Reader], T]) -> dict[str, T]:
        return {name: read(_Reader(value)) for name, value in self.get(key, dict).items()}

    def texts(self, key: str) -> dict[str, str]:
        return _texts(self.get(key, dict))


def _maybe_seconds(value: object) -> float | None:
    if value is not None and type(value) not in (int, float):
        raise ValueError
    return None if value is None else float(value)  # type: ignore[arg-type]


def _texts(found: object) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError
    return found


def _state(found: _Reader) -> State:
    return State(
        config=found.get("config", str),
        written=found.seconds("written"),
        boot=found.get("boot", str),
        clock_offset=found.seconds("clock_offset"),
        clean=found.get("clean", bool),
        common=found.texts("common"),
        trees=found.each("trees", _tree),
        nodes=found.each("nodes", _node),
        held_until=found.maybe_seconds("held_until") if found.has("held_until") else None,
        fleet=found.fleet(),
        far_orders=found.maybe_texts("far_orders"),
    )


def _tree(found: _Reader) -> SavedTree:
    fs_type, fs_id, inode = found.get("root", list)
    kept = found.get("memory", list)
    memory = dict(zip(_MEMORY, kept if len(kept) == len(_MEMORY) else [*kept, ""], strict=True))
    entries, *flags, excess = memory.values()
    are_right = isinstance(fs_type, str) and isinstance(fs_id, str) and type(inode) is int
    if not are_right or type(entries) not in (int, type(None)) or {type(flag) for flag in flags} != {bool}:
        raise ValueError
    if not isinstance(excess, str):
        raise ValueError
    root = RootFacts(fs_type, fs_id, inode)
    return SavedTree(root, found.texts("mounts"), Memory(**memory), found.get("has_unreadable", bool))


def _node(found: _Reader) -> SavedNode:
    return SavedNode(
        time=found.maybe_seconds("time"),
        trees={wpath: _texts(key) for wpath, key in found.get("trees", dict).items()},
        owed=tuple(map(_owed, found.get("owed", list))),
        problem=found.get("problem", str),
        paused=found.get("paused", bool),
        untidy=found.get("untidy", bool),
        hooks_lost=found.get("hooks_lost", bool),
        last_ok=found.maybe_seconds("last_ok"),
        verified_at=found.maybe_seconds("verified_at"),
        differences=found.get("differences", int),
        events=tuple(map(_event, found.maybe_list("events"))),
    )


def _event(found: object) -> NodeEvent:
    if not isinstance(found, list) or [type(value) for value in found[1:]] != [str, str, int]:
        raise ValueError
    at = _maybe_seconds(found[0])
    if at is None:
        raise ValueError
    return NodeEvent(at, *found[1:])


def _owed(found: object) -> Owed:
    if not isinstance(found, list) or len(found) != 6:
        raise ValueError
    wpath, path, kind, ignore_times, attempt, since = found
    right = (
        isinstance(wpath, str) and isinstance(path, str) and type(kind) is int and type(attempt) is int
    ) and isinstance(ignore_times, bool)
    if not right:
        raise ValueError
    return Owed(wpath, _to_bytes(path), Kind(kind), ignore_times, attempt, _maybe_seconds(since))
