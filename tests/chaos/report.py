"""The report of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from chaos.figures import MEGABYTE, Figures
from chaos.run import BATCHES, FULL, Run

SHOWN = 40
"""The most differences that are printed."""
LOG = 60
"""The most lines of the log that are printed."""
GROWTH = 1.1
"""The most memory at the end, relative to the middle of a long run. Before that the trees grow, and with them
the largest batch, whose memory Python keeps."""
SLACK = 2 * MEGABYTE
FEW = 4
"""The number of descriptors that come and go."""


def report(run: Run) -> Iterator[str]:
    """Return the lines of the report; the last one is PASSED or FAILED."""
    result, schedule, markers = run.result, run.schedule, run.markers
    log = result.log
    starts = Counter(line.split()[0] for line in run.testbed.rsync.starts())
    yield f"seed                 {run.options.seed}"
    yield f"seconds              {run.seconds:.0f}"
    yield f"operations           {run.changes.operations}: {_counts(run.changes.done())}"
    yield f"faults               {schedule.count.total()}: {_counts(schedule.count)}"
    yield f"  not possible       {schedule.impossible}"
    yield f"seconds with batches {len(BATCHES.findall(log))}"
    yield f"full comparisons     {len(FULL.findall(log))}"
    yield f"overflows            {log.count('overflowed')}"
    yield f"rsync starts         {starts.total()}: {_counts(starts)}"
    yield f"warnings, errors     {log.count('WARNING')}, {log.count('ERROR')}"
    yield f"worker states        {_counts(result.states)}"
    lags = sorted(markers.lags)
    median = f"{lags[len(lags) // 2] * 1000:.0f} ms" if lags else "none"
    yield f"markers              {markers.number}; median to a node without a fault {median}"
    published, seen = run.deployments.count, run.deployments.seen
    yield f"deployments          {published}, seen as {seen['versions']} versions in {seen['looks']} looks"
    yield f"longest lag          {markers.sound} without a fault, {markers.any} with"
    yield f"most changes behind  {result.behind}"
    failures = len(schedule.failures)
    yield f"isolation            {schedule.probes} probes, {failures} failures, longest {schedule.isolation}"
    yield f"after a killed master nothing was left after {run.testbed.longest_left:.1f} s at the longest"
    if result.looks:
        yield f"at the start         {result.looks[0]}"
        yield f"at the end           {result.looks[-1]}"
    if run.options.soak and len(result.looks) > 2:
        yield f"over time            {growth(result.looks)}"
    yield f"comparisons          {result.checks}"
    yield f"lost changes         {len(result.lost)}"
    yield from _failure(run)
    yield "PASSED" if result.good else "FAILED"


def growth(looks: Sequence[Figures]) -> str:
    """Say which figures of the daemon have grown, or "flat"."""
    first, middle, last = looks[0], looks[len(looks) // 2], looks[-1]
    grown = []
    for what in ("master_pss", "workers_pss"):
        before, after = getattr(middle, what), getattr(last, what)
        if after > before * GROWTH + SLACK:
            grown.append(f"{what} from {before / MEGABYTE:.1f} to {after / MEGABYTE:.1f} MB")
    for what in ("master_fds", "workers_fds", "children"):
        before, after = getattr(first, what), getattr(last, what)
        if after > before + FEW:
            grown.append(f"{what} from {before} to {after}")
    return f"grown: {'; '.join(grown)}" if grown else "flat"


def _failure(run: Run) -> Iterator[str]:
    result = run.result
    if result.good:
        return
    yield "the end of the log:"
    yield from (f"  {line}" for line in result.log.splitlines()[-LOG:])
    yield from run.changes.tail().splitlines()
    for node, tree, line in result.lost[:SHOWN]:
        yield f"different: {node}, {tree}: {line}"
    for line in result.wrong:
        yield f"wrong: {line}"


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.most_common()) or "none"
