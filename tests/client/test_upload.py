"""
Whole uploads, over an exchange that follows a script, on a clock the tests turn.

After its script the exchange has the answers of a model server, so that a test writes
down only what goes wrong.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import txbits.client
from tests.client.fakes import (
    AckLost,
    Answer,
    MemorySource,
    ResolvingReactor,
    ScriptedExchange,
    lost,
)
from tests.protocol.model_server import ModelServer
from txbits.client import (
    Created,
    Event,
    InvalidURL,
    Progress,
    SourceChanged,
    SourceError,
    UploadFailed,
    UploadResult,
    Waiting,
    upload,
)
from txbits.client._requests import NoTrust
from txbits.protocol.codec import RemoteProtocolError
from txbits.protocol.packets import Ack, Fragment
from txbits.protocol.refusals import UNKNOWN_PACKET_TYPE, HResult

DATA = bytes(range(100))
NOT_FOUND = Ack(500, hresult=HResult.BG_E_SESSION_NOT_FOUND)


class UploadTestCase(SynchronousTestCase):
    """An upload of 100 bytes in fragments of 40."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.source = MemorySource(DATA)
        self.exchange = ScriptedExchange()
        self.events: list[Event] = []

    def upload(self, *script: Answer, **settings: Any) -> Deferred[UploadResult]:
        self.exchange.script.extend(script)
        arguments: dict[str, Any] = {
            "reactor": self.clock,
            "fragment_size": 40,
            "retry_for": 60.0,
            "on_event": self.events.append,
            "random": lambda: 0.5,
            "exchange": self.exchange,
        }
        return upload(self.source, "http://h/x", **(arguments | settings))

    def pump(self, result: Deferred[UploadResult], seconds: float = 100) -> None:
        for _ in range(int(seconds * 4)):
            self.clock.advance(0.25)

    def assert_delivered(self, result: Deferred[UploadResult]) -> UploadResult:
        outcome = self.successResultOf(result)
        self.assertEqual(self.exchange.server.published, self.source.data)
        self.assertEqual(self.exchange.server.held, {})
        self.assertEqual(self.exchange.closed, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return outcome

    def waits(self) -> list[Waiting]:
        return [event for event in self.events if isinstance(event, Waiting)]


class DeliveryTests(UploadTestCase):
    """Uploads that end well."""

    def test_the_public_names_are_there(self) -> None:
        for name in txbits.client.__all__:
            self.assertTrue(hasattr(txbits.client, name), name)

    def test_a_file_is_created_sent_and_closed(self) -> None:
        outcome = self.assert_delivered(self.upload())
        self.assertEqual(
            self.exchange.kinds,
            ["Create-Session", *["Fragment"] * 3, "Close-Session"],
        )
        self.assertEqual((outcome.length, outcome.reply_url), (100, None))
        self.assertEqual(outcome.session_id, "session-1")
        self.assertTrue(outcome.is_acknowledged)

    def test_the_file_s_name_goes_with_create_and_fragments(self) -> None:
        self.upload()
        create = self.exchange.packets[0]
        self.assertIn("content_name='name.bin'", repr(create))
        self.assertEqual(self.exchange.names, [None, *["name.bin"] * 3, None])

    def test_an_empty_file_is_created_and_closed(self) -> None:
        self.source.data = b""
        self.assert_delivered(self.upload())
        self.assertEqual(self.exchange.kinds, ["Create-Session", "Close-Session"])

    def test_progress_is_reported(self) -> None:
        self.upload()
        self.assertEqual(
            self.events,
            [
                Progress(0, 0, 100),
                Created("session-1"),
                Progress(0, 0, 100),
                Progress(40, 0, 100),
                Progress(40, 40, 100),
                Progress(80, 40, 100),
                Progress(80, 80, 100),
                Progress(100, 80, 100),
                Progress(100, 100, 100),
            ],
        )

    def test_an_observer_that_fails_does_not_stop_the_upload(self) -> None:
        def fail(event: Event) -> None:
            raise RuntimeError("the observer's own fault")

        self.assert_delivered(self.upload(on_event=fail))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 9)

    def test_a_path_is_opened_and_closed(self) -> None:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"on disk")
        before = os.listdir("/proc/self/fd")
        for name in (path, os.fsencode(path)):
            exchange = ScriptedExchange()
            result = upload(name, "http://h/x", reactor=self.clock, exchange=exchange)
            self.assertEqual(self.successResultOf(result).length, 7)
            self.assertEqual(exchange.server.published, b"on disk")
        self.assertEqual(len(os.listdir("/proc/self/fd")), len(before))

    def test_without_an_exchange_the_network_is_used(self) -> None:
        reactor = ResolvingReactor()
        result = upload(self.source, "http://127.0.0.1:81/x", reactor=reactor)
        # Twisted 24.10 connects in the next turn.
        reactor.advance(0)
        self.assertEqual(reactor.tcpClients[0][:2], ("127.0.0.1", 81))
        result.cancel()
        self.failureResultOf(result, CancelledError)


