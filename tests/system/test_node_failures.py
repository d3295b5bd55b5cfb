"""Failures of nodes, real ones where a test can cause them.

Whatever fails: the title says why, tries follow with growing pauses, other nodes do not notice, and the node
becomes level by itself when the failure is over.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import LAUNCHER, Daemon, MakeDaemon
from support.network import Network
from support.procs import Server
from support.real_rsync import needs_newest
from support.rsyncd import MakeRsyncd, Rsyncd
from support.sshd import Sshd
from support.wait import until
from support.warm import FIRST, LONGEST, OK, RETRY, Location, MakeWarm, Warm, set_up

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts, and runs nodes as others")

NOBODY = "65534"


# How it is tried again -----------------------------------------------------------------------------------


def starts(w: Warm, node: str) -> int:
    return w.batches(node) + w.fulls(node)


def shortest(attempt: int) -> float:
    """Return the shortest pause after the failure of this try, in seconds."""
    return 0.75 * min(FIRST * 2.0 ** (attempt - 1), LONGEST)


def check_backoff(w: Warm, node: str, steps: int = 4) -> None:
    """Check that a failing node is tried once for each step of the backoff, and not too early.

    The node must have no new changes meanwhile, because those are tried at once.
    """

    def failed(at_least: int) -> int:
        tries = 0

        def look() -> bool:
            nonlocal tries
            found = re.match(r"\[retry (\d+) at ", w.title(node))
            tries = int(found[1]) if found else 0
            return tries >= at_least

        until(look, 60, f"{node} to fail {at_least} times; {w.daemon.log_tail()}")
        return tries

    failed(1)
    began = time.monotonic()
    first = failed(1)
    before = starts(w, node)
    last = failed(first + steps)
    took = time.monotonic() - began
    tried = starts(w, node) - before
    # The next try may have begun after the title was read and before the starts were counted.
    assert tried <= failed(1) - first + 1
    assert took >= sum(shortest(number) for number in range(first + 1, last)), (first, last)


def check_start_count(w: Warm, node: str, slack: int) -> None:
    """Check that at most ``slack`` more rsyncs were started than failures and successes were logged.

    The slack is for rsyncs that wait, that were replaced because they were dead, and that found their
    connection dead, so that another one was started at once.
    """
    started = starts(w, node)
    logged = rf" {node}: (.*; try \d+ in |(\d+ paths?|full mirror) in )"

    def missing() -> int:
        return started - slack - len(re.findall(logged, w.daemon.log()))

    # The log may be late.
    until(lambda: missing() <= 0, 5, f"no more than {started} starts to be told of")


def check_other_node(w: Warm, node: str = "other") -> None:
    for number in range(2):
        w.change("for others", f"{number}")
        w.until_arrived(node, "for others", f"{number}")
    w.until_title(node, OK)
    said = [line for line in w.warnings() if f" {node}: " in line]
    assert said == []


def until_level(w: Warm) -> None:
    """Wait until all nodes are level, and check that changes arrive as before."""
    w.until_level()
    w.change("afterwards")
    w.until_level()


# A network that swallows everything ----------------------------------------------------------------------

FAR_SHELL = {
    "ConnectTimeout": "1",
    "ServerAliveInterval": "1",
    "ServerAliveCountMax": "1",
}


@pytest.fixture(params=["daemon", "ssh"])
def far(request: pytest.FixtureRequest, tmp_path: Path, network: Network) -> Iterator[Server]:
    """A running server behind the network."""
    server: Server
    if request.param == "daemon":
        server = Rsyncd(tmp_path / "rsyncd", {"far": tmp_path / "nodes/far"}, place=network)
    else:
        server = Sshd(tmp_path / "sshd", network, FAR_SHELL)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def with_far(tmp_path: Path, make: MakeDaemon, far: Server) -> Warm:
    if isinstance(far, Sshd):
        location = far.node("far", f"{tmp_path}/nodes/far/")
        node: Location = {"node": location, "rtimeout": 2, "rspeed": 400}
        return set_up(tmp_path, make, {"far": node, "other": ""}, env=far.env())
    assert isinstance(far, Rsyncd)
    node = {"node": far.url("far"), "rtimeout": 1, "rspeed": 400}
    return set_up(tmp_path, make, {"far": node, "other": ""})


# ssh as such, or through the connection that is shared.
SILENT = (
    r"(no answer for \d s|no progress for \d s|.*[Tt]imed out.*|Timeout, server .* not responding\.|"
    r"the node has closed the connection)"
)


def test_node_behind_a_network_that_drops_everything_becomes_level(
    tmp_path: Path, daemon: MakeDaemon, network: Network, far: Server
) -> None:
    silent = rf"{RETRY} {SILENT}"
    w = with_far(tmp_path, daemon, far)
    # Before it was ever reached.
    network.swallow()
    w.change("before")
    w.daemon.start()
    w.until_title("far", f"{silent}, 1 behind")
    if isinstance(far, Sshd):
        check_backoff(w, "far", 1)
    check_other_node(w)
    check_start_count(w, "far", 2)
    network.answer()
    w.until_level()
    before = w.until_warm()["far"]["tree"]
    if isinstance(far, Sshd):  # for a daemon, see test_warm_failures.py
        # Half-open: this side does not know that the other one is gone.
        network.swallow()
        w.until_title("far", f"{silent}, 0 behind")
        w.until_gone(before)
        network.answer()
        w.until_title("far", OK)
        w.until_warm()
    # In the middle of a transfer.
    (w.tree() / "big").write_bytes(os.urandom(300_000))
    until(lambda: any(w.copy("far").glob(".big.*")), 60, "the transfer")
    network.swallow()
    w.until_title("far", f"{silent}, [1-9] behind")
    check_other_node(w)
    network.answer()
    w.until_level()
    w.until_warm()
    # A power failure closes no connection, and the rebooted node does not know the old ones.
    network.swallow()
    far.kill()
    network.reboot()
    far.start()
    network.answer()
    until_level(w)
    check_start_count(w, "far", 10)
    assert w.fulls("far") <= 1 + len(re.findall("far: .*; try ", w.daemon.log()))


# Nodes that do not want us -------------------------------------------------------------------------------


class SshFaults:
    """Faults of an ssh node, to ``inject`` and to ``mend``."""

    def __init__(self, home: Path, sshd: Sshd) -> None:
        self.home, self.sshd = home, sshd
        self.rsync = home / "there" / "rsync"
        self.rsync.parent.mkdir()
        self.mend_rsync()

    def mend_rsync(self) -> None:
        self.put_rsync('exec rsync "$@"')

    def put_rsync(self, shell: str) -> None:
        fresh = self.rsync.with_name("new")
        fresh.write_text(f"#!/bin/sh\n{shell}\n")
        fresh.chmod(0o755)
        fresh.rename(self.rsync)

    def inject(self, what: str) -> str:
        """Cause this fault, and return the reason that the title must give."""
        home, rsync = self.sshd.home, self.rsync
        match what:
            case "another host key":
                key = (home / "user_key.pub").read_text()
                (home / "known_hosts").write_text(f"[127.0.0.1]:{self.sshd.port} {key}")
                return (
                    r"Host key for \[127\.0\.0\.1\]:\d+ has changed and you have requested strict checking\."
                )
            case "a key that is refused":
                (home / "authorized_keys").rename(home / "away")
                return r".*: Permission denied \(publickey\)\."
            case "no rsync there":
                rsync.unlink()
                return rf".*{re.escape(str(rsync))}: ([Nn]o such file or directory|not found)"
            case "an rsync that is too old for extra":
                # As 3.0.9 does it.
                self.put_rsync(
                    "echo 'rsync: on remote machine: --mkpath: unknown option' >&2\n"
                    "echo 'rsync error: syntax or usage error (code 1) at main.c(1231) [server=3.0.9]' >&2\n"
                    "exit 1"
                )
                return r"the node's rsync 3\.0\.9 does not know --mkpath: a newer one is needed"
            case "a protocol of another time":
                self.put_rsync("printf '\\12\\0\\0\\0'; sleep 0.1; exit 2")
                return r"protocol version mismatch -- is your shell clean\?"
        raise AssertionError(what)

    def mend(self) -> None:
        home = self.sshd.home
        host_key = (home / "host_key.pub").read_text()
        (home / "known_hosts").write_text(f"[127.0.0.1]:{self.sshd.port} {host_key}")
        if (home / "away").exists():
            (home / "away").rename(home / "authorized_keys")
        self.mend_rsync()


SSH_FAULTS = [
    "another host key",
    "a key that is refused",
    "no rsync there",
    "an rsync that is too old for extra",
    "a protocol of another time",
]


def test_node_that_refuses_the_login_is_reported_and_becomes_level(
    tmp_path: Path, warm: MakeWarm, own_sshd: Sshd
) -> None:
    faults = SshFaults(tmp_path, own_sshd)
    node: Location = {
        "node": own_sshd.node("a", f"{tmp_path}/nodes/shut/"),
        "extra": [f"--rsync-path={faults.rsync}"],
    }
    w = warm({"shut": node, "other": ""}, env=own_sshd.env())
    w.daemon.start()
    for what in SSH_FAULTS:
        w.until_level()
        reason = faults.inject(what)
        # Existing connections would go on.
        own_sshd.drop()
        if what == SSH_FAULTS[0]:
            w.until_title("shut", rf"{RETRY} {reason}, 0 behind")
        w.change(f"behind {what}")
        w.until_title("shut", rf"{RETRY} {reason}, [1-9] behind")
        if what == SSH_FAULTS[0]:
            check_backoff(w, "shut", 2)
        check_other_node(w)
        faults.mend()
    until_level(w)
    check_start_count(w, "shut", 3 * len(SSH_FAULTS))
    assert w.fulls("shut") == 1


# Nodes that cannot be told of what is gone ---------------------------------------------------------------

# RsyncProject/rsync issue 910: 3.4.3 refuses any list with a missing name.
OF_3_4_3 = r"""
[ "$kind" = full ] || {
    names=$(mktemp)
    trap 'rm -f "$names"' EXIT
    for word; do
        case "$word" in
            --delete-missing-args) deletes=yes ;;
            */tree/) cd "$word" ;; # where it is expected when it reads
        esac
    done
    cat >"$names"
    gone=$(tr '\0' '\n' <"$names" | while IFS= read -r name; do
        [ -e "./$name" ] || [ -L "./$name" ] || { echo "$name"; break; }
    done)
    if [ -n "$gone" ] && [ -n "$deletes" ]; then
        echo "invalid file mode 00 for $gone [Receiver]" >&2
        echo "rsync error: protocol incompatibility (code 2) at flist.c(874) [Receiver=3.4.3]" >&2
        exit 2
    fi
    rsync "$@" <"$names"
    exit $?
}
"""
# Those before 3.1.0.
OF_3_0_9 = """
for word; do
    case "$word" in
        --delete-missing-args)
            echo 'rsync: on remote machine: --delete-missing-args: unknown option' >&2
            echo 'rsync error: syntax or usage error (code 1) at main.c(1231) [server=3.0.9]' >&2
            echo 'rsync error: error in rsync protocol data stream (code 12) at io.c(285) [sender=3.5.0]' >&2
            exit 12 ;;
    esac
