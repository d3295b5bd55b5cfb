"""rsync's argument vectors, and the list of names that it reads from its standard input.

All batches have the same vector, so that an rsync can be started before its batch exists; a full mirror and a
comparison have one each. ``tests/system/test_rsync_facts.py`` proves with rsync 3.5.0 what is said here.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace

from inosync.changes import Rename
from inosync.filters.rule import Rule
from inosync.rsync import itemize
from inosync.rsync.options import (
    chooses_deletion_time,
    confinable,
    for_comparison,
    keeps_times,
    modify_window,
    recurses,
)
from inosync.rsync.target import Transport, below, remote_parts, transport

# A full mirror reads one name, too: so it can be held back until it is connected and has entered its source.
# With the tree as an argument rsync 3.5.0 takes half the processor time if nothing has changed (0.43 against
# 0.88 s for 100,000 files): it does not walk to each file anew then, and that is what keeps a directory which
# becomes a symlink meanwhile from leading out of the tree.
_READ_NAMES = "--files-from=-"
_FULL = ("-rlptgoD", _READ_NAMES)
# Without -r: with it a name would mean everything below it. -R comes with --files-from.
_BATCH = ("-lptgoD", "--dirs", _READ_NAMES)
# Without --force a directory that is not empty is not deleted, with exit 0.
_DELETE_LISTED = ("--delete-missing-args", "--delete", "--force")
# For nodes that cannot take names that are gone. If one goes while rsync makes its list, a change follows.
_DELETE_BY_RELIST = ("--ignore-missing-args", "--delete", "--force")
_PROGRESS = ("--info=progress2", "--outbuf=L")
# Together they leave nothing to send but directories, and deletions as they are. Not --ignore-existing: with
# it rsync leaves a symlink where a directory belongs, and works on what that leads to.
_SEND_NOTHING = ("--min-size=4611686018427387904", "--no-links", "--no-devices", "--no-specials")
_DELETE_NEVER: tuple[str, ...] = ("--ignore-missing-args",)
# The receiver compares times in nanoseconds: two versions of one size and second are two versions. By itself
# rsync tells the other side "-@-1", which rrsync takes for no option at all.
_EXACT_TIMES = "--modify-window=-1"

MAX_RULES_BYTES = 1 << 20
"""What filter rules may take of a command line. The kernel's limit is a quarter of the stack's, usually
2 MiB, and counts the environment as well (execve(2))."""
# Beside its pattern: "--filter=-/!pxsr ", the byte at the end, and the pointer to it.
_RULE_OVERHEAD_BYTES = 17 + 1 + 8
_MAX_NAME_BYTES = 4086
# --info=none: a line for each difference and no other line, whatever extra says.
_REPORT = ("--dry-run", f"--out-format={itemize.FORMAT}", "--info=none")

SAYS_END = "--debug=EXIT2"
"""Since 3.1.0: rsync says when the other side has done everything (``stdout.waits_for``), which is up to
40 ms before it ends, unless that is an rsync daemon. The other side is not called with it."""
CONFINE_ROOT = "--confine-root"
"""Since 3.5.0: names that lead out of a directory through symlinks are refused with exit 23."""

NO_NAME = b"\0"
"""A name of no length, which rsync reads and skips (``read_line`` in its io.c)."""
EVERYTHING = (b"./",)
"""The list of names for ``full_argv`` and ``compare_argv``."""


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """What all rsync calls for one tree and node have in common."""

    rsync: str
    source: str
    """The wpath, with or without a trailing slash."""
    target: str
    """The node followed by the rpath, in rsync's syntax."""
    rules: tuple[Rule, ...] = ()
    """All filter rules: they also keep excluded names on the node from being deleted."""
    extra: tuple[str, ...] = ()
    """The user's own options, none of them ``forbidden()``, without filter rules."""
    root: str = ""
    """The real path of the wpath, if this rsync supports ``CONFINE_ROOT``."""
    rspeed: int = 0
    """The limit now, in KiB/s; 0 is none."""
    rdelete: bool | str = True
    """When to mirror deletions: True, False, "startup" (full mirrors only) or "running" (batches only)."""
    rsh: str = ""
    """For --rsh; "" for that in ``extra``, or rsync's default."""
    list_missing: bool = True
    """Whether batches may list names that are gone (``compat.refuses_missing``)."""
    stats: bool = True
    """Whether the node allows --stats (``compat.refused_by_daemon``)."""
    max_size: int = 0
    """Batches leave out files of more bytes than this; 0: none."""
    says_end: bool = False
    """Whether batches are called with ``SAYS_END``."""


