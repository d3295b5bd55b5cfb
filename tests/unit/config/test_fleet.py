"""The settings of a fleet: what they come to on each machine, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import configs

from inosync import check
from inosync.config.errors import ConfigError, Invalid
from inosync.config.fleet import RedisAddress, redis_address, sender_names
from inosync.config.load import load

URL = "redis://queue.example.com/0"
EU = "{'node': 'eu-1:/srv/relay', 'name': 'eu-1'}"
SENDERS = f"[{EU}, {{'node': 'us-1::relay', 'name': 'us-1', 'path': '/r'}}]"


@pytest.fixture(autouse=True)
def wpath(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (None, None),
        (URL, RedisAddress(URL)),
        ("unix:///run/redis/redis.sock?db=1", RedisAddress("unix:///run/redis/redis.sock?db=1")),
        ({"url": URL}, RedisAddress(URL)),
        ({"url": URL, "name": "www", "password_file": "/p"}, RedisAddress(URL, "www", "/p")),
        (
            {"url": "redis+sentinel://a/web", "sentinel_user": "u", "sentinel_password_file": "/p"},
            RedisAddress("redis+sentinel://a/web", sentinel_user="u", sentinel_password_file="/p"),
        ),
        ("redis+sentinel://a,b:1/web/0", RedisAddress("redis+sentinel://a,b:1/web/0")),
        ("rediss://user@[2001:db8::1]:6380/0", RedisAddress("rediss://user@[2001:db8::1]:6380/0")),
    ],
)
def test_address_of_redis(value: object, address: RedisAddress | None) -> None:
    assert redis_address(value) == address


@pytest.mark.parametrize(
    "value",
    [
        "",
        "queue.example.com",
        "http://queue.example.com",
        "redis://",
        "redis:// a",
        5,
        {},
        {"url": URL, "name": "a b"},
        {"url": URL, "name": ""},
        {"url": URL, "password_file": "relative"},
        {"url": URL, "password": "s3cret"},
        {"url": URL, "sentinel_password_file": "/p"},
        {"url": URL, "sentinel_user": "u"},
        {"url": "redis+sentinel://a/web", "sentinel_user": "u"},
        {"url": "redis+sentinel://a/web", "sentinel_password_file": "relative"},
        {"url": "redis+sentinel://a/web", "sentinel_password": "s3cret"},
        "redis://user:s3cret@queue.example.com/0",
        "redis://:s3cret@queue.example.com/0",
        "unix:///run/redis.sock?password=s3cret",
        "redis://queue.example.com/0?db=1&password=s3cret",
        "rediss:s3cret",
        "redis+sentinel://u:s3cret@a,b/web",
        "redis+sentinel://a,b/web?password=s3cret",
        "redis+sentinel://a,b",
        "redis+sentinel://u:s3cret@a b/web",
    ],
)
def test_address_that_is_none_is_refused_without_its_password(value: object) -> None:
    with pytest.raises(Invalid) as refused:
        redis_address(value)
    assert "s3cret" not in str([(one.value, one.problem, one.hint) for one in refused.value.problems])


@pytest.mark.parametrize("value", ["eu-1", [1], None, {"a": 1}])
def test_senders_of_a_node_are_a_list_of_names(value: object) -> None:
    with pytest.raises(Invalid):
        sender_names(value)


def fleet(**values: str) -> str:
    given = {"fleet": repr(URL), "rsenders": SENDERS, "rnodes": "['h:/x', {'node': '/mnt/b', 'senders': []}]"}
    return configs.write(configs.text(**(given | values)))


def test_origin_has_the_senders_and_its_own_nodes() -> None:
    config = load(fleet())
    assert [node.name for node in config.nodes] == ["eu-1", "us-1", "/mnt/b"]
    assert config.fleet is not None
    assert [node.name for node in config.fleet.nodes] == ["h:/x"]
    assert (config.fleet.me, config.fleet.senders) == ("", ("eu-1", "us-1"))
    [tree] = config.trees
    temporary = {node.name: config.rsync_settings(node, tree).extra for node in config.nodes}
    assert temporary == {
        "eu-1": ("--temp-dir=/srv/relay/.inosync",),
        "us-1": ("--temp-dir=/.inosync",),
        "/mnt/b": (),
    }


@pytest.mark.parametrize(("name", "copy"), [("eu-1", "/srv/relay/www"), ("us-1", "/r/www")])
def test_sender_has_its_copies_as_trees_and_keeps_no_state(name: str, copy: str) -> None:
    path, origin = fleet(rnodes="['h:/x']"), load(fleet(rnodes="['h:/x']"))
    os.rmdir("a")  # the wpath is on the origin only
    config = load(path, name)
    assert ([tree.wpath for tree in config.trees], config.nodes, config.statedir) == ([copy], (), "")
    assert config.fleet is not None
    assert origin.fleet is not None
    assert config.fleet.me == name
    assert config.fleet.fingerprint == origin.fleet.fingerprint


def test_node_with_wpaths_of_its_own_gets_their_copies_from_a_sender() -> None:
    Path("b").mkdir()
    here = os.getcwd()
    nodes = f"['h:/x', {{'node': 'i:/x', 'wpaths': ['{here}/b/']}}]"
    path = fleet(wpaths=f"['{here}/a/', '{here}/b/']", rpaths="['/www', '/data']", rnodes=nodes)
    for name in ("a", "b"):
        os.rmdir(name)
    config = load(path, "eu-1")
    assert config.fleet is not None
    got = {node.name: [tree.wpath for tree in config.trees if node.gets(tree)] for node in config.fleet.nodes}
    assert got == {"h:/x": ["/srv/relay/www", "/srv/relay/data"], "i:/x": ["/srv/relay/data"]}


@pytest.mark.parametrize(
    ("more", "copy"),
    [
        ("", "the wpath"),
        (", 'path': '/mnt'", "/mnt/www"),
        (", 'node': 'eu-1:/nfs'", "/nfs/www"),
        (", 'node': 'eu-1:'", "/www"),
        (", 'node': 'eu-1::module'", "the wpath"),
        (", 'node': 'eu-1:/nfs', 'path': '/mnt'", "/mnt/www"),
    ],
)
def test_shared_storage_is_where_it_is_said_and_nothing_is_sent_there(more: str, copy: str) -> None:
    """The sender has it where the origin does, if nothing else is said."""
    path = fleet(rsenders=f"[{EU}, {{'name': 'nas', 'shared': True{more}}}]")
    origin, sender = load(path), load(path, "nas")
    assert origin.fleet is not None
    assert sender.fleet is not None
    assert [node.name for node in origin.nodes] == ["eu-1", "/mnt/b"]
    assert [node.name for node in origin.watched_for] == ["eu-1", "/mnt/b", "nas"]
    assert origin.fleet.senders == ("eu-1", "nas")
    assert (origin.fleet.shares_storage, sender.fleet.shares_storage) == (False, True)
    assert origin.fleet.temporary.keys() == {("eu-1", origin.trees[0].wpath)}
    expected = origin.trees[0].wpath if copy == "the wpath" else copy
    assert [tree.wpath for tree in sender.trees] == [expected]
    other = load(fleet(rsenders=f"[{EU}, {{'name': 'nas', 'node': 'nas:/', 'path': '/r'}}]")).fleet
    assert other is not None
    assert other.fingerprint != origin.fleet.fingerprint == sender.fleet.fingerprint


def test_origin_of_senders_with_shared_storage_alone_watches_for_them() -> None:
    path = fleet(
        rsenders="[{'name': 'nas', 'shared': True}]",
        rnodes="['h:/x']",
        rexcludes="['*.tmp']",
    )
    config = load(path)
    assert config.nodes == ()
    [spec] = config.watched_for
    assert [rule.pattern for rule in spec.rules(config.trees[0])] == [b"*.tmp"]
    assert dict(check.resulting_settings(config))["rsenders"] == (
        "nas (shared storage: nothing is sent to it)"
    )


@pytest.mark.parametrize(
    "other",
    [
        {"rnodes": "['h:/x', 'i:/x']"},
        {"rpaths": "['/web']"},
        {"rexcludes": "['*.tmp']"},
        {"fleet": f"{{'url': {URL!r}, 'name': 'other'}}"},
        {"rsenders": f"[{EU}]"},
    ],
)
def test_fingerprint_is_another_one_if_anything_shared_is(other: dict[str, str]) -> None:
    one, two = load(fleet(rnodes="['h:/x']")).fleet, load(fleet(**({"rnodes": "['h:/x']"} | other))).fleet
    assert one is not None
    assert two is not None
    assert one.fingerprint != two.fingerprint


def test_without_fleet_nothing_of_it_is_there() -> None:
    config = configs.config()
    assert config.fleet is None
    assert config.rsync_settings(config.nodes[0], config.trees[0]).extra == ()


@pytest.mark.parametrize(
    ("values", "sender", "expected"),
    [
        ({"fleet": ""}, "", "rsenders are set, but there is no fleet"),
        ({"fleet": "", "rsenders": ""}, "eu-1", "--sender is given, but there is no fleet"),
        ({"fleet": "", "rsenders": ""}, "", "has senders, but there is no fleet"),
        ({}, "eu-9", "'eu-9': is no sender; there are eu-1, us-1"),
        ({"rnodes": "[{'node': 'h:/x', 'senders': ['eu-9']}]"}, "", "'eu-9': is no sender"),
        ({"rnodes": "[{'node': 'h:/x', 'name': 'eu-1'}]"}, "", "is the name of a sender, too"),
        ({"rnodes": "[{'node': 'h:/x', 'rexcludes': ['+ /a']}]"}, "", "includes something of its own"),
        ({"rdelete": "False"}, "", "does not go together with fleet"),
        ({"rsenders": "['us-1::relay']"}, "", "does not say where the copies are"),
        ({"rsenders": "[{'node': 'e:/r', 'name': 'a b'}]"}, "", "is no name of a sender"),
        ({"rsenders": "['e:/r', 'e:/r']"}, "", "is there twice"),
        ({"rsenders": "[{'node': 'e:/r', 'wpaths': []}]"}, "", "is not known in rsenders"),
        ({"rsenders": "[{'node': 'e:/r', 'path': 'r'}]"}, "", "is no absolute path"),
        ({"rsenders": "[{'shared': True}]"}, "", "is not a name"),
        ({"rsenders": "[{'name': 'a b', 'shared': True}]"}, "", "is no name of a sender"),
        ({"rsenders": "[{'name': 'eu-1', 'shared': False}]"}, "", "is not a string"),
        ({"rsenders": "[{'name': 'eu-1', 'shared': 'yes'}]"}, "", "is not a string"),
        ({"rsenders": "[{'node': 'e:/r', 'shared': 1}]"}, "", "shared of 'e:/r'"),
        (
            {"rsenders": "[{'node': 'us-1::', 'path': '/r'}]", "rpaths": "['relay']"},
            "",
            "is the whole module",
        ),
        ({"rstages": "[['h:/x'], ['/mnt/b']]"}, "", "stages do not go together with fleet"),
    ],
)
def test_mistake_in_a_fleet_has_one_clear_line(values: dict[str, str], sender: str, expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(fleet(**values), sender)
    assert expected in str(refused.value)
