"""Failures of warm rsyncs: nodes, connections and the rsyncs themselves end or hang.

While idle, that is noticed without a change; with a batch, it costs a cold start and no more.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
from support import procs
from support.daemon import MakeDaemon, Patched
from support.network import Network
from support.procs import Server
from support.rsyncd import MakeRsyncd, Rsyncd
from support.sshd import Sshd
from support.wait import until
from support.warm import (
    FIRST,
    LONGEST,
    OK,
    RETRY,
    TIME,
    AllTransports,
    MakeWarm,
    below,
    cont,
    end,
    locations,
    set_up,
    set_up_all_transports,
    start_with_churn,
    stop,
)

ROOT = os.geteuid() == 0

KEPT_NO_MORE = r"WARNING: (\S+): (.*): no connection is kept to it"


# Idle ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["daemon", "ssh"])
def test_node_that_goes_and_returns_is_reported_without_a_change(
    transport: str, tmp_path: Path, daemon: MakeDaemon, rsyncd: MakeRsyncd, own_sshd: Sshd
) -> None:
    server: Server = own_sshd
    location = own_sshd.node("a", f"{tmp_path}/nodes/away/")
    if transport == "daemon":
        server = made = rsyncd({"away": tmp_path / "nodes/away"})
        location = made.url("away")
    w = set_up(tmp_path, daemon, {"away": location, "other": ""}, env=own_sshd.env())
    w.daemon.start()
    before = w.until_warm()
    w.until_level()
    fulls = w.rsync.starts("full ")
    count, began = w.batches("away"), time.monotonic()
    server.kill()
    w.until_title("away", rf"{RETRY} .*Connection refused.*, 0 behind")
    until(lambda: "[2 nodes: 1 ok, 1 retrying]" in w.daemon.title(), 60, "the master to tell")
    w.until_gone(before["away"]["tree"])
    w.until_title("away", rf"\[retry ([5-9]|\d\d+) at {TIME}\] .*Connection refused.*, 0 behind")
    tries = w.batches("away") - count
    took = time.monotonic() - began
    # The first retry may follow at once.
    assert took >= sum(0.75 * min(FIRST * 2**n, LONGEST) for n in range(tries - 2)), f"{tries} in {took} s"
    # The others work as ever.
    for number in range(3):
        w.change("file", f"{number}")
        w.until_arrived("other", "file", f"{number}")
    w.until_title("other", OK)
    w.until_title("away", rf"{RETRY} .*Connection refused.*, [1-9] behind")
    server.start()
    w.until_level()
    w.until_warm()
    # The same without changes meanwhile.
    server.kill()
    w.until_title("away", rf"{RETRY} .*Connection refused.*, 0 behind")
    server.start()
    w.until_title("away", OK)
    until(lambda: "[2 nodes: 2 ok]" in w.daemon.title(), 60, "the master to tell")
    w.until_warm()
    assert w.rsync.starts("full ") == fulls
    assert "other: " not in "\n".join(w.warnings())
    w.change("last")
    w.until_level()


CUTS = ("the far end", "the child", "rsync, politely", "rsync")


def test_connection_that_is_cut_is_made_again_and_is_no_failure(all_transports: AllTransports) -> None:
    w = all_transports.warm
    w.daemon.start()
    for what in CUTS:
        warm = {node: found["tree"] for node, found in w.until_warm().items()}
        counts = {node: w.batches(node) for node in warm}
        victims = all_transports.cut(what, warm)
        w.until_warm(but=[warm[node] for node in victims])
        for node, process in warm.items():
            assert w.batches(node) - counts[node] == (node in victims), (what, node)
            assert (w.warm_rsync(node) == process) == (node not in victims)
        for node in victims:
            w.until_gone(warm[node])
        # A batch between the cuts, so that they do not count as a node that closes idle connections.
        w.change("file", what)
        w.until_level()
    assert w.warnings() == []


@pytest.mark.parametrize("count", [1, 4], ids=["one tree", "four trees"])
def test_connections_cut_together_count_as_one_cut(
    count: int, tmp_path: Path, warm: MakeWarm, rsyncd: MakeRsyncd
) -> None:
    names = tuple(f"tree-{number}" for number in range(count))
    server = rsyncd({"daemon": tmp_path / "nodes/daemon"})
    w = warm({"daemon": server.url("daemon")}, names)
    w.daemon.start()
    before = list(w.until_warm()["daemon"].values())
    server.drop()
    w.until_warm(but=before)
    assert w.warnings() == []
    before = list(w.until_warm()["daemon"].values())
    server.kill()
    w.until_title("daemon", rf"{RETRY} .*Connection refused.*, 0 behind")
    server.start()
    w.until_warm(but=before)
    assert not re.search(KEPT_NO_MORE, w.daemon.log())


def test_node_that_comes_and_goes_is_followed(tmp_path: Path, warm: MakeWarm, rsyncd: MakeRsyncd) -> None:
    server = rsyncd({"daemon": tmp_path / "nodes/daemon"})
    w = warm({"daemon": server.url("daemon"), "other": ""})
    w.daemon.start()
    for _ in range(5):
        w.until_warm()
        server.kill()
        w.until_title("daemon", rf"{RETRY} .*Connection refused.*, 0 behind")
        server.start()
    w.until_warm()
    w.until_title("daemon", OK)
    assert not re.search(KEPT_NO_MORE, w.daemon.log())


def test_node_down_at_the_start_is_reported(tmp_path: Path, warm: MakeWarm, rsyncd: MakeRsyncd) -> None:
    server = rsyncd({"daemon": tmp_path / "nodes/daemon"})
    server.kill()
    w = warm({"daemon": server.url("daemon"), "other": ""})
    w.daemon.start()
    w.until_title("daemon", rf"{RETRY} .*Connection refused.*, 1 behind")
    w.until_title("other", OK)
    server.start()
    w.until_level()
    w.until_warm()


# When the batch comes ------------------------------------------------------------------------------------


def test_batch_that_finds_its_connection_dead_starts_cold_without_failure(
    all_transports: AllTransports,
) -> None:
    w = all_transports.warm
    # The batch reaches this node's worker last.
    w.configure({**locations(w), "last": ""})
    w.daemon.start()
    for what in CUTS:
        warm = {node: found["tree"] for node, found in w.until_warm().items()}
        w.until_level()
        workers = [process for node, process in w.workers().items() if node != "last"]
        for worker in workers:
            stop(worker)
        del warm["last"]
        all_transports.cut(what, warm)
        w.change("file", what)
        w.until_arrived("last", "file", what)
        # They find the batch and the dead connection at the same time.
        for worker in workers:
            cont(worker)
        w.until_level()
    assert w.warnings() == []


# However long the test takes until all nodes have the batch.
PATIENT = "from inosync import worker; worker.STALE = 60.0"


def test_batch_lost_in_a_dying_connection_starts_cold_without_failure(
    tmp_path: Path, patched: Patched, rsyncd: MakeRsyncd, own_sshd: Sshd
) -> None:
    """The far end exists when the names are written, and dies before it handles them."""
    all_transports = set_up_all_transports(tmp_path, patched(PATIENT), rsyncd, own_sshd)
    w = all_transports.warm
    w.daemon.start()
    warm = w.until_warm()
    w.until_level()
    far = [
        *all_transports.rsyncd.connections(),
        *all_transports.sshd.connections(),
        below(warm["local"]["tree"]),
    ]
    for process in far:
        stop(process)
    w.change("file")
    for node in warm:
        w.until_title(node, r"\[syncing\] 1 path")
    end(far)
    w.until_level()
    w.until_warm(but=[trees["tree"] for trees in warm.values()])
    assert w.warnings() == []


def test_node_that_hangs_is_given_up_after_rtimeout(
    tmp_path: Path, warm: MakeWarm, rsyncd: MakeRsyncd
) -> None:
    server = rsyncd({"hangs": tmp_path / "nodes/hangs"})
    w = warm({"hangs": {"node": server.url("hangs"), "rtimeout": 1}, "other": ""})
    w.daemon.start()
    before = w.until_warm()["hangs"]["tree"]
    server.pause()
    try:
        w.change("file")
        w.until_arrived("other", "file")
        w.until_title("hangs", rf"{RETRY} no progress for 1 s, 1 behind")
        w.until_gone(before)
    finally:
        server.resume()
    w.until_level()
    w.until_warm()


# Nodes that do not like connections that are kept --------------------------------------------------------


def test_node_that_cuts_idle_connections_gets_cold_starts(
    tmp_path: Path, warm: MakeWarm, rsyncd: MakeRsyncd
) -> None:
    server = rsyncd({"cuts": tmp_path / "nodes/cuts"})
    w = warm({"cuts": server.url("cuts"), "other": ""})
    w.daemon.start()
    w.until_warm()
    w.until_level()
    # The rsync daemon reads its configuration for each connection. The timeout is short only while nothing is
    # sent, because a busy machine might be too slow for it.
    usual = server.config.read_text()
    server.config.write_text(f"timeout = 1\n{usual}")
    server.drop()
    said = w.daemon.until_logged(KEPT_NO_MORE)
    assert said[1] == "cuts"
    server.config.write_text(usual)
    until(lambda: not w.daemon.rsyncs("cuts"), 60, "none to be kept")
    w.until_level()
    w.until_warm("other")
    count = w.batches("cuts")
    assert count <= 4
    for number in range(5):
        w.change("file", f"{number}")
        w.until_level()
    w.until_warm("other")
    assert w.batches("cuts") == count + 5
    assert not w.daemon.rsyncs("cuts")
    assert w.warnings() == [line for line in w.warnings() if re.search(KEPT_NO_MORE, line)]
    assert len(w.warnings()) == 1


@pytest.mark.parametrize("count", [1, 2], ids=["one tree", "two trees"])
def test_node_with_one_connection_is_not_blocked_by_a_warm_rsync(
    count: int, tmp_path: Path, warm: MakeWarm, rsyncd: MakeRsyncd
) -> None:
    names = ("one", "two")[:count]
    server = rsyncd({"full": tmp_path / "nodes/full"}, options={"max connections": "1"})
    w = warm({"full": server.url("full"), "other": ""}, names)
    w.daemon.start()
    w.until_level()
    w.until_warm("other")
    for number in range(3):
        for name in names:
            w.change(f"file-{number}", tree=name)
        w.until_level()
    # Full mirrors while warm rsyncs may hold connections.
    for number in range(2):
        if count == 1:
            w.until_warm("other")
        before = w.fulls("full")
        for name in names:
            w.tree(name).rename(tmp_path / "away")
            (tmp_path / "away").rename(w.tree(name))
        until(lambda: w.fulls("full") > before, 60, "a full mirror")  # noqa: B023
        w.until_level()
        w.change(f"after-{number}", tree=names[-1])
        w.until_level()
    said = re.findall(KEPT_NO_MORE, w.daemon.log())
    assert [node for node, _ in said] == ["full"][: len(said)]
    if count == 2:
        # At the latest the second tree's warm rsync is refused beside that of the first.
        assert w.daemon.until_logged(KEPT_NO_MORE)[1] == "full"


# Everything at once --------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rwarm", [True, False], ids=["warm", "cold"])
def test_churn_while_rsyncs_and_connections_are_killed_ends_level(
    rwarm: bool, all_transports: AllTransports, seed: int
) -> None:
    w = all_transports.warm
    w.configure(locations(w), rwarm=rwarm)
    churn, rand = start_with_churn(w, seed), random.Random(seed)
    for _ in range(25):
        churn.run(rand.randrange(1, 30), seconds=rand.choice([0, 0, 0.1, 0.3]))
        victims = [process for worker in w.workers().values() for process in procs.family([worker.pid])[1:]]
        if victims and rand.random() < 0.7:
            procs.send(rand.choice(victims), rand.choice([signal.SIGKILL, signal.SIGTERM]))
        elif rand.random() < 0.3:
            rand.choice([all_transports.rsyncd, all_transports.sshd]).drop()
    try:
        w.until_level(timeout=90)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{churn.tail(150)}") from None


# Connections that end without notice ---------------------------------------------------------------------


# Where the kernel does not let us look -------------------------------------------------------------------

NOT_PERMITTED = """
from inosync.system import peers
def refuse(process, number):
    raise PermissionError(1, "Operation not permitted")
