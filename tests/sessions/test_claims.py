"""
Permissions that are good for one upload: the claim that sessions take before they are
published.
"""

from __future__ import annotations

from uuid import UUID

from twisted.internet.defer import Deferred, fail
from twisted.logger import capturedLogs, formatEvent
from zope.interface import directlyProvidedBy, directlyProvides

from tests.sessions.support import (
    NAME,
    SOURCE,
    TOTAL,
    ManagerCase,
    NotifyingCase,
    RecordingBackend,
)
from txbits._deferreds import deferred
from txbits.errors import (
    AccessDenied,
    ApplicationRefused,
    BackendError,
    DestinationExists,
    NoSuchSession,
    UploadTooLarge,
)
from txbits.interfaces import Answer, Grant, IClaimable
from txbits.sessions import Caller

ONCE = Grant(overwrite=False, claim="link/1", claim_until=1e10)
GUEST = Caller("link/anna", "192.0.2.7", ONCE)
OTHER = ("logs", "other.log")


class OnceCase(ManagerCase):
    """Whoever has the link."""

    def taken(self) -> UUID | None:
        """The session that has the claim."""
        holder, _ = self.memory._claims.get("link/1", (None, 0.0))
        return holder

    def denied(self, outcome: Deferred[object]) -> None:
        self.failureResultOf(outcome, AccessDenied)


class StubbornBackend(RecordingBackend):
    """Gives no claim back."""

    @deferred
    async def claim(self, name, session_id, until):
        await super().claim(name, session_id, until)
        return self

    def withdraw(self):
        return fail(BackendError("no answer"))


class PublishingTests(OnceCase):
    """One of several sessions is published."""

    def test_the_first_close_wins(self):
        one = self.complete(caller=GUEST)
        other = self.complete(caller=GUEST, destination=OTHER)
        self.successResultOf(self.close(one, caller=GUEST))
        self.denied(self.close(other, OTHER, GUEST))
        self.assertEqual(set(self.memory.files), {NAME})
        self.assertEqual(self.taken(), one)

    def test_the_close_can_be_repeated(self):
        one = self.complete(caller=GUEST)
        for _ in range(3):
            self.successResultOf(self.close(one, caller=GUEST))
        self.restart()
        self.successResultOf(self.close(one, caller=GUEST))

    def test_nothing_is_begun_when_it_is_used_up(self):
        self.successResultOf(self.close(self.complete(caller=GUEST), caller=GUEST))
        self.denied(self.manager.create(OTHER, GUEST, None))
        self.assertEqual(self.sessions(), set())

    def test_others_need_no_claim(self):
        self.successResultOf(self.close(self.complete(caller=GUEST), caller=GUEST))
        self.successResultOf(self.close(self.complete(destination=OTHER), OTHER))
        self.assertEqual(len(self.memory.files), 2)

    def test_uploads_that_are_cancelled_or_too_long_use_nothing_up(self):
        self.successResultOf(self.cancel(self.complete(caller=GUEST), caller=GUEST))
        short = Caller("link/anna", "", Grant(False, TOTAL - 1, "link/1", 1e10))
        session_id = self.create(caller=short)
        outcome = self.send(session_id, 0, SOURCE, caller=short)
        self.failureResultOf(outcome, UploadTooLarge)
        self.assertIsNone(self.taken())

    def test_two_closes_at_once(self):
        one = self.complete(caller=GUEST)
        other = self.complete(caller=GUEST, destination=OTHER)
        gate = self.backend.hold("claim")
        outcomes = [
            self.close(one, caller=GUEST),
            self.close(other, OTHER, caller=GUEST),
        ]
        gate.open()
        self.successResultOf(outcomes[0])
        self.denied(outcomes[1])
        self.assertEqual(len(self.memory.files), 1)

    def test_where_files_appear_at_the_last_fragment(self):
        self.restart(publish_on="last-fragment")
        one = self.complete(caller=GUEST)
        self.assertEqual(self.taken(), one)
        self.denied(self.manager.create(OTHER, GUEST, None))
        self.successResultOf(self.close(one, caller=GUEST))

    def test_the_session_that_is_refused_stands_until_its_time_is_out(self):
        one = self.complete(caller=GUEST)
        other = self.complete(caller=GUEST, destination=OTHER)
        self.successResultOf(self.close(one, caller=GUEST))
        self.denied(self.close(other, OTHER, GUEST))
        self.assertEqual(self.sessions(), {other})
        self.clock.advance(self.manager.settings.session_timeout + 1)
        self.successResultOf(self.manager._upkeep.clean_up())
        self.assertEqual(self.sessions(), set())
        self.assertEqual(self.taken(), one)


