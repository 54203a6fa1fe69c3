"""
What the tests of the web have in common: requests and responses in raw bytes, and a
site in memory.

``WebCase`` has a directory at the root of a ``BITSSite``, over a memory backend whose
every call can be held and made to fail. Requests are written by ``packet`` and
``fragment``; ``responses`` reads what came back, and is strict about it: whatever the
site writes must be HTTP to the last byte.
"""

from __future__ import annotations

import re
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import IResource
from twisted.web.server import Site
from zope.interface import implementer

from txbits._ledger import Ledger
from txbits.backends.memory import MemoryBackend
from txbits.errors import AccessDenied
from txbits.interfaces import (
    Credentials,
    IAccessPolicy,
    IAuthenticator,
    IBackend,
    Identity,
    INotifier,
)
from txbits.protocol.refusals import REFUSALS, Refusal
from txbits.sessions import Settings
from txbits.testing.faults import HoldableBackend
from txbits.testing.memory import Peer
from txbits.web import BITSResource, BITSSite, Limits

PROTOCOL = b"{7df0354d-249b-430f-820d-3d2a9bef4931}"

#: Well formed, and nobody's.
UNKNOWN_ID = b"{11111111-2222-3333-4444-5555AAAABBBB}"

PATH = b"/a/b.txt"
DESTINATION = ("a", "b.txt")

#: Headers as keyword arguments: ``bits_session_id=b"..."``.
Values = bytes | list[bytes] | None

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9]) [ -~]*")
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([^\r\n\0]*)")


@frozen
class Response:
    """
    A response as it came.

    :ivar status: The status.
    :ivar headers: Values by lower-case name.
    :ivar body: The body.
    """

    status: int
    headers: dict[str, list[str]]
    body: bytes

    def __getitem__(self, name: str) -> str | None:
        values = self.headers.get(name.lower())
        return None if values is None else values[0]


def responses(data: bytes) -> list[Response]:
    """
    Read all responses in *data*.

    One that has no length must be the last, and ends with the connection.
    """
    found = []
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        assert separator, f"no end of a head: {head!r}"
        status_line, *lines = head.split(b"\r\n")
        match = _STATUS_LINE.fullmatch(status_line)
        assert match is not None, f"no status line: {status_line!r}"
        status = int(match[1])
        headers: dict[str, list[str]] = {}
        for line in lines:
            header = _HEADER_LINE.fullmatch(line)
            assert header is not None, f"no header: {line!r}"
            name = header[1].decode("ascii").lower()
            headers.setdefault(name, []).append(header[2].decode("latin-1"))
        if status < 200:
            body = b""
        elif "content-length" in headers:
            (value,) = headers["content-length"]
            body, data = data[: int(value)], data[int(value) :]
            assert len(body) == int(value), f"a body too short: {body!r}"
        else:
            assert "transfer-encoding" not in headers, "not needed in these tests"
            body, data = data, b""
        found.append(Response(status, headers, body))
    return found


def request(
    method: bytes = b"BITS_POST",
    target: bytes = PATH,
    *,
    version: bytes = b"HTTP/1.1",
    body: bytes = b"",
    **headers: Values,
) -> bytes:
    """Write a request; without a ``content_length`` header it has none."""
    lines = [b"%b %b %b" % (method, target, version)]
    for name, values in {"host": b"upload.example", **headers}.items():
        for value in values if isinstance(values, list) else [values]:
            if value is not None:
                lines.append(
                    b"%b: %b" % (name.replace("_", "-").title().encode("ascii"), value)
                )
    return b"\r\n".join([*lines, b"", body])


def packet(
    kind: bytes,
    session_id: Values = None,
    *,
    body: bytes = b"",
    target: bytes = PATH,
    method: bytes = b"BITS_POST",
    **headers: Values,
) -> bytes:
    """Write a packet; ``None`` as the value of a header leaves it away."""
    if kind.lower() == b"create-session":
        headers = {"bits_supported_protocols": PROTOCOL, **headers}
    return request(
        method,
        target,
        body=body,
        **{
            "bits_packet_type": kind,
            "bits_session_id": session_id,
            "content_length": b"%d" % len(body),
            **headers,
        },
    )


