"""
An upload as the body of a request, at the edges that a connection seldom comes to.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.notification.support import Held, Reading
from txbits.interfaces import IReadable
from txbits.notification._bodies import UploadBody


@implementer(IReadable)
@define(eq=False)
class Slow:
    """A session that registers its producer only when the test says so."""

    consumer: Any = None
    finished: Deferred[None] = field(factory=Deferred)

    def read_into(self, consumer: IConsumer, start: int, end: int) -> Deferred[None]:
        self.consumer = consumer
        return self.finished

    def begin(self) -> Reading:
        """Begin to read."""
        reading = Reading(Held(), self.consumer, 0, len(Held().data))
        reading.finished.chainDeferred(self.finished)
        self.consumer.registerProducer(reading, True)
        return reading


class UploadBodyTests(SynchronousTestCase):
    """``UploadBody``."""

    def setUp(self) -> None:
        self.session = Slow()
        self.moves = 0
        self.transport = StringTransport()
        self.body = UploadBody(self.session, len(Held().data), self.moved)

    def moved(self) -> None:
        self.moves += 1

    def test_it_can_be_paused_before_reading_has_begun(self) -> None:
        finished = self.body.startProducing(self.transport)
        self.body.pauseProducing()
        reading = self.session.begin()
        self.assertTrue(reading.paused)
        self.body.resumeProducing()
        self.successResultOf(finished)
        self.assertEqual(self.transport.value(), Held().data)
        self.assertTrue(self.body.is_out)
        self.assertTrue(self.body.ended.is_set)

    def test_it_can_be_stopped_before_reading_has_begun(self) -> None:
        finished = self.body.startProducing(self.transport)
        self.body.stopProducing()
        self.assertFalse(self.body.ended.is_set)
        self.session.begin()
        self.assertTrue(self.body.ended.is_set)
        self.assertNoResult(finished)
        self.assertIsNone(self.body.error)

    def test_it_can_be_stopped_before_it_has_begun(self) -> None:
        self.body.stopProducing()
        self.body.stopProducing()
        self.assertTrue(self.body.ended.is_set)
        self.assertNoResult(self.body.startProducing(self.transport))
        self.assertIsNone(self.session.consumer)

    def test_what_comes_after_it_was_stopped_is_not_sent(self) -> None:
        self.body.startProducing(self.transport)
        self.body.stopProducing()
        self.session.consumer.write(b"late")
        self.assertEqual((self.transport.value(), self.moves), (b"", 0))
