"""
Uploads for users with passwords: HTTP Basic authentication around a BITSResource.

``users.txt`` has lines such as ``alice:secret``. Run ``python embed_with_users.py``,
and upload to ``http://localhost:8080/upload/NAME``. A session belongs to the user who
created it, and each user can have five open sessions. Use a TLS endpoint on any address
but loopback: Basic authentication does not encrypt passwords.
"""

import sys
from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import FilePasswordDB
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.web.guard import BasicCredentialFactory, HTTPAuthSessionWrapper
from twisted.web.resource import IResource, Resource
from zope.interface import implementer

from txbits.backends.disk import DiskBackend
from txbits.sessions import Settings
from txbits.web import BITSResource, BITSSite


@implementer(IRealm)
class UploadRealm:
    """Gives each user a view of the uploads."""

    def __init__(self, upload: BITSResource) -> None:
        self.upload = upload

    def requestAvatar(
        self, name: bytes, mind: object, *interfaces: object
    ) -> tuple[object, IResource, Callable[[], None]]:
        if IResource not in interfaces:
            raise NotImplementedError("only IResource")
        return IResource, self.upload.for_user(name.decode()), lambda: None


async def main(
    reactor: Any,
    listen: str = "tcp:8080",
    directory: str = "uploads",
    users: str = "users.txt",
) -> None:
    upload = BITSResource(DiskBackend(directory, reactor), Settings(session_limit=5))
    portal = Portal(UploadRealm(upload), [FilePasswordDB(users)])
    root = Resource()
    root.putChild(
        b"upload", HTTPAuthSessionWrapper(portal, [BasicCredentialFactory(b"uploads")])
    )

    await upload.manager.start()
    reactor.addSystemEventTrigger("before", "shutdown", upload.manager.stop)

    port = await serverFromString(reactor, listen).listen(BITSSite(root))
    print(f"listening on {port.getHost()}", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
