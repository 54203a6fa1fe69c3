"""
``txbits`` as a client of ``twistd txbits`` with users: tokens, passwords, certificates
and upload links, in real processes. Kerberos is in :mod:`tests.kerberos.commands`.
"""

import hashlib
import os
import random

import bcrypt

from tests.integration.programs import Program, at_once
from tests.integration.test_https import HttpsTestCase
from tests.integration.test_service import pause
from tests.openssl import Authority

DATA = random.Random(70).randbytes(2_000_000)

_SETTINGS = """
listen = ["%(listen)s"]

[[directory]]
mount = "/"
backend = "disk:root"
create-directories = true
allow-downloads = true
authenticate = [%(schemes)s]
%(more)s

[[directory.permission]]
users = ["alice"]
path = "/"
may = ["upload", "download"]
"""


class LoginCase(HttpsTestCase):
    """A server with TLS, and commands."""

    timeout = 240

    def setUp(self):
        super().setUp()
        (self.cwd / "root").mkdir()
        (self.cwd / "data.bin").write_bytes(DATA)

    def secret(self, name, text):
        path = self.cwd / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    async def serve(self, *schemes, more="", listen=""):
        values = {
            "listen": self.endpoint(listen),
            "schemes": ", ".join(f'"{scheme}"' for scheme in schemes),
            "more": more,
        }
        (self.cwd / "txbits.toml").write_text(_SETTINGS % values)
        self.program = self.twistd("--config", "txbits.toml")
        self.port = await self.program.listening()

    def url(self, path):
        return f"https://127.0.0.1:{self.port}/{path}"

    async def txbits(self, command, *words, status=0, **environment):
        """Run a command; what it has written."""
        program = self.start(command, *words, **environment)
        await program.ended()
        self.assertEqual(program.status, status, program.output)
        return program.output

    def start(self, command, *words, **environment):
        return Program.start(
            self,
            *("-m", "txbits", command, "--cacert", self.authority.certificate, *words),
            cwd=self.cwd,
            environment={
                "HOME": str(self.cwd),
                "XDG_STATE_HOME": str(self.cwd / "state"),
                **environment,
            },
        )

    async def transfer(self, *options, **environment):
        """Do all that a user does."""
        url = self.url("folder/f.bin")
        await self.txbits("ping", *options, url, **environment)
        await self.txbits("upload", *options, "data.bin", url, **environment)
        self.assertEqual((self.cwd / "root/folder/f.bin").read_bytes(), DATA)
        await self.txbits("download", *options, url, "copy", **environment)
        self.assertEqual((self.cwd / "copy").read_bytes(), DATA)
        await self.txbits(
            *("cancel", *options, url, "{7DF0354D-249B-430F-820D-3D2A9BEF4931}"),
            **environment,
        )
        output = await self.txbits(
            *("check", *options, self.url("check/"), "--timeout", "60"), **environment
        )
        self.assertIn("0 failed", output)

    def assert_nowhere(self, secret):
        """A secret is in no journal."""
        for folder, _, names in os.walk(self.cwd / "state"):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    self.assertNotIn(secret, file.read())


class TokenTests(LoginCase):
    """Bearer tokens."""

    def token_line(self, token):
        return f"alice:{hashlib.sha256(token.encode()).hexdigest()}\n"

    async def serve(self):
        self.token = "sesame-" + "a" * 40
        self.secret("tokens", self.token_line(self.token))
        self.file = self.secret("token", f"{self.token}\n")
        await super().serve("bearer", more='token-file = "tokens"')

    async def test_all_commands(self):
        await self.serve()
        await self.transfer("--token-file", self.file)
        await self.txbits("ping", self.url("x"), TXBITS_TOKEN=self.token)

    async def test_token_that_is_renewed_in_mid_upload(self):
        await self.serve()
        upload = self.start(
            *("upload", "-v", "--token-file", self.file, "--limit-rate", "400K"),
            *("--fragment-size", "100K", "data.bin", self.url("slow.bin")),
        )
        while "%" not in upload.stdout:
            self.assertIsNone(upload.status, upload.output)
            await pause()
        other = "sesame-" + "b" * 40
        self.secret("tokens", self.token_line(other))
        self.secret("token", other)
        before = len(self.program.stdout)
        await self.hang_up(before)
        await upload.ended()
        self.assertEqual(upload.status, 0, upload.output)
        self.assertEqual((self.cwd / "root/slow.bin").read_bytes(), DATA)

    async def hang_up(self, before):
        os.kill(self.program.transport.pid, 1)
        while "reload" not in self.program.stdout[before:].lower():
            self.assertIsNone(self.program.status, self.program.output)
            await pause()

    async def test_refusals_are_one_line(self):
        await self.serve()
        for words, status, expected in (
            ([], 2, "it asks for Bearer; --token-file FILE sends a token"),
            (["--token-file", "wrong"], 2, "Bearer (the token was refused"),
            (["--token-file", "open"], 1, "run chmod o-rw on it"),
        ):
            self.secret("wrong", "sesame")
            self.secret("open", "sesame").chmod(0o604)
            commands = ["ping"], ["upload", "-q", "data.bin"], ["check"]
            for output in await at_once(
                *(
                    self.txbits(*command, self.url(""), *words, status=status)
                    for command in commands
                )
            ):
                (line,) = output.splitlines()
                self.assertIn(expected, line)
                self.assertNotIn("sesame", line)
        self.assert_nowhere(b"sesame")


class PasswordTests(LoginCase):
    """Basic."""

    async def test_all_commands(self):
        hashed = bcrypt.hashpw(b"sesame", bcrypt.gensalt(5)).decode()
        self.secret("users", f"alice:{hashed}\n")
        await self.serve("basic", more='password-file = "users"')
        await self.transfer("--user", "alice", TXBITS_PASSWORD="sesame")
        self.assert_nowhere(b"sesame")


class CertificateTests(LoginCase):
    """Client certificates."""

    async def serve(self):
        self.clients = Authority(self.cwd, "clients")
        listen = ":client-ca=clients.pem:crl-file=clients.crl"
        for name, days in (("alice", 2), ("late", -1), ("gone", 2)):
            self.clients.issue(name, "/CN=alice", days=days)
        self.clients.revoke("gone")
        self.clients.list_revoked()
        await super().serve("certificate", listen=listen)

    async def test_all_commands(self):
        await self.serve()
        await self.transfer("--cert", "alice.pem", "--key", "alice.key")

    async def test_refusals_are_one_line(self):
        await self.serve()
        Authority(self.cwd, "others").issue("stranger", "/CN=alice")
        for name, expected in (
            (None, "requires a client certificate: "),
            ("stranger", "unknown ca"),
            ("late", "certificate expired"),
            ("gone", "certificate revoked"),
        ):
            words = ["--cert", f"{name}.pem", "--key", f"{name}.key"] if name else []
            for output in await at_once(
                *(
                    self.txbits(command, self.url("x/"), *words, status=2)
                    for command in ("ping", "check")
                )
            ):
                (line,) = output.splitlines()
                self.assertIn(expected, line)
                self.assertEqual("--cert FILE shows one" in line, name is None, line)
