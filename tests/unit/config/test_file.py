"""A configuration file on disk: whether it is trusted, and how it is run."""

from __future__ import annotations

import os
import py_compile
import stat
import sys
from pathlib import Path

import pytest
from support.configs import mistakes, refused, text, write

from inosync.config import file
from inosync.config.load import load
from inosync.config.timetable import constant


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


def test_every_directory_on_the_way_counts(here: Path) -> None:
    (here / "loose/etc").mkdir(parents=True)
    for directory in (here / "loose", here / "loose/etc"):
        directory.chmod(0o755)
    write(text(), "loose/etc/conf.py")
    (here / "direct").symlink_to("loose/../loose/etc")
    (here / "second").symlink_to(here / "loose/hop")
    (here / "loose/hop").symlink_to("../file.py")
    write(text(), "file.py")
    ways = ("loose/etc/conf.py", "direct/conf.py", "direct/../../file.py", "second", "./loose/hop")
    for way in ways:
        assert load(way)
    (here / "loose").chmod(0o777)
    for way in ways:
        assert refused(way) == f"{here}/loose: is writable by others; chmod go-w {here}/loose"
    (here / "loose").chmod(0o1777)
    for way in ways:
        assert load(way)
    assert load("file.py")


def test_links_that_go_in_a_circle_are_a_mistake(here: Path) -> None:
    (here / "conf.py").symlink_to("conf.py")
    assert refused("conf.py").startswith("conf.py: cannot be read: Too many levels of symbolic links")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives anything away")
def test_what_belongs_to_somebody_else_in_a_sticky_directory_is_not_followed(here: Path) -> None:
    write(text(), "file.py")
    (here / "sticky").mkdir()
    (here / "sticky").chmod(0o1777)
    link = here / "sticky/conf.py"
    link.symlink_to("../file.py")
    assert load("sticky/conf.py")
    os.lchown(link, 1, 1)
    assert refused("sticky/conf.py") == f"{link}: belongs to user 1; chown -h root {link}"
    (here / "sticky").chmod(0o755)
    assert load("sticky/conf.py")
    (here / "sticky").chmod(0o1777)
    (here / "sticky/theirs/etc").mkdir(parents=True)
    (here / "sticky/theirs/etc").chmod(0o755)
    write(text(), "sticky/theirs/etc/conf.py")
    (here / "sticky/theirs").chmod(0o755)
    assert load("sticky/theirs/etc/conf.py")
    os.chown(here / "sticky/theirs", 1, 1)
    assert f"{here}/sticky/theirs: belongs to user 1" in refused("sticky/theirs/etc/conf.py")


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
def test_what_a_broken_file_says_in_a_line_of_its_own(source: str, found: str | None) -> None:
    Path("conf.py").write_text(source)
    assert file.literal("conf.py", "rundir") == found


@pytest.mark.usefixtures("here")
def test_what_a_file_says_that_others_can_write_counts_for_nothing() -> None:
    Path("conf.py").write_text('rundir = "/run/theirs"\n')
    assert file.literal("conf.py", "rundir") == "/run/theirs"
    Path("conf.py").chmod(0o666)
    assert file.literal("conf.py", "rundir") is None


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


@pytest.mark.parametrize("name", ["inosync_test_beside.py", "inosync_test_beside/__init__.py"])
@pytest.mark.parametrize("loose", ["the module", "where it lies", "where its link leads through"])
def test_a_module_that_others_can_write_is_not_run(here: Path, name: str, loose: str) -> None:
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


def test_what_is_in_a_package_is_not_run_either(here: Path) -> None:
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


def test_a_module_beside_the_file_hides_no_other(here: Path) -> None:
    write("1 / 0\n", str(here / "json.py"))
    write("1 / 0\n", str(here / "colorsys.py"))
    sys.modules.pop("colorsys", None)
    assert load(write("import json, colorsys\nassert colorsys.rgb_to_hsv\n" + text()))
