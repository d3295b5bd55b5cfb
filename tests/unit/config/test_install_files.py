"""``--install-files``: where each file goes, and what units call."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from inosync import cli
from inosync.config import install_files

CHECKOUT = Path(__file__).resolve().parents[3]
MAN_PAGES_ARE_MISSING = (
    "inosync: inosync.8, inosync.conf.5: not in this installation; bin/docs man makes man pages\n"
)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """One file of each name, as an installation has them."""
    source = tmp_path / "source"
    source.mkdir()
    for name in install_files.PLACES:
        (source / name).write_text(f"# {name}\nExecStart=inosync -c x\nExecReload=inosync -s reload\n")
    return {name: str(source / name) for name in install_files.PLACES}


def test_files_go_to_their_places_readable_for_all(tmp_path: Path, files: dict[str, str]) -> None:
    before = os.umask(0o077)
    try:
        written = list(install_files.install(str(tmp_path / "prefix"), files, "inosync"))
    finally:
        os.umask(before)
    assert written == [str(tmp_path / "prefix" / place) for place in install_files.PLACES.values()]
    for name, place in install_files.PLACES.items():
        path = tmp_path / "prefix" / place
        assert path.read_text() == Path(files[name]).read_text()
        assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("program", "called"),
    [
        ("/opt/inosync/bin/inosync", "/opt/inosync/bin/inosync"),
        ("/opt/with space/inosync", "inosync"),
        ("/opt/100%/inosync", "inosync"),
        ("inosync", "inosync"),
    ],
)
def test_units_call_the_program_if_its_path_is_plain(
    tmp_path: Path, files: dict[str, str], program: str, called: str
) -> None:
    list(install_files.install(str(tmp_path), files, program))
    unit = (tmp_path / "lib/systemd/system/inosync@.service").read_text().splitlines()
    assert unit[1:] == [f"ExecStart={called} -c x", f"ExecReload={called} -s reload"]
    assert "ExecStart=inosync " in (tmp_path / "share/man/man8/inosync.8").read_text()


def test_older_files_are_replaced_and_links_are_not_followed(tmp_path: Path, files: dict[str, str]) -> None:
    place = tmp_path / install_files.PLACES["completion.bash"]
    place.parent.mkdir(parents=True)
    (tmp_path / "other").write_text("other")
    place.symlink_to(tmp_path / "other")
    for _ in range(2):
        list(install_files.install(str(tmp_path), files, "inosync"))
    assert not place.is_symlink()
    assert (tmp_path / "other").read_text() == "other"
    assert [path.name for path in place.parent.iterdir()] == ["inosync"]


def test_units_of_the_checkout_call_the_program(tmp_path: Path) -> None:
    files = {name: str(CHECKOUT / "conf" / name) for name in ("inosync.service", "inosync@.service")}
    for path in install_files.install(str(tmp_path), files, "/x/inosync"):
        calls = [line for line in Path(path).read_text().splitlines() if line.startswith(("ExecS", "ExecR"))]
        assert len(calls) == 2
        assert all("=/x/inosync -c /etc/inosync/" in line for line in calls)


def test_install_files_says_what_it_has_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--install-files", str(tmp_path)]) == 0
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()), "only a daemon holds signals back"
    said = capsys.readouterr()
    assert f"{tmp_path}/share/bash-completion/completions/inosync is written" in said.out.splitlines()
    assert said.out.splitlines()[-1] == "Then: systemctl daemon-reload"
    has_man_pages = (tmp_path / "share/man/man8/inosync.8").exists()
    lacking = "" if has_man_pages else MAN_PAGES_ARE_MISSING
    assert said.err == lacking


def test_install_files_names_what_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lib").write_text("no directory")
    assert cli.main(["--install-files", str(tmp_path)]) == cli.FAILED
    assert capsys.readouterr().err == f"inosync: {tmp_path}/lib/systemd: Not a directory\n"
