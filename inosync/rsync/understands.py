"""What the rsync of this machine understands."""

from __future__ import annotations

import errno
import subprocess

_LONGEST = 5.0
"""Seconds after which it has not answered."""


def understands(rsync: str, option: str) -> bool:
    """Whether a binary takes an option; it is asked for its version with it, and does nothing.

    OSError if it cannot be asked, or gives no answer: that says nothing about the next time.
    """
    try:
        done = subprocess.run(
            [rsync, "--version", option],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_LONGEST,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(errno.ETIMEDOUT, f"no answer to --version for {_LONGEST:g} s", rsync) from None
    if done.returncode < 0:
        raise InterruptedError(errno.EINTR, f"killed by signal {-done.returncode} at --version", rsync)
    return done.returncode == 0
