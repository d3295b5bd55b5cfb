"""Imports go down one list of rooms, without a cycle; pure modules stay pure (docs/architecture.rst).

All of it is read from the syntax trees; nothing is imported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

ROOMS = (
    "cli",
    "check",
    "startup",
    "master",
    "status",
    "console",
    "worker",
    "nodes",
    "state",
    "fleet",
    "guard",
    "journal",
    "config",
    "watch",
    "rsync",
    "filters",
    "changes",
    "text",
    "system",
    "inosync",
)
"""The packages, and the modules beside them, from the top down. A room imports itself and the rooms below it.
"inosync" is the package itself, for its version."""

PURE = frozenset(
    {
        "inosync.config.checks",
        "inosync.config.diff",
        "inosync.config.errors",
        "inosync.config.events",
        "inosync.config.hook",
        "inosync.config.listen",
        "inosync.config.nodes",
        "inosync.config.redis_url",
        "inosync.config.targets",
        "inosync.config.timetable",
        "inosync.filters.affected",
        "inosync.filters.rule",
        "inosync.filters.rules",
        "inosync.filters.wildmatch",
        "inosync.fleet.codec",
        "inosync.fleet.lateness",
        "inosync.fleet.leases",
        "inosync.fleet.orders",
        "inosync.fleet.records",
        "inosync.fleet.recovery",
        "inosync.fleet.scripts",
        "inosync.fleet.service",
        "inosync.fleet.shares",
        "inosync.guard.loss",
        "inosync.journal.debounce",
        "inosync.journal.entries",
        "inosync.journal.journal",
        "inosync.journal.renames",
        "inosync.journal.subscription",
        "inosync.journal.times",
        "inosync.master.schedule",
        "inosync.changes",
        "inosync.nodes.messages",
        "inosync.nodes.backoff",
        "inosync.nodes.counters",
        "inosync.nodes.lifecycle",
        "inosync.nodes.pace",
        "inosync.nodes.retries",
        "inosync.nodes.roll_out",
        "inosync.nodes.slots",
        "inosync.nodes.stages",
        "inosync.nodes.state_hook",
        "inosync.rsync.argv",
        "inosync.rsync.compat",
        "inosync.rsync.errors",
        "inosync.rsync.exit_codes",
        "inosync.rsync.itemize",
        "inosync.rsync.options",
        "inosync.rsync.outcome",
        "inosync.rsync.probe",
        "inosync.rsync.renames",
        "inosync.rsync.ssh",
        "inosync.rsync.stderr",
        "inosync.rsync.stdout",
        "inosync.rsync.target",
        "inosync.state.document",
        "inosync.state.marks",
        "inosync.state.saved_fleet",
        "inosync.state.trust",
        "inosync.status.titles",
        "inosync.text",
        "inosync.watch.shares",
        "inosync.worker.lanes",
        "inosync.worker.refused_options",
        "inosync.worker.renamed",
        "inosync.worker.sent_directories",
        "inosync.worker.transfer_end",
        "inosync.worker.turns",
        "inosync.worker.warm_moves",
    }
)
"""Modules that decide without I/O, clock or randomness. They import pure modules only."""

IMPURE = {
    "asyncio",
    "ctypes",
    "fcntl",
    "io",
    "logging",
    "mmap",
    "multiprocessing",
    "pathlib",
    "random",
    "resource",
    "sched",
    "secrets",
    "select",
    "selectors",
    "shutil",
    "socket",
    "ssl",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "urllib",
}
"""Standard modules with I/O, a clock or randomness in them."""
PURE_OS = frozenset({"fsdecode", "fsencode", "fspath", "path", "PathLike", "sep"})
"""What a pure module may use of ``os``."""
PURE_PATH = frozenset({"basename", "commonpath", "dirname", "isabs", "join", "normpath", "relpath", "split"})
"""What a pure module may use of ``os.path``."""
IMPURE_CALLS = frozenset({"open", "print", "input", "exec", "eval"})

ONLY_IN = {
    "pyinotify": "inosync.watch.inotify",
    "setproctitle": "inosync.system.process",
    "psutil": "inosync.system.process",
    "prometheus_client": "inosync.console.metrics",
    "redis": "inosync.fleet.instance",
    "jinja2": "inosync.console.page",
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


def room(module: str) -> str:
    """``inosync.journal.debounce`` -> ``journal``; the package itself is ``inosync``."""
    return module.split(".")[1] if "." in module else module


def imports(module: str, tree: ast.AST, packages: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield line and full name of each import, wherever it stands; ``from a import b`` yields a.b as well.

    Imports below ``if TYPE_CHECKING`` count: a reader has to know them.
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
    """The module that an imported name is in: ``inosync.config.load.Config`` -> ``inosync.config.load``."""
    while "." in name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def violations(texts: Sources, pure: Iterable[str] = ()) -> list[str]:
    """Everything in these sources that the rules forbid."""
    found: list[str] = []
    edges: dict[str, set[str]] = {module: set() for module in texts}
    packages = {module for module in texts if any(other.startswith(f"{module}.") for other in texts)}
    packages.add("inosync")
    for module, text in sorted(texts.items()):
        tree = ast.parse(text, module)
        own = room(module)
        if own not in ROOMS:
            found.append(f"{module}: its place is not known; add it to ROOMS")
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
            if room(target) not in ROOMS[ROOMS.index(own) :]:
                found.append(f"{where}: {own} must not import {target}")
            if module in pure and target not in pure:
                found.append(f"{where}: a pure module must not import {target}")
        found += [f"{module}:{line}: {what}" for line, what in habits(module, tree)]
        if module in pure:
            found += [f"{module}:{line}: {what}" for line, what in impurities(tree)]
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


def impurities(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """What a pure module must not use."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            base = getattr(node, "module", None)
            names = [base] if base else [alias.name for alias in node.names]
            for name in names:
                if name.split(".")[0] in IMPURE:
                    yield node.lineno, f"a pure module must not import {name}"
            if base == "os":
                yield node.lineno, "a pure module must not import from os"
        name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        first, _, rest = name.partition(".")
        if first == "os" and rest and "." not in rest and rest not in PURE_OS:
            yield getattr(node, "lineno", 0), f"a pure module must not use {name}"
        if name.startswith("os.path.") and rest.split(".")[1] not in PURE_PATH:
            yield getattr(node, "lineno", 0), f"a pure module must not use {name}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            yield node.lineno, f"a pure module must not call {node.func.id}"


