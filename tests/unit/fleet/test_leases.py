"""Leases: how long a sender may rely on one, whatever the clocks do."""

from __future__ import annotations

import itertools

import pytest

from inosync.fleet.leases import (
    DRIFT,
    HOLD_SECONDS,
    QUARANTINE_SECONDS,
    RENEW_SECONDS,
    STOP_SECONDS,
    TTL_SECONDS,
    Lease,
    LeasePhase,
    may_take_at,
    taken,
)

OVER = 100 + HOLD_SECONDS
CLOCKS = tuple(itertools.product((1 - DRIFT, 1.0, 1 + DRIFT), repeat=2))


@pytest.mark.parametrize(
    ("now", "phase"),
    [
        (100.0, LeasePhase.HELD),
        (100 + RENEW_SECONDS - 0.1, LeasePhase.HELD),
        (100 + RENEW_SECONDS, LeasePhase.RENEW),
        (OVER - STOP_SECONDS - 0.1, LeasePhase.RENEW),
        (OVER - STOP_SECONDS, LeasePhase.STOP),
        (OVER - 0.1, LeasePhase.STOP),
        (OVER, LeasePhase.OVER),
        (OVER + 1e6, LeasePhase.OVER),
    ],
)
def test_lease_asks_for_what_is_due(now: float, phase: LeasePhase) -> None:
    assert Lease(b"v", 100.0).phase(now) is phase


def test_lease_counts_from_before_the_request() -> None:
    lease = Lease(b"v", 100.0).renewed(asked_at=105.0, answered_at=109.0)
    assert lease is not None
    assert lease.over_at == 105.0 + HOLD_SECONDS


def test_lease_is_not_shortened_by_the_answer_to_an_older_request() -> None:
    assert Lease(b"v", 105.0).renewed(asked_at=101.0, answered_at=106.0) == Lease(b"v", 105.0)


def test_lease_that_is_over_is_not_revived_by_a_late_answer() -> None:
    lease = Lease(b"v", 100.0)
    assert lease.renewed(105.0, OVER) is None
    assert lease.renewed(105.0, OVER - 0.1) == Lease(b"v", 105.0)


@pytest.mark.parametrize(("answered", "useful"), [(100.1, True), (OVER - STOP_SECONDS, False), (OVER, False)])
def test_lease_granted_too_late_is_no_use(answered: float, useful: bool) -> None:
    assert taken(b"v", 100.0, answered) == (Lease(b"v", 100.0) if useful else None)


@pytest.mark.parametrize(("holder", "redis"), CLOCKS)
def test_lease_is_over_at_its_holder_before_redis_forgets_it(holder: float, redis: float) -> None:
    assert HOLD_SECONDS / holder <= TTL_SECONDS / redis + 1e-9


@pytest.mark.parametrize(("holder", "other"), CLOCKS)
def test_lease_that_redis_lost_is_over_before_another_is_taken(holder: float, other: float) -> None:
    assert HOLD_SECONDS / holder <= (may_take_at(7.0) - 7.0) / other
    assert may_take_at(7.0) == 7.0 + QUARANTINE_SECONDS


def test_lease_can_be_renewed_twice_before_it_has_to_be_stopped() -> None:
    """One renewal may fail."""
    assert Lease(b"v", 0.0).stop_at > 2 * RENEW_SECONDS
