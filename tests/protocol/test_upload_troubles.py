"""
What an upload makes of servers and networks as they are: ids of their own making,
strangers that answer, offsets that are never told, and a last Ack that was lost.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txbits.protocol.fragment_sizes import FragmentSizes
from txbits.protocol.packets import (
    Ack,
    CancelSession,
    CloseSession,
    CreateSession,
    Fragment,
    Ping,
)
from txbits.protocol.reactions import Again, Cancelled, Done, Doubt, Later, Refused
from txbits.protocol.refusals import HResult
from txbits.protocol.upload import Phase, Position, Upload

NOT_FOUND: Ack[str] = Ack(500, hresult=HResult.BG_E_SESSION_NOT_FOUND)


def sending(total: int = 100, size: int = 40, session: str = "s") -> Upload:
    """An upload that has its session."""
    upload = Upload(total, FragmentSizes.fixed(size))
    upload.answered(Ack(200, session))
    return upload


def closing() -> Upload:
    """An upload of which all bytes are acknowledged."""
    upload = sending(size=100)
    upload.answered(Ack(200, received=100))
    return upload


def kind(upload: Upload) -> type:
    return type(upload.next_packet())


class SessionIdTests(SynchronousTestCase):
    """The id of a session is the server's own word."""

    def test_it_goes_back_as_it_came(self) -> None:
        for session in ("abc-123", "{7df0354d-249b-430f-820d-3d2a9bef4931}", "a=/b"):
            upload = sending(session=session)
            packet = upload.next_packet()
            assert isinstance(packet, Fragment)
            self.assertEqual(packet.session_id, session)
            upload.cancel()
            self.assertEqual(upload.next_packet(), CancelSession(session))

    def test_it_has_up_to_100_characters_that_a_header_can_hold(self) -> None:
        self.assertIs(sending(session="x" * 100).phase, Phase.SENDING)
        for session in ("x" * 101, "", "a\x0b", "a\x00b", " a"):
            reaction = Upload(100).answered(Ack(200, session))
            assert isinstance(reaction, Refused), session
            self.assertIn("the server's BITS-Session-Id is invalid: ", reaction.cause)


class OutOfStepFromTheStartTests(SynchronousTestCase):
    """416 to a fragment that begins with the first byte, again and again."""

    def refuse(self, upload: Upload, received: int | None = None) -> object:
        return upload.answered(Ack(416, received=received, hresult=0))

    def test_the_first_one_is_tried_again_after_a_pause(self) -> None:
        upload = sending()
        self.assertIsInstance(self.refuse(upload), Later)
        self.assertIs(kind(upload), Fragment)

    def test_at_the_second_the_session_is_released_and_another_begun(self) -> None:
        upload = sending()
        self.refuse(upload)
        self.assertEqual(self.refuse(upload), Again(progress=False))
        self.assertEqual(upload.next_packet(), CancelSession("s"))
        upload.answered(Ack(200))
        self.assertIs(kind(upload), CreateSession)
        upload.answered(Ack(200, "t"))
        packet = upload.next_packet()
        assert isinstance(packet, Fragment)
        self.assertEqual((packet.session_id, packet.content_range.first), ("t", 0))

    def test_a_session_that_begins_so_is_the_end(self) -> None:
        for received, words in ((None, "without a BITS-Received-"), (0, "although")):
            upload = sending()
            self.refuse(upload, received)
            self.refuse(upload, received)
            upload.answered(Ack(200))
            upload.answered(Ack(200, "t"))
            self.refuse(upload, received)
            reaction = self.refuse(upload, received)
            assert isinstance(reaction, Refused)
            self.assertEqual((reaction.status, reaction.transient), (416, False))
            self.assertIn("answers 416 to the first byte of the file", reaction.cause)
            self.assertIn(words, reaction.cause)

    def test_a_server_that_does_not_release_it_is_left_with_it(self) -> None:
        for ack, phase in (
            (NOT_FOUND, Phase.CREATING),
            (Ack(403), Phase.CREATING),
            (Ack(503), Phase.RESTARTING),
        ):
            upload = sending()
            self.refuse(upload)
            self.refuse(upload)
            upload.answered(ack)
            self.assertIs(upload.phase, phase, ack)

    def test_what_was_acknowledged_in_between_makes_it_the_first_one(self) -> None:
        upload = sending(size=100)
        for _ in range(3):
            self.refuse(upload)
            self.refuse(upload)
            upload.answered(Ack(200))
            upload.answered(Ack(200, "t"))
            upload.answered(Ack(200, received=60))
            # It went on beyond what it says, and cannot tell.
            upload.answered(Ack(416))
        self.assertIs(upload.phase, Phase.SENDING)

    def test_an_upload_that_is_cancelled_meanwhile_is_not_begun_anew(self) -> None:
        upload = sending()
        self.refuse(upload)
        self.refuse(upload)
        upload.cancel()
        self.assertEqual(upload.answered(Ack(200)), Cancelled())


