"""A look at one directory: it is watched first and listed afterwards.

So nothing that is made in it falls between the two; and what is recorded about it, once it is watched, is
its listing.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Generator, Iterator
from itertools import chain, islice

from inosync.messages import Change, Kind
from inosync.system import entries
from inosync.watch.fstype import counts_subdirectories
from inosync.watch.inotify import Inotify, InotifyError
from inosync.watch.listener import ChangeListener
from inosync.watch.tree import Directory, Opener, Replaced, Root, locate, open_kid
from inosync.watch.watches import Watches, explained
from inosync.watch.working_directory import WorkingDirectory

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.ENXIO)
_STEP = 256  # entries of one directory between two looks at the time
_YOUNG = 2_000_000_000
"""Nanoseconds in which a change may leave a file with the time of the change before: more than the ticks of
any clock that file systems have."""


class Scanner:
    """Visits directories; what is to be visited next is queued with the root, what is to be let go is doomed.

    ``replaced`` is told of a root whose path leads elsewhere now.
    """

    def __init__(
        self,
        inotify: Inotify,
        events: int,
        watches: Watches,
        doomed: list[Directory],
        sink: ChangeListener,
        replaced: Callable[[Root, str], None],
        clock: Callable[[], float],
    ) -> None:
        self._inotify, self._events, self._watches, self._doomed = inotify, events, watches, doomed
        self._sink, self._replaced, self._clock = sink, replaced, clock
        self.opener = Opener()
        self.until = 0.0
        """When the slice is over, by the clock."""
        self._standpoint = WorkingDirectory()
        self._counting: dict[int, bool] = {}
        """By device, whether its file system counts subdirectories."""

    def rest(self) -> None:
        """Forget all that is known and held open for the time of one slice, in which no event is handled."""
        self.opener.close()
        self._standpoint.close()
        self._counting.clear()

    def visit(self, directory: Directory, known: bool = False, alone: bool = False) -> Iterator[None]:
        """Watch a directory, record its listing, and queue the directories in it. Yields now and then.

        With ``known`` only what the rules make of the directories in it is of interest: those that are
        watched already are queued to be looked at likewise (``Root.refilter``). With ``alone`` it is one
        that was not watched: of the directories in it only new ones are queued, and if it is still not
        watched, its listing is recorded only if that may be another one than the last time.
        """
        place = locate(directory)
        if place is None:
            return
        try:
            # The opener's descriptor is good until its next call only.
            own = os.dup(self.opener.open(directory))
        except Replaced as error:
            self._replaced(place[0], str(error))
            return
        except OSError as error:
            self._not_opened(*place, directory, error)
            return
        try:
            if self._is_beyond(place[0], own):
                self._leave(directory)
                return
            why = self._watch(directory, own, place[0])
            changed = True
            if why:
                changed = yield from self._compare(directory, own, *place, why)
            if changed or not alone:
                self._listed(directory, known)
            if not alone:
                kids = _known(directory)
            else:
                kids = self._strayed(directory, own, place[0]) if changed else iter(())
            yield from self._look_into(directory, own, kids, known)
        except OSError as error:
            self._not_opened(*place, directory, error)
        finally:
            os.close(own)

    def _compare(
        self, directory: Directory, fd: int, root: Root, path: bytes, why: str
    ) -> Generator[None, None, bool]:
        """Look at a directory that cannot be watched; whether it may have changed since the last time."""
        unwatched = self._watches.unwatched
        unwatched.add(directory, root.tree, root.path, path, why)
        prefix = path + b"/" if path else b""
        digest = yield from entries.digest(
            fd, lambda name, is_directory: root.excluded(prefix + name, is_directory), time.time_ns() - _YOUNG
        )
        return unwatched.has_changed(directory, digest)

    def _listed(self, directory: Directory, known: bool = False) -> None:
        place = None if known else locate(directory)
        if place is not None:
            self._list(*place)

    def _list(self, root: Root, path: bytes) -> None:
        if not root.quiet:
            self._sink.record(Change(root.tree, path, Kind.LIST), self._clock())

    def is_in_place(self, root: Root, directory: Directory) -> bool:
        """Whether a directory is watched, and its path still leads to it."""
        try:
            fd = self.opener.open(directory)
            return directory.wd >= 0 and self._wd_of(fd, root) == directory.wd
        except OSError:
            return False

    # The directory itself ----------------------------------------------------------------------------

    def _watch(self, directory: Directory, fd: int, root: Root) -> str:
        """Watch an open directory; why not, if that is impossible."""
        try:
            wd = self._inotify.add(fd, self._events | root.mask)
        except InotifyError as error:
            return explained(error)
        known = self._watches.by_wd.get(wd)
        if known is not None and known is not directory:
            if self._is_at(known, fd):
                return "mounted in another place of the tree, too"
            # It has moved here. Whatever is in the other place by now is another directory, or nothing.
            known.wd = -1
            queue(known)
        self._watches.hold(directory, wd)
        return ""

    def _is_at(self, known: Directory, fd: int) -> bool:
        """Whether the place where ``known`` hangs leads to the directory that is open."""
        if locate(known) is None:
            return False
        try:
            return os.path.samestat(os.fstat(fd), os.fstat(self.opener.open(known)))
        except OSError:
            return False

    def _not_opened(self, root: Root, path: bytes, directory: Directory, error: OSError) -> None:
        if error.errno not in _GONE:
            why = explained(error)
            self._watches.unwatched.add(directory, root.tree, root.path, path, why, compared=False)
        elif directory is not root:  # its parent is watched, and tells what became of it
            self._leave(directory)

    def _is_beyond(self, root: Root, fd: int) -> bool:
        """Whether an open directory is on another file system than its tree, which ends there."""
        return root.stays and root.identity is not None and os.fstat(fd).st_dev != root.identity[0]

    def _leave(self, directory: Directory) -> None:
        directory.detach()
        self._doomed.append(directory)

    # The directories in it ---------------------------------------------------------------------------

    def _look_into(
        self, directory: Directory, fd: int, some: Iterator[list[Directory]], known: bool
    ) -> Iterator[None]:
        """Look at some of the known kids, and at all that were not."""
        with os.scandir(fd) as found:
            for kids in chain(some, _found(directory, found)):
                while kids := [kid for kid in kids if kid.parent is directory]:
                    place = locate(directory)
                    # Events were handled since the last step: it may be elsewhere by now, or out of the tree.
                    if place is None or place[0].identity is None:
                        return
                    kids = kids[self._look_at(kids, fd, *place, known) :]
                    yield
                yield  # there may be a million files in it, and nothing else

    def _strayed(self, directory: Directory, fd: int, root: Root) -> Iterator[list[Directory]]:
        """The kids that are watched, but not in this place any more: it is another one that is there.

        Where nobody watches, directories change places unseen, and those among them that are watched with
        all that is below them would be taken for others for ever.
        """
        for kids in _known(directory):
            yield [kid for kid in kids if kid.wd >= 0 and self._wd_at(kid.name, fd, root) != kid.wd]

    def _wd_at(self, name: bytes, above: int, root: Root) -> int:
        """The watch descriptor of the directory of that name in an open one; -1 if it has none."""
        try:
            fd = open_kid(name, above)
        except OSError:
            return -1
        try:
            return self._wd_of(fd, root)
        finally:
            os.close(fd)

    def _wd_of(self, fd: int, root: Root) -> int:
        """The watch descriptor of an open directory; -1 if it has none."""
        try:
            wd = self._inotify.add(fd, self._events | root.mask)
        except InotifyError:
            return -1
        if wd in self._watches.by_wd:
            return wd
        self._inotify.remove(wd)  # it has one now, but perhaps it is not to be watched
        return -1

    def _look_at(self, kids: list[Directory], fd: int, root: Root, path: bytes, known: bool) -> int:
        """Queue kids of an open directory, less what is excluded and what can be done at once.

        How many it was until the slice was over, one at least.
        """
        prefix = path + b"/" if path else b""
        device = os.fstat(fd).st_dev
        near = self._counts(device, fd) and self._standpoint.go(fd)
        try:
            for done, kid in enumerate(kids, 1):
                if root.excluded(prefix + kid.name, True):
                    kid.detach()  # it is new, or its new path, or a new rule, has made a rule match it
                    self._doomed.append(kid)
                elif known and kid.wd >= 0 and root.refilter is not None:
                    root.refilter.append(kid)
                elif near and self._watch_leaf(kid, self._events | root.mask, device):
                    self._list(root, prefix + kid.name)
                else:
                    root.walk.append(kid)
                if self._clock() >= self.until:
                    return done
            return len(kids)
        finally:
            if near:
                self._standpoint.back()

    def _counts(self, device: int, fd: int) -> bool:
        known = self._counting.get(device)
        if known is None:
            known = self._counting[device] = counts_subdirectories(fd)
        return known

    def _watch_leaf(self, kid: Directory, mask: int, device: int) -> bool:
        """Watch a directory in the current one by its name. Whether that is all: there is none in it.

        This is most of a large tree, and takes a third of the time of a visit. Name and count may be of
        two directories if one is put in the place of the other just now, but this, and whatever is made
        in them once the count has been taken, is among the events that are still to be read.
        """
        wd = self._inotify.add_near(kid.name, mask)
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
        return is_leaf and not kid.kids


def queue(directory: Directory) -> None:
    """Have a directory visited, and what is below it, unless it was cut off from its root."""
    place = locate(directory)
    if place is not None:
        place[0].walk.append(directory)


def _known(directory: Directory) -> Iterator[list[Directory]]:
    """The known kids, listed or not: what is gone is found out by opening."""
    kids = iter(list(directory.kids.values()) if directory.kids else ())
    while step := list(islice(kids, _STEP)):
        yield step


def _found(directory: Directory, entries: Iterator[os.DirEntry[str]]) -> Iterator[list[Directory]]:
    """The kids that were not known, as new ones that hang in it already."""
    while step := list(islice(entries, _STEP)):
        kids = []
        for entry in step:
            if entry.is_dir(follow_symlinks=False):
                name = os.fsencode(entry.name)
                if directory.kid(name) is None:
                    kid = Directory(name, None)
                    directory.attach(kid, name)
                    kids.append(kid)
        yield kids
