"""What setup.cfg promises is so."""

from __future__ import annotations

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

import inosync

CHECKOUT = Path(__file__).resolve().parents[2]


def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(CHECKOUT / "setup.cfg")
    return parser


def requirements(text: str) -> set[str]:
    lines = (line.strip() for line in text.splitlines())
    return {re.split(r"[\s<>=;]", line)[0] for line in lines if line and not line.startswith("#")}


def imported(directory: str) -> set[str]:
    """The top-level modules that are imported anywhere below a directory."""
    found = set()
    for path in (CHECKOUT / directory).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found


def test_version_comes_from_the_package() -> None:
    assert setup()["metadata"]["version"] == "attr: inosync.__version__"
    assert re.fullmatch(r"\d+\.\d+\.\d+", inosync.__version__)


def test_tools_check_for_the_oldest_python_that_is_supported() -> None:
    oldest = setup()["options"]["python_requires"].removeprefix(">=")
    tools = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]
    assert tools["mypy"]["python_version"] == oldest
    assert tools["ruff"]["target-version"] == "py" + oldest.replace(".", "")
    assert f"Programming Language :: Python :: {oldest}" in setup()["metadata"]["classifiers"]


def test_imports_of_the_package_are_requirements() -> None:
    foreign = imported("inosync") - set(sys.stdlib_module_names) - {"inosync"}
    required = requirements(setup()["options"]["install_requires"])
    extras = setup()["options.extras_require"]
    assert foreign <= required | requirements(extras["metrics"]) | requirements(extras["fleet"])
    # pyinotify is what needs it.
    assert required - foreign == {"pyasyncore"}


def test_imports_of_the_tests_are_in_the_extra() -> None:
    own = {"inosync", "support", "conftest", "bench", "chaos", "unit"}
    foreign = imported("tests") - set(sys.stdlib_module_names) - own
    foreign = {{"xdist": "pytest-xdist"}.get(name, name) for name in foreign}
    options = setup()
    known = requirements(options["options"]["install_requires"])
    known |= requirements(options["options.extras_require"]["test"])
    assert foreign <= known


def test_launcher_finds_the_checkout_from_anywhere(tmp_path: Path) -> None:
    link = tmp_path / "inosync"
    link.symlink_to(CHECKOUT / "bin" / "inosync")
    done = subprocess.run(
        [sys.executable, link, "--version"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert inosync.__version__ in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not (CHECKOUT / ".git").exists(), reason="no checkout: there is no list of files")
def test_sdist_holds_everything_but_what_is_made(tmp_path: Path) -> None:
    """Its own tests run from it."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, check=True).stdout
    files = {name for name in os.fsdecode(listed).split("\0") if name and (CHECKOUT / name).exists()}
    tree = tmp_path / "tree"
    for name in files:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, tree / name)
    script = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", script], cwd=tree, capture_output=True, check=True)
    [sdist] = tmp_path.glob("inosync-*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert files - held == {".gitignore"}


def test_requirements_of_debian_are_those_of_setup_cfg() -> None:
    """debhelper finds the Python packages; what it cannot find is named."""
    control = (CHECKOUT / "conf" / "debian" / "control").read_text()
    oldest = setup()["options"]["python_requires"].removeprefix(">=")
    assert f"X-Python3-Version: >= {oldest}\n" in control
    assert "${python3:Depends}" in control
    line = setup()["metadata"]["description"]
    assert f"Description: {line[0].lower()}{line[1:]}\n" in control
