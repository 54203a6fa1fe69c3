"""
What becomes of an application's response.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.notification.support import NotifierCase, pause
from txbits.errors import (
    ApplicationError,
    ApplicationRefused,
    ApplicationUnreachable,
    BadAnswer,
)
from txbits.interfaces import Answer

OK = b"HTTP/1.1 200 OK"
EMPTY = b"Content-Length: 0"


class StatusTests(NotifierCase):
    """Its status."""

    def test_any_2xx_is_success(self) -> None:
        for status in (200, 201, 202, 204, 206, 299):
            answer = self.answered(b"HTTP/1.1 %d Fine" % status, EMPTY)
            self.assertEqual(answer, Answer(status=status))

    def test_any_other_is_a_refusal_with_its_status(self) -> None:
        for status in (300, 302, 304, 400, 401, 403, 404, 413, 416, 500, 503, 599):
            error = self.refused(ApplicationRefused, b"HTTP/1.1 %d No" % status, EMPTY)
            self.assertEqual(error.status, status)

    def test_what_is_no_status_is_no_answer(self) -> None:
        for status in (600, 999, 1000, 99):
            self.refused(BadAnswer, b"HTTP/1.1 %d What" % status, EMPTY)

    def test_interim_responses_are_passed_over(self) -> None:
        asking = self.ask("value")
        self.app.answer(b"HTTP/1.1 100 Continue")
        self.app.answer(b"HTTP/1.1 103 Early Hints", b"Link: </x>")
        self.assertNoResult(asking)
        self.app.answer(b"HTTP/1.1 202 Accepted", EMPTY)
        self.assertEqual(self.successResultOf(asking), Answer(status=202))

    def test_it_must_be_http_1_1(self) -> None:
        # MC-BUP 3.3.5.3.2: "The HTTP version MUST be 1.1."
        for line in (b"HTTP/1.0 200 OK", b"HTTP/1.0 500 No", b"HTTP/2.0 200 OK"):
            self.refused(BadAnswer, line, EMPTY)

    def test_what_is_no_http_is_no_application(self) -> None:
        for line in (b"SSH-2.0-OpenSSH_9.2", b"200 OK", b"HTTP/1.1 OK", b""):
            self.refused(ApplicationUnreachable, line)

    def test_a_response_may_come_byte_by_byte(self) -> None:
        asking = self.ask("value")
        for byte in (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n"
            b"BITS-Copy-File-To-Destination: 1\r\n\r\nreply"
        ):
            self.assertNoResult(asking)
            self.app.send(bytes([byte]))
        self.assertEqual(self.successResultOf(asking), Answer(publishes=True))
        self.assertEqual(self.place.content, b"reply")


class HeaderTests(NotifierCase):
    """Its headers."""

    def test_any_value_of_copy_file_publishes(self) -> None:
        for value in (b"true", b"0", b"", b"no"):
            for by in ("reference", "value"):
                answer = self.answered(
                    OK, EMPTY, b"bits-copy-file-to-destination: " + value, by=by
                )
                self.assertEqual(answer, Answer(publishes=True))

    def test_without_it_nothing_is_published(self) -> None:
        self.assertFalse(self.answered(OK, EMPTY).publishes)

    def test_a_static_url_is_the_reply(self) -> None:
        for url in ("http://cdn.example/r?x=1#y", "https://[::1]:8/r", "HTTP://a"):
            for by in ("reference", "value"):
                answer = self.answered(
                    OK,
                    EMPTY,
                    b"BITS-Static-Response-URL:  %b " % url.encode(),
                    by=by,
                )
                self.assertEqual(answer, Answer(reply_url=url))

    def test_with_a_static_url_the_body_is_no_reply(self) -> None:
        answer = self.answered(
            OK,
            b"Content-Length: 5",
            b"BITS-Static-Response-URL: http://a/r",
            body=b"words",
        )
        self.assertEqual(answer, Answer(reply_url="http://a/r"))
        self.assertEqual(self.place.opened, 0)

    def test_an_empty_static_url_is_none(self) -> None:
        answer = self.answered(OK, EMPTY, b"BITS-Static-Response-URL: ")
        self.assertIsNone(answer.reply_url)

    def test_a_static_url_may_have_2200_characters(self) -> None:
        url = b"http://a/" + b"x" * 2191
        answer = self.answered(OK, EMPTY, b"BITS-Static-Response-URL: " + url)
        self.assertEqual(answer.reply_url, url.decode("ascii"))
        error = self.refused(
            BadAnswer, OK, EMPTY, b"BITS-Static-Response-URL: " + url + b"x"
        )
        self.assertIn("2,201", str(error))

    def test_a_static_url_that_clients_cannot_use_is_refused(self) -> None:
        for url in (
            b"/r",
            b"r",
            b"ftp://a/r",
            b"\\\\server\\share",
            b"http://a/\xc3\xbc",
            b"http://a/b c",
            b"http://me:secret@a/r",
            b"http://a/r\r\nBITS-Static-Response-URL: http://b/r",
        ):
            self.refused(BadAnswer, OK, EMPTY, b"BITS-Static-Response-URL: " + url)

    def test_a_compressed_response_is_refused(self) -> None:
        for encoding in (b"gzip", b"br"):
            error = self.refused(
                BadAnswer,
                OK,
                b"Content-Encoding: " + encoding,
                b"Content-Length: 3",
                body=b"xyz",
            )
            self.assertIn(encoding.decode(), str(error))
        answer = self.answered(OK, b"Content-Encoding: identity", EMPTY)
        self.assertEqual(answer, Answer())


class ReplyTests(NotifierCase):
    """Its body, by value."""

    def test_it_is_the_reply(self) -> None:
        answer = self.answered(OK, b"Content-Length: 5", body=b"reply")
        self.assertEqual(answer, Answer())
        self.assertEqual(
            (self.place.content, self.place.opened, self.place.closed),
            (b"reply", 1, 1),
        )

    def test_it_may_be_chunked(self) -> None:
        self.answered(
            OK,
            b"Transfer-Encoding: chunked",
            body=b"3\r\nrep\r\n2\r\nly\r\n0\r\n\r\n",
        )
        self.assertEqual((self.place.content, self.place.closed), (b"reply", 1))

    def test_an_empty_body_is_no_reply(self) -> None:
        self.answered(OK, EMPTY)
        self.answered(OK, b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")
        self.answered(b"HTTP/1.1 204 No Content")
        self.assertEqual(self.place.opened, 0)

    def test_one_that_breaks_off_is_no_reply(self) -> None:
        for lines, body in (
            ((OK, b"Content-Length: 5"), b"rep"),
            ((OK, b"Transfer-Encoding: chunked"), b"3\r\nrep\r\n"),
            ((OK, b"Transfer-Encoding: chunked"), b"3\r\nrep\r\nx\r\n"),
        ):
            asking = self.ask("value")
            self.app.answer(*lines, body=body)
            self.app.close()
            self.failureResultOf(asking, ApplicationUnreachable)
            self.assertEqual(self.place.opened, self.place.closed)

    def test_one_whose_end_nobody_can_tell_is_refused(self) -> None:
        for body in (b"rep", b""):
            asking = self.ask("value")
            self.app.answer(OK, body=body)
            self.app.close()
            self.failureResultOf(asking, BadAnswer)
            self.assertEqual(self.place.opened, self.place.closed)

    def test_a_refusal_s_body_is_no_reply(self) -> None:
        self.refused(
            ApplicationRefused, b"HTTP/1.1 403 No", b"Content-Length: 2", body=b"no"
        )
        self.assertEqual(self.place.opened, 0)

    def test_the_answer_comes_when_the_reply_is_stored(self) -> None:
        self.place.held = held = pause()
        asking = self.ask("value")
        self.app.answer(OK, b"Content-Length: 5", body=b"reply")
        self.assertNoResult(asking)
        self.assertEqual(self.place.closed, 0)
        held.callback(None)
        self.assertEqual(self.successResultOf(asking), Answer())
        self.assertEqual(self.place.closed, 1)


class UnwantedBodyTests(NotifierCase):
    """Bodies that nobody wants: of refusals, and by reference."""

    def begin(self, *lines: bytes, body: bytes = b"") -> Deferred[Answer]:
        """Ask by reference, and begin to answer."""
        asking = self.ask()
        self.app.answer(*lines, body=body)
        return asking

    def test_they_are_taken(self) -> None:
        for status in (b"HTTP/1.1 200 OK", b"HTTP/1.1 404 No"):
            asking = self.begin(status, b"Content-Length: 4", body=b"ab")
            asking.addErrback(lambda failure: failure.trap(ApplicationRefused) and None)
            self.assertNoResult(asking)
            self.app.send(b"cd")
            self.successResultOf(asking)
        self.assertEqual(self.place.opened, 0)

    def test_they_are_not_taken_for_long(self) -> None:
        asking = self.begin(OK, b"Content-Length: 4", body=b"ab")
        self.clock.advance(5)
        self.assertEqual(self.successResultOf(asking), Answer())
        self.assertTrue(self.app.transport.aborted)

    def test_not_much_of_them_is_taken(self) -> None:
        asking = self.begin(OK, b"Content-Length: 1000000", body=b"x" * 65536)
        self.assertNoResult(asking)
        self.app.send(b"x")
        self.assertEqual(self.successResultOf(asking), Answer())
        self.assertTrue(self.app.transport.aborted)

    def test_it_does_not_matter_how_they_end(self) -> None:
        asking = self.begin(OK, b"Content-Length: 4", body=b"ab")
        self.app.close()
        self.assertEqual(self.successResultOf(asking), Answer())

    def test_no_timer_is_left(self) -> None:
        self.answered(OK, EMPTY, by="reference")
        with self.assertRaises(ApplicationError):
            raise self.refused(ApplicationRefused, b"HTTP/1.1 404 No", EMPTY)
        self.assertEqual(self.clock.getDelayedCalls(), [])
