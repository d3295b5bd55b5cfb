"""What the origin of a fleet writes to Redis, and reads of its senders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from inosync.changes import Change
from inosync.fleet import codec, scripts
from inosync.fleet.leases import TTL_SECONDS
from inosync.fleet.records import Arrived, JournalSpan, OriginPosition
from inosync.fleet.recovery import Recovery
from inosync.fleet.store import CHUNK, FORMAT, TTL, Store, record_pairs, there


class OriginStore:
    """What writes does nothing, and returns False, once another machine is the origin."""

    def __init__(self, store: Store) -> None:
        self._store, self._redis = store, store.client

    def take_origin(self, value: bytes, own: bytes = b"") -> bool:
        """Become the origin of the fleet; False if there is one.

        ``own``: how the values of earlier processes of this origin begin, which are known to have ended.
        """
        return self._store.did(scripts.TAKE_ORIGIN, ("origin",), (value, own or value, TTL))

    def renew_origin(self, value: bytes) -> bool:
        """Stay the origin; False if that is over."""
        return self._store.did(scripts.RENEW, ("origin",), (value, TTL))

    def recover(self, value: bytes, recovery: Recovery, changes: Iterable[tuple[int, Change]]) -> bool:
        """Write what is missing. ``changes``: with their positions, in order; as in ``append``."""
        span = recovery.span
        if recovery.reset:
            keys = ("origin", "fleet", "journal", "position", "nodes")
            pairs = record_pairs(recovery.restore)
            if not self._store.did(
                scripts.BEGIN_EPOCH, keys, (value, span.epoch, span.floor, FORMAT, *pairs)
            ):
                return False
        # The records first: with the floor, cursors that Redis has lost would fall off the journal.
        elif not self._store.restore(span.epoch, recovery.restore):
            return False
        return self.append(value, span, changes)

    def append(self, value: bytes, span: JournalSpan, changes: Iterable[tuple[int, Change]]) -> bool:
        """Append changes with their positions, in order; ``span``: what the journal holds then.

        False if another is the origin, or the epoch has changed.
        """
        waiting = list(changes)
        for start in range(0, max(len(waiting), 1), CHUNK):
            chunk = waiting[start : start + CHUNK]
            is_last = start + CHUNK >= len(waiting)
            pairs = [text for at, change in chunk for text in (at, codec.encode_change(change))]
            # The floor comes with the last: until then Redis does not have what it promises.
            end = (span.appended, span.floor) if is_last else (chunk[-1][0], 0)
            if not self._store.did(
                scripts.APPEND, ("origin", "fleet", "journal"), (value, span.epoch, *end, *pairs)
            ):
                return False
        return True

    def say(self, value: bytes, answer: OriginPosition, arrived: Mapping[str, Arrived]) -> bool:
        """Write where the origin stands, and how far the copies of senders are."""
        pairs = [text for name, each in arrived.items() for text in (name, codec.encode_arrived(each))]
        keys = ("origin", "fleet", "position", "arrived", "news")
        return self._store.did(
            scripts.SAY, keys, (value, answer.epoch, codec.encode_position(answer), *pairs)
        )

    def members(self) -> int:
        """Return how many changes the journal holds."""
        with self._store.plain_errors():
            return int(self._redis.zcard(self._store.key("journal")))

    def position_at(self, rank: int) -> int:
        """Return the position of the change that so many are older than; 0 if there is none."""
        with self._store.plain_errors():
            found = self._redis.zrange(self._store.key("journal"), rank, rank, withscores=True)
            return int(found[0][1]) if found else 0

    def statuses(self, senders: Sequence[str]) -> dict[str, bytes]:
        """Return what senders say of the nodes that they serve, by their names."""
        with self._store.plain_errors():
            values = self._redis.mget([self._store.key("status", name) for name in ("", *senders)])
        return dict(there(senders, values))

    def beat_ages(self, senders: Sequence[str]) -> dict[str, float]:
        """Return how many seconds ago each sender was heard of that is there."""
        pipe = self._redis.pipeline(transaction=False)
        for name in senders:
            pipe.pttl(self._store.key("beat", name))
        with self._store.plain_errors():
            left = dict(zip(senders, map(int, pipe.execute()), strict=True))
        return {name: max(TTL_SECONDS - each / 1000, 0.0) for name, each in left.items() if each > 0}

    def events(self, senders: Sequence[str], known: Mapping[str, bytes]) -> dict[str, tuple[bytes, bytes]]:
        """Return the number and text of what happened at senders, where the number is not the one known."""
        with self._store.plain_errors():
            names = [f"{name}:number" for name in senders]
            found = dict(there(senders, self._redis.hmget(self._store.key("events"), ["", *names])))
            new = [name for name, number in found.items() if known.get(name) != number]
            if not new:
                return {}
            texts = dict(there(new, self._redis.hmget(self._store.key("events"), ["", *new])))
        return {name: (found[name], texts.get(name, b"")) for name in new}

    def set_config(self, fingerprint: str) -> None:
        """Write the fingerprint of the configuration, which senders compare with theirs."""
        with self._store.plain_errors():
            self._redis.hset(self._store.key("fleet"), "config", fingerprint)
