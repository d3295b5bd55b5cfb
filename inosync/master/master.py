"""The master: one thread, one loop, and nothing in it waits for a node.

Its one duty that never waits is emptying the kernel's event queue. Everything else happens between reads.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.context import ForkProcess
from typing import Any

from inosync.config.diff import diff
from inosync.config.errors import ConfigError, ConfigProblem
from inosync.config.file_monitor import FileMonitor
from inosync.config.hook import Place
from inosync.config.load import Config, load
from inosync.config.nodes import NodeSpec
from inosync.console import protocol
from inosync.console.control import Control
from inosync.guard.guard import Guard
from inosync.journal import debounce
from inosync.journal.journal import Journal
from inosync.journal.subscription import subscriptions
from inosync.master.flush import Flushes
from inosync.master.metrics_process import Listener
from inosync.master.once import Once
from inosync.master.requests import RequestHandler
from inosync.master.trees import Trees
from inosync.master.verification import Verification
from inosync.messages import Change, Compared, Kind, NodeState
from inosync.nodes.dispatch import Dispatcher
from inosync.nodes.lifecycle import Phase
from inosync.nodes.node import Node
from inosync.nodes.watchdog import Watchdog
from inosync.status.publisher import StatePublisher
from inosync.status.snapshot import Reloads, SnapshotBuilder
from inosync.status.state import NodeStates
from inosync.status.transitions import StateLog
from inosync.system import channel, process, spool
from inosync.system import log as logs
from inosync.system.channel import Endpoint
from inosync.system.loop import Loop
from inosync.system.signals import Signals
from inosync.system.systemd import ServiceManager
from inosync.watch.hardlinks import HardLinks
from inosync.watch.watcher import Watcher
from inosync.worker import worker

log = logging.getLogger(__name__)

SLICE = 0.01
"""Seconds of walking between two reads of the kernel's queue."""
DRAIN = 0.1
"""Seconds that the kernel's queue is read without a look at anything else."""
TICK = 1.0
"""Seconds between looks at what no event tells."""
REREAD = 5.0
"""Seconds between two tries to read a configuration whose files of patterns have changed."""
STOP = 3.0
"""Seconds, beyond those that they give to what they run, after which workers that do not end are killed."""
LEAVE = 2.0
"""Seconds after which a killed worker is not waited for at the end: one that hangs in the kernel may stay."""


