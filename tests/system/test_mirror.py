"""The main path: every change of a tree arrives on every node, over every transport.

One daemon with all transports and two trees serves the whole table of changes: each change has a directory
of its own, made before the daemon started in the first tree and while it ran in the second. Only those
directories are compared then, so that one change that got lost does not fail the ones after it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import trees
from support.churn import HOSTILE, Churn
from support.daemon import Daemon, MakeDaemon
from support.rsyncd import MakeRsyncd, Rsyncd
from support.sshd import Sshd
from support.wait import until

ROOT = os.geteuid() == 0
FAST = {"edelay": 0.2, "equiet": 0.02, "rretry": (0.2, 2)}


@dataclass(frozen=True)
class Mirror:
    """A running daemon, its trees, and the copies on the nodes."""

    daemon: Daemon
    trees: tuple[Path, ...]
    copies: dict[str, Path]
    """Directories by transport; the copy of a tree below has the name of the tree."""

    def pairs(self) -> list[tuple[Path, Path]]:
        return [(tree, copy / tree.name) for tree in self.trees for copy in self.copies.values()]


# Changes of a directory ----------------------------------------------------------------------------------
#
# Each function prepares the directory, yields when that is to be on the nodes, and changes it.

Change = Callable[[Path], Iterator[None]]
CHANGES: dict[str, Change] = {}


def change(function: Change) -> Change:
    CHANGES[function.__name__] = function
    return function


@change
def a_file_is_created(d: Path) -> Iterator[None]:
    yield
    (d / "file").write_text("content")


@change
def an_empty_file_is_created(d: Path) -> Iterator[None]:
    yield
    (d / "file").touch()


@change
def an_empty_file_is_created_by_opening_for_reading(d: Path) -> Iterator[None]:
    yield
    # No IN_CLOSE_WRITE ever comes.
    os.close(os.open(d / "file", os.O_CREAT | os.O_RDONLY, 0o640))


@change
def a_file_is_created_by_mknod(d: Path) -> Iterator[None]:
    yield
    os.mknod(d / "file", stat.S_IFREG | 0o600)


@change
def a_file_appears_whole_from_an_unnamed_one(d: Path) -> Iterator[None]:
    yield
    # Only its IN_CREATE has its name; IN_CLOSE_WRITE comes for a name that never existed.
    try:
        handle = os.open(d, os.O_TMPFILE | os.O_WRONLY, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
        pytest.skip("the file system has no unnamed files")
    try:
        os.write(handle, b"content")
        proc = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
        try:
            # With a descriptor given, Python uses linkat(2), which can follow this link.
            os.link(str(handle), d / "file", src_dir_fd=proc, follow_symlinks=True)
        finally:
            os.close(proc)
    finally:
        os.close(handle)


@change
def a_file_is_overwritten(d: Path) -> Iterator[None]:
    (d / "file").write_text("content")
    yield
    (d / "file").write_text("something else")


@change
def a_file_is_overwritten_with_the_same_size(d: Path) -> Iterator[None]:
    (d / "file").write_text("content")
    yield
    (d / "file").write_text("CONTENT")


@change
def a_file_is_appended_to(d: Path) -> Iterator[None]:
    (d / "file").write_text("content")
    yield
    with (d / "file").open("a") as file:
        file.write(", and more")


@change
def a_file_is_written_in_the_middle(d: Path) -> Iterator[None]:
    (d / "file").write_bytes(bytes(300_000))
    yield
    with (d / "file").open("r+b") as file:
        file.seek(150_000)
        file.write(b"x")


@change
def a_file_is_truncated_by_an_open_descriptor(d: Path) -> Iterator[None]:
    (d / "file").write_text("content")
    yield
    with (d / "file").open("r+b") as file:
        file.truncate(3)


@change
def a_file_is_truncated_by_its_name(d: Path) -> Iterator[None]:
    (d / "file").write_text("content")
    yield
    # truncate(2) opens nothing: the kernel reports IN_MODIFY and nothing else.
    os.truncate(d / "file", 3)


@change
def a_file_is_replaced_by_rename(d: Path) -> Iterator[None]:
    (d / "file").write_text("content")
    yield
    (d / "file.new").write_text("something else")
    (d / "file.new").rename(d / "file")


@change
def a_large_file_is_created(d: Path) -> Iterator[None]:
    yield
    (d / "file").write_bytes(os.urandom(3_000_000))


@change
def many_files_are_created(d: Path) -> Iterator[None]:
    yield
    for number in range(500):
        (d / f"{number}").write_text(f"{number}")


@change
def a_chain_of_directories_is_made(d: Path) -> Iterator[None]:
    yield
    (d / "a/b/c/d/e/f/g/h").mkdir(parents=True)
    (d / "a/b/c/d/e/f/g/h/file").write_text("deep")
    (d / "a/b/c/file").write_text("less deep")


@change
def a_directory_is_made_and_filled_at_once(d: Path) -> Iterator[None]:
    yield
    for number in range(20):
        (d / f"{number}/sub").mkdir(parents=True)
        (d / f"{number}/file").write_text("content")
        (d / f"{number}/sub/file").write_text("content")


@change
def a_directory_deeper_than_path_max_is_made_and_gone_again(d: Path) -> Iterator[None]:
    yield
    # rsync itself cannot send this; it must not hold anything else up either.
    build = os.open(d, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=build)
        inner = os.open("d" * 250, os.O_RDONLY | os.O_DIRECTORY, dir_fd=build)
        os.close(build)
        build = inner
    os.close(build)
    shutil.rmtree(d / ("d" * 250))
    (d / "file").write_text("content")


@change
def a_symlink_is_created(d: Path) -> Iterator[None]:
    (d / "dir").mkdir()
    yield
    (d / "to nothing").symlink_to("nothing")
    (d / "to a directory").symlink_to("dir")
    (d / "up").symlink_to("..")
    (d / "absolute").symlink_to("/nonexistent/file")


@change
def a_symlink_is_retargeted(d: Path) -> Iterator[None]:
    (d / "link").symlink_to("one")
    yield
    (d / "link.new").symlink_to("two")
    (d / "link.new").rename(d / "link")


@change
def a_symlink_to_the_outside_is_not_followed(d: Path) -> Iterator[None]:
    (outside(d) / "dir").mkdir()
    (d / "link").symlink_to(outside(d) / "dir")
    yield
    (outside(d) / "dir/file").write_text("not yours")
    (d / "second").symlink_to(outside(d) / "dir")
    (d / "file").write_text("content")


@change
def a_mode_is_changed(d: Path) -> Iterator[None]:
    (d / "file").write_text("content")
    (d / "dir").mkdir()
    (d / "dir/file").write_text("content")
    yield
    (d / "file").chmod(0o604)
    (d / "dir").chmod(0o750)


@change
def times_are_changed(d: Path) -> Iterator[None]:
    (d / "file").write_text("content")
    (d / "dir").mkdir()
    (d / "link").symlink_to("file")
    yield
    for number, name in enumerate(("file", "dir", "link")):
        when = 10**18 + 123_456_789 + number
        os.utime(d / name, ns=(when, when), follow_symlinks=False)


@change
def a_directory_gets_another_mtime_only(d: Path) -> Iterator[None]:
    (d / "dir").mkdir()
    yield
    # utimensat(2) with the access time left alone: IN_MODIFY and nothing else.
    subprocess.run(["touch", "-m", "-d", "2001-02-03 04:05:06", d / "dir"], check=True)


@change
def a_hard_link_is_made(d: Path) -> Iterator[None]:
    (d / "file").write_text("content")
    yield
    os.link(d / "file", d / "second")


@change
def a_file_is_linked_in_from_outside(d: Path) -> Iterator[None]:
    (outside(d) / "file").write_text("content")
    yield
    os.link(outside(d) / "file", d / "file")


@change
def specials_are_created(d: Path) -> Iterator[None]:
    yield
    os.mkfifo(d / "fifo", 0o620)
    os.mknod(d / "socket", stat.S_IFSOCK | 0o600)


@change
def a_file_is_removed(d: Path) -> Iterator[None]:
    (d / "file").write_text("content")
    (d / "stays").write_text("content")
    yield
    (d / "file").unlink()


@change
def specials_and_symlinks_are_removed(d: Path) -> Iterator[None]:
    os.mkfifo(d / "fifo")
    (d / "link").symlink_to("fifo")
    yield
    (d / "fifo").unlink()
    (d / "link").unlink()


@change
def an_empty_directory_is_removed(d: Path) -> Iterator[None]:
    (d / "dir").mkdir()
    yield
    (d / "dir").rmdir()


@change
def a_tree_is_removed(d: Path) -> Iterator[None]:
    plant(d / "dir")
    yield
    shutil.rmtree(d / "dir")


@change
def a_tree_is_removed_and_another_made_in_its_place(d: Path) -> Iterator[None]:
    plant(d / "dir")
    yield
    shutil.rmtree(d / "dir")
    (d / "dir/other").mkdir(parents=True)
    (d / "dir/other/file").write_text("of the other")


@change
def a_file_is_renamed(d: Path) -> Iterator[None]:
    (d / "file").write_text("content")
    (d / "dir").mkdir()
    yield
    (d / "file").rename(d / "dir/new name")


@change
def a_file_is_renamed_over_another(d: Path) -> Iterator[None]:
    (d / "one").write_text("one")
    (d / "two").write_text("two")
    yield
    (d / "one").rename(d / "two")


@change
def a_directory_is_renamed(d: Path) -> Iterator[None]:
    plant(d / "dir")
    yield
    (d / "dir").rename(d / "new name")


@change
def a_renamed_directory_is_still_watched(d: Path) -> Iterator[None]:
    plant(d / "dir")
    (d / "to").mkdir()
    yield
    (d / "dir").rename(d / "to/moved")
    (d / "to/moved/late").write_text("content")
    (d / "to/moved/a/late").write_text("content")
    (d / "to").rename(d / "again")
    (d / "again/moved/a/later").write_text("content")
    shutil.rmtree(d / "again/moved/b")


@change
def a_directory_is_renamed_and_its_name_reused(d: Path) -> Iterator[None]:
    plant(d / "dir")
    yield
    (d / "dir").rename(d / "old")
    (d / "dir/a").mkdir(parents=True)
    (d / "dir/a/file").write_text("of the new one")
    (d / "old/a/file").write_text("of the old one")


@change
def a_directory_is_renamed_over_an_empty_one(d: Path) -> Iterator[None]:
    plant(d / "dir")
    (d / "empty").mkdir()
    yield
    (d / "dir").rename(d / "empty")
    (d / "empty/a/late").write_text("content")


@change
def two_directories_change_places(d: Path) -> Iterator[None]:
    plant(d / "one")
    plant(d / "two")
    (d / "two/a/file").write_text("of the second")
    yield
    (d / "one").rename(d / "spare")
    (d / "two").rename(d / "one")
    (d / "spare").rename(d / "two")


@change
def a_directory_goes_into_its_sibling(d: Path) -> Iterator[None]:
    plant(d / "one")
    plant(d / "two")
    yield
    (d / "one").rename(d / "two/a/one")
    (d / "two/a/one/b/late").write_text("content")


@change
def a_tree_moves_out(d: Path) -> Iterator[None]:
    plant(d / "dir")
    yield
    (d / "dir").rename(outside(d) / "dir")
    (outside(d) / "dir/a/late").write_text("nobody's business")


@change
def a_tree_moves_in(d: Path) -> Iterator[None]:
    plant(outside(d) / "dir")
    yield
    (outside(d) / "dir").rename(d / "dir")
    (d / "dir/a/late").write_text("content")


@change
def a_tree_moves_out_changes_and_comes_back(d: Path) -> Iterator[None]:
    plant(d / "dir")
    yield
    (d / "dir").rename(outside(d) / "dir")
    shutil.rmtree(outside(d) / "dir/a")
    (outside(d) / "dir/b/made outside").write_text("content")
    (outside(d) / "dir").rename(d / "dir")
    (d / "dir/b/late").write_text("content")


@change
def a_file_becomes_a_directory(d: Path) -> Iterator[None]:
    (d / "name").write_text("content")
    yield
    (d / "name").unlink()
    plant(d / "name")


@change
def a_directory_becomes_a_file(d: Path) -> Iterator[None]:
    plant(d / "name")
    yield
    shutil.rmtree(d / "name")
    (d / "name").write_text("content")


@change
def a_file_becomes_a_symlink(d: Path) -> Iterator[None]:
    (d / "name").write_text("content")
    yield
    (d / "name").unlink()
    (d / "name").symlink_to("nothing")


@change
def a_symlink_becomes_a_file(d: Path) -> Iterator[None]:
    (d / "other").write_text("content")
    (d / "name").symlink_to("other")
    yield
    (d / "name").unlink()
    (d / "name").write_text("not the other's")


@change
def a_directory_becomes_a_symlink(d: Path) -> Iterator[None]:
    plant(d / "name")
    plant(d / "other")
    yield
    (d / "name/late").write_text("not to be written to the other")
    shutil.rmtree(d / "name")
    (d / "name").symlink_to("other")


@change
def a_symlink_becomes_a_directory(d: Path) -> Iterator[None]:
    plant(d / "other")
    (d / "name").symlink_to("other")
    yield
    (d / "name").unlink()
    (d / "name").mkdir()
    (d / "name/file").write_text("not the other's")


@change
def a_name_goes_through_all_types(d: Path) -> Iterator[None]:
    (d / "name").write_text("content")
    yield
    for _ in range(10):
        (d / "name").unlink()
        plant(d / "name")
        shutil.rmtree(d / "name")
        (d / "name").symlink_to("nothing")
        (d / "name").unlink()
        os.mkfifo(d / "name")
        (d / "name").unlink()
        (d / "name").write_text("the last")


@change
def hostile_names_are_created(d: Path) -> Iterator[None]:
    yield
    for name in hostile(d):
        name.write_text("content")


@change
def hostile_names_are_directories(d: Path) -> Iterator[None]:
    yield
    for name in hostile(d):
        name.mkdir()
        for inner in hostile(name):
            inner.write_text("content")


@change
def hostile_names_are_changed(d: Path) -> Iterator[None]:
    for name in hostile(d):
        name.write_text("content")
    yield
    for name in hostile(d):
        name.write_text("something else")


@change
def hostile_names_are_removed(d: Path) -> Iterator[None]:
    for name in hostile(d):
        plant(name)
    yield
    for name in hostile(d):
        shutil.rmtree(name)


@change
def hostile_names_are_renamed_among_themselves(d: Path) -> Iterator[None]:
    for name in hostile(d):
        plant(name)
    yield
    names = list(hostile(d))
    names[0].rename(d / "spare")
    for name, previous in zip(names[1:], names, strict=False):
        name.rename(previous)
    (d / "spare").rename(names[-1])
    for name in names:
        (name / "a/late").write_text("content")


if ROOT:

    @change
    def an_owner_is_changed(d: Path) -> Iterator[None]:
        (d / "file").write_text("content")
        (d / "dir").mkdir()
        (d / "link").symlink_to("file")
        yield
        for number, name in enumerate(("file", "dir", "link"), 1):
            os.chown(d / name, number, number + 1, follow_symlinks=False)

    @change
    def a_mode_that_only_root_can_read_through_is_set(d: Path) -> Iterator[None]:
        (d / "file").write_text("content")
        (d / "dir").mkdir()
        yield
        (d / "file").chmod(0o000)
        (d / "dir").chmod(0o000)
        (d / "dir/late").write_text("content")
        (d / "suid").write_text("content")
        (d / "suid").chmod(0o6755)


def outside(d: Path) -> Path:
    """Return the directory of a change that is in the same file system and not mirrored."""
    return d.parents[1] / "out" / d.parent.name / d.name


def plant(root: Path) -> None:
    """Make a small tree: directories a, a/sub and b, with a file in each."""
    for name in ("a/sub", "b"):
        (root / name).mkdir(parents=True)
    for name in ("file", "a/file", "a/sub/file", "b/file"):
        (root / name).write_text(f"{name} of {root.name!r}")


def hostile(d: Path) -> Iterator[Path]:
    return (d / os.fsdecode(name) for name in HOSTILE)


# One daemon for the whole table --------------------------------------------------------------------------


def start(
    home: Path, sshd: Sshd | None, rsyncd: Rsyncd, trees_: tuple[Path, ...], config: dict[str, object]
) -> Mirror:
    """Start a daemon for these trees with a node on each transport; ``rsyncd`` serves ``home/nodes``."""
    nodes = home / "nodes"
    places = {
        "local": f"{nodes}/local/",
        "daemon, as a URL": rsyncd.url("nodes", "url/"),
        "daemon, with two colons": rsyncd.colons("nodes", "colons/"),
    }
    copies = {
        "local": nodes / "local",
        "daemon, as a URL": nodes / "url",
        "daemon, with two colons": nodes / "colons",
    }
    if sshd is not None:
        places["ssh"] = sshd.node("a", f"{nodes}/ssh/")
        copies["ssh"] = nodes / "ssh"
    for copy in copies.values():
        copy.mkdir(parents=True)
    settings: dict[str, object] = {
        "wpaths": [str(tree) for tree in trees_],
        "rpaths": [tree.name for tree in trees_],
        "rnodes": list(places.values()),
        "extra": [rsyncd.port_option],
        **FAST,
        **config,
    }
    daemon = Daemon(home / "inosync", settings, ("-v",), sshd.env() if sshd is not None else {})
    return Mirror(daemon, trees_, copies)


@pytest.fixture(scope="module")
def ssh_if_possible(request: pytest.FixtureRequest) -> Sshd | None:
    """The session's sshd, or None where an ordinary user cannot run one; then the rest is still tested."""
    try:
        sshd: Sshd = request.getfixturevalue("shared_sshd")
    except pytest.skip.Exception:
        return None
    return sshd


