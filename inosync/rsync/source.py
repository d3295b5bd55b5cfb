"""What the root of a tree is, to whoever is about to transfer it."""

from __future__ import annotations

import enum
import errno
import os

from inosync.messages import Source
from inosync.rsync.names import Excluded
from inosync.system import entries


class SourceState(enum.Enum):
    """Whether it may be mirrored."""

    GOOD = "good"
    EMPTY = "empty"
    """Nothing in it would be mirrored, and that is or may be a loss."""
    ANOTHER = "another"
    """It is not there, or another directory is."""


def standing(path: str, source: Source | None, excluded: Excluded) -> SourceState:
    """What the directory at a path is, where ``source`` is expected.

    ``excluded``: which of its entries do not count. OSError if that cannot be seen.
    """
    if source is None:
        return SourceState.GOOD
    try:
        directory = entries.open_directory(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
            return SourceState.ANOTHER
        raise
    try:
        if entries.identity(directory) != source.identity:
            return SourceState.ANOTHER
        is_empty = source.whole and not entries.count(directory, excluded, 1)
        return SourceState.EMPTY if is_empty else SourceState.GOOD
    finally:
        os.close(directory)
