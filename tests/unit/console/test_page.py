"""The page for people: what stands in it, whatever the nodes are called."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from html.parser import HTMLParser

import pytest
from support import statuses

from inosync.console import page, sparkline
from inosync.console.client import NotRunning
from inosync.console.history import POINTS, History, Snapshot, StatusSource

HOSTILE = "<img src=x onerror=alert(1)>\"'&\n\x1b[31m\u202e</td></table><script>alert(2)</script>\udcff"


class Reader(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.names: list[str] = []
        self._in_name = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self._in_name = tag == "th" and ("scope", "row") in attrs

    def handle_data(self, data: str) -> None:
        if self._in_name:
            self.names.append(data)
        self._in_name = False


def rendered(*nodes: dict[str, object], **more: object) -> str:
    told = statuses.status(list(nodes), **more)
    return page.render(Snapshot(statuses.NOW, told["master"], told["nodes"]), History())


@pytest.mark.parametrize("count", [0, 1, 20, 200])
def test_every_node_has_a_row(count: int) -> None:
    nodes = statuses.fleet(count)
    told = statuses.status(nodes)
    read = Reader(page.render(Snapshot(statuses.NOW, told["master"], nodes), statuses.lived(nodes)))
    assert read.names == [node["name"] for node in nodes]
    assert read.tags.count("svg") == count
    assert "caption" in read.tags
    assert read.tags.count("script") == read.tags.count("style") == read.tags.count("table") == 1


def test_two_hundred_nodes_are_not_a_heavy_page() -> None:
    nodes = statuses.fleet(200)
    told = statuses.status(nodes)
    assert len(page.render(Snapshot(statuses.NOW, told["master"], nodes), statuses.lived(nodes))) < 300_000


def test_hostile_texts_are_texts() -> None:
    text = rendered(
        statuses.node(HOSTILE, "retrying", 3.0, reason=HOSTILE, failures={HOSTILE: 1}),
        halted=[HOSTILE],
        refused=[HOSTILE],
        config=f"/etc/{HOSTILE}",
        states={"retrying": 1},
    )
    text.encode()
    read, plain = (
        Reader(text),
        Reader(rendered(statuses.node("x", "retrying", 3.0), halted=["x"], refused=["x"])),
    )
    assert sorted(read.tags) == sorted(plain.tags)
    assert read.attributes == plain.attributes
    assert not any(name.startswith("on") or name == "style" for name in read.attributes)
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_the_policy_lets_the_page_run_what_it_has_and_nothing_else() -> None:
    text = rendered(statuses.node("a"))
    for tag in ("script", "style"):
        [content] = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in page.POLICY
    assert page.POLICY.startswith("default-src 'none'; ")
    assert not re.search(r"(src|href)=\"(https?:)?//", text)


@pytest.mark.parametrize(
    ("states", "verdict"),
    [
        (["ok"], "The node is level"),
        (["ok", "syncing"], "All 2 nodes are level"),
        (["ok", "lagging", "full"], "2 of 3 nodes behind"),
        (["retrying", "lagging", "ok"], "1 of 3 nodes in trouble, 1 more behind"),
        ([], "No nodes"),
    ],
)
def test_the_first_thing_to_be_read(states: list[str], verdict: str) -> None:
    text = rendered(*(statuses.node(str(number), state) for number, state in enumerate(states)))
    assert f">{verdict}</p>" in text


def test_no_answer_is_said() -> None:
    text = page.render(Snapshot(statuses.NOW, why="not running: <nobody>"), History())
    assert "inosync does not answer" in text.replace("Inosync", "inosync")
    assert "not running: &lt;nobody&gt;" in text


def test_what_is_wrong_stands_above_the_table() -> None:
    text = rendered(statuses.node("a"), refused=["line 3: no"], unwatched=2, unwatched_reason="sysctl x")
    assert "The configuration was not reloaded: line 3: no" in text
    assert "2 directories are not watched: sysctl x" in text


# The last hour -------------------------------------------------------------------------------------------


def test_the_history_is_an_hour_of_the_greatest_lags() -> None:
    history = History()
    for number in range(POINTS + 40):
        history.see(Snapshot(0, {}, [statuses.node("a", lag=float(number) + 0.5)]))
        history.tick(Snapshot(0, {}, [statuses.node("a", lag=0.0)]))
    assert list(history.of("a")) == [number + 0.5 for number in range(40, POINTS + 40)]


def test_what_is_gone_is_forgotten_and_what_is_not_known_is_a_gap() -> None:
    history = History()
    history.tick(Snapshot(0, {}, [statuses.node("a"), statuses.node("b")]))
    history.tick(Snapshot(0, why="down"))
    assert [math.isnan(point) for point in history.of("a")] == [False, True]
    history.tick(Snapshot(0, {}, [statuses.node("b", lag=2)]))
    assert list(history.of("a")) == []
    assert history.of("b")[-1] == 2


def test_a_line_of_the_last_hour() -> None:
    assert sparkline.path([]) == ""
    assert sparkline.path([0.0] * POINTS) == "M0 21H120"
    assert sparkline.path([0.0] * 3) == "M119 21H120"
    assert sparkline.path([0.0] * 6 + [1e9] * 3) == "M117 21H119V1H120V21"
    assert sparkline.path(
        [1e9, math.nan, 1e9, *[math.nan] * 3, 0, 0, 0]
    ) == "M117 21V1H118V21M119 21H120".replace("M117 21V1", "M117 21H117V1")


def test_a_greater_lag_is_drawn_higher() -> None:
    heights = [sparkline.height(lag) for lag in (0, 1, 5, 60, 600, 3600, 1e9)]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] == sparkline.HEIGHT - 1
    assert len(set(heights)) == 6


# Asking --------------------------------------------------------------------------------------------------


def test_the_daemon_is_asked_once_a_second_at_most() -> None:
    now, asked = [0.0], []

    def ask() -> dict[str, object]:
        asked.append(now[0])
        if now[0] > 2:
            raise NotRunning("not running")
        return statuses.status([statuses.node("a")])

    source = StatusSource(ask, lambda: now[0], lambda: statuses.NOW)
    for tenth in range(40):
        now[0] = tenth / 10
        told = source.look()
        assert told.up is (now[0] < 3)
    assert asked == [0.0, 1.0, 2.0, 3.0]
    assert told.why == "not running"


@pytest.mark.parametrize("reply", [{}, {"master": {}}, {"error": "x"}])
def test_an_answer_that_is_none(reply: dict[str, object]) -> None:
    assert (
        StatusSource(lambda: reply, lambda: 0.0, lambda: 0.0).look().why == "the daemon is of another version"
    )
