"""What a rename costs: bytes between the origin and a node, and seconds, beside lsyncd and bare rsync.

    python tests/bench/renames.py [--quick] [--directory 1000] [--file 300] [--transports daemon,ssh]

``--directory`` and ``--file`` are sizes in MB; the directory has files of 1 MB. The node has everything
beforehand. The bytes are those that rsyncd counts, from the start of the tool to its end; sshd counts none.
Trees and nodes are on tmpfs (/dev/shm), and the line is loopback: on a real one seconds follow the bytes.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.arrivals import LONGEST
from bench.machine import statement, tidy_on_sigterm, workspace
from bench.nodes import Case, Nodes, missing
from bench.options import transports
from bench.tools import BY_HAND, DEFAULT, LSYNCD, ByHand, Inosync, Lsyncd, Make
from bench.units import megabytes, ratio, share, shown

MEGABYTE = 1_000_000
POLL_SECONDS = 0.005
RSYNCSSH = "lsyncd, rsyncssh"
_COUNTED = re.compile(r"\] sent (\d+) bytes  received (\d+) bytes")
"""In the log of rsyncd, once a connection has ended."""


class LsyncdSsh(Lsyncd):
    """lsyncd that moves on the node itself, through a shell there."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        assert case.sshd is not None
        host, _, path = case.targets[0].partition(":")
        _, *options = shlex.split(case.sshd.rsh)
        extra = ", ".join(f'"{word}"' for word in options)
        self._config.write_text(
            f'sync {{ default.rsyncssh, source = "{case.source}/", host = "{host}", targetdir = "{path}", '
            f'delay = 1, rsync = {{ archive = true, rsh = "{case.sshd.rsh}" }}, '
            f"ssh = {{ _extra = {{ {extra} }} }} }}\n"
        )


def main() -> int:
    """Measure, and print as it comes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--directory", type=int, default=1000, help="MB in the directory")
    parser.add_argument("--file", type=int, default=300, help="MB of the file")
    parser.add_argument("--transports", type=transports, default=["daemon", "ssh"])
    parser.add_argument("--quick", action="store_true", help="a few MB: does it work at all?")
    options = parser.parse_args()
    sizes = (
        {"directory": 3, "file": 2}
        if options.quick
        else {"directory": options.directory, "file": options.file}
    )
    tidy_on_sigterm()
    print(statement())
    for transport in options.transports:
        if program := missing(transport):
            print(f"{transport}: {program} is not installed")
            continue
        for what, size in sizes.items():
            ours: tuple[float, int] | None = None
            for name, make in _tools(transport).items():
                seconds, sent = _measure(transport, make, what, size)
                ours = ours or (seconds, sent)
                counted = megabytes(sent) if transport == "daemon" else "-"
                row = f"{transport:6} {what} of {size} MB, {name:16} {shown(seconds):>8} {counted:>11}"
                if ours != (seconds, sent):
                    row += f"   inosync: {share(ratio(ours[0], seconds))} of its time"
                    row += f", {_times(ours[1], sent)}" if sent else ""
                print(row, flush=True)
    return 0


def _times(ours: int, theirs: int) -> str:
    return (
        f"1/{theirs / ours:.0f} of its bytes"
        if theirs > ours
        else f"{ours / max(theirs, 1):.1f} times its bytes"
    )


def _tools(transport: str) -> dict[str, Make]:
    found: dict[str, Make] = {DEFAULT: Inosync}
    if shutil.which(Lsyncd.name):
        found[LSYNCD] = partial(Lsyncd, tuned=True)
        if transport == "ssh":
            found[RSYNCSSH] = LsyncdSsh
    return found | {BY_HAND: ByHand}


def _measure(transport: str, make: Make, what: str, size: int) -> tuple[float, int]:
    """Seconds until the node has the new name and not the old one, and the bytes of all connections."""
    with workspace() as home:
        nodes = Nodes(home, transport, 1)
        try:
            nodes.start()
            with nodes.case() as case:
                seconds = _rename(case, make, what, size)
        finally:
            nodes.close()
        log = "".join(path.read_text(errors="replace") for path in home.rglob("rsyncd.log"))
    return seconds, sum(int(number) for found in _COUNTED.findall(log) for number in found)


def _rename(case: Case, make: Make, what: str, size: int) -> float:
    [copy] = case.copies
    _fill(case.source, what, size)
    shutil.copytree(case.source, copy)
    tool = make(case)
    tool.start()
    try:
        (case.source / "ready").touch()
        tool.written()
        _until((copy / "ready").exists)
        time.sleep(2)  # whatever follows a first mirror is over
        expected = _sizes(case.source / "old")
        began = time.perf_counter()
        (case.source / "old").rename(case.source / "new")
        tool.written()
        seconds = (
            _until(lambda: not os.path.lexists(copy / "old") and _sizes(copy / "new") == expected) - began
        )
        time.sleep(0.5)
    finally:
        tool.stop()
    return seconds


def _fill(source: Path, what: str, size: int) -> None:
    if what == "file":
        (source / "old").write_bytes(os.urandom(size * MEGABYTE))
        return
    for number in range(size):
        directory = source / "old" / f"d{number // 100}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number}").write_bytes(os.urandom(MEGABYTE))


def _sizes(path: Path) -> dict[str, int]:
    """The sizes of the files at or below a path."""
    if path.is_file():
        return {"": path.stat().st_size}
    return {str(each.relative_to(path)): each.stat().st_size for each in path.rglob("f*")}


def _until(condition: Callable[[], bool]) -> float:
    """Wait until then; ``perf_counter`` by then, infinite if it never comes."""
    end = time.perf_counter() + LONGEST
    while time.perf_counter() < end:
        try:
            if condition():
                return time.perf_counter()
        except OSError:  # something is just moving
            pass
        time.sleep(POLL_SECONDS)
    return math.inf


if __name__ == "__main__":
    sys.exit(main())
