"""The second look at a batch's names, on real trees that have moved on since the events."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.filters import excludes

from inosync.filters.rules import Rules
from inosync.rsync.names import CurrentNames, current_names, listing

Excluded = Callable[[bytes, bool], bool]


def nothing(_path: bytes, _is_directory: bool) -> bool:
    return False


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with directories, files, and symlinks to a directory inside and one outside."""
    root = tmp_path / "tree"
    (root / "d/e/f").mkdir(parents=True)
    (root / "d/e/f/file").write_text("content")
    (root / "file").write_text("content")
    (tmp_path / "outside/e").mkdir(parents=True)
    (tmp_path / "outside/e/file").write_text("secret")
    (root / "inside").symlink_to("d")
    (root / "out").symlink_to("../outside")
    (root / "dangling").symlink_to("nowhere")
    return root


def sent(tree: Path, *wires: bytes, excluded: Excluded = nothing) -> list[bytes]:
    """What is left of the names; none of them may be hopeless."""
    found = current_names(str(tree), wires, excluded)
    assert found.unsendable == []
    return found.send


@pytest.mark.parametrize(
    "wire",
    [b"file", b"d", b"d/", b"d/e/", b"d/e/f/file", b"./", b"dangling", b"inside", b"out", b"gone", b"d/gone"],
)
def test_name_that_is_what_it_was_is_sent_as_it_is(tree: Path, wire: bytes) -> None:
    assert sent(tree, wire) == [wire]


@pytest.mark.parametrize(
    ("wire", "instead"),
    [
        (b"gone", b"./"),
        (b"d/gone", b"d/"),
        (b"d/gone/", b"d/"),
        (b"d/e/gone/with/all/below", b"d/e/"),
        (b"d/e/f/file", b"d/e/f/file"),
        (b"out/e", b"out"),
    ],
)
def test_missing_name_that_may_not_be_listed_relists_its_directory(
    tree: Path, wire: bytes, instead: bytes
) -> None:
    assert current_names(str(tree), [wire, wire], nothing, list_missing=False).send == [instead]


@pytest.mark.parametrize(
    ("wire", "instead"),
    [
        (b"out/e", b"out"),
        (b"out/e/", b"out"),
        (b"out/e/file", b"out"),
        (b"inside/e", b"inside"),
        (b"inside/e/f/file", b"inside"),
        (b"dangling/x", b"dangling"),
    ],
)
def test_name_below_a_symlink_becomes_the_symlink(tree: Path, wire: bytes, instead: bytes) -> None:
    assert sent(tree, wire) == [instead]


@pytest.mark.parametrize("wire", [b"file/x", b"file/x/", b"file/x/y/z"])
def test_name_below_a_file_becomes_the_file(tree: Path, wire: bytes) -> None:
    assert sent(tree, wire) == [b"file"]


@pytest.mark.parametrize("wire", [b"gone/x", b"gone/x/", b"gone/x/y/z", b"gone/x/y/z/"])
def test_missing_levels_are_listed_by_the_topmost(tree: Path, wire: bytes) -> None:
    assert sent(tree, wire) == [b"gone"]
    assert sent(tree, b"d/e/" + wire) == [b"d/e/gone"]


@pytest.mark.parametrize("wire", [b"file/", b"inside/", b"out/", b"dangling/", b"gone/"])
def test_listing_of_what_is_no_directory_becomes_its_name(tree: Path, wire: bytes) -> None:
    assert sent(tree, wire) == [wire[:-1]]


def test_names_that_become_one_are_listed_once_at_the_first_place(tree: Path) -> None:
    names = (b"gone/a", b"d", b"gone/b/", b"file", b"gone", b"out/e", b"d", b"out")
    assert sent(tree, *names) == [b"gone", b"d", b"file", b"out"]


def test_name_and_listing_of_a_directory_both_stay(tree: Path) -> None:
    assert sent(tree, b"d", b"d/") == [b"d", b"d/"]


