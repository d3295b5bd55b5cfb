"""Up to where each stage may be sent, and what is checked when; time, nodes and checks are played."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from inosync.nodes import stages
from inosync.nodes.stages import NOTHING, GiveUp, Plan, Stages, Standing, StartCheck

SETTLE = 30.0
PLAN = Plan((("a",), ("b", "c"), ("d",)), is_checked=True, settle=SETTLE)
ORDER = Plan(PLAN.stages)


@dataclass
class Farm:
    """The nodes of a plan, and what is known of its stages."""

    plan: Plan
    now: float = 100.0
    nodes: dict[str, Standing] = field(default_factory=dict)
    known: Stages = ()
    needs_check: Callable[[int, int], bool] = lambda _after, _upto: True

    def __post_init__(self) -> None:
        self.known = stages.first(self.plan)
        self.nodes = {name: Standing(NOTHING) for names in self.plan.stages for name in names}

    def confirm(self, **positions: int) -> list[stages.Action]:
        self.nodes |= {name: Standing(position) for name, position in positions.items()}
        return self.look()

    def look(self, after: float = 0.0) -> list[stages.Action]:
        self.now += after
        self.known, actions = stages.advance(self.plan, self.known, self.nodes, self.needs_check, self.now)
        return list(actions)

    def checked(self, number: int, reason: str = "") -> list[stages.Action]:
        self.known = stages.checked(self.known, number, reason)
        return self.look()

    @property
    def limits(self) -> dict[str, int]:
        return stages.limits(self.plan, self.known)


def test_first_stage_has_no_limit() -> None:
    assert Farm(PLAN).limits == {"b": NOTHING, "c": NOTHING, "d": NOTHING}
    assert Farm(Plan()).limits == {}
    assert Farm(Plan()).look() == []


def test_stages_without_a_check_are_an_order() -> None:
    farm = Farm(ORDER)
    farm.confirm(a=5)
    assert farm.limits == {"b": 5, "c": 5, "d": NOTHING}
    farm.confirm(b=5, c=3)
    assert farm.limits == {"b": 5, "c": 5, "d": 3}
    farm.confirm(c=5)
    assert farm.limits["d"] == 5


def test_check_runs_when_the_stage_has_settled() -> None:
    farm = Farm(PLAN)
    assert farm.confirm(a=5) == []
    assert stages.wake_at(farm.plan, farm.known) == farm.now + SETTLE
    assert farm.look(SETTLE - 1) == []
    assert farm.look(1.0) == [StartCheck(0, 5, NOTHING)]
    assert farm.look(100.0) == [], "one check at a time"
    assert stages.wake_at(farm.plan, farm.known) == math.inf
    assert farm.limits["b"] == NOTHING
    farm.checked(0)
    assert farm.limits == {"b": 5, "c": 5, "d": NOTHING}


def test_check_is_about_what_has_settled_only() -> None:
    farm = Farm(PLAN)
    farm.confirm(a=5)
    farm.look(SETTLE - 1)
    farm.confirm(a=9)
    assert farm.look(1.0) == [StartCheck(0, 5, NOTHING)]
    assert farm.look(10.0) == []
    assert farm.checked(0) == []
    assert farm.limits["b"] == 5, "what came later has not been there for long enough"
    assert farm.look(SETTLE - 10.0) == [StartCheck(0, 9, 5)]


def test_check_goes_from_stage_to_stage() -> None:
    farm = Farm(PLAN)
    farm.confirm(a=5)
    farm.look(SETTLE)
    farm.checked(0)
    farm.confirm(b=5)
    assert farm.look(SETTLE) == [], "the other node of the stage has not confirmed"
    farm.confirm(c=5)
    assert farm.look(SETTLE) == [StartCheck(1, 5, NOTHING)]
    farm.checked(1)
    assert farm.limits == {"b": 5, "c": 5, "d": 5}


def refused() -> Farm:
    """Return a farm of which the first stage has 5, and was refused."""
    farm = Farm(PLAN)
    farm.confirm(a=5)
    farm.look(SETTLE)
    farm.look(1.0)
    farm.checked(0, "exit code 1")
    return farm


def test_refusal_holds_all_later_stages() -> None:
    farm = refused()
    assert farm.look(1e6) == [], "it is not asked again for the same"
    assert farm.limits == {"b": NOTHING, "c": NOTHING, "d": NOTHING}
    why = "stage 1 was not let pass: exit code 1"
    found = {name: stages.hold_before(PLAN, farm.known, name) for name in "abcd"}
    assert found == {"a": "", "b": why, "c": why, "d": why}


def test_later_change_that_passes_releases_what_was_refused() -> None:
    farm = refused()
    farm.confirm(a=6)
    assert farm.look(SETTLE) == [StartCheck(0, 6, NOTHING)]
    farm.checked(0)
    assert farm.limits["b"] == 6
    assert stages.hold_before(PLAN, farm.known, "b") == ""


def test_later_change_that_fails_is_refused_as_well() -> None:
    farm = refused()
    farm.confirm(a=6)
    farm.look(SETTLE)
    farm.checked(0, "exit code 2")
    assert farm.limits["b"] == NOTHING
    assert stages.hold_before(PLAN, farm.known, "b") == "stage 1 was not let pass: exit code 2"


def test_accept_lets_go_what_was_refused_and_what_came_since() -> None:
    farm = refused()
    farm.confirm(a=6)
    farm.known = stages.accepted(farm.known)
    assert farm.limits == {"b": 6, "c": 6, "d": NOTHING}
    assert farm.look(1e6) == []
    assert stages.accepted(farm.known) == farm.known


def test_accept_leaves_what_only_waits_for_its_check() -> None:
    farm = Farm(PLAN)
    farm.confirm(a=5)
    assert stages.accepted(farm.known) == farm.known
    farm.look(SETTLE)
    assert stages.accepted(farm.known) == farm.known


def test_check_that_fails_after_accept_refuses_only_what_is_newer() -> None:
    farm = refused()
    farm.confirm(a=6)
    farm.look(SETTLE)
    farm.confirm(a=7)
    farm.known = stages.accepted(farm.known)
    farm.checked(0, "too late")
    assert farm.limits["b"] == 7
    assert stages.hold_before(PLAN, farm.known, "b") == ""


def test_retry_checks_at_once() -> None:
    farm = refused()
    farm.known = stages.retried(farm.known)
    assert stages.hold_before(PLAN, farm.known, "b") == ""
    assert farm.look() == [StartCheck(0, 5, NOTHING)]
    farm.checked(0)
    assert farm.limits["b"] == 5
    assert stages.retried(farm.known) == farm.known, "nothing is refused"


def test_retry_while_a_check_runs_follows_it() -> None:
    farm = refused()
    farm.confirm(a=6)
    assert farm.look(SETTLE) == [StartCheck(0, 6, NOTHING)]
    farm.known = stages.retried(farm.known)
    assert farm.look() == []
    assert farm.checked(0, "no") == [StartCheck(0, 6, NOTHING)]


def test_change_that_needs_no_check_passes_at_once() -> None:
    asked = []

    def needs_check(after: int, upto: int) -> bool:
        asked.append((after, upto))
        return after < 9 <= upto

    farm = Farm(PLAN, needs_check=needs_check)
    farm.confirm(a=8)
    assert farm.limits == {"b": 8, "c": 8, "d": NOTHING}
    farm.confirm(a=9)
    assert farm.limits["b"] == 8
    assert farm.look(SETTLE) == [StartCheck(0, 9, 8)]
    assert asked[:2] == [(NOTHING, 8), (8, 9)]


def test_refusal_is_over_when_what_it_was_about_has_changed_again() -> None:
    newest = 5
    farm = Farm(PLAN, needs_check=lambda after, upto: after < newest <= upto)
    farm.confirm(a=5)
    farm.look(SETTLE)
    farm.checked(0, "no")
    newest = 7
    farm.confirm(a=6)
    assert farm.limits["b"] == 6, "all that is left of it is what needs no check"
    assert stages.hold_before(PLAN, farm.known, "b") == ""


def test_check_is_dropped_when_what_it_is_about_has_changed_again() -> None:
    newest = 5
    farm = Farm(PLAN, needs_check=lambda after, upto: after < newest <= upto)
    farm.confirm(a=5)
    newest = 7
    farm.confirm(a=6)
    assert farm.look(SETTLE) == []
    assert farm.limits["b"] == 6


# Nodes that do not come along ---------------------------------------------------------------------------

PATIENT = Plan((("a", "b", "c"), ("d",)), patience=60.0)


def test_dead_node_is_given_up_after_patience() -> None:
    farm = Farm(PATIENT)
    farm.confirm(a=5, b=5)
    assert stages.wake_at(farm.plan, farm.known) == farm.now + 60
    assert "waiting for stage 1: c" in stages.waits_for(PATIENT, farm.known, "d", 9, farm.now)
    assert farm.look(59.0) == []
    farm.confirm(a=6, b=6)
    assert farm.look(1.0) == [GiveUp(0, ("c",))]
    assert farm.limits["d"] == 6
    assert farm.look(1.0) == [], "it is said once"
    farm.confirm(c=4)
    assert farm.known[0].reached == 4, "it is back, and on its way"
    assert farm.limits["d"] == 6, "what has passed has passed"


def test_node_that_lacks_what_has_passed_holds_up_nothing_yet() -> None:
    farm = Farm(PATIENT)
    farm.confirm(a=5, b=5, c=5)
    farm.confirm(c=NOTHING)  # it is compared in full
    assert (farm.look(1e6), stages.wake_at(farm.plan, farm.known)) == ([], math.inf)
    farm.confirm(a=6, b=6)
    assert farm.look(59.0) == []
    assert farm.look(1.0) == [GiveUp(0, ("c",))]
    farm.look(1.0)
    farm.confirm(a=7, b=7)
    assert farm.limits["d"] == 7, "it is not waited for again"


def test_check_is_told_which_nodes_have_what_it_is_about() -> None:
    farm = Farm(Plan((("a", "b", "c", "d"), ("e",)), is_checked=True, patience=60.0))
    farm.nodes |= {"c": Standing(4, paused=True), "d": Standing(9, paused=True)}
    farm.confirm(a=5)
    [_, check] = farm.look(60.0)
    assert isinstance(check, StartCheck)
    assert check.nodes == ("a", "d"), "one is dead, and one is paused without it"


def test_check_is_never_told_that_there_are_no_nodes() -> None:
    farm = Farm(PLAN)
    farm.confirm(a=5)
    farm.confirm(a=NOTHING)  # it is compared in full
    [check] = farm.look(SETTLE)
    assert isinstance(check, StartCheck)
    assert check.nodes == ("a",)


def test_slow_node_is_waited_for() -> None:
    farm = Farm(PATIENT)
    for position in range(10):
        farm.confirm(a=100, b=100, c=position)
        assert farm.look(50.0) == []
    assert farm.limits["d"] == 9


def test_stage_of_dead_nodes_confirms_nothing() -> None:
    farm = Farm(PATIENT)
    assert farm.look(1e6) == []
    assert farm.limits["d"] == NOTHING
    alone = Farm(Plan((("a",), ("b",)), patience=1.0))
    alone.look(10.0)
    alone.look(10.0)
    assert alone.limits["b"] == NOTHING


def test_without_patience_a_dead_node_is_waited_for() -> None:
    farm = Farm(Plan(PATIENT.stages))
    farm.confirm(a=5, b=5)
    assert farm.look(1e9) == []
    assert farm.limits["d"] == NOTHING
    assert stages.wake_at(farm.plan, farm.known) == math.inf


def test_paused_node_is_not_waited_for() -> None:
    farm = Farm(Plan(PATIENT.stages))
    farm.nodes["c"] = Standing(1, paused=True)
    farm.confirm(a=5, b=6)
    assert farm.limits["d"] == 5
    farm.nodes = dict.fromkeys("abc", Standing(9, paused=True))
    farm.look()
    assert farm.limits["d"] == 5, "all of them are paused: nothing more is confirmed"
    assert stages.hold_before(farm.plan, farm.known, "d") == "all nodes of stage 1 are paused"
    assert [stages.is_stuck(farm.plan, farm.known, "d", position) for position in (5, 6)] == [False, True]
    farm.confirm(a=9)
    assert farm.limits["d"] == 9
    assert stages.hold_before(farm.plan, farm.known, "d") == ""


def test_node_that_has_more_than_its_stage_may_passes_no_more_on() -> None:
    farm = Farm(ORDER)
    farm.confirm(a=5, b=9, c=9)
    assert farm.limits == {"b": 5, "c": 5, "d": 5}


def test_node_that_lacks_something_again_takes_nothing_back() -> None:
    farm = Farm(ORDER)
    farm.confirm(a=5)
    farm.confirm(a=3)
    assert farm.limits["b"] == 5


def test_node_is_told_what_it_waits_for() -> None:
    farm = Farm(PLAN)

    def waits_for(name: str, after: float = 0.0) -> str:
        return stages.waits_for(PLAN, farm.known, name, 5, farm.now + after)

    assert waits_for("b") == "waiting for the stage before it"
    farm.look()
    assert waits_for("b") == "waiting for stage 1: a"
    farm.confirm(a=5)
    assert waits_for("d", 10) == "stage 1 is checked in 20 s"
    farm.look(SETTLE)
    assert waits_for("d") == "stage 1 is being checked"
    farm.checked(0)
    assert waits_for("b") == "waiting for the stage before it", "it may be sent all"
    assert waits_for("d") == "waiting for stage 2: b and 1 more"
    farm.confirm(b=5)
    assert waits_for("d") == "waiting for stage 2: c"


def test_node_is_stuck_once_all_that_it_waits_for_is_refused() -> None:
    farm = Farm(PLAN)
    farm.confirm(a=5)
    farm.look(SETTLE)
    assert not stages.is_stuck(PLAN, farm.known, "d", 5), "it is being checked"
    farm.checked(0)
    farm.confirm(a=9)
    farm.look(SETTLE)
    farm.checked(0, "broken")

    def stuck(position: int) -> list[bool]:
        return [stages.is_stuck(PLAN, farm.known, name, position) for name in ("a", "b", "d")]

    assert stuck(5) == [False, False, False], "that has passed"
    assert stuck(9) == [False, True, True]
    assert stuck(10) == [False, False, False], "the first stage does not have it yet: it may pass"
    farm.confirm(a=10)
    assert stuck(10) == [False, False, False], "it is going to be checked"
    farm.look(SETTLE)
    assert stuck(9) == [False, False, False], "it is being checked"
    farm.checked(0, "broken")
    assert stuck(10) == [False, True, True]


# All of it ---------------------------------------------------------------------------------------------

MODEL = Plan((("a", "b"), ("c",), ("d", "e")), is_checked=True, settle=3.0, patience=20.0)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.integers(1, 3)),
        st.tuples(st.just("confirm"), st.sampled_from("abcde")),
        st.tuples(st.just("wait"), st.integers(1, 8)),
        st.tuples(st.sampled_from(["pass", "fail"]), st.integers(0, 1)),
        st.tuples(st.sampled_from(["accept", "retry"]), st.just(0)),
        st.tuples(st.just("pause"), st.sampled_from("abcde")),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(OPERATIONS, st.booleans(), st.sets(st.integers(1, 60)))
def test_stages_are_kept_and_all_is_level_in_the_end(
    operations: list[tuple[str, object]], is_checked: bool, exempt: set[int]
) -> None:
    plan = Plan(MODEL.stages, is_checked, MODEL.settle, MODEL.patience)
    farm = Farm(plan, needs_check=lambda after, upto: not exempt >= set(range(after + 1, upto + 1)))
    head = 0
    passed = [NOTHING, NOTHING]  # what was checked or accepted
    running: dict[int, int] = {}
    left_out = [False, False]  # whether a node of the stage was paused or given up

    def do(operation: str, value: object) -> None:
        nonlocal head
        if operation == "change":
            head += int(str(value))
        elif operation == "confirm":
            name = str(value)
            standing = farm.nodes[name]
            if not standing.paused:
                upto = min(head, farm.limits.get(name, head))
                farm.nodes[name] = Standing(max(standing.confirmed, upto))
        elif operation == "pause":
            standing = farm.nodes[str(value)]
            farm.nodes[str(value)] = Standing(standing.confirmed, not standing.paused)
        elif operation == "wait":
            farm.now += int(str(value))
        elif operation in ("pass", "fail") and (number := int(str(value))) in running:
            position = running.pop(number)
            if operation == "pass":
                passed[number] = max(passed[number], position)
            farm.known = stages.checked(farm.known, number, "no" if operation == "fail" else "")
        elif operation == "accept":
            for number, stage in enumerate(farm.known):
                if stage.refusal:
                    passed[number] = max(passed[number], stage.refusal.position, stage.reached)
            farm.known = stages.accepted(farm.known)
        elif operation == "retry":
            farm.known = stages.retried(farm.known)

    def look() -> None:
        before = farm.limits
        for action in farm.look():
            if isinstance(action, StartCheck):
                assert action.stage not in running
                running[action.stage] = action.position
        for name, limit in farm.limits.items():
            assert limit >= before[name], "a position once passed stays passed"
        for number, names in enumerate(plan.stages[:-1]):
            limit = farm.limits[plan.stages[number + 1][0]]
            have = [farm.nodes[name].confirmed for name in names]
            left_out[number] |= bool(farm.known[number].given_up)
            left_out[number] |= any(farm.nodes[name].paused for name in names)
            assert limit <= (max(have) if left_out[number] else min(have)), "it is not confirmed"
            if is_checked:
                unchecked = set(range(passed[number] + 1, limit + 1))
                assert unchecked <= exempt, f"{unchecked - exempt} never passed stage {number + 1}"

    for operation, value in operations:
        do(operation, value)
        look()

    # In the end all checks pass, and no node is paused: everything is level.
    head += 1
    exempt.discard(head)
    for name, standing in farm.nodes.items():
        farm.nodes[name] = Standing(standing.confirmed)
    for _ in range(40):
        for name in farm.nodes:
            do("confirm", name)
        look()
        do("wait", 3)
        for number in list(running):
            do("pass", number)
        look()
    assert {standing.confirmed for standing in farm.nodes.values()} == {head}
    assert not any(stage.refusal for stage in farm.known)
