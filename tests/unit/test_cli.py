"""The command line: which options conflict, and what it imports."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
from support import configs

from inosync import cli
from inosync.config.load import Config, load

CHECKOUT = Path(__file__).resolve().parents[2]


def mistake(arguments: str) -> str:
    return cli._usage_mistake(cli.parser().parse_args(arguments.split()))


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "-p -v",
        "-t -v",
        "--once",
        "-s status",
        "-s status a --json --lag 5",
        "-s flush --timeout 3",
        "-s pause all",
    ],
)
def test_usage_that_is_right_passes(arguments: str) -> None:
    assert mistake(arguments) == ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("a", "'a' is no option, and there is no -s COMMAND before it"),
        ("--json", "--json belongs to -s COMMAND"),
        ("--timeout 0", "--timeout belongs to -s COMMAND"),
        ("--lag 1", "--lag belongs to -s COMMAND"),
        ("--stage 1", "--stage belongs to -s COMMAND"),
        ("-t -d", "-t and -d do not go together"),
        ("--init --install-files x", "--init and --install-files do not go together"),
        ("--full --install-files x", "--full and --install-files do not go together"),
        ("--full --once", "--full and --once do not go together"),
        ("-t --full", "--full and -t do not go together"),
        (
            "-s status --full",
            "-s asks a daemon that runs; -d, -p, -t, --init, --once and --full are for one that does not",
        ),
        ("-d -p", "-d and -p do not go together"),
        ("-p --full", "--full and -p do not go together"),
        ("-s stats", "there is no command 'stats'; did you mean status?"),
        (
            "-s status -t",
            "-s asks a daemon that runs; -d, -p, -t, --init, --once and --full are for one that does not",
        ),
        ("-s pause", "-s pause of which node? Say its name, or all"),
        ("-s stop a", "-s stop takes no node"),
        ("-s status --timeout 1", "--timeout belongs to -s flush, -s diff, -s hold, and --wait"),
        ("-s flush --lag 1", "--lag belongs to -s status"),
        ("-s status --stage 1", "--stage belongs to -s flush, without a node"),
        ("-s flush a --stage 1", "--stage belongs to -s flush, without a node"),
    ],
)
def test_usage_that_is_wrong_says_why(arguments: str, expected: str) -> None:
    assert mistake(arguments) == expected


@pytest.mark.parametrize("arguments", ["--timeout -1", "--timeout nan", "--lag inf", "--lag x", "--nonsense"])
def test_usage_that_cannot_be_parsed_ends_with_64(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.parser().parse_args(arguments.split())
    assert caught.value.code == 64
    assert capsys.readouterr().err.endswith("; try inosync --help\n")


def test_asking_a_daemon_imports_no_daemon() -> None:
    """Monitoring and deploy scripts ask all day: each import is processor time."""
    words = ["-c", "/nonexistent/inosync.py", "-s", "status"]
    script = f"import sys; from inosync import cli; cli.main({words}); print(*sys.modules)"
    program = [sys.executable, "-c", script]
    done = subprocess.run(program, capture_output=True, text=True, check=True, cwd=CHECKOUT)
    loaded = {name for name in done.stdout.split() if name.startswith("inosync.")}
    of_daemons = {"master", "worker", "nodes", "journal", "watch", "rsync", "guard", "startup", "check"}
    assert {name for name in loaded if name.split(".")[1] in of_daemons} == set()
    assert not {"psutil", "pyinotify", "multiprocessing"} & set(done.stdout.split())


@pytest.mark.usefixtures("here")
def test_sender_tries_only_the_nodes_that_it_may_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"node": "/a", "name": "all"},
        {"node": "/b", "name": "ours", "senders": ["s"]},
        {"node": "/c", "name": "theirs", "senders": ["t"]},
        {"node": "/d", "name": "origin", "senders": []},
    ]
    senders = [{"node": "/s", "name": "s"}, {"node": "/t", "name": "t"}]
    path = configs.write(configs.text(rnodes=repr(nodes), rsenders=repr(senders), fleet="'redis://r/0'"))
    tried: list[str] = []
    monkeypatch.setattr("inosync.check.show_config", lambda _config: None)

    def try_nodes(config: Config) -> bool:
        tried.extend(node.name for node in config.nodes)
        return True

    monkeypatch.setattr("inosync.check.try_nodes", try_nodes)
    options = argparse.Namespace(test=True, offline=False, calls=False)
    assert cli._try_out(load(path, "s"), options) == 0
    assert tried == ["all", "ours"]