class FailureTests(OnceCase):
    """A publication fails."""

    def test_a_claim_is_given_back_if_certainly_nothing_appeared(self):
        one = self.complete(caller=GUEST)
        self.memory.files[NAME] = b"another"
        self.failureResultOf(self.close(one, caller=GUEST), DestinationExists)
        self.assertIsNone(self.taken())
        other = self.complete(caller=GUEST, destination=OTHER)
        self.successResultOf(self.close(other, OTHER, GUEST))
        del self.memory.files[NAME]
        self.denied(self.close(one, caller=GUEST))

    def test_a_claim_is_kept_if_the_file_may_have_appeared(self):
        one = self.complete(caller=GUEST)
        other = self.complete(caller=GUEST, destination=OTHER)
        gate = self.backend.hold("publish")
        outcome = self.close(one, caller=GUEST)
        gate.fail(BackendError("nobody knows"))
        self.failureResultOf(outcome, BackendError)
        self.denied(self.close(other, OTHER, GUEST))
        gate.open()
        self.restart()
        self.successResultOf(self.close(one, caller=GUEST))
        self.assertEqual(set(self.memory.files), {NAME})

    def test_without_a_claim_nothing_is_published(self):
        one = self.complete(caller=GUEST)
        gate = self.backend.hold("claim")
        outcome = self.close(one, caller=GUEST)
        gate.fail(BackendError("no answer"))
        self.failureResultOf(outcome, BackendError)
        self.assertEqual(len(self.memory.files), 0)
        gate.open()
        self.successResultOf(self.close(one, caller=GUEST))

    def test_a_claim_that_cannot_be_given_back_is_kept(self):
        self.backend = StubbornBackend(self.memory)
        self.manager = self.started()
        one = self.complete(caller=GUEST)
        self.memory.files[NAME] = b"another"
        failures = []
        lines = self.troubles(
            lambda: self.close(one, caller=GUEST).addErrback(failures.append)
        )
        self.assertIsInstance(failures[0].value, DestinationExists)
        self.assertIn("no answer", "".join(lines))
        self.assertEqual(self.taken(), one)


class LackingTests(OnceCase):
    """A backend without claims."""

    def test_it_is_refused_at_once_and_the_operator_is_told(self):
        directlyProvides(self.backend, directlyProvidedBy(self.backend) - IClaimable)
        with capturedLogs() as events:
            self.denied(self.manager.create(NAME, GUEST, None))
        (line,) = [
            formatEvent(one) for one in events if one["log_level"].name == "error"
        ]
        self.assertIn("IClaimable", line)
        self.create()


class AskingTests(NotifyingCase, OnceCase):
    """A server application is asked about each upload."""

    def test_only_one_upload_is_handed_to_it(self):
        one = self.answered(Answer(publishes=False), caller=GUEST)
        self.assertEqual(self.taken(), one)
        self.denied(self.manager.create(OTHER, GUEST, None))
        self.successResultOf(self.close(one, caller=GUEST))
        self.assertEqual(len(self.application.asked), 1)

    def test_the_second_upload_is_refused_before_it_is_asked(self):
        one = self.create(caller=GUEST)
        other = self.create(OTHER, GUEST)
        first = self.ask(one, caller=GUEST)
        second = self.last(other, caller=GUEST, destination=OTHER)
        self.denied(second.outcome)
        self.asked.answer(Answer(publishes=True))
        self.successResultOf(first.outcome)
        self.successResultOf(self.close(one, caller=GUEST))
        self.assertEqual(len(self.application.asked), 1)

    def test_who_reads_a_reply_meanwhile_changes_nothing(self):
        self.restart(allow_overwrites=True, publish_on="last-fragment")
        session_id = self.create(caller=GUEST)
        self.memory.files[NAME] = b"another"
        underway = self.ask(session_id, caller=GUEST)
        # That somebody may read a reply says nothing about what they may upload.
        reader = Caller(GUEST.identity, GUEST.address)
        self.successResultOf(self._destination(session_id, reader))
        self.asked.answer(Answer(publishes=True))
        self.failureResultOf(underway.outcome, DestinationExists)
        self.assertIsNone(self.taken())

    def _destination(self, session_id, caller):
        return Deferred.fromCoroutine(self.manager.destination_of(session_id, caller))

    def test_an_upload_that_it_refuses_uses_nothing_up(self):
        one = self.create(caller=GUEST)
        underway = self.ask(one, caller=GUEST)
        self.asked.fail(ApplicationRefused("no", 403))
        self.failureResultOf(underway.outcome, ApplicationRefused)
        self.assertIsNone(self.taken())

    def test_an_upload_that_it_did_not_answer_about_keeps_the_claim(self):
        one = self.create(caller=GUEST)
        underway = self.ask(one, caller=GUEST)
        self.asked.fail(ApplicationRefused("broken", 500))
        self.failureResultOf(underway.outcome, ApplicationRefused)
        self.assertEqual(self.taken(), one)
        self.failureResultOf(self.close(UUID(int=9), caller=GUEST), NoSuchSession)
