"""What an inotify event means: from its mask, and whether the name is excluded, to what is to be done."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cache

from inosync.watch import inotify

_ROOT_ENDS = inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF | inotify.IN_UNMOUNT | inotify.IN_IGNORED
_LEAVES = inotify.IN_DELETE | inotify.IN_MOVED_FROM
_MAKES = inotify.IN_CREATE | inotify.IN_MODIFY
CHANGES = inotify.IN_CLOSE_WRITE | inotify.IN_ATTRIB | inotify.IN_MODIFY
"""What is done to a file, whatever it is called."""


class Entry(enum.Enum):
    """What became of a name in the tree of directories."""

    REMOVED = enum.auto()
    MOVED_AWAY = enum.auto()
    ARRIVED = enum.auto()
    SEEN = enum.auto()
    """There is a directory of that name, perhaps a new one."""


class Report(enum.Enum):
    """What is reported about the path."""

    CHANGED = enum.auto()
    GONE = enum.auto()


class Close(enum.Enum):
    """What to do about the close that a file's writer is expected to make."""

    EXPECT = enum.auto()
    """Wait for it: sent while it is written, the file would be sent half, and what follows would wait."""
    STOP = enum.auto()
    """It was closed, or it will not be closed under this name: if it was waited for, it has changed."""
    INSPECT = enum.auto()
    """The file is new: ``decide_new_file`` says what to do."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What an event about a name asks for."""

    report: Report | None = None
    entry: Entry | None = None
    close: Close | None = None
    content: bool = False
    """Whether the file has changed, or was moved after it had: its other names have changed, too."""


NOTHING = Decision()


@dataclass(frozen=True, slots=True)
class SelfDecision:
    """What an event about a watched directory itself asks for."""

    watch_ended: bool = False
    """Whether the kernel has ended the watch."""
    lost: str = ""
    """What became of a root that is lost now."""
    report: bool = False
    """Whether the listing of a root is reported as changed."""
    walk: bool = False
    """Whether the directory is to be walked again."""


@cache
def decide(mask: int, wanted: int, is_excluded: bool, can_wait: bool = True) -> Decision:
    """Return what an event about a name in a watched directory asks for.

    ``wanted``: the events that are a change. ``can_wait``: whether there is room to wait for a close.
    """
    is_directory = bool(mask & inotify.IN_ISDIR)
    if is_excluded:
        return NOTHING if is_directory else _decide_excluded_file(mask, wanted, can_wait)
    is_wanted = bool(mask & wanted)
    if mask & _LEAVES:
        entry = Entry.MOVED_AWAY if mask & inotify.IN_MOVED_FROM else Entry.REMOVED
        return Decision(Report.GONE if is_wanted else None, entry, Close.STOP)
    if mask & inotify.IN_MOVED_TO:
        # What it replaced may have been recorded with things below it. A file that was changed under its
        # former name is not found there any more.
        report = Report.GONE if is_wanted else None
        return Decision(report, Entry.ARRIVED, content=not is_directory)
    if is_directory:
        is_wanted = bool(mask & _directory_events(wanted))
        return Decision(Report.CHANGED if is_wanted else None, Entry.SEEN)
    if mask & _MAKES and wanted & inotify.IN_CLOSE_WRITE:
        if mask & inotify.IN_CREATE:
            return Decision(close=Close.INSPECT)
        if not can_wait:
            return Decision(Report.CHANGED, content=True)
        report = Report.CHANGED if is_wanted else None
        return Decision(report, close=Close.EXPECT, content=is_wanted)
    if not is_wanted:
        return NOTHING
    close = None if mask & _MAKES else Close.STOP
    return Decision(Report.CHANGED, close=close, content=not mask & inotify.IN_CREATE)


def _decide_excluded_file(mask: int, wanted: int, can_wait: bool) -> Decision:
    """It is never reported, but it may have other names, that are not excluded."""
    if not mask & inotify.IN_MODIFY:
        content = bool(mask & (wanted & CHANGES | inotify.IN_MOVED_TO))
        return Decision(close=Close.STOP, content=content)
    is_change = bool(wanted & inotify.IN_MODIFY)
    if not wanted & inotify.IN_CLOSE_WRITE:
        return Decision(content=is_change)
    return Decision(close=Close.EXPECT, content=is_change) if can_wait else Decision(content=True)


@cache
def decide_new_file(links: int, is_written: bool, wanted: int, can_wait: bool = True) -> Decision:
    """Return what a new name of a file asks for; ``links``: how many it has, 0 if it is no regular file.

    A file with one link is reported when it is closed. Written under another name, it is closed under that.
    """
    if links == 1 or (links > 1 and is_written):
        is_reported = links > 1 or not can_wait
        close = Close.EXPECT if can_wait else None
        return Decision(Report.CHANGED if is_reported else None, close=close)
    return Decision(Report.CHANGED) if wanted & inotify.IN_CREATE else NOTHING


@cache
def decide_self(mask: int, wanted: int, is_root: bool) -> SelfDecision:
    """Return what an event about a watched directory itself asks for."""
    watch_ended = bool(mask & inotify.IN_IGNORED)
    if not is_root:
        # What was hidden below a mount has come to light.
        return SelfDecision(watch_ended, walk=bool(mask & inotify.IN_UNMOUNT))
    if mask & _ROOT_ENDS:
        return SelfDecision(
            watch_ended, lost="unmounted" if mask & inotify.IN_UNMOUNT else "moved or removed"
        )
    return SelfDecision(report=bool(mask & _directory_events(wanted)))


def _directory_events(wanted: int) -> int:
    """The events that change a directory: setting its mtime alone sends IN_MODIFY (utimensat(2))."""
    return wanted | (inotify.IN_MODIFY if wanted & inotify.IN_ATTRIB else 0)


def mask_of(names: frozenset[str]) -> int:
    mask = 0
    for name in names:
        mask |= inotify.EVENTS[name]
    return mask
