"""
The life of an upload on the client, without sockets.

The first class asks for one reaction at a time; the second lets an upload run against
a model server over a link that loses whatever hypothesis wants it to lose.
"""

from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.protocol.model_server import ModelServer
from txbits.protocol._fields import ContentRange, LocalProtocolError
from txbits.protocol.fragment_sizes import SMALLEST_FRAGMENT, FragmentSizes
from txbits.protocol.packets import (
    Ack,
    CancelSession,
    CloseSession,
    CreateSession,
    Fragment,
)
from txbits.protocol.reactions import (
    Again,
    Cancelled,
    Done,
    Doubt,
    Later,
    Refused,
)
from txbits.protocol.refusals import HResult
from txbits.protocol.upload import Phase, Upload

SESSION = "{7DF0354D-249B-430F-820D-3D2A9BEF4931}"
NOT_FOUND = Ack(500, SESSION, hresult=HResult.BG_E_SESSION_NOT_FOUND, context=5)


def sending(total: int = 100, fragment_size: int = 40) -> Upload:
    """An upload that has its session."""
    upload = Upload(total, FragmentSizes.fixed(fragment_size))
    upload.answered(Ack(200, SESSION))
    return upload


def closing() -> Upload:
    """An upload of which all bytes are acknowledged."""
    upload = sending(100, 100)
    upload.answered(Ack(200, SESSION, received=100))
    return upload


