"""
Uploads: what the protocol wants done, done.

:mod:`txbits.protocol.upload` says what to send and what an answer means; here it is
sent, waited for, and in the end given up.
"""

from __future__ import annotations

import os
import random as _random
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txbits.client._exchange import (
    REQUEST_TIMEOUT,
    RESPONSE_TIMEOUT,
    ExchangeError,
    IExchange,
    NoAnswer,
    exchange_over_network,
)
from txbits.client._retry import Backoff
from txbits.client._url import to_wire
from txbits.client.source import FileSource, ISource, SourceError
from txbits.protocol.codec import RemoteProtocolError
from txbits.protocol.packets import Ack, Fragment
from txbits.protocol.upload import (
    DEFAULT_FRAGMENT_SIZE,
    Again,
    Done,
    Later,
    Reaction,
    Refused,
    Upload,
)

T = TypeVar("T")

#: For how many seconds an upload that gets no further is tried again.
DEFAULT_RETRY_FOR = 600.0

#: How long, in seconds, a server may take to release an upload that failed.
_ABANDON_TIMEOUT = 10.0


class UploadFailed(Exception):
    """
    The server has not taken the file; the text is one line that says why.

    :ivar status: The HTTP status of the last answer, if there was one.
    :ivar hresult: Its HRESULT, if it had one.
    :ivar transient: Whether trying again at another time can help.
    """

    def __init__(
        self,
        message: str,
        *,
        transient: bool,
        status: int | None = None,
        hresult: int | None = None,
    ) -> None:
        super().__init__(message)
        self.transient = transient
        self.status = status
        self.hresult = hresult


@frozen
class UploadResult:
    """
    An upload that succeeded.

    :ivar session_id: The session that it was.
    :ivar length: How many bytes the file has.
    :ivar reply_url: Where the server application's reply is, if there is one.
    """

    session_id: UUID
    length: int
    reply_url: str | None


@frozen
class Progress:
    """
    Bytes moved.

    :ivar sent: How many bytes of the file were handed to the network. That number may
        fall, when some have to be sent again.
    :ivar acknowledged: How many the server has said that it holds.
    :ivar total: How many there are.
    """

    sent: int
    acknowledged: int
    total: int


@frozen
class Waiting:
    """
    Something failed that may pass, and will be tried again.

    :ivar seconds: After how long.
    :ivar cause: What failed, in words.
    """

    seconds: float
    cause: str


Event = Progress | Waiting


def _ignore(event: Event) -> None:
    """Do nothing."""


def upload(
    source: ISource | str | bytes | os.PathLike[Any],
    url: str,
    *,
    reactor: Any,
    fragment_size: int = DEFAULT_FRAGMENT_SIZE,
    retry_for: float = DEFAULT_RETRY_FOR,
    request_timeout: float = REQUEST_TIMEOUT,
    response_timeout: float = RESPONSE_TIMEOUT,
    on_event: Callable[[Event], None] = _ignore,
    random: Callable[[], float] = _random.random,
    exchange: IExchange | None = None,
) -> Deferred[UploadResult]:
    """
    Upload a file to a BITS server.

    :param source: The path of a file, or anything that provides
        :class:`~txbits.client.source.ISource`. One that is given is not closed.
    :param url: Where the file is to appear.
    :param reactor: Makes the connections, and tells the time.
    :param fragment_size: How many bytes are sent at a time, unless the server wants
        fewer.
    :param retry_for: For how many seconds of no progress the upload is tried again.
    :param request_timeout: For how many seconds the connection may take nothing of a
        request.
    :param response_timeout: How many seconds an Ack may take.
    :param on_event: Called with each :class:`Progress` and :class:`Waiting`. What it
        raises is logged, and changes nothing.
    :param random: Gives numbers from 0 up to, not including, 1; it varies the pauses.
    :param exchange: Carries the packets, in place of a connection to *url*; it is
        closed at the end.
    :returns: A Deferred that fires with an :class:`UploadResult` when the file stands
        at its destination. It fails with :class:`UploadFailed`, with
        :class:`~txbits.client.source.SourceChanged` or
        :class:`~txbits.client.source.SourceError`, with
        :class:`~txbits.client.InvalidURL` or another :class:`ValueError`, or with
        :class:`OSError` if the file cannot be opened. When it is cancelled the session
        stays on the server, and the connection is closed before it fails with
        :class:`~twisted.internet.defer.CancelledError`.
    """
    opened: FileSource | None = None
    try:
        wire_url = to_wire(url)
        if isinstance(source, (str, bytes, os.PathLike)):
            source = opened = FileSource.open(source)
        machine = Upload(source.length, fragment_size, source.content_name)
    except (ValueError, SourceError, OSError):
        result: Deferred[UploadResult] = fail()
        return result if opened is None else result.addBoth(_close, opened)
    if exchange is None:
        exchange = exchange_over_network(
            reactor,
            wire_url,
            request_timeout=request_timeout,
            response_timeout=response_timeout,
        )
    work = _Work(
        machine=machine,
        source=source,
        exchange=exchange,
        clock=reactor,
        backoff=Backoff(reactor, random, retry_for),
        on_event=on_event,
    )
    result = work.start()
    return result if opened is None else result.addBoth(_close, opened)


