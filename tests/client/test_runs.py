"""
The journal that the uploads of one run share.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.client.crashes import FATES, FragileDisk
from txbits.client._files import Files
from txbits.client._journals import forget, forget_old, look_into
from txbits.client._runs import (
    FileJournal,
    Lines,
    RunJournal,
    is_taken,
    journals_of_runs,
)
from txbits.client.journal import JournalBusy, JournalError, name_of
from txbits.client.source import FileIdentity
from txbits.protocol.upload import Position

URL = "http://h/in/"
NAMES = ("a", "b", "c")
HALF = Position("session-1", 500)


def file_called(name: str, modified: int = 4) -> FileIdentity:
    return FileIdentity(f"/data/{name}", 1, 2, 1000, modified)


def journal_name(name: str) -> str:
    return name_of(URL + name, f"/data/{name}")


class RunJournalTestCase(SynchronousTestCase):
    """A run of three files."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.clock = Clock()
        self.now = 1_700_000_000.0
        self.files = Files()
        self.opened: list[RunJournal] = []

    def opening(self, names: tuple[str, ...], url: str) -> Deferred[RunJournal]:
        return RunJournal.open(
            self.directory,
            url,
            [journal_name(name) for name in names],
            clock=self.clock,
            now=lambda: self.now,
            run=maybeDeferred,
            files=self.files,
        )

    def open(self, names: tuple[str, ...] = NAMES, url: str = URL) -> RunJournal:
        journal = self.successResultOf(self.opening(names, url))
        self.opened.append(journal)
        return journal

    def tearDown(self) -> None:
        for journal in self.opened:
            self.kill(journal)

    def kill(self, journal: RunJournal) -> None:
        """What a SIGKILL leaves: what was written, and no lock."""
        call, journal._call = journal._call, None
        if call is not None:
            call.cancel()
        descriptor, journal._descriptor = journal._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def part(self, journal: RunJournal, name: str, modified: int = 4) -> FileJournal:
        return journal.of_file(URL + name, file_called(name, modified))

    def save(self, journal: RunJournal, name: str, position: Position = HALF) -> None:
        self.successResultOf(self.part(journal, name).save(position))

    def finish(self, journal: RunJournal, name: str) -> None:
        self.successResultOf(self.part(journal, name).finish(Position("s", 1000)))

    def end(self, journal: RunJournal, *, all_done: bool) -> None:
        self.successResultOf(journal.finish(all_done=all_done))

    def listed(self) -> list[str]:
        return sorted(os.listdir(self.directory))


class ContentTests(RunJournalTestCase):
    """What one run leaves to the next."""

    def test_a_killed_run_leaves_all_that_it_wrote(self) -> None:
        first = self.open()
        self.save(first, "a")
        self.finish(first, "b")
        self.kill(first)
        second = self.open()
        found = self.part(second, "a").found
        assert found is not None
        self.assertEqual((found.position, found.done), (HALF, False))
        done = self.part(second, "b").found
        assert done is not None
        self.assertTrue(done.done)
        self.assertIsNone(self.part(second, "c").found)

    def test_there_is_one_file_and_others_cannot_read_it(self) -> None:
        journal = self.open()
        for name in NAMES:
            self.save(journal, name)
        (name,) = self.listed()
        mode = os.stat(self.directory / name).st_mode
        self.assertEqual(stat.S_IMODE(mode), 0o600)

    def test_nothing_is_left_when_all_is_done(self) -> None:
        journal = self.open()
        for name in NAMES:
            self.finish(journal, name)
        self.end(journal, all_done=True)
        self.assertEqual(self.listed(), [])

    def test_nothing_is_left_when_nothing_has_begun(self) -> None:
        self.end(self.open(), all_done=False)
        self.assertEqual(self.listed(), [])

    def test_a_removed_file_is_forgotten(self) -> None:
        journal = self.open()
        self.save(journal, "a")
        self.successResultOf(self.part(journal, "a").remove())
        self.kill(journal)
        self.assertIsNone(self.part(self.open(), "a").found)

    def test_another_state_of_a_file_is_told_apart(self) -> None:
        journal = self.open()
        self.save(journal, "a")
        self.kill(journal)
        part = self.part(self.open(), "a", modified=5)
        self.assertIsNone(part.found)
        assert part.stale is not None
        self.assertEqual(part.stale.position, HALF)

    def test_a_run_of_other_files_keeps_what_it_does_not_touch(self) -> None:
        first = self.open(("a", "b"))
        self.save(first, "a")
        self.end(first, all_done=False)
        second = self.open(("b", "c"))
        self.finish(second, "b")
        self.finish(second, "c")
        self.end(second, all_done=True)
        self.assertIsNotNone(self.part(self.open(), "a").found)

    def test_the_query_is_not_in_it(self) -> None:
        journal = self.open(url=URL + "?sig=secret")
        file = file_called("a")
        part = journal.of_file(f"{URL}a?sig=secret", file)
        self.successResultOf(part.save(HALF))
        self.assertNotIn(b"secret", journal.path.read_bytes())

    def test_it_is_rewritten_when_it_has_grown(self) -> None:
        journal = self.open()
        part = self.part(journal, "a")
        journal._growth = 16 * 1024 * 1024
        self.successResultOf(part.save(HALF))
        before = journal.path.stat().st_size
        for offset in range(10):
            self.successResultOf(part.save(Position("session-1", offset)))
        journal._growth = 16 * 1024 * 1024
        self.successResultOf(part.save(HALF))
        self.assertEqual(journal.path.stat().st_size, before)
        with self.assertRaises(BlockingIOError):
            self.files.open_locked(str(journal.path))
        self.kill(journal)
        found = self.part(self.open(), "a").found
        assert found is not None
        self.assertEqual(found.position, HALF)

    @given(st.binary(max_size=200))
    def test_garbage_is_ignored(self, text: bytes) -> None:
        self.assertEqual(Lines.read(text).entries, {})


