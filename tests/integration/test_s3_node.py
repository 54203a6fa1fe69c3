"""
One node on a bucket: killed at any byte, and with a connection to S3 that breaks.

Where a kill falls is random; the seed is in the message of a failure. A
:class:`~tests.fault_proxy.FaultProxy` stands between the node and SeaweedFS.
"""

import random
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.fault_proxy import INTERNAL_ERROR, SLOW_DOWN, Answer, Break, FaultProxy
from tests.integration.cluster import Node, clean_up, remains
from tests.integration.kills import send_with_kills
from tests.integration.wire import Wire
from tests.ports import free_ports
from tests.seaweedfs import Bucket

MIB = 2**20
PATH = b"/dump.bin"
KEY = "dump.bin"


class NodeCase(TestCase):
    """A node on a new bucket, and a proxy for it to go through."""

    timeout = 180

    def setUp(self):
        self.bucket = Bucket(self)
        self.proxy = FaultProxy.start(self, self.bucket.server.port)

    async def start(self, *options):
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        (port,) = free_ports(1)
        backend = self.bucket.description(endpoint=self.proxy.endpoint)
        self.node = Node(self, self.folder, port, backend, options)
        await self.node.start()

    async def restart(self):
        await self.node.kill()
        await self.node.start()

    def wire(self):
        wire = Wire(self.node.port)
        self.addCleanup(wire.close)
        return wire

    async def upload(self, data, fragment):
        """Upload without a fault that the client could see."""

        def run():
            wire = self.wire()
            session = wire.create(PATH)
            for first in range(0, len(data), fragment):
                last = min(first + fragment, len(data))
                status, headers = wire.fragment(PATH, session, data, first, last)
                self.assertEqual(status, 200, (headers, self.node.log))
                self.assertEqual(headers[b"bits-received-content-range"], b"%d" % last)
            status, headers = wire.close_session(PATH, session)
            self.assertEqual(status, 200, (headers, self.node.log))

        await deferToThread(run)

    async def is_published(self, data):
        self.assertEqual(await deferToThread(self.bucket.read, KEY), data)
        self.assertEqual(await deferToThread(remains, self.bucket), [])


class KillTests(NodeCase):
    """SIGKILL, and another process that goes on."""

    async def upload_with_kills(self, size, fragment, kills):
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        data = chance.randbytes(size + chance.randrange(size))
        await self.start()
        wire, session = await send_with_kills(
            *(self, self.restart, PATH, data, chance),
            fragment=fragment,
            kills=kills,
            about=f"seed {seed}",
        )
        status, _ = await deferToThread(wire.close_session, PATH, session)
        self.assertEqual(status, 200, f"seed {seed}")
        # A multipart upload that was begun in the moment of a kill is not known to
        # anybody, and has no part.
        left = set(await deferToThread(remains, self.bucket))
        self.assertLessEqual(left, {f"{KEY}#"}, f"seed {seed}")
        await clean_up(self, self.folder, self.bucket)
        await self.is_published(data)

    async def test_no_acknowledged_byte_is_lost(self):
        await self.upload_with_kills(9 * MIB, fragment=2_000_000, kills=3)

    async def test_no_acknowledged_byte_of_a_small_file_is_lost(self):
        await self.upload_with_kills(30_000, fragment=10_000, kills=2)

    async def killed_within(self, packet_type, number, data, held):
        """
        Kill the node while it serves a packet.

        :param number: Which of the requests that it makes for it is to be the last.
        :param held: How many bytes were sent before.
        :returns: A connection to another node, and the session.
        """
        wire = await deferToThread(self.wire)
        session = await deferToThread(wire.create, PATH)
        await deferToThread(wire.fragment, PATH, session, data, 0, held)
        self.proxy.forget()
        self.proxy.break_next(self._nth(number), Break("stall", "answer"))
        # All of it is sent, and nothing waited for.
        await deferToThread(
            wire.packet, PATH, packet_type, cut=10_000, BITS_Session_Id=session
        )
        await self._requests(number)
        await self.node.kill()
        self.proxy.heal()
        await self.node.start()
        return await deferToThread(self.wire), session

    async def test_a_close_that_was_killed_succeeds_when_sent_again(self):
        chance = random.Random()
        await self.start("--allow-overwrites")
        for size in (1000, 9 * MIB, 17 * MIB):
            data = chance.randbytes(size)
            number = chance.randrange(1, 5)
            wire, session = await self.killed_within(
                b"Close-Session", number, data, size
            )
            status, _ = await deferToThread(wire.close_session, PATH, session)
            self.assertEqual(status, 200, f"killed at request {number}")
            await self.is_published(data)

    async def test_a_cancel_that_was_killed_leaves_nothing_when_sent_again(self):
        chance = random.Random()
        await self.start()
        for number in (1, 2, 3, 4):
            data = chance.randbytes(20 * MIB)
            wire, session = await self.killed_within(
                b"Cancel-Session", number, data, 19 * MIB
            )
            status, headers = await deferToThread(wire.cancel_session, PATH, session)
            # Either it is finished now, or it had been.
            if status != 200:
                self.assertEqual(headers[b"bits-error-code"], b"0x8020001F")
            self.assertEqual(await deferToThread(self.bucket.everything), [])

    def _nth(self, number):
        """A rule for one request, by its number."""
        return lambda request: len(self.proxy.requests) == number

    async def _requests(self, number):
        """Wait until there were so many, or as many as there will be."""
        while len(self.proxy.requests) < number:
            before = len(self.proxy.requests)
            await deferToThread(self.bucket.everything)
            if before == len(self.proxy.requests) and before:
                return


