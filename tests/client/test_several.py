"""
``txbits upload`` of several files at a time.
"""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr
from typing import Any

from twisted.internet.defer import Deferred

from tests.client.fakes import Terminal, lost
from tests.client.test_commands import CommandTestCase
from txbits.protocol.packets import Ack
from txbits.protocol.refusals import HResult


class SeveralTestCase(CommandTestCase):
    """Five files, and a server for each."""

    def setUp(self) -> None:
        super().setUp()
        self.paths = [self.write(f"{n}.bin", b"x" * 100) for n in range(5)]
        self.urls = [f"http://h/in/{n}.bin" for n in range(5)]

    def upload(self, *options: str, **environ: str) -> Any:
        argv = ("upload", *options, *self.paths, "http://h/in/")
        return self.run_command(*argv, **environ)

    def hold(self, *numbers: int) -> list[Deferred[Ack[str]]]:
        """Have the Acks to some Create-Sessions come when the test says."""
        held: list[Deferred[Ack[str]]] = [Deferred() for _ in numbers]
        for number, ack in zip(numbers, held, strict=True):
            self.script(self.urls[number], ack)
        return held

    def begun(self) -> list[str]:
        """Where something was sent to."""
        return sorted(url for url, each in self.servers.items() if each.packets)

    def stop(self) -> None:
        for stopped in self.clock.shut_down():
            self.successResultOf(stopped)
        self.clock.triggers.clear()