@pytest.fixture(scope="module")
def table(
    tmp_path_factory: pytest.TempPathFactory, ssh_if_possible: Sshd | None
) -> Iterator[Callable[[str], tuple[Mirror, list[Iterator[None]]]]]:
    """Return a change by its name, prepared in both trees, level on all nodes, and ready to be made."""
    home = tmp_path_factory.mktemp("mirror")
    early, late = home / "early", home / "late"
    for directory in (early, late):
        directory.mkdir()
    rsyncd = Rsyncd(home / "rsyncd", {"nodes": home / "nodes"})
    rsyncd.start()
    mirror = start(home, ssh_if_possible, rsyncd, (early, late), {})
    pending: dict[str, list[Iterator[None]]] = {name: [] for name in CHANGES}

    def prepare(tree: Path) -> None:
        for name, make in CHANGES.items():
            (tree / name).mkdir()
            outside(tree / name).mkdir(parents=True)
            waiting = make(tree / name)
            next(waiting)
            pending[name].append(waiting)

    try:
        prepare(early)
        mirror.daemon.start()
        mirror.daemon.until_level(mirror.pairs(), 90)
        prepare(late)
        mirror.daemon.until_level(mirror.pairs(), 90)
        yield lambda name: (mirror, pending[name])
        mirror.daemon.close()
    finally:
        with contextlib.suppress(AssertionError):
            mirror.daemon.close()
        rsyncd.kill()


