"""The life of a worker: a table of phases and events, histories, and what holds in any history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.nodes.lifecycle import (
    FIRST_RESPAWN_SECONDS,
    LOGGED_DEATHS,
    LONGEST_RESPAWN_SECONDS,
    STEADY_SECONDS,
    Action,
    Died,
    Event,
    Hung,
    Phase,
    TimePassed,
    WorkerState,
    is_logged,
    node_state,
    step,
    trouble,
)
from inosync.nodes.messages import (
    Batch,
    Done,
    Failed,
    Progress,
    Reachable,
    SlotGranted,
    SlotRequest,
    Started,
    Stop,
    Unreachable,
)
from inosync.text import NodeState

FORK, KILL, CLEAN, OFFER, CONFIRM = Action.FORK, Action.KILL, Action.CLEAN, Action.OFFER, Action.CONFIRM

NEW = WorkerState()

TIME, STARTED, BATCH, FULL = TimePassed(), Started(1), Batch(1, 3, False), Batch(1, 0, True)
PROGRESS, FAILED, DONE = Progress(1, 40), Failed(1, 1, 12, "refused", 5.0), Done(1, 0.1)
REQUEST, GRANTED = SlotRequest(1), SlotGranted(1)
UNREACHABLE, REACHABLE = Unreachable(1, 12, "refused", 5.0), Reachable()
HUNG, DIED, STOP = Hung("worker did not answer"), Died("worker killed by signal 9", 0.0), Stop(5.0)

EVENTS: dict[str, Event] = {
    "time": TIME,
    "started": STARTED,
    "batch": BATCH,
    "progress": PROGRESS,
    "failed": FAILED,
    "request": REQUEST,
    "granted": GRANTED,
    "unreachable": UNREACHABLE,
    "reachable": REACHABLE,
    "done": DONE,
    "hung": HUNG,
    "died": DIED,
    "stop": STOP,
}
ACTIONS = {"F": FORK, "K": KILL, "C": CLEAN, "O": OFFER, "*": CONFIRM}

TABLE = """
             down        starting    idle        busy        waiting     away        killed      stopping    stopped
