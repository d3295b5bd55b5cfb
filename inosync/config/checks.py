"""Checks that need nothing but the value: each returns the value to use, or raises Invalid."""

from __future__ import annotations

import itertools
import math
import os
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from inosync.config.errors import Invalid, ValueProblem, invalid
from inosync.filters.rule import File, FilterError, Item, from_pattern
from inosync.rsync.options import forbidden
from inosync.text import format_value

Check = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Share:
    """A share of something, such as "20%"."""

    percent: float

    def __str__(self) -> str:
        return f"{self.percent:g}%"


# For all kinds -----------------------------------------------------------------------------------------


def each(values: Iterable[object], check: Check) -> tuple[Any, ...]:
    """Check several values; Invalid has the problems of all of them."""
    made: list[Any] = []
    problems: list[ValueProblem] = []
    for value in values:
        try:
            made.append(check(value))
        except Invalid as error:
            made.append(error.usable)
            problems += error.problems
    if problems:
        raise Invalid(*problems, usable=tuple(made))
    return tuple(made)


def inside(where: str, check: Check, value: object) -> Any:
    """Check a part of a setting; its problems say where it stands."""
    try:
        return check(value)
    except Invalid as error:
        raise Invalid(*(replace(problem, where=where) for problem in error.problems)) from None


