"""What an rsync is asked, and what is no answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from inosync.rsync import binary


def script(home: Path, shell: str) -> str:
    path = home / "rsync"
    path.write_text(f"#!/bin/sh\n{shell}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("yes", [True, False])
def test_supports_option_is_the_exit_code(tmp_path: Path, yes: bool) -> None:
    asked = script(tmp_path, f'[ "$*" = "--version --option=/" ] && exit {0 if yes else 1}; exit 2')
    assert binary.supports_option(asked, "--option=/") is yes


@pytest.mark.parametrize(
    ("shell", "expected"),
    [
        ("exec sleep 1000", "no answer to --version for 0.1 s"),
        ("kill -9 $$", "killed by signal 9 at --version"),
    ],
)
def test_supports_option_without_an_answer_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str, expected: str
) -> None:
    if "sleep" in shell:
        monkeypatch.setattr(binary, "_TIMEOUT_SECONDS", 0.1)
    asked = script(tmp_path, shell)
    with pytest.raises(OSError, match=expected) as caught:
        binary.supports_option(asked, "--option=/")
    assert (caught.value.filename, caught.value.strerror) == (asked, expected)


def test_supports_option_of_a_missing_binary_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        binary.supports_option(str(tmp_path / "rsync"), "--option=/")
