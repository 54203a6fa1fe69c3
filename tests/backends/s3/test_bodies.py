"""
What is said of a body: worked out at once, or elsewhere while it still comes.
"""

from __future__ import annotations

from hashlib import sha256

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from txbits.backends.s3._bodies import LONG, Digest

MIB = 1 << 20


class Elsewhere:
    """Does its work when it is told to."""

    def __init__(self):
        self.jobs = []

    def __call__(self, function, *args):
        work = Deferred()
        self.jobs.append((work, function, args))
        return work

    def go_on(self):
        work, function, args = self.jobs.pop(0)
        work.callback(function(*args))


def told(digest):
    return digest.length, digest.checksum(), digest.sha256()


class DigestTests(SynchronousTestCase):
    """Bytes that come in pieces."""

    def setUp(self):
        self.data = bytes(range(256)) * 16 * 1024  # 4 MiB
        self.elsewhere = Elsewhere()

    def pieces(self, length):
        return [self.data[at : at + length] for at in range(0, len(self.data), length)]

    def expected(self, kind="crc32"):
        digest = Digest(kind, True)
        digest.update([self.data])
        self.assertEqual(digest.sha256(), sha256(self.data).hexdigest())
        return told(digest)

    def test_it_comes_out_the_same_elsewhere(self):
        for kind in ("crc32", "md5"):
            for length in (1000, 100_000, MIB, 3 * MIB):
                digest = Digest(kind, True)
                for piece in self.pieces(length):
                    digest.feed(piece, self.elsewhere)
                settled = digest.settled(self.elsewhere)
                while self.elsewhere.jobs:
                    self.assertNoResult(settled)
                    self.elsewhere.go_on()
                self.successResultOf(settled)
                self.assertEqual(told(digest), self.expected(kind))

    def test_one_piece_of_work_is_done_at_a_time(self):
        digest = Digest("crc32", True)
        for piece in self.pieces(MIB):
            digest.feed(piece, self.elsewhere)
            self.assertEqual(len(self.elsewhere.jobs), 1)

    def test_what_is_short_is_done_at_once(self):
        digest = Digest("crc32", True)
        digest.feed(self.data[: LONG - 1], self.elsewhere)
        self.successResultOf(digest.settled(self.elsewhere))
        self.assertEqual(self.elsewhere.jobs, [])
        self.assertEqual(digest.sha256(), sha256(self.data[: LONG - 1]).hexdigest())

    def test_it_goes_on_after_it_was_settled(self):
        digest = Digest("crc32", True)
        for piece in self.pieces(700_000):
            digest.feed(piece, lambda function, *args: succeed(function(*args)))
            settled = digest.settled(self.elsewhere)
            while self.elsewhere.jobs:
                self.elsewhere.go_on()
            self.successResultOf(settled)
        self.assertEqual(told(digest), self.expected())
