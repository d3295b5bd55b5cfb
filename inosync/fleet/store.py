"""The journal of a fleet, and all that its machines tell each other, in Redis.

The client retries a request that has failed, on a new connection. So that none is ever executed by another
Redis than the one it was meant for, each connection looks at the run id first: ``InstanceChanged``, once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from inosync.changes import Change
from inosync.fleet import codec, scripts
from inosync.fleet.instance import Instance, InstanceChanged, StoreError
from inosync.fleet.leases import TTL_SECONDS
from inosync.fleet.passwords import NO_PASSWORDS, Passwords
from inosync.fleet.records import Arrived, JournalSpan, NodeRecord, OriginPosition
from inosync.fleet.recovery import Recovery
from inosync.text import one_line

__all__ = ["InstanceChanged", "Seen", "Store", "StoreError"]

OLDEST_VERSION = (6, 2)
"""The first with ``ZADD GT``: a request that is executed late moves no change back."""
FORMAT = b"1"
CHUNK = 1_000
"""Changes, or nodes, in one request."""
_TTL = str(int(TTL_SECONDS * 1000))
_TYPES = {"fleet": b"hash", "journal": b"zset", "nodes": b"hash", "arrived": b"hash"}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a machine reads at once."""

    span: JournalSpan | None
    position: OriginPosition | None
    config: str
    """The fingerprint of the configuration of the origin; empty if there is none yet."""
    nodes: Mapping[str, NodeRecord]
    arrived: Mapping[str, Arrived]
    leases: Mapping[str, bytes]
    """The value of each lease that is held, by node."""
    beats: Mapping[str, bytes]
    """What each sender said last that is there, by name."""


