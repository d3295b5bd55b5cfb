"""What a change of filter rules can make different: the subtrees to look at again, and no others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from inosync.filters.rules import Rule

_WILD = (b"*", b"?", b"[")


def affected(old: Sequence[Rule], new: Sequence[Rule]) -> frozenset[bytes] | None:
    """The paths at and below which ``new`` may hide, show or protect other names than ``old``.

    Paths are relative to the tree. None: that may be so anywhere. Since the first rule that matches decides,
    a name fares differently only if it, or a directory above it, matches a rule that has come, gone or
    changed its place.
    """
    return _outermost(place for rule in _different(old, new) for place in _places(rule))


def merged(sets: Iterable[frozenset[bytes] | None]) -> frozenset[bytes] | None:
    """All the subtrees of several such answers."""
    return _outermost(place for places in sets for place in ([None] if places is None else places))


def listings(places: frozenset[bytes] | None) -> frozenset[bytes] | None:
    """The directories that such places are in: the places, and what goes when a listing lacks a name."""
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
    """The rules between what both lists begin with and what both end with."""
    old, new = _in_force(old), _in_force(new)
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    return [*old[start : len(old) - end], *new[start : len(new) - end]]


def _in_force(rules: Sequence[Rule]) -> Sequence[Rule]:
    """What is left after the last ``!``."""
    cleared = max((at for at, rule in enumerate(rules) if rule.clear), default=-1)
    return rules[cleared + 1 :]


def _places(rule: Rule) -> list[bytes | None]:
    if rule.xattr:
        return []  # no file matches it
    if rule.negate or rule.absolute or not rule.pattern.startswith(b"/"):
        return [None]
    pattern = rule.pattern.removesuffix(b"/***")
    wild = any(byte in rule.pattern for byte in _WILD)
    literal: list[bytes] = []
    for component in pattern.strip(b"/").split(b"/"):
        # Only where there are wildcards is a backslash an escape (wildcards.py).
        if any(byte in component for byte in _WILD) or (wild and b"\\" in component):
            break
        literal.append(component)
    return [b"/".join(literal) or None]
