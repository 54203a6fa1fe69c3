"""
Ctrl-C at any moment: one line, status 130, and an end.

The moments in a process of its own are counted and not timed: the signal comes with
one of the modules that are loaded, when the reactor starts or stops, or at the end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import DNSLookupError
from twisted.trial.unittest import SynchronousTestCase

from tests.client.fakes import Pipe, ScriptedExchange, ShutdownClock
from txbits._interrupts import Interrupts
from txbits.client._cancelling import cancellable
from txbits.client.cli import parse
from txbits.client.commands._command import Context, Status, begin

#: Sends itself a SIGINT at the moment that its first argument names, and is the command
#: ``txbits`` with the others.
_PROGRAM = """
import os, signal, sys

moment, argv = sys.argv[1], sys.argv[2:]
{installed}

def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)

class Counting:
    left = int(moment) if moment.isdigit() else 0

    def find_spec(self, *_):
        self.left -= 1
        if self.left == 0:
            interrupt()

from txbits.__main__ import main

sys.meta_path.insert(0, Counting())
if moment == "exit":
    import atexit
    atexit.register(interrupt)
elif not moment.isdigit():
    from twisted.internet import reactor
    reactor.addSystemEventTrigger(*moment.split(), interrupt)
main(argv)
"""


def command(moment: str, *argv: str, installed: str = "") -> tuple[int, str]:
    """The exit status of a command, and its standard error."""
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(installed=installed), moment, *argv],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "HOME": os.path.abspath(os.curdir),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
        # A runner of tests in the background would hand down that it is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    return ran.returncode, ran.stderr.decode()


class ProcessTests(SynchronousTestCase):
    """The command, and nobody at port 1."""

    ping = ("ping", "http://127.0.0.1:1/")

    def test_while_it_loads(self) -> None:
        for moment in ("1", "2", "7", "30", "120", "333"):
            status, err = command(moment, *self.ping)
            self.assertEqual((status, err), (130, "txbits: interrupted\n"), moment)

    def test_next_to_nothing_is_loaded_before_it_is_taken_for_what_it_is(self) -> None:
        program = (
            "import sys, signal, re, os; before = set(sys.modules)\n"
            f"sys.path[:0] = {[entry for entry in sys.path if entry]!r}\n"
            "import txbits.__main__\n"
            "print(*sorted(set(sys.modules) - before))\n"
        )
        loaded = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        ours = ["txbits", "txbits.__main__", "txbits._interrupts"]
        self.assertEqual(loaded, ["__future__", *ours])

    def test_while_it_starts(self) -> None:
        for phase in ("before", "during", "after"):
            status, err = command(f"{phase} startup", *self.ping)
            self.assertEqual((status, err), (130, "txbits: interrupted\n"), phase)

    def test_each_command_that_connects(self) -> None:
        here = os.path.abspath(__file__)
        for argv in (
            ("upload", "--no-state", here, "http://127.0.0.1:1/"),
            ("download", "http://127.0.0.1:1/", "nothing"),
            ("check", "http://127.0.0.1:1/"),
            ("cancel", "http://127.0.0.1:1/", "abc-123"),
        ):
            status, err = command("during startup", *argv)
            self.assertEqual((status, len(err.splitlines())), (130, 1), err)
            self.assertTrue(err.startswith("txbits: interrupted"), err)

    def test_when_all_is_over_it_changes_nothing(self) -> None:
        for moment in ("before shutdown", "during shutdown", "after shutdown", "exit"):
            status, err = command(moment, *self.ping)
            self.assertEqual((status, len(err.splitlines())), (3, 1), moment)
            self.assertIn("refused", err)

    def test_where_it_is_ignored_it_stays_so(self) -> None:
        ignored = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
        for moment in ("7", "during startup"):
            status, err = command(moment, *self.ping, installed=ignored)
            self.assertEqual(status, 3, err)


class HandlerTests(SynchronousTestCase):
    """What one does, and another one after it."""

    def setUp(self) -> None:
        self.left: list[int] = []
        self.said: list[tuple[int, bytes]] = []
        self.interrupts = Interrupts(self.left.append, self.write)

    def write(self, descriptor: int, data: bytes) -> None:
        self.said.append((descriptor, data))

    def test_with_nothing_under_way_it_is_the_end(self) -> None:
        self.interrupts.handle(signal.SIGINT, None)
        self.assertEqual(self.left, [130])
        self.assertEqual(self.said, [(2, b"txbits: interrupted\n")])

    def test_the_first_ends_in_good_order_and_the_second_at_once(self) -> None:
        seen: list[str] = []
        self.interrupts.interrupt = lambda: seen.append("in order")
        self.interrupts.handle(signal.SIGINT, None)
        self.assertEqual((seen, self.left), (["in order"], []))
        self.interrupts.handle(signal.SIGINT, None)
        self.assertEqual((seen, self.left), (["in order"], [130]))

    def test_a_status_that_is_known_stays_what_it_is(self) -> None:
        self.interrupts.status = 3
        self.interrupts.handle(signal.SIGINT, None)
        self.assertEqual((self.left, self.said), ([3], []))

    def test_that_nobody_reads_does_not_matter(self) -> None:
        def broken(descriptor: int, data: bytes) -> None:
            raise BrokenPipeError

        Interrupts(self.left.append, broken).handle(signal.SIGINT, None)
        self.assertEqual(self.left, [130])


class CommandTests(SynchronousTestCase):
    """A command that was told to end has been interrupted, whatever it says."""

    def test_a_failure_is_no_answer(self) -> None:
        # As of a connection that was being made.
        failing: Deferred[Any] = Deferred(
            lambda waiting: waiting.errback(DNSLookupError("no such host"))
        )
        exchange = ScriptedExchange([failing])
        out, err = Pipe(), Pipe()
        context = Context(
            ShutdownClock(), out, err, lambda f, *a: f(*a), {}, lambda *_: exchange
        )
        running = begin(context, parse(["ping", "http://h/"]))
        running.interrupt()
        self.assertIs(self.successResultOf(running.status), Status.INTERRUPTED)
        self.assertEqual(err.getvalue(), "txbits: interrupted\n")


class CancellableTests(SynchronousTestCase):
    """Deferreds that say that they were cancelled."""

    def test_an_outcome_is_passed_on(self) -> None:
        work: Deferred[int] = Deferred()
        result = cancellable(work)
        self.assertNoResult(result)
        work.callback(7)
        self.assertEqual(self.successResultOf(result), 7)
        broken: Deferred[int] = Deferred()
        result = cancellable(broken)
        broken.errback(DNSLookupError("no"))
        self.failureResultOf(result, DNSLookupError)

    def test_whatever_being_cancelled_fails_with_it_was_cancelled(self) -> None:
        work: Deferred[int] = Deferred(lambda d: d.errback(DNSLookupError("no")))
        result = cancellable(work)
        result.cancel()
        self.failureResultOf(result, CancelledError)

    def test_one_that_takes_its_time_is_not_waited_for(self) -> None:
        class Slow(Deferred[int]):
            def cancel(self) -> None:
                """It goes on for a while."""

        work = Slow()
        result = cancellable(work)
        result.cancel()
        self.failureResultOf(result, CancelledError)
        work.errback(DNSLookupError("no"))