class Store:
    """Redis as one fleet uses it. Every method raises StoreError, or InstanceChanged."""

    def __init__(
        self, url: str, fleet: str, passwords: Passwords = NO_PASSWORDS, sentinel_user: str = ""
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", fleet):
            raise StoreError(f"{one_line(fleet)!r} is no name of a fleet: letters, digits, and _.-")
        self._instance = Instance(url, passwords, sentinel_user)
        self.place = self._instance.place
        """Where Redis is, for people."""
        self._redis = self._instance.client
        self._prefix = f"inosync:{fleet}:"
        self._news: Any = None
        """A connection over which Redis says that something has arrived; None: there is none."""

    def set_passwords(self, passwords: Passwords) -> None:
        """Log in with these from now on."""
        self._instance.set_passwords(passwords)

    def close(self) -> None:
        """Close all connections."""
        self._close_news()
        self._instance.close()

    def _close_news(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.close()

    def open(self) -> None:
        """Check that this Redis can be used, and that what it holds under this name is a fleet's."""
        self._close_news()  # it may lead to another Redis
        with self._plain_errors():
            found = {name: self._redis.type(self._key(name)) for name in _TYPES}
            written = self._redis.hget(self._key("fleet"), "format") if found["fleet"] == b"hash" else None
        self._check_version()
        for name, is_type in found.items():
            if is_type not in (b"none", _TYPES[name]):
                raise StoreError(f"{self.place} holds something else at {self._prefix}{name}")
        if written is None and any(is_type != b"none" for is_type in found.values()):
            raise StoreError(f"{self.place} holds something else below {self._prefix}")
        if written not in (None, FORMAT):
            raise StoreError(f"{self.place} holds a fleet of another version of inosync at {self._prefix}")

    def _check_version(self) -> None:
        info = self._instance.info
        text = info.get(b"redis_version", b"").decode("ascii", "replace")
        version = re.match(r"(\d+)\.(\d+)", text)
        if version is None or (int(version[1]), int(version[2])) < OLDEST_VERSION:
            raise StoreError(f"{self.place} is Redis {one_line(text)}; 6.2 or later is needed")
        if info.get(b"redis_mode", b"standalone") == b"cluster":
            raise StoreError(f"{self.place} is a cluster, which is not supported")

    @property
    def settled_seconds(self) -> float:
        """For how long this instance has been the one, for sure: it has lost no lease that is younger."""
        info = self._instance.info
        if info.get(b"second_repl_offset", b"-1") != b"-1":
            return 0.0  # it has taken over from another one, and it is not known when
        found = info.get(b"uptime_in_seconds", b"0")
        return max(float(found) - 1, 0.0) if found.isdigit() else 0.0

    @property
    def version(self) -> str:
        """Which program this is, and its version, for people."""
        info = self._instance.info
        name, key = (
            ("Valkey", b"valkey_version") if b"valkey_version" in info else ("Redis", b"redis_version")
        )
        return f"{name} {one_line(info.get(key, b'?').decode('ascii', 'replace'))}"

    @property
    def keeps_changes(self) -> bool:
        """Whether it writes each change to its append-only file."""
        with self._plain_errors():
            return int(self._redis.info("persistence").get("aof_enabled", 0)) == 1

    # Both roles

    def read(self, nodes: Sequence[str], senders: Sequence[str], leases: Sequence[str] = ()) -> Seen:
        """Return what is known of these nodes and senders; ``leases``: of further nodes, that only."""
        leased = (*nodes, *leases)
        pipe = self._redis.pipeline(transaction=True)
        pipe.hmget(self._key("fleet"), "epoch", "floor", "appended", "config")
        pipe.get(self._key("position"))
        for key, names in (("nodes", nodes), ("arrived", senders)):
            pipe.hmget(self._key(key), ["", *names])  # at least one
        for key, names in (("lease", leased), ("beat", senders)):
            pipe.mget([self._key(key, name) for name in ("", *names)])
        with self._plain_errors():
            (*span, config), answer, records, arrived, held, beats = pipe.execute()
            return Seen(
                codec.decode_span(*span),
                None if answer is None else codec.decode_position(answer),
                (config or b"").decode("ascii", "replace"),
                {name: codec.decode_record(value) for name, value in _there(nodes, records)},
                {name: codec.decode_arrived(value) for name, value in _there(senders, arrived)},
                dict(_there(leased, held)),
                dict(_there(senders, beats)),
            )

    def mark(self, sender: str) -> tuple[bytes | None, ...]:
        """Return what is another value once there is anything new for a sender to send, in one request."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.hmget(self._key("fleet"), "epoch", "appended", "config")
        pipe.hget(self._key("arrived"), sender)
        with self._plain_errors():
            fleet, arrived = pipe.execute()
            return (*fleet, arrived)

    def wait(self, sender: str, seconds: float) -> None:
        """Wait until the origin says that more has arrived at a sender, at most so long."""
        until = time.monotonic() + seconds
        try:
            with self._plain_errors():
                if self._news is None:
                    self._news = self._redis.pubsub(ignore_subscribe_messages=True)
                    self._news.subscribe(self._key("news", sender))
                while (left := until - time.monotonic()) > 0:
                    if self._news.get_message(timeout=left) is not None:
                        break
        except (StoreError, InstanceChanged):
            self._close_news()
            raise

    def asked(self) -> int:
        """Return the number of the last question of a sender where the origin stands."""
        with self._plain_errors():
            return codec.position(self._redis.get(self._key("asked")) or b"0")

    def restore(self, epoch: str, records: Mapping[str, NodeRecord]) -> bool:
        """Write what was once true of nodes, where Redis knows less; False if it has another epoch."""
        return self._did(scripts.RESTORE, ("nodes", "fleet"), (epoch, *_pairs(records)))

    # The origin

    def take_origin(self, value: bytes, own: bytes = b"") -> bool:
        """Become the origin of the fleet; False if there is one.

        ``own``: how the values of earlier processes of this origin begin, which are known to have ended.
        """
        return self._did(scripts.TAKE_ORIGIN, ("origin",), (value, own or value, _TTL))

    def renew_origin(self, value: bytes) -> bool:
        """Stay the origin; False if that is over."""
        return self._did(scripts.RENEW, ("origin",), (value, _TTL))

    def recover(self, value: bytes, recovery: Recovery, changes: Iterable[tuple[int, Change]]) -> bool:
        """Write what is missing. ``changes``: with their positions, in order; as in ``append``."""
        span = recovery.span
        if recovery.reset:
            keys = ("origin", "fleet", "journal", "position", "nodes")
            pairs = _pairs(recovery.restore)
            if not self._did(scripts.BEGIN_EPOCH, keys, (value, span.epoch, span.floor, FORMAT, *pairs)):
                return False
        # The records first: with the floor, cursors that Redis has lost would fall off the journal.
        elif not self.restore(span.epoch, recovery.restore):
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
            if not self._did(
                scripts.APPEND, ("origin", "fleet", "journal"), (value, span.epoch, *end, *pairs)
            ):
                return False
        return True

    def say(self, value: bytes, answer: OriginPosition, arrived: Mapping[str, Arrived]) -> bool:
        """Write where the origin stands, and how far the copies of senders are."""
        pairs = [text for name, each in arrived.items() for text in (name, codec.encode_arrived(each))]
        keys = ("origin", "fleet", "position", "arrived", "news")
        return self._did(scripts.SAY, keys, (value, answer.epoch, codec.encode_position(answer), *pairs))

    def members(self) -> int:
        """Return how many changes the journal holds."""
        with self._plain_errors():
            return int(self._redis.zcard(self._key("journal")))

    def position_at(self, rank: int) -> int:
        """Return the position of the change that so many are older than; 0 if there is none."""
        with self._plain_errors():
            found = self._redis.zrange(self._key("journal"), rank, rank, withscores=True)
            return int(found[0][1]) if found else 0

    def statuses(self, senders: Sequence[str]) -> dict[str, bytes]:
        """Return what senders say of the nodes that they serve, by their names."""
        with self._plain_errors():
            values = self._redis.mget([self._key("status", name) for name in ("", *senders)])
        return dict(_there(senders, values))

    def beat_ages(self, senders: Sequence[str]) -> dict[str, float]:
        """Return how many seconds ago each sender was heard of that is there."""
        pipe = self._redis.pipeline(transaction=False)
        for name in senders:
            pipe.pttl(self._key("beat", name))
        with self._plain_errors():
            left = dict(zip(senders, map(int, pipe.execute()), strict=True))
        return {name: max(TTL_SECONDS - each / 1000, 0.0) for name, each in left.items() if each > 0}

    def events(self, senders: Sequence[str], known: Mapping[str, bytes]) -> dict[str, tuple[bytes, bytes]]:
        """Return the number and text of what happened at senders, where the number is not the one known."""
        with self._plain_errors():
            names = [f"{name}:number" for name in senders]
            found = dict(_there(senders, self._redis.hmget(self._key("events"), ["", *names])))
            new = [name for name, number in found.items() if known.get(name) != number]
            if not new:
                return {}
            texts = dict(_there(new, self._redis.hmget(self._key("events"), ["", *new])))
        return {name: (found[name], texts.get(name, b"")) for name in new}

    def set_config(self, fingerprint: str) -> None:
        """Write the fingerprint of the configuration, which senders compare with theirs."""
        with self._plain_errors():
            self._redis.hset(self._key("fleet"), "config", fingerprint)

    # Senders

    def beat(self, sender: str, text: bytes) -> None:
        """Say that a sender is there, and how it is."""
        with self._plain_errors():
            self._redis.set(self._key("beat", sender), text, px=int(_TTL))

    def tell(self, sender: str, text: bytes) -> None:
        """Say how the nodes are that a sender serves."""
        with self._plain_errors():
            self._redis.set(self._key("status", sender), text, px=int(_TTL))

    def tell_events(self, sender: str, number: int, text: bytes) -> None:
        """Say what happened to the nodes of a sender; ``number``: another one each time."""
        with self._plain_errors():
            self._redis.hset(self._key("events"), mapping={sender: text, f"{sender}:number": number})

    def changes(self, after: int, upto: int, most: int) -> list[tuple[int, Change]]:
        """Return at most so many changes between two positions, with theirs, in order."""
        with self._plain_errors():
            found = self._redis.zrangebyscore(
                self._key("journal"), f"({after}", upto, start=0, num=most, withscores=True
            )
            return [(int(score), codec.decode_change(member)) for member, score in found]

    def span(self) -> JournalSpan | None:
        """Return what the journal holds."""
        with self._plain_errors():
            return codec.decode_span(*self._redis.hmget(self._key("fleet"), "epoch", "floor", "appended"))

    def ask(self) -> int:
        """Ask the origin where it stands; return the number of the question."""
        with self._plain_errors():
            return int(self._redis.incr(self._key("asked")))

    def take(self, node: str, value: bytes) -> tuple[int, NodeRecord | None] | None:
        """Take the lease of a node, and ask the origin where it stands; None if the lease is held.

        Return the number of the question, and the record of the node as it was.
        """
        keys = (("lease", node), "nodes", "asked")
        found = self.run(scripts.TAKE, keys, (value, node, _TTL))
        if not found:
            return None
        with self._plain_errors():
            return codec.position(found[0]), codec.decode_record(found[1]) if found[1] else None

    def renew(self, values: Mapping[str, bytes]) -> set[str]:
        """Renew leases by node and value; return the nodes for which that was done."""
        pipe = self._redis.pipeline(transaction=False)
        for node, value in values.items():
            pipe.eval(scripts.RENEW, 1, self._key("lease", node), value, _TTL)
        with self._plain_errors():
            return {node for node, done in zip(values, pipe.execute(), strict=True) if done == 1}

    def release(self, node: str, value: bytes, tidy: bool) -> bool:
        """Give up the lease of a node; ``tidy``: nothing was under way. False if it was not held."""
        return self._did(scripts.RELEASE, (("lease", node), "nodes"), (value, node, int(tidy)))

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
            done |= {node.decode("utf-8", "replace") for node in self.run(script, keys, (*arguments, *each))}
        return done

    # What all have in common

    def _key(self, *names: str) -> str:
        return self._prefix + ":".join(names)

    def run(self, script: str, keys: Iterable[str | tuple[str, str]], arguments: Iterable[object]) -> Any:
        """Have Redis run a script; ``keys``: their names without the prefix."""
        full = [self._key(*((name,) if isinstance(name, str) else name)) for name in keys]
        with self._plain_errors():
            return self._redis.eval(script, len(full), *full, *arguments)

    def _did(self, script: str, keys: Iterable[str | tuple[str, str]], arguments: Iterable[object]) -> bool:
        return bool(self.run(script, keys, arguments) == 1)

    def _plain_errors(self) -> AbstractContextManager[None]:
        return self._instance.plain_errors()


def _pairs(records: Mapping[str, NodeRecord]) -> list[str | bytes]:
    return [text for name, record in records.items() for text in (name, codec.encode_record(record))]


def _there(names: Sequence[str], values: Sequence[bytes | None]) -> Iterator[tuple[str, bytes]]:
    """Yield the names that have a value; the first value belongs to no name."""
    for name, value in zip(names, values[1:], strict=True):
        if value is not None:
            yield name, value
