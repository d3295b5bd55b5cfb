"""A site that is published, and a node that mirrors it, with everything between them but processes.

The watcher with the kernel's inotify, the journal, the dispatcher, and the books about the node and about a
batch are real; the node itself and rsync are played (``played_rsync``), and time is, but for that of files.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from unit.worker.played_rsync import DIRECTORY, Copy, Run, tree_at

from inosync.changes import Change, Kind, Lane, Rename, Step
from inosync.config.nodes import NodeSpec
from inosync.config.timetable import Timetable
from inosync.filters.rules import Rules
from inosync.guard.guard import Guard
from inosync.journal.journal import Journal
from inosync.journal.subscription import Subscription
from inosync.nodes.dispatch import Dispatcher
from inosync.nodes.messages import Batch, Compared, Done, Started, TooManyRemovals
from inosync.nodes.node import Node
from inosync.nodes.pace import Cost, Pace
from inosync.nodes.retries import Retry
from inosync.rsync.argv import TransferSettings
from inosync.rsync.outcome import Outcome, step_of_failed
from inosync.state.marks import Mark, Marks
from inosync.system import channel
from inosync.system.channel import Endpoint
from inosync.system.loop import Loop
from inosync.watch.hardlinks import HardLinks
from inosync.watch.tree import Since
from inosync.watch.watcher import FILE_CLOCK, Watcher
from inosync.worker.batch_run import BatchRun
from inosync.worker.lanes import Lanes
from inosync.worker.leftovers import packed
from inosync.worker.order import only_removes

TREE = 1
BIG_BYTES = 100
"""Larger files are for the second lane."""
RETRY_BOUNDS = (1.0, 4.0)
"""First and longest pause after a failure, in seconds."""
EVENTS = frozenset(("IN_CLOSE_WRITE", "IN_CREATE", "IN_DELETE", "IN_MOVED_FROM", "IN_MOVED_TO", "IN_ATTRIB"))
NOBODY = 99_999_999
"""A pid that there cannot be."""


def tick() -> None:
    """Wait for the next tick of the clock that the kernel takes ctimes from."""
    before = time.clock_gettime_ns(FILE_CLOCK)
    while time.clock_gettime_ns(FILE_CLOCK) == before:
        time.sleep(0.0005)


class Site:
    """What is published. Each operation is whole at the source after each of its steps."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.releases: dict[bytes, set[bytes]] = {}
        """What is in each release."""
        self.version = 0
        self.steps = 0
        """How many steps there have been."""
        self.under_way: dict[str, Iterator[None]] = {}
        self.has_changed = self.was_seen = False
        """Whether files have changed since the last tick, and whether their times have counted since."""
        for name in ("releases", "assets", "site"):
            (root / name).mkdir()
        for name in ("f", "g"):
            (root / "site" / name).write_text("0")
        for operation in ("release", "page"):
            self.begin(operation, 0)
            self.go_on(operation, 100)

    def begin(self, operation: str, kind: int) -> None:
        """Start an operation, if none of its kind is under way."""
        if operation not in self.under_way:
            steps = {"release": self._release, "page": self._page, "swap": self._swap, "other": self._other}
            self.version += 1
            self.under_way[operation] = steps[operation](self.version, kind)

    def go_on(self, operation: str, steps: int) -> None:
        """Go on with an operation."""
        if self.was_seen:
            tick()
        self.has_changed, self.was_seen = True, False
        for _ in range(steps):
            self.steps += 1
            if next(self.under_way.get(operation, iter(())), self) is self:
                self.under_way.pop(operation, None)
                return

    def see(self) -> None:
        """Their times are looked at: whatever changes later has another one."""
        if self.has_changed:
            tick()
        self.has_changed, self.was_seen = False, True

    def finish(self) -> None:
        """Finish all operations."""
        for operation in list(self.under_way):
            self.go_on(operation, 1000)

    def _release(self, version: int, kind: int) -> Iterator[None]:
        """Write a release, switch the link to it, and remove older ones.

        ``kind``: with a big file (1), with a link in it (2), written elsewhere and moved to its place (4).
        """
        place = self.root / "releases" / str(version)
        fresh = self.root / f"new{version}" if kind & 4 else place
        for directory in (fresh, fresh / "sub"):
            directory.mkdir()
            yield
        files = {"a": 1, "b": BIG_BYTES * 2 if kind & 1 else 2, "sub/c": 3}
        for name, size in files.items():
            (fresh / name).write_bytes(b"%d," % version * size)
            yield
        if kind & 2:
            (fresh / "link").symlink_to("sub/c")
            yield
        if fresh != place:
            fresh.rename(place)
            yield
        release = os.fsencode(f"releases/{version}")
        self.releases[release] = {release + b"/" + path for path in (b"a", b"b", b"sub/c")}
        (self.root / "fresh").symlink_to(os.fsdecode(release))
        yield
        (self.root / "fresh").replace(self.root / "current")
        yield
        for old in sorted(self.releases)[: -1 if kind & 8 else -2]:
            if old != release:
                yield from self._remove_release(self.root / os.fsdecode(old))
                del self.releases[old]

    def _remove_release(self, old: Path) -> Iterator[None]:
        for above, _, files in os.walk(old, topdown=False):
            for name in files:
                (Path(above) / name).unlink()
                yield
            os.rmdir(above)
            yield

    def _page(self, version: int, kind: int) -> Iterator[None]:
        """Write an asset, have the page name it, and remove older ones.

        ``kind``: the asset is moved to its place, too (1), at once without the older ones (2).
        """
        asset = self.root / f"assets/{version}"
        if kind & 16:
            (self.root / "fresh-asset").write_bytes(b"%d" % version)
            yield
            (self.root / "fresh-asset").rename(asset)
        else:
            asset.write_bytes(b"%d" % version)
        yield
        (self.root / "fresh-page").write_bytes(b"assets/%d" % version)
        yield
        (self.root / "fresh-page").replace(self.root / "page")
        yield
        assets = sorted(int(name) for name in os.listdir(self.root / "assets"))
        for old in assets[: -1 if kind & 2 else -2]:
            (self.root / f"assets/{old}").unlink()
            yield

    def _swap(self, version: int, _kind: int) -> Iterator[None]:
        """Put another directory into the place of one."""
        fresh, old = self.root / "site.new", self.root / "site.old"
        fresh.mkdir()
        yield
        for name in ("f", "g"):
            (fresh / name).write_bytes(b"%d" % version)
            yield
        (self.root / "site").rename(old)
        fresh.rename(self.root / "site")
        yield
        yield from self._remove_release(old)

    def _other(self, version: int, kind: int) -> Iterator[None]:
        """Change what nothing leads to."""
        path = self.root / f"other{kind % 4}"
        if kind & 4 and path.exists():
            path.unlink()
        else:
            path.write_bytes(b"%d" % version)
        yield


