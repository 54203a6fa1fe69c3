"""
An asking that goes on: packets join it, and clients may leave it; Cancel, the time-out
and the end of the server end it, and wait until nothing of it is left.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from tests.sessions.support import (
    ALICE,
    BOB,
    NAME,
    SOURCE,
    TOTAL,
    ManagerCase,
    NotifyingCase,
    RecordingBackend,
)
from txbits.errors import (
    ApplicationTimedOut,
    BackendError,
    BodyIncomplete,
    NoSuchSession,
    ServerStopping,
    Superseded,
    TotalLengthChanged,
)
from txbits.interfaces import Answer, CompleteUpload, INotifier, IReply, IShared
from txbits.sessions import SessionManager

PUBLISHES = Answer(publishes=True)


class JoiningTests(NotifyingCase):
    """Packets that come while the application is asked."""

    def setUp(self) -> None:
        super().setUp()
        self.session_id = self.create()

    def test_a_last_fragment_that_is_sent_again_joins(self) -> None:
        first = self.ask(self.session_id)
        second = self.last(self.session_id)
        self.assertEqual(self.attempts, [1])
        self.failureResultOf(first.outcome, Superseded)
        self.assertNoResult(second.outcome)
        self.asked.answer(PUBLISHES)
        self.assertEqual(self.successResultOf(second.outcome), TOTAL)
        self.assertEqual(self.backend.calls.count("keep_answer"), 1)

    def test_any_fragment_joins_whose_ack_would_say_the_same(self) -> None:
        first = self.ask(self.session_id)
        outcome = self.send(self.session_id, 2, SOURCE[2:5])
        self.failureResultOf(first.outcome, Superseded)
        self.assertNoResult(outcome)
        self.asked.answer(PUBLISHES)
        self.assertEqual(self.successResultOf(outcome), TOTAL)
        self.assertEqual(self.attempts, [1])

    def test_of_three_the_newest_is_answered(self) -> None:
        older = [self.ask(self.session_id), self.last(self.session_id)]
        newest = self.last(self.session_id)
        for one in older:
            self.failureResultOf(one.outcome, Superseded)
        self.asked.answer(PUBLISHES)
        self.successResultOf(newest.outcome)

    def test_a_failure_is_told_to_whoever_joined(self) -> None:
        first = self.ask(self.session_id)
        second = self.last(self.session_id)
        self.failureResultOf(first.outcome, Superseded)
        self.asked.fail(ApplicationTimedOut("no answer"))
        self.failureResultOf(second.outcome, ApplicationTimedOut)
        self.ask(self.session_id)
        self.assertEqual(self.attempts, [1, 2])

    def test_a_close_joins(self) -> None:
        first = self.ask(self.session_id)
        closing = self.close(self.session_id)
        self.failureResultOf(first.outcome, Superseded)
        self.assertNoResult(closing)
        self.asked.answer(PUBLISHES)
        self.successResultOf(closing)
        self.assertEqual(self.attempts, [1])
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_a_newer_close_ends_the_older_one(self) -> None:
        first = self.ask(self.session_id)
        older, newer = self.close(self.session_id), self.close(self.session_id)
        for ended in (first.outcome, older):
            self.failureResultOf(ended, Superseded)
        self.asked.answer(PUBLISHES)
        self.successResultOf(newer)

    def test_a_client_that_goes_away_ends_nothing(self) -> None:
        self.leave(self.ask(self.session_id))
        self.assertFalse(self.asked.is_aborted)
        self.asked.answer(PUBLISHES)
        _, outcome = self.last(self.session_id)
        self.assertEqual(self.successResultOf(outcome), TOTAL)
        self.assertEqual(self.attempts, [1])

    def test_an_answer_that_nobody_waits_for_is_kept(self) -> None:
        self.leave(self.ask(self.session_id))
        self.asked.answer(Answer())
        self.restart()
        self.successResultOf(self.close(self.session_id))
        self.assertEqual((self.attempts, self.memory.files), ([1], {}))

    def test_a_fault_that_nobody_waits_for_is_logged(self) -> None:
        self.leave(self.ask(self.session_id))
        self.asked.fail(BackendError("reading failed"))
        self.assertEqual(len(self.flushLoggedErrors(BackendError)), 1)
        self.ask(self.session_id)

    def test_a_packet_that_fails_a_check_disturbs_nobody(self) -> None:
        first = self.ask(self.session_id)
        for outcome, kind in (
            (self.send(self.session_id, 0, b"abc", 99), TotalLengthChanged),
            (self.send(self.session_id, 0, b"abc", caller=BOB), NoSuchSession),
        ):
            self.failureResultOf(outcome, kind)
        self.assertNoResult(first.outcome)
        self.asked.answer(PUBLISHES)
        self.successResultOf(first.outcome)

    def test_other_sessions_go_on(self) -> None:
        self.ask(self.session_id)
        other = self.create(("other",))
        self.ask(other, destination=("other",))
        self.asked.answer(PUBLISHES)
        self.successResultOf(self.close(other, ("other",)))
        self.assertEqual(self.memory.files, {("other",): SOURCE})

    def test_a_fragment_that_waits_for_the_store_hands_the_waiting_on(self) -> None:
        # The application is not asked yet when the newer one comes.
        gate = self.backend.hold("close")
        first = self.last(self.session_id)
        second = self.last(self.session_id)
        gate.open()
        self.failureResultOf(first.outcome, Superseded)
        self.assertEqual(self.attempts, [1])
        self.asked.answer(PUBLISHES)
        self.successResultOf(second.outcome)


class EndingTests(NotifyingCase):
    """Who ends an asking waits for its end."""

    def setUp(self) -> None:
        super().setUp()
        self.session_id = self.create()
        self.fragment = self.ask(self.session_id)
        self.ends = self.application.hold_ends()

    def tearDown(self) -> None:
        # Whoever it was has ended the fragment as well, and its connection.
        self.failureResultOf(self.fragment.outcome, Superseded)

    def test_a_cancel_waits_until_it_is_over(self) -> None:
        self.backend.calls.clear()
        cancelling = self.cancel(self.session_id)
        self.assertTrue(self.asked.is_aborted)
        self.assertNoResult(cancelling)
        self.assertEqual(self.backend.calls, [])
        release = self.backend.hold("release")
        self.ends.open()
        self.assertNoResult(cancelling)
        release.open()
        self.successResultOf(cancelling)
        self.assertEqual(self.backend.calls, ["release"])
        self.assertEqual((self.sessions(), self.memory.files), (set(), {}))
        self.assert_unknown(self.session_id)

    def test_two_cancels_share_one_end(self) -> None:
        cancels = [self.cancel(self.session_id), self.cancel(self.session_id)]
        self.ends.open()
        for cancelling in cancels:
            self.successResultOf(cancelling)
        self.assertEqual(self.backend.calls.count("release"), 1)

    def test_a_cancel_ends_a_close_that_waits(self) -> None:
        closing = self.close(self.session_id)
        cancelling = self.cancel(self.session_id)
        self.failureResultOf(closing, Superseded)
        self.assertNoResult(cancelling)
        self.ends.open()
        self.successResultOf(cancelling)
        self.assertEqual((self.sessions(), self.memory.files), (set(), {}))

    def test_a_cancel_waits_for_a_writing_of_the_reply(self) -> None:
        self.ends.open()
        opening = self.backend.hold("open_reply")
        reply = self.asked.reply.open()
        cancelling = self.cancel(self.session_id)
        self.assertNoResult(cancelling)
        opening.open()
        self.successResultOf(cancelling)
        writer = self.successResultOf(reply)
        self.failureResultOf(writer.write(b"too late"), BackendError)
        self.assertEqual(self.sessions(), set())

    def test_a_reply_is_closed_when_its_last_write_is_over(self) -> None:
        self.ends.open()
        writer = self.successResultOf(self.asked.reply.open())
        writes, closes = self.backend.hold("write"), self.backend.hold("close")
        writing = writer.write(b"well done")
        cancelling = self.cancel(self.session_id)
        self.assertEqual((writes.waiting, closes.waiting), (1, 0))
        writes.open()
        self.successResultOf(writing)
        self.assertEqual(closes.waiting, 1)
        self.assertNoResult(cancelling)
        closes.open()
        self.successResultOf(cancelling)

    def test_a_reply_cannot_be_opened_afterwards(self) -> None:
        reply = self.asked.reply
        self.ends.open()
        self.successResultOf(self.cancel(self.session_id))
        self.failureResultOf(reply.open(), BackendError)
        self.assertNotIn("open_reply", self.backend.calls)

    def test_a_cancel_waits_for_an_answer_that_is_being_stored(self) -> None:
        gate = self.backend.hold("keep_answer")
        self.asked.answer(PUBLISHES)
        cancelling = self.cancel(self.session_id)
        self.assertNotIn("release", self.backend.calls)
        gate.open()
        self.successResultOf(cancelling)
        self.assertEqual((self.sessions(), self.memory.files), (set(), {}))

    def test_a_cancel_before_the_attempt_begins_asks_nobody(self) -> None:
        self.ends.open()
        self.successResultOf(self.cancel(self.session_id))
        gate = self.backend.hold("begin_attempt")
        session_id = self.create()
        fragment = self.last(session_id)
        cancelling = self.cancel(session_id)
        self.assertNoResult(cancelling)
        gate.open()
        self.successResultOf(cancelling)
        self.failureResultOf(fragment.outcome, Superseded)
        self.assertEqual((self.attempts, self.sessions()), ([1], set()))

    def test_a_cancel_ends_the_reading_back_of_a_digest(self) -> None:
        self.ends.open()
        session_id = self.create(("other",))
        self.successResultOf(
            self.send(session_id, 0, SOURCE[:4], destination=("other",))
        )
        self.restart()
        gate = self.backend.hold("read_into")
        fragment = self.last(session_id, destination=("other",))
        self.assertEqual(gate.waiting, 1)
        cancelling = self.cancel(session_id, ("other",))
        self.failureResultOf(fragment.outcome, Superseded)
        self.assertNoResult(cancelling)
        gate.open()
        self.successResultOf(cancelling)
        self.assertEqual((self.attempts, self.sessions()), ([1], {self.session_id}))

    def test_the_time_out_ends_it_too(self) -> None:
        self.clock.advance(15 * 86400)
        self.assertTrue(self.asked.is_aborted)
        self.assertEqual(self.sessions(), {self.session_id})
        self.ends.open()
        self.assertEqual((self.sessions(), self.memory.files), (set(), {}))

    def test_a_packet_after_the_time_ends_it_as_well(self) -> None:
        self.ends.open()
        self.restart(cleanup_interval=1e9)
        self.failureResultOf(self.fragment.outcome, Superseded)
        self.ends = self.application.hold_ends()
        self.fragment = self.ask(self.session_id)
        self.clock.advance(15 * 86400)
        late = self.last(self.session_id)
        self.assertTrue(self.asked.is_aborted)
        self.assertNoResult(late.outcome)
        self.ends.open()
        self.failureResultOf(late.outcome, NoSuchSession)
        self.assertEqual(self.sessions(), set())

    def test_the_end_of_the_server_waits_for_it(self) -> None:
        stopping = self.manager.stop()
        self.assertTrue(self.asked.is_aborted)
        self.failureResultOf(self.last(self.session_id).outcome, ServerStopping)
        self.assertNoResult(stopping)
        self.assertNotIn("stop", self.backend.calls)
        self.ends.open()
        self.successResultOf(stopping)
        self.manager = self.started()
        _, outcome = self.ask(self.session_id)
        self.assertEqual(self.attempts, [1, 2])
        self.asked.answer(PUBLISHES)
        self.successResultOf(outcome)

    def test_a_server_that_stops_asks_nobody_any_more(self) -> None:
        self.ends.open()
        self.successResultOf(self.cancel(self.session_id))
        session_id = self.create()
        gate = self.backend.hold("close")
        fragment = self.last(session_id)
        stopping = self.manager.stop()
        gate.open()
        self.failureResultOf(fragment.outcome)
        self.successResultOf(stopping)
        self.assertEqual(self.attempts, [1])

    def test_an_asking_without_clients_is_ended_as_well(self) -> None:
        again = self.begin(self.session_id, 0, TOTAL)
        again.body.lose()
        self.failureResultOf(again.outcome, BodyIncomplete)
        stopping = self.manager.stop()
        self.assertNoResult(stopping)
        self.ends.open()
        self.successResultOf(stopping)


@implementer(INotifier)
class _Deaf:
    """An application that answers although nobody wants to know any more."""

    needs: frozenset[type] = frozenset()

    def __init__(self) -> None:
        self.cancelled = 0

    def notify(self, upload: CompleteUpload, reply: IReply) -> Deferred[Answer]:
        def cancelled(answer: Deferred[Answer]) -> None:
            self.cancelled += 1
            answer.callback(PUBLISHES)

        return Deferred(cancelled)


@implementer(INotifier)
class _GivesUp:
    """An application that gives up by itself."""

    needs: frozenset[type] = frozenset()

    def __init__(self) -> None:
        self.answer: Deferred[Answer] = Deferred()

    def notify(self, upload: CompleteUpload, reply: IReply) -> Deferred[Answer]:
        return self.answer


@implementer(INotifier)
class _Ungrateful:
    """An application that has the session cancelled that it is asked about."""

    needs: frozenset[type] = frozenset()
    manager: SessionManager
    cancelling: Deferred[None]

    def notify(self, upload: CompleteUpload, reply: IReply) -> Deferred[Answer]:
        session_id = upload.session.session_id
        self.cancelling = self.manager.cancel(session_id, NAME, ALICE)
        return Deferred()


class OddNotifierTests(ManagerCase):
    """Notifiers that end in their own way."""

    def test_one_that_cancels_the_session_is_not_waited_for(self) -> None:
        self.notifier = application = _Ungrateful()
        application.manager = self.manager = self.started()
        outcome = self.send(self.create(), 0, SOURCE)
        self.failureResultOf(outcome, Superseded)
        self.successResultOf(application.cancelling)
        self.assertEqual(self.sessions(), set())

    def test_an_answer_in_the_last_moment_is_kept_when_the_server_stops(self) -> None:
        self.notifier = deaf = _Deaf()
        self.manager = self.started()
        session_id = self.create()
        outcome = self.send(session_id, 0, SOURCE)
        self.restart()
        self.failureResultOf(outcome, Superseded)
        self.assertEqual(deaf.cancelled, 1)
        self.successResultOf(self.close(session_id))
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_an_answer_in_the_last_moment_does_not_undo_a_cancel(self) -> None:
        self.notifier = _Deaf()
        self.manager = self.started()
        session_id = self.create()
        outcome = self.send(session_id, 0, SOURCE)
        self.successResultOf(self.cancel(session_id))
        self.failureResultOf(outcome, Superseded)
        self.assertEqual((self.sessions(), self.memory.files), (set(), {}))

    def test_one_that_gives_up_is_an_application_that_failed(self) -> None:
        self.notifier = application = _GivesUp()
        self.manager = self.started()
        session_id = self.create()
        outcome = self.send(session_id, 0, SOURCE)
        application.answer.errback(CancelledError())
        self.assertEqual(self.failureResultOf(outcome).value.status, 500)
        self.assertEqual(self.sessions(), {session_id})


@implementer(IShared)
class SharedBackend(RecordingBackend):
    """A memory that two managers share; sessions are found anew for each packet."""


class SharedTests(NotifyingCase):
    """Two processes over one store."""

    def setUp(self) -> None:
        super().setUp()
        self.backend = SharedBackend(self.memory)
        self.here, self.there = self.started(), self.started()
        self.manager = self.here

    def on(self, manager: object) -> None:
        self.manager = manager  # type: ignore[assignment]

    def test_once_there_is_an_answer_nobody_asks_again(self) -> None:
        session_id = self.answered(PUBLISHES)
        self.on(self.there)
        self.successResultOf(self.last(session_id).outcome)
        self.successResultOf(self.close(session_id))
        self.assertEqual((self.attempts, self.memory.files), ([1], {NAME: SOURCE}))

    def test_two_that_ask_at_once_have_different_numbers(self) -> None:
        session_id = self.create()
        here = self.ask(session_id)
        self.on(self.there)
        there = self.ask(session_id)
        self.assertEqual(self.attempts, [1, 2])
        for one in self.application.asked:
            one.answer(PUBLISHES)
        for underway in (here, there):
            self.successResultOf(underway.outcome)

    def test_packets_of_one_process_join(self) -> None:
        session_id = self.create()
        first, second = self.ask(session_id), self.last(session_id)
        self.assertEqual(self.attempts, [1])
        self.failureResultOf(first.outcome, Superseded)
        self.asked.answer(PUBLISHES)
        self.successResultOf(second.outcome)

    def test_an_asking_without_clients_is_joined_too(self) -> None:
        session_id = self.create()
        self.leave(self.ask(session_id))
        again = self.last(session_id)
        self.assertEqual(self.attempts, [1])
        self.asked.answer(PUBLISHES)
        self.successResultOf(again.outcome)

    def test_an_upload_cancelled_elsewhere_leaves_nothing(self) -> None:
        session_id = self.create()
        here = self.ask(session_id)
        self.on(self.there)
        self.successResultOf(self.cancel(session_id))
        self.write_reply_too_late()
        self.application.asked[0].answer(PUBLISHES)
        self.failureResultOf(here.outcome, NoSuchSession)
        self.assertEqual((self.sessions(), self.memory.files), (set(), {}))
        self.on(self.here)
        self.failureResultOf(self.close(session_id), NoSuchSession)

    def write_reply_too_late(self) -> None:
        self.failureResultOf(self.asked.reply.open(), BackendError)

    def test_the_digest_is_known_although_sessions_are_forgotten(self) -> None:
        session_id = self.create()
        self.upload(session_id, 0, 4)
        self.ask(session_id)
        self.assertIsNotNone(self.here._active.digests.known(session_id, TOTAL))
        self.asked.answer(PUBLISHES)
        self.successResultOf(self.close(session_id))
        self.assertIsNone(self.here._active.digests.known(session_id, TOTAL))
