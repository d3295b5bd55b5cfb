"""Applies what events mean (``events``) to the tree of directories, and reports it."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable

from inosync.changes import WORTHWHILE_BYTES, Change, Kind, Rename, Step
from inosync.watch import inotify
from inosync.watch.events import CHANGES, Close, Decision, Entry, Report, decide, decide_new_file, decide_self
from inosync.watch.inotify import Event
from inosync.watch.listener import FileListener
from inosync.watch.open_files import OpenFiles, is_being_written
from inosync.watch.poller import Poller
from inosync.watch.scan import Scanner
from inosync.watch.tree import Directory, Name, Root, join, locate, status_at
from inosync.watch.walker import Walker
from inosync.watch.watches import Watches

MOVE_WAIT_SECONDS = 0.1
"""How long the second half of a move may lag behind the first. The kernel queues them together, but events of
other processors come between them, and a read may end there."""

# Members of an Enum are slow to look up, and this is done for every event.
_STOP, _INSPECT = Close.STOP, Close.INSPECT
_CHANGED, _GONE = Report.CHANGED, Report.GONE


class EventHandler:
    """``on_lost`` is called with a root that is lost, and why."""

    def __init__(
        self,
        watches: Watches,
        walker: Walker,
        scanner: Scanner,
        poller: Poller,
        listener: FileListener,
        on_lost: Callable[[Root, str], None],
    ) -> None:
        self._watches, self._walker, self._scanner, self._poller = watches, walker, scanner, poller
        self._listener, self._on_lost = listener, on_lost
        self._open_files = OpenFiles()
        self._moving: dict[int, tuple[Directory, float]] = {}
        """By cookie: directories that left their place, and until when they may turn up elsewhere."""
        self._modify_is_change = False
        """Whether IN_MODIFY is a change in any tree."""

    def set_modify_is_change(self, modify_is_change: bool) -> None:
        self._modify_is_change = modify_is_change

    @property
    def is_moving(self) -> bool:
        """Whether the second half of a move is waited for."""
        return bool(self._moving)

    def unclosed(self) -> frozenset[tuple[int, bytes]]:
        """Tree and path of each mirrored file whose close is waited for."""
        places = ((locate(directory), name) for directory, name in self._open_files)
        found = ((place[0], join(place[1], name)) for place, name in places if place is not None)
        return frozenset((root.tree, path) for root, path in found if not root.excluded(path, False))

    def deadline(self) -> float:
        moved = next(iter(self._moving.values()))[1] if self._moving else float("inf")
        return min(moved, self._open_files.deadline())

    def run_due(self, now: float) -> None:
        """End the watches of what has left the trees, and report files that will not be closed."""
        for cookie, (directory, until) in list(self._moving.items()):
            if until > now:
                break
            del self._moving[cookie]
            self._watches.end_later(directory)
        self.record_unclosed(now, now)

    def record_unclosed(self, waiting_until: float, now: float) -> None:
        """Report files that have waited for their close until then, unless they are still open."""
        for name, is_new in self._open_files.take_overdue(waiting_until):
            self._record_unless_open(name, is_new, now)

    def handle(self, event: Event, now: float) -> bool:
        """Do what an event asks for; False if it is about no watched directory."""
        wd, mask, cookie, entry = event
        directory = self._watches.by_wd.get(wd)
        if directory is None:
            return False
        if not entry:
            self._handle_self(directory, mask, now)
            return True
        name = directory, entry
        if mask == inotify.IN_MODIFY and name in self._open_files and not self._modify_is_change:
            return True  # the one event of which there may be a hundred thousand in a second
        place = locate(directory)
        if place is None:
            # It is on the move, or has left the tree. If it turns up, it is walked.
            if mask & CHANGES and not mask & inotify.IN_ISDIR:
                self._listener.file_changed(None, name, now)
            return True
        root, above = place
        path = join(above, entry)
        is_directory = bool(mask & inotify.IN_ISDIR)
        is_excluded = root.excluded(path, is_directory)
        decision = decide(mask, root.events, is_excluded)
        has_changed = decision.content
        step = self._step(name, mask)
        if decision.close is _STOP:
            has_changed |= self._open_files.stop_waiting(name)
        elif decision.close is _INSPECT:
            decision = self._inspect_new_file(root, path, name, now)
        elif decision.close is not None and not self._open_files.expect_close(name, now):
            decision = decide(mask, root.events, is_excluded, can_wait=False)
            has_changed = decision.content
        if decision.entry is not None and (is_directory or directory.kids):
            match decision.entry:
                case Entry.ARRIVED:
                    self._arrived(name, is_directory, cookie)
                case Entry.SEEN:
                    self._seen(name)
                case Entry.MOVED_AWAY:
                    self._left(name, is_directory, cookie, now)
                case Entry.REMOVED:
                    self._left(name, is_directory, 0, now)
        if decision.report is _CHANGED:
            self._listener.record(Change(root.tree, path, Kind.NAME, step=step), now)
        elif decision.report is _GONE:
            self._listener.gone(root.tree, path, now, step)
            if is_directory and mask & inotify.IN_MOVED_FROM:
                self._listener.directory_left(root.tree, path)
            if cookie:
                self._pair_rename(root, path, mask, cookie)
        if has_changed:
            self._listener.file_changed((root, path), name, now)
        return True

    def _step(self, name: Name, mask: int) -> Step:
        """When what has happened to a name is to be sent."""
        if mask & (inotify.IN_DELETE | inotify.IN_MOVED_FROM):
            return Step.REMOVED
        if mask & inotify.IN_MOVED_TO:
            # A directory replaces nothing but an empty one. Whether a file does, the kernel does not say.
            is_new = bool(mask & inotify.IN_ISDIR) and name[0].kid(name[1]) is None
            return Step.NEW if is_new else Step.SWITCHED
        return Step.NEW if mask & inotify.IN_CREATE or self._open_files.is_new(name) else Step.CHANGED

    def _handle_self(self, directory: Directory, mask: int, now: float) -> None:
        root = directory if isinstance(directory, Root) else None
        decision = decide_self(mask, root.events if root else 0, root is not None)
        if decision.watch_ended:
            self._watches.note_ended(directory)
        if root and decision.lost:
            self._on_lost(root, f"{root.path} was {decision.lost}")
        if root and decision.report:
            self._listener.record(Change(root.tree, b"", Kind.LIST), now)
        if decision.walk:
            self._walker.walk(directory)

    # The tree of directories -------------------------------------------------------------------------

    def _left(self, name: Name, is_directory: bool, cookie: int, now: float) -> None:
        """An entry was removed, or moved away (``cookie`` is not 0)."""
        kid = name[0].kid(name[1])
        if kid is None:
            return
        if not is_directory:
            # Where a file left, this directory has come. What was recorded of it is swallowed by the leaving.
            self._walker.walk(kid)
            return
        kid.detach()
        if cookie:
            self._moving[cookie] = kid, now + MOVE_WAIT_SECONDS
            # In an exchange (renameat2(2)) the other one has come before this one is said to leave.
            self._seen(name)
        else:
            self._watches.end_later(kid)

    def _arrived(self, name: Name, is_directory: bool, cookie: int) -> None:
        """An entry was moved here, from where the cookie tells if that is in one of the trees."""
        moved, _ = self._moving.pop(cookie, (None, 0.0))
        directory, entry = name
        replaced = directory.kid(entry)
        if replaced is not None and replaced is not moved:
            replaced.detach()
            self._watches.end_later(replaced)
        if is_directory:
            kid = moved or Directory(entry)
            directory.attach(kid, entry)
            self._walker.walk(kid)
            self._listener.directories_changed()
            if moved is not None:
                self._listener.directory_moved()

    def _seen(self, name: Name) -> None:
        """There is a directory of that name: a new one, or one whose attributes have changed."""
        directory, entry = name
        kid = directory.kid(entry)
        if kid is None:
            self._walker.walk(directory.new_kid(entry))
            self._listener.directories_changed()
        else:
            self._poller.poll_soon(kid)  # if it could not be read, perhaps it can be now

    def _pair_rename(self, root: Root, path: bytes, mask: int, cookie: int) -> None:
        """Report a rename once both of its events were seen, if it may be worth a run of rsync."""
        if mask & inotify.IN_MOVED_FROM:
            moving, _ = self._moving.get(cookie, (None, 0.0))
            self._watches.renames.left(cookie, root.tree, path, moving)
            return
        old, is_directory = self._watches.renames.arrived(cookie, root.tree), bool(mask & inotify.IN_ISDIR)
        if old is not None and (is_directory or _is_large_file(root, path)):
            self._listener.renamed(root.tree, Rename(old, path, is_directory))

    # Files -------------------------------------------------------------------------------------------

    def _inspect_new_file(self, root: Root, path: bytes, name: Name, now: float) -> Decision:
        status = status_at(root, path)
        links = status.st_nlink if status and stat.S_ISREG(status.st_mode) else 0
        if status and links > 1:
            self._listener.file_linked(status, name)
        is_written = links > 1 and self._is_being_written(name)
        decision = decide_new_file(links, is_written, root.events)
        if decision.close is Close.EXPECT and not self._open_files.expect_close(name, now, is_new=True):
            return decide_new_file(links, is_written, root.events, can_wait=False)
        return decision

    def _record_unless_open(self, name: Name, is_new: bool, now: float) -> None:
        """Report a file that was not closed for a while, unless a process has it open for writing."""
        place = locate(name[0])
        if place is None:
            self._listener.file_changed(None, name, now)
            return
        # It is asked again and again, because the close may be reported under a name that is not in the tree.
        if self._is_being_written(name) and self._open_files.expect_close(name, now, is_new):
            return
        root, above = place
        path = join(above, name[1])
        if not root.excluded(path, False):
            step = Step.NEW if is_new else Step.CHANGED
            self._listener.record(Change(root.tree, path, Kind.NAME, step=step), now)
        self._listener.file_changed((root, path), name, now)

    def _is_being_written(self, name: Name) -> bool:
        with contextlib.suppress(OSError), self._scanner.opened(name[0]) as fd:
            return is_being_written(fd, name[1])
        return False


def _is_large_file(root: Root, path: bytes) -> bool:
    status = status_at(root, path)
    return status is not None and stat.S_ISREG(status.st_mode) and status.st_size >= WORTHWHILE_BYTES
