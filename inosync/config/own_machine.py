"""The directories behind remote targets that lead back to this machine, where that can be known.

It can where a loopback address or the own host name is asked on the usual port: elsewhere a tunnel or a
container may answer. The file of the rsync daemon tells where its modules are.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pwd
import re
import socket
from collections.abc import Iterable

from inosync.config.targets import DAEMON_PORT, TargetPlace
from inosync.rsync.options import options
from inosync.rsync.target import Transport

_RSYNCD_CONF = "/etc/rsyncd.conf"
_SECTION = re.compile(r"\s*\[\s*(.+?)\s*\]")
_PATH = re.compile(r"\s*path\s*=\s*(.*?)\s*$", re.IGNORECASE)


def directory_here(place: TargetPlace, extra: Iterable[str], rsyncd_conf: str = _RSYNCD_CONF) -> str:
    """Return the directory on this machine that a remote target leads to; empty if none is known to."""
    user, _, host = place.host.rpartition("@")
    if place.transport is Transport.DAEMON:
        host, _, port = host.rpartition(":")
        if port != DAEMON_PORT or _is_redirected(extra, "RSYNC_CONNECT_PROG", "--port"):
            return ""
        module, _, below = place.path.partition("/")
        top = _module_path(module, rsyncd_conf) if _is_own(host) else ""
    else:
        if _is_redirected(extra, "RSYNC_RSH", "-e", "--rsh"):
            return ""
        below = place.path
        top = _home(user) if _is_own(host) else ""
    return os.path.join(top, below) if top else ""


def _is_redirected(extra: Iterable[str], variable: str, *redirecting: str) -> bool:
    return variable in os.environ or any(option in redirecting for option, _ in options(extra))


def _is_own(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host in ("localhost", socket.gethostname().lower())


def _home(user: str) -> str:
    """The home directory of a user, by default ours; empty if there is none."""
    try:
        return pwd.getpwnam(user).pw_dir if user else pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return ""


def _module_path(module: str, rsyncd_conf: str) -> str:
    """The directory of a module in an rsyncd.conf(5); empty if it is not told plainly."""
    try:
        with open(rsyncd_conf, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return ""
    section, path = "", ""
    for line in lines:
        if found := _SECTION.match(line):
            section = found[1]
        elif section == module and (found := _PATH.match(line)):
            path = found[1]
    return path if path.startswith("/") and "%" not in path else ""
