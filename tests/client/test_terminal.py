"""
The command on a terminal: bars, passwords and Ctrl-C.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from twisted.web.guard import BasicCredentialFactory, HTTPAuthSessionWrapper
from twisted.web.server import Site

from tests.client.test_network import Realm
from tests.client.test_sockets import Command, ModelResource
from tests.protocol.model_server import ModelServer

reactor: Any = _reactor
CTRL_C = b"\x03"


class OnTerminal(Command):
    """The command, on a terminal of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._awaited: tuple[bytes, Deferred[None]] | None = None

    def outReceived(self, data: bytes) -> None:
        super().outReceived(data)
        if self._awaited is not None and self._awaited[0] in self.out:
            shown, self._awaited = self._awaited[1], None
            shown.callback(None)

    def shows(self, words: bytes) -> Deferred[None]:
        """Fires when these have been written."""
        shown: Deferred[None] = Deferred()
        self._awaited = (words, shown)
        self.outReceived(b"")
        return shown

    @property
    def text(self) -> str:
        """What it has written, without what moves the cursor and paints."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.out.decode())


class TerminalTests(TestCase):
    """A server that wants a password, and one that does not."""

    timeout = 60

    def setUp(self) -> None:
        self.server = ModelServer()
        self.resource = ModelResource(self.server)
        self.data = os.urandom(1000) * 3000
        self.path = self.mktemp()
        with open(self.path, "wb") as file:
            file.write(self.data)

    def listen(self, resource: Any) -> str:
        site = Site(resource, timeout=None)
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}/x"

    def guarded(self) -> str:
        checker = InMemoryUsernamePasswordDatabaseDontUse(me=b"sesame")
        portal = Portal(Realm(self.resource), [checker])
        factories = [BasicCredentialFactory(b"r")]
        return self.listen(HTTPAuthSessionWrapper(portal, factories))

    def spawn(self, *arguments: str) -> OnTerminal:
        command = OnTerminal()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "HOME": os.path.abspath(self.mktemp()),
            "TERM": "xterm",
        }
        for name in ("TXBITS_PASSWORD", "NETRC", "XDG_STATE_HOME"):
            environment.pop(name, None)
        process = reactor.spawnProcess(
            command,
            sys.executable,
            [sys.executable, "-m", "txbits", *arguments],
            environment,
            usePTY=True,
        )
        self.addCleanup(lambda: process.pid and process.signalProcess("KILL"))
        command.transport = process
        return command

    async def test_a_bar_is_drawn_to_the_end(self) -> None:
        command = self.spawn("upload", self.path, self.listen(self.resource))
        self.assertEqual(await command.ended, 0)
        self.assertEqual(self.server.published, self.data)
        self.assertIn("100% 3.0/3.0 MB", command.text)
        self.assertIn("3,000,000 bytes are at", command.text)
        self.assertTrue(
            command.out.rfind(b"\x1b[?25h") > command.out.rfind(b"\x1b[?25l")
        )

    async def test_a_password_is_asked_for_and_not_shown(self) -> None:
        command = self.spawn("upload", "--user", "me", self.path, self.guarded())
        await command.shows(b"Password for me at 127.0.0.1: ")
        command.transport.write(b"sesame\n")
        self.assertEqual(await command.ended, 0)
        self.assertEqual(self.server.published, self.data)
        self.assertNotIn("sesame", command.text)

    async def test_a_question_can_be_left_with_ctrl_c(self) -> None:
        command = self.spawn("upload", "--user", "me", self.path, self.guarded())
        await command.shows(b"Password for me at 127.0.0.1: ")
        command.transport.write(CTRL_C)
        self.assertEqual(await command.ended, 130)
        self.assertIn("txbits: interrupted", command.text)
        self.assertEqual(self.server.held, {})

    async def test_ctrl_c_says_how_to_go_on(self) -> None:
        stuck: Deferred[None] = Deferred()
        self.resource.stuck = stuck
        command = self.spawn("upload", self.path, self.listen(self.resource))
        await stuck
        command.transport.write(CTRL_C)
        self.assertEqual(await command.ended, 130)
        self.assertIn("interrupted; run the same command again", command.text)
        self.assertEqual(len(self.server.held), 1)
