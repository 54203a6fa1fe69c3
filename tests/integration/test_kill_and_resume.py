"""
The server is killed with SIGKILL, at any byte, and started again.

No byte that was acknowledged is lost, and the published file equals the source. Where
the kill falls is random; the seed is in the message of a failure.
"""

import random
import signal

from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.python.filepath import FilePath
from twisted.trial.unittest import TestCase

from tests.integration.kills import send_with_kills
from tests.integration.programs import TWIST, Program
from tests.integration.wire import Lost, Wire, leftovers

PATH = b"/dump.bin"
FRAGMENT = 64 * 1024


class KillAndResumeTests(TestCase):
    timeout = 300

    def setUp(self):
        self.root = FilePath(self.mktemp())
        self.root.makedirs()

    async def start(self, *arguments):
        self.server = Program.start(
            self,
            *TWIST,
            *("txbits", "--listen", "tcp:0:interface=127.0.0.1"),
            *("--backend", f"disk:{self.root.path}"),
            *arguments,
            cwd=self.root.path,
        )
        self.port = await self.server.listening()

    async def kill(self):
        await self.server.end(signal.SIGKILL)

    async def restart(self, *arguments):
        await self.kill()
        await self.start(*arguments)

    def wire(self):
        wire = Wire(self.port)
        self.addCleanup(wire.close)
        return wire

    async def upload_with_kills(self, seed, kills, *arguments):
        chance = random.Random(seed)
        data = chance.randbytes(1_000_000 + chance.randrange(100_000))
        await self.start(*arguments)
        wire, session = await send_with_kills(
            *(self, lambda: self.restart(*arguments), PATH, data, chance),
            fragment=FRAGMENT,
            kills=kills,
            about=f"seed {seed}",
        )
        status, _ = await deferToThread(wire.close_session, PATH, session)
        self.assertEqual(status, 200)
        self.assertEqual(self.root.child("dump.bin").getContent(), data)
        self.assertEqual(leftovers(self.root), [])

    def test_no_acknowledged_byte_is_lost(self):
        async def run():
            for _ in range(2):
                await self.upload_with_kills(random.randrange(2**32), 3)
                self.root.child("dump.bin").remove()
                await self.kill()

        return ensureDeferred(run())

    def test_no_acknowledged_byte_is_lost_with_fsync_at_each_fragment(self):
        return ensureDeferred(
            self.upload_with_kills(random.randrange(2**32), 2, "--fsync", "fragment")
        )

    def test_a_close_that_was_killed_succeeds_when_sent_again(self):
        async def run():
            chance = random.Random()
            # The restarted server also serves the next attempt.
            for attempt in range(6):
                options = ("--allow-overwrites",) if attempt >= 3 else ()
                data = chance.randbytes(300_000)
                if attempt == 3:
                    await self.kill()
                if attempt in (0, 3):
                    await self.start(*options)
                wire = await deferToThread(self.wire)
                session = await deferToThread(wire.create, PATH)
                await deferToThread(wire.fragment, PATH, session, data, 0, len(data))
                # The packet is on its way, and the process is gone some moment later.
                await deferToThread(
                    wire.packet,
                    PATH,
                    b"Close-Session",
                    cut=10_000,
                    BITS_Session_Id=session,
                )
                await deferToThread(_spin, chance.randrange(30_000))
                await self.restart(*options)
                wire = await deferToThread(self.wire)
                status, headers = await deferToThread(wire.close_session, PATH, session)
                self.assertEqual(status, 200, (headers, self.server.output))
                self.assertEqual(self.root.child("dump.bin").getContent(), data)
                self.assertEqual(leftovers(self.root), [])
                self.root.child("dump.bin").remove()
            await self.kill()

        return ensureDeferred(run())

    def test_a_cancel_that_was_killed_leaves_nothing_when_sent_again(self):
        async def run():
            chance = random.Random()
            await self.start()
            for _ in range(3):
                data = chance.randbytes(300_000)
                wire = await deferToThread(self.wire)
                session = await deferToThread(wire.create, PATH)
                await deferToThread(wire.fragment, PATH, session, data, 0, 200_000)
                await deferToThread(
                    wire.packet,
                    PATH,
                    b"Cancel-Session",
                    cut=10_000,
                    BITS_Session_Id=session,
                )
                await deferToThread(_spin, chance.randrange(30_000))
                await self.restart()
                wire = await deferToThread(self.wire)
                status, headers = await deferToThread(
                    wire.cancel_session, PATH, session
                )
                # Either it is finished now, or it had been.
                if status != 200:
                    self.assertEqual(headers[b"bits-error-code"], b"0x8020001F")
                self.assertEqual(leftovers(self.root), [])
                self.assertEqual(
                    [path.basename() for path in self.root.children()],
                    [".bits-sessions"],
                )
            await self.kill()

        return ensureDeferred(run())

    def test_a_connection_lost_in_the_middle_keeps_the_prefix(self):
        async def run():
            data = random.randbytes(500_000)
            await self.start()
            wire = await deferToThread(self.wire)
            session = await deferToThread(wire.create, PATH)
            await deferToThread(
                wire.fragment, PATH, session, data, 0, len(data), 300_000
            )
            wire.close()
            wire = await deferToThread(self.wire)
            status, headers = await deferToThread(
                wire.fragment, PATH, session, data, 499_999, 500_000
            )
            self.assertEqual(status, 416)
            held = int(headers[b"bits-received-content-range"])
            self.assertGreater(held, 0)
            status, headers = await deferToThread(
                wire.fragment, PATH, session, data, held, len(data)
            )
            self.assertEqual(headers[b"bits-received-content-range"], b"500000")
            await deferToThread(wire.close_session, PATH, session)
            self.assertEqual(self.root.child("dump.bin").getContent(), data)

        return ensureDeferred(run())

    def test_cancel_in_the_middle_leaves_nothing_at_the_moment_of_its_ack(self):
        async def run():
            data = random.randbytes(4_000_000)
            await self.start()
            stalled = await deferToThread(self.wire)
            session = await deferToThread(stalled.create, PATH)
            await deferToThread(
                stalled.fragment, PATH, session, data, 0, len(data), 2_000_000
            )

            def cancel():
                wire = Wire(self.port)
                status, _ = wire.cancel_session(PATH, session)
                # In this thread, at once: nothing may be left by now.
                return status, leftovers(self.root)

            self.assertEqual(await deferToThread(cancel), (200, []))
            with self.assertRaises(Lost):
                await deferToThread(
                    stalled.fragment, PATH, session, data, 2_000_000, len(data)
                )

        return ensureDeferred(run())


def _spin(turns):
    """Let some time pass that no clock measures."""
    for _ in range(turns):
        pass
