"""A Debian with a booted systemd: systemd-nspawn over a root that debootstrap has made; for root only."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from support import procs
from support.procs import Process
from support.wait import until

SUITE = "bookworm"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "iproute2", "procps"),
    *("python3", "python3-pyinotify", "python3-setproctitle", "python3-psutil"),
    *("rsync", "openssh-server", "openssh-client"),
)
BOOTSTRAP_SECONDS = 1200.0
BOOT_SECONDS = 120.0
COMMAND_SECONDS = 120.0


class NotPossible(Exception):
    """There can be no booted systemd here; the text says why."""


def make_root(path: Path) -> None:
    """Make the root file system with debootstrap; raise NotPossible if that fails."""
    if os.geteuid() != 0:
        raise NotPossible("only root runs debootstrap and systemd-nspawn")
    for program in ("debootstrap", "systemd-nspawn", "nsenter", "unshare"):
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
            raise NotPossible(f"{program} is not installed")
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(path)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=BOOTSTRAP_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise NotPossible(f"debootstrap takes more than {BOOTSTRAP_SECONDS:g} s") from None
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        raise NotPossible(f"debootstrap fails: {lines[-1] if lines else f'exit {done.returncode}'}")


class Machine:
    """A container with its own systemd, network and /run. ``root`` is its root file system."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.console = root.with_name("console")
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._init: Process | None = None

    def boot(self) -> None:
        """Start systemd and wait until it is running; raise NotPossible if it does not come up."""
        # systemd-nspawn wants a tmpfs on /run, and the machine that runs the tests may have none.
        script = (
            'mount -t tmpfs tmpfs /run && exec systemd-nspawn --quiet --directory="$1" --register=no'
            " --keep-unit --private-network --console=pipe --boot"
        )
        with self.console.open("ab") as console:
            self._nspawn = subprocess.Popen(
                ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", str(self.root)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        try:
            self._init = until(self._find_init, BOOT_SECONDS, "systemd")
            until(self._is_up, BOOT_SECONDS, "systemd to have started")
        except AssertionError as error:
            tail = self.console.read_text(errors="replace")[-1000:].strip()
            self.close()
            raise NotPossible(f"systemd does not boot: {error}; {tail}") from None

    def _find_init(self) -> Process | None:
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            raise AssertionError(f"systemd-nspawn ended with {self._nspawn.returncode}")
        for child in procs.family([self._nspawn.pid])[1:]:
            # Children of systemd-nspawn that are pid 1 of their namespace may not have executed systemd yet.
            status = Path(f"/proc/{child.pid}/status").read_text()
            if re.search(r"^Name:\tsystemd$(?s:.*)^NSpid:.*\t1$", status, re.MULTILINE):
                return child
        return None

    def _is_up(self) -> bool:
        done = self.run("systemctl", "is-system-running", check=False)
        return done.stdout.strip() in ("running", "degraded")

    def run(
        self, *command: str, check: bool = True, timeout: float = COMMAND_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine."""
        assert self._init is not None, "the machine does not run"
        path = "/usr/sbin:/usr/bin:/sbin:/bin"
        done = subprocess.run(
            ["nsenter", "--target", str(self._init.pid), "--all", "--wd=/", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={"PATH": path, "HOME": "/root", "LC_ALL": "C", "SYSTEMD_PAGER": ""},
            check=False,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done

    def shell(self, script: str) -> str:
        """Run a shell script in the machine and return its output."""
        return self.run("sh", "-ec", script).stdout

    def path(self, name: str) -> Path:
        """Return where a file of the machine's root file system is seen from outside."""
        return self.root / name.lstrip("/")

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the machine."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--value", "--property", name, unit).stdout.strip()

    def journal(self, unit: str) -> str:
        """Return the journal of a unit."""
        return self.run("journalctl", "--no-pager", "--output=cat", "--unit", unit).stdout

    def close(self) -> None:
        """Power the machine off, and kill what is left of it."""
        if self._nspawn is None:
            return
        if self._init is not None and procs.alive(self._init):
            # SIGRTMIN+4 is the order to power off: systemd(1).
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init.pid, signal.SIGRTMIN + 4)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._nspawn.wait(30)
        family = procs.family([self._nspawn.pid])
        for process in family:
            procs.send(process, signal.SIGKILL)
        self._nspawn.wait(30)
        until(lambda: not any(map(procs.alive, family)), 30, "the machine to end")
        self._nspawn = self._init = None
