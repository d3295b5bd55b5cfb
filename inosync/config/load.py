"""A configuration file -> Config, or ConfigError with all its mistakes at once.

``file`` runs the file, ``settings`` checks each value, ``legacy`` understands files for inosync 0.2.3, and
``assemble`` makes trees and nodes of the values.
"""

from __future__ import annotations
import __future__

import os
import time
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from inosync.config import file, legacy
from inosync.config.assemble import Assembly
from inosync.config.checks import Share
from inosync.config.errors import NO_VALUE, Findings, Invalid, ValueProblem
from inosync.config.events import BY_READING
from inosync.config.fleet import Fleet, as_seen_by
from inosync.config.hook import Hook, OnStage
from inosync.config.listen import Address
from inosync.config.nodes import NodeSpec, Tree
from inosync.config.paths import absolute
from inosync.config.settings import REQUIRED, SETTINGS, unknown
from inosync.rsync.argv import TransferSettings
from inosync.system import descriptors, mounts
from inosync.system.fingerprint import Fingerprint
from inosync.text import format_value

SLOW_SECONDS = 3.0
"""A file that runs for longer is warned of."""


@dataclass(frozen=True, slots=True)
class Config:
    """A file without mistakes. Most fields are settings (settings.py); times are in seconds."""

    path: str
    trees: tuple[Tree, ...]
    nodes: tuple[NodeSpec, ...]
    emask: frozenset[str]
    edelay: float
    equiet: float
    rsync: str
    rslots: int
    rretry: tuple[float, float]
    rdelete: bool | str
    rguard: bool
    rmaxdelete: int | Share | None
    rwait: bool
    ruser: str | None
    rlisten: Address | None
    on_sync: Hook | None
    on_state: Hook | None
    rstages: tuple[tuple[str, ...], ...]
    """The names of the nodes of each stage; none: all nodes are sent everything at once."""
    on_stage: OnStage | None
    logfile: str | None
    logformat: str
    rundir: str
    statedir: str
    """Empty: nothing is kept over a restart."""
    pattern_files: Mapping[str, Fingerprint]
    """The files of patterns, and what each of them was when it was read."""
    warnings: tuple[str, ...]
    """One line each for what looks unintended, or is not taken as it is written."""
    fleet: Fleet | None = None
    """None: this machine sends everything itself. A sender has its copies as ``trees``, and no ``nodes``."""

    @property
    def sender(self) -> str:
        """The name of the sender that this machine is; empty if it is none."""
        return "" if self.fleet is None else self.fleet.me

    @property
    def is_origin(self) -> bool:
        """Whether this machine is the origin of a fleet."""
        return self.fleet is not None and not self.fleet.me

    @property
    def watched_for(self) -> tuple[NodeSpec, ...]:
        """The nodes, and the senders that see the same storage: what none of them gets is not watched."""
        return self.nodes if self.fleet is None or self.fleet.me else (*self.nodes, *self.fleet.shared)

    @property
    def guards(self) -> bool:
        """Whether the loss of a whole tree is not mirrored. Where nothing is deleted, nothing is lost."""
        return self.rguard and self.rdelete is not False

    @property
    def max_removals(self) -> int | Share | None:
        """How much may be removed from a tree within ``edelay``; None: any number."""
        return None if self.rdelete is False else self.rmaxdelete

    def rsync_settings(self, node: NodeSpec, tree: Tree) -> TransferSettings:
        """Return what all rsyncs that mirror a tree to a node have in common."""
        fleet = self.fleet
        return TransferSettings(
            rsync=self.rsync,
            source=tree.wpath,
            target=node.target(tree),
            rules=node.rules(tree),
            extra=node.extra if fleet is None else (*node.extra, *fleet.extra(node, tree)),
            rdelete=self.rdelete,
            says_end=fleet is not None and fleet.is_copy(node, tree),
        )

    def waits_for(self, tree: Tree) -> bool:
        """Whether a wpath that does not exist is no mistake."""
        return self.rwait or mounts.expected(tree.wpath)


_SETTINGS_IN_CONFIG = tuple(
    field.name for field in fields(Config) if field.name in SETTINGS and field.name != "fleet"
)


