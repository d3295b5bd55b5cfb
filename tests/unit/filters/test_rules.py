"""Lists of rules as tables. rsync itself has given each of these answers (see test_filter_oracle.py)."""

from __future__ import annotations

import time

import pytest
from support.filters import excludes, protecting

from inosync.filters import rule as filter_rules
from inosync.filters.rule import FilterError
from inosync.filters.rules import Rules, hidden_by_all


def hidden(patterns: list[bytes], path: bytes) -> bool:
    """The verdict on one name; a path with a trailing slash is a directory."""
    rules = Rules(excludes(patterns))
    return rules.excluded(path.removesuffix(b"/"), path.endswith(b"/"))


def test_first_rule_that_matches_decides() -> None:
    patterns = [b"+ *.txt", b"- a*", b"+ /ab/", b"*"]
    assert not hidden(patterns, b"a.txt")
    assert hidden(patterns, b"ab/")
    assert hidden(patterns, b"b")
    assert not hidden([b"- a.*", b"+ *.c"], b"b.c")
    assert not hidden([b"+ b/", b"*"], b"b/")
    assert hidden([b"+ b/", b"*"], b"b")


def test_name_that_no_rule_matches_is_not_excluded() -> None:
    assert not hidden([b"+ a"], b"b")
    assert not hidden([], b"b")


def test_root_is_never_excluded() -> None:
    rules = Rules([*excludes([b"*", b"**", b"/***", b"."]), *filter_rules.from_filter(b"-! a")])
    assert not rules.excluded(b"", True)
    assert not rules.excluded_below(b"", True)


def test_negated_rule_matches_what_its_pattern_does_not() -> None:
    rules = Rules(filter_rules.from_filter(b"-! *.c"))
    assert rules.excluded(b"a.h", False)
    assert rules.excluded(b"x/d", True)
    assert not rules.excluded(b"x/a.c", False)


def test_negated_rule_for_directories_matches_every_file() -> None:
    rules = Rules(filter_rules.from_filter(b"-! a/"))
    assert rules.excluded(b"a", False)
    assert not rules.excluded(b"a", True)


def test_negated_pattern_that_matches_nothing_matches_all() -> None:
    for rule in (b"-! [a", b"-! a*\\", b"-! /"):
        assert Rules(filter_rules.from_filter(rule)).excluded(b"a", False), rule


@pytest.mark.parametrize(
    ("rule", "from_transfer", "from_deletion"),
    [
        (b"- a", True, True),
        (b"exclude a", True, True),
        (b"H a", True, False),
        (b"hide_a", True, False),
        (b"-s a", True, False),
        (b"P a", False, True),
        (b"protect,p a", False, True),
        (b"-,r a", False, True),
        (b"-sr a", True, True),
        (b"-x a", False, False),
    ],
)
def test_rule_is_for_the_sender_or_the_receiver(
    rule: bytes, from_transfer: bool, from_deletion: bool
) -> None:
    rules = Rules(filter_rules.from_filter(rule))
    assert rules.excluded(b"a", False) is from_transfer
    assert protecting(rules.rules).excluded(b"a", False) is from_deletion


def test_show_and_risk_win_for_their_side_only() -> None:
    everything = excludes(["*"])
    shown = [*filter_rules.from_filter("S a"), *everything]
    assert not Rules(shown).excluded(b"a", False)
    assert protecting(shown).excluded(b"a", False)
    risked = [*filter_rules.from_filter("risk a"), *everything]
    assert Rules(risked).excluded(b"a", False)
    assert not protecting(risked).excluded(b"a", False)


def test_perishable_rule_does_not_count_in_a_deleted_directory() -> None:
    rules = [*filter_rules.from_filter("-p a"), *filter_rules.from_filter("- b")]
    assert Rules(rules).excluded(b"d/a", False)
    assert protecting(rules).excluded(b"d/a", False)
    assert not protecting(rules, dying=True).excluded(b"d/a", False)
    assert protecting(rules, dying=True).excluded(b"d/b", False)


def test_absolute_rule_is_matched_with_the_root_before_the_path() -> None:
    rules = Rules(filter_rules.from_filter("-/ /srv/www/a"), root=b"/srv/www")
    assert rules.excluded(b"a", False)
    assert not rules.excluded(b"x/a", False)
    assert not protecting(rules.rules, b"/mirror").excluded(b"a", False)
    assert Rules(filter_rules.from_filter("-/ www/a"), root=b"/srv/www/").excluded(b"a", True)
    assert Rules(filter_rules.from_filter("-/ /a"), root=b"/").excluded(b"a", True)


