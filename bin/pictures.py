"""Make the pictures of the page in docs/, with made-up nodes, by a headless Chromium that is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "tests")]

from support import statuses  # noqa: E402 - it is no package that is installed

from inosync.console import page  # noqa: E402
from inosync.console.history import Event, Snapshot  # noqa: E402

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PICTURES = (
    ("page-3.png", 3, "1280,400"),
    ("page.png", 60, "1280,830"),
    ("page-500.png", 500, "1280,490"),
    ("page-phone.png", 60, "500,900"),
)
"""The name of the file, the number of nodes, and the size in pixels."""


def nodes(count: int) -> list[dict[str, Any]]:
    """Return so many nodes, the worst first."""
    if count > 3:
        return statuses.fleet(count)
    big = statuses.node("b.mirror.com", "syncing", 0.4, pending=3, big_files=1, big_files_percent=38)
    return [statuses.node("a.mirror.com", "retrying", 312.0), big, statuses.node("rsync://c.mirror.com/www")]


def events(node: dict[str, Any]) -> list[Event]:
    """Return what has happened to a node."""
    at, found = statuses.NOW - node["lag"], [(statuses.NOW - 9000, "state", "is ok after full for 12.0 s", 1)]
    if node["state"] not in ("ok", "syncing"):
        reason = f": {node['reason']}" if node["reason"] else ""
        found.append((at, "state", f"is {node['state']} after ok for 2 h 3 min{reason}", 1))
    if node["state"] == "retrying":
        found.append((statuses.NOW - 12, "failed", f"{node['reason']} (rsync's exit code 255)", 3))
    return found


def html(count: int) -> str:
    """Return the page of so many nodes, with the first of 60 unfolded."""
    found = nodes(count)
    snapshot = Snapshot(statuses.NOW, statuses.status(found)["master"], found)
    snapshot = replace(snapshot, events={node["name"]: events(node) for node in found})
    text = page.render(snapshot, statuses.lived(found))
    return text if count != 60 else text.replace('<details class="node', '<details open class="node', 1)


def main() -> int:
    """Make them."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("bin/pictures.py: no Chromium is installed (apt install chromium)")
    options = ["--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    options += ["--no-sandbox"] if os.geteuid() == 0 else []
    os.environ["TZ"] = "UTC"
    with tempfile.TemporaryDirectory() as scratch:
        for name, count, size in PICTURES:
            text = re.sub(r"on [^ <]+, as of", "on www1, as of", html(count))
            place = Path(scratch, "page.html")
            place.write_text(text)
            picture = CHECKOUT / "docs" / name
            command = [browser, *options, f"--user-data-dir={scratch}/profile", f"--window-size={size}"]
            subprocess.run(
                [*command, f"--screenshot={picture}", place.as_uri()],
                check=True,
                capture_output=True,
                timeout=120,
            )
            print(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
