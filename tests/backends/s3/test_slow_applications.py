"""
Applications that reply slowly over HTTP, and uploads beside them that go on: managers
of two directories, the notifier, the store and its sockets are all real.
"""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol

from tests.backends.s3.support import MIB
from tests.backends.s3.test_requests import CALLER, RequestCase
from txbits.backends.s3._budget import Budget
from txbits.notification import HTTPNotifier
from txbits.sessions import SessionManager, Settings
from txbits.testing.backend import contract

#: More of them than memory is for, each with so many bytes.
COUNT = 14
BEGINNING = 2 * MIB


class Slow(Protocol):
    """Begins to reply, and does not come to an end."""

    def connectionMade(self):
        self._seen = b""

    def dataReceived(self, data):
        self._seen += data
        if self._seen.endswith(b"upload"):
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: 400000000\r\n"
                b"BITS-Copy-File-To-Destination: 1\r\n\r\n" + b"r" * BEGINNING
            )


class SlowApplicationTests(RequestCase):
    """One directory has an application, and another has none."""

    settings = {"memory": 20 * MIB}

    async def managers(self):
        port = reactor.listenTCP(  # type: ignore[attr-defined]
            0, Factory.forProtocol(Slow), interface="127.0.0.1"
        )
        self.addCleanup(port.stopListening)
        budget = Budget()
        notifier = HTTPNotifier(
            reactor, f"http://127.0.0.1:{port.getHost().port}/", by="value"
        )
        managers = []
        for prefix, asked in (("asked/", notifier), ("plain/", None)):
            self.notifies = asked is not None
            node = self.node(budget, prefix=prefix)
            manager = SessionManager(node, Settings(), reactor, notifier=asked)
            await manager.start()
            self.addCleanup(manager.stop)
            managers.append(manager)
        return *managers, budget.memory

    def replies_held(self, manager, sessions):
        """How many bytes have come of replies, and how many of them are held."""
        known = manager.backend.staging.known
        found = [known.get(one) for one in sessions]
        writers = [one.reply_writer for one in found if one.reply_writer is not None]
        held = sum(one._held for one in writers)
        return held + sum(one._stored for one in writers), held

    @contract
    async def test_uploads_go_on_beside_them(self):
        asked, plain, memory = await self.managers()
        names = [(str(number),) for number in range(COUNT)]
        sessions = [await asked.create(name, CALLER, None) for name in names]
        outcomes = []
        for one, name in zip(sessions, names, strict=True):
            sending = self.fragment(asked, one, 0, b"upload", 6, name)
            sending.addBoth(outcomes.append)
        while self.replies_held(asked, sessions)[0] < COUNT * BEGINNING:
            await self.turn()
        # All of it was taken, though there is no room for it.
        self.assertEqual(outcomes, [])
        self.assertLessEqual(self.replies_held(asked, sessions)[1], 10 * MIB)
        for length in (1000, MIB, 12 * MIB):
            data = self.data(length)
            name = (f"plain-{length}",)
            one = await plain.create(name, CALLER, None)
            await self.fragment(plain, one, 0, data, length, name)
            await plain.close(one, name, CALLER)
            self.assertTrue(data == await self.file_at(plain.backend, name))
        # And where the applications are asked.
        one = await asked.create(("more",), CALLER, None)
        await self.fragment(asked, one, 0, self.data(6 * MIB), 12 * MIB, ("more",))
        self.assertLessEqual(memory.peak, 20 * MIB)
        for session, name in zip([*sessions, one], [*names, ("more",)], strict=True):
            await asked.cancel(session, name, CALLER)
        self.assertEqual(len(outcomes), COUNT)
        self.assertEqual(memory.used, 0)
        self.assertEqual(self.left(asked.backend.settings), [])