class LockTests(RunJournalTestCase):
    """Runs at the same time."""

    def test_a_file_of_a_run_under_way_is_busy_before_its_turn(self) -> None:
        self.open(("a", "b"))
        second = self.open(("b", "c"))
        with self.assertRaises(JournalBusy):
            self.part(second, "b")
        self.save(second, "c")
        self.assertEqual(len(journals_of_runs(self.directory)), 2)

    def test_one_that_is_done_is_not(self) -> None:
        first = self.open(("a", "b"))
        self.finish(first, "b")
        self.assertIsNone(self.part(self.open(("b",)), "b").found)

    def test_a_single_upload_can_ask(self) -> None:
        first = self.open(("a",))
        self.assertTrue(is_taken(self.directory, journal_name("a")))
        self.assertFalse(is_taken(self.directory, journal_name("b")))
        self.kill(first)
        self.assertFalse(is_taken(self.directory, journal_name("a")))

    def test_journals_of_two_runs_become_one(self) -> None:
        first, second = self.open(("a",)), self.open(("b",))
        self.save(first, "a")
        self.save(second, "b")
        self.kill(first)
        self.kill(second)
        third = self.open()
        self.assertEqual(journals_of_runs(self.directory), [third.path])
        self.assertIsNotNone(self.part(third, "a").found)
        self.assertIsNotNone(self.part(third, "b").found)

    def test_the_later_of_two_entries_counts(self) -> None:
        journal = self.open(("a",))
        self.save(journal, "a")
        other = Path(str(journal.path).replace(".0.", ".1."))
        other.write_bytes(journal.path.read_bytes())
        self.now += 1
        self.save(journal, "a", Position("session-2", 1))
        self.kill(journal)
        found = self.part(self.open(), "a").found
        assert found is not None
        self.assertEqual(found.position.session_id, "session-2")
        self.assertFalse(other.exists())

    def test_without_locks_that_is_said(self) -> None:
        def flock(descriptor: int, kind: int) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        self.files = Files(flock=flock)
        self.assertFalse(self.open().is_alone)


