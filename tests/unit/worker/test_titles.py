"""What ``ps`` shows, to the letter."""

from __future__ import annotations

import pytest

from inosync.worker import titles


@pytest.mark.parametrize(
    ("title", "text"),
    [
        (
            titles.master("default.py", {"ok": 2, "retrying": 1}, 1204),
            "inosync: master default.py [3 nodes: 2 ok, 1 retrying] 1204 dirs",
        ),
        (titles.ok("user1@a.mirror.com", "12:04:31"), "inosync: user1@a.mirror.com [ok] synced 12:04:31"),
        (titles.syncing("user2@b.mirror.com", 14), "inosync: user2@b.mirror.com [syncing] 14 paths"),
        (
            titles.retrying("rsync://c.mirror.com/www", 3, "12:05:10", "connection refused", 120),
            "inosync: rsync://c.mirror.com/www [retry 3 at 12:05:10] connection refused, 120 behind",
        ),
        (
            titles.queued("a.mirror.com", 3, "connection refused", 120),
            "inosync: a.mirror.com [retry 3 waits for a slot] connection refused, 120 behind",
        ),
        (titles.master("a.py", {"ok": 1}, 5, 2), "inosync: master a.py [1 node: 1 ok] 5 dirs, 2 not watched"),
        (titles.master("a.py", {"ok": 1}, 0), "inosync: master a.py [1 node: 1 ok] 0 dirs"),
        (
            titles.master("a.py", {"ok": 0, "full": 2, "halted": 0}, 7),
            "inosync: master a.py [2 nodes: 2 full] 7 dirs",
        ),
        (titles.starting("n"), "inosync: n [starting]"),
        (titles.syncing("n", 1), "inosync: n [syncing] 1 path"),
        (titles.syncing("n", 0), "inosync: n [syncing] 0 paths"),
        (titles.full("n", None), "inosync: n [full]"),
        (titles.full("n", 0), "inosync: n [full] 0%"),
        (titles.full("n", 43), "inosync: n [full] 43%"),
        (
            titles.degraded("n", "failed to set times on root"),
            "inosync: n [degraded] failed to set times on root",
        ),
        (titles.stopping("n"), "inosync: n [stopping]"),
    ],
)
def test_a_title_says_who_and_what(title: str, text: str) -> None:
    assert title == text
