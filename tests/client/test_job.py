"""
Uploads that are paused, resumed and cancelled, and that another run goes on with.

The journal does its work at once here, on files of the test.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.client.fakes import Answer, ScriptedExchange, lost
from txbits.client import (
    ConnectionSettings,
    Created,
    Event,
    FileSource,
    Journal,
    JournalError,
    Paused,
    Progress,
    SourceChanged,
    UploadCancelled,
    UploadFailed,
    UploadJob,
    UploadResult,
    Waiting,
)
from txbits.client._files import Files
from txbits.client._requests import NoTrust
from txbits.client.journal import name_of
from txbits.protocol.packets import Ack, Fragment
from txbits.protocol.refusals import HResult

URL = "http://h/x?token=secret"
DATA = bytes(range(100))
ELSEWHERE = Ack(
    200,
    session_id=None,
    host_id="node2.example",
    host_id_fallback_timeout=60,
)


class JobTestCase(SynchronousTestCase):
    """A file of 100 bytes, in fragments of 40."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.exchange = ScriptedExchange()
        self.events: list[Event] = []
        self.path = self.mktemp()
        with open(self.path, "wb") as file:
            file.write(DATA)

    def job(self, *script: Answer, **settings: Any) -> UploadJob:
        self.exchange.script.extend(script)
        arguments: dict[str, Any] = {
            "reactor": self.clock,
            "fragment_size": 40,
            "retry_for": 60.0,
            "on_event": self.events.append,
            "random": lambda: 0.5,
            "exchange": self.exchange,
        }
        return UploadJob(self.path, URL, **(arguments | settings))

    def pump(self, seconds: float = 100) -> None:
        for _ in range(int(seconds * 4)):
            self.clock.advance(0.25)

    def assert_delivered(self, result: Deferred[UploadResult]) -> None:
        self.assertEqual(self.successResultOf(result).length, 100)
        self.assertEqual(self.exchange.server.published, DATA)
        self.assertEqual(self.exchange.server.held, {})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @property
    def firsts(self) -> list[int]:
        """Where the fragments began."""
        return [
            packet.content_range.first
            for packet in self.exchange.packets
            if isinstance(packet, Fragment)
        ]


class PauseTests(JobTestCase):
    """Nothing is sent until it is resumed."""

    def test_a_job_is_started_once(self) -> None:
        job = self.job()
        self.assert_delivered(job.start())
        self.assertRaises(RuntimeError, job.start)

    def test_a_packet_under_way_is_given_up(self) -> None:
        job = self.job(None, None, Deferred())
        result = job.start()
        self.successResultOf(job.pause())
        self.assertNoResult(result)
        self.assertEqual(self.events[-1], Paused(40))
        self.assertEqual(self.exchange.closed, 1)
        self.pump()
        self.assertEqual(self.exchange.kinds[-1], "Fragment")

    def test_resuming_pings_and_goes_on(self) -> None:
        job = self.job(None, None, Deferred())
        result = job.start()
        job.pause()
        job.resume()
        self.assert_delivered(result)
        self.assertEqual(self.exchange.kinds.count("Create-Session"), 1)
        self.assertEqual(self.exchange.kinds[3], "Ping")
        self.assertEqual(self.firsts, [0, 40, 40, 80])

    def test_a_wait_is_given_up(self) -> None:
        job = self.job(None, lost())
        result = job.start()
        self.successResultOf(job.pause())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        job.resume()
        self.assert_delivered(result)

    def test_patience_is_new_after_a_pause(self) -> None:
        job = self.job(None, *[lost()] * 9, retry_for=30)
        result = job.start()
        self.pump(28)
        self.successResultOf(job.pause())
        self.pump(1000)
        job.resume()
        self.pump(28)
        self.assert_delivered(result)

    def test_a_session_that_is_being_created_is_waited_for(self) -> None:
        creating: Deferred[Ack] = Deferred()
        job = self.job(creating)
        result = job.start()
        paused = job.pause()
        self.assertNoResult(paused)
        creating.callback(self.exchange.server.receive(self.exchange.packets[0], b""))
        self.successResultOf(paused)
        job.resume()
        self.assert_delivered(result)
        self.assertEqual(self.exchange.kinds.count("Create-Session"), 1)

    def test_two_pauses_are_one(self) -> None:
        job = self.job(None, Deferred())
        result = job.start()
        first, second = job.pause(), job.pause()
        self.successResultOf(first)
        self.successResultOf(second)
        job.resume()
        job.resume()
        self.assert_delivered(result)

    def test_an_observer_may_pause_and_resume(self) -> None:
        def observe(event: Event) -> None:
            self.events.append(event)
            if event == Progress(40, 40, 100) and Paused(40) not in self.events:
                job.pause()
            elif isinstance(event, Paused):
                job.resume()

        job = self.job(on_event=observe)
        self.assert_delivered(job.start())
        self.assertIn(Paused(40), self.events)

    def test_pausing_after_the_end_is_done_already(self) -> None:
        job = self.job()
        self.assert_delivered(job.start())
        self.successResultOf(job.pause())

    def test_stopping_a_paused_upload_leaves_the_session(self) -> None:
        job = self.job(None, Deferred())
        result = job.start()
        job.pause()
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(len(self.exchange.server.held), 1)


