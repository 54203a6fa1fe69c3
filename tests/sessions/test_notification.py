"""
A server application is asked about a complete upload: what it is told, what its answers
lead to, and what is remembered of them.

How packets, Cancel and the end of the server meet an asking that goes on is in
``test_asking``; replies are in ``test_replies``.
"""

from __future__ import annotations

import hashlib
from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from tests.sessions.support import (
    ALICE,
    NAME,
    SOURCE,
    TOTAL,
    URL,
    ManagerCase,
    NotifyingCase,
    RecordingBackend,
    ScriptedBody,
)
from txbits.errors import (
    ApplicationRefused,
    ApplicationTimedOut,
    ApplicationUnreachable,
    BackendError,
    BadAnswer,
    DestinationExists,
    InvalidSetting,
    NoSuchSession,
)
from txbits.interfaces import (
    Answer,
    CompleteUpload,
    IAddressable,
    IAnswerable,
    INotifier,
    IReadable,
    IReply,
)
from txbits.protocol.codec import ContentRange
from txbits.sessions import Received, SessionManager, Settings
from txbits.testing import HoldableNotifier

#: What an application answers that wants its upload published.
PUBLISHES = Answer(publishes=True)


class AskingTests(NotifyingCase):
    """What an application is told, and when."""

    def test_it_is_asked_before_the_last_ack(self) -> None:
        session_id = self.create()
        self.upload(session_id, 0, 4)
        self.assertEqual(self.application.asked, [])
        _, outcome = self.ask(session_id)
        self.assertNoResult(outcome)
        self.asked.answer(PUBLISHES)
        self.assertEqual(self.successResultOf(outcome), TOTAL)

    def test_it_is_told_of_the_upload(self) -> None:
        session_id = self.create()
        self.ask(session_id)
        upload = self.asked.upload
        self.assertEqual(upload.session.session_id, session_id)
        self.assertEqual(upload.request_url, URL)
        self.assertEqual(upload.attempt, 1)
        self.assertEqual(upload.sha256, hashlib.sha256(SOURCE).digest())

    def test_its_answer_is_stored_before_the_ack(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("keep_answer")
        _, outcome = self.ask(session_id)
        self.asked.answer(PUBLISHES)
        self.assertEqual(gate.waiting, 1)
        self.assertNoResult(outcome)
        gate.open()
        self.successResultOf(outcome)

    def test_the_attempt_is_stored_before_it_begins(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("begin_attempt")
        _, outcome = self.last(session_id)
        self.assertEqual(self.application.asked, [])
        gate.open()
        self.assertEqual(self.attempts, [1])
        self.asked.answer(PUBLISHES)
        self.successResultOf(outcome)

    def test_a_fragment_that_is_refused_asks_nobody(self) -> None:
        session_id = self.create()
        body, outcome = self.begin(session_id, 0, TOTAL)
        body.send(SOURCE, b"and more")
        body.end()
        self.failureResultOf(outcome)
        self.assertEqual(self.application.asked, [])
        # All of it is held; the next one asks.
        self.ask(session_id)

    def test_a_fragment_cut_short_at_the_very_end_asks_nobody(self) -> None:
        session_id = self.create()
        body, outcome = self.begin(session_id, 0, TOTAL)
        body.send(SOURCE)
        body.lose()
        self.failureResultOf(outcome)
        self.assertEqual(self.application.asked, [])
        self.ask(session_id)

    def test_an_empty_file_is_asked_about_at_its_fragment(self) -> None:
        session_id = self.create()
        body = ScriptedBody()
        body.end()
        received = self.manager.fragment(
            session_id, NAME, ALICE, ContentRange.empty(), body, URL
        )
        self.assertNoResult(received)
        self.assertEqual(self.asked.upload.sha256, hashlib.sha256(b"").digest())
        self.asked.answer(PUBLISHES)
        self.assertEqual(self.successResultOf(received), Received(0))
        self.successResultOf(self.close(session_id))
        self.assertEqual(self.memory.files, {NAME: b""})

    def test_an_empty_file_without_a_fragment_is_asked_about_at_close(self) -> None:
        session_id = self.create()
        closing = self.manager.close(session_id, NAME, ALICE, URL)
        self.assertNoResult(closing)
        self.assertEqual(self.asked.upload.request_url, URL)
        self.assertEqual(self.asked.upload.sha256, hashlib.sha256(b"").digest())
        self.asked.answer(PUBLISHES)
        self.successResultOf(closing)
        self.assertEqual(self.memory.files, {NAME: b""})
        self.assertEqual(self.sessions(), set())

    def test_a_complete_upload_without_an_answer_is_asked_about_at_close(self) -> None:
        session_id = self.create()
        _, outcome = self.ask(session_id)
        self.asked.fail(ApplicationUnreachable("connection refused"))
        self.failureResultOf(outcome, ApplicationUnreachable)
        closing = self.close(session_id)
        self.assertNoResult(closing)
        self.assertEqual(self.memory.files, {})
        self.asked.answer(PUBLISHES)
        self.successResultOf(closing)
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_half_a_file_is_discarded_without_asking(self) -> None:
        session_id = self.create()
        self.upload(session_id, 0, 4)
        self.successResultOf(self.close(session_id))
        self.assertEqual((self.application.asked, self.sessions()), ([], set()))

    def test_without_an_application_nobody_is_asked(self) -> None:
        self.notifier = None
        self.restart()
        session_id = self.complete()
        self.successResultOf(self.close(session_id))
        self.assertEqual(self.memory.files, {NAME: SOURCE})
        self.assertNotIn("begin_attempt", self.backend.calls)


class AnswerTests(NotifyingCase):
    """What an answer leads to."""

    def test_an_upload_that_is_to_be_published_is_at_close(self) -> None:
        session_id = self.answered(PUBLISHES)
        self.assertEqual(self.memory.files, {})
        self.successResultOf(self.close(session_id))
        self.assertEqual(self.memory.files, {NAME: SOURCE})
        self.assertEqual(self.sessions(), set())

    def test_an_upload_that_was_taken_is_released_at_close(self) -> None:
        session_id = self.answered(Answer())
        for _ in range(2):
            self.successResultOf(self.close(session_id))
            self.assertEqual((self.memory.files, self.sessions()), ({}, set()))

    def test_a_close_whose_release_fails_is_finished_by_the_next(self) -> None:
        session_id = self.answered(Answer())
        gate = self.backend.hold("release")
        gate.fail(BackendError("not now"))
        self.failureResultOf(self.close(session_id), BackendError)
        gate.open()
        self.successResultOf(self.close(session_id))
        self.assertEqual((self.memory.files, self.sessions()), ({}, set()))

    def test_success_is_not_asked_about_again(self) -> None:
        for answer in (PUBLISHES, Answer(status=204)):
            session_id = self.answered(answer)
            before = len(self.application.asked)
            for _ in range(2):
                _, outcome = self.last(session_id)
                self.assertEqual(self.successResultOf(outcome), TOTAL)
            self.successResultOf(self.close(session_id))
            self.assertEqual(len(self.application.asked), before)
            self.memory.files.clear()

    def test_403_is_not_asked_about_again(self) -> None:
        for failed in (True, False):
            session_id = self.create()
            _, outcome = self.ask(session_id)
            if failed:
                self.asked.fail(ApplicationRefused("not this one", 403))
            else:
                self.asked.answer(Answer(status=403, publishes=True))
            before = len(self.application.asked)
            self.assert_refused(outcome)
            for has_restarted in (False, True):
                if has_restarted:
                    self.restart()
                body, outcome = self.begin(session_id, 0, TOTAL)
                self.assert_refused(outcome)
                self.assertFalse(body.is_received)
                self.assert_refused(self.close(session_id))
            self.assertEqual(len(self.application.asked), before)
            self.assertEqual(self.memory.files, {})
            self.successResultOf(self.cancel(session_id))
            self.assertEqual(self.sessions(), set())

    def assert_refused(self, outcome: Deferred[Any]) -> None:
        error = self.failureResultOf(outcome, ApplicationRefused).value
        self.assertEqual(error.status, 403)

    def test_an_empty_file_that_is_refused_is_not_published_at_close(self) -> None:
        session_id = self.create()
        closing = self.close(session_id)
        self.asked.fail(ApplicationRefused("not this one", 403))
        self.assert_refused(closing)
        self.assert_refused(self.close(session_id))
        self.assertEqual(self.memory.files, {})

    def test_any_other_failure_is_asked_about_again(self) -> None:
        session_id = self.create()
        errors = [
            ApplicationRefused("not now", 503),
            ApplicationRefused("not found", 404),
            ApplicationUnreachable("connection refused"),
            ApplicationTimedOut("no answer"),
            BadAnswer("no URL"),
        ]
        for number, error in enumerate(errors, 1):
            _, outcome = self.ask(session_id)
            self.assertEqual(self.attempts, list(range(1, number + 1)))
            self.asked.fail(error)
            self.assertIs(self.failureResultOf(outcome).value, error)
            if number == 3:
                self.restart()
        _, outcome = self.ask(session_id)
        self.assertEqual(self.asked.upload.attempt, len(errors) + 1)
        self.asked.answer(PUBLISHES)
        self.successResultOf(outcome)

    def test_a_notifier_that_is_broken_is_an_application_that_failed(self) -> None:
        session_id = self.create()
        _, outcome = self.ask(session_id)
        self.asked.fail(ZeroDivisionError("oops"))
        error = self.failureResultOf(outcome, ApplicationRefused).value
        self.assertEqual(error.status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.ask(session_id)

    def test_an_answer_that_cannot_be_kept_is_asked_for_again(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("keep_answer")
        gate.fail(BackendError("not now"))
        _, outcome = self.ask(session_id)
        self.asked.answer(PUBLISHES)
        self.failureResultOf(outcome, BackendError)
        gate.open()
        _, outcome = self.ask(session_id)
        self.assertEqual(self.attempts, [1, 2])
        self.asked.answer(PUBLISHES)
        self.successResultOf(outcome)

    def test_an_answer_that_is_none_is_not_kept(self) -> None:
        session_id = self.create()
        for answer in (
            Answer(status=500),
            Answer(status=302),
            Answer(reply_url="/relative"),
            Answer(reply_url="ftp://example.org/x"),
            Answer(reply_url="https://example.org/" + 2200 * "x"),
            Answer(reply_url="https://example.org/a b"),
            Answer(reply_url="https://example.org/\r\nX-Evil: 1"),
            Answer(reply_url="https://example.org/caf\xe9"),
        ):
            _, outcome = self.ask(session_id)
            self.asked.answer(answer)
            self.failureResultOf(outcome, BadAnswer)
        self.assertNotIn("keep_answer", self.backend.calls)

    def test_the_longest_url_is_handed_on(self) -> None:
        url = "https://example.org/".ljust(2200, "x")
        session_id = self.answered(Answer(reply_url=url))
        self.assertEqual(self.received(session_id), Received(TOTAL, False, url))

    def received(self, session_id: Any) -> Received:
        """What the Ack of the last fragment says."""
        body = ScriptedBody()
        body.send(SOURCE)
        body.end()
        sent = ContentRange(0, TOTAL - 1, TOTAL)
        return self.successResultOf(
            self.manager.fragment(session_id, NAME, ALICE, sent, body)
        )

    def test_only_the_last_fragment_is_told_of_a_reply(self) -> None:
        session_id = self.create()
        self.upload(session_id, 0, 4)
        _, outcome = self.ask(session_id)
        self.write_reply(b"well done")
        self.asked.answer(Answer())
        self.successResultOf(outcome)
        self.assertEqual(self.received(session_id), Received(TOTAL, True, None))

    def test_a_url_stands_in_place_of_a_reply(self) -> None:
        url = "https://example.org/reply"
        session_id = self.create()
        _, outcome = self.ask(session_id)
        self.write_reply(b"well done")
        self.asked.answer(Answer(reply_url=url))
        self.successResultOf(outcome)
        self.assertEqual(self.received(session_id), Received(TOTAL, False, url))

    def test_publishing_that_fails_is_tried_again_without_asking(self) -> None:
        session_id = self.answered(PUBLISHES)
        self.memory.files[NAME] = b"somebody else's"
        self.failureResultOf(self.close(session_id), DestinationExists)
        del self.memory.files[NAME]
        self.successResultOf(self.close(session_id))
        self.assertEqual((len(self.application.asked), self.sessions()), (1, set()))


class RestartTests(NotifyingCase):
    """A server that was killed, or stopped, and begins again."""

    def kill(self) -> None:
        """Go on with a new manager; the old one is not told."""
        self.manager = self.started()

    def test_one_killed_while_the_application_works_asks_again(self) -> None:
        session_id = self.create()
        self.ask(session_id)
        self.kill()
        _, outcome = self.ask(session_id)
        self.assertEqual(self.attempts, [1, 2])
        self.asked.answer(PUBLISHES)
        self.successResultOf(outcome)
        self.successResultOf(self.close(session_id))
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_one_killed_after_the_answer_does_not(self) -> None:
        for answer, files in ((PUBLISHES, {NAME: SOURCE}), (Answer(), {})):
            session_id = self.answered(answer)
            before = len(self.application.asked)
            self.kill()
            self.successResultOf(self.last(session_id).outcome)
            self.kill()
            self.successResultOf(self.close(session_id))
            self.assertEqual(len(self.application.asked), before)
            self.assertEqual(self.memory.files, files)
            self.memory.files.clear()

    def test_what_was_answered_counts_without_an_application_too(self) -> None:
        session_id = self.answered(Answer())
        self.notifier = None
        self.kill()
        self.successResultOf(self.close(session_id))
        self.assertEqual((self.memory.files, self.sessions()), ({}, set()))

    def test_the_digest_is_read_back(self) -> None:
        session_id = self.create()
        self.upload(session_id, 0, 4)
        self.kill()
        underway = self.begin(session_id, 4, TOTAL - 4)
        underway.body.send(SOURCE[4:])
        underway.body.end()
        self.assertEqual(self.asked.upload.sha256, hashlib.sha256(SOURCE).digest())

    def test_a_close_asks_where_nobody_had_answered(self) -> None:
        session_id = self.create()
        self.ask(session_id)
        self.kill()
        closing = self.close(session_id)
        self.assertEqual(self.attempts, [1, 2])
        self.asked.answer(PUBLISHES)
        self.successResultOf(closing)
        self.assertEqual(self.memory.files, {NAME: SOURCE})


@implementer(INotifier)
class _Instant:
    """An in-process application that has answered when it returns."""

    needs = frozenset({IReadable})

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def notify(self, upload: CompleteUpload, reply: IReply) -> Deferred[Answer]:
        self.seen.append(upload.sha256)
        return succeed(PUBLISHES)


@implementer(INotifier)
class _Raising:
    """An application that is a mistake."""

    needs: frozenset[Any] = frozenset()

    def notify(self, upload: CompleteUpload, reply: IReply) -> Deferred[Answer]:
        raise NoSuchSession("it does not know better")


class InProcessTests(ManagerCase):
    """Applications that are a few lines of Python."""

    def test_one_that_answers_at_once(self) -> None:
        self.notifier = application = _Instant()
        self.manager = self.started()
        session_id = self.complete()
        self.assertEqual(application.seen, [hashlib.sha256(SOURCE).digest()])
        self.successResultOf(self.close(session_id))
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_one_that_raises_cannot_end_the_session(self) -> None:
        self.notifier = _Raising()
        self.manager = self.started()
        session_id = self.create()
        error = self.failureResultOf(self.send(session_id, 0, SOURCE)).value
        self.assertNotIsInstance(error, NoSuchSession)
        self.assertEqual(self.sessions(), {session_id})


class _Poor(RecordingBackend):
    """A backend with sessions that can do less than they could."""

    def __init__(self, backend: Any, *abilities: Any) -> None:
        super().__init__(backend)
        self.session_abilities = frozenset(abilities)


class AssemblyTests(ManagerCase):
    """A notifier that the backend is not enough for is refused at once."""

    def refusal(self, *abilities: Any, needs: Any = ()) -> str:
        notifier = HoldableNotifier(needs=frozenset(needs))
        error = self.assertRaises(
            InvalidSetting,
            SessionManager,
            _Poor(self.memory, *abilities),
            Settings(),
            self.clock,
            notifier=notifier,
        )
        self.assertEqual(str(error).splitlines(), [str(error)])
        return str(error)

    def test_answers_have_to_be_kept(self) -> None:
        self.assertIn("IAnswerable", self.refusal(IReadable))

    def test_digests_have_to_be_computed(self) -> None:
        self.assertIn("IReadable", self.refusal(IAnswerable))

    def test_what_the_notifier_needs_has_to_be_there(self) -> None:
        refusal = self.refusal(IAnswerable, IReadable, needs=[IAddressable])
        self.assertIn("IAddressable", refusal)
        self.assertNotIn("IReadable", refusal)

    def test_a_backend_that_has_no_abilities_is_refused(self) -> None:
        self.assertIn("IAnswerable, IReadable", self.refusal())

    def test_a_backend_that_has_all_is_taken(self) -> None:
        notifier = HoldableNotifier(needs=frozenset({IReadable}))
        SessionManager(self.memory, Settings(), self.clock, notifier=notifier)
