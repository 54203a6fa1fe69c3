"""
Two nodes end one session at the same moment: one discards it, the other closes it. The
requests of both come to the store in every order that there is, or in many.

Whatever the order is, the two agree: if the Close succeeds, the file is there, and the
Close is remembered; if it does not, neither is.
"""

from __future__ import annotations

from random import Random
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from tests.backends.s3.support import MIB, MortalClient, S3Case
from txbits._deferreds import begun, settled
from txbits.errors import NoSuchSession
from txbits.testing.backend import contract

NAME = ("name.txt",)


class TurnsClient(MortalClient):
    """
    Asks S3 when it is its turn.

    :ivar turns: Who says so; ``None`` while nobody does.
    """

    turns: Turns | None = None

    async def ask(self, request):
        if self.turns is not None:
            await self.turns.wait(self.name, request.operation)
        return await super().ask(request)


@define(eq=False)
class Turns:
    """
    Lets requests through, one at a time, in an order that is chosen.

    :ivar choose: Returns which of so many that wait is next.
    :ivar story: What was let through.
    """

    choose: Any
    story: list[str] = field(factory=list)
    _waiting: list[tuple[str, str, Deferred[None]]] = field(factory=list)

    def wait(self, name: str, operation: str) -> Deferred[None]:
        turn: Deferred[None] = Deferred()
        self._waiting.append((name, operation, turn))
        return turn

    async def run(self, case: S3Case, acts: list[Deferred[Any]]) -> list[Any]:
        """Let all go on until these have ended, and return their outcomes."""
        ended = begun(settled(acts))
        while not ended.called:
            # All who are under way are to wait, so that there is a choice.
            while not ended.called and len(self._waiting) < sum(
                not act.called for act in acts
            ):
                await case.turn()
            if ended.called:
                break
            # By name, so that the same choice is the same request in each run.
            self._waiting.sort(key=lambda one: one[:2])
            name, operation, turn = self._waiting.pop(self.choose(len(self._waiting)))
            self.story.append(f"{name}: {operation}")
            turn.callback(None)
            await case.turn()
        return await ended


class EveryOrder:
    """Chooses differently in each run, until there is no other way."""

    def __init__(self):
        self._path: list[list[int]] = []
        self._depth = 0

    def __iter__(self):
        while True:
            self._depth = 0
            yield self.choose
            while self._path and self._path[-1][0] + 1 == self._path[-1][1]:
                self._path.pop()
            if not self._path:
                return
            self._path[-1][0] += 1

    def choose(self, number):
        if self._depth == len(self._path):
            self._path.append([0, number])
        chosen = self._path[self._depth][0]
        self._depth += 1
        return chosen


class TwoEndsTests(S3Case):
    """One node discards a session that another one closes."""

    timeout = 300

    async def _nodes(self):
        nodes = []
        for name in ("discards", "closes"):
            node = await self._start(self.node(make_client=TurnsClient))
            self.client(node).name = name
            nodes.append(node)
        return nodes

    async def _end_both(self, nodes, data, choose, is_expired):
        """
        End a new session on both nodes, and look what is left.

        :returns: Whether the Close was a success.
        """
        self.bucket.clear()
        for node in nodes:
            node.staging.known.forget_all()
        one = await self.new(nodes[0], NAME)
        await self.send(one, len(data), data)
        other = await nodes[1].find(one.session_id)
        turns = Turns(choose)
        for node in nodes:
            self.client(node).turns = turns

        async def discard():
            # As the manager does at a Cancel, or when the time is out.
            if not is_expired or await one.give_up(closed=False):
                await one.release()

        acts = [begun(discard()), begun(self.close(nodes[1], other))]
        try:
            discarded, closed = await turns.run(self, acts)
        finally:
            for node in nodes:
                self.client(node).turns = None
        about = str((discarded, closed, turns.story))
        for outcome in (discarded, closed):
            if outcome is not None:
                self.assertIsNotNone(outcome.check(NoSuchSession), about)
        is_closed = closed is None
        there = self.bucket.read("in/name.txt")
        self.assertTrue(there == (data if is_closed else None), about)
        recalled = await nodes[0].recalls_close(one.session_id, NAME, None)
        self.assertEqual(recalled, is_closed, about)
        self.assertEqual(self.left(nodes[0].settings), [], about)
        return is_closed

    async def _test(self, length, orders, *, is_expired):
        nodes = await self._nodes()
        data = self.data(length)
        outcomes = [
            await self._end_both(nodes, data, choose, is_expired) for choose in orders
        ]
        # Either can be first.
        self.assertEqual(set(outcomes), {False, True})

    def some(self, number):
        """So many orders."""
        return [Random(seed).randrange for seed in range(number)]

    @contract
    async def test_a_small_file_that_is_cancelled(self):
        await self._test(1000, EveryOrder(), is_expired=False)

    @contract
    async def test_a_small_file_whose_time_is_out(self):
        await self._test(1000, EveryOrder(), is_expired=True)

    @contract
    async def test_a_file_in_tails_that_is_cancelled(self):
        await self._test(300_000, self.some(40), is_expired=False)

    @contract
    async def test_a_file_in_tails_whose_time_is_out(self):
        await self._test(300_000, self.some(40), is_expired=True)

    @contract
    async def test_a_file_in_parts_that_is_cancelled(self):
        await self._test(6 * MIB, self.some(20), is_expired=False)


class ConditionTests(S3Case):
    """Stores that remove nothing on a condition."""

    async def _cancel(self, status):
        node = await self.started()
        session = await self.new(node, NAME)
        await self.send(session, 5, b"bytes")
        self.client(node).answer({"DeleteObject": b""}, status)
        await session.release()
        self.assertEqual(self.bucket.everything(), [])

    @contract
    async def test_one_that_refuses_it_is_asked_without(self):
        for status in (400, 403, 501):
            await self._cancel(status)

    @contract
    async def test_so_is_one_that_takes_it_for_wrong(self):
        await self._cancel(412)

    @contract
    async def test_one_that_wants_etags_without_quotes_gets_them_so(self):
        node = await self.started()
        node.staging.bucket.has_bare_conditions = True
        session = await self.new(node, NAME)
        held, goes_on = self.client(node).hold("DeleteObject")
        released = session.release()
        etag = (await held).headers["if-match"]
        self.assertEqual(etag, session.etag.strip('"'))
        goes_on.callback(None)
        await released
        self.assertEqual(self.bucket.everything(), [])
