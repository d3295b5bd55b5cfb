"""The behaviour of rsync that the daemon relies on, tried with the real one.

Each of these traps has cost someone a lost file. The calls are those of ``inosync/rsync/argv.py``; a test
that shows why an option is needed takes it away.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
from support import procs
from support.filters import excludes
from support.procs import free_port
from support.real_rsync import IS_NEWEST, RSYNC, needs_newest
from support.rsyncd import MakeRsyncd
from support.sshd import Sshd
from support.wait import until

from inosync.filters import rule as filter_rules
from inosync.rsync import ssh
from inosync.rsync.argv import (
    EVERYTHING,
    NO_NAME,
    TransferSettings,
    batch_argv,
    compare_names_argv,
    full_argv,
    names_input,
    shell_line,
    too_long,
)
from inosync.rsync.errors import Complaints, after_batch, after_full, target_missing
from inosync.rsync.exit_codes import DELETIONS_STOPPED, NO_CONNECTION, ExitKind, actual_code, exit_kind
from inosync.rsync.stdout import percent, transferred_bytes, waits_for
from inosync.system import process

pytestmark = pytest.mark.skipif(not RSYNC, reason="rsync is not installed")

NOBODY = 65534
IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(
    not IS_ROOT, reason="needs root, to make files that the node's user does not own"
)
LIMIT = 60.0


@dataclass
class Pair:
    """A source and a node's directory, and the user who runs rsync, for whom root makes the files."""

    home: Path
    user: int | None = None
    settings: TransferSettings = field(init=False)

    def __post_init__(self) -> None:
        self.src, self.dst = self.home / "src", self.home / "dst"
        self.settings = TransferSettings(RSYNC, str(self.src), str(self.dst))
        for path in (self.home, self.src, self.dst):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
            self.give(path)

    def give(self, path: Path) -> Path:
        """Give a path to the user who runs rsync."""
        if self.user is not None:
            os.chown(path, self.user, self.user)
        return path

    def file(self, name: str, content: str = "x", side: str = "src") -> Path:
        path = self.home / side / name
        for parent in reversed(path.parents):
            if self.home in parent.parents and not parent.exists():
                parent.mkdir()
                self.give(parent)
        path.write_text(content)
        return self.give(path)

    def folder(self, name: str, side: str = "src") -> Path:
        path = self.home / side / name
        path.mkdir()
        return self.give(path)

    def run(self, argv: Sequence[str], data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            argv,
            input=data,
            capture_output=True,
            timeout=LIMIT,
            check=False,
            user=self.user,
            group=self.user,
            extra_groups=None if self.user is None else [],
            env={**os.environ, "LC_ALL": "C"},
            cwd="/",
        )

    def batch(self, *names: bytes, extra: Sequence[str] = ()) -> subprocess.CompletedProcess[bytes]:
        return self.run(batch_argv(replace(self.settings, extra=tuple(extra))), names_input(names))

    def full(self, *extra: str) -> subprocess.CompletedProcess[bytes]:
        return self.run(full_argv(replace(self.settings, extra=extra)), names_input(EVERYTHING))

    def due(self, *names: bytes, code: int = 23, extra: Sequence[str] = ()) -> Complaints:
        """Return what is due after a batch that ends with ``code``."""
        done = self.batch(*names, extra=extra)
        assert done.returncode == code, done.stderr
        lines, source = done.stderr.splitlines(), self.settings.source
        stdout = done.stdout.splitlines()
        return after_batch(lines, source, names, self.settings.target, stdout)

    def due_full(self, code: int = 23) -> Complaints:
        done = self.full()
        assert done.returncode == code, done.stderr
        return after_full(done.stderr.splitlines(), self.settings.source, self.settings.target)

    def arrived(self) -> set[str]:
        """Return everything on the node, relative to its root."""
        return {str(path.relative_to(self.dst)) for path in self.dst.rglob("*")}


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """A pair whose rsync runs as the user who runs the tests."""
    return Pair(tmp_path / "pair")


@pytest.fixture
def stranger() -> Iterator[Pair]:
    """A pair whose rsync runs as a user that permissions bind; if root runs the tests, as nobody."""
    home = Path(tempfile.mkdtemp(prefix="inosync-facts-"))
    try:
        yield Pair(home, NOBODY if IS_ROOT else None)
    finally:
        for folder, inner, _ in os.walk(home):
            for name in inner:
                if not os.path.islink(os.path.join(folder, name)):
                    os.chmod(os.path.join(folder, name), 0o700)
        shutil.rmtree(home)


def without(argv: Iterable[str], *words: str) -> tuple[str, ...]:
    return tuple(word for word in argv if word not in words)


# One vector for every batch


def test_name_sends_a_directory_itself_and_a_slash_relists_it(pair: Pair) -> None:
    pair.file("a/new")
    pair.file("a/stale/f", side="dst")
    pair.file("b/new")
    pair.file("b/stale/f", side="dst")
    assert pair.batch(b"a", b"b/").returncode == 0
    assert pair.arrived() == {"a", "a/stale", "a/stale/f", "b", "b/new"}


def test_relist_is_one_level_deep(pair: Pair) -> None:
    pair.file("a/b/c/f")
    pair.file("a/b/kept", side="dst")
    assert pair.batch(b"a/").returncode == 0
    assert pair.arrived() == {"a", "a/b", "a/b/kept"}


def test_root_can_be_relisted(pair: Pair) -> None:
    pair.file("f")
    pair.file("stale/f", side="dst")
    assert pair.batch(b"./").returncode == 0
    assert pair.arrived() == {"f"}


