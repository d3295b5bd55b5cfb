"""How a daemon is put together: every part is made here, once, from the bottom up."""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from inosync.config.load import Config, load
from inosync.console import protocol
from inosync.console.control import Control, Reply
from inosync.guard.guard import Guard
from inosync.journal.debounce import Debounce
from inosync.journal.journal import Journal
from inosync.master.commands import Commands
from inosync.master.config_reader import ConfigReader
from inosync.master.flush import Flushes
from inosync.master.hold import Hold
from inosync.master.master import Master
from inosync.master.metrics_process import MetricsProcess
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


class FleetPart(Protocol):
    """What a daemon of a fleet does for it, as the origin or as a sender."""

    def descriptors(self) -> list[int]:
        """What a forked child has to close."""

    def keeps_after(self) -> float:
        """Return the position after which changes are still needed by other machines."""

    def turn(self) -> None:
        """To be called in each turn of the loop."""

    def tick(self) -> None:
        """To be called every second or so."""

    def finish(self) -> None:
        """The daemon ends."""


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
    watcher: Watcher
    events: TreeEvents
    reloader: Reloader
    commands: Commands

    config = adapted(config, once)
    me = config.sender
    keeps_state = bool(past.path)
    clock, rand, loop = time.monotonic, random.random, Loop()
    manager = ServiceManager(notify, loop)
    signals = Signals((signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2))
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # see open_files.is_being_written

    # From the kernel to the nodes
    nodes: dict[str, Node] = {}
    table, journal = TreeTable(), Journal()
    guard = Guard(
        lambda tree: watcher.roots.check(tree),
        lambda tree: watcher.roots.identity(tree),
        config.edelay,
        config.guards,
        lambda tree, why: events.halted(tree, why),
        clock,
    )
    pace = Pace(len(os.sched_getaffinity(0)), config.edelay)
    dispatch = Dispatcher(nodes, journal, directory, pace, loop, guard)
    verification = Verification(
        nodes,
        journal,
        guard,
        dispatch,
        lambda node: states.state_of(node) is NodeState.OK,
        table.wpath,
        loop,
        rand,
    )
    resume = Resume(past.state, past.why, config, clock)
    saved_fleet = resume.fleet()
    events = TreeEvents(
        nodes,
        table,
        guard,
        journal,
        dispatch,
        verification,
        resume,
        clock,
        lambda: publisher.publish_soon(),
        is_shared=config.is_origin,
        is_copy=bool(me),
    )
    watcher = Watcher(HardLinks(events, clock), clock, rand, lambda: inherited())
    trees = Trees(table, watcher.roots, guard, journal, roots_only=bool(me))
    pacing = Pacing(journal, dispatch, watcher, Debounce(config.equiet, config.edelay), clock)

    # A fleet, if there is one
    fleet: list[FleetPart] = []
    far, orders, fleet_state = None, None, None
    if config.fleet is not None:  # without one, nothing of it is in the memory of each process
        from inosync.fleet import copies
        from inosync.fleet.link import Link
        from inosync.master import fleet_wiring
        from inosync.master.fleet_origin import FleetOrigin
        from inosync.master.fleet_sender import FleetSender
        from inosync.master.fleet_state import FleetState
        from inosync.master.fleet_tasks import SenderTasks
        from inosync.master.held_nodes import HeldNodes
        from inosync.master.sender_copies import SenderCopies
        from inosync.status.far_nodes import FarNodes

        link = Link(config.fleet.redis, loop, lambda: inherited())
    if config.fleet is not None and not me:
        orders = fleet_wiring.fleet_orders(config.fleet, loop, past.state)
        sender_copies = SenderCopies(
            nodes,
            tuple(node.name for node in config.fleet.shared),
            journal,
            watcher,
            guard,
            dispatch.offer_batch,
            clock,
            lambda: copies.proof(tree.wpath for tree in reloader.config.trees),
        )
        origin = FleetOrigin(
            config.fleet,
            config.path,
            sender_copies,
            journal,
            watcher,
            lambda why: commands.stop(why),
            link,
            loop,
            orders,
        )
        fleet.append(origin)
        fleet_state = FleetState(origin, saved_fleet)
        fleet_state.go_on()
        far = FarNodes(config.fleet.senders, config.fleet.nodes, origin, journal, config.edelay, loop)

    # What is known about the nodes
    saved_nodes = past.state.nodes if past.state is not None else {}
    node_events = NodeEvents({name: node.events for name, node in saved_nodes.items()})
    logging.getLogger("inosync").addHandler(node_events)
    state_log = StateLog(config.on_state, clock)
    states = NodeStates(nodes, dispatch, watcher, guard, config.edelay, clock)
    name = protocol.instance(config.path, me) if me else os.path.basename(config.path)
    elsewhere = tuple if far is None else far.all
    publisher = StatePublisher(name, states, state_log, dispatch.backlog, watcher.coverage, loop, elsewhere)
    reloads = Reloads(config.path)
    snapshots = SnapshotBuilder(states, dispatch.backlog, watcher, guard, reloads, clock, far)

    # The workers
    def job(node: Node) -> Job:
        return make_job(node, reloader.config, table, directory)

    def inherited() -> list[int]:
        parts = (watcher, signals, loop, control, metrics, manager, pool, writer, staging)
        found = [fd for part in parts for fd in part.descriptors()]
        return found + [fd for part in fleet for fd in part.descriptors()]

    pool = WorkerPool(nodes, dispatch, guard, verification, publisher, job, inherited, directory, loop)
    watchdog = Watchdog(clock, rand)
    staging = Staging(pool, journal, watcher, table, directory)

    if config.fleet is not None and me:
        roots = tuple(tree.wpath for tree in config.trees)
        add = fleet_wiring.node_adder(config, table, pool)
        describe = fleet_wiring.node_teller(snapshots)
        tasks = SenderTasks(nodes, lambda: commands)
        holdings = HeldNodes(pool, add, lambda: verification.configure(reloader.config.rdelete))
        sender = FleetSender(
            config.fleet,
            roots,
            pool,
            holdings,
            journal,
            guard,
            describe,
            fleet_wiring.event_teller(config.fleet, node_events),
            link,
            loop,
            tasks,
        )
        fleet.append(sender)

    # The operator
    flushes = Flushes(
        os.path.join(directory, "marks"),
        nodes,
        watcher,
        journal,
        pacing.release,
        loop,
        dispatch.roll_out.is_stuck,
        elsewhere,
    )
    flushes.watch_directory()
    ending = Once(nodes, watcher, dispatch, flushes, states, snapshots) if once else None

    def configure(new: Config) -> None:
        dispatch.set_slots(new.rslots)
        states.set_max_lag(new.edelay)
        watcher.set_poll_interval(max(6 * new.edelay, 1.0))
        guard.configure(new.guards, new.edelay, new.max_removals)
        pacing.configure(new.equiet, new.edelay)
        pace.set_longest(new.edelay)
        state_log.set_hook(new.on_state)
        state_log.forget_all_but(nodes.values())
        node_events.forget_all_but(nodes)
        staging.configure(new.rstages, new.on_stage)
        verification.configure(new.rdelete)
        metrics.serve(new.rlisten)

    def read(path: str) -> Config:
        return adapted(load(path, me), once)

    def restore(node: Node) -> None:
        if saved_fleet is not None:  # what was open at the time is in the journal already
            node.skip_to(journal.start)
        resume.restore(node, table.numbers)

    reader = ConfigReader(read, inherited, loop)
    reloader = Reloader(config, reader.read, log_to, trees, pool, configure, reloads, restore, manager, loop)
    hold = Hold(pool, flushes)
    commands = Commands(pool, verification, manager, hold, staging, ending)
    handler = RequestHandler(commands, reloader, events, snapshots, flushes, node_events, far, orders)
    socket = protocol.socket_path(config.rundir, config.path, me)

    def serve(message: Message, reply: Reply) -> None:
        handler.handle(message, reply)
        if keeps_state:
            keeper.keep_orders()

    control = Control(socket, loop, serve)
    metrics = MetricsProcess(
        lambda client: control.attach(client, handler.tell_status), loop, inherited, rand
    )

    writer = StateWriter(past.path, loop, inherited)
    keeper = StateKeeper(
        nodes,
        journal,
        watcher,
        guard,
        table,
        resume,
        node_events,
        lambda: reloader.config,
        writer,
        loop,
        lambda: dispatch.held_until,
        fleet_state,
    )
    hold.restore(past.state, time.time())

    if fleet_state is not None:
        fleet_state.origin.meet()
    if keeps_state:  # now, because forking takes longer once there is much to copy
        writer.start()
    for tree in config.trees:
        since = resume.judge(tree, watcher.mounts.known)
        if config.fleet is not None and me:
            fleet_wiring.prepare_copy(config.fleet, tree)
        wait = not os.path.isdir(tree.wpath) and (bool(me) or config.waits_for(tree))
        trees.add(tree, config, wait, since)
    resume.restore_memory(guard, table.numbers)
    if fleet_state is not None:
        fleet_state.record_unclosed(table.numbers, clock())

    def drop_confirmed() -> None:
        cursors = [node.cursor for node in nodes.values()]
        if cursors or config.fleet is not None:
            needed = (*cursors, verification.cursor, *(part.keeps_after() for part in fleet))
            journal.drop_confirmed(int(min(needed)))

    each_tick = (
        drop_confirmed,
        hold.stop_retries,
        staging.take_back,
        verification.start_if_due,
        events.resume_recovered,
        lambda: watchdog.check_workers(pool.alive()),
        control.restore_socket,
        publisher.publish_soon,
        reloader.check_files,
        *([keeper.keep] if keeps_state else []),
        *(part.tick for part in fleet),
    )
    closing = (
        *(part.finish for part in fleet),
        *([keeper.finish] if keeps_state else []),
        staging.close,
        watcher.close,
        metrics.end,
        control.close,
        manager.close,
    )
    return Master(
        loop,
        signals,
        watcher,
        events,
        pacing,
        pool,
        staging,
        flushes,
        publisher,
        reloader,
        commands,
        manager,
        ending,
        each_tick,
        closing,
        [part.turn for part in fleet],
    )


def adapted(config: Config, once: bool) -> Config:
    """A configuration as it is followed, with ``--once`` or without, and by a sender."""
    if config.sender:
        config = replace(config, equiet=0.0)  # the origin has gathered them already
    if not once:
        return config
    nodes = tuple(replace(node, rwarm=0, rverify=0.0) for node in config.nodes)
    return replace(config, nodes=nodes, rlisten=None)
