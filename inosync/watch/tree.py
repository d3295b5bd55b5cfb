"""The watched directories as a tree of small objects, and how to open one without being led astray.

Renaming a directory changes one object, whatever hangs below it; a path exists only while it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK


class Directory:
    """One directory: its watch (-1: none yet), its name, where it hangs, and what hangs in it.

    Kept small, since there may be a million: ``kids`` is None until there is one.
    """

    __slots__ = ("kids", "name", "parent", "wd")

    def __init__(self, name: bytes, parent: Directory | None) -> None:
        self.wd = -1
        self.name = name
        self.parent = parent
        self.kids: dict[bytes, Directory] | None = None

    def kid(self, name: bytes) -> Directory | None:
        """The subdirectory of that name, if it is known."""
        return self.kids.get(name) if self.kids else None

    def attach(self, kid: Directory, name: bytes) -> None:
        """Hang ``kid`` here, from wherever it hung before."""
        kid.detach()
        kid.name, kid.parent = name, self
        if self.kids is None:
            self.kids = {}
        self.kids[name] = kid

    def detach(self) -> None:
        """Take this out of the tree, with all that hangs in it."""
        above, self.parent = self.parent, None
        if above is not None and above.kid(self.name) is self:
            assert above.kids is not None
            del above.kids[self.name]
            if not above.kids:
                above.kids = None

    def release_kids(self) -> list[Directory]:
        """Detach all kids and return them."""
        kids = list(self.kids.values()) if self.kids else []
        self.kids = None
        for kid in kids:
            kid.parent = None
        return kids

    def ancestry(self) -> Iterator[Directory]:
        """This directory, its parent, and so on up to the root or to where it was cut off."""
        directory: Directory | None = self
        while directory is not None:
            yield directory
            directory = directory.parent


class Root(Directory):
    """A wpath. ``identity`` is the (device, inode) that is watched; None while it is lost."""

    __slots__ = ("excluded", "identity", "mask", "path", "quiet", "refilter", "stays", "tree", "walk")

    def __init__(self, tree: int, path: str, mask: int, excluded: Callable[[bytes, bool], bool]) -> None:
        super().__init__(b"", None)
        self.tree = tree
        self.path = path
        self.mask = mask
        """The events that are a change."""
        self.excluded = excluded
        """Whether a path, below directories that are not excluded, is: (path, is a directory) -> bool."""
        self.stays = False
        """Whether what other file systems have below its mount points does not belong to it."""
        self.identity: tuple[int, int] | None = None
        self.walk: list[Directory] = []
        """Directories that are to be watched and listed; the last one is next."""
        self.quiet = True
        """A walk of the whole tree: its end is told, instead of each directory."""
        self.refilter: list[Directory] | None = None
        """While other rules are applied: the directories in which that is still to be done."""


def join(above: bytes, name: bytes) -> bytes:
    """The path of an entry of a directory; that of a root is empty."""
    return above + b"/" + name if above else name


def locate(directory: Directory) -> tuple[Root, bytes] | None:
    """The root it hangs under and its path from there (``b""`` for the root); None if it was cut off."""
    names: list[bytes] = []
    for above in directory.ancestry():
        if isinstance(above, Root):
            return above, b"/".join(reversed(names))
        names.append(above.name)
    return None


class Replaced(OSError):
    """The root's path does not lead to the directory that is watched any more."""


class Opener:
    """Opens directories component by component, following no symlink, and remembers a few on the way.

    Neither PATH_MAX nor a symlink that is slipped in can matter. What it holds open is for one slice of a
    walk only: ``close`` it before events are handled, which may move directories.
    """

    def __init__(self, hold: int = 64) -> None:
        self._hold = hold
        self._held: dict[Directory, int] = {}

    def open(self, directory: Directory) -> int:
        """A descriptor, valid until the next call; OSError if it is not there, or no directory, any more."""
        missing: list[Directory] = []
        fd = -1
        for above in directory.ancestry():
            fd = self._held.get(above, -1)
            if fd >= 0:
                break
            missing.append(above)
        for below in reversed(missing):
            fd = self._open_root(below) if isinstance(below, Root) else self._open_kid(below, fd)
            self._held[below] = fd
            if len(self._held) > self._hold:
                os.close(self._held.pop(next(iter(self._held))))  # the oldest; never the one just opened
        return fd

    def _open_root(self, root: Root) -> int:
        try:
            fd = os.open(root.path, _OPEN)  # the wpath itself may be a symlink: the user wrote it
        except OSError as error:
            if root.identity is None:
                raise
            raise Replaced(f"{root.path}: {error.strerror}") from error
        if root.identity not in (None, identity(fd)):
            os.close(fd)
            raise Replaced(f"{root.path} is another directory now")
        return fd

    def _open_kid(self, kid: Directory, above: int) -> int:
        if above < 0:
            raise FileNotFoundError("cut off from its root")
        return open_kid(kid.name, above)

    def close(self) -> None:
        """Close everything that is held."""
        while self._held:
            os.close(self._held.popitem()[1])


def open_kid(name: bytes, above: int) -> int:
    """A descriptor of a directory in an open one, following no symlink; OSError if there is none."""
    return os.open(name, _OPEN | os.O_NOFOLLOW, dir_fd=above)


def identity(directory: int | str) -> tuple[int, int]:
    """Device and inode of an open directory, or of a path; OSError if it is not there."""
    status = os.stat(directory)
    return status.st_dev, status.st_ino
