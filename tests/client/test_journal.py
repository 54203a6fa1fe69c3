"""
Journals: what is in them, who may write, and what is made of damaged ones.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from tests.client.crashes import FATES, FragileDisk
from txbits.client._files import Files
from txbits.client._journals import (
    forget_old,
    look_at,
    look_into,
    state_directory,
)
from txbits.client.journal import (
    Entry,
    Journal,
    JournalBusy,
    JournalError,
    locked,
    name_of,
)
from txbits.client.source import FileIdentity
from txbits.protocol.upload import Position

SESSION = "{7DF0354D-249B-430F-820D-3D2A9BEF4931}"
FILE = FileIdentity("/data/ä\udcff", 1, 2, 1000, 4)
URL = "https://h/x"
POSITION = Position(SESSION, 500, "h2", 60, 12.5, "http://h/r")


class JournalTestCase(SynchronousTestCase):
    """A journal in a folder that is not there yet."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "state" / "x.json"
        self.now = 1_700_000_000.0
        self.files = Files()

    def open(self, file: FileIdentity = FILE, url: str = URL) -> Journal:
        journal = self.successResultOf(
            Journal.open(
                self.path, url, file, lambda: self.now, maybeDeferred, self.files
            )
        )
        self.addCleanup(journal.close)
        return journal

    def refuse(self, kind: type[Exception], **arguments: Any) -> str:
        result = Journal.open(
            arguments.get("path", self.path),
            arguments.get("url", URL),
            arguments.get("file", FILE),
            lambda: self.now,
            maybeDeferred,
        )
        words = str(self.failureResultOf(result, kind).value)
        self.assertEqual(len(words.splitlines()), 1)
        return words

    def save(self, journal: Journal, position: Position = POSITION) -> None:
        self.successResultOf(journal.save(position))


class ContentTests(JournalTestCase):
    """What is in them."""

    def test_what_was_saved_is_found(self) -> None:
        first = self.open()
        self.assertIsNone(first.found)
        self.now += 10
        self.save(first)
        first.close()
        self.now += 10
        self.assertEqual(
            self.open().found,
            Entry(URL, FILE, POSITION, False, 1_700_000_000.0, 1_700_000_010.0),
        )

    def test_nobody_else_can_read_them(self) -> None:
        self.save(self.open())
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(self.path.parent).st_mode), 0o700)

    def test_the_query_is_not_in_them(self) -> None:
        journal = self.open(url=URL + "?sig=secret")
        self.save(journal)
        self.assertNotIn("secret", self.path.read_text())
        journal.close()
        self.assertIsNotNone(self.open(url=URL + "?sig=another").found)

    def test_another_state_of_the_file_is_told_apart(self) -> None:
        journal = self.open()
        self.save(journal)
        journal.close()
        for other in (
            FileIdentity(FILE.path, 1, 2, 1000, 5),
            FileIdentity(FILE.path, 1, 3, 1000, 4),
            FileIdentity(FILE.path, 1, 2, 999, 4),
        ):
            journal = self.open(other)
            self.assertIsNone(journal.found)
            assert journal.stale is not None
            self.assertEqual(journal.stale.position, POSITION)
            journal.close()

    def test_its_time_may_be_left_out_of_account(self) -> None:
        timeless = FileIdentity(FILE.path, 1, 2, 1000, None)
        for first, second in ((FILE, timeless), (timeless, timeless), (timeless, FILE)):
            journal = self.open(first)
            self.save(journal)
            journal.close()
            journal = self.open(second)
            self.assertIsNotNone(journal.found)
            self.successResultOf(journal.remove())

    def test_the_journal_of_another_upload_is_left_alone(self) -> None:
        journal = self.open()
        self.save(journal)
        journal.close()
        before = self.path.read_bytes()
        self.assertIn("another upload", self.refuse(JournalError, url="http://h/y"))
        other = FileIdentity("/other", 1, 2, 1000, 4)
        self.assertIn("another upload", self.refuse(JournalError, file=other))
        self.assertEqual(self.path.read_bytes(), before)

    def test_what_is_no_journal_is_left_alone(self) -> None:
        self.path.parent.mkdir(parents=True)
        good = json.loads(Entry(URL, FILE, POSITION, False, 1.0, 1.0).to_json())
        for text in (
            "{",
            "[]",
            "null",
            "{}",
            "7",
            json.dumps({**good, "version": 3}),
            json.dumps({**good, "version": 1, "session": "x"}),
            json.dumps({**good, "session": "x\r\ny"}),
            json.dumps({**good, "session": "x" * 101}),
            json.dumps({**good, "session": ""}),
            json.dumps({**good, "session": 7}),
            json.dumps({**good, "offset": 1001}),
            json.dumps({**good, "offset": "much"}),
            json.dumps({**good, "length": None}),
            "[" * 10_000,
        ):
            self.path.write_text(text)
            self.assertIn("is no journal", self.refuse(JournalError))
            self.assertEqual(self.path.read_text(), text)

    def test_a_session_is_called_as_its_server_does(self) -> None:
        for session in ("abc-123", SESSION.lower(), "a=/b c", "\xe9\xff", None):
            entry = Entry(URL, FILE, Position(session), False, 1.0, 1.0)
            found = Entry.from_json(entry.to_json().encode())
            self.assertEqual(found.position.session_id, session)

    def test_journals_of_the_first_version_are_read(self) -> None:
        # They knew GUIDs only, and left the braces away, which went onto the wire.
        entry = Entry(URL, FILE, POSITION, False, 1.0, 1.0)
        old = {**json.loads(entry.to_json()), "version": 1}
        for session, expected in ((SESSION.strip("{}"), SESSION), (None, None)):
            text = json.dumps({**old, "session": session}).encode()
            self.assertEqual(Entry.from_json(text).position.session_id, expected)

    @given(st.binary(max_size=200))
    def test_garbage_is_a_value_error(self, text: bytes) -> None:
        self.assertRaises(ValueError, Entry.from_json, text)

    def test_removing_leaves_nothing(self) -> None:
        journal = self.open()
        self.save(journal)
        self.path.with_name(f"{self.path.name}.new").touch()
        self.successResultOf(journal.remove())
        self.assertEqual(os.listdir(self.path.parent), [])


