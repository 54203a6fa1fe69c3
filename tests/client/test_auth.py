"""
Passwords: what is answered to whom, by the examples of the specifications.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txbits.client._auth import HASHES, Authorizer, parse_challenges
from txbits.client.settings import Credentials

MUFASA = Credentials("Mufasa", "Circle of Life")


def authorizer(*challenges: bytes) -> Authorizer:
    """One that was asked by these."""
    made = Authorizer(MUFASA, lambda: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")
    made.challenged(challenges)
    return made


def fields(header: bytes | None) -> dict[str, str]:
    """What stands in an answer."""
    assert header is not None
    (challenge,) = parse_challenges([header])
    return challenge.parameters


class ChallengeTests(SynchronousTestCase):
    """What a server asks."""

    def schemes(self, *values: bytes) -> list[tuple[str, dict[str, str]]]:
        return [(c.scheme, c.parameters) for c in parse_challenges(values)]

    def test_schemes_are_read_from_one_header_or_several(self) -> None:
        expected = [
            ("negotiate", {}),
            ("basic", {"realm": "a, b"}),
            ("digest", {"realm": 'say "x"', "nonce": "n", "qop": "auth,auth-int"}),
        ]
        digest = rb'Digest realm="say \"x\"", NONCE=n , qop="auth,auth-int"'
        basic = b'Basic realm="a, b"'
        self.assertEqual(self.schemes(b"Negotiate", basic, digest), expected)
        joined = b", ".join([b"Negotiate", basic, digest])
        self.assertEqual(self.schemes(joined), expected)

    def test_garbage_is_passed_over(self) -> None:
        for value in (b"", b"=", b'"', b"\xff\xfe", b", ,", b"realm=x"):
            self.assertEqual(self.schemes(value), [], value)

    def test_a_header_without_end_takes_no_time_without_end(self) -> None:
        schemes = self.schemes(b"Basic " + b'a="' * 10_000_000)
        self.assertEqual(schemes[0][0], "basic")

    def test_many_headers_that_are_made_to_take_long_do_not(self) -> None:
        # With a name that can be shortened each takes a third of a second.
        for text in (b"a" * 4095 + b"@", b"a=" * 2048, b'a="' + b"\\a" * 2046, b"a "):
            values = [text * (4096 // len(text))] * 200
            self.assertEqual(self.schemes(b"Basic", *values)[0][0], "basic")


class BasicTests(SynchronousTestCase):
    """RFC 7617."""

    def test_the_example_of_the_specification_is_answered_as_there(self) -> None:
        made = Authorizer(Credentials("Aladdin", "open sesame"))
        self.assertTrue(made.challenged([b'Basic realm="WallyWorld"']))
        self.assertEqual(
            made.answer(b"GET", b"/"), b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        )

    def test_letters_of_all_kinds_are_utf_8(self) -> None:
        made = Authorizer(Credentials("test", "123£"))
        made.challenged([b'Basic realm="foo", charset="UTF-8"'])
        self.assertEqual(made.answer(b"GET", b"/"), b"Basic dGVzdDoxMjPCow==")

    def test_nothing_is_said_unasked(self) -> None:
        self.assertIsNone(Authorizer(MUFASA).answer(b"GET", b"/"))

    def test_without_credentials_there_is_no_answer(self) -> None:
        made = Authorizer(None)
        self.assertFalse(made.challenged([b"Basic"]))
        self.assertIsNone(made.answer(b"GET", b"/"))

    def test_the_same_question_twice_has_no_answer(self) -> None:
        made = authorizer(b"Basic")
        self.assertFalse(made.challenged([b"Basic"]))

    def test_what_is_not_spoken_has_no_answer(self) -> None:
        made = Authorizer(MUFASA)
        for value in (b"Negotiate", b"NTLM", b'Digest realm="r", algorithm=SHA-512'):
            self.assertFalse(made.challenged([value]))
            self.assertIsNone(made.answer(b"GET", b"/"))


class DigestTests(SynchronousTestCase):
    """RFC 7616, section 3.9.1."""

    challenge = (
        b'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=%b, '
        b'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", '
        b'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
    )

    def test_the_examples_of_the_specification_are_answered_as_there(self) -> None:
        for algorithm, response in (
            (b"MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            (
                b"SHA-256",
                "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            ),
        ):
            made = authorizer(self.challenge % algorithm)
            answer = fields(made.answer(b"GET", b"/dir/index.html"))
            self.assertEqual(answer["response"], response)
            self.assertEqual(answer["nc"], "00000001")
            self.assertEqual(answer["uri"], "/dir/index.html")
            self.assertEqual(
                answer["opaque"], "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"
            )

    def test_the_count_goes_up(self) -> None:
        made = authorizer(self.challenge % b"MD5")
        made.answer(b"GET", b"/")
        self.assertEqual(fields(made.answer(b"GET", b"/"))["nc"], "00000002")

    def test_the_best_that_is_offered_is_answered(self) -> None:
        made = authorizer(
            b'Basic realm="r"', self.challenge % b"MD5", self.challenge % b"SHA-256"
        )
        self.assertEqual(fields(made.answer(b"GET", b"/"))["algorithm"], "SHA-256")

    def test_sessions_hash_the_nonces_as_well(self) -> None:
        plain = fields(authorizer(self.challenge % b"MD5").answer(b"GET", b"/"))
        made = authorizer(self.challenge % b"MD5-sess")
        self.assertNotEqual(
            fields(made.answer(b"GET", b"/"))["response"], plain["response"]
        )

    def test_without_qop_it_is_that_of_rfc_2069(self) -> None:
        # The example there, with the response of its erratum.
        made = Authorizer(Credentials("Mufasa", "CircleOfLife"))
        challenge = (
            b'Digest realm="testrealm@host.com", '
            b'nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
            b'opaque="5ccc069c403ebaf9f0171e9517f40e41"'
        )
        made.challenged([challenge])
        answer = fields(made.answer(b"GET", b"/dir/index.html"))
        self.assertEqual(answer["response"], "1949323746fe6a43ef61f9606e7febea")
        self.assertNotIn("qop", answer)

    def test_an_answer_that_is_too_old_is_given_anew(self) -> None:
        made = authorizer(self.challenge % b"MD5")
        self.assertFalse(made.challenged([self.challenge % b"MD5"]))
        self.assertTrue(made.challenged([self.challenge % b"MD5" + b", stale=TRUE"]))

    def test_names_with_quotes_are_quoted(self) -> None:
        made = Authorizer(Credentials('a"b', "c"))
        made.challenged([self.challenge % b"MD5"])
        self.assertEqual(fields(made.answer(b"GET", b"/"))["username"], 'a"b')

    def test_a_body_is_not_hashed(self) -> None:
        made = Authorizer(MUFASA)
        self.assertFalse(made.challenged([b'Digest realm="r", qop="auth-int"']))


class SecretTests(SynchronousTestCase):
    """What is not shown."""

    def test_a_password_is_not_in_a_representation(self) -> None:
        self.assertNotIn("Circle", repr(MUFASA))
        self.assertNotIn("Circle", repr(authorizer(b"Basic")))


def refused(data: bytes = b"") -> None:
    """MD5 on a machine in FIPS mode."""
    raise ValueError("[digital envelope routines] unsupported")


class WordsTests(SynchronousTestCase):
    """What is said of the schemes that a server offers."""

    def test_each_is_named_with_what_is_in_its_way(self) -> None:
        offered = Authorizer(None).describe(
            [
                b'Negotiate, NTLM, Basic realm="r"',
                b'Digest realm="r", nonce="n", algorithm=SHA-256',
                b'Digest realm="r", nonce="n", algorithm=SHA-512-256',
            ]
        )
        self.assertEqual(
            offered,
            (
                "Negotiate (not supported)",
                "NTLM (not supported)",
                "Basic",
                "Digest with SHA-256",
                "Digest with SHA-512-256 (this form is not supported)",
            ),
        )

    def test_not_more_is_repeated_than_fits_into_a_line(self) -> None:
        many = b", ".join(b"%b%d" % (b"x" * 100, n) for n in range(30))
        offered = Authorizer(None).describe([many])
        self.assertLess(len(" or ".join(offered)), 400)


class WithoutMD5Tests(SynchronousTestCase):
    """Machines in FIPS mode."""

    OLD = b'Digest realm="r", nonce="n", qop="auth"'
    NEW = b'Digest realm="r", nonce="n", qop="auth", algorithm=SHA-256'
    BASIC = b'Basic realm="r"'

    def authorizer(self) -> Authorizer:
        return Authorizer(MUFASA, hashes={**HASHES, "md5": refused})

    def test_another_scheme_that_is_offered_is_answered(self) -> None:
        for other, expected in ((self.NEW, b"Digest "), (self.BASIC, b"Basic ")):
            made = self.authorizer()
            self.assertTrue(made.challenged([self.OLD, other]))
            answer = made.answer(b"GET", b"/")
            assert answer is not None
            self.assertTrue(answer.startswith(expected), answer)

    def test_without_another_there_is_no_answer_and_a_reason(self) -> None:
        made = self.authorizer()
        self.assertFalse(made.challenged([self.OLD]))
        self.assertIsNone(made.answer(b"GET", b"/"))
        self.assertEqual(
            made.describe([self.OLD]),
            ("Digest with MD5 (not permitted on this machine; FIPS mode?)",),
        )
