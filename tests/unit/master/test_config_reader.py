"""Reading a configuration in a process of its own; the processes, files and the loop are real."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from support import configs, procs

from inosync.config.errors import ConfigError
from inosync.config.load import Config, load
from inosync.master import config_reader
from inosync.master.config_reader import ConfigReader, Outcome
from inosync.system.loop import Loop

LIMIT_SECONDS = 60.0


class Bench:
    """A configuration file, and what reading it brings."""

    def __init__(self, home: Path) -> None:
        self.path = home / "default.py"
        self.text = configs.text(rnodes="['a:', {'node': 'b:', 'rexcludes': ['*.tmp']}]")
        self.write("")
        self.loop = Loop()
        self.found: list[Outcome] = []
        self.reader = ConfigReader(load, list, self.loop)

    def write(self, more: str) -> None:
        self.path.write_text(self.text + more)
        self.path.chmod(0o600)

    def begin(self) -> None:
        self.reader.read(str(self.path), self.found.append)

    def end(self) -> Outcome:
        until = time.monotonic() + LIMIT_SECONDS
        while not self.found:
            assert time.monotonic() < until
            self.loop.turn(0.05)
        return self.found.pop()

    def read(self) -> Outcome:
        self.begin()
        return self.end()


@pytest.fixture
def bench(here: Path) -> Bench:
    return Bench(here)


def test_config_is_the_same_as_if_it_was_read_here(bench: Bench) -> None:
    assert bench.read() == load(str(bench.path))


def test_mistakes_are_those_of_the_file(bench: Bench) -> None:
    bench.write("edelay = 'soon'\nnonsense = 1\n")
    found = bench.read()
    assert isinstance(found, ConfigError)
    with pytest.raises(ConfigError) as raised:
        load(str(bench.path))
    assert found.problems == raised.value.problems


def test_functions_are_those_of_this_process(bench: Bench) -> None:
    bench.write("def on_sync(event):\n    return event['node']\n")
    found = bench.read()
    assert isinstance(found, Config)
    assert found.on_sync is not None
    assert found.on_sync.call is not None
    assert found.on_sync.call({"node": "a"}) == "a"


def test_slow_file_is_not_waited_for(bench: Bench) -> None:
    bench.write(f"import os, time\nwhile not os.path.exists({str(bench.path)!r} + '.go'): time.sleep(0.01)\n")
    bench.begin()
    calls: list[str] = []
    bench.loop.call_at(bench.loop.clock(), lambda: calls.append("meanwhile"))
    while not calls:
        bench.loop.turn(0.05)
    assert not bench.found
    Path(f"{bench.path}.go").touch()
    assert isinstance(bench.end(), Config)


def test_file_that_never_ends_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_reader, "DEADLINE_SECONDS", 0.3)
    bench.write(
        f"import os, time\nopen({str(bench.path)!r} + '.pid', 'w').write(str(os.getpid()))\ntime.sleep(1e6)\n"
    )
    found = bench.read()
    assert isinstance(found, ConfigError)
    assert "is not done after 0.3 s" in str(found)
    pid = Path(f"{bench.path}.pid")
    assert not pid.exists() or not procs.title(int(pid.read_text()))


def test_process_that_cannot_be_started_is_a_refusal(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fork(*_arguments: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(config_reader.process, "fork", fork)  # type: ignore[attr-defined]
    before = os.listdir("/proc/self/fd")
    assert "cannot be read now: Resource temporarily unavailable" in str(bench.read())
    assert os.listdir("/proc/self/fd") == before


def test_file_that_kills_its_process_is_read_here(bench: Bench) -> None:
    bench.write(f"import os\nif os.getpid() != {os.getpid()}: os.kill(os.getpid(), 9)\n")
    assert isinstance(bench.read(), Config)


@pytest.mark.parametrize("failing", ["pipe", "fork"])
def test_file_is_refused_if_no_process_can_read_it(
    bench: Bench, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> tuple[int, int]:
        raise OSError(errno.EMFILE, "Too many open files")

    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        refused = bench.read()
    assert isinstance(refused, ConfigError)
    assert "cannot be read now: Too many open files" in str(refused)
    assert os.listdir("/proc/self/fd") == before
    assert bench.read() == load(str(bench.path))
