"""Hooks: on_sync runs after a batch, on_state when the state of a node has changed."""

from __future__ import annotations

import http.server
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support import procs
from support.daemon import Daemon, FakeRsync, MakeDaemon
from support.wait import until

CONF = Path(__file__).resolve().parents[2] / "conf"
FAST = {"edelay": 0.2, "equiet": 0.02, "rretry": (0.1, 0.5)}

RECORDER = """#!{python}
import json, os, sys, time
facts = {{key[8:].lower(): value for key, value in os.environ.items() if key.startswith("INOSYNC_")}}
if facts.get("names"):
    facts["listed"] = [n.decode("latin-1") for n in open(facts["names"], "rb").read().split(b"\\0")[:-1]]
facts["words"], facts["has_password"] = sys.argv[1:], "RSYNC_PASSWORD" in os.environ
facts["cwd"], facts["pid"] = os.getcwd(), os.getpid()
with open({calls!r}, "a") as file:
    file.write(json.dumps(facts) + "\\n")
while os.path.exists({wait!r}):
    time.sleep(0.01)
print("last words \\x1b[31m")
sys.exit(int(open({code!r}).read()) if os.path.exists({code!r}) else 0)
"""


@dataclass
class Setup:
    """A daemon with two local nodes, not started, and a hook that records its environment."""

    home: Path
    daemon: Daemon
    rsync: FakeRsync
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def tree(self) -> Path:
        return self.home / "tree"

    @property
    def hook(self) -> str:
        return str(self.home / "hook")

    def copy(self, node: str) -> Path:
        return self.home / "nodes" / node / "tree"

    def configure(self, text: str = "", **settings: object) -> None:
        for node in "ab":
            (self.home / "nodes" / node).mkdir(parents=True, exist_ok=True)
        self.settings.update(settings)
        config: dict[str, object] = {
            "wpaths": [str(self.tree)],
            "rpaths": ["tree"],
            "rnodes": [{"node": f"{self.home}/nodes/{node}/", "name": node} for node in "ab"],
            "rsync": str(self.rsync.path),
            "rwarm": False,
            **FAST,
            **self.settings,
        }
        lines = [f"{name} = {value!r}" for name, value in config.items()]
        self.daemon.configure("\n".join([*lines, text, ""]))

    def calls(self, **wanted: object) -> list[dict[str, Any]]:
        """Return the recorded runs of the hook that have these values."""
        path = self.home / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines]
        return [one for one in found if all(one.get(key) == value for key, value in wanted.items())]

    def until_called(self, **wanted: object) -> dict[str, Any]:
        return until(lambda: next(iter(self.calls(**wanted)), None), 60, f"the hook to be told {wanted}")

    def wait(self, wanted: bool) -> None:
        """Let the hook wait, or end."""
        path = self.home / "wait"
        if wanted:
            path.touch()
        else:
            path.unlink(missing_ok=True)

    def node(self, name: str) -> dict[str, Any]:
        node: dict[str, Any] = self.daemon.ask("status", node=name)["nodes"][0]
        return node

    def begin_and_hang(self) -> None:
        """Start the daemon, make a change, and let a's hook for it wait."""
        self.configure(on_sync={"command": [self.hook], "timeout": 1000})
        self.daemon.start()
        self.until_called(name="a")
        self.flush()
        self.wait(True)
        (self.tree / "one").write_text("x")
        until(lambda: self.calls(name="a", full="0"), 60, "the hook to run")

    def fails(self) -> subprocess.CompletedProcess[str]:
        """Start the daemon, which fails, and return its output."""
        return subprocess.run(self.daemon.command, capture_output=True, text=True, timeout=60, check=False)

    def flush(self) -> None:
        assert self.daemon.ask("flush", timeout=60)["behind"] == []


@pytest.fixture
def setup(tmp_path: Path, daemon: MakeDaemon) -> Iterator[Setup]:
    tmp_path.chmod(0o755)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "first").write_text("first")
    s = Setup(tmp_path, daemon("", env={"RSYNC_PASSWORD": "secret"}), FakeRsync(tmp_path))
    calls, wait, code = (str(tmp_path / name) for name in ("calls", "wait", "code"))
    Path(s.hook).write_text(RECORDER.format(python=sys.executable, calls=calls, wait=wait, code=code))
    Path(s.hook).chmod(0o755)
    yield s
    s.wait(False)


# on_sync -------------------------------------------------------------------------------------------------


