"""What has changed while nothing ran is found by one walk, on each file system that is relied on.

The walk, the journal, and the rsync call of a batch, without the daemon around them: so random changes can be
tried by the hundred. ``rsync -n -a --delete`` says whether the copy is level.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inosync.changes import Change, Kind, Rename, Step
from inosync.filters.rules import Rules
from inosync.journal.journal import Journal
from inosync.rsync import argv
from inosync.rsync.argv import TransferSettings
from inosync.rsync.names import current_names
from inosync.state import facts
from inosync.system.libc import LIBC
from inosync.watch import shares
from inosync.watch.hardlinks import HardLinks
from inosync.watch.tree import Since
from inosync.watch.watcher import Watcher

MIB = 1 << 20
TICK_SECONDS = 0.03
"""Longer than a tick of the clock that the kernel takes ctimes from."""
TREE = 1
EXAMPLES = int(os.environ.get("INOSYNC_EXAMPLES", "8"))
EXTRA = ("-A", "-X")
RSYNC = shutil.which("rsync") or "/usr/bin/rsync"
MAKE = {"ext4": ("mkfs.ext4", "-q"), "xfs": ("mkfs.xfs", "-q"), "btrfs": ("mkfs.btrfs", "-q"), "tmpfs": ()}
NAMES = ("a", "b", "c", "d\n", "#e", os.fsdecode(b"f\xff"))


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts file systems and changes owners")


@pytest.fixture(scope="module", autouse=True)
def scouts() -> Iterator[None]:
    """Let a scout help with these few directories, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shares, "MIN_ITEMS", 1)
        patch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
        yield


@pytest.fixture(scope="module", params=MAKE)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory on a file system of its own."""
    kind = request.param
    home = tmp_path_factory.mktemp(kind)
    point = home / "fs"
    point.mkdir()
    if make := MAKE[kind]:
        if shutil.which(make[0]) is None:
            pytest.skip(f"{make[0]} is not installed")
        image = home / "image"
        image.touch()
        os.truncate(image, 320 * MIB)
        subprocess.run([*make, str(image)], check=True, capture_output=True)
        mount = ["mount", "-o", "loop", str(image), str(point)]
    else:
        mount = ["mount", "-t", "tmpfs", "tmpfs", str(point)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{kind} cannot be mounted: {done.stderr.strip()}")
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)


class Recorded:
    """A listener that puts all into a journal."""

    def __init__(self) -> None:
        self.journal = Journal()
        self.whole = False
        self.has_caught_up = False

    def record(self, change: Change, now: float) -> None:
        self.journal.record(change, now)

    def gone(self, tree: int, path: bytes, now: float, step: Step = Step.REMOVED) -> None:
        self.journal.gone(tree, path, now, step)

    def walked(self, _tree: int, _now: float) -> None:
        self.whole = True

    def caught_up(self, _tree: int, _now: float) -> None:
        self.has_caught_up = True

    def directory_left(self, _tree: int, _path: bytes) -> None:
        pass

    def renamed(self, _tree: int, _rename: Rename) -> None:
        pass

    def refiltered(self, _tree: int, _now: float) -> None:
        raise AssertionError("the rules have not changed")

    def lost(self, _tree: int, why: str) -> None:
        raise AssertionError(why)


class World:
    """A tree, its copy, and what lies beside the tree on the same file system."""

    def __init__(self, point: Path) -> None:
        for name in ("tree", "copy", "beside"):
            shutil.rmtree(point / name, ignore_errors=True)
            (point / name).mkdir()
        self.tree, self.copy, self.beside = point / "tree", point / "copy", point / "beside"
        self.settings = TransferSettings(RSYNC, str(self.tree), f"{self.copy}/", extra=EXTRA)
        for above in ("", "a", "a/b", "a/b/c", "b", "c", "c/a"):
            (self.tree / above).mkdir(exist_ok=True)
            for name in NAMES[3:]:
                (self.tree / above / name).write_bytes(os.fsencode(f"{above}/{name}"))
        for above in ("old", "old/deep", "old/deep/deeper"):
            (self.beside / above).mkdir()
            (self.beside / above / "file").write_text(above)
        self.mirror()

    def mirror(self) -> None:
        """Make the copy level, and note when."""
        full = [RSYNC, "-a", "--delete", "--modify-window=-1", *EXTRA, f"{self.tree}/", f"{self.copy}/"]
        subprocess.run(full, check=True)
        time.sleep(TICK_SECONDS)
        self.after = time.time_ns()
        time.sleep(TICK_SECONDS)

    def restart(self, during: Callable[[], None] = lambda: None) -> None:
        """Find what has changed, send it, and check that nothing is missing."""
        found = Recorded()
        watcher = Watcher(HardLinks(found, time.monotonic))
        try:
            root, identity = facts.of_root(str(self.tree))
            assert root.fs_type, "it is relied on"
            since = Since(self.after, identity, frozenset({identity[0]}))
            events = frozenset(
                ("IN_CLOSE_WRITE", "IN_CREATE", "IN_DELETE", "IN_MOVED_FROM", "IN_MOVED_TO", "IN_ATTRIB")
            )
            watcher.roots.add(TREE, str(self.tree), events, lambda _path, _is_directory: False, since=since)
            watcher.work(0.0)
            watcher.work(0.0)
            during()
            deadline = time.monotonic() + 30
            while watcher.read() or watcher.unclosed() != frozenset() or not found.has_caught_up:
                watcher.work(0.01)
                watcher.run_due()
                assert time.monotonic() < deadline, watcher.unclosed()
        finally:
            watcher.close()
        assert found.has_caught_up
        assert not found.whole
        changes = found.journal.since(0)
        assert changes is not None
        assert all(change.kind is not Kind.TREE for change in changes)
        self.send(changes)
        assert self.differences() == []

    def send(self, changes: list[Change]) -> None:
        wires = [change.wire for change in changes]
        names = current_names(str(self.tree), wires, Rules(()).excluded)
        if names.send:
            call = argv.batch_argv(self.settings)
            done = subprocess.run(call, input=argv.names_input(names.send), capture_output=True, check=False)
            assert (done.returncode, done.stderr) == (0, b"")

    def differences(self) -> list[bytes]:
        look = [
            RSYNC,
            "-n",
            "-a",
            "-i",
            "--delete",
            "--modify-window=-1",
            *EXTRA,
            f"{self.tree}/",
            f"{self.copy}/",
        ]
        done = subprocess.run(look, capture_output=True, check=True)
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        # The time of the top directory follows with its next listing: docs/limits.rst.
        return [line for line in lines if line != b".d..t...... ./"]

    def differing(self) -> set[str]:
        """The top directories in which something differs."""
        return {os.fsdecode(line.split(b" ", 1)[1].lstrip()).split("/")[0] for line in self.differences()}


Operation = tuple[str, str, str, int]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
KINDS = """
    write|write old|append|truncate|chmod|chown|utime|xattr|acl|mkdir|make fifo|remove|link|symlink
    |rename|exchange|out|in|cp -a|tar|rsync|git
