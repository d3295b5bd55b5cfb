"""Big files beside small ones where something is scarce: speed, connections, options, or the node itself."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from support import procs, trees
from support.daemon import MakeDaemon
from support.lanes import BIG, HALF, SPEED, big_rsync, partial, until_big, write_big
from support.rsyncd import MakeRsyncd, Rsyncd
from support.wait import until
from support.warm import MakeWarm, Warm

SLOW = [f"--bwlimit={SPEED}"]


def started(warm: MakeWarm, server: Rsyncd, **settings: object) -> Warm:
    """A daemon that is level with its node, which is an rsync daemon."""
    w = warm({"a": server.url("a")}, ("tree",), None, **settings)
    (w.tree() / "d").mkdir()
    w.change("d/stays")
    w.daemon.start()
    w.until_level()
    return w


def with_a_big_file_and_another_tree(warm: MakeWarm, server: Rsyncd) -> tuple[Warm, int]:
    """A daemon with a big file on its way in one of two trees, and the pid of the rsync that sends it."""
    w = warm({"a": server.url("a")}, ("tree", "other"), extra=SLOW)
    w.change("stays")
    w.change("stays", tree="other")
    w.daemon.start()
    w.until_level()
    write_big(w, "big")
    return w, until_big(w)


def received(copy: Path) -> int:
    """Return the bytes that a node has of all files, those on their way included."""
    return sum(path.stat().st_size for path in copy.rglob("*") if path.is_file() and not path.is_symlink())


# rspeed --------------------------------------------------------------------------------------------------


def test_rspeed_bounds_both_lanes_together(warm: MakeWarm, rsyncd: MakeRsyncd, tmp_path: Path) -> None:
    w = started(warm, rsyncd({"a": tmp_path / "nodes/a"}), rspeed=SPEED)
    write_big(w)
    until_big(w)
    content = os.urandom(200_000)
    before, began = received(w.copy("a")), time.monotonic()
    for number in range(60):  # 12 MB: as much as fits into 3 s
        (w.tree() / f"small{number}").write_bytes(content)
    until(lambda: (w.copy("a") / "small59").exists(), 60, "the small files")
    assert big_rsync(w), "they did not wait for it"
    until(lambda: not big_rsync(w), 60, "the big file")
    took, came = time.monotonic() - began, received(w.copy("a")) - before
    w.until_level()
    # The bytes that are in the pipes at the beginning, and the last steps of rsync, have no limit.
    assert came <= SPEED * 1024 * (took + 0.5) * 1.25 + 2_000_000
    assert w.warnings() == []


def test_big_file_is_not_starved_by_small_ones(warm: MakeWarm, rsyncd: MakeRsyncd, tmp_path: Path) -> None:
    w = started(warm, rsyncd({"a": tmp_path / "nodes/a"}), rspeed=SPEED)
    write_big(w)
    until_big(w)
    content, number = os.urandom(150_000), 0
    deadline = time.monotonic() + 120
    while not (w.copy("a") / "d/big").exists():
        assert time.monotonic() < deadline, "the big file is starved"
        (w.tree() / f"small{number % 10}").write_bytes(content)
        number += 1
        time.sleep(0.02)
    w.until_level()


def test_other_rspeed_is_followed_while_a_big_file_is_under_way(
    warm: MakeWarm, rsyncd: MakeRsyncd, tmp_path: Path
) -> None:
    w = started(warm, rsyncd({"a": tmp_path / "nodes/a"}), rspeed=SPEED)
    write_big(w)
    until_big(w)
    w.reload(rspeed=SPEED * 20)
    w.change("d/small")
    w.until_arrived("a", "d/small")
    w.until_level()
    until(lambda: not partial(w), 60, "temporary files to be removed")


# The node ------------------------------------------------------------------------------------------------


def test_node_that_takes_one_connection_gets_both(warm: MakeWarm, rsyncd: MakeRsyncd, tmp_path: Path) -> None:
    server = rsyncd({"a": tmp_path / "nodes/a"}, options={"max connections": "1"})
    w = started(warm, server, extra=SLOW)
    write_big(w)
    until_big(w)
    rsyncs = w.daemon.ask("status")["nodes"][0]["rsyncs"]
    w.change("d/small")
    w.until_level()
    assert w.daemon.ask("status")["nodes"][0]["rsyncs"] - rsyncs < 8, "no endless retry"
    for number in range(3):
        w.change(f"d/next{number}")
        w.until_arrived("a", f"d/next{number}")
    write_big(w, "again")
    w.change("small")
    w.until_level()


def test_node_that_refuses_the_size_limit_gets_all_in_one_lane(
    warm: MakeWarm, rsyncd: MakeRsyncd, tmp_path: Path
) -> None:
    server = rsyncd({"a": tmp_path / "nodes/a"}, options={"refuse options": "max-size"})
    w = started(warm, server, extra=SLOW)
    write_big(w)
    w.change("small")
    until(lambda: partial(w), 60, "a part of the big file")
    assert not big_rsync(w)
    w.until_level()
    assert w.warnings() == []


@pytest.mark.parametrize("is_warm", [True, False])
def test_node_that_goes_away_gets_the_big_file_when_it_is_back(
    warm: MakeWarm, rsyncd: MakeRsyncd, tmp_path: Path, is_warm: bool
) -> None:
    server = rsyncd({"a": tmp_path / "nodes/a"})
    w = started(warm, server, extra=SLOW, rwarm=is_warm)
    write_big(w)
    until_big(w)
    server.kill()
    w.change("d/small")
    w.daemon.until_state("a", ("retry 1", "retry 2", "retry 3", "retrying", "retry"))
    server.start()
    w.until_arrived("a", "d/small")
    w.until_level()
    until(lambda: not partial(w), 60, "temporary files to be removed")


# Options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option", ["--partial", "--append", "--inplace", "--delay-updates", "--partial-dir=.parts", "-H", "-z"]
)
def test_option_in_extra_works_with_two_lanes(
    warm: MakeWarm, rsyncd: MakeRsyncd, tmp_path: Path, option: str
) -> None:
    w = started(warm, rsyncd({"a": tmp_path / "nodes/a"}), extra=[*SLOW, option])
    write_big(w, content=HALF)
    os.link(w.tree() / "d/big", w.tree() / "d/other")
    until(lambda: big_rsync(w), 60, "the second lane")
    w.change("d/small")
    w.until_arrived("a", "d/small")
    w.until_level()


def test_size_limit_of_the_user_stays_and_means_one_lane(
    warm: MakeWarm, rsyncd: MakeRsyncd, tmp_path: Path
) -> None:
    w = started(warm, rsyncd({"a": tmp_path / "nodes/a"}), extra=[*SLOW, "--max-size=20M"])
    write_big(w, "large")
    write_big(w, "medium", HALF)
    until(lambda: (w.copy("a") / "medium").exists(), 60, "what may be sent")
    assert not (w.copy("a") / "large").exists()
    assert not big_rsync(w)


# The daemon ----------------------------------------------------------------------------------------------


def test_guard_halts_a_tree_with_a_big_file_under_way(
    warm: MakeWarm, rsyncd: MakeRsyncd, tmp_path: Path
) -> None:
    w = started(warm, rsyncd({"a": tmp_path / "nodes/a"}), extra=SLOW)
    write_big(w)
    until_big(w)
    w.tree().rename(w.home / "away")
    w.daemon.until_state("a", ("halted",))
    until(lambda: not big_rsync(w), 60, "the transfer to be ended")
    (w.home / "away").rename(w.tree())
    w.until_level()


def test_tree_that_is_not_mirrored_any_more_ends_its_big_file(
    warm: MakeWarm, rsyncd: MakeRsyncd, tmp_path: Path
) -> None:
    w, _ = with_a_big_file_and_another_tree(warm, rsyncd({"a": tmp_path / "nodes/a"}))
    w.reload(wpaths=[str(w.tree("other"))], rpaths=["other"])
    w.change("new", tree="other")
    w.until_arrived("a", "new", tree="other")
    until(lambda: not big_rsync(w), 60, "the transfer to be ended")
    assert w.daemon.ask("status")["nodes"][0]["pending"] == 0


def test_full_mirror_of_another_tree_does_not_disturb_a_big_file(
    warm: MakeWarm, rsyncd: MakeRsyncd, tmp_path: Path
) -> None:
    w, first = with_a_big_file_and_another_tree(warm, rsyncd({"a": tmp_path / "nodes/a"}))
    (w.copy("a", "other") / "stays").unlink()
    w.daemon.ask("resync", node="a")
    w.until_arrived("a", "stays", tree="other")
    assert big_rsync(w) == first
    w.until_level()


def test_stop_gives_a_big_file_its_grace_and_no_more(
    warm: MakeWarm, rsyncd: MakeRsyncd, tmp_path: Path
) -> None:
    w = started(warm, rsyncd({"a": tmp_path / "nodes/a"}), extra=["--bwlimit=100"])
    write_big(w)
    pid = until_big(w)
    assert w.daemon.stop() == 0
    assert procs.look(pid) is None


@pytest.mark.parametrize("times", [2, 3])
def test_big_files_go_one_after_another(
    warm: MakeWarm, rsyncd: MakeRsyncd, tmp_path: Path, times: int
) -> None:
    w = started(warm, rsyncd({"a": tmp_path / "nodes/a"}), extra=SLOW)
    for number in range(times):
        write_big(w, f"big{number}", HALF)
        until(lambda: partial(w), 60, "a part of a big file")
    w.change("small")
    w.until_arrived("a", "small")
    assert len(partial(w)) <= 1
    w.until_level()


def test_once_waits_for_big_files(daemon: MakeDaemon, tmp_path: Path) -> None:
    tree, copy = tmp_path / "tree", tmp_path / "node/tree"
    (tree / "d").mkdir(parents=True)
    copy.parent.mkdir()
    (tree / "small").write_text("content")
    config = {"wpaths": [str(tree)], "rpaths": ["tree"], "rnodes": [f"{copy.parent}/"]}
    one = daemon(config)
    command = [*one.command, "--once"]
    for content in (BIG, BIG[::-1]):
        (tree / "d/big").write_bytes(content)
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not trees.diff(trees.snapshot(tree), trees.snapshot(copy))