class TransientTests(UploadTestCase):
    """Failures that pass."""

    def test_a_lost_packet_is_sent_again_after_a_pause(self) -> None:
        result = self.upload(None, None, lost("cable cut"))
        self.assertNoResult(result)
        self.assertEqual(self.waits(), [Waiting(0.375, "cable cut")])
        self.pump(result, 1)
        self.assert_delivered(result)
        self.assertEqual(self.exchange.packets[2], self.exchange.packets[3])

    def test_a_lost_ack_costs_one_fragment(self) -> None:
        result = self.upload(None, None, AckLost("cable cut"))
        self.pump(result, 1)
        self.assert_delivered(result)
        self.assertEqual(self.exchange.server.taken, 140)

    def test_the_session_survives_a_lost_connection(self) -> None:
        result = self.upload(None, None, lost(), lost(), lost())
        self.pump(result)
        self.assert_delivered(result)
        self.assertEqual(self.exchange.kinds.count("Create-Session"), 1)

    def test_close_is_sent_again(self) -> None:
        result = self.upload(*[None] * 4, Ack(500), lost())
        self.pump(result)
        self.assert_delivered(result)
        self.assertEqual(self.exchange.kinds.count("Close-Session"), 3)

    def test_a_close_whose_ack_and_session_are_lost_uploads_again(self) -> None:
        result = self.upload(*[None] * 4, AckLost())
        self.pump(result)
        self.assert_delivered(result)
        self.assertEqual(self.exchange.kinds.count("Create-Session"), 2)

    def test_out_of_step_goes_on_where_the_server_stands(self) -> None:
        # A server that lost the last of what it had.
        result = self.upload(None, None, lost())
        self.exchange.server.fall_back(15)
        self.pump(result)
        self.assert_delivered(result)
        firsts = [
            packet.content_range.first
            for packet in self.exchange.packets
            if isinstance(packet, Fragment)
        ]
        self.assertEqual(firsts, [0, 40, 40, 25, 65])
        self.assertEqual(self.exchange.kinds.count("Create-Session"), 1)

    def test_a_forgotten_session_is_begun_again_at_once(self) -> None:
        self.successResultOf(self.upload(None, None, NOT_FOUND))
        self.assertEqual(self.exchange.server.published, DATA)
        self.assertEqual(self.exchange.kinds.count("Create-Session"), 2)
        self.assertEqual(self.waits(), [])

    def test_smaller_fragments_follow_one_that_is_too_large(self) -> None:
        self.source.data = bytes(10_000)
        self.exchange.server = ModelServer(largest=2000)
        result = self.upload(fragment_size=10_000)
        self.assert_delivered(result)
        self.assertEqual(self.exchange.server.taken, 10_000)

    def test_retry_after_is_honoured(self) -> None:
        result = self.upload(Ack(503, retry_after=20))
        self.pump(result, 19)
        self.assertEqual(len(self.exchange.packets), 1)
        self.pump(result, 2)
        self.assert_delivered(result)

    def test_pauses_are_short_again_after_progress(self) -> None:
        result = self.upload(lost(), lost(), None, lost(), None, lost())
        self.pump(result)
        self.assert_delivered(result)
        self.assertEqual(
            [wait.seconds for wait in self.waits()], [0.375, 0.75, 1.5, 0.375]
        )

    @given(
        data=st.binary(max_size=300),
        script=st.lists(
            st.sampled_from([None, "lost", "ack lost", "busy", "forgotten"]),
            max_size=25,
        ),
    )
    def test_whatever_gets_lost_the_file_arrives(
        self, data: bytes, script: list[str | None]
    ) -> None:
        self.setUp()
        self.source.data = data
        answers: dict[str | None, Answer] = {
            None: None,
            "lost": lost(),
            "ack lost": AckLost("the Ack was lost"),
            "busy": Ack(503),
            "forgotten": NOT_FOUND,
        }
        result = self.upload(*[answers[name] for name in script], retry_for=1e6)
        while self.clock.getDelayedCalls():
            self.clock.advance(1)
        self.successResultOf(result)
        self.assertEqual(self.exchange.server.published, data)


