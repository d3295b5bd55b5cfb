"""What a node that goes on after SIGHUP knows of the new configuration, and who takes whose place."""

from __future__ import annotations

import os
import signal
import time

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
    time.sleep(0.5)
    assert set(w.spares("a")) == {"one", "two"}
