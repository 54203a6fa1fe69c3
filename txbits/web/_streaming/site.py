"""
The site: it limits the number of connections, and checks their deadlines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.http import RESPONSES, datetimeToString
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import IResource, getChildForRequest
from twisted.web.server import Request, Site

from txbits._ledger import Ledger
from txbits.clocks import steady, wall_of
from txbits.protocol.urls import without_link
from txbits.web._streaming.bodies import PIECE_SIZE
from txbits.web._streaming.channel import StreamingChannel
from txbits.web._streaming.limits import Limits
from txbits.web._streaming.request import StreamingRequest
from txbits.web._streaming.states import LOST, TRANSITIONS
from txbits.web._streaming.turns import Turns

_log = Logger()

#: Seconds between two checks of all deadlines.
_REAP_INTERVAL = 5.0

_Formatter = Callable[[str, HTTPRequest], str]


def _without_links(log_format: _Formatter) -> _Formatter:
    return lambda at, request: without_link(log_format(at, request))


class BITSSite(Site):
    """
    A site for :class:`~txbits.web.BITSResource`, and other resources beside it.

    :param resource: The root.
    :param reactor: The steady clock, see :mod:`txbits.clocks`; its wall clock dates
        the answers.
    :param limits: Time-outs, and limits on connections and bodies.
    :param only_uploads: Whether only packets have bodies that a resource reads; all
        requests are then dispatched on their heads.
    :param ledger: Counts the connections of all workers; ``None`` if this process is
        alone. Then the limits are those of this site.

    Unlike ``Site`` it writes no access log without a ``logPath``, because the sessions
    are logged anyway. Upload links, which are secrets, are left out of that log.

    :ivar seconds: Returns the time of the steady clock, in seconds.
    :ivar channels: The connections, as the keys of a dictionary: a set of thousands
        takes up to three times as much memory.
    :ivar made: How many connections were made.
    :ivar turned_away: How many were closed at once because of the limits.
    """

    requestFactory: type[StreamingRequest] = StreamingRequest
    noisy = False
    # This excludes HTTP/2.
    protocol = StreamingChannel  # type: ignore[assignment]

    def __init__(
        self,
        resource: IResource,
        *args: Any,
        reactor: IReactorTime | None = None,
        limits: Limits | None = None,
        only_uploads: bool = False,
        ledger: Ledger | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(resource, *args, reactor=reactor, **kwargs)
        self._logFormatter = _without_links(self._logFormatter)
        self.limits = Limits() if limits is None else limits
        self.only_uploads = only_uploads
        # Deadlines replace the channel's own time-out.
        self.timeOut = None
        self.seconds = steady(self.reactor).seconds
        self._wall = wall_of(self.reactor)
        self.channels: dict[StreamingChannel, None] = {}
        self.turns = Turns(self.reactor)
        self._by_peer: dict[str, int] = {}
        self._ledger = None if ledger is None else ledger.connections()
        # The pieces of long bodies are read into it, of one connection at a time.
        self.memory = memoryview(bytearray(PIECE_SIZE))
        self._hosts: dict[IAddress, IAddress] = {}
        self._call_later: Any = self.reactor.callLater
        self.made = self.turned_away = self._told_of = 0
        self._dated = -1
        self._date = b""
        self._beginnings: dict[int, bytes] = {}
        self._reaper = LoopingCall(self._reap)
        self._reaper.clock = self.reactor

    def startFactory(self) -> None:
        super().startFactory()
        self._reaper.start(_REAP_INTERVAL, now=False)

    def stopFactory(self) -> None:
        if self._reaper.running:
            self._reaper.stop()
        super().stopFactory()

    def acceptableProtocols(self) -> list[bytes]:
        """BITS is HTTP/1.1 (MC-BUP 2.2.1), also over TLS."""
        return [b"http/1.1"]

    def buildProtocol(  # type: ignore[override]
        self, addr: IAddress | None
    ) -> StreamingChannel | None:
        peer = getattr(addr, "host", "")
        if not self._admits(peer):
            self.turned_away += 1
            return None
        channel: StreamingChannel = super().buildProtocol(addr)
        channel._peer = peer
        # HTTPFactory makes a bound method for each connection.
        channel.callLater = self._call_later  # type: ignore[method-assign]
        return channel

    def _admits(self, peer: str) -> bool:
        limits = self.limits
        most, most_of_peer = limits.max_connections, limits.max_connections_per_peer
        if self._ledger is not None:
            # It counts the connection at once, before another worker can.
            return self._ledger.add(peer, most, most_of_peer)
        return len(self.channels) < most and self._by_peer.get(peer, 0) < most_of_peer

    def connected(self, channel: StreamingChannel) -> None:
        """A connection was made."""
        self.channels[channel] = None
        self.made += 1
        peer = channel._peer
        self._by_peer[peer] = self._by_peer.get(peer, 0) + 1

    def disconnected(self, channel: StreamingChannel) -> None:
        """A connection was lost."""
        self.channels.pop(channel, None)
        peer = channel._peer
        if self._ledger is not None:
            self._ledger.remove(peer)
        left = self._by_peer.get(peer, 0) - 1
        if left > 0:
            self._by_peer[peer] = left
        else:
            self._by_peer.pop(peer, None)

    def connections(self) -> dict[str, int]:
        """Count the connections, by the name of their state."""
        counts = {state.name: 0 for state in TRANSITIONS if state is not LOST}
        for channel in self.channels:
            counts[channel.state.name] += 1
        return counts

    def date(self) -> bytes:
        """The value of a Date header, formatted once a second."""
        now = int(self._wall())
        if now != self._dated:
            self._dated, self._date = now, datetimeToString(now)
            self._beginnings.clear()
        return self._date

    def answer_begins(self, status: int) -> bytes:
        """
        The first lines of every answer to a packet, formatted once a second.

        :returns: The status line, Server and Date, without the last line's end.
        """
        date = self.date()
        lines = self._beginnings.get(status)
        if lines is None:
            lines = self._beginnings[status] = (
                b"HTTP/1.1 %d %b\r\nServer: txbits\r\nDate: %b"
                % (status, RESPONSES.get(status, b""), date)
            )
        return lines

    def intern(self, host: IAddress) -> IAddress:
        """One object for each local address, however many connections it has."""
        return self._hosts.setdefault(host, host)

    def getResourceFor(self, request: Request) -> IResource:
        """As ``Site`` does, but faster."""
        request.site = self
        request.sitepath = list(request.prepath or ())  # type: ignore[attr-defined]
        found: IResource = getChildForRequest(self.resource, request)
        return found

    def log(self, request: HTTPRequest) -> None:
        if self.logPath is not None:
            super().log(request)

    def _reap(self) -> None:
        now = self.seconds()
        for channel in [one for one in self.channels if one.deadline < now]:
            channel.deadline_passed()
        if self.turned_away != self._told_of:
            _log.warn(
                "turned {count} connections away: max-connections is {most}, "
                "max-connections-per-peer is {most_per_peer}",
                count=self.turned_away - self._told_of,
                most=self.limits.max_connections,
                most_per_peer=self.limits.max_connections_per_peer,
            )
            self._told_of = self.turned_away
