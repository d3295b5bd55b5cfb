"""The title of a worker: its own while it transfers, otherwise the master's."""

from __future__ import annotations

import pytest

from inosync.changes import Part
from inosync.system import process
from inosync.worker.title import Title

FULL, BATCH = Part(1, full=True), Part(1, full=False, names=(b"a",))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(process, "set_title", texts.append)
    return texts


@pytest.mark.parametrize(
    ("part", "count", "percent", "text"),
    [
        (BATCH, 14, None, "inosync: n [syncing] 14 paths"),
        (BATCH, 1, None, "inosync: n [syncing] 1 path"),
        (BATCH, 0, None, "inosync: n [syncing] 0 paths"),
        (FULL, 0, None, "inosync: n [full]"),
        (FULL, 0, 0, "inosync: n [full] 0%"),
        (FULL, 0, 43, "inosync: n [full] 43%"),
    ],
)
def test_transfer_is_shown(shown: list[str], part: Part, count: int, percent: int | None, text: str) -> None:
    Title("n").transferring(part, count, percent)
    assert shown == [text]


def test_sent_title_is_shown_unless_a_transfer_runs(shown: list[str]) -> None:
    title = Title("n")
    title.starting()
    title.show("from the master")
    title.transferring(BATCH, 1)
    title.show("sent before the master knew")
    assert shown == ["inosync: n [starting]", "from the master", "inosync: n [syncing] 1 path"]
    title.transfer_ended()
    title.show("from the master again")
    assert shown[3:] == ["from the master again"]


def test_stopping_worker_shows_nothing_else(shown: list[str]) -> None:
    title = Title("n")
    title.stopping()
    title.show("from the master")
    title.transferring(BATCH, 1)
    assert shown == ["inosync: n [stopping]"]
