"""
What stands in for files, networks and terminals in the tests of the client.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field, frozen
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IConsumer,
    IHostnameResolver,
    IHostResolution,
    IProducer,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from tests.protocol.model_server import ModelServer
from txbits.client._exchange import Found, IExchange, ILine
from txbits.client._requests import NoAnswer
from txbits.client.source import ISource, SourceChanged
from txbits.protocol.packets import Ack, Fragment, Packet


@implementer(ISource)
@define(eq=False)
class MemorySource:
    """Bytes. Reads can be held back, and made to fail."""

    data: bytes
    content_name: str | None = "name.bin"
    changed: bool = False
    held: Deferred[None] | None = None
    largest: int = 0
    forgotten: int = 0

    @property
    def length(self) -> int:
        return len(self.data)

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        assert 0 <= offset <= offset + size <= len(self.data)
        self.largest = max(self.largest, size)
        if self.changed:
            return fail(SourceChanged("it was changed during the upload"))
        data = self.data[offset : offset + size]
        if self.held is not None:
            return self.held.addCallback(lambda _: data)
        return succeed(data)

    def check(self) -> Deferred[None]:
        if self.changed:
            return fail(SourceChanged("it was changed during the upload"))
        return succeed(None)

    def forget(self, offset: int) -> None:
        self.forgotten = offset


@implementer(IConsumer)
@define(eq=False)
class Sink:
    """Takes what a body produces."""

    taken: bytearray = field(factory=bytearray)
    on_write: Callable[[], None] = lambda: None

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Bodies are not registered by themselves."""

    def unregisterProducer(self) -> None:
        """Bodies are not registered by themselves."""

    def write(self, data: bytes) -> None:
        self.taken += data
        self.on_write()


class AckLost(NoAnswer):
    """The packet arrived, but its Ack did not."""


Answer = Ack | Exception | Deferred[Ack] | None


@implementer(IExchange)
@define(eq=False)
class ScriptedExchange:
    """
    Gives the answers that a test wrote down, and those of a model server after that.

    A ``None`` in the script is an answer of the model server too. An exception takes
    the place of an answer, and the server has not got the packet; an
    :class:`AckLost` does, and it has.
    """

    script: list[Answer] = field(factory=list)
    server: ModelServer = field(factory=ModelServer)
    packets: list[Packet] = field(factory=list)
    names: list[str | None] = field(factory=list)
    hosts: list[str | None] = field(factory=list)
    closed: int = 0
    destination: Found | Exception | None = None
    looked: int = 0

    def look(self, host: str | None) -> Deferred[Found | None]:
        self.looked += 1
        if isinstance(self.destination, Exception):
            return fail(self.destination)
        return succeed(self.destination)

    def send(
        self,
        packet: Packet,
        source: ISource,
        content_name: str | None,
        moved: Callable[[int], None],
        host: str | None,
    ) -> Deferred[Ack]:
        self.packets.append(packet)
        self.hosts.append(host)
        self.names.append(content_name)
        answer = self.script.pop(0) if self.script else None
        if isinstance(answer, Deferred):
            return answer
        if isinstance(answer, Exception) and not isinstance(answer, AckLost):
            return fail(answer)
        if isinstance(answer, Ack):
            return succeed(answer)

        def receive(body: bytes) -> Ack:
            if isinstance(packet, Fragment):
                moved(len(body))
            ack = self.server.receive(packet, body)
            if isinstance(answer, AckLost):
                raise answer
            return ack

        if not isinstance(packet, Fragment):
            return succeed(b"").addCallback(receive)
        content_range = packet.content_range
        return source.read(content_range.first, content_range.length).addCallback(
            receive
        )

    def close(self) -> Deferred[None]:
        self.closed += 1
        return succeed(None)

    @property
    def kinds(self) -> list[str]:
        """What was sent, by name."""
        return [packet.packet_type for packet in self.packets]


@implementer(ILine)
@define(eq=False)
class Line:
    """
    A connection that is kept.

    :ivar throttle: What bounds its rate.
    :ivar urls: What it was used for.
    """

    to: Callable[[Any, str, Any], IExchange]
    throttle: Any = None
    urls: list[str] = field(factory=list)
    closed: int = 0

    def exchange(self, url: str) -> IExchange:
        assert not self.closed
        self.urls.append(url)
        return self.to(None, url, None)

    def close(self) -> Deferred[None]:
        self.closed += 1
        return succeed(None)


