"""SIGHUP: what a reload changes, what goes on, and reloads that fail or overlap."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import stat
import time
from pathlib import Path

import pytest
from support import procs, trees
from support.churn import Churn
from support.service import IN_TIME, Service, stop_process
from support.wait import until
from support.warm import OK, MakeWarm

# What a reload changes -----------------------------------------------------------------------------------


def test_reload_of_an_unchanged_file_changes_nothing(shared: Service) -> None:
    pids, fulls = shared.daemon.workers(), shared.fulls()
    for number in range(3):
        shared.hup()
        shared.change("file", f"{number}")
        shared.until_arrived("a", "file", f"{number}")
    shared.until_ok()
    assert shared.daemon.workers() == pids
    assert shared.fulls() == fulls


def test_slow_file_holds_up_no_change_and_no_command(shared: Service) -> None:
    config, go = shared.daemon.file, shared.home / "go"
    text = config.read_text()
    config.write_text(f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n{text}")
    try:
        since = len(shared.daemon.log())
        shared.daemon.hup()
        for number in range(3):
            shared.change("file", f"{number}")
            shared.until_arrived("a", "file", f"{number}")
            assert shared.daemon.ask("status")["nodes"]
        assert "reloaded" not in shared.daemon.log()[since:]
        go.touch()
        shared.daemon.until_logged(r"default\.py reloaded", since=since)
    finally:
        go.touch()
        config.write_text(text)
    shared.hup()
    shared.until_ok()


def test_node_added_gets_everything_and_the_others_go_on(shared: Service) -> None:
    shared.change("before")
    shared.until_ok()
    pids, fulls = shared.daemon.workers(), shared.fulls()
    shared.reload(rnodes=[shared.node("a"), shared.node("new"), shared.node("b")])
    shared.change("after")
    shared.until_ok(["a", "b", "new"])
    assert {node: shared.daemon.workers()[node] for node in "ab"} == pids
    assert shared.fulls() == [*fulls, "new/tree"]


def test_node_removed_ends_and_the_others_go_on(shared: Service) -> None:
    pids, fulls = shared.daemon.workers(), shared.fulls()
    shared.change("before")
    shared.until_ok()
    shared.reload(rnodes=[shared.node("b")])
    shared.change("after the removal")
    shared.until_ok(["b"])
    assert shared.daemon.workers() == {"b": pids["b"]}
    assert shared.fulls() == fulls
    assert not (shared.copy("a") / "after the removal").exists()
    # The node keeps its files, and is compared when it is back.
    assert (shared.copy("a") / "before").exists()
    shared.reload()
    shared.until_ok()
    assert shared.fulls() == [*fulls, "a/tree"]
    assert shared.daemon.workers()["b"] == pids["b"]


def test_node_removed_and_added_while_its_transfer_hangs_is_level(shared: Service) -> None:
    shared.rsync.hold("a")
    try:
        shared.change("file")
        shared.rsync.until_held("a")
        first = shared.daemon.workers()["a"]
        shared.reload(rnodes=[shared.node("b")])
        shared.change("file", "more")
        shared.reload()
        shared.until_arrived("b", "file", "more")
    finally:
        shared.rsync.mend("a")
    shared.until_ok()
    assert shared.daemon.workers()["a"] != first


def test_node_changed_restarts_without_a_full_mirror(shared: Service) -> None:
    pids, fulls = shared.daemon.workers(), shared.fulls()
    for speed in (100_000, 200_000):
        shared.change("before", f"{speed}")
        shared.reload(rnodes=[shared.node("a", rspeed=speed), shared.node("b")])
        shared.change("after", f"{speed}")
        shared.until_ok()
        assert shared.daemon.workers()["a"] != pids["a"]
        assert shared.daemon.workers()["b"] == pids["b"]
    assert shared.fulls() == fulls


def test_node_changed_keeps_its_unconfirmed_changes(shared: Service) -> None:
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


def test_node_at_another_target_is_mirrored_in_full(shared: Service) -> None:
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


def test_rpath_changed_is_mirrored_in_full_on_all_nodes(shared: Service) -> None:
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


def test_wpath_added_and_removed_again_is_mirrored_meanwhile(shared: Service) -> None:
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


def test_wpath_that_replaces_another_is_mirrored(shared: Service) -> None:
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


def test_rexcludes_changed_take_effect(shared: Service) -> None:
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


def test_pattern_file_takes_effect_when_it_changes(shared: Service) -> None:
    patterns = shared.home / "patterns"
    patterns.touch(0o644)
    patterns.chmod(0o644)
    patterns.write_text("*.tmp\n")
    extra = shared.home / "more patterns"
    extra.touch(0o600)
    shared.reload(rexcludes={"from": str(patterns)}, extra=["--exclude-from", str(extra)])

    def arrives(name: str) -> bool:
        """Whether a file arrives on the nodes; the marker after it must."""
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
    # Replaced by one with mistakes, removed, then correct: the old one stays in force until then.
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
    # A file named in extra.
    since = len(shared.daemon.log())
    extra.write_text("*.dir/\n")
    logged("default.py reloaded", since)
    (shared.tree() / "five.dir").mkdir()
    assert not arrives("five.dir/file")
    shared.reload()
    shared.until_ok()


def test_node_may_include_what_is_excluded_for_the_others(shared: Service) -> None:
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
    # No node needs the directory, so it is no longer watched.
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


def test_emask_changed_takes_effect_without_new_workers(shared: Service) -> None:
    pids = shared.daemon.workers()
    for name in ("one", "two"):
        shared.change(name)
        (shared.tree() / name).chmod(0o600)
    shared.until_ok()
    shared.reload(emask=["IN_CLOSE_WRITE", "IN_CREATE", "IN_DELETE", "IN_MOVED_FROM", "IN_MOVED_TO"])
    rounds = itertools.count()

    def chmod_alone_goes_unnoticed() -> bool:
        # A full mirror at this time may bring it all the same.
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
def test_bad_file_leaves_the_old_configuration_in_force(shared: Service, kind: str) -> None:
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
    # Faster than the daemon can reload.
    for settings in variants:
        service.configure(**settings)
        service.daemon.hup()
        churn.run(10)
    service.reload()
    try:
        service.until_ok()
    except AssertionError as error:
        raise AssertionError(f"{error}\n{churn.tail(100)}") from None


def test_sighup_during_the_start_is_a_reload(service: Service) -> None:
    service.daemon.start(ready=False)
    status = Path(f"/proc/{service.daemon.pid}/status")

    def is_held_back() -> bool:
        blocked = re.search(r"^SigBlk:\s*(\w+)", status.read_text(), re.MULTILINE)
        return blocked is not None and bool(int(blocked[1], 16) & 1 << (signal.SIGHUP - 1))

    until(lambda: service.daemon.exit_code is not None or is_held_back() or service.daemon.title(), 60, "it")
    service.daemon.hup()
    service.daemon.until_logged("default.py reloaded")
    service.until_ok()


# Reloads that fail ---------------------------------------------------------------------------------------


def test_reload_that_cannot_open_its_log_changes_nothing(service: Service) -> None:
    s = service
    (s.home / "other").mkdir()
    s.daemon.start()
    s.until_ok()
    pids = s.daemon.workers()
    # No file can be made there.
    s.configure(
        logfile="/proc/inosync.log",
        wpaths=[str(s.tree()), str(s.home / "other")],
        rpaths=["tree", "other"],
        rnodes=[s.node("a", rspeed=100_000), s.node("c")],
    )
    since = len(s.daemon.log())
    s.hup("was not reloaded")
    assert "logfile: " in s.daemon.log()[since:]
    s.change("after the failure")
    s.until_ok()
    assert s.daemon.workers() == pids
    assert s.rsync.starts("/c/") == []
    assert s.rsync.starts("/other") == []
    line = s.reload(rnodes=[s.node("a", rspeed=100_000), s.node("c")])
    assert "1 added, 1 removed, 1 changed" in line
    s.change("after the correction")
    s.until_ok(["a", "c"])
    assert not (s.copy("b") / "after the correction").exists()


# Reloads that overlap ------------------------------------------------------------------------------------


def test_node_changed_again_as_its_worker_ends_has_one_worker(service: Service) -> None:
    s = service
    s.daemon.start()
    s.until_ok()
    old = s.daemon.workers()["a"]
    stop_process(old)
    s.reload(rnodes=[s.node("a", rspeed=100_000), s.node("b")])
    stop_process(s.daemon.pid)
    try:
        os.kill(old, signal.SIGCONT)
        until(lambda: (p := procs.look(old)) is None or p.state == "Z", 60, "the old worker to end")
        s.configure(rnodes=[s.node("a", rspeed=200_000), s.node("b")])
        since = len(s.daemon.log())
        s.daemon.hup()
    finally:
        os.kill(s.daemon.pid, signal.SIGCONT)
    s.daemon.until_logged(r"default\.py reloaded", since=since)
    s.change("file", "1")
    s.until_ok()
    assert {p.pid for p in s.daemon.children()} == set(s.daemon.workers().values())
    killed = s.daemon.children()
    for child in killed:
        procs.send(child, signal.SIGKILL)
    until(lambda: not any(map(procs.alive, killed)), 60, "their end")
    until(lambda: len(s.daemon.children()) == len(s.daemon.workers()) == 2, 60, "successors")
    s.change("file", "2")
    s.until_ok()
    assert {p.pid for p in s.daemon.children()} == set(s.daemon.workers().values())


def test_sighup_during_the_stop_starts_nothing(service: Service) -> None:
    s = service
    s.daemon.start()
    s.until_ok()
    s.hold_a_transfer("a")
    pid = s.daemon.pid
    s.daemon.signal(signal.SIGTERM)
    s.daemon.until_logged("SIGTERM: stopping")
    s.configure(rnodes=[s.node("a"), s.node("b", rspeed=100_000), s.node("new")])
    s.daemon.hup()
    until(lambda: not _pending(pid, signal.SIGHUP), 60, "the signal to be taken")
    s.rsync.mend("a")
    assert s.daemon.wait(IN_TIME) == 0
    log = s.daemon.log()
    assert "reloaded" not in log
    assert "new: " not in log
    assert s.rsync.starts("/new/") == []
    assert "killed by signal" not in log


def _pending(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a signal before it; one that has ended has none."""
    process = procs.look(pid)
    if process is None or process.state in "ZX":
        return False
    masks = re.findall(r"^(?:SigPnd|ShdPnd):\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


ONE_AT_A_TIME = """
while read -r pid worker; do
    # A zombie has no exe. Two rsyncs of one worker are allowed.
    if [ $worker != $PPID ] && [ -e /proc/$pid/exe ]; then echo "$pid and $$" >>{home}/together; fi
done <{home}/pids
echo $$ $PPID >>{home}/pids
while [ -e {home}/held ]; do sleep 0.02; done
"""


@pytest.mark.parametrize("how", ["gets another name", "is removed and added again"])
def test_transfers_never_overlap_in_one_target_when_a_node(how: str, service: Service) -> None:
    s = service
    fresh = "renamed" if how == "gets another name" else "a"
    s.daemon.start()
    s.until_ok()
    pids, held = s.home / "pids", s.home / "held"
    pids.touch()
    held.touch()
    s.rsync.fault("a", ONE_AT_A_TIME.format(home=s.home))
    try:
        s.change("begun")
        until(pids.read_text, 60, "a transfer")
        if fresh == "a":
            s.reload(rnodes=[s.node("b")])
        s.reload(rnodes=[s.node(fresh, "a"), s.node("b")])
        # Give the successor time to start a transfer too early.
        for number in range(8):
            s.change("meanwhile", f"{number}")
            s.until_arrived("b", "meanwhile", f"{number}")
    finally:
        held.unlink()
    s.daemon.until_level([(s.tree(), s.copy("a")), (s.tree(), s.copy("b"))], nodes=2)
    until(lambda: set(s.daemon.workers()) == {fresh, "b"}, 60, "the workers")
    assert len(s.rsync.starts("full ")) == 3
    assert not (s.home / "together").exists(), (s.home / "together").read_text()


# Nodes that keep their worker, or take the place of others -----------------------------------------------


def test_node_with_named_trees_gets_no_other_from_a_new_worker(warm: MakeWarm) -> None:
    w = warm({"a": "", "b": ""}, trees=("one", "two", "three"))
    first = [str(w.tree("one")), str(w.tree("two"))]
    both = {"wpaths": first, "rpaths": ["one", "two"]}
    w.configure({"a": "", "b": ""}, **both)
    w.daemon.start()
    for node in "ab":
        w.until_title(node, OK)
    worker = w.daemon.workers()["a"]
    w.reload(**both, rnodes=[w.item("a", {"wpaths": first}), w.item("b")])
    everything = {"wpaths": [*first, str(w.tree("three"))], "rpaths": ["one", "two", "three"]}
    w.reload(**everything, rnodes=[w.item("a", {"wpaths": first}), w.item("b")])
    w.change("file", tree="three")
    w.until_arrived("b", "file", tree="three")
    assert w.daemon.workers()["a"] == worker
    os.kill(worker, signal.SIGKILL)
    until(lambda: w.daemon.workers().get("a") not in (None, worker), 60, "another worker")
    until(lambda: set(w.warm_rsyncs("a")) >= {"one", "two"}, 60, "rsyncs that wait")
    # All missing warm rsyncs start together: one for three would start with the next.
    before = w.warm_rsync("a", "one")
    w.change("file", tree="one")
    w.until_arrived("a", "file", tree="one")
    until(lambda: w.warm_rsyncs("a").get("one", before) != before, 60, "the next one")
    assert set(w.warm_rsyncs("a")) == {"one", "two"}
    assert not [start for start in w.rsync.starts("/a/") if "/three" in start]


def test_renamed_node_never_has_two_workers_for_one_target(warm: MakeWarm) -> None:
    w = warm({"a": {"rspeed": 50}})
    w.daemon.start()
    w.until_title("a", OK)
    (w.tree() / "large").write_bytes(os.urandom(4 << 20))
    w.until_title("a", r"\[syncing\].*")
    place = f"{w.home}/nodes/a/"
    for speed in (60, 0):
        w.reload(rnodes=[w.item("b", {"node": place, "rspeed": speed})])
    deadline = time.monotonic() + 60
    while "a" in (workers := w.daemon.workers()):
        assert "b" not in workers
        assert time.monotonic() < deadline
    w.until_title("b", OK)
    assert (w.copy("a") / "large").read_bytes() == (w.tree() / "large").read_bytes()


def test_nodes_that_exchange_targets_wait_for_each_other(warm: MakeWarm) -> None:
    w = warm({"a": {"rspeed": 50}, "b": ""})
    w.daemon.start()
    for node in "ab":
        w.until_title(node, OK)
    old = w.daemon.workers()
    (w.tree() / "large").write_bytes(os.urandom(4 << 20))
    w.until_title("b", OK)
    w.until_title("a", r"\[syncing\].*")
    places = {node: f"{w.home}/nodes/{node}/" for node in "ab"}
    w.reload(rnodes=[w.item("a", {"node": places["b"]}), w.item("b", {"node": places["a"]})])
    deadline = time.monotonic() + 60
    while (workers := w.daemon.workers()).get("a") == old["a"]:
        assert workers.get("b") in (None, old["b"])  # a still writes to b's new target
        assert time.monotonic() < deadline
    w.until_level()


# Reloads that are refused for a while --------------------------------------------------------------------


@pytest.mark.parametrize("why", ["wpath", "directory"])
def test_pattern_file_refused_for_another_reason_is_read_later(warm: MakeWarm, why: str) -> None:
    w = warm({"a": ""})
    file = w.daemon.file.with_name("patterns")
    file.write_text("/x\n")
    file.chmod(0o600)
    w.configure({"a": ""}, rexcludes={"from": str(file)})
    w.daemon.start()
    w.change("x")
    w.change("y")
    w.until_arrived("a", "y")
    w.until_title("a", OK)
    away = w.tree().with_name("away")
    if why == "wpath":
        w.tree().rename(away)
    else:
        file.parent.chmod(0o777)
    file.write_text("/other\n")
    w.daemon.until_logged("was not reloaded")
    refused = w.daemon.log().count("was not reloaded")
    if why == "wpath":
        away.rename(w.tree())
    else:
        file.parent.chmod(0o700)
    until(lambda: w.has("a", "x"), 60, "what is excluded no longer")
    # It is logged once, and tried again until it works.
    assert w.daemon.log().count("was not reloaded") == refused == 1
