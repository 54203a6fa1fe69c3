"""
Answers that are no HTTP, from a server that says what a test wants it to.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from txbits.client._requests import NoAnswer, Requests
from txbits.client.settings import ConnectionSettings

reactor: Any = _reactor


class Babbling(Protocol):
    """Says one thing, whatever it is asked."""

    factory: Any
    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(self.factory.answer)
        self.transport.loseConnection()


class MalformedTests(TestCase):
    """What is said of them."""

    timeout = 60

    async def failure(self, answer: bytes) -> str:
        factory: Any = Factory.forProtocol(Babbling)
        factory.answer = answer
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        url = f"http://127.0.0.1:{port.getHost().port}/"
        requests = Requests.over_network(reactor, ConnectionSettings())
        try:
            await requests.ask(b"GET", url, [], lambda _: None)
        except NoAnswer as error:
            return str(error)
        finally:
            await requests.close()
        raise AssertionError(f"{answer!r} was taken")

    async def test_what_is_wrong_is_named_with_its_value(self) -> None:
        ok = b"HTTP/1.1 200 OK\r\n"
        for answer, words in (
            (
                ok + b"Content-Length: abc",
                "the answer has an invalid Content-Length: 'abc'",
            ),
            (
                ok + b"Content-Length: -5",
                "the answer has an invalid Content-Length: '-5'",
            ),
            (
                ok + b"Content-Length: 5\r\nContent-Length: 6",
                "the answer has several Content-Length values: '5,6'",
            ),
            (
                ok + b"Transfer-Encoding: gzip",
                "the answer has an unexpected Transfer-Encoding: 'gzip'",
            ),
            (
                ok + b"no header",
                "the answer has an invalid header line",
            ),
            (
                b"SSH-2.0-OpenSSH_9.2",
                "the answer is not HTTP; it begins with 'SSH-2.0-OpenSSH_9.2'",
            ),
            (
                b"HTTP/1.1 two OK",
                "the answer is not HTTP; it begins with 'HTTP/1.1 two OK'",
            ),
            (
                # An alert: "unexpected message".
                b"\x15\x03\x01\x00\x02\x02\x0a",
                "this port speaks TLS; use https://",
            ),
            (
                b"HTTP/x 200 OK",
                "the answer has an invalid HTTP version: 'HTTP/x'",
            ),
        ):
            failure = await self.failure(answer + b"\r\n\r\n")
            self.assertEqual(failure.partition(": ")[2], words)

    async def test_it_is_one_line_and_not_too_long(self) -> None:
        words = await self.failure(b"\x1b[2J" + b"x" * 5000 + b"\r\n\r\n")
        self.assertNotIn("\x1b", words)
        self.assertLess(len(words), 300)
