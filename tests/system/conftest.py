"""Fixtures for real nodes and real daemons, which end by pid with their test or the session."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest
from support.daemon import CHECKOUT, LAUNCHER, Daemon, MakeDaemon, Patched
from support.network import Network, NoNetwork
from support.rsyncd import MakeRsyncd, Rsyncd
from support.service import Detached, Service, make_service
from support.sshd import Sshd
from support.warm import AllTransports, Location, MakeWarm, Warm, set_up, set_up_all_transports

PATCHED = """
import sys
sys.path.insert(0, {checkout!r})
{patch}
from inosync import cli
cli.main()
"""


@pytest.fixture
def rsyncd(tmp_path: Path) -> Iterator[MakeRsyncd]:
    """Rsync daemons on loopback, as many as a test wants."""
    made: list[Rsyncd] = []

    def make(
        modules: Mapping[str, Path],
        user: str = "",
        password: str = "",
        options: Mapping[str, str] | None = None,
    ) -> Rsyncd:
        server = Rsyncd(tmp_path / f"rsyncd-{len(made)}", modules, user, password, options)
        made.append(server)
        server.start()
        return server

    yield make
    _each([server.kill for server in made])


@pytest.fixture(scope="session")
def shared_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One sshd for the whole session. A test that stops it uses ``own_sshd`` instead."""
    yield from _sshd(tmp_path_factory.mktemp("sshd"))


@pytest.fixture
def sshd(shared_sshd: Sshd) -> Sshd:
    """The sshd on loopback that all tests share."""
    assert shared_sshd.running, f"sshd has ended:\n{shared_sshd.log()}"
    return shared_sshd


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[Sshd]:
    """An sshd of the test's own, which it may stop, kill and start again."""
    yield from _sshd(tmp_path / "sshd")


@pytest.fixture
def network() -> Iterator[Network]:
    """A network of the test's own. The test that starts a server in it also ends it."""
    one = Network()
    try:
        try:
            one.make()
        except NoNetwork as error:
            pytest.skip(f"no network namespaces: {error}")
        yield one
    finally:
        one.remove()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[MakeDaemon]:
    """Inosync daemons. At the end of the test they are stopped and must leave nothing behind."""
    made: list[Daemon] = []
    yield _maker(made, tmp_path / "inosync")
    _each([one.close for one in made])


@pytest.fixture
def patched(tmp_path: Path) -> Iterator[Patched]:
    """Inosync daemons with code replaced by Python of the test's own."""
    made: list[Daemon] = []

    def patch(text: str) -> MakeDaemon:
        launcher = tmp_path / "launcher"
        launcher.write_text(PATCHED.format(checkout=str(CHECKOUT), patch=text))
        return _maker(made, tmp_path / "patched", launcher)

    yield patch
    _each([one.close for one in made])


def _maker(made: list[Daemon], home: Path, launcher: Path = LAUNCHER) -> MakeDaemon:
    def make(
        config: Mapping[str, object] | str, args: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> Daemon:
        made.append(Daemon(home.with_name(f"{home.name}-{len(made)}"), config, args, env, launcher))
        return made[-1]

    return make


@pytest.fixture
def warm(tmp_path: Path, daemon: MakeDaemon) -> MakeWarm:
    """Daemons, not started, whose warm rsyncs the test looks at."""

    def make(
        nodes: Mapping[str, Location],
        trees: Sequence[str] = ("tree",),
        env: Mapping[str, str] | None = None,
        **settings: object,
    ) -> Warm:
        return set_up(tmp_path, daemon, nodes, trees, env, **settings)

    return make


@pytest.fixture
def all_transports(tmp_path: Path, daemon: MakeDaemon, rsyncd: MakeRsyncd, own_sshd: Sshd) -> AllTransports:
    """A daemon, not started, with a node on each transport, and servers of the test's own."""
    return set_up_all_transports(tmp_path, daemon, rsyncd, own_sshd)


@pytest.fixture
def service(tmp_path: Path, daemon: MakeDaemon) -> Service:
    """A service of the test's own, not started."""
    return make_service(tmp_path, daemon)


@pytest.fixture(scope="module")
def running_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service that the tests of a module share through ``shared``."""
    home = tmp_path_factory.mktemp("service")
    service = make_service(home, partial(Daemon, home / "inosync"))
    try:
        service.daemon.start()
        yield service
        service.daemon.close()
    finally:
        for node in "ab":
            service.rsync.mend(node)
        with contextlib.suppress(AssertionError):
            service.daemon.close()


@pytest.fixture
def shared(running_service: Service) -> Service:
    """The shared service, level and with its base configuration."""
    running = running_service
    if running.settings != running.base() or not running.daemon.file.exists():
        running.reload()
    # A change that every worker confirms.
    running.change("next", str(time.monotonic_ns()))
    running.until_ok()
    return running


@pytest.fixture
def detached(service: Service) -> Iterator[Detached]:
    """A service of the test's own that is to be started with -d."""
    one = Detached(service)
    service.configure(logfile=str(service.home / "log"))
    yield one
    one.close()


def _sshd(home: Path) -> Iterator[Sshd]:
    server = Sshd(home)
    server.start()
    try:
        refusal = server.refusal()
        if refusal and os.geteuid() != 0:
            # A locked account, or an sshd that only root may run: not our fault.
            pytest.skip(f"an sshd of this user lets nobody in: {refusal.strip()}")
        assert not refusal, f"nobody can log in: {refusal}\n{server.log()}"
        yield server
    finally:
        server.kill()


def _each(finishers: list[Callable[[], None]]) -> None:
    """Call all finishers in reverse order, even if some fail; then raise the first failure."""
    failures: list[Exception | AssertionError] = []
    for finish in reversed(finishers):
        try:
            finish()
        except (AssertionError, OSError) as error:
            failures.append(error)
    if failures:
        raise failures[0]
