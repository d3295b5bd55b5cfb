"""The warm rsyncs of a daemon: which rsync sends which batch, and how many there are."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from support import procs, trees
from support.daemon import Daemon, MakeDaemon
from support.procs import Process
from support.rsyncd import MakeRsyncd, Rsyncd
from support.sshd import Sshd
from support.wait import until
from support.warm import RETRY, Location, MakeWarm, Warm, below, cont, set_up, stop

ROOT = os.geteuid() == 0

# One rsync for each tree, over every transport -----------------------------------------------------------

TRANSPORTS = ("local", "limited", "daemon", "module", "ssh")
USER, PASSWORD = "mirror", "not secret"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, shared_sshd: Sshd) -> Iterator[Warm]:
    """A daemon with two trees and nodes with various settings on all transports, shared by several tests."""
    home = tmp_path_factory.mktemp("warm")
    secret = home / "secret"
    secret.write_text(PASSWORD + "\n")
    secret.chmod(0o600)
    server = Rsyncd(home / "rsyncd", {"daemon": home / "nodes/daemon"}, USER, PASSWORD)
    other = Rsyncd(home / "other", {"module": home / "nodes/module"})
    nodes: dict[str, Location] = {
        "local": "",
        "limited": {"rspeed": 4000, "extra": "--chmod=F640"},
        "daemon": {"node": server.url("daemon"), "extra": ["-z", f"--password-file={secret}"]},
        "module": {"node": f"{other.colons('module')}", "extra": other.port_option, "rspeed": 4000},
        "ssh": {"node": shared_sshd.node("a", f"{home}/nodes/ssh/"), "extra": "-z --compress-level=1"},
    }
    make = partial(Daemon, home / "inosync")
    w = set_up(home, make, nodes, ("one", "two"), shared_sshd.env(), rexcludes=["*.tmp", "/private/"])
    try:
        server.start()
        other.start()
        w.daemon.start()
        yield w
        w.daemon.close()
    finally:
        with contextlib.suppress(AssertionError):
            w.daemon.close()
        server.kill()
        other.kill()


@pytest.fixture
def shared(world: Warm) -> Warm:
    """The shared daemon, at rest."""
    world.until_warm()
    return world


def test_change_goes_through_the_warm_rsync_and_starts_only_the_next(shared: Warm) -> None:
    before = shared.until_warm()
    assert set(before) == set(TRANSPORTS)
    for number in range(3):
        counts = {node: (shared.batches(node, "one"), shared.batches(node, "two")) for node in TRANSPORTS}
        shared.change("file", f"{number}", "one")
        shared.change("kept.tmp", f"{number}", "one")
        for node in TRANSPORTS:
            shared.until_arrived(node, "file", f"{number}", "one")
        gone = [before[node]["one"] for node in TRANSPORTS]
        after = shared.until_warm(but=gone)
        for node, (one, two) in counts.items():
            # Only the next warm rsync was started since, so the one from before sent the change.
            assert shared.batches(node, "one") == one + 1
            assert shared.batches(node, "two") == two
            assert not procs.alive(before[node]["one"])
            assert after[node]["two"] == before[node]["two"]
            assert not (shared.copy(node, "one") / "kept.tmp").exists()
        before = after
    modes = {node: (shared.copy(node, "one") / "file").stat().st_mode & 0o777 for node in TRANSPORTS}
    assert modes.pop("limited") == 0o640
    assert set(modes.values()) == {(shared.tree("one") / "file").stat().st_mode & 0o777}


def test_warm_rsyncs_have_their_options_and_show_no_password(shared: Warm) -> None:
    titles = {node: procs.title(shared.warm_rsync(node, "one").pid) for node in TRANSPORTS}
    assert all(" --dirs " in title for title in titles.values())
    assert all("--exclude=*.tmp" in title and "--exclude=/private/" in title for title in titles.values())
    assert {node for node, title in titles.items() if "--bwlimit=4000" in title} == {"limited", "module"}
    assert {node for node, title in titles.items() if " -z" in title} == {"daemon", "ssh"}
    assert {node for node, t in titles.items() if "--sockopts=TCP_NODELAY" in t} == {"daemon", "module"}
    below = [procs.title(pid) for node in TRANSPORTS for pid in shared.daemon.rsyncs(node)]
    assert PASSWORD not in "\n".join(below)
    [ssh] = [t for t in below if re.match(r"\S*ssh .* rsync --server .*/ssh/one/", t)]
    for option in ("BatchMode", "ServerAliveInterval"):
        assert option in ssh


def test_changes_in_sequence_go_one_by_one_and_all_arrive(shared: Warm) -> None:
    counts, since = {node: shared.batches(node) for node in TRANSPORTS}, len(shared.daemon.log())
    for number in range(15):
        shared.change(f"sequence-{number % 3}", f"{number}", "two")
        for node in TRANSPORTS:
            shared.until_arrived(node, f"sequence-{number % 3}", f"{number}", "two")
    shared.until_warm()
    # The log may be late.
    until(lambda: all(len(shared.sizes(node, since)) >= 15 for node in TRANSPORTS), 60, "all in the log")
    for node in TRANSPORTS:
        # Each batch was one change and used one rsync.
        assert shared.sizes(node, since) == [1] * 15
        assert shared.batches(node) - counts[node] == 15


def test_directory_that_comes_and_goes_needs_no_full_mirror(shared: Warm) -> None:
    fulls = shared.rsync.starts("full ")
    home = shared.home / "outside"
    (home / "sub/private").mkdir(parents=True)
    (home / "sub/x.tmp").touch()
    (home / "sub/file\nwith a newline").write_text("content")
    home.rename(shared.tree("one") / "inside")
    for node in TRANSPORTS:
        shared.until_arrived(node, "inside/sub/file\nwith a newline", tree="one")
        assert not (shared.copy(node, "one") / "inside/sub/x.tmp").exists()
    shared.until_warm()
    shutil.rmtree(shared.tree("one") / "inside")
    copies = [shared.copy(node, "one") / "inside" for node in TRANSPORTS]
    until(lambda: not any(copy.exists() for copy in copies), 60, "it to go all_transports")
    assert shared.rsync.starts("full ") == fulls


def test_reload_without_a_difference_keeps_every_warm_rsync(shared: Warm) -> None:
    before = shared.until_warm()
    shared.reload()
    shared.reload()
    shared.change("reloaded", tree="one")
    for node in TRANSPORTS:
        shared.until_arrived(node, "reloaded", tree="one")
    after = shared.until_warm(but=[before[node]["one"] for node in TRANSPORTS])
    assert all(after[node]["two"] == before[node]["two"] for node in TRANSPORTS)


# Which rsync a batch goes through ------------------------------------------------------------------------


def test_changes_during_a_transfer_are_the_next_batch_at_once(warm: MakeWarm) -> None:
    w = warm({"slow": "", "other": ""})
    w.daemon.start()
    for round_ in range(2):
        # The stopped receiver holds the transfer.
        far = below(w.until_warm()["slow"]["tree"])
        stop(far)
        w.change("first", f"{round_}")
        w.until_title("slow", r"\[syncing\] 1 path")
        for number in range(30):
            w.change(f"burst-{number}", f"{round_}")
            if number == 20:
                w.until_arrived("other", "burst-20", f"{round_}")
                cont(far)
        w.until_level()
    w.until_warm()
    # The log may be late.
    counts = until(lambda: c if sum(c := w.sizes("slow")) >= 62 else [], 60, "all in the log")
    assert w.fulls("slow") == 1
    # Each batch used one rsync, cold or warm; no start was in vain.
    assert w.batches("slow") == len(counts) + 1
    assert w.warnings() == []


def test_batch_goes_through_an_rsync_that_is_still_connecting(warm: MakeWarm) -> None:
    w = warm({"a": "", "b": ""})
    w.daemon.start()
    w.until_warm()
    began = w.batches("a")
    w.rsync.hold("a")
    try:
        w.change("first")
        until(lambda: w.batches("a") == began + 1, 60, "the next one")
        w.until_arrived("a", "first")
        w.change("second")
        w.change("third")
        w.until_title("a", r"\[syncing\] .*")
        w.until_arrived("b", "third")
        assert not w.has("a", "second")
        assert w.batches("a") == began + 1
    finally:
        w.rsync.mend("a")
    w.until_level()
    w.until_warm()
    # One for first, one or two for second and third, and the next warm one.
    assert w.batches("a") <= began + 3
    assert w.warnings() == []


def test_warm_rsync_is_not_started_while_a_transfer_runs(warm: MakeWarm) -> None:
    w = warm({"slow": {"rspeed": 200}}, ("one", "two"))
    w.daemon.start()
    kept = w.until_warm()["slow"]
    began = w.batches("slow")
    (w.home / "big").write_bytes(os.urandom(200_000))
    far = below(kept["one"])
    stop(far)  # until the title shows the transfer
    (w.home / "big").rename(w.tree("one") / "big")
    w.until_title("slow", r"\[syncing\] 1 path")
    cont(far)
    looks = 0
    while procs.alive(kept["one"]):
        looks += 1
        if w.batches("slow") != began:
            # It may have ended between the two checks. The title follows later, when the master knows.
            assert not procs.alive(kept["one"])
    assert looks
    after = w.until_warm(but=[kept["one"]])["slow"]
    assert after["two"] == kept["two"]
    assert w.batches("slow") == began + 1


# The root of a tree --------------------------------------------------------------------------------------


def place(path: Path) -> tuple[int, int] | None:
    """Return the identity of a directory."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def reads_from(process: Process) -> tuple[int, int] | None:
    """Return the identity of a process's current directory."""
    return place(Path(f"/proc/{process.pid}/cwd"))


