"""
The kit and the scripted server, joined in memory.

Both ends of a connection are joined by a queue. :func:`drive` delivers what is in it,
and turns the clock when it is empty: every run is the same, and none takes time.
"""

from __future__ import annotations

from collections import deque

from attrs import define, field
from twisted.internet.defer import succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.check.scripted import Connection, Server
from txbits.check import Run, Target


class Link:
    """A connection: the client's transport, and the server's end."""

    def __init__(self, queue, wire, server):
        self.queue = queue
        self.wire = wire
        self.is_closed = False
        self.connection = Connection(server, self)

    # What the client does.

    def write(self, data):
        if not self.is_closed:
            self.queue.append(lambda: self.connection.received(data))

    def loseWriteConnection(self):
        self.queue.append(self.connection.lost)

    def abortConnection(self):
        self.queue.append(self.connection.lost)

    # What the server does.

    def to_client(self, data):
        if not self.is_closed:
            self.queue.append(lambda: self.wire.dataReceived(data))

    def close(self):
        if not self.is_closed:
            self.is_closed = True
            self.queue.append(self.wire.connectionLost)


class ProxiedLink(Link):
    """
    A connection through a proxy.

    The proxy hands on what it has received after a second, and drops what it still has
    when the client ends the connection.
    """

    def __init__(self, clock, queue, wire, server):
        super().__init__(queue, wire, server)
        self.clock = clock
        self.pending = []

    def write(self, data):
        self.pending.append(self.clock.callLater(1, super().write, data))

    def loseWriteConnection(self):
        for call in self.pending:
            if call.active():
                call.cancel()
        super().loseWriteConnection()


@implementer(IStreamClientEndpoint)
@define(eq=False)
class Endpoint:
    """Connects to a server."""

    server: Server
    link: object = Link
    queue: deque = field(factory=deque)

    def connect(self, factory):
        wire = factory.buildProtocol(None)
        wire.makeConnection(self.link(self.queue, wire, self.server))
        return succeed(wire)


def drive(
    server,
    checks,
    *,
    url="http://server.example/folder/",
    may_publish=True,
    link=Link,
    clock=None,
    settings=None,
):
    """
    Run checks against a server.

    :param link: Makes the connections.
    :param settings: The credentials.
    :returns: The report.
    """
    clock, endpoint, ends = clock or Clock(), Endpoint(server, link), []
    run = Run(Target.of(url, settings), endpoint, clock, may_publish=may_publish)
    run.start(checks).addBoth(ends.append)
    while not ends:
        if endpoint.queue:
            endpoint.queue.popleft()()
        else:
            soonest = min(call.getTime() for call in clock.getDelayedCalls())
            clock.advance(soonest - clock.seconds())
    (report,) = ends
    if isinstance(report, Failure):
        report.raiseException()
    return report
