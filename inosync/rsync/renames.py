"""Which renames rsync can follow on a node (``argv.rename_argv``). Each entry was tried with rsync 3.5.0."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from inosync.changes import Rename
from inosync.filters.rule import Rule
from inosync.rsync.argv import TransferSettings
from inosync.rsync.options import keeps_times, options
from inosync.rsync.target import Transport, transport

# What looks for other files, writes into those that are there, keeps the old ones, leaves files out, takes
# different ones for the same, or sends what is elsewhere.
_UNFIT_TEXT = """
    --link-dest --copy-dest --compare-dest
    --max-delete -b --backup --backup-dir --suffix
    --inplace --append --append-verify --delay-updates --write-devices
    --existing --ignore-non-existing --ignore-existing --max-size --min-size
    -I --ignore-times --size-only
    -L --copy-links -k --copy-dirlinks --copy-unsafe-links --iconv
"""
_UNFIT = frozenset(_UNFIT_TEXT.split())

# A daemon and a remote shell expand patterns in the path of a target; rsync before 3.2.4 protects no argument
# from the shell. NUL and line ends separate the arguments of a daemon.
_PATTERN = re.compile(rb"[*?\[\]\\\x00-\x1f\x7f]")
_PLAIN = re.compile(rb"[A-Za-z0-9_./+,=@%:\x80-\xff-]*")

ANCHOR_NEEDED = re.compile(rb"\brrsync\b.*\.\.|\brrsync error\b")
"""rrsync takes the path of a directory to look in from the root of its directory only."""


def may_follow(settings: TransferSettings) -> bool:
    """Return whether renames can be followed with these options."""
    extra = settings.extra
    is_unfit = any(option in _UNFIT for option, _ in options(extra))
    return keeps_times(extra) and not is_unfit


def is_plain(target: str, rename: Rename) -> bool:
    """Return whether both names reach the node as they are."""
    names = rename.old + b"/" + rename.new
    if transport(target) is Transport.SSH:
        return _PLAIN.fullmatch(names) is not None
    return _PATTERN.search(names) is None


def may_link(settings: TransferSettings) -> bool:
    """Return whether a batch removes what is gone. If not, hard links to it would stay."""
    return settings.rdelete in (True, "running")


def are_position_free(rules: Iterable[Rule]) -> bool:
    """Return whether rules say the same of what is below a directory when that is the root."""
    return all(rule.clear or rule.xattr or _is_position_free(rule) for rule in rules)


def _is_position_free(rule: Rule) -> bool:
    return not (rule.absolute or b"/" in rule.pattern.rstrip(b"/") or b"**" in rule.pattern)


def needs_anchor(lines: Sequence[bytes], target: str) -> bool:
    """Return whether the node refuses a relative path to the old directory."""
    return transport(target) is Transport.SSH and any(ANCHOR_NEEDED.search(line) for line in lines)
