"""Trees and nodes, and how nodes are written in a configuration file.

rsync(1): a target is remote if a colon comes before any slash; ``host:path`` is reached through a shell,
``host::module/path`` and ``rsync://host[:port]/module/path`` through a daemon; an IPv6 address stands in
brackets. What is refused here is what rsync would take for another place than was meant.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from inosync.config.errors import invalid
from inosync.config.timetable import UNLIMITED, Timetable
from inosync.filters import rules as filter_rules
from inosync.filters.rule import Rule
from inosync.rsync import target
from inosync.rsync.target import Transport, remote_parts
from inosync.text import address_without_password

WARM_BY_DEFAULT = -1
"""The value of ``rwarm`` that is written as True."""
_WARM_OF_A_NODE = 4
"""By default so many connections are kept to a node; one takes 0.9 MB here, or 3.7 MB with ssh."""
_WARM_IN_ALL = 200
"""By default so many connections are kept in all, and at least one for each node."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One wpath and where it goes."""

    wpath: str
    """Absolute and normalised; symbolic links in it are kept."""
    rpath: str
    """As configured; the target of a transfer is the node followed by it."""
    rules: tuple[Rule, ...]
    """Those for this wpath, then those for every wpath. rsync takes the first that matches."""


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node, with the values in force for it: its own, or else those of the file. Times are in seconds."""

    node: str
    """As written in ``rnodes``."""
    name: str
    """What it is called everywhere; unique, printable, without a password."""
    rspeed: Timetable = UNLIMITED
    extra: tuple[str, ...] = ()
    """The file's, then the node's own, without the filter rules in them."""
    own_rules: tuple[Rule, ...] = ()
    """Those in the node's own ``rexcludes``."""
    rtimeout: float = 0.0
    rwarm: int = WARM_BY_DEFAULT
    """See ``most_warm``."""
    rverify: float = 0.0
    rchecksum: bool = False
    extra_rules: tuple[Rule, ...] = ()
    """Those in ``extra``: the file's, then the node's own."""
    wpaths: tuple[str, ...] | None = None
    """The trees that it gets, by their ``Tree.wpath``; None: all of them."""
    senders: tuple[str, ...] | None = None
    """In a fleet: the senders that may serve it; None: all of them; none: the origin does."""

    def gets(self, tree: Tree) -> bool:
        return self.wpaths is None or tree.wpath in self.wpaths

    def target(self, tree: Tree) -> str:
        return self.node + tree.rpath

    def rules(self, tree: Tree) -> tuple[Rule, ...]:
        """Return all filter rules for transfers of a tree to this node, the most specific first.

        ``!`` has been obeyed, and only the first of equal rules is kept, because no other decides anything.
        """
        return tuple(dict.fromkeys(filter_rules.effective(self.own_rules + tree.rules + self.extra_rules)))

    @property
    def transport(self) -> Transport:
        return target.transport(self.node)


def watched_by(tree: Tree, nodes: Iterable[NodeSpec]) -> frozenset[tuple[Rule, ...]]:
    """Return lists of rules: what all of them exclude is needed by none of these nodes, and not watched.

    A list that only excludes more than another one makes no difference, and is left out.
    """
    lists = {_excluding(node.rules(tree)) for node in nodes if node.gets(tree)}
    lengths = {len(rules) for rules in lists}
    return frozenset(rules for rules in lists if not _only_excludes_more(rules, lists, lengths))


def _excluding(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Return the rules of a list that decide what is excluded from transfers."""
    kept = [rule for rule in rules if rule.sides != "r" and not rule.xattr]
    while kept and kept[-1].include:  # what matches no rule is included anyway
        kept.pop()
    return tuple(kept)


def _only_excludes_more(
    rules: tuple[Rule, ...], lists: Collection[tuple[Rule, ...]], lengths: Collection[int]
) -> bool:
    """Whether a list is another one with excludes before it. ``lengths`` are those of all lists."""
    for start, rule in enumerate(rules, 1):
        if rule.include:
            return False
        if len(rules) - start in lengths and rules[start:] in lists:
            return True
    return False


_SYNTAX = "user@host:/directory, host::module, rsync://host/module, or an absolute path"
_NO_PASSWORD = "leave it out, and name a file with it in extra: --password-file=FILE"

_OTHER_URL = re.compile(r"(?!rsync:)([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_BARE_IPV6 = re.compile(r"(?:[^/:@]*@)?[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){3,}(?:/|$)", re.IGNORECASE)


def display_name(node: str) -> str:
    """Return what a node without a ``name`` is called everywhere."""
    return address_without_password(node).rstrip(":/") or node


def check_node(node: object) -> str:
    """Check a node as it is written in ``rnodes``. ``targets.check_target`` checks where it leads."""
    if not isinstance(node, str):
        raise invalid(node, "is not a string", f"write {_SYNTAX}")
    if problem := _node_problem(node):
        raise invalid(node, *problem)
    return node


def _node_problem(node: str) -> tuple[str, str] | None:
    if not node.strip():
        return "is empty", f"write {_SYNTAX}"
    if node.startswith("-"):
        return "starts with '-', rsync would take it for an option", f"write {_SYNTAX}"
    if not node.isprintable():
        return "has control characters in it", f"write {_SYNTAX}"
    if address_without_password(node) != node:
        # Tested: rsync://user:password@host/module is an ssh transfer to a host named "rsync".
        return "has a password in it, which rsync does not understand", _NO_PASSWORD
    if other := _OTHER_URL.match(node):
        return f"rsync would take {other[1]} for the name of a host", f"write {_SYNTAX}"
    if _BARE_IPV6.match(node):
        return "looks like an IPv6 address without brackets", "write it like [2001:db8::1]:/directory"
    return _address_problem(node)


def _address_problem(node: str) -> tuple[str, str] | None:
    remote = remote_parts(node)
    if remote is not None:
        return ("the name of the host starts with '-'", "") if remote["host"].startswith("-") else None
    if target.is_url(node) or ":" in node.partition("/")[0]:
        return "is not an address that rsync understands", f"write {_SYNTAX}"
    if not node.startswith("/"):
        return "is a local path that is not absolute", f"write {node + ':'!r} if it is a host"
    return None


def check_warm(value: object) -> int:
    """Check ``rwarm``; True becomes WARM_BY_DEFAULT, False 0."""
    if isinstance(value, bool):
        return WARM_BY_DEFAULT if value else 0
    if not isinstance(value, int):
        raise invalid(value, "is neither True, False nor a whole number", "write one of them")
    if value < 0:
        raise invalid(value, "is negative", "write how many connections are kept to a node, 0 or more")
    return value


def most_warm(rwarm: int, node_count: int) -> int:
    """Return how many connections are kept to a node at most."""
    if rwarm != WARM_BY_DEFAULT:
        return rwarm
    return max(min(_WARM_OF_A_NODE, _WARM_IN_ALL // max(node_count, 1)), 1)
