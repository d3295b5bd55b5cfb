"""Whole configuration files: what is taken of them, and the mistakes that several settings make together."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import configs
from support.configs import config, good, mistakes, text, write

from inosync.config.errors import ConfigError
from inosync.config.load import Config, load
from inosync.config.nodes import NodeSpec, Tree
from inosync.config.paths import default_statedir
from inosync.config.settings import REQUIRED, SETTINGS
from inosync.config.timetable import constant

DEFAULT_FILE = Path(__file__).parents[3] / "conf" / "default.py"

# What is taken ---------------------------------------------------------------------------------------


def test_defaults_are_used_for_what_is_not_set(here: Path) -> None:
    taken = config()
    assert taken == Config(
        path="conf.py",
        trees=(Tree(str(here / "a"), "/www", ()),),
        nodes=(NodeSpec("h:", "h", constant(0), (), (), 300, rverify=86_400),),
        emask=frozenset(
            ("IN_CLOSE_WRITE", "IN_CREATE", "IN_DELETE", "IN_MOVED_FROM", "IN_MOVED_TO", "IN_ATTRIB")
        ),
        equiet=0.01,
        rsync=str(here / "rsync"),
        rslots=2 * (os.cpu_count() or 1),
        rundir="/run/inosync" if os.geteuid() == 0 else "/run/user/1000/inosync",
        statedir=default_statedir(),
        **configs.DEFAULTS,
    )


def test_wpath_that_no_node_gets_is_warned_of_and_not_watched(here: Path) -> None:
    taken = config(wpaths="['a/', 'b/']", rpaths="['/x', '/y']", rnodes="[{'node': 'h:', 'wpaths': ['b']}]")
    assert [tree.wpath for tree in taken.trees] == [str(here / "b")]
    assert any(f"{str(here / 'a')!r}: is mirrored to no node" in warning for warning in taken.warnings)


def test_warnings_name_what_looks_unintended(here: Path) -> None:
    inside = repr(str(here / "a/x"))
    assert "inside the wpath" in config(logfile=inside).warnings[0]
    assert "inside the wpath" in config(rundir=inside).warnings[0]
    (warning,) = config(wpaths=repr([str(here / "a")])).warnings
    assert "0.2.3 made '/www/a' of it" in warning


@pytest.mark.usefixtures("here")
def test_relative_wpath_is_warned_of() -> None:
    text = "'a/': is taken from the directory where inosync was started"
    assert config(wpaths="['a/']").warnings == (f"wpaths: {text}",)
    assert load(write("wpath = 'a/'\nrnodes = ['h:/srv']\n")).warnings == (f"wpath: {text}",)


def test_link_to_a_directory_can_be_a_wpath(here: Path) -> None:
    (here / "link").symlink_to("a")
    assert config(wpaths="['link/']").trees[0].wpath == str(here / "link")


# What is refused -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("here")
def test_all_mistakes_of_a_file_are_reported_with_their_lines() -> None:
    source = (
        "rspeed = 1\nwpaths = ['nowhere', 'file']\nrpaths = ['/', 3]\n"
        "rnodes = ['-x', {'node': 'h'}, {'node': 'i:', 'rspeed': -1}, 'i:']\n"
        "rexclude = []\nedelay = -1\nemask = ['X']\nrguard = 1\nif True:\n    rspeed = -1\n"
        "def f():\n    rspeed = 0\n"
    )
    found = mistakes(source)
    places = [line.split(": ")[0] + ": " + line.split(": ")[1] for line in found]
    assert places == [
        "conf.py:5: rexclude",
        "conf.py:2: wpaths",
        "conf.py:3: rpaths",
        "conf.py:4: rnodes",
        "conf.py:4: rnodes",
        "conf.py:4: rnodes",
        "conf.py:7: emask",
        "conf.py:6: edelay",
        "conf.py:8: rguard",
        "conf.py:10: rspeed",
        "conf.py:2: wpaths",
        "conf.py:4: rnodes",
        "conf.py:4: rnodes",
    ]


# Whatever a file sets --------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=4)
    | st.sampled_from(
        [
            "a",
            "b/",
            "h:",
            "h::",
            "/",
            "*",
            "rsync://u:p@h/m",
            "IN_CREATE",
            "from",
            "/x",
            "- ",
            "node",
            "rspeed",
        ]
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda some: (
        st.lists(some, max_size=3)
        | st.tuples(some, some)
        | st.dictionaries(
            SCALARS | st.sampled_from(["node", "name", "extra", "rexcludes", "from"]), some, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*SETTINGS, "wpath", "rpath", "zzz"]), VALUES, max_size=6))
def test_arbitrary_values_end_in_a_config_or_in_mistakes(here: Path, values: dict[str, Any]) -> None:
    assert here.is_dir()
    names = good() | {name: f"_values[{name!r}]" for name in values}
    path = write("from inosync_test_values import values as _values\n" + text(**names))
    sys.modules["inosync_test_values"] = type(sys)("inosync_test_values")
    sys.modules["inosync_test_values"].__dict__["values"] = values
    try:
        load(path)
        error = None
    except ConfigError as raised:
        error = raised
    finally:
        del sys.modules["inosync_test_values"]
    assert error is None or len(str(error).splitlines()) == len(error.problems) > 0


# The reference file ----------------------------------------------------------------------------------


def uncommented(source: str) -> str:
    """The file with every setting that is commented out put into force."""
    lines, inside = [], False
    for line in source.splitlines():
        match = re.match(r"# ([a-z_]+) = ", line)
        starts = match is not None
        lines.append(line.removeprefix("# ") if starts or inside else line)
        inside = line.endswith("[") if starts else inside and line != "# ]"
    return "\n".join(lines)


def test_reference_file_shows_every_setting_with_its_default(here: Path) -> None:
    source = DEFAULT_FILE.read_text()
    shown = set(re.findall(r"^(?:# )?([a-z_]+) = ", source, re.MULTILINE))
    assert shown == set(SETTINGS)
    required = {name for name, setting in SETTINGS.items() if setting.default is REQUIRED}
    assert set(re.findall(r"^([a-z_]+) = ", source, re.MULTILINE)) == required
    set_in_file: dict[str, object] = {}
    exec(uncommented(source), {}, set_in_file)
    assert set(set_in_file) == set(SETTINGS)
    for name in set_in_file.keys() - required - {"rsync"}:
        check = SETTINGS[name].check
        assert check(set_in_file[name]) == check(SETTINGS[name].default), name
    assert set_in_file["rsync"] == "/usr/bin/rsync"

    there = source.replace('    "/var/www/",', f'    "{here}/a/",', 1).replace(
        '    "/srv/downloads/",', f'    "{here}/b/",', 1
    )
    as_shipped = load(write(there))
    in_force = load(write(uncommented(there).replace("/usr/bin/rsync", str(here / "rsync"))))
    assert in_force == as_shipped
    assert as_shipped.warnings == ()
    assert [node.name for node in as_shipped.nodes] == ["user1@a.mirror.com", "user2@b.mirror.com", "c"]
