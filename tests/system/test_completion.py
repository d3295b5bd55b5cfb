"""Completion in real shells, with the nodes of a real daemon."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.daemon import LAUNCHER, Daemon, MakeDaemon

from inosync import cli
from inosync.console import protocol

CONF = Path(__file__).resolve().parents[2] / "conf"
BASH, ZSH = shutil.which("bash"), shutil.which("zsh")
NAMES = [
    "plain",
    "user@host",
    "www.example.com::module/a",
    "with space",
    "it's $(touch oops) `x`",
    'quo"ted\\',
]


@dataclass
class Shell:
    """A bash with the completion and an inosync in its PATH."""

    home: Path
    daemon: Daemon

    def complete(self, line: str) -> list[str]:
        """Return what bash offers at the end of this line, with the default COMP_WORDBREAKS."""
        program = (
            f"source {shlex.quote(str(CONF / 'completion.bash'))}\n"
            f"COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)} COMP_WORDS=() COMP_CWORD=0\n"
            "_inosync\n"
            'printf "%s\\n" "${COMPREPLY[@]}"\n'
        )
        assert BASH is not None
        done = subprocess.run(
            [BASH, "--norc", "--noprofile", "-c", program],
            cwd=self.home,
            env={**os.environ, "PATH": f"{self.home}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == ""
        return [word for word in done.stdout.splitlines() if word]

    def nodes(self, line: str) -> list[str]:
        """Return what is offered, without the shell's quoting."""
        return sorted(shlex.split(word)[0] for word in self.complete(line))


@pytest.fixture
def shell(tmp_path: Path, daemon: MakeDaemon) -> Iterator[Shell]:
    (tmp_path / "tree").mkdir()
    (tmp_path / "node").mkdir()
    nodes = [{"node": f"{tmp_path}/node/{number}", "name": name} for number, name in enumerate(NAMES)]
    made = daemon({"wpaths": [str(tmp_path / "tree")], "rpaths": ["/"], "rnodes": nodes, "rwarm": False})
    made.start()
    wrapper = tmp_path / "inosync"
    words = " ".join(map(shlex.quote, (sys.executable, str(LAUNCHER))))
    wrapper.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    wrapper.chmod(0o755)
    yield Shell(tmp_path, made)
    assert list(tmp_path.rglob("oops")) == []


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
def test_bash_completes_options_commands_and_nodes(shell: Shell) -> None:
    config = f"-c {shell.daemon.file}"
    options = {option for action in cli.parser()._actions for option in action.option_strings}
    assert set(shell.complete("inosync -")) == options
    assert shell.complete("inosync --ti") == ["--timeout"]
    assert shell.complete("inosync -s ") == list(protocol.COMMANDS)
    assert shell.complete("inosync -s fl") == ["flush"]
    assert shell.nodes(f"inosync {config} -s status ") == sorted(NAMES)
    assert shell.nodes(f"inosync {config} -s pause ") == sorted(["all", *NAMES])
    assert shell.complete(f"inosync {config} -s stop ") == []
    assert shell.complete(f"inosync {config} -s flush pl") == ["plain"]
    assert shell.complete(f"inosync {config} -s flush www.example.com:") == [":module/a"]
    assert shell.complete(f"inosync {config} -s flush www.example.com::m") == ["module/a"]
    assert shell.complete(f"inosync {config} -s flush plain ") == []
    assert shell.complete(f"inosync {config} -s flush --timeout ") == []
    # Without a daemon nothing is offered and no error is printed.
    assert shell.complete("inosync -c /nowhere.py -s status ") == []
    (shell.home / "some.py").touch()
    (shell.home / "some.txt").touch()
    assert shell.complete("inosync -c som") == ["some.py"]


@pytest.mark.skipif(ZSH is None, reason="zsh is not installed")
def test_zsh_completion_is_well_formed() -> None:
    assert ZSH is not None
    done = subprocess.run([ZSH, "-n", CONF / "completion.zsh"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_zsh_completion_knows_every_option_and_command() -> None:
    text = (CONF / "completion.zsh").read_text()
    options = {option for action in cli.parser()._actions for option in action.option_strings}
    completed = set(re.findall(r"^        '(--?[a-z-]+)\[", text, re.MULTILINE)) | {"-h", "--help"}
    assert completed == options
    commands = re.search(r":command:\(([a-z ]+)\)", text)
    assert commands is not None
    assert commands[1].split() == list(protocol.COMMANDS)
