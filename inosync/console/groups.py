"""How the page arranges nodes: those with one trouble are one group, and so are those without any."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inosync.console.table import GOOD_STATES

Description = Mapping[str, Any]
"""Of a node, as in ``status --json``."""

_OTHER = "…"  # what differs between the reasons of a group
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_HOST = re.compile(r"(?:[a-z]+://)?(?:[^@/]*@)?(\[[^\]]*\]|[^:/]*)")


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes that the page shows together."""

    state: str
    """Their state; "ok" for those without trouble."""
    reason: str
    """What their reasons have in common."""
    nodes: Sequence[Description]

    @property
    def is_good(self) -> bool:
        return self.state == GOOD_STATES[0]

    @property
    def title(self) -> str:
        """``12 retrying``, ``53 ok, 2 syncing``."""
        counts = Counter(str(node["state"]) for node in self.nodes)
        return ", ".join(f"{counts[state]:,} {state}" for state in sorted(counts))

    @property
    def key(self) -> str:
        """What tells this group from others, also in a later snapshot."""
        return f"{self.state} {_kind(self.reason)}"


def grouped(nodes: Sequence[Description]) -> list[Group]:
    """Return the groups of these nodes: in the order of their first nodes, those without trouble last."""
    found: dict[tuple[str, str], list[Description]] = {}
    good = [node for node in nodes if node["state"] in GOOD_STATES]
    for node in nodes:
        if node["state"] not in GOOD_STATES:
            key = str(node["state"]), _kind(_without_names(node))
            found.setdefault(key, []).append(node)
    groups = [Group(state, _common(alike), alike) for (state, _), alike in found.items()]
    return [*groups, Group(GOOD_STATES[0], "", good)] if good else groups


def _without_names(node: Description) -> str:
    """Return the reason of a node without what names the node in it."""
    reason, spec = str(node["reason"]), str(node.get("node") or "")
    host = _HOST.match(spec)
    names = {str(node["name"]), spec, spec.rstrip(":/"), host[1] if host else ""} - {""}
    for name in sorted(names, key=len, reverse=True):
        reason = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-]|\.\w)", _OTHER, reason)
    return reason


def _kind(reason: str) -> str:
    """Return a reason without its numbers: ports, addresses, counts."""
    return _NUMBER.sub(_OTHER, reason)


def _common(nodes: Sequence[Description]) -> str:
    """Return the reason that these nodes have in common, with an ellipsis where the words differ."""
    reasons = {str(node["reason"]) for node in nodes}
    if len(reasons) == 1:
        return reasons.pop()
    bare = [_without_names(node).split() for node in nodes]
    if len({len(words) for words in bare}) > 1:
        return _kind(" ".join(bare[0]))
    return " ".join(
        words[0] if len(set(words)) == 1 else _kind(words[0]) for words in zip(*bare, strict=True)
    )


def commands(node: Description, config: str) -> Iterator[tuple[str, str]]:
    """Yield what an operator may want to do about a node, and the command for it."""
    call = f"inosync -c {shlex.quote(config)} -s"
    name = shlex.quote(str(node["name"]))
    match node["state"]:
        case "halted":
            yield "Mirror the loss, if it is intended", f"{call} accept"
        case "held":
            yield "Check again", f"{call} retry"
            yield "Let go on what was refused", f"{call} accept"
        case "paused":
            yield "Send again", f"{call} resume {name}"
        case "retrying":
            yield "Compare in full, now", f"{call} resync {name}"
        case _:
            yield "Show what differs", f"{call} diff {name}"
    yield "All that happened", f"{call} events {name}"
