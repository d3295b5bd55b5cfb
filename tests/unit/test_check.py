"""``inosync -t``: the resulting settings; ``inosync -p``: the calls, and what they would do."""

from __future__ import annotations

import shutil
from pathlib import Path

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


@pytest.mark.parametrize(
    ("extra", "environ", "call"),
    [
        ("", "", "ssh -l u h"),
        ("-6", "", "ssh -6 -l u h"),
        ("--rsh='ssh -p 2222 -i \"/a b\"'", "ssh -x", "ssh -p 2222 -i '/a b' -l u h"),
        ("", "ssh -F none", "ssh -F none -l u h"),
    ],
)
@pytest.mark.usefixtures("here")
def test_login_to_a_node_is_the_call_that_rsync_makes(
    extra: str, environ: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSYNC_RSH", environ) if environ else monkeypatch.delenv("RSYNC_RSH", raising=False)
    [node] = config(rnodes="['u@h:']", extra=repr(extra)).nodes
    assert " ".join(check._login(node)) == call


@pytest.mark.usefixtures("here")
def test_resulting_settings_describe_hooks_and_addresses() -> None:
    hook = "{'command': ['/bin/true', 'x'], 'after': 5, 'states': ['paused']}"
    shown = dict(check.resulting_settings(config(on_state=hook, on_sync="print", emask="['IN_MOVE']")))
    assert shown["on_state"] == "['/bin/true', 'x'], at most 60 s, of paused, after 5 s"
    assert shown["on_sync"] == "function print, at most 60 s"
    assert shown["emask"] == "IN_MOVED_FROM IN_MOVED_TO"


# -p

RSYNC = shutil.which("rsync") or ""
needs_rsync = pytest.mark.skipif(not RSYNC, reason="rsync is not installed")


@pytest.fixture
def copies(here: Path) -> str:
    """A node with one file more and one less than the wpath ``a``; the settings of it."""
    (here / "rsync").unlink()
    (here / "rsync").symlink_to(RSYNC)
    (here / "a/sub").rmdir()
    (here / "a/new").write_text("x")
    (here / "n/www").mkdir(parents=True)
    (here / "n/www/own").write_text("x")
    return repr([str(here / "n")])


def calls(capsys: pytest.CaptureFixture[str], **values: str) -> tuple[bool, list[str]]:
    all_good = check.show_calls(config(**values))
    return all_good, capsys.readouterr().out.splitlines()


@needs_rsync
def test_calls_are_shown_with_what_they_would_do(
    copies: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    all_good, lines = calls(capsys, rnodes=copies, rspeed="9")
    assert all_good
    assert lines[0] == f"# node {here}/n: {here}/a"
    assert lines[1].startswith(r"printf '%s\0' ./ | ")
    assert lines[1].endswith(f" --bwlimit=9 --from0 {here}/a/ {here}/n/www")
    assert sorted(lines[2:]) == [
        "#   2 differences: 1 to send, 1 to delete",
        f"#   extra       {here}/a/own",
        f"#   missing     {here}/a/new",
    ]
    assert (here / "n/www/own").exists()


@needs_rsync
def test_calls_of_an_empty_wpath_name_the_guard(
    copies: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "a/new").unlink()
    assert "the wpath is empty: with rguard " in calls(capsys, rnodes=copies)[1][-1]
    assert "rguard" not in calls(capsys, rnodes=copies, rguard="False")[1][-1]


@needs_rsync
def test_calls_of_a_node_that_fails_are_shown_with_the_reason(
    copies: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "n/www/own").unlink()
    (here / "n/www").rmdir()
    (here / "n/www").write_text("no directory")
    all_good, lines = calls(capsys, rnodes=copies)
    assert not all_good
    assert [line[:11] for line in lines] == ["# node " + str(here)[:4], "printf '%s\\", "#   FAILED:"]


@needs_rsync
def test_calls_list_at_most_so_many_paths(
    copies: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "MAX_SHOWN_PATHS", 1)
    _, lines = calls(capsys, rnodes=copies)
    assert lines[-2:] == ["#   and 1 more", "#   2 differences: 1 to send, 1 to delete"]
