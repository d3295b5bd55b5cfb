"""The loss of a whole tree is not mirrored: roots that are moved, removed, replaced, unmounted or emptied.

Each test checks after every step that no node has lost a file.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support import mount_namespace, procs
from support.daemon import Daemon, FakeRsync, MakeDaemon
from support.wait import until

FAST = {"edelay": 0.2, "equiet": 0.02, "rretry": (0.1, 0.5)}
FILES = ("one", "two", "sub/three", "sub/deep/four")


@dataclass
class Setup:
    """A daemon with two local nodes and two trees, not started. Only the first tree is ever lost."""

    home: Path
    daemon: Daemon
    rsync: FakeRsync
    trees: tuple[str, ...] = ("tree", "other")
    settings: dict[str, object] = field(default_factory=dict)
    beats: int = 0

    @property
    def root(self) -> Path:
        return self.home / "tree"

    def copy(self, node: str, tree: str = "tree") -> Path:
        return self.home / "nodes" / node / tree

    def configure(self, **settings: object) -> None:
        for node in "ab":
            (self.home / "nodes" / node).mkdir(parents=True, exist_ok=True)
        self.settings.update(settings)
        self.daemon.configure(
            {
                "wpaths": [str(self.home / tree) for tree in self.trees],
                "rpaths": list(self.trees),
                "rnodes": [
                    {"node": f"{self.home}/nodes/a/", "name": "a", "rwarm": False},
                    {"node": f"{self.home}/nodes/b/", "name": "b"},
                ],
                "rsync": str(self.rsync.path),
                **FAST,
                **self.settings,
            }
        )

    def reload(self, **settings: object) -> None:
        self.configure(**settings)
        since = len(self.daemon.log())
        self.daemon.hup()
        self.daemon.until_logged(r"default\.py reloaded", since=since)

    def start(self) -> None:
        self.daemon.start()
        self.until_level()

    def until_level(self) -> None:
        pairs = [(self.home / tree, self.copy(node, tree)) for tree in self.trees for node in "ab"]
        self.daemon.until_level(pairs, nodes=2)

    def until_halted(self, why: str) -> None:
        """Wait until both nodes are halted and ps and the log say why; check that nothing is lost."""
        for node in "ab":
            self.daemon.until_state(node, ("halted",))
            self.until_title(node, why)
        until(
            lambda: "2 halted" in self.daemon.title() and why in self.daemon.title(),
            30,
            f"{why!r} in the master's title",
        )
        self.daemon.until_logged(f"ERROR: .*{re.escape(why)}.*nothing of it is mirrored until")
        self.nothing_is_lost()
        self.others_go_on()
        self.nothing_is_lost()

    def until_title(self, node: str, text: str) -> None:
        until(lambda: text in self.title(node), 30, f"{text!r} in the title of {node}: {self.title(node)}")

    def title(self, node: str) -> str:
        pid = self.daemon.workers().get(node)
        return procs.title(pid) if pid else ""

    def nothing_is_lost(self) -> None:
        for node in "ab":
            missing = [name for name in FILES if not (self.copy(node) / name).exists()]
            assert not missing, f"{node} has lost {missing}\n{self.daemon.log_tail()}"

    def keeps_all(self) -> bool:
        """Return True, or fail if a file is lost."""
        self.nothing_is_lost()
        return True

    def others_go_on(self) -> None:
        """Check that changes of the other tree arrive; anything sent before them has then arrived, too."""
        for _ in range(3):
            self.beats += 1
            text = f"{self.beats}"
            (self.home / "other" / "beat").write_text(text)
            for node in "ab":
                beat = self.copy(node, "other") / "beat"
                until(lambda: beat.exists() and beat.read_text() == text, 30, f"beat {text} on {node}")  # noqa: B023

    def until_gone(self, *nodes: str) -> None:
        for node in nodes:
            until(lambda: not os.listdir(self.copy(node)), 30, f"{node} to be empty")  # noqa: B023

    def accept(self) -> None:
        self.daemon.signal(signal.SIGUSR2)


def fill(root: Path) -> None:
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def empty(root: Path) -> None:
    """rm -rf root/*"""
    for name in os.listdir(root):
        path = root / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def make_setup(home: Path, daemon: Daemon) -> Setup:
    setup = Setup(home, daemon, FakeRsync(home / "fake"))
    for tree in setup.trees:
        (home / tree).mkdir()
    fill(setup.root)
    (home / "other" / "beat").write_text("0")
    setup.configure()
    return setup


@pytest.fixture
def setup(tmp_path: Path, daemon: MakeDaemon) -> Setup:
    return make_setup(tmp_path, daemon({}, ("-v",)))


# How a root is lost --------------------------------------------------------------------------------------


def is_moved_away(s: Setup) -> Callable[[], None]:
    s.root.rename(s.home / "away")

    def put_back() -> None:
        (s.home / "away").rename(s.root)

    return put_back


def is_replaced_by_an_empty_one(s: Setup) -> Callable[[], None]:
    s.root.rename(s.home / "away")
    s.root.mkdir()

    def put_back() -> None:
        s.root.rmdir()
        (s.home / "away").rename(s.root)

    return put_back


def is_removed(s: Setup) -> Callable[[], None]:
    shutil.rmtree(s.root)

    def put_back() -> None:
        fill(s.home / "new")
        (s.home / "new").rename(s.root)

    return put_back


def is_removed_and_made_again(s: Setup) -> Callable[[], None]:
    shutil.rmtree(s.root)
    s.root.mkdir()
    return lambda: fill(s.root)


def becomes_a_link_to_an_empty_one(s: Setup) -> Callable[[], None]:
    s.root.rename(s.home / "away")
    (s.home / "nothing").mkdir()
    s.root.symlink_to("nothing")

    def put_back() -> None:
        s.root.unlink()
        (s.home / "away").rename(s.root)

    return put_back


def is_emptied(s: Setup) -> Callable[[], None]:
    kept = Path(tempfile.mkdtemp(dir=s.home))
    # At once, because the first deletions might be sent before the last ones are made.
    for name in os.listdir(s.root):
        (s.root / name).rename(kept / name)

    def put_back() -> None:
        for name in os.listdir(kept):
            (kept / name).rename(s.root / name)

    return put_back


Loss = Callable[[Setup], Callable[[], None]]
NOT_THERE = (is_moved_away, is_removed)
EMPTY = (is_replaced_by_an_empty_one, is_removed_and_made_again, becomes_a_link_to_an_empty_one, is_emptied)


def suspended(s: Setup, action: Callable[[], Callable[[], None]]) -> Callable[[], None]:
    """Call ``action`` while the master is stopped, so that it sees the result at once."""
    os.kill(s.daemon.pid, signal.SIGSTOP)
    try:
        until(
            lambda: (p := procs.look(s.daemon.pid)) is not None and p.state == "T", 30, "the master to stop"
        )
        return action()
    finally:
        os.kill(s.daemon.pid, signal.SIGCONT)


@pytest.mark.parametrize("loss", [*NOT_THERE, *EMPTY])
def test_root_loss_deletes_nothing_when_a_root(loss: Loss, setup: Setup) -> None:
    s = setup
    s.start()
    put_back = suspended(s, lambda: loss(s))
    s.until_halted(str(s.root))
    put_back()
    s.until_level()
    s.nothing_is_lost()
    until(lambda: "halted" not in s.daemon.title(), 30, "the master's title to say so")
    (s.root / "after").write_text("after")
    (s.root / "one").unlink()  # what is deleted one by one is mirrored as ever
    s.until_level()


@pytest.mark.parametrize("loss", EMPTY)
def test_root_loss_is_mirrored_when_accepted_after_a_root(loss: Loss, setup: Setup) -> None:
    s = setup
    s.start()
    suspended(s, lambda: loss(s))
    s.until_halted(f"{s.root} is empty")
    s.daemon.until_logged(f"If this is meant: kill -USR2 {s.daemon.pid}, or rguard = False")
    s.accept()
    s.until_gone("a", "b")
    s.until_level()
    s.daemon.until_logged(f"{re.escape(str(s.root))}: what it is now is accepted")
    fill(s.root)
    s.until_level()
    suspended(s, lambda: is_emptied(s))  # it was meant once, not for ever
    s.until_halted(f"{s.root} is empty")


def test_removals_above_rmaxdelete_wait_for_accept_over_a_restart(setup: Setup) -> None:
    s = setup
    (s.root / "many").mkdir()
    (s.root / "big/small").mkdir(parents=True)
    for number in range(40):
        (s.root / f"many/{number}").touch()
        (s.root / f"big/{number}").touch()
    for number in range(5):
        (s.root / f"big/small/{number}").touch()
    s.configure(rmaxdelete=10, edelay=60)
    s.start()
    (s.root / "big").rename(s.root / "large")
    s.until_level()
    (s.root / "large/small").rename(s.home / "small")  # six entries
    s.until_level()
    (s.root / "large").rename(s.home / "large")  # one event, and 41 entries on a node
    for node in "ab":
        s.daemon.until_state(node, ("halted",))
    s.daemon.until_logged(r"has lost 41 entries, in \S+/large, more than rmaxdelete \(10\) allows; nothing ")
    s.others_go_on()
    assert all(len(list(s.copy(node).glob("large/*"))) == 40 for node in "ab")
    s.accept()
    s.until_level()

    def not_many_are_lost() -> None:
        assert all(len(list(s.copy(node).glob("many/*"))) >= 30 for node in "ab")

    for number in range(10):  # renames are no removals
        (s.root / f"many/{number}").rename(s.root / f"many/renamed{number}")
    s.until_level()
    (s.root / "many/renamed0").unlink()
    s.until_level()
    shutil.rmtree(s.root / "many")
    for node in "ab":
        s.daemon.until_state(node, ("halted",))
    s.daemon.until_logged(
        r"has lost \d+ entries, in \S+/many, more than rmaxdelete \(10\) allows; nothing of it "
    )
    not_many_are_lost()
    (s.root / "after").touch()
    s.others_go_on()
    assert s.daemon.stop() == 0
    s.daemon.start()
    for node in "ab":
        s.daemon.until_state(node, ("halted",))
    s.others_go_on()
    not_many_are_lost()
    s.accept()
    s.until_level()


def test_root_that_does_not_exist_cannot_be_accepted(setup: Setup) -> None:
    s = setup
    s.start()
    s.accept()
    s.daemon.until_logged("nothing is halted")
    is_moved_away(s)
    s.until_halted(str(s.root))
    s.accept()
    s.daemon.until_logged("that cannot be accepted: make the directory")
    s.until_halted(str(s.root))
    s.root.mkdir()
    s.until_halted(f"{s.root} is empty")
    s.accept()
    s.until_gone("a", "b")
    s.until_level()


def test_root_loss_is_mirrored_without_rguard(setup: Setup) -> None:
    s = setup
    s.configure(rguard=False)
    s.start()
    suspended(s, lambda: is_replaced_by_an_empty_one(s))
    s.until_gone("a", "b")
    fill(s.root)
    s.until_level()
    s.reload(rguard=True)
    suspended(s, lambda: is_removed_and_made_again(s))
    s.until_halted(f"{s.root} is empty")
    s.reload(rguard=False)
    s.until_gone("a", "b")
    s.until_level()


def test_root_with_one_entry_may_lose_it(setup: Setup) -> None:
    s = setup
    empty(s.root)
    (s.root / "only").mkdir()
    (s.root / "only" / "file").write_text("")
    s.start()
    shutil.rmtree(s.root / "only")
    s.until_gone("a", "b")
    s.until_level()
    assert "nothing of it is mirrored" not in s.daemon.log()


def test_root_with_only_excluded_entries_is_lost(setup: Setup) -> None:
    s = setup
    (s.root / "lost+found").mkdir()
    s.configure(rexcludes=["/lost+found"])
    s.daemon.start()
    s.daemon.until_level(
        [(s.root, s.copy(node)) for node in "ab"], ignore=lambda name: name == b"lost+found", nodes=2
    )

    def all_but_one() -> Callable[[], None]:
        put_back = is_emptied(s)
        (s.root / "lost+found").mkdir()
        return put_back

    suspended(s, all_but_one)
    s.until_halted(f"{s.root} is empty")
    for name in ("lost+found/x", "lost+found/y"):  # nor is this a return
        (s.root / name).write_text("")
        s.others_go_on()
    s.until_halted(f"{s.root} is empty")


@pytest.mark.slow
@pytest.mark.parametrize("loss", [is_emptied, is_removed])
def test_root_refilled_file_by_file_deletes_nothing_meanwhile(loss: Loss, setup: Setup) -> None:
    s = setup
    s.start()
    s.reload(edelay=4)
    suspended(s, lambda: loss(s))
    s.until_halted(f"{s.root}")
    for name in FILES:
        (s.root / name).parent.mkdir(parents=True, exist_ok=True)
        (s.root / name).write_text(name)
        over = time.monotonic() + 1.5  # longer than the master's second between two looks
        until(lambda: s.keeps_all() and time.monotonic() > over, 30, "nothing to happen")  # noqa: B023
    s.until_level()


@pytest.mark.parametrize(
    ("before", "after"),
    [({}, {"rexcludes": ["/cache"]}), ({"rguard": False}, {"rguard": True})],
    ids=["other excludes", "the guard on"],
)
def test_root_loss_is_noticed_after_a_reload_that_brings(
    before: dict[str, object], after: dict[str, object], setup: Setup
) -> None:
    s = setup
    s.configure(**before)
    s.start()
    s.reload(**after)
    suspended(s, lambda: is_emptied(s))
    s.until_halted(f"{s.root} is empty")


# While something runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", EMPTY)
def test_waiting_full_mirror_deletes_nothing_when_a_root(loss: Loss, setup: Setup) -> None:
    """Its rsync has started but not connected, as over a slow ssh."""
    s = setup
    s.start()
    s.rsync.hold("a")
    s.rsync.hold("b")
    full = len(s.rsync.starts("full "))
    for node in "ab":  # a new worker compares nothing, but a reload with another extra does
        assert node in s.daemon.workers()
    s.reload(extra="--compress")
    until(lambda: len(s.rsync.starts("full ")) == full + 2, 30, "the full mirrors to be started")
    put_back = suspended(s, lambda: loss(s))
    s.rsync.mend("a")
    s.rsync.mend("b")
    s.until_halted(str(s.root))
    put_back()
    s.until_level()


@pytest.mark.parametrize("loss", EMPTY)
def test_full_mirror_before_the_master_knows_deletes_nothing_when_a_root(loss: Loss, setup: Setup) -> None:
    """The master is stopped meanwhile, so that the worker alone must notice."""
    s = setup
    s.start()
    s.rsync.hold("a")
    since = len(s.daemon.log())
    s.reload(extra="--compress")
    # If b still listed the root when it is emptied, only the stopped master could notice.
    s.daemon.until_logged(r"b: full mirror in", since=since)
    s.daemon.until_state("b", ("ok",))
    until(lambda: s.daemon.rsyncs("a"), 30, "a full mirror to be started")
    [worker] = [pid for node, pid in s.daemon.workers().items() if node == "a"]

    def all_of_it() -> Callable[[], None]:
        put_back = loss(s)
        s.rsync.mend("a")
        until(lambda: not s.daemon.rsyncs("a"), 30, "the worker to be through")
        s.nothing_is_lost()
        return put_back

    put_back = suspended(s, all_of_it)
    assert procs.look(worker) is not None
    s.until_halted(str(s.root))
    put_back()
    s.until_level()


@pytest.mark.parametrize("loss", [*NOT_THERE, *EMPTY])
def test_retried_batch_deletes_nothing_when_a_root(loss: Loss, setup: Setup) -> None:
    s = setup
    s.start()
    s.rsync.fault("a", "exit 12")
    (s.root / "one").write_text("other content")
    (s.root / "sub" / "deep" / "four").unlink()
    (s.root / "sub" / "deep" / "four").write_text("other content")
    s.daemon.until_state("a", ("retry",))
    # A batch that runs while everything is removed is another test.
    flushed = s.daemon.ask("flush", node="b", timeout=60)
    assert not flushed["behind"]
    put_back = suspended(s, lambda: loss(s))
    s.daemon.until_state("b", ("halted",))
    s.nothing_is_lost()
    s.rsync.mend("a")
    s.until_halted(str(s.root))
    put_back()
    s.until_level()


@pytest.mark.slow
@pytest.mark.parametrize("slow", ["a", "ab"])
def test_full_mirror_that_runs_is_ended_when_a_root_is_emptied(slow: str, setup: Setup) -> None:
    s = setup
    for number in range(2_000):  # so many take a while to list
        (s.root / f"sub/{number}").mkdir(parents=True)
        (s.root / f"sub/{number}/file").touch()
    s.start()
    assert s.daemon.stop() == 0
    nodes = [{"node": f"{s.home}/nodes/{name}/", "name": name} for name in "ab"]
    for name in FILES:
        (s.root / name).write_bytes(os.urandom(500_000))
    s.configure(rnodes=[{**node, "rspeed": 100} if node["name"] in slow else node for node in nodes])
    s.daemon.args = ("--full",)
    s.daemon.start()
    for name in slow:
        until(lambda: any(s.copy(name).glob("**/.*.??????")), 60, f"a transfer to {name}")  # noqa: B023
    put_back = suspended(s, lambda: is_emptied(s))
    s.until_halted(f"{s.root} is empty")
    for name in slow:
        s.daemon.until_logged(f"{name}: full mirror held back")
        assert len(list(s.copy(name).glob("sub/*/file"))) == 2_000
    put_back()
    s.reload(rnodes=nodes)
    s.until_level()


