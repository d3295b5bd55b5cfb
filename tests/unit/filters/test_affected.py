"""Where a change of rules makes a difference, and that nothing differs anywhere else."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.filters import excludes, protecting

from inosync.filters.affected import affected, listings, merged
from inosync.filters.rule import Rule, from_filter
from inosync.filters.rules import Rules


def rules(*texts: str) -> tuple[Rule, ...]:
    return tuple(rule for text in texts for rule in from_filter(text))


@pytest.mark.parametrize(
    ("pattern", "place"),
    [
        ("/cache", b"cache"),
        ("/cache/", b"cache"),
        ("/a/b/c", b"a/b/c"),
        ("/a/b/***", b"a/b"),
        ("/a/*.tmp", b"a"),
        ("/a/b*/c", b"a"),
        ("/back\\slash", b"back\\slash"),
        ("/a/b\\b/c*", b"a"),
        ("/a/b\\b/***", b"a"),
        ("/*", None),
        ("/***", None),
        ("*.tmp", None),
        ("a/b", None),
        ("/", None),
    ],
)
def test_affected_is_the_literal_beginning_of_a_pattern(pattern: str, place: bytes | None) -> None:
    expected = None if place is None else frozenset({place})
    assert affected((), excludes([pattern])) == expected
    assert affected(excludes([pattern]), ()) == expected


def test_affected_is_nothing_for_equal_lists() -> None:
    same = rules("- *.tmp", "+ /a/***", "- /b")
    assert affected(same, same) == frozenset()


def test_affected_ignores_common_beginnings_and_ends() -> None:
    old = rules("- *.tmp", "- /a", "+ /b", "- *.bak")
    new = rules("- *.tmp", "- /c", "+ /b", "- *.bak")
    assert affected(old, new) == frozenset({b"a", b"c"})


def test_affected_by_another_order() -> None:
    assert affected(rules("- /a", "+ /b/c"), rules("+ /b/c", "- /a")) == frozenset({b"a", b"b/c"})


def test_affected_ignores_rules_before_a_clear() -> None:
    assert affected(rules("- *.tmp", "!", "- /a"), rules("- /a")) == frozenset()


def test_affected_ignores_rules_for_attributes() -> None:
    assert affected((), rules("-x user.*")) == frozenset()


@pytest.mark.parametrize("text", ["-! /a", "-/ /srv/www/a", "P *.log"])
def test_affected_may_be_anywhere_without_an_anchor(text: str) -> None:
    assert affected((), rules(text)) is None


def test_affected_holds_no_place_inside_another() -> None:
    assert affected((), rules("- /a", "- /a/b", "- /ab")) == frozenset({b"a", b"ab"})


def test_merged_holds_the_outermost_places() -> None:
    assert merged([]) == frozenset()
    assert merged([frozenset({b"a/b"}), frozenset({b"a", b"c"})]) == frozenset({b"a", b"c"})
    assert merged([frozenset({b"a"}), None]) is None


NAMES = ("a", "ab", "a.b")
PATHS = [
    (b"/".join(name.encode() for name in path), is_dir)
    for depth in (1, 2, 3)
    for path in itertools.product(NAMES, repeat=depth)
    for is_dir in (False, True)
]
COMPONENTS = st.sampled_from([*NAMES, "*", "a*", "?", "[ab]", "**", "*.b"])
PATTERNS = st.builds(
    lambda start, components, end: start + "/".join(components) + end,
    st.sampled_from(["/", "/", "/", ""]),
    st.lists(COMPONENTS, min_size=1, max_size=3),
    st.sampled_from(["", "", "/", "/***"]),
)
RULES = st.builds(lambda kind, pattern: f"{kind} {pattern}", st.sampled_from("-+-+HSPR"), PATTERNS) | st.just(
    "!"
)
LISTS = st.lists(RULES, max_size=5).map(lambda texts: rules(*texts))


@given(before=LISTS, first=LISTS, second=LISTS, after=LISTS)
def test_names_outside_affected_places_are_treated_as_before(
    before: tuple[Rule, ...], first: tuple[Rule, ...], second: tuple[Rule, ...], after: tuple[Rule, ...]
) -> None:
    old, new = before + first + after, before + second + after
    places = affected(old, new)
    if places is None:
        return
    one, other = Rules(old), Rules(new)
    kept_by_one, kept_by_other = protecting(old), protecting(new)
    for path, is_dir in PATHS:
        if not any(path == place or path.startswith(place + b"/") for place in places):
            assert one.excluded_below(path, is_dir) == other.excluded_below(path, is_dir)
            assert kept_by_one.excluded_below(path, is_dir) == kept_by_other.excluded_below(path, is_dir)


def test_listings_are_the_parents_of_places() -> None:
    assert listings(frozenset({b"a/b", b"a/c/d", b"e/f"})) == frozenset({b"a", b"e"})
    assert listings(frozenset({b"a/b", b"c"})) is None
    assert listings(frozenset()) == frozenset()
    assert listings(None) is None