class LockTests(JournalTestCase):
    """Two runs of one upload."""

    def test_the_second_is_told(self) -> None:
        journal = self.open()
        self.assertIn("another txbits", self.refuse(JournalBusy))
        self.save(journal)
        self.assertIn("another txbits", self.refuse(JournalBusy))
        self.save(journal, Position(SESSION, 600))
        self.assertIn("another txbits", self.refuse(JournalBusy))
        journal.close()
        self.open()

    def test_whoever_waited_for_a_version_that_was_replaced_gets_none(self) -> None:
        journal = self.open()
        old = os.open(self.path, os.O_RDWR)
        self.addCleanup(os.close, old)
        self.save(journal)
        # It is free now, but it is not the journal any more.
        fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.refuse(JournalBusy)

    def test_after_removal_another_can_begin(self) -> None:
        self.successResultOf(self.open().remove())
        self.assertIsNone(self.open().found)

    def test_closing_twice_is_safe(self) -> None:
        journal = self.open()
        journal.close()
        journal.close()


class FailureTests(JournalTestCase):
    """Journals that cannot be had."""

    def test_a_place_that_cannot_be_written_to_is_said(self) -> None:
        words = self.refuse(JournalError, path=Path("/proc/none/x.json"))
        self.assertIn("/proc/none/x.json: ", words)

    def test_a_symbolic_link_is_not_followed(self) -> None:
        self.path.parent.mkdir(parents=True)
        target = Path(self.mktemp())
        self.path.symlink_to(target.absolute())
        self.refuse(JournalError)
        self.assertFalse(target.exists())

    def test_a_journal_of_another_user_is_not_believed(self) -> None:
        self.save(self.open())
        path = self.path.with_name("y.json")
        path.write_bytes(self.path.read_bytes())
        with self.assertRaisesRegex(JournalError, "belongs to another user"):
            locked(path, os.geteuid() + 1)
        os.close(locked(path)[0])

    def test_numbers_that_are_none_make_no_journal(self) -> None:
        journal = self.open()
        self.save(journal)
        journal.close()
        good = json.loads(self.path.read_text())
        for name in ("offset", "length", "updated", "began", "failing_since"):
            for number in (float("inf"), float("nan"), -float("inf")):
                self.path.write_text(json.dumps({**good, name: number}))
                self.assertIn("is no journal", self.refuse(JournalError))
                (found,) = look_at(self.path)
                self.assertIsNone(found.entry)

    def test_a_journal_that_cannot_be_replaced_is_said_and_kept(self) -> None:
        journal = self.open()
        self.save(journal)
        before = self.path.read_bytes()
        temporary = self.path.with_name(f"{self.path.name}.new")
        temporary.mkdir()
        self.failureResultOf(journal.save(Position(SESSION, 600)), JournalError)
        self.assertEqual(self.path.read_bytes(), before)
        self.refuse(JournalBusy)


