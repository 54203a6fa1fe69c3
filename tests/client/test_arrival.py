"""
Uploads in networks and on servers as they are: login pages on the way, and files that
are at their destination although the answer that says so was lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.client.fakes import Answer, ScriptedExchange, lost
from txbits.client import (
    Event,
    FileSource,
    Journal,
    UploadFailed,
    UploadJob,
    UploadResult,
    Waiting,
)
from txbits.client._exchange import Found
from txbits.protocol.codec import NotAnAck
from txbits.protocol.packets import Ack
from txbits.protocol.refusals import HResult

URL = "http://h/x"
DATA = bytes(range(100))
PORTAL = NotAnAck("the answer is 302, a redirect to 'http://l/'", 302, "'http://l/'")
NOT_FOUND: Ack[str] = Ack(500, hresult=HResult.BG_E_SESSION_NOT_FOUND)
CREATED: Ack[str] = Ack(200, "abc-123")
SENT: Ack[str] = Ack(200, received=100)


class ArrivalTestCase(SynchronousTestCase):
    """A file of 100 bytes in one fragment, and a journal."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.exchange = ScriptedExchange()
        self.events: list[Event] = []
        self.path = self.mktemp()
        self.state = Path(self.mktemp())
        self.began = 5000.0
        with open(self.path, "wb") as file:
            file.write(DATA)

    def start(self, *script: Answer, **settings: Any) -> Deferred[UploadResult]:
        self.exchange = ScriptedExchange(
            list(script), destination=self.exchange.destination
        )
        source = FileSource.open(self.path)
        self.addCleanup(source.close)
        assert source.identity is not None
        journal = self.successResultOf(
            Journal.open(
                self.state,
                URL,
                source.identity,
                lambda: self.began + self.clock.seconds(),
                maybeDeferred,
            )
        )
        arguments: dict[str, Any] = {
            "reactor": self.clock,
            "fragment_size": 100,
            "retry_for": 60.0,
            "on_event": self.events.append,
            "random": lambda: 0.5,
            "exchange": self.exchange,
            "journal": journal,
        }
        job = UploadJob(source, URL, **(arguments | settings))
        return job.start().addBoth(self.close, journal)

    def close(self, outcome: Any, journal: Journal) -> Any:
        journal.close()
        return outcome

    def pump(self, seconds: float = 100) -> None:
        self.clock.pump([0.25] * int(seconds * 4))

    def refused(self, *script: Answer) -> UploadFailed:
        result = self.start(*script)
        self.pump()
        error = self.failureResultOf(result, UploadFailed).value
        assert isinstance(error, UploadFailed)
        return error

    def delivered(self, *script: Answer) -> UploadResult:
        result = self.start(*script)
        self.pump()
        return self.successResultOf(result)


class StrangerTests(ArrivalTestCase):
    """Something else answers than the server."""

    def test_in_the_middle_it_is_waited_for_to_go_away(self) -> None:
        result = self.delivered(CREATED, PORTAL, PORTAL, SENT, Ack(200))
        self.assertTrue(result.is_acknowledged)
        waits = [event for event in self.events if isinstance(event, Waiting)]
        self.assertEqual(len(waits), 2)
        self.assertIn("a redirect to 'http://l/'", waits[0].cause)
        self.assertIn("login page", waits[0].cause)

    def test_one_that_stays_is_given_up_and_the_session_kept(self) -> None:
        error = self.refused(CREATED, *[PORTAL] * 100)
        self.assertTrue(error.transient)
        self.assertTrue(error.resumable)
        self.assertEqual(error.status, 302)
        self.assertNotIn("Cancel-Session", self.exchange.kinds)
        self.delivered(Ack(200), SENT, Ack(200))
        self.assertEqual(self.exchange.kinds, ["Ping", "Fragment", "Close-Session"])

    def test_so_it_is_when_another_run_begins_with_it(self) -> None:
        self.refused(CREATED, *[lost()] * 100)
        self.assertTrue(self.refused(*[PORTAL] * 100).transient)
        self.assertTrue(self.state.exists())

    def test_at_the_very_first_packet_there_is_no_server(self) -> None:
        error = self.refused(PORTAL)
        self.assertFalse(error.transient)
        self.assertEqual(error.status, 302)
        self.assertIn("use that URL", str(error))
        self.assertFalse(self.state.exists())


