"""What mends a node, by what its rsync or ssh says."""

from __future__ import annotations

import pytest

from inosync.rsync.advice import advice

SSH = ("ssh", "-l", "u", "h")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("Host key verification failed.", "ssh -l u h"),
        ("No ED25519 host key is known for h and you have requested strict checking.", "ssh -l u h"),
        ("Host key for h has changed and you have requested strict checking.", "ssh-keygen -R"),
        ("u@h: Permission denied (publickey).", "ssh -l u h"),
        (
            "/usr/bin/rrsync error: Another instance of rrsync is already accessing this directory.",
            "-no-lock",
        ),
        ("/usr/bin/rrsync error: Restricted directory does not exist!", "make the directory"),
        ("bash: line 1: rsync: command not found", "install rsync"),
        ("sh: 1: rsync: not found", "install rsync"),
        ('server sent "SSH-2.0-OpenSSH_9.2p1" rather than greeting', "no rsync"),
        ("protocol version mismatch -- is your shell clean?", "no rsync"),
        ("@ERROR: auth failed on module www", "--password-file"),
        ('mkdir "/etc/copy" failed: Read-only file system (30)', "ReadWritePaths"),
    ],
)
def test_advice_mends_what_the_reason_says(reason: str, expected: str) -> None:
    assert expected in advice(reason, SSH)


@pytest.mark.parametrize(
    "reason", ["", "Connection refused (111)", "write failed: No space left on device (28)"]
)
def test_advice_is_empty_where_the_reason_says_it_all(reason: str) -> None:
    assert advice(reason, SSH) == ""
