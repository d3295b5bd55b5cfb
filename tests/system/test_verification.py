"""Verification finds and repairs what was changed on nodes."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
from support import procs
from support.wait import until
from support.warm import OK, TIME, AllTransports, MakeWarm, Warm, locations

HOSTILE = (b"new\nline", b"\\#012", b"\xff\xfe", b"#x", b" a -> b ")
HANG = '[ "$kind" != verify ] || while [ -e "$fault" ]; do sleep 0.05; done'
OFTEN = 1
"""The setting ``rverify`` in these tests, in seconds."""


def verified(w: Warm, node: str, since: int = 0) -> list[int]:
    """Return the number of differences of each verification of a node, from that character of the log on."""
    found = re.findall(rf": {node}: verified in [\d.]+ s, (\d+) differences?\b", w.daemon.log()[since:])
    return [int(count) for count in found]


def until_verified(w: Warm, *nodes: str, since: int = 0) -> dict[str, int]:
    """Wait for the next verification of each node, and return its number of differences."""

    def look() -> Mapping[str, list[int]] | None:
        found = {node: verified(w, node, since) for node in nodes}
        return found if all(found.values()) else None

    try:
        return {node: counts[0] for node, counts in until(look, 60, "verifications").items()}
    except AssertionError as error:
        raise AssertionError(f"{error}\n{w.daemon.log_tail()}") from None


def starts(w: Warm, kind: str) -> int:
    return len(w.rsync.starts(f"{kind} "))


def fill(tree: Path) -> None:
    for name in ("gone", "content", "mode", "became a directory", "directory/f", "directory/sub/g"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("content")
    for hostile in HOSTILE:
        Path(os.fsdecode(os.path.join(os.fsencode(tree), hostile))).write_text("content")
    (tree / "link").symlink_to("gone")


def spoil(copy: Path) -> int:
    """Change a node in all ways that show in its entries; return the number of paths that differ."""
    (copy / "gone").unlink()
    (copy / "mode").chmod(0o600 if (copy / "mode").stat().st_mode & 0o077 else 0o640)
    shutil.rmtree(copy / "directory")
    (copy / "directory").write_text("a file")  # in the place of a directory with f, sub and sub/g
    (copy / "became a directory").unlink()
    (copy / "became a directory" / "of").mkdir(parents=True)
    (copy / "extra" / "sub").mkdir(parents=True)
    (copy / "extra" / "sub" / "f").write_text("extra")
    (copy / "link").unlink()
    (copy / "link").symlink_to("elsewhere")
    for hostile in HOSTILE:
        os.unlink(os.path.join(os.fsencode(copy), hostile))
    return 1 + 1 + 4 + 2 + 3 + 1 + len(HOSTILE)


def rewrite(copy: Path) -> int:
    """Change the content of a file but not its size and times; return the number of differences, 1."""
    path = copy / "content"
    before = path.stat()
    path.write_text("CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return 1


@pytest.mark.slow
def test_verification_counts_and_repairs_changes_made_on_nodes(all_transports: AllTransports) -> None:
    w = all_transports.warm
    nodes = w.nodes()
    fill(w.tree())
    w.configure(locations(w), rverify=0)
    w.daemon.start()
    w.until_level()
    counts = {node: spoil(w.copy(node)) + rewrite(w.copy(node)) for node in nodes}
    assert (starts(w, "verify"), starts(w, "full")) == (0, len(nodes))
    w.reload(rverify=OFTEN, rchecksum=True)
    assert until_verified(w, *nodes) == counts
    w.until_level()
    for node in nodes:
        until(lambda node=node: verified(w, node)[1:], 60, f"{node} to be verified again")  # type: ignore[misc]
        w.until_title(node, rf"{OK}, verified {TIME} \(0 differences\)")
        assert set(verified(w, node)[1:]) == {0}
    # No full mirror was needed, and only the changed paths were found.
    assert starts(w, "full") == len(nodes)
    assert len(w.warnings()) == len(nodes)
    assert w.daemon.stop() == 0


def test_change_does_not_wait_for_a_verification(warm: MakeWarm) -> None:
    w = warm({"a": "", "b": ""}, rverify=0)
    fill(w.tree())
    w.daemon.start()
    w.until_level()
    w.until_warm()
    for node in "ab":
        w.rsync.fault(node, HANG)
    w.reload(rverify=OFTEN)
    until(lambda: starts(w, "verify"), 60, "a verification")
    [line] = w.rsync.starts("verify ")
    node = "a" if "/a/" in line else "b"
    until(lambda: comparing(w, node), 60, "the program that hangs")
    [pid] = comparing(w, node)
    assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 19)
    for number in range(10):
        w.change("changed", f"{number}")
        for other in "ab":
            w.until_arrived(other, "changed", f"{number}")
    w.until_level()
    # Only one verification runs at a time, and this one still does.
    assert len(w.rsync.starts("verify ")) == 1
    assert comparing(w, node) == [pid]
    assert starts(w, "full") == 2
    since = len(w.daemon.log())
    for other in "ab":
        w.rsync.mend(other)
    # Changes made meanwhile are no differences.
    found = until_verified(w, "a", "b", since=since)
    assert found == {"a": 0, "b": 0}


def comparing(w: Warm, node: str) -> list[int]:
    """Return the rsyncs that a worker has started to compare its node."""
    worker = w.daemon.workers().get(node)
    children = [process.pid for process in procs.family([worker] if worker else []) if process.ppid == worker]
    return [pid for pid in children if "--dry-run" in procs.title(pid)]


def test_verification_ends_with_its_worker_and_when_turned_off(warm: MakeWarm) -> None:
    w = warm({"a": ""}, rverify=0)
    fill(w.tree())
    w.daemon.start()
    w.until_level()
    w.rsync.fault("a", HANG)
    w.reload(rverify=OFTEN)
    until(lambda: comparing(w, "a"), 60, "a verification")
    [first] = map(procs.look, comparing(w, "a"))
    assert first is not None
    procs.send(w.workers()["a"], signal.SIGKILL)
    until(lambda: comparing(w, "a") not in ([], [first.pid]), 60, "another worker to try it again")
    w.until_gone(first)
    w.until_level()
    w.reload(rverify=0)
    until(lambda: not comparing(w, "a"), 60, "its end")
    w.reload(rverify=OFTEN)
    until(lambda: comparing(w, "a"), 60, "the next one")
    # A halted tree is not compared either.
    w.tree().rename(w.home / "away")
    w.until_title("a", r"\[halted\] .*")
    until(lambda: not comparing(w, "a"), 60, "its end")
    (w.home / "away").rename(w.tree())
    until(lambda: comparing(w, "a"), 60, "a verification of what is back")
    assert w.daemon.stop() == 0  # and leaves nothing


def test_verification_that_fails_is_reported_and_tried_again(warm: MakeWarm) -> None:
    w = warm({"a": ""}, rverify=0)
    fill(w.tree())
    w.daemon.start()
    w.until_level()
    w.rsync.fault("a", '[ "$kind" != verify ] || { echo "rsync: no luck" >&2; exit 12; }')
    w.reload(rverify=OFTEN)
    w.daemon.until_logged(r"a: could not be verified: no luck; next try in \d+ s\n")
    w.change("changed")
    w.until_arrived("a", "changed")
    w.until_level()
    w.until_title("a", OK)
    w.rsync.mend("a")
    assert until_verified(w, "a") == {"a": 0}


def test_verification_ignores_what_is_not_mirrored(warm: MakeWarm) -> None:
    w = warm(
        {"a": {"node": "", "rexcludes": ["/own"]}},
        trees=("one", "two"),
        rverify=0,
        rdelete="running",
        rexcludes=["*.tmp"],
        extra="-q",
    )
    w.change("f", tree="one")
    w.change("content", tree="two")
    w.daemon.start()
    w.until_level()
    for name in ("own", "x.tmp", "more"):
        (w.copy("a", "two") / name).write_text("of the node's own")
    (w.copy("a", "one") / "f").unlink()
    rewrite(w.copy("a", "two"))  # only a checksum would find this
    w.reload(rverify=OFTEN)
    assert until_verified(w, "a") == {"a": 1}
    w.until_arrived("a", "f", tree="one")
    assert sorted(os.listdir(w.copy("a", "two"))) == ["content", "more", "own", "x.tmp"]


def test_verification_repairs_what_is_behind_a_followed_symlink(warm: MakeWarm, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/page").write_text("1")
    w = warm({"a": ""}, rverify=0, extra="-k")
    (w.tree() / "link").symlink_to(tmp_path / "outside")
    w.change("f")
    w.daemon.start()
    w.until_arrived("a", "link/page", content="1")
    assert "what symlinks lead to are not watched" in w.daemon.log()
    w.daemon.until_state("a", ["ok"])  # the second run of the full mirror would send what is changed now
    (tmp_path / "outside/page").write_text("two")
    w.reload(rverify=OFTEN)
    assert until_verified(w, "a") == {"a": 1}
    until(lambda: (w.copy("a") / "link/page").read_text() == "two", 30, "the repair")
