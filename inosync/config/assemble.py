"""Trees and nodes, made of checked values; what is wrong in their combination."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from inosync.config import legacy
from inosync.config.checks import REST
from inosync.config.errors import NO_VALUE, Findings, Invalid, ValueProblem
from inosync.config.fleet import Fleet, SenderSpec, assembled, described
from inosync.config.nodes import NodeSpec, Tree
from inosync.config.own_machine import directory_here
from inosync.config.paths import absolute
from inosync.config.pattern_files import PatternFiles
from inosync.config.settings import SETTINGS
from inosync.config.targets import check_targets
from inosync.filters.rule import File, Item, Rule
from inosync.rsync.argv import MAX_RULES_BYTES, rules_bytes
from inosync.rsync.options import Parted, deletes, parted, unseen, unwatched
from inosync.system.overlap import MountTable
from inosync.text import did_you_mean, format_value

_REPLACES = [name for name, setting in SETTINGS.items() if setting.per_node and name != "extra"]
"""Settings of which a node's own value replaces that of the file."""


class Assembly:
    """Makes trees and nodes of the values that are right; the others are missing, and already reported."""

    def __init__(self, values: Mapping[str, Any], findings: Findings) -> None:
        self._values = values
        self._findings = findings
        self.files = PatternFiles()

    def trees(self, older_form: bool) -> tuple[Tree, ...]:
        """Return the trees. With mistakes among them, return those that are known, to check their targets."""
        wpaths, rpaths = self._values.get("wpaths", ()), self._values.get("rpaths", ())
        rules = self._rules([absolute(wpath) for wpath in wpaths if wpath is not None])
        trees = []
        for wpath, rpath in zip(wpaths, rpaths, strict=False):
            if wpath is None or rpath is None:
                continue
            if not os.path.isabs(wpath):
                text = "is taken from the directory where inosync was started"
                self._findings.warn("wpaths", wpath, text)
            if not older_form:
                legacy.check_slash(wpath, rpath, self._findings)
            trees.append(Tree(absolute(wpath), rpath, rules[absolute(wpath)]))
        return tuple(trees)

    def nodes(self, trees: Sequence[Tree]) -> tuple[NodeSpec, ...]:
        """Return the nodes that these trees are mirrored to."""
        return self._nodes_of("rnodes", trees)

    def senders(self, trees: Sequence[Tree]) -> tuple[SenderSpec, ...]:
        """Return the senders of a fleet."""
        items = {item["name"]: item for item in self._values.get("rsenders", ()) if item}
        return tuple(
            SenderSpec(node, items[node.name].get("path", ""), items[node.name].get("shared", False))
            for node in self._nodes_of("rsenders", trees)
        )

    def fleet(
        self, me: str, senders: Sequence[SenderSpec], nodes: Sequence[NodeSpec], trees: Sequence[Tree]
    ) -> Fleet | None:
        """Return the fleet that this machine belongs to, as the origin or as the sender ``me``."""
        redis = self._values.get("fleet")
        if redis is None:
            for name in [node.name for node in nodes if node.senders is not None]:
                self._findings.add(
                    "rnodes", ValueProblem(name, "has senders, but there is no fleet", "set fleet")
                )
            if senders or me:
                what = "rsenders are set" if senders else "--sender is given"
                self._findings.add(
                    "rsenders", ValueProblem(NO_VALUE, f"{what}, but there is no fleet", "set fleet")
                )
            return None
        rdelete = self._values.get("rdelete", True)
        if rdelete is not True:
            hint = "a sender that keeps what is deleted would send it on"
            self._findings.add("rdelete", ValueProblem(rdelete, "does not go together with fleet", hint))
        if self._values.get("rstages"):
            self._findings.add("rstages", ValueProblem(NO_VALUE, "stages do not go together with fleet yet"))
        text = described(redis, trees, senders, nodes, rdelete)
        fingerprint = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        try:
            return assembled(redis, me, senders, nodes, trees, fingerprint)
        except Invalid as error:
            self._findings.add("rsenders", *error.problems)
            return None

    def _nodes_of(self, setting: str, trees: Sequence[Tree]) -> tuple[NodeSpec, ...]:
        items = self._without_twins([item for item in self._values.get(setting, ()) if item is not None])
        extra = self._parted(self._values.get("extra", ()), False, "extra", "")
        extra_rules = self._read(extra.rules, "extra", "")
        return tuple(self._node(item, trees, extra, extra_rules) for item in items)

    def check(self, nodes: Sequence[NodeSpec], trees: Sequence[Tree]) -> None:
        """Report targets that are too close to each other or to a wpath, and rules too long for rsync."""
        self._findings.add(
            "rnodes", *check_targets(nodes, trees, os.path.realpath, MountTable().overlap, directory_here)
        )
        largest_tree = max((rules_bytes(tree.rules) for tree in trees), default=0)
        for node in nodes:
            largest = rules_bytes(node.own_rules) + largest_tree + rules_bytes(node.extra_rules)
            if largest > MAX_RULES_BYTES:
                name = format_value(node.name)
                problem = f"the rules for {name} take {largest} bytes of rsync's command line"
                hint = f"write fewer or shorter ones, {MAX_RULES_BYTES} bytes at most"
                self._findings.add("rexcludes", ValueProblem(NO_VALUE, problem, hint))

    def stages(self, nodes: Sequence[NodeSpec]) -> tuple[tuple[str, ...], ...]:
        """Return the names of the nodes by stages; report what is no node, or is in no stage, or in two."""
        written = self._values.get("rstages")
        if not written:
            if self._values.get("on_stage") is not None and "rstages" in self._values:
                problem = ValueProblem(NO_VALUE, "there are no stages to decide between", "set rstages")
                self._findings.add("on_stage", problem)
            return ()
        if REST in written[:-1]:
            problem = ValueProblem(REST, "is not the last stage", "all nodes that no stage names come last")
            self._findings.add("rstages", problem)
        stage_of = self._stages_by_node(written, nodes)
        found = [[name for name, own in stage_of.items() if own == number] for number in range(len(written))]
        for name in [node.name for node in nodes if node.name not in stage_of]:
            if REST in written:
                found[-1].append(name)
            else:
                hint = 'put it into a stage, or write "rest" as the last one'
                self._findings.add("rstages", ValueProblem(name, "is in no stage", hint))
        return tuple(tuple(stage) for stage in found if stage)

    def _stages_by_node(self, written: Sequence[Sequence[str]], nodes: Sequence[NodeSpec]) -> dict[str, int]:
        known = {as_written: node.name for node in nodes for as_written in (node.node, node.name)}
        are_known = None not in self._values.get("rnodes", (None,))  # or else one may be a node with mistakes
        found: dict[str, int] = {}
        for number, stage in enumerate(written):
            for name in stage if stage != REST else ():
                node = known.get(name)
                if node is None and are_known:
                    hint = did_you_mean(name, known) or "write the name of a node in rnodes"
                    self._findings.add("rstages", ValueProblem(name, "is no node", hint))
                elif node in found:
                    problem = f"is in stage {found[node] + 1} and again in stage {number + 1}"
                    self._findings.add("rstages", ValueProblem(name, problem, "leave one of them out"))
                elif node is not None:
                    found[node] = number
        return found

    def _rules(self, wpaths: Sequence[str]) -> dict[str, tuple[Rule, ...]]:
        """Return the rules for each wpath: its own, then those for all."""
        rules: dict[str, tuple[Rule, ...]] = dict.fromkeys(("*", *wpaths), ())
        for key, items in self._values.get("rexcludes", {}).items():
            wpath = key if key == "*" else absolute(key)
            if wpath in rules:
                where = "" if key == "*" else f"for {format_value(key)}"
                rules[wpath] += self._read(items, "rexcludes", where)
            elif wpaths:
                hint = f'write one of {format_value(list(wpaths))}, or "*" for all of them'
                self._findings.add("rexcludes", ValueProblem(key, "is no wpath", hint))
        return {wpath: rules[wpath] + rules["*"] for wpath in wpaths}

    def _read(self, items: Iterable[Item], setting: str, where: str) -> tuple[Rule, ...]:
        """Return rules, with those in files in place of the files."""
        items = [
            replace(item, name=absolute(item.name)) if isinstance(item, File) else item for item in items
        ]
        try:
            return self.files.rules(items)
        except Invalid as error:
            self._findings.add(setting, *(replace(problem, where=where) for problem in error.problems))
            return ()

    def _node(
        self, item: Mapping[str, Any], trees: Sequence[Tree], extra: Parted, extra_rules: tuple[Rule, ...]
    ) -> NodeSpec:
        """Return a node; ``extra`` and ``extra_rules`` are the file's."""
        node = format_value(item["node"])
        own_extra = self._parted(item.get("extra", ()), extra.nulls, "rnodes", f"extra of {node}")
        merged = {**self._values, **item}
        return NodeSpec(
            node=item["node"],
            name=item["name"],
            extra=extra.words + own_extra.words,
            own_rules=self._read(item.get("rexcludes", ()), "rnodes", f"rexcludes of {node}"),
            extra_rules=extra_rules + self._read(own_extra.rules, "rnodes", f"extra of {node}"),
            wpaths=self._wpaths_of(item, [tree.wpath for tree in trees]),
            senders=item.get("senders"),
            **{name: merged[name] for name in _REPLACES if name in merged},
        )

    def _parted(self, words: Sequence[str], nulls: bool, setting: str, where: str) -> Parted:
        option, rdelete = deletes(words), self._values.get("rdelete", True)
        if option and rdelete is not True:
            problem = f"deletes always, but rdelete is {format_value(rdelete)}"
            self._findings.add(setting, ValueProblem(option, problem, "leave one of them out", where))
        for blinding, text in {**unseen(words), **unwatched(words)}.items():
            self._findings.warn(setting, blinding, text)
        return parted(words, nulls)

    def _wpaths_of(self, item: Mapping[str, Any], wpaths: Sequence[str]) -> tuple[str, ...] | None:
        if "wpaths" not in item:
            return None
        own = {absolute(written): written for written in item["wpaths"]}
        for wpath, written in own.items():
            if wpath not in wpaths and wpaths:
                where = f"wpaths of {format_value(item['node'])}"
                hint = f"write one of {format_value(list(wpaths))}"
                self._findings.add("rnodes", ValueProblem(written, "is no wpath", hint, where))
        return tuple(wpath for wpath in wpaths if wpath in own)

    def _without_twins(self, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return each node once; report those that are there twice, or share a name."""
        single: dict[str, dict[str, Any]] = {}
        named: dict[str, str] = {}
        for item in items:
            node, name = item["node"], item["name"]
            if node in single:
                self._findings.add("rnodes", ValueProblem(node, "is there twice", "leave one of them out"))
            elif name in named:
                problem = f"has the same name as {format_value(named[name])}: {format_value(name)}"
                hint = f'write {{"node": {format_value(node)}, "name": "another name"}}'
                self._findings.add("rnodes", ValueProblem(node, problem, hint))
            single.setdefault(node, item)
            named.setdefault(name, node)
        return list(single.values())
