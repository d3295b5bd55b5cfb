"""How a daemon comes to life: run directory, user, pid file, log, and going to the background."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

from inosync import __version__
from inosync.config.load import Config
from inosync.config.paths import relative_to, started_by_root
from inosync.console import commands, protocol
from inosync.master.wiring import make_master
from inosync.state import facts, store, trust
from inosync.state.document import StateError
from inosync.state.store import Past
from inosync.system import descriptors, libc, privileges, signals
from inosync.system import log as logs
from inosync.system.pidfile import Locked, PidFile
from inosync.system.privileges import CAP_DAC_READ_SEARCH, CAP_LEASE, NAMES, Account
from inosync.system.systemd import NotifyTarget
from inosync.text import plural

FAILED = 1
"""Exit code of a daemon that could not run."""
_UNEXPECTED = "inosync ends because of an unexpected error"
_OUR_SUFFIXES = {"rundir": (".pid", ".spool", ".sock"), "statedir": (".state", ".state.new")}
"""Of everything that a daemon has in a directory of its own."""

log = logging.getLogger(__name__)


class StartError(Exception):
    """The daemon cannot start; the text says why."""


@dataclass(frozen=True, slots=True)
class Mode:
    """How a daemon runs."""

    daemon: bool = False
    """In the background."""
    once: bool = False
    """Mirror everything once, and end."""
    verbose: bool = False
    full: bool = False
    """Compare everything at the start, whatever an earlier process has left."""


def run(config: Config, mode: Mode, manager: NotifyTarget) -> int:
    """Run a daemon until it ends; return the exit code, in the foreground of a daemon once it has started."""
    descriptors.raise_soft_limit()
    if mode.daemon:
        return _detached(lambda ready: _serve(config, mode, manager, ready))
    try:
        return _serve(config, mode, manager, lambda: None)
    except Exception:
        log.exception(_UNEXPECTED)  # the interpreter would wait for a standard error that nothing reads
        return FAILED


def _detached(serve: Callable[[Callable[[], None]], int]) -> int:
    """Run ``serve`` in the background; return once it has started (0) or failed (its exit code).

    Until then the caller sees what it prints, because stderr is let go only after it (daemon(7)).
    """
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        with open(reader, "rb") as pipe:
            outcome = pipe.read(1)
        return outcome[0] if outcome else FAILED
    os.setsid()
    if os.fork():  # the session's leader could get a terminal again
        os._exit(0)
    os.close(reader)
    with contextlib.suppress(FileNotFoundError):  # if the directory was removed, nothing is relative to it
        relative_to(os.getcwd())
    os.chdir("/")
    os.umask(0o022)
    os.set_inheritable(writer, False)

    def ready() -> None:
        descriptors.lead_standard_streams_nowhere()
        os.write(writer, bytes([0]))
        os.close(writer)

    code = FAILED
    try:
        code = serve(ready)
    except Exception:
        log.exception(_UNEXPECTED)
    finally:
        logging.shutdown()
        with contextlib.suppress(OSError):  # once it has started, this is closed
            os.write(writer, bytes([code]))
        os._exit(code)


def _serve(config: Config, mode: Mode, manager: NotifyTarget, ready: Callable[[], None]) -> int:
    """Be the daemon. ``ready`` is called when the start has succeeded; until then errors go to stderr."""
    libc.give_back_memory()
    if mode.once and config.fleet is not None:
        return _failed("--once is not for a fleet")
    if mode.once:
        config = replace(config, statedir="")
    name = protocol.instance(config.path, config.sender)
    spool = os.path.join(config.rundir, f"{name}.spool")
    try:
        lacking, stateless = _hand_over(config)
        pidfile = PidFile(os.path.join(config.rundir, f"{name}.pid"), config.path)
    except Locked as held:
        other = f" for {held.content}: set another rundir for {config.path}"
        same = held.content and os.path.realpath(held.content) == os.path.realpath(config.path)
        return _failed(f"already running with pid {held.pid}{'' if same else other} ({held.path})")
    except (OSError, LookupError, StartError) as error:
        return _failed(error)
    warnings = (*config.warnings, *filter(None, (lacking, stateless)))
    past = _past(config, mode, stateless)
    try:
        return _mirror(replace(config, warnings=warnings), past, mode, manager, spool, ready)
    finally:
        shutil.rmtree(spool, ignore_errors=True)
        pidfile.remove()


def _failed(reason: object) -> int:
    print(f"inosync: {reason}", file=sys.stderr)
    return FAILED


def _past(config: Config, mode: Mode, stateless: str) -> Past:
    """Return what an earlier process has left, if it can be used."""
    if not config.statedir or stateless:
        return Past(why=stateless or "nothing is kept over a restart")
    path = store.path_of(config.statedir, config.path)
    try:
        state = store.read(path)
    except StateError as error:
        return Past(path, None, f"the state {error} ({path})")
    if doubt := trust.doubt_state(state, os.path.realpath(config.path), facts.moment()):
        return Past(path, None, doubt)
    return Past(path, store.only_pauses(state), "of --full") if mode.full else Past(path, state)


def _mirror(
    config: Config, past: Past, mode: Mode, manager: NotifyTarget, spool: str, ready: Callable[[], None]
) -> int:
    def log_to(wanted: Config) -> None:
        logs.use(_log_handler(wanted, mode), mode.verbose, quiet=mode.once and not wanted.logfile)

    try:
        shutil.rmtree(spool, ignore_errors=True)  # of an earlier process that had the lock and was killed
        os.mkdir(spool, 0o700)
        log_to(config)
        master = make_master(config, spool, past, log_to, manager, mode.once)
        signals.let_early_pass()
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(f"{where}{error.strerror or error}")
    for warning in config.warnings:
        log.warning("%s", warning)
    log.info("inosync %s, %s: %s", __version__, config.path, plural(len(config.nodes), "node"))
    ready()
    master.run()
    log.info("stopped")
    if not mode.once:
        return 0
    commands.print_status(master.outcome)
    return commands.status_code(master.outcome["nodes"])


def _log_handler(config: Config, mode: Mode) -> logging.Handler:
    as_json = config.logformat == "json"
    if config.logfile:
        return logs.to_file(config.logfile, as_json)
    if mode.daemon:
        try:
            return logs.to_syslog(as_json=as_json)
        except OSError as error:
            print(f"inosync: no syslog ({error}): set logfile to have a log", file=sys.stderr)
            return logging.NullHandler()
    return logs.to_stderr(as_json)


# The user, and what is handed over to it ---------------------------------------------------------------


def new_user(config: Config) -> Account | None:
    """Return the user to become, or None if this process is that user already; LookupError if none is so."""
    user = privileges.account(config.ruser) if config.ruser else None
    return None if user is None or user.uid == os.geteuid() else user


def become(user: Account) -> str:
    """Become a user who can read everything but write only its own; return what it lacks ("" if nothing)."""
    lost = privileges.become(user, (CAP_DAC_READ_SEARCH, CAP_LEASE), (CAP_DAC_READ_SEARCH,))
    if not lost:
        return ""
    lacking = ", ".join(NAMES[number] for number in lost)
    return f"ruser: {user.name} goes without {lacking}, which root lacks here"


def _hand_over(config: Config) -> tuple[str, str]:
    """Make the directories of our own, and become ``ruser``.

    Return what that user lacks, and why no state can be kept; empty if nothing is wrong.
    """
    user = new_user(config)
    make_directory("rundir", config.rundir, user)
    stateless = _make_statedir(config.statedir, user) if config.statedir else ""
    if user is None:
        return "", stateless
    if config.logfile:
        _give_log(config.logfile, user)
    started_by_root()
    return become(user), stateless


def _make_statedir(path: str, user: Account | None) -> str:
    """Make the state directory; return why it cannot be used, which is no reason not to mirror."""
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        make_directory("statedir", path, user)
    except (OSError, StartError) as error:
        why = f"statedir {path}: {error.strerror}" if isinstance(error, OSError) else str(error)
        return f"{why}: no state is kept, and each start makes full mirrors"
    return ""


def make_directory(setting: str, path: str, user: Account | None = None) -> None:
    """Make a directory of our own, closed to others; StartError or OSError if it cannot be one.

    ``setting`` is the setting that names it. Its owner is ``user``, or the user of this process. A directory
    that exists is changed only if nothing else uses it, because "/tmp" and "/etc" have to stay what they are.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise StartError(f"{setting} {path} is not a directory") from None
        if error.errno == errno.EACCES:
            raise StartError(f"{setting} {path} belongs to others: set another {setting}") from None
        raise
    try:
        status = os.fstat(directory)
        owner, mode = status.st_uid, stat.S_IMODE(status.st_mode)
        if owner not in (os.geteuid(), os.geteuid() if user is None else user.uid):
            raise StartError(f"{setting} {path} belongs to user {owner}: set another {setting}")
        hint = f"set it to a directory for inosync alone, such as {os.path.join(path, 'inosync')}"
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StartError(f"{setting} {path} is writable by others: {hint}")
        new_owner = user if user is not None and owner != user.uid else None
        if mode == 0o700 and new_owner is None:
            return
        names = os.listdir(directory)
        if foreign := sorted(name for name in names if not name.endswith(_OUR_SUFFIXES[setting])):
            raise StartError(f"{setting} {path} has {foreign[0]!r}, which is not inosync's: {hint}")
        os.fchmod(directory, 0o700)
        if new_owner is not None:
            # All of it is of earlier processes of ours, because only the owner can put anything there.
            for name in names:
                os.chown(name, new_owner.uid, new_owner.gid, dir_fd=directory, follow_symlinks=False)
            os.fchown(directory, new_owner.uid, new_owner.gid)
    finally:
        os.close(directory)


def _give_log(path: str, user: Account) -> None:
    """Make the log file, and let the user write to it. A link is left as it is."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(path, flags, 0o640)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return
        raise
    try:
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid != user.uid:
            os.fchown(file, user.uid, -1)
    finally:
        os.close(file)
