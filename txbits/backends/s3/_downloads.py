"""
Published files, and other objects of the bucket, read by clients.

Bytes are passed on as they come, at the consumer's pace. While the consumer pauses, so
does the connection to the store. A connection that is lost meanwhile, or on which
nothing comes any more, is replaced by another one from the same offset, on the
condition that the object is still the same.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txbits.backends._destinations import checked_segments
from txbits.backends._naming import shown_path
from txbits.backends._serving import StoredFile
from txbits.backends.s3._bodies import hang_up
from txbits.backends.s3._bucket import Found, quoted
from txbits.backends.s3._client import ATTEMPT_TIMEOUT, Client
from txbits.backends.s3._responses import Request, Response, S3Error, S3Unfit
from txbits.backends.s3._staging import Staging
from txbits.errors import (
    BackendError,
    DestinationIsDirectory,
    NoSuchFile,
    StagedDataLost,
)

_log = Logger()

#: How many connections in a row may be lost before a byte has arrived.
_MOST_FRUITLESS = 5


class _Receiver(Protocol):
    """
    Passes the body of a response on as it arrives.

    :ivar received: How many bytes arrived.
    :ivar is_unwanted: Whether the rest of the body is dropped.
    :ivar ended: Fires with ``None`` at the end, also if it comes too early.
    """

    def __init__(self, stream: Stream, most: int) -> None:
        self._stream = stream
        self._most = most
        self.received = 0
        self.is_unwanted = False
        self.ended: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        """The body begins."""
        if self.is_unwanted:
            self.drop()
        else:
            self._stream.watch()

    def dataReceived(self, data: bytes) -> None:
        """Called with the next bytes."""
        if self.is_unwanted:
            return
        data = data[: self._most - self.received]
        self.received += len(data)
        self._stream.watch()
        if data:
            self._stream.consumer.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Called at the end."""
        self._stream.rest()
        self.ended.callback(None)

    def drop(self) -> None:
        """Drop the rest, and close the connection."""
        self.is_unwanted = True
        hang_up(self.transport)


@implementer(IPushProducer)
@define(eq=False)
class Stream:
    """
    Feeds bytes of one object to a consumer.

    :ivar consumer: The consumer, which may pause and stop this producer.
    :ivar found: The object; it must not have changed since.
    """

    consumer: IConsumer
    _client: Client
    _clock: Any
    found: Found
    is_stopped: bool = field(default=False, init=False)
    _resumed: Deferred[None] | None = field(default=None, init=False)
    _receiver: _Receiver | None = field(default=None, init=False)
    _timer: Any = field(default=None, init=False)

    async def run(self, start: int, end: int) -> None:
        """
        Feed the bytes from *start* up to, not including, *end*.

        :raises StagedDataLost: If the object is gone, or has changed.
        :raises BackendError: If S3 fails, or the consumer stopped it.
        """
        self.consumer.registerProducer(self, True)
        fruitless = 0
        try:
            while start < end:
                received = await self._receive(start, end)
                self._insist()
                start += received
                fruitless = 0 if received else fruitless + 1
                if fruitless == _MOST_FRUITLESS:
                    raise BackendError(f"S3 sends no bytes of {self.found.key!a}")
        finally:
            if self._receiver is not None:
                # The caller has given up.
                self._receiver.drop()
            self.consumer.unregisterProducer()

    async def _receive(self, start: int, end: int) -> int:
        """Send one request, pass its body on, and return how many bytes came."""
        request = Request(
            "GetObject",
            "GET",
            self.found.key,
            headers={
                "range": f"bytes={start}-{end - 1}",
                "if-match": self.found.etag,
            },
            most=0,
            is_left_open=True,
        )
        try:
            response = await self._client.ask(request)
        except S3Error as error:
            if error.status in (404, 412, 416):
                raise StagedDataLost(str(error)) from error
            raise
        fault = self._fault(response, start)
        receiver = self._receiver = _Receiver(self, end - start)
        try:
            while self._resumed is not None:
                await self._resumed
            receiver.is_unwanted = self.is_stopped or fault is not None
        except BaseException:
            # The caller has given up, so the connection is closed.
            receiver.is_unwanted = True
            raise
        finally:
            response.open.deliverBody(receiver)
        await receiver.ended
        self._receiver = None
        if fault is not None:
            raise fault
        return receiver.received

    def _fault(self, response: Response, start: int) -> BackendError | None:
        """Return what is wrong with a response, if it is not of these bytes."""
        found = self.found
        if response.coding != found.coding:
            return S3Unfit(
                f"S3 sends {found.key!a} with Content-Encoding {response.coding}, but "
                f"says that it is stored with {found.coding}; a proxy in front of the "
                "store must not compress"
            )
        if not response.headers.get("content-range", "").startswith(f"bytes {start}-"):
            return S3Unfit("this store does not respect Range in reads")
        # Not every store respects If-Match in reads.
        if quoted(response.headers.get("etag", found.etag)) != quoted(found.etag):
            return StagedDataLost(f"{found.key!a} has been replaced")
        return None

    def _insist(self) -> None:
        if self.is_stopped:
            raise BackendError("the reader has gone away")

    # Time

    def watch(self) -> None:
        """Expect bytes soon, unless the consumer pauses."""
        self.rest()
        if self._resumed is None:
            self._timer = self._clock.callLater(ATTEMPT_TIMEOUT, self._stalled)

    def rest(self) -> None:
        """Expect none."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _stalled(self) -> None:
        _log.debug("nothing arrives of {key}; requesting it again", key=self.found.key)
        if self._receiver is not None:
            self._receiver.drop()

    # Called by the consumer

    def pauseProducing(self) -> None:
        """Pause; called by the consumer."""
        if self._resumed is None and not self.is_stopped:
            self._resumed = Deferred()
            self.rest()
            if (transport := self._transport()) is not None:
                transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Go on; called by the consumer."""
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            if (transport := self._transport()) is not None:
                self.watch()
                transport.resumeProducing()
            resumed.callback(None)

    def stopProducing(self) -> None:
        """Stop for good; called by the consumer."""
        if not self.is_stopped:
            self.is_stopped = True
            self.resumeProducing()
            if self._receiver is not None:
                self._receiver.drop()

    def _transport(self) -> Any:
        return None if self._receiver is None else self._receiver.transport


