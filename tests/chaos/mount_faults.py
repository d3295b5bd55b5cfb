"""Faults of mounts: a directory appears at another place of a tree, and goes again."""

from __future__ import annotations

from functools import partial

from chaos.faults import Draw, Happened, Impossible, Kind, Lasting, free
from chaos.markers import DIRECTORY
from chaos.testbed import STORMED, Testbed


def bind(testbed: Testbed, draw: Draw) -> Happened:
    """Bind a directory from outside of the trees, or from the other tree, to a directory of a tree."""
    tree = draw.among(list(STORMED))
    resource = free(testbed, f"mount in {tree}")
    place = testbed.tree(tree) / DIRECTORY / "mount"
    [other] = [testbed.tree(name) / DIRECTORY for name in STORMED if name != tree]
    source = draw.one_of([testbed.home / "bound", other])
    place.mkdir(parents=True, exist_ok=True)
    if source == testbed.home / "bound":
        (source / "sub").mkdir(parents=True, exist_ok=True)
        for number in range(20):
            (source / "sub" / f"{number}").write_text(f"{draw.how:.12f}")
    other.mkdir(exist_ok=True)
    if not testbed.mount_bind(source, place):
        raise Impossible("nothing can be mounted here")
    return Lasting(resource, partial(testbed.unmount, place), description=f"{source.name} in {tree}")


KINDS = [
    Kind("bind mount", 4, bind, compares=True),
]
