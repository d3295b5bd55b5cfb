"""What the master itself costs with many nodes: a program that only reads its input stands in for rsync.

    python tests/bench/master_cpu.py [--quick]

The processor time (user and system) that inosync's master uses for 3,000 changes with 40 nodes, and with one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.daemon import Daemon
from support.wait import until

from bench.fake import Fake
from bench.machine import cpu_seconds, tidy_on_sigterm, until_idle, workspace
from bench.units import of_nodes, shown

BURST = 30
"""Changes at once; their pauses are longer than ``equiet``, so that most bursts are batches of their own."""
PAUSE = 0.2
EDELAY = 2
PATIENCE = 600.0


@dataclass(frozen=True)
class MasterCpu:
    """Seconds of processor time, by number of nodes: one, and many."""

    changes: int
    used: Mapping[int, list[float]]

    @property
    def most(self) -> int:
        """The larger number of nodes."""
        return max(self.used)

    def middle(self, nodes: int) -> float:
        """The median with so many nodes, in seconds."""
        return median(self.used[nodes])

    @property
    def ratio(self) -> float:
        """What many nodes cost, in what one costs."""
        return self.middle(self.most) / self.middle(1)

    def __str__(self) -> str:
        lines = [
            f"{self.changes:,} changes, {of_nodes(nodes):8} "
            f"master's CPU {shown(self.middle(nodes)):>8}   n {len(samples)}"
            for nodes, samples in self.used.items()
        ]
        return "\n".join([*lines, f"{self.most} nodes cost the master {self.ratio:.2f} times what one does"])


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measures the master's own processor time.")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work at all?")
    quick = parser.parse_args().quick
    tidy_on_sigterm()
    print(measure(quick))
    return 0


def measure(quick: bool = False) -> MasterCpu:
    """Measure, with few nodes and changes if ``quick``."""
    changes, most, rounds = (60, 3, 1) if quick else (3000, 40, 3)
    used: dict[int, list[float]] = {1: [], most: []}
    for _ in range(rounds):
        for nodes, samples in used.items():
            with workspace() as home:
                samples.append(_cpu_for_changes(home, nodes, changes))
    return MasterCpu(changes, used)


def _cpu_for_changes(home: Path, nodes: int, changes: int) -> float:
    fake, tree = Fake(home), home / "tree"
    tree.mkdir()
    daemon = _inosync(home, tree, fake, nodes)
    try:
        daemon.start()
        until(lambda: fake.starts() >= nodes, PATIENCE, "the first run to every node")
        until_idle()
        before = cpu_seconds(daemon.pid)
        for number in range(changes):
            (tree / f"f{number:06}").write_bytes(b"x")
            if number % BURST == BURST - 1:
                time.sleep(PAUSE)
        time.sleep(EDELAY)  # until then a node may be called level with changes that have just been made
        until(lambda: list(daemon.states().values()) == ["ok"] * nodes, PATIENCE, "all nodes to be level")
        until_idle()
        return cpu_seconds(daemon.pid) - before
    finally:
        daemon.close()


def _inosync(home: Path, tree: Path, fake: Fake, nodes: int) -> Daemon:
    config = {
        "wpaths": [str(tree)],
        "rpaths": ["/tree"],
        "rnodes": [str(home / f"node-{number}") for number in range(nodes)],
        "rsync": str(fake.path),
        "edelay": EDELAY,
    }
    return Daemon(home / "inosync", config)


if __name__ == "__main__":
    sys.exit(main())
