"""What a worker has beside the transfers of a batch."""

from __future__ import annotations

from dataclasses import dataclass

from inosync.worker.calls import RsyncCalls
from inosync.worker.compare import Comparisons
from inosync.worker.hooks import Hooks
from inosync.worker.lanes import Lanes
from inosync.worker.local_targets import LocalTargets
from inosync.worker.outdated import OutdatedFiles
from inosync.worker.refused_options import RefusedOptions
from inosync.worker.remote_targets import RemoteTargets
from inosync.worker.sent_directories import SentDirectories
from inosync.worker.ssh_master import SshMaster
from inosync.worker.title import Title
from inosync.worker.warm_pool import WarmPool


@dataclass(frozen=True, slots=True)
class Beside:
    """What a transfer uses, and what it may affect."""

    calls: RsyncCalls
    refused: RefusedOptions
    local_targets: LocalTargets
    remote_targets: RemoteTargets
    warm: WarmPool
    comparisons: Comparisons
    ssh_master: SshMaster
    hooks: Hooks
    title: Title
    lanes: Lanes
    outdated: OutdatedFiles
    sent: SentDirectories
