"""The files of a directory that have changed since a time, by ctime."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

_STEP_ENTRIES = 256
"""Entries of a directory that are looked at between two looks at the time."""


def changed_files(directory: int, after: int) -> Iterator[list[bytes]]:
    """Yield the names of what has changed in an open directory, but for directories, some entries at a time.

    ``after``: changed is what has this time or a later one, in nanoseconds since the epoch. OSError if the
    directory cannot be read.
    """
    with os.scandir(directory) as found:
        while step := list(islice(found, _STEP_ENTRIES)):
            changed = []
            for entry in step:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # an event says what became of it
                if status.st_ctime_ns >= after and not entry.is_dir(follow_symlinks=False):
                    changed.append(os.fsencode(entry.name))
            yield changed
