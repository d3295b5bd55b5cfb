"""Where metrics and the page are served."""

from __future__ import annotations

import pytest

from inosync.config.listen import Address, BadAddress, is_local, parse


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:9187", "127.0.0.1", 9187, True),
        ("127.8.0.1:1", "127.8.0.1", 1, True),
        ("[::1]:9187", "::1", 9187, True),
        ("[0:0::1]:65535", "::1", 65535, True),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("[2001:db8::1]:80", "2001:db8::1", 80, False),
    ],
)
def test_address_is_parsed(text: str, host: str, port: int, loopback: bool) -> None:
    address = parse(text)
    assert address == Address(host, port)
    assert address.is_loopback is loopback
    assert parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("", '"127.0.0.1:9187"'),
        ("9187", '"127.0.0.1:9187"'),
        ("localhost:9187", 'write "127.0.0.1:9187"'),
        (":80", 'write "0.0.0.0:80"'),
        ("*:80", 'write "0.0.0.0:80"'),
        ("::1:80", "[::1]:9187"),
        ("[127.0.0.1]:80", "127.0.0.1:9187"),
        ("[fe80::1%eth0]:80", "127.0.0.1:9187"),
        ("127.0.0.1:0", "127.0.0.1:9187"),
        ("127.0.0.1:65536", "127.0.0.1:9187"),
        ("127.0.0.1:-1", "127.0.0.1:9187"),
        ("127.0.0.1:80\n", "127.0.0.1:9187"),
        ("host.example.com:80", "127.0.0.1:9187"),
    ],
)
def test_bad_address_is_refused_with_a_hint(text: str, right: str) -> None:
    with pytest.raises(BadAddress) as caught:
        parse(text)
    assert right in caught.value.hint


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:9187", "localhost:80", "LOCALHOST", "[::1]:1", "[::1]", "a.localhost:2"]
)
def test_local_host_names_are_known(host: str) -> None:
    assert is_local(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example.com",
        "evil.example.com:9187",
        "127.0.0.1.evil.com",
        "10.0.0.1:80",
        "[::2]",
        "[",
        "localhost.evil",
    ],
)
def test_other_host_names_are_not_local(host: str) -> None:
    assert not is_local(host)
