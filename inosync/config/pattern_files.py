"""The files of filter rules that a configuration names."""

from __future__ import annotations

from collections.abc import Iterable

from inosync.config import trust
from inosync.config.errors import Invalid, ValueProblem
from inosync.filters.rule import File, FilterError, Item, Rule
from inosync.rsync.argv import MAX_RULES_BYTES
from inosync.system import fingerprint
from inosync.system.fingerprint import Fingerprint

MAX_PROBLEMS = 20
"""Reported of one file, which may be no file of patterns at all."""


class PatternFiles:
    """The files. Each is read once, so that all of a configuration has the same content."""

    def __init__(self) -> None:
        self.read: dict[str, Fingerprint] = {}
        """What each file was when it was read, by path."""
        self._contents: dict[str, bytes] = {}

    def rules(self, items: Iterable[Item]) -> tuple[Rule, ...]:
        """Return rules, with those in files in place of the files; Invalid if any cannot be read."""
        rules: list[Rule] = []
        problems: list[ValueProblem] = []
        for item in items:
            if isinstance(item, Rule):
                rules.append(item)
                continue
            try:
                rules += self._rules_in(item)
            except Invalid as error:
                problems += error.problems
        if problems:
            raise Invalid(*problems)
        return tuple(rules)

    def _rules_in(self, file: File) -> list[Rule]:
        rules: list[Rule] = []
        problems: list[ValueProblem] = []
        for number, line in file.lines(self._content(file.name)):
            try:
                rules += file.rules(line)
            except FilterError as error:
                problems.append(
                    ValueProblem(error.rule, error.problem, "correct the line", "", file.name, number)
                )
            # More problems are not helpful, and rsync would not take more rules.
            if len(problems) == MAX_PROBLEMS or len(rules) > MAX_RULES_BYTES // 20:
                break
        if problems:
            raise Invalid(*problems)
        return rules

    def _content(self, path: str) -> bytes:
        if path not in self._contents:
            content, status = trust.read(path, "name a file of patterns that only its owner can write")
            self._contents[path], self.read[path] = content, fingerprint.of(status)
        return self._contents[path]
