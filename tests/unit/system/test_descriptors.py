"""How many descriptors there may be, and what is said if they are too few."""

from __future__ import annotations

import os
import resource

import pytest
from support.child_process import in_child

from inosync.system import child, descriptors, process


def soft_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@pytest.mark.parametrize(
    ("nodes", "limit", "fit"), [(350, 1024, 224), (225, 1024, 224), (1, 100, 0), (5000, 20_000, 4968)]
)
def test_shortage_says_how_many_nodes_fit_and_what_to_set(nodes: int, limit: int, fit: int) -> None:
    text = descriptors.shortage(nodes, limit)
    assert f"only {fit} of them can be mirrored" in text
    assert f"LimitNOFILE={descriptors.needed(nodes)}" in text
    assert descriptors.shortage(nodes, descriptors.needed(nodes)) == ""
    assert descriptors.shortage(fit, limit) == "" or fit == 0


def test_soft_limit_is_raised_and_restored() -> None:
    def limits() -> str:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        descriptors.raise_soft_limit()
        raised = soft_limit()
        descriptors.raise_soft_limit()
        descriptors.restore_soft_limit()
        return f"{raised == hard} {soft_limit()}"

    assert in_child(limits) == "True 64"


def test_programs_are_started_with_the_soft_limit_of_before() -> None:
    def limits() -> str:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        descriptors.raise_soft_limit()
        ask = ("/bin/sh", "-c", "ulimit -Sn")
        spawned = process.spawn(ask)
        assert spawned.stdout is not None
        os.set_blocking(spawned.stdout.fileno(), True)
        hook = child.program(ask, {}, lambda: None)
        hook.reap()
        return f"{spawned.stdout.read().decode().strip()} {hook.output_tail}"

    assert in_child(limits) == "64 64"
