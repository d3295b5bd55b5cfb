"""Checks the root of a tree before it is transferred."""

from __future__ import annotations

import enum
import errno
import os

from inosync.changes import Source
from inosync.filters.rules import Excluded
from inosync.system import entries


class SourceState(enum.Enum):
    """How a root compares with what it has to be."""

    OK = "ok"
    EMPTY = "empty"
    """Nothing in it would be mirrored, which may be a loss."""
    REPLACED = "replaced"
    """The directory is missing, or is another one."""


def check_source(path: str, source: Source | None, excluded: Excluded) -> SourceState:
    """Compare the directory at a path with ``source``; entries that are ``excluded`` do not count.

    OSError if the directory cannot be read.
    """
    if source is None:
        return SourceState.OK
    try:
        directory = entries.open_directory(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
            return SourceState.REPLACED
        raise
    try:
        if entries.identity(directory) != source.identity:
            return SourceState.REPLACED
        is_empty = source.whole and not entries.count(directory, excluded, 1)
        return SourceState.EMPTY if is_empty else SourceState.OK
    finally:
        os.close(directory)
