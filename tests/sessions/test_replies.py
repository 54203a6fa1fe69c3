"""
Replies of server applications, open to be served: they belong to their session, whose
end waits until nobody reads them any more.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IConsumer
from twisted.internet.testing import StringTransport
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.sessions.support import (
    ALICE,
    ANYONE,
    BOB,
    SOURCE,
    TOTAL,
    UNKNOWN,
    NotifyingCase,
)
from tests.sessions.test_asking import SharedBackend
from txbits.errors import (
    ApplicationRefused,
    BackendError,
    NoSuchFile,
    NoSuchSession,
    ServerStopping,
)
from txbits.interfaces import Answer, IStoredFile

REPLY = b"well done"


@implementer(IConsumer)
class Stalled:
    """A client that takes nothing more after the first piece."""

    producer: Any = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.producer.pauseProducing()


class ReplyCase(NotifyingCase):
    """A session with a reply."""

    def setUp(self) -> None:
        super().setUp()
        self.session_id = self.create()
        self.reply_with(REPLY)

    def reply_with(self, data: bytes) -> None:
        """The application answers, with a reply."""
        _, outcome = self.ask(self.session_id)
        self.write_reply(data)
        self.asked.answer(Answer())
        self.assertEqual(self.successResultOf(outcome), TOTAL)

    def opened(self) -> Any:
        return self.successResultOf(self.manager.open_reply(self.session_id, ALICE))

    def read(self, file: IStoredFile) -> bytes:
        consumer: Any = StringTransport()
        self.successResultOf(file.read_into(consumer, 0, file.length))
        return bytes(consumer.value())


class OpeningTests(ReplyCase):
    """Who may read which reply, and when."""

    def test_it_is_read(self) -> None:
        for has_restarted in (False, True):
            if has_restarted:
                self.restart()
            file = self.opened()
            verifyObject(IStoredFile, file)
            self.assertEqual((file.length, self.read(file)), (len(REPLY), REPLY))
            self.assertRegex(file.etag, "^[0-9a-z-]+$")
            for _ in range(2):
                self.successResultOf(file.release())

    def test_several_may_read_it(self) -> None:
        first, second = self.opened(), self.opened()
        self.successResultOf(first.release())
        self.assertEqual(self.read(second), REPLY)
        self.failureResultOf(first.read_into(StringTransport(), 0, 1), BackendError)

    def test_it_is_only_its_owner_s(self) -> None:
        for caller in (BOB, ANYONE):
            self.failureResultOf(
                self.manager.open_reply(self.session_id, caller), NoSuchSession
            )

    def test_an_unknown_session_has_none(self) -> None:
        self.failureResultOf(self.manager.open_reply(UNKNOWN, ALICE), NoSuchSession)

    def test_a_session_that_nobody_has_answered_about_has_none(self) -> None:
        session_id = self.create()
        self.failureResultOf(self.manager.open_reply(session_id, ALICE), NoSuchFile)
        self.upload(session_id, 0, 4)
        self.failureResultOf(self.manager.open_reply(session_id, ALICE), NoSuchFile)

    def test_an_answer_without_a_reply_has_none(self) -> None:
        session_id = self.answered(Answer(has_reply=True), destination=("other",))
        self.failureResultOf(self.manager.open_reply(session_id, ALICE), NoSuchFile)

    def test_what_an_application_wrote_that_refused_is_none(self) -> None:
        session_id = self.create()
        _, outcome = self.ask(session_id)
        self.write_reply(b"no, since")
        self.asked.fail(ApplicationRefused("not this one", 403))
        self.failureResultOf(outcome, ApplicationRefused)
        self.failureResultOf(self.manager.open_reply(session_id, ALICE), NoSuchFile)

    def test_it_is_gone_after_the_session(self) -> None:
        for end in (self.close, self.cancel):
            self.successResultOf(end(self.session_id))
            self.failureResultOf(
                self.manager.open_reply(self.session_id, ALICE), NoSuchSession
            )
            self.session_id = self.create()
            self.reply_with(REPLY)
        self.clock.advance(15 * 86400)
        self.failureResultOf(
            self.manager.open_reply(self.session_id, ALICE), NoSuchSession
        )

    def test_a_fault_is_told(self) -> None:
        gate = self.backend.hold("reply")
        gate.fail(BackendError("reading failed"))
        opening = self.manager.open_reply(self.session_id, ALICE)
        self.failureResultOf(opening, BackendError)
        gate.open()
        self.assertEqual(self.read(self.opened()), REPLY)

    def test_a_server_that_stops_opens_none(self) -> None:
        self.successResultOf(self.manager.stop())
        self.failureResultOf(
            self.manager.open_reply(self.session_id, ALICE), ServerStopping
        )

    def test_nor_does_one_that_stops_while_the_session_is_looked_for(self) -> None:
        self.restart()
        gate = self.backend.hold("find")
        opening = self.manager.open_reply(self.session_id, ALICE)
        stopping = self.manager.stop()
        self.assertNoResult(stopping)
        gate.open()
        self.failureResultOf(opening, ServerStopping)
        self.successResultOf(stopping)


class EndingTests(ReplyCase):
    """Whoever reads a reply is ended before its session is released."""

    def setUp(self) -> None:
        super().setUp()
        # Longer than what is read ahead.
        self.successResultOf(self.cancel(self.session_id))
        self.session_id = self.create()
        self.reply_with(bytes(1 << 20))
        self.client = Stalled()
        self.file = self.opened()
        self.reading = self.file.read_into(self.client, 0, self.file.length)
        self.assertNoResult(self.reading)

    def assert_ended(self) -> None:
        self.failureResultOf(self.reading, BackendError)
        self.assertIsNone(self.client.producer)
        self.successResultOf(self.file.release())

    def test_cancel_ends_the_reading(self) -> None:
        self.successResultOf(self.cancel(self.session_id))
        self.assert_ended()
        self.assertEqual(self.sessions(), set())

    def test_close_ends_the_reading(self) -> None:
        self.successResultOf(self.close(self.session_id))
        self.assert_ended()
        self.assertEqual(self.sessions(), set())

    def test_the_time_out_ends_the_reading(self) -> None:
        self.clock.advance(15 * 86400)
        self.assert_ended()
        self.assertEqual(self.sessions(), set())

    def test_the_end_of_the_server_ends_the_reading(self) -> None:
        self.successResultOf(self.manager.stop())
        self.assert_ended()

    def test_fragments_do_not(self) -> None:
        self.successResultOf(self.last(self.session_id).outcome)
        self.assertNoResult(self.reading)
        self.client.producer.stopProducing()
        self.failureResultOf(self.reading, BackendError)

    def test_a_release_waits_for_what_is_being_opened(self) -> None:
        gate = self.backend.hold("reply")
        opening = self.manager.open_reply(self.session_id, ALICE)
        cancelling = self.cancel(self.session_id)
        self.assertNoResult(cancelling)
        self.assertNotIn("release", self.backend.calls[-1:])
        gate.open()
        self.failureResultOf(opening, NoSuchSession)
        self.successResultOf(cancelling)
        self.assert_ended()

    def test_a_release_that_fails_leaves_no_reader(self) -> None:
        gate = self.backend.hold("release")
        gate.fail(BackendError("not now"))
        self.failureResultOf(self.cancel(self.session_id), BackendError)
        self.assert_ended()
        self.failureResultOf(
            self.manager.open_reply(self.session_id, ALICE), NoSuchSession
        )
        gate.open()
        self.successResultOf(self.cancel(self.session_id))


class SharedTests(ReplyCase):
    """A store that other processes use, too."""

    def setUp(self) -> None:
        super().setUp()
        self.backend = SharedBackend(self.memory)
        self.manager = self.started()

    def test_a_cancel_finds_who_reads_here(self) -> None:
        file = self.opened()
        self.successResultOf(self.cancel(self.session_id))
        reading = file.read_into(StringTransport(), 0, file.length)
        self.failureResultOf(reading, BackendError)

    def test_a_session_is_forgotten_when_nobody_reads_any_more(self) -> None:
        first, second = self.opened(), self.opened()
        self.assertEqual(self.read(first), REPLY)
        for file in (first, second):
            self.assertIn(self.session_id, self.manager._active.table)
            self.successResultOf(file.release())
        self.assertNotIn(self.session_id, self.manager._active.table)
        self.assertEqual(self.held(self.session_id), SOURCE)
