"""
Server applications that are functions.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

import txbits.notification
from tests.notification.support import SESSION_ID, Held, Place
from txbits.errors import ApplicationRefused
from txbits.interfaces import Answer, CompleteUpload, INotifier, IReadable, IReply
from txbits.notification import HTTPNotifier, notifier


class FunctionTests(SynchronousTestCase):
    """``notifier``."""

    def setUp(self) -> None:
        session: Any = Held()
        self.upload = CompleteUpload(
            session=session, request_url="http://h/a", attempt=1, sha256=b""
        )
        self.place = Place()

    def ask(self, function: Any) -> Deferred[Answer]:
        return notifier(function).notify(self.upload, self.place)

    def test_both_are_exported(self) -> None:
        self.assertEqual(
            {txbits.notification.HTTPNotifier, txbits.notification.notifier},
            {HTTPNotifier, notifier},
        )

    def test_it_is_a_notifier(self) -> None:
        one = notifier(lambda upload, reply: Answer(), {IReadable})
        verifyObject(INotifier, one)
        self.assertEqual(one.needs, {IReadable})
        self.assertEqual(notifier(lambda upload, reply: Answer()).needs, set())

    def test_it_may_answer_at_once_or_later(self) -> None:
        answer = Answer(publishes=True)

        async def coroutine(upload: CompleteUpload, reply: IReply) -> Answer:
            self.assertEqual(upload.session.session_id, SESSION_ID)
            await (await reply.open()).write(b"reply")
            return answer

        for function in (
            lambda upload, reply: answer,
            lambda upload, reply: succeed(answer),
            coroutine,
        ):
            self.assertIs(self.successResultOf(self.ask(function)), answer)
        self.assertEqual(self.place.content, b"reply")

    def test_what_it_fails_with_is_what_asking_fails_with(self) -> None:
        def refuse(upload: CompleteUpload, reply: IReply) -> Answer:
            raise ApplicationRefused("no", 403)

        async def fail(upload: CompleteUpload, reply: IReply) -> Answer:
            raise LookupError("a mistake")

        self.failureResultOf(self.ask(refuse), ApplicationRefused)
        self.failureResultOf(self.ask(fail), LookupError)

    def test_what_is_no_answer_is_a_mistake(self) -> None:
        failure = self.failureResultOf(self.ask(lambda upload, reply: {}), TypeError)
        self.assertIn("not an Answer", str(failure.value))

    def test_cancelling_reaches_it_and_waits_for_it(self) -> None:
        ending: Deferred[None] = Deferred()

        async def patient(upload: CompleteUpload, reply: IReply) -> Answer:
            try:
                await Deferred()
            finally:
                await ending
            return Answer()

        asking = self.ask(patient)
        asking.cancel()
        self.assertNoResult(asking)
        ending.callback(None)
        self.failureResultOf(asking, CancelledError)
