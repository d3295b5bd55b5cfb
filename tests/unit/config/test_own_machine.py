"""Which remote targets are known to be directories of this machine."""

from __future__ import annotations

import os
import pwd
import shlex
import socket
from pathlib import Path

import pytest

from inosync.config.own_machine import directory_here
from inosync.config.targets import check_target

HOME = pwd.getpwuid(os.geteuid()).pw_dir
CONF = """
path = /global
uid = nobody
[www]
    comment = [not a module]
    path = /srv/www
[ my files ]
  Path=/srv/files
[odd]
    path = /home/%USER%
[relative]
    path = srv
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("RSYNC_RSH", "RSYNC_CONNECT_PROG"):
        monkeypatch.delenv(variable, raising=False)


def here(tmp_path: Path, node: str, rpath: str = "", extra: str = "") -> str:
    (tmp_path / "rsyncd.conf").write_text(CONF)
    return directory_here(check_target(node, rpath), shlex.split(extra), str(tmp_path / "rsyncd.conf"))


@pytest.mark.parametrize(
    ("node", "rpath", "expected"),
    [
        ("localhost:", "/var/www", "/var/www"),
        ("LOCALHOST:", "/var/www/", "/var/www"),
        ("root@127.0.0.1:", "/var/www", "/var/www"),
        ("[::1]:", "/var/www", "/var/www"),
        (f"{socket.gethostname()}:", "/var/www", "/var/www"),
        ("localhost:", "www", f"{HOME}/www"),
        ("root@localhost:", "www", f"{pwd.getpwnam('root').pw_dir}/www"),
        ("no-such-user@localhost:", "www", ""),
        ("a.mirror.com:", "/var/www", ""),
        ("10.0.0.1:", "/var/www", ""),
        ("localhost::www", "", "/srv/www/"),
        ("localhost::www", "/a/b", "/srv/www/a/b"),
        ("rsync://127.1.2.3/my files", "", "/srv/files/"),
        ("rsync://localhost:873/www", "", "/srv/www/"),
        ("rsync://localhost:8730/www", "", ""),
        ("localhost::odd", "", ""),
        ("localhost::relative", "", ""),
        ("localhost::missing", "", ""),
        ("a.mirror.com::www", "", ""),
    ],
)
def test_directory_here_is_known_for_usual_ports_of_this_machine(
    tmp_path: Path, node: str, rpath: str, expected: str
) -> None:
    assert here(tmp_path, node, rpath) == expected


@pytest.mark.parametrize("extra", ["-e 'ssh -p 2222'", "--rsh=ssh", "--port=8730"])
def test_directory_here_is_unknown_behind_an_own_shell_or_port(tmp_path: Path, extra: str) -> None:
    node = "localhost::www" if "port" in extra else "localhost:/srv"
    assert here(tmp_path, node, extra=extra) == ""
    assert here(tmp_path, node, extra="-v") != ""


@pytest.mark.parametrize("variable", ["RSYNC_RSH", "RSYNC_CONNECT_PROG"])
def test_directory_here_is_unknown_if_the_environment_redirects(
    tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "program")
    node = "localhost:/srv" if variable == "RSYNC_RSH" else "localhost::www"
    assert here(tmp_path, node) == ""


def test_directory_here_is_unknown_without_the_daemons_file() -> None:
    assert directory_here(check_target("localhost::www", ""), (), "/none") == ""
