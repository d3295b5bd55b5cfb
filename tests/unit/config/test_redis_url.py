"""Addresses of Sentinels: what they come to, and what is refused."""

from __future__ import annotations

import pytest

from inosync.config.redis_url import Sentinels, sentinels


@pytest.mark.parametrize(
    "url", ["redis://a/0", "rediss://u@a:1/0", "unix:///run/redis.sock", "sentinel://a/b"]
)
def test_address_without_sentinels_has_none(url: str) -> None:
    assert sentinels(url) is None


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("redis+sentinel://a/web", Sentinels((("a", 26379),), "web", "redis://localhost/0?")),
        (
            "redis+sentinel://a:1,b.example.com,10.0.0.1:2/my-web_1/3",
            Sentinels(
                (("a", 1), ("b.example.com", 26379), ("10.0.0.1", 2)), "my-web_1", "redis://localhost/3?"
            ),
        ),
        (
            "rediss+sentinel://user@[2001:db8::1]:5,[::2]/web/0?ssl_ca_certs=/ca.pem",
            Sentinels(
                (("2001:db8::1", 5), ("::2", 26379)),
                "web",
                "rediss://user@localhost/0?ssl_ca_certs=/ca.pem",
            ),
        ),
    ],
)
def test_sentinels_of_an_address(url: str, found: Sentinels) -> None:
    assert sentinels(url) == found


@pytest.mark.parametrize(
    "rest",
    [
        *("", "a", "a/", "a//0", "/web", "a,/web", ",a/web", "a:b/web", "a:123456/web", "a/web/x"),
        *("a/web/0/1", "a b/web", "[::1/web", "::1/web", "a/w b", "a/web/-1"),
    ],
)
def test_address_that_is_none_of_sentinels_is_refused(rest: str) -> None:
    with pytest.raises(ValueError, match="HOST,HOST,HOST/SERVICE"):
        sentinels(f"redis+sentinel://{rest}")
