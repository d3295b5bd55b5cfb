"""The file of the state: it appears whole, nothing that others can write is read, a failure leaves none."""

from __future__ import annotations

import errno
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from inosync.state import store
from inosync.state.document import MAX_BYTES, NodeEvent, SavedNode, State, StateError, encode
from inosync.state.saved_fleet import SavedFleet

STATE = State("/etc/c.py", 9.5, "boot", 1.25, True, nodes={"n": SavedNode(paused=True), "m": SavedNode(5.0)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c.state"


def refused(path: Path) -> str:
    with pytest.raises(StateError) as caught:
        store.read(str(path))
    return str(caught.value)


def test_state_that_was_written_is_read(path: Path) -> None:
    store.write(str(path), b"old")
    store.write(str(path), encode(STATE))
    assert store.read(str(path)) == STATE
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o600


def test_state_that_is_not_there_says_so(path: Path) -> None:
    assert refused(path) == "does not exist yet"


def test_torn_state_says_so(path: Path) -> None:
    path.write_bytes(encode(STATE)[:-1])
    assert refused(path) == "is damaged: its checksum is wrong"


def test_symlink_and_fifo_are_no_state(path: Path) -> None:
    os.mkfifo(path)
    assert "is no file of the user" in refused(path)
    path.unlink()
    (path.parent / "real").write_bytes(encode(STATE))
    path.symlink_to("real")
    assert refused(path).startswith("cannot be read: ")


def test_state_that_others_can_write_is_not_read(path: Path) -> None:
    store.write(str(path), encode(STATE))
    path.chmod(0o620)
    assert refused(path) == "can be written by others"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_state_of_another_user_is_not_read(path: Path) -> None:
    store.write(str(path), encode(STATE))
    os.chown(path, 12345, -1)
    assert "is no file of the user" in refused(path)


def test_enormous_file_is_not_read(path: Path) -> None:
    path.touch(0o600)
    os.truncate(path, MAX_BYTES + 1)
    assert refused(path) == "is too large"


def test_write_that_fails_leaves_no_older_state(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, "broken")

    store.write(str(path), encode(STATE))
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="broken"):
        store.write(str(path), encode(STATE))
    assert list(path.parent.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_full_disk_leaves_no_older_state_and_a_read_only_one_is_not_read(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted")
    try:
        path = tmp_path / "c.state"
        store.write(str(path), encode(STATE))
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        assert refused(path) == "is on a read-only file system: it may not be the newest one"
        with pytest.raises(OSError, match="Read-only"):
            store.write(str(path), encode(STATE))
        subprocess.run(["mount", "-o", "remount,rw", str(tmp_path)], check=True)
        assert store.read(str(path)) == STATE
        with pytest.raises(OSError, match="No space"):
            store.write(str(path), bytes(1 << 20))
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_files_of_one_name_in_two_directories_have_two_states(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "c.py").touch()
    (tmp_path / "link").symlink_to("a")
    paths = [store.path_of("/state", str(tmp_path / name / "c.py")) for name in ("a", "b", "link")]
    assert paths[0] == paths[2] != paths[1]
    assert all(Path(path).parent == Path("/state") and Path(path).name.startswith("c-") for path in paths)


def test_pauses_and_events_are_all_that_a_full_start_takes_over() -> None:
    events = (NodeEvent(1.0, "state", "is ok"),)
    other = SavedNode(time=1.0, events=events)
    fleet = SavedFleet("c", "e", 9, 3, 5.0)
    nodes = {**STATE.nodes, "o": other, "p": SavedNode(time=1.0)}
    kept = store.only_pauses(replace(STATE, nodes=nodes, fleet=fleet))
    assert kept.nodes == {"n": SavedNode(paused=True), "o": SavedNode(events=events)}
    assert (kept.trees, kept.fleet) == ({}, None)