class StrangerTests(SynchronousTestCase):
    """Answers that are none of a BITS server's."""

    PORTAL = ("the answer is 302, a redirect to 'http://l/'", 302, "'http://l/'")
    PAGE = ("the answer is 200, but not an Ack", 200, None)

    def test_at_the_first_packet_there_is_no_server(self) -> None:
        reaction = Upload(100).answered_by_stranger(*self.PAGE)
        assert isinstance(reaction, Refused)
        self.assertEqual((reaction.status, reaction.transient), (200, False))
        self.assertIn("there is no BITS server at this URL", reaction.cause)

    def test_at_the_first_packet_a_redirection_says_where_it_may_be(self) -> None:
        reaction = Upload(100).answered_by_stranger(*self.PORTAL)
        assert isinstance(reaction, Refused)
        self.assertIn(
            "a redirect to 'http://l/': if the upload belongs", reaction.cause
        )

    def test_where_a_server_has_answered_it_will_pass(self) -> None:
        resumed = Upload(100, FragmentSizes.fixed(40))
        resumed.restore(Position("s", 40))
        begun_again = sending()
        begun_again.answered(NOT_FOUND)
        pinged = Upload(100, pings_connections=True)
        pinged.answered(Ack(200))
        for upload in (sending(), closing(), resumed, begun_again, pinged):
            before = upload.position
            for stranger in (self.PORTAL, self.PAGE):
                reaction = upload.answered_by_stranger(*stranger)
                assert isinstance(reaction, Later)
                self.assertIn(stranger[0], reaction.cause)
                self.assertIn("login page", reaction.cause)
            self.assertEqual(upload.position, before)

    def test_connections_that_are_authenticated_are_tried_anew(self) -> None:
        upload = Upload(100, pings_connections=True)
        upload.answered(Ack(200))
        upload.answered(Ack(200, "s"))
        upload.answered_by_stranger(*self.PAGE)
        self.assertEqual(upload.next_packet(), Ping())


class LostCloseTests(SynchronousTestCase):
    """An answer to Close-Session was lost, and the server does not know any more."""

    DONE = Done("s", None)

    def lost(self) -> Upload:
        upload = closing()
        upload.unanswered("cable cut")
        return upload

    def test_a_refusal_of_the_repeated_one_leaves_a_doubt(self) -> None:
        for status in (400, 403, 404, 409, 410):
            reaction = self.lost().answered(Ack(status))
            assert isinstance(reaction, Doubt), status
            self.assertEqual(reaction.done, self.DONE)
            self.assertFalse(reaction.may_be_older)
            assert isinstance(reaction.otherwise, Refused)
            self.assertEqual(reaction.otherwise.status, status)

    def test_a_session_that_is_gone_leaves_a_doubt_before_all_is_sent_again(
        self,
    ) -> None:
        upload = self.lost()
        reaction = upload.answered(NOT_FOUND)
        self.assertEqual(
            reaction, Doubt(self.DONE, Again(progress=False), may_be_older=True)
        )
        self.assertIs(kind(upload), CreateSession)

    def test_so_does_the_refusal_of_another_session(self) -> None:
        for status in (403, 409):
            upload = self.lost()
            upload.answered(NOT_FOUND)
            reaction = upload.answered(Ack(status))
            assert isinstance(reaction, Doubt)
            self.assertEqual(reaction.done, self.DONE)
            self.assertFalse(reaction.may_be_older)

    def test_whatever_hides_the_answer_loses_it(self) -> None:
        gateway, portal, paused = closing(), closing(), closing()
        gateway.answered(Ack(502))
        portal.answered_by_stranger("the answer is 200, but not an Ack", 200, None)
        paused.ping()
        paused.answered(Ack(200))
        resumed = Upload(100)
        resumed.restore(Position("s", 100))
        resumed.answered(Ack(200))
        for upload in (gateway, portal, paused, resumed):
            self.assertIsInstance(upload.answered(Ack(403)), Doubt)

    def test_where_none_was_lost_there_is_no_doubt(self) -> None:
        self.assertIsInstance(closing().answered(Ack(403)), Refused)
        self.assertEqual(closing().answered(NOT_FOUND), Again(progress=False))
        self.assertIsInstance(Upload(100).answered(Ack(403)), Refused)

    def test_passwords_and_passing_troubles_leave_none(self) -> None:
        for status, expected in ((401, Refused), (407, Refused), (503, Later)):
            self.assertIsInstance(self.lost().answered(Ack(status)), expected)

    def test_an_answer_at_last_is_the_end(self) -> None:
        self.assertEqual(self.lost().answered(Ack(200)), self.DONE)

    def test_what_is_cancelled_is_not_looked_for(self) -> None:
        upload = self.lost()
        upload.cancel()
        self.assertIsInstance(upload.answered(Ack(403)), Refused)

    def test_a_file_that_was_found_ends_the_upload(self) -> None:
        upload = self.lost()
        reaction = upload.answered(NOT_FOUND)
        assert isinstance(reaction, Doubt)
        self.assertEqual(upload.arrived(reaction.done), self.DONE)
        self.assertIs(upload.phase, Phase.OVER)
        self.assertEqual((upload.session_id, upload.offset), ("s", 100))

    def test_the_same_packet_follows_where_it_was_not_found(self) -> None:
        upload = self.lost()
        upload.answered(Ack(409))
        self.assertEqual(upload.next_packet(), CloseSession("s"))
