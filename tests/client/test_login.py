"""
Which credentials are sent to whom, as bytes on connections that end in the test.

Real logins with Kerberos are in :mod:`tests.kerberos.commands`; here a fake has the
interface of :class:`txbits.client._negotiate.Negotiator`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent

from tests.client.fakes import Connector
from txbits.client._auth import Authorizer
from txbits.client._login import Login
from txbits.client._negotiate import KerberosMissing, NoTicket
from txbits.client._requests import Connections, NoAnswer, NoWay, Requests
from txbits.client.settings import ConnectionSettings, Credentials, InvalidSettings

ALICE = Credentials("alice", "sesame")
BASIC = b'Basic realm="r"'
BEARER = b'Bearer realm="r"'
DIGEST = b'Digest realm="r", nonce="n", qop="auth"'
OK = b"HTTP/1.1 200 OK"


class FakeNegotiator:
    """
    Logs in with a script of tokens.

    :ivar tokens: What to send, one after the other; an exception fails.
    """

    def __init__(self, host: str, tokens: list[Any]) -> None:
        self.host = host
        self.tokens = tokens
        self.is_logging_in = False
        self.proof = False
        self.heard: list[bytes] = []

    def opening(self) -> Deferred[bytes | None]:
        self.is_logging_in = False
        return succeed(None)

    def challenged(self, values: list[bytes]) -> Deferred[bytes | None]:
        self.heard += values

        def take() -> bytes | None:
            token = self.tokens.pop(0) if self.tokens else None
            if isinstance(token, Exception):
                raise token
            self.is_logging_in = token is not None
            return None if token is None else b"Negotiate " + token

        return maybeDeferred(take)

    def answered(self, values: list[bytes], persistent: list[bytes]) -> Deferred[bool]:
        self.is_logging_in = False
        return succeed(b"Negotiate proof" in values)


class LoginCase(SynchronousTestCase):
    """Requests to one server, and to others."""

    url = "https://h/a"

    def setUp(self) -> None:
        self.clock = Clock()
        self.connector = Connector()
        self.connections = Connections(self.clock)
        self.tokens: list[Any] = []
        self.negotiators: list[FakeNegotiator] = []

    def make(self, **settings: Any) -> None:
        def negotiator(host: str, in_thread: Any = None) -> Any:
            made = FakeNegotiator(host, self.tokens)
            self.negotiators.append(made)
            return made

        def at_once(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
            return maybeDeferred(function, *args)

        given = ConnectionSettings(**settings)
        login = Login(given, at_once, negotiator)
        agent = Agent.usingEndpointFactory(self.clock, self.connector, self.connections)
        self.requests = Requests(
            self.clock, self.connections, agent, given, Authorizer(None), login
        )

    def ask(self, url: str | None = None) -> Deferred[Any]:
        asking = self.requests.ask(b"GET", url or self.url, [], lambda _: None)
        return Deferred.fromCoroutine(asking)

    def said(self) -> bytes | None:
        """The value of Authorization of the latest request."""
        for line in self.connector.request().split(b"\r\n"):
            name, _, value = line.partition(b": ")
            if name.lower() == b"authorization":
                return value
        return None

    def refuse(self, *challenges: bytes, body: bytes = b"") -> None:
        lines = [b"WWW-Authenticate: " + challenge for challenge in challenges]
        length = b"Content-Length: %d" % len(body)
        self.connector.answer(b"HTTP/1.1 401 No", *lines, length, body=body)
        self.clock.advance(0)

    def accept(self, *lines: bytes) -> None:
        self.connector.answer(OK, *lines, b"Content-Length: 0")
        self.clock.advance(0)

    def file(self, content: str, mode: int = 0o600) -> str:
        path = self.mktemp()
        Path(path).write_text(content)
        os.chmod(path, mode)
        return path


class TokenTests(LoginCase):
    """RFC 6750."""

    def test_token_alone_goes_with_each_request(self) -> None:
        self.make(token="abc")
        for _ in range(2):
            asking = self.ask()
            self.assertEqual(self.said(), b"Bearer abc")
            self.accept()
            self.assertEqual(self.successResultOf(asking).code, 200)

    def test_token_beside_a_password_waits_for_the_question(self) -> None:
        for challenges, answer in (
            ([BASIC, BEARER], b"Bearer abc"),
            ([BASIC], b"Basic YWxpY2U6c2VzYW1l"),
            ([BEARER], b"Bearer abc"),
        ):
            self.make(token="abc", credentials=ALICE)
            self.ask()
            self.assertIsNone(self.said())
            self.refuse(*challenges)
            self.assertEqual(self.said(), answer)

    def test_digest_which_reveals_nothing_comes_before_it(self) -> None:
        self.make(token="abc", credentials=ALICE)
        self.ask()
        self.refuse(BASIC, BEARER, DIGEST)
        self.assertIn(b"Digest username", self.said() or b"")

    def test_refused_token_is_read_again_once(self) -> None:
        path = self.file("old\n")
        self.make(token_file=path)
        asking = self.ask()
        self.assertEqual(self.said(), b"Bearer old")
        Path(path).write_text("new\n")
        self.refuse(BEARER)
        self.assertEqual(self.said(), b"Bearer new")
        Path(path).write_text("newer\n")
        self.refuse(BEARER)
        self.assertEqual(self.successResultOf(asking).code, 401)
        # The next request may have another.
        self.ask()
        self.assertEqual(self.said(), b"Bearer new")
        self.refuse(BEARER)
        self.assertEqual(self.said(), b"Bearer newer")

    def test_same_token_is_not_sent_twice(self) -> None:
        for settings in ({"token": "abc"}, {"token_file": self.file("abc")}):
            self.make(**settings)
            asking = self.ask()
            self.refuse(BEARER + b', error="invalid_token"')
            response = self.successResultOf(asking)
            self.assertEqual(response.code, 401)
            self.assertEqual(
                self.requests.offered(response),
                ("Bearer (the token was refused, and may have expired)",),
            )

    def test_what_the_server_says_of_it_is_told_in_part(self) -> None:
        self.make(token="abc")
        asking = self.ask()
        words = b"expired\x01" + b"x" * 500
        self.refuse(BEARER + b', error="e", error_description="' + words + b'"')
        (told,) = self.requests.offered(self.successResultOf(asking))
        self.assertIn("refused: 'expired\\x01xx", told)
        self.assertLess(len(told), 200)

    def test_plain_text_is_for_this_machine_only(self) -> None:
        for host in ("localhost", "127.0.0.1:8080", "127.9.9.9", "[::1]"):
            self.make(token="abc")
            self.ask(f"http://{host}/a")
            self.assertEqual(self.said(), b"Bearer abc", host)
        for host in ("h", "localhost.example", "127.0.0.1.example", "10.0.0.1"):
            self.make(token="abc")
            connections = len(self.connector.connections)
            error = self.failureResultOf(self.ask(f"http://{host}/a")).value
            self.assertIsInstance(error, InvalidSettings)
            self.assertIn(f"is not sent to {host} in plain text", str(error))
            self.assertEqual(len(self.connector.connections), connections)
        self.make(token="abc", allow_plain_token=True)
        self.ask("http://h/a")
        self.assertEqual(self.said(), b"Bearer abc")

    def test_proxy_may_listen_as_well(self) -> None:
        settings = ConnectionSettings(token="abc", proxy="http://p:1")
        with self.assertRaises(InvalidSettings):
            settings.check_way_of_token("http://localhost/a")
        settings.check_way_of_token("https://h/a")

    def test_file_that_others_can_read_is_refused(self) -> None:
        self.make(token_file=self.file("sesame", 0o644))
        error = self.failureResultOf(self.ask()).value
        self.assertIsInstance(error, InvalidSettings)
        self.assertIn("run chmod o-rw on it", str(error))
        self.assertNotIn("sesame", str(error))

    def test_what_is_no_token_is_refused_and_not_repeated(self) -> None:
        for text in ("two words", "sesam\u00e9", "", "a\nb", "sesame" * 3000):
            if text:
                with self.assertRaises(InvalidSettings) as caught:
                    ConnectionSettings(token=text)
                self.assertNotIn("sesam", str(caught.exception))
            path = self.file(text)
            with self.assertRaises(InvalidSettings) as caught:
                ConnectionSettings(token_file=path).get_token()
            self.assertNotIn("sesam", str(caught.exception))
        with self.assertRaises(InvalidSettings):
            ConnectionSettings(token="a", token_file="b")

    def test_secrets_are_in_no_repr_and_for_no_strangers(self) -> None:
        settings = ConnectionSettings(token="sesame", negotiate=True)
        self.assertNotIn("sesame", repr(settings))
        self.assertTrue(settings.has_secrets)
        self.assertEqual(settings.for_strangers, ConnectionSettings())
        self.assertEqual(
            ConnectionSettings(token_file="t").for_strangers, ConnectionSettings()
        )
        self.make(token="sesame")
        self.assertNotIn("sesame", repr(self.requests._login))


class NegotiateTests(LoginCase):
    """RFC 4559."""

    def make(self, **settings: Any) -> None:
        super().make(negotiate=True, **settings)

    def test_steps_are_on_one_connection_whatever_is_in_between(self) -> None:
        self.tokens = [b"one", b"two", b"three"]
        self.make()
        asking = self.ask()
        self.assertIsNone(self.said())
        self.refuse(b"Negotiate", body=b"<html>" * 100)
        self.assertEqual(self.said(), b"Negotiate one")
        self.refuse(b"Negotiate eA==", body=b"<html>" * 100)
        self.assertEqual(self.said(), b"Negotiate two")
        self.refuse(b"Negotiate eQ==")
        self.assertEqual(self.said(), b"Negotiate three")
        self.accept(b"WWW-Authenticate: Negotiate proof")
        self.assertEqual(self.successResultOf(asking).code, 200)
        self.assertEqual(len(self.connector.connections), 1)
        heard = [b"Negotiate", b"Negotiate eA==", b"Negotiate eQ=="]
        self.assertEqual(self.negotiators[-1].heard, heard)

    def test_long_refusal_costs_the_connection(self) -> None:
        self.tokens = [b"one"]
        self.make()
        self.ask()
        self.connector.answer(
            b"HTTP/1.1 401 No",
            b"WWW-Authenticate: Negotiate",
            b"Transfer-Encoding: chunked",
        )
        chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        for _ in range(2):
            self.connector.connections[-1][0].dataReceived(chunk)
        self.assertTrue(self.connector.connections[0][1].aborted)
        self.connector.connections[0][0].connectionLost(Failure(ConnectionLost()))
        self.clock.advance(0)
        self.assertEqual(self.said(), b"Negotiate one")
        self.assertEqual(len(self.connector.connections), 2)

    def test_refusal_that_does_not_end_costs_the_connection(self) -> None:
        self.tokens = [b"one"]
        self.make(response_timeout=20)
        self.ask()
        self.connector.answer(
            b"HTTP/1.1 401 No", b"WWW-Authenticate: Negotiate", b"Content-Length: 9"
        )
        self.clock.advance(20)
        self.clock.advance(0)
        self.assertTrue(self.connector.connections[0][1].aborted)

    def test_server_without_a_proof_is_refused(self) -> None:
        self.tokens = [b"one"]
        self.make()
        asking = self.ask()
        self.refuse(b"Negotiate")
        self.accept()
        error = self.failureResultOf(asking, NoWay).value
        self.assertIn("h has not proved that it is HTTP@h", str(error))
        self.assertTrue(self.connector.connections[-1][1].aborted)

    def test_refusal_without_a_proof_is_a_refusal(self) -> None:
        self.tokens = [b"one"]
        self.make()
        asking = self.ask()
        self.refuse(b"Negotiate")
        self.connector.answer(b"HTTP/1.1 503 Away", b"Content-Length: 0")
        self.assertEqual(self.successResultOf(asking).code, 503)

    def test_strongest_scheme_is_used(self) -> None:
        self.tokens = [b"one"]
        self.make(credentials=ALICE, token="abc")
        self.ask()
        self.refuse(BASIC, BEARER, b"Negotiate", DIGEST)
        self.assertEqual(self.said(), b"Negotiate one")

    def test_without_a_ticket_the_others_serve(self) -> None:
        self.tokens = [NoTicket("no ticket; run kinit")] * 2
        self.make(credentials=ALICE)
        asking = self.ask()
        self.refuse(b"Negotiate", BASIC)
        self.assertEqual(self.said(), b"Basic YWxpY2U6c2VzYW1l")
        self.refuse(b"Negotiate", BASIC)
        response = self.successResultOf(asking)
        self.assertEqual(
            self.requests.offered(response),
            ("Negotiate (no ticket; run kinit)", "Basic"),
        )

    def test_without_a_ticket_and_others_the_reason_is_told(self) -> None:
        for transient, kind in ((False, NoWay), (True, NoAnswer)):
            self.connector, self.connections = Connector(), Connections(self.clock)
            self.tokens = [NoTicket("no ticket; run kinit", transient=transient)]
            self.make()
            asking = self.ask()
            self.refuse(b"Negotiate", BASIC)
            error = self.failureResultOf(asking, kind).value
            self.assertEqual(str(error), "no ticket; run kinit")

    def test_refused_ticket_is_told(self) -> None:
        self.tokens = [b"one"]
        self.make()
        asking = self.ask()
        self.refuse(b"Negotiate")
        self.refuse(b"Negotiate")
        self.assertEqual(
            self.requests.offered(self.successResultOf(asking)),
            ("Negotiate (the Kerberos ticket was refused)",),
        )

    def test_each_host_has_its_own_login(self) -> None:
        self.make()
        for url in ("https://a/x", "https://a/y", "https://b/x"):
            asking = self.ask(url)
            self.accept()
            self.successResultOf(asking)
        self.assertEqual([each.host for each in self.negotiators], ["", "a", "b"])

    def test_without_the_option_nothing_is_said(self) -> None:
        LoginCase.make(self, credentials=ALICE)
        asking = self.ask()
        self.refuse(b"Negotiate")
        response = self.successResultOf(asking)
        self.assertEqual(self.requests.offered(response), ("Negotiate",))
        self.assertEqual(self.negotiators, [])

    def test_missing_package_is_told_at_the_start(self) -> None:
        def missing(host: str) -> Any:
            raise KerberosMissing("run pip install")

        with self.assertRaises(InvalidSettings) as caught:
            Login(ConnectionSettings(negotiate=True), maybeDeferred, missing)
        self.assertEqual(str(caught.exception), "run pip install")
