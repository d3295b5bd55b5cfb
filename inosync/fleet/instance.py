"""One Redis: how it is reached, and which one it is. Only this module imports the client."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.connection import SSLConnection, parse_url
from redis.exceptions import AuthenticationError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from inosync.config.redis_url import BY_SENTINEL, DIRECT, Sentinels, sentinels
from inosync.fleet.codec import BadValue
from inosync.fleet.passwords import Passwords
from inosync.text import one_line

REQUEST_SECONDS = 2.0
"""A lease has to survive a request and its retry."""
RETRIES = 1
SENTINEL_SECONDS = 0.5
"""How long a Sentinel is waited for, before the next one is asked."""


class StoreError(Exception):
    """Redis cannot be used, and why, without a password."""


class InstanceChanged(redis.RedisError):
    """This is another Redis than before, or it was restarted: it may have lost what was written last."""


class Instance:
    """The Redis at an address. The client retries a request that has failed, on a new connection.

    ``sentinel_user``: at the Sentinels, if they want any but the default one.
    """

    def __init__(self, url: str, passwords: Passwords, sentinel_user: str = "") -> None:
        self.place = _place(url)
        """Where it is, for people."""
        self.info: dict[bytes, bytes] = {}
        """What it says of itself."""
        self._identity = (b"", b"")
        """Which one it is."""
        self._url, self._passwords = url, passwords
        self._secrets = _secrets(url, passwords)
        options = _login(passwords.redis)
        options |= {
            "socket_timeout": REQUEST_SECONDS,
            "socket_connect_timeout": REQUEST_SECONDS,
            "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), RETRIES),
            "redis_connect_func": self._check,
            "client_name": "inosync",
        }
        self._sentinel: Any = None
        try:
            found = sentinels(url)
            self.client: Any = (
                redis.Redis.from_url(url, **options)
                if found is None
                else self._managed(found, options, _login(passwords.sentinels, sentinel_user))
            )
        except (ValueError, TypeError):  # their texts show parts of the password
            raise StoreError(f"{self.place} is no address of Redis") from None

    def _managed(self, found: Sentinels, options: dict[str, Any], login: dict[str, Any]) -> Any:
        """Return a client that asks the Sentinels where Redis is, for each connection."""
        known = parse_url(found.url) | options  # type: ignore[no-untyped-call]
        is_tls = known.pop("connection_class", None) is SSLConnection
        for name in ("host", "port"):
            known.pop(name, None)
        common = {name: value for name, value in known.items() if name.startswith("ssl_")}
        common |= {"ssl": True} if is_tls else {}
        limits = {"socket_timeout": SENTINEL_SECONDS, "socket_connect_timeout": SENTINEL_SECONDS}
        asked = {**common, **limits, **login, "retry": Retry(NoBackoff(), 0)}
        self._sentinel = Sentinel(found.hosts, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
        return self._sentinel.master_for(found.service, **known, **({"ssl": True} if is_tls else {}))

    def _check(self, connection: Any) -> None:
        """Log in, and look which Redis this is; called by the client for each new connection.

        A replica that becomes the primary keeps its run id, and gets another replication id.
        """
        connection.on_connect()
        connection.send_command("INFO", "server")
        lines = bytes(connection.read_response()).splitlines()
        connection.send_command("INFO", "replication")
        lines += bytes(connection.read_response()).splitlines()
        self.info = dict(line.split(b":", 1) for line in lines if b":" in line)
        if self.info.get(b"role", b"master") != b"master":  # Sentinels know late of a failover
            raise redis.ConnectionError("is a replica, which may lack what was written last")
        known, found = self._identity, (self.info.get(b"run_id", b""), self.info.get(b"master_replid", b""))
        self._identity = found
        if known not in ((b"", b""), found):
            raise InstanceChanged

    def set_passwords(self, passwords: Passwords) -> None:
        """Log in with these from now on, if they are others."""
        if passwords == self._passwords:
            return
        self._passwords, self._secrets = passwords, _secrets(self._url, passwords)
        clients = [(self.client, passwords.redis)]
        clients += [(one, passwords.sentinels) for one in self._sentinel_clients()]
        for client, password in clients:
            pool = client.connection_pool
            pool.connection_kwargs["password"] = password
            pool.disconnect()
            pool.reset()  # connections that are kept would log in as before

    def _sentinel_clients(self) -> list[Any]:
        return [] if self._sentinel is None else list(self._sentinel.sentinels)

    def close(self) -> None:
        """Close all connections."""
        self.client.close()
        for one in self._sentinel_clients():
            one.close()

    @contextmanager
    def plain_errors(self) -> Iterator[None]:
        """Raise StoreError for what goes wrong with it, but InstanceChanged as it is."""
        try:
            yield
        except InstanceChanged:
            raise
        except BadValue as error:
            raise StoreError(f"{self.place}: {error}") from None
        except MasterNotFoundError as error:
            is_refused = AuthenticationError.__name__ in str(error)  # its text has nothing but the class
            why = "; the password is refused (sentinel_password_file)" if is_refused else ""
            raise StoreError(f"{self.place}: no Sentinel says which Redis is the primary{why}") from None
        except (redis.RedisError, OSError, ValueError) as error:
            text = one_line(str(error)) or type(error).__name__
            for secret in self._secrets:
                text = text.replace(secret, "***")
            # Without the cause: it may show the URL.
            raise StoreError(f"{self.place}: {text}") from None


def _place(url: str) -> str:
    """Return an address without user, password and options; StoreError if it cannot be told what they are."""
    scheme, _, rest = url.partition("://")
    if scheme not in (*DIRECT, *BY_SENTINEL):
        raise StoreError("the address of Redis begins with redis://, rediss:// or unix://")
    if scheme != "unix" and "@" in rest.partition("/")[2].partition("?")[0]:
        raise StoreError("in the address of Redis, / and @ of a password are written as %2F and %40")
    return one_line(f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}")


def _login(password: str | None, user: str = "") -> dict[str, Any]:
    login = {} if password is None else {"password": password}
    return {**login, "username": user} if user else login


def _secrets(url: str, passwords: Passwords) -> tuple[str, ...]:
    """Return what must not be shown, the longest first."""
    found = {passwords.redis or "", passwords.sentinels or ""}
    try:
        written = urlsplit(url).password or ""
    except ValueError:
        written = ""
    found |= {written, unquote(written), *re.findall(r"[?&]password=([^&]*)", url)}
    return tuple(sorted(filter(None, found), key=len, reverse=True))