@pytest.mark.parametrize("name", CHANGES)
def test_change_arrives_when(name: str, table: Callable[[str], tuple[Mirror, list[Iterator[None]]]]) -> None:
    mirror, pending = table(name)
    for waiting in pending:
        assert next(waiting, "made") == "made"
    own = os.fsencode(name)
    mirror.daemon.until_level(mirror.pairs(), 60, ignore=lambda path: path.split(b"/")[0] != own)


def test_change_in_the_root_of_a_tree_arrives(
    table: Callable[[str], tuple[Mirror, list[Iterator[None]]]],
) -> None:
    mirror, _ = table(next(iter(CHANGES)))
    tree = mirror.trees[1]
    copies = [copy for source, copy in mirror.pairs() if source == tree]

    def level() -> None:
        mirror.daemon.until_level(
            [(tree, copy) for copy in copies], 60, ignore=lambda p: p.split(b"/")[0] in known
        )

    known = {os.fsencode(name) for name in CHANGES}
    (tree / "file").write_text("content")
    (tree / "#").mkdir()
    level()
    (tree / "file").rename(tree / ";")
    (tree / "#").rmdir()
    level()
    (tree / ";").unlink()
    level()
    tree.chmod(0o751)
    os.utime(tree, ns=(10**18, 10**18))
    until(
        lambda: all((s.st_mode & 0o7777, s.st_mtime_ns) == (0o751, 10**18) for s in map(os.stat, copies)),
        60,
        "the mode and the time of the root",
    )


