"""The guard over real directories, and a watcher that does what the test says. Time is played."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from inosync.changes import Allowance, Source
from inosync.config.checks import Share
from inosync.guard.guard import MAX_SETTLE_FACTOR, Guard

TREE = 3
PATIENCE = 10.0


class FakeWatcher:
    """It knows the root as it was when it last looked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.known: tuple[int, int] | None = None
        self.lost: list[int] = []
        self.find()

    def find(self) -> None:
        status = self.root.stat()
        self.known = status.st_dev, status.st_ino

    def check_root(self, tree: int) -> None:
        before = self.known
        try:
            self.find()
        except OSError:
            self.known = None
        if self.known != before:
            self.known = None
            self.lost.append(tree)

    def root_identity(self, _tree: int) -> tuple[int, int] | None:
        return self.known


class Post:
    """A guard of one tree, with two files in it, that was seen whole."""

    def __init__(self, home: Path) -> None:
        self.root = home / "root"
        self.root.mkdir()
        self.now = 100.0
        self.halts: list[str] = []
        self.watcher = FakeWatcher(self.root)
        self.guard = Guard(
            self.watcher.check_root,
            self.watcher.root_identity,
            PATIENCE,
            True,
            lambda _tree, why: self.halts.append(why),
            lambda: self.now,
        )
        self.guard.add_tree(TREE, str(self.root), lambda name, _is_directory: name == b"lost+found")
        self.fill()
        assert self.guard.root_found(TREE)

    def fill(self) -> None:
        for name in ("a", "b", "lost+found"):
            (self.root / name).touch()

    def empty(self) -> None:
        for name in ("a", "b"):
            (self.root / name).unlink()

    def come_back(self, filled: bool = True) -> None:
        """Be another directory, that may be on its way back."""
        shutil.rmtree(self.root)
        self.guard.root_lost(TREE, "gone")
        self.root.mkdir()
        if filled:
            self.fill()
        self.watcher.find()
        assert not self.guard.root_found(TREE)

    def lose_all(self) -> None:
        self.empty()
        assert not self.guard.check(TREE)
        assert self.guard.halted == {TREE: f"{self.root} is empty"}


@pytest.fixture
def post(tmp_path: Path) -> Post:
    return Post(tmp_path)


def test_emptied_tree_is_halted_once_and_reported_with_what_to_do(post: Post) -> None:
    post.lose_all()
    assert not post.guard.check(TREE)
    assert post.halts == [f"{post.root} is empty"]
    assert post.guard.reasons([1, TREE]) == [f"{post.root} is empty (meant? kill -USR2 {os.getpid()})"]


def test_source_of_a_transfer_is_the_root_that_was_checked(post: Post) -> None:
    status = post.root.stat()
    identity = status.st_dev, status.st_ino
    assert post.guard.source(TREE, False) == Source(identity, True)
    (post.root / "b").unlink()
    assert post.guard.check(TREE)
    assert post.guard.source(TREE, False) == Source(identity, True)  # it might all be one event
    post.now += PATIENCE
    assert post.guard.source(TREE, False) == Source(identity, False)
    (post.root / "a").unlink()
    assert post.guard.check(TREE)
    assert post.guard.source(TREE, True) == Source(identity, False)


def test_empty_root_never_seen_filled_makes_full_mirrors_doubtful(tmp_path: Path) -> None:
    post = Post(tmp_path)
    post.empty()
    post.guard.refilter(TREE, lambda _name, _is_directory: False)
    (post.root / "lost+found").unlink()
    assert post.guard.check(TREE)
    for full in (True, False):
        source = post.guard.source(TREE, full)
        assert source is not None
        assert source.whole is full
    post.guard.send_refused(TREE)  # a node has something
    assert post.halts == [f"{post.root} is empty, and nodes have files"]


def test_refused_send_is_no_loss_if_the_root_is_good_by_now(post: Post) -> None:
    post.guard.send_refused(TREE)
    assert post.halts == []
    assert post.guard.halted == {}


