"""The daemon as a service, black-box: its command line, signals, detaching, files and logs."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support import procs, trees
from support.churn import HOSTILE, Churn
from support.daemon import Daemon, FakeRsync, MakeDaemon
from support.procs import Process
from support.wait import until

ROOT = os.geteuid() == 0
FAST = {"edelay": 0.2, "equiet": 0.02, "rretry": (0.2, 1)}
USAGE, CONFIG, FAILED = 64, 78, 1
IN_TIME = 30.0
"""Seconds that a stop may take: 5 s are for the transfers that run, the rest for a machine that is busy."""


@dataclass
class Service:
    """A daemon for local nodes, its trees, and its settings as they stand in the file."""

    home: Path
    rsync: FakeRsync
    daemon: Daemon
    settings: dict[str, object] = field(default_factory=dict)

    def tree(self, name: str = "tree") -> Path:
        path = self.home / "trees" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def node(self, name: str, **settings: object) -> dict[str, object]:
        """An item for rnodes: the node ``NAME`` at ``nodes/NAME``."""
        (self.home / "nodes" / name).mkdir(parents=True, exist_ok=True)
        return {"node": f"{self.home}/nodes/{name}/", "name": name, **settings}

    def copy(self, node: str, tree: str = "tree") -> Path:
        return self.home / "nodes" / node / tree

    def base(self) -> dict[str, object]:
        """The settings that every test begins with."""
        return {
            "wpaths": [str(self.tree())],
            "rpaths": ["tree"],
            "rnodes": [self.node("a"), self.node("b")],
            "rsync": str(self.rsync.path),
            # What a test holds or fails is the rsync of the next change, so that has to be started for it.
            "rwarm": False,
            **FAST,
        }

    def configure(self, **settings: object) -> None:
        self.settings = {**self.base(), **settings}
        self.daemon.configure(self.settings)

    def hup(self, expect: str = "default.py reloaded") -> str:
        """SIGHUP; return what was logged up to the line that tells of its end."""
        since = len(self.daemon.log())
        self.daemon.hup()
        self.daemon.until_logged(f"{re.escape(expect)}.*\n", since=since)
        return self.daemon.log()[since:]

    def reload(self, **settings: object) -> None:
        self.configure(**settings)
        self.hup()

    def change(self, name: str, content: str = "content", tree: str = "tree") -> None:
        trees.replace(self.tree(tree) / name, content, self.home / "fresh")

    def until_arrived(self, node: str, name: str, content: str = "content", tree: str = "tree") -> None:
        path = self.copy(node, tree) / name
        until(lambda: path.exists() and path.read_text() == content, 60, f"{name} on {node}")

    def until_ok(self, nodes: Sequence[str] = ("a", "b"), *, names: Sequence[str] = ("tree",)) -> None:
        """Wait until these nodes, and no others, are level with these trees, and say so."""
        pairs = [(self.tree(name), self.copy(node, name)) for node in nodes for name in names]
        self.daemon.until_level(pairs, nodes=len(nodes))
        # Those that it was level with may be the workers of before a reload.
        until(lambda: set(self.daemon.workers()) == set(nodes), 60, f"workers of {nodes}")

    def fulls(self) -> list[str]:
        """The full mirrors so far, as NODE/TREE."""
        return [
            str(Path(line.split(" ", 1)[1]).relative_to(self.home / "nodes"))
            for line in self.rsync.starts("full ")
        ]


def make_service(home: Path, make: MakeDaemon, args: Sequence[str] = ("-v",)) -> Service:
    home.mkdir(exist_ok=True)
    service = Service(home, FakeRsync(home / "fake"), make({}, args))
    service.configure()
    return service


@pytest.fixture
def service(tmp_path: Path, daemon: MakeDaemon) -> Service:
    """A service of the test's own, not started."""
    return make_service(tmp_path, daemon)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service that tests share. Each begins with ``reset``."""
    home = tmp_path_factory.mktemp("service")
    made: list[Daemon] = []

    def make(
        config: Mapping[str, object] | str, args: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> Daemon:
        made.append(Daemon(home / "inosync", config, args, env))
        return made[0]

    service = make_service(home, make)
    try:
        service.daemon.start()
        yield service
        service.daemon.close()
    finally:
        for node in "ab":
            service.rsync.mend(node)
        with contextlib.suppress(AssertionError):
            service.daemon.close()


@pytest.fixture
def shared(running: Service) -> Service:
    """The shared service, with its base configuration and level."""
    if running.settings != running.base() or not running.daemon.file.exists():
        running.reload()
    # Something for every worker to say that it is ok.
    running.change("next", str(time.monotonic_ns()))
    running.until_ok()
    return running


# Titles --------------------------------------------------------------------------------------------------

TIME = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d"


def test_titles_have_the_form_that_the_manual_shows(shared: Service) -> None:
    directories = 1 + sum(entry.type == "directory" for entry in trees.snapshot(shared.tree()).values())
    until(
        lambda: shared.daemon.title() == f"inosync: master default.py [2 nodes: 2 ok] {directories} dirs",
        60,
        "the master's title",
    )
    pids = shared.daemon.workers()
    assert set(pids) == {"a", "b"}
    for node, pid in pids.items():
        assert re.fullmatch(rf"inosync: {node} \[ok\] synced {TIME}", procs.title(pid))
    (shared.tree() / "a new one/and another").mkdir(parents=True)
    until(lambda: shared.daemon.title().endswith(f"] {directories + 2} dirs"), 60, "the number to follow")
    shutil.rmtree(shared.tree() / "a new one")
    until(lambda: shared.daemon.title().endswith(f"] {directories} dirs"), 60, "the number to follow")


def test_a_node_is_never_ok_while_it_lacks_a_change(shared: Service) -> None:
    shared.rsync.hold("a")
    pid = shared.daemon.workers()["a"]
    try:
        shared.change("first")
        shared.change("second")
        until(lambda: re.fullmatch(r"inosync: a \[syncing\] [12] paths?", procs.title(pid)), 60, "the batch")
        until(lambda: "[2 nodes: 1 ok, 1 syncing]" in shared.daemon.title(), 60, "the master to tell")
        # Others, and more changes, and a reload pass by.
        for number in range(20):
            shared.change("more", f"{number}")
            shared.until_arrived("b", "more", f"{number}")
            if number == 10:
                shared.hup()
            assert "[ok]" not in procs.title(pid)
            assert "2 ok" not in shared.daemon.title()
    finally:
        shared.rsync.mend("a")
    shared.until_ok()


def test_whoever_is_ok_has_what_was_there_before(shared: Service) -> None:
    """Sampled: a title seen as ok after a change was sent to the other node, and begun with for this one."""
    pid = shared.daemon.workers()["a"]
    for number in range(15):
        begun = len(shared.rsync.starts("/a/"))
        shared.change("round", f"{number}")
        shared.until_arrived("b", "round", f"{number}")
        # Its turn is no later, but its worker may not have been given the processor yet.
        until(lambda: len(shared.rsync.starts("/a/")) > begun, 60, "its turn")  # noqa: B023
        until(lambda: "[ok]" in procs.title(pid) and "2 ok" in shared.daemon.title(), 60, "both to be ok")
        assert (shared.copy("a") / "round").read_text() == f"{number}"


def test_a_node_that_waits_for_a_slot_is_not_ok(shared: Service) -> None:
    # So that it is one large batch.
    shared.reload(rslots=1, equiet=0.5, edelay=2)
    shared.until_ok()
    before = len(shared.rsync.starts("batch "))
    shared.rsync.hold("a")
    shared.rsync.hold("b")
    try:
        for number in range(1500):
            shared.change(f"many-{number}")
        # One has the slot; the other has more to take than edelay allows for.
        until(lambda: len(shared.rsync.starts("batch ")) > before, 60, "a batch")
        until(lambda: " ok" not in shared.daemon.title(), 60, "the master to tell of both")
        until(lambda: "ok" not in shared.daemon.states().values(), 20, "no worker to say ok")
    finally:
        shared.rsync.mend("a")
        shared.rsync.mend("b")
        for number in range(1500):
            (shared.tree() / f"many-{number}").unlink()
    shared.until_ok()


def test_a_throttled_full_mirror_shows_how_far_it_is(service: Service) -> None:
    for number in range(30):
        (service.tree() / f"{number}").write_bytes(os.urandom(20_000))
    service.configure(rnodes=[service.node("a", rspeed=100), service.node("b")])
    service.daemon.start()
    pid = until(lambda: service.daemon.workers().get("a"), 60, "the worker")
    seen: list[str] = []

    def look() -> bool:
        title = procs.title(pid)
        if title not in seen[-1:]:
            seen.append(title)
        return "[ok]" in title

    until(lambda: look() or any("%" in title for title in seen), 60, "a percentage")
    # The master learns of it from the worker: its title may be a moment behind.
    until(lambda: look() or re.search("[12] full", service.daemon.title()), 60, "the master to tell of it")
    until(look, 60, "its end")
    seen = [title for title in seen if not title.startswith("inosync: master")]
    for title in seen:
        assert re.fullmatch(rf"inosync: a \[(starting\]|full\]( \d+%)?|ok\] synced {TIME})", title), seen
    percents = [int(found[1]) for title in seen if (found := re.search(r"(\d+)%", title))]
    assert len(set(percents)) > 2
    assert all(0 <= percent <= 100 for percent in percents)
    service.until_ok()
    service.rsync.hold("a")
    try:
        for number in range(3):
            service.change(f"{number}")
        until(lambda: re.fullmatch(r"inosync: a \[syncing\] [123] paths?", procs.title(pid)), 60, "a batch")

        def below(node: str) -> list[str]:
            return [
                title for p in service.daemon.rsyncs(node) if "/nodes/a/tree" in (title := procs.title(p))
            ]

        # What runs for a node is found below its worker.
        until(lambda: any("rsync" in title for title in below("a")), 60, "its rsync")
        assert below("b") == []
    finally:
        service.rsync.mend("a")
    service.until_ok()


def test_control_characters_reach_neither_title_nor_log(shared: Service) -> None:
    name = os.fsdecode(b"name\nERROR: forged\x1b[31m\xff")
    shared.rsync.fault("a", r"printf 'rsync: [sender] bad \033[31m\007 name\n' >&2; exit 12")
    try:
        (shared.tree() / name).write_text("content")
        pid = shared.daemon.workers()["a"]
        title = until(lambda: t if "[retry" in (t := procs.title(pid)) else "", 60, "the retry")
    finally:
        shared.rsync.mend("a")
    assert title.isprintable()
    assert "31m" in title
    shared.until_ok()
    (shared.tree() / name).unlink()
    shared.until_ok()
    log = shared.daemon.stderr.read_bytes()
    assert b"forged" in log
    assert b"\nERROR: forged" not in log
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", log)


# SIGHUP --------------------------------------------------------------------------------------------------


def test_an_unchanged_file_changes_nothing(shared: Service) -> None:
    pids, fulls = shared.daemon.workers(), shared.fulls()
    for number in range(3):
        shared.hup()
        shared.change("file", f"{number}")
        shared.until_arrived("a", "file", f"{number}")
    shared.until_ok()
    assert shared.daemon.workers() == pids
    assert shared.fulls() == fulls


def test_a_node_that_is_added_gets_all_and_the_others_go_on(shared: Service) -> None:
    shared.change("before")
    shared.until_ok()
    pids, fulls = shared.daemon.workers(), shared.fulls()
    shared.reload(rnodes=[shared.node("a"), shared.node("new"), shared.node("b")])
    shared.change("after")
    shared.until_ok(["a", "b", "new"])
    assert {node: shared.daemon.workers()[node] for node in "ab"} == pids
    assert shared.fulls() == [*fulls, "new/tree"]


def test_a_node_that_is_removed_ends_and_the_others_go_on(shared: Service) -> None:
    pids, fulls = shared.daemon.workers(), shared.fulls()
    shared.change("before")
    shared.until_ok()
    shared.reload(rnodes=[shared.node("b")])
    shared.change("after the removal")
    shared.until_ok(["b"])
    assert shared.daemon.workers() == {"b": pids["b"]}
    assert shared.fulls() == fulls
    assert not (shared.copy("a") / "after the removal").exists()
    # What it had it keeps, and when it is back it is compared.
    assert (shared.copy("a") / "before").exists()
    shared.reload()
    shared.until_ok()
    assert shared.fulls() == [*fulls, "a/tree"]
    assert shared.daemon.workers()["b"] == pids["b"]


def test_a_node_is_removed_and_added_again_while_its_transfer_hangs(shared: Service) -> None:
    shared.rsync.hold("a")
    try:
        shared.change("file")
        shared.daemon.until_state("a", ("syncing",))
        first = shared.daemon.workers()["a"]
        shared.reload(rnodes=[shared.node("b")])
        shared.change("file", "more")
        shared.reload()
        shared.until_arrived("b", "file", "more")
    finally:
        shared.rsync.mend("a")
    shared.until_ok()
    assert shared.daemon.workers()["a"] != first


def test_a_node_that_is_changed_restarts_where_it_was(shared: Service) -> None:
    pids, fulls = shared.daemon.workers(), shared.fulls()
    for speed in (100_000, 200_000):
        shared.change("before", f"{speed}")
        shared.reload(rnodes=[shared.node("a", rspeed=speed), shared.node("b")])
        shared.change("after", f"{speed}")
        shared.until_ok()
        assert shared.daemon.workers()["a"] != pids["a"]
        assert shared.daemon.workers()["b"] == pids["b"]
    assert shared.fulls() == fulls


def test_a_changed_node_does_not_lose_what_it_had_not_confirmed(shared: Service) -> None:
    fulls = shared.fulls()
    shared.rsync.fault("a", "exit 12")
    try:
        shared.change("unconfirmed")
        shared.daemon.until_state("a", ("retry",))
        shared.change("and more")
        shared.until_arrived("b", "and more")
        shared.reload(rnodes=[shared.node("a", rspeed=100_000), shared.node("b")])
    finally:
        shared.rsync.mend("a")
    shared.until_ok()
    assert shared.fulls() == fulls


def test_a_node_at_another_place_is_mirrored_in_full(shared: Service) -> None:
    pids, fulls = shared.daemon.workers(), shared.fulls()
    moved = {**shared.node("moved"), "name": "a"}
    shared.reload(rnodes=[moved, shared.node("b")])
    shared.change("file", "at another place")
    shared.daemon.until_level([(shared.tree(), shared.copy(place)) for place in ("moved", "b")], nodes=2)
    assert shared.fulls() == [*fulls, "moved/tree"]
    assert shared.daemon.workers()["b"] == pids["b"]
    assert (
        not (shared.copy("a") / "file").exists()
        or (shared.copy("a") / "file").read_text() != "at another place"
    )


def test_another_rpath_is_mirrored_in_full_on_all_nodes(shared: Service) -> None:
    fulls = shared.fulls()
    shared.change("file", "elsewhere")
    shared.reload(rpaths=["elsewhere"])
    until(
        lambda: all(
            path.is_dir() and not trees.diff(trees.snapshot(shared.tree()), trees.snapshot(path))
            for path in (shared.copy("a", "elsewhere"), shared.copy("b", "elsewhere"))
        ),
        60,
        "the other place to be level",
    )
    shared.until_ok(names=())
    assert sorted(shared.fulls()[len(fulls) :]) == ["a/elsewhere", "b/elsewhere"]


def test_a_wpath_is_added_and_removed_again(shared: Service) -> None:
    fulls = shared.fulls()
    shared.change("early", tree="second")
    shared.reload(wpaths=[str(shared.tree()), str(shared.tree("second"))], rpaths=["tree", "second"])
    shared.change("late", tree="second")
    shared.change("late")
    shared.until_ok(names=("tree", "second"))
    assert sorted(shared.fulls()[len(fulls) :]) == ["a/second", "b/second"]
    shared.reload()
    shared.change("too late", tree="second")
    shared.change("not too late")
    shared.until_ok()
    shared.change("afterwards")
    shared.until_ok()
    for node in "ab":
        assert sorted(os.listdir(shared.copy(node, "second"))) == ["early", "late"]
    assert sorted(shared.fulls()[len(fulls) :]) == ["a/second", "b/second"]
    until(lambda: re.search(r"\[2 nodes: 2 ok\] \d+ dirs", shared.daemon.title()), 60, "the title to follow")


def test_a_wpath_takes_anothers_place(shared: Service) -> None:
    shared.change("file", "of the third", tree="third")
    shared.reload(wpaths=[str(shared.tree("third"))], rpaths=["tree"])
    until(
        lambda: all(
            not trees.diff(trees.snapshot(shared.tree("third")), trees.snapshot(shared.copy(node)))
            for node in "ab"
        ),
        60,
        "the nodes to have the other one",
    )
    shared.until_ok(names=())
    shared.reload()
    shared.until_ok()


def test_other_excludes_are_followed(shared: Service) -> None:
    shared.change("a.tmp", "first")
    shared.until_ok()
    shared.reload(rexcludes=["*.tmp"])
    shared.change("a.tmp", "second")
    shared.change("b.tmp")
    shared.change("file", "excluding")
    shared.until_arrived("a", "file", "excluding")
    shared.until_arrived("b", "file", "excluding")
    until(lambda: set(shared.daemon.states().values()) == {"ok"}, 60, "both to be ok")
    for node in "ab":
        assert (shared.copy(node) / "a.tmp").read_text() == "first"
        assert not (shared.copy(node) / "b.tmp").exists()
    shared.reload()
    shared.until_ok()
    for node in "ab":
        assert (shared.copy(node) / "a.tmp").read_text() == "second"
        assert (shared.copy(node) / "b.tmp").exists()


def test_a_file_of_patterns_takes_effect_when_it_changes(shared: Service) -> None:
    patterns = shared.home / "patterns"
    patterns.touch(0o644)
    patterns.chmod(0o644)
    patterns.write_text("*.tmp\n")
    extra = shared.home / "more patterns"
    extra.touch(0o600)
    shared.reload(rexcludes={"from": str(patterns)}, extra=["--exclude-from", str(extra)])

    def arrives(name: str) -> bool:
        """Whether a file gets to the nodes; the one after it has to."""
        for each in (name, "marker"):
            shared.change(each, str(time.monotonic_ns()))
        content = (shared.tree() / "marker").read_text()
        for node in "ab":
            shared.until_arrived(node, "marker", content)
        until(lambda: set(shared.daemon.states().values()) == {"ok"}, 60, "the end of the batch")
        return all((shared.copy(node) / name).exists() for node in "ab")

    def logged(text: str, since: int) -> None:
        shared.daemon.until_logged(text, since=since)

    assert not arrives("one.tmp")
    assert arrives("one.bak")
    since = len(shared.daemon.log())
    patterns.write_text("*.bak\n")
    logged(f"changed: {patterns}: the configuration is read again\n(.*\n)*.*default.py reloaded", since)
    assert not arrives("two.bak")
    assert arrives("two.tmp")
    # Replaced by one with mistakes, removed, and made right: the old one is in force until then.
    since = len(shared.daemon.log())
    (shared.home / "next").write_text("good\n- \n")
    (shared.home / "next").rename(patterns)
    logged(f"{patterns}:2: '- ': a pattern is missing.*\n.*not reloaded: the old configuration", since)
    patterns.unlink()
    logged(f"rexcludes: '{patterns}': cannot be read: No such file.*\n.*not reloaded: the old", since)
    assert not arrives("three.bak")
    assert shared.daemon.log()[since:].count("the configuration is read again") == 2
    patterns.write_text("*.old\n")
    logged("default.py reloaded", since)
    assert arrives("four.bak")
    assert not arrives("four.old")
    # One that is named in extra.
    since = len(shared.daemon.log())
    extra.write_text("*.dir/\n")
    logged("default.py reloaded", since)
    (shared.tree() / "five.dir").mkdir()
    assert not arrives("five.dir/file")
    shared.reload()
    shared.until_ok()


def test_a_node_may_include_what_is_excluded_for_the_others(shared: Service) -> None:
    (shared.tree() / "cache").mkdir()
    shared.change("cache/file", "first")
    including = shared.node("a", rexcludes=["+ /cache/"])
    shared.reload(rexcludes=["/cache/"], rnodes=[including, shared.node("c")])
    shared.until_arrived("a", "cache/file", "first")
    until(lambda: set(shared.daemon.states().values()) == {"ok"}, 60, "both to be ok")
    shared.change("cache/file", "second")
    shared.until_arrived("a", "cache/file", "second")
    shared.change("file", "both")
    shared.until_arrived("c", "file", "both")
    assert not (shared.copy("c") / "cache").exists()
    # Nobody needs to have it watched any more.
    shared.reload(rexcludes=["/cache/"], rnodes=[shared.node("a"), shared.node("c")])
    directories = 1 + sum(entry.type == "directory" for entry in trees.snapshot(shared.tree()).values())
    until(lambda: shared.daemon.title().endswith(f" {directories - 1} dirs"), 60, "one watch less")
    shared.change("cache/file", "third")
    shared.change("file", "none")
    for node in "ac":
        shared.until_arrived(node, "file", "none")
    assert (shared.copy("a") / "cache/file").read_text() == "second"
    shared.reload()
    shared.until_ok()
    shutil.rmtree(shared.tree() / "cache")
    shared.until_ok()


def test_another_emask_is_followed_without_a_restart(shared: Service) -> None:
    pids = shared.daemon.workers()
    for name in ("one", "two"):
        shared.change(name)
        (shared.tree() / name).chmod(0o600)
    shared.until_ok()
    shared.reload(emask=["IN_CLOSE_WRITE", "IN_CREATE", "IN_DELETE", "IN_MOVED_FROM", "IN_MOVED_TO"])
    rounds = itertools.count()

    def chmod_alone_goes_unnoticed() -> bool:
        # A full comparison on the way may bring it all the same.
        number = next(rounds)
        mode = 0o640 if number % 2 else 0o604
        (shared.tree() / "one").chmod(mode)
        for node in "ab":
            shared.change(f"marker-{node}", f"{number}")
            shared.until_arrived(node, f"marker-{node}", f"{number}")
        return all(stat.S_IMODE((shared.copy(node) / "one").stat().st_mode) != mode for node in "ab")

    until(chmod_alone_goes_unnoticed, 60, "a change of mode alone to go unnoticed")
    shared.reload()
    (shared.tree() / "two").chmod(0o640)
    until(
        lambda: all(stat.S_IMODE((shared.copy(n) / "two").stat().st_mode) == 0o640 for n in "ab"), 60, "modes"
    )
    assert shared.daemon.workers() == pids
    (shared.tree() / "one").chmod(0o600)
    shared.until_ok()


BAD: dict[str, tuple[str, str]] = {
    "syntax": ("wpaths = [\n", r"default\.py:\d+: SyntaxError"),
    "unknown name": ("{good}rexclude = []\n", r"rexclude: did you mean rexcludes"),
    "exception": ("{good}1 / 0\n", r"ZeroDivisionError"),
    "no such wpath": ("{good}wpaths = ['/nonexistent/tree']\n", r"/nonexistent/tree.*does not exist"),
    "exits": ("raise SystemExit(0)\n", r"SystemExit"),
}


@pytest.mark.parametrize("kind", [*BAD, "removed", "writable by others"])
def test_a_bad_file_leaves_the_old_one_in_force(shared: Service, kind: str) -> None:
    pids, fulls, file = shared.daemon.workers(), shared.fulls(), shared.daemon.file
    if kind == "removed":
        file.unlink()
        why = r"default\.py: cannot be read: No such file"
    elif kind == "writable by others":
        file.chmod(0o666)
        why = r"default\.py: is writable by others"
    else:
        text, why = BAD[kind]
        shared.daemon.configure(text.replace("{good}", file.read_text()))
    try:
        said = shared.hup("was not reloaded")
        lines = [line for line in said.splitlines() if "WARNING" in line or "ERROR" in line]
        assert len([line for line in lines if re.search(why, line)]) == 1, lines
        assert len(lines) <= 2, lines
        shared.change("file", kind)
        shared.until_ok()
        assert shared.daemon.workers() == pids
        assert shared.fulls() == fulls
    finally:
        shared.configure()
    shared.hup()
    assert shared.daemon.workers() == pids


@pytest.mark.timeout(300)
def test_reloads_under_churn_end_level(service: Service, seed: int) -> None:
    tree = service.tree()
    churn = Churn(os.fsencode(tree), seed)
    churn.run(100)
    service.daemon.start()
    a, b = service.node("a"), service.node("b")
    variants: list[dict[str, object]] = [
        {"rnodes": [a, b, service.node("c")]},
        {"rnodes": [a, service.node("c")]},
        {"rnodes": [service.node("a", rspeed=50_000), b]},
        {"wpaths": [str(tree), str(service.tree("second"))], "rpaths": ["tree", "second"]},
        {"rexcludes": ["index.html"]},
        {"emask": ["IN_ALL_EVENTS"]},
        {},
    ]
    for settings in variants:
        churn.run(30)
        service.configure(**settings)
        service.hup()
        churn.run(30, seconds=0.3)
    # Faster than it can follow.
    for settings in variants:
        service.configure(**settings)
        service.daemon.hup()
        churn.run(10)
    service.reload()
    try:
        service.until_ok()
    except AssertionError as error:
        raise AssertionError(f"{error}\n{churn.tail(100)}") from None


def test_a_hup_that_comes_during_the_start_is_a_reload(service: Service) -> None:
    service.daemon.start(ready=False)
    status = Path(f"/proc/{service.daemon.pid}/status")

    def is_held_back() -> bool:
        blocked = re.search(r"^SigBlk:\s*(\w+)", status.read_text(), re.MULTILINE)
        return blocked is not None and bool(int(blocked[1], 16) & 1 << (signal.SIGHUP - 1))

    until(lambda: service.daemon.exit_code is not None or is_held_back() or service.daemon.title(), 60, "it")
    service.daemon.hup()
    service.daemon.until_logged("default.py reloaded")
    service.until_ok()


# Stopping ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_at_rest_and_leaves_nothing(service: Service, number: signal.Signals) -> None:
    service.change("file")
    service.daemon.start()
    service.until_ok()
    assert stat.S_IMODE(service.daemon.rundir.stat().st_mode) == 0o700
    assert (service.daemon.rundir / "default.pid").read_text().split("\n")[0] == str(service.daemon.pid)
    service.daemon.signal(number)
    assert service.daemon.wait(IN_TIME) == 0
    until(lambda: not service.daemon.descendants(), IN_TIME, "everything to be gone")
    assert list(service.daemon.rundir.iterdir()) == []


def test_it_stops_in_the_middle_of_a_full_mirror_and_leaves_nothing(service: Service) -> None:
    for number in range(4):
        (service.tree() / f"{number}").write_bytes(os.urandom(2_000_000))
    service.configure(rspeed=100)
    service.daemon.start()
    until(lambda: set(service.daemon.states().values()) == {"full"}, 60, "the full mirrors")
    until(lambda: all(any(service.copy(node).glob(".*")) for node in "ab"), 60, "the transfers")
    # Told twice, it does not lose its head.
    service.daemon.signal(signal.SIGTERM)
    service.daemon.signal(signal.SIGTERM)
    assert service.daemon.wait(IN_TIME) == 0
    until(lambda: not service.daemon.descendants(), IN_TIME, "everything to be gone")
    assert list(service.daemon.rundir.iterdir()) == []
    # rsync had time to take its temporary files with it.
    assert [path for node in "ab" for path in service.copy(node).glob(".*")] == []
    service.configure()
    service.daemon.start()
    service.until_ok()


def test_it_stops_though_an_rsync_does_not_and_a_worker_is_stopped(service: Service) -> None:
    service.rsync.fault("a", "trap '' TERM; exec sleep 1000")
    service.daemon.start()
    service.daemon.until_state("a", ("full",))
    service.daemon.until_state("b", ("ok",))
    until(lambda: "sleep 1000" in map(procs.title, service.daemon.rsyncs("a")), 60, "the rsync")
    os.kill(service.daemon.workers()["b"], signal.SIGSTOP)
    assert service.daemon.stop(IN_TIME) == 0
    until(lambda: not service.daemon.descendants(), IN_TIME, "everything to be gone")
    assert list(service.daemon.rundir.iterdir()) == []


def test_a_transfer_that_ends_soon_is_not_cut_off_by_a_stop(service: Service) -> None:
    service.daemon.start()
    service.until_ok()
    service.rsync.hold("a")
    service.change("file")
    service.daemon.until_state("a", ("syncing",))
    until(lambda: service.rsync.starts("batch "), 60, "the transfer")
    service.daemon.signal(signal.SIGTERM)
    until(lambda: "SIGTERM" in service.daemon.log(), 60, "it to be stopping")
    service.rsync.mend("a")
    assert service.daemon.wait(IN_TIME) == 0
    assert (service.copy("a") / "file").read_text() == "content"


# Files and other instances -------------------------------------------------------------------------------


def call(
    daemon: Daemon, *args: str, command: Sequence[str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run inosync to its end; by default a second one for the same configuration."""
    words = [*(command or daemon.command), *args]
    return subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_second_instance_refuses_and_says_who_runs(shared: Service) -> None:
    pids = shared.daemon.workers()
    for args in ((), ("-d",), ("-p",)):
        done = call(shared.daemon, *args)
        assert (done.returncode, done.stdout) == (FAILED, "")
        [line] = done.stderr.splitlines()
        assert re.search(rf"already running with pid {shared.daemon.pid}\b", line)
    shared.change("file", "still here")
    shared.until_ok()
    assert shared.daemon.workers() == pids


