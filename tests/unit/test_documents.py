"""The documents for people are well formed, and what they say of the tree is so."""

from __future__ import annotations

import re
from pathlib import Path

import docutils.core
import pytest
from unit.test_layers import ROOMS

CHECKOUT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*CHECKOUT.glob("*.rst"), *CHECKOUT.glob("docs/**/*.rst")])
ARCHITECTURE = (CHECKOUT / "docs" / "architecture.rst").read_text()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_document_is_well_formed(path: Path) -> None:
    warning = 2
    docutils.core.publish_doctree(path.read_text(), str(path), settings_overrides={"halt_level": warning})


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
