"""How rsync is called for the node of a worker, as things are now."""

from __future__ import annotations

import itertools
from dataclasses import replace

from inosync.changes import Lane, Part, Rename, Step
from inosync.filters.rule import hiding
from inosync.rsync import argv, binary
from inosync.rsync.argv import RenameWay, TransferSettings
from inosync.rsync.dry_run import DryRun
from inosync.rsync.options import limits_size
from inosync.rsync.target import Transport, transport
from inosync.rsync.transfer import Transfer
from inosync.system import entries, fingerprint
from inosync.system.loop import Loop
from inosync.worker import order
from inosync.worker.bwlimit import Throttle
from inosync.worker.job import Job
from inosync.worker.lanes import Lanes
from inosync.worker.refused_options import RefusedOptions
from inosync.worker.ssh_master import SshMaster


class RsyncCalls:
    """Makes argument vectors, and starts rsyncs with them."""

    def __init__(
        self,
        job: Job,
        ssh_master: SshMaster,
        throttle: Throttle,
        refused: RefusedOptions,
        lanes: Lanes,
        loop: Loop,
    ) -> None:
        self._job, self._loop = job, loop
        self._throttle, self._refused, self._lanes = throttle, refused, lanes
        self._ssh_master = ssh_master
        self._settings: dict[tuple[int, str, int, bool, bool], TransferSettings] = {}
        """Those made so far, by all that they depend on."""
        self._last: dict[int, tuple[tuple[object, ...], tuple[str, ...]]] = {}
        """The last argument vector for a batch of each tree, after all that it depends on."""
        self._supported: dict[str, tuple[tuple[object, ...], bool]] = {}
        """By option: which rsync it is, and whether that, as it is now, understands it."""

    def settings(self, tree: int, is_direct: bool = False) -> TransferSettings:
        """Of a tree; with ``is_direct`` ssh connects anew instead of using the shared connection."""
        rsh = self._ssh_master.rsh_direct if is_direct else self._ssh_master.rsh
        limit, list_missing, stats = self._throttle.limit, self._refused.list_missing, self._refused.stats
        key = tree, rsh, limit, list_missing, stats
        if key not in self._settings:
            self._settings[key] = replace(
                self._job.trees[tree], rsh=rsh, rspeed=limit, list_missing=list_missing, stats=stats
            )
        return self._settings[key]

    @property
    def rspeed(self) -> int:
        """Return the limit now, in KB/s; 0 is none."""
        return self._throttle.limit

    def big_size(self, tree: int) -> int:
        """Return the bytes above which a file of a tree is sent in the second lane; 0: none is."""
        is_one = limits_size(self._job.trees[tree].extra) or not self._refused.max_size
        return 0 if is_one else self._lanes.big_size

    def argv(
        self, part: Part, delete_nothing: bool = False, lane: Lane = Lane.FIRST, source: str = ""
    ) -> tuple[str, ...]:
        """For a part, whatever its names. OSError if rsync does not say what it understands.

        ``source``: a directory that is sent in place of the tree.
        """
        settings = self.settings(part.tree)
        if source:
            settings = replace(settings, source=source)
        if part.full:
            only_adds = part.step is Step.NEW
            return argv.full_argv(settings, delete_nothing, only_adds, part.ignore_times)
        max_size = self.big_size(part.tree) if lane is Lane.FIRST else 0
        if settings.says_end:
            settings = replace(settings, says_end=self._supports(settings, argv.SAYS_END))
        root, only_removes = self._root(settings), order.only_removes(part) and self._refused.send_nothing
        key = settings, root, max_size, part.ignore_times, lane, only_removes, part.make_way
        known, words = self._last.get(part.tree, ((), ()))
        if known != key:
            hidden = itertools.chain.from_iterable(map(hiding, part.make_way))
            settings = replace(settings, root=root, max_size=max_size, rules=(*hidden, *settings.rules))
            words = argv.batch_argv(settings, part.ignore_times, lane is Lane.SECOND, only_removes)
            self._last[part.tree] = key, words
        return words

    def start(
        self, part: Part, delete_nothing: bool = False, lane: Lane = Lane.FIRST, source: str = ""
    ) -> Transfer:
        """An rsync for such a part, as ``argv`` says. OSError if it cannot be started."""
        words = self.argv(part, delete_nothing, lane, source)
        self._ssh_master.note_try()
        return Transfer(words, self._job.timeout, self._loop, is_big=lane is Lane.SECOND)

    def ask(self, part: Part) -> DryRun:
        """An rsync that says what the node lacks of a part. OSError if it cannot be started."""
        words = argv.missing_argv(self.settings(part.tree), part.full)
        self._ssh_master.note_try()
        return DryRun(words, self._job.timeout, self._loop, is_bounded=True)

    def count_removals(self, tree: int) -> DryRun:
        """An rsync that says what the node would lose. OSError if it cannot be started."""
        settings = self.settings(tree)
        self._ssh_master.note_try()
        words = argv.removals_argv(replace(settings, root=self._root(settings)))
        return DryRun(words, self._job.timeout, self._loop)

    def start_rename(self, tree: int, rename: Rename, way: RenameWay) -> Transfer:
        """An rsync that follows a rename. OSError if it cannot be started."""
        settings = self.settings(tree)
        if not way.whole and transport(settings.target) is not Transport.LOCAL:
            settings = replace(settings, root=self._root(settings))
        return Transfer(argv.rename_argv(settings, rename, way), self._job.timeout, self._loop)

    def _root(self, settings: TransferSettings) -> str:
        """``TransferSettings.root``. rsync is asked here because it may hang, and the master would with it.

        OSError if it gives no answer: then it is not known whether names would lead it out of the tree.
        """
        may_confine = self._supports(settings, f"{argv.CONFINE_ROOT}=/")
        return entries.real_path(settings.source) if may_confine else ""

    def _supports(self, settings: TransferSettings, option: str) -> bool:
        rsync = settings.rsync, fingerprint.at(settings.rsync)
        if (known := self._supported.get(option)) is None or known[0] != rsync:
            known = self._supported[option] = rsync, binary.supports_option(settings.rsync, option)
        return known[1]
