"""What depends on where and by whom inosync was started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inosync.config import paths
from inosync.config.errors import Invalid


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(paths, "_base", "")
    monkeypatch.setattr(paths, "_started_by_root", False)
    return monkeypatch


def test_absolute_path_has_one_slash_in_front_and_none_behind(
    fresh: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fresh.chdir(tmp_path)
    assert paths.absolute("a/../b/") == f"{tmp_path}/b"
    assert paths.absolute("//x/") == "/x"
    paths.relative_to("/base")
    assert paths.absolute("a") == "/base/a"
    assert paths.absolute("/a") == "/a"


def test_default_rundir_is_that_of_the_user_who_started(fresh: pytest.MonkeyPatch) -> None:
    fresh.setattr(os, "geteuid", lambda: 1000)
    fresh.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert paths.default_rundirs() == ["/run/user/1000/inosync", paths.ROOTS_RUNDIR]
    fresh.delenv("XDG_RUNTIME_DIR")
    with pytest.raises(Invalid, match="XDG_RUNTIME_DIR"):
        paths.default_rundir()
    assert paths.default_rundirs() == [paths.ROOTS_RUNDIR]
    paths.started_by_root()
    assert paths.default_rundir() == paths.ROOTS_RUNDIR


def test_default_statedir_is_that_of_the_user_who_started(fresh: pytest.MonkeyPatch) -> None:
    fresh.setattr(os, "geteuid", lambda: 1000)
    fresh.setenv("HOME", "/home/x")
    for states, expected in (
        ("/states", "/states/inosync"),
        ("", "/home/x/.local/state/inosync"),
        ("not/absolute", "/home/x/.local/state/inosync"),
    ):
        fresh.setenv("XDG_STATE_HOME", states)
        assert paths.default_statedir() == expected
    fresh.setenv("HOME", "none")
    assert paths.default_statedir() == ""
    paths.started_by_root()
    assert paths.default_statedir() == paths.ROOTS_STATEDIR == "/var/lib/inosync"
    fresh.setattr(paths, "_started_by_root", False)
    fresh.setattr(os, "geteuid", lambda: 0)
    assert paths.default_statedir() == paths.ROOTS_STATEDIR