done
"""


def deletes(w: Warm, node: str) -> None:
    """Check that deletions of all kinds arrive."""
    for number in range(2):
        for name in (f"top-{number}", f"dir-{number}/file", f"dir-{number}/sub/file", f"kept-{number}/file"):
            path = w.tree() / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("content")
    w.until_level()
    for number in range(2):
        (w.tree() / f"top-{number}").unlink()
        # In one step: if names go one by one, rsync may be sent some of them and complain.
        (w.tree() / f"dir-{number}").rename(w.home / f"gone-{number}")
        (w.tree() / f"kept-{number}/file").unlink()
        w.change(f"new-{number}", node)
        w.until_level()


@needs_newest
@pytest.mark.parametrize("version", ["3.0.9", "3.4.3"])
def test_node_without_delete_missing_args_is_mirrored(version: str, warm: MakeWarm) -> None:
    # The wrapper reads all names first, so it cannot be a warm rsync.
    w = warm({"lacking": {"rwarm": version == "3.0.9"}, "other": ""})
    w.rsync.fault("lacking", OF_3_0_9 if version == "3.0.9" else OF_3_4_3)
    w.daemon.start()
    w.until_level()
    deletes(w, "lacking")
    said = rf"the node's rsync {re.escape(version)} .* --delete-missing-args: .* one is needed"
    w.daemon.until_logged(f"WARNING: lacking: {said}: for deletions, whole directories are listed")
    w.change("last")
    (w.tree() / "new-0").unlink()
    w.until_level()
    # That is no failure. Only the first start was in vain.
    assert len(w.warnings()) == 1
    # A batch here has at most two runs, for what is new and for what is gone, and one line in the log. Seen
    # are 9 starts for 4 batches and a full mirror, with a warm rsync 10; on a busy machine there are more
    # batches. With one start in vain for each batch that deletes, there would be two more at least.
    batches = len(re.findall(r" lacking: \d+ paths? in ", w.daemon.log()))
    check_start_count(w, "lacking", batches + 1 + (version == "3.0.9"))
    assert w.fulls("lacking") == 1


# Nodes that cannot write ---------------------------------------------------------------------------------

ROOM = 1 << 20


def mount(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["mount", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A node's directory on a file system of its own of ``ROOM`` bytes."""
    path = tmp_path / "nodes/small"
    path.mkdir(parents=True)
    done = mount("-t", "tmpfs", "-o", f"size={ROOM},mode=755", "tmpfs", str(path))
    if done.returncode:
        pytest.skip(f"nothing can be mounted: {done.stderr.strip()}")
    yield path
    # Lazily: a process of a test that failed must not leave it mounted.
    subprocess.run(["umount", "-l", str(path)], stdin=subprocess.DEVNULL, check=True)


