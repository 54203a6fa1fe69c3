"""
Workers of one root in processes of their own: the kernel's locks are between them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from uuid import UUID

from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from txbits._workers import Worker
from txbits.backends.disk import DiskBackend
from txbits.errors import BackendError

#: How many claims each of two processes wants.
_CLAIMS = 300

# It makes a session, claims what the other one claims, and waits for its death.
_WORKER = f"""
import signal, sys
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from txbits._workers import Worker
from txbits.backends.disk import DiskBackend
from txbits.backends.disk._files import Files

class QuickFiles(Files):
    fsync = staticmethod(lambda fd: None)

signal.alarm(60)
worker = Worker(int(sys.argv[2]), 2)
backend = DiskBackend(
    sys.argv[1], Clock(), in_thread=maybeDeferred, files=QuickFiles(), worker=worker
)
backend.start().addErrback(lambda failure: sys.exit(str(failure.value)))
session_id = backend.new_id()
backend.create(
    session_id, (str(worker.number),), owner=None, content_name=None, overwrite=False,
    create_directories=False,
)
print(session_id, flush=True)
input()
got = []
for number in range({_CLAIMS}):
    taking = backend.claim(str(number), session_id, 1e10)
    taking.addCallback(lambda claim: claim and got.append(number))
print(*got, flush=True)
input()
"""


class ProcessTests(SynchronousTestCase):
    """Two workers, one of which is killed."""

    def start(self, number: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, self.root, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def say(self, process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin is not None
        process.stdin.write(line)
        process.stdin.flush()

    def hear(self, process: subprocess.Popen[str]) -> list[str]:
        assert process.stdout is not None
        line = process.stdout.readline()
        self.assertTrue(line.endswith("\n"), "it has ended")
        return line.split()

    def disk(self, number: int) -> DiskBackend:
        return DiskBackend(
            self.root, reactor, in_thread=maybeDeferred, worker=Worker(number, 2)
        )

    def test_claims_are_one_processs_and_slots_are_free_at_once(self) -> None:
        self.root = os.path.abspath(self.mktemp())
        workers = [self.start(number) for number in range(2)]
        (one,), (other,) = map(self.hear, workers)
        self.assertNotEqual(one, other)
        for worker in workers:
            self.say(worker, "go\n")
        got = [int(name) for worker in workers for name in self.hear(worker)]
        self.assertEqual(sorted(got), list(range(_CLAIMS)))
        workers[1].kill()
        workers[1].wait()
        self.failureResultOf(self.disk(0).start(), BackendError)
        successor = self.disk(1)
        self.successResultOf(successor.start())
        found = self.successResultOf(successor.find(UUID(other)))
        self.assertEqual(found.destination, ("1",))
        self.successResultOf(successor.stop())
