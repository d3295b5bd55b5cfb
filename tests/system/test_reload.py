"""What a node that goes on after SIGHUP knows of the new configuration, and who takes whose place."""

from __future__ import annotations

import os
import signal
import time

import pytest
from support.wait import until
from support.warm import OK, MakeWarm


def test_a_node_that_named_the_trees_it_had_gets_no_other_when_its_worker_is_replaced(warm: MakeWarm) -> None:
    w = warm({"a": "", "b": ""}, trees=("one", "two", "three"))
    first = [str(w.tree("one")), str(w.tree("two"))]
    both = {"wpaths": first, "rpaths": ["one", "two"]}
    w.configure({"a": "", "b": ""}, **both)
    w.daemon.start()
    for node in "ab":
        w.until_title(node, OK)
    worker = w.daemon.workers()["a"]
    w.reload(**both, rnodes=[w.item("a", {"wpaths": first}), w.item("b")])
    everything = {"wpaths": [*first, str(w.tree("three"))], "rpaths": ["one", "two", "three"]}
    w.reload(**everything, rnodes=[w.item("a", {"wpaths": first}), w.item("b")])
    w.change("file", tree="three")
    w.until_arrived("b", "file", tree="three")
    assert w.daemon.workers()["a"] == worker
    os.kill(worker, signal.SIGKILL)
    until(lambda: w.daemon.workers().get("a") not in (None, worker), 60, "another worker")
    until(lambda: set(w.spares("a")) >= {"one", "two"}, 60, "rsyncs that wait")
    # Whenever one is missing all that are missing are started: with the next would come one for three.
    before = w.spare("a", "one")
    w.change("file", tree="one")
    w.until_arrived("a", "file", tree="one")
    until(lambda: w.spares("a").get("one", before) != before, 60, "the next one")
    assert set(w.spares("a")) == {"one", "two"}
    assert not [start for start in w.rsync.starts("/a/") if "/three" in start]


def test_no_two_workers_write_to_one_place_however_often_it_is_renamed_and_changed(warm: MakeWarm) -> None:
    w = warm({"a": {"rspeed": 50}})
    w.daemon.start()
    w.until_title("a", OK)
    (w.tree() / "large").write_bytes(os.urandom(4 << 20))
    w.until_title("a", r"\[syncing\].*")
    place = f"{w.home}/nodes/a/"
    for speed in (60, 0):
        w.reload(rnodes=[w.item("b", {"node": place, "rspeed": speed})])
    deadline = time.monotonic() + 60
    while "a" in (workers := w.daemon.workers()):
        assert "b" not in workers
        assert time.monotonic() < deadline
    w.until_title("b", OK)
    assert (w.copy("a") / "large").read_bytes() == (w.tree() / "large").read_bytes()


def test_nodes_that_exchange_their_places_wait_for_each_other(warm: MakeWarm) -> None:
    w = warm({"a": {"rspeed": 50}, "b": ""})
    w.daemon.start()
    for node in "ab":
        w.until_title(node, OK)
    old = w.daemon.workers()
    (w.tree() / "large").write_bytes(os.urandom(4 << 20))
    w.until_title("b", OK)
    w.until_title("a", r"\[syncing\].*")
    places = {node: f"{w.home}/nodes/{node}/" for node in "ab"}
    w.reload(rnodes=[w.item("a", {"node": places["b"]}), w.item("b", {"node": places["a"]})])
    deadline = time.monotonic() + 60
    while (workers := w.daemon.workers()).get("a") == old["a"]:
        assert workers.get("b") in (None, old["b"])  # its place is still written to
        assert time.monotonic() < deadline
    w.until_level()


# Reloads that are refused for a while -------------------------------------------------------------------


@pytest.mark.parametrize("why", ["wpath", "directory"])
def test_a_changed_file_takes_effect_when_what_kept_it_from_being_read_is_over(
    warm: MakeWarm, why: str
) -> None:
    w = warm({"a": ""})
    file = w.daemon.file.with_name("patterns")
    file.write_text("/x\n")
    file.chmod(0o600)
    w.configure({"a": ""}, rexcludes={"from": str(file)})
    w.daemon.start()
    w.change("x")
    w.change("y")
    w.until_arrived("a", "y")
    w.until_title("a", OK)
    away = w.tree().with_name("away")
    if why == "wpath":
        w.tree().rename(away)
    else:
        file.parent.chmod(0o777)
    file.write_text("/other\n")
    w.daemon.until_logged("was not reloaded")
    refused = w.daemon.log().count("was not reloaded")
    if why == "wpath":
        away.rename(w.tree())
    else:
        file.parent.chmod(0o700)
    until(lambda: w.has("a", "x"), 60, "what is excluded no longer")
    # Told once, and tried again until it is right.
    assert w.daemon.log().count("was not reloaded") == refused == 1
