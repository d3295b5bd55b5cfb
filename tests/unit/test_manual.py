"""The manual: what the documentation and the man pages say is what the program does."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from inosync import cli
from inosync.config.example import example
from inosync.config.settings import PER_NODE, SETTINGS
from inosync.console import protocol
from inosync.text import NodeState

CHECKOUT = Path(__file__).resolve().parents[2]
DOCS = CHECKOUT / "docs"
COMMAND_PAGE = (DOCS / "inosync.8.rst").read_text()
SETTINGS_PAGE = (DOCS / "inosync.conf.5.rst").read_text()


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, CHECKOUT / "bin" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The man pages as troff, by their file names."""
    home = tmp_path_factory.mktemp("man")
    subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-b", "man", "-d", home / "doctrees", DOCS, home / "man"],
        check=True,
    )
    return {path.name: path.read_text() for path in (home / "man").iterdir()}


def section(page: str, title: str) -> str:
    """Return what a page says below a heading."""
    found = re.search(
        rf"^{re.escape(title)}\n[-=]+\n(.*?)(?=^[^\n]+\n[-=]{{3,}}\n|\Z)", page, re.MULTILINE | re.DOTALL
    )
    assert found, title
    return found[1]


def terms(text: str) -> list[str]:
    """Return the terms of the definition lists in a text."""
    return re.findall(r"^(\S.*)\n    \S", text, re.MULTILINE)


def options() -> set[str]:
    return {
        option
        for action in cli.parser()._actions
        for option in action.option_strings
        if action.dest != argparse.SUPPRESS or action.option_strings
    }


# The command line ------------------------------------------------------------------------------------------


def test_help_in_the_manual_is_that_of_the_program() -> None:
    if sys.version_info[:2] != (3, 11):
        pytest.skip("other versions of Python lay it out in another way")
    done = subprocess.run(
        [sys.executable, CHECKOUT / "bin" / "inosync", "--help"],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=True,
    )
    shown = "".join(f"    {line}".rstrip() + "\n" for line in done.stdout.splitlines())
    assert f"    $ inosync --help\n{shown}\n" in section(COMMAND_PAGE, "Command line")


def test_options_in_the_manual_are_those_of_the_program() -> None:
    synopsis = set(re.findall(r"(?<![\w-])--?[a-z]+(?:-[a-z]+)*", section(COMMAND_PAGE, "Synopsis")))
    assert options() - {"--help"} <= synopsis <= options()


def test_commands_in_the_manual_are_those_of_the_program() -> None:
    listed = terms(section(COMMAND_PAGE, "Commands"))
    names = [term.strip("`").split()[0] for term in listed]
    assert sorted(names) == sorted(protocol.COMMANDS)
    takes = {term.strip("`").split()[0] for term in listed if "NODE" in term}
    assert takes == set(protocol.NODE_ALLOWED)


def test_exit_codes_in_the_manual_are_those_of_the_program() -> None:
    codes = {
        value
        for module in (cli, protocol)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, int) and 0 <= value < 128 and not name.startswith("_")
        if name not in ("MAX_REQUEST_BYTES",)
    }
    assert {int(code) for code in terms(section(COMMAND_PAGE, "Exit codes"))} == codes


def test_signals_in_the_manual_are_those_of_the_program() -> None:
    listed = {word for term in terms(section(COMMAND_PAGE, "Signals")) for word in term.split(", ")}
    assert listed == {"HUP", "USR1", "USR2", "TERM", "INT"}


def test_states_in_the_manual_are_those_of_nodes() -> None:
    text = section((DOCS / "operation.rst").read_text(), "What ps shows")
    listed = set(re.findall(r"^``(\w+)`` ", text, re.MULTILINE)) | {term.strip("`") for term in terms(text)}
    # A title has less room.
    assert {"retrying" if word == "retry" else word for word in listed} >= {word.value for word in NodeState}


def test_keys_of_the_status_are_in_the_manual() -> None:
    source = (CHECKOUT / "inosync" / "status" / "snapshot.py").read_text()
    keys = re.findall(r'^            "(\w+)":', source, re.MULTILINE)
    assert len(keys) > 30
    text = section(COMMAND_PAGE, "Status as JSON")
    assert [key for key in keys if f"``{key}``" not in text] == []


# The settings ----------------------------------------------------------------------------------------------


def test_reference_is_what_the_table_of_settings_makes(pages: dict[str, str]) -> None:
    made = _script("reference")
    assert (CHECKOUT / "conf" / "default.py").read_text() == example(), "run bin/reference.py"
    assert made.with_reference(SETTINGS_PAGE) == SETTINGS_PAGE, "run bin/reference.py"
    listed = [term.split("`` (")[0].strip("`") for term in terms(section(SETTINGS_PAGE, "Settings"))]
    assert listed == list(SETTINGS)
    assert all(f"\\fB{name}\\fP" in pages["inosync.conf.5"] for name in SETTINGS)


def test_setting_names_its_unit() -> None:
    for setting in SETTINGS.values():
        assert bool(setting.unit) == ("{unit}" in setting.meaning), setting.name


def test_rnodes_names_every_setting_of_a_node() -> None:
    assert set(re.findall(r"``(\w+)``", SETTINGS["rnodes"].meaning)) == {"node", *PER_NODE}


# The pages -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["inosync.8", "inosync.conf.5"])
def test_man_page_has_no_warnings(pages: dict[str, str], tmp_path: Path, name: str) -> None:
    text = pages[name]
    for heading in ("NAME", "DESCRIPTION", "SEE ALSO"):
        assert f"\n.SH {heading}\n" in text
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("groff is not installed")
    path = tmp_path / name
    path.write_text(text)
    done = subprocess.run(
        [groff, "-man", "-Tutf8", "-ww", "-z", path], capture_output=True, text=True, check=False
    )
    noise = re.compile(r"can't (find|open) .*tmac|cannot adjust|can't break")
    assert [line for line in done.stderr.splitlines() if not noise.search(line)] == []
