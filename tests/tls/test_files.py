"""
The files of a TLS server: which are refused, and what the operator is told.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.openssl import Authority, run
from txbits.errors import InvalidSetting
from txbits.tls._context import make_context
from txbits.tls._files import Files


class FilesCase(SynchronousTestCase):
    """An authority, and the certificate of a server."""

    def setUp(self):
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.authority = Authority(self.folder)
        certificate, key = self.authority.issue_server()
        self.files = Files(str(certificate), str(key))

    def complaint(self, **changes):
        changes = {name: str(value) for name, value in changes.items()}
        error = self.assertRaises(
            InvalidSetting, lambda: make_context(evolve(self.files, **changes).read())
        )
        text = str(error)
        self.assertEqual(len(text.splitlines()), 1, text)
        return text

    def write(self, name, content):
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path


class ReadingTests(FilesCase):
    """What cannot be used is one line that names the argument and the file."""

    def test_a_certificate_and_its_key_are_enough(self):
        material = self.files.read()
        self.assertIn("CN=server, valid until ", str(material))
        self.assertEqual(list(material.warnings(datetime.now(UTC))), [])
        make_context(material)

    def test_a_file_that_does_not_exist(self):
        for name in ("certificate", "key", "chain", "client_ca"):
            text = self.complaint(**{name: "/nowhere/file"})
            self.assertTrue(text.startswith(f"{name.replace('_', '-')}: "), text)
            self.assertIn(
                "/nowhere/file cannot be read: No such file or directory", text
            )
        text = self.complaint(client_ca=self.authority.certificate, crl="/nowhere/file")
        self.assertTrue(text.startswith("crl-file: /nowhere/file cannot"), text)

    def test_names_that_no_file_can_have(self):
        for name in ("certificate", "key"):
            self.assertIn("the name of a file", self.complaint(**{name: "a\0b"}))

    def test_a_file_of_something_else(self):
        junk = self.write("junk", b"junk\n")
        damaged = self.write(
            "damaged",
            b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        )
        for name in ("certificate", "chain", "client_ca"):
            for path in (junk, damaged):
                text = self.complaint(**{name: path})
                self.assertIn(f"{path} has no valid certificate in PEM", text)
        self.assertIn("has no valid key in PEM", self.complaint(key=junk))
        for path in (junk, self.authority.certificate):
            text = self.complaint(client_ca=self.authority.certificate, crl=path)
            self.assertTrue(text.startswith(f"crl-file: {path} "), text)

    def test_files_that_are_too_long(self):
        long = self.write("long", b"\n" * (4 * 1024 * 1024 + 1))
        self.assertIn("is longer than", self.complaint(certificate=long))
        self.assertIn("is longer than", self.complaint(key=long))

    def test_the_key_of_another_certificate(self):
        _, key = self.authority.issue_server("other")
        text = self.complaint(key=key)
        self.assertIn(f"{key} is not the key of the first certificate in", text)

    def test_a_chain_before_the_certificate(self):
        certificate = Path(self.files.certificate).read_bytes()
        authority = self.authority.certificate.read_bytes()
        good = self.write("good.pem", certificate + authority)
        bad = self.write("bad.pem", authority + certificate)
        self.assertEqual(len(evolve(self.files, certificate=str(good)).read().chain), 1)
        self.assertIn("of the first certificate in", self.complaint(certificate=bad))

    def test_a_key_that_everyone_can_read(self):
        Path(self.files.key).chmod(0o644)
        text = self.complaint()
        self.assertIn(f"key: {self.files.key} is accessible to every user", text)

    def test_a_key_with_a_passphrase(self):
        path = self.folder / "encrypted.key"
        run(
            self.folder,
            *("pkey", "-in", self.files.key, "-out", path),
            *("-aes256", "-passout", "pass:secret"),
        )
        self.assertIn(f"key: {path} is encrypted", self.complaint(key=path))

    def test_a_key_of_another_kind(self):
        path = self.folder / "ed.key"
        run(self.folder, "genpkey", "-algorithm", "ed25519", "-out", path)
        self.assertIn("neither an RSA nor an EC key", self.complaint(key=path))

    def test_an_rsa_key(self):
        for bits in (2048, 512):
            run(
                self.folder,
                *("req", "-x509", "-newkey", f"rsa:{bits}", "-noenc"),
                *("-keyout", f"{bits}.key", "-out", f"{bits}.pem", "-subj", "/CN=x"),
            )
        files = Files(str(self.folder / "2048.pem"), str(self.folder / "2048.key"))
        make_context(files.read())
        text = self.complaint(
            certificate=self.folder / "512.pem", key=self.folder / "512.key"
        )
        self.assertIn("too small", text)

    def test_a_revocation_list_without_an_authority(self):
        crl = self.authority.list_revoked()
        self.assertEqual(self.complaint(crl=crl), "crl-file: requires client-ca")

    def test_no_content_of_a_key_is_told(self):
        secret = b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
        path = self.write("secret.key", secret)
        text = self.complaint(key=path)
        self.assertNotIn("c2VjcmV0", text)
        self.assertNotIn("PRIVATE", repr(self.files.read()))


class RevocationTests(FilesCase):
    """Lists of revoked certificates, and warnings about them."""

    def setUp(self):
        super().setUp()
        self.authority.issue("alice")
        self.files = evolve(self.files, client_ca=str(self.authority.certificate))

    def read(self, **changes):
        return evolve(self.files, **changes).read()

    def warnings(self, material, days=0):
        return list(material.warnings(datetime.now(UTC) + timedelta(days=days)))

    def test_in_pem_and_in_der(self):
        crl = self.authority.list_revoked()
        self.assertEqual(len(self.read(crl=str(crl)).revocations), 1)
        der = self.folder / "crl.der"
        run(self.folder, "crl", "-in", crl, "-outform", "DER", "-out", der)
        self.assertEqual(len(self.read(crl=str(der)).revocations), 1)

    def test_several_in_one_file(self):
        other = Authority(self.folder, "other")
        both = self.write(
            "both.crl",
            self.authority.list_revoked().read_bytes()
            + other.list_revoked().read_bytes(),
        )
        material = self.read(crl=str(both))
        self.assertEqual(len(material.revocations), 2)
        self.assertEqual(self.warnings(material), [])

    def test_a_list_that_has_expired_is_a_warning(self):
        material = self.read(crl=str(self.authority.list_revoked()))
        self.assertEqual(self.warnings(material), [])
        [line] = self.warnings(material, days=1.5)
        self.assertIn("the CRL of CN=Authority ca expired on ", line)
        self.assertIn("are refused until there is a new one", line)

    def test_an_authority_without_a_list_is_a_warning(self):
        other = Authority(self.folder, "other")
        [line] = self.warnings(self.read(crl=str(other.list_revoked())))
        self.assertIn("crl-file has no CRL of CN=Authority ca", line)

    def test_certificates_that_have_expired_are_warnings(self):
        server, authority = self.warnings(self.read(), days=3)
        self.assertIn("the certificate CN=server, valid until ", server)
        self.assertIn("CN=Authority ca in client-ca has expired", authority)
