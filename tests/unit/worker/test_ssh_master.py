"""The shared ssh connection of a worker, with a script in the place of ssh. tests/system has the real one."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inosync.system.loop import Loop
from inosync.worker.ssh_master import SshMaster

LIMIT_SECONDS = 60.0
SSH = """#!/bin/sh
case " $* " in *" -G "*) echo "controlmaster false"; echo "user john"; exit 0;; esac
echo x >>'{home}/starts'
{after}
"""


class Bench:
    """An ssh, a loop whose clock the test may set forward, and the connection."""

    def __init__(self, home: Path, after: str, node: str = "host:") -> None:
        self.ahead, self.home = 0.0, home
        (home / "ssh").write_text(SSH.format(home=home, after=after))
        (home / "ssh").chmod(0o755)
        self.loop = Loop(lambda: time.monotonic() + self.ahead)
        self.master = SshMaster(node, (), str(home), self.loop, lambda: 0.0, {})

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + LIMIT_SECONDS
        while not condition():
            assert time.monotonic() < end
            self.loop.turn(0.02)

    def until_ended(self) -> None:
        self.until(lambda: not self.master.pids)

    @property
    def starts(self) -> int:
        path = self.home / "starts"
        return len(path.read_text().split()) if path.exists() else 0


Make = Callable[..., Bench]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    made: list[Bench] = []

    def bench(after: str = "exec sleep 1000", node: str = "host:") -> Bench:
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        made.append(Bench(tmp_path, after, node))
        return made[-1]

    yield bench
    for one in made:
        one.master.close()
        assert one.master.pids == ()


def test_connection_starts_when_the_node_was_reached_and_only_once(make: Make) -> None:
    bench = make()
    assert bench.master.pids == ()
    for _ in range(3):
        bench.master.node_reached()
    bench.until(lambda: bench.starts)
    assert (len(bench.master.pids), bench.starts) == (1, 1)


def test_transfers_go_through_the_socket_or_around_it(make: Make) -> None:
    bench = make()
    assert f"ControlPath={bench.home}/ssh-{os.getpid()}" in bench.master.rsh
    assert "ControlPath" not in bench.master.rsh_direct


@pytest.mark.parametrize("node", ["/srv/mirror", "host::module", "rsync://host/module"])
def test_node_without_ssh_has_no_connection(make: Make, node: str) -> None:
    bench = make(node=node)
    bench.master.node_reached()
    assert (bench.master.rsh, bench.master.rsh_direct, bench.master.pids) == ("", "", ())


def test_distrusted_connection_ends_and_its_socket_goes_at_once(make: Make) -> None:
    bench = make()
    bench.master.node_reached()
    socket = bench.home / f"ssh-{os.getpid()}"
    socket.touch()
    bench.master.distrust()
    assert not socket.exists()
    bench.until_ended()
    assert bench.loop.next_timer == math.inf


def test_connection_that_ignores_sigterm_is_killed(make: Make) -> None:
    bench = make("trap '' TERM\necho up >$(dirname $0)/up\nwhile :; do sleep 0.05; done")
    bench.master.node_reached()
    bench.until((bench.home / "up").exists)
    bench.master.distrust()
    assert bench.loop.next_timer < math.inf
    bench.ahead += 60
    bench.until_ended()


def test_connection_that_ends_young_is_started_again_after_a_growing_pause(make: Make) -> None:
    bench = make("exit 255")
    for number, pause in enumerate((5, 10, 20)):
        bench.master.node_reached()
        bench.until_ended()
        assert bench.starts == number + 1
        bench.ahead += pause / 2
        bench.master.node_reached()
        assert bench.master.pids == ()
        bench.ahead += pause


def test_connection_that_has_lasted_is_started_again_at_once(make: Make) -> None:
    bench = make()
    bench.master.node_reached()
    (pid,) = bench.master.pids
    bench.ahead += 61
    os.kill(pid, signal.SIGKILL)
    bench.until_ended()
    bench.master.node_reached()
    assert len(bench.master.pids) == 1


def test_old_connection_without_a_socket_is_replaced(make: Make) -> None:
    bench = make()
    bench.master.node_reached()
    bench.master.node_reached()
    assert bench.loop.next_timer == math.inf, "it may still be connecting"
    bench.ahead += 61
    bench.master.node_reached()
    bench.until_ended()
