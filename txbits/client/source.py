"""
Sources of uploads: bytes of a known length that can be read from any offset.

Sources that can be read only once are in :mod:`txbits.client._streams`.
"""

from __future__ import annotations

import os
import stat
from typing import Any, BinaryIO

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface, implementer

from txbits._deferreds import deferred
from txbits.protocol._fields import MAX_CONTENT_NAME


class SourceError(Exception):
    """The source cannot be read; the text is one line that says why."""


class SourceChanged(SourceError):
    """
    The source has changed since the upload began.

    Windows calls this BG_E_LOCAL_FILE_CHANGED.
    """


class ISource(Interface):
    """Bytes of a known length, which must not change during the upload."""

    length: int = Attribute("The length in bytes.")
    content_name: str | None = Attribute("A name for the server's operator.")

    def read(offset: int, size: int) -> Deferred[bytes]:  # noqa: N805
        """
        Read a range, which lies within the length.

        :param offset: Of the first byte.
        :param size: How many bytes; at most a few hundred KiB at a time.
        :returns: A Deferred that fires with exactly so many bytes. It fails with
            :class:`SourceChanged` or :class:`SourceError`.
        """

    def check() -> Deferred[None]:
        """
        Check that the source has not changed.

        :returns: A Deferred that fires with ``None`` if so. It fails with
            :class:`SourceChanged` if not, or with :class:`SourceError`.
        """

    def forget(offset: int) -> None:  # noqa: N805
        """
        Called when the server has acknowledged all bytes before *offset*.

        They are read again only if the server loses them, so that a source that can be
        read only once may drop them.
        """


@frozen
class FileIdentity:
    """
    The identity and state of a file.

    :ivar path: Its path, without symbolic links.
    :ivar device: The device number of its file system.
    :ivar inode: Its inode number.
    :ivar length: Its length in bytes.
    :ivar modified: The time of its last modification in nanoseconds; ``None`` to ignore
        it.
    """

    path: str
    device: int
    inode: int
    length: int
    modified: int | None

    @classmethod
    def of(
        cls, path: str, status: os.stat_result, *, with_time: bool = True
    ) -> FileIdentity:
        """Make one from the status of a file."""
        return cls(
            os.path.realpath(path),
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns if with_time else None,
        )

    def is_same(self, other: FileIdentity) -> bool:
        """Whether both are the same file in the same state, as far as is known."""
        if self.modified is None or other.modified is None:
            self, other = evolve(self, modified=None), evolve(other, modified=None)
        return self == other


