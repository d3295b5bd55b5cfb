"""What a node is owed once a batch of it is done."""

from __future__ import annotations

from collections.abc import Collection

from inosync.nodes.messages import Done
from inosync.nodes.outstanding import Outstanding, changes_of, leftovers
from inosync.nodes.retries import RetrySet
from inosync.rsync.coarse_times import SETTLE_SECONDS

SECOND_LOOK_SECONDS = 10.0
"""Seconds after a batch until it is sent once more, if a try of it was cut off. The rsync that received that
try goes on with what it has read, and may write and delete beside the transfer that came through: for a
second on a busy node; on a suspended one whenever it goes on, which is when the node is reached again."""
WAIT_SECONDS = 0.05
"""Seconds after which a link or removal that had to wait for something else is looked at again."""


def settle(
    retries: RetrySet, done: Done, sent: Outstanding, trees: Collection[int], now: float, rand: float
) -> list[int]:
    """Take what a batch has paid out of the retries, and add what it has left of these trees.

    Return the trees that were held: nothing of them was sent. ``rand`` in [0, 1) is for the jitter of pauses.
    """
    left, held = leftovers(done, trees), [tree for tree in done.held if tree in trees]
    due, outdated, big, waiting, later, behind = (changes_of(parts, trees) for parts in left.all())
    retries.settle(due, held, sent.since, now, rand, sent.full_trees(), sent.batch.lane)
    if done.cut_off:
        retries.add_second_look(sent.second_look(trees), now + SECOND_LOOK_SECONDS)
    again = {change for change in outdated if change.is_again}
    retries.add_second_look(again, now + SETTLE_SECONDS)
    retries.add_second_look(outdated - again, now + SETTLE_SECONDS, sent.since)
    retries.add_big(big, now, sent.since)
    retries.add_later(later, now, sent.since)
    retries.add_waiting(waiting, now + WAIT_SECONDS, sent.since)
    retries.add_behind(behind, now, sent.since)
    retries.limit(now)
    return held