class CancelTests(JobTestCase):
    """Nothing of it is left on the server."""

    def assert_cancelled(self, job: UploadJob, result: Deferred[UploadResult]) -> None:
        self.successResultOf(job.cancel())
        self.failureResultOf(result, UploadCancelled)
        self.assertEqual(self.exchange.server.held, {})
        self.assertIsNone(self.exchange.server.published)
        self.assertEqual(self.exchange.kinds[-1], "Cancel-Session")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_packet_under_way_is_given_up(self) -> None:
        job = self.job(None, None, Deferred())
        self.assert_cancelled(job, job.start())

    def test_so_is_a_wait_and_a_pause(self) -> None:
        job = self.job(None, lost())
        self.assert_cancelled(job, job.start())
        self.setUp()
        job = self.job(None, Deferred())
        result = job.start()
        job.pause()
        self.assert_cancelled(job, result)

    def test_it_is_said_until_the_server_has_released_everything(self) -> None:
        job = self.job(None, Deferred(), Ack(500), lost())
        result = job.start()
        ended = job.cancel()
        self.assertNoResult(ended)
        self.pump(5)
        self.assert_cancelled(job, result)
        self.successResultOf(ended)
        self.assertEqual(self.exchange.kinds.count("Cancel-Session"), 3)

    def test_a_session_that_is_being_created_is_waited_for(self) -> None:
        creating: Deferred[Ack] = Deferred()
        job = self.job(creating)
        result = job.start()
        ended = job.cancel()
        self.assertNoResult(ended)
        creating.callback(self.exchange.server.receive(self.exchange.packets[0], b""))
        self.assert_cancelled(job, result)

    def test_a_session_that_cannot_be_created_is_not_waited_for_twice(self) -> None:
        creating: Deferred[Ack] = Deferred()
        job = self.job(creating)
        result = job.start()
        ended = job.cancel()
        creating.callback(Ack(503, retry_after=30))
        self.successResultOf(ended)
        self.failureResultOf(result, UploadCancelled)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_before_there_is_a_session_nothing_is_said(self) -> None:
        job = self.job(lost())
        result = job.start()
        self.successResultOf(job.cancel())
        self.failureResultOf(result, UploadCancelled)
        self.assertEqual(self.exchange.kinds, ["Create-Session"])

    def test_a_server_that_refuses_is_heard_once(self) -> None:
        job = self.job(None, Deferred(), Ack(403))
        result = job.start()
        self.successResultOf(job.cancel())
        self.assertEqual(self.failureResultOf(result, UploadFailed).value.status, 403)
        self.assertEqual(self.exchange.kinds.count("Cancel-Session"), 1)

    def test_cancelling_twice_is_once(self) -> None:
        job = self.job(None, Deferred(), Deferred())
        result = job.start()
        first, second, paused = job.cancel(), job.cancel(), job.pause()
        self.assertEqual(self.exchange.kinds[-1], "Cancel-Session")
        for each in (first, second, paused):
            self.assertNoResult(each)
        result.cancel()
        for each in (first, second, paused):
            self.successResultOf(each)
        self.failureResultOf(result, CancelledError)


