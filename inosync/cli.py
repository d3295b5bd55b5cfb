"""The command line: options, what they mean together, and exit codes. The only reader of sys.argv.

Monitoring and deploy scripts call it all day with a command for a daemon. So what only a daemon, or -t,
needs is imported where it is needed.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from inosync import __version__
from inosync.config.rundirs import likely_rundirs, rundirs_of
from inosync.console import commands, protocol
from inosync.console.protocol import CONFIG, OK, USAGE
from inosync.system import descriptors, signals
from inosync.text import one_line

if TYPE_CHECKING:
    from inosync.config.load import Config

DEFAULT_CONFIG = "/etc/inosync/default.py"
FAILED = 1
"""Exit code: it could not run."""
UNAVAILABLE = 69
"""EX_UNAVAILABLE of sysexits(3): a node cannot be mirrored to."""
PATIENCE_SECONDS = 1.0
"""How long -s waits before it says what it waits for."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}; try {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """Return a parser of the options: those of inosync 0.2.3, and more."""
    made = _Parser(
        prog="inosync",
        usage="%(prog)s [OPTIONS]\n       %(prog)s [-c FILE] -s COMMAND [NODE] [OPTIONS]",
        description="Mirror directories to many remote nodes in near real time, with inotify and rsync.",
        epilog="Signals: HUP reloads the configuration, USR1 reopens the log file, USR2 accepts what "
        "the guard halted, TERM and INT stop. "
        "Exit codes: 0 stopped, 1 could not run, 64 wrong usage, 78 wrong configuration; of -t and -p: "
        "69 a node cannot be mirrored to; of -s and --once: 0 done, or "
        "all nodes are level, 1 some are behind, 2 some have an error, 3 not running, 77 not allowed.",
        allow_abbrev=False,
    )
    made.add_argument(
        "-c",
        dest="config",
        metavar="FILE",
        default=DEFAULT_CONFIG,
        help="load configuration from FILE (default: %(default)s)",
    )
    made.add_argument("-d", dest="daemon", action="store_true", help="daemonize (fork to background)")
    made.add_argument(
        "-p",
        dest="calls",
        action="store_true",
        help="show the rsync call for each node and wpath, as a line for a shell, and what it would do now",
    )
    made.add_argument(
        "-t",
        dest="test",
        action="store_true",
        help="check the configuration, show the resulting settings, and try each node with a dry run",
    )
    made.add_argument(
        "--offline", action="store_true", help="with -t: check the configuration alone, and try no node"
    )
    made.add_argument(
        "--init",
        metavar="FILE",
        nargs="?",
        const="",
        help="write a commented configuration to FILE, or to that of -c, if there is none",
    )
    made.add_argument(
        "--install-files",
        dest="prefix",
        metavar="DIR",
        help="put units, completion and man pages in place below DIR, such as /usr/local",
    )
    made.add_argument(
        "--once",
        action="store_true",
        help="mirror everything in full, print a summary, and exit (0: all nodes are level)",
    )
    made.add_argument(
        "--full",
        action="store_true",
        help="compare everything at the start, whatever is known from before a restart; pauses stay",
    )
    made.add_argument(
        "--sender",
        metavar="NAME",
        default="",
        help="be the sender NAME of a fleet; with -s: ask that one, if it runs here",
    )
    made.add_argument("-v", dest="verbose", action="store_true", help="print debugging information")
    steering = made.add_argument_group(
        "asking and steering the daemon that runs for FILE",
        "NODE is a node as written in rnodes, or its name. "
        + " ".join(f"{name}: {what}." for name, what in protocol.COMMANDS.items()),
    )
    steering.add_argument(
        "-s", dest="command", metavar="COMMAND", help=f"one of: {', '.join(protocol.COMMANDS)}"
    )
    steering.add_argument(
        "node",
        metavar="NODE",
        nargs="?",
        help="one node, instead of all (status, top, events, flush); else needed",
    )
    steering.add_argument("--json", action="store_true", help="print what the daemon says as JSON")
    steering.add_argument(
        "--timeout",
        metavar="S",
        type=_seconds,
        help="of what waits (flush, diff, --wait): give up after S seconds (default: never); of hold: end it",
    )
    steering.add_argument(
        "--stage",
        metavar="N",
        type=int,
        help="of flush: wait for the nodes of this stage only, from 1 on",
    )
    steering.add_argument(
        "--wait", action="store_true", help="of verify and resync: wait, and print what was found"
    )
    steering.add_argument(
        "--lag",
        metavar="S",
        type=_seconds,
        default=0.0,
        help="of status: treat a lag of up to S seconds as level (default: 0)",
    )
    made.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return made


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise ValueError
    return seconds


_seconds.__name__ = "number of seconds"  # what argparse calls a text that is none


def main(arguments: Sequence[str] | None = None) -> int:
    """Run inosync; return the exit code."""
    descriptors.occupy_standard_streams()
    options = parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    if mistake := _usage_mistake(options):
        parser().error(mistake)
    try:
        path = os.path.abspath(options.config)
    except FileNotFoundError:
        print("inosync: the current directory is gone: name the configuration from /", file=sys.stderr)
        return CONFIG
    if options.command is not None:
        return _send_command(options, path)
    if options.init is not None:
        return _init(os.path.abspath(options.init) if options.init else path)
    if options.prefix is not None:
        return _install_files(os.path.abspath(options.prefix))
    return _run_daemon(options, path)


def _usage_mistake(options: argparse.Namespace) -> str:
    """Return why these options conflict, or "" if they do not."""
    if options.command is None:
        return _mistake_without_command(options)
    command, node = options.command, options.node
    if command not in protocol.COMMANDS:
        return protocol.unknown_command(command)
    of_a_daemon = (options.daemon, options.calls, options.test, options.once, options.full)
    if any(of_a_daemon) or options.init is not None or options.prefix is not None:
        return "-s asks a daemon that runs; -d, -p, -t, --init, --once and --full are for one that does not"
    if node is None and command in protocol.NODE_REQUIRED:
        return f"-s {command} of which node? Say its name, or {protocol.ALL}"
    if node is not None and command not in protocol.NODE_ALLOWED:
        return f"-s {command} takes no node"
    if options.wait and command not in protocol.CAN_WAIT:
        return f"--wait belongs to -s {' and -s '.join(protocol.CAN_WAIT)}"
    waits = options.wait or command not in protocol.CAN_WAIT
    if options.timeout is not None and not (command in protocol.HAVE_TIMEOUT and waits):
        return "--timeout belongs to -s flush, -s diff, -s hold, and --wait"
    if options.lag and command != "status":
        return "--lag belongs to -s status"
    if options.stage is not None and (command != "flush" or node is not None):
        return "--stage belongs to -s flush, without a node"
    return ""


def _mistake_without_command(options: argparse.Namespace) -> str:
    if options.node is not None:
        return f"{options.node!r} is no option, and there is no -s COMMAND before it"
    of_commands = {
        "--wait": options.wait,
        "--json": options.json,
        "--timeout": options.timeout is not None,
        "--lag": options.lag,
        "--stage": options.stage is not None,
    }
    for name, given in of_commands.items():
        if given:
            return f"{name} belongs to -s COMMAND"
    if options.offline and not options.test:
        return "--offline belongs to -t"
    if options.sender and (options.once or options.init is not None or options.prefix is not None):
        return "--sender goes together with -d, -t, -p, -v and -s only"
    ways = {
        "--init": options.init is not None,
        "--install-files": options.prefix is not None,
        "-t": options.test,
        "-d": options.daemon,
        "-p": options.calls,
        "--once": options.once,
    }
    chosen = [way for way, given in ways.items() if given]
    if options.full and (chosen and not options.daemon):
        return f"--full and {chosen[0]} do not go together"
    return "" if len(chosen) < 2 else f"{' and '.join(chosen)} do not go together"


def _send_command(options: argparse.Namespace, path: str) -> int:
    """Have the daemon of a configuration do something."""
    command = commands.Command(
        options.command,
        options.node,
        options.json,
        options.timeout,
        options.lag,
        options.stage,
        options.wait,
    )
    doubts: list[str] = []
    sockets = (
        protocol.socket_path(rundir, path, options.sender) for rundir in _possible_rundirs(path, doubts)
    )
    code = commands.run(command, sockets, path)
    if code == protocol.NOT_RUNNING and doubts:
        print("inosync: its run directory is not known for sure: it may run all the same", file=sys.stderr)
        return CONFIG
    return code


def _possible_rundirs(path: str, doubts: list[str]) -> Iterator[str]:
    """Yield the run directories to look in; the file is run only to find further ones."""
    likely = likely_rundirs(path)
    yield from likely
    hint = f"inosync: running {path}, to find its run directory ..."
    slow = threading.Timer(PATIENCE_SECONDS, print, [hint], {"file": sys.stderr})
    slow.start()
    try:
        rundirs, doubt = rundirs_of(path)
    finally:
        slow.cancel()
    if doubt:
        doubts.append(doubt)
        print(f"{doubt}\ninosync: looking in {' and '.join(map(one_line, rundirs))}", file=sys.stderr)
    yield from (rundir for rundir in rundirs if rundir not in likely)


def _init(path: str) -> int:
    from inosync.config.example import write_example

    shown = one_line(path)
    try:
        write_example(path)
    except OSError as problem:
        what = f"{one_line(problem.filename or path)}: {problem.strerror}"
        print(f"inosync: {what}; nothing is written", file=sys.stderr)
        return FAILED
    print(f"{shown} is written. Set wpaths, rpaths and rnodes in it, then: inosync -c {shown} -t")
    return OK


def _install_files(prefix: str) -> int:
    from inosync.config import install_files

    files = install_files.sources()
    try:
        for written in install_files.install(prefix, files, install_files.program()):
            print(f"{one_line(written)} is written")
    except OSError as problem:
        print(f"inosync: {one_line(problem.filename or prefix)}: {problem.strerror}", file=sys.stderr)
        return FAILED
    if lacking := sorted(install_files.PLACES.keys() - files):
        names = ", ".join(lacking)
        print(f"inosync: {names}: not in this installation; bin/docs man makes man pages", file=sys.stderr)
    print("Then: systemctl daemon-reload")
    return OK


def _run_daemon(options: argparse.Namespace, path: str) -> int:
    from inosync import startup
    from inosync.config.errors import ConfigError
    from inosync.config.load import load
    from inosync.system import systemd

    manager = systemd.take_target(os.environ)
    if not (options.test or options.calls):
        signals.hold_back_early()
    try:
        config = load(path, options.sender)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return CONFIG
    if options.test or options.calls:
        return _try_out(config, options)
    mode = startup.Mode(options.daemon, options.once, options.verbose, options.full)
    return startup.run(config, mode, manager)


def _try_out(config: Config, options: argparse.Namespace) -> int:
    """Show the resulting configuration or its calls, and try the nodes as the user that mirrors."""
    from inosync import check, startup
    from inosync.system import descriptors

    try:
        if config.fleet is not None and config.fleet.me:
            me = config.fleet.me
            served = (node for node in config.fleet.nodes if node.senders is None or me in node.senders)
            config = replace(config, nodes=tuple(served))
        if options.test:
            check.show_config(config)
        if options.offline:
            return OK
        user = startup.new_user(config)
        if user is not None and (lacking := startup.become(user)):
            print(f"warning: {lacking}", file=sys.stdout if options.test else sys.stderr)
        return OK if (check.try_nodes if options.test else check.show_calls)(config) else UNAVAILABLE
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has seen enough
        descriptors.lead_standard_streams_nowhere()
        return FAILED
    except (OSError, LookupError) as error:
        print(f"inosync: {error}", file=sys.stderr)
        return FAILED
