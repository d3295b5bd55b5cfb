"""Which requests are done, and what is said of those that are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.recorder import Recorder

from inosync.console import protocol
from inosync.master.fleet_orders import NotReached
from inosync.master.requests import MAX_TIMEOUT_SECONDS, RequestHandler, RequestRefused, checked
from inosync.master.verification import Comparison
from inosync.nodes.roll_out import RollOut
from inosync.nodes.stages import Plan
from inosync.state.document import NodeEvent
from inosync.status.events import NodeEvents

NODES = {
    name: SimpleNamespace(name=name, spec=SimpleNamespace(node=address), paused=name == "paused")
    for name, address in [("a", "a.mirror.com:"), ("paused", "host::www"), ("b:x", "user@b.mirror.com:/x/")]
}

EVENTS = NodeEvents(
    {
        "a": (NodeEvent(1.0, "state", "is ok"), NodeEvent(3.0, "failed", "refused", 2)),
        "b:x": (NodeEvent(2.0, "state", "is ok"),),
    }
)


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.calls: list[tuple[Any, ...]] = []
        self.replies: list[dict[str, Any]] = []
        self.refused: tuple[str, ...] = ()
        self.can_wait = True
        self.left: list[Any] = []
        self.found: Any = None
        self.roll_out = RollOut()
        pool = SimpleNamespace(nodes=NODES, loop=SimpleNamespace(clock=lambda: self.now))
        self.commands: Any = Recorder(
            self.calls,
            pool=pool,
            compare=self.begin_comparing,
            hold=Recorder(self.calls, flushes=Recorder(self.calls, begin=self.begin_flush)),
            staging=SimpleNamespace(accept=list, retry=lambda: [1], roll_out=self.roll_out),
        )
        self.snapshots: Any = Recorder(
            self.calls,
            of_all=lambda: {"nodes": "all"},
            of_nodes=lambda nodes, far=(): {"nodes": [one.name for one in (*nodes, *far)]},
            lag_of=lambda node: node.name,
        )
        reloader: Any = Recorder(self.calls, reload=self.reload)
        reloader.config = SimpleNamespace(path="/etc/inosync/default.py", fleet=None)
        events: Any = Recorder(self.calls, accept_loss=lambda: ["/www"])
        self.handler = RequestHandler(
            cast(Any, self.commands), reloader, events, cast(Any, self.snapshots), EVENTS
        )

    def reload(self, done: Callable[[Sequence[str]], None]) -> None:
        done(self.refused)

    def begin_comparing(self, _nodes: Sequence[Any], _repairs: bool, _deadline: float, done: Any) -> Any:
        self.found = done
        return SimpleNamespace(cancel=lambda: self.calls.append(("cancel",)))

    def begin_flush(self, *_arguments: Any) -> str:
        return "the flush"

    # As the reply

    def __call__(self, message: dict[str, Any]) -> None:
        self.replies.append(message)

    def defer(self, gone: Any) -> None:
        self.left.append(gone)

    def ask(self, **message: Any) -> dict[str, Any] | None:
        """The reply; None if it comes later."""
        self.replies.clear()
        self.handler.handle(message, self)  # type: ignore[arg-type]
        return self.replies[0] if self.replies else None


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({}, "there is no command 'None'"),
        ({"command": 7}, "there is no command '7'"),
        ({"command": ["stop"]}, "there is no command"),
        ({"command": "stopp"}, "there is no command 'stopp'; did you mean stop?"),
        ({"command": "x" * 60_000}, "there is no command 'xxx"),
        ({"command": "flush", "tiemout": 5}, "'tiemout' is not known in a request"),
        ({"command": "pause"}, "pause of which node? Say its name, or all"),
        ({"command": "pause", "node": 5}, "node: not a string"),
        ({"command": "pause", "node": {"a": 1}}, "node: not a string"),
        ({"command": "status", "node": "x" * 9_000}, "node: longer than 8192 characters"),
        ({"command": "stop", "node": "a"}, "stop takes no node"),
        ({"command": "accept", "node": "a"}, "accept takes no node"),
        ({"command": "hold", "node": "a"}, "hold takes no node"),
        ({"command": "release", "timeout": 5}, "release takes no timeout"),
        ({"command": "stop", "timeout": 5}, "stop takes no timeout"),
        ({"command": "flush", "timeout": "5"}, "timeout: not a number of seconds"),
        ({"command": "flush", "timeout": True}, "timeout: not a number of seconds"),
        ({"command": "flush", "timeout": -1}, "timeout: not a number of seconds"),
        ({"command": "flush", "timeout": float("nan")}, "timeout: not a number of seconds"),
        ({"command": "flush", "timeout": float("inf")}, "timeout: not a number of seconds"),
        ({"command": "flush", "timeout": 10**400}, "timeout: not a number of seconds"),
        ({"command": "flush", "timeout": 2e9}, "timeout: not a number of seconds up to 1e+09"),
        ({"command": "flush", "node": "a", "stage": 1}, "stage: only flush takes one, and then no node"),
        ({"command": "status", "stage": 1}, "stage: only flush takes one, and then no node"),
        ({"command": "flush", "stage": True}, "stage: not a whole number"),
        ({"command": "flush", "stage": "1"}, "stage: not a whole number"),
        ({"command": "retry", "node": "a"}, "retry takes no node"),
        ({"command": "pause", "node": "a", "wait": True}, "pause takes no wait"),
        ({"command": "verify", "node": "a", "wait": 1}, "wait: not true or false"),
        ({"command": "stop", "until": "soon"}, "until: not a number of seconds"),
        ({"command": "stop", "until": -(10**400)}, "until: not a number of seconds"),
    ],
)
def test_wrong_request_is_refused_before_anything_is_done(
    world: World, message: dict[str, Any], expected: str
) -> None:
    with pytest.raises(RequestRefused) as refused:
        checked(message)
    assert str(refused.value).startswith(expected)
    reply = world.ask(**message)
    assert reply is not None
    assert reply["code"] == protocol.USAGE
    assert len(reply["error"]) < 300
    assert world.calls == []


@pytest.mark.parametrize(
    "command", sorted({*protocol.COMMANDS, protocol.IDENTIFY} - {"top", "flush", "diff", "senders"})
)
def test_commands_are_all_served(world: World, command: str) -> None:
    node = "all" if command in protocol.NODE_REQUIRED else None
    reply = world.ask(command=command, node=node, timeout=None, until=1e300)
    assert reply is not None
    assert "error" not in reply


@pytest.mark.parametrize(("command", "repairs"), [("diff", False), ("verify", True)])
def test_comparison_is_replied_to_when_it_is_done(world: World, command: str, repairs: bool) -> None:
    wait = {"wait": True} if repairs else {}
    assert world.ask(command=command, node="a", timeout=5, **wait) is None
    assert world.calls == [("compare", [NODES["a"]], repairs, 105.0, world.found)]
    world.found([Comparison("a", "", 1.0, 1, (("/www/x", "missing"),))])
    [reply] = world.replies
    assert reply["comparisons"] == [
        {"node": "a", "reason": "", "seconds": 1.0, "count": 1, "differences": (("/www/x", "missing"),)}
    ]
    [leave] = world.left
    leave()
    assert world.calls[-1] == ("cancel",)


def test_comparison_is_refused_if_too_many_clients_wait(world: World) -> None:
    world.can_wait = False
    reply = world.ask(command="diff", node="a")
    assert reply is not None
    assert reply["code"] == protocol.BUSY
    assert world.calls == []


def test_events_of_all_nodes_come_in_the_order_of_their_times(world: World) -> None:
    reply = world.ask(command="events")
    assert reply is not None
    assert [(one["node"], one["at"]) for one in reply["events"]] == [("a", 1.0), ("b:x", 2.0), ("a", 3.0)]
    assert world.ask(command="events", node="a.mirror.com") == {
        "events": [
            {"node": "a", "at": 1.0, "kind": "state", "text": "is ok", "count": 1},
            {"node": "a", "at": 3.0, "kind": "failed", "text": "refused", "count": 2},
        ]
    }


@pytest.mark.parametrize("message", [{}, {"seen": -1}, {"seen": None}, {"seen": [0]}])
def test_status_of_the_page_has_the_events_it_has_not_seen(world: World, message: dict[str, Any]) -> None:
    world.handler.tell_status(message, cast(Any, world.replies.append))
    events = {"a": [(1.0, "state", "is ok", 1), (3.0, "failed", "refused", 2)], "paused": []}
    [reply] = world.replies
    assert reply == {"nodes": "all", "recorded": 0, "events": {**events, "b:x": [(2.0, "state", "is ok", 1)]}}


def test_status_of_the_page_has_no_events_that_it_has_seen(world: World) -> None:
    world.handler.tell_status({"command": "stop", "seen": 0}, cast(Any, world.replies.append))
    assert world.replies == [{"nodes": "all"}]


def test_command_of_the_client_alone_is_unknown_to_the_daemon(world: World) -> None:
    reply = world.ask(command="top")
    assert reply is not None
    assert reply["code"] == protocol.USAGE


def test_command_that_comes_too_late_is_not_begun(world: World) -> None:
    reply = world.ask(command="accept", until=99.9)
    assert reply == {"error": "asked for too late: not done", "code": protocol.BUSY}
    assert world.calls == []
    assert world.ask(command="accept", until=100.1) == {"stages": [], "accepted": ["/www"]}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("a", ["a"]),
        ("a.mirror.com:", ["a"]),
        ("a.mirror.com", ["a"]),
        ("user@b.mirror.com:/x", ["b:x"]),
        ("all", ["a", "paused", "b:x"]),
    ],
)
def test_node_is_found_by_its_name_and_as_it_is_written(world: World, wanted: str, found: list[str]) -> None:
    assert world.ask(command="status", node=wanted) == {"nodes": found}


def test_unknown_node_is_refused_with_what_may_be_meant(world: World) -> None:
    reply = world.ask(command="pause", node="pausd")
    assert reply == {"error": "there is no node 'pausd'; did you mean paused?", "code": protocol.USAGE}
    assert world.calls == []


@pytest.mark.parametrize("command", ["resync", "verify"])
def test_comparison_of_a_paused_node_says_that_it_is_paused(world: World, command: str) -> None:
    reply = world.ask(command=command, node="all")
    assert reply == {"nodes": ["a", "paused", "b:x"], "paused": ["paused"]}
    assert [call[0] for call in world.calls] == [command] * 3


def test_refused_reload_says_why(world: World) -> None:
    world.refused = ("conf.py:1: no", "conf.py:2: no")
    reply = world.ask(command="reload")
    assert reply is not None
    assert reply["code"] == protocol.CONFIG
    assert reply["error"].splitlines()[:2] == list(world.refused)


def test_fault_in_serving_a_client_costs_that_client_only(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.snapshots._results["of_all"] = lambda: [][1]
    reply = world.ask(command="status")
    assert reply == {"error": "a fault of inosync's own: see its log", "code": protocol.FAULT}
    assert "IndexError" in caplog.text
    assert world.ask(command="status", node="a") == {"nodes": ["a"]}


def test_error_of_the_system_is_told_with_its_file(world: World) -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device", "/run/x")

    world.commands._results["reopen_log"] = fail
    reply = world.ask(command="reopen")
    assert reply == {"error": "/run/x: No space left on device", "code": protocol.BUSY}


@pytest.mark.parametrize(
    ("timeout", "deadline"),
    [(None, float("inf")), (0, 100.0), (2.5, 102.5), (MAX_TIMEOUT_SECONDS, 100 + MAX_TIMEOUT_SECONDS)],
)
def test_flush_is_replied_to_when_it_ends(world: World, timeout: float | None, deadline: float) -> None:
    assert world.ask(command="flush", node="a", timeout=timeout) is None
    [(begin, nodes, until, done, far)] = world.calls
    assert (begin, nodes, until, far) == ("begin", [NODES["a"]], deadline, [])
    world.now += 2.5
    done([NODES["a"]])
    assert world.replies == [{"behind": ["a"], "nodes": 1, "seconds": 2.5}]


def test_flush_of_a_stage_waits_for_its_nodes_only(world: World) -> None:
    reply = world.ask(command="flush", stage=1)
    assert reply == {"error": "there is no stage 1; rstages is not set", "code": protocol.USAGE}
    first, second = sorted(NODES)[:2]
    world.roll_out.follow(Plan(((first,), (second,))))
    assert world.ask(command="flush", stage=2) is None
    assert world.calls[-1][1] == [NODES[second]]
    for number in (0, 3, -1):
        reply = world.ask(command="flush", stage=number)
        assert reply is not None
        assert reply["error"] == f"there is no stage {number}; there are 2"


def test_retry_says_which_stages_are_checked_again(world: World) -> None:
    assert world.ask(command="retry") == {"stages": [1]}


def test_flush_whose_client_leaves_is_cancelled(world: World) -> None:
    world.ask(command="flush")
    [gone] = world.left
    gone()
    assert world.calls[-1] == ("cancel", "the flush")


def test_flush_is_refused_while_too_many_wait(world: World) -> None:
    world.can_wait = False
    reply = world.ask(command="flush")
    assert reply is not None
    assert reply["code"] == protocol.BUSY
    assert world.calls == []
    assert world.ask(command="status") == {"nodes": "all"}


def test_fault_at_the_end_of_a_flush_costs_that_client_only(world: World) -> None:
    world.ask(command="flush")
    world.snapshots._results["lag_of"] = lambda _node: [][1]
    world.calls[0][3]([NODES["a"]])
    assert world.replies[0]["code"] == protocol.FAULT


def test_hold_and_release_are_for_all_nodes(world: World) -> None:
    begun: list[float] = []
    world.commands.hold = SimpleNamespace(begin=begun.append, release=lambda: bool(begun))
    assert world.ask(command="release") == {"held": False}
    assert world.ask(command="hold") == {}
    assert world.ask(command="hold", timeout=5) == {}
    assert begun == [3600.0, 5.0]
    assert world.ask(command="release") == {"held": True}


def far_world(world: World) -> list[Any]:
    """Make it the origin of a fleet that serves the node "far"; return what is ordered."""
    ordered: list[Any] = []
    far = SimpleNamespace(name="far", paused=False, description={"via": "eu"})

    def give(names: list[str], command: str) -> None:
        ordered.append((names, command))

    def compare(names: list[str], command: str, _deadline: float, done: Any) -> Any:
        ordered.append((names, command, done))
        return "waiting"

    fleet = SimpleNamespace(
        all=lambda: [far],
        find=lambda name: [far] if name == "far" else [],
        events=lambda _name: [(2.5, "failed", "refused", 2)],
        facts=SimpleNamespace(recorded=3),
        specs=[far],
    )
    orders = SimpleNamespace(give=give, compare=compare, paused=["far"], cancel=ordered.append)
    world.handler._far, world.handler._orders = cast(Any, fleet), cast(Any, orders)
    return ordered


@pytest.mark.parametrize("command", ["pause", "resume", "resync", "verify"])
def test_command_for_a_far_node_is_ordered(world: World, command: str) -> None:
    ordered = far_world(world)
    reply = world.ask(command=command, node="far")
    assert reply == {"nodes": ["far"], "paused": ["far"]}
    assert (ordered, world.calls) == ([(["far"], command)], [])
    reply = world.ask(command=command, node="all")
    assert reply is not None
    assert reply["nodes"] == [*NODES, "far"]
    assert ordered[1:] == [(["far"], command)]
    assert [call[0] for call in world.calls] == [command] * len(NODES)
    world.ask(command=command, node="a")
    assert len(ordered) == 2


def test_status_of_all_has_the_senders_and_their_nodes(world: World) -> None:
    far_world(world)
    assert world.ask(command="status", node="all") == {"nodes": [*NODES, "far"]}
    assert world.ask(command="status", node="far") == {"nodes": ["far"]}
    assert world.ask(command="status", node="a") == {"nodes": ["a"]}


def test_nothing_is_done_if_senders_cannot_be_told(world: World) -> None:
    far_world(world)

    def fail(*_arguments: Any) -> None:
        raise NotReached

    cast(Any, world.handler)._orders = SimpleNamespace(give=fail, compare=fail, paused=[])
    for command in ("pause", "diff"):
        reply = world.ask(command=command, node="all")
        assert reply == protocol.error("Redis cannot be used: senders cannot be told", protocol.BUSY)
    assert world.calls == []


def test_comparison_of_near_and_far_nodes_is_one_reply(world: World) -> None:
    ordered = far_world(world)
    reply = world.ask(command="diff", node="all")
    assert reply is None
    [(names, command, done)] = ordered
    assert (names, command) == (["far"], "diff")
    done([Comparison("far", "", 1.0, 1, (("/x", "missing"),))])
    assert world.replies == []
    world.found([Comparison("a")])
    assert [one["node"] for one in world.replies[0]["comparisons"]] == ["far", "a"]
    world.left[0]()
    assert ordered[1:] == ["waiting"]
    assert world.calls[-1] == ("cancel",)


def test_pause_is_ordered_at_the_origin_and_not_at_a_sender(world: World) -> None:
    cast(Any, world.handler)._reloader.config.fleet = SimpleNamespace(me="eu")
    for command in ("pause", "resume"):
        expected = f"{command} of a node is ordered at the origin, without --sender"
        assert world.ask(command=command, node="a") == protocol.error(expected, protocol.USAGE)
    assert world.ask(command="resync", node="a") == {"nodes": ["a"], "paused": []}


def test_events_of_near_and_far_nodes_are_in_the_order_of_time(world: World) -> None:
    far_world(world)
    reply = world.ask(command="events")
    assert reply is not None
    assert [(one["node"], one["at"]) for one in reply["events"]] == [
        ("a", 1.0),
        ("b:x", 2.0),
        ("far", 2.5),
        ("a", 3.0),
    ]
    assert world.ask(command="events", node="far") == {
        "events": [{"node": "far", "at": 2.5, "kind": "failed", "text": "refused", "count": 2}]
    }
    replies: list[dict[str, Any]] = []
    world.handler.tell_status({"seen": EVENTS.recorded}, replies.append)  # type: ignore[arg-type]
    assert replies[0]["recorded"] == EVENTS.recorded + 3
    assert replies[0]["events"]["far"] == [(2.5, "failed", "refused", 2)]
    world.handler.tell_status({"seen": EVENTS.recorded + 3}, replies.append)  # type: ignore[arg-type]
    assert "events" not in replies[1]
