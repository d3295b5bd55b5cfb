"""What bin/demo --fleet shows: an origin, three senders and twelve nodes on this machine. Called by bin/demo.

All of it is in one temporary directory, as in demo.py, whose tools it uses.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from demo import (
    PATIENCE,
    TREE_IN_NODE,
    Failure,
    Node,
    Server,
    examine,
    files,
    find,
    main,
    make_tree,
    say,
    ssh,
    start,
)

SENDERS = ("eu-1", "eu-2", "us-1")
LOCAL_NODES, SSH_NODES = 9, 3


class Redis(Server):
    """Redis, which says nothing before it is asked."""

    def _serves(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(5) == b"+PONG"
        except OSError:
            return False


class FleetDemo:
    """Redis, the machines, and the directory."""

    def __init__(self, home: Path) -> None:
        self.home, self.log = home, home / "origin.log"
        self.tree = home / TREE_IN_NODE
        self.tree.mkdir()
        self.config = home / "demo.py"
        self.nodes: list[Node] = []
        self.machines: dict[str, subprocess.Popen[bytes]] = {}

    def show(self) -> bool:
        """All of it. Whether all nodes had the same at the end."""
        make_tree(self.tree)
        redis = self.redis()
        redis.start()
        self.nodes = self.make_nodes()
        self.configure(redis)
        try:
            say("Redis is new: senders take nothing from it for some seconds, because it may have lost")
            say("leases that are in use. Meanwhile the senders get their copies ...\n")
            self.start_machine("origin")
            for name in SENDERS:
                self.start_machine(name, "--sender", name)
            begin = time.monotonic()
            self.until_there(lambda node: (node.tree / "podcasts").is_dir(), "the first mirrors")
            self.flush()
            say(
                f"All {len(self.nodes)} nodes have {len(files(self.tree))} files, "
                f"{time.monotonic() - begin:.1f} s after the start.\n"
            )
            self.inosync("-s", "senders")
            self.inosync("-s", "status")
            self.change("a page", "<h1>Hello, fleet</h1>\n")
            self.kill()
            self.flush()
            self.inosync("-s", "status")
            return self.compare()
        finally:
            self.stop()

    def redis(self) -> Redis:
        """Redis on a free port of 127.0.0.1."""
        server = Redis(b"")
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise Failure("redis-server is not installed: apt-get install redis-server")
        place = self.home / "redis"
        place.mkdir()
        server.command = (program, "--port", str(server.port), "--bind", "127.0.0.1", "--dir", str(place))
        server.command = (*server.command, "--appendonly", "yes", "--save", "")
        server.log = self.home / "redis.log"
        return server

    def make_nodes(self) -> list[Node]:
        """Directories, and some of them behind ssh, if there is an sshd."""
        found = []
        extra: str | None = None
        try:
            extra = ssh(self.home).item["extra"]
        except Failure as reason:
            say(f"No nodes through ssh: {reason}\n")
        for number in range(1, LOCAL_NODES + SSH_NODES + 1):
            name = f"node-{number:02}"
            place = self.home / "nodes" / name
            place.mkdir(parents=True)
            item = {"node": str(place), "name": name}
            if extra is not None and number > LOCAL_NODES:
                item |= {"node": f"demo-node:{place}", "extra": extra}
            found.append(Node(name, item, place / TREE_IN_NODE))
        return found

    def configure(self, redis: Redis) -> None:
        """Write the one configuration of all machines."""
        senders = []
        for name in SENDERS:
            (self.home / name).mkdir()
            senders.append({"node": str(self.home / name), "name": name})
        text = (
            f"wpaths = [{str(self.tree) + '/'!r}]\nrpaths = [{f'/{TREE_IN_NODE}/'!r}]\n"
            f"fleet = 'redis://127.0.0.1:{redis.port}/0'\n"
            "rsenders = [\n" + "".join(f"    {item!r},\n" for item in senders) + "]\n"
            "rnodes = [\n" + "".join(f"    {node.item!r},\n" for node in self.nodes) + "]\n"
            f"rundir = {str(self.home / 'run')!r}\nstatedir = {str(self.home / 'state')!r}\n"
            f"rsync = {find('rsync')!r}\n"
        )
        self.config.write_text(text)
        self.config.chmod(0o600)
        say(f"{self.config}, the same for all machines:\n")
        shown = [line if len(line) < 110 else line[:107] + "..." for line in text.splitlines()]
        say("".join(f"    {line}\n" for line in shown))

    def start_machine(self, name: str, *options: str) -> None:
        command: list[str | Path] = [Path(sys.executable).parent / "inosync", "-c", self.config, *options]
        say("$ inosync " + " ".join(["-c", self.config.name, *options, "&"]))
        self.machines[name] = start(command, self.home / f"{name}.log")

    def ask(self, *arguments: str) -> str:
        program = str(Path(sys.executable).parent / "inosync")
        done = subprocess.run(
            [program, "-c", str(self.config), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    def inosync(self, *arguments: str) -> None:
        """Ask the origin, and show what it says."""
        say(f"\n$ inosync {' '.join(arguments)}\n{self.ask(*arguments)}")

    def flush(self) -> None:
        said = self.ask("-s", "flush", "--timeout", str(PATIENCE))
        if said:
            raise Failure(f"not all nodes are level after {PATIENCE:.0f} s:\n{said}")

    def change(self, what: str, text: str, patience: float = PATIENCE) -> None:
        """Change a page, and say when it was on each node."""
        name = "site/index.html"
        (self.tree / name).write_text(text)
        begin, arrived = time.monotonic(), dict[str, float]()

        def there(node: Node) -> bool:
            if node.name not in arrived and (node.tree / name).read_text() == text:
                arrived[node.name] = time.monotonic() - begin
            return node.name in arrived

        self.until_there(there, what, patience)
        first, last = min(arrived.values()), max(arrived.values())
        say(
            f"{what} is changed: on the first node after {first * 1000:.0f} ms, "
            f"on all {len(arrived)} after {last * 1000:.0f} ms"
        )

    def kill(self) -> None:
        """Kill a sender, and say when its nodes go on."""
        dead = SENDERS[0]
        mine = [node for node, via in self.vias().items() if via == dead]
        say(
            f"\nThe sender {dead} is killed (kill -9 {self.machines[dead].pid}). It serves {', '.join(mine)}."
        )
        os.kill(self.machines[dead].pid, signal.SIGKILL)
        self.machines.pop(dead).wait()
        others = [node for node in self.nodes if node.name not in mine]
        text, begin = "<h1>One is gone</h1>\n", time.monotonic()
        page = "site/index.html"
        (self.tree / page).write_text(text)
        self.until_there(lambda node: (node.tree / page).read_text() == text, "the others", nodes=others)
        say(
            f"A page is changed: on the {len(others)} nodes of the others after "
            f"{(time.monotonic() - begin) * 1000:.0f} ms,"
        )
        self.until_there(lambda node: (node.tree / page).read_text() == text, "its nodes")
        say(
            f"and on its own after {time.monotonic() - begin:.1f} s: its leases had to run out. "
            "The others serve them now:"
        )

    def vias(self) -> dict[str, str]:
        found = json.loads(self.ask("-s", "status", "--json"))
        return {node["name"]: node["via"] for node in found["nodes"] if node.get("via")}

    def until_there(
        self,
        condition: Callable[[Node], bool],
        what: str,
        patience: float = PATIENCE,
        nodes: list[Node] | None = None,
    ) -> None:
        """Wait until that is so of each node."""
        deadline = time.monotonic() + patience

        def met(node: Node) -> bool:
            try:
                return condition(node)
            except OSError:
                return False

        # Of each node, because some conditions take the time.
        while not all([met(node) for node in (self.nodes if nodes is None else nodes)]):  # noqa: C419
            for name, machine in self.machines.items():
                if machine.poll() is not None:
                    self.log = self.home / f"{name}.log"
                    raise Failure(f"{name} has ended, with code {machine.returncode}")
            if time.monotonic() > deadline:
                raise Failure(f"waited {patience:.0f} s for {what}")
            time.sleep(0.005)

    def compare(self) -> bool:
        """Look at everything on all nodes, and say what differs."""
        source, identical = examine(self.tree), True
        for node in self.nodes:
            copy = examine(node.tree)
            names = source.keys() | copy.keys()
            if different := sorted(name for name in names if source.get(name) != copy.get(name)):
                identical = False
                say(f"{node.name}: {len(different)} names differ: {', '.join(map(ascii, different[:5]))}")
        if identical:
            say(f"\n{len(self.nodes)} nodes identical: {len(files(self.tree))} files")
        return identical

    def stop(self) -> None:
        """Ask all machines to end."""
        for machine in self.machines.values():
            machine.terminate()
        for machine in self.machines.values():
            try:
                machine.wait(12)
            except subprocess.TimeoutExpired:
                continue


if __name__ == "__main__":
    sys.exit(main(FleetDemo))
