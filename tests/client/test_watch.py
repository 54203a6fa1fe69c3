"""
``txbits upload --watch``: a folder whose files are sent and taken away.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from tests.client.fakes import lost
from tests.client.test_commands import CommandTestCase
from txbits.client.commands._watch import State, look, take_away
from txbits.client.journal import JournalError
from txbits.protocol.packets import Ack

URL = "http://h/in/"


class WatchTestCase(CommandTestCase):
    """A folder that is watched; a file comes to rest in ten seconds."""

    def setUp(self) -> None:
        super().setUp()
        os.mkdir(self.folder)
        self.options = ["--settle", "10", "--delete"]

    def watch(self, *options: str) -> Deferred[Any]:
        return self.run_command(
            "upload", "--watch", self.folder, *self.options, *options, URL
        )

    def pass_by(self, seconds: float) -> None:
        """Let time pass, a second at a time."""
        self.clock.pump([1] * int(seconds))

    def stop(self) -> None:
        for stopped in self.clock.shut_down():
            self.successResultOf(stopped)
        self.clock.triggers.clear()

    def present(self) -> list[str]:
        return sorted(os.listdir(self.folder))

    def arrived(self) -> dict[str, bytes | None]:
        """What is at the destination, by name."""
        return {
            url.removeprefix(URL): data
            for url, data in self.published().items()
            if data is not None
        }


class RestTests(WatchTestCase):
    """What is sent, and when."""

    def test_a_file_is_sent_and_deleted_when_it_has_come_to_rest(self) -> None:
        self.write("a b.txt", b"old")
        result = self.watch()
        self.pass_by(9)
        self.assertEqual(self.arrived(), {})
        self.pass_by(6)
        self.assertEqual(self.arrived(), {"a%20b.txt": b"old"})
        self.assertEqual(self.present(), [])
        self.assertEqual(self.journals(), [])
        self.assertNoResult(result)

    def test_a_file_that_grows_waits_until_it_does_not(self) -> None:
        self.write("a", b"1")
        self.watch()
        for length in range(2, 6):
            self.pass_by(8)
            self.write("a", b"1" * length)
        self.assertEqual(self.servers, {})
        self.pass_by(20)
        self.assertEqual(self.arrived(), {"a": b"11111"})

    def test_files_that_come_later_are_sent_too(self) -> None:
        self.watch()
        self.pass_by(100)
        self.write("a", b"1")
        self.pass_by(20)
        self.write("b", b"2")
        self.pass_by(20)
        self.assertEqual(self.arrived(), {"a": b"1", "b": b"2"})

    def test_without_a_time_to_settle_it_is_sent_at_once(self) -> None:
        self.write("a", b"1")
        self.watch("--settle", "0")
        self.assertEqual(self.arrived(), {"a": b"1"})

    def test_what_is_no_plain_file_or_is_hidden_stays(self) -> None:
        secret = self.write("../secret-of-another", b"secret")
        self.addCleanup(os.unlink, secret)
        self.write(".a.part", b"half")
        os.symlink(os.path.abspath(secret), os.path.join(self.folder, "link"))
        os.mkfifo(os.path.join(self.folder, "pipe"))
        self.write("folder/a", b"1")
        before = self.present()
        self.watch()
        self.pass_by(30)
        self.assertEqual(self.servers, {})
        self.assertEqual(self.present(), before)

    def test_no_more_are_under_way_than_jobs(self) -> None:
        for name in "abc":
            self.write(name, b"1")
        held: list[Deferred[Ack[str]]] = [Deferred(), Deferred(), Deferred()]
        for name, ack in zip("abc", held, strict=True):
            self.script(f"{URL}{name}", ack)
        self.watch("-j", "2")
        self.pass_by(20)
        begun = [url for url, each in self.servers.items() if each.packets]
        self.assertEqual(begun, [f"{URL}a", f"{URL}b"])
        held[0].callback(Ack(403))
        self.assertTrue(self.servers[f"{URL}c"].packets)

    def test_connections_are_closed_when_there_is_nothing_to_send(self) -> None:
        self.write("a", b"1")
        self.watch()
        self.pass_by(20)
        self.assertEqual([line.closed for line in self.lines_made], [1])
        self.write("b", b"1")
        self.pass_by(20)
        self.assertEqual([line.closed for line in self.lines_made], [1, 1])

    def test_a_folder_that_is_away_is_said_once_and_comes_back(self) -> None:
        self.watch()
        os.rename(self.folder, f"{self.folder}-away")
        self.pass_by(30)
        self.assertEqual(self.err.getvalue().count("trying again"), 1)
        os.rename(f"{self.folder}-away", self.folder)
        self.write("a", b"1")
        self.pass_by(30)
        self.assertEqual(self.arrived(), {"a": b"1"})

    def test_only_so_many_files_are_kept_in_mind(self) -> None:
        for number in range(5):
            self.write(f"{number}", b"1")
        self.assertEqual(len(look(self.folder, 3)), 3)
        self.assertEqual(len(look(self.folder)), 5)


class AfterTests(WatchTestCase):
    """What becomes of files that were sent."""

    def setUp(self) -> None:
        super().setUp()
        self.sent = os.path.join(self.folder, "sent")
        os.mkdir(self.sent)

    def test_they_are_moved_and_replace_no_others(self) -> None:
        self.options[-1:] = ["--move-to", self.sent]
        self.watch()
        for data in (b"1", b"2", b"3"):
            self.servers.clear()
            self.write("a", data)
            self.pass_by(20)
        found = {p.name: p.read_bytes() for p in Path(self.sent).iterdir()}
        self.assertEqual(found, {"a": b"1", "a.1": b"2", "a.2": b"3"})
        self.assertEqual(self.present(), ["sent"])

    def test_a_file_that_was_replaced_meanwhile_stays(self) -> None:
        path = self.write("a", b"1")
        state = State.of(os.lstat(path))
        self.write("b", b"2")
        os.rename(os.path.join(self.folder, "b"), path)
        for place in (None, self.sent):
            self.assertFalse(take_away(path, state, place))
        self.assertEqual(Path(path).read_bytes(), b"2")
        self.assertEqual(os.listdir(self.sent), [])

    def test_even_if_it_is_replaced_at_the_last_moment(self) -> None:
        path = self.write("a", b"1")
        state = State.of(os.lstat(path))
        for place in (None, self.sent):
            self.write("b", b"new")
            other = os.path.join(self.folder, "b")
            looks: list[str] = []

            def lstat(name: str, other: str = other, looks: Any = looks) -> Any:
                status = os.lstat(name)
                if not looks:
                    os.rename(other, path)
                looks.append(name)
                return status

            self.assertFalse(take_away(path, state, place, lstat))
            self.assertEqual(Path(path).read_bytes(), b"new")
            self.assertEqual(self.present(), ["a", "sent"])
            os.unlink(path)
            self.write("a", b"1")
            state = State.of(os.lstat(path))

    def test_a_file_that_is_gone_is_no_failure(self) -> None:
        path = self.write("a", b"1")
        state = State.of(os.lstat(path))
        os.unlink(path)
        self.assertFalse(take_away(path, state, None))


class FailureTests(WatchTestCase):
    """What cannot be sent."""

    def test_a_refused_file_stays_and_the_others_are_sent(self) -> None:
        self.write("a", b"1")
        self.write("b", b"2")
        self.script(f"{URL}a", Ack(403))
        self.watch()
        self.pass_by(60)
        self.assertEqual(self.arrived(), {"b": b"2"})
        self.assertEqual(self.present(), ["a"])
        self.assertEqual(self.err.getvalue().count("403"), 1)

    def test_it_is_tried_again_after_a_while(self) -> None:
        self.write("a", b"1")
        self.script(f"{URL}a", Ack(403))
        self.watch()
        self.pass_by(700)
        self.assertEqual(self.arrived(), {"a": b"1"})

    def test_or_when_it_changes(self) -> None:
        self.write("a", b"1")
        self.script(f"{URL}a", Ack(403))
        self.watch()
        self.pass_by(60)
        self.write("a", b"22")
        self.pass_by(20)
        self.assertEqual(self.arrived(), {"a": b"22"})

    def test_without_a_network_it_goes_on_later(self) -> None:
        self.write("a", b"1")
        self.script(f"{URL}a", lost("no route"))
        result = self.watch("--retry-for", "0")
        self.pass_by(30)
        self.assertEqual(self.present(), ["a"])
        self.pass_by(100)
        self.assertEqual(self.arrived(), {"a": b"1"})
        self.assertNoResult(result)

    def test_wrong_usage_is_told(self) -> None:
        file = self.write("a", b"1")
        for argv, words in (
            (("--watch", self.folder, URL), "--delete or --move-to"),
            (("--watch", self.folder, "--delete", "http://h/a"), "trailing slash"),
            (("--watch", self.folder, "--delete", file, URL), "place of FILE"),
            (("--watch", self.folder, "--delete", "-r", URL), "--recursive"),
            (("--watch", file, "--delete", URL), "not a directory"),
            (("--watch", self.folder, "--move-to", file, URL), "not a directory"),
            (("--watch", self.folder, "--move-to", self.folder, URL), "the same"),
            (("--delete", file, URL), "with --watch only"),
            ((URL,), "FILE is missing"),
        ):
            self.assert_status(self.run_command("upload", *argv), 1)
            self.assertIn(words, self.err.getvalue())


class RestartTests(WatchTestCase):
    """It is ended, and begins again."""

    def test_an_interrupt_ends_it_and_the_next_goes_on(self) -> None:
        self.write("a", b"x" * 100)
        self.script(f"{URL}a", None, None, Deferred())
        result = self.watch("--fragment-size", "40")
        self.pass_by(20)
        self.stop()
        self.assert_status(result, 130)
        self.assertEqual(len(self.journals()), 1)
        self.assertEqual(self.present(), ["a"])
        exchange = self.servers[f"{URL}a"]
        before = len(exchange.packets)
        self.watch("--fragment-size", "40")
        self.pass_by(20)
        self.assertEqual(self.arrived(), {"a": b"x" * 100})
        kinds = [type(packet).__name__ for packet in exchange.packets[before:]]
        self.assertNotIn("CreateSession", kinds)
        self.assertEqual(self.journals(), [])

    def test_what_has_arrived_is_not_sent_again_but_taken_away(self) -> None:
        self.write("a", b"1")
        held: list[Deferred[Any]] = []

        def run(function: Any, *args: Any) -> Deferred[Any]:
            if function is take_away:
                held.append(Deferred())
                return held[-1]
            return maybeDeferred(function, *args)

        self.run = run
        result = self.watch()
        self.pass_by(20)
        self.assertEqual(len(held), 1)
        self.stop()
        self.assert_status(result, 130)
        self.assertEqual(self.present(), ["a"])
        self.run = maybeDeferred
        self.servers.clear()
        self.watch()
        self.pass_by(20)
        self.assertEqual(self.servers_used(), [])
        self.assertEqual(self.present(), [])
        self.assertEqual(self.journals(), [])

    def servers_used(self) -> list[str]:
        return [url for url, each in self.servers.items() if each.packets]

    def test_a_journal_that_cannot_be_used_is_told(self) -> None:
        self.write("a", b"1")

        def run(function: Any, *args: Any) -> Deferred[Any]:
            if getattr(function, "__name__", "") == "_open":
                raise JournalError("no")
            return maybeDeferred(function, *args)

        self.run = run
        self.watch()
        self.pass_by(30)
        self.assertIn("/a: no\n", self.err.getvalue())
        self.assertEqual(self.present(), ["a"])
