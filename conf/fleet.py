# An example of a configuration for a fleet of senders. Every machine of the fleet has the same file:
#
#     the origin, where the directories are written:   inosync -c /etc/inosync/default.py
#     the sender eu-1:                                 inosync -c /etc/inosync/default.py --sender eu-1
#     the sender us-1:                                 inosync -c /etc/inosync/default.py --sender us-1
#
# Each of them needs: pip install 'inosync[fleet]'. The origin reaches the senders, and the senders the nodes,
# as inosync does everywhere: with a key without a passphrase.

wpaths = ["/var/www/"]
rpaths = ["/www/"]

# The journal of the fleet. Redis 6.2 or later, or Valkey, with appendonly yes. The password is in a file that
# only the user of inosync can read. rediss:// is Redis through TLS,
# and redis+sentinel://HOST,HOST,HOST/SERVICE one that Sentinels know.
fleet = {"url": "rediss://inosync@queue.example.com/0", "name": "www", "password_file": "/etc/inosync/redis"}

# The senders: where the origin puts the directories. /srv/relay exists on each of them, the copy is
# /srv/relay/www, and /srv/relay/.inosync has what rsync is receiving. With an rsync daemon, path says where
# the copies are:
#     {"node": "us-2.example.com::relay", "name": "us-2", "path": "/srv/relay"}
# A sender that has the storage of the origin (NFS with actimeo=0, Ceph) needs no copy:
#     {"name": "us-3", "shared": True}
rsenders = [
    {"node": "relay@eu-1.example.com:/srv/relay", "name": "eu-1"},
    {"node": "relay@eu-2.example.com:/srv/relay", "name": "eu-2"},
    {"node": "relay@us-1.example.com:/srv/relay", "name": "us-1"},
]

# A node says which senders may serve it, by default all. With "senders": [] the origin serves it itself.
rnodes = [
    {"node": "www@a.eu.mirror.com:/srv", "senders": ["eu-1", "eu-2"]},
    {"node": "www@b.eu.mirror.com:/srv", "senders": ["eu-1", "eu-2"]},
    "www@c.us.mirror.com:/srv",
    {"node": "/mnt/backup", "senders": []},
]