"""
STEPS = st.tuples(
    st.sampled_from([kind.strip() for kind in KINDS.split("|")]), PATHS, PATHS, st.integers(0, 3)
)


def apply(world: World, step: Operation) -> None:
    """Make a change; one that is not possible is none."""
    what, one, other, number = step
    tree = world.tree
    path, target = tree / one, tree / other
    if not is_inside(tree, path) or not is_inside(tree, target):
        return
    with contextlib.suppress(OSError, shutil.Error, subprocess.CalledProcessError):
        match what:
            case "write" | "append" | "write old":
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
                flags |= os.O_APPEND if what == "append" else os.O_TRUNC
                fd = os.open(path, flags)
                os.write(fd, b"new %d" % number)
                os.close(fd)
                if what == "write old":
                    os.utime(path, (number, number), follow_symlinks=False)
            case "truncate" if not path.is_symlink() and path.is_file():
                os.truncate(path, number)
            case "chmod" if not path.is_symlink():
                path.chmod((0o700, 0o755, 0o640, 0o711)[number])
            case "chown":
                os.chown(path, number, number, follow_symlinks=False)
            case "utime":
                os.utime(path, (number * 1000, number * 1000), follow_symlinks=False)
            case "xattr":
                os.setxattr(path, "user.test", b"%d" % number, follow_symlinks=False)
            case "acl" if not path.is_symlink():
                call("setfacl", "-m", f"u:{number}:r", path)
            case "mkdir":
                path.mkdir()
            case "remove":
                remove(path)
            case "rename":
                path.rename(target)
            case "out":
                path.rename(world.beside / f"out{number}")
            case "in":
                (world.beside / ("old", "old/deep", "out0", "out1")[number]).rename(path)
            case "link" if not path.is_symlink():
                os.link(path, target, follow_symlinks=False)
            case "symlink":
                remove(path)
                path.symlink_to(os.path.basename(other))
            case "exchange":
                path.rename(tree / "exchange")
                target.rename(path)
                (tree / "exchange").rename(target)
            case "cp -a":
                call("cp", "-a", path, target)
            case "tar":
                archive = world.beside / "archive"
                subprocess.run(
                    ["tar", "-C", world.beside, "-cf", archive, "old"], check=True, capture_output=True
                )
                subprocess.run(["tar", "-C", path, "-xf", archive], check=True, capture_output=True)
            case "rsync":
                call(RSYNC, "-a", f"{world.beside}/old", path)
            case "git" if path.is_dir() and not path.is_symlink():
                checkout(path, number)
            case "make fifo":
                os.mkfifo(path)


def call(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


def exchange(one: Path, other: Path) -> None:
    """Let two names change places, by renameat2(2) with RENAME_EXCHANGE."""
    if LIBC.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2):
        raise OSError(ctypes.get_errno(), "renameat2")


def swap(one: Path, other: Path) -> None:
    one.rename(one.parent / "between")
    other.rename(one)
    (one.parent / "between").rename(other)


def write_old(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    os.utime(path, (1, 1))


def touch_directory(d: Path) -> None:
    """Make a file in a directory, whose time is then what it was, as with ``touch -r``."""
    before = (d / "a").stat()
    (d / "a/new").write_text("new")
    os.utime(d / "a", ns=(before.st_atime_ns, before.st_mtime_ns))


def write_mapped(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        content[0] = 0xFF
        content.flush()


def write_linked(path: Path, other: Path) -> None:
    os.link(path, other)
    write_old(other, b"x")


def replace_by_link(path: Path, target: str) -> None:
    remove(path)
    path.symlink_to(target)


def replace_by_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("a file")


def replace_by_directory(path: Path, directory: Path) -> None:
    path.unlink()
    directory.rename(path)


def unpack(w: World, d: Path) -> None:
    archive = w.beside / "archive"
    call("tar", "-C", w.beside / d.name, "-cf", archive, "deep")
    call("tar", "-C", d / "a", "-xf", archive)


CHANGES: dict[str, Callable[[World, Path], object]] = {
    "content": lambda _w, d: (d / "a/1").write_text("other content"),
    "content with an old time": lambda _w, d: write_old(d / "a/b/2", b"other content"),
    "mapped content": lambda _w, d: write_mapped(d / "a/1"),
    "hole": lambda _w, d: call("fallocate", "--punch-hole", "--offset=0", "--length=1", d / "a/1"),
    "copy over it": lambda _w, d: call("cp", "--reflink=auto", d / "a/b/2", d / "a/1"),
    "truncation": lambda _w, d: os.truncate(d / "a/1", 0),
    "mode": lambda _w, d: (d / "a/1").chmod(0o600),
    "mode of a directory": lambda _w, d: (d / "a/b").chmod(0o700),
    "owner": lambda _w, d: os.chown(d / "a/1", 1, 1),
    "owner of a symlink": lambda _w, d: os.chown(d / "link", 1, 1, follow_symlinks=False),
    "time in the past": lambda _w, d: os.utime(d / "a/b/2", (1, 1)),
    "attribute": lambda _w, d: os.setxattr(d / "a/1", "user.test", b"x"),
    "access control list": lambda _w, d: call("setfacl", "-m", "u:1:r", d / "a/1"),
    "access control list of a directory": lambda _w, d: call("setfacl", "-d", "-m", "u:1:r", d / "a/b"),
    "new file": lambda _w, d: (d / "c/new").write_text("new"),
    "new file, old time of its directory": lambda _w, d: touch_directory(d),
    "removed file": lambda _w, d: (d / "a/1").unlink(),
    "new directories": lambda _w, d: (d / "c/new/deep").mkdir(parents=True),
    "removed directory": lambda _w, d: shutil.rmtree(d / "a"),
    "renamed file": lambda _w, d: (d / "a/1").rename(d / "a/other"),
    "file to another directory": lambda _w, d: (d / "a/1").rename(d / "c/1"),
    "file out": lambda w, d: (d / "a/1").rename(w.beside / "file that left"),
    "file in": lambda w, d: (w.beside / d.name / "deep/old").rename(d / "c/old"),
    "renamed directory": lambda _w, d: (d / "a").rename(d / "other"),
    "directory to another one": lambda _w, d: (d / "a").rename(d / "c/a"),
    "directory out": lambda w, d: (d / "a").rename(w.beside / "directory that left"),
    "directory in": lambda w, d: (w.beside / d.name).rename(d / "c/old"),
    "directory over an empty one": lambda _w, d: (d / "a").rename(d / "c"),
    "swapped directories": lambda _w, d: swap(d / "e", d / "f"),
    "swapped files": lambda _w, d: swap(d / "e/3", d / "f/3"),
    "exchanged directories": lambda _w, d: exchange(d / "a/b", d / "e"),
    "exchanged neighbours": lambda _w, d: exchange(d / "e", d / "f"),
    "exchanged files": lambda _w, d: exchange(d / "e/3", d / "a/1"),
    "hard link": lambda _w, d: os.link(d / "a/1", d / "c/1"),
    "content through a link outside": lambda w, d: write_linked(d / "a/1", w.beside / "another name"),
    "symlink": lambda _w, d: replace_by_link(d / "link", "c"),
    "symlink to directory": lambda _w, d: replace_by_link(d / "a", "c"),
    "directory to file": lambda _w, d: replace_by_file(d / "a"),
    "file to directory": lambda w, d: replace_by_directory(d / "a/1", w.beside / d.name),
    "cp -a": lambda w, d: call("cp", "-a", w.beside / d.name, d / "c/copy"),
    "tar x": lambda w, d: unpack(w, d),
    "git checkout": lambda _w, d: checkout(d / "a", 1),
    "rsync": lambda w, d: call(RSYNC, "-a", f"{w.beside / d.name}/", d / "a"),
    "rsync in place": lambda w, d: call(RSYNC, "-a", "--inplace", f"{w.beside / d.name}/", d / "c"),
}
"""What happens in a directory of its own while nothing runs."""
UNSEEN = {"xfs": {"exchanged neighbours"}}
"""What gives directories no new ctime on a file system: docs/limits.rst."""


def checkout(path: Path, number: int) -> None:
    git = ["git", "-C", str(path), "-c", "user.name=x", "-c", "user.email=x@x"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        call(*git, *words)
    for each in list(path.iterdir())[:number]:
        if each.name != ".git":
            remove(each)
    call(*git, "checkout", "-q", "-f", "HEAD")


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def is_inside(tree: Path, path: Path) -> bool:
    """Whether no symlink leads out of the tree on the way."""
    return os.path.realpath(path.parent) == str(path.parent) and tree in path.parents


@pytest.mark.slow
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=(HealthCheck.function_scoped_fixture, HealthCheck.too_slow),
)
@given(st.lists(STEPS, min_size=1, max_size=8), st.lists(STEPS, max_size=3))
def test_random_changes_before_and_during_the_walk_are_found(
    place: Path, before: list[Operation], during: list[Operation]
) -> None:
    world = World(place)
    for step in before:
        apply(world, step)

    def meanwhile() -> None:
        for step in during:
            apply(world, step)

    world.restart(meanwhile)


def test_each_kind_of_change_is_found(place: Path) -> None:
    world, unseen = World(place), UNSEEN.get(facts.of_root(str(place))[0].fs_type, set())
    changes = {what: make for what, make in CHANGES.items() if what not in unseen}
    for what in changes:
        for name in ("a/b", "c", "e", "f"):
            (world.tree / what / name).mkdir(parents=True)
        for path in ("a/1", "a/b/2", "e/3", "f/3"):
            (world.tree / what / path).write_text(path)
        (world.tree / what / "link").symlink_to("a")
        (world.beside / what / "deep").mkdir(parents=True)
        (world.beside / what / "deep/old").write_text(what)
    world.mirror()
    for what, make in changes.items():
        make(world, world.tree / what)
    assert changes.keys() - world.differing() == set(), "each is a difference"
    world.restart()


@pytest.mark.parametrize("place", ["btrfs"], indirect=True)
def test_snapshot_in_the_place_of_a_subvolume_is_another_root(place: Path) -> None:
    roots = []
    for name in ("one", "other"):
        subprocess.run(["btrfs", "-q", "subvolume", "create", place / name], check=True)
        roots.append(facts.of_root(str(place / name))[0])
    assert roots[0].inode == roots[1].inode
    assert roots[0] != roots[1]


def test_file_without_a_close_during_the_walk_is_found(place: Path) -> None:
    world = World(place)
    world.restart(lambda: os.truncate(world.tree / NAMES[3], 0))


def test_nothing_that_has_not_changed_is_sent(place: Path) -> None:
    world = World(place)
    world.after = time.time_ns()
    world.restart()