def test_replaced_root_is_checked_when_the_watcher_finds_it(post: Post) -> None:
    shutil.rmtree(post.root)
    post.root.mkdir()
    assert not post.guard.halted
    post.guard.root_lost(TREE, "gone")
    assert not post.guard.check(TREE)
    assert post.guard.recovered() == []
    assert post.guard.accept_loss() == []  # there is nothing yet that could be meant
    post.watcher.find()
    assert not post.guard.root_found(TREE)
    assert post.halts == [f"{post.root} is empty"]


def test_root_that_comes_back_as_it_was_goes_on_at_once(post: Post) -> None:
    post.root.rename(post.root.with_name("away"))
    post.guard.root_lost(TREE, "gone")
    post.root.with_name("away").rename(post.root)
    assert post.guard.root_found(TREE)
    assert post.guard.halted == {}


@pytest.mark.parametrize("known", [True, False], ids=["seen before", "waited for from the start"])
@pytest.mark.parametrize("made", [True, False], ids=["something in it", "nothing in it yet"])
def test_root_that_comes_back_as_another_goes_on_when_left_alone(known: bool, made: bool, post: Post) -> None:
    if not known:
        post.guard.add_tree(TREE, str(post.root), lambda _name, _is_directory: False)
    post.come_back(filled=made)
    why = (
        f"{post.root} is empty"
        if known and not made
        else f"{post.root} is back, and compared when nothing has"
    )
    assert post.guard.reasons([TREE])[0].startswith(why)
    for number in range(5):
        (post.root / f"{number}").touch()
        post.guard.touched(TREE)
        assert post.guard.recovered() == []
        assert not post.guard.check(TREE)
        post.now += PATIENCE - 1
    assert "(at once? kill -USR2 " in post.guard.reasons([TREE])[0]
    post.now += 1
    assert post.guard.recovered() == [TREE]
    assert post.guard.check(TREE)


def test_settling_tree_is_sent_at_once_if_accepted(post: Post) -> None:
    post.come_back()
    assert post.guard.accept_loss() == [TREE]
    assert post.guard.check(TREE)
    post.lose_all()


def test_settling_tree_that_is_emptied_again_is_lost(post: Post) -> None:
    post.come_back()
    post.empty()
    post.now += PATIENCE
    assert post.guard.recovered() == []
    assert post.guard.halted == {TREE: f"{post.root} is empty"}


def test_loss_after_other_rules_is_noticed_after_check_unknown(post: Post) -> None:
    post.guard.refilter(TREE, lambda name, _is_directory: name == b"lost+found")
    post.guard.check_unknown()
    post.lose_all()
    assert post.guard.accept_loss() == [TREE]
    post.fill()
    post.guard.configure(False, PATIENCE, None)
    post.guard.configure(True, PATIENCE, None)
    post.guard.check_unknown()
    post.lose_all()


def test_restored_tree_goes_on_when_left_alone(post: Post) -> None:
    post.lose_all()
    assert post.guard.recovered() == []
    (post.root / "a").touch()
    for _ in range(3):
        post.guard.touched(TREE)
        assert post.guard.recovered() == []
        post.now += PATIENCE - 1
    post.now += 1
    assert post.guard.recovered() == [TREE]
    assert post.guard.check(TREE)


def test_restored_tree_goes_on_in_the_end_if_never_left_alone(post: Post) -> None:
    post.lose_all()
    post.fill()
    rounds = 0
    while not post.guard.recovered():
        post.guard.touched(TREE)
        post.now += 1
        rounds += 1
        assert rounds <= MAX_SETTLE_FACTOR * PATIENCE
    assert rounds == MAX_SETTLE_FACTOR * PATIENCE


