"""Decides from rsync's complaints what stays due.

A run that ended in 23 or 24 has sent what it could. What it complained of is tried again, and only that, or
one name that cannot be sent would hold up a node for ever. Nothing may fall through: a complaint that cannot
be attributed with certainty keeps everything due that was sent (``whole``).
"""

from __future__ import annotations

import bisect
import os
import re
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass

from inosync.rsync.stderr import Complaint, Failure, Side, is_noise, parse, reason
from inosync.rsync.target import ROOT, on_node, on_source, tail_paths

_ROOT_WIRE = b"./"
_DELETIONS_SKIPPED = b"IO error encountered -- skipping file deletion"
_MAX_DUE_AFTER_FULL = 10_000
"""More names than this are no cheaper to try again than the full mirror."""
_TEMPORARY = re.compile(rb"\.(.+)\.[A-Za-z0-9]{6}", re.DOTALL)
_MAX_CERTAIN_BYTES = 230
"""rsync cuts temporary names to fit NAME_MAX (255): one that is longer may not hold the whole name."""
_MISSING = re.compile(
    rb'rsync: (?:\[\w+\] )?(?:change_dir#\d|mkdir) "[^"]*"(?: \(in [^"]*\))? failed: .* \(2\)'
)
_WRITE_FAILED = re.compile(rb"rsync: (?:\[\w+\] )?write failed on .*")
_INVALID_PATH = b"ABORTING due to invalid path from sender: "


@dataclass(frozen=True, slots=True)
class Complaints:
    """What a partial run left undone."""

    due: tuple[bytes, ...]
    """Names in the form of ``Change.wire``, sorted, ``clouded`` included."""
    whole: bool
    """Something could not be attributed: all that was sent stays due; after a full mirror, the tree."""
    reason: str
    """The last complaint, for the operator."""
    clouded: tuple[bytes, ...] = ()
    """Relists among ``due`` with no complaint of their own: rsync may have left out their deletions because
    of another name that the sender could not read. Sent again without that name they succeed."""
    unconvertible: tuple[bytes, ...] = ()
    """Names among ``due`` that the node cannot have, because its character set has no such name."""
    undeleted: tuple[bytes, ...] = ()
    """Names among ``due`` that the node could not remove; a relist of their parents may."""
    in_the_way: tuple[bytes, ...] = ()
    """Names among ``undeleted`` in whose place the node has a directory, and we have not."""


def after_batch(
    lines: Sequence[bytes],
    source: str,
    names: Iterable[bytes],
    target: str = "",
    stdout: Iterable[bytes] | None = None,
) -> Complaints:
    """Return what stays due of ``names`` (``Change.wire``) after a batch that ended in 23, 24 or 25.

    ``lines`` is standard error. With ``target`` paths on the node are located more exactly. ``stdout`` shows
    whether deletions were left out; None if rsync may have been told to be quiet.
    """
    sent = _Sent(names)
    blamed: set[bytes] = set()
    unconvertible: set[bytes] = set()
    undeleted: set[bytes] = set()
    blocked: set[bytes] = set()
    found = _complaints(lines)
    for complaint in found or ():
        blame = [sent.blame(path, complaint.failure) for path in _paths(complaint, source, target)]
        if not any(blame):
            found = None
            break
        (unconvertible if complaint.failure is Failure.UNCONVERTIBLE else blamed).update(*blame)
        if complaint.failure is Failure.UNDELETED:
            undeleted.update(*blame)
        elif complaint.failure is Failure.BLOCKED:
            blocked.add(complaint.path)
    if not found:
        return Complaints(sent.names, True, reason(lines))
    unconvertible -= blamed
    blamed |= unconvertible
    clouded = sent.relists() - blamed if _may_have_skipped(found, stdout) else set()
    undeleted = {name for name in undeleted & sent.all if not name.endswith(b"/")}
    blocked &= undeleted
    parts = (tuple(sorted(part)) for part in (blamed | clouded, clouded, unconvertible, undeleted, blocked))
    due, *others = parts
    return Complaints(due, False, reason(lines), *others)


def after_full(
    lines: Sequence[bytes], source: str, target: str, stdout: Iterable[bytes] | None = None
) -> Complaints:
    """Return what stays due after a full mirror that ended in 23, 24 or 25; see ``after_batch``.

    These are names if sending them repairs all that rsync complained of: attributes, files that vanished,
    what is in the place of a file and, if ``stdout`` shows that no deletions were left out, files that could
    not be read.
    """
    whole = Complaints((), True, reason(lines))
    found = _complaints(lines)
    if not found or _may_have_skipped(found, stdout):
        return whole
    blocked = {complaint.path for complaint in found if complaint.failure is Failure.BLOCKED}
    due: set[bytes] = set()
    for complaint in found:
        if complaint.failure is Failure.UNDELETED and _is_below(complaint.path, blocked):
            continue  # it is in the way of one that is due
        paths = list(_paths(complaint, source, target, certain=True))
        if complaint.failure in (Failure.OTHER, Failure.UNDELETED) or not paths:
            return whole
        due.update(_wire(path) for path in paths)
    return whole if len(due) > _MAX_DUE_AFTER_FULL else Complaints(tuple(sorted(due)), False, reason(lines))


def target_missing(lines: Iterable[bytes]) -> bool:
    """Whether a failed batch (exit 3 or 11) met a node without the target directory, as ``batch_argv`` wants.

    A full mirror creates the directory, though not its parents.
    """
    return any(_MISSING.fullmatch(line.strip()) for line in lines)