def until_all_read_from(w: Warm, root: Path) -> None:
    """Wait until each node's warm rsync reads from the directory now at that path."""
    until(
        lambda: all(
            set(found := w.warm_rsyncs(node)) == set(w.names) and reads_from(found[root.name]) == place(root)
            for node in w.nodes()
        ),
        60,
        "rsyncs that wait in the new directory",
    )


def test_replaced_root_is_not_read_by_a_warm_rsync_of_the_old_one(
    tmp_path: Path, daemon: MakeDaemon, sshd: Sshd
) -> None:
    nodes = {"local": "", "ssh": sshd.node("a", f"{tmp_path}/nodes/ssh/")}
    w = set_up(tmp_path, daemon, nodes, ("tree", "other"), sshd.env())
    for name in ("same", "only old"):
        w.change(name, "old")
    w.daemon.start()
    before = w.until_warm()
    new, old = tmp_path / "new", tmp_path / "old"
    new.mkdir()
    (new / "same").write_text("new")
    (new / "only new").write_text("new")
    w.tree().rename(old)
    new.rename(w.tree())
    # A warm rsync in the old directory would send these.
    for number in range(5):
        (old / "only old").write_text(f"secret {number}")
        (old / f"secret-{number}").write_text("secret")
        (w.tree() / f"after-{number}").write_text("new")
    w.until_level()
    for node in nodes:
        assert trees.diff(trees.snapshot(w.tree()), trees.snapshot(w.copy(node))) == []
    # No further change is needed.
    until_all_read_from(w, w.tree())
    for node in nodes:
        w.until_gone(before[node]["tree"])
    assert all(w.warm_rsync(node, "other") == before[node]["other"] for node in nodes)
    counts = [w.batches(node) for node in nodes]
    w.change("same", "newer")
    for node in nodes:
        w.until_arrived(node, "same", "newer")
    w.until_warm()
    assert [w.batches(node) for node in nodes] == [count + 1 for count in counts]
    assert not list(tmp_path.glob("nodes/*/*/secret*"))


