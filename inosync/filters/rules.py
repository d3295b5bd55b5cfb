"""Lists of rsync's filter rules, applied as rsync does: rsync(1), FILTER RULES.

Neighbouring rules with the same verdict need no order among themselves: they make one `_Run`, which is
matched at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import groupby

from inosync.filters import wildmatch
from inosync.filters.rule import File, FilterError, Form, Item, Rule, from_filter, from_pattern, merged

__all__ = [
    "File",
    "FilterError",
    "Form",
    "Item",
    "Rule",
    "Rules",
    "excludes",
    "from_filter",
    "from_pattern",
    "hidden_by_all",
    "merged",
    "standing",
]

_Run = tuple[bool, wildmatch.Patterns]
"""Neighbouring rules of one verdict: whether they exclude, and their patterns."""

_CACHED_DIRECTORIES = 20_000


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

    def hides(self, path: bytes) -> bool:
        """Whether this name is hidden from the transfer, be it a directory or not."""
        return self.excluded_below(path, True) and self.excluded_below(path, False)

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
        """NodeState on a directory and all above it. A loop, since the depth of a tree has no limit."""
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
    name, path = wildmatch.marked(path, is_dir)
    for exclude, patterns in runs:
        if patterns.match(name, path):
            return exclude
    return False


def _runs(rules: Iterable[Rule], root: bytes) -> tuple[_Run, ...]:
    def key(rule: Rule) -> tuple[bool, bytes]:
        return rule.include, _prefix(rule, root)

    for_files = (rule for rule in rules if not rule.xattr)
    return tuple(
        (not include, wildmatch.compiled(((rule.pattern, rule.negate) for rule in run), prefix))
        for (include, prefix), run in groupby(for_files, key)
    )


def _prefix(rule: Rule, root: bytes) -> bytes:
    """What stands before a path when this rule is matched against the whole of it."""
    if not rule.absolute or not wildmatch.is_whole(rule.pattern):
        return b"/"
    if not root.startswith(b"/"):
        raise FilterError(rule.text, "the modifier / needs the absolute path of the tree")
    return root.rstrip(b"/") + b"/"
