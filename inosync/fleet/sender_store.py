"""What a sender of a fleet writes to Redis, and reads there to serve nodes."""

from __future__ import annotations

from collections.abc import Mapping

from inosync.changes import Change
from inosync.fleet import codec, scripts
from inosync.fleet.records import JournalSpan, NodeRecord
from inosync.fleet.store import CHUNK, TTL, Store


class SenderStore:
    """What it writes of nodes counts only with their leases."""

    def __init__(self, store: Store) -> None:
        self._store, self._redis = store, store.client

    def beat(self, sender: str, text: bytes) -> None:
        """Say that a sender is there, and how it is."""
        with self._store.plain_errors():
            self._redis.set(self._store.key("beat", sender), text, px=int(TTL))

    def tell(self, sender: str, text: bytes) -> None:
        """Say how the nodes are that a sender serves."""
        with self._store.plain_errors():
            self._redis.set(self._store.key("status", sender), text, px=int(TTL))

    def tell_events(self, sender: str, number: int, text: bytes) -> None:
        """Say what happened to the nodes of a sender; ``number``: another one each time."""
        with self._store.plain_errors():
            self._redis.hset(self._store.key("events"), mapping={sender: text, f"{sender}:number": number})

    def changes(self, after: int, upto: int, most: int) -> list[tuple[int, Change]]:
        """Return at most so many changes between two positions, with theirs, in order."""
        with self._store.plain_errors():
            found = self._redis.zrangebyscore(
                self._store.key("journal"), f"({after}", upto, start=0, num=most, withscores=True
            )
            return [(int(score), codec.decode_change(member)) for member, score in found]

    def span(self) -> JournalSpan | None:
        """Return what the journal holds."""
        with self._store.plain_errors():
            return codec.decode_span(
                *self._redis.hmget(self._store.key("fleet"), "epoch", "floor", "appended")
            )

    def ask(self) -> int:
        """Ask the origin where it stands; return the number of the question."""
        with self._store.plain_errors():
            return int(self._redis.incr(self._store.key("asked")))

    def take(self, node: str, value: bytes) -> tuple[int, NodeRecord | None] | None:
        """Take the lease of a node, and ask the origin where it stands; None if the lease is held.

        Return the number of the question, and the record of the node as it was.
        """
        keys = (("lease", node), "nodes", "asked")
        found = self._store.run(scripts.TAKE, keys, (value, node, TTL))
        if not found:
            return None
        with self._store.plain_errors():
            return codec.position(found[0]), codec.decode_record(found[1]) if found[1] else None

    def renew(self, values: Mapping[str, bytes]) -> set[str]:
        """Renew leases by node and value; return the nodes for which that was done."""
        pipe = self._redis.pipeline(transaction=False)
        for node, value in values.items():
            pipe.eval(scripts.RENEW, 1, self._store.key("lease", node), value, TTL)
        with self._store.plain_errors():
            return {node for node, done in zip(values, pipe.execute(), strict=True) if done == 1}

    def release(self, node: str, value: bytes, tidy: bool) -> bool:
        """Give up the lease of a node; ``tidy``: nothing was under way. False if it was not held."""
        return self._store.did(scripts.RELEASE, (("lease", node), "nodes"), (value, node, int(tidy)))

    def begin(self, values: Mapping[str, bytes], epoch: str, upto: int) -> set[str]:
        """Note that nodes may be sent all up to a position; return those for which that was done.

        ``values``: of their leases.
        """
        leases = {node: (value, node) for node, value in values.items()}
        return self._of_leases(scripts.BEGIN, (epoch, upto), leases)

    def confirm(self, cursors: Mapping[str, tuple[bytes, int]], epoch: str) -> set[str]:
        """Write the cursors of nodes, with the values of leases; return those for which that was done."""
        leases = {node: (value, node, cursor) for node, (value, cursor) in cursors.items()}
        return self._of_leases(scripts.CONFIRM, (epoch,), leases)

    def _of_leases(
        self, script: str, arguments: tuple[object, ...], leases: Mapping[str, tuple[object, ...]]
    ) -> set[str]:
        """Have a script do something for each lease, and return the nodes for which it did."""
        done: set[str] = set()
        waiting = list(leases.items())
        for start in range(0, len(waiting), CHUNK):
            chunk = waiting[start : start + CHUNK]
            keys: list[str | tuple[str, str]] = ["nodes", "fleet", *(("lease", node) for node, _ in chunk)]
            each = [one for _, values in chunk for one in values]
            done |= {
                node.decode("utf-8", "replace") for node in self._store.run(script, keys, (*arguments, *each))
            }
        return done
