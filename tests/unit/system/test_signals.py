"""Signals as bytes in a pipe: tried in processes of their own, since handlers are of a whole process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import inosync

PRELUDE = """
import os, select, signal, sys
from inosync.system import signals
from inosync.system.signals import Signals
HUP, TERM, USR1 = signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1
me = os.getpid()
"""


def run(script: str) -> None:
    """Run a script whose assertions say what has to hold."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script],
        cwd=Path(inosync.__file__).parents[1],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_signals_caught_are_returned_once_each_in_order() -> None:
    run("""
caught = Signals((HUP, TERM, USR1))
assert caught.caught() == []
for number in (USR1, HUP, USR1, TERM, HUP):
    os.kill(me, number)
assert select.select([caught], [], [], 30)[0]
assert caught.caught() == [USR1, HUP, TERM]
assert caught.caught() == []
assert not select.select([caught], [], [], 0)[0]
os.kill(me, HUP)
assert caught.caught() == [HUP]
""")


def test_signal_ends_the_wait_of_a_loop() -> None:
    run("""
caught = Signals((HUP,))
signal.signal(signal.SIGALRM, lambda *_: os.kill(me, HUP))
signal.setitimer(signal.ITIMER_REAL, 0.05)
assert select.select([caught], [], [], 50)[0]
assert HUP in caught.caught()
""")


def test_signals_in_a_storm_never_block() -> None:
    run("""
caught = Signals((HUP, TERM))
for _ in range(100_000):
    os.kill(me, HUP)
found = []
while numbers := caught.caught():
    found += numbers
assert set(found) == {HUP}
os.kill(me, TERM)
assert caught.caught() == [TERM]
""")


def test_signals_pipe_is_closed_on_exec_and_listed_for_children() -> None:
    run("""
caught = Signals((HUP,))
assert caught.fileno() in caught.descriptors()
assert len(set(caught.descriptors())) == 2
assert not any(os.get_inheritable(fd) for fd in caught.descriptors())
""")


@pytest.mark.parametrize("number", ["HUP", "TERM", "USR1", "signal.SIGINT"])
def test_reset_gives_signals_their_default_action(number: str) -> None:
    run(f"""
caught = Signals((HUP, TERM, USR1, signal.SIGINT))
pid = os.fork()
if pid == 0:
    signals.reset()
    os.kill(os.getpid(), {number})
    os._exit(0)
_, status = os.waitpid(pid, 0)
assert os.WTERMSIG(status) == {number}, status
assert caught.caught() == []
""")


def test_reset_ignores_given_signals_and_makes_a_broken_pipe_an_error() -> None:
    run("""
caught = Signals((HUP, TERM, USR1))
pid = os.fork()
if pid == 0:
    signals.reset(ignored=(HUP, USR1))
    os.kill(os.getpid(), HUP)
    os.kill(os.getpid(), USR1)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        os.write(writer, b"x")
    except BrokenPipeError:
        os._exit(7)
    os._exit(1)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 7
assert caught.caught() == []
""")


def test_signals_can_be_caught_again_after_reset() -> None:
    run("""
first = Signals((HUP, TERM))
pid = os.fork()
if pid == 0:
    signals.reset()
    second = Signals((TERM,))
    os.kill(os.getpid(), TERM)
    os._exit(0 if second.caught() == [TERM] else 1)
_, status = os.waitpid(pid, 0)
assert status == 0, status
assert first.caught() == []
""")