def unwritten(lines: Sequence[bytes], source: str, names: Iterable[bytes], target: str = "") -> set[bytes]:
    """Return the names for which a batch ended in exit 11: what they stand for does not fit on the node.

    That ends rsync, whatever else it had to send, so that a relist counts with what it found. Empty if it is
    not certain.
    """
    sent = set(names)
    found = after_batch([line for line in lines if _WRITE_FAILED.match(line)], source, sent, target)
    stand_for = {name if name in sent else relist_of_parent(name) for name in found.due}
    return set() if found.whole or not stand_for <= sent else stand_for


def relist_of_parent(name: bytes) -> bytes:
    """Return the relist of the directory that a name is in; of a relist, itself."""
    return name.rpartition(b"/")[0] + b"/" if b"/" in name else _ROOT_WIRE


def source_moved(lines: Iterable[bytes]) -> bool:
    """Whether a batch ended in exit 2 because a parent of a name changed while the list was made.

    The node's rsync (since 3.2.5) ends when a parent is not in the list. That is a race, not a misfit of
    versions as exit 2 is otherwise: the names are checked and tried again soon.
    """
    return any(line.startswith(_INVALID_PATH) for line in lines)


def _complaints(lines: Iterable[bytes]) -> list[Complaint] | None:
    """Return all complaints, or None if a line is neither one nor noise."""
    found = [parse(line) for line in lines if not is_noise(line)]
    known = [complaint for complaint in found if complaint]
    return known if len(known) == len(found) else None


def _may_have_skipped(found: Iterable[Complaint], stdout: Iterable[bytes] | None) -> bool:
    """Whether the node may not have been told to delete (``--ignore-errors`` in rsync(1)).

    rsync prints that once, on standard output, and whether it happens depends on a race of its processes.
    """
    if not any(complaint.io_error for complaint in found):
        return False
    return stdout is None or any(line.strip() == _DELETIONS_SKIPPED for line in stdout)


def _paths(complaint: Complaint, source: str, target: str, certain: bool = False) -> Iterator[bytes]:
    """Yield the paths, relative to the wpath, that a complaint may mean; ``certain``: no guessed places.

    A name on the node may be that of a temporary file: then every reading is yielded, of which one is right.
    """
    for path in _located(complaint, source, target, certain):
        if not complaint.temporary:
            yield path
        if complaint.side in (Side.NODE, Side.EITHER):
            yield from _files_of(path)


def _files_of(path: bytes) -> tuple[bytes, ...]:
    """Return the files whose temporary file this may be: both f and .f have .f.XXXXXX."""
    parent, slash, name = path.rpartition(b"/")
    found = _TEMPORARY.fullmatch(name)
    if not found or len(found[1]) >= _MAX_CERTAIN_BYTES:
        return ()
    return parent + slash + found[1], parent + slash + b"." + found[1]


def _located(complaint: Complaint, source: str, target: str, certain: bool) -> Iterable[bytes]:
    if complaint.side is Side.RELATIVE:
        return (ROOT if complaint.path == b"." else complaint.path,)
    ours = on_source(complaint.path, os.fsencode(source))
    if complaint.side is Side.SOURCE:
        return () if ours is None else (ours,)
    theirs = on_node(complaint.path, complaint.module, target)
    if complaint.side is Side.NODE and theirs is not None:
        return (theirs,)
    if certain:
        return (theirs,) if theirs is not None and ours in (None, theirs) else ()
    return {*tail_paths(complaint.path), *(path for path in (ours, theirs) if path is not None)}


def _is_below(path: bytes, directories: Set[bytes]) -> bool:
    return any(path.startswith(directory + b"/") for directory in directories) or path in directories


def _wire(path: bytes) -> bytes:
    return path or _ROOT_WIRE


class _Sent:
    """The names of a batch, and to which of them a path belongs."""

    def __init__(self, names: Iterable[bytes]) -> None:
        self.names = tuple(names)
        self.all = frozenset(self.names)
        self._sorted = sorted(self.all)

    def relists(self) -> set[bytes]:
        return {name for name in self.all if name.endswith(b"/")}

    def blame(self, path: bytes, failure: Failure) -> set[bytes]:
        """Return the names that stay due for a complaint about this path; none if no name explains it."""
        exact = {path, path + b"/"} & self.all if path else {_ROOT_WIRE} & self.all
        below = self._below(path)
        if failure is Failure.ATTRIBUTES and (exact or below):
            return {_wire(path)}
        if failure is Failure.VANISHED and below:
            below.add(_wire(path))  # a parent that is gone must go on the node, too, and may not be listed
        # rsync leaves out what is in a directory that failed, and does not name it.
        return exact | below | (set() if exact else self._above(path))

    def _below(self, path: bytes) -> set[bytes]:
        if not path:
            return set(self.all)
        first, after = (bisect.bisect_left(self._sorted, path + end) for end in (b"/\0", b"0"))
        return set(self._sorted[first:after])  # "0" is the byte after "/"

    def _above(self, path: bytes) -> set[bytes]:
        """Return the entry of a relisted directory that the path is in, or the name that it is below."""
        parts = path.split(b"/")
        for length in range(len(parts) - 1, -1, -1):
            parent = b"/".join(parts[:length])
            entry = b"/".join(parts[: length + 1])
            found = {parent} & self.all
            if (parent + b"/" if parent else _ROOT_WIRE) in self.all:
                found.add(entry)
            if found:
                return found
        return set()
