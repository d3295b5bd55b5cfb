"""The Debian package under a booted systemd: start, reload, watchdog, upgrade, stop, and hardening.

The nodes are a local directory, one behind an sshd and one behind an rsync daemon, all in the same container.
Making its root takes minutes and a network. INOSYNC_SYSTEMD_ROOT names a directory in which it is kept for
later runs.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.booted_systemd import Machine, NotPossible, make_root
from support.daemon import CHECKOUT
from support.wait import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

UNIT = "inosync.service"
CONFIG = "/etc/inosync/default.py"
NODES = ("local", "ssh", "daemon")
SETTINGS = """\
wpaths = ["/srv/www"]
rpaths = ["www"]
rnodes = [
    {"node": "/srv/nodes/local/", "name": "local"},
    {"node": "localhost:/srv/nodes/ssh/", "name": "ssh"},
    {"node": "rsync://127.0.0.1/daemon/", "name": "daemon"},
]
equiet = 0.02
edelay = 0.2
"""
RSYNCD = """\
use chroot = yes
uid = 0
gid = 0
read only = no
[daemon]
path = /srv/nodes/daemon
"""
SECURE_DROP_IN = """\
[Service]
ProtectSystem=strict
ExecStartPre=+mkdir -p -m 0700 /run/inosync
ReadWritePaths=-/run/inosync /var/log
NoNewPrivileges=yes
MemoryDenyWriteExecute=yes
"""


def build_package(directory: Path) -> Path:
    """Build the Debian package and return its path."""
    program = ["bash", str(CHECKOUT / "bin" / "deb"), str(directory)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [package] = directory.glob("inosync_*_all.deb")
    return package


def build_next_version(package: Path, directory: Path) -> Path:
    """Return a package with the same files and a later version."""
    files = directory / "files"
    subprocess.run(["dpkg-deb", "--raw-extract", package, files], check=True)
    control = files / "DEBIAN" / "control"
    lines = control.read_text().splitlines()
    later = [f"{line}+1" if line.startswith("Version: ") else line for line in lines]
    control.write_text("\n".join([*later, ""]))
    made = directory / "inosync_later_all.deb"
    subprocess.run(["dpkg-deb", "--build", files, made], check=True, capture_output=True)
    return made


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The package, and one with a later version."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    home = tmp_path_factory.mktemp("deb")
    package = build_package(home)
    return package, build_next_version(package, home)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, packages: tuple[Path, Path]) -> Iterator[Machine]:
    """A running machine with the package, a tree and three nodes; inosync is not started."""
    home = tmp_path_factory.mktemp("systemd")
    kept = os.environ.get("INOSYNC_SYSTEMD_ROOT")
    base = Path(kept or home / "base")
    one = Machine(home / "root")
    try:
        if not (base / "etc/debian_version").exists():
            make_root(base)
        if os.geteuid() != 0:
            raise NotPossible("only root runs systemd-nspawn")
        if kept:  # only a copy is changed, so that each run begins with the same one
            subprocess.run(["cp", "-a", "--reflink=auto", base, one.root], check=True)
        else:
            base.rename(one.root)
        one.boot()
        set_up(one, packages[0])
        yield one
    except NotPossible as why:
        pytest.skip(str(why))
    finally:
        one.close()
        shutil.rmtree(one.root, ignore_errors=True)
        if not kept:
            shutil.rmtree(base, ignore_errors=True)


def set_up(machine: Machine, package: Path) -> None:
    """Install the package, and start the servers of the nodes."""
    shutil.copy(package, machine.path("/root/inosync.deb"))
    machine.run("dpkg", "--install", "/root/inosync.deb")
    machine.write("/etc/hosts", "127.0.0.1 localhost\n")
    machine.write("/etc/rsyncd.conf", RSYNCD)
    machine.write("/srv/www/file", "content")
    for node in NODES:
        machine.path(f"/srv/nodes/{node}").mkdir(parents=True)
    # The host key of localhost is not known yet: the daemon's ssh has to write known_hosts.
    machine.write("/root/.ssh/config", "Host localhost\n  StrictHostKeyChecking accept-new\n", 0o600)
    machine.shell(
        "ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519;"
        "cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys;"
        "chmod 700 /root/.ssh; systemctl start ssh;"
        "systemd-run --unit=rsyncd rsync --daemon --no-detach"
    )


def write_config(machine: Machine, text: str = SETTINGS) -> None:
    machine.write(CONFIG, text, 0o600)


def drop_in(machine: Machine, name: str, text: str) -> None:
    machine.write(f"/etc/systemd/system/{UNIT}.d/{name}.conf", text)
    machine.run("systemctl", "daemon-reload")


@pytest.fixture
def running(machine: Machine) -> Iterator[Machine]:
    """The machine with inosync started and level, as the unit is delivered."""
    write_config(machine)
    start(machine)
    yield machine
    machine.run("systemctl", "stop", UNIT)
    shutil.rmtree(machine.path(f"/etc/systemd/system/{UNIT}.d"), ignore_errors=True)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "reset-failed")


def start(machine: Machine, nodes: tuple[str, ...] = NODES) -> None:
    """Start inosync anew, and wait until these nodes are level."""
    done = machine.run("systemctl", "restart", UNIT, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{machine.journal(UNIT)[-6000:]}"
    until_level(machine, nodes)


def change(machine: Machine, content: str) -> None:
    machine.path("/srv/www/file").write_text(content)


def until_level(machine: Machine, nodes: tuple[str, ...] = NODES) -> None:
    """Wait until the unit's status says that all nodes are ok, and a change has arrived on them."""
    content = os.urandom(8).hex()
    change(machine, content)
    copies = [machine.path(f"/srv/nodes/{node}/www/file") for node in nodes]
    status = f"{len(nodes)} nodes: {len(nodes)} ok"
    try:
        until(lambda: all(copy.read_text() == content for copy in copies), 60, f"a change on {nodes}")
        until(lambda: status in machine.show(UNIT, "StatusText"), 60, f"the status {status!r}")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{machine.journal(UNIT)[-6000:]}") from None