def test_on_sync_gets_the_names_of_a_batch_or_that_it_was_full(setup: Setup) -> None:
    s = setup
    s.configure(on_sync=[s.hook, "some word", "$(false) *"])
    s.daemon.start()
    for name in "ab":
        full = s.until_called(event="sync", name=name)
        assert (full["full"], full["names"], full["count"]) == ("1", "", "0")
        assert full["node"] == f"{s.home}/nodes/{name}/"
        assert (full["wpath"], full["rpath"], full["cwd"]) == (str(s.tree), "tree", "/")
        assert full["words"] == ["some word", "$(false) *"]
    hostile = os.fsdecode(b"new\nline \xff$(touch x)")
    (s.tree / hostile).write_text("x")
    (s.tree / "dir").mkdir()
    for name in "ab":
        found: set[str] = set()
        until(
            lambda name=name, found=found: (
                found.update(  # type: ignore[misc]
                    *(one["listed"] for one in s.calls(name=name, full="0"))
                )
                or {"new\nline \xff$(touch x)", "dir/"} <= found
            ),
            60,
            "the names to be told",
        )
    some = s.calls(full="0")[0]
    assert int(some["count"]) == len(some["listed"])
    until(lambda: not any(Path(one["names"]).exists() for one in s.calls(full="0")), 60, "the lists to go")


def test_password_of_the_daemon_does_not_reach_a_hook(setup: Setup) -> None:
    s = setup
    s.configure(on_sync=[s.hook])
    s.daemon.start()
    assert s.until_called(event="sync")["has_password"] is False


def test_batches_during_a_hook_are_one_run_after_it(setup: Setup) -> None:
    s = setup
    s.configure(on_sync={"command": [s.hook], "timeout": 1000})
    s.wait(True)
    s.daemon.start()
    s.until_called(name="a")
    for number in range(5):
        (s.tree / f"file {number}").write_text("x")
        s.flush()
    assert len(s.calls(name="a")) == 1
    s.wait(False)
    second = until(lambda: s.calls(name="a", full="0"), 60, "the second run")[0]
    assert {f"file {number}" for number in range(5)} <= set(second["listed"])


def test_failed_batch_runs_on_sync_when_it_has_succeeded(setup: Setup) -> None:
    s = setup
    s.configure(on_sync=[s.hook])
    s.daemon.start()
    s.until_called(name="a")
    s.flush()
    s.rsync.fault("a", "exit 12")
    (s.tree / "later").write_text("x")
    until(lambda: s.node("a")["attempts"] >= 2, 60, "two tries")
    assert not [one for one in s.calls(name="a") if "later" in one.get("listed", [])]
    s.rsync.mend("a")
    until(lambda: [one for one in s.calls(name="a") if "later" in one.get("listed", [])], 60, "it to be told")


def test_hook_that_hangs_is_killed_with_its_children_and_reported(setup: Setup) -> None:
    s = setup
    script = s.home / "hangs"
    script.write_text(
        f"#!/bin/sh\ntrap '' TERM\nsleep 1000 & echo $! >> {shlex.quote(str(s.home / 'pids'))}\nwait\nwait\n"
    )
    script.chmod(0o755)
    s.configure(on_sync={"command": [str(script)], "timeout": 0.3})
    s.daemon.start()
    s.daemon.until_logged(r"WARNING: a: on_sync was ended after 0\.3 s")
    pids = [int(pid) for pid in (s.home / "pids").read_text().split()]
    assert pids
    until(lambda: not any(procs.look(pid) for pid in pids), 60, "what it had started to be gone")
    (s.tree / "goes on").write_text("x")
    s.flush()
    node = until(lambda: s.node("a") if s.node("a")["hook_failures"] else None, 60, "the count")
    assert node["state"] in ("ok", "syncing", "lagging")
    assert node["hooks"] >= node["hook_failures"]


def test_processes_left_by_a_hook_are_ended(setup: Setup) -> None:
    s = setup
    script = s.home / "leaves"
    script.write_text(
        "#!/bin/sh\n"
        f"file={shlex.quote(str(s.home))}/left-$$\n"
        'setsid sh -c \'echo $$ > "$0"; exec sleep 1000\' "$file" </dev/null >/dev/null 2>&1 &\n'
        'while [ ! -s "$file" ]; do sleep 0.01; done\n'
    )
    script.chmod(0o755)
    s.configure(on_sync=[str(script)])
    s.daemon.start()
    until(lambda: s.node("a")["hooks"] and s.node("b")["hooks"], 60, "the hooks to have ended")
    left = [int(path.read_text()) for path in s.home.glob("left-*")]
    assert len(left) >= 2
    until(lambda: not any(procs.look(pid) for pid in left), 60, "all of it to be gone")
    (s.tree / "more").write_text("x")
    s.flush()


