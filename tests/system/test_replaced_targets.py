"""Targets that are replaced on the node, by an empty directory or a restored one, while changes go on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from support.churn import Churn
from support.daemon import MakeDaemon, Patched
from support.real_rsync import IS_NEWEST
from support.rsyncd import MakeRsyncd
from support.sshd import Sshd
from support.warm import MakeWarm, Warm, set_up

IS_ROOT = os.geteuid() == 0
LOST = r"WARNING: far: .* lacks what it was sent, as if it were another directory: full mirror follows"
TRANSPORTS = [
    pytest.param("chroot", marks=pytest.mark.skipif(not IS_ROOT, reason="chroot needs root")),
    "daemon",
    "ssh",
    "rrsync",
]
LOOKS_OFTEN = """
from inosync.worker import remote_targets
remote_targets.LOOK_SECONDS, remote_targets.PERIOD_SECONDS = 0.02, 0.1
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """The directory of the node; the copy of the tree is in there."""
    return tmp_path / "nodes/far"


def far(way: str, home: Path, make: MakeDaemon, rsyncd: MakeRsyncd, sshd: Sshd, **settings: object) -> Warm:
    module = home / "nodes/far"
    module.mkdir(parents=True)
    location = sshd.node("a", f"{module}/")
    options = {"use chroot": "yes" if way == "chroot" else "no"}
    if way in ("chroot", "daemon"):
        location = rsyncd({"far": module}, options=options).url("far")
    if way == "rrsync":
        rrsync = shutil.which("rrsync")
        if rrsync is None:
            pytest.skip("rrsync is not installed")
        location = sshd.node("a")
        key = (sshd.home / "user_key.pub").read_text()
        (sshd.home / "authorized_keys").write_text(f'restrict,command="{rrsync} -wo -no-lock {module}" {key}')
    return set_up(home, make, {"far": {"node": location}}, ("tree",), sshd.env(), **settings)


@pytest.mark.parametrize("way", TRANSPORTS)
def test_target_that_is_replaced_by_an_empty_one_is_filled_after_a_change(
    way: str, tmp_path: Path, module: Path, daemon: MakeDaemon, rsyncd: MakeRsyncd, own_sshd: Sshd
) -> None:
    w = far(way, tmp_path, daemon, rsyncd, own_sshd)
    for name in ("one", "two", "three"):
        w.change(name)
    w.daemon.start()
    w.until_level()
    w.until_warm()
    module.rename(tmp_path / "old")
    module.mkdir()
    if way == "ssh":
        w.copy("far").mkdir()  # else the batch itself finds that its target is gone
    w.change("two", "changed")
    w.until_level()
    if way != "rrsync" or IS_NEWEST:  # an older rrsync does not keep its directory open
        w.daemon.until_logged(LOST)
    w.change("three", "changed")
    w.until_level()


@pytest.mark.parametrize("way", TRANSPORTS)
def test_target_that_is_replaced_is_filled_without_kept_connections(
    way: str, tmp_path: Path, module: Path, daemon: MakeDaemon, rsyncd: MakeRsyncd, own_sshd: Sshd
) -> None:
    w = far(way, tmp_path, daemon, rsyncd, own_sshd, rwarm=False)
    for name in ("one", "two", "three"):
        w.change(name)
    w.daemon.start()
    w.until_level()
    module.rename(tmp_path / "old")
    w.copy("far").mkdir(parents=True)
    w.change("two", "changed")
    w.until_level()
    w.daemon.until_logged(LOST)


@pytest.mark.parametrize("way", ["chroot", "daemon", "rrsync"])
def test_restored_backup_under_a_kept_connection_gets_what_it_lacks(
    way: str, tmp_path: Path, module: Path, daemon: MakeDaemon, rsyncd: MakeRsyncd, own_sshd: Sshd
) -> None:
    w = far(way, tmp_path, daemon, rsyncd, own_sshd)
    (w.tree() / "sub").mkdir()
    for name in ("sub/one", "sub/two"):
        w.change(name)
    w.daemon.start()
    w.until_level()
    shutil.copytree(module, tmp_path / "backup", symlinks=True)
    w.change("sub/one", "changed after the backup")
    w.until_level()
    w.until_warm()
    module.rename(tmp_path / "old")
    (tmp_path / "backup").rename(module)
    w.change("sub/two", "changed after it was restored")
    w.until_level(timeout=120)
    w.daemon.until_logged(LOST)


@pytest.mark.parametrize("way", ["chroot", "daemon"])
def test_module_that_is_away_for_a_while_makes_the_node_retry(
    way: str, tmp_path: Path, module: Path, daemon: MakeDaemon, rsyncd: MakeRsyncd, own_sshd: Sshd
) -> None:
    w = far(way, tmp_path, daemon, rsyncd, own_sshd)
    w.change("one")
    w.daemon.start()
    w.until_level()
    w.until_warm()
    module.rename(tmp_path / "old")
    w.change("two")
    w.until_title("far", r"\[retry .*")
    module.mkdir()
    w.until_level(timeout=240)


@pytest.mark.slow
@pytest.mark.parametrize("way", [TRANSPORTS[0], "ssh"])
def test_target_under_churn_is_never_taken_for_another_one(
    way: str, seed: int, tmp_path: Path, patched: Patched, rsyncd: MakeRsyncd, own_sshd: Sshd
) -> None:
    w = far(way, tmp_path, patched(LOOKS_OFTEN), rsyncd, own_sshd)
    churn = Churn(os.fsencode(w.tree()), seed)
    w.daemon.start()
    w.until_level()
    for number in range(30):
        churn.run(20)
        if number % 5 == 0:
            w.daemon.ask("flush", timeout=60)
    w.until_level()
    assert "lacks what it was sent" not in w.daemon.log(), churn.seed
    assert w.rsync.starts("verify")


@pytest.mark.parametrize("keeps_warm", [True, False])
def test_local_target_that_is_replaced_is_filled_with_the_next_change(
    keeps_warm: bool, tmp_path: Path, warm: MakeWarm
) -> None:
    w = warm({"local": ""}, rwarm=keeps_warm)
    w.change("before")
    w.daemon.start()
    w.until_level()
    if keeps_warm:
        w.until_warm()
    w.copy("local").rename(tmp_path / "old")
    w.copy("local").mkdir()
    w.change("after")
    w.until_level()
    w.daemon.until_logged("WARNING: local: .* is another directory than before: full mirror follows")


def test_replaced_module_of_a_daemon_is_filled_by_resync_and_followed(
    tmp_path: Path, warm: MakeWarm, rsyncd: MakeRsyncd
) -> None:
    module = tmp_path / "nodes/far"
    w = warm({"far": rsyncd({"far": module}).url("far")})
    w.change("before")
    w.daemon.start()
    w.until_level()
    before = w.until_warm()
    module.rename(tmp_path / "old")
    module.mkdir()
    w.daemon.ask("resync", node="far")
    w.until_arrived("far", "before")
    w.until_gone(before["far"]["tree"])
    w.change("after")
    w.until_level()
