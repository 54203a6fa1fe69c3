"""
What is final is so for all nodes: a Close that succeeds, a session that is given up,
and an Ack, each while another node does what the first has not heard of.

``hold`` keeps a request at the line of the calls, so that others come before it.
"""

from __future__ import annotations

from uuid import UUID

from tests.backends.s3.support import MIB, NO_PARTS
from tests.backends.s3.test_requests import CALLER, Body, RequestCase
from tests.clocks import Ahead
from txbits._deferreds import begun
from txbits.backends.s3._responses import S3Unreachable
from txbits.errors import BackendError, NoSuchSession, OutOfStep
from txbits.interfaces import IRefreshable
from txbits.protocol.codec import ContentRange
from txbits.sessions._endings import expire
from txbits.testing.backend import contract

NAME = ("name.txt",)

#: Lengths of files that lie in their record, in tails, and in parts.
LENGTHS = (50_000, 300_000, 6 * MIB)

REFUSAL = b"<Error><Code>AccessDenied</Code></Error>"


class FinalCase(RequestCase):
    """Two managers on one bucket."""

    async def nodes(self, number=2, **settings):
        return [await self.manager(**settings) for _ in range(number)]

    def send_to(self, node, one, data, first, end):
        """A Fragment of some of *data*; fires with the offset of its Ack."""
        sent = node.fragment(
            one,
            NAME,
            CALLER,
            ContentRange(first, end - 1, len(data)),
            Body(data[first:end]),
        )
        return sent.addCallback(lambda received: received.offset)

    async def assert_published(self, data, about=None):
        """The file is there, and nothing else but the record of its Close."""
        self.assertTrue(self.bucket.read("in/name.txt") == data, about)
        left = [one for one in self.bucket.everything() if "/record" not in one]
        self.assertEqual(left, ["in/name.txt"], about)
        self.bucket.clear()


