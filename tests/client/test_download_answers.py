"""
What an answer to a download says, and its body.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers

from txbits.client._fetch import Body, Head
from txbits.client._requests import NoAnswer

reactor: Any = _reactor


class BodyTests(SynchronousTestCase):
    """Bodies of responses."""

    def setUp(self):
        self.clock = Clock()
        self.taken = b""
        self.drops = 0
        self.body = Body(self.clock, 10, self.take, self.drop)

    def take(self, data):
        if data == b"bad":
            raise OSError(28, "No space left on device")
        self.taken += data

    def drop(self):
        self.drops += 1

    def test_it_comes(self):
        self.body.dataReceived(b"12")
        self.body.dataReceived(b"34")
        self.assertNoResult(self.body.ended)
        self.body.connectionLost(Failure(ResponseDone()))
        self.successResultOf(self.body.ended)
        self.assertEqual((self.taken, self.drops), (b"1234", 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_is_lost(self):
        self.body.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(self.body.ended, NoAnswer)

    def test_every_byte_is_a_sign_of_life(self):
        for _ in range(5):
            self.clock.advance(9)
            self.body.dataReceived(b"x")
        self.assertNoResult(self.body.ended)
        self.clock.advance(10)
        self.failureResultOf(self.body.ended, NoAnswer)
        self.assertEqual(self.drops, 1)
        self.body.connectionLost(Failure(ConnectionLost()))

    def test_a_disk_that_is_full_ends_it(self):
        self.body.dataReceived(b"bad")
        self.failureResultOf(self.body.ended, OSError)
        self.assertEqual(self.drops, 1)
        self.body.dataReceived(b"more")
        self.assertEqual(self.taken, b"")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_can_be_cancelled(self):
        self.body.ended.cancel()
        self.failureResultOf(self.body.ended, CancelledError)
        self.assertEqual(self.drops, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class HeadTests(SynchronousTestCase):
    """Which states of a file can be told apart."""

    def validator(self, **headers):
        class Response:
            code = 200
            length = 1

        response: Any = Response()
        raw = {
            name.replace("_", "-").encode(): [value.encode()]
            for name, value in headers.items()
        }
        response.headers = Headers(raw)
        return Head.of(response).validator

    def test_strong_etags_do(self):
        self.assertEqual(self.validator(ETag='"1"', Last_Modified="x"), '"1"')

    def test_weak_ones_do_not(self):
        for etag in ('W/"1"', "1", '"1', '"a"b"'):
            self.assertIsNone(self.validator(ETag=etag, Last_Modified="x"))

    def test_dates_do_that_have_passed(self):
        changed = "Sun, 09 Sep 2001 01:46:40 GMT"
        for date, expected in (
            ("Sun, 09 Sep 2001 01:46:41 GMT", changed),
            (changed, None),
            ("Sun, 09 Sep 2001 01:46:39 GMT", None),
            ("soon", None),
        ):
            found = self.validator(Last_Modified=changed, Date=date)
            self.assertEqual(found, expected, date)
        self.assertIsNone(self.validator(Last_Modified=changed))
        self.assertIsNone(self.validator(Last_Modified="then", Date=changed))
