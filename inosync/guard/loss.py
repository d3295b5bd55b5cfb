"""When what is found at the root of a tree is the loss of all of it, which must not be mirrored.

It is judged by the entries of the root that are mirrored: what is excluded (``lost+found``, ``.snapshot``)
stays on the nodes anyway.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MANY = 2
"""So many entries, or more, do not vanish at once by intention. With one, nobody can tell."""


@dataclass(frozen=True, slots=True)
class RootLook:
    """What a root is at a moment."""

    entries: int
    """Those that are mirrored; not counted further than to ``MANY``."""
    mounted: bool = False
    """Whether something is mounted there."""
    expected: bool = False
    """Whether fstab says so."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What is known of a root. Times by the caller's clock, in seconds."""

    entries: int | None = None
    """As in ``RootLook``, when it was looked at last; None: not yet, or other entries are mirrored since."""
    fell_at: float = float("-inf")
    """When of ``MANY`` entries one was left."""
    mounted: bool = False
    """Whether something was mounted there."""
    replaced: bool = False
    """Whether it was lost since, so that another directory may be there."""
    accepted: bool = False
    """Whether the operator, or the one entry that went, has said that it is meant to be empty."""
    bare: bool = False
    """Whether the operator has said that nothing has to be mounted there."""


def judge(memory: Memory, look: RootLook, now: float, patience: float) -> str:
    """What has been lost, for the operator, following the path of the root; empty if nothing has.

    ``patience``: seconds within which what happens is one event (edelay).
    """
    if not look.mounted and (memory.mounted or look.expected) and not memory.bare:
        return "is not mounted"
    if look.entries == 0 and is_loss(memory, now, patience):
        return "is empty"
    return ""


def is_loss(memory: Memory, now: float, patience: float) -> bool:
    """Whether nothing at all in the root, if that is found now, is a loss."""
    if not memory.entries or memory.accepted:
        return False
    return memory.replaced or memory.entries >= MANY or now - memory.fell_at < patience


def is_doubtful(memory: Memory) -> bool:
    """Whether an empty root may be a loss that nobody has seen, such as a mount that failed at boot."""
    return not memory.entries and not memory.accepted


def seen(memory: Memory, look: RootLook, now: float) -> Memory:
    """What is known after a look that was judged to be no loss."""
    before = memory.entries or 0
    return Memory(
        entries=look.entries,
        fell_at=now if look.entries == 1 and before >= MANY else memory.fell_at,
        mounted=look.mounted,
        # An entry that went as the only one was seen to go.
        accepted=memory.accepted if look.entries == before == 0 else look.entries == 0 and before > 0,
        bare=memory.bare and not look.mounted,
    )


def lost(memory: Memory) -> Memory:
    """What is known after the root was lost: moved, removed, unmounted, replaced."""
    return replace(memory, replaced=True, accepted=False)


def refiltered(memory: Memory) -> Memory:
    """What is known when other entries are mirrored."""
    return replace(memory, entries=None)


ACCEPTED = Memory(entries=0, accepted=True, bare=True)
"""What is known after the operator has said that what is found is meant."""
