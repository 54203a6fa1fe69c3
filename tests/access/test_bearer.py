"""
Tokens from a file, and what a client that sends one is told.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.access.support import authorized
from txbits.access.bearer import BearerAuthenticator, Tokens
from txbits.errors import (
    CredentialsRejected,
    CredentialsUncheckable,
    InvalidSetting,
)
from txbits.interfaces import Credentials, IAuthenticator, Identity, IKnowing

TOKEN = secrets.token_urlsafe(32)


def digest(token):
    return hashlib.sha256(token.encode()).hexdigest()


def at(text):
    """Seconds since the epoch."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


class TokenCase(SynchronousTestCase):
    """Files with tokens."""

    def file(self, text, mode=0o600):
        path = self.mktemp()
        Path(path).write_text(text)
        os.chmod(path, mode)
        return path

    def tokens(self, *lines):
        return Tokens.read(self.file("".join(f"{line}\n" for line in lines)))


class TokensTests(TokenCase):
    """``Tokens.read``."""

    def complaint(self, text, mode=0o600):
        path = self.file(text, mode)
        error = str(self.assertRaises(InvalidSetting, Tokens.read, path))
        self.assertNotIn("\n", error)
        self.assertNotIn(digest(TOKEN), error)
        self.assertTrue(error.startswith(path), error)
        return error.removeprefix(path)

    def test_a_line_has_a_name_a_hash_groups_and_an_expiry(self):
        other = secrets.token_urlsafe(32)
        tokens = self.tokens(
            "# build servers",
            f"build:{digest(TOKEN)}:ci, nightly,:2027-01-31T12:00:00+01:00",
            f"build:{digest(other).upper()}",
        )
        self.assertEqual(
            tokens.find(TOKEN.encode()),
            (
                Identity("build", "bearer", frozenset({"ci", "nightly"})),
                at("2027-01-31 11:00"),
            ),
        )
        self.assertEqual(
            tokens.find(other.encode()), (Identity("build", "bearer"), float("inf"))
        )
        self.assertIsNone(tokens.find(digest(TOKEN).encode()))

    def test_a_day_is_valid_until_its_end(self):
        for line in (f"a:{digest(TOKEN)}::2027-01-31",):
            _, ends = self.tokens(line).find(TOKEN.encode())
            self.assertAlmostEqual(ends, at("2027-02-01"), places=3)

    def test_no_hash_is_in_its_representation(self):
        self.assertNotIn(
            digest(TOKEN)[:8],
            repr(self.tokens(f"a:{digest(TOKEN)}")).replace("\\x", ""),
        )

    def test_what_is_no_hash_is_refused_by_the_number_of_its_line(self):
        for line in ("a", "a:", f"a:{TOKEN}", f"a:{digest(TOKEN)[1:]}", "a:$2y$05$x"):
            error = self.complaint(f"\n{line}\n")
            self.assertRegex(error, "^: line 2: the hash of 'a' is not the SHA-256")
            self.assertNotIn(TOKEN, error)

    def test_what_is_no_name_is_refused(self):
        for name in ("", "a/b", "anonymous"):
            self.assertIn(
                "cannot be the name", self.complaint(f"{name}:{digest(TOKEN)}")
            )

    def test_what_is_no_time_is_refused(self):
        for expires in ("soon", "2027-13-01", "2027-01-31T12:00:00", "30d", "1:2:3"):
            self.assertRegex(
                self.complaint(f"a:{digest(TOKEN)}::{expires}"),
                r"is no time; write a day, such as 2027-01-31, or",
            )

    def test_the_same_hash_twice_is_refused(self):
        line = f"a:{digest(TOKEN)}\n"
        self.assertEqual(
            self.complaint(line + line.replace("a:", "b:", 1)),
            ": line 2 has the hash of another line",
        )

    def test_files_without_tokens_and_files_for_everyone_are_refused(self):
        for text in ("", "# none\n"):
            self.assertIn("must contain lines such as NAME", self.complaint(text))
        self.assertIn("chmod o-rw", self.complaint(f"a:{digest(TOKEN)}", 0o644))

    @given(st.text(st.characters(blacklist_categories=["Cs"])))
    def test_nothing_else_is_raised(self, text):
        path = self.mktemp()
        Path(path).write_bytes(text.encode())
        os.chmod(path, 0o600)
        self.addCleanup(os.unlink, path)
        try:
            Tokens.read(path)
        except InvalidSetting as error:
            self.assertEqual(len(str(error).splitlines()), 1, str(error))


