"""What the node's rsync refuses, and for how long it is not asked for it."""

from __future__ import annotations

import pytest

from inosync.worker.refused_options import RETRY_SECONDS, RefusedOptions

NO_MISSING = [b"invalid file mode 00 for d/gone [Receiver]"]
NO_STATS = [b"@ERROR: The server is configured to refuse --stats"]


def test_missing_names_are_left_out_for_a_while_and_reported_once() -> None:
    now = 1_000.0
    refused = RefusedOptions(lambda: now)
    assert refused.list_missing
    assert not refused.explain([b"rsync: something else"])
    assert not refused.retry_is_due()
    for is_first in (True, False):
        assert refused.explain(NO_MISSING)
        assert refused.learn(NO_MISSING) is is_first
        assert not refused.list_missing
        # The way that does without cannot be refused for that again: no loop.
        assert not refused.explain(NO_MISSING)
        now += RETRY_SECONDS - 1
        assert not refused.retry_is_due()
        now += 1
        assert refused.retry_is_due()
        assert refused.list_missing
        assert not refused.retry_is_due()


NO_MAX_SIZE = [b"@ERROR: The server is configured to refuse --max-size"]


def test_size_limit_is_left_out_for_good_and_never_reported() -> None:
    refused = RefusedOptions(lambda: 1_000.0)
    assert refused.explain(NO_MAX_SIZE)
    assert not refused.learn(NO_MAX_SIZE)
    assert (refused.max_size, refused.stats, refused.list_missing) == (False, True, True)
    assert not refused.explain(NO_MAX_SIZE)
    assert refused.explain(NO_STATS)


def test_stats_are_left_out_for_good_and_never_reported() -> None:
    now = 1_000.0
    refused = RefusedOptions(lambda: now)
    assert refused.explain(NO_STATS)
    assert not refused.learn(NO_STATS)
    assert (refused.stats, refused.list_missing) == (False, True)
    assert not refused.explain(NO_STATS)
    now += RETRY_SECONDS
    assert not refused.retry_is_due()
    assert not refused.stats


@pytest.mark.parametrize("option", ["min-size"])
def test_runs_that_only_remove_are_left_out_for_good(option: str) -> None:
    lines = [f"@ERROR: The server is configured to refuse --{option}".encode()]
    refused = RefusedOptions(lambda: 1_000.0)
    assert refused.explain(lines)
    assert not refused.learn(lines)
    assert not refused.send_nothing
    assert not refused.explain(lines)
