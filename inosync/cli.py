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

from inosync import __version__
from inosync import config as configs
from inosync.config import Config, ConfigError
from inosync.handover import StartError, become, give_log, make_rundir
from inosync.master import Master
from inosync.system import log as logs
from inosync.system import privileges
from inosync.system.pidfile import Locked, PidFile

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
    """The options of inosync 0.2.3."""
    made = _Parser(
        prog="inosync",
        usage="%(prog)s [OPTIONS]",
        description="Mirror directories to many remote nodes in near real time, with inotify and rsync.",
        epilog="Signals: HUP reloads the configuration, USR1 reopens the log file, USR2 accepts what "
        "the guard halted, TERM and INT stop. "
        "Exit codes: 0 stopped, 1 could not run, 64 wrong usage, 78 wrong configuration.",
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
    made.add_argument("-v", dest="verbose", action="store_true", help="print debugging information")
    made.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run inosync; returns the exit code."""
    _occupy_standard_streams()
    options = parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    # Held back until the master can take them: a reload that is asked for too early must not be our end.
    signal.pthread_sigmask(signal.SIG_BLOCK, _EARLY)
    try:
        path = os.path.abspath(options.config)
    except FileNotFoundError:
        print("inosync: the current directory is gone: name the configuration from /", file=sys.stderr)
        return CONFIG
    try:
        config = configs.load(path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return CONFIG
    if options.daemon:
        return _detached(lambda ready: _serve(config, options, ready))
    return _serve(config, options, lambda: None)


def _occupy_standard_streams() -> None:
    """Whoever starts us with streams closed would have them taken for the next files that are opened."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _serve(config: Config, options: argparse.Namespace, ready: Callable[[], None]) -> int:
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
        code = _mirror(config, options, spool, ready)
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
    configs.begun_by_root()
    return become(user)


def _mirror(config: Config, options: argparse.Namespace, spool: str, ready: Callable[[], None]) -> int:
    def log_to(wanted: Config) -> None:
        logs.use(_handler(wanted, options.daemon), options.verbose)

    try:
        shutil.rmtree(spool, ignore_errors=True)  # of an earlier process, which had the lock and was killed
        os.mkdir(spool, 0o700)
        log_to(config)
        pretend = _pretending(options.daemon) if options.pretend else None
        master = Master(config, spool, log_to, pretend)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _EARLY)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"inosync: {where}{error.strerror or error}", file=sys.stderr)
        return FAILED
    for warning in config.warnings:
        log.warning("%s", warning)
    nodes = f"{len(config.nodes)} node{'s' * (len(config.nodes) != 1)}"
    pretended = ", pretending: no rsync is called" if options.pretend else ""
    log.info("inosync %s, %s: %s%s", __version__, config.path, nodes, pretended)
    ready()
    master.run()
    log.info("stopped")
    return OK


def _handler(config: Config, daemon: bool) -> logging.Handler:
    if config.logfile:
        return logs.to_file(config.logfile)
    if daemon:
        try:
            return logs.to_syslog()
        except OSError as error:
            print(f"inosync: no syslog ({error}): set logfile to have a log", file=sys.stderr)
            return logging.NullHandler()
    return logs.to_stderr()


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
        configs.relative_to(os.getcwd())
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
