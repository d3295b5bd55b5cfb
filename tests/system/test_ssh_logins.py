"""How often a daemon logs in to a node, with real ssh and sshd, whatever the user has configured for ssh."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from support import procs
from support.sshd import Sshd
from support.wait import until
from support.warm import Location, MakeWarm, Warm, cont, stop

USER = pwd.getpwuid(os.geteuid()).pw_name
CHANGES = 3


@dataclass
class Farm:
    """A daemon with ssh nodes, its sshd, and the shared connections that ssh leaves behind for the user."""

    w: Warm
    sshd: Sshd
    home: Path
    rundir: Path

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

    def until_shared(self) -> None:
        """Wait until the nodes have connections of ours, and the rsyncs that wait use them."""
        until(lambda: len(self.ours()) == len(self.w.nodes()), 150, "our connections")
        self.change(1)

    def ours(self) -> list[Path]:
        """The sockets of connections of ours."""
        return sorted(path for path in self.rundir.glob("**/ssh-*") if path.is_socket())

    def masters(self) -> list[procs.Process]:
        """The processes that are connections of ours."""
        return [each for each in self._below_workers() if " -N -T " in f"{procs.title(each.pid)} "]

    def calls(self) -> list[str]:
        """The calls of ssh by the rsyncs that run."""
        titles = [procs.title(each.pid) for each in self._below_workers()]
        return [title for title in titles if " rsync --server" in title]

    def _below_workers(self) -> list[procs.Process]:
        workers = self.w.daemon.workers().values()
        return [each for each in procs.family(workers) if each.pid not in workers]

    def sockets(self) -> list[Path]:
        """Those of connections of the user's."""
        return sorted(path for path in self.home.glob("cm-*") if path.is_socket())

    def left(self) -> list[procs.Process]:
        """What ssh has left behind for the user's connections."""
        paths = [f"ssh: {path} [mux]" for path in self.sockets()]
        return [process for process in procs.table().values() if procs.title(process.pid) in paths]


MakeFarm = Callable[..., Farm]


@pytest.fixture
def rundir() -> Iterator[Path]:
    """A run directory with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="ssh") as name:
        yield Path(name)


@pytest.fixture
def farm(tmp_path: Path, own_sshd: Sshd, rundir: Path, warm: MakeWarm) -> Iterator[MakeFarm]:
    """Daemons, not started. ``config`` comes first in ssh_config."""
    made: list[Farm] = []

    def make(
        config: str = "",
        nodes: Sequence[str] = ("a",),
        env: Mapping[str, str] | None = None,
        **settings: object,
    ) -> Farm:
        places: dict[str, Location] = {
            name: own_sshd.node(name, f"{tmp_path}/nodes/{name}/") for name in nodes
        }
        env = {**own_sshd.env_of_user(tmp_path / "user", config), **(env or {})}
        settings["rundir"] = str(rundir)
        made.append(Farm(warm(places, ("tree",), env, **settings), own_sshd, tmp_path, rundir))
        return made[-1]

    yield make
    for one in made:
        for process in one.left():
            procs.send(process, signal.SIGCONT)
        for path in one.sockets():
            end = ["ssh", "-S", str(path), "-O", "exit", "any"]
            subprocess.run(end, capture_output=True, timeout=60, check=False)
        until(partial(_has_ended, one), 60, "the user's connections to end")


def _has_ended(one: Farm) -> bool:
    return not one.left()


def shared(home: Path, name: str = "cm-%n") -> str:
    """A user's options of ssh for a connection that is shared, and stays for a while."""
    return f"-o ControlMaster=auto -o ControlPath={home}/{name} -o ControlPersist=300"


def config_of(options: str) -> str:
    """The same as lines of ssh_config."""
    lines = options.replace("-o ", "\n  ").replace("=", " ")
    return f"Host *{lines}"


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


# The user's own remote shell -----------------------------------------------------------------------------


