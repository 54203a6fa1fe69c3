"""
The scheme ``certificate``: names in certificates, good ones and odd ones.

The certificates are made by a library, and some bytes are replaced, because no program
makes such names. Here nobody checks who has signed them.
"""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txbits.access.certificate import CertificateAuthenticator
from txbits.errors import CredentialsRejected
from txbits.interfaces import Credentials, IAuthenticator, Identity

UPN = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")

_KEY = ec.generate_private_key(ec.SECP256R1())


class Shown:
    """
    A certificate as pyOpenSSL has it.

    :param der: The certificate.
    """

    def __init__(self, der):
        self.der = der
        self.reads = 0

    def to_cryptography(self):
        self.reads += 1
        return x509.load_der_x509_certificate(self.der)


def certificate(*names, san=(), replace=()):
    """
    Make a certificate.

    :param names: Common names, or whole attributes.
    :param san: Alternative names.
    :param replace: Bytes, and as many others that take their place.
    """
    attributes = [
        x509.NameAttribute(NameOID.COMMON_NAME, one) if isinstance(one, str) else one
        for one in names
    ]
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(attributes))
        .issuer_name(x509.Name([]))
        .public_key(_KEY.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName(san), False)
    der = builder.sign(_KEY, hashes.SHA256()).public_bytes(Encoding.DER)
    if replace:
        before, after = replace
        assert before in der and len(before) == len(after)
        der = der.replace(before, after)
    return Shown(der)


def principal(der):
    return x509.OtherName(UPN, der)


class CertificateCase(SynchronousTestCase):
    def authenticate(self, shown, name="cn", realms=(), **fields):
        authenticator = CertificateAuthenticator(name, realms)
        credentials = Credentials({}, certificate=lambda: shown, **fields)
        return self.successResultOf(authenticator.authenticate(credentials))

    def name_in(self, shown, name="cn", realms=()):
        identity = self.authenticate(shown, name, realms)
        self.assertEqual(identity, Identity(identity.name, "certificate"))
        return identity.name

    def refusal(self, shown, name="cn"):
        credentials = Credentials({}, certificate=lambda: shown)
        failed = CertificateAuthenticator(name).authenticate(credentials)
        return str(self.failureResultOf(failed, CredentialsRejected).value)


class NameTests(CertificateCase):
    """Where names come from."""

    def test_it_is_an_authenticator(self):
        verifyObject(IAuthenticator, CertificateAuthenticator())

    def test_no_other_place_can_be_set(self):
        with self.assertRaises(ValueError):
            CertificateAuthenticator("serial")

    def test_the_common_name(self):
        self.assertEqual(self.name_in(certificate("alice")), "alice")
        self.assertEqual(self.name_in(certificate("Zoë Müller")), "Zoë Müller")

    def test_a_common_name_in_two_bytes_a_character(self):
        for kind in (_ASN1Type.BMPString, _ASN1Type.UniversalString):
            name = x509.NameAttribute(NameOID.COMMON_NAME, "Zoë", kind)
            self.assertEqual(self.name_in(certificate(name)), "Zoë")

    def test_each_alternative_name(self):
        shown = certificate(
            "ignored",
            san=[
                x509.DNSName("PC1.example.test"),
                x509.RFC822Name("alice@example.test"),
                principal(b"\x0c\x0aalice@Ex.t"),
                x509.OtherName(x509.ObjectIdentifier("1.2.3.4"), b"\x0c\x01x"),
            ],
        )
        self.assertEqual(self.name_in(shown, "dns"), "pc1.example.test")
        self.assertEqual(self.name_in(shown, "email"), "alice@example.test")
        self.assertEqual(self.name_in(shown, "upn"), "alice@Ex.t")
        self.assertEqual(self.name_in(shown, "cn"), "ignored")

    def test_realms_that_are_omitted(self):
        shown = certificate(
            "alice@ex.t",
            san=[
                principal(b"\x0c\x0aalice@Ex.t"),
                x509.RFC822Name("alice@other.test"),
            ],
        )
        realms = ("EX.T",)
        self.assertEqual(self.name_in(shown, "upn", realms), "alice")
        self.assertEqual(self.name_in(shown, "email", realms), "alice@other.test")
        self.assertEqual(self.name_in(shown, "cn", realms), "alice@ex.t")

    def test_a_long_principal_name(self):
        name = b"a" * 200
        shown = certificate(san=[principal(b"\x0c\x81\xc8" + name)])
        self.assertEqual(self.name_in(shown, "upn"), name.decode())


