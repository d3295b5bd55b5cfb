"""The process that talks to Redis, because the master never waits for it.

Only this process imports the client. It gets one order at a time, does the round (``rounds``), and answers
with the report.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inosync.config.fleet import RedisAddress
from inosync.fleet.passwords import read, unreadable
from inosync.fleet.rounds import OriginOrder, SenderOrder, origin_round, sender_round
from inosync.system.child_service import ChildService
from inosync.system.loop import Loop

if TYPE_CHECKING:
    from inosync.fleet.store import Store

ANSWER_SECONDS = 30.0
"""A process that has not answered for so long hangs, and is replaced."""


@dataclass(frozen=True, slots=True)
class RedisFailure:
    """Redis could not be used."""

    reason: str
    has_changed: bool = False
    """Whether it is another Redis than before, or was restarted; the next round may go well."""


class Link:
    """Has one order carried out at a time.

    ``inherited``: descriptors of the master that the process closes.
    """

    def __init__(self, redis: RedisAddress, loop: Loop, inherited: Callable[[], list[int]]) -> None:
        session = Session(redis)

        def carry_out(order: bytes) -> bytes:
            return pickle.dumps(session.answer(pickle.loads(order)), pickle.HIGHEST_PROTOCOL)

        self._loop = loop
        self._service = ChildService("fleet", carry_out, loop, inherited)
        self._done: Callable[[Any], None] | None = None
        """Gets the answer; None: nothing was asked."""
        self._asked_at = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether an answer is waited for."""
        return self._done is not None

    def descriptors(self) -> list[int]:
        """What a forked child has to close."""
        return self._service.descriptors()

    def ask(self, order: OriginOrder | SenderOrder, done: Callable[[Any], None]) -> None:
        """Have an order carried out; ``done`` gets the report, or a RedisFailure, in a later turn."""
        assert self._done is None
        self._done, self._asked_at = done, self._loop.clock()
        try:
            self._service.ask(pickle.dumps(order, pickle.HIGHEST_PROTOCOL), self._take)
        except OSError as error:
            reason = f"no process for it: {error.strerror}"
            self._loop.call_at(self._loop.clock(), lambda: self._answer(RedisFailure(reason)))

    def wait(self, seconds: float) -> None:
        """Wait for the answer, at most that long. Only for the start and the end of the daemon."""
        self._service.wait(self._loop.clock() + seconds)

    def check(self) -> None:
        """Replace a process that hangs. To be called every second or so."""
        if self.is_busy and self._loop.clock() - self._asked_at > ANSWER_SECONDS:
            self._service.end()
            self._answer(RedisFailure("the process that talks to Redis hangs: it is replaced"))

    def close(self) -> None:
        self._service.end()

    def _take(self, answer: bytes | None) -> None:
        if answer is None:
            ended = "the process that talks to Redis has ended: another one is started"
            self._answer(RedisFailure(ended))
        else:
            self._answer(pickle.loads(answer))

    def _answer(self, answer: object) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(answer)


class Session:
    """A store, opened when it is needed first, and checked again after each failure."""

    def __init__(self, redis: RedisAddress) -> None:
        self._redis = redis
        self._store: Store | None = None
        self._is_open = False

    def answer(self, order: OriginOrder | SenderOrder) -> object:
        """Carry out an order; return the report, or a RedisFailure."""
        try:
            from inosync.fleet.store import InstanceChanged, Store, StoreError
        except ImportError as error:
            return RedisFailure(f"the client of Redis is missing ({error}): pip install 'inosync[fleet]'")
        try:
            if not self._is_open:
                passwords = read(self._redis)  # they may have been corrected
                if self._store is None:
                    at = self._redis
                    self._store = Store(at.url, at.name, passwords, at.sentinel_user)
                self._store.set_passwords(passwords)
                self._store.open()
                self._is_open = True
            assert self._store is not None
            if isinstance(order, OriginOrder):
                return origin_round(self._store, order)
            return sender_round(self._store, order)
        except InstanceChanged:
            self._is_open = False
            return RedisFailure("Redis is another one than before, or was restarted", has_changed=True)
        except StoreError as error:
            self._is_open = False
            return RedisFailure(str(error))
        except OSError as error:
            return RedisFailure(unreadable(error))