class CrashTests(JournalTestCase):
    """Machines that crash."""

    def test_what_was_saved_is_found_whatever_was_being_written(self) -> None:
        for fate in FATES:
            self.path = Path(self.mktemp()) / "x.json"
            disk = FragileDisk(self.path.parent)
            self.files = disk.files
            for offset in (0, 100, 200):
                journal = self.open()
                self.save(journal, Position(SESSION, offset))
                # The next version comes only so far.
                journal.files = Files(fsync=_end)
                self.failureResultOf(journal.save(POSITION), KeyboardInterrupt)
                journal.close()
                disk.crash(fate)
                journal = self.open()
                found = journal.found
                assert found is not None, (fate, offset)
                self.assertEqual(found.position, Position(SESSION, offset))
                journal.close()

    def test_the_name_is_made_durable(self) -> None:
        folders: list[int] = []

        def fsync(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                folders.append(os.fstat(descriptor).st_ino)

        self.files = Files(fsync=fsync)
        self.save(self.open())
        self.assertEqual(folders, [self.path.parent.stat().st_ino])

    def test_zeros_are_no_journal_and_are_said(self) -> None:
        journal = self.open()
        self.save(journal)
        journal.close()
        self.path.write_bytes(bytes(500))
        journal = self.open()
        self.assertTrue(journal.was_lost)
        self.assertIsNone(journal.found)
        self.save(journal)
        journal.close()
        self.assertFalse(self.open().was_lost)

    def test_a_disk_that_fails_is_said(self) -> None:
        journal = self.open()
        disk = FragileDisk(self.path.parent, [OSError(errno.EIO, "I/O error")])
        journal.files = disk.files
        self.failureResultOf(journal.save(POSITION), JournalError)


def _end(descriptor: int) -> None:
    raise KeyboardInterrupt


class FileSystemTests(JournalTestCase):
    """File systems that cannot do everything, and folders where others have been."""

    def test_without_locks_it_goes_on_and_is_said(self) -> None:
        for number in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):

            def flock(descriptor: int, kind: int, number: int = number) -> None:
                raise OSError(number, os.strerror(number))

            self.files = Files(flock=flock)
            journal = self.open()
            self.assertFalse(journal.is_alone)
            self.save(journal)
            (found,) = look_at(self.path, self.files)
            self.assertFalse(found.running)
            self.successResultOf(journal.remove())
        self.files = Files()
        self.assertTrue(self.open().is_alone)

    def test_a_link_in_place_of_the_next_version_is_not_followed(self) -> None:
        victim = Path(self.mktemp())
        victim.write_bytes(b"precious")
        temporary = self.path.with_name(f"{self.path.name}.new")
        journal = self.open()
        for make in (temporary.symlink_to, temporary.hardlink_to):
            make(victim.absolute())
            self.save(journal)
            self.assertEqual(victim.read_bytes(), b"precious")
            self.assertFalse(self.path.is_symlink())
            self.assertEqual(self.path.stat().st_nlink, 1)

    def test_a_pipe_is_no_journal(self) -> None:
        self.path.parent.mkdir(parents=True)
        os.mkfifo(self.path)
        self.assertIn("is not a regular file", self.refuse(JournalError))

    def test_folders_that_it_makes_are_closed_to_others(self) -> None:
        top = Path(self.mktemp())
        self.path = top / "a" / "b" / "x.json"
        self.open()
        for folder in (top, top / "a", top / "a" / "b"):
            self.assertEqual(stat.S_IMODE(folder.stat().st_mode), 0o700)


class PlaceTests(SynchronousTestCase):
    """Where they are."""

    def test_it_is_the_state_directory_of_the_user(self) -> None:
        for environ, place in (
            ({"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/txbits"),
            ({"XDG_STATE_HOME": "s", "HOME": "/h"}, "/h/.local/state/txbits"),
            ({"HOME": "/h"}, "/h/.local/state/txbits"),
        ):
            self.assertEqual(state_directory(environ), Path(place))

    def test_without_one_that_is_said(self) -> None:
        for environ in ({}, {"HOME": ""}, {"HOME": "h"}):
            self.assertRaises(JournalError, state_directory, environ)

    def test_each_pair_of_file_and_url_has_a_name(self) -> None:
        names = {
            name_of(url, path)
            for url in ("http://h/x", "http://h/y", "http://h/x?q")
            for path in ("/a", "/b", "/\udcff")
        }
        self.assertEqual(len(names), 6)


class LookTests(JournalTestCase):
    """What ``txbits status`` sees."""

    def test_journals_are_found_and_those_at_work_are_told_apart(self) -> None:
        self.save(self.open())
        directory = self.path.parent
        (directory / "y.json").write_bytes(self.path.read_bytes())
        (directory / "z.json").write_text("{")
        (directory / "empty.json").touch()
        (directory / "other").touch()
        running, resting, damaged = look_into(directory)
        self.assertEqual((running.running, resting.running), (True, False))
        assert running.entry is not None
        self.assertEqual(running.entry.position, POSITION)
        self.assertEqual((damaged.path.name, damaged.entry), ("z.json", None))

    def test_what_is_no_file_is_no_journal_and_nobody_waits_for_it(self) -> None:
        self.save(self.open())
        directory = self.path.parent
        os.mkfifo(directory / "a.json")
        (directory / "b.json").mkdir()
        (directory / "c.json").symlink_to("c.json")
        (directory / "d.json").symlink_to(self.path.name)
        (found,) = look_into(directory)
        self.assertEqual(found.path, self.path)
        forget_old(directory, self.now)

    def test_what_is_not_there_is_not_found(self) -> None:
        self.assertEqual(look_at(self.path), [])
        self.assertEqual(list(look_into(self.path.parent)), [])
