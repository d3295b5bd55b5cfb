"""Calls through the C library report their errors."""

from __future__ import annotations

import errno
import os

import pytest

from inosync.system import libc

NO_SUCH_OPTION = 9_999


def test_check_passes_zero_and_raises_for_anything_else() -> None:
    libc.check(0)
    libc.LIBC.close(-1)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        libc.check(-1)


def test_prctl_raises_for_an_unknown_option() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        libc.prctl(NO_SUCH_OPTION)
