"""
Two workers of txbits, of which a client can choose one: the first listens on 127.0.0.1,
the second on 127.0.0.2. Each passes on what belongs to the other.

Run as ``python -m benchmarks.two_workers PORT DIRECTORY``.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import socket
import sys
import tempfile
from pathlib import Path
from threading import Thread

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.python import log
from twisted.python.failure import Failure

from txbits._workers import Worker
from txbits.backends.disk import DiskBackend
from txbits.web import BITSResource, BITSSite, Relay


def _serve(
    worker: Worker,
    port: int,
    directory: Path,
    paths: list[str],
    secret: bytes,
    fd: int,
    ready: tuple[int, int],
) -> None:
    """
    Serve as one of them until SIGTERM.

    :param fd: The socket on which it takes what the other one passes on.
    :param ready: A pipe with which the second tells the first that it listens.
    """
    # Each has a reactor of its own.
    from twisted.internet import reactor

    backend = DiskBackend(str(directory), reactor, worker=worker)
    relay = Relay(worker, paths, secret, reactor)
    resource = BITSResource(backend, reactor=reactor, relay=relay)

    async def begin() -> None:
        await resource.manager.start()
        relay.listen(fd, resource)
        if worker.number == 0:
            # Whoever reaches the first expects the second to listen as well.
            await deferToThread(os.read, ready[0], 1)
        site = BITSSite(resource, reactor=reactor)
        reactor.listenTCP(port, site, interface=f"127.0.0.{worker.number + 1}")
        if worker.number:
            os.write(ready[1], b"+")

    def failed(failure: Failure) -> None:
        log.err(failure)
        reactor.stop()

    Deferred.fromCoroutine(begin()).addErrback(failed)
    reactor.addSystemEventTrigger("before", "shutdown", resource.manager.stop)
    reactor.run()


def _end_with(pipe: int) -> None:
    """End this process when the other one, which holds the pipe open, has ended."""
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{number}" for number in range(2)]
        sockets = [socket.socket(socket.AF_UNIX) for _ in paths]
        for one, path in zip(sockets, paths, strict=True):
            one.bind(path)
            one.listen()
            one.setblocking(False)
        secret = secrets.token_bytes(32)
        end, held = os.pipe()
        ready = os.pipe()
        number = 0 if os.fork() else 1
        log.startLogging(sys.stdout)
        if number:
            os.close(held)
            Thread(target=_end_with, args=(end,), daemon=True).start()
        fd = sockets[number].fileno()
        worker = Worker(number, 2)
        _serve(worker, options.port, options.directory, paths, secret, fd, ready)
        if number:
            # The first removes the folder.
            os._exit(0)


if __name__ == "__main__":
    main()