class HostTests(JobTestCase):
    """A host that the server names."""

    def test_what_follows_goes_there_and_comes_back(self) -> None:
        created = self.exchange.server.receive(_create(), b"")
        job = self.job(
            evolve(ELSEWHERE, session_id=created.session_id),
            *[lost("no route")] * 8,
        )
        result = job.start()
        self.pump()
        self.assert_delivered(result)
        there = self.exchange.hosts.count("node2.example")
        self.assertEqual(
            self.exchange.hosts, [None, *["node2.example"] * there, *[None] * 5]
        )
        waited = sum(e.seconds for e in self.events if isinstance(e, Waiting))
        self.assertGreaterEqual(waited, 60 - 30)

    def test_a_host_that_wants_what_it_is_not_told_is_named(self) -> None:
        secrets = ConnectionSettings(headers=[("X-Token", "x")])
        for settings, is_said in (
            (secrets, True),
            (evolve(secrets, trust_host_id=True), False),
            (ConnectionSettings(), False),
        ):
            self.setUp()
            created = self.exchange.server.receive(_create(), b"")
            elsewhere = evolve(ELSEWHERE, session_id=created.session_id)
            job = self.job(elsewhere, Ack(401), settings=settings)
            error = self.failureResultOf(job.start(), UploadFailed).value
            self.assertEqual("--trust-host-id" in str(error), is_said)
            self.assertEqual("node2.example" in str(error), is_said)


def _create() -> Any:
    from txbits.protocol.packets import CreateSession

    return CreateSession()