def test_another_configuration_of_the_same_name_refuses_to_share_the_rundir(
    shared: Service, tmp_path: Path
) -> None:
    other = tmp_path / "default.py"
    other.write_text(shared.daemon.file.read_text())
    other.chmod(0o600)
    command = [word if word != str(shared.daemon.file) else str(other) for word in shared.daemon.command]
    done = call(shared.daemon, command=command)
    assert done.returncode == FAILED
    [line] = done.stderr.splitlines()
    assert str(shared.daemon.pid) in line
    assert str(shared.daemon.file) in line
    assert "rundir" in line


def test_a_pid_file_left_by_a_killed_master_is_in_nobodys_way(service: Service) -> None:
    service.daemon.start()
    service.until_ok()
    first = service.daemon.pid
    service.daemon.kill9()
    assert (service.daemon.rundir / "default.pid").read_text().startswith(f"{first}\n")
    service.daemon.start()
    assert (service.daemon.rundir / "default.pid").read_text().startswith(f"{service.daemon.pid}\n")
    service.change("file")
    service.until_ok()
    assert service.daemon.stop() == 0
    # Whatever it says: a process of that pid is somebody else.
    (service.daemon.rundir / "default.pid").write_text(f"{os.getpid()}\n")
    service.daemon.start()
    assert service.daemon.stop() == 0
    assert list(service.daemon.rundir.iterdir()) == []


