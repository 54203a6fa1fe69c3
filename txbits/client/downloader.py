"""
Downloads that resume where they stopped.

BITS downloads are plain range requests (MC-BUP 3.6). What was received is kept beside
the destination, and is not requested again: neither after a lost connection nor in
another run, unless the file on the server has changed. The file appears when it is
complete.
"""

from __future__ import annotations

import os
import random as _random
from collections.abc import Callable
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from txbits._deferreds import deferred, shielded
from txbits.client._auth import Authorizer
from txbits.client._fetch import Body, Head, moved
from txbits.client._files import FILES, Files
from txbits.client._http import make_agent
from txbits.client._partial import Busy, Origin, Partial
from txbits.client._requests import (
    Connections,
    ExchangeError,
    NoAnswer,
    Requests,
)
from txbits.client._retry import Backoff
from txbits.client._saving import Saving
from txbits.client._url import same_server, to_wire
from txbits.client.events import (
    DownloadFailed,
    DownloadResult,
    Event,
    Progress,
    Unlocked,
    Waiting,
)
from txbits.client.job import DEFAULT_RETRY_FOR
from txbits.client.settings import ConnectionSettings
from txbits.protocol.reactions import is_transient

T = TypeVar("T")

#: How many redirects a download follows, and how often it starts over in one run
#: because an answer does not match the part.
_REDIRECTS = 10
_RESTARTS = 5

#: This is permanent for uploads; downloads wait.
_TOO_MANY_REQUESTS = 429

_MOVED = (301, 302, 303, 307, 308)

#: The error if the answer to a range request lacks the ETag and Last-Modified that the
#: first answer had.
_STRANGER = (
    "an answer has neither ETag nor Last-Modified, unlike the first one: something on "
    "the way answers in place of the server, such as a network's login page"
)


def _ignore(event: Event) -> None:
    """Do nothing."""


@deferred
async def download(
    url: str,
    path: str | os.PathLike[str],
    *,
    reactor: Any,
    overwrite: bool = False,
    retry_for: float = DEFAULT_RETRY_FOR,
    settings: ConnectionSettings | None = None,
    on_event: Callable[[Event], None] = _ignore,
    random: Callable[[], float] = _random.random,
    in_thread: Callable[..., Deferred[Any]] | None = None,
    files: Files = FILES,
) -> DownloadResult:
    """
    Download a file.

    :param url: The URL of the file.
    :param path: The destination.
    :param reactor: Makes connections and timers.
    :param overwrite: Whether to replace an existing file.
    :param retry_for: How many seconds to retry without progress.
    :param settings: The settings of the connection. After a redirect to another server,
        passwords and headers are not sent.
    :param on_event: Called with each :class:`~txbits.client.Progress` and
        :class:`~txbits.client.Waiting`, and with :class:`~txbits.client.Unlocked` if
        the file system does not support locks. Exceptions are logged and ignored.
    :param random: Returns numbers from 0 up to, but excluding, 1, to vary the pauses.
    :param in_thread: Called with a function that blocks, to run it in a thread; uses
        the reactor's threads if ``None``.
    :param files: The system calls.
    :returns: A Deferred that fires with a :class:`~txbits.client.DownloadResult` when
        the file is complete and synced. It fails with
        :class:`~txbits.client.DownloadFailed`, with :class:`~txbits.client.InvalidURL`
        or another :class:`ValueError`, or with :class:`OSError` if the file cannot be
        written. What was received is kept, also when the Deferred is cancelled.
    """
    wire_url = to_wire(url)
    settings = ConnectionSettings() if settings is None else settings
    if in_thread is None:

        def in_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> Any:
            pool = reactor.getThreadPool()
            return deferToThreadPool(reactor, pool, function, *args, **kwargs)

    work = _Download(
        wire_url,
        os.fspath(path),
        reactor,
        overwrite,
        settings,
        Backoff(reactor, random, retry_for),
        on_event,
        _Threads(in_thread),
        files,
    )
    return await work.run()