class LostCloseTests(ArrivalTestCase):
    """Close-Session was sent, and its answer has not come."""

    def assert_arrived(self, result: UploadResult) -> None:
        self.assertEqual((result.session_id, result.length), ("abc-123", 100))
        self.assertFalse(result.is_acknowledged)
        self.assertEqual(self.exchange.looked, 1)
        self.assertNotIn("Cancel-Session", self.exchange.kinds)
        self.assertFalse(self.state.exists())

    def test_a_refusal_of_a_file_that_is_there_is_success(self) -> None:
        for age in (None, 0.0, 1.0):
            self.exchange.destination = Found(100, age)
            for status in (403, 404, 409):
                self.assert_arrived(
                    self.delivered(CREATED, SENT, lost(), Ack(status)),
                )

    def test_a_session_that_is_gone_is_not_sent_again(self) -> None:
        self.exchange.destination = Found(100, 1.0)
        self.assert_arrived(self.delivered(CREATED, SENT, lost(), NOT_FOUND))
        self.assertEqual(self.exchange.kinds.count("Fragment"), 1)

    def test_unless_the_file_may_be_that_of_another_time(self) -> None:
        for found in (Found(100, None), Found(100, 3600.0), Found(99, 1.0), None):
            self.exchange.destination = found
            result = self.delivered(CREATED, SENT, lost(), NOT_FOUND)
            self.assertTrue(result.is_acknowledged)
            self.assertEqual(self.exchange.kinds.count("Fragment"), 2)

    def test_the_refusal_of_another_session_is_looked_into_as_well(self) -> None:
        self.exchange.destination = Found(100, None)
        result = self.delivered(CREATED, SENT, lost(), NOT_FOUND, Ack(403))
        self.assertFalse(result.is_acknowledged)
        self.assertEqual(self.exchange.looked, 2)

    def test_another_file_is_no_success(self) -> None:
        for found, words in (
            (Found(99, 1.0), "the file there has 99 bytes instead of 100"),
            (Found(100, 3600.0), "the file there is older than this upload"),
            (None, "may have arrived, as an answer to Close-Session was lost"),
            (lost(), "may have arrived, as an answer to Close-Session was lost"),
        ):
            self.exchange.destination = found
            error = self.refused(CREATED, SENT, lost(), Ack(403))
            self.assertEqual((error.status, error.transient), (403, False))
            self.assertIn("the server answered 403", str(error))
            self.assertIn(words, str(error))

    def test_another_run_knows_what_the_first_may_have_done(self) -> None:
        self.refused(CREATED, SENT, *[lost()] * 100)
        self.clock.advance(10_000)
        # Older than this run, and not than the upload.
        self.exchange.destination = Found(100, 10_050.0)
        result = self.delivered(Ack(200), Ack(403))
        self.assert_arrived(result)

    def test_a_refusal_before_any_close_is_one(self) -> None:
        self.exchange.destination = Found(100, 0.0)
        self.refused(CREATED, SENT, Ack(403))
        self.assertEqual(self.exchange.looked, 0)


class OutOfStepTests(ArrivalTestCase):
    """A server that never says where it stands."""

    def test_the_session_is_released_and_then_it_is_given_up(self) -> None:
        out = Ack(416, hresult=0)
        error = self.refused(
            CREATED, out, out, Ack(200), Ack(200, "two"), out, out, Ack(200)
        )
        self.assertEqual((error.status, error.transient), (416, False))
        self.assertIn("416 to the first byte of the file", str(error))
        self.assertEqual(
            self.exchange.kinds,
            [
                *("Create-Session", "Fragment", "Fragment", "Cancel-Session"),
                *("Create-Session", "Fragment", "Fragment", "Cancel-Session"),
            ],
        )

    def test_a_session_that_loses_what_it_acknowledges_is_given_up_in_time(
        self,
    ) -> None:
        # Each time it gets as far as before, and no further.
        again: list[Answer] = [Ack(200, received=60), lost(), Ack(416, received=0)]
        error = self.refused(CREATED, *again * 100)
        self.assertTrue(error.transient)
        self.assertIn("gave up after 60 seconds without progress", str(error))
