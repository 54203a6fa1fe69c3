"""
What the service does to its process.

The tests that change something of the process that runs them put it back.
"""

import gc
import os
import platform
import resource
import signal
from io import StringIO

from attrs import define
from twisted.internet.error import ReactorNotRunning
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from txbits.service._process import Process, keep_freed_memory


@define(eq=False)
class Reactor:
    running: bool = True
    stopped: int = 0

    def stop(self):
        if not self.running:
            raise ReactorNotRunning
        self.running = False
        self.stopped += 1


class FailTests(SynchronousTestCase):
    """One line, and status 1."""

    def setUp(self):
        self.at_exit = []
        self.reactor = Reactor()
        self.stderr = StringIO()
        self.process = self.made(logs_to_file=False)
        self.logged = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)

    def made(self, **arguments):
        return Process(
            self.reactor, stderr=self.stderr, at_exit=self.at_exit.append, **arguments
        )

    def test_the_line_goes_to_standard_error(self):
        self.process.fail("txbits: no")
        self.assertEqual(self.stderr.getvalue(), "txbits: no\n")
        self.assertEqual(self.logged, [], "the same terminal has the log")

    def test_a_log_that_goes_to_a_file_has_the_line_as_well(self):
        self.made(logs_to_file=True).fail("txbits: no")
        self.assertEqual(self.stderr.getvalue(), "txbits: no\n")
        (event,) = self.logged
        self.assertEqual(event["line"], "txbits: no")
        self.assertIs(event["log_level"], LogLevel.critical)

    def test_the_reactor_is_stopped_and_the_status_is_left_to_the_exit(self):
        self.process.fail("txbits: no")
        self.assertEqual(self.reactor.stopped, 1)
        self.assertEqual(len(self.at_exit), 1)

    def test_a_reactor_that_stops_already_is_left_alone(self):
        self.reactor.running = False
        self.process.fail("txbits: no")
        self.assertEqual(self.reactor.stopped, 0)
        self.assertEqual(len(self.at_exit), 1)

    def test_a_daemon_without_standard_error_fails_all_the_same(self):
        process = Process(self.reactor, stderr=None, at_exit=self.at_exit.append)
        process.fail("txbits: no")
        self.assertEqual(self.reactor.stopped, 1)


class RoomTests(SynchronousTestCase):
    """The limit of open files."""

    def setUp(self):
        self.limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, self.limits)
        self.logged = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)
        self.process = Process(Reactor())

    def warnings(self):
        return [e for e in self.logged if e.get("connections")]

    def test_the_limit_is_raised_as_far_as_it_goes(self):
        _, hard = self.limits
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
        self.process.make_room(10)
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (hard, hard))
        self.assertEqual(self.warnings(), [])

    def test_a_limit_that_is_too_low_is_a_warning(self):
        _, hard = self.limits
        self.process.make_room(hard)
        (warning,) = self.warnings()
        self.assertEqual((warning["limit"], warning["connections"]), (hard, hard))


class SettleTests(SynchronousTestCase):
    """Memory."""

    def test_glibc_keeps_freed_memory(self):
        is_glibc = platform.libc_ver()[0] == "glibc"
        self.assertIs(keep_freed_memory(), is_glibc)

    def test_what_is_there_is_not_looked_at_again(self):
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.unfreeze)
        before = gc.get_threshold()
        Process(Reactor()).settle()
        self.assertGreater(gc.get_freeze_count(), 0)
        self.assertGreater(gc.get_threshold()[0], before[0])


class HangUpTests(SynchronousTestCase):
    """SIGHUP."""

    def setUp(self):
        before = signal.getsignal(signal.SIGHUP)
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        self.from_thread = []
        self.process = Process(self)
        self.heard = []

    def callFromThread(self, function):
        """The reactor's."""
        self.from_thread.append(function)

    def test_is_handed_to_the_reactor(self):
        self.process.on_hangup(lambda: self.heard.append("hang-up"))
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
        # Signals that come at once may be one.
        self.assertGreaterEqual(len(self.from_thread), 1)
        self.assertEqual(self.heard, [], "a handler may interrupt anything")
        self.from_thread[0]()
        self.assertEqual(self.heard, ["hang-up"])
