"""Text for people."""

from __future__ import annotations

import pytest

from inosync.text import address_without_password, format_value, one_line, plural, shortened, without_password


@pytest.mark.parametrize(
    ("count", "noun", "expected"),
    [
        (0, "node", "0 nodes"),
        (1, "node", "1 node"),
        (2, "path", "2 paths"),
        (1, "directory", "1 directory"),
        (0, "directory", "0 directories"),
    ],
)
def test_plural_follows_the_count(count: int, noun: str, expected: str) -> None:
    assert plural(count, noun) == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("rsync://user:secret@host/module", "rsync://user@host/module"),
        ("rsync://host:8730/module", "rsync://host:8730/module"),
        ("user:secret@host:/srv", "user@host:/srv"),
        ("host:/srv/a@b:c", "host:/srv/a@b:c"),
        ("host::module", "host::module"),
    ],
)
def test_address_loses_only_its_password(address: str, expected: str) -> None:
    assert address_without_password(address) == expected


def test_password_of_a_command_is_hidden() -> None:
    assert without_password("--rsh=sshpass -p secret ssh") == "--rsh=sshpass -p *** ssh"
    assert without_password("RSYNC_PASSWORD=secret x") == "RSYNC_PASSWORD=*** x"


def test_one_line_escapes_what_is_not_printable() -> None:
    assert one_line("a\nb\x1b\udcff") == r"a\nb\x1b\udcff"


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", "'a'"),
        ([1, "x"], "[1, 'x']"),
        ("rsync://user:secret@host/m", "'rsync://user@host/m'"),
        (Hostile(), "<Hostile"),
        pytest.param(10**6000, "<int>", id="too many digits"),
    ],
)
def test_value_is_formatted_like_repr_whatever_it_does(value: object, expected: str) -> None:
    assert format_value(value).startswith(expected)


def test_long_value_is_shortened() -> None:
    assert len(format_value("x" * 10_000)) <= 102


def test_shortened_keeps_to_bytes_and_escapes_what_is_not_utf8() -> None:
    assert shortened("short", 10) == "short"
    assert shortened("\u20ac\u20ac\u20ac", 7) == "\u20ac\u20ac"
    assert shortened("a\udce9b", 20) == "a\\udce9b"
