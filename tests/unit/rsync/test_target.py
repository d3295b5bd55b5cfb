"""What a path in a message means below a target."""

from __future__ import annotations

import pytest

from inosync.rsync.target import Transport, on_node, parent, remote_parts, transport


@pytest.mark.parametrize(
    ("path", "module", "target", "expected"),
    [
        (b"/a/b", None, "", None),
        (b"/srv/d/x", None, "d", b"x"),
        (b"x", None, "d", None),
        (b"/a:b/x", None, "/a:b", b"x"),
    ],
)
def test_on_node_is_certain_or_none(
    path: bytes, module: bytes | None, target: str, expected: bytes | None
) -> None:
    assert on_node(path, module, target) == expected


@pytest.mark.parametrize(
    ("target", "way", "parts"),
    [
        ("/srv/copy", Transport.LOCAL, None),
        ("/srv/a:b", Transport.LOCAL, None),
        ("host:", Transport.SSH, (None, "host", "")),
        ("user@host:/srv/copy", Transport.SSH, ("user", "host", "/srv/copy")),
        ("[2001:db8::1]:copy", Transport.SSH, (None, "[2001:db8::1]", "copy")),
        ("host::module/copy", Transport.DAEMON, (None, "host", "module/copy")),
        ("rsync://user@host:8730/module/copy", Transport.DAEMON, ("user", "host", "module/copy")),
        ("RSYNC://[::1]/module", Transport.DAEMON, (None, "[::1]", "module")),
        ("rsync://host", Transport.DAEMON, (None, "host", None)),
    ],
)
def test_target_has_a_transport_and_parts(
    target: str, way: Transport, parts: tuple[str | None, ...] | None
) -> None:
    assert transport(target) is way
    found = remote_parts(target)
    assert (found and found.group("user", "host", "path")) == parts


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("h:", None),
        ("h:a", None),
        ("h:a/", None),
        ("h:a/b", "h:a"),
        ("u@[::1]:a/b/c/", "u@[::1]:a/b"),
        ("h:/a", None),
        ("h:/a/b", "h:/a"),
        ("h::m", None),
        ("h::m/a", None),
        ("h::m/a/b", "h::m/a"),
        ("rsync://h:8730/m/a/b", "rsync://h:8730/m/a"),
        ("rsync://h/m/a", None),
        ("rsync://h", None),
        ("/a/b", None),
    ],
)
def test_parent_is_a_remote_directory_that_may_be_missing(target: str, expected: str | None) -> None:
    assert parent(target) == expected
