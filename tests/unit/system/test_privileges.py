"""To be another user, with some of root's rights. Each test is over in a child."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest
from support import child_process

from inosync.system import process
from inosync.system.privileges import (
    CAP_DAC_READ_SEARCH,
    CAP_LEASE,
    Account,
    account,
    become,
    drop_all,
    drop_lease,
    renounce,
)

NOBODY = pwd.getpwnam("nobody")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody")


def in_child(run: Callable[[], object]) -> str:
    return child_process.in_child(run, lambda error: type(error).__name__)


def nobody() -> tuple[int, ...]:
    return become(account("nobody"), (CAP_DAC_READ_SEARCH, CAP_LEASE), (CAP_DAC_READ_SEARCH,))


def status(*words: str) -> list[str]:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return [lines[word].strip() for word in words]


def test_account_is_a_user_or_a_user_and_a_group() -> None:
    assert account("root") == Account("root", 0, 0, tuple(os.getgrouplist("root", 0)), pwd.getpwuid(0).pw_dir)
    mixed = account("nobody:root")
    assert (mixed.uid, mixed.gid, set(mixed.groups) >= {0}) == (NOBODY.pw_uid, 0, True)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("nobody here", "there is no user 'nobody here'"),
        ("", "there is no user ''"),
        ("0", "there is no user '0'"),
        ("nobody:no group", "there is no group 'no group'"),
        ("nobody:", "there is no group ''"),
    ],
)
def test_account_that_does_not_exist_is_named(text: str, wrong: str) -> None:
    with pytest.raises(LookupError, match=wrong):
        account(text)


@root_only
def test_become_gives_up_all_other_identities() -> None:
    def look() -> object:
        lost = nobody()
        found = status("Uid", "Gid", "Groups", "CapPrm", "CapEff", "CapInh", "CapAmb")
        return (lost, *found, os.environ["HOME"], os.environ["USER"])

    uid, gid = "\t".join([str(NOBODY.pw_uid)] * 4), "\t".join([str(NOBODY.pw_gid)] * 4)
    own, passed_on = f"{1 << CAP_DAC_READ_SEARCH | 1 << CAP_LEASE:016x}", f"{1 << CAP_DAC_READ_SEARCH:016x}"
    groups = str(NOBODY.pw_gid)
    expected = ((), uid, gid, groups, own, own, passed_on, passed_on, NOBODY.pw_dir, "nobody")
    assert in_child(look) == str(expected)


@root_only
def test_renounced_privileges_do_not_come_back() -> None:
    def back() -> object:
        nobody()
        os.setuid(0)
        return "root again"

    assert in_child(back) == "PermissionError"


@root_only
def test_everything_can_be_read_and_nothing_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)

    def read() -> object:
        nobody()
        child = process.spawn(("/bin/cat", str(secret)))
        assert child.wait(30) == 0
        assert child.stdout is not None
        return secret.read_text() + child.stdout.read().decode()

    def write() -> object:
        nobody()
        return secret.write_text("other")

    assert in_child(read) == "secretsecret"
    assert in_child(write) == "PermissionError"


CAPABILITIES = ("CapPrm", "CapEff", "CapInh", "CapAmb")


@root_only
def test_drop_lease_leaves_what_rsync_needs() -> None:
    def look() -> object:
        nobody()
        drop_lease()
        return status(*CAPABILITIES)

    assert in_child(look) == str([f"{1 << CAP_DAC_READ_SEARCH:016x}"] * 4)


@root_only
def test_drop_all_leaves_nothing_for_us_or_what_we_start() -> None:
    def look() -> object:
        nobody()
        drop_all()
        child = process.spawn(("/bin/cat", "/proc/self/status"))
        assert child.stdout is not None
        assert child.wait(30) == 0
        theirs = [line.split()[1] for line in child.stdout.read().decode().splitlines() if "Cap" in line]
        return status(*CAPABILITIES), theirs[:3]

    assert in_child(look) == str(([f"{0:016x}"] * 4, [f"{0:016x}"] * 3))


@root_only
@pytest.mark.parametrize("drop", [drop_lease, drop_all])
def test_root_keeps_its_capabilities(drop: Callable[[], None]) -> None:
    def look() -> object:
        before = status(*CAPABILITIES)
        drop()
        return before == status(*CAPABILITIES)

    assert in_child(look) == "True"


@root_only
def test_renounce_makes_root_nobody_without_any_right(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    def look() -> object:
        renounce()
        return status("Uid", "Gid", "Groups", *CAPABILITIES, "NoNewPrivs")

    uid, gid = "\t".join([str(NOBODY.pw_uid)] * 4), "\t".join([str(NOBODY.pw_gid)] * 4)
    assert in_child(look) == str([uid, gid, "", *[f"{0:016x}"] * 4, "1"])

    def write() -> object:
        renounce()
        return (tmp_path / "file").write_text("x")

    assert in_child(write) == "PermissionError"


@root_only
def test_renounce_leaves_another_user_what_it_is() -> None:
    def look() -> object:
        become(account("daemon"), (CAP_DAC_READ_SEARCH, CAP_LEASE), (CAP_DAC_READ_SEARCH,))
        renounce()
        return os.geteuid(), status("CapPrm", "CapAmb", "NoNewPrivs")

    assert in_child(look) == str((pwd.getpwnam("daemon").pw_uid, [f"{0:016x}", f"{0:016x}", "1"]))