def load(path: str, sender: str = "") -> Config:
    """Return the configuration in a file; ConfigError with every mistake in it.

    ``sender``: the name of the sender that this machine is; empty: it is the origin, or there is no fleet.
    """
    begun = time.monotonic()
    lines, namespace = file.run(path)
    took = time.monotonic() - begun
    given = {name: value for name, value in namespace.items() if _is_meant_for_us(name, value)}
    older_form = legacy.is_older_form(given)
    renamed = {setting.name: setting.formerly for setting in SETTINGS.values() if setting.formerly}
    findings = Findings(path, lines, renamed if older_form else {})
    if older_form:
        given = legacy.modernised(given, findings)
    values = _checked(given, findings)
    if not sender:
        _check_absent(values, findings)
    _check_delays(given, values, findings)
    _check_lengths(given, findings)
    assembly = Assembly(values, findings)
    trees = assembly.trees(older_form)
    nodes = assembly.nodes(trees)
    trees = _without_unused(trees, nodes, findings)
    senders = assembly.senders(trees)
    fleet = assembly.fleet(sender, senders, nodes, trees)
    if fleet is None or findings.are_problems:
        assembly.check(nodes, trees)
    elif sender:
        fleet, trees = as_seen_by(fleet, next(one for one in senders if one.name == sender), trees)
        assembly.check(fleet.nodes, trees)
        nodes, values["statedir"] = (), ""
    else:
        own = tuple(node for node in nodes if node.senders == ())
        fed = tuple(one.node for one in senders if not one.shared)
        assembly.check([*fed, *nodes], trees)
        nodes = (*fed, *own)
    values["rstages"] = assembly.stages(nodes)
    findings.raise_problems()
    hooks = {name: values[name] for name in ("on_sync", "on_state")}
    hooks["on_stage"] = values["on_stage"] and values["on_stage"].hook
    functions = [name for name, hook in hooks.items() if callable(hook and hook.call)]
    if took > SLOW_SECONDS and functions:
        why = f"at each reload, because {functions[0]} is a function"
        findings.warn_of_file(f"took {took:.1f} s to run: nothing is mirrored meanwhile, {why}")
    _warn_of_loops(values, trees, findings)
    _warn_of_listening(values["rlisten"], findings)
    if shortage := descriptors.shortage(len(nodes), descriptors.hard_limit()):
        findings.warn_of_file(shortage)
    values["emask"] -= BY_READING
    return Config(
        path=path,
        trees=trees,
        nodes=nodes,
        pattern_files=assembly.files.read,
        warnings=tuple(findings.warnings),
        fleet=fleet,
        **{name: values[name] for name in _SETTINGS_IN_CONFIG},
    )


def _is_meant_for_us(name: object, value: object) -> bool:
    """Whether a name is a setting, well spelt or not, and no helper of the file's own."""
    if not isinstance(name, str) or name.startswith("_"):
        return False
    helper = callable(value) or isinstance(value, types.ModuleType | __future__._Feature)
    return name in SETTINGS or not helper


def _checked(given: Mapping[str, Any], findings: Findings) -> dict[str, Any]:
    """Return the values to use, by setting, of those that are right."""
    for name in (name for name in given if name not in SETTINGS):
        findings.add(name, ValueProblem(NO_VALUE, *unknown(name, SETTINGS)))
    values: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        value = given.get(name, setting.default)
        if value is REQUIRED:
            findings.add(name, ValueProblem(NO_VALUE, "is missing", f"write {setting.example}"))
            continue
        try:
            values[name] = setting.check(value)
        except Invalid as error:
            findings.add(name, *error.problems)
            if setting.default is REQUIRED and error.usable is not None:
                values[name] = error.usable
    return values


def _check_absent(values: Mapping[str, Any], findings: Findings) -> None:
    """Report a wpath that does not exist, and is not waited for."""
    for wpath in () if values.get("rwait") else values.get("wpaths", ()):
        if wpath is not None and not os.path.exists(absolute(wpath)) and not mounts.expected(absolute(wpath)):
            hint = "make it, correct the path, or set rwait = True to wait for it"
            findings.add("wpaths", ValueProblem(wpath, "does not exist", hint))


def _check_delays(given: Mapping[str, Any], values: dict[str, Any], findings: Findings) -> None:
    """Have ``equiet`` be no more than ``edelay``."""
    equiet, edelay = values.get("equiet"), values.get("edelay")
    if equiet is None or edelay is None or equiet <= edelay:
        return
    if "equiet" in given:
        hint = "edelay is the longest that a change waits, equiet the shortest"
        findings.add("equiet", ValueProblem(equiet, f"is more than edelay, {edelay}", hint))
    values["equiet"] = edelay


def _check_lengths(given: Mapping[str, Any], findings: Findings) -> None:
    """Report a number of rpaths that is not that of wpaths, counting wrong paths as well."""
    lists = [given.get(name) for name in ("wpaths", "rpaths")]
    wpaths, rpaths = (len(paths) if isinstance(paths, list | tuple) else 0 for paths in lists)
    if wpaths and rpaths and wpaths != rpaths:
        problem = f"{wpaths} wpaths but {rpaths} rpaths"
        findings.add("rpaths", ValueProblem(given["rpaths"], problem, "write one for each wpath"))


def _without_unused(trees: Sequence[Tree], nodes: Sequence[NodeSpec], findings: Findings) -> tuple[Tree, ...]:
    """Return the trees that a node gets. The others need not be watched."""
    used = tuple(tree for tree in trees if not nodes or any(node.gets(tree) for node in nodes))
    for tree in trees:
        if tree not in used:
            findings.warn(
                "wpaths", tree.wpath, "is mirrored to no node: all of them have wpaths of their own"
            )
    return used


def _warn_of_loops(values: Mapping[str, Any], trees: Sequence[Tree], findings: Findings) -> None:
    """Warn of what would make each transfer cause the next."""
    for event in sorted(values["emask"] & BY_READING):
        findings.warn("emask", event, "left out, rsync's own reading of the files causes it")
    for name in ("rundir", "statedir", "logfile"):
        path = values[name]
        for tree in trees if path else ():
            if os.path.realpath(path).startswith(os.path.realpath(tree.wpath).rstrip("/") + "/"):
                where = f"lies inside the wpath {format_value(tree.wpath)}, where every transfer"
                findings.warn(name, path, f"{where} would cause the next; exclude it, or move it")


def _warn_of_listening(address: Address | None, findings: Findings) -> None:
    if address is not None and not address.is_loopback:
        text = "everyone who can connect to it sees names and states of the nodes; there is no password"
        findings.warn("rlisten", str(address), text)
