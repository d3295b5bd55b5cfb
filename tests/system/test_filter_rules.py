"""Filter rules: excluded names cause no work, and nodes hold what the rules say.

rsync decides: a node is right when a new ``rsync -a --delete`` with its rules would change nothing there.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest
from support.churn import Churn
from support.daemon import Daemon, MakeDaemon
from support.wait import until
from support.warm import OK, AllTransports, Location, MakeWarm, Warm, locations

SECONDS = 90.0
KEPT = re.compile("cannot delete non-empty directory: (.*)")
BLOCKED = re.compile("could not make way for ")
COMPLAINT = re.compile("could not make way for |cannot delete non-empty directory|rsync error: |cd[+]{9} ")


def rsync_would_do(w: Warm, node: str, rules: Sequence[str], tree: str = "") -> list[str]:
    """Return what rsync would do on a node now, one line for each action."""
    done = subprocess.run(
        [
            *("rsync", "-n", "-i", "-rlptgoD", "--delete", "--modify-window=-1"),
            *(f"--exclude={rule}" for rule in rules),
            f"{w.tree(tree)}/",
            f"{w.copy(node, tree)}/",
        ],
        capture_output=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    # rsync fails if the copy changes meanwhile.
    said = done.stdout if done.returncode == 0 else done.stdout + done.stderr
    lines = said.decode(errors="backslashreplace").splitlines()
    # An excluded name keeps its directory, or blocks another entry: rsync can do nothing about it.
    kept = COMPLAINT if any(BLOCKED.match(line) for line in lines) else KEPT
    full = {f"*deleting   {found[1]}/" for line in lines if (found := KEPT.match(line))}  # only with -n
    lines = [line for line in lines if not kept.match(line) and line not in full]
    # The time of the tree's own directory follows with its next relist (docs/limits.rst).
    return [line for line in lines if line != ".d..t...... ./"]


def until_rsync_would_do_nothing(w: Warm, rules: Mapping[str, Sequence[str]], tree: str = "") -> None:
    """Wait until rsync would change nothing on these nodes and all of them are ok."""
    left: dict[str, list[str]] = {}

    def nothing() -> bool:
        left.clear()
        left.update(
            {node: lines for node, own in rules.items() if (lines := rsync_would_do(w, node, own, tree))}
        )
        return not left and set(w.daemon.states().values()) <= {"ok", "degraded"}

    try:
        until(nothing, SECONDS, "nodes that are right")
    except AssertionError as error:
        shown = {node: lines[:10] for node, lines in left.items()}
        titles = "\n".join(w.daemon.titles())
        raise AssertionError(f"{error}\n{shown}\n{titles}\n{w.daemon.log_tail(200)}") from None


def touch_every_directory(w: Warm, tree: str = "") -> None:
    """Touch each directory, because excluded names may have changed its time without an event."""
    for directory, _, _ in os.walk(os.fsencode(w.tree(tree))):
        os.utime(directory, follow_symlinks=False)


def batches_of(w: Warm, node: str, name: str, since: int) -> int:
    """Return the number of a node's batches, which are of this name alone.

    There are several if it was looked at before its file was closed, or before its event was read.
    """
    sent = re.findall(rf" {node}: sent: (.*)", w.daemon.log()[since:])
    assert set(sent) == {name}
    return len(sent)


# Nothing happens for what is excluded --------------------------------------------------------------------


@pytest.mark.parametrize("rwarm", [True, False], ids=["warm", "cold"])
def test_changes_below_an_excluded_directory_start_no_rsync(warm: MakeWarm, rwarm: bool) -> None:
    nodes: dict[str, Location] = {"a": "", "b": {"rexcludes": ["/drafts/"]}}
    w = warm(nodes, rexcludes=["/cache/"], rwarm=rwarm, equiet=0, edelay=0.05)
    for name in ("cache/deep", "drafts/deep"):
        (w.tree() / name).mkdir(parents=True)
    w.daemon.start()
    until_rsync_would_do_nothing(w, {"a": ["/cache/"], "b": ["/cache/", "/drafts/"]})
    if rwarm:
        w.until_warm()
    # The master's title follows those of the workers.
    watches = until(lambda: t if "[2 nodes: 2 ok]" in (t := w.daemon.title()) else "", 60, "its title")
    starts, since = len(w.rsync.starts()), len(w.daemon.log())
    for number in range(10_000):
        (w.tree() / f"cache/deep/{number % 100}").write_text(f"{number}")
    (w.tree() / "cache/deep/new/dir").mkdir(parents=True)
    shutil.rmtree(w.tree() / "cache/deep")
    (w.tree() / "file").write_text("content")
    for node in "ab":
        w.until_arrived(node, "file")
    # Batches go in the order of events: a batch of something earlier would have arrived by now.
    until(lambda: all(w.sizes(node, since) for node in "ab"), 60, "both to be through")
    batches = sum(batches_of(w, node, "file", since) for node in "ab")
    until(lambda: w.daemon.title() == watches, 60, "the same watches as before")
    if not rwarm:
        assert 2 <= len(w.rsync.starts()) - starts <= batches
    # Names that one node excludes are a batch for the other one only.
    until_rsync_would_do_nothing(w, {"a": ["/cache/"], "b": ["/cache/", "/drafts/"]})
    since = len(w.daemon.log())
    for number in range(1_000):
        (w.tree() / f"drafts/deep/{number % 100}").write_text(f"{number}")
    w.change("last")
    for node in "ab":
        w.until_arrived(node, "last")
    until_rsync_would_do_nothing(w, {"a": ["/cache/"], "b": ["/cache/", "/drafts/"]})
    # The log may be later than the titles.
    until(lambda: w.sizes("b", since) and sum(w.sizes("a", since)) > 100, 60, "the batches in the log")
    batches_of(w, "b", "last", since)
    assert not (w.copy("b") / "drafts").exists()


def test_directory_renamed_from_and_to_an_excluded_name_comes_and_goes(
    warm: MakeWarm,
) -> None:
    w = warm({"a": "", "b": {"rexcludes": ["/work/"]}}, rexcludes=["/.new/"])
    rules = {"a": ["/.new/"], "b": ["/work/", "/.new/"]}
    (w.tree() / ".new/deep/er").mkdir(parents=True)
    for name in ("f", "deep/f", "deep/er/f"):
        (w.tree() / ".new" / name).write_text(name)
    w.daemon.start()
    until_rsync_would_do_nothing(w, rules)
    assert os.listdir(w.copy("a")) == []
    (w.tree() / ".new").rename(w.tree() / "work")
    w.until_arrived("a", "work/deep/er/f", "deep/er/f")
    until_rsync_would_do_nothing(w, rules)
    assert os.listdir(w.copy("b")) == []
    (w.tree() / "work").rename(w.tree() / "public")
    for node in "ab":
        w.until_arrived(node, "public/deep/er/f", "deep/er/f")
    (w.tree() / "public/deep/er/g").write_text("content")
    for node in "ab":
        w.until_arrived(node, "public/deep/er/g")
    (w.tree() / "public").rename(w.tree() / ".new")
    w.change("file")
    until_rsync_would_do_nothing(w, rules)
    assert os.listdir(w.copy("a")) == os.listdir(w.copy("b")) == ["file"]


# Whatever the rules --------------------------------------------------------------------------------------

PATTERNS = [
    *("*.txt", "/a/", "/b", "data", "lib/", "c/***", "/d/*", "+ /d/a", "a/b", "**/index.html", "[ab]", "?"),
    *("/a/lib/", "/a/x.txt", "+ /a/b/***", "+ *.html", "/b/**", "#*", ".*", "+ data/", "*/", "!"),
]


def some_rules(dice: random.Random) -> list[str]:
    return dice.sample(PATTERNS, dice.randint(0, 4))


def furnish(w: Warm, node: str) -> None:
    """Give the node files of its own, some of them under names that rules protect."""
    for path in ("a/own", "data/own", "own.txt", "lib/own", "a/lib/own"):
        file = w.copy(node) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("the node's own")


@pytest.mark.parametrize("rwarm", [True, False], ids=["warm", "cold"])
def test_random_rules_hold_after_random_changes(warm: MakeWarm, seed: int, rwarm: bool) -> None:
    dice = random.Random(seed)
    of_all = some_rules(dice)
    own = {"a": [], "b": some_rules(dice), "c": some_rules(dice)}
    nodes = {name: {"rexcludes": rules} for name, rules in own.items()}
    w = warm(nodes, rexcludes=of_all, rwarm=rwarm)
    rules = {name: [*rules, *of_all] for name, rules in own.items()}
    print(f"rules {rules}")
    for node in nodes:
        furnish(w, node)
    churn = Churn(os.fsencode(w.tree()), seed)
    churn.run(100)
    w.daemon.start()
    churn.run(300)
    until(lambda: set(w.daemon.states().values()) <= {"ok", "degraded"}, SECONDS, "all to be through")
    churn.run(100)
    touch_every_directory(w)
    try:
        until_rsync_would_do_nothing(w, rules)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}, rules {rules}: {error}\n{churn.tail(100)}") from None


# Other rules on SIGHUP -----------------------------------------------------------------------------------


def test_rules_changed_for_one_path_start_no_full_mirror(
    warm: MakeWarm,
) -> None:
    w = warm({"a": "", "b": ""}, rexcludes=["/cache/", "/file"])
    for number in range(50):
        (w.tree() / f"other/{number}").mkdir(parents=True)
        (w.tree() / f"cache/{number}").mkdir(parents=True)
        (w.tree() / f"cache/{number}/f").write_text("content")
    w.change("file")
    w.daemon.start()
    until_rsync_would_do_nothing(w, {"a": ["/cache/", "/file"], "b": ["/cache/", "/file"]})
    for node in "ab":
        (w.copy(node) / "private").mkdir()
        (w.copy(node) / "private/own").write_text("the node's own")
    fulls = w.fulls("a"), w.fulls("b")
    # For one node only.
    since = len(w.daemon.log())
    own = w.item("b", {"rexcludes": ["+ /cache/", "/private"]})
    w.reload(rnodes=[w.item("a"), own])
    w.until_arrived("b", "cache/49/f")
    until_rsync_would_do_nothing(
        w, {"a": ["/cache/", "/file", "/private"], "b": ["+ /cache/", "/private", "/file"]}
    )
    assert not (w.copy("a") / "cache").exists()
    until(lambda: sum(w.sizes("b", since)) >= 50, 60, "the batch in the log")
    assert sum(w.sizes("b", since)) <= 150
    assert sum(w.sizes("a", since)) <= 3
    # For all: included again, and something that is the nodes' own not kept any longer.
    w.reload(rexcludes=[])
    for node in "ab":
        w.until_arrived(node, "cache/49/f")
        w.until_arrived(node, "file")
    until_rsync_would_do_nothing(w, {"a": ["/private"], "b": ["/private"]})
    w.reload(rexcludes=["/private"])
    w.reload(rexcludes=[])
    until_rsync_would_do_nothing(w, {"a": [], "b": []})
    assert not (w.copy("a") / "private").exists()
    # Excluded again: it stays on the nodes as it was.
    w.reload(rexcludes=["/cache/"])
    (w.tree() / "cache/0/f").write_text("another")
    w.change("file", "another")
    for node in "ab":
        w.until_arrived(node, "file", "another")
        assert (w.copy(node) / "cache/0/f").read_text() == "content"
    assert (w.fulls("a"), w.fulls("b")) == fulls


def test_rules_changed_for_any_path_compare_only_the_nodes_concerned(warm: MakeWarm) -> None:
    w = warm({"a": "", "b": ""}, rexcludes=["*.tmp"])
    (w.tree() / "deep/er").mkdir(parents=True)
    for name in ("x.tmp", "deep/x.tmp", "deep/er/x.tmp"):
        (w.tree() / name).write_text("content")
    w.daemon.start()
    until_rsync_would_do_nothing(w, {"a": ["*.tmp"], "b": ["*.tmp"]})
    worker = w.daemon.workers()["a"]
    w.reload(rnodes=[w.item("a"), w.item("b", {"rexcludes": ["+ *.tmp"]})])
    until_rsync_would_do_nothing(w, {"a": ["*.tmp"], "b": []})
    assert (w.fulls("a"), w.fulls("b")) == (1, 2)
    assert w.daemon.workers()["a"] == worker
    (w.tree() / "deep/er/x.tmp").write_text("another")
    w.until_arrived("b", "deep/er/x.tmp", "another")
    assert not (w.copy("a") / "x.tmp").exists()


def test_random_rules_replaced_by_others_hold_under_churn(warm: MakeWarm, seed: int) -> None:
    dice = random.Random(seed)
    w = warm({"a": "", "b": ""})
    churn = Churn(os.fsencode(w.tree()), seed)
    churn.run(150)
    for node in "ab":
        furnish(w, node)
    w.daemon.start()
    history = []
    for _ in range(6):
        of_all, own = some_rules(dice), some_rules(dice)
        history.append((of_all, own))
        churn.run(20)
        w.reload(rexcludes=of_all, rnodes=[w.item("a"), w.item("b", {"rexcludes": own})])
        churn.run(dice.choice((0, 20)))
        if dice.random() < 0.5:
            touch_every_directory(w)
            try:
                until_rsync_would_do_nothing(w, {"a": of_all, "b": [*own, *of_all]})
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, rules {history}: {error}\n{churn.tail(60)}") from None
    touch_every_directory(w)
    try:
        until_rsync_would_do_nothing(w, {"a": of_all, "b": [*own, *of_all]})
    except AssertionError as error:
        raise AssertionError(f"seed {seed}, rules {history}: {error}\n{churn.tail(60)}") from None


# Trees of single nodes -----------------------------------------------------------------------------------


def test_node_gets_only_the_trees_it_names(warm: MakeWarm) -> None:
    w = warm({"a": "", "b": ""}, trees=("one", "two"))
    some = w.item("a", {"wpaths": [str(w.tree("two"))]})
    w.configure({"a": some, "b": ""})
    for tree in ("one", "two"):
        w.change("file", tree=tree)
    w.daemon.start()
    w.until_level("b")
    w.until_arrived("a", "file", tree="two")
    assert set(w.until_warm("b")["b"]) == {"one", "two"}
    until(lambda: set(w.warm_rsyncs("a")) == {"two"}, 60, "one rsync that waits for a")
    since = len(w.daemon.log())
    for number in range(5):
        w.change("file", f"{number}", "one")
        w.until_arrived("b", "file", f"{number}", "one")
    w.until_title("a", OK)
    assert w.sizes("a", since) == []
    assert not (w.copy("a", "one")).exists()
    # A tree more, and one less; the other node goes on.
    worker = w.daemon.workers()["b"]
    w.reload(rnodes=[w.item("a"), w.item("b")])
    w.until_arrived("a", "file", "4", "one")
    w.reload(rnodes=[w.item("a", {"wpaths": [str(w.tree("one"))]}), w.item("b")])
    w.change("file", "last", "two")
    w.change("file", "last", "one")
    w.until_arrived("b", "file", "last", "two")
    w.until_arrived("a", "file", "last", "one")
    assert (w.copy("a", "two") / "file").read_text() == "content"
    assert w.daemon.workers()["b"] == worker
    # A tree that no node gets is no longer watched.
    w.reload(rnodes=[w.item("a", {"wpaths": [str(w.tree("one"))]})])
    until(lambda: w.daemon.title().endswith(" 1 dirs"), 60, "one tree to be watched")


# Deletions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rdelete", "at_start", "later"),
    [(True, True, True), (False, False, False), ("startup", True, False), ("running", False, True)],
)
def test_deletions_are_mirrored_as_rdelete_says(
    all_transports: AllTransports, rdelete: bool | str, at_start: bool, later: bool
) -> None:
    w = all_transports.warm
    w.configure(locations(w), rdelete=rdelete)
    (w.tree() / "d/sub").mkdir(parents=True)
    for name in ("stays", "goes", "d/goes", "d/sub/goes"):
        (w.tree() / name).write_text("content")
    for node in w.nodes():
        file = w.copy(node) / "d/own"
        file.parent.mkdir(parents=True)
        file.write_text("the node's own")
    w.daemon.start()
    for node in w.nodes():
        w.until_arrived(node, "d/sub/goes")
        w.until_title(node, OK)
        assert (w.copy(node) / "d/own").exists() != at_start
    (w.tree() / "goes").unlink()
    shutil.rmtree(w.tree() / "d/sub")
    (w.tree() / "d/goes").rename(w.tree() / "moved")
    w.change("last")
    gone = {"goes", "d/goes", "d/sub/goes", "d/sub"}
    for node in w.nodes():
        w.until_arrived(node, "moved")
        w.until_arrived(node, "last")
        w.until_title(node, OK)
        until(partial(has_only, w.copy(node), gone, set() if later else gone), 60, "what is to be there")
    # A directory under a new name is relisted without deletions elsewhere.
    (w.tree() / "d").chmod(0o711)
    (w.tree() / "d").rename(w.tree() / "e")
    (w.tree() / "e/new").write_text("content")
    for node in w.nodes():
        w.until_arrived(node, "e/new")
        w.until_title(node, OK)
        until(partial(has_only, w.copy(node), {"d"}, set() if later else {"d"}), 60, "the old name")


def has_only(copy: Path, names: set[str], expected: set[str]) -> bool:
    return {name for name in names if (copy / name).exists()} == expected


# Trees with rules of their own, under churn --------------------------------------------------------------


RSYNC = shutil.which("rsync") or ""
pytestmark = pytest.mark.skipif(not RSYNC, reason="rsync is not installed")

FAST = {"edelay": 0.3, "equiet": 0.02, "rretry": (0.2, 1)}


def differences(tree: Path, copy: Path, rules: Sequence[str]) -> str:
    """Return what rsync would do to make a copy level, in its own words; "" for nothing.

    Times of directories do not count: excluded names change them, and that is not a change to mirror.
    """
    argv = [RSYNC, "-rlptgoDniO", "--delete", "--modify-window=-1", "--out-format=%i %n", *rules]
    done = subprocess.run(
        [*argv, f"{tree}/", f"{copy}/"],
        capture_output=True,
        timeout=60,
        check=False,
        text=True,
        errors="replace",
    )
    changes = [line for line in done.stdout.splitlines() if not re.match(r"\.d\.\.t\.+ ", line)]
    return done.stderr + "\n".join(changes)


class ChurningTrees:
    """A daemon with trees for churn, two local nodes, and rules for each node and tree."""

    def __init__(self, home: Path, make: MakeDaemon, rules: dict[str, list[str]], **settings: object) -> None:
        self.home = home
        self.trees = [home / "trees" / name for name in rules]
        self.copies = {node: home / "nodes" / node for node in ("one", "two")}
        for path in (*self.trees, *self.copies.values()):
            path.mkdir(parents=True)
        self.of_trees = list(rules.values())
        own = {"name": "two", "rexcludes": ["+ lib", "+ *.html", "b*"], "extra": ["--exclude=data"]}
        config: dict[str, object] = {
            "wpaths": [str(tree) for tree in self.trees],
            "rpaths": [tree.name for tree in self.trees],
            "rnodes": [
                {"node": f"{self.copies['one']}/", "name": "one"},
                {"node": f"{self.copies['two']}/", **own},
            ],
            "rexcludes": {
                str(tree): patterns for tree, patterns in zip(self.trees, self.of_trees, strict=True)
            },
            **FAST,
            **settings,
        }
        self.daemon: Daemon = make(config, ("-v",))

    def level(self, extra: Sequence[str], churns: Sequence[Churn]) -> None:
        """Wait until rsync would change nothing on any node; ``extra`` is the setting of the file."""
        own = ["--include=lib", "--include=*.html", "--exclude=b*"]

        def missing() -> str:
            if "Traceback" in self.daemon.log():
                raise AssertionError("a traceback in the log")
            for tree, patterns in zip(self.trees, self.of_trees, strict=True):
                words = [f"--exclude={pattern}" for pattern in patterns]
                for node, rules in (
                    ("one", [*words, *extra]),
                    ("two", [*own, *words, *extra, "--exclude=data"]),
                ):
                    if found := differences(tree, self.copies[node] / tree.name, rules):
                        return f"{node}, {tree.name}:\n{found}"
            return ""

        def arrived() -> bool:
            return set(self.daemon.states().values()) == {"ok"} and not missing()

        try:
            until(arrived, 90, "the nodes to be level")
        except AssertionError as error:
            tails = "\n".join(churn.tail(60) for churn in churns)
            raise AssertionError(f"{error}\n{missing()}\n{tails}\n{self.daemon.log_tail()}") from None


RULES: dict[str, list[str]] = {
    "names": ["*.txt", "/a/", "lib", "[!a-z]*"],
    "few": ["+ */", "+ *.html", "+ d*", "*"],
    "deep": ["b/", "/c/**/d", "d/a", "/data/***"],
    "none": [],
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "extra",
    [
        ["--exclude=x.txt", "-f", "H d/"],
        ["--filter=-! *[a-z]*", "--delete-excluded"],
        ["--filter", "-s c", "--include=data", "--exclude=/*/a"],
    ],
    ids=["hidden", "delete-excluded", "sides"],
)
def test_rules_of_all_forms_hold_under_churn(
    tmp_path: Path, daemon: MakeDaemon, seed: int, extra: list[str]
) -> None:
    churning = ChurningTrees(tmp_path, daemon, RULES, extra=extra)
    churns = [Churn(os.fsencode(tree), seed + number) for number, tree in enumerate(churning.trees)]
    for churn in churns:
        churn.run(150)
    churning.daemon.start(ready=False)
    for seconds in (1, 0):
        for churn in churns:
            churn.run(150, seconds / len(churns))
        churning.level(extra, churns)


# Names that are hidden and not protected -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "goes"),
    [
        ([], ["--filter=H /a"], "a"),
        ([], ["--filter=H /d/a"], "d/a"),
        (["--exclude=/a"], ["--filter=R /a", "--exclude=/a"], "a"),
        (["--exclude=/d/a", "--filter=H /d/a"], ["--filter=H /d/a"], "d/a"),
        (["--delete-excluded"], ["--delete-excluded", "--exclude=/d/a"], "d/a"),
    ],
)
@pytest.mark.parametrize("others", [0, 1], ids=["alone", "beside another"])
def test_names_that_become_hidden_and_unprotected_are_deleted(
    warm: MakeWarm, before: Sequence[str], after: Sequence[str], goes: str, others: int
) -> None:
    w = warm({"a": {"extra": before}} | {f"other{n}": "" for n in range(others)})
    for name in ("a", "d/a"):
        (w.tree() / name).mkdir(parents=True)
        (w.tree() / name / "f").write_text("content")
        (w.copy("a") / name).mkdir(parents=True)  # perhaps excluded, and the node's own
        (w.copy("a") / name / "f").write_text("content")
    w.daemon.start()
    for node in w.nodes():
        w.until_title(node, OK)
    assert (w.copy("a") / goes / "f").exists()
    w.reload(rnodes=[w.item("a", {"extra": after}), *(w.item(n) for n in w.nodes() if n != "a")])
    until(lambda: not (w.copy("a") / goes).exists(), 60, "what is hidden to be gone")
    kept = {"a", "d/a"} - {goes}
    assert all((w.copy("a") / name / "f").exists() for name in kept)
    assert all((w.copy(n) / name / "f").exists() for n in w.nodes() if n != "a" for name in ("a", "d/a"))
