"""Whether what is found at the root of a tree is the loss of all of it, which must not be mirrored.

It is judged by the entries of the root that are mirrored: what is excluded (``lost+found``, ``.snapshot``)
stays on the nodes anyway.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MANY = 2
"""This many entries, or more, do not vanish at once on purpose. A single one may."""


@dataclass(frozen=True, slots=True)
class RootLook:
    """What is found at a root."""

    entries: int
    """How many of its entries are mirrored, counted up to ``MANY``."""
    mounted: bool = False
    """Whether something is mounted there."""
    expected: bool = False
    """Whether fstab says that something is to be mounted there."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What is known of a root. Times by the caller's clock, in seconds."""

    entries: int | None = None
    """``RootLook.entries`` of the last look; None if there was none since other entries are mirrored."""
    fell_at: float = float("-inf")
    """When ``MANY`` entries became one."""
    mounted: bool = False
    """Whether something was mounted there."""
    replaced: bool = False
    """Whether the root was lost since, so that another directory may be there."""
    accepted: bool = False
    """Whether it may be empty: the operator has said so, or its only entry was seen to go."""
    bare: bool = False
    """Whether the operator has said that nothing has to be mounted there."""
    excess: str = ""
    """Why the tree is halted although its root is there: too much was removed. Empty if it is not."""


def judge(memory: Memory, look: RootLook, now: float, patience: float) -> str:
    """Return what has been lost, in words that follow the path of the root; empty if nothing has.

    ``patience``: seconds within which what happens is one event (edelay).
    """
    if not look.mounted and (memory.mounted or look.expected) and not memory.bare:
        return "is not mounted"
    if look.entries == 0 and is_loss(memory, now, patience):
        return "is empty"
    return ""


def is_loss(memory: Memory, now: float, patience: float) -> bool:
    """Whether an empty root, if it is found now, is a loss."""
    if not memory.entries or memory.accepted:
        return False
    return memory.replaced or memory.entries >= MANY or now - memory.fell_at < patience


def is_doubtful(memory: Memory) -> bool:
    """Whether an empty root may be a loss that was not seen, such as a mount that failed at boot."""
    return not memory.entries and not memory.accepted


def seen(memory: Memory, look: RootLook, now: float) -> Memory:
    """Return what is known after a look that was judged to be no loss."""
    before = memory.entries or 0
    return Memory(
        entries=look.entries,
        fell_at=now if look.entries == 1 and before >= MANY else memory.fell_at,
        mounted=look.mounted,
        accepted=memory.accepted if look.entries == before == 0 else look.entries == 0 and before > 0,
        bare=memory.bare and not look.mounted,
    )


def lost(memory: Memory) -> Memory:
    """Return what is known after the root was lost: moved, removed, unmounted, or replaced."""
    return replace(memory, replaced=True, accepted=False)


def refiltered(memory: Memory) -> Memory:
    """Return what is known when other entries are mirrored."""
    return replace(memory, entries=None)


ACCEPTED = Memory(entries=0, accepted=True, bare=True)
"""What is known after the operator has accepted a loss."""
