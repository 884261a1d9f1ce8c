"""In which order the kernel closes the sockets of a process that is killed.

The sockets of a dying process are closed one after the other, on Linux from the highest descriptor down. A
listening socket was there before its connections, so it is closed after them: a client that has lost its
connection and comes back at once gets into the queue of the dead, is reset, and gRPC then lets all its calls
fail for the second that it waits until it tries again. Held by a high descriptor as well, the listening
socket is closed first, and whoever comes back reaches another worker.
"""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import stat

_HIGHEST = 2**16  # the kernel keeps a table as long as the highest descriptor


def hold_listeners_high() -> dict[int, int]:
    """Hold every listening socket of this process by a high descriptor too.

    Those descriptors, and their ports. They keep a port open: close them before it is to be closed.
    """
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    high = (_HIGHEST if soft_limit == resource.RLIM_INFINITY else min(soft_limit, _HIGHEST)) * 3 // 4
    try:
        descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
    except FileNotFoundError:  # not Linux: it closes as it likes
        return {}
    ports = {fd: port for fd in descriptors if (port := _listened_on(fd)) is not None}
    return {fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, high): port for fd, port in ports.items()}


def _listened_on(descriptor: int) -> int | None:
    """The TCP port that a descriptor listens on, if it does."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return None
        with socket.socket(fileno=os.dup(descriptor)) as candidate:
            listens = candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            internet = candidate.family in (socket.AF_INET, socket.AF_INET6)
            return int(candidate.getsockname()[1]) if listens and internet else None
    except OSError:  # closed by now
        return None
