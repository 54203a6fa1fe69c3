"""
An upload that can be paused, resumed and cancelled.

:mod:`txbits.protocol.upload` decides what to send and what an answer means. This module
sends it, waits, retries, and records the progress.
"""

from __future__ import annotations

import os
import random as _random
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txbits.client._arrival import has_arrived, not_arrived
from txbits.client._control import Control, Interrupted, Wish
from txbits.client._exchange import Found, IExchange, exchange_over_network
from txbits.client._reply import fetch_reply
from txbits.client._requests import ExchangeError, NoAnswer, NoTrust, NoWay
from txbits.client._retry import Backoff
from txbits.client._streams import (
    LARGEST_KEPT,
    PipeSource,
    ProducerSource,
    source_of,
)
from txbits.client._url import (
    InvalidURL,
    resolve_reply,
    same_server,
    to_wire,
    with_host,
    with_link_of,
)
from txbits.client.events import (
    Created,
    Event,
    Paused,
    Progress,
    UploadCancelled,
    UploadFailed,
    UploadResult,
    Waiting,
)
from txbits.client.journal import JournalError, Record, UploadJournal
from txbits.client.settings import ConnectionSettings
from txbits.client.source import SourceError
from txbits.clocks import steady
from txbits.protocol.codec import NotAnAck, RemoteProtocolError
from txbits.protocol.fragment_sizes import FragmentSizes
from txbits.protocol.packets import Ack, Fragment
from txbits.protocol.reactions import (
    Again,
    Cancelled,
    Done,
    Doubt,
    Later,
    Reaction,
    Refused,
)
from txbits.protocol.upload import Phase, Upload
from txbits.protocol.urls import without_link

#: How many seconds an upload is retried without progress.
DEFAULT_RETRY_FOR = 600.0

#: How many seconds a server may take to cancel an upload that failed.
_ABANDON_TIMEOUT = 10.0


def ignore(event: Event) -> None:
    """Do nothing."""