def test_hook_that_writes_without_end_delays_nothing(setup: Setup) -> None:
    s = setup
    script = s.home / "talks"
    script.write_text("#!/bin/sh\nyes 'much to say'\n")
    script.chmod(0o755)
    s.configure(on_sync={"command": [str(script)], "timeout": 3})
    s.daemon.start()
    for number in range(3):
        (s.tree / f"file {number}").write_text("x")
        s.flush()
    s.daemon.until_logged(r"WARNING: a: on_sync was ended after 3 s: much to say\n")
    assert s.node("a")["rss"] < 500_000_000


def test_hook_failure_is_reported_once_with_its_last_output(setup: Setup) -> None:
    s = setup
    (s.home / "code").write_text("3")
    s.configure(on_sync=[s.hook])
    s.daemon.start()
    s.daemon.until_logged(r"WARNING: a: on_sync ended with exit code 3: last words \\x1b\[31m")
    (s.tree / "again").write_text("x")
    until(lambda: s.node("a")["hook_failures"] >= 2, 60, "a second failure")
    assert s.daemon.stop() == 0


def test_function_as_hook_runs_in_a_child_of_the_worker(setup: Setup) -> None:
    s = setup
    text = f"""
def on_sync(facts):
    import json, os, time
    facts = dict(facts, pid=os.getpid(), parent=os.getppid())
    if facts["names"]:
        facts["listed"] = [n.decode() for n in open(facts["names"], "rb").read().split(b"\\0")[:-1]]
    with open({str(s.home / "calls")!r}, "a") as file:
        file.write(json.dumps(facts) + "\\n")
    if "fails" in facts.get("listed", ()):
        raise ValueError("this cannot be")
    while os.path.exists({str(s.home / "wait")!r}):
        time.sleep(0.01)
"""
    s.configure(text)
    s.daemon.start()
    full = s.until_called(name="a", full=1)
    assert full["parent"] == s.daemon.workers()["a"]
    assert full["count"] == 0
    (s.tree / "fails").write_text("x")
    s.daemon.until_logged(r"a: on_sync ended with exit code 1: ValueError: this cannot be")
    s.flush()
    s.wait(True)
    (s.tree / "waits").write_text("x")
    until(lambda: [one for one in s.calls(name="a") if "waits" in one.get("listed", [])], 60, "the call")
    (s.tree / "beside").write_text("x")
    s.flush()
    s.wait(False)


def test_worker_killed_during_a_hook_runs_on_sync_as_full_afterwards(setup: Setup) -> None:
    s = setup
    s.begin_and_hang()
    (s.tree / "two").write_text("x")
    s.flush()
    before = len(s.calls(name="a", full="1"))
    os.kill(s.daemon.workers()["a"], signal.SIGKILL)
    s.wait(False)
    until(
        lambda: len(s.calls(name="a", full="1")) > before,
        60,
        "the next worker to tell that anything has changed",
    )
    # The same when the master is killed: it does not know any more which hooks were not run.
    s.daemon.until_kept()
    s.daemon.kill9()
    before = len(s.calls(name="a", full="1"))
    s.daemon.start()
    until(lambda: len(s.calls(name="a", full="1")) > before, 60, "the next master to have that told")
    assert [node["fulls"] for node in s.daemon.ask("status")["nodes"]] == [0, 0]


def test_hook_cut_off_by_a_reload_is_repeated_by_the_next_worker(
    setup: Setup,
) -> None:
    s = setup
    s.begin_and_hang()
    before = len(s.calls(name="a", full="1"))
    s.daemon.configure(s.daemon.file.read_text().replace("'name': 'a'", "'name': 'a', 'rspeed': 9999"))
    s.daemon.hup()
    s.daemon.until_logged("WARNING: a: on_sync was ")  # the worker has a few seconds to end
    s.wait(False)
    until(
        lambda: len(s.calls(name="a", full="1")) > before, 60, "the next worker to tell that anything changed"
    )


