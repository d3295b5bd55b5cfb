"""The filter rules as tables. rsync itself has given each of these verdicts (see test_filter_oracle.py)."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
from support.filters import excludes, protecting

from inosync.filters import rule as filter_rules
from inosync.filters.rule import File, FilterError, Form, Rule
from inosync.filters.rules import Rules, hidden_by_all


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
def test_where_a_pattern_matches(pattern: bytes, matching: bytes, others: bytes) -> None:
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
def test_classes(pattern: bytes, matching: list[bytes], others: list[bytes]) -> None:
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
def test_escapes_and_plain_bytes(pattern: bytes, matching: list[bytes], others: list[bytes]) -> None:
    assert [name for name in matching + others if hidden([pattern], name)] == matching


def test_text_patterns_are_the_bytes_of_the_file_system() -> None:
    rules = Rules(excludes(["é*", "b\udcff"]))
    assert rules.excluded("é1".encode(), False)
    assert rules.excluded(b"b\xff", False)


def test_the_first_rule_that_matches_decides() -> None:
    patterns = [b"+ *.txt", b"- a*", b"+ /ab/", b"*"]
    assert not hidden(patterns, b"a.txt")
    assert hidden(patterns, b"ab/")
    assert hidden(patterns, b"b")
    assert not hidden([b"- a.*", b"+ *.c"], b"b.c")
    assert not hidden([b"+ b/", b"*"], b"b/")
    assert hidden([b"+ b/", b"*"], b"b")


def test_what_no_rule_matches_is_not_excluded() -> None:
    assert not hidden([b"+ a"], b"b")
    assert not hidden([], b"b")


def test_the_root_is_never_excluded() -> None:
    rules = Rules([*excludes([b"*", b"**", b"/***", b"."]), *filter_rules.from_filter(b"-! a")])
    assert not rules.excluded(b"", True)
    assert not rules.excluded_below(b"", True)


def test_a_negated_rule_matches_what_its_pattern_does_not() -> None:
    rules = Rules(filter_rules.from_filter(b"-! *.c"))
    assert rules.excluded(b"a.h", False)
    assert rules.excluded(b"x/d", True)
    assert not rules.excluded(b"x/a.c", False)


def test_a_negated_rule_for_directories_matches_every_file() -> None:
    rules = Rules(filter_rules.from_filter(b"-! a/"))
    assert rules.excluded(b"a", False)
    assert not rules.excluded(b"a", True)


def test_a_negated_pattern_that_matches_nothing_matches_all() -> None:
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
def test_sides(rule: bytes, from_transfer: bool, from_deletion: bool) -> None:
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


def test_a_perishable_rule_does_not_count_in_a_directory_that_is_deleted() -> None:
    rules = [*filter_rules.from_filter("-p a"), *filter_rules.from_filter("- b")]
    assert Rules(rules).excluded(b"d/a", False)
    assert protecting(rules).excluded(b"d/a", False)
    assert not protecting(rules, dying=True).excluded(b"d/a", False)
    assert protecting(rules, dying=True).excluded(b"d/b", False)


def test_an_absolute_rule_is_matched_with_the_root_before_the_path() -> None:
    rules = Rules(filter_rules.from_filter("-/ /srv/www/a"), root=b"/srv/www")
    assert rules.excluded(b"a", False)
    assert not rules.excluded(b"x/a", False)
    assert not protecting(rules.rules, b"/mirror").excluded(b"a", False)
    assert Rules(filter_rules.from_filter("-/ www/a"), root=b"/srv/www/").excluded(b"a", True)
    assert Rules(filter_rules.from_filter("-/ /a"), root=b"/").excluded(b"a", True)


def test_two_stars_take_no_slash_before_an_absolute_path() -> None:
    rules = Rules(filter_rules.from_filter("-/ **/srv/a"), root=b"/srv")
    assert not rules.excluded(b"a", False)
    assert rules.excluded(b"srv/a", False)


def test_an_absolute_rule_is_refused_where_the_path_it_needs_is_not_known() -> None:
    hides, protects = filter_rules.from_filter("-/s a/b"), filter_rules.from_filter("P/ a/b")
    with pytest.raises(FilterError, match="absolute path"):
        Rules(hides)
    assert not Rules(protects).excluded(b"a/b", False)
    with pytest.raises(FilterError, match="absolute path"):
        protecting(protects)
    assert Rules(filter_rules.from_filter("-/ a")).excluded(b"x/a", False)  # a last component needs no root


def test_below_an_excluded_directory_everything_is_excluded() -> None:
    rules = Rules(excludes(["+ /ex/keep", "ex/", "/a/b/c"]))
    assert rules.excluded_below(b"ex/keep", False)
    assert rules.excluded_below(b"x/ex/y/z", True)
    assert not rules.excluded_below(b"x/y", False)
    assert not rules.excluded_below(b"ex", False)
    assert rules.excluded_below(b"ex", True)
    assert rules.excluded_below(b"a/b/c/d", False)
    assert not rules.excluded_below(b"a/b", True)


def test_verdicts_of_directories_survive_many_directories() -> None:
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


def test_each_directory_is_looked_at_once() -> None:
    rules = Counting(excludes(["*.tmp", "/a/*/c/"]))
    for number in range(1000):
        assert not rules.excluded_below(b"a/b/x/y/f%d" % number, False)
        assert rules.excluded_below(b"a/b/c/d/f%d" % number, False)
    # a, a/b, a/b/x, a/b/x/y and its files; a/b/c, and nothing below it
    assert rules.looks == 4 + 1000 + 1


def test_a_hundred_rules_cost_little_more_than_one() -> None:
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


def test_depth_has_no_limit() -> None:
    rules = Rules(excludes(["ex"]))
    assert not rules.excluded_below(b"d/" * 5000 + b"f", False)
    assert rules.excluded_below(b"d/" * 1000 + b"ex/" + b"d/" * 1000 + b"f", False)


def test_what_some_list_of_rules_does_not_exclude_is_not_hidden_by_all() -> None:
    def hidden_by(*lists: str) -> list[bytes]:
        hidden = hidden_by_all(Rules(excludes(patterns.split())) for patterns in lists)
        return [path for path in (b"a", b"b", b"a/b") if hidden(path, True)]

    assert hidden_by("a b") == [b"a", b"b", b"a/b"]
    assert hidden_by("a b", "b") == [b"b", b"a/b"]
    assert hidden_by("a", "b") == [b"a/b"]  # one excludes it, the other the directory that it is in
    assert hidden_by("a", "") == []
    assert hidden_by() == []


@pytest.mark.timeout(10)
def test_many_stars_do_not_explode() -> None:
    rules = Rules(excludes([b"*a" * 30 + b"b", b"**a" * 30 + b"/b*a*b", b"a/*?a*?a*?a**b"]))
    assert not rules.excluded(b"a" * 250, False)
    assert not rules.excluded(b"a/" + b"a" * 250, False)


@pytest.mark.parametrize(
    ("option", "rule"),
    [
        (b"a", Rule(b"a")),
        (b"a/", Rule(b"a/")),
        (b"- a", Rule(b"a")),
        (b"+ a", Rule(b"a", include=True)),
        (b"-  a", Rule(b" a")),
        (b"-a", Rule(b"-a")),
        (b"-", Rule(b"-")),
        (b"!", Rule(b"", clear=True)),
        (b"!a", Rule(b"!a")),
        (b"+ !", Rule(b"!", include=True)),
        (b"P a", Rule(b"P a")),
        (b"#a", Rule(b"#a")),
        (b" ", Rule(b" ")),
    ],
)
def test_reading_an_exclude_option(option: bytes, rule: Rule) -> None:
    assert filter_rules.from_pattern(option) == (rule,)


def test_reading_an_include_option() -> None:
    assert filter_rules.from_pattern("a", include=True) == (Rule(b"a", include=True),)
    assert filter_rules.from_pattern("- a", include=True) == (Rule(b"a"),)


def test_an_empty_option_is_no_rule() -> None:
    assert filter_rules.from_pattern("") == filter_rules.from_filter("") == ()
    assert not Rules(excludes([""]))


@pytest.mark.parametrize(
    ("option", "rule"),
    [
        ("- a", Rule(b"a")),
        ("+ a b ", Rule(b"a b ", include=True)),
        ("-_a", Rule(b"a")),
        ("-,! a", Rule(b"a", negate=True)),
        ("+/p a/", Rule(b"a/", include=True, absolute=True, perishable=True)),
        ("exclude,!x a", Rule(b"a", negate=True, xattr=True)),
        ("include a", Rule(b"a", include=True)),
        ("show a", Rule(b"a", include=True, sides="s")),
        ("H,! a", Rule(b"a", sides="s", negate=True)),
        ("R a", Rule(b"a", include=True, sides="r")),
        ("-rsr a", Rule(b"a", sides="sr")),
        ("-  a\n", Rule(b" a\n")),
        ("clear", Rule(b"", clear=True)),
        ("clear,", Rule(b"", clear=True)),
        ("!", Rule(b"", clear=True)),
        ("!,", Rule(b"", clear=True)),
    ],
)
def test_reading_a_filter_option(option: str, rule: Rule) -> None:
    assert filter_rules.from_filter(option) == (rule,)
    assert filter_rules.from_filter(rule.text) == (rule,)


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        (Rule(b"a"), "--exclude=a"),
        (Rule(b"a*/", include=True), "--include=a*/"),
        (Rule(b"\xff \n"), "--exclude=\udcff \n"),
        (Rule(b"-"), "--exclude=-"),
        (Rule(b"!a"), "--exclude=!a"),
        (Rule(b"- a"), "--filter=- - a"),
        (Rule(b"+ ", include=True), "--filter=+ + "),
        (Rule(b"!"), "--filter=- !"),
        (Rule(b"a", sides="s"), "--filter=-s a"),
        (Rule(b"", clear=True), "--filter=!"),
    ],
)
def test_a_rule_on_a_command_line(rule: Rule, word: str) -> None:
    assert rule.word == word
    option, _, value = word.removeprefix("--").partition("=")
    read = (
        filter_rules.from_filter(value)
        if option == "filter"
        else filter_rules.from_pattern(value, option == "include")
    )
    assert read == (rule,)


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("a", "unknown kind"),
        ("excludes a", "unknown kind"),
        ("exclude", "pattern is missing"),
        ("- ", "pattern is missing"),
        ("-", "pattern is missing"),
        ("-a", "modifier 'a'"),
        ("-\ta", r"modifier '\t'"),
        ("-e a", "modifier 'e'"),
        ("-n a", "modifier 'n'"),
        ("-w a", "modifier 'w'"),
        ("Hs a", "modifier 's'"),
        ("P,r a", "modifier 'r'"),
        ("HC", "modifier 'C'"),
        ("-C", "CVS"),
        ("! a", "takes nothing"),
        ("! ", "takes nothing"),
        ("clear a", "takes nothing"),
        (": .rules", "not supported"),
        ("dir-merge,n .rules", "not supported"),
        (". /etc/rules", "not supported in a merge file"),
        ("merge,- /etc/rules", "not supported in a merge file"),
        ("- a!#:+", "command line cannot have !#:+"),
        (":C", "not supported"),
        ("- a\0b", "NUL"),
        ("- " + "a" * 4096, "longer than 4095 bytes"),
    ],
)
def test_refused_filters_say_in_one_line_which_and_why(option: str, problem: str) -> None:
    with pytest.raises(FilterError, match=re.escape(problem)) as error:
        filter_rules.from_filter(option)
    assert "\n" not in str(error.value)


def in_file(content: bytes, file: File) -> list[Rule]:
    return [rule for _, line in file.lines(content) for rule in file.rules(line)]


@pytest.mark.parametrize("option", ["- ", "+ ", "a\0", "a" * 4096])
def test_refused_excludes(option: str) -> None:
    with pytest.raises(FilterError):
        excludes([option])


def test_reading_a_file() -> None:
    content = b"# comment\n; comment\n\na\r\n+ b\n- c\n #d\ne "
    texts = [rule.text for rule in in_file(content, File("f"))]
    assert texts == [b"- a", b"+ b", b"- c", b"-  #d", b"- e "]
    assert [rule.text for rule in in_file(b"a\n- b", File("f", include=True))] == [b"+ a", b"- b"]


def test_reading_a_file_whose_lines_end_in_nul() -> None:
    rules = in_file(b"a\nb\0#c\0\0\rd\0\n", File("f", nulls=True))
    assert [rule.pattern for rule in rules] == [b"a\nb", b"\rd", b"\n"]


def test_reading_a_file_of_filters() -> None:
    rules = in_file(b"# comment\nP a\n;\n+ b\nclear\n", File("f", Form.FILTER))
    assert [rule.text for rule in rules] == [b"-r a", b"+ b", b"!"]


@pytest.mark.parametrize(("include", "sign"), [(False, b"-"), (True, b"+")])
def test_reading_a_file_of_bare_patterns(include: bool, sign: bytes) -> None:
    rules = in_file(b"- a\n!\n#c\n b\n", File("f", Form.BARE, include))
    assert [rule.text for rule in rules] == [sign + b" - a", sign + b" !", sign + b"  b"]


def test_the_lines_of_a_file_are_numbered_as_editors_do() -> None:
    content = b"\n#\r\na\r\n\nb\rc\n\nd"
    assert list(File("f").lines(content)) == [(3, b"a"), (5, b"b"), (5, b"c"), (7, b"d")]
    assert list(File("f", nulls=True).lines(b"a\n\0\0b\0")) == [(1, b"a\n"), (3, b"b")]
    assert list(File("f").lines(b"")) == []


def test_what_cannot_stand_in_a_file_is_refused() -> None:
    for form, line, problem in (
        (Form.PATTERN, b"- ", "a pattern is missing"),
        (Form.PATTERN, b"a\0b", "NUL"),
        (Form.BARE, b"a\0", "NUL"),
        (Form.BARE, b"x" * 4096, "longer than"),
        (Form.FILTER, b"a", "unknown kind"),
        (Form.FILTER, b". f", "not supported in a merge file"),
    ):
        with pytest.raises(FilterError, match=problem):
            File("f", form).rules(line)


@pytest.mark.parametrize(
    ("option", "file"),
    [
        (". f", File("f", Form.FILTER)),
        ("merge f ", File("f ", Form.FILTER)),
        ("merge_/a b", File("/a b", Form.FILTER)),
        (".,- f", File("f", Form.BARE)),
        ("merge,+ f", File("f", Form.BARE, include=True)),
        ("._-", None),
        (".+- f", None),
        (".", None),
        (".- ", None),
        (".e f", None),
        ("merge,C", None),
    ],
)
def test_reading_the_name_of_a_merge_file(option: str, file: File | None) -> None:
    if file is None:
        with pytest.raises(FilterError):
            filter_rules.merged(option, False)
    else:
        assert filter_rules.merged(option, False) == file
        assert filter_rules.merged(option, True) == replace(file, nulls=True)


@pytest.mark.parametrize("option", ["", "- a", "exclude a", "!", ": f", "P . f"])
def test_other_rules_name_no_merge_file(option: str) -> None:
    assert filter_rules.merged(option, False) is None


def test_clear_forgets_what_came_before_it() -> None:
    rules = Rules([*excludes(["a"]), *excludes(["b", "!", "c"])])
    assert [rule.pattern for rule in rules.rules] == [b"c"]
    assert not rules.excluded(b"a", False)
    assert rules.excluded(b"c", False)
    assert not Rules(excludes(["a", "!"]))
