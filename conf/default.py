# Configuration of inosync.
#
# This file is Python. Every setting is here: the three that are required with an example, all others
# commented out with their defaults. To change one, remove the "# " in front. Names of your own begin with an
# underscore; modules and functions may have any name. Others must not be able to write to the file or its
# directory, because it is run with the rights of the daemon.
#
# After a change: inosync -s reload. A file with a mistake is not taken: the old configuration stays in
# force, and one line for each mistake says what would be right.

# What is mirrored, and where to -----------------------------------------------------------------------

# The directories on this machine that are mirrored, a list. They exist (but see rwait), and none lies inside
# another.
wpaths = [
    "/var/www/",
    "/srv/downloads/",
]

# Where each of them lives on the nodes: one rpath for each wpath, in the same order. All files there that are
# not in the wpath are deleted (see rdelete).
rpaths = [
    "/var/www/",
    "/srv/downloads/",
]

# The nodes in rsync's syntax, or dictionaries with node and any of name, rspeed, extra, rexcludes, rtimeout,
# rwarm, rverify, rchecksum, wpaths and senders. The target of a transfer is the node followed by the rpath.
#
#   "user@host:"             through ssh; use a key without a passphrase, or an agent
#   "host::module"           an rsync daemon
#   "rsync://host/module"    the same, also with a port: rsync://host:8730/module
#   "user@[2001:db8::1]:"    an IPv6 address
#   "/mnt/copy"              a directory of this machine
#
# A dictionary gives a node a name, and values of its own. Its extra and its rexcludes are used together with
# those of the file, the others instead of them. Only its wpaths are mirrored to it.
rnodes = [
    "user1@a.mirror.com:",
    "user2@b.mirror.com:",
    {"node": "rsync://c.mirror.com/mirror", "name": "c", "rspeed": 500, "rexcludes": ["/drafts"]},
]

# What is transferred, and when ------------------------------------------------------------------------

# Exclude patterns of rsync: a list for all wpaths, or a dictionary from wpath (or "*") to a list.
#
#   rexcludes = {"*": ["*.tmp", ".git/"], "/var/www/": ["/cache"]}
#
# A pattern with a slash in front is relative to the wpath. "+ PATTERN" includes what a later one excludes.
# rsync takes the first pattern that matches: those of a node come first, then those of a wpath, then those
# for all, then those in extra. What is excluded is not deleted on a node.
#
# A list, or an item of it, can be a file as for rsync's --exclude-from: one pattern a line; # or ; begins a
# comment. A change of the file takes effect at once. Others must not be able to write to it.
#
#   rexcludes = {"from": "/etc/inosync/www.exclude"}
#   rexcludes = {"*": ["*.tmp"], "/var/www/": ["/cache", {"from": "/etc/inosync/www.exclude"}]}
# rexcludes = []

# The inotify events that trigger a transfer. Those that only reading a file causes (IN_ACCESS, IN_OPEN,
# IN_CLOSE_NOWRITE) are left out, because rsync itself causes them.
# emask = [
#     "IN_CLOSE_WRITE",
#     "IN_CREATE",
#     "IN_DELETE",
#     "IN_MOVED_FROM",
#     "IN_MOVED_TO",
#     "IN_ATTRIB",
# ]

# The longest that a change waits before it is sent, in seconds; it may wait so long only while sending takes
# more than half of this machine's processors.
# edelay = 10

# The shortest wait, in seconds: a change is sent once nothing else has changed for so long, or after twenty
# times that.
# equiet = 0.01

# When deletions are mirrored: True always, False never, "startup" only when a whole directory is compared (as
# after the start), "running" only what is deleted while inosync runs.
# rdelete = True

# Halt instead of mirroring the loss of a whole wpath. A wpath is lost if it is moved away, unmounted,
# replaced by an empty directory, or emptied at once. Nothing is deleted then; ps and the log say why.
# Mirroring goes on when the files are back. If the deletion is intended: inosync -s accept.
# rguard = True

# Halt instead of mirroring more removals than this within edelay: a number of files and directories, or a
# share of the wpath such as "20%"; None is any number. The log, ps and -s status say how many there were, and
# where. Nothing of the wpath is mirrored until inosync -s accept.
# rmaxdelete = None

# How often each node is compared in full with this machine, in seconds; 0 is never. This runs beside what is
# sent, one node at a time, when the node is ok. The log tells what differs, and it is sent again. An item of
# rnodes can have its own.
# rverify = 86400

# Compare the contents of all files then, not only sizes, times and modes. Each file is read here and on the
# node. An item of rnodes can have its own.
# rchecksum = False

# Wait for a wpath that does not exist yet, instead of refusing it. A wpath is waited for anyway if fstab says
# that something is mounted there.
# rwait = False

# Roll-outs in stages ----------------------------------------------------------------------------------

# Lists of nodes, by their names: each stage is sent only what all nodes of the one before have confirmed; the
# last may be "rest", all other nodes.
#
#   rstages = [["a.mirror.com"], ["b.mirror.com", "c.mirror.com"], "rest"]
# rstages = None