@pytest.mark.parametrize("extra", [["-r"], ["-avr"], ["-a"], ["-a", "--recursive"]])
def test_recursion_in_extra_changes_no_batch_and_no_full(pair: Pair, extra: list[str]) -> None:
    pair.file("a/b/f")
    assert pair.batch(b"a", extra=extra).returncode == 0
    assert pair.arrived() == {"a"}
    assert pair.full(*extra).returncode == 0
    assert pair.arrived() == {"a", "a/b", "a/b/f"}


def test_recursion_would_send_and_delete_whole_subtrees(pair: Pair) -> None:
    pair.file("a/b/f")
    argv = without(batch_argv(replace(pair.settings, extra=("-r",))), "--no-recursive")
    assert pair.run(argv, names_input([b"a"])).returncode == 0
    assert pair.arrived() == {"a", "a/b", "a/b/f"}


def test_parents_are_made_with_the_attributes_of_the_source(pair: Pair) -> None:
    pair.file("a/b/f")
    (pair.src / "a").chmod(0o710)
    os.utime(pair.src / "a", (10**9, 10**9))
    assert pair.batch(b"a/b/f").returncode == 0
    made = (pair.dst / "a").stat()
    assert (stat.S_IMODE(made.st_mode), made.st_mtime) == (0o710, 10**9)


def test_missing_name_is_deleted_with_all_below(pair: Pair) -> None:
    pair.file("gone/b/f", side="dst")
    pair.file("f", side="dst")
    assert pair.batch(b"gone", b"f", b"never").returncode == 0
    assert pair.arrived() == set()


@pytest.mark.parametrize("option", ["--force", "--delete"])
def test_force_or_delete_removes_a_directory(pair: Pair, option: str) -> None:
    pair.file("gone/b/f", side="dst")
    argv = without(batch_argv(pair.settings), option)
    assert pair.run(argv, names_input([b"gone"])).returncode == 0
    assert pair.arrived() == set()


def test_directory_stays_with_exit_code_0_without_force_and_delete(pair: Pair) -> None:
    pair.file("gone/b/f", side="dst")
    done = pair.run(without(batch_argv(pair.settings), "--force", "--delete"), names_input([b"gone"]))
    assert done.returncode == 0
    assert pair.arrived() == {"gone", "gone/b", "gone/b/f"}


def test_missing_levels_may_be_listed_only_by_the_topmost(pair: Pair) -> None:
    pair.file("a/b/f", side="dst")
    found = pair.due(b"a/b/f", b"c", code=24)
    assert pair.arrived() == {"a", "a/b"}
    assert (found.whole, found.due) == (False, (b"a", b"a/b", b"a/b/f"))
    assert pair.batch(b"a").returncode == 0
    assert pair.arrived() == set()


@pytest.mark.parametrize("swap", ["file for directory", "directory for file", "symlink for directory"])
def test_replaced_type_is_replaced_in_batches_and_in_full(pair: Pair, swap: str) -> None:
    for name in ("batch", "full"):
        if swap == "directory for file":
            pair.file(name, side="dst")
            pair.file(f"{name}/f")
        else:
            pair.file(f"{name}/b/f", side="dst")
            if swap == "file for directory":
                pair.file(name)
            else:
                (pair.src / name).symlink_to("elsewhere")
    assert pair.batch(b"batch", b"batch/" if swap == "directory for file" else b"batch").returncode == 0
    assert pair.full().returncode == 0
    for name in ("batch", "full"):
        ours, theirs = (pair.src / name).lstat(), (pair.dst / name).lstat()
        assert stat.S_IFMT(ours.st_mode) == stat.S_IFMT(theirs.st_mode)


def test_batch_without_rdelete_deletes_nothing_and_ends_with_0(pair: Pair) -> None:
    pair.settings = replace(pair.settings, rdelete=False)
    pair.file("a/new")
    pair.file("a/stale", side="dst")
    pair.file("gone", side="dst")
    assert pair.batch(b"gone", b"gone/", b"no/such", b"a/", b"a/new").returncode == 0
    assert pair.arrived() == {"a", "a/new", "a/stale", "gone"}
    assert pair.full().returncode == 0
    assert pair.arrived() == {"a", "a/new", "a/stale", "gone"}


def test_modify_window_sees_the_same_size_in_the_same_second(pair: Pair) -> None:
    for name, side, content in (("f", "src", "new"), ("f", "dst", "old")):
        path = pair.file(name, content, side)
        os.utime(path, ns=(0, 10**18 + (5 if side == "src" else 9)))
    blind = without(batch_argv(pair.settings), "--modify-window=-1")
    assert pair.run((*blind[:1], "--modify-window=0", *blind[1:]), names_input([b"f"])).returncode == 0
    assert (pair.dst / "f").read_text() == "old"
    assert pair.batch(b"f").returncode == 0
    assert (pair.dst / "f").read_text() == "new"


# The remote shell


SHELLS = [
    " -p  22 ",
    "-i 'my key' -q",
    '-i "my key"',
    "a'b'c\"d\"e",
    '\'it\'\'s\' "say ""x"""',
    "\"it's\" '\"'",
    "'' x",
    "''" + "''",
    "a\\ b\tc",
    "-i 'my key",
    "'a''",
]


@pytest.mark.parametrize("shell", SHELLS)
def test_remote_shell_is_split_as_rsync_splits_it(tmp_path: Path, shell: str) -> None:
    program = tmp_path / "shell"
    program.write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" >{tmp_path}/words\n')
    program.chmod(0o755)
    argv = ["rsync", f"--rsh={program} {shell}", f"{tmp_path}/", "host:"]
    subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, check=False)
    words = (tmp_path / "words").read_text().split("\0") if (tmp_path / "words").exists() else ["host"]
    assert tuple(words[: words.index("host")]) == ssh.split(f"x {shell}")[1:]


# The target