time         starting/F  .           .           .           busy        .           .           .           .
started      .           idle/O      idle/O      idle/O      idle/O      idle/O      .           .           .
batch        .           busy        busy        busy        busy        busy        .           .           .
progress     .           busy        busy        busy        busy        busy        .           .           .
failed       .           waiting     waiting     waiting     waiting     waiting     .           .           .
request      .           waiting     waiting     waiting     waiting     waiting     .           .           .
granted      .           .           .           .           busy        .           .           .           .
unreachable  .           .           away        .           .           away        .           .           .
reachable    .           .           .           .           .           idle/O      .           .           .
done         .           idle/*O     idle/*O     idle/*O     idle/*O     idle/*O     ./*         ./*         ./*
hung         .           killed/K    killed/K    killed/K    killed/K    killed/K    .           ./K         .
died         down/C      down/C      down/C      down/C      down/C      down/C      down/C      stopped/C   stopped/C
stop         stopped     stopping    stopping    stopping    stopping    stopping    stopping    stopping    stopped
"""  # noqa: E501
"""Event x phase -> next phase and actions; "." stays in the phase. The time of ``wake_at`` has come."""
HEAD, *ROWS = TABLE.strip().splitlines()
CELLS = [
    pytest.param(Phase(phase), EVENTS[words[0]], cell, id=f"{phase}-{words[0]}")
    for words in map(str.split, ROWS)
    for phase, cell in zip(HEAD.split(), words[1:], strict=True)
]


def test_table_has_every_phase_and_event() -> None:
    assert len(CELLS) == len(Phase) * len(EVENTS)


@pytest.mark.parametrize(("phase", "event", "cell"), CELLS)
def test_table(phase: Phase, event: Event, cell: str) -> None:
    word, _, actions = cell.partition("/")
    state, found = step(WorkerState(phase=phase, wake_at=100.0), event, 100.0)
    assert state.phase is (phase if word == "." else Phase(word))
    assert found == tuple(ACTIONS[letter] for letter in actions)


@pytest.mark.parametrize("phase", [Phase.DOWN, Phase.WAITING])
def test_time_before_wake_at_changes_nothing(phase: Phase) -> None:
    state = WorkerState(phase=phase, wake_at=100.0)
    assert step(state, TIME, 99.9) == (state, ())


# Histories -----------------------------------------------------------------------------------------------


def follow(events: Sequence[Event], state: WorkerState = NEW, now: float = 100.0) -> WorkerState:
    """Return the state after these events, all at one time."""
    for event in events:
        state, _ = step(state, event, now)
    return state


def test_slot_is_waited_for_whatever_the_clock_says() -> None:
    state = follow([TIME, STARTED, FULL, FAILED, REQUEST])
    assert (state.attempt, state.reason, state.wake_at) == (1, "refused", math.inf)
    assert follow([TIME], state, now=1e9) == state
    assert follow([GRANTED], state).phase is Phase.BUSY


def test_retry_is_due_when_the_worker_said() -> None:
    assert follow([TIME, STARTED, BATCH, FAILED]).wake_at == 105.0
    assert follow([TIME, STARTED, UNREACHABLE]).wake_at == 105.0


def test_batch_facts_end_with_the_batch() -> None:
    def facts(state: WorkerState) -> tuple[int, bool, int | None, int, str]:
        return state.count, state.full, state.percent, state.attempt, state.reason

    state = follow([TIME, STARTED, Batch(1, 5, True), PROGRESS])
    assert facts(state) == (5, True, 40, 0, "")
    state = follow([Failed(1, 3, 30, "timeout", 5.0)], state)
    assert facts(state) == (5, True, None, 3, "timeout")
    assert facts(follow([DONE], state)) == (0, False, None, 0, "")


def test_hope_returns_with_another_failure_or_another_batch() -> None:
    hopeless = follow([TIME, STARTED, BATCH, Failed(1, 1, 1, "usage", 5.0, is_hopeless=True)])
    assert hopeless.is_hopeless
    assert follow([TIME], hopeless, now=105.0).is_hopeless
    assert not follow([FAILED], hopeless).is_hopeless
    assert not follow([BATCH], hopeless).is_hopeless


def test_unreachable_facts_end_when_the_node_answers() -> None:
    state = follow([TIME, STARTED, Unreachable(2, 12, "no route", 10.0)])
    assert (state.attempt, state.reason, state.wake_at) == (2, "no route", 110)
    state = follow([REACHABLE], state)
    assert (state.attempt, state.reason) == (0, "")


def test_crash_loop_slows_down_until_a_worker_is_steady() -> None:
    state, now, pauses = WorkerState(), 100.0, []
    for _ in range(15):
        state, actions = step(state, TIME, now)
        assert actions == (FORK,)
        state, _ = step(state, DIED, now + 1)
        pauses.append(state.wake_at - (now + 1))
        now = state.wake_at
    expected = [min(FIRST_RESPAWN_SECONDS * 2**i, LONGEST_RESPAWN_SECONDS) for i in range(15)]
    assert pauses == pytest.approx(expected)
    state, _ = step(state, TIME, now)
    state, _ = step(state, DIED, now + STEADY_SECONDS)
    assert state.wake_at - (now + STEADY_SECONDS) == pytest.approx(FIRST_RESPAWN_SECONDS)


def test_crash_loop_ends_with_a_batch_that_came_through() -> None:
    state = follow([TIME, STARTED, BATCH, DONE, DIED], WorkerState(deaths=9))
    assert state.wake_at - 100 == pytest.approx(FIRST_RESPAWN_SECONDS)


def test_trouble_of_a_hung_worker_lasts_until_a_batch_comes_through() -> None:
    state = follow([TIME, STARTED, BATCH, HUNG])
    assert trouble(state) == "worker did not answer, and is not gone yet"
    state = follow([DIED], state)
    assert (state.hangs, trouble(state)) == (1, "worker did not answer")
    state = follow([TIME, STARTED], state, now=200)
    assert trouble(state) == ""  # it works, and has nothing to do
    state = follow([BATCH], state)
    assert trouble(state) == "worker did not answer"
    assert follow([HUNG], state).hangs == 2
    failed = follow([TIME], follow([FAILED], state), now=105)
    assert failed.phase is Phase.BUSY
    assert trouble(failed) == ""  # the worker's own title says why
    state = follow([DONE], state)
    assert (state.hangs, trouble(state)) == (0, "")


def test_death_without_a_hang_resets_the_count_of_hangs() -> None:
    state = follow([DIED], WorkerState(phase=Phase.BUSY, hangs=3))
    assert (state.hangs, state.reason) == (0, "worker killed by signal 9")


def test_crash_loop_is_counted_and_does_not_fill_the_log() -> None:
    state, now, logged = WorkerState(), 0.0, 0
    while now < 24 * 3600:
        state = follow([TIME, DIED], state, now)
        logged += is_logged(state.deaths)
        assert "killed by signal 9" in trouble(state)
        now = state.wake_at
    assert trouble(state) == f"worker killed by signal 9, {state.deaths} times in a row"
    assert all(map(is_logged, range(1, LOGGED_DEATHS + 1)))
    assert LOGGED_DEATHS < logged < 200


# Any history ---------------------------------------------------------------------------------------------

times = st.floats(0, 10_000, allow_nan=False)
texts = st.text(max_size=3)
events = st.one_of(
    st.sampled_from([TIME, STARTED, REQUEST, GRANTED, REACHABLE, DONE, HUNG]),
    st.builds(Batch, st.just(1), st.integers(0, 9), st.booleans()),
    st.builds(Progress, st.just(1), st.integers(0, 100)),
    st.builds(Failed, st.just(1), st.integers(1, 99), st.just(12), texts, times),
    st.builds(Unreachable, st.integers(1, 99), st.just(12), texts, times),
    st.builds(Died, texts, st.floats(0, 1, exclude_max=True)),
)
moments = st.tuples(events, times)
LIVING = (Phase.STARTING, Phase.IDLE, Phase.BUSY, Phase.WAITING, Phase.AWAY, Phase.KILLED, Phase.STOPPING)


@given(history=st.lists(moments, max_size=30))
def test_wanted_worker_lives_or_will_be_started(history: list[tuple[Event, float]]) -> None:
    state, lives = WorkerState(), False
    for event, now in history:
        state, actions = step(state, event, now)
        if CLEAN in actions:
            lives = False
        if FORK in actions:
            assert not lives
            lives = True
        # Where there is no process, nothing but the clock can go on: so it has to be DOWN.
        assert lives == (state.phase in LIVING)
        assert lives or (state.phase is Phase.DOWN and step(state, TIME, state.wake_at)[1] == (FORK,))
        assert OFFER not in actions or state.phase is Phase.IDLE


@given(history=st.lists(moments, max_size=30))
def test_phases_are_no_dead_ends(history: list[tuple[Event, float]]) -> None:
    state = WorkerState()
    leads_on: dict[Phase, tuple[Event, Phase]] = {
        Phase.DOWN: (TIME, Phase.STARTING),
        Phase.STARTING: (STARTED, Phase.IDLE),
        Phase.IDLE: (BATCH, Phase.BUSY),
        Phase.BUSY: (DONE, Phase.IDLE),
        Phase.WAITING: (GRANTED, Phase.BUSY),
        Phase.AWAY: (REACHABLE, Phase.IDLE),
        Phase.KILLED: (DIED, Phase.DOWN),
    }
    for event, now in history:
        state, _ = step(state, event, now)
        following, phase = leads_on[state.phase]
        assert step(state, following, state.wake_at)[0].phase is phase


@given(history=st.lists(st.one_of(moments, st.just((STOP, 0.0))), max_size=30))
def test_stopped_worker_gets_no_successor_and_no_batch(history: list[tuple[Event, float]]) -> None:
    state, wanted = WorkerState(), True
    for event, now in history:
        wanted = wanted and event != STOP
        state, actions = step(state, event, now)
        if not wanted:
            assert state.phase in (Phase.STOPPING, Phase.STOPPED)
            assert not {FORK, OFFER} & set(actions)


# The state of the node -----------------------------------------------------------------------------------

IDLE = WorkerState(phase=Phase.IDLE)
BUSY = WorkerState(phase=Phase.BUSY, count=1)
MIRROR = WorkerState(phase=Phase.BUSY, full=True)
WAITING = WorkerState(phase=Phase.WAITING, attempt=1)
AWAY = WorkerState(phase=Phase.AWAY, attempt=1)
CRASHED = WorkerState(phase=Phase.DOWN, deaths=1)
KILLED = WorkerState(phase=Phase.KILLED, hangs=1)


@pytest.mark.parametrize(
    ("worker", "lag", "flags", "word"),
    [
        (IDLE, 0, "was_ok", "ok"),
        (IDLE, 10, "was_ok", "ok"),
        (IDLE, 10.1, "was_ok", "lagging"),
        (IDLE, 10.1, "was_ok degraded", "lagging"),
        (IDLE, 0, "was_ok walking", "lagging"),
        (IDLE, 0, "was_ok degraded", "degraded"),
        (IDLE, 0, "", "starting"),
        (IDLE, 0, "was_ok degraded halted", "halted"),
        (IDLE, 99, "was_ok degraded held walking", "held"),
        (IDLE, 0, "held", "held"),
        (BUSY, 0, "was_ok held", "syncing"),
        (WAITING, 0, "was_ok held", "retrying"),
        (IDLE, 0, "was_ok held paused", "paused"),
        (IDLE, 100, "was_ok degraded halted paused walking", "paused"),
        (IDLE, 0, "was_ok big", "syncing"),
        (IDLE, 100, "was_ok big degraded walking", "syncing"),
        (IDLE, 0, "big", "starting"),
        (IDLE, 0, "was_ok big halted", "halted"),
        (AWAY, 0, "was_ok big", "retrying"),
        (MIRROR, 0, "was_ok big", "full"),
        (BUSY, 0, "was_ok", "syncing"),
        (BUSY, 0, "was_ok degraded", "syncing"),
        (BUSY, 0, "was_ok walking", "syncing"),
        (MIRROR, 0, "", "full"),
        (MIRROR, 100, "was_ok degraded", "full"),
        (MIRROR, 0, "was_ok halted", "halted"),
        (WAITING, 0, "was_ok", "retrying"),
        (WAITING, 100, "degraded", "retrying"),
        (WAITING, 0, "was_ok halted", "halted"),
        (WAITING, 0, "was_ok paused", "paused"),
        (AWAY, 0, "was_ok", "retrying"),
        (AWAY, 0, "", "retrying"),
        (AWAY, 100, "was_ok degraded walking", "retrying"),
        (AWAY, 0, "was_ok halted", "halted"),
        (CRASHED, 0, "was_ok", "retrying"),
        (KILLED, 0, "was_ok", "retrying"),
        (KILLED, 0, "halted", "halted"),
        (WorkerState(), 0, "", "starting"),
        (WorkerState(phase=Phase.STARTING), 0, "", "starting"),
        (WorkerState(phase=Phase.STARTING), 0, "was_ok", "starting"),
    ],
)
def test_node_state(worker: WorkerState, lag: float, flags: str, word: str) -> None:
    names = ("degraded", "halted", "was_ok", "walking", "paused", "big", "held")
    given_flags = {name: name in flags.split() for name in names}
    assert node_state(worker, lag=lag, max_lag=10.0, **given_flags) is NodeState(word)


@given(
    phase=st.sampled_from(Phase),
    lag=st.floats(0, 100),
    flags=st.fixed_dictionaries(
        {name: st.booleans() for name in ("degraded", "halted", "was_ok", "walking", "paused", "big", "held")}
    ),
)
def test_node_state_is_ok_only_if_all_is_well(phase: Phase, lag: float, flags: dict[str, bool]) -> None:
    word = node_state(replace(IDLE, phase=phase), lag=lag, max_lag=10.0, **flags)
    bad = any(flag for name, flag in flags.items() if name != "was_ok")
    assert (word is NodeState.OK) == (phase is Phase.IDLE and lag <= 10 and flags["was_ok"] and not bad)


def test_node_states_are_the_words_that_scripts_match() -> None:
    words = "starting full ok syncing lagging retrying paused halted held degraded"
    assert {str(word) for word in NodeState} == set(words.split())
