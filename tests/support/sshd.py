"""A real sshd on loopback for the user who runs the tests."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.network import Place
from support.procs import Server, free_port


class Sshd(Server):
    """An sshd on 127.0.0.1 with keys of its own, so that only this test can log in.

    Any host name ``node-...`` leads to it with ``rsh``, or with ``ssh`` in the ``PATH`` of ``env()``: the
    latter leaves rsync daemons in the same configuration alone, while with an explicit ``--rsh`` rsync
    would try to reach those through ssh as well. With ``place`` it is in that network. ``client``: options
    of ssh's, which win.
    """

    name = "sshd"

    def __init__(
        self, home: Path, place: Place | None = None, client: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(home / "sshd.log", place)
        self.port = free_port()
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)
        # sshd executes itself for every connection and requires an absolute path.
        sshd = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")
        ssh = shutil.which("ssh")
        assert sshd, "sshd is not installed"
        assert ssh, "ssh is not installed"
        self._sshd = os.path.realpath(sshd)
        self.ssh_config = home / "ssh_config"
        self._server_config = home / "sshd_config"
        self._keys()
        self._configure_server()
        self._configure_client(ssh, client or {})

    @property
    def rsh(self) -> str:
        """The remote shell for rsync's ``--rsh``; in a configuration ``extra = ["--rsh=" + rsh]``."""
        return f"ssh -F {shlex.quote(str(self.ssh_config))}"

    def env(self) -> dict[str, str]:
        """Return an environment in which plain ``ssh`` knows the hosts ``node-...``, as by ~/.ssh/config."""
        return {"PATH": f"{self.home / 'bin'}:{os.environ.get('PATH', os.defpath)}"}

    def env_of_user(self, home: Path, config: str = "") -> dict[str, str]:
        """Return the same for a user who has ``config`` in ~/.ssh/config, and not the options for tests."""
        home.mkdir(exist_ok=True)
        own = self.ssh_config.read_text()
        for option in ("BatchMode yes", "ConnectTimeout 20", "LogLevel ERROR"):
            own = own.replace(f"  {option}\n", "")
        (home / "config").write_text(f"{config}\n{own}")
        wrapper = home / "ssh"
        wrapper.write_text(f'#!/bin/sh\nexec "{self.home}/bin/ssh" -F "{home}/config" "$@"\n')
        wrapper.chmod(0o755)
        return {"PATH": f"{home}:{os.environ.get('PATH', os.defpath)}"}

    @property
    def logins(self) -> int:
        """The number of logins so far."""
        return self.log().count("Accepted publickey")

    def node(self, name: str, path: str | Path = "") -> str:
        """Return a node of this name in rsync's syntax, optionally with the directory of its trees."""
        return f"node-{name}:{path}"

    def command(self) -> Sequence[str]:
        return (self._sshd, "-D", "-e", "-f", str(self._server_config))

    def accepts(self) -> bool:
        return self.greets(b"SSH-")

    def refusal(self) -> str:
        """Return why the login fails, in the words of ssh; empty if it works."""
        done = subprocess.run(
            ["ssh", "-F", str(self.ssh_config), "node-probe", "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return (
            "" if done.returncode == 0 else done.stderr.decode(errors="replace") or f"exit {done.returncode}"
        )

    def _keys(self) -> None:
        for name in ("host_key", "user_key"):
            if not (self.home / name).exists():
                command = [
                    "ssh-keygen",
                    "-q",
                    "-t",
                    "ed25519",
                    "-N",
                    "",
                    "-C",
                    "",
                    "-f",
                    str(self.home / name),
                ]
                subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
        shutil.copy(self.home / "user_key.pub", self.home / "authorized_keys")
        key = (self.home / "host_key.pub").read_text()
        (self.home / "known_hosts").write_text(f"[{self.address}]:{self.port} {key}")

    def _configure_server(self) -> None:
        if os.geteuid() == 0:
            # sshd's privilege separation needs it, and on Debian only its unit makes it.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        settings = [
            f"ListenAddress {self.address}",
            f"Port {self.port}",
            f'HostKey "{self.home}/host_key"',
            f'AuthorizedKeysFile "{self.home}/authorized_keys"',
            f"AllowUsers {pwd.getpwuid(os.geteuid()).pw_name}",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PubkeyAuthentication yes",
            "PermitRootLogin prohibit-password",
            "MaxStartups 1000",
            "MaxSessions 1000",
            "UseDNS no",
            "X11Forwarding no",
            "PrintMotd no",
            # bash runs ~/.bashrc for a command of sshd unless it seems to be below another shell. That file
            # of the user may take a second or wait for a lock.
            "SetEnv SHLVL=1",
            "LogLevel VERBOSE",
        ]
        # OpenSSH 9.8 and later block an address for a while when its connections break; older versions do not
        # know the option.
        for extra in (["PerSourcePenalties no"], []):
            self._server_config.write_text("\n".join(settings + extra) + "\n")
            test = [self._sshd, "-t", "-f", str(self._server_config)]
            done = subprocess.run(test, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            if done.returncode == 0:
                return
        raise AssertionError(f"sshd refuses its configuration: {done.stderr.decode(errors='replace')}")

    def _configure_client(self, ssh: str, own: Mapping[str, str]) -> None:
        self.ssh_config.write_text(
            "\n".join(
                [
                    "Host node-*",
                    # ssh uses the first value of an option.
                    *(f"  {option} {value}" for option, value in own.items()),
                    f"  HostName {self.address}",
                    f"  Port {self.port}",
                    f"  User {pwd.getpwuid(os.geteuid()).pw_name}",
                    f'  IdentityFile "{self.home}/user_key"',
                    "  IdentitiesOnly yes",
                    "  IdentityAgent none",
                    f'  UserKnownHostsFile "{self.home}/known_hosts"',
                    "  GlobalKnownHostsFile /dev/null",
                    "  StrictHostKeyChecking yes",
                    "  UpdateHostKeys no",
                    "  CheckHostIP no",
                    "  BatchMode yes",
                    "  ConnectTimeout 20",
                    "  ControlMaster no",
                    "  ControlPath none",
                    "  LogLevel ERROR",
                ]
            )
            + "\n"
        )
        wrapper = self.home / "bin" / "ssh"
        wrapper.parent.mkdir(exist_ok=True)
        wrapper.write_text(
            f'#!/bin/sh\nexec {shlex.quote(ssh)} -F {shlex.quote(str(self.ssh_config))} "$@"\n'
        )
        wrapper.chmod(0o755)