def test_a_log_file_that_was_moved_away_is_made_anew(service: Service) -> None:
    log, old = service.home / "inosync.log", service.home / "inosync.log.1"
    service.configure(logfile=str(log))
    service.daemon.start()
    service.until_ok()
    until(lambda: "full mirror" in log.read_text(), 60, "the log")
    assert stat.S_IMODE(log.stat().st_mode) & 0o137 == 0
    log.rename(old)
    service.daemon.signal(signal.SIGUSR1)
    until(lambda: log.exists() and log.read_text(), 60, "the new file")
    size = old.stat().st_size  # before that, there may have been something left to say
    service.change("file")
    service.until_ok()
    since = log.stat().st_size
    service.daemon.hup()
    until(lambda: log.stat().st_size > since, 60, "it to be written to")
    assert old.stat().st_size == size
    assert service.daemon.log() == ""


# Detached ------------------------------------------------------------------------------------------------


@dataclass
class Detached:
    """A service that was started with -d."""

    service: Service
    seen: list[Process] = field(default_factory=list)

    @property
    def pidfile(self) -> Path:
        return self.service.daemon.rundir / "default.pid"

    def start(self, *args: str) -> subprocess.CompletedProcess[str]:
        done = call(self.service.daemon, "-d", *args)
        if self.pidfile.exists():
            self.family()
        return done

    def pid(self) -> int:
        return int(self.pidfile.read_text().split("\n")[0])

    def family(self) -> list[Process]:
        found = procs.family([self.pid()])
        self.seen += [process for process in found if process not in self.seen]
        return found

    def until_gone(self) -> None:
        until(lambda: not any(map(procs.alive, self.seen)), IN_TIME, "everything to be gone")

    def close(self) -> None:
        if self.pidfile.exists():
            self.family()
        for process in self.seen:
            procs.send(process, signal.SIGKILL)
        self.until_gone()


