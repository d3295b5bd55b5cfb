"""Hostile random changes of a tree.

Whatever happens to the tree meanwhile, nothing outside of it (and of ``outside``) is ever opened, written
or changed: every name is reached component by component from the root's descriptor without following a
symlink, and no absolute symlink to anything that exists is made.
"""

from __future__ import annotations

import contextlib
import os
import random
import stat
import time
from collections.abc import Callable, Iterator

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

DEEPEST = 6
"""The deepest level below the root at which new entries are made."""
HIGHEST = 10
"""The most levels of a tree after moves: with names of 255 bytes still within PATH_MAX."""

PLAIN = [b"a", b"b", b"c", b"d", b"index.html", b"x.txt", b"data", b"lib"]
HOSTILE = [
    b"new\nline",
    b"\n",
    b"-",
    b"-rf",
    b"--delete",
    b"#comment",
    b"#",
    b";semicolon",
    b";",
    b" ",
    b" lead and trail ",
    b"tab\there",
    b"*",
    b"?",
    b"[ab]*",
    b"**",
    b"{a,b}",
    b"'",
    b'"quoted"',
    b"`id`",
    b"$(id)",
    b"$HOME",
    b"\\",
    b"back\\slash",
    b"\\#012",
    b"trailing\\",
    b"~",
    b"~root",
    b"con:lon",
    b":",
    b"a:",
    b"...",
    b".hidden",
    b"%s%n",
    b"+ x",
    b"- x",
    b"! x",
    b"\x01",
    b"\x1b[31m",
    b"\x7f",
    b"\r",
    b"\xff\xfe",
    b"caf\xe9",
    b"caf\xc3\xa9",
    b"cafe\xcc\x81",
    b"\xed\xa0\x80",
    b"n" * 255,
    b"\xfe" * 255,
    b"&|<>",
    b"a=b",
    b"@",
    b"!",
]
NOWHERE = b"/nonexistent-inosync-churn"
RESERVED = b".reserved"
"""Names in the root that begin like this are left alone by the churn."""