def test_batch_fails_on_a_missing_target_and_full_makes_it(pair: Pair) -> None:
    pair.file("f")
    pair.file("g")
    pair.dst.rmdir()
    for names in ([b"f"], [b"f", b"g", b"./"], [b"gone"]):
        done = pair.batch(*names)
        assert done.returncode in (3, 11)
        assert target_missing(done.stderr.splitlines()), done.stderr
        assert not pair.dst.exists()
    assert pair.full().returncode == 0
    assert pair.arrived() == {"f", "g"}


def test_target_without_a_slash_would_become_a_file_with_exit_0(pair: Pair) -> None:
    pair.file("f")
    pair.dst.rmdir()
    done = pair.run((*batch_argv(pair.settings)[:-1], str(pair.dst)), names_input([b"f"]))
    assert done.returncode == 0
    assert pair.dst.is_file()


def test_target_that_is_a_file_is_not_overwritten(pair: Pair) -> None:
    pair.file("f")
    pair.dst.rmdir()
    pair.dst.write_text("precious")
    done = pair.batch(b"f")
    assert exit_kind(done.returncode) is ExitKind.SLOW
    assert not target_missing(done.stderr.splitlines())
    assert pair.dst.read_text() == "precious"


def test_missing_source_deletes_nothing(pair: Pair) -> None:
    pair.file("f", side="dst")
    pair.src.rmdir()
    assert exit_kind(pair.batch(b"./", b"f").returncode) is ExitKind.SLOW
    assert exit_kind(pair.full().returncode) is ExitKind.SLOW
    assert pair.arrived() == {"f"}


