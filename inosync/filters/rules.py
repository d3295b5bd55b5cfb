"""Lists of rsync's filter rules, applied as the sender does: rsync(1), FILTER RULES.

Neighbouring rules that all exclude, or all include, need no order among themselves: they are matched at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby

from inosync.filters import wildmatch
from inosync.filters.rule import FilterError, Rule

Excluded = Callable[[bytes, bool], bool]
"""(path, is a directory) -> whether the path is excluded, given that its parents are not."""

_MAX_CACHED_DIRECTORIES = 20_000


def effective(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return the rules after the last ``!``, which clears all before it."""
    kept: list[Rule] = []
    for rule in rules:
        if rule.clear:
            kept.clear()
        else:
            kept.append(rule)
    return tuple(kept)


def hidden_by_all(lists: Iterable[Rules]) -> Excluded:
    """Return whether each list excludes a path, or a directory on the way down to it.

    No list hides nothing. One list is asked for the path only, as if the directories above were included.
    """
    every = tuple(lists)
    if len(every) == 1:
        return every[0].excluded

    def hidden(path: bytes, is_dir: bool) -> bool:
        return bool(every) and all(rules.excluded_below(path, is_dir) for rules in every)

    return hidden


class Rules:
    """A list of rules, compiled: the first that matches decides, and what none matches is not excluded.

    ``root`` is the absolute path of SRC/ as rsync is given it (rsync resolves no symlinks in it); only rules
    with the modifier ``/`` need it, and raise FilterError without. ``rules`` holds the effective ones.

    Paths are relative to SRC/, without a leading or trailing slash. SRC/ itself, ``b""``, is never excluded,
    because rsync does not apply its rules to it.
    """

    def __init__(self, rules: Iterable[Rule], root: bytes = b"") -> None:
        self.rules = effective(rules)

        def key(rule: Rule) -> tuple[bool, bytes]:
            return rule.include, _prefix(rule, root)

        on_sender = (rule for rule in self.rules if rule.sides != "r" and not rule.xattr)
        self._runs = tuple(
            (not include, wildmatch.compiled(((rule.pattern, rule.negate) for rule in run), prefix))
            for (include, prefix), run in groupby(on_sender, key)
        )
        self._hidden: dict[bytes, bool] = {}
        """Answers of ``_hidden_directory``."""

    def __bool__(self) -> bool:
        return bool(self.rules)

    def excluded(self, path: bytes, is_dir: bool) -> bool:
        """Whether rsync hides this name from the transfer, given that its parents are not hidden."""
        if not path or not self._runs:
            return False
        name, path = wildmatch.marked(path, is_dir)
        return next((exclude for exclude, patterns in self._runs if patterns.match(name, path)), False)

    def excluded_below(self, path: bytes, is_dir: bool) -> bool:
        """Whether this name or a directory on the way down to it is hidden from the transfer."""
        cut = path.rfind(b"/")
        return (cut > 0 and self._hidden_directory(path[:cut])) or self.excluded(path, is_dir)

    def hides(self, path: bytes) -> bool:
        """Whether this name is hidden from the transfer, be it a directory or not."""
        return self.excluded_below(path, True) and self.excluded_below(path, False)

    def _hidden_directory(self, path: bytes) -> bool:
        """Whether a directory or one above it is excluded. A loop, because trees may be very deep."""
        known, end = None, len(path)
        while end > 0 and (known := self._hidden.get(path[:end])) is None:
            end = path.rfind(b"/", 0, end)
        hidden = bool(known)
        while end < len(path):
            end = path.find(b"/", max(end, 0) + 1)
            end = len(path) if end < 0 else end
            hidden = hidden or self.excluded(path[:end], True)
            if len(self._hidden) >= _MAX_CACHED_DIRECTORIES:
                self._hidden.clear()
            self._hidden[path[:end]] = hidden
        return hidden


def _prefix(rule: Rule, root: bytes) -> bytes:
    """Return what stands before a path when this rule is matched against the whole of it."""
    if not rule.absolute or not wildmatch.is_whole(rule.pattern):
        return b"/"
    if not root.startswith(b"/"):
        raise FilterError(rule.text, "the modifier / needs the absolute path of the tree")
    return root.rstrip(b"/") + b"/"
