"""A fleet: an origin, up to three senders and six nodes, with a real Redis."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest
from support.fleet import Fleet
from support.publishing import Reader, Site
from support.redis_server import REDIS
from support.wait import until

pytestmark = pytest.mark.skipif(REDIS is None, reason="redis-server is not installed")


def write(fleet: Fleet, name: str, text: str) -> None:
    path = fleet.tree / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_fleet_serves_all_nodes_whatever_sender_dies(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path).trust_redis()
    write(fleet, "index.html", "first")
    write(fleet, "a/b", "deep")
    with fleet.running():
        vias = fleet.until_served()
        fleet.until_level()
        until(lambda: Counter(fleet.vias().values()) == dict.fromkeys(fleet.names, 2), 60, "even shares")
        assert fleet.ask("flush", timeout=60)["behind"] == []

        # A change is at all nodes when flush returns, with what was removed and renamed.
        write(fleet, "index.html", "second")
        (fleet.tree / "a").rename(fleet.tree / "c")
        assert fleet.ask("flush", timeout=60)["behind"] == []
        for name in fleet.nodes:
            assert (fleet.copy(name) / "index.html").read_text() == "second"
            assert not (fleet.copy(name) / "a").exists()

        # A node shows at any time a release that is whole, and a page with what it names, if each deployment
        # has arrived before the next one (see the limits in docs/fleet.rst).
        site = Site(fleet.tree / "site", files=20)
        site.deploy()
        assert fleet.ask("flush", timeout=60)["behind"] == []
        readers = [Reader(fleet.copy(name) / "site", site.files, 0.001) for name in ("n0", "n1")]
        try:
            for _ in range(4):
                site.deploy()
                assert fleet.ask("flush", timeout=60)["behind"] == []
            for reader in readers:
                seen = reader.seen()
                assert (set(seen), reader.examples) == ({"looks", "versions"}, [])
        finally:
            for reader in readers:
                reader.kill()

        by_name = {one["name"]: one for one in fleet.ask("senders")["senders"]}
        assert {name for name, one in by_name.items() if one["ready"]} == set(fleet.names)
        until(lambda: fleet.ask("events", node="n0")["events"], 30, "what its senders say of it")
        assert {one["node"] for one in fleet.ask("events")["events"]} >= {"n0", "sa"}
        own = {node["name"] for node in fleet.ask_sender("sb", "status", node="all")["nodes"]}
        assert own == {name for name, via in fleet.vias().items() if via == "sb"}

        # One is killed: the others go on where its nodes were, without a full mirror.
        marks = {name: len(daemon.log()) for name, daemon in fleet.senders.items()}
        dead = vias[fleet.nodes[0]]
        fleet.senders[dead].kill9()
        write(fleet, "after", "kill")
        fleet.until_level()
        until(lambda: dead not in fleet.until_served().values(), 60, "the others to serve all")
        assert fleet.ask("flush", timeout=60)["behind"] == []
        for name in set(fleet.names) - {dead}:
            assert "compared in full" not in fleet.senders[name].log()[marks[name] :]

        # One that is told to end hands over at once. One is left, and serves all.
        left, *others = sorted(set(fleet.names) - {dead})
        fleet.senders[others[0]].stop()
        write(fleet, "after", "stop")
        assert set(fleet.until_served().values()) <= {left, others[0]}
        fleet.until_level()
        assert "compared in full" not in fleet.senders[left].log()[marks[left] :]

        # Back again, they get their shares.
        for name in (dead, others[0]):
            fleet.senders[name].start()
        until(lambda: Counter(fleet.vias().values()) == dict.fromkeys(fleet.names, 2), 60, "even shares")
        write(fleet, "after", "all")
        assert fleet.ask("flush", timeout=60)["behind"] == []
        fleet.until_level()


def test_fleet_goes_on_after_redis_was_away(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, ("sa", "sb"), ("n0", "n1", "n2"), shared=("sb",))
    write(fleet, "one", "1")
    with fleet.running():
        until(lambda: set(fleet.vias().values()) == {"sa", "sb"}, 60, "both senders to serve")
        fleet.until_level()
        assert not fleet.copy("sb").exists(), "the storage of the origin is its own"
        fleet.redis.stop()
        write(fleet, "one", "2")
        write(fleet, "two", "2")
        fleet.origin.until_logged("Redis: .*; changes are kept in memory")
        # What the origin sends itself does not wait.
        until(lambda: (fleet.copy("sa") / "two").exists(), 60, "the senders to have it")
        fleet.redis.start()  # and empty
        fleet.until_level()
        fleet.until_served()
        write(fleet, "three", "3")
        assert fleet.ask("flush", timeout=60)["behind"] == []
        fleet.until_level()

        # The origin goes on where it was: nothing is lost, and nothing is compared in full.
        assert fleet.ask("flush", timeout=60)["behind"] == []
        until(
            lambda: any(b'"fleet":{' in one.read_bytes() for one in fleet.origin.statedir.glob("*.state")),
            30,
            "the fleet to be kept",
        )
        marks = {daemon: len(daemon.log()) for daemon in fleet.daemons()}
        fleet.origin.signal(signal.SIGKILL)
        fleet.origin.wait()
        (fleet.tree / "three").unlink()
        write(fleet, "four", "4")
        fleet.origin.start()
        fleet.until_level()
        fleet.until_served()
        for daemon, mark in marks.items():
            assert "in full" not in daemon.log()[mark:]
            assert "full mirror" not in daemon.log()[mark:]


def test_fleet_has_one_origin_which_starts_without_redis(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "one", ("sa",), ("n0",)).trust_redis()
    other = Fleet(tmp_path / "other", ("sa",), ("n0", "n1"), {"fleet": fleet.redis.url})
    write(fleet, "one", "1")
    try:
        fleet.origin.start()
        fleet.senders["sa"].start()
        until(lambda: (fleet.copy("sa") / "one").exists(), 60, "the sender to have it")
        assert fleet.status()["n0"]["reason"].startswith("Redis cannot be used")
        fleet.redis.start()
        fleet.until_level()

        # The machine of the other one has another path, which makes it another origin.
        other.senders["sa"].start()
        other.origin.start(ready=False)
        assert other.origin.wait() == 1
        assert "another machine is its origin" in other.origin.log()
        other.senders["sa"].until_logged("the configuration is not that of the origin")
        write(fleet, "two", "2")
        fleet.until_level()
    finally:
        other.close()
        fleet.close()
        fleet.redis.stop()


def test_orders_at_the_origin_reach_a_node_wherever_it_is_served(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, ("sa", "sb"), ("n0", "n1")).trust_redis()
    write(fleet, "one", "1")
    with fleet.running():
        until(lambda: set(fleet.vias().values()) == {"sa", "sb"}, 60, "one node for each")
        vias = fleet.until_served()
        fleet.until_level()

        # What differs on a node is shown, and repaired. (No full mirror runs that would repair it before.)
        assert fleet.ask("flush", timeout=60)["behind"] == []
        (fleet.copy("n0") / "one").write_text("not ours")
        [found] = fleet.ask("diff", node="n0", timeout=60)["comparisons"]
        assert [Path(path).name for path, _ in found["differences"]] == ["one"]
        assert (fleet.copy("n0") / "one").read_text() == "not ours"
        fleet.ask("resync", node="n0")
        assert fleet.ask("flush", node="n0", timeout=60)["behind"] == []
        assert (fleet.copy("n0") / "one").read_text() == "1"
        (fleet.copy("n1") / "stray").write_text("x")
        found = {
            one["node"]: one for one in fleet.ask("verify", node="all", wait=True, timeout=60)["comparisons"]
        }
        assert found["n1"]["count"] == 1
        until(lambda: not (fleet.copy("n1") / "stray").exists(), 60, "the repair")

        # A pause goes with the node, through another sender and a restart of the origin.
        assert fleet.ask("pause", node="n0")["paused"] == ["n0"]
        until(lambda: sender_says(fleet, vias["n0"], "n0") == "paused", 30, "the sender to know it")
        fleet.senders[vias["n0"]].stop()
        write(fleet, "two", "2")
        until(lambda: fleet.vias().get("n0") not in (None, vias["n0"]), 60, "the other sender to have it")
        fleet.origin.stop()
        fleet.origin.start()
        until(lambda: (fleet.copy("n1") / "two").exists(), 60, "the other node to have it")
        assert fleet.status()["n0"]["state"] == "paused"
        assert not (fleet.copy("n0") / "two").exists()
        fleet.until_served()
        fleet.ask("resume", node="n0")
        assert fleet.ask("flush", timeout=60)["behind"] == []
        fleet.until_level()


def sender_says(fleet: Fleet, sender: str, node: str) -> str:
    """Return the state of a node as the sender says it that serves it."""
    nodes: dict[str, str] = {
        one["name"]: one["state"] for one in fleet.ask_sender(sender, "status", node="all")["nodes"]
    }
    return nodes.get(node, "")
