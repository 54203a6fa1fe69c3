"""
Count the calls from one file to another for a Fragment: ``python -m benchmarks.hops``.

The first Fragment of a session is followed from the first byte of the request to the
last of the Ack, in memory, over the disk backend. A reader who follows the packet opens
another file as often. With ``--list``, all of them are printed in order.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from types import FrameType
from typing import Any
from uuid import UUID

from twisted.internet.defer import maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.web.resource import Resource

import txbits
from txbits.backends.disk import DiskBackend
from txbits.protocol.codec import ContentRange, encode_request
from txbits.protocol.packets import CreateSession, Fragment
from txbits.testing.memory import Peer
from txbits.web import BITSResource, BITSSite

#: Bytes in the Fragment, and the pieces that it comes in.
LENGTH = 64 * 1024
PIECES = 4

_HERE = os.path.dirname(txbits.__file__) + os.sep


def trail(act: Callable[[], None]) -> list[tuple[str, str]]:
    """
    Note each call from one file of ``txbits`` into another.

    What is called from outside, such as by Twisted, counts as called from the file that
    ran before.

    :returns: The caller's path within the package, and the path of what it calls.
    """
    passed: list[tuple[str, str]] = []
    running = ""

    def note(frame: FrameType, event: str, _: Any) -> None:
        nonlocal running
        if event == "return" and frame.f_back is not None:
            frame = frame.f_back
        elif event != "call":
            return
        name = frame.f_code.co_filename
        if not name.startswith(_HERE):
            return
        name = name[len(_HERE) :]
        if event == "call" and running != name:
            passed.append((running, name))
        running = name

    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(None)
    return passed


class Upload:
    """One upload to a site over the disk backend, whose packets can be followed."""

    def __init__(self, folder: str) -> None:
        clock = Clock()
        self._backend = DiskBackend(
            folder, clock, in_thread=maybeDeferred, sync=lambda _: succeed(None)
        )
        resource = BITSResource(self._backend, reactor=clock)
        root = Resource()
        root.putChild(b"uploads", resource)
        self._peer = Peer(BITSSite(root, reactor=clock))
        self._started = resource.manager.start()
        self._session_id: UUID | None = None
        self.send(CreateSession())

    def send(self, packet: Any, *pieces: bytes) -> list[tuple[str, str]]:
        """
        Send a packet whose body comes in pieces, and insist on its success.

        :returns: The calls, as of :func:`trail`.
        """
        head = b"BITS_POST /uploads/name.bin HTTP/1.1\r\nHost: example\r\n"
        for name, value in encode_request(packet):
            head += b"%s: %s\r\n" % (name, value)
        head += b"Content-Length: %d\r\n\r\n" % sum(map(len, pieces))

        def arrive() -> None:
            for piece in (head, *pieces):
                self._peer.send(piece)

        calls = trail(arrive)
        answer = self._peer.received()
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"a packet was refused: {answer!r}")
        for line in answer.split(b"\r\n"):
            if line.lower().startswith(b"bits-session-id: "):
                self._session_id = UUID(line.partition(b" ")[2].decode("ascii"))
        return calls

    def fragment(self) -> list[tuple[str, str]]:
        """Send the whole file as one Fragment, and note the calls."""
        assert self._session_id is not None
        content_range = ContentRange(0, LENGTH - 1, LENGTH)
        packet = Fragment(self._session_id, content_range, LENGTH)
        return self.send(packet, *[b"x" * (LENGTH // PIECES)] * PIECES)


def hops() -> list[tuple[str, str]]:
    """
    Tell the calls of a session's first Fragment, with warm caches.

    :returns: As of :func:`trail`.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in ("cold", "warm"):
            calls = Upload(os.path.join(folder, name)).fragment()
    return calls


def main() -> None:
    """Print the figures."""
    calls = hops()
    if "--list" in sys.argv:
        for caller, called in calls:
            print(f"{caller} -> {called}")
    files = {name for pair in calls for name in pair}
    print(f"a Fragment: {len(calls)} calls into another file, {len(files)} files")


if __name__ == "__main__":
    main()
