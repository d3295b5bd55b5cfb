"""Run something in a forked child that must not happen to the test itself."""

from __future__ import annotations

import os
from collections.abc import Callable

from inosync.system import process


def in_child(run: Callable[[], object], describe: Callable[[Exception], str] = repr) -> str:
    """Return as text what ``run`` returns in a forked child, or ``describe`` of what it raises."""
    reader, writer = os.pipe()

    def report() -> None:
        try:
            result = str(run())
        except Exception as error:  # noqa: BLE001 - whatever it is, the test is told
            result = describe(error)
        os.write(writer, result.encode())
        process.leave(0)

    child = process.fork(report, "child")
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        result = stream.read().decode()
    child.join(60)
    assert child.exitcode == 0
    return result
