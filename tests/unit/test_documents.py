"""The documents for people are well formed, and what they say of the tree is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import docutils.core
import pytest
from unit.test_layers import ROOMS

CHECKOUT = Path(__file__).resolve().parents[2]
DOCS = CHECKOUT / "docs"
ARCHITECTURE = (DOCS / "architecture.rst").read_text()
OWN_LINK = re.compile(
    r"^\s*\.\. (?:image|figure):: (?!https?:)(\S+)|`[^`<]*<(?!https?:|mailto:)([^`>]+)>`_", re.MULTILINE
)


@pytest.mark.parametrize("path", sorted(CHECKOUT.glob("*.rst")), ids=lambda path: path.name)
def test_document_is_well_formed(path: Path) -> None:
    """These are shown by programs that know nothing of Sphinx."""
    warning = 2
    docutils.core.publish_doctree(path.read_text(), str(path), settings_overrides={"halt_level": warning})


@pytest.mark.parametrize("form", ["html", "man"])
def test_documentation_is_made_without_a_warning(form: str, tmp_path: Path) -> None:
    sphinx = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "--keep-going", "-b", form]
    places = ["-d", str(tmp_path / "doctrees"), str(DOCS), str(tmp_path / form)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([*sphinx, *places], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


def test_links_to_files_lead_to_files() -> None:
    for path in sorted(CHECKOUT.glob("*.rst")):
        names = {name for found in OWN_LINK.findall(path.read_text()) for name in found if name}
        assert [name for name in sorted(names) if not (CHECKOUT / name).exists()] == [], path


def test_readme_has_a_length_that_is_read() -> None:
    assert len((CHECKOUT / "README.rst").read_text().splitlines()) <= 250


def test_architecture_names_files_that_exist() -> None:
    named = set(re.findall(r"``([a-z_]+(?:/[a-z_]+)+\.py)``", ARCHITECTURE))
    assert named
    missing = [
        name for name in sorted(named) if not any((CHECKOUT / top / name).exists() for top in ("inosync", ""))
    ]
    assert missing == []


def test_architecture_lists_the_rooms_from_the_top_down() -> None:
    listed = [name.rstrip("/") for name in re.findall(r"^``(\w+/?)`` ", ARCHITECTURE, re.MULTILINE)]
    assert listed == [room for room in ROOMS if room != "inosync"]
