"""
Replies: that they are on the disk before the server may forget them.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from tests.client.crashes import FATES, FragileDisk
from txbits.client._files import Files
from txbits.client._reply import fetch_reply
from txbits.client.settings import ConnectionSettings

reactor: Any = _reactor

REPLY = bytes(range(256)) * 100


class ReplyTests(TestCase):
    """A reply on loopback."""

    def setUp(self) -> None:
        root = Resource()
        root.putChild(b"r", Data(REPLY, "text/plain"))
        site = Site(root, timeout=None)
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.url = f"http://127.0.0.1:{port.getHost().port}/r"
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "reply"

    async def fetch(self, files: Files) -> int:
        return await fetch_reply(
            reactor, self.url, self.url, ConnectionSettings(), self.path, files
        )

    async def test_a_crash_takes_nothing_of_it(self) -> None:
        for fate in FATES:
            disk = FragileDisk(self.folder)
            length = await self.fetch(disk.files)
            self.assertEqual(length, len(REPLY))
            disk.crash(fate)
            self.assertEqual(self.path.read_bytes(), REPLY, fate.__name__)

    async def test_its_name_is_made_durable(self) -> None:
        folders: list[int] = []

        def fsync(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                folders.append(os.fstat(descriptor).st_ino)

        await self.fetch(Files(fsync=fsync))
        self.assertEqual(folders, [self.folder.stat().st_ino])

    async def test_a_disk_that_fails_is_told_with_the_file_and_leaves_nothing(
        self,
    ) -> None:
        disk = FragileDisk(self.folder, [OSError(errno.EIO, "Input/output error")])
        try:
            await self.fetch(disk.files)
        except OSError as error:
            self.assertEqual(error.filename, str(self.path))
        else:
            self.fail("it did not fail")
        self.assertEqual(list(self.folder.iterdir()), [])

    async def test_a_link_in_its_place_is_replaced_and_not_followed(self) -> None:
        victim = self.folder / "victim"
        victim.write_bytes(b"precious")
        self.path.symlink_to("victim")
        await self.fetch(Files())
        self.assertEqual(victim.read_bytes(), b"precious")
        self.assertEqual(self.path.read_bytes(), REPLY)
