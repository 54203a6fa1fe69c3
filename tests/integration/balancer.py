"""
A balancer for machines without nginx: each request goes to the next node.

Like nginx as the how-to configures it, it passes bodies on while they arrive, and asks
the next node only if nothing of a request has been sent yet; a node that ends in the
middle of one is a 502. It knows as much of HTTP as packets and their Acks need: heads,
and bodies of known length.
"""

from __future__ import annotations

import re
from itertools import cycle, islice

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
_BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"
_LONGEST_HEAD = 65536


class Message:
    """
    The framing of one request or response, of which the bytes come in pieces.

    :ivar is_over: Whether its last byte has come.
    """

    def __init__(self):
        self._head = b""
        self._left = None
        self.is_over = False

    def take(self, data):
        """
        Take the next bytes.

        :returns: Those that belong to it and can be passed on, and those behind it.
        """
        if self._left is None:
            self._head += data
            end = self._head.find(_END)
            if end < 0:
                if len(self._head) > _LONGEST_HEAD:
                    raise ValueError("the head is too long")
                return b"", b""
            length = _LENGTH.search(self._head, 0, end)
            head, data = self._head[: end + len(_END)], self._head[end + len(_END) :]
            self._left = int(length[1]) if length else 0
        else:
            head = b""
        body, rest = data[: self._left], data[self._left :]
        self._left -= len(body)
        self.is_over = not self._left
        return head + body, rest


class Front(Protocol):
    """A client's connection; one request at a time."""

    def __init__(self, nodes):
        self._nodes = nodes
        self._request = Message()
        self._waiting = b""
        self._to_send = b""
        self._back = None
        self._is_busy = False
        self._is_lost = False

    def dataReceived(self, data):
        if self._is_busy and self._request.is_over:
            self._waiting += data
            return
        passed, self._waiting = self._request.take(data)
        if not passed:
            return
        if self._back is not None:
            self._back.transport.write(passed)
        else:
            self._to_send += passed
        if not self._is_busy:
            self._is_busy = True
            # No more than this until a node is there to take it.
            self.transport.pauseProducing()
            self._ask(self._nodes())

    def _ask(self, nodes):
        port, *others = nodes
        factory = Factory.forProtocol(lambda: Back(self))
        factory.noisy = False
        connecting = TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory)

        def failed(failure):
            if others and not self._is_lost:
                self._ask(others)
            else:
                self.failed()

        connecting.addCallbacks(self._connected, failed)

    def _connected(self, back):
        if self._is_lost:
            back.transport.abortConnection()
            return
        self._back = back
        back.transport.registerProducer(self.transport, True)
        back.transport.write(self._to_send)
        self._to_send = b""
        self.transport.resumeProducing()

    def answered(self):
        """The response is complete."""
        if not self._request.is_over:
            # An early refusal; what is left of the request has nowhere to go.
            self.transport.loseConnection()
            return
        self._next()

    def failed(self):
        """There is no response, and will be none."""
        self.transport.write(_BAD_GATEWAY)
        self.transport.loseConnection()

    def _next(self):
        self._back = None
        self._is_busy = False
        self._request = Message()
        waiting, self._waiting = self._waiting, b""
        if waiting:
            self.dataReceived(waiting)

    def connectionLost(self, reason=connectionDone):
        self._is_lost = True
        if self._back is not None:
            self._back.transport.abortConnection()


class Back(Protocol):
    """A connection to a node, for one request."""

    def __init__(self, front):
        self._front = front
        self._response = Message()
        self._has_begun = False

    def dataReceived(self, data):
        if self._response.is_over:
            return
        passed, _ = self._response.take(data)
        if passed:
            self._has_begun = True
            self._front.transport.write(passed)
        if self._response.is_over:
            self.transport.unregisterProducer()
            self.transport.loseConnection()
            self._front.answered()

    def connectionLost(self, reason=connectionDone):
        if self._response.is_over:
            return
        if self._has_begun:
            self._front.transport.loseConnection()
        else:
            self._front.failed()


def start_balancer(case, port, upstreams):
    """
    Listen until the end of the test *case*.

    :param port: Where, on 127.0.0.1.
    :param upstreams: The ports of the nodes.
    """
    turns = cycle(range(len(upstreams)))

    def nodes():
        first = next(turns)
        return list(islice(cycle(upstreams), first, first + len(upstreams)))

    factory = Factory.forProtocol(lambda: Front(nodes))
    factory.noisy = False
    case.addCleanup(
        reactor.listenTCP(port, factory, interface="127.0.0.1").stopListening
    )
