"""Text for people: on one line, shortened, without passwords, with the right plural; the words for states."""

from __future__ import annotations

import difflib
import enum
import re
import reprlib
from collections.abc import Iterable
from typing import Any

# What follows the first colon of a URL is a port, or else the start of a password.
_URL_PASSWORD = re.compile(r"(://[^/@:\[\s]*):(?!\d*(?:[/'\"]|$)).*@", re.DOTALL)
# user:password@host:..., which rsync reads as a path on the host "user". Not host:/srv/a@b:c.
_SSH_PASSWORD = re.compile(r"^([^/:@\s\[]+):(?![/.~:])[^@]*@(?=[^/:@]+:)")
_PASSWORD_WORDS = re.compile(r"(sshpass\s+-p\s*|password=)[^\s'\"]+", re.IGNORECASE)


def without_password(text: str) -> str:
    """A text without the passwords that people write into addresses and commands."""
    return _PASSWORD_WORDS.sub(r"\1***", address_without_password(text))


def address_without_password(address: str) -> str:
    """An address without the password that is written into it."""
    return _SSH_PASSWORD.sub(r"\1@", _URL_PASSWORD.sub(r"\1@", address))


def one_line(text: str) -> str:
    """A text with everything escaped that a terminal or a log would not print."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shortened(text: str, most: int) -> str:
    """The beginning of a text, in at most so many bytes of UTF-8; bytes that are none are escaped."""
    return text.encode("utf-8", "backslashreplace")[:most].decode("utf-8", "ignore")


def plural(count: int, noun: str) -> str:
    """``1 path``, ``2 paths``, ``2 directories``."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun[:-1]}ies" if noun.endswith("y") else f"{count} {noun}s"


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """``did you mean X?`` for the known word that is most like this one; empty if none is."""
    close = difflib.get_close_matches(word, list(known), 1, cutoff)
    return f"did you mean {close[0]}?" if close else ""


def format_value(value: object) -> str:
    """repr(), shortened, on one line, without passwords, and whatever the value does."""
    try:
        return _Shown().repr(value)
    except Exception:  # noqa: BLE001 - a class of the file's own, or an int of too many digits
        return f"<{type(value).__name__}>"


class _Shown(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 100

    def repr1(self, x: Any, level: int) -> str:
        return self.repr_str(x, level) if isinstance(x, str) else super().repr1(x, level)

    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(without_password(str(x)), level)

    def repr_instance(self, x: Any, level: int) -> str:
        return without_password(super().repr_instance(x, level))


class NodeState(enum.StrEnum):
    """How well a node is mirrored, in the words that users see."""

    STARTING = "starting"
    FULL = "full"
    OK = "ok"
    SYNCING = "syncing"
    LAGGING = "lagging"
    RETRYING = "retrying"
    PAUSED = "paused"
    HALTED = "halted"
    HELD = "held"
    DEGRADED = "degraded"
