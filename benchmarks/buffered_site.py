"""
The simplest server for BITS uploads with ``twisted.web``, which buffers the body.

It supports only what the benchmarks need of the protocol, and chooses speed over
safety: it keeps sessions in a dictionary, does not fsync, and writes no access log. It
keeps a small upload in memory until Close, and then writes it to its destination, where
readers can see part of it.

Run as ``python -m benchmarks.buffered_site PORT DIRECTORY``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import uuid
from pathlib import Path

from attrs import define
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

_PROTOCOL = b"{7df0354d-249b-430f-820d-3d2a9bef4931}"
_RANGE = re.compile(rb"bytes (\d+)-(\d+)/(\d+)")
_KEPT_IN_MEMORY = 64 * 1024
_COPY_SIZE = 1024 * 1024


@define
class _Session:
    path: Path
    offset: int = 0
    held: bytes = b""


class BufferedUploads(Resource):
    """
    Takes Create-Session, Fragment and Close-Session.

    :param directory: Where the files go.
    """

    isLeaf = True

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self._sessions: dict[bytes, _Session] = {}

    def render_BITS_POST(self, request: Request) -> bytes:
        """Answer a packet."""
        request.setHeader(b"BITS-Packet-Type", b"Ack")
        packet_type = request.getHeader(b"BITS-Packet-Type").lower()
        if packet_type == b"create-session":
            return self._create(request)
        session_id = request.getHeader(b"BITS-Session-Id")
        session = self._sessions.get(session_id)
        if session is None:
            request.setResponseCode(500)
            return b""
        request.setHeader(b"BITS-Session-Id", session_id)
        if packet_type == b"fragment":
            return self._fragment(request, session)
        del self._sessions[session_id]
        if session.held:
            session.path.write_bytes(session.held)
        return b""

    def _create(self, request: Request) -> bytes:
        name = request.path.decode("ascii").lstrip("/")
        if ".." in name:
            request.setResponseCode(403)
            return b""
        session_id = b"{%s}" % str(uuid.uuid4()).upper().encode("ascii")
        self._sessions[session_id] = _Session(self._directory / name)
        request.setHeader(b"BITS-Session-Id", session_id)
        request.setHeader(b"BITS-Protocol", _PROTOCOL)
        request.setHeader(b"Accept-Encoding", b"identity")
        return b""

    def _fragment(self, request: Request, session: _Session) -> bytes:
        match = _RANGE.fullmatch(request.getHeader(b"Content-Range"))
        if match is None:
            request.setResponseCode(400)
            return b""
        start, end, total = map(int, match.groups())
        if start != session.offset:
            request.setResponseCode(416)
        elif total <= _KEPT_IN_MEMORY:
            session.held += request.content.read()
            session.offset = end + 1
        else:
            with session.path.open("ab", buffering=0) as file:
                shutil.copyfileobj(request.content, file, _COPY_SIZE)
            session.offset = end + 1
        request.setHeader(b"BITS-Received-Content-Range", b"%d" % session.offset)
        return b""


class _QuietSite(Site):
    def log(self, request: Request) -> None:
        """Write no access log."""


def main() -> None:
    """Read the command line, and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    # Buffer bodies on the file system of their destination.
    os.environ["TMPDIR"] = str(options.directory)
    reactor.listenTCP(
        options.port,
        _QuietSite(BufferedUploads(options.directory)),
        interface="127.0.0.1",
    )
    reactor.run()


if __name__ == "__main__":
    main()
