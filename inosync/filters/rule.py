"""Reads one of rsync's filter rules: rsync(1), FILTER RULES. Its syntax depends on where it stands."""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_PATTERN_BYTES = 4095
"""rsync discards a longer pattern with a message and goes on."""
_POPT_ARGUMENT = b"!#:+"
"""In the value of an option popt replaces this with another argument (``expandNextArg`` in popt.c)."""

_KINDS = {b"exclude": b"-", b"include": b"+", b"hide": b"H", b"show": b"S", b"protect": b"P", b"risk": b"R"}
_KINDS |= {b"clear": b"!", b"merge": b".", b"dir-merge": b":"}
_FILTER = re.compile(
    rb"(?:(%b)(?=[\s_,]|\Z)|([-+HSPR!.:])),?([^ _]*)[ _]?(.*)" % b"|".join(_KINDS), re.DOTALL
)


class FilterError(ValueError):
    """A rule that rsync would refuse, or that is not supported here; one line with rule and reason."""

    def __init__(self, rule: bytes, problem: str) -> None:
        super().__init__(f"filter rule {os.fsdecode(rule)!r}: {problem}")
        self.rule, self.problem = os.fsdecode(rule), problem


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its pattern as written, without the prefix; ``clear`` is the rule ``!``, which has none.

    ``sides`` holds the modifiers ``s`` (hides from the transfer) and ``r`` (protects from deletion); empty
    means both. ``absolute`` is the modifier ``/``, ``negate`` is ``!``, ``perishable`` is ``p``. ``xattr`` is
    ``x``: such a rule is for names of extended attributes, and no file matches it.
    """

    pattern: bytes
    include: bool = False
    sides: str = ""
    negate: bool = False
    absolute: bool = False
    perishable: bool = False
    xattr: bool = False
    clear: bool = False

    def __post_init__(self) -> None:
        if len(self.pattern) > MAX_PATTERN_BYTES:
            raise FilterError(
                self.pattern[:40] + b"...", f"the pattern is longer than {MAX_PATTERN_BYTES} bytes"
            )
        if _POPT_ARGUMENT in self.pattern:
            raise FilterError(self.pattern, "rsync's command line cannot have !#:+ in it; write ?#:+")

    @property
    def text(self) -> bytes:
        """The rule as ``--filter=`` takes it. ``from_filter`` of it is this rule again."""
        if self.clear:
            return b"!"
        flags = ((self.absolute, "/"), (self.negate, "!"), (self.perishable, "p"), (self.xattr, "x"))
        modifiers = "".join(char for given, char in flags if given) + self.sides
        return ("+" if self.include else "-").encode() + modifiers.encode() + b" " + self.pattern

    @property
    def word(self) -> str:
        """The rule as one word of rsync's command line, in the best known form."""
        plain = self.pattern not in (b"", b"!") and self.pattern[:2] not in (b"- ", b"+ ")
        if plain and self == Rule(self.pattern, self.include):
            return f"--{'include' if self.include else 'exclude'}={os.fsdecode(self.pattern)}"
        return f"--filter={os.fsdecode(self.text)}"


class Form(enum.Enum):
    """How the lines of a file are read."""

    PATTERN = "pattern"
    """As after ``--exclude=`` or ``--include=``."""
    FILTER = "filter"
    """As after ``--filter=``."""
    BARE = "bare"
    """As patterns, whatever they begin with."""


