"""Files for inosync 0.2.3: what they mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.configs import config, mistakes, text, write
from support.filters import excludes

from inosync.config.load import load
from inosync.config.nodes import Tree

SAMPLE = """
# directory that should be watched for changes
wpaths = ["%s/a/", "%s/b/"]
rexcludes = [
\t"/.git",
]
rpaths = ["/home/user/one", "/home/user/two/"]
rnodes = [
\t"user1@a.mirror.com:",
\t"user2@b.mirror.com:",
]
extra = "--rsh=ssh -a"
rspeed = 100
emask = [
\t"IN_CLOSE_WRITE",
\t"IN_CREATE",
\t"IN_DELETE",
\t"IN_MOVED_FROM",
\t"IN_MOVED_TO",
]
edelay = 0
logfile = "%s/inosync.log"
"""


def test_file_of_0_2_3_is_taken_as_it_is(here: Path) -> None:
    taken = load(write(SAMPLE.replace("%s", str(here))))
    assert taken.trees == (
        Tree(str(here / "a"), "/home/user/one", excludes(["/.git"])),
        Tree(str(here / "b"), "/home/user/two/", excludes(["/.git"])),
    )
    assert [node.name for node in taken.nodes] == ["user1@a.mirror.com", "user2@b.mirror.com"]
    assert {node.extra for node in taken.nodes} == {("--rsh=ssh", "-a")}
    assert taken.nodes[1].target(taken.trees[1]) == "user2@b.mirror.com:/home/user/two/"
    assert "IN_ATTRIB" not in taken.emask
    assert (taken.edelay, taken.equiet, taken.warnings) == (0, 0, ())


OLDER = """
wpath = "%s/a/"
rexcludes = ["/localhost"]
rpath = "/var/www/"
rnodes = ["a.mirror.com:" + rpath, "b.mirror.com:" + rpath]
"""


def test_older_form_has_one_wpath_and_whole_targets(here: Path) -> None:
    taken = load(write(OLDER % here))
    assert taken.trees == (Tree(str(here / "a"), "", excludes(["/localhost"])),)
    assert [node.target(taken.trees[0]) for node in taken.nodes] == [
        "a.mirror.com:/var/www/",
        "b.mirror.com:/var/www/",
    ]
    assert [node.name for node in taken.nodes] == ["a.mirror.com:/var/www", "b.mirror.com:/var/www"]
    assert taken.warnings == ()


@pytest.mark.parametrize(
    ("node", "target"), [("h:/srv", "h:/srv/a"), ("h:/srv/", "h:/srv/a"), ("h:", "h:a"), ("h::m", "h::m/a")]
)
@pytest.mark.usefixtures("here")
def test_older_form_without_a_slash_means_what_rsync_means(node: str, target: str) -> None:
    taken = load(write(f"wpath = 'a'\nrnodes = [{node!r}]\n"))
    assert taken.nodes[0].target(taken.trees[0]) == target
    assert any("trailing slash" in warning for warning in taken.warnings)


def test_wpath_that_would_replace_its_own_parent_is_refused(here: Path) -> None:
    (line,) = mistakes(text(wpaths=repr([str(here / "a")]), rpaths=repr([str(here)])))
    assert "all else in it would be deleted" in line
    assert config(wpaths=repr([str(here / "a") + "/"]), rpaths=repr([str(here)])).warnings == ()
