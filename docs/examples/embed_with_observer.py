"""
Uploads in a Twisted application that does something with each file.

Run it, ``python embed_with_observer.py``, and upload to
``http://localhost:8080/upload/NAME``; it prints a line when the file is complete.
"""

import os
import sys
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.web.resource import Resource
from zope.interface import implementer

from txbits.backends.disk import DiskBackend
from txbits.interfaces import IPublicationObserver, PublishedUpload
from txbits.web import BITSResource, BITSSite


@implementer(IPublicationObserver)
@frozen
class Announcer:
    """Prints where each file is."""

    directory: str

    def published(self, upload: PublishedUpload) -> None:
        path = os.path.join(self.directory, *upload.destination)
        print(f"{path} has {upload.length} bytes", flush=True)


async def main(
    reactor: Any, listen: str = "tcp:8080", directory: str = "uploads"
) -> None:
    upload = BITSResource(
        DiskBackend(directory, reactor), observer=Announcer(directory)
    )
    root = Resource()
    root.putChild(b"upload", upload)
    await upload.manager.start()
    reactor.addSystemEventTrigger("before", "shutdown", upload.manager.stop)

    port = await serverFromString(reactor, listen).listen(BITSSite(root))
    print(f"listening on {port.getHost()}", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