class ReactionTests(SynchronousTestCase):
    """What one answer leads to."""

    def assert_range(self, upload: Upload, first: int, last: int) -> None:
        packet = upload.next_packet()
        assert isinstance(packet, Fragment)
        self.assertEqual(
            packet.content_range, ContentRange(first, last, upload.total), packet
        )
        self.assertEqual(packet.content_length, last - first + 1)

    def test_create_session_comes_first_and_names_the_file(self) -> None:
        upload = Upload(10, content_name="a.txt")
        self.assertEqual(upload.next_packet(), CreateSession(content_name="a.txt"))

    def test_fragments_follow_the_session(self) -> None:
        upload = Upload(100, FragmentSizes.fixed(40))
        reaction = upload.answered(Ack(201, SESSION))
        self.assertEqual(reaction, Again(progress=False))
        self.assert_range(upload, 0, 39)

    def test_asking_twice_gives_the_same_packet(self) -> None:
        upload = sending()
        self.assertEqual(upload.next_packet(), upload.next_packet())

    def test_the_last_fragment_is_as_short_as_it_must_be(self) -> None:
        upload = sending(fragment_size=80)
        upload.answered(Ack(200, SESSION, received=80))
        self.assert_range(upload, 80, 99)

    def test_an_acknowledged_fragment_is_progress(self) -> None:
        upload = sending()
        reaction = upload.answered(Ack(200, SESSION, received=40))
        self.assertEqual(reaction, Again(progress=True))
        self.assert_range(upload, 40, 79)

    def test_close_follows_the_last_byte(self) -> None:
        self.assertEqual(closing().next_packet(), CloseSession(SESSION))

    def test_an_acknowledged_close_is_the_end(self) -> None:
        upload = closing()
        self.assertEqual(upload.answered(Ack(200)), Done(SESSION, None))
        with self.assertRaises(LocalProtocolError):
            upload.next_packet()

    def test_an_empty_file_has_no_fragment(self) -> None:
        upload = sending(total=0)
        self.assertEqual(upload.next_packet(), CloseSession(SESSION))

    def test_the_reply_url_of_the_last_fragment_is_kept(self) -> None:
        upload = sending(100, 100)
        upload.answered(Ack(200, SESSION, received=100, reply_url="http://h/r"))
        self.assertEqual(upload.answered(Ack(200)), Done(SESSION, "http://h/r"))

    def test_the_session_is_taken_from_create_only(self) -> None:
        # IIS names none afterwards.
        upload = sending()
        upload.answered(Ack(200, None, received=40))
        packet = upload.next_packet()
        assert isinstance(packet, Fragment)
        self.assertEqual(packet.session_id, SESSION)

    def test_a_missing_offset_means_the_whole_fragment(self) -> None:
        upload = sending()
        upload.answered(Ack(200, SESSION))
        self.assert_range(upload, 40, 79)

    def test_a_server_that_holds_more_than_it_was_sent_is_refused(self) -> None:
        for status in (200, 416):
            for received in (41, 100):
                upload = sending()
                reaction = upload.answered(Ack(status, SESSION, received=received))
                assert isinstance(reaction, Refused)
                self.assertFalse(reaction.transient)
                self.assert_range(upload, 0, 39)

    def test_a_server_that_holds_what_was_sent_before_is_obeyed(self) -> None:
        for status in (200, 416):
            upload = sending()
            upload.answered(Ack(200, SESSION))
            upload.next_packet()
            upload.unanswered("the Ack was lost")
            upload.answered(Ack(416, SESSION, received=0))
            upload.answered(Ack(status, SESSION, received=80))
            self.assert_range(upload, 80, 99)

    def test_what_another_session_was_sent_does_not_count(self) -> None:
        upload = sending()
        upload.answered(Ack(200, SESSION))
        upload.next_packet()
        upload.answered(NOT_FOUND)
        upload.answered(Ack(200, SESSION))
        self.assertIsInstance(upload.answered(Ack(200, SESSION, received=80)), Refused)

    def test_a_success_that_holds_part_of_the_fragment_is_obeyed(self) -> None:
        upload = sending()
        reaction = upload.answered(Ack(200, SESSION, received=7))
        self.assertEqual(reaction, Again(progress=True))
        self.assert_range(upload, 7, 46)

    def test_out_of_step_is_obeyed_at_once(self) -> None:
        upload = sending(fragment_size=80)
        upload.answered(Ack(200, SESSION, received=80))
        reaction = upload.answered(Ack(416, SESSION, received=3, hresult=0))
        self.assertEqual(reaction, Again(progress=False))
        self.assert_range(upload, 3, 82)

    def test_out_of_step_of_a_complete_file_is_closed(self) -> None:
        upload = sending(100, 100)
        upload.answered(Ack(416, SESSION, received=100))
        self.assertEqual(upload.next_packet(), CloseSession(SESSION))

    def test_out_of_step_without_an_offset_goes_back_to_the_beginning(self) -> None:
        upload = sending(fragment_size=80)
        upload.answered(Ack(200, SESSION, received=80))
        upload.answered(Ack(416, SESSION))
        self.assert_range(upload, 0, 79)

    def test_out_of_step_where_we_stand_is_not_sent_again_at_once(self) -> None:
        upload = sending()
        reaction = upload.answered(Ack(416, SESSION, received=0))
        self.assertIsInstance(reaction, Later)
        self.assert_range(upload, 0, 39)

    def test_a_success_that_takes_nothing_is_not_sent_again_at_once(self) -> None:
        upload = sending()
        reaction = upload.answered(Ack(200, SESSION, received=0, retry_after=9))
        assert isinstance(reaction, Later)
        self.assertEqual(reaction.retry_after, 9)

    def test_an_offset_beyond_the_file_is_refused(self) -> None:
        reaction = sending().answered(Ack(200, SESSION, received=101))
        assert isinstance(reaction, Refused)
        self.assertFalse(reaction.transient)

    def test_a_server_that_loses_everything_again_and_again_makes_no_progress(
        self,
    ) -> None:
        upload = sending(100, 100)
        reactions = []
        upload.answered(Ack(200, SESSION, received=60))
        for _ in range(3):
            reactions.append(upload.answered(Ack(416, SESSION, received=0)))
            caught_up = upload.answered(Ack(200, SESSION, received=60))
            self.assertEqual(caught_up, Again(progress=False))
        self.assertEqual(reactions[0], Again(progress=False))
        for reaction in reactions[1:]:
            self.assertIsInstance(reaction, Later)

    def test_going_further_than_ever_makes_up_for_setbacks(self) -> None:
        upload = sending(100, 100)
        upload.answered(Ack(200, SESSION, received=60))
        upload.answered(Ack(416, SESSION, received=0))
        upload.answered(Ack(200, SESSION, received=61))
        reaction = upload.answered(Ack(416, SESSION, received=0))
        self.assertEqual(reaction, Again(progress=False))

    def test_a_fragment_that_is_too_large_is_halved(self) -> None:
        upload = sending(10**6, 10**5)
        self.assertEqual(upload.answered(Ack(413)), Again(progress=False))
        self.assert_range(upload, 0, 49_999)

    def test_a_short_last_fragment_is_halved_by_its_own_length(self) -> None:
        upload = sending(4000, 10**6)
        upload.answered(Ack(413))
        self.assert_range(upload, 0, 1999)

    def test_fragments_are_not_made_smaller_without_end(self) -> None:
        upload = sending(10**6, SMALLEST_FRAGMENT + 1)
        upload.answered(Ack(413))
        self.assert_range(upload, 0, SMALLEST_FRAGMENT - 1)
        reaction = upload.answered(Ack(413, SESSION))
        assert isinstance(reaction, Refused)
        self.assertEqual(reaction.status, 413)

    def test_an_unknown_session_is_begun_again(self) -> None:
        upload = sending(fragment_size=80)
        upload.answered(Ack(200, SESSION, received=80))
        self.assertEqual(upload.answered(NOT_FOUND), Again(progress=False))
        self.assertEqual(upload.next_packet(), CreateSession())
        other = "another"
        upload.answered(Ack(200, other))
        packet = upload.next_packet()
        assert isinstance(packet, Fragment)
        self.assertEqual((packet.session_id, packet.content_range.first), (other, 0))

    def test_an_unknown_session_at_close_is_begun_again(self) -> None:
        upload = closing()
        upload.answered(NOT_FOUND)
        self.assertEqual(upload.next_packet(), CreateSession())

    def test_the_status_beside_an_unknown_session_does_not_matter(self) -> None:
        upload = sending()
        upload.answered(Ack(404, hresult=HResult.BG_E_SESSION_NOT_FOUND))
        self.assertEqual(upload.next_packet(), CreateSession())

    def test_a_server_that_knows_no_session_at_all_is_not_hammered(self) -> None:
        upload = sending()
        upload.answered(NOT_FOUND)
        upload.answered(Ack(200, "another"))
        self.assertIsInstance(upload.answered(NOT_FOUND), Later)

    def test_create_that_finds_no_session_is_an_ordinary_failure(self) -> None:
        upload = Upload(100)
        self.assertIsInstance(upload.answered(NOT_FOUND), Later)
        self.assertEqual(upload.next_packet(), CreateSession())

    def test_transient_statuses_are_sent_again_later(self) -> None:
        for status in (408, 409, 500, 502, 503, 504, 599):
            for upload in (Upload(100), sending()):
                packet = upload.next_packet()
                reaction = upload.answered(Ack(status, retry_after=7))
                assert isinstance(reaction, Later), status
                self.assertEqual((reaction.status, reaction.retry_after), (status, 7))
                self.assertEqual(upload.next_packet(), packet)

    def test_final_statuses_are_refused(self) -> None:
        for status in (301, 400, 401, 403, 404, 405, 411, 429, 501, 505):
            for upload in (Upload(100), sending()):
                reaction = upload.answered(Ack(status, hresult=0x80070005))
                assert isinstance(reaction, Refused), status
                self.assertEqual(reaction.status, status)
                self.assertEqual(reaction.hresult, 0x80070005)
                self.assertFalse(reaction.transient)

    def test_a_file_that_is_too_large_is_refused_whatever_the_status(self) -> None:
        ack = Ack(500, SESSION, hresult=HResult.BG_E_TOO_LARGE)
        self.assertIsInstance(sending().answered(ack), Refused)

    def test_close_is_sent_again_after_any_5xx(self) -> None:
        for status in (500, 501, 503, 505, 599):
            upload = closing()
            self.assertIsInstance(upload.answered(Ack(status)), Later)
            self.assertEqual(upload.next_packet(), CloseSession(SESSION))

    def test_close_is_not_sent_again_after_anything_else(self) -> None:
        for status, transient in (
            (403, False),
            (404, False),
            (408, True),
            (304, False),
        ):
            reaction = closing().answered(Ack(status))
            assert isinstance(reaction, Refused), status
            self.assertEqual(reaction.transient, transient, status)

    def test_no_answer_leads_to_the_same_packet(self) -> None:
        for upload in (Upload(100), sending(), closing()):
            packet = upload.next_packet()
            self.assertEqual(upload.unanswered("cable cut"), Later("cable cut"))
            self.assertEqual(upload.next_packet(), packet)

    def test_create_without_a_session_is_refused(self) -> None:
        self.assertIsInstance(Upload(1).answered(Ack(200)), Refused)

    def test_a_protocol_that_was_not_offered_is_refused(self) -> None:
        ack = Ack(200, SESSION, protocol=uuid4())
        self.assertIsInstance(Upload(1).answered(ack), Refused)

    def test_sizes_that_make_no_sense_are_refused(self) -> None:
        self.assertRaises(ValueError, Upload, -1)
        self.assertRaises(ValueError, FragmentSizes.fixed, 0)


