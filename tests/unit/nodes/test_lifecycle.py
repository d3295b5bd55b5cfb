"""A worker's life: histories of events, and that no history leaves a wanted worker without a successor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.messages import NodeState
from inosync.nodes.lifecycle import (
    CRASH_FIRST,
    CRASH_LONGEST,
    STEADY,
    TOLD,
    Action,
    Completed,
    Died,
    Event,
    Found,
    Missed,
    Phase,
    Progressed,
    Queued,
    Readied,
    Resumed,
    Sent,
    Silent,
    StopWanted,
    TryFailed,
    Wake,
    WorkerState,
    is_told,
    step,
    trouble,
    verdict,
)

FORK, CLEAN, OFFER, CONFIRM = Action.FORK, Action.CLEAN, Action.OFFER, Action.CONFIRM
KILL = Action.KILL
SILENT = Silent("worker did not answer")


def crash(now: float) -> Died:
    return Died(now, "worker killed by signal 9", 0.0)


@dataclass(frozen=True)
class Then:
    """An event, and what has to become of it."""

    event: Event
    phase: Phase
    actions: tuple[Action, ...] = ()


STARTED = [Then(Wake(100), Phase.STARTING, (FORK,)), Then(Readied(), Phase.IDLE, (OFFER,))]
WITH_BATCH = [*STARTED, Then(Sent(3, False), Phase.BUSY)]


def follow(history: Sequence[Then]) -> WorkerState:
    """The state in the end; every event on the way has to do what is said of it."""
    state = WorkerState()
    for number, then in enumerate(history):
        state, actions = step(state, then.event)
        assert (state.phase, actions) == (then.phase, then.actions), (number, then)
    return state


@pytest.mark.parametrize(
    "history",
    [
        pytest.param(
            [*WITH_BATCH, Then(Completed(), Phase.IDLE, (CONFIRM, OFFER)), Then(Sent(1, False), Phase.BUSY)],
            id="batch after batch",
        ),
        pytest.param(
            [
                *WITH_BATCH,
                Then(TryFailed(1, "refused", 105), Phase.WAITING),
                Then(Wake(104.9), Phase.WAITING),
                Then(Wake(105), Phase.BUSY),
                Then(TryFailed(2, "refused", 110), Phase.WAITING),
                Then(Wake(110), Phase.BUSY),
                Then(Completed(), Phase.IDLE, (CONFIRM, OFFER)),
            ],
            id="failures, then success",
        ),
        pytest.param(
            [
                *WITH_BATCH,
                Then(TryFailed(1, "refused", 105), Phase.WAITING),
                Then(Completed(), Phase.IDLE, (CONFIRM, OFFER)),
            ],
            id="the report of success comes before the clock says that it tries again",
        ),
        pytest.param(
            [
                *STARTED,
                Then(Sent(0, True), Phase.BUSY),
                Then(Progressed(40), Phase.BUSY),
                Then(TryFailed(1, "timeout", 105), Phase.WAITING),
                Then(Progressed(10), Phase.BUSY),
                Then(Completed(), Phase.IDLE, (CONFIRM, OFFER)),
            ],
            id="a full mirror with a failure",
        ),
        pytest.param(
            [
                *STARTED,
                Then(Sent(0, True), Phase.BUSY),
                Then(TryFailed(1, "refused", 105), Phase.WAITING),
                Then(Queued(), Phase.WAITING),
                Then(Wake(105), Phase.WAITING),
                Then(Wake(10_000), Phase.WAITING),
                Then(Resumed(), Phase.BUSY),
                Then(TryFailed(2, "refused", 10_005), Phase.WAITING),
                Then(Wake(10_005), Phase.BUSY),
                Then(Queued(), Phase.WAITING),
                Then(Resumed(), Phase.BUSY),
                Then(Completed(), Phase.IDLE, (CONFIRM, OFFER)),
            ],
            id="a heavy batch waits for a slot before each new try, whatever the clock says",
        ),
        pytest.param(
            [
                *STARTED,
                Then(Sent(0, True), Phase.BUSY),
                Then(Queued(), Phase.WAITING),
                Then(crash(200), Phase.DOWN, (CLEAN,)),
                Then(Resumed(), Phase.DOWN),
                Then(Wake(300), Phase.STARTING, (FORK,)),
            ],
            id="a worker that dies while it waits for a slot has a successor, and gives up its turn",
        ),
        pytest.param(
            [
                *STARTED,
                Then(Missed(1, "refused", 105), Phase.AWAY),
                Then(Wake(105), Phase.AWAY),
                Then(Missed(2, "refused", 110), Phase.AWAY),
                Then(Found(), Phase.IDLE, (OFFER,)),
                Then(Found(), Phase.IDLE),
                Then(Sent(3, False), Phase.BUSY),
            ],
            id="out of reach before any change, and what came meanwhile goes when it is found",
        ),
        pytest.param(
            [
                *WITH_BATCH,
                Then(Missed(1, "refused", 105), Phase.BUSY),
                Then(Found(), Phase.BUSY),
                Then(TryFailed(1, "refused", 106), Phase.WAITING),
                Then(Missed(2, "refused", 107), Phase.WAITING),
                Then(Found(), Phase.WAITING),
                Then(Wake(106), Phase.BUSY),
            ],
            id="with a batch, only what becomes of that counts",
        ),
        pytest.param(
            [
                *STARTED,
                Then(Missed(1, "refused", 105), Phase.AWAY),
                Then(crash(101), Phase.DOWN, (CLEAN,)),
                Then(Found(), Phase.DOWN),
                Then(Wake(200), Phase.STARTING, (FORK,)),
                Then(Missed(1, "refused", 205), Phase.STARTING),
            ],
            id="a worker that dies while its node is out of reach has a successor",
        ),
        pytest.param(
            [
                *STARTED,
                Then(Missed(1, "refused", 105), Phase.AWAY),
                Then(StopWanted(), Phase.STOPPING),
                Then(Found(), Phase.STOPPING),
                Then(Missed(2, "refused", 110), Phase.STOPPING),
                Then(Queued(), Phase.STOPPING),
                Then(Resumed(), Phase.STOPPING),
                Then(crash(106), Phase.STOPPED, (CLEAN,)),
            ],
            id="stopped while its node is out of reach",
        ),
        pytest.param(
            [
                *WITH_BATCH,
                Then(crash(101), Phase.DOWN, (CLEAN,)),
                Then(Wake(101 + CRASH_FIRST / 2), Phase.DOWN),
                Then(Wake(101 + CRASH_FIRST), Phase.STARTING, (FORK,)),
                Then(Readied(), Phase.IDLE, (OFFER,)),
            ],
            id="a worker that dies with a batch has a successor",
        ),
        pytest.param(
            [
                Then(Wake(100), Phase.STARTING, (FORK,)),
                Then(crash(100), Phase.DOWN, (CLEAN,)),
                Then(Wake(200), Phase.STARTING, (FORK,)),
            ],
            id="a worker that dies before it reports has a successor",
        ),
        pytest.param(
            [
                *WITH_BATCH,
                Then(SILENT, Phase.KILLED, (KILL,)),
                Then(SILENT, Phase.KILLED),
                Then(Wake(10_000), Phase.KILLED),
                Then(Readied(), Phase.KILLED),
                Then(TryFailed(1, "no", 600), Phase.KILLED),
                Then(Sent(1, False), Phase.KILLED),
                Then(crash(10_000), Phase.DOWN, (CLEAN,)),
                Then(SILENT, Phase.DOWN),
                Then(Wake(10_060), Phase.STARTING, (FORK,)),
            ],
            id="one that hangs is killed once, and has a successor when it is gone, however late that is",
        ),
        pytest.param(
            [
                *WITH_BATCH,
                Then(SILENT, Phase.KILLED, (KILL,)),
                Then(Completed(), Phase.KILLED, (CONFIRM,)),
                Then(crash(101), Phase.DOWN, (CLEAN,)),
            ],
            id="what it had reported before it hung counts",
        ),
        pytest.param(
            [
                *WITH_BATCH,
                Then(StopWanted(), Phase.STOPPING),
                Then(SILENT, Phase.STOPPING, (KILL,)),
                Then(crash(101), Phase.STOPPED, (CLEAN,)),
                Then(SILENT, Phase.STOPPED),
            ],
            id="one that hangs when it is told to end is killed",
        ),
        pytest.param(
            [
                *WITH_BATCH,
                Then(SILENT, Phase.KILLED, (KILL,)),
                Then(StopWanted(), Phase.STOPPING),
                Then(crash(101), Phase.STOPPED, (CLEAN,)),
            ],
            id="one that is not wanted any more when it is gone has no successor",
        ),
        pytest.param(
            [*WITH_BATCH, Then(StopWanted(), Phase.STOPPING), Then(crash(101), Phase.STOPPED, (CLEAN,))],
            id="stopped with a batch",
        ),
        pytest.param(
            [
                *WITH_BATCH,
                Then(StopWanted(), Phase.STOPPING),
                Then(Completed(), Phase.STOPPING, (CONFIRM,)),
                Then(Readied(), Phase.STOPPING),
                Then(Wake(500), Phase.STOPPING),
                Then(TryFailed(1, "no", 600), Phase.STOPPING),
                Then(crash(101), Phase.STOPPED, (CLEAN,)),
                Then(Wake(1000), Phase.STOPPED),
            ],
            id="what is finished while it stops is confirmed, and nothing is begun",
        ),
        pytest.param(
            [*STARTED, Then(crash(101), Phase.DOWN, (CLEAN,)), Then(StopWanted(), Phase.STOPPED)],
            id="stopped while there is none",
        ),
    ],
)
def test_a_history(history: Sequence[Then]) -> None:
    follow(history)


def test_what_is_known_of_a_batch_ends_with_it() -> None:
    def known(state: WorkerState) -> tuple[int, bool, int | None, int, str]:
        return state.count, state.full, state.percent, state.attempt, state.reason

    state = follow(
        [
            *STARTED,
            Then(Sent(5, True), Phase.BUSY),
            Then(Progressed(40), Phase.BUSY),
            Then(TryFailed(3, "timeout", 105), Phase.WAITING),
        ]
    )
    assert known(state) == (5, True, None, 3, "timeout")
    state, _ = step(state, Completed())
    assert known(state) == (0, False, None, 0, "")


def test_what_is_known_of_a_failure_to_reach_the_node_ends_when_it_is_found() -> None:
    state = follow([*STARTED, Then(Missed(2, "no route", 110), Phase.AWAY)])
    assert (state.attempt, state.reason, state.wake) == (2, "no route", 110)
    state, _ = step(state, Found())
    assert (state.attempt, state.reason) == (0, "")


def test_why_it_failed_is_known_while_it_waits_for_a_slot() -> None:
    history = [*WITH_BATCH, Then(TryFailed(3, "timeout", 105), Phase.WAITING), Then(Queued(), Phase.WAITING)]
    state = follow(history)
    assert (state.attempt, state.reason, state.count, state.wake) == (3, "timeout", 3, math.inf)


def test_a_crash_loop_is_slowed_down_and_a_steady_life_ends_it() -> None:
    state, now, pauses = WorkerState(), 100.0, []
    for _ in range(15):
        state, actions = step(state, Wake(now))
        assert actions == (FORK,)
        state, _ = step(state, crash(now + 1))
        pauses.append(state.wake - (now + 1))
        now = state.wake
    assert pauses == pytest.approx([min(CRASH_FIRST * 2**i, CRASH_LONGEST) for i in range(15)])
    state, _ = step(state, Wake(now))
    state, _ = step(state, crash(now + STEADY))
    assert state.wake - (now + STEADY) == pytest.approx(CRASH_FIRST)


def test_a_batch_that_came_through_ends_a_crash_loop() -> None:
    state = WorkerState(deaths=9, wake=0)
    for event in (Wake(100), Readied(), Sent(1, False), Completed()):
        state, _ = step(state, event)
    state, _ = step(state, crash(101))
    assert state.wake - 101 == pytest.approx(CRASH_FIRST)


def test_why_it_was_killed_is_known_until_another_one_has_come_through() -> None:
    state = follow([*WITH_BATCH, Then(SILENT, Phase.KILLED, (KILL,))])
    assert trouble(state) == "worker did not answer, and is not gone yet"
    state, _ = step(state, crash(200))
    assert (state.silences, trouble(state)) == (1, "worker did not answer")
    for event in (Wake(300), Readied()):
        state, _ = step(state, event)
    assert trouble(state) == ""  # it works, and has nothing to do
    state, _ = step(state, Sent(1, False))
    assert trouble(state) == "worker did not answer"
    again, _ = step(state, SILENT)
    assert again.silences == 2
    failed, _ = step(state, TryFailed(1, "refused", 400))
    failed, _ = step(failed, Wake(400))
    assert trouble(failed) == ""  # that has another reason, which its own title tells
    state, _ = step(state, Completed())
    assert (state.silences, trouble(state)) == (0, "")


def test_a_worker_that_dies_by_itself_was_not_silent() -> None:
    state = WorkerState(phase=Phase.BUSY, silences=3)
    state, _ = step(state, crash(100))
    assert (state.silences, state.reason) == (0, "worker killed by signal 9")


def test_a_crash_loop_is_named_with_its_count_and_does_not_fill_the_log() -> None:
    state, now, told = WorkerState(), 0.0, 0
    while now < 24 * 3600:
        state, _ = step(state, Wake(now))
        state, _ = step(state, crash(now))
        told += is_told(state.deaths)
        assert "killed by signal 9" in trouble(state)
        now = state.wake
    assert trouble(state) == f"worker killed by signal 9, {state.deaths} times in a row"
    assert all(map(is_told, range(1, TOLD + 1)))
    assert TOLD < told < 200


# Any history ---------------------------------------------------------------------------------------------

times = st.floats(0, 10_000, allow_nan=False)
events = st.one_of(
    st.builds(Wake, times),
    st.just(Readied()),
    st.builds(Sent, st.integers(0, 9), st.booleans()),
    st.builds(Progressed, st.integers(0, 100)),
    st.builds(TryFailed, st.integers(1, 99), st.text(max_size=3), times),
    st.just(Queued()),
    st.just(Resumed()),
    st.builds(Missed, st.integers(1, 99), st.text(max_size=3), times),
    st.just(Found()),
    st.just(Completed()),
    st.just(SILENT),
    st.builds(Died, times, st.text(max_size=3), st.floats(0, 1, exclude_max=True)),
)
LIVING = (Phase.STARTING, Phase.IDLE, Phase.BUSY, Phase.WAITING, Phase.AWAY, Phase.KILLED, Phase.STOPPING)


@given(history=st.lists(events, max_size=30))
def test_a_worker_that_is_wanted_lives_or_will_be_started(history: list[Event]) -> None:
    state, lives = WorkerState(), False
    for event in history:
        state, actions = step(state, event)
        if Action.CLEAN in actions:
            lives = False
        if Action.FORK in actions:
            assert not lives
            lives = True
        if isinstance(event, Died):
            assert Action.CLEAN in actions
        # Where there is no process, nothing but the clock can go on: so it has to be DOWN.
        assert lives == (state.phase in LIVING)
        assert lives or (state.phase is Phase.DOWN and step(state, Wake(state.wake))[1] == (Action.FORK,))
        assert Action.OFFER not in actions or state.phase is Phase.IDLE
        assert Action.CONFIRM not in actions or isinstance(event, Completed)


@given(history=st.lists(events, max_size=30))
def test_no_phase_is_a_dead_end(history: list[Event]) -> None:
    state = WorkerState()
    for event in history:
        before = state.phase
        state, actions = step(state, event)
        if before is Phase.AWAY and isinstance(event, Found):
            assert (state.phase, actions) == (Phase.IDLE, (Action.OFFER,))
        elif isinstance(event, Silent):
            assert (KILL in actions) == (before not in (Phase.DOWN, Phase.KILLED))
        elif isinstance(event, Missed | Found | Resumed):
            assert not actions
        # From wherever it is, the event that its phase waits for leads on.
        leads_on: dict[Phase, tuple[Event, Phase]] = {
            Phase.DOWN: (Wake(state.wake), Phase.STARTING),
            Phase.STARTING: (Readied(), Phase.IDLE),
            Phase.IDLE: (Sent(1, False), Phase.BUSY),
            Phase.BUSY: (Completed(), Phase.IDLE),
            Phase.WAITING: (Resumed(), Phase.BUSY),
            Phase.AWAY: (Found(), Phase.IDLE),
            Phase.KILLED: (crash(0), Phase.DOWN),
        }
        following, phase = leads_on[state.phase]
        assert step(state, following)[0].phase is phase


@given(history=st.lists(st.one_of(events, st.just(StopWanted())), max_size=30))
def test_nothing_is_started_or_offered_once_it_is_to_stop(history: list[Event]) -> None:
    state, wanted = WorkerState(), True
    for event in history:
        wanted = wanted and not isinstance(event, StopWanted)
        state, actions = step(state, event)
        if not wanted:
            assert state.phase in (Phase.STOPPING, Phase.STOPPED)
            assert not {Action.FORK, Action.OFFER} & set(actions)
        assert not isinstance(event, Died) or Action.CLEAN in actions


# Verdicts ------------------------------------------------------------------------------------------------

IDLE = WorkerState(phase=Phase.IDLE)
BUSY = WorkerState(phase=Phase.BUSY, count=1)
FULL = WorkerState(phase=Phase.BUSY, full=True)
WAITING = WorkerState(phase=Phase.WAITING, attempt=1)
AWAY = WorkerState(phase=Phase.AWAY, attempt=1)
CRASHED = WorkerState(phase=Phase.DOWN, deaths=1)
KILLED = WorkerState(phase=Phase.KILLED, silences=1)


@pytest.mark.parametrize(
    ("state", "lag", "overdue", "halted", "level", "word"),
    [
        (IDLE, 0, False, False, True, NodeState.OK),
        (IDLE, 10, False, False, True, NodeState.OK),
        (IDLE, 10.1, False, False, True, NodeState.LAGGING),
        (IDLE, 10.1, True, False, True, NodeState.LAGGING),
        (IDLE, 0, True, False, True, NodeState.DEGRADED),
        (IDLE, 0, False, False, False, NodeState.STARTING),
        (IDLE, 0, True, True, True, NodeState.HALTED),
        (BUSY, 0, False, False, True, NodeState.SYNCING),
        (BUSY, 0, True, False, True, NodeState.SYNCING),
        (FULL, 0, False, False, False, NodeState.FULL),
        (FULL, 100, True, False, True, NodeState.FULL),
        (FULL, 0, False, True, True, NodeState.HALTED),
        (WAITING, 0, False, False, True, NodeState.RETRYING),
        (WAITING, 100, True, False, False, NodeState.RETRYING),
        (WAITING, 0, False, True, True, NodeState.HALTED),
        (AWAY, 0, False, False, True, NodeState.RETRYING),
        (AWAY, 0, False, False, False, NodeState.RETRYING),
        (AWAY, 100, True, False, True, NodeState.RETRYING),
        (AWAY, 0, False, True, True, NodeState.HALTED),
        (CRASHED, 0, False, False, True, NodeState.RETRYING),
        (KILLED, 0, False, False, True, NodeState.RETRYING),
        (KILLED, 0, False, True, False, NodeState.HALTED),
        (WorkerState(), 0, False, False, False, NodeState.STARTING),
        (WorkerState(phase=Phase.STARTING), 0, False, False, False, NodeState.STARTING),
        (WorkerState(phase=Phase.STARTING), 0, False, False, True, NodeState.STARTING),
    ],
)
def test_the_one_word_for_a_node(
    state: WorkerState, lag: float, overdue: bool, halted: bool, level: bool, word: NodeState
) -> None:
    assert verdict(state, lag, 10.0, overdue=overdue, halted=halted, level=level) is word


def test_a_node_lags_while_a_tree_of_it_is_not_known() -> None:
    words = [
        verdict(state, 0, 10.0, overdue=False, halted=False, level=True, known=False)
        for state in (IDLE, BUSY, AWAY)
    ]
    assert words == [NodeState.LAGGING, NodeState.SYNCING, NodeState.RETRYING]


@given(
    phase=st.sampled_from(Phase),
    lag=st.floats(0, 100),
    overdue=st.booleans(),
    halted=st.booleans(),
    level=st.booleans(),
)
def test_no_node_is_ok_unless_all_is_well(
    phase: Phase, lag: float, overdue: bool, halted: bool, level: bool
) -> None:
    word = verdict(WorkerState(phase=phase), lag, 10.0, overdue=overdue, halted=halted, level=level)
    well = phase is Phase.IDLE and lag <= 10 and not overdue and not halted and level
    assert (word is NodeState.OK) == well


def test_the_words_are_those_that_are_shown() -> None:
    words = "starting full ok syncing lagging retrying paused halted degraded"
    assert {str(word) for word in NodeState} == set(words.split())
