"""Calls through the C library report their errors."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
from support.daemon import CHECKOUT

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


# Prints how many bytes are resident after large blocks are freed below a small one that stays.
FREES = """
import os
from inosync.system import libc
{first}
large = bytearray(16 << 20)
del large
before = int(open("/proc/self/statm").read().split()[1])
blocks = [b"x" * (1 << 20) for _ in range(20)]
stays = b"x" * 100_000
del blocks
print((int(open("/proc/self/statm").read().split()[1]) - before) * os.sysconf("SC_PAGE_SIZE"))
"""


@pytest.mark.skipif(not hasattr(libc.LIBC, "mallopt"), reason="not glibc")
@pytest.mark.parametrize(("first", "is_given_back"), [("", False), ("libc.give_back_memory()", True)])
def test_memory_of_large_blocks_is_given_back(first: str, is_given_back: bool) -> None:
    kept = subprocess.run(
        [sys.executable, "-c", FREES.format(first=first)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        check=True,
    )
    assert (int(kept.stdout) < 5 << 20) is is_given_back
