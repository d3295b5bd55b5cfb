"""Rules that hide names without keeping them on a node: what they come to hide goes there, after SIGHUP."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from support.wait import until
from support.warm import OK, MakeWarm


@pytest.mark.parametrize(
    ("before", "after", "goes"),
    [
        ([], ["--filter=H /a"], "a"),
        ([], ["--filter=H /d/a"], "d/a"),
        (["--exclude=/a"], ["--filter=R /a", "--exclude=/a"], "a"),
        (["--exclude=/d/a", "--filter=H /d/a"], ["--filter=H /d/a"], "d/a"),
        (["--delete-excluded"], ["--delete-excluded", "--exclude=/d/a"], "d/a"),
    ],
)
@pytest.mark.parametrize("others", [0, 1], ids=["alone", "beside another"])
def test_what_is_hidden_and_not_kept_goes(
    warm: MakeWarm, before: Sequence[str], after: Sequence[str], goes: str, others: int
) -> None:
    w = warm({"a": {"extra": before}} | {f"other{n}": "" for n in range(others)})
    for name in ("a", "d/a"):
        (w.tree() / name).mkdir(parents=True)
        (w.tree() / name / "f").write_text("content")
        (w.copy("a") / name).mkdir(parents=True)  # perhaps excluded, and the node's own
        (w.copy("a") / name / "f").write_text("content")
    w.daemon.start()
    for node in w.nodes():
        w.until_title(node, OK)
    assert (w.copy("a") / goes / "f").exists()
    w.reload(rnodes=[w.item("a", {"extra": after}), *(w.item(n) for n in w.nodes() if n != "a")])
    until(lambda: not (w.copy("a") / goes).exists(), 60, "what is hidden to be gone")
    kept = {"a", "d/a"} - {goes}
    assert all((w.copy("a") / name / "f").exists() for name in kept)
    assert all((w.copy(n) / name / "f").exists() for n in w.nodes() if n != "a" for name in ("a", "d/a"))
