"""
What a description of an S3 backend may say.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txbits.backends import backend_from_description
from txbits.backends.s3 import S3Backend, S3Settings
from txbits.backends.s3._settings import from_description, size
from txbits.errors import InvalidSetting
from txbits.interfaces import BackendContext, IBackend, IExclusive, IShared

MIB = 1 << 20


class SettingsTests(SynchronousTestCase):
    """From words to values."""

    def read(self, text):
        backend = backend_from_description(text, BackendContext(Clock()))
        self.assertIsInstance(backend, S3Backend)
        return backend.settings

    def test_a_bucket_is_enough(self):
        self.assertEqual(self.read("s3:logs"), S3Settings(bucket="logs"))

    def test_everything_may_be_said(self):
        ca = self.mktemp()
        with open(ca, "w"):
            pass
        settings = self.read(
            f"s3:logs:prefix=in/:endpoint=https\\://s3.example.org\\:8333:region=x-1:"
            f"profile=p:part-size=16MiB:max-parts=1000:storage-class=STANDARD_IA:"
            f"sse=aws\\:kms:sse-key=arn\\:aws\\:kms\\:x:addressing=path:ca={ca}:"
            f"memory=256MiB:checksum=md5:connections=8:timeout=60:orphan-age=3600"
        )
        self.assertEqual(
            settings,
            S3Settings(
                bucket="logs",
                prefix="in/",
                endpoint="https://s3.example.org:8333",
                region="x-1",
                profile="p",
                part_size=16 * MIB,
                max_parts=1000,
                storage_class="STANDARD_IA",
                sse="aws:kms",
                sse_key="arn:aws:kms:x",
                addressing="path",
                ca=ca,
                memory=256 * MIB,
                checksum="md5",
                connections=8,
                timeout=60.0,
                orphan_age=3600.0,
            ),
        )

    def test_what_is_wrong_is_told_in_one_line(self):
        for text, word in (
            ("s3:", "bucket"),
            ("s3:a b", "bucket"),
            ("s3:b:prefix=/x", "prefix"),
            ("s3:b:prefix=a\nb", "prefix"),
            ("s3:b:endpoint=example.org", "endpoint"),
            ("s3:b:endpoint=ftp\\://x", "endpoint"),
            ("s3:b:part-size=4MiB", "part-size"),
            ("s3:b:part-size=many", "part-size"),
            ("s3:b:max-parts=0", "max-parts"),
            ("s3:b:max-parts=10001", "max-parts"),
            ("s3:b:max-parts=x", "max-parts"),
            ("s3:b:addressing=other", "addressing"),
            ("s3:b:checksum=sha1", "checksum"),
            ("s3:b:sse=rot13", "sse"),
            ("s3:b:sse-key=k", "sse-key"),
            ("s3:b:storage-class=a b", "storage-class"),
            ("s3:b:ca=/not/there", "/not/there"),
            ("s3:b:memory=16MiB", "memory"),
            ("s3:b:timeout=300", "timeout"),
            ("s3:b:orphan-age=3599", "orphan-age must be from 3600"),
            ("s3:b:part-size=64MiB", "memory must be from"),
            ("s3:b:nonsense=1", "nonsense"),
            ("s3:b:staging=x", "staging"),
            ("s3:b:c", "s3:BUCKET"),
        ):
            with self.assertRaises(InvalidSetting) as caught:
                self.read(text)
            self.assertIn(word, str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))

    def test_sizes_have_units(self):
        for text, number in (
            ("8388608", 8 * MIB),
            ("8MiB", 8 * MIB),
            ("8m", 8 * MIB),
            ("1G", 1 << 30),
            ("64k", 1 << 16),
        ):
            self.assertEqual(size(text, "x"), number)

    def test_an_empty_word_is_the_default(self):
        self.assertEqual(from_description("b", {"region": ""}).region, None)

    def test_it_is_a_shared_backend(self):
        backend = S3Backend(S3Settings(bucket="b"), Clock())
        self.assertTrue(IBackend.providedBy(backend))
        self.assertTrue(IShared.providedBy(backend))
        verifyObject(IExclusive, backend)
