"""The tools of the tests: servers, snapshots of trees, churn, and daemons."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import procs, trees
from support.churn import Churn
from support.daemon import WORKER, Daemon
from support.rsyncd import MakeRsyncd
from support.sshd import Sshd
from support.wait import until


def churned(home: Path, seed: int, count: int = 400) -> Path:
    """Make a tree by that many hostile changes."""
    tree, outside = home / "tree", home / "outside"
    tree.mkdir()
    outside.mkdir()
    Churn(os.fsencode(tree), seed, os.fsencode(outside)).run(count)
    return tree


def rsync(*args: str | Path, env: dict[str, str] | None = None) -> None:
    # Without nanoseconds rsync leaves the time of a file as it is if it was written in the same second.
    command = ["rsync", "-a", "--delete", "--modify-window=-1", *map(str, args)]
    done = subprocess.run(
        command, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")


# Servers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", ["url", "colons"])
def test_rsyncd_takes_a_churned_tree_in_both_syntaxes(
    tmp_path: Path, seed: int, rsyncd: MakeRsyncd, syntax: str
) -> None:
    tree = churned(tmp_path, seed)
    server = rsyncd({"www": tmp_path / "copy"})
    target = server.url("www") if syntax == "url" else server.colons("www")
    rsync(server.port_option, f"{tree}/", target)
    assert trees.diff(trees.snapshot(tree), trees.snapshot(tmp_path / "copy")) == []


def test_sshd_takes_a_churned_tree(tmp_path: Path, seed: int, sshd: Sshd) -> None:
    tree = churned(tmp_path, seed)
    rsync(f"--rsh={sshd.rsh}", f"{tree}/", sshd.node("a", tmp_path / "copy"))
    assert trees.diff(trees.snapshot(tree), trees.snapshot(tmp_path / "copy")) == []


def test_sshd_is_found_by_a_plain_ssh_in_its_environment(tmp_path: Path, seed: int, sshd: Sshd) -> None:
    tree = churned(tmp_path, seed, 50)
    rsync(f"{tree}/", sshd.node("a", tmp_path / "copy"), env=sshd.env())
    assert trees.diff(trees.snapshot(tree), trees.snapshot(tmp_path / "copy")) == []


def test_rsyncd_with_a_user_wants_the_password(tmp_path: Path, rsyncd: MakeRsyncd) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("x")
    server = rsyncd({"www": tmp_path / "copy"}, user="john", password="secret")
    with pytest.raises(AssertionError, match="auth failed"):
        rsync(f"{tmp_path}/tree/", server.url("www"), env={"RSYNC_PASSWORD": "wrong"})
    rsync(f"{tmp_path}/tree/", server.url("www"), env={"RSYNC_PASSWORD": "secret"})
    assert (tmp_path / "copy" / "file").read_text() == "x"


def test_server_that_was_killed_comes_back_on_its_port(tmp_path: Path, rsyncd: MakeRsyncd) -> None:
    server = rsyncd({"www": tmp_path / "copy"})
    server.kill()
    assert not server.accepts()
    assert server.processes() == []
    server.start()
    assert server.accepts()


def test_server_that_is_killed_loses_its_connections(own_sshd: Sshd) -> None:
    command = ["ssh", "-F", str(own_sshd.ssh_config), "node-a", "cat"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"x")
        client.stdin.flush()
        assert client.stdout.read(1) == b"x"
        assert own_sshd.connections()
        own_sshd.kill()
        assert client.wait(60) == 255


def test_server_that_is_paused_answers_when_resumed(tmp_path: Path, rsyncd: MakeRsyncd) -> None:
    server = rsyncd({"www": tmp_path / "copy"})
    server.pause()
    assert {p.state for p in server.processes()} == {"T"}
    server.resume()
    assert server.accepts()


# Trees ---------------------------------------------------------------------------------------------------


def make_tree(root: Path) -> Path:
    root.mkdir()
    (root / "dir").mkdir()
    (root / "dir" / "file").write_text("content")
    (root / "link").symlink_to("dir")
    os.mkfifo(root / "fifo")
    (root / os.fsdecode(b"\xff\n")).write_text("name that is no UTF-8")
    return root


CHANGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "mode": ("mode 0644 != 0600", lambda root: (root / "dir/file").chmod(0o600)),
    "mtime of a file": ("mtime_ns", lambda root: os.utime(root / "dir/file", ns=(1, 1))),
    "mtime of a directory": ("mtime_ns", lambda root: os.utime(root / "dir", ns=(1, 1))),
    "mtime of a symlink": (
        "mtime_ns",
        lambda root: os.utime(root / "link", ns=(1, 1), follow_symlinks=False),
    ),
    "content": ("digest", lambda root: rewrite(root / "dir/file", "CONTENT")),
    "type": ("type symlink != file", lambda root: retype(root / "link")),
    "target": ("target", lambda root: retarget(root / "link")),
    "missing": ("only on the source (fifo)", lambda root: (root / "fifo").unlink()),
    "extra": ("only on the node (directory)", lambda root: (root / "dir/new").mkdir()),
}


def rewrite(path: Path, text: str) -> None:
    """Change the content, but nothing that stat shows except ctime."""
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def retype(path: Path) -> None:
    path.unlink()
    path.write_text("x")


def retarget(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("change", CHANGES)
def test_diff_sees_a_change_of(tmp_path: Path, change: str) -> None:
    make_tree(tmp_path / "a").joinpath("dir/file").chmod(0o644)
    rsync(f"{tmp_path}/a/", tmp_path / "b")
    assert trees.diff(trees.snapshot(tmp_path / "a"), trees.snapshot(tmp_path / "b")) == []
    expected, make = CHANGES[change]
    make(tmp_path / "b")
    lines = trees.diff(trees.snapshot(tmp_path / "a"), trees.snapshot(tmp_path / "b"))
    assert any(expected in line for line in lines), lines
    assert trees.is_copy(trees.snapshot(tmp_path / "a"), tmp_path / "a")
    assert not trees.is_copy(trees.snapshot(tmp_path / "a"), tmp_path / "b")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_diff_sees_a_change_of_owner(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "a")
    before = trees.snapshot(tree)
    os.chown(tree / "link", 1, 2, follow_symlinks=False)
    assert trees.diff(before, trees.snapshot(tree)) == ["b'link' (symlink): uid 0 != 1, gid 0 != 2"]


def test_snapshot_follows_no_symlink_and_takes_every_name(tmp_path: Path) -> None:
    tree = trees.snapshot(make_tree(tmp_path / "a"))
    assert sorted(tree) == [b"dir", b"dir/file", b"fifo", b"link", b"\xff\n"]
    assert tree[b"link"].target == b"dir"


def test_snapshot_goes_deeper_than_path_max(tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(20):
        os.mkdir(b"d" * 250, dir_fd=handle)
        inner = os.open(b"d" * 250, os.O_RDONLY | os.O_DIRECTORY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)
    assert len(trees.snapshot(tmp_path)) == 20
    # pytest cannot remove names as long as this.
    shutil.rmtree(tmp_path / ("d" * 250))


# Churn ---------------------------------------------------------------------------------------------------


def without_times(tree: trees.Tree) -> list[tuple[object, ...]]:
    return [(name, e.type, e.mode, e.uid, e.gid, e.digest, e.target) for name, e in sorted(tree.items())]


def test_churn_is_the_same_for_the_same_seed(tmp_path: Path, seed: int) -> None:
    results = []
    for name in ("one", "two"):
        home = tmp_path / name
        home.mkdir()
        results.append(without_times(trees.snapshot(churned(home, seed))))
    assert results[0] == results[1]


def test_churn_does_every_operation(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    tree.mkdir()
    outside.mkdir()
    churn = Churn(os.fsencode(tree), 1, os.fsencode(outside))
    churn.run(3000)
    done = {line.split()[1] for line in churn.log if "Error" not in line and "nothing" not in line}
    assert done == {operation.__name__.strip("_") for operation in churn._operations}
    # Most operations must succeed, or the tests that use churn test less than they seem to.
    failed = [line for line in churn.log if "Error" in line]
    assert len(failed) < len(churn.log) / 3, "\n".join(failed[:50])
    entries = trees.snapshot(tree)
    assert len(entries) > 100
    assert {entry.type for entry in entries.values()} >= {"file", "directory", "symlink", "fifo"}
    assert "the last 2 operations" in churn.tail(2)


def test_churn_changes_nothing_outside_of_the_tree(tmp_path: Path, seed: int) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("precious")
    before = trees.snapshot(victim)
    tree = tmp_path / "tree"
    tree.mkdir()
    # A tree full of symlinks to the outside.
    for name in ("a", "b", "lib", "data"):
        (tree / name).symlink_to(victim if name < "c" else victim / "file")
    Churn(os.fsencode(tree), seed).run(600)
    after = trees.snapshot(victim)
    assert trees.diff(before, after) == []
    absolute = [e.target for e in trees.snapshot(tree).values() if e.target.startswith(b"/")]
    assert all(target.startswith((b"/nonexistent", os.fsencode(victim))) for target in absolute)


# Waiting and processes -----------------------------------------------------------------------------------


def test_until_returns_what_it_waited_for() -> None:
    values = iter([0, 0, 7])
    assert until(lambda: next(values), 10, "seven") == 7


def test_until_says_what_it_waited_for() -> None:
    with pytest.raises(AssertionError, match=r"waited 0\.01 s for the moon; the last value was \[\]"):
        until(list, 0.01, "the moon")


def test_family_finds_children_of_children() -> None:
    command = ["sh", "-c", "sh -c 'sleep 60 & wait' & wait"]
    with subprocess.Popen(command, start_new_session=True) as parent:
        found = until(lambda: f if len(f := procs.family([parent.pid])) == 3 else [], 60, "three processes")
        assert procs.title(found[2].pid) == "sleep 60"
        for process in found:
            procs.send(process, signal.SIGKILL)
        until(lambda: not any(procs.alive(process) for process in found), 60, "their end")


@pytest.mark.parametrize(
    ("title", "node", "state"),
    [
        ("inosync: user1@a.mirror.com [ok] synced 12:04:31", "user1@a.mirror.com", "ok"),
        (
            "inosync: rsync://c.mirror.com/www [retry 3 at 12:05:10] refused, 120 behind",
            "rsync://c.mirror.com/www",
            "retry",
        ),
        ("inosync: /mnt/a b [full 12%]", "/mnt/a b", "full"),
        ("inosync: user2@b.mirror.com [syncing] 14 paths", "user2@b.mirror.com", "syncing"),
    ],
)
def test_worker_titles_are_parsed(title: str, node: str, state: str) -> None:
    match = WORKER.match(title)
    assert match
    assert (match["node"], match["state"]) == (node, state)


# A stand-in for inosync: a master and two workers, the second in a session of its own. With --orphan that one
# outlives its master.
STAND_IN = """
import os, signal, sys, time
from setproctitle import setproctitle

