"""Fixtures for all tests."""

from __future__ import annotations

import os
import random

import pytest


@pytest.fixture
def seed() -> int:
    """A seed that differs from run to run, and is printed if the test fails; INOSYNC_SEED repeats one."""
    number = int(os.environ.get("INOSYNC_SEED") or random.SystemRandom().randrange(10**9))
    print(f"to repeat this: INOSYNC_SEED={number}")
    return number
