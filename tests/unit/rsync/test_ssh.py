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


SHELLS = {"-e ssh -p 2222": "ssh -p 2222", "-z --rsh=rsh": "rsh", "-e a --rsh=b -e c": "c"}


@pytest.mark.parametrize(
    "extra",
    [
        ["-e", "ssh -p 2222"],
        ["-e", "a", "--rsh=b", "-e", "c"],
        ["-essh"],
        ["-avze", "ssh"],
        ["-avzessh"],
        ["--rsh=ssh"],
        ["--rsh", "ssh"],
        ["-z", "--rsh=rsh"],
    ],
)
def test_chosen_sees_a_remote_shell_in_extra(extra: list[str]) -> None:
    assert ssh.chosen(extra, {"RSYNC_RSH": "other"}) == SHELLS.get(" ".join(extra), "ssh")


@pytest.mark.parametrize(
    "extra",
    [[], ["-z"], ["--exclude", "-e"], ["--exclude=--rsh=ssh"], ["-f", "-e"], ["--rsync-path=rsh", "-Te"]],
)
def test_chosen_ignores_other_words(extra: list[str]) -> None:
    assert ssh.chosen(extra, {"PATH": "/usr/bin"}) is None


@pytest.mark.parametrize("value", ["ssh -p 2222", ""])
def test_chosen_sees_a_remote_shell_in_the_environment(value: str) -> None:
    assert ssh.chosen([], {"RSYNC_RSH": value}) == value


SPLITS = {
    "": (),
    "  ": (),
    "ssh": ("ssh",),
    " ssh  -p 22 ": ("ssh", "-p", "22"),
    "ssh\t-p": ("ssh\t-p",),
    "ssh -i 'my key'": ("ssh", "-i", "my key"),
    'ssh -i "my key"': ("ssh", "-i", "my key"),
    "ssh -oProxyCommand='nc %h 22' -q": ("ssh", "-oProxyCommand=nc %h 22", "-q"),
    "a'b'c\"d\"e": ("abcde",),
    '\'it\'\'s\' "say ""x"""': ("it's", 'say "x"'),
    "\"it's\" '\"'": ("it's", '"'),
    "'' x": ("", "x"),
    "''''": ("'",),
    "a\\ b": ("a\\", "b"),
    "ssh -i 'my key": (),
    "'a''": (),
    'ssh "': (),
}
"""What rsync makes of a remote shell; tests/system/test_rsync_facts.py asks rsync itself."""


@pytest.mark.parametrize("shell", SPLITS)
def test_split_sees_the_words_that_rsync_sees(shell: str) -> None:
    assert ssh.split(shell) == SPLITS[shell]


@given(st.lists(st.text(st.sampled_from("ab '\"\\-=%\n"))))
def test_join_makes_what_split_takes_apart(words: list[str]) -> None:
    assert ssh.split(ssh.join(words)) == tuple(words)


@pytest.mark.parametrize(
    ("shell", "takes"),
    [
        ("ssh", True),
        ("/opt/my/ssh -p 22 -oUser=x -4Cp22 -v -l -x", True),
        ("nice -n 5 ssh -p 22", True),
        ("sshpass -f /etc/secret ssh", True),
        ("/usr/local/bin/wrapper gateway", True),  # nobody knows; it has to be proved
        ("ssh gateway ssh", False),
        ("ssh -p 22 gateway ssh -p 23", False),
        ("ssh -4p22 gateway", False),
        ("ssh -o User=x -- gateway", False),
        ("ssh -", False),
        ("sshpass -p ssh ssh", False),
        ("", False),
    ],
)
def test_options_behind_a_host_are_not_for_the_ssh_here(shell: str, takes: bool) -> None:
    assert ssh.takes_options(ssh.split(shell)) is takes


@pytest.mark.parametrize(
    ("output", "is_openssh"),
    [
        (b"OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19 27 Jan 2026\n", True),
        (b"warning: x\r\nOpenSSH_10.0p2, LibreSSL 4\n", True),
        (b"Dropbear v2022.83\n", False),
        (b"plink: Release 0.78\n", False),
        (b"this is no OpenSSH_9\n", False),
        (b"", False),
    ],
)
def test_openssh_is_known_by_what_it_says(output: bytes, is_openssh: bool) -> None:
    assert ssh.is_openssh(output) is is_openssh


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
    assert ssh.destination(node, extra, "/usr/bin/ssh") == words


def test_only_a_program_called_ssh_gets_the_address_family() -> None:
    assert ssh.destination("u@host:", ["-6"], "/usr/bin/my-ssh") == ("-l", "u", "--", "host")


def test_query_shows_what_the_user_has_set() -> None:
    question = ssh.query_argv(("ssh", "-p", "22"), ("-l", "user", "--", "host"))
    assert question == ("ssh", "-p", "22", "-G", "-o", "BatchMode=no", "-l", "user", "--", "host")


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
    ssh.default_ways(parsed, "/run/inosync/ssh-1", ("--", "host"))


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
    assert ssh.control_path("/run/inosync", 4711) == "/run/inosync/ssh-4711"
    assert ssh.control_path("/run/inosync/", 4711) == "/run/inosync/ssh-4711"


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
    path = ssh.control_path(directory, 1)
    assert path == ("" if directory else "/ssh-1")


