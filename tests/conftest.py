"""Fixtures for all tests."""

from __future__ import annotations

import os
import random
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# The suite starts inosync about 900 times. Without byte code each start compiles all of it, which doubles
# what a start costs. Images of containers often set this variable.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# On a busy machine the duration of an example means nothing.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

TOGETHER = (
    "tests/system/test_bench_smoke.py::",
    "tests/system/test_booted_systemd.py::",
    "tests/system/test_deb.py::",
    "tests/system/test_failures.py::test_worker_recovers_from_an_rsync_that[",
    "tests/system/test_mirror.py::test_change_arrives_when[",
    "tests/unit/fleet/test_store.py::",
    "tests/system/test_renames.py::test_nodes_are_level_after[",
    "tests/system/test_restart_model.py::",
)
"""Beginnings of the names of tests that share something expensive, such as a daemon or a package."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """For ``-n auto``: up to three for each processor, because the tests mostly wait."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0))
    return 3 * cores if cores < 4 else 2 * cores if cores < 8 else cores


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give tests that share something to one process, and all others one by one to any free process."""
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    made = LoadScopeScheduling(config, log)
    made._split_scope = lambda test: next((each for each in TOGETHER if test.startswith(each)), test)
    return made


@pytest.fixture
def seed() -> int:
    """A seed that differs in each run and is printed if the test fails; INOSYNC_SEED repeats one."""
    number = int(os.environ.get("INOSYNC_SEED") or random.SystemRandom().randrange(10**9))
    print(f"to repeat this: INOSYNC_SEED={number}")
    return number