class CloseTests(FinalCase):
    """Close-Session, at a node that is behind."""

    @contract
    async def test_what_others_received_while_it_refused_is_published(self):
        for length in LENGTHS:
            behind, ahead = await self.nodes()
            data = self.data(length)
            one = await behind.create(NAME, CALLER, None)
            held, goes_on = self.client(behind.backend).hold("PutObject")
            refusing = self.send_to(behind, one, data, length - 1, length)
            await held
            await self.send_to(ahead, one, data, 0, length)
            closing = behind.close(one, NAME, CALLER)
            goes_on.callback(None)
            # It is in step by now, and all that it brings is there.
            self.assertEqual(await refusing, length)
            await closing
            await self.assert_published(data, length)

    @contract
    async def test_what_comes_while_it_is_being_given_up_is_published(self):
        for length in LENGTHS:
            for number in range(1 if length == LENGTHS[0] else 3):
                behind, ahead = await self.nodes()
                data = self.data(length)
                one = await behind.create(NAME, CALLER, None)
                await self.send_to(behind, one, data, 0, 1000)
                await self.send_to(ahead, one, data, 1000, 2000)
                closing = await self._held_at(behind, one, number)
                sent = await self.send_to(ahead, one, data, 2000, length)
                self.assertEqual(sent, length)
                closing[1].callback(None)
                await closing[0]
                await self.assert_published(data, (length, number))

    async def _held_at(self, node, one, number):
        """A Close that has decided, held before it writes, looks, or writes again."""
        client = self.client(node.backend)
        held, goes_on = client.hold("PutObject")
        closing = node.close(one, NAME, CALLER)
        for operation in ("ListObjectsV2", "PutObject")[:number]:
            await held
            last = goes_on
            held, goes_on = client.hold(operation)
            last.callback(None)
        await held
        return closing, goes_on

    @contract
    async def test_what_was_incomplete_is_discarded_once_nobody_goes_on(self):
        for length in LENGTHS:
            behind, ahead = await self.nodes()
            data = self.data(length)
            one = await behind.create(NAME, CALLER, None)
            await self.send_to(behind, one, data, 0, 1000)
            await self.send_to(ahead, one, data, 1000, 2000)
            await behind.close(one, NAME, CALLER)
            self.assertIsNone(self.bucket.read("in/name.txt"))
            await self.assert_nothing_left(behind.backend)
            with self.assertRaises(NoSuchSession):
                await self.send_to(ahead, one, data, 2000, length)
            await ahead.close(one, NAME, CALLER)
            await self.assert_nothing_left(behind.backend)

    @contract
    async def test_a_late_fragment_of_a_discarded_session_leaves_nothing(self):
        for length in LENGTHS[1:]:
            behind, ahead = await self.nodes()
            data = self.data(length)
            one = await behind.create(NAME, CALLER, None)
            await self.send_to(behind, one, data, 0, 1000)
            held, goes_on = self.client(ahead.backend).hold("PutObject")
            late = self.send_to(ahead, one, data, 1000, 3000)
            await held
            await behind.close(one, NAME, CALLER)
            goes_on.callback(None)
            await self.fails(NoSuchSession, late)
            await self.assert_nothing_left(behind.backend)

    @contract
    async def test_an_upload_that_another_node_completes_meanwhile_is_not_lost(self):
        # The record is read before the other node closes, and the parts after that.
        data = self.data(LENGTHS[-1])
        for operation in ("ListParts", "CompleteMultipartUpload", "PutObject"):
            behind, ahead = await self.nodes()
            one = await behind.create(NAME, CALLER, None)
            await self.send_to(behind, one, data, 0, 1000)
            await self.send_to(ahead, one, data, 1000, len(data))
            held, goes_on = self.client(behind.backend).hold("ListParts")
            closing = behind.close(one, NAME, CALLER)
            await held
            is_there, ends = self.client(ahead.backend).hold_answer(operation)
            other = ahead.close(one, NAME, CALLER)
            await is_there
            goes_on.callback(None)
            await closing
            ends.callback(None)
            await other
            await self.assert_published(data, operation)

    @contract
    async def test_tails_that_another_node_has_published_are_not_lost(self):
        data = self.data(LENGTHS[1])
        behind, ahead = await self.nodes()
        one = await behind.create(NAME, CALLER, None)
        await self.send_to(behind, one, data, 0, 1000)
        await self.send_to(ahead, one, data, 1000, len(data))
        client = self.client(behind.backend)
        held, goes_on = client.hold("PutObject")
        closing = behind.close(one, NAME, CALLER)
        await held
        await ahead.close(one, NAME, CALLER)
        goes_on.callback(None)
        await closing
        await self.assert_published(data)

    @contract
    async def test_nor_are_they_while_the_other_removes_them(self):
        data = self.data(LENGTHS[1])
        behind, ahead = await self.nodes()
        one = await behind.create(NAME, CALLER, None)
        await self.send_to(behind, one, data, 0, 1000)
        await self.send_to(ahead, one, data, 1000, len(data))
        last, ends = self.client(ahead.backend).hold_answer("DeleteObjects")
        held, goes_on = self.client(behind.backend).hold_answer("PutObject")
        closing = begun(self._published(behind, one))
        await held
        other = ahead.close(one, NAME, CALLER)
        await last
        goes_on.callback(None)
        await closing
        ends.callback(None)
        await other
        await self.assert_published(data)

    async def _published(self, node, one):
        session = await node.backend.find(one)
        await session.refresh()
        await session.publish(overwrite=False, create_directories=False)

    @contract
    async def test_an_upload_that_has_begun_is_not_taken_for_empty(self):
        behind, ahead = await self.nodes()
        data = self.data(16)
        one = await behind.create(NAME, CALLER, None)
        held, goes_on = self.client(behind.backend).hold("PutObject")
        closing = behind.close(one, NAME, CALLER)
        await held
        with self.assertRaises(OutOfStep):
            await self.send_to(ahead, one, data, 15, 16)
        goes_on.callback(None)
        await self.fails(BackendError, closing)
        await behind.close(one, NAME, CALLER)
        self.assertIsNone(self.bucket.read("in/name.txt"))
        await self.assert_nothing_left(behind.backend)


