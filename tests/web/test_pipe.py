"""
The pipe through which a worker moves bytes from one socket to another.
"""

from __future__ import annotations

import errno
import gc
import os
import socket
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txbits.web._relay import pipe as module
from txbits.web._relay.pipe import Pipe

MOST = 1 << 19


def pair(room: int | None = None) -> tuple[socket.socket, socket.socket]:
    """
    Two connected sockets that do not block.

    :param room: How much of what the first sends the system may keep.
    """
    both = socket.socketpair()
    for one in both:
        one.setblocking(False)
    if room is not None:
        both[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
    return both


def tcp() -> tuple[socket.socket, socket.socket]:
    """The same for TCP, as clients use it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        server, _ = listening.accept()
    for one in (client, server):
        one.setblocking(False)
    return client, server


def drained(sock: socket.socket) -> bytes:
    """All that has arrived."""
    found = []
    while True:
        try:
            data = sock.recv(1 << 16)
        except BlockingIOError:
            return b"".join(found)
        if not data:
            return b"".join(found)
        found.append(data)


class PipeTests(SynchronousTestCase):
    """``Pipe.move``."""

    def setUp(self) -> None:
        self.pipe = Pipe()
        self.client, self.source = self.kept(tcp())
        self.target, self.other = self.kept(pair())

    def kept(self, both: tuple[socket.socket, socket.socket]) -> Any:
        for one in both:
            self.addCleanup(one.close)
        return both

    def move(self, most: int = MOST) -> tuple[int, bytes] | None:
        return self.pipe.move(self.source.fileno(), self.target.fileno(), most)

    def send(self, data: bytes) -> None:
        self.assertEqual(self.client.send(data), len(data))

    def test_what_has_arrived_is_moved(self) -> None:
        self.send(b"abcdef")
        self.assertEqual(self.move(), (6, b""))
        self.assertEqual(drained(self.other), b"abcdef")

    def test_no_more_is_taken_than_it_may(self) -> None:
        self.send(b"abcdef")
        self.assertEqual(self.move(4), (4, b""))
        self.assertEqual(drained(self.other), b"abcd")
        self.assertEqual(drained(self.source), b"ef")

    def test_it_tells_if_nothing_has_arrived(self) -> None:
        self.assertRaises(BlockingIOError, self.move)

    def test_it_tells_the_end(self) -> None:
        self.send(b"abc")
        self.client.close()
        self.assertEqual(self.move(), (3, b""))
        self.assertEqual(self.move(), (0, b""))

    def test_it_tells_that_the_source_is_lost(self) -> None:
        linger = b"\1\0\0\0\0\0\0\0"
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.client.close()
        self.assertRaises(ConnectionResetError, self.move)

    def test_a_target_that_is_lost_takes_nothing(self) -> None:
        self.other.close()
        self.send(b"abcdef")
        self.assertEqual(self.move(), (6, b"abcdef"))
        # Those of the next one do not get them.
        target, other = self.kept(pair())
        self.send(b"ghi")
        moved = self.pipe.move(self.source.fileno(), target.fileno(), MOST)
        self.assertEqual(moved, (3, b""))
        self.assertEqual(drained(other), b"ghi")

    def test_what_a_full_target_does_not_take_comes_back(self) -> None:
        self.target, self.other = self.kept(pair(4096))
        data = os.urandom(100_000)
        self.send(data)
        count, rest = self.move() or (0, b"")
        self.assertTrue(0 < len(rest) < count)
        self.assertEqual(drained(self.other) + rest, data[:count])

    def test_nothing_is_taken_where_there_is_no_splice(self) -> None:
        self.patch(module, "os", _Without("splice"))
        self.pipe = Pipe()
        self.send(b"abc")
        self.assertIsNone(self.move())
        self.assertEqual(drained(self.source), b"abc")

    def test_nothing_is_taken_from_what_cannot_be_spliced(self) -> None:
        calls = []

        def splice(*args: Any, **more: Any) -> int:
            calls.append(args)
            raise OSError(errno.EINVAL, "it cannot")

        self.patch(os, "splice", splice)
        self.send(b"abc")
        self.assertIsNone(self.move())
        self.assertIsNone(self.move())
        self.assertEqual(len(calls), 1)
        self.assertEqual(drained(self.source), b"abc")

    def test_it_goes_on_when_there_are_descriptors_again(self) -> None:
        def pipe2(flags: int) -> tuple[int, int]:
            raise OSError(errno.EMFILE, "too many open files")

        patched = self.patch(os, "pipe2", pipe2)
        self.send(b"abc")
        self.assertIsNone(self.move())
        patched.restore()
        self.assertEqual(self.move(), (3, b""))

    def test_what_it_cannot_give_back_reaches_nobody(self) -> None:
        def fail(fd: int, count: int) -> bytes:
            raise MemoryError

        def block(fd: int, count: int) -> bytes:
            raise BlockingIOError(errno.EAGAIN, "it is empty")

        for read, error in (
            (fail, MemoryError),
            (lambda *_: b"x", OSError),
            (block, OSError),
        ):
            with self.subTest(read=read):
                gone, other = self.kept(pair())
                other.close()
                before = len(os.listdir("/proc/self/fd"))
                self.send(b"abcdef")
                patched = self.patch(os, "read", read)
                arguments = self.source.fileno(), gone.fileno(), MOST
                raised = self.assertRaises(error, self.pipe.move, *arguments)
                # That would say that nothing was taken.
                self.assertNotIsInstance(raised, BlockingIOError)
                patched.restore()
                self.assertLessEqual(len(os.listdir("/proc/self/fd")), before)
                self.send(b"ghi")
                self.assertEqual(self.move(), (3, b""))
                self.assertEqual(drained(self.other), b"ghi")

    def test_what_a_target_takes_nothing_of_comes_back(self) -> None:
        splice = os.splice
        sources = []

        def take_nothing(source: int, *args: Any, **more: Any) -> int:
            sources.append(source)
            return splice(source, *args, **more) if len(sources) == 1 else 0

        self.patch(os, "splice", take_nothing)
        self.send(b"abc")
        self.assertEqual(self.move(), (3, b"abc"))
        self.assertEqual(len(sources), 2)
        self.assertEqual(drained(self.other), b"")

    def test_urgent_data_is_left_to_whoever_reads(self) -> None:
        self.send(b"abc")
        self.assertEqual(self.client.send(b"!", socket.MSG_OOB), 1)
        self.send(b"def")
        self.assertEqual(self.move(), (3, b""))
        self.assertRaises(BlockingIOError, self.move)
        self.assertEqual(drained(self.source), b"def")
        self.send(b"ghi")
        self.assertEqual(self.move(), (3, b""))
        self.assertEqual(drained(self.other), b"abcghi")

    def test_it_may_be_smaller_than_wanted(self) -> None:
        self.patch(module, "_ROOM", 1 << 40)
        self.send(b"abc")
        self.assertEqual(self.move(), (3, b""))

    def test_its_descriptors_end_with_it(self) -> None:
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        self.send(b"abc")
        self.move()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before + 2)
        self.assertFalse(any(map(os.get_inheritable, self.pipe._ends or ())))
        del self.pipe
        gc.collect()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


class _Without:
    """The module ``os`` without a function."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            raise AttributeError(name)
        return getattr(os, name)


class OrderTests(SynchronousTestCase):
    """Whatever arrives, and whatever room there is, no byte is lost or out of place."""

    @given(
        steps=st.lists(
            st.tuples(st.integers(0, 150_000), st.integers(1, 200_000), st.booleans()),
            max_size=12,
        ),
        room=st.sampled_from([4096, 1 << 16, 1 << 20]),
    )
    def test_all_bytes_arrive_in_order(
        self, steps: list[tuple[int, int, bool]], room: int
    ) -> None:
        client, source = tcp()
        target, other = pair(room)
        pipe = Pipe()
        sent, arrived, waiting = bytearray(), bytearray(), b""
        for size, most, is_read in steps:
            data = os.urandom(size)
            with_room = client.send(data) if data else 0
            sent += data[:with_room]
            if is_read:
                arrived += drained(other)
            if waiting:
                # As a relay connection does, which moves nothing meanwhile.
                try:
                    waiting = waiting[target.send(waiting) :]
                except BlockingIOError:
                    continue
            if not waiting:
                try:
                    moved = pipe.move(source.fileno(), target.fileno(), most)
                except BlockingIOError:
                    continue
                assert moved is not None
                count, waiting = moved
                assert len(waiting) <= count <= most
        arrived += drained(other)
        arrived += waiting
        arrived += drained(source)
        # What the client has sent last may still be on its way.
        client.close()
        source.setblocking(True)
        while data := source.recv(1 << 16):
            arrived += data
        self.assertEqual(bytes(arrived), bytes(sent))
        for one in (source, target, other):
            one.close()