class Churn:
    """Random operations below ``root``, the same ones for the same ``seed`` and the same tree.

    With ``outside``, a directory of the same file system, things also move out of the tree and back in.
    ``log`` lists the operations and what became of them, for the message of a failure (``tail``).
    """

    def __init__(self, root: bytes, seed: int, outside: bytes | None = None) -> None:
        self.seed = seed
        self.log: list[str] = []
        self._random = random.Random(seed)
        self._root = root
        self._outside = outside
        self._is_root = os.geteuid() == 0
        assert not os.path.lexists(NOWHERE), f"{NOWHERE!r} must not exist"
        operations: list[tuple[int, Callable[[], str]]] = [
            (22, self._create),
            (6, self._overwrite),
            (4, self._append),
            (3, self._truncate),
            (4, self._rewrite_same_size),
            (10, self._mkdir),
            (7, self._mkdir_deep),
            (5, self._remove),
            (3, self._remove_tree),
            (14, self._rename),
            (5, self._swap),
            (3, self._make_large),
            (6, self._rename_large),
            (3, self._deploy),
            (3, self._copy_into_place),
            (6, self._symlink),
            (4, self._replace_symlink),
            (7, self._change_type),
            (2, self._hard_link),
            (5, self._chmod),
            (4, self._utime),
            (2, self._fifo),
            (2, self._create_read_only),
        ]
        if self._is_root:
            operations.append((4, self._chown))
        if outside is not None:
            operations += [(4, self._move_out), (5, self._move_in)]
        self._operations = [operation for _, operation in operations]
        self._weights = [weight for weight, _ in operations]

    def run(self, count: int, seconds: float = 0) -> None:
        """Do ``count`` operations, back to back or spread over about ``seconds``."""
        for _ in range(count):
            self.step()
            if seconds:
                # Bursts with gaps are more realistic, and harder, than an even pace.
                time.sleep(self._random.choice((0, 0, 0, 4)) * seconds / count)

    def step(self) -> None:
        """Do one operation. If it is not possible (not empty, no permission), it changes nothing."""
        [operation] = self._random.choices(self._operations, self._weights)
        what = operation.__name__.strip("_")
        try:
            result = operation()
        except OSError as error:
            result = f"{type(error).__name__}: {error.strerror}"
        self.log.append(f"{len(self.log)} {what} {result}")

    def tail(self, count: int = 40) -> str:
        """Return the last operations with the seed that repeats them."""
        return "\n".join([f"churn with seed {self.seed}, the last {count} operations:", *self.log[-count:]])

    # Finding a place -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _open(self, path: bytes, top: bytes | None = None) -> Iterator[int]:
        """Open the directory ``path`` below the root without following symlinks."""
        handle = os.open(self._root if top is None else top, DIRECTORY)
        try:
            for part in path.split(b"/") if path else []:
                inner = os.open(part, DIRECTORY, dir_fd=handle)
                os.close(handle)
                handle = inner
            yield handle
        finally:
            os.close(handle)

    def _directory(self, deepest: int = DEEPEST) -> bytes:
        """Choose a directory of the tree, by a random walk from the root."""
        path = b""
        for _ in range(deepest):
            if self._random.random() < 0.35:
                break
            with self._open(path) as handle:
                inner = [name for name in listing(handle) if type_of(handle, name) == stat.S_IFDIR]
            if not inner:
                break
            path = join(path, self._random.choice(inner))
        return path

    def _name(self) -> bytes:
        return self._random.choice(PLAIN if self._random.random() < 0.5 else HOSTILE)

    def _existing(self, *types: int) -> tuple[bytes, bytes]:
        """Choose an entry of one of these types (of any, if none is given): its directory and its name."""
        for _ in range(8):
            directory = self._directory()
            with self._open(directory) as handle:
                names = [name for name in listing(handle) if not types or type_of(handle, name) in types]
            if names:
                return directory, self._random.choice(names)
        raise FileNotFoundError(2, "nothing of that type found")

    def _victim(self, *types: int) -> tuple[bytes, bytes]:
        """Choose an entry to lose, mostly a small one, so that the tree grows."""
        most = self._random.choice((1, 5, 5, 15, 15, 40, 1000))
        for _ in range(8):
            directory, name = self._existing(*types)
            with self._open(directory) as handle:
                if weight_of(handle, name) <= most:
                    return directory, name
        raise FileNotFoundError(2, "nothing small enough found")

    def _content(self) -> bytes:
        size = self._random.choice((0, 1, 10, 100, 1000, 5000, 70000))
        return self._random.randbytes(min(size, 64)) * (size // min(size, 64)) if size else b""

    # The operations ------------------------------------------------------------------------------------

    def _write(self, flags: int, directory: bytes, name: bytes, data: bytes) -> str:
        with self._open(directory) as handle:
            file = os.open(name, os.O_WRONLY | FILE | flags, 0o644, dir_fd=handle)
            with open(file, "wb") as stream:
                if stat.S_ISREG(os.fstat(file).st_mode):
                    stream.write(data)
        return f"{join(directory, name)!r} {len(data)} bytes"

    def _create(self) -> str:
        return self._write(os.O_CREAT | os.O_EXCL, self._directory(), self._name(), self._content())

    def _create_read_only(self) -> str:
        """Make an empty file without IN_CLOSE_WRITE, because it is never open for writing."""
        directory, name = self._directory(), self._name()
        with self._open(directory) as handle:
            flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | FILE
            os.close(os.open(name, flags, 0o640, dir_fd=handle))
        return f"{join(directory, name)!r}"

    def _overwrite(self) -> str:
        return self._write(os.O_TRUNC, *self._existing(stat.S_IFREG), self._content())

    def _append(self) -> str:
        return self._write(os.O_APPEND, *self._existing(stat.S_IFREG), self._content())

    def _truncate(self) -> str:
        directory, name = self._existing(stat.S_IFREG)
        with self._open(directory) as handle:
            file = os.open(name, os.O_WRONLY | FILE, dir_fd=handle)
            with contextlib.closing(os.fdopen(file, "wb")):
                size = self._random.choice((0, 1, os.fstat(file).st_size // 2))
                os.ftruncate(file, size)
        return f"{join(directory, name)!r} to {size}"

    def _rewrite_same_size(self) -> str:
        directory, name = self._existing(stat.S_IFREG)
        with self._open(directory) as handle:
            size = os.stat(name, dir_fd=handle, follow_symlinks=False).st_size
        return self._write(0, directory, name, self._random.randbytes(min(size, 4096)))

    def _mkdir(self) -> str:
        directory, name = self._directory(), self._name()
        with self._open(directory) as handle:
            os.mkdir(name, 0o755, dir_fd=handle)
        return f"{join(directory, name)!r}"

    def _mkdir_deep(self) -> str:
        """A chain of directories made at once, with a file in each: faster than any watch can be set."""
        path = self._directory(2)
        for _ in range(self._random.randint(2, DEEPEST - 2)):
            name = self._name()
            with self._open(path) as handle:
                os.mkdir(name, 0o755, dir_fd=handle)
            path = join(path, name)
            self._write(os.O_CREAT, path, self._random.choice(PLAIN), self._content())
        return f"{path!r}"

    def _remove(self) -> str:
        directory, name = self._existing()
        with self._open(directory) as handle:
            if type_of(handle, name) == stat.S_IFDIR:
                os.rmdir(name, dir_fd=handle)
            else:
                os.unlink(name, dir_fd=handle)
        return f"{join(directory, name)!r}"

    def _remove_tree(self) -> str:
        directory, name = self._victim(stat.S_IFDIR)
        with self._open(directory) as handle:
            remove(handle, name)
        return f"{join(directory, name)!r}"

    def _rename(self) -> str:
        directory, name = self._existing()
        to = self._directory(DEEPEST - 1)
        # Half of the time onto something that is there: the kernel replaces files and empty directories.
        new = self._name()
        if self._random.random() < 0.5:
            with self._open(to) as handle:
                new = self._random.choice(listing(handle) or [new])
        with self._open(directory) as here, self._open(to) as there:
            self._check_height(here, name, to)
            os.rename(name, new, src_dir_fd=here, dst_dir_fd=there)
        return f"{join(directory, name)!r} to {join(to, new)!r}"

    def _swap(self) -> str:
        (directory, name), (other, partner) = self._existing(), self._existing()
        one, two = join(directory, name), join(other, partner)
        if one == two or _inside(one, two) or _inside(two, one):
            return "nothing: one holds the other"
        spare = b".swap%d" % self._random.randrange(1000)
        with self._open(directory) as here, self._open(other) as there:
            self._check_height(here, name, other)
            self._check_height(there, partner, directory)
            os.rename(name, spare, src_dir_fd=here, dst_dir_fd=here)
            os.rename(partner, name, src_dir_fd=there, dst_dir_fd=here)
            os.rename(spare, partner, src_dir_fd=here, dst_dir_fd=there)
        return f"{one!r} with {two!r}"

    # Renames of what is large enough for nodes to follow them

    def _fill(self, path: bytes) -> None:
        """Put files into a directory, more than 100 kB in all."""
        for name in PLAIN[: self._random.randint(2, 4)]:
            self._write(os.O_CREAT, path, name, self._random.randbytes(1000) * 70)

    def _make_large(self) -> str:
        directory, name = self._directory(DEEPEST - 2), self._name()
        path = join(directory, name)
        with self._open(directory) as handle:
            os.mkdir(name, 0o755, dir_fd=handle)
        self._fill(path)
        return f"{path!r}"

    def _large(self) -> tuple[bytes, bytes]:
        """Choose a directory with much in it."""
        for _ in range(8):
            directory, name = self._existing(stat.S_IFDIR)
            with self._open(directory) as handle:
                if weight_of(handle, name) > 10:
                    return directory, name
        raise FileNotFoundError(2, "nothing large enough found")

    def _rename_large(self) -> str:
        directory, name = self._large()
        to, new = self._directory(DEEPEST - 2), self._name()
        with self._open(directory) as here, self._open(to) as there:
            self._check_height(here, name, to)
            os.rename(name, new, src_dir_fd=here, dst_dir_fd=there)
        return f"{join(directory, name)!r} to {join(to, new)!r}"

    def _deploy(self) -> str:
        """A directory that was prepared takes the name of another one, which is kept."""
        directory, name = self._large()
        fresh, kept = b".fresh%d" % self._random.randrange(1000), self._name()
        with self._open(directory) as handle:
            os.mkdir(fresh, 0o755, dir_fd=handle)
            self._fill(join(directory, fresh))
            os.rename(name, kept, src_dir_fd=handle, dst_dir_fd=handle)
            os.rename(fresh, name, src_dir_fd=handle, dst_dir_fd=handle)
        return f"{join(directory, name)!r}, the old one is {kept!r}"

    def _copy_into_place(self) -> str:
        """A copy with the same times takes the name of a directory that was renamed."""
        directory, name = self._large()
        kept = self._name()
        with self._open(directory) as handle:
            os.rename(name, kept, src_dir_fd=handle, dst_dir_fd=handle)
            os.mkdir(name, 0o755, dir_fd=handle)
        with self._open(join(directory, kept)) as here, self._open(join(directory, name)) as there:
            for child in listing(here):
                if type_of(here, child) == stat.S_IFREG:
                    with os.fdopen(os.open(child, os.O_RDONLY | FILE, dir_fd=here), "rb") as stream:
                        content, status = stream.read(), os.fstat(stream.fileno())
                    self._write(os.O_CREAT, join(directory, name), child, content)
                    times = (status.st_atime_ns, status.st_mtime_ns)
                    os.utime(child, ns=times, dir_fd=there, follow_symlinks=False)
        return f"{join(directory, kept)!r} to {name!r}"

    def _target(self, directory: bytes) -> bytes:
        """Where a symlink may point: nowhere, to its neighbours, or up inside the tree."""
        choice = self._random.randrange(5)
        if choice == 0:
            return NOWHERE + b"/" + self._name()
        if choice == 1:
            return b"dangling/" + self._name()
        if choice == 2 and directory:
            return self._random.choice((b"..", b"../" + self._name()))
        if choice == 3:
            return b"."
        with self._open(directory) as handle:
            return self._random.choice(listing(handle) or [b"dangling"])

    def _symlink(self) -> str:
        directory, name = self._directory(), self._name()
        target = self._target(directory)
        with self._open(directory) as handle:
            os.symlink(target, name, dir_fd=handle)
        return f"{join(directory, name)!r} -> {target!r}"

    def _replace_symlink(self) -> str:
        """Retarget a symlink the way programs do it: a new one renamed over the old one."""
        directory, name = self._existing(stat.S_IFLNK)
        target = self._target(directory)
        with self._open(directory) as handle:
            os.symlink(target, b".link.new", dir_fd=handle)
            os.rename(b".link.new", name, src_dir_fd=handle, dst_dir_fd=handle)
        return f"{join(directory, name)!r} -> {target!r}"

    def _change_type(self) -> str:
        """Put something of another type where something was."""
        directory, name = self._victim()
        with self._open(directory) as handle:
            before = type_of(handle, name)
            after = self._random.choice(
                [t for t in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK) if t != before]
            )
            remove(handle, name)
            if after == stat.S_IFDIR:
                os.mkdir(name, 0o755, dir_fd=handle)
            elif after == stat.S_IFLNK:
                os.symlink(self._target(directory), name, dir_fd=handle)
        path = join(directory, name)
        if after == stat.S_IFREG:
            self._write(os.O_CREAT | os.O_EXCL, directory, name, self._content())
        elif after == stat.S_IFDIR and self._random.random() < 0.7 and path.count(b"/") < HIGHEST:
            self._write(os.O_CREAT | os.O_EXCL, path, self._name(), self._content())
        return f"{path!r} to {stat.filemode(after)[0]}"

    def _hard_link(self) -> str:
        """A second name for a file, and the first one removed: no mirror by names can keep both as one."""
        directory, name = self._existing(stat.S_IFREG)
        to, new = self._directory(), self._name()
        with self._open(directory) as here, self._open(to) as there:
            os.link(name, new, src_dir_fd=here, dst_dir_fd=there, follow_symlinks=False)
            os.unlink(name, dir_fd=here)
        return f"{join(directory, name)!r} to {join(to, new)!r}"

    def _chmod(self) -> str:
        directory, name = self._existing(stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO)
        with self._open(directory) as handle:
            item = os.open(name, os.O_RDONLY | FILE, dir_fd=handle)
            try:
                special = 0o7000 if self._is_root and self._random.random() < 0.2 else 0
                bits = self._random.randrange(0o1000) | self._random.randrange(0o10000) & special
                # Its owner goes on reading files, and doing all in directories.
                bits |= 0o700 if stat.S_ISDIR(os.fstat(item).st_mode) else 0o400
                os.fchmod(item, bits)
            finally:
                os.close(item)
        return f"{join(directory, name)!r} {bits:o}"

    def _chown(self) -> str:
        directory, name = self._existing()
        uid, gid = self._random.randrange(5), self._random.randrange(5)
        with self._open(directory) as handle:
            os.chown(name, uid, gid, dir_fd=handle, follow_symlinks=False)
        return f"{join(directory, name)!r} {uid}:{gid}"

    def _utime(self) -> str:
        directory, name = self._existing()
        when = self._random.randrange(2**31) * 10**9 + self._random.choice((0, self._random.randrange(10**9)))
        with self._open(directory) as handle:
            os.utime(name, ns=(when, when), dir_fd=handle, follow_symlinks=False)
        return f"{join(directory, name)!r} {when}"

    def _fifo(self) -> str:
        directory, name = self._directory(), self._name()
        with self._open(directory) as handle:
            os.mkfifo(name, 0o600, dir_fd=handle)
        return f"{join(directory, name)!r}"

    def _move_out(self) -> str:
        directory, name = self._victim()
        new = b"%d" % self._random.randrange(12)
        with self._open(directory) as here, self._open(b"", self._outside) as there:
            if new in listing(there):
                remove(there, new)
            os.rename(name, new, src_dir_fd=here, dst_dir_fd=there)
        return f"{join(directory, name)!r} as {new!r}"

    def _move_in(self) -> str:
        to, new = self._directory(DEEPEST - 1), self._name()
        with self._open(b"", self._outside) as here, self._open(to) as there:
            names = listing(here)
            if not names:
                return "nothing: nobody is out"
            name = self._random.choice(names)
            # While it was out, something changed in it that no watch may still tell of.
            if type_of(here, name) == stat.S_IFDIR:
                inner = os.open(name, DIRECTORY, dir_fd=here)
                try:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | FILE
                    with contextlib.suppress(FileExistsError):
                        os.close(os.open(b"made outside", flags, 0o600, dir_fd=inner))
                finally:
                    os.close(inner)
            self._check_height(here, name, to)
            os.rename(name, new, src_dir_fd=here, dst_dir_fd=there)
        return f"{name!r} as {join(to, new)!r}"

    def _check_height(self, handle: int, name: bytes, to: bytes) -> None:
        """Refuse a move that would make the tree too high for the names of rsync."""
        depth = to.count(b"/") + 1 if to else 0
        if depth + _height(handle, name) > HIGHEST:
            raise OSError(36, "would become too deep")


def join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def _inside(path: bytes, other: bytes) -> bool:
    return other.startswith(path + b"/")


def listing(handle: int) -> list[bytes]:
    """The names in an open directory, in an order that depends on nothing but them."""
    return sorted(name for name in map(os.fsencode, os.listdir(handle)) if not name.startswith(RESERVED))


def type_of(handle: int, name: bytes) -> int:
    return stat.S_IFMT(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode)


def _height(handle: int, name: bytes) -> int:
    """How many levels there are at and below a name: 1 for all but a directory with something in it."""
    if type_of(handle, name) != stat.S_IFDIR:
        return 1
    inner = os.open(name, DIRECTORY, dir_fd=handle)
    try:
        return 1 + max((_height(inner, child) for child in listing(inner)), default=0)
    finally:
        os.close(inner)


def weight_of(handle: int, name: bytes) -> int:
    """How much there is at and below a name: an entry counts one, and 10,000 bytes of a file one more."""
    status = os.stat(name, dir_fd=handle, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        return 1 + status.st_size // 10_000
    inner = os.open(name, DIRECTORY, dir_fd=handle)
    try:
        return 1 + sum(weight_of(inner, child) for child in listing(inner))
    finally:
        os.close(inner)


def remove(handle: int, name: bytes) -> None:
    """Remove a name and all below it."""
    if type_of(handle, name) != stat.S_IFDIR:
        os.unlink(name, dir_fd=handle)
        return
    inner = os.open(name, DIRECTORY, dir_fd=handle)
    try:
        for child in listing(inner):
            remove(inner, child)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=handle)
