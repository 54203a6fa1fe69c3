"""
The minimal server in Python: receive from a socket, and write to a file.

It reads the head of an HTTP request without checking its ``Content-Length``, writes the
body to a new file in pieces of up to 256 KiB, and answers 200. One thread waits for all
connections, as in a reactor. With ``--threads``, each connection has its own thread, so
the server can use more than one core.

Run as ``python -m benchmarks.bare_loop PORT DIRECTORY``.
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import threading
from pathlib import Path

_READ_SIZE = 256 * 1024
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class _Connection:
    """
    One client, and the file that it is sending.

    :param sock: The client's socket.
    :param directory: Where the files go.
    """

    def __init__(self, sock: socket.socket, directory: Path) -> None:
        self._sock = sock
        self._directory = directory
        self._buffer = bytearray(_READ_SIZE)
        self._view = memoryview(self._buffer)
        self._head = b""
        self._file = -1
        self._left = 0

    def receive(self) -> bool:
        """
        Read once from the socket, and store what came.

        :returns: Whether there may be more to come.
        """
        count = self._sock.recv_into(self._view)
        if not count:
            if self._file >= 0:
                os.close(self._file)
            self._sock.close()
            return False
        if self._left:
            self._store(self._view[:count])
        else:
            self._head += bytes(self._view[:count])
            head, found, body = self._head.partition(b"\r\n\r\n")
            if found:
                self._begin(head)
                self._head = b""
                self._store(memoryview(body))
        return True

    def _begin(self, head: bytes) -> None:
        path = head.split(b" ", 2)[1].decode("ascii").lstrip("/")
        length = head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
        self._left = int(length)
        flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
        self._file = os.open(self._directory / path, flags, 0o600)

    def _store(self, data: memoryview) -> None:
        self._left -= len(data)
        while data:
            data = data[os.write(self._file, data) :]
        if not self._left:
            os.close(self._file)
            self._file = -1
            self._sock.sendall(_ANSWER)


def _serve_alone(connection: _Connection) -> None:
    while connection.receive():
        pass


def serve(port: int, directory: Path, *, threads: bool) -> None:
    """Serve until killed."""
    with (
        socket.create_server(("127.0.0.1", port)) as listener,
        selectors.DefaultSelector() as selector,
    ):
        if threads:
            while True:
                connection = _Connection(listener.accept()[0], directory)
                threading.Thread(
                    target=_serve_alone, args=(connection,), daemon=True
                ).start()
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    sock, _ = listener.accept()
                    selector.register(
                        sock, selectors.EVENT_READ, _Connection(sock, directory)
                    )
                elif not key.data.receive():
                    selector.unregister(key.fileobj)


def main() -> None:
    """Read the command line, and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--threads", action="store_true")
    options = parser.parse_args()
    serve(options.port, options.directory, threads=options.threads)


if __name__ == "__main__":
    main()
