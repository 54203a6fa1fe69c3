"""
The commands of ``txbits`` but for what :mod:`tests.client.test_cli` tries: several
files, standard input, ping, cancel, status.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
from contextlib import redirect_stderr
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from tests.client.fakes import (
    Answer,
    Line,
    Pipe,
    ScriptedExchange,
    ShutdownClock,
    Terminal,
    lost,
)
from txbits.client._exchange import IExchange, ILine
from txbits.client._files import Files
from txbits.client._requests import CertificateRefused, Untrusted
from txbits.client.cli import parse
from txbits.client.commands._command import Context, Status, explain, run
from txbits.client.events import UploadFailed
from txbits.protocol.codec import NotAnAck
from txbits.protocol.packets import Ack, CancelSession
from txbits.protocol.refusals import HResult

SESSION = "{7DF0354D-249B-430F-820D-3D2A9BEF4931}"


class CommandTestCase(SynchronousTestCase):
    """A folder with files, and a server for each URL."""

    def setUp(self) -> None:
        self.clock = ShutdownClock()
        self.out: Any = Pipe()
        self.err = Pipe()
        self.home = os.path.abspath(self.mktemp())
        self.folder = self.mktemp()
        self.stdin = -1
        self.files = Files()
        self.servers: dict[str, ScriptedExchange] = {}
        self.lines_made: list[Line] = []
        self.calendar = 1_700_000_000.0
        self.run: Any = maybeDeferred

    def write(self, name: str, data: bytes) -> str:
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def script(self, url: str, *answers: Answer) -> None:
        """What the server of that URL answers."""
        self.servers.setdefault(url, ScriptedExchange()).script.extend(answers)

    def exchange(self, reactor: Any, url: str, settings: Any) -> IExchange:
        return self.servers.setdefault(url, ScriptedExchange())

    def line(self, reactor: Any, settings: Any, throttle: Any) -> ILine:
        line = Line(self.exchange, throttle)
        self.lines_made.append(line)
        return line

    def run_command(self, *argv: str, **environ: str) -> Deferred[Status]:
        self.err.truncate(0)
        self.err.seek(0)
        context = Context(
            self.clock,
            self.out,
            self.err,
            self.run,
            {"HOME": self.home, **environ},
            self.exchange,
            self.line,
            stdin=self.stdin,
            files=self.files,
            now=lambda: self.calendar,
        )
        return run(context, parse(argv))

    def assert_status(self, result: Deferred[Status], status: int) -> None:
        self.assertEqual(self.successResultOf(result), status, self.err.getvalue())

    def published(self) -> dict[str, bytes | None]:
        """What stands where."""
        return {url: each.server.published for url, each in self.servers.items()}

    def journals(self) -> list[str]:
        return os.listdir(os.path.join(self.home, ".local", "state", "txbits"))

    def lines(self) -> list[dict[str, Any]]:
        """What was said, in JSON."""
        return [json.loads(line) for line in self.out.getvalue().splitlines()]


class SeveralFilesTests(CommandTestCase):
    """More than one file, and directories."""

    def setUp(self) -> None:
        super().setUp()
        self.a = self.write("a.txt", b"a" * 100)
        self.b = self.write("b c.txt", b"b" * 100)

    def test_each_has_its_name_in_the_folder(self) -> None:
        result = self.run_command("upload", self.a, self.b, "http://h/in/?sig=x")
        self.assert_status(result, 0)
        self.assertEqual(
            self.published(),
            {
                "http://h/in/a.txt?sig=x": b"a" * 100,
                "http://h/in/b%20c.txt?sig=x": b"b" * 100,
            },
        )
        self.assertEqual(self.journals(), [])

    def test_one_file_may_go_into_a_folder_too(self) -> None:
        self.assert_status(self.run_command("upload", self.a, "http://h/"), 0)
        self.assertEqual(list(self.published()), ["http://h/a.txt"])

    def test_a_directory_is_sent_with_its_name(self) -> None:
        self.write("d/2", b"2")
        self.write("d/e/1", b"1")
        top = os.path.join(self.folder, "d")
        os.symlink("2", os.path.join(top, "link"))
        os.mkfifo(os.path.join(top, "pipe"))
        result = self.run_command("upload", "-r", top, "http://h/in/")
        self.assert_status(result, 0)
        self.assertEqual(
            self.published(), {"http://h/in/d/2": b"2", "http://h/in/d/e/1": b"1"}
        )
        self.assertRegex(self.err.getvalue(), "skipped .*/link: a symbolic link")
        self.assertRegex(self.err.getvalue(), "skipped .*/pipe: not a regular file")

    def test_a_url_that_is_no_folder_is_wrong_usage(self) -> None:
        for argv in ((self.a, self.b), ("-r", self.folder)):
            result = self.run_command("upload", *argv, "http://h/in")
            self.assert_status(result, 1)
            self.assertIn("needs a trailing slash", self.err.getvalue())

    def test_two_files_of_one_name_are_wrong_usage(self) -> None:
        other = self.write("d/a.txt", b"other")
        result = self.run_command("upload", self.a, other, "http://h/")
        self.assert_status(result, 1)
        self.assertEqual(self.published(), {})

    def test_a_refusal_does_not_keep_the_others(self) -> None:
        self.script("http://h/a.txt", Ack(403))
        result = self.run_command("upload", self.a, self.b, "http://h/")
        self.assert_status(result, 2)
        self.assertEqual(self.published()["http://h/b%20c.txt"], b"b" * 100)
        self.assertIn("a.txt: the server answered 403", self.err.getvalue())

    def test_a_file_that_is_not_there_does_not_either(self) -> None:
        result = self.run_command("upload", self.a + "x", self.b, "http://h/")
        self.assert_status(result, 1)
        self.assertEqual(self.published(), {"http://h/b%20c.txt": b"b" * 100})

    def test_a_server_that_is_gone_does(self) -> None:
        self.script("http://h/a.txt", lost("no route"))
        argv = ("upload", "--retry-for", "0", self.a, self.b, "http://h/")
        self.assert_status(self.run_command(*argv), 3)
        self.assertNotIn("http://h/b%20c.txt", self.published())
        self.assertIn("1 of 2 files were not sent", self.err.getvalue())

    def test_what_arrived_is_not_sent_again_by_the_same_command(self) -> None:
        self.script("http://h/b%20c.txt", lost("no route"))
        argv = ("upload", "--retry-for", "0", self.a, self.b, "http://h/")
        self.assert_status(self.run_command(*argv), 3)
        before = len(self.servers["http://h/a.txt"].packets)
        self.assert_status(self.run_command(*argv), 0)
        self.assertEqual(len(self.servers["http://h/a.txt"].packets), before)
        self.assertIn("100 bytes are already at http://h/a.txt", self.out.getvalue())
        self.assertEqual(self.published()["http://h/b%20c.txt"], b"b" * 100)
        self.assertEqual(self.journals(), [])

    def test_what_arrived_and_changed_since_is_sent_again(self) -> None:
        self.script("http://h/b%20c.txt", lost("no route"))
        argv = ("upload", "--retry-for", "0", self.a, self.b, "http://h/")
        self.assert_status(self.run_command(*argv), 3)
        self.write("a.txt", b"A" * 90)
        self.assert_status(self.run_command(*argv), 0)
        self.assertEqual(self.published()["http://h/a.txt"], b"A" * 90)
        kinds = self.servers["http://h/a.txt"].kinds
        self.assertNotIn("Cancel-Session", kinds, "its session is closed already")

    def test_options_for_one_file_are_not_for_several(self) -> None:
        for option in (["--reply", "r"], ["--length", "5"], ["--state", "x"]):
            result = self.run_command("upload", *option, self.a, self.b, "http://h/")
            self.assert_status(result, 1)

    def test_journals_of_long_ago_go(self) -> None:
        self.script("http://h/a.txt", None, Deferred())
        self.run_command("upload", self.a, "http://h/")
        for stopped in self.clock.shut_down():
            self.successResultOf(stopped)
        self.assertEqual(len(self.journals()), 1)
        self.calendar += 31 * 86400
        self.assert_status(self.run_command("upload", self.b, "http://h/"), 0)
        self.assertEqual(self.journals(), [])


class StateTests(CommandTestCase):
    """Where journals are."""

    def test_a_place_that_cannot_be_written_to_is_said_with_what_to_do(self) -> None:
        path = self.write("a", b"0123456789")
        self.home = os.path.abspath(path)
        self.assert_status(self.run_command("upload", path, "http://h/x"), 1)
        self.assertIn("Not a directory", self.err.getvalue())
        self.assertIn("--no-state keeps no journal", self.err.getvalue())
        argv = ("upload", "--no-state", path, "http://h/x")
        self.assert_status(self.run_command(*argv), 0)

    def test_without_locks_that_is_said_and_the_file_arrives(self) -> None:
        path = self.write("a", b"data")

        def flock(descriptor: int, kind: int) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        self.files = Files(flock=flock)
        self.assert_status(self.run_command("upload", path, "http://h/x"), 0)
        self.assertIn("does not support locks", self.err.getvalue())
        self.err.truncate(0)
        self.assert_status(self.run_command("upload", "-q", path, "http://h/x"), 0)
        self.assertNotIn("locks", self.err.getvalue())

    def test_a_journal_may_be_a_file_of_its_own_or_in_a_folder(self) -> None:
        path, folder = self.write("a", b"0123456789"), self.mktemp()
        os.mkdir(folder)
        for place, found in ((f"{folder}/mine", ["mine"]), (folder, None)):
            self.script("http://h/x", None, Deferred())
            self.run_command("upload", "--state", place, path, "http://h/x")
            for stopped in self.clock.shut_down():
                self.successResultOf(stopped)
            listed = os.listdir(folder)
            self.assertEqual(listed if found is None else found, listed)
            self.assertEqual(len(listed), 1)
            argv = ("upload", "--state", place, path, "http://h/x")
            self.assert_status(self.run_command(*argv), 0)
            self.assertEqual(os.listdir(folder), [])


class StandardInputTests(CommandTestCase):
    """What comes through a pipe, or a file that the shell has opened."""

    def test_a_pipe_needs_its_length(self) -> None:
        self.stdin, into = os.pipe()
        self.addCleanup(os.close, self.stdin)
        self.addCleanup(os.close, into)
        self.assert_status(self.run_command("upload", "-", "http://h/x"), 1)
        self.assertIn("needs --length", self.err.getvalue())

    def test_a_file_of_the_shell_s_does_not(self) -> None:
        path = self.write("a", b"0123456789")
        self.stdin = os.open(path, os.O_RDONLY)
        self.addCleanup(os.close, self.stdin)
        os.lseek(self.stdin, 3, os.SEEK_SET)
        self.assert_status(self.run_command("upload", "-", "http://h/x"), 0)
        self.assertEqual(self.published(), {"http://h/x": b"3456789"})
        result = self.run_command("upload", "--length", "8", "-", "http://h/x")
        self.assert_status(result, 1)
        self.assertIn("has 7 bytes, not 8", self.err.getvalue())

    def test_it_goes_alone_to_a_file(self) -> None:
        for argv in (("-", "a", "http://h/"), ("-", "http://h/")):
            self.assert_status(self.run_command("upload", *argv), 1)


class JSONTests(CommandTestCase):
    """For programs."""

    def test_an_upload_is_told_from_its_file_to_its_end(self) -> None:
        path = self.write("a", b"0123456789")
        self.assert_status(self.run_command("upload", "--json", path, "http://h/x"), 0)
        first, *_, last = self.lines()
        self.assertEqual(
            first, {"event": "file", "file": path, "url": "http://h/x", "length": 10}
        )
        self.assertEqual(
            last,
            {
                "event": "done",
                "file": path,
                "url": "http://h/x",
                "length": 10,
                "session": "session-1",
                "acknowledged": True,
                "reply_url": None,
            },
        )

    def test_a_failure_is_told_with_its_codes(self) -> None:
        path = self.write("a", b"0123456789")
        self.script("http://h/x", Ack(403, hresult=HResult.E_ACCESSDENIED))
        self.assert_status(self.run_command("upload", "--json", path, "http://h/x"), 2)
        last = self.lines()[-1]
        self.assertEqual((last["event"], last["exit"]), ("failed", 2))
        self.assertEqual((last["status"], last["hresult"]), (403, "0x80070005"))
        self.assertIn("403 Forbidden", last["error"])

    def test_so_is_one_of_several(self) -> None:
        path = self.write("a", b"0123456789")
        self.assert_status(
            self.run_command("upload", "--json", path, path + "x", "http://h/"), 1
        )
        self.assertEqual(
            [line["event"] for line in self.lines()][-2:], ["done", "failed"]
        )

    def test_quiet_is_quiet(self) -> None:
        path = self.write("a", b"0123456789")
        self.assert_status(self.run_command("upload", "-q", path, "http://h/x"), 0)
        self.assertEqual(self.out.getvalue(), "")

    def test_verbose_tells_the_session(self) -> None:
        path = self.write("a", b"0123456789")
        self.assert_status(self.run_command("upload", "-v", path, "http://h/x"), 0)
        self.assertIn("session session-1", self.out.getvalue())


class PingTests(CommandTestCase):
    """``txbits ping``."""

    def test_a_server_that_answers_is_0(self) -> None:
        self.assert_status(self.run_command("ping", "http://h/x"), 0)
        self.assertEqual(self.servers["http://h/x"].kinds, ["Ping"])
        self.assertIn("a BITS server answers at http://h/x", self.out.getvalue())

    def test_it_can_be_said_in_json(self) -> None:
        self.assert_status(self.run_command("ping", "--json", "http://h/x"), 0)
        self.assertEqual(
            self.lines(), [{"event": "answered", "url": "http://h/x", "seconds": 0.0}]
        )

    def test_one_that_refuses_is_2_and_one_that_is_gone_3(self) -> None:
        for answer, status in ((Ack(403), 2), (Ack(503), 3), (lost("no route"), 3)):
            self.script("http://h/x", answer)
            self.assert_status(self.run_command("ping", "http://h/x"), status)

    def test_what_is_no_bits_server_says_where_to_go_if_it_does(self) -> None:
        for stranger, words in (
            (
                NotAnAck("the answer is 200, but not an Ack", 200),
                "no BITS server at this",
            ),
            (NotAnAck("the answer is 301", 301, "'https://h/'"), "use that URL"),
        ):
            self.script("http://h/x", stranger)
            self.assert_status(self.run_command("ping", "http://h/x"), 2)
            self.assertIn(words, self.err.getvalue())

    def test_it_can_be_tried_again(self) -> None:
        self.script("http://h/x", lost("no route"))
        result = self.run_command("ping", "--retry-for", "10", "http://h/x")
        self.assertNoResult(result)
        self.clock.advance(1)
        self.assert_status(result, 0)
        self.assertEqual(self.servers["http://h/x"].closed, 1)


class CancelTests(CommandTestCase):
    """``txbits cancel``."""

    def cancel(self, session: str, *options: str) -> Deferred[Status]:
        return self.run_command("cancel", *options, "http://h/a", session)

    def test_a_session_is_cancelled(self) -> None:
        self.script("http://h/a", Ack(200))
        self.assert_status(self.cancel(SESSION), 0)
        self.assertEqual(self.servers["http://h/a"].packets, [CancelSession(SESSION)])
        self.assertIn(f"cancelled session {SESSION}", self.out.getvalue())

    def test_its_id_is_the_servers_own_word(self) -> None:
        for session in ("abc-123", SESSION.lower(), SESSION.strip("{}"), "a=/b \xe9"):
            self.script("http://h/a", Ack(200))
            self.assert_status(self.cancel(session, "--json"), 0)
            packet = self.servers["http://h/a"].packets[-1]
            self.assertEqual(packet, CancelSession(session))
            self.assertEqual(self.lines()[-1]["session"], session)

    def test_a_guid_that_is_spelled_otherwise_in_a_journal_is_sent_as_there(
        self,
    ) -> None:
        path = self.write("a", b"0123456789")
        self.script("http://h/a", Ack(200, SESSION), Deferred())
        self.run_command("upload", path, "http://h/a")
        for stopped in self.clock.shut_down():
            self.successResultOf(stopped)
        self.script("http://h/a", Ack(200))
        self.assert_status(self.cancel(SESSION.strip("{}").lower()), 0)
        packet = self.servers["http://h/a"].packets[-1]
        self.assertEqual(packet, CancelSession(SESSION))
        self.assertEqual(self.journals(), [])

    def test_what_a_terminal_cannot_show_is_not_shown(self) -> None:
        self.script("http://h/a", Ack(200))
        self.assert_status(self.cancel("a\x9b2J"), 0)
        self.assertNotIn("\x9b", self.out.getvalue())

    def test_a_folder_of_journals_that_cannot_be_read_keeps_no_session(self) -> None:
        def broken(function: Any, *arguments: Any) -> Deferred[Any]:
            return fail(PermissionError(13, "Permission denied"))

        self.script("http://h/a", Ack(200))
        self.run = broken
        self.assert_status(self.cancel(SESSION), 1)
        self.assertEqual(self.servers["http://h/a"].packets, [CancelSession(SESSION)])
        self.assertIn("Permission denied", self.err.getvalue())

    def test_a_login_page_is_waited_for_to_go_away(self) -> None:
        portal = NotAnAck("the answer is 302, a redirect to 'http://l/'", 302, "'l'")
        self.script("http://h/a", portal, Ack(200))
        result = self.cancel(SESSION)
        self.assertNoResult(result)
        self.clock.advance(1)
        self.assert_status(result, 0)

    def test_one_that_is_not_known_is_released_already(self) -> None:
        self.assert_status(self.cancel(SESSION, "--json"), 0)
        self.assertEqual(self.lines()[0]["event"], "cancelled")

    def test_a_server_that_fails_is_asked_again(self) -> None:
        self.script("http://h/a", Ack(500), lost(), Ack(200))
        result = self.cancel(SESSION)
        for _ in range(8):
            self.clock.advance(0.5)
        self.assert_status(result, 0)

    def test_one_that_refuses_is_not(self) -> None:
        self.script("http://h/a", Ack(403))
        self.assert_status(self.cancel(SESSION), 2)

    def test_the_journal_goes_with_the_session(self) -> None:
        path = self.write("a", b"0123456789")
        self.script("http://h/a", None, Deferred())
        self.run_command("upload", path, "http://h/a")
        for stopped in self.clock.shut_down():
            self.successResultOf(stopped)
        self.assertEqual(len(self.journals()), 1)
        self.assert_status(self.cancel("session-1"), 0)
        self.assertEqual(self.journals(), [])
        self.assertEqual(self.servers["http://h/a"].server.held, {})

    def test_without_a_home_there_is_no_journal_to_look_for(self) -> None:
        self.home = ""
        self.assert_status(self.cancel(SESSION), 0)

    def test_what_is_no_session_is_wrong_usage(self) -> None:
        with redirect_stderr(io.StringIO()):
            for session in ("", "x" * 101, "a\nb", "\u20ac"):
                error = self.assertRaises(SystemExit, self.cancel, session)
                self.assertEqual(error.code, 1)


class NoCheckTests(CommandTestCase):
    """``txbits upload --no-check``, where times of modification wobble."""

    def test_it_goes_on_with_a_file_of_another_time(self) -> None:
        path = self.write("a", b"0123456789")
        argv = ("upload", "--no-check", "--fragment-size", "4", path, "http://h/a")
        held: Deferred[Ack] = Deferred()
        self.script("http://h/a", None, held)
        running = self.run_command(*argv)
        os.utime(path, (1, 1))
        held.callback(Ack(200, received=4))
        self.assert_status(running, 0)

    def test_so_does_another_run(self) -> None:
        path = self.write("a", b"0123456789")
        argv = ("upload", "--no-check", "--fragment-size", "4", path, "http://h/a")
        self.script("http://h/a", None, None, Deferred())
        self.run_command(*argv)
        for stopped in self.clock.shut_down():
            self.successResultOf(stopped)
        os.utime(path, (1, 1))
        self.assert_status(self.run_command(*argv), 0)
        server = self.servers["http://h/a"]
        self.assertEqual(server.kinds.count("Create-Session"), 1)
        self.assertEqual(server.server.published, b"0123456789")

    def test_without_it_a_file_of_another_time_has_changed(self) -> None:
        path = self.write("a", b"0123456789")
        held: Deferred[Ack] = Deferred()
        self.script("http://h/a", None, held)
        running = self.run_command("upload", "--fragment-size", "4", path, "http://h/a")
        os.utime(path, (1, 1))
        held.callback(Ack(200, received=4))
        self.assert_status(running, 4)
        self.assertIn("its modification time is not", self.err.getvalue())


class StatusTests(CommandTestCase):
    """``txbits status``."""

    def interrupted(self) -> str:
        path = self.write("a", b"0123456789")
        self.script("http://h/a?sig=x", None, None, Deferred())
        argv = ("upload", "--fragment-size", "4", path, "http://h/a?sig=x")
        self.run_command(*argv)
        for stopped in self.clock.shut_down():
            self.successResultOf(stopped)
        self.out.truncate(0)
        self.out.seek(0)
        return os.path.realpath(path)

    def test_nothing_is_said_to_be_nothing(self) -> None:
        self.assert_status(self.run_command("status"), 0)
        self.assertIn("no uploads", self.out.getvalue())

    def test_an_interrupted_upload_is_a_line(self) -> None:
        path = self.interrupted()
        self.assert_status(self.run_command("status"), 0)
        head, line = self.out.getvalue().splitlines()
        self.assertEqual(head.split()[:2], ["file", "to"])
        self.assertEqual(
            line.split()[:6],
            [path, "http://h/a", "40", "%", "interrupted", "session-1"],
        )

    def test_one_under_way_is_told_apart(self) -> None:
        path = self.write("a", b"0123456789")
        self.script("http://h/a", None, Deferred())
        self.run_command("upload", "-q", path, "http://h/a")
        self.assert_status(self.run_command("status"), 0)
        self.assertIn(" running ", self.out.getvalue())

    def test_it_can_be_said_in_json(self) -> None:
        path = self.interrupted()
        self.assert_status(self.run_command("status", "--json"), 0)
        (line,) = self.lines()
        self.assertEqual((line["file"], line["url"]), (path, "http://h/a"))
        self.assertEqual((line["acknowledged"], line["total"]), (4, 10))
        self.assertEqual(line["state"], "interrupted")

    def test_a_damaged_journal_is_said(self) -> None:
        self.interrupted()
        (name,) = self.journals()
        path = os.path.join(self.home, ".local", "state", "txbits", name)
        with open(path, "w") as file:
            file.write("{")
        self.assert_status(self.run_command("status"), 0)
        self.assertIn("damaged", self.out.getvalue())
        self.assert_status(self.run_command("status", "--json"), 0)

    def test_one_that_a_crash_made_zeros_of_is_said_and_begun_anew(
        self,
    ) -> None:
        path = self.interrupted()
        (name,) = self.journals()
        journal = os.path.join(self.home, ".local", "state", "txbits", name)
        with open(journal, "wb") as file:
            file.write(bytes(500))
        self.assert_status(self.run_command("upload", path, "http://h/a"), 0)
        self.assertIn(f"{name} was lost when the machine crashed", self.err.getvalue())

    def test_a_journal_can_be_named(self) -> None:
        self.interrupted()
        (name,) = self.journals()
        moved = self.mktemp()
        path = os.path.join(self.home, ".local", "state", "txbits", name)
        shutil.move(path, moved)
        self.assert_status(self.run_command("status", "--state", moved), 0)
        self.assertIn("interrupted", self.out.getvalue())

    def test_it_can_be_copied_from_a_terminal_of_any_width(self) -> None:
        path = self.interrupted()
        self.out = Terminal()
        self.assert_status(self.run_command("status", COLUMNS="20"), 0)
        (line,) = self.out.getvalue().splitlines()[1:]
        for text in (path, "http://h/a", "session-1"):
            self.assertIn(f"{text} ", line)

    def test_what_is_done_can_be_forgotten(self) -> None:
        self.interrupted()
        first, second = self.write("1", b"1"), self.write("2", b"2")
        self.script("http://h/2", Ack(403))
        self.assert_status(self.run_command("upload", first, second, "http://h/"), 2)
        self.out.truncate(0)
        self.out.seek(0)
        self.assert_status(self.run_command("status", "--clear"), 0)
        self.assertIn("now forgotten: 1\n", self.out.getvalue())
        self.assertIn(" interrupted ", self.out.getvalue())
        self.assertNotIn("http://h/1", self.out.getvalue())
        self.assertEqual(len(self.journals()), 1)
        self.out.truncate(0)
        self.out.seek(0)
        self.assert_status(self.run_command("status", "--clear", "--json"), 0)
        self.assertEqual([line["state"] for line in self.lines()], ["interrupted"])

    def test_what_is_under_way_is_not_forgotten(self) -> None:
        first, second = self.write("1", b"1"), self.write("2", b"2")
        self.script("http://h/2", Deferred())
        self.run_command("upload", "-q", "-j", "1", first, second, "http://h/")
        self.assert_status(self.run_command("status", "--clear"), 0)
        self.assertIn("now forgotten: 0\n", self.out.getvalue())
        self.assertEqual(len(self.journals()), 1)

    def test_a_journal_holds_no_secret(self) -> None:
        path = self.write("a", b"0123456789")
        self.script("http://h/a?sig=sesame", None, Deferred())
        self.run_command(
            *("upload", path, "http://h/a?sig=sesame", "--user", "me"),
            *("--header", "X-Token: sesame"),
            TXBITS_PASSWORD="sesame",
        )
        for name in self.journals():
            place = os.path.join(self.home, ".local", "state", "txbits", name)
            with open(place) as file:
                self.assertNotIn("sesame", file.read())

    def test_without_a_home_it_has_to_be_said_where(self) -> None:
        self.home = ""
        self.assert_status(self.run_command("status"), 1)
        self.assertIn("--state", self.err.getvalue())


class ExplainTests(SynchronousTestCase):
    """What an exception is for the user."""

    def advice(self, error: UploadFailed, *options: str) -> str:
        parsed = parse(["upload", "a", "http://h/", *options])
        return explain(error, parsed)[1]

    def test_the_option_that_may_help_is_named(self) -> None:
        asked = UploadFailed("the server answered 401", transient=False, status=401)
        for options in ("--user NAME", "--negotiate", "--token-file FILE"):
            self.assertIn(f"{options} sends", self.advice(asked))
        for options in (("--user", "me"), ("--negotiate",)):
            self.assertEqual(self.advice(asked, *options), "the server answered 401")
        advice = self.advice(asked, "--token-file", "t")
        self.assertIn("; the token was refused, and may have expired", advice)
        for scheme, option in (
            ("Digest with MD5", "; --user NAME sends a name and a password"),
            ("Negotiate", "; --negotiate sends a Kerberos ticket"),
            ("Bearer", "; --token-file FILE sends a token"),
            ("NTLM (not supported)", ""),
            ("Bearer (the token was refused: 'old')", ""),
        ):
            words = f"401; it asks for {scheme}"
            asked = UploadFailed(words, transient=False, status=401)
            self.assertEqual(self.advice(asked), words + option)
        asked = UploadFailed("the proxy answered 407", transient=False, status=407)
        self.assertIn("; --proxy-user NAME sends", self.advice(asked))
        untrusted = UploadFailed("it is not trusted", transient=False)
        untrusted.__cause__ = Untrusted("it is not trusted")
        self.assertIn("; --cacert FILE trusts", self.advice(untrusted))
        refused = UploadFailed("it requires one", transient=False)
        refused.__cause__ = CertificateRefused("it requires one")
        self.assertIn("; --cert FILE shows one", self.advice(refused))
        other = UploadFailed("403", transient=False, status=403)
        self.assertEqual(self.advice(other), "403")

    def test_a_file_that_cannot_be_had_is_named_and_no_fault_of_ours(self) -> None:
        error = FileNotFoundError(2, "No such file or directory", "/none/reply")
        self.assertEqual(
            explain(error), (Status.USAGE, "/none/reply: No such file or directory")
        )
