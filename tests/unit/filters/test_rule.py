"""How single rules, and files of them, are read."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from support.filters import excludes

from inosync.filters import rule as filter_rules
from inosync.filters.rule import File, FilterError, Form, Rule, hiding
from inosync.filters.rules import Rules


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
def test_from_pattern_reads_an_exclude_option(option: bytes, rule: Rule) -> None:
    assert filter_rules.from_pattern(option) == (rule,)


def test_from_pattern_reads_an_include_option() -> None:
    assert filter_rules.from_pattern("a", include=True) == (Rule(b"a", include=True),)
    assert filter_rules.from_pattern("- a", include=True) == (Rule(b"a"),)


def test_empty_option_is_no_rule() -> None:
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
def test_from_filter_reads_a_rule(option: str, rule: Rule) -> None:
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
def test_word_of_a_rule_reads_as_the_rule(rule: Rule, word: str) -> None:
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
def test_from_filter_refuses_with_rule_and_reason(option: str, problem: str) -> None:
    with pytest.raises(FilterError, match=re.escape(problem)) as error:
        filter_rules.from_filter(option)
    assert "\n" not in str(error.value)


def in_file(content: bytes, file: File) -> list[Rule]:
    return [rule for _, line in file.lines(content) for rule in file.rules(line)]


@pytest.mark.parametrize("option", ["- ", "+ ", "a\0", "a" * 4096])
def test_from_pattern_refuses_with_rule_and_reason(option: str) -> None:
    with pytest.raises(FilterError):
        excludes([option])


def test_file_of_patterns_is_read_line_by_line() -> None:
    content = b"# comment\n; comment\n\na\r\n+ b\n- c\n #d\ne "
    texts = [rule.text for rule in in_file(content, File("f"))]
    assert texts == [b"- a", b"+ b", b"- c", b"-  #d", b"- e "]
    assert [rule.text for rule in in_file(b"a\n- b", File("f", include=True))] == [b"+ a", b"- b"]


def test_file_of_patterns_may_have_lines_that_end_in_nul() -> None:
    rules = in_file(b"a\nb\0#c\0\0\rd\0\n", File("f", nulls=True))
    assert [rule.pattern for rule in rules] == [b"a\nb", b"\rd", b"\n"]


def test_file_of_filters_is_read_line_by_line() -> None:
    rules = in_file(b"# comment\nP a\n;\n+ b\nclear\n", File("f", Form.FILTER))
    assert [rule.text for rule in rules] == [b"-r a", b"+ b", b"!"]


@pytest.mark.parametrize(("include", "sign"), [(False, b"-"), (True, b"+")])
def test_file_of_bare_patterns_has_no_prefixes(include: bool, sign: bytes) -> None:
    rules = in_file(b"- a\n!\n#c\n b\n", File("f", Form.BARE, include))
    assert [rule.text for rule in rules] == [sign + b" - a", sign + b" !", sign + b"  b"]


def test_file_numbers_lines_as_editors_do() -> None:
    content = b"\n#\r\na\r\n\nb\rc\n\nd"
    assert list(File("f").lines(content)) == [(3, b"a"), (5, b"b"), (5, b"c"), (7, b"d")]
    assert list(File("f", nulls=True).lines(b"a\n\0\0b\0")) == [(1, b"a\n"), (3, b"b")]
    assert list(File("f").lines(b"")) == []


def test_file_refuses_what_cannot_stand_in_it() -> None:
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
def test_merged_reads_the_name_of_a_merge_file(option: str, file: File | None) -> None:
    if file is None:
        with pytest.raises(FilterError):
            filter_rules.merged(option, False)
    else:
        assert filter_rules.merged(option, False) == file
        assert filter_rules.merged(option, True) == replace(file, nulls=True)


@pytest.mark.parametrize("option", ["", "- a", "exclude a", "!", ": f", "P . f"])
def test_merged_is_none_for_other_rules(option: str) -> None:
    assert filter_rules.merged(option, False) is None


@pytest.mark.parametrize("path", [b"d/a*b", b"d/a\\b", b"d/[x]\\", b"d/a?", b"d/new\nline", b"d/- x", b"!"])
def test_hiding_rule_means_one_path(path: bytes) -> None:
    [rule] = hiding(path)
    rules = Rules((rule,))
    assert rules.excluded(path, is_dir=True)
    others = [b"d/axb", b"d/ab", b"d/x\\", b"d/xx", b"d", b"e/" + path, path + b"x"]
    assert not any(rules.excluded(other, is_dir=True) for other in others)


def test_hiding_rule_of_a_name_that_popt_changes_is_none() -> None:
    assert hiding(b"x!#:+") == ()
