"""Lists of filter rules, and what rsync's receiver does with them; inosync asks only what the sender does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from inosync.filters.rule import Rule, from_pattern
from inosync.filters.rules import Rules, effective


def excludes(patterns: Iterable[str | bytes]) -> tuple[Rule, ...]:
    """The rules of a list whose items are each as after ``--exclude=``."""
    return tuple(rule for pattern in patterns for rule in from_pattern(pattern))


def protecting(rules: Iterable[Rule], target: bytes = b"", dying: bool = False) -> Rules:
    """Rules that exclude what the receiver in ``target`` keeps when only it has that.

    ``dying``: in a directory that is being deleted, where perishable rules do not count.
    """
    on_receiver = [rule for rule in effective(rules) if rule.sides != "s" and not (dying and rule.perishable)]
    return Rules((replace(rule, sides="") for rule in on_receiver), root=target)
