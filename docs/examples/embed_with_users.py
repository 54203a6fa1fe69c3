"""
Uploads for users with passwords, each into a folder of their own.

Make the file of users with ``htpasswd -cB -C 12 users alice``, and let nobody else read
it: ``chmod 600 users``. Run ``python embed_with_users.py``, and upload to
``http://localhost:8080/upload/alice/NAME``. A session belongs to the user who created
it, and each user can have five open sessions. Use a TLS endpoint on any address but
loopback: Basic authentication does not encrypt passwords.
"""

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.web.resource import Resource

from txbits.access.basic import BasicAuthenticator, Passwords
from txbits.access.permissions import Permission, Permissions
from txbits.backends.disk import DiskBackend
from txbits.sessions import Settings
from txbits.web import BITSResource, BITSSite


async def main(
    reactor: Any,
    listen: str = "tcp:8080:interface=127.0.0.1",
    directory: str = "uploads",
    users: str = "users",
) -> None:
    upload = BITSResource(
        DiskBackend(directory, reactor),
        Settings(create_directories=True, session_limit=5),
        authenticators=[BasicAuthenticator(reactor, Passwords.read(users))],
        policy=Permissions([Permission(["*"], "/{user}", ["upload"])]),
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
