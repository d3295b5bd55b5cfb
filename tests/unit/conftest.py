"""Fixtures for the tests of configuration files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from inosync.config.settings import SETTINGS


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with two wpaths, a file and an rsync; the current one, so that paths can be short."""
    tmp_path.chmod(0o755)
    for name in ("a", "b", "a/sub"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("")
    rsync = tmp_path / "rsync"
    rsync.write_text("#!/bin/sh\n")
    rsync.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    monkeypatch.setitem(SETTINGS, "rsync", dataclasses.replace(SETTINGS["rsync"], default=str(rsync)))
    return tmp_path
