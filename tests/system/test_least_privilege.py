"""The manual's examples of nodes with the least privileges work as they are printed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from support.daemon import CHECKOUT, Daemon, MakeDaemon
from support.rsyncd import Rsyncd
from support.sshd import Sshd
from support.wait import until
from support.warm import FAST

IS_ROOT = os.geteuid() == 0
SECRET = "a secret"
MAX_REMOVALS = 20


def block(after: str) -> str:
    """Return the manual's literal block after the first paragraph that ends with these words."""
    text = (CHECKOUT / "docs" / "nodes.rst").read_text()
    found = re.search(re.escape(after) + r"::\n\n((?:    .*\n|\n)+)", text)
    assert found, after
    return textwrap.dedent(found[1])


def put(text: str, values: Mapping[str, str]) -> str:
    """Replace words of an example, each of which must occur."""
    for old, new in values.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def fill(tree: Path) -> None:
    (tree / "directory/sub").mkdir(parents=True)
    for name in ("a", "b", "directory/f", "directory/sub/g"):
        (tree / name).write_text(name)
    (tree / "link").symlink_to("a")


def listing(tree: Path) -> dict[str, str]:
    """Return the entries below a directory with the contents of files."""
    return {
        str(path.relative_to(tree)): path.read_text() if path.is_file() and not path.is_symlink() else ""
        for path in tree.rglob("*")
    }


def mirror(daemon: Daemon, config: dict[str, object], tree: Path, copy: Path) -> None:
    """Do all that inosync asks of a node: full mirrors, batches, deletions, verifications, warm rsyncs."""
    daemon.configure({**config, "rverify": 0})

    def level() -> bool:
        assert "Traceback" not in daemon.log()
        return listing(tree) == listing(copy) and set(daemon.states().values()) == {"ok"}

    def until_level() -> None:
        try:
            until(level, 60, "the node to be level")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{daemon.titles()}\n{daemon.log_tail()}") from None

    (tree / "old").mkdir()
    (tree / "old/f").write_text("f")
    daemon.start()
    until_level()
    (tree / "a").unlink()
    (tree / "b").write_text("other")
    (tree / "new").write_text("new")
    until_level()
    shutil.rmtree(tree / "directory")
    (tree / "directory").write_text("a file")
    until_level()
    (tree / "directory").unlink()
    (tree / "directory/again").mkdir(parents=True)
    (tree / "directory/again/f").write_text("f")
    until_level()
    # What was just sent, or is in the root, would be missed before (remote_targets).
    (copy / "old/f").unlink()
    (copy / "old/extra").mkdir()
    daemon.configure(config)
    daemon.hup()
    daemon.until_logged(r": verified in .* 2 differences, sent again")
    until_level()
    since = len(daemon.log())
    daemon.until_logged(r": verified in .*, 0 differences", since=since)
    assert not re.search("WARNING(?!.*sent again)|ERROR", daemon.log()), daemon.log()
    # A node counts what it would lose.
    (tree / "large").mkdir()
    for number in range(MAX_REMOVALS):
        (tree / f"large/{number}").touch()
    until_level()
    (tree / "large").rename(tree.parent / "large")
    daemon.until_logged(rf"has lost {MAX_REMOVALS + 1} entries, in \S+/large, more than rmaxdelete")
    assert len(list((copy / "large").iterdir())) == MAX_REMOVALS
    os.kill(daemon.pid, signal.SIGUSR2)
    until_level()
    assert daemon.stop() == 0


def tries(words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        shlex.split(words),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "LC_ALL": "C", **(env or {})},
    )


Configured = Callable[[Path, str, Mapping[str, str]], dict[str, object]]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    fill(tmp_path / "tree")
    return tmp_path / "tree"


def settings(tree: Path, example: str) -> dict[str, object]:
    """Return a configuration with the settings of the example."""
    found: dict[str, object] = {}
    exec(example, found)
    own = {name: found[name] for name in ("rpaths", "rnodes")}
    often = {"rverify": 1, "rchecksum": True, "rmaxdelete": MAX_REMOVALS}
    usual = {"extra": "-z --partial-dir=.part", "rspeed": 50_000}
    return {"wpaths": [f"{tree}/"], **own, **FAST, **often, **usual}


