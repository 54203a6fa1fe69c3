"""
A proxy that pools its connections to the server and speaks HTTP/1.0 on them: one that
is handed a connection which the server has closed loses a request that is no GET.

It is nginx where that is installed, and where not, a few lines that believe heads as it
does.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.cluster import NGINX, start_nginx
from tests.ports import free_ports
from txbits.backends.memory import MemoryBackend
from txbits.web import BITSResource, BITSSite

_UPLOADS = 20
_SESSION = re.compile(rb"(?i)\r\nbits-session-id: *([^\r]+)")


class Pool:
    """
    Passes requests on as nginx does: on a connection whose last answer was HTTP/1.1, or
    said ``keep-alive``, and did not say ``close``.
    """

    def __init__(self, port: int, asks: bool) -> None:
        self._port = port
        self._said = b"Connection: keep-alive\r\n" if asks else b""
        self._idle: socket.socket | None = None

    def exchange(self, request: bytes) -> bytes:
        """Send a request; returns the head of the answer."""
        line, _, rest = request.partition(b"\r\n")
        line = line.replace(b"HTTP/1.1", b"HTTP/1.0")
        connection, self._idle = self._idle, None
        if connection is None:
            connection = socket.create_connection(("127.0.0.1", self._port), 30)
        connection.sendall(line + b"\r\n" + self._said + rest)
        head = _head(connection)
        said = re.search(rb"(?i)\r\nconnection: *([^\r]+)", head)
        option = said[1].lower() if said else b""
        if option != b"close" and (
            head.startswith(b"HTTP/1.1") or option == b"keep-alive"
        ):
            self._idle = connection
        else:
            connection.close()
        return head

    def close(self) -> None:
        """Close what is idle."""
        if self._idle is not None:
            self._idle.close()


class Client:
    """Sends requests to a proxy, on one connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 30)

    def exchange(self, request: bytes) -> bytes:
        """Send a request; returns the head of the answer."""
        self._socket.sendall(request)
        return _head(self._socket)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def _head(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            raise AssertionError(f"closed after {data!r}")
        data += more
    return data


def _upload(client: Client | Pool, path: bytes, content: bytes) -> list[bytes]:
    """Upload by POST; returns the statuses."""
    statuses = []
    session_id = b""
    for kind, lines, body in (
        (
            b"Create-Session",
            b"BITS-Supported-Protocols: {7df0354d-249b-430f-820d-3d2a9bef4931}\r\n",
            b"",
        ),
        (
            b"Fragment",
            b"Content-Range: bytes 0-%d/%d\r\n" % (len(content) - 1, len(content)),
            content,
        ),
        (b"Close-Session", b"", b""),
    ):
        head = client.exchange(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nBITS-Packet-Type: %b\r\n"
            b"BITS-Session-Id: %b\r\n%bContent-Length: %d\r\n\r\n%b"
            % (path, kind, session_id, lines, len(body), body)
        )
        found = _SESSION.search(head)
        session_id = found[1] if found else session_id
        statuses.append(head.split(b" ")[1])
    return statuses


class PoolingProxyTests(TestCase):
    """Uploads by POST through such a proxy."""

    async def setUp(self) -> None:  # type: ignore[override]
        self.memory = MemoryBackend(reactor)
        self.resource = BITSResource(self.memory, reactor=reactor)
        await self.resource.manager.start()
        self.addCleanup(self.resource.manager.stop)
        self.site = BITSSite(self.resource, reactor=reactor)
        self.connections = 0
        connected = self.site.connected

        def count(channel):
            self.connections += 1
            connected(channel)

        self.site.connected = count
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            self.site
        )
        self.addCleanup(listening.stopListening)
        self.port = listening.getHost().port

    async def start_nginx(self) -> int:
        """Start it, until the end of the test; returns its port."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (port,) = free_ports(1)
        await start_nginx(
            self, folder, "pooling.conf.template", port, upstream=self.port
        )
        return port

    async def assert_all_succeed(self, *, asks: bool) -> None:
        folder = b"/asking" if asks else b"/silent"
        proxy: Client | Pool
        if NGINX:
            port = await self.start_nginx()
            proxy = await deferToThread(Client, port)
        else:
            proxy = Pool(self.port, asks)
        before = self.connections
        try:
            for number in range(_UPLOADS):
                path = b"%b/%d" % (folder, number)
                statuses = await deferToThread(_upload, proxy, path, b"%d" % number)
                self.assertEqual(statuses, [b"201", b"200", b"200"], path)
        finally:
            proxy.close()
        # One connection for all, or one for each.
        used = self.connections - before
        self.assertEqual(used, 1 if asks else 3 * _UPLOADS)
        self.assertEqual(len(self.memory.files), _UPLOADS)

    async def test_one_that_does_not_ask_for_it_keeps_no_connection(self) -> None:
        await self.assert_all_succeed(asks=False)

    async def test_one_that_asks_for_it_keeps_its_connection(self) -> None:
        await self.assert_all_succeed(asks=True)


class PoolTests(PoolingProxyTests):
    """The same through ours, which machines without nginx have to do with."""

    async def assert_all_succeed(self, *, asks: bool) -> None:
        proxy = Pool(self.port, asks)
        for number in range(_UPLOADS):
            statuses = await deferToThread(_upload, proxy, b"/%d" % number, b"hello")
            self.assertEqual(statuses, [b"201", b"200", b"200"])
        proxy.close()
        self.assertEqual(self.connections, 1 if asks else 3 * _UPLOADS)