def main_pid(machine: Machine) -> int:
    return int(machine.show(UNIT, "MainPID"))


def processes(machine: Machine) -> list[str]:
    """Return the command lines of the unit's processes."""
    group = machine.show(UNIT, "ControlGroup")
    if not group:
        return []
    script = (
        "for f in $(find /sys/fs/cgroup -path '*'\"$0\"/cgroup.procs); do cat $f; done 2>/dev/null"
        " | sort -u | while read -r pid; do tr '\\0' ' ' </proc/$pid/cmdline; echo; done"
    )
    return [line for line in machine.run("sh", "-c", script, group).stdout.splitlines() if line.strip()]


def test_unit_without_a_configuration_is_not_started(machine: Machine) -> None:
    machine.path(CONFIG).unlink(missing_ok=True)
    machine.run("systemctl", "start", UNIT)
    assert machine.show(UNIT, "ActiveState") == "inactive"
    assert machine.show(UNIT, "ConditionResult") == "no"


def test_start_returns_when_the_daemon_is_ready(machine: Machine, running: Machine) -> None:
    assert machine.show(UNIT, "ActiveState") == "active"
    assert machine.show(UNIT, "NRestarts") == "0"
    titles = processes(running)
    assert any(title.startswith("inosync: master default.py [3 nodes: 3 ok]") for title in titles), titles
    # ssh could write the new host key though /root is read-only.
    assert "ssh-ed25519 " in machine.path("/root/.ssh/known_hosts").read_text()


def test_reload_takes_a_new_configuration(running: Machine) -> None:
    pid = main_pid(running)
    running.path("/srv/nodes/more").mkdir(exist_ok=True)
    more = '    {"node": "/srv/nodes/more/", "name": "more"},\n]\nequiet'
    write_config(running, SETTINGS.replace("]\nequiet", more))
    running.run("systemctl", "reload", UNIT)
    until_level(running, (*NODES, "more"))
    assert main_pid(running) == pid


def test_reload_of_a_broken_file_fails_and_the_daemon_goes_on(running: Machine) -> None:
    pid = main_pid(running)
    write_config(running, f"{SETTINGS}rspeed = 'fast'\n")
    done = running.run("systemctl", "reload", UNIT, check=False)
    assert done.returncode != 0
    assert running.show(UNIT, "ActiveState") == "active"
    assert main_pid(running) == pid
    assert "rspeed: 'fast'" in running.journal(UNIT)
    until_level(running)
    write_config(running)
    running.run("systemctl", "reload", UNIT)
    until_level(running)


