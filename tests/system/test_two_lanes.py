"""Small changes overtake big files: what is under way in the second lane, and what happens beside it.

The node takes 4 MB/s from each rsync (``--bwlimit`` in ``extra``): a big file is under way for seconds.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support.lanes import BIG, HALF, SIZE, SPEED, big_rsync, partial, until_big, write_big
from support.rsyncd import MakeRsyncd
from support.wait import until
from support.warm import MakeWarm, Warm


@pytest.fixture
def lanes(warm: MakeWarm, rsyncd: MakeRsyncd, tmp_path: Path) -> Warm:
    """A daemon that is level with a node, which is an rsync daemon."""
    server = rsyncd({"a": tmp_path / "nodes/a"})
    w = warm({"a": server.url("a")}, extra=[f"--bwlimit={SPEED}"])
    (w.tree() / "d").mkdir()
    w.change("d/stays")
    w.daemon.start()
    w.until_level()
    return w


def test_small_change_overtakes_a_big_file(lanes: Warm) -> None:
    write_big(lanes)
    first = until_big(lanes)
    for number in range(5):
        lanes.change(f"d/small{number}")
        lanes.until_arrived("a", f"d/small{number}")
    assert big_rsync(lanes) == first, "it was not started again"
    assert not (lanes.copy("a") / "d/big").exists()
    lanes.until_level()
    assert lanes.warnings() == []


def test_link_to_the_directory_of_a_big_file_does_not_overtake_it(lanes: Warm) -> None:
    write_big(lanes)
    until_big(lanes)
    (lanes.tree() / "current").symlink_to("d")
    (lanes.tree() / "elsewhere").symlink_to("other")
    until(lambda: os.path.lexists(lanes.copy("a") / "elsewhere"), 60, "another link on the node")
    assert not os.path.lexists(lanes.copy("a") / "current")

    def says_what_waits() -> bool:
        [node] = lanes.daemon.ask("status")["nodes"]
        return bool(node["reason"].endswith("; 1 name waits for that, such as current"))

    until(says_what_waits, 60, "the reason with what waits")
    assert not os.path.lexists(lanes.copy("a") / "current")
    lanes.until_level()


def rewritten(w: Warm) -> None:
    write_big(w, content=HALF[::-1])


def appended(w: Warm) -> None:
    with (w.tree() / "d/big").open("ab") as file:
        file.write(b"more")


def removed(w: Warm) -> None:
    (w.tree() / "d/big").unlink()


def made_small(w: Warm) -> None:
    w.change("d/big", "small")


def truncated(w: Warm) -> None:
    os.truncate(w.tree() / "d/big", 3)


def renamed(w: Warm) -> None:
    (w.tree() / "d/big").rename(w.tree() / "other")


def made_a_directory(w: Warm) -> None:
    removed(w)
    (w.tree() / "d/big").mkdir()
    w.change("d/big/inside")


def made_a_symlink(w: Warm) -> None:
    removed(w)
    (w.tree() / "d/big").symlink_to("stays")


def chmodded(w: Warm) -> None:
    (w.tree() / "d/big").chmod(0o640)


def directory_removed(w: Warm) -> None:
    shutil.rmtree(w.tree() / "d")


def directory_renamed(w: Warm) -> None:
    (w.tree() / "d").rename(w.tree() / "e")


def directory_made_again(w: Warm) -> None:
    shutil.rmtree(w.tree() / "d")
    (w.tree() / "d").mkdir()
    w.change("d/new")


def directory_exchanged(w: Warm) -> None:
    (w.tree() / "e").mkdir()
    w.change("e/big", "of e")
    (w.tree() / "d").rename(w.tree() / "f")
    (w.tree() / "e").rename(w.tree() / "d")


def directory_becomes_a_file(w: Warm) -> None:
    shutil.rmtree(w.tree() / "d")
    w.change("d", "a file")


CHANGES = (
    rewritten,
    appended,
    removed,
    made_small,
    truncated,
    renamed,
    made_a_directory,
    made_a_symlink,
    chmodded,
    directory_removed,
    directory_renamed,
    directory_made_again,
    directory_exchanged,
    directory_becomes_a_file,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_big_file_under_way_converges_when_it_is(lanes: Warm, change: Callable[[Warm], None]) -> None:
    write_big(lanes, content=HALF)
    until_big(lanes)
    change(lanes)
    lanes.change("small")
    lanes.until_arrived("a", "small")
    lanes.until_level()
    assert not partial(lanes)


def kill_worker(w: Warm) -> None:
    os.kill(w.daemon.workers()["a"], signal.SIGKILL)


def kill_rsync(w: Warm) -> None:
    pid = big_rsync(w)
    if pid:  # a machine that is busy may be done with the file
        os.kill(pid, signal.SIGKILL)


def resync(w: Warm) -> None:
    w.daemon.ask("resync", node="a")


def pause_and_resume(w: Warm) -> None:
    w.daemon.ask("pause", node="a")
    w.daemon.until_state("a", ("paused",))
    w.daemon.ask("resume", node="a")


def reload(w: Warm) -> None:
    w.reload(rtimeout=100)


@pytest.mark.parametrize(
    "fault", [kill_worker, kill_rsync, resync, pause_and_resume, reload], ids=lambda fault: fault.__name__
)
def test_big_file_under_way_arrives_after(lanes: Warm, fault: Callable[[Warm], None]) -> None:
    write_big(lanes, content=HALF)
    until_big(lanes)
    fault(lanes)
    lanes.change("d/small")
    lanes.until_arrived("a", "d/small")
    lanes.until_level()
    until(lambda: not partial(lanes), 60, "temporary files to be removed")


def test_big_files_of_a_new_directory_arrive_after_all_else(lanes: Warm) -> None:
    outside = lanes.home / "outside"
    (outside / "deep").mkdir(parents=True)
    for number in range(3):
        (outside / f"file{number}").write_text("content")
        (outside / f"deep/big{number}").write_bytes(HALF)
    os.link(outside / "deep/big0", outside / "linked")
    outside.rename(lanes.tree() / "new")
    for number in range(3):
        lanes.until_arrived("a", f"new/file{number}")
    until_big(lanes)
    lanes.change("small")
    lanes.until_arrived("a", "small")
    assert big_rsync(lanes)
    lanes.until_level()


def test_sparse_big_file_arrives_beside_small_ones(lanes: Warm) -> None:
    with (lanes.home / "fresh-sparse").open("wb") as file:
        file.truncate(SIZE)
    (lanes.home / "fresh-sparse").rename(lanes.tree() / "sparse")
    until_big(lanes)
    lanes.change("small")
    lanes.until_arrived("a", "small")
    assert big_rsync(lanes)
    lanes.until_level()


def test_directory_times_are_right_after_a_big_file(lanes: Warm) -> None:
    (lanes.tree() / "d/e").mkdir()
    write_big(lanes, "d/e/big")
    until_big(lanes)
    lanes.change("d/e/small")
    lanes.change("d/small")
    os.utime(lanes.tree() / "d", (1, 1_000_000_000))
    lanes.until_arrived("a", "d/e/small")
    lanes.until_level()


def test_flush_and_lag_count_a_big_file(lanes: Warm) -> None:
    write_big(lanes)
    until_big(lanes)
    lanes.change("small")
    assert lanes.daemon.ask("flush", timeout=1.0)["behind"]
    [node] = lanes.daemon.ask("status")["nodes"]
    assert (node["state"], node["big_files"]) == ("syncing", 1)
    assert node["lag"] > 0.5
    assert node["pending"] == 1
    assert node["reason"].startswith("1 big file")
    lanes.daemon.ask("flush", timeout=60.0)
    assert (lanes.copy("a") / "d/big").read_bytes() == BIG


def test_status_and_title_show_how_far_a_big_file_is(lanes: Warm) -> None:
    write_big(lanes)
    until_big(lanes)
    until(lambda: lanes.daemon.ask("status")["nodes"][0]["big_files_percent"], 60, "a percentage")
    lanes.until_title("a", r"\[syncing\] 1 big file, [1-9]\d*%, 1 behind")
    lanes.until_level()
    assert lanes.daemon.ask("status")["nodes"][0]["big_files"] is None