class OddTests(CertificateCase):
    """What is no name is refused, and said to be."""

    def test_none_or_several(self):
        for names in ((), ("alice", "bob"), ("alice", "alice")):
            self.assertEqual(
                self.refusal(certificate(*names)),
                f"the certificate must have one common name, not {len(names)}",
            )
        shown = certificate("x", san=[x509.DNSName("a"), x509.DNSName("b")])
        for name, what in (
            ("dns", "one DNS name, not 2"),
            ("email", "one mail address, not 0"),
            ("upn", "one user principal name, not 0"),
        ):
            self.assertIn(what, self.refusal(shown, name))

    def test_no_alternative_names_at_all(self):
        for name in ("dns", "email", "upn"):
            self.assertIn(", not 0", self.refusal(certificate("alice"), name))

    def test_names_that_no_user_can_have(self):
        for name in ("a/b", "a\\b", "..", "@admins", "anonymous", "*", "a\tb"):
            self.assertIn(
                "cannot be the name of a user", self.refusal(certificate(name))
            )

    def test_common_names_in_odd_encodings(self):
        encoded = b"\x0c\x05alice"
        for odd in (
            b"\x0c\x05al\x00ce",  # a NUL
            b"\x0c\x05al\xe9ce",  # Latin-1 in place of UTF-8
            b"\x14\x05al\xe9ce",  # T61String
            b"\x1e\x05alice",  # BMPString, of an odd length
            b"\x03\x05\x00lice",  # a bit string
            b"\x02\x05alice",  # a number
        ):
            self.refusal(certificate("alice", replace=(encoded, odd)))

    def test_half_a_character_of_two(self):
        odd = (b"\x0c\x06alice1", b"\x1e\x06\xd8\x00\x00a\x00b")
        self.refusal(certificate("alice1", replace=odd))

    def test_alternative_names_in_odd_encodings(self):
        encoded = b"\x82\x05a.bbb"
        for odd in (b"\x82\x05a.\xe9bb", b"\x82\x05a.\x00bb", b"\x83\x05a.bbb"):
            san = [x509.DNSName("a.bbb")]
            self.refusal(certificate(san=san, replace=(encoded, odd)), "dns")

    def test_principal_names_in_odd_encodings(self):
        for odd in (
            b"",
            b"\x0c",
            b"\x0c\x00",
            b"\x0c\x02a",
            b"\x0c\x02abc",
            b"\x0c\x81",
            b"\x0c\x81\x02a",
            b"\x0c\x82\x00\x01a",
            b"\x16\x01a",
            b"\x0c\x01\xe9",
            b"\x0c\x02a\x00",
            b"\x30\x80",
        ):
            try:
                shown = certificate(san=[principal(odd)])
                shown.to_cryptography().extensions  # noqa: B018
            except ValueError:
                # The library does not even make it.
                continue
            self.refusal(shown, "upn")

    def test_a_certificate_that_cannot_be_parsed(self):
        self.assertEqual(
            self.refusal(Shown(b"\x30\x00")),
            "the certificate cannot be read: ValueError",
        )


class ConnectionTests(CertificateCase):
    """The certificate of a connection."""

    def test_nobody_is_asked_for_one(self):
        self.assertIsNone(CertificateAuthenticator().challenge(Credentials({})))

    def test_a_connection_without_one(self):
        self.assertIsNone(self.authenticate(None))

    def test_that_of_a_proxy_is_not_that_of_its_client(self):
        self.assertIsNone(self.authenticate(certificate("proxy"), is_proxied=True))

    def test_a_proxied_request_on_a_connection_that_is_known(self):
        memory = {}
        shown = certificate("proxy")
        self.assertIsNotNone(self.authenticate(shown, connection=memory))
        self.assertIsNone(self.authenticate(shown, connection=memory, is_proxied=True))

    def test_it_is_read_once_for_a_connection(self):
        good, bad = certificate("alice"), certificate("a/b")
        for shown in (good, bad):
            memory = {}
            authenticator = CertificateAuthenticator()
            for _ in range(3):
                credentials = Credentials(
                    {}, certificate=lambda shown=shown: shown, connection=memory
                )
                authenticator.authenticate(credentials).addErrback(
                    lambda failure: failure.trap(CredentialsRejected)
                )
            self.assertEqual(shown.reads, 1)

    def test_other_settings_read_it_again(self):
        memory = {}
        shown = certificate("alice", san=[x509.DNSName("pc1")])
        for name, expected in (("cn", "alice"), ("dns", "pc1")):
            identity = self.authenticate(shown, name, connection=memory)
            self.assertEqual(identity.name, expected)