@pytest.mark.parametrize(
    "wire",
    [b"..", b"../", b"../outside/e/file", b"d/../../outside/e/", b"d/e/..", b"/etc/passwd", b"../tree/file"],
)
def test_name_that_leads_out_of_the_tree_is_left_out(tree: Path, wire: bytes) -> None:
    assert sent(tree, wire, b"file", b"..file", b"d/..") == [b"file", b"..file"]


def test_names_input_without_names_is_empty(tree: Path) -> None:
    assert sent(tree) == []


def test_missing_tree_is_an_error(tree: Path) -> None:
    shutil.rmtree(tree)
    with pytest.raises(FileNotFoundError):
        current_names(str(tree), [b"./", b"d/e"], nothing)
    tree.write_text("content")
    with pytest.raises(NotADirectoryError):
        current_names(str(tree), [b"./", b"d/e"], nothing)


def test_wpath_may_be_a_symlink(tree: Path) -> None:
    link = tree.with_name("link")
    link.symlink_to("tree")
    assert sent(link, b"d/", b"out/e", b"d/gone/x") == [b"d/", b"out", b"d/gone"]


@pytest.mark.parametrize(
    "name",
    [
        b"#",
        b"#comment",
        b";semi",
        b"-rf",
        b" ",
        b"new\nline",
        b"*",
        b"[a]",
        b"\\",
        b"\xff\xfe",
        b"caf\xe9",
        b"...",
        b":",
        b"n" * 255,
    ],
)
def test_names_may_be_whatever_the_kernel_allows(tree: Path, name: bytes) -> None:
    top = os.fsencode(tree)
    assert sent(tree, name, name + b"/x") == [name]
    os.mkdir(top + b"/" + name)
    (tree / os.fsdecode(name) / "x").write_text("content")
    assert sent(tree, name + b"/", name + b"/x", name + b"/" + name) == [
        name + b"/",
        name + b"/x",
        name + b"/" + name,
    ]


def test_source_name_may_be_no_utf8(tmp_path: Path) -> None:
    source = os.fsencode(tmp_path) + b"/\xff"
    os.makedirs(source + b"/d")
    assert current_names(os.fsdecode(source), [b"d/", b"d/x/y"], nothing).send == [b"d/", b"d/x"]


# Excludes ------------------------------------------------------------------------------------------------


def rules(*patterns: str) -> Excluded:
    return Rules(excludes(patterns)).excluded


def test_excluded_names_are_left_out_with_what_is_below(tree: Path) -> None:
    names = (b"d/e/", b"d/e/f/file", b"d/e/gone", b"d/e", b"file", b"d/")
    assert sent(tree, *names, excluded=rules("/d/e")) == [b"file", b"d/"]


def test_missing_name_that_is_excluded_is_left_out(tree: Path) -> None:
    assert sent(tree, b"x.tmp", b"d/x.tmp/below", b"d/x", excluded=rules("*.tmp")) == [b"d/x"]


def test_missing_name_excluded_as_a_directory_relists_its_parent(tree: Path) -> None:
    # Gone here, and perhaps a file there, which has to go, or perhaps a directory, which has to stay.
    assert sent(tree, b"d/cache", excluded=rules("cache/")) == [b"d/"]
    assert sent(tree, b"d/cache/x", excluded=rules("cache/")) == [b"d/"]
    assert sent(tree, b"cache", excluded=rules("cache/")) == [b"./"]


def test_name_that_became_an_excluded_directory_relists_its_parent(tree: Path) -> None:
    (tree / "d/cache").mkdir()
    assert sent(tree, b"d/cache", excluded=rules("cache/")) == [b"d/"]
    assert sent(tree, b"d/cache/", b"d/cache/x/y", excluded=rules("cache/")) == [b"d/"]


def test_file_excluded_only_as_a_directory_is_sent(tree: Path) -> None:
    (tree / "d/cache").write_text("content")
    assert sent(tree, b"d/cache", b"d/cache/x", excluded=rules("cache/")) == [b"d/cache"]


