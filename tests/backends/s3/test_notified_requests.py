"""
How many requests a notification takes: the table of ``docs/reference/s3.md``, measured.
"""

from __future__ import annotations

from collections import Counter

from twisted.internet import reactor
from zope.interface import implementer

from tests.backends.s3.support import MIB
from tests.backends.s3.test_requests import CALLER, RequestCase
from txbits._deferreds import deferred
from txbits.interfaces import Answer, INotifier, IReadable
from txbits.sessions import SessionManager, Settings
from txbits.testing._abilities_contract import _Sink
from txbits.testing.backend import contract

NAME = ("name.txt",)


@implementer(INotifier)
class Application:
    """
    Answers at once.

    :ivar sha256: The digest that it was last told.
    """

    needs = frozenset({IReadable})

    def __init__(self, reply=None, reads=False, publishes=True):
        self.reply = reply
        self.reads = reads
        self.publishes = publishes

    @deferred
    async def notify(self, upload, reply):
        self.sha256 = upload.sha256
        if self.reads:
            session = upload.session
            await session.read_into(_Sink(), 0, session.total)
        if self.reply is not None:
            writer = await reply.open()
            await writer.write(self.reply)
            await writer.close()
        return Answer(publishes=self.publishes)


class NotifiedTests(RequestCase):
    """All packets of a session come to one node, which asks an application."""

    notifies = True

    async def asking(self, application):
        """A manager that asks an application."""
        manager = SessionManager(self.node(), Settings(), reactor, notifier=application)
        await manager.start()
        self.addCleanup(manager.stop)
        await manager._upkeep.count_anew()
        while manager._upkeep.is_running:
            await self.turn()
        self.asked(manager)
        return manager

    async def uploaded(self, manager, length):
        """Send a file in one Fragment; what that and a Close take."""
        one = await manager.create(NAME, CALLER, "name.txt")
        self.asked(manager)
        data = self.data(length)
        await self.fragment(manager, one, 0, data, length)
        fragment = self.asked(manager)
        await manager.close(one, NAME, CALLER)
        closing = self.asked(manager)
        self.assertEqual(self.left(manager.backend.settings), [])
        return fragment, closing

    @contract
    async def test_a_tiny_upload_takes_three_writes_more_and_a_clearance(self):
        manager = await self.asking(Application())
        fragment, closing = await self.uploaded(manager, 1024)
        # The bytes, the object, the attempt, the answer. It is looked before whether
        # another node has an answer, or has published; and at the end for a reply.
        self.assertEqual(fragment, {"PutObject": 4, "GetObject": 1, "HeadObject": 2})
        self.assertEqual(
            closing, {"PutObject": 2, "ListMultipartUploads": 1, **self.cleared(1)}
        )

    def cleared(self, objects):
        """What it takes to remove so many objects, and to see that they are gone."""
        removal = "DeleteObject" if objects == 1 else "DeleteObjects"
        return {"ListObjectsV2": 2, removal: 1}

    @contract
    async def test_reading_takes_one_and_a_short_reply_two(self):
        for length, reads in ((1024, 0), (MIB, 1)):
            plain = await self.asking(Application())
            without, _ = await self.uploaded(plain, length)
            manager = await self.asking(Application(b"reply", reads=True))
            self.bucket.client.delete_object(Bucket=self.bucket.name, Key="in/name.txt")
            fragment, closing = await self.uploaded(manager, length)
            more = Counter(fragment)
            more.subtract(without)
            expected = {"PutObject": 1, "HeadObject": 1, "GetObject": reads}
            self.assertEqual({**more}, {**dict.fromkeys(more, 0), **expected})
            self.assertEqual(closing["DeleteObjects"], 1)
            self.bucket.client.delete_object(Bucket=self.bucket.name, Key="in/name.txt")

    @contract
    async def test_an_upload_of_less_than_a_part_is_put_and_copied(self):
        manager = await self.asking(Application())
        fragment, closing = await self.uploaded(manager, MIB)
        # The length and the tail, and that the session stands, are of any upload. What
        # other nodes have done is looked for, and the tail read back.
        self.assertEqual(
            fragment,
            {
                "PutObject": 2 + 3,
                "HeadObject": 1 + 1,
                "GetObject": 2,
                "ListObjectsV2": 1,
            },
        )
        # The tail goes with the object.
        self.assertEqual(closing, self.copied(2))

    def copied(self, objects):
        """What a Close takes that publishes a copy, and removes so many objects."""
        return {
            **self.cleared(objects),
            "PutObject": 3,
            "CreateMultipartUpload": 1,
            "UploadPartCopy": 1,
            "ListParts": 1,
            "CompleteMultipartUpload": 1,
            "ListMultipartUploads": 1,
            "ListObjectsV2": 3,
        }

    @contract
    async def test_a_long_upload_is_completed_and_copied(self):
        manager = await self.asking(Application())
        fragment, closing = await self.uploaded(manager, 15 * MIB)
        self.assertEqual(
            fragment,
            {
                # The length, the upload, the attempt, the answer.
                "PutObject": 4,
                "CreateMultipartUpload": 1,
                "UploadPart": 3,
                # Of the record, of the object, and whether there is a reply.
                "HeadObject": 3,
                # What other nodes have done; and for the object.
                "GetObject": 1,
                "ListObjectsV2": 1,
                "ListParts": 2,
                "CompleteMultipartUpload": 1,
            },
        )
        self.assertEqual(closing, self.copied(1))

    @contract
    async def test_an_upload_that_is_the_applications_is_not_copied(self):
        manager = await self.asking(Application(publishes=False))
        _, closing = await self.uploaded(manager, 15 * MIB)
        self.assertEqual(
            closing, {"PutObject": 2, "ListMultipartUploads": 1, **self.cleared(1)}
        )
        self.assertIsNone(await self.file_at(manager.backend, NAME))