def test_restored_tree_that_is_emptied_again_is_still_halted(post: Post) -> None:
    post.lose_all()
    post.fill()
    assert post.guard.recovered() == []
    post.empty()
    post.now += PATIENCE
    assert post.guard.recovered() == []
    post.fill()
    assert post.guard.recovered() == []  # the time counts from here
    post.now += PATIENCE
    assert post.guard.recovered() == [TREE]


def test_accepted_loss_is_mirrored_and_guarded_again_when_filled(post: Post) -> None:
    post.lose_all()
    before = post.guard.generation
    assert post.guard.accept_loss() == [TREE]
    assert post.guard.generation != before
    assert post.guard.check(TREE)
    source = post.guard.source(TREE, True)
    assert source is not None
    assert not source.whole
    post.fill()
    assert post.guard.check(TREE)
    post.lose_all()


def test_guard_that_is_off_lets_all_pass_and_forgets(post: Post) -> None:
    post.lose_all()
    post.guard.configure(False, PATIENCE, None)
    assert post.guard.recovered() == [TREE]
    assert post.guard.check(TREE)
    assert post.guard.source(TREE, True) is None
    post.guard.configure(True, PATIENCE, None)
    assert post.guard.check(TREE)
    source = post.guard.source(TREE, True)
    assert source is not None
    assert source.whole


def test_removed_tree_is_not_halted(post: Post) -> None:
    post.lose_all()
    post.guard.remove_tree(TREE)
    assert post.guard.halted == {}


# Too much is removed ---------------------------------------------------------------------------------------


def remove(post: Post, *paths: str) -> list[bool]:
    """Remove entries; return what the guard says to each."""
    return [post.guard.removed(TREE, path.encode()) for path in paths]


def test_removals_within_the_limit_pass_and_one_more_halts_the_tree(post: Post) -> None:
    post.guard.configure(True, PATIENCE, 3)
    assert remove(post, "d/e/1", "d/e/2", "d/f/3") == [False] * 3
    assert post.guard.check(TREE)
    assert remove(post, "d/e/4") == [True]
    assert not post.guard.check(TREE)
    why = f"{post.root} has lost 4 entries, in {post.root}/d, more than rmaxdelete (3) allows"
    assert post.halts == [why]
    assert post.guard.halted == {TREE: why}
    assert post.guard.needs_acceptance(TREE)


def test_removals_count_for_edelay_and_a_second_at_least(post: Post) -> None:
    for patience in (PATIENCE, 0):
        post.guard.configure(True, patience, 3)
        remove(post, "1", "2", "3")
        post.now += max(patience, 1)
        assert remove(post, "4") == [False]
        assert post.guard.check(TREE)
        assert remove(post, "5", "6", "7") == [False, False, True]
        post.now += max(patience, 1)
        assert post.guard.check(TREE)


def test_removals_halt_a_tree_without_rguard_too(post: Post) -> None:
    post.guard.configure(False, PATIENCE, 1)
    remove(post, "1", "2")
    assert not post.guard.check(TREE)


def test_removals_are_not_counted_without_a_limit(post: Post) -> None:
    assert remove(post, *map(str, range(100))) == [False] * 100
    post.guard.configure(True, PATIENCE, 1)
    assert post.guard.check(TREE)


def test_nodes_count_what_they_lose_when_a_directory_has_left(post: Post) -> None:
    guard = post.guard
    guard.directory_left(TREE, b"before", 5)
    assert guard.allowance(TREE, 0) is None, "there is no limit"
    guard.configure(True, PATIENCE, 3)
    assert guard.allowance(TREE, 0) is None
    guard.directory_left(TREE, b"d/big", 7)
    assert guard.allowance(TREE, 6) == Allowance(3, 0.0)
    assert guard.allowance(TREE, 7) is None, "the node has lost it already"
    guard.configure(True, PATIENCE, Share(20))
    assert guard.allowance(TREE, 6) == Allowance(0, 4.0)
    guard.directory_stayed(TREE, b"d/big")
    assert guard.allowance(TREE, 6) is None
    for number in range(1000):
        guard.directory_left(TREE, b"d/%d" % number, 10 + number)
    assert guard.allowance(TREE, 1008) is not None
    assert guard.allowance(TREE, 1009) is None


