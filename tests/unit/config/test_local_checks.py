"""Checks that look at this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inosync.config import local_checks
from inosync.config.checks import Check
from inosync.config.errors import Invalid
from inosync.config.hook import Hook


def problem(check: Check, value: object) -> str:
    with pytest.raises(Invalid) as caught:
        check(value)
    (found,) = caught.value.problems
    return f"{found.problem}; {found.hint}"


def test_wpaths_that_exist_later_pass_and_twins_do_not(here: Path) -> None:
    check = local_checks.wpaths("wpaths = [...]")
    assert check([f"{here}/a/", f"{here}/missing"]) == (f"{here}/a/", f"{here}/missing")
    assert "is the same directory as" in problem(check, [f"{here}/a", f"{here}/a/"])
    assert "is not a directory" in problem(check, [f"{here}/file"])


def test_slots_are_two_for_each_processor_by_default() -> None:
    assert local_checks.slots(0) == 2 * (os.cpu_count() or 1)
    assert local_checks.slots(3.0) == 3


def test_hook_must_be_a_program_that_can_be_run_and_trusted(here: Path) -> None:
    check = local_checks.runnable(lambda value: Hook((str(value),)))
    assert check(f"{here}/rsync") == Hook((f"{here}/rsync",))
    assert "is not an absolute path; write '/" in problem(check, "true")
    assert "is not found" in problem(check, f"{here}/missing")
    assert f"chmod +x {here}/file" in problem(check, f"{here}/file")
    (here / "rsync").chmod(0o777)
    assert "is writable by others" in problem(check, f"{here}/rsync")


def test_ruser_must_exist_and_be_one_that_we_can_become(monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_checks.ruser(None) is None
    assert "there is no user 'no-such-user'" in problem(local_checks.ruser, "no-such-user")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert "only root can become another user" in problem(local_checks.ruser, "nobody")


def test_rundir_needs_a_parent_that_exists(here: Path) -> None:
    assert local_checks.rundir(f"{here}/new/") == f"{here}/new"
    assert "its directory does not exist" in problem(local_checks.rundir, f"{here}/x/new")
    assert "is not a directory" in problem(local_checks.rundir, f"{here}/file")
