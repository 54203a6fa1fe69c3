"""
Sources that can be read only once, from the beginning to the end.

Bytes that the server has not acknowledged are kept, since they may have to be sent
again. That is one fragment at most. If the server falls back further, the upload fails.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IConsumer, IReadDescriptor
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from txbits.client.source import (
    FileSource,
    ISource,
    ObjectSource,
    SourceChanged,
    SourceError,
)

#: The maximum size of a fragment whose bytes are kept.
LARGEST_KEPT = 4 * 1024 * 1024

#: How many bytes are read from a pipe at a time.
_CHUNK = 256 * 1024


@define(eq=False)
class Window:
    """
    The bytes that were read, but not acknowledged by the server.

    :ivar length: The total length in bytes.
    :ivar name: The name of the source, for messages.
    """

    length: int
    name: str
    _chunks: deque[bytes] = field(init=False, factory=deque)
    _first: int = field(init=False, default=0)
    _end: int = field(init=False, default=0)
    _waiting: list[tuple[int, int, Deferred[bytes]]] = field(init=False, factory=list)
    _error: SourceError | None = field(init=False, default=None)

    @property
    def wanted(self) -> bool:
        """Whether a read is waiting for more bytes."""
        return bool(self._waiting)

    @property
    def kept(self) -> int:
        """How many bytes are kept."""
        return self._end - self._first

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """See :meth:`ISource.read`."""
        if offset < self._first:
            return fail(
                SourceError(
                    f"the server wants {self.name} again from byte {offset:,}, which "
                    "can be read only once"
                )
            )
        if offset + size <= self._end:
            return succeed(self._slice(offset, size))
        if self._error is not None:
            return fail(self._error)
        result: Deferred[bytes] = Deferred()
        self._waiting.append((offset, size, result))
        return result

    def check(self) -> Deferred[None]:
        """See :meth:`ISource.check`."""
        return succeed(None) if self._error is None else fail(self._error)

    def add(self, data: bytes) -> None:
        """Add bytes that were read."""
        if self._end + len(data) > self.length:
            self.fail(SourceChanged(f"{self.name} has more than {self.length:,} bytes"))
            return
        if data:
            self._chunks.append(data)
            self._end += len(data)
        waiting, self._waiting = self._waiting, []
        for offset, size, result in waiting:
            if offset + size <= self._end:
                result.callback(self._slice(offset, size))
            else:
                self._waiting.append((offset, size, result))

    def end(self) -> None:
        """The source has ended."""
        if self._end < self.length:
            self.fail(
                SourceChanged(
                    f"{self.name} ended after {self._end:,} of {self.length:,} bytes"
                )
            )

    def fail(self, error: SourceError) -> None:
        """The source has failed."""
        self._error = self._error or error
        waiting, self._waiting = self._waiting, []
        for _, _, result in waiting:
            result.errback(self._error)

    def forget(self, offset: int) -> None:
        """See :meth:`ISource.forget`."""
        while self._chunks and self._first + len(self._chunks[0]) <= offset:
            self._first += len(self._chunks.popleft())

    def _slice(self, offset: int, size: int) -> bytes:
        parts = []
        start = self._first
        for chunk in self._chunks:
            if start >= offset + size:
                break
            end = start + len(chunk)
            if end > offset:
                parts.append(chunk[max(0, offset - start) : offset + size - start])
            start = end
        return parts[0] if len(parts) == 1 else b"".join(parts)


@implementer(ISource, IReadDescriptor)
@define(eq=False)
class PipeSource:
    """
    A pipe, a socket or a terminal, of which as many bytes are read as are said to come.

    :ivar reactor: Tells when there is something to read.
    :ivar descriptor: What to read; it is not closed.
    :ivar length: How many bytes will come.
    """

    reactor: Any
    descriptor: int
    length: int
    content_name: str | None = None
    _window: Window = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._window = Window(self.length, "standard input")

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """See :meth:`ISource.read`."""
        result = self._window.read(offset, size)
        if self._window.wanted:
            self.reactor.addReader(self)
        return result

    def check(self) -> Deferred[None]:
        """See :meth:`ISource.check`."""
        return self._window.check()

    def forget(self, offset: int) -> None:
        """See :meth:`ISource.forget`."""
        self._window.forget(offset)

    def close(self) -> None:
        """Read nothing more."""
        self.reactor.removeReader(self)

    def fileno(self) -> int:
        """See :class:`twisted.internet.interfaces.IFileDescriptor`."""
        return self.descriptor

    def doRead(self) -> None:
        """See :class:`twisted.internet.interfaces.IReadDescriptor`."""
        try:
            # There is something, so that this does not wait. The pipe is not made
            # non-blocking: others may have it open, too, such as the shell.
            data = os.read(self.descriptor, _CHUNK)
        except OSError as error:
            self._window.fail(
                SourceError(f"standard input cannot be read: {error.strerror}")
            )
        else:
            if data:
                self._window.add(data)
            else:
                self._window.end()
        if not self._window.wanted:
            self.reactor.removeReader(self)

    def logPrefix(self) -> str:
        """See :class:`twisted.internet.interfaces.ILoggingContext`."""
        return "PipeSource"

    def connectionLost(self, reason: Failure) -> None:
        """See :class:`twisted.internet.interfaces.IFileDescriptor`."""
        self._window.end()


@implementer(ISource, IConsumer)
@define(eq=False)
class ProducerSource:
    """
    A body producer, as :class:`twisted.web.iweb.IBodyProducer` describes them, whose
    length is known.

    It is started by the first read, and paused while it has written enough.
    """

    producer: IBodyProducer
    content_name: str | None = None
    length: int = field(init=False)
    _window: Window = field(init=False)
    _started: bool = field(init=False, default=False)
    _paused: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        length: Any = self.producer.length
        if not isinstance(length, int):
            raise SourceError("the length of the source is unknown")
        self.length = length
        self._window = Window(length, "the producer's data")

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """See :meth:`ISource.read`."""
        result = self._window.read(offset, size)
        if not self._window.wanted:
            return result
        if not self._started:
            self._started = True
            self.producer.startProducing(self).addCallbacks(
                lambda _: self._window.end(), self._failed
            )
        elif self._paused:
            self._paused = False
            self.producer.resumeProducing()
        return result

    def check(self) -> Deferred[None]:
        """See :meth:`ISource.check`."""
        return self._window.check()

    def forget(self, offset: int) -> None:
        """See :meth:`ISource.forget`."""
        self._window.forget(offset)

    def close(self) -> None:
        """Have nothing more produced."""
        if self._started:
            self.producer.stopProducing()

    def write(self, data: bytes) -> None:
        """See :class:`twisted.internet.interfaces.IConsumer`."""
        self._window.add(data)
        if not self._window.wanted and not self._paused:
            self._paused = True
            self.producer.pauseProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Body producers do not register themselves."""

    def unregisterProducer(self) -> None:
        """Body producers do not register themselves."""

    def _failed(self, failure: Failure) -> None:
        self._window.fail(
            SourceError(f"the producer failed: {failure.getErrorMessage()}")
        )


def source_of(what: Any) -> tuple[Any, bool]:
    """
    Make a source from the argument of an upload.

    :param what: A path, a file object that is open for reading in binary mode, a
        provider of ``IBodyProducer`` with a known length, or a source.
    :returns: The source, and whether it has to be closed.
    :raises SourceError: If nothing can be uploaded from it.
    :raises OSError: If the file is not there, or cannot be read.
    """
    if ISource.providedBy(what):
        return what, False
    if isinstance(what, (str, bytes, os.PathLike)):
        return FileSource.open(what), True
    if IBodyProducer.providedBy(what):
        return ProducerSource(what), True
    descriptor = _ordinary(what)
    if descriptor is not None:
        # What Python may have read ahead into its buffers is in the file as well.
        return FileSource.from_descriptor(descriptor, what.tell()), True
    try:
        return ObjectSource(what), False
    except (AttributeError, OSError, ValueError) as error:
        raise SourceError(f"{what!r} is not something to upload") from error


def _ordinary(what: Any) -> int | None:
    """The descriptor of a file object that is an ordinary file, ``None`` for others."""
    try:
        descriptor: int = what.fileno()
        ordinary = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except (AttributeError, OSError, ValueError):
        return None
    return descriptor if ordinary else None
