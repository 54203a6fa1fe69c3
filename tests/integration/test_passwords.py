"""
Passwords, tokens, and names from a proxy, over real sockets: ``htpasswd`` writes the
file, and ``curl`` authenticates in all the ways it knows.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from email import message_from_bytes
from pathlib import Path
from tempfile import mkdtemp

from attrs import frozen
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.procutils import which
from twisted.trial.unittest import TestCase

from tests.integration.cluster import start_nginx
from tests.ports import free_ports
from tests.test_docs import ROOT
from txbits.access.basic import BasicAuthenticator, Passwords
from txbits.access.bearer import BearerAuthenticator, Tokens
from txbits.access.header import HeaderAuthenticator
from txbits.backends.memory import MemoryBackend
from txbits.sessions import Settings
from txbits.web import BITSResource, BITSSite

_HOWTO = ROOT / "docs" / "howto" / "proxy-authentication.md"

PROTOCOL = "{7df0354d-249b-430f-820d-3d2a9bef4931}"
BASIC = 'Basic realm="txbits", charset="UTF-8"'


@frozen
class Answer:
    """
    What curl got.

    :ivar statuses: Of all responses of a request, the last one's last.
    :ivar headers: Those of the last response.
    """

    statuses: list[str]
    headers: object
    body: bytes


class CurlCase(TestCase):
    """A site on loopback, with a user whom ``htpasswd`` has written."""

    async def setUp(self):
        self.passwords = self.mktemp()
        Path(self.passwords).touch(0o600)
        await self.htpasswd("alice", "sécret: x")
        await self.htpasswd("bob", "hidden")
        self.memory = MemoryBackend(reactor)

    async def run_program(self, name, *arguments):
        (program, *_) = which(name)
        out, err, code = await getProcessOutputAndValue(
            program, arguments, env=os.environ
        )
        self.assertEqual(code, 0, err)
        return out

    async def htpasswd(self, name, password):
        options = ("-b", "-B", "-C", "5")
        await self.run_program("htpasswd", *options, self.passwords, name, password)

    def basic(self):
        return BasicAuthenticator(reactor, Passwords.read(self.passwords))

    async def serve(self, *authenticators, listen="tcp:0:interface=127.0.0.1", **more):
        resource = BITSResource(
            self.memory,
            Settings(allow_downloads=True),
            authenticators=authenticators,
            reactor=reactor,
            **more,
        )
        await resource.manager.start()
        self.addCleanup(resource.manager.stop)
        port = await serverFromString(reactor, listen).listen(BITSSite(resource))
        self.addCleanup(port.stopListening)
        if listen.startswith("tcp:"):
            self.url = f"http://127.0.0.1:{port.getHost().port}/a.txt"

    async def curl(self, *arguments):
        options = ("-sSi", "--max-time", "60", "--noproxy", "*")
        data = await self.run_program("curl", *options, *arguments, self.url)
        statuses = []
        headers = message_from_bytes(b"")
        while data.startswith(b"HTTP/1.1 "):
            head, _, data = data.partition(b"\r\n\r\n")
            line, _, rest = head.partition(b"\r\n")
            headers = message_from_bytes(rest)
            statuses.append(line.split()[1].decode())
            if headers.get("Content-Length", "0") != "0" and data:
                # The body of a response that another follows.
                length = int(headers["Content-Length"])
                if data[length:].startswith(b"HTTP/1.1 "):
                    data = data[length:]
        return Answer(statuses, headers, data)

    async def packet(self, kind, *arguments, session=None, headers=()):
        fields = [f"BITS-Packet-Type: {kind}", *headers]
        if kind == "Create-Session":
            fields.append(f"BITS-Supported-Protocols: {PROTOCOL}")
        if session is not None:
            fields.append(f"BITS-Session-Id: {session}")
        options = [part for one in fields for part in ("-H", one)]
        if not {"--data-binary", "-d"} & set(arguments):
            options += ["--data-binary", ""]
        return await self.curl("-X", "BITS_POST", *options, *arguments)

    async def upload(self, *arguments):
        """Upload in three packets; the answers."""
        created = await self.packet("Create-Session", *arguments)
        session = created.headers["BITS-Session-Id"]
        fragment = await self.packet(
            "Fragment",
            *arguments,
            "--data-binary",
            "hello",
            session=session,
            headers=["Content-Range: bytes 0-4/5"],
        )
        closed = await self.packet("Close-Session", *arguments, session=session)
        return [created, fragment, closed]


class BasicTests(CurlCase):
    """``basic``."""

    alice = ("-u", "alice:sécret: x")

    async def setUp(self):
        await super().setUp()
        self.authenticator = self.basic()
        await self.serve(self.authenticator)

    async def test_a_user_uploads_and_downloads(self):
        for answer in await self.upload("--basic", *self.alice):
            self.assertEqual(answer.statuses, ["200"])
        self.assertEqual((await self.curl(*self.alice)).body, b"hello")

    async def test_a_client_that_asks_first_which_scheme_to_use_is_answered(self):
        for answer in await self.upload("--anyauth", *self.alice):
            self.assertEqual(answer.statuses[-1], "200")
            self.assertIn(answer.statuses[0], ("200", "401"))

    async def test_without_or_with_wrong_credentials_it_is_challenged(self):
        for credentials in ((), ("-u", "alice:wrong"), ("-u", "carol:hidden")):
            for answer in (
                await self.packet("Create-Session", *credentials),
                await self.curl(*credentials),
            ):
                self.assertEqual(answer.statuses, ["401"])
                self.assertEqual(answer.headers.get_all("WWW-Authenticate"), [BASIC])
                self.assertEqual(answer.body, b"")

    async def test_schemes_that_are_not_offered_are_refused_and_the_server_lives(self):
        for option in ("--digest", "--ntlm", "--negotiate"):
            answer = await self.packet("Ping", option, *self.alice)
            self.assertEqual(set(answer.statuses), {"401"})
            self.assertEqual(answer.headers.get_all("WWW-Authenticate"), [BASIC])
        answer = await self.packet("Ping", *self.alice)
        self.assertEqual(answer.statuses, ["200"])

    async def test_a_session_belongs_to_its_user(self):
        created = await self.packet("Create-Session", *self.alice)
        answer = await self.packet(
            "Cancel-Session",
            *("-u", "bob:hidden"),
            session=created.headers["BITS-Session-Id"],
        )
        self.assertEqual(answer.headers["BITS-Error-Code"], "0x8020001F")

    async def test_after_many_failures_it_is_asked_to_try_later_and_never_refused(self):
        statuses = []
        for number in range(12):
            answer = await self.packet("Ping", "-u", f"bob:wrong {number}")
            statuses += answer.statuses
        self.assertEqual(statuses, ["401"] * 10 + ["503"] * 2)
        self.assertRegex(answer.headers["Retry-After"], "^[0-9]+$")
        self.assertIsNone(answer.headers["WWW-Authenticate"])
        answer = await self.packet("Ping", *self.alice)
        self.assertEqual(answer.statuses, ["200"])

    async def test_a_refused_fragment_is_stored_nowhere(self):
        created = await self.packet("Create-Session", *self.alice)
        session = created.headers["BITS-Session-Id"]
        fields = ["Content-Range: bytes 0-4/5"]
        for credentials, status in (
            (("-u", "alice:wrong"), "401"),
            (self.alice, "200"),
        ):
            answer = await self.packet(
                "Fragment",
                *credentials,
                *("--data-binary", "hello"),
                session=session,
                headers=fields,
            )
            self.assertEqual(answer.statuses, [status])
        self.assertEqual(answer.headers["BITS-Received-Content-Range"], "5")


class BearerTests(CurlCase):
    """``bearer``, beside ``basic``."""

    async def test_a_token_is_as_good_as_a_password(self):
        token = secrets.token_urlsafe(32)
        path = Path(self.mktemp())
        path.touch(0o600)
        path.write_text(f"build:{hashlib.sha256(token.encode()).hexdigest()}:ci\n")
        bearer = BearerAuthenticator(reactor, tokens=Tokens.read(str(path)))
        await self.serve(self.basic(), bearer)
        for answer in await self.upload("--oauth2-bearer", token):
            self.assertEqual(answer.statuses, ["200"])
        answer = await self.packet("Ping", "--oauth2-bearer", token[:-1])
        self.assertEqual(answer.statuses, ["401"])
        self.assertEqual(
            answer.headers.get_all("WWW-Authenticate"),
            ['Bearer realm="txbits", error="invalid_token"', BASIC],
        )
        answer = await self.packet("Ping", "-u", "bob:hidden")
        self.assertEqual(answer.statuses, ["200"])


class HeaderTests(CurlCase):
    """``header``."""

    alice = ("-H", "X-Remote-User: alice")

    async def test_a_trusted_proxy_names_the_user(self):
        await self.serve(HeaderAuthenticator(), trusted_proxies=["127.0.0.0/8"])
        created = await self.packet("Create-Session", *self.alice)
        self.assertEqual(created.statuses, ["200"])
        session = created.headers["BITS-Session-Id"]
        answer = await self.packet(
            "Cancel-Session", "-H", "X-Remote-User: bob", session=session
        )
        self.assertEqual(answer.headers["BITS-Error-Code"], "0x8020001F")
        answer = await self.packet("Ping", *self.alice, "-H", "X-Remote-User: bob")
        self.assertEqual(answer.statuses, ["401"])

    async def test_anyone_else_is_nobody(self):
        await self.serve(
            HeaderAuthenticator(), self.basic(), trusted_proxies=["192.0.2.1"]
        )
        answer = await self.packet("Ping", *self.alice)
        self.assertEqual(answer.statuses, ["401"])
        answer = await self.packet("Ping", *self.alice, "-u", "bob:hidden")
        self.assertEqual(answer.statuses, ["200"])


class ProxyTests(CurlCase):
    """nginx asks for passwords, with the settings of the how-to but for TLS."""

    def settings(self, socket, port):
        """The settings of the how-to, with other addresses and files."""
        found = re.search(r"^```nginx\n(.*?)^```", _HOWTO.read_text(), re.DOTALL | re.M)
        text = found[1]
        for old, new in (
            ("/run/txbits/socket", str(socket)),
            ("listen 443 ssl", f"listen 127.0.0.1:{port}"),
            ("/etc/nginx/users", os.path.abspath(self.passwords)),
        ):
            self.assertIn(old, text)
            text = text.replace(old, new)
        return re.sub(r"^ *ssl_.*\n", "", text, flags=re.M)

    async def setUp(self):
        await super().setUp()
        # The path of a socket must be short.
        folder = Path(mkdtemp(prefix="txbits-"))
        self.addCleanup(shutil.rmtree, folder)
        socket = folder / "socket"
        await self.serve(
            HeaderAuthenticator(), listen=f"unix:{socket}", trusted_proxies=["unix"]
        )
        (port,) = free_ports(1)
        settings = self.settings(socket, port)
        await start_nginx(self, folder, "proxied.conf.template", port, server=settings)
        self.url = f"http://127.0.0.1:{port}/a.txt"

    async def test_users_of_the_proxy_upload(self):
        for answer in await self.upload("-u", "alice:sécret: x"):
            self.assertEqual(answer.statuses, ["200"])
        answer = await self.packet("Create-Session", "-u", "alice:wrong")
        self.assertEqual(answer.statuses, ["401"])

    async def test_a_client_cannot_name_itself(self):
        created = await self.packet(
            "Create-Session", "-u", "alice:sécret: x", "-H", "X-Remote-User: bob"
        )
        session = created.headers["BITS-Session-Id"]
        for user, headers, code in (
            ("bob:hidden", "X-Remote-User: alice", "0x8020001F"),
            ("alice:sécret: x", "X-Remote-User: bob", None),
        ):
            answer = await self.packet(
                "Cancel-Session", "-u", user, "-H", headers, session=session
            )
            self.assertEqual(answer.headers["BITS-Error-Code"], code)
        answer = await self.packet("Ping", "-H", "X-Remote-User: alice")
        self.assertEqual(answer.statuses, ["401"])
