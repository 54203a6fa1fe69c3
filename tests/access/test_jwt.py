"""
JSON Web Tokens: what is verified, and where the keys come from.

Keys and tokens are made by joserfc, and by hand where they are to be wrong. The issuer
is a real site on loopback where keys are fetched.
"""

from __future__ import annotations

import hmac
import json
import os
import sys
import warnings
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.clocks import Ahead
from txbits.access.jwt import JWTVerifier
from txbits.errors import (
    CredentialsRejected,
    CredentialsUncheckable,
    InvalidSetting,
)
from txbits.interfaces import Identity

NOW = 1_800_000_000

RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
OKP = OKPKey.generate_key("Ed25519", {"kid": "okp"})
OTHER = ECKey.generate_key("P-256", {"kid": "other"})

ALL = ["RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA", "HS256", "ES256K", "none"]


def key_set(*keys, **more):
    return json.dumps({"keys": [one.as_dict(private=False) | more for one in keys]})


def encoded(part):
    if not isinstance(part, bytes):
        part = json.dumps(part).encode()
    return urlsafe_b64encode(part).rstrip(b"=")


def claims(**more):
    found = {
        "iss": "https://issuer.example",
        "aud": "uploads",
        "sub": "alice",
        "exp": NOW + 600,
    }
    found.update(more)
    return {name: value for name, value in found.items() if value is not None}


