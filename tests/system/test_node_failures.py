"""Nodes in trouble, each the real one where it can be made, black-box.

Whatever it is: the title says why, it is tried again with a growing pause and never in a busy loop, others do
not notice, and when it is over the node is level without anybody's help.
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
    """Seconds that follow the failure of this try at least."""
    return 0.75 * min(FIRST * 2.0 ** (attempt - 1), LONGEST)


def backs_off(w: Warm, node: str, steps: int = 4) -> None:
    """See that a node which fails is tried once for each step of the backoff, and not before its time.

    It needs a node that has no new changes meanwhile, since those are tried at once.
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
    # The title of a try is there before the next one begins, which may have happened when they were counted.
    assert tried <= failed(1) - first + 1
    assert took >= sum(shortest(number) for number in range(first + 1, last)), (first, last)


def accounted(w: Warm, node: str, slack: int) -> None:
    """See that no more rsyncs were started than failures and successes were told of, but for ``slack``.

    That is for each that waits, that was replaced since it was found dead, and that failed on a connection
    which was dead before, so that another one was started at once.
    """
    started = starts(w, node)
    told = rf" {node}: (.*; try \d+ in |(\d+ paths?|full mirror) in )"

    def missing() -> int:
        return started - slack - len(re.findall(told, w.daemon.log()))

    # The log is a moment behind.
    until(lambda: missing() <= 0, 5, f"no more than {started} starts to be told of")


def others_do_not_notice(w: Warm, node: str = "other") -> None:
    for number in range(2):
        w.change("for others", f"{number}")
        w.until_arrived(node, "for others", f"{number}")
    w.until_title(node, OK)
    said = [line for line in w.warnings() if f" {node}: " in line]
    assert said == []


def until_level(w: Warm) -> None:
    """It is, without help, and works as before."""
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
    """A server behind that network, running."""
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
        backs_off(w, "far", 1)
    others_do_not_notice(w)
    accounted(w, "far", 2)
    network.answer()
    w.until_level()
    before = w.until_warm()["far"]["tree"]
    if isinstance(far, Sshd):  # for a daemon, see test_warm_failures.py
        # Half-open: nobody has told this side that there is nobody any more.
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
    others_do_not_notice(w)
    network.answer()
    w.until_level()
    w.until_warm()
    # Without power nobody says goodbye, and whoever is there afterwards knows nothing of the connection.
    network.swallow()
    far.kill()
    network.reboot()
    far.start()
    network.answer()
    until_level(w)
    accounted(w, "far", 10)
    assert w.fulls("far") <= 1 + len(re.findall("far: .*; try ", w.daemon.log()))


# Nodes that do not want us -------------------------------------------------------------------------------


class Doors:
    """What is wrong at an ssh node: ``shut`` it, and ``mend`` it."""

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

    def shut(self, what: str) -> str:
        """How it is shut; the reason that is to be told."""
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


SHUT = [
    "another host key",
    "a key that is refused",
    "no rsync there",
    "an rsync that is too old for extra",
    "a protocol of another time",
]


def test_node_that_refuses_the_login_is_reported_and_becomes_level(
    tmp_path: Path, warm: MakeWarm, own_sshd: Sshd
) -> None:
    doors = Doors(tmp_path, own_sshd)
    node: Location = {
        "node": own_sshd.node("a", f"{tmp_path}/nodes/shut/"),
        "extra": [f"--rsync-path={doors.rsync}"],
    }
    w = warm({"shut": node, "other": ""}, env=own_sshd.env())
    w.daemon.start()
    for what in SHUT:
        w.until_level()
        reason = doors.shut(what)
        # Those who are in, are in.
        own_sshd.drop()
        if what == SHUT[0]:
            w.until_title("shut", rf"{RETRY} {reason}, 0 behind")
        w.change(f"behind {what}")
        w.until_title("shut", rf"{RETRY} {reason}, [1-9] behind")
        if what == SHUT[0]:
            backs_off(w, "shut", 2)
        others_do_not_notice(w)
        doors.mend()
    until_level(w)
    accounted(w, "shut", 3 * len(SHUT))
    assert w.fulls("shut") == 1


# Nodes that cannot be told of what is gone ---------------------------------------------------------------

# RsyncProject/rsync issue 910: it is the list as such that 3.4.3 does not take.
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
    """Deletions of all kinds, with others, arrive."""
    for number in range(2):
        for name in (f"top-{number}", f"dir-{number}/file", f"dir-{number}/sub/file", f"kept-{number}/file"):
            path = w.tree() / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("content")
    w.until_level()
    for number in range(2):
        (w.tree() / f"top-{number}").unlink()
        # In one step: while names in it go one by one, rsync may be told of some, and complain.
        (w.tree() / f"dir-{number}").rename(w.home / f"gone-{number}")
        (w.tree() / f"kept-{number}/file").unlink()
        w.change(f"new-{number}", node)
        w.until_level()


@pytest.mark.parametrize("version", ["3.0.9", "3.4.3"])
def test_node_without_delete_missing_args_is_mirrored(version: str, warm: MakeWarm) -> None:
    # The wrapper that looks at the names is no rsync that could wait for them.
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
    # It is no failure, and none is started in vain but the first: one for each batch, and one that waits.
    assert len(w.warnings()) == 1
    accounted(w, "lacking", 2)
    assert w.fulls("lacking") == 1


# Nodes that cannot write ---------------------------------------------------------------------------------

ROOM = 1 << 20


