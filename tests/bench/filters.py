"""Microseconds for the verdict of filter rules on a path, against the number of the rules.

    python tests/bench/filters.py [--quick]

Patterns are of all kinds; the paths match none of them, which takes longest.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from inosync.filters.rule import from_pattern
from inosync.filters.rules import Rules

KINDS = ("*.ext%d", "/dir%d/cache/", "name%d", "/a/*/b%d/*.o", "[abc]%d*", "**/x%d/**", "/top%d", "d%d/*~")


def main() -> int:
    """Measure, and print the best of the rounds for each number of rules."""
    parser = argparse.ArgumentParser(description="Measures filter rules against their number.")
    parser.add_argument("--quick", action="store_true", help="few rounds: does it work at all?")
    rounds = 1 if parser.parse_args().quick else 20
    paths = [b"site/uploads/2024/%02d/photo-%05d.jpeg" % (number % 12, number) for number in range(2000)]
    first = 0.0
    for count in (1, 10, 100, 1000):
        began = time.perf_counter()
        patterns = [KINDS[number % len(KINDS)] % number for number in range(count)]
        rules = Rules(rule for pattern in patterns for rule in from_pattern(pattern))
        compiled = time.perf_counter() - began
        name = min(_each(rules, paths) for _ in range(rounds))
        below = min(_each_below(rules, paths) for _ in range(rounds))
        first = first or name
        print(
            f"{count:5} rules: {name * 1e6:6.2f} us a path, {below * 1e6:6.2f} us with all above it, "
            f"{name / first:5.1f} times that of one rule; compiled in {compiled * 1e3:.2f} ms"
        )
    return 0


def _each(rules: Rules, paths: list[bytes]) -> float:
    """Seconds for one path, its directories not looked at."""
    began = time.perf_counter()
    for path in paths:
        rules.excluded(path, False)
    return (time.perf_counter() - began) / len(paths)


def _each_below(rules: Rules, paths: list[bytes]) -> float:
    """Seconds for one path, most of its directories looked at before."""
    began = time.perf_counter()
    for path in paths:
        rules.excluded_below(path, False)
    return (time.perf_counter() - began) / len(paths)


if __name__ == "__main__":
    sys.exit(main())
