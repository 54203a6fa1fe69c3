"""
The clients, with as little Python as possible between the sockets and the figures.

Large uploads use one thread for each connection, most of the time in ``sendall`` of
10 MiB, which does not need the interpreter. Small uploads are generators: they yield a
request and receive the head of its response. One epoll loop runs all of them. Both
kinds run in the measuring process, not in that of the server.
"""

from __future__ import annotations

import os
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from attrs import frozen

_SESSION_ID = re.compile(rb"\r\nBITS-Session-Id:[ \t]*(\{[^}\r\n]+\})", re.IGNORECASE)
_SLOWEST_ANSWER = 60.0
_SPREAD = 4096


class LoadFailed(Exception):
    """A server answered without success, or not in time."""


# Requests


@frozen
class Packets:
    """
    Writes the packets of uploads to one server, as the Windows client does.

    :ivar host: What the ``Host`` header says.
    :ivar more: Other headers, each with its line end.
    """

    host: bytes
    more: bytes = b""

    @classmethod
    def for_port(cls, port: int, more: bytes = b"") -> Packets:
        """Those for a server on 127.0.0.1."""
        return cls(b"127.0.0.1:%d" % port, more)

    def create(self, name: bytes) -> bytes:
        """Create-Session, for the destination ``/name``."""
        return (
            b"BITS_POST /%b HTTP/1.1\r\nAccept: */*\r\n"
            b"BITS-Packet-Type: Create-Session\r\n"
            b"BITS-Supported-Protocols: {7df0354d-249b-430f-820d-3d2a9bef4931}\r\n"
            b"Content-Name: %b\r\nUser-Agent: Microsoft BITS/7.8\r\nHost: %b\r\n"
            b"%bContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n"
        ) % (name, name, self.host, self.more)

    def fragment(
        self, name: bytes, session_id: bytes, start: int, length: int, total: int
    ) -> bytes:
        """The head of a Fragment."""
        return (
            b"BITS_POST /%b HTTP/1.1\r\nAccept: */*\r\n"
            b"BITS-Packet-Type: Fragment\r\nBITS-Session-Id: %b\r\n"
            b"Content-Name: %b\r\nContent-Range: bytes %d-%d/%d\r\n"
            b"User-Agent: Microsoft BITS/7.8\r\nHost: %b\r\n%bContent-Length: %d\r\n"
            b"Connection: Keep-Alive\r\n\r\n"
        ) % (
            *(name, session_id, name),
            *(start, start + length - 1, total),
            *(self.host, self.more, length),
        )

    def close(self, name: bytes, session_id: bytes) -> bytes:
        """Close-Session."""
        return (
            b"BITS_POST /%b HTTP/1.1\r\nAccept: */*\r\n"
            b"BITS-Packet-Type: Close-Session\r\nBITS-Session-Id: %b\r\n"
            b"User-Agent: Microsoft BITS/7.8\r\nHost: %b\r\n"
            b"%bContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n"
        ) % (name, session_id, self.host, self.more)

    def put(self, name: bytes, length: int) -> bytes:
        """The head of a PUT."""
        return b"PUT /%b HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n" % (
            *(name, self.host),
            length,
        )


def session_id_in(head: bytes) -> bytes:
    """The session id that an Ack names."""
    match = _SESSION_ID.search(head)
    if match is None:
        raise LoadFailed(f"no session id: {head!r}")
    return match[1]


def _require_success(head: bytes) -> None:
    if not head.startswith(b"HTTP/1.1 20"):
        raise LoadFailed(f"the server answered {head!r}")


# Large uploads


class Payload:
    """
    The uploaded data: different pieces of one random buffer.

    :param size: The length of a piece in bytes; the last of a file may be shorter.
    :param buffer: The buffer, if another process is to have the same pieces.
    """

    def __init__(self, size: int, buffer: bytes | None = None) -> None:
        self._size = size
        self._bytes = memoryview(buffer or os.urandom(size + 512 * _SPREAD))

    @property
    def buffer(self) -> memoryview:
        """The buffer that all pieces are cut from."""
        return self._bytes

    def pieces(self, connection: int, total: int) -> Iterator[memoryview]:
        """The pieces of the file of *total* bytes that a connection sends."""
        for number, start in enumerate(range(0, total, self._size)):
            begin = (connection * 31 + number) % 512 * _SPREAD
            yield self._bytes[begin : begin + min(self._size, total - start)]


