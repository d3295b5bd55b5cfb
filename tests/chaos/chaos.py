"""Random but repeatable faults, with seven nodes on all transports.

    python tests/chaos/chaos.py [--seed N] [--seconds S]
    python tests/chaos/chaos.py --soak [--seconds S]

mirrors three trees to nodes behind a local path, three rsync daemons, two sshds and a small disk, all on
loopback. It changes two trees in hostile ways, publishes a site in the third one, and kills, stops, fills
up, reloads and breaks whatever exists. Now and then it heals everything and compares all trees. It prints
each event and a report. The exit code is 0 only if nothing was lost, no reader at a node saw a part of a
release, no node without a fault had to wait for another, no traceback was logged, and no process is left.
After a failure its directory is kept.

With --soak there are no faults, and the daemon's memory, descriptors and watches are printed every minute.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.machine import tidy_on_sigterm

from chaos.report import report
from chaos.run import Options, Run
from chaos.schedule import KINDS

SECONDS = 120.0
SOAK = 600.0


def options(argv: Sequence[str]) -> Options:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, help="repeat a run: the same changes, the same faults")
    parser.add_argument("--seconds", type=float, help=f"how long ({SECONDS:g}; with --soak {SOAK:g})")
    parser.add_argument("--soak", action="store_true", help="no faults; does it hold more and more?")
    parser.add_argument("--pause", type=float, default=Options.pause, help="mean seconds between faults")
    parser.add_argument("--round", type=int, default=Options.round, help="faults between two comparisons")
    parser.add_argument(
        "--check", type=float, default=Options.check, help="seconds between two comparisons with --soak"
    )
    parser.add_argument("--begin", type=int, default=Options.begin, help="operations before the start")
    kinds = ", ".join(kind.name for kind in KINDS)
    parser.add_argument("--only", default="", help=f"these kinds of fault, with commas between: {kinds}")
    parser.add_argument("--without", default="", help="all kinds of fault but these")
    parser.add_argument("--hard-links", action="store_true", help="write to files with several names, too")
    parser.add_argument("--late-writers", action="store_true", help="let stopped receivers go on as orphans")
    parser.add_argument(
        "--no-read-only-trees", action="store_true", help="no directories without write permission"
    )
    parser.add_argument("--no-deployments", action="store_true", help="nothing is published")
    parser.add_argument("--coarse-sources", action="store_true", help="trees with time stamps of one second")
    parser.add_argument("--verbose", action="store_true", help="start the daemon with -v")
    parser.add_argument("--home", type=Path, help="an empty directory for it")
    given = parser.parse_args(argv)
    return Options(
        seed=random.SystemRandom().randrange(10**9) if given.seed is None else given.seed,
        seconds=given.seconds or (SOAK if given.soak else SECONDS),
        soak=given.soak,
        pause=given.pause,
        round=given.round,
        check=given.check,
        begin=given.begin,
        only=_names(given.only),
        without=_names(given.without),
        hard_links=given.hard_links,
        read_only_trees=not given.no_read_only_trees,
        late_writers=given.late_writers,
        coarse_sources=given.coarse_sources,
        deployments=not given.no_deployments,
        verbose=given.verbose,
        home=given.home,
    )


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def main(argv: Sequence[str]) -> int:
    """Run it and return the exit code."""
    asked = options(argv)
    print(f"seed {asked.seed}", flush=True)
    run = Run(asked, lambda line: print(line, flush=True))
    result = run.run()
    print("\n".join(report(run)))
    if result.good:
        shutil.rmtree(run.home, ignore_errors=True)
        return 0
    print(f"seed {asked.seed}; all of it is kept in {run.home}")
    return 1


if __name__ == "__main__":
    tidy_on_sigterm()
    sys.exit(main(sys.argv[1:]))
