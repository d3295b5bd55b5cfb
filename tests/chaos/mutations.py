"""The code is broken on purpose in one place at a time, and the suite must turn red for each.

    python tests/chaos/mutations.py [-l] [WORD ...]

copies the checkout to a temporary directory for each mutation with a WORD in its name, by default all, breaks
it, and runs the tests that should notice. First these tests must be green without a mutation. Prints a table;
the exit code is 1 if a mutation survives or no longer applies. ``-l`` only lists them.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
NEEDED = ("inosync", "tests", "bin", "conf", "setup.cfg", "pyproject.toml", "README.rst", "CHANGES.rst")
"""The files of the checkout that the tests need, if they exist."""
FAILED = 1
"""pytest's exit code for failed tests; greater codes mean that they could not run."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """``old`` occurs in ``file`` exactly once; with ``new`` in its place, one of ``tests`` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """Return the broken text; raise ValueError if the mutation does not apply."""
        count = text.count(self.old)
        if count != 1:
            raise ValueError(f"{self.name}: in {self.file} {count} times: {self.old!r}")
        return text.replace(self.old, self.new)


ARRIVAL = ("tests/unit/worker/test_arrival_model.py",)
FLEET = ("tests/unit/fleet/test_fleet_model.py",)
ORIGIN = ("tests/unit/master/test_fleet_origin.py",)
ROUNDS = ("tests/unit/fleet/test_rounds.py::test_round_that_waits_ends_when_something_arrives",)
STORE = ("tests/unit/fleet/test_store.py",)
SENDER = ("tests/unit/master/test_fleet_sender.py",)
ORDERS = (
    "tests/unit/fleet/test_orders_model.py",
    "tests/unit/master/test_fleet_orders.py",
    "tests/unit/master/test_fleet_tasks.py",
)
NODE = ("tests/unit/nodes/test_node.py",)
KEEPER = ("tests/unit/master/test_state_keeper.py",)
JOURNAL = ("tests/unit/journal/test_journal.py",)
WATCHER = ("tests/unit/watch/test_watcher.py",)
NAMES = ("tests/unit/rsync/test_names.py",)
STAGES = ("tests/unit/nodes/test_stages.py",)
STAGING = ("tests/unit/master/test_staging.py",)
FAULTS = "tests/system/test_failures.py"
LOST = "tests/system/test_lost_roots.py"
HOOKS = "tests/system/test_hooks.py"
STEERING = "tests/system/test_control_commands.py"
UNWATCHED = "tests/system/test_unwatched.py"

