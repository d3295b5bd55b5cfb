"""How a daemon is put together: every part is made here, once, from the bottom up."""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from inosync.config.load import Config, load
from inosync.console import protocol
from inosync.console.control import Control, Reply
from inosync.guard.guard import Guard
from inosync.journal.debounce import Debounce
from inosync.journal.journal import Journal
from inosync.master.commands import Commands
from inosync.master.config_reader import ConfigReader
from inosync.master.flush import Flushes
from inosync.master.groups import (
    Calls,
    FleetRole,
    Given,
    HasDescriptors,
    Operator,
    Status,
    System,
    Watching,
    Workers,
)
from inosync.master.hold import Hold
from inosync.master.master import Master
from inosync.master.metrics_process import MetricsProcess
from inosync.master.mirror import Mirror
from inosync.master.once import Once
from inosync.master.pacing import Pacing
from inosync.master.reload import Reloader
from inosync.master.requests import Message, RequestHandler
from inosync.master.resume import Resume
from inosync.master.staging import Staging
from inosync.master.state_keeper import StateKeeper
from inosync.master.tree_events import TreeEvents
from inosync.master.trees import Trees, TreeTable
from inosync.master.verification import Verification
from inosync.master.worker_pool import WorkerPool, make_job
from inosync.nodes.dispatch import Dispatcher
from inosync.nodes.node import Node
from inosync.nodes.pace import Pace
from inosync.nodes.watchdog import Watchdog
from inosync.state.store import Past
from inosync.state.writer import StateWriter
from inosync.status.events import NodeEvents
from inosync.status.publisher import StatePublisher
from inosync.status.snapshot import Reloads, SnapshotBuilder
from inosync.status.state import NodeStates
from inosync.status.transitions import StateLog
from inosync.system.loop import Loop
from inosync.system.signals import Signals
from inosync.system.systemd import NotifyTarget, ServiceManager
from inosync.text import NodeState
from inosync.watch.hardlinks import HardLinks
from inosync.watch.watcher import Watcher
from inosync.worker.job import Job

if TYPE_CHECKING:  # loaded where there is a fleet
    from inosync.status.far_nodes import FarNodes


def make_master(
    config: Config,
    directory: str,
    past: Past,
    log_to: Callable[[Config], None],
    notify: NotifyTarget,
    once: bool,
) -> Master:
    """A daemon for a configuration. OSError if something cannot be watched.

    ``directory``: for batches and marks. ``log_to`` directs the log as a configuration wants.
    ``once``: it ends when everything was mirrored.
    ``past``: what an earlier process has left, and where this one leaves the same.
    """
    # Parts made below, which some that are made before call when something happens.
    status: Status
    operator: Operator
    with_descriptors: list[HasDescriptors]

    def inherited() -> list[int]:
        return [fd for part in with_descriptors for fd in part.descriptors()]

    config = adapted(config, once)
    system = _system(notify)
    given = Given(config, lambda: operator.reloader.config, directory, past, system, inherited)
    watching = _watching(
        given,
        is_ok=lambda node: status.states.state_of(node) is NodeState.OK,
        publish_soon=lambda: status.publisher.publish_soon(),
    )
    origin, fleet = None, list[FleetRole]()
    if config.fleet is not None:  # without one, nothing of it is in the memory of each process
        from inosync.master import fleet_wiring
    if config.is_origin:
        origin = fleet_wiring.make_origin(given, watching, lambda why: operator.commands.stop(why))
        fleet.append(origin.origin)
    far = None if origin is None else origin.far
    status = _status(given, watching, far)
    workers = _workers(given, watching, status)
    if config.sender:
        sender = fleet_wiring.make_sender(given, watching, status, workers.pool, lambda: operator.commands)
        fleet.append(sender)

    # What is kept over a restart
    writer = StateWriter(past.path, system.loop, inherited)
    keeper = StateKeeper(
        watching.mirror,
        watching.watcher,
        watching.resume,
        status.events,
        given.in_force,
        writer,
        None if origin is None else origin.state,
    )
    keeps_state = bool(past.path)

    # The operator
    flushes = _flushes(given, watching, far)
    ending = (
        Once(watching.mirror, watching.watcher, flushes, status.states, status.snapshots) if once else None
    )
    hold = Hold(workers.pool, flushes)
    commands = Commands(workers.pool, watching.verification, system.manager, hold, workers.staging, ending)

    def serve(message: Message, reply: Reply) -> None:
        handler.handle(message, reply)
        if keeps_state:
            keeper.keep_orders()

    control = Control(protocol.socket_path(config.rundir, config.path, config.sender), system.loop, serve)
    metrics = MetricsProcess(
        lambda client: control.attach(client, handler.tell_status), system.loop, inherited, random.random
    )
    reloader = Reloader(
        config,
        ConfigReader(lambda path: adapted(load(path, config.sender), once), inherited, system.loop).read,
        log_to,
        watching.trees,
        workers.pool,
        _configurer(watching, status, workers.staging, metrics),
        status.reloads,
        _restorer(watching),
        system.manager,
    )
    handler = RequestHandler(commands, reloader, watching.events, status.snapshots, status.events, origin)
    operator = Operator(flushes, reloader, commands, control, metrics, ending)
    with_descriptors = [watching.watcher, system.signals, system.loop, control, metrics, system.manager]
    with_descriptors += [workers.pool, writer, workers.staging, *fleet]

    hold.restore(past.state, time.time())
    if origin is not None:
        origin.origin.meet()
    if keeps_state:  # now, because forking takes longer once there is much to copy
        writer.start()
    _begin_watching(given, watching)
    if origin is not None:
        origin.state.record_unclosed(watching.mirror.table.numbers, given.clock())
    calls = _calls(given, watching, workers, operator, keeper if keeps_state else None, fleet)
    return Master(system, watching, workers, operator, status.publisher, calls)


