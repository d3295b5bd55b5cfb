"""Faults by SIGHUP with other settings, healed by SIGHUP with the usual ones."""

from __future__ import annotations

from collections.abc import Callable

from chaos.faults import Draw, Happened, Kind, Lasting, Once, free
from chaos.orphans import settle
from chaos.testbed import Testbed

Settings = dict[str, object]
REFUSED = "the old configuration stays in force"


def _items(testbed: Testbed) -> list[dict[str, object]]:
    return [node.item(testbed.sources) for node in testbed.nodes.values()]


def _slow(_world: Testbed, draw: Draw) -> tuple[str, Settings]:
    limit = 2000 + int(draw.which * 8000)
    return f"rspeed {limit}", {"rspeed": limit}


def _more_excluded(testbed: Testbed, draw: Draw) -> tuple[str, Settings]:
    pattern = ("b", "/a", "*.new", "[a-c]")[int(draw.which * 4)]
    given = testbed.settings["rexcludes"]
    assert isinstance(given, dict)
    return f"{pattern} excluded", {"rexcludes": {**given, "*": [pattern]}}


def _more_excluded_at_a_node(testbed: Testbed, draw: Draw) -> tuple[str, Settings]:
    items = _items(testbed)
    item = items[int(draw.which * len(items))]
    given = item.get("rexcludes", [])
    assert isinstance(given, list)
    item["rexcludes"] = ["/d", *given]
    return f"{item['name']} excludes /d", {"rnodes": items}


def _cold(_world: Testbed, _draw: Draw) -> tuple[str, Settings]:
    return "rwarm off", {"rwarm": False}


def _patient(_world: Testbed, draw: Draw) -> tuple[str, Settings]:
    edelay, equiet = 0.2 + draw.which * 3, draw.which * 0.2
    return f"edelay {edelay:.1f}", {"edelay": edelay, "equiet": equiet}


def _few_slots(_world: Testbed, _draw: Draw) -> tuple[str, Settings]:
    return "rslots 1", {"rslots": 1}


def _events(_world: Testbed, _draw: Draw) -> tuple[str, Settings]:
    events = ["IN_CLOSE_WRITE", "IN_CREATE", "IN_DELETE", "IN_MOVE", "IN_ATTRIB", "IN_MODIFY"]
    return "IN_MODIFY, too", {"emask": events}


WAYS: list[Callable[[Testbed, Draw], tuple[str, Settings]]] = [
    _slow,
    _more_excluded,
    _more_excluded_at_a_node,
    _cold,
    _patient,
    _few_slots,
    _events,
]


def changed(testbed: Testbed, draw: Draw) -> Happened:
    """Change settings for a while; all nodes go on."""
    resource = free(testbed, "configuration")
    description, settings = draw.one_of(WAYS)(testbed, draw)
    testbed.reload(settings)
    return Lasting(resource, testbed.reload, description=description)


def removed(testbed: Testbed, draw: Draw) -> Happened:
    """Remove a node, and add it again later."""
    resource = free(testbed, "configuration")
    node = draw.among(sorted(testbed.nodes))
    testbed.reload({"rnodes": [item for item in _items(testbed) if item["name"] != node]})

    def put_in() -> None:
        settle(testbed, [node])
        testbed.reload()

    return Lasting(resource, put_in, frozenset({node}), node)


def refused(testbed: Testbed, _draw: Draw) -> Happened:
    """Reload a file with a mistake, which changes nothing."""
    free(testbed, "stderr")  # the log tells of the refusal
    text = testbed.daemon.file.read_text()
    since = len(testbed.daemon.log())
    testbed.daemon.configure(text + "rspeed = 'fast'\n")
    try:
        testbed.daemon.hup()
        testbed.daemon.until_logged(REFUSED, since=since)
    finally:
        testbed.daemon.configure(text)
    testbed.reload_file()
    return Once(frozenset())


KINDS = [
    Kind("other settings", 8, changed, compares=True),
    Kind("node removed", 3, removed, compares=True),
    Kind("mistake in the settings", 1, refused),
]
