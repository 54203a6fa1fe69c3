"""
Several nodes on one bucket: whatever two of them do at the same time comes out right.
"""

from __future__ import annotations

import contextlib
from uuid import uuid4

from twisted.internet import reactor
from twisted.internet.defer import DeferredList
from zope.interface.verify import verifyObject

from tests.backends.s3.support import MIB, NO_PARTS, S3Case
from tests.backends.s3.test_requests import CALLER, Body, RequestCase
from tests.clocks import SettableClock
from txbits._deferreds import begun
from txbits.errors import (
    BackendError,
    DestinationExists,
    NoSuchSession,
    OutOfStep,
    SessionLimitReached,
    TotalLengthChanged,
    UploadTooLarge,
)
from txbits.interfaces import ICleaning
from txbits.protocol.codec import ContentRange
from txbits.sessions import Caller
from txbits.sessions._ages import Ages
from txbits.testing.backend import contract

NAME = ("name.txt",)


class NodesTests(S3Case):
    """Two backends."""

    async def two(self, total, data, name=NAME):
        """A session that holds *data*, as two nodes know it."""
        first = await self.started()
        second = await self.another(first)
        session = await self.new(first, name)
        if data:
            await self.send(session, total, data)
        return first, second, session, await second.find(session.session_id)

    @contract
    async def test_the_same_fragment_on_both_is_stored_once(self):
        for length, begin in ((1000, 100), (2 * MIB, MIB), (13 * MIB, 4 * MIB)):
            data = self.data(length)
            name = (str(length),)
            first, second, one, other = await self.two(length, data[:begin], name)
            writers = [await each.open_writer(length) for each in (one, other)]
            for at in range(begin, length, 300_000):
                for writer in writers:
                    await writer.write(data[at : min(at + 300_000, length)])
            closing = [writer.close() for writer in writers]
            for each in closing:
                await each
            self.assertEqual((one.offset, other.offset), (length, length))
            await self.close(second, other)
            self.assertTrue(data == await self.file_at(first, name))
            await self.assert_nothing_left(first)

    @contract
    async def test_an_old_shorter_fragment_takes_nothing_away(self):
        for length in (60_000, 3 * MIB, 12 * MIB):
            data = self.data(length)
            name = (str(length),)
            first, second, one, other = await self.two(length, data[:1000], name)
            stale = await one.open_writer(length)
            await stale.write(data[1000 : length // 2])
            await self.send(other, length, data[1000:])
            await stale.close()
            self.assertEqual(other.offset, length)
            await one.refresh()
            self.assertEqual(one.offset, length)
            await self.close(first, one)
            self.assertTrue(data == await self.file_at(first, name))
            await self.assert_nothing_left(second)

    @contract
    async def test_a_fragment_of_a_session_that_was_cancelled_leaves_nothing(self):
        for length, sent in ((60_000, 100), (4 * MIB, MIB), (20 * MIB, 6 * MIB)):
            data = self.data(length)
            name = (str(length),)
            first, _, one, other = await self.two(length, data[:sent], name)
            writer = await one.open_writer(length)
            await writer.write(data[sent : sent + 50_000])
            await other.release()
            self.assertEqual(self.left(first.settings), [])
            await self.fails(NoSuchSession, writer.close())
            await self.assert_nothing_left(first)
            await self.fails(NoSuchSession, one.refresh())

    @contract
    async def test_parts_that_arrive_during_a_cancel_are_gone_at_its_end(self):
        data = self.data(20 * MIB)
        first, _, one, other = await self.two(len(data), data[: 6 * MIB])
        held, goes_on = self.client(first).hold("UploadPart")
        writer = await one.open_writer(len(data))
        await writer.write(data[6 * MIB : 11 * MIB])
        await held
        await other.release()
        self.assertEqual(self.bucket.everything(), [])
        goes_on.callback(None)
        await self.fails(NoSuchSession, writer.close())
        self.assertEqual(self.bucket.everything(), [])

    @contract
    async def test_both_begin_a_multipart_upload_and_one_is_used(self):
        data = self.data(12 * MIB)
        first, second, one, other = await self.two(len(data), data[:1000])
        held, goes_on = self.client(first).hold("CreateMultipartUpload")
        writer = await one.open_writer(len(data))
        await writer.write(data[1000 : 6 * MIB])
        await held
        await self.send(other, len(data), data[1000 : 7 * MIB])
        goes_on.callback(None)
        await writer.close()
        self.assertEqual(len(self.bucket.uploads()), 1)
        await one.refresh()
        self.assertEqual(one.offset, 7 * MIB)
        await self.send(one, len(data), data[7 * MIB :])
        await self.close(first, one)
        self.assertTrue(data == await self.file_at(second, NAME))
        await self.assert_nothing_left(second)

    @contract
    async def test_both_close_and_both_succeed(self):
        for length in (0, 1000, 2 * MIB, 12 * MIB):
            data = self.data(length)
            name = (f"f{length}",)
            first, second, one, other = await self.two(length, data, name)
            if not data:
                await (await one.open_writer(0)).close()
                await other.refresh()
            await DeferredList(
                [self._closed(first, one), self._closed(second, other)],
                fireOnOneErrback=True,
                consumeErrors=True,
            )
            self.assertTrue(data == await self.file_at(first, name))
            self.assertTrue(await first.recalls_close(one.session_id, name, None))
            await self.assert_nothing_left(first)

    @contract
    async def test_what_is_left_of_parts_while_the_other_closes_is_no_loss(self):
        data = self.data(12 * MIB)
        first, second, one, other = await self.two(len(data), data)
        await other.publish(overwrite=True, create_directories=False)
        self.client(first).answer({"ListParts": NO_PARTS}, 200)
        await one.publish(overwrite=True, create_directories=False)
        self.assertEqual(one.offset, len(data))
        await self.close(second, other)
        await self.close(first, one)
        self.assertTrue(data == await self.file_at(first, NAME))

    def _closed(self, backend, session):
        return begun(self.close(backend, session))

    @contract
    async def test_a_close_that_comes_again_does_not_bring_an_old_file_back(self):
        for length in (1000, 2 * MIB, 12 * MIB):
            data = self.data(length)
            name = (str(length),)
            first, second, one, other = await self.two(length, data, name)
            await self.close(second, other, overwrite=True)
            newer = await self.complete(second, name, b"newer", overwrite=True)
            await self.close(second, newer, overwrite=True)
            self.assertFalse(one.published)
            with contextlib.suppress(NoSuchSession):
                await one.publish(overwrite=True, create_directories=False)
            self.assertEqual(await self.file_at(first, name), b"newer")
            self.assertTrue(await first.recalls_close(one.session_id, name, None))

    @contract
    async def test_one_of_two_sessions_gets_the_name(self):
        first = await self.started()
        second = await self.another(first)
        for length in (1000, 2 * MIB):
            name = (str(length),)
            data = self.data(length)
            one = await self.complete(first, name, data)
            other = await self.complete(second, name, data)
            outcomes = await DeferredList(
                [
                    each.publish(overwrite=False, create_directories=False)
                    for each in (one, other)
                ],
                consumeErrors=True,
            )
            self.assertEqual(sorted(success for success, _ in outcomes), [False, True])
            (failure,) = (outcome for success, outcome in outcomes if not success)
            failure.trap(DestinationExists)
            await one.release()
            await other.release()
            await self.assert_nothing_left(first)

    @contract
    async def test_a_cancel_that_ends_before_a_close_does_leaves_nothing(self):
        """Wherever the Close is when the Cancel comes, and is answered."""
        moments = (
            (1000, "hold", "ListObjectsV2"),
            (1000, "hold", "PutObject"),
            (1000, "hold_answer", "PutObject"),
            (2 * MIB, "hold", "ListObjectsV2"),
            (2 * MIB, "hold", "PutObject"),
            (2 * MIB, "hold_answer", "PutObject"),
            (12 * MIB, "hold", "ListObjectsV2"),
            (12 * MIB, "hold", "ListParts"),
            (12 * MIB, "hold", "PutObject"),
            (12 * MIB, "hold_answer", "PutObject"),
            (12 * MIB, "hold", "CompleteMultipartUpload"),
            (12 * MIB, "hold_answer", "CompleteMultipartUpload"),
        )
        for length, how, operation in moments:
            data = self.data(length)
            name = (f"{length}-{how}-{operation}",)
            first, _, one, other = await self.two(length, data, name)
            one.seen = None
            held, goes_on = getattr(self.client(first), how)(operation)
            closing = self._closed(first, one)
            await held
            await other.release()
            goes_on.callback(None)
            with self.assertRaises(NoSuchSession, msg=name):
                await closing
            self.assertIsNone(await self.file_at(first, name), name)
            self.assertFalse(await first.recalls_close(one.session_id, name, None))
            self.assertEqual(self.bucket.everything(), [], name)

    @contract
    async def test_a_close_that_ends_before_a_cancel_does_leaves_the_file(self):
        for length, operation in ((2 * MIB, "PutObject"), (12 * MIB, "PutObject")):
            data = self.data(length)
            name = (f"{length}-{operation}",)
            first, second, one, other = await self.two(length, data, name)
            held, goes_on = self.client(second).hold(operation)
            releasing = other.release()
            await held
            await self.close(first, one)
            goes_on.callback(None)
            await releasing
            self.assertTrue(data == await self.file_at(first, name), name)
            self.assertTrue(await second.recalls_close(one.session_id, name, None))
            await self.assert_nothing_left(first)

    @contract
    async def test_clean_ups_at_once_are_harmless(self):
        first = await self.started()
        second = await self.another(first)
        kept = await self.complete(first, ("kept",), self.data(6 * MIB))
        for number in range(10):
            session = await self.new(first, (str(number),))
            await session.release(remember=True)
        self.bucket.put(f"{first.settings.staging}{{{uuid4()}}}/{0:016d}-3", b"abc")
        later = self.now(first) + 4000
        clock = first.staging.clock.seconds
        outcomes = await DeferredList(
            [each.clean_up(later) for each in (first, second)],
            fireOnOneErrback=True,
            consumeErrors=True,
        )
        self.assertEqual([success for success, _ in outcomes], [True, True])
        self.assertEqual(
            [key for key in self.bucket.keys("in/") if key.endswith("/record")],
            [first.staging.record_key(kept.session_id)],
        )
        self.assertGreater(later, clock())
        await kept.publish(overwrite=False, create_directories=False)


class OrphanTests(S3Case):
    """What no session owns is removed."""

    @contract
    async def test_multipart_uploads_that_nobody_owns_are_aborted(self):
        backend = await self.started()
        data = self.data(6 * MIB)
        session = await self.new(backend)
        await self.send(session, 12 * MIB, data)
        client = self.bucket.client
        for key in ("in/name.txt", "in/other", "elsewhere"):
            client.create_multipart_upload(Bucket=self.bucket.name, Key=key)
        await self.clean_up_late(backend)
        self.assertEqual(
            sorted(self.bucket.uploads()),
            sorted(
                [
                    ("in/name.txt", session.record.upload),
                    *(one for one in self.bucket.uploads() if one[0] == "elsewhere"),
                ]
            ),
        )
        verifyObject(ICleaning, backend)
        none = {"close": 0, "claim": 0, "stray": 0}
        self.assertEqual(backend.removed_counts(), {**none, "upload": 2})
        await session.refresh()
        self.assertEqual(session.offset, 6 * MIB)

    @contract
    async def test_young_ones_are_left_alone(self):
        backend = await self.started()
        self.bucket.client.create_multipart_upload(
            Bucket=self.bucket.name, Key="in/other"
        )
        await backend.clean_up(0)
        self.assertEqual(len(self.bucket.uploads()), 1)

    @contract
    async def test_tails_that_came_after_the_end_go(self):
        backend = await self.started()
        session = await self.new(backend, NAME)
        await session.release(remember=True)
        one = session.session_id
        late = f"{backend.staging.directory(one)}{5:016d}-3"
        self.bucket.put(late, b"abc")
        await backend.clean_up(0)
        self.assertNotIn(late, self.bucket.keys())
        self.assertTrue(await backend.recalls_close(one, NAME, None))


class ManagersTests(RequestCase):
    """Two managers: what only one of them knows is not the last word."""

    async def fragments(self, manager, one, data, first, end):
        return await self.fragment(manager, one, first, data[first:end], len(data))

    @contract
    async def test_a_fragment_is_not_out_of_step_for_what_one_node_missed(self):
        nodes = [await self.manager() for _ in range(2)]
        for length in (50_000, 12 * MIB):
            data = self.data(length)
            half = length // 2
            one = await nodes[0].create(NAME, CALLER, None)
            await self.fragments(nodes[0], one, data, 0, 1000)
            await self.fragments(nodes[1], one, data, 1000, half)
            self.assertEqual(
                await self.fragments(nodes[0], one, data, half, length), length
            )
            try:
                await self.fragments(nodes[1], one, data, length - 1, length)
            except OutOfStep as error:
                self.fail(f"node 1 stands at {error.offset}")
            await nodes[1].cancel(one, NAME, CALLER)

    @contract
    async def test_out_of_step_is_answered_with_where_the_bucket_stands(self):
        nodes = [await self.manager() for _ in range(2)]
        data = self.data(50_000)
        one = await nodes[0].create(NAME, CALLER, None)
        await self.fragments(nodes[0], one, data, 0, 1000)
        await self.fragments(nodes[1], one, data, 1000, 2000)
        with self.assertRaises(OutOfStep) as caught:
            await self.fragments(nodes[0], one, data, 3000, 4000)
        self.assertEqual(caught.exception.offset, 2000)

    @contract
    async def test_a_close_does_not_discard_what_another_node_completed(self):
        nodes = [await self.manager() for _ in range(2)]
        data = self.data(50_000)
        one = await nodes[0].create(NAME, CALLER, None)
        await self.fragments(nodes[0], one, data, 0, 1000)
        await self.fragments(nodes[1], one, data, 1000, len(data))
        await nodes[0].close(one, NAME, CALLER)
        self.assertEqual(await self.file_at(nodes[0].backend, NAME), data)
        for node in nodes:
            await node.close(one, NAME, CALLER)
            with self.assertRaises(NoSuchSession):
                await node.cancel(one, NAME, CALLER)

    @contract
    async def test_a_close_does_not_take_for_empty_what_another_node_received(self):
        nodes = [await self.manager() for _ in range(2)]
        data = self.data(50_000)
        one = await nodes[0].create(NAME, CALLER, None)
        await self.fragments(nodes[1], one, data, 0, len(data))
        await nodes[0].close(one, NAME, CALLER)
        self.assertEqual(await self.file_at(nodes[0].backend, NAME), data)

    @contract
    async def test_an_empty_file_replaces_one_on_any_node(self):
        nodes = [await self.manager(allow_overwrites=True) for _ in range(2)]
        await self.put(nodes[0].backend, NAME, b"old")
        one = await nodes[0].create(NAME, CALLER, None)
        await nodes[1].close(one, NAME, CALLER)
        self.assertEqual(await self.file_at(nodes[0].backend, NAME), b"")

    @contract
    async def test_a_refused_fragment_is_known_on_all_nodes(self):
        nodes = [
            await self.manager(allow_overwrites=True, max_upload_size=100)
            for _ in range(2)
        ]
        await self.put(nodes[0].backend, NAME, b"old")
        one = await nodes[0].create(NAME, CALLER, None)
        with self.assertRaises(UploadTooLarge):
            await self.fragments(nodes[0], one, self.data(1000), 0, 10)
        await nodes[1].close(one, NAME, CALLER)
        self.assertEqual(await self.file_at(nodes[0].backend, NAME), b"old")

    @contract
    async def test_a_session_cancelled_on_one_is_unknown_on_the_other(self):
        nodes = [await self.manager() for _ in range(2)]
        data = self.data(50_000)
        one = await nodes[0].create(NAME, CALLER, None)
        await self.fragments(nodes[0], one, data, 0, 1000)
        await nodes[1].cancel(one, NAME, CALLER)
        with self.assertRaises(NoSuchSession):
            await self.fragments(nodes[0], one, data, 1000, 2000)
        with self.assertRaises(NoSuchSession):
            await nodes[0].close(one, NAME, CALLER)
        with self.assertRaises(NoSuchSession):
            await nodes[0].cancel(one, NAME, CALLER)
        self.assertEqual(self.bucket.everything(), [])

    @contract
    async def test_the_session_limit_holds_across_nodes(self):
        nodes = [await self.manager(session_limit=3) for _ in range(2)]
        alice = Caller("alice", "192.0.2.1")
        made = [await nodes[0].create((str(n),), alice, None) for n in range(2)]
        nodes[1]._upkeep.counted_at = float("-inf")  # a minute has passed
        made.append(await nodes[1].create(("2",), alice, None))
        for node in nodes:
            node._upkeep.counted_at = float("-inf")
            with self.assertRaises(SessionLimitReached):
                await node.create(("3",), alice, None)
        await nodes[1].cancel(made[0], ("0",), alice)
        await nodes[0].create(("3",), alice, None)

    @contract
    async def test_a_session_is_its_owners_on_every_node(self):
        nodes = [await self.manager() for _ in range(2)]
        alice = Caller("alice", "192.0.2.1")
        others = [Caller("bob", "192.0.2.1"), CALLER]
        data = self.data(1000)
        one = await nodes[0].create(NAME, alice, None)

        async def send(node, caller, first, last):
            sent = ContentRange(first, last, len(data))
            body = Body(data[first : last + 1])
            return (await node.fragment(one, NAME, caller, sent, body)).offset

        async def assert_unknown_to_others():
            for node in nodes:
                for other in others:
                    for act in (
                        send(node, other, 0, 9),
                        node.close(one, NAME, other),
                        node.cancel(one, NAME, other),
                        node.open_reply(one, other),
                        node.destination_of(one, other),
                    ):
                        with self.assertRaises(NoSuchSession):
                            await act

        await assert_unknown_to_others()
        self.assertEqual(await send(nodes[1], alice, 0, 499), 500)
        await assert_unknown_to_others()
        self.assertEqual(await send(nodes[0], alice, 500, 999), 1000)
        await nodes[1].close(one, NAME, alice)
        # Nor do they learn that it was closed.
        await assert_unknown_to_others()
        for node in nodes:
            await node.close(one, NAME, alice)
        self.assertEqual(await self.file_at(nodes[0].backend, NAME), data)

    @contract
    async def test_only_one_of_two_fragments_of_different_lengths_is_taken(self):
        nodes = [await self.manager() for _ in range(2)]
        one = await nodes[0].create(NAME, CALLER, None)
        await self.fragments(nodes[0], one, self.data(5000), 0, 100)
        with self.assertRaises(TotalLengthChanged):
            await nodes[1].fragment(
                one, NAME, CALLER, ContentRange(0, 9, 6000), Body(b"0123456789")
            )
        await nodes[1].cancel(one, NAME, CALLER)

    @contract
    async def test_a_session_that_expired_on_one_node_is_looked_at_again(self):
        nodes = [await self.manager(session_timeout=1000) for _ in range(2)]
        data = self.data(5000)
        one = await nodes[0].create(NAME, CALLER, None)
        await self.fragments(nodes[0], one, data, 0, 100)
        (await nodes[0].backend.find(one)).progressed -= 2000
        await self.fragments(nodes[0], one, data, 100, 200)
        late = SettableClock(reactor, 2000.0)
        nodes[0]._active.ages = Ages(nodes[0].clock, late, is_shared=True)
        with self.assertRaises(NoSuchSession):
            await self.fragments(nodes[0], one, data, 200, 300)
        with self.assertRaises(BackendError):
            await self.fragments(nodes[1], one, data, 200, 300)
        self.assertEqual(self.bucket.everything(), [])
