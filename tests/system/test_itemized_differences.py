"""The differences that rsync lists are those that a comparison of our own finds."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rsyncd import MakeRsyncd
from support.sshd import Sshd

from inosync.rsync import itemize
from inosync.rsync.argv import EVERYTHING, TransferSettings, compare_argv, names_input

names = st.one_of(
    st.sampled_from([b"new\nline", b"\\#012", b"\\#", b"#x", b" ", b"-rf", b"\xff", b"a -> b", b"inosync:"]),
    st.binary(min_size=1, max_size=12).filter(
        lambda name: b"\0" not in name and b"/" not in name and name not in (b".", b"..")
    ),
)
kinds = st.sampled_from([b"file", b"directory", b"link", b"other file", None])
tree = st.dictionaries(names, st.tuples(kinds, kinds), max_size=8)
nested = st.dictionaries(names, tree, max_size=2)


def make(place: bytes, kind: bytes | None) -> None:
    if kind == b"directory":
        os.mkdir(place)
    elif kind == b"link":
        os.symlink(b"anywhere", place)
        os.utime(place, (1, 1), follow_symlinks=False)
    elif kind is not None:
        Path(os.fsdecode(place)).write_bytes(kind)
        os.utime(place, (1, 1))


def differing(home: str, **changes: object) -> set[bytes]:
    s = TransferSettings("rsync", f"{home}/a", f"{home}/b", **changes)  # type: ignore[arg-type]
    return run(s)


def output_of(s: TransferSettings, checksum: bool) -> bytes:
    return subprocess.run(
        compare_argv(s, checksum),
        input=names_input(EVERYTHING),
        capture_output=True,
        timeout=60,
        check=True,
        env={**os.environ, "LC_ALL": "C"},
        cwd="/",
    ).stdout


def run(s: TransferSettings, checksum: bool = False) -> set[bytes]:
    output = output_of(s, checksum)
    found = [itemize.parse(line) for line in output.split(b"\n") if line]
    assert None not in found, output
    return {one.path for one in found if one is not None and not one.negligible}


@settings(max_examples=25, deadline=None)
@given(tree, nested)
def test_comparison_lists_every_difference_and_no_other(
    top: dict[bytes, tuple[bytes | None, bytes | None]],
    below: dict[bytes, dict[bytes, tuple[bytes | None, bytes | None]]],
) -> None:
    with tempfile.TemporaryDirectory() as home:
        both = {os.fsencode(f"{home}/a"), os.fsencode(f"{home}/b")}
        a, b = sorted(both)
        for side in both:
            os.mkdir(side)
        expected: set[bytes] = set()
        places = dict(top)
        for directory, inner in below.items():
            places[directory] = (b"directory", b"directory")
            places |= {directory + b"/" + name: pair for name, pair in inner.items()}
        for path, (here, there) in places.items():
            make(a + b"/" + path, here)
            make(b + b"/" + path, there)
            if here != there:
                expected.add(path)
        assert differing(home) == expected
        extra = {path for path in expected if places[path][0] is None}
        assert differing(home, rdelete=False) == differing(home, rdelete="startup") == expected - extra


@pytest.fixture(params=["local path", "daemon", "ssh"])
def pair(request: pytest.FixtureRequest, tmp_path: Path, rsyncd: MakeRsyncd) -> TransferSettings:
    """Two trees a and b in the directory of the test; the parameter is the transport to b."""
    for side in "ab":
        (tmp_path / side).mkdir()
    s = TransferSettings("rsync", str(tmp_path / "a"), str(tmp_path / "b"))
    if request.param == "daemon":
        return replace(s, target=rsyncd({"b": tmp_path / "b"}).url("b"))
    if request.param == "ssh":
        sshd: Sshd = request.getfixturevalue("sshd")
        return replace(s, target=sshd.node("b", tmp_path / "b"), rsh=sshd.rsh)
    return s


@pytest.mark.parametrize(
    "extra",
    [
        (),
        ("-q",),
        ("-vvqi", "--stats"),
        ("--info=progress2,name2", "--progress", "--out-format=own %n"),
        ("--quiet", "--debug=FILTER", "-8"),
    ],
)
def test_comparison_can_be_read_whatever_extra_prints(
    pair: TransferSettings, tmp_path: Path, extra: tuple[str, ...]
) -> None:
    hostile = [b"new\nline", b"\xff\xfe", b"\\#012", b"caf\xc3\xa9"]
    for name in hostile:
        make(os.fsencode(tmp_path / "a") + b"/" + name, b"file")
    make(os.fsencode(tmp_path / "b") + b"/gone\x01", b"directory")
    for side in "ab":
        make(os.fsencode(tmp_path / side / "same"), b"file")
        make(os.fsencode(tmp_path / side / "content"), side.encode())
    s = replace(pair, extra=extra)
    before = sorted(os.listdir(tmp_path / "b"))
    assert run_loosely(s) == {*hostile, b"gone\x01"}
    assert run_loosely(s, checksum=True) == {*hostile, b"gone\x01", b"content"}
    assert sorted(os.listdir(tmp_path / "b")) == before


def run_loosely(s: TransferSettings, checksum: bool = False) -> set[bytes]:
    """As ``run``, but ignore other lines in the output."""
    found = map(itemize.parse, output_of(s, checksum).replace(b"\r", b"\n").split(b"\n"))
    return {one.path for one in found if one is not None and not one.negligible}


@pytest.mark.parametrize("extra", ["--no-times", "-I", "-aI --no-t", "--ignore-times"])
@pytest.mark.parametrize("checksum", [False, True])
def test_comparison_finds_nothing_in_what_is_mirrored_without_times(
    pair: TransferSettings, tmp_path: Path, extra: str, checksum: bool
) -> None:
    for side in ("a", "b"):
        (tmp_path / side / "d").mkdir()
        for name in ("one", "two"):
            (tmp_path / side / name).write_text(name)
            os.utime(tmp_path / side / name, (1, 1_000 if side == "b" and "no-t" in extra else 1))
    settings = replace(pair, extra=tuple(extra.split()))
    assert run(settings, checksum) == set()
    (tmp_path / "b" / "two").write_text("other size")
    assert run(settings, checksum) == {b"two"}
