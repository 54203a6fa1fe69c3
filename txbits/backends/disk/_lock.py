"""
The lock of a root: one server at a time.
"""

from __future__ import annotations

import fcntl

from txbits.backends.disk._files import Files
from txbits.backends.disk._probe import NO_LOCKS
from txbits.errors import BackendError


def take(files: Files, fd: int, root: str) -> str:
    """
    Lock a root for as long as a descriptor of its lock is open.

    :param fd: That descriptor, open for writing.
    :param root: What to call it.
    :returns: What the file system lacks for that, in words; empty if nothing.
    :raises BackendError: If another server has it, or nobody could tell.
    :raises OSError: If it fails in another way.
    """
    try:
        try:
            files.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            lacking = f"flock ({error.strerror}; fcntl is used)"
        else:
            return ""
        try:
            files.lock_open_file(fd)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise BackendError(
                f"{root} is on a file system without locks ({error.strerror}), so two "
                "servers could use it at once; enable locks (NFS: start the lock "
                "service, Lustre: mount with -o flock), or choose a directory on "
                "another file system"
            ) from error
    except BlockingIOError:
        raise BackendError(
            f"{root} is in use by another txbits; stop that one, or give this "
            "one a directory of its own"
        ) from None
    return lacking
