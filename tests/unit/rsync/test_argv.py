"""rsync's argument vectors and its list of names: what is in them, and what bash makes of them."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.filters import excludes

from inosync.changes import Rename
from inosync.filters import rule as filter_rules
from inosync.rsync.argv import (
    NO_NAME,
    RenameWay,
    TransferSettings,
    batch_argv,
    compare_argv,
    compare_names_argv,
    full_argv,
    names_input,
    rename_argv,
    rules_bytes,
    shell_line,
    too_long,
)

PLAIN = TransferSettings("/usr/bin/rsync", "/srv/www", "a.mirror.com:/srv/www")
DELETING = ("--delete-missing-args", "--delete", "--force")

# Wire names: no NUL, not empty; everything else may come from the kernel.
WIRE_NAMES = st.binary(min_size=1, max_size=12).map(lambda name: name.replace(b"\0", b"\n"))


def test_batch_reads_names_and_does_not_recurse() -> None:
    assert batch_argv(PLAIN) == (
        "/usr/bin/rsync",
        "-lptgoD",
        "--dirs",
        "--files-from=-",
        *DELETING,
        "--stats",
        "--remote-option=--modify-window=-1",
        "--from0",
        "/srv/www/",
        "a.mirror.com:/srv/www/.",
    )


@pytest.mark.parametrize(
    ("rename", "target", "way", "ends"),
    [
        (
            Rename(b"a", b"x/b", True),
            "h:/w",
            RenameWay(links=True, whole=True, anchored=False, deletes=True),
            ("--delete-delay", "--link-dest=../../a", "/srv/www/x/b/", "h:/w/x/b/."),
        ),
        (
            Rename(b"a", b"x/b", True),
            "h:/w",
            RenameWay(links=False, whole=True, anchored=False),
            ("--copy-dest=../../a", "/srv/www/x/b/", "h:/w/x/b/."),
        ),
        (
            Rename(b"a", b"x/b", True),
            "h:/w",
            RenameWay(links=True, whole=True, anchored=False, compares=True),
            ("--checksum", "--link-dest=../../a", "/srv/www/x/b/", "h:/w/x/b/."),
        ),
        (
            Rename(b"x/f", b"y/f", False),
            "h:/w",
            RenameWay(links=True, whole=False, anchored=False),
            ("--confine-root=/real", "--fuzzy", "--fuzzy", "--link-dest=../x", "/srv/www/y/", "h:/w/y/."),
        ),
        (
            Rename(b"x/f", b"x/g", False),
            "h:/w",
            RenameWay(links=True, whole=False, anchored=False),
            ("--confine-root=/real", "--fuzzy", "/srv/www/", "h:/w/."),
        ),
        (
            Rename(b"x/f", b"x/g", False),
            "/w",
            RenameWay(links=True, whole=False, anchored=False),
            ("--fuzzy", "/srv/www/x/", "/w/x/."),
        ),
    ],
)
def test_rename_is_followed_from(rename: Rename, target: str, way: RenameWay, ends: tuple[str, ...]) -> None:
    root = "" if target == "/w" else "/real"  # a local receiver is not confined
    found = rename_argv(replace(PLAIN, target=target, root=root), rename, way)
    telling = ("--checksum", "--delete", "--link", "--copy", "--confine", "--fuzzy", "/", "h:")
    assert tuple(word for word in found[1:] if word.startswith(telling)) == ends
    kept = rename_argv(replace(PLAIN, target=target, rdelete="startup"), rename, way)
    assert not any(word.startswith("--delete") for word in kept)


def test_full_mirror_compares_everything_and_prints_progress() -> None:
    assert full_argv(PLAIN) == (
        "/usr/bin/rsync",
        "-rlptgoD",
        "--files-from=-",
        "--delete-delay",
        "--info=progress2",
        "--outbuf=L",
        "--stats",
        "--remote-option=--modify-window=-1",
        "--from0",
        "/srv/www/",
        "a.mirror.com:/srv/www",
    )


def test_full_mirror_that_only_adds_sends_no_links_whatever_extra_says() -> None:
    argv = full_argv(replace(PLAIN, extra=("-l",)), only_adds=True)
    assert argv[-4:] == ("--no-links", "--from0", "/srv/www/", "a.mirror.com:/srv/www")
    assert "--no-links" not in full_argv(PLAIN)


def test_batch_that_only_removes_has_nothing_to_send() -> None:
    plain, removes = batch_argv(PLAIN), batch_argv(PLAIN, only_removes=True)
    added = set(removes) - set(plain)
    assert {word.partition("=")[0] for word in added} == {
        "--min-size",
        "--no-links",
        "--no-devices",
        "--no-specials",
    }
    assert set(plain) <= set(removes)


@pytest.mark.parametrize("target", ["/srv/copy", "rsync://a.mirror.com/www", "a.mirror.com::www"])
def test_exact_times_are_a_remote_option_through_ssh_only(target: str) -> None:
    s = replace(PLAIN, target=target)
    for argv in (batch_argv(s), full_argv(s), compare_argv(s, True)):
        assert "--modify-window=-1" in argv


def test_comparison_is_a_dry_run_that_prints_differences() -> None:
    s = replace(PLAIN, extra=("-zq", "--quiet", "-qe", "ssh", "-qT/tmp"))
    assert compare_argv(s, True) == (
        "/usr/bin/rsync",
        "-rlptgoD",
        "--files-from=-",
        "--delete",
        "--remote-option=--modify-window=-1",
        *("-z", "-e", "ssh", "-T", "/tmp"),
        "--checksum",
        "--dry-run",
        "--out-format=inosync:%i %n",
        "--info=none",
        "--from0",
        "/srv/www/",
        "a.mirror.com:/srv/www",
    )
    for rdelete in (False, "startup", "running"):
        argv = compare_argv(replace(s, rdelete=rdelete), False)
        assert not {"--delete", "--checksum"} & set(argv)


def test_comparison_of_names_deletes_nothing_and_looks_no_deeper() -> None:
    s = replace(PLAIN, extra=("-rI",), target="rsync://a.mirror.com/www")
    words = compare_names_argv(s)
    assert {"--dry-run", "--dirs", "--no-recursive", "--ignore-missing-args"} <= set(words)
    assert not {"-I", "-rI", "--delete", "--force", "--delete-missing-args", "--size-only"} & set(words)
    assert words[-1] == s.target, "the root itself may be missing"


def test_full_mirror_may_ignore_times_too() -> None:
    without = full_argv(PLAIN)
    assert tuple(word for word in full_argv(PLAIN, ignore_times=True) if word != "--ignore-times") == without
    assert "--ignore-times" not in without


def test_ignore_times_comes_after_extra() -> None:
    argv = batch_argv(replace(PLAIN, extra=("--size-only",)), ignore_times=True)
    assert argv.index("--ignore-times") > argv.index("--size-only")
    assert tuple(word for word in argv if word not in ("--ignore-times", "--size-only")) == batch_argv(PLAIN)


def test_rules_limit_and_extra_come_in_this_order() -> None:
    s = replace(PLAIN, rules=excludes(["*.tmp", "+ b"]), rspeed=50, extra=("-z", "-e", "ssh -p 22"))
    middle = ("--exclude=*.tmp", "--include=b", "--bwlimit=50", "-z", "-e", "ssh -p 22")
    assert full_argv(s)[-9:] == (*middle, "--from0", "/srv/www/", s.target)
    assert batch_argv(s)[-9:] == (*middle, "--from0", "/srv/www/", s.target + "/.")


def test_rules_bytes_are_no_less_than_what_rules_take() -> None:
    for rule in (b"- a", b"+/!pxsr b", b"P,!x " + b"c" * 4095, b"!", b"- !"):
        rules = filter_rules.from_filter(rule)
        assert rules_bytes(rules) >= sum(len(word) + 1 + 8 for word in (rule.word for rule in rules))
    assert rules_bytes(()) == 0


def test_rsh_of_ours_comes_after_that_of_the_user() -> None:
    # rsync takes the last one; ours is made of the user's.
    s = replace(PLAIN, rsh="ssh -p 22 -o ControlMaster=no", extra=("-e", "ssh -p 22"))
    for argv in (batch_argv(s), full_argv(s), compare_argv(s, checksum=False)):
        assert argv.count("--rsh=ssh -p 22 -o ControlMaster=no") == 1
        assert argv.index("--rsh=ssh -p 22 -o ControlMaster=no") > argv.index("-e")


def test_rsh_is_left_to_rsync_without_one_of_ours() -> None:
    for argv in (batch_argv(PLAIN), full_argv(PLAIN)):
        assert not [word for word in argv if "rsh" in word or word == "-e"]


@pytest.mark.parametrize("target", ["h::www", "rsync://h/www"])
def test_daemons_get_small_messages_without_delay(target: str) -> None:
    for argv in (batch_argv(replace(PLAIN, target=target)), full_argv(replace(PLAIN, target=target))):
        assert "--sockopts=TCP_NODELAY" in argv
    assert "--sockopts=TCP_NODELAY" not in (*batch_argv(PLAIN), *full_argv(PLAIN))


@pytest.mark.parametrize(
    ("rdelete", "full", "batch"),
    [(True, True, True), (False, False, False), ("startup", True, False), ("running", False, True)],
)
def test_rdelete_decides_which_calls_delete(rdelete: bool | str, full: bool, batch: bool) -> None:
    s = replace(PLAIN, rdelete=rdelete)
    assert ("--delete-delay" in full_argv(s)) is full
    assert ("--force" in full_argv(s, only_adds=True)) is full
    assert not any(word.startswith("--delete") for word in full_argv(s, only_adds=True))
    assert all((option in batch_argv(s)) is batch for option in DELETING)
    assert ("--ignore-missing-args" in batch_argv(s)) is not batch
    if batch:
        # For a node that cannot take names that are gone: all but those.
        argv = batch_argv(replace(s, list_missing=False))
        assert [word for word in DELETING if word in argv] == ["--delete", "--force"]
        assert "--ignore-missing-args" in argv


@pytest.mark.parametrize(
    "extra", [("-r",), ("-avzr",), ("--recursive",), ("-e", "ssh", "-r"), ("--no-r", "-r")]
)
def test_batch_takes_back_recursion_of_extra(extra: tuple[str, ...]) -> None:
    s = replace(PLAIN, extra=extra)
    argv = batch_argv(s)
    assert argv[argv.index(extra[-1]) + 1 :][0] == "--no-recursive"
    assert "--no-recursive" not in full_argv(s)


@pytest.mark.parametrize(
    "extra", [(), ("-a",), ("-e", "-r"), ("-essh -r",), ("--rsh=ssh -r",), ("--exclude", "-r")]
)
def test_batch_without_recursion_in_extra_takes_nothing_back(extra: tuple[str, ...]) -> None:
    assert "--no-recursive" not in batch_argv(replace(PLAIN, extra=extra))


@pytest.mark.parametrize(
    ("target", "becomes"),
    [
        ("/dst", "/dst/."),
        ("/dst/", "/dst/."),
        ("h:dst", "h:dst/."),
        ("u@h:", "u@h:"),
        ("h::www", "h::www/."),
        ("rsync://h/www/", "rsync://h/www/."),
    ],
)
def test_batch_never_creates_its_target(target: str, becomes: str) -> None:
    assert batch_argv(replace(PLAIN, target=target))[-1] == becomes
    assert full_argv(replace(PLAIN, target=target))[-1] == target


@pytest.mark.parametrize("source", ["/srv/www", "/srv/www/", "/srv/www//"])
def test_source_ends_in_one_slash(source: str) -> None:
    assert batch_argv(replace(PLAIN, source=source))[-2] == "/srv/www/"


def test_names_input_ends_names_with_nul_and_prefixes_comments() -> None:
    names = [b"a", b"b/", b"./", b"#x", b";x/", b"-n", b"a\n#b", b"*\xff", b" #"]
    assert names_input(names) == b"a\0b/\0./\0./#x\0./;x/\0-n\0a\n#b\0*\xff\0 #\0"


@given(names=st.lists(WIRE_NAMES, max_size=4))
def test_unreadable_owner_name_matches_nothing(names: list[bytes]) -> None:
    # It is what the empty name would be, and no list of names has that.
    assert names_input([b""]) == NO_NAME
    assert not names_input(names).startswith(NO_NAME)
    assert NO_NAME + NO_NAME not in names_input(names)


@pytest.mark.parametrize(
    ("length", "first", "expected"),
    [(4086, b"x", False), (4087, b"x", True), (4086, b"#", False)],
)
def test_too_long_counts_bytes_without_the_slash(length: int, first: bytes, expected: bool) -> None:
    name = first + b"x" * (length - 1)
    assert too_long(name) is expected
    assert too_long(name + b"/") is expected


# The line that -p prints


@settings(max_examples=40)
@given(names=st.lists(WIRE_NAMES, max_size=4), word=WIRE_NAMES)
def test_shell_line_gives_exactly_these_arguments_and_names(names: list[bytes], word: bytes) -> None:
    echo = 'printf "%s\\0" "$@"; printf "\\1"; cat'
    argv = ("/bin/sh", "-c", echo, "sh", "--from0", os.fsdecode(word))
    line = shell_line(argv, names)
    assert line.isascii()
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", line], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True)
    assert done.stdout == b"--from0\0" + word + b"\0\1" + names_input(names)


def test_shell_line_keeps_a_digit_after_an_escape() -> None:
    assert shell_line(("x",), [b"\n1", b"\xffb'\\"]) == r"printf '%s\0' $'\0121' $'\377b\047\134' | x"


def test_batch_is_confined_to_the_tree_where_possible() -> None:
    settings = TransferSettings("rsync", "/wpath", "node:rpath", root="/real/path")
    assert "--confine-root=/real/path" in batch_argv(settings)
    assert not any("confine" in word for word in full_argv(settings))  # it follows no symlink by itself
    assert not any("confine" in word for word in batch_argv(replace(settings, root="")))
    elsewhere = replace(settings, extra=("--password-file=/etc/secret",))
    assert not any("confine" in word for word in batch_argv(elsewhere))


@pytest.mark.parametrize("extra", ["--backup", "-avP", "--delay-updates", "--temp-dir=/elsewhere"])
def test_batch_of_a_local_node_is_not_confined_with_places_beside_it(extra: str) -> None:
    settings = TransferSettings("rsync", "/wpath", "/copy", extra=(extra,), root="/real/path")
    assert not any("confine" in word for word in batch_argv(settings))
    assert "--confine-root=/real/path" in batch_argv(replace(settings, target="h::m"))
    assert "--confine-root=/real/path" in batch_argv(replace(settings, extra=("--inplace",)))


def test_comparison_without_times_compares_sizes_or_checksums() -> None:
    without = replace(PLAIN, extra=("--no-times",))
    assert "--size-only" in compare_argv(without, checksum=False)
    assert "--size-only" not in compare_argv(without, checksum=True)
    assert "--size-only" not in compare_argv(PLAIN, checksum=False)


@pytest.mark.parametrize("words", [("--modify-window=1",), ("-@", "2"), ("-@1",)])
@pytest.mark.parametrize("target", ["h:/copy", "h::copy", "/copy"])
def test_modify_window_of_the_user_is_the_only_one(words: tuple[str, ...], target: str) -> None:
    argv = batch_argv(replace(PLAIN, target=target, extra=words))
    assert not any("modify-window=-1" in word for word in argv)
    exact = batch_argv(replace(PLAIN, target=target, extra=("--modify-window=-1",)))
    assert sum("modify-window=-1" in word for word in exact) == 2
