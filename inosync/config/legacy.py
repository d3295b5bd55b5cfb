"""Both forms of configuration files for inosync 0.2.3: what they mean now.

The newer form has ``wpaths`` and ``rpaths``, and put a wpath without a trailing slash into its rpath. The
older form has one ``wpath``, and nodes that are whole targets.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from inosync.config.errors import Findings, ValueProblem
from inosync.config.paths import absolute
from inosync.text import format_value


def is_older_form(given: Mapping[str, Any]) -> bool:
    """Whether a file that sets these names has the older form."""
    return "wpath" in given and "wpaths" not in given


def modernised(given: Mapping[str, Any], findings: Findings) -> dict[str, Any]:
    """Return what a file of the older form sets, as settings of today."""
    wpath = given["wpath"]
    rpath = _rpath(wpath, given.get("rnodes"), findings)
    # Its "rpath" was a variable of the file's own, as in the sample file of that time.
    others = {name: value for name, value in given.items() if name not in ("wpath", "rpath")}
    return {"rpaths": [rpath], **others, "wpaths": [wpath]}


def _rpath(wpath: object, rnodes: object, findings: Findings) -> str:
    """Given a directory without a trailing slash, rsync puts the directory itself into the target."""
    name = posixpath.basename(wpath) if isinstance(wpath, str) else ""
    if name in ("", ".", ".."):
        return ""
    text = f"without a trailing slash it becomes {format_value(name)} inside each target"
    findings.warn("wpaths", wpath, text)
    nodes = rnodes if isinstance(rnodes, list | tuple) else ()
    # After these a slash would lead to another place than the home or the module.
    ended = any(isinstance(node, str) and node.endswith(("/", ":")) for node in nodes)
    return name if ended else "/" + name


def check_slash(wpath: str, rpath: str, findings: Findings) -> None:
    """Report a wpath that 0.2.3 would have put into the rpath, while now it becomes the rpath."""
    name = posixpath.basename(wpath)
    same = ("", ".", "..", posixpath.basename(rpath.rstrip("/")))
    if not rpath.strip("/") or name in same:
        return
    inside = f"{rpath.rstrip('/')}/{name}"
    if posixpath.normpath(rpath) == posixpath.dirname(absolute(wpath)):
        problem = f"all else in it would be deleted, because it would be a copy of {format_value(wpath)}"
        hint = f"write {format_value(inside)}, or the wpath with a slash at its end if this is meant"
        findings.add("rpaths", ValueProblem(rpath, problem, hint))
    else:
        mirrored = f"is mirrored as {format_value(rpath)}, where inosync 0.2.3 made {format_value(inside)}"
        findings.warn("wpaths", wpath, f"{mirrored} of it; a slash at its end says that this is meant")