def fragment(
    session_id: Values, first: int, body: bytes, total: int, **kwargs: Any
) -> bytes:
    """Write a Fragment whose range fits its body."""
    value = (
        b"bytes %d-%d/%d" % (first, first + len(body) - 1, total)
        if total
        else b"bytes */0"
    )
    return packet(
        b"Fragment",
        session_id,
        body=body,
        **{"content_range": value, **kwargs},
    )


def chunked(*chunks: bytes) -> bytes:
    """Write a chunked body."""
    pieces = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]
    return b"".join([*pieces, b"0\r\n\r\n"])


def chunked_fragment(
    session_id: bytes, content_range: bytes, body: bytes, **kwargs: Any
) -> bytes:
    """Write a Fragment with a body that has its framing already."""
    return packet(
        b"Fragment",
        session_id,
        content_range=content_range,
        content_length=None,
        transfer_encoding=b"chunked",
        body=body,
        **kwargs,
    )


def refusal(name: str) -> Refusal:
    """The row of the failure table of that name."""
    (found,) = [one for one in REFUSALS if one.name == name]
    return found


@implementer(IAccessPolicy)
class Policy:
    """
    A policy that does as it is told.

    :ivar asked: What it was asked.
    :ivar answer: Makes its next answers; by default everything is permitted.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, tuple[str, ...], str]] = []
        self.answer: Deferred[None] | Exception | None = None

    def check(
        self,
        identity: Identity | None,
        destination: tuple[str, ...],
        packet_type: str,
    ) -> Deferred[None]:
        user = None if identity is None else identity.name
        self.asked.append((user, destination, packet_type))
        if isinstance(self.answer, Deferred):
            return self.answer
        verdict: Deferred[None] = Deferred()
        if self.answer is None:
            verdict.callback(None)
        else:
            verdict.errback(self.answer)
        return verdict


class DenyingPolicy(Policy):
    """A policy that permits nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = AccessDenied("nobody may")


@implementer(IAuthenticator)
class Authenticator:
    """
    An authenticator that does as it is told.

    :ivar asked: The credentials that it was asked about.
    :ivar answer: What its Deferreds fire with, or fail with; or a Deferred itself.
    """

    scheme = "told"

    def __init__(
        self,
        answer: Identity | Deferred[Identity | None] | Exception | None = None,
        challenge: bytes | None = b"Told",
        strength: int = 100,
    ) -> None:
        self.answer = answer
        self.strength = strength
        self.asked: list[Credentials] = []
        self._challenge = challenge

    def challenge(self, credentials: Credentials) -> bytes | None:
        return self._challenge

    def authenticate(self, credentials: Credentials) -> Deferred[Identity | None]:
        self.asked.append(credentials)
        if isinstance(self.answer, Deferred):
            return self.answer
        if isinstance(self.answer, Exception):
            return fail(self.answer)
        return succeed(self.answer)


