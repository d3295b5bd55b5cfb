"""Imports go downward only (design.md section 4), read off the syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

LOW = frozenset({"inosync", "messages", "policy", "system"})
"""What every module but those of these layers may use; "inosync" is the package itself, for its version."""

LAYERS: Mapping[str, frozenset[str]] = {
    "cli": LOW | {"master", "config", "console"},
    "master": LOW | {"node", "watcher", "worker", "config", "console"},
    "node": LOW | {"config"},
    "watcher": LOW,
    "worker": LOW | {"config"},
    "config": LOW,
    "console": frozenset({"inosync", "console", "policy", "messages"}),
    "policy": frozenset({"policy", "messages"}),
    "system": frozenset(),
    "messages": frozenset(),
    "inosync": frozenset(),
}
"""What the layers of the design may import."""

PARTS: Mapping[str, frozenset[str]] = {
    "cli": frozenset({"check", "handover"}),
    "master": frozenset(
        {
            "chronicle",
            "desk",
            "dispatch",
            "flush",
            "guard",
            "listener",
            "lookout",
            "once",
            "overview",
            "report",
            "trees",
            "verification",
            "watchdog",
        }
    ),
    "watcher": frozenset(
        {
            "directories",
            "links",
            "patrol",
            "search",
            "sink",
            "unwatched",
            "visitor",
            "walker",
            "watches",
            "writers",
        }
    ),
    "worker": frozenset(
        {
            "comparer",
            "deletions",
            "display",
            "hooks",
            "line",
            "names",
            "spare",
            "spares",
            "standing",
            "task",
            "throttle",
            "transfer",
        }
    ),
    "node": frozenset({"tally", "told"}),
    "config": frozenset({"configfile", "patterns", "settings", "trusted"}),
}
"""Modules that one layer has put out into files of their own. They belong to it: they may import what it
may, and each other, but not it; and nobody else may import them."""

ALLOWED: Mapping[str, frozenset[str]] = {
    member: allowed | PARTS.get(owner, frozenset())
    for owner, allowed in LAYERS.items()
    for member in (owner, *sorted(PARTS.get(owner, ())))
}
"""What may be imported, by layer; the layer of a module is the first part of its name below inosync."""

ONLY_IN = {
    "pyinotify": "inosync.system.inotify",
    "setproctitle": "inosync.system.process",
    "psutil": "inosync.system.process",
    "prometheus_client": "inosync.console.metrics",
}
NO_SHELL = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}

Sources = Mapping[str, str]
"""Source texts by the full names of their modules."""


def sources() -> dict[str, str]:
    found = {}
    for path in (CHECKOUT / "inosync").rglob("*.py"):
        parts = path.relative_to(CHECKOUT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


def layer(module: str) -> str:
    """``inosync.policy.journal`` -> ``policy``; the package itself is ``inosync``."""
    return module.split(".")[1] if "." in module else module


def imports(module: str, tree: ast.AST, packages: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Give line and full name of everything imported, wherever it stands; ``from a import b`` gives a.b too.

    Imports below ``if TYPE_CHECKING`` count: what the types know of each other, the reader has to.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = module.split(".")
                if module not in packages:
                    up.pop()
                up = up[: len(up) - node.level + 1]
                base = ".".join([*up, *([base] if base else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def resolved(name: str, modules: Iterable[str]) -> str:
    """The module that an imported name is in: ``inosync.config.Config`` -> ``inosync.config``."""
    while "." in name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def violations(texts: Sources) -> list[str]:
    """Everything in these sources that the layer rule, or the rules about shells and argv, forbid."""
    found: list[str] = []
    edges: dict[str, set[str]] = {module: set() for module in texts}
    packages = {module for module in texts if any(other.startswith(f"{module}.") for other in texts)}
    packages.add("inosync")
    for module, text in sorted(texts.items()):
        tree = ast.parse(text, module)
        own = layer(module)
        if own not in ALLOWED:
            found.append(
                f"{module}: what it may import is not said; add it to LAYERS, or to the PARTS of one"
            )
            continue
        for line, name in imports(module, tree, packages):
            where = f"{module}:{line}"
            top = name.split(".")[0]
            if top in ONLY_IN and module != ONLY_IN[top]:
                found.append(f"{where}: {top} is for {ONLY_IN[top]} only")
            if top != "inosync":
                continue
            target = resolved(name, texts)
            if target != module:
                edges[module].add(target)
            if layer(target) not in ALLOWED[own]:
                found.append(f"{where}: {own} must not import {target}")
        found += [f"{module}:{line}: {what}" for line, what in habits(module, tree)]
    return found + [f"cycle: {' -> '.join(cycle)}" for cycle in cycles(edges)]


def habits(module: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Shells, and readers of sys.argv."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg == "shell" and not (
                    isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                ):
                    yield node.lineno, "no shell=True"
        name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if name in NO_SHELL:
            yield getattr(node, "lineno", 0), f"no {name}"
        if name == "sys.argv" and module != "inosync.cli":
            yield getattr(node, "lineno", 0), "sys.argv is for inosync.cli only"
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in NO_SHELL:
                    yield node.lineno, f"no {full}"
                if full == "sys.argv" and module != "inosync.cli":
                    yield node.lineno, "sys.argv is for inosync.cli only"


def cycles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Every cycle that a walk along the imports comes upon, each once, as the modules on its way."""
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> None:
        if module in way:
            found.append([*way[way.index(module) :], module])
            return
        if module in done:
            return
        for target in sorted(edges.get(module, ())):
            visit(target, [*way, module])
        done.add(module)

    for module in sorted(edges):
        visit(module, [])
    return found


