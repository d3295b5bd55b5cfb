"""What becomes of the parts of a batch when some of their names are made on the node by renames. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from inosync.changes import Part, Rename, Step
from inosync.worker.lanes import directory_of, upwards


def directories_for(renames: Iterable[Rename]) -> tuple[bytes, ...]:
    """Return the directories that have to be there before renames are followed, and all above them.

    No symlink may stand for one of them.
    """
    found: dict[bytes, None] = {}
    for rename in renames:
        path = rename.new if rename.is_directory else directory_of(rename.new)
        found |= dict.fromkeys(reversed([above for above in upwards(path) if above]))
    return tuple(found)


def around(
    names: Iterable[bytes], renames: Sequence[Rename], directories: Collection[bytes]
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return the names that are sent before renames are followed, and those that are not.

    The others come about by them, or would change what the node has at the old names. ``directories``: what
    is a directory above the new names.
    """
    places = {path for rename in renames for path in (rename.old, rename.new)}
    above = {path for rename in renames for path in upwards(directory_of(rename.old))}
    before: list[bytes] = []
    others: list[bytes] = []
    for name in names:
        path = b"" if name == b"./" else name.rstrip(b"/")
        is_one = not places.isdisjoint(upwards(path))
        # A relist, or what is no directory any more, removes what is there on the node.
        is_above = path in above and (name.endswith(b"/") or path not in directories)
        (others if is_one or is_above else before).append(name)
    return tuple(before), tuple(others)


def in_two(
    part: Part, renames: tuple[Rename, ...], directories: tuple[bytes, ...], is_copied: bool
) -> tuple[Part, Part]:
    """Return what is sent of a part before renames are followed, with the directories, and what follows them.

    ``is_copied``: copies are sent for the part, which have no such directories.
    """
    before, others = ((), part.names) if is_copied else around(part.names, renames, directories)
    step = Step.CHANGED if is_copied else part.step
    first = replace(part, names=tuple(dict.fromkeys((*directories, *before))), renames=(), step=step)
    return first, replace(part, names=others, renames=renames)


def without(parts: Iterable[Part], tree: int, done: Mapping[bytes, bool]) -> tuple[list[Part], list[Part]]:
    """Return parts without what has come about in a tree by renames, and what that is.

    ``done``: the new names, and whether what is not here was deleted there. If it was not, removals are left.
    """
    kept, found = [], []
    for part in parts:
        if part.tree != tree or not is_usual(part):
            kept.append(part)
            continue
        gone = frozenset(name for name in part.names if _is_done(name, part.step, done))
        kept.append(replace(part, names=tuple(name for name in part.names if name not in gone)))
        found.append(replace(part, names=tuple(filter(gone.__contains__, part.names)), renames=()))
    return kept, found


def is_usual(part: Part) -> bool:
    """Return whether a part is of names that are sent if they differ."""
    return not (part.full or part.ignore_times)


def _is_done(name: bytes, step: Step, done: Mapping[bytes, bool]) -> bool:
    deleted = [done[path] for path in upwards(name.rstrip(b"/")) if path in done]
    removes = step is Step.REMOVED or name.endswith(b"/")
    return bool(deleted) and (any(deleted) or not removes)
