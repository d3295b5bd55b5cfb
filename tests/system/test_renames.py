"""Renames are followed on the nodes: what they have under another name is not sent again.

One daemon serves the whole table, with nodes of all kinds. Each rename has a directory of its own.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import trees
from support.daemon import Daemon, FakeRsync, MakeDaemon
from support.real_rsync import IS_NEWEST, needs_newest
from support.rsyncd import MakeRsyncd, Rsyncd
from support.sshd import Sshd
from support.wait import until

from inosync.changes import WORTHWHILE_BYTES

FAST: dict[str, object] = {"edelay": 0.3, "equiet": 0.05, "rretry": (0.1, 0.5)}
MEGABYTE = 1 << 20
FILES, FILE_BYTES = 9, MEGABYTE // 3
NEARLY_NOTHING = 45_000
"""Bytes for 3 MB or more that are renamed: names and attributes, or the checksums of blocks."""
NOBODY = "65534"
rand = random.Random(7)


@dataclass(frozen=True)
class Farm:
    """A running daemon, its tree, and the copies on the nodes, by name."""

    daemon: Daemon
    tree: Path
    copies: dict[str, Path]

    def until_level(self, timeout: float = 90, below: str = "") -> None:
        pairs = [(self.tree / below, copy / below) for copy in self.copies.values()]
        self.daemon.until_level(pairs, timeout, ignore=lambda path: path.endswith(b".skip"))

    def counts(self, what: str) -> dict[str, Any]:
        nodes = self.daemon.ask("status")["nodes"]
        return {node["name"]: node[what] for node in nodes}

    def linked(self, below: str = "") -> list[Path]:
        """Files on nodes that have more than one name."""
        return [
            path
            for copy in self.copies.values()
            for path in (copy / below).rglob("*")
            if stat.S_ISREG((status := path.lstat()).st_mode) and status.st_nlink > 1
        ]


def fill(directory: Path, files: int = FILES, size: int = FILE_BYTES) -> None:
    """Make files at two depths."""
    (directory / "sub" / "deep").mkdir(parents=True)
    for number in range(files):
        place = directory / ("", "sub", "sub/deep")[number % 3]
        (place / f"file{number}").write_bytes(rand.randbytes(size))
    (directory / "link").symlink_to("file0")
    (directory / "sub").chmod(0o750)


# Renames -------------------------------------------------------------------------------------------------
#
# Each function prepares the directory, yields when that is to be on the nodes, and renames things.

Case = Callable[[Path], Iterator[None]]
FREE: dict[str, Case] = {}
"""Renames of which nearly nothing is sent."""
LEVEL: dict[str, Case] = {}
"""Renames of which it only matters that the nodes are level."""


def free(function: Case) -> Case:
    FREE[function.__name__] = function
    return function


def level(function: Case) -> Case:
    LEVEL[function.__name__] = function
    return function


@free
def a_directory_gets_another_name(d: Path) -> Iterator[None]:
    fill(d / "a")
    yield
    (d / "a").rename(d / "b")


@free
def a_directory_moves_into_another_one(d: Path) -> Iterator[None]:
    fill(d / "a")
    (d / "other/deep").mkdir(parents=True)
    yield
    (d / "a").rename(d / "other/deep/b")


@free
def a_directory_moves_into_a_new_one(d: Path) -> Iterator[None]:
    fill(d / "a")
    yield
    (d / "new/deep").mkdir(parents=True, mode=0o700)
    (d / "a").rename(d / "new/deep/b")


@free
def a_directory_moves_up(d: Path) -> Iterator[None]:
    fill(d / "x/y/a")
    yield
    (d / "x/y/a").rename(d / "a")


@free
def things_change_in_a_directory_that_is_renamed(d: Path) -> Iterator[None]:
    fill(d / "a")
    yield
    (d / "a/file0").write_text("changed before")
    (d / "a/sub/new").write_text("new before")
    (d / "a/.file3.Xyz123").write_text("a temporary file")
    (d / "a").rename(d / "b")
    (d / "b/sub/file1").write_text("changed after")
    (d / "b/sub/later").write_text("new after")
    (d / "b/sub/deep/file2").unlink()
    (d / "b/file3").chmod(0o600)


@free
def a_renamed_directory_is_renamed(d: Path) -> Iterator[None]:
    fill(d / "a")
    yield
    (d / "a").rename(d / "b")
    (d / "b").rename(d / "c")


@free
def a_directory_leaves_one_that_is_renamed(d: Path) -> Iterator[None]:
    fill(d / "a")
    yield
    (d / "a").rename(d / "b")
    (d / "b/sub").rename(d / "c")


@free
def a_directory_enters_one_that_is_renamed(d: Path) -> Iterator[None]:
    fill(d / "a")
    fill(d / "b")
    yield
    (d / "a").rename(d / "b/x")
    (d / "b").rename(d / "c")


@free
def a_web_site_is_deployed(d: Path) -> Iterator[None]:
    fill(d / "site")
    fill(d / "site.new")
    shutil.copy2(d / "site/file0", d / "site.new/file0")
    yield
    (d / "site").rename(d / "site.old")
    (d / "site.new").rename(d / "site")


@free
def a_symlink_gives_way_to_a_directory(d: Path) -> Iterator[None]:
    fill(d / "a")
    fill(d / "target", 3)
    (d / "b").symlink_to("target")
    yield
    (d / "b").unlink()
    (d / "a").rename(d / "b")


@free
def a_file_gives_way_to_a_directory(d: Path) -> Iterator[None]:
    fill(d / "a")
    (d / "b").write_text("a file")
    yield
    (d / "b").unlink()
    (d / "a").rename(d / "b")


@free
def a_directory_replaces_an_empty_one(d: Path) -> Iterator[None]:
    fill(d / "a")
    (d / "b").mkdir()
    yield
    (d / "a").rename(d / "b")


@free
def a_file_gets_another_name(d: Path) -> Iterator[None]:
    (d / "a").write_bytes(rand.randbytes(3 * MEGABYTE))
    yield
    (d / "a").rename(d / "b")


@free
def a_file_moves_into_another_directory(d: Path) -> Iterator[None]:
    (d / "x").mkdir()
    (d / "x/a").write_bytes(rand.randbytes(3 * MEGABYTE))
    (d / "y").mkdir()
    yield
    (d / "x/a").rename(d / "y/a")


@free
def a_file_moves_into_a_new_directory(d: Path) -> Iterator[None]:
    (d / "a").write_bytes(rand.randbytes(3 * MEGABYTE))
    yield
    (d / "y/z").mkdir(parents=True)
    time.sleep(0.02)  # a file that moves into a directory before this is watched is not known to be the same
    (d / "a").rename(d / "y/z/a")


@free
def the_name_of_a_file_is_taken_again(d: Path) -> Iterator[None]:
    (d / "a").write_bytes(rand.randbytes(3 * MEGABYTE))
    yield
    (d / "a").rename(d / "b")
    (d / "a").write_text("another one")


@free
def the_name_of_a_directory_is_taken_again(d: Path) -> Iterator[None]:
    fill(d / "a")
    yield
    (d / "a").rename(d / "b")
    (d / "a/sub").mkdir(parents=True)
    (d / "a/sub/file1").write_text("another one")


def alike(*paths: Path, size: int = 7) -> None:
    """Write files of the same size and time, and of different contents."""
    at = time.time_ns()
    for path in paths:
        path.write_bytes(rand.randbytes(size))
        os.utime(path, ns=(at, at))


@level
def files_of_one_size_and_time_change_places(d: Path) -> Iterator[None]:
    alike(d / "a", d / "b")
    yield
    (d / "a").rename(d / "t")
    (d / "b").rename(d / "a")
    (d / "t").rename(d / "b")


@level
def a_file_replaces_one_of_the_same_size_and_time(d: Path) -> Iterator[None]:
    alike(d / "a", d / "b")
    yield
    (d / "b").rename(d / "a")


@level
def large_files_of_one_size_and_time_change_places(d: Path) -> Iterator[None]:
    (d / "other").mkdir()
    alike(d / "a", d / "other/b", size=MEGABYTE)
    yield
    (d / "a").rename(d / "t")
    (d / "other/b").rename(d / "a")
    (d / "t").rename(d / "other/b")


@level
def a_new_file_replaces_one_of_the_same_size_and_time(d: Path) -> Iterator[None]:
    alike(d / "a")
    yield
    fresh = d / ".a.swp"
    status = (d / "a").stat()
    fresh.write_bytes(rand.randbytes(7))
    os.utime(fresh, ns=(status.st_atime_ns, status.st_mtime_ns))
    fresh.rename(d / "a")


@level
def a_copy_takes_the_name_of_a_directory(d: Path) -> Iterator[None]:
    fill(d / "a", 2)
    fill(d / "big", 9)
    yield
    (d / "big").rename(d / "kept")
    shutil.copytree(d / "a", d / "big")


@free
def a_directory_has_an_odd_name(d: Path) -> Iterator[None]:
    fill(d / "a-b+c=d,e@f%g:h.i ä".replace(" ", "_"))
    yield
    (d / "a-b+c=d,e@f%g:h.i_ä").rename(d / "-x#;ü".replace("#;", ""))


@level
def two_directories_swap_their_names(d: Path) -> Iterator[None]:
    fill(d / "a", 4)
    fill(d / "b", 4)
    yield
    (d / "a").rename(d / "t")
    (d / "b").rename(d / "a")
    (d / "t").rename(d / "b")


@level
def a_copy_with_the_same_times_takes_the_name(d: Path) -> Iterator[None]:
    fill(d / "a", 4)
    yield
    (d / "a").rename(d / "b")
    shutil.copytree(d / "b", d / "a", symlinks=True)
    (d / "a/file0").chmod(0o600)


@level
def three_files_rotate(d: Path) -> Iterator[None]:
    for name in ("log", "log.1", "log.2"):
        (d / name).write_bytes(rand.randbytes(MEGABYTE))
    yield
    (d / "log.2").rename(d / "log.3")
    (d / "log.1").rename(d / "log.2")
    (d / "log").rename(d / "log.1")
    (d / "log").write_text("new")


@level
def a_file_replaces_another_one(d: Path) -> Iterator[None]:
    for name in "ab":
        (d / name).write_bytes(rand.randbytes(MEGABYTE))
    yield
    (d / "a").rename(d / "b")


@level
def a_directory_gets_an_excluded_name(d: Path) -> Iterator[None]:
    fill(d / "a", 4)
    yield
    (d / "a").rename(d / "a.skip")


@level
def an_excluded_directory_gets_another_name(d: Path) -> Iterator[None]:
    fill(d / "a.skip", 4)
    yield
    (d / "a.skip").rename(d / "a")


@level
def a_file_moves_and_gets_another_name(d: Path) -> Iterator[None]:
    (d / "x").mkdir()
    (d / "x/a").write_bytes(rand.randbytes(MEGABYTE))
    (d / "y").mkdir()
    yield
    (d / "x/a").rename(d / "y/b")


@level
def a_directory_with_wild_names_is_renamed(d: Path) -> Iterator[None]:
    for number, name in enumerate(
        ("a b", "st*r", "wh?t", "[x]", "$(touch oops)", "line\nend", "back\\slash")
    ):
        fill(d / f"before {number}" / name, 1)
        fill(d / name, 1)
    yield
    for number, name in enumerate(
        ("a b", "st*r", "wh?t", "[x]", "$(touch oops)", "line\nend", "back\\slash")
    ):
        (d / f"before {number}" / name).rename(d / f"{name} again")
        (d / name).rename(d / f"plain{number}")


@level
def a_directory_is_renamed_and_removed(d: Path) -> Iterator[None]:
    fill(d / "a", 4)
    yield
    (d / "a").rename(d / "b")
    shutil.rmtree(d / "b")


@level
def a_directory_comes_back(d: Path) -> Iterator[None]:
    fill(d / "a", 4)
    yield
    (d / "a").rename(d / "b")
    (d / "b").rename(d / "a")


CASES = FREE | LEVEL


def make_farm(home: Path, sshd: Sshd, own_sshd: Sshd, **settings: object) -> tuple[Farm, Rsyncd]:
    tree = home / "tree"
    tree.mkdir()
    names = ("local", "chroot", "module", "plain", "ssh", "restricted", "ruled")
    copies = {name: home / "nodes" / name / "tree" for name in names}
    for copy in copies.values():
        copy.parent.mkdir(parents=True)
    server = Rsyncd(home / "rsyncd", {name: home / "nodes" / name for name in ("chroot", "module", "ruled")})
    config = server.config.read_text()
    plain = f"[plain]\npath = {home}/nodes/plain\nuse chroot = no\nmunge symlinks = no\n"
    nodes = f"[nodes]\npath = {home}/nodes\n"
    server.config.write_text(config + plain + nodes)
    server.start()
    rrsync = shutil.which("rrsync")
    key = " ".join((own_sshd.home / "user_key.pub").read_text().split()[:2])
    (own_sshd.home / "authorized_keys").write_text(
        f'restrict,command="{rrsync} -wo {home}/nodes/restricted" {key}\n'
    )
    rnodes: list[dict[str, Any]] = [
        {"name": "local", "node": f"{home}/nodes/local/"},
        {"name": "chroot", "node": server.url("chroot")},
        {"name": "module", "node": server.colons("nodes", "module/"), "extra": [server.port_option]},
        {"name": "plain", "node": server.url("plain")},
        {"name": "ssh", "node": sshd.node("a", f"{home}/nodes/ssh/"), "extra": [f"--rsh={sshd.rsh}"]},
        {"name": "restricted", "node": own_sshd.node("b"), "extra": [f"--rsh={own_sshd.rsh}"]},
        # Rules that say something else below another root: all of these match something of each case.
        {
            "name": "ruled",
            "node": server.url("ruled"),
            "rexcludes": ["/*/a/sub/nothing", "b/sub/none", "/none/**"],
        },
    ]
    config_ = {
        "wpaths": [f"{tree}/"],
        "rpaths": ["tree"],
        "rnodes": rnodes,
        "rexcludes": ["*.skip"],
        **FAST,
        **settings,
    }
    return Farm(Daemon(home / "inosync", config_, ("-v",)), tree, copies), server


@pytest.fixture(scope="module")
def farm(
    tmp_path_factory: pytest.TempPathFactory, shared_sshd: Sshd
) -> Iterator[tuple[Farm, dict[str, Iterator[None]]]]:
    """A farm on which all cases are prepared, and level."""
    if shutil.which("rrsync") is None:
        pytest.skip("rrsync is not installed")
    home = tmp_path_factory.mktemp("renames")
    own_sshd = Sshd(home / "sshd")
    own_sshd.start()
    made, server = make_farm(home, shared_sshd, own_sshd)
    pending = {}
    try:
        for name, case in CASES.items():
            (made.tree / name).mkdir()
            pending[name] = case(made.tree / name)
            next(pending[name])
        made.daemon.start()
        made.until_level()
        yield made, pending
        made.until_level()
        assert made.linked() == []
        made.daemon.close()
    finally:
        with contextlib.suppress(AssertionError):
            made.daemon.close()
        server.kill()
        own_sshd.kill()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_nodes_are_level_after(name: str, farm: tuple[Farm, dict[str, Iterator[None]]]) -> None:
    made, pending = farm
    before, saved = made.counts("bytes"), made.counts("renamed_bytes")
    assert next(pending[name], "renamed") == "renamed"
    made.until_level(below=name)
    assert made.linked(name) == []
    if name in FREE and IS_NEWEST:
        sent = {node: count - before[node] for node, count in made.counts("bytes").items()}
        spared = {node: count - saved[node] for node, count in made.counts("renamed_bytes").items()}
        assert max(sent.values()) < NEARLY_NOTHING, (sent, spared)
        assert min(spared.values()) > MEGABYTE, (sent, spared)
    assert not list(made.tree.parent.rglob("oops"))


# Nodes in other states -----------------------------------------------------------------------------------

MakeSmall = Callable[..., tuple[Farm, Rsyncd]]


@pytest.fixture
def small(tmp_path: Path, daemon: MakeDaemon, rsyncd: MakeRsyncd) -> MakeSmall:
    """Make a farm with the nodes ``local`` and ``module``, started and level, in which ``a`` is a directory.

    ``fake``: stands in for rsync; ``options``: of the rsync daemon; the rest are settings.
    """

    def make(
        options: dict[str, str] | None = None, fake: FakeRsync | None = None, **settings: object
    ) -> tuple[Farm, Rsyncd]:
        tree = tmp_path / "tree"
        copies = {name: tmp_path / "nodes" / name / "tree" for name in ("local", "module")}
        for directory in (tree, *(copy.parent for copy in copies.values())):
            directory.mkdir(parents=True)
        if options and "uid" in options:
            os.chown(tmp_path / "nodes/module", int(options["uid"]), int(options["gid"]))
        server = rsyncd({"module": tmp_path / "nodes/module"}, options=options)
        config = {
            "wpaths": [f"{tree}/"],
            "rpaths": ["tree"],
            "rnodes": [
                {"name": "local", "node": f"{tmp_path}/nodes/local/"},
                {"name": "module", "node": server.url("module")},
            ],
            **FAST,
            **({"rsync": str(fake.path)} if fake else {}),
            **settings,
        }
        fill(tree / "a")
        if options and "uid" in options:
            for path in (tree, *tree.rglob("*")):
                os.chown(path, int(options["uid"]), int(options["gid"]), follow_symlinks=False)
        farm = Farm(daemon(config, ("-v",)), tree, copies)
        farm.daemon.start()
        farm.until_level()
        return farm, server

    return make


def until_renamed(farm: Farm, before: dict[str, int], *nodes: str) -> None:
    """Wait until all is level, and check that nearly nothing was sent to these nodes, by default to all."""
    farm.until_level()
    assert farm.linked() == []
    now, saved = farm.counts("bytes"), farm.counts("renamed_bytes")
    for node in nodes or farm.copies:
        assert now[node] - before[node] < NEARLY_NOTHING or not IS_NEWEST, farm.daemon.log_tail()
        assert saved[node] > MEGABYTE


@needs_newest
def test_rename_of_sixty_megabytes_sends_nearly_nothing(small: MakeSmall) -> None:
    farm, _ = small()
    fill(farm.tree / "large", 60, MEGABYTE)
    (farm.tree / "file").write_bytes(rand.randbytes(60 * MEGABYTE))
    farm.until_level()
    before = farm.counts("bytes")
    (farm.tree / "large").rename(farm.tree / "a/larger")
    (farm.tree / "file").rename(farm.tree / "a/filed")
    farm.until_level()
    now = farm.counts("bytes")
    assert max(now[node] - before[node] for node in now) < 300_000
    assert min(farm.counts("renamed_bytes").values()) == pytest.approx(120 * MEGABYTE, rel=0.01)
    farm.daemon.until_logged(r"module: .* bytes; 12\d+ more were there under another name")


@pytest.mark.parametrize(
    "refused", ["link-dest", "fuzzy", "copy-dest", "link-dest copy-dest fuzzy", "stats checksum"]
)
def test_rename_is_sent_to_a_node_that_refuses_options(small: MakeSmall, refused: str) -> None:
    farm, _ = small({"refuse options": refused})
    (farm.tree / "file").write_bytes(rand.randbytes(MEGABYTE))
    farm.until_level()
    for number in range(2):
        (farm.tree / "a").rename(farm.tree / f"b{number}")
        (farm.tree / "file").rename(farm.tree / f"file{number}")
        farm.until_level()
        fill(farm.tree / "a", 3)
        (farm.tree / "file").write_bytes(rand.randbytes(MEGABYTE))
        farm.until_level()
    assert farm.counts("failures") == {"local": {}, "module": {}}
    assert farm.linked() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start an rsync daemon of another user")
def test_rename_keeps_write_protection_on_a_node_without_root(small: MakeSmall) -> None:
    # Without root rsync makes a file writable before it removes it: here all names of the file.
    farm, _ = small({"uid": NOBODY, "gid": NOBODY})
    for number, path in enumerate(sorted((farm.tree / "a").rglob("file*"))):
        path.chmod((0o400, 0o444, 0o555)[number % 3])
    (farm.tree / "single").write_bytes(rand.randbytes(2 * MEGABYTE))
    (farm.tree / "single").chmod(0o440)
    os.chown(farm.tree / "single", int(NOBODY), int(NOBODY))
    farm.until_level()
    (farm.tree / "a").rename(farm.tree / "b")
    (farm.tree / "single").rename(farm.tree / "b/single")
    farm.until_level()
    assert farm.linked() == []
    assert farm.counts("renamed_bytes")["module"] > 4 * MEGABYTE


def test_rename_makes_up_for_what_differs_on_a_node(small: MakeSmall) -> None:
    farm, _ = small()
    for copy in farm.copies.values():
        (copy / "a/file0").write_text("drift")
        (copy / "a/sub/file1").unlink()
        (copy / "a/sub/deep/file2").chmod(0o777)
        os.utime(copy / "a/file3", (1, 1))
        (copy / "a/stray").write_text("a stray file")
        (copy / "a/sub/file4").unlink()
        (copy / "a/sub/file4").mkdir()
        (copy / "a/sub/file4/stray").write_text("in a directory that is none")
        (copy / "b").symlink_to(copy.parent.parent)
    outside = sorted(farm.copies["local"].parent.parent.iterdir())
    (farm.tree / "a").rename(farm.tree / "b")
    farm.until_level()
    for copy in farm.copies.values():
        (copy / "c").write_text("in the way")
    (farm.tree / "c").mkdir()
    (farm.tree / "b").rename(farm.tree / "c/d")
    farm.until_level()
    assert farm.linked() == []
    assert sorted(farm.copies["local"].parent.parent.iterdir()) == outside
    assert farm.counts("failures") == {"local": {}, "module": {}}


def test_rename_keeps_no_content_that_came_from_another_file(small: MakeSmall, tmp_path: Path) -> None:
    fake = FakeRsync(tmp_path / "fake")
    farm, _ = small(fake=fake, rwarm=False)
    fake.hold("local")
    (farm.tree / "a/other").write_text("content")
    fake.until_held("local")
    # This is what an rsync leaves that opens a file after one of the same size has taken its place.
    mixed = farm.copies["local"] / "a/file0"
    status = mixed.stat()
    mixed.write_bytes(rand.randbytes(status.st_size))
    os.utime(mixed, ns=(status.st_atime_ns, status.st_mtime_ns))
    (farm.tree / "a").rename(farm.tree / "b")
    fake.mend("local")
    farm.until_level()


def rename_and_follow(farm: Farm, old: str, new: str) -> None:
    """Rename a directory, and wait until the local node has followed.

    If its source were renamed again during its transfer, it would be sent in full.
    """
    sent = farm.counts("batches")["local"]
    (farm.tree / old).rename(farm.tree / new)
    until(lambda: farm.counts("batches")["local"] > sent, 60, "a batch")
    copy = farm.copies["local"]
    until(
        lambda: farm.daemon.state("local") == "ok" and trees.is_copy(trees.snapshot(farm.tree), copy),
        60,
        "the local node to be level",
    )


def test_renames_while_a_node_is_paused_are_joined(small: MakeSmall) -> None:
    farm, _ = small()
    farm.daemon.ask("pause", node="module")
    farm.daemon.until_state("module", ["paused"])
    before = farm.counts("bytes")
    for old, new in (("a", "b"), ("b", "c"), ("c/sub", "d"), ("c", "e")):
        rename_and_follow(farm, old, new)
    farm.daemon.ask("resume", node="module")
    until_renamed(farm, before, "module")


def test_renames_while_a_node_is_away_are_joined(small: MakeSmall) -> None:
    farm, server = small()
    server.kill()
    farm.daemon.until_state("module", ["retry"])
    before = farm.counts("bytes")
    for old, new in (("a", "b"), ("b", "c"), ("c", "d")):
        rename_and_follow(farm, old, new)
    server.start()
    until_renamed(farm, before)


def test_rename_is_followed_when_a_node_goes_away_with_it(small: MakeSmall) -> None:
    farm, server = small(rwarm=False)
    before = farm.counts("bytes")
    server.kill()
    (farm.tree / "a").rename(farm.tree / "b")
    farm.daemon.until_state("module", ["retry"])
    server.start()
    until_renamed(farm, before)


def test_rename_is_followed_by_another_worker_if_one_dies(small: MakeSmall, tmp_path: Path) -> None:
    fake = FakeRsync(tmp_path / "fake")
    farm, _ = small(fake=fake)
    before = farm.counts("bytes")
    for node in ("local", "tree"):
        fake.fault(node, 'case " $* " in *dest=*) while [ -e "$fault" ]; do sleep 0.05; done;; esac')
    (farm.tree / "a").rename(farm.tree / "b")
    workers = farm.daemon.workers()
    until(lambda: farm.daemon.rsyncs("local"), 60, "an rsync that waits")
    until(lambda: fake.starts("/b/."), 60, "a rename on its way")
    for pid in workers.values():
        os.kill(pid, signal.SIGKILL)
    for node in ("local", "tree"):
        fake.mend(node)
    until_renamed(farm, before)


def test_rename_over_the_edge_of_a_wpath_arrives(tmp_path: Path, daemon: MakeDaemon) -> None:
    trees, node = [tmp_path / name for name in ("x", "y")], tmp_path / "node"
    for directory in (*trees, node):
        directory.mkdir()
    outside = tmp_path / "outside"
    fill(trees[0] / "a")
    fill(outside, 3)
    one = daemon(
        {"wpaths": [f"{t}/" for t in trees], "rpaths": ["/x", "/y"], "rnodes": [str(node)], **FAST}, ("-v",)
    )
    one.start()
    pairs = [(tree, node / tree.name) for tree in trees]
    one.until_level(pairs)
    (trees[0] / "a").rename(trees[1] / "a")
    outside.rename(trees[0] / "from_outside")
    one.until_level(pairs)
    (trees[1] / "a").rename(outside)
    one.until_level(pairs)


@pytest.mark.parametrize(
    "extra", [["-avz", "--delete"], ["-A", "-X", "-H"], ["--chmod=g-s"], ["-r", "-W", "-v"]]
)
def test_rename_is_followed_with_usual_options(small: MakeSmall, extra: list[str]) -> None:
    farm, _ = small(extra=extra)
    before = farm.counts("bytes")
    (farm.tree / "a").rename(farm.tree / "b")
    (farm.tree / "b/file0").rename(farm.tree / "file")
    until_renamed(farm, before)


@pytest.mark.parametrize(
    "extra",
    [
        ["--link-dest=../other"],
        ["--inplace"],
        ["-I"],
        ["--delay-updates"],
        ["--size-only"],
    ],
)
def test_rename_is_sent_with_options_that_do_not_go_with_it(small: MakeSmall, extra: list[str]) -> None:
    farm, _ = small(extra=extra, rverify=0)
    (farm.tree / "a").rename(farm.tree / "b")
    pairs = [(farm.tree, copy) for copy in farm.copies.values()]
    farm.daemon.until_level(pairs, ignore=lambda path: path == b"a")
    assert set(farm.counts("renamed_bytes").values()) == {0}


def test_rename_leaves_no_links_where_nothing_is_deleted(small: MakeSmall) -> None:
    farm, _ = small(rdelete=False)
    before = farm.counts("bytes")
    (farm.tree / "a").rename(farm.tree / "b")
    pairs = [(farm.tree / "b", copy / "b") for copy in farm.copies.values()]
    farm.daemon.until_level(pairs)
    assert farm.linked() == []
    now = farm.counts("bytes")
    assert max(now[node] - before[node] for node in now) < NEARLY_NOTHING
    assert all((copy / "a/file0").exists() for copy in farm.copies.values())


def test_small_rename_costs_no_run_of_rsync(small: MakeSmall) -> None:
    farm, _ = small(rwarm=False)
    (farm.tree / "empty").mkdir()
    (farm.tree / "small").mkdir()
    (farm.tree / "small/file").write_bytes(bytes(WORTHWHILE_BYTES - 1))
    farm.until_level()

    def runs(name: str) -> dict[str, int]:
        """Return what a rename costs each node, less the dry run that looks for it a second later."""
        found = []
        for old, new in ((name, "1"), ("1", "2"), ("2", name)):
            before = farm.counts("rsyncs")
            (farm.tree / old).rename(farm.tree / new)
            farm.until_level()
            found.append({node: count - before[node] for node, count in farm.counts("rsyncs").items()})
        return {node: min(each[node] for each in found) for node in farm.copies}

    assert runs("empty") == runs("small")
