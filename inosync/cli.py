"""The command line: options, exit codes, and how a daemon comes to life. The only reader of sys.argv."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn

from inosync import __version__, check
from inosync.config.errors import ConfigError
from inosync.config.load import Config, load, rundirs
from inosync.config.paths import relative_to, started_by_root
from inosync.console import commands, protocol
from inosync.master.master import Master
from inosync.startup import StartError, become, give_log, make_rundir
from inosync.system import log as logs
from inosync.system import privileges, systemd
from inosync.system.pidfile import Locked, PidFile
from inosync.text import one_line, plural

DEFAULT_CONFIG = "/etc/inosync/default.py"

_EARLY = (signal.SIGHUP, signal.SIGUSR1)

OK = 0
FAILED = 1
USAGE = 64
"""EX_USAGE of sysexits(3)."""
CONFIG = 78
"""EX_CONFIG of sysexits(3)."""

log = logging.getLogger(__name__)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}; try {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The options: those of inosync 0.2.3, and more."""
    made = _Parser(
        prog="inosync",
        usage="%(prog)s [OPTIONS]\n       %(prog)s [-c FILE] -s COMMAND [NODE] [OPTIONS]",
        description="Mirror directories to many remote nodes in near real time, with inotify and rsync.",
        epilog="Signals: HUP reloads the configuration, USR1 reopens the log file, USR2 accepts what "
        "the guard halted, TERM and INT stop. "
        "Exit codes: 0 stopped, 1 could not run, 64 wrong usage, 78 wrong configuration, or for -t a node "
        "that cannot be mirrored to; of -s and --once: 0 done, or "
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
        dest="pretend",
        action="store_true",
        help="show each rsync call, as a line for a shell, and make none",
    )
    made.add_argument(
        "-t",
        dest="test",
        action="store_true",
        help="check the configuration, show what it comes to, and try each node with a dry run",
    )
    made.add_argument(
        "--once",
        action="store_true",
        help="mirror everything in full, print a summary, and exit (0: all nodes are level)",
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
        "node", metavar="NODE", nargs="?", help="one node, instead of all (status, top, flush); else needed"
    )
    steering.add_argument("--json", action="store_true", help="print what the daemon says as JSON")
    steering.add_argument(
        "--timeout", metavar="S", type=_seconds, help="of flush: give up after S seconds (default: never)"
    )
    steering.add_argument(
        "--lag",
        metavar="S",
        type=_seconds,
        default=0.0,
        help="of status: who is up to S seconds behind counts as level (default: 0)",
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
    """Run inosync; returns the exit code."""
    _occupy_standard_streams()
    manager = systemd.take(os.environ)
    options = parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    if wrong := _wrong_usage(options):
        parser().error(wrong)
    # Held back until the master can take them: a reload that is asked for too early must not be our end.
    signal.pthread_sigmask(signal.SIG_BLOCK, _EARLY)
    try:
        path = os.path.abspath(options.config)
    except FileNotFoundError:
        print("inosync: the current directory is gone: name the configuration from /", file=sys.stderr)
        return CONFIG
    if options.command is not None:
        return _steer(options, path)
    try:
        config = load(path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return CONFIG
    if options.test:
        return _test(config)
    if options.daemon:
        return _detached(lambda ready: _serve(config, options, ready, manager))
    return _serve(config, options, lambda: None, manager)


def _wrong_usage(options: argparse.Namespace) -> str:
    """What options say that goes not together; empty if all is well."""
    command, node = options.command, options.node
    if command is None:
        steering = {"--json": options.json, "--timeout": options.timeout is not None, "--lag": options.lag}
        if node is not None:
            return f"{node!r} is no option, and there is no -s COMMAND before it"
        if wrong := next((f"{name} belongs to -s COMMAND" for name, given in steering.items() if given), ""):
            return wrong
        ways = {"-t": options.test, "-d": options.daemon, "-p": options.pretend, "--once": options.once}
        chosen = [way for way, given in ways.items() if given]
        together = chosen in ([], ["-d", "-p"])
        return "" if together or len(chosen) == 1 else f"{' and '.join(chosen)} do not go together"
    if command not in protocol.COMMANDS:
        return protocol.unknown_command(command)
    if options.daemon or options.pretend or options.test or options.once:
        return "-s asks a daemon that runs; -d, -p, -t and --once are for one that does not"
    if node is None and command in protocol.NEED_A_NODE:
        return f"-s {command} of which node? Say its name, or {protocol.ALL}"
    if node is not None and command not in protocol.TAKE_A_NODE:
        return f"-s {command} takes no node"
    if options.timeout is not None and command != "flush":
        return "--timeout belongs to -s flush"
    if options.lag and command != "status":
        return "--lag belongs to -s status"
    return ""


def _steer(options: argparse.Namespace, path: str) -> int:
    """Have the daemon for that configuration do something."""
    places, doubt = rundirs(path)
    if doubt:
        print(f"{doubt}\ninosync: looking in {' and '.join(map(one_line, places))}", file=sys.stderr)
    order = commands.Order(options.command, options.node, options.json, options.timeout, options.lag)
    code = commands.run(order, [protocol.socket_path(rundir, path) for rundir in places])
    if code == protocol.NOT_RUNNING and doubt:
        print("inosync: it may run with a run directory that cannot be told from that file", file=sys.stderr)
        return CONFIG
    return code


def _test(config: Config) -> int:
    """Show what the configuration comes to, and try the nodes, as the user who mirrors."""
    try:
        check.show_config(config)
        user = privileges.account(config.ruser) if config.ruser else None
        if user is not None and user.uid != os.geteuid() and (lacking := become(user)):
            print(f"warning: {lacking}")
        return OK if check.try_nodes(config) else CONFIG
    except (OSError, LookupError) as error:
        print(f"inosync: {error}", file=sys.stderr)
        return FAILED


def _occupy_standard_streams() -> None:
    """Whoever starts us with streams closed would have them taken for the next files that are opened."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _serve(
    config: Config, options: argparse.Namespace, ready: Callable[[], None], manager: systemd.ServiceManager
) -> int:
    """Be the daemon. ``ready`` is called when the start has succeeded; StartError text goes to stderr."""
    name = os.path.basename(config.path).removesuffix(".py")
    try:
        lacking = _hand_over(config)
        pidfile = PidFile(os.path.join(config.rundir, f"{name}.pid"), config.path)
    except Locked as held:
        other = f", for {held.content}: set another rundir" if held.content != config.path else ""
        print(f"inosync: already running with pid {held.pid}{other} ({held.path})", file=sys.stderr)
        return FAILED
    except (OSError, LookupError, StartError) as error:
        print(f"inosync: {error}", file=sys.stderr)
        return FAILED
    if lacking:
        config = replace(config, warnings=(*config.warnings, lacking))
    spool = os.path.join(config.rundir, f"{name}.spool")
    try:
        code = _mirror(config, options, spool, ready, manager)
    finally:
        shutil.rmtree(spool, ignore_errors=True)
        pidfile.remove()
    return code


def _hand_over(config: Config) -> str:
    """Make the run directory, and be ``ruser`` from here on; what that user lacks, for the log."""
    user = privileges.account(config.ruser) if config.ruser else None
    if user is None or user.uid == os.geteuid():
        make_rundir(config.rundir)
        return ""
    make_rundir(config.rundir, user)
    if config.logfile:
        give_log(config.logfile, user)
    started_by_root()
    return become(user)


def _mirror(
    config: Config,
    options: argparse.Namespace,
    spool: str,
    ready: Callable[[], None],
    manager: systemd.ServiceManager,
) -> int:
    def log_to(wanted: Config) -> None:
        logs.use(_handler(wanted, options.daemon), options.verbose, quiet=options.once and not wanted.logfile)

    try:
        shutil.rmtree(spool, ignore_errors=True)  # of an earlier process, which had the lock and was killed
        os.mkdir(spool, 0o700)
        log_to(config)
        pretend = _pretending(options.daemon) if options.pretend else None
        master = Master(config, spool, log_to, pretend, manager=manager, once=options.once)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _EARLY)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"inosync: {where}{error.strerror or error}", file=sys.stderr)
        return FAILED
    for warning in config.warnings:
        log.warning("%s", warning)
    nodes = plural(len(config.nodes), "node")
    pretended = ", pretending: no rsync is called" if options.pretend else ""
    log.info("inosync %s, %s: %s%s", __version__, config.path, nodes, pretended)
    ready()
    master.run()
    log.info("stopped")
    return commands.summarised(master.outcome) if options.once else OK


def _handler(config: Config, daemon: bool) -> logging.Handler:
    as_json = config.logformat == "json"
    if config.logfile:
        return logs.to_file(config.logfile, as_json)
    if daemon:
        try:
            return logs.to_syslog(as_json=as_json)
        except OSError as error:
            print(f"inosync: no syslog ({error}): set logfile to have a log", file=sys.stderr)
            return logging.NullHandler()
    return logs.to_stderr(as_json)


def _pretending(daemon: bool) -> Callable[[str], None]:
    def show(line: str) -> None:
        if daemon:
            log.info("would call: %s", line)
        else:
            try:
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
            except BrokenPipeError:
                log.error("nobody reads the standard output any more")

    return show


def _detached(serve: Callable[[Callable[[], None]], int]) -> int:
    """Run ``serve`` as a daemon; return when it has started (0), or has failed to (its exit code).

    What it prints before it is ready is seen by the caller: stderr is let go only then. daemon(7).
    """
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        with open(reader, "rb") as pipe:
            outcome = pipe.read(1)
        return outcome[0] if outcome else FAILED
    os.setsid()
    if os.fork():  # the session's leader could get a terminal again
        os._exit(OK)
    os.close(reader)
    with contextlib.suppress(FileNotFoundError):  # it was removed under us: nothing is relative to it
        relative_to(os.getcwd())
    os.chdir("/")
    os.umask(0o022)
    os.set_inheritable(writer, False)

    def ready() -> None:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.close(null)
        os.write(writer, bytes([OK]))
        os.close(writer)

    code = FAILED
    try:
        code = serve(ready)
    except Exception:
        log.exception("inosync ends because of a fault of its own")
    finally:
        logging.shutdown()
        with contextlib.suppress(OSError):  # it had started: nobody listens any more
            os.write(writer, bytes([code]))
        os._exit(code)