@pytest.mark.skipif(not ROOT, reason="only root makes devices")
def test_device_arrives(table: Callable[[str], tuple[Mirror, list[Iterator[None]]]]) -> None:
    mirror, _ = table(next(iter(CHANGES)))
    device = mirror.trees[0] / "device"
    try:
        os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("this machine gives its root no devices")
    mirror.daemon.until_level(mirror.pairs(), 60, ignore=lambda path: path != b"device")


def test_file_being_written_arrives_when_it_is_closed(
    table: Callable[[str], tuple[Mirror, list[Iterator[None]]]],
) -> None:
    mirror, _ = table(next(iter(CHANGES)))
    with (mirror.trees[0] / "slow").open("w") as file:
        file.write("first half, ")
        file.flush()
        # Another file arrives meanwhile, so the first half could have been sent.
        (mirror.trees[0] / "quick").write_text("content")
        mirror.daemon.until_level(mirror.pairs(), 60, ignore=lambda path: path != b"quick", states=STATES)
        file.write("second half")
    mirror.daemon.until_level(mirror.pairs(), 60, ignore=lambda path: path not in (b"slow", b"quick"))


STATES = ("ok", "syncing")


# Random changes ------------------------------------------------------------------------------------------


@pytest.fixture
def three_nodes(
    tmp_path: Path, ssh_if_possible: Sshd | None, rsyncd: MakeRsyncd, daemon: MakeDaemon
) -> Callable[[dict[str, object]], Mirror]:
    """Make a mirror of one tree on three nodes (daemon, ssh, local), to be started by the test.

    Where no ssh is possible, a second daemon takes its place.
    """

    def make(config: dict[str, object]) -> Mirror:
        nodes = tmp_path / "nodes"
        copies = {name: nodes / name for name in ("daemon", "ssh", "local")}
        tree = tmp_path / "tree"
        ssh = ssh_if_possible
        for directory in (tree, *copies.values()):
            directory.mkdir(parents=True)
        server = rsyncd({"www": copies["daemon"], "second": copies["ssh"]})
        second = ssh.node("a", f"{copies['ssh']}/") if ssh is not None else server.url("second")
        settings: dict[str, object] = {
            "wpaths": [str(tree)],
            "rpaths": ["tree"],
            "rnodes": [server.url("www"), second, f"{copies['local']}/"],
            **FAST,
            **config,
        }
        return Mirror(daemon(settings, ("-v",), ssh.env() if ssh is not None else {}), (tree,), copies)

    return make


