"""The table of settings: what each is called, its default, its check, and what it means.

From it come the checks and defaults of ``load``, what ``inosync -t`` shows, ``conf/default.py``, and the
reference in README.rst and inosync.conf(5); bin/reference.py writes the last two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from inosync.config import checks, fleet, hook, local_checks, nodes, timetable
from inosync.config.checks import Check, list_of, string
from inosync.config.errors import Invalid, invalid
from inosync.config.events import DEFAULT_EVENTS, events
from inosync.text import did_you_mean, format_value

REQUIRED = object()


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a configuration file."""

    name: str
    check: Check
    meaning: str
    """One sentence without its period, for the reference. ``{unit}`` stands for the unit."""
    default: Any = REQUIRED
    """As it is written in a file."""
    unit: str = ""
    see: str = ""
    """The section of README.rst that says more."""
    text: str = ""
    """Further paragraphs for conf/default.py; those that are indented are kept as they are."""
    example: str = ""
    """Of a required setting, for error messages."""
    sample: str = ""
    """Of a required setting, for conf/default.py."""
    per_node: bool = False
    """Whether an item of ``rnodes`` can have its own value."""
    formerly: str = ""
    """Its name in the older form of inosync 0.2.3."""


def unknown(name: object, known: Iterable[str]) -> tuple[str, str]:
    """Return what is wrong with a name that is no setting, and a hint."""
    if meant := did_you_mean(str(name).lower(), known):
        return f"{meant} There is no setting of this name", ""
    return "there is no setting of this name", "names of your own begin with an underscore"


def _node(value: object) -> dict[str, Any]:
    """Check an item of ``rnodes``; return it with "node", "name", and what overrides the file's settings."""
    if not isinstance(value, dict):
        return _named({"node": nodes.check_node(value)})
    if "node" not in value:
        raise invalid(value, "has no 'node'", 'write {"node": "user@host:", ...}')
    try:
        items = dict(checks.each(value.items(), lambda item: _node_item(value["node"], *item)))
    except Invalid as error:
        good = dict(item for item in error.usable if item is not None)
        raise Invalid(*error.problems, usable=_named(good) if "node" in good else None) from None
    return _named(items)


def _sender(value: object) -> dict[str, Any]:
    """Check an item of ``rsenders``."""
    items = value if isinstance(value, dict) else {"node": value}
    for key in items:
        if key != "node" and key not in PER_SENDER:
            raise invalid(key, "is not known in rsenders", f"there are node, {', '.join(PER_SENDER)}")
    # Nothing is sent to one with shared storage, so a name is enough.
    by_name = items.get("shared") is True and "node" not in items
    node = checks.name(items.get("name")) if by_name else nodes.check_node(items.get("node"))
    checked = {
        key: checks.inside(f"{key} of {format_value(node)}", PER_SENDER[key], item)
        for key, item in items.items()
        if key != "node"
    }
    return _named({"node": node, **checked})


def _named(items: dict[str, Any]) -> dict[str, Any]:
    return {"name": nodes.display_name(items["node"]), **items}


def _node_item(node: object, key: object, value: object) -> tuple[str, Any]:
    if key == "node":
        return "node", nodes.check_node(value)
    if not isinstance(key, str) or key not in PER_NODE:
        raise invalid(key, *unknown(key, ["node", *PER_NODE]), f"in {format_value(node)}")
    return key, checks.inside(f"{key} of {format_value(node)}", PER_NODE[key], value)


_WPATHS = 'wpaths = ["/var/www/"]'
_RPATHS = 'rpaths = ["/var/www/"], one for each wpath'
_RNODES = 'rnodes = ["user@host:"]'

