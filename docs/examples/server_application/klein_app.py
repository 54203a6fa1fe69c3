"""
A server application in Klein, notified by reference: count the lines of each upload.

The count is the reply to the client. Uploads and replies are files, so both programs
need the same file system. Start it with the secret of txbits::

    BITS_SECRET=... python klein_app.py tcp:5000:interface=127.0.0.1

and set ``http://127.0.0.1:5000/uploads`` as ``notify-url``.
"""

import os
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from bits_signature import NotGenuine, digest_of, verify
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.internet.threads import deferToThread
from twisted.web.iweb import IRequest
from twisted.web.server import Site

SECRET = os.environ["BITS_SECRET"].encode()


class Application:
    """Handles notifications."""

    app = Klein()

    def __init__(self) -> None:
        self.authority = ""

    @app.route("/uploads", methods=["POST"])
    async def upload(self, request: IRequest) -> bytes:
        headers = {
            name.decode("ascii").lower(): values[-1].decode("ascii")
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        target = request.uri.decode("ascii")
        try:
            verify(SECRET, "POST", self.authority, target, headers)
            expected = digest_of(headers)
        except NotGenuine as error:
            # Not 403, which is final: the secret may have changed just now.
            request.setResponseCode(503)
            return f"{error}\n".encode()
        uploaded = Path(unquote(headers["bits-request-datafile-name"]))
        reply = Path(unquote(headers["bits-response-datafile-name"]))
        if not await deferToThread(count_lines, uploaded, expected, reply):
            request.setResponseCode(503)
            return b"the upload is incomplete\n"
        request.setHeader("BITS-Copy-File-To-Destination", "1")
        return b""


def count_lines(uploaded: Path, expected: bytes, reply: Path) -> bool:
    """Do the work. A repetition creates the same reply."""
    digest = sha256()
    lines = 0
    with uploaded.open("rb") as file:
        while piece := file.read(1 << 16):
            digest.update(piece)
            lines += piece.count(b"\n")
    if digest.digest() != expected:
        return False
    reply.write_text(f"{lines} lines\n")
    return True


async def main(reactor: Any, listen: str) -> None:
    application = Application()
    site = Site(application.app.resource())
    port = await serverFromString(reactor, listen).listen(site)
    application.authority = f"127.0.0.1:{port.getHost().port}"
    print(f"listening on {port.getHost()}", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