@dataclass(frozen=True, slots=True)
class RenameWay:
    """How a rename is followed on a node."""

    links: bool
    """Whether files become hard links to the old ones, which go then; if not, they become copies."""
    whole: bool
    """Whether everything below the new directory is sent, less what the rules exclude; if not, the names."""
    anchored: bool
    """Whether the node takes paths from its root only, as rrsync does."""
    deletes: bool = False
    """Whether what is not here is deleted below the new directory, if batches delete; needs ``whole``."""
    compares: bool = False
    """Whether contents are compared, because the node may have others than sizes and times say."""


def batch_argv(
    s: TransferSettings, ignore_times: bool = False, progress: bool = False, only_removes: bool = False
) -> tuple[str, ...]:
    """Return the call that makes the names that it reads (``names_input``) level.

    ``p`` sends a file, or a directory itself; ``p/`` also mirrors the directory's entries, one level deep.
    With ``ignore_times`` a file with the same size and time is compared by content. With ``progress`` it
    prints how much has arrived (``stdout.byte_percent``). With ``only_removes`` nothing is sent but
    directories themselves.
    """
    deletes = _DELETE_NEVER
    if s.rdelete in (True, "running"):
        deletes = _DELETE_LISTED if s.list_missing else _DELETE_BY_RELIST
    # A directory above a name may be replaced by a symlink after the name was checked.
    is_local = transport(s.target) is Transport.LOCAL
    confine = (f"{CONFINE_ROOT}={s.root}",) if s.root and confinable(s.extra, is_local) else ()
    anew = ("--ignore-times",) if ignore_times else ()
    # Files written for 0.2.3 have -r in extra. Here it would send, and delete, whole subtrees.
    flat = ("--no-recursive",) if recurses(s.extra) else ()
    shown = _PROGRESS if progress else ()
    small = (f"--max-size={s.max_size}",) if s.max_size else ()
    last = (*small, *anew, *flat, *(_SEND_NOTHING if only_removes else ()))
    last = (*last, *((SAYS_END,) if s.says_end else ()))
    options = (*_BATCH, *deletes, *confine, *shown, *_stats(s), *_common(s), *s.extra, *last)
    return _call(s, options, _existing(s.target))


def full_argv(
    s: TransferSettings, delete_nothing: bool = False, only_adds: bool = False, ignore_times: bool = False
) -> tuple[str, ...]:
    """Return the call that makes the whole tree level once it reads ``EVERYTHING`` (``names_input``).

    It prints its progress (``stdout.percent``). With ``delete_nothing`` it deletes nothing, and exits with
    ``exit_codes.DELETIONS_STOPPED`` if there was something to delete. With ``only_adds`` it sends no links,
    and deletes only what is in the way of something else. ``ignore_times``: as ``batch_argv``.
    """
    # Deleted at the end, when all links are there. extra may have another time for it, but not two.
    when = "--delete" if chooses_deletion_time(s.extra) else "--delete-delay"
    deletes: tuple[str, ...] = (when,) if s.rdelete in (True, "startup") else ()
    last = ("--max-delete=0",) if delete_nothing else ()
    if only_adds:
        deletes, last = ("--force",) if deletes else (), (*last, "--no-links")
    anew = ("--ignore-times",) if ignore_times else ()
    options = (*_FULL, *deletes, *_PROGRESS, *_stats(s), *_common(s), *s.extra, *anew, *last)
    return _call(s, options, s.target)


