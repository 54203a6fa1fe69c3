"""
The process dies at any system call of the disk backend, from the first byte of an
upload to the Ack of its Close-Session, while an application is asked on the way. A
client that sends again what was not acknowledged gets there in every case.

What dies is the backend; the manager over it is left alone, and another one goes on
over the same directory.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.backends.disk.mortal import (
    DiskCase,
    Killed,
    collect_no_more_than_it_makes,
)
from tests.sessions.support import ALICE, SOURCE, TOTAL, ScriptedBody
from txbits._deferreds import deferred
from txbits.errors import OutOfStep
from txbits.interfaces import Answer, CompleteUpload, IAddressable, IReply
from txbits.notification import notifier
from txbits.protocol.codec import ContentRange
from txbits.sessions import Received, SessionManager, Settings

NAME = ("today.log",)
OLD = b"yesterday's"
REPLY = b"well done"


class KilledTests(DiskCase):
    """One death in each upload."""

    async def by_value(self, upload: CompleteUpload, reply: IReply) -> Answer:
        """An application that writes a reply, and lets the file be published."""
        self.attempts.append(upload.attempt)
        writer = await reply.open()
        await writer.write(REPLY)
        await writer.close()
        return Answer(publishes=True)

    async def by_reference(self, upload: CompleteUpload, reply: IReply) -> Answer:
        """One that takes the upload away, and puts its reply in place."""
        self.attempts.append(upload.attempt)
        staged = IAddressable(upload.session).address()
        if os.path.exists(staged):
            os.replace(staged, self.taken)
        address = reply.address()
        assert address is not None
        with open(address, "wb") as file:
            file.write(REPLY)
        return Answer()

    def setUp(self) -> None:
        collect_no_more_than_it_makes(self)

    def serve(self, root: str) -> Any:
        """Begin to serve a directory; the backend."""
        backend = self.disk(root)
        settings = Settings(**self.rules)
        asks = notifier(self.application)
        self.manager = SessionManager(backend, settings, Clock(), notifier=asks)
        self.successResultOf(self.manager.start())
        return backend

    def send(self, first: int, end: int) -> Deferred[Received]:
        body = ScriptedBody()
        body.send(SOURCE[first:end])
        body.end()
        part = ContentRange(first, end - 1, TOTAL)
        return self.manager.fragment(self.session_id, NAME, ALICE, part, body)

    def last(self) -> Deferred[Received]:
        def go_back(failure: Failure) -> Deferred[Received]:
            failure.trap(OutOfStep)
            # The application has taken the bytes, and nobody knows.
            return self.send(failure.value.offset, TOTAL)

        return self.send(3, TOTAL).addErrback(go_back)

    def close(self) -> Deferred[None]:
        return self.manager.close(self.session_id, NAME, ALICE)

    @deferred
    async def fetch(self) -> bytes:
        """GET the reply."""
        file = await self.manager.open_reply(self.session_id, ALICE)
        consumer: Any = StringTransport()
        await file.read_into(consumer, 0, file.length)
        await file.release()
        reply: bytes = consumer.value()
        return reply

    def outcome(self, act: Callable[..., Deferred[Any]], *arguments: Any) -> Any:
        """What comes of something: a result, or a failure."""
        outcome: list[Any] = []
        act(*arguments).addBoth(outcome.append)
        return outcome[0]

    def upload(self, calls: int) -> bool:
        """
        Upload a file, and die after so many calls.

        :returns: Whether that was late enough to survive.
        """
        root = os.path.abspath(self.mktemp())
        os.mkdir(root)
        self.taken = f"{root}.taken"
        self.attempts: list[int] = []
        if self.rules.get("allow_overwrites"):
            self.place(self.disk(root), NAME, OLD)
        backend = self.serve(root)
        self.session_id = self.successResultOf(self.manager.create(NAME, ALICE, None))
        backend._files.die_after(calls)
        has_answered, has_survived = False, True
        for step in (lambda: self.send(0, 4), self.last, self.fetch, self.close):
            result = self.outcome(step)
            if backend._files._dead:
                has_survived = False
                backend = self.serve(root)
                found = self.outcome(backend.find, self.session_id)
                has_answered |= getattr(found, "answer", None) is not None
                before = len(self.attempts)
                result = self.successResultOf(step())
                if has_answered:
                    self.assertEqual(len(self.attempts), before)
            if step == self.last:
                has_answered = True
                self.assertTrue(result.has_reply)
            elif step == self.fetch:
                self.assertEqual(result, REPLY)
        self.assertIn(self.attempts, ([1], [1, 2], [2]))
        self.assertEqual(self.leftovers(backend), [])
        self.assertEqual(self.published(backend, NAME), self.expected())
        if self.application == self.by_reference:
            with open(self.taken, "rb") as file:
                self.assertEqual(file.read(), SOURCE)
        backend._files.die()
        # Those who waited in the process that died.
        gc.collect()
        self.flushLoggedErrors(Killed)
        return has_survived

    def expected(self) -> bytes | None:
        """What is to stand at the destination in the end."""
        if self.application == self.by_value:
            return SOURCE
        return OLD if self.rules.get("allow_overwrites") else None

    def test_an_upload_gets_there_whenever_the_process_dies(self) -> None:
        for application, publish_on, overwrites, fsync in (
            (self.by_value, "close", False, "close"),
            (self.by_value, "last-fragment", True, "fragment"),
            (self.by_reference, "close", True, "close"),
            (self.by_reference, "last-fragment", False, "never"),
        ):
            self.application = application
            self.rules: dict[str, Any] = {
                "publish_on": publish_on,
                "allow_overwrites": overwrites,
            }
            self.fsync = fsync
            calls = 0
            while not self.upload(calls):
                calls += 1
            self.assertGreater(calls, 30)
