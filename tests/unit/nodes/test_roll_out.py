"""The stages as they are kept: what other plans, checks and an operator make of them."""

from __future__ import annotations

import math

from inosync.nodes.roll_out import RollOut
from inosync.nodes.stages import NOTHING, Plan, Standing, StartCheck

PLAN = Plan((("a",), ("b",)), is_checked=True, settle=10.0)


def advanced(roll_out: RollOut, confirmed: int, now: float) -> list[object]:
    return list(roll_out.advance({"a": Standing(confirmed)}, lambda _after, _upto: True, now))


def refused() -> RollOut:
    """Return a roll-out of which the first stage has 5, and was refused."""
    roll_out = RollOut()
    roll_out.follow(PLAN)
    advanced(roll_out, 5, 100.0)
    assert advanced(roll_out, 5, 110.0) == [StartCheck(0, 5, NOTHING)]
    roll_out.checked(0, "exit code 1")
    return roll_out


def test_without_stages_nothing_is_limited() -> None:
    roll_out = RollOut()
    assert not roll_out.is_staged
    assert roll_out.limits == {}
    assert advanced(roll_out, 5, 1e9) == []
    assert (roll_out.accept(), roll_out.retry(), roll_out.wake_at) == ([], [], math.inf)
    assert (roll_out.hold_before("b"), roll_out.stages_before("b")) == ("", ())


def test_plan_with_other_stages_starts_anew() -> None:
    roll_out = refused()
    roll_out.accept()
    assert roll_out.limits == {"b": 5}
    roll_out.follow(Plan(PLAN.stages, is_checked=True, settle=20.0, patience=1.0))
    assert roll_out.limits == {"b": 5}, "only times are others"
    roll_out.follow(Plan((("b",), ("a",)), is_checked=True))
    assert roll_out.limits == {"a": NOTHING}
    roll_out.follow(Plan())
    assert (roll_out.limits, roll_out.is_staged) == ({}, False)


def test_stages_before_a_node_are_those_that_it_waits_for() -> None:
    roll_out = refused()
    assert [roll_out.stages_before(name) for name in ("a", "b", "other")] == [(), (("a",),), ()]
    assert roll_out.is_stuck("b", 5)


def test_plan_with_a_check_starts_anew() -> None:
    roll_out = RollOut()
    roll_out.follow(Plan(PLAN.stages))
    advanced(roll_out, 5, 100.0)
    assert roll_out.limits == {"b": 5}
    roll_out.follow(PLAN)
    assert roll_out.limits == {"b": NOTHING}, "nothing of that was checked"


def test_check_of_a_stage_that_is_gone_means_nothing() -> None:
    roll_out = refused()
    roll_out.follow(Plan())
    roll_out.checked(0, "")
    assert roll_out.limits == {}


def test_check_that_began_before_a_reload_means_nothing() -> None:
    roll_out = refused()
    roll_out.retry()
    assert advanced(roll_out, 5, 120.0) == [StartCheck(0, 5, NOTHING)]
    roll_out.follow(Plan((("b",), ("a",)), is_checked=True))
    roll_out.checked(0, "")
    assert roll_out.limits == {"a": NOTHING}


def test_operator_accepts_what_was_refused() -> None:
    roll_out = refused()
    assert roll_out.hold_before("b") == "stage 1 was not let pass: exit code 1"
    assert roll_out.accept() == [1]
    assert (roll_out.hold_before("b"), roll_out.limits) == ("", {"b": 5})
    assert roll_out.accept() == []


def test_operator_has_what_was_refused_checked_again() -> None:
    roll_out = refused()
    assert roll_out.retry() == [1]
    assert roll_out.waits_for("b", 5, 120.0) == "stage 1 is checked in 0 s"
    assert roll_out.wake_at == -math.inf
    assert advanced(roll_out, 5, 120.0) == [StartCheck(0, 5, NOTHING)]
    assert roll_out.waits_for("b", 5, 120.0) == "stage 1 is being checked"
    assert roll_out.retry() == []
