"""Files of patterns: where they may be named, what is read from them, and their mistakes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.configs import config, mistakes, text

from inosync.config.load import Config
from inosync.system import fingerprint

TWO = {"wpaths": "['a/', 'b/']", "rpaths": "['/x', '/y']"}


@pytest.fixture
def file(here: Path) -> Path:
    path = here / "patterns"
    path.write_text("# comment\n*.tmp\n+ /keep\n")
    path.chmod(0o644)
    return path


def named(value: str, file: Path) -> str:
    return value.replace("FILE", repr(str(file)))


def shown(taken: Config, wpath: str) -> str:
    """The rules that apply to a wpath on the first node, as one string."""
    tree = next(tree for tree in taken.trees if tree.wpath == os.path.abspath(wpath))
    return " ".join(rule.text.decode().replace(" ", "") for rule in taken.nodes[0].rules(tree))


@pytest.mark.parametrize(
    ("rexcludes", "of_node", "of_a", "of_b"),
    [
        ("{'from': FILE}", "[]", "-*.tmp +/keep", "-*.tmp +/keep"),
        ("['x', {'from': FILE}, 'y']", "[]", "-x -*.tmp +/keep -y", "-x -*.tmp +/keep -y"),
        ("{'a/': {'from': FILE}}", "[]", "-*.tmp +/keep", ""),
        ("{'*': ['x'], 'b': ['y', {'from': FILE}]}", "[]", "-x", "-y -*.tmp +/keep -x"),
        ("['x']", "[{'from': FILE}]", "-*.tmp +/keep -x", "-*.tmp +/keep -x"),
        ("['x']", "{'from': FILE}", "-*.tmp +/keep -x", "-*.tmp +/keep -x"),
    ],
)
def test_pattern_file_can_stand_in_every_list(
    file: Path, rexcludes: str, of_node: str, of_a: str, of_b: str
) -> None:
    node = f"[{{'node': 'h:', 'rexcludes': {named(of_node, file)}}}]"
    taken = config(**TWO, rexcludes=named(rexcludes, file), rnodes=node)
    assert (shown(taken, "a"), shown(taken, "b")) == (of_a, of_b)
    assert taken.pattern_files == {str(file): fingerprint.at(str(file))}


def test_wpath_can_be_called_from(here: Path) -> None:
    (here / "from").mkdir()
    taken = config(wpaths="['from', 'b']", rpaths="['/from', '/b']", rexcludes="{'from': ['x']}")
    assert (shown(taken, "from"), shown(taken, "b")) == ("-x", "")


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("--exclude-from=FILE", "-*.tmp +/keep"),
        ("--include-from FILE", "+*.tmp +/keep"),
        ("-avf '.- FILE'", "-*.tmp -+/keep"),
    ],
)
def test_files_in_extra_are_read_once(file: Path, extra: str, expected: str) -> None:
    for name in (str(file), "patterns"):  # relative to where inosync was started, as for rsync
        taken = config(extra=repr(extra.replace("FILE", name)))
        assert shown(taken, "a") == expected
        assert list(taken.pattern_files) == [str(file)]
        assert not any("patterns" in word for word in taken.nodes[0].extra)


def test_rules_in_extra_come_last(file: Path) -> None:
    node = "{'node': 'h:', 'rexcludes': ['own'], 'extra': ['--exclude=of node', '-v']}"
    taken = config(rexcludes="['all']", rnodes=f"[{node}]", extra="'-z --exclude of-file'")
    assert shown(taken, "a") == "-own -all -of-file -ofnode"
    assert taken.nodes[0].extra == ("-z", "-v")
    file.write_bytes(b"a\0b\n")
    node = f"{{'node': 'h:', 'extra': ['--exclude-from={file}']}}"
    assert shown(config(rnodes=f"[{node}]", extra="'-0'"), "a") == "-a -b\n"


def test_merge_file_has_filter_rules(file: Path) -> None:
    file.write_text("P own\n; comment\nhide,! *.html\n!\n- x\n")
    assert shown(config(extra=f"['-f', 'merge {file}']", rexcludes="['y']"), "a") == "-x"


def test_mistakes_in_pattern_files_have_their_lines(file: Path) -> None:
    file.write_bytes(b"good\n- \n#\n" + b"x" * 4096 + b"\r\na\0b\n")
    use = named("{'from': FILE}", file)
    found = mistakes(text(rexcludes=use, rnodes=f"[{{'node': 'h:', 'rexcludes': {use}}}]"))
    assert [line.partition("; ")[0] for line in found] == [
        f"{file}:2: '- ': a pattern is missing",
        f"{file}:4: '{'x' * 40}...': the pattern is longer than 4095 bytes",
        rf"{file}:5: 'a\x00b': NUL cannot stand in a rule",
    ]


@pytest.mark.parametrize(
    ("extra", "content", "mistake"),
    [
        ("--filter='. FILE'", "- a\nb\n", "FILE:2: 'b': unknown kind of rule"),
        (
            "--filter='. FILE'",
            ". other\n",
            "FILE:1: '. other': a merge file is not supported in a merge file",
        ),
        ("--filter='. FILE'", ": .rules\n", "FILE:1: ': .rules': files of rules in each directory"),
        ("--filter=': FILE'", "", "--filter: ': FILE': files of rules in each directory"),
        ("--include-from=FILE", "a!#:+\n", "FILE:1: 'a!#:+': rsync's command line cannot"),
    ],
)
def test_mistakes_in_files_of_extra_have_their_lines(
    file: Path, extra: str, content: str, mistake: str
) -> None:
    file.write_text(content)
    (line,) = mistakes(text(extra=repr(extra.replace("FILE", str(file)))))
    assert mistake.replace("FILE", str(file)) in line


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"rexcludes": "{'from': FILE}"}, "rexcludes"),
        ({"rexcludes": "{'a': [{'from': FILE}]}"}, "rexcludes: for 'a'"),
        ({"rnodes": "[{'node': 'h:', 'rexcludes': [{'from': FILE}]}]"}, "rnodes: rexcludes of 'h:'"),
        ({"extra": "['--exclude-from', FILE]"}, "extra"),
        ({"rnodes": "[{'node': 'h:', 'extra': ['-f', '. ' + FILE]}]"}, "rnodes: extra of 'h:'"),
    ],
)
def test_unreadable_pattern_file_is_reported_where_it_is_named(
    file: Path, values: dict[str, str], place: str
) -> None:
    file.unlink()
    (line,) = mistakes(text(**{name: named(value, file) for name, value in values.items()}))
    assert f": {place}: '{file}': cannot be read: No such file or directory; name a file of" in line


def test_pattern_file_that_others_can_write_is_refused(file: Path) -> None:
    source = text(rexcludes=named("{'from': FILE}", file))
    file.chmod(0o664)
    (line,) = mistakes(source)
    assert f"rexcludes: '{file}': is writable by others; chmod go-w {file}" in line
    file.chmod(0o644)
    (file.parent / "open").mkdir()
    (file.parent / "open").chmod(0o777)
    file.rename(file.parent / "open/patterns")
    (line,) = mistakes(text(rexcludes=named("{'from': FILE}", file.parent / "open/patterns")))
    assert f"'{file.parent}/open': is writable by others" in line


def test_pattern_file_that_is_no_file_is_refused(here: Path) -> None:
    os.mkfifo(here / "fifo")
    (line,) = mistakes(text(rexcludes=named("{'from': FILE}", here / "fifo")))
    assert "is not a file; name a file of patterns" in line
    (here / "large").write_bytes(b"\n" * (4 << 20) + b"\n")
    (line,) = mistakes(text(rexcludes=named("{'from': FILE}", here / "large")))
    assert "is larger than 4 MiB" in line


def test_mistakes_of_one_pattern_file_are_limited(file: Path) -> None:
    file.write_bytes(b"\0\n" * 100_000)
    assert len(mistakes(text(rexcludes=named("{'from': FILE}", file)))) == 20
    file.write_bytes(b"a\n" * 1_000_000)
    (line,) = mistakes(text(rexcludes=named("{'from': FILE}", file)))
    assert "of rsync's command line; write fewer" in line


@pytest.mark.usefixtures("here")
def test_rules_longer_than_a_command_line_are_refused() -> None:
    assert config(rexcludes="['x' * 1000] * 900")
    (line,) = mistakes(text(rexcludes="['x' * 1000] * 600", extra="['--exclude=' + 'y' * 1000] * 600"))
    assert "rexcludes: the rules for 'h' take 1231200 bytes of rsync's command line; write fewer" in line
