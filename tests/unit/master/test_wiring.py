"""What a configuration comes to with ``--once``, and at a sender; and what the journal drops."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support import configs
from support.recorder import Recorder
from unit.master.mirrors import mirror

from inosync.config.fleet import Fleet, RedisAddress
from inosync.config.load import Config
from inosync.master.wiring import adapted, forget_confirmed


@pytest.fixture
def config(here: Path) -> Config:
    hook = here / "hook"
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o755)
    return configs.config(
        rlisten="'127.0.0.1:9999'", on_sync=f"['{hook}']", on_state=f"['{hook}']", rverify="100"
    )


def test_config_is_followed_as_it_is_without_options(config: Config) -> None:
    assert adapted(config, once=False) == config
    assert config.on_sync is not None
    assert config.nodes[0].rwarm
    assert config.nodes[0].rverify


def test_once_keeps_no_connection_verifies_nothing_and_serves_no_metrics(config: Config) -> None:
    made = adapted(config, once=True)
    assert (made.nodes[0].rwarm, made.nodes[0].rverify, made.rlisten) == (False, 0, None)
    assert (made.on_sync, made.on_state) == (config.on_sync, config.on_state)


def test_sender_lets_no_changes_gather_because_the_origin_has_done_so(config: Config) -> None:
    fleet = Fleet(RedisAddress("redis://r/0"), "", ("eu",), (), {})
    origin, sender = replace(config, fleet=fleet), replace(config, fleet=replace(fleet, me="eu"))
    assert adapted(origin, once=False) == origin
    assert adapted(sender, once=False) == replace(sender, equiet=0.0)


@pytest.mark.parametrize(
    ("cursors", "comparing_from", "needed_elsewhere", "dropped"),
    [
        pytest.param([5, 3], math.inf, [], [3], id="the slowest node"),
        pytest.param([5, 4], 2, [], [2], id="a comparison"),
        pytest.param([5, 4], math.inf, [1.0], [1], id="a machine of the fleet"),
        pytest.param([], math.inf, [7.0], [7], id="a fleet without nodes of its own"),
        pytest.param([], math.inf, [], [], id="no nodes"),
    ],
)
def test_journal_forgets_only_what_is_needed_no_more(
    cursors: list[int], comparing_from: float, needed_elsewhere: list[float], dropped: list[int]
) -> None:
    calls: list[tuple[Any, ...]] = []
    nodes = {str(number): SimpleNamespace(cursor=cursor) for number, cursor in enumerate(cursors)}
    watching = SimpleNamespace(
        mirror=mirror(nodes=nodes, journal=Recorder(calls)),
        verification=SimpleNamespace(cursor=comparing_from),
    )
    fleet = [SimpleNamespace(keeps_after=lambda at=at: at) for at in needed_elsewhere]
    forget_confirmed(cast(Any, watching), cast(Any, fleet))
    assert calls == [("drop_confirmed", position) for position in dropped]
