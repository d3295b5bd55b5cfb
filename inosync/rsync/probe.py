"""Asking a node, without changing anything there, whether it can be mirrored to (``inosync -t``)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from inosync.rsync import argv as rsync_argv
from inosync.rsync import errors, exit_codes, options
from inosync.rsync.argv import TransferSettings
from inosync.rsync.target import Transport, remote_parts, transport

# rsync(1), --debug: told by our side alone. Not --version: a daemon has none.
_TELL_PROTOCOL = "--debug=proto"
_PROTOCOL = re.compile(rb"\(\w+\) Protocol versions: remote=(\d+), negotiated=\d+")
_MARK = "inosync-probe:"
_VERSION = re.compile(rb"inosync-probe: rsync +version v?(\S+)")
_NO_SHELL = "no shell there to be asked"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a node has answered for one tree."""

    reason: str = ""
    """Why it cannot be mirrored to; empty if it can."""
    version: str = ""
    """Of its rsync, as exactly as it tells; empty if it did not."""
    writable: str = ""
    """What is not known about that; empty if it is."""
    is_new: bool = False
    """Whether the first mirror makes the directory."""


def argv(s: TransferSettings, asking: bool) -> tuple[str, ...]:
    """The call of rsync: that of a batch, as a dry run, of nothing but the root itself (``NAMES``).

    With ``asking``, a node behind a shell is also asked for the version of its rsync, and whether the
    directory can be written, before its rsync is run (--rsync-path, rsync(1)). A forced command knows no
    such thing: then without.
    """
    words = rsync_argv.batch_argv(replace(s, stats=False))
    more = ["--dry-run", _TELL_PROTOCOL]
    if asking:
        more.append(f"--rsync-path={_script(s.target)}")
    return (words[0], *more, *words[1:])


NAMES = (b"./",)
"""What such a call is to be told."""


def can_ask(s: TransferSettings) -> bool:
    """Whether there may be a shell on the node that can be asked."""
    own = any(option == "--rsync-path" for option, _ in options.options(s.extra))
    found = remote_parts(s.target)
    # A home of somebody's stands for itself in quotes.
    home = found is not None and found["path"].startswith("~")
    return transport(s.target) is Transport.SSH and not own and not home


def _script(target: str) -> str:
    """What a POSIX shell does on the node; of nothing that it prints rsync takes notice."""
    found = remote_parts(target)
    path = (found["path"] if found else target).rstrip("/") or ("/" if target.endswith("/") else ".")
    place = shlex.quote(path if path.startswith("/") else f"./{path}")
    tests = (
        f"if test -e {place}; then test -d {place} && test -w {place} && test -x {place}; "
        f'else echo "{_MARK} new" >&2; test -w "$(dirname {place})"; fi'
    )
    return (
        f'echo "{_MARK} $(rsync --version 2>/dev/null | head -n 1)" >&2; '
        f'if {tests}; then echo "{_MARK} writable" >&2; else echo "{_MARK} locked" >&2; fi; rsync'
    )


def was_asked(stderr: Sequence[bytes]) -> bool:
    """Whether there was a shell that understood."""
    return any(line.startswith(_MARK.encode()) for line in stderr)


def finding(
    s: TransferSettings, asking: bool, code: int, stdout: Sequence[bytes], stderr: Sequence[bytes]
) -> Finding:
    """What the call says."""
    marks = [line for line in stderr if line.startswith(_MARK.encode())]
    rest = [line for line in stderr if line not in marks]
    said = {line.removeprefix(_MARK.encode()).strip() for line in marks}
    version = next((_text(found[1]) for line in marks if (found := _VERSION.match(line))), "")
    if not version:
        protocol = next((found[1] for line in stdout if (found := _PROTOCOL.match(line))), b"")
        version = f"of protocol {_text(protocol)}" if protocol else ""
    unsure = ""
    if transport(s.target) is Transport.SSH and not (asking and marks):
        unsure = _NO_SHELL
    if b"locked" in said:
        is_new = b"new" in said
        what = "does not exist, and cannot be made" if is_new else "cannot be written, or is no directory"
        return Finding(f"{s.target}: {what}", version)
    is_new = b"new" in said or (code != 0 and errors.target_missing(rest))
    if code != 0 and not is_new:
        reason = errors.reason(rest) or exit_codes.describe(code)
        return Finding(reason, version)
    return Finding("", version, unsure, is_new)


def _text(word: bytes) -> str:
    return word.decode("ascii", "replace")