MUTATIONS = (
    # The order of arrival
    Mutation(
        "restart: nodes that lack old files have a time",
        "inosync/master/state_keeper.py",
        "            self._marks.cut()\n",
        "            pass\n",
        KEEPER,
    ),
    Mutation(
        "restart: a resumed node that lacks old files has the time of the state",
        "inosync/master/state_keeper.py",
        "node.is_resumed and not self._marks.were_cut",
        "node.is_resumed",
        KEEPER,
    ),
    Mutation(
        "restart: nodes that were taken over are verified as late as others",
        "inosync/master/verification.py",
        "new = schedule.resumed(new, now, rand)",
        "pass",
        ("tests/unit/master/test_verification.py",),
    ),
    Mutation(
        "restart: a snapshot in the place of a subvolume is the same root",
        "inosync/state/facts.py",
        "    if fs_type not in _SUBVOLUMES:\n",
        "    if fs_type:\n",
        ("tests/unit/state/test_facts.py",),
    ),
    Mutation(
        "arrival: links go with the new names",
        "inosync/worker/order.py",
        "    if wire in current.links:\n        return Step.SWITCHED\n",
        "    if wire in current.links:\n        return Step.NEW\n",
        ARRIVAL,
    ),
    Mutation(
        "arrival: removals overtake a link that waits for a big file",
        "inosync/worker/arrival.py",
        "            switch.removals = place\n",
        "            pass\n",
        (*ARRIVAL, "tests/unit/worker/test_arrival.py"),
    ),
    Mutation(
        "arrival: a relist removes what has gone after its batch was cut",
        "inosync/worker/arrival.py",
        "queue.leave_names(self._newer(source, relists), queue.results.waiting)",
        "queue.leave_names((), queue.results.waiting)",
        ARRIVAL,
    ),
    Mutation(
        "arrival: a batch does not know what its node lacks",
        "inosync/nodes/batches.py",
        "owed = node.retries.owed(retries) if lane is Lane.FIRST else {}",
        "owed: dict[int, OwedNames] = {}",
        ARRIVAL,
    ),
    Mutation(
        "arrival: what waits for changes to come does not go with the next batch",
        "inosync/nodes/retries.py",
        "if retry.is_behind or retry.is_waiting)",
        "if retry.is_behind)",
        ("tests/unit/nodes/test_retries.py",),
    ),
    # The books
    Mutation(
        "the cursor moves when a batch is sent",
        "inosync/nodes/node.py",
        "            self.outstanding = sent\n",
        "            self.outstanding = sent\n            self.cursor = upto\n",
        NODE,
    ),
    Mutation(
        "what was due is not due again when its worker dies with it",
        "inosync/nodes/node.py",
        "        self.retries.put_back()\n",
        "        self.retries.settle((), (), 0.0, 0.0, 0.0)\n",
        NODE,
    ),
    Mutation(
        "the report of an old batch is accepted",
        "inosync/nodes/node.py",
        "self.outstanding is not None and self.outstanding.is_meant_by(report)",
        "self.outstanding is not None",
        NODE,
    ),
    Mutation(
        "what was held back is not due",
        "inosync/nodes/retries.py",
        '            self._waiting.setdefault(Change(tree, b"", Kind.TREE), later)\n',
        "            pass\n",
        NODE,
    ),
    Mutation(
        "the journal forgets what the slowest node has not confirmed",
        "inosync/master/wiring.py",
        "journal.drop_confirmed(int(min(needed)))\n",
        "journal.drop_confirmed(max(cursors))\n",
        ("tests/unit/master/test_wiring.py",),
    ),
    Mutation(
        "a cursor that has fallen off the journal is taken for a good one",
        "inosync/journal/journal.py",
        "            self.floor = dropped[1].position\n",
        "",
        JOURNAL,
    ),
    Mutation(
        "a relist swallows what is recorded below subdirectories",
        "inosync/journal/journal.py",
        "oldest, everything=change.kind is Kind.TREE)",
        "oldest, everything=True)",
        JOURNAL,
    ),
    Mutation(
        "what is gone swallows what has the same beginning, and is newer",
        "inosync/journal/journal.py",
        "        self._add(Change(tree, path, Kind.NAME, step=step), now, oldest).before = before\n",
        '        self._swallow((tree, path.rpartition(b"/")[0]), (now, 0), everything=True)\n'
        "        self._add(Change(tree, path, Kind.NAME, step=step), now, oldest).before = before\n",
        JOURNAL,
    ),
    # What has changed
    Mutation(
        "an overflow of the kernel's queue is ignored",
        "inosync/watch/watcher.py",
        "        self._walker.rescan()\n",
        "",
        WATCHER,
    ),
    Mutation(
        "after an overflow the trees are walked and no node is compared",
        "inosync/master/tree_events.py",
        "        if self.mirror.guard.root_found(tree):\n            log_doubts(",
        "        nodes = self.mirror.nodes.values()\n"
        "        if self.mirror.guard.root_found(tree) and not any(node.last_ok for node in nodes):\n"
        "            log_doubts(",
        ("tests/system/test_queue_overflow.py",),
    ),
    Mutation(
        "a new directory is watched and not listed",
        "inosync/watch/recorder.py",
        "            has_moved, has_changed = False, not root.full_walk\n",
        "            has_moved, has_changed = False, False\n",
        WATCHER,
    ),
    Mutation(
        "what a scout that has died was to look at is left out",
        "inosync/watch/shares.py",
        "        if share.left <= at < share.end:\n",
        "        if share.first <= at < share.end:\n",
        ("tests/unit/watch/test_shares.py", "tests/unit/watch/test_survey.py"),
    ),
    Mutation(
        "files in directories that have not changed are not looked at after a restart",
        "inosync/watch/recorder.py",
        "        since.unchanged.append(directory)\n",
        "",
        ("tests/unit/watch/test_recorder.py",),
    ),
    Mutation(
        "a directory that was moved here is not walked",
        "inosync/watch/event_handler.py",
        "            directory.attach(kid, entry)\n            self._walker.walk(kid)\n",
        "            directory.attach(kid, entry)\n",
        WATCHER,
    ),
    # What is sent
    Mutation(
        "a halted tree is sent",
        "inosync/nodes/batches.py",
        "        wanted = [tree for tree in node.trees if tree not in self._guard.halted]\n",
        "        wanted = list(node.trees)\n",
        ("tests/unit/nodes/test_batches.py",),
    ),
    Mutation(
        "the root is not looked at before it is sent",
        "inosync/nodes/batches.py",
        "            if not all(self._guard.check(part.tree) for part in parts):\n",
        "            if not parts:\n",
        ("tests/unit/nodes/test_batches.py",),
    ),
    Mutation(
        "a full mirror of an empty root deletes what nodes have",
        "inosync/worker/transfer_start.py",
        "warm or calls.start(part, run.delete_nothing, lane, run.frozen_source)",
        "warm or calls.start(part, False, lane, run.frozen_source)",
        (f"{LOST}::test_root_emptied_before_the_start_is_lost_if_nodes_have_files",),
    ),
    Mutation(
        "a root that is not what it has to be is good",
        "inosync/rsync/source.py",
        "    if source is None:\n",
        "    if source is None or source.identity:\n",
        ("tests/unit/rsync/test_source.py",),
    ),
    Mutation(
        "an rsync is not asked where it stands",
        "inosync/worker/transfer_start.py",
        "        return found is SourceState.OK or (found is SourceState.EMPTY and run.delete_nothing)\n",
        "        return True\n",
        ("tests/unit/worker/test_transfer_start.py",),
    ),
    Mutation(
        "a root that is emptied while all nodes are mirrored in full is not looked at",
        "inosync/master/tree_events.py",
        "        for tree in self._emptied:\n",
        "        for tree in ():\n",
        (f"{LOST}::test_full_mirror_that_runs_is_ended_when_a_root_is_emptied",),
    ),
    Mutation(
        "a root that comes back is compared while it is filled",
        "inosync/guard/guard.py",
        "        if was_missing and self._enabled and (",
        "        if was_missing and not self._enabled and (",
        ("tests/unit/guard/test_guard.py",),
    ),
    Mutation(
        "after other rules the next loss is none",
        "inosync/master/reload.py",
        "        self.trees.guard.check_unknown()\n",
        "",
        (f"{LOST}::test_root_loss_is_noticed_after_a_reload_that_brings",),
    ),
    Mutation(
        "what was changed and moved at once is not sent under its other names",
        "inosync/watch/events.py",
        "Entry.ARRIVED, content=not is_directory)",
        "Entry.ARRIVED)",
        ("tests/unit/watch/test_hardlinks.py",),
    ),
    Mutation(
        "a target that a mount leads to the wpath is sent",
        "inosync/worker/transfer_start.py",
        "        if problem := overlap_reason(settings.target, sources):\n",
        '        if problem := "":\n',
        ("tests/system/test_overlapping_targets.py::test_bind_mount_made_while_it_runs_stops_the_node",),
    ),
    Mutation(
        "what is mounted below a source does not belong to it",
        "inosync/system/overlap.py",
        "        if mount.point != path and is_below(mount.point, path):\n",
        "        if False:\n",
        ("tests/unit/system/test_overlap.py",),
    ),
    Mutation(
        "the rules are not applied to the directories above a name",
        "inosync/rsync/names.py",
        "        if self._excluded(path, is_directory):\n",
        "        if False:\n",
        NAMES,
    ),
    Mutation(
        "what lies below something that is no directory any more is sent",
        "inosync/rsync/names.py",
        "        return may_be_listed or Change(0, path, Kind.NAME)\n",
        "        return True\n",
        NAMES,
    ),
    Mutation(
        "a file that was moved over one of the same size and time is taken for sent",
        "inosync/worker/batch_sender.py",
        "        if (names := run.replacing) and stdout.equal_files(transfer.stdout, missing):\n",
        "        if (names := run.replacing) and missing < 0:\n",
        ("tests/unit/worker/test_batch_sender.py",),
    ),
    Mutation(
        "a directory that was read while it was renamed is linked by size and time",
        "inosync/worker/rename_runs.py",
        "        compares = not step.rename.is_directory or self._sent.may_hide_others(tree, step.rename)\n",
        "        compares = False\n",
        ("tests/unit/worker/test_rename_runs.py",),
    ),
    Mutation(
        "a higher rmaxdelete does not release what it allows",
        "inosync/guard/excess.py",
        "        return self.reported > 0 and not self._may_exceed(",
        "        return False and not self._may_exceed(",
        ("tests/unit/guard/test_guard.py",),
    ),
    Mutation(
        "what was in a directory that is moved away is not counted",
        "inosync/worker/transfer_start.py",
        "        if run.uncounted:\n",
        "        if ():\n",
        ("tests/system/test_lost_roots.py::test_removals_above_rmaxdelete_wait_for_accept_over_a_restart",),
    ),
    Mutation(
        "an rsync that waits in the old root is used for the new one",
        "inosync/worker/warm.py",
        "            return os.path.samestat(self._transfer.directory_status, os.stat(source))\n",
        "            return True\n",
        ("tests/system/test_warm_rsync.py",),
    ),
    # What came of it
    Mutation(
        "death by a signal is a success",
        "inosync/rsync/exit_codes.py",
        "    return _KINDS.get(code, ExitKind.RETRY)\n",
        "    return _KINDS.get(max(code, 0), ExitKind.RETRY)\n",
        ("tests/unit/rsync/test_exit_codes.py",),
    ),
    Mutation(
        "exit 24 is a success",
        "inosync/rsync/exit_codes.py",
        "24: ExitKind.PARTIAL, ",
        "24: ExitKind.OK, ",
        ("tests/unit/rsync/test_exit_codes.py",),
    ),
    Mutation(
        "files that have coarse times are not sent once more",
        "inosync/nodes/settlement.py",
        "    retries.add_second_look(outdated - again, now + SETTLE_SECONDS, sent.since)\n",
        "    pass\n",
        ("tests/unit/nodes/test_node.py",),
    ),
    Mutation(
        "a file that rsync discards with exit 0 is done",
        "inosync/rsync/outcome.py",
        "        if not stderr.leaves_undone(run.stderr):\n",
        "        if run.stderr is not None:\n",
        ("tests/unit/rsync/test_outcome.py",),
    ),
    Mutation(
        "what rsync complains of with exit 23 is done",
        "inosync/rsync/outcome.py",
        "due=(_names(run, due),) if due else ()",
        "due=()",
        ("tests/unit/rsync/test_outcome.py",),
    ),
    Mutation(
        "what rsync complains of with exit 23, and is not understood, is done",
        "inosync/rsync/outcome.py",
        "due=(run.part if run.part.full else _names(run, run.sent),)",
        "due=()",
        ("tests/unit/rsync/test_outcome.py",),
    ),
    Mutation(
        "what a worker could not transfer at all is done",
        "inosync/worker/transfer_end.py",
        "    if not end.has_failed:\n",
        "    if not end.has_failed or end.code != 0:\n",
        (f"{FAULTS}::test_worker_recovers_from_an_rsync_that[exits with 12 and says nothing]",),
    ),
    # The operator's seat
    Mutation(
        "a flush takes what is being walked for known",
        "inosync/master/flush.py",
        "if self.watcher.is_walking or self.watcher.incomplete_trees or self._is_searching(flush):",
        "if self._is_searching(flush):",
        (f"{STEERING}::test_flush_waits_for_directories_that_are_walked",),
    ),
    Mutation(
        "a flush does not look at what is not watched",
        "inosync/master/flush.py",
        "if not self.watcher.coverage.has_polled(trees, flush.since):",
        "if False:",
        (f"{UNWATCHED}::test_flush_waits_for_a_poll_of_unwatched_directories",),
    ),
    Mutation(
        "a flush does not count what is owed to a node apart from the journal",
        "inosync/master/flush.py",
        "return node.retries.lacks_since(since) or ",
        "return ",
        (f"{STEERING}::test_flush_waits_for_a_full_mirror",),
    ),
    Mutation(
        "a round over what is not watched never ends if a slice ends with its last visit",
        "inosync/watch/poller.py",
        "return not self._queue and self._began_at is None and self._scan is None",
        "return not self._queue and self._scan is None",
        WATCHER,
    ),
    Mutation(
        "a paused node is sent what changes",
        "inosync/nodes/dispatch.py",
        "node.outstanding is not None or node.paused:",
        "node.outstanding is not None:",
        (f"{STEERING}::test_pause_sends_nothing_to_a_node_until_resume",),
    ),
    Mutation(
        "the control socket is for everybody",
        "inosync/console/control.py",
        "os.umask(0o177)",
        "os.umask(0o000)",
        ("tests/unit/console/test_control.py",),
    ),
    Mutation(
        "a hook that ends with its worker is forgotten",
        "inosync/nodes/worker_handle.py",
        'self.hooks_lost |= report.kind == "on_sync" and is_cut_off',
        "pass",
        (f"{HOOKS}::test_hook_cut_off_by_a_reload_is_repeated_by_the_next_worker",),
    ),
    Mutation(
        "a client steers whatever daemon it reaches",
        "inosync/console/client.py",
        "if not protocol.is_same(protocol.identity(config), found):",
        "if False:",
        ("tests/system/test_other_configuration.py::test_copy_of_a_file_cannot_steer_the_daemon",),
    ),
    Mutation(
        "the soft limit of descriptors stays as it is",
        "inosync/startup.py",
        "    descriptors.raise_soft_limit()\n",
        "",
        ("tests/system/test_descriptor_limit.py::test_soft_limit_of_descriptors_does_not_limit_the_nodes",),
    ),
    # The processes
    Mutation(
        "a worker that takes no orders is left as it is",
        "inosync/nodes/watchdog.py",
        '                node.worker.replace(f"worker did not answer for {detector.unread_for:.0f} s")\n',
        "                pass\n",
        ("tests/unit/nodes/test_watchdog.py",),
    ),
    Mutation(
        "workers are blamed for the time in which the master was stopped",
        "inosync/nodes/watchdog.py",
        "min(max(now - self.checked_at, 0.0), MAX_GAP_SECONDS)",
        "max(now - self.checked_at, 0.0)",
        ("tests/unit/nodes/test_hang_detector.py",),
    ),
    Mutation(
        "a worker that dies has no successor",
        "inosync/nodes/worker_handle.py",
        "            self._loop.call_at(self.state.wake_at, self.start)\n        else:",
        "            pass\n        else:",
        NODE,
    ),
    # The fleet
    Mutation(
        "fleet: a node is served although a tree of its sender is halted",
        "inosync/master/fleet_sender.py",
        "if self._pool.is_stopping or self._mirror.guard.halted:",
        "if self.pool.is_stopping:",
        ("tests/unit/master/test_fleet_sender.py",),
    ),
    Mutation(
        "fleet: a mount point without its shared storage counts as it",
        "inosync/master/sender_copies.py",
        "if storage != NO_COPY and proof and proof == self.proof():",
        "if storage != NO_COPY:",
        ORIGIN,
    ),
    Mutation(
        "fleet: a sender whose disk is full keeps its nodes",
        "inosync/fleet/shares.py",
        "if node in foreign or view.prompt(node))",
        "if node in foreign)",
        ("tests/unit/fleet/test_shares.py",),
    ),
    Mutation(
        "fleet: a replica that has become the primary counts as known",
        "inosync/fleet/instance.py",
        "        self._identity = found\n",
        "        self._identity = known if known[0] else found\n        found = self._identity\n",
        ("tests/unit/fleet/test_instance.py",),
    ),
    Mutation(
        "fleet: a copy may be older than what the node has",
        "inosync/fleet/service.py",
        "max(since.head, known.upto)",
        "known.upto",
        FLEET,
    ),
    Mutation(
        "fleet: another copy counts as the one that was filled",
        "inosync/fleet/service.py",
        "(arrived.epoch, arrived.copy) == (span.epoch, copy)",
        "arrived.epoch == span.epoch",
        FLEET,
    ),
    Mutation(
        "fleet: leases are relied on until Redis forgets them",
        "inosync/fleet/leases.py",
        "HOLD_SECONDS = TTL_SECONDS * (1 - DRIFT) / (1 + DRIFT)",
        "HOLD_SECONDS = TTL_SECONDS",
        FLEET,
    ),
    Mutation(
        "fleet: a new Redis is trusted at once",
        "inosync/fleet/leases.py",
        "return met_at + QUARANTINE_SECONDS",
        "return met_at",
        FLEET,
    ),
    Mutation(
        "fleet: after a restart a copy counts before it has what was changed before",
        "inosync/master/sender_copies.py",
        " or node.arrived < settled:",
        ":",
        ORIGIN,
    ),
    Mutation(
        "fleet: what rsync has complained of counts as arrived before it ends",
        "inosync/rsync/transfer.py",
        " or self._output.stderr_bytes or",
        " or",
        ("tests/unit/rsync/test_transfer.py",),
    ),
    Mutation(
        "fleet: a batch that leaves something has arrived before its end",
        "inosync/worker/batch_sender.py",
        " or run.has_more:",
        ":",
        ("tests/unit/worker/test_batch_sender.py",),
    ),
    Mutation(
        "fleet: after a restart the cursors of another origin count",
        "inosync/master/fleet_origin.py",
        "(span.epoch != self.epoch or is_ahead)",
        "is_ahead",
        ORIGIN,
    ),
    Mutation(
        "fleet: a resync that was cut off by a handover counts as done",
        "inosync/master/fleet_tasks.py",
        "if self._running.get(key) == (number, node):",
        "if key in self._running:",
        ORDERS,
    ),
    Mutation(
        "fleet: a pause reaches the next sender late",
        "inosync/master/fleet_tasks.py",
        "            node.set_paused(True)\n",
        "            pass\n",
        ORDERS,
    ),
    Mutation(
        "fleet: a node may be sent more without its lease",
        "inosync/fleet/scripts.py",
        "  if redis.call('GET', KEYS[i]) == value then\n    merge(KEYS[1], node, ARGV[1], nil, upto, '0')",
        "  if redis.call('GET', KEYS[i]) then\n    merge(KEYS[1], node, ARGV[1], nil, upto, '0')",
        STORE,
    ),
    Mutation(
        "fleet: nobody is told that something has arrived",
        "inosync/fleet/scripts.py",
        "redis.call('PUBLISH', KEYS[5] .. ':' .. ARGV[i], '')",
        "redis.call('PUBLISH', KEYS[5], '')",
        ROUNDS,
    ),
    Mutation(
        "fleet: a sender that has changes to pass on waits first",
        "inosync/master/fleet_sender.py",
        "self._mark, self._told_beat = () if has_more else report.mark, order.beat",
        "self._mark, self._told_beat = report.mark, order.beat",
        SENDER,
    ),
    Mutation(
        "fleet: a Redis that has lost orders does not get them again",
        "inosync/master/fleet_orders.py",
        "for name, own in pairs if own != there.get(name, NONE)",
        "for name, own in pairs if own != there.setdefault(name, own)",
        ORDERS,
    ),
    Mutation(
        "a stage passes on what it has, and the stage before it has not passed",
        "inosync/nodes/stages.py",
        "most = made[-1].passed if made else math.inf",
        "most = math.inf",
        STAGES,
    ),
    Mutation(
        "a node that gets nothing more is waited for anew with each change",
        "inosync/nodes/stages.py",
        "if position < best and (known or best > stage.passed):",
        "if position < best and best > stage.passed:",
        STAGES,
    ),
    Mutation(
        "a check that fails is forgotten",
        "inosync/nodes/stages.py",
        "stage = replace(stage, refusal=RefusedCheck(position, reason))",
        "pass",
        STAGES,
    ),
    Mutation(
        "a stage has confirmed what a node of it is owed",
        "inosync/master/staging.py",
        "confirmed = min(confirmed, self.journal.recorded_before(oldest))",
        "pass",
        STAGING,
    ),
    Mutation(
        "a stage has confirmed what is not recorded yet",
        "inosync/master/staging.py",
        "confirmed = NOTHING  # what has changed there is not recorded yet",
        "pass",
        STAGING,
    ),
    Mutation(
        "a node without a limit is sent nothing before the next change",
        "inosync/master/staging.py",
        "self._send_on()  # a node may have no limit any more",
        "pass",
        STAGING,
    ),
    Mutation(
        "a flush waits for ever for what was refused",
        "inosync/master/flush.py",
        "return not self.mirror.dispatch.roll_out.is_stuck(node.name, wanted)",
        "return True",
        ("tests/unit/master/test_flush.py",),
    ),
)


