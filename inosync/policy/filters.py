"""rsync's filter rules, read and applied as rsync does: rsync(1), FILTER RULES.

Neighbouring rules with the same verdict need no order among themselves: they make one `_Run`, which is
matched at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from inosync.policy import wildcards

MAX_PATTERN = 4095
"""Bytes; rsync discards a longer pattern with a message and goes on."""

_Run = tuple[bool, wildcards.Patterns]
"""Neighbouring rules of one verdict: whether they exclude, and their patterns."""

_CACHED_DIRECTORIES = 20_000

_KINDS = {b"exclude": b"-", b"include": b"+", b"hide": b"H", b"show": b"S", b"protect": b"P", b"risk": b"R"}
_KINDS |= {b"clear": b"!", b"merge": b".", b"dir-merge": b":"}
_FILTER = re.compile(
    rb"(?:(%b)(?=[\s_,]|\Z)|([-+HSPR!.:])),?([^ _]*)[ _]?(.*)" % b"|".join(_KINDS), re.DOTALL
)


class FilterError(ValueError):
    """A rule that rsync would refuse, or that is not supported here: one line, with the rule and why."""

    def __init__(self, rule: bytes, problem: str) -> None:
        super().__init__(f"filter rule {os.fsdecode(rule)!r}: {problem}")
        self.rule, self.problem = os.fsdecode(rule), problem


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its pattern as written, less the prefix; ``clear`` is the rule ``!``, which has none.

    ``sides`` holds the modifiers ``s`` (hides from the transfer) and ``r`` (protects from deletion); empty
    means both. ``absolute`` is the modifier ``/``, ``negate`` is ``!``, ``perishable`` is ``p``, ``xattr``
    is ``x``: such a rule is for names of extended attributes, and no file matches it.
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
        if len(self.pattern) > MAX_PATTERN:
            raise FilterError(self.pattern[:40] + b"...", f"the pattern is longer than {MAX_PATTERN} bytes")

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
        """The rule as one word of rsync's command line, in the form that most people know."""
        plain = self.pattern not in (b"", b"!") and self.pattern[:2] not in (b"- ", b"+ ")
        if plain and self == Rule(self.pattern, self.include):
            return f"--{'include' if self.include else 'exclude'}={os.fsdecode(self.pattern)}"
        return f"--filter={os.fsdecode(self.text)}"