class LookTests(RunJournalTestCase):
    """What others see of it."""

    def test_each_file_that_has_begun_is_found(self) -> None:
        journal = self.open()
        self.save(journal, "a")
        self.finish(journal, "b")
        found = list(look_into(self.directory))
        self.assertEqual([each.running for each in found], [True, True])
        self.kill(journal)
        found = list(look_into(self.directory))
        self.assertEqual([each.running for each in found], [False, False])
        entries = [each.entry for each in found if each.entry is not None]
        self.assertEqual([entry.url for entry in entries], [URL + "a", URL + "b"])

    def test_entries_can_be_forgotten_unless_the_run_is_under_way(self) -> None:
        journal = self.open()
        self.save(journal, "a")
        self.finish(journal, "b")
        self.assertEqual(forget(look_into(self.directory)), 0)
        running = list(look_into(self.directory))
        self.kill(journal)
        first, second = look_into(self.directory)
        self.assertEqual(forget([first]), 1)
        (left,) = look_into(self.directory)
        self.assertEqual(left, second)
        self.assertEqual(forget([left]), 1)
        self.assertEqual(self.listed(), [])
        self.assertEqual(forget(running), 0)

    def test_old_ones_are_forgotten(self) -> None:
        journal = self.open()
        self.save(journal, "a")
        self.kill(journal)
        forget_old(self.directory, self.now + 29 * 86400)
        self.assertEqual(len(self.listed()), 1)
        forget_old(self.directory, self.now + 31 * 86400)
        self.assertEqual(self.listed(), [])


class DiskTests(RunJournalTestCase):
    """Disks that fail, and machines that crash."""

    def synced(self) -> list[bytes]:
        """Record what each sync of the journal makes durable."""
        texts: list[bytes] = []

        def fsync(descriptor: int) -> None:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode):
                texts.append(os.pread(descriptor, status.st_size, 0))

        self.files = Files(fsync=fsync)
        return texts

    def test_lines_are_synced_together_after_a_second(self) -> None:
        texts = self.synced()
        journal = self.open()
        before = len(texts)
        for name in NAMES:
            self.save(journal, name)
        self.assertEqual(len(texts), before)
        self.clock.advance(1)
        self.assertEqual(texts[before:], [journal.path.read_bytes()])
        self.clock.advance(10)
        self.assertEqual(len(texts), before + 1)
        self.save(journal, "a")
        self.clock.advance(1)
        self.assertEqual(len(texts), before + 2)

    def test_the_end_is_synced(self) -> None:
        texts = self.synced()
        journal = self.open()
        self.save(journal, "a")
        self.end(journal, all_done=False)
        self.assertEqual(texts[-1], journal.path.read_bytes())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_was_synced_survives_a_crash(self) -> None:
        for fate in FATES:
            self.directory = Path(self.mktemp())
            disk = FragileDisk(self.directory)
            self.files = disk.files
            journal = self.open()
            self.save(journal, "a")
            self.finish(journal, "b")
            self.clock.advance(1)
            self.save(journal, "c")
            self.kill(journal)
            disk.crash(fate)
            journal = self.open()
            first, second = self.part(journal, "a"), self.part(journal, "b")
            assert first.found is not None and second.found is not None
            self.assertEqual(first.found.position, HALF)
            self.assertTrue(second.found.done)
            self.assertIsNone(self.part(journal, "c").stale)

    def test_a_line_that_was_cut_short_costs_no_other(self) -> None:
        journal = self.open()
        self.save(journal, "a")
        whole = journal.path.read_bytes()
        self.save(journal, "b")
        self.kill(journal)
        for end in range(len(whole), journal.path.stat().st_size):
            os.truncate(journal.path, end)
            lines = Lines.read(journal.path.read_bytes())
            self.assertIn(journal_name("a"), lines.entries)

    def test_a_disk_that_fails_is_told_at_the_next_step(self) -> None:
        journal = self.open()
        journal._files = Files(fsync=_fail)
        self.save(journal, "a")
        part = self.part(journal, "a")
        self.clock.advance(1)
        saving = part.save(HALF)
        self.assertIn(
            "Input/output error", str(self.failureResultOf(saving, JournalError).value)
        )

    def test_no_file_begins_while_the_journal_has_no_room(self) -> None:
        journal = self.open()
        descriptor, journal._descriptor = journal._descriptor, _full()
        self.addCleanup(os.close, journal._descriptor)
        self.failureResultOf(self.part(journal, "a").save(HALF), JournalError)
        with self.assertRaisesRegex(JournalError, "No space left"):
            self.part(journal, "b")
        journal._descriptor = descriptor
        self.successResultOf(self.part(journal, "b").save(HALF))

    def test_a_place_that_cannot_be_written_to_is_told(self) -> None:
        self.directory = Path("/proc/none")
        words = str(self.failureResultOf(self.opening(NAMES, URL), JournalError).value)
        self.assertIn("/proc/none: ", words)


def _full() -> int:
    return os.open("/dev/full", os.O_RDWR)


def _fail(descriptor: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))
