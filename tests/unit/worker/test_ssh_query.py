"""Whether connections are shared, by what a user's remote shell answers. The shells here are scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from inosync.rsync.ssh import Ways
from inosync.worker import ssh_query

# It takes the last ControlPath, as none of ours comes before one of the user's.
OPENSSH = """\
#!/bin/sh
path=none
for word; do
  case "$word" in
    -V) echo "OpenSSH_9.2p1" >&2; exit 0;;
    ControlPath=*) path="${word#ControlPath=}";;
  esac
done
path=$(printf %s "$path" | sed "s/%l/$(uname -n)/; s/%i/$(id -u)/")
printf 'controlmaster no\\ncontrolpersist no\\ncontrolpath %s\\n' "$path"
"""
OTHER = "#!/bin/sh\necho something else\n"
DEAF = OPENSSH.replace("path=$(printf", "path=/users/own; : $(printf")
SLOW = "#!/bin/sh\nexec sleep 60\n"


def ways(tmp_path: Path, script: str) -> Ways:
    shell = tmp_path / "shell"
    shell.write_text(script)
    shell.chmod(0o755)
    return ssh_query.ways("user@host:", (), "/run/inosync", {"RSYNC_RSH": f"{shell} -q"})


def test_shell_that_is_openssh_has_its_connection_shared(tmp_path: Path) -> None:
    found = ways(tmp_path, OPENSSH)
    assert found.path.startswith("/run/inosync/ssh-")
    (way,) = found.ways
    assert f"{tmp_path}/shell -q" in way.rsh
    assert f"ControlPath={found.path}" in way.rsh
    assert way.master[-4:] == ("-l", "user", "--", "host")


@pytest.mark.parametrize("script", [OTHER, DEAF], ids=["other", "deaf"])
def test_shell_that_does_not_prove_itself_is_left_alone(tmp_path: Path, script: str) -> None:
    assert ways(tmp_path, script) == Ways()


def test_shell_that_does_not_answer_in_time_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_query, "_ASK_SECONDS", 0.2)
    assert ways(tmp_path, SLOW) == Ways()


@pytest.mark.parametrize("node", ["host::module", "/local/path"])
def test_ssh_is_not_asked_for_a_node_that_it_does_not_reach(node: str) -> None:
    assert ssh_query.ways(node, (), "/run/inosync", {"RSYNC_RSH": "/missing"}) == Ways()
