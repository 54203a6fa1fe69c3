"""
Downloads from real servers: Twisted's, our own, and those with certificates.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor as _reactor
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import deferLater
from twisted.protocols.portforward import ProxyFactory
from twisted.web.client import HTTPConnectionPool
from twisted.web.resource import Resource
from twisted.web.static import File

from tests.backends.s3.test_access import certificate
from tests.client.downloads import DATA, DownloadCase
from txbits.backends.memory import MemoryBackend
from txbits.client import ConnectionSettings
from txbits.sessions import Settings
from txbits.web import BITSResource, BITSSite

reactor: Any = _reactor


class TwistedTests(DownloadCase):
    """From ``twisted.web.static.File``."""

    def setUp(self):
        super().setUp()
        self.source = self.folder.parent / f"{self.folder.name}-source"
        self.source.write_bytes(DATA)
        os.utime(self.source, (1_000_000_000, 1_000_000_000))
        root = Resource()
        root.putChild(b"x", File(str(self.source)))
        self.url = self.serve(root)

    async def test_a_file_arrives(self):
        await self.download()
        self.assert_arrived()

    async def test_it_goes_on_with_its_date(self):
        self.place(DATA[:1000], "Sun, 09 Sep 2001 01:46:40 GMT")
        result = await self.download()
        self.assert_arrived()
        self.assertEqual(result.received, len(DATA) - 1000)

    async def test_a_changed_file_comes_anew(self):
        self.place(b"x" * 1000, "Sun, 09 Sep 2001 01:46:39 GMT")
        result = await self.download()
        self.assert_arrived()
        self.assertEqual(result.received, len(DATA))


class OwnServerTests(DownloadCase):
    """From txbits itself, whose files have strong ETags."""

    async def serve_own(self):
        backend = MemoryBackend(reactor)
        backend.files["x",] = DATA
        settings = Settings(allow_downloads=True)
        resource = BITSResource(backend, settings, reactor=reactor)
        await resource.manager.start()
        self.addCleanup(resource.manager.stop)
        root = Resource()
        root.putChild(b"in", resource)
        site = BITSSite(root, reactor=reactor)
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(self.wait_for, site)
        self.addCleanup(port.stopListening)
        self.url = f"http://127.0.0.1:{port.getHost().port}/in/x"
        return backend

    async def wait_for(self, site):
        while site.channels:
            await deferLater(reactor, 0)

    async def etag(self):
        pool = HTTPConnectionPool(reactor, persistent=False)
        response = await treq.head(self.url, pool=pool)
        return response.headers.getRawHeaders(b"ETag")[0].decode()

    async def test_it_goes_on(self):
        await self.serve_own()
        self.place(DATA[:1000], await self.etag())
        result = await self.download()
        self.assert_arrived()
        self.assertEqual(result.received, len(DATA) - 1000)

    async def test_a_changed_file_comes_anew(self):
        backend = await self.serve_own()
        self.place(DATA[:1000], await self.etag())
        backend.files["x",] = DATA[::-1]
        result = await self.download()
        self.assert_arrived(DATA[::-1])
        self.assertEqual(result.received, len(DATA))


class TrustTests(DownloadCase):
    """Servers with certificates."""

    def serve_tls(self):
        crt, key = certificate(self.mktemp())
        relay = ProxyFactory("127.0.0.1", int(self.url.split(":")[2].split("/")[0]))
        relay.noisy = False
        context = DefaultOpenSSLContextFactory(key, crt)
        port = reactor.listenSSL(0, relay, context, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"https://127.0.0.1:{port.getHost().port}/x", Path(crt).read_bytes()

    async def test_one_that_is_trusted(self):
        url, authorities = self.serve_tls()
        await self.download(url, settings=ConnectionSettings(authorities=authorities))
        self.assert_arrived()

    async def test_one_that_is_not(self):
        url, _ = self.serve_tls()
        error = await self.failure(self.download(url))
        self.assertFalse(error.transient)
        self.assertIn("not trusted", str(error))
        self.assertEqual(self.names(), [])
