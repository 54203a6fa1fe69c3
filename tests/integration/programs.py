"""
Programs in processes of their own: what they print, and how they end.

Every process that a test starts is ended when the test is over, by its pid.
"""

import os
import re
import signal
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.protocol import ProcessProtocol

from txbits._deferreds import together

#: The checkout, or wherever else the package under test is.
ROOT = Path(__file__).parents[2]

#: What ``twistd`` and ``twist`` are behind ``python``.
TWISTD = ("-c", "from twisted.scripts.twistd import run; run()")
TWIST = ("-m", "twisted", "--log-format", "text")

_LISTENING = re.compile(r"listening on (?:IPv4Address\(.*?port=|port |\S+:)(\d+)\D")


async def at_once(*coroutines):
    """
    Run coroutines that wait for programs at the same time, which takes less of it.

    :returns: A list of what they return.
    :raises Exception: What the first failed with, when all have ended.
    """
    return await together(*map(ensureDeferred, coroutines))


class Program(ProcessProtocol):
    """
    A program, one of Python's if not told otherwise.

    :ivar stdout: What it has written to standard output so far.
    :ivar stderr: What it has written to standard error so far.
    :ivar port: What it listens on, once it does.
    :ivar status: Its exit status, or the negative number of the signal that ended it;
        ``None`` while it runs.
    """

    def __init__(self):
        self.stdout = ""
        self.stderr = ""
        self.port = None
        self.status = None
        self._listening = Deferred()
        self._ended = Deferred()
        self._awaited = []

    @classmethod
    def start(
        cls, case, *arguments, cwd, path=(), environment=(), executable=sys.executable
    ):
        """
        Start one, until the end of the test *case* at the latest.

        :param arguments: What stands behind ``python``.
        :param cwd: Its working directory.
        :param path: Directories for its ``PYTHONPATH``, before the package under test.
        :param environment: What its environment has besides ours.
        :param executable: What to run in place of Python.
        """
        program = cls()
        # What is there already can have gssapi, which is not installed everywhere.
        theirs = filter(None, [os.environ.get("PYTHONPATH")])
        variables = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*map(str, [*path, ROOT]), *theirs]),
            **dict(environment),
        }
        reactor.spawnProcess(
            program,
            executable,
            [executable, *map(str, arguments)],
            variables,
            str(cwd),
        )
        case.addCleanup(program.end, signal.SIGKILL)
        return program

    @property
    def output(self):
        """All that it has written."""
        return self.stdout + self.stderr

    def listening(self):
        """Fires with its port when it listens; fails if it ends before."""
        return self._listening if self.port is None else succeed(self.port)

    def says(self, text):
        """Fires when it has written something to standard output."""
        said = Deferred()
        self._awaited.append((text, said))
        self._look()
        return said

    def _look(self):
        awaited, self._awaited = self._awaited, []
        for text, said in awaited:
            if text in self.stdout:
                said.callback(None)
            else:
                self._awaited.append((text, said))

    def end(self, how=signal.SIGTERM):
        """Send it a signal; fires when it has ended."""
        if self.status is None and self.transport.pid is not None:
            os.kill(self.transport.pid, how)
        return self.ended()

    def ended(self):
        """Fires with the program when it has ended."""
        if self.status is not None:
            return succeed(self)
        waiting = Deferred()

        def tell(program):
            waiting.callback(program)
            return program

        self._ended.addCallback(tell)
        return waiting

    def outReceived(self, data):
        self.stdout += data.decode("utf-8", "replace")
        match = _LISTENING.search(self.stdout)
        if match is not None and self.port is None:
            self.port = int(match[1])
            self._listening.callback(self.port)
        self._look()

    def errReceived(self, data):
        self.stderr += data.decode("utf-8", "replace")

    def processEnded(self, reason):
        value = reason.value
        self.status = -value.signal if value.signal else value.exitCode
        if not self._listening.called:
            self._listening.errback(AssertionError(f"ended before:\n{self.output}"))
            self._listening.addErrback(lambda failure: None)
        self._ended.callback(self)
