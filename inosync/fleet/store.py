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

from inosync.fleet import codec, scripts
from inosync.fleet.instance import Instance, InstanceChanged, StoreError
from inosync.fleet.leases import TTL_SECONDS
from inosync.fleet.passwords import NO_PASSWORDS, Passwords
from inosync.fleet.records import Arrived, JournalSpan, NodeRecord, OriginPosition
from inosync.text import one_line

__all__ = ["InstanceChanged", "Seen", "Store", "StoreError"]

OLDEST_VERSION = (6, 2)
"""The first with ``ZADD GT``: a request that is executed late moves no change back."""
FORMAT = b"1"
CHUNK = 1_000
"""Changes, or nodes, in one request."""
TTL = str(int(TTL_SECONDS * 1000))
"""Of leases and heartbeats, in milliseconds."""
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
    """Redis as one fleet uses it, and what both roles do there.

    Every method raises StoreError, or InstanceChanged; so do those of ``OriginStore`` and ``SenderStore``.
    """

    def __init__(
        self, url: str, fleet: str, passwords: Passwords = NO_PASSWORDS, sentinel_user: str = ""
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", fleet):
            raise StoreError(f"{one_line(fleet)!r} is no name of a fleet: letters, digits, and _.-")
        self._instance = Instance(url, passwords, sentinel_user)
        self.place = self._instance.place
        """Where Redis is, for people."""
        self.client = self._instance.client
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
        with self.plain_errors():
            found = {name: self.client.type(self.key(name)) for name in _TYPES}
            written = self.client.hget(self.key("fleet"), "format") if found["fleet"] == b"hash" else None
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
        with self.plain_errors():
            return int(self.client.info("persistence").get("aof_enabled", 0)) == 1

    # Both roles

    def read(self, nodes: Sequence[str], senders: Sequence[str], leases: Sequence[str] = ()) -> Seen:
        """Return what is known of these nodes and senders; ``leases``: of further nodes, that only."""
        leased = (*nodes, *leases)
        pipe = self.client.pipeline(transaction=True)
        pipe.hmget(self.key("fleet"), "epoch", "floor", "appended", "config")
        pipe.get(self.key("position"))
        for key, names in (("nodes", nodes), ("arrived", senders)):
            pipe.hmget(self.key(key), ["", *names])  # at least one
        for key, names in (("lease", leased), ("beat", senders)):
            pipe.mget([self.key(key, name) for name in ("", *names)])
        with self.plain_errors():
            (*span, config), answer, records, arrived, held, beats = pipe.execute()
            return Seen(
                codec.decode_span(*span),
                None if answer is None else codec.decode_position(answer),
                (config or b"").decode("ascii", "replace"),
                {name: codec.decode_record(value) for name, value in there(nodes, records)},
                {name: codec.decode_arrived(value) for name, value in there(senders, arrived)},
                dict(there(leased, held)),
                dict(there(senders, beats)),
            )

    def mark(self, sender: str) -> tuple[bytes | None, ...]:
        """Return what is another value once there is anything new for a sender to send, in one request."""
        pipe = self.client.pipeline(transaction=False)
        pipe.hmget(self.key("fleet"), "epoch", "appended", "config")
        pipe.hget(self.key("arrived"), sender)
        with self.plain_errors():
            fleet, arrived = pipe.execute()
            return (*fleet, arrived)

    def wait(self, sender: str, seconds: float) -> None:
        """Wait until the origin says that more has arrived at a sender, at most so long."""
        until = time.monotonic() + seconds
        try:
            with self.plain_errors():
                if self._news is None:
                    self._news = self.client.pubsub(ignore_subscribe_messages=True)
                    self._news.subscribe(self.key("news", sender))
                while (left := until - time.monotonic()) > 0:
                    if self._news.get_message(timeout=left) is not None:
                        break
        except (StoreError, InstanceChanged):
            self._close_news()
            raise

    def asked(self) -> int:
        """Return the number of the last question of a sender where the origin stands."""
        with self.plain_errors():
            return codec.position(self.client.get(self.key("asked")) or b"0")

    def restore(self, epoch: str, records: Mapping[str, NodeRecord]) -> bool:
        """Write what was once true of nodes, where Redis knows less; False if it has another epoch."""
        return self.did(scripts.RESTORE, ("nodes", "fleet"), (epoch, *record_pairs(records)))

    # What all have in common

    def key(self, *names: str) -> str:
        return self._prefix + ":".join(names)

    def run(self, script: str, keys: Iterable[str | tuple[str, str]], arguments: Iterable[object]) -> Any:
        """Have Redis run a script; ``keys``: their names without the prefix."""
        full = [self.key(*((name,) if isinstance(name, str) else name)) for name in keys]
        with self.plain_errors():
            return self.client.eval(script, len(full), *full, *arguments)

    def did(self, script: str, keys: Iterable[str | tuple[str, str]], arguments: Iterable[object]) -> bool:
        return bool(self.run(script, keys, arguments) == 1)

    def plain_errors(self) -> AbstractContextManager[None]:
        return self._instance.plain_errors()


def record_pairs(records: Mapping[str, NodeRecord]) -> list[str | bytes]:
    """Return names and records as arguments of a script."""
    return [text for name, record in records.items() for text in (name, codec.encode_record(record))]


def there(names: Sequence[str], values: Sequence[bytes | None]) -> Iterator[tuple[str, bytes]]:
    """Yield the names that have a value; the first value belongs to no name."""
    for name, value in zip(names, values[1:], strict=True):
        if value is not None:
            yield name, value
