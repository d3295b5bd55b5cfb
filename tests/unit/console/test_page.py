"""The page for people, with nodes of any name."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support import statuses
from support.html import mistakes

from inosync.console import page
from inosync.console.history import History, Snapshot

HOSTILE = "<img src=x onerror=alert(1)>\"'&\n\x1b[31m\u202e</td></table><script>alert(2)</script>\udcff"


VOID = {"meta", "link"}
"""Elements without an end tag, of those that the page has."""


class Reader(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.ids: list[str] = []
        self.names: list[str] = []
        self.words: list[str] = []
        self.open: list[tuple[str, str]] = []
        """The elements around the place that is read, by tag and class."""
        self.unbalanced: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.attributes |= found.keys()
        if "id" in found:
            self.ids.append(found["id"])
        if tag not in VOID:
            self.open.append((tag, found.get("class", "")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop()[0] != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        classes = [name for _, name in self.open]
        if not data.isspace():
            self.words.append(data.strip())
        is_node = any(name.startswith("node ") for name in classes)
        if is_node and classes[-1].split()[:1] == ["name"]:
            self.names.append(data)


def snapshot_of(nodes: list[dict[str, Any]], **more: object) -> Snapshot:
    return Snapshot(statuses.NOW, statuses.status(nodes, **more)["master"], nodes)


def rendered(*nodes: dict[str, Any], **more: object) -> str:
    return page.render(snapshot_of(list(nodes), **more), History())


def row_of(name: str, text: str) -> str:
    """Return what the page shows of a node, without tags."""
    [found] = re.findall(
        f'<details class="node [a-z]+" data-n="[0-9]+" data-key="{name}">.*?</details>', text, re.DOTALL
    )
    return " ".join(Reader(found).words)


@pytest.mark.parametrize("count", [0, 1, 20, 200])
def test_every_node_has_a_row(count: int) -> None:
    nodes = statuses.fleet(count)
    read = Reader(page.render(snapshot_of(nodes), statuses.lived(nodes)))
    assert sorted(read.names) == sorted(node["name"] for node in nodes)
    assert read.tags.count("script") == read.tags.count("style") == 1


@pytest.mark.parametrize("count", [0, 1, 60])
def test_page_is_well_formed(count: int) -> None:
    nodes = statuses.fleet(count)
    text = page.render(snapshot_of(nodes), statuses.lived(nodes))
    assert text.startswith("<!doctype html>\n<html")
    read = Reader(text)
    assert (read.unbalanced, read.open) == ([], [])
    assert len(read.ids) == len(set(read.ids))


def test_page_is_valid_html(tmp_path: Path) -> None:
    for count in (0, 60):
        nodes = [*statuses.fleet(count), statuses.node(HOSTILE, "retrying", 9, reason=HOSTILE)]
        (tmp_path / f"{count}.html").write_text(page.render(snapshot_of(nodes), statuses.lived(nodes)))
    assert mistakes(tmp_path) == []


def test_page_of_two_hundred_nodes_is_small() -> None:
    nodes = statuses.fleet(200)
    assert len(page.render(snapshot_of(nodes), statuses.lived(nodes))) < 500_000


def test_nodes_in_trouble_stand_first_and_those_that_are_ok_are_one_line() -> None:
    trouble = [statuses.node(name, "retrying", 9.0, reason=f"connect to {name}: refused") for name in "ab"]
    text = rendered(*trouble, *(statuses.node(f"n{number}") for number in range(55)))
    groups = re.findall(r'<details class="group ([a-z]+)" data-key="[^"]*"( open)?>', text)
    assert groups == [("retrying", ""), ("ok", "")]
    assert "connect to …: refused" in text
    assert ">2 retrying<" in text
    assert ">55 ok<" in text


def test_few_nodes_are_shown_at_once() -> None:
    assert '<details class="group ok" data-key="ok " open>' in rendered(
        statuses.node("a"), statuses.node("b")
    )


def test_node_tells_since_when_its_events_lanes_throughput_and_commands() -> None:
    history, now = History(), statuses.NOW
    for number in range(10):
        history.add_points(Snapshot(0, {}, [statuses.node("a", bytes=number * 1_000_000)]))
    node = statuses.node("a", "retrying", 60.0, pending=16, big_files=2, big_files_percent=38)
    events = [
        (now - 3600, "state", "is ok after full for 2.0 s", 1),
        (now - 60, "state", "is retrying after ok: refused", 1),
        (now - 5, "failed", "Connection <refused>", 4),
    ]
    snapshot = snapshot_of([node])
    text = row_of("a", page.render(dataclasses.replace(snapshot, events={"a": events}), history))
    assert "Retrying since 1 min ago" in text
    assert "Throughput 100 kB/s in the last minute, 9.0 MB in the last hour" in text
    assert "Small files 14 changes waiting" in text
    assert "Big files 2 files under way, 38 %" in text
    assert "inosync -c /etc/inosync/default.py -s resync a" in text
    shown = ["5 s ago Connection <refused> (4 times)", "1 min ago is retrying", "1 h ago is ok after full"]
    at = [text.index(one) for one in shown]
    assert at == sorted(at)


@pytest.mark.parametrize(
    ("state", "texts", "since"),
    [
        ("ok", ["is ok after full for 3.0 s"], ("ok", 0.0)),
        ("syncing", ["is retrying: x", "is ok"], ("ok", 1.0)),
        ("syncing", ["full mirror started after starting"], ("full", 0.0)),
        ("full", ["is ok", "full mirror started"], ("full", 1.0)),
        ("retrying", ["is retrying: refused", "refused"], ("retrying", 0.0)),
        ("paused", ["is ok"], ("paused", None)),
        ("ok", [], ("ok", None)),
        ("ok", ["is "], ("ok", None)),
        ("okay", ["is ok"], ("okay", None)),
    ],
)
def test_since_is_the_last_change_to_the_state(
    state: str, texts: list[str], since: tuple[str, float | None]
) -> None:
    kinds = ("state" if text.startswith(("is ", "full ")) else "failed" for text in texts)
    events = [(float(at), kind, text, 1) for at, (kind, text) in enumerate(zip(kinds, texts, strict=True))]
    assert page.since({"state": state}, events) == since


def test_last_known_state_and_its_age_are_shown_without_an_answer() -> None:
    known = snapshot_of([statuses.node("a", "paused"), statuses.node("b")])
    down = Snapshot(statuses.NOW + 190, why="the daemon does not answer", before=known)
    text = page.render(down, History())
    words = " ".join(" ".join(Reader(text).words).split())
    assert "Inosync does not answer The daemon does not answer. Last known state, 3 min 10 s ago" in words
    assert "): 1 of 2 nodes behind" in words
    assert "Last success" in words
    assert "7 s ago" in words, "ages are those of the last known state"
    assert Reader(text).names == ["a", "b"]
    assert '<div id="nodes" class="stale">' in text


def test_lag_of_the_last_hour_has_an_axis() -> None:
    nodes = [statuses.node("a", "lagging", 40.0)]
    text = page.render(snapshot_of(nodes), statuses.lived(nodes))
    labels = {"Lag", "1 h", "5 min", "30 s", "3 s", "0", "60 min ago", "30 min ago", "now"}
    assert labels <= set(Reader(text).words)
    assert re.search(r'aria-label="Lag in the last hour: at most \d+ s"', text)
    assert '<use href="#axis"/>' in text


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
    assert ">Inosync does not answer</p>" in text
    assert "Not running: &lt;nobody&gt;. No state is known yet." in " ".join(text.split())


def test_warnings_stand_above_the_table() -> None:
    text = rendered(statuses.node("a"), refused=["line 3: no"], unwatched=2, unwatched_reason="sysctl x")
    assert "The configuration was not reloaded: line 3: no" in text
    assert "2 directories are not watched: sysctl x" in text


def test_page_of_a_fleet_shows_senders_and_what_is_wrong() -> None:
    nodes = [statuses.node("a", via="eu"), statuses.node("b", "lagging", 9.0, via=None), statuses.node("c")]
    status = statuses.status(nodes, fleet=statuses.FLEET)
    text = page.render(Snapshot(statuses.NOW, status["master"], status["nodes"]), History())
    words = " ".join(Reader(text).words)
    assert "via eu" in words
    assert "via no sender" in words
    assert text.count('class="via"') == 2
    assert "Sender us: it has not been heard of for a while" in words
    assert "Served by no sender: 1 node" in words
