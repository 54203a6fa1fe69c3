"""
Uploads to a real file system without links, fsync of directories, and a word on free
space: FUSE. Where it cannot be mounted, the same is done with system calls that lack
the same.
"""

from __future__ import annotations

import os

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests import fuse
from tests.backends.disk.limited import LimitedFiles, without_either, without_links
from tests.backends.disk.mortal import MortalFiles, OnDisk
from tests.integration.wire import Wire
from txbits.backends.disk import DiskBackend
from txbits.backends.disk._probe import Way
from txbits.errors import BackendError
from txbits.sessions import Settings
from txbits.testing import BackendContract
from txbits.web import BITSResource, BITSSite

_DATA = os.urandom(300_000)


def untold():
    """Without links, and without a word on free space."""
    files = without_links()
    files.is_space_told = False
    return files


class FuseCase(TestCase):
    """A root there, and the calls that reach it."""

    def root(self, kind):
        """A root in a file system of a kind, and what makes system calls."""
        folder = fuse.mounted(kind)
        if folder is not None:
            return os.path.join(folder, "root"), MortalFiles()
        return self.mktemp(), untold() if kind == "flags" else without_either()

    async def serve(self, kind, **settings):
        """Serve a root; what serves it."""
        root, files = self.root(kind)
        backend = DiskBackend(root, reactor, files=files)
        resource = BITSResource(backend, Settings(**settings), reactor=reactor)
        await resource.manager.start()
        self.addCleanup(resource.manager.stop)
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await endpoint.listen(BITSSite(resource, reactor=reactor))
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port
        return backend

    def upload(self, path, data, meanwhile=lambda: None):
        """Upload a file, in two Fragments; the statuses. It blocks."""
        wire = Wire(self.port)
        try:
            session = wire.create(path)
            half = len(data) // 2
            acks = [
                wire.fragment(path, session, data, 0, half),
                wire.fragment(path, session, data, half, len(data)),
            ]
            meanwhile()
            acks += [wire.close_session(path, session) for _ in range(2)]
        finally:
            wire.close()
        return [status for status, _ in acks]

    def uploaded(self, backend, *names):
        with open(os.path.join(backend.root, *names), "rb") as file:
            return file.read()


class UploadTests(FuseCase):
    """Over a socket, from Create to Close."""

    async def test_an_upload_arrives(self):
        backend = await self.serve("flags", create_directories=True)
        self.assertIs(backend._staging.file_system.way, Way.RENAME)
        self.assertFalse(backend._staging.file_system.syncs_names)
        statuses = await deferToThread(self.upload, b"/a/b.bin", _DATA)
        self.assertEqual(statuses, [200] * 4)
        self.assertEqual(self.uploaded(backend, "a", "b.bin"), _DATA)

    async def test_a_file_that_appears_meanwhile_is_kept(self):
        backend = await self.serve("flags")

        def place():
            with open(os.path.join(backend.root, "b.bin"), "wb") as file:
                file.write(b"theirs")

        statuses = await deferToThread(self.upload, b"/b.bin", _DATA, place)
        self.assertEqual(statuses, [200, 200, 403, 403])
        self.assertEqual(self.uploaded(backend, "b.bin"), b"theirs")

    async def test_one_is_overwritten_where_that_is_allowed(self):
        for kind in fuse.KINDS:
            backend = await self.serve(kind, allow_overwrites=True)
            for data in (_DATA, _DATA[::-1]):
                statuses = await deferToThread(self.upload, b"/b.bin", data)
                self.assertEqual(statuses, [200] * 4)
                self.assertEqual(self.uploaded(backend, "b.bin"), data)

    async def test_what_could_be_overwritten_is_not_served_otherwise(self):
        with self.assertRaisesRegex(BackendError, "--allow-overwrites"):
            await self.serve("plain")


class ContractTests(OnDisk, FuseCase, BackendContract):
    """The whole contract."""

    fsync = "fragment"
    in_thread = None

    def disk(self, root):
        return DiskBackend(root, reactor, fsync=self.fsync, files=self.files)

    def make_backend(self):
        root, self.files = self.root("flags")
        return self.disk(root)

    def reopen_backend(self, backend):
        backend._files.die()
        self.files = type(backend._files)()
        if isinstance(self.files, LimitedFiles):
            self.files = untold()
        return self.disk(backend.root)
