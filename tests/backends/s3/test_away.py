"""
Stores that are away, at the start and later, and what the log says of them.
"""

from __future__ import annotations

import os
import re

from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs, formatEvent

from tests.backends.s3.support import S3Case
from txbits._deferreds import begun
from txbits.backends.s3._client import Client
from txbits.backends.s3._responses import Request, Response, S3Error, S3Unreachable
from txbits.testing.backend import contract

HEAD = Request(operation="HeadObject", method="HEAD", key="key")


class Unsteady(Client):
    """
    Asks a store that is told how to behave.

    :ivar fault: What each attempt fails with after a second; ``None`` if none does.
    """

    fault: Exception | None = None

    async def _attempt(self, request, headers, payload, seconds, is_repeated):
        await deferLater(self._reactor, 1.0)
        if self.fault is not None:
            raise self.fault
        return Response(200, {}, b"", {}, is_repeated)


class LaterTests(S3Case):
    """A store that goes away once all has started."""

    starts_in_full = True

    async def unsteady(self, **settings):
        backend = await self._start(self.node(**settings))
        self.clock = Clock()
        return Unsteady(
            backend.settings,
            self.client(backend).access,
            None,
            self.clock,
            None,
            random=lambda least, most: 0.0,
        )

    def ask(self, client, seconds):
        """Ask for an object, and let time pass."""
        asking = begun(client.ask(HEAD)).addErrback(
            lambda failure: failure.trap(S3Unreachable, S3Error)
        )
        self.clock.pump([1.0] * seconds)
        return asking

    def lines(self, events):
        return [
            formatEvent(event)
            for event in events
            if event["log_level"] > LogLevel.debug
        ]

    @contract
    async def test_it_is_logged_at_once_and_then_once_a_minute(self):
        client = await self.unsteady(timeout=200)
        client.fault = S3Unreachable("S3 is away", "cannot be reached: gone")
        with capturedLogs() as events:
            asking = self.ask(client, 130)
            lines = self.lines(events)
            client.fault = None
            self.clock.pump([1.0] * 2)
        self.successResultOf(asking)
        told = (
            f"bucket {self.bucket.name} at {client.access.base} cannot be reached: "
            "gone; still trying. Check that the store is running and can be reached "
            "from here, and the endpoint in the settings"
        )
        more = " (59 more failures since the last such line)"
        self.assertEqual(lines, [told, told + more, told + more])
        (last,) = self.lines(events)[3:]
        self.assertEqual(
            last,
            f"bucket {self.bucket.name} at {client.access.base} can be used again "
            "(failures: 129, in 129 s)",
        )

    @contract
    async def test_one_connection_that_is_lost_is_not_logged(self):
        client = await self.unsteady()
        with capturedLogs() as events:
            client.fault = S3Unreachable("S3 is away")
            asking = self.ask(client, 1)
            client.fault = None
            self.clock.pump([1.0] * 2)
        self.successResultOf(asking)
        self.assertEqual(self.lines(events), [])

    @contract
    async def test_one_that_refuses_for_now_is_away(self):
        client = await self.unsteady()
        client.fault = S3Error("S3 refused HeadObject: 503", 503, "SlowDown")
        with capturedLogs() as events:
            asking = self.ask(client, 10)
            client.fault = S3Error("S3 refused HeadObject: 403", 403, "AccessDenied")
            self.clock.pump([1.0] * 2)
        self.successResultOf(asking)
        first, last = self.lines(events)
        self.assertIn("refuses requests: S3 refused HeadObject: 503; still", first)
        self.assertIn("can be used again", last)


class StartTests(S3Case):
    """What does not answer at the start is named in the log, and can be stopped."""

    starts_in_full = True

    async def logged(self, backend, pattern):
        """Start, and stop when the log has a line, which stands there once."""
        with capturedLogs() as events:
            starting = backend.start()
            lines = []
            while not lines:
                self.assertFalse(starting.called)
                await self.turn()
                lines = [
                    line
                    for event in events
                    if event["log_level"] >= LogLevel.warn
                    and re.search(pattern, line := formatEvent(event))
                ]
            starting.cancel()
            with self.assertRaises(CancelledError):
                await starting
        self.assertEqual(len(lines), 1)
        self.assertNotIn("\n", lines[0])
        self.assertIsNone(backend._threads)
        self.assertIsNone(backend._pool)

    @contract
    async def test_a_store_that_says_nothing(self):
        port = reactor.listenTCP(  # type: ignore[attr-defined]
            0, Factory.forProtocol(Protocol), interface="127.0.0.1"
        )
        self.addCleanup(port.stopListening)
        endpoint = f"http://127.0.0.1:{port.getHost().port}"
        await self.logged(
            self.node(endpoint=endpoint, patience=0.01),
            f"^bucket {self.bucket.name} at {endpoint}/{self.bucket.name} has not "
            "answered yet; still trying. Check .* the endpoint",
        )

    @contract
    async def test_a_store_where_nobody_listens(self):
        await self.logged(
            self.node(endpoint="http://127.0.0.1:1"),
            f"^bucket {self.bucket.name} at http://127.0.0.1:1/.* cannot be reached: "
            ".*refused.*; still trying",
        )

    @contract
    async def test_a_program_that_finds_no_credentials(self):
        fifo = os.path.abspath(self.mktemp())
        os.mkfifo(fifo)
        config = os.path.abspath(self.mktemp())
        with open(config, "w") as file:
            file.write(f"[profile slow]\ncredential_process = cat {fifo}\n")
        os.environ["AWS_CONFIG_FILE"] = config  # restored by setUp's clean-up
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            del os.environ[name]
            self.addCleanup(os.environ.pop, name, None)
        try:
            await self.logged(
                self.node(profile="slow", patience=0.01),
                f"waiting for credentials for bucket {self.bucket.name}",
            )
        finally:
            # Opening it for writing waits until the program has opened it as well.
            await deferToThread(lambda: open(fifo, "w").close())
