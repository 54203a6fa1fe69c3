"""
The rules of a directory change while uploads are under way: each session keeps those of
its beginning.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from tests.sessions.support import (
    ALICE,
    NAME,
    SOURCE,
    TOTAL,
    ManagerCase,
    NotifyingCase,
    RecordingBackend,
    ScriptedBody,
)
from txbits.errors import (
    DestinationExists,
    FragmentTooLarge,
    InvalidSetting,
    NoSuchSession,
    SessionLimitReached,
    UploadsDisabled,
    UploadTooLarge,
)
from txbits.interfaces import Answer, IAddressable, IShared
from txbits.protocol.codec import ContentRange
from txbits.sessions import Settings
from txbits.testing import HoldableNotifier


class RulesTests(ManagerCase):
    """What holds for a session that was there, and for one that was not."""

    def change(self, **settings: Any) -> None:
        self.successResultOf(self.manager.reconfigure(Settings(**settings)))

    def test_limits_on_lengths(self) -> None:
        before = self.create()
        self.change(max_upload_size=TOTAL - 1, max_fragment_size=3)
        self.upload(before)
        after = self.create(("other",))
        who: Any = {"destination": ("other",)}
        self.failureResultOf(self.send(after, 0, SOURCE, **who), UploadTooLarge)
        self.change(max_fragment_size=3)
        after = self.create(("other",))
        self.failureResultOf(self.send(after, 0, SOURCE, **who), FragmentTooLarge)

    def test_overwriting(self) -> None:
        strict = self.complete()
        self.change(allow_overwrites=True)
        lenient = self.complete()
        self.memory.files[NAME] = b"old"
        self.change(allow_overwrites=False)
        self.failureResultOf(self.close(strict), DestinationExists)
        self.successResultOf(self.close(lenient))
        self.assertEqual(self.memory.files, {NAME: SOURCE})
        self.failureResultOf(self.manager.create(NAME, ALICE, None), DestinationExists)

    def test_when_files_are_published(self) -> None:
        at_close = self.create()
        self.change(publish_on="last-fragment")
        self.upload(at_close)
        self.assertEqual(self.memory.files, {})
        self.successResultOf(self.close(at_close))
        del self.memory.files[NAME]
        at_once = self.create()
        self.change(publish_on="close")
        self.upload(at_once)
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_time_outs(self) -> None:
        self.restart(session_timeout=100, cleanup_interval=10)
        short = self.create()
        self.change(session_timeout=1000, cleanup_interval=10)
        long = self.create()
        self.change(session_timeout=50, cleanup_interval=10)
        self.clock.advance(90)
        self.upload(short, 0, 1)
        self.clock.advance(105)
        self.assertEqual(self.sessions(), {long})
        self.failureResultOf(self.send(short, 1, SOURCE[1:]), NoSuchSession)
        self.upload(long)

    def test_the_limit_on_sessions_counts_those_that_are_there(self) -> None:
        self.create()
        self.change(session_limit=1)
        self.failureResultOf(
            self.manager.create(NAME, ALICE, None), SessionLimitReached
        )
        self.change(session_limit=2)
        self.create()

    def test_one_that_is_being_made_keeps_the_rules_it_was_asked_under(self) -> None:
        gate = self.backend.hold("create")
        created = self.manager.create(NAME, ALICE, None)
        self.change(max_upload_size=1)
        gate.open()
        self.upload(self.successResultOf(created))

    def test_one_that_is_found_after_a_restart_has_the_rules_of_then(self) -> None:
        session_id = self.create()
        self.restart(max_upload_size=1)
        self.failureResultOf(self.send(session_id, 0, SOURCE), UploadTooLarge)

    def test_the_clean_up_comes_at_the_new_interval(self) -> None:
        self.restart(session_timeout=10, cleanup_interval=1000)
        self.create()
        self.change(session_timeout=10, cleanup_interval=50)
        self.clock.advance(49)
        self.assertNotEqual(self.sessions(), set())
        self.clock.advance(1)
        self.assertEqual(self.sessions(), set())

    def test_rounds_of_the_clean_up_do_not_overlap(self) -> None:
        gate = self.backend.hold("sessions")
        self.restart(cleanup_interval=1000)
        self.change(cleanup_interval=50)
        self.clock.advance(200)
        self.assertEqual(gate.waiting, 1)
        gate.open()

    def test_off_and_on(self) -> None:
        session_id = self.create()
        self.change(enabled=False)
        self.assertEqual(self.sessions(), set())
        self.failureResultOf(self.send(session_id, 0, SOURCE), UploadsDisabled)
        self.change()
        self.create()


class ApplicationTests(NotifyingCase):
    """The server application changes."""

    def change(self, notifier: HoldableNotifier | None) -> None:
        self.successResultOf(self.manager.reconfigure(Settings(), notifier))

    def test_uploads_that_had_none_need_none(self) -> None:
        self.notifier = None
        self.restart()
        session_id = self.create()
        self.change(self.application)
        self.upload(session_id)
        self.successResultOf(self.close(session_id))
        self.assertEqual(self.application.asked, [])
        self.ask(self.create(("other",)), destination=("other",))

    def test_uploads_under_way_are_told_to_the_new_one(self) -> None:
        session_id = self.create()
        other = HoldableNotifier()
        self.change(other)
        underway = self.last(session_id)
        self.assertEqual(self.application.asked, [])
        (asked,) = other.asked
        asked.answer(Answer(publishes=True))
        self.successResultOf(underway.outcome)

    def test_one_that_is_being_asked_is_asked_to_its_end(self) -> None:
        underway = self.ask(self.create())
        self.change(HoldableNotifier())
        self.assertFalse(self.asked.is_aborted)
        self.asked.answer(Answer(publishes=True))
        self.successResultOf(underway.outcome)

    def test_a_reply_is_told_of_after_a_restart_without_one(self) -> None:
        session_id = self.create()
        underway = self.ask(session_id)
        self.write_reply(b"well done")
        self.asked.answer(Answer())
        self.successResultOf(underway.outcome)
        self.notifier = None
        self.restart()
        body = ScriptedBody()
        body.send(SOURCE)
        body.end()
        whole = ContentRange(0, TOTAL - 1, TOTAL)
        received = self.manager.fragment(session_id, NAME, ALICE, whole, body)
        self.assertTrue(self.successResultOf(received).has_reply)

    def test_uploads_that_were_to_be_told_are_when_there_is_none_any_more(
        self,
    ) -> None:
        session_id = self.create()
        self.change(None)
        self.ask(session_id)

    def test_one_that_the_backend_is_not_fit_for_changes_nothing(self) -> None:
        notifier = HoldableNotifier(needs=frozenset({IAddressable}))
        with self.assertRaises(InvalidSetting):
            self.manager.reconfigure(Settings(session_limit=1), notifier)
        self.assertIs(self.manager.notifier, self.application)
        self.assertIsNone(self.manager.settings.session_limit)


@implementer(IShared)
class _SharedBackend(RecordingBackend):
    """Other processes act in its sessions too."""


class SharedTests(ManagerCase):
    """Where any process may serve any packet, none remembers the rules of others."""

    def test_each_packet_goes_by_the_rules_of_its_time(self) -> None:
        self.successResultOf(self.manager.stop())
        self.backend = _SharedBackend(self.memory)
        self.manager = self.started()
        session_id = self.create()
        self.successResultOf(
            self.manager.reconfigure(Settings(max_upload_size=TOTAL - 1))
        )
        self.failureResultOf(self.send(session_id, 0, SOURCE), UploadTooLarge)