class FaultTests(NodeCase):
    """The connection to S3 breaks, and no client hears of it."""

    OPERATIONS = (
        "PutObject",
        "GetObject",
        "HeadObject",
        "UploadPart",
        "ListParts",
        "CompleteMultipartUpload",
        "ListObjectsV2",
        "DeleteObject",
        "DeleteObjects",
        "CopyObject",
    )

    async def upload_with(self, *faults, size=18 * MIB, operations=OPERATIONS):
        data = random.randbytes(size)
        await self.start()
        for operation in operations:
            for fault in faults:
                self.proxy.break_next(operation, fault)
        await self.upload(data, 5_000_000)
        return data

    async def arrives_with(self, *faults, **arguments):
        await self.is_published(await self.upload_with(*faults, **arguments))

    def test_errors_that_pass_are_tried_again(self):
        operations = (*self.OPERATIONS, "CreateMultipartUpload")
        return self.arrives_with(SLOW_DOWN, INTERNAL_ERROR, operations=operations)

    def test_errors_that_pass_are_tried_again_for_a_small_file(self):
        return self.arrives_with(SLOW_DOWN, INTERNAL_ERROR, size=1000)

    def test_requests_that_are_cut_are_sent_again(self):
        return self.arrives_with(
            Break("reset", "request", random.randrange(2_000)),
            Break("reset", "request", random.randrange(500_000)),
        )

    def test_requests_whose_answer_is_lost_are_sent_again(self):
        return self.arrives_with(Break("reset", "answer"))

    def test_requests_whose_answer_is_lost_are_sent_again_for_a_small_file(self):
        return self.arrives_with(Break("end", "answer"), size=1000)

    def test_requests_whose_answer_is_truncated_are_sent_again(self):
        return self.arrives_with(
            Break("end", "answer", random.randrange(1, 100)),
            Break("end", "answer", random.randrange(100, 300)),
        )

    async def test_a_node_starts_although_s3_fails(self):
        for operation in self.OPERATIONS:
            self.proxy.break_next(operation, SLOW_DOWN)
            self.proxy.break_next(operation, Break("reset", "answer"))
        await self.start()
        self.assertEqual(await deferToThread(self.bucket.everything), [])

    async def test_an_upload_whose_id_was_lost_is_gone_at_the_end(self):
        lost = Break("reset", "answer")
        await self.arrives_with(lost, operations=["CreateMultipartUpload"])
        self.assertEqual(await deferToThread(remains, self.bucket), [])

    async def test_cancel_holds_although_s3_fails(self):
        await self.start()
        data = random.randbytes(20 * MIB)

        def run():
            wire = self.wire()
            session = wire.create(PATH)
            wire.fragment(PATH, session, data, 0, 19 * MIB)
            for operation in (*self.OPERATIONS, "AbortMultipartUpload"):
                self.proxy.break_next(operation, SLOW_DOWN)
                self.proxy.break_next(operation, Break("reset", "answer"))
            status, _ = wire.cancel_session(PATH, session)
            self.assertEqual((status, self.bucket.everything()), (200, []))

        await deferToThread(run)

    async def test_a_store_that_is_gone_is_no_end_of_the_session(self):
        await self.start()
        data = random.randbytes(12 * MIB)

        def run():
            wire = self.wire()
            session = wire.create(PATH)
            denied = Answer(403, "AccessDenied")
            self.proxy.break_next("UploadPart", denied)
            status, headers = wire.fragment(PATH, session, data, 0, len(data))
            self.assertEqual(
                (status, headers[b"bits-error-code"]), (500, b"0x80004005")
            )
            status, headers = wire.fragment(PATH, session, data, 0, len(data))
            self.assertEqual(status, 200)
            self.assertEqual(wire.close_session(PATH, session)[0], 200)

        await deferToThread(run)
        await self.is_published(data)
