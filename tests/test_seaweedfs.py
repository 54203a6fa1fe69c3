"""
The S3 server of the tests ends with them, and keeps what backends rely on.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from botocore.exceptions import ClientError
from twisted.trial.unittest import SynchronousTestCase

from tests.seaweedfs import Bucket, remove_sockets
from txbits._descriptions import parse_description

ROOT = Path(__file__).parents[1]

# Has a server, tells who keeps it, and stays.
_HOLDER = """
import sys
from tests.seaweedfs import server
print(server().keeper, flush=True)
sys.stdin.read()
"""


class Ended:
    """
    Tells when a process ends, also one that is nobody's child.

    :param pid: Its pid, while it runs.
    """

    def __init__(self, pid):
        self._descriptor = os.pidfd_open(pid)

    def wait(self):
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        try:
            return bool(poll.poll(60_000))
        finally:
            os.close(self._descriptor)


class LifeTests(SynchronousTestCase):
    """Who ends the server, and when."""

    def setUp(self):
        self.holder = subprocess.Popen(
            [sys.executable, "-c", _HOLDER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        self.addCleanup(self.holder.communicate)
        self.keeper = int(self.holder.stdout.readline())
        children = Path(f"/proc/{self.keeper}/task/{self.keeper}/children").read_text()
        (self.weed,) = map(int, children.split())
        self.command = Path(f"/proc/{self.weed}/cmdline").read_text().split("\0")
        (folder,) = (word[5:] for word in self.command if word.startswith("-dir="))
        self.folder = Path(folder)
        self.assertTrue(self.folder.exists())
        self.processes = [Ended(self.keeper), Ended(self.weed)]

    def assert_gone(self):
        for process in self.processes:
            self.assertTrue(process.wait())

    def test_server_ends_with_the_process_that_asked_for_it(self):
        self.holder.communicate()
        self.assert_gone()
        self.assertFalse(self.folder.exists())

    def test_server_ends_when_that_process_is_killed(self):
        self.holder.kill()
        self.assert_gone()
        self.assertFalse(self.folder.exists())

    def test_server_ends_when_its_keeper_is_killed(self):
        os.kill(self.keeper, signal.SIGKILL)
        self.assert_gone()
        # Nobody is left to do it.
        remove_sockets(self.command)
        shutil.rmtree(self.folder)


class BucketTests(SynchronousTestCase):
    """What tests ask, and what the server answers."""

    def setUp(self):
        self.bucket = Bucket(self, used=True)

    def put(self, **arguments):
        """Put an object; the code of the answer."""
        try:
            self.bucket.client.put_object(Bucket=self.bucket.name, **arguments)
        except ClientError as error:
            return error.response["Error"]["Code"]
        return "OK"

    def test_description_has_all_settings(self):
        text = self.bucket.description(prefix="in:coming/", part_size=1)
        self.assertEqual(
            parse_description(text),
            (
                "s3",
                (self.bucket.name,),
                {
                    "endpoint": self.bucket.server.endpoint,
                    "prefix": "in:coming/",
                    "part-size": "1",
                    "region": "us-east-1",
                },
            ),
        )

    def test_objects_are_listed_and_read(self):
        self.bucket.put("a/b", b"data")
        self.bucket.put("c", b"")
        self.assertEqual(self.bucket.keys(), ["a/b", "c"])
        self.assertEqual(self.bucket.keys("a/"), ["a/b"])
        self.assertEqual(self.bucket.read("a/b"), b"data")
        self.assertIsNone(self.bucket.read("d"))

    def test_unfinished_uploads_are_listed(self):
        client, name = self.bucket.client, self.bucket.name
        upload_id = client.create_multipart_upload(Bucket=name, Key="k")["UploadId"]
        self.assertEqual(self.bucket.uploads(), [("k", upload_id)])
        self.assertEqual(self.bucket.everything(), ["k#"])
        for body in (b"x", b"x"):
            client.upload_part(
                Bucket=name, Key="k", UploadId=upload_id, PartNumber=2, Body=body
            )
        self.assertEqual(self.bucket.parts("k", upload_id), [(2, 1)])
        self.assertEqual(self.bucket.everything(), ["k#2"])
        self.bucket.clear()
        self.assertEqual(self.bucket.everything(), [])
        self.assertEqual(self.bucket.parts("k", upload_id), [])

    def test_one_of_many_first_writers_wins(self):
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(
                lambda body: self.put(Key="k", Body=body, IfNoneMatch="*"),
                [b"%d" % number for number in range(8)],
            )
            self.assertEqual(sorted(answers), ["OK"] + 7 * ["PreconditionFailed"])

    def test_one_of_many_changes_of_one_state_wins(self):
        self.put(Key="k", Body=b"first")
        etag = self.bucket.client.head_object(Bucket=self.bucket.name, Key="k")["ETag"]
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(
                lambda body: self.put(Key="k", Body=body, IfMatch=etag),
                [b"%d" % number for number in range(8)],
            )
            self.assertEqual(sorted(answers), ["OK"] + 7 * ["PreconditionFailed"])

    def test_parts_are_copied_if_the_source_is_the_same(self):
        client, name = self.bucket.client, self.bucket.name
        etag = client.put_object(Bucket=name, Key="source", Body=b"0123456789")["ETag"]
        upload = client.create_multipart_upload(Bucket=name, Key="copy")["UploadId"]

        def copy(etag):
            return client.upload_part_copy(
                Bucket=name,
                Key="copy",
                UploadId=upload,
                PartNumber=1,
                CopySource={"Bucket": name, "Key": "source"},
                CopySourceIfMatch=etag,
                CopySourceRange="bytes=2-5",
            )

        with self.assertRaises(client.exceptions.ClientError) as caught:
            copy('"0"')
        self.assertEqual(
            caught.exception.response["ResponseMetadata"]["HTTPStatusCode"], 412
        )
        copy(etag)
        self.assertEqual(self.bucket.parts("copy", upload), [(1, 4)])
        client.delete_object(Bucket=name, Key="source")
        (part,) = client.list_parts(Bucket=name, Key="copy", UploadId=upload)["Parts"]
        client.complete_multipart_upload(
            Bucket=name,
            Key="copy",
            UploadId=upload,
            MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
        )
        self.assertEqual(self.bucket.read("copy"), b"2345")

    def test_wrong_checksum_is_refused(self):
        self.assertEqual(
            self.put(Key="k", Body=b"data", ChecksumCRC32="AAAAAA=="), "BadDigest"
        )
        self.assertEqual(self.bucket.everything(), [])
