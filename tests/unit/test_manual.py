"""The manual: what the README and the man pages say is what the program does."""

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
from inosync.config.settings import PER_NODE, SETTINGS
from inosync.console import protocol
from inosync.messages import NodeState

CHECKOUT = Path(__file__).resolve().parents[2]
README = (CHECKOUT / "README.rst").read_text()


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, CHECKOUT / "bin" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """The man pages as troff, by their file names."""
    found: dict[str, str] = _script("man").pages(README)
    return found


def plain(troff: str) -> str:
    """What stands in a page, roughly: without fonts and requests."""
    return re.sub(r"\\f[A-Z]|\\&", "", troff).replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\")


def section(title: str) -> str:
    text: str = _script("man").sections(README)[title]
    return text


def rows(table: str) -> dict[str, list[str]]:
    """The first table of simple ReStructuredText in a text: its columns by the first of them."""
    bars = [match.start() for match in re.finditer(r"^=+( +=+)+$", table, re.MULTILINE)]
    lines = table[bars[0] : bars[2]].splitlines()
    edges = [match.span() for match in re.finditer("=+", lines[0])]
    found: dict[str, list[str]] = {}
    last: list[str] = []
    for line in lines[3:]:
        cells = [line[start:end].strip() for start, end in edges[:-1]] + [line[edges[-1][0] :].strip()]
        if cells[0]:
            last = found[cells[0]] = cells[1:]
        else:
            last[:] = [f"{before} {more}".strip() for before, more in zip(last, cells[1:], strict=True)]
    return found


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
    assert f"    $ inosync --help\n{shown}\n" in section("Command line")


def test_options_in_the_manual_are_those_of_the_program(pages: dict[str, str]) -> None:
    text = section("Command line") + section("Asking and steering")
    told = set(re.findall(r"(?<![\w-])--?[a-z]+\b", re.sub(r"``.*?``", "", section("Command line"))))
    told -= {"--help"} & told - options()
    assert options() <= set(re.findall(r"(?<![\w-])--?[a-z]+\b", text))
    assert told <= options()
    page = plain(pages["inosync.8"])
    synopsis = page[page.index(".SH SYNOPSIS") : page.index(".SH DESCRIPTION")]
    assert options() - {"--help"} <= set(re.findall(r"(?<![\w-])--?[a-z]+\b", synopsis))


def test_commands_in_the_manual_are_those_of_the_program(pages: dict[str, str]) -> None:
    told = [word.strip("`").split()[0] for word in rows(section("Asking and steering"))]
    assert sorted(told) == sorted(protocol.COMMANDS)
    takes = {word.strip("`").split()[0] for word in rows(section("Asking and steering")) if "NODE" in word}
    assert takes == set(protocol.NODE_ALLOWED)
    for command in protocol.COMMANDS:
        assert re.search(rf"^\.B {command}|^{command}\b", plain(pages["inosync.8"]), re.MULTILINE), command


def test_exit_codes_in_the_manual_are_those_of_the_program() -> None:
    codes = {
        value
        for module in (cli, protocol)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, int) and 0 <= value < 128 and not name.startswith("_")
        if name not in ("MAX_REQUEST_BYTES",)
    }
    text = section("Command line")
    told = {int(code) for code in rows(text[text.index("Exit codes\n") :])}
    assert told == codes


def test_signals_in_the_manual_are_those_of_the_program() -> None:
    told = {word for words in rows(section("Command line")) for word in re.findall("[A-Z0-9]+", words)}
    assert told == {"HUP", "USR1", "USR2", "TERM", "INT"}


def test_states_in_the_manual_are_those_of_nodes() -> None:
    text = section("What ps shows")
    told = {word.strip("`") for word in rows(text)}
    # A title has less room.
    assert {"retrying" if word == "retry" else word for word in told} == {word.value for word in NodeState}


def test_keys_of_the_status_are_in_the_manual() -> None:
    text = section("Asking and steering")
    source = (CHECKOUT / "inosync" / "status" / "snapshot.py").read_text()
    keys = re.findall(r'^            "(\w+)":', source, re.MULTILINE)
    assert len(keys) > 30
    missing = [key for key in keys if f"``{key}``" not in text]
    assert missing == []


# The settings ----------------------------------------------------------------------------------------------


def test_reference_is_what_the_table_of_settings_makes(pages: dict[str, str]) -> None:
    made = _script("reference")
    assert (CHECKOUT / "conf" / "default.py").read_text() == made.default_file(), "run bin/reference.py"
    assert made.with_reference(README) == README, "run bin/reference.py"
    assert list(rows(section("Settings"))) == list(SETTINGS)
    terms = re.findall(r"^\.B (\w+) \((?:default|required)", plain(pages["inosync.conf.5"]), re.MULTILINE)
    assert terms == list(SETTINGS)


def test_setting_names_its_unit_and_a_section_that_exists() -> None:
    sections = _script("man").sections(README)
    for setting in SETTINGS.values():
        assert bool(setting.unit) == ("{unit}" in setting.meaning), setting.name
        assert not setting.see or setting.see in sections, setting.name


def test_rnodes_names_every_setting_of_a_node() -> None:
    assert set(re.findall(r"``(\w+)``", SETTINGS["rnodes"].meaning)) == {"node", *PER_NODE}


# The pages -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["inosync.8", "inosync.conf.5"])
def test_man_page_has_no_warnings(pages: dict[str, str], tmp_path: Path, name: str) -> None:
    text = pages[name]
    for heading in ("NAME", "DESCRIPTION", "SEE ALSO"):
        assert f"\n.SH {heading}\n" in text
    assert "`_" not in text, "a reference that nobody can follow"
    assert "in the README" not in plain(text) or name == "inosync.8"
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


def test_bin_man_writes_both_pages(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, CHECKOUT / "bin" / "man.py", tmp_path / "new"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["inosync.8", "inosync.conf.5"]
