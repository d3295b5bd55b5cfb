"""Lines of the control socket, and its address."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inosync.console import protocol
from inosync.console.protocol import ProtocolError


@pytest.mark.parametrize("text", ["a", "é", "\udcff", "\n\x1b", "x" * 100_000])
def test_message_survives_the_line(text: str) -> None:
    line = protocol.encode({"node": text})
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert protocol.decode(line) == {"node": text}


@pytest.mark.parametrize("line", [b"", b"{", b"\xff", b"1", b"[]", b"null", b"[" * 100_000])
def test_other_lines_are_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="this is no "):
        protocol.decode(line)


@pytest.mark.parametrize(
    ("config", "path"),
    [("/etc/inosync/default.py", "/run/x/default.sock"), ("web", "/run/x/web.sock")],
)
def test_socket_is_named_after_the_configuration(config: str, path: str) -> None:
    assert protocol.socket_path("/run/x", config) == path


def test_address_fits_whatever_the_length_of_the_path(tmp_path: Path) -> None:
    with protocol.address(str(tmp_path / "s")) as address:
        assert address == str(tmp_path / "s")
    deep = tmp_path / ("d" * 200)
    deep.mkdir()
    (deep / "s").touch()
    with protocol.address(str(deep / "s")) as address:
        assert len(address) < 107
        assert os.path.samefile(address, deep / "s")


def test_unknown_names_get_a_suggestion() -> None:
    assert protocol.unknown_command("statsu") == "there is no command 'statsu'; did you mean status?"
    nodes = [f"node{number:02}" for number in range(20)]
    assert protocol.unknown_node("node1", nodes).endswith("did you mean node19?")
    assert protocol.unknown_node("x", nodes).endswith("node11 and 8 more")
