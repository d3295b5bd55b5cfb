"""A changed file of patterns whose reading was refused for a reason that lies elsewhere, and is over."""

from __future__ import annotations

import pytest
from support.wait import until
from support.warm import OK, MakeWarm


@pytest.mark.parametrize("why", ["wpath", "directory"])
def test_a_changed_file_takes_effect_when_what_kept_it_from_being_read_is_over(
    warm: MakeWarm, why: str
) -> None:
    w = warm({"a": ""})
    file = w.daemon.file.with_name("patterns")
    file.write_text("/x\n")
    file.chmod(0o600)
    w.configure({"a": ""}, rexcludes={"from": str(file)})
    w.daemon.start()
    w.change("x")
    w.change("y")
    w.until_arrived("a", "y")
    w.until_title("a", OK)
    away = w.tree().with_name("away")
    if why == "wpath":
        w.tree().rename(away)
    else:
        file.parent.chmod(0o777)
    file.write_text("/other\n")
    w.daemon.until_logged("was not reloaded")
    refused = w.daemon.log().count("was not reloaded")
    if why == "wpath":
        away.rename(w.tree())
    else:
        file.parent.chmod(0o700)
    until(lambda: w.has("a", "x"), 60, "what is excluded no longer")
    # Told once, and tried again until it is right.
    assert w.daemon.log().count("was not reloaded") == refused == 1