class CancelTests(SynchronousTestCase):
    """An upload that is not wanted any more."""

    def test_cancel_before_a_session_needs_no_packet(self) -> None:
        upload = Upload(100)
        self.assertEqual(upload.cancel(), Cancelled())
        self.assertIs(upload.phase, Phase.OVER)

    def test_cancel_is_said_to_the_server(self) -> None:
        for upload in (sending(), closing()):
            self.assertEqual(upload.cancel(), Again(progress=False))
            self.assertEqual(upload.next_packet(), CancelSession(SESSION))
            self.assertEqual(upload.answered(Ack(200)), Cancelled())
            self.assertRaises(LocalProtocolError, upload.next_packet)

    def test_an_unknown_session_is_cancelled_and_not_begun_again(self) -> None:
        upload = sending()
        upload.cancel()
        self.assertEqual(upload.answered(NOT_FOUND), Cancelled())

    def test_cancel_is_sent_again_after_5xx_and_loss(self) -> None:
        upload = sending()
        upload.cancel()
        self.assertIsInstance(upload.answered(Ack(500)), Later)
        self.assertIsInstance(upload.unanswered("cable cut"), Later)
        self.assertEqual(upload.next_packet(), CancelSession(SESSION))

    def test_cancel_is_not_sent_again_after_4xx(self) -> None:
        upload = sending()
        upload.cancel()
        self.assertIsInstance(upload.answered(Ack(403)), Refused)


