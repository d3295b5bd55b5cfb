"""rsync's argument vectors, and the list of names that it reads from its standard input.

All batches have the same vector, so that an rsync can be started before the batch exists; a full mirror and a
comparison have one each. ``tests/system/test_rsync_facts.py`` proves what is said here, with rsync 3.5.0.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from inosync.filters.rules import Rule
from inosync.rsync import itemize
from inosync.rsync.options import audible, confinable, recurses
from inosync.rsync.target import Transport, transport

_READ_NAMES = "--files-from=-"
# Not -r: with it a name would mean everything below it. -R comes with --files-from.
_BATCH = ("-lptgoD", "--dirs", _READ_NAMES)
# Goes behind extra, which may have --no-from0.
_NUL_SEPARATED = ("--from0",)
# --force, or a directory that must go stays with exit 0 when it is not empty.
_BATCH_DELETE: tuple[str, ...] = ("--delete-missing-args", "--delete", "--force")
# For nodes that cannot take names that are gone. If one goes while rsync makes its list, a change follows.
_BATCH_RELIST = ("--ignore-missing-args", "--delete", "--force")
_BATCH_KEEP = ("--ignore-missing-args",)
# It reads names as well, one name, so that it can be told to begin when it is connected, and stands in SRC.
_FULL = ("-rlptgoD", _READ_NAMES)
_DELETE_NOTHING = ("--max-delete=0",)
# Compares times in nanoseconds: two versions of the same size and second are two versions. It is the node's
# side that compares. By itself rsync would tell it "-@-1", which rrsync takes for no option at all.
_EXACT_TIMES = ("--modify-window=-1",)
_EXACT_TIMES_THERE = ("--remote-option=--modify-window=-1",)
_ANEW = ("--ignore-times",)
# A line of standard output for each entry, as it happens.
_TELL_PROGRESS = ("--info=progress2", "--outbuf=L")
# What was sent and received, at the end (``transferred``). Not --info=stats1: that goes to the node as
# --info=STATS, which rsync before 3.1 does not know.
_TELL_BYTES = ("--stats",)

# A line of standard output for each difference and for nothing else, however talkative ``extra`` is.
_TELL_DIFFERENCES = ("--dry-run", f"--out-format={itemize.FORMAT}", "--info=none")

_LONGEST_NAME = 4086

MAX_RULES = 1 << 20
"""Bytes that filter rules may take of a command line. The kernel's limit is a quarter of the stack's, 2 MiB
where that is 8 MiB as usual, and the environment is counted as well (execve(2))."""
# Beside its pattern: "--filter=-/!pxsr ", the byte at the end, and the pointer to it.
_RULE = 17 + 1 + 8

CONFINE = "--confine-root"
"""Since 3.5.0: names that lead out of a directory, through symlinks, are refused with exit 23."""

NO_NAME = b"\0"
"""What rsync reads and skips: a name of no length (``read_line`` in rsync's io.c)."""

EVERYTHING = (b"./",)
"""The names for ``full_argv`` and ``compare_argv``."""


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """What the rsync calls of one worker have in common for one tree."""

    rsync: str
    source: str
    """The wpath; a trailing slash makes no difference."""
    target: str
    """The node followed by the rpath, as rsync wants it."""
    rules: tuple[Rule, ...] = ()
    """Filter rules. All of them, always: they are also what keeps the node's own files."""
    extra: tuple[str, ...] = ()
    """Words of the user's own, none of them ``forbidden()``, and without filter rules."""
    root: str = ""
    """The directory that the wpath leads to, without symlinks, if the rsync understands ``CONFINE``."""
    rspeed: int = 0
    """The limit in force, in KiB/s; 0 is without one."""
    rdelete: bool | str = True
    """True, False, "startup" (FULL only) or "running" (batches only): when deletions are mirrored."""
    rsh: str = ""
    """For --rsh; empty: whatever rsync takes by itself."""
    list_missing: bool = True
    """Whether names that are gone may be listed in a batch (``misfit``)."""
    stats: bool = True
    """Whether the node lets itself be asked what was sent (``misfit``)."""


def batch_argv(s: TransferSettings, ignore_times: bool = False) -> tuple[str, ...]:
    """The call that reads names from its standard input (``names_input``) and makes them level.

    ``p`` sends a file, or a directory itself; ``p/`` also makes its listing, one level deep, like ours. With
    ``ignore_times`` files are not taken to be level because of their size and time.
    """
    if s.rdelete in (True, "running"):
        deletes = _BATCH_DELETE if s.list_missing else _BATCH_RELIST
    else:
        deletes = _BATCH_KEEP
    # Files written for 0.2.3 have -r in extra. Here it would send, and delete, whole subtrees.
    flat = ("--no-recursive",) if recurses(s.extra) else ()
    # A name is looked at before it is sent, but a directory on its way may be made a symlink in between.
    confined = (f"{CONFINE}={s.root}",) if s.root and confinable(s.extra) else ()
    told = (*confined, *_told_bytes(s))
    middle = (*_BATCH, *deletes, *told, *_common(s), *s.extra, *(_ANEW if ignore_times else ()))
    return (s.rsync, *middle, *flat, *_NUL_SEPARATED, _contents(s.source), _existing(s.target))


def full_argv(s: TransferSettings, delete_nothing: bool = False) -> tuple[str, ...]:
    """Return the call that makes the whole tree level once it reads ``EVERYTHING`` (``names_input``).

    It prints its progress (``stdout.percent``). With ``delete_nothing`` it deletes nothing, and exits with
    ``exit_codes.DELETIONS_STOPPED`` if there was something to delete.
    """
    deletes = ("--delete",) if s.rdelete in (True, "startup") else ()
    return (
        s.rsync,
        *_FULL,
        *deletes,
        *_TELL_PROGRESS,
        *_told_bytes(s),
        *_common(s),
        *s.extra,
        *(_DELETE_NOTHING if delete_nothing else ()),
        *_NUL_SEPARATED,
        _contents(s.source),
        s.target,
    )


def _told_bytes(s: TransferSettings) -> tuple[str, ...]:
    return _TELL_BYTES if s.stats else ()


def compare_argv(s: TransferSettings, checksum: bool) -> tuple[str, ...]:
    """The call that tells in what the whole tree differs on the node, and changes nothing there.

    It begins when it reads ``EVERYTHING`` (``names_input``); ``policy.differences`` reads what it prints.
    With ``checksum`` the contents of all files are compared. What a node has beyond the tree is a difference
    only if such things are deleted whenever they come up.
    """
    deletes = ("--delete",) if s.rdelete is True else ()
    return (
        s.rsync,
        *_FULL,
        *deletes,
        *_common(s),
        *audible(s.extra),
        *(("--checksum",) if checksum else ()),
        *_TELL_DIFFERENCES,
        *_NUL_SEPARATED,
        _contents(s.source),
        s.target,
    )


def _common(s: TransferSettings) -> tuple[str, ...]:
    exact = _EXACT_TIMES_THERE if transport(s.target) is Transport.SSH else _EXACT_TIMES
    limit = (f"--bwlimit={s.rspeed}",) if s.rspeed else ()
    # Or else small messages wait for delayed ACKs: 60 to 100 ms a run (measured on loopback).
    prompt = ("--sockopts=TCP_NODELAY",) if transport(s.target) is Transport.DAEMON else ()
    shell = (f"--rsh={s.rsh}",) if s.rsh else ()
    return (*exact, *(rule.word for rule in s.rules), *limit, *prompt, *shell)


def size(rules: Iterable[Rule]) -> int:
    """The bytes that filter rules take of a command line at most."""
    return sum(len(rule.pattern) + _RULE for rule in rules)


def _contents(source: str) -> str:
    # The slash: what is in the directory, not the directory as an entry of the target.
    return source.rstrip("/") + "/"


def _existing(target: str) -> str:
    """A target in such a form that rsync fails if it does not exist (``complaints.target_missing``).

    Otherwise rsync would create it with nothing in it but this batch or, for a batch of one file, make a
    file of that name; both with exit 0, and the rest of the tree would never be missed.
    """
    if target.endswith(":"):  # ssh, and the home directory
        return target
    return target.rstrip("/") + "/."


def names_input(names: Iterable[bytes]) -> bytes:
    """What to write to the standard input of either call for these names (``Change.wire``)."""
    return b"".join(_protected(name) + b"\0" for name in names)


def _protected(name: bytes) -> bytes:
    # rsync skips these as comments, silently, even with --from0. Only these: "./x" also sends the root's
    # own attributes, which fails on every node whose user does not own the root.
    return b"./" + name if name[:1] in (b"#", b";") else name


def too_long(name: bytes) -> bool:
    """Whether rsync cannot bring a name (``Change.wire``) to every kind of node. NAME_MAX aside.

    Found by trial: over a local path 4,094 bytes arrive and 4,095 end in exit 23; with an rsync daemon 4,087
    do so, every time. With ``./`` put before it a name of 4,094 bytes is cut off silently, and
    the rest of it is taken for a file that is gone, with exit 0.
    """
    return len(name.removesuffix(b"/")) > _LONGEST_NAME


def shell_line(argv: Iterable[str], names: Iterable[bytes]) -> str:
    """One line of bash that makes the call: ``printf ... | rsync ...``."""
    call = " ".join(_quoted(os.fsencode(word)) for word in argv)
    words = " ".join(_quoted(_protected(name)) for name in names)
    # Without an operand printf would still print its format once: an empty name.
    return f"printf '%s\\0' {words} | {call}" if words else f": | {call}"


def _quoted(word: bytes) -> str:
    """A word for bash, in printable ASCII; in $'...' three octal digits each, so no digit can follow."""
    if all(0x20 <= byte < 0x7F for byte in word):
        return shlex.quote(word.decode("ascii"))
    return "$'" + "".join(_ansi_c(byte) for byte in word) + "'"


def _ansi_c(byte: int) -> str:
    plain = 0x20 <= byte < 0x7F and byte not in b"'\\"
    return chr(byte) if plain else f"\\{byte:03o}"