@pytest.fixture
def mount() -> Iterator[Callable[[Path], None]]:
    """Mount a tmpfs."""
    mounted: list[Path] = []

    def make(path: Path) -> None:
        command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", str(path)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"nothing can be mounted: {done.stderr.strip()}")
        mounted.append(path)

    yield make
    for path in mounted:
        # Lazily: a process of a test that failed must not leave it mounted.
        subprocess.run(["umount", "-l", str(path)], stdin=subprocess.DEVNULL, check=False)


@pytest.mark.skipif(not ROOT, reason="only root mounts")
def test_root_mounted_over_is_not_read_by_a_warm_rsync_from_below(
    warm: MakeWarm, mount: Callable[[Path], None]
) -> None:
    w = warm({"a": "", "b": ""})
    w.change("below")
    w.daemon.start()
    w.until_level()
    w.until_warm()
    mount(w.tree())
    (w.tree() / "above").write_text("content")  # an empty root would be a loss
    # Changes below the mount cause events, but what is sent is at the path now.
    below = os.open(f"/proc/{w.warm_rsync('a').pid}/cwd", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in ("below", "new below"):
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=below))
    finally:
        os.close(below)
    until(lambda: not list(w.home.glob("nodes/*/tree/below")), 60, "it to be gone")
    until_all_read_from(w, w.tree())
    assert not list(w.home.glob("nodes/*/tree/new below"))


# Settings ------------------------------------------------------------------------------------------------


def test_settings_changed_replace_only_the_warm_rsyncs_concerned(warm: MakeWarm) -> None:
    w = warm({"a": "", "b": ""})
    w.daemon.start()
    before = w.until_warm()
    w.reload(rnodes=[w.item("a", {"rspeed": 3000}), w.item("b")])
    after = w.until_warm(but=[before["a"]["tree"]])
    assert "--bwlimit=3000" in procs.title(after["a"]["tree"].pid)
    assert after["b"] == before["b"]
    w.until_gone(before["a"]["tree"])
    w.reload(extra="-z --chmod=F600", rnodes=[w.item("a", {"rspeed": 3000}), w.item("b")])
    last = w.until_warm(but=[after["a"]["tree"], after["b"]["tree"]])
    for node in w.nodes():
        assert " -z --chmod=F600 " in procs.title(last[node]["tree"].pid)
    w.change("file")
    for node in w.nodes():
        w.until_arrived(node, "file")
        assert (w.copy(node) / "file").stat().st_mode & 0o777 == 0o600
    w.until_warm(but=[warm["tree"] for warm in last.values()])
    assert not {p.pid for p in (*before["a"].values(), *after["b"].values())} & set(w.daemon.rsyncs())
    assert w.warnings() == []


