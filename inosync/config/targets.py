"""Where a transfer of a tree to a node goes, and which of these places are too close to each other.

What is refused here would have rsync write into, or delete from, another place than was meant.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from inosync.config.errors import Invalid, ValueProblem, invalid
from inosync.config.nodes import NodeSpec, Tree
from inosync.rsync.target import Transport, remote_parts, transport

DAEMON_PORT = "873"


@dataclass(frozen=True, slots=True)
class TargetPlace:
    """The place of a target, to be compared with others."""

    transport: Transport
    host: str
    """The host with what distinguishes it: the user and, for a daemon, the port."""
    path: str
    """Normalised. A path that is not absolute is relative to the home, or begins with the module."""


def check_target(node: str, rpath: str) -> TargetPlace:
    """Return the place of a checked node followed by the rpath; Invalid if nothing may be sent there."""
    target = node + rpath
    reached = transport(node)
    remote = remote_parts(target)
    if transport(target) is not reached or _host(remote_parts(node)) != _host(remote):
        raise _invalid(node, rpath, f"this makes {target!r}, another node", "begin the rpath with a slash")
    if _glued(node, rpath):
        raise _invalid(node, rpath, f"this makes {target!r}", f"write rpath {'/' + rpath!r}")
    if remote is None:
        return TargetPlace(reached, "", _local(node, rpath))
    if reached is Transport.SSH:
        return TargetPlace(reached, _host(remote), _over_ssh(node, rpath, _path(remote)))
    return TargetPlace(reached, _host(remote), _in_module(node, rpath, _path(remote)))


def _host(remote: re.Match[str] | None) -> str:
    if remote is None:
        return ""
    parts = remote.groupdict()
    port = f":{parts['port'] or DAEMON_PORT}" if "port" in parts else ""
    if parts.get("colons") == "::":
        port = f":{DAEMON_PORT}"
    return f"{parts['user'] or ''}@{parts['host'].lower()}{port}"


def _path(remote: re.Match[str]) -> str:
    return remote["path"] or ""


def _invalid(node: str, rpath: str, problem: str, hint: str) -> Invalid:
    return invalid(node, f"with rpath {rpath!r}: {problem}", hint)


def _local(node: str, rpath: str) -> str:
    path = _normalised(node + rpath)
    if path == "/":
        raise _invalid(node, rpath, "this is the root directory", "write a directory below it")
    return path


def _over_ssh(node: str, rpath: str, path: str) -> str:
    """Return the path of an ssh target; Invalid for a root, or a home directory named by omission."""
    absolute = "write an absolute directory, such as '/var/www'"
    normalised = _normalised(path)
    if normalised == "/":
        raise _invalid(node, rpath, "this is the root directory of the node", absolute)
    # Only some versions of rsync expand "~"; the others make a directory of this name.
    if (
        path == ""
        or (path.startswith("~") and "/" not in path.rstrip("/"))
        or (normalised == "." and path not in (".", "./"))
    ):
        home = "this is the home directory of the node's user"
        raise _invalid(node, rpath, home, f"{absolute}, or './' if the home is really meant")
    if normalised == ".." or normalised.startswith("../"):
        raise _invalid(node, rpath, "this leads out of the home directory of the node's user", absolute)
    if path.startswith("-"):
        raise _invalid(node, rpath, "the path starts with '-'", f"write './{path}'")
    return normalised


def _in_module(node: str, rpath: str, path: str) -> str:
    module = path.partition("/")[0]
    if not module:
        raise _invalid(node, rpath, "the module of the rsync daemon is missing", "write host::module")
    if ":" in module:
        raise _invalid(node, rpath, f"{module!r} is no module", "write host::module")
    if ".." in path.split("/"):
        raise _invalid(node, rpath, "'..' leads out of the module", "write the path without it")
    return _normalised(path)


def _glued(node: str, rpath: str) -> bool:
    """Whether the last name of the node and the first of the rpath run together into one."""
    remote = remote_parts(node)
    path = _path(remote) if remote else node
    return bool(path and rpath) and not path.endswith("/") and not rpath.startswith("/")


def _normalised(path: str) -> str:
    normalised = posixpath.normpath(path)
    # POSIX leaves the meaning of two leading slashes to the system; on Linux they are one.
    return "/" + normalised.lstrip("/") if normalised.startswith("/") else normalised


def check_targets(
    nodes: Sequence[NodeSpec],
    trees: Sequence[Tree],
    real: Callable[[str], str],
    overlap: Callable[[str, str], str],
    here: Callable[[TargetPlace, Sequence[str]], str],
) -> Iterator[ValueProblem]:
    """Yield what is wrong with the targets of all trees on all nodes.

    ``real`` resolves local links; ``overlap`` says what a local target is to a source, if they are not apart
    though their paths are; ``here`` gives the local directory of a remote target with its ``extra``, or "".
    """
    sources = {real(tree.wpath): tree.wpath for tree in trees}
    spots: list[tuple[Hashable, str]] = []
    owners: list[tuple[NodeSpec, Tree]] = []
    for node in nodes:
        for tree in filter(node.gets, trees):
            try:
                place = _resolved(check_target(node.node, tree.rpath), real)
                if local := _local_path(place, node.extra, real, here):
                    _keep_apart(node.target(tree), local, sources, overlap)
            except Invalid as error:
                yield from error.problems
                continue
            # With another remote shell or port, the same host may be another machine.
            reach = node.extra if place.host else ()
            spots.append(((place.transport, place.host, reach), place.path))
            owners.append((node, tree))
    yield from _overlapping(spots, owners)


def _resolved(place: TargetPlace, real: Callable[[str], str]) -> TargetPlace:
    return replace(place, path=real(place.path)) if place.transport is Transport.LOCAL else place


def _local_path(
    place: TargetPlace,
    extra: Sequence[str],
    real: Callable[[str], str],
    here: Callable[[TargetPlace, Sequence[str]], str],
) -> str:
    """The resolved path of a target on this machine; empty if it is on another one."""
    if place.transport is Transport.LOCAL:
        return place.path
    path = here(place, extra)
    return real(path) if path else ""


def _keep_apart(
    target: str, path: str, sources: Mapping[str, str], overlap: Callable[[str, str], str]
) -> None:
    """Raise Invalid if a local path contains a wpath, or lies in one: it would be mirrored into itself."""
    for source, wpath in sources.items():
        if pair := next(overlaps([("", source), ("", path)]), None):
            how = "is" if source == path else "lies inside" if pair == (1, 0) else "contains"
            raise invalid(target, f"{how} the wpath {wpath!r}", "write a directory elsewhere")
        if how := overlap(source, path):
            problem = f"{how} the wpath {wpath!r}, by a mount or a link"
            raise invalid(target, problem, "write a directory elsewhere")


def _overlapping(
    spots: Sequence[tuple[Hashable, str]], owners: Sequence[tuple[NodeSpec, Tree]]
) -> Iterator[ValueProblem]:
    reported: set[tuple[Tree, Tree]] = set()
    for inner, outer in overlaps(spots):
        (node, tree), (other, other_tree) = owners[inner], owners[outer]
        if node is other and (tree, other_tree) in reported:
            continue  # the same rpaths, on one more node
        reported.add((tree, other_tree))
        how = "is the same place as" if spots[inner] == spots[outer] else "lies inside"
        problem = f"for the wpath {tree.wpath!r}: {how} {other.target(other_tree)!r} for {other_tree.wpath!r}"
        yield ValueProblem(node.target(tree), problem, "keep them apart, each would delete the other's files")


def overlaps(places: Sequence[tuple[Hashable, str]]) -> Iterator[tuple[int, int]]:
    """Yield the numbers of places (where, normalised path) that equal or lie inside another: (inner, outer).

    rsync --delete for the outer one would remove the inner one.
    """
    first: dict[tuple[Hashable, str], int] = {}
    for number, place in enumerate(places):
        if (same := first.setdefault(place, number)) != number:
            yield number, same
    for number, (where, path) in enumerate(places):
        outer = next((first[where, above] for above in _above(path) if (where, above) in first), None)
        if outer is not None:
            yield number, outer


def _above(path: str) -> Iterator[str]:
    while path not in (".", "/"):
        path = posixpath.dirname(path) or "."
        yield path
