"""Make a Debian package: stage a tree, and have dpkg-deb put it together. Called by bin/deb.

Usage: deb.py MANDIR OUTDIR
"""

from __future__ import annotations

import argparse
import configparser
import getpass
import gzip
import hashlib
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from inosync import __version__  # noqa: E402

PACKAGES = {
    "pyinotify": "python3-pyinotify",
    "pyasyncore": "",  # where Python has lost asyncore, python3-pyinotify brings it along
    "setproctitle": "python3-setproctitle (>= 1.3)",
    "psutil": "python3-psutil",
}
"""Names of requirements in Debian. A new one has to be added here."""

EXAMPLES = ("default.py", "purge-cache", "mail-when-behind", "inosync-dashboard.json", "inosync.rules.yml")
LIB = "usr/lib/python3/dist-packages"
DOC = "usr/share/doc/inosync"

SCRIPT = """\
#!/usr/bin/python3
import sys

from inosync.cli import main

sys.exit(main())
"""

POSTINST = """\
#!/bin/sh
set -e
if [ "$1" = configure ]; then
    if command -v py3compile >/dev/null; then
        py3compile -p inosync
    fi
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload || true
        # Nothing is started that did not run: there may be no configuration yet.
        if [ -n "$2" ]; then
            systemctl try-restart inosync.service 'inosync@*.service' || true
        fi
    fi
fi
"""

PRERM = """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl stop inosync.service 'inosync@*.service' || true
fi
if command -v py3clean >/dev/null; then
    py3clean -p inosync
else
    find /usr/lib/python3/dist-packages/inosync -name __pycache__ -type d -exec rm -rf {} +
fi
"""

POSTRM = """\
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
"""

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: inosync