@implementer(ISource)
@define(eq=False)
class FileSource:
    """
    A local file, or the rest of one.

    It is opened once. If it is written to, or replaced by another file, the upload
    fails, as uploads of Windows do. If it is unlinked, the upload continues.

    Reads are not done in a thread: they are short and mostly served from memory, and a
    thread for each would cost more than the read.

    :ivar path: Its path, for messages; ``None`` if unknown.
    :ivar identity: Its identity; ``None`` if the path is unknown, or if only a part of
        the file is uploaded.
    :ivar check_time: Whether a new modification time counts as a change. In clustered
        file systems each machine may report another time.
    """

    path: str | None
    length: int
    content_name: str | None
    identity: FileIdentity | None
    _descriptor: int
    _status: os.stat_result = field(repr=False)
    _first: int = 0
    check_time: bool = True
    _open: bool = field(init=False, default=True)

    @classmethod
    def open(
        cls, path: str | bytes | os.PathLike[Any], *, check_time: bool = True
    ) -> FileSource:
        """
        Open a file. The caller has to :meth:`close` it.

        :param check_time: Whether a new modification time counts as a change. Without
            it, overwritten bytes go unnoticed, and the server may get a mixture.
        :raises SourceError: If it is not a regular file.
        :raises OSError: If it does not exist, or cannot be read.
        """
        name = os.fsdecode(path)
        # Opening a device may have side effects.
        if not stat.S_ISREG(os.stat(name).st_mode):
            raise SourceError(f"{printable(name)} is not an ordinary file")
        descriptor, status = open_ordinary(name)
        if status.st_size == 0 and os.pread(descriptor, 1, 0):
            os.close(descriptor)
            raise SourceError(f"{printable(name)} does not tell its length")
        return cls(
            path=name,
            length=status.st_size,
            content_name=printable(os.path.basename(name))[:MAX_CONTENT_NAME] or None,
            identity=FileIdentity.of(name, status, with_time=check_time),
            descriptor=descriptor,
            status=status,
            check_time=check_time,
        )

    @classmethod
    def from_descriptor(
        cls, descriptor: int, first: int, *, check_time: bool = True
    ) -> FileSource:
        """
        Use an open regular file, from offset *first* to its end.

        The descriptor is duplicated. The caller has to :meth:`close` the source.

        :param check_time: See :meth:`open`.
        :raises SourceError: If it is not a regular file.
        """
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SourceError("that is not an ordinary file")
        return cls(
            path=None,
            length=max(0, status.st_size - first),
            content_name=None,
            identity=None,
            descriptor=os.dup(descriptor),
            status=status,
            first=first,
            check_time=check_time,
        )

    @deferred
    async def read(self, offset: int, size: int) -> bytes:
        """See :meth:`ISource.read`."""
        self._check()
        offset += self._first
        chunks = []
        while size:
            try:
                chunk = os.pread(self._descriptor, size, offset)
            except OSError as error:
                raise SourceError(
                    f"{self._name} cannot be read: {error.strerror}"
                ) from error
            if not chunk:
                raise self._changed()
            chunks.append(chunk)
            offset += len(chunk)
            size -= len(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    @deferred
    async def check(self) -> None:
        """See :meth:`ISource.check`."""
        self._check()
        if self.path is None:
            return
        try:
            status = os.stat(self.path)
        except OSError:
            # It was unlinked, but it is still open.
            return
        if not os.path.samestat(status, self._status):
            raise SourceChanged(
                f"{self._name} was replaced by another file during the upload"
            )

    def forget(self, offset: int) -> None:
        """See :meth:`ISource.forget`."""

    def close(self) -> None:
        """Close the file. Closing it twice is safe."""
        if self._open:
            self._open = False
            os.close(self._descriptor)

    def _check(self) -> None:
        if not self._open:
            raise SourceError(f"{self._name} was closed during the upload")
        now, then = os.fstat(self._descriptor), self._status
        if now.st_size != then.st_size:
            raise self._changed()
        if self.check_time and now.st_mtime_ns != then.st_mtime_ns:
            raise SourceChanged(
                f"{self._name} was changed during the upload: its length is the same, "
                "but its modification time is not"
            )

    @property
    def _name(self) -> str:
        return "the file" if self.path is None else printable(self.path)

    def _changed(self) -> SourceChanged:
        return SourceChanged(f"{self._name} was changed during the upload")


@implementer(ISource)
@define(eq=False)
class ObjectSource:
    """
    A file object, such as :class:`io.BytesIO`, from its current position.

    It is not read in a thread. It stays open, and must not be used meanwhile.
    """

    file: BinaryIO
    length: int = field(init=False)
    content_name: str | None = None
    _first: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._first = self.file.tell()
        self.length = max(0, self.file.seek(0, os.SEEK_END) - self._first)

    @deferred
    async def read(self, offset: int, size: int) -> bytes:
        """See :meth:`ISource.read`."""
        try:
            self.file.seek(self._first + offset)
            data = self.file.read(size)
        except (OSError, ValueError) as error:
            raise SourceError(f"the file object cannot be read: {error}") from error
        if not isinstance(data, bytes):
            raise SourceError("the file object gives no bytes; open it in binary mode")
        if len(data) != size:
            raise SourceChanged("the file object became shorter during the upload")
        return data

    @deferred
    async def check(self) -> None:
        """See :meth:`ISource.check`; only the length can be checked."""
        try:
            end = self.file.seek(0, os.SEEK_END)
        except (OSError, ValueError) as error:
            raise SourceError(f"the file object cannot be read: {error}") from error
        if max(0, end - self._first) != self.length:
            raise SourceChanged("the file object was changed during the upload")

    def forget(self, offset: int) -> None:
        """See :meth:`ISource.forget`."""


def open_ordinary(name: str) -> tuple[int, os.stat_result]:
    """
    Open a regular file for reading, without blocking if it is a pipe.

    :returns: Its descriptor and status.
    :raises SourceError: If it is not a regular file.
    :raises OSError: If it does not exist, or cannot be read.
    """
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise SourceError(f"{printable(name)} is not an ordinary file")
    return descriptor, status


def printable(name: str) -> str:
    """
    Make a file name printable, for terminals and headers.

    File names may contain line breaks, and bytes that are not text.
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
