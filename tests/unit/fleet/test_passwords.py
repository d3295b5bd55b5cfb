"""The passwords of a fleet stand in files that others cannot read."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from inosync.config.fleet import RedisAddress
from inosync.fleet.passwords import NO_PASSWORDS, Passwords, read, unreadable


@pytest.mark.parametrize("mode", [0o604, 0o622, 0o660])
def test_password_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    file.chmod(mode)
    with pytest.raises(OSError, match="others can read or change it") as raised:
        read(RedisAddress("redis://r", password_file=str(file)))
    assert unreadable(raised.value) == f"{file}: others can read or change it: chmod 600"


@pytest.mark.parametrize("which", ["password_file", "sentinel_password_file"])
def test_password_whose_file_is_gone_is_a_reason(tmp_path: Path, which: str) -> None:
    address = RedisAddress("redis+sentinel://a/b", **{which: str(tmp_path / "gone")})
    with pytest.raises(FileNotFoundError) as raised:
        read(address)
    assert unreadable(raised.value) == f"{tmp_path}/gone: No such file or directory"


def test_password_is_the_first_line_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\nmore\n")
    file.chmod(0o640)
    other = tmp_path / "sentinels"
    other.write_text("of Sentinels \n")
    other.chmod(0o600)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    address = RedisAddress("redis+sentinel://a/b", "www", str(file), sentinel_password_file=str(other))
    assert read(address) == Passwords("s3cret", "of Sentinels")
    assert read(RedisAddress("redis://r")) == NO_PASSWORDS