GROUPS: dict[str, tuple[Setting, ...]] = {
    "What is mirrored, and where to": (
        Setting(
            "wpaths",
            local_checks.wpaths(_WPATHS),
            "the directories on this machine that are mirrored, a list",
            text="They exist (but see rwait), and none lies inside another.",
            example=_WPATHS,
            sample='wpaths = [\n    "/var/www/",\n    "/srv/downloads/",\n]',
            formerly="wpath",
        ),
        Setting(
            "rpaths",
            list_of(string, _RPATHS),
            "where each of them lives on the nodes: one rpath for each wpath, in the same order",
            text="All files there that are not in the wpath are deleted (see rdelete).",
            example=_RPATHS,
            sample='rpaths = [\n    "/var/www/",\n    "/srv/downloads/",\n]',
        ),
        Setting(
            "rnodes",
            list_of(_node, _RNODES),
            "the nodes in rsync's syntax, or dictionaries with ``node`` and any of ``name``, ``rspeed``, "
            "``extra``, ``rexcludes``, ``rtimeout``, ``rwarm``, ``rverify``, ``rchecksum``, ``wpaths`` and "
            "``senders``",
            text="""The target of a transfer is the node followed by the rpath.

  "user@host:"             through ssh; use a key without a passphrase, or an agent
  "host::module"           an rsync daemon
  "rsync://host/module"    the same, also with a port: rsync://host:8730/module
  "user@[2001:db8::1]:"    an IPv6 address
  "/mnt/copy"              a directory of this machine

A dictionary gives a node a name, and values of its own. Its extra and its rexcludes are used together with
those of the file, the others instead of them. Only its wpaths are mirrored to it.""",
            example=_RNODES,
            sample="""rnodes = [
    "user1@a.mirror.com:",
    "user2@b.mirror.com:",
    {"node": "rsync://c.mirror.com/mirror", "name": "c", "rspeed": 500, "rexcludes": ["/drafts"]},
]""",
        ),
    ),
    "What is transferred, and when": (
        Setting(
            "rexcludes",
            checks.excludes,
            'exclude patterns of rsync: a list for all wpaths, or a dictionary from wpath (or ``"*"``) to a '
            "list",
            [],
            see="Excludes",
            text="""  rexcludes = {"*": ["*.tmp", ".git/"], "/var/www/": ["/cache"]}

A pattern with a slash in front is relative to the wpath. "+ PATTERN" includes what a later one excludes.
rsync takes the first pattern that matches: those of a node come first, then those of a wpath, then those for
all, then those in extra. What is excluded is not deleted on a node.

A list, or an item of it, can be a file as for rsync's --exclude-from: one pattern a line; # or ; begins a
comment. A change of the file takes effect at once. Others must not be able to write to it.

  rexcludes = {"from": "/etc/inosync/www.exclude"}
  rexcludes = {"*": ["*.tmp"], "/var/www/": ["/cache", {"from": "/etc/inosync/www.exclude"}]}""",
        ),
        Setting(
            "emask",
            events,
            "the inotify events that trigger a transfer",
            DEFAULT_EVENTS,
            text="Those that only reading a file causes (IN_ACCESS, IN_OPEN, IN_CLOSE_NOWRITE) are left out, "
            "because rsync itself causes them.",
        ),
        Setting(
            "edelay",
            checks.seconds,
            "the longest that a change waits before it is sent, in {unit}; it may wait so long only while "
            "sending takes more than half of this machine's processors",
            10,
            unit="seconds",
        ),
        Setting(
            "equiet",
            checks.seconds,
            "the shortest wait, in {unit}: a change is sent once nothing else has changed for so long, or "
            "after twenty times that",
            0.01,
            unit="seconds",
        ),
        Setting(
            "rdelete",
            checks.delete,
            'when deletions are mirrored: ``True`` always, ``False`` never, ``"startup"`` only when a whole '
            'directory is compared (as after the start), ``"running"`` only what is deleted while inosync '
            "runs",
            True,
        ),
        Setting(
            "rguard",
            checks.boolean,
            "halt instead of mirroring the loss of a whole wpath",
            True,
            see="When a whole tree is lost",
            text="A wpath is lost if it is moved away, unmounted, replaced by an empty directory, or "
            "emptied at once. Nothing is deleted then; ps and the log say why. Mirroring goes on when the "
            "files are back. If the deletion is intended: inosync -s accept.",
        ),
        Setting(
            "rmaxdelete",
            checks.max_removals,
            "halt instead of mirroring more removals than this within ``edelay``: a number of files and "
            'directories, or a share of the wpath such as ``"20%"``; ``None`` is any number',
            None,
            see="When too much is removed",
            text="The log, ps and -s status say how many there were, and where. Nothing of the wpath is "
            "mirrored until inosync -s accept.",
        ),
        Setting(
            "rverify",
            checks.seconds,
            "how often each node is compared in full with this machine, in {unit}; 0 is never",
            86_400,
            unit="seconds",
            see="Verification",
            text="This runs beside what is sent, one node at a time, when the node is ok. The log tells what "
            "differs, and it is sent again.",
            per_node=True,
        ),
        Setting(
            "rchecksum",
            checks.boolean,
            "compare the contents of all files then, not only sizes, times and modes",
            False,
            text="Each file is read here and on the node.",
            per_node=True,
        ),
        Setting(
            "rwait",
            checks.boolean,
            "wait for a wpath that does not exist yet, instead of refusing it",
            False,
            text="A wpath is waited for anyway if fstab says that something is mounted there.",
        ),
    ),
    "Roll-outs in stages": (
        Setting(
            "rstages",
            checks.stages,
            "lists of nodes, by their names: each stage is sent only what all nodes of the one before have "
            'confirmed; the last may be ``"rest"``, all other nodes',
            None,
            see="Roll-outs in stages",
            text="""  rstages = [["a.mirror.com"], ["b.mirror.com", "c.mirror.com"], "rest"]""",
        ),
        Setting(
            "on_stage",
            local_checks.on_stage,
            "what is run when a stage has confirmed everything: only if its exit code is 0, the next one is "
            "sent that",
            None,
            see="Roll-outs in stages",
            text="""It is written as on_sync. A dictionary can also have "settle" (seconds from the
confirmation to the check), "patience" (seconds after which nodes that come no further than others of their
stage are not waited for) and "only" (patterns: changes of other names need no check).

  on_stage = {"command": ["/usr/local/sbin/check"], "timeout": 60, "settle": 30, "patience": 600}""",
        ),
    ),
    "How it is transferred": (
        Setting("rsync", local_checks.program, "the rsync program, as an absolute path", "/usr/bin/rsync"),
        Setting(
            "extra",
            checks.extra,
            "more parameters for rsync: a string, split as a shell would split it, or a list of strings",
            "",
            text="""  extra = "--rsh='ssh -p 2222' --compress"

Filter rules in it (--exclude, --include, --exclude-from, --include-from, --filter) apply after rexcludes.""",
            per_node=True,
        ),
        Setting(
            "rspeed",
            timetable.check,
            "the greatest speed of a transfer to one node, in {unit} of 1024 bytes; 0 is without a limit; "
            "or a timetable",
            0,
            unit="KB/s",
            see="Speed by the time of day",
            text="""A timetable has times of day, by the local clock, and the limit from each of them on.

  rspeed = "08:00,512 18:00,2000 23:00,0"

At each of these times the rsyncs that run are ended, and started again at once with the new limit.""",
            per_node=True,
        ),
        Setting(
            "rslots",
            local_checks.slots,
            "how many full mirrors and large batches run at once; 0 is twice the number of processors",
            0,
            text="A batch is large from 1,000 names on. A transfer of more than 30 seconds does not count "
            "any more. Small batches go to all nodes at once.",
        ),
        Setting(
            "rwarm",
            nodes.check_warm,
            "keep an rsync connected to each node, for each of the wpaths that changed last; or how many",
            True,
            see="Connections that are kept",
            text="A change then does not wait for a connection, and a node that is out of reach is known "
            "before there is a change for it. True keeps 4 for each node, fewer from 51 nodes on (200 in "
            "all), and at least one. False starts an rsync for each batch.",
            per_node=True,
        ),
        Setting(
            "rtimeout",
            checks.some_seconds,
            "after how many {unit} without progress a transfer is ended, and tried again",
            300,
            unit="seconds",
            text="If it is between 10 and 60, it is also the time after which a worker process that takes no "
            "orders is replaced.",
            per_node=True,
        ),
        Setting(
            "rretry",
            checks.retry,
            "the first and the longest pause after a failed transfer, in {unit}",
            (1, 300),
            unit="seconds",
            text="The pauses double in between. The tries never end.",
        ),
    ),
    "Several machines that send": (
        Setting(
            "fleet",
            fleet.redis_address,
            "the Redis in which the journal of a fleet is kept; ``None``: this machine sends all by itself",
            None,
            see="A fleet of senders",
            text="""  fleet = "redis://queue.example.com/0"
  fleet = {"url": "rediss://inosync@queue.example.com/0", "password_file": "/etc/inosync/redis"}

Behind Sentinels (redis+sentinel://HOST,HOST/SERVICE) there are sentinel_user and sentinel_password_file, too.
It needs the client redis (pip install 'inosync[fleet]'), and rdelete = True.""",
        ),
        Setting(
            "rsenders",
            list_of(_sender, '["eu-1.example.com:/srv/relay/"]', empty=True),
            "the machines that send for this one, in rsync's syntax, or dictionaries with ``node`` and any "
            "of ``name``, ``path``, ``shared`` and what a node can have",
            [],
            see="A fleet of senders",
            text="""  rsenders = [{"node": "eu-1.example.com:/srv/relay/", "name": "eu-1"},
              {"name": "eu-2", "shared": True}]

Each gets all wpaths, and sends them on to the nodes that it serves. path is where its copies are, as it sees
them; it can be left out if node says that. With "shared": True it has the same storage as this machine (NFS,
Ceph), at the same place, or at path followed by the rpath, and nothing is sent to it. The senders of a node
are those that may serve it: {"node": ..., "senders": ["eu-1", "eu-2"]}; by default all; with [] this machine
serves it.""",
        ),
    ),
    "The daemon itself": (
        Setting(
            "ruser",
            local_checks.ruser,
            "the user, or ``user:group``, that inosync goes on as when root has started it",
            None,
            see="Least privilege",
            text="It can still read everything (CAP_DAC_READ_SEARCH), and write nothing but what belongs to "
            "that user.",
        ),
        Setting(
            "rlisten",
            local_checks.listen,
            'an address and a port for metrics and the page, such as ``"127.0.0.1:9187"`` or '
            '``"[::1]:9187"``',
            None,
            see="Metrics and page",
            text="Everyone that connects to it sees names and states of the nodes: there is no password. It "
            "needs prometheus_client, and for the page jinja2 (pip install 'inosync[metrics]').",
        ),
        Setting(
            "on_sync",
            local_checks.runnable(hook.on_sync),
            "what is run after each batch that has come through, such as to purge a cache",
            None,
            see="Hooks",
            text="""It is a program with its arguments, which no shell takes apart, a function, or either with
a limit, {"command": ..., "timeout": 60}. INOSYNC_NODE, INOSYNC_WPATH and others in its environment describe
the batch. conf/purge-cache is an example.""",
        ),
        Setting(
            "on_state",
            local_checks.runnable(hook.on_state),
            "what is run when the state of a node has changed",
            None,
            see="Hooks",
            text="""{"command": [...], "after": 300} is run only for nodes that have been behind for five
minutes, and when that is over. conf/mail-when-behind is an example.""",
        ),
        Setting(
            "logfile",
            local_checks.logfile,
            "a file for the log, in a directory that exists; ``None`` is syslog for a daemon (``-d``), else "
            "standard error",
            None,
        ),
        Setting(
            "logformat",
            checks.one_of("text", "json"),
            'how the lines of the log look: ``"text"``, or ``"json"`` for programs that read them',
            "text",
            see="The log",
        ),
        Setting(
            "rundir",
            local_checks.rundir,
            "a directory for inosync alone, with the pid file, the control socket and what is being sent; "
            "``None`` is ``/run/inosync`` for root, for other users ``$XDG_RUNTIME_DIR/inosync``",
            None,
            text="It is made, with mode 0700. One that others use is refused.",
        ),
        Setting(
            "statedir",
            local_checks.statedir,
            "a directory for inosync alone, where it keeps what each node has, so that a restart needs no "
            "full mirrors; ``None`` is ``/var/lib/inosync`` for root, for other users "
            "``$XDG_STATE_HOME/inosync`` or ``~/.local/state/inosync``; an empty string: nothing is kept",
            None,
            see="Restart",
            text="It is made, with mode 0700. If it cannot be used, a warning says so, and each start makes "
            "full mirrors.",
        ),
    ),
}
"""The settings under the headings of conf/default.py."""

SETTINGS = {setting.name: setting for group in GROUPS.values() for setting in group}

PER_NODE: dict[str, Check] = {
    "name": checks.name,
    "rexcludes": checks.patterns,
    "wpaths": list_of(string, '["/var/www/"], some of the wpaths'),
    "senders": fleet.sender_names,
} | {setting.name: setting.check for setting in SETTINGS.values() if setting.per_node}
"""What an item of ``rnodes`` may have beside its ``node``."""

PER_SENDER: dict[str, Check] = {
    "name": checks.name,
    "path": fleet.sender_path,
    "shared": checks.boolean,
} | {name: PER_NODE[name] for name in PER_NODE if name not in ("rexcludes", "wpaths", "senders")}
"""What an item of ``rsenders`` may have beside its ``node``."""