def cycles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Every cycle that a walk along the imports meets, each once, as the modules on its way."""
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


def test_imports_go_down_only() -> None:
    texts = sources()
    assert "inosync.changes" in texts
    assert violations(texts, PURE) == []


def test_pure_modules_exist() -> None:
    assert sources().keys() >= PURE


def test_package_top_level_holds_at_most_six_modules() -> None:
    modules = sorted(path.name for path in (CHECKOUT / "inosync").glob("*.py"))
    assert len(modules) <= 6, modules


CLEAN = {
    "inosync": "__version__ = '1'",
    "inosync.cli": "import sys\nfrom inosync import __version__\nfrom .master import master\nprint(sys.argv)",
    "inosync.master": "",
    "inosync.master.master": "from inosync.nodes.node import Node\nfrom inosync.watch import watcher",
    "inosync.worker": "",
    "inosync.worker.worker": "from inosync.changes import Part\nsubprocess.run([], shell=False)",
    "inosync.nodes": "",
    "inosync.nodes.node": "from inosync.config.load import Config\nfrom inosync.system import process",
    "inosync.nodes.backoff": "from inosync.journal import journal",
    "inosync.config": "",
    "inosync.config.load": "from inosync.filters import rules\nimport os\nos.stat('/')",
    "inosync.watch": "",
    "inosync.watch.watcher": "from inosync.watch.inotify import Inotify\nfrom . import walker",
    "inosync.watch.walker": "from .tree import Root",
    "inosync.watch.tree": "import os",
    "inosync.watch.inotify": "import pyinotify",
    "inosync.journal": "",
    "inosync.journal.journal": "from inosync.changes import Change\nimport os\nos.path.join('', os.sep)",
    "inosync.filters": "",
    "inosync.filters.rules": "import re",
    "inosync.changes": "import enum",
    "inosync.system": "",
    "inosync.system.process": "import psutil, setproctitle",
    "inosync.console": "",
    "inosync.console.page": "from inosync.changes import Kind",
}
CLEAN_PURE = frozenset({"inosync.journal.journal", "inosync.filters.rules", "inosync.changes"})


def test_clean_sources_pass() -> None:
    assert violations(CLEAN, CLEAN_PURE) == []


@pytest.mark.parametrize(
    ("module", "text", "expected"),
    [
        ("watch.watcher", "from inosync import worker", "watch must not import inosync.worker"),
        ("watch.watcher", "import inosync.worker.worker", "watch must not import inosync.worker.worker"),
        (
            "watch.watcher",
            "from inosync.config.load import Config",
            "must not import inosync.config.load",
        ),
        ("watch.watcher", "from ..nodes import node", "watch must not import inosync.nodes.node"),
        ("nodes.node", "from inosync import master", "nodes must not import inosync.master"),
        ("nodes.node", "def f():\n    from ..worker.worker import W", "nodes.node:2: nodes must not import"),
        ("system.process", "from inosync.changes import Part", "must not import inosync.changes"),
        (
            "system.process",
            "from inosync.watch import inotify",
            "must not import inosync.watch.inotify",
        ),
        ("changes", "import inosync.filters.rules", "changes must not import inosync.filters.rules"),
        (
            "console.page",
            "from inosync.master.master import M",
            "console must not import inosync.master",
        ),
        ("watch.watcher", "import pyinotify", "pyinotify is for inosync.watch.inotify only"),
        (
            "worker.worker",
            "from setproctitle import setproctitle",
            "setproctitle is for inosync.system",
        ),
        ("worker.worker", "import psutil._common", "psutil is for inosync.system.process only"),
        (
            "watch.walker",
            "from .watcher import W",
            "cycle: inosync.watch.wa",
        ),
        ("worker.worker", "import subprocess\nsubprocess.run('x', shell=True)", "no shell=True"),
        ("worker.worker", "import subprocess\nsubprocess.run('x', shell=yes)", "no shell=True"),
        ("worker.worker", "import os\nos.system('x')", "no os.system"),
        ("worker.worker", "from os import popen", "no os.popen"),
        ("master.master", "import sys\nprint(sys.argv)", "sys.argv is for inosync.cli only"),
        ("master.master", "from sys import argv", "sys.argv is for inosync.cli only"),
        ("helpers", "", "inosync.helpers: its place is not known"),
        ("filters.rules", "import time", "a pure module must not import time"),
        ("filters.rules", "from random import random", "a pure module must not import random"),
        ("filters.rules", "from os import stat", "a pure module must not import from os"),
        ("filters.rules", "import os\nos.stat('/')", "a pure module must not use os.stat"),
        ("filters.rules", "import os\nos.path.exists('/')", "a pure module must not use os.path.exists"),
        ("filters.rules", "open('/')", "a pure module must not call open"),
        (
            "journal.journal",
            "from inosync.system import process",
            "a pure module must not import",
        ),
    ],
)
def test_violation_is_found(module: str, text: str, expected: str) -> None:
    found = violations(CLEAN | {f"inosync.{module}": text}, CLEAN_PURE)
    assert any(expected in line for line in found), found
