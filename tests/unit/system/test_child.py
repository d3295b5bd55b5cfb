"""What a child is started with, what is kept of its output, and how it ends."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping

import pytest

from inosync.system import child
from inosync.system.child import Child

SHELL = "/bin/sh"


def ended(started: Child) -> Child:
    """The child, once it has ended and is collected."""
    until = time.monotonic() + 20
    while os.waitid(os.P_PID, started.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        started.read_output()
        assert time.monotonic() < until, "the child does not end"
        time.sleep(0.005)
    started.reap()
    return started


def run(script: str, env: Mapping[str, str] | None = None) -> Child:
    return ended(child.program((SHELL, "-c", script), env or {}, lambda: None))


@pytest.mark.parametrize(
    ("script", "code", "tail"),
    [
        ("true", 0, ""),
        ("echo first; echo last; echo; exit 3", 3, "last"),
        ("echo complaint >&2; kill -9 $$", -signal.SIGKILL, "complaint"),
        ("head -c 100000 /dev/zero | tr '\\0' x; echo; echo end", 0, "end"),
    ],
)
def test_end_and_last_line_of_a_program_are_kept(script: str, code: int, tail: str) -> None:
    found = run(script)
    assert (found.code, found.output_tail) == (code, tail)


def test_program_leads_a_session_and_knows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSYNC_PASSWORD", "secret")
    monkeypatch.setenv("KEPT", "a")
    found = run('echo "$RSYNC_PASSWORD,$KEPT,$OWN,$(ps -o sid= -p $$ | tr -d " "),$(pwd)"', {"OWN": "b"})
    assert found.output_tail == f",a,b,{found.pid},/"


@pytest.mark.parametrize(
    ("do", "code", "tail"),
    [
        (lambda: os.write(1, b"done\n"), 0, "done"),
        (lambda: sys.exit(7), 7, ""),
        (lambda: sys.exit("why"), 1, ""),
        (lambda: [][1], 1, None),
    ],
)
def test_function_ends_as_a_program_would(do: Callable[[], object], code: int, tail: str | None) -> None:
    found = ended(child.function(do, lambda: None))
    assert found.code == code
    assert tail is None or found.output_tail == tail


def test_function_has_none_of_our_descriptors() -> None:
    reader, writer = os.pipe()

    def tell() -> None:
        os.write(1, " ".join(os.listdir("/proc/self/fd")).encode())

    try:
        found = ended(child.function(tell, lambda: None)).output_tail.split()
        assert {"0", "1", "2"} <= set(found)
        assert len(found) == 4, "and that of the listing"
    finally:
        os.close(reader)
        os.close(writer)


def test_signal_reaches_what_the_child_has_started_too() -> None:
    started = child.program((SHELL, "-c", "sleep 60 & echo ready; wait"), {}, lambda: None)
    until = time.monotonic() + 20
    while not started.output_tail and time.monotonic() < until:
        started.read_output()
        time.sleep(0.005)
    started.signal(signal.SIGKILL)
    assert ended(started).code == -signal.SIGKILL
    started.signal(signal.SIGTERM)  # it is collected: its number may be another's by now


def test_program_that_is_not_there_leaves_nothing_open() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="missing"):
        child.program(("/missing",), {}, lambda: None)
    assert os.listdir("/proc/self/fd") == before