class Master:
    """A configuration at work. OSError if something cannot be watched.

    ``log_to`` directs the log as a configuration wants; ``pretend`` takes the lines of calls not made.
    ``manager`` is who has started us as a service. ``once``: end when everything was mirrored.
    """

    def __init__(
        self,
        settings: Config,
        spool: str,
        log_to: Callable[[Config], None],
        pretend: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        manager: ServiceManager | None = None,
        once: bool = False,
    ) -> None:
        self.config = settings
        self._manager = ServiceManager() if manager is None else manager
        self._log_to = log_to
        self._pretend = pretend
        self._clock = clock
        self._spool = spool
        self._journal = Journal()
        self._pace = debounce.start(settings.equiet, settings.edelay)
        self._seen = 0
        """The journal's head when the pace was last told."""
        self._loop = Loop(clock)
        self._signals = Signals(
            (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
        )
        self._loop.on_readable(self._signals, self._signalled)
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # see open_files.is_being_written
        self._watcher = Watcher(HardLinks(self, clock), clock)
        self._loop.on_readable(self._watcher, self._drain)
        self._guard = Guard(self._watcher, settings.edelay, settings.guards, self._halted, clock)
        self._trees = Trees(self._watcher, self._guard)
        self._dispatch = Dispatcher(
            self._journal,
            spool,
            settings.rslots,
            self._loop,
            self._guard,
        )
        self._nodes: dict[str, Node] = {}
        self._leaving: set[Node] = set()
        """Nodes whose workers are to end; those of ``_nodes`` among them get another one."""
        self._watchdog = Watchdog(clock, random.random)
        self._stop_by: float | None = None
        self._lookout = FileMonitor(settings.pattern_files)
        self._tops: set[int] = set()
        """Trees in whose roots something has gone."""
        self._reread_at = float("inf")
        """When a reload that was refused, and that nobody had asked for, is tried again."""
        self._state_log = StateLog(settings.on_state if pretend is None else None, clock)
        self._states = NodeStates(
            self._nodes, self._dispatch, self._watcher, self._guard, settings.edelay, clock
        )
        name = os.path.basename(settings.path)
        self._publisher = StatePublisher(
            name, self._states, self._state_log, self._dispatch.backlog, self._watcher, self._loop
        )
        self._verification = Verification(
            self._nodes,
            self._journal,
            self._guard,
            self._dispatch,
            lambda node: pretend is None and self._states.state_of(node) is NodeState.OK,
            self._trees.wpath,
            self.offer_batch,
            self.at,
            clock,
            random.random,
        )
        self._reloads = Reloads(settings.path)
        self._snapshots = SnapshotBuilder(
            self._states, self._dispatch.backlog, self._watcher, self._guard, self._reloads, clock
        )
        self._flushes = Flushes(
            os.path.join(spool, "marks"), self._nodes, self._watcher, self._dispatch, self._hasten, clock
        )
        self._once: Once | None = None
        if once:
            parts = self._watcher, self._dispatch, self._flushes, self._states, self._snapshots
            self._once = Once(self._nodes, *parts)
        desk = RequestHandler(self, self._nodes, self._snapshots, self._flushes, clock)
        path = protocol.socket_path(settings.rundir, settings.path)
        self._control = Control(path, self._loop, clock, desk.handle)
        self._listener = Listener(path, self._loop, self.at, self._descriptors, clock, random.random)
        self._watcher.set_poll_interval(_rounds(settings))
        for tree in settings.trees:
            self._trees.add(tree, settings, wait=not os.path.isdir(tree.wpath) and settings.waits_for(tree))
        self._views = subscriptions(settings.nodes, settings.trees, self._trees.numbers)

    # The loop ----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Mirror until SIGTERM or SIGINT."""
        for spec in self.config.nodes:
            self._add_node(spec)
        if self._once is None:
            self._verification.plan(self.config.rdelete)
        if self._pretend is None and self._once is None:
            self._listener.serve(self.config.rlisten)
        self._tick()
        while self._stop_by is None or self._waits():
            self._turn()
        for node in self._alive():
            log.error("%s: its worker hangs in the kernel, and ends when it wakes", node.name)
            process.abandon(node.worker.process)
        self._watcher.close()
        self._listener.end()
        self._control.close()
        self._manager.close()

    @property
    def outcome(self) -> dict[str, Any]:
        """With ``once``, what is told of the nodes at the end."""
        return {} if self._once is None else self._once.outcome

    def _turn(self) -> None:
        self._loop.turn(self._timeout())
        now = self._clock()
        if now >= self._watcher.deadline():
            self._watcher.run_due()
        self._watcher.work(SLICE)
        self._drain()
        self._release()
        self._flushes.look()
        if self._once is not None and self._stop_by is None and self._once.look():
            hook = self.config.on_sync
            self.stop("everything was mirrored, once", worker.GRACE if hook is None else hook.timeout)
        if now >= self._control.deadline:
            self._control.tend()
        self._tell_manager()
        if self._stop_by is not None and now >= self._stop_by:
            for node in self._alive():
                node.kill_worker()

    def _tell_manager(self) -> None:
        if not self._watcher.incomplete_trees:
            self._manager.ready()
        self._manager.status(self._publisher.summary)
        if self._clock() >= self._manager.deadline:
            self._manager.tend()

    def _timeout(self) -> float:
        if not self._watcher.is_idle:
            return 0.0
        now = self._clock()
        times = [self._watcher.deadline()]
        due = debounce.due(self._pace)
        if due is not None:
            times.append(due)
        times += [self._control.deadline, self._flushes.deadline, self._manager.deadline]
        return max(min(times) - now, 0.0)

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call back at that time of the clock."""
        self._loop.call_at(when, call)

    def _drain(self) -> None:
        # Not without an end: somebody may make events faster than they are read.
        until = self._clock() + DRAIN
        while self._watcher.read() and self._clock() < until:
            pass
        for tree in self._tops:
            # A full mirror that runs deletes what it finds to be gone; the next batch may be long in coming.
            if any(node.is_full_mirroring(tree) for node in self._nodes.values()):
                self._guard.check(tree)
        self._tops.clear()

    def _release(self) -> None:
        """Hand out what has been quiet for long enough."""
        now = self._clock()
        if self._journal.head != self._seen:
            self._seen = self._journal.head
            self._pace = debounce.changed(self._pace, now)
        due = debounce.due(self._pace)
        if due is None or now < due:
            return
        if (
            self._watcher.is_walking
            and self._pace.first is not None
            and now < self._pace.first + self._pace.max_delay
        ):
            return  # what is being walked belongs to the same change
        self._hasten()

    def _hasten(self) -> None:
        """Hand out what there is."""
        self._seen = self._journal.head
        self._pace = debounce.release(self._pace, self._clock())
        self._dispatch.release_changes()
        for node in self._nodes.values():
            self._dispatch.offer_batch(node)

    def _tick(self) -> None:
        """What no event tells: time passing."""
        self.at(self._clock() + TICK, self._tick)
        if self._nodes:
            cursors = [node.cursor for node in self._nodes.values()]
            self._journal.drop_confirmed(int(min(*cursors, self._verification.cursor)))
            self._verification.look()
        self._go_on(self._guard.recovered())
        self._watchdog.check_workers(self._alive())
        self._control.look()
        self._publisher.publish_soon()
        if changed := self._lookout.changed():
            log.info("changed: %s: the configuration is read again", ", ".join(changed))
            self.reload()
            self._reread_at = self._clock() + REREAD if self._reloads.refused else float("inf")
        elif self._clock() >= self._reread_at:
            # What kept the change from taking effect may lie elsewhere, and be over.
            self._reread_at = self._clock() + REREAD
            self.reload(quiet=True)

    # What the watcher tells --------------------------------------------------------------------------

    def record(self, change: Change, now: float) -> None:
        """A path may differ."""
        self._journal.record(change, now)
        if change.tree in self._guard.halted:
            self._guard.touched(change.tree)
        if log.isEnabledFor(logging.DEBUG):
            path = os.path.join(os.fsencode(self._trees.wpath(change.tree)), change.path)
            log.debug("changed (%s): %s", change.kind.name.lower(), os.fsdecode(path))

    def gone(self, tree: int, path: bytes, now: float) -> None:
        """What was at a path is not there any more."""
        self._journal.gone(tree, path, now)
        if b"/" not in path:
            self._tops.add(tree)
        if tree in self._guard.halted:
            self._guard.touched(tree)
        log.debug("gone: tree %d %r", tree, path)

    def walked(self, tree: int, now: float) -> None:
        """A tree is watched as a whole: every node is compared with it, from here on."""
        log.info("%s: %d directories are watched", self._trees.wpath(tree), len(self._watcher))
        self._trees.uncompared(tree)
        if self._guard.root_found(tree):
            self._compare(tree, self._nodes, now)

    def refiltered(self, tree: int, now: float) -> None:
        """Other rules of a tree are in force: the nodes for which that matters are compared with it."""
        log.info("%s: other rules are in force", self._trees.wpath(tree))
        self._compare(tree, self._trees.uncompared(tree), now)

    def _compare(self, tree: int, names: Iterable[str], now: float) -> None:
        for node in [self._nodes[name] for name in names if name in self._nodes]:
            if tree in node.trees:
                node.retry(Change(tree, b"", Kind.TREE), now)
                self._dispatch.offer_batch(node)
        self._verification.touched(tree)

    def lost(self, tree: int, why: str) -> None:
        """The root of a tree is not what it was: nothing is mirrored from it until it is back."""
        log.error("%s; nothing of it is mirrored until the directory is back", why)
        self._guard.root_lost(tree, why)
        self._stop_sending(tree)

    # The guard ---------------------------------------------------------------------------------------

    def _halted(self, tree: int, why: str) -> None:
        """The guard has found a loss that must not be mirrored."""
        meant = f"kill -USR2 {os.getpid()}, or rguard = False"
        log.error("%s; nothing of it is mirrored until its files are back. If this is meant: %s", why, meant)
        self._stop_sending(tree)

    def _stop_sending(self, tree: int) -> None:
        now = self._clock()
        for node in self._nodes.values():
            if tree in node.trees:
                # What was on its way, or is recorded meanwhile, counts for nothing.
                node.retry(Change(tree, b"", Kind.TREE), now)
                node.halt_tree(tree)
        self._verification.touched(tree)
        self._publisher.publish_soon()

    def _go_on(self, trees: Iterable[int]) -> None:
        for tree in trees:
            log.info("%s: mirroring goes on, all of it is compared", self._trees.wpath(tree))
            self._compare(tree, self._nodes, self._clock())
        self._publisher.publish_soon()

    def accept(self) -> list[str]:
        """What the guard halted is meant: mirror it as it is, deletions included; the wpaths."""
        accepted = list(self._guard.accept_loss())
        for tree in accepted:
            log.warning("%s: what it is now is accepted, and mirrored", self._trees.wpath(tree))
        for why in self._guard.halted.values():
            log.warning("%s: that cannot be accepted: make the directory, or take it out of wpaths", why)
        if not (accepted or self._guard.halted):
            log.info("nothing is halted: there is nothing to accept")
        self._go_on(accepted)
        return [self._trees.wpath(tree) for tree in accepted]

    def tree_held(self, node: Node, tree: int) -> None:
        """A worker did not send something of a tree, since its root was not what it had to be."""
        log.debug("%s: held back: %s", node.name, self._trees.wpath(tree))
        self._guard.send_refused(tree)

    # What the nodes ask for --------------------------------------------------------------------------

    def offer_batch(self, node: Node) -> None:
        """A node can take a batch."""
        if self._stop_by is None and node not in self._leaving:
            self._dispatch.offer_batch(node)
        self._publisher.publish_soon()

    def batch_finished(self, node: Node, file: str) -> None:
        """A node needs a batch no longer."""
        self._dispatch.finish_batch(node, file)

    def try_failed(self, node: Node) -> None:
        """A node's worker waits for its next try."""
        self._dispatch.release_slot(node)
        self._publisher.publish_node(node)
        self._publisher.publish_soon()

    def slot_requested(self, node: Node) -> None:
        """A node's worker waits for a slot for its next try."""
        self._dispatch.request_slot(node)
        self._publisher.publish_soon()

    def tree_compared(self, node: Node, report: Compared) -> None:
        """A node's worker has compared a tree."""
        self._verification.compared(node, report)

    def fork_worker(self, node: Node) -> tuple[ForkProcess, Endpoint]:
        """Start a worker, and listen to it."""
        ours, theirs = channel.pair()
        job = self._job(node)
        inherited = self._descriptors() + ours.descriptors()
        master = os.getpid()
        child = process.fork(lambda: worker.run(job, theirs, master, inherited), node.name)
        theirs.close()
        self._loop.on_readable(ours, node.read_report)
        self._loop.on_readable(child.sentinel, node.collect_worker)
        log.debug("%s: worker started, pid %d", node.name, child.pid or 0)
        return child, ours

    def worker_died(self, node: Node) -> None:
        """A worker is dead."""
        self._dispatch.forget_node(node)
        self._verification.gone(node)
        if node.worker.process is not None and node.worker.queue is not None:
            self._loop.drop(node.worker.process.sentinel)
            self._loop.drop(node.worker.queue)
            spool.sweep(self._spool, node.worker.process.pid or 0)
        if self._nodes.get(node.name) is node:
            self._publisher.publish_node(node)
        self._publisher.publish_soon()

    def worker_stopped(self, node: Node) -> None:
        """A worker that was told to end has ended."""
        self._leaving.discard(node)
        if self._nodes.get(node.name) is node and self._stop_by is None:
            self.at(self._clock(), lambda: self._revive(node))
        for waiting in self._nodes.values():
            if waiting is not node and waiting.worker.process is None and self._stop_by is None:
                self._start(waiting)  # no more than a look at the clock, if it waits for that

    def _revive(self, node: Node) -> None:
        # Meanwhile it may have been told to leave again, or all of us.
        if self._nodes.get(node.name) is node and self._stop_by is None:
            node.worker.allow_restart()
            self._start(node)

    def _descriptors(self) -> list[int]:
        mine = [*self._watcher.descriptors(), *self._signals.descriptors(), *self._loop.descriptors()]
        mine += [*self._control.descriptors(), *self._listener.descriptors(), *self._manager.descriptors()]
        for node in (*self._nodes.values(), *self._leaving):
            if node.worker.queue is not None:
                mine += node.worker.queue.descriptors()
        return mine

    def _job(self, node: Node) -> worker.Job:
        spec = node.spec
        places = [(self._trees.numbers[tree.wpath], tree) for tree in filter(spec.gets, self.config.trees)]
        trees = {number: self.config.rsync_settings(spec, tree) for number, tree in places}
        return worker.Job(
            name=spec.name,
            node=spec.node,
            trees=trees,
            rules=self._views[spec.name].rules,
            rspeed=spec.rspeed,
            excluded={number: self._trees.excluded[number] for number in trees},
            timeout=spec.rtimeout,
            retry=self.config.rretry,
            warm=spec.rwarm and not node.paused and self._once is None,
            spool=self._spool,
            places={number: Place(tree.wpath, tree.rpath) for number, tree in places},
            on_sync=self.config.on_sync if self._pretend is None else None,
            on_state=self.config.on_state,
            hooks_lost=node.hooks_lost,
            pretend=self._pretend,
        )

    # Trees and nodes ---------------------------------------------------------------------------------

    def _remove_tree(self, wpath: str) -> None:
        number = self._trees.remove(wpath)
        self._journal.drop_tree(number)
        for node in self._nodes.values():
            node.forget_tree(number)

    def _add_node(self, spec: NodeSpec) -> Node:
        node = Node(spec, self._journal.head, self, self._loop, random.random, self.config.rretry)
        node.subscribe(self._views[spec.name])
        self._nodes[spec.name] = node
        self._start(node)
        return node

    def _start(self, node: Node) -> None:
        """Start its worker; but not while another one may still be writing to the same place."""
        if not any(left.place == node.spec.node for left in self._leaving - {node}):
            node.start_worker()

    # Signals -----------------------------------------------------------------------------------------

    def _signalled(self) -> None:
        for number in self._signals.caught():
            match number:
                case signal.SIGHUP:
                    self.reload()
                case signal.SIGUSR1:
                    self.reopen()
                case signal.SIGUSR2:
                    self.accept()
                case _:
                    self.stop(signal.Signals(number).name)

    def reopen(self) -> None:
        """Open the log file anew: it was rotated away."""
        logs.reopen()
        log.info("log file reopened")

    def stop(self, why: str, grace: float = worker.GRACE) -> None:
        """End: what runs gets ``grace`` seconds, then everything is gone."""
        if self._stop_by is not None:
            return
        log.info("%s: stopping", why)
        if self._once is not None:
            self._once.conclude()
        self._stop_by = self._clock() + grace + STOP
        self._manager.stopping(grace + STOP + 2 * LEAVE)
        for node in self._alive():
            node.stop_worker(grace)
        self.at(self._stop_by, lambda: None)
        self._publisher.publish_soon()

    def _waits(self) -> bool:
        """Whether there are workers that can still end before we do."""
        too_late = self._clock() - LEAVE
        return any(
            node.worker.killed_at is None or node.worker.killed_at > too_late for node in self._alive()
        )

    def _alive(self) -> list[Node]:
        return [node for node in {*self._nodes.values(), *self._leaving} if node.worker.process is not None]

    # One node ----------------------------------------------------------------------------------------

    def resync(self, node: Node) -> None:
        """Compare a node in full, at once, and send it what differs."""
        log.info("%s: all of it is compared, as was asked for", node.name)
        now = self._clock()
        for tree in node.trees:
            node.retry(Change(tree, b"", Kind.TREE), now)
        if node.worker.state.phase in (Phase.WAITING, Phase.AWAY) and self._stop_by is None:
            self._let_go(node)  # another worker does not wait for the time of the next try
        else:
            self.offer_batch(node)

    def verify(self, node: Node) -> None:
        """Compare a node in full when it is ok, beside what it is sent."""
        log.info("%s: is verified, as was asked for", node.name)
        self._verification.ask(node.name)

    def pause(self, node: Node) -> None:
        """Send a node nothing, and connect to it no more. What runs has a moment to finish."""
        if not node.paused and self._stop_by is None:
            log.info("%s: paused", node.name)
            node.set_paused(True)
            self._let_go(node)

    def resume(self, node: Node) -> None:
        """Send it again what it lacks."""
        if node.paused and self._stop_by is None:
            log.info("%s: resumed", node.name)
            node.set_paused(False)
            self._let_go(node)

    # The configuration -------------------------------------------------------------------------------

    def reload(self, quiet: bool = False) -> Sequence[str]:
        """Read the configuration file again, and follow what is different; a bad one changes nothing.

        Returns why it was refused; nothing if it was not.

        ``quiet``: do not tell again what was wrong with it the last time.
        """
        if self._stop_by is not None:
            return ("inosync is stopping",)
        if quiet:  # nobody has asked for it
            return self._reload(quiet)
        with self._manager.reloading():
            return self._reload(quiet)

    def _reload(self, quiet: bool) -> Sequence[str]:
        before = self._reloads.refused
        refused: Sequence[str] = ()
        try:
            new = load(self.config.path)
            if new.ruser != self.config.ruser:
                when = "another user takes effect only when inosync is started again"
                raise ConfigError(ConfigProblem(new.path, when, setting="ruser"))
            self._log_to(new)  # nothing of what follows can fail
        except ConfigError as error:
            refused = tuple(map(str, error.problems))
        except OSError as error:
            refused = (f"logfile: {error}",)
        self._reloads.refused = refused
        if not refused:
            self._follow(new)
            self._reloads.succeeded_at = self._clock()
        elif not quiet or refused != before:
            for mistake in refused:
                log.error("%s", mistake)
            log.error("%s was not reloaded: the old configuration stays in force", self.config.path)
        return refused

    def _follow(self, new: Config) -> None:
        old, changes = self.config, diff(self.config, new)
        trees = {tree.wpath: tree for tree in new.trees}
        for wpath in changes.trees_removed:  # first: a tree may have moved to above another
            self._remove_tree(wpath)
        self.config, self._lookout = new, FileMonitor(new.pattern_files)
        self._reread_at = float("inf")
        for wpath in changes.trees_added:
            self._trees.add(trees[wpath], new, wait=True)
        for wpath, refilter in changes.refilter.items():
            self._trees.refilter(trees[wpath], new, refilter)
        self._trees.cross(new)
        numbers = self._trees.numbers
        self._views = subscriptions(new.nodes, new.trees, numbers)
        self._retune(old, new)
        for name in changes.nodes_removed:
            self._let_go(self._nodes.pop(name))
        specs = {spec.name: spec for spec in new.nodes}
        anywhere = (wpath for wpath, refilter in changes.refilter.items() if refilter.places is None)
        walked = {*changes.trees_added, *anywhere}  # mirrored in full once they are
        for node in self._nodes.values():
            node.follow_config(specs[node.name], self._views[node.name], new.rretry)
        for name in changes.nodes_changed:
            self._change_node(self._nodes[name], set(changes.full[name]) - walked)
        for name in changes.nodes_added:
            added = self._add_node(specs[name])
            for number in set(added.trees) - {numbers[wpath] for wpath in walked}:
                added.retry(Change(number, b"", Kind.TREE), self._clock())
        self._state_log.set_hook(new.on_state if self._pretend is None else None)
        self._state_log.forget_all_but(self._nodes.values())
        self._guard.check_unknown()
        self._verification.plan(new.rdelete)
        counts = (len(changes.nodes_added), len(changes.nodes_removed), len(changes.nodes_changed))
        log.info("%s reloaded: nodes: %d added, %d removed, %d changed", new.path, *counts)

    def _retune(self, old: Config, new: Config) -> None:
        for warning in new.warnings:
            log.warning("%s", warning)
        if new.rundir != old.rundir:
            log.warning("rundir: %s takes effect when inosync is started again", new.rundir)
        if new.emask != old.emask:
            self._trees.retune(new)
        if self._pretend is None:
            self._listener.serve(new.rlisten)
        self._dispatch.set_slots(new.rslots)
        self._guard.patience = new.edelay
        self._states.set_max_lag(new.edelay)
        self._watcher.set_poll_interval(_rounds(new))
        self._guard.set_enabled(new.guards)
        self._pace = debounce.reconfigured(self._pace, new.equiet, new.edelay)

    def _let_go(self, node: Node) -> None:
        self._dispatch.forget_node(node)
        self._leaving.add(node)
        node.stop_worker(worker.GRACE)
        if node.worker.process is None:
            self.worker_stopped(node)

    def _change_node(self, node: Node, full: set[str]) -> None:
        """Give a node a worker that knows better; it keeps its place but for the trees in ``full``."""
        for wpath in full:
            node.retry(Change(self._trees.numbers[wpath], b"", Kind.TREE), self._clock())
        self._let_go(node)


def _rounds(settings: Config) -> float:
    """Seconds between two looks at what cannot be watched."""
    return max(6 * settings.edelay, 1.0)
