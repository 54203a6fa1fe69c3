"""
Server-sent events: the parts of the page that have changed.

What a stream takes is bounded: their number is, and a browser that does not read gets
nothing more until it does, and then only what there is at that time. The site drops one
that reads nothing for a minute.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request
from zope.interface import implementer

from txbits._deferreds import deferred

_log = Logger()

#: How many streams there may be.
MOST_STREAMS = 20

#: Seconds between two events, at least, by default.
INTERVAL = 2.0

#: The pause between two events is at least so many times as long as making one takes,
#: but not longer than so many seconds.
_PAUSES = 4
_LONGEST_PAUSE = 60.0

#: Seconds after which a stream ends. The browser begins another one, with credentials
#: that are checked again.
LONGEST = 600.0


@implementer(IPushProducer)
@define(eq=False)
class _Stream:
    """
    A browser that waits for events.

    :ivar query: What it shows.
    :ivar ends: When the stream ends, by the steady clock.
    :ivar sent: What each part was when it was sent last.
    """

    request: Request
    query: object
    ends: float
    sent: dict[str, bytes] = field(factory=dict, init=False)
    is_full: bool = field(default=False, init=False)
    is_gone: bool = field(default=False, init=False)

    def begin(self) -> None:
        """Send the head."""
        request = self.request
        for name, value in (
            (b"Server", b"txbits"),
            (b"Content-Type", b"text/event-stream; charset=utf-8"),
            (b"Cache-Control", b"no-store"),
            (b"X-Content-Type-Options", b"nosniff"),
            # For a proxy in between (nginx).
            (b"X-Accel-Buffering", b"no"),
        ):
            request.setHeader(name, value)
        request.registerProducer(self, True)
        # How long the browser waits before it connects again, in milliseconds.
        request.write(b"retry: 3000\n\n")

    def send(self, parts: Mapping[str, bytes]) -> None:
        """Send the parts that are not as they were."""
        if self.is_full or self.is_gone:
            return
        new = [part for name, part in parts.items() if self.sent.get(name) != part]
        if new:
            self.sent = dict(parts)
            lines = b"\n".join(new).splitlines()
            event = b"".join(b"data: %b\n" % line for line in lines)
            self.request.write(b"event: parts\n%b\n" % event)

    def end(self) -> None:
        """End it. The browser connects again, unless it has gone."""
        if not self.is_gone:
            self.is_gone = True
            self.request.unregisterProducer()
            self.request.finish()

    def pauseProducing(self) -> None:
        """The browser reads too slowly."""
        self.is_full = True

    def resumeProducing(self) -> None:
        """It has read."""
        self.is_full = False

    def stopProducing(self) -> None:
        """It has gone."""
        self.is_gone = True


@define(eq=False)
class Streams:
    """
    The streams of all browsers.

    :param clock: The steady clock.
    :param make: Makes the parts of a page, by their ids, for a query that was given to
        :meth:`add`. It is called once for all streams with equal queries.
    :param admission: Returns what decides who may look. When that changes, all
        streams end.
    :ivar interval: Seconds between two events, at least.
    """

    _clock: IReactorTime
    _make: Callable[[object], Awaitable[Mapping[str, bytes]]]
    _admission: Callable[[], Sequence[object]]
    interval: float = field(default=INTERVAL, kw_only=True)
    _streams: set[_Stream] = field(factory=set, init=False)
    _admitted: Sequence[object] = field(default=(), init=False)
    _is_running: bool = field(default=False, init=False)
    _is_sending: bool = field(default=False, init=False)
    _call: IDelayedCall | None = field(default=None, init=False)

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, request: Request, query: object) -> bool:
        """
        Answer a request with events, until it ends.

        :param query: What it asks for; hashable.
        :returns: Whether there was room for it.
        """
        if len(self._streams) >= MOST_STREAMS or not self._is_running:
            return False
        if request._disconnected:
            return True
        stream = _Stream(request, query, self._clock.seconds() + LONGEST)
        self._streams.add(stream)
        request.notifyFinish().addBoth(self._gone, stream)
        stream.begin()
        if len(self._streams) == 1:
            self._admitted = self._admission()
        self._schedule()
        return True

    def start(self) -> None:
        """From now on, streams may begin."""
        self._is_running = True

    def stop(self) -> None:
        """End all streams, and begin no more."""
        self._is_running = False
        self._end_all()

    def _end_all(self) -> None:
        for stream in list(self._streams):
            stream.end()

    def _gone(self, _: object, stream: _Stream) -> None:
        stream.is_gone = True
        self._streams.discard(stream)
        if not self._streams and self._call is not None:
            self._call.cancel()
            self._call = None

    def _schedule(self, took: float = 0.0) -> None:
        if self._streams and self._call is None and not self._is_sending:
            pause = max(self.interval, min(_PAUSES * took, _LONGEST_PAUSE))
            self._call = self._clock.callLater(pause, self._round)

    @deferred
    async def _round(self) -> None:
        """Send what has changed to everyone; the next round waits for this one."""
        began = self._clock.seconds()
        self._call, self._is_sending = None, True
        try:
            await self._send()
        finally:
            self._is_sending = False
            self._schedule(self._clock.seconds() - began)

    async def _send(self) -> None:
        admission = self._admission()
        if [*map(id, admission)] != [*map(id, self._admitted)]:
            self._admitted = admission
            self._end_all()
            return
        now = self._clock.seconds()
        for stream in [one for one in self._streams if one.ends <= now]:
            stream.end()
        for query in {one.query for one in self._streams if not one.is_full}:
            try:
                parts = await self._make(query)
            except Exception:  # noqa: BLE001 - the page of others goes on
                _log.failure("cannot make the operator's page")
                continue
            for stream in [one for one in self._streams if one.query == query]:
                stream.send(parts)
