"""The scan of one directory: it is watched first and listed afterwards.

So nothing that is made in it falls between the two.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Generator, Iterator
from itertools import chain, islice

from inosync.changes import Rename
from inosync.system import entries, mounts
from inosync.watch.ctimes import changed_files
from inosync.watch.fstype import counts_subdirectories
from inosync.watch.inotify import InotifyError
from inosync.watch.listener import ChangeListener
from inosync.watch.recorder import EntryLook, Recorder
from inosync.watch.tree import Directory, Opener, Replaced, Root, Since, join, locate, open_kid
from inosync.watch.watches import Watches, reason
from inosync.watch.working_directory import WorkingDirectory

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.ENXIO)
_STEP_ENTRIES = 256
"""Entries of a directory that are read between two looks at the time."""
_CLOCK_TICK_NS = 2_000_000_000
"""Longer than the tick of any file system's clock: two changes within it may give a file the same time."""


class Scanner:
    """Scans directories and queues those in it, with their root, to be scanned next.

    ``on_replaced`` is called with a root whose path leads elsewhere now, and why.
    """

    def __init__(
        self,
        watches: Watches,
        listener: ChangeListener,
        on_replaced: Callable[[Root, str], None],
        clock: Callable[[], float],
    ) -> None:
        self._watches, self._listener = watches, listener
        self._on_replaced, self._clock = on_replaced, clock
        self.recorder = Recorder(listener, clock)
        self._opener = Opener()
        self._working_directory = WorkingDirectory()
        self._counting: dict[int, bool] = {}
        """By device, whether its file system counts subdirectories."""
        self._until = 0.0
        """When the slice of time is over."""

    def begin_slice(self, until: float) -> None:
        """Scan until then, without an event being handled between the steps."""
        self._until = until

    def end_slice(self) -> None:
        """Forget what was known and held open for the slice, because events are handled now."""
        self._opener.close()
        self._working_directory.close()
        self._counting.clear()

    def scan(self, directory: Directory, refilter: bool = False, poll: bool = False) -> Iterator[None]:
        """Watch a directory, record its listing, and queue the directories in it. Yields now and then.

        ``refilter``: only the rules have changed. Nothing is recorded, and directories that are watched
        already are queued in ``Root.refilter``. ``poll``: the directory was not watched. If it still cannot
        be, its listing is recorded only if it has changed; of the directories in it only new ones are queued.
        """
        place = locate(directory)
        if place is None:
            return
        root, path = place
        is_new = directory.wd < 0 and not poll
        before = self._watches.unwatched.compared_at(directory)
        try:
            # The opener's descriptor is good until its next call only.
            own = os.dup(self._opener.open(directory))
        except Replaced as error:
            self._on_replaced(root, str(error))
            return
        except OSError as error:
            self._note_unreadable(root, path, directory, error)
            return
        try:
            if root.one_file_system and root.identity and os.fstat(own).st_dev != root.identity[0]:
                self._leave(directory)
                return
            has_changed = True
            if why := self._watch(directory, own, root):
                has_changed = yield from self._compare(directory, own, root, path, why)
            # Events were handled since the last step: it may be elsewhere by now.
            look: EntryLook | None = None
            if not refilter and (has_changed or not poll) and (place := locate(directory)):
                look = self.recorder.record_directory(*place, directory, os.fstat(own), is_new)
            kids = _known_kids(directory)
            if poll:
                kids = self._strayed_kids(directory, own, root, before) if has_changed else iter(())
            yield from self._queue_kids(directory, own, kids, refilter, look)
        except OSError as error:
            self._note_unreadable(root, path, directory, error)
        finally:
            os.close(own)

    def look(self, since: Since, directory: Directory) -> Iterator[None]:
        """Record the files that have changed in a watched directory that has not. Yields now and then."""
        place = locate(directory)
        if place is None or place[0].since is not since:
            return
        try:
            own = os.dup(self._opener.open(directory))
        except Replaced as error:
            self._on_replaced(place[0], str(error))
            return
        except OSError as error:
            if error.errno not in _GONE:  # or else events say what became of it
                self._note_unreadable(*place, directory, error)
            return
        try:
            for names in changed_files(own, since.after):
                self.recorder.record_files(since, directory, names)
                yield
        except OSError as error:
            self._note_unreadable(*place, directory, error)
        finally:
            os.close(own)

    @contextlib.contextmanager
    def opened(self, directory: Directory) -> Iterator[int]:
        """Open a directory for a moment; OSError if that is impossible."""
        try:
            yield self._opener.open(directory)
        finally:
            self.end_slice()

    def is_in_place(self, root: Root, directory: Directory) -> bool:
        """Whether a directory is watched, and its path still leads to it."""
        with contextlib.suppress(OSError), self.opened(directory) as fd:
            return directory.wd >= 0 and self._watches.wd_of(fd, root) == directory.wd
        return False

    # The directory itself ----------------------------------------------------------------------------

    def _watch(self, directory: Directory, fd: int, root: Root) -> str:
        """Watch an open directory; return why that is impossible, empty if it is not."""
        try:
            wd = self._watches.add(fd, root)
        except InotifyError as error:
            return reason(error)
        known = self._watches.by_wd.get(wd)
        if known is not None and known is not directory:
            if self._is_mounted_at(known, fd):
                return "mounted in another place of the tree, too"
            # It has moved here. Whatever is in the other place by now is another directory, or nothing.
            known.wd = -1
            if place := locate(known):
                place[0].walk.append(known)
                if place[0].since is not None:
                    place[0].since.moved |= {known, directory}
            self._report_rename(known, directory)
        self._watches.hold(directory, wd)
        return ""

    def _report_rename(self, known: Directory, directory: Directory) -> None:
        """Report that a directory was found at another path than the one that it has left."""
        if place := locate(directory):
            root, path = place
            old = self._watches.renames.found(known, root.tree)
            if old is not None:
                self._listener.renamed(root.tree, Rename(old, path, is_directory=True))

    def _is_mounted_at(self, known: Directory, fd: int) -> bool:
        """Whether the path of ``known`` leads to the directory that is open, through another mount.

        Through the same mount it cannot: then it was renamed between two looks.
        """
        try:
            if locate(known) is None:
                return False
            self._opener.close()  # what it holds open may have been renamed since
            other = self._opener.open(known)
            if entries.identity(fd) != entries.identity(other):
                return False
            mount = mounts.mount_id(fd)
            return mount < 0 or mount != mounts.mount_id(other)
        except OSError:
            return False

    def _compare(
        self, directory: Directory, fd: int, root: Root, path: bytes, why: str
    ) -> Generator[None, None, bool]:
        """Read a directory that cannot be watched; whether it may have changed since the last time."""
        unwatched = self._watches.unwatched
        unwatched.add(directory, root.tree, root.path, path, why, self._clock())
        at = time.time_ns() - _CLOCK_TICK_NS
        digest = yield from entries.digest(
            fd, lambda name, is_directory: root.excluded(join(path, name), is_directory), at
        )
        return unwatched.has_changed(directory, digest, at)

    def _note_unreadable(self, root: Root, path: bytes, directory: Directory, error: OSError) -> None:
        if error.errno not in _GONE:
            why = reason(error)
            unwatched = self._watches.unwatched
            unwatched.add(directory, root.tree, root.path, path, why, self._clock(), is_polled=False)
        elif directory is not root:  # its parent is watched, and an event says what became of it
            self._leave(directory)

    def _leave(self, directory: Directory) -> None:
        directory.detach()
        self._watches.end_later(directory)

    # The directories in it ---------------------------------------------------------------------------

    def _queue_kids(
        self,
        directory: Directory,
        fd: int,
        some: Iterator[list[Directory]],
        refilter: bool,
        look: EntryLook | None,
    ) -> Iterator[None]:
        """Queue some of the known kids, and all that were not known. ``look`` is called with all entries."""
        with os.scandir(fd) as found:
            for kids in chain(some, _new_kids(directory, found, look)):
                while kids := [kid for kid in kids if kid.parent is directory]:
                    place = locate(directory)
                    # Events were handled since the last step: it may be elsewhere by now, or out of the tree.
                    if place is None or place[0].identity is None:
                        return
                    kids = kids[self._queue_some(kids, fd, *place, refilter) :]
                    yield
                yield  # there may be a million files in it, and nothing else

    def _strayed_kids(
        self, directory: Directory, fd: int, root: Root, since: int
    ) -> Iterator[list[Directory]]:
        """The kids that are watched, but were in another place since a time, or are there now.

        Where nothing is watched, directories change places unseen. Those among them that are watched, with
        all that is below them, would be taken for one another for ever. And what was sent of one while it was
        away has removed it from the nodes.
        """
        for kids in _known_kids(directory):
            yield [kid for kid in kids if kid.wd >= 0 and not self._has_stayed(kid, fd, root, since)]

    def _has_stayed(self, kid: Directory, above: int, root: Root, since: int) -> bool:
        """Whether a watched kid of an open directory is in its place, and was since then."""
        try:
            fd = open_kid(kid.name, above)
        except OSError:
            return False
        try:
            # A rename gives it a new ctime. So does a new entry in it, and then it is walked in vain.
            return os.fstat(fd).st_ctime_ns < since and self._watches.wd_of(fd, root) == kid.wd
        finally:
            os.close(fd)

    def _queue_some(self, kids: list[Directory], fd: int, root: Root, path: bytes, refilter: bool) -> int:
        """Queue kids of an open directory, less what is excluded and what can be done at once.

        Return how many it was until the slice was over, one at least.
        """
        prefix = path + b"/" if path else b""
        device = os.fstat(fd).st_dev
        is_near = self._counts_subdirectories(device, fd) and self._working_directory.enter(fd)
        try:
            for done, kid in enumerate(kids, 1):
                is_new = kid.wd < 0
                if root.excluded(prefix + kid.name, True):
                    self._leave(kid)  # it is new, or its new path, or a new rule, has made a rule match it
                elif refilter and kid.wd >= 0 and root.refilter is not None:
                    root.refilter.append(kid)
                elif not is_near or not self._scan_leaf(kid, root, prefix + kid.name, device, is_new):
                    root.walk.append(kid)
                if self._clock() >= self._until:
                    return done
            return len(kids)
        finally:
            if is_near:
                self._working_directory.leave()

    def _counts_subdirectories(self, device: int, fd: int) -> bool:
        known = self._counting.get(device)
        if known is None:
            known = self._counting[device] = counts_subdirectories(fd)
        return known

    def _scan_leaf(self, kid: Directory, root: Root, path: bytes, device: int, is_new: bool) -> bool:
        """Watch a directory in the current one by its name. Whether that is all: there is none in it.

        Most directories of a large tree are such, and this takes a third of the time of a scan. Name and
        link count may be of two directories if one replaces the other just now, but that, and whatever is
        made in them once the count has been taken, is among the events that are still to be read.
        """
        wd = self._watches.add_near(kid.name, root)
        known = self._watches.by_wd.get(wd)
        if wd < 0 or (known is not None and known is not kid):
            return False
        if known is None:
            self._watches.hold(kid, wd)
        try:
            status = os.lstat(kid.name)
        except OSError:
            return False
        is_leaf = stat.S_ISDIR(status.st_mode) and status.st_nlink == 2 and status.st_dev == device
        if not is_leaf or kid.kids:
            return False
        self.recorder.record_leaf(root, path, kid, status, is_new)
        return True


def _known_kids(directory: Directory) -> Iterator[list[Directory]]:
    """The known kids, whether they are still there or not: opening them will tell."""
    kids = iter(list(directory.kids.values()) if directory.kids else ())
    while step := list(islice(kids, _STEP_ENTRIES)):
        yield step


def _new_kids(
    directory: Directory, found: Iterator[os.DirEntry[str]], look: EntryLook | None
) -> Iterator[list[Directory]]:
    """The directories among the entries that were not known, now added to it."""
    while step := list(islice(found, _STEP_ENTRIES)):
        names = [os.fsencode(entry.name) for entry in step if entry.is_dir(follow_symlinks=False)]
        kids = [directory.new_kid(name) for name in names if directory.kid(name) is None]
        if look is not None:
            look(step)
        yield kids
