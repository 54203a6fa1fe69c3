"""
Upload links: which are valid, and what they permit.
"""

from __future__ import annotations

import os
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import URLSafeSerializer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txbits.access.links import (
    LONGEST_LINK,
    MOST_KEYS,
    Link,
    LinkAuthenticator,
    LinkKeys,
    canonical_mount,
    new_id,
)
from txbits.errors import AccessDenied, CredentialsRejected, InvalidSetting
from txbits.interfaces import Credentials, IAuthenticator, Identity, IKnowing
from txbits.protocol.urls import LINK_PARAMETER

OLD, NEW = b"o" * 32, b"n" * 32
KEYS = LinkKeys([NEW, OLD])
NOW = 1_000_000.0
LINK = Link(
    id="12ab",
    mount="/cases",
    path=("17",),
    is_tree=True,
    expires=int(NOW) + 100,
    max_size=5000,
    name="anna",
    is_once=False,
)


def query(*signed: str | bytes) -> bytes:
    """The query with some links."""
    values = [one.encode() if isinstance(one, str) else one for one in signed]
    return b"&".join(LINK_PARAMETER.encode() + b"=" + one for one in values)


class LinkCase(SynchronousTestCase):
    """An authenticator of one directory."""

    def setUp(self):
        self.now = NOW
        self.authenticator = self.made()

    def made(self, keys: LinkKeys = KEYS, **settings: Any) -> LinkAuthenticator:
        settings = {"mount": "/cases", "grace": 1000.0, **settings}
        return LinkAuthenticator(keys, wall=lambda: self.now, **settings)

    def asked(self, given: bytes, authenticator: Any = None) -> Any:
        return (authenticator or self.authenticator).authenticate(
            Credentials({}, query=given)
        )

    def identity(self, link: Link, authenticator: Any = None) -> Identity:
        found: Identity = self.successResultOf(
            self.asked(query(KEYS.sign(link)), authenticator)
        )
        return found

    def refused(self, given: bytes, authenticator: Any = None) -> str:
        failure = self.failureResultOf(
            self.asked(given, authenticator), CredentialsRejected
        )
        self.assertNotIn(b"=" + str(failure.value).encode(), given)
        return str(failure.value)


