"""
How many requests each packet takes: the table of ``docs/reference/s3.md``, measured.
"""

from __future__ import annotations

from collections import Counter
from uuid import uuid4

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from zope.interface import implementer

from tests.backends.s3.support import MIB, S3Case
from txbits.protocol.codec import ContentRange
from txbits.sessions import Caller, IRequestBody, SessionManager, Settings
from txbits.testing.backend import contract

CALLER = Caller(None, "192.0.2.1")


@implementer(IRequestBody)
class Body:
    """A body that is there."""

    def __init__(self, data):
        self._data = data

    def receive(self, consume, store=None) -> Deferred[bool]:
        return consume(self._data).addCallback(lambda _: True)

    def stop(self):
        pass


class RequestCase(S3Case):
    """Packets through a manager, and what S3 was asked for each."""

    async def manager(self, backend=None, **settings):
        manager = SessionManager(backend or self.node(), Settings(**settings), reactor)
        await manager.start()
        self.addCleanup(manager.stop)
        await manager._upkeep.count_anew()
        while manager._upkeep.is_running:
            await self.turn()
        self.asked(manager)
        return manager

    def asked(self, manager):
        """What was asked since this was called last."""
        asked = self.client(manager.backend).asked
        counted = Counter(asked)
        asked.clear()
        return dict(counted)

    def fragment(self, manager, session_id, first, data, total, name=("name.txt",)):
        return manager.fragment(
            session_id,
            name,
            CALLER,
            ContentRange(first, first + len(data) - 1, total),
            Body(data),
        ).addCallback(lambda received: received.offset)


class WarmTests(RequestCase):
    """All packets of a session come to one node."""

    @contract
    async def test_a_tiny_upload_takes_five(self):
        manager = await self.manager()
        one = await manager.create(("name.txt",), CALLER, "name.txt")
        self.assertEqual(
            self.asked(manager), {"ListObjectsV2": 1, "PutObject": 1}, "Create"
        )
        data = self.data(1024)
        await self.fragment(manager, one, 0, data, len(data))
        self.assertEqual(self.asked(manager), {"PutObject": 1}, "Fragment")
        await manager.close(one, ("name.txt",), CALLER)
        self.assertEqual(self.asked(manager), {"PutObject": 2}, "Close")
        self.assertEqual(self.left(manager.backend.settings), [])
        self.assertEqual(
            [key for key in self.bucket.everything() if "bits-sessions" not in key],
            ["in/name.txt"],
        )
        await manager.close(one, ("name.txt",), CALLER)
        self.assertEqual(self.asked(manager), {"GetObject": 2}, "Close again")

    @contract
    async def test_folders_cost_once_in_a_while(self):
        manager = await self.manager()
        for extra in (2, 0):
            name = ("a", "b", str(uuid4()))
            one = await manager.create(name, CALLER, None)
            expected = {"ListObjectsV2": 1, "PutObject": 1}
            if extra:
                expected["HeadObject"] = extra
            self.assertEqual(self.asked(manager), expected)
            await manager.cancel(one, name, CALLER)
            self.asked(manager)

    @contract
    async def test_an_empty_file_takes_six(self):
        manager = await self.manager()
        one = await manager.create(("name.txt",), CALLER, None)
        await manager.close(one, ("name.txt",), CALLER)
        self.assertEqual(
            self.asked(manager),
            {"ListObjectsV2": 1, "PutObject": 4, "GetObject": 1},
        )

    @contract
    async def test_a_cancel_of_a_small_file_takes_two(self):
        manager = await self.manager()
        one = await manager.create(("name.txt",), CALLER, None)
        await self.fragment(manager, one, 0, b"abc", 5)
        self.asked(manager)
        await manager.cancel(one, ("name.txt",), CALLER)
        self.assertEqual(self.asked(manager), {"GetObject": 1, "DeleteObject": 1})
        self.assertEqual(self.bucket.everything(), [])

    @contract
    async def test_a_fragment_takes_one_write_besides_its_parts(self):
        manager = await self.manager()
        data = self.data(16 * MIB)
        one = await manager.create(("name.txt",), CALLER, None)
        self.asked(manager)

        async def send(first, end):
            await self.fragment(manager, one, first, data[first:end], len(data))
            return self.asked(manager)

        self.assertEqual(
            await send(0, MIB), {"PutObject": 2, "HeadObject": 1}, "length, and tail"
        )
        self.assertEqual(
            await send(MIB, 2 * MIB), {"PutObject": 1, "HeadObject": 1}, "tail"
        )
        self.assertEqual(
            await send(2 * MIB, 6 * MIB),
            {
                "CreateMultipartUpload": 1,
                "PutObject": 2,
                "UploadPart": 1,
                "HeadObject": 1,
            },
            "the upload, its id, the first part, and a tail",
        )
        self.assertEqual(
            await send(6 * MIB, 10 * MIB), {"UploadPart": 1, "HeadObject": 1}, "part"
        )
        self.assertEqual(
            await send(10 * MIB, 16 * MIB), {"UploadPart": 2, "HeadObject": 1}, "end"
        )
        await manager.close(one, ("name.txt",), CALLER)
        self.assertEqual(
            self.asked(manager),
            {
                "ListObjectsV2": 3,
                "PutObject": 2,
                "ListParts": 1,
                "CompleteMultipartUpload": 1,
                "DeleteObjects": 1,
            },
        )
        self.assertEqual(self.left(manager.backend.settings), [])

    @contract
    async def test_a_file_of_less_than_a_part_is_put_at_close(self):
        nodes = [await self.manager() for _ in range(2)]
        data = self.data(2 * MIB)
        for closes, reads in ((nodes[0], 0), (nodes[1], 1)):
            one = await nodes[0].create(("name.txt",), CALLER, None)
            for first in (0, MIB):
                await self.fragment(
                    nodes[0], one, first, data[first : first + MIB], len(data)
                )
            self.asked(nodes[0])
            await closes.close(one, ("name.txt",), CALLER)
            asked = self.asked(closes)
            # What a cold node reads: the record, what lies in tails, and those.
            self.assertEqual(asked.pop("GetObject", 0), 2 * reads)
            self.assertEqual(
                asked, {"ListObjectsV2": 3 + reads, "PutObject": 3, "DeleteObjects": 1}
            )
            self.assertEqual(self.left(nodes[0].backend.settings), [])
            self.bucket.client.delete_object(Bucket=self.bucket.name, Key="in/name.txt")

    @contract
    async def test_a_cancel_of_a_long_file_lists_what_it_removed(self):
        manager = await self.manager()
        data = self.data(6 * MIB)
        one = await manager.create(("name.txt",), CALLER, None)
        await self.fragment(manager, one, 0, data, 16 * MIB)
        self.asked(manager)
        await manager.cancel(one, ("name.txt",), CALLER)
        self.assertEqual(
            self.asked(manager),
            {
                "GetObject": 1,
                "ListParts": 2,
                "ListObjectsV2": 3,
                "PutObject": 1,
                "AbortMultipartUpload": 1,
                "DeleteObject": 2,
            },
        )
        self.assertEqual(self.bucket.everything(), [])


