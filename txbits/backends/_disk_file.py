"""
Published files on disk, opened to be served.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.defer import Deferred, succeed

from txbits.backends._files import Files
from txbits.backends._stored import StoredFile, by_pieces
from txbits.backends._tree import Tree
from txbits.backends._work import InThread, storage_error, translated
from txbits.errors import (
    DestinationIsDirectory,
    NoSuchFile,
    ParentMissing,
    StagedDataLost,
)

# Opening a pipe would wait for whoever writes into it.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

# How long two changes of a file may have the same time, in nanoseconds: two ticks of
# the slowest kernel clock, and what file systems take that count seconds.
_TICK = 20_000_000
_SECOND = 1_000_000_000


def open_plain_file(tree: Tree, files: Files, segments: tuple[str, ...]) -> int:
    """
    Open the file at a destination. It blocks.

    :param segments: What ``checked_segments`` has passed.
    :returns: A descriptor.
    :raises NoSuchFile: If there is none, or something that is no plain file, such as a
        symbolic link.
    :raises DestinationIsDirectory: If there is a directory.
    :raises BackendError: In the ways of ``Tree.open_parent``, and if it fails.
    """
    try:
        parent = tree.open_parent(segments)
    except ParentMissing as error:
        raise NoSuchFile(str(error)) from None
    try:
        fd = files.open(segments[-1].encode(), _READ, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        raise NoSuchFile(f"no {segments!a}") from None
    except OSError as error:
        there = tree.check_name(parent, segments, overwrite=True)
        if there is None or not stat.S_ISREG(there.st_mode):
            raise NoSuchFile(f"{segments!a} is no plain file") from None
        raise storage_error(error) from error
    finally:
        tree.let_go(parent)
    try:
        mode = files.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise DestinationIsDirectory(f"{segments!a} is a directory")
        if not stat.S_ISREG(mode):
            raise NoSuchFile(f"{segments!a} is no plain file")
    except BaseException:
        files.close(fd)
        raise
    return fd


def entity_tag(there: os.stat_result, now: float) -> str:
    """
    Make a tag that no other content of the file has, had, or will have.

    The time of the last change (``ctime``) cannot be set by anyone, and grows with each
    write, if not always at once: a file may be written to twice before the clock of its
    file system ticks. As long as that can be, each answer has a tag of its own.

    :param there: What ``fstat`` says.
    :param now: The time, in seconds.
    """
    changed = there.st_ctime_ns
    tag = f"{there.st_ino:x}-{there.st_size:x}-{there.st_mtime_ns:x}-{changed:x}"
    unsure = _TICK if changed % _SECOND else 2 * _SECOND
    if now * _SECOND - changed > unsure:
        return tag
    return f"{tag}-{secrets.token_hex(8)}"


def stored_file(
    fd: int,
    there: os.stat_result,
    files: Files,
    in_thread: InThread,
    now: float,
    closed: Callable[[], object],
) -> StoredFile:
    """
    Make what serves an open file.

    What the page cache has is read at once, the rest in a thread. When the file is
    written to while it is served, reading fails.

    :param fd: Its descriptor.
    :param there: What ``fstat`` says.
    :param now: The time, in seconds.
    :param closed: Called when the descriptor has been closed.
    """

    def check() -> None:
        now_there = files.fstat(fd)
        if (now_there.st_size, now_there.st_mtime_ns) != (
            there.st_size,
            there.st_mtime_ns,
        ):
            raise StagedDataLost("the file was written to while it was served")

    def read_in_thread(offset: int, length: int) -> bytes:
        data = files.pread(fd, length, offset)
        check()
        return data

    def read(offset: int, length: int) -> Deferred[bytes]:
        data = files.pread_cached(fd, length, offset)
        if data is None:
            return in_thread(translated, read_in_thread, offset, length)
        translated(check)
        return succeed(data)

    def close() -> None:
        with suppress(OSError):  # it is closed all the same
            files.close(fd)
        closed()

    return StoredFile(
        there.st_size, there.st_mtime, entity_tag(there, now), by_pieces(read), close
    )
