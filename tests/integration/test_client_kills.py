"""
The client is killed with SIGKILL, at any byte, and the same command is run again.

Between client and server stands something that counts what the client sends, and tells
when so many bytes have passed, which is the moment of the kill. Where that falls is
random; the seed is in the message of a failure.
"""

import os
import random
import signal

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.protocols.portforward import ProxyFactory, ProxyServer
from twisted.python.filepath import FilePath
from twisted.trial.unittest import TestCase

from tests.integration.programs import TWIST, Program
from tests.integration.wire import leftovers

FRAGMENT = 256 * 1024
KILLS = 20

#: A packet without its bytes is not longer than this.
HEADERS = 1024


class CountingServer(ProxyServer):
    """The end at which the client is."""

    def dataReceived(self, data):
        self.factory.count(len(data))
        super().dataReceived(data)


class Counter(ProxyFactory):
    """
    Passes on all that comes, and counts it.

    :ivar counted: How many bytes came from the client.
    """

    protocol = CountingServer
    noisy = False

    def __init__(self, port):
        super().__init__("127.0.0.1", port)
        self.counted = 0
        self._limit = None
        self._passed = None

    def when(self, count):
        """Fires when so many more bytes have come."""
        self._limit = self.counted + count
        self._passed = Deferred()
        return self._passed

    def count(self, length):
        self.counted += length
        if self._passed is not None and self.counted >= self._limit:
            passed, self._passed = self._passed, None
            passed.callback(None)


class ClientKillTests(TestCase):
    timeout = 300

    async def start(self):
        self.root = FilePath(self.mktemp())
        self.root.makedirs()
        self.state = FilePath(self.mktemp())
        server = Program.start(
            self,
            *TWIST,
            *("txbits", "--listen", "tcp:0:interface=127.0.0.1"),
            *("--backend", f"disk:{self.root.path}"),
            cwd=self.root.path,
        )
        self.counter = Counter(await server.listening())
        port = reactor.listenTCP(0, self.counter, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.url = f"http://127.0.0.1:{port.getHost().port}/dump.bin"

    def upload(self, path, *options):
        return Program.start(
            self,
            *("-m", "txbits", "upload", path, self.url, *options),
            cwd=".",
            environment={"XDG_STATE_HOME": os.path.abspath(self.state.path)},
        )

    async def kill_after(self, program, count):
        """Kill it when so many bytes have passed; tell whether it was still running."""
        passed = self.counter.when(count)
        await DeferredList([passed, program.ended()], fireOnOneCallback=True)
        running = program.status is None
        await program.end(signal.SIGKILL)
        return running

    def test_killed_at_any_moment_it_goes_on_where_it_was(self):
        async def run():
            await self.start()
            seed = random.randrange(2**32)
            chance = random.Random(seed)
            size = KILLS * 3 * FRAGMENT + chance.randrange(FRAGMENT)
            data = chance.randbytes(size)
            path = os.path.abspath(self.mktemp())
            with open(path, "wb") as file:
                file.write(data)
            for _ in range(KILLS):
                client = self.upload(path, "--fragment-size", FRAGMENT)
                # Before the first byte of a fragment nobody has been told the session.
                count = HEADERS + chance.randrange(3 * FRAGMENT)
                running = await self.kill_after(client, count)
                self.assertTrue(running, (seed, client.output))
            client = self.upload(path, "--fragment-size", FRAGMENT)
            await client.ended()
            self.assertEqual(client.status, 0, (seed, client.output))
            self.assertEqual(self.root.child("dump.bin").getContent(), data, seed)
            self.assertEqual(leftovers(self.root), [], seed)
            self.assertEqual(self.state.child("txbits").listdir(), [], seed)
            packets = size // FRAGMENT + 1 + 4 * (KILLS + 1)
            self.assertLessEqual(
                self.counter.counted,
                size + KILLS * FRAGMENT + packets * HEADERS,
                f"more than a fragment was sent twice, seed {seed}",
            )

        return ensureDeferred(run())