def level(mirror: Mirror, churn: Churn) -> None:
    try:
        mirror.daemon.until_level(mirror.pairs(), 90)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{churn.tail(150)}") from None


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("number", range(2))
def test_hostile_churn_ends_level_on_three_nodes(
    tmp_path: Path, seed: int, number: int, three_nodes: Callable[[dict[str, object]], Mirror]
) -> None:
    mirror = three_nodes({})
    outside = tmp_path / "outside"
    outside.mkdir()
    churn = Churn(os.fsencode(mirror.trees[0]), seed + number, os.fsencode(outside))
    churn.run(200)
    # The tree changes during the first full mirror and while its watches are set.
    mirror.daemon.start(ready=False)
    churn.run(300, seconds=2)
    level(mirror, churn)
    for seconds in (0, 1, 2):
        churn.run(300, seconds)
        level(mirror, churn)


@pytest.mark.timeout(300)
def test_random_operations_before_and_after_the_start_arrive(
    seed: int, three_nodes: Callable[[dict[str, object]], Mirror]
) -> None:
    """lsyncd's own scenario: its tests/churn-*.lua."""
    mirror = three_nodes({"edelay": 5, "equiet": 0.05})
    churn = Churn(os.fsencode(mirror.trees[0]), seed)
    churn.run(100)
    mirror.daemon.start()
    churn.run(500)
    level(mirror, churn)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_copies_of_a_directory_made_at_once_arrive(
    tmp_path: Path, three_nodes: Callable[[dict[str, object]], Mirror]
) -> None:
    """lsyncd's own scenario: cp -r, and what was copied touched right after it."""
    mirror = three_nodes({})
    tree = mirror.trees[0]
    original = tmp_path / "original"
    for number in range(12):
        plant(original / f"{number}/with some/depth")
        for more in range(20):
            (original / f"{number}/{more}").write_text(f"{more}" * more)
    plant(tree / "seed")
    mirror.daemon.start()
    mirror.daemon.until_level(mirror.pairs())

    def copy(source: Path) -> None:
        commands = [["cp", "-r", str(source), str(tree / f"{source.name} {n}")] for n in range(5)]
        running = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for command in commands]
        assert [process.wait(60) for process in running] == [0] * 5

    copy(original)
    for number in range(5):
        (tree / f"original {number}/3/another").write_text("touched")
    copy(tree / "seed")
    mirror.daemon.until_level(mirror.pairs())
    # Copy again from what has just arrived, without a pause.
    copy(tree / "original 4")
    shutil.rmtree(tree / "original 2")
    mirror.daemon.until_level(mirror.pairs())


