"""
Uploads in a Twisted application that works on them itself, and replies.

Run it, ``python embed_with_application.py``, and send files to
``http://localhost:8080/upload/NAME``. The reply to each is the number of its lines.
"""

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import react
from twisted.web.resource import Resource
from zope.interface import implementer

from txbits.backends.disk import DiskBackend
from txbits.interfaces import Answer, CompleteUpload, IReadable, IReply
from txbits.notification import notifier
from txbits.web import BITSResource, BITSSite


@implementer(IConsumer)
class Lines:
    """Counts the lines of what is written to it."""

    def __init__(self) -> None:
        self.count = 0

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """It never has to be paused."""

    def unregisterProducer(self) -> None:
        """There is nothing to end."""

    def write(self, data: bytes) -> None:
        self.count += data.count(b"\n")


async def count_lines(upload: CompleteUpload, reply: IReply) -> Answer:
    lines = Lines()
    session = upload.session
    await IReadable(session).read_into(lines, 0, session.offset)
    writer = await reply.open()
    try:
        await writer.write(f"{lines.count} lines\n".encode())
    finally:
        await writer.close()
    return Answer(publishes=True)


async def main(
    reactor: Any, listen: str = "tcp:8080", directory: str = "uploads"
) -> None:
    root = Resource()
    upload = BITSResource(
        DiskBackend(directory, reactor),
        notifier=notifier(count_lines, needs={IReadable}),
    )
    root.putChild(b"upload", upload)
    await upload.manager.start()
    reactor.addSystemEventTrigger("before", "shutdown", upload.manager.stop)
    port = await serverFromString(reactor, listen).listen(BITSSite(root))
    print(f"listening on {port.getHost()}", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