def problems(copy: Copy, site: Site) -> list[str]:
    """Return what is not whole on the node."""
    found = []
    kind, target = copy.entries.get(b"current", DIRECTORY)
    if kind != "link":
        found.append("no link")
    elif lacking := {path for path in site.releases.get(target, {target}) if path not in copy.entries}:
        found.append(f"current leads to {target!r}, which lacks {sorted(lacking)}")
    page = copy.entries.get(b"page", DIRECTORY)
    if page[0] != "file" or page[1] not in copy.entries:
        found.append(f"the page names {page[1]!r}, which is not there")
    found += [f"site lacks {name!r}" for name in (b"site/f", b"site/g") if name not in copy.entries]
    return found


class Dead:
    """A process as the node sees it when it has ended."""

    pid = NOBODY
    exitcode = -9

    def join(self) -> None:
        """It has ended."""


class Recorded:
    """The watcher's listener: the journal."""

    def __init__(self, journal: Journal, walked: Callable[[], None]) -> None:
        self.record, self.gone, self.renamed = journal.record, journal.gone, self._renamed
        self._walked = walked

    def _renamed(self, _tree: int, _rename: Rename) -> None:
        """Hints decide how much is sent, and not in which order."""

    def directory_left(self, _tree: int, _path: bytes) -> None:
        """Any number may be removed."""

    def walked(self, _tree: int, _now: float) -> None:
        """The tree is watched, and what has changed is not known."""
        self._walked()

    def caught_up(self, _tree: int, _now: float) -> None:
        """The tree is watched, and what has changed was recorded."""

    refiltered = caught_up

    def lost(self, _tree: int, why: str) -> None:
        raise AssertionError(why)


