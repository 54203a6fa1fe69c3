"""
What a server application answered, and its reply, on disk: kept, read back, and gone
with the session.
"""

from __future__ import annotations

import os
import sys

from twisted.internet.defer import maybeDeferred

from tests.backends.disk.mortal import DiskCase
from txbits.errors import BackendError, NoSuchFile, StagedDataLost
from txbits.interfaces import (
    Answer,
    IAbilities,
    IAddressable,
    IAnswerable,
    IReadable,
    IReplyAddressable,
)
from txbits.testing._abilities_contract import _Sink

REPLY = bytes(range(256)) * 1200


class AnswerCase(DiskCase):
    """Sessions that an application is asked about."""

    def begun(self, session):
        return self.successResultOf(session.begin_attempt())

    def write(self, session, data=REPLY):
        """Write a reply as one that comes over the network."""
        writer = self.successResultOf(session.open_reply())
        for start in range(0, len(data), 100_000):
            self.successResultOf(writer.write(data[start : start + 100_000]))
        self.successResultOf(writer.close())

    def answered(self, backend, reply: bytes | None = REPLY, **answer):
        """A complete session with an answer."""
        session = self.complete(backend)
        self.begun(session)
        if reply is not None:
            self.write(session, reply)
        self.successResultOf(session.keep_answer(Answer(**answer)))
        return session

    def read(self, session):
        """The reply as a client gets it."""
        file = self.successResultOf(session.reply())
        sink = _Sink()
        self.successResultOf(file.read_into(sink, 0, file.length))
        self.successResultOf(file.release())
        return sink.received

    def now_and_later(self, backend, session):
        """The session, and what another process finds of it."""
        yield session
        yield self.found(self.reopened(backend), session)

    def found(self, backend, session):
        return self.successResultOf(backend.find(session.session_id))


