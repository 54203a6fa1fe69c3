"""
Packets and Acks as values.
"""

from __future__ import annotations

from uuid import UUID

from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.protocol.strategies import content_ranges
from txbits.protocol._fields import (
    BITS_UPLOAD_PROTOCOL,
    ContentRange,
    LocalProtocolError,
)
from txbits.protocol.packets import (
    PACKETS,
    Ack,
    CancelSession,
    CloseSession,
    CreateSession,
    Fragment,
    Ping,
)

SESSION = UUID("2c4f5a1e-93b7-4d08-a6c1-7e0f9d3b8a52")


class PacketTests(SynchronousTestCase):
    """The five packets."""

    def test_each_is_found_by_its_type_in_lower_case(self) -> None:
        self.assertEqual(
            PACKETS,
            {
                b"ping": Ping,
                b"create-session": CreateSession,
                b"fragment": Fragment,
                b"close-session": CloseSession,
                b"cancel-session": CancelSession,
            },
        )

    def test_a_new_session_asks_for_our_protocol(self) -> None:
        self.assertEqual(CreateSession().protocols, (BITS_UPLOAD_PROTOCOL,))

    def test_they_do_not_change(self) -> None:
        packet = CloseSession(SESSION)
        with self.assertRaises(FrozenInstanceError):
            packet.session_id = UUID(int=0)  # type: ignore[misc]

    def test_equal_ones_are_equal(self) -> None:
        self.assertEqual(CancelSession(SESSION), CancelSession(UUID(str(SESSION))))
        self.assertNotEqual(CancelSession(SESSION), CloseSession(SESSION))


class FragmentTests(SynchronousTestCase):
    """A Fragment is as long as its range, or it cannot be made."""

    def test_range_and_length_that_disagree(self) -> None:
        for length in (0, 4, 6, -5):
            self.assertRaises(
                LocalProtocolError, Fragment, SESSION, ContentRange(0, 4, 9), length
            )

    def test_a_chunked_one_has_no_length(self) -> None:
        fragment = Fragment(SESSION, ContentRange(0, 4, 9), None)
        self.assertIs(fragment.content_length, None)

    def test_one_of_an_empty_file(self) -> None:
        self.assertEqual(
            Fragment(SESSION, ContentRange.empty(), 0).content_range.total, 0
        )
        self.assertRaises(
            LocalProtocolError, Fragment, SESSION, ContentRange.empty(), 1
        )

    @given(content_ranges(max_total=12), st.integers(-1, 13))
    def test_whatever_can_be_made_agrees(
        self, content_range: ContentRange, length: int
    ) -> None:
        try:
            fragment = Fragment(SESSION, content_range, length)
        except LocalProtocolError:
            self.assertNotEqual(length, content_range.length)
        else:
            self.assertEqual(fragment.content_length, content_range.length)


class AckTests(SynchronousTestCase):
    """Acks."""

    def test_all_of_200_is_success(self) -> None:
        self.assertTrue(Ack(200).success)
        self.assertTrue(Ack(201).success)

    def test_anything_else_is_none(self) -> None:
        for status in (100, 199, 300, 302, 400, 404, 416, 500, 503):
            self.assertFalse(Ack(status).success)

    def test_what_is_not_said_is_not_there(self) -> None:
        ack = Ack(200)
        self.assertEqual(
            (ack.session_id, ack.received, ack.hresult, ack.context), (None,) * 4
        )