class WebCase(SynchronousTestCase):
    """
    A directory in a site in memory.

    :ivar settings: Of the directory. Set before ``setUp``, as ``limits``.
    :ivar notifier: The same, of whatever is served from then on.
    :ivar ledger: The same, of sites.
    """

    settings = Settings()
    limits = Limits()
    notifier: INotifier | None = None
    ledger: Ledger | None = None

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.memory = MemoryBackend(self.clock)
        self.backend = HoldableBackend(self.memory)
        self.policy: Policy | None = None
        self.serve()

    def serve(
        self,
        settings: Settings | None = None,
        policy: Policy | None = None,
        **access: Any,
    ) -> None:
        """Serve the backend, as a process that was started just now."""
        self.policy = policy
        self.resource = self.directory(self.backend, settings, policy, **access)
        self.site: Site = self.bits_site(self.resource)

    def directory(
        self,
        backend: IBackend,
        settings: Settings | None = None,
        policy: Policy | None = None,
        **access: Any,
    ) -> BITSResource:
        """Make and start a virtual directory."""
        resource = BITSResource(
            backend,
            self.settings if settings is None else settings,
            policy=policy,
            notifier=self.notifier,
            reactor=self.clock,
            **access,
        )
        self.successResultOf(resource.manager.start())
        return resource

    def bits_site(self, root: IResource, limits: Limits | None = None) -> BITSSite:
        """Make and start a streaming site."""
        site = BITSSite(
            root,
            reactor=self.clock,
            limits=self.limits if limits is None else limits,
            ledger=self.ledger,
        )
        site.startFactory()
        self.addCleanup(site.stopFactory)
        return site

    def peer(self, address: str = "192.0.2.1") -> Peer:
        """Connect to the site."""
        return Peer(self.site, address)

    def exchange(self, peer: Peer, data: bytes) -> Response:
        """Send a request, and take the one response to it."""
        peer.send(data)
        return self.answer(peer)

    def answer(self, peer: Peer) -> Response:
        """Take the one response that is there."""
        found = responses(peer.received())
        self.assertEqual(len(found), 1, found)
        return found[0]

    def ask(self, data: bytes) -> Response:
        """Send a request on a new connection, and take the one response to it."""
        return self.exchange(self.peer(), data)

    def create(self, target: bytes = PATH, **kwargs: Any) -> bytes:
        """Create a session, and return its id."""
        ack = self.ask(packet(b"Create-Session", target=target, **kwargs))
        self.assertEqual(ack.status, 200, ack)
        session_id = ack["BITS-Session-Id"]
        assert session_id is not None
        return session_id.encode("ascii")

    def create_holding(self, held: bytes, total: int, target: bytes = PATH) -> bytes:
        """Create a session that holds some bytes."""
        session_id = self.create(target)
        ack = self.ask(fragment(session_id, 0, held, total, target=target))
        self.assert_success(ack, session_id)
        return session_id

    def assert_silent(self, peer: Peer) -> None:
        """Nothing has been written, and the connection stands."""
        self.assertEqual(peer.received(), b"")
        self.assertFalse(peer.closed)

    def assert_ack(self, ack: Response) -> None:
        """It is an Ack, with what every Ack has."""
        self.assertEqual(ack.headers.get("bits-packet-type"), ["Ack"], ack)
        self.assertEqual(ack.headers.get("content-length"), ["0"])
        self.assertEqual(ack.body, b"")

    def assert_success(self, ack: Response, session_id: bytes | None) -> None:
        """It is an Ack that promises."""
        self.assert_ack(ack)
        self.assertEqual(ack.status, 200, ack)
        for name in ("BITS-Error-Code", "BITS-Error", "BITS-Error-Context"):
            self.assertIsNone(ack[name])
        expected = None if session_id is None else session_id.decode("ascii")
        self.assertEqual(ack["BITS-Session-Id"], expected)

    def assert_refused(
        self,
        ack: Response,
        name: str,
        session_id: bytes | None = None,
        application_status: int = 0,
    ) -> None:
        """It is an Ack that refuses, as the failure table says."""
        row = refusal(name)
        status, code = row.answer(application_status)
        self.assert_ack(ack)
        expected = None if session_id is None else [session_id.decode("ascii")]
        hresult = [f"0x{code:08X}"]
        self.assertEqual(
            (
                ack.status,
                ack.headers.get("bits-error-code"),
                ack.headers.get("bits-error"),
                ack.headers.get("bits-error-context"),
                ack.headers.get("bits-session-id"),
            ),
            (status, hresult, hresult, [f"0x{row.context:X}"], expected),
        )


class StreamingCase(WebCase):
    """What the tests below have in common."""

    def held(self) -> bytes:
        """The bytes that the backend holds of its only session."""
        (session,) = self.memory._sessions.values()
        return b"".join(session._pieces)

    def send_until_paused(self, peer: Peer, data: bytes, size: int) -> bytes:
        """Send *data* in pieces of *size*, as a socket would; return what is left."""
        while data and not peer.paused and not peer.closed:
            peer.send(data[:size])
            data = data[size:]
        return data

    def statuses(self, peer: Peer) -> list[int]:
        """The statuses of all responses that are there."""
        return [one.status for one in responses(peer.received())]