class FailureTests(UploadTestCase):
    """Failures that end the upload."""

    def test_a_refusal_is_reported_with_its_codes(self) -> None:
        result = self.upload(Ack(403, hresult=0x80070005))
        error = self.failureResultOf(result, UploadFailed).value
        self.assertEqual(
            (error.status, error.hresult, error.transient), (403, 0x80070005, False)
        )
        self.assertIn("403 Forbidden", str(error))
        self.assertEqual(self.exchange.kinds, ["Create-Session"])
        self.assertEqual(self.exchange.closed, 1)

    def test_a_refused_upload_leaves_nothing_on_the_server(self) -> None:
        result = self.upload(*[None] * 4, Ack(403))
        self.failureResultOf(result, UploadFailed)
        self.assertEqual(self.exchange.kinds[-1], "Cancel-Session")
        self.assertEqual(self.exchange.server.held, {})

    def test_a_server_that_does_not_release_changes_nothing(self) -> None:
        for answer in (lost(), Ack(500), NoTrust("no")):
            self.setUp()
            result = self.upload(None, Ack(403), answer)
            error = self.failureResultOf(result, UploadFailed).value
            self.assertEqual(error.status, 403)
            self.assertEqual(self.exchange.kinds[-1], "Cancel-Session")

    def test_a_server_that_is_slow_to_release_is_not_waited_for_long(self) -> None:
        result = self.upload(None, Ack(403), Deferred())
        self.clock.advance(9)
        self.assertNoResult(result)
        self.clock.advance(2)
        self.failureResultOf(result, UploadFailed)
        self.assertEqual(self.exchange.closed, 1)

    def test_giving_up_is_transient_and_names_the_last_cause(self) -> None:
        result = self.upload(*[lost("cable cut")] * 99, retry_for=10)
        self.pump(result, 9)
        self.assertNoResult(result)
        self.pump(result, 2)
        error = self.failureResultOf(result, UploadFailed).value
        self.assertTrue(error.transient)
        self.assertEqual(
            str(error), "gave up after 10 seconds without progress: cable cut"
        )

    def test_giving_up_leaves_the_session_to_the_server(self) -> None:
        result = self.upload(None, None, *[Ack(503)] * 99, retry_for=10)
        self.pump(result)
        error = self.failureResultOf(result, UploadFailed).value
        self.assertEqual((error.status, error.transient), (503, True))
        self.assertNotIn("Cancel-Session", self.exchange.kinds)

    def test_progress_makes_patience_new(self) -> None:
        script: list[Answer] = [None]
        for _ in range(3):
            script += [None, *[lost()] * 3]
        result = self.upload(*script, retry_for=4)
        self.pump(result)
        self.assert_delivered(result)

    def test_a_server_without_memory_is_given_up(self) -> None:
        result = self.upload(*[None, NOT_FOUND] * 500, retry_for=30)
        self.pump(result)
        error = self.failureResultOf(result, UploadFailed).value
        self.assertTrue(error.transient)
        self.assertLess(len(self.exchange.packets), 50)

    def test_what_is_no_bits_server_is_refused_at_once(self) -> None:
        answer = RemoteProtocolError("the answer is no Ack", UNKNOWN_PACKET_TYPE)
        error = self.failureResultOf(self.upload(answer), UploadFailed).value
        self.assertEqual(str(error), "the answer is no Ack")
        self.assertFalse(error.transient)

    def test_a_server_that_is_not_trusted_is_refused_at_once(self) -> None:
        result = self.upload(NoTrust("the certificate is not trusted"))
        self.assertFalse(self.failureResultOf(result, UploadFailed).value.transient)

    def test_a_changed_file_ends_the_upload_and_releases_the_session(self) -> None:
        result = self.upload(None, None, lost())
        self.source.changed = True
        self.pump(result, 1)
        self.failureResultOf(result, SourceChanged)
        self.assertEqual(self.exchange.kinds[-1], "Cancel-Session")
        self.assertEqual(self.exchange.server.held, {})

    def test_a_file_that_changes_before_close_is_not_closed(self) -> None:
        result = self.upload(*[None] * 4, lost())
        self.source.changed = True
        self.pump(result, 1)
        self.failureResultOf(result, SourceChanged)
        self.assertIsNone(self.exchange.server.published)

    def test_a_file_that_is_not_there_is_an_error_of_the_system(self) -> None:
        for path, error in ((self.mktemp(), OSError), (os.curdir, SourceError)):
            result = upload(path, "http://h/x", reactor=self.clock)
            self.failureResultOf(result, error)

    def test_a_url_that_is_none_is_refused(self) -> None:
        result = upload(self.source, "ftp://h/x", reactor=self.clock)
        self.failureResultOf(result, InvalidURL)

    def test_a_fragment_size_that_is_none_is_refused(self) -> None:
        for source in (self.source, __file__):
            result = upload(source, "http://h", reactor=self.clock, fragment_size=0)
            self.failureResultOf(result, ValueError)