@define(eq=False)
class UploadJob:
    """
    One upload.

    :ivar source: The path of a file, a file object, a body producer of a known length,
        or a provider of :class:`~txbits.client.source.ISource`. A file object or a
        source stays open.
    :ivar url: The destination.
    :ivar reactor: Makes connections and timers.
    :ivar fragment_size: The size of the fragments, unless the server requires smaller
        ones; ``None`` to adapt to the network.
    :ivar retry_for: How many seconds to retry without progress.
    :ivar settings: The settings of the connection.
    :ivar reply: The path to save the server application's reply to. Without a reply the
        upload fails.
    :ivar journal: Records the progress, so that another run can resume.
    :ivar ping_connections: Whether to begin each new connection with a Ping. Use it
        where connections are authenticated, as with NTLM. With *settings* for Negotiate
        it is always so.
    :ivar on_event: Called with each event. Exceptions are logged and ignored.
    :ivar random: Returns numbers from 0 up to, but excluding, 1, to vary the pauses.
    :ivar exchange: Carries the packets, in place of a connection to *url*. It is closed
        at the end.
    """

    source: Any
    url: str = field(repr=without_link)
    reactor: Any = field(kw_only=True)
    fragment_size: int | None = field(default=None, kw_only=True)
    retry_for: float = field(default=DEFAULT_RETRY_FOR, kw_only=True)
    settings: ConnectionSettings = field(factory=ConnectionSettings, kw_only=True)
    reply: str | os.PathLike[Any] | None = field(default=None, kw_only=True)
    journal: UploadJournal | None = field(default=None, kw_only=True)
    ping_connections: bool = field(default=False, kw_only=True)
    on_event: Callable[[Event], None] = field(default=ignore, kw_only=True)
    random: Callable[[], float] = field(default=_random.random, kw_only=True)
    exchange: IExchange | None = field(default=None, kw_only=True)
    _wire_url: str = field(init=False, default="", repr=False)
    _opened: Any = field(init=False, default=None)
    _machine: Upload = field(init=False)
    _backoff: Backoff = field(init=False)
    _started: bool = field(init=False, default=False)
    _control: Control = field(init=False, factory=Control)
    _record: Record = field(init=False)
    _clock: IReactorTime = field(init=False)
    _reply_of: str | None = field(init=False, default=None)
    _log = Logger()

    def start(self) -> Deferred[UploadResult]:
        """
        Start the upload. An upload can be started once.

        :returns: A Deferred that fires with an
            :class:`~txbits.client.events.UploadResult` when the file is at its
            destination. It fails with :class:`~txbits.client.events.UploadFailed`, with
            :class:`~txbits.client.events.UploadCancelled` after :meth:`cancel`, with
            :class:`~txbits.client.source.SourceChanged` or
            :class:`~txbits.client.source.SourceError`, with
            :class:`~txbits.client.InvalidURL` or another :class:`ValueError`, with
            :class:`~txbits.client.journal.JournalError`, or with :class:`OSError` if a
            file cannot be opened. When it is cancelled the session stays on the server,
            and the connection is closed before it fails with
            :class:`~twisted.internet.defer.CancelledError`.
        """
        if self._started:
            raise RuntimeError("an upload can be started once only")
        self._started = True
        # A coroutine can be cancelled only while it waits for something. This Deferred
        # can be cancelled at any time, for example by on_event.
        control = self._control
        result: Deferred[UploadResult] = Deferred(lambda _: control.want(Wish.STOP))

        def conclude(outcome: UploadResult | Failure) -> None:
            control.end()
            if control.wish is Wish.STOP:
                if isinstance(outcome, Failure):
                    outcome.trap(CancelledError)
            elif isinstance(outcome, Failure):
                result.errback(outcome)
            else:
                result.callback(outcome)

        Deferred.fromCoroutine(self._run()).addBoth(conclude).addErrback(
            lambda failure: self._log.failure("an upload failed unexpectedly", failure)
        )
        return result.addErrback(
            lambda failure: control.until_end().addCallback(lambda _: failure)
        )

    def pause(self) -> Deferred[None]:
        """
        Send nothing more until :meth:`resume`. The session stays on the server.

        :returns: A Deferred that fires with ``None`` when no request is in progress.
        """
        return self._control.pause()

    def resume(self) -> None:
        """Continue after :meth:`pause`, from the server's offset."""
        if self._control.wish is Wish.PAUSE:
            self._control.want(Wish.GO_ON)

    def cancel(self) -> Deferred[None]:
        """
        Stop the upload, and cancel the session on the server.

        :returns: A Deferred that fires with ``None`` when the upload has ended. The
            Deferred of :meth:`start` tells how.
        """
        ended = self._control.until_end()
        if self._control.wish in (Wish.GO_ON, Wish.PAUSE):
            self._control.want(Wish.CANCEL)
        return ended

    async def _run(self) -> UploadResult:
        self._wire_url = to_wire(self.url)
        self._clock = steady(self.reactor)
        self._opened, closing = source_of(self.source)
        try:
            self._machine = self._new_machine()
            if self.exchange is None:
                self.exchange = exchange_over_network(
                    self.reactor, self._wire_url, self.settings
                )
            try:
                return await self._upload()
            finally:
                await self.exchange.close()
        finally:
            if closing:
                self._opened.close()

    def _new_machine(self) -> Upload:
        if self.fragment_size is not None:
            sizes = FragmentSizes.fixed(self.fragment_size)
        elif isinstance(self._opened, (PipeSource, ProducerSource)):
            sizes = FragmentSizes.up_to(LARGEST_KEPT)
        else:
            sizes = FragmentSizes()
        return Upload(
            self._opened.length,
            sizes,
            self._opened.content_name,
            # A login with the body of a Fragment would send it twice.
            self.ping_connections or self.settings.negotiate,
            self._clock.seconds,
        )

    async def _upload(self) -> UploadResult:
        self._backoff = Backoff(self.reactor, self.random, self.retry_for)
        self._record = Record(self._clock, self.journal)
        try:
            await self._take_up()
            result = await self._work()
            await self._record.finish(self._machine.position)
        except (UploadFailed, UploadCancelled, SourceError) as error:
            if getattr(error, "resumable", False):
                await self._note_end()
            else:
                await self._abandon()
                await self._record.remove()
            raise
        except CancelledError:
            await self._note_end()
            raise
        return result

    async def _note_end(self) -> None:
        """Record where another run resumes. If that fails, it costs a fragment."""
        try:
            await self._record.catch_up(self._machine.position)
        except JournalError as error:
            self._log.info(
                "could not write the last offset to the journal: {error}", error=error
            )

    async def _take_up(self) -> None:
        """Resume where an earlier run stopped, unless the file has changed."""
        stale = self._record.stale()
        if stale is not None:
            self._machine.restore(stale)
            await self._abandon()
            self._machine = self._new_machine()
        found = self._record.found()
        if found is not None:
            self._machine.restore(found)

    async def _work(self) -> UploadResult:
        self._report(0)
        while True:
            try:
                self._control.check()
                if self._machine.phase is Phase.CLOSING:
                    await self._get_reply()
                reaction = await self._step()
                result = await self._react(reaction)
            except Interrupted:
                await self._obey()
            else:
                if result is not None:
                    return result

    async def _obey(self) -> None:
        """Pause or cancel."""
        if self._control.wish is not Wish.PAUSE:
            self._control.cancelling = True
            if isinstance(self._machine.cancel(), Cancelled):
                raise UploadCancelled("the upload was cancelled")
            return
        if self.exchange is not None:
            await self.exchange.close()
        self._tell(Paused(self._machine.offset))
        await self._control.rest()
        self._backoff.progress()
        # MC-BUP 3.1.4.3.
        self._machine.ping()

    async def _react(self, reaction: Reaction) -> UploadResult | None:
        await self._record.write(self._machine.position)
        if isinstance(reaction, Again):
            if reaction.progress:
                self._backoff.progress()
            self._opened.forget(self._machine.offset)
            self._report(0)
        elif isinstance(reaction, Later):
            await self._pause(reaction)
        elif isinstance(reaction, Refused):
            # With 401 and 407 the session stays, to be resumed with a password.
            raise UploadFailed(
                reaction.cause + self._hint(reaction),
                status=reaction.status,
                hresult=reaction.hresult,
                transient=reaction.transient,
                resumable=reaction.transient or reaction.status in (401, 407),
            )
        elif isinstance(reaction, Cancelled):
            raise UploadCancelled("the upload was cancelled")
        elif isinstance(reaction, Doubt):
            return await self._settle(reaction)
        else:
            return self._result(reaction, is_acknowledged=True)
        return None

    def _hint(self, refused: Refused) -> str:
        """An explanation if a host refuses the upload for lack of credentials."""
        settings = self.settings
        if refused.status not in (401, 403) or not settings.has_secrets:
            return ""
        if settings.trust_host_id or same_server(self._server_url(), self._wire_url):
            return ""
        return (
            f"; {self._machine.position.host}, which the server named, gets no "
            "password, token, ticket, header or certificate without --trust-host-id"
        )

    def _result(self, done: Done, *, is_acknowledged: bool) -> UploadResult:
        url = self._reply_url(done)
        return UploadResult(done.session_id, self._machine.total, url, is_acknowledged)

    async def _settle(self, doubt: Doubt) -> UploadResult | None:
        """Check whether the file is at its destination."""
        found: Found | None = None
        exchange: Any = self.exchange
        looking: Deferred[Found | None] = exchange.look(self._machine.host)
        try:
            found = await self._control.wait(looking)
        except ExchangeError as error:
            self._log.debug("could not look at the destination: {error}", error=error)
        total = self._machine.total
        if has_arrived(doubt, found, total, self._record.seconds()):
            done = self._machine.arrived(doubt.done)
            return self._result(done, is_acknowledged=False)
        return await self._react(not_arrived(doubt, found, total))

    async def _step(self) -> Reaction:
        before = self._machine.session_id
        if self._machine.phase is not Phase.CANCELLING:
            # Also before Close-Session, which publishes the file.
            await self._control.wait(self._opened.check())
        # A session whose ID is unknown can be neither resumed nor cancelled.
        creating = self._machine.phase is Phase.CREATING
        try:
            ack = await self._control.wait(self._send(self._report), precious=creating)
        except NoAnswer as error:
            return self._machine.unanswered(str(error))
        except NotAnAck as error:
            return self._machine.answered_by_stranger(
                str(error), error.status, error.location
            )
        except (ExchangeError, RemoteProtocolError) as error:
            resumable = isinstance(error, (NoTrust, NoWay))
            raise UploadFailed(
                str(error), transient=False, resumable=resumable
            ) from error
        reaction = self._machine.answered(ack)
        session_id = self._machine.session_id
        if session_id is not None and session_id != before:
            self._tell(Created(session_id))
        return reaction

    def _send(self, moved: Callable[[int], None]) -> Deferred[Ack[str]]:
        host = self._machine.host
        packet = self._machine.next_packet()
        name = self._machine.content_name if isinstance(packet, Fragment) else None
        exchange: Any = self.exchange
        result: Deferred[Ack[str]] = exchange.send(
            packet, self._opened, name, moved, host
        )
        return result

    def _report(self, moved: int) -> None:
        offset = self._machine.offset
        self._tell(Progress(offset + moved, offset, self._machine.total))

    def _tell(self, event: Event) -> None:
        try:
            self.on_event(event)
        except Exception:  # noqa: BLE001  observers must not break the upload
            self._log.failure("on_event failed with {event}", event=event)

    async def _pause(self, later: Later) -> None:
        seconds = self._backoff.pause(later.retry_after)
        if seconds is None:
            raise UploadFailed(
                f"gave up after {self._backoff.patience:g} seconds without progress: "
                f"{later.cause}",
                status=later.status,
                hresult=later.hresult,
                transient=True,
            )
        self._tell(Waiting(seconds, later.cause))
        await self._control.wait(deferLater(self.reactor, seconds))

    def _reply_url(self, done: Done) -> str | None:
        if done.reply_url is None:
            return None
        try:
            return resolve_reply(self._server_url(), done.reply_url)
        except InvalidURL as error:
            self._log.info("{error}", error=error)
            return None

    def _server_url(self) -> str:
        host = self._machine.position.host
        return self._wire_url if host is None else with_host(self._wire_url, host)

    async def _get_reply(self) -> None:
        """Download the reply, which the server deletes at Close-Session."""
        if self.reply is None or self._reply_of == self._machine.session_id:
            return
        text = self._machine.position.reply_url
        if text is None:
            # MC-BUP 3.1.5.2.4.
            raise UploadFailed("the server gave no reply", transient=False)
        server = self._server_url()
        try:
            url = resolve_reply(server, text)
        except InvalidURL as error:
            raise UploadFailed(str(error), transient=False) from error
        # A server that another one names is trusted only with trust_host_id.
        trusted = server if self.settings.trust_host_id else self._wire_url
        if same_server(url, trusted):
            url = with_link_of(url, self._wire_url)
        while True:
            getting = Deferred.fromCoroutine(
                fetch_reply(self.reactor, url, trusted, self.settings, self.reply)
            )
            try:
                await self._control.wait(getting)
            except NoAnswer as error:
                await self._pause(Later(str(error)))
            except (NoTrust, NoWay) as error:
                raise UploadFailed(str(error), transient=False) from error
            else:
                self._reply_of = self._machine.session_id
                return

    async def _abandon(self) -> None:
        """
        Cancel the session on the server, which would keep its data for days.

        This is bounded in time, and its failure does not replace that of the upload.
        """
        if self._machine.phase in (Phase.OVER, Phase.CANCELLING):
            return
        if not isinstance(self._machine.cancel(), Again):
            return
        sending = self._send(lambda _: None)
        sending.addTimeout(_ABANDON_TIMEOUT, self.reactor)
        try:
            ack = await self._control.wait(sending, precious=True)
        except (ExchangeError, RemoteProtocolError, TimeoutError) as error:
            self._log.debug("could not cancel the session: {error}", error=error)
        else:
            self._log.debug("cancelled the session: {ack}", ack=ack)


def upload(
    source: Any, url: str, *, reactor: Any, **settings: Any
) -> Deferred[UploadResult]:
    """
    Upload a file to a BITS server.

    :param source: The file, see :class:`UploadJob`, which can also be paused,
        resumed and cancelled.
    :param url: The destination.
    :param reactor: Makes connections and timers.
    :param settings: The other arguments of :class:`UploadJob`.
    :returns: What :meth:`UploadJob.start` returns.
    """
    return UploadJob(source, url, reactor=reactor, **settings).start()
