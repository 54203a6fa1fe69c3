"""
A server that users log in to with Kerberos, and real clients of it.
"""

from __future__ import annotations

import os
from pathlib import Path

from attrs import define
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from tests.kerberos import REALM, found, kdc
from txbits.access.negotiate import NegotiateAuthenticator
from txbits.backends.memory import MemoryBackend
from txbits.errors import AccessDenied
from txbits.interfaces import IAccessPolicy, Identity
from txbits.sessions import Settings
from txbits.web import BITSResource, BITSSite

PROTOCOL = "{7df0354d-249b-430f-820d-3d2a9bef4931}"

#: How curl logs in with Kerberos, and with whatever it is asked for.
NEGOTIATE = ("--negotiate", "-u", ":")
ANY = ("--anyauth", "-u", ":")

#: Headers of a Create-Session.
CREATE = {"Create-Session": {"BITS-Supported-Protocols": PROTOCOL}}


@implementer(IAccessPolicy)
class OwnFolder:
    """Everyone may upload into the folder of their name."""

    def check(
        self, identity: Identity | None, destination: tuple[str, ...], packet_type: str
    ) -> Deferred[None]:
        if identity is None or destination[:1] != (identity.name,):
            return fail(AccessDenied("not your folder"))
        return succeed(None)


@define
class Response:
    """
    One response, as curl shows it.

    :ivar status: The status.
    :ivar headers: Values by lower-case name.
    """

    status: int
    headers: dict[str, list[str]]

    def __getitem__(self, name: str) -> str:
        (value,) = self.headers[name.lower()]
        return value


class ServerCase(TestCase):
    """
    A server with a keytab.

    :ivar trusted_proxies: Set before ``setUp``.
    :ivar endpoint: The same.
    :ivar settings: The same.
    :ivar connections: How many clients have connected.
    """

    trusted_proxies: tuple[str, ...] = ()
    endpoint = "tcp:0:interface=127.0.0.1"
    settings = Settings()

    async def setUp(self) -> None:  # type: ignore[override]
        self.keytab = kdc().keytab()
        self.authenticator = NegotiateAuthenticator(reactor, self.keytab, [REALM])
        self.memory = MemoryBackend(reactor)
        self.resource = BITSResource(
            self.memory,
            self.settings,
            reactor=reactor,
            authenticators=[self.authenticator],
            policy=OwnFolder(),
            trusted_proxies=self.trusted_proxies,
        )
        await self.resource.manager.start()
        self.addCleanup(self.resource.manager.stop)
        self.site = site = BITSSite(self.resource, reactor=reactor)
        self.connections = 0
        connected = site.connected

        def count(channel):
            self.connections += 1
            connected(channel)

        site.connected = count
        listening = await serverFromString(reactor, self.endpoint).listen(site)
        self.addCleanup(listening.stopListening)
        self.port = listening.getHost().port

    async def curl(
        self, *arguments: str, user: str | None = None, cache: str | None = None
    ) -> list[Response]:
        """
        Run curl.

        :param user: Who runs it.
        :param cache: The user's ticket, if it is there already.
        :returns: All responses but 100 Continue.
        """
        if cache is None:
            cache = kdc().log_in(user) if user else "/nonexistent"
        output, errors, status = await getProcessOutputAndValue(
            found("curl"),
            ["-q", "-s", "-S", "-4", "-m", "60", *arguments],
            env={**os.environ, **kdc().environment, "KRB5CCNAME": cache},
            path=self.mktemp_folder(),
        )
        self.assertEqual((status, errors), (0, b""), output)
        return [one for one in _responses(output.decode()) if one.status != 100]

    def mktemp_folder(self) -> str:
        """A new folder."""
        folder = Path(self.mktemp())
        folder.mkdir()
        return str(folder)

    def packet(
        self,
        kind: str,
        path: str,
        *options: str,
        body: bytes | None = None,
        port: int | None = None,
        host: str = "localhost",
        **headers: str,
    ) -> list[str]:
        """
        The words of curl for a packet.

        :param options: Such as ``--negotiate -u :``.
        :param headers: With ``_`` for ``-``.
        """
        words = ["-i", "-X", "BITS_POST", *options, "-H", f"BITS-Packet-Type: {kind}"]
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {**CREATE.get(kind, {}), **given}.items():
            words += ["-H", f"{name}: {value}"]
        if body is not None:
            file = Path(self.mktemp()).absolute()
            file.write_bytes(body)
            words += ["--data-binary", f"@{file}"]
            if "Content-Range" not in given:
                words += ["-H", f"Content-Range: bytes 0-{len(body) - 1}/{len(body)}"]
        else:
            words += ["-H", "Content-Length: 0"]
        return [*words, f"http://{host}:{port or self.port}{path}"]

    async def one(self, *arguments, user=None, cache=None, **more):
        """Let curl send one packet; its last response."""
        words = self.packet(*arguments, **more)
        return (await self.curl(*words, user=user, cache=cache))[-1]


def _responses(text: str) -> list[Response]:
    found = []
    for head in text.split("\r\n\r\n"):
        first, *lines = head.split("\r\n")
        if not first:
            continue
        headers: dict[str, list[str]] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            headers.setdefault(name.lower(), []).append(value)
        found.append(Response(int(first.split(" ")[1]), headers))
    return found
