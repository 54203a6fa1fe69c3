"""
How a server is reached: which settings make sense.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txbits.client.settings import ConnectionSettings, Credentials, InvalidSettings


class SettingsTests(SynchronousTestCase):
    """What is taken, and what is refused."""

    def test_headers_of_the_protocol_cannot_be_set(self) -> None:
        for name in ("BITS-Packet-Type", "content-length", "Transfer-Encoding"):
            error = self.assertRaises(
                InvalidSettings, ConnectionSettings, headers=[(name, "x")]
            )
            self.assertIn(name, str(error))

    def test_headers_that_cannot_be_sent_are_refused(self) -> None:
        for header in (("", "x"), ("a b", "x"), ("a:", "x"), ("a", "x\r\ny: z")):
            self.assertRaises(InvalidSettings, ConnectionSettings, headers=[header])

    def test_the_value_of_a_header_is_not_repeated(self) -> None:
        error = self.assertRaises(
            InvalidSettings, ConnectionSettings, headers=[("X-Token", "secret\n")]
        )
        self.assertNotIn("secret", str(error))

    def test_names_that_no_server_can_read_are_refused(self) -> None:
        for user in ("a:b", "a\nb"):
            self.assertRaises(InvalidSettings, Credentials, user, "x")

    def test_numbers_that_make_no_sense_are_refused(self) -> None:
        for setting in ("limit_rate", "request_timeout", "response_timeout"):
            self.assertRaises(ValueError, ConnectionSettings, **{setting: 0})

    def test_secrets_are_not_shown(self) -> None:
        settings = ConnectionSettings(
            credentials=Credentials("me", "secret"),
            proxy_credentials=Credentials("me", "secret"),
            key=b"secret",
        )
        self.assertNotIn("secret", repr(settings))


class StrangerTests(SynchronousTestCase):
    """What is meant for one server alone."""

    def test_others_are_told_nothing_of_it(self) -> None:
        for secret in (
            {"headers": [("X-Token", "x")]},
            {"credentials": Credentials("me", "x")},
            {"certificate": b"x"},
            {"key": b"x"},
            {"negotiate": True},
            {"token": "x"},
            {"token_file": "x"},
        ):
            settings = ConnectionSettings(proxy="http://p", limit_rate=5, **secret)
            self.assertTrue(settings.has_secrets)
            for_strangers = settings.for_strangers
            self.assertFalse(for_strangers.has_secrets)
            self.assertEqual(
                for_strangers, ConnectionSettings(proxy="http://p", limit_rate=5)
            )
