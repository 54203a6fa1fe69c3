"""
Close-Session: the file appears whole or not at all, and nothing else is left.
"""

from __future__ import annotations

from uuid import UUID

from tests.sessions.support import (
    ALICE,
    BOB,
    NAME,
    SOURCE,
    TOTAL,
    UNKNOWN,
    ManagerCase,
)
from txbits.errors import (
    BackendError,
    DestinationExists,
    NoSuchSession,
    OutOfStep,
    StagedDataLost,
    UploadTooLarge,
)

HOUR = 3600.0


class CloseTests(ManagerCase):
    """What a Close does."""

    def test_a_complete_upload_is_published(self) -> None:
        session_id = self.complete()
        self.successResultOf(self.close(session_id))
        self.assertEqual(self.memory.files, {NAME: SOURCE})
        self.assertEqual(self.sessions(), set())

    def test_a_complete_upload_is_published_after_a_restart(self) -> None:
        session_id = self.complete()
        self.restart()
        self.successResultOf(self.close(session_id))
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_an_incomplete_upload_is_discarded(self) -> None:
        for has_restarted in (False, True):
            session_id = self.create()
            self.upload(session_id, 0, TOTAL - 1)
            if has_restarted:
                self.restart()
            self.successResultOf(self.close(session_id))
            self.assertEqual((self.memory.files, self.sessions()), ({}, set()))

    def test_a_session_without_a_fragment_is_an_empty_file(self) -> None:
        session_id = self.create()
        self.successResultOf(self.close(session_id))
        self.assertEqual(self.memory.files, {NAME: b""})
        self.assertEqual(self.sessions(), set())

    def test_a_session_without_a_fragment_is_an_empty_file_after_a_restart(
        self,
    ) -> None:
        session_id = self.create()
        self.restart()
        self.successResultOf(self.close(session_id))
        self.assertEqual(self.memory.files, {NAME: b""})

    def test_a_fragment_that_was_refused_means_that_the_file_is_not_empty(self) -> None:
        session_id = self.create()
        self.failureResultOf(self.send(session_id, 5, SOURCE[5:]), OutOfStep)
        self.successResultOf(self.close(session_id))
        self.assertEqual((self.memory.files, self.sessions()), ({}, set()))

    def test_an_existing_file_is_not_replaced_by_an_empty_one_on_a_guess(self) -> None:
        """After a restart nobody knows of a Fragment that was refused."""
        self.restart(max_upload_size=5, allow_overwrites=True)
        self.memory.files[NAME] = b"theirs"
        session_id = self.create()
        self.failureResultOf(self.send(session_id, 0, SOURCE), UploadTooLarge)
        self.restart(max_upload_size=5, allow_overwrites=True)
        self.failureResultOf(self.close(session_id), NoSuchSession)
        self.assertEqual(self.memory.files, {NAME: b"theirs"})
        self.assertEqual(self.sessions(), set())

    def test_an_existing_file_is_replaced_by_one_known_to_be_empty(self) -> None:
        self.restart(allow_overwrites=True)
        self.memory.files[NAME] = b"theirs"
        self.successResultOf(self.close(self.create()))
        self.assertEqual(self.memory.files, {NAME: b""})

    def in_doubt(self) -> UUID:
        """A session of which a crash of the machine has left five bytes."""
        session_id = self.create()
        self.successResultOf(self.send(session_id, 0, SOURCE[:5]))
        self.memory._sessions[session_id].in_doubt = True
        self.restart()
        return session_id

    def test_an_incomplete_upload_in_doubt_is_to_be_sent_again(self) -> None:
        session_id = self.in_doubt()
        self.failureResultOf(self.close(session_id), NoSuchSession)
        self.assertEqual((self.memory.files, self.sessions()), ({}, set()))
        self.failureResultOf(self.close(session_id), NoSuchSession)

    def test_an_upload_in_doubt_goes_on_with_the_next_fragment(self) -> None:
        session_id = self.in_doubt()
        self.failureResultOf(self.send(session_id, 8, SOURCE[8:]), OutOfStep)
        self.successResultOf(self.send(session_id, 5, SOURCE[5:]))
        self.successResultOf(self.close(session_id))
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_bytes_lost_while_publishing_are_to_be_sent_again(self) -> None:
        session_id = self.complete()
        publish = self.backend.hold("publish")
        closing = self.close(session_id)
        # As the disk does when fsync fails.
        self.memory._sessions[session_id].offset = 0
        publish.fail(BackendError("fsync failed"))
        self.failureResultOf(closing, BackendError)
        self.failureResultOf(self.close(session_id), NoSuchSession)
        self.assertEqual(self.sessions(), set())

    def test_the_ack_waits_for_the_file_and_for_the_release(self) -> None:
        session_id = self.complete()
        publish = self.backend.hold("publish")
        release = self.backend.hold("release")
        closing = self.close(session_id)
        for gate in (publish, release):
            self.assertNoResult(closing)
            self.assertEqual(gate.waiting, 1)
            gate.open()
        self.successResultOf(closing)

    def test_the_ack_of_a_discard_waits_for_the_release(self) -> None:
        session_id = self.create()
        self.upload(session_id, 0, 4)
        gate = self.backend.hold("release")
        closing = self.close(session_id)
        self.assertNoResult(closing)
        gate.open()
        self.successResultOf(closing)
        self.assertEqual(self.sessions(), set())

    def test_an_existing_file_is_replaced_only_where_that_is_allowed(self) -> None:
        self.restart(allow_overwrites=True)
        self.memory.files[NAME] = b"theirs"
        session_id = self.complete()
        self.successResultOf(self.close(session_id))
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_a_session_that_nobody_has_is_unknown(self) -> None:
        self.failureResultOf(self.close(UNKNOWN), NoSuchSession)

    def test_after_it_the_session_is_unknown_to_fragments_and_cancel(self) -> None:
        session_id = self.complete()
        self.successResultOf(self.close(session_id))
        self.failureResultOf(self.send(session_id, 0, SOURCE), NoSuchSession)
        self.failureResultOf(self.cancel(session_id), NoSuchSession)
        self.assertEqual(self.memory.files, {NAME: SOURCE})