def test_rsh_with_options_shares_our_connection(farm: MakeFarm, own_sshd: Sshd) -> None:
    one = farm(extra=[f"--rsh={own_sshd.rsh} -v -o Compression=no"])
    one.start()
    one.until_shared()
    assert one.change() == 0
    [call] = one.calls()
    assert "-v -o Compression=no -o ControlMaster=no" in call
    assert "BatchMode" not in call, "what the user has chosen gets no option but the connection"
    one.w.daemon.stop()
    assert one.ours() == []


def test_rsh_with_quotes_shares_our_connection(farm: MakeFarm, own_sshd: Sshd, tmp_path: Path) -> None:
    key = (own_sshd.home / "user_key").rename(tmp_path / "it's my key")
    quoted = str(key).replace("'", "''")
    one = farm(extra=["-ze", f"ssh  -i '{quoted}' -l\"{USER}\""])
    one.start()
    one.until_shared()
    assert one.change() == 0


def test_rsync_rsh_shares_our_connection(farm: MakeFarm, own_sshd: Sshd) -> None:
    one = farm(env={"RSYNC_RSH": f"{own_sshd.rsh} -q"})
    one.start()
    one.until_shared()
    assert one.change() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_rsh_of_another_user_shares_our_connection(farm: MakeFarm, own_sshd: Sshd) -> None:
    one = farm(extra=[f"--rsh={own_sshd.rsh}"], ruser="nobody")
    one.start()
    one.until_shared()
    assert one.change() == 0


def test_wrapper_that_is_openssh_shares_our_connection(
    farm: MakeFarm, own_sshd: Sshd, tmp_path: Path
) -> None:
    wrapper = script(tmp_path / "to-node", f'exec {own_sshd.rsh} -q "$@"')
    one = farm(extra=[f"--rsh=nice -n 1 {wrapper}"])
    one.start()
    one.until_shared()
    assert one.change() == 0


NO_OPENSSH = {
    "takes -l only": '[ "$1" = -l ] && shift 2; case $1 in -*) exit 1;; esac\nexec RSH "$@"',
    "takes its first word for the host": 'exec RSH -- "$@"',
    "shares already": 'exec RSH -o ControlPath=none "$@"',
    "hangs when asked": '[ "$1" = -V ] && exec sleep 1000; exec RSH "$@"',
}


@pytest.mark.parametrize("text", NO_OPENSSH.values(), ids=NO_OPENSSH)
def test_program_that_does_not_prove_to_be_openssh_is_left_alone(
    farm: MakeFarm, own_sshd: Sshd, tmp_path: Path, text: str
) -> None:
    log = tmp_path / "calls"
    rsh = script(tmp_path / "rsh", f'echo "$*" >>{log}\n{text}'.replace("RSH", own_sshd.rsh))
    one = farm(extra=[f"--rsh={rsh}"])
    one.start()
    assert one.change(1) > 0
    assert (one.masters(), one.ours()) == ([], [])
    calls = [line for line in log.read_text().splitlines() if "rsync --server" in line]
    assert calls != []
    assert [call for call in calls if "ControlMaster" in call] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have another host name")
def test_wrapper_that_logs_in_to_a_gateway_is_left_alone(
    farm: MakeFarm, own_sshd: Sshd, tmp_path: Path
) -> None:
    there = script(tmp_path / "there", f'hostname gateway; exec {own_sshd.home}/bin/ssh "$@"')
    wrapper = script(tmp_path / "to-node", f'exec {own_sshd.rsh} node-gateway unshare -u {there} "$@"')
    one = farm(extra=[f"--rsh={wrapper}"])
    one.start()
    assert one.change(1) > 0
    assert (one.masters(), one.ours()) == ([], [])


