"""
Count how often the way of a Fragment changes from one source file to another.

A new session on disk receives its first Fragment, with a body in four pieces. Each call
of a function of txbits is a step, and a step into another file than the last one is a
hop. A reader who follows a Fragment through the source changes files as often.

This uses neither sockets nor threads, so the count is the same in every run.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

from attrs import frozen
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed

import txbits
from txbits.backends.disk import DiskBackend
from txbits.testing.memory import Peer
from txbits.web import BITSResource, BITSSite

#: The size in bytes of each of the four pieces.
PIECE = 256

_PACKAGE = str(Path(txbits.__file__).parent) + "/"


@frozen
class Step:
    """
    A call of a function.

    :ivar file: Its file, below ``txbits/``.
    :ivar function: Its name, with that of its class.
    """

    file: str
    function: str


def hops(steps: list[Step]) -> int:
    """Count the steps into another file than the last one; the first is such a step."""
    return sum(1 for _ in groupby(steps, lambda step: step.file))


def first_fragment() -> list[Step]:
    """Serve the first Fragment of a session, and return all steps of its way."""
    with tempfile.TemporaryDirectory() as directory:
        backend = DiskBackend(directory, reactor, in_thread=_here, sync=_never)
        resource = BITSResource(backend)
        _outcome(resource.manager.start())
        peer = Peer(BITSSite(resource, reactor=reactor))
        peer.send(_request(b"Create-Session", b"Content-Length: 0"))
        session_id = _answered(peer, b"bits-session-id")
        head = _request(
            b"Fragment",
            b"BITS-Session-Id: " + session_id,
            b"Content-Range: bytes 0-%d/%d" % (4 * PIECE - 1, 8 * PIECE),
            b"Content-Length: %d" % (4 * PIECE),
        )
        steps = _steps(
            lambda: [peer.send(data) for data in [head, *[bytes(PIECE)] * 4]]
        )
        _answered(peer, b"bits-received-content-range")
        _outcome(resource.manager.stop())
    return steps


def _here(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
    return succeed(function(*args))


def _never(fd: int) -> Deferred[None]:
    return succeed(None)


def _outcome(work: Deferred[None]) -> None:
    """Raise an exception unless *work* has finished and succeeded."""
    outcomes: list[Any] = []
    work.addBoth(outcomes.append)
    if outcomes != [None]:
        raise RuntimeError(f"not done: {outcomes}")


def _request(packet: bytes, *headers: bytes) -> bytes:
    lines = [
        b"BITS_POST /file HTTP/1.1",
        b"Host: localhost",
        b"BITS-Packet-Type: " + packet,
        b"BITS-Supported-Protocols: {7df0354d-249b-430f-820d-3d2a9bef4931}",
        *headers,
    ]
    return b"\r\n".join([*lines, b"", b""])


def _answered(peer: Peer, name: bytes) -> bytes:
    """Return the value of a header of the response, whose status must be 200."""
    head = peer.received()
    for line in head.splitlines():
        found, _, value = line.partition(b":")
        if found.lower() == name and head.startswith(b"HTTP/1.1 200 "):
            return value.strip()
    raise RuntimeError(f"no {name!r} in {head!r}")


def _steps(act: Callable[[], object]) -> list[Step]:
    """Call *act*, and return the calls of functions of txbits in the meantime."""
    steps = []

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        file = code.co_filename.removeprefix(_PACKAGE)
        is_ours = file != code.co_filename
        # The peer in memory takes the place of a client.
        if event == "call" and is_ours and not file.startswith("testing/"):
            steps.append(Step(file, code.co_qualname))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(before)
    return steps


def show() -> None:
    """Print the way, one line for each hop, and the count."""
    way = first_fragment()
    for number, (file, group) in enumerate(groupby(way, lambda step: step.file), 1):
        print(f"{number:4} {file}: {', '.join(step.function for step in group)}")
    files = len({step.file for step in way})
    print(f"{len(way)} calls in {files} files, {hops(way)} hops")


if __name__ == "__main__":
    show()
