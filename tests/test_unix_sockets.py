"""HTTP over Unix sockets, whichever version of Twisted there is."""

from __future__ import annotations

from twisted.internet.interfaces import ITCPTransport, IUNIXTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from txbits._unix_sockets import let_http_use


class Transport:
    """A transport as those of Twisted 24.10, which fails on Unix sockets."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        raise OSError("Operation not supported")


class LetHTTPUseTests(SynchronousTestCase):
    def test_a_unix_socket_ignores_what_it_cannot_do(self) -> None:
        transport = Transport()
        directlyProvides(transport, IUNIXTransport, ITCPTransport)
        let_http_use(transport)
        self.assertIsNone(transport.setTcpNoDelay(True))

    def test_other_transports_stay_as_they_are(self) -> None:
        transport = Transport()
        directlyProvides(transport, ITCPTransport)
        let_http_use(transport)
        self.assertRaises(OSError, transport.setTcpNoDelay, True)
