"""
What users read of an answer, and which answers may pass.
"""

from twisted.trial.unittest import SynchronousTestCase

from txbits.protocol.packets import Ack
from txbits.protocol.reactions import describe, is_transient


class WordsTests(SynchronousTestCase):
    """What users read."""

    def test_known_codes_are_named(self) -> None:
        self.assertEqual(
            describe(Ack(403, hresult=0x80070005, context=5)),
            "the server answered 403 Forbidden (E_ACCESSDENIED, 0x80070005)",
        )

    def test_the_application_behind_the_server_is_told_apart(self) -> None:
        self.assertEqual(
            describe(Ack(404, hresult=0x80190194, context=7)),
            "the server application answered 404 Not Found (0x80190194)",
        )

    def test_unknown_statuses_are_numbers(self) -> None:
        self.assertEqual(describe(Ack(599)), "the server answered 599")

    def test_transient_statuses_are_as_documented(self) -> None:
        transient = [status for status in range(100, 700) if is_transient(status)]
        expected = [408, 409, *(s for s in range(500, 600) if s not in (501, 505))]
        self.assertEqual(transient, expected)
