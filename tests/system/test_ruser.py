"""``ruser``: root starts the daemon, which goes on as a user that can read everything and no more."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import stat
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import procs
from support.daemon import Daemon, MakeDaemon
from support.rsyncd import MakeRsyncd
from support.sshd import Sshd
from support.wait import until
from support.warm import FAST

IS_ROOT = os.geteuid() == 0
NOBODY = pwd.getpwnam("nobody")
root_only = pytest.mark.skipif(not IS_ROOT, reason="only root can be another user")
READ, LEASE = 1 << 2, 1 << 28
"""Capabilities as bits: CAP_DAC_READ_SEARCH, CAP_LEASE."""


@pytest.fixture
def outside() -> Iterator[Path]:
    """A directory that every user can reach, for a local node."""
    home = Path(tempfile.mkdtemp(prefix="inosync-ruser-"))
    try:
        home.chmod(0o755)
        yield home
    finally:
        shutil.rmtree(home)


def fill(tree: Path) -> None:
    (tree / "closed/deeper").mkdir(parents=True)
    for name in ("f", "closed/f", "closed/deeper/f"):
        (tree / name).write_text(name)
        (tree / name).chmod(0o600)
    for directory in (tree / "closed/deeper", tree / "closed", tree):
        directory.chmod(0o700)


def status(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def wrong_rights(daemon: Daemon) -> list[str]:
    """Return which users and capabilities of the daemon's processes are wrong."""
    found = []
    for process in procs.family([daemon.pid]):
        now = status(process.pid)
        if not now or now["State"][0] in "ZX":
            continue
        own, kept = READ | LEASE if process.pid == daemon.pid else READ, READ
        if procs.title(process.pid).startswith("inosync: state"):
            own = kept = 0
        expected = {
            "Uid": "\t".join([str(NOBODY.pw_uid)] * 4),
            "Gid": "\t".join([str(NOBODY.pw_gid)] * 4),
            "Groups": str(NOBODY.pw_gid),
            **{f"Cap{name}": f"{own:016x}" for name in ("Prm", "Eff")},
            **{f"Cap{name}": f"{kept:016x}" for name in ("Inh", "Amb")},
        }
        found += [f"{procs.title(process.pid)}: {k} {now[k]}" for k, v in expected.items() if now[k] != v]
    return found


@root_only
def test_ruser_mirrors_what_only_root_can_read(
    tmp_path: Path, outside: Path, daemon: MakeDaemon, rsyncd: MakeRsyncd, own_sshd: Sshd
) -> None:
    tree = tmp_path / "tree"
    fill(tree)
    copies = {name: tmp_path / "nodes" / name for name in ("daemon", "ssh")}
    for copy in copies.values():
        copy.mkdir(parents=True)
    (outside / "tree").mkdir()
    shutil.chown(outside / "tree", "nobody")
    server = rsyncd({"daemon": copies["daemon"]})
    log = tmp_path / "log"
    config: dict[str, object] = {
        "wpaths": [str(tree)],
        "rpaths": ["tree"],
        "rnodes": [
            {"node": server.url("daemon"), "name": "daemon"},
            {"node": own_sshd.node("a", f"{copies['ssh']}/"), "name": "ssh"},
            {"node": f"{outside}/", "name": "local"},
        ],
        "ruser": "nobody",
        "logfile": str(log),
        "rverify": 1,
        **FAST,
    }
    one = daemon(config, env=own_sshd.env())
    one.start()
    pairs = [(tree, copy / "tree") for copy in copies.values()]

    def until_level() -> None:
        one.until_level(pairs)
        names = [path.relative_to(tree) for path in tree.rglob("*") if path.is_file()]
        local = outside / "tree"
        until(lambda: all((local / n).read_text() == (tree / n).read_text() for n in names), 60, "local")

    until_level()
    until(lambda: not wrong_rights(one), 60, "every process to have its rights, and no others")
    assert set(one.workers()) == {"daemon", "ssh", "local"}
    (tree / "closed/deeper/new").write_text("new")
    (tree / "closed/deeper/new").chmod(0o600)
    until_level()
    until(lambda: re.search(r"ssh: verified in .* 0 differences", log.read_text()), 60, "a verification")
    # A new worker has the same rights.
    old = one.workers()["daemon"]
    os.kill(old, signal.SIGKILL)
    until(lambda: one.workers().get("daemon") not in (None, old), 60, "another worker")
    (tree / "f").write_text("other")
    until_level()
    until(lambda: not wrong_rights(one), 60, "every process to have its rights, and no others")
    # The user owns the run directory and the log.
    assert {path.lstat().st_uid for path in (one.rundir, *one.rundir.rglob("*"), log)} == {NOBODY.pw_uid}
    assert stat.S_IMODE(one.rundir.stat().st_mode) == 0o700
    reload(one, log, {**config, "edelay": 1}, "reloaded")
    for other in ("root", None, "nobody:root"):
        reload(one, log, {**config, "ruser": other}, "ruser: ")
    until_level()
    assert "Traceback" not in log.read_text()
    assert one.stop() == 0
    assert list(one.rundir.iterdir()) == []
    # Root can start it again over its old files.
    one.configure(config)
    one.start()
    until_level()
    assert one.stop() == 0


def reload(one: Daemon, log: Path, config: dict[str, object], expected: str) -> None:
    one.configure(config)
    since = len(log.read_text())
    one.hup()
    until(lambda: expected in log.read_text()[since:], 60, f"{expected!r} in the log")


