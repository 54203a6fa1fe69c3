"""
What goes wrong between us and an application, and what is left of it: nothing.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError as NobodyListens
from twisted.internet.error import DNSLookupError, TimeoutError

from tests.notification.support import NotifierCase, pause
from txbits.errors import (
    ApplicationRefused,
    ApplicationTimedOut,
    ApplicationUnreachable,
    BackendError,
    BadAnswer,
    StagedDataLost,
)
from txbits.interfaces import Answer

OK = b"HTTP/1.1 200 OK"


class FailureCase(NotifierCase):
    """Uploads of ten pieces, and a connection that takes one at a time."""

    def setUp(self) -> None:
        super().setUp()
        self.session.data = bytes(range(100))
        self.session.piece = 10

    def taken(self) -> None:
        """Let the connection take what it was given."""
        self.app.transport.producer.resumeProducing()

    def assert_nothing_left(self) -> None:
        """There is no connection, no reading, no writer and no timer."""
        self.assertFalse(self.app.is_connected)
        self.assertFalse(self.session.is_read)
        self.assertEqual(self.place.opened, self.place.closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def failed(self, asking: Deferred[Answer], kind: type[Any]) -> Any:
        """It failed like that, and left nothing; the error."""
        error = self.failureResultOf(asking, kind).value
        self.assertEqual(len(str(error).splitlines()), 1 if str(error) else 0)
        self.assert_nothing_left()
        return error


class ConnectingTests(FailureCase):
    """Connections that are not made."""

    def test_who_is_not_there_is_unreachable(self) -> None:
        for refusal in (
            NobodyListens(),
            TimeoutError(),
            DNSLookupError("no such name"),
        ):
            self.app.refusal = refusal
            for by in ("reference", "value"):
                error = self.failed(self.ask(by), ApplicationUnreachable)
                self.assertIn("app.example", str(error))

    def test_a_connection_that_is_not_made_in_time_is_given_up(self) -> None:
        self.app.stuck = True
        for by in ("reference", "value"):
            asking = self.ask(by)
            self.clock.advance(299)
            self.assertNoResult(asking)
            self.clock.advance(1)
            self.failed(asking, ApplicationTimedOut)

    def test_connecting_can_be_cancelled(self) -> None:
        self.app.stuck = True
        asking = self.ask("value")
        asking.cancel()
        self.failed(asking, CancelledError)

    def test_a_connection_that_is_lost_at_once_is_no_answer(self) -> None:
        for by in ("reference", "value"):
            asking = self.ask(by)
            self.app.close()
            self.failed(asking, ApplicationUnreachable)

    def test_one_that_is_lost_in_the_head_is_no_answer(self) -> None:
        asking = self.ask()
        self.app.send(OK + b"\r\nContent-")
        self.app.close()
        self.failed(asking, ApplicationUnreachable)


class SendingTests(FailureCase):
    """Uploads on their way."""

    def setUp(self) -> None:
        super().setUp()
        self.app.slow = True

    def test_they_go_at_the_application_s_pace(self) -> None:
        asking = self.ask("value")
        for piece in range(1, 11):
            self.assertEqual(
                self.app.request()[-10:],
                self.session.data[:100][piece * 10 - 10 : piece * 10],
            )
            reading = self.session.reading
            assert reading is not None
            self.assertEqual(reading.at, piece * 10)
            self.taken()
        self.app.answer(OK, b"Content-Length: 0")
        self.assertEqual(self.successResultOf(asking), Answer())
        self.assert_nothing_left()

    def test_they_may_take_long_if_they_move(self) -> None:
        asking = self.ask("value")
        for _ in range(10):
            self.clock.advance(299)
            self.taken()
        self.assertNoResult(asking)
        self.app.answer(OK, b"Content-Length: 0")
        self.successResultOf(asking)

    def test_one_that_does_not_move_is_given_up(self) -> None:
        asking = self.ask("value", send_timeout=10, response_timeout=1)
        self.taken()
        self.clock.advance(9)
        self.assertNoResult(asking)
        self.clock.advance(1)
        error = self.failed(asking, ApplicationTimedOut)
        self.assertIn("10 seconds", str(error))

    def test_it_can_be_cancelled(self) -> None:
        asking = self.ask("value")
        self.taken()
        asking.cancel()
        self.failed(asking, CancelledError)
        self.assertTrue(self.app.transport.aborted)

    def test_cancelling_waits_for_the_connection(self) -> None:
        self.app.lingers = True
        asking = self.ask("value")
        asking.cancel()
        self.assertNoResult(asking)
        asking.cancel()
        self.assertNoResult(asking)
        self.app.close()
        self.failed(asking, CancelledError)

    def test_cancelling_waits_until_nothing_is_read(self) -> None:
        self.session.lingers = True
        asking = self.ask("value")
        asking.cancel()
        self.assertNoResult(asking)
        asking.cancel()
        self.assertNoResult(asking)
        assert self.session.reading is not None
        self.session.reading.over(BackendError("was stopped"))
        self.failed(asking, CancelledError)

    def test_a_connection_that_breaks_stops_the_reading(self) -> None:
        self.session.lingers = True
        asking = self.ask("value")
        self.app.close()
        self.assertNoResult(asking)
        assert self.session.reading is not None
        self.session.reading.over(None)
        self.failed(asking, ApplicationUnreachable)

    def test_an_upload_that_cannot_be_read_is_a_fault_of_storage(self) -> None:
        for error in (StagedDataLost("it is gone"), BackendError("I/O error")):
            self.session.error = error
            asking = self.ask("value")
            self.taken()
            self.assertIs(self.failed(asking, type(error)), error)
            self.assertTrue(self.app.transport.aborted)

    def test_a_refusal_on_the_way_ends_the_sending(self) -> None:
        for length in (b"0", b"5"):
            asking = self.ask("value")
            self.taken()
            self.app.answer(b"HTTP/1.1 403 No", b"Content-Length: " + length)
            self.assertEqual(self.failed(asking, ApplicationRefused).status, 403)
            self.assertTrue(self.app.transport.aborted)

    def test_what_is_no_http_ends_the_sending(self) -> None:
        for line, kind in (
            (b"220 mail.example ESMTP", ApplicationUnreachable),
            (b"HTTP/1.0 403 No", BadAnswer),
            (b"HTTP/1.1 999 What", BadAnswer),
        ):
            asking = self.ask("value")
            self.taken()
            self.app.answer(line)
            self.failed(asking, kind)

    def test_a_broken_head_is_no_answer(self) -> None:
        asking = self.ask("value")
        self.app.answer(OK, b"no header")
        for _ in range(10):
            self.assertNoResult(asking)
            self.taken()
        self.failed(asking, ApplicationUnreachable)

    def test_a_refusal_is_heard_behind_interim_responses(self) -> None:
        asking = self.ask("value")
        self.app.answer(b"HTTP/1.1 100 Continue")
        self.app.answer(b"HTTP/1.1 102 Processing", b"X: y")
        self.assertNoResult(asking)
        self.app.send(b"HTTP/1.1 40")
        self.assertNoResult(asking)
        self.app.send(b"3 No\r\n")
        self.assertEqual(self.failed(asking, ApplicationRefused).status, 403)

    def test_an_answer_on_the_way_does_not_end_it(self) -> None:
        asking = self.ask("value")
        self.app.answer(OK, b"Content-Length: 5", body=b"rep")
        for _ in range(10):
            self.assertNoResult(asking)
            self.taken()
        self.app.send(b"ly")
        self.assertEqual(self.successResultOf(asking), Answer())
        self.assertEqual(self.place.content, b"reply")
        self.assert_nothing_left()

    def test_success_without_having_taken_it_is_none(self) -> None:
        for reply in (b"", b"reply"):
            asking = self.ask("value")
            self.app.answer(OK, b"Content-Length: %d" % len(reply), body=reply)
            self.assertNoResult(asking)
            self.app.close()
            self.failed(asking, ApplicationUnreachable)
            self.assertEqual(self.place.content, b"")

    def test_an_upload_that_ends_too_early_is_a_fault_of_storage(self) -> None:
        asking = self.ask("value")
        self.session.data = self.session.data[:50]
        for _ in range(5):
            self.taken()
        self.failed(asking, StagedDataLost)


class AnsweringTests(FailureCase):
    """Applications that take their time."""

    def test_one_that_does_not_answer_is_given_up(self) -> None:
        for by in ("reference", "value"):
            asking = self.ask(by, send_timeout=1, response_timeout=20)
            self.app.send(b"HTTP/1.1 200 OK\r\n")
            self.clock.advance(19)
            self.assertNoResult(asking)
            self.clock.advance(1)
            error = self.failed(asking, ApplicationTimedOut)
            self.assertIn("20 seconds", str(error))

    def test_bytes_of_the_head_are_no_progress(self) -> None:
        asking = self.ask()
        for _ in range(10):
            self.app.send(b"H")
            self.clock.advance(29)
        self.clock.advance(10)
        self.failureResultOf(asking, ApplicationTimedOut, ApplicationUnreachable)
        self.assert_nothing_left()

    def test_waiting_can_be_cancelled(self) -> None:
        for by in ("reference", "value"):
            asking = self.ask(by)
            asking.cancel()
            self.failed(asking, CancelledError)
            self.assertTrue(self.app.transport.aborted)

    def test_a_head_without_an_end_is_given_up(self) -> None:
        for first, line in (
            (OK + b"\r\n", b"X: y\r\n"),
            (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        ):
            asking = self.ask()
            self.app.send(first)
            for _ in range(20_000):
                self.app.send(line)
            error = self.failed(asking, ApplicationUnreachable)
            self.assertIn("65,536", str(error))


class ReplyTests(FailureCase):
    """Replies on their way."""

    def begin(self, **settings: Any) -> Deferred[Answer]:
        """Ask by value, and begin to reply."""
        asking = self.ask("value", **settings)
        self.app.answer(OK, b"Content-Length: 9", body=b"abc")
        return asking

    def test_they_go_at_storage_s_pace(self) -> None:
        self.place.held = held = pause()
        asking = self.begin()
        self.app.send(b"def")
        self.assertEqual(self.app.transport.producerState, "paused")
        self.assertEqual(self.place.content, b"abc")
        self.place.held = None
        held.callback(None)
        self.assertEqual(self.app.transport.producerState, "producing")
        self.assertEqual(self.place.content, b"abcdef")
        self.app.send(b"ghi")
        self.assertEqual(self.successResultOf(asking), Answer())

    def test_one_that_stops_is_given_up(self) -> None:
        asking = self.begin(reply_timeout=7)
        self.clock.advance(6)
        self.app.send(b"d")
        self.clock.advance(6)
        self.assertNoResult(asking)
        self.clock.advance(1)
        error = self.failed(asking, ApplicationTimedOut)
        self.assertIn("7 seconds", str(error))

    def test_slow_storage_is_not_the_application_s_fault(self) -> None:
        self.place.held = held = pause()
        asking = self.begin(reply_timeout=7)
        self.clock.advance(1000)
        self.assertNoResult(asking)
        held.callback(None)
        self.app.send(b"defghi")
        self.assertEqual(self.successResultOf(asking), Answer())

    def test_it_can_be_cancelled(self) -> None:
        asking = self.begin()
        asking.cancel()
        self.failed(asking, CancelledError)
        self.assertTrue(self.app.transport.aborted)
        self.assertEqual(self.place.closed, 1)

    def test_cancelling_waits_for_what_is_being_written(self) -> None:
        self.place.held = held = pause()
        asking = self.begin()
        asking.cancel()
        self.assertNoResult(asking)
        asking.cancel()
        self.assertNoResult(asking)
        self.assertEqual(self.place.closed, 0)
        held.callback(None)
        self.failed(asking, CancelledError)
        self.assertEqual(self.place.closed, 1)

    def test_one_that_cannot_be_stored_is_a_fault_of_storage(self) -> None:
        self.place.error = BackendError("disk on fire")
        asking = self.begin()
        self.assertIs(self.failed(asking, BackendError), self.place.error)
        self.assertTrue(self.app.transport.aborted)

    def test_one_that_cannot_be_closed_is_no_reply(self) -> None:
        self.place.close_error = BackendError("disk full")
        asking = self.begin()
        self.app.send(b"defghi")
        self.assertIs(self.failed(asking, BackendError), self.place.close_error)
        asking = self.begin()
        asking.cancel()
        self.assertIs(self.failed(asking, BackendError), self.place.close_error)

    def test_what_storage_should_not_fail_with_is_not_hidden(self) -> None:
        self.place.error = OSError("a mistake")
        self.assertIs(self.failed(self.begin(), OSError), self.place.error)