def test_control_path_leaves_room_for_the_temporary_name() -> None:
    longest = "/run/" + "d" * (90 - len("/run/") - len("/ssh-1"))
    assert len(ssh.control_path(longest, 1)) == 90
    assert ssh.control_path(longest + "d", 1) == ""
    assert ssh.control_path(longest, 10) == ""


# The ways --------------------------------------------------------------------------------------------------

PATH, TO = "/run/x/ssh-1", ("-l", "user", "--", "host")
BASE = "ssh -o BatchMode=yes -o ClearAllForwardings=yes -o ConnectTimeout=20 -o ServerAliveInterval=5"
THROUGH = f"-o ControlMaster=no -o ControlPath={PATH} -o ControlPersist=no"
OURS = THROUGH.replace("ControlMaster=no", "ControlMaster=yes")
SHARING = [
    {"controlpath": "/home/user/.ssh/%C"},
    {"controlmaster": "auto", "controlpath": "/home/user/.ssh/abc"},
    {"controlmaster": "auto"},
    {"controlmaster": "true"},
    {"controlmaster": "ask"},
]


def test_user_without_a_choice_shares_our_connection() -> None:
    ways = ssh.default_ways(found(), PATH, TO)
    master = (*f"{BASE} {OURS} -N -T".split(), *TO)
    assert ways == ssh.Ways(BASE, (ssh.Way(f"{BASE} {THROUGH}", master),), PATH)


@pytest.mark.parametrize("own", SHARING)
def test_connection_shared_by_ssh_config_comes_after_ours(own: dict[str, str]) -> None:
    ways = ssh.default_ways(found(**own), PATH, TO)
    assert [way.rsh for way in ways.ways] == [f"{BASE} {THROUGH}", BASE]
    assert [bool(way.master) for way in ways.ways] == [True, False]
    ways = ssh.chosen_ways(("ssh", "-p", "22"), found(**own), PATH, TO, is_first=False)
    assert [way.rsh for way in ways.ways] == [f"ssh -p 22 {THROUGH}", ""]


def test_connection_shared_by_the_options_of_rsh_comes_before_ours() -> None:
    words = ("ssh", "-S", "/my own/cm")
    ways = ssh.chosen_ways(words, found(controlpath="/my own/cm"), PATH, TO, is_first=True)
    assert [way.rsh for way in ways.ways] == ["", f"ssh {THROUGH} -S '/my own/cm'"]
    assert [bool(way.master) for way in ways.ways] == [False, True]


def test_remote_shell_of_the_user_gets_no_option_but_the_connection() -> None:
    words = ("nice", "ssh", "-p", "22")
    ways = ssh.chosen_ways(words, found(serveraliveinterval="7"), PATH, TO, is_first=False)
    assert (ways.direct, ways.path) == ("", PATH)
    [way] = ways.ways
    assert way.rsh == f"nice ssh -p 22 {THROUGH}"
    assert way.master == (*f"nice ssh -p 22 {OURS} -N -T -o ConnectTimeout=20".split(), *TO)


def test_options_that_have_to_win_stand_right_behind_ssh() -> None:
    call = ssh.through(("nice", "-n", "5", "ssh", "-p", "22"), PATH, is_first=True)
    assert " ".join(call) == f"nice -n 5 ssh {THROUGH} -p 22"
    assert ssh.through(("my-ssh", "x"), PATH, is_first=True)[:2] == ("my-ssh", "-o")


def test_nothing_is_shared_without_a_path() -> None:
    assert ssh.default_ways(found(), "", TO) == ssh.Ways(BASE, (ssh.Way(BASE),))


@pytest.mark.parametrize(
    ("own", "is_through"),
    [
        ({}, True),
        ({"controlmaster": "no"}, True),
        ({"controlmaster": "auto"}, False),
        ({"controlpersist": "60"}, False),
        ({"controlpath": f"{PATH}-gateway-7"}, False),  # the options have come to an ssh elsewhere
        ({"controlpath": f"{PATH}-here-0"}, False),  # or to one of another user, who cannot make the socket
        ({"controlpath": f"{PATH}-%l-%i"}, False),
        ({"controlpath": "/home/user/cm"}, False),
    ],
)
def test_connection_is_used_where_it_is_proved_to_work(own: dict[str, str], is_through: bool) -> None:
    assert ssh.proof_path(PATH) == f"{PATH}-%l-%i"
    answer = found(**{"controlpath": f"{PATH}-here-7", **own})
    assert ssh.is_through(answer, PATH, "here", 7) is is_through


@given(st.dictionaries(st.sampled_from(["connecttimeout", "serveraliveinterval"]), st.text()), st.text())
def test_rsh_of_ours_needs_no_quotes(own: dict[str, str], directory: str) -> None:
    for way in ssh.default_ways(own, ssh.control_path("/" + directory, 1), TO).ways:
        assert not set(way.rsh) & set("\"'\\%~$\n\t")
        assert len(way.rsh.split(" ")) % 2 == 1
