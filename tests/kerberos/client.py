"""
The client logs in with Kerberos to our server, over raw HTTP.
"""

from __future__ import annotations

import os

import treq
from twisted.internet import reactor
from twisted.web.client import Agent, HTTPConnectionPool

from tests.kerberos import kdc
from tests.kerberos.support import ServerCase
from txbits.client._negotiate import Negotiator, NoTicket


class NegotiatorTests(ServerCase):
    """Requests on one connection, as the module describes them."""

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.pool = HTTPConnectionPool(reactor)
        self.pool.maxPersistentPerHost = 1
        self.addCleanup(self.pool.closeCachedConnections)
        self.sent: list[bytes | None] = []

    def negotiator(self, user: str, host: str = "localhost") -> Negotiator:
        return Negotiator(host, kdc().log_in(user))

    async def ask(self, negotiator, path, headers=()) -> tuple[int, bool]:
        """Send a Ping; its status, and whether the server has proved who it is."""
        client = treq.client.HTTPClient(Agent(reactor, pool=self.pool))
        value = await negotiator.opening()
        while True:
            self.sent.append(value)
            given = {b"BITS-Packet-Type": b"Ping", **dict(headers)}
            if value is not None:
                given[b"Authorization"] = value
            response = await client.request(
                "BITS_POST", f"http://127.0.0.1:{self.port}{path}", headers=given
            )
            await response.content()
            values = response.headers.getRawHeaders(b"WWW-Authenticate") or []
            if response.code != 401:
                persistent = response.headers.getRawHeaders(b"Persistent-Auth")
                return response.code, await negotiator.answered(
                    values, persistent or []
                )
            value = await negotiator.challenged(values)
            if value is None:
                return 401, False

    async def test_server_asks_and_the_connection_is_the_users(self) -> None:
        negotiator = self.negotiator("alice")
        self.assertEqual(await self.ask(negotiator, "/alice/f"), (200, True))
        self.assertEqual(await self.ask(negotiator, "/alice/f"), (200, False))
        self.assertEqual(await self.ask(negotiator, "/bob/f"), (403, False))
        self.assertEqual([one is not None for one in self.sent], [0, 1, 0, 0])
        self.assertEqual(self.connections, 1)

    async def test_new_connection_is_a_new_login(self) -> None:
        negotiator = self.negotiator("alice")
        for _ in range(2):
            self.assertEqual(await self.ask(negotiator, "/alice/f"), (200, True))
            await self.pool.closeCachedConnections()
        self.assertEqual(self.connections, 2)

    async def test_behind_a_proxy_each_request_has_a_new_ticket(self) -> None:
        negotiator = self.negotiator("alice")
        via = {b"Via": b"1.1 somewhere"}
        for _ in range(3):
            self.assertEqual(await self.ask(negotiator, "/alice/f", via), (200, True))
        first, *tokens = self.sent
        self.assertIsNone(first)
        self.assertEqual(len(set(tokens)), 3)

    async def test_refused_user_is_not_asked_for_ever(self) -> None:
        self.resource.gate.authenticators[0]._realms = frozenset({"SALES.TEST"})
        self.assertEqual(
            await self.ask(self.negotiator("alice"), "/alice/f"), (401, False)
        )
        self.assertEqual(len(self.sent), 2)

    async def test_server_whose_key_is_not_the_kdcs_service(self) -> None:
        negotiator = self.negotiator("alice", host="unknown.test")
        with self.assertRaisesRegex(NoTicket, "HTTP@unknown.test: .*not found in Ker"):
            await self.ask(negotiator, "/alice/f")

    async def test_user_without_a_ticket(self) -> None:
        negotiator = Negotiator("localhost", "/nonexistent")
        with self.assertRaisesRegex(NoTicket, "no Kerberos ticket for HTTP@localhost"):
            await self.ask(negotiator, "/alice/f")

    async def test_kdc_that_is_away(self) -> None:
        negotiator = self.negotiator("alice")
        kdc().stop()
        self.addCleanup(kdc().start)
        with self.assertRaisesRegex(NoTicket, "Cannot contact any KDC"):
            await self.ask(negotiator, "/alice/f")

    async def test_wrong_proof(self) -> None:
        negotiator = self.negotiator("alice")
        await negotiator.challenged([b"Negotiate"])
        with self.assertRaisesRegex(NoTicket, "the Kerberos proof of localhost is"):
            await negotiator.answered([b"Negotiate YWJj"])

    async def test_default_cache_is_that_of_the_environment(self) -> None:
        os.environ["KRB5CCNAME"] = kdc().log_in("alice")
        self.addCleanup(os.environ.pop, "KRB5CCNAME")
        negotiator = Negotiator("localhost")
        self.assertEqual(await self.ask(negotiator, "/alice/f"), (200, True))

    async def test_keytab_of_a_job_is_enough(self) -> None:
        kdc().log_in("alice")
        os.environ["KRB5CCNAME"] = f"{self.mktemp()}-cache"
        os.environ["KRB5_CLIENT_KTNAME"] = str(kdc().folder / "users.keytab")
        self.addCleanup(os.environ.pop, "KRB5CCNAME")
        self.addCleanup(os.environ.pop, "KRB5_CLIENT_KTNAME")
        token = await Negotiator("localhost").challenged([b"Negotiate"])
        self.assertIsNotNone(token)
