"""
Process uploads in a Twisted application, and reply.

Run ``python embed_with_application.py``, and send files to
``http://localhost:8080/upload/NAME``. The reply is the number of lines of the file.
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
    """Counts lines."""

    def __init__(self) -> None:
        self.count = 0

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Do nothing: there is no need to pause the producer."""

    def unregisterProducer(self) -> None:
        """Do nothing."""

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
