"""What a configuration comes to with ``--once``, and at a sender."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support import configs

from inosync.config.fleet import Fleet, RedisAddress
from inosync.config.load import Config
from inosync.master.wiring import adapted


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