def _close(outcome: T, source: FileSource) -> T:
    source.close()
    return outcome


@define(eq=False)
class _Work:
    """An upload that is under way."""

    machine: Upload
    source: ISource
    exchange: IExchange
    clock: IReactorTime
    backoff: Backoff
    on_event: Callable[[Event], None]
    _stopping: bool = field(init=False, default=False)
    _awaited: Deferred[Any] | None = field(init=False, default=None)
    _ended: Deferred[None] = field(init=False, factory=Deferred)
    _log = Logger()

    def start(self) -> Deferred[UploadResult]:
        # Cancelling a coroutine works only while it is waiting for something. This
        # can be cancelled always, which whoever is called with an event may want.
        result: Deferred[UploadResult] = Deferred(lambda _: self._stop())

        def conclude(outcome: UploadResult | Failure) -> None:
            self._ended.callback(None)
            if self._stopping:
                if isinstance(outcome, Failure):
                    outcome.trap(CancelledError)
            elif isinstance(outcome, Failure):
                result.errback(outcome)
            else:
                result.callback(outcome)

        Deferred.fromCoroutine(self._run()).addBoth(conclude).addErrback(
            lambda failure: self._log.failure("an upload ended badly", failure)
        )
        return result.addErrback(self._after_end)

    def _stop(self) -> None:
        self._stopping = True
        if self._awaited is not None:
            self._awaited.cancel()

    def _after_end(self, failure: Failure) -> Deferred[Any]:
        return self._ended.addCallback(lambda _: failure)

    async def _wait(self, awaited: Deferred[T]) -> T:
        self._awaited = awaited
        if self._stopping:
            awaited.cancel()
        try:
            result = await awaited
        finally:
            self._awaited = None
        self._check_stopping()
        return result

    def _check_stopping(self) -> None:
        if self._stopping:
            raise CancelledError

    async def _run(self) -> UploadResult:
        try:
            return await self._upload()
        except (UploadFailed, SourceError) as error:
            if not getattr(error, "transient", False):
                await self._abandon()
            raise
        finally:
            await self.exchange.close()

    async def _upload(self) -> UploadResult:
        self._report(0)
        while True:
            self._check_stopping()
            reaction = await self._step()
            if isinstance(reaction, Again):
                if reaction.progress:
                    self.backoff.progress()
                self._report(0)
            elif isinstance(reaction, Later):
                await self._pause(reaction)
            elif isinstance(reaction, Refused):
                raise UploadFailed(
                    reaction.cause,
                    status=reaction.status,
                    hresult=reaction.hresult,
                    transient=reaction.transient,
                )
            elif isinstance(reaction, Done):
                return UploadResult(
                    reaction.session_id, self.machine.total, reaction.reply_url
                )

    async def _step(self) -> Reaction:
        # Also before Close-Session: what is closed is what the user sees.
        await self._wait(self.source.check())
        try:
            ack = await self._wait(self._send(self._report))
        except NoAnswer as error:
            return self.machine.unanswered(str(error))
        except (ExchangeError, RemoteProtocolError) as error:
            raise UploadFailed(str(error), transient=False) from error
        return self.machine.answered(ack)

    def _send(self, moved: Callable[[int], None]) -> Deferred[Ack]:
        packet = self.machine.next_packet()
        name = self.machine.content_name if isinstance(packet, Fragment) else None
        return self.exchange.send(packet, self.source, name, moved)

    def _report(self, moved: int) -> None:
        offset = self.machine.offset
        self._tell(Progress(offset + moved, offset, self.machine.total))

    def _tell(self, event: Event) -> None:
        try:
            self.on_event(event)
        except Exception:  # noqa: BLE001  whoever watches must not break what it sees
            self._log.failure("on_event failed with {event}", event=event)

    async def _pause(self, later: Later) -> None:
        seconds = self.backoff.pause(later.retry_after)
        if seconds is None:
            raise UploadFailed(
                f"gave up after {self.backoff.patience:g} seconds without progress: "
                f"{later.cause}",
                status=later.status,
                hresult=later.hresult,
                transient=True,
            )
        self._tell(Waiting(seconds, later.cause))
        await self._wait(deferLater(self.clock, seconds))

    async def _abandon(self) -> None:
        """
        Have the server release what it holds of a file that will never be complete.

        It would keep that for days otherwise. But nobody is made to wait for it long,
        and the failure that ended the upload is what gets reported.
        """
        if not isinstance(self.machine.cancel(), Again):
            return
        sending = self._send(lambda _: None)
        sending.addTimeout(_ABANDON_TIMEOUT, self.clock)
        try:
            ack = await self._wait(sending)
        except (ExchangeError, RemoteProtocolError, TimeoutError) as error:
            self._log.debug("the session was not released: {error}", error=error)
        else:
            self._log.debug("the session was released: {ack}", ack=ack)
