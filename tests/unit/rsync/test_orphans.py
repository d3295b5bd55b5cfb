"""What an rsync leaves behind is ended; real processes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support.wait import until

from inosync.rsync import orphans
from inosync.rsync.orphans import OrphanReaper
from inosync.system import process
from inosync.system.loop import Loop

LIMIT = 30.0


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_orphans_are_ended_and_killed_if_need_be(tmp_path: Path, trap: str) -> None:
    # In a child, because the reaper ends every child that it does not know.
    done = os.fork()
    if done == 0:
        try:
            process.adopt_orphans()
            orphans.KILL_AFTER_SECONDS = 0.2
            ready = tmp_path / "ready"
            script = f"({trap}echo >{ready}; while :; do sleep 0.01; done) & until [ -e {ready} ]; do :; done"
            subprocess.run(["/bin/sh", "-c", script], stdin=subprocess.DEVNULL, check=True)
            reaper = OrphanReaper(Loop())
            assert not reaper.reap([])
            until(lambda: reaper.reap([]), LIMIT, "the end of the orphan")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(done, 0)[1] == 0


def test_orphan_gets_a_moment_to_say_that_it_is_left_for_sharing(tmp_path: Path) -> None:
    # In a child, because the reaper ends every child that it does not know.
    done = os.fork()
    if done == 0:
        try:
            process.adopt_orphans()
            ready, go = tmp_path / "ready", tmp_path / "go"
            os.mkfifo(tmp_path / "endless")
            (tmp_path / "script").write_text(
                f"(echo >{ready}; until [ -e {go} ]; do :; done;"
                f" exec -a 'ssh: /x [mux]' cat <>{tmp_path}/endless) &\nuntil [ -e {ready} ]; do :; done"
            )
            subprocess.run(["bash", tmp_path / "script"], stdin=subprocess.DEVNULL, check=True)
            reaper = OrphanReaper(Loop())
            assert not reaper.reap([])
            go.touch()
            [left] = process.children(os.getpid())
            until(lambda: process.is_left_for_sharing(left), LIMIT, "the title")
            assert reaper.reap([])
            assert process.children(os.getpid()) == [left]
            os.kill(left, 9)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(done, 0)[1] == 0


def test_orphan_reaper_spares_the_children_it_knows() -> None:
    with subprocess.Popen(["sleep", "1000"]) as one:
        assert OrphanReaper(Loop()).reap(process.children(os.getpid()))
        assert one.poll() is None
        one.kill()
