"""
Writing behind: when the kernel is told to write a long file while it arrives.
"""

from __future__ import annotations

import errno

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import capturedLogs

from tests.backends.disk.mortal import DiskCase, MortalFiles
from txbits.backends.disk._write_behind import PIECE

_CHUNK = bytes(1 << 20)
_CHUNKS = PIECE // len(_CHUNK)


class NotingFiles(MortalFiles):
    """Notes which parts of files the kernel is told to write."""

    def __init__(self):
        super().__init__()
        self.parts = []

    def begin_writing(self, fd, first, length):
        self.parts.append((first, length))
        self.__getattr__("begin_writing")(fd, first, length)


class HeldThreads:
    """
    Threads that call nothing before they are let go.

    :ivar held: What is called then.
    """

    def __init__(self):
        self.is_holding = False
        self.held = []

    def __call__(self, function, *args):
        if not self.is_holding:
            return maybeDeferred(function, *args)
        done = Deferred()
        self.held.append((function, args, done))
        return done

    def let_go(self):
        """Call what is held."""
        held, self.held = self.held, []
        for function, args, done in held:
            maybeDeferred(function, *args).chainDeferred(done)


class WriteBehindTests(DiskCase):
    """A long file arrives in pieces of a mebibyte."""

    make_files = NotingFiles

    def setUp(self):
        self.in_thread = HeldThreads()

    def writer(self, backend, total=1 << 30):
        return self.successResultOf(self.create(backend).open_writer(total))

    def write(self, writer, chunks):
        for _ in range(chunks):
            self.successResultOf(writer.write(_CHUNK))

    def test_a_long_file_is_written_a_piece_at_a_time(self):
        backend = self.start()
        writer = self.writer(backend)
        self.write(writer, 2 * _CHUNKS + 3)
        self.assertEqual(backend._files.parts, [(0, PIECE), (PIECE, PIECE)])
        self.successResultOf(writer.close())

    def test_the_next_fragment_goes_on_with_the_piece(self):
        backend = self.start()
        session = self.create(backend)
        for chunks in (_CHUNKS + 1, _CHUNKS - 3, *[1] * (_CHUNKS + 3)):
            writer = self.successResultOf(session.open_writer(1 << 30))
            self.write(writer, chunks)
            self.successResultOf(writer.close())
        self.assertEqual(
            backend._files.parts, [(0, PIECE), (PIECE, PIECE), (2 * PIECE, PIECE)]
        )

    def test_a_short_file_is_not(self):
        backend = self.start()
        writer = self.writer(backend)
        self.write(writer, _CHUNKS - 1)
        self.successResultOf(writer.close())
        self.assertEqual(backend._files.parts, [])

    def test_nothing_is_written_behind_where_nothing_is_synced(self):
        self.fsync = "never"
        backend = self.start()
        self.write(self.writer(backend), _CHUNKS)
        self.assertEqual(backend._files.parts, [])

    def test_an_upload_does_not_wait_for_the_disk(self):
        backend = self.start()
        writers = [self.writer(backend) for _ in range(3)]
        self.in_thread.is_holding = True
        for writer in writers:
            self.write(writer, 2 * _CHUNKS)
        # Two calls are under way; everything else waits for the next opportunity.
        self.assertEqual(len(self.in_thread.held), 2)
        self.in_thread.let_go()
        self.assertEqual(backend._files.parts, [(0, PIECE)] * 2)
        self.write(writers[2], 1)
        self.in_thread.let_go()
        self.assertEqual(backend._files.parts[2:], [(0, 2 * PIECE)])
        self.in_thread.is_holding = False

    def test_the_writer_may_be_closed_meanwhile(self):
        backend = self.start()
        writer = self.writer(backend)
        self.in_thread.is_holding = True
        self.write(writer, _CHUNKS)
        self.in_thread.is_holding = False
        self.successResultOf(writer.close())
        opened = set(backend._files._open)
        self.in_thread.let_go()
        self.assertEqual(backend._files.parts, [(0, PIECE)])
        self.assertEqual(backend._files._open, opened)

    def test_a_file_system_without_it_stores_the_file_all_the_same(self):
        backend = self.start()
        writer = self.writer(backend, 3 * PIECE)
        backend._files.fail("begin_writing", errno.ENOSYS)
        with capturedLogs() as events:
            self.write(writer, 3 * _CHUNKS)
        self.assertEqual(backend._files.parts, [(0, PIECE)])
        lines = [one for one in events if "long uploads" in one["log_format"]]
        self.assertEqual(len(lines), 1)
        self.successResultOf(writer.close())

    def test_without_a_descriptor_left_the_file_is_stored_all_the_same(self):
        backend = self.start()
        writer = self.writer(backend)
        backend._files.fail("dup", errno.EMFILE)
        self.write(writer, _CHUNKS)
        self.assertEqual(backend._files.parts, [])
        self.write(writer, 1)
        self.assertEqual(backend._files.parts, [(0, PIECE)])
        self.successResultOf(writer.close())
