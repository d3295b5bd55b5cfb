"""Addresses of Redis, and those of the Sentinels that know where it is."""

from __future__ import annotations

import re
from dataclasses import dataclass

DIRECT = ("redis", "rediss", "unix")
BY_SENTINEL = ("redis+sentinel", "rediss+sentinel")
SENTINEL_PORT = 26379
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^][:/@\s]+))(?::(\d{1,5}))?")
_SERVICE = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The Sentinels that know which Redis is the primary."""

    hosts: tuple[tuple[str, int], ...]
    service: str
    url: str
    """What holds for any Redis of the service: scheme, user, database and options."""


def sentinels(url: str) -> Sentinels | None:
    """Return the Sentinels of an address; None if it has none, ValueError if they are written wrongly."""
    scheme, _, rest = url.partition("://")
    if scheme not in BY_SENTINEL:
        return None
    address, _, options = rest.partition("?")
    places, _, path = address.partition("/")
    login, at, hosts = places.rpartition("@")
    service, _, database = path.partition("/")
    found = [_HOST.fullmatch(host) for host in hosts.split(",")]
    if not _SERVICE.fullmatch(service) or not re.fullmatch(r"\d{0,6}", database) or None in found:
        raise ValueError(f"write {scheme}://HOST,HOST,HOST/SERVICE, or HOST:PORT, or SERVICE/0")
    plain = f"{scheme.partition('+')[0]}://{login}{at}localhost/{database or 0}?{options}"
    known = tuple((host[1] or host[2], int(host[3] or SENTINEL_PORT)) for host in found if host is not None)
    return Sentinels(known, service, plain)
