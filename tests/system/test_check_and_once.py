"""``-t``, ``-p`` and ``--once``: what an operator runs before there is a daemon, or instead of one."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path

import pytest
from support import trees
from support.churn import HOSTILE
from support.daemon import CHECKOUT, FakeRsync, MakeDaemon
from support.real_rsync import IS_NEWEST
from support.rsyncd import MakeRsyncd
from support.sshd import Sshd

ROOT = os.geteuid() == 0
FLEET_MODULES = r"inosync\.(fleet|master\.fleet_|state\.saved_fleet|status\.far_nodes)|redis"
OK, FAILED, BEHIND, TROUBLE, USAGE, UNAVAILABLE, CONFIG = 0, 1, 1, 2, 64, 69, 78


def run(
    daemon: MakeDaemon,
    config: Mapping[str, object] | str,
    *words: str,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run inosync with these options."""
    made = daemon(config)
    return subprocess.run(
        [*made.command, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **(env or {})},
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    (path / "sub").mkdir(parents=True)
    (path / "sub" / "file").write_text("content")
    return path


def found(done: subprocess.CompletedProcess[str], node: str) -> str:
    """Return the line about a node."""
    [line] = [line for line in done.stdout.splitlines() if line.startswith(f"node {node}: ")]
    return line


# -t ------------------------------------------------------------------------------------------------------


def test_check_tries_nodes_of_every_kind_and_changes_nothing(
    tmp_path: Path, tree: Path, daemon: MakeDaemon, rsyncd: MakeRsyncd, sshd: Sshd
) -> None:
    places = {name: tmp_path / "nodes" / name for name in ("local", "ssh", "module")}
    for place in places.values():
        (place / "www").mkdir(parents=True)
        (place / "www" / "own").write_text("of the node")
    server = rsyncd({"m": places["module"]})
    config = {
        "wpaths": [f"{tree}/"],
        "rpaths": ["/www"],
        "rnodes": [
            {"node": str(places["local"]), "name": "local"},
            {"node": sshd.node("a", places["ssh"]), "name": "ssh"},
            {"node": server.url("m").rstrip("/"), "name": "module"},
            {"node": str(tmp_path / "nodes"), "name": "new"},
        ],
        "rexcludes": ["*.tmp"],
    }
    before = trees.snapshot(tmp_path / "nodes", content=True)
    done = run(daemon, config, "-t", env=sshd.env())
    assert (done.returncode, done.stderr) == (OK, "")
    for name in ("local", "ssh"):
        assert "reachable; writable; rsync " in found(done, name)
    assert "reachable; writing not tested (an rsync daemon " in found(done, "module")
    assert "the first mirror makes the directory" in found(done, "new")
    version = subprocess.run(
        ["rsync", "--version"], capture_output=True, text=True, check=True
    ).stdout.split()[2]
    assert found(done, "ssh").endswith(f"rsync {version}")
    assert "of protocol 3" in found(done, "module")
    assert f"tree {tree} -> /www" in done.stdout
    assert "  --exclude=*.tmp" in done.stdout
    assert "edelay = 10" in done.stdout.splitlines()
    assert done.stdout.splitlines()[-1] == "4 nodes: all can be mirrored to"
    assert trees.snapshot(tmp_path / "nodes", content=True) == before


def test_check_says_why_each_node_fails(
    tmp_path: Path, tree: Path, daemon: MakeDaemon, rsyncd: MakeRsyncd, sshd: Sshd
) -> None:
    server = rsyncd({"m": tmp_path / "m"}, options={"read only": "yes"})
    (tmp_path / "file").write_text("x")
    (tmp_path / "good").mkdir()
    config = {
        "wpaths": [str(tree)],
        "rpaths": ["/tree"],
        "rnodes": [
            {"node": server.url("m").rstrip("/"), "name": "read only"},
            {"node": server.url("other").rstrip("/"), "name": "unknown"},
            {"node": "rsync://127.0.0.1:9/m", "name": "nobody"},
            {"node": str(tmp_path / "not" / "there"), "name": "lost"},
            {"node": str(tmp_path / "file"), "name": "file"},
            {"node": sshd.node("a", tmp_path / "neither" / "there"), "name": "ssh"},
            {"node": str(tmp_path / "good"), "name": "good"},
        ],
    }
    done = run(daemon, config, "-t", env=sshd.env())
    assert (done.returncode, done.stderr) == (UNAVAILABLE, "")
    for name, why in {
        "read only": "read.only",
        "unknown": "Unknown module 'other'",
        "nobody": "Connection refused",
        "lost": "/not/there: does not exist, and rsync makes the last directory only",
        "file": "Not a directory",
        "ssh": "does not exist, and cannot be made",
    }.items():
        assert "FAILED: " in found(done, name)
        assert why.replace(".", " ") in found(done, name).replace("-", " ")
    assert "reachable" in found(done, "good")
    assert done.stdout.splitlines()[-1] == "7 nodes: NOT all can be mirrored to"


def test_check_asks_a_forced_command_only_for_rsync(
    tmp_path: Path, tree: Path, own_sshd: Sshd, daemon: MakeDaemon
) -> None:
    rrsync = shutil.which("rrsync")
    if rrsync is None:
        pytest.skip("rrsync is not installed")
    (tmp_path / "mirror" / "tree").mkdir(parents=True)
    keys = own_sshd.home / "authorized_keys"
    key = " ".join((own_sshd.home / "user_key.pub").read_text().split()[:2])
    config = {
        "wpaths": [str(tree)],
        "rpaths": ["tree"],
        "rnodes": [{"node": own_sshd.node("a"), "name": "a"}],
    }
    for option, code, expected in (
        ("-wo -no-lock", OK, "reachable; writing not tested (a forced command, or no POSIX shell); rsync of"),
        ("-ro -no-lock", UNAVAILABLE, "FAILED: "),
        ("-wo", UNAVAILABLE, "(put -no-lock behind rrsync on the node, "),
    ):
        keys.write_text(f'restrict,command="{rrsync} {option} {tmp_path}/mirror" {key}\n')
        done = run(daemon, config, "-t", env=own_sshd.env())
        assert (done.returncode, done.stderr) == (code, ""), done.stdout
        assert expected in found(done, "a")


@pytest.mark.parametrize("way", ["rrsync", "daemon"])
def test_check_knows_of_a_parent_that_does_not_exist(
    tmp_path: Path, tree: Path, own_sshd: Sshd, rsyncd: MakeRsyncd, daemon: MakeDaemon, way: str
) -> None:
    expected = {
        "tree": "reachable; writing not tested",
        "new": "the first mirror makes the directory",
        "other/new": "the first mirror makes the directory",
        "no/new": "FAILED: .*/no: does not exist there",
        "none/such/new": "FAILED: .*/none/such: does not exist there",
    }
    mirror = tmp_path / "mirror"
    for name in ("tree", "other"):
        (mirror / name).mkdir(parents=True)
    if way == "rrsync":
        if (rrsync := shutil.which("rrsync")) is None:
            pytest.skip("rrsync is not installed")
        key = " ".join((own_sshd.home / "user_key.pub").read_text().split()[:2])
        keys = own_sshd.home / "authorized_keys"
        keys.write_text(f'restrict,command="{rrsync} -wo -no-lock {mirror}" {key}\n')
        node = own_sshd.node("a", "./")
    else:
        node = rsyncd({"m": mirror}).url("m")
    rnodes = [{"node": f"{node}{place}", "name": place} for place in expected]
    config = {"wpaths": [str(tree)], "rpaths": [""], "rnodes": rnodes}
    done = run(daemon, config, "-t", env=own_sshd.env())
    assert (done.returncode, done.stderr) == (UNAVAILABLE, ""), done.stdout
    for place, what in expected.items():
        assert re.search(what, found(done, place)), found(done, place)
        assert ("FAILED" in found(done, place)) == ("FAILED" in what)
    assert sorted(path.name for path in mirror.rglob("*")) == ["other", "tree"]


def test_check_says_how_to_accept_a_host_key(
    tmp_path: Path, tree: Path, own_sshd: Sshd, daemon: MakeDaemon
) -> None:
    env = own_sshd.env_of_user(tmp_path / "home")
    config_of_ssh = tmp_path / "home" / "config"
    config_of_ssh.write_text(config_of_ssh.read_text().replace("StrictHostKeyChecking yes", ""))
    (own_sshd.home / "known_hosts").write_text("")
    node = {"node": f"root@{own_sshd.node('a', tmp_path / 'copy')}", "name": "a"}
    done = run(daemon, {"wpaths": [str(tree)], "rpaths": [""], "rnodes": [node]}, "-t", env=env)
    assert done.returncode == UNAVAILABLE
    assert "FAILED: Host key verification failed." in found(done, "a")
    assert "(log in once, " in found(done, "a")
    assert "ssh -l root node-a)" in found(done, "a")


@pytest.mark.parametrize("option", ["-t", "-p"])
def test_output_ends_quietly_when_nobody_reads_it(
    tmp_path: Path, tree: Path, daemon: MakeDaemon, option: str
) -> None:
    made = daemon({"wpaths": [str(tree)], "rpaths": [""], "rnodes": [f"{tmp_path}/node"]})
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*made.command, option], stdout=writer, stderr=subprocess.PIPE, timeout=120, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_check_never_asks_for_a_password(
    tmp_path: Path, tree: Path, rsyncd: MakeRsyncd, daemon: MakeDaemon
) -> None:
    """rsync asks on the terminal, whatever its standard input is (getpass(3))."""
    secrets = tmp_path / "secrets"
    secrets.write_text("u:secret\n")
    secrets.chmod(0o600)
    server = rsyncd({"m": tmp_path / "m"}, options={"auth users": "u", "secrets file": str(secrets)})
    node = {"node": server.url("m").replace("rsync://", "rsync://u@").rstrip("/"), "name": "a"}
    made = daemon({"wpaths": [str(tree)], "rpaths": [""], "rnodes": [node]})
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [*made.command, "-t"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:
        shown, _ = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == UNAVAILABLE
    assert "auth failed on module m (give the password by --password-file=FILE in extra)" in shown


def test_check_names_what_the_unit_closes(tree: Path, daemon: MakeDaemon) -> None:
    config = {"wpaths": [str(tree)], "rpaths": [""], "rnodes": [{"node": "/usr/no/such", "name": "a"}]}
    done = run(daemon, config, "-t")
    assert "ReadWritePaths=/usr/no/such" in found(done, "a")


def test_offline_check_tries_no_node(tree: Path, daemon: MakeDaemon) -> None:
    config = {"wpaths": [str(tree)], "rpaths": ["/x"], "rnodes": ["rsync://127.0.0.1:9/m"]}
    done = run(daemon, config, "-t", "--offline")
    assert (done.returncode, done.stderr) == (OK, "")
    assert "edelay = 10" in done.stdout.splitlines()
    assert "node " not in done.stdout
    done = run(daemon, {**config, "edelay": -1}, "-t", "--offline")
    assert (done.returncode, done.stdout) == (CONFIG, "")


# --init --------------------------------------------------------------------------------------------------


def init(*words: str | Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, CHECKOUT / "bin" / "inosync", "--init", *words]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)


