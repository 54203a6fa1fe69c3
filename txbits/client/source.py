"""
What is uploaded: bytes of a known length that can be read from any offset.

A source knows neither packets nor the network.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface, implementer

from txbits._deferreds import deferred
from txbits.protocol._fields import MAX_CONTENT_NAME


class SourceError(Exception):
    """What is to be uploaded cannot be read; the text is one line that says why."""


class SourceChanged(SourceError):
    """
    What is to be uploaded is not any more what it was when the upload began.

    Windows calls this BG_E_LOCAL_FILE_CHANGED.
    """


class ISource(Interface):
    """Bytes of a known length, that stay the same for as long as the upload takes."""

    length: int = Attribute("How many bytes there are.")
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
        Look whether the bytes are still what they were.

        :returns: A Deferred that fires with ``None`` if so. It fails with
            :class:`SourceChanged` if not, or with :class:`SourceError`.
        """


@implementer(ISource)
@define(eq=False)
class FileSource:
    """
    A local file.

    It is opened once: if another file takes its name, the upload goes on with the one
    that was opened. If it is written to, the upload fails, as one of BITS does.

    Reads are done in place, not in a thread: they are short, mostly served from
    memory, and a thread for each would cost more than the read.
    """

    path: str
    length: int
    content_name: str | None
    _descriptor: int
    _modified: int = field(repr=False)
    _open: bool = field(init=False, default=True)

    @classmethod
    def open(cls, path: str | bytes | os.PathLike[Any]) -> FileSource:
        """
        Open a file. Whoever opens it has to :meth:`close` it.

        :raises SourceError: If it is not an ordinary file.
        :raises OSError: If it is not there, or cannot be read.
        """
        name = os.fsdecode(path)
        # Opening a pipe waits for its other end.
        if not stat.S_ISREG(os.stat(name).st_mode):
            raise SourceError(f"{printable(name)} is not an ordinary file")
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        return cls(
            path=name,
            length=status.st_size,
            content_name=printable(os.path.basename(name))[:MAX_CONTENT_NAME] or None,
            descriptor=descriptor,
            modified=status.st_mtime_ns,
        )

    @deferred
    async def read(self, offset: int, size: int) -> bytes:
        """See :meth:`ISource.read`."""
        self._check()
        chunks = []
        while size:
            try:
                chunk = os.pread(self._descriptor, size, offset)
            except OSError as error:
                raise SourceError(
                    f"{printable(self.path)} cannot be read: {error.strerror}"
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

    def close(self) -> None:
        """Let go of the file. Closing it twice is safe."""
        if self._open:
            self._open = False
            os.close(self._descriptor)

    def _check(self) -> None:
        if not self._open:
            raise SourceError(f"{printable(self.path)} was closed during the upload")
        status = os.fstat(self._descriptor)
        if (status.st_size, status.st_mtime_ns) != (self.length, self._modified):
            raise self._changed()

    def _changed(self) -> SourceChanged:
        return SourceChanged(f"{printable(self.path)} was changed during the upload")


def printable(name: str) -> str:
    """
    Make a file's name fit for a terminal and a header.

    File systems allow line ends in names, and bytes that are no text.
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