def rename_argv(s: TransferSettings, rename: Rename, how: RenameWay) -> tuple[str, ...]:
    """Return the call that makes a new name on the node from what is there at the old one.

    It reads names relative to the new directory (of a file: to the one that it is in), which has to exist on
    the node. That is its root because rsync looks below another directory for the same names only. Where
    ``renames_at_root``, it is the root of the tree.
    """
    new, old = (rename.new, rename.old) if rename.is_directory else (_parent(rename.new), _parent(rename.old))
    at_root = renames_at_root(s.target, rename)
    if at_root:
        new = old = b""
    rules = s.rules if how.whole else ()
    fuzzy: tuple[str, ...] = () if rename.is_directory else ("--fuzzy", "--no-whole-file")
    basis: tuple[str, ...] = ()
    if new != old:
        # The second --fuzzy looks in the old directory, too. rsync 3.5.0 as a daemon without chroot does not
        # find that, so it is left out where one is enough.
        fuzzy = ("--fuzzy", *fuzzy) if fuzzy else ()
        basis = (f"--{'link' if how.links else 'copy'}-dest={_basis(s.target, new, old, how.anchored)}",)
    may_confine = confinable(s.extra, False) if at_root else not how.whole
    confine = (f"{CONFINE_ROOT}={s.root}",) if s.root and may_confine else ()
    depth = _FULL if how.whole else (*_BATCH, "--ignore-missing-args")
    flat = () if how.whole else ("--no-recursive",)
    # At the end: what is deleted may be what is to be linked.
    when = "--delete" if chooses_deletion_time(s.extra) else "--delete-delay"
    deletes = (when,) if how.deletes and s.rdelete in (True, "running") else ()
    options = (
        *depth,
        *deletes,
        *confine,
        *_stats(s),
        *_common(replace(s, rules=rules)),
        *s.extra,
        *flat,
        *(("--checksum",) if how.compares else ()),
        *fuzzy,
        *basis,
    )
    source = os.path.join(s.source, os.fsdecode(new))
    return _call(replace(s, source=source), options, _existing(below(s.target, new)))


def renames_at_root(target: str, rename: Rename) -> bool:
    """Whether a rename is followed from the root of the tree, by the full names.

    That is possible for a file that stays in its directory, because rsync looks there anyway. A local
    receiver finds nothing there if it is confined to the tree, which those names need.
    """
    stays = not rename.is_directory and _parent(rename.new) == _parent(rename.old)
    return stays and transport(target) is not Transport.LOCAL


def _basis(target: str, new: bytes, old: bytes, anchored: bool) -> str:
    """Return the old directory as rsync finds it on the node: relative to the new one, or from the root."""
    if anchored:
        found = remote_parts(target)
        return "/" + os.path.join(found["path"].strip("/") if found else "", os.fsdecode(old))
    return "../" * (new.count(b"/") + 1 if new else 0) + os.fsdecode(old) or "."


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def compare_argv(s: TransferSettings, checksum: bool) -> tuple[str, ...]:
    """Return the call that prints the node's differences (``itemize``), and changes nothing there.

    It begins when it reads ``EVERYTHING``. With ``checksum`` it compares the contents of all files. What only
    the node has is a difference only if deletions are always mirrored.
    """
    deletes = ("--delete",) if s.rdelete is True else ()
    content = ("--checksum",) if checksum else () if keeps_times(s.extra) else ("--size-only",)
    options = (*_FULL, *deletes, *_common(s), *for_comparison(s.extra), *content, *_REPORT)
    return _call(s, options, s.target)


def dry_run_argv(s: TransferSettings) -> tuple[str, ...]:
    """Return ``full_argv`` as a call that prints what it would do (``itemize``), and changes nothing."""
    return full_argv(replace(s, extra=(*for_comparison(s.extra), *_REPORT), stats=False))


def removals_argv(s: TransferSettings) -> tuple[str, ...]:
    """Return ``batch_argv`` as a call that prints what it would remove (``itemize``), and changes nothing."""
    return batch_argv(replace(s, extra=(*for_comparison(s.extra), *_REPORT), stats=False))


def compare_names_argv(s: TransferSettings) -> tuple[str, ...]:
    """Return the call that prints in which of the names that it reads the node differs."""
    return _names_report(s)


def missing_argv(s: TransferSettings, whole: bool) -> tuple[str, ...]:
    """Return the call that prints what the node lacks of the names that it reads, or of the whole tree."""
    only_missing = "--ignore-existing"  # that it follows symlinks does no harm where nothing is written
    if not whole:
        return _names_report(s, only_missing)
    return _call(s, (*_FULL, *_common(s), *for_comparison(s.extra), only_missing, *_REPORT), s.target)


