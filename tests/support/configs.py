"""Configuration files for tests, written into the current directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from inosync.config.errors import ConfigError
from inosync.config.load import Config, load

DEFAULTS: dict[str, Any] = {
    "edelay": 10,
    "rretry": (1, 300),
    "rdelete": True,
    "rguard": True,
    "rmaxdelete": None,
    "rwait": False,
    "ruser": None,
    "rlisten": None,
    "on_sync": None,
    "on_state": None,
    "rstages": (),
    "on_stage": None,
    "logfile": None,
    "logformat": "text",
    "pattern_files": {},
    "warnings": (),
}
"""What a ``Config`` has without the settings, on each machine."""


def good() -> dict[str, str]:
    """Return the required settings as source text; the wpath is ``a`` in the current directory."""
    return {"wpaths": repr([f"{os.getcwd()}/a/"]), "rpaths": "['/www']", "rnodes": "['h:']"}


def write(text: str, name: str = "conf.py") -> str:
    path = Path(name)
    path.write_text(text)
    path.chmod(0o644)
    return name


def text(**values: str) -> str:
    """Return a file with the required settings and these values, given as source text; "" omits a setting."""
    return "".join(f"{name} = {value}\n" for name, value in (good() | values).items() if value)


def config(**values: str) -> Config:
    return load(write(text(**values)))


def mistakes(source: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(write(source))
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.problems) > 0
    assert all(line.isprintable() for line in lines)
    return lines


def refused(path: str) -> str:
    """Load a file that is refused, and return the text of the error."""
    with pytest.raises(ConfigError) as caught:
        load(path)
    return str(caught.value)
