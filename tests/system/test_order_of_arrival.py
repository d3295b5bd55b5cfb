"""On a node nothing is switched to, and nothing is taken away, before what was written earlier has arrived.

A reader looks at each copy as fast as it can, in a process of its own. By hand, at full length::

    INOSYNC_DEPLOYMENTS=200 INOSYNC_RELEASE_FILES=1000 \\
        pytest -s --timeout=0 tests/system/test_order_of_arrival.py
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.publishing import Reader, Site
from support.real_rsync import needs_newest
from support.wait import until
from support.warm import AllTransports, Warm

DEPLOYMENTS = int(os.environ.get("INOSYNC_DEPLOYMENTS", "6"))
FILES = int(os.environ.get("INOSYNC_RELEASE_FILES", "200"))


@contextmanager
def readers(w: Warm, files: int) -> Iterator[dict[str, Reader]]:
    """A reader of each copy."""
    made = {node: Reader(w.copy(node), files) for node in w.nodes()}
    try:
        yield made
    finally:
        for reader in made.values():
            reader.kill()


def check(found: dict[str, Reader]) -> None:
    seen = {node: reader.seen() for node, reader in found.items()}
    print(seen)
    assert all(each.pop("looks") > 10 and each.pop("versions") > 1 for each in seen.values())
    assert not any(seen.values()), {node: (what, found[node].examples) for node, what in seen.items()}


@needs_newest
@pytest.mark.parametrize("is_calm", [True, False], ids=["each alone", "one after the other"])
def test_deployments_are_whole_at_every_moment(all_transports: AllTransports, is_calm: bool) -> None:
    w = all_transports.warm
    site = Site(w.tree(), FILES)
    site.deploy()
    w.daemon.start()
    w.until_level()
    w.until_warm()
    with readers(w, FILES) as found:
        for number in range(DEPLOYMENTS):
            site.deploy()
            for other in range(10):  # other traffic
                w.change(f"other{other}", f"{number}")
            if is_calm:
                w.until_level()
        w.until_level()
        check(found)


@needs_newest
def test_deployments_beside_restarts_are_whole_at_every_moment(all_transports: AllTransports) -> None:
    w = all_transports.warm
    site = Site(w.tree(), FILES)
    site.deploy()
    w.daemon.start()
    w.until_level()
    with readers(w, FILES) as found:
        for number in range(max(DEPLOYMENTS // 2, 3)):
            w.daemon.until_kept()
            site.deploy()  # it is cut off, or not even seen
            if number % 3 == 1:
                w.daemon.kill9()
                until(lambda: not w.daemon.descendants(), 60, "the workers to end")
            else:
                assert w.daemon.stop() == 0
            for _ in range(3):
                site.deploy()
                w.change("other", str(site.version))
            is_forgotten = number % 3 == 2
            if is_forgotten:  # then all is compared, and order is kept all the same
                shutil.rmtree(w.daemon.statedir)
            fulls = [w.fulls(node) for node in w.nodes()]
            w.daemon.start()
            w.until_level()
            assert [w.fulls(node) for node in w.nodes()] == [count + is_forgotten for count in fulls]
        check(found)