def test_more_removals_on_a_node_than_the_limit_halt_the_tree(post: Post) -> None:
    guard = post.guard
    guard.configure(True, PATIENCE, 3)
    guard.directory_left(TREE, b"d/big", 7)
    guard.directory_stayed(TREE, b"d/big")
    guard.removals_counted(TREE, 400, b"d/big")
    assert guard.check(TREE), "it was renamed within the tree"
    guard.directory_left(TREE, b"d/big", 8)
    assert remove(post, "d/big") == [False]
    guard.removals_counted(TREE, 400, b"d/big")
    why = f"{post.root} has lost 400 entries, in {post.root}/d/big, more than rmaxdelete (3) allows"
    assert post.halts == [why]
    guard.removals_counted(TREE, 401, b"d/big")  # of another node
    assert guard.halted == {TREE: why}
    guard.configure(True, PATIENCE, 399)
    assert guard.recovered() == []
    guard.configure(True, PATIENCE, 400)
    assert guard.recovered() == [TREE]
    assert guard.allowance(TREE, 0) is None, "all is compared in full"
    guard.removals_counted(TREE + 7, 400, b"d/big")  # of a tree that was taken out


def test_renames_within_a_tree_are_no_removals(post: Post) -> None:
    post.guard.configure(True, PATIENCE, 1)
    for number in range(10):
        assert remove(post, f"old{number}") == [False]
        post.guard.moved_in(TREE)
    assert post.guard.check(TREE)


def test_halt_for_removals_waits_for_acceptance_whatever_comes_back(post: Post) -> None:
    post.guard.configure(True, PATIENCE, 1)
    remove(post, "1", "2")
    assert not post.guard.check(TREE)
    post.fill()
    for _ in range(3):
        post.guard.touched(TREE)
        post.now += 10 * PATIENCE
        assert post.guard.recovered() == []
    assert post.guard.accept_loss() == [TREE]
    assert post.guard.check(TREE)
    assert not post.guard.needs_acceptance(TREE)
    post.lose_all()  # what the guard knows of the root is as it was
    assert remove(post, "3") == [False]


def test_halted_tree_names_what_is_removed_further(post: Post) -> None:
    post.guard.configure(True, PATIENCE, 1)
    remove(post, "d/1", "d/2")
    assert not post.guard.check(TREE)
    post.now += 5 * PATIENCE
    assert remove(post, "d/3", "e/4") == [False, False]
    assert post.guard.recovered() == []
    assert post.guard.halted[TREE] == f"{post.root} has lost 4 entries, more than rmaxdelete (1) allows"


def test_halt_for_removals_survives_a_restart_and_the_loss_of_the_root(post: Post) -> None:
    post.guard.configure(True, PATIENCE, 1)
    remove(post, "d/1", "d/2")
    assert not post.guard.check(TREE)
    memory = post.guard.memory_of(TREE)
    post.come_back()
    assert post.guard.needs_acceptance(TREE)
    post.now += 10 * PATIENCE
    assert post.guard.recovered() == []
    post.guard.remove_tree(TREE)
    post.guard.add_tree(TREE, str(post.root), lambda _name, _is_directory: False)
    post.guard.remember(TREE, memory)
    assert not post.guard.root_found(TREE)
    assert "has lost 2 entries" in post.guard.halted[TREE]
    assert remove(post, "3") == [False]
    assert post.guard.recovered() == []
    assert "has lost 2 entries" in post.guard.halted[TREE]
    assert post.guard.accept_loss() == [TREE]
    assert post.guard.memory_of(TREE).excess == ""


