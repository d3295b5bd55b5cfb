"""How a node is asked whether it can be mirrored to, and what its answers mean."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inosync.rsync.argv import TransferSettings
from inosync.rsync.probe import ProbeResult, finding, may_have_shell, probe_argv, shell_answered

SSH = TransferSettings("rsync", "/src", "h:/copy")
DAEMON = replace(SSH, target="h::m")
PROTOCOL = b"(Client) Protocol versions: remote=31, negotiated=31"
HTTP = b"(Client) Protocol versions: remote=1213481296, negotiated=32"
NEW_TARGET = b"cd+++++++++ ./"
FORCED = "a forced command, or no POSIX shell"
UNASKED = "an rsync daemon says only whether the module is read only"
NO_TARGET = [b'rsync: [Receiver] change_dir#3 "/copy" failed: No such file or directory (2)']
VERSION = b"inosync-probe: rsync  version 3.2.7  protocol version 31"
WRITABLE, LOCKED, NEW = (b"inosync-probe: " + word for word in (b"writable", b"locked", b"new"))


@pytest.mark.parametrize("ask_shell", [True, False])
def test_probe_is_a_dry_run_of_a_batch(ask_shell: bool) -> None:
    argv = probe_argv(replace(SSH, rdelete=False), ask_shell)
    assert argv[0] == "rsync"
    assert "--dry-run" in argv
    assert "--stats" not in argv
    scripts = [word for word in argv if word.startswith("--rsync-path=")]
    assert len(scripts) == ask_shell
    assert all("test -w /copy" in script and script.endswith("; rsync") for script in scripts)


@pytest.mark.parametrize(
    ("target", "quoted"), [("h:", "./."), ("h:a b", "'./a b'"), ("h:/", "/"), ("h:/it's/", "'/it'\"'\"'s'")]
)
def test_probe_quotes_the_directory_for_the_shell(target: str, quoted: str) -> None:
    argv = probe_argv(replace(SSH, target=target), True)
    assert any(f"test -d {quoted} " in word for word in argv)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (SSH, True),
        (DAEMON, False),
        (replace(SSH, target="/copy"), False),
        (replace(SSH, target="h:~/copy"), False),
        (replace(SSH, extra=("--rsync-path=sudo rsync",)), False),
        (replace(SSH, extra=("-z",)), True),
    ],
)
def test_shell_is_asked_only_where_there_may_be_one(settings: TransferSettings, expected: bool) -> None:
    assert may_have_shell(settings) is expected


def test_shell_answered_if_it_printed_the_mark() -> None:
    assert shell_answered([b"welcome", VERSION])
    assert not shell_answered([b"welcome", b"rsync error"])


@pytest.mark.parametrize(
    ("settings", "code", "stdout", "lines", "expected"),
    [
        (SSH, 0, [], [VERSION, WRITABLE], ProbeResult("", "3.2.7")),
        (SSH, 0, [PROTOCOL], [], ProbeResult("", "of protocol 31", FORCED)),
        (SSH, 0, [PROTOCOL, NEW_TARGET], [], ProbeResult("", "of protocol 31", FORCED, True)),
        (DAEMON, 0, [PROTOCOL], [], ProbeResult("", "of protocol 31", UNASKED)),
        (DAEMON, 0, [HTTP], [], ProbeResult("", "", UNASKED)),
        (DAEMON, 3, [PROTOCOL], NO_TARGET, ProbeResult("", "of protocol 31", UNASKED, True)),
        (SSH, 3, [], [VERSION, NEW, WRITABLE, *NO_TARGET], ProbeResult("", "3.2.7", "", True)),
        (
            SSH,
            3,
            [],
            [VERSION, NEW, LOCKED, *NO_TARGET],
            ProbeResult("h:/copy: does not exist, and cannot be made", "3.2.7"),
        ),
        (
            SSH,
            0,
            [],
            [VERSION, LOCKED],
            ProbeResult("h:/copy: cannot be written, or is no directory", "3.2.7"),
        ),
        (SSH, 255, [], [b"ssh: connect to host h: refused"], ProbeResult("ssh: connect to host h: refused")),
        (DAEMON, 10, [], [], ProbeResult("connection failed (exit 10)")),
    ],
)
def test_finding_is_what_the_node_has_answered(
    settings: TransferSettings, code: int, stdout: list[bytes], lines: list[bytes], expected: ProbeResult
) -> None:
    assert finding(settings, code, stdout, lines) == expected