def served(staging: Staging, found: Found) -> StoredFile:
    """
    Make a file that can be served from an object.

    Its ETag is the store's, which is strong and differs for each content.

    Length, ranges and ETag are those of the bytes as they are stored, and the file has
    their Content-Encoding.

    :raises BackendError: If it has no ETag.
    """
    etag = found.etag.removeprefix('"').removesuffix('"')
    if not etag:
        raise BackendError(f"the store has no ETag for {found.key!a}")
    client = staging.bucket.client
    return StoredFile(
        found.size,
        found.modified,
        etag,
        lambda consumer: Stream(consumer, client, staging.clock, found),
        content_encoding=found.coding,
    )


async def open_file(staging: Staging, destination: tuple[str, ...]) -> StoredFile:
    """
    Look at a file; see :class:`~txbits.interfaces.IDownloadable`.

    :raises BackendError: In the ways of ``IDownloadable.open_file``.
    """
    checked_segments(destination)
    key = staging.settings.key(destination)
    # For a longer key, S3 has an error that does not mean that there is no file.
    found = await staging.bucket.head(key) if staging.is_key(key) else None
    if found is not None:
        return served(staging, found)
    if staging.is_key(key) and (await staging.bucket.page(f"{key}/", most=1)).found:
        raise DestinationIsDirectory(f"{shown_path(destination)} is a directory")
    raise NoSuchFile(f"there is no {shown_path(destination)}")


async def location(
    staging: Staging, destination: tuple[str, ...], method: str
) -> str | None:
    """
    Sign a URL of a file; see :class:`~txbits.interfaces.IRedirecting`.

    :returns: The URL; ``None`` if the settings say that we serve files.
    :raises BackendError: In the ways of ``IDownloadable.open_file``.
    """
    seconds = staging.settings.presign
    if seconds is None:
        return None
    # So that clients are redirected only to files that exist and may be served.
    await open_file(staging, destination)
    client = staging.bucket.client
    await client.access.ready()
    url = client.url(
        Request("GetObject", method, key=staging.settings.key(destination))
    )
    return client.access.presigned(method, url, seconds)
