"""A file system that never answers, as one over a network whose server is gone; for root only.

    python hanging.py DIRECTORY

mounts it (fuse(4)) and prints a line. Whoever looks at anything in it waits, and once it was asked for that
cannot even be killed. All of them go on, with an error, when this process ends.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_INIT, _VERSION = 26, (7, 12)
_LAZILY = 2  # MNT_DETACH, umount(2)
_HEADER = struct.Struct("<IIQ")


def main(path: str) -> None:
    """Be the file system."""
    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"hanging", os.fsencode(path), b"fuse", 0, options) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    while True:
        request = os.read(device, 1 << 17)
        _, opcode, unique = _HEADER.unpack_from(request)
        if opcode == _INIT:
            answer = struct.pack("<IIIIHHI", *_VERSION, 0, 0, 0, 0, 4096)
            os.write(device, struct.pack("<IiQ", 16 + len(answer), 0, unique) + answer)
            print("mounted", flush=True)


@contextmanager
def hanging(path: Path) -> Iterator[bool]:
    """Let it be mounted on a directory, if that can be; at the end everybody goes on."""
    argv = [sys.executable, __file__, str(path)]
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
    main(sys.argv[1])