class AuthenticatorTests(LinkCase):
    """Who has a link is somebody."""

    def test_it_is_an_authenticator(self):
        verifyObject(IAuthenticator, self.authenticator)
        verifyObject(IKnowing, self.authenticator)
        self.assertFalse(self.authenticator.knows("anna"))
        self.assertEqual(self.authenticator.scheme, "link")
        self.assertIsNone(self.authenticator.challenge(Credentials({})))

    def test_a_link_is_an_identity_of_its_own(self):
        identity = self.identity(LINK)
        self.assertEqual((identity.name, identity.scheme), ("link/anna", "link"))
        scope = identity.scope
        assert scope is not None
        self.assertEqual((scope.path, scope.is_tree), (("17",), True))
        self.assertFalse(scope.grant.overwrite)
        self.assertEqual(scope.grant.max_size, 5000)
        self.assertIsNone(scope.grant.claim)

    def test_one_that_is_good_once_has_a_claim_of_its_own(self):
        identity = self.identity(evolve(LINK, is_once=True))
        assert identity.scope is not None
        self.assertEqual(identity.scope.grant.claim, "link/12ab")
        self.assertGreater(identity.scope.grant.claim_until, LINK.expires + 1000)

    def test_other_parameters_are_beside_it(self):
        signed = KEYS.sign(LINK).encode()
        given = b"a=1&" + query(signed) + b"&b=%2"
        self.assertEqual(self.successResultOf(self.asked(given)).name, "link/anna")
        given = given.replace(b"txbits-link=", b"%74xbits%2Dlink=")
        self.assertEqual(self.successResultOf(self.asked(given)).name, "link/anna")

    def test_without_one_it_knows_nobody(self):
        for other in (b"", b"a=1", b"txbits=link", b"x=txbits-link", b"%&%zz=1"):
            self.assertIsNone(self.successResultOf(self.asked(other)))

    def test_what_it_permits(self):
        scope = self.identity(LINK).scope
        assert scope is not None
        for kind in ("Ping", "Create-Session", "Fragment", "Close-Session", "Reply"):
            self.assertIs(scope.check(("17", "a", "b.txt"), kind), scope.grant)
        for destination in ((), ("17",), ("18", "a"), ("17", "..", "a"), ("171", "a")):
            with self.assertRaises(AccessDenied):
                scope.check(destination, "Create-Session")
        for method in ("GET", "HEAD"):
            with self.assertRaises(AccessDenied):
                scope.check(("17", "a"), method)

    def test_one_for_a_file_permits_nothing_else(self):
        scope = self.identity(evolve(LINK, is_tree=False, path=("17", "a.zip"))).scope
        assert scope is not None
        scope.check(("17", "a.zip"), "Create-Session")
        for destination in (("17",), ("17", "a.zip", "b"), ("17", "A.zip"), ()):
            with self.assertRaises(AccessDenied):
                scope.check(destination, "Create-Session")

    def test_one_for_the_whole_directory(self):
        scope = self.identity(evolve(LINK, path=())).scope
        assert scope is not None
        scope.check(("a",), "Create-Session")
        scope.check(("a", "b"), "Create-Session")

    def test_one_for_another_directory_is_not_valid(self):
        signed = query(KEYS.sign(LINK))
        for mount in ("/", "/other", "/cases/17", "/Cases"):
            self.assertIn("/cases", self.refused(signed, self.made(mount=mount)))
        for mount in ("/cases", "/cases/", "/c%61ses"):
            self.identity(LINK, self.made(mount=mount))

    def test_two_links_are_none(self):
        signed = KEYS.sign(LINK)
        self.assertIn("more than one", self.refused(query(signed, signed)))

    def test_a_link_that_was_changed_is_not_valid(self):
        signed = KEYS.sign(LINK)
        for number, character in enumerate(signed[:-1]):
            other = "A" if character != "A" else "B"
            given = query(signed[:number] + other + signed[number + 1 :])
            self.refused(given)
        self.refused(query(signed.rpartition(".")[0]))
        self.refused(query(signed + "A" * LONGEST_LINK))
        self.refused(query(b""))

    def test_a_name_that_could_be_another_place_is_refused(self):
        for name in ("../x", "a/b", "*", "anonymous", "\0"):
            self.refused(query(KEYS.sign(evolve(LINK, name=name))))

    def test_what_else_was_signed_with_the_key_is_no_link(self):
        for salt in (b"txbits upload link 1", b"other"):
            for what in ([], {}, "x", [1] * 7, ["a", "/cases", "", -1, "", 0, 0]):
                other = URLSafeSerializer(NEW, salt=salt)
                self.refused(query(other.dumps(what)))
                self.refused(query(KEYS._serializer.dumps(what)))

    @given(st.binary(max_size=60) | st.text().map(lambda text: text.encode()))
    def test_no_query_raises_anything_else(self, given):
        for one in (given, query(given), query(given) + b"&" + given):
            outcome: list[Any] = []
            self.asked(one).addBoth(outcome.append)
            if outcome[0] is not None:
                outcome[0].trap(CredentialsRejected)

    def test_nothing_shows_a_secret(self):
        signed = KEYS.sign(LINK)
        credentials = Credentials({}, query=query(signed))
        identity = self.identity(LINK)
        for shown in map(repr, (KEYS, self.authenticator, credentials, identity)):
            self.assertNotIn(signed, shown)
            self.assertNotIn("nnn", shown)