class ColdTests(RequestCase):
    """Each packet of a session comes to another node."""

    @contract
    async def test_a_tiny_upload_takes_ten(self):
        nodes = [await self.manager() for _ in range(3)]
        one = await nodes[0].create(("name.txt",), CALLER, "name.txt")
        data = self.data(1024)
        await self.fragment(nodes[1], one, 0, data, len(data))
        self.assertEqual(self.asked(nodes[1]), {"GetObject": 1, "PutObject": 1})
        await nodes[2].close(one, ("name.txt",), CALLER)
        self.assertEqual(
            self.asked(nodes[2]),
            {"GetObject": 2, "HeadObject": 1, "ListObjectsV2": 1, "PutObject": 2},
        )
        self.assertEqual(self.left(nodes[0].backend.settings), [])

    @contract
    async def test_a_fragment_takes_three_looks_and_one_write_to_take_over(self):
        nodes = [await self.manager() for _ in range(3)]
        data = self.data(12 * MIB)
        one = await nodes[0].create(("name.txt",), CALLER, None)
        await self.fragment(nodes[0], one, 0, data[: 6 * MIB], len(data))
        await self.fragment(nodes[1], one, 6 * MIB, data[6 * MIB : 7 * MIB], len(data))
        self.assertEqual(
            self.asked(nodes[1]),
            {
                "GetObject": 1,
                "ListObjectsV2": 1,
                "ListParts": 1,
                "PutObject": 2,
            },
            "the tail, and the record, in place of a last look at it",
        )
        await self.fragment(nodes[2], one, 7 * MIB, data[7 * MIB :], len(data))
        self.assertEqual(
            self.asked(nodes[2]),
            {
                "GetObject": 3,
                "ListObjectsV2": 1,
                "ListParts": 1,
                "UploadPart": 2,
                "PutObject": 1,
            },
            "two tails are read back, too",
        )