class Upload(Protocol):
    """One file on its way over one connection."""

    def open(self) -> None:
        """Do what comes before the bytes."""

    def send(self) -> None:
        """Send all bytes, a request after the other."""

    def close(self) -> None:
        """Run the steps after the bytes."""

    def end(self) -> None:
        """Hang up."""

    def verify(self, files: Path) -> None:
        """
        Compare what has arrived.

        :raises LoadFailed: If it is not what was sent.
        """


class _Exchange:
    def __init__(
        self,
        port: int,
        context: ssl.SSLContext | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        self._sock = socket.create_connection((address, port), _SLOWEST_ANSWER)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._more = socket.MSG_MORE
        if context is not None:
            self._sock = context.wrap_socket(self._sock, server_hostname="127.0.0.1")
            self._more = 0

    def request(self, head: bytes, body: memoryview | None = None) -> bytes:
        if body is None:
            self._sock.sendall(head)
        else:
            self._sock.sendall(head, self._more)
            self._sock.sendall(body)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            data = self._sock.recv(4096)
            if not data:
                raise LoadFailed(f"the server hung up after {answer!r}")
            answer += data
        _require_success(answer)
        return answer

    def end(self) -> None:
        """Hang up."""
        self._sock.close()


class BITSUpload(_Exchange):
    """A session: the whole file, in fragments."""

    def __init__(
        self,
        port: int,
        number: int,
        payload: Payload,
        total: int,
        context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(port, context)
        self._port, self._context = port, context
        self._packets = Packets.for_port(port)
        self._name = b"upload%d" % number
        self._pieces = list(payload.pieces(number, total))
        self._total = total
        self._session_id = b""

    def open(self) -> None:
        """Create the session."""
        self._session_id = session_id_in(self.request(self._packets.create(self._name)))

    def send(self) -> None:
        """Send the fragments."""
        start = 0
        for piece in self._pieces:
            head = self._packets.fragment(
                self._name, self._session_id, start, len(piece), self._total
            )
            self.request(head, piece)
            start += len(piece)

    def close(self) -> None:
        """Close the session."""
        self.request(self._packets.close(self._name, self._session_id))

    def verify(self, files: Path) -> None:
        """Compare the file."""
        _compare(files / self._name.decode("ascii"), self._pieces)


class RelayedUpload(BITSUpload):
    """
    A session whose fragments reach another worker than the one that has it.

    The worker that has the session listens on 127.0.0.1, the other on 127.0.0.2.
    """

    def open(self) -> None:
        """Create the session, and connect to the other worker."""
        super().open()
        self.end()
        _Exchange.__init__(self, self._port, self._context, "127.0.0.2")


class PutUpload(_Exchange):
    """The same pieces, each PUT to a separate file."""

    def __init__(
        self,
        port: int,
        number: int,
        payload: Payload,
        total: int,
        context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(port, context)
        self._packets = Packets.for_port(port)
        pieces = payload.pieces(number, total)
        self._files = {
            b"upload%d.%d" % (number, at): piece for at, piece in enumerate(pieces)
        }

    def open(self) -> None:
        """Nothing comes before the bytes."""

    def send(self) -> None:
        """Send the PUTs."""
        for name, piece in self._files.items():
            self.request(self._packets.put(name, len(piece)), piece)

    def close(self) -> None:
        """Do nothing: there are no further steps."""

    def verify(self, files: Path) -> None:
        """Compare the files."""
        for name, piece in self._files.items():
            _compare(files / name.decode("ascii"), [piece])


def _compare(path: Path, pieces: list[memoryview]) -> None:
    with path.open("rb", buffering=0) as file:
        for piece in pieces:
            if file.read(len(piece)) != piece:
                raise LoadFailed(f"{path.name} is not what was sent")
        if file.read(1):
            raise LoadFailed(f"{path.name} is too long")


def transfer(uploads: Sequence[Upload], moment: Callable[[], None]) -> None:
    """
    Run uploads side by side.

    :param uploads: One a connection, connected already.
    :param moment: Called three times, while nothing moves: before the first request,
        when all bytes are acknowledged, and when all uploads are closed.
    """
    faults: list[Exception] = []
    barrier = threading.Barrier(len(uploads), moment, _SLOWEST_ANSWER)

    def run(upload: Upload) -> None:
        try:
            barrier.wait()
            upload.open()
            upload.send()
            barrier.wait()
            upload.close()
            barrier.wait()
        except threading.BrokenBarrierError:
            return
        except (LoadFailed, OSError) as fault:
            faults.append(fault)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(upload,)) for upload in uploads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for upload in uploads:
        upload.end()
    if faults:
        raise LoadFailed(str(faults[0])) from faults[0]
    if barrier.broken:
        raise LoadFailed("the transfer did not end in time")


# Small uploads

Script = Generator[bytes, bytes, None]


def small_uploads(
    packets: Packets,
    names: Iterator[bytes],
    body: bytes,
    times: list[tuple[float, float]],
) -> Script:
    """
    Upload small files one after the other on one connection.

    :param packets: Writes the requests.
    :param names: The names of the files; may be shared with other connections.
    :param body: The content of each.
    :param times: Where to put when each session began and ended, in seconds.
    """
    length = len(body)
    for name in names:
        start = time.perf_counter()
        session_id = session_id_in((yield packets.create(name)))
        yield packets.fragment(name, session_id, 0, length, length) + body
        yield packets.close(name, session_id)
        times.append((start, time.perf_counter()))


def half_upload(packets: Packets, name: bytes, body: bytes) -> Script:
    """Create a session and send the first half of its file."""
    length = len(body)
    session_id = session_id_in((yield packets.create(name)))
    yield packets.fragment(name, session_id, 0, length, 2 * length) + body


def half_uploads(packets: Packets, names: Iterator[bytes], body: bytes) -> Script:
    """Open sessions as :func:`half_upload` does, one after the other."""
    for name in names:
        yield from half_upload(packets, name, body)


def drive(
    port: int,
    scripts: Iterable[Script],
    *,
    concurrency: int,
    deadline: float,
    source: Callable[[int], str] = lambda number: "127.0.0.1",
    other_port: int | None = None,
) -> list[socket.socket]:
    """
    Run scripts, each on a separate keep-alive connection.

    :param port: The server's port on 127.0.0.1.
    :param scripts: What to send; another is begun when one has ended.
    :param concurrency: How many run at the same time.
    :param deadline: The longest that all of it may take, in seconds.
    :param source: The address to connect from, by the script's number.
    :param other_port: That of a second server, which every other connection goes to.
    :returns: The connections, all still open.
    """
    waiting = enumerate(scripts)
    connections: list[socket.socket] = []
    active: dict[int, tuple[socket.socket, Script]] = {}
    end = time.monotonic() + deadline
    ports = (port, port if other_port is None else other_port)
    with select.epoll() as epoll:

        def begin() -> None:
            for number, script in waiting:
                sock = socket.create_connection(
                    ("127.0.0.1", ports[number % 2]),
                    _SLOWEST_ANSWER,
                    (source(number), 0),
                )
                connections.append(sock)
                try:
                    request = next(script)
                except StopIteration:
                    continue
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setblocking(False)
                sock.send(request)
                active[sock.fileno()] = sock, script
                epoll.register(sock, select.EPOLLIN)
                return

        try:
            for _ in range(concurrency):
                begin()
            while active:
                events = epoll.poll(max(0.0, end - time.monotonic()))
                if not events:
                    raise LoadFailed(f"not done in {deadline:.0f} seconds")
                for number, _ in events:
                    sock, script = active[number]
                    answer = sock.recv(4096)
                    while not answer.endswith(b"\r\n\r\n"):
                        answer += _rest(sock)
                    _require_success(answer)
                    try:
                        sock.send(script.send(answer))
                    except StopIteration:
                        epoll.unregister(number)
                        del active[number]
                        begin()
        except BaseException:
            close_all(connections)
            raise
    return connections


def _rest(sock: socket.socket) -> bytes:
    """Wait for more of an answer that came in pieces, which is rare."""
    if not select.select([sock], [], [], _SLOWEST_ANSWER)[0]:
        raise LoadFailed("an answer stopped half way")
    data = sock.recv(4096)
    if not data:
        raise LoadFailed("the server hung up instead of answering")
    return data


def close_all(connections: list[socket.socket]) -> None:
    """Close connections."""
    for sock in connections:
        sock.close()