def standing(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """What is left of a list of rules after the last ``!``, which clears all before it."""
    kept: list[Rule] = []
    for rule in rules:
        if rule.clear:
            kept.clear()
        else:
            kept.append(rule)
    return tuple(kept)


def hidden_by_all(lists: Iterable[Rules]) -> Callable[[bytes, bool], bool]:
    """(path, is a directory) -> whether each list excludes it, or a directory on the way down to it.

    Nothing is, by no list. With one list, the directories above are taken for not excluded.
    """
    every = tuple(lists)
    if len(every) == 1:
        return every[0].excluded

    def hidden(path: bytes, is_dir: bool) -> bool:
        return bool(every) and all(rules.excluded_below(path, is_dir) for rules in every)

    return hidden


def excludes(patterns: Iterable[str | bytes]) -> tuple[Rule, ...]:
    """The rules of a list whose items are each as after ``--exclude=``."""
    return tuple(rule for pattern in patterns for rule in from_pattern(pattern))


def from_pattern(pattern: str | bytes, include: bool = False) -> tuple[Rule, ...]:
    """What stands after ``--exclude=``, or ``--include=``: a pattern, ``- pattern``, ``+ pattern`` or ``!``.

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
    """What stands after ``--filter=``: one rule with its prefix. An empty one is no rule, as with rsync."""
    text = _bytes(rule)
    if not text:
        return ()
    found = _FILTER.fullmatch(text)
    if not found:
        raise FilterError(text, "unknown kind of rule; expected one of + - H S P R ! or its long name")
    word, letter, modifiers, pattern = found.groups()
    kind = letter or _KINDS[word]
    if kind in b".:":
        raise FilterError(text, "merge files and per-directory merge files are not supported")
    if kind == b"!":
        if modifiers or pattern or text[-1:] in b" _":
            raise FilterError(text, "'!' takes nothing after it")
        return (Rule(b"", clear=True),)
    return (_with_modifiers(text, kind.decode(), modifiers, pattern),)


def from_file(content: str | bytes, include: bool = False, nulls: bool = False) -> tuple[Rule, ...]:
    """The rules in a file for ``--exclude-from`` (or ``--include-from``).

    One pattern a line, as ``from_pattern`` takes it; lines that are empty or start with ``#`` or ``;`` are
    skipped. ``nulls``: the lines end in NUL, which is how rsync reads them once it has seen ``--from0``.
    """
    text = os.fsencode(content) if isinstance(content, str) else content
    lines = text.split(b"\0") if nulls else re.split(rb"[\r\n]", text)
    return tuple(
        rule for line in lines if line[:1] not in (b"#", b";") for rule in from_pattern(line, include)
    )


def _bytes(rule: str | bytes) -> bytes:
    text = os.fsencode(rule) if isinstance(rule, str) else rule
    if b"\0" in text:
        raise FilterError(text, "NUL cannot stand in a rule")
    return text


def _with_modifiers(text: bytes, kind: str, modifiers: bytes, pattern: bytes) -> Rule:
    """The rule of one of the kinds that have a pattern (rsync(1), FILTER RULE MODIFIERS)."""
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


class Rules:
    """A list of rules, compiled: the first that matches decides, and what none matches is not excluded.

    ``root`` and ``target`` are the absolute paths of SRC/ and of the directory it is mirrored to, as they are
    given to rsync (it resolves no symlinks in them); only rules with the modifier ``/`` need them, and a rule
    that lacks the one it needs raises FilterError: at once for ``root``, from ``protected`` for ``target``,
    which may be known to nobody here.

    Paths are relative to SRC/, without a leading or trailing slash. SRC/ itself, ``b""``, is never excluded:
    rsync does not look at its rules for it, whatever they say. ``rules`` holds what is left of the list
    after ``!``.
    """

    def __init__(self, rules: Iterable[Rule], root: bytes = b"", target: bytes = b"") -> None:
        self.rules = standing(rules)
        self._target = target
        self._sender = _runs((rule for rule in self.rules if rule.sides != "r"), root)
        self._hidden: dict[bytes, bool] = {}

    def __bool__(self) -> bool:
        return bool(self.rules)

    def excluded(self, path: bytes, is_dir: bool) -> bool:
        """Whether rsync hides this name from the transfer, given that its parents are not hidden."""
        return bool(self._sender) and _verdict(self._sender, path, is_dir)

    def excluded_below(self, path: bytes, is_dir: bool) -> bool:
        """Whether this name or a directory on the way down to it is hidden from the transfer."""
        cut = path.rfind(b"/")
        return (cut > 0 and self._hidden_directory(path[:cut])) or self.excluded(path, is_dir)

    def protected(self, path: bytes, is_dir: bool, dying: bool = False) -> bool:
        """Whether rsync keeps this name when it is on the node only.

        ``dying``: the name is in a directory that is being deleted, where perishable rules do not count.
        """
        return _verdict(self._receiver_dying if dying else self._receiver, path, is_dir)

    @cached_property
    def _receiver(self) -> tuple[_Run, ...]:
        return _runs((rule for rule in self.rules if rule.sides != "s"), self._target)

    @cached_property
    def _receiver_dying(self) -> tuple[_Run, ...]:
        lasting = (rule for rule in self.rules if rule.sides != "s" and not rule.perishable)
        return _runs(lasting, self._target)

    def _hidden_directory(self, path: bytes) -> bool:
        """Verdict on a directory and all above it. A loop, since the depth of a tree has no limit."""
        known, end = None, len(path)
        while end > 0 and (known := self._hidden.get(path[:end])) is None:
            end = path.rfind(b"/", 0, end)
        hidden = bool(known)
        while end < len(path):
            start = max(end, 0)
            end = path.find(b"/", start + 1)
            end = len(path) if end < 0 else end
            hidden = hidden or self.excluded(path[:end], True)
            if len(self._hidden) >= _CACHED_DIRECTORIES:
                self._hidden.clear()
            self._hidden[path[:end]] = hidden
        return hidden


def _verdict(runs: tuple[_Run, ...], path: bytes, is_dir: bool) -> bool:
    if not path:
        return False
    name, path = wildcards.marked(path, is_dir)
    for exclude, patterns in runs:
        if patterns.match(name, path):
            return exclude
    return False


def _runs(rules: Iterable[Rule], root: bytes) -> tuple[_Run, ...]:
    def key(rule: Rule) -> tuple[bool, bytes]:
        return rule.include, _prefix(rule, root)

    for_files = (rule for rule in rules if not rule.xattr)
    return tuple(
        (not include, wildcards.compiled(((rule.pattern, rule.negate) for rule in run), prefix))
        for (include, prefix), run in groupby(for_files, key)
    )


def _prefix(rule: Rule, root: bytes) -> bytes:
    """What stands before a path when this rule is matched against the whole of it."""
    if not rule.absolute or not wildcards.is_whole(rule.pattern):
        return b"/"
    if not root.startswith(b"/"):
        raise FilterError(rule.text, "the modifier / needs the absolute path of the tree")
    return root.rstrip(b"/") + b"/"
