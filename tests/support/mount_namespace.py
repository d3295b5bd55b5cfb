"""A daemon in a mount namespace of its own, where a test can mount."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.daemon import LAUNCHER

_PROGRAM = """\
import os, sys
command = ["unshare", "-m", "--propagation", "private", sys.executable, {launcher!r}, *sys.argv[1:]]
os.execvp(command[0], command)
"""


def launcher(home: Path) -> Path:
    """Return a launcher for ``Daemon``; skip where nothing can be mounted."""
    probe = ["unshare", "-m", "--propagation", "private", "mount", "-t", "tmpfs", "tmpfs", str(home)]
    if os.geteuid() != 0 or not shutil.which("nsenter") or not shutil.which("unshare"):
        pytest.skip("only root mounts, with unshare and nsenter")
    done = subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted in a namespace: {done.stderr.strip()}")
    path = home / "launcher.py"
    path.write_text(_PROGRAM.format(launcher=str(LAUNCHER)))
    return path


def run(pid: int, *command: str, check: bool = True) -> int:
    """Run a command in the namespace of a process and return its exit code."""
    enter = ["nsenter", "-t", str(pid), "-m", *command]
    return subprocess.run(enter, stdin=subprocess.DEVNULL, check=check, timeout=60).returncode
