"""What can be wrong with a configuration: a Fault in a value, a ConfigProblem in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inosync.text import one_line


@dataclass(frozen=True, slots=True)
class ValueProblem:
    """One thing wrong with a value, what would be right, and where in the setting it stands.

    ``file`` and ``line``: if it does not stand in the setting itself, but in a file that this names.
    """

    value: object
    wrong: str
    right: str = ""
    where: str = ""
    file: str = ""
    line: int | None = None


class Invalid(Exception):
    """A value cannot be taken: all that is wrong with it.

    ``rest`` is what can be made of it all the same, so that other mistakes are found as well; None if
    nothing can. In a tuple None stands in place of an item.
    """

    def __init__(self, *faults: ValueProblem, rest: Any = None) -> None:
        super().__init__(*faults)
        self.faults = faults
        self.rest = rest


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """``FILE:LINE: setting: value: what is wrong; what would be right``; what is empty is left out."""

    path: str
    wrong: str
    right: str = ""
    line: int | None = None
    setting: str = ""
    value: str = ""

    def __str__(self) -> str:
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        text = ": ".join(part for part in (place, self.setting, self.value, self.wrong) if part)
        return one_line(f"{text}; {self.right}" if self.right else text)


class ConfigError(Exception):
    """A file cannot be used. Its text is one line for each mistake."""

    def __init__(self, *mistakes: ConfigProblem) -> None:
        super().__init__(*mistakes)
        self.mistakes = mistakes

    def __str__(self) -> str:
        return "\n".join(map(str, self.mistakes))