def test_ssh_behind_a_gateway_is_not_asked(farm: MakeFarm, own_sshd: Sshd, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    script(tmp_path / "ssh", f'echo "$*" >>{log}\nexec {own_sshd.rsh} "$@"')
    one = farm(extra=[f"--rsh={tmp_path}/ssh node-gateway {own_sshd.home}/bin/ssh"])
    one.start()
    one.change(1)
    assert [call for call in log.read_text().splitlines() if "rsync --server" not in call] == []


def test_dbclient_mirrors_without_a_connection_of_ours(
    farm: MakeFarm, own_sshd: Sshd, tmp_path: Path
) -> None:
    dbclient = shutil.which("dbclient")
    convert = shutil.which("dropbearconvert", path=f"{os.environ['PATH']}:/usr/lib/dropbear")
    if dbclient is None or convert is None:
        pytest.skip("dropbear-bin is not installed")
    key = tmp_path / "dropbear"
    argv = [convert, "openssh", "dropbear", str(own_sshd.home / "user_key"), str(key)]
    subprocess.run(argv, capture_output=True, check=True)
    one = farm(extra=[f"--rsh={dbclient} -y -y -p {own_sshd.port} -i {key} -l {USER}"])
    place = f"127.0.0.1:{tmp_path}/nodes/a/"
    one.w.configure({"a": place}, extra=one.w.settings["extra"], rundir=str(one.rundir))
    one.start()
    assert one.change(1) > 0
    assert (one.masters(), one.ours()) == ([], [])


# Connections that the user shares ------------------------------------------------------------------------


def test_connection_shared_by_options_of_rsh_stays(farm: MakeFarm, own_sshd: Sshd, tmp_path: Path) -> None:
    one = farm(extra=[f"--rsh={own_sshd.rsh} {shared(tmp_path)}"])
    one.start()
    assert one.change() == 0
    [left] = one.left()
    assert one.masters() == []
    one.w.daemon.stop()
    assert procs.alive(left), "it is the user's"
    one.w.daemon.start()
    assert one.change() == 0
    assert [each.pid for each in one.left()] == [left.pid]


@pytest.mark.parametrize("rsh", ["", "--rsh=ssh -q"])
def test_connection_shared_by_ssh_config_is_replaced_by_ours(
    farm: MakeFarm, tmp_path: Path, rsh: str
) -> None:
    one = farm(config_of(shared(tmp_path)), extra=[rsh] if rsh else [])
    one.start()
    one.until_shared()
    assert one.change() == 0
    assert (one.sockets(), len(one.masters())) == ([], 1)


def test_connection_that_the_user_has_opened_by_hand_is_used(
    farm: MakeFarm, own_sshd: Sshd, tmp_path: Path
) -> None:
    # As where a login takes a second factor: alone inosync could not log in.
    key = (own_sshd.home / "user_key").rename(tmp_path / "token")
    one = farm(f"Host *\n  ControlPath {tmp_path}/cm-%n")
    by_hand = [*own_sshd.rsh.split(), "-i", str(key), "-N", "-M", "-S", f"{tmp_path}/cm-node-a", "node-a"]
    with subprocess.Popen(by_hand, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as master:
        try:
            until(one.sockets, 60, "the user's connection")
            before = own_sshd.logins
            one.start()
            one.change()
            assert own_sshd.logins == before
            one.w.daemon.stop()
            assert master.poll() is None
        finally:
            master.terminate()


def test_connection_of_the_user_that_hangs_is_replaced_by_ours(
    farm: MakeFarm, own_sshd: Sshd, tmp_path: Path
) -> None:
    one = farm(extra=[f"--rsh={own_sshd.rsh} {shared(tmp_path)}"], rtimeout=2)
    one.start()
    one.w.until_warm()
    [left] = one.left()
    stop(left)
    one.w.change("file", "hangs")
    one.w.until_arrived("a", "file", "hangs")
    one.until_shared()
    assert one.change() == 0
    assert procs.alive(left), "it is the user's"
    cont(left)


@pytest.mark.parametrize("where", ["options", "config"])
def test_control_path_of_the_user_that_is_too_long_does_not_matter(
    farm: MakeFarm, own_sshd: Sshd, tmp_path: Path, where: str
) -> None:
    options = shared(tmp_path, "cm-" + "x" * 120)
    rsh = f"--rsh={own_sshd.rsh} {options}"
    one = farm(extra=[rsh]) if where == "options" else farm(config_of(options))
    one.start()
    one.until_shared()
    assert one.change() == 0


def test_control_path_that_others_own_is_not_used(farm: MakeFarm, tmp_path: Path) -> None:
    foreign = tmp_path / "cm-foreign"
    foreign.write_text("no socket")
    if os.geteuid() == 0:
        shutil.chown(foreign, "nobody")
    one = farm(config_of(shared(tmp_path, "cm-foreign")))
    one.start()
    one.until_shared()
    assert one.change() == 0
    assert foreign.read_text() == "no socket"


def test_gateway_of_proxyjump_keeps_its_own_connection(farm: MakeFarm, tmp_path: Path) -> None:
    gateway = config_of(shared(tmp_path)).replace("Host *", "Host node-gateway")
    one = farm(f"{gateway}\nHost node-a\n  ProxyJump node-gateway")
    one.start()
    one.until_shared()
    assert one.change() == 0
    assert [path.name for path in one.sockets()] == ["cm-node-gateway"]
    [left] = one.left()
    one.w.daemon.stop()
    assert procs.alive(left)


def test_match_blocks_and_names_keep_working(farm: MakeFarm, own_sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes((own_sshd.home / "user_key").read_bytes())
    (tmp_path / "key").chmod(0o600)
    block = f'Match originalhost node-b exec "test -e {tmp_path}/key"\n  IdentityFile {tmp_path}/key'
    one = farm(f"Host alias\n  HostName 127.0.0.1\n{block}", ("a", "b"))
    one.start()
    one.until_shared()
    assert one.change() == 0
    assert len(one.ours()) == 2


def test_two_logins_at_one_host_have_a_connection_each(farm: MakeFarm, tmp_path: Path) -> None:
    one = farm()
    places = {
        name: f"{login}node-a:{tmp_path}/nodes/{name}/" for name, login in (("a", ""), ("b", f"{USER}@"))
    }
    one.w.configure(dict(places), extra=["--rsh=ssh -q"], rundir=str(one.rundir))
    one.start()
    one.until_shared()
    assert one.change() == 0
    assert len(one.masters()) == 2


# Our connection in trouble -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_connection_that_dies_in_use_loses_nothing(
    farm: MakeFarm, own_sshd: Sshd, number: signal.Signals
) -> None:
    one = farm(extra=[f"--rsh={own_sshd.rsh}"])
    one.start()
    one.until_shared()
    [master] = one.masters()
    one.w.change("large", "x" * 1_000_000)
    procs.send(master, number)
    one.w.change("file", "after")
    one.w.until_arrived("a", "file", "after")
    one.w.until_level()


def test_connection_that_is_stopped_in_use_is_given_up(farm: MakeFarm, own_sshd: Sshd) -> None:
    one = farm(extra=[f"--rsh={own_sshd.rsh}"], rtimeout=2)
    one.start()
    one.until_shared()
    [master] = one.masters()
    stop(master)
    one.w.change("file", "after")
    one.w.until_arrived("a", "file", "after")
    one.w.until_level()
    until(lambda: not procs.alive(master), 60, "the stopped connection to end")


def test_host_key_that_changes_is_refused_at_the_next_login(farm: MakeFarm, own_sshd: Sshd) -> None:
    one = farm(extra=[f"--rsh={own_sshd.rsh}"])
    one.start()
    one.until_shared()
    known = (own_sshd.home / "known_hosts").read_text()
    other = (own_sshd.home / "user_key.pub").read_text()
    (own_sshd.home / "known_hosts").write_text(f"{known.split()[0]} {other}")
    assert one.change() == 0, "it is logged in"
    [master] = one.masters()
    procs.send(master, signal.SIGKILL)
    one.w.daemon.until_state("a", ["retry", "retrying"])
    one.w.daemon.until_logged("Host key for .* has changed")
    (own_sshd.home / "known_hosts").write_text(known)
    one.w.until_level()
    # A node that answers a change is a reason to connect again, after a pause.
    until(lambda: one.change(1) == 0, 150, "a connection of ours")
