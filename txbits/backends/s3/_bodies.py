"""
Bodies of requests to S3, and of its responses.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from hashlib import md5, sha256
from typing import Any
from zlib import crc32

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from txbits.backends._threads import InThread
from txbits.errors import BackendError

#: How many bytes are written to the transport at a time.
PIECE = 1 << 18

#: Longer bodies are hashed in a thread.
LONG = 1 << 17

#: How many bytes of a body that is arriving are hashed at a time.
_STRIDE = 1 << 19

#: The SHA-256 of nothing.
EMPTY_SHA256 = sha256().hexdigest()


@define(eq=False)
class Digest:
    """
    Checksum and hash of bytes, computed as they arrive.

    :ivar kind: The checksum: ``"crc32"`` or ``"md5"``.
    :ivar is_signed: Whether the SHA-256 is computed as well.
    :ivar length: How many bytes they are of.
    """

    kind: str
    is_signed: bool
    length: int = field(default=0, init=False)
    _crc: int = field(default=0, init=False)
    _md5: Any = field(default=None, init=False)
    _sha256: Any = field(default=None, init=False)
    _fed: list[bytes] = field(factory=list, init=False)
    _fed_length: int = field(default=0, init=False)
    _is_busy: bool = field(default=False, init=False)
    _settling: list[Deferred[None]] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        if self.kind == "md5":
            self._md5 = md5(usedforsecurity=False)
        if self.is_signed:
            self._sha256 = sha256()

    def update(self, chunks: Iterable[bytes]) -> None:
        """Add the next bytes at once."""
        for chunk in chunks:
            self.length += len(chunk)
            self._update(chunk)

    def _update(self, chunk: bytes) -> None:
        if self._md5 is not None:
            self._md5.update(chunk)
        else:
            self._crc = crc32(chunk, self._crc)
        if self._sha256 is not None:
            self._sha256.update(chunk)

    def feed(self, chunk: bytes, in_thread: InThread) -> None:
        """
        Add the next bytes of a body that is arriving.

        :param in_thread: Calls functions in threads.
        """
        self.length += len(chunk)
        self._fed.append(chunk)
        self._fed_length += len(chunk)
        if self._fed_length >= _STRIDE and not self._is_busy:
            self._begin(in_thread)

    def settled(self, in_thread: InThread) -> Deferred[None]:
        """
        Finish what has been fed.

        :returns: A Deferred that fires with ``None`` when that is done.
        """
        if not self._is_busy:
            if self._fed_length < LONG:
                self._update_all(self._taken())
                return succeed(None)
            self._begin(in_thread)
        waiting: Deferred[None] = Deferred()
        self._settling.append(waiting)
        return waiting

    def _taken(self) -> list[bytes]:
        fed, self._fed, self._fed_length = self._fed, [], 0
        return fed

    def _update_all(self, chunks: Sequence[bytes]) -> None:
        for chunk in chunks:
            self._update(chunk)

    def _begin(self, in_thread: InThread) -> None:
        self._is_busy = True
        in_thread(self._update_all, self._taken()).addCallback(self._done, in_thread)

    def _done(self, _: None, in_thread: InThread) -> None:
        self._is_busy = False
        if self._fed_length >= (LONG if self._settling else _STRIDE):
            self._begin(in_thread)
        elif self._settling:
            self._update_all(self._taken())
            settling, self._settling = self._settling, []
            for one in settling:
                one.callback(None)

    def checksum(self) -> str:
        """Return the checksum so far, in Base64."""
        if self._md5 is not None:
            return _in_base64(self._md5.digest())
        return _in_base64(self._crc.to_bytes(4, "big"))

    def sha256(self) -> str:
        """Return the SHA-256 so far, in hexadecimal."""
        return str(self._sha256.hexdigest())


def _in_base64(value: bytes) -> str:
    return b64encode(value).decode("ascii")


@define(eq=False)
class Body:
    """
    Bytes to be sent, once or several times.

    :ivar chunks: The bytes, as they arrived; they are never joined.
    :param digest: The digest of these bytes, if it is known.
    """

    chunks: Sequence[bytes]
    digest: Digest | None = None
    length: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.length = sum(map(len, self.chunks))

    def is_digested(self, kind: str, is_signed: bool) -> bool:
        """Return whether the digest is known."""
        digest = self.digest
        return (
            digest is not None
            and digest.length == self.length
            and digest.kind == kind
            and digest.is_signed >= is_signed
        )

    def digested(self, kind: str, is_signed: bool) -> Digest:
        """
        Compute the digest, unless it is known. Slow for long bodies.

        :param kind: The checksum: ``"crc32"`` or ``"md5"``.
        :param is_signed: Whether to compute the SHA-256 as well.
        """
        if self.digest is None or not self.is_digested(kind, is_signed):
            digest = Digest(kind, is_signed)
            digest.update(self.chunks)
            self.digest = digest
        return self.digest


@implementer(IBodyProducer)
class BodyProducer:
    """
    Writes a body, a piece at a time, as fast as the connection accepts it.

    Each attempt has its own, and so does an empty body: without one, treq sends no
    Content-Length, which S3 requires.
    """

    def __init__(self, body: Body) -> None:
        self.length = body.length
        self._pieces = _pieces(body.chunks)
        self._consumer: IConsumer | None = None
        self._finished: Deferred[None] | None = None
        self._paused = False
        self._producing = False

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Begin; see :class:`twisted.web.iweb.IBodyProducer`."""
        if not self.length:
            return succeed(None)
        self._consumer = consumer
        finished = self._finished = Deferred(lambda _: self.stopProducing())
        self._produce()
        return finished

    def _produce(self) -> None:
        if self._producing or self._consumer is None:
            return
        self._producing = True
        try:
            # Writing may pause, stop or resume this in the same call.
            while not self._paused and self._consumer is not None:
                piece = next(self._pieces, None)
                if piece is None:
                    self._consumer = None
                    finished, self._finished = self._finished, None
                    if finished is not None:
                        finished.callback(None)
                else:
                    self._consumer.write(piece)
        finally:
            self._producing = False

    def pauseProducing(self) -> None:
        """Pause; called by the connection."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on; called by the connection."""
        self._paused = False
        self._produce()

    def stopProducing(self) -> None:
        """Stop for good; called by the connection."""
        self._consumer = None
        self._finished = None


