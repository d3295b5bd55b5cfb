"""What can be wrong with a configuration: problems of single values, and of a whole file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inosync.text import format_value, one_line

NO_VALUE = object()
"""Stands for the value of a problem that concerns no particular value."""


@dataclass(frozen=True, slots=True)
class ValueProblem:
    """One thing wrong with a value, a hint what to write instead, and where in the setting the value stands.

    ``file`` and ``line`` are set if the value stands in a file that the setting names.
    """

    value: object
    problem: str
    hint: str = ""
    where: str = ""
    file: str = ""
    line: int | None = None


class Invalid(Exception):
    """A value is refused, for all of these reasons.

    ``usable`` is what can be made of the value all the same, so that further mistakes are found; None if
    nothing can. In a tuple, None stands in place of an item.
    """

    def __init__(self, *problems: ValueProblem, usable: Any = None) -> None:
        super().__init__(*problems)
        self.problems = problems
        self.usable = usable


def invalid(value: object, problem: str, hint: str = "", where: str = "") -> Invalid:
    """Return an Invalid with a single problem."""
    return Invalid(ValueProblem(value, problem, hint, where))


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """``FILE:LINE: setting: value: problem; hint``, without the parts that are empty."""

    path: str
    problem: str
    hint: str = ""
    line: int | None = None
    setting: str = ""
    value: str = ""

    def __str__(self) -> str:
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        text = ": ".join(part for part in (place, self.setting, self.value, self.problem) if part)
        return one_line(f"{text}; {self.hint}" if self.hint else text)


class ConfigError(Exception):
    """A configuration file cannot be used. Its text has one line for each problem."""

    def __init__(self, *problems: ConfigProblem) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class Findings:
    """The problems and warnings that are found while a file is read."""

    def __init__(self, path: str, lines: Mapping[str, int], labels: Mapping[str, str]) -> None:
        self._path = path
        self._lines = lines
        """The line in which each name is set."""
        self._labels = labels
        """How the file calls settings that it has under an older name."""
        self._problems: list[ConfigProblem] = []
        self.warnings: list[str] = []

    def add(self, setting: str, *problems: ValueProblem) -> None:
        """Add what is wrong with the value of a setting."""
        for problem in problems:
            made = self._of_file(problem) if problem.file else self._of_setting(setting, problem)
            if made not in self._problems:  # a file of patterns may be named more than once
                self._problems.append(made)

    def warn(self, setting: str, value: object, text: str) -> None:
        """Add what looks unintended, or is not taken as it is written."""
        label = self._labels.get(setting, setting)
        self.warnings.append(one_line(f"{label}: {format_value(value)}: {text}"))

    def warn_of_file(self, text: str) -> None:
        """Add what is unintended about the file as a whole."""
        self.warnings.append(one_line(f"{self._path}: {text}"))

    @property
    def are_problems(self) -> bool:
        return bool(self._problems)

    def raise_problems(self) -> None:
        """Raise ConfigError if there are problems."""
        if self._problems:
            raise ConfigError(*self._problems)

    def _of_file(self, problem: ValueProblem) -> ConfigProblem:
        value = format_value(problem.value)
        return ConfigProblem(problem.file, problem.problem, problem.hint, problem.line, value=value)

    def _of_setting(self, setting: str, problem: ValueProblem) -> ConfigProblem:
        label = self._labels.get(setting, setting)
        name = f"{label}: {problem.where}" if problem.where else label
        value = "" if problem.value is NO_VALUE else format_value(problem.value)
        line = self._lines.get(label)
        return ConfigProblem(self._path, problem.problem, problem.hint, line, name, value)
