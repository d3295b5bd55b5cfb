"""The units for systemd, as its own tools see them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from inosync.config.paths import ROOTS_STATEDIR

CONF = Path(__file__).resolve().parents[2] / "conf"
UNITS = {"inosync.service": "inosync.service", "inosync@www.service": "inosync@.service"}
UNITS["inosync-sender@eu.service"] = "inosync-sender@.service"
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze: install systemd")


@pytest.fixture
def units(tmp_path: Path) -> dict[str, str]:
    """The paths of copies, by name; what they start is there at an absolute path."""
    program = tmp_path / "inosync"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name, source in UNITS.items():
        text = (CONF / source).read_text().replace("=inosync -c", f"={program} -c")
        assert text.count(f"={program} -c") == 2
        (tmp_path / name).write_text(text)
    return {name: str(tmp_path / name) for name in UNITS}


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_unit_has_no_line_that_systemd_does_not_know(units: dict[str, str], name: str) -> None:
    command = ["systemd-analyze", "verify", "--man=no", units[name]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_unit_is_as_closed_as_it_can_be(units: dict[str, str], name: str) -> None:
    """3.7 on systemd 252, of 10 for a unit that closes nothing."""
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=45", "--no-pager", units[name]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


@pytest.mark.parametrize("source", UNITS.values())
def test_unit_keeps_the_state_where_root_does(source: str) -> None:
    lines = (CONF / source).read_text().splitlines()
    assert f"StateDirectory={os.path.relpath(ROOTS_STATEDIR, '/var/lib')}" in lines
    assert "StateDirectoryMode=0700" in lines


def test_units_differ_in_the_configuration_only() -> None:
    def settings(name: str) -> list[str]:
        text = (CONF / name).read_text().replace("/%i.py", "/default.py").replace(" --sender %i", "")
        others = ("#", "Description", "Condition")
        return [line for line in text.splitlines() if line and not line.startswith(others)]

    assert settings("inosync.service") == settings("inosync@.service")
    assert settings("inosync.service") == settings("inosync-sender@.service")