@pytest.mark.timeout(300)
def test_tree_with_excluded_names_is_emptied_and_refilled(
    three_nodes: Callable[[dict[str, object]], Mirror],
) -> None:
    """lsyncd's own scenario, and a little more: its tests/exclude-*.lua."""
    mirror = three_nodes(
        {"rexcludes": ["erf", "/eaf", "erd/", "/ead/", "*.tmp", "/deep/**/cache"], "rguard": False}
    )
    tree = mirror.trees[0]
    sent = [
        *("erd", "ead", "d", "d/eaf", "d/erd", "d/ead", "deep", "deep/cache", "deep/cache/file"),
        *(
            "deep/a",
            "deep/a/b",
            "deep/a/b/file",
            "dirs",
            "dirs/eaf",
            "dirs/eaf/file",
            "dirs/ead",
            "dirs/ead/file",
        ),
    ]
    kept_back = ["erf", "eaf", "d/erf", "x.tmp", "d/x.tmp", "deep/a/cache/file", "deep/a/b/cache/file"]
    kept_back += ["dirs/erf/file", "dirs/erd/file", "dirs/erd/sub/file"]

    files = [name for name in sent if not any(other.startswith(f"{name}/") for other in sent)]

    def fill() -> None:
        # Excluded names first: they change the time of their directory without a change to mirror.
        for name in kept_back + files:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(name)

    expected = {os.fsencode(name) for name in sent}

    def arrived(names: set[bytes]) -> None:
        mirror.daemon.until_level(mirror.pairs(), ignore=lambda path: path not in expected)
        for _, copy in mirror.pairs():
            assert set(trees.snapshot(copy)) == names

    fill()
    mirror.daemon.start()
    arrived(expected)
    for entry in list(tree.iterdir()):
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    arrived(set())
    fill()
    arrived(expected)
    # Excluded names on a node belong to it: they stay when names beside them are changed and deleted.
    for _, copy in mirror.pairs():
        (copy / "d/x.tmp").write_text("the node's own")
    (tree / "d/new").write_text("content")
    (tree / "d/erd").unlink()
    expected ^= {b"d/new", b"d/erd"}
    mirror.daemon.until_level(mirror.pairs(), ignore=lambda path: path not in expected and path != b"d/erd")
    for _, copy in mirror.pairs():
        assert (copy / "d/x.tmp").read_text() == "the node's own"