def test_init_writes_a_configuration_that_is_right_but_for_its_trees(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "new.py"
    done = init(path)
    assert (done.returncode, done.stderr) == (OK, "")
    assert f"inosync -c {path} -t" in done.stdout
    assert path.read_text() == (CHECKOUT / "conf" / "default.py").read_text()
    assert path.stat().st_mode & 0o777 == 0o644
    checked = subprocess.run(
        [sys.executable, str(CHECKOUT / "bin" / "inosync"), "-c", str(path), "-t", "--offline"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    mistakes = checked.stderr.splitlines()
    assert [line for line in mistakes if "does not exist; make it" not in line] == []


def test_init_leaves_alone_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("mine")
    done = init(path)
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert done.stderr == f"inosync: {path}: File exists; nothing is written\n"
    assert path.read_text() == "mine"
    link = tmp_path / "link.py"
    link.symlink_to(tmp_path / "elsewhere")
    assert init(link).returncode == FAILED
    assert not (tmp_path / "elsewhere").exists()
    done = init(tmp_path / "no" / "such" / "a.py")
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert "No such file or directory; nothing is written" in done.stderr


def test_missing_configuration_names_init(tmp_path: Path) -> None:
    program = [sys.executable, str(CHECKOUT / "bin" / "inosync"), "-c", str(tmp_path / "none.py"), "-t"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == CONFIG
    assert "inosync --init" in done.stderr


@pytest.mark.parametrize("path", ['it\'s a $(touch oops) `touch oops` "place";', "plain", "-n", "a b\\c*"])
def test_check_quotes_paths_for_the_shell_on_the_node(
    tmp_path: Path, tree: Path, daemon: MakeDaemon, sshd: Sshd, path: str
) -> None:
    if path.startswith("it's") and not IS_NEWEST:
        pytest.skip("rsync before 3.5.0 does not see that such a directory exists")
    place = tmp_path / "node" / path
    place.mkdir(parents=True)
    config = {"wpaths": [f"{tree}/"], "rpaths": [f"/{path}"], "rnodes": [sshd.node("a", tmp_path / "node")]}
    done = run(daemon, config, "-t", env=sshd.env())
    assert done.returncode == OK, done.stdout
    assert "reachable; writable; rsync 3" in done.stdout
    assert list(tmp_path.rglob("oops")) == []


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_check_tries_nodes_as_the_user_of_ruser(tmp_path: Path, tree: Path, daemon: MakeDaemon) -> None:
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_mode & 0o5 != 0o5:
            parent.chmod(parent.stat().st_mode | 0o5)
    node = tmp_path / "node"
    (node / "tree").mkdir(parents=True)
    config = {"wpaths": [str(tree)], "rpaths": ["/tree"], "rnodes": [str(node)], "ruser": "nobody"}
    done = run(daemon, config, "-t")
    assert done.returncode == UNAVAILABLE
    assert "tree: cannot be written" in done.stdout
    shutil.chown(node / "tree", "nobody")
    done = run(daemon, config, "-t")
    assert done.returncode == OK, done.stdout


def test_check_reports_a_bad_configuration_and_tries_no_node(
    tmp_path: Path, tree: Path, daemon: MakeDaemon
) -> None:
    config = {"wpaths": [str(tree)], "rpaths": ["/x"], "rnodes": [str(tmp_path)], "edelay": -1}
    done = run(daemon, config, "-t")
    assert (done.returncode, done.stdout) == (CONFIG, "")
    assert "edelay: -1: is negative" in done.stderr


# --once --------------------------------------------------------------------------------------------------


def test_once_mirrors_everything_and_leaves_nothing_running(
    tmp_path: Path, tree: Path, daemon: MakeDaemon, sshd: Sshd
) -> None:
    nodes = [tmp_path / "nodes" / name for name in "ab"]
    for node in nodes:
        node.mkdir(parents=True)
    hooked = tmp_path / "hooked"
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\necho $INOSYNC_NAME $INOSYNC_FULL >> '{hooked}'\n")
    hook.chmod(0o755)
    config = {
        "wpaths": [str(tree)],
        "rpaths": ["/tree"],
        "rnodes": [{"node": str(nodes[0]), "name": "a"}, {"node": sshd.node("b", nodes[1]), "name": "b"}],
        "on_sync": [str(hook)],
    }
    done = run(daemon, config, "--once", env={**sshd.env(), "PYTHONPROFILEIMPORTTIME": "1"})
    said = done.stderr.splitlines()
    loaded = [line.split()[-1] for line in said if line.startswith("import time:")]
    assert (done.returncode, len(said) - len(loaded)) == (OK, 0)
    assert "inosync.worker.worker" in loaded
    assert [name for name in loaded if re.match(FLEET_MODULES, name)] == [], "there is none"
    for node in nodes:
        assert trees.diff(trees.snapshot(tree, True), trees.snapshot(node / "tree", True)) == []
    assert done.stdout.splitlines()[-1].startswith("2 nodes: 2 ok; 2 directories watched; up ")
    assert sorted(hooked.read_text().splitlines()) == ["a 1", "b 1"]


def test_calls_that_are_shown_do_what_they_say_when_pasted(
    tmp_path: Path, tree: Path, daemon: MakeDaemon, rsyncd: MakeRsyncd, sshd: Sshd
) -> None:
    """The whole output can be given to a shell, whatever the names and rules are."""
    places = {name: tmp_path / "nodes" / name for name in ("local", "ssh", "module")}
    for place in places.values():
        place.mkdir(parents=True)
    config = {
        "wpaths": [str(tree)],
        "rpaths": ["/tree"],
        "rnodes": [
            {"node": str(places["local"]), "name": "local"},
            {"node": sshd.node("a", places["ssh"]), "name": "ssh"},
            {"node": rsyncd({"m": places["module"]}).url("m").rstrip("/"), "name": "module"},
        ],
        "rexcludes": ["*.tmp", "it's $HOME"],
        "extra": ["--out-format=%n a 'b'"],
        "ruser": None,
    }
    for name in HOSTILE:
        (tree / os.fsdecode(name)).write_text("content")
    (tree / "x.tmp").write_text("content")
    before = trees.snapshot(tmp_path / "nodes")
    done = run(daemon, config, "-p", env=sshd.env())
    assert (done.returncode, done.stderr) == (OK, "")
    assert trees.snapshot(tmp_path / "nodes") == before
    count = len(HOSTILE) + 3
    assert done.stdout.count(f"{count} differences: {count} to send, 0 to delete") == 3
    env = os.environ | sshd.env()
    pasted = subprocess.run(
        ["bash", "-e"], input=done.stdout, capture_output=True, text=True, env=env, check=False
    )
    assert pasted.returncode == 0, pasted.stderr
    (tree / "x.tmp").unlink()
    for place in places.values():
        assert trees.diff(trees.snapshot(tree), trees.snapshot(place / "tree")) == []


def test_once_gives_up_an_unreachable_node_and_mirrors_the_others(
    tmp_path: Path, tree: Path, daemon: MakeDaemon
) -> None:
    (tmp_path / "node").mkdir()
    config = {
        "wpaths": [str(tree)],
        "rpaths": ["/tree"],
        "rnodes": [
            {"node": "rsync://127.0.0.1:9/m", "name": "dead"},
            {"node": f"{tmp_path}/node", "name": "good"},
        ],
        "rretry": (0.1, 0.2),
    }
    done = run(daemon, config, "--once")
    assert done.returncode == TROUBLE
    assert "WARNING: dead: failed to connect" in done.stderr
    rows = done.stdout.splitlines()
    assert rows[1].startswith("dead  retrying 3")
    assert rows[2].startswith("good  ok")
    assert (tmp_path / "node/tree/sub/file").read_text() == "content"


def test_once_gives_up_a_hopeless_node_after_its_first_try(
    tmp_path: Path, tree: Path, daemon: MakeDaemon
) -> None:
    (tmp_path / "node").mkdir()
    password = tmp_path / "password"
    password.write_text("secret")
    password.chmod(0o600)
    config = {
        "wpaths": [str(tree)],
        "rpaths": ["/tree"],
        "rnodes": [{"node": f"{tmp_path}/node", "name": "node"}],
        "extra": f"--password-file={password}",  # a usage error of rsync for a local node
        "rretry": (1_000_000, 1_000_000),
    }
    done = run(daemon, config, "--once")
    assert done.returncode == TROUBLE
    assert "WARNING: node: " in done.stderr
    assert done.stdout.splitlines()[1].startswith("node  retrying 1")


def test_once_reports_names_that_could_not_be_sent(tmp_path: Path, tree: Path, daemon: MakeDaemon) -> None:
    (tmp_path / "node").mkdir()
    rsync = FakeRsync(tmp_path)
    complaint = f'rsync: [sender] send_files failed to open "{tree}/sub/file": Permission denied (13)'
    rsync.fault("node", f'rsync "$@"; echo {shlex.quote(complaint)} >&2; exit 23')
    config = {
        "wpaths": [str(tree)],
        "rpaths": ["/tree"],
        "rnodes": [{"node": f"{tmp_path}/node", "name": "node"}],
        "rsync": str(rsync.path),
    }
    done = run(daemon, config, "--once")
    assert done.returncode == TROUBLE
    assert done.stdout.splitlines()[1].startswith("node  degraded")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-t", "--once"], "-t and --once do not go together"),
        (["-d", "--once"], "-d and --once do not go together"),
        (["-p", "-t"], "-t and -p do not go together"),
        (
            ["-s", "status", "-t"],
            "-s asks a daemon that runs; -d, -p, -t, --init, --once and --full are for one that does not",
        ),
    ],
)
def test_options_that_conflict_are_refused_in_one_line(
    tmp_path: Path, tree: Path, daemon: MakeDaemon, words: list[str], expected: str
) -> None:
    done = run(daemon, {"wpaths": [str(tree)], "rpaths": ["x"], "rnodes": [str(tmp_path)]}, *words)
    assert done.returncode == USAGE
    assert done.stderr == f"inosync: {expected}; try inosync --help\n"