def test_halt_for_removals_ends_when_the_setting_is_taken_out(post: Post) -> None:
    post.guard.configure(True, PATIENCE, 1)
    remove(post, "1", "2")
    assert not post.guard.check(TREE)
    post.guard.configure(True, PATIENCE, None)
    assert post.guard.recovered() == [TREE]
    assert post.guard.check(TREE)


def test_halt_for_removals_ends_when_the_limit_allows_them(post: Post) -> None:
    post.guard.configure(True, PATIENCE, 2)
    remove(post, "1", "2", "3")
    assert not post.guard.check(TREE)
    post.now += 2 * PATIENCE
    remove(post, "4")
    for most in (2, 3, 1):
        post.guard.configure(True, PATIENCE, most)
        assert post.guard.recovered() == []
    assert "has lost 4 entries" in post.guard.halted[TREE]
    post.guard.configure(True, PATIENCE, 4)
    assert post.guard.recovered() == [TREE]
    assert post.guard.check(TREE)
    remove(post, "5", "6", "7", "8", "9")
    assert not post.guard.check(TREE), "it counts anew"


def test_halt_for_removals_ends_when_a_share_allows_them(post: Post) -> None:
    for number in range(7):
        (post.root / f"{number}").touch()
    post.guard.configure(True, PATIENCE, Share(5))
    remove(post, "x")
    assert not post.guard.check(TREE), "one of ten"
    post.guard.configure(True, PATIENCE, Share(9))
    assert post.guard.recovered() == []
    post.guard.configure(True, PATIENCE, Share(10))
    assert post.guard.recovered() == [TREE]


def test_halt_for_removals_stays_after_a_restart_with_a_higher_limit(post: Post) -> None:
    post.guard.configure(True, PATIENCE, 1)
    remove(post, "1", "2")
    assert not post.guard.check(TREE)
    memory = post.guard.memory_of(TREE)
    post.guard.remove_tree(TREE)
    post.guard.configure(True, PATIENCE, 100)
    post.guard.add_tree(TREE, str(post.root), lambda _name, _is_directory: False)
    post.guard.remember(TREE, memory)
    assert not post.guard.root_found(TREE)
    for most in (1_000, 10_000):  # how many there were is not known any more
        post.guard.configure(True, PATIENCE, most)
        assert post.guard.recovered() == []
    assert post.guard.accept_loss() == [TREE]


def test_removals_are_counted_for_each_tree(post: Post, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "file").touch()
    post.guard.configure(False, PATIENCE, 2)
    post.guard.add_tree(TREE + 1, str(tmp_path / "second"), lambda _name, _is_directory: False)
    for path in (b"1", b"2"):
        for tree in (TREE, TREE + 1):
            assert not post.guard.removed(tree, path)
    assert post.guard.removed(TREE, b"3")
    assert not post.guard.check(TREE)
    assert post.guard.check(TREE + 1)
    assert list(post.guard.halted) == [TREE]


def test_share_is_that_of_the_entries_there_were(post: Post) -> None:
    """There are eight entries and one that is excluded: two of ten are 20%, three of eleven are more."""
    (post.root / "d").mkdir()
    for number in range(5):
        (post.root / f"d/{number}").touch()
    post.guard.configure(True, PATIENCE, Share(20))
    remove(post, "d/x", "d/y")
    assert post.guard.check(TREE)
    remove(post, "d/z")
    assert not post.guard.check(TREE)
    assert "has lost 3 entries" in post.guard.halted[TREE]
    assert "rmaxdelete (20%)" in post.guard.halted[TREE]


def test_share_counts_what_is_left_only_when_it_may_be_exceeded(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []

    def count_below(_path: str, _excluded: object, most: int) -> int:
        counts.append(most)
        return most

    monkeypatch.setattr("inosync.system.entries.count_below", count_below)
    post.guard.configure(True, 1000 * PATIENCE, Share(50))
    for _ in range(40_000):
        if remove(post, "x")[0]:
            assert post.guard.check(TREE)
    assert counts == sorted(counts)
    assert len(counts) <= 10
