"""The guard over real directories, and a watcher that does what the test says. Time is played."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from inosync.guard.guard import MAX_SETTLE_FACTOR, Guard
from inosync.messages import Source

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
    post.guard.configure(False, PATIENCE)
    post.guard.configure(True, PATIENCE)
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
    post.guard.configure(False, PATIENCE)
    assert post.guard.recovered() == [TREE]
    assert post.guard.check(TREE)
    assert post.guard.source(TREE, True) is None
    post.guard.configure(True, PATIENCE)
    assert post.guard.check(TREE)
    source = post.guard.source(TREE, True)
    assert source is not None
    assert source.whole


def test_removed_tree_is_not_halted(post: Post) -> None:
    post.lose_all()
    post.guard.remove_tree(TREE)
    assert post.guard.halted == {}
