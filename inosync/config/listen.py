"""``rlisten``: the address and port of metrics and the page."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_WRITTEN = re.compile(r"(?P<host>\[[^]]*\]|[^:\[\]]*):(?P<port>\d{1,5})", re.ASCII)


class BadAddress(ValueError):
    """An address is refused; the text says why, ``hint`` what to write instead."""

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address. ``host`` is numeric, so that no name has to be resolved."""

    host: str
    port: int

    @property
    def is_v6(self) -> bool:
        return ":" in self.host

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect to it."""
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.is_v6 else f"{self.host}:{self.port}"


_EXAMPLE = 'write "127.0.0.1:9187", or "[::1]:9187"'


def parse(text: str) -> Address:
    """Parse ``ADDRESS:PORT``, with an IPv6 address in brackets; BadAddress if it is not one."""
    written = _WRITTEN.fullmatch(text)
    if written is None:
        raise BadAddress("is not ADDRESS:PORT", _EXAMPLE)
    host, port = written["host"], int(written["port"])
    if not 1 <= port <= 65535:
        raise BadAddress("has no port from 1 to 65535", _EXAMPLE)
    try:
        known = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        hint = "127.0.0.1" if host == "localhost" else "0.0.0.0" if host in ("", "*") else ""
        raise BadAddress("names no numeric address", f'write "{hint}:{port}"' if hint else _EXAMPLE) from None
    if (known.version == 6) != host.startswith("[") or "%" in host:
        raise BadAddress("is not ADDRESS:PORT", _EXAMPLE)
    return Address(str(known), port)


def is_local(host: str) -> bool:
    """Whether the Host of a request is one that only this machine has for itself (RFC 6761).

    This prevents DNS rebinding: a foreign page can let its own name resolve to a loopback address, but the
    browser still sends that name.
    """
    name = re.sub(r":\d*$", "", host.strip().lower()).rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name[1:-1] if name.startswith("[") else name).is_loopback
    except ValueError:
        return False
