"""``rspeed``: the limit of the speed to a node, by the time of day."""

from __future__ import annotations

import bisect
import math
import re
from dataclasses import dataclass
from operator import itemgetter

from inosync.config import checks
from inosync.config.errors import invalid
from inosync.text import format_value

DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Timetable:
    """One or more ``entries`` in order: a minute of the day, and the limit from then on.

    Limits are in KB/s of 1,024 bytes, as for rsync's --bwlimit; 0 is without a limit. Before the first
    entry of a day, the last one of the day before is in force.
    """

    entries: tuple[tuple[int, int], ...]

    def speed(self, second: float) -> int:
        """Return the limit in force at a local time, in seconds since midnight, less than ``DAY_SECONDS``."""
        return self.entries[self._begun(second) - 1][1]  # or the last, if none has begun today

    def until_switch(self, second: float) -> float:
        """Return the seconds from a local time until the next entry begins; infinite if there is only one.

        Every day counts as 24 hours, so ask again after the clock has been set.
        """
        if not self.switches:
            return math.inf
        begun = self._begun(second)
        if begun < len(self.entries):
            return self.entries[begun][0] * 60 - second
        return DAY_SECONDS + self.entries[0][0] * 60 - second

    @property
    def switches(self) -> bool:
        """Whether the limit depends on the time."""
        return len(self.entries) > 1

    def __str__(self) -> str:
        if not self.switches:
            return str(self.entries[0][1])
        return " ".join(f"{minute // 60:02}:{minute % 60:02},{speed}" for minute, speed in self.entries)

    def _begun(self, second: float) -> int:
        return bisect.bisect_right(self.entries, second // 60, key=itemgetter(0))


def constant(speed: int) -> Timetable:
    """Return a timetable with the same limit all day."""
    return Timetable(((0, speed),))


UNLIMITED = constant(0)


_EXAMPLE = "08:00,512 23:00,0"
_ENTRY = re.compile(r"([0-9]{1,2}):([0-9]{2}),(.*)")


def check(value: object) -> Timetable:
    """Check a number, or a text with ``HH:MM,SPEED`` for each entry, in any order."""
    if not isinstance(value, str):
        return constant(checks.speed(value))
    if ":" not in value:  # one message, instead of one for each word of a sentence
        hint = f'write a whole number of KB/s, or a timetable such as "{_EXAMPLE}"'
        raise invalid(value, "is neither a number nor a timetable", hint)
    words = re.sub(r"\s*,\s*", ",", value).split()
    found: dict[int, tuple[str, int]] = {}
    for word, (minute, speed) in zip(words, checks.each(words, _entry), strict=True):
        if minute in found:
            raise invalid(word, f"has the same time as {format_value(found[minute][0])}", "leave one out")
        found[minute] = word, speed
    return Timetable(tuple(sorted((minute, speed) for minute, (_, speed) in found.items())))


def _entry(word: str) -> tuple[int, int]:
    parts = _ENTRY.fullmatch(word)
    if parts is None:
        raise invalid(word, "is not a time and a speed", f'write a timetable such as "{_EXAMPLE}"')
    hour, minute = int(parts[1]), int(parts[2])
    if hour > 23 or minute > 59:
        raise invalid(word, "there is no such time", "write one from 00:00 to 23:59")
    return hour * 60 + minute, _speed(word, parts[3])


def _speed(word: str, text: str) -> int:
    hint = "write a whole number of KB/s, 0 for no limit"
    if re.fullmatch(r"-[0-9.]+", text):
        raise invalid(word, "the speed is negative", hint)
    if not re.fullmatch(r"[0-9]+", text):
        raise invalid(word, "the speed is not a whole number", hint)
    if len(text) > 10 or int(text) > checks.MAX_SPEED_KB:
        raise invalid(word, "the speed is out of range", f"{hint}, at most {checks.MAX_SPEED_KB}")
    return int(text)
