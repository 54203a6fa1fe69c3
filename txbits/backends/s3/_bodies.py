"""
Bodies of requests to S3, and of its answers.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
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

from txbits.errors import BackendError

#: How many bytes are handed to the transport at a time.
PIECE = 1 << 18

#: Bodies that are longer are hashed in a thread.
LONG = 1 << 17

#: The SHA-256 of nothing.
EMPTY_SHA256 = sha256().hexdigest()


@define(eq=False)
class Body:
    """
    Bytes to be sent, once or several times.

    :ivar chunks: The bytes, in pieces as they came; they are never joined.
    """

    chunks: Sequence[bytes]
    length: int = field(init=False)
    _sha256: str | None = field(default=None, init=False)
    _checks: dict[str, str] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.length = sum(map(len, self.chunks))

    def checksum(self, kind: str) -> str:
        """
        Tell the checksum, in base64. Takes its time for a long body.

        :param kind: ``"crc32"`` or ``"md5"``.
        """
        if kind not in self._checks:
            if kind == "md5":
                digest = md5(usedforsecurity=False)
                for chunk in self.chunks:
                    digest.update(chunk)
                value = digest.digest()
            else:
                crc = 0
                for chunk in self.chunks:
                    crc = crc32(chunk, crc)
                value = crc.to_bytes(4, "big")
            self._checks[kind] = b64encode(value).decode()
        return self._checks[kind]

    def sha256(self) -> str:
        """Tell the SHA-256, in hexadecimal. Takes its time for a long body."""
        if self._sha256 is None:
            digest = sha256()
            for chunk in self.chunks:
                digest.update(chunk)
            self._sha256 = digest.hexdigest()
        return self._sha256


@implementer(IBodyProducer)
class BodyProducer:
    """
    Writes a body, a piece at a time, as fast as the connection takes it.

    One is made for each attempt. An empty body has one too: without any, treq sends
    no Content-Length, which S3 insists on.
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
            # Writing may pause this, stop it, or resume it, all in the same call.
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
        """Called by the connection: it has enough for now."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Called by the connection: it takes more."""
        self._paused = False
        self._produce()

    def stopProducing(self) -> None:
        """Called by the connection: it takes no more, ever."""
        self._consumer = None
        self._finished = None


def _pieces(chunks: Sequence[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if len(chunk) <= PIECE:
            yield chunk
        else:
            for start in range(0, len(chunk), PIECE):
                yield chunk[start : start + PIECE]


class TooLong(BackendError):
    """An answer is longer than it can be."""


class Collector(Protocol):
    """
    Collects the body of an answer, up to a limit.

    :ivar collected: Fires with the body; fails with :class:`TooLong`, or with what
        befell the connection.
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
        """Called at the end, whatever kind of end it is."""
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
        transport: Any = self.transport
        if transport is not None:
            transport.loseConnection()
