"""The mutations of tests/chaos/mutations.py still apply, so that they can still be tried."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from chaos.mutations import CHECKOUT, MUTATIONS, Mutation, broken


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_applies_and_the_tests_for_it_are_there(mutation: Mutation) -> None:
    text = broken(mutation)
    assert text != (CHECKOUT / mutation.file).read_text()
    ast.parse(text)
    for test in mutation.tests:
        file, _, name = test.partition("[")[0].partition("::")
        assert f"def {name}" in (CHECKOUT / file).read_text()


def test_one_that_does_not_apply_any_more_is_told_of() -> None:
    one = Mutation("m", "f.py", "old\n", "new\n", ())
    assert one.applied("a\nold\n") == "a\nnew\n"
    for text in ("", "old\nold\n"):
        with pytest.raises(ValueError, match=r"m: in f\.py"):
            one.applied(text)


def test_they_have_names_of_their_own_and_are_listed() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 10
    argv = [sys.executable, str(CHECKOUT / "tests/chaos/mutations.py"), "--list", "cursor"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert "the cursor moves when a batch is sent: inosync/nodes/node.py\n" in done.stdout