def test_start_with_a_broken_file_fails_and_is_not_repeated(machine: Machine) -> None:
    write_config(machine, f"{SETTINGS}rspeed = 'fast'\n")
    done = machine.run("systemctl", "start", UNIT, check=False)
    assert done.returncode != 0
    assert machine.show(UNIT, "ActiveState") == "failed"
    assert machine.show(UNIT, "ExecMainStatus") == "78"
    assert machine.show(UNIT, "NRestarts") == "0"
    machine.run("systemctl", "reset-failed")


def test_watchdog_restarts_a_master_that_is_stopped(running: Machine) -> None:
    drop_in(running, "watchdog", "[Service]\nWatchdogSec=2\nRestartSec=100ms\n")
    start(running)
    before, old = main_pid(running), processes(running)
    running.run("kill", "-STOP", str(before))
    until(lambda: main_pid(running) not in (0, before), 60, "another master")
    until(lambda: running.show(UNIT, "ActiveState") == "active", 60, "the unit to be active again")
    until_level(running)
    assert int(running.show(UNIT, "NRestarts")) == 1
    assert "Watchdog timeout" in running.run("journalctl", "--no-pager", "--unit", UNIT).stdout
    # systemd has killed the workers of the stopped master, too.
    assert len([title for title in processes(running) if title.startswith("inosync: ")]) == len(NODES) + 2, (
        old
    )


def test_killed_master_is_restarted(running: Machine) -> None:
    drop_in(running, "restart", "[Service]\nRestartSec=100ms\n")
    before = main_pid(running)
    running.run("kill", f"-{signal.SIGKILL.name[3:]}", str(before))
    until(lambda: main_pid(running) not in (0, before), 60, "another master")
    until_level(running)


def test_upgrade_restarts_the_daemon_and_keeps_the_configuration(
    running: Machine, packages: tuple[Path, Path]
) -> None:
    before, config = main_pid(running), running.path(CONFIG).read_text()
    shutil.copy(packages[1], running.path("/root/later.deb"))
    running.run("dpkg", "--install", "/root/later.deb")
    until(lambda: main_pid(running) not in (0, before), 60, "another master")
    until_level(running)
    assert running.path(CONFIG).read_text() == config
    assert running.show(UNIT, "NRestarts") == "0"


def test_stop_leaves_no_process_and_no_file(running: Machine) -> None:
    running.run("systemctl", "stop", UNIT)
    assert running.show(UNIT, "ActiveState") == "inactive"
    assert running.show(UNIT, "Result") == "success"
    assert processes(running) == []
    assert running.shell("ps -e -o args= | grep -c '^inosync: ' || true").strip() == "0"
    assert running.shell("ls -A /run/inosync 2>/dev/null || true") == ""


def test_hardened_unit_sees_a_read_only_system(running: Machine) -> None:
    pid = main_pid(running)
    script = (
        'nsenter --target "$0" --mount sh -c '
        "'for d in /usr /etc /boot /home /root; do touch $d/inosync-test 2>/dev/null && echo $d; done;"
        " touch /srv/nodes/local/test && rm /srv/nodes/local/test'"
    )
    assert running.run("sh", "-c", script, str(pid)).stdout == "", "these directories can be written"
    status = running.run("cat", f"/proc/{pid}/status").stdout
    assert "Seccomp:\t2" in status


def test_hardened_unit_with_remote_nodes_works_with_everything_closed(running: Machine) -> None:
    drop_in(running, "closed", SECURE_DROP_IN)
    remote = "".join(line for line in SETTINGS.splitlines(True) if '"local"' not in line)
    write_config(running, remote)
    start(running, ("ssh", "daemon"))
    assert "NoNewPrivs:\t1" in running.run("cat", f"/proc/{main_pid(running)}/status").stdout


def test_instance_of_the_template_runs_beside_the_default(running: Machine) -> None:
    running.path("/srv/nodes/other").mkdir(exist_ok=True)
    other = 'wpaths = ["/srv/www"]\nrpaths = ["www"]\nrnodes = ["/srv/nodes/other/"]\n'
    running.write("/etc/inosync/other.py", other, 0o600)
    running.run("systemctl", "start", "inosync@other")
    try:
        until_level(running)
        content = running.path("/srv/www/file").read_text()
        copy = running.path("/srv/nodes/other/www/file")
        until(lambda: copy.read_text() == content, 60, "a change on the other node")
        running.run("systemctl", "stop", UNIT)
        assert running.show("inosync@other", "ActiveState") == "active"
        assert "other.sock" in running.shell("ls /run/inosync")
    finally:
        running.run("systemctl", "stop", "inosync@other")
