"""
Files that are open to be served: one reading at a time, and closed when none is left.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.backends.test_reading import _Consumer
from txbits.backends._serving import StoredFile, by_pieces
from txbits.errors import BackendError
from txbits.interfaces import ICodedFile


class StoredFileTests(SynchronousTestCase):
    """A store whose answers are in our hands."""

    def setUp(self):
        self.asked = []
        self.closed = 0
        self.file = StoredFile(5, 1.0, "tag", by_pieces(self.read), self.close)

    def read(self, offset, length):
        self.asked.append(Deferred())
        return self.asked[-1]

    def close(self):
        self.closed += 1

    def test_it_is_a_stored_file(self):
        verifyObject(ICodedFile, self.file)
        self.assertIsNone(self.file.content_encoding)

    def test_one_after_the_other_may_read(self):
        for data in (b"first", b"again"):
            consumer = _Consumer()
            reading = self.file.read_into(consumer, 0, 5)
            self.asked[-1].callback(data)
            self.successResultOf(reading)
            self.assertEqual(consumer.received, [data])

    def test_two_at_a_time_may_not(self):
        first = self.file.read_into(_Consumer(), 0, 5)
        self.failureResultOf(self.file.read_into(_Consumer(), 0, 5), BackendError)
        self.asked[0].callback(b"first")
        self.successResultOf(first)

    def test_it_is_closed_at_once_if_nobody_reads(self):
        self.successResultOf(self.file.release())
        self.successResultOf(self.file.release())
        self.assertEqual(self.closed, 1)
        self.failureResultOf(self.file.read_into(_Consumer(), 0, 5), BackendError)

    def test_it_is_not_closed_in_the_middle_of_a_read(self):
        """The number of its descriptor could be another file's by then."""
        consumer = _Consumer()
        reading = self.file.read_into(consumer, 0, 5)
        released = [self.file.release(), self.file.release()]
        for one in released:
            self.assertNoResult(one)
        self.assertEqual(self.closed, 0)
        self.asked[0].callback(b"first")
        self.failureResultOf(reading, BackendError)
        self.assertEqual(consumer.received, [])
        for one in released:
            self.successResultOf(one)
        self.assertEqual(self.closed, 1)

    def test_what_needs_no_closing_has_none(self):
        file = StoredFile(5, 1.0, "tag", by_pieces(self.read))
        self.successResultOf(file.release())
