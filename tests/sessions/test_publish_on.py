"""
When files appear: at Close, or with ``publish-on = "last-fragment"`` before the last
fragment's Ack, after which their sessions stay until Close, Cancel or the time-out.
"""

from __future__ import annotations

from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from tests.sessions.support import (
    ALICE,
    ANYONE,
    NAME,
    SOURCE,
    TOTAL,
    ManagerCase,
    NotifyingCase,
)
from txbits.errors import (
    ApplicationRefused,
    ApplicationUnreachable,
    BackendError,
    DestinationExists,
    NoSuchSession,
    OutOfSpace,
)
from txbits.interfaces import Answer

EARLY = {"publish_on": "last-fragment"}
DAY = 86400.0


class EarlyTests(ManagerCase):
    """Files that are published at the last fragment."""

    rules = EARLY

    def test_the_file_stands_before_the_ack(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("publish")
        outcome = self.send(session_id, 0, SOURCE)
        self.assertEqual((gate.waiting, self.memory.files), (1, {}))
        self.assertNoResult(outcome)
        gate.open()
        self.assertEqual(self.successResultOf(outcome), TOTAL)
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_half_a_file_is_not_published(self) -> None:
        session_id = self.create()
        self.upload(session_id, 0, 4)
        self.assertEqual(self.memory.files, {})
        self.successResultOf(self.close(session_id))
        self.assertEqual((self.memory.files, self.sessions()), ({}, set()))

    def test_the_last_fragment_again_is_acknowledged_again(self) -> None:
        session_id = self.complete()
        for has_restarted in (False, True):
            if has_restarted:
                self.restart(**EARLY)
            self.successResultOf(self.send(session_id, 0, SOURCE))
        self.assertEqual(self.backend.calls.count("publish"), 1)

    def test_close_only_releases(self) -> None:
        for has_restarted in (False, True):
            session_id = self.complete()
            if has_restarted:
                self.restart()
            self.backend.calls.clear()
            for _ in range(2):
                self.successResultOf(self.close(session_id))
            self.assertNotIn("publish", self.backend.calls)
            self.assertEqual(self.memory.files, {NAME: SOURCE})
            self.assertEqual(self.sessions(), set())
            self.memory.files.clear()

    def test_cancel_succeeds_and_leaves_the_file(self) -> None:
        for has_restarted in (False, True):
            session_id = self.complete()
            if has_restarted:
                self.restart()
            self.successResultOf(self.cancel(session_id))
            self.assertEqual(self.memory.files, {NAME: SOURCE})
            self.assertEqual(self.sessions(), set())
            self.assert_unknown(session_id)
            self.memory.files.clear()

    def test_a_cancel_that_fails_is_finished_by_the_next(self) -> None:
        for has_restarted in (False, True):
            session_id = self.complete()
            gate = self.backend.hold("release")
            gate.fail(BackendError("not now"))
            self.failureResultOf(self.cancel(session_id), BackendError)
            self.failureResultOf(self.close(session_id), NoSuchSession)
            gate.open()
            if has_restarted:
                # Its first clean-up finishes the job.
                self.restart()
                self.failureResultOf(self.cancel(session_id), NoSuchSession)
            else:
                self.successResultOf(self.cancel(session_id))
            self.assertEqual(self.sessions(), set())
            self.memory.files.clear()

    def test_the_session_outlives_the_clean_up_but_not_its_time(self) -> None:
        session_id = self.complete()
        self.restart()
        for _ in range(13):
            self.clock.advance(DAY)
        self.assertEqual(self.sessions(), {session_id})
        # Nor is it read in each round.
        self.assertNotIn("find", self.backend.calls)
        self.clock.advance(2 * DAY)
        self.assertEqual(self.sessions(), set())
        self.assertEqual(self.memory.files, {NAME: SOURCE})
        # A client that comes so late has still uploaded its file.
        self.successResultOf(self.close(session_id))

    def test_publishing_that_fails_is_tried_again_by_whoever_comes(self) -> None:
        for comes in (lambda one: self.send(one, 0, SOURCE), self.close):
            session_id = self.create()
            gate = self.backend.hold("publish")
            gate.fail(OutOfSpace("not now"))
            self.failureResultOf(self.send(session_id, 0, SOURCE), OutOfSpace)
            self.restart()
            self.failureResultOf(comes(session_id), OutOfSpace)
            gate.open()
            self.successResultOf(comes(session_id))
            self.assertEqual(self.memory.files, {NAME: SOURCE})
            self.successResultOf(self.close(session_id))
            self.memory.files.clear()

    def test_a_file_that_stands_is_not_replaced(self) -> None:
        session_id = self.create()
        self.memory.files[NAME] = b"somebody else's"
        outcome = self.send(session_id, 0, SOURCE)
        self.failureResultOf(outcome, DestinationExists)
        self.successResultOf(self.cancel(session_id))
        self.assertEqual(self.memory.files, {NAME: b"somebody else's"})

    def test_a_file_that_stands_is_replaced_where_that_is_allowed(self) -> None:
        self.restart(allow_overwrites=True)
        self.memory.files[NAME] = b"somebody else's"
        self.complete()
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_an_empty_file_is_published_at_its_fragment_or_at_close(self) -> None:
        session_id = self.create()
        self.successResultOf(self.close(session_id))
        self.assertEqual(self.memory.files.pop(NAME), b"")
        self.assertEqual(self.sessions(), set())

    def test_sessions_count_as_long_as_they_stand(self) -> None:
        self.restart(session_limit=1)
        session_id = self.complete()
        self.failureResultOf(self.manager.create(("b",), ALICE, None))
        self.successResultOf(self.close(session_id))
        self.create(("b",))


class EarlyNotificationTests(NotifyingCase):
    """Both: the application is asked first."""

    rules = EARLY

    def test_the_file_stands_after_the_answer_and_before_the_ack(self) -> None:
        session_id = self.create()
        _, outcome = self.ask(session_id)
        self.assertEqual(self.memory.files, {})
        gate = self.backend.hold("publish")
        self.asked.answer(Answer(publishes=True))
        self.assertNoResult(outcome)
        self.assertIn("keep_answer", self.backend.calls)
        gate.open()
        self.successResultOf(outcome)
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_an_upload_that_was_taken_is_not_published(self) -> None:
        session_id = self.answered(Answer())
        self.successResultOf(self.close(session_id))
        self.assertEqual((self.memory.files, self.sessions()), ({}, set()))

    def test_an_upload_that_was_refused_is_not_published(self) -> None:
        session_id = self.create()
        _, outcome = self.ask(session_id)
        self.asked.fail(ApplicationRefused("not this one", 403))
        self.failureResultOf(outcome, ApplicationRefused)
        self.failureResultOf(self.close(session_id), ApplicationRefused)
        self.assertEqual(self.memory.files, {})

    def test_publishing_that_fails_does_not_ask_again(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("publish")
        gate.fail(BackendError("not now"))
        _, outcome = self.ask(session_id)
        self.asked.answer(Answer(publishes=True))
        self.failureResultOf(outcome, BackendError)
        gate.open()
        self.restart()
        self.successResultOf(self.last(session_id).outcome)
        self.assertEqual((self.attempts, self.memory.files), ([1], {NAME: SOURCE}))

    def test_the_reply_outlives_the_publication_until_cancel(self) -> None:
        session_id = self.create()
        _, outcome = self.ask(session_id)
        self.write_reply(b"well done")
        self.asked.answer(Answer(publishes=True))
        self.successResultOf(outcome)
        self.restart()
        file = self.successResultOf(self.manager.open_reply(session_id, ALICE))
        self.assertEqual(file.length, 9)
        self.successResultOf(self.cancel(session_id))
        self.failureResultOf(self.manager.open_reply(session_id, ALICE), NoSuchSession)
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_who_is_superseded_publishes_nothing_but_the_newer_does(self) -> None:
        session_id = self.create()
        first, second = self.ask(session_id), self.last(session_id)
        self.failureResultOf(first.outcome)
        self.asked.answer(Answer(publishes=True))
        self.successResultOf(second.outcome)
        self.assertEqual(self.backend.calls.count("publish"), 1)


class LostUploadTests(NotifyingCase):
    """What the log says of a complete upload whose time is out."""

    def setUp(self) -> None:
        super().setUp()
        self.events: list[dict] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def lost(self) -> list[dict]:
        """Time passes, and something is lost."""
        self.clock.advance(15 * DAY)
        self.assertEqual((self.sessions(), self.memory.files), (set(), {}))
        return [one for one in self.events if one["log_level"] is LogLevel.warn]

    def assert_lost(self, session_id: UUID, why: str) -> None:
        (event,) = self.lost()
        self.assertEqual(event["why"], why)
        self.assertEqual(event["session"], str(session_id).upper())
        self.assertEqual(event["destination"], "/".join(NAME))
        self.assertEqual((event["bytes"], event["owner"]), (TOTAL, "alice"))

    def failed(self, error: Exception) -> UUID:
        session_id = self.create()
        outcome: Deferred[int] = self.ask(session_id).outcome
        self.asked.fail(error)
        self.failureResultOf(outcome)
        return session_id

    def test_one_that_nobody_closed(self) -> None:
        session_id = self.answered(Answer(publishes=True))
        self.assert_lost(session_id, "no Close-Session came")

    def test_one_that_the_application_did_not_take(self) -> None:
        session_id = self.failed(ApplicationUnreachable("connection refused"))
        self.assert_lost(session_id, "the application did not take it")

    def test_one_that_the_application_refused(self) -> None:
        session_id = self.failed(ApplicationRefused("not this one", 403))
        self.assert_lost(session_id, "the application refused it")

    def test_one_that_could_not_be_published(self) -> None:
        self.restart(**EARLY)
        session_id = self.create()
        gate = self.backend.hold("publish")
        gate.fail(BackendError("not now"))
        _, outcome = self.ask(session_id)
        self.asked.answer(Answer(publishes=True))
        self.failureResultOf(outcome, BackendError)
        self.assert_lost(
            session_id, "it could not be published (BackendError: not now)"
        )

    def test_one_whose_close_failed(self) -> None:
        session_id = self.answered(Answer(publishes=True))
        gate = self.backend.hold("publish")
        gate.fail(BackendError("not now"))
        self.failureResultOf(self.close(session_id), BackendError)
        self.assert_lost(
            session_id, "it could not be published (BackendError: not now)"
        )

    def test_one_from_before_a_restart(self) -> None:
        """Nobody knows any more whether a Close came."""
        session_id = self.answered(Answer(publishes=True))
        self.restart()
        self.assert_lost(session_id, "no Close-Session succeeded")

    def test_one_of_an_anonymous_user(self) -> None:
        self.answered(Answer(publishes=True), caller=ANYONE)
        (event,) = self.lost()
        self.assertIn("10 bytes from an anonymous user", formatEvent(event))

    def test_one_that_the_application_has_taken_is_not_lost(self) -> None:
        self.answered(Answer())
        self.assertEqual(self.lost(), [])

    def test_half_a_file_is_none(self) -> None:
        session_id = self.create()
        self.upload(session_id, 0, 4)
        self.assertEqual(self.lost(), [])

    def test_one_that_was_cancelled_is_not_lost(self) -> None:
        self.successResultOf(self.cancel(self.answered(Answer(publishes=True))))
        self.assertEqual(self.lost(), [])
