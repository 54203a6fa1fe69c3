"""
Files that are longer than a part: parts, tails, and what is left of them.
"""

from __future__ import annotations

import gc

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests.backends.s3.support import MIB, S3Case
from tests.backends.s3.test_budget import wait_with_most
from txbits._workers import Worker
from txbits.backends import backend_from_description
from txbits.backends.s3._budget import OF_PROCESS, Budget
from txbits.errors import (
    BackendError,
    DestinationExists,
    NoSuchSession,
    StagedDataLost,
)
from txbits.interfaces import BackendContext
from txbits.testing.backend import contract


class PartsTests(S3Case):
    """One node, parts of 5 MiB."""

    @contract
    async def test_a_long_file_is_published_whatever_its_fragments(self):
        backend = await self.started()
        data = self.data(12 * MIB + 345)
        for fragments in (
            [len(data)],
            [MIB, 5 * MIB, 4 * MIB, 3 * MIB],
            [5 * MIB] * 3,
            [700_001] * 18,
        ):
            name = f"long-{len(fragments)}"
            session = await self.new(backend, (name,))
            offset = 0
            for length in fragments:
                piece = data[offset : offset + length]
                await self.send(session, len(data), piece)
                offset += len(piece)
                self.assertEqual(session.offset, offset)
            await session.publish(overwrite=False, create_directories=False)
            await session.release(remember=True)
            self.assertTrue(data == await self.file_at(backend, (name,)))
            await self.assert_nothing_left(backend)

    @contract
    async def test_a_file_of_up_to_a_part_is_no_multipart_upload(self):
        backend = await self.started()
        for length in (65_537, 2 * MIB, 5 * MIB):
            data = self.data(length)
            session = await self.new(backend, (str(length),))
            await self.send(session, length, data[:50_000])
            await self.send(session, length, data[50_000:])
            self.assertEqual(self.bucket.uploads(), [])
            await session.publish(overwrite=False, create_directories=False)
            await session.release()
            self.assertTrue(data == await self.file_at(backend, (str(length),)))
        self.assertNotIn("CreateMultipartUpload", self.client(backend).asked)
        await self.assert_nothing_left(backend)

    @contract
    async def test_another_node_goes_on_where_the_first_one_was_killed(self):
        backend = await self.started()
        data = self.data(11 * MIB)
        session = await self.new(backend)
        await self.send(session, len(data), data[: 2 * MIB])
        await self.send(session, len(data), data[2 * MIB : 6 * MIB])
        for end in (7 * MIB, 9 * MIB, 11 * MIB):
            backend = await self.reopened(backend)
            found = await backend.find(session.session_id)
            await self.send(found, len(data), data[found.offset : end])
            self.assertEqual(found.offset, end)
        backend = await self.reopened(backend)
        found = await backend.find(session.session_id)
        self.assertEqual(found.offset, len(data))
        await found.publish(overwrite=False, create_directories=False)
        self.assertTrue(data == await self.file_at(backend, ("name.txt",)))
        backend = await self.reopened(backend)
        found = await backend.find(session.session_id)
        self.assertTrue(found.published)
        await found.release()
        await self.assert_nothing_left(backend)

    @contract
    async def test_cancel_leaves_no_part_and_no_tail(self):
        backend = await self.started()
        data = self.data(12 * MIB)
        session = await self.new(backend)
        await self.send(session, 20 * MIB, data)
        before = self.bucket.everything()
        self.assertEqual(sum("#" in one for one in before), 2)
        self.assertEqual(sum(".bits-sessions" in one for one in before), 2)
        await session.release()
        self.assertEqual(self.bucket.everything(), [])

    @contract
    async def test_cancel_waits_for_a_part_that_is_being_sent(self):
        backend = await self.started()
        held, goes_on = self.client(backend).hold("UploadPart")
        session = await self.new(backend)
        writer = await session.open_writer(20 * MIB)
        await writer.write(self.data(6 * MIB))
        await held
        releasing = session.release()
        self.assertFalse(releasing.called)
        goes_on.callback(None)
        await releasing
        self.assertEqual(self.bucket.everything(), [])
        await writer.close()
        self.assertEqual(self.bucket.everything(), [])

    @contract
    async def test_a_slow_store_holds_the_client_back(self):
        backend = await self.started()
        session = await self.new(backend)
        writer = await session.open_writer(50 * MIB)
        held, goes_on = self.client(backend).hold("UploadPart")
        piece = self.data(MIB)
        written = 0
        while True:
            writing = writer.write(piece)
            if not writing.called and written >= 9:
                break
            await writing
            written += 1
        # Two parts are being sent; no third one is begun.
        self.assertEqual(written, 9)
        await held
        self.assertFalse(writing.called)
        self.assertLessEqual(backend.staging.memory.used, 10 * MIB)
        self.assertEqual(session.offset, 0)
        goes_on.callback(None)
        await writing
        await writer.close()
        self.assertEqual(session.offset, 10 * MIB)
        await session.release()
        self.assertEqual(backend.staging.memory.used, 0)
        await self.assert_nothing_left(backend)

    @contract
    async def test_a_part_that_cannot_be_put_keeps_what_is_before_it(self):
        backend = await self.started()
        data = self.data(12 * MIB)
        session = await self.new(backend)
        await self.send(session, len(data), data[: 6 * MIB])
        writer = await session.open_writer(len(data))
        key, upload = self.bucket.uploads()[0]
        self.bucket.client.abort_multipart_upload(
            Bucket=self.bucket.name, Key=key, UploadId=upload
        )
        await writer.write(data[6 * MIB : 10 * MIB])
        await self.fails(BackendError, writer.close())
        self.assertEqual(backend.staging.memory.used, 0)
        # The client is told where it stands, and goes on from there.
        self.assertEqual(session.offset, 0)
        await self.send(session, len(data), data)
        await self.close(backend, session)
        self.assertTrue(data == await self.file_at(backend, ("name.txt",)))
        await self.assert_nothing_left(backend)

    @contract
    async def test_lost_parts_are_no_wish_to_discard_the_file(self):
        backend = await self.started()
        data = self.data(6 * MIB)
        session = await self.new(backend)
        await self.send(session, len(data), data)
        self.assertFalse(session.in_doubt)
        for key, upload in self.bucket.uploads():
            self.bucket.client.abort_multipart_upload(
                Bucket=self.bucket.name, Key=key, UploadId=upload
            )
        await session.refresh()
        self.assertTrue(session.in_doubt)
        self.assertEqual((session.offset, session.total), (0, len(data)))

    @contract
    async def test_a_file_that_appears_late_is_kept(self):
        backend = await self.started()
        data = self.data(6 * MIB)
        session = await self.new(backend)
        await self.send(session, len(data), data)
        await self.put(backend, ("name.txt",), b"theirs")
        await self.fails(
            DestinationExists,
            session.publish(overwrite=False, create_directories=False),
        )
        self.assertEqual(await self.file_at(backend, ("name.txt",)), b"theirs")
        await session.publish(overwrite=True, create_directories=False)
        self.assertTrue(data == await self.file_at(backend, ("name.txt",)))

    @contract
    async def test_parts_that_somebody_took_away_are_noticed(self):
        backend = await self.started()
        data = self.data(6 * MIB)
        session = await self.new(backend)
        await self.send(session, len(data), data)
        self.bucket.clear()
        await self.fails(
            NoSuchSession, session.publish(overwrite=False, create_directories=False)
        )
        other = await self.new(backend)
        await self.send(other, len(data), data)
        for key, upload in self.bucket.uploads():
            self.bucket.client.abort_multipart_upload(
                Bucket=self.bucket.name, Key=key, UploadId=upload
            )
        await self.fails(
            StagedDataLost, other.publish(overwrite=False, create_directories=False)
        )
        self.assertNotEqual(other.offset, other.total)
        self.assertIsNone(await self.file_at(backend, ("name.txt",)))
        await other.release()
        await self.assert_nothing_left(backend)


