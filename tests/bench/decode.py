"""Events a second: inosync's reading and decoding beside pyinotify's own loop, on the same events.

    python tests/bench/decode.py [--quick]

Both have a watch on the same directory. Files are made in it until the kernel holds a good number of events
for each, then one empties its queue, then the other, each in turn first.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pyinotify

from bench.machine import workspace
from inosync.watch.inotify import IN_CLOSE_WRITE, IN_CREATE, IN_DELETE, Inotify, decode

MASK = IN_CREATE | IN_CLOSE_WRITE | IN_DELETE
FILES = 2500
"""Three events each: well below the 16,384 that a queue holds."""


def main() -> int:
    """Measure, and print the medians of the rounds and their ratio."""
    parser = argparse.ArgumentParser(description="Compares the decoder with pyinotify's loop.")
    parser.add_argument("--quick", action="store_true", help="few rounds: does it work at all?")
    rounds = 4 if parser.parse_args().quick else 40
    with workspace() as home:
        directory = str(home)
        loops = {"inosync": _inosync(directory), "pyinotify": _pyinotify(directory)}
        rates: dict[str, list[float]] = {name: [] for name in loops}
        for number in range(rounds):
            _make_events(directory)
            for name in sorted(loops, reverse=bool(number % 2)):
                began = time.perf_counter()
                events = loops[name]()
                rates[name].append(events / (time.perf_counter() - began))
                assert events == 3 * FILES, f"{name} saw {events} events instead of {3 * FILES}"
    for name, samples in rates.items():
        print(f"{name:10} median {median(samples):10,.0f} events/s   n {len(samples)}")
    print(f"inosync's rate is {median(rates['inosync']) / median(rates['pyinotify']):.1f} times pyinotify's")
    return 0


def _make_events(directory: str) -> None:
    # Names as in a web site's uploads; equal events in a row would be merged by the kernel.
    for number in range(FILES):
        path = f"{directory}/upload-2024-{number:05}.jpeg"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))
        os.unlink(path)


def _inosync(directory: str) -> Callable[[], int]:
    """Take all that is queued, and say how many events that were."""
    inotify = Inotify()
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    inotify.add(handle, MASK)
    os.close(handle)

    def empty() -> int:
        count = 0
        while data := inotify.read():
            count += len(decode(data))
        return count

    return empty


def _pyinotify(directory: str) -> Callable[[], int]:
    """Do the same in the way of pyinotify's manual, with a handler that does nothing but count."""
    count = 0

    def handle(_event: object) -> None:
        nonlocal count
        count += 1

    manager = pyinotify.WatchManager()
    manager.add_watch(directory, MASK)
    notifier = pyinotify.Notifier(manager, handle, timeout=0)

    def empty() -> int:
        nonlocal count
        count = 0
        while notifier.check_events():
            notifier.read_events()
            notifier.process_events()
        return count

    return empty


if __name__ == "__main__":
    sys.exit(main())