@dataclass(frozen=True, slots=True)
class File:
    """A file whose rules take its place in the list."""

    name: str
    form: Form = Form.PATTERN
    include: bool = False
    """Whether a pattern without a prefix includes."""
    nulls: bool = False
    """Whether lines end in NUL: rsync reads all files so after ``--from0``."""

    def lines(self, content: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield numbered lines without those that rsync skips: empty ones and comments."""
        number, start = 1, 0
        for end in re.finditer(rb"\0|\Z" if self.nulls else rb"[\r\n]|\Z", content):
            line = content[start : end.start()]
            if line and line[:1] not in b"#;":
                yield number, line
            start, number = end.end(), number + (end[0] != b"\r")

    def rules(self, line: bytes) -> tuple[Rule, ...]:
        """Return the rules that one of the lines means."""
        if self.form is Form.BARE:
            return (Rule(_bytes(line), self.include),)
        return from_filter(line) if self.form is Form.FILTER else from_pattern(line, self.include)


def hiding(path: bytes) -> tuple[Rule, ...]:
    """Return the rule that leaves just this path (relative to SRC/) out of a transfer; none if none can."""
    # A backslash escapes only in a pattern with wildcards (rsync(1), PATTERN MATCHING).
    name = re.sub(rb"([\\*?[])", rb"\\\1", path) if re.search(rb"[*?[]", path) else path
    try:
        return (Rule(b"/" + name, sides="s"),)
    except FilterError:
        return ()


Item = Rule | File
"""An entry of a list of rules."""


def from_pattern(pattern: str | bytes, include: bool = False) -> tuple[Rule, ...]:
    """Read the value of ``--exclude=``, or ``--include=``: a pattern, ``- pattern``, ``+ pattern`` or ``!``.

    An empty one is no rule, as with rsync.
    """
    text = _bytes(pattern)
    if text == b"!":
        return (Rule(b"", clear=True),)
    if text[:2] in (b"- ", b"+ "):
        if len(text) == 2:
            raise FilterError(text, "a pattern is missing")
        text, include = text[2:], text[:1] == b"+"
    return (Rule(text, include),) if text else ()


def from_filter(rule: str | bytes) -> tuple[Rule, ...]:
    """Read the value of ``--filter=``: one rule with its prefix. An empty one is no rule, as with rsync."""
    text = _bytes(rule)
    if not text:
        return ()
    kind, modifiers, pattern = _parts(text)
    if kind == ":":
        raise FilterError(text, "files of rules in each directory are not supported")
    if kind == ".":
        raise FilterError(text, "a merge file is not supported in a merge file")
    if kind == "!":
        if modifiers or pattern or text[-1:] in b" _":
            raise FilterError(text, "'!' takes nothing after it")
        return (Rule(b"", clear=True),)
    return (_with_modifiers(text, kind, modifiers, pattern),)


def merged(rule: str, nulls: bool) -> File | None:
    """Read the file in the value of ``--filter=``: rsync(1), MERGE-FILE FILTER RULES. None for a rule."""
    text = _bytes(rule)
    if not text:
        return None
    kind, modifiers, name = _parts(text)
    if kind != ".":
        return None
    if modifiers not in (b"", b"-", b"+"):
        raise FilterError(
            text, f"modifier {os.fsdecode(modifiers)!r} is not supported for a file, only one of - and + is"
        )
    if not name:
        raise FilterError(text, "the name of a file is missing")
    if name == b"-":
        raise FilterError(text, "standard input carries the list of names")
    form = Form.BARE if modifiers else Form.FILTER
    return File(os.fsdecode(name), form, modifiers == b"+", nulls)


def _bytes(rule: str | bytes) -> bytes:
    text = os.fsencode(rule) if isinstance(rule, str) else rule
    if b"\0" in text:
        raise FilterError(text, "NUL cannot stand in a rule")
    return text


def _parts(text: bytes) -> tuple[str, bytes, bytes]:
    """Return the letter for the kind of a rule, its modifiers, and what comes after them."""
    found = _FILTER.fullmatch(text)
    if not found:
        raise FilterError(text, "unknown kind of rule; expected one of + - H S P R ! . or its long name")
    word, letter, modifiers, pattern = found.groups()
    return (letter or _KINDS[word]).decode(), modifiers, pattern


def _with_modifiers(text: bytes, kind: str, modifiers: bytes, pattern: bytes) -> Rule:
    """Return a rule that has a pattern: rsync(1), FILTER RULE MODIFIERS."""
    sided = {"H": "s", "S": "s", "P": "r", "R": "r"}.get(kind, "")
    for char in map(chr, modifiers):
        if char == "C" and not sided:
            raise FilterError(text, "CVS excludes (modifier C) are not supported")
        if char not in ("/!px" if sided else "/!pxsr"):
            raise FilterError(text, f"modifier {char!r} has no meaning here")
    if not pattern:
        raise FilterError(text, "a pattern is missing")
    return Rule(
        pattern,
        include=kind in "+SR",
        sides=sided or "".join(char for char in "sr" if char.encode() in modifiers),
        negate=b"!" in modifiers,
        absolute=b"/" in modifiers,
        perishable=b"p" in modifiers,
        xattr=b"x" in modifiers,
    )
