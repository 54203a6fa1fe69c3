"""
A proxy between a client and an S3 server that breaks what it is told to break.

It takes requests apart as far as it must to know where one ends and which operation of
S3 it is. So a fault hits *the second UploadPart after 100,000 bytes*, and not whatever
happens to be on the wire, and requests can be counted::

    proxy = FaultProxy.start(self, bucket.server.port)
    proxy.break_next("UploadPart", Break("reset", "request", after=100_000))
    proxy.break_next("PutObject", SLOW_DOWN, times=3)
    ...
    self.assertEqual(proxy.counts(), {"PutObject": 4, "UploadPart": 2})

One that breaks ``"answer"`` after 0 bytes is the worst: the request has been served,
and its sender does not know. It runs in the reactor of the test, on 127.0.0.1.

``python -m tests.fault_proxy PORT`` only counts: it prints its URL, and when its
standard input ends, how many requests of each operation came.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from urllib.parse import parse_qs, unquote, urlsplit

from attrs import define, frozen
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from twisted.internet.threads import deferToThread

from txbits._deferreds import deferred


@frozen
class Break:
    """
    The connection breaks within an exchange.

    :ivar how: ``"reset"``: by RST; ``"end"``: by FIN, as if this were all there is;
        ``"stall"``: it stays, and nothing moves any more.
    :ivar where: In the ``"request"``, or in its ``"answer"``.
    :ivar after: How many bytes of that, with its head, get through before. TCP lets
        a reset overtake them.
    """

    how: str
    where: str
    after: int = 0


@frozen
class Answer:
    """
    The proxy answers with an error itself, and the server never hears of it.

    :ivar status: The HTTP status.
    :ivar code: The code of S3.
    """

    status: int
    code: str

    def as_bytes(self):
        body = (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{self.code}</Code>'
            f"<Message>Broken on purpose.</Message></Error>"
        )
        return (
            f"HTTP/1.1 {self.status} {self.code}\r\nContent-Type: application/xml\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()


@frozen
class Change:
    """
    The answer is another one than the server's.

    :ivar make: Is called with the head, without the empty line at its end, and the
        body; makes those that are sent instead.
    """

    make: Callable[[bytes, bytes], tuple[bytes, bytes]]

    def changed(self, method, answer):
        """What is sent in place of an answer; ``None`` if it is not complete yet."""
        head, end, body = answer.partition(b"\r\n\r\n")
        if not end:
            return None
        headers = [line.partition(b":") for line in head.lower().split(b"\r\n")[1:]]
        told = {name: value.strip() for name, _, value in headers}
        if b"transfer-encoding" in told:
            raise NotImplementedError("this proxy changes no chunked answers")
        length = 0 if method == "HEAD" else int(told.get(b"content-length", 0))
        if len(body) < length:
            return None
        return b"\r\n\r\n".join(self.make(head, body))


SLOW_DOWN = Answer(503, "SlowDown")
INTERNAL_ERROR = Answer(500, "InternalError")


@frozen
class Request:
    """
    A request of S3's, as far as its head tells.

    :ivar operation: What S3 calls it.
    :ivar key: The object; empty for a request about the bucket.
    :ivar headers: By their names in lower case.
    """

    method: str
    operation: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]

    @classmethod
    def from_head(cls, head):
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        url = urlsplit(target)
        key = unquote(url.path.lstrip("/").partition("/")[2])
        query = {
            name: values[-1]
            for name, values in parse_qs(url.query, keep_blank_values=True).items()
        }
        operation = _operation(method, bool(key), query, headers)
        return cls(method, operation, key, query, headers)


def _operation(method, has_key, query, headers):
    """What S3 calls a request; its parts, where this does not know it."""
    copies = "x-amz-copy-source" in headers
    known = {
        ("PUT", "uploadId"): "UploadPartCopy" if copies else "UploadPart",
        ("GET", "uploadId"): "ListParts",
        ("POST", "uploadId"): "CompleteMultipartUpload",
        ("DELETE", "uploadId"): "AbortMultipartUpload",
        ("POST", "uploads"): "CreateMultipartUpload",
        ("GET", "uploads"): "ListMultipartUploads",
        ("GET", "list-type"): "ListObjectsV2",
        ("POST", "delete"): "DeleteObjects",
    }
    for (verb, name), operation in known.items():
        if method == verb and name in query:
            return operation
    what = "Object" if has_key else "Bucket"
    names = {"PUT": "Put", "GET": "Get", "HEAD": "Head", "DELETE": "Delete"}
    verb = "Copy" if copies else names.get(method, method)
    return verb + what


@define(eq=False)
class _Rule:
    matches: object
    fault: object
    left: int


class FaultProxy:
    """
    The proxy.

    :ivar requests: Every request that came, in order.
    :ivar connections: How many connections were made to it.
    :ivar most: How many there were at a time, at most.
    :ivar endpoint: Its URL, once it is started.
    """

    def __init__(self, port):
        self.requests = []
        self.connections = 0
        self.most = 0
        self._upstream = port
        self._rules = []
        self._fronts = set()

    @classmethod
    def start(cls, case, port):
        """
        Start one, until the end of the test *case*.

        :param port: The server's, on 127.0.0.1.
        """
        proxy = cls(port)
        factory = Factory.forProtocol(lambda: _Front(proxy))
        proxy._port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        proxy.endpoint = f"http://127.0.0.1:{proxy._port.getHost().port}"
        case.addCleanup(proxy.stop)
        return proxy

    def stop(self):
        """Drop all connections; fires when they are gone, and the port is."""
        gone = [front.dropped() for front in list(self._fronts)]
        return DeferredList([*gone, maybeDeferred(self._port.stopListening)])

    def break_next(self, which, fault, times=1):
        """
        Let the next exchanges fail. Of several rules for one request the first acts.

        :param which: The name of the operation, or a function of the :class:`Request`.
        :param times: How many of them.
        """
        matches = which if callable(which) else lambda it: it.operation == which
        self._rules.append(_Rule(matches, fault, times))

    def heal(self):
        """Break nothing any more that has not broken yet."""
        self._rules.clear()

    def counts(self):
        """How many requests came for each operation."""
        return dict(Counter(request.operation for request in self.requests))

    def forget(self):
        """Count from zero again."""
        self.requests.clear()

    def _seen(self, request):
        """Note a request; the fault that is to hit it, or ``None``."""
        self.requests.append(request)
        for rule in self._rules:
            if rule.left and rule.matches(request):
                rule.left -= 1
                return rule.fault
        return None


@define(eq=False)
class _Exchange:
    """A request on its way, and its answer: how much has gone through."""

    request: Request
    fault: object
    body_left: int
    sent: int = 0
    answered: int = 0
    held: bytes = b""


class _Front(Protocol):
    """The side of the client."""

    def __init__(self, proxy):
        self._proxy = proxy
        self._buffer = b""
        self._exchange = None
        self._back = None
        self._broken = False
        self._lost = Deferred()

    def connectionMade(self):
        self._proxy._fronts.add(self)
        self._proxy.connections += 1
        self._proxy.most = max(self._proxy.most, len(self._proxy._fronts))
        self.transport.pauseProducing()
        factory = Factory.forProtocol(lambda: _Back(self))
        connecting = TCP4ClientEndpoint(reactor, "127.0.0.1", self._proxy._upstream)
        self._connecting = connecting.connect(factory)
        self._connecting.addErrback(lambda _: self.transport.abortConnection())

    def ready(self, back):
        """The server is there."""
        self._back = back
        back.transport.registerProducer(self.transport, True)
        self.transport.registerProducer(back.transport, True)
        self.transport.resumeProducing()

    def connectionLost(self, reason):
        self._proxy._fronts.discard(self)
        if self._back is None:
            self._connecting.cancel()
        else:
            self._back.transport.loseConnection()
        self._lost.callback(None)

    def dropped(self):
        """Drop both connections; fires when they are gone."""
        self._broken = True
        self.transport.abortConnection()
        gone = [self._lost]
        if self._back is not None:
            self._back.transport.abortConnection()
            gone.append(self._back.lost)
        return DeferredList(gone)

    def dataReceived(self, data):
        self._buffer += data
        while self._buffer and not self._broken:
            exchange = self._exchange
            if exchange is None or not exchange.body_left:
                if not self._next():
                    return
                continue
            piece = self._buffer[: exchange.body_left]
            self._buffer = self._buffer[len(piece) :]
            exchange.body_left -= len(piece)
            self._forward(exchange, piece)

    def _next(self):
        """Begin with the next request; whether its head is complete."""
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        request = Request.from_head(head)
        if "transfer-encoding" in request.headers:
            raise NotImplementedError("this proxy knows no chunked requests")
        self._buffer = rest
        length = int(request.headers.get("content-length", 0))
        self._exchange = _Exchange(request, self._proxy._seen(request), length)
        self._forward(self._exchange, head + end)
        return True

    def _forward(self, exchange, data):
        """Pass on bytes of the request, or what the fault leaves of them."""
        fault = exchange.fault
        if isinstance(fault, Answer):
            # Who waits for permission to send the body may send it or not. So that
            # nobody takes it for the next request, there is none.
            refused = exchange.body_left and "expect" in exchange.request.headers
            if refused or not exchange.body_left:
                self.transport.write(fault.as_bytes())
            if refused:
                self._break("end")
            return
        if isinstance(fault, Break) and fault.where == "request":
            room = fault.after - exchange.sent
            if len(data) > room:
                self._back.transport.write(data[:room])
                self._break(fault.how)
                return
        exchange.sent += len(data)
        self._back.transport.write(data)

    def answered(self, data):
        """Pass on bytes of the answer, or what the fault leaves of them."""
        exchange = self._exchange
        if self._broken or exchange is None:
            return
        if not exchange.answered and data.startswith(b"HTTP/1.1 100 "):
            # The permission to send the body is no answer yet.
            self.transport.write(data)
            return
        fault = exchange.fault
        if isinstance(fault, Change):
            exchange.held += data
            changed = fault.changed(exchange.request.method, exchange.held)
            if changed is not None:
                self.transport.write(changed)
            return
        if isinstance(fault, Break) and fault.where == "answer":
            room = fault.after - exchange.answered
            if len(data) > room:
                self.transport.write(data[:room])
                self._break(fault.how)
                return
        exchange.answered += len(data)
        self.transport.write(data)

    def _break(self, how):
        self._broken = True
        ends = (self.transport, self._back.transport)
        for end in ends:
            end.unregisterProducer()
            if how == "stall":
                end.pauseProducing()
            elif how == "end":
                end.loseConnection()
            else:
                # What has just been written is to leave first.
                reactor.callLater(0, end.abortConnection)


class _Back(Protocol):
    """The side of the server."""

    def __init__(self, front):
        self._front = front
        self.lost = Deferred()

    def connectionMade(self):
        self._front.ready(self)

    def dataReceived(self, data):
        self._front.answered(data)

    def connectionLost(self, reason):
        self._front.transport.loseConnection()
        self.lost.callback(None)


@deferred
async def _count(reactor, port):
    """Be a proxy until standard input ends, then tell how many requests came."""
    cleanups = []
    proxy = FaultProxy.start(SimpleNamespace(addCleanup=cleanups.append), port)
    print(proxy.endpoint, flush=True)
    await deferToThread(sys.stdin.read)
    print(json.dumps(proxy.counts()), flush=True)
    await proxy.stop()


if __name__ == "__main__":
    react(_count, [int(sys.argv[1])])
