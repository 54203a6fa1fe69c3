"""
Uploads in a Twisted application that also serves something else.

Run it, ``python embed.py``, and upload to ``http://localhost:8080/upload/NAME``; the
files appear in ``uploads/``.
"""

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.web.resource import Resource
from twisted.web.static import Data

from txbits.backends.disk import DiskBackend
from txbits.sessions import Settings
from txbits.web import BITSResource, BITSSite


async def main(
    reactor: Any, listen: str = "tcp:8080", directory: str = "uploads"
) -> None:
    root = Resource()
    root.putChild(b"hello", Data(b"Hello!\n", "text/plain"))

    # The three lines. Under BITSSite uploads stream; all else is served as ever.
    upload = BITSResource(
        DiskBackend(directory, reactor), Settings(allow_overwrites=True)
    )
    root.putChild(b"upload", upload)
    site = BITSSite(root)

    # Sessions have a life: the manager starts before anything listens, and when the
    # application stops it keeps the bytes of what is just arriving.
    await upload.manager.start()
    reactor.addSystemEventTrigger("before", "shutdown", upload.manager.stop)

    port = await serverFromString(reactor, listen).listen(site)
    print(f"listening on {port.getHost()}", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
