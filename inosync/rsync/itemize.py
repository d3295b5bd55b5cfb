"""Reads the differences that rsync prints between a tree and its copy on a node (``argv.compare_argv``).

A line is as of --itemize-changes in rsync(1): eleven characters, a space, and the name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from inosync.changes import Change, Kind, Step
from inosync.rsync.stderr import unescaped

_MARK = b"inosync:"
FORMAT = f"{_MARK.decode()}%i %n"
"""For --out-format. The mark distinguishes these lines from all else that may be printed."""

MAX_DIFFERENCES = 10_000
"""If a tree has more differences, all of it is sent instead of their names."""

_LINE = re.compile(_MARK + rb"(?P<what>.{11}) (?P<name>.+)", re.DOTALL)
_GONE = b"*deleting"


@dataclass(frozen=True, slots=True)
class Difference:
    """One path in which a node is not like the tree."""

    path: bytes
    """Relative to the wpath, as in ``Change``."""
    what: bytes
    """rsync's eleven characters."""

    @property
    def extra(self) -> bool:
        """Whether only the node has it."""
        return self.what.startswith(_GONE)

    @property
    def missing(self) -> bool:
        """Whether the node has nothing of this kind there."""
        return b"+" in self.what

    @property
    def is_link(self) -> bool:
        return self.what[1:2] == b"L"

    @property
    def negligible(self) -> bool:
        """Whether only the time of a directory differs.

        It changes with everything that comes and goes in there, and is not sent for what is excluded, nor for
        entries of the root.
        """
        return self.what[1:2] == b"d" and not self.what[2:].lower().strip(b". t")

    @property
    def word(self) -> str:
        """What is wrong, in a word for people."""
        if self.extra:
            return "extra"
        if self.missing:
            return "missing"
        is_content = self.what[:1] in (b"<", b">") or self.what[2:3] == b"c"
        return "content" if is_content else "attributes"

    def repair(self, tree: int, rdelete: bool | str = True) -> Change | None:
        """Return the change that repairs it; None if that is not worth it.

        With ``rdelete`` "running" the root must not be relisted for its own attributes, because that deletes
        what went before; there is no other name for it.
        """
        if self.extra:
            # A name would leave what is excluded and to be deleted (--delete-excluded).
            return Change(tree, self.path.rpartition(b"/")[0], Kind.LIST, step=Step.REMOVED)
        if not self.path and rdelete == "running":
            return None if self.negligible else Change(tree, b"", Kind.TREE)
        # Only its checksum differs.
        ignore_times = not self.missing and self.what[2:5].lower().strip(b". ") == b"c"
        return Change(tree, self.path, Kind.NAME if self.path else Kind.LIST, ignore_times)


def parse(line: bytes) -> Difference | None:
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    what, name = found["what"], unescaped(found["name"])
    # A file that is there, but not as a hard link of another one: sending names cannot repair that.
    if what[:1] in (b".", b"h") and not what[2:].strip(b". "):
        return None
    return Difference(b"" if name == b"./" else name.removesuffix(b"/"), what)


def explained(changes: Iterable[Change], tree: int) -> Callable[[Difference], bool]:
    """Return a test whether a difference may be nothing but changes that were on their way."""
    kinds = {change.path: change.kind for change in changes if change.tree == tree}

    def by_any(difference: Difference) -> bool:
        path = difference.path
        if path in kinds:
            return True
        above, is_parent = path, True
        while above:
            above = above.rpartition(b"/")[0]
            kind = kinds.get(above)
            # Of a tree that is gone only the topmost name is known.
            may_be_gone = kind is not None and difference.extra and above
            if may_be_gone or kind is Kind.TREE or (kind is Kind.LIST and is_parent):
                return True
            is_parent = False
        return False

    return by_any
