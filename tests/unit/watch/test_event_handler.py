"""What the events of the real kernel, and the journal, say about when a change is sent within its batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.trees import exchange
from support.watched_tree import Field

from inosync.changes import Change, Step
from inosync.journal.journal import Journal

NEW, CHANGED, UNKNOWN, SWITCHED, REMOVED = Step


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Field]:
    """A tree with a page, a directory and a link to it."""
    made = Field(tmp_path)
    (made.root / "page").write_text("old")
    (made.root / "d").mkdir()
    (made.root / "d/f").write_text("f")
    (made.root / "empty").mkdir()
    (made.root / "link").symlink_to("d")
    made.add()
    yield made
    made.watcher.close()


def append(path: Path) -> None:
    with open(path, "a") as file:
        file.write("more")


def switch(root: Path) -> None:
    (root / "temporary").symlink_to("empty")
    os.replace(root / "temporary", root / "link")


def make_below(root: Path) -> None:
    (root / "new/below").mkdir(parents=True)


@pytest.mark.parametrize(
    ("change", "path", "step"),
    [
        pytest.param(lambda root: (root / "asset").write_text("x"), "asset", NEW, id="file written"),
        pytest.param(lambda root: os.link(root / "page", root / "other"), "other", NEW, id="hard link"),
        pytest.param(lambda root: (root / "l").symlink_to("d"), "l", NEW, id="link made"),
        pytest.param(lambda root: os.mkfifo(root / "fifo"), "fifo", NEW, id="fifo"),
        pytest.param(make_below, "new", NEW, id="directory"),
        pytest.param(make_below, "new/below", NEW, id="directory in a new one"),
        pytest.param(lambda root: append(root / "page"), "page", CHANGED, id="file changed"),
        pytest.param(lambda root: (root / "page").write_text("x"), "page", CHANGED, id="file written again"),
        pytest.param(lambda root: (root / "page").chmod(0o600), "page", CHANGED, id="attributes"),
        pytest.param(lambda root: (root / "d").chmod(0o700), "d", CHANGED, id="attributes of a directory"),
        pytest.param(switch, "link", SWITCHED, id="link replaced"),
        pytest.param(switch, "temporary", NEW, id="link that was made and moved away"),
        pytest.param(lambda root: os.replace(root / "d/f", root / "page"), "page", SWITCHED, id="file moved"),
        pytest.param(lambda root: os.replace(root / "d/f", root / "page"), "d/f", REMOVED, id="file left"),
        pytest.param(lambda root: (root / "page").unlink(), "page", REMOVED, id="removed"),
        pytest.param(lambda root: (root / "empty").rmdir(), "empty", REMOVED, id="directory removed"),
        pytest.param(lambda root: (root / "d").rename(root / "e"), "e", NEW, id="directory moved"),
        pytest.param(lambda root: (root / "d").rename(root / "e"), "d", REMOVED, id="directory left"),
        pytest.param(
            lambda root: (root / "d").rename(root / "empty"), "empty", SWITCHED, id="moved over an empty one"
        ),
        pytest.param(
            lambda root: exchange(root / "d", root / "empty"), "empty", SWITCHED, id="directories exchanged"
        ),
    ],
)
def test_step_of_a_change(field: Field, change: Callable[[Path], object], path: str, step: Step) -> None:
    change(field.root)
    field.settle()
    journal = Journal()
    for (call, tree, name, kind), (_, each) in zip(field.take(), field.listener.steps, strict=True):
        if call == "gone":
            journal.gone(tree, name, 1.0, each)
        else:
            assert kind is not None
            journal.record(Change(tree, name, kind, step=each), 1.0)
    recorded = {change.path: change.step for change in journal.since(0) or ()}
    assert recorded[os.fsencode(path)] is step


def test_step_of_a_file_that_is_kept_open_stays_new(field: Field) -> None:
    with open(field.root / "asset", "w") as file:
        file.write("x")
        file.flush()
        field.recorded()
        field.clock.now += 100
        field.watcher.run_due()
        assert field.listener.steps == []
    field.recorded()
    assert field.listener.steps == [(b"asset", NEW)]
    append(field.root / "asset")
    field.recorded()
    assert field.listener.steps[1:] == [(b"asset", CHANGED)]
