"""Several machines that send for one origin, as the configuration says it (docs/fleet.rst)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from inosync.config.checks import string
from inosync.config.errors import Invalid, ValueProblem, invalid
from inosync.config.nodes import NodeSpec, Tree
from inosync.config.redis_url import BY_SENTINEL, DIRECT, sentinels
from inosync.config.targets import check_target
from inosync.rsync.target import Transport
from inosync.text import format_value

OWN_DIRECTORY = ".inosync"
"""Beside each copy: what rsync is receiving, and what says which copy this is. It is never sent on."""
_EXAMPLE = (
    'write "redis://HOST/0", "rediss://HOST/0", "unix:///PATH" or "redis+sentinel://HOST,HOST/SERVICE", '
    'or {"url": ..., "name": ...}'
)
_PASSWORD = 'leave it out, and name a file with it: {"url": ..., "password_file": FILE}'
_FILES = ("password_file", "sentinel_password_file")
_KEYS = ("url", "name", "password_file", "sentinel_user", "sentinel_password_file")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where the journal of a fleet is kept."""

    url: str
    """Without a password."""
    name: str = "default"
    """Tells fleets in one Redis apart."""
    password_file: str = ""
    """A file with the password; empty: there is none."""
    sentinel_user: str = ""
    """The user at the Sentinels; empty: their default one."""
    sentinel_password_file: str = ""
    """A file with the password of the Sentinels; empty: they have none."""

    def __str__(self) -> str:
        return f"{self.url} (fleet {self.name})"


@dataclass(frozen=True, slots=True)
class SenderSpec:
    """A machine that sends on what it has a copy of."""

    node: NodeSpec
    """How the origin reaches it."""
    path: str
    """Where its copies are, as it sees them: what ``node`` is to the origin. Empty: as the node says."""
    shared: bool = False
    """Whether it has the storage of the origin, and so no copies: nothing is sent to it."""

    @property
    def name(self) -> str:
        return self.node.name


@dataclass(frozen=True, slots=True)
class Fleet:
    """What a machine of a fleet knows from its configuration."""

    redis: RedisAddress
    me: str
    """The name of this sender; empty at the origin."""
    senders: tuple[str, ...]
    nodes: tuple[NodeSpec, ...]
    """The nodes that senders serve."""
    temporary: Mapping[tuple[str, str], str]
    """By sender and wpath: the directory, as rsync names it there, for what it is receiving."""
    fingerprint: str = ""
    """Of all that has to be the same on every machine."""
    shared: tuple[NodeSpec, ...] = ()
    """The senders that have the storage of the origin."""

    @property
    def shares_storage(self) -> bool:
        """Whether this machine is such a sender."""
        return any(node.name == self.me for node in self.shared)

    def __str__(self) -> str:
        return str(self.redis)

    def is_copy(self, node: NodeSpec, tree: Tree) -> bool:
        """Whether what goes there is the copy of a sender."""
        return (node.name, tree.wpath) in self.temporary

    def extra(self, node: NodeSpec, tree: Tree) -> tuple[str, ...]:
        """Return what rsync is called with besides, for a tree that goes to a sender."""
        place = self.temporary.get((node.name, tree.wpath))
        return () if place is None else (f"--temp-dir={place}",)


def redis_address(value: object) -> RedisAddress | None:
    """Check ``fleet``."""
    if value is None:
        return None
    items = value if isinstance(value, dict) else {"url": value}
    if unknown := [key for key in items if key not in _KEYS]:
        raise invalid(unknown[0], "is not known in fleet", f"there are {', '.join(map(format_value, _KEYS))}")
    url, name = items.get("url"), items.get("name", "default")
    if not isinstance(url, str) or not url.isprintable() or not url.isascii() or " " in url:
        raise invalid(_shown(url) if isinstance(url, str) else url, "is no address of Redis", _EXAMPLE)
    scheme, _, rest = url.partition("://")
    if scheme not in (*DIRECT, *BY_SENTINEL) or not rest:
        raise invalid(_shown(url), "is no address of Redis", _EXAMPLE)
    try:
        has_sentinels = sentinels(url) is not None
    except ValueError as error:
        raise invalid(_shown(url), "is no address of Sentinels", str(error)) from None
    user = rest.rpartition("@")[0]
    if ":" in user or re.search(r"[?&]password=", rest):
        raise invalid(_shown(url), "has a password in it", _PASSWORD)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise invalid(name, "is no name of a fleet", "write letters, digits, and _.-")
    file, sentinel_file = (_password_path(items.get(key, "")) for key in _FILES)
    sentinel_user = string(items.get("sentinel_user", ""))
    if not has_sentinels and (sentinel_user or sentinel_file):
        raise invalid(_shown(url), "has no Sentinels", "leave out sentinel_user and sentinel_password_file")
    if sentinel_user and not sentinel_file:
        raise invalid(sentinel_user, "has no password", "name a file with it: sentinel_password_file")
    return RedisAddress(url, name, file, sentinel_user, sentinel_file)


def _password_path(value: object) -> str:
    file = string(value)
    if file and not file.startswith("/"):
        raise invalid(file, "is no absolute path", "write the path of a file with the password")
    return file


def _shown(url: str) -> str:
    """Return an address without what may be a password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}" if rest else "***"


def sender_names(value: object) -> tuple[str, ...]:
    """Check ``senders`` of a node."""
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise invalid(value, "is no list of names", 'write ["eu-1", "eu-2"], or [] for the origin itself')
    return tuple(dict.fromkeys(value))


def sender_path(value: object) -> str:
    """Check ``path`` of a sender."""
    path = string(value)
    if not path.startswith("/"):
        raise invalid(path, "is no absolute path", "write where the copies are, as the sender sees them")
    return path


def copy_of(sender: SenderSpec, tree: Tree) -> str:
    """Return where the copy of a tree is, as the sender sees it; Invalid if that cannot be."""
    if sender.shared:
        return _shared_place(sender, tree)
    node, transport = sender.node.node, sender.node.transport
    place = check_target(node, tree.rpath)
    hint = 'write {"node": ..., "path": DIRECTORY}: where the copies are, as the sender sees them'
    if sender.path:
        copy = posixpath.normpath(f"{sender.path}/{tree.rpath}")
    elif transport is Transport.DAEMON or not place.path.startswith("/"):
        raise invalid(node, "does not say where the copies are", hint)
    else:
        copy = place.path
    base = posixpath.normpath(sender.path or "/")
    if copy in ("/", base if sender.path else "/"):
        raise invalid(node, f"with rpath {tree.rpath!r}: there is nothing above the copy", "write an rpath")
    return copy


def _shared_place(sender: SenderSpec, tree: Tree) -> str:
    """Return where shared storage is: by default where the origin has it."""
    if sender.path:
        return posixpath.normpath(f"{sender.path}/{tree.rpath}")
    try:
        place = check_target(sender.node.node, tree.rpath)
    except Invalid:
        return tree.wpath
    says_where = sender.node.transport is not Transport.DAEMON and place.path.startswith("/")
    return place.path if says_where else tree.wpath


def temporary_place(sender: SenderSpec, tree: Tree) -> str:
    """Return the directory for what rsync is receiving there, as the rsync of the sender names it."""
    place = check_target(sender.node.node, tree.rpath)
    path = place.path
    if sender.node.transport is Transport.DAEMON:
        module, _, below = path.partition("/")
        if not below:
            raise invalid(
                f"{module}", "is the whole module: there is nothing beside the copy", "write an rpath"
            )
        path = f"/{below}"
    elif not path.startswith("/"):
        raise invalid(sender.node.node, f"with rpath {tree.rpath!r}: not an absolute path", "write one")
    return posixpath.join(posixpath.dirname(path), OWN_DIRECTORY)


def assembled(
    redis: RedisAddress,
    me: str,
    senders: Sequence[SenderSpec],
    nodes: Sequence[NodeSpec],
    trees: Sequence[Tree],
    fingerprint: str,
) -> Fleet:
    """Return the fleet; Invalid with everything that is wrong in it."""
    problems: list[ValueProblem] = []
    names = tuple(sender.name for sender in senders)
    temporary: dict[tuple[str, str], str] = {}
    for sender in senders:
        if not _NAME.fullmatch(sender.name):
            problem = 'write {"node": ..., "name": NAME}, of letters, digits, and _.-'
            problems.append(ValueProblem(sender.name, "is no name of a sender", problem))
        for tree in trees:
            try:
                copy_of(sender, tree)
                if not sender.shared:
                    temporary[sender.name, tree.wpath] = temporary_place(sender, tree)
            except Invalid as error:
                problems += error.problems
    for node in nodes:
        if node.name in names:
            problems.append(ValueProblem(node.name, "is the name of a sender, too", "give it another name"))
        for name in node.senders or ():
            if name not in names:
                where = f"senders of {format_value(node.name)}"
                hint = f"there are {', '.join(names)}" if names else "there are no rsenders"
                problems.append(ValueProblem(name, "is no sender", hint, where))
        if node.senders != () and any(rule.include for rule in node.own_rules):
            hint = "the copies of the senders lack what rexcludes of the file excludes: write it there"
            problems.append(ValueProblem(node.name, "includes something of its own (+)", hint))
    if me and me not in names:
        problems.append(ValueProblem(me, "is no sender", f"there are {', '.join(names)}"))
    if problems:
        raise Invalid(*problems)
    served = tuple(node for node in nodes if node.senders != ())
    shared = tuple(sender.node for sender in senders if sender.shared)
    return Fleet(redis, me, names, served, temporary, fingerprint, shared)


def as_seen_by(fleet: Fleet, sender: SenderSpec, trees: Sequence[Tree]) -> tuple[Fleet, tuple[Tree, ...]]:
    """Return the fleet and the trees as a sender has them: with its copies in place of the wpaths."""
    copies = {tree.wpath: copy_of(sender, tree) for tree in trees}

    def seen(node: NodeSpec) -> NodeSpec:
        return (
            node if node.wpaths is None else replace(node, wpaths=tuple(copies[one] for one in node.wpaths))
        )

    own = tuple(replace(tree, wpath=copies[tree.wpath]) for tree in trees)
    return replace(fleet, nodes=tuple(map(seen, fleet.nodes))), own


def described(
    redis: RedisAddress,
    trees: Iterable[Tree],
    senders: Iterable[SenderSpec],
    nodes: Iterable[NodeSpec],
    rdelete: object,
) -> str:
    """Return all that has to be the same on every machine, as text."""
    return repr((redis.name, tuple(trees), tuple(senders), tuple(nodes), rdelete))
