"""A watcher over the kernel's inotify, on two kinds of file system."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.watched_tree import Field

from inosync.watch import scan


@pytest.fixture(params=[True, False], ids=["counted", "listed"])
def field(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Field]:
    """On the file system that there is, and as if it did not count subdirectories."""
    if not request.param:
        monkeypatch.setattr(scan, "counts_subdirectories", lambda _directory: False)
    made = Field(tmp_path)
    here = os.getcwd()
    yield made
    made.watcher.close()
    assert os.getcwd() == here
