"""Names of tests and classes: tests have short names, and no two public classes have the same one."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
MAX_LENGTH = 70


def test_names_of_tests_have_at_most_70_characters() -> None:
    long = [
        f"{path.relative_to(CHECKOUT)}: {node.name}"
        for path in (CHECKOUT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and len(node.name) > MAX_LENGTH
    ]
    assert long == []


def test_public_classes_of_the_package_have_different_names() -> None:
    places = defaultdict(list)
    for path in (CHECKOUT / "inosync").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(CHECKOUT)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