@define
class _Threads:
    """
    Runs functions that block in threads, one at a time.

    A thread cannot be cancelled. Whoever waits for it can, but has to wait for
    :meth:`idle` before closing what the function uses. A function that is cancelled
    before its turn is not called.
    """

    in_thread: Callable[..., Deferred[Any]]
    _turn: DeferredLock = field(init=False, factory=DeferredLock)

    @deferred
    async def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        await self._turn.acquire()

        def release(outcome: Any) -> Any:
            self._turn.release()
            return outcome

        work = self.in_thread(function, *args, **kwargs).addBoth(release)
        result: T = await shielded(work)
        return result

    async def idle(self) -> None:
        await self._turn.acquire()
        self._turn.release()


@define(eq=False)
class _Download:
    """A download in progress."""

    url: str
    path: str
    reactor: Any
    overwrite: bool
    settings: ConnectionSettings
    backoff: Backoff
    on_event: Callable[[Event], None]
    threads: _Threads
    files: Files
    _partial: Partial = field(init=False)
    _own: Requests = field(init=False)
    _others: Requests = field(init=False)
    _received: int = field(init=False, default=0)
    _furthest: int = field(init=False, default=0)
    _restarts: int = field(init=False, default=0)
    _saving: Saving = field(init=False)
    _log = Logger()

    async def run(self) -> DownloadResult:
        """Do it."""
        self._own = self._requests(self.settings)
        self._others = self._requests(self.settings.for_strangers)
        if not self.overwrite and os.path.lexists(self.path):
            raise FileExistsError(17, "File exists", self.path)
        opened: list[Partial] = []

        def open_partial() -> None:
            # A download that is cancelled meanwhile has to close it, too.
            opened.append(Partial.open(self.path, self.files))

        try:
            await self.threads.run(open_partial)
            (self._partial,) = opened
            self._saving = Saving(self.reactor, self._partial, self.threads.run)
            if not self._partial.is_alone:
                self._tell(Unlocked(self._partial.part))
            await self._until_whole()
            await self.threads.run(self._partial.finish, overwrite=self.overwrite)
        except Busy as error:
            raise DownloadFailed(str(error), transient=True) from error
        finally:
            await self.threads.idle()
            try:
                for partial in opened:
                    await self.threads.run(partial.close)
            finally:
                await self._own.close()
                await self._others.close()
        return DownloadResult(self._partial.held, self._received)

    def _requests(self, settings: ConnectionSettings) -> Requests:
        connections = Connections(self.reactor)
        authorizer = Authorizer(settings.proxy_credentials)
        agent = make_agent(self.reactor, settings, connections, authorizer)
        return Requests(self.reactor, connections, agent, settings, authorizer)

    async def _until_whole(self) -> None:
        while True:
            try:
                if await self._attempt():
                    return
            except NoAnswer as error:
                await self._pause(str(error), None, None)
            except ExchangeError as error:
                raise DownloadFailed(str(error), transient=False) from error

    async def _attempt(self) -> bool:
        """
        Request and receive what is missing.

        :returns: Whether the file is complete.
        """
        partial = self._partial
        going_on = partial.goes_on(self.url)
        if going_on:
            self._furthest = max(self._furthest, partial.held)
        requests, response = await self._ask(going_on)
        head = Head.of(response)
        if going_on and self._fits(head):
            return await self._receive(requests, response)
        if going_on and head.status == 416 and self._is_whole(head):
            # An earlier run received all bytes, but did not finish.
            await self._discard(requests)
            return True
        if head.status == 200:
            if going_on and head.validators == (None, None):
                await self._discard(requests)
                raise NoAnswer(_STRANGER)
            return await self._begin(requests, response, head)
        await self._discard(requests)
        if head.status in (206, 416):
            await self._restart(head)
        else:
            await self._refused(head, response, requests.offered(response))
        return False

    async def _ask(self, going_on: bool) -> tuple[Requests, Any]:
        url = self.url
        origin = self._partial.origin
        headers = []
        if going_on and origin is not None and origin.validator is not None:
            headers = [
                (b"Range", b"bytes=%d-" % self._partial.held),
                (b"If-Range", origin.validator.encode("latin-1")),
            ]
        for _ in range(_REDIRECTS):
            is_own = same_server(url, self.url)
            requests = self._own if is_own else self._others
            response = await requests.ask(b"GET", url, headers, lambda _: None)
            location = Head.of(response).location
            if response.code not in _MOVED or location is None:
                return requests, response
            await self._discard(requests)
            url = moved(url, location)
        raise DownloadFailed(
            f"the server redirected {_REDIRECTS} times", transient=False
        )

    def _is_whole(self, head: Head) -> bool:
        """Whether the part is complete."""
        origin = self._partial.origin
        return origin is not None and self._partial.held == origin.length == head.total

    def _fits(self, head: Head) -> bool:
        """Whether an answer continues the part."""
        partial, origin = self._partial, self._partial.origin
        if head.status != 206 or origin is None:
            return False
        # The server may not support If-Range.
        etag, changed = head.validators
        told = etag if (origin.validator or "").startswith('"') else changed
        return (
            head.encoding is None
            and head.first == partial.held
            and head.total == origin.length
            and head.length == origin.length - partial.held
            and told in (None, origin.validator)
        )

    async def _begin(self, requests: Requests, response: Any, head: Head) -> bool:
        if head.encoding is not None:
            await self._discard(requests)
            words = f"the server gives the file as {head.encoding} only"
            raise DownloadFailed(words, transient=False, status=head.status)
        if head.length is None:
            await self._discard(requests)
            words = "the server does not tell how long the file is"
            raise DownloadFailed(words, transient=False, status=head.status)
        origin = Origin.of(self.url, head.validator, head.length)
        await self.threads.run(self._partial.begin, origin)
        return await self._receive(requests, response)

    async def _receive(self, requests: Requests, response: Any) -> bool:
        partial, origin = self._partial, self._partial.origin
        if origin is None:
            raise RuntimeError("the part has no origin")
        self._tell_progress(origin)

        def take(data: bytes) -> None:
            partial.write(data)
            self._saving.more_came()
            self._received += len(data)
            # A connection that always breaks at the same byte is no progress.
            if partial.held > self._furthest:
                self._furthest = partial.held
                self.backoff.progress()
            self._tell_progress(origin)

        patience = self.settings.request_timeout
        body = Body(self.reactor, patience, take, requests.drop)
        response.deliverBody(body)
        await body.ended
        if partial.held != origin.length:
            raise NoAnswer("the connection was lost")
        return True

    async def _restart(self, head: Head) -> None:
        """Start over, because the answer does not match the part."""
        self._restarts += 1
        if self._restarts > _RESTARTS or not self._partial.held:
            words = f"the server answered {head.status} to a request for the whole file"
            raise DownloadFailed(words, transient=False, status=head.status)
        nothing = Origin.of(self.url, None, 0)
        await self.threads.run(self._partial.begin, nothing)

    async def _refused(
        self, head: Head, response: Any, schemes: tuple[str, ...]
    ) -> None:
        words = f"the server answered {head.status}"
        if schemes:
            words += f"; it asks for {' or '.join(schemes)}"
        if not (is_transient(head.status) or head.status == _TOO_MANY_REQUESTS):
            raise DownloadFailed(words, transient=False, status=head.status)
        values = response.headers.getRawHeaders(b"Retry-After") or [b""]
        # Longer numbers are not worth parsing.
        is_number = values[0].isdigit() and len(values[0]) < 10
        retry_after = int(values[0]) if is_number else None
        await self._pause(words, head.status, retry_after)

    async def _discard(self, requests: Requests) -> None:
        """Discard the body of a response."""
        requests.drop()
        # Twisted is still parsing what came with the head, and may then put the
        # connection into the pool, where close() finds it.
        await deferLater(self.reactor, 0)

    async def _pause(
        self, cause: str, status: int | None, retry_after: int | None
    ) -> None:
        seconds = self.backoff.pause(retry_after)
        if seconds is None:
            raise DownloadFailed(
                f"gave up after {self.backoff.patience:g} seconds without progress: "
                f"{cause}",
                status=status,
                transient=True,
            )
        self._tell(Waiting(seconds, cause))
        if self._partial.unsafe:
            await self.threads.run(self._partial.save)
        await deferLater(self.reactor, seconds)

    def _tell_progress(self, origin: Origin) -> None:
        held = self._partial.held
        self._tell(Progress(held, held, origin.length))

    def _tell(self, event: Event) -> None:
        try:
            self.on_event(event)
        except Exception:  # noqa: BLE001  observers must not break the download
            self._log.failure("on_event failed with {event}", event=event)