class KeepingTests(AnswerCase):
    """Attempts and answers."""

    def test_sessions_can_what_the_backend_says(self):
        backend = self.start()
        session = self.create(backend)
        self.assertTrue(IAbilities.providedBy(backend))
        self.assertEqual(
            backend.session_abilities,
            {IReadable, IAddressable, IAnswerable, IReplyAddressable},
        )
        for ability in backend.session_abilities:
            self.assertTrue(ability.providedBy(session))

    def test_attempts_are_counted_on_after_a_kill(self):
        backend = self.start()
        session = self.complete(backend)
        self.assertEqual((session.attempts, session.answer), (0, None))
        self.assertEqual([self.begun(session), self.begun(session)], [1, 2])
        backend = self.reopened(backend)
        session = self.found(backend, session)
        self.assertEqual((session.attempts, session.answer), (2, None))
        self.assertEqual(self.begun(session), 3)

    def test_an_answer_and_its_reply_outlive_a_kill(self):
        for fsync in ("close", "fragment", "never"):
            self.fsync = fsync
            backend = self.start()
            session = self.answered(
                backend, status=202, publishes=True, reply_url="http://x.example/r"
            )
            for one in self.now_and_later(backend, session):
                self.assertEqual(one.attempts, 1)
                self.assertEqual(
                    one.answer,
                    Answer(
                        status=202,
                        publishes=True,
                        reply_url="http://x.example/r",
                        has_reply=True,
                    ),
                )
                self.assertEqual(self.read(one), REPLY)

    def test_an_answer_without_a_reply_has_none(self):
        backend = self.start()
        session = self.answered(backend, reply=None, status=403, has_reply=True)
        self.assertEqual(session.answer, Answer(status=403))
        self.failureResultOf(session.reply(), NoSuchFile)

    def test_an_empty_reply_is_one(self):
        backend = self.start()
        session = self.answered(backend, reply=b"")
        self.assertTrue(session.answer.has_reply)
        self.assertEqual(self.read(session), b"")

    def test_a_session_that_nobody_was_asked_about_has_no_reply(self):
        session = self.complete(self.start())
        self.failureResultOf(session.reply(), NoSuchFile)
        self.assertEqual(self.leftovers_of(session), [".part"])

    def leftovers_of(self, session):
        name = str(session.session_id).upper()
        return sorted(
            one.removeprefix(name)
            for one in os.listdir(session.staging.path)
            if one.startswith(name)
        )

    def test_the_next_attempt_discards_what_one_has_left(self):
        backend = self.start()
        session = self.complete(backend)
        self.begun(session)
        writer = self.successResultOf(session.open_reply())
        self.successResultOf(writer.write(b"half"))
        self.failureResultOf(session.keep_answer(Answer()), BackendError)
        self.assertEqual(self.begun(session), 2)
        self.assertEqual(self.leftovers_of(session), [".answer", ".part"])
        self.failureResultOf(writer.write(b"more"), BackendError)
        self.write(session, b"second")
        session = self.found(self.reopened(backend), session)
        self.assertEqual(self.begun(session), 3)
        self.assertFalse(self.successResultOf(session.has_reply()))
        self.successResultOf(session.keep_answer(Answer()))
        self.assertFalse(session.answer.has_reply)

    def test_a_long_leftover_is_removed_in_a_thread(self):
        hops = []

        def in_thread(function, *args):
            hops.append(function)
            return maybeDeferred(function, *args)

        self.in_thread = in_thread
        session = self.complete(self.start())
        for length, more in ((1 << 20, 0), ((1 << 20) + 1, 1)):
            self.begun(session)
            self.write(session, bytes(length))
            hops.clear()
            self.begun(session)
            self.assertEqual(len(hops), more)

    def test_a_reply_is_begun_once_in_an_attempt(self):
        session = self.complete(self.start())
        self.failureResultOf(session.open_reply(), BackendError)
        self.begun(session)
        self.write(session)
        self.failureResultOf(session.open_reply(), BackendError)
        self.successResultOf(session.keep_answer(Answer()))
        for asked in (session.open_reply(), session.begin_attempt()):
            self.failureResultOf(asked, BackendError)
        self.assertEqual(self.read(session), REPLY)

    def test_a_full_disk_is_told_and_tried_again(self):
        backend = self.start()
        session = self.complete(backend)
        self.begun(session)
        writer = self.successResultOf(session.open_reply())
        backend._files.room = 3
        self.failureResultOf(writer.write(b"reply"), BackendError)
        self.successResultOf(writer.close())
        self.failureResultOf(session.begin_attempt(), BackendError)
        backend._files.room = None
        self.assertEqual(self.begun(session), 2)

    def test_bytes_lost_in_closing_make_no_reply(self):
        backend = self.start()
        session = self.complete(backend)
        self.begun(session)
        writer = self.successResultOf(session.open_reply())
        self.successResultOf(writer.write(b"reply"))
        backend._files.fail("close", 5)  # EIO
        self.failureResultOf(writer.close(), BackendError)
        self.failureResultOf(session.keep_answer(Answer()), BackendError)
        self.assertIsNone(session.answer)
        self.begun(session)
        self.write(session, b"reply")
        self.successResultOf(session.keep_answer(Answer()))
        self.assertEqual(self.read(session), b"reply")

    def test_publishing_leaves_the_reply(self):
        for overwrite in (False, True):
            backend = self.start()
            session = self.answered(backend, publishes=True)
            self.successResultOf(self.publish(session, overwrite))
            (summary,) = self.successResultOf(backend.sessions())
            self.assertTrue(summary.published)
            for one in self.now_and_later(backend, session):
                self.assertTrue(one.published)
                self.assertEqual(self.read(one), REPLY)

    def test_sessions_without_an_application_are_no_larger_by_it(self):
        backend = self.start()
        session = self.complete(backend)
        self.assertIsNone(session.answers)
        plain = sys.getsizeof(session)
        self.begun(session)
        self.assertEqual(sys.getsizeof(session), plain)
        backend = self.reopened(backend)
        other = self.complete(backend, ("other",))
        backend._files.calls.clear()
        self.found(backend, other)
        without = len(backend._files.calls)
        self.found(backend, session)
        # Opened, read, looked at, closed.
        self.assertEqual(len(backend._files.calls) - 2 * without, 4)


