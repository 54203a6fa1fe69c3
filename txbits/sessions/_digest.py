"""
The SHA-256 of an upload, for a server application.

It is computed while the bytes arrive, since they are in memory then. After a restart,
or if another process has received some of them, the upload is read back when it is
complete.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any
from uuid import UUID

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IConsumer,
    IPushProducer,
    IReactorThreads,
    IReactorTime,
)
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from txbits._deferreds import deferred
from txbits.interfaces import IReadable

#: Up to this many bytes are hashed on the reactor's thread: switching to another thread
#: would take longer.
_AT_ONCE = 1 << 16

#: How many digests of uploads under way are kept, about 500 bytes each. The least
#: recently used are dropped.
_MOST = 20_000


@define(eq=False)
class UploadDigest:
    """
    The digest of the first bytes of one upload.

    :param threads: Where long pieces are hashed; ``None`` for the calling thread.
    :ivar length: How many bytes it covers.
    """

    _threads: IReactorThreads | None
    length: int = 0
    _hash: Any = field(factory=hashlib.sha256, init=False)

    def update(self, data: bytes) -> Deferred[None] | None:
        """
        Add bytes.

        :param data: The next bytes.
        :returns: ``None`` if that is done; otherwise a Deferred that fires with
            ``None`` when it is. Until then, no other method may be called.
        """
        self.length += len(data)
        if self._threads is None or len(data) <= _AT_ONCE:
            self._hash.update(data)
            return None
        # hashlib releases Python's lock meanwhile.
        return deferToThreadPool(
            self._threads, self._threads.getThreadPool(), self._hash.update, data
        )

    def value(self) -> bytes:
        """The digest of the bytes so far."""
        return self._hash.digest()  # type: ignore[no-any-return]


@implementer(IConsumer)
@define(eq=False)
class ReadingBack:
    """
    Computes the digest of bytes that are stored.

    :param digest: Of no bytes yet.
    """

    _digest: UploadDigest
    _producer: IPushProducer | None = field(default=None, init=False)
    _streaming: bool = field(default=True, init=False)
    _hashing: Deferred[None] | None = field(default=None, init=False)
    _behind: list[bytes] = field(factory=list, init=False)
    _stopped: bool = field(default=False, init=False)

    @deferred
    async def run(self, upload: IReadable, total: int) -> bytes:
        """
        Read all of an upload.

        :returns: A Deferred that fires with the digest. It fails as
            ``IReadable.read_into`` does, also when it was stopped.
        """
        try:
            await upload.read_into(self, 0, total)
        finally:
            while self._hashing is not None:
                await self._hashing
        return self._digest.value()

    def stop(self) -> None:
        """End the reading."""
        self._stopped = True
        if self._producer is not None:
            self._producer.stopProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer, self._streaming = producer, streaming
        if self._stopped:
            producer.stopProducing()
        elif not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self._producer = None

    def write(self, data: bytes) -> None:
        if self._hashing is not None:
            # Some producers write one more piece after they were paused.
            self._behind.append(data)
            return
        hashed = self._digest.update(data)
        if hashed is None:
            if self._producer is not None and not self._streaming:
                self._producer.resumeProducing()
            return
        if self._producer is not None and self._streaming:
            self._producer.pauseProducing()
        self._hashing = Deferred()
        hashed.addBoth(self._hashed, self._hashing)

    def _hashed(self, outcome: Any, done: Deferred[None]) -> None:
        self._hashing = None
        behind, self._behind = self._behind, []
        if behind:
            self.write(b"".join(behind))
        if self._hashing is None and self._producer is not None:
            self._producer.resumeProducing()
        done.callback(outcome)


@define(eq=False)
class Digests:
    """
    The digests of one manager's uploads, as far as their bytes have arrived here.

    :param clock: Its threads are used, if it has any.
    """

    _clock: IReactorTime
    _kept: OrderedDict[UUID, UploadDigest] = field(factory=OrderedDict, init=False)

    def going_on(self, session_id: UUID, offset: int) -> UploadDigest | None:
        """
        The digest of the first *offset* bytes of an upload, to be continued.

        :returns: ``None`` if it is not known.
        """
        digest = self._kept.pop(session_id, None)
        if digest is None or digest.length != offset:
            if offset:
                return None
            digest = self.begun()
        self._kept[session_id] = digest
        if len(self._kept) > _MOST:
            self._kept.popitem(last=False)
        return digest

    def known(self, session_id: UUID, total: int) -> bytes | None:
        """The digest of a whole upload, if all its bytes have arrived here."""
        digest = self._kept.get(session_id)
        if digest is None or digest.length != total:
            return None
        return digest.value()

    def begun(self) -> UploadDigest:
        """A new digest, of no bytes."""
        clock: object = self._clock
        return UploadDigest(clock if IReactorThreads.providedBy(clock) else None)

    def forget(self, session_id: UUID) -> None:
        """Drop the digest of a session."""
        self._kept.pop(session_id, None)
