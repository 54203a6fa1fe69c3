"""
What a list for operators tells of sessions in a bucket, and what it costs.
"""

from __future__ import annotations

from uuid import uuid4

from tests.backends.s3.support import MIB, S3Case
from txbits.backends.s3 import _cleanup
from txbits.backends.s3._bucket import Bucket
from txbits.errors import NoSuchSession
from txbits.testing.backend import contract


class DetailsTests(S3Case):
    """One node, and another."""

    @contract
    async def test_bytes_are_told_where_they_are_known(self):
        backend = await self._start(self.node())
        small = await self.new(backend, ("small",))
        await self.send(small, 10, b"1234")
        long = await self.new(backend, ("long",))
        await self.send(long, 12 * MIB, self.data(6 * MIB))
        for node in (backend, await self.another(backend)):
            page, _ = await node.list_after(None, 9)
            offsets = {one.destination[0]: one.offset for one in page}
            self.assertEqual(offsets["small"], 4)
            # Another node would have to list the parts of each session.
            expected = 6 * MIB if node is backend else None
            self.assertEqual(offsets["long"], expected)
            details = await node.details_of(long.session_id)
            self.assertEqual((details.offset, details.total), (6 * MIB, 12 * MIB))

    @contract
    async def test_one_that_another_node_has_ended_is_gone_at_once(self):
        backend = await self._start(self.node())
        other = await self.another(backend)
        session = await self.new(backend, ("file",))
        await backend.details_of(session.session_id)
        await (await other.find(session.session_id)).release()
        await self.fails(NoSuchSession, backend.details_of(session.session_id))

    @contract
    async def test_a_page_reads_records_once_and_no_parts(self):
        backend = await self._start(self.node())
        for number in range(3):
            session = await self.new(backend, (f"{number}",))
            await self.send(session, 12 * MIB, self.data(6 * MIB))
        other = await self.another(backend)
        client = self.client(other)
        for reads in (3, 0):
            client.counts.clear()
            page, last = await other.list_after(None, 9)
            self.assertEqual((len(page), last), (3, None))
            expected = {"ListObjectsV2": 1, "GetObject": reads}
            self.assertEqual(+client.counts, {k: n for k, n in expected.items() if n})

    @contract
    async def test_a_page_looks_at_a_limited_number_of_closes(self):
        backend = await self._start(self.node())
        for number in range(5):
            session = await self.new(backend, (f"{number}",))
            await session.release(remember=True)
        open_one = await self.new(backend, ("open",))
        self.patch(_cleanup, "_MOST_SEEN", 2)
        found, after, pages = [], None, 0
        while True:
            page, after = await backend.list_after(after, 9)
            found += [one.session_id for one in page]
            pages += 1
            if after is None:
                break
        self.assertEqual(found, [open_one.session_id])
        self.assertEqual(pages, 3)

    @contract
    async def test_claims_are_not_listed_on_the_way(self):
        backend = await self._start(self.node())
        for number in range(3):
            await backend.claim(f"link/{number}", uuid4(), self.now(backend) + 9)
        listed = []
        listings = Bucket.page

        async def page(bucket, *args, **kwargs):
            found = await listings(bucket, *args, **kwargs)
            listed.extend(found.found)
            return found

        self.patch(Bucket, "page", page)
        self.assertEqual(await backend.list_after(None, 9), ([], None))
        self.assertEqual(listed, [])
