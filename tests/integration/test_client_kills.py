"""
The client is killed with SIGKILL, at any byte, and the same command is run again.

Between client and server stands something that counts what the client sends, and tells
when so many bytes have passed, which is the moment of the kill. Where that falls is
random; the seed is in the message of a failure.
"""

import json
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
KILLS = 12

#: In a run of many files: how many, about how many bytes each has, and how many are
#: sent at a time.
FILES = 200
SMALL = 16 * 1024
JOBS = 4

#: The record of a session that holds nothing.
UNKNOWN = [b"open", b"-", b"0"]

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

    async def start(self, *options):
        self.root = FilePath(self.mktemp())
        self.root.makedirs()
        self.state = FilePath(self.mktemp())
        server = Program.start(
            self,
            *TWIST,
            *("txbits", "--listen", "tcp:0:interface=127.0.0.1"),
            *("--backend", f"disk:{self.root.path}"),
            *options,
            cwd=self.root.path,
        )
        self.counter = Counter(await server.listening())
        port = reactor.listenTCP(0, self.counter, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.folder = f"http://127.0.0.1:{port.getHost().port}/"
        self.url = f"{self.folder}dump.bin"

    def upload(self, path, *options, url=None):
        return Program.start(
            self,
            *("-m", "txbits", "upload", path, url or self.url, *options),
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

    def test_killed_in_a_run_of_many_files_it_sends_what_is_missing(self):
        async def run():
            await self.start("--create-directories")
            seed = random.randrange(2**32)
            chance = random.Random(seed)
            source = FilePath(self.mktemp())
            source.makedirs()
            for number in range(FILES):
                child = source.child(f"{number:03}.bin")
                child.setContent(chance.randbytes(chance.randrange(2 * SMALL)))
            total = sum(child.getsize() for child in source.children())
            path = os.path.abspath(source.path)
            done = []
            kills = 0
            arguments = (path, "-r", "-j", JOBS, "--json")
            while True:
                client = self.upload(*arguments, url=self.folder)
                count = chance.randrange(1, FILES // 4 * (SMALL + 3 * HEADERS))
                killed = await self.kill_after(client, count)
                # The last line may have been cut short.
                lines = client.output.split("\n")[:-1]
                events = [json.loads(line) for line in lines if line.startswith("{")]
                done.append({e["file"] for e in events if e["event"] == "done"})
                if not killed:
                    break
                kills += 1
            self.assertEqual(client.status, 0, (seed, client.output))
            self.assertGreater(kills, 3, seed)
            arrived = self.root.child(source.basename())
            for child in source.children():
                copy = arrived.child(child.basename())
                self.assertEqual(copy.getContent(), child.getContent(), seed)
            self.assertEqual(len(arrived.children()), FILES, seed)
            self.assertEqual(len(done[-1]), FILES, seed)
            # The client is told of a session before it sends a byte to it. One whose id
            # was on its way when the client was killed is released by its time-out.
            left = [record.split()[:3] for record in leftovers(self.root)]
            self.assertEqual([each for each in left if each != UNKNOWN], [], seed)
            self.assertLessEqual(len(left), kills * JOBS, seed)
            self.assertEqual(self.state.child("txbits").listdir(), [], seed)
            packets = 3 * FILES + 5 * JOBS * kills
            self.assertLessEqual(
                self.counter.counted,
                total + kills * JOBS * 2 * SMALL + packets * HEADERS,
                f"files that had arrived were sent again, seed {seed}",
            )

        return ensureDeferred(run())