class JobTests(SeveralTestCase):
    """How many at a time, and on what."""

    def test_so_many_are_under_way_as_were_asked_for(self) -> None:
        held = self.hold(0, 1, 2, 3, 4)
        result = self.upload("-j", "2")
        self.assertEqual(self.begun(), self.urls[:2])
        held[1].callback(Ack(403))
        self.assertEqual(self.begun(), self.urls[:3])
        self.assertNoResult(result)

    def test_each_connection_serves_one_file_after_the_other(self) -> None:
        self.assert_status(self.upload("-j", "2"), 0)
        self.assertEqual(len(self.lines_made), 2)
        used = sorted(url for line in self.lines_made for url in line.urls)
        self.assertEqual(used, self.urls)
        self.assertEqual([line.closed for line in self.lines_made], [1, 1])

    def test_the_rate_is_limited_over_all_connections(self) -> None:
        self.assert_status(self.upload("-j", "2", "--limit-rate", "1M"), 0)
        first, second = self.lines_made
        self.assertIs(first.throttle, second.throttle)
        self.assertEqual(first.throttle.rate, 1024 * 1024)

    def test_there_are_no_more_connections_than_files(self) -> None:
        self.assert_status(self.upload("-j", "100"), 0)
        self.assertEqual(len(self.lines_made), 5)

    def test_a_number_that_is_none_is_wrong_usage(self) -> None:
        for text in ("0", "-1", "x", "10000"):
            err = io.StringIO()
            with redirect_stderr(err), self.assertRaises(SystemExit):
                self.upload("-j", text)
            self.assertIn("is not a number from 1 to 9999", err.getvalue())

    def test_while_others_go_on_one_that_gives_up_is_left_to_them(self) -> None:
        (held,) = self.hold(0)
        self.script(self.urls[1], Ack(503))
        result = self.upload("-j", "2", "--retry-for", "0")
        self.assertNoResult(result)
        held.callback(Ack(403))
        self.assert_status(result, 2)
        self.assertIn("4 of 5 files", self.out.getvalue())

    def test_when_the_last_gives_up_no_other_begins(self) -> None:
        for url in self.urls:
            self.script(url, lost("no route"))
        self.assert_status(self.upload("-j", "2", "--retry-for", "0"), 3)
        self.assertIn("4 of 5 files were not", self.err.getvalue())
        self.assertIn("0 of 5 files (0 bytes) are at", self.out.getvalue())

    def test_a_run_that_gave_up_on_its_last_file_can_be_continued(self) -> None:
        self.script(self.urls[4], lost("no route"))
        self.assert_status(self.upload("--retry-for", "0"), 3)
        self.assertNotIn("not sent", self.err.getvalue())
        self.assertIn("txbits: run the same command again", self.err.getvalue())

    def test_files_of_a_directory_that_is_empty_are_none(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        self.assert_status(self.run_command("upload", "-r", folder, "http://h/"), 0)
        self.assertEqual(self.servers, {})


class JournalTests(SeveralTestCase):
    """What a run leaves to the next."""

    def test_an_interrupted_run_is_continued_where_each_file_was(self) -> None:
        for number in (1, 2):
            self.script(self.urls[number], None, None, Deferred())
        result = self.upload("-j", "2", "--fragment-size", "40")
        self.assertEqual(len(self.journals()), 1)
        self.stop()
        self.assert_status(result, 130)
        self.assertIn("run the same command again", self.err.getvalue())
        packets = [len(self.servers[url].packets) for url in self.urls[:1]]
        self.assert_status(self.upload("-j", "2", "--fragment-size", "40"), 0)
        self.assertEqual(
            [len(self.servers[url].packets) for url in self.urls[:1]], packets
        )
        for number in (1, 2):
            kinds = self.servers[self.urls[number]].kinds
            self.assertEqual(kinds.count("Create-Session"), 1)
            self.assertIn("Ping", kinds)
        self.assertEqual(set(self.published().values()), {b"x" * 100})
        self.assertEqual(self.journals(), [])

    def test_a_second_run_of_the_same_files_is_told_and_touches_nothing(self) -> None:
        self.hold(0, 1)
        self.upload("-j", "2")
        packets = {url: len(each.packets) for url, each in self.servers.items()}
        result = self.run_command("upload", *self.paths, "http://h/in/")
        self.assert_status(result, 1)
        self.assertIn("another txbits is at this upload", self.err.getvalue())
        self.assertEqual(
            {url: len(each.packets) for url, each in self.servers.items()}, packets
        )
        result = self.run_command("upload", self.paths[4], self.urls[4])
        self.assert_status(result, 1)

    def test_more_files_may_be_given_than_before(self) -> None:
        self.script(self.urls[4], lost("no route"))
        self.assert_status(self.upload("--retry-for", "0"), 3)
        before = len(self.servers[self.urls[0]].packets)
        self.paths.append(self.write("new.bin", b"new"))
        self.assert_status(self.upload(), 0)
        self.assertEqual(len(self.servers[self.urls[0]].packets), before)
        self.assertEqual(self.published()["http://h/in/new.bin"], b"new")

    def test_the_journal_of_a_file_that_was_sent_alone_is_taken_over(self) -> None:
        self.script(self.urls[0], None, None, Deferred())
        options = ("--fragment-size", "40")
        self.run_command("upload", *options, self.paths[0], self.urls[0])
        self.stop()
        self.assert_status(self.upload(), 0)
        kinds = self.servers[self.urls[0]].kinds
        self.assertEqual(kinds.count("Create-Session"), 1)
        self.assertEqual(self.journals(), [])

    def test_without_a_journal_nothing_is_written(self) -> None:
        self.assert_status(self.upload("--no-state"), 0)
        self.assertFalse(os.path.exists(self.home))

    def test_status_lists_the_files_of_a_run_and_cancel_forgets_one(self) -> None:
        self.script(self.urls[1], Ack(200, session_id="own"), Deferred(), Ack(200))
        self.upload("-j", "1")
        self.stop()
        self.out.truncate(0)
        self.out.seek(0)
        self.assert_status(self.run_command("status", "--json"), 0)
        self.assertEqual(
            [(line["url"], line["state"]) for line in self.lines()],
            [(self.urls[0], "done"), (self.urls[1], "interrupted")],
        )
        self.assert_status(self.run_command("cancel", self.urls[1], "own"), 0)
        self.out.truncate(0)
        self.out.seek(0)
        self.assert_status(self.run_command("status", "--json"), 0)
        (line,) = self.lines()
        self.assertEqual(line["url"], self.urls[0])


class OutputTests(SeveralTestCase):
    """What is said of each."""

    def test_json_names_the_file_of_each_event(self) -> None:
        self.script(self.urls[1], Ack(403, hresult=HResult.E_ACCESSDENIED))
        self.assert_status(self.upload("--json"), 2)
        of_files: dict[str, list[str]] = {}
        for line in self.lines():
            of_files.setdefault(line["file"], []).append(line["event"])
        self.assertEqual(sorted(of_files), self.paths)
        ends = [of_files[path][-1] for path in self.paths]
        self.assertEqual(ends, ["done", "failed", "done", "done", "done"])
        (failed,) = [line for line in self.lines() if line["event"] == "failed"]
        self.assertEqual(failed["hresult"], "0x80070005")

    def test_without_a_terminal_each_file_is_a_line_and_all_are_one(self) -> None:
        self.assert_status(self.upload(), 0)
        text = self.out.getvalue()
        for url in self.urls:
            self.assertIn(f"100 bytes are at {url}\n", text)
        self.assertIn("100 % 500 of 500 bytes\n", text)
        self.assertTrue(
            text.endswith("5 of 5 files (500 bytes) are at http://h/in/\n"), text
        )

    def test_a_terminal_has_one_bar(self) -> None:
        self.out = Terminal()
        self.assert_status(self.upload(), 0)
        text = self.out.getvalue()
        self.assertNotIn(f"bytes are at {self.urls[0]}", text)
        self.assertIn("500/500 bytes", text)
        self.assertTrue(
            text.endswith("5 of 5 files (500 bytes) are at http://h/in/\n"), text
        )

    def test_what_arrived_earlier_counts(self) -> None:
        self.script(self.urls[4], lost("no route"))
        self.assert_status(self.upload("--retry-for", "0"), 3)
        self.out.truncate(0)
        self.out.seek(0)
        self.assert_status(self.upload(), 0)
        self.assertIn("100 % 500 of 500 bytes\n", self.out.getvalue())
        self.assertIn("5 of 5 files (500 bytes)", self.out.getvalue())

    def test_verbose_names_the_file_in_each_line(self) -> None:
        self.assert_status(self.upload("-v"), 0)
        for path in self.paths:
            self.assertIn(f"{path}: session session-1\n", self.out.getvalue())

    def test_quiet_is_quiet(self) -> None:
        self.assert_status(self.upload("-q"), 0)
        self.assertEqual(self.out.getvalue(), "")

    def test_a_pause_names_the_file(self) -> None:
        self.script(self.urls[0], lost("no route"))
        self.upload()
        self.assertIn(f"{self.paths[0]}: no route; trying again", self.out.getvalue())
