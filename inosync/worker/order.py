"""The order in which a batch arrives: new names, changed files, links and replacements, removals.

So nothing on the node leads to what is not there yet, and nothing goes that is still led to. The master says
what has happened to each name (``Step``); what is there when the batch begins decides. Of what is not known
to be new or to have replaced something, the node is asked what it lacks (UNKNOWN): that goes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from inosync.changes import OwedNames, Part, Rename, Step
from inosync.rsync.names import CurrentNames
from inosync.worker import lanes
from inosync.worker.lanes import directory_of, upwards

MAX_LISTED = 50_000
"""Entries of a directory that are listed one by one; a relist of a larger one stays one name."""

Listing = Callable[[bytes], list[tuple[bytes, bool]]]
"""``names.listing`` of a relisted directory. OSError if it cannot be listed."""


def step_now(wire: bytes, hint: Step, current: CurrentNames, is_ahead: bool = False) -> Step | None:
    """Return the step of a name, as things are now; None if it has to wait for changes that follow.

    What has gone since the batch was cut is such a name: what led to it then may still do so on the node.
    ``is_ahead``: whether the node may have more of the batch than was confirmed.
    """
    if wire in current.missing:
        # What was made and removed since the node had anything of that name is no loss to anyone.
        is_harmless = hint is Step.NEW and not is_ahead
        return hint if is_harmless or hint is Step.REMOVED else None
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
    again: frozenset[bytes] = frozenset()
    """Names that only the relists of a second look have found."""


def spread(
    hints: Mapping[bytes, Step],
    listing: Listing,
    renames: Iterable[Rename] = (),
    again: Set[bytes] = frozenset(),
    is_ahead: bool = False,
) -> Wanted:
    """List what is in relisted directories, so that each entry can go at its own time.

    A new directory stays one name unless there are links in it, or files that were renamed. ``again``: those
    of a second look; ``is_ahead``: as in ``step_now``, and something of a new directory may be gone.
    """
    found, removing = dict(hints), set[bytes]()
    once, twice = set(hints).difference(again), {wire for wire in again if not wire.endswith(b"/")}
    renamed = {rename.new for rename in renames if not rename.is_directory}
    entered = set(map(directory_of, renamed))
    for wire in renamed.intersection(hints):  # the node has it already, at the old name
        found[wire] = max(hints[wire], Step.SWITCHED)
    for wire, hint in hints.items():
        if not wire.endswith(b"/"):
            continue
        if hint is Step.REMOVED:  # it is there for what is gone; what is there is a change of its own
            removing.add(wire)
            continue
        try:
            entries = listing(wire)
        except OSError:  # it is gone, is no directory any more, or is too large: it is sent as it is
            continue
        is_plain = wire[:-1] not in entered and not any(is_link for _, is_link in entries)
        if hint is Step.NEW and is_plain and not is_ahead:
            continue
        # Also for a new one: the node may have what another directory of that name has left.
        removing.add(wire)
        if wire != b"./":
            found.setdefault(wire[:-1], Step.CHANGED if hint is Step.UNKNOWN else hint)
        (twice if wire in again else once).update(path for path, _ in entries)
        for path, is_link in entries:
            own = found.get(path, Step.NEW)
            if not is_link and wire in again and path in once:
                continue  # it is known better when that is due
            found[path] = max(Step.SWITCHED if is_link else hint, own)
    return Wanted(found, removing, frozenset(twice - once))


def in_steps(
    wanted: Wanted, current: CurrentNames, is_ahead: bool = False
) -> tuple[dict[Step, list[bytes]], list[bytes]]:
    """Return the current names by their steps, the steps in their order; and those that have to wait."""
    found: dict[Step, list[bytes]] = {}
    waiting, harmless = [], []
    for wire in current.send:
        # A directory that was to be relisted is a name when it is gone: what was gone before was in it.
        relist = min(wanted.hints.get(wire + b"/", Step.CHANGED), Step.SWITCHED)
        hint = wanted.hints.get(wire, relist)
        step = step_now(wire, hint, current, is_ahead)
        if step is None:
            waiting.append(wire)
            continue
        if step is Step.NEW and wire in current.missing:
            harmless.append(wire)
            continue
        if wire in wanted.removing:
            step = Step.REMOVED
        elif step is Step.UNKNOWN:
            found.setdefault(step, []).append(wire)  # a question
            step = Step.SWITCHED
        found.setdefault(step, []).append(wire)
    if len(found.get(Step.SWITCHED, ())) == 1:
        found.pop(Step.UNKNOWN, None)  # there is nothing else that could lead to it
    if list(found) == [Step.REMOVED] and current.removing:
        found = {Step.SWITCHED: found[Step.REMOVED]}  # nothing has to wait: a warm rsync can do it
    if harmless:
        found.setdefault(_place_of_harmless(found), []).extend(harmless)
    return {step: found[step] for step in sorted(found)}, waiting


@dataclass(frozen=True, slots=True)
class Looked:
    """What becomes of the names of a part whose turn has come."""

    send: list[bytes] = field(default_factory=list)
    later: dict[Step, list[bytes]] = field(default_factory=dict)
    """What belongs to a later step by now."""
    waiting: list[bytes] = field(default_factory=list)
    """What has gone: it waits for changes that follow."""
    come_back: list[bytes] = field(default_factory=list)
    """What was to be removed and is there again: it is newer, and a change of its own."""


def look_again(part: Part, current: CurrentNames, is_ahead: bool, entered: Set[bytes]) -> Looked:
    """Return what becomes of names that may be something else since the parts were put in order.

    ``entered``: directories that go with what is removed, for their times.
    """
    found, removes = Looked(), part.step is Step.REMOVED
    relists = frozenset(name for name in part.names if name.endswith(b"/"))
    for name in current.send:
        step = step_now(name, part.step, current, is_ahead)
        if step is None or (name in current.missing and name + b"/" in relists):
            found.waiting.append(name)
        elif step > part.step:
            found.later.setdefault(step, []).append(name)
        elif removes and step is not Step.REMOVED and not (name.endswith(b"/") or name in entered):
            found.come_back.append(name)
        else:
            found.send.append(name)
    return found


def _place_of_harmless(found: Mapping[Step, object]) -> Step:
    """Return the step for names that are gone and no loss: one with other names, so that no run is added."""
    if len(found) == 1 and Step.SWITCHED in found:  # such as a file and the temporary name that it had
        return Step.SWITCHED
    last = Step.REMOVED if found else Step.NEW
    return next((step for step in (Step.NEW, Step.CHANGED) if step in found), last)


def big_among(wanted: Wanted, big: Iterable[bytes]) -> list[bytes]:
    """Return the wanted ones of the big files that were found: relists that only remove find others."""
    return [name for name in big if name in wanted.hints or lanes.listing(name) not in wanted.removing]


def renames_by_step(
    renames: Iterable[Rename], steps: Mapping[Step, Sequence[bytes]]
) -> dict[Step, tuple[Rename, ...]]:
    """Return the renames that are followed before each step: that of their new names."""
    steps = {step: names for step, names in steps.items() if step is not Step.UNKNOWN}
    of = {name.rstrip(b"/"): step for step in sorted(steps, reverse=True) for name in steps[step]}
    found: dict[Step, tuple[Rename, ...]] = {}
    for rename in renames:
        step = of.get(rename.new, min(steps, default=Step.CHANGED))
        found[step] = (*found.get(step, ()), rename)
    return found


def lacking(owed: OwedNames, sent: Set[bytes], failed: Set[bytes], big: Set[bytes]) -> OwedNames:
    """Return what a node lacks of a tree while a batch is sent.

    ``owed``: what it lacked before the batch; ``sent``: the names of the batch; ``failed`` and ``big``: what
    of that has failed, or is put aside.
    """
    return OwedNames(
        failed=tuple((failed | (set(owed.failed) - sent)) - set(owed.hopeless)),
        big=tuple(big | (set(owed.big) - sent)),
        hopeless=tuple(name for name in owed.hopeless if name in failed or name not in sent),
    )


def behind(
    names: Iterable[bytes], led_to: Mapping[bytes, bytes | None], step: Step, lacking: OwedNames
) -> list[bytes]:
    """Return the links, replacements and removals that must not arrive before what the node lacks.

    - A link waits for what is at or below its target in ``led_to``.
    - A replacement waits for what has failed at or below its directory, and for no big file: whether a rename
      has replaced anything is not known.
    - A removal waits for all that has failed, because what waits for that may lead to what is removed; and
      for big files at or below its directory.
    - A relist waits for all that has failed, because it removes what is gone; and for no big file, because it
      may be there to tidy.
    """
    failed, big = _Lacking(lacking.failed), _Lacking(lacking.big)
    led = _Lacking((*lacking.failed, *lacking.big, *lacking.hopeless))

    def waits(name: bytes) -> bool:
        target, directory = led_to.get(name), directory_of(name)
        if name.endswith(b"/"):
            return failed.is_below(b"")
        if target is not None:
            return led.is_below(target) or failed.is_listed(target)
        if step is Step.REMOVED:
            return failed.is_below(b"", name) or big.is_below(directory, name)
        return failed.is_below(directory, name)

    return list(filter(waits, names))


class _Lacking:
    """Names that a node lacks."""

    def __init__(self, names: Iterable[bytes]) -> None:
        self._below: Counter[bytes] = Counter()  # how many of them are at or below a path
        self._listed: set[bytes] = set()  # directories of which anything may be lacking
        for name in names:
            path = b"" if name == b"./" else name.rstrip(b"/")
            if name.endswith(b"/"):
                self._listed.add(path)
            self._below.update(upwards(path))

    def is_below(self, path: bytes, but: bytes | None = None) -> bool:
        """Return whether any is at or below ``path``, and not at or below ``but``, which is below it."""
        return self._below[path] > (0 if but is None else self._below[but])

    def is_listed(self, path: bytes) -> bool:
        """Return whether a relist of a path, or of a directory above it, is among them."""
        return not self._listed.isdisjoint(upwards(path))


def tidying(names: Iterable[bytes]) -> list[bytes]:
    """Return the relists of the directories that these names are in.

    A transfer that was cut off may have left temporary files there (``.NAME.XXXXXX``).
    """
    return list(dict.fromkeys(lanes.listing(name) for name in names if name != b"./"))


def inserted(parts: list[Part], part: Part) -> list[Part]:
    """Return the parts with this one: joined to the part of its step, or behind those that go earlier."""
    for at, other in enumerate(parts):
        is_same = other.tree == part.tree and not (other.full or other.ignore_times)
        if is_same and other.step is part.step:
            names = tuple(dict.fromkeys(other.names + part.names))
            return [*parts[:at], replace(other, names=names), *parts[at + 1 :]]
    before = [at for at, other in enumerate(parts, 1) if other.tree == part.tree and other.step <= part.step]
    at = max(before, default=0)
    return [*parts[:at], part, *parts[at:]]


def without(parts: Iterable[Part], tree: int, step: Step, names: Iterable[bytes]) -> list[Part]:
    """Take names out of the parts of one step of a tree; return all parts."""
    left = frozenset(names)
    return [
        replace(part, names=tuple(name for name in part.names if name not in left))
        if part.tree == tree and part.step is step
        else part
        for part in parts
    ]


def only_removes(part: Part) -> bool:
    """Return whether a part is there for what is gone, and must not send what has come meanwhile."""
    return part.step is Step.REMOVED and any(name.endswith(b"/") for name in part.names)


def in_two(full: Part) -> list[Part]:
    """Return the two parts of a full mirror: the question what the node lacks, then everything."""
    return [replace(full, step=Step.UNKNOWN), replace(full, step=Step.REMOVED)]
