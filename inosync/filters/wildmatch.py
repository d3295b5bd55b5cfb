"""Compiles rsync's patterns to regular expressions over bytes: rsync(1), PATTERN MATCHING RULES.

Directories carry the mark ``/\\0`` behind their name, which no file's name can hold, so that "only
directories" and ``dir/***`` are part of the expression. Patterns that need no order among themselves are
matched at once, however many they are: with a set, a tuple of suffixes and two expressions.

A class such as ``[[:alpha:]]`` holds ASCII only, as in a UTF-8 or C locale.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_DIRECTORY = b"/\0"
_ANY, _WITHIN = rb"[^\0]", rb"[^/\0]"
_SLASHED = rb"[^\0]*/"
_NEVER = rb"(?!)"
_STARS = re.compile(rb"\*+")
_SUFFIX = re.compile(rb"\*([^*?\[\\]+)")
_RANGE = re.compile(rb"-(?!\])\\?(.)", re.DOTALL)
_MEMBER = re.compile(rb"\[:([^\]]*):\]|\\?(.)", re.DOTALL)
_CLASSES: dict[bytes, Callable[[str], bool]] = {
    b"alnum": str.isalnum,
    b"alpha": str.isalpha,
    b"blank": " \t".__contains__,
    b"cntrl": lambda char: char < " " or char == "\x7f",
    b"digit": str.isdigit,
    b"graph": lambda char: "!" <= char <= "~",
    b"lower": str.islower,
    b"print": lambda char: " " <= char <= "~",
    b"punct": string.punctuation.__contains__,
    b"space": string.whitespace.__contains__,
    b"upper": str.isupper,
    b"xdigit": string.hexdigits.__contains__,
}


@dataclass(frozen=True, slots=True)
class Patterns:
    """Compiled patterns. Each matches the last component of a path, or ``prefix`` and all of it."""

    prefix: bytes
    literals: frozenset[bytes]
    suffixes: tuple[bytes, ...]
    name: re.Pattern[bytes] | None
    path: re.Pattern[bytes] | None

    def match(self, name: bytes, path: bytes) -> bool:
        """Whether one of them matches what ``marked`` returned for a path."""
        whole = self.prefix + path
        return bool(
            name in self.literals
            or whole in self.literals
            or name.endswith(self.suffixes)
            or (self.name and self.name.fullmatch(name))
            or (self.path and self.path.fullmatch(whole))
        )


def marked(path: bytes, is_dir: bool) -> tuple[bytes, bytes]:
    """Return the last component of a path, and the path; both with the mark if it is a directory."""
    if not is_dir:
        return path[path.rfind(b"/") + 1 :], path
    path += _DIRECTORY
    return path[path.rfind(b"/", 0, -2) + 1 :], path


def compiled(patterns: Iterable[tuple[bytes, bool]], prefix: bytes) -> Patterns:
    """Compile patterns, each as written and whether it is negated: then it matches what it would not.

    ``prefix`` stands before a path when a pattern is matched against the whole of it; it begins and ends with
    a slash.
    """
    literals: set[bytes] = set()
    suffixes: set[bytes] = set()
    names: list[bytes] = []
    paths: list[bytes] = []
    for written, negate in patterns:
        pattern, only_directories = _split(written)
        ends = (_DIRECTORY,) if only_directories else (b"", _DIRECTORY)
        whole = is_whole(written)
        if not negate and not has_wildcards(pattern) and (pattern[:1] == b"/" or not whole):
            literals.update(pattern + end for end in ends)
        elif not negate and not whole and (suffix := _SUFFIX.fullmatch(pattern)):
            suffixes.update(suffix[1] + end for end in ends)
        else:
            source = _source(written, prefix)
            (paths if whole else names).append(rb"(?!(?:%b)\Z)(?s:.*)" % source if negate else source)
    return Patterns(prefix, frozenset(literals), tuple(suffixes), _alternatives(names), _alternatives(paths))


def is_whole(written: bytes) -> bool:
    """Whether a pattern is matched against the whole path, not against the last component only."""
    pattern, _ = _split(written)
    return b"/" in pattern or b"**" in pattern


def _alternatives(sources: list[bytes]) -> re.Pattern[bytes] | None:
    return re.compile(b"|".join(sources)) if sources else None


def _split(written: bytes) -> tuple[bytes, bool]:
    """Return the pattern without a trailing slash, and whether it had one: it is for directories then."""
    only_directories = len(written) > 1 and written.endswith(b"/")
    return (written[:-1] if only_directories else written), only_directories


def has_wildcards(pattern: bytes) -> bool:
    """Whether a pattern has wildcards and escapes; in all others ``\\`` is itself."""
    return any(byte in pattern for byte in (b"*", b"?", b"["))


def _source(written: bytes, prefix: bytes) -> bytes:
    """Return a regular expression for a pattern and one subject of `Patterns`."""
    pattern, only_directories = _split(written)
    deep = b"**" in pattern
    if pattern.endswith(b"***"):  # the stars may take the slash of the mark: dir/*** is dir as well
        end = b"\0" if only_directories else b"\0?"
    else:
        end = _DIRECTORY if only_directories else b"(?:%b)?" % _DIRECTORY
    if not is_whole(written):
        start = b""
    elif pattern.startswith(b"**"):
        # **/a is to match a at the root, but not the one slash before an absolute path
        start = b"" if prefix == b"/" else b"/"
    elif pattern.startswith(b"/"):
        start, pattern = b"/", pattern[1:]
    else:
        start = _SLASHED
    body = (
        _translated(pattern, start == _SLASHED and not deep) if has_wildcards(pattern) else re.escape(pattern)
    )
    return start + body + end


def _translated(pattern: bytes, counted: bool) -> bytes:
    """Return a regular expression for a pattern with wildcards.

    What a star must reach first is taken in an atomic group, so that many stars cost no more than few: if
    the rest matches after a later place, it matches after the first, because its own star reaches as far.

    ``counted``: rsync compares as many last components as the pattern has slashes, slashes in a class
    counted, though a class matches none: a pattern with such a class matches nothing.
    """
    spans = [[b""]]  # pieces between "**", each a list of pieces between "*"
    at = 0
    while at < len(pattern):
        if stars := _STARS.match(pattern, at):
            at = stars.end()
            if len(stars[0]) > 1:
                spans.append([b""])
            else:
                spans[-1].append(b"")
            continue
        start, byte = at, pattern[at : at + 1]
        at += 1
        if byte == b"?":
            source = _WITHIN
        elif byte == b"[":
            source, at = _class(pattern, at)
            if counted and b"/" in pattern[start:at]:
                source = _NEVER
        elif byte == b"\\":
            source = re.escape(pattern[at : at + 1]) or _NEVER
            at += 1
        else:
            source = re.escape(byte)
        spans[-1][-1] += source
    *firsts, last = spans
    return _joined(
        _ANY, [*(_joined(_WITHIN, pieces, False) for pieces in firsts), _joined(_WITHIN, last, True)], True
    )


def _joined(star: bytes, pieces: list[bytes], final: bool) -> bytes:
    """Join pieces with a star between each two; the last one of the ``final`` row must reach the end."""
    joined = pieces[0]
    for number, piece in enumerate(pieces[1:], 2):
        last = final and number == len(pieces)
        joined += (b"%b*%b" if last else b"(?>%b*?%b)") % (star, piece)
    return joined


def _class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """Return a regular expression for the class whose ``[`` stands before ``at``, and where the class ends.

    One that does not end, or names an unknown class, matches nothing, and so does the pattern.
    """
    negated = pattern[at : at + 1] in (b"!", b"^")
    at += negated
    members: set[int] = set()
    low = 0  # what a "-" after it would make the start of a range; 0: nothing
    while True:
        if low and (upto := _RANGE.match(pattern, at)):
            members.update(range(low, upto[1][0] + 1))
            low, at = 0, upto.end()
        elif not (member := _MEMBER.match(pattern, at)) or (
            member[1] is not None and member[1] not in _CLASSES
        ):
            return _NEVER, len(pattern)
        elif member[1] is not None:
            members.update(code for code in range(1, 128) if _CLASSES[member[1]](chr(code)))
            low, at = 0, member.end()
        else:
            low, at = member[2][0], member.end()
            members.add(low)
        if pattern[at : at + 1] == b"]":
            break
    allowed = (set(range(1, 256)) - members if negated else members) - set(b"/")
    return b"[%b]" % b"".join(b"\\x%02x" % code for code in sorted(allowed)) if allowed else _NEVER, at + 1
