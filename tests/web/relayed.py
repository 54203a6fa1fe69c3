"""
Several workers in this process, with real sockets between them and to their clients.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from typing import Any
from uuid import UUID

from twisted.internet import reactor
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from tests.web.clients import Client
from tests.web.support import packet
from txbits._workers import Worker, new_session_id
from txbits.backends.memory import MemoryBackend
from txbits.interfaces import IPartitioned
from txbits.testing.faults import HoldableBackend
from txbits.web import BITSResource, BITSSite, Relay

SECRET = bytes(range(32))

#: What a client sends that takes several reads, and its length.
LONG = 4 * 1024 * 1024
DATA = bytes(range(256)) * (LONG // 256)


@implementer(IPartitioned)
class Partition(HoldableBackend):
    """A memory backend that has the sessions of one worker."""

    worker = Worker()

    def new_id(self) -> UUID:
        return new_session_id(self.worker.number)

    def worker_of(self, session_id: UUID) -> int:
        return self.worker.owner_of(session_id)


class Site:
    """
    A worker.

    :ivar memory: What it stores.
    :ivar backend: The same, with gates.
    :ivar site: Where clients connect.
    """

    def __init__(self, worker: Worker, paths: list[str], listening: socket.socket):
        self.worker = worker
        self.memory = MemoryBackend(reactor)
        self.backend = Partition(self.memory)
        self.backend.worker = worker
        self.relay = Relay(worker, paths, SECRET, reactor)
        self.listening = listening
        self.relay_port: Any = None

    async def start(self, port: Any = None, **settings: Any) -> None:
        """
        Begin to serve.

        :param port: Where clients connect; any port of loopback by default.
        """
        self.resource = BITSResource(
            self.backend, reactor=reactor, relay=self.relay, **settings
        )
        await self.resource.manager.start()
        self.site = BITSSite(self.resource, reactor=reactor)
        if port is None:
            port = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        self.port = await port.listen(self.site)
        self.listen()

    def listen(self) -> None:
        """Take what others pass on."""
        self.relay_port = self.relay.listen(self.listening.fileno(), self.resource)

    async def hang(self) -> None:
        """Take nothing that others pass on, and forget what was."""
        port, self.relay_port = self.relay_port, None
        if port is not None:
            await port.stopListening()
        for channel in list(self.relay.site.channels):
            # As the kernel does when a process is killed.
            channel.transport.abortConnection()
        while self.relay.site.channels:
            await turn()

    async def stop(self) -> None:
        """Stop to serve."""
        port, self.port = self.port, None
        if port is None:
            return
        await port.stopListening()
        await self.hang()
        for channel in list(self.site.channels):
            channel.abort()
        while self.site.channels:
            await turn()
        await self.resource.manager.stop()

    @property
    def passed(self) -> set[Any]:
        """The relay connections that others have made to it."""
        return set(self.relay.site.channels)

    def held(self) -> bytes:
        """What it holds of its only session."""
        (session,) = self.memory._sessions.values()
        return b"".join(session._pieces)


async def turn() -> None:
    """Let the reactor do what is ready."""
    await deferLater(reactor, 0)


class RelayCase(TestCase):
    """
    Two workers.

    :ivar here: The one that clients reach.
    :ivar there: The one that has the sessions.
    """

    timeout = 30
    count = 2

    async def setUp(self) -> None:  # type: ignore[override]
        # Paths of sockets are short.
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.paths = [f"{self.folder}/{number}" for number in range(self.count)]
        sockets = []
        for path in self.paths:
            one = socket.socket(socket.AF_UNIX)
            self.addCleanup(one.close)
            one.bind(path)
            one.listen()
            one.setblocking(False)
            sockets.append(one)
        self.here, self.there = [
            Site(Worker(number, self.count), self.paths, sockets[number])
            for number in (0, 1)
        ]
        self.clients: list[Client] = []
        await self.start()

    async def start(self, **settings: Any) -> None:
        """Let both serve."""
        for site in (self.here, self.there):
            await site.start(**settings)
            self.addCleanup(site.stop)

    async def restart(self, **settings: Any) -> None:
        """Let both serve with other settings."""
        for site in (self.here, self.there):
            await site.stop()
            await site.start(**settings)

    async def tearDown(self) -> None:  # type: ignore[override]
        for client in self.clients:
            client.transport.abortConnection()
            await client.closed

    async def until(self, holds: Any) -> None:
        """Wait until something holds."""
        while not holds():
            await turn()

    async def connect(self, site: Site | None = None) -> Client:
        """Connect to a worker."""
        port = (site or self.here).port.getHost().port
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        factory = Factory.forProtocol(Client)
        factory.noisy = False
        client: Client = await endpoint.connect(factory)
        self.clients.append(client)
        return client

    async def create(self, **headers: Any) -> bytes:
        """Create a session at the worker that has it from then on."""
        client = await self.connect(self.there)
        ack = await client.ask(packet(b"Create-Session", **headers))
        self.assertIn(ack.status, (200, 201), ack)
        client.transport.loseConnection()
        return (ack["BITS-Session-Id"] or "").encode()

    def sessions(self) -> list[Any]:
        """The open sessions, the oldest first."""
        return list(self.there.memory._sessions.values())

    def descriptors(self) -> int:
        """How many descriptors this process has open."""
        return len(os.listdir("/proc/self/fd"))
