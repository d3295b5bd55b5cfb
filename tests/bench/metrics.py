"""How long /metrics and the page take with many nodes, at rest, under changes, and with 256 clients at once.

    python tests/bench/metrics.py [--nodes 500] [--quick]

A real daemon with that many local nodes (without warm rsyncs), all of them on tmpfs or in TMPDIR. Each
request but those of the 256 clients comes more than a second after the last one, so that the daemon is asked
anew.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.daemon import Daemon
from support.wait import until

from bench.machine import statement, tidy_on_sigterm, workspace
from bench.tools import byte_code
from bench.units import shown

CLIENTS = 256
PATHS = ("/metrics", "/", "/status.json")
ASKED_ANEW_SECONDS = 1.1
START_SECONDS = 300.0
PAUSE_SECONDS = 0.5
"""Between two changes."""


class Site:
    """A daemon that serves its metrics, and a client of it."""

    def __init__(self, home: Path, nodes: int, asked_anew: float) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port: int = free.getsockname()[1]
        self.tree = home / "tree"
        self.tree.mkdir(parents=True)
        names = [f"node{number}" for number in range(nodes)]
        for name in names:
            (home / name).mkdir()
        settings = {
            "wpaths": [str(self.tree)],
            "rpaths": ["tree"],
            "rnodes": [{"node": f"{home / name}/", "name": name} for name in names],
            "rwarm": False,
            "rlisten": f"127.0.0.1:{self.port}",
        }
        self.daemon = Daemon(home / "inosync", settings, env=byte_code(home))
        self.nodes, self.asked_anew = nodes, asked_anew

    def get(self, path: str) -> tuple[float, bytes]:
        """Ask; return the seconds that it took, and the body."""
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with closing(connection):
            connection.request("GET", path)
            reply = connection.getresponse()
            body = reply.read()
        assert reply.status == 200, (path, reply.status)
        return time.monotonic() - began, body

    def is_level(self) -> bool:
        try:
            _, body = self.get("/status.json")
        except (OSError, AssertionError, http.client.HTTPException):
            return False
        return bool(json.loads(body)["master"]["states"].get("ok") == self.nodes)

    def change(self, stop: threading.Event) -> None:
        """Change a file again and again."""
        number = 0
        while not stop.wait(PAUSE_SECONDS):
            (self.tree / "file").write_text(str(number))
            number += 1


def measure(site: Site, rounds: int) -> None:
    for path in PATHS:
        seconds = []
        for _ in range(rounds):
            time.sleep(site.asked_anew)
            took, body = site.get(path)
            seconds.append(took)
        longest = shown(max(seconds))
        print(
            f"    {path:<14} median {shown(median(seconds)):>8}   longest {longest:>8}   {len(body):,} bytes"
        )


def measure_together(site: Site, path: str) -> None:
    time.sleep(site.asked_anew)
    with ThreadPoolExecutor(CLIENTS) as pool:
        began = time.monotonic()
        seconds = [took for took, _ in pool.map(site.get, [path] * CLIENTS)]
        took = time.monotonic() - began
    print(f"    {path:<14} median {shown(median(seconds)):>8}   all after {shown(took):>6}")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measures /metrics and the page with many nodes.")
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--quick", action="store_true", help="three nodes: does it work at all?")
    arguments = parser.parse_args()
    nodes, rounds = (3, 1) if arguments.quick else (arguments.nodes, 7)
    tidy_on_sigterm()
    with workspace() as home:
        site = Site(home, nodes, 0.0 if arguments.quick else ASKED_ANEW_SECONDS)
        (site.tree / "file").write_text("content")
        print(f"{nodes} local nodes; {statement()}", flush=True)
        site.daemon.start()
        try:
            until(site.is_level, START_SECONDS, f"all {nodes} nodes to be level")
            print("at rest")
            measure(site, rounds)
            print(f"{CLIENTS} clients at once")
            for path in PATHS:
                measure_together(site, path)
            print(f"while a change each {PAUSE_SECONDS:g} s is on its way to all nodes")
            stop = threading.Event()
            writer = threading.Thread(target=site.change, args=(stop,))
            writer.start()
            try:
                measure(site, rounds)
            finally:
                stop.set()
                writer.join()
        finally:
            site.daemon.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
