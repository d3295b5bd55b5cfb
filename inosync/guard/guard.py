"""The guard: a tree whose root was lost is not mirrored until it is back, or its loss is meant."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from inosync.guard import loss
from inosync.guard.loss import Memory, RootLook
from inosync.messages import Source
from inosync.system import entries, mounts

CALM = 360
"""A root that is filled again is compared when it was left alone for edelay, or after so many times that: an
hour by default, since what a restore has not reached by then is deleted on the nodes."""


@dataclass(slots=True)
class GuardedTree:
    """What is known of one tree."""

    wpath: str
    excluded: Callable[[bytes, bool], bool]
    memory: Memory = field(default_factory=Memory)
    missing: bool = False
    """Whether the watcher has lost its root, and will tell when there is one again."""
    settles: bool = False
    """Whether it was found again, and is no loss: it waits until nothing changes in it."""
    back_at: float | None = None
    """Since when there is something in it again, while it is halted ..."""
    touched_at: float = 0.0
    """... and when anything last happened there."""
    top: tuple[int, int, int] | None = None
    """The root itself, when it was good: device, inode, and time in nanoseconds."""


class Guard:
    """``patience`` is edelay; ``trip`` is told of a tree that is halted, and why. Times by the clock.

    ``check_root`` and ``root_identity`` are those of the watcher.
    """

    def __init__(
        self,
        check_root: Callable[[int], None],
        root_identity: Callable[[int], tuple[int, int] | None],
        patience: float,
        on: bool,
        trip: Callable[[int, str], None],
        clock: Callable[[], float],
    ) -> None:
        self.patience = patience
        self.halted: dict[int, str] = {}
        """The trees of which nothing is sent, and why."""
        self.generation = 0
        """Changes with what ``source`` says."""
        self._on = on
        self._check_root, self._root_identity = check_root, root_identity
        self._trip, self._clock = trip, clock
        self._posts: dict[int, GuardedTree] = {}

    # Trees -------------------------------------------------------------------------------------------

    def add_tree(self, tree: int, wpath: str, excluded: Callable[[bytes, bool], bool]) -> None:
        """Guard a tree."""
        self._posts[tree] = GuardedTree(wpath, excluded)

    def remove_tree(self, tree: int) -> None:
        """Guard a tree no longer."""
        del self._posts[tree]
        self.halted.pop(tree, None)

    def refilter(self, tree: int, excluded: Callable[[bytes, bool], bool]) -> None:
        """Other entries are mirrored."""
        post = self._posts[tree]
        post.excluded, post.memory = excluded, loss.refiltered(post.memory)
        self.generation += 1

    def set_enabled(self, on: bool) -> None:
        """Be on or off from now on."""
        if on != self._on:
            self._on = on
            self.generation += 1
            for post in self._posts.values():  # it was not looked at while this was off
                post.memory = loss.refiltered(post.memory)

    def check_unknown(self) -> None:
        """Look at roots of which it is not known what is mirrored: what is lost next may be all of it."""
        for tree, post in self._posts.items():
            if post.memory.entries is None and not post.missing:
                self.check(tree)

    # What is to be sent ------------------------------------------------------------------------------

    def check(self, tree: int) -> bool:
        """Look at a tree's root, before anything of it is sent; False if nothing must be."""
        post = self._posts[tree]
        if tree in self.halted:
            return False
        if not self._on:
            return True
        self._check_root(tree)
        if tree in self.halted:
            return False
        look, now = self._look(post), self._clock()
        if look is None:
            return True  # the watcher will find out, and the worker does
        if lost := loss.judge(post.memory, look, now, self.patience):
            self._halt(tree, lost)
            return False
        post.top = _top(post.wpath)
        memory = loss.seen(post.memory, look, now)
        if memory != post.memory:
            post.memory = memory
            self.generation += 1
        return True

    def source(self, tree: int, full: bool) -> Source | None:
        """What the root has to be for a transfer of a tree that was just checked."""
        identity, memory = self._root_identity(tree), self._posts[tree].memory
        if not self._on or identity is None:
            return None
        whole = loss.is_loss(memory, self._clock(), self.patience) or (full and loss.is_doubtful(memory))
        return Source(identity, whole)

    def send_refused(self, tree: int) -> None:
        """A worker has not sent something of a tree, since its root was not what it had to be.

        Of a root that was never seen to have anything in it, it has found out that the node has something.
        """
        if not self.check(tree) or not self._on:
            return
        post = self._posts[tree]
        look = self._look(post)
        if look is not None and look.entries == 0 and loss.is_doubtful(post.memory):
            self._halt(tree, "is empty, and nodes have files")

    def _look(self, post: GuardedTree) -> RootLook | None:
        """None if it cannot be looked at."""
        try:
            directory = entries.open_directory(post.wpath)
        except OSError:
            return None
        try:
            found = entries.count(directory, post.excluded, loss.MANY)
        except OSError:
            return None
        finally:
            os.close(directory)
        memory = post.memory
        if memory.entries is not None and not memory.replaced and not post.missing:
            # It is the directory that it was, so that nothing was mounted or unmounted there.
            return RootLook(found, memory.mounted)
        return RootLook(found, mounts.mounted(post.wpath), mounts.expected(post.wpath))

    # Halted, and back again --------------------------------------------------------------------------

    def _halt(self, tree: int, lost: str) -> None:
        post = self._posts[tree]
        post.back_at = None
        self.halted[tree] = f"{post.wpath} {lost}"
        self.generation += 1
        self._trip(tree, self.halted[tree])

    def root_lost(self, tree: int, why: str) -> None:
        """The watcher has lost the root."""
        post = self._posts[tree]
        post.missing, post.settles = True, False
        post.memory = loss.lost(post.memory)
        self.halted[tree] = why
        self.generation += 1

    def root_found(self, tree: int) -> bool:
        """All of a tree is watched (again); whether it may be compared."""
        post = self._posts[tree]
        was_missing, top = post.missing, post.top
        if was_missing:
            post.missing = False
            self.halted.pop(tree, None)
        self.generation += 1
        if not self.check(tree):
            return False
        if was_missing and self._on and (top is None or top != post.top):
            post.settles = True  # it may be on its way back, file by file
            self._wait(tree)
            return False
        return True

    def _wait(self, tree: int) -> None:
        post = self._posts[tree]
        post.back_at = post.touched_at = self._clock()
        why = f"is back, and compared when nothing has changed in it for {self.patience:g} s"
        self.halted[tree] = f"{post.wpath} {why}"

    def touched(self, tree: int) -> None:
        """Something happens in a tree that is halted."""
        self._posts[tree].touched_at = self._clock()

    def recovered(self) -> list[int]:
        """The halted trees that are to be mirrored again: they are not halted any more."""
        return [tree for tree in list(self.halted) if self._is_back(tree)]

    def _is_back(self, tree: int) -> bool:
        post, now = self._posts[tree], self._clock()
        if post.missing:
            return False  # the watcher will tell
        if not self._on:
            return self._release(tree)
        if lost := self._still_lost(post, now):
            if post.back_at is not None:
                post.settles, post.back_at = False, None
                self.halted[tree] = f"{post.wpath} {lost}"
            return False
        if post.back_at is None:
            self._wait(tree)
            return False
        # What is put back file by file is not to be compared, and deleted but for the first one, at once.
        if now - post.touched_at < self.patience and now - post.back_at < CALM * self.patience:
            return False
        self._release(tree)
        return self.check(tree)

    def _still_lost(self, post: GuardedTree, now: float) -> str:
        look = self._look(post)
        if look is None:
            return "cannot be read"
        if lost := loss.judge(post.memory, look, now, 0.0):
            return lost
        return "" if look.entries or post.settles else "is empty"

    def _release(self, tree: int) -> bool:
        del self.halted[tree]
        self._posts[tree].settles, self._posts[tree].back_at = False, None
        self.generation += 1
        return True

    def accept_loss(self) -> list[int]:
        """What was found is meant: the trees that are not halted any more. Those without a root stay so."""
        trees = [tree for tree in self.halted if not self._posts[tree].missing]
        for tree in trees:
            self._posts[tree].memory = loss.ACCEPTED
            self._release(tree)
        return trees

    def reasons(self, trees: Iterable[int]) -> list[str]:
        """Why those of these trees that are halted are halted, for titles, with what to do."""
        return [self._told(tree) for tree in trees if tree in self.halted]

    def _told(self, tree: int) -> str:
        post, why = self._posts[tree], self.halted[tree]
        if post.missing:
            return why
        return f"{why} ({'meant' if post.back_at is None else 'at once'}? kill -USR2 {os.getpid()})"


def _top(wpath: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(wpath)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns
