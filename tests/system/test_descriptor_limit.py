"""More nodes than the soft limit of file descriptors leaves room for."""

from __future__ import annotations

import resource
from pathlib import Path

from support.daemon import MakeDaemon
from support.wait import until

NODES, SOFT_LIMIT = 24, 64


def test_soft_limit_of_descriptors_does_not_limit_the_nodes(tmp_path: Path, daemon: MakeDaemon) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("content")
    (tmp_path / "nodes").mkdir()
    nodes = [str(tmp_path / "nodes" / str(number)) for number in range(NODES)]
    config = {"wpaths": [f"{tmp_path}/tree/"], "rpaths": [""], "rnodes": nodes, "rwarm": False}
    made = daemon(config)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT_LIMIT, hard))  # inherited by what is started now
    try:
        made.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: all((Path(node) / "file").exists() for node in nodes), 120, "every node to have the file")
