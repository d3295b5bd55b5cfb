"""A look at one directory: it is watched first and listed afterwards.

So nothing that is made in it falls between the two; and what is recorded about it, once it is watched, is
its listing.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator
from itertools import chain, islice

from inosync.directories import Directory, Opener, Replaced, Root, locate
from inosync.messages import Change, Kind
from inosync.sink import Sink
from inosync.system.filesystem import counts_subdirectories
from inosync.system.inotify import Inotify, InotifyError
from inosync.system.standpoint import Standpoint
from inosync.watches import Watches, explained

log = logging.getLogger(__name__)

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.ENXIO)
_STEP = 256  # entries of one directory between two looks at the time


class Visitor:
    """Visits directories; what is to be visited next is queued with the root, what is to be let go is doomed.

    ``replaced`` is told of a root whose path leads elsewhere now.
    """

    def __init__(
        self,
        inotify: Inotify,
        events: int,
        watches: Watches,
        doomed: list[Directory],
        sink: Sink,
        replaced: Callable[[Root, str], None],
        clock: Callable[[], float],
    ) -> None:
        self._inotify, self._events, self._watches, self._doomed = inotify, events, watches, doomed
        self._sink, self._replaced, self._clock = sink, replaced, clock
        self.opener = Opener()
        self.until = 0.0
        """When the slice is over, by the clock."""
        self._standpoint = Standpoint()
        self._counting: dict[int, bool] = {}
        """By device, whether its file system counts subdirectories."""

    def rest(self) -> None:
        """Forget all that is known and held open for the time of one slice, in which no event is handled."""
        self.opener.close()
        self._standpoint.close()
        self._counting.clear()

    def visit(self, directory: Directory, known: bool = False) -> Iterator[None]:
        """Watch a directory, record its listing, and queue the directories in it. Yields now and then.

        With ``known`` only what the rules make of the directories in it is of interest: those that are
        watched already are queued to be looked at likewise (``Root.refilter``).
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
            self._not_watched(*place, directory, error)
            return
        try:
            if self._watch(directory, own, *place):
                if not known:
                    self._listed(*place)
                yield from self._look_into(directory, own, known)
        except OSError as error:
            self._not_watched(*place, directory, error)
        finally:
            os.close(own)

    def _listed(self, root: Root, path: bytes) -> None:
        if not root.quiet:
            self._sink.record(Change(root.tree, path, Kind.LIST), self._clock())

    # The directory itself ----------------------------------------------------------------------------

    def _watch(self, directory: Directory, fd: int, root: Root, path: bytes) -> bool:
        wd = self._inotify.add(fd, self._events | root.mask)
        known = self._watches.by_wd.get(wd)
        if known is not None and known is not directory:
            if self._is_at(known, fd):
                twice = OSError(errno.EDEADLK, "it is mounted in another place of the tree, too")
                self._not_watched(root, path, directory, twice)
                return False
            # It has moved here. Whatever is in the other place by now is another directory, or nothing.
            known.wd = -1
            queue(known)
        self._watches.hold(directory, wd)
        return True

    def _is_at(self, known: Directory, fd: int) -> bool:
        """Whether the place where ``known`` hangs leads to the directory that is open."""
        if locate(known) is None:
            return False
        try:
            return os.path.samestat(os.fstat(fd), os.fstat(self.opener.open(known)))
        except OSError:
            return False

    def _not_watched(self, root: Root, path: bytes, directory: Directory, error: OSError) -> None:
        if error.errno in _GONE and not isinstance(error, InotifyError):
            if directory is not root:  # its parent is watched, and tells what became of it
                directory.detach()
                self._doomed.append(directory)
            return
        why = explained(error)
        if directory not in self._watches.blind:
            log.warning("%s: %s cannot be watched: %s", root.path, os.fsdecode(path) or ".", why)
        self._watches.blind[directory] = why

    # The directories in it ---------------------------------------------------------------------------

    def _look_into(self, directory: Directory, fd: int, known: bool) -> Iterator[None]:
        with os.scandir(fd) as entries:
            for kids in chain(_known(directory), _found(directory, entries)):
                while kids := [kid for kid in kids if kid.parent is directory]:
                    place = locate(directory)
                    # Events were handled since the last step: it may be elsewhere by now, or out of the tree.
                    if place is None or place[0].identity is None:
                        return
                    kids = kids[self._look_at(kids, fd, *place, known) :]
                    yield
                yield  # there may be a million files in it, and nothing else

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
                    self._listed(root, prefix + kid.name)
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
