"""Decisions about the warm rsyncs of a worker, as tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inosync.worker.warm_moves import YOUNG_SECONDS, Choice, Move, Slot, by_use, choose, decide

# Which trees have one: the trees that are there, those used (the last one first), those with one, the bound

CHOICES = {
    "all of a few": ((1, 2), (), (), 4, Choice((), (1, 2))),
    "the first of many": ((1, 2, 3), (), (), 2, Choice((), (1, 2))),
    "the used ones first": ((1, 2, 3, 4), (4, 3), (), 3, Choice((), (4, 3, 1))),
    "all that are wanted are there": ((1, 2, 3), (2,), (1, 2), 2, Choice((), ())),
    "one was used": ((1, 2, 3), (3,), (1, 2), 2, Choice((2,), (3,))),
    "two were used": ((1, 2, 3, 4), (4, 3), (1, 2), 2, Choice((1, 2), (4, 3))),
    "the one used longest ago goes": ((1, 2, 3), (1, 3, 2), (3, 2), 2, Choice((2,), (1,))),
    "a tree is gone": ((2, 3), (1, 2), (1, 2), 2, Choice((1,), (3,))),
    "one has ended": ((1, 2, 3), (3, 2), (2,), 2, Choice((), (3,))),
    "the bound is lower than before": ((1, 2, 3), (3,), (1, 2, 3), 1, Choice((1, 2), ())),
    "none": ((1, 2, 3), (3,), (), 0, Choice((), ())),
    "none, and there are some": ((1, 2, 3), (3,), (1,), 0, Choice((1,), ())),
    "no trees": ((), (3,), (), 4, Choice((), ())),
}


@pytest.mark.parametrize(("trees", "used", "started", "most", "expected"), CHOICES.values(), ids=CHOICES)
def test_trees_used_last_have_a_warm_rsync(
    trees: tuple[int, ...], used: tuple[int, ...], started: tuple[int, ...], most: int, expected: Choice
) -> None:
    assert choose(by_use(trees, used), started, most) == expected


# What follows from the state of one

ALIVE = Slot(is_idle=True)
CONNECTED = replace(ALIVE, is_connected=True, was_connected=True, connected_for=1.0)
REFUSED = replace(ALIVE, lost="Connection refused")
CLOSED = replace(CONNECTED, lost="the node has closed the connection")
BROKEN = replace(CONNECTED, lost="Connection timed out", is_broken=True)

DECISIONS = {
    "1 it connects": (ALIVE, Move.WAIT),
    "2 it has just connected": (replace(CONNECTED, was_connected=False), Move.REACHED),
    "3 it is connected": (CONNECTED, Move.WAIT),
    "4 it is old": (replace(CONNECTED, is_old=True), Move.RENEW),
    "5 it is slow": (replace(ALIVE, is_slow=True), Move.SLOW),
    "6 slow, as reported": (replace(ALIVE, is_slow=True, is_away=True), Move.WAIT),
    "7 slow, beside another": (replace(ALIVE, is_slow=True, others_connected=True), Move.WAIT),
    "8 slow, beside a batch": (replace(ALIVE, is_slow=True, is_idle=False), Move.WAIT),
    "9 it could not connect": (REFUSED, Move.GIVE_UP),
    "10 refused beside a batch": (replace(REFUSED, is_idle=False), Move.END),
    "11 refused, and its tree is gone": (replace(REFUSED, has_tree=False), Move.END),
    "12 refused beside another": (replace(REFUSED, others_connected=True), Move.PAUSE),
    "13 refused by a full daemon": (replace(REFUSED, lost="max connections (1) reached"), Move.PAUSE),
    "14 refused once too often": (
        replace(REFUSED, others_connected=True, early_closes=2),
        Move.SUSPEND,
    ),
    "15 closed early": (CLOSED, Move.PAUSE),
    "16 closed early beside a batch": (replace(CLOSED, is_idle=False), Move.PAUSE),
    "17 closed early once too often": (replace(CLOSED, early_closes=2), Move.SUSPEND),
    "18 closed early with another": (replace(CLOSED, is_counted=True, early_closes=2), Move.END),
    "19 closed after a good life": (replace(CLOSED, connected_for=YOUNG_SECONDS), Move.REPLACE),
    "20 broken": (BROKEN, Move.GIVE_UP),
    "21 broken after a good life": (replace(BROKEN, connected_for=YOUNG_SECONDS), Move.GIVE_UP),
    "22 broken beside a batch": (replace(BROKEN, is_idle=False), Move.END),
}


@pytest.mark.parametrize(("slot", "expected"), DECISIONS.values(), ids=DECISIONS.keys())
def test_state_of_a_warm_rsync_decides_what_is_next(slot: Slot, expected: Move) -> None:
    assert decide(slot) is expected
