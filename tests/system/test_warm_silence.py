"""Warm rsyncs and connections whose end nobody tells of, black-box."""

from __future__ import annotations

from pathlib import Path

from support import procs
from support.daemon import Patched
from support.network import Network
from support.rsyncd import MakeRsyncd, Rsyncd
from support.sshd import Sshd
from support.warm import OK, RETRY, MakeWarm, below, end, set_up_everywhere, stop

# Where the kernel does not let us look ---------------------------------------------------------------------

NOT_PERMITTED = """
from inosync.system import peers
def refuse(process, number):
    raise PermissionError(1, "Operation not permitted")
peers._duplicate = refuse
"""


def test_a_death_is_noticed_where_the_connections_of_others_may_not_be_looked_at(
    tmp_path: Path, patched: Patched, rsyncd: MakeRsyncd, own_sshd: Sshd
) -> None:
    everywhere = set_up_everywhere(tmp_path, patched(NOT_PERMITTED), rsyncd, own_sshd)
    w, servers = everywhere.warm, (everywhere.rsyncd, own_sshd)
    w.watched = False
    w.daemon.start()
    w.until_level()
    before = {node: spares["tree"] for node, spares in w.until_warm().items()}
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


# A network that is gone ------------------------------------------------------------------------------------


def test_a_connection_that_is_dead_without_a_word_is_noticed(
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


# Sessions that hang ----------------------------------------------------------------------------------------


def test_an_ssh_connection_that_hangs_is_noticed_without_a_change(
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
    assert w.spare("other") == before["other"]["tree"]
    w.change("file")
    w.until_level()
    assert all(map(procs.alive, hung))


def test_a_batch_on_an_ssh_connection_that_hangs_is_sent_again_on_another(
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
