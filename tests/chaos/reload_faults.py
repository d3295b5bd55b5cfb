"""SIGHUP with other settings, and later with those of the beginning."""

from __future__ import annotations

from collections.abc import Callable

from chaos.faults import Draw, Happened, Kind, Lasting, Once, free
from chaos.orphans import settle
from chaos.testbed import World

Settings = dict[str, object]
REFUSED = "the old configuration stays in force"


def _items(world: World) -> list[dict[str, object]]:
    return [node.item(world.sources) for node in world.nodes.values()]


def _slow(_world: World, draw: Draw) -> tuple[str, Settings]:
    limit = 2000 + int(draw.which * 8000)
    return f"rspeed {limit}", {"rspeed": limit}


def _more_excluded(world: World, draw: Draw) -> tuple[str, Settings]:
    pattern = ("b", "/a", "*.new", "[a-c]")[int(draw.which * 4)]
    given = world.settings["rexcludes"]
    assert isinstance(given, dict)
    return f"{pattern} excluded", {"rexcludes": {**given, "*": [pattern]}}


def _more_excluded_at_a_node(world: World, draw: Draw) -> tuple[str, Settings]:
    items = _items(world)
    item = items[int(draw.which * len(items))]
    given = item.get("rexcludes", [])
    assert isinstance(given, list)
    item["rexcludes"] = ["/d", *given]
    return f"{item['name']} excludes /d", {"rnodes": items}


def _cold(_world: World, _draw: Draw) -> tuple[str, Settings]:
    return "rwarm off", {"rwarm": False}


def _patient(_world: World, draw: Draw) -> tuple[str, Settings]:
    edelay, equiet = 0.2 + draw.which * 3, draw.which * 0.2
    return f"edelay {edelay:.1f}", {"edelay": edelay, "equiet": equiet}


def _few_slots(_world: World, _draw: Draw) -> tuple[str, Settings]:
    return "rslots 1", {"rslots": 1}


def _events(_world: World, _draw: Draw) -> tuple[str, Settings]:
    events = ["IN_CLOSE_WRITE", "IN_CREATE", "IN_DELETE", "IN_MOVE", "IN_ATTRIB", "IN_MODIFY"]
    return "IN_MODIFY, too", {"emask": events}


WAYS: list[Callable[[World, Draw], tuple[str, Settings]]] = [
    _slow,
    _more_excluded,
    _more_excluded_at_a_node,
    _cold,
    _patient,
    _few_slots,
    _events,
]


def changed(world: World, draw: Draw) -> Happened:
    """Other settings for a while, with which everything goes on."""
    resource = free(world, "configuration")
    told, settings = draw.one_of(WAYS)(world, draw)
    world.reload(settings)
    return Lasting(resource, world.reload, told=told)


def removed(world: World, draw: Draw) -> Happened:
    """A node is taken out, and put in again later."""
    resource = free(world, "configuration")
    node = draw.among(sorted(world.nodes))
    world.reload({"rnodes": [item for item in _items(world) if item["name"] != node]})

    def put_in() -> None:
        settle(world, [node])
        world.reload()

    return Lasting(resource, put_in, frozenset({node}), node)


def refused(world: World, _draw: Draw) -> Happened:
    """A file with a mistake in it changes nothing."""
    text = world.daemon.file.read_text()
    since = len(world.daemon.log())
    world.daemon.configure(text + "rspeed = 'fast'\n")
    try:
        world.daemon.hup()
        world.daemon.until_logged(REFUSED, since=since)
    finally:
        world.daemon.configure(text)
    world.reload_file()
    return Once(frozenset())


KINDS = [
    Kind("other settings", 8, changed, compares=True),
    Kind("node removed", 3, removed, compares=True),
    Kind("mistake in the settings", 1, refused),
]
