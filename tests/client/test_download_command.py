"""
``txbits download``, and the example of the documentation.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.client.downloads import DATA, DownloadCase
from tests.client.fakes import Pipe
from tests.client.test_sockets import Command
from txbits.client._files import FILES, Files
from txbits.client.cli import parse
from txbits.client.commands._command import Context, Status, run

reactor: Any = _reactor

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "download.py"


class CommandTests(DownloadCase):
    """``txbits download``."""

    def run_it(self, *more, files=FILES):
        self.out, self.err = Pipe(), Pipe()
        options = parse(["download", self.url, str(self.path), *more])
        context = Context(reactor, self.out, self.err, deferToThread, files=files)
        return run(context, options)

    async def test_a_file_arrives(self):
        self.assertEqual(await self.run_it(), Status.DONE)
        self.assert_arrived()
        self.assertIn("200,000 bytes are in /", self.out.getvalue())
        self.assertEqual(self.err.getvalue(), "")

    async def test_without_locks_that_is_said_and_the_file_arrives(self):
        def flock(descriptor, kind):
            raise OSError(errno.ENOLCK, "No locks available")

        files = Files(flock=flock)
        self.assertEqual(await self.run_it(files=files), Status.DONE)
        self.assert_arrived()
        self.assertIn("does not support locks", self.err.getvalue())
        status = await self.run_it("--json", "--overwrite", files=files)
        self.assertEqual(status, Status.DONE)
        first = json.loads(self.out.getvalue().splitlines()[0])
        self.assertEqual(first["event"], "unlocked")
        self.assertIn(".file.txbits-part", first["file"])
        await self.run_it("--quiet", "--overwrite", files=files)
        self.assertEqual(self.err.getvalue(), "")

    async def test_programs_get_json(self):
        self.assertEqual(await self.run_it("--json"), Status.DONE)
        *events, done = map(json.loads, self.out.getvalue().splitlines())
        self.assertEqual({each["event"] for each in events}, {"progress"})
        self.assertEqual(
            done,
            {
                "event": "done",
                "file": os.path.abspath(self.path),
                "length": len(DATA),
                "received": len(DATA),
            },
        )
        self.file.answers = [(404, {})]
        status = await self.run_it("--json", "--overwrite")
        self.assertEqual(status, Status.REFUSED)
        failed = json.loads(self.out.getvalue())
        self.assertEqual((failed["event"], failed["status"]), ("failed", 404))

    async def test_quiet_is_quiet(self):
        self.assertEqual(await self.run_it("-q"), Status.DONE)
        self.assertEqual(self.out.getvalue() + self.err.getvalue(), "")

    async def test_headers_go_along(self):
        await self.run_it("--header", "X-Token: secret")
        self.assertEqual(self.file.asked("X-Token"), ["secret"])

    async def test_names_that_are_none_are_1(self):
        self.path = "a\0b"
        self.assertEqual(await self.run_it(), Status.USAGE)
        self.assertIn("null", self.err.getvalue())

    async def test_a_file_that_is_there_is_1(self):
        self.path.write_bytes(b"old")
        self.assertEqual(await self.run_it(), Status.USAGE)
        self.assertIn("exists (try --overwrite)", self.err.getvalue())
        self.assertEqual(await self.run_it("--overwrite"), Status.DONE)
        self.assert_arrived()

    async def test_a_place_that_is_none_is_1(self):
        self.path = self.folder / "none" / "file"
        self.assertEqual(await self.run_it(), Status.USAGE)
        self.assertIn("No such file or directory", self.err.getvalue())

    async def test_a_refusal_is_2(self):
        self.file.answers = [(404, {})]
        self.assertEqual(await self.run_it(), Status.REFUSED)
        self.assertEqual(self.err.getvalue(), "txbits: the server answered 404\n")

    async def test_to_give_up_is_3(self):
        self.file.answers = [(503, {})]
        self.assertEqual(await self.run_it("--retry-for", "0"), Status.GAVE_UP)

    def spawn(self, *program):
        command = Command()
        program = program or ("-m", "txbits", "download")
        argv = [sys.executable, *program, self.url, str(self.path)]
        paths = os.pathsep.join(filter(None, sys.path))
        environment = {**os.environ, "PYTHONPATH": paths}
        process = reactor.spawnProcess(command, sys.executable, argv, environment)
        self.addCleanup(lambda: process.pid and process.signalProcess("KILL"))
        command.transport = process
        return command

    async def test_one_that_was_killed_goes_on(self):
        self.file.stops = stopped = Deferred()
        command = self.spawn()
        await stopped
        part = await self.some_arrives()
        command.transport.signalProcess(signal.SIGKILL)
        await command.ended
        held = part.stat().st_size
        command = self.spawn()
        self.assertEqual(await command.ended, 0, command.err)
        self.assert_arrived()
        self.assertEqual(self.file.asked("Range"), [None, f"bytes={held}-"])

    async def test_one_that_is_interrupted_is_130_and_goes_on(self):
        self.file.stops = stopped = Deferred()
        command = self.spawn()
        await stopped
        command.transport.signalProcess(signal.SIGINT)
        self.assertEqual(await command.ended, 130)
        self.assertEqual(
            command.err,
            b"txbits: interrupted; run the same command again to continue\n",
        )
        command = self.spawn()
        self.assertEqual(await command.ended, 0, command.err)
        self.assert_arrived()

    async def test_the_example_downloads(self):
        self.file.cuts = [50_000]
        command = self.spawn(str(EXAMPLE))
        self.assertEqual(await command.ended, 0, command.err)
        self.assert_arrived()
        self.assertIn(b"the connection was lost; trying again in", command.out)
        self.assertTrue(command.out.endswith(b"200000 of 200000 bytes received\n"))

    async def test_the_example_says_what_went_wrong(self):
        self.file.answers = [(404, {})]
        command = self.spawn(str(EXAMPLE))
        self.assertEqual(await command.ended, 1)
        self.assertEqual(command.err, b"the server answered 404 (give up)\n")
