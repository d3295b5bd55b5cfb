"""What a configuration comes to: its settings, its nodes (``inosync -t``), and its calls (``inosync -p``)."""

from __future__ import annotations

import math
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from inosync.config.checks import Share
from inosync.config.fleet import Fleet
from inosync.config.hook import Hook, OnStage
from inosync.config.listen import Address
from inosync.config.load import Config
from inosync.config.nodes import WARM_BY_DEFAULT, NodeSpec, Tree
from inosync.config.settings import SETTINGS
from inosync.config.timetable import Timetable
from inosync.rsync import argv, ssh
from inosync.rsync.advice import advice
from inosync.rsync.argv import TransferSettings
from inosync.rsync.dry_run import DryRun, full_mirrors
from inosync.rsync.probe import ProbeResult
from inosync.rsync.target import Transport, transport
from inosync.rsync.trial import ANSWER_SECONDS, try_target
from inosync.text import format_value, one_line, plural, without_password
from inosync.worker.bwlimit import Throttle

MAX_SHOWN_PATHS = 1_000
"""Of each tree and node."""
_PARALLEL_TRIES = 32
_CLOSED_BY_UNIT = ("/usr/", "/boot/", "/efi/", "/etc/", "/home/", "/root/", "/run/user/")
"""ProtectSystem=full and ProtectHome=read-only, systemd.exec(5), in conf/inosync.service."""


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
            show = _warm if name == "rwarm" else _shown
            yield name, _of_nodes([(node.name, show(getattr(node, name))) for node in config.nodes])
        elif name == "rsync":
            yield name, f"{format_value(config.rsync)} ({_own_version(config.rsync)})"
        elif name == "rsenders":
            yield name, ", ".join(_senders(config.fleet)) if config.fleet is not None else "[]"
        elif name == "logfile" and not config.logfile:
            yield name, "None: syslog (-d), or stderr"
        elif name == "rstages":
            yield name, format_value([list(stage) for stage in config.rstages] or None)
        elif hasattr(config, name):
            yield name, _shown(getattr(config, name))
    for node in config.nodes:
        if node.own_rules:
            yield f"rexcludes of {node.name}", " ".join(rule.word for rule in node.own_rules)
        if node.wpaths is not None:
            yield f"wpaths of {node.name}", " ".join(node.wpaths)


def _senders(fleet: Fleet) -> Iterator[str]:
    sharing = {node.name for node in fleet.shared}
    for name in fleet.senders:
        yield f"{name} (shared storage: nothing is sent to it)" if name in sharing else name


def _of_nodes(values: Sequence[tuple[str, str]]) -> str:
    """Return the value that most nodes have, and the nodes with others."""
    if not values:  # an origin that sends nothing itself
        return "of no node"
    (usual, _), *_ = Counter(value for _, value in values).most_common(1)
    others = [f"{value} for {name}" for name, value in values if value != usual]
    return "; ".join([usual, *others])


def _shown(value: object) -> str:
    match value:
        case frozenset():
            return " ".join(sorted(value))
        case Hook():
            return _hook(value)
        case OnStage():
            return _on_stage(value)
        case Address() | Timetable() | Share():
            return str(value)
        case tuple() if all(isinstance(word, str) for word in value):
            return format_value(shlex.join(value))
    return format_value(value)


def _warm(value: int) -> str:
    return {WARM_BY_DEFAULT: "True", 0: "False"}.get(value, str(value))


def _hook(hook: Hook) -> str:
    function = f"function {getattr(hook.call, '__name__', '?')}"
    what = format_value(list(hook.command)) if hook.command else function
    states = f", of {', '.join(sorted(hook.states))}" if hook.states else ""
    after = f", after {hook.after:g} s" if hook.after else ""
    return f"{what}, at most {hook.timeout:g} s{states}{after}"


def _on_stage(found: OnStage) -> str:
    what = _hook(found.hook) if found.hook is not None else "no check"
    patience = f", patience {found.patience:g} s" if found.patience < math.inf else ""
    patterns = [("+ " if rule.include else "") + os.fsdecode(rule.pattern) for rule in found.only]
    only = f", only {format_value(patterns)}" if patterns else ""
    return f"{what}, settle {found.settle:g} s{patience}{only}"


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
    all_good = True
    for node, tree, found in _tried(config):
        all_good = all_good and not found.reason
        _print(f"node {node.name}: {tree.wpath}: {'; '.join(_described(found, node, tree))}")
    if config.fleet is not None and config.fleet.shares_storage:
        all_good = _try_storage(config) and all_good
    counts = plural(len(config.nodes), "node")
    _print(f"{counts}: {'all can be mirrored to' if all_good else 'NOT all can be mirrored to'}")
    return all_good if config.fleet is None else _try_redis(config.fleet) and all_good