MISHAPS = st.lists(
    st.one_of(
        st.just(("deliver", 0)),
        st.just(("lose request", 0)),
        st.just(("lose ack", 0)),
        st.tuples(st.just("cut"), st.integers(0, 5000)),
        st.just(("forget", 0)),
        st.tuples(st.just("fall back"), st.integers(1, 5000)),
        st.just(("busy", 0)),
    ),
    max_size=40,
)


class ModelTests(SynchronousTestCase):
    """Whole uploads, over a link that loses what it is told to."""

    @given(
        data=st.binary(max_size=5000),
        fragment_size=st.integers(1, 6000),
        largest=st.integers(SMALLEST_FRAGMENT, 6000),
        mishaps=MISHAPS,
    )
    def test_whatever_gets_lost_the_file_arrives(
        self,
        data: bytes,
        fragment_size: int,
        largest: int,
        mishaps: list[tuple[str, int]],
    ) -> None:
        # Not so many fragments that an example takes seconds.
        fragment_size = max(fragment_size, len(data) // 50 + 1)
        server = ModelServer(largest)
        upload = Upload(len(data), FragmentSizes.fixed(fragment_size))
        pending = list(reversed(mishaps))
        for _ in range(10_000):
            packet = upload.next_packet()
            body = b""
            if isinstance(packet, Fragment):
                content_range = packet.content_range
                body = data[content_range.first : content_range.last + 1]
            mishap, count = pending.pop() if pending else ("deliver", 0)
            if mishap == "forget":
                server.forget()
            elif mishap == "fall back" and not isinstance(packet, CloseSession):
                # Once it has acknowledged the last byte, a server that loses some can
                # no longer tell: Close-Session of half a file is a success.
                server.fall_back(count)
            if mishap == "busy":
                reaction = upload.answered(Ack(503))
            elif mishap == "lose request":
                reaction = upload.unanswered(mishap)
            elif mishap in ("lose ack", "cut"):
                server.receive(packet, body[:count] if mishap == "cut" else body)
                reaction = upload.unanswered(mishap)
            else:
                reaction = upload.answered(server.receive(packet, body))
            if isinstance(reaction, Doubt):
                if server.published == data:
                    reaction = upload.arrived(reaction.done)
                else:
                    reaction = reaction.otherwise
            if isinstance(reaction, Done):
                self.assertEqual(server.published, data)
                return
            self.assertIsInstance(reaction, (Again, Later))
        self.fail("the upload does not come to an end")

    def test_nothing_is_sent_twice_where_nothing_is_lost(self) -> None:
        data = bytes(range(256)) * 40
        server = ModelServer()
        upload = Upload(len(data), FragmentSizes.fixed(1000))
        while True:
            packet = upload.next_packet()
            body = b""
            if isinstance(packet, Fragment):
                content_range = packet.content_range
                body = data[content_range.first : content_range.last + 1]
            reaction = upload.answered(server.receive(packet, body))
            if isinstance(reaction, Done):
                break
        self.assertEqual((server.published, server.taken), (data, len(data)))
