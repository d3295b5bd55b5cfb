"""The kernel's events: decoding their bytes, and the calls over a real instance."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wait import until

from inosync.watch import inotify
from inosync.watch.inotify import Event, Inotify, InotifyError, decode

MASK = inotify.IN_CREATE | inotify.IN_CLOSE_WRITE | inotify.IN_DELETE | inotify.IN_ONLYDIR


def encode(wd: int, mask: int, cookie: int, name: bytes, room: int | None = None) -> bytes:
    """An event as the kernel sends it: the name padded with NULs to a multiple of 16, if there is one."""
    if room is None:
        room = (len(name) // 16 + 1) * 16 if name else 0
    return struct.pack("=iIII", wd, mask, cookie, room) + name.ljust(room, b"\0")


# Decoding ------------------------------------------------------------------------------------------------


def test_decode_of_no_bytes_gives_no_events() -> None:
    assert decode(b"") == []


@pytest.mark.parametrize(
    "name", [b"", b"a", b"x" * 15, b"x" * 16, b"x" * 255, b"\xff\xfe", b"new\nline", b" "]
)
def test_decode_keeps_names_byte_for_byte_without_padding(name: bytes) -> None:
    assert decode(encode(1, 0x100, 7, name)) == [Event(1, 0x100, 7, name)]


def test_decode_accepts_a_padded_empty_name() -> None:
    assert decode(encode(3, 0x400, 0, b"", room=16)) == [Event(3, 0x400, 0, b"")]


def test_decode_gives_an_overflow_no_watch() -> None:
    assert decode(encode(-1, inotify.IN_Q_OVERFLOW, 0, b"")) == [Event(-1, 0x4000, 0, b"")]


def test_decode_takes_the_highest_bits_for_no_signs() -> None:
    assert decode(encode(2**31 - 1, 0x80000000, 2**32 - 1, b"")) == [
        Event(2**31 - 1, 0x80000000, 2**32 - 1, b"")
    ]


events = st.tuples(
    st.integers(-1, 2**31 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=255).map(lambda name: name.replace(b"\0", b"0").replace(b"/", b"1")),
)


@given(st.lists(events, max_size=20))
def test_decode_keeps_any_events_and_their_order(
    given_events: list[tuple[int, int, int, bytes]],
) -> None:
    data = b"".join(encode(*event) for event in given_events)
    assert decode(data) == given_events


# The instance --------------------------------------------------------------------------------------------


@pytest.fixture
def instance() -> Iterator[Inotify]:
    made = Inotify()
    yield made
    made.close()


def watch(instance: Inotify, directory: bytes | Path, mask: int = MASK) -> int:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return instance.add(fd, mask)
    finally:
        os.close(fd)


def test_directory_with_a_name_that_is_no_utf8_is_watched(instance: Inotify, tmp_path: Path) -> None:
    directory = os.fsencode(tmp_path) + b"/\xff\xfe\n"
    os.mkdir(directory)
    wd = watch(instance, directory)
    for name in (b"plain", b"\xe9", b"new\nline", b"n" * 255):
        os.close(os.open(directory + b"/" + name, os.O_CREAT | os.O_WRONLY))
        assert decode(instance.read()) == [
            Event(wd, inotify.IN_CREATE, 0, name),
            Event(wd, inotify.IN_CLOSE_WRITE, 0, name),
        ]


def test_read_returns_at_once_when_there_is_nothing(instance: Inotify, tmp_path: Path) -> None:
    assert instance.read() == b""
    watch(instance, tmp_path)
    assert instance.read() == b""


def test_add_gives_one_watch_for_one_directory(instance: Inotify, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "link").symlink_to("a")
    first = watch(instance, tmp_path / "a")
    assert watch(instance, tmp_path / "a") == first
    assert watch(instance, tmp_path / "link") == first
    (tmp_path / "a").rename(tmp_path / "c")
    assert watch(instance, tmp_path / "c") == first
    assert watch(instance, tmp_path / "b") != first


def test_add_near_watches_a_directory_by_its_name(
    instance: Inotify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = b"\xff\n "
    os.mkdir(os.fsencode(tmp_path) + b"/" + name)
    monkeypatch.chdir(tmp_path)
    wd = instance.add_near(name, inotify.IN_CREATE)
    fd = os.open(name, os.O_RDONLY)
    assert instance.add(fd, inotify.IN_CREATE) == wd > 0
    os.close(fd)


def test_add_near_refuses_symlinks_and_files(
    instance: Inotify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("directory")
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    for name in (b"link", b"file", b"nothing", b""):
        assert instance.add_near(name, inotify.IN_CREATE) == -1


def test_add_again_replaces_the_mask(instance: Inotify, tmp_path: Path) -> None:
    wd = watch(instance, tmp_path, inotify.IN_CREATE)
    watch(instance, tmp_path, inotify.IN_DELETE)
    (tmp_path / "f").touch()
    (tmp_path / "f").unlink()
    assert decode(instance.read()) == [Event(wd, inotify.IN_DELETE, 0, b"f")]


def test_removed_watch_ends_with_one_event(instance: Inotify, tmp_path: Path) -> None:
    wd = watch(instance, tmp_path)
    instance.remove(wd)
    (tmp_path / "f").touch()
    assert decode(instance.read()) == [Event(wd, inotify.IN_IGNORED, 0, b"")]


def test_remove_accepts_a_watch_that_has_ended(instance: Inotify, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    wd = watch(instance, tmp_path / "d")
    (tmp_path / "d").rmdir()
    until(
        lambda: any(e.mask & inotify.IN_IGNORED for e in decode(instance.read())), 30, "the end of the watch"
    )
    instance.remove(wd)
    instance.remove(wd)
    instance.remove(12345)


def test_add_raises_with_the_reason(instance: Inotify, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    try:
        with pytest.raises(InotifyError) as raised:
            instance.add(fd, MASK)
        assert raised.value.errno == errno.ENOTDIR
    finally:
        os.close(fd)
    with pytest.raises(InotifyError) as raised:
        instance.add(fd, MASK)
    assert raised.value.errno == errno.ENOENT


def test_descriptor_is_not_inherited_and_never_blocks(instance: Inotify) -> None:
    assert not os.get_inheritable(instance.fd)
    assert fcntl.fcntl(instance.fd, fcntl.F_GETFL) & os.O_NONBLOCK


def test_close_may_be_called_twice() -> None:
    instance = Inotify()
    fd = instance.fd
    instance.close()
    instance.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_binding_writes_nothing_to_stderr() -> None:
    assert logging.getLogger("pyinotify").handlers == []


def test_events_have_the_names_of_the_manual() -> None:
    for name in ("IN_MODIFY", "IN_ATTRIB", "IN_CLOSE_WRITE", "IN_MOVED_FROM", "IN_MOVED_TO", "IN_CREATE"):
        assert inotify.EVENTS[name] == getattr(inotify, name)
    assert inotify.EVENTS["IN_DELETE"] == 0x200


@pytest.mark.parametrize(
    ("machine", "namespace", "needed", "advice"),
    [
        ("100000", "100000", 0, "fs.inotify.max_user_watches=262144"),
        ("100000", "100000", 200_000, "fs.inotify.max_user_watches=524288"),
        ("100000", "1000", 1_001, "user.max_inotify_watches=2048"),
        ("100000", "", 0, "fs.inotify.max_user_watches=262144"),
        ("", "", 5, "fs.inotify.max_user_watches=128"),
    ],
)
def test_raise_limit_names_the_limit_in_force(
    tmp_path: Path, machine: str, namespace: str, needed: int, advice: str
) -> None:
    for path, text in (("fs/inotify/max_user_watches", machine), ("user/max_inotify_watches", namespace)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if text:
            (tmp_path / path).write_text(text + "\n")
    assert inotify.raise_limit("watches", needed, str(tmp_path)) == f"sysctl {advice}"


def test_missing_instances_are_reported_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def inotify_init(self) -> int:
            return -1

        def get_errno(self) -> int:
            return errno.EMFILE

    monkeypatch.setattr("pyinotify.INotifyWrapper.create", Refusing)
    with pytest.raises(InotifyError, match=r"no inotify instance left: sysctl \S+inotify_?\S*instances=\d+$"):
        Inotify()
