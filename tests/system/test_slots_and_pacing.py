"""Slots and pacing: when batches go, how many, and how many at once."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest
from support.rsyncd import MakeRsyncd
from support.wait import until
from support.warm import OK, TIME, Location, MakeWarm

ROOT = os.geteuid() == 0


# Slots ---------------------------------------------------------------------------------------------------


def test_full_mirrors_run_at_most_rslots_at_once(warm: MakeWarm) -> None:
    w = warm({f"n{number}": "" for number in range(20)}, rslots=3)
    for number in range(20):
        w.change(f"{number}")
    noted, held = w.home / "noted", w.home / "held"
    noted.touch()
    held.touch()
    w.rsync.fault(
        "nodes",
        f'[ "$kind" = full ] || exec rsync "$@"\n'
        f"echo + >>{noted}; while [ -e {held} ]; do sleep 0.05; done; sleep 0.05\n"
        f'rsync "$@"; code=$?; echo - >>{noted}; exit $code',
    )
    w.daemon.start()
    until(lambda: noted.read_text().count("+") >= 3, 60, "as many as there are slots")
    held.unlink()
    w.until_level()
    steps = [{"+": 1, "-": -1}[line] for line in noted.read_text().split()]
    running = list(itertools.accumulate(steps))
    assert (len(steps), running[-1]) == (40, 0)
    assert max(running) == 3
    w.until_warm()
    # Small batches need no slot: even three nodes that hang do not delay the others.
    for node in ("n0", "n1", "n2", "n3"):
        w.rsync.hold(node)
    try:
        for number in range(2):
            w.change("small", f"{number}")
            for node in w.nodes()[4:]:
                w.until_arrived(node, "small", f"{number}")
    finally:
        for node in ("n0", "n1", "n2", "n3"):
            w.rsync.mend(node)
    w.until_level()


def test_node_unreachable_hanging_or_waiting_holds_no_slot(
    warm: MakeWarm, tmp_path: Path, rsyncd: MakeRsyncd
) -> None:
    server = rsyncd({"dead": tmp_path / "nodes/dead"})
    server.kill()
    nodes: dict[str, Location] = {"dead": server.url("dead"), "a": "", "b": ""}
    # A warm rsync would fail already when connecting takes longer than rtimeout.
    nodes["hangs"] = {"rtimeout": 1, "rwarm": False}
    w = warm(nodes, rslots=1, rretry=(600, 600))
    w.change("file")
    w.rsync.fault("hangs", '[ "$kind" != full ] || exec sleep 1000')
    w.daemon.start()
    for node in ("a", "b"):
        w.until_arrived(node, "file")
        w.until_title(node, OK)
    w.until_title("dead", rf"\[retry 1 at {TIME}\] .*Connection refused.*, 1 behind")
    w.until_title("hangs", rf"\[retry 1 at {TIME}\] no progress for 1 s, 1 behind")
    assert w.fulls("hangs") == 1
    assert w.fulls("dead") <= 1  # none, if the node was found unreachable before it had a slot


def test_full_mirror_that_failed_waits_for_a_slot_again(warm: MakeWarm) -> None:
    w = warm({"fails": "", "holds": "", "third": ""}, rslots=1)
    # The failing node must have had the slot before another node holds it.
    tried, held = w.home / "tried", w.home / "held"
    w.rsync.fault("fails", f"touch {tried}; echo 'rsync: no luck (5)' >&2; exit 12")
    w.rsync.fault(
        "holds", f'[ -e {tried} ] || exit 12; touch {held}; while [ -e "$fault" ]; do sleep 0.05; done'
    )
    w.daemon.start()
    try:
        until(held.exists, 60, "the one that holds the slot")
        w.until_title("fails", r"\[retry [1-9]\d* waits for a slot\] no luck \(5\), 1 behind")
        tries = w.fulls("fails")
        third = w.fulls("third")  # 1 if its worker was ready first
        w.rsync.mend("fails")
        for number in range(5):
            w.change(f"{number}")
            until(lambda: w.daemon.title(), 60, "the master")
            assert (w.fulls("fails"), w.fulls("third")) == (tries, third)
    finally:
        w.rsync.mend("holds")
    w.until_level()
    assert (w.fulls("fails"), w.fulls("third")) == (tries + 1, 1)


# Pacing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rwarm", [True, False], ids=["warm", "cold"])
def test_flood_goes_batch_after_batch_and_ends_level(warm: MakeWarm, rwarm: bool) -> None:
    w = warm({"a": "", "b": ""}, edelay=600, equiet=0.02, rwarm=rwarm)
    w.daemon.start()
    w.until_level()
    if rwarm:
        w.until_warm()
    since = len(w.daemon.log())
    began = time.monotonic()
    for number in itertools.count():
        (w.tree() / f"file-{number % 50}").write_text(f"{number}")
        if time.monotonic() - began > 4:
            break
        time.sleep(0.002)
    w.until_level()
    for node in w.nodes():
        sizes = w.sizes(node, since)
        # Far fewer than changes, and more than a wait of edelay would allow.
        assert 4 <= len(sizes) <= number / 4
    since = len(w.daemon.log())
    for name in ("first", "second"):
        w.change(name)
        for node in w.nodes():
            w.until_arrived(node, name)
    w.until_level()
    # The log may be later than the titles.
    until(lambda: all(len(w.sizes(node, since)) >= 2 for node in w.nodes()), 60, "both batches in the log")
    assert [w.sizes(node, since) for node in w.nodes()] == [[1, 1], [1, 1]]


def test_node_that_needs_5_s_for_each_batch_does_not_slow_the_others(warm: MakeWarm) -> None:
    w = warm({"slow": "", "a": "", "b": ""}, edelay=600)
    w.daemon.start()
    w.until_level()
    w.until_warm()
    began = w.home / "began"
    w.rsync.fault("slow", f'touch {began}; rsync "$@"; code=$?; sleep 5; exit $code')
    ends = w.sizes("slow")
    changes = 0
    while len(w.sizes("slow")) < len(ends) + 3:
        # Each is on the fast nodes before the next one is made, however long the slow one takes.
        w.change(f"{changes}")
        for node in ("a", "b"):
            w.until_arrived(node, f"{changes}")
        changes += 1
    w.until_level()
    sizes = w.sizes("slow")[len(ends) :]
    assert sum(sizes) >= changes
    # What changed while a batch was on its way has gathered, and has gone with the next one.
    assert max(sizes) > 1
    assert len(sizes) < changes


def test_node_at_100_kb_a_second_does_not_slow_49_fast_ones(warm: MakeWarm) -> None:
    fast = [f"n{number}" for number in range(49)]
    w = warm({"slow": {"rspeed": 100}, **dict.fromkeys(fast, "")}, rwarm=False, edelay=600)
    w.daemon.start()
    w.until_level()
    w.change("large", "x" * 3_000_000)
    for node in fast:
        w.until_arrived(node, "large", "x" * 3_000_000)
    for number in range(3):
        # All fast nodes have each change before the next one is made, and the slow one still lacks the first.
        w.change(f"{number}")
        for node in fast:
            w.until_arrived(node, f"{number}")
    assert not w.has("slow", "large", "x" * 3_000_000)
    w.until_level(timeout=120)


def test_isolated_change_does_not_wait_for_edelay(warm: MakeWarm) -> None:
    w = warm({"a": ""}, edelay=3600, equiet=0.02)
    w.daemon.start()
    w.until_warm()
    for number in range(3):
        w.change(f"{number}")
        w.until_arrived("a", f"{number}")
    w.until_level()


def test_new_file_is_sent_when_it_is_closed(warm: MakeWarm) -> None:
    w = warm({"a": ""}, edelay=0.05)
    w.daemon.start()
    w.until_warm()
    count = w.batches("a")
    with (w.tree() / "open").open("w") as file:
        # Other files arrive meanwhile.
        for number in range(5):
            w.change("other", f"{number}")
            w.until_arrived("a", "other", f"{number}")
        assert not (w.copy("a") / "open").exists()
        file.write("content")
    w.until_arrived("a", "open")
    w.until_level()
    w.until_warm()
    assert w.batches("a") - count <= 12