# What is run when a stage has confirmed everything: only if its exit code is 0, the next one is sent that. It
# is written as on_sync. A dictionary can also have "settle" (seconds from the confirmation to the check),
# "patience" (seconds after which nodes that come no further than others of their stage are not waited for)
# and "only" (patterns: changes of other names need no check).
#
#   on_stage = {"command": ["/usr/local/sbin/check"], "timeout": 60, "settle": 30, "patience": 600}
# on_stage = None

# How it is transferred --------------------------------------------------------------------------------

# The rsync program, as an absolute path.
# rsync = "/usr/bin/rsync"

# More parameters for rsync: a string, split as a shell would split it, or a list of strings.
#
#   extra = "--rsh='ssh -p 2222' --compress"
#
# Filter rules in it (--exclude, --include, --exclude-from, --include-from, --filter) apply after rexcludes.
# An item of rnodes can have its own.
# extra = ""

# The greatest speed of a transfer to one node, in KB/s of 1024 bytes; 0 is without a limit; or a timetable. A
# timetable has times of day, by the local clock, and the limit from each of them on.
#
#   rspeed = "08:00,512 18:00,2000 23:00,0"
#
# At each of these times the rsyncs that run are ended, and started again at once with the new limit. An item
# of rnodes can have its own.
# rspeed = 0

# How many full mirrors and large batches run at once; 0 is twice the number of processors. A batch is large
# from 1,000 names on. A transfer of more than 30 seconds does not count any more. Small batches go to all
# nodes at once.
# rslots = 0

# Keep an rsync connected to each node, for each of the wpaths that changed last; or how many. A change then
# does not wait for a connection, and a node that is out of reach is known before there is a change for it.
# True keeps 4 for each node, fewer from 51 nodes on (200 in all), and at least one. False starts an rsync for
# each batch. An item of rnodes can have its own.
# rwarm = True

# After how many seconds without progress a transfer is ended, and tried again. If it is between 10 and 60, it
# is also the time after which a worker process that takes no orders is replaced. An item of rnodes can have
# its own.
# rtimeout = 300

# The first and the longest pause after a failed transfer, in seconds. The pauses double in between. The tries
# never end.
# rretry = (1, 300)

# Several machines that send ---------------------------------------------------------------------------

# The Redis in which the journal of a fleet is kept; None: this machine sends all by itself.
#
#   fleet = "redis://queue.example.com/0"
#   fleet = {"url": "rediss://inosync@queue.example.com/0", "password_file": "/etc/inosync/redis"}
#
# Behind Sentinels (redis+sentinel://HOST,HOST/SERVICE) there are sentinel_user and sentinel_password_file,
# too. It needs the client redis (pip install 'inosync[fleet]'), and rdelete = True.
# fleet = None

# The machines that send for this one, in rsync's syntax, or dictionaries with node and any of name, path,
# shared and what a node can have.
#
#   rsenders = [{"node": "eu-1.example.com:/srv/relay/", "name": "eu-1"},
#               {"name": "eu-2", "shared": True}]
#
# Each gets all wpaths, and sends them on to the nodes that it serves. path is where its copies are, as it
# sees them; it can be left out if node says that. With "shared": True it has the same storage as this machine
# (NFS, Ceph), at the same place, or at path followed by the rpath, and nothing is sent to it. The senders of
# a node are those that may serve it: {"node": ..., "senders": ["eu-1", "eu-2"]}; by default all; with [] this
# machine serves it.
# rsenders = []

# The daemon itself ------------------------------------------------------------------------------------

# The user, or user:group, that inosync goes on as when root has started it. It can still read everything
# (CAP_DAC_READ_SEARCH), and write nothing but what belongs to that user.
# ruser = None

# An address and a port for metrics and the page, such as "127.0.0.1:9187" or "[::1]:9187". Everyone that
# connects to it sees names and states of the nodes: there is no password. It needs prometheus_client, and for
# the page jinja2 (pip install 'inosync[metrics]').
# rlisten = None

# What is run after each batch that has come through, such as to purge a cache. It is a program with its
# arguments, which no shell takes apart, a function, or either with a limit, {"command": ..., "timeout": 60}.
# INOSYNC_NODE, INOSYNC_WPATH and others in its environment describe the batch. conf/purge-cache is an
# example.
# on_sync = None

# What is run when the state of a node has changed. {"command": [...], "after": 300} is run only for nodes
# that have been behind for five minutes, and when that is over. conf/mail-when-behind is an example.
# on_state = None

# A file for the log, in a directory that exists; None is syslog for a daemon (-d), else standard error.
# logfile = None

# How the lines of the log look: "text", or "json" for programs that read them.
# logformat = "text"

# A directory for inosync alone, with the pid file, the control socket and what is being sent; None is
# /run/inosync for root, for other users $XDG_RUNTIME_DIR/inosync. It is made, with mode 0700. One that others
# use is refused.
# rundir = None

# A directory for inosync alone, where it keeps what each node has, so that a restart needs no full mirrors;
# None is /var/lib/inosync for root, for other users $XDG_STATE_HOME/inosync or ~/.local/state/inosync; an
# empty string: nothing is kept. It is made, with mode 0700. If it cannot be used, a warning says so, and each
# start makes full mirrors.
# statedir = None