def test_wildcard_of_two_stars_takes_no_slash_before_an_absolute_path() -> None:
    rules = Rules(filter_rules.from_filter("-/ **/srv/a"), root=b"/srv")
    assert not rules.excluded(b"a", False)
    assert rules.excluded(b"srv/a", False)


def test_absolute_rule_is_refused_without_the_root() -> None:
    hides, protects = filter_rules.from_filter("-/s a/b"), filter_rules.from_filter("P/ a/b")
    with pytest.raises(FilterError, match="absolute path"):
        Rules(hides)
    assert not Rules(protects).excluded(b"a/b", False)
    with pytest.raises(FilterError, match="absolute path"):
        protecting(protects)
    assert Rules(filter_rules.from_filter("-/ a")).excluded(b"x/a", False)  # a last component needs no root


def test_everything_below_an_excluded_directory_is_excluded() -> None:
    rules = Rules(excludes(["+ /ex/keep", "ex/", "/a/b/c"]))
    assert rules.excluded_below(b"ex/keep", False)
    assert rules.excluded_below(b"x/ex/y/z", True)
    assert not rules.excluded_below(b"x/y", False)
    assert not rules.excluded_below(b"ex", False)
    assert rules.excluded_below(b"ex", True)
    assert rules.excluded_below(b"a/b/c/d", False)
    assert not rules.excluded_below(b"a/b", True)


def test_answers_for_directories_survive_a_full_cache() -> None:
    rules = Rules(excludes(["ex"]))
    for number in range(30_000):
        assert not rules.excluded_below(b"d%d/f" % number, False)
    assert rules.excluded_below(b"d1/ex/f", False)
    assert not rules.excluded_below(b"d1/f", False)


class Counting(Rules):
    """Counts the paths that are looked at."""

    looks = 0

    def excluded(self, path: bytes, is_dir: bool) -> bool:
        self.looks += 1
        return super().excluded(path, is_dir)


def test_rules_match_each_directory_once() -> None:
    rules = Counting(excludes(["*.tmp", "/a/*/c/"]))
    for number in range(1000):
        assert not rules.excluded_below(b"a/b/x/y/f%d" % number, False)
        assert rules.excluded_below(b"a/b/c/d/f%d" % number, False)
    # a, a/b, a/b/x, a/b/x/y and its files; a/b/c, and nothing below it
    assert rules.looks == 4 + 1000 + 1


def test_hundred_rules_cost_little_more_than_one() -> None:
    """The best of several rounds each: whatever else runs, it does not make a round faster."""

    def best(count: int) -> float:
        kinds = ("*.ext%d", "/dir%d/cache/", "name%d", "/a/*/b%d/*.o", "[abc]%d*", "/top%d")
        rules = Rules(excludes(kinds[number % len(kinds)] % number for number in range(count)))
        rounds = []
        for _ in range(20):
            began = time.perf_counter()
            for number in range(200):
                rules.excluded(b"some/path/to/a/file%d.html" % number, False)
            rounds.append(time.perf_counter() - began)
        return min(rounds)

    assert best(100) < 30 * best(1)


def test_paths_may_have_very_many_levels() -> None:
    rules = Rules(excludes(["ex"]))
    assert not rules.excluded_below(b"d/" * 5000 + b"f", False)
    assert rules.excluded_below(b"d/" * 1000 + b"ex/" + b"d/" * 1000 + b"f", False)


def test_hidden_by_all_needs_every_list() -> None:
    def hidden_by(*lists: str) -> list[bytes]:
        hidden = hidden_by_all(Rules(excludes(patterns.split())) for patterns in lists)
        return [path for path in (b"a", b"b", b"a/b") if hidden(path, True)]

    assert hidden_by("a b") == [b"a", b"b", b"a/b"]
    assert hidden_by("a b", "b") == [b"b", b"a/b"]
    assert hidden_by("a", "b") == [b"a/b"]  # one excludes it, the other the directory that it is in
    assert hidden_by("a", "") == []
    assert hidden_by() == []


def test_clear_drops_the_rules_before_it() -> None:
    rules = Rules([*excludes(["a"]), *excludes(["b", "!", "c"])])
    assert [rule.pattern for rule in rules.rules] == [b"c"]
    assert not rules.excluded(b"a", False)
    assert rules.excluded(b"c", False)
    assert not Rules(excludes(["a", "!"]))
