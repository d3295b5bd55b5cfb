"""Reloads while the master gets no process, descriptor or room: refused, or followed in full."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from support.daemon import Patched
from support.wait import until

PATCH = """
import builtins, errno, os
from inosync.nodes import dispatch
from inosync.system import channel, process
ME, SWITCH = os.getpid(), {switch!r}

def failing(real, fault, code, concerns=lambda *_: True):
    def call(*args, **kwargs):
        # To read a symbolic link takes no descriptor.
        if os.getpid() == ME and concerns(*args) and os.readlink(SWITCH) == fault:
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)
    return call

def makes(_path, flags=0, *_):
    return bool(flags & os.O_CREAT)

dispatch.REWRITE_SECONDS = 0.5
os.fork = failing(os.fork, "no process", errno.EAGAIN)
os.pipe = failing(os.pipe, "no pipe", errno.EMFILE)
process.fork = failing(process.fork, "no worker", errno.EAGAIN, lambda _run, name: name != "reload")
channel.pair = failing(channel.pair, "no file", errno.EMFILE)
os.scandir = failing(os.scandir, "no file", errno.EMFILE)
os.open = failing(os.open, "no file", errno.EMFILE)
os.open = failing(os.open, "read-only", errno.EROFS, makes)
os.unlink = failing(os.unlink, "read-only", errno.EROFS)
os.mkdir = failing(os.mkdir, "read-only", errno.EROFS)
builtins.open = failing(builtins.open, "no file", errno.EMFILE)
"""

FAULTS = {
    "no process": "cannot be read now: Resource temporarily unavailable",
    "no pipe": "cannot be read now: Too many open files",
    "no worker": "no worker could be started: Resource temporarily unavailable",
    "no file": "Too many open files; nothing of it is mirrored until the directory is back",
    "read-only": "Read-only file system: a batch cannot be written",
}
"""What the log says of each."""
NAMES = 300
"""So many changes do not fit into a message."""


@pytest.mark.slow
def test_reload_without_resources_is_refused_or_followed_in_full(tmp_path: Path, patched: Patched) -> None:
    switch, nodes = tmp_path / "switch", tmp_path / "nodes"

    def let_fail(fault: str) -> None:
        (tmp_path / "next").symlink_to(fault)
        (tmp_path / "next").rename(switch)

    def trees(number: int) -> list[Path]:
        return [tmp_path / f"tree{each}" for each in (number, number + 1)]

    def copies(number: int) -> list[Path]:
        return [nodes / name for name in ("kept", f"n{number}", f"n{number + 1}")]

    def config(number: int) -> str:
        """The configuration of that number: one wpath and one node are gone, and one of each is new."""
        return (
            f"wpaths = {[f'{tree}/' for tree in trees(number)]}\nrpaths = ['one', 'two']\n"
            f"rnodes = {[f'{copy}/' for copy in copies(number)]}\n"
            "equiet, edelay, rretry = 0.02, 0.2, (0.1, 0.5)\n"
        )

    for number in range(len(FAULTS) + 1):
        for directory in (*trees(number), *copies(number)):
            directory.mkdir(parents=True, exist_ok=True)
        for tree in trees(number):
            (tree / "stays").touch()  # an empty one is taken for lost where its copy has files
    let_fail("nothing")
    daemon = patched(PATCH.format(switch=str(switch)))(config(0), ("-v",))
    daemon.start()

    def until_level(number: int) -> None:
        pairs = zip(trees(number), ("one", "two"), strict=True)
        daemon.until_level([(tree, copy / name) for tree, name in pairs for copy in copies(number)], nodes=3)

    until_level(0)
    before = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    for number, (fault, sign) in enumerate(FAULTS.items(), 1):
        daemon.configure(config(number))
        since = len(daemon.log())
        let_fail(fault)
        daemon.hup()
        answer = daemon.until_logged(r"default\.py (reloaded|was not reloaded)", since=since)[1]

        def is_met(number: int = number, sign: str = sign, since: int = since) -> bool:
            for name in range(NAMES):
                (trees(number)[0] / f"name {name}").write_text(f"{number}")
            return re.search(sign, daemon.log()[since:]) is not None

        until(is_met, 60, f"{fault!r} to be met")
        let_fail("nothing")
        if answer != "reloaded":
            daemon.hup()
        until_level(number)
    # The last worker to be replaced may be about to end.
    until(lambda: len(os.listdir(f"/proc/{daemon.pid}/fd")) <= before, 60, "no more descriptors than before")