class MemoryTests(S3Case):
    """What all sessions of a process hold is bounded."""

    settings = {"memory": 20 * MIB}

    @contract
    async def test_halves_of_parts_are_put_away_when_there_are_many(self):
        backend = await self.started()
        memory = backend.staging.memory
        data = self.data(9 * MIB)
        sessions = [await self.new(backend, (str(n),)) for n in range(6)]
        writers = [await one.open_writer(len(data)) for one in sessions]
        for start in range(0, len(data), MIB):
            for writer in writers:
                await writer.write(data[start : start + MIB])
        for writer in writers:
            await writer.close()
        self.assertLessEqual(memory.peak, memory.limit)
        for number, session in enumerate(sessions):
            self.assertEqual(session.offset, len(data))
            await session.publish(overwrite=False, create_directories=False)
            self.assertTrue(data == await self.file_at(backend, (str(number),)))
            await session.release()
        self.assertEqual(memory.used, 0)
        await self.assert_nothing_left(backend)

    @contract
    async def test_what_is_being_sent_is_waited_for_before_a_half_is_put_away(self):
        backend = await self.started()
        client = self.client(backend)
        held, goes_on = client.hold("UploadPart")
        writers = []
        for number in range(5):
            session = await self.new(backend, (str(number),))
            writers.append(await session.open_writer(30 * MIB))
        await writers[0].write(self.data(9 * MIB))
        await held
        for writer in writers[1:3]:
            await writer.write(self.data(9 * MIB // 2))
        asked = client.asked.copy()
        # Memory is for 20 MiB, 18 are held, and 5 of them being sent.
        waiting = [
            writers[3].write(self.data(3 * MIB)),
            writers[4].write(self.data(9 * MIB // 4)),
        ]
        self.assertEqual([one.called for one in waiting], [False, False])
        goes_on.callback(None)
        for one in waiting:
            await one
        self.assertEqual(client.asked, asked)
        for writer in writers:
            await writer.close()
        self.assertEqual(backend.staging.memory.leaving, 0)

    @contract
    async def test_who_waits_for_room_is_not_asked_for_it(self):
        backend = await self.started()
        bound = backend.staging.memory.memory
        bound.bound(1000 << 10)
        session = await self.new(backend)
        writer = await session.open_writer(2 * MIB)
        share = bound.for_uploads()
        others = await wait_with_most(self, share, writer, 1, self.turn)
        self.assertEqual([one.asked for one in others], [1, 0])
        await writer.close()
        session.drop_copy()
        self.assertEqual(bound.used, others[1].held)

    @contract
    async def test_clients_that_stall_do_not_lock_others_out(self):
        backend = await self.started()
        stalled = []
        for number in range(5):
            session = await self.new(backend, (str(number),))
            writer = await session.open_writer(10 * MIB)
            await writer.write(self.data(4 * MIB))
            stalled.append(writer)
        data = self.data(11 * MIB)
        session = await self.new(backend, ("quick",))
        await self.send(session, len(data), data)
        await session.publish(overwrite=False, create_directories=False)
        self.assertTrue(data == await self.file_at(backend, ("quick",)))
        for writer in stalled:
            await writer.close()
        memory = backend.staging.memory
        self.assertLessEqual(memory.peak, memory.limit)

    @contract
    async def test_copies_go_first(self):
        backend = await self.started()
        first = await self.new(backend, ("first",))
        await self.send(first, 10 * MIB, self.data(4 * MIB))
        self.assertEqual(backend.staging.memory.used, 4 * MIB)
        writers = []
        for number in range(4):
            session = await self.new(backend, (str(number),))
            writers.append(await session.open_writer(30 * MIB))
            await writers[-1].write(self.data(9 * MIB // 2))
        self.assertFalse(first.copy)
        # Nobody looks through all sessions for copies each time.
        self.assertEqual(list(backend.staging.known._copies), [])
        self.assertEqual(backend.staging.memory.used, 18 * MIB)
        for writer in writers:
            await writer.close()

    @contract
    async def test_copies_are_kept_as_long_as_there_is_room(self):
        backend = await self.started()
        data = self.data(10 * MIB)
        sessions = [await self.new(backend, (str(n),)) for n in range(3)]
        for session in sessions:
            await self.send(session, len(data), data[: 4 * MIB])
        self.assertEqual(backend.staging.memory.used, 12 * MIB)
        self.client(backend).asked.clear()
        for session in sessions:
            await self.send(session, len(data), data[4 * MIB :])
        self.assertNotIn("GetObject", self.client(backend).asked)

    @contract
    async def test_writers_that_wait_for_memory_end_with_their_session(self):
        for is_free_first in (True, False):
            backend = await self.started()
            held, goes_on = self.client(backend).hold("UploadPart")
            first = await self.new(backend, ("first",))
            writer = await first.open_writer(30 * MIB)
            await writer.write(self.data(9 * MIB))
            await held
            waiting: list[Deferred[None]] = []
            second = await self.new(backend, ("second",))
            other = await second.open_writer(30 * MIB)
            for _ in range(5):
                waiting.append(other.write(self.data(4 * MIB)))
            self.assertFalse(waiting[-1].called)
            releasing = second.release()
            if is_free_first:
                goes_on.callback(None)
            # It does not wait for memory, either.
            await releasing
            if not is_free_first:
                goes_on.callback(None)
            for one in waiting:
                try:
                    await one
                except BackendError:
                    continue
            await writer.close()
            await first.release()
            self.assertEqual(backend.staging.memory.used, 0)
            await self.assert_nothing_left(backend)


class BudgetTests(S3Case):
    """All backends of a process share one bound."""

    @contract
    async def test_what_one_directory_holds_counts_for_the_other(self):
        budget = Budget()
        first = await self._start(self.node(budget, prefix="a/", memory=20 * MIB))
        second = await self._start(self.node(budget, prefix="b/", memory=20 * MIB))
        writers = []
        for backend in (first, second) * 3:
            session = await self.new(backend, (str(len(writers)),))
            writers.append(await session.open_writer(10 * MIB))
            await writers[-1].write(self.data(9 * MIB // 2))
        self.assertLessEqual(budget.memory.peak, 20 * MIB)
        self.assertGreater(budget.memory.used, 10 * MIB)
        for writer in writers:
            await writer.close()

    @contract
    async def test_copies_of_the_other_directory_go_first(self):
        budget = Budget()
        first = await self._start(self.node(budget, prefix="a/", memory=20 * MIB))
        second = await self._start(self.node(budget, prefix="b/"))
        session = await self.new(first)
        await self.send(session, 10 * MIB, self.data(4 * MIB))
        for number in range(4):
            other = await self.new(second, (str(number),))
            writer = await other.open_writer(10 * MIB)
            await writer.write(self.data(9 * MIB // 2))
        self.assertEqual(session.copy, [])
        self.assertEqual(budget.memory.used, 18 * MIB)

    @contract
    async def test_the_largest_bound_holds_while_its_backend_is_started(self):
        budget = Budget()
        limits = []
        nodes = [
            await self._start(self.node(budget, prefix=f"{memory}/", memory=memory))
            for memory in (None, 20 * MIB, 40 * MIB, 30 * MIB)
        ]
        limits.append(budget.memory.limit)
        limits.append(budget.for_small())
        for node in reversed(nodes):
            await node.stop()
            limits.append(budget.memory.limit)
        self.assertEqual([limit / MIB for limit in limits], [40, 2.5, 40, 20, 128, 128])
        self.assertEqual(budget.memory._drop_copies, [])

    def test_a_description_is_given_that_of_the_process(self):
        context = BackendContext(reactor)
        nodes = [backend_from_description(f"s3:{name}", context) for name in "abc"]
        self.assertEqual({node._budget for node in nodes}, {OF_PROCESS})

    @contract
    async def test_workers_share_it(self):
        limits = []
        for workers in (1, 2, 6):
            budget = Budget()
            node = self.node(budget, workers=workers, memory=80 * MIB)
            await self._start(node)
            limits.append(budget.memory.limit / MIB)
        self.assertEqual(limits, [80, 40, 20])

    def test_a_description_is_for_all_workers(self):
        context = BackendContext(reactor, worker=Worker(1, 3))
        self.assertEqual(backend_from_description("s3:a", context)._workers, 3)


class KnownTests(S3Case):
    """What a node knows of sessions between their packets is bounded, too."""

    settings = {"memory": 20 * MIB}

    @contract
    async def test_bytes_of_many_small_files_are_forgotten(self):
        backend = await self.started()
        known = backend.staging.known
        data = self.data(60_000)
        sessions = []
        for number in range(100):
            session = await self.new(backend, (str(number),))
            await self.send(session, len(data), data)
            sessions.append(session.session_id)
            self.assertLessEqual(known.bytes_held, 5 * MIB)
            del session
        gc.collect()
        self.assertIsNone(known.get(sessions[0]))
        self.assertIsNotNone(known.get(sessions[-1]))
        for number in (0, 99):
            found = await backend.find(sessions[number])
            await self.close(backend, found)
            self.assertEqual(await self.file_at(backend, (str(number),)), data)

    @contract
    async def test_a_session_that_is_over_weighs_nothing(self):
        backend = await self.started()
        for number in range(3):
            session = await self.complete(backend, (str(number),), self.data(60_000))
            await self.close(backend, session)
        self.assertEqual(backend.staging.known.bytes_held, 0)

    @contract
    async def test_one_that_fell_out_is_still_found_by_who_works_on_it(self):
        backend = await self.started()
        session = await self.complete(backend, ("old",), self.data(60_000))
        for number in range(100):
            await self.complete(backend, (str(number),), self.data(60_000))
        self.assertIs(backend.staging.known.get(session.session_id), session)
        await self.close(backend, session)
        self.assertTrue(await backend.recalls_close(session.session_id, ("old",), None))
