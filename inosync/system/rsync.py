"""What the rsync of this machine understands."""

from __future__ import annotations

import subprocess

_LONGEST = 5.0
"""Seconds after which it has not answered."""


def understands(rsync: str, option: str) -> bool:
    """Whether a binary takes an option; it is asked for its version with it, and does nothing."""
    try:
        done = subprocess.run(
            [rsync, "--version", option],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_LONGEST,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