@pytest.fixture
def detached(service: Service) -> Iterator[Detached]:
    one = Detached(service)
    service.configure(logfile=str(service.home / "log"))
    yield one
    one.close()


def test_detached_it_works_when_the_caller_is_told_so_and_keeps_nothing_of_the_callers(
    detached: Detached,
) -> None:
    service = detached.service
    service.change("before")
    done = detached.start()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = detached.pid()
    [*_, second, last] = detached.pidfile.read_text().split("\n")
    assert (second, last) == (str(service.daemon.file), "")
    service.until_arrived("a", "before")
    # It is watched by now, whatever the full mirror does.
    service.change("after")
    service.until_arrived("a", "after")
    service.until_arrived("b", "after")
    master = procs.look(pid)
    assert master is not None
    assert procs.title(pid).startswith("inosync: master default.py [")
    assert master.session not in (os.getsid(0), 0)
    # Not the leader of it, so that it cannot get a terminal.
    assert master.session != pid
    tty = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4]
    assert tty == "0"
    # The master and the workers. A child of theirs has their title until it is rsync, which goes elsewhere.
    inosyncs = [process for process in detached.family() if pid in (process.pid, process.ppid)]
    assert len(inosyncs) == 3
    assert {os.readlink(f"/proc/{process.pid}/cwd") for process in inosyncs} == {"/"}
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
    again = detached.start()
    assert again.returncode == FAILED
    assert f"already running with pid {pid}" in again.stderr
    os.kill(pid, signal.SIGTERM)
    detached.until_gone()
    assert list(service.daemon.rundir.iterdir()) == []
    assert "Traceback" not in (service.home / "log").read_text()


