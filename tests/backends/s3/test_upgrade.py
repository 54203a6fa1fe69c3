"""
Sessions whose records were written by released versions, byte for byte: they are found,
go on, and are finished.
"""

from __future__ import annotations

from uuid import UUID

from tests.backends.s3.support import MIB
from tests.backends.s3.test_answering import AnsweringCase
from txbits.backends.s3._records import Record, decoded, encoded
from txbits.interfaces import Answer
from txbits.testing.backend import contract

ID = UUID("8c2f0f4e-3c6a-4f0b-9d59-0f5b2a7f1e11")
FOLDER = "in/.bits-sessions/{8C2F0F4E-3C6A-4F0B-9D59-0F5B2A7F1E11}/"

#: What a record begins with.
_HEAD = (
    b'{"version": 1, "session": "8c2f0f4e-3c6a-4f0b-9d59-0f5b2a7f1e11", '
    b'"destination": ["folder", "name.txt"], "owner": "alice", '
    b'"content_name": "name.txt", "created": 1790000000.0, "state": "open", '
    b'"stamp": "0123456789abcdef0123456789abcdef", '
)

#: What it goes on with, before there are bytes, and where parts go to the destination.
_EMPTY = (
    b'"total": null, "part_size": null, "upload": null, "in_doubt": false, '
    b'"has_strays": false'
)
_LONG = (
    b'"total": %d, "part_size": 5242880, "upload": %s, "in_doubt": false, '
    b'"has_strays": false, "node": "fedcba9876543210fedcba9876543210"'
)
_SMALL = (
    b'"total": 1000, "part_size": 5242880, "upload": null, "in_doubt": false, '
    b'"has_strays": false'
)

#: The end, where an application is asked.
_ASKED = (
    b', "staged": {"file": null, "copy": null, "attempts": 0, "answer": null, '
    b'"reply": null}'
)
_ANSWERED = (
    b', "staged": {"file": %s, "copy": null, "attempts": 2, "answer": {"status": 200, '
    b'"publishes": true, "reply_url": null, "has_reply": false}, "reply": null}'
)


def record(rest, inline=b""):
    """A record as it is in the bucket."""
    return (_HEAD + rest + b"}").ljust(1023) + b"\n" + inline


def quoted(text):
    """A string in JSON."""
    return b'"%s"' % text.replace('"', '\\"').encode()


class UpgradeTests(AnsweringCase):
    """A node of this version finds what another has left."""

    NAME = ("folder", "name.txt")
    KEY = "in/folder/name.txt"

    def write(self, rest, inline=b""):
        self.bucket.put(f"{FOLDER}record", record(rest, inline))

    def upload(self, key, data):
        """Parts of a multipart upload."""
        client, name = self.bucket.client, self.bucket.name
        upload = client.create_multipart_upload(Bucket=name, Key=key)["UploadId"]
        for at in range(0, len(data), 5 * MIB):
            client.upload_part(
                Bucket=name,
                Key=key,
                UploadId=upload,
                PartNumber=at // (5 * MIB) + 1,
                Body=data[at : at + 5 * MIB],
            )
        return quoted(upload)

    async def finish(self, backend, data, held):
        found = await backend.find(ID)
        self.assertEqual((found.session_id, found.owner), (ID, "alice"))
        self.assertEqual((found.offset, found.in_doubt), (held, False))
        if found.total is None or held < len(data):
            await self.send(found, len(data), data[held:])
        if self.notifies:
            await found.begin_attempt()
            self.assertTrue(data == await self.back(found))
            await found.keep_answer(Answer(publishes=True))
        await self.assert_published(backend, found, data)
        self.bucket.clear()

    async def of_each_layout(self, test):
        for end, key in ((b"", self.KEY), (_ASKED, f"{FOLDER}file")):
            self.notifies = bool(end)
            await test(await self.started(), end, key)

    @contract
    async def test_nothing_has_arrived(self):
        async def test(backend, end, key):
            for length in (0, 1000, 12 * MIB):
                self.write(_EMPTY + end)
                await self.finish(backend, self.data(length), 0)

        await self.of_each_layout(test)

    @contract
    async def test_bytes_are_in_the_record(self):
        async def test(backend, end, key):
            data = self.data(1000)
            for held in (1, 999, 1000):
                self.write(_SMALL + end, data[:held])
                await self.finish(backend, data, held)

        await self.of_each_layout(test)

    @contract
    async def test_bytes_are_in_tails(self):
        async def test(backend, end, key):
            data = self.data(3 * MIB)
            for held in (MIB, 3 * MIB):
                self.write(_LONG % (len(data), b"null") + end)
                self.bucket.put(f"{FOLDER}0000000000000000-{held}", data[:held])
                await self.finish(backend, data, held)

        await self.of_each_layout(test)

    @contract
    async def test_bytes_are_in_parts(self):
        async def test(backend, end, key):
            data = self.data(12 * MIB)
            for held in (10 * MIB, 12 * MIB):
                upload = self.upload(key, data[:held])
                self.write(_LONG % (len(data), upload) + end)
                await self.finish(backend, data, held)

        await self.of_each_layout(test)

    @contract
    async def test_the_application_has_answered(self):
        backend = await self.started()
        data = self.data(12 * MIB)
        self.bucket.put(f"{FOLDER}file", data)
        etag = self.bucket.client.head_object(
            Bucket=self.bucket.name, Key=f"{FOLDER}file"
        )["ETag"]
        self.write(_LONG % (len(data), b'"over"') + _ANSWERED % quoted(etag))
        found = await backend.find(ID)
        self.assertEqual((found.offset, found.attempts), (len(data), 2))
        self.assertEqual(found.answer, Answer(publishes=True))
        await self.assert_published(backend, found, data)

    @contract
    async def test_the_format_is_the_same(self):
        backend = await self.started()
        upload = quoted("an upload")
        for rest in (
            _EMPTY,
            _EMPTY + _ASKED,
            _SMALL,
            _LONG % (12 * MIB, b"null"),
            _LONG % (12 * MIB, upload) + _ASKED,
            _LONG % (12 * MIB, upload) + _ANSWERED % quoted('"etag"'),
        ):
            read = decoded(record(rest), "record")
            assert isinstance(read, Record)
            self.assertEqual(encoded(read), record(rest))
        await backend.clean_up(0)
