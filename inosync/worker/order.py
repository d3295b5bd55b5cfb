"""The order in which a batch arrives: new names, changed files, links and replacements, removals.

So nothing on the node leads to what is not there yet, and nothing goes that is still led to. The master says
what has happened to each name (``Step``); what is there when the batch begins decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from inosync.messages import Part, Rename, Step
from inosync.rsync.names import CurrentNames, relist_parent

MAX_LISTED = 50_000
"""Entries of a directory that are listed one by one; a relist of a larger one stays one name."""

Listing = Callable[[bytes], list[tuple[bytes, bool]]]
"""``names.listing`` of a relisted directory. OSError if it cannot be listed."""


def step_now(wire: bytes, hint: Step, current: CurrentNames) -> Step | None:
    """Return the step of a name, as things are now; None if it has to wait for changes that follow.

    What has gone since the batch was cut is such a name: what led to it then may still do so on the node.
    """
    if wire in current.missing:
        # What was made and removed since the node had anything of that name is no loss to anyone.
        return hint if hint in (Step.NEW, Step.REMOVED) else None
    if wire in current.links:
        return Step.SWITCHED
    if wire in current.removing:
        return Step.REMOVED
    return min(hint, Step.SWITCHED)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be sent of one tree."""

    hints: dict[bytes, Step]
    """The names, and the step of each as far as the events say."""
    removing: set[bytes]
    """Relists that only remove: what is there is among the names."""


def spread(hints: Mapping[bytes, Step], listing: Listing) -> Wanted:
    """List what is in relisted directories, so that each entry can go at its own time.

    A new directory stays one name unless there are links in it.
    """
    found, removing = dict(hints), set()
    for wire, hint in hints.items():
        if not wire.endswith(b"/"):
            continue
        try:
            entries = listing(wire)
        except OSError:  # it is gone, is no directory any more, or is too large: it is sent as it is
            continue
        if hint is Step.NEW and not any(is_link for _, is_link in entries):
            continue
        # Also for a new one: the node may have what another directory of that name has left.
        removing.add(wire)
        if wire != b"./":
            found.setdefault(wire[:-1], hint)
        for path, is_link in entries:
            found[path] = max(Step.SWITCHED if is_link else hint, found.get(path, Step.NEW))
    return Wanted(found, removing)


def in_steps(wanted: Wanted, current: CurrentNames) -> tuple[dict[Step, list[bytes]], list[bytes]]:
    """Return the current names by their steps, the steps in their order; and those that have to wait."""
    found: dict[Step, list[bytes]] = {}
    waiting = []
    for wire in current.send:
        # A directory that was to be relisted is a name when it is gone.
        hint = wanted.hints.get(wire, wanted.hints.get(wire + b"/", Step.CHANGED))
        step = step_now(wire, hint, current)
        if step is None:
            waiting.append(wire)
        else:
            found.setdefault(Step.REMOVED if wire in wanted.removing else step, []).append(wire)
    if list(found) == [Step.REMOVED] and current.removing:
        found = {Step.SWITCHED: found[Step.REMOVED]}  # nothing has to wait: a warm rsync can do it
    return {step: found[step] for step in sorted(found)}, waiting


def renames_by_step(
    renames: Iterable[Rename], steps: Mapping[Step, Sequence[bytes]]
) -> dict[Step, tuple[Rename, ...]]:
    """Return the renames that are followed before each step: that of their new names."""
    of = {name.rstrip(b"/"): step for step in sorted(steps, reverse=True) for name in steps[step]}
    found: dict[Step, tuple[Rename, ...]] = {}
    for rename in renames:
        step = of.get(rename.new, min(steps, default=Step.CHANGED))
        found[step] = (*found.get(step, ()), rename)
    return found


def depends(name: bytes, target: bytes | None, owed: Iterable[bytes]) -> bool:
    """Return whether a link, replacement or removal has to wait for names that have not arrived.

    It does for what is below the ``target`` of a link, and else for what is in the same directory.
    """
    path = name.rstrip(b"/")
    directory = path.rpartition(b"/")[0]
    for other in owed:
        lacking = other.rstrip(b"/")
        if target is not None:
            if lacking == target or lacking.startswith(target + b"/") or target.startswith(lacking + b"/"):
                return True
        elif lacking != path and lacking.rpartition(b"/")[0] == directory:
            return True
    return False


def tidying(names: Iterable[bytes]) -> list[bytes]:
    """Return the relists of the directories that these names are in.

    A transfer that was cut off may have left temporary files there (``.NAME.XXXXXX``).
    """
    return list(dict.fromkeys(relist_parent(name.rstrip(b"/")).wire for name in names if name != b"./"))


def inserted(parts: list[Part], part: Part) -> list[Part]:
    """Return the parts with one more, or one that is longer, behind all of its tree that go earlier."""
    for at, other in enumerate(parts):
        is_same = other.tree == part.tree and not (other.full or other.ignore_times)
        if is_same and other.step is part.step:
            names = tuple(dict.fromkeys(other.names + part.names))
            return [*parts[:at], replace(other, names=names), *parts[at + 1 :]]
    before = [at for at, other in enumerate(parts, 1) if other.tree == part.tree and other.step <= part.step]
    at = max(before, default=0)
    return [*parts[:at], part, *parts[at:]]


def only_removes(part: Part) -> bool:
    """Return whether a part is there for what is gone, and must not send what has come meanwhile."""
    return part.step is Step.REMOVED and any(name.endswith(b"/") for name in part.names)


def in_two(full: Part) -> list[Part]:
    """Return the two parts of a full mirror: what is to be added, then everything."""
    return [replace(full, step=Step.NEW), replace(full, step=Step.REMOVED)]
