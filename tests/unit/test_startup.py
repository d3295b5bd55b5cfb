"""Directories of our own: what they are made, and what must not be made one; what an earlier process left."""

from __future__ import annotations

import os
import pwd
import re
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import configs
from support.daemon import CHECKOUT

from inosync import startup
from inosync.startup import Mode, StartError, make_directory
from inosync.state import facts, store
from inosync.state.document import SavedNode, State, encode
from inosync.system.privileges import Account, account

NOBODY = account("nobody")
START = Mode()
FLEET_MODULES = r"inosync\.(fleet|master\.fleet_|state\.saved_fleet|status\.far_nodes)|redis"
WITHOUT_STATE = "no state is kept, and each start makes full mirrors"
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


# What an earlier process has left -------------------------------------------------------------------------


def past(here: Path, mode: Mode = START, stateless: str = "", **values: Any) -> store.Past:
    """Return what a start takes over if a state with these values was left."""
    config = replace(configs.config(), statedir=str(here / "state"))
    now = facts.moment()
    state = State(
        os.path.realpath(config.path),
        now.wall,
        now.boot,
        now.clock_offset,
        True,
        nodes={"n": SavedNode(paused=True)},
    )
    (here / "state").mkdir()
    path = store.path_of(config.statedir, config.path)
    store.write(path, encode(replace(state, **values)))
    found = startup._past(config, mode, stateless)
    assert found.path == ("" if stateless else path)
    return found


def test_state_is_taken_over_if_nothing_speaks_against_it(here: Path) -> None:
    found = past(here)
    assert found.state is not None
    assert found.state.nodes == {"n": SavedNode(paused=True)}
    assert found.why == ""


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"config": "/other.py"}, "the state belongs to /other.py"),
        ({"written": 1e11}, "the clock was set back: the state is from .* s in the future"),
        ({"clock_offset": 1e11}, "the clock was set back by .* s"),
    ],
)
def test_state_that_is_doubted_is_not_taken_over(here: Path, values: dict[str, Any], why: str) -> None:
    found = past(here, **values)
    assert found.state is None
    assert re.fullmatch(why, found.why)


def test_full_start_takes_over_no_times_but_pauses(here: Path) -> None:
    found = past(here, Mode(full=True), nodes={"n": SavedNode(time=1.0, paused=True)})
    assert found.state is not None
    assert found.state.nodes == {"n": SavedNode(paused=True)}
    assert found.why == "of --full"


def test_no_state_is_kept_where_none_can_be(here: Path) -> None:
    found = past(here, stateless="statedir /x: no")
    assert found == store.Past(why="statedir /x: no")


def test_statedir_is_made_for_us_alone_or_a_reason_is_returned(here: Path) -> None:
    for name in ("state", "new/deep/state"):
        assert startup._make_statedir(str(here / name), None) == ""
        assert stat.S_IMODE((here / name).stat().st_mode) == 0o700
    (here / "file").touch()
    why = startup._make_statedir(str(here / "file"), None)
    assert why == f"statedir {here}/file is not a directory: {WITHOUT_STATE}"
    (here / "state").chmod(0o777)
    assert "writable by others" in startup._make_statedir(str(here / "state"), None)


def test_start_without_a_fleet_loads_nothing_of_it() -> None:
    code = "import sys, inosync.check, inosync.cli, inosync.startup; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, cwd=CHECKOUT
    )
    loaded = done.stdout.split()
    assert "inosync.master.wiring" in loaded
    assert [name for name in loaded if re.match(FLEET_MODULES, name)] == []