def test_detached_it_follows_a_hup_although_its_configuration_was_named_relatively(
    detached: Detached, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = detached.service
    monkeypatch.chdir(service.daemon.file.parent)
    command = [word if word != str(service.daemon.file) else "default.py" for word in service.daemon.command]
    assert call(service.daemon, "-d", command=command).returncode == 0
    detached.family()
    service.configure(logfile=str(service.home / "log"), rnodes=[service.node("a"), service.node("new")])
    os.kill(detached.pid(), signal.SIGHUP)
    service.change("file")
    service.until_arrived("new", "file")
    detached.family()
    os.kill(detached.pid(), signal.SIGTERM)
    detached.until_gone()


def foreign_rundir(home: Path) -> str:
    """A run directory that belongs to somebody else."""
    if not ROOT:
        return "/"
    directory = home / "foreign"
    directory.mkdir()
    os.chown(directory, 1, 1)
    return str(directory)


@pytest.mark.parametrize("args", [(), ("-d",)], ids=["in the foreground", "detached"])
@pytest.mark.parametrize(
    ("setting", "code", "message"),
    [
        ({"edelay": -1}, CONFIG, r"edelay: -1: is negative"),
        ({"rundir": "{home}/file"}, CONFIG, r"rundir: '.*/file': is not a directory"),
        ({"rundir": "{home}/link"}, FAILED, r"rundir .*/link is not a directory"),
        ({"rundir": "{home}/missing/run"}, CONFIG, r"rundir: '.*/missing/run': its directory does not exist"),
        ({"rundir": "{foreign}"}, FAILED, r"rundir .* belongs to user \d+"),
        ({"logfile": "{home}/log/"}, CONFIG, r"logfile"),
    ],
    ids=["bad setting", "rundir a file", "rundir a link", "rundir in nothing", "rundir of others", "logfile"],
)
def test_a_start_that_fails_tells_its_caller(
    service: Service, args: tuple[str, ...], setting: dict[str, object], code: int, message: str
) -> None:
    home = service.home
    (home / "file").touch()
    (home / "target").mkdir()
    (home / "link").symlink_to("target")
    foreign = foreign_rundir(home)
    service.configure(
        **{
            name: value.format(home=home, foreign=foreign) if isinstance(value, str) else value
            for name, value in setting.items()
        }
    )
    done = call(service.daemon, *args)
    assert done.returncode == code
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert re.search(message, line)
    assert not (service.daemon.rundir / "default.pid").exists()
    assert service.rsync.starts() == []


# The command line ----------------------------------------------------------------------------------------


def test_version_and_help_are_told(service: Service) -> None:
    launch = service.daemon.command[:2]
    done = call(service.daemon, command=[*launch, "--version"])
    assert done.returncode == 0
    assert re.fullmatch(r"inosync \d+\.\d+\.\d+\S*\n", done.stdout)
    texts = []
    for option in ("-h", "--help"):
        done = call(service.daemon, command=[*launch, option])
        assert (done.returncode, done.stderr) == (0, "")
        texts.append(done.stdout)
    assert texts[0] == texts[1]
    for word in ("-c", "-d", "-p", "-v", "--version", "/etc/inosync/default.py"):
        assert word in texts[0]


@pytest.mark.parametrize("args", [["--unknown"], ["-x"], ["file"], ["-c"], ["--vers"]])
def test_wrong_usage_is_one_line_and_64(service: Service, args: list[str]) -> None:
    done = call(service.daemon, command=[*service.daemon.command[:2], *args])
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("nonexistent.py", "nonexistent.py: cannot be read: No such file or directory"),
        ("", "is a directory"),
        ("default.py/x", "cannot be read: Not a directory"),
    ],
)
def test_a_configuration_that_is_not_there_is_78(service: Service, file: str, message: str) -> None:
    path = f"{service.daemon.file.parent}/{file}"
    done = call(service.daemon, command=[*service.daemon.command[:2], "-c", path])
    assert (done.returncode, done.stdout) == (CONFIG, "")
    [line] = done.stderr.splitlines()
    assert message in line