def token(content=None, key=EC, algorithm="ES256", **header):
    """Sign a token; with ``kid=None`` it names no key."""
    head = {"alg": algorithm, "kid": key.kid} | header
    head = {name: value for name, value in head.items() if value is not None}
    payload = json.dumps(claims() if content is None else content)
    registry = JWSRegistry(algorithms=ALL, strict_check_header=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        signed = jws.serialize_compact(head, payload, key, ALL, registry=registry)
    return signed.encode() if isinstance(signed, str) else signed


class JWTCase(SynchronousTestCase):
    """A verifier with the keys of a file."""

    def setUp(self):
        self.clock = Clock()
        self.clock.advance(NOW)
        self.verifier = self.make(key_set(RSA, EC, OKP))

    def make(self, content, mode=0o644, **more):
        path = self.mktemp()
        Path(path).write_text(content)
        os.chmod(path, mode)
        settings = {
            "issuer": "https://issuer.example",
            "audience": "uploads",
            "keys": path,
        }
        return JWTVerifier(self.clock, **(settings | more))

    def verify(self, text):
        return self.successResultOf(self.verifier.verify(text))

    def rejected(self, text):
        failure = self.failureResultOf(self.verifier.verify(text), CredentialsRejected)
        return str(failure.value)


class SignatureTests(JWTCase):
    """Who has signed a token."""

    def test_public_keys_of_three_kinds_verify(self):
        for key, algorithm in (
            (RSA, "RS256"),
            (RSA, "PS256"),
            (EC, "ES256"),
            (OKP, "EdDSA"),
        ):
            self.assertEqual(
                self.verify(token(None, key, algorithm)), Identity("alice", "bearer")
            )

    def test_longer_curves_verify(self):
        for curve, algorithm in (("P-384", "ES384"), ("P-521", "ES512")):
            key = ECKey.generate_key(curve)
            self.verifier = self.make(key_set(key))
            self.verify(token(None, key, algorithm, kid=None))

    def test_a_token_need_not_name_its_key(self):
        self.verifier = self.make(key_set(OTHER, RSA, EC))
        self.verify(token(kid=None))

    def test_a_key_that_is_not_the_issuer_s_is_no_good(self):
        for header in ({}, {"kid": None}, {"kid": "ec"}):
            self.assertRegex(
                self.rejected(token(None, OTHER, **header)), "signature|no key"
            )

    def test_a_changed_token_is_rejected(self):
        head, payload, signature = token().split(b".")
        changed = encoded(claims(sub="bob"))
        self.rejected(b".".join([head, changed, signature]))
        self.rejected(b".".join([head, payload, encoded(b"x" * 64)]))
        self.rejected(b".".join([encoded({"alg": "RS256"}), payload, signature]))

    def test_tokens_without_a_signature_are_rejected(self):
        for algorithm in ("none", "None", "NONE"):
            unsigned = encoded({"alg": algorithm}) + b"." + encoded(claims()) + b"."
            self.rejected(unsigned)
            self.assertIn("no allowed algorithm", self.rejected(unsigned + b"AA"))

    def test_a_public_key_is_not_taken_for_a_shared_secret(self):
        for public in (
            RSA.as_pem(private=False),
            RSA.as_der(private=False),
            json.dumps(RSA.as_dict(private=False)).encode(),
        ):
            signed = encoded({"alg": "HS256", "kid": "rsa"}) + b"." + encoded(claims())
            code = hmac.digest(public, signed, sha256)
            self.assertIn(
                "no allowed algorithm", self.rejected(signed + b"." + encoded(code))
            )

    def test_shared_secrets_in_a_key_set_are_left_out(self):
        secret = OctKey.generate_key(256, {"kid": "oct"})
        keys = json.loads(key_set(EC))["keys"] + [{"kty": "oct", "kid": "oct"}]
        self.verifier = self.make(json.dumps({"keys": keys}))
        self.rejected(token(None, secret, "HS256"))
        self.verify(token())

    def test_a_key_is_used_with_its_own_algorithm_only(self):
        self.verifier = self.make(key_set(RSA, alg="PS256"))
        self.verify(token(None, RSA, "PS256"))
        self.assertIn("no key", self.rejected(token(None, RSA, "RS256")))

    def test_keys_in_the_token_are_ignored(self):
        for header in (
            {"jwk": OTHER.as_dict(private=False)},
            {"jku": "https://attacker.example/keys"},
            {"x5u": "https://attacker.example/keys"},
        ):
            self.rejected(token(None, OTHER, kid="ec", **header))

    def test_extensions_that_must_be_understood_are_not(self):
        head = {"alg": "ES256", "kid": "ec", "crit": ["b64"], "b64": False}
        self.assertIn(
            "header",
            self.rejected(b".".join([encoded(head), encoded(claims()), b"AAAA"])),
        )

    def test_other_parameters_of_a_header_do_not_matter(self):
        self.verify(token(typ="at+jwt", nonce="x", x5t="abc"))

    def test_what_is_no_token_is_rejected(self):
        for text in (
            b"",
            b"a",
            b"a.b",
            b"a.b.c",
            b"a.b.c.d.e",
            token() + b"=",
            token().replace(b".", b". "),
            encoded([]) + b"." + encoded([]) + b".AA",
            encoded({"alg": "ES256"}) + b"." + encoded(b"[" * 5000) + b".AA",
            encoded({"alg": ["ES256"]}) + b"." + encoded(claims()) + b".AA",
            encoded({"alg": "ES256", "kid": 1}) + b"." + encoded(claims()) + b".AA",
            token(claims(padding="x" * 8192)),
        ):
            self.rejected(text)

    @given(st.binary(), st.binary(), st.binary())
    def test_nothing_else_is_raised(self, head, payload, signature):
        self.rejected(b".".join(map(encoded, (head, payload, signature))))

    @given(
        st.dictionaries(
            st.sampled_from(["alg", "kid", "crit", "typ"]),
            st.sampled_from(["ES256", "ec", "RS256", "rsa", 1, None, [], {}]),
        ),
        st.dictionaries(
            st.sampled_from(list(claims())),
            st.sampled_from([*claims().values(), 1e400, float("nan"), None, [], {}]),
        ),
    )
    def test_no_odd_claims_are_accepted_without_a_signature(self, head, content):
        self.rejected(b".".join([encoded(head), encoded(content), b"AAAA"]))


class ClaimsTests(JWTCase):
    """What a token says."""

    def test_the_issuer_must_be_the_one_that_is_set(self):
        for issuer in (None, "https://other.example", ["https://issuer.example"], ""):
            self.assertIn("another issuer", self.rejected(token(claims(iss=issuer))))

    def test_the_audience_must_be_or_contain_the_one_that_is_set(self):
        for audience in ("uploads", ["other", "uploads"]):
            self.verify(token(claims(aud=audience)))
        for audience in (None, "other", ["other"], [], "uploads2", {"uploads": 1}):
            self.assertIn(
                "another audience", self.rejected(token(claims(aud=audience)))
            )

    def test_an_expired_token_is_rejected(self):
        text = token(claims(exp=NOW + 10))
        self.verify(text)
        self.clock.advance(39)
        self.verify(text)
        self.clock.advance(1)
        self.assertEqual(self.rejected(text), "the token of 'alice' has expired")

    def test_a_token_from_the_future_is_rejected(self):
        self.verify(token(claims(nbf=NOW + 30)))
        self.assertIn("not valid yet", self.rejected(token(claims(nbf=NOW + 31))))

    def test_a_token_must_say_when_it_ends(self):
        for ends in (None, "2027", True, [], 1e400, float("nan"), -1):
            self.assertIn("times of the token", self.rejected(token(claims(exp=ends))))
        self.assertIn("times", self.rejected(token(claims(nbf="x"))))

    def test_the_name_is_in_the_claim_that_is_set(self):
        self.verifier = self.make(key_set(EC), name_claim="preferred_username")
        text = token(claims(preferred_username="bob@example.com"))
        self.assertEqual(self.verify(text).name, "bob@example.com")
        self.assertIn("preferred_username", self.rejected(token()))

    def test_what_cannot_be_a_name_is_rejected(self):
        for name in ("", "a/b", "anonymous", 1, ["alice"]):
            self.rejected(token(claims(sub=name)))

    def test_groups_are_a_list_or_one_name(self):
        for groups, found in (
            (["a", "b"], {"a", "b"}),
            ("a", {"a"}),
            ([], set()),
            (None, set()),
        ):
            text = token(claims(groups=groups))
            self.assertEqual(self.verify(text).groups, frozenset(found))
        for groups in ([1], {"a": 1}, ["x"] * 1001, 5):
            self.assertIn("groups", self.rejected(token(claims(groups=groups))))

    def test_groups_are_in_the_claim_that_is_set(self):
        self.verifier = self.make(key_set(EC), groups_claim="roles")
        self.assertEqual(self.verify(token(claims(roles=["x"]))).groups, {"x"})


class KnownTests(JWTCase):
    """Tokens that were verified a moment ago."""

    def test_they_are_not_verified_again_but_their_time_is_checked(self):
        text = token()
        self.verify(text)
        self.verifier._keys = None
        self.verify(text)
        self.clock.advance(301)
        self.assertNotIn(text, repr(vars(self.verifier)).encode())
        self.failureResultOf(self.verifier.verify(text), AttributeError)

    def test_their_number_is_limited(self):
        text = token()
        self.verify(text)
        known = self.verifier._known
        for number in range(1000):
            known[b"%d" % number] = known[next(iter(known))]
        self.verify(token(claims(sub="bob")))
        self.assertLessEqual(len(known), 1001)


class KeyFileTests(JWTCase):
    """Key sets in files."""

    def complaint(self, keys, **more):
        error = str(self.assertRaises(InvalidSetting, self.make, keys, **more))
        self.assertNotIn("\n", error)
        return error

    def test_what_is_no_key_set_is_refused(self):
        for keys in ("x", "[]", "{}", '{"keys": {}}', '{"keys": 1}', "[" * 5000):
            self.assertIn("it is no JSON Web Key Set", self.complaint(keys))

    def test_key_sets_without_a_usable_key_are_refused(self):
        for keys in (
            '{"keys": []}',
            '{"keys": [1, {}, {"kty": "oct"}, {"kty": []}]}',
            key_set(EC, use="enc"),
            key_set(EC, key_ops=["sign"]),
            key_set(ECKey.generate_key("secp256k1")),
            key_set(OKPKey.generate_key("X25519")),
        ):
            self.assertIn("no public key for signatures", self.complaint(keys))

    def test_private_keys_are_refused(self):
        keys = json.dumps({"keys": [EC.as_dict(private=True)]})
        error = self.complaint(keys)
        self.assertIn("it has a private key", error)
        self.assertNotIn(EC.as_dict(private=True)["d"], error)

    def test_malformed_and_short_keys_are_refused(self):
        self.assertIn("'ec' is malformed", self.complaint(key_set(EC, x="!")))
        self.assertIn("'ec' is malformed", self.complaint(key_set(EC, x=1)))
        self.assertIn("'rsa' is malformed", self.complaint(key_set(RSA, n=None)))
        short = json.loads(key_set(RSA))["keys"][0] | {
            "n": encoded((2**1023 + 1).to_bytes(128, "big")).decode()
        }
        self.assertRegex(
            self.complaint(json.dumps({"keys": [short]})), "1024 bits|malformed"
        )

    def test_too_many_keys_are_refused(self):
        self.assertIn("more than 100 keys", self.complaint(key_set(*[EC] * 101)))

    def test_files_that_everyone_can_change_are_refused(self):
        self.assertIn("chmod o-w", self.complaint(key_set(EC), mode=0o646))

    def test_urls_that_others_could_answer_are_refused(self):
        for url in (
            "http://issuer.example/keys",
            "https://user:geheim@issuer.example/keys",
            "https://",
            "https://issuer.example:x/",
            "https://issuer.example/ä",
        ):
            error = self.assertRaises(InvalidSetting, self.make, "x", keys=url)
            self.assertNotIn("geheim", str(error))
        for url in (
            "https://issuer.example/keys",
            "http://127.0.0.1:1/",
            "http://[::1]",
        ):
            self.make("x", keys=url)

    def test_empty_settings_are_refused(self):
        for name in ("issuer", "audience", "name_claim"):
            self.complaint(key_set(EC), **{name: ""})

    def test_without_joserfc_it_says_what_to_install(self):
        modules = ("txbits.access._jwks", "txbits.access._key_source", "joserfc")
        hidden = {
            name: sys.modules.pop(name)
            for name in list(sys.modules)
            if name.startswith(modules)
        }
        package = sys.modules["txbits.access"]
        for name in ("_jwks", "_key_source"):
            if hasattr(package, name):
                delattr(package, name)
        sys.modules["joserfc"] = None
        try:
            error = self.complaint(key_set(EC))
        finally:
            del sys.modules["joserfc"]
            sys.modules.update(hidden)
        self.assertIn("pip install 'txbits[jwt]'", error)


class Issuer(Resource):
    """
    Publishes keys.

    :ivar content: What it answers; ``None`` if it does not.
    :ivar count: How often it was asked.
    """

    isLeaf = True

    def __init__(self):
        super().__init__()
        self.content = key_set(EC)
        self.status = 200
        self.count = 0

    def render_GET(self, request):
        self.count += 1
        if self.content is None:
            return NOT_DONE_YET
        request.setResponseCode(self.status)
        return self.content.encode()


class FetchedKeysTests(TestCase):
    """Keys that are fetched, with real connections and a clock of the test."""

    async def setUp(self):
        self.issuer = Issuer()
        endpoint = serverFromString(reactor, "tcp:0:interface=127.0.0.1")
        self.port = await endpoint.listen(Site(self.issuer))
        self.addCleanup(self.port.stopListening)
        self.clock = Ahead()
        self.clock.wall = lambda: NOW
        self.verifier = self.make()
        self.warnings = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)

    def note(self, event):
        if event["log_level"] is LogLevel.warn:
            self.warnings.append(event)

    def make(self, path="keys"):
        return JWTVerifier(
            self.clock,
            issuer="https://issuer.example",
            audience="uploads",
            keys=f"http://127.0.0.1:{self.port.getHost().port}/{path}",
        )

    async def verify(self, text=None):
        identity = await self.verifier.verify(token() if text is None else text)
        self.assertEqual(identity.name, "alice")

    async def assert_rejected(self, text):
        with self.assertRaises(CredentialsRejected):
            await self.verifier.verify(text)

    async def assert_uncheckable(self, text):
        with self.assertRaises(CredentialsUncheckable) as caught:
            await self.verifier.verify(text)
        self.assertLessEqual(caught.exception.retry_after, 60)
        self.assertGreaterEqual(caught.exception.retry_after, 1)

    async def test_they_are_fetched_once(self):
        for _ in range(5):
            await self.verify(token())
        self.assertEqual(self.issuer.count, 1)

    async def test_tokens_at_the_same_time_share_a_fetch(self):
        asked = [self.verifier.verify(token()) for _ in range(5)]
        for one in asked:
            self.assertEqual((await one).name, "alice")
        self.assertEqual(self.issuer.count, 1)

    async def test_they_are_not_fetched_for_tokens_that_are_of_no_use(self):
        await self.assert_rejected(token(claims(iss="https://other.example")))
        await self.assert_rejected(token(claims(exp=NOW - 60)))
        self.assertEqual(self.issuer.count, 0)

    async def test_an_unknown_key_is_looked_up_at_most_once_a_minute(self):
        await self.assert_rejected(token(None, OTHER))
        # It may have been published since.
        await self.assert_uncheckable(token(None, OTHER))
        await self.verify()
        self.assertEqual(self.issuer.count, 1)
        self.clock.ahead += 60
        self.issuer.content = key_set(EC, OTHER)
        await self.verify(token(None, OTHER))
        self.assertEqual(self.issuer.count, 2)
        self.clock.ahead += 60
        await self.assert_rejected(token(None, RSA, "RS256"))

    async def test_a_wrong_signature_is_no_reason_to_fetch(self):
        await self.verify()
        self.clock.ahead += 60
        await self.assert_rejected(token(None, OTHER, kid="ec"))
        self.assertEqual(self.issuer.count, 1)

    async def test_if_they_were_never_fetched_nothing_can_be_checked(self):
        for status, content in ((503, key_set(EC)), (200, "x"), (200, "x" * 300_000)):
            self.verifier = self.make()
            self.issuer.status, self.issuer.content = status, content
            await self.assert_uncheckable(token())
            await self.assert_uncheckable(token())
        self.assertEqual(self.issuer.count, 3)
        self.issuer.status, self.issuer.content = 200, key_set(EC)
        self.clock.ahead += 60
        await self.verify()
        reasons = [event["reason"] for event in self.warnings]
        self.assertEqual(
            reasons,
            [
                "the answer has status 503",
                "it is no JSON Web Key Set",
                "the answer is longer than 262,144 bytes",
            ],
        )

    async def test_a_server_that_is_away_leaves_the_keys_from_before(self):
        await self.verify()
        await self.port.stopListening()
        self.clock.ahead += 601
        await self.verify()
        await self.verifier._keys._fetching.over()
        await self.verify(token(claims(aud=["uploads"])))
        self.assertEqual(len(self.warnings), 1)
        self.assertIn("from before", self.warnings[0]["log_format"])
        await self.assert_uncheckable(token(None, OTHER))

    async def test_old_keys_are_fetched_in_the_background(self):
        await self.verify()
        self.issuer.content = key_set(OTHER)
        self.clock.ahead += 601
        text = token(claims(aud=["uploads"]))
        await self.verify(text)
        await self.verifier._keys._fetching.over()
        self.assertEqual(self.issuer.count, 2)
        self.clock.ahead += 301
        # A key that was withdrawn verifies nothing more.
        await self.assert_rejected(text)

    async def test_a_server_that_does_not_answer_is_given_up(self):
        self.issuer.content = None
        clock = Clock()
        clock.advance(NOW)

        class Impatient(Ahead):
            callLater = staticmethod(clock.callLater)

        self.clock = Impatient()
        self.clock.wall = clock.seconds
        self.verifier = self.make()
        asked = self.verifier.verify(token())
        while not self.issuer.count:
            await deferLater(reactor, 0.001)
        clock.advance(10)
        with self.assertRaises(CredentialsUncheckable):
            await asked

    async def test_after_a_reload_they_stay(self):
        await self.verify()
        replaced, self.verifier = self.verifier, self.make()
        self.verifier.adopt(replaced)
        await self.verify(token())
        self.assertEqual(self.issuer.count, 1)
        replaced, self.verifier = self.verifier, self.make("others")
        self.verifier.adopt(replaced)
        await self.verify(token())
        self.assertEqual(self.issuer.count, 2)