def test_reload_runs_the_new_hook_and_keeps_workers_with_the_same(setup: Setup) -> None:
    s = setup
    s.configure(on_sync=[s.hook, "old"])
    s.daemon.start()
    s.until_called(name="a")
    s.flush()
    before = s.daemon.workers()
    s.configure(edelay=0.3)
    s.daemon.hup()
    s.daemon.until_logged("reloaded: nodes: 0 added, 0 removed, 0 changed")
    assert s.daemon.workers() == before
    s.configure(on_sync=[s.hook, "new"])
    s.daemon.hup()
    s.daemon.until_logged("reloaded: nodes: 0 added, 0 removed, 2 changed")
    (s.tree / "after").write_text("x")
    until(
        lambda: [one for one in s.calls(name="a", words=["new"]) if "after" in one.get("listed", [])],
        60,
        "it",
    )


# on_state ------------------------------------------------------------------------------------------------


def test_on_state_runs_at_every_change_of_state(setup: Setup) -> None:
    s = setup
    s.configure(on_state=[s.hook])
    s.daemon.start()
    s.until_called(event="state", name="a", state="ok")
    s.rsync.fault("a", "exit 12")
    (s.tree / "change").write_text("x")
    bad = s.until_called(event="state", name="a", state="retrying")
    # On a busy machine the first try may have taken long enough for the node to lag.
    assert bad["before"] in ("ok", "lagging")
    assert "exit 12" in bad["reason"]
    assert float(bad["lag"]) >= 0
    assert float(bad["seconds"]) > 0
    s.rsync.mend("a")
    s.until_called(event="state", name="a", state="ok", before="retrying")
    assert not s.calls(name="b", state="retrying")


def test_on_state_with_after_runs_once_per_outage_and_at_its_end(setup: Setup) -> None:
    s = setup
    s.configure(on_state={"command": [s.hook], "after": 1.5})
    s.daemon.start()
    s.flush()
    s.rsync.fault("a", "exit 12")
    (s.tree / "change").write_text("x")
    bad = s.until_called(name="a", state="retrying")
    assert float(bad["seconds"]) >= 1.5
    tries = s.node("a")["attempts"]
    until(lambda: s.node("a")["attempts"] >= tries + 5, 60, "more tries")
    s.rsync.mend("a")
    s.until_called(name="a", state="ok", before="retrying")
    assert [one["state"] for one in s.calls(name="a")] == ["retrying", "ok"]
    assert s.calls(name="b") == []
    # A shorter outage runs no hook.
    s.rsync.fault("b", "exit 12")
    (s.tree / "another").write_text("x")
    until(lambda: s.node("b")["state"] == "retrying", 60, "b to retry")
    s.rsync.mend("b")
    s.flush()
    assert s.calls(name="b") == []


def test_on_state_runs_when_the_worker_has_died(setup: Setup) -> None:
    s = setup
    s.configure(on_state={"command": [s.hook], "states": ["retrying"]})
    s.daemon.start()
    s.flush()
    os.kill(s.daemon.workers()["a"], signal.SIGKILL)
    bad = s.until_called(name="a", state="retrying")
    assert "killed by signal 9" in bad["reason"]
    s.until_called(name="a", state="ok", before="retrying")


# Mistakes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/bin/true x", "is a string, which nothing takes apart; write ['/bin/true', 'x']"),
        (["true"], "is not an absolute path; write '/"),
        (["/nowhere/at/all"], "is not found"),
        ([], "is empty"),
        (7, "is not a list"),
        ({"timeout": 3}, "has no 'command'"),
        ({"command": ["/bin/true"], "timeout": 0}, "is out of range"),
        ({"command": ["/bin/true"], "after": 3}, "is not known"),
        ({"command": ["/bin/true"], "colour": 3}, "is not known"),
    ],
)
def test_hook_with_a_bad_setting_is_refused_in_one_line(setup: Setup, value: object, expected: str) -> None:
    s = setup
    s.configure(on_sync=value)
    done = s.fails()
    assert done.returncode == 78
    [line] = done.stderr.splitlines()
    assert "on_sync" in line
    assert expected in line


def test_hook_that_others_can_write_is_refused(setup: Setup) -> None:
    s = setup
    Path(s.hook).chmod(0o777)
    s.configure(on_state={"command": [s.hook], "states": ["cheerful"]})
    done = s.fails()
    assert "'cheerful'" in done.stderr
    assert "is no state that hooks are run for" in done.stderr
    s.configure(on_state=[s.hook])
    done = s.fails()
    assert done.returncode == 78
    assert f"'{s.hook}': is writable by others; chmod go-w {s.hook}" in done.stderr