class World:
    """The site, the daemon and the node."""

    def __init__(self) -> None:
        shm = "/dev/shm"
        self.home = Path(tempfile.mkdtemp(prefix="arrival-", dir=shm if os.path.isdir(shm) else None))
        self.root = self.home / "tree"
        for name in ("tree", "spool"):
            (self.home / name).mkdir()
        self.now = 1_000.0
        self.site = Site(self.root)
        self.copy = Copy(tree_at(os.fsencode(self.root)))
        self.log: list[str] = []
        self.is_late = False
        """Whether rsync sends files when its generator is through (``Run.is_late``)."""
        self.is_coarse = False
        """Whether the last changes were read within the tick in which they were made."""
        self.full_began = 0
        """How many steps of the site there had been when the last full mirror began."""
        self.margin = 0.01
        """How much older than the moment of a change the time may be that a file gets, in seconds."""
        self.is_in_full = False
        """Whether a full mirror has shown what was published meanwhile, and that is not all there yet."""
        self.loop = Loop(lambda: self.now)
        self.endpoints: list[Endpoint] = []
        self._start(None)
        self.read()
        self.node.skip_to(self.journal.head)
        self.node.retries.forget_tree(TREE)

    def _start(self, since: Since | None) -> None:
        """Start a daemon; ``since``: when the one before it knew all that the node has."""
        self.journal, self.marks = Journal(), Marks()
        self.watcher = Watcher(HardLinks(Recorded(self.journal, self.resync), self.clock), self.clock)
        self.watcher.roots.add(TREE, str(self.root), EVENTS, lambda _path, _is_directory: False, since=since)
        spec = NodeSpec("n:", "n", Timetable(((0, 0),)), (), (), 300.0)
        self.node = Node(spec, 0, self, self.loop, lambda: 0.0, RETRY_BOUNDS)
        self.node.subscribe(Subscription({TREE: Rules(())}, frozenset(), everything=True))
        guard = SimpleNamespace(
            halted={},
            generation=0,
            check=lambda _tree: True,
            source=lambda _tree, _full: None,
            allowance=lambda _tree, _cursor: None,
        )
        nodes = {"n": self.node}
        self.dispatch = Dispatcher(
            nodes, self.journal, str(self.home / "spool"), Pace(2, 10.0), self.loop, cast(Guard, guard)
        )
        self.running: dict[Lane, Iterator[None]] = {}
        """What the worker does, by lane."""
        self.lanes = Lanes()
        self.node.worker.start()
        self.put(Started(NOBODY))

    def close(self) -> None:
        self.watcher.close()
        for endpoint in self.endpoints:
            endpoint.close()
        shutil.rmtree(self.home)

    def clock(self) -> float:
        return self.now

    # What the node asks for --------------------------------------------------------------------------

    def fork_worker(self, _node: Node) -> tuple[ForkProcess, Endpoint]:
        ours, self.worker = channel.pair()
        self.endpoints += [ours, self.worker]
        return cast(ForkProcess, Dead()), ours

    def offer_batch(self, node: Node) -> None:
        self.dispatch.offer_batch(node)

    def batch_finished(self, node: Node, batch: Batch, cost: Cost | None = None) -> None:
        self.dispatch.finish_batch(node, batch, cost)

    def worker_died(self, _node: Node) -> None:
        pass

    worker_stopped = try_failed = slot_requested = node_returned = worker_died

    def big_file_advanced(self) -> None:
        pass

    def tree_held(self, _node: Node, tree: int) -> None:
        raise AssertionError(tree)

    def removals_counted(self, report: TooManyRemovals) -> None:
        raise AssertionError(report)

    def tree_compared(self, _node: Node, _report: Compared) -> None:
        pass

    # The master --------------------------------------------------------------------------------------

    def read(self) -> None:
        """Read all events, and have the changes sent."""
        self.site.see()
        began = time.time()
        for _ in range(1000):
            if not self.watcher.read() and self.watcher.is_idle:
                break
            self.watcher.work(0.01)
        else:
            raise AssertionError("the watcher never comes to rest")
        at = self.watcher.caught_up_at
        if self.is_coarse:
            at = min(at, max(os.lstat(path).st_ctime_ns for path in (self.root, *self.root.rglob("*"))))
        self.journal.set_complete(at)
        self.dispatch.journal_complete()
        self.marks.add(Mark(self.journal.head, began))
        self.dispatch.release_changes()
        self._take_orders()

    def wait(self, seconds: float) -> None:
        """Let time pass, and what is due in it happen."""
        end = self.now + seconds
        for _ in range(1000):
            if self.loop.next_timer > end:
                break
            self.now = max(self.now, self.loop.next_timer)
            self.loop.turn(0)
            self._take_orders()
        self.now = end
        if self.now >= self.watcher.deadline():
            self.watcher.run_due()

    def resync(self) -> None:
        """Have all of the tree compared."""
        self.node.retry(Change(TREE, b"", Kind.TREE), self.now)
        self.dispatch.offer_batch(self.node)
        self._take_orders()

    def restart(self, down: Callable[[], None]) -> None:
        """End the daemon at once, and start another one that knows what was kept; ``down`` happens meanwhile.

        What is kept passes through the file, which does not hold everything that the daemon knew.
        """
        self.log.append("restarted")
        node, mark = self.node, self.marks.at(self.node.cursor)
        is_known = mark is not None and node.cursor >= self.journal.floor
        after = int((mark.wall - self.margin) * 1e9) if mark is not None and is_known else None
        owed = {
            Change(change.tree, change.path, change.kind, change.ignore_times, Step.UNKNOWN): Retry(
                retry.attempt, self.now, retry.since
            )
            for change, retry in node.retries.items()
        }
        self.watcher.close()
        down()
        status = os.stat(self.root)
        devices = frozenset((status.st_dev,))
        self._start(None if after is None else Since(after, (status.st_dev, status.st_ino), devices))
        if after is not None:
            self.node.take_over(owed, "", self.now, hooks_lost=True)

    # The worker --------------------------------------------------------------------------------------

    def put(self, report: Started | Done) -> None:
        """The worker says something, and the node hears it."""
        self.worker.put(report)
        while self.node.read_report():
            pass

    def kill_worker(self) -> None:
        """Have the worker end, and another one start."""
        self.log.append("killed")
        self.running.clear()
        self.lanes = Lanes()
        self.node.collect_worker()
        self.wait(self.node.worker.state.wake_at - self.now)
        self.put(Started(NOBODY))
        self._take_orders()

    def _take_orders(self) -> None:
        with contextlib.suppress(channel.QueueError):
            while (order := self.worker.get()) is not None:
                if isinstance(order, Batch):
                    self.log.append(f"batch {order.id} in lane {order.lane}")
                    self.running[order.lane] = self._send(order)

    def work(self, lane: Lane, steps: int) -> None:
        """Let the worker do so many steps in a lane."""
        for _ in range(steps):
            run = self.running.get(lane)
            if run is None:
                return
            try:
                next(run)
            except StopIteration:
                self._take_orders()
            found = problems(self.copy, self.site)
            self.is_in_full = bool(found) and (self.is_in_full or self._is_full_mirroring())
            if found and not self.is_in_full:
                raise AssertionError("\n".join([*self.log[-60:], *found]))

    def _is_full_mirroring(self) -> bool:
        """Whether a full mirror runs that may show what is published meanwhile."""
        outstanding = self.node.outstanding
        return outstanding is not None and outstanding.batch.full and self.site.steps > self.full_began

    def _send(self, batch: Batch) -> Iterator[None]:
        self.site.see()
        run = BatchRun(batch, self.now, str(self.home / f"copies-{batch.id}"))
        settings = TransferSettings("rsync", str(self.root), "n:")
        while run.parts:
            other = self.lanes.other(batch.lane, TREE)
            big_size = 0 if run.part.full else BIG_BYTES
            if not run.prepare_part(settings, Rules(()), big_size, other):
                run.skip_part()
                continue
            self.lanes.begin(batch.lane, run.part, run.names)
            yield  # rsync connects
            self.site.see()
            run.leave_newer(str(self.root))
            transfers = self.lanes.transfers
            if run.part.step is Step.UNKNOWN and batch.lane is Lane.FIRST:
                self._answer(run)
                self.lanes.end(batch.lane)
                yield
                continue
            outcome = yield from self._transfer(run)
            self.lanes.end(batch.lane)
            if batch.lane is Lane.SECOND and self.lanes.transfers != transfers:
                run.look_at_directories()
            run.came_through(outcome, 23 if outcome.due else 0)
        payload, file = packed(run.results.leftovers(), str(self.home / f"spool/due-{batch.id}"))
        run.remove_copies()
        del self.running[batch.lane]
        left = {
            kind: [each for part in parts for each in part.names]
            for kind, parts in zip(
                ("due", "outdated", "big", "waiting", "later", "behind"),
                run.results.leftovers().all(),
                strict=True,
            )
            if parts
        }
        self.log.append(f"batch {batch.id} is done, and leaves {left}")
        results, cut_off = run.results, run.interrupted
        self.put(Done(batch.id, 0.1, results.code, results.worry, payload, file, cut_off=cut_off))

    def _answer(self, run: BatchRun) -> None:
        """The node says what it lacks."""
        tree = self.tree()
        names = tree if run.part.full else run.names
        lacking = [path for path in names if path in tree and path not in self.copy.entries]
        self.log.append(f"lacks {lacking}")
        if run.part.full:
            self.full_began = self.site.steps
        run.take_answer({path: tree[path][0] == "link" for path in lacking}, True, str(self.root), BIG_BYTES)
        if (run.part.full and run.part.step is Step.NEW) or any(self.copy.failing.values()):
            self.full_began = -1  # what is big, or fails, is not waited for

    def _transfer(self, run: BatchRun) -> Generator[None, None, Outcome]:
        part, lane = run.part, run.batch.lane
        source = run.frozen_source or str(self.root)
        max_size = BIG_BYTES if lane is Lane.FIRST and not part.full else 0
        names = [*run.names, *(b"%b/" % path for path in self._directories())] if part.full else run.names
        rsync = Run(os.fsencode(source), self.copy, tuple(names), max_size, only_removes(part))
        rsync.only_adds = part.full and part.step is Step.NEW
        rsync.is_late, rsync.removes_last = self.is_late, part.full
        how = f"{part.step.name}{' of copies' if run.frozen_source else ''}"
        self.log.append(f"lane {lane} {how} {list(run.names)}")
        yield from rsync.steps()
        if not rsync.failed:
            return Outcome()
        self.log.append(f"failed: {list(rsync.failed)}")
        step, names = step_of_failed(part), tuple(rsync.failed)
        due = replace(part, full=False, names=names, step=step, renames=())
        return Outcome(reason="no", due=(due,))

    def _directories(self) -> list[bytes]:
        return [path for path, entry in self.tree().items() if entry == DIRECTORY]

    # The end -----------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Let all that is under way come to its end."""
        self.is_coarse = False
        self.copy.failing.clear()
        self.site.finish()
        for _ in range(100):
            self.read()
            for lane in Lane:
                self.work(lane, 10_000)
            if not self.running and self.tree() == self.copy.entries and not self.node.retries.count:
                return
            self.site.has_changed = True
            self.wait(RETRY_BOUNDS[0])
        owed = [(change.wire, retry) for change, retry in self.node.retries.items()]
        tree = self.tree()
        apart = {p for p in tree.keys() | self.copy.entries.keys() if tree.get(p) != self.copy.entries.get(p)}
        raise AssertionError("\n".join([*self.log[-60:], f"never level: {apart}, {owed}"]))

    def tree(self) -> dict[bytes, tuple[str, bytes]]:
        return tree_at(os.fsencode(self.root))