@pytest.mark.slow
def test_example_key_allows_writing_below_one_directory_only(
    tmp_path: Path, tree: Path, own_sshd: Sshd, daemon: MakeDaemon
) -> None:
    rrsync = shutil.which("rrsync")
    if rrsync is None:
        pytest.skip("rrsync is not installed")
    mirrored = tmp_path / "mirror"
    mirrored.mkdir()
    (mirrored / "out").symlink_to(tmp_path)
    line = block("``~/.ssh/authorized_keys`` on the node")
    key = (own_sshd.home / "user_key.pub").read_text().split()
    line = put(line, {"ssh-ed25519 AAAA...": " ".join(key[:2]), "/srv/mirror": str(mirrored)})
    line = line.replace('"rrsync ', f'"{rrsync} ')
    (own_sshd.home / "authorized_keys").write_text(line)
    example = put(block("for ``/srv/mirror/www`` there"), {"mirror@a.mirror.com:": own_sshd.node("a")})
    config = settings(tree, example)
    mirror(daemon(config, env=own_sshd.env()), config, tree, mirrored / "www")
    # The key allows nothing else.
    (tmp_path / "stolen").mkdir()
    ssh = f"ssh -F {own_sshd.ssh_config}"
    for words in (
        f"{ssh} node-a id",
        f"rsync -a -e '{ssh}' node-a:www/ {tmp_path}/stolen/",
        f"rsync -a -e '{ssh}' {tree}/ node-a:out/",
        f"rsync -a -e '{ssh}' {tree}/ node-a:../outside/",
    ):
        done = tries(words)
        assert done.returncode != 0, (words, done)
    assert list((tmp_path / "stolen").iterdir()) == []
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.skipif(not IS_ROOT, reason="only root can start a daemon that changes its root and its user")
@pytest.mark.parametrize("counts", [True, False])
def test_example_module_is_writable_for_one_user_and_readable_for_none(
    tmp_path: Path, tree: Path, daemon: MakeDaemon, counts: bool
) -> None:
    copy = tmp_path / "mirror"
    copy.mkdir()
    shutil.chown(copy, "nobody", "nogroup")
    secrets = tmp_path / "secrets"
    for path, text in ((secrets, f"inosync:{SECRET}\n"), (tmp_path / "b.secret", f"{SECRET}\n")):
        path.write_text(text)
        path.chmod(0o600)
    server = Rsyncd(tmp_path / "rsyncd", {})
    example = put(
        block("``/etc/rsyncd.conf``"),
        {
            "uid = mirror": "uid = nobody",
            "gid = mirror": "gid = nogroup",
            "/srv/mirror/www": str(copy),
            "/etc/rsyncd.secrets": str(secrets),
            "192.0.2.10": "127.0.0.1",
        },
    )
    if not counts:  # as we had advised before bytes were counted
        assert " !stats " in example, "it was no test"
        example = example.replace(" !stats ", " ")
    own = f"address = 127.0.0.1\nport = {server.port}\nlog file = {server.logfile}\nreverse lookup = no\n"
    server.config.write_text(own + f"lock file = {tmp_path}/rsyncd.lock\n" + example)
    server.start()
    try:
        ours = put(
            block("that only its owner can read"),
            {
                "b.mirror.com": f"127.0.0.1:{server.port}",
                "/etc/inosync/b.secret": str(tmp_path / "b.secret"),
            },
        )
        config = settings(tree, ours)
        mirror(daemon(config), config, tree, copy)
        assert {path.lstat().st_uid for path in copy.rglob("*")} == {copy.stat().st_uid}
        module = f"rsync://inosync@127.0.0.1:{server.port}/www/"
        login = f"--password-file={tmp_path}/b.secret"
        assert tries(f"rsync -r {login} {tree}/ {module}").returncode == 0
        for words in (
            f"rsync -r {login} {module} {tmp_path}/stolen/",
            f"rsync -r {tree}/ {module.replace('inosync@', '')}",
            f"rsync -r --remove-source-files {login} {module} {tmp_path}/stolen/",
            f"rsync -r --remote-option=--log-file=x {login} {tree}/ {module}",
            f"rsync -r --backup-dir=x {login} {tree}/ {module}",
        ):
            done = tries(words)
            assert done.returncode != 0, (words, done)
    finally:
        server.kill()