Files: *
Copyright: {holders}
License: {name}
{text}
"""


def main() -> int:
    """Make the package from the man pages in MANDIR and the checkout, in OUTDIR."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("mandir", type=Path)
    options.add_argument("outdir", type=Path)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "inosync"
        root.mkdir()
        stage(root, chosen.mandir)
        describe(root)
        for path in (root, *root.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        made = chosen.outdir / f"inosync_{__version__}_all.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, made], check=True)
    return 0


def stage(root: Path, mandir: Path) -> None:
    """Put every file where it belongs."""
    package = CHECKOUT / "inosync"
    for source in sorted(path for ending in ("*.py", "*.css", "*.js") for path in package.rglob(ending)):
        put(root / LIB / source.relative_to(CHECKOUT), source.read_bytes())
    put(root / "usr/sbin/inosync", SCRIPT.encode(), executable=True)
    conf = CHECKOUT / "conf"
    for unit in ("inosync.service", "inosync@.service"):
        put(root / "usr/lib/systemd/system" / unit, (conf / unit).read_bytes())
    put(root / "etc/logrotate.d/inosync", (conf / "inosync.logrotate").read_bytes())
    (root / "etc/inosync").mkdir()
    put(root / "usr/share/bash-completion/completions/inosync", (conf / "completion.bash").read_bytes())
    put(root / "usr/share/zsh/vendor-completions/_inosync", (conf / "completion.zsh").read_bytes())
    for name in EXAMPLES:
        source = conf / name
        executable = bool(source.stat().st_mode & stat.S_IXUSR)
        put(root / DOC / "examples" / name, source.read_bytes(), executable)
    for page in mandir.iterdir():
        put(root / f"usr/share/man/man{page.suffix[1:]}" / f"{page.name}.gz", packed(page.read_bytes()))
    put(root / DOC / "README.rst.gz", packed((CHECKOUT / "README.rst").read_bytes()))
    put(root / DOC / "changelog.gz", packed(changelog().encode()))
    put(root / DOC / "NEWS.gz", packed((CHECKOUT / "CHANGES.rst").read_bytes()))
    put(root / DOC / "copyright", copyright_text().encode())


def describe(root: Path) -> None:
    """Write what dpkg has to know."""
    debian = root / "DEBIAN"
    for name, text in (("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)):
        put(debian / name, text.encode(), executable=True)
    put(debian / "conffiles", b"/etc/logrotate.d/inosync\n")
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and debian not in path.parents]
    # dpkg --verify and debsums want MD5; it protects nothing.
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n" for path in files]
    put(debian / "md5sums", "".join(sums).encode())
    size = sum(-(-path.stat().st_size // 1024) for path in files)
    put(debian / "control", "".join(f"{line}\n" for line in control(size)).encode())


def control(size: int) -> Iterator[str]:
    """The fields of the package, most of them from setup.cfg; ``size`` in KiB."""
    setup = read_setup()
    options = setup["options"]
    needs = debian_requirements(options["install_requires"])
    yield "Package: inosync"
    yield f"Version: {__version__}"
    yield "Architecture: all"
    yield "Section: admin"
    yield "Priority: optional"
    yield f"Maintainer: {maintainer()}"
    yield f"Installed-Size: {size}"
    python = re.sub(r"^>=\s*", "", options["python_requires"])
    yield f"Depends: {', '.join([f'python3 (>= {python})', *needs, 'rsync'])}"
    yield "Recommends: openssh-client"
    yield "Suggests: python3-prometheus-client, logrotate"
    synopsis = setup["metadata"]["description"]
    yield f"Description: {synopsis[0].lower()}{synopsis[1:]}"
    yield " inosync keeps directories on one Linux machine mirrored to tens or hundreds of"
    yield " remote nodes, over ssh or rsync daemons, with nothing but rsync on them. It"
    yield " watches with inotify, keeps an rsync connected to each node, and forgets no"
    yield " change. A slow, hung or dead node has no effect on the others."


def read_setup() -> configparser.ConfigParser:
    """Return setup.cfg, which has all metadata of the package."""
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg")
    return setup


def debian_requirements(install_requires: str) -> list[str]:
    """Return what setup.cfg requires, by its names in Debian."""
    needs = []
    for line in install_requires.strip().splitlines():
        requirement = line.partition("#")[0].strip()
        if requirement:
            name = re.split(r"[\s<>=;!~\[]", requirement)[0]
            needs.append(PACKAGES[name])
    return [need for need in needs if need]


def maintainer() -> str:
    """Who made this package: as Debian's tools ask for it, in DEBFULLNAME and DEBEMAIL."""
    mail = os.environ.get("DEBEMAIL") or f"{getpass.getuser()}@{socket.getfqdn()}"
    return f"{os.environ.get('DEBFULLNAME', 'inosync')} <{mail}>"


def changelog() -> str:
    """A changelog in Debian's form: the details are in NEWS."""
    when = subprocess.run(
        ["git", "log", "-1", "--format=%aD"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    ).stdout.strip()
    date = when or "Thu, 01 Jan 1970 00:00:00 +0000"
    head = f"inosync ({__version__}) unstable; urgency=medium"
    return f"{head}\n\n  * See NEWS.\n\n -- {maintainer()}  {date}\n"


def copyright_text() -> str:
    """The licence in Debian's form."""
    lines = (CHECKOUT / "LICENSE").read_text().strip().splitlines()
    found = [line.removeprefix("Copyright").strip() for line in lines if line.startswith("Copyright")]
    holders = ", ".join(found)
    text = "\n".join(f" {line.strip()}" if line.strip() else " ." for line in lines)
    return COPYRIGHT.format(holders=holders, name=read_setup()["metadata"]["license"], text=text)


def put(path: Path, data: bytes, executable: bool = False) -> None:
    """Write a file, and the directories that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o755 if executable else 0o644)


def packed(data: bytes) -> bytes:
    """As Debian wants documents: without a time in it, so that the same sources make the same package."""
    return gzip.compress(data, 9, mtime=0)


if __name__ == "__main__":
    if shutil.which("dpkg-deb") is None:
        sys.exit("bin/deb: dpkg-deb is needed")
    sys.exit(main())
