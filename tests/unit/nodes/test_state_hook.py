"""For which changes of state the hook runs, and when."""

from __future__ import annotations

from inosync.nodes.messages import StateChanged
from inosync.nodes.state_hook import StateHookQueue


def change(before: str, state: str) -> StateChanged:
    return StateChanged(state, before, 1.0, "", 0.0)


def test_hook_runs_for_one_change_at_a_time() -> None:
    queue = StateHookQueue()
    queue.add(change("ok", "lagging"))
    assert queue.next() == change("ok", "lagging")
    queue.add(change("lagging", "ok"))
    assert queue.next() is None
    queue.finish()
    assert queue.next() == change("lagging", "ok")
    queue.finish()
    assert queue.next() is None


def test_changes_that_wait_become_one() -> None:
    queue = StateHookQueue()
    queue.add(change("ok", "lagging"))
    queue.next()
    queue.add(change("lagging", "retrying"))
    queue.add(change("retrying", "degraded"))
    queue.finish()
    assert queue.next() == change("lagging", "degraded")


def test_change_and_change_back_are_none() -> None:
    queue = StateHookQueue()
    queue.add(change("ok", "lagging"))
    queue.add(change("lagging", "ok"))
    assert queue.next() is None


def test_change_is_told_again_by_the_successor_of_a_dead_worker() -> None:
    queue = StateHookQueue()
    queue.add(change("ok", "lagging"))
    queue.next()
    queue.restart()
    assert queue.next() == change("ok", "lagging")
    queue.add(change("lagging", "ok"))
    queue.restart()
    assert queue.next() == change("lagging", "ok"), "the newest one"
