"""What ``on_sync`` and ``on_state`` may be."""

from __future__ import annotations

import pytest

from inosync.config.errors import Invalid
from inosync.config.hook import BEHIND, Hook, on_state, on_sync
from inosync.text import NodeState


def purge(facts: object) -> None:
    """A function of a configuration."""


@pytest.mark.parametrize(
    ("value", "hook"),
    [
        (None, None),
        (["/bin/true", "a"], Hook(("/bin/true", "a"))),
        (purge, Hook(call=purge)),
        ({"command": ("/bin/true",)}, Hook(("/bin/true",))),
        ({"command": purge, "timeout": 5}, Hook(call=purge, timeout=5)),
    ],
)
def test_hook_is_a_program_or_a_function(value: object, hook: Hook | None) -> None:
    assert on_sync(value) == on_state(value) == hook


def test_hook_with_after_is_for_nodes_that_are_behind() -> None:
    assert on_state({"command": ["/x"], "after": 300}) == Hook(("/x",), after=300, states=BEHIND)
    named = on_state({"command": ["/x"], "after": 1, "states": ["paused"]})
    assert named == Hook(("/x",), after=1, states=frozenset({NodeState.PAUSED}))


@pytest.mark.parametrize(
    ("value", "problem", "hint"),
    [
        ("/bin/true a", "is a string, which nothing takes apart", "write ['/bin/true', 'a']"),
        ([], "is empty", "write ["),
        ([1], "is not a string", "quotes"),
        ({"timeout": 5}, "has no 'command'", "write ["),
        ({"command": ["/x"], "timeout": 0}, "is out of range", "more than 0"),
        ({"command": ["/x"], "after": 1}, "is not known", "write one of command, timeout"),
        ({"command": ["/x"], 1: 2}, "is not known", "write one of command"),
    ],
)
def test_bad_hook_is_refused_with_a_hint(value: object, problem: str, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        on_sync(value)
    (found,) = caught.value.problems
    assert problem in found.problem
    assert hint in found.hint


def test_state_that_hooks_are_not_run_for_is_refused() -> None:
    with pytest.raises(Invalid, match="states"):
        on_state({"command": ["/x"], "states": ["syncing"]})
