"""Chaos for a fleet: changes, and senders, the origin and Redis that are killed, stopped and restarted.

Usage: fleet.py [--seconds N] [--seed N] [--partitions]

What must hold: a counter never goes back on any node; and when all machines are there again, a flush ends
and all nodes have what the origin has. Leases are short (``support.fleet``), so that more happens. Redis is
empty after each restart. Prints a line for each round, and the seed; the exit code is 0 if all held.

With --partitions (root) each machine is in a network of its own, and pairs of them are cut apart. There are
two senders and two nodes, over ssh and rsyncd. Redis often has its append-only file after a restart. No node
is ever served by two senders.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests")]

from support import trees  # noqa: E402
from support.daemon import Daemon  # noqa: E402
from support.fleet import TTL_SECONDS, Fleet  # noqa: E402
from support.network import Islands  # noqa: E402
from support.redis_server import RedisServer  # noqa: E402
from support.scattered import PAIRS, Scattered  # noqa: E402
from support.wait import until  # noqa: E402

NODES = ("n0", "n1", "n2", "n3", "n4", "n5")
SETTLE_SECONDS = 120.0


class Chaos:
    """One fleet, and what happens to it. ``islands``: the networks of its machines, if they have any."""

    def __init__(
        self, fleet: Fleet, redis: RedisServer, rand: random.Random, islands: Islands | None = None
    ) -> None:
        self.fleet, self.redis, self.islands = fleet, redis, islands
        self.rand = rand
        self.counter = 0
        self.seen = dict.fromkeys(fleet.nodes, 0)
        """By node: the greatest number that it has shown."""
        self.stopped: dict[int, float] = {}
        """By pid: until when a process is stopped."""
        self.cut: dict[tuple[str, str], float] = {}
        """By pair of machines: until when they do not reach each other."""
        self.faults: dict[str, int] = {}
        self.problems: list[str] = []

    def look(self) -> None:
        """A counter that goes back is what must not happen."""
        for name in self.fleet.nodes:
            try:
                number = int((self.fleet.copy(name) / "counter").read_text() or 0)
            except FileNotFoundError:
                if self.seen[name]:
                    self.problems.append(f"{name}: the counter has gone")
                continue
            if number < self.seen[name]:
                self.problems.append(f"{name}: {number} after {self.seen[name]}")
            self.seen[name] = max(number, self.seen[name])

    def change(self) -> None:
        """Count, by a rename as publishing does, and change something else."""
        tree = self.fleet.tree
        self.counter += 1
        fresh = tree / ".counter.new"
        fresh.write_text(str(self.counter))
        fresh.rename(tree / "counter")
        place = tree / f"d{self.rand.randrange(4)}"
        match self.rand.randrange(4):
            case 0:
                place.mkdir(exist_ok=True)
                (place / f"f{self.rand.randrange(20)}").write_text(
                    f"{self.counter}" * self.rand.randrange(999)
                )
            case 1:
                shutil.rmtree(place, ignore_errors=True)
            case 2 if place.is_dir():
                other = tree / f"d{self.rand.randrange(4)}"
                if not other.exists():
                    place.rename(other)
            case 3 if place.is_dir():
                for path in sorted(place.iterdir())[:3]:
                    path.unlink()

    # Faults --------------------------------------------------------------------------------------------

    def fault(self) -> None:
        """Do something to one of the machines."""
        kinds = (self.kill_sender, self.end_sender, self.stop_sender, self.stop_redis, self.restart_redis)
        cuts = () if self.islands is None else (self.cut_pair,) * len(kinds)
        kind = self.rand.choice((*kinds, *kinds, *cuts, self.kill_origin))
        self.faults[kind.__name__] = self.faults.get(kind.__name__, 0) + 1
        kind()

    def _sender(self) -> Daemon:
        return self.fleet.senders[self.rand.choice(self.fleet.names)]

    def kill_sender(self) -> None:
        sender = self._sender()
        self._continue(sender.pid)
        sender.kill9()
        if self.rand.random() < 0.5:
            self.run_for(self.rand.uniform(0, 2 * TTL_SECONDS))
        sender.start()

    def end_sender(self) -> None:
        sender = self._sender()
        self._continue(sender.pid)
        sender.stop()
        self.run_for(self.rand.uniform(0, 3))
        sender.start()

    def stop_sender(self) -> None:
        """Stop a master, but nothing that it has started."""
        self._stop(self._sender().pid)

    def cut_pair(self) -> None:
        """Have two machines not reach each other for a while."""
        pair = self.rand.choice(PAIRS)
        if self.islands is not None and pair not in self.cut:
            self.islands.cut(*pair)
            self.cut[pair] = time.monotonic() + self.rand.uniform(0, 3 * TTL_SECONDS)

    def _mend(self, pair: tuple[str, str]) -> None:
        if self.islands is not None and self.cut.pop(pair, None) is not None:
            self.islands.mend(*pair)

    def stop_redis(self) -> None:
        self._stop(self.redis.pid)

    def _stop(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        self.stopped[pid] = time.monotonic() + self.rand.uniform(0, 2 * TTL_SECONDS)

    def _continue(self, pid: int) -> None:
        if self.stopped.pop(pid, None) is not None:
            os.kill(pid, signal.SIGCONT)

    def restart_redis(self) -> None:
        self._continue(self.redis.pid)
        self.redis.stop()
        self.run_for(self.rand.uniform(0, 2))
        if self.rand.random() < 0.5:
            shutil.rmtree(self.redis.home / "appendonlydir", ignore_errors=True)
        self.redis.start()

    def kill_origin(self) -> None:
        self.fleet.origin.kill9()
        self.change()
        self.fleet.origin.start()

    # Rounds --------------------------------------------------------------------------------------------

    def run_for(self, seconds: float) -> None:
        """Change, and look, for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.rand.random() < 0.3:
                self.change()
            self.look()
            for pid, until_when in list(self.stopped.items()):
                if time.monotonic() >= until_when:
                    self._continue(pid)
            for pair, until_when in list(self.cut.items()):
                if time.monotonic() >= until_when:
                    self._mend(pair)
            time.sleep(0.02)

    def settle(self) -> None:
        """All machines are there: nothing may be missing."""
        for pid in list(self.stopped):
            self._continue(pid)
        for pair in list(self.cut):
            self._mend(pair)
        self.change()
        begin = time.monotonic()

        def level() -> bool:
            self.look()
            source = trees.snapshot(self.fleet.tree)
            return all(
                os.path.isdir(self.fleet.copy(name)) and trees.is_copy(source, self.fleet.copy(name))
                for name in self.fleet.nodes
            )

        try:
            until(level, SETTLE_SECONDS, "all nodes to be level")
            behind = self.fleet.ask("flush", timeout=SETTLE_SECONDS)["behind"]
            if behind:
                self.problems.append(f"flush: {behind}")
        except AssertionError as error:
            self.problems.append(f"{error}\n{self.fleet.report()}")
        print(f"level after {time.monotonic() - begin:.1f} s", end="; ", flush=True)


