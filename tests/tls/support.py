"""
An HTTPS port on loopback in this process, and ``curl`` as its client.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.procutils import which
from twisted.trial.unittest import TestCase

from tests.openssl import Authority
from txbits.backends.memory import MemoryBackend
from txbits.testing.faults import HoldableBackend
from txbits.web import BITSResource, BITSSite

PING = ("-X", "BITS_POST", "-H", "BITS-Packet-Type: Ping", "-H", "Content-Length: 0")


class HttpsCase(TestCase):
    """
    An authority, a server with a certificate, and clients.

    :cvar requires: Whether clients need a certificate.
    """

    requires = True

    async def setUp(self):
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.authority = Authority(self.folder)
        self.authority.issue_server()
        self.events = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def lines(self, pattern):
        """What was logged, and matches."""
        texts = [formatEvent(event) for event in self.events]
        return [text for text in texts if text and re.search(pattern, text)]

    def description(self, **arguments):
        """The endpoint string, with more arguments."""
        files = {
            "certificate": self.folder / "server.pem",
            "key": self.folder / "server.key",
        }
        if self.requires:
            files["client-ca"] = self.authority.certificate
        for name, value in arguments.items():
            files[name.replace("_", "-")] = value
        text = ":".join(f"{name}={value}" for name, value in files.items())
        return f"https:0:interface=127.0.0.1:{text}"

    async def listen(self, *, prefix="", limits=None, authenticators=(), **arguments):
        """Listen until the end of the test."""
        await self.listen_at(
            prefix + self.description(**arguments), limits, authenticators
        )
        return self.number

    async def listen_at(self, description, limits=None, authenticators=()):
        """Listen at an endpoint string until the end of the test."""
        endpoint = serverFromString(reactor, description)
        self.backend = self.make_backend()
        self.resource = BITSResource(self.backend, authenticators=authenticators)
        await self.resource.manager.start()
        site = BITSSite(self.resource, reactor=reactor, limits=limits)
        self.site = site
        self.port = await endpoint.listen(site)
        self.addCleanup(self.no_connections, site)
        self.addCleanup(self.port.stopListening)
        self.addCleanup(self.resource.manager.stop)
        self.number = self.port.getHost().port

    def make_backend(self):
        """Make what is served."""
        return HoldableBackend(MemoryBackend(reactor))

    async def no_connections(self, site):
        """Close all connections of a site, and wait until they are gone."""
        for channel in list(site.channels):
            channel.abort()
        while site.channels:
            await self.pause()

    async def pause(self):
        """Let the reactor run for a moment."""
        await deferLater(reactor, 0.01)

    async def curl(self, *arguments, client=None, path="/x"):
        """
        Run ``curl``.

        :param client: The name of its certificate.
        :returns: The status, as text; ``000`` without one.
        """
        if client is not None:
            names = (self.folder / f"{client}.pem", self.folder / f"{client}.key")
            arguments = ("--cert", names[0], "--key", names[1], *arguments)
        (program, *_) = which("curl")
        out, _, _ = await getProcessOutputAndValue(
            program,
            [
                *("-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "60"),
                *("--cacert", str(self.authority.certificate)),
                *map(str, arguments),
                f"https://127.0.0.1:{self.number}{path}",
            ],
            env={},
        )
        return out.decode()

    async def ping(self, *arguments, client=None):
        return await self.curl(*PING, *arguments, client=client)

    async def run_client(self, *arguments):
        """Run ``openssl s_client``, which sends a request; all that it writes."""
        return await deferToThread(self._client, arguments)

    def _client(self, arguments):
        done = subprocess.run(
            [
                *("openssl", "s_client", "-connect", f"127.0.0.1:{self.number}"),
                *("-CAfile", self.authority.certificate, "-ign_eof", *arguments),
            ],
            cwd=self.folder,
            input=b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            capture_output=True,
            check=False,
            timeout=60,
        )
        return (done.stdout + done.stderr).decode("utf-8", "replace")
