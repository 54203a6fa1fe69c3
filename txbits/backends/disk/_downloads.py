"""
Published files on disk, opened to be served.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.defer import Deferred, succeed

from txbits.backends._serving import StoredFile, by_pieces
from txbits.backends._threads import InThread
from txbits.backends.disk._file_clock import Look
from txbits.backends.disk._files import Files, storage_error, translated
from txbits.backends.disk._tree import Tree
from txbits.errors import (
    DestinationIsDirectory,
    NoSuchFile,
    ParentMissing,
    StagedDataLost,
)

# Opening a pipe would wait for whoever writes into it.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


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


def entity_tag(there: os.stat_result) -> str:
    """
    Make a tag that no other content of the file has, had, or will have, as far as that
    shows in what ``fstat`` says.

    :param there: That.
    """
    return (
        f"{there.st_ino:x}-{there.st_size:x}-{there.st_mtime_ns:x}"
        f"-{there.st_ctime_ns:x}"
    )


def published_file(
    fd: int,
    look: Look,
    files: Files,
    in_thread: InThread,
    closed: Callable[[], object],
) -> StoredFile:
    """
    Make what serves a published file.

    :param look: What was seen of it.
    """
    # None that is going to be another one in a moment.
    etag = None if look.is_sure is None else entity_tag(look.there)
    served = stored_file(fd, look.there, files, in_thread, closed, etag, look.modified)
    served.is_weak = look.is_sure is False
    return served


def stored_file(
    fd: int,
    there: os.stat_result,
    files: Files,
    in_thread: InThread,
    closed: Callable[[], object],
    etag: str | None,
    modified: float,
) -> StoredFile:
    """
    Make what serves an open file.

    What the page cache has is read at once, the rest in a thread. When the file is
    written to while it is served, reading fails.

    :param fd: Its descriptor.
    :param there: What ``fstat`` says.
    :param closed: Called when the descriptor has been closed.
    :param etag: See :class:`~txbits.interfaces.IStoredFile`.
    :param modified: The same.
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

    return StoredFile(there.st_size, modified, etag, by_pieces(read), close)