def main() -> int:
    """Run it, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--partitions", action="store_true", help="cut machines apart, too (root)")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    home = Path(tempfile.mkdtemp(prefix="inosync-chaos-"))
    rand = random.Random(options.seed)
    running: contextlib.AbstractContextManager[object]
    if options.partitions:
        scattered = Scattered(home, TTL_SECONDS, trusts_redis=False)
        scattered.islands.make()
        chaos = Chaos(scattered.fleet, scattered.redis, rand, scattered.islands)
        running = scattered.running()
    else:
        fleet = Fleet(home, nodes=NODES)
        chaos, running = Chaos(fleet, fleet.redis, rand), fleet.running()
    chaos.change()
    end = time.monotonic() + options.seconds
    with running:
        chaos.fleet.until_served()
        while time.monotonic() < end and not chaos.problems:
            for _ in range(chaos.rand.randrange(1, 5)):
                chaos.fault()
                chaos.run_for(chaos.rand.uniform(0, 4))
            chaos.settle()
            print(f"{chaos.counter} changes, {chaos.faults}", flush=True)
    for problem in chaos.problems:
        print(f"PROBLEM: {problem}")
    if chaos.problems:
        print(f"left in {home}")
        return 1
    shutil.rmtree(home)
    return 0


if __name__ == "__main__":
    sys.exit(main())