@root_only
def test_ruser_gets_what_root_left_in_the_run_directory(tmp_path: Path, daemon: MakeDaemon) -> None:
    fill(tmp_path / "tree")
    config = {
        "wpaths": [str(tmp_path / "tree")],
        "rpaths": [str(tmp_path / "copy")],
        "rnodes": ["h:"],
        **FAST,
    }
    one = daemon({**config, "rsync": "/bin/false"})
    one.start()
    one.kill9()
    assert {path.lstat().st_uid for path in one.rundir.iterdir()} == {0}
    one.configure({**config, "rsync": "/bin/false", "ruser": "nobody"})
    one.start()
    assert {path.lstat().st_uid for path in one.rundir.iterdir()} == {NOBODY.pw_uid}
    assert one.stop() == 0


HOOK = """#!/bin/sh
cat /proc/self/status >{out}/$1.new
cat {secret} >{out}/$1.secret
env >{out}/$1.env
mv {out}/$1.new {out}/$1.status
"""
FUNCTION = """
def on_sync(facts):
    import os, shutil
    try:
        open({secret!r}).read()
        os.mkdir({out!r} + "/function.secret")
    except PermissionError:
        pass
    shutil.copy("/proc/self/status", {out!r} + "/new")
    os.rename({out!r} + "/new", {out!r} + "/function.status")
"""


@root_only
@pytest.mark.parametrize("kind", ["program", "function"])
def test_hook_of_a_ruser_has_none_of_roots_rights(
    kind: str, tmp_path: Path, outside: Path, daemon: MakeDaemon
) -> None:
    fill(tmp_path / "tree")
    secret, hook = tmp_path / "secret", outside / "hook"
    secret.write_text("secret")
    secret.chmod(0o600)
    (outside / "copy").mkdir()
    (outside / "out").mkdir()
    for path in (outside / "copy", outside / "out"):
        shutil.chown(path, "nobody")
    hook.write_text(HOOK.format(out=outside / "out", secret=secret))
    hook.chmod(0o755)
    config: dict[str, object] = {
        "wpaths": [str(tmp_path / "tree")],
        "rpaths": ["copy"],
        "rnodes": [f"{outside}/"],
        "ruser": "nobody",
        **FAST,
    }
    text = "".join(f"{name} = {value!r}\n" for name, value in config.items())
    text += (
        f"on_sync = {[str(hook), kind]!r}\n"
        if kind == "program"
        else FUNCTION.format(out=str(outside / "out"), secret=str(secret))
    )
    one = daemon(text, env={"RSYNC_PASSWORD": "told to nobody"})
    one.start()
    found = outside / "out" / f"{kind}.status"
    until(found.exists, 60, "the hook to run")
    lines = dict(line.split(":", 1) for line in found.read_text().splitlines())
    assert lines["Uid"].split() == [str(NOBODY.pw_uid)] * 4
    assert {lines[name].strip() for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {f"{0:016x}"}
    if kind == "program":
        assert (outside / "out/program.secret").read_text() == ""
        assert "RSYNC_PASSWORD" not in (outside / "out/program.env").read_text()
    else:
        assert not (outside / "out/function.secret").exists()
    assert one.stop() == 0


@root_only
@pytest.mark.parametrize("ruser", [None, "daemon"])
def test_metrics_process_is_another_user_without_rights(
    ruser: str | None, tmp_path: Path, daemon: MakeDaemon
) -> None:
    fill(tmp_path / "tree")
    port = procs.free_port()
    one = daemon(
        {
            "wpaths": [str(tmp_path / "tree")],
            "rpaths": [str(tmp_path / "copy")],
            "rnodes": ["h:"],
            "rsync": "/bin/false",
            "rlisten": f"127.0.0.1:{port}",
            "ruser": ruser,
            **FAST,
        }
    )
    one.start()

    def answer() -> bytes:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/status.json", timeout=10) as reply:
                return bytes(reply.read())
        except OSError:
            return b""

    until(lambda: b'"nodes"' in answer(), 60, "the status")
    user = pwd.getpwnam(ruser or "nobody")
    title = f"inosync: metrics 127.0.0.1:{port}"
    [metrics] = [pid for pid in one.descendants() if procs.title(pid) == title]
    found = status(metrics)
    assert found["Uid"].split() == [str(user.pw_uid)] * 4
    assert found["Gid"].split() == [str(user.pw_gid)] * 4
    assert {found[f"Cap{name}"] for name in ("Prm", "Eff", "Inh", "Amb")} == {f"{0:016x}"}
    assert found["NoNewPrivs"] == "1"
    os.kill(one.pid, signal.SIGKILL)
    until(lambda: not status(metrics), 60, "its end with its master")


@pytest.mark.parametrize(
    ("ruser", "message"),
    [
        ("nobody here", "ruser: 'nobody here': there is no user 'nobody here'; write a user of this machine"),
        ("nobody:nogroup here", "there is no group 'nogroup here'"),
        (7, "ruser: 7: is not a string"),
    ],
)
def test_ruser_that_does_not_exist_is_refused_in_one_line(
    tmp_path: Path, daemon: MakeDaemon, ruser: object, message: str
) -> None:
    (tmp_path / "tree").mkdir()
    one = daemon({"wpaths": [f"{tmp_path}/tree"], "rpaths": ["/x"], "rnodes": ["h:"], "ruser": ruser})
    one.start(ready=False)
    assert one.wait() == 78
    [line] = one.stderr.read_text().splitlines()
    assert message in line
