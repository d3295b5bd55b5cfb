"""Asks ssh how it is configured for a node, and whether connections can be shared through it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping

from inosync.rsync import ssh
from inosync.rsync.ssh import Ways, Words
from inosync.rsync.target import Transport, transport
from inosync.system import process

_ASK_SECONDS = 5.0
"""How long ssh may take for all its answers: it may run programs (Match exec) and look up names."""


class _NoAnswer(Exception):
    """ssh takes too long."""


def ways(node: str, extra: Words, directory: str, environ: Mapping[str, str]) -> Ways:
    """Return how ssh is called for a node; ``directory`` is for the socket of a shared connection.

    The user's own remote shell is left alone unless it proves to be OpenSSH. The others have other options.
    """
    if transport(node) is not Transport.SSH:
        return Ways()
    shell = ssh.chosen(extra, environ)
    words = ("ssh",) if shell is None else ssh.split(shell)
    destination = ssh.destination(node, extra, *words[:1])
    if not destination or not ssh.takes_options(words):
        return Ways()
    ask = _Questions().ask
    path = ssh.control_path(directory, os.getpid())
    try:
        if not ssh.is_named_ssh(words[0]) and not ssh.is_openssh(ask(ssh.version_argv(words))):
            return Ways()
        found = ssh.parse(ask(ssh.query_argv(words, destination)))
        if not found:
            return Ways()  # no ssh, or one without these options, or one that will say itself what is wrong
        if shell is None:
            return ssh.default_ways(found, path, destination)
        for is_first in (False, True) if path else ():
            call = ssh.through(words, ssh.proof_path(path), is_first=is_first)
            answer = ssh.parse(ask(ssh.query_argv(call, destination)))
            if ssh.is_through(answer, path, os.uname().nodename, os.getuid()):
                return ssh.chosen_ways(words, found, path, destination, is_first=is_first)
        return Ways()
    except _NoAnswer:
        return ssh.default_ways({}, "", destination) if shell is None else Ways()


class _Questions:
    """Calls that only print something, within a common time."""

    def __init__(self) -> None:
        self._until = time.monotonic() + _ASK_SECONDS

    def ask(self, argv: Words) -> bytes:
        """Return what a program prints; nothing if it fails or is not there. _NoAnswer if that takes long."""
        try:
            child = process.spawn(argv)
        except OSError:
            return b""
        with child:
            try:
                output, errors = child.communicate(timeout=max(self._until - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                process.send(process.family(child.pid), signal.SIGKILL)
                raise _NoAnswer from None
        return (output or errors) if child.returncode == 0 else b""
