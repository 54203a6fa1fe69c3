"""
The kit against txbits itself, over sockets on loopback, on every backend.

Everything passes, also what only txbits promises, and nothing is left but the files
that were to be published.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.filepath import FilePath
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource

from tests.backends.s3.support import OnS3
from tests.backends.s3.test_access import certificate
from tests.integration.wire import leftovers
from txbits.backends.disk import DiskBackend
from txbits.backends.memory import MemoryBackend
from txbits.check import CHECKS, Outcome, Unreachable, check
from txbits.client import ConnectionSettings
from txbits.sessions import Settings
from txbits.web import BITSResource, BITSSite

reactor: Any = _reactor

#: What depends on the room of the disk.
_MAY_NOT_APPLY = {"fragment-of-a-long-file"}


class Unnegotiated(Factory):
    """
    A site that is not asked which protocols it speaks.

    Twisted 24.10 answers that, over TLS, in a way that today's pyOpenSSL refuses.
    """

    noisy = False

    def __init__(self, site: BITSSite) -> None:
        self.site = site

    def doStart(self) -> None:
        self.site.doStart()

    def doStop(self) -> None:
        self.site.doStop()

    def buildProtocol(self, addr: Any) -> Any:
        return self.site.buildProtocol(addr)


class KitCase(TestCase):
    """A site with a backend at ``/in``."""

    timeout = 120

    async def serve(self, backend: Any, description: str = "tcp:0") -> str:
        settings = Settings(allow_downloads=True, host_id="127.0.0.1")
        resource = BITSResource(backend, settings, reactor=reactor)
        await resource.manager.start()
        self.addCleanup(resource.manager.stop)
        root = Resource()
        root.putChild(b"in", resource)
        site = BITSSite(root, reactor=reactor)
        endpoint = serverFromString(reactor, f"{description}:interface=127.0.0.1")
        port = await endpoint.listen(Unnegotiated(site))
        self.addCleanup(self.wait_for, site)
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}/in"

    async def wait_for(self, site: BITSSite) -> None:
        while site.channels:
            await deferLater(reactor, 0)

    async def passes(self, backend: Any) -> list[str]:
        """Run the kit; the names of the files that it has published."""
        url = await self.serve(backend)
        report = await check(url, reactor=reactor, may_publish=True)
        others = {
            each.check.name: each.detail
            for each in report.results
            if each.outcome is not Outcome.PASSED
        }
        self.assertLessEqual(set(others), _MAY_NOT_APPLY, others)
        self.assertEqual(report.count(Outcome.FAILED), 0, others)
        self.assertTrue(report.is_good(strict=True))
        published = sum(each.publishes for each in CHECKS)
        self.assertEqual(len(report.left_behind), published, report.left_behind)
        return sorted(line.rpartition("/")[2] for line in report.left_behind)


class MemoryTests(KitCase):
    """The memory backend."""

    async def test_passes_and_leaves_only_what_it_says(self) -> None:
        backend = MemoryBackend(reactor)
        names = await self.passes(backend)
        self.assertEqual(sorted(path[-1] for path in backend.files), names)
        self.assertEqual(await backend.sessions(), [])


class DiskTests(KitCase):
    """The disk backend."""

    async def test_passes_and_leaves_only_what_it_says(self) -> None:
        root = FilePath(self.mktemp())
        root.makedirs()
        names = await self.passes(DiskBackend(root.path, reactor))
        found = {path.basename() for path in root.children()}
        self.assertEqual(sorted(found - {".bits-sessions"}), names)
        self.assertEqual(leftovers(root), [])


class S3Tests(OnS3, KitCase):
    """The S3 backend, on SeaweedFS."""

    async def test_passes_and_leaves_only_what_it_says(self) -> None:
        backend = self.make_backend()
        names = await self.passes(backend)
        prefix = backend.settings.prefix
        keys = await deferToThread(self.bucket.keys, prefix)
        files = [key for key in keys if not key.startswith(backend.settings.staging)]
        self.assertEqual(sorted(files), [prefix + name for name in names])
        self.assertEqual(await self.leftovers(backend), [])


class WithoutPublishingTests(KitCase):
    """A run that may not publish."""

    async def test_it_leaves_nothing(self) -> None:
        backend = MemoryBackend(reactor)
        url = await self.serve(backend)
        report = await check(url, reactor=reactor)
        self.assertEqual(report.left_behind, ())
        self.assertEqual(dict(backend.files), {})
        self.assertEqual(await backend.sessions(), [])
        self.assertEqual(report.count(Outcome.FAILED), 0)


class TLSTests(KitCase):
    """A server with a certificate."""

    async def serve_tls(self) -> tuple[str, bytes]:
        crt, key = certificate(self.mktemp())
        description = f"ssl:0:privateKey={key}:certKey={crt}"
        url = await self.serve(MemoryBackend(reactor), description)
        return url.replace("http:", "https:"), Path(crt).read_bytes()

    async def test_passes(self) -> None:
        url, authorities = await self.serve_tls()
        settings = ConnectionSettings(authorities=authorities)
        report = await check(url, reactor=reactor, settings=settings)
        failed = [
            (each.check.name, each.detail)
            for each in report.results
            if each.outcome is Outcome.FAILED
        ]
        self.assertEqual(failed, [])
        self.assertEqual(report.left_behind, ())

    async def test_a_certificate_that_is_not_trusted_ends_the_run(self) -> None:
        url, _ = await self.serve_tls()
        running = check(url, reactor=reactor)
        error = await self.assertFailure(running, Unreachable)
        self.assertIn("not trusted", str(error))

    async def test_a_server_without_tls_ends_the_run(self) -> None:
        url = await self.serve(MemoryBackend(reactor))
        url = url.replace("http:", "https:")
        running = check(url, reactor=reactor, patience=0.5)
        error = await self.assertFailure(running, Unreachable)
        # There may be the end of a line among the random bytes of a hello: what is
        # before it gets an answer then, as the request that it is not.
        self.assertRegex(
            str(error),
            "no connection within 0.5 seconds|does not speak TLS",
        )
