"""Shares: every node is served by one sender, evenly, and little moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.fleet.shares import FleetView, Shift, shift, unserved

ABC = ("a", "b", "c")
ALL = {f"n{number}": None for number in range(6)}


def view(
    nodes: Mapping[str, Collection[str] | None],
    held: Mapping[str, str],
    ready: Collection[str] = ABC,
    late: Collection[str] = (),
) -> FleetView:
    return FleetView(nodes, ready, held, late)


def settle(
    nodes: Mapping[str, Collection[str] | None],
    held: dict[str, str],
    ready: Collection[str],
    late: Collection[str] = (),
) -> int:
    """Let all senders decide on the same view again and again until nothing changes; return the rounds.

    A sender that is not ready gives up what it holds at once, as if its leases had run out.
    """
    for count in range(100):
        before = FleetView(nodes, ready, dict(held), late)
        shifts = {sender: shift(before, sender) for sender in ABC}
        taken = [node for one in shifts.values() for node in one.take]
        assert len(taken) == len(set(taken)), "two senders take one node"
        if not any(one.take or one.give_up for one in shifts.values()):
            return count
        for sender, one in shifts.items():
            for node in one.give_up:
                assert held.pop(node) == sender
            for node in one.take:
                assert node not in held
                held[node] = sender
    raise AssertionError("nodes go round and round")


@pytest.mark.parametrize(
    ("fleet", "expected"),
    [
        (view(ALL, {}), Shift(take=("n0", "n3"))),
        (view(ALL, {}, ready=("b", "c")), Shift()),
        (view(ALL, {"n0": "a"}, ready=("b", "c")), Shift(give_up=("n0",))),
        (view(ALL, {"n0": "a", "gone": "a"}), Shift(("n3",), give_up=("gone",))),
        (view({"n": ("b",)}, {"n": "a"}), Shift(give_up=("n",))),
        (view({"n": ("b",)}, {}), Shift()),
        (view({"n": ("b", "a")}, {}), Shift(take=("n",))),
        (view({"n": ()}, {}), Shift()),
        (view(ALL, dict.fromkeys(ALL, "a")), Shift(give_up=("n0",))),
        (view(ALL, dict.fromkeys(ALL, "a"), ready=("a",)), Shift()),
        (view(ALL, dict(zip(ALL, "aabbcc", strict=True))), Shift()),
        # A difference of one is no reason to move a node.
        (view({"x": None, "y": None}, {"x": "a"}, ready=("a", "b")), Shift()),
        # A node that another sender takes does not hold that up.
        (view({**ALL, "only b": ("b",)}, dict.fromkeys(ALL, "a")), Shift(give_up=("n0",))),
        # What only this sender may serve does not go.
        (view({"x": ("a",), "y": ("a",), "z": ("a",)}, dict.fromkeys("xyz", "a")), Shift()),
        # One that is late leaves all to the others, but what only it may serve.
        (view(ALL, dict.fromkeys(ALL, "a"), late=("a",)), Shift(give_up=tuple(ALL))),
        (view(ALL, dict.fromkeys(ALL, "a"), late=ABC), Shift()),
        (view(ALL, dict.fromkeys(ALL, "a"), ready=("a",), late=("a",)), Shift()),
        (view({"x": ("a",), "y": ("a", "b")}, dict.fromkeys("xy", "a"), late=("a",)), Shift(give_up=("y",))),
        (view({"x": ("a", "b"), "y": ("a", "b")}, dict.fromkeys("xy", "a"), late=("a", "b")), Shift()),
        (view(ALL, {}, late=("a",)), Shift()),
        (view({**ALL, "only a": ("a",)}, {}, late=("a",)), Shift(take=("only a",))),
        (view(ALL, dict.fromkeys(ALL, "a"), ready=("a", "b"), late=("b",)), Shift()),
    ],
)
def test_sender_takes_and_gives_up(fleet: FleetView, expected: Shift) -> None:
    assert shift(fleet, "a") == expected


@pytest.mark.parametrize(
    ("nodes", "ready", "expected"),
    [
        (ALL, ABC, ()),
        (ALL, (), tuple(ALL)),
        ({"x": ("d",), "y": ("a",)}, ABC, ("x",)),
        ({"x": ()}, ABC, ("x",)),
    ],
)
def test_node_that_no_sender_can_take_is_named(
    nodes: Mapping[str, Collection[str] | None], ready: Collection[str], expected: tuple[str, ...]
) -> None:
    assert unserved(view(nodes, {}, ready)) == expected
    assert unserved(view(nodes, dict.fromkeys(nodes, "a"), ready)) == ()


def test_sender_that_dies_loses_only_its_own_nodes() -> None:
    nodes: dict[str, None] = {f"n{number}": None for number in range(30)}
    held: dict[str, str] = {}
    settle(nodes, held, ABC)
    before = dict(held)
    for node in [node for node, sender in held.items() if sender == "c"]:
        del held[node]
    settle(nodes, held, ("a", "b"))
    assert {node: sender for node, sender in held.items() if before[node] != "c"} == {
        node: sender for node, sender in before.items() if sender != "c"
    }
    assert Counter(held.values()) == {"a": 15, "b": 15}


@given(
    st.lists(st.one_of(st.none(), st.sets(st.sampled_from(ABC))), max_size=12),
    st.data(),
    st.sets(st.sampled_from(ABC)),
)
def test_senders_settle_on_an_even_division(
    senders: list[set[str] | None], data: st.DataObject, ready: set[str]
) -> None:
    nodes = {f"n{number}": allowed for number, allowed in enumerate(senders)}
    holders = st.dictionaries(st.sampled_from([*nodes, "gone"]), st.sampled_from(ABC))
    held = data.draw(holders)
    settle(nodes, held, ready)
    final = FleetView(nodes, ready, held)
    assert set(held) == set(nodes) - set(unserved(final))
    assert all(final.may_serve(sender, node) and sender in ready for node, sender in held.items())
    loads = final.loads()
    for node, sender in held.items():
        options = [other for other in ready if final.may_serve(other, node)]
        assert loads[sender] - min(loads[other] for other in options) <= 1