class FakeJWT:
    """Verifies nothing."""

    def __init__(self, answer=None):
        self.answer = answer
        self.adopted = None

    def verify(self, token):
        self.token = token
        return fail(self.answer) if self.answer else succeed(Identity("jwt", "bearer"))

    def adopt(self, previous):
        self.adopted = previous


class BearerTests(TokenCase):
    """``BearerAuthenticator``."""

    def setUp(self):
        self.clock = Clock()
        self.clock.advance(at("2027-01-01"))
        self.authenticator = self.make(f"build:{digest(TOKEN)}:ci:2027-01-31")

    def make(self, *lines, **more):
        return BearerAuthenticator(self.clock, tokens=self.tokens(*lines), **more)

    def ask(self, value):
        return self.authenticator.authenticate(authorized(value.encode()))

    def rejected(self, value):
        error = self.failureResultOf(self.ask(value), CredentialsRejected).value
        self.assertNotIn(TOKEN, str(error))
        return str(error)

    def test_it_is_an_authenticator(self):
        self.assertTrue(verifyObject(IAuthenticator, self.authenticator))

    def test_it_knows_whose_tokens_have_not_expired(self):
        self.assertTrue(verifyObject(IKnowing, self.authenticator))
        self.assertTrue(self.authenticator.knows("build"))
        self.assertFalse(self.authenticator.knows("alice"))
        self.clock.advance(31 * 86400)
        self.assertFalse(self.authenticator.knows("build"))
        self.assertTrue(self.make(f"a:{digest(TOKEN)}", jwt=object()).knows("b"))

    def test_it_needs_something_to_check_tokens_by(self):
        self.assertRaises(InvalidSetting, BearerAuthenticator, self.clock)

    def test_a_token_tells_who_sends_it(self):
        for scheme in ("Bearer", "bearer", "BEARER "):
            self.assertEqual(
                self.successResultOf(self.ask(f"{scheme} {TOKEN}")),
                Identity("build", "bearer", frozenset({"ci"})),
            )

    def test_credentials_of_other_schemes_are_for_others(self):
        for credentials in (Credentials({}), authorized(b"Basic " + TOKEN.encode())):
            asked = self.authenticator.authenticate(credentials)
            self.assertIsNone(self.successResultOf(asked))

    def test_unknown_and_malformed_tokens_are_rejected(self):
        self.assertEqual(self.rejected(f"Bearer {TOKEN}x"), "there is no such token")
        for token in ("", "a b", "a=b", '"a"', "ä", TOKEN + ","):
            self.assertIn("malformed", self.rejected(f"Bearer {token}"))

    def test_a_token_expires(self):
        self.clock.advance(31 * 86400 - 1)
        self.successResultOf(self.ask(f"Bearer {TOKEN}"))
        self.clock.advance(1)
        self.assertEqual(
            self.rejected(f"Bearer {TOKEN}"), "the token of 'build' has expired"
        )

    def test_clients_without_a_valid_token_are_told_which_is_the_case(self):
        challenge = self.authenticator.challenge
        self.assertEqual(challenge(Credentials({})), b'Bearer realm="txbits"')
        self.assertEqual(challenge(authorized(b"Basic x")), b'Bearer realm="txbits"')
        self.assertEqual(
            challenge(authorized(b"Bearer x")),
            b'Bearer realm="txbits", error="invalid_token"',
        )

    def test_other_tokens_are_verified_by_the_issuer_s_keys(self):
        jwt = FakeJWT()
        self.authenticator = self.make(f"build:{digest(TOKEN)}", jwt=jwt)
        self.assertEqual(
            self.successResultOf(self.ask(f"Bearer {TOKEN}")).name, "build"
        )
        self.assertEqual(self.successResultOf(self.ask("Bearer a.b.c")).name, "jwt")
        self.assertEqual(jwt.token, b"a.b.c")
        self.authenticator = BearerAuthenticator(
            self.clock, jwt=FakeJWT(CredentialsUncheckable("away", 3))
        )
        self.failureResultOf(self.ask("Bearer a.b.c"), CredentialsUncheckable)

    def test_after_a_reload_fetched_keys_stay(self):
        old, new = FakeJWT(), FakeJWT()
        previous = BearerAuthenticator(self.clock, jwt=old)
        BearerAuthenticator(self.clock, jwt=new).adopt(previous)
        self.assertIs(new.adopted, old)
        self.authenticator.adopt(previous)