class TimeTests(LinkCase):
    """How long a link is valid."""

    def test_it_expires(self):
        signed = query(KEYS.sign(LINK))
        self.now = LINK.expires + 1000.0
        self.assertIn("has expired", self.refused(signed))

    def test_within_the_grace_it_goes_on_with_sessions_only(self):
        self.now = LINK.expires - 0.5
        scope = self.identity(LINK).scope
        assert scope is not None
        scope.check(("17", "a"), "Create-Session")
        for late in (0.0, 999.5):
            self.now = LINK.expires + late
            scope = self.identity(LINK).scope
            assert scope is not None
            with self.assertRaisesRegex(CredentialsRejected, "has expired"):
                scope.check(("17", "a"), "Create-Session")
            # Windows pings when it goes on.
            for kind in ("Ping", "Fragment", "Close-Session", "Cancel-Session"):
                scope.check(("17", "a"), kind)

    def test_it_can_be_revoked_by_its_name_or_id(self):
        signed = query(KEYS.sign(LINK))
        for names in (["anna"], ["12ab"], ("bob", "anna")):
            self.assertIn("revoked", self.refused(signed, self.made(revoked=names)))
        self.identity(LINK, self.made(revoked=["ann", "12", "link/anna", ""]))


class KeyTests(LinkCase):
    """The keys, and their file."""

    def file(self, content: str, mode: int = 0o600) -> str:
        path = self.mktemp()
        with open(path, "w") as file:
            file.write(content)
        os.chmod(path, mode)
        return path

    def test_the_first_signs_and_all_verify(self):
        for keys in (LinkKeys([OLD]), LinkKeys([OLD, NEW])):
            self.assertEqual(KEYS.verify(keys.sign(LINK).encode()), LINK)
        signed = KEYS.sign(LINK)
        self.assertEqual(LinkKeys([NEW]).verify(signed.encode()), LINK)
        self.refused(query(signed), self.made(LinkKeys([OLD])))

    def test_it_signs_with_sha_256(self):
        signature = KEYS.sign(LINK).rpartition(".")[2]
        self.assertEqual(len(signature), 43)

    def test_a_link_needs_no_encoding_in_a_url(self):
        link = evolve(LINK, path=("a b", "ü", "%2F"), name="Änne x")
        signed = KEYS.sign(link)
        self.assertRegex(signed, r"^[A-Za-z0-9._-]+$")
        self.assertEqual(KEYS.verify(signed.encode()), link)

    def test_one_that_is_too_long_is_not_made(self):
        path = tuple(LinkKeys.new_key() for _ in range(40))
        with self.assertRaisesRegex(InvalidSetting, "too long"):
            KEYS.sign(evolve(LINK, path=path))

    def test_links_for_a_file_and_for_the_whole_directory(self):
        for path, is_tree in (((), True), (("a",), False), (("a", "b"), True)):
            link = evolve(LINK, path=path, is_tree=is_tree, max_size=None, name="12ab")
            self.assertEqual(KEYS.verify(KEYS.sign(link).encode()), link)

    def test_a_file_has_one_key_on_each_line(self):
        one, other = LinkKeys.new_key(), LinkKeys.new_key()
        keys = LinkKeys.read(self.file(f"# 2026\n{one}\r\n\n {other}\n"))
        self.assertEqual(keys, LinkKeys([one.encode(), other.encode()]))
        self.assertNotEqual(one, other)

    def test_a_file_that_cannot_be_used_is_refused_in_one_line(self):
        key = LinkKeys.new_key()
        many = "\n".join(LinkKeys.new_key() for _ in range(MOST_KEYS + 1))
        for content, words in (
            ("", "is empty"),
            ("# none\n", "contains no key"),
            ("short", "minimum"),
            (f"{key}\n{key}", "twice"),
            (many, f"more than {MOST_KEYS}"),
        ):
            path = self.file(content)
            with self.assertRaisesRegex(InvalidSetting, words) as caught:
                LinkKeys.read(path)
            self.assertIn(path, str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))
            self.assertNotIn(key, str(caught.exception))
        with self.assertRaisesRegex(InvalidSetting, "every user"):
            LinkKeys.read(self.file(key, 0o644))
        with self.assertRaisesRegex(InvalidSetting, "cannot be read"):
            LinkKeys.read(self.mktemp())

    def test_mounts_have_one_spelling(self):
        for mount in ("/a b", "/a%20b/", "a%20b"):
            self.assertEqual(canonical_mount(mount), "/a%20b")
        self.assertEqual(canonical_mount("/"), "/")

    def test_ids_differ(self):
        self.assertNotEqual(new_id(), new_id())
