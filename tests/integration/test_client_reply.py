"""
``txbits upload --reply`` against a server of ours that asks an application.
"""

import os
from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.integration.programs import TWIST, Program


class Application(Resource):
    """
    Replies with what it was sent, backwards.

    :ivar failures: How often it fails before.
    """

    isLeaf = True

    def __init__(self, failures):
        super().__init__()
        self.failures = failures

    def render_POST(self, request):
        if self.failures:
            self.failures -= 1
            request.setResponseCode(503)
            return b""
        return request.content.read()[::-1]


class ReplyTests(TestCase):
    timeout = 100

    async def start(self, failures=0):
        self.cwd = Path(self.mktemp()).absolute()
        self.cwd.mkdir(parents=True)
        self.data = os.urandom(200_000)
        (self.cwd / "file").write_bytes(self.data)
        port = reactor.listenTCP(0, Site(Application(failures)), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        server = Program.start(
            self,
            *TWIST,
            *("txbits", "--listen", "tcp:0:interface=127.0.0.1"),
            *("--notify-url", f"http://127.0.0.1:{port.getHost().port}/"),
            *("--notify-by", "value"),
            cwd=self.cwd,
        )
        self.url = f"http://127.0.0.1:{await server.listening()}/file"

    async def upload(self, *options):
        client = Program.start(
            self,
            *("-m", "txbits", "upload", "--no-state", "file", self.url, *options),
            cwd=self.cwd,
        )
        return await client.ended()

    async def test_the_application_s_reply_is_downloaded(self):
        await self.start()
        client = await self.upload("--reply", "reply")
        self.assertEqual(client.status, 0, client.output)
        self.assertEqual((self.cwd / "reply").read_bytes(), self.data[::-1])

    async def test_an_application_that_fails_for_a_while_is_waited_for(self):
        await self.start(failures=2)
        client = await self.upload("--reply", "reply")
        self.assertEqual(client.status, 0, client.output)
        self.assertIn("the server application answered 503", client.output)
        self.assertEqual((self.cwd / "reply").read_bytes(), self.data[::-1])
