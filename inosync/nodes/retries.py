"""What a node is owed apart from the journal. Pure; times are arguments, by one clock, in seconds."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from inosync.changes import Change, Kind, Lane, OwedNames, Step
from inosync.nodes import backoff

MAX_RETRIES = 10_000
"""Retries of a node; more of them become whole trees."""
PATIENT_TRIES = 5
"""Tries after which replacements and removals no longer wait for what fails: a removal may make the room that
it needs. Links do, because they lead to it."""
BEHIND_SECONDS = 0.05
"""The least pause until it is looked again whether something still has to wait for what is owed."""


@dataclass(frozen=True, slots=True)
class Retry:
    """A change that is sent to this node alone: its try has failed, or its tree was never mirrored."""

    attempt: int
    """Tries that failed."""
    at: float
    """When it is sent; infinite until the batch in the second lane has ended."""
    since: float
    """Since when the node lacks it; infinite if it lacks nothing, as far as is known."""
    lane: Lane = Lane.FIRST
    is_behind: bool = False
    """Whether it waits for others that are owed."""
    is_waiting: bool = False
    """Whether it waits for changes that follow."""


class RetrySet:
    """The retries of one node: those that wait, and those that its outstanding batches carry."""

    def __init__(self, bounds: tuple[float, float]) -> None:
        self.bounds = bounds
        """First and longest pause after a failure, in seconds."""
        self._waiting: dict[Change, Retry] = {}
        self._carried: dict[Lane, dict[Change, Retry]] = {lane: {} for lane in Lane}

    @property
    def waiting(self) -> Mapping[Change, Retry]:
        return self._waiting

    def __iter__(self) -> Iterator[Retry]:
        yield from self._waiting.values()
        for carried in self._carried.values():
            yield from carried.values()

    def owed(self, sent: Collection[Change]) -> dict[int, OwedNames]:
        """Return by tree what a batch of the first lane has to respect, which sends these retries.

        A second look does not count: the node has that, as far as is known.
        """
        found: dict[int, tuple[list[bytes], ...]] = {}
        for change, retry in self.items():
            is_big = retry.lane is Lane.SECOND
            if not (is_big or retry.attempt) or (change in sent and retry.attempt < PATIENT_TRIES):
                continue
            failed, big, hopeless = found.setdefault(change.tree, ([], [], []))
            is_hopeless = retry.attempt >= PATIENT_TRIES
            (hopeless if is_hopeless else big if is_big else failed).append(change.wire)
        return {tree: OwedNames(*map(tuple, lists)) for tree, lists in found.items()}

    def _put(self, change: Change, retry: Retry) -> None:
        # The key that is there may be a second look, or a relist that only removes: that gives way to others.
        if change.kind is not Kind.LIST or change.step is not Step.REMOVED:
            self._waiting.pop(change, None)
        self._waiting[change] = retry

    def add(self, change: Change, now: float) -> None:
        """Send a change as soon as possible."""
        before = self._waiting.get(change)
        self._put(change, Retry(0, now, min(now, before.since) if before else now))

    def add_second_look(self, changes: Iterable[Change], at: float, since: float = math.inf) -> None:
        """Send these changes at that time, although the node seems to have them.

        ``since``: since when it may lack them; infinite if that is not likely.
        """
        changes = set(changes)
        if len(changes) > MAX_RETRIES:
            changes = {_tree_of(change) for change in changes}
        for change in changes:
            self._waiting.setdefault(change, Retry(0, at, since))

    def add_waiting(self, changes: Iterable[Change], at: float, since: float) -> None:
        """Send these at that time, or with the next batch."""
        for change in changes:
            before = self._waiting.get(change)
            if before is None:
                self._waiting[change] = Retry(0, at, since, is_waiting=True)
            elif not before.attempt:  # a second look may be due later, and is none that the node lacks
                earliest, oldest = min(at, before.at), min(since, before.since)
                self._put(change, replace(before, at=earliest, since=oldest, is_waiting=True))

    def add_big(self, changes: Iterable[Change], now: float, since: float) -> None:
        """Send these in the second lane, as soon as it is free. One that has failed there keeps its pause."""
        for change in changes:
            before = self._waiting.get(change)
            if before is None or before.lane is Lane.FIRST:
                oldest = since if before is None else min(since, before.since)
                self._put(change, Retry(0, now, oldest, Lane.SECOND))

    def add_later(self, changes: Iterable[Change], now: float, since: float) -> None:
        """Send these in the first lane when the batch in the second has ended; now, if there is none."""
        at = math.inf if self._carried[Lane.SECOND] else now
        for change in changes:
            before = self._waiting.get(change)
            oldest = since if before is None else min(since, before.since)
            self._put(change, Retry(0, at, oldest))

    def add_behind(self, changes: Iterable[Change], now: float, since: float) -> None:
        """Send these in the first lane together with the next try of what they wait for, or after it."""
        for change in changes:
            before = self._waiting.get(change)
            if before is not None and before.attempt:
                continue  # it waits by itself
            at = self._next_try(change.tree, now + BEHIND_SECONDS)
            oldest = since if before is None else min(since, before.since)
            self._put(change, Retry(0, at, oldest, is_behind=True))

    def _next_try(self, tree: int, earliest: float) -> float:
        """Return when something owed of a tree is tried next; infinite: when the second lane is free."""
        under_way = self._carried[Lane.SECOND]
        if any(change.tree == tree for change in under_way):
            return math.inf
        tries = (
            math.inf if under_way and retry.lane is Lane.SECOND else retry.at
            for change, retry in self._waiting.items()
            if change.tree == tree and (retry.attempt or retry.lane is Lane.SECOND)
        )
        return max(min(tries, default=earliest), earliest)

    @property
    def behind(self) -> list[bytes]:
        return [change.path for change, retry in self.items() if retry.is_behind]

    def take_over(self, retries: Mapping[Change, Retry]) -> None:
        self._waiting.update(retries)

    def items(self) -> Iterator[tuple[Change, Retry]]:
        """Yield what is owed: what waits, and what the outstanding batches carry."""
        yield from self._waiting.items()
        for carried in self._carried.values():
            yield from carried.items()

    def carry(self, changes: Iterable[Change], lane: Lane = Lane.FIRST) -> None:
        """A batch carries these. What becomes due meanwhile waits for the next one."""
        self._carried[lane] = {change: self._waiting.pop(change) for change in changes}

    def put_back(self) -> None:
        """The batches were lost: what they carried waits as before."""
        for lane in Lane:
            since, self._waiting = self._waiting, self._carried[lane]
            self._carried[lane] = {}
            for change, retry in since.items():
                self._put(change, retry)
        self._second_ended(-math.inf)

    def _second_ended(self, now: float) -> None:
        for change, retry in self._waiting.items():
            if retry.at == math.inf:
                self._waiting[change] = replace(retry, at=now)

    def settle(
        self,
        failed: Collection[Change],
        held: Iterable[int],
        since: float,
        now: float,
        rand: float,
        mirrored: Iterable[int] = (),
        lane: Lane = Lane.FIRST,
    ) -> None:
        """The batch of a lane is done: what it carried is paid, but for what failed.

        ``held``: trees of which nothing was sent; ``since``: when the batch's oldest change was seen;
        ``rand``: the jitter of the pauses, one for all because they go together; ``mirrored``: trees that
        were compared as a whole. Unless something of such a tree failed, all its names are paid: one that
        fails in each try, because it is gone here and cannot be on the node, would be owed for ever.
        """
        carried, self._carried[lane] = self._carried[lane], {}
        if lane is Lane.SECOND:
            self._second_ended(now)
        paid = set(mirrored) - {change.tree for change in failed} - set(held)
        for change, retry in list(self._waiting.items()):
            if change.tree in paid and retry.attempt and not change.ignore_times:
                del self._waiting[change]
        for change in failed:
            if change.is_again:
                change = _owed(change)
                if change in self._waiting:  # its own next try is as good
                    continue
            before = carried.get(change) or self._waiting.get(change)
            attempt = before.attempt + 1 if before else 1
            at = now + backoff.delay(attempt, *self.bounds, rand)
            own = lane if change.kind is Kind.NAME else Lane.FIRST
            self._put(change, Retry(attempt, at, min(before.since, since) if before else since, own))
        for tree in held:
            later = Retry(1, now + backoff.delay(1, *self.bounds, rand), since)
            self._waiting.setdefault(Change(tree, b"", Kind.TREE), later)

    def limit(self, now: float) -> None:
        """If there are too many, retry their trees as a whole."""
        if len(self._waiting) > MAX_RETRIES:
            retries = self._waiting.values()
            whole = Retry(
                attempt=min(1, max(retry.attempt for retry in retries)),
                at=max([now, *(retry.at for retry in retries if retry.at < math.inf)]),
                since=min(retry.since for retry in retries),
            )
            self._waiting = {_tree_of(change): whole for change in self._waiting}

    def forget_tree(self, tree: int) -> None:
        for retries in (self._waiting, *self._carried.values()):
            for change in [change for change in retries if change.tree == tree]:
                del retries[change]

    def ready(self, now: float, lane: Lane = Lane.FIRST) -> list[Change]:
        """Return what is to be sent by now in a lane."""
        return [c for c, retry in self._waiting.items() if retry.at <= now and retry.lane is lane]

    def riding(self, now: float) -> list[Change]:
        """Return what goes along with a batch of the first lane before its time: what waits for others.

        Else a removal in that batch could overtake the replacement that waits.
        """
        waits = ((c, retry) for c, retry in self._waiting.items() if retry.is_behind or retry.is_waiting)
        return [change for change, retry in waits if retry.at > now]

    def next_at(self, now: float) -> float | None:
        """Return when the next one is to be sent; what is ready waits for something else than the time."""
        times = (retry.at for retry in self._waiting.values())
        return min((at for at in times if now < at < math.inf), default=None)

    @property
    def has_failed(self) -> bool:
        return any(retry.attempt for retry in self._waiting.values())

    @property
    def count(self) -> int:
        return sum(retry.since < math.inf for retry in self)

    def lacks_since(self, when: float) -> bool:
        """Return whether the node lacks anything since that time or longer."""
        return any(retry.since <= when for retry in self)

    @property
    def oldest(self) -> float | None:
        """Return since when the node lacks the oldest one; None if it lacks none."""
        return min((retry.since for retry in self if retry.since < math.inf), default=None)

    @property
    def oldest_untried(self) -> float | None:
        """Return the same, of those that have not failed, and do not wait for any that is owed."""
        fresh = (retry.since for retry in self if not (retry.attempt or retry.is_behind))
        return min((since for since in fresh if since < math.inf), default=None)


def _owed(change: Change) -> Change:
    """Return what a second look that has failed is owed as: the node may lack it."""
    step = Step.UNKNOWN if change.step is Step.SWITCHED else change.step
    return replace(change, is_again=False, step=step)


def _tree_of(change: Change) -> Change:
    return Change(change.tree, b"", Kind.TREE, change.ignore_times)