class AgainTests(ManagerCase):
    """A Close whose Ack was lost is sent again."""

    def test_again_after_success_is_success(self) -> None:
        empty, whole = self.create(("empty",)), self.complete()
        part = self.create(("part",))
        self.successResultOf(self.send(part, 0, b"x", destination=("part",)))
        ours = ((empty, ("empty",)), (whole, NAME), (part, ("part",)))
        for session_id, destination in ours:
            self.successResultOf(self.close(session_id, destination))
        files = dict(self.memory.files)
        self.restart()
        for session_id, destination in ours:
            self.successResultOf(self.close(session_id, destination))
        self.assertEqual(self.memory.files, files)
        self.assertEqual(set(files), {("empty",), NAME})

    def test_it_does_not_publish_again(self) -> None:
        session_id = self.complete()
        self.successResultOf(self.close(session_id))
        self.memory.files[NAME] = b"newer"
        self.successResultOf(self.close(session_id))
        self.assertEqual(self.memory.files, {NAME: b"newer"})

    def test_it_is_success_for_who_closed_it_only(self) -> None:
        session_id = self.complete()
        self.successResultOf(self.close(session_id))
        self.failureResultOf(self.close(session_id, caller=BOB), NoSuchSession)
        self.failureResultOf(self.close(session_id, ("other",)), NoSuchSession)

    def test_it_is_remembered_for_an_hour_at_least(self) -> None:
        self.restart(cleanup_interval=600)
        session_id = self.complete()
        self.successResultOf(self.close(session_id))
        self.clock.pump([600] * 6)
        self.successResultOf(self.close(session_id))
        self.restart()
        self.successResultOf(self.close(session_id))

    def test_it_is_not_remembered_for_ever(self) -> None:
        session_id = self.complete()
        self.successResultOf(self.close(session_id))
        self.clock.pump([12 * HOUR] * 3)
        self.failureResultOf(self.close(session_id), NoSuchSession)

    def test_two_that_race_both_succeed(self) -> None:
        for operation in ("publish", "release"):
            session_id = self.complete(destination=(operation,))
            gate = self.backend.hold(operation)
            first = self.close(session_id, (operation,))
            second = self.close(session_id, (operation,))
            self.assertEqual(gate.waiting, 1)
            self.assertNoResult(first)
            self.assertNoResult(second)
            gate.open()
            self.successResultOf(first)
            self.successResultOf(second)
            self.assertEqual(self.memory.files[operation,], SOURCE)
        self.assertEqual(self.backend.calls.count("publish"), 2)

    def test_two_that_race_after_a_restart_both_succeed(self) -> None:
        session_id = self.complete()
        self.restart()
        gate = self.backend.hold("find")
        first, second = self.close(session_id), self.close(session_id)
        gate.open()
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_what_cannot_be_recalled_is_not_unknown(self) -> None:
        session_id = self.complete()
        self.successResultOf(self.close(session_id))
        gate = self.backend.hold("recalls_close")
        gate.fail(BackendError("no answer"))
        error = self.failureResultOf(self.close(session_id), BackendError).value
        self.assertNotIsInstance(error, NoSuchSession)


