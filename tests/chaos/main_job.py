"""The main job on real input: a tree that nobody here wrote, three nodes over three transports, real programs.

    python tests/chaos/main_job.py [TREE]

copies TREE (default /usr/share) to a temporary directory, mirrors the copy to an rsync daemon, through an
sshd and to a local path, all on loopback, lets tar, git, pip, mv and rm change it, and compares types,
modes, times, owners, link targets and contents on all nodes after each. Prints what it took.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tests"))

from support import trees
from support.daemon import Daemon
from support.rsyncd import Rsyncd
from support.sshd import Sshd

DEADLINE = 900


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
    daemon = None
    try:
        sshd.start()
        rsyncd.start()
        tree = home / "tree"
        subprocess.run(["cp", "-a", source, tree], check=True)
        entries = trees.snapshot(tree, content=False)
        files = sum(entry.type == "file" for entry in entries.values())
        print(f"{source}: {len(entries)} entries, {files} of them files")
        config = {
            "wpaths": [f"{tree}/"],
            "rpaths": ["/tree"],
            "rnodes": [rsyncd.url("www"), sshd.node("ssh", nodes[1]), str(nodes[2])],
        }
        daemon = Daemon(home / "inosync", config, env=sshd.env())
        copies = [node / "tree" for node in nodes]
        _step("full mirror to 3 nodes", daemon, tree, copies, daemon.start)
        print("\n".join("    " + title for title in daemon.titles()))
        for what, change in _changes(home, tree):
            _step(what, daemon, tree, copies, change)
        print("\n".join("    " + title for title in daemon.titles()))
        log = daemon.log()
        print(f"exit code {daemon.stop()}, {len(re.findall('WARNING', log))} warnings in the log")
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
    unpacked, packages = tree / "unpacked", tree / "packages"
    unpacked.mkdir()
    directories = sorted(path for path in tree.iterdir() if path.is_dir() and path != unpacked)
    biggest = max(directories, key=lambda path: sum(1 for _ in path.rglob("*")))
    return [
        (f"tar -x of {library}", run("tar", "-xf", archive, "-C", unpacked)),
        ("git clone", run("git", "clone", "--no-hardlinks", CHECKOUT, tree / "clone")),
        ("pip install --target", run(sys.executable, "-m", "pip", "install", "--target", packages, "psutil")),
        ("one file edited", lambda: (unpacked / "edited").write_text("by hand\n")),
        (f"mv of {biggest.name}, the largest directory", run("mv", biggest, tree / "renamed")),
        ("cp -a of it", run("cp", "-a", tree / "renamed", tree / "copied")),
        ("rm -r of both, and of the clone", run("rm", "-r", tree / "renamed", tree / "copied", tree / "clone")),
        ("chmod -R, chown -R", run("chmod", "-R", "o-w,u+w", unpacked)),
    ]


def _step(
    what: str, daemon: Daemon, tree: Path, copies: list[Path], change: Callable[[], object]
) -> None:
    before = len(daemon.log()) if daemon.stderr.exists() else 0
    began = time.monotonic()
    change()
    changed = time.monotonic()
    # The state first: comparing trees of this size takes longer than mirroring them.
    while any(trees.diff(_outline(tree), _outline(copy)) for copy in copies):
        if time.monotonic() - began > DEADLINE:
            raise SystemExit(f"{what}: not level after {DEADLINE} s\n{daemon.log_tail()}")
    level = time.monotonic()
    daemon.until_level([(tree, copy) for copy in copies], timeout=DEADLINE)
    warnings = len(re.findall("WARNING", daemon.log()[before:]))
    took = f"{changed - began:7.1f} s, level at most {level - changed:5.1f} s later"
    print(f"{what:50} {took}, {warnings} warnings; identical")


def _outline(path: Path) -> trees.Tree:
    return trees.snapshot(path, content=False) if path.is_dir() else {}


if __name__ == "__main__":
    sys.exit(main())
