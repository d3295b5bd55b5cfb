"""What bin/demo shows: one directory, three nodes on this machine, and a few changes. Called by bin/demo.

Everything is in one temporary directory, and every process is a descendant of this one: both are gone when
this ends, whatever it ends by.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import random
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from inosync.system import process

PATIENCE = 60.0
"""Seconds until something that should happen counts as failed."""
BREATH = 0.4
"""Seconds between two changes, for those who watch."""
HOSTILE = b"-rf; $(touch x) 'quoted\" *\n\xff.txt"
"""A name that no shell, no list of lines and no UTF-8 decoder survives."""
TREE_IN_NODE = "tree"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Failure(Exception):
    """The demo cannot go on; the text says why."""


class Stopped(Exception):
    """A signal asks to end; its argument is the number."""


# The nodes ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Node:
    """A place to mirror to."""

    name: str
    item: dict[str, str]
    """As it is written in ``rnodes``."""
    tree: Path
    """Where the mirrored directory is, as this demo sees it."""


class Server:
    """A daemon of somebody else's that listens on a free port of 127.0.0.1."""

    def __init__(self, greeting: bytes) -> None:
        self._greeting = greeting
        self._running: subprocess.Popen[bytes] | None = None
        self.command: Sequence[str | Path] = ()
        self.log = Path(os.devnull)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    def start(self) -> None:
        """Return when it serves connections."""
        self._running = start(self.command, self.log)
        deadline = time.monotonic() + 10
        while not self._serves():
            if self._running.poll() is not None or time.monotonic() > deadline:
                raise Failure(f"{self.command[0]} does not start:\n{tail(self.log)}")
            time.sleep(0.02)

    def _serves(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as probe:
            return probe.recv(len(self._greeting)) == self._greeting
        return False

    def kill(self) -> int:
        """Kill it, and what it has started to serve connections; return its pid."""
        assert self._running is not None
        pid = self._running.pid
        process.send(process.family(pid), signal.SIGKILL)
        self._running.wait()
        return pid


def rsync_daemon(home: Path) -> tuple[Node, Server]:
    """A node behind an rsync daemon of its own; the daemon does not run yet."""
    server = Server(b"@RSYNCD:")
    place = home / "daemon"
    place.mkdir()
    # Without chroot, for which one has to be root, the daemon would change absolute symlinks for good;
    # munged they can be told from others and compared.
    root = os.geteuid() == 0
    config = home / "rsyncd.conf"
    config.write_text(
        f"address = 127.0.0.1\nport = {server.port}\nlog file = {home}/rsyncd.log\n"
        f"lock file = {home}/rsyncd.lock\nsocket options = TCP_NODELAY\nreverse lookup = no\n"
        + ("use chroot = yes\nuid = 0\ngid = 0\n" if root else "use chroot = no\nmunge symlinks = yes\n")
        + f"[mirror]\npath = {place}\nread only = no\n"
    )
    server.command = (find("rsync"), "--daemon", "--no-detach", f"--config={config}")
    server.log = home / "rsyncd.log"
    url = f"rsync://127.0.0.1:{server.port}/mirror"
    return Node("daemon", {"node": url, "name": "daemon"}, place / TREE_IN_NODE), server


def local(home: Path) -> Node:
    """A node that is a directory, as a mounted disk would be."""
    place = home / "local"
    place.mkdir()
    return Node("local", {"node": str(place), "name": "local"}, place / TREE_IN_NODE)


def ssh(home: Path) -> Node:
    """A node behind an sshd of its own, which runs then. Failure if there is no sshd, or no way in."""
    for program in ("ssh", "sshd", "ssh-keygen"):
        if not shutil.which(program, path=PATH):
            raise Failure(f"{program} is not installed")
    if os.geteuid() == 0:
        made_for_sshd.make()
    for key in ("host_key", "user_key"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", home / key)
    refusal = ""
    # Without PAM, sshd lets nobody in whose password is locked; with it, it needs more of the machine.
    for pam in ("no", "yes"):
        server = _sshd(home, pam)
        client = _ssh_client(home, server.port)
        server.start()
        refusal = run(*client, "demo-node", "true", check=False)
        if not refusal:
            break
        server.kill()
    else:
        raise Failure(refusal.splitlines()[-1])
    place = home / "ssh"
    place.mkdir()
    rsh = shlex.join(client)
    item = {"node": f"demo-node:{place}", "name": "ssh", "extra": f"--rsh={shlex.quote(rsh)}"}
    return Node("ssh", item, place / TREE_IN_NODE)


def _sshd(home: Path, pam: str) -> Server:
    server = Server(b"SSH-")
    config = home / "sshd_config"
    config.write_text(
        f'ListenAddress 127.0.0.1\nPort {server.port}\nHostKey "{home}/host_key"\n'
        f'AuthorizedKeysFile "{home}/user_key.pub"\nAllowUsers {user()}\nUsePAM {pam}\n'
        "StrictModes no\nPidFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "PermitRootLogin prohibit-password\nUseDNS no\nPrintMotd no\n"
        # Or else bash runs the user's ~/.bashrc for each transfer, whatever that prints or waits for.
        "SetEnv SHLVL=1\n"
    )
    # sshd starts itself again for every connection, and insists on an absolute path for that.
    server.command = (find("sshd"), "-D", "-e", "-f", config)
    server.log = home / "sshd.log"
    return server


def _ssh_client(home: Path, port: int) -> Sequence[str]:
    """The command to log in with. Nothing of the user's own keys, hosts and settings is used."""
    (home / "known_hosts").write_text(f"[127.0.0.1]:{port} {(home / 'host_key.pub').read_text()}")
    config = home / "ssh_config"
    config.write_text(
        f"Host demo-node\nHostName 127.0.0.1\nPort {port}\nUser {user()}\nIdentityFile {home}/user_key\n"
        f"IdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile {home}/known_hosts\n"
        "GlobalKnownHostsFile /dev/null\nStrictHostKeyChecking yes\nUpdateHostKeys no\nBatchMode yes\n"
        "ConnectTimeout 10\nLogLevel ERROR\n"
    )
    return (find("ssh"), "-F", str(config))


class _MadeForSshd:
    """sshd's directory for privilege separation: there once the machine's own sshd has been started."""

    path = Path("/run/sshd")
    made = False

    def make(self) -> None:
        with contextlib.suppress(FileExistsError):
            self.path.mkdir(0o755)
            self.made = True

    def remove(self) -> None:
        if self.made:
            with contextlib.suppress(OSError):
                self.path.rmdir()


made_for_sshd = _MadeForSshd()


# The directory that is mirrored ------------------------------------------------------------------------


def make_tree(root: Path) -> None:
    """A web site with some podcasts, the same every time: 325 files, 3 MB."""
    dice = random.Random(1)
    for number in range(1, 13):
        podcast = root / "podcasts" / f"podcast-{number:02}"
        podcast.mkdir(parents=True)
        (podcast / "feed.xml").write_text("<rss/>\n" * number)
        for episode in range(1, 25):
            (podcast / f"episode-{episode:03}.mp3").write_bytes(dice.randbytes(dice.randrange(16_000)))
        (podcast / "latest.mp3").symlink_to("episode-024.mp3")
    pages = root / "site"
    (pages / "images").mkdir(parents=True)
    (pages / "index.html").write_text("<h1>Hello</h1>\n")
    for number in range(1, 25):
        (pages / "images" / f"{number}.png").write_bytes(dice.randbytes(dice.randrange(40_000)))


def copy_tree(source: str, root: Path) -> None:
    """A copy of a user's directory, in which everything may be changed."""
    if not os.path.isdir(source):
        raise Failure(f"{source} is not a directory")
    errors = run("cp", "-a", f"{source}/.", root, check=False)
    errors = errors or run("chmod", "-R", "u+rwX", root, check=False)
    if errors:
        raise Failure(f"{source} cannot be copied:\n{errors}")


Facts = tuple[str | int | bytes, ...]
MUNGED = b"/rsyncd-munged/"  # rsyncd.conf(5)


def entries(top: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """What is at ``top`` and below it, by names relative to it; nothing if there is nothing."""
    todo = [b""]
    while todo:
        name = todo.pop()
        path = os.path.join(top, name) if name else top
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = os.lstat(path)
            yield name, status
            if stat.S_ISDIR(status.st_mode):
                todo += [os.path.join(name, child) for child in os.listdir(path)]


def glance(top: bytes) -> dict[bytes, Facts]:
    """Of each entry what tells whether a change has arrived. Cheap, as it is looked at again and again."""
    return {
        name: (status.st_mode,) if stat.S_ISDIR(status.st_mode) else (status.st_mode, status.st_mtime_ns)
        for name, status in entries(top)
    }


def examine(root: Path) -> dict[bytes, Facts]:
    """Of each entry all that a mirror must have: type, mode, owner, time, and content."""
    found: dict[bytes, Facts] = {}
    for name, status in entries(os.fsencode(root)):
        path = os.path.join(os.fsencode(root), name)
        content = b""
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path).removeprefix(MUNGED)
        if name:  # the root itself is where it is for its own reasons
            found[name] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content)
    return found


# What is shown -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """Something that happens in the mirrored directory, and the names that are different after it."""

    what: str
    names: tuple[bytes, ...]
    make: Callable[[], object]


def changes(tree: Path) -> list[Change]:
    """A few, for any directory that has a directory with a file in it."""
    candidates = directories(tree)
    if not candidates:
        raise Failure("the demo needs a directory that has a directory with files in it")
    busiest = max(candidates, key=lambda directory: len(files(directory)))
    edited = files(busiest)[-1]
    # Rather a part of it than all of it: changes are rarely that large.
    moving = (directories(busiest) or [busiest])[0]
    old = moving.with_name(moving.name + ".old")
    hostile = Path(os.fsdecode(os.fsencode(tree) + b"/" + HOSTILE))
    count = f"{len(files(moving))} files"

    def name(path: Path) -> bytes:
        return os.fsencode(path.relative_to(tree))

    def edit() -> None:
        with edited.open("ab") as file:
            file.write(b"one more line\n")

    def copy() -> None:
        run("cp", "-a", old, moving)

    return [
        Change(f"edit {edited.name}", (name(edited),), edit),
        Change(f"write {ascii(HOSTILE)[2:-1]}", (name(hostile),), lambda: hostile.write_text("hello\n")),
        Change(f"mv {moving.name} {old.name}", (name(moving), name(old)), lambda: moving.rename(old)),
        Change(f"cp -a {old.name} {moving.name}  ({count})", (name(moving),), copy),
        Change(f"rm -r {old.name}  ({count})", (name(old),), lambda: shutil.rmtree(old)),
    ]


def directories(parent: Path) -> list[Path]:
    """The directories right in a directory that have files in or below them."""
    return [
        path for path in sorted(parent.iterdir()) if not path.is_symlink() and path.is_dir() and files(path)
    ]


def files(directory: Path) -> list[Path]:
    """The regular files below a directory."""
    top = os.fsencode(directory)
    found = (os.path.join(top, name) for name, status in entries(top) if stat.S_ISREG(status.st_mode))
    return sorted(Path(os.fsdecode(path)) for path in found)


class Show(Protocol):
    """What can be shown; ``log`` is shown if it fails."""

    log: Path

    def show(self) -> bool:
        """All of it. Whether all nodes had the same at the end."""


class Demo:
    """inosync, the directory, and its nodes."""

    def __init__(self, home: Path, source: str | None = None) -> None:
        self.home, self.source = home, source
        self.tree = home / TREE_IN_NODE
        self.tree.mkdir()
        self.nodes: list[Node] = []
        self.config = home / "demo.py"
        self.log = home / "inosync.log"
        self.inosync: subprocess.Popen[bytes] | None = None

    def show(self) -> bool:
        """All of it. Whether all nodes had the same at the end."""
        if self.source is None:
            make_tree(self.tree)
        else:
            copy_tree(self.source, self.tree)
        todo = changes(self.tree)
        daemon, rsyncd = rsync_daemon(self.home)
        rsyncd.start()
        self.nodes = [daemon, local(self.home)]
        try:
            self.nodes.append(ssh(self.home))
        except Failure as reason:
            say(f"No node through ssh: {reason}\n")
        self.start()
        try:
            for change in todo:
                time.sleep(BREATH)
                self.measure(change)
            say("\nWhat ps shows (inosync sets the titles):\n")
            self.until_titled("[ok]", self.nodes)
            self.ps()
            self.outage(daemon, rsyncd, todo[0])
            self.until_titled("[ok]", self.nodes)
            return self.compare()
        finally:
            self.stop()

    def start(self) -> None:
        """Write the configuration, start inosync with it, wait until it has mirrored all there is."""
        rsync = find("rsync")
        text = (
            f"wpaths = [{str(self.tree) + '/'!r}]\n"
            f"rpaths = [{f'/{TREE_IN_NODE}/'!r}]\n"
            "rnodes = [\n" + "".join(f"    {node.item!r},\n" for node in self.nodes) + "]\n"
            "rretry = (1, 3)\n"
            f"rundir = {str(self.home / 'run')!r}\n"
            f"statedir = {str(self.home / 'state')!r}\n"
        )
        if rsync != "/usr/bin/rsync":
            text += f"rsync = {rsync!r}\n"
        self.config.write_text(text)
        self.config.chmod(0o600)
        say(f"{self.config}:\n")
        say("".join(f"    {line}\n" for line in text.splitlines()))
        command = (Path(sys.executable).parent / "inosync", "-c", self.config)
        say(f"$ inosync -c {self.config}\n")
        row("milliseconds until a change is on the node", [node.name for node in self.nodes])
        number = len(files(self.tree))

        def begin() -> None:
            self.inosync = start(command, self.log)

        self.measure(Change(f"the first mirror of {number} files, from the start", (b"",), begin))

    def measure(self, change: Change, nodes: Sequence[Node] | None = None) -> None:
        """Make a change; print when it was on each node, counted from when it was complete here."""
        nodes = self.nodes if nodes is None else nodes
        change.make()
        begin = time.monotonic()
        wanted = self.look(self.tree, change)
        arrived: dict[str, float] = {}
        while len(arrived) < len(nodes):
            looked = time.monotonic()
            for node in nodes:
                if node.name not in arrived and self.look(node.tree, change) == wanted:
                    arrived[node.name] = time.monotonic() - begin
            if looked - begin > PATIENCE:
                late = ", ".join(node.name for node in nodes if node.name not in arrived)
                raise Failure(f"{change.what}: not there after {PATIENCE:.0f} s: {late}")
            self.check()
            # Half of one processor at most: the others are busy with what we wait for.
            time.sleep(max(0.001, time.monotonic() - looked))
        cells = [f"{arrived[node.name] * 1000:.0f}" if node in nodes else "-" for node in self.nodes]
        row(change.what, cells)

    def look(self, tree: Path, change: Change) -> list[dict[bytes, Facts]]:
        return [glance(os.path.join(os.fsencode(tree), name).rstrip(b"/")) for name in change.names]

    def outage(self, node: Node, server: Server, change: Change) -> None:
        """Stop a node, change something, start it again."""
        others = [other for other in self.nodes if other is not node]
        say(f"\nThe rsync daemon is killed (pid {server.kill()}); the others do not notice:\n")
        self.measure(change, others)
        self.until_titled("[ok]", others)
        self.until_titled("[retry ", [node])
        say()
        self.ps()
        server.start()
        begin = time.monotonic()
        say("\nIt is started again;", end=" ")
        wanted = self.look(self.tree, change)
        self.wait(lambda: self.look(node.tree, change) == wanted, f"{node.name} to be level again")
        say(f"the change is there after {time.monotonic() - begin:.1f} s, at the next try.")

    def compare(self) -> bool:
        """Look at everything on all nodes, and say what differs."""
        source = examine(self.tree)
        identical = True
        for node in self.nodes:
            copy = examine(node.tree)
            names = source.keys() | copy.keys()
            if different := sorted(name for name in names if source.get(name) != copy.get(name)):
                identical = False
                shown = ", ".join(ascii(name) for name in different[:5])
                say(f"{node.name}: {len(different)} names differ: {shown}")
        if identical:
            say(f"\n{len(self.nodes)} nodes identical: {len(files(self.tree))} files")
        return identical

    def titles(self) -> dict[int, str]:
        """Of inosync's processes; not of the rsyncs that they run."""
        assert self.inosync is not None
        found = {}
        for pid in process.family(self.inosync.pid):
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
                if title.startswith("inosync: "):
                    found[pid] = title
        return found

    def until_titled(self, state: str, nodes: Sequence[Node]) -> None:
        """Wait until the processes for the nodes, and so the master, know of a state."""

        def titled() -> bool:
            titles = list(self.titles().values())
            wanted = [f"inosync: {node.name} {state}" for node in nodes]
            return all(any(title.startswith(start) for title in titles) for start in wanted)

        self.wait(titled, f"{state.strip(' []')} in the titles of " + ", ".join(node.name for node in nodes))

    def ps(self) -> None:
        pids = ",".join(map(str, self.titles()))
        say("$ ps f -o pid,rss,args")
        say(run("ps", "f", "-ww", "-o", "pid,rss,args", "-p", pids))

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise Failure(f"waited {PATIENCE:.0f} s for {what}")
            time.sleep(0.02)

    def check(self) -> None:
        if self.inosync is not None and self.inosync.poll() is not None:
            raise Failure(f"inosync has ended, with code {self.inosync.returncode}")

    def stop(self) -> None:
        """Ask inosync to end; it may take its grace for what is running."""
        if self.inosync is not None and self.inosync.poll() is None:
            self.inosync.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.inosync.wait(12)


# Processes ---------------------------------------------------------------------------------------------

PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin:/sbin"


def find(program: str) -> str:
    """The absolute path of a program."""
    found = shutil.which(program, path=PATH)
    if not found:
        raise Failure(f"{program} is not installed")
    return os.path.abspath(found)


def user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def start(command: Sequence[str | Path], log: Path) -> subprocess.Popen[bytes]:
    """Start a program that outlives neither us nor, in a session of its own, hears of Ctrl-C before us."""
    us = os.getpid()
    with log.open("ab") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=lambda: process.die_with_parent(signal.SIGTERM, us),
        )