@dataclass(frozen=True, slots=True)
class Found:
    """What the tests say of a copy."""

    code: int
    """pytest's exit code."""
    test: str
    """The first that failed, or the last line if none did."""
    seconds: float


def broken(mutation: Mutation, checkout: Path = CHECKOUT) -> str:
    """The text of the mutation's file as it would be; ValueError or OSError if it does not apply."""
    return mutation.applied((checkout / mutation.file).read_text())


def run(mutation: Mutation | None, tests: Iterable[str]) -> Found:
    """Run tests in a copy of the checkout, with the mutation if there is one."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="inosync-mutation-") as home:
        copy = Path(home)
        for name in NEEDED:
            source = CHECKOUT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy2(source, copy / name)
        if mutation is not None:
            (copy / mutation.file).write_text(broken(mutation))
        argv = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(argv, cwd=copy, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    failed = re.search(r"^(?:FAILED|ERROR) \S*?([^/\s]+?\.py::.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    last = (done.stdout.strip() or done.stderr.strip() or "nothing").splitlines()[-1]
    return Found(done.returncode, failed[1] if failed else last, time.monotonic() - began)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", metavar="WORD", nargs="*", help="only mutations with this in their names")
    parser.add_argument("-l", "--list", action="store_true", help="only list them")
    options = parser.parse_args(arguments)
    wanted = [one for one in MUTATIONS if all(word in one.name for word in options.words)]
    for mutation in wanted:
        broken(mutation)
        if options.list:
            print(f"{mutation.name}: {mutation.file}")
    if options.list:
        return 0
    tests = sorted({test for mutation in wanted for test in mutation.tests})
    whole = run(None, tests)
    print(f"{'none':66} {whole.seconds:6.1f} s  {'green' if whole.code == 0 else whole.test}", flush=True)
    if whole.code:
        return 1
    survivors = 0
    for mutation in wanted:
        found = run(mutation, mutation.tests)
        red = found.code == FAILED
        survivors += not red
        outcome = f"red: {found.test}" if red else f"SURVIVES: {found.test} (exit {found.code})"
        print(f"{mutation.name:66} {found.seconds:6.1f} s  {outcome}", flush=True)
    print(f"{len(wanted)} mutations, {survivors} survive")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
