"""A file system that does not answer one process, like NFS without its server; for root only.

    python hanging_filesystem.py DIRECTORY PID

mounts an empty file system (fuse(4)) and prints a line. Process PID, when it accesses it, hangs and cannot
be killed until this process ends; all others get an answer.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LAZILY = 2  # MNT_DETACH, umount(2)
_REQUEST = struct.Struct("<IIQQIII4x")  # length, opcode, unique, node, uid, gid, pid
_ANSWER = struct.Struct("<IiQ")
_LOOKUP, _GETATTR, _INIT, _OPENDIR, _READDIR, _RELEASEDIR = 1, 3, 26, 27, 28, 29
_UNANSWERED = (2, 36, 42)  # FORGET, INTERRUPT, BATCH_FORGET
_ROOT = struct.pack("<QI4x6Q3I5I2I", 0, 0, 1, *[0] * 5, *[0] * 3, stat.S_IFDIR | 0o755, 2, *[0] * 3, 4096, 0)
_ANSWERS = {
    _INIT: struct.pack("<IIIIHHI", 7, 12, 0, 0, 0, 0, 4096),
    _GETATTR: _ROOT,
    _OPENDIR: bytes(16),
    _READDIR: b"",
    _RELEASEDIR: b"",
}


def main(path: str, victim: int) -> None:
    """Mount the file system and serve it."""
    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if libc.mount(b"hanging", os.fsencode(path), b"fuse", 0, options) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    while True:
        _, opcode, unique, _, _, _, pid = _REQUEST.unpack_from(os.read(device, 1 << 17))
        if opcode not in _UNANSWERED and pid != victim:
            answer = _ANSWERS.get(opcode)
            error = 0 if answer is not None else errno.ENOENT if opcode == _LOOKUP else errno.ENOSYS
            answer = answer or b""
            os.write(device, _ANSWER.pack(_ANSWER.size + len(answer), -error, unique) + answer)
        if opcode == _INIT:
            print("mounted", flush=True)


@contextmanager
def hanging(path: Path, victim: int) -> Iterator[bool]:
    """Mount it on a directory while in the context; yield whether that was possible."""
    argv = [sys.executable, __file__, str(path), str(victim)]
    server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stderr is not None
    try:
        yield bool(server.stdout.readline())
    finally:
        server.kill()
        server.wait()
        for stream in (server.stdout, server.stderr):
            stream.close()
        ctypes.CDLL(None).umount2(os.fsencode(path), _LAZILY)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
