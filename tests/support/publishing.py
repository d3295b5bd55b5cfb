"""A site that is published again and again, and a reader of its copy who looks whether it is whole.

Each deployment writes a release into a new directory and switches a link to it, and a page after the asset
that it names; then what nothing leads to any more is removed. The source is whole at every moment.

As a program: ``publishing.py COPY RELEASE_FILES PAUSE``, a reader until its standard input ends, with so many
seconds between two looks; prints what it has seen as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

LINK, PAGE = "current", "index.html"
EXAMPLES = 5


@dataclass
class Site:
    """``files``: how many each release has; ``kept``: releases that are not removed."""

    root: Path
    files: int
    kept: int = 2
    version: int = 0
    content: bytes = field(default=b"x" * 1000)

    def deploy(self) -> None:
        """Publish the next version."""
        self.version += 1
        release = self.root / "releases" / str(self.version)
        release.mkdir(parents=True)
        for number in range(self.files):
            (release / f"f{number}").write_bytes(self.content)
        fresh = self.root / "fresh-link"
        fresh.symlink_to(f"releases/{self.version}")
        fresh.replace(self.root / LINK)
        (self.root / "assets").mkdir(exist_ok=True)
        (self.root / f"assets/{self.version}.css").write_bytes(self.content)
        page = self.root / "fresh-page"
        page.write_text(f"assets/{self.version}.css")
        page.replace(self.root / PAGE)
        old = self.version - self.kept
        if old > 0:
            (self.root / f"assets/{old}.css").unlink()
            for file in (self.root / "releases" / str(old)).iterdir():
                file.unlink()
            (self.root / "releases" / str(old)).rmdir()


class Reader:
    """Looks at a copy in a process of its own, until ``seen``. ``pause``: seconds between two looks."""

    def __init__(self, copy: Path, files: int, pause: float = 0.0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(copy), str(files), str(pause)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.examples: list[str] = []
        """The first things that were wrong, with their times."""

    def seen(self) -> dict[str, int]:
        """End it; return what was wrong and how often, with the number of ``looks`` and ``versions``."""
        output, _ = self._process.communicate()
        found: dict[str, int]
        found, self.examples = json.loads(output)
        return found

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def look_at_release(copy: str, files: int) -> str:
    """Return what is wrong behind the link; empty if nothing is."""
    link = f"{copy}/{LINK}"
    try:
        target = os.readlink(link)
    except OSError:
        return "no link"
    try:
        count = sum(not name.startswith(".") for name in os.listdir(f"{copy}/{target}"))
    except OSError:
        count = 0
    if count == files or os.readlink(link) != target:
        return ""
    return "release is gone" if count == 0 else "release is not whole"


def look_at_page(copy: str) -> str:
    """Return what is wrong with the page; empty if nothing is."""
    try:
        text = _read(f"{copy}/{PAGE}")
        if os.path.exists(f"{copy}/{text}") or _read(f"{copy}/{PAGE}") != text:
            return ""
    except OSError:
        return "no page"
    return "page names what is not there"


def outline(copy: str) -> str:
    """Say what a copy leads to and has now."""
    found = []
    for name in (PAGE, LINK, "assets", "releases"):
        path = f"{copy}/{name}"
        try:
            text = (
                _read(path)
                if name == PAGE
                else os.readlink(path)
                if name == LINK
                else sorted(os.listdir(path))
            )
        except OSError as error:
            text = str(error)
        found.append(f"{name} {text}")
    return ", ".join(found)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def main(copy: str, files: int, pause: float) -> None:
    """Look until standard input ends."""
    ended = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    seen: Counter[str] = Counter()
    versions, examples = set(), list[str]()
    while not ended.wait(pause) if pause else not ended.is_set():
        seen["looks"] += 1
        versions.add(os.readlink(f"{copy}/{LINK}"))
        for wrong in (look_at_release(copy, files), look_at_page(copy)):
            if wrong:
                seen[wrong] += 1
                if len(examples) < EXAMPLES:
                    examples.append(f"{datetime.now():%H:%M:%S.%f} {wrong}: {outline(copy)}")
    seen["versions"] = len(versions)
    print(json.dumps((seen, examples)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
