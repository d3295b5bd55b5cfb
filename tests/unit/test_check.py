"""``inosync -t``: the resulting settings."""

from __future__ import annotations

import pytest
from support.configs import config

from inosync import check
from inosync.config.settings import SETTINGS


@pytest.mark.usefixtures("here")
def test_resulting_settings_are_those_of_the_table() -> None:
    shown = dict(check.resulting_settings(config()))
    assert set(shown) == set(SETTINGS) - {"wpaths", "rpaths", "rnodes", "rexcludes"}
    expected = {"edelay": "10", "rspeed": "0", "extra": "''", "rwarm": "True", "rlisten": "None"}
    assert {name: shown[name] for name in expected} == expected


@pytest.mark.usefixtures("here")
def test_resulting_settings_name_the_nodes_with_values_of_their_own() -> None:
    nodes = [
        {"node": "h:", "rspeed": "8:00,5 23:00,0"},
        {"node": "i:", "extra": "-z '--rsh=ssh -p 2'", "rexcludes": ["/x"]},
        {"node": "j:", "rwarm": False, "wpaths": ["a"]},
        {"node": "k:", "rwarm": 9},
    ]
    shown = dict(check.resulting_settings(config(rnodes=repr(nodes), rspeed="7")))
    assert shown["rspeed"] == "7; 08:00,5 23:00,0 for h"
    assert shown["extra"].startswith("''; ")
    assert shown["extra"].endswith(" for i")
    assert shown["rwarm"] == "True; False for j; 9 for k"
    assert shown["rexcludes of i"] == "--exclude=/x"
    assert shown["wpaths of j"].endswith("/a")


@pytest.mark.usefixtures("here")
def test_resulting_settings_describe_hooks_and_addresses() -> None:
    hook = "{'command': ['/bin/true', 'x'], 'after': 5, 'states': ['paused']}"
    shown = dict(check.resulting_settings(config(on_state=hook, on_sync="print", emask="['IN_MOVE']")))
    assert shown["on_state"] == "['/bin/true', 'x'], at most 60 s, of paused, after 5 s"
    assert shown["on_sync"] == "function print, at most 60 s"
    assert shown["emask"] == "IN_MOVED_FROM IN_MOVED_TO"
