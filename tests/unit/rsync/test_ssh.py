"""The options of ssh, and where its connections may be shared, by the user's own configuration."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inosync.rsync import ssh

DEFAULTS = """\
user root
hostname a.mirror.com
batchmode no
controlmaster false
clearallforwardings no
serveralivecountmax 3
serveraliveinterval 0
identityfile ~/.ssh/id_rsa
identityfile ~/.ssh/id_ed25519
connecttimeout none
controlpersist no
"""
"""Of what ``ssh -G`` of OpenSSH 9.2 prints where nothing is configured."""

ALWAYS = ("BatchMode=yes", "ClearAllForwardings=yes")


def found(**own: str) -> dict[str, str]:
    return {**ssh.parse(DEFAULTS.encode()), **own}


@pytest.mark.parametrize(
    "extra",
    [
        ["-e", "ssh -p 2222"],
        ["-essh"],
        ["-avze", "ssh"],
        ["-avzessh"],
        ["--rsh=ssh"],
        ["--rsh", "ssh"],
        ["-z", "--rsh=rsh"],
    ],
)
def test_chosen_sees_a_remote_shell_in_extra(extra: list[str]) -> None:
    assert ssh.chosen(extra, {})


@pytest.mark.parametrize(
    "extra",
    [[], ["-z"], ["--exclude", "-e"], ["--exclude=--rsh=ssh"], ["-f", "-e"], ["--rsync-path=rsh", "-Te"]],
)
def test_chosen_ignores_other_words(extra: list[str]) -> None:
    assert not ssh.chosen(extra, {"PATH": "/usr/bin"})


@pytest.mark.parametrize("value", ["ssh -p 2222", ""])
def test_chosen_sees_a_remote_shell_in_the_environment(value: str) -> None:
    assert ssh.chosen([], {"RSYNC_RSH": value})


@pytest.mark.parametrize(
    ("node", "extra", "words"),
    [
        ("host:", [], ("--", "host")),
        ("user@host:/dir", [], ("-l", "user", "--", "host")),
        ("john@example.com@host:", [], ("-l", "john@example.com", "--", "host")),
        ("[::1]:/dir", [], ("--", "::1")),
        ("u@[fe80::1%eth0]:", [], ("-l", "u", "--", "fe80::1%eth0")),
        ("host:", ["-4"], ("-4", "--", "host")),
        ("host:", ["-z6"], ("-6", "--", "host")),
        ("host:", ["--ipv4", "--ipv6"], ("-6", "--", "host")),
        ("host::module", [], ()),
        ("rsync://host/module", [], ()),
        ("/srv/mirror", [], ()),
    ],
)
def test_destination_is_that_of_rsync(node: str, extra: list[str], words: tuple[str, ...]) -> None:
    assert ssh.destination(node, extra) == words


def test_query_shows_what_the_user_has_set() -> None:
    question = ssh.query_argv(("-l", "user", "--", "host"))
    assert question == ("ssh", "-G", "-o", "BatchMode=no", "-l", "user", "--", "host")


def test_parse_takes_the_first_of_two_values() -> None:
    assert found()["identityfile"] == "~/.ssh/id_rsa"


@pytest.mark.parametrize(
    ("output", "parsed"),
    [
        (b"", {}),
        (b"\r\n\n", {}),
        (b"canonicaldomains\n", {"canonicaldomains": ""}),
        (b"ServerAliveInterval  5 \r\n", {"serveraliveinterval": "5"}),
        (b"user \xff\n", {"user": "\ufffd"}),
    ],
)
def test_parse_reads_odd_lines(output: bytes, parsed: dict[str, str]) -> None:
    assert ssh.parse(output) == parsed


@given(output=st.binary())
def test_parse_accepts_any_bytes(output: bytes) -> None:
    parsed = ssh.parse(output)
    ssh.options(parsed)
    ssh.control_path(parsed, "/run/inosync", 1)


def test_options_are_all_set_for_a_user_without_any() -> None:
    expected = (*ALWAYS, "ConnectTimeout=20", "ServerAliveInterval=5")
    assert ssh.options(found()) == expected
    assert ssh.options({}) == expected


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"connecttimeout": "5"}, (*ALWAYS, "ServerAliveInterval=5")),
        ({"serveraliveinterval": "300"}, (*ALWAYS, "ConnectTimeout=20")),
        ({"connecttimeout": "60", "serveraliveinterval": "1"}, ALWAYS),
        # What versions print, or a user writes, for "not set".
        (
            {"connecttimeout": "0", "serveraliveinterval": "0"},
            (*ALWAYS, "ConnectTimeout=20", "ServerAliveInterval=5"),
        ),
        ({"connecttimeout": "-1", "serveraliveinterval": "5"}, (*ALWAYS, "ConnectTimeout=20")),
    ],
)
def test_options_leave_what_the_user_has_set(own: dict[str, str], expected: tuple[str, ...]) -> None:
    assert ssh.options(found(**own)) == expected


def test_control_path_is_in_the_run_directory_for_one_process() -> None:
    assert ssh.control_path(found(), "/run/inosync", 4711) == "/run/inosync/ssh-4711"
    assert ssh.control_path(found(), "/run/inosync/", 4711) == "/run/inosync/ssh-4711"
    assert ssh.control_path(found(controlpath="none"), "/run/inosync", 1) == "/run/inosync/ssh-1"


@pytest.mark.parametrize(
    "own",
    [
        {"controlpath": "/home/user/.ssh/%C"},
        {"controlmaster": "auto", "controlpath": "/home/user/.ssh/abc"},
        {"controlmaster": "auto"},
        {"controlmaster": "true"},
        {"controlmaster": "ask"},
    ],
)
def test_control_path_is_none_for_a_user_who_shares_connections(own: dict[str, str]) -> None:
    assert ssh.control_path(found(**own), "/run/inosync", 1) == ""


@pytest.mark.parametrize(
    "directory",
    [
        "run",
        "./run",
        "~/run",
        "/run/in sync",
        "/run/%h",
        "/run/${USER}",
        "/run/it's",
        '/run/"x"',
        "/run/a\\b",
        "/run/ü",
        "/run/x\n",
        "",
    ],
)
def test_control_path_is_none_in_a_directory_that_is_misread(directory: str) -> None:
    path = ssh.control_path(found(), directory, 1)
    assert path == ("" if directory else "/ssh-1")


def test_control_path_leaves_room_for_the_temporary_name() -> None:
    longest = "/run/" + "d" * (90 - len("/run/") - len("/ssh-1"))
    assert len(ssh.control_path(found(), longest, 1)) == 90
    assert ssh.control_path(found(), longest + "d", 1) == ""
    assert ssh.control_path(found(), longest, 10) == ""


def test_rsh_has_the_options_and_the_shared_connection() -> None:
    options = ("BatchMode=yes", "ConnectTimeout=20")
    assert ssh.rsh(options) == "ssh -o BatchMode=yes -o ConnectTimeout=20"
    assert ssh.rsh(options, "/run/x/ssh-1") == (
        "ssh -o BatchMode=yes -o ConnectTimeout=20 -o ControlMaster=no -o ControlPath=/run/x/ssh-1"
    )


@given(st.dictionaries(st.sampled_from(["connecttimeout", "serveraliveinterval"]), st.text()), st.text())
def test_rsh_needs_no_quotes(own: dict[str, str], directory: str) -> None:
    path = ssh.control_path({}, "/" + directory, 1)
    shell = ssh.rsh(ssh.options(own), path)
    assert not set(shell) & set("\"'\\%~$\n\t")
    assert len(shell.split(" ")) % 2 == 1


def test_master_argv_has_the_same_options_and_does_not_persist() -> None:
    assert ssh.master_argv(("BatchMode=yes",), "/run/x/ssh-1", ("-l", "user", "--", "host")) == (
        "ssh",
        "-N",
        "-T",
        "-o",
        "BatchMode=yes",
        "-o",
        "ControlMaster=yes",
        "-o",
        "ControlPath=/run/x/ssh-1",
        "-o",
        "ControlPersist=no",
        "-l",
        "user",
        "--",
        "host",
    )
