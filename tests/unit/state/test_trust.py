"""What is kept is relied on only if nothing speaks against it, and each reason has its words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inosync.changes import Kind
from inosync.config.nodes import NodeSpec, Tree
from inosync.filters.rule import from_pattern
from inosync.state import trust
from inosync.state.document import Owed, RootFacts, SavedNode, SavedTree, State
from inosync.state.trust import Moment, TreeFacts

RULE = from_pattern("*.tmp", False)
SPEC = NodeSpec("h:", "n")
TREE = Tree("/w", "/w", RULE)
COMMON = trust.decisive_for_all(None, ["IN_CREATE"], True)
STATE = State("/etc/c.py", 100.0, "boot", 50.0, True, COMMON)
NOW = Moment(200.0, "boot", 50.0)
ROOT = RootFacts("ext4", "ab", 2)
SAVED_TREE = SavedTree(ROOT, {"mnt": "cd 5"})
FACTS = TreeFacts(ROOT, (1, 2), {"mnt": "cd 5"})
SAVED_NODE = SavedNode(time=90.0, trees={"/w": trust.decisive(SPEC, TREE)})


@pytest.mark.parametrize(
    ("state", "now", "why"),
    [
        (STATE, NOW, ""),
        (replace(STATE, config="/etc/d.py"), NOW, "the state belongs to /etc/d.py"),
        (replace(STATE, written=260.0), NOW, "the clock was set back: the state is from 60 s in the future"),
        (STATE, replace(NOW, clock_offset=20.0), "the clock was set back by 30 s"),
        (STATE, replace(NOW, clock_offset=49.8), ""),  # less than the margin
        (STATE, replace(NOW, clock_offset=80.0), ""),  # set forward
        (STATE, replace(NOW, boot="other", clock_offset=20.0), ""),
    ],
)
def test_state_is_doubted_for_its_file_and_its_clock(state: State, now: Moment, why: str) -> None:
    assert trust.doubt_state(state, "/etc/c.py", now) == why


@pytest.mark.parametrize(
    ("ruser", "emask", "rdelete", "why"),
    [
        (None, ["IN_CREATE"], True, ""),
        ("www", ["IN_CREATE"], True, "ruser has changed"),
        (None, ["IN_CREATE", "IN_ATTRIB"], True, "emask has changed"),
        (None, ["IN_CREATE"], False, "rdelete has changed"),
        (None, ["IN_CREATE"], "startup", 'rdelete is "startup", and tells starts from changes'),
        (None, ["IN_CREATE"], "running", 'rdelete is "running", and tells starts from changes'),
    ],
)
def test_state_is_doubted_for_other_settings(
    ruser: str | None, emask: list[str], rdelete: bool | str, why: str
) -> None:
    assert trust.doubt_settings(STATE, trust.decisive_for_all(ruser, emask, rdelete), rdelete) == why


@pytest.mark.parametrize(
    ("saved", "found", "why"),
    [
        (SAVED_TREE, FACTS, ""),
        (None, FACTS, "it was not mirrored before"),
        (SAVED_TREE, None, "its root was not there at the start"),
        (
            SAVED_TREE,
            replace(FACTS, root=replace(ROOT, inode=3)),
            "its root is another directory than before",
        ),
        (
            SAVED_TREE,
            replace(FACTS, root=replace(ROOT, fs_id="x")),
            "its root is on another file system than before",
        ),
        (
            SAVED_TREE,
            replace(FACTS, root=replace(ROOT, fs_type="")),
            "the times of files cannot be relied on, on a file system of this type",
        ),
        (
            SAVED_TREE,
            replace(FACTS, untrusted="mnt"),
            "the times of files cannot be relied on in mnt, on a file system of that type",
        ),
        (
            SAVED_TREE,
            replace(FACTS, mounts={}),
            "other file systems are mounted in it than before, such as at mnt",
        ),
        (
            SAVED_TREE,
            replace(FACTS, mounts={"mnt": "ef 5"}),
            "other file systems are mounted in it than before, such as at mnt",
        ),
        (
            replace(SAVED_TREE, has_unreadable=True),
            FACTS,
            "there were directories in it that could not be read",
        ),
    ],
)
def test_tree_is_doubted_if_it_is_not_what_it_was(
    saved: SavedTree | None, found: TreeFacts | None, why: str
) -> None:
    assert trust.doubt_tree(saved, found) == why


@pytest.mark.parametrize(
    ("saved", "spec", "tree", "why"),
    [
        (SAVED_NODE, SPEC, TREE, ""),
        (None, SPEC, TREE, "it was not mirrored there before"),
        (replace(SAVED_NODE, trees={}), SPEC, TREE, "it was not mirrored there before"),
        (SAVED_NODE, replace(SPEC, node="g:"), TREE, "the node is another place now"),
        (SAVED_NODE, SPEC, replace(TREE, rpath="/x"), "its rpath has changed"),
        (SAVED_NODE, replace(SPEC, extra=("-z",)), TREE, "its extra has changed"),
        (SAVED_NODE, SPEC, replace(TREE, rules=()), "its filter rules have changed"),
        (
            SAVED_NODE,
            replace(SPEC, own_rules=from_pattern("/x", False)),
            TREE,
            "its filter rules have changed",
        ),
        (SAVED_NODE, replace(SPEC, rspeed=SPEC.rspeed, rwarm=False), TREE, ""),
        (SAVED_NODE, replace(SPEC, extra=("-L",)), TREE, "what -L in extra leads to is not watched"),
        (replace(SAVED_NODE, time=None), SPEC, TREE, "it had still to get too much, or files with old times"),
        (
            replace(SAVED_NODE, owed=(Owed("/w", b"", Kind.TREE),)),
            SPEC,
            TREE,
            "its last full mirror had not come through",
        ),
        (replace(SAVED_NODE, owed=(Owed("/other", b"", Kind.TREE),)), SPEC, TREE, ""),
        (replace(SAVED_NODE, owed=(Owed("/w", b"a"),)), SPEC, TREE, ""),
    ],
)
def test_node_is_doubted_if_it_may_lack_what_it_would_be_sent(
    saved: SavedNode | None, spec: NodeSpec, tree: Tree, why: str
) -> None:
    assert trust.doubt_node(saved, "/w", trust.decisive(spec, tree), spec.extra) == why


def test_checksums_hold_nothing_that_is_secret() -> None:
    spec = replace(SPEC, extra=("--password-file=/secret",))
    assert "secret" not in str(trust.decisive(spec, TREE))
