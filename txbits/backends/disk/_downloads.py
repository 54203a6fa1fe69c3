"""
Published files on disk, opened for downloads.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.defer import Deferred, succeed

from txbits.backends._naming import shown_path
from txbits.backends._serving import StoredFile, by_pieces
from txbits.backends._threads import InThread
from txbits.backends.disk._file_clock import Look
from txbits.backends.disk._files import READ, Files, storage_error, translated
from txbits.backends.disk._tree import Tree
from txbits.errors import (
    DestinationIsDirectory,
    NoSuchFile,
    ParentMissing,
    StagedDataLost,
)

# Opening a pipe would wait for a writer.
_READ = READ | os.O_NONBLOCK


def open_plain_file(tree: Tree, files: Files, segments: tuple[str, ...]) -> int:
    """
    Open the file at a destination. It blocks.

    :param segments: What ``checked_segments`` returned.
    :returns: A descriptor.
    :raises NoSuchFile: If there is none, or something else, such as a symbolic link.
    :raises DestinationIsDirectory: If it is a directory.
    :raises BackendError: As ``Tree.open_parent``, and if opening fails.
    """
    try:
        parent = tree.open_parent(segments)
    except ParentMissing as error:
        raise NoSuchFile(str(error)) from None
    try:
        fd = files.open(segments[-1].encode(), _READ, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        raise NoSuchFile(f"no {shown_path(segments)}") from None
    except OSError as error:
        there = tree.check_name(parent, segments, overwrite=True)
        if there is None or not stat.S_ISREG(there.st_mode):
            raise NoSuchFile(f"{shown_path(segments)} is not a plain file") from None
        raise storage_error(error) from error
    finally:
        tree.let_go(parent)
    try:
        mode = files.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise DestinationIsDirectory(f"{shown_path(segments)} is a directory")
        if not stat.S_ISREG(mode):
            raise NoSuchFile(f"{shown_path(segments)} is not a plain file")
    except BaseException:
        files.close(fd)
        raise
    return fd


def entity_tag(there: os.stat_result) -> str:
    """
    Make a tag that changes with the content, as far as ``fstat`` shows that.

    :param there: What ``fstat`` returns.
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
    Make the object that serves a published file.

    :param look: Its state.
    """
    # No tag if it would change in a moment.
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
    Make the object that serves an open file.

    Bytes in the page cache are read at once, others in a thread. Reading fails if the
    file is written to meanwhile.

    :param there: What ``fstat`` returns.
    :param closed: Called when the descriptor has been closed.
    :param etag: See :class:`~txbits.interfaces.IStoredFile`, like *modified*.
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

    def peek(offset: int, length: int) -> memoryview | None:
        data = files.pread_cached(fd, length, offset)
        if data is not None:
            translated(check)
        return data

    def read(offset: int, length: int) -> Deferred[bytes]:
        data = peek(offset, length)
        if data is None:
            return in_thread(translated, read_in_thread, offset, length)
        return succeed(bytes(data))

    def close() -> None:
        with suppress(OSError):  # it is closed nevertheless
            files.close(fd)
        closed()

    return StoredFile(there.st_size, modified, etag, by_pieces(read, peek), close)
