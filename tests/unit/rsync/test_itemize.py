"""What rsync says of differences, and which of them are changes that were on their way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.changes import Change, Kind
from inosync.rsync import itemize
from inosync.rsync.itemize import Difference, explained

TREE = 1


def line(what: bytes, name: bytes) -> bytes:
    return b"inosync:" + what.ljust(11) + b" " + name


def rsyncs(name: bytes) -> bytes:
    """A name as rsync prints it in the C locale (``filtered_fwrite`` in its log.c)."""
    shown = bytearray()
    for at, byte in enumerate(name):
        escape = name[at : at + 2] == b"\\#" and len(name) >= at + 5 and name[at + 2 : at + 5].isdigit()
        if escape or (byte != 9 and not 32 <= byte < 127):
            shown += b"\\#%03o" % byte
        else:
            shown.append(byte)
    return bytes(shown)


names = st.binary(min_size=1, max_size=40).filter(
    lambda name: b"\0" not in name and b"/" not in name and name not in (b".", b"..")
)


@given(names)
def test_parse_reads_every_name_as_it_is(name: bytes) -> None:
    for what, path in ((b">f+++++++++", name), (b"cd+++++++++", name + b"/"), (b"*deleting", b"d/" + name)):
        found = itemize.parse(line(what, rsyncs(path)))
        assert found is not None
        assert found.path == path.removesuffix(b"/")


@pytest.mark.parametrize(
    ("what", "name", "word", "negligible", "change"),
    [
        (b"<f+++++++++", b"d/f", "missing", False, Change(TREE, b"d/f", Kind.NAME)),
        (b">f.s.......", b"f", "content", False, Change(TREE, b"f", Kind.NAME)),
        (b"<f..t......", b"f", "content", False, Change(TREE, b"f", Kind.NAME)),
        (b"<fc.t......", b"f", "content", False, Change(TREE, b"f", Kind.NAME)),
        (b"<fc........", b"f", "content", False, Change(TREE, b"f", Kind.NAME, ignore_times=True)),
        (b">fc...p....", b"f", "content", False, Change(TREE, b"f", Kind.NAME, ignore_times=True)),
        (b".f...p.....", b"f", "attributes", False, Change(TREE, b"f", Kind.NAME)),
        (b"cLc.t......", b"l", "content", False, Change(TREE, b"l", Kind.NAME)),
        (b".d..t......", b"d/", "attributes", True, Change(TREE, b"d", Kind.NAME)),
        (b".d..T......", b"./", "attributes", True, Change(TREE, b"", Kind.LIST)),
        (b".d..tp.....", b"./", "attributes", False, Change(TREE, b"", Kind.LIST)),
        (b"cd+++++++++", b"d/", "missing", False, Change(TREE, b"d", Kind.NAME)),
        (b"*deleting", b"d/f", "extra", False, Change(TREE, b"d", Kind.LIST)),
        (b"*deleting", b"d/", "extra", False, Change(TREE, b"", Kind.LIST)),
        (b"hf+++++++++", b"f", "missing", False, Change(TREE, b"f", Kind.NAME)),
    ],
)
def test_difference_has_a_word_and_a_repair(
    what: bytes, name: bytes, word: str, negligible: bool, change: Change
) -> None:
    found = itemize.parse(line(what, name))
    assert found is not None
    assert (found.word, found.negligible, found.repair(TREE)) == (word, negligible, change)


def test_root_is_not_relisted_where_that_would_delete_too_much() -> None:
    negligible, more = (Difference(b"", what) for what in (b".d..t......", b".d..tp....."))
    assert negligible.repair(TREE, "running") is None
    assert more.repair(TREE, "running") == Change(TREE, b"", Kind.TREE)
    for rdelete in (True, False, "startup"):
        assert negligible.repair(TREE, rdelete) == Change(TREE, b"", Kind.LIST)
    assert Difference(b"d", b".d..t......").repair(TREE, "running") == Change(TREE, b"d", Kind.NAME)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"sending incremental file list",
        b">f+++++++++ f",
        b"inosync:",
        b"x inosync:>f+++++++++ f",
        line(b".f", b"f"),
        line(b".d", b"./"),
        line(b"hf", b"f"),
        line(b".f.........", b"f"),
    ],
)
def test_parse_finds_no_difference_in_other_lines(said: bytes) -> None:
    assert itemize.parse(said) is None


MISSING, EXTRA = b">f+++++++++", b"*deleting  "


@pytest.mark.parametrize(
    ("change", "what", "path", "expected"),
    [
        (Change(TREE, b"a/f", Kind.NAME), MISSING, b"a/f", True),
        (Change(TREE, b"a/f", Kind.NAME), EXTRA, b"a/f", True),
        (Change(TREE, b"a/f", Kind.NAME), MISSING, b"a/g", False),
        (Change(TREE, b"a/f", Kind.NAME), MISSING, b"a", False),
        (Change(2, b"a/f", Kind.NAME), MISSING, b"a/f", False),
        # A new directory is relisted; so is each in it.
        (Change(TREE, b"a", Kind.LIST), MISSING, b"a/f", True),
        (Change(TREE, b"a", Kind.LIST), MISSING, b"a/b/f", False),
        (Change(TREE, b"", Kind.LIST), MISSING, b"f", True),
        (Change(TREE, b"", Kind.LIST), MISSING, b"a/f", False),
        # Of what is gone only the top is told.
        (Change(TREE, b"a", Kind.NAME), EXTRA, b"a/b/f", True),
        (Change(TREE, b"a", Kind.NAME), MISSING, b"a/f", False),
        (Change(TREE, b"", Kind.LIST), EXTRA, b"f", True),
        (Change(TREE, b"", Kind.LIST), EXTRA, b"a/f", False),
        (Change(TREE, b"", Kind.TREE), MISSING, b"a/b/f", True),
    ],
)
def test_difference_on_its_way_is_explained(change: Change, what: bytes, path: bytes, expected: bool) -> None:
    assert explained([change], TREE)(Difference(path, what)) is expected
