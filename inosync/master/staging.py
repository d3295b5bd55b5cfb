"""Roll-outs in stages: tells ``RollOut`` how far the nodes are, runs the checks, sends what has passed."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from inosync.changes import Change, Kind
from inosync.config.hook import OnStage
from inosync.filters.rules import Rules
from inosync.journal.journal import Journal
from inosync.master.trees import TreeTable
from inosync.master.worker_pool import WorkerPool
from inosync.nodes.lifecycle import Phase
from inosync.nodes.node import Node
from inosync.nodes.roll_out import RollOut
from inosync.nodes.stages import NOTHING, GiveUp, Plan, Standing, StartCheck
from inosync.system.loop import Timer, call_by
from inosync.text import plural
from inosync.watch.watcher import Watcher
from inosync.worker import hook_run
from inosync.worker.hook_run import HookRun
from inosync.worker.hooks import MAX_NAMES

log = logging.getLogger(__name__)

MIN_PAUSE_SECONDS = 0.02
"""The shortest time between two looks at all nodes."""
COST_FACTOR = 20
"""Looking may take a twentieth of the time."""


@dataclass(slots=True)
class Staging:
    """Without stages in the configuration it does nothing."""

    pool: WorkerPool
    journal: Journal
    watcher: Watcher
    table: TreeTable
    directory: str
    """Where the names are left that a check is about."""
    _on_stage: OnStage = field(default_factory=OnStage)
    _only: Rules | None = None
    """Hides what is checked; None: everything is."""
    _runs: dict[int, tuple[StartCheck, HookRun]] = field(default_factory=dict)
    """The checks that run, by their stages."""
    _answers: dict[tuple[int, int, int], bool] = field(default_factory=dict)
    """Whether what is new between two positions needs a check, while the journal has this head."""
    _answered_at: int = -1
    _file_count: int = 0
    _next_at: float = -math.inf
    """When the nodes are looked at again at the earliest, by the clock."""
    _timer: Timer | None = None
    """Looks at them then, or when time alone changes something."""
    _judged: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The batches that are known to have nothing too new in them, and the journal's head then, by node."""

    @property
    def roll_out(self) -> RollOut:
        return self.pool.dispatch.roll_out

    def configure(self, stages: tuple[tuple[str, ...], ...], on_stage: OnStage | None) -> None:
        """Follow a configuration: the names of the nodes by stages, and what decides between them."""
        before = self.roll_out.plan
        self._on_stage = on_stage or OnStage()
        self._only = Rules(self._on_stage.only) if self._on_stage.only else None
        is_checked = self._on_stage.hook is not None
        plan = Plan(stages, is_checked, self._on_stage.settle, self._on_stage.patience)
        is_other = (plan.stages, plan.is_checked) != (before.stages, before.is_checked)
        if is_other:
            runs, self._runs = self._runs, {}
            for _, run in runs.values():
                run.kill()
        self._answers.clear()
        self.roll_out.follow(plan)
        if is_other:
            self._send_on()  # a node may have no limit any more

    def advance(self) -> None:
        """Look at the nodes. To be called in each turn of the loop."""
        now = self.pool.loop.clock()
        if not self.roll_out.is_staged or self.pool.is_stopping:
            return
        if now < self._next_at:
            self._look_at(self._next_at)
            return
        standing = {name: self._standing(node) for name, node in self.pool.nodes.items()}
        before = self.roll_out.limits
        for action in self.roll_out.advance(standing, self._needs_check, now):
            match action:
                case StartCheck():
                    self._start(action)
                case GiveUp(stage, names):
                    who = ", ".join(names)
                    log.warning(
                        "stage %d: %s: not waited for any more: the others are enough", stage + 1, who
                    )
        if self.roll_out.limits != before:
            self._send_on()
        clock = self.pool.loop.clock
        self._next_at = clock() + max(MIN_PAUSE_SECONDS, COST_FACTOR * (clock() - now))
        if (wake_at := self.roll_out.wake_at) < math.inf:
            self._look_at(max(wake_at, self._next_at))

    def _look_at(self, when: float) -> None:
        """Look at the nodes at a time, if not earlier."""
        self._timer = call_by(self.pool.loop, when, self.advance, self._timer)

    def _standing(self, node: Node) -> Standing:
        """Return how far a node is: up to its cursor, or to what it is owed apart from the journal."""
        confirmed, oldest = node.cursor, node.retries.oldest
        if not self.watcher.incomplete_trees.isdisjoint(node.trees):
            confirmed = NOTHING  # what has changed there is not recorded yet
        elif oldest is not None:
            confirmed = min(confirmed, self.journal.recorded_before(oldest))
        return Standing(confirmed, node.paused)

    def _send_on(self) -> None:
        for node in self.pool.nodes.values():
            self.pool.dispatch.offer_batch(node)
        self.pool.publisher.publish_soon()

    def take_back(self) -> None:
        """Take back what workers would try again with something too new in it. To be called each second."""
        if self.pool.is_stopping:
            return
        for name, limit in self.roll_out.limits.items():
            node = self.pool.nodes.get(name)
            if node is None or node.worker.state.phase is not Phase.WAITING or node.outstanding is None:
                continue
            sent, state = node.outstanding, (node.outstanding.batch.id, self.journal.head)
            if limit >= self.journal.head or self._judged.get(name) == state:
                continue
            self._judged[name] = state
            if not all(self.journal.is_settled(one, limit) for one in sent.changes(node.trees)):
                log.debug("%s: taken back: something of its batch has changed again", name)
                self.pool.replace_worker(node)

    # Checks ------------------------------------------------------------------------------------------

    def _needs_check(self, after: int, upto: int) -> bool:
        """Return whether any of ``only`` is new, which takes time, and is asked again and again."""
        if self._only is None:
            return True
        question = after, upto, self.journal.head
        if question not in self._answers:
            if self.journal.head != self._answered_at:
                self._answers, self._answered_at = {}, self.journal.head
            new = self._new(after, upto)
            only = self._only
            self._answers[question] = new is None or any(
                one.kind is not Kind.NAME or only.hides(one.path) for one in new
            )
        return self._answers[question]

    def _new(self, after: int, upto: int) -> list[Change] | None:
        """Return what was recorded between two positions, and not since; None: it may be anything."""
        if after < max(self.journal.unknown_at, self.journal.floor):
            return None
        changes = self.journal.since(after, upto)
        return None if changes is None else [*changes, *self.journal.unsettled(after, upto)]

    def _start(self, check: StartCheck) -> None:
        assert self._on_stage.hook is not None
        number, names = check.stage, self._names(check)
        self._file_count += 1
        path = os.path.join(self.directory, f"stage-{os.getpid()}-{self._file_count}")
        facts: Mapping[str, Any] = {
            "event": "stage",
            "stage": number + 1,
            "nodes": "\n".join(check.nodes),
            **hook_run.tell_names(names, path),
        }
        title = f"inosync: stage {number + 1} [on_stage]"
        what = "anything may be new" if names is None else plural(len(names), "name")
        log.info("stage %d is checked: %s", number + 1, what)
        done = partial(self._ended, check)
        try:
            self._runs[number] = check, HookRun(self._on_stage.hook, facts, title, self.pool.loop, done)
        except OSError as error:
            what = f"{error.filename}: " if error.filename else ""
            self._judge(number, f"cannot be started: {what}{error.strerror}")
        self.pool.publisher.publish_soon()

    def _names(self, check: StartCheck) -> list[bytes] | None:
        """Return what is new in a stage, as paths; None: anything may be."""
        new = self._new(check.after, check.position)
        if new is None or len(new) > MAX_NAMES or any(one.kind is Kind.TREE for one in new):
            return None
        sent = {self.pool.nodes[name].subscription for name in check.nodes}
        concerning = [one for one in new if any(kind.concerns(one) for kind in sent)]
        return [os.path.join(os.fsencode(self.table.wpath(one.tree)), one.wire) for one in concerning]

    def _ended(self, check: StartCheck, failure: str) -> None:
        if check.stage in self._runs and self._runs[check.stage][0] is check:
            del self._runs[check.stage]
            self._judge(check.stage, failure)

    def _judge(self, number: int, failure: str) -> None:
        before = self.roll_out.limits
        self.roll_out.checked(number, f"on_stage {failure}" if failure else "")
        if failure:
            until = "later stages are held until a later change passes, inosync -s accept, or -s retry"
            log.error("stage %d was not let pass: on_stage %s; %s", number + 1, failure, until)
        else:
            log.info("stage %d has passed its check", number + 1)
        if self.roll_out.limits != before:
            self._send_on()
        self.pool.publisher.publish_soon()
        self._next_at = -math.inf

    # The operator ------------------------------------------------------------------------------------

    def accept(self) -> list[int]:
        """Let go on what checks have refused; return of which stages, from 1 on."""
        stages = self.roll_out.accept()
        for number in stages:
            log.warning("stage %d: what was not let pass is accepted, and goes on", number)
        if stages:
            self._send_on()
        return stages

    def retry(self) -> list[int]:
        """Check again what was refused; return of which stages, from 1 on."""
        stages = self.roll_out.retry()
        for number in stages:
            log.info("stage %d is checked again, as was asked for", number)
        self._next_at = -math.inf
        return stages

    def close(self) -> None:
        """End what runs."""
        for _, run in self._runs.values():
            run.kill()

    def descriptors(self) -> list[int]:
        """What a forked child has to close."""
        return [fd for _, run in self._runs.values() for fd in run.descriptors()]