def test_rules_see_current_types_and_only_included_parents(tree: Path) -> None:
    asked: list[tuple[bytes, bool]] = []

    def excluded(path: bytes, is_directory: bool) -> bool:
        asked.append((path, is_directory))
        return path == b"d/e"

    assert sent(tree, b"d/e/f/file", b"file", b"out/e", excluded=excluded)[-2:] == [b"file", b"out"]
    assert (b"d", True) in asked
    assert (b"file", False) in asked
    assert (b"out", False) in asked
    assert not [path for path, _ in asked if path.startswith(b"d/e/")]


# Too long ------------------------------------------------------------------------------------------------


def dig(root: Path, path: bytes) -> None:
    """Make directories whose path may be longer than PATH_MAX."""
    root.mkdir(parents=True, exist_ok=True)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for part in path.split(b"/"):
        os.mkdir(part, dir_fd=fd)
        inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)


def sweep(root: Path) -> None:
    """Empty a directory, without recursion: what is in its directories is moved up, until there are none."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    spare = itertools.count()
    try:
        while names := os.listdir(fd):
            for each in names:
                try:
                    inner = os.open(each, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                except NotADirectoryError:
                    os.unlink(each, dir_fd=fd)
                    continue
                for below in os.listdir(inner):
                    os.rename(below, f"swept.{next(spare)}", src_dir_fd=inner, dst_dir_fd=fd)
                os.close(inner)
                os.rmdir(each, dir_fd=fd)
    finally:
        os.close(fd)


@pytest.fixture
def swept(tmp_path: Path) -> Iterator[Path]:
    """A directory from which afterwards even that is removed which is too deep for others."""
    made = tmp_path / "swept"
    made.mkdir()
    yield made
    sweep(made)


def test_name_that_is_too_long_is_unsendable_and_the_rest_goes(swept: Path) -> None:
    long = b"/".join([b"x" * 250] * 17)
    dig(swept, long)
    (swept / "file").touch()
    found = current_names(str(swept), [long, b"file", long + b"/", long + b"/gone"], nothing)
    assert b"file" in found.send
    assert not [each for each in found.send if len(each) > 4095]
    assert found.unsendable


@pytest.mark.parametrize("levels", [10, 1500])
def test_names_may_have_very_many_levels(swept: Path, levels: int) -> None:
    path = b"/".join([b"d"] * levels)
    assert sent(swept, path + b"/", path + b"/f") == [b"d"]
    dig(swept, path)
    assert sent(swept, path + b"/", path + b"/gone") == [path + b"/", path + b"/gone"]


def test_long_name_in_a_long_source_is_checked_like_any_other(swept: Path) -> None:
    # Together they are longer than PATH_MAX; rsync is in the source and takes the name alone.
    source = swept.joinpath(*["y" * 200] * 5)
    path = b"/".join([b"x" * 200] * 17)
    dig(source, path)
    assert sent(source, path + b"/", path, path + b"/gone/x") == [path + b"/", path, path + b"/gone"]


def test_short_name_in_a_long_source_is_sendable(swept: Path) -> None:
    source = swept.joinpath(*["y" * 200] * 5)
    (source / "d").mkdir(parents=True)
    assert sent(source, b"d/", b"d/gone/x") == [b"d/", b"d/gone"]


def test_names_below_a_mount_point_are_not_sent_with_one_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mnt/sub").mkdir(parents=True)
    (tmp_path / "mnt/sub/file").touch()
    (tmp_path / "d").mkdir()
    lstat = os.lstat

    def elsewhere(path: bytes, *, dir_fd: int) -> os.stat_result:
        status = lstat(path, dir_fd=dir_fd)
        if not path.startswith(b"mnt"):
            return status
        return os.stat_result((*status[:2], status.st_dev + 1, *status[3:]))

    monkeypatch.setattr(os, "lstat", elsewhere)
    wires = [b"mnt/", b"mnt/sub/", b"mnt/sub/file", b"mnt/gone", b"d/"]

    def nothing(_path: bytes, _is_directory: bool) -> bool:
        return False

    assert current_names(str(tmp_path), wires, nothing, one_file_system=True).send == [b"mnt", b"d/"]
    assert current_names(str(tmp_path), wires, nothing).send == wires


def test_names_that_are_gone_are_told(tree: Path) -> None:
    found = current_names(str(tree), [b"gone", b"gone.d/", b"d/gone", b"d/", b"file"], nothing)
    assert found.missing == {b"gone", b"gone.d", b"d/gone"}
    assert found.missing <= set(found.send)


@pytest.fixture
def with_big(tmp_path: Path) -> Path:
    (tmp_path / "d/sub").mkdir(parents=True)
    for path, size in (("big", 11), ("small", 10), ("d/big", 11), ("d/small", 10), ("d/sub/big", 11)):
        (tmp_path / path).write_bytes(b"x" * size)
    (tmp_path / "d/link").symlink_to("big")
    return tmp_path


def found_big(tree: Path, *wires: bytes, excluded: Excluded = nothing, **more: bool) -> CurrentNames:
    return current_names(str(tree), wires, excluded, big_size=10, **more)


def test_big_files_are_listed_apart(with_big: Path) -> None:
    found = found_big(with_big, b"big", b"small", b"d", b"d/link", b"gone", b"d/big/below")
    assert (found.big, found.send) == ([b"big", b"d/big"], [b"small", b"d", b"d/link", b"gone"])
    assert found.missing == {b"gone"}


def test_big_files_in_relisted_directories_are_listed_apart(with_big: Path) -> None:
    found = found_big(with_big, b"d/", b"./", b"gone/")
    assert (sorted(found.big), found.send) == ([b"big", b"d/big"], [b"d/", b"./", b"gone"])


def test_excluded_big_files_are_not_listed(with_big: Path) -> None:
    found = found_big(with_big, b"big", b"d/", excluded=rules("/big", "/d/big"))
    assert (found.big, found.send) == ([], [b"d/"])


def test_names_that_are_links_are_told(tree: Path) -> None:
    (tree / "to").symlink_to("d")
    found = current_names(str(tree), [b"to", b"d/", b"to/e", b"file"], nothing)
    assert (found.send, found.links) == ([b"to", b"d/", b"file"], {b"to"})


def test_relists_that_nobody_asked_for_are_told(tree: Path) -> None:
    found = current_names(str(tree), [b"d/gone", b"file", b"gone"], nothing, list_missing=False)
    assert (found.send, found.removing) == ([b"d/", b"file", b"./"], {b"d/", b"./"})
    found = current_names(str(tree), [b"d/gone", b"d/", b"gone"], nothing, list_missing=False)
    assert (found.send, found.removing) == ([b"d/", b"./"], {b"./"})


# What is in a directory ----------------------------------------------------------------------------------


def test_listing_has_paths_and_knows_links(tmp_path: Path) -> None:
    (tmp_path / "d/sub").mkdir(parents=True)
    (tmp_path / "d/\n#").touch()
    (tmp_path / "d/to").symlink_to("sub")
    found = sorted(listing(str(tmp_path), b"d/", 3))
    assert found == [(b"d/\n#", False), (b"d/sub", False), (b"d/to", True)]
    assert listing(str(tmp_path), b"./", 1) == [(b"d", False)]


@pytest.mark.parametrize("wire", [b"file/", b"gone/", b"to/", b"many/"])
def test_listing_fails_where_nothing_can_be_listed(tmp_path: Path, wire: bytes) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "many").mkdir()
    for number in range(3):
        (tmp_path / "many" / str(number)).touch()
    (tmp_path / "to").symlink_to("many")
    with pytest.raises(OSError, match=r"Not a directory|No such file|Argument list"):
        listing(str(tmp_path), wire, 2)
