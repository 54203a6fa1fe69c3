"""
One packet out, one Ack in, over HTTP.

An exchange knows nothing of what came before it or what follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from zope.interface import Interface, implementer

from txbits._deferreds import deferred
from txbits.client._bodies import NoBody, RangeBody, Throttle
from txbits.client._requests import Body, Requests
from txbits.client._url import same_server, with_host
from txbits.client.settings import ConnectionSettings
from txbits.client.source import ISource
from txbits.protocol.codec import METHOD, encode_request, parse_ack
from txbits.protocol.packets import Ack, Fragment, Packet


class IExchange(Interface):
    """Carries packets to a server, one at a time."""

    def send(
        packet: Packet,  # noqa: N805
        source: ISource,
        content_name: str | None,
        moved: Callable[[int], None],
        host: str | None,
    ) -> Deferred[Ack]:
        """
        Send a packet.

        :param source: Where a Fragment's bytes come from.
        :param content_name: The file's name, which goes with a Fragment.
        :param moved: Called with the number of bytes of a Fragment that have been
            handed to the network so far.
        :param host: The host to send it to, in place of that of the URL.
        :returns: A Deferred that fires with the Ack, which may be a refusal. It fails
            with :class:`NoAnswer`, :class:`NoTrust` or :class:`NoWay`, with
            :class:`~txbits.protocol.codec.RemoteProtocolError` if what answers is no
            BITS server, or with :class:`~txbits.client.source.SourceError`. When it
            is cancelled, the connection is dropped.
        """

    def close() -> Deferred[None]:
        """
        Let go of the connections.

        :returns: A Deferred that fires with ``None`` when they are closed.
        """


@implementer(IExchange)
class HTTPExchange:
    """
    An exchange over treq, on one connection that is kept between packets.

    :param clock: Tells the time.
    :param url: The destination, in ASCII.
    :param requests: What makes the requests to the server of the URL.
    :param strangers: What makes those to another one that it names; they tell nothing
        that is meant for the first alone.
    :param limit_rate: How many bytes of a file may be sent in a second.
    """

    def __init__(
        self,
        clock: Any,
        url: str,
        requests: Requests,
        strangers: Requests,
        limit_rate: int | None = None,
    ) -> None:
        self._clock = clock
        self._url = url
        self._requests = requests
        self._strangers = strangers
        self._throttle = Throttle(clock, limit_rate)

    @deferred
    async def send(
        self,
        packet: Packet,
        source: ISource,
        content_name: str | None,
        moved: Callable[[int], None],
        host: str | None,
    ) -> Ack:
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
        # An Ack has no body; what has one comes from something else, and is not worth
        # reading.
        await requests.discard(response)
        return _ack(response)

    def _at(self, host: str | None) -> tuple[str, Requests]:
        """The destination at a host, and what makes the requests there."""
        url = self._url if host is None else with_host(self._url, host)
        is_own = same_server(url, self._url)
        return url, self._requests if is_own else self._strangers

    @deferred
    async def close(self) -> None:
        """See :meth:`IExchange.close`."""
        await self._requests.close()
        if self._strangers is not self._requests:
            await self._strangers.close()


def exchange_over_network(
    reactor: Any, url: str, settings: ConnectionSettings
) -> HTTPExchange:
    """
    Make an exchange with the server that *url* names.

    :raises InvalidSettings: If the settings make no sense.
    """
    requests = strangers = Requests.over_network(reactor, settings)
    if settings.has_secrets and not settings.trust_host_id:
        strangers = Requests.over_network(reactor, settings.for_strangers)
    return HTTPExchange(reactor, url, requests, strangers, settings.limit_rate)


def _ack(response: Any) -> Ack:
    headers = {
        name.lower(): values for name, values in response.headers.getAllRawHeaders()
    }
    ack = parse_ack(response.code, headers)
    if ack.retry_after is None:
        ack = evolve(ack, retry_after=_seconds_until(headers))
    return ack


def _seconds_until(headers: Mapping[bytes, Sequence[bytes]]) -> int | None:
    """
    What a Retry-After means that is a date.

    It is compared with the server's own clock: that of the client may be wrong.
    """
    try:
        then, now = (
            parsedate_to_datetime(headers[name][0].decode("ascii"))
            for name in (b"retry-after", b"date")
        )
        return max(0, int((then - now).total_seconds()))
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
