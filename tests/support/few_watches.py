"""A daemon with few inotify watches, in a user namespace of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support.daemon import LAUNCHER

LIMIT = "/proc/sys/user/max_inotify_watches"

_PROGRAM = """\
import os, sys
shell = 'echo {watches} >{limit} && exec "$@"'
command = ["unshare", "-Ur", "sh", "-c", shell, "sh", sys.executable, {launcher!r}, *sys.argv[1:]]
os.execvp(command[0], command)
"""


def launcher(home: Path, watches: int) -> Path:
    """Return a launcher for ``Daemon`` whose inosync may have so many watches; skip without namespaces."""
    probe = ["unshare", "-Ur", "sh", "-c", f"echo {watches} >{LIMIT}"]
    try:
        done = subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare")
    if done.returncode:
        pytest.skip(f"no user namespaces: {done.stderr.decode().strip()}")
    path = home / "launcher.py"
    path.write_text(_PROGRAM.format(watches=watches, limit=LIMIT, launcher=str(LAUNCHER)))
    return path


def allow(pid: int, watches: int) -> None:
    """Set the number of watches allowed in the namespace of this process."""
    enter = ["nsenter", "-t", str(pid), "-U", "--preserve-credentials"]
    command = [*enter, "sh", "-c", f"echo {watches} >{LIMIT}"]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True, timeout=60)
