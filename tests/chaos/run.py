"""One run: set up, let everything happen for a while, heal all of it, compare, report."""

from __future__ import annotations

import re
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support import procs
from support.wait import until

from chaos.figures import Figures, figures
from chaos.markers import Markers
from chaos.schedule import Schedule
from chaos.testbed import Difference, World
from chaos.tree_changes import Churning

LOOK = 0.03
"""Seconds between two looks at what has arrived and what is due."""
MARKER = 1.0
"""Seconds between two markers."""
SETTLED = 5.0
"""Seconds that everything has to itself before it is measured: what waits for a batch is started again."""
BATCH = re.compile(r": \d+ paths? in [\d.]+ s")
FULL = re.compile(r": full mirror in [\d.]+ s")
BEHIND = re.compile(r" (\d+) behind$")


@dataclass(frozen=True)
class Options:
    """What is asked for. Times in seconds."""

    seed: int
    seconds: float
    soak: bool = False
    """No faults, fewer changes, and a look at what the daemon holds again and again."""
    pause: float = 0.6
    """The mean between two faults."""
    check: float = 60.0
    """Of a soak, between two times that all is compared."""
    round: int = 20
    """Faults between two times that all is healed and compared."""
    begin: int = 200
    """Operations before the daemon is started."""
    only: Sequence[str] = ()
    """The kinds of fault that there are; empty: all."""
    hard_links: bool = False
    late_writers: bool = False
    """See ``orphans``."""
    verbose: bool = False
    """The daemon's log tells of each change."""
    home: Path | None = None


@dataclass
class Result:
    """What has become of it."""

    lost: list[Difference] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """What else must not be."""
    checks: int = 0
    looks: list[Figures] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    """How often a worker's title was in each, of one look a second."""
    behind: int = 0
    """The most changes that a title told of."""
    log: str = ""

    @property
    def good(self) -> bool:
        return not self.lost and not self.wrong


class Run:
    """A run with these options; ``tell`` gets a line for each thing that happens."""

    def __init__(self, options: Options, tell: Callable[[str], None]) -> None:
        self.options = options
        self.home = options.home or Path(tempfile.mkdtemp(prefix="inosync-chaos-"))
        self.home.mkdir(exist_ok=True)
        self.home.chmod(0o755)
        self.world = World(self.home, ("-v",) if options.verbose else (), options.late_writers)
        self._tell = tell
        self.churning = Churning(self.world, f"churn {options.seed}", options.hard_links, options.soak)
        self.markers = Markers(self.world)
        self.schedule = Schedule(
            self.world,
            self.markers,
            f"faults {options.seed}",
            options.pause,
            options.only,
            options.round,
            self.tell,
        )
        self.result = Result()
        self.seconds = 0.0
        """That it has lasted, from the daemon's start until all was healed."""
        self._next_marker = self._next_titles = 0.0

    def tell(self, line: str) -> None:
        self._tell(f"{self.world.now():7.1f}  {line}")

    def run(self) -> Result:
        """Do all of it. Whatever fails is in the result, and nothing goes on running."""
        try:
            self._happen()
        except (AssertionError, OSError) as error:
            self.result.wrong.append(f"{type(error).__name__}: {error}")
        finally:
            self._end()
        self.result.wrong += self.schedule.failures
        return self.result

    def _happen(self) -> None:
        self.world.set_up()
        self.churning.begin(self.options.begin)
        self.world.daemon.start()
        if not self._check("started"):
            return
        self._measure()
        began = self.world.now()
        self.churning.start()
        check = self.world.now() + self.options.check
        while (now := self.world.now()) < began + self.options.seconds:
            self._look()
            if now >= check if self.options.soak else self.schedule.is_over:
                if not self._check("all healed"):
                    return
                if self.options.soak:
                    self._measure()
                self.churning.resume()
                check = self.world.now() + self.options.check
            _pause(LOOK)
        self.seconds = self.world.now() - began
        if self._check("the end"):
            would = self.world.rsync_would_do()
            self.result.lost += would
            self._measure()

    def _look(self) -> None:
        now = self.world.now()
        if self.churning.failure is not None:
            raise AssertionError(f"the churn has ended: {self.churning.failure!r}")
        if now >= self._next_marker:
            self.markers.write()
            self._next_marker = now + MARKER
        self.markers.look()
        if not self.options.soak:
            self.schedule.step()
        if now >= self._next_titles:
            self._titles()
            self._next_titles = now + 1.0

    def _titles(self) -> None:
        """See what the titles say. A worker that is just made has none."""
        daemon = self.world.daemon
        for process in procs.family([daemon.pid])[1:]:
            if process.ppid != daemon.pid:
                continue
            title = procs.title(process.pid)
            state = re.search(r"\[([a-z]+)", title)
            self.result.states[state[1] if state else "none"] += 1
            if found := BEHIND.search(title):
                self.result.behind = max(self.result.behind, int(found[1]))

    def _check(self, what: str) -> bool:
        """Have no faults and no changes for a while: then all has to become level."""

        def served() -> bool:
            self.markers.look()
            return not self.schedule.waits

        until(served, 120, "those without a fault to be served")
        self.schedule.heal_all()
        self.churning.pause()
        marker = self.markers.write()
        before = self.world.now()
        found = self.world.until_level()
        self.markers.look()
        self.result.checks += 1
        took = self.world.now() - before
        self.tell(f"{what}: {f'{len(found)} differences' if found else 'all is level'} after {took:.1f} s")
        self.result.lost += found
        missing = [node for node in self.world.nodes if not self.markers.has(node, marker)]
        if missing and not found:
            self.result.wrong.append(f"the marker is not on {', '.join(missing)}")
        return self.result.good

    def _measure(self) -> None:
        """Wait until the processes are those that there are at rest, and look at what they hold."""
        counts: list[int] = []

        def settled() -> bool:
            counts.append(len(procs.family([self.world.daemon.pid])))
            return len(counts) > 8 and len(set(counts[-8:])) == 1

        until(settled, 30, "the processes to stay the same")
        found = figures(self.world)
        self.result.looks.append(found)
        self.tell(str(found))
        if found.watches != found.directories + 1:  # and that of flush's marks
            self.result.wrong.append(f"{found.watches} watches of {found.directories} directories")
        if found.children != len(self.world.nodes):
            self.result.wrong.append(f"{found.children} children for {len(self.world.nodes)} nodes")

    def _end(self) -> None:
        self.churning.stop()
        daemon = self.world.daemon
        try:
            self.schedule.heal_all()
            if self.result.good:
                code = daemon.stop()
                if code != 0:
                    self.result.wrong.append(f"the daemon ended with {code}")
                left = sorted(path.name for path in daemon.rundir.iterdir())
                if left:
                    self.result.wrong.append(f"left in the run directory: {', '.join(left)}")
        except (AssertionError, OSError) as error:
            self.result.wrong.append(f"at the end: {error}")
        finally:
            try:
                self.world.tear_down()
            except (AssertionError, OSError) as error:
                self.result.wrong.append(f"at the end: {error}")
            self.result.log = daemon.log()


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)
