"""What ``-t`` says of the Redis of a fleet. It changes nothing there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inosync.config.fleet import Fleet
from inosync.fleet.passwords import read, unreadable

if TYPE_CHECKING:
    from inosync.fleet.store import Store


@dataclass(frozen=True, slots=True)
class RedisTrial:
    """What came of trying Redis."""

    facts: tuple[str, ...] = ()
    reason: str = ""
    """Why this machine cannot work with it; empty if it can."""


def try_redis(fleet: Fleet) -> RedisTrial:
    """Try Redis as this machine would use it."""
    try:
        from inosync.fleet.store import Store, StoreError
    except ImportError as error:
        return RedisTrial(reason=f"the client of Redis is missing ({error}): pip install 'inosync[fleet]'")
    try:
        store = Store(fleet.redis.url, fleet.redis.name, read(fleet.redis), fleet.redis.sentinel_user)
    except OSError as error:
        return RedisTrial(reason=unreadable(error))
    except StoreError as error:
        return RedisTrial(reason=str(error))
    try:
        store.open()
        facts = tuple(_facts(store, fleet))
        return RedisTrial(facts, _refusal(store, fleet))
    except StoreError as error:
        return RedisTrial(reason=str(error))
    finally:
        store.close()


def _facts(store: Store, fleet: Fleet) -> Iterator[str]:
    yield store.version
    if not store.keeps_changes:
        yield "appendonly is off: a restart of it means work done twice"
    seen = store.read((), fleet.senders)
    if seen.span is None:
        yield "no origin was there yet"
    elif seen.config != fleet.fingerprint and not fleet.me:
        yield "with this configuration the origin begins anew: all nodes are compared in full"
    if missing := [name for name in fleet.senders if name not in seen.beats]:
        yield f"not running: {', '.join(missing)}"


def _refusal(store: Store, fleet: Fleet) -> str:
    seen = store.read((), ())
    if fleet.me and seen.span is not None and seen.config != fleet.fingerprint:
        return "the configuration is not that of the origin, so this sender serves nothing"
    return ""