class FailingTests(ManagerCase):
    """A Close that fails leaves something that the next one can finish."""

    def test_publishing_that_failed_is_done_by_the_next(self) -> None:
        session_id = self.complete()
        gate = self.backend.hold("publish")
        gate.fail(BackendError("not now"))
        for _ in range(2):
            self.failureResultOf(self.close(session_id), BackendError)
            self.assertEqual(self.held(session_id), SOURCE)
        gate.open()
        self.successResultOf(self.close(session_id))
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_publishing_an_empty_file_that_failed_is_done_by_the_next(self) -> None:
        for operation in ("open_writer", "publish"):
            session_id = self.create((operation,))
            gate = self.backend.hold(operation)
            gate.fail(BackendError("not now"))
            self.failureResultOf(self.close(session_id, (operation,)), BackendError)
            gate.open()
            self.successResultOf(self.close(session_id, (operation,)))
            self.assertEqual(self.memory.files[operation,], b"")

    def test_a_session_whose_publishing_failed_takes_fragments(self) -> None:
        session_id = self.complete()
        gate = self.backend.hold("publish")
        gate.fail(BackendError("not now"))
        self.failureResultOf(self.close(session_id), BackendError)
        self.upload(session_id, 5)

    def test_a_session_whose_publishing_failed_can_be_cancelled(self) -> None:
        session_id = self.complete()
        gate = self.backend.hold("publish")
        gate.fail(BackendError("not now"))
        self.failureResultOf(self.close(session_id), BackendError)
        self.successResultOf(self.cancel(session_id))
        self.assertEqual((self.memory.files, self.sessions()), ({}, set()))

    def test_a_destination_that_was_taken_stands_until_cancel(self) -> None:
        session_id = self.complete()
        self.memory.files[NAME] = b"theirs"
        for _ in range(2):
            self.failureResultOf(self.close(session_id), DestinationExists)
            self.assertEqual(self.held(session_id), SOURCE)
        self.restart()
        self.failureResultOf(self.close(session_id), DestinationExists)
        self.successResultOf(self.cancel(session_id))
        self.assertEqual(self.sessions(), set())
        self.assertEqual(self.memory.files, {NAME: b"theirs"})

    def test_a_destination_that_was_taken_by_another_session_is_taken(self) -> None:
        first, second = self.complete(), self.complete()
        self.successResultOf(self.close(second))
        self.failureResultOf(self.close(first), DestinationExists)
        self.successResultOf(self.cancel(first))

    def test_staged_data_that_is_gone_is_told(self) -> None:
        session_id = self.complete()
        gate = self.backend.hold("publish")
        gate.fail(StagedDataLost("somebody took it"))
        self.failureResultOf(self.close(session_id), StagedDataLost)
        self.assertEqual(self.memory.files, {})

    def test_a_release_that_failed_is_done_by_the_next(self) -> None:
        gate = self.backend.hold("release")
        for has_restarted in (False, True):
            name = (str(has_restarted),)
            session_id = self.complete(destination=name)
            gate.fail(BackendError("not now"))
            self.failureResultOf(self.close(session_id, name), BackendError)
            self.assertEqual(self.memory.files[name], SOURCE)
            if has_restarted:
                # The first round of the clean-up has to leave something over.
                self.restart_and_forget_errors()
            gate.open()
            self.memory.files[name] = b"newer"
            self.successResultOf(self.close(session_id, name))
            self.assertEqual(self.memory.files[name], b"newer")
            self.assertEqual(self.sessions(), set())

    def test_a_discard_that_failed_is_done_by_the_next(self) -> None:
        gate = self.backend.hold("release")
        for is_remembered in (False, True):
            for has_restarted in (False, True):
                session_id = self.create()
                self.upload(session_id, 0, 4)
                gate.fail(BackendError("not now"))
                for _ in range(2):
                    self.failureResultOf(self.close(session_id), BackendError)
                if is_remembered:
                    self.has_remembered(session_id)
                if has_restarted:
                    self.restart_and_forget_errors()
                    self.failureResultOf(self.close(session_id), BackendError)
                gate.open()
                self.successResultOf(self.close(session_id))
                self.assertEqual((self.memory.files, self.sessions()), ({}, set()))

    def test_a_file_that_stands_is_not_cancelled_any_more(self) -> None:
        session_id = self.complete()
        gate = self.backend.hold("release")
        gate.fail(BackendError("not now"))
        self.failureResultOf(self.close(session_id), BackendError)
        gate.open()
        self.failureResultOf(self.cancel(session_id), NoSuchSession)
        self.assertEqual(self.sessions(), set(), "what was left is gone")
        self.assertEqual(self.memory.files, {NAME: SOURCE})
        self.successResultOf(self.close(session_id))

    def test_a_discard_that_failed_can_be_cancelled(self) -> None:
        session_id = self.create()
        self.upload(session_id, 0, 4)
        gate = self.backend.hold("release")
        gate.fail(BackendError("not now"))
        self.failureResultOf(self.close(session_id), BackendError)
        self.failureResultOf(self.send(session_id, 4, SOURCE[4:]), NoSuchSession)
        gate.open()
        self.successResultOf(self.cancel(session_id))
        self.assertEqual(self.sessions(), set())

    def restart_and_forget_errors(self) -> None:
        """Restart while releases fail, which the clean-up logs."""
        self.restart()
        self.flushLoggedErrors(BackendError)


class StrangersTests(ManagerCase):
    """A session is its owner's, and its destination's."""

    def test_it_is_unknown_to_others(self) -> None:
        session_id = self.complete()
        for has_restarted in (False, True):
            if has_restarted:
                self.restart()
            self.assert_unknown(session_id, caller=BOB)
            self.assert_unknown(session_id, destination=("logs", "Today.log"))
            self.assert_unknown(session_id, caller=ALICE, destination=())
        self.successResultOf(self.close(session_id))
