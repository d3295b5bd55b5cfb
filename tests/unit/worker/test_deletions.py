"""How it is remembered that a node cannot be told of names that are gone."""

from __future__ import annotations

from inosync.worker.deletions import AGAIN, Deletions

REFUSED = [b"invalid file mode 00 for d/gone [Receiver]"]


def test_a_refusal_holds_for_a_while_and_is_told_once() -> None:
    now = 1_000.0
    deletions = Deletions(lambda: now)
    assert deletions.listed
    assert not deletions.refused([b"rsync: something else"])
    assert not deletions.again()
    for first in (True, False):
        assert deletions.refused(REFUSED)
        assert not deletions.listed
        assert deletions.news() is first
        # The way that does without cannot be refused for that again: no loop.
        assert not deletions.refused(REFUSED)
        now += AGAIN - 1
        assert not deletions.again()
        now += 1
        assert deletions.again()
        assert deletions.listed
        assert not deletions.again()