def _try_storage(config: Config) -> bool:
    """Look whether the storage that this sender shares is any good; print what is wrong with it."""
    from inosync.fleet import copies  # here, as below: without a fleet nothing of it is loaded

    try:
        copies.storage(tree.wpath for tree in config.trees)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _print(f"shared storage: FAILED: {where}{error.strerror or error}")
        return False
    return True


def _try_redis(fleet: Fleet) -> bool:
    """Try the Redis of a fleet; print the outcome, and return whether this machine can work with it."""
    from inosync.fleet import trial

    found = trial.try_redis(fleet)
    outcome = f"FAILED: {found.reason}" if found.reason else "reachable"
    _print(f"{fleet}: {'; '.join([outcome, *found.facts])}")
    return not found.reason


def show_calls(config: Config) -> bool:
    """Print the call of each full mirror, and what it would do now; return whether all could be tried.

    All but the calls are comments, so a shell that reads it makes the calls.
    """
    all_good, tried = True, list(_tried(config))
    possible = [(node, tree) for node, tree, found in tried if not found.reason]
    wanted = [(_settings(config, node, tree), node.rtimeout) for node, tree in possible]
    runs = full_mirrors(wanted, config.rslots)
    for node, tree, found in tried:
        limit = Throttle(node.rspeed, time.monotonic).limit
        call = argv.full_argv(replace(_settings(config, node, tree), rspeed=limit))
        _print(f"# node {node.name}: {tree.wpath}")
        _print(argv.shell_line(call, argv.EVERYTHING))
        lines, reason = list[str](), next(_described(found, node, tree))
        if not found.reason:
            lines, reason = _outcome(next(runs), tree, config.guards)
        for line in (*lines, *filter(None, [reason])):
            _print(f"#   {line}")
        all_good = all_good and not reason
    return all_good


def _outcome(run: DryRun | OSError, tree: Tree, guards: bool) -> tuple[list[str], str]:
    """Return what a full mirror would do, and why not all of that is known ("" if it is)."""
    if isinstance(run, OSError):
        return [], f"FAILED: {run.filename}: {run.strerror}"
    found, unread = list(run.differences), run.count - len(run.lines)
    lines = [f"{one.word:<10}  {os.path.join(tree.wpath, os.fsdecode(one.path))}" for one in found]
    more = len(lines) + unread - MAX_SHOWN_PATHS
    lines[MAX_SHOWN_PATHS:] = [f"and {more} more"] if more > 0 else []
    extra = sum(one.extra for one in found)
    kinds = f": {len(found) - extra} to send, {extra} to delete" if found and not unread else ""
    lines.append(f"{plural(len(found) + unread, 'difference')}{kinds}")
    if guards and extra and not os.listdir(tree.wpath):
        lines.append("the wpath is empty: with rguard nothing of it is mirrored until -s accept")
    return lines, f"FAILED: {run.reason}" if run.reason else ""


def _tried(config: Config) -> Iterator[tuple[NodeSpec, Tree, ProbeResult]]:
    """Yield each tree of each node, and what came of trying it."""
    pairs = [(node, tree) for node in config.nodes for tree in filter(node.gets, config.trees)]
    with ThreadPoolExecutor(_PARALLEL_TRIES) as pool:
        tries = [pool.submit(try_target, _settings(config, node, tree)) for node, tree in pairs]
        for (node, tree), attempt in zip(pairs, tries, strict=True):
            yield node, tree, attempt.result()


def _settings(config: Config, node: NodeSpec, tree: Tree) -> TransferSettings:
    is_ours = transport(node.node) is Transport.SSH and ssh.chosen(node.extra, os.environ) is None
    return replace(config.rsync_settings(node, tree), rsh=ssh.rsh(ssh.options({})) if is_ours else "")


def _described(found: ProbeResult, node: NodeSpec, tree: Tree) -> Iterator[str]:
    if found.reason:
        mend = advice(found.reason, _login(node))
        yield f"FAILED: {found.reason}{f' ({mend})' if mend else ''}"
    elif found.unsure_if_writable:
        yield f"reachable; writing not tested ({found.unsure_if_writable})"
    else:
        yield "reachable; writable"
    if found.is_new and not found.reason:
        yield "the first mirror makes the directory"
    if found.version:
        yield f"rsync {found.version}"
    place = node.target(tree)
    if transport(place) is Transport.LOCAL and place.startswith(_CLOSED_BY_UNIT):
        yield f"the systemd unit needs ReadWritePaths={place.rstrip('/')}"


def _login(node: NodeSpec) -> tuple[str, ...]:
    """Return the call of ssh by which an operator sees what is wrong."""
    # What rsync calls, because its options (-p, -i, -F) are often what matters.
    shell = ssh.split(ssh.chosen(node.extra, os.environ) or "") or ("ssh",)
    words = (*shell, *ssh.destination(node.node, node.extra))
    return tuple(shlex.quote(word) for word in words if word != "--")


def _print(text: str) -> None:
    line = one_line(without_password(text))
    encoding = sys.stdout.encoding or "ascii"
    print(line.encode(encoding, "replace").decode(encoding), flush=True)
