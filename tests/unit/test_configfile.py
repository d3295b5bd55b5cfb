"""A configuration file on disk: whether it is trusted, and how it is run."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
from support.configs import mistakes, refused, text, write

from inosync.config import load
from inosync.policy.timetable import constant


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("path", "mistake"),
    [
        ("missing.py", "missing.py: cannot be read: No such file or directory"),
        ("a", "a: is a directory; name a configuration file with -c"),
        ("file/x", "file/x: cannot be read: Not a directory"),
        ("x\0", r"x\x00: is not the name of a file"),
        ("x\n", r"x\n: cannot be read: No such file"),
        ("/dev/null", "/dev/null: is not a file"),
    ],
)
def test_a_path_that_is_no_file_is_refused(path: str, mistake: str) -> None:
    assert refused(path).startswith(mistake)


@pytest.mark.usefixtures("here")
def test_a_fifo_is_refused_without_waiting_for_it() -> None:
    os.mkfifo("fifo")
    assert refused("fifo") == "fifo: is not a file; name a configuration file with -c"


@pytest.mark.usefixtures("here")
def test_a_file_that_is_not_utf_8_is_refused_with_its_line() -> None:
    write("")
    Path("conf.py").write_bytes(b"# one\n# caf\xe9\n")
    assert refused("conf.py").startswith("conf.py:2: is not UTF-8")
    Path("conf.py").write_bytes(b"\xef\xbb\xbf" + text().encode())
    assert load("conf.py")


@pytest.mark.usefixtures("here")
def test_a_file_that_cannot_be_opened_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    assert refused("conf.py").startswith("conf.py: cannot be read: Permission denied; ")


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
@pytest.mark.usefixtures("here")
def test_a_file_that_others_can_write_is_not_run(mode: int) -> None:
    write("raise SystemExit")
    os.chmod("conf.py", mode)
    assert refused("conf.py") == "conf.py: is writable by others; chmod go-w conf.py"


@pytest.mark.parametrize(("mode", "good"), [(0o775, False), (0o777, False), (0o1777, True), (0o755, True)])
def test_a_directory_that_others_can_write_is_like_the_file(here: Path, mode: int, good: bool) -> None:
    (here / "etc").mkdir()
    write(text(), "etc/conf.py")
    (here / "etc").chmod(mode)
    if good:
        assert load("etc/conf.py")
    else:
        assert refused("etc/conf.py").endswith(f"etc: is writable by others; chmod go-w {here}/etc")


def test_the_directory_that_a_link_leads_to_counts_as_well(here: Path) -> None:
    (here / "etc").mkdir()
    write(text(), "etc/conf.py")
    (here / "etc").chmod(0o777)
    (here / "link.py").symlink_to("etc/conf.py")
    assert "etc: is writable by others" in refused("link.py")


@pytest.mark.usefixtures("here")
def test_a_file_of_another_user_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    write("raise SystemExit")
    real, uid = os.fstat, os.geteuid() + 1

    def owned_by_another(fd: int) -> os.stat_result:
        return os.stat_result((*tuple(real(fd))[: stat.ST_UID], uid, *tuple(real(fd))[stat.ST_UID + 1 :]))

    monkeypatch.setattr(os, "fstat", owned_by_another)
    assert refused("conf.py") == f"conf.py: belongs to user {uid}; chown root conf.py"


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
def test_a_file_that_cannot_be_run_gets_one_line(source: str, mistake: str) -> None:
    (line,) = mistakes(source)
    assert mistake in line


@pytest.mark.usefixtures("here")
def test_values_of_the_files_own_classes_cannot_do_harm() -> None:
    source = "class C:\n    def __repr__(self): raise OSError\nrspeed = C()\nrsync = C()\nzzz = C()\n"
    assert len(mistakes(source + text())) == 3


@pytest.mark.usefixtures("here")
def test_helpers_may_have_any_name() -> None:
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
