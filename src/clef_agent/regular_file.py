"""Small files that are read whole, and never wait for anybody."""

from __future__ import annotations

import errno
import os
import stat


def read_regular_file(path: str, max_bytes: int = 64 * 1024) -> bytes:
    """What the file ``path`` holds; links to it are followed, as Kubernetes mounts secrets.

    A FIFO in a file's place would hold the process until somebody writes, a device would never
    end: neither is opened for longer than it takes to see what it is.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger than ``max_bytes``.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor has no path
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", path)
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"it has more than {max_bytes:,} bytes", path)
    return data
