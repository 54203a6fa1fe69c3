"""
The proxy breaks what it is told to break, and nothing else.

The server is the real one, the client botocore's, in a thread.
"""

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ReadTimeoutError,
)
from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.fault_proxy import SLOW_DOWN, Answer, Break, FaultProxy
from tests.seaweedfs import Bucket, new_client

DATA = bytes(300_000)


class FaultProxyTests(TestCase):
    timeout = 60

    def setUp(self):
        self.bucket = Bucket(self)
        self.proxy = FaultProxy.start(self, self.bucket.server.port)
        self.client = new_client(self.proxy.endpoint, timeout=1)
        self.addCleanup(self.client.close)

    def call(self, name, **arguments):
        """Call the client; fires with what it returns or how it fails."""

        def called():
            try:
                method = getattr(self.client, name)
                return method(Bucket=self.bucket.name, **arguments)
            except (BotoCoreError, ClientError) as error:
                return error

        return deferToThread(called)

    def put(self, key="k"):
        return self.call("put_object", Key=key, Body=DATA)

    async def code(self, calling):
        """The code of S3's that a call fails with."""
        error = await calling
        self.assertIsInstance(error, ClientError)
        return error.response["Error"]["Code"]

    async def test_all_passes_without_a_rule(self):
        await self.put()
        answer = await self.call("get_object", Key="k")
        self.assertEqual(await deferToThread(answer["Body"].read), DATA)
        self.assertEqual(self.proxy.counts(), {"PutObject": 1, "GetObject": 1})

    async def test_operations_have_the_names_of_s3(self):
        copied = {"Bucket": self.bucket.name, "Key": "k"}
        await self.put()
        upload = {"Key": "m", "UploadId": "none"}
        made = await self.call("create_multipart_upload", Key="m")
        upload["UploadId"] = made["UploadId"]
        await self.call("upload_part", **upload, PartNumber=1, Body=b"x")
        await self.call("upload_part_copy", **upload, PartNumber=2, CopySource=copied)
        await self.call("list_parts", **upload)
        await self.call("list_multipart_uploads")
        await self.call(
            "complete_multipart_upload", **upload, MultipartUpload={"Parts": []}
        )
        await self.call("abort_multipart_upload", **upload)
        await self.call("head_object", Key="k")
        await self.call("copy_object", Key="l", CopySource=copied)
        await self.call("list_objects_v2")
        await self.call("delete_object", Key="k")
        await self.call("delete_objects", Delete={"Objects": [{"Key": "l"}]})
        await self.call("head_bucket")
        self.assertEqual(
            [(request.operation, request.key) for request in self.proxy.requests],
            [
                ("PutObject", "k"),
                ("CreateMultipartUpload", "m"),
                ("UploadPart", "m"),
                ("UploadPartCopy", "m"),
                ("ListParts", "m"),
                ("ListMultipartUploads", ""),
                ("CompleteMultipartUpload", "m"),
                ("AbortMultipartUpload", "m"),
                ("HeadObject", "k"),
                ("CopyObject", "l"),
                ("ListObjectsV2", ""),
                ("DeleteObject", "k"),
                ("DeleteObjects", ""),
                ("HeadBucket", ""),
            ],
        )

    async def test_an_error_hits_as_often_as_it_is_told_to(self):
        self.proxy.break_next("PutObject", SLOW_DOWN, times=2)
        self.assertEqual(await self.code(self.put()), "SlowDown")
        self.assertEqual(await self.code(self.put()), "SlowDown")
        self.assertEqual(self.bucket.everything(), [])
        await self.put()
        self.assertEqual(self.bucket.read("k"), DATA)

    async def test_nothing_breaks_after_healing(self):
        self.proxy.break_next("PutObject", SLOW_DOWN)
        self.proxy.heal()
        await self.put()
        self.assertEqual(self.bucket.read("k"), DATA)

    async def test_an_error_hits_what_a_function_picks(self):
        self.proxy.break_next(lambda it: it.key == "b", Answer(500, "InternalError"))
        await self.put("a")
        self.assertEqual(await self.code(self.put("b")), "InternalError")
        self.assertEqual(self.bucket.keys(), ["a"])

    async def test_the_connection_stays_after_an_error(self):
        self.proxy.break_next("HeadObject", SLOW_DOWN)
        await self.call("head_object", Key="k")
        await self.call("head_object", Key="k")
        self.assertEqual(self.proxy.connections, 1)

    async def test_a_request_is_reset(self):
        for after in (0, 100, 100_000):
            self.proxy.break_next("PutObject", Break("reset", "request", after))
            self.assertIsInstance(await self.put(), BotoCoreError)
        self.assertEqual(self.bucket.everything(), [])

    async def test_an_answer_is_lost(self):
        self.proxy.break_next("PutObject", Break("end", "answer"), times=2)
        self.assertIsInstance(await self.put(), ConnectionClosedError)
        self.assertEqual(self.bucket.read("k"), DATA)

    async def test_an_answer_is_truncated(self):
        await self.put()
        self.proxy.break_next("GetObject", Break("end", "answer", 100_000))
        answer = await self.call("get_object", Key="k")

        def read():
            with self.assertRaises(BotoCoreError):
                answer["Body"].read()

        await deferToThread(read)

    async def test_requests_and_answers_stall(self):
        for where in ("request", "answer"):
            self.proxy.break_next("PutObject", Break("stall", where))
            self.assertIsInstance(await self.put(), ReadTimeoutError)

    def test_stopping_drops_what_is_stalled(self):
        async def run():
            self.proxy.break_next("PutObject", Break("stall", "answer"))
            stalled = self.put()
            while not self.proxy.requests:
                await deferToThread(self.bucket.keys)
            await self.proxy.stop()
            self.assertIsInstance(await stalled, BotoCoreError)

        return ensureDeferred(run())
