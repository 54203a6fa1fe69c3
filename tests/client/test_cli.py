"""
The command ``txbits``: arguments, exit statuses, and what is written where.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.selectreactor import SelectReactor
from twisted.python.runtime import seconds
from twisted.trial.unittest import SynchronousTestCase

from tests.client.fakes import Pipe, ScriptedExchange, ShutdownClock, Terminal, lost
from txbits._interrupts import Interrupts
from txbits.client import SourceChanged, UploadFailed
from txbits.client.cli import main, parse, start
from txbits.client.commands._command import Context, Status, run
from txbits.protocol.packets import Ack

URL = "http://h/x"


class ClockTests(SynchronousTestCase):
    """A command on a machine whose clock is set meanwhile."""

    def test_its_reactor_does_not_go_by_the_clock_of_the_machine(self) -> None:
        made: Any = SelectReactor()
        self.addCleanup(made.removeAll)
        out = io.StringIO()
        with redirect_stdout(out):
            result = start(made, parse(["completion", "bash"]), Interrupts([].append))
            self.successResultOf(result)
        for clock in (made.seconds, made.callLater(5, int).seconds):
            self.assertIsNot(clock, seconds)


class ArgumentTests(SynchronousTestCase):
    """What may stand on the command line."""

    def refuse(self, *argv: str) -> str:
        """Have a command line refused; give the one line that says why."""
        err = io.StringIO()
        with redirect_stderr(err):
            error = self.assertRaises(SystemExit, main, argv)
        self.assertEqual(error.code, 1, argv)
        lines = err.getvalue().splitlines()
        self.assertEqual(len(lines), 1, lines)
        self.assertTrue(lines[0].startswith("txbits: "), lines)
        return lines[0]

    def test_a_command_loads_no_other(self) -> None:
        program = (
            "import sys\n"
            "from txbits.client.cli import parse\n"
            "parse(['ping', 'http://h/x'])\n"
            "print('txbits.client.commands.ping' in sys.modules,\n"
            "      'txbits.check' in sys.modules)\n"
        )
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, check=True, text=True
        )
        self.assertEqual(ran.stdout.split(), ["True", "False"])

    def test_defaults_are_as_documented(self) -> None:
        options = parse(["upload", "a.txt", URL])
        self.assertEqual((options.files, options.url), (["a.txt"], URL))
        self.assertIsNone(options.fragment_size)
        self.assertEqual(options.retry_for, 600)

    def test_options_may_stand_anywhere(self) -> None:
        options = parse(
            ["upload", "--retry-for", "1.5", "a", URL, "--fragment-size", "99"]
        )
        self.assertEqual((options.retry_for, options.fragment_size), (1.5, 99))

    def test_missing_arguments_are_refused(self) -> None:
        self.assertIn("COMMAND", self.refuse())
        self.assertIn("URL", self.refuse("upload", "a"))
        self.assertIn("URL", self.refuse("upload"))

    def test_unknown_words_are_refused(self) -> None:
        self.assertIn("frobnicate", self.refuse("frobnicate"))
        self.assertIn("--frob", self.refuse("upload", "a", URL, "--frob"))
        self.assertIn("--retry", self.refuse("upload", "a", URL, "--retry", "1"))

    def test_urls_that_are_none_are_refused(self) -> None:
        self.assertIn("http://", self.refuse("upload", "a", "example.org/x"))

    def test_numbers_that_are_none_are_refused(self) -> None:
        for text in ("0", "x", "1.5", "", "²"):
            words = self.refuse("upload", "a", URL, "--fragment-size", text)
            reason = "must be at least 1 byte" if text == "0" else "is not a size"
            self.assertIn(reason, words)
        for text in ("-1", "x", "nan", "inf", "1w", ""):
            words = self.refuse("upload", "a", URL, f"--retry-for={text}")
            self.assertIn("is not a duration", words)

    def test_a_check_goes_through_no_proxy(self) -> None:
        self.assertIn("--proxy", self.refuse("check", URL, "--proxy", "http://h:1"))

    def test_each_command_tells_the_statuses_that_it_has(self) -> None:
        for name, has, has_not in (
            ("upload", "4 the local file changed", "a check failed"),
            ("ping", "3 gave up", "4 the local file changed"),
            ("check", "2 a check failed", "2 refused"),
            ("completion", "130 interrupted", "2 refused"),
        ):
            out = io.StringIO()
            with redirect_stdout(out):
                self.assertRaises(SystemExit, main, [name, "--help"])
            told = " ".join(out.getvalue().split())
            self.assertIn(has, told)
            self.assertNotIn(has_not, told)

    def test_help_is_no_failure(self) -> None:
        for argv in (["--help"], ["upload", "--help"]):
            out = io.StringIO()
            with redirect_stdout(out):
                error = self.assertRaises(SystemExit, main, argv)
            self.assertEqual(error.code, 0)
            self.assertIn("upload", out.getvalue())


class RunTests(SynchronousTestCase):
    """What the command does, and what it exits with."""

    def setUp(self) -> None:
        self.path, self.home = self.mktemp(), self.mktemp()
        with open(self.path, "wb") as file:
            file.write(b"x" * 1000)
        self.clock = ShutdownClock()
        self.out = Pipe()
        self.err = Pipe()
        self.exchange = ScriptedExchange()

    def options(self, *more: str) -> argparse.Namespace:
        return parse(["upload", self.path, URL, *more])

    def run_with(
        self, script: Sequence[Any] = (), options: Sequence[str] = ()
    ) -> Deferred[Status]:
        """Run it with answers as of :class:`ScriptedExchange`."""
        self.exchange.script.extend(script)
        context = Context(
            self.clock,
            self.out,
            self.err,
            maybeDeferred,
            {"HOME": os.path.abspath(self.home)},
            lambda *_: self.exchange,
        )
        return run(context, self.options(*options))

    def fail_with(self, error: Exception) -> Deferred[Status]:
        """Run a command that fails."""

        async def perform(context: Context, options: argparse.Namespace) -> Status:
            raise error

        context = Context(self.clock, self.out, self.err, maybeDeferred)
        return run(context, argparse.Namespace(perform=perform))

    def assert_status(
        self, result: Deferred[Status], status: int, words: str = ""
    ) -> None:
        self.assertEqual(self.successResultOf(result), status)
        if status == 0:
            self.assertEqual(self.err.getvalue(), "")
        else:
            (line,) = self.err.getvalue().splitlines()
            self.assertTrue(line.startswith("txbits: "), line)
            self.assertIn(words, line)

    def test_a_file_that_arrived_is_0(self) -> None:
        self.assert_status(self.run_with(), 0)
        self.assertEqual(self.exchange.server.published, b"x" * 1000)
        self.assertEqual(
            self.out.getvalue().splitlines(),
            [
                "  0 % 0 of 1,000 bytes",
                "100 % 1,000 of 1,000 bytes",
                f"1,000 bytes are at {URL}",
            ],
        )

    def test_options_reach_the_upload(self) -> None:
        self.assert_status(self.run_with(options=["--fragment-size", "250"]), 0)
        self.assertEqual(self.exchange.kinds.count("Fragment"), 4)

    def test_a_file_that_is_not_there_is_1(self) -> None:
        os.remove(self.path)
        self.assert_status(self.run_with(), 1, "No such file or directory")
        self.assertEqual(self.exchange.packets, [])

    def test_a_file_that_is_none_is_1(self) -> None:
        os.remove(self.path)
        os.mkfifo(self.path)
        self.assert_status(self.run_with(), 1, "is not an ordinary file")

    def test_a_directory_is_sent_only_if_that_is_wanted(self) -> None:
        os.remove(self.path)
        os.mkdir(self.path)
        self.assert_status(self.run_with(), 1, "is a directory (use -r)")

    def test_a_name_that_no_file_can_have_is_1(self) -> None:
        self.path = "a\0b"
        self.assert_status(self.run_with(), 1, "null")

    def test_a_refusal_is_2(self) -> None:
        result = self.run_with([Ack(403, hresult=0x80070005)])
        self.assert_status(result, 2, "403 Forbidden (E_ACCESSDENIED, 0x80070005)")

    def test_giving_up_is_3(self) -> None:
        result = self.run_with([lost("cable cut")], ["--retry-for", "0"])
        self.assert_status(result, 3, "cable cut")

    def test_a_retry_is_said_where_progress_is(self) -> None:
        result = self.run_with([lost("cable cut")])
        self.assertIn("cable cut; trying again in", self.out.getvalue())
        self.clock.advance(1)
        self.assert_status(result, 0)

    def test_a_local_file_that_changed_is_4(self) -> None:
        result = self.run_with([None, lost()])
        os.utime(self.path, (1, 1))
        self.clock.advance(1)
        self.assert_status(result, 4, "was changed during the upload")

    def test_being_stopped_is_130(self) -> None:
        result = self.run_with([None, Deferred()])
        self.assertNoResult(result)
        for stopped in self.clock.shut_down():
            self.successResultOf(stopped)
        self.assert_status(
            result, 130, "interrupted; run the same command again to continue"
        )
        self.assertNotIn("Cancel-Session", self.exchange.kinds)

    def test_the_reactor_waits_until_the_upload_has_stopped(self) -> None:
        closing: Deferred[None] = Deferred()

        class SlowToClose(ScriptedExchange):
            def close(self) -> Deferred[None]:
                return closing

        self.exchange = SlowToClose()
        result = self.run_with([Deferred()])
        (stopped,) = self.clock.shut_down()
        self.assertNoResult(stopped)
        closing.callback(None)
        self.successResultOf(stopped)
        self.assert_status(result, 130)

    def test_a_fault_of_ours_is_one_line_too(self) -> None:
        self.assert_status(self.fail_with(RuntimeError("oh")), 1, "RuntimeError('oh')")

    def test_every_failure_of_an_upload_has_its_status(self) -> None:
        for error, status in (
            (UploadFailed("no", transient=False), 2),
            (UploadFailed("not now", transient=True), 3),
            (SourceChanged("changed"), 4),
            (CancelledError(), 130),
        ):
            self.err = Pipe()
            self.assert_status(self.fail_with(error), status)

    def test_on_a_terminal_the_last_line_starts_anew(self) -> None:
        self.out = Terminal()  # type: ignore[assignment]
        self.assert_status(self.run_with(), 0)
        self.assertIn(f"1,000 bytes are at {URL}\n", self.out.getvalue())

    def test_the_same_command_goes_on_where_one_was_stopped(self) -> None:
        self.run_with([None, None, Deferred()], ["--fragment-size", "400"])
        self.clock.shut_down()
        self.exchange.packets.clear()
        self.err = Pipe()
        self.assert_status(self.run_with(), 0)
        self.assertEqual(self.exchange.kinds, ["Ping", "Fragment", "Close-Session"])
        self.assertEqual(self.exchange.server.published, b"x" * 1000)

    def test_nothing_is_written_down_if_that_is_not_wanted(self) -> None:
        self.run_with([None, None, Deferred()], ["--no-state"])
        self.clock.shut_down()
        self.assertEqual(self.err.getvalue(), "txbits: interrupted\n")
        self.assertFalse(os.path.exists(self.home))

    def test_two_runs_of_the_same_upload_do_not_meet(self) -> None:
        first = self.run_with([None, Deferred()])
        self.assert_status(self.run_with(), 1, "another txbits is at this upload")
        self.assertNoResult(first)

    def test_an_upload_goes_on_when_nobody_reads(self) -> None:
        self.out.broken = True
        self.assert_status(self.run_with(), 0)
        self.assertEqual(self.exchange.server.published, b"x" * 1000)


class ClosedStreamTests(SynchronousTestCase):
    """Standard streams that whoever started the command has closed."""

    def test_they_are_no_fault(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        command = 'exec "$0" -m txbits status'
        for closed in (">&-", "2>&-", "<&- >&- 2>&-"):
            ran = subprocess.run(
                ["sh", "-c", f"{command} {closed}", sys.executable],
                env={**os.environ, "XDG_STATE_HOME": os.path.abspath(folder)},
                capture_output=True,
                timeout=60,
                check=False,
            )
            self.assertEqual((ran.returncode, ran.stderr), (0, b""), closed)


class ReplyFolderTests(SynchronousTestCase):
    """Where a reply is to be put."""

    def test_a_folder_that_is_missing_is_found_before_anything_is_sent(self) -> None:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"abc")
        exchange = ScriptedExchange([])
        out, err = io.StringIO(), io.StringIO()
        context = Context(
            ShutdownClock(), out, err, maybeDeferred, exchange=lambda *_: exchange
        )
        reply = os.path.join(self.mktemp(), "reply")
        status = run(
            context, parse(["upload", path, URL, "--no-state", "--reply", reply])
        )
        self.assertIs(self.successResultOf(status), Status.USAGE)
        self.assertIn("is not a directory", err.getvalue())


class StartTests(SynchronousTestCase):
    """The edge to :func:`twisted.internet.task.react`."""

    def setUp(self) -> None:
        self.left: list[int] = []
        self.interrupts = Interrupts(self.left.append)

    def start(self, status: Status) -> Deferred[None]:
        async def perform(context: Context, options: argparse.Namespace) -> Status:
            context.say("performed")
            return status

        out = Pipe()
        with redirect_stdout(out), redirect_stderr(out):
            options = argparse.Namespace(perform=perform)
            result = start(ShutdownClock(), options, self.interrupts)
        self.assertEqual(out.getvalue(), "performed\n")
        return result

    def test_success_is_no_exit(self) -> None:
        self.successResultOf(self.start(Status.DONE))

    def test_failure_is_an_exit_with_its_status(self) -> None:
        result = self.start(Status.CHANGED)
        self.assertEqual(self.failureResultOf(result, SystemExit).value.code, 4)
        self.assertEqual(self.left, [])

    def test_a_ctrl_c_after_the_end_changes_no_status(self) -> None:
        self.failureResultOf(self.start(Status.CHANGED), SystemExit)
        self.interrupts.handle()
        self.assertEqual(self.left, [4])

    def test_what_was_interrupted_waits_for_no_thread(self) -> None:
        self.failureResultOf(self.start(Status.INTERRUPTED), SystemExit)
        self.assertEqual(self.left, [130])
