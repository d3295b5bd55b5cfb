"""More hostile changes than those of ``support.churn``: bursts, changes in several steps, and moves between
wpaths."""

from __future__ import annotations

import ctypes
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence

from support.churn import DEEPEST, FILE, Churn, join, listing, remove, type_of, weight_of

MOST = 2500
"""The most entries of a tree; above that the largest directories are removed."""
COUNTED = 40
"""Operations between two counts of the entries."""
BURST = (200, 1000, 3000)
"""The numbers of files in a burst."""
BIG = 8
"""Megabytes of a big file."""
_RENAME_EXCHANGE = 2


class Storm(Churn):
    """Hostile changes of one wpath, some of which move entries to another wpath, ``partner``.

    A change in several steps does one step with each operation, so that it depends on no clock. Hard links
    are made only with ``hard_links``, and directories without write permission only with ``read_only``.
    """

    def __init__(
        self, root: bytes, seed: int, outside: bytes, partner: bytes, hard_links: bool, read_only: bool
    ) -> None:
        super().__init__(root, seed, outside)
        self.done: Counter[str] = Counter()
        """How often each operation was done."""
        self._partner = partner
        self._lasting: list[Iterator[None]] = []
        more = [
            (6, self._write_slowly),
            (4, self._replace_often),
            (5, self._move_across),
            (4, self._rewrite_again_and_again),
            (3, self._exchange),
            (3, self._link_temporary),
            (2, self._truncate_path),
            (3, self._rename_storm),
            (1, self._burst),
            (2, self._write_big),
            (3, self._rename_largest),
        ]
        if hard_links:
            more.append((4, self._second_name))
        if read_only:
            more.append((2, self._make_read_only_tree))
        self._operations += [operation for _, operation in more]
        self._weights += [weight for weight, _ in more]

    def step(self) -> None:
        """Do one operation, and one step of each change in several steps."""
        for lasting in list(self._lasting):
            try:
                next(lasting)
            except (StopIteration, OSError):
                self._lasting.remove(lasting)
        super().step()
        number, what, *result = self.log[-1].split(" ", 2)
        if not result or not result[0].partition(": ")[0].endswith("Error"):
            self.done[what] += 1
        if int(number) % COUNTED == 0:
            self._prune()

    def finish(self) -> None:
        """Finish all changes in several steps."""
        for lasting in self._lasting:
            try:
                for _ in lasting:
                    pass
            except OSError as error:
                self.log.append(f"{len(self.log)} finish {error}")
        self._lasting.clear()

    def _prune(self) -> None:
        """Remove the largest entries until there are at most ``MOST``."""
        with self._open(b"") as root:
            sizes = {name: weight_of(root, name) for name in listing(root)}
            while sum(sizes.values()) > MOST:
                largest = max(sizes, key=lambda name: (sizes[name], name))
                del sizes[largest]
                try:
                    remove(root, largest)
                except OSError as error:
                    self.log.append(f"{len(self.log)} prune {error}")
                else:
                    self.log.append(f"{len(self.log)} prune {largest!r}")

    # Changes in several steps -------------------------------------------------------------------------

    def _write_slowly(self) -> str:
        """Append to a file that stays open."""
        directory, name = self._directory(), self._name()
        with self._open(directory) as handle:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | FILE
            file = os.open(name, flags, 0o644, dir_fd=handle)
        pieces = [self._random.randbytes(64) * 512 for _ in range(self._random.choice((2, 5, 20)))]

        self._lasting.append(_write_pieces(file, pieces))
        return f"{join(directory, name)!r}, {len(pieces)} pieces"

    def _replace_often(self) -> str:
        """Replace a large file several times, also during its transfer."""
        directory, name = self._directory(), self._name()
        contents = [self._random.randbytes(64) * 16384 for _ in range(self._random.choice((2, 3, 5)))]

        def replace() -> Iterator[None]:
            for content in contents:
                with self._open(directory) as handle:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | FILE
                    with open(os.open(b".replacing", flags, 0o600, dir_fd=handle), "wb") as stream:
                        stream.write(content)
                    os.rename(b".replacing", name, src_dir_fd=handle, dst_dir_fd=handle)
                for _ in range(3):
                    yield

        self._lasting.append(replace())
        return f"{join(directory, name)!r}, {len(contents)} times"

    def _write_big(self) -> str:
        """Write a big file by the megabyte."""
        directory, name = self._directory(), self._name()
        with self._open(directory) as handle:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | FILE
            file = os.open(name, flags, 0o644, dir_fd=handle)
        pieces = [self._random.randbytes(1 << 10) * 1024 for _ in range(BIG)]

        self._lasting.append(_write_pieces(file, pieces))
        return f"{join(directory, name)!r}, {BIG} MB"

    def _make_read_only_tree(self) -> str:
        """Make directories without write permission, like Go's module cache, and remove them later."""
        directory, name = self._directory(DEEPEST - 2), b"read-only"
        with self._open(directory) as handle:
            os.mkdir(name, 0o755, dir_fd=handle)
        path = join(directory, name)
        with self._open(path) as handle:
            for inner in (b"a", b"b"):
                os.mkdir(inner, 0o755, dir_fd=handle)
                with self._open(join(path, inner)) as below:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | FILE
                    with open(os.open(b"file", flags, 0o444, dir_fd=below), "wb") as stream:
                        stream.write(inner)
                os.chmod(inner, 0o555, dir_fd=handle)
            os.fchmod(handle, 0o555)

        def take_away() -> Iterator[None]:
            for _ in range(30):
                yield
            with self._open(directory) as handle:
                if type_of(handle, name) == stat.S_IFDIR:
                    remove(handle, name)

        self._lasting.append(take_away())
        return f"{path!r}"

    # Changes in one step ------------------------------------------------------------------------------

    def _move_across(self) -> str:
        """Move an entry to the root of the other wpath, or to a directory in it."""
        directory, name = self._victim()
        new = self._name()
        with self._open(directory) as here, self._open(b"", self._partner) as there:
            inner = [other for other in listing(there) if type_of(there, other) == stat.S_IFDIR]
            to = self._random.choice([b"", *inner])
            self._check_height(here, name, to)
            with self._open(to, self._partner) as place:
                os.rename(name, new, src_dir_fd=here, dst_dir_fd=place)
        return f"{join(directory, name)!r} to {join(to, new)!r} there"

    def _rewrite_again_and_again(self) -> str:
        """Rewrite a file with the same size several times within a second."""
        directory, name = self._existing(stat.S_IFREG)
        with self._open(directory) as handle:
            size = os.stat(name, dir_fd=handle, follow_symlinks=False).st_size
        for _ in range(5):
            self._write(0, directory, name, self._random.randbytes(min(size, 4096)))
        return f"{join(directory, name)!r}"

    def _exchange(self) -> str:
        """Exchange two entries in one step: renameat2(2), RENAME_EXCHANGE."""
        (directory, name), (other, partner) = self._existing(), self._existing()
        one, two = join(directory, name), join(other, partner)
        if one == two or two.startswith(one + b"/") or one.startswith(two + b"/"):
            return "nothing: one holds the other"
        with self._open(directory) as here, self._open(other) as there:
            self._check_height(here, name, other)
            self._check_height(there, partner, directory)
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.renameat2(here, name, there, partner, _RENAME_EXCHANGE):
                raise OSError(ctypes.get_errno(), "renameat2")
        return f"{one!r} with {two!r}"

    def _link_temporary(self) -> str:
        """Write a file before it has a name: O_TMPFILE, then linkat(2)."""
        directory, name = self._directory(), self._name()
        with self._open(directory) as handle:
            file = os.open(b".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o640, dir_fd=handle)
            try:
                os.write(file, self._content())
                os.link(f"/proc/self/fd/{file}", name, dst_dir_fd=handle, follow_symlinks=True)
            finally:
                os.close(file)
        return f"{join(directory, name)!r}"

    def _truncate_path(self) -> str:
        """Truncate a file with truncate(2), which opens and closes nothing."""
        directory, name = self._existing(stat.S_IFREG)
        size = self._random.choice((0, 1, 100))
        with self._open(directory) as handle:
            file = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
            try:
                if stat.S_ISREG(os.fstat(file).st_mode):
                    os.truncate(f"/proc/self/fd/{file}", size)
            finally:
                os.close(file)
        return f"{join(directory, name)!r} to {size}"

    def _rename_storm(self) -> str:
        """Exchange names of the entries of a directory many times."""
        directory = self._directory()
        count = self._random.choice((20, 100, 300))
        with self._open(directory) as handle:
            names = listing(handle)
            if not names:
                return "nothing: an empty directory"
            spare = b".storm"
            for _ in range(count):
                one, two = self._random.choice(names), self._random.choice(names)
                if one != two:
                    os.rename(one, spare, src_dir_fd=handle, dst_dir_fd=handle)
                    os.rename(two, one, src_dir_fd=handle, dst_dir_fd=handle)
                    os.rename(spare, two, src_dir_fd=handle, dst_dir_fd=handle)
        return f"{directory!r} {count} times"

    def _burst(self) -> str:
        """Make a directory with many files at once; half of the time remove it at once."""
        directory, name = self._directory(DEEPEST - 2), self._name()
        count, passing = self._random.choice(BURST), self._random.random() < 0.5
        with self._open(directory) as handle:
            os.mkdir(name, 0o755, dir_fd=handle)
        path = join(directory, name)
        with self._open(path) as handle:
            for number in range(count):
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | FILE
                with open(os.open(b"%d" % number, flags, 0o644, dir_fd=handle), "wb") as stream:
                    stream.write(b"%d" % number)
        if passing:
            with self._open(directory) as handle:
                remove(handle, name)
        return f"{path!r} {count} files{', removed' if passing else ''}"

    def _rename_largest(self) -> str:
        """Rename the largest directory of the root, to another name there or into another directory."""
        with self._open(b"") as root:
            names = [name for name in listing(root) if type_of(root, name) == stat.S_IFDIR]
            if not names:
                return "nothing: no directory"
            largest = max(names, key=lambda name: (weight_of(root, name), name))
            to = self._random.choice([b"", *(name for name in names if name != largest)])
            new = self._name()
            self._check_height(root, largest, to)
            with self._open(to) as there:
                os.rename(largest, new, src_dir_fd=root, dst_dir_fd=there)
        return f"{largest!r} to {join(to, new)!r}"

    def _second_name(self) -> str:
        """Make a hard link, which a later change may write to."""
        directory, name = self._existing(stat.S_IFREG)
        to, new = self._directory(), self._name()
        with self._open(directory) as here, self._open(to) as there:
            os.link(name, new, src_dir_fd=here, dst_dir_fd=there, follow_symlinks=False)
        return f"{join(directory, name)!r} as {join(to, new)!r}"


def _write_pieces(file: int, pieces: Sequence[bytes]) -> Iterator[None]:
    """Write to an open file, a piece at a time, and close it."""
    try:
        for piece in pieces if stat.S_ISREG(os.fstat(file).st_mode) else ():
            os.write(file, piece)
            yield
    finally:
        os.close(file)