def test_many_trees_keep_rsyncs_for_those_that_changed_last(warm: MakeWarm, rsyncd: MakeRsyncd) -> None:
    names = [f"tree{number:02}" for number in range(12)]
    w = warm({"a": "", "b": ""}, names)
    server = rsyncd({"b": w.home / "nodes/b"})
    w.configure({"a": "", "b": server.url("b")})
    w.daemon.start()
    w.until_level()

    def until_kept(*trees: str) -> None:
        def are_kept() -> bool:
            found = [
                (set(w.warm_rsyncs(node)), len([p for p in procs.family([pid]) if p.ppid == pid]))
                for node, pid in w.daemon.workers().items()
            ]
            return found == [(set(trees), 4)] * 2

        until(are_kept, 60, f"four processes for each node, for {trees}")

    def starts() -> list[int]:
        return [w.batches(node, "tree09") for node in w.nodes()]

    until_kept(*names[:4])
    assert starts() == [0, 0]
    w.change("file", "1", "tree09")
    until_kept("tree09", *names[:3])
    assert starts() == [2, 2], "a cold one for the change, and one for the next"
    for number in range(2):
        w.change("file", f"next {number}", "tree09")
        w.until_level()
        until_kept("tree09", *names[:3])
        assert starts() == [3 + number] * 2, "the one that waited got the change"
    for name in ("tree05", "tree06", "tree07"):
        w.change("file", "1", name)
        w.until_level()
    until_kept("tree09", "tree05", "tree06", "tree07")
    # One rsync is enough to notice that the node is gone.
    w.reload(rwarm=1)
    until(lambda: [len(w.warm_rsyncs(node)) for node in w.nodes()] == [1, 1], 60, "one rsync for each node")
    server.kill()
    w.until_title("b", rf"{RETRY} .*")
    server.start()
    w.until_title("b", r"\[ok\].*")
    w.until_level()


@pytest.mark.slow
def test_rwarm_off_starts_an_rsync_for_every_batch(warm: MakeWarm) -> None:
    w = warm({"warm": "", "cold": {"rwarm": False}})
    w.daemon.start()
    w.until_warm("warm")
    w.until_level()

    def settled(hot: Sequence[str]) -> None:
        w.until_level()
        if hot:
            w.until_warm(*hot)

    def check(cold: Sequence[str], hot: Sequence[str], prefix: str) -> None:
        for number in range(3):
            settled(hot)
            counts = {node: w.batches(node) for node in w.nodes()}
            w.change(f"{prefix}-{number}")
            settled(hot)
            assert {node: w.batches(node) - counts[node] for node in w.nodes()} == dict.fromkeys(w.nodes(), 1)
            assert not any(w.daemon.rsyncs(node) for node in cold)

    check(["cold"], ["warm"], "one")
    w.reload(rwarm=False)
    check(["warm", "cold"], [], "none")
    # The node's own setting wins.
    w.reload(rwarm=False, rnodes=[w.item("warm"), w.item("cold", {"rwarm": True})])
    check(["warm"], ["cold"], "other")
    w.reload(rnodes=[w.item("warm"), w.item("cold")])
    w.until_warm()
    check([], ["warm", "cold"], "both")
    assert w.warnings() == []


# The end -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["SIGTERM", "the master killed", "a worker killed", "a worker stopped"])
def test_warm_rsyncs_leave_nothing(
    how: str, tmp_path: Path, daemon: MakeDaemon, rsyncd: MakeRsyncd, sshd: Sshd
) -> None:
    server = rsyncd({"daemon": tmp_path / "nodes/daemon"})
    nodes = {"local": "", "daemon": server.url("daemon"), "ssh": sshd.node("a", f"{tmp_path}/nodes/ssh/")}
    w = set_up(tmp_path, daemon, nodes, ("one", "two"), sshd.env())
    w.daemon.start()
    before = [process for found in w.until_warm().values() for process in found.values()]
    if how == "SIGTERM":
        assert w.daemon.stop() == 0
    elif how == "a worker killed":
        for worker in w.daemon.workers().values():
            os.kill(worker, signal.SIGKILL)
    else:
        if how == "a worker stopped":
            for worker in w.daemon.workers().values():
                process = procs.look(worker)
                assert process is not None
                procs.send(process, signal.SIGSTOP)
        w.daemon.kill9()
    until(lambda: not any(map(procs.alive, before)), 60, "the rsyncs to end")
    if how != "a worker killed":
        until(lambda: not server.connections(), 60, "the node to see that")
        until(lambda: not w.daemon.descendants(), 60, "everything to end")
        w.daemon.start()
    w.change("file", tree="two")
    w.until_level()
    w.until_warm()
    w.change("another", tree="two")
    w.until_level()