def _system(notify: NotifyTarget) -> System:
    loop = Loop()
    manager = ServiceManager(notify, loop)
    signals = Signals((signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2))
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # see open_files.is_being_written
    return System(loop, signals, manager)


def _watching(given: Given, is_ok: Callable[[Node], bool], publish_soon: Callable[[], None]) -> Watching:
    """From the kernel to the nodes. ``is_ok`` and ``publish_soon`` ask what is known about the nodes."""
    watcher: Watcher
    events: TreeEvents
    config, loop = given.config, given.loop
    nodes: dict[str, Node] = {}
    table, journal = TreeTable(), Journal()
    guard = Guard(
        lambda tree: watcher.roots.check(tree),
        lambda tree: watcher.roots.identity(tree),
        config.edelay,
        config.guards,
        lambda tree, why: events.halted(tree, why),
        loop.clock,
    )
    pace = Pace(len(os.sched_getaffinity(0)), config.edelay)
    dispatch = Dispatcher(nodes, journal, given.directory, pace, loop, guard)
    mirror = Mirror(nodes, table, journal, guard, dispatch, loop)
    verification = Verification(mirror, is_ok, random.random)
    resume = Resume(given.past.state, given.past.why, config, loop.clock)
    is_copy = bool(config.sender)
    events = TreeEvents(
        mirror, verification, resume, publish_soon, is_shared=config.is_origin, is_copy=is_copy
    )
    watcher = Watcher(HardLinks(events, loop.clock), loop.clock, random.random, given.inherited)
    trees = Trees(table, watcher.roots, guard, journal, roots_only=is_copy)
    pacing = Pacing(journal, dispatch, watcher, Debounce(config.equiet, config.edelay), loop.clock)
    return Watching(mirror, watcher, events, trees, pacing, pace, verification, resume)


def _status(given: Given, watching: Watching, far: FarNodes | None) -> Status:
    """What is known about the nodes. ``far``: those that other machines serve."""
    config, mirror, past = given.config, watching.mirror, given.past.state
    saved_nodes = past.nodes if past is not None else {}
    events = NodeEvents({name: node.events for name, node in saved_nodes.items()})
    logging.getLogger("inosync").addHandler(events)
    log = StateLog(config.on_state, given.clock)
    states = NodeStates(
        mirror.nodes, mirror.dispatch, watching.watcher, mirror.guard, config.edelay, given.clock
    )
    name = os.path.basename(config.path)
    name = protocol.instance(config.path, config.sender) if config.sender else name
    publisher = StatePublisher(name, states, log, given.loop, tuple if far is None else far.all)
    reloads = Reloads(config.path)
    snapshots = SnapshotBuilder(states, reloads, given.clock, far)
    return Status(events, log, states, publisher, reloads, snapshots)


def _workers(given: Given, watching: Watching, status: Status) -> Workers:
    mirror, directory = watching.mirror, given.directory

    def job(node: Node) -> Job:
        return make_job(node, given.in_force(), mirror.table, directory)

    pool = WorkerPool(mirror, watching.verification, status.publisher, job, given.inherited, directory)
    return Workers(pool, Staging(pool, mirror.journal, watching.watcher, mirror.table, directory))


