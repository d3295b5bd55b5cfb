"""Patterns as tables. rsync itself has given each of these answers (see test_filter_oracle.py)."""

from __future__ import annotations

import pytest
from support.filters import excludes

from inosync.filters.rules import Rules


def hidden(patterns: list[bytes], path: bytes) -> bool:
    """The verdict on one name; a path with a trailing slash is a directory."""
    rules = Rules(excludes(patterns))
    return rules.excluded(path.removesuffix(b"/"), path.endswith(b"/"))


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        # no slash: the last component, whatever it is below
        (b"a", b"a a/ b/a b/c/a/", b"ab ba a/b aa/"),
        (b"a/", b"a/ b/a/", b"a b/a"),
        (b"a*", b"a ab/ x/ab", b"ba ab/x"),
        (b"*a", b"a ba x/ba ba/", b"ab ba/x"),
        (b"*.o", b".o a.o x/a.o d.o/", b"a.oo ao"),
        (b"*.o/", b"d.o/ x/d.o/", b"d.o"),
        (b"?", b"a x/a \xff", b"ab"),
        (b"*", b"a a/ x/a", b""),
        # a slash: as many last components
        (b"a/b", b"a/b x/a/b a/b/", b"b a/b/c xa/b"),
        (b"a/b/", b"a/b/ x/a/b/", b"a/b"),
        (b"a/*", b"a/b a/b/ x/a/b", b"a/ b a/b/c"),
        (b"*/a", b"x/a y/x/a", b"a"),
        (b"a//b", b"", b"a/b"),
        # a leading slash: from the root
        (b"/a", b"a a/", b"x/a ab"),
        (b"/a/", b"a/", b"a x/a/"),
        (b"/a/*.o", b"a/b.o", b"x/a/b.o a/b/c.o"),
        (b"/*", b"a b/", b"a/b"),
        (b"/", b"", b"a a/"),
        (b"//", b"", b"a a/"),
        # two stars cross slashes; at the start they take the root's slash too
        (b"**", b"a a/ a/b/c", b""),
        (b"**/", b"a/ a/b/", b"a a/b"),
        (b"**/a", b"a x/a x/y/a a/", b"ba x/ba"),
        (b"**a", b"a ba x/ba x/y/a", b"ab a/x"),
        (b"a/**", b"a/b a/b/c x/a/b a/b/", b"a/ a xa/b"),
        (b"/a/**", b"a/b a/b/c/", b"a/ x/a/b"),
        (b"a**b", b"ab axb a/b a/x/b x/a/b", b"xa/b a/bc"),
        (b"/**/b", b"x/b x/y/b", b"b"),
        (b"a/**/b", b"a/x/b a/x/y/b z/a/x/b", b"a/b"),
        # three stars at the end take the directory itself
        (b"a/***", b"a/ a/b a/b/c/ x/a/", b"a xa/"),
        (b"/a/***", b"a/ a/b", b"a x/a/b"),
        (b"/***", b"a a/ a/b", b""),
        (b"a/***/", b"a/ a/b/", b"a/b a"),
        (b"a***", b"a ab a/b x/a", b"ba"),
        (b"***", b"a a/b", b""),
        # a star stops at a slash, also when another star comes after it
        (b"a*/b*c", b"ax/bxc a/bc", b"a/x/bc ax/b/c"),
        (b"**a*b", b"a/ab x/axb ab", b"a/b"),
        (b"/*a**b*c", b"xa/bc xab/y/bzc", b"x/ab/c xa/b/c"),
    ],
)
def test_pattern_matches_these_paths(pattern: bytes, matching: bytes, others: bytes) -> None:
    for path in matching.split():
        assert hidden([pattern], path), path
    for path in others.split():
        assert not hidden([pattern], path), path


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (b"[ab]", [b"a", b"b"], [b"c", b"ab", b"]"]),
        (b"[a-c]x", [b"ax", b"cx"], [b"dx", b"-x", b"x"]),
        (b"[!a-c]", [b"d", b"-", b"\xff"], [b"a", b"c"]),
        (b"[^a]", [b"b", b"^"], [b"a"]),
        (b"[a^]", [b"a", b"^"], [b"b"]),
        (b"[]]", [b"]"], [b"a"]),
        (b"[!]]", [b"a"], [b"]"]),
        (b"[]-a]", [b"]", b"_", b"a"], [b"-", b"b"]),
        (b"[a-]", [b"a", b"-"], [b"b"]),
        (b"[--.]", [b"-", b"."], [b",", b"a"]),
        (b"[a-c-e]", [b"b", b"-", b"e"], [b"d"]),
        (b"[c-a]", [b"c"], [b"a", b"b"]),  # an empty range, but its start has been read as a member
        (b"[\\]]", [b"]"], [b"\\", b"a"]),
        (b"[a-\\c]", [b"b", b"c"], [b"\\", b"d"]),
        (b"[\\\\]", [b"\\"], [b"a"]),
        (b"[[:alpha:]]", [b"a", b"Z"], [b"1", b":", b"\xe9"]),
        (b"[[:digit:][:upper:]_]", [b"1", b"A", b"_"], [b"a"]),
        (b"[^[:alpha:]]", [b"1", b"\xe9"], [b"a"]),
        (b"[[:space:]]", [b" ", b"\n", b"\v"], [b"a"]),
        (b"[[:cntrl:]]", [b"\x01", b"\x7f"], [b" "]),
        (b"[[:punct:]]", [b"\\", b"]", b"~"], [b"a", b" "]),
        (b"[[:xdigit:]-b]", [b"f", b"-", b"b"], [b"g"]),  # no range starts at a class
        (b"[[:nonsense:]]", [], [b"n", b":", b"a"]),
        (b"[[::]]", [], [b":", b"["]),
        (b"[[:alpha]", [b"[", b":", b"p"], [b"z"]),  # not a class's name: a set of its bytes
        (b"[[:]", [b"[", b":"], [b"]"]),
        (b"[a", [], [b"a", b"[a", b"["]),
        (b"[", [], [b"["]),
        (b"[]", [], [b"]", b"[]"]),
        (b"a[/]b", [], [b"a/b"]),
        (b"?[!-0]?", [b"a1b"], [b"a-b", b"a/b"]),  # "/" lies in the range's complement, and never matches
        (b"[a-z/]x", [], [b"ax", b"y/ax"]),  # the slash counts: two components are compared with one
        (b"/[a-z/]x", [b"ax"], [b"b/x"]),
    ],
)
def test_class_matches_these_bytes(pattern: bytes, matching: list[bytes], others: list[bytes]) -> None:
    assert [name for name in matching + others if hidden([pattern], name)] == matching


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (b"a\\b", [b"a\\b"], [b"ab"]),  # no wildcard in the pattern: a backslash is itself
        (b"\\a", [b"\\a"], [b"a"]),
        (b"a\\b*", [b"ab", b"abc"], [b"a\\b"]),
        (b"\\*", [b"*"], [b"a", b"\\*"]),
        (b"\\[a]", [b"[a]"], [b"a"]),
        (b"\\??", [b"?a"], [b"ab"]),
        (b"*\\\\", [b"a\\"], [b"a"]),
        (b"*\\", [], [b"a", b"a\\"]),  # nothing is escaped: matches nothing
        (b"\\**", [b"*", b"*a", b"x/*y"], [b"a"]),  # ** all the same: matched against the whole path
        (b".", [b"."], [b"a"]),
        (b"a+$", [b"a+$"], [b"aa", b"a+$\n"]),
        (b"*a", [b"a", b"\na"], [b"a\n"]),
        (b"*\xff*", [b"\xff", b"a\xffb"], [b"a", "ÿ".encode()]),
        (b" a ", [b" a "], [b"a", b" a"]),
        (b"!a", [b"!a"], [b"a"]),
        (b"-", [b"-"], [b"a"]),
        (b"-a", [b"-a"], [b"a"]),
    ],
)
def test_backslash_escapes_only_in_patterns_with_wildcards(
    pattern: bytes, matching: list[bytes], others: list[bytes]
) -> None:
    assert [name for name in matching + others if hidden([pattern], name)] == matching


def test_text_pattern_is_the_bytes_of_the_file_system() -> None:
    rules = Rules(excludes(["é*", "b\udcff"]))
    assert rules.excluded("é1".encode(), False)
    assert rules.excluded(b"b\xff", False)


@pytest.mark.timeout(10)
def test_many_stars_do_not_explode() -> None:
    rules = Rules(excludes([b"*a" * 30 + b"b", b"**a" * 30 + b"/b*a*b", b"a/*?a*?a*?a**b"]))
    assert not rules.excluded(b"a" * 250, False)
    assert not rules.excluded(b"a/" + b"a" * 250, False)