# Starts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("args", "why"), [((), "is empty"), (("--full",), "is empty, and nodes have files")])
def test_root_emptied_before_the_start_is_lost_if_nodes_have_files(
    args: tuple[str, ...], why: str, setup: Setup
) -> None:
    s = setup
    s.start()
    assert s.daemon.stop() == 0
    put_back = is_emptied(s)
    s.daemon.args = args
    s.daemon.start()
    s.until_halted(f"{s.root} {why}")
    put_back()
    s.until_level()
    s.nothing_is_lost()
    assert s.daemon.stop() == 0
    is_removed_and_made_again(s)
    s.daemon.start()
    s.until_halted(f"{s.root} is empty")
    s.accept()
    s.until_gone("a", "b")
    s.until_level()


def test_root_empty_at_the_start_is_not_lost_if_nodes_are_empty(setup: Setup) -> None:
    s = setup
    empty(s.root)
    s.start()
    (s.root / "file").write_text("")
    s.until_level()
    (s.root / "file").unlink()
    s.until_level()
    assert "nothing of it is mirrored" not in s.daemon.log()


def test_root_missing_at_the_start_is_waited_for_with_rwait(setup: Setup) -> None:
    s = setup
    s.start()
    assert s.daemon.stop() == 0
    put_back = is_moved_away(s)
    s.daemon.start(ready=False)
    assert s.daemon.wait() == 78
    assert re.search(r"wpaths: '.*/tree': does not exist; .* rwait = True", s.daemon.log())
    s.configure(rwait=True)
    s.daemon.start()
    s.until_halted(f"{s.root}: No such file or directory")
    put_back()
    s.until_level()
    s.nothing_is_lost()


