"""What a batch switches to in one tree: links, and what takes the place of something else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

from inosync.changes import Part, Step
from inosync.rsync.argv import TransferSettings
from inosync.worker import frozen
from inosync.worker.frozen import Basis, Frozen

MAX_UNKNOWN = 100
"""The most files that are copied although they may lead to nothing: they may be new, or a second look."""


class Switch:
    """The copies of what a batch switches to in a tree, and what has to be on the node before."""

    def __init__(self) -> None:
        self._copies: Frozen | None = None
        self._basis: Basis | None = None  # what has to be there still when it is switched to
        self.removals: list[Part] | None = None
        """The list that removals wait in: on the node, links that wait may lead to it. None: removals go."""
        self.is_alone = False
        """Whether all that is sent of the tree is of one step."""
        self.unknown: frozenset[bytes] = frozenset()
        """Names that may be new to the node, and lead to nothing."""
        self.again: frozenset[bytes] = frozenset()
        """What only a second look has found."""

    def note_basis(self, source: str, links: Iterable[bytes], before: Sequence[bytes]) -> None:
        """Note where links lead to, and what is sent ``before`` them."""
        self._basis = frozen.basis(source, links, before)

    def copy(self, settings: TransferSettings, names: Sequence[bytes], place: str) -> None:
        """Copy what is switched to into a directory that does not exist yet, if copies are as good."""
        known, rest = list[bytes](), list[bytes]()
        for name in names:
            (rest if name in self.unknown or name in self.again else known).append(name)
        if names and frozen.can_freeze(settings.extra):
            with contextlib.suppress(OSError):  # no room: they are sent as they are
                self._copies = Frozen(settings.source, place, [*known, *rest[:MAX_UNKNOWN]])

    def has_its_basis(self, source: str) -> bool:
        """Return whether what was sent before it was there to the end; asked once."""
        basis, self._basis = self._basis, None
        return basis is None or frozen.holds(source, basis)

    def copied(self, part: Part) -> tuple[bytes, ...]:
        """Return the names of a part of which the copies are sent."""
        if self._copies is None or part.step is not Step.SWITCHED or part.ignore_times:
            return ()
        return tuple(filter(self._copies.names.__contains__, part.names))

    def source(self, part: Part) -> str:
        """Return the directory with the copies that are sent for a part; empty if it is the tree's own."""
        is_copied = part.names and self.copied(part) == part.names
        return self._copies.place if self._copies is not None and is_copied else ""

    def led_to(self, source: str, part: Part) -> dict[bytes, bytes | None]:
        """Return what each name of a part leads to: of what is copied, the copy is sent."""
        found = frozen.targets(source, part.names)
        if self._copies is not None:
            found |= frozen.targets(self._copies.place, self._copies.names.intersection(part.names))
        return found

    def end(self) -> None:
        """Remove the copies."""
        if self._copies is not None:
            self._copies.remove()