def worker(title):
    setproctitle(title)
    if "--orphan" not in sys.argv:
        os.read(end, 1)
        os._exit(0)
    signal.pause()

end, keep = os.pipe()
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
for node, session in (("a", False), ("b c", True)):
    if os.fork() == 0:
        os.close(keep)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if session:
            os.setsid()
        worker(f"inosync: {node} [ok] synced 12:00:00")
print("Trace" + "back" if "--traceback" in sys.argv else "fine", file=sys.stderr)
setproctitle("inosync: master default.py [2 nodes: 2 ok] 1 dirs")
while True:
    signal.pause()
"""


def stand_in(home: Path, *args: str) -> Daemon:
    launcher = home / "launcher"
    launcher.write_text(STAND_IN)
    daemon = Daemon(home / "daemon", {"rnodes": ["a", "b c"]}, args, launcher=launcher)
    daemon.start()
    until(lambda: len(daemon.workers()) == 2, 60, "two workers")
    return daemon


def test_session_is_over_without_processes_or_when_its_number_is_reused() -> None:
    def process(pid: int, session: int, start: int) -> procs.Process:
        return procs.Process(pid, "S", 1, session, session, start)

    found = [process(5, 5, 100), process(60, 6, 150), process(7, 7, 200), process(70, 7, 210)]
    known = {5: 100, 6: 100, 7: 100, 8: 100}
    assert procs.still(known, {one.pid: one for one in found}) == {5: 100, 6: 100}


def test_daemon_is_seen_with_its_workers(tmp_path: Path) -> None:
    daemon = stand_in(tmp_path)
    assert daemon.states() == {"a": "ok", "b c": "ok"}
    assert daemon.state("b c") == "ok"
    assert daemon.state("unknown") == ""
    assert set(daemon.descendants()) == {daemon.pid, *daemon.workers().values()}
    assert len(daemon.titles()) == 3
    assert daemon.title().startswith("inosync: master")
    assert "rnodes = ['a', 'b c']" in daemon.file.read_text()
    assert daemon.file.stat().st_mode & 0o777 == 0o600
    assert daemon.stop() == 0
    daemon.close()
    assert daemon.descendants() == []


def test_daemon_whose_master_was_killed_is_followed_to_its_end(tmp_path: Path) -> None:
    daemon = stand_in(tmp_path)
    daemon.kill9()
    daemon.close()


def test_orphan_is_reported_and_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.daemon.LEFT_AFTER", 0.5)
    daemon = stand_in(tmp_path, "--orphan")
    orphan = procs.look(daemon.workers()["b c"])
    assert orphan
    with pytest.raises(AssertionError, match=r"inosync: b c \[ok\]"):
        daemon.close()
    assert not procs.alive(orphan)


def test_traceback_in_the_log_is_a_failure(tmp_path: Path) -> None:
    daemon = stand_in(tmp_path, "--traceback")
    with pytest.raises(AssertionError, match="a traceback in the log"):
        daemon.close()


def test_until_level_waits_and_reports_differences(tmp_path: Path) -> None:
    daemon = stand_in(tmp_path)
    make_tree(tmp_path / "a")
    rsync(f"{tmp_path}/a/", tmp_path / "b")
    daemon.until_level([(tmp_path / "a", tmp_path / "b")], 60)
    with pytest.raises(AssertionError, match="the nodes to be level"):
        daemon.until_level([(tmp_path / "a", tmp_path / "b")], 0.1, states=("retry",))
    (tmp_path / "b" / "dir" / "file").unlink()
    with pytest.raises(AssertionError, match="dir/file': only on the source"):
        daemon.until_level([(tmp_path / "a", tmp_path / "b")], 0.1)
    daemon.close()
