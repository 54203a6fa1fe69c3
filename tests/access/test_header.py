"""
Names that a trusted proxy sends in a header.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txbits.access.header import HeaderAuthenticator
from txbits.errors import CredentialsRejected, InvalidSetting
from txbits.interfaces import Credentials, IAuthenticator, Identity


class HeaderTests(SynchronousTestCase):
    """``HeaderAuthenticator``."""

    def ask(self, *values, trusted=True, name=b"x-remote-user", header=None):
        authenticator = HeaderAuthenticator(*([header] if header else []))
        credentials = Credentials(
            {name: list(values)} if values else {}, from_trusted_proxy=trusted
        )
        self.assertIsNone(authenticator.challenge(credentials))
        return authenticator.authenticate(credentials)

    def test_it_is_an_authenticator(self):
        self.assertTrue(verifyObject(IAuthenticator, HeaderAuthenticator()))

    def test_a_trusted_proxy_tells_the_name(self):
        for value, name in (
            (b"alice", "alice"),
            (b" \tal ice ", "al ice"),
            ("zoë".encode(), "zoë"),
            (b"zo\xeb", "zoë"),
        ):
            self.assertEqual(
                self.successResultOf(self.ask(value)), Identity(name, "header")
            )

    def test_from_anyone_else_the_header_is_as_if_it_were_not_there(self):
        for values in ((b"alice",), (b"alice", b"bob"), (b"../x",)):
            self.assertIsNone(self.successResultOf(self.ask(*values, trusted=False)))

    def test_without_a_name_nobody_is_known(self):
        for values in ((), (b"",), (b"  ",), (b"(null)",)):
            self.assertIsNone(self.successResultOf(self.ask(*values)))

    def test_two_such_headers_are_refused_however_they_are_written(self):
        for values in ((b"alice", b"alice"), (b"alice, bob",), (b"", b"alice")):
            error = self.failureResultOf(self.ask(*values), CredentialsRejected)
            self.assertIn("must remove the header", str(error.value))

    def test_what_cannot_be_a_name_is_refused(self):
        for value in (b"a/b", b"EXAMPLE\\alice", b"..", b"anonymous", b"x" * 256):
            self.failureResultOf(self.ask(value), CredentialsRejected)

    def test_another_header_can_be_named(self):
        asked = self.ask(b"alice", name=b"x-forwarded-user", header="X-Forwarded-User")
        self.assertEqual(self.successResultOf(asked).name, "alice")
        self.assertIsNone(
            self.successResultOf(self.ask(b"alice", header="X-Forwarded-User"))
        )

    def test_what_cannot_be_such_a_header_is_refused(self):
        for header in ("", "X User", "X-User:", "Zoë", "Authorization", "via"):
            self.assertRaises(InvalidSetting, HeaderAuthenticator, header)