def test_imports_go_downward_only() -> None:
    texts = sources()
    assert "inosync.messages" in texts
    assert violations(texts) == []


CLEAN = {
    "inosync": "__version__ = '1'",
    "inosync.cli": "import sys\nfrom inosync import __version__, master\nprint(sys.argv)",
    "inosync.master": "from inosync import node, watcher, worker\nfrom inosync.config import Config",
    "inosync.node": "from inosync.config import Config\nfrom inosync.system import process",
    "inosync.watcher": "from inosync.system.inotify import Inotify\nfrom . import walker",
    "inosync.walker": "from inosync.directories import Root\nfrom .policy import journal",
    "inosync.directories": "import os",
    "inosync.worker": "from inosync.messages import Batch\nsubprocess.run([], shell=False)",
    "inosync.config": "from inosync.policy import filters",
    "inosync.messages": "import enum",
    "inosync.policy": "",
    "inosync.policy.journal": "from inosync.messages import Change\nfrom inosync.policy import filters",
    "inosync.policy.filters": "import re",
    "inosync.system": "",
    "inosync.system.inotify": "import pyinotify",
    "inosync.system.process": "import psutil, setproctitle",
    "inosync.console": "",
    "inosync.console.status": "from inosync.policy import journal",
}


def test_clean_sources_pass() -> None:
    assert violations(CLEAN) == []


@pytest.mark.parametrize(
    ("module", "text", "expected"),
    [
        ("inosync.watcher", "from inosync import worker", "watcher must not import inosync.worker"),
        ("inosync.worker", "import inosync.watcher", "worker must not import inosync.watcher"),
        ("inosync.worker", "from inosync.watcher import Watcher", "worker must not import inosync.watcher"),
        ("inosync.worker", "from . import watcher", "worker must not import inosync.watcher"),
        ("inosync.worker", "from inosync import walker", "worker must not import inosync.walker"),
        ("inosync.walker", "from inosync import worker", "walker must not import inosync.worker"),
        (
            "inosync.directories",
            "import inosync.watcher",
            "directories must not import inosync.watcher",
        ),
        ("inosync.node", "from inosync import master", "node must not import inosync.master"),
        (
            "inosync.node",
            "def f():\n    from .watcher import W",
            "inosync.node:2: node must not import inosync.watcher",
        ),
        ("inosync.worker", "from inosync import console", "worker must not import inosync.console"),
        ("inosync.watcher", "from inosync.config import Config", "watcher must not import inosync.config"),
        (
            "inosync.policy.journal",
            "from inosync.system import inotify",
            "policy must not import inosync.system",
        ),
        ("inosync.policy.journal", "from ..config import Config", "policy must not import inosync.config"),
        (
            "inosync.system.process",
            "from inosync.system import inotify",
            "system must not import inosync.system",
        ),
        ("inosync.system.process", "from . import inotify", "system must not import inosync.system.inotify"),
        (
            "inosync.system.process",
            "from inosync.messages import Batch",
            "system must not import inosync.messages",
        ),
        (
            "inosync.messages",
            "import inosync.policy.filters",
            "messages must not import inosync.policy.filters",
        ),
        (
            "inosync.console.status",
            "from inosync.master import Master",
            "console must not import inosync.master",
        ),
        ("inosync.watcher", "import pyinotify", "pyinotify is for inosync.system.inotify only"),
        (
            "inosync.worker",
            "from setproctitle import setproctitle",
            "setproctitle is for inosync.system.process",
        ),
        ("inosync.worker", "import psutil._common", "psutil is for inosync.system.process only"),
        ("inosync.policy.filters", "from inosync.policy import journal", "cycle: inosync.policy.filters -> "),
        ("inosync.worker", "import subprocess\nsubprocess.run('x', shell=True)", "no shell=True"),
        ("inosync.worker", "import subprocess\nsubprocess.run('x', shell=yes)", "no shell=True"),
        ("inosync.worker", "import os\nos.system('x')", "no os.system"),
        ("inosync.worker", "from os import popen", "no os.popen"),
        ("inosync.master", "import sys\nprint(sys.argv)", "sys.argv is for inosync.cli only"),
        ("inosync.master", "from sys import argv", "sys.argv is for inosync.cli only"),
        ("inosync.helpers", "", "inosync.helpers: what it may import is not said"),
    ],
)
def test_a_violation_is_found(module: str, text: str, expected: str) -> None:
    found = violations(CLEAN | {module: text})
    assert any(expected in line for line in found), found