class ApplicationsReplyTests(AnswerCase):
    """Replies that another program writes."""

    def asked(self):
        self.backend = self.start()
        session = self.complete(self.backend)
        self.begun(session)
        return session

    def test_a_file_at_the_address_is_the_reply(self):
        session = self.asked()
        self.assertFalse(self.successResultOf(session.has_reply()))
        with open(session.address(), "rb") as upload:
            self.assertEqual(upload.read(), b"whole")
        with open(session.reply_address(), "wb") as reply:
            reply.write(REPLY)
        self.assertTrue(self.successResultOf(session.has_reply()))
        self.successResultOf(session.keep_answer(Answer()))
        self.assertTrue(session.answer.has_reply)
        self.assertEqual(self.read(session), REPLY)
        self.successResultOf(session.release())
        self.assertEqual(self.leftovers(self.backend), [])

    def test_what_is_no_plain_file_is_no_reply(self):
        secret = os.path.abspath(self.mktemp())
        with open(secret, "wb") as file:
            file.write(b"secret")
        for make in (
            lambda path: os.symlink(secret, path),
            os.mkfifo,
        ):
            session = self.asked()
            make(session.reply_address())
            self.assertFalse(self.successResultOf(session.has_reply()))
            self.failureResultOf(session.keep_answer(Answer()), BackendError)
            self.assertIsNone(session.answer)
            # The next attempt begins anew.
            self.begun(session)
            self.successResultOf(session.keep_answer(Answer()))
            self.successResultOf(session.release())
            self.assertEqual(self.leftovers(self.backend), [])

    def test_one_put_in_the_replys_place_later_is_not_followed(self):
        session = self.asked()
        self.write(session)
        self.successResultOf(session.keep_answer(Answer()))
        os.unlink(session.reply_address())
        self.failureResultOf(session.reply(), NoSuchFile)
        os.symlink(session.address(), session.reply_address())
        self.failureResultOf(session.reply(), BackendError)

    def test_a_file_that_is_changed_is_not_served_half(self):
        session = self.asked()
        self.write(session)
        self.successResultOf(session.keep_answer(Answer()))
        file = self.successResultOf(session.reply())
        etags = {file.etag}
        with open(session.reply_address(), "r+b") as reply:
            reply.truncate(5)
        sink = _Sink()
        self.failureResultOf(file.read_into(sink, 0, file.length), StagedDataLost)
        self.assertEqual(sink.received, b"")
        self.successResultOf(file.release())
        file = self.successResultOf(session.reply())
        self.assertEqual(file.length, 5)
        self.assertNotIn(file.etag, etags)
        self.assertNotIn('"', file.etag)
        self.successResultOf(file.release())

    def test_what_an_application_leaves_beside_it_is_cleaned_up(self):
        session = self.asked()
        with open(session.reply_address() + ".tmp", "wb"):
            pass
        self.successResultOf(self.backend.clean_up(0.0))
        self.assertEqual(len(self.leftovers(self.backend)), 4)
        self.successResultOf(session.release())
        self.successResultOf(self.backend.clean_up(0.0))
        self.assertEqual(self.leftovers(self.backend), [])

    def test_an_upload_that_it_has_taken_is_complete_wherever_the_bytes_are(self):
        elsewhere = os.path.abspath(self.mktemp())

        def to_the_destination(staged):
            os.link(staged, os.path.join(self.backend.root, "name"))

        def longer(staged):
            with open(staged, "ab") as file:
                file.write(b"more")

        for take in (
            lambda staged: os.rename(staged, elsewhere),
            os.unlink,
            lambda staged: os.truncate(staged, 1),
            longer,
            to_the_destination,
        ):
            for status in (200, 403):
                self.backend = self.start()
                session = self.complete(self.backend, ("name",))
                self.begun(session)
                with open(session.reply_address(), "wb") as reply:
                    reply.write(REPLY)
                take(session.address())
                self.successResultOf(session.keep_answer(Answer(status=status)))
                self.backend = self.reopened(self.backend)
                (summary,) = self.successResultOf(self.backend.sessions())
                self.assertFalse(summary.releasing)
                session = self.found(self.backend, session)
                self.assertEqual(
                    (session.offset, session.published, session.in_doubt),
                    (session.total, False, False),
                )
                self.assertEqual(self.read(session), REPLY)
                self.successResultOf(session.release())
                self.assertEqual(self.leftovers(self.backend), [])

    def test_one_that_it_has_moved_lives_from_the_answer_on(self):
        session = self.asked()
        os.unlink(session.address())
        self.successResultOf(session.keep_answer(Answer()))
        os.utime(session.reply_address().replace(".reply", ".answer"), (5e9, 5e9))
        self.backend = self.reopened(self.backend)
        (summary,) = self.successResultOf(self.backend.sessions())
        self.assertEqual(summary.last_progress, 5e9)
        self.assertEqual(self.found(self.backend, session).last_progress, 5e9)