def test_all_mistakes_are_told_at_once(service: Service) -> None:
    wrong: dict[str, object] = {
        "wpaths": ["/nonexistent/tree"],
        "rpaths": ["one", "two"],
        "rnodes": ["-e sh", "host.example.com:"],
        "edelay": -1,
        "rspeed": "fast",
        "emask": ["IN_MODIFIED"],
        "rsync": "/nonexistent/rsync",
        "rexclude": [],
    }
    service.configure(**wrong)
    for args in ((), ("-d",)):
        done = call(service.daemon, *args)
        assert (done.returncode, done.stdout) == (CONFIG, "")
        lines = done.stderr.splitlines()
        for setting in wrong:
            assert [line for line in lines if f": {setting}:" in line], f"{setting} in {lines}"
        assert "did you mean rexcludes?" in done.stderr
        assert "Traceback" not in done.stderr
        for line in lines:
            assert re.match(rf"{re.escape(str(service.daemon.file))}(:\d+)?: ", line)


@pytest.mark.parametrize("what", ["the file", "its directory"])
def test_a_configuration_that_others_can_write_is_refused(service: Service, what: str) -> None:
    file = service.daemon.file
    path = file if what == "the file" else file.parent
    for mode in (0o666, 0o620) if what == "the file" else (0o777, 0o770):
        path.chmod(mode)
        done = call(service.daemon)
        assert (done.returncode, done.stdout) == (CONFIG, "")
        [line] = done.stderr.splitlines()
        assert line.startswith(f"{path}: is writable by others")
    path.chmod(0o700)


