"""Puts what pip leaves in share/inosync where systemd, shells and man look for it (``--install-files``)."""

from __future__ import annotations

import contextlib
import os
import re
import sysconfig
from collections.abc import Iterator
from importlib import metadata

PLACES = {
    "inosync.service": "lib/systemd/system/inosync.service",
    "inosync@.service": "lib/systemd/system/inosync@.service",
    "inosync-sender@.service": "lib/systemd/system/inosync-sender@.service",
    "completion.bash": "share/bash-completion/completions/inosync",
    "completion.zsh": "share/zsh/site-functions/_inosync",
    "inosync.8": "share/man/man8/inosync.8",
    "inosync.conf.5": "share/man/man5/inosync.conf.5",
}
"""Where below a prefix such as /usr/local each file belongs."""
_CALL = re.compile(rb"^(Exec\w+=)inosync(?= )", re.MULTILINE)
_PLAIN_PATH = re.compile(r"[\w./+@-]+", re.ASCII)
"""What systemd takes as it is (systemd.service(5))."""


def sources() -> dict[str, str]:
    """Return the paths of the files that this installation, or this checkout, has, by their names."""
    found: dict[str, str] = {}
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files("inosync") or ():
            if file.name in PLACES and file.parent.name == "inosync":
                found[file.name] = str(file.locate())
    checkout = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    for name in PLACES.keys() - found:
        for directory in ("conf", "build/man"):
            path = os.path.join(checkout, directory, name)
            if os.path.isfile(path):
                found[name] = path
    return {name: os.path.realpath(path) for name, path in found.items() if os.path.isfile(path)}


def install(prefix: str, files: dict[str, str], program: str) -> Iterator[str]:
    """Copy the files below a prefix, in place of older ones; yield each path that was written.

    Units call ``program``. OSError if a file cannot be read or written.
    """
    for name, place in PLACES.items():
        if name not in files:
            continue
        with open(files[name], "rb") as file:
            content = file.read()
        if name.endswith(".service") and _PLAIN_PATH.fullmatch(program):
            content = _CALL.sub(rb"\g<1>" + os.fsencode(program), content)
        path = os.path.join(prefix, place)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _replace(path, content)
        yield path


def _replace(path: str, content: bytes) -> None:
    fresh = f"{path}.{os.getpid()}"
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(content)
        os.replace(fresh, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise


def program() -> str:
    """Return the command of this installation; "inosync" if it has none, which is a checkout then."""
    path = os.path.join(sysconfig.get_path("scripts"), "inosync")
    return path if os.access(path, os.X_OK) else "inosync"
