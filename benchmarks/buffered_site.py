"""
The simplest server for BITS uploads with ``twisted.web``, which buffers the body.

It supports only what the benchmarks need of the protocol, and chooses speed over
safety: it keeps sessions in a dictionary, does not fsync, and writes no access log. It
keeps a small upload in memory until Close, and then writes it to its destination, where
readers can see part of it.

With ``--durable``, it also makes the system calls without which sessions and their
bytes would not outlive the process (``kill``), or the system as well (``crash``). The
difference is what durable sessions cost at least. It still reads nothing back, limits
nothing, and replaces no file.

Run as ``python -m benchmarks.buffered_site PORT DIRECTORY``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import uuid
from pathlib import Path

from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from txbits.backends.disk._syncs import KernelSyncs, SharedSync, gather_for

_PROTOCOL = b"{7df0354d-249b-430f-820d-3d2a9bef4931}"
_RANGE = re.compile(rb"bytes (\d+)-(\d+)/(\d+)")
_KEPT_IN_MEMORY = 64 * 1024
_COPY_SIZE = 1024 * 1024
_LINE = 512


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

    def render_BITS_POST(self, request: Request) -> bytes | int:
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
        return self._close(request, session)

    def _create(self, request: Request) -> bytes:
        name = request.path.decode("ascii").lstrip("/")
        if ".." in name:
            request.setResponseCode(403)
            return b""
        session_id = b"{%s}" % str(uuid.uuid4()).upper().encode("ascii")
        self._sessions[session_id] = self._new_session(session_id, name)
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
        else:
            self._store(request, session, total)
            session.offset = end + 1
        request.setHeader(b"BITS-Received-Content-Range", b"%d" % session.offset)
        return b""

    def _new_session(self, session_id: bytes, name: str) -> _Session:
        return _Session(self._directory / name)

    def _store(self, request: Request, session: _Session, total: int) -> None:
        if total <= _KEPT_IN_MEMORY:
            session.held += request.content.read()
        else:
            with session.path.open("ab", buffering=0) as file:
                shutil.copyfileobj(request.content, file, _COPY_SIZE)

    def _close(self, request: Request, session: _Session) -> bytes | int:
        if session.held:
            session.path.write_bytes(session.held)
        return b""


@define
class _DurableSession(_Session):
    session_id: bytes = b""
    line: int = 0
    stored: Deferred[object] = field(factory=lambda: succeed(None))


class DurableUploads(BufferedUploads):
    """
    The same, but a session has a line in a table, and a staged file that Close links to
    its destination.

    :param syncs: Whether to sync what has to survive a crash of the system.
    """

    def __init__(self, directory: Path, *, syncs: bool) -> None:
        super().__init__(directory)
        staging = directory / ".staging"
        staging.mkdir()
        self._root = os.open(directory, os.O_RDONLY)
        self._staging = os.open(staging, os.O_RDONLY)
        self._table = os.open(staging / "table", os.O_RDWR | os.O_CREAT)
        self._lines = 0
        self._free: list[int] = []
        self._syncs = syncs
        if syncs:
            # As txbits has them: shared, and at best done by the kernel.
            self._sync = KernelSyncs.opened(reactor, _sync_in_thread) or _sync_in_thread
            gather = gather_for(self._sync)
            self._sync_table = SharedSync(self._sync, self._table, gather)
            self._sync_names = SharedSync(self._sync, self._root, gather)

    def _write(self, session: _DurableSession, phase: bytes, total: int = 0) -> None:
        line = b"%-10b %19d %b %b" % (
            *(phase, total, session.session_id),
            os.fsencode(session.path.name),
        )
        os.pwrite(self._table, line.ljust(_LINE), session.line * _LINE)

    def _new_session(self, session_id: bytes, name: str) -> _DurableSession:
        session = _DurableSession(self._directory / name, session_id=session_id)
        if self._free:
            session.line = self._free.pop()
        else:
            session.line, self._lines = self._lines, self._lines + 1
        self._write(session, b"open")
        return session

    def _store(self, request: Request, session: _DurableSession, total: int) -> None:
        staged = os.open(
            session.session_id, os.O_WRONLY | os.O_CREAT, 0o666, dir_fd=self._staging
        )
        if not session.offset:
            self._write(session, b"open", total)
        os.pwrite(staged, request.content.read(), session.offset)
        if self._syncs:
            session.stored = self._sync(staged)
            session.stored.addCallback(lambda _: os.close(staged))
        else:
            os.close(staged)

    def _close(self, request: Request, session: _DurableSession) -> bytes | int:
        if not self._syncs:
            self._publish(session)
            self._release(session)
            return b""
        closed = session.stored
        closed.addCallback(lambda _: self._publish(session))
        closed.addCallback(
            lambda _: gatherResults([self._sync_names(), self._sync_table()])
        )
        closed.addCallback(lambda _: self._release(session))
        closed.addCallback(lambda _: request.finish())
        closed.addErrback(request.processingFailed)
        return NOT_DONE_YET

    def _publish(self, session: _DurableSession) -> None:
        os.link(
            session.session_id,
            session.path.name,
            src_dir_fd=self._staging,
            dst_dir_fd=self._root,
        )
        self._write(session, b"published", session.offset)

    def _release(self, session: _DurableSession) -> None:
        os.unlink(session.session_id, dir_fd=self._staging)
        self._write(session, b"free")
        self._free.append(session.line)


def _sync_in_thread(fd: int) -> Deferred[None]:
    return deferToThread(os.fsync, fd)


class _QuietSite(Site):
    def log(self, request: Request) -> None:
        """Write no access log."""


def main() -> None:
    """Read the command line, and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--durable", choices=("kill", "crash"))
    options = parser.parse_args()
    uploads = BufferedUploads(options.directory)
    if options.durable is not None:
        uploads = DurableUploads(options.directory, syncs=options.durable == "crash")
    # Buffer bodies on the file system of their destination.
    os.environ["TMPDIR"] = str(options.directory)
    reactor.listenTCP(
        options.port,
        _QuietSite(uploads),
        interface="127.0.0.1",
    )
    reactor.run()


if __name__ == "__main__":
    main()