def _flushes(given: Given, watching: Watching, far: FarNodes | None) -> Flushes:
    marks = os.path.join(given.directory, "marks")
    elsewhere = tuple if far is None else far.all
    flushes = Flushes(marks, watching.mirror, watching.watcher, watching.pacing.release, elsewhere)
    flushes.watch_directory()
    return flushes


def _configurer(
    watching: Watching, status: Status, staging: Staging, metrics: MetricsProcess
) -> Callable[[Config], None]:
    """Return what has all parts follow a configuration."""
    mirror = watching.mirror

    def configure(new: Config) -> None:
        mirror.dispatch.set_slots(new.rslots)
        status.states.set_max_lag(new.edelay)
        watching.watcher.set_poll_interval(max(6 * new.edelay, 1.0))
        mirror.guard.configure(new.guards, new.edelay, new.max_removals)
        watching.pacing.configure(new.equiet, new.edelay)
        watching.pace.set_longest(new.edelay)
        status.log.set_hook(new.on_state)
        status.log.forget_all_but(mirror.nodes.values())
        status.events.forget_all_but(mirror.nodes)
        staging.configure(new.rstages, new.on_stage)
        watching.verification.configure(new.rdelete)
        metrics.serve(new.rlisten)

    return configure


def _restorer(watching: Watching) -> Callable[[Node], None]:
    """Return what gives a node that this process begins with what an earlier one has known of it."""
    mirror, resume = watching.mirror, watching.resume
    goes_on = resume.fleet() is not None

    def restore(node: Node) -> None:
        if goes_on:  # what was open at the time is in the journal already
            node.skip_to(mirror.journal.start)
        resume.restore(node, mirror.table.numbers)

    return restore


def _begin_watching(given: Given, watching: Watching) -> None:
    """Watch all trees. OSError if one cannot be watched."""
    config, resume = given.config, watching.resume
    for tree in config.trees:
        since = resume.judge(tree, watching.watcher.mounts.known)
        if config.fleet is not None and config.sender:
            from inosync.master import fleet_wiring

            fleet_wiring.prepare_copy(config.fleet, tree)
        wait = not os.path.isdir(tree.wpath) and (bool(config.sender) or config.waits_for(tree))
        watching.trees.add(tree, config, wait, since)
    resume.restore_memory(watching.mirror.guard, watching.mirror.table.numbers)


def forget_confirmed(watching: Watching, fleet: Sequence[FleetRole]) -> None:
    """Have the journal drop what no node, no comparison and no other machine needs."""
    journal, cursors = watching.mirror.journal, [node.cursor for node in watching.mirror.nodes.values()]
    if cursors or fleet:
        needed = (*cursors, watching.verification.cursor, *(role.keeps_after() for role in fleet))
        journal.drop_confirmed(int(min(needed)))


def _calls(
    given: Given,
    watching: Watching,
    workers: Workers,
    operator: Operator,
    keeper: StateKeeper | None,
    fleet: Sequence[FleetRole],
) -> Calls:
    """What the loop calls now and then. ``keeper``: None if nothing is kept over a restart."""
    pool, watchdog = workers.pool, Watchdog(given.clock, random.random)
    return Calls(
        each_turn=[role.turn for role in fleet],
        each_second=(
            lambda: forget_confirmed(watching, fleet),
            operator.commands.hold.stop_retries,
            workers.staging.take_back,
            watching.verification.start_if_due,
            watching.events.resume_recovered,
            lambda: watchdog.check_workers(pool.alive()),
            operator.control.restore_socket,
            pool.publisher.publish_soon,
            operator.reloader.check_files,
            *([] if keeper is None else [keeper.keep]),
            *(role.tick for role in fleet),
        ),
        at_end=(
            *(role.finish for role in fleet),
            *([] if keeper is None else [keeper.finish]),
            workers.staging.close,
            watching.watcher.close,
            operator.metrics.end,
            operator.control.close,
            given.system.manager.close,
        ),
    )


def adapted(config: Config, once: bool) -> Config:
    """A configuration as it is followed, with ``--once`` or without, and by a sender."""
    if config.sender:
        config = replace(config, equiet=0.0)  # the origin has gathered them already
    if not once:
        return config
    nodes = tuple(replace(node, rwarm=0, rverify=0.0) for node in config.nodes)
    return replace(config, nodes=nodes, rlisten=None)
