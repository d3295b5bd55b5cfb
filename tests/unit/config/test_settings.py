"""Every setting: other ways to write its value, and what is refused with which words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.configs import config, mistakes, refused, text, write

from inosync.config.listen import Address
from inosync.config.load import load
from inosync.config.timetable import Timetable, constant


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "value", "field", "taken"),
    [
        ("rspeed", "10.0", None, constant(10)),
        ("rspeed", "'18:00,0 8:00,512'", None, Timetable(((480, 512), (1080, 0)))),
        ("rslots", "3", "rslots", 3),
        ("rretry", "[2, 2]", "rretry", (2, 2)),
        ("rdelete", "False", "rdelete", False),
        ("rdelete", "'startup'", "rdelete", "startup"),
        ("rdelete", "'running'", "rdelete", "running"),
        ("rlisten", "'127.0.0.1:9187'", "rlisten", Address("127.0.0.1", 9187)),
        ("rlisten", "''", "rlisten", None),
        ("logfile", "''", "logfile", None),
        ("rundir", "'/tmp/x/'", "rundir", "/tmp/x"),
        ("edelay", "0.01", "equiet", 0.01),
        ("emask", "('IN_MOVE',)", "emask", frozenset({"IN_MOVED_FROM", "IN_MOVED_TO"})),
        ("emask", "{'IN_CREATE', 'IN_DELETE'}", "emask", frozenset({"IN_CREATE", "IN_DELETE"})),
    ],
)
def test_values_can_be_written_in_other_ways(name: str, value: str, field: str | None, taken: object) -> None:
    got = config(**{name: value})
    assert (getattr(got, field) if field else got.nodes[0].rspeed) == taken


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("events", "left", "dropped"),
    [
        ("['IN_CLOSE']", {"IN_CLOSE_WRITE"}, ["IN_CLOSE_NOWRITE"]),
        ("['IN_OPEN', 'IN_CREATE']", {"IN_CREATE"}, ["IN_OPEN"]),
        ("['IN_ALL_EVENTS']", None, ["IN_ACCESS", "IN_CLOSE_NOWRITE", "IN_OPEN"]),
    ],
)
def test_events_that_rsync_causes_are_left_out(
    events: str, left: set[str] | None, dropped: list[str]
) -> None:
    taken = config(emask=events)
    assert not taken.emask & {"IN_ACCESS", "IN_CLOSE_NOWRITE", "IN_OPEN"}
    assert taken.emask == left if left else len(taken.emask) == 9
    assert all(event in warning for event, warning in zip(dropped, taken.warnings, strict=True))


BAD: list[tuple[dict[str, str], str]] = [
    # wpaths
    ({"wpaths": ""}, "wpaths: is missing; write wpaths ="),
    ({"wpaths": "[]"}, "wpaths: []: is empty; write wpaths ="),
    ({"wpaths": "'a'"}, "wpaths: 'a': is not a list"),
    ({"wpaths": "None"}, "wpaths: None: is not a list"),
    ({"wpaths": "[1]"}, "wpaths: 1: is not a string"),
    ({"wpaths": "['']"}, "wpaths: '': is empty"),
    ({"wpaths": "['nowhere']"}, "wpaths: 'nowhere': does not exist; make it, correct the path, or set rwait"),
    ({"wpaths": "['no\\nwhere']"}, r"wpaths: 'no\nwhere': does not exist"),
    ({"wpaths": "['x\\0']"}, r"wpaths: 'x\x00': has a character"),
    ({"wpaths": "['\\ud800']"}, r"wpaths: '\ud800': has a character"),
    ({"wpaths": "['x' * 300]"}, "cannot be read: File name too long"),
    ({"wpaths": "['file']"}, "wpaths: 'file': is not a directory"),
    ({"wpaths": "['file/x']"}, "wpaths: 'file/x': cannot be read: Not a directory"),
    ({"wpaths": "['a/', 'a']", "rpaths": "['/x', '/y']"}, "wpaths: 'a': is the same directory as 'a/'"),
    ({"wpaths": "['a/sub/', 'a/']", "rpaths": "['/x', '/y']"}, "wpaths: 'a/sub/': lies inside 'a/'"),
    ({"wpaths": "['a/', '/']", "rpaths": "['/x', '/y']"}, "wpaths: 'a/': lies inside '/'"),
    # rpaths
    ({"rpaths": ""}, "rpaths: is missing; write rpaths ="),
    ({"rpaths": "[]"}, "rpaths: []: is empty"),
    ({"rpaths": "['/x', '/y']"}, "rpaths: ['/x', '/y']: 1 wpaths but 2 rpaths; write one for each wpath"),
    ({"wpaths": "['a/', 'nowhere']"}, "rpaths: ['/www']: 2 wpaths but 1 rpaths"),
    ({"rpaths": "[None]"}, "rpaths: None: is not a string"),
    ({"rpaths": "['\\0']"}, r"rpaths: '\x00': has a character"),
    # rnodes
    ({"rnodes": ""}, "rnodes: is missing; write rnodes ="),
    ({"rnodes": "[]"}, "rnodes: []: is empty; write rnodes ="),
    ({"rnodes": "'h:'"}, "rnodes: 'h:': is not a list"),
    ({"rnodes": "[3]"}, "rnodes: 3: is not a string"),
    ({"rnodes": "['-h:']"}, "rnodes: '-h:': starts with '-'"),
    ({"rnodes": "['h']"}, "rnodes: 'h': is a local path that is not absolute; write 'h:' if it is a host"),
    (
        {"rpaths": "['/']"},
        "rnodes: 'h:': with rpath '/': this is the root directory of the node; write an abs",
    ),
    ({"rpaths": "['']"}, "rnodes: 'h:': with rpath '': this is the home directory of the node's user; write"),
    ({"rnodes": "['h:', 'h:']"}, "rnodes: 'h:': is there twice"),
    (
        {"rnodes": "['h:', 'h:/']"},
        "rnodes: 'h:/': has the same name as 'h:': 'h'; write {\"node\": 'h:/', \"na",
    ),
    ({"rnodes": "[{'name': 'x'}]"}, "rnodes: {'name': 'x'}: has no 'node'; write"),
    ({"rnodes": "[{'node': None}]"}, "rnodes: None: is not a string"),
    ({"rnodes": "[{'node': 'h:', 'name': 'x\\n'}]"}, r"rnodes: name of 'h:': 'x\n': is not a name"),
    ({"rnodes": "[{'node': 'h:', 'name': ''}]"}, "rnodes: name of 'h:': '': is not a name"),
    ({"rnodes": "[{'node': 'h:', 'rspeed': -1}]"}, "rnodes: rspeed of 'h:': -1: is negative"),
    ({"rnodes": "[{'node': 'h:', 'rspeed': '8:00,x'}]"}, "rnodes: rspeed of 'h:': '8:00,x': the speed is"),
    ({"rnodes": "[{'node': 'h:', 'extra': 1}]"}, "rnodes: extra of 'h:': 1: is not a string"),
    ({"rnodes": "[{'node': 'h:', 'rtimeout': 0}]"}, "rnodes: rtimeout of 'h:': 0: is out of range"),
    ({"rnodes": "[{'node': 'h:', 'rexcludes': 'x'}]"}, "rnodes: rexcludes of 'h:': 'x': is not a list"),
    ({"rnodes": "[{'node': 'h:', 'rexclude': []}]"}, "rnodes: in 'h:': 'rexclude': did you mean rexcludes?"),
    ({"rnodes": "[{'node': 'h:', 3: 4}]"}, "rnodes: in 'h:': 3: there is no setting of this name"),
    ({"rnodes": "[{'node': 'h:', 'wpaths': []}]"}, "rnodes: wpaths of 'h:': []: is empty"),
    (
        {"rnodes": "[{'node': 'h:', 'wpaths': ['/nowhere']}]"},
        "rnodes: wpaths of 'h:': '/nowhere': is no wpath; write one of [",
    ),
    (
        {"rnodes": "[{'node': 'h:', 'rwarm': 'no'}]"},
        "rnodes: rwarm of 'h:': 'no': is neither True, False nor a whole number; write one of them",
    ),
    ({"rnodes": "['rsync://u:secret@h/m']"}, "rnodes: 'rsync://u@h/m': has a password in it"),
    # rexcludes
    ({"rexcludes": "'x'"}, "rexcludes: 'x': is not a list"),
    ({"rexcludes": "['']"}, "rexcludes: '': is not a pattern"),
    ({"rexcludes": "[1]"}, "rexcludes: 1: is not a pattern"),
    ({"rexcludes": "['- ']"}, "rexcludes: '- ': a pattern is missing; write an rsync pattern such as"),
    ({"rexcludes": "['x' * 4096]"}, "the pattern is longer than 4095 bytes"),
    ({"rexcludes": "{'a': ['+ ']}"}, "rexcludes: for 'a': '+ ': a pattern is missing"),
    ({"rnodes": "[{'node': 'h:', 'rexcludes': ['- ']}]"}, "rnodes: rexcludes of 'h:': '- ': a pattern is"),
    ({"rexcludes": "['a\\nb']"}, r"rexcludes: 'a\nb': has a newline in it"),
    ({"rexcludes": "['a\\0b']"}, r"rexcludes: 'a\x00b': has a character"),
    ({"rexcludes": "{'b': []}"}, "rexcludes: 'b': is no wpath; write one of ["),
    ({"rexcludes": "{1: []}"}, "rexcludes: 1: is not a wpath"),
    ({"rexcludes": "{'a': 'x'}"}, "rexcludes: for 'a': 'x': is not a list"),
    ({"rexcludes": "{'from': 'x'}"}, 'rexcludes: \'x\': is not an absolute path; write {"from": "/etc/'),
    ({"rexcludes": "{'from': 1}"}, "rexcludes: 1: is not a string"),
    (
        {"rexcludes": "{'from': '/x', '*': []}"},
        "rexcludes: {'*': [], 'from': '/x'}: is neither a pattern nor",
    ),
    ({"rexcludes": "[{'form': '/x'}]"}, "rexcludes: {'form': '/x'}: is neither a pattern nor a file; write"),
    ({"rexcludes": "[{}]"}, "rexcludes: {}: is neither a pattern nor a file"),
    ({"rexcludes": "{'a': [{'from': ''}]}"}, "rexcludes: for 'a': '': is not an absolute path"),
    # extra
    ({"extra": "1"}, "extra: 1: is not a string"),
    ({"extra": "'\"'"}, "extra: '\"': cannot be split as a shell would: No closing quotation"),
    ({"extra": "[1]"}, "extra: 1: is not a string"),
    ({"extra": "['-v\\0']"}, r"extra: '-v\x00': has a character"),
    ({"extra": "'-n'"}, "extra: '-n': -n: nothing would be transferred"),
    ({"extra": "['-v', '--filter', 'x a']"}, "--filter: 'x a': unknown kind of rule; expected one of"),
    (
        {"rnodes": "[{'node': 'h:', 'extra': '-C'}]"},
        "rnodes: extra of 'h:': '-C': -C: files of rules in each",
    ),
    ({"extra": "'--delete'", "rdelete": "False"}, "extra: '--delete': deletes always, but rdelete is False;"),
    (
        {"rnodes": "[{'node': 'h:', 'extra': ['--delete-excluded']}]", "rdelete": "'running'"},
        "rnodes: extra of 'h:': '--delete-excluded': deletes always, but rdelete is 'running'; leave",
    ),
    # numbers
    ({"rspeed": "-1"}, "rspeed: -1: is negative; write a whole number of KB/s, 0 or more"),
    ({"rspeed": "True"}, "rspeed: True: is not a number"),
    (
        {"rspeed": "'1'"},
        "rspeed: '1': is neither a number nor a timetable; write a whole number",
    ),
    ({"rspeed": "'08:00,512 24:00,0'"}, "rspeed: '24:00,0': there is no such time; write one from 00:00 to"),
    (
        {"rspeed": "'08:00,512 18:00,-1'"},
        "rspeed: '18:00,-1': the speed is negative; write a whole number of",
    ),
    (
        {"rspeed": "'08:00,5 18:00,0 8:00,5'"},
        "rspeed: '8:00,5': has the same time as '08:00,5'; leave",
    ),
    ({"rspeed": "1.5"}, "rspeed: 1.5: is not a whole number"),
    ({"rspeed": "10 ** 400"}, "is out of range"),
    ({"rspeed": "10 ** 6000"}, "rspeed: <int>: is out of range"),
    ({"rspeed": "float('inf')"}, "rspeed: inf: is out of range"),
    ({"rspeed": "float('nan')"}, "rspeed: nan: is out of range"),
    ({"edelay": "-1"}, "edelay: -1: is negative; write a number of seconds, 0 or more"),
    ({"edelay": "None"}, "edelay: None: is not a number"),
    ({"edelay": "int"}, "edelay: <class 'int'>: is not a number"),
    ({"equiet": "-0.1"}, "equiet: -0.1: is negative"),
    ({"equiet": "11"}, "equiet: 11: is more than edelay, 10"),
    ({"equiet": "2", "edelay": "1"}, "equiet: 2: is more than edelay, 1"),
    ({"rtimeout": "0"}, "rtimeout: 0: is out of range; write a number of seconds, more than 0"),
    ({"rslots": "-1"}, "rslots: -1: is negative"),
    ({"rslots": "1.5"}, "rslots: 1.5: is not a whole number"),
    ({"rretry": "5"}, "rretry: 5: is not a pair"),
    ({"rretry": "(1, 2, 3)"}, "rretry: (1, 2, 3): is not a pair"),
    ({"rretry": "(2, 1)"}, "rretry: (2, 1): the first delay is longer than the longest"),
    ({"rretry": "(0, 1)"}, "rretry: 0: is out of range"),
    ({"rretry": "(-1, 1)"}, "rretry: -1: is negative"),
    # emask
    ({"emask": "[]"}, "emask: []: is empty"),
    ({"emask": "'IN_CREATE'"}, "emask: 'IN_CREATE': is not a list"),
    ({"emask": "['IN_CREATED']"}, "emask: 'IN_CREATED': is not an event; did you mean IN_CREATE?"),
    ({"emask": "['in_delete']"}, "emask: 'in_delete': is not an event; did you mean IN_DELETE?"),
    ({"emask": "['IN_Q_OVERFLOW']"}, "emask: 'IN_Q_OVERFLOW': is not an event"),
    ({"emask": "[256]"}, "emask: 256: is not an event; write one of IN_ACCESS"),
    ({"emask": "[[]]"}, "emask: []: is not an event"),
    ({"emask": "['IN_OPEN']"}, "emask: ['IN_OPEN']: has only events that rsync's own reading causes"),
    # the others
    ({"rsync": "'rsync'"}, "rsync: 'rsync': is not an absolute path"),
    ({"rsync": "'/no/rsync'"}, "rsync: '/no/rsync': is not found; install it (apt install rsync)"),
    ({"rsync": "'/'"}, "rsync: '/': is not found"),
    ({"rsync": "__import__('os').path.abspath('file')"}, "cannot be executed"),
    ({"rsync": "None"}, "rsync: None: is not a string"),
    ({"rdelete": "1"}, "rdelete: 1: is not known; write True, False,"),
    ({"rdelete": "'never'"}, "rdelete: 'never': is not known"),
    ({"rdelete": "[]"}, "rdelete: []: is not known"),
    ({"rguard": "1"}, "rguard: 1: is neither True nor False; write one of them"),
    ({"rmaxdelete": "0"}, "rmaxdelete: 0: is out of range"),
    ({"rmaxdelete": "True"}, "rmaxdelete: True: is not a number"),
    ({"rmaxdelete": "1.5"}, "rmaxdelete: 1.5: is not a whole number"),
    (
        {"rmaxdelete": "'1000'"},
        "rmaxdelete: '1000': is no share from 1% to 99%; write a",
    ),
    ({"rmaxdelete": "'100%'"}, "rmaxdelete: '100%': is no share from 1% to 99%"),
    ({"rmaxdelete": "'nan%'"}, "rmaxdelete: 'nan%': is no share from 1% to 99%"),
    ({"rmaxdelete": "'x%'"}, "rmaxdelete: 'x%': is no share from 1% to 99%"),
    ({"rwait": "'yes'"}, "rwait: 'yes': is neither True nor False"),
    ({"rwarm": "1.5"}, "rwarm: 1.5: is neither True, False nor a whole number; write one of them"),
    ({"rwarm": "None"}, "rwarm: None: is neither True, False nor a whole number"),
    ({"rwarm": "-1"}, "rwarm: -1: is negative; write how many connections are kept to a node, 0 or more"),
    ({"rlisten": "'localhost:80'"}, "rlisten: 'localhost:80': names no numeric address"),
    ({"rlisten": "9187"}, "rlisten: 9187: is not a string"),
    ({"logfile": "'x.log'"}, "logfile: 'x.log': is not an absolute path"),
    ({"logfile": "'/no/where.log'"}, "logfile: '/no/where.log': its directory does not exist"),
    ({"logfile": "'/tmp'"}, "logfile: '/tmp': is a directory"),
    ({"logfile": "False"}, "logfile: False: is not a string"),
    ({"rundir": "'run'"}, "rundir: 'run': is not an absolute path"),
    ({"rundir": "''"}, "rundir: '': is not an absolute path"),
    # names
    ({"rexclude": "[]"}, "rexclude: did you mean rexcludes?"),
    ({"REXCLUDES": "[]"}, "REXCLUDES: did you mean rexcludes?"),
    ({"wpath": "'a'"}, "wpath: did you mean wpaths?"),
    ({"rpath": "'/x'"}, "rpath: did you mean rpaths?"),
    ({"zzz": "[]"}, "zzz: there is no setting of this name; names of your own begin with an underscore"),
    ({"globals()['x\\ny']": "1"}, r"x\ny: there is no setting of this name"),
    ({"wpaths": "", "wpath": "'nowhere/'"}, "wpath: 'nowhere/': does not exist"),
]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("values", "mistake"), BAD, ids=[mistake for _, mistake in BAD])
def test_bad_value_gets_one_line(values: dict[str, str], mistake: str) -> None:
    found = [line for line in mistakes(text(**values)) if mistake in line]
    assert len(found) == 1
    assert "secret" not in found[0]


def test_wpath_inside_another_is_found_through_links(here: Path) -> None:
    (here / "b" / "link").symlink_to(here / "a" / "sub")
    (line,) = mistakes(text(wpaths="['a/', 'b/link/']", rpaths="['/x', '/y']"))
    assert "'b/link/': lies inside 'a/'" in line


@pytest.mark.usefixtures("here")
def test_long_values_are_shortened() -> None:
    (line,) = mistakes(text(rdelete="'x' * 10000"))
    assert len(line) < 300


@pytest.mark.usefixtures("here")
def test_rundir_must_be_set_if_there_is_no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config(rundir="'/x'").rundir == "/x"
    write(text())
    owner = os.stat("conf.py").st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner or 1)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert "rundir: is not set, and neither is XDG_RUNTIME_DIR; set rundir" in refused("conf.py")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert load("conf.py").rundir == "/run/user/7/inosync"


@pytest.mark.usefixtures("here")
def test_rlisten_needs_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inosync.config.local_checks.importlib.util.find_spec", lambda _name: None)
    [mistake] = mistakes(text(rlisten="'127.0.0.1:9187'"))
    assert "needs prometheus_client, which is not installed; install it (pip install" in mistake
    assert config().rlisten is None


@pytest.mark.usefixtures("here")
def test_rlisten_beyond_loopback_is_warned_of() -> None:
    assert "there is no password" in config(rlisten="'0.0.0.0:9187'").warnings[0]
    assert config(rlisten="'[::1]:9187'").warnings == ()


def test_master_does_not_import_what_serves_metrics() -> None:
    script = "import sys, inosync.cli; print({'prometheus_client', 'asyncio', 'http'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
