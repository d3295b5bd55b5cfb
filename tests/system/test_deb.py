"""The Debian package: it is built, its files are in place, and its program runs."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from inosync import __version__

CHECKOUT = Path(__file__).resolve().parents[2]
PLACES = (
    "etc/inosync/",
    "etc/logrotate.d/inosync",
    "usr/lib/python3/dist-packages/inosync/",
    f"usr/lib/python3/dist-packages/inosync-{__version__}.dist-info/",
    "lib/systemd/system/",  # until Debian 12
    "usr/lib/systemd/system/",
    "usr/sbin/inosync",
    "usr/share/bash-completion/completions/inosync",
    "usr/share/doc/inosync/",
    "usr/share/lintian/overrides/inosync",
    "usr/share/man/man5/inosync.conf.5.gz",
    "usr/share/man/man8/inosync.8.gz",
    "usr/share/zsh/vendor-completions/_inosync",
)

TOOLS = ("dpkg-buildpackage", "dh", "pybuild")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)}: not installed"),
]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("deb")
    environment = {**os.environ, "DEBFULLNAME": "Some Packager", "DEBEMAIL": "packager@debian.org"}
    done = subprocess.run(
        ["bash", CHECKOUT / "bin" / "deb", home], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    return home / f"inosync_{__version__}_all.deb"


def said(*words: str | Path) -> str:
    return subprocess.run(["dpkg-deb", *words], capture_output=True, text=True, check=True).stdout


def test_package_metadata_equals_setup_cfg(package: Path) -> None:
    read = configparser.ConfigParser()
    read.read(CHECKOUT / "setup.cfg")
    assert said("--field", package, "Package").strip() == read["metadata"]["name"]
    assert said("--field", package, "Version").strip() == __version__
    assert said("--field", package, "Architecture").strip() == "all"
    needs = said("--field", package, "Depends")
    assert f"python3:any (>= {read['options']['python_requires'].lstrip('>= ')}" in needs
    for name in ("pyinotify", "setproctitle", "psutil"):
        assert name in read["options"]["install_requires"]
        assert f"python3-{name}" in needs
    assert "rsync" in needs


def test_package_puts_files_in_place_and_leaves_configuration_alone(package: Path, tmp_path: Path) -> None:
    listed = said("--contents", package).splitlines()
    files = {line.split(None, 5)[5].removeprefix("./") for line in listed if not line.startswith("d")}
    assert [name for name in files if not name.startswith(PLACES)] == []
    assert all(line.split()[1] == "root/root" for line in listed)
    assert [line for line in listed if line[5] == "w" or line[8] == "w"] == []
    sources = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "inosync").rglob("*.py")}
    installed = {
        name.removeprefix("usr/lib/python3/dist-packages/") for name in files if name.endswith(".py")
    }
    examples = {f"usr/share/doc/inosync/examples/{name}.py" for name in ("default", "fleet")}
    assert installed - examples == sources
    for conf in ("inosync.service", "inosync@.service", "inosync-sender@.service"):
        assert {f"lib/systemd/system/{conf}", f"usr/lib/systemd/system/{conf}"} & files
    said("--extract", package, tmp_path)
    assert list((tmp_path / "etc" / "inosync").iterdir()) == [], "a configuration is the operator's"
    assert (tmp_path / "var" / "lib" / "inosync").stat().st_mode & 0o777 == 0o700
    said("--control", package, tmp_path / "DEBIAN")
    for script in ("postinst", "prerm", "postrm"):
        done = subprocess.run(
            ["sh", "-n", tmp_path / "DEBIAN" / script], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
    check = subprocess.run(
        ["md5sum", "--quiet", "-c", tmp_path / "DEBIAN" / "md5sums"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (check.returncode, check.stdout) == (0, "")


def test_lintian_has_nothing_to_say(package: Path) -> None:
    lintian = shutil.which("lintian")
    if lintian is None:
        pytest.skip("lintian is not installed")
    done = subprocess.run(
        [lintian, "--allow-root", "--fail-on=error,warning", package],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_package_installs_a_program_that_runs(package: Path, tmp_path: Path) -> None:
    said("--extract", package, tmp_path / "root")
    for name in ("src", "node", "run"):
        (tmp_path / name).mkdir(mode=0o700)
    (tmp_path / "src" / "file").write_text("content")
    config = tmp_path / "conf.py"
    config.write_text(
        f"wpaths = [{str(tmp_path / 'src')!r}]\nrpaths = ['/']\nrnodes = [{str(tmp_path / 'node')!r}]\n"
        f"rundir = {str(tmp_path / 'run')!r}\nrsync = {shutil.which('rsync')!r}\n"
    )
    config.chmod(0o600)
    program = tmp_path / "root" / "usr" / "sbin" / "inosync"
    library = tmp_path / "root" / "usr" / "lib" / "python3" / "dist-packages"
    for words, expected in (
        (["--version"], f"inosync {__version__}"),
        (["-c", config, "--once"], "1 node: 1 ok"),
    ):
        done = subprocess.run(
            [sys.executable, program, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(library)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    assert (tmp_path / "node" / "file").read_text() == "content"
