"""Asks a node, without changing anything there, whether it can be mirrored to (``inosync -t``)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from inosync.rsync import argv, errors, options, stderr
from inosync.rsync.argv import TransferSettings
from inosync.rsync.target import Transport, remote_parts, transport

NAMES = (b"./",)
"""The list of names for ``probe_argv``."""

# rsync(1), --debug: printed by our side alone. Not --version, because a daemon has none.
_PRINT_PROTOCOL = "--debug=proto"
_PROTOCOL = re.compile(rb"\(\w+\) Protocol versions: remote=(\d+), negotiated=\d+")
_OLDEST_PROTOCOL, _NEWEST_PROTOCOL = 20, 64
"""What is no rsync may send any number: "HTTP" is 1213481296."""
_NEW_TARGET = b"cd+++++++++ ./"
"""rsync(1), --itemize-changes: a dry run says so, and nothing else, of a target that does not exist."""
_CANNOT_TELL = {
    Transport.SSH: "a forced command, or no POSIX shell",
    Transport.DAEMON: "an rsync daemon says only whether the module is read only",
}
_MARK = "inosync-probe:"
_VERSION = re.compile(rb"rsync +version v?(\S+)")


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a node has answered for one tree."""

    reason: str = ""
    """Why it cannot be mirrored to; empty if it can."""
    version: str = ""
    """The version of its rsync as far as it is known."""
    unsure_if_writable: str = ""
    """Why it is not known whether the node can be written; empty if it can."""
    is_new: bool = False
    """Whether the first mirror makes the directory."""


def probe_argv(s: TransferSettings, ask_shell: bool) -> tuple[str, ...]:
    """Return the call of rsync: that of a batch, as a dry run, of nothing but the root (``NAMES``).

    With ``ask_shell`` a node behind a shell is also asked for the version of its rsync and whether it can
    write the directory, before its rsync runs (--rsync-path, rsync(1)). A forced command cannot answer that.
    """
    rsync, *words = argv.batch_argv(replace(s, stats=False))
    asking = (f"--rsync-path={_script(s.target)}",) if ask_shell else ()
    return (rsync, "--dry-run", "--itemize-changes", _PRINT_PROTOCOL, *asking, *words)


def may_have_shell(s: TransferSettings) -> bool:
    """Whether there may be a shell on the node that can be asked."""
    remote = remote_parts(s.target)
    # The script quotes the path, and in quotes "~" is no home.
    home = remote is not None and remote["path"].startswith("~")
    own = any(option == "--rsync-path" for option, _ in options.options(s.extra))
    return transport(s.target) is Transport.SSH and not own and not home


def _script(target: str) -> str:
    """Return what a POSIX shell does on the node; rsync ignores all that it prints on standard error."""
    remote = remote_parts(target)
    path = (remote["path"] if remote else target).rstrip("/") or ("/" if target.endswith("/") else ".")
    place = shlex.quote(path if path.startswith("/") else f"./{path}")
    tests = (
        f"if test -e {place}; then test -d {place} && test -w {place} && test -x {place}; "
        f'else echo "{_MARK} new" >&2; test -w "$(dirname {place})"; fi'
    )
    return (
        f'echo "{_MARK} $(rsync --version 2>/dev/null | head -n 1)" >&2; '
        f'if {tests}; then echo "{_MARK} writable" >&2; else echo "{_MARK} locked" >&2; fi; rsync'
    )


def shell_answered(lines: Sequence[bytes]) -> bool:
    """Whether standard error shows that a shell was asked, and understood."""
    return any(line.startswith(_MARK.encode()) for line in lines)


def finding(s: TransferSettings, code: int, stdout: Sequence[bytes], lines: Sequence[bytes]) -> ProbeResult:
    """Return what the call found; ``lines`` is its standard error."""
    mark = _MARK.encode()
    answers = [line.removeprefix(mark).strip() for line in lines if line.startswith(mark)]
    rest = [line for line in lines if not line.startswith(mark)]
    version = next((_text(found[1]) for answer in answers if (found := _VERSION.match(answer))), "")
    if not version:
        protocol = next((found[1] for line in stdout if (found := _PROTOCOL.match(line))), b"")
        is_rsync = protocol and _OLDEST_PROTOCOL <= int(protocol) <= _NEWEST_PROTOCOL
        version = f"of protocol {_text(protocol)}" if is_rsync else ""
    if b"locked" in answers:
        is_new = b"new" in answers
        what = "does not exist, and cannot be made" if is_new else "cannot be written, or is no directory"
        return ProbeResult(f"{s.target}: {what}", version)
    is_new = b"new" in answers or (_NEW_TARGET in stdout if code == 0 else errors.target_missing(rest))
    if code != 0 and not is_new:
        return ProbeResult(stderr.failure_reason(code, rest), version)
    unsure = "" if answers else _CANNOT_TELL.get(transport(s.target), "")
    return ProbeResult("", version, unsure, is_new)


def has_connected(stdout: Sequence[bytes]) -> bool:
    return any(_PROTOCOL.match(line) for line in stdout)


def _text(word: bytes) -> str:
    return word.decode("ascii", "replace")
