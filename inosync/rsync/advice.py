"""What mends a node that cannot be mirrored to, by what its rsync or ssh says."""

from __future__ import annotations

import re
from collections.abc import Iterable

_CASES = (
    (
        r"host key is known for|Host key verification failed",
        "log in once, as the user that mirrors, and check the host key: {ssh}",
    ),
    (
        r"Host key for .* has changed|REMOTE HOST IDENTIFICATION HAS CHANGED",
        "if the node was installed anew, remove its old key (ssh-keygen -R), and log in once: {ssh}",
    ),
    (
        r"Permission denied \((?:publickey|keyboard|password|hostbased|gssapi)",
        "ssh needs a key that the node knows, and that asks for nothing: {ssh}",
    ),
    (
        r"rrsync.*Another instance",
        "put -no-lock behind rrsync on the node, because one rsync waits while another one ends",
    ),
    (
        r"rrsync.*Restricted directory does not exist",
        "make the directory of rrsync on the node; rrsync before 3.2.4 takes -no-lock for one",
    ),
    (r"rsync: (?:command )?not found|rsync: No such file", "install rsync on the node"),
    (r"rather than greeting|protocol version mismatch", "it is no rsync that answers there"),
    (r"@ERROR: auth failed", "give the password by --password-file=FILE in extra"),
    (r"Read-only file system", "make the module or the disk writable; a systemd unit needs ReadWritePaths"),
)
_COMPILED = tuple((re.compile(pattern), text) for pattern, text in _CASES)


def advice(reason: str, ssh: Iterable[str]) -> str:
    """Return what to do about a reason, "" if that is not known. ``ssh``: the call that logs in."""
    for pattern, text in _COMPILED:
        if pattern.search(reason):
            return text.format(ssh=" ".join(ssh))
    return ""
