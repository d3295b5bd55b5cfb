"""Asks the rsync of this machine which options it supports."""

from __future__ import annotations

import errno
import subprocess

_TIMEOUT_SECONDS = 5.0


def supports_option(rsync: str, option: str) -> bool:
    """Whether a binary accepts an option: it is called with that and --version.

    OSError if it cannot be called, or gives no answer: the next call may.
    """
    try:
        done = subprocess.run(
            [rsync, "--version", option],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(
            errno.ETIMEDOUT, f"no answer to --version for {_TIMEOUT_SECONDS:g} s", rsync
        ) from None
    if done.returncode < 0:
        raise InterruptedError(errno.EINTR, f"killed by signal {-done.returncode} at --version", rsync)
    return done.returncode == 0