class CancelTests(UploadTestCase):
    """Uploads that are stopped: the session stays."""

    def assert_stopped(self, result: Deferred[UploadResult]) -> None:
        self.failureResultOf(result, CancelledError)
        self.assertEqual(self.exchange.closed, 1)
        self.assertNotIn("Cancel-Session", self.exchange.kinds)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelling_ends_a_packet_that_is_under_way(self) -> None:
        result = self.upload(None, Deferred())
        result.cancel()
        self.assert_stopped(result)
        self.assertEqual(len(self.exchange.server.held), 1)

    def test_cancelling_ends_a_pause(self) -> None:
        result = self.upload(None, lost())
        result.cancel()
        self.assert_stopped(result)

    def test_an_observer_may_cancel(self) -> None:
        results: list[Deferred[UploadResult]] = []

        def observe(event: Event) -> None:
            if results:
                results[0].cancel()

        held: Deferred[Ack] = Deferred()
        results.append(self.upload(None, held, on_event=observe))
        held.callback(Ack(200, received=40))
        self.assert_stopped(results[0])
        self.assertEqual(self.exchange.kinds, ["Create-Session", "Fragment"])

    def test_the_connections_are_closed_before_it_fails(self) -> None:
        closing: Deferred[None] = Deferred()

        class SlowToClose(ScriptedExchange):
            def close(self) -> Deferred[None]:
                return closing

        result = self.upload(exchange=SlowToClose([Deferred()]))
        result.cancel()
        self.assertNoResult(result)
        closing.callback(None)
        self.failureResultOf(result, CancelledError)

    def test_cancelling_while_a_failed_upload_is_released_ends_it(self) -> None:
        result = self.upload(None, Ack(403), Deferred())
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelling_after_the_end_changes_nothing(self) -> None:
        result = self.upload()
        result.cancel()
        self.assert_delivered(result)

    def test_a_fault_that_surfaces_after_cancelling_is_logged(self) -> None:
        held: Deferred[Ack] = Deferred(lambda d: d.errback(RuntimeError("a fault")))
        result = self.upload(None, held)
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