# Mounts --------------------------------------------------------------------------------------------------


@dataclass
class Mounts:
    """A setup whose daemon has a mount namespace of its own, in which a test can mount."""

    setup: Setup

    def run(self, *command: str) -> None:
        mount_namespace.run(self.setup.daemon.pid, *command)


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[Mounts]:
    launcher = mount_namespace.launcher(tmp_path)
    env = {"LIBMOUNT_FSTAB": str(tmp_path / "fstab")}
    s = make_setup(tmp_path, Daemon(tmp_path / "inosync", {}, ("-v",), env, launcher))
    try:
        yield Mounts(s)
    finally:
        s.daemon.close()


@pytest.mark.slow
@pytest.mark.parametrize("in_fstab", [True, False], ids=["in fstab", "not in fstab"])
@pytest.mark.parametrize("below", [True, False], ids=["files below", "nothing below"])
def test_root_that_is_unmounted_is_waited_for(in_fstab: bool, below: bool, mounts: Mounts) -> None:
    s = mounts.setup
    source = s.home / "source"
    fill(source)
    empty(s.root)
    if below:
        (s.root / "below").write_text("what the mount hides")
    if in_fstab:
        (s.home / "fstab").write_text(f"# comment\n{source} {s.root} none bind 0 0\n")
    # A warm rsync would keep the mount busy.
    s.configure(
        rwarm=False,
        rwait=True,
        rnodes=[{"node": f"{s.home}/nodes/{node}/", "name": node, "rwarm": False} for node in "ab"],
    )
    away = s.root.rename(s.home / "away")
    s.daemon.start()
    s.daemon.until_logged(f"{re.escape(str(s.root))}: No such file")
    away.rename(s.root)
    if in_fstab:
        s.daemon.until_logged(f"{re.escape(str(s.root))} is not mounted")
        s.others_go_on()
        assert not s.copy("a").exists()
    mounts.run("mount", "--bind", str(source), str(s.root))
    copies = [(source, s.copy(node)) for node in "ab"]
    s.daemon.until_level(copies, nodes=2)
    for how in ("-v", "-l"):
        until(lambda: not s.daemon.rsyncs(), 30, "no rsync to stand in it")
        mounts.run("umount", how, str(s.root))
        s.until_halted(f"{s.root} is not mounted")
        mounts.run("mount", "--bind", str(source), str(s.root))
        s.daemon.until_level(copies, nodes=2)
    mounts.run("umount", str(s.root))
    s.until_halted(f"{s.root} is not mounted")
    s.accept()
    s.until_level()
    assert os.listdir(s.copy("a")) == (["below"] if below else [])


def test_mount_point_of_fstab_that_does_not_exist_is_waited_for(mounts: Mounts) -> None:
    s = mounts.setup
    s.start()
    assert s.daemon.stop() == 0
    put_back = is_moved_away(s)
    (s.home / "fstab").write_text(f"tmpfs {s.root} tmpfs defaults 0 0\n")
    s.daemon.start()
    s.until_halted(f"{s.root}: No such file or directory")
    put_back()
    s.until_halted(f"{s.root} is not mounted")
