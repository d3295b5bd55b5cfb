"""The rsync that the tests run with: some of what they look at is better in the newest one."""

from __future__ import annotations

import shutil

import pytest

from inosync.rsync.argv import CONFINE_ROOT
from inosync.rsync.binary import supports_option

RSYNC = shutil.which("rsync") or ""
IS_NEWEST = bool(RSYNC) and supports_option(RSYNC, f"{CONFINE_ROOT}=/")
"""Whether it is 3.5.0 or later. Older ones send more of what was renamed; some cannot delete by name."""

needs_newest = pytest.mark.skipif(
    not IS_NEWEST, reason="rsync before 3.5.0: other limits of names, or no deletions by name (see Limits)"
)
