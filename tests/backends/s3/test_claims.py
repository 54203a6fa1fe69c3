"""
The claims of the S3 backend: of two nodes, one publishes, whatever is lost or killed.
"""

from __future__ import annotations

from uuid import UUID, uuid4

from twisted.internet.threads import deferToThread

from tests.backends.s3.support import Killed, S3Case
from tests.backends.s3.test_requests import Body, RequestCase
from txbits._deferreds import together
from txbits.errors import AccessDenied, BackendError
from txbits.interfaces import Grant
from txbits.protocol.codec import ContentRange
from txbits.sessions import Caller
from txbits.testing.backend import contract

UNTIL = 1e10
ONE, OTHER = UUID(int=1), UUID(int=2)


class ClaimsTests(S3Case):
    """Two nodes, and one claim."""

    async def close_once(self, backend, session):
        """What a Close does, with a claim."""
        claim = await backend.claim("x", session.session_id, UNTIL)
        if claim is None:
            return False
        await session.publish(overwrite=False, create_directories=False)
        return True

    @contract
    async def test_two_nodes_at_once(self):
        first = await self.started()
        second = await self.another(first)
        claims = [
            node.claim(name, uuid4(), UNTIL)
            for name in ("x", "y", "z")
            for node in (first, second, first)
        ]
        got = [one is not None for one in await together(*claims)]
        for at in (0, 3, 6):
            self.assertEqual(sum(got[at : at + 3]), 1)

    @contract
    async def test_one_file_appears_after_a_kill_at_any_request(self):
        for calls in range(30):
            self.prefix = f"in-{uuid4()}/"
            first = await self.started()
            second = await self.another(first)
            one = await self.complete(first, ("a",))
            other = await self.complete(second, ("b",))
            self.client(first).die_after(calls)
            try:
                was_closed = await self.close_once(first, one)
            except Killed:
                was_closed = False
            has_died = self.client(first).is_dead
            await self.close_once(second, other)
            again = await second.find(one.session_id)
            is_closed = await self.close_once(second, again)
            there = [
                name
                for name in ("a", "b")
                if await self.file_at(second, (name,)) is not None
            ]
            self.assertEqual(len(there), 1, calls)
            if was_closed:
                self.assertEqual((is_closed, there), (True, ["a"]))
            if not has_died:
                self.client(first).rise()
                return
        self.fail("it never ends")

    @contract
    async def test_a_lost_response_does_not_lose_the_claim(self):
        backend = await self.started()
        for name in ("x", "y"):
            self.client(backend).lose("PutObject")
            self.assertIsNotNone(await backend.claim(name, ONE, UNTIL))
            self.assertIsNone(await backend.claim(name, OTHER, UNTIL))

    @contract
    async def test_a_node_does_not_withdraw_what_another_may_publish(self):
        first = await self.started()
        second = await self.another(first)
        withdrawn = await first.claim("x", ONE, UNTIL)
        self.assertIsNotNone(await second.claim("x", ONE, UNTIL))
        await withdrawn.withdraw()
        self.assertTrue(await second.is_claimed("x"))
        self.assertIsNone(await first.claim("x", OTHER, UNTIL))

    @contract
    async def test_one_that_was_withdrawn_is_one_nodes_again(self):
        first = await self.started()
        second = await self.another(first)
        await (await first.claim("x", ONE, UNTIL)).withdraw()
        self.assertFalse(await second.is_claimed("x"))
        claims = [node.claim("x", uuid4(), UNTIL) for node in (first, second) * 2]
        got = [one for one in await together(*claims) if one is not None]
        self.assertEqual(len(got), 1)

    @contract
    async def test_no_clean_up_takes_a_claim_for_the_rest_of_a_session(self):
        backend = await self.started()
        await backend.claim("x", ONE, UNTIL)
        for _ in range(2):
            await self.clean_up_late(backend)
            self.assertTrue(await backend.is_claimed("x"))
        self.assertEqual(list(await backend.sessions()), [])

    @contract
    async def test_clean_ups_read_a_claim_once(self):
        backend = await self.started()
        await backend.claim("x", ONE, UNTIL)
        await backend.clean_up(0)
        before = self.client(backend).counts["GetObject"]
        await backend.clean_up(0)
        self.assertEqual(self.client(backend).counts["GetObject"], before)

    @contract
    async def test_a_damaged_one_is_nobodys(self):
        backend = await self.started()
        await backend.claim("x", ONE, UNTIL)
        key = backend.claims._key("x")
        for body in (b"", b"[]", b'{"session": 1, "until": 0, "stamp": ""}'):
            await deferToThread(self.bucket.put, key, body)
            await self.fails(BackendError, backend.is_claimed("x"))
            await self.fails(BackendError, backend.claim("x", ONE, UNTIL))


class ManagersTests(RequestCase):
    """Two servers on one bucket, and a link that is good once."""

    def guest(self):
        """Who has a new link."""
        claim = f"link/{uuid4()}"
        grant = Grant(overwrite=False, claim=claim, claim_until=UNTIL)
        return Caller("link/anna", "192.0.2.7", grant)

    async def complete_sessions(self, nodes, guest):
        """A complete session on each node, with names of their own."""
        data, sessions = self.data(2000), []
        for node in nodes:
            name = (f"{uuid4()}",)
            one = await node.create(name, guest, None)
            await node.fragment(
                one, name, guest, ContentRange(0, 1999, 2000), Body(data)
            )
            sessions.append((one, name))
        return sessions

    async def outcome(self, closing):
        """Whether a Close succeeded, or was denied."""
        try:
            await closing
        except AccessDenied:
            return False
        return True

    @contract
    async def test_one_of_two_closes_at_once_succeeds(self):
        nodes = [await self.manager() for _ in range(2)]
        for _ in range(5):
            guest = self.guest()
            sessions = await self.complete_sessions(nodes, guest)
            closings = [
                node.close(*session, guest)
                for node, session in zip(nodes, sessions, strict=True)
            ]
            outcomes = [await self.outcome(closing) for closing in closings]
            self.assertEqual(sorted(outcomes), [False, True])
            there = [
                await self.file_at(nodes[0].backend, name) is not None
                for _, name in sessions
            ]
            self.assertEqual(there, outcomes)
            # The Ack was lost, and the other node is asked.
            winner = sessions[outcomes.index(True)]
            await nodes[outcomes.index(False)].close(*winner, guest)
            for node in nodes:
                with self.assertRaises(AccessDenied):
                    await node.create(("another",), guest, None)

    @contract
    async def test_both_nodes_close_the_same_session_at_once(self):
        nodes = [await self.manager() for _ in range(2)]
        guest = self.guest()
        ((one, name), _) = await self.complete_sessions(nodes, guest)
        await together(*(node.close(one, name, guest) for node in nodes))
        self.assertIsNotNone(await self.file_at(nodes[0].backend, name))
