"""
Renaming a file without replacing another one, by Linux's ``renameat2()``, which Python
does not provide.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from typing import Any

_AT_FDCWD = -100

# linux/fs.h.
_RENAME_NOREPLACE = 1


def rename_without_replacing(
    source: str | bytes | os.PathLike[Any],
    target: str | bytes | os.PathLike[Any],
    *,
    src_dir_fd: int | None = None,
    dst_dir_fd: int | None = None,
) -> None:
    """
    Rename a file, unless the new name exists.

    :param src_dir_fd: The directory that *source* is relative to, as for
        :func:`os.rename`.
    :param dst_dir_fd: The directory that *target* is relative to.
    :raises FileExistsError: If the new name exists.
    :raises OSError: As :func:`os.rename` does; with ``ENOSYS`` if the C library or the
        kernel does not support this, with ``EINVAL`` if the file system does not.
    """
    renameat2 = _renameat2()
    if renameat2 is None:
        raise _error(errno.ENOSYS, source, target)
    result = renameat2(
        _AT_FDCWD if src_dir_fd is None else src_dir_fd,
        os.fsencode(source),
        _AT_FDCWD if dst_dir_fd is None else dst_dir_fd,
        os.fsencode(target),
        _RENAME_NOREPLACE,
    )
    if result != 0:
        raise _error(ctypes.get_errno(), source, target)


@cache
def _renameat2() -> Any:
    # If the C library has no such function, ctypes raises AttributeError.
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is not None:
        function.argtypes = (
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_uint,
        )
        function.restype = ctypes.c_int
    return function


def _error(number: int, source: Any, target: Any) -> OSError:
    return OSError(
        number, os.strerror(number), os.fsdecode(source), None, os.fsdecode(target)
    )