class LessTests(FinalCase):
    """The bucket shows less than was acknowledged."""

    async def _lose(self, one, number):
        """Somebody removes a tail."""
        tails = [key for key in self.bucket.keys("in/.bits") if "/record" not in key]
        self.bucket.client.delete_object(Bucket=self.bucket.name, Key=tails[number])

    async def _test(self, number, closes):
        data = self.data(LENGTHS[1])
        nodes = await self.nodes()
        one = await nodes[0].create(NAME, CALLER, None)
        # Two tails, of which the second node has put the second.
        await self.send_to(nodes[0], one, data, 0, 1000)
        await self.send_to(nodes[1], one, data, 1000, 5000)
        await self._lose(one, number)
        nodes.append(await self.manager())
        for _ in range(2):
            with self.assertRaises(BackendError) as failed:
                await nodes[closes].close(one, NAME, CALLER)
            # Any other is one that passes: the client comes again.
            self.assertIs(type(failed.exception), BackendError)
        with self.assertRaises(OutOfStep) as caught:
            await self.send_to(nodes[0], one, data, 5000, 6000)
        self.assertLess(caught.exception.offset, 5000)
        await self.send_to(nodes[0], one, data, caught.exception.offset, len(data))
        await nodes[1].close(one, NAME, CALLER)
        await self.assert_published(data)

    @contract
    async def test_no_close_discards_it_where_that_is_remembered(self):
        await self._test(1, 1)

    @contract
    async def test_nor_does_one_at_a_node_that_has_it_from_the_record(self):
        await self._test(1, 2)

    @contract
    async def test_nor_where_something_is_missing_before_what_is_there(self):
        await self._test(0, 2)

    @contract
    async def test_a_listing_that_is_short_is_no_loss(self):
        data = self.data(LENGTHS[2])
        for number in range(2):
            nodes = await self.nodes()
            one = await nodes[0].create(NAME, CALLER, None)
            await self.send_to(nodes[0], one, data, 0, len(data) // 2)
            await self.send_to(nodes[1], one, data, len(data) // 2, len(data))
            self.client(nodes[number].backend).answer({"ListParts": NO_PARTS}, 200)
            if number:
                # The other one looks again before it gives anything up.
                with self.assertRaises(BackendError) as failed:
                    await nodes[1].close(one, NAME, CALLER)
                self.assertIs(type(failed.exception), BackendError)
            await nodes[number].close(one, NAME, CALLER)
            await self.assert_published(data, number)

    @contract
    async def test_a_client_that_was_told_may_have_it_discarded(self):
        data = self.data(LENGTHS[1])
        node, other = await self.nodes()
        one = await node.create(NAME, CALLER, None)
        await self.send_to(node, one, data, 0, 1000)
        await self.send_to(other, one, data, 1000, 5000)
        await self._lose(one, 1)
        with self.assertRaises(OutOfStep):
            await self.send_to(node, one, data, 5000, 6000)
        self.assertEqual(await self.send_to(node, one, data, 1000, 2000), 2000)
        await other.close(one, NAME, CALLER)
        self.assertIsNone(self.bucket.read("in/name.txt"))
        await self.assert_nothing_left(node.backend)


class AckTests(FinalCase):
    """What a Fragment is answered that is sent again, to a node that is behind."""

    @contract
    async def test_no_ack_is_behind_an_earlier_one(self):
        for length in LENGTHS:
            data = self.data(length)
            behind, ahead = await self.nodes()
            one = await behind.create(NAME, CALLER, None)
            quarter = length // 4
            await self.send_to(behind, one, data, 0, quarter)
            await self.send_to(ahead, one, data, quarter, 2 * quarter)
            await self.send_to(ahead, one, data, 2 * quarter, 3 * quarter)
            again = (
                (0, quarter),
                (quarter, 2 * quarter),
                (quarter, 2 * quarter - 1),
                (quarter - 5, quarter + 5),
            )
            for first, end in again:
                acknowledged = await self.send_to(behind, one, data, first, end)
                self.assertEqual(acknowledged, 3 * quarter, (length, first, end))
            await self.send_to(ahead, one, data, 3 * quarter, length)
            self.assertEqual(await self.send_to(behind, one, data, 0, 1), length)
            await behind.close(one, NAME, CALLER)
            await self.assert_published(data, length)

    @contract
    async def test_so_it_is_with_each_of_the_ways_to_be_behind(self):
        for length in LENGTHS:
            data = self.data(length)
            for first, end in ((1000, 2000), (1000, 1500), (500, 2500), (0, 1000)):
                behind, ahead = await self.nodes()
                one = await behind.create(NAME, CALLER, None)
                await self.send_to(behind, one, data, 0, 1000)
                await self.send_to(ahead, one, data, 1000, 3000)
                acknowledged = await self.send_to(behind, one, data, first, end)
                self.assertEqual(acknowledged, 3000, (length, first, end))
                await ahead.cancel(one, NAME, CALLER)
                self.assertEqual(self.bucket.everything(), [])

    @contract
    async def test_who_was_overtaken_in_the_middle_tells_how_far_the_other_got(self):
        for length in LENGTHS:
            data = self.data(length)
            behind, ahead = await self.nodes()
            one = await behind.create(NAME, CALLER, None)
            await self.send_to(behind, one, data, 0, 1000)
            held, goes_on = self.client(behind.backend).hold("PutObject")
            late = self.send_to(behind, one, data, 1000, 1500)
            await held
            await self.send_to(ahead, one, data, 1000, 3000)
            goes_on.callback(None)
            self.assertEqual(await late, 3000)
            await ahead.cancel(one, NAME, CALLER)
            self.assertEqual(self.bucket.everything(), [])

    @contract
    async def test_what_is_acknowledged_while_it_takes_over_is_known_by_the_next(self):
        for length in LENGTHS[1:]:
            data = self.data(length)
            before, after = await self.nodes()
            one = await before.create(NAME, CALLER, None)
            await self.send_to(before, one, data, 0, 1000)
            client = self.client(after.backend)
            held, goes_on = client.hold("PutObject")
            taking_over = self.send_to(after, one, data, 1000, 1500)
            await held
            is_named, named = client.hold("PutObject")
            goes_on.callback(None)
            await is_named
            self.assertEqual(await self.send_to(before, one, data, 1000, 3000), 3000)
            named.callback(None)
            await taking_over
            self.assertEqual(await self.send_to(after, one, data, 1200, 1600), 3000)
            await after.cancel(one, NAME, CALLER)
            self.assertEqual(self.bucket.everything(), [])

    @contract
    async def test_nor_is_one_when_the_look_after_taking_over_has_failed(self):
        for length in LENGTHS[1:]:
            data = self.data(length)
            behind, ahead = await self.nodes()
            one = await behind.create(NAME, CALLER, None)
            await self.send_to(behind, one, data, 0, 1000)
            await self.send_to(ahead, one, data, 1000, 3000)
            self.client(behind.backend).answer({"ListObjectsV2": REFUSAL}, 403)
            with self.assertRaises(BackendError):
                await self.send_to(behind, one, data, 1000, 1500)
            # The record names it by now, and it does not know why.
            self.assertEqual(await self.send_to(behind, one, data, 1400, 1600), 3000)
            await ahead.cancel(one, NAME, CALLER)
            self.assertEqual(self.bucket.everything(), [])

    @contract
    async def test_nor_when_that_of_one_whose_taking_over_got_no_answer_has(self):
        self.settings = {"timeout": 1}
        for length in LENGTHS[1:]:
            data = self.data(length)
            behind, ahead = await self.nodes()
            one = await behind.create(NAME, CALLER, None)
            await self.send_to(behind, one, data, 0, 1000)
            await self.send_to(ahead, one, data, 1000, 3000)
            client = self.client(behind.backend)
            held, goes_on = client.hold("PutObject")
            late = self.send_to(behind, one, data, 1000, 1500)
            await held
            is_named, named = client.hold_answer("PutObject")
            goes_on.callback(None)
            await is_named
            # That was the tail; this is the name.
            is_lost, lost = client.hold_answer("PutObject")
            named.callback(None)
            await is_lost
            lost.errback(S3Unreachable("away"))
            await self.fails(BackendError, late)
            client.answer({"ListObjectsV2": REFUSAL}, 403)
            with self.assertRaises(BackendError):
                await self.send_to(behind, one, data, 1000, 1500)
            self.assertEqual(await self.send_to(behind, one, data, 1400, 1600), 3000)
            await ahead.cancel(one, NAME, CALLER)
            self.assertEqual(self.bucket.everything(), [])


class EndTests(FinalCase):
    """Time-outs, and releases that come to nothing."""

    async def _old(self, nodes, data):
        one = await nodes[0].create(NAME, CALLER, None)
        await self.send_to(nodes[1], one, data, 0, 1000)
        self.set_clock(nodes[0], Ahead(2000.0, nodes[0].clock))
        return one

    def set_clock(self, node, clock):
        node.clock = node._active.clock = clock

    @contract
    async def test_a_session_that_goes_on_elsewhere_meanwhile_does_not_expire(self):
        for length in LENGTHS:
            nodes = await self.nodes(session_timeout=1000)
            data = self.data(length)
            one = await self._old(nodes, data)
            held, goes_on = self.client(nodes[0].backend).hold("PutObject")
            expiring = begun(expire(nodes[0]._active, one))
            await held
            self.assertEqual(await self.send_to(nodes[1], one, data, 1000, 2000), 2000)
            goes_on.callback(None)
            await expiring
            await self.send_to(nodes[1], one, data, 2000, length)
            await nodes[1].close(one, NAME, CALLER)
            await self.assert_published(data, length)

    @contract
    async def test_one_that_does_not_is_gone(self):
        for length in LENGTHS:
            nodes = await self.nodes(session_timeout=1000)
            one = await self._old(nodes, self.data(length))
            await begun(expire(nodes[0]._active, one))
            self.assertEqual(self.bucket.everything(), [])
            with self.assertRaises(NoSuchSession):
                await nodes[1].close(one, NAME, CALLER)

    @contract
    async def test_a_session_whose_release_came_to_nothing_is_not_unknown(self):
        self.settings = {"timeout": 1}
        nodes = await self.nodes(session_timeout=1000)
        data = self.data(LENGTHS[0])
        clock = nodes[0].clock
        one = await self._old(nodes, data)
        client = self.client(nodes[0].backend)
        held, goes_on = client.hold("PutObject")
        expiring = begun(expire(nodes[0]._active, one))
        await held
        goes_on.errback(S3Unreachable("away"))
        await expiring
        self.flushLoggedErrors(S3Unreachable)
        self.set_clock(nodes[0], clock)
        self.assertEqual(await self.send_to(nodes[0], one, data, 1000, 2000), 2000)
        await nodes[1].cancel(one, NAME, CALLER)

    @contract
    async def test_what_is_given_up_cannot_be_given_up_again(self):
        (node,) = await self.nodes(1)
        one: UUID = await node.create(NAME, CALLER, None)
        session = await node.backend.find(one)
        self.assertTrue(IRefreshable.providedBy(session))
        self.assertTrue(await session.give_up(closed=True))
        with self.assertRaises(NoSuchSession):
            await session.give_up(closed=True)
        self.assertTrue(await node.backend.recalls_close(one, NAME, None))
        await self.assert_nothing_left(node.backend)
