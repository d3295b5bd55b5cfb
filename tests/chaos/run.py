"""One run: set up, begin and heal faults for a while, compare, report."""

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

from chaos.deployments import Deployments
from chaos.figures import Figures, figures
from chaos.markers import Markers
from chaos.schedule import Schedule
from chaos.testbed import Difference, Testbed
from chaos.tree_changes import TreeChanges

LOOK = 0.03
"""Seconds between two steps of the schedule."""
MARKER = 1.0
"""Seconds between two markers."""
SETTLED = 5.0
"""Seconds of rest before a measurement, in which warm rsyncs are started again."""
BATCHES = re.compile(r": \d+ paths? to ")
"""A line of the log about batches: one each second at most."""
FULL = re.compile(r": full mirror in [\d.]+ s")
BEHIND = re.compile(r" (\d+) behind$")


@dataclass(frozen=True)
class Options:
    """The options of a run. Times are in seconds."""

    seed: int
    seconds: float
    soak: bool = False
    """Whether there are no faults, slower changes, and repeated measurements."""
    pause: float = 0.6
    """The mean time between two faults."""
    check: float = 60.0
    """In a soak, the time between two comparisons."""
    round: int = 20
    """The number of faults between two comparisons."""
    begin: int = 200
    """The number of operations before the daemon starts."""
    only: Sequence[str] = ()
    """The names of the kinds of fault; empty for all."""
    without: Sequence[str] = ()
    """The names of those that do not happen."""
    hard_links: bool = False
    read_only_trees: bool = True
    """Whether there are directories without write permission."""
    coarse_sources: bool = False
    """Whether the trees have time stamps of one second."""
    deployments: bool = True
    late_writers: bool = False
    """See ``orphans``."""
    verbose: bool = False
    """Whether the daemon logs each change."""
    home: Path | None = None


@dataclass
class Result:
    """The result of a run."""

    lost: list[Difference] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Other failures."""
    checks: int = 0
    looks: list[Figures] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    """How often a worker was in each state, counted once a second."""
    behind: int = 0
    """The largest number of changes behind in a title."""
    log: str = ""

    @property
    def good(self) -> bool:
        return not self.lost and not self.wrong


class Run:
    """A run with these options; ``tell`` gets a line for each event."""

    def __init__(self, options: Options, tell: Callable[[str], None]) -> None:
        self.options = options
        self.home = options.home or Path(tempfile.mkdtemp(prefix="inosync-chaos-"))
        self.home.mkdir(exist_ok=True)
        self.home.chmod(0o755)
        args = ("-v",) if options.verbose else ()
        self.testbed = Testbed(self.home, args, options.late_writers, options.coarse_sources)
        self._tell = tell
        self.changes = TreeChanges(
            self.testbed, f"churn {options.seed}", options.hard_links, options.soak, options.read_only_trees
        )
        self.markers = Markers(self.testbed)
        self.deployments = Deployments(self.testbed, f"deployments {options.seed}")
        self.schedule = Schedule(
            self.testbed,
            self.markers,
            f"faults {options.seed}",
            options.pause,
            options.only,
            options.without,
            options.round,
            self.tell,
        )
        self.result = Result()
        self.seconds = 0.0
        """The duration from the daemon's start until the last healing."""
        self._next_marker = self._next_titles = 0.0

    def tell(self, line: str) -> None:
        self._tell(f"{self.testbed.now():7.1f}  {line}")

    def run(self) -> Result:
        """Do the whole run. Failures are in the result, and no process is left."""
        try:
            self._happen()
        except (AssertionError, OSError) as error:
            self.result.wrong.append(f"{type(error).__name__}: {error}")
        finally:
            self._end()
        self.result.wrong += self.schedule.failures
        return self.result

    def _happen(self) -> None:
        self.testbed.set_up()
        self.changes.begin(self.options.begin)
        self.deployments.begin()
        self.testbed.daemon.start()
        if not self._check("started"):
            return
        self._measure()
        began = self.testbed.now()
        self.changes.start()
        self._start_deployments()
        check = self.testbed.now() + self.options.check
        while (now := self.testbed.now()) < began + self.options.seconds:
            self._look()
            if now >= check if self.options.soak else self.schedule.is_over:
                if not self._check("all healed"):
                    return
                if self.options.soak:
                    self._measure()
                self.changes.resume()
                self._start_deployments()
                check = self.testbed.now() + self.options.check
            _pause(LOOK)
        self.seconds = self.testbed.now() - began
        if self._check("the end"):
            would = self.testbed.rsync_would_do()
            self.result.lost += would
            self._measure()

    def _start_deployments(self) -> None:
        if self.options.deployments and (self.options.soak or not self.schedule.compares):
            self.deployments.start()

    def _look(self) -> None:
        now = self.testbed.now()
        if self.changes.failure is not None:
            raise AssertionError(f"the churn has ended: {self.changes.failure!r}")
        if now >= self._next_marker:
            self.markers.write()
            self._next_marker = now + MARKER
        self.markers.look()
        self.deployments.step()
        if not self.options.soak:
            self.schedule.step()
        if now >= self._next_titles:
            self._titles()
            self._next_titles = now + 1.0

    def _titles(self) -> None:
        """Count the states in the titles. A new worker has no title yet."""
        daemon = self.testbed.daemon
        for process in procs.family([daemon.pid])[1:]:
            if process.ppid != daemon.pid:
                continue
            title = procs.title(process.pid)
            state = re.search(r"\[([a-z]+)", title)
            self.result.states[state[1] if state else "none"] += 1
            if found := BEHIND.search(title):
                self.result.behind = max(self.result.behind, int(found[1]))

    def _check(self, what: str) -> bool:
        """Heal all faults and pause the changes; then all nodes must become level."""

        def served() -> bool:
            self.markers.look()
            return not self.schedule.waits

        until(served, 120, "those without a fault to be served")
        self.schedule.heal_all()
        self.changes.pause()
        marker = self.markers.write()
        before = self.testbed.now()
        found = self.testbed.until_level()
        self.markers.look()
        self.result.checks += 1
        took = self.testbed.now() - before
        self.tell(f"{what}: {f'{len(found)} differences' if found else 'all is level'} after {took:.1f} s")
        self.result.lost += found
        self.result.wrong += self.deployments.stop()
        missing = [node for node in self.testbed.nodes if not self.markers.has(node, marker)]
        if missing and not found:
            self.result.wrong.append(f"the marker is not on {', '.join(missing)}")
        return self.result.good

    def _measure(self) -> None:
        """Wait until the number of processes is stable, and measure them."""
        counts: list[int] = []

        def settled() -> bool:
            counts.append(len(procs.family([self.testbed.daemon.pid])))
            return len(counts) > 8 and len(set(counts[-8:])) == 1

        until(settled, 30, "the processes to stay the same")
        found = figures(self.testbed)
        self.result.looks.append(found)
        self.tell(str(found))
        if found.watches != found.directories + 1:  # and that of flush's marks
            self.result.wrong.append(f"{found.watches} watches of {found.directories} directories")
        wanted = len(self.testbed.nodes) + 1  # the process that writes the state
        if found.children != wanted:
            self.result.wrong.append(f"{found.children} children, not {wanted}")

    def _end(self) -> None:
        self.changes.stop()
        self.deployments.kill()
        daemon = self.testbed.daemon
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
                self.testbed.tear_down()
            except (AssertionError, OSError) as error:
                self.result.wrong.append(f"at the end: {error}")
            self.result.log = daemon.log()


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)
