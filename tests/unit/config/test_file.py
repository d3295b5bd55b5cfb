"""A configuration file on disk: whether it is trusted, and how it is run."""

from __future__ import annotations

import os
import py_compile
import sys
from pathlib import Path

import pytest
from support.configs import mistakes, refused, text, write

from inosync.config import file
from inosync.config.load import load
from inosync.config.timetable import constant


@pytest.mark.usefixtures("here")
def test_file_that_is_not_utf_8_is_refused_with_its_line() -> None:
    write("")
    Path("conf.py").write_bytes(b"# one\n# caf\xe9\n")
    assert refused("conf.py").startswith("conf.py:2: is not UTF-8")
    Path("conf.py").write_bytes(b"\xef\xbb\xbf" + text().encode())
    assert load("conf.py")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("source", "mistake"),
    [
        ("a = 1\nwpaths = [\n", "conf.py:2: SyntaxError: '[' was never closed"),
        ("print 'x'\n", "conf.py:1: SyntaxError: Missing parentheses"),
        (" x = 1\n", "conf.py:1: IndentationError: unexpected indent"),
        ("x = 1\0", "null bytes"),
        ("x = " + "(" * 500 + ")" * 500, "conf.py"),
        ("x = " + "-" * 100_000 + "1", "conf.py"),
        ("\nx = y\n", "conf.py:2: NameError: name 'y' is not defined"),
        ("def f():\n    1 / 0\n\nf()\n", "conf.py:2: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)\n", "conf.py:2: SystemExit: 3"),
        ("raise KeyboardInterrupt\n", "conf.py:1: KeyboardInterrupt"),
        ("raise ValueError('a\\nb')\n", r"conf.py:1: ValueError: a\nb"),
        ("class E(Exception):\n    def __str__(self): 1 / 0\nraise E\n", "conf.py:3: E"),
        ("def f(): f()\nf()\n", "conf.py:1: RecursionError"),
        ("import no_such_module_at_all\n", "conf.py:1: ModuleNotFoundError: No module named"),
    ],
)
def test_file_that_cannot_be_run_gets_one_line(source: str, mistake: str) -> None:
    (line,) = mistakes(source)
    assert mistake in line


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('rundir = "/run/mine"\nx = (', "/run/mine"),
        ("rundir='/a'  # the first\nrundir = '''/b'''\n1/0\n", "/b"),
        ('x = 1\n    rundir = "/indented"\n', None),
        ('# rundir = "/comment"\n)', None),
        ('rundir = "/begun\n', None),
        ('rundir = here + "/run"\n', None),
        ('rundir = os.getenv("X")\nx = (', None),
        ('rundirs = "/other"\n)', None),
        ("rundir == '/a'\n)", None),
        ("rundir = {[]: 1}\n)", None),
        ('rundir = "/\\d"\n)', "/\\d"),
        (f"rundir = {'(' * 5000}\n", None),
        ("", None),
    ],
)
@pytest.mark.usefixtures("here")
def test_literal_is_found_in_a_broken_file(source: str, found: str | None) -> None:
    Path("conf.py").write_text(source)
    assert file.literal("conf.py", "rundir") == found


@pytest.mark.usefixtures("here")
def test_literal_of_a_file_that_others_can_write_is_ignored() -> None:
    Path("conf.py").write_text('rundir = "/run/theirs"\n')
    assert file.literal("conf.py", "rundir") == "/run/theirs"
    Path("conf.py").chmod(0o666)
    assert file.literal("conf.py", "rundir") is None


@pytest.mark.usefixtures("here")
def test_values_of_hostile_classes_do_no_harm() -> None:
    source = "class C:\n    def __repr__(self): raise OSError\nrspeed = C()\nrsync = C()\nzzz = C()\n"
    assert len(mistakes(source + text())) == 3


