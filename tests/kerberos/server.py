"""
Uploads by ``curl --negotiate``, to a server with a keytab.
"""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import bcrypt
from twisted.internet import reactor
from twisted.logger import LogLevel, globalLogPublisher

from tests.kerberos import REALM, kdc
from tests.kerberos.support import ANY, NEGOTIATE, ServerCase
from txbits.access.basic import BasicAuthenticator, Passwords
from txbits.access.negotiate import NegotiateAuthenticator
from txbits.web import Gate

#: More than a socket takes at once.
LONG = b"0123456789abcdef" * 0x10000


class CurlTests(ServerCase):
    """What curl does, and is answered."""

    async def test_upload_in_three_packets(self) -> None:
        cache = kdc().log_in("alice")
        created = await self.one("Create-Session", "/alice/f", *NEGOTIATE, cache=cache)
        self.assertEqual(created.status, 200)
        self.assertTrue(created["WWW-Authenticate"].startswith("Negotiate "))
        self.assertEqual(created["Persistent-Auth"], "true")
        session = created["BITS-Session-Id"]
        for kind, body in (("Fragment", LONG), ("Close-Session", None)):
            response = await self.one(
                kind,
                "/alice/f",
                *NEGOTIATE,
                cache=cache,
                body=body,
                BITS_Session_Id=session,
            )
            self.assertEqual(response.status, 200)
        self.assertEqual(self.memory.files[("alice", "f")], LONG)

    async def test_one_login_serves_a_connection(self) -> None:
        ping = self.packet("Ping", "/alice/f", *NEGOTIATE)
        silent = self.packet("Ping", "/alice/f")
        elsewhere = self.packet("Ping", "/bob/f")
        responses = await self.curl(
            *(*ping, "--next", *silent, "--next", *elsewhere, "--next", *silent),
            user="alice",
        )
        self.assertEqual([one.status for one in responses], [200, 200, 403, 200])
        self.assertIn("www-authenticate", responses[0].headers)
        self.assertNotIn("www-authenticate", responses[1].headers)
        self.assertEqual(self.connections, 1)

    async def test_credentials_of_another_scheme_end_the_login(self) -> None:
        path = Path(self.mktemp_folder()) / "users"
        path.write_bytes(b"alice:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)))
        path.chmod(0o600)
        basic = BasicAuthenticator(reactor, Passwords.read(str(path)))
        gate = self.resource.gate
        for order in ((basic, self.authenticator), (self.authenticator, basic)):
            self.resource.gate = Gate(order, gate.policy)
            for password, status in (("secret", 200), ("wrong", 401)):
                value = b64encode(f"alice:{password}".encode()).decode()
                silent = self.packet("Ping", "/alice/f")
                responses = await self.curl(
                    *(*self.packet("Ping", "/alice/f", *NEGOTIATE), "--next", *silent),
                    *("--next", "-H", f"Authorization: Basic {value}", *silent),
                    *("--next", *silent),
                    user="alice",
                )
                statuses = [one.status for one in responses]
                self.assertEqual(statuses, [200, 200, status, 401])

    async def test_any_scheme_is_negotiate(self) -> None:
        responses = await self.curl(
            *self.packet("Create-Session", "/alice/f", *ANY), user="alice"
        )
        self.assertEqual([one.status for one in responses], [401, 200])
        self.assertEqual(responses[0]["WWW-Authenticate"], "Negotiate")
        self.assertEqual(self.connections, 1)

    async def test_refused_fragment_is_sent_again_on_the_same_connection(self) -> None:
        created = await self.one("Create-Session", "/alice/f", *NEGOTIATE, user="alice")
        self.assertEqual(self.connections, 1)
        for expect in ("100-continue", ""):
            responses = await self.curl(
                *self.packet(
                    "Fragment",
                    "/alice/f",
                    *ANY,
                    body=LONG,
                    BITS_Session_Id=created["BITS-Session-Id"],
                    Expect=expect,
                ),
                user="alice",
            )
            self.assertEqual([one.status for one in responses], [401, 200])
        self.assertEqual(self.connections, 3)

    async def test_schemes_that_are_not_offered(self) -> None:
        for option in ("--ntlm", "--digest", "--basic"):
            response = await self.one(
                "Create-Session", "/alice/f", option, "-u", "alice:secret"
            )
            self.assertEqual(response.status, 401, option)
            self.assertEqual(response["WWW-Authenticate"], "Negotiate")
            # curl keeps a body back while it expects to be challenged.
            response = await self.one(
                "Fragment",
                "/alice/f",
                *(option, "-u", "alice:secret"),
                body=LONG,
                BITS_Session_Id="{11111111-2222-3333-4444-5555AAAABBBB}",
            )
            self.assertEqual(response.status, 401, option)
        response = await self.one("Ping", "/alice/f", *NEGOTIATE, user="alice")
        self.assertEqual(response.status, 200)

    async def test_ticket_for_another_server(self) -> None:
        kdc().keytab("HTTP/other.test")
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        resolve = ("--resolve", f"other.test:{self.port}:127.0.0.1")
        response = await self.one(
            "Ping", "/alice/f", *NEGOTIATE, *resolve, host="other.test", user="alice"
        )
        self.assertEqual(response.status, 401)
        (warned,) = [one for one in events if one["log_level"] is LogLevel.warn]
        self.assertIn("HTTP/other.test@EXAMPLE.TEST not found", warned["reason"])

    async def test_user_without_a_ticket(self) -> None:
        for host in ("localhost", "127.0.0.1"):
            response = await self.one("Ping", "/alice/f", *NEGOTIATE, host=host)
            self.assertEqual(response.status, 401)

    async def test_service_cannot_log_in(self) -> None:
        response = await self.one("Ping", "/alice/f", *NEGOTIATE, user="alice/admin")
        self.assertEqual(response.status, 401)

    async def test_kdc_that_is_away_stops_no_upload(self) -> None:
        alice, bob = kdc().log_in("alice"), kdc().log_in("bob")
        created = await self.one("Create-Session", "/alice/f", *NEGOTIATE, cache=alice)
        kdc().stop()
        self.addCleanup(kdc().start)
        session = {"BITS_Session_Id": created["BITS-Session-Id"]}
        # Bob has not asked for a ticket for this server yet.
        for cache, path, status in (
            (alice, "/alice/f", 200),
            (bob, "/bob/f", 401),
            (alice, "/alice/f", 200),
        ):
            response = await self.one(
                "Fragment", path, *NEGOTIATE, cache=cache, body=LONG, **session
            )
            self.assertEqual(response.status, status)

    async def test_new_keytab_takes_the_place_of_the_old_one(self) -> None:
        cache = kdc().log_in("alice")
        response = await self.one("Ping", "/alice/f", *NEGOTIATE, cache=cache)
        self.assertEqual(response.status, 200)
        kdc().change_key()
        fresh = kdc().log_in("alice")
        response = await self.one("Ping", "/alice/f", *NEGOTIATE, cache=fresh)
        self.assertEqual(response.status, 503)
        self.assertEqual(response["Retry-After"], "60")
        # The old ticket is still good with the old key.
        response = await self.one("Ping", "/alice/f", *NEGOTIATE, cache=cache)
        self.assertEqual(response.status, 200)
        successor = NegotiateAuthenticator(reactor, kdc().keytab(), [REALM])
        successor.adopt(self.authenticator)
        self.resource.gate = Gate([successor], self.resource.gate.policy)
        response = await self.one("Ping", "/alice/f", *NEGOTIATE, cache=fresh)
        self.assertEqual(response.status, 200)
