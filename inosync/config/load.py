"""A configuration file -> Config, with all its mistakes reported at once.

The file is Python, as in inosync 0.2.3. ``configfile`` runs it, ``settings`` checks each value; what depends
on several settings is checked here, once each of them is right.
"""

from __future__ import annotations
import __future__

import os
import posixpath
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from inosync.config import file, settings
from inosync.config.diff import Diff, Refilter, diff
from inosync.config.errors import ConfigError, ConfigProblem, Invalid, ValueProblem
from inosync.config.events import BY_READING, DEFAULT_EVENTS
from inosync.config.hook import Hook
from inosync.config.listen import Address
from inosync.config.nodes import NodeSpec, Tree
from inosync.config.pattern_files import PatternFiles
from inosync.config.settings import (
    ABSENT,
    EXAMPLES,
    REQUIRED,
    SETTINGS,
    Setting,
    absent,
    absolute,
    begun_by_root,
    relative_to,
    unknown,
)
from inosync.config.targets import check_targets
from inosync.config.timetable import constant
from inosync.filters.rules import File, Item, Rule
from inosync.rsync.argv import MAX_RULES, TransferSettings, size
from inosync.rsync.options import Parted, deletes, parted
from inosync.system import mounts
from inosync.system.fingerprint import Fingerprint
from inosync.text import format_value, one_line

__all__ = [
    "DEFAULT_EVENTS",
    "Config",
    "ConfigError",
    "ConfigProblem",
    "Diff",
    "NodeSpec",
    "Refilter",
    "Tree",
    "begun_by_root",
    "diff",
    "load",
    "relative_to",
]

_NO_VALUE = object()


@dataclass(frozen=True, slots=True)
class Config:
    """A file without mistakes. Times in seconds."""

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
    rwait: bool
    ruser: str | None
    """``user`` or ``user:group``; None: whoever has started us."""
    rlisten: Address | None
    """Where metrics and the page are served."""
    on_sync: Hook | None
    """What is run after a batch ..."""
    on_state: Hook | None
    """... and when the state of a node has changed."""
    logfile: str | None
    logformat: str
    """``text`` or ``json``."""
    rundir: str
    pattern_files: Mapping[str, Fingerprint]
    """The files that rules were read from, and what each of them was then."""
    warnings: tuple[str, ...]
    """What was taken otherwise than it is written, or looks unintended; one line each."""

    @property
    def guards(self) -> bool:
        """Whether the loss of a whole tree is not mirrored. Where nothing is deleted, nothing is lost."""
        return self.rguard and self.rdelete is not False

    def of_rsync(self, node: NodeSpec, tree: Tree) -> TransferSettings:
        """What the rsyncs that mirror a tree to a node have in common."""
        return TransferSettings(
            rsync=self.rsync,
            source=tree.wpath,
            target=node.target(tree),
            rules=node.rules(tree),
            extra=node.extra,
            rdelete=self.rdelete,
        )

    def waits_for(self, tree: Tree) -> bool:
        """Whether a wpath that does not exist is no mistake."""
        return self.rwait or mounts.expected(tree.wpath)


def load(path: str) -> Config:
    """The configuration in a file, or ConfigError with every mistake that it has."""
    return _Reading(path, *file.run(path)).config()


def rundirs(path: str) -> tuple[list[str], str]:
    """Where a daemon for this file may have its run directory, and why that is not sure; empty if it is.

    For this the file may be as wrong as it likes, as it may have become while the daemon runs.
    """
    doubt, given = "", None
    try:
        given = file.run(path)[1].get("rundir")
    except ConfigError as error:
        doubt, given = str(error), file.literal(path, "rundir")
    named = [settings.absolute(given)] if isinstance(given, str) and given else []
    return named if named and not doubt else [*named, *settings.default_rundirs()], doubt


