"""The titles that the master makes."""

from __future__ import annotations

import pytest

from inosync.status import titles


@pytest.mark.parametrize(
    ("title", "text"),
    [
        (
            titles.master("default.py", {"ok": 2, "retrying": 1}, 1204),
            "inosync: master default.py [3 nodes: 2 ok, 1 retrying] 1204 dirs",
        ),
        (titles.ok("user1@a.mirror.com", "12:04:31"), "inosync: user1@a.mirror.com [ok] synced 12:04:31"),
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
        (
            titles.degraded("n", "failed to set times on root"),
            "inosync: n [degraded] failed to set times on root",
        ),
    ],
)
def test_titles_have_the_form_that_the_manual_shows(title: str, text: str) -> None:
    assert title == text


@pytest.mark.parametrize(
    ("shown", "wanted", "stale"),
    [
        ("", titles.starting("a"), True),
        (titles.starting("a"), titles.starting("a"), False),
        (titles.ok("a", "12:00:00"), titles.ok("a", "12:00:01"), True),
        (titles.waiting("a", "paused", "by the operator", 10), titles.degraded("a", "lost"), True),
        (titles.waiting("a", "paused", "why", 10), titles.waiting("a", "halted", "why", 10), True),
        (titles.waiting("a", "paused", "why", 10), titles.waiting("a", "paused", "why", 15), False),
        (titles.waiting("a", "paused", "why", 10), titles.waiting("a", "paused", "why", 16), True),
        (titles.waiting("a", "paused", "why", 10), titles.waiting("a", "paused", "why", 0), False),
        (titles.queued("a", 1, "why", 0), titles.queued("a", 1, "why", 1), True),
        (titles.queued("a", 1, "why", 0), titles.queued("a", 2, "why", 0), True),
    ],
)
def test_is_stale_if_more_differs_than_a_count_that_grew_little(shown: str, wanted: str, stale: bool) -> None:
    assert titles.is_stale(shown, wanted) is stale