peers._duplicate = refuse
"""


def test_death_is_noticed_where_sockets_of_others_cannot_be_duplicated(
    tmp_path: Path, patched: Patched, rsyncd: MakeRsyncd, own_sshd: Sshd
) -> None:
    all_transports = set_up_all_transports(tmp_path, patched(NOT_PERMITTED), rsyncd, own_sshd)
    w, servers = all_transports.warm, (all_transports.rsyncd, own_sshd)
    w.watched = False
    w.daemon.start()
    w.until_level()
    before = {node: warm["tree"] for node, warm in w.until_warm().items()}
    end([below(before["local"])])
    for server in servers:
        server.kill()
    for node in ("daemon", "ssh"):
        w.until_title(node, rf"{RETRY} .*Connection refused.*, 0 behind")
    w.until_warm("local", but=[before["local"]])
    for server in servers:
        server.start()
    for node in before:
        w.until_title(node, OK)
    w.until_warm(but=list(before.values()))
    counts = {node: w.batches(node) for node in before}
    w.change("file")
    w.until_level()
    w.until_warm()
    assert {node: w.batches(node) - counts[node] for node in before} == dict.fromkeys(before, 1)


# A network that is gone ----------------------------------------------------------------------------------


def test_connection_that_is_silently_dead_is_noticed(
    tmp_path: Path, warm: MakeWarm, network: Network
) -> None:
    server = Rsyncd(tmp_path / "rsyncd", {"far": tmp_path / "nodes/far"}, place=network)
    w = warm({"far": server.url("far"), "other": ""})
    server.start()
    try:
        w.daemon.start()
        before = w.until_warm()
        w.until_level()
        network.swallow()
        silent = "(no answer for .*|.*timed out.*)"
        w.until_title("far", f"{RETRY} {silent}, 0 behind")
        w.until_gone(before["far"]["tree"])
        w.change("file")
        w.until_arrived("other", "file")
        w.until_title("far", f"{RETRY} {silent}, 1 behind")
        network.answer()
        w.until_level()
        w.until_warm()
    finally:
        server.kill()


# Sessions that hang --------------------------------------------------------------------------------------


def test_ssh_connection_that_hangs_is_noticed_without_a_change(
    tmp_path: Path, warm: MakeWarm, own_sshd: Sshd
) -> None:
    w = warm({"ssh": own_sshd.node("a", f"{tmp_path}/nodes/ssh/"), "other": ""}, env=own_sshd.env())
    w.daemon.start()
    before = w.until_warm()
    w.until_level()
    hung = own_sshd.connections()
    for process in hung:
        stop(process)
    w.until_warm("ssh", but=[before["ssh"]["tree"]])
    w.until_gone(before["ssh"]["tree"])
    assert w.warm_rsync("other") == before["other"]["tree"]
    w.change("file")
    w.until_level()
    assert all(map(procs.alive, hung))


def test_batch_on_an_ssh_connection_that_hangs_is_sent_on_another(
    tmp_path: Path, warm: MakeWarm, own_sshd: Sshd
) -> None:
    node = {"node": own_sshd.node("a", f"{tmp_path}/nodes/ssh/"), "rtimeout": 2}
    w = warm({"ssh": node, "other": ""}, env=own_sshd.env())
    w.daemon.start()
    w.until_warm()
    w.until_level()
    hung = own_sshd.connections()
    for process in hung:
        stop(process)
    w.change("file")
    w.until_level()
    w.until_warm()
    assert all(map(procs.alive, hung))
