"""
The chain whose end allows the Ack of a Cancel: nothing is left when it fires.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.sessions.support import NAME, SOURCE, TOTAL, UNKNOWN, ManagerCase
from txbits.errors import BackendError, NoSuchSession, Superseded
from txbits.interfaces import IReleasable
from txbits.sessions._endings import release_in_order


class CancelTests(ManagerCase):
    """What a Cancel does."""

    def test_everything_is_released_at_every_stage(self) -> None:
        for last in (None, 4, TOTAL):
            for has_restarted in (False, True):
                session_id = self.create()
                if last is not None:
                    self.upload(session_id, 0, last)
                if has_restarted:
                    self.restart()
                self.successResultOf(self.cancel(session_id))
                self.assertEqual((self.memory.files, self.sessions()), ({}, set()))
                self.assert_unknown(session_id)

    def test_the_ack_waits_for_release(self) -> None:
        session_id = self.complete()
        gate = self.backend.hold("release")
        cancelling = self.cancel(session_id)
        self.assertNoResult(cancelling)
        self.assertEqual((gate.waiting, self.sessions()), (1, {session_id}))
        gate.open()
        self.successResultOf(cancelling)
        self.assertEqual(self.sessions(), set())

    def test_an_unknown_session_is_unknown(self) -> None:
        self.failureResultOf(self.cancel(UNKNOWN), NoSuchSession)

    def test_a_second_one_afterwards_is_of_an_unknown_session(self) -> None:
        session_id = self.create()
        self.successResultOf(self.cancel(session_id))
        self.failureResultOf(self.cancel(session_id), NoSuchSession)
        self.restart()
        self.failureResultOf(self.cancel(session_id), NoSuchSession)

    def test_close_afterwards_is_of_an_unknown_session(self) -> None:
        session_id = self.complete()
        self.successResultOf(self.cancel(session_id))
        self.failureResultOf(self.close(session_id), NoSuchSession)
        self.assertEqual(self.memory.files, {})

    def test_two_share_one_release_and_both_wait(self) -> None:
        session_id = self.complete()
        gate = self.backend.hold("release")
        cancels = [self.cancel(session_id), self.cancel(session_id)]
        self.assertEqual((self.backend.calls.count("release"), gate.waiting), (1, 1))
        for cancelling in cancels:
            self.assertNoResult(cancelling)
        gate.open()
        for cancelling in cancels:
            self.successResultOf(cancelling)
        self.assertEqual(self.backend.calls.count("release"), 1)

    def test_two_against_a_stalled_fragment_share_one_release(self) -> None:
        session_id = self.create()
        _, outcome = self.stall(session_id)
        gate = self.backend.hold("close")
        cancels = [self.cancel(session_id), self.cancel(session_id)]
        for cancelling in cancels:
            self.assertNoResult(cancelling)
        gate.open()
        self.failureResultOf(outcome, Superseded)
        for cancelling in cancels:
            self.successResultOf(cancelling)
        self.assertEqual(self.backend.calls.count("release"), 1)

    def test_two_share_a_failure(self) -> None:
        session_id = self.complete()
        gate = self.backend.hold("release")
        cancels = [self.cancel(session_id), self.cancel(session_id)]
        gate.fail(BackendError("not now"))
        for cancelling in cancels:
            self.failureResultOf(cancelling, BackendError)
        gate.open()
        self.successResultOf(self.cancel(session_id))


class FailingReleaseTests(ManagerCase):
    """A release that fails is never a success, and never forgotten."""

    def setUp(self) -> None:
        super().setUp()
        self.session_id = self.complete()
        self.gate = self.backend.hold("release")
        self.gate.fail(BackendError("not now"))

    def test_it_is_a_storage_fault(self) -> None:
        error = self.failureResultOf(self.cancel(self.session_id), BackendError).value
        self.assertNotIsInstance(error, NoSuchSession)
        self.assertEqual(self.sessions(), {self.session_id})

    def test_the_session_is_unknown_to_all_but_cancel(self) -> None:
        self.failureResultOf(self.cancel(self.session_id), BackendError)
        for has_restarted in (False, True):
            if has_restarted:
                self.restart()
                self.flushLoggedErrors(BackendError)
            body, outcome = self.begin(self.session_id, 5, 5)
            self.failureResultOf(outcome, NoSuchSession)
            self.assertFalse(body.is_received)
            self.failureResultOf(self.close(self.session_id), NoSuchSession)
            error = self.failureResultOf(
                self.cancel(self.session_id), BackendError
            ).value
            self.assertNotIsInstance(error, NoSuchSession)
        self.assertEqual(self.memory.files, {})

    def test_the_next_cancel_finishes_it(self) -> None:
        self.failureResultOf(self.cancel(self.session_id), BackendError)
        self.gate.open()
        self.successResultOf(self.cancel(self.session_id))
        self.assertEqual(self.sessions(), set())
        self.assert_unknown(self.session_id)

    def test_the_next_cancel_finishes_it_after_a_restart(self) -> None:
        self.failureResultOf(self.cancel(self.session_id), BackendError)
        self.restart()
        self.flushLoggedErrors(BackendError)
        self.gate.open()
        self.successResultOf(self.cancel(self.session_id))
        self.assertEqual(self.sessions(), set())

    def test_a_file_that_appears_meanwhile_is_not_this_ones(self) -> None:
        self.failureResultOf(self.cancel(self.session_id), BackendError)
        self.memory.files[NAME] = b"theirs"
        self.gate.open()
        self.successResultOf(self.cancel(self.session_id))
        self.assertEqual(self.memory.files, {NAME: b"theirs"})


class CancelAndCloseTests(ManagerCase):
    """Cancel and Close at once: the file stands, or it does not."""

    def setUp(self) -> None:
        super().setUp()
        self.session_id = self.complete()

    def test_cancel_waits_for_a_close_that_is_publishing(self) -> None:
        gate = self.backend.hold("publish")
        closing, cancelling = self.close(self.session_id), self.cancel(self.session_id)
        self.assertNoResult(cancelling)
        self.assertNotIn("release", self.backend.calls)
        gate.open()
        self.successResultOf(closing)
        self.failureResultOf(cancelling, NoSuchSession)
        self.assertEqual(self.memory.files, {NAME: SOURCE})
        self.assertEqual(self.sessions(), set())

    def test_cancel_releases_when_publishing_has_failed(self) -> None:
        gate = self.backend.hold("publish")
        closing, cancelling = self.close(self.session_id), self.cancel(self.session_id)
        gate.fail(BackendError("not now"))
        self.failureResultOf(closing, BackendError)
        self.successResultOf(cancelling)
        self.assertEqual((self.memory.files, self.sessions()), ({}, set()))

    def test_cancel_waits_for_a_close_that_is_releasing(self) -> None:
        gate = self.backend.hold("release")
        closing = self.close(self.session_id)
        cancels = [self.cancel(self.session_id) for _ in range(2)]
        for cancelling in cancels:
            self.assertNoResult(cancelling)
        gate.open()
        self.successResultOf(closing)
        for cancelling in cancels:
            self.failureResultOf(cancelling, NoSuchSession)

    def test_cancel_finishes_what_a_close_could_not_release(self) -> None:
        """The file stands, so it is of an unknown session all the same."""
        gate = self.backend.hold("release")
        closing, cancelling = self.close(self.session_id), self.cancel(self.session_id)
        gate.fail(BackendError("not now"))
        self.failureResultOf(closing, BackendError)
        error = self.failureResultOf(cancelling, BackendError).value
        self.assertNotIsInstance(error, NoSuchSession)
        gate.open()
        self.failureResultOf(self.cancel(self.session_id), NoSuchSession)
        self.assertEqual(self.sessions(), set())
        self.successResultOf(self.close(self.session_id))

    def test_close_waits_for_a_cancel(self) -> None:
        gate = self.backend.hold("release")
        cancelling, closing = self.cancel(self.session_id), self.close(self.session_id)
        self.assertNoResult(closing)
        gate.open()
        self.successResultOf(cancelling)
        self.failureResultOf(closing, NoSuchSession)
        self.assertEqual(self.memory.files, {})

    def test_close_publishes_nothing_when_a_cancel_has_failed(self) -> None:
        gate = self.backend.hold("release")
        cancelling, closing = self.cancel(self.session_id), self.close(self.session_id)
        gate.fail(BackendError("not now"))
        self.failureResultOf(cancelling, BackendError)
        self.failureResultOf(closing, NoSuchSession)
        self.assertEqual(self.memory.files, {})


@implementer(IReleasable)
@define(eq=False)
class _Link:
    """Is released when told."""

    name: str
    log: list[str]
    gone: list[Deferred[None]] = field(factory=list)

    def release(self) -> Deferred[None]:
        self.log.append(self.name)
        self.gone.append(Deferred())
        return self.gone[-1]


class ChainTests(SynchronousTestCase):
    """``release_in_order``."""

    def setUp(self) -> None:
        self.log: list[str] = []
        self.first, self.second = _Link("first", self.log), _Link("second", self.log)

    def walk(self) -> Deferred[None]:
        return Deferred.fromCoroutine(release_in_order(self.first, self.second))

    def test_each_waits_for_the_one_before_it(self) -> None:
        walking = self.walk()
        self.assertEqual(self.log, ["first"])
        self.first.gone[0].callback(None)
        self.assertEqual(self.log, ["first", "second"])
        self.assertNoResult(walking)
        self.second.gone[0].callback(None)
        self.successResultOf(walking)

    def test_a_failure_ends_it_and_it_can_be_walked_again(self) -> None:
        walking = self.walk()
        self.first.gone[0].errback(BackendError("not now"))
        self.failureResultOf(walking, BackendError)
        self.assertEqual(self.log, ["first"])
        walking = self.walk()
        self.first.gone[1].callback(None)
        self.second.gone[0].callback(None)
        self.successResultOf(walking)

    def test_an_empty_one_has_ended(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(release_in_order()))
