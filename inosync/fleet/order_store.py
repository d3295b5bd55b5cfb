"""Orders of an operator for the nodes of senders, and what has become of them, in Redis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it imports the client
    from inosync.fleet.store import Store

FOUND_SECONDS = 120
"""How long the result of a comparison is kept for the client that waits for it."""
CHUNK = 500
"""Nodes in one request."""

_GIVE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
return 1
"""
"""origin, orders; value, and name and orders of each node."""
_READ = "return {redis.call('HMGET', KEYS[1], unpack(ARGV)), redis.call('HMGET', KEYS[2], unpack(ARGV))}"
"""orders, done; names of nodes."""
_FINISH = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
if ARGV[4] ~= '' then redis.call('SET', KEYS[3], ARGV[4], 'PX', ARGV[5]) end
return 1
"""
"""lease, done, found; value, node, numbers, what was found, how long that is kept."""


def give(store: Store, value: bytes, orders: Mapping[str, bytes]) -> bool:
    """Write the orders for nodes; False if another is the origin."""
    pairs = [text for pair in orders.items() for text in pair]
    return bool(store.run(_GIVE, ("origin", "orders"), (value, *pairs)) == 1)


def read(store: Store, nodes: Sequence[str]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the orders, and what was done, of those nodes that have any."""
    orders: dict[str, bytes] = {}
    done: dict[str, bytes] = {}
    for some in _chunks(nodes):
        for known, values in zip((orders, done), store.run(_READ, ("orders", "done"), some), strict=True):
            known.update((name, one) for name, one in zip(some, values, strict=True) if one is not None)
    return orders, done


def finish(store: Store, node: str, value: bytes, done: bytes, found: bytes) -> bool:
    """Write what was done for a node, and what was found; False if the lease is over."""
    keys = (("lease", node), "done", ("found", node))
    return bool(store.run(_FINISH, keys, (value, node, done, found, FOUND_SECONDS * 1000)) == 1)


def found(store: Store, nodes: Sequence[str]) -> dict[str, bytes]:
    """Return what the last comparisons of nodes have found, as far as it is still there."""
    script = "return redis.call('GET', KEYS[1])"
    values = {name: store.run(script, (("found", name),), ()) for name in nodes}
    return {name: value for name, value in values.items() if value is not None}


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), CHUNK):
        yield names[start : start + CHUNK]
