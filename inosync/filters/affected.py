"""Which subtrees have to be looked at again after a change of filter rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from inosync.filters import wildmatch
from inosync.filters.rule import Rule
from inosync.filters.rules import effective


def affected(old: Iterable[Rule], new: Iterable[Rule]) -> frozenset[bytes] | None:
    """Return the paths at and below which ``new`` may hide, show or protect other names than ``old``.

    Paths are relative to the tree. None means anywhere. The first rule that matches decides, so a name is
    treated differently only if it, or a directory above it, matches a rule that came, went or moved.
    """
    return _outermost(place for rule in _different(effective(old), effective(new)) for place in _places(rule))


def merged(sets: Iterable[frozenset[bytes] | None]) -> frozenset[bytes] | None:
    """Return the union of several answers of ``affected``."""
    return _outermost(place for places in sets for place in ([None] if places is None else places))


def listings(places: frozenset[bytes] | None) -> frozenset[bytes] | None:
    """Return the directories of these places: their listings gain or lose the names of the places."""
    return places and _outermost(place.rpartition(b"/")[0] or None for place in places)


def _outermost(places: Iterable[bytes | None]) -> frozenset[bytes] | None:
    found = set(places)
    if None in found:
        return None
    known = {place for place in found if place is not None}
    return frozenset(place for place in known if not any(above in known for above in _above(place)))


def _above(path: bytes) -> Iterable[bytes]:
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def _different(old: Sequence[Rule], new: Sequence[Rule]) -> list[Rule]:
    """Return the rules between what both lists begin with and what both end with."""
    start, shorter = 0, min(len(old), len(new))
    while start < shorter and old[start] == new[start]:
        start += 1
    end = 0
    while end < shorter - start and old[-1 - end] == new[-1 - end]:
        end += 1
    return [*old[start : len(old) - end], *new[start : len(new) - end]]


def _places(rule: Rule) -> list[bytes | None]:
    if rule.xattr:
        return []  # no file matches it
    if rule.negate or rule.absolute or not rule.pattern.startswith(b"/"):
        return [None]
    pattern = rule.pattern.removesuffix(b"/***")
    has_wildcards = wildmatch.has_wildcards(rule.pattern)
    literal: list[bytes] = []
    for component in pattern.strip(b"/").split(b"/"):
        # Only in a pattern with wildcards is a backslash an escape.
        if wildmatch.has_wildcards(component) or (has_wildcards and b"\\" in component):
            break
        literal.append(component)
    return [b"/".join(literal) or None]
