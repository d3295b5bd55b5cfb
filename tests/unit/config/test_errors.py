"""How problems of a configuration are written."""

from __future__ import annotations

import pytest

from inosync.config.errors import NO_VALUE, ConfigError, ConfigProblem, Findings, ValueProblem


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (ConfigProblem("c.py", "is gone"), "c.py: is gone"),
        (
            ConfigProblem("c.py", "is bad", "mend it", 3, "edelay", "-1"),
            "c.py:3: edelay: -1: is bad; mend it",
        ),
        (ConfigProblem("c\n.py", "is bad"), r"c\n.py: is bad"),
    ],
)
def test_problem_is_one_line_without_its_empty_parts(problem: ConfigProblem, text: str) -> None:
    assert str(problem) == text


def test_findings_name_the_line_the_older_name_and_the_place() -> None:
    findings = Findings("c.py", {"wpath": 2, "rnodes": 5}, {"wpaths": "wpath"})
    findings.raise_problems()
    findings.add("wpaths", ValueProblem("/x", "is odd"), ValueProblem(NO_VALUE, "is missing"))
    findings.add("rnodes", ValueProblem(1, "is bad", "mend it", where="name of 'h:'"))
    in_file = ValueProblem("x", "is no rule", file="/rules", line=7)
    findings.add("rexcludes", in_file)
    findings.add("extra", in_file)
    findings.warn("wpaths", "/x", "looks odd")
    with pytest.raises(ConfigError) as caught:
        findings.raise_problems()
    assert str(caught.value).splitlines() == [
        "c.py:2: wpath: '/x': is odd",
        "c.py:2: wpath: is missing",
        "c.py:5: rnodes: name of 'h:': 1: is bad; mend it",
        "/rules:7: 'x': is no rule",
    ]
    assert findings.warnings == ["wpath: '/x': looks odd"]
