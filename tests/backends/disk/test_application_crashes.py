"""
What a server application answered, on disk, when the process or the machine dies, and
while work goes on: an answer with its whole reply, or none.
"""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred, maybeDeferred

from tests.backends.disk.test_application import REPLY, AnswerCase
from tests.backends.disk.test_crashes import CrashCase
from txbits.errors import BackendError, NoSuchSession
from txbits.interfaces import Answer


class CrashTests(CrashCase, AnswerCase):
    """Death while an application is asked, and answers."""

    def test_an_answer_is_found_whole_or_the_application_is_asked_again(self):
        self.survived = False
        for calls in self.rounds():
            backend = self.start()
            session = self.complete(backend)

            def act(session=session):
                asked = session.begin_attempt().addCallback(
                    lambda _: session.open_reply()
                )
                return asked.addCallback(
                    lambda writer: (
                        writer.write(REPLY)
                        .addCallback(lambda _: writer.close())
                        .addCallback(
                            lambda _: session.keep_answer(Answer(publishes=True))
                        )
                    )
                )

            self.run_until_dead(backend, calls, act)
            again = self.reopened(backend)
            found = self.found(again, session)
            self.assertIn(found.attempts, (0, 1))
            if self.acknowledged:
                self.assertIsNotNone(found.answer)
            if found.answer is None:
                self.assertEqual(self.begun(found), found.attempts)
                self.assertFalse(self.successResultOf(found.has_reply()))
                self.write(found)
                self.successResultOf(found.keep_answer(Answer(publishes=True)))
            self.assertEqual(found.answer, Answer(publishes=True, has_reply=True))
            self.assertEqual(self.read(found), REPLY)
            self.successResultOf(found.release())
            self.assertEqual(self.leftovers(again), [])

    def test_an_answer_that_could_not_be_kept_is_not_found_without_its_reply(self):
        self.survived = False
        for calls in self.rounds():
            backend = self.start()
            session = self.complete(backend)
            self.begun(session)
            self.write(session)
            # Its name is there; to make that safe fails, so it is asked again.
            real, session.staging.sync_directory = (
                session.staging.sync_directory,
                lambda: maybeDeferred(self._broken),
            )
            self.failureResultOf(session.keep_answer(Answer()), BackendError)
            session.staging.sync_directory = real
            self.run_until_dead(backend, calls, session.begin_attempt)
            found = self.found(self.reopened(backend), session)
            if found.answer is not None:
                self.assertEqual(self.read(found), REPLY)

    def _broken(self):
        raise BackendError("broken")

    def test_a_release_goes_on_after_a_kill_at_any_call(self):
        for publishes in (False, True):
            self.survived = False
            for calls in self.rounds():
                backend = self.start()
                session = self.answered(backend)
                if publishes:
                    self.successResultOf(self.publish(session))
                self.run_until_dead(backend, calls, session.release)
                again = self.reopened(backend)
                try:
                    found = self.found_or_gone(again, session)
                except NoSuchSession:
                    pass
                else:
                    self.assertFalse(self.survived)
                    self.successResultOf(found.release())
                self.assertEqual(self.leftovers(again), [])

    def found_or_gone(self, backend, session):
        outcome: list = []
        backend.find(session.session_id).addBoth(outcome.append)
        if hasattr(outcome[0], "raiseException"):
            outcome[0].raiseException()
        return outcome[0]

    def test_a_release_that_fails_at_any_call_goes_on(self):
        probe = self.start()
        session = self.answered(probe)
        probe._files.calls.clear()
        self.successResultOf(session.release())
        for name in list(probe._files.calls):
            backend = self.start()
            session = self.answered(backend)
            backend._files.fail(name, 5)  # EIO
            self.failureResultOf(session.release())
            self.assertTrue(session.releasing)
            for late in (session.begin_attempt, session.open_reply, session.reply):
                self.failureResultOf(late(), BackendError)
            self.successResultOf(session.release())
            self.assertEqual(self.leftovers(backend), [])


class MachineCrashTests(AnswerCase):
    """What the disk holds of an answer after the machine has crashed."""

    def test_an_answer_is_stored_safely_with_its_reply_unless_never(self):
        for fsync, syncs in (("close", 4), ("fragment", 4), ("never", 0)):
            self.fsync, self.synced = fsync, 0
            session = self.complete(self.start())
            self.begun(session)
            self.write(session)
            self.synced = 0
            self.successResultOf(session.keep_answer(Answer()))
            self.assertEqual(self.synced, syncs)

    def sync(self, fd):
        self.synced += 1
        return maybeDeferred(os.fsync, fd)

    def test_a_torn_file_counts_as_none_after_a_crash_of_the_machine_only(self):
        self.synced = 0
        for torn in (
            b"",
            b"\0" * 40,
            b'{"attempts": 1, "ans',
            b"[]",
            b'{"attempts":1}',
        ):
            backend = self.start()
            session = self.answered(backend)
            name = f"{str(session.session_id).upper()}.answer"
            with open(os.path.join(session.staging.path, name), "wb") as file:
                file.write(torn)
            again = self.reopened(backend)
            self.failureResultOf(again.find(session.session_id), BackendError)
            again = self.after_boot(again)
            found = self.found(again, session)
            self.assertEqual((found.attempts, found.answer), (0, None))
            # It stays so, also for a process that comes after a crash of this one.
            found = self.found(self.after_boot(again, again._booted()), session)
            self.assertEqual((found.attempts, found.answer), (0, None))
            self.assertEqual(self.begun(found), 1)


class WaitingTests(AnswerCase):
    """Work under way, held at will."""

    def setUp(self):
        self.held: list[tuple[int, Deferred[None]]] = []
        self.holding = False

    def sync(self, fd):
        waiting: Deferred[None] = Deferred()
        if self.holding:
            self.held.append((fd, waiting))
        else:
            waiting.callback(None)
        return waiting

    def test_a_release_waits_for_an_answer_that_is_being_stored(self):
        backend = self.start()
        session = self.complete(backend)
        self.begun(session)
        self.write(session)
        self.holding = True
        keeping = session.keep_answer(Answer())
        self.failureResultOf(session.begin_attempt(), BackendError)
        # Whoever waits may go; the descriptor stays open until it is no more used.
        keeping.addErrback(lambda _: None).cancel()
        releasing = session.release()
        while self.held:
            self.assertNoResult(releasing)
            fd, waiting = self.held.pop()
            os.fstat(fd)
            waiting.callback(None)
        self.successResultOf(releasing)
        self.assertEqual(self.leftovers(backend), [])
