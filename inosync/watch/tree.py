"""The watched directories as a tree of small objects, and how to open one safely.

Renaming a directory changes one object, whatever is below it. A path is computed when it is needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from inosync.system import entries

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK
_MAX_HELD = 64


class Directory:
    """A directory: its watch (-1: none), its name, its parent, and the known directories in it.

    It is small because there may be a million: ``kids`` is None until there is one.
    """

    __slots__ = ("kids", "name", "parent", "wd")

    def __init__(self, name: bytes) -> None:
        self.wd = -1
        self.name = name
        self.parent: Directory | None = None
        self.kids: dict[bytes, Directory] | None = None

    def kid(self, name: bytes) -> Directory | None:
        return self.kids.get(name) if self.kids else None

    def new_kid(self, name: bytes) -> Directory:
        """Add a subdirectory that was not known."""
        kid = Directory(name)
        self.attach(kid, name)
        return kid

    def attach(self, kid: Directory, name: bytes) -> None:
        """Move ``kid`` here, from wherever it was."""
        kid.detach()
        kid.name, kid.parent = name, self
        if self.kids is None:
            self.kids = {}
        self.kids[name] = kid

    def detach(self) -> None:
        """Take this directory out of the tree, with all that is below it."""
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
        """This directory, its parent, and so on up to the root, or to where it was detached."""
        directory: Directory | None = self
        while directory is not None:
            yield directory
            directory = directory.parent


class Since:
    """A time since which a walk records what has changed in a tree, by ctime; in ns since the epoch."""

    __slots__ = ("after", "devices", "moved", "root", "unchanged")

    def __init__(self, after: int, root: tuple[int, int], devices: frozenset[int]) -> None:
        self.after = after
        """What has this time, or a later one, has changed."""
        self.root = root
        """Device and inode that the root has to have."""
        self.devices = devices
        """The devices of file systems whose times can be relied on."""
        self.moved: set[Directory] = set()
        """Directories that may have been renamed to where they are: all that is in them has changed."""
        self.unchanged: list[Directory] = []
        """Watched directories that have not changed: the files in them are still to be looked at."""


Name = tuple[Directory, bytes]
"""The name of a file in a directory. It stays right when the directory is renamed."""


class Root(Directory):
    """A wpath. ``events`` is the mask of the events that are a change.

    ``excluded``: (path, is a directory) -> bool, for paths below directories that are not excluded.
    ``one_file_system``: the tree ends where another file system is mounted.
    """

    __slots__ = (
        "events",
        "excluded",
        "full_walk",
        "identity",
        "one_file_system",
        "path",
        "refilter",
        "since",
        "tree",
        "walk",
    )

    def __init__(
        self,
        tree: int,
        path: str,
        events: int,
        excluded: Callable[[bytes, bool], bool],
        one_file_system: bool = False,
    ) -> None:
        super().__init__(b"")
        self.tree = tree
        self.path = path
        self.events = events
        self.excluded = excluded
        self.one_file_system = one_file_system
        self.identity: tuple[int, int] | None = None
        """Device and inode of the directory that is watched; None while it is lost."""
        self.walk: list[Directory] = []
        """Directories to be watched and listed; the last one is next."""
        self.full_walk = True
        """Whether all of the tree is being walked: its end is reported, and no single directory."""
        self.since: Since | None = None
        """While all of the tree is walked: what has changed is recorded; None: its end is reported."""
        self.refilter: list[Directory] | None = None
        """While new rules are applied: the directories in which that is still to be done."""

    def at(self, path: bytes) -> Directory | None:
        """The known directory at a path below this one."""
        directory: Directory | None = self
        for name in path.split(b"/") if path else ():
            directory = directory.kid(name) if directory else None
        return directory


def join(above: bytes, name: bytes) -> bytes:
    """The path of an entry of a directory; the path of a root is empty."""
    return above + b"/" + name if above else name


def locate(directory: Directory) -> tuple[Root, bytes] | None:
    """The root above it and its path from there (``b""`` for the root); None if it was detached."""
    names: list[bytes] = []
    for above in directory.ancestry():
        if isinstance(above, Root):
            return above, b"/".join(reversed(names))
        names.append(above.name)
    return None


def status_at(root: Root, path: bytes) -> os.stat_result | None:
    """The status of what is at a path; None if it is not there, or cannot be asked."""
    try:
        return os.lstat(os.fsencode(root.path) + b"/" + path)
    except OSError:
        return None


class Replaced(OSError):
    """The root's path does not lead to the watched directory any more."""


class Opener:
    """Opens directories component by component, following no symlink, and holds a few open on the way.

    Neither PATH_MAX nor a symlink that is slipped in can matter. ``close`` it before events are handled,
    because they may move directories.
    """

    def __init__(self) -> None:
        self._held: dict[Directory, int] = {}

    def open(self, directory: Directory) -> int:
        """A descriptor, valid until the next call. OSError if the directory is not there any more."""
        missing: list[Directory] = []
        fd = -1
        for above in directory.ancestry():
            fd = self._held.get(above, -1)
            if fd >= 0:
                break
            missing.append(above)
        for below in reversed(missing):
            fd = _open_root(below) if isinstance(below, Root) else open_kid(below.name, fd)
            self._held[below] = fd
            if len(self._held) > _MAX_HELD:
                os.close(self._held.pop(next(iter(self._held))))  # the oldest; never the one just opened
        return fd

    def close(self) -> None:
        while self._held:
            os.close(self._held.popitem()[1])


def _open_root(root: Root) -> int:
    try:
        fd = os.open(root.path, _OPEN)  # the wpath itself may be a symlink: the user wrote it
    except OSError as error:
        if root.identity is None:
            raise
        raise Replaced(f"{root.path}: {error.strerror}") from error
    if root.identity not in (None, entries.identity(fd)):
        os.close(fd)
        raise Replaced(f"{root.path} is another directory now")
    return fd


def open_kid(name: bytes, above: int) -> int:
    """A descriptor of a directory in an open one, following no symlink; OSError if there is none."""
    if above < 0:
        raise FileNotFoundError("detached from its root")
    return os.open(name, _OPEN | os.O_NOFOLLOW, dir_fd=above)
