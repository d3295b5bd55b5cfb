"""The run directory: what it is made, and what must not be made a run directory."""

from __future__ import annotations

import os
import pwd
import re
import stat
from pathlib import Path

import pytest

from inosync.startup import StartError, make_directory
from inosync.system.privileges import Account, account

NOBODY = account("nobody")
USERS = [
    pytest.param(None, id="alone"),
    pytest.param(
        NOBODY,
        id="ruser",
        marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives anything away"),
    ),
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A directory that is there already."""
    path = tmp_path / "run"
    path.mkdir()
    return path


def seen(*paths: Path) -> list[tuple[int, int]]:
    return [(stat.S_IMODE(path.lstat().st_mode), path.lstat().st_uid) for path in paths]


def refused(run: Path, user: Account | None) -> str:
    before = seen(run, *run.iterdir())
    with pytest.raises(StartError) as caught:
        make_directory("rundir", str(run), user)
    assert seen(run, *run.iterdir()) == before
    return str(caught.value)


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("mode", [0o1777, 0o777, 0o770, 0o702])
@pytest.mark.parametrize("names", [(), ("a.pid", "foreign")])
def test_rundir_that_others_write_to_stays_as_it_is(
    run: Path, names: tuple[str, ...], mode: int, user: Account | None
) -> None:
    for name in names:
        (run / name).touch()
    run.chmod(mode)
    expected = (
        f"rundir {run} is writable by others: set it to a directory for inosync alone, such as {run}/inosync"
    )
    assert refused(run, user) == expected


@pytest.mark.parametrize("user", USERS)
def test_rundir_with_foreign_files_is_neither_closed_nor_given_away(run: Path, user: Account | None) -> None:
    for name in ("a.pid", "hosts", "other"):
        (run / name).touch()
    run.chmod(0o755)
    assert refused(run, user).startswith(f"rundir {run} has 'hosts', which is not inosync's: set it to ")


def test_rundir_that_is_closed_already_can_have_foreign_files(run: Path) -> None:
    (run / "other").touch()
    run.chmod(0o700)
    make_directory("rundir", str(run))
    assert seen(run) == [(0o700, os.geteuid())]


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("mode", [None, 0o755, 0o700, 0o2750])
def test_rundir_that_is_empty_or_ours_is_closed_and_given_away(
    run: Path, mode: int | None, user: Account | None
) -> None:
    if mode is None:
        run.rmdir()
    else:
        (run / "a.pid").touch(mode=0o600)
        (run / "b.spool").mkdir(mode=0o700)
        run.chmod(mode)
    make_directory("rundir", str(run), user)
    owner = os.geteuid() if user is None else user.uid
    assert seen(run) == [(0o700, owner)]
    assert {uid for _, uid in seen(*run.iterdir())} <= {owner}
    make_directory("rundir", str(run), user)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives anything away")
def test_rundir_of_another_user_is_refused(run: Path) -> None:
    os.chown(run, NOBODY.uid, NOBODY.gid)
    assert re.search(rf"belongs to user {NOBODY.uid}: set another", refused(run, None))
    assert "belongs to user" in refused(run, account(pwd.getpwuid(1).pw_name))
