"""
Long bodies over TLS: they stream into the backend, at its pace.
"""

import re
import socket
import ssl

from twisted.internet.threads import deferToThread

from tests.tls.support import HttpsCase
from txbits.web._streaming.bodies import READ_SIZE

LENGTH = 32 * 1024 * 1024

_CREATE = (
    b"BITS_POST /x HTTP/1.1\r\nHost: x\r\nBITS-Packet-Type: Create-Session\r\n"
    b"BITS-Supported-Protocols: {7df0354d-249b-430f-820d-3d2a9bef4931}\r\n"
    b"Content-Length: 0\r\n\r\n"
)
_FRAGMENT = (
    b"BITS_POST /x HTTP/1.1\r\nHost: x\r\nBITS-Packet-Type: Fragment\r\n"
    b"BITS-Session-Id: %b\r\nContent-Range: bytes 0-%d/%d\r\n"
    b"Content-Length: %d\r\n\r\n"
)


class BodyTests(HttpsCase):
    requires = False

    def connect(self):
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        raw = socket.create_connection(("127.0.0.1", self.number), timeout=120)
        self.client = context.wrap_socket(raw, server_hostname="127.0.0.1")
        self.addCleanup(self.client.close)

    def exchange(self, head, body=b""):
        """Send a packet; the head of its Ack."""
        self.client.sendall(head)
        self.client.sendall(body)
        return self.client.recv(65536)

    def held(self):
        """How many bytes the backend holds."""
        sessions = self.backend.backend._sessions.values()
        return sum(session.offset for session in sessions)

    async def test_a_body_streams_with_back_pressure(self):
        await self.listen()
        await deferToThread(self.connect)
        created = await deferToThread(self.exchange, _CREATE)
        session = re.search(rb"(?i)BITS-Session-Id: ([^\r]+)", created)[1]
        gate = self.backend.hold("write")
        head = _FRAGMENT % (session, LENGTH - 1, LENGTH, LENGTH)
        sent = deferToThread(self.exchange, head, bytes(LENGTH))
        while not gate.waiting:
            await self.pause()
        (channel,) = self.site.channels
        for _ in range(50):
            await self.pause()
        # What was read at once, and the rest of what TLS had read before it was paused.
        self.assertLessEqual(channel._body.received, READ_SIZE)
        self.assertLessEqual(len(channel._buffer), READ_SIZE)
        self.assertFalse(sent.called)
        gate.open()
        self.assertEqual((await sent)[:12], b"HTTP/1.1 200")
        self.assertEqual(self.held(), LENGTH)
