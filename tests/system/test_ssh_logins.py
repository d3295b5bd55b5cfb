"""How often a daemon logs in to a node, with real ssh and sshd, whatever the user has configured for ssh."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from support import procs
from support.sshd import Sshd
from support.wait import until
from support.warm import Location, MakeWarm, Warm

CHANGES = 4


@dataclass
class Farm:
    """A daemon with ssh nodes, its sshd, and the shared connections that ssh leaves behind for the user."""

    w: Warm
    sshd: Sshd
    home: Path

    def start(self) -> None:
        self.w.change("first")
        self.w.daemon.start()
        self.w.until_level()

    def change(self, times: int = CHANGES) -> int:
        """Change a file that often, each time with an rsync that waits; return how many logins that took."""
        self.w.until_warm()
        before = self.sshd.logins
        for number in range(times):
            self.w.change("file", str(number))
            for node in self.w.nodes():
                self.w.until_arrived(node, "file", str(number))
            self.w.until_level()
            self.w.until_warm()
        return self.sshd.logins - before

    def sockets(self) -> list[Path]:
        return sorted(self.home.glob("cm-*"))

    def left(self) -> list[procs.Process]:
        """What ssh has left behind for the user's shared connections."""
        paths = [f"ssh: {path} [mux]" for path in self.sockets()]
        return [process for process in procs.table().values() if procs.title(process.pid) in paths]


MakeFarm = Callable[..., Farm]


@pytest.fixture
def farm(tmp_path: Path, own_sshd: Sshd, warm: MakeWarm) -> Iterator[MakeFarm]:
    """Daemons, not started. ``config`` comes first in ssh_config, and ``extra`` is the file's."""
    made: list[Farm] = []

    def make(config: str = "", nodes: Sequence[str] = ("a",), **settings: object) -> Farm:
        places: dict[str, Location] = {
            name: own_sshd.node(name, f"{tmp_path}/nodes/{name}/") for name in nodes
        }
        env = own_sshd.env_of_user(tmp_path / "user", config)
        made.append(Farm(warm(places, ("tree",), env, **settings), own_sshd, tmp_path))
        return made[-1]

    yield make
    for one in made:
        for path in one.sockets():
            subprocess.run(
                ["ssh", "-S", path, "-O", "exit", "any"], capture_output=True, timeout=60, check=False
            )
        until(partial(_has_ended, one), 60, "the user's connections to end")


def _has_ended(one: Farm) -> bool:
    return not one.left()


def shared(home: Path) -> str:
    """A user's options of ssh for a connection that is shared, and stays for a while."""
    return f"-o ControlMaster=auto -o ControlPath={home}/cm-%n -o ControlPersist=300"


def test_connection_shared_by_options_of_rsh_stays(farm: MakeFarm, own_sshd: Sshd, tmp_path: Path) -> None:
    one = farm(extra=[f"--rsh={own_sshd.rsh} {shared(tmp_path)}"])
    one.start()
    assert one.change() == 0
    [left] = one.left()
    one.w.daemon.stop()
    assert procs.alive(left), "it is the user's"
    one.w.daemon.start()
    assert one.change() == 0
    assert [each.pid for each in one.left()] == [left.pid]
