"""Tries a target with dry runs, which change nothing there (``inosync -t``)."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace

from inosync.rsync import probe
from inosync.rsync.argv import TransferSettings, names_input
from inosync.rsync.probe import ProbeResult
from inosync.rsync.target import Transport, parent, transport

ANSWER_SECONDS = 60.0
"""Time that a node has to answer."""


def try_target(settings: TransferSettings) -> ProbeResult:
    """Return whether a tree can be mirrored to its target."""
    ask_shell = probe.may_have_shell(settings)
    found, has_answered = _run(settings, ask_shell)
    if ask_shell and not has_answered:  # there may be a forced command
        if found.reason:
            found, _ = _run(settings, False)
        if not found.reason:
            found = _beside_another(settings, found)
    if found.reason:
        return found
    if transport(settings.target) is Transport.LOCAL:
        return _local_finding(settings, found)
    if found.is_new and not has_answered:
        return _with_parent(settings, found)
    return found


def _run(settings: TransferSettings, ask_shell: bool) -> tuple[ProbeResult, bool]:
    """Run one dry run; return what it found, and whether a shell on the node answered."""
    try:
        with _started(settings, ask_shell) as process:
            stdout, stderr = process.communicate(names_input(probe.NAMES), ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        return ProbeResult(f"no answer within {ANSWER_SECONDS:g} s"), False
    except OSError as problem:
        return ProbeResult(f"{problem.filename or settings.rsync}: {problem.strerror}"), False
    lines = stderr.splitlines()
    found = probe.finding(settings, process.returncode, stdout.splitlines(), lines)
    return found, probe.shell_answered(lines)


@contextlib.contextmanager
def _started(settings: TransferSettings, ask_shell: bool) -> Iterator[subprocess.Popen[bytes]]:
    """Start a dry run that waits for its names. It is gone after the block."""
    with subprocess.Popen(
        probe.probe_argv(settings, ask_shell),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env={**os.environ, "LC_ALL": "C"},
        start_new_session=True,  # without a terminal nothing can ask for a password
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _beside_another(settings: TransferSettings, found: ProbeResult) -> ProbeResult:
    """Try again while another rsync waits on the node, which rrsync without -no-lock refuses."""
    with _started(settings, False) as waiting:
        assert waiting.stdout is not None
        if not any(probe.has_connected([line.rstrip()]) for line in waiting.stdout):
            return found  # whatever that was: alone it has worked
        beside, _ = _run(settings, False)
        return beside


def _with_parent(settings: TransferSettings, found: ProbeResult) -> ProbeResult:
    """Have the parent of a target that does not exist tried as well: rsync makes the last directory only."""
    above = parent(settings.target)
    if above is None or not _run(replace(settings, target=above), False)[0].is_new:
        return found
    return ProbeResult(
        f"{above}: does not exist there, and rsync makes the last directory only", found.version
    )


def _local_finding(settings: TransferSettings, found: ProbeResult) -> ProbeResult:
    place = settings.target.rstrip("/") or "/"
    is_new = not os.path.lexists(place)
    if is_new:
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        is_there = os.path.lexists(place)
        problem = "is no directory" if is_there else "does not exist, and rsync makes the last directory only"
        return ProbeResult(f"{place}: {problem}", found.version)
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
        return ProbeResult(f"{place}: cannot be written", found.version)
    return ProbeResult("", found.version, "", is_new)
