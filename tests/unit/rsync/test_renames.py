"""Which renames rsync can follow on a node: options, names, rules, and what rrsync says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.changes import Rename
from inosync.filters.rule import Rule, from_filter
from inosync.filters.rules import Rules
from inosync.rsync.argv import TransferSettings
from inosync.rsync.renames import are_position_free, is_plain, may_follow, may_link, needs_anchor

LOCAL, SSH, DAEMON = "/srv/www", "host:/srv/www", "rsync://host/module/www"
SETTINGS = TransferSettings("rsync", "/src", LOCAL)


@pytest.mark.parametrize(
    "extra", ["", "-avz --delete", "-A -X -H", "-W", "--partial-dir=.part", "-T /tmp", "-u -c", "-x"]
)
def test_renames_are_followed_with(extra: str) -> None:
    assert may_follow(replace(SETTINGS, extra=tuple(extra.split())))


@pytest.mark.parametrize(
    "extra",
    [
        "--link-dest=/x",
        "--copy-dest /x",
        "--compare-dest=/x",
        "-b",
        "-ab",
        "--backup-dir=/x",
        "--inplace",
        "--append",
        "--append-verify",
        "--delay-updates",
        "-I",
        "-aI",
        "--ignore-times",
        "--size-only",
        "--no-times",
        "-a --no-t",
        "--existing",
        "--ignore-existing",
        "--max-size=1m",
        "--max-delete=5",
        "-L",
        "-k",
        "--iconv=utf8,latin1",
    ],
)
def test_renames_are_not_followed_with(extra: str) -> None:
    assert not may_follow(replace(SETTINGS, extra=tuple(extra.split())))


@pytest.mark.parametrize(
    ("name", "plain_for"),
    [
        (b"a/b.c-d_e+f,g=h@i%j:k", {LOCAL, SSH, DAEMON}),
        ("ü".encode(), {LOCAL, SSH, DAEMON}),
        (b"\xff", {LOCAL, SSH, DAEMON}),
        (b"a b", {LOCAL, DAEMON}),
        (b"$(a)", {LOCAL, DAEMON}),
        (b"a;b", {LOCAL, DAEMON}),
        (b"a'b", {LOCAL, DAEMON}),
        (b"~a", {LOCAL, DAEMON}),
        (b"#a", {LOCAL, DAEMON}),
        (b"a*", set()),
        (b"a?", set()),
        (b"[a]", set()),
        (b"a\\b", set()),
        (b"a\nb", set()),
        (b"a\tb", set()),
    ],
)
def test_names_are_plain_where_no_shell_and_no_pattern_is_in_the_way(
    name: bytes, plain_for: set[str]
) -> None:
    for target in (LOCAL, SSH, DAEMON):
        found = {is_plain(target, Rename(*pair, is_directory=True)) for pair in ((name, b"x"), (b"x", name))}
        assert found == {target in plain_for}, target


def test_links_are_made_only_where_the_old_name_is_removed() -> None:
    found = {
        value: may_link(replace(SETTINGS, rdelete=value)) for value in (True, False, "startup", "running")
    }
    assert found == {True: True, False: False, "startup": False, "running": True}


@pytest.mark.parametrize(
    ("rule", "free"),
    [
        ("- *.tmp", True),
        ("- cache/", True),
        ("+ *.html", True),
        ("-! *.html", True),
        ("P kept", True),
        ("- /cache", False),
        ("- a/b", False),
        ("- **/x", False),
        ("- x**", False),
        ("- x/***", False),
        ("-/ x", False),
        ("-x user.*/y", True),
        ("!", True),
    ],
)
def test_rules_are_position_free(rule: str, free: bool) -> None:
    assert are_position_free(from_filter(rule)) == free


PATTERNS = st.lists(
    st.sampled_from(["a", "b", "*", "?", "[ab]", "/", "**", "."]), min_size=1, max_size=4
).map("".join)
PATHS = st.lists(st.sampled_from([b"a", b"b", b"ab", b"c."]), min_size=1, max_size=3).map(b"/".join)


@given(st.lists(st.tuples(PATTERNS, st.booleans()), max_size=3), PATHS, PATHS, st.booleans())
def test_position_free_rules_say_the_same_below_any_directory(
    patterns: list[tuple[str, bool]], above: bytes, path: bytes, is_directory: bool
) -> None:
    rules = [Rule(pattern.encode(), include) for pattern, include in patterns]
    if are_position_free(rules):
        found = Rules(rules)
        assert found.excluded(above + b"/" + path, is_directory) == found.excluded(path, is_directory)


def test_rrsync_wants_the_way_from_the_root() -> None:
    said = b"/usr/bin/rrsync error: do not use .. in --link-dest (anchor the path at the root of ...)"
    assert needs_anchor([b"Hello", said], SSH)
    assert not needs_anchor([said], DAEMON)
    assert not needs_anchor([b"rsync error: some files/attrs were not transferred (code 23)"], SSH)