def level_with_small_node(small: Path, warm: MakeWarm, rsyncd: MakeRsyncd) -> Warm:
    """A daemon that is level with a node that has little room, and with another one."""
    server = rsyncd({"small": small})
    w = warm({"small": server.url("small"), "other": ""})
    w.daemon.start()
    w.until_level()
    return w


@needs_root
def test_node_without_room_is_reported_and_becomes_level(
    small: Path, warm: MakeWarm, rsyncd: MakeRsyncd
) -> None:
    w = level_with_small_node(small, warm, rsyncd)
    filler = small / "filler"
    filler.write_bytes(bytes(ROOM * 3 // 4))
    (w.tree() / "big").write_bytes(os.urandom(ROOM // 2))
    w.until_title("small", r'\[degraded\] write failed on "/?tree/big".*: No space left on device \(28\)')
    # Files that fit arrive.
    for name in ("after", "directory of its own"):
        fits = w.home / "fits"
        fits.mkdir()
        (fits / "file").write_text(name)
        fits.rename(w.tree() / name)
        w.until_arrived("small", f"{name}/file", name)
    check_retries(w, "small", r"\d paths? in .*: No space left on device")
    check_other_node(w)
    # Now nothing fits.
    with contextlib.suppress(OSError), filler.open("ab") as rest:
        rest.write(bytes(ROOM))
    for name in ("another", "one more"):
        (w.tree() / name).write_bytes(os.urandom(ROOM // 8))
    check_retries(w, "small", r"(\d paths? in )?.*: No space left on device", new=2)
    filler.unlink()
    until_level(w)
    assert w.fulls("small") == 1


def test_module_that_became_read_only_is_reported_and_becomes_level(
    warm: MakeWarm, rsyncd: MakeRsyncd, tmp_path: Path
) -> None:
    server = rsyncd({"module": tmp_path / "nodes/module"})
    w = warm({"module": server.url("module"), "other": ""})
    w.daemon.start()
    w.until_level()
    writable = server.config.read_text()
    assert "read only = no" in writable
    # The rsync daemon reads its configuration for each connection.
    server.config.write_text(writable.replace("read only = no", "read only = yes"))
    server.drop()
    w.change("file")
    w.until_title("module", rf"{RETRY} ERROR: module is read only, 1 behind")
    check_backoff(w, "module", 2)
    check_other_node(w)
    server.config.write_text(writable)
    until_level(w)
    # A warm rsync learns only from its first names whether it may write.
    check_start_count(w, "module", 6)


@needs_root
def test_node_with_a_read_only_disk_is_reported_and_becomes_level(
    small: Path, warm: MakeWarm, rsyncd: MakeRsyncd
) -> None:
    w = level_with_small_node(small, warm, rsyncd)
    # As Linux does after disk errors.
    assert mount("-o", "remount,ro", str(small)).returncode == 0
    w.change("file")
    w.until_title("small", r"\[degraded\] .*: Read-only file system \(30\)")
    check_retries(w, "small", r"\d paths? in .*: Read-only file system")
    check_other_node(w)
    assert mount("-o", "remount,rw", str(small)).returncode == 0
    until_level(w)
    assert w.fulls("small") == 1


# Names that cannot be sent -------------------------------------------------------------------------------


def check_retries(w: Warm, node: str, line: str, times: int = 4, new: int = 1) -> None:
    """Check that missing names are retried as the backoff allows, each time with a line in the log.

    ``new`` is the number of changes just before, each of which may be a batch of its own at first.
    """
    since, began = len(w.daemon.log()), time.monotonic()

    def logged() -> int:
        return len(re.findall(f"WARNING: {node}: (?!is ){line}", w.daemon.log()[since:]))

    before = starts(w, node)
    until(lambda: logged() >= times, 60, f"{line} in the log, {times} times")
    count, tries = logged(), starts(w, node) - before
    took = time.monotonic() - began
    # The first may have been tried just before. Between two tries there is one start of a warm rsync, and one
    # more may have begun.
    assert took >= sum(shortest(number) for number in range(1, count - new + 1)), count
    assert tries <= logged() + 1 + new


@pytest.fixture
def bound_by_permissions(tmp_path: Path) -> Iterator[MakeDaemon]:
    """Daemons that permissions bind even if root starts them."""
    made: list[Daemon] = []
    launcher = tmp_path / "launcher"
    launcher.write_text(WITHOUT_OVERRIDE.format(launcher=str(LAUNCHER)))

    def make(config: object, args: object = (), env: object = None) -> Daemon:
        made.append(Daemon(tmp_path / "bound", config, args, env, launcher))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


# CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (capabilities(7)): what is not in the bounding set is not had after
# the next execve(2).
WITHOUT_OVERRIDE = """
import ctypes, os, sys
PR_CAPBSET_DROP = 24
if os.geteuid() == 0:
    for capability in (1, 2):
        if ctypes.CDLL(None, use_errno=True).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.executable, [sys.executable, {launcher!r}, *sys.argv[1:]])
"""


def test_file_unreadable_here_delays_nothing_else_and_is_retried(
    tmp_path: Path, bound_by_permissions: MakeDaemon
) -> None:
    w = set_up(tmp_path, bound_by_permissions, {"a": ""})
    (w.tree() / "dir").mkdir()
    w.daemon.start()
    w.until_level()
    # All of it appears in the tree at once, as one batch.
    (tmp_path / "fresh-dir").mkdir()
    for name in ("locked", "open-1", "open-2"):
        (tmp_path / "fresh-dir" / name).write_text(name)
    (tmp_path / "fresh-dir/locked").chmod(0)
    (tmp_path / "fresh-dir").rename(w.tree() / "new")
    for name in ("open-1", "open-2"):
        w.until_arrived("a", f"new/{name}", name)
    w.change("locked")
    (w.tree() / "locked").chmod(0)
    w.until_title("a", r'\[degraded\] send_files failed to open ".*locked": Permission denied \(13\)')
    for number in range(3):
        w.change("dir/open", f"{number}")
        w.until_arrived("a", "dir/open", f"{number}")
    check_retries(w, "a", r"\d paths? in .*: send_files failed to open .*: Permission denied")
    assert not (w.copy("a") / "new/locked").exists()
    (w.tree() / "new/locked").chmod(0o644)
    (w.tree() / "locked").chmod(0o644)
    until_level(w)
    assert w.fulls("a") == 1


@needs_root
def test_name_unwritable_on_a_node_delays_nothing_else_and_is_retried(
    tmp_path: Path, warm: MakeWarm, rsyncd: MakeRsyncd
) -> None:
    server = rsyncd({"foreign": tmp_path / "nodes/foreign"}, options={"uid": NOBODY, "gid": NOBODY})
    w = warm({"foreign": server.url("foreign"), "other": ""})
    for path in (w.tree(), w.home / "nodes/foreign"):
        os.chown(path, int(NOBODY), int(NOBODY))
    for name in ("locked", "open"):
        (w.tree() / name).mkdir()
        os.chown(w.tree() / name, int(NOBODY), int(NOBODY))
    w.daemon.start()
    until(lambda: (w.copy("foreign") / "locked").exists(), 60, "the first mirror")
    w.until_title("foreign", OK)
    os.chown(w.copy("foreign") / "locked", 0, 0)
    # One rename is one batch with both names.
    fill(w, "locked/refused", "open/taken")
    w.until_arrived("foreign", "open/taken")
    w.until_title(
        "foreign", r'\[degraded\] mkstemp ".*locked/.*" \(in foreign\) failed: Permission denied \(13\)'
    )
    for number in range(3):
        fill(w, "open/taken", content=f"{number}")
        w.until_arrived("foreign", "open/taken", f"{number}")
    check_retries(w, "foreign", r"\d paths? in .*: mkstemp .*: Permission denied")
    check_other_node(w)
    os.chown(w.copy("foreign") / "locked", int(NOBODY), int(NOBODY))
    w.until_arrived("foreign", "locked/refused")
    w.until_title("foreign", OK)
    assert w.fulls("foreign") == 1


def fill(w: Warm, *names: str, content: str = "content") -> None:
    """Write files and give them to nobody."""
    for name in names:
        w.change(name, content)
        os.chown(w.tree() / name, int(NOBODY), int(NOBODY))
