"""The daemon as a service: titles, stop, files, failing starts, and the command line."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
from pathlib import Path

import pytest
from support import procs, trees
from support.service import IN_TIME, Service, run_inosync
from support.wait import until

ROOT = os.geteuid() == 0
USAGE, CONFIG, FAILED = 64, 78, 1


# Titles --------------------------------------------------------------------------------------------------

TIME = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d"


def test_titles_have_the_form_of_the_manual(shared: Service) -> None:
    directories = 1 + sum(entry.type == "directory" for entry in trees.snapshot(shared.tree()).values())
    until(
        lambda: shared.daemon.title() == f"inosync: master default.py [2 nodes: 2 ok] {directories} dirs",
        60,
        "the master's title",
    )
    pids = shared.daemon.workers()
    assert set(pids) == {"a", "b"}
    for node, pid in pids.items():
        ok = rf"inosync: {node} \[ok\] synced {TIME}"
        until(lambda: re.fullmatch(ok, procs.title(pid)), 60, f"the title of {node}")  # noqa: B023
    (shared.tree() / "a new one/and another").mkdir(parents=True)
    until(lambda: shared.daemon.title().endswith(f"] {directories + 2} dirs"), 60, "the number to follow")
    shutil.rmtree(shared.tree() / "a new one")
    until(lambda: shared.daemon.title().endswith(f"] {directories} dirs"), 60, "the number to follow")


def test_node_is_never_ok_while_it_lacks_a_change(shared: Service) -> None:
    shared.rsync.hold("a")
    pid = shared.daemon.workers()["a"]
    try:
        shared.change("first")
        shared.change("second")
        until(lambda: re.fullmatch(r"inosync: a \[syncing\] [12] paths?", procs.title(pid)), 60, "the batch")
        until(lambda: "[2 nodes: 1 ok, 1 syncing]" in shared.daemon.title(), 60, "the master to tell")
        # Changes to the other node and a reload do not make it ok.
        for number in range(20):
            shared.change("more", f"{number}")
            shared.until_arrived("b", "more", f"{number}")
            if number == 10:
                shared.hup()
            assert "[ok]" not in procs.title(pid)
            assert "2 ok" not in shared.daemon.title()
    finally:
        shared.rsync.mend("a")
    shared.until_ok()


def test_node_that_is_ok_has_every_earlier_change(shared: Service) -> None:
    """Sampled: the title says ok after a change whose transfer to this node has begun."""
    pid = shared.daemon.workers()["a"]
    for number in range(15):
        begun = len(shared.rsync.starts("/a/"))
        shared.change("round", f"{number}")
        shared.until_arrived("b", "round", f"{number}")
        # Both nodes are sent the change at once, but the worker of a may be slower.
        until(lambda: len(shared.rsync.starts("/a/")) > begun, 60, "its turn")  # noqa: B023
        until(lambda: "[ok]" in procs.title(pid) and "2 ok" in shared.daemon.title(), 60, "both to be ok")
        assert (shared.copy("a") / "round").read_text() == f"{number}"


def test_node_that_waits_for_a_slot_is_not_ok(shared: Service) -> None:
    # Make one large batch.
    shared.reload(rslots=1, equiet=0.5, edelay=2)
    shared.until_ok()
    before = len(shared.rsync.starts("batch "))
    shared.rsync.hold("a")
    shared.rsync.hold("b")
    try:
        for number in range(1500):
            shared.change(f"many-{number}")
        # One node has the slot; the other must wait for longer than edelay.
        until(lambda: len(shared.rsync.starts("batch ")) > before, 60, "a batch")
        until(lambda: " ok" not in shared.daemon.title(), 60, "the master to tell of both")
        until(lambda: "ok" not in shared.daemon.states().values(), 20, "no worker to say ok")
    finally:
        shared.rsync.mend("a")
        shared.rsync.mend("b")
        for number in range(1500):
            (shared.tree() / f"many-{number}").unlink()
    shared.until_ok()


def test_full_mirror_shows_its_percentage_in_the_title(service: Service) -> None:
    for number in range(30):
        (service.tree() / f"{number}").write_bytes(os.urandom(20_000))
    service.configure(rnodes=[service.node("a", rspeed=100), service.node("b")])
    service.daemon.start()
    pid = until(lambda: service.daemon.workers().get("a"), 60, "the worker")
    seen: list[str] = []

    def look() -> bool:
        title = procs.title(pid)
        if title not in seen[-1:]:
            seen.append(title)
        return "[ok]" in title

    until(lambda: look() or any("%" in title for title in seen), 60, "a percentage")
    # The master's title follows that of the worker.
    until(lambda: look() or re.search("[12] full", service.daemon.title()), 60, "the master to tell of it")
    until(look, 60, "its end")
    seen = [title for title in seen if not title.startswith("inosync: master")]
    for title in seen:
        assert re.fullmatch(rf"inosync: a \[(starting\]|full\]( \d+%)?|ok\] synced {TIME})", title), seen
    percents = [int(found[1]) for title in seen if (found := re.search(r"(\d+)%", title))]
    assert len(set(percents)) > 2
    assert all(0 <= percent <= 100 for percent in percents)
    service.until_ok()
    service.rsync.hold("a")
    try:
        for number in range(3):
            service.change(f"{number}")
        until(lambda: re.fullmatch(r"inosync: a \[syncing\] [123] paths?", procs.title(pid)), 60, "a batch")

        def below(node: str) -> list[str]:
            return [
                title for p in service.daemon.rsyncs(node) if "/nodes/a/tree" in (title := procs.title(p))
            ]

        # What runs for a node is found below its worker.
        until(lambda: any("rsync" in title for title in below("a")), 60, "its rsync")
        assert below("b") == []
    finally:
        service.rsync.mend("a")
    service.until_ok()


def test_control_characters_reach_neither_title_nor_log(shared: Service) -> None:
    name = os.fsdecode(b"name\nERROR: forged\x1b[31m\xff")
    shared.rsync.fault("a", r"printf 'rsync: [sender] bad \033[31m\007 name\n' >&2; exit 12")
    try:
        (shared.tree() / name).write_text("content")
        pid = shared.daemon.workers()["a"]
        title = until(lambda: t if "[retry" in (t := procs.title(pid)) else "", 60, "the retry")
    finally:
        shared.rsync.mend("a")
    assert title.isprintable()
    assert "31m" in title
    shared.until_ok()
    (shared.tree() / name).unlink()
    shared.until_ok()
    log = shared.daemon.stderr.read_bytes()
    assert b"forged" in log
    assert b"\nERROR: forged" not in log
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", log)


# Stopping ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_at_rest_leaves_nothing(service: Service, number: signal.Signals) -> None:
    service.change("file")
    service.daemon.start()
    service.until_ok()
    assert stat.S_IMODE(service.daemon.rundir.stat().st_mode) == 0o700
    assert (service.daemon.rundir / "default.pid").read_text().split("\n")[0] == str(service.daemon.pid)
    service.daemon.signal(number)
    assert service.daemon.wait(IN_TIME) == 0
    until(lambda: not service.daemon.descendants(), IN_TIME, "everything to be gone")
    assert list(service.daemon.rundir.iterdir()) == []


def test_stop_during_a_full_mirror_leaves_nothing(service: Service) -> None:
    for number in range(4):
        (service.tree() / f"{number}").write_bytes(os.urandom(2_000_000))
    service.configure(rspeed=100)
    service.daemon.start()
    until(lambda: set(service.daemon.states().values()) == {"full"}, 60, "the full mirrors")
    until(lambda: all(any(service.copy(node).glob(".*")) for node in "ab"), 60, "the transfers")
    # A second signal changes nothing.
    service.daemon.signal(signal.SIGTERM)
    service.daemon.signal(signal.SIGTERM)
    assert service.daemon.wait(IN_TIME) == 0
    until(lambda: not service.daemon.descendants(), IN_TIME, "everything to be gone")
    assert list(service.daemon.rundir.iterdir()) == []
    # rsync had time to remove its temporary files.
    assert [path for node in "ab" for path in service.copy(node).glob(".*")] == []
    service.configure()
    service.daemon.start()
    service.until_ok()


def test_stop_works_with_a_stuck_rsync_and_a_stopped_worker(service: Service) -> None:
    service.rsync.fault("a", "trap '' TERM; exec sleep 1000")
    service.daemon.start()
    service.daemon.until_state("a", ("full",))
    service.daemon.until_state("b", ("ok",))
    until(lambda: "sleep 1000" in map(procs.title, service.daemon.rsyncs("a")), 60, "the rsync")
    os.kill(service.daemon.workers()["b"], signal.SIGSTOP)
    assert service.daemon.stop(IN_TIME) == 0
    until(lambda: not service.daemon.descendants(), IN_TIME, "everything to be gone")
    assert list(service.daemon.rundir.iterdir()) == []


def test_stop_does_not_cut_off_a_transfer_that_ends_soon(service: Service) -> None:
    service.daemon.start()
    service.until_ok()
    service.rsync.hold("a")
    service.change("file")
    service.rsync.until_held("a")
    service.daemon.until_state("a", ("syncing",))
    service.daemon.signal(signal.SIGTERM)
    until(lambda: "SIGTERM" in service.daemon.log(), 60, "it to be stopping")
    service.rsync.mend("a")
    assert service.daemon.wait(IN_TIME) == 0
    assert (service.copy("a") / "file").read_text() == "content"


# Files and other instances -------------------------------------------------------------------------------


def test_second_instance_refuses_and_names_the_first(shared: Service) -> None:
    pids = shared.daemon.workers()
    for args in ((), ("-d",)):
        done = run_inosync(shared.daemon, *args)
        assert (done.returncode, done.stdout) == (FAILED, "")
        [line] = done.stderr.splitlines()
        assert re.search(rf"already running with pid {shared.daemon.pid}\b", line)
    assert run_inosync(shared.daemon, "-p").returncode == 0  # it takes no pid file
    shared.change("file", "still here")
    shared.until_ok()
    assert shared.daemon.workers() == pids


def test_second_configuration_of_the_same_name_does_not_share_rundir(shared: Service, tmp_path: Path) -> None:
    other = tmp_path / "default.py"
    other.write_text(shared.daemon.file.read_text())
    other.chmod(0o600)
    command = [word if word != str(shared.daemon.file) else str(other) for word in shared.daemon.command]
    done = run_inosync(shared.daemon, command=command)
    assert done.returncode == FAILED
    [line] = done.stderr.splitlines()
    assert str(shared.daemon.pid) in line
    assert str(shared.daemon.file) in line
    assert "rundir" in line


def test_pid_file_of_a_killed_master_does_not_prevent_a_start(service: Service) -> None:
    service.daemon.start()
    service.until_ok()
    first = service.daemon.pid
    service.daemon.kill9()
    assert (service.daemon.rundir / "default.pid").read_text().startswith(f"{first}\n")
    service.daemon.start()
    assert (service.daemon.rundir / "default.pid").read_text().startswith(f"{service.daemon.pid}\n")
    service.change("file")
    service.until_ok()
    assert service.daemon.stop() == 0
    # The pid in the file belongs to another program.
    (service.daemon.rundir / "default.pid").write_text(f"{os.getpid()}\n")
    service.daemon.start()
    assert service.daemon.stop() == 0
    assert list(service.daemon.rundir.iterdir()) == []


def test_log_file_moved_away_is_made_again(service: Service) -> None:
    log, old = service.home / "inosync.log", service.home / "inosync.log.1"
    service.configure(logfile=str(log))
    service.daemon.start()
    service.until_ok()
    until(lambda: "full mirror" in log.read_text(), 60, "the log")
    assert stat.S_IMODE(log.stat().st_mode) & 0o137 == 0
    log.rename(old)
    service.daemon.signal(signal.SIGUSR1)
    until(lambda: log.exists() and log.read_text(), 60, "the new file")
    size = old.stat().st_size  # before the new file existed, lines may still have gone here
    service.change("file")
    service.until_ok()
    since = log.stat().st_size
    service.daemon.hup()
    until(lambda: log.stat().st_size > since, 60, "it to be written to")
    assert old.stat().st_size == size
    assert service.daemon.log() == ""


# Starts that fail ----------------------------------------------------------------------------------------


def foreign_rundir(home: Path) -> str:
    """Make a run directory that belongs to another user."""
    if not ROOT:
        return "/"
    directory = home / "foreign"
    directory.mkdir()
    os.chown(directory, 1, 1)
    return str(directory)


@pytest.mark.parametrize("args", [(), ("-d",)], ids=["in the foreground", "detached"])
@pytest.mark.parametrize(
    ("setting", "code", "message"),
    [
        ({"edelay": -1}, CONFIG, r"edelay: -1: is negative"),
        ({"rundir": "{home}/file"}, CONFIG, r"rundir: '.*/file': is not a directory"),
        ({"rundir": "{home}/link"}, FAILED, r"rundir .*/link is not a directory"),
        ({"rundir": "{home}/missing/run"}, CONFIG, r"rundir: '.*/missing/run': its directory does not exist"),
        ({"rundir": "{foreign}"}, FAILED, r"rundir .* belongs to user \d+"),
        ({"logfile": "{home}/log/"}, CONFIG, r"logfile"),
    ],
    ids=["bad setting", "rundir a file", "rundir a link", "rundir in nothing", "rundir of others", "logfile"],
)
def test_start_that_fails_tells_its_caller(
    service: Service, args: tuple[str, ...], setting: dict[str, object], code: int, message: str
) -> None:
    home = service.home
    (home / "file").touch()
    (home / "target").mkdir()
    (home / "link").symlink_to("target")
    foreign = foreign_rundir(home)
    service.configure(
        **{
            name: value.format(home=home, foreign=foreign) if isinstance(value, str) else value
            for name, value in setting.items()
        }
    )
    done = run_inosync(service.daemon, *args)
    assert done.returncode == code
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert re.search(message, line)
    assert not (service.daemon.rundir / "default.pid").exists()
    assert service.rsync.starts() == []


# The command line ----------------------------------------------------------------------------------------


def test_version_and_help_are_printed(service: Service) -> None:
    launch = service.daemon.command[:2]
    done = run_inosync(service.daemon, command=[*launch, "--version"])
    assert done.returncode == 0
    assert re.fullmatch(r"inosync \d+\.\d+\.\d+\S*\n", done.stdout)
    texts = []
    for option in ("-h", "--help"):
        done = run_inosync(service.daemon, command=[*launch, option])
        assert (done.returncode, done.stderr) == (0, "")
        texts.append(done.stdout)
    assert texts[0] == texts[1]
    for word in ("-c", "-d", "-p", "-v", "--version", "/etc/inosync/default.py"):
        assert word in texts[0]


@pytest.mark.parametrize("args", [["--unknown"], ["-x"], ["file"], ["-c"], ["--vers"]])
def test_wrong_usage_is_one_line_and_exit_code_64(service: Service, args: list[str]) -> None:
    done = run_inosync(service.daemon, command=[*service.daemon.command[:2], *args])
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("nonexistent.py", "nonexistent.py: cannot be read: No such file or directory"),
        ("", "is a directory"),
        ("default.py/x", "cannot be read: Not a directory"),
    ],
)
def test_missing_configuration_is_exit_code_78(service: Service, file: str, message: str) -> None:
    path = f"{service.daemon.file.parent}/{file}"
    done = run_inosync(service.daemon, command=[*service.daemon.command[:2], "-c", path])
    assert (done.returncode, done.stdout) == (CONFIG, "")
    [line] = done.stderr.splitlines()
    assert message in line


def test_mistakes_in_a_configuration_are_all_reported(service: Service) -> None:
    wrong: dict[str, object] = {
        "wpaths": ["/nonexistent/tree"],
        "rpaths": ["one", "two"],
        "rnodes": ["-e sh", "host.example.com:"],
        "edelay": -1,
        "rspeed": "fast",
        "emask": ["IN_MODIFIED"],
        "rsync": "/nonexistent/rsync",
        "rexclude": [],
    }
    service.configure(**wrong)
    for args in ((), ("-d",)):
        done = run_inosync(service.daemon, *args)
        assert (done.returncode, done.stdout) == (CONFIG, "")
        lines = done.stderr.splitlines()
        for setting in wrong:
            assert [line for line in lines if f": {setting}:" in line], f"{setting} in {lines}"
        assert "did you mean rexcludes?" in done.stderr
        assert "Traceback" not in done.stderr
        for line in lines:
            assert re.match(rf"{re.escape(str(service.daemon.file))}(:\d+)?: ", line)


@pytest.mark.parametrize("what", ["the file", "its directory"])
def test_configuration_that_others_can_write_is_refused(service: Service, what: str) -> None:
    file = service.daemon.file
    path = file if what == "the file" else file.parent
    for mode in (0o666, 0o620) if what == "the file" else (0o777, 0o770):
        path.chmod(mode)
        done = run_inosync(service.daemon)
        assert (done.returncode, done.stdout) == (CONFIG, "")
        [line] = done.stderr.splitlines()
        assert line.startswith(f"{path}: is writable by others")
    path.chmod(0o700)


def test_imported_module_that_others_can_write_is_refused(service: Service) -> None:
    file = service.daemon.file
    module = file.parent / "common.py"
    module.write_text(f"open({str(service.home / 'ran')!r}, 'w').close()\n")
    module.chmod(0o666)
    service.daemon.configure("import common as _common\n" + file.read_text())
    done = run_inosync(service.daemon)
    assert (done.returncode, done.stdout) == (CONFIG, "")
    assert done.stderr == f"{module}: is writable by others; chmod go-w {module}\n"
    assert not (service.home / "ran").exists()