class JournalTests(JobTestCase):
    """What one run leaves to the next."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = Path(self.mktemp())
        self.calendar = 1_700_000_000.0
        self.source = FileSource.open(self.path)
        self.addCleanup(self.source.close)
        assert self.source.identity is not None
        self.name = self.directory / name_of(URL, self.source.identity.path)

    def open(self) -> Journal:
        self.source.close()
        self.source = FileSource.open(self.path)
        identity = self.source.identity
        assert identity is not None
        return self.successResultOf(
            Journal.open(self.name, URL, identity, lambda: self.calendar, maybeDeferred)
        )

    def interrupted(self, *script: Answer) -> None:
        """Have a run end at an answer that does not come."""
        journal = self.open()
        result = self.job(*script, Deferred(), journal=journal).start()
        result.cancel()
        self.failureResultOf(result, CancelledError)
        journal.close()
        self.exchange.packets.clear()
        self.exchange.script.clear()

    def test_another_run_goes_on_where_one_stopped(self) -> None:
        self.interrupted(None, None)
        self.assert_delivered(self.job(journal=self.open()).start())
        self.assertEqual(self.exchange.kinds[0], "Ping")
        self.assertEqual(self.firsts, [40, 80])

    def test_nothing_is_left_at_the_end(self) -> None:
        self.assert_delivered(self.job(journal=self.open()).start())
        self.assertEqual(os.listdir(self.directory), [])

    def test_a_file_that_is_complete_is_closed_by_another_run(self) -> None:
        self.interrupted(*[None] * 4)
        self.assert_delivered(self.job(journal=self.open()).start())
        self.assertEqual(self.exchange.kinds, ["Ping", "Close-Session"])

    def test_a_session_is_written_down_before_anything_is_sent(self) -> None:
        self.interrupted(None)
        found = self.open().found
        assert found is not None
        self.assertEqual(found.position.offset, 0)
        self.assertIsNotNone(found.position.session_id)

    def test_a_session_that_the_server_forgot_is_forgotten_here(self) -> None:
        self.interrupted(None, None)
        self.exchange.server.forget()
        job = self.job(None, None, Deferred(), journal=self.open())
        result = job.start()
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(self.exchange.kinds, ["Ping", "Fragment", "Create-Session"])

    def test_another_state_of_the_file_is_sent_anew(self) -> None:
        self.interrupted(None, None)
        with open(self.path, "wb") as file:
            file.write(DATA[::-1])
        os.utime(self.path, (1, 1))
        result = self.job(journal=self.open()).start()
        self.assertEqual(self.successResultOf(result).length, 100)
        self.assertEqual(self.exchange.server.published, DATA[::-1])
        self.assertEqual(self.exchange.kinds[:2], ["Cancel-Session", "Create-Session"])
        self.assertEqual(self.exchange.server.held, {})

    def test_giving_up_leaves_the_journal(self) -> None:
        result = self.job(None, None, *[lost()] * 99, journal=self.open()).start()
        self.pump()
        self.failureResultOf(result, UploadFailed)
        self.assertTrue(self.name.exists())

    def test_a_refusal_leaves_none(self) -> None:
        result = self.job(None, Ack(403), journal=self.open()).start()
        self.failureResultOf(result, UploadFailed)
        self.assertEqual(os.listdir(self.directory), [])

    def test_a_changed_file_leaves_none(self) -> None:
        result = self.job(None, None, lost(), journal=self.open()).start()
        os.utime(self.path, (1, 1))
        self.pump(1)
        self.failureResultOf(result, SourceChanged)
        self.assertEqual(os.listdir(self.directory), [])
        self.assertEqual(self.exchange.server.held, {})

    def test_a_password_that_is_wanted_leaves_journal_and_session(self) -> None:
        for answer in (Ack(401), Ack(407), NoTrust("not trusted")):
            self.setUp()
            journal = self.open()
            result = self.job(None, None, answer, journal=journal).start()
            error = self.failureResultOf(result, UploadFailed).value
            self.assertEqual((error.transient, error.resumable), (False, True))
            self.assertEqual(len(self.exchange.server.held), 1)
            self.assertTrue(self.name.exists())
            journal.close()

    def test_a_host_that_fails_goes_on_failing_in_another_run(self) -> None:
        created = self.exchange.server.receive(_create(), b"")
        ack = evolve(ELSEWHERE, session_id=created.session_id)
        self.interrupted(ack, lost("no route"))
        self.calendar += 61
        self.assert_delivered(self.job(journal=self.open()).start())
        self.assertEqual(self.exchange.hosts[-5:], [None] * 5)

    def test_a_cancelled_upload_leaves_none(self) -> None:
        job = self.job(None, Deferred(), journal=self.open())
        result = job.start()
        job.cancel()
        self.failureResultOf(result, UploadCancelled)
        self.assertEqual(os.listdir(self.directory), [])

    def test_a_journal_that_fails_at_the_end_does_not_hide_how_it_ended(self) -> None:
        def fsync(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        journal = self.open()
        result = self.job(None, None, Deferred(), journal=journal).start()
        journal.files = Files(fsync=fsync)
        result.cancel()
        self.failureResultOf(result, CancelledError)
        journal.close()
        found = self.open().found
        assert found is not None
        self.assertEqual(found.position.offset, 0)

    def test_a_journal_that_is_to_stay_says_that_all_is_done(self) -> None:
        journal = self.open()
        journal.keeps_done = True
        self.assert_delivered(self.job(journal=journal).start())
        journal.close()
        found = self.open().found
        assert found is not None
        self.assertTrue(found.done)

    def test_a_journal_that_cannot_be_written_is_told(self) -> None:
        journal = self.open()
        self.name.unlink()
        self.directory.rmdir()
        result = self.job(journal=journal).start()
        self.failureResultOf(result, JournalError)

    def test_the_session_is_told(self) -> None:
        self.job(journal=self.open()).start()
        self.assertTrue(any(isinstance(event, Created) for event in self.events))


class ReplyTests(JobTestCase):
    """Where the server application's reply is."""

    def complete(
        self, reply_url: str | None, **settings: Any
    ) -> Deferred[UploadResult]:
        reply = Ack(200, received=100, reply_url=reply_url)
        return self.job(None, None, None, reply, Ack(200), **settings).start()

    def test_it_is_resolved_against_the_destination(self) -> None:
        for given, url in (
            ("http://other/r", "http://other/r"),
            ("\\BITS-Sessions\\{1}\\r.bin", "http://h/BITS-Sessions/%7B1%7D/r.bin"),
            ("ftp://h/r", None),
            (None, None),
        ):
            self.setUp()
            result = self.successResultOf(self.complete(given))
            self.assertEqual(result.reply_url, url)

    def test_one_that_is_wanted_and_not_given_is_a_failure(self) -> None:
        for given in (None, "ftp://h/r"):
            self.setUp()
            result = self.complete(given, reply=self.mktemp())
            self.failureResultOf(result, UploadFailed)
            self.assertNotIn("Close-Session", self.exchange.kinds)

    def test_fragments_that_are_too_large_are_followed_by_shorter_ones(self) -> None:
        refusal = Ack(413, hresult=HResult.BG_E_TOO_LARGE)
        self.path = self.mktemp()
        with open(self.path, "wb") as file:
            file.write(bytes(5000))
        result = self.job(None, refusal, fragment_size=5000).start()
        self.successResultOf(result)
        self.assertEqual(self.firsts, [0, 0, 2500])
