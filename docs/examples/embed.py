"""
Add uploads to a Twisted application.

Run ``python embed.py``, and upload to ``http://localhost:8080/upload/NAME``. The files
appear in ``uploads/``.
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

    # These three lines add the uploads. BITSSite streams them, and serves the rest.
    upload = BITSResource(
        DiskBackend(directory, reactor), Settings(allow_overwrites=True)
    )
    root.putChild(b"upload", upload)
    site = BITSSite(root)

    # Start the manager before the port. When the application stops, the manager keeps
    # the bytes that have arrived.
    await upload.manager.start()
    reactor.addSystemEventTrigger("before", "shutdown", upload.manager.stop)

    port = await serverFromString(reactor, listen).listen(site)
    print(f"listening on {port.getHost()}", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