def list_of(check: Check, example: str, *, empty: bool = False) -> Check:
    """Return a check of a list, which may be ``empty``, and of each item."""

    def checked(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise invalid(value, "is not a list", f"write {example}")
        if not value and not empty:
            raise invalid(value, "is empty", f"write {example}")
        return each(value, check)

    return checked


def string(value: object) -> str:
    """Check a string that can be a path, or an argument of a program."""
    if not isinstance(value, str):
        raise invalid(value, "is not a string", "write it in quotes")
    try:
        whole = b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        whole = False
    if not whole:
        raise invalid(value, "has a character in it that no file name can have", "leave it out")
    return value


def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise invalid(value, "is neither True nor False", "write one of them")
    return value


def one_of(*words: str) -> Check:
    def checked(value: object) -> str:
        if value not in words:
            raise invalid(value, "is not known", f"write {' or '.join(map(format_value, words))}")
        return str(value)

    return checked


def number(highest: float, unit: str = "", *, whole: bool = False, positive: bool = False) -> Check:
    """Return a check of a number from 0, or if ``positive`` above 0."""
    kind = "whole number" if whole else "number"
    hint = f"write a {kind}{unit}, {'more than 0' if positive else '0 or more'}"

    def checked(value: object) -> float | int:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise invalid(value, "is not a number", hint)
        if value < 0:
            raise invalid(value, "is negative", hint)
        # Written so that nan is refused as well: all comparisons with it are false.
        if not value <= highest or (positive and value == 0):
            raise invalid(value, "is out of range", f"{hint}, at most {highest}")
        if whole and value != int(value):
            raise invalid(value, "is not a whole number", hint)
        return int(value) if whole else value

    return checked


# For single settings -----------------------------------------------------------------------------------

_MAX_SECONDS = 1_000_000  # 11 days; epoll takes 2**31 milliseconds at most
seconds = number(_MAX_SECONDS, " of seconds")
some_seconds = number(_MAX_SECONDS, " of seconds", positive=True)
MAX_SPEED_KB = 2**31 - 1
speed = number(MAX_SPEED_KB, " of KB/s", whole=True)


def retry(value: object) -> tuple[float, float]:
    hint = "write the first and the longest delay in seconds, such as (1, 300)"
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise invalid(value, "is not a pair", hint)
    first, longest = each(value, some_seconds)
    if first > longest:
        raise invalid(value, "the first delay is longer than the longest", hint)
    return first, longest


def delete(value: object) -> bool | str:
    if isinstance(value, bool) or (isinstance(value, str) and value in ("startup", "running")):
        return value
    raise invalid(value, "is not known", 'write True, False, "startup" or "running"')


def max_removals(value: object) -> int | Share | None:
    hint = 'write a whole number such as 1000, a share such as "20%", or None'
    if value is None:
        return None
    if isinstance(value, str):
        try:
            percent = float(value.removesuffix("%")) if value.endswith("%") else math.nan
        except ValueError:
            percent = math.nan
        if not 1 <= percent < 100:  # nan is refused as well
            raise invalid(value, "is no share from 1% to 99%", hint)
        return Share(percent)
    return int(number(2**31 - 1, whole=True, positive=True)(value))


def name(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or not value.strip() or value != value.strip():
        raise invalid(value, "is not a name", "write a string of printable characters")
    return value


def extra(value: object) -> tuple[str, ...]:
    hint = 'write a string such as "--rsh=ssh -a", or a list of strings'
    if isinstance(value, str):
        try:
            words: tuple[str, ...] = tuple(shlex.split(value))
        except ValueError as problem:
            raise invalid(value, f"cannot be split as a shell would: {problem}", hint) from None
    elif isinstance(value, list | tuple):
        words = tuple(value)
    else:
        raise invalid(value, "is not a string", hint)
    words = each(words, string)
    if refused := forbidden(words):
        raise Invalid(*(ValueProblem(value, complaint) for complaint in refused))
    return words


REST = "rest"
"""The last stage of ``rstages``, if it is all nodes that no other stage names."""
_STAGES = '[["a.mirror.com"], ["b.mirror.com", "c.mirror.com"], "rest"]'


def stages(value: object) -> tuple[tuple[str, ...] | str, ...] | None:
    """Check the names of nodes, by stages. Whether there are such nodes is seen when these are known."""
    if value is None:
        return None
    found: tuple[tuple[str, ...] | str, ...] = list_of(_stage, _STAGES)(value)
    return found


def _stage(value: object) -> tuple[str, ...] | str:
    if value == REST:
        return REST
    names: tuple[str, ...] = list_of(string, _STAGES)(value)
    return names


_FILE = '{"from": "/etc/inosync/www.exclude"}'


def _pattern(value: object) -> tuple[Item, ...]:
    if isinstance(value, dict):
        return (_pattern_file(value),)
    hint = 'write an rsync pattern such as "*.tmp"'
    if not isinstance(value, str) or not value:
        raise invalid(value, "is not a pattern", hint)
    if "\n" in value:
        raise invalid(value, "has a newline in it", hint)
    try:
        return from_pattern(string(value))
    except FilterError as error:
        raise invalid(value, error.problem, hint) from None


_patterns = list_of(_pattern, '["/cache", "*.tmp"]', empty=True)


def _pattern_file(value: dict[object, object]) -> File:
    path = value.get("from")
    if set(value) != {"from"}:
        raise invalid(value, "is neither a pattern nor a file", f'write "*.tmp", or {_FILE}')
    if not string(path).startswith("/"):
        raise invalid(path, "is not an absolute path", f"write {_FILE}")
    return File(string(path))


def patterns(value: object) -> tuple[Item, ...]:
    """Check a list of exclude patterns and files of patterns, or one such file."""
    if isinstance(value, dict):
        return _pattern(value)
    return tuple(itertools.chain.from_iterable(_patterns(value)))


def excludes(value: object) -> dict[str, tuple[Item, ...]]:
    """Return the rules for each wpath as it is written, with those for all under ``*``."""
    if not isinstance(value, dict) or not isinstance(value.get("from", []), list | tuple | dict):
        return {"*": patterns(value)}
    return dict(each(value.items(), _excludes_of))


def _excludes_of(item: tuple[object, object]) -> tuple[str, tuple[Item, ...]]:
    wpath, rules = item
    if not isinstance(wpath, str):
        raise invalid(wpath, "is not a wpath", 'write a directory from wpaths, or "*"')
    return wpath, inside(f"for {format_value(wpath)}", patterns, rules)
