"""Where the daemon of a configuration file has its run directory.

A command for a daemon needs nothing else of the file. So this module imports little: monitoring asks often.
"""

from __future__ import annotations

from inosync.config import file
from inosync.config.errors import ConfigError
from inosync.config.paths import absolute, default_rundirs


def rundirs_of(path: str) -> tuple[list[str], str]:
    """Return where a daemon for a file may have its run directory, and why this is not sure ("" if it is).

    The file is run, and may have any mistakes, because it may have got them while the daemon runs.
    """
    try:
        given = file.run(path)[1].get("rundir")
    except ConfigError as error:
        return [*_literal_rundir(path), *default_rundirs()], str(error)
    return [absolute(given)] if isinstance(given, str) and given else default_rundirs(), ""


def likely_rundirs(path: str) -> list[str]:
    """Return where the daemon for a file has its run directory most likely. The file is not run."""
    return _literal_rundir(path) or default_rundirs()[:1]


def _literal_rundir(path: str) -> list[str]:
    given = file.literal(path, "rundir")
    return [absolute(given)] if isinstance(given, str) and given else []