@pytest.mark.usefixtures("here")
def test_helpers_can_have_any_name() -> None:
    source = (
        "from __future__ import annotations\nimport os, os.path as path\nfrom typing import Any\n"
        "def expand(x): return x\nclass Site: pass\n_own = 1\nf = lambda: 0\n"
    )
    assert load(write(source + text()))


def test_modules_beside_the_file_are_read_anew_and_leave_nothing(here: Path) -> None:
    path_before, modules_before = list(sys.path), set(sys.modules)
    for rspeed in (1, 2):
        (here / "inosync_test_common.py").write_text(f"speed = {rspeed}\nlonger = {'1' * rspeed}\n")
        source = (
            "import os\nfrom inosync_test_common import speed as rspeed\n_dir = os.path.dirname(__file__)\n"
        )
        assert load(write(source + text())).nodes[0].rspeed == constant(rspeed)
    assert sys.path == path_before
    assert "inosync_test_common" not in set(sys.modules) - modules_before
    assert not list(here.rglob("__pycache__"))


@pytest.mark.parametrize("name", ["inosync_test_beside.py", "inosync_test_beside/__init__.py"])
@pytest.mark.parametrize("loose", ["the module", "where it lies", "where its link leads through"])
def test_module_that_others_can_write_is_not_run(here: Path, name: str, loose: str) -> None:
    (here / "etc").mkdir(mode=0o755)
    module = here / "etc" / name
    module.parent.mkdir(mode=0o755, exist_ok=True)
    write(f"open({str(here / 'ran')!r}, 'w').close()\n", str(module))
    write("try:\n    import inosync_test_beside\nexcept ImportError:\n    pass\n" + text(), "etc/conf.py")
    assert load("etc/conf.py")
    (here / "ran").unlink()
    at = module
    if loose == "the module":
        module.chmod(0o666)
    else:
        (here / "loose").mkdir()
        (here / "loose").chmod(0o777)
        at = here / "loose"
        module.rename(at / "code.py")
        module.symlink_to(at / "code.py")
    if loose == "where its link leads through":
        module.unlink()
        module.symlink_to(at / "link.py")
        (at / "link.py").symlink_to(here / "code.py")
        (at / "code.py").rename(here / "code.py")
    assert refused("etc/conf.py") == f"{at}: is writable by others; chmod go-w {at}"
    assert not (here / "ran").exists()


def test_submodule_that_others_can_write_is_not_run(here: Path) -> None:
    package = here / "inosync_test_package"
    (package / "deep").mkdir(parents=True)
    for directory in (package, package / "deep"):
        directory.chmod(0o755)
    write("from .deep import last\n", str(package / "__init__.py"))
    write("rspeed = 7\n", str(package / "deep/last.py"))
    source = "import inosync_test_package.deep.last as _last\nrspeed = _last.rspeed\n" + text()
    assert load(write(source)).nodes[0].rspeed == constant(7)
    assert not [name for name in sys.modules if name.startswith("inosync_test_package")]
    (package / "deep/last.py").chmod(0o666)
    assert refused("conf.py").startswith(f"{package}/deep/last.py: is writable by others; ")


def test_bytecode_beside_the_source_is_not_run(here: Path) -> None:
    module = Path(write("rspeed = 1\n", str(here / "inosync_test_cached.py")))
    cached = Path(py_compile.compile(str(module)) or "")
    module.write_text("rspeed = 2\n")  # of the same size, and made to be of the same time
    when = int.from_bytes(cached.read_bytes()[8:12], "little")
    os.utime(module, (when, when))
    source = "from inosync_test_cached import rspeed\n" + text()
    assert load(write(source)).nodes[0].rspeed == constant(2)


def test_module_beside_the_file_hides_no_other(here: Path) -> None:
    write("1 / 0\n", str(here / "json.py"))
    write("1 / 0\n", str(here / "colorsys.py"))
    sys.modules.pop("colorsys", None)
    assert load(write("import json, colorsys\nassert colorsys.rgb_to_hsv\n" + text()))