def _pieces(chunks: Sequence[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if len(chunk) <= PIECE:
            yield chunk
        else:
            for start in range(0, len(chunk), PIECE):
                yield chunk[start : start + PIECE]


def hang_up(transport: Any) -> None:
    """
    Close the connection that the body of a response comes on, unless it is closed.

    ``loseConnection`` would wait for the other side over TLS, which may not respond any
    more.
    """
    if transport is not None:
        transport.stopProducing()


class TooLong(BackendError):
    """A response is longer than it can be."""


class Collector(Protocol):
    """
    Collects the body of a response, up to a limit.

    :ivar collected: Fires with the body. Fails with :class:`TooLong`, or with the error
        of the connection.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._chunks: list[bytes] = []
        self._length = 0
        self.collected: Deferred[bytes] = Deferred(self._cancel)

    def dataReceived(self, data: bytes) -> None:
        """Called with the next bytes."""
        self._length += len(data)
        if self._length <= self._limit:
            self._chunks.append(data)
        else:
            self._end(Failure(TooLong(f"over {self._limit} bytes")))
            self._drop()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Called at the end, also if it comes too early."""
        if reason.check(ResponseDone):
            self._end(b"".join(self._chunks))
        else:
            self._end(reason)

    def _end(self, outcome: bytes | Failure) -> None:
        self._chunks = []
        if not self.collected.called:
            self.collected.callback(outcome)

    def _cancel(self, _: Deferred[bytes]) -> None:
        self._drop()

    def _drop(self) -> None:
        hang_up(self.transport)
