"""What the benchmarks' command lines have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from bench.nodes import TRANSPORTS
from bench.work import APART


def numbers(text: str) -> list[int]:
    """Read ``1,10,50``."""
    words = text.split(",")
    if not all(word.isdecimal() and int(word) for word in words):
        raise argparse.ArgumentTypeError(f"{text!r}: write numbers from 1 on, such as 1,10,50")
    return [int(word) for word in words]


def words(*known: str, between: str = ",") -> Callable[[str], list[str]]:
    """Read some of these words, with that between them."""

    def read(text: str) -> list[str]:
        found = text.split(between)
        if not set(found) <= set(known):
            raise argparse.ArgumentTypeError(f"{text!r}: write some of {between.join(known)}")
        return found

    return read


transports = words(*TRANSPORTS)
"""Read ``daemon,ssh``."""


def add_apart(parser: argparse.ArgumentParser) -> None:
    """Add ``--apart``."""
    text = "between isolated changes, at least; default %(default)g"
    parser.add_argument("--apart", type=float, default=APART, metavar="SECONDS", help=text)