def _names_report(s: TransferSettings, *more: str) -> tuple[str, ...]:
    flat = ("--no-recursive",) if recurses(s.extra) else ()
    options = (*_BATCH, *_DELETE_NEVER, *_common(s), *for_comparison(s.extra), *flat, *more, *_REPORT)
    return _call(s, options, s.target)


def _call(s: TransferSettings, options: tuple[str, ...], target: str) -> tuple[str, ...]:
    # --rsh and --from0 come last because extra may hold --rsh and --no-from0. The slash at the end of the
    # source means what is in the directory, not the directory as an entry of the target.
    shell = (f"--rsh={s.rsh}",) if s.rsh else ()
    return (s.rsync, *options, *shell, "--from0", s.source.rstrip("/") + "/", target)


def _stats(s: TransferSettings) -> tuple[str, ...]:
    # For ``stdout.transferred_bytes``. --info=stats1 goes to the node as --info=STATS, unknown before 3.1.
    return ("--stats",) if s.stats else ()


def _common(s: TransferSettings) -> tuple[str, ...]:
    way = transport(s.target)
    exact: tuple[str, ...] = (f"--remote-option={_EXACT_TIMES}" if way is Transport.SSH else _EXACT_TIMES,)
    if modify_window(s.extra) >= 0:  # a remote option would win over the user's
        exact = ()
    limit = (f"--bwlimit={s.rspeed}",) if s.rspeed else ()
    # Without it small messages wait for delayed ACKs: 60 to 100 ms a run (measured on loopback).
    no_delay = ("--sockopts=TCP_NODELAY",) if way is Transport.DAEMON else ()
    return (*exact, *(rule.word for rule in s.rules), *limit, *no_delay)


def rules_bytes(rules: Iterable[Rule]) -> int:
    """Return the most bytes that filter rules take of a command line."""
    return sum(len(rule.pattern) + _RULE_OVERHEAD_BYTES for rule in rules)


def _existing(target: str) -> str:
    """Return a target such that rsync fails if it does not exist (``errors.target_missing``).

    Otherwise rsync would create a directory with nothing in it but this batch or, for a batch of one file, a
    file of that name. Both end in exit 0, and the rest of the tree would never be missed.
    """
    if target.endswith(":"):  # the home directory
        return target
    return target.rstrip("/") + "/."


def names_input(names: Iterable[bytes]) -> bytes:
    """Return what any of the calls reads as these names (``Change.wire``)."""
    return b"".join(_protected(name) + b"\0" for name in names)


def _protected(name: bytes) -> bytes:
    # rsync skips these as comments, silently, even with --from0. Others get no prefix: "./x" also sends the
    # root's own attributes, which fails where the node's user does not own the root.
    return b"./" + name if name[:1] in (b"#", b";") else name


def too_long(name: bytes) -> bool:
    """Whether a name (``Change.wire``) is too long for rsync on some kind of node, whatever NAME_MAX is.

    Found by trial: over a local path 4,094 bytes arrive and 4,095 end in exit 23; with a daemon 4,087 end so.
    With ``./`` before it a name of 4,094 bytes is cut off silently: a file that is gone, with exit 0.
    """
    return len(name.removesuffix(b"/")) > _MAX_NAME_BYTES


def shell_line(argv: Iterable[str], names: Iterable[bytes]) -> str:
    """Return a line of bash that makes the call: ``printf ... | rsync ...``."""
    call = " ".join(_quoted(os.fsencode(word)) for word in argv)
    words = " ".join(_quoted(_protected(name)) for name in names)
    # Without an operand printf would print its format once: an empty name.
    return f"printf '%s\\0' {words} | {call}" if words else f": | {call}"


def _quoted(word: bytes) -> str:
    """Return a word for bash in printable ASCII; in $'...' three octal digits, so that a digit may follow."""
    if all(0x20 <= byte < 0x7F for byte in word):
        return shlex.quote(word.decode("ascii"))
    plain = (0x20 <= byte < 0x7F and byte not in b"'\\" for byte in word)
    return (
        "$'"
        + "".join(chr(b) if is_plain else f"\\{b:03o}" for b, is_plain in zip(word, plain, strict=True))
        + "'"
    )
