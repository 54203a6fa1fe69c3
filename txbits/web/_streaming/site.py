"""
The site: how many connections there may be, and for how long.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.http import RESPONSES, datetimeToString
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import IResource, getChildForRequest
from twisted.web.server import Request, Site

from txbits.clocks import steady, wall_of
from txbits.web._streaming.channel import StreamingChannel
from txbits.web._streaming.limits import Limits
from txbits.web._streaming.request import StreamingRequest
from txbits.web._streaming.turns import Turns

_log = Logger()

#: Seconds from one look at all deadlines to the next.
_REAP_INTERVAL = 5.0


class BITSSite(Site):
    """
    A site for resources among which are :class:`~txbits.web.BITSResource`.

    :param resource: The root.
    :param reactor: The steady clock, see :mod:`txbits.clocks`; its wall clock dates
        the answers.
    :param limits: What peers may take.
    :param only_uploads: Whether no resource here wants the body of anything but a
        packet; all requests are then answered on their heads.

    Unlike ``Site`` it writes no access log unless given a ``logPath``: the life of
    sessions is logged where it happens.

    :ivar seconds: Tells seconds by the steady clock.
    """

    requestFactory: type[StreamingRequest] = StreamingRequest
    noisy = False
    # No HTTP/2, and so no proxy that negotiates it.
    protocol = StreamingChannel  # type: ignore[assignment]

    def __init__(
        self,
        resource: IResource,
        *args: Any,
        reactor: IReactorTime | None = None,
        limits: Limits | None = None,
        only_uploads: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(resource, *args, reactor=reactor, **kwargs)
        self.limits = Limits() if limits is None else limits
        self.only_uploads = only_uploads
        # Deadlines take the place of the channel's own time-out.
        self.timeOut = None
        self.seconds = steady(self.reactor).seconds
        self._wall = wall_of(self.reactor)
        self.channels: set[StreamingChannel] = set()
        self.turns = Turns(self.reactor)
        self._by_peer: dict[str, int] = {}
        self._hosts: dict[IAddress, IAddress] = {}
        self._turned_away = 0
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
        if (
            len(self.channels) >= self.limits.max_connections
            or self._by_peer.get(peer, 0) >= self.limits.max_connections_per_peer
        ):
            self._turned_away += 1
            return None
        channel: StreamingChannel = super().buildProtocol(addr)
        channel._peer = peer
        return channel

    def connected(self, channel: StreamingChannel) -> None:
        """A connection was made."""
        self.channels.add(channel)
        peer = channel._peer
        self._by_peer[peer] = self._by_peer.get(peer, 0) + 1

    def disconnected(self, channel: StreamingChannel) -> None:
        """A connection was lost."""
        self.channels.discard(channel)
        peer = channel._peer
        left = self._by_peer.get(peer, 0) - 1
        if left > 0:
            self._by_peer[peer] = left
        else:
            self._by_peer.pop(peer, None)

    def date(self) -> bytes:
        """The value of a Date header, made once a second."""
        now = int(self._wall())
        if now != self._dated:
            self._dated, self._date = now, datetimeToString(now)
            self._beginnings.clear()
        return self._date

    def answer_begins(self, status: int) -> bytes:
        """
        The first lines of every answer to a packet, made once a second.

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
        """As ``Site`` does, which copies the list as if it could be anything."""
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
        if self._turned_away:
            _log.warn(
                "turned {count} connections away: max-connections is {most}, "
                "max-connections-per-peer is {most_per_peer}",
                count=self._turned_away,
                most=self.limits.max_connections,
                most_per_peer=self.limits.max_connections_per_peer,
            )
            self._turned_away = 0
