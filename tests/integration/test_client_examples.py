"""
The programs of ``docs/examples`` that upload do what they say.
"""

import os
import signal
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.python.filepath import FilePath
from twisted.trial.unittest import TestCase

from tests.integration.programs import ROOT, TWIST, Program
from tests.integration.wire import leftovers

EXAMPLES = ROOT / "docs" / "examples"


class UploadExampleTests(TestCase):
    """``upload_file.py`` and ``upload_job.py``, and a server."""

    timeout = 120

    async def start(self):
        self.cwd = Path(self.mktemp()).absolute()
        self.cwd.mkdir(parents=True)
        self.data = os.urandom(1_500_000)
        (self.cwd / "file").write_bytes(self.data)
        self.root = FilePath(str(self.cwd / "up"))
        server = Program.start(
            self,
            *TWIST,
            *("txbits", "--listen", "tcp:0:interface=127.0.0.1"),
            *("--backend", f"disk:{self.root.path}:create=yes"),
            cwd=self.cwd,
        )
        self.url = f"http://127.0.0.1:{await server.listening()}/file"

    def run_example(self, name, *arguments):
        return Program.start(
            self, EXAMPLES / name, "file", self.url, *arguments, cwd=self.cwd
        )

    async def until(self, program, words):
        """Wait until it has written these."""
        while words not in program.output:
            self.assertIsNone(program.status, program.output)
            await deferLater(reactor, 0.05)

    def assert_delivered(self):
        self.assertEqual(self.root.child("file").getContent(), self.data)
        self.assertEqual(leftovers(self.root), [])

    async def test_a_file_is_uploaded(self):
        await self.start()
        program = await self.run_example("upload_file.py").ended()
        self.assertEqual(program.status, 0, program.output)
        self.assertIn("1500000 of 1500000 bytes", program.stdout)
        self.assertIn("brought 1500000 bytes", program.stdout)
        self.assert_delivered()

    async def test_a_refusal_is_said(self):
        await self.start()
        self.url += "/"
        program = await self.run_example("upload_file.py").ended()
        self.assertEqual(program.status, 1)
        self.assertIn("permanent failure", program.output)

    async def test_words_pause_and_resume_a_job(self):
        await self.start()
        program = self.run_example("upload_job.py", "journal")
        await self.until(program, "started")
        program.transport.write(b"pause\n")
        await self.until(program, "paused at")
        program.transport.write(b"resume\n")
        await program.ended()
        self.assertIn("1500000 bytes arrived", program.output)
        self.assert_delivered()
        self.assertFalse((self.cwd / "journal").exists())

    async def test_a_word_cancels_a_job(self):
        await self.start()
        program = self.run_example("upload_job.py", "journal")
        await self.until(program, "started")
        program.transport.write(b"cancel\n")
        await program.ended()
        self.assertIn("cancelled", program.output)
        self.assertEqual(leftovers(self.root), [])
        self.assertFalse((self.cwd / "journal").exists())

    async def test_a_job_goes_on_in_another_process(self):
        await self.start()
        for _ in range(2):
            program = self.run_example("upload_job.py", "journal")
            await self.until(program, "started")
            program.transport.write(b"pause\n")
            await self.until(program, "paused at")
            await program.end(signal.SIGINT)
            self.assertIn("interrupted", program.output)
            self.assertEqual(len(leftovers(self.root)) > 0, True)
        await self.run_example("upload_job.py", "journal").ended()
        self.assert_delivered()