def run(*command: str | Path, check: bool = True) -> str:
    """Run a program, and return all that it has printed; empty without ``check`` if it was successful."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    printed = done.stdout.decode(errors="replace").rstrip()
    if check and done.returncode != 0:
        raise Failure(f"{command[0]} failed:\n{printed}")
    return printed if check or done.returncode != 0 else ""


def end_descendants(patience: float = 5) -> None:
    """End what runs of all that we have started, and what that has started: gently, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        process.send(descendants(), number)
        deadline = time.monotonic() + patience
        while descendants() and time.monotonic() < deadline:
            time.sleep(0.02)


def descendants() -> list[int]:
    """All of them that live. Those whose parents have died are ours: ``main`` has asked for that."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return process.family(os.getpid())[1:]


# -------------------------------------------------------------------------------------------------------


def say(line: str = "", end: str = "\n") -> None:
    print(line, end=end, flush=True)


def row(what: str, cells: Sequence[str]) -> None:
    """A line of the table of changes."""
    say(f"{what:52}" + "".join(f"{cell:>10}" for cell in cells))


def tail(log: Path, lines: int = 15) -> str:
    """The end of a log."""
    text = log.read_text(errors="replace") if log.is_file() else ""
    return "\n".join(text.splitlines()[-lines:])


def on_signal(number: int, _frame: object) -> None:
    for other in SIGNALS:  # one is enough, and nothing shall interrupt the end
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(number)


def main(make: Callable[[Path], Show]) -> int:
    """Show what is made in a temporary directory, and return the exit code."""
    # Names of files are bytes, and not all of them can be printed.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    process.adopt_orphans()
    for number in SIGNALS:
        signal.signal(number, on_signal)
    home = None
    demo: Show | None = None
    try:
        home = Path(tempfile.mkdtemp(prefix="inosync-demo."))
        demo = make(home)
        return 0 if demo.show() else 1
    except Stopped as stopped:
        print("\nbin/demo: stopped", file=sys.stderr)
        return 128 + int(stopped.args[0])
    except BrokenPipeError:
        # Whoever read what we say has gone. Python itself would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Failure as failure:
        print(f"\nbin/demo: {failure}", file=sys.stderr)
        if demo is not None and (log := tail(demo.log)):
            print(f"the end of inosync's log:\n{log}", file=sys.stderr)
        return 1
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        end_descendants()
        if home is not None:
            shutil.rmtree(home, ignore_errors=True)
        made_for_sshd.remove()


if __name__ == "__main__":
    sys.exit(main(lambda home: Demo(home, sys.argv[1] if len(sys.argv) > 1 else None)))