def test_a_module_of_a_configuration_that_others_can_write_is_refused(service: Service) -> None:
    file = service.daemon.file
    module = file.parent / "common.py"
    module.write_text(f"open({str(service.home / 'ran')!r}, 'w').close()\n")
    module.chmod(0o666)
    service.daemon.configure("import common as _common\n" + file.read_text())
    done = call(service.daemon)
    assert (done.returncode, done.stdout) == (CONFIG, "")
    assert done.stderr == f"{module}: is writable by others; chmod go-w {module}\n"
    assert not (service.home / "ran").exists()


# Pretending ----------------------------------------------------------------------------------------------


def test_pretended_calls_do_what_they_say_when_they_are_pasted(tmp_path: Path, daemon: MakeDaemon) -> None:
    service = make_service(tmp_path, daemon, ("-p",))
    service.configure(rexcludes=["*.tmp", "it's $HOME"], extra=["--out-format=%n a 'b'"])
    tree, copies = service.tree(), [service.copy(node) for node in "ab"]
    pasted = 0

    def paste() -> None:
        """Call what is new, as a user would."""
        nonlocal pasted
        text = service.daemon.output()
        whole = text[: text.rfind("\n") + 1]
        assert whole.replace("\n", "").isprintable()
        assert whole.isascii()
        lines = whole.splitlines()
        for line in lines[pasted:]:
            done = subprocess.run(
                ["bash", "-c", line],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=60,
                cwd="/",
            )
            # What is pasted late may name what has gone since: the line that tells of that comes after it.
            assert done.returncode in (0, 24), (line, done.stderr)
        pasted = len(lines)

    def apart() -> list[str]:
        here = trees.snapshot(tree, ignore=lambda name: name.endswith(b".tmp"))
        return [line for copy in copies for line in trees.diff(here, trees.snapshot(copy))]

    def until_level() -> None:
        def level() -> bool:
            paste()
            return not apart()

        try:
            until(level, 60, "the copies to be level")
        except AssertionError as error:
            lines = "\n".join([*apart()[:20], *service.daemon.output().splitlines()[-10:]])
            raise AssertionError(f"{error}\n{lines}") from None

    for name in HOSTILE:
        (tree / os.fsdecode(name)).write_text("content")
    (tree / "dir/inner").mkdir(parents=True)
    service.change("x.tmp")
    service.daemon.start()
    until(lambda: len(service.daemon.output().splitlines()) >= 2, 60, "the full mirrors to be shown")
    until(lambda: "[2 nodes: 2 ok]" in service.daemon.title(), 60, "nothing else to come")
    assert service.rsync.starts() == []
    assert not any(copy.exists() for copy in copies)
    until_level()
    assert sorted(service.fulls()) == ["a/tree", "b/tree"]
    for name in HOSTILE:
        (tree / os.fsdecode(name)).unlink()
        (tree / "dir" / os.fsdecode(name)).write_text("content")
        (tree / "dir/inner" / os.fsdecode(name)).mkdir()
    service.change("y.tmp")
    until_level()
    shutil.rmtree(tree / "dir/inner")
    (tree / "dir").rename(tree / "renamed")
    until_level()
    # All calls were ours.
    assert len(service.rsync.starts()) == pasted
    assert sorted(service.fulls()) == ["a/tree", "b/tree"]
