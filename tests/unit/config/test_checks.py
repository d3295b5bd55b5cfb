"""Checks that need nothing but the value."""

from __future__ import annotations

import math

import pytest

from inosync.config import checks
from inosync.config.errors import Invalid
from inosync.filters.rule import File


def refused(check: checks.Check, value: object) -> list[str]:
    with pytest.raises(Invalid) as caught:
        check(value)
    return [problem.problem for problem in caught.value.problems]


def test_each_reports_all_problems_and_keeps_what_is_usable() -> None:
    with pytest.raises(Invalid) as caught:
        checks.each(["a", 1, "b", None], checks.string)
    assert [problem.value for problem in caught.value.problems] == [1, None]
    assert caught.value.usable == ("a", None, "b", None)


def test_inside_says_where_the_value_stands() -> None:
    with pytest.raises(Invalid) as caught:
        checks.inside("rspeed of 'h:'", checks.speed, -1)
    assert [problem.where for problem in caught.value.problems] == ["rspeed of 'h:'"]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (True, "is not a number"),
        (-1, "is negative"),
        (math.nan, "is out of range"),
        (math.inf, "is out of range"),
        (11, "is out of range"),
        (1.5, "is not a whole number"),
    ],
)
def test_number_refuses_what_is_no_number_in_range(value: object, problem: str) -> None:
    assert refused(checks.number(10, whole=True), value) == [problem]
    assert refused(checks.number(10, positive=True), 0) == ["is out of range"]


def test_number_that_is_whole_becomes_an_int() -> None:
    assert repr(checks.number(10, whole=True)(3.0)) == "3"
    assert repr(checks.number(10)(3.5)) == "3.5"


def test_extra_is_split_as_by_a_shell_and_checked_for_each_word() -> None:
    assert checks.extra("--rsh='ssh -p 2' -z") == ("--rsh=ssh -p 2", "-z")
    assert checks.extra(["-a b"]) == ("-a b",)
    assert len(refused(checks.extra, "-n -z --list-only")) == 2


def test_excludes_are_a_list_for_all_or_a_dictionary_by_wpath() -> None:
    assert set(checks.excludes(["*.tmp"])) == {"*"}
    assert set(checks.excludes({"/a": ["x"], "*": ["y"]})) == {"/a", "*"}
    assert checks.excludes({"from": "/x"}) == {"*": (File("/x"),)}
    assert set(checks.excludes({"from": ["x"]})) == {"from"}, "a wpath of this name"
