"""``inosync -t``: what a configuration comes to, and whether its nodes can be mirrored to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from inosync.config.hook import Hook
from inosync.config.load import Config
from inosync.config.nodes import NodeSpec, Tree
from inosync.rsync import probe, ssh
from inosync.rsync.argv import TransferSettings, names_input
from inosync.rsync.probe import Finding
from inosync.rsync.target import Transport, transport
from inosync.text import format_value, one_line, plural, without_password

PATIENCE = 60.0
"""Seconds that a node has to answer."""
_AT_ONCE = 32
"""Nodes that are asked at the same time."""


def show_config(config: Config) -> None:
    """Print what it comes to: each tree, and each setting that is in force."""
    _print(f"{config.path}: no mistakes")
    for warning in config.warnings:
        _print(f"warning: {warning}")
    for tree in config.trees:
        _print(f"tree {tree.wpath} -> {tree.rpath or '(the node itself)'}")
        for rule in tree.rules:
            _print(f"  {rule.word}")
    for name, value in _in_force(config).items():
        _print(f"{name} = {value}")


def _in_force(config: Config) -> Mapping[str, str]:
    names = (
        "edelay",
        "equiet",
        "rslots",
        "rretry",
        "rdelete",
        "rguard",
        "rwait",
        "ruser",
        "logformat",
        "rundir",
    )
    found = {name: format_value(getattr(config, name)) for name in names}
    found["rsync"] = f"{format_value(config.rsync)} ({_own_version(config.rsync)})"
    found["emask"] = " ".join(sorted(config.emask))
    found["logfile"] = format_value(config.logfile) if config.logfile else "None: syslog (-d), or stderr"
    found["rlisten"] = str(config.rlisten)
    found["on_sync"], found["on_state"] = _hook(config.on_sync), _hook(config.on_state)
    return found


def _hook(hook: Hook | None) -> str:
    if hook is None:
        return "None"
    what = (
        format_value(list(hook.command))
        if hook.command
        else f"function {getattr(hook.call, '__name__', '?')}"
    )
    states = f", of {', '.join(sorted(hook.states))}" if hook.states else ""
    after = f", after {hook.after:g} s" if hook.after else ""
    return f"{what}, at most {hook.timeout:g} s{states}{after}"


def _own_version(rsync: str) -> str:
    try:
        done = subprocess.run(
            [rsync, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        return f"does not tell its version: {problem}"
    first = done.stdout.decode(errors="replace").partition("\n")[0]
    return " ".join(first.split()[1:3]) or "does not tell its version"


def try_nodes(config: Config) -> bool:
    """Try each tree on each node that gets it, with a dry run; print the outcome; whether all is well."""
    pairs = [(node, tree) for node in config.nodes for tree in filter(node.gets, config.trees)]
    good = True
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        tries = [pool.submit(_try, config, node, tree) for node, tree in pairs]
        for (node, tree), attempt in zip(pairs, tries, strict=True):
            found = attempt.result()
            good = good and not found.reason
            _print(f"node {node.name}: {tree.wpath}: {'; '.join(_told(found))}")
    counts = plural(len(config.nodes), "node")
    _print(f"{counts}: {'all can be mirrored to' if good else 'NOT all can be mirrored to'}")
    return good


def _told(found: Finding) -> Iterator[str]:
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


def _try(config: Config, node: NodeSpec, tree: Tree) -> Finding:
    settings = replace(config.rsync_settings(node, tree), rsh=_shell(node))
    ask_shell = probe.may_have_shell(settings)
    found, has_answered = _run(settings, ask_shell)
    if ask_shell and found.reason and not has_answered:  # there may be a forced command
        found, _ = _run(settings, False)
    if transport(settings.target) is Transport.LOCAL and not found.reason:
        return _locally(settings, found)
    return found


def _shell(node: NodeSpec) -> str:
    if transport(node.node) is not Transport.SSH or ssh.chosen(node.extra, os.environ):
        return ""
    return ssh.rsh(ssh.options({}))


def _run(settings: TransferSettings, ask_shell: bool) -> tuple[Finding, bool]:
    try:
        done = subprocess.run(
            probe.probe_argv(settings, ask_shell),
            input=names_input(probe.NAMES),
            capture_output=True,
            timeout=PATIENCE,
            check=False,
            cwd="/",
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return Finding(f"no answer within {PATIENCE:g} s"), False
    except OSError as problem:
        return Finding(f"{problem.filename or settings.rsync}: {problem.strerror}"), False
    stderr = done.stderr.splitlines()
    found = probe.finding(settings, done.returncode, done.stdout.splitlines(), stderr)
    return found, probe.shell_answered(stderr)


def _locally(settings: TransferSettings, found: Finding) -> Finding:
    place = settings.target.rstrip("/") or "/"
    is_new = not os.path.lexists(place)
    if is_new:
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        return Finding(f"{place}: is no directory", found.version)
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
        return Finding(f"{place}: cannot be written", found.version)
    return Finding("", found.version, "", is_new)


def _print(text: str) -> None:
    line = one_line(without_password(text))
    encoding = sys.stdout.encoding or "ascii"
    print(line.encode(encoding, "replace").decode(encoding), flush=True)