def test_full_reads_the_directory_that_it_has_entered(pair: Pair) -> None:
    pair.file("f")
    pair.run(full_argv(pair.settings), names_input(EVERYTHING))
    with subprocess.Popen(
        full_argv(pair.settings), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as child:
        assert child.stdin is not None
        child.stdin.write(NO_NAME)
        child.stdin.flush()
        until(lambda: _unread(child) == 0, LIMIT, "the name to be read")
        pair.src.rename(pair.src.with_name("away"))
        pair.src.mkdir()
        child.stdin.write(names_input(EVERYTHING))
        child.stdin.close()
        assert child.wait(LIMIT) == 0
    assert pair.arrived() == {"f"}


# Names

NAMES = [
    b"#x",
    b";x",
    b"#",
    b"-n",
    b"--delete",
    b" ",
    b"a\nb",
    b"*",
    b"[a]",
    b"\"q'",
    b"\\#012",
    b"\xff\xfe",
    b"a\\",
    b"$x`",
]


def test_names_of_every_kind_arrive(pair: Pair) -> None:
    for name in NAMES:
        Path(os.fsdecode(os.path.join(bytes(pair.src), name))).write_text("x")
    assert pair.batch(*NAMES).returncode == 0
    assert sorted(os.listdir(bytes(pair.dst))) == sorted(NAMES)


def test_names_that_look_like_comments_would_be_skipped_with_exit_0(pair: Pair) -> None:
    pair.file("#x")
    pair.file(";x")
    assert pair.run(batch_argv(pair.settings), b"#x\0;x\0").returncode == 0
    assert pair.arrived() == set()


def test_prefix_also_sends_the_attributes_of_the_root(pair: Pair) -> None:
    pair.file("x")
    pair.src.chmod(0o750)
    pair.dst.chmod(0o755)
    assert pair.batch(b"x").returncode == 0
    assert stat.S_IMODE(pair.dst.stat().st_mode) == 0o755
    assert pair.run(batch_argv(pair.settings), b"./x\0").returncode == 0
    assert stat.S_IMODE(pair.dst.stat().st_mode) == 0o750


def test_name_below_a_symlink_makes_a_directory_on_the_node(pair: Pair) -> None:
    pair.file("real/x")
    (pair.src / "lnk").symlink_to("real")
    assert pair.batch(b"lnk/x").returncode == 0
    assert not (pair.dst / "lnk").is_symlink()


CALLS: dict[str, Callable[[TransferSettings], tuple[str, ...]]] = {
    "batch": batch_argv,
    "batch that only removes": partial(batch_argv, only_removes=True),
    "full mirror": full_argv,
    "full mirror that only adds": partial(full_argv, only_adds=True),
    "question": compare_names_argv,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("to", ["elsewhere", "../outside", "."])
def test_symlink_of_the_node_in_place_of_a_directory_is_not_followed(call: str, to: str, pair: Pair) -> None:
    pair.file("lnk/sub/x")
    pair.file("lnk/x")
    for place in (pair.dst / "elsewhere", pair.dst.parent / "outside", pair.dst):
        (place / "sub").mkdir(parents=True)
        (place / "sub/kept").write_text("what the symlink leads to")
    (pair.dst / "lnk").symlink_to(to)
    is_full = call.startswith("full")
    names = names_input(EVERYTHING) if is_full else names_input((b"lnk/sub/", b"lnk/sub/x", b"lnk/x"))
    extra = ("--filter=P /sub", "--filter=P /elsewhere") if is_full else ()
    assert pair.run(CALLS[call](replace(pair.settings, extra=extra)), names).returncode == 0
    for place in (pair.dst / "elsewhere", pair.dst.parent / "outside", pair.dst):
        assert [path.name for path in (place / "sub").iterdir()] == ["kept"]
        assert not (place / "x").exists()


def test_existing_would_follow_a_symlink_of_the_node(pair: Pair) -> None:
    pair.file("lnk/x")
    (pair.dst / "lnk").symlink_to(".")
    call = batch_argv(replace(pair.settings, extra=("--ignore-existing",)))
    assert pair.run(call, b"lnk/x\0").returncode == 0
    assert (pair.dst / "x").exists(), "the comment at argv._SEND_NOTHING is out of date"


def test_name_below_a_symlink_to_the_outside_is_refused_when_confined(pair: Pair) -> None:
    if not IS_NEWEST:
        pytest.skip("an rsync that cannot be confined")
    pair.file("ok")
    (pair.src.parent / "outside").mkdir()
    (pair.src.parent / "outside/x").write_text("from outside")
    (pair.src / "lnk").symlink_to("../outside")
    confined = replace(pair.settings, root=str(pair.src))
    assert pair.run(batch_argv(confined), b"lnk/x\0lnk/\0ok\0").returncode == 23
    assert [path.name for path in pair.dst.iterdir()] == ["ok"]
    assert pair.run(batch_argv(confined), b"lnk\0").returncode == 0
    assert os.readlink(pair.dst / "lnk") == "../outside"


def test_name_below_a_file_stays_due(pair: Pair) -> None:
    pair.file("b")
    pair.file("ok")
    found = pair.due(b"b/x", b"ok")
    assert (found.whole, found.due) == (False, (b"b/x",))
    assert "ok" in pair.arrived()


def _deep(root: Path, length: int) -> bytes:
    """Make a file whose path below ``root`` has ``length`` bytes, and return that path."""
    parts, left = [], length - 50
    while left:
        size = min(left, 200) if left - min(left, 200) != 1 else 199
        parts.append("d" * (size - 1))
        left -= size
    folder = os.open(root, os.O_RDONLY)
    for part in parts:
        os.mkdir(part, dir_fd=folder)
        inner = os.open(part, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(os.open("f" * 50, os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)
    return "/".join([*parts, "f" * 50]).encode()


def _has(root: Path, path: bytes) -> bool:
    *parents, name = path.split(b"/")
    folder = os.open(root, os.O_RDONLY)
    try:
        for part in parents:
            inner = os.open(part, os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = inner
        os.stat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    finally:
        os.close(folder)
    return True


@needs_newest
@pytest.mark.parametrize(("length", "fits"), [(4000, True), (4094, True), (4095, False), (4100, False)])
def test_longest_name_over_a_local_path(pair: Pair, length: int, fits: bool) -> None:
    name = _deep(pair.src, length)
    done = pair.batch(name)
    assert done.returncode == (0 if fits else 23)
    assert _has(pair.dst, name) is fits


@needs_newest
@pytest.mark.parametrize(("length", "fits"), [(4086, True), (4087, False)])
def test_longest_name_over_a_daemon(pair: Pair, rsyncd: MakeRsyncd, length: int, fits: bool) -> None:
    server = rsyncd({"www": pair.dst})
    pair.settings = replace(pair.settings, target=f"rsync://127.0.0.1:{server.port}/www")
    name = _deep(pair.src, length)
    done = pair.batch(name)
    # It arrives in both cases, but a name that does not fit makes every run end with a complaint.
    assert done.returncode == (0 if fits else 23), done.stderr
    assert _has(pair.dst, name)
    assert too_long(name) is not fits


@needs_newest
def test_prefixed_name_of_the_longest_length_would_be_cut_silently(pair: Pair) -> None:
    name = _deep(pair.src, 4094)
    assert pair.run(batch_argv(pair.settings), b"./" + name + b"\0").returncode == 0
    assert not _has(pair.dst, name)


def test_shell_line_does_what_the_call_does(pair: Pair) -> None:
    for name in NAMES:
        Path(os.fsdecode(os.path.join(bytes(pair.src), name))).write_text("x")
    done = pair.run(["bash", "-c", shell_line(batch_argv(pair.settings), NAMES)])
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(bytes(pair.dst))) == sorted(NAMES)
    assert pair.run(["bash", "-c", shell_line(full_argv(pair.settings), EVERYTHING)]).returncode == 0


# Excludes and extra


def test_excludes_protect_names_of_the_node_but_do_not_hide_listed_ones(pair: Pair) -> None:
    pair.settings = replace(pair.settings, rules=excludes(["/a/ex", "*.o"]))
    pair.file("a/ex/n")
    pair.file("a/f.o")
    pair.file("a/kept.o", side="dst")
    pair.file("a/ex/kept", side="dst")
    assert pair.batch(b"a/", b"a/f.o").returncode == 0
    assert pair.arrived() == {"a", "a/kept.o", "a/ex", "a/ex/kept"}
    assert pair.batch(b"a/ex/n").returncode == 0
    assert "a/ex/n" in pair.arrived(), "whoever writes the list has to look at every component"


def test_delete_excluded_deletes_what_is_excluded_in_relists_and_full(pair: Pair) -> None:
    rules = (
        *excludes(["ex/", "*.o"]),
        *filter_rules.from_filter("P own"),
        *filter_rules.from_filter("-r *.k"),
    )
    pair.settings = replace(pair.settings, rules=rules)
    pair.file("a/f")
    pair.file("a/ex/n")
    for name in ("a/ex/n", "a/g.o", "a/own", "a/x.k", "b.o", "ex/deep/f"):
        pair.file(name, side="dst")
    assert pair.batch(b"a/", extra=["--delete-excluded"]).returncode == 0
    assert pair.arrived() == {"a", "a/f", "a/own", "a/x.k", "b.o", "ex", "ex/deep", "ex/deep/f"}
    assert pair.batch(b"./", extra=["--delete-excluded"]).returncode == 0
    assert pair.arrived() == {"a", "a/f", "a/own", "a/x.k"}
    for name in ("a/g.o", "ex/deep/f", "own"):
        pair.file(name, side="dst")
    assert pair.full("--delete-excluded").returncode == 0
    assert pair.arrived() == {"a", "a/f", "a/own", "a/x.k", "own"}


@pytest.mark.parametrize("option", ["--delete-excluded", "--delete", "--del"])
def test_delete_options_of_the_user_would_override_rdelete(pair: Pair, option: str) -> None:
    pair.settings = replace(pair.settings, rdelete=False)
    pair.file("stale", side="dst")
    assert pair.batch(b"./").returncode == 0
    assert pair.arrived() == {"stale"}
    assert pair.batch(b"./", extra=[option]).returncode == 0
    assert pair.arrived() == set()


@pytest.mark.parametrize("word", ["--exclude=a!#:+", "--filter=- a!#:+"])
def test_option_parser_would_put_the_source_into_a_rule(pair: Pair, word: str) -> None:
    pair.file("f")
    argv, names = full_argv(pair.settings), names_input(EVERYTHING)
    pair.run((*argv[:-2], word, *argv[-2:]), names)  # only the target is left as a path: it is listed
    assert pair.arrived() == set()
    pair.run((*argv[:-2], word.replace("!", "?"), *argv[-2:]), names)
    assert pair.arrived() == {"f"}


def test_from0_stays_in_force_whatever_extra_says(pair: Pair) -> None:
    pair.file("a")
    pair.file("b")
    assert pair.batch(b"a", b"b", extra=["--from0", "--no-from0"]).returncode == 0
    assert pair.arrived() == {"a", "b"}


@needs_newest
@pytest.mark.parametrize(
    "extra",
    [
        ["-avz"],
        ["-0"],
        ["-q"],
        ["-P", "-i", "--stats"],
        ["-H", "--numeric-ids"],
        ["-x", "-S"],
        ["--delete-after"],
        ["-W", "--timeout=30"],
    ],
)
def test_usual_extra_options_change_neither_vector(pair: Pair, extra: list[str]) -> None:
    pair.file("a/b/f")
    pair.file("a/h")
    pair.file("old/f", side="dst")
    assert pair.batch(b"a/", b"old", extra=extra).returncode == 0
    assert pair.arrived() == {"a", "a/b", "a/h"}
    pair.file("stale/f", side="dst")
    assert pair.full(*extra).returncode == 0
    assert pair.arrived() == {"a", "a/b", "a/b/f", "a/h"}


def test_full_prints_its_progress(pair: Pair) -> None:
    for number in range(20):
        pair.file(f"d{number % 3}/{number}")
    percents = [percent(line) for line in pair.full().stdout.replace(b"\n", b"\r").split(b"\r")]
    shares = [share for share in percents if share is not None]
    assert shares[-1] == 100
    assert len(set(shares)) > 3


# Started before the names exist


def _waiting(pair: Pair) -> subprocess.Popen[bytes]:
    """Start an rsync that waits for names: it has its second process and has entered the source."""
    child = subprocess.Popen(
        batch_argv(pair.settings), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    cwd = Path(f"/proc/{child.pid}/cwd")
    try:
        until(lambda: os.readlink(cwd) == str(pair.src), LIMIT, "rsync to enter the source")
    except BaseException:
        child.kill()
        child.wait()
        raise
    return child


def test_names_may_come_after_the_start(pair: Pair) -> None:
    with _waiting(pair) as child:
        pair.file("f")
        child.communicate(names_input([b"f"]), timeout=LIMIT)
    assert child.returncode == 0
    assert pair.arrived() == {"f"}


def _last_words(pair: Pair, *names: bytes, extra: Sequence[str] = ()) -> tuple[set[str], bytes]:
    """Return what is on the node when rsync says that it only has to end, and what it has complained of."""
    settings = replace(pair.settings, says_end=True, extra=tuple(extra))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(batch_argv(settings), user=pair.user, group=pair.user, **pipes) as child:  # type: ignore[call-overload]
        child.stdin.write(names_input(names))
        child.stdin.close()
        for line in child.stdout:
            if waits_for(line.rstrip(b"\n")):
                arrived = pair.arrived()
                os.set_blocking(child.stderr.fileno(), False)
                told = child.stderr.read() or b""
                child.stdout.read()
                return arrived, told
    raise AssertionError("rsync does not say it")


@pytest.mark.parametrize(
    ("way", "extra"),
    [("local path", ""), ("local path", "--delay-updates"), ("local path", "--temp-dir={home}"), ("ssh", "")],
)
def test_last_word_comes_after_all_names_are_there(
    pair: Pair, way: str, extra: str, request: pytest.FixtureRequest
) -> None:
    if way == "ssh":
        sshd: Sshd = request.getfixturevalue("sshd")
        pair.settings = replace(pair.settings, target=sshd.node("a", pair.dst), rsh=sshd.rsh)
    names = [f"f{number}" for number in range(40)]
    for name in names:
        pair.file(name, name * 5000)
    pair.file("gone", side="dst")
    words = [extra.format(home=pair.home)] if extra else []
    arrived, told = _last_words(pair, b"gone", *map(os.fsencode, names), extra=words)
    assert (arrived, told) == (set(names), b"")


@needs_root
def test_last_word_comes_after_the_complaints_of_both_sides(stranger: Pair) -> None:
    stranger.file("sent")
    stranger.file("closed/refused")
    (stranger.dst / "closed").mkdir(mode=0o755)  # by another user
    stranger.file("unreadable").chmod(0)
    arrived, told = _last_words(stranger, b"closed/refused", b"sent")
    assert ("sent" in arrived, "closed/refused" in arrived) == (True, False)
    assert b"Permission denied" in told
    assert b"Permission denied" in _last_words(stranger, b"unreadable", b"sent")[1]


def test_other_side_is_not_asked_for_last_words(pair: Pair) -> None:
    shell = pair.home / "shell"
    shell.write_text(f'#!/bin/sh\nshift\necho "$@" >{pair.home}/words\nexec "$@"\n')
    shell.chmod(0o755)
    pair.file("f")
    pair.settings = replace(pair.settings, target=f"node:{pair.dst}", rsh=str(shell))
    assert _last_words(pair, b"f") == ({"f"}, b"")
    assert "debug" not in (pair.home / "words").read_text()


def test_source_is_entered_at_the_start(pair: Pair) -> None:
    pair.file("f", "old")
    with _waiting(pair) as child:
        pair.src.rename(pair.home / "moved")
        pair.src.mkdir()
        pair.file("f", "new")
        child.communicate(names_input([b"f"]), timeout=LIMIT)
    assert (pair.dst / "f").read_text() == "old"


def test_death_by_a_signal_is_a_failure(pair: Pair) -> None:
    with _waiting(pair) as child:
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=LIMIT)
    assert child.returncode == -signal.SIGKILL
    assert exit_kind(child.returncode) is ExitKind.RETRY


@pytest.fixture(params=["local path", "daemon", "ssh"])
def anywhere(request: pytest.FixtureRequest, pair: Pair, rsyncd: MakeRsyncd) -> Pair:
    """A pair with a node on each transport."""
    if request.param == "daemon":
        pair.settings = replace(pair.settings, target=rsyncd({"www": pair.dst}).url("www"))
    elif request.param == "ssh":
        sshd: Sshd = request.getfixturevalue("sshd")
        pair.settings = replace(pair.settings, target=sshd.node("a", pair.dst), rsh=sshd.rsh)
    return pair


@contextlib.contextmanager
def _knocked(pair: Pair, *extra: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run an rsync that has been given an empty name and nothing else."""
    reader, writer = os.pipe()
    os.write(writer, NO_NAME)  # before the start, because an rsync may fail at once
    child = subprocess.Popen(
        batch_argv(replace(pair.settings, extra=extra)),
        stdin=reader,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
    )
    os.close(reader)
    child.stdin = os.fdopen(writer, "wb", buffering=0)
    with child:
        try:
            yield child
        finally:
            child.kill()


def _unread(child: subprocess.Popen[bytes]) -> int:
    assert child.stdin is not None
    return process.unread(child.stdin.fileno())


def test_empty_name_is_skipped(anywhere: Pair) -> None:
    anywhere.file("f")
    anywhere.file("unasked")
    anywhere.file("kept", side="dst")
    for data in (NO_NAME + names_input([b"f"]), names_input([b"f"]) + NO_NAME, NO_NAME, NO_NAME * 3):
        done = anywhere.run(batch_argv(anywhere.settings), data)
        assert (done.returncode, done.stderr) == (0, b""), data
        assert transferred_bytes(done.stdout.splitlines()) > 0
    assert anywhere.arrived() == {"f", "kept"}


def test_empty_name_is_read_after_connecting_and_entering_the_source(anywhere: Pair) -> None:
    with _knocked(anywhere) as child:
        until(lambda: _unread(child) == 0 or child.poll() is not None, LIMIT, "rsync to read")
        assert os.path.samestat(os.stat(f"/proc/{child.pid}/cwd"), anywhere.src.stat())
        assert child.poll() is None
        anywhere.file("f")
        _, said = child.communicate(names_input([b"f"]), timeout=LIMIT)
        assert (child.returncode, said) == (0, b"")
    assert anywhere.arrived() == {"f"}


def test_empty_name_is_not_read_while_waiting_for_the_daemon(pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(LIMIT)
        pair.settings = replace(pair.settings, target=f"rsync://127.0.0.1:{server.getsockname()[1]}/www")
        with _knocked(pair) as child:
            taken, _ = server.accept()
            with taken:
                taken.settimeout(LIMIT)
                assert taken.recv(100).startswith(b"@RSYNCD:")
                assert _unread(child) == len(NO_NAME)
            assert child.wait(LIMIT) in NO_CONNECTION
            assert _unread(child) == len(NO_NAME), "not to its end"


def test_empty_name_is_read_when_a_paused_daemon_resumes(pair: Pair, rsyncd: MakeRsyncd) -> None:
    server = rsyncd({"www": pair.dst})
    pair.settings = replace(pair.settings, target=server.url("www"))
    server.pause()
    with _knocked(pair) as child:
        until(lambda: procs.family([child.pid])[0].state == "S", LIMIT, "rsync to wait")
        assert _unread(child) == len(NO_NAME)
        server.resume()
        until(lambda: _unread(child) == 0, LIMIT, "rsync to read")


def test_empty_name_is_not_read_when_the_daemon_refuses(pair: Pair, rsyncd: MakeRsyncd) -> None:
    server = rsyncd({"www": pair.dst}, options={"max connections": "1"})
    pair.settings = replace(pair.settings, target=server.url("none"))
    with _knocked(pair) as child:
        assert child.wait(LIMIT) == 5
        assert _unread(child) == len(NO_NAME)
    pair.settings = replace(pair.settings, target=server.url("www"))
    with _knocked(pair) as first, _knocked(pair) as second:
        two = (first, second)
        until(lambda: any(child.poll() is not None for child in two), LIMIT, "one of them to be refused")
        kept, refused = two if second.poll() is not None else (second, first)
        until(lambda: _unread(kept) == 0, LIMIT, "the other one to read")
        assert (kept.poll(), refused.returncode) == (None, 5)
        assert _unread(refused) == len(NO_NAME)


@pytest.mark.parametrize(("broken", "code"), [("the connection", 255), ("the rsync there", 127)])
def test_empty_name_is_not_read_when_ssh_fails(pair: Pair, sshd: Sshd, broken: str, code: int) -> None:
    rsh = sshd.rsh if broken == "the rsync there" else f"{sshd.rsh} -p {free_port()}"
    pair.settings = replace(pair.settings, target=sshd.node("a", pair.dst), rsh=rsh)
    with _knocked(pair, "--rsync-path=/no/rsync") as child:
        assert child.wait(LIMIT) in (code, 12), "12 if ssh had ended before rsync wrote its greeting"
        assert _unread(child) == len(NO_NAME)


# Complaints, as the rsync at hand words them


def test_unreadable_file_is_due_and_the_rest_arrives(stranger: Pair) -> None:
    stranger.file("b/x").chmod(0)
    stranger.file("y")
    found = stranger.due(b"b/x", b"y")
    assert (found.whole, found.due) == (False, (b"b/x",))
    assert "y" in stranger.arrived()
    found = stranger.due(b"b/", b"y")
    assert (found.whole, found.due) == (False, (b"b/x",))
    assert stranger.due_full().whole


@needs_newest
def test_unreadable_directory_prevents_deletions_of_other_relists(stranger: Pair) -> None:
    stranger.folder("b").chmod(0)
    stranger.folder("c")
    stranger.file("c/stale", side="dst")
    stranger.file("gone", side="dst")
    found = stranger.due(b"b/", b"c/", b"gone")
    assert "c/stale" in stranger.arrived()
    assert "gone" not in stranger.arrived()
    assert (found.whole, found.due, found.clouded) == (False, (b"b/", b"c/"), (b"c/",))
    assert stranger.batch(*found.clouded).returncode == 0
    assert "c/stale" not in stranger.arrived()


def test_name_below_an_unreadable_directory_is_due(stranger: Pair) -> None:
    stranger.file("b/x")
    stranger.file("y")
    (stranger.src / "b").chmod(0)
    found = stranger.due(b"b/x", b"y")
    assert (found.whole, found.due) == (False, (b"b/x",))


@needs_root
def test_root_not_owned_leaves_only_itself_due(stranger: Pair) -> None:
    stranger.file("b/x")
    os.chown(stranger.dst, 0, 0)
    stranger.dst.chmod(0o777)
    assert stranger.batch(b"b/", b"b/x").returncode == 0
    assert stranger.due(b"./", b"b/x").due == (b"./",)
    found = stranger.due_full()
    assert (found.whole, found.due) == (False, (b"./",))


@needs_root
def test_prefixed_name_under_a_root_not_owned_leaves_the_root_due(stranger: Pair) -> None:
    stranger.file("#x")
    os.chown(stranger.dst, 0, 0)
    stranger.dst.chmod(0o777)
    os.utime(stranger.src, (10**9, 10**9))
    found = stranger.due(b"#x")
    assert (found.whole, found.due) == (False, (b"./",))
    assert "#x" in stranger.arrived()


@needs_root
def test_directory_not_owned_leaves_only_itself_due(stranger: Pair) -> None:
    stranger.file("b/x")
    os.chown(stranger.folder("b", "dst"), 0, 0)
    (stranger.dst / "b").chmod(0o777)
    os.utime(stranger.src / "b", (10**9, 10**9))
    assert stranger.due(b"b/", b"b/x").due == (b"b",)
    found = stranger.due_full()
    assert (found.whole, found.due) == (False, (b"b",))


@needs_root
def test_unwritable_directory_leaves_its_names_due(stranger: Pair) -> None:
    stranger.file("b/x")
    stranger.file("b/k/j/f")
    stranger.file("ok")
    (stranger.src / "b/l").symlink_to("x")
    os.mkfifo(stranger.src / "b/p")
    os.chown(stranger.folder("b", "dst"), 0, 0)
    sent = (b"b/x", b"b/k/", b"b/k/j/", b"b/k/j/f", b"b/l", b"b/p", b"ok")
    found = stranger.due(*sent)
    assert not found.whole
    assert set(found.due) == {*sent, b"b"} - {b"ok"}
    assert stranger.arrived() == {"b", "ok"}
    assert stranger.due_full().whole


@needs_newest
@needs_root
def test_forbidden_deletion_stays_due(stranger: Pair) -> None:
    os.chown(stranger.file("c/stale", side="dst").parent, 0, 0)
    os.chown(stranger.file("gone/sub/f", side="dst").parent, 0, 0)
    stranger.folder("c")
    found = stranger.due(b"c/", b"gone")
    assert (found.whole, set(found.due)) == (False, {b"c", b"c/stale", b"gone"})


@needs_root
def test_forbidden_chown_leaves_the_names_due(stranger: Pair) -> None:
    os.chown(stranger.file("f"), 0, 0)
    os.chown(stranger.file("k/g"), 0, 0)
    stranger.file("ok")
    found = stranger.due(b"f", b"k/g", b"ok", extra=["--super"])
    assert (found.whole, found.due) == (False, (b"f", b"k/g"))
    assert stranger.arrived() == {"f", "k", "k/g", "ok"}


@needs_root
def test_forbidden_rename_leaves_the_name_due(stranger: Pair) -> None:
    stranger.file("b/x", "new")
    os.chown(stranger.file("b/x", side="dst"), 0, 0)
    os.chown(stranger.dst / "b", 0, 0)
    for side in (stranger.src, stranger.dst):
        (side / "b").chmod(0o1777)
        os.utime(side / "b", (10**9, 10**9))
    found = stranger.due(b"b/x")
    assert not found.whole
    assert b"b/x" in found.due


@needs_root
def test_file_that_cannot_make_way_leaves_what_is_below_due(stranger: Pair) -> None:
    stranger.file("b/x")
    stranger.file("b/c/y")
    stranger.file("b", side="dst")
    os.chown(stranger.dst, 0, 0)
    found = stranger.due(b"b/x", b"b/c/y")
    assert (found.whole, found.due) == (False, (b"b/c/y", b"b/x"))


@needs_newest
@needs_root
def test_complaints_about_odd_names_leave_them_or_everything_due(stranger: Pair) -> None:
    os.chown(stranger.folder("b", "dst"), 0, 0)
    names = [f"b/{name}" for name in ("a\nb", "\\#012", "é", "x (in y)", '"', '" -> "', ".f.abcdef")]
    for name in names:
        stranger.file(name)
        os.utime(stranger.src / "b", (10**9, 10**9))
        wire = os.fsencode(name)
        found = stranger.due(wire, b"other")
        assert wire in found.due
        assert found.whole is ('"' in name)


def test_max_delete_exceeded_leaves_everything_due(pair: Pair) -> None:
    pair.file("1", side="dst")
    pair.file("2", side="dst")
    assert pair.due(b"1", b"2", code=25, extra=["--max-delete=1"]).whole


def test_full_that_spares_deletions_reports_that_there_were_some(anywhere: Pair) -> None:
    anywhere.file("kept/f", side="dst")
    done = anywhere.run(full_argv(anywhere.settings, delete_nothing=True), names_input(EVERYTHING))
    assert actual_code(done.returncode, done.stderr.splitlines()) == DELETIONS_STOPPED
    assert anywhere.arrived() == {"kept", "kept/f"}
    (anywhere.dst / "kept/f").unlink()
    (anywhere.dst / "kept").rmdir()
    done = anywhere.run(full_argv(anywhere.settings, delete_nothing=True), names_input(EVERYTHING))
    assert actual_code(done.returncode, done.stderr.splitlines()) == 0


def test_transferred_bytes_are_printed_without_asking_the_node(pair: Pair, tmp_path: Path) -> None:
    """An rsync before 3.1 knows --stats, but not --info."""
    shell = tmp_path / "shell"
    shell.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/asked\nshift\nexec "$@"\n')
    shell.chmod(0o755)
    remote = replace(pair.settings, target=f"node:{pair.dst}", rsh=str(shell))
    pair.file("a", "x" * 5_000)
    for argv, names in ((batch_argv(remote), (b"a",)), (full_argv(remote), EVERYTHING)):
        (pair.dst / "a").unlink(missing_ok=True)
        done = pair.run(argv, names_input(names))
        assert done.returncode == 0
        assert 5_000 < transferred_bytes(done.stdout.splitlines()) < 10_000
    asked = (tmp_path / "asked").read_text()
    assert "--stats" in asked
    assert "--info" not in asked


@pytest.mark.parametrize("extra", ["-v", "-h", "-hh", "--info=none", "--info=all2", "--progress", "--no-h"])
def test_transferred_bytes_are_printed_with_any_verbosity(pair: Pair, extra: str) -> None:
    pair.file("a", "x" * 50_000)
    done = pair.batch(b"a", extra=[extra])
    assert done.returncode == 0
    percents = transferred_bytes(done.stdout.replace(b"\r", b"\n").splitlines())
    assert 45_000 < percents < 60_000 or (percents == 0 and extra == "--info=none")
    pair.file("b", "x" * 50_000)
    done = pair.batch(b"b", extra=[extra, "-q"])
    assert (done.returncode, transferred_bytes(done.stdout.splitlines())) == (0, 0)


def test_name_that_vanishes_during_the_transfer_stays_due(pair: Pair) -> None:
    (pair.src / "a").write_bytes(os.urandom(3_000_000))
    pair.file("z")
    for argv, data, full in (
        (batch_argv(replace(pair.settings, rspeed=2000)), names_input([b"a", b"z"]), False),
        (full_argv(replace(pair.settings, rspeed=2000)), names_input(EVERYTHING), True),
    ):
        pair.file("z")
        (pair.dst / "a").unlink(missing_ok=True)
        (pair.dst / "z").unlink(missing_ok=True)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with subprocess.Popen(argv, **pipes) as child:  # type: ignore[call-overload]
            child.stdin.write(data)
            child.stdin.close()
            # The list is made and the big file is on its way, so z is listed and not yet read.
            until(lambda: any(pair.dst.glob(".a.*")), LIMIT, "the transfer of a")
            (pair.src / "z").unlink()
            stderr = child.stderr.read()
            assert child.wait(LIMIT) == 24, stderr
        lines, source = stderr.splitlines(), pair.settings.source
        found = after_full(lines, source, str(pair.dst)) if full else after_batch(lines, source, [b"a", b"z"])
        assert (found.whole, found.due) == (False, (b"z",))


@pytest.mark.parametrize(
    "extra",
    [
        "--delay-updates",
        "--backup",
        "--backup --suffix=.old",
        "--backup --backup-dir={home}/backup",
        "--delay-updates --backup",
        "--partial-dir={home}/partial",
        "--temp-dir={home}",
        "-P",
        "--inplace",
        "--fuzzy --link-dest={home}/other",
    ],
)
def test_confined_batch_of_a_local_node_is_not_discarded(
    pair: Pair, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not IS_NEWEST:
        pytest.skip("an rsync that cannot be confined")
    monkeypatch.setenv("RSYNC_PARTIAL_DIR", ".partial")
    pair.file("a", "new content")
    pair.folder("other", "")
    for name in ("a", "b", "d/c"):
        pair.file(name, "old", "dst")
    words = tuple(extra.format(home=pair.home).split())
    done = pair.run(
        batch_argv(replace(pair.settings, root=str(pair.src), extra=words)), names_input([b"a", b"b", b"d"])
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert (pair.dst / "a").read_text() == "new content"
    assert not (pair.dst / "b").exists()
    assert not (pair.dst / "d/c").exists()


def test_confined_batch_of_many_names_arrives(pair: Pair) -> None:
    if not IS_NEWEST:
        pytest.skip("an rsync that cannot be confined")
    names = [b"d%02d/%03d-%s" % (number % 50, number, b"x" * 40) for number in range(3_000)]
    for name in names:
        pair.file(os.fsdecode(name), "x")
    confined = replace(pair.settings, root=str(pair.src))
    done = pair.run(batch_argv(confined), names_input([*names, *(b"d%02d/" % n for n in range(50))]))
    assert (done.returncode, done.stderr) == (0, b"")
    assert sum(len(files) for _, _, files in os.walk(pair.dst)) == len(names)
