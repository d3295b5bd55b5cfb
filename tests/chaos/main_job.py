"""The main job on real input: a real tree, real programs that change it, three nodes on three transports.

    python tests/chaos/main_job.py [TREE]

copies TREE (default /usr/share) to a temporary directory, mirrors the copy to an rsync daemon, through an
sshd and to a local path, all on loopback, lets tar, git, pip, mv, cp, chmod and rm change it, and compares
types, modes, times, owners, sizes and link targets on all nodes after each step, and contents at the end.
Prints what it took.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tests"))

from support import trees  # noqa: E402 - found by the line above
from support.daemon import Daemon  # noqa: E402
from support.rsyncd import Rsyncd  # noqa: E402
from support.sshd import Sshd  # noqa: E402

DEADLINE = 900
BATCH = re.compile(r"^(\S+ \S+) inosync: \w+: \S+: (?:full mirror|\d+ paths?) in", re.MULTILINE)


def main() -> int:
    """Run it; the exit code is 0 if all trees were identical after every step."""
    source = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share")
    home = Path(tempfile.mkdtemp(prefix="inosync-main-job-"))
    home.chmod(0o700)
    sshd = Sshd(home / "sshd")
    nodes = [home / name for name in ("daemon", "ssh", "local")]
    for node in nodes:
        node.mkdir()
    rsyncd = Rsyncd(home / "rsyncd", {"www": nodes[0]})
    tree = home / "tree"
    config = {
        "wpaths": [f"{tree}/"],
        "rpaths": ["/tree"],
        "rnodes": [rsyncd.url("www"), sshd.node("ssh", nodes[1]), str(nodes[2])],
    }
    daemon = None
    try:
        sshd.start()
        rsyncd.start()
        subprocess.run(["cp", "-a", f"{source}/.", tree], check=True)
        entries = trees.snapshot(tree, content=False)
        files = sum(entry.type == "file" for entry in entries.values())
        print(f"{source}: {len(entries)} entries, {files} of them files", flush=True)
        daemon = Daemon(home / "inosync", config, ("-v",), env=sshd.env())
        copies = [node / "tree" for node in nodes]
        _step("full mirror to 3 nodes", daemon, tree, copies, daemon.start)
        for what, change in _changes(home, tree):
            _step(what, daemon, tree, copies, change)
        print("\n".join("    " + title for title in daemon.titles()))
        daemon.until_level([(tree, copy) for copy in copies], timeout=DEADLINE)
        log = daemon.log()
        batches, warnings = len(BATCH.findall(log)), log.count("WARNING")
        print(f"contents identical, too; {batches} batches, {warnings} warnings, exit code {daemon.stop()}")
        return 0
    finally:
        if daemon is not None:
            daemon.close()
        rsyncd.kill()
        sshd.kill()
        shutil.rmtree(home, ignore_errors=True)


def _changes(home: Path, tree: Path) -> list[tuple[str, Callable[[], object]]]:
    def run(*argv: str | Path) -> Callable[[], object]:
        return lambda: subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    archive = home / "archive.tar"
    library = Path(subprocess.__file__).parent
    subprocess.run(["tar", "-cf", archive, "-C", library.parent, library.name], check=True)
    unpacked, packages, clone = tree / "unpacked", tree / "packages", tree / "clone"
    unpacked.mkdir()
    directories = [path for path in tree.iterdir() if path.is_dir() and not path.is_symlink()]
    biggest = max(directories, key=lambda path: sum(1 for _ in path.rglob("*")))
    renamed, copied = tree / "renamed", tree / "copied"
    return [
        ("tar -x of Python's library", run("tar", "-xf", archive, "-C", unpacked)),
        ("git clone", run("git", "clone", "--no-hardlinks", CHECKOUT, clone)),
        ("pip install --target", run(sys.executable, "-m", "pip", "install", "--target", packages, "psutil")),
        ("one file edited", lambda: (unpacked / "edited").write_text("by hand\n")),
        (f"mv of {biggest.name}, the largest directory", run("mv", biggest, renamed)),
        ("cp -a of it", run("cp", "-a", renamed, copied)),
        ("rm -r of it and of the clone", run("rm", "-r", renamed, clone)),
        ("chmod -R", run("chmod", "-R", "g-r,o-r", unpacked)),
    ]


def _step(what: str, daemon: Daemon, tree: Path, copies: list[Path], change: Callable[[], object]) -> None:
    before = len(daemon.log()) if daemon.stderr.exists() else 0
    began = time.time()
    change()
    changed = time.time()
    while not _level(daemon, tree, copies):
        if time.time() - began > DEADLINE:
            raise SystemExit(f"{what}: not level after {DEADLINE} s\n{daemon.log_tail()}")
    done = [datetime.fromisoformat(stamp.replace(",", ".")) for stamp in BATCH.findall(daemon.log()[before:])]
    behind = max(done).timestamp() - changed
    took = f"{changed - began:5.1f} s, the last node level {behind:6.2f} s later"
    print(f"{what:40} {took}, {len(done):3} batches; identical", flush=True)


def _level(daemon: Daemon, tree: Path, copies: list[Path]) -> bool:
    states = daemon.states().values()
    if len(states) < len(copies) or any(state != "ok" for state in states):
        return False
    outline = trees.snapshot(tree, content=False)
    return all(not trees.diff(outline, trees.snapshot(copy, content=False)) for copy in copies)


if __name__ == "__main__":
    sys.exit(main())