def mount(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["mount", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A node's directory with a file system of its own, of ``ROOM`` bytes."""
    path = tmp_path / "nodes/small"
    path.mkdir(parents=True)
    done = mount("-t", "tmpfs", "-o", f"size={ROOM},mode=755", "tmpfs", str(path))
    if done.returncode:
        pytest.skip(f"nothing can be mounted: {done.stderr.strip()}")
    yield path
    # Lazily: a process of a test that failed must not leave it mounted.
    subprocess.run(["umount", "-l", str(path)], stdin=subprocess.DEVNULL, check=True)


@needs_root
def test_node_without_room_is_reported_and_becomes_level(
    small: Path, warm: MakeWarm, rsyncd: MakeRsyncd
) -> None:
    server = rsyncd({"small": small})
    w = warm({"small": server.url("small"), "other": ""})
    w.daemon.start()
    w.until_level()
    filler = small / "filler"
    filler.write_bytes(bytes(ROOM * 3 // 4))
    (w.tree() / "big").write_bytes(os.urandom(ROOM // 2))
    w.until_title("small", r'\[degraded\] write failed on "/?tree/big".*: No space left on device \(28\)')
    # What fits arrives, before and after it.
    for name in ("after", "directory of its own"):
        fits = w.home / "fits"
        fits.mkdir()
        (fits / "file").write_text(name)
        fits.rename(w.tree() / name)
        w.until_arrived("small", f"{name}/file", name)
    tried_again_by_itself(w, "small", r"\d paths? in .*: No space left on device")
    others_do_not_notice(w)
    # Now nothing does.
    with contextlib.suppress(OSError), filler.open("ab") as rest:
        rest.write(bytes(ROOM))
    for name in ("another", "one more"):
        (w.tree() / name).write_bytes(os.urandom(ROOM // 8))
    tried_again_by_itself(w, "small", r"(\d paths? in )?.*: No space left on device", new=2)
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
    # It reads its configuration for each connection.
    server.config.write_text(writable.replace("read only = no", "read only = yes"))
    server.drop()
    w.change("file")
    w.until_title("module", rf"{RETRY} ERROR: module is read only, 1 behind")
    backs_off(w, "module", 2)
    others_do_not_notice(w)
    server.config.write_text(writable)
    until_level(w)
    # Whether one that waits may write is not known before it has something to write.
    accounted(w, "module", 6)


@needs_root
def test_node_with_a_read_only_disk_is_reported_and_becomes_level(
    small: Path, warm: MakeWarm, rsyncd: MakeRsyncd
) -> None:
    server = rsyncd({"small": small})
    w = warm({"small": server.url("small"), "other": ""})
    w.daemon.start()
    w.until_level()
    # Linux does it by itself after errors of the disk.
    assert mount("-o", "remount,ro", str(small)).returncode == 0
    w.change("file")
    w.until_title("small", r"\[degraded\] .*: Read-only file system \(30\)")
    tried_again_by_itself(w, "small", r"\d paths? in .*: Read-only file system")
    others_do_not_notice(w)
    assert mount("-o", "remount,rw", str(small)).returncode == 0
    until_level(w)
    assert w.fulls("small") == 1


# Names that cannot be sent -------------------------------------------------------------------------------


def tried_again_by_itself(w: Warm, node: str, line: str, times: int = 4, new: int = 1) -> None:
    """See that what a node lacks is tried as often as its backoff allows, each time listed in the log.

    ``new``: changes just before, each of which may be a batch of its own at first.
    """
    since, began = len(w.daemon.log()), time.monotonic()

    def told() -> int:
        return len(re.findall(f"WARNING: {node}: (?!is ){line}", w.daemon.log()[since:]))

    before = starts(w, node)
    until(lambda: told() >= times, 60, f"{line} in the log, {times} times")
    count, tries = told(), starts(w, node) - before
    took = time.monotonic() - began
    # At worst the first one had been tried just before, for the first time. Between two of them there is one
    # start, of what waits for the next; and one may be begun.
    assert took >= sum(shortest(number) for number in range(1, count - new + 1)), count
    assert tries <= told() + 1 + new


@pytest.fixture
def bound_by_permissions(tmp_path: Path) -> Iterator[MakeDaemon]:
    """Daemons whom permissions bind, also when they are root's."""
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
    # One batch with all of it, as it appears in the tree at once.
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
    tried_again_by_itself(w, "a", r"\d paths? in .*: send_files failed to open .*: Permission denied")
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
    # One rename is one batch, which has both.
    fill(w, "locked/refused", "open/taken")
    w.until_arrived("foreign", "open/taken")
    w.until_title(
        "foreign", r'\[degraded\] mkstemp ".*locked/.*" \(in foreign\) failed: Permission denied \(13\)'
    )
    for number in range(3):
        fill(w, "open/taken", content=f"{number}")
        w.until_arrived("foreign", "open/taken", f"{number}")
    tried_again_by_itself(w, "foreign", r"\d paths? in .*: mkstemp .*: Permission denied")
    others_do_not_notice(w)
    os.chown(w.copy("foreign") / "locked", int(NOBODY), int(NOBODY))
    w.until_arrived("foreign", "locked/refused")
    w.until_title("foreign", OK)
    assert w.fulls("foreign") == 1


def fill(w: Warm, *names: str, content: str = "content") -> None:
    """Files that somebody else may own."""
    for name in names:
        w.change(name, content)
        os.chown(w.tree() / name, int(NOBODY), int(NOBODY))