# Starting and ending -------------------------------------------------------------------------------------


def test_start_makes_a_different_node_level(
    three_nodes: Callable[[dict[str, object]], Mirror],
) -> None:
    mirror = three_nodes({})
    plant(mirror.trees[0] / "dir")
    for _, copy in mirror.pairs():
        plant(copy / "dir/a/too much")
        (copy / "dir/b").mkdir()
        (copy / "dir/b/file").write_text("other")
        (copy / "a file").write_text("too much")
    mirror.daemon.start()
    mirror.daemon.until_level(mirror.pairs())


def test_sigterm_ends_the_daemon_at_once_with_exit_code_0(
    three_nodes: Callable[[dict[str, object]], Mirror],
) -> None:
    mirror = three_nodes({})
    plant(mirror.trees[0] / "dir")
    mirror.daemon.start()
    mirror.daemon.until_level(mirror.pairs())
    assert len(mirror.daemon.workers()) == 3
    assert mirror.daemon.stop() == 0
    until(lambda: not mirror.daemon.descendants(), 30, "all of its processes to end")


def test_second_start_finds_what_changed_in_between(
    three_nodes: Callable[[dict[str, object]], Mirror],
) -> None:
    mirror = three_nodes({})
    plant(mirror.trees[0] / "dir")
    mirror.daemon.start()
    mirror.daemon.until_level(mirror.pairs())
    assert mirror.daemon.stop() == 0
    shutil.rmtree(mirror.trees[0] / "dir/a")
    (mirror.trees[0] / "dir/b/new").write_text("content")
    mirror.daemon.start()
    mirror.daemon.until_level(mirror.pairs())
