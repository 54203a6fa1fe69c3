"""
One packet out, one Ack in, over HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface, implementer

from txbits._deferreds import deferred
from txbits.client._bodies import NoBody, RangeBody, Throttle
from txbits.client._requests import Body, Requests
from txbits.client._url import same_server, with_host
from txbits.client.settings import ConnectionSettings
from txbits.client.source import ISource
from txbits.protocol._fields import LocalProtocolError, parse_offset
from txbits.protocol.codec import METHOD, encode_request, parse_ack
from txbits.protocol.packets import Ack, ClientPacket, Fragment


@frozen
class Found:
    """
    A file at the destination.

    :ivar length: Its length in bytes.
    :ivar age: Its age in seconds, by the server's clock; ``None`` if unknown.
    """

    length: int
    age: float | None


class IExchange(Interface):
    """Carries packets to a server, one at a time."""

    def send(
        packet: ClientPacket,  # noqa: N805
        source: ISource,
        content_name: str | None,
        moved: Callable[[int], None],
        host: str | None,
    ) -> Deferred[Ack[str]]:
        """
        Send a packet.

        :param source: The source of a Fragment's bytes.
        :param content_name: The file's name, sent with a Fragment.
        :param moved: Called with the number of bytes of a Fragment that were handed to
            the network so far.
        :param host: The host to send it to, instead of the URL's.
        :returns: A Deferred that fires with the Ack, which may be a refusal. It fails
            with :class:`NoAnswer`, :class:`NoTrust` or :class:`NoWay`, with
            :class:`~txbits.protocol.codec.NotAnAck` if the answer is not from a BITS
            server, with another :class:`~txbits.protocol.codec.RemoteProtocolError` if
            the Ack is invalid, or with
            :class:`~txbits.client.source.SourceError`. When it is cancelled, the
            connection is dropped.
        """

    def look(host: str | None) -> Deferred[Found | None]:  # noqa: N805
        """
        Look for a file at the destination.

        :param host: The host to ask, instead of the URL's.
        :returns: A Deferred that fires with the file, or ``None`` if the server does
            not show it. It fails as :meth:`send` does.
        """

    def close() -> Deferred[None]:
        """
        Close the connections.

        :returns: A Deferred that fires with ``None`` when they are closed.
        """


@implementer(IExchange)
class HTTPExchange:
    """
    An exchange over treq, on a connection that is kept between packets.

    :param url: The destination, in ASCII.
    :param requests: Makes the requests to the server of the URL.
    :param strangers: Makes those to other servers that it names, without secrets.
    :param throttle: Bounds how fast bytes of files are sent.
    :param keep: Whether :meth:`close` leaves the connections to their owner.
    """

    def __init__(
        self,
        url: str,
        requests: Requests,
        strangers: Requests,
        throttle: Throttle,
        *,
        keep: bool = False,
    ) -> None:
        self._url = url
        self._requests = requests
        self._strangers = strangers
        self._throttle = throttle
        self._keep = keep

    @deferred
    async def send(
        self,
        packet: ClientPacket,
        source: ISource,
        content_name: str | None,
        moved: Callable[[int], None],
        host: str | None,
    ) -> Ack[str]:
        """See :meth:`IExchange.send`."""

        def make_body(restart: Callable[[], None]) -> Body:
            if not isinstance(packet, Fragment):
                return NoBody()

            def taken(count: int) -> None:
                restart()
                moved(count)

            content_range = packet.content_range
            return RangeBody(
                source, content_range.first, content_range.length, self._throttle, taken
            )

        url, requests = self._at(host)
        name = content_name if isinstance(packet, Fragment) else None
        response = await requests.ask(
            METHOD, url, encode_request(packet, name), make_body
        )
        # An Ack has no body. An answer with a body is from something else.
        await requests.discard(response)
        return _ack(response, requests.offered(response))

    @deferred
    async def look(self, host: str | None) -> Found | None:
        """See :meth:`IExchange.look`."""
        url, requests = self._at(host)
        response = await requests.ask(b"HEAD", url, [], lambda _: None)
        await requests.discard(response)
        return _found(response)

    def _at(self, host: str | None) -> tuple[str, Requests]:
        """The URL at a host, and what makes requests there."""
        if host is None:
            return self._url, self._requests
        url = with_host(self._url, host)
        is_own = same_server(url, self._url)
        return url, self._requests if is_own else self._strangers

    @deferred
    async def close(self) -> None:
        """See :meth:`IExchange.close`."""
        if self._keep:
            return
        await self._requests.close()
        if self._strangers is not self._requests:
            await self._strangers.close()


class ILine(Interface):
    """A connection that is kept for one upload after the other."""

    def exchange(url: str) -> IExchange:  # noqa: N805
        """
        Make an exchange that uses the connection.

        Only one can be in use at a time. Closing it does not close the connection.

        :param url: The destination, in ASCII.
        """

    def close() -> Deferred[None]:
        """
        Close the connection.

        :returns: A Deferred that fires with ``None`` when it is closed.
        """


@implementer(ILine)
class HTTPLine:
    """
    A line to a server.

    :param settings: How the server is reached.
    :param throttle: Bounds how fast bytes are sent, together with other lines; one of
        its own if ``None``.
    :raises InvalidSettings: If the settings are invalid.
    """

    def __init__(
        self,
        reactor: Any,
        settings: ConnectionSettings,
        throttle: Throttle | None = None,
    ) -> None:
        self._throttle = throttle or Throttle(reactor, settings.limit_rate)
        self._requests = self._strangers = Requests.over_network(reactor, settings)
        if settings.has_secrets and not settings.trust_host_id:
            self._strangers = Requests.over_network(reactor, settings.for_strangers)

    def exchange(self, url: str, *, keep: bool = True) -> HTTPExchange:
        """See :meth:`ILine.exchange`."""
        return HTTPExchange(
            url,
            self._requests,
            self._strangers,
            self._throttle,
            keep=keep,
        )

    def close(self) -> Deferred[None]:
        """See :meth:`ILine.close`."""
        return self.exchange("", keep=False).close()


def exchange_over_network(
    reactor: Any, url: str, settings: ConnectionSettings
) -> HTTPExchange:
    """
    Make an exchange with the server that *url* names.

    :raises InvalidSettings: If the settings are invalid.
    """
    return HTTPLine(reactor, settings).exchange(url, keep=False)


def _ack(response: Any, schemes: tuple[str, ...]) -> Ack[str]:
    headers = _headers_of(response)
    ack = parse_ack(response.code, headers)
    if ack.retry_after is None:
        seconds = _seconds_until(headers, b"retry-after")
        ack = evolve(ack, retry_after=None if seconds is None else max(0, int(seconds)))
    return evolve(ack, schemes=schemes) if schemes else ack


def _found(response: Any) -> Found | None:
    headers = _headers_of(response)
    try:
        length = parse_offset(headers[b"content-length"][0].strip(b" \t"))
    except (KeyError, LocalProtocolError):
        return None
    coding = headers.get(b"content-encoding", [b""])[0].strip(b" \t").lower()
    if response.code != 200 or coding not in (b"", b"identity"):
        return None
    seconds = _seconds_until(headers, b"last-modified")
    return Found(length, None if seconds is None else -seconds)


def _headers_of(response: Any) -> Mapping[bytes, Sequence[bytes]]:
    return {
        name.lower(): values for name, values in response.headers.getAllRawHeaders()
    }


def _seconds_until(
    headers: Mapping[bytes, Sequence[bytes]], name: bytes
) -> float | None:
    """
    The time until the date in a header, by the server's clock.
    """
    try:
        then, now = (
            parsedate_to_datetime(headers[each][0].decode("ascii"))
            for each in (name, b"date")
        )
        return (then - now).total_seconds()
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
