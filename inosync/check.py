"""``inosync -t``: what a configuration comes to, and whether its nodes can be mirrored to."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from inosync.config.hook import Hook
from inosync.config.listen import Address
from inosync.config.load import Config
from inosync.config.nodes import NodeSpec, Tree
from inosync.config.settings import SETTINGS
from inosync.config.timetable import Timetable
from inosync.rsync import probe, ssh
from inosync.rsync.argv import TransferSettings, names_input
from inosync.rsync.probe import ProbeResult
from inosync.rsync.target import Transport, transport
from inosync.text import format_value, one_line, plural, without_password

ANSWER_SECONDS = 60.0
"""Time that a node has to answer."""
_PARALLEL_TRIES = 32


def show_config(config: Config) -> None:
    """Print what it comes to: each tree, and the resulting value of each setting."""
    _print(f"{config.path}: no mistakes")
    for warning in config.warnings:
        _print(f"warning: {warning}")
    for tree in config.trees:
        _print(f"tree {tree.wpath} -> {tree.rpath or '(the node itself)'}")
        for rule in tree.rules:
            _print(f"  {rule.word}")
    for name, value in resulting_settings(config):
        _print(f"{name} = {value}")


def resulting_settings(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the settings that are not shown as trees, in the order of their table, with their values."""
    for name, setting in SETTINGS.items():
        if setting.per_node:
            yield name, _of_nodes([(node.name, _shown(getattr(node, name))) for node in config.nodes])
        elif name == "rsync":
            yield name, f"{format_value(config.rsync)} ({_own_version(config.rsync)})"
        elif name == "logfile" and not config.logfile:
            yield name, "None: syslog (-d), or stderr"
        elif hasattr(config, name):
            yield name, _shown(getattr(config, name))
    for node in config.nodes:
        if node.own_rules:
            yield f"rexcludes of {node.name}", " ".join(rule.word for rule in node.own_rules)
        if node.wpaths is not None:
            yield f"wpaths of {node.name}", " ".join(node.wpaths)


def _of_nodes(values: Sequence[tuple[str, str]]) -> str:
    """Return the value that most nodes have, and the nodes with others."""
    (usual, _), *_ = Counter(value for _, value in values).most_common(1)
    others = [f"{value} for {name}" for name, value in values if value != usual]
    return "; ".join([usual, *others])


def _shown(value: object) -> str:
    match value:
        case frozenset():
            return " ".join(sorted(value))
        case Hook():
            return _hook(value)
        case Address() | Timetable():
            return str(value)
        case tuple() if all(isinstance(word, str) for word in value):
            return format_value(shlex.join(value))
    return format_value(value)


def _hook(hook: Hook) -> str:
    function = f"function {getattr(hook.call, '__name__', '?')}"
    what = format_value(list(hook.command)) if hook.command else function
    states = f", of {', '.join(sorted(hook.states))}" if hook.states else ""
    after = f", after {hook.after:g} s" if hook.after else ""
    return f"{what}, at most {hook.timeout:g} s{states}{after}"


def _own_version(rsync: str) -> str:
    try:
        argv, no_input = [rsync, "--version"], subprocess.DEVNULL
        done = subprocess.run(argv, stdin=no_input, capture_output=True, timeout=ANSWER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return f"its version is not known: {problem}"
    first = done.stdout.decode(errors="replace").partition("\n")[0]
    return " ".join(first.split()[1:3]) or "its version is not known"


def try_nodes(config: Config) -> bool:
    """Try each tree on each node that gets it with a dry run; print and return the outcome."""
    pairs = [(node, tree) for node in config.nodes for tree in filter(node.gets, config.trees)]
    all_good = True
    with ThreadPoolExecutor(_PARALLEL_TRIES) as pool:
        tries = [pool.submit(_try, config, node, tree) for node, tree in pairs]
        for (node, tree), attempt in zip(pairs, tries, strict=True):
            found = attempt.result()
            all_good = all_good and not found.reason
            _print(f"node {node.name}: {tree.wpath}: {'; '.join(_described(found))}")
    counts = plural(len(config.nodes), "node")
    _print(f"{counts}: {'all can be mirrored to' if all_good else 'NOT all can be mirrored to'}")
    return all_good


def _described(found: ProbeResult) -> Iterator[str]:
    if found.reason:
        yield f"FAILED: {found.reason}"
    else:
        yield "reachable"
        unsure = found.unsure_if_writable
        yield f"whether it can be written is not known: {unsure}" if unsure else "writable"
        if found.is_new:
            yield "the first mirror makes the directory"
    if found.version:
        yield f"rsync {found.version}"


def _try(config: Config, node: NodeSpec, tree: Tree) -> ProbeResult:
    settings = replace(config.rsync_settings(node, tree), rsh=_shell(node))
    ask_shell = probe.may_have_shell(settings)
    found, has_answered = _run(settings, ask_shell)
    if ask_shell and found.reason and not has_answered:  # there may be a forced command
        found, _ = _run(settings, False)
    if transport(settings.target) is Transport.LOCAL and not found.reason:
        return _local_finding(settings, found)
    return found


def _shell(node: NodeSpec) -> str:
    if transport(node.node) is not Transport.SSH or ssh.chosen(node.extra, os.environ):
        return ""
    return ssh.rsh(ssh.options({}))


def _run(settings: TransferSettings, ask_shell: bool) -> tuple[ProbeResult, bool]:
    try:
        done = subprocess.run(
            probe.probe_argv(settings, ask_shell),
            input=names_input(probe.NAMES),
            capture_output=True,
            timeout=ANSWER_SECONDS,
            check=False,
            cwd="/",
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return ProbeResult(f"no answer within {ANSWER_SECONDS:g} s"), False
    except OSError as problem:
        return ProbeResult(f"{problem.filename or settings.rsync}: {problem.strerror}"), False
    stderr = done.stderr.splitlines()
    found = probe.finding(settings, done.returncode, done.stdout.splitlines(), stderr)
    return found, probe.shell_answered(stderr)


def _local_finding(settings: TransferSettings, found: ProbeResult) -> ProbeResult:
    place = settings.target.rstrip("/") or "/"
    is_new = not os.path.lexists(place)
    if is_new:
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        return ProbeResult(f"{place}: is no directory", found.version)
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
        return ProbeResult(f"{place}: cannot be written", found.version)
    return ProbeResult("", found.version, "", is_new)


def _print(text: str) -> None:
    line = one_line(without_password(text))
    encoding = sys.stdout.encoding or "ascii"
    print(line.encode(encoding, "replace").decode(encoding), flush=True)
