"""The page for people, with nodes of any name."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from support import statuses

from inosync.console import page
from inosync.console.history import History, Snapshot

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


def test_page_of_two_hundred_nodes_is_small() -> None:
    nodes = statuses.fleet(200)
    told = statuses.status(nodes)
    assert len(page.render(Snapshot(statuses.NOW, told["master"], nodes), statuses.lived(nodes))) < 300_000


def test_hostile_texts_are_escaped() -> None:
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


def test_policy_allows_the_script_and_style_of_the_page_only() -> None:
    text = rendered(statuses.node("a"))
    for tag in ("script", "style"):
        [content] = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in page.POLICY
    assert page.POLICY.startswith("default-src 'none'; ")
    assert not re.search(r"(src|href)=\"(https?:)?//", text)


@pytest.mark.parametrize(
    ("states", "headline"),
    [
        (["ok"], "The node is level"),
        (["ok", "syncing"], "All 2 nodes are level"),
        (["ok", "lagging", "full"], "2 of 3 nodes behind"),
        (["retrying", "lagging", "ok"], "1 of 3 nodes in trouble, 1 more behind"),
        ([], "No nodes"),
    ],
)
def test_headline_counts_nodes_in_trouble_and_behind(states: list[str], headline: str) -> None:
    text = rendered(*(statuses.node(str(number), state) for number, state in enumerate(states)))
    assert f">{headline}</p>" in text


def test_missing_answer_is_the_headline() -> None:
    text = page.render(Snapshot(statuses.NOW, why="not running: <nobody>"), History())
    assert "inosync does not answer" in text.replace("Inosync", "inosync")
    assert "not running: &lt;nobody&gt;" in text


def test_warnings_stand_above_the_table() -> None:
    text = rendered(statuses.node("a"), refused=["line 3: no"], unwatched=2, unwatched_reason="sysctl x")
    assert "The configuration was not reloaded: line 3: no" in text
    assert "2 directories are not watched: sysctl x" in text