def lost(words: str = "the connection was lost") -> NoAnswer:
    """No answer."""
    return NoAnswer(words)


class Terminal(io.StringIO):
    """A text stream that says that it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Pipe(io.StringIO):
    """A text stream that is none, and that nobody may be reading."""

    encoding = "ascii"
    broken = False

    def write(self, text: str) -> int:
        if self.broken:
            raise BrokenPipeError("nobody reads")
        return super().write(text)


class HTTPTransport(StringTransport):
    """The client's end of a connection, whose other end is the test."""

    aborted = False
    slow = False

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.slow and self.producer is not None:
            self.producer.pauseProducing()

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()
        if self.producer is not None:
            self.producer.stopProducing()


@implementer(IAgentEndpointFactory)
@define(eq=False)
class Connector:
    """
    Makes connections in memory, as an endpoint factory of an Agent.

    :ivar refusal: What connecting fails with, if it is to.
    :ivar stuck: Whether connecting never ends.
    :ivar slow: Whether connections take one chunk of a body at a time.
    :ivar connections: Protocol and transport of each connection so far.
    """

    refusal: Exception | None = None
    stuck: bool = False
    slow: bool = False
    connections: list[tuple[Any, HTTPTransport]] = field(factory=list)
    uris: list[bytes] = field(factory=list)

    def endpointForURI(self, uri: Any) -> Connector:
        self.uris.append(uri.toBytes())
        return self

    def connect(self, factory: Any) -> Deferred[Any]:
        if self.refusal is not None:
            return fail(self.refusal)
        if self.stuck:
            return Deferred()
        protocol = factory.buildProtocol(None)
        transport = HTTPTransport()
        transport.slow = self.slow
        self.connections.append((protocol, transport))
        protocol.makeConnection(transport)
        return succeed(protocol)

    def request(self) -> bytes:
        """All that was written to the latest connection since the last look."""
        transport = self.connections[-1][1]
        written: bytes = transport.value()
        transport.clear()
        return written

    def answer(self, *lines: bytes, body: bytes = b"") -> None:
        """Answer on the latest connection."""
        self.connections[-1][0].dataReceived(
            b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body
        )


@define
class ShutdownClock(Clock):
    """A clock, and the one thing of a reactor that the command needs besides."""

    triggers: list[Callable[[], Any]] = field(factory=list)

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    def addSystemEventTrigger(
        self, phase: str, event: str, function: Callable[[], Any]
    ) -> None:
        assert (phase, event) == ("before", "shutdown")
        self.triggers.append(function)

    def getThreadPool(self) -> None:
        """Nothing is done in threads here."""

    def callWhenRunning(self, function: Callable[..., Any], *args: Any) -> None:
        """It never runs."""

    def shut_down(self) -> Sequence[Any]:
        """Do what a reactor does that is stopped."""
        return [trigger() for trigger in self.triggers]


@implementer(IHostResolution)
@frozen
class _Resolution:
    """A name that is found at once."""

    name: str

    def cancel(self) -> None:
        """There is nothing to wait for."""


@implementer(IHostnameResolver)
class _Addresses:
    """Finds the names that are addresses already."""

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,  # noqa: N803
        hostName: str,  # noqa: N803
        portNumber: int = 0,  # noqa: N803
        addressTypes: Any = None,  # noqa: N803
        transportSemantics: str = "TCP",  # noqa: N803
    ) -> IResolutionReceiver:
        resolutionReceiver.resolutionBegan(_Resolution(hostName))
        resolutionReceiver.addressResolved(
            IPv4Address(transportSemantics, hostName, portNumber)
        )
        resolutionReceiver.resolutionComplete()
        return resolutionReceiver


@implementer(IReactorPluggableNameResolver)
class ResolvingReactor(MemoryReactorClock):
    """
    A reactor whose connections are to addresses.

    Before Twisted 25 those are looked up as names are; without a resolver in a thread,
    and by the reactor that runs the tests.
    """

    nameResolver = _Addresses()

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        replaced, self.nameResolver = self.nameResolver, resolver
        return replaced