# The examples --------------------------------------------------------------------------------------------


def test_example_hook_purges_a_cache(setup: Setup) -> None:
    purged: list[str] = []

    class Cache(http.server.BaseHTTPRequestHandler):
        def do_PURGE(self) -> None:
            purged.append(self.path)
            self.send_response(404 if self.path.endswith("unknown") else 200)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Cache)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        s = setup
        script = s.home / "purge-cache"
        script.write_text((CONF / "purge-cache").read_text().replace("/usr/bin/env python3", sys.executable))
        script.chmod(0o755)
        s.configure(on_sync=[str(script), f"http://127.0.0.1:{server.server_port}/pub"])
        s.daemon.start()
        until(lambda: purged.count("/pub/") == 2, 60, "all of it to be purged")
        (s.tree / "a b?#").write_text("x")
        (s.tree / "unknown").write_text("x")
        until(lambda: {"/pub/a%20b%3F%23", "/pub/unknown"} <= set(purged), 60, "the files to be purged")
        s.flush()
        assert s.daemon.stop() == 0
        assert "on_sync" not in s.daemon.log()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_example_hook_sends_a_mail(setup: Setup) -> None:
    s = setup
    sendmail, mails = s.home / "sendmail", s.home / "mails"
    sendmail.write_text(f"#!/bin/sh\ncat >> {shlex.quote(str(mails))}\n")
    sendmail.chmod(0o755)
    script = s.home / "mail-when-behind"
    text = (CONF / "mail-when-behind").read_text()
    assert "${SENDMAIL:-/usr/sbin/sendmail}" in text
    script.write_text(text.replace("${SENDMAIL:-/usr/sbin/sendmail}", str(sendmail)))
    script.chmod(0o755)
    s.configure(on_state={"command": [str(script), "root"], "after": 0.5})
    s.daemon.start()
    s.flush()
    s.rsync.fault("a", "exit 12")
    (s.tree / "change").write_text("x")
    until(lambda: ": a is retrying\n" in mails.read_text(), 60, "the mail")
    s.rsync.mend("a")
    until(lambda: ": a is ok\n" in mails.read_text(), 60, "the other mail")
    assert mails.read_text().startswith("To: root\nSubject: inosync on ")


@pytest.mark.parametrize(("path", "is_json"), [("/topic", False), ("/hooks/secret", True)])
@pytest.mark.parametrize("by_file", [False, True])
def test_example_hook_posts_a_message(tmp_path: Path, path: str, is_json: bool, by_file: bool) -> None:
    posted: list[tuple[str, str, bytes]] = []

    class Service(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append((self.path, self.headers["Content-Type"], body))
            self.send_response(200 if len(posted) == 1 else 503)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}{path}"
        if by_file:
            (tmp_path / "url").write_text(f"{url}\n")
            url = str(tmp_path / "url")
        facts = {"NAME": "a", "STATE": "retrying", "BEFORE": "ok", "SECONDS": "300.4", "REASON": "no \u00fc"}
        environment = {**os.environ, **{f"INOSYNC_{key}": value for key, value in facts.items()}}
        script = [sys.executable, str(CONF / "post-when-behind"), url]
        codes = [
            subprocess.run(script, env=environment, capture_output=True, check=False).returncode
            for _ in range(2)
        ]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert codes == [0, 1]
    where, kind, body = posted[0]
    assert where == path
    assert kind == ("application/json" if is_json else "text/plain; charset=utf-8")
    text = json.loads(body)["text"] if is_json else body.decode()
    assert text.startswith("inosync on ")
    assert text.endswith(": a is retrying, after ok for 300 s: no \u00fc")


@pytest.mark.parametrize(("code", "expected"), [(0, "https://hc/uuid"), (2, "https://hc/uuid/fail")])
def test_example_for_cron_pings_a_watchdog(tmp_path: Path, code: int, expected: str) -> None:
    for name, text in {
        "inosync": f'echo "the table of $*"; exit {code}',
        "curl": f'printf "%s\\n" "$@" > {shlex.quote(str(tmp_path / "called"))}',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = ["sh", str(CONF / "ping-when-level"), "https://hc/uuid", "60"]
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(script, check=True, env={**os.environ, "PATH": path})
    called = (tmp_path / "called").read_text().splitlines()
    assert called[-1] == expected
    assert ("the table of -s status --lag 60" in called) is (code != 0)