class _Reading:
    """What a file has set, the values that are right so far, and the mistakes."""

    def __init__(self, path: str, lines: Mapping[str, int], namespace: Mapping[str, Any]) -> None:
        self.path = path
        self.lines = lines
        self.given = {name: value for name, value in namespace.items() if _is_meant_for_us(name, value)}
        self.old_form = "wpath" in self.given and "wpaths" not in self.given
        self.values: dict[str, Any] = {}
        self.mistakes: list[ConfigProblem] = []
        self.files = PatternFiles()
        self.warnings: list[str] = []

    def config(self) -> Config:
        if self.old_form:
            self._take_wpath()
        for name in self.given:
            if name not in SETTINGS:
                self._add(ValueProblem(_NO_VALUE, *unknown(name, SETTINGS)), name)
        for name, setting in SETTINGS.items():
            self._check(name, setting)
        self._check_delays()
        trees = self._trees()
        nodes = self._nodes(trees)
        trees = self._wanted(trees, nodes)
        for fault in check_targets(nodes, trees, os.path.realpath):
            self._add(fault, "rnodes")
        self._check_sizes(trees, nodes)
        if self.mistakes:
            raise ConfigError(*self.mistakes)
        self._warn_of_loops(trees)
        self._warn_of_listening()
        v = self.values
        return Config(
            path=self.path,
            trees=trees,
            nodes=nodes,
            emask=v["emask"] - BY_READING,
            edelay=v["edelay"],
            equiet=v["equiet"],
            rsync=v["rsync"],
            rslots=v["rslots"],
            rretry=v["rretry"],
            rdelete=v["rdelete"],
            rguard=v["rguard"],
            rwait=v["rwait"],
            ruser=v["ruser"],
            rlisten=v["rlisten"],
            on_sync=v["on_sync"],
            on_state=v["on_state"],
            logfile=v["logfile"],
            logformat=v["logformat"],
            rundir=v["rundir"],
            pattern_files=self.files.read,
            warnings=tuple(self.warnings),
        )

    def _add(self, fault: ValueProblem, setting: str) -> None:
        if fault.file:
            mistake = ConfigProblem(
                fault.file, fault.wrong, fault.right, fault.line, value=format_value(fault.value)
            )
            if mistake not in self.mistakes:  # the file may be named more than once
                self.mistakes.append(mistake)
            return
        label = self._label(setting)
        name = f"{label}: {fault.where}" if fault.where else label
        shown = "" if fault.value is _NO_VALUE else format_value(fault.value)
        line = self.lines.get(label)
        self.mistakes.append(ConfigProblem(self.path, fault.wrong, fault.right, line, name, shown))

    def _warn(self, setting: str, value: object, text: str) -> None:
        self.warnings.append(one_line(f"{self._label(setting)}: {format_value(value)}: {text}"))

    def _label(self, setting: str) -> str:
        return "wpath" if self.old_form and setting == "wpaths" else setting

    def _take_wpath(self) -> None:
        """The older form of 0.2.3: one ``wpath``, and nodes that are whole targets."""
        wpath = self.given.pop("wpath")
        self.given.pop("rpath", None)  # a variable of the file's own, as its sample file had it
        self.given.setdefault("rpaths", [self._old_rpath(wpath)])
        self.given["wpaths"] = [wpath]

    def _old_rpath(self, wpath: object) -> str:
        """rsync, given a directory without a trailing slash, puts the directory itself into the target."""
        name = posixpath.basename(wpath) if isinstance(wpath, str) else ""
        if name in ("", ".", ".."):
            return ""
        self._warn(
            "wpaths", wpath, f"without a trailing slash it becomes {format_value(name)} inside each target"
        )
        rnodes = self.given.get("rnodes")
        nodes = rnodes if isinstance(rnodes, list | tuple) else ()
        # There a slash would lead from the home, or from no module, to somewhere else.
        ended = any(isinstance(node, str) and node.endswith(("/", ":")) for node in nodes)
        return name if ended else "/" + name

    def _check(self, name: str, setting: Setting) -> None:
        value = self.given.get(name, setting.default)
        if value is REQUIRED:
            self._add(ValueProblem(_NO_VALUE, "is missing", f"write {EXAMPLES[name]}"), name)
        else:
            try:
                self.values[name] = setting.check(value)
            except Invalid as invalid:
                if name in EXAMPLES and invalid.rest is not None:
                    self.values[name] = invalid.rest
                for fault in invalid.faults:
                    self._add(fault, name)
        if name == "wpaths":
            self._check_absent()

    def _check_absent(self) -> None:
        """A wpath that does not exist is waited for, if it is one that may come later."""
        if self.given.get("rwait") is True:
            return
        for wpath in self.values.get("wpaths", ()):
            if wpath is not None and absent(absolute(wpath)) and not mounts.expected(absolute(wpath)):
                self._add(ValueProblem(wpath, *ABSENT), "wpaths")

    def _check_delays(self) -> None:
        equiet, edelay = self.values.get("equiet"), self.values.get("edelay")
        if equiet is None or edelay is None or equiet <= edelay:
            return
        if "equiet" in self.given:
            right = "edelay is the longest that a change waits, equiet the shortest"
            self._add(ValueProblem(equiet, f"is more than edelay, {edelay}", right), "equiet")
        self.values["equiet"] = edelay

    def _trees(self) -> tuple[Tree, ...]:
        """The trees; with mistakes among them those that can be told, so that their targets are checked."""
        self._check_lengths()
        wpaths, rpaths = self.values.get("wpaths", ()), self.values.get("rpaths", ())
        rules = self._rules([absolute(wpath) for wpath in wpaths if wpath is not None])
        pairs = [pair for pair in zip(wpaths, rpaths, strict=False) if None not in pair]
        for wpath, rpath in pairs:
            if not os.path.isabs(wpath):
                self._warn("wpaths", wpath, "is taken from the directory where inosync was started")
            self._check_slash(wpath, rpath)
        return tuple(Tree(absolute(wpath), rpath, rules[absolute(wpath)]) for wpath, rpath in pairs)

    def _check_lengths(self) -> None:
        # As they are written: a wrong path among them does not hide that one is missing.
        lists = [self.given.get(name) for name in ("wpaths", "rpaths")]
        wpaths, rpaths = (len(paths) if isinstance(paths, list | tuple) else 0 for paths in lists)
        if wpaths and rpaths and wpaths != rpaths:
            wrong = f"{wpaths} wpaths but {rpaths} rpaths"
            self._add(ValueProblem(self.given["rpaths"], wrong, "write one for each wpath"), "rpaths")

    def _rules(self, wpaths: Sequence[str]) -> dict[str, tuple[Rule, ...]]:
        """The rules for each wpath: its own, then those for all."""
        rules: dict[str, tuple[Rule, ...]] = dict.fromkeys(("*", *wpaths), ())
        for key, items in self.values.get("rexcludes", {}).items():
            wpath = key if key == "*" else absolute(key)
            if wpath in rules:
                rules[wpath] += self._read(
                    items, "rexcludes", "" if key == "*" else f"for {format_value(key)}"
                )
            elif wpaths:
                right = f'write one of {format_value(list(wpaths))}, or "*" for all of them'
                self._add(ValueProblem(key, "is no wpath", right), "rexcludes")
        return {wpath: rules[wpath] + rules["*"] for wpath in wpaths}

    def _read(self, items: Iterable[Item], setting: str, where: str) -> tuple[Rule, ...]:
        """Rules, those in files in the place of the files."""
        items = [
            replace(item, name=absolute(item.name)) if isinstance(item, File) else item for item in items
        ]
        try:
            return self.files.rules(items)
        except Invalid as invalid:
            for fault in invalid.faults:
                self._add(replace(fault, where=where), setting)
            return ()

    def _check_slash(self, wpath: str, rpath: str) -> None:
        """For 0.2.3 a wpath without its trailing slash went into the rpath; here it becomes the rpath."""
        name = posixpath.basename(wpath)
        same = ("", ".", "..", posixpath.basename(rpath.rstrip("/")))
        if self.old_form or not rpath.strip("/") or name in same:
            return
        inside = f"{rpath.rstrip('/')}/{name}"
        if posixpath.normpath(rpath) == posixpath.dirname(absolute(wpath)):
            wrong = f"all else in it would be deleted to make it level with the wpath {format_value(wpath)}"
            right = f"write {format_value(inside)}, or the wpath with a slash at its end if this is meant"
            self._add(ValueProblem(rpath, wrong, right), "rpaths")
        else:
            made = (
                f"is mirrored as {format_value(rpath)}, where inosync 0.2.3 made {format_value(inside)} of it"
            )
            self._warn("wpaths", wpath, f"{made}; a slash at its end says that this is meant")

    def _nodes(self, trees: Sequence[Tree]) -> tuple[NodeSpec, ...]:
        items = self._without_twins([item for item in self.values.get("rnodes", ()) if item is not None])
        extra = self._parted(self.values.get("extra", ()), False, "extra", "")
        after = self._read(extra.rules, "extra", "")
        return tuple(self._node(item, trees, extra, after) for item in items)

    def _node(
        self, item: Mapping[str, Any], trees: Sequence[Tree], extra: Parted, after: tuple[Rule, ...]
    ) -> NodeSpec:
        """A node; ``extra`` and ``after``, the rules in it, are those of the file."""
        node = format_value(item["node"])
        own_extra = self._parted(item.get("extra", ()), extra.nulls, "rnodes", f"extra of {node}")
        # Of a setting with a mistake nothing is used: the nodes are then only checked.
        return NodeSpec(
            node=item["node"],
            name=item["name"],
            rspeed=item.get("rspeed", self.values.get("rspeed", constant(0))),
            extra=extra.words + own_extra.words,
            own=self._read(item.get("rexcludes", ()), "rnodes", f"rexcludes of {node}"),
            rtimeout=item.get("rtimeout", self.values.get("rtimeout", 0.0)),
            rwarm=item.get("rwarm", self.values.get("rwarm", True)),
            rverify=item.get("rverify", self.values.get("rverify", 0.0)),
            rchecksum=item.get("rchecksum", self.values.get("rchecksum", False)),
            after=after + self._read(own_extra.rules, "rnodes", f"extra of {node}"),
            wpaths=self._wpaths_of(item, [tree.wpath for tree in trees]),
        )

    def _parted(self, words: Sequence[str], nulls: bool, setting: str, where: str) -> Parted:
        option, rdelete = deletes(words), self.values.get("rdelete", True)
        if option and rdelete is not True:
            wrong = f"deletes always, but rdelete is {format_value(rdelete)}"
            self._add(ValueProblem(option, wrong, "leave one of them out", where), setting)
        return parted(words, nulls)

    def _check_sizes(self, trees: Sequence[Tree], nodes: Sequence[NodeSpec]) -> None:
        of_trees = [size(tree.rules) for tree in trees]
        for node in nodes:
            largest = size(node.own) + max(of_trees, default=0) + size(node.after)
            if largest > MAX_RULES:
                wrong = (
                    f"the rules for {format_value(node.name)} take {largest} bytes of rsync's command line"
                )
                right = f"write fewer or shorter ones, {MAX_RULES} bytes at most"
                self._add(ValueProblem(_NO_VALUE, wrong, right), "rexcludes")

    def _wpaths_of(self, item: Mapping[str, Any], wpaths: Sequence[str]) -> tuple[str, ...] | None:
        if "wpaths" not in item:
            return None
        own = [absolute(wpath) for wpath in item["wpaths"]]
        for written, wpath in zip(item["wpaths"], own, strict=True):
            if wpath not in wpaths and wpaths:
                right = f"write one of {format_value(list(wpaths))}"
                self._add(
                    ValueProblem(written, "is no wpath", right, f"wpaths of {format_value(item['node'])}"),
                    "rnodes",
                )
        return tuple(wpath for wpath in wpaths if wpath in own)

    def _wanted(self, trees: Sequence[Tree], nodes: Sequence[NodeSpec]) -> tuple[Tree, ...]:
        """The trees that a node gets. For nobody, nothing is watched."""
        wanted = [tree for tree in trees if not nodes or any(node.gets(tree) for node in nodes)]
        for tree in trees:
            if tree not in wanted:
                self._warn(
                    "wpaths", tree.wpath, "is mirrored to no node: all of them have wpaths of their own"
                )
        return tuple(wanted)

    def _without_twins(self, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The nodes, each only once, after telling which are there twice or share a name."""
        single: dict[str, dict[str, Any]] = {}
        named: dict[str, str] = {}
        for item in items:
            node, name = item["node"], item["name"]
            if node in single:
                self._add(ValueProblem(node, "is there twice", "leave one of them out"), "rnodes")
            elif name in named:
                wrong = f"has the same name as {format_value(named[name])}: {format_value(name)}"
                right = f'write {{"node": {format_value(node)}, "name": "another name"}}'
                self._add(ValueProblem(node, wrong, right), "rnodes")
            single.setdefault(node, item)
            named.setdefault(name, node)
        return list(single.values())

    def _warn_of_listening(self) -> None:
        address = self.values["rlisten"]
        if address is not None and not address.is_loopback:
            text = "whoever can connect to it sees names and states of the nodes; there is no password"
            self._warn("rlisten", str(address), text)

    def _warn_of_loops(self, trees: Sequence[Tree]) -> None:
        for event in sorted(self.values["emask"] & BY_READING):
            self._warn("emask", event, "left out, rsync's own reading of the files causes it")
        for name in ("rundir", "logfile"):
            path = self.values[name]
            for tree in trees if path else ():
                if os.path.realpath(path).startswith(os.path.realpath(tree.wpath).rstrip("/") + "/"):
                    where = f"lies inside the wpath {format_value(tree.wpath)}, where every transfer"
                    self._warn(name, path, f"{where} would cause the next; exclude it, or move it")


def _is_meant_for_us(name: object, value: object) -> bool:
    """Whether a name is a setting, well spelt or not; if not, it is a helper of the file's own."""
    if not isinstance(name, str) or name.startswith("_"):
        return False
    helper = callable(value) or isinstance(value, types.ModuleType | __future__._Feature)
    return name in SETTINGS or not helper
