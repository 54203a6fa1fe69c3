"""
The table of records of the disk backend.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from uuid import uuid4

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.disk.mortal import Killed, MortalFiles
from txbits.backends.disk._boot import take_over
from txbits.backends.disk._lines import Phase
from txbits.backends.disk._records import Table
from txbits.backends.disk._staged import part_name
from txbits.errors import BackendError, NoSuchSession

_BOOT = b"0123456789abcdef"


class TableTests(SynchronousTestCase):
    """One file, a line a session."""

    def setUp(self):
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        self.table = self.opened()

    def opened(self, boot=_BOOT):
        """The table, as a new process sees it."""
        files = MortalFiles()
        fd = os.open(self.directory, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        table = Table.opened(files, fd, boot)
        self.addCleanup(files.die)
        return table

    def lines(self):
        with open(os.path.join(self.directory, "sessions-1"), "rb") as file:
            return file.read().splitlines()

    def add(self, destination=("name.txt",), owner=None, content_name=None):
        one = uuid4()
        self.table.add(one, 12.5, destination, owner, content_name)
        return one

    def test_a_line_is_readable(self):
        one = self.add(("a", "b"), "me", "c.txt")
        (line,) = self.lines()
        self.assertEqual(len(line), 511)
        self.assertTrue(line.startswith(b"open "))
        self.assertIn(f'["{one}", 12.5, ["a", "b"], "me", "c.txt"]'.encode(), line)

    def test_a_phase_and_a_total_are_read_back_by_another_process(self):
        one = self.add()
        for phase in Phase:
            for total in (None, 0, 2**63 - 1):
                self.table.mark(one, phase, total)
                record = self.opened().read(one)
                self.assertEqual((record.phase, record.total), (phase, total))
                self.assertEqual(record.destination, ("name.txt",))

    def test_a_line_that_is_free_is_used_again(self):
        ids = [self.add() for _ in range(3)]
        self.table.drop(ids[1])
        self.table.drop(ids[1])
        self.assertNotIn(ids[1], self.table)
        with self.assertRaises(NoSuchSession):
            self.table.read(ids[1])
        self.assertEqual(self.lines()[1].strip(), b"free")
        last = self.add()
        self.assertEqual(len(self.lines()), 3)
        self.table = self.opened()
        self.assertEqual(set(self.table.ids()), {ids[0], last, ids[2]})

    def test_free_lines_at_the_end_are_cut_off_by_the_next_process(self):
        ids = [self.add() for _ in range(4)]
        for one in (ids[0], ids[2], ids[3]):
            self.table.drop(one)
        self.table = self.opened()
        self.assertEqual(len(self.lines()), 2)
        self.add()
        self.add()
        self.assertEqual(len(self.lines()), 3)

    def test_a_line_that_was_cut_short_is_none(self):
        one = self.add()
        path = os.path.join(self.directory, "sessions-1")
        with open(path, "ab") as file:
            file.write(b"open       half a line")
        self.table = self.opened()
        self.assertEqual((self.table.ids(), self.table.damaged), ([one], []))
        self.assertEqual(os.path.getsize(path), 512)

    def test_zeros_that_a_crash_left_are_no_record(self):
        path = os.path.join(self.directory, "sessions-1")
        with open(path, "wb") as file:
            file.write(bytes(1024))
        one = self.add()
        self.table = self.opened()
        self.assertEqual((self.table.ids(), self.table.damaged), ([one], []))

    def test_a_damaged_line_is_told_of_and_not_used_again(self):
        first, second = self.add(), self.add()
        with open(os.path.join(self.directory, "sessions-1"), "r+b") as file:
            file.seek(130)
            file.write(b"?")
        self.table = self.opened()
        self.assertEqual(self.table.ids(), [second])
        self.assertEqual(len(self.table.damaged), 1)
        self.assertIn("line 1 ", str(self.table.damaged[0]))
        self.add()
        self.assertEqual(len(self.lines()), 3)
        self.assertIn(str(first).encode(), self.lines()[0])

    def test_a_session_has_one_record(self):
        one = self.add()
        with self.assertRaises(BackendError):
            self.table.add(one, 1.0, ("x",), None, None)
        with self.assertRaises(BackendError):
            self.table.mark(uuid4(), Phase.OPEN, None)
        self.assertEqual(self.table.read(one).destination, ("name.txt",))

    def test_what_is_too_long_lies_aside_and_goes_with_its_line(self):
        one = self.add(("d" * 255, "e" * 255), "me", "\udc80")
        self.assertEqual(
            set(os.listdir(self.directory)),
            {"sessions-1", f"{one}.json".upper().replace("JSON", "json")},
        )
        self.table = self.opened()
        record = self.table.read(one)
        self.assertEqual(record.destination, ("d" * 255, "e" * 255))
        self.assertEqual((record.owner, record.content_name), ("me", "\udc80"))
        self.table.drop(one)
        self.assertEqual(os.listdir(self.directory), ["sessions-1"])

    def test_a_record_whose_file_a_crash_has_lost_is_none(self):
        """Its making was taken back, or half of its removal was."""
        path = os.path.join(self.directory, "{}.json")
        for is_gone in (False, True):
            one = self.add(("d" * 255, "e" * 255))
            (name,) = (n for n in os.listdir(self.directory) if n.endswith(".json"))
            path = os.path.join(self.directory, name)
            if is_gone:
                os.unlink(path)
            else:
                os.truncate(path, 0)
            with self.assertRaises(BackendError):
                self.table.read(one)
            self.table = self.opened()
            self.assertEqual((self.table.ids(), self.table.damaged), ([], []))
            if not is_gone:
                os.unlink(path)

    def test_a_record_aside_that_could_not_be_removed_is_removed_later(self):
        one = self.add(("d" * 255, "e" * 255))
        self.table._files.fail("unlink", 5)  # EIO
        with self.assertRaises(OSError):
            self.table.drop(one)
        self.table.drop(one)
        self.assertEqual(os.listdir(self.directory), ["sessions-1"])

    def test_many_lines_are_read(self):
        ids = {self.add() for _ in range(5000)}
        self.assertEqual(set(self.opened().ids()), ids)

    def test_what_is_safe_is_read_back_with_the_boot_it_was_written_in(self):
        one = self.add()
        for is_kept, in_doubt in ((False, False), (True, False), (False, True)):
            self.table.mark(
                one, Phase.OPEN, 9, 2**63 - 1, is_kept=is_kept, in_doubt=in_doubt
            )
            record = self.opened().read(one)
            self.assertEqual((record.safe, record.boot), (2**63 - 1, _BOOT))
            self.assertEqual((record.is_kept, record.in_doubt), (is_kept, in_doubt))

    def test_lines_that_promise_too_much_are_changed_and_stored(self):
        kept, other = uuid4(), self.add()
        self.table.add(kept, 1.0, ("a",), None, None, is_kept=True)
        self.table = self.opened()
        self.assertEqual(self.table.kept, {kept})
        self.table._files.calls.clear()
        self.table.unkeep()
        self.assertEqual(self.table._files.calls, ["pwrite", "fsync"])
        self.table = self.opened()
        self.assertEqual(self.table.kept, set())
        for one in (kept, other):
            self.assertFalse(self.table.read(one).is_kept)

    def older_line(self, session_id, destination, phase=b"open", total=b"-"):
        """A line as it was before there were safe offsets."""
        fields = (str(session_id), 12.5, destination, None, None)
        body = json.dumps(fields).encode()
        head = b"%-10b %20b " % (phase, total)
        line = b"%b%08x %b" % (head, zlib.crc32(body), body)
        self.assertLess(len(line), 512)
        with open(os.path.join(self.directory, "sessions-1"), "ab") as file:
            file.write(line.ljust(511) + b"\n")

    def test_lines_of_an_older_version_are_read_and_written_anew(self):
        """Also one that is longer then, and has to lie aside."""
        short, long = uuid4(), uuid4()
        name = "d" * 380
        self.older_line(short, ("a",), b"published", b"77")
        self.older_line(long, (name,))
        self.table = self.opened()
        self.assertEqual(self.table.older, {short, long})
        for has_crashed, one in ((False, short), (True, long)):
            self.assertIsNone(self.table.read(one).boot)
            self.table.renew(one, has_crashed)
        self.assertEqual(len(os.listdir(self.directory)), 2)
        self.table = self.opened()
        self.assertEqual(self.table.older, set())
        first, second = self.table.read(short), self.table.read(long)
        self.assertEqual((first.phase, first.total), (Phase.PUBLISHED, 77))
        self.assertEqual((first.boot, first.safe), (_BOOT, 0))
        self.assertEqual(second.destination, (name,))
        self.assertEqual(second.boot, b"0" * 16)

    def test_they_count_unless_the_machine_was_started_since(self):
        """Told by the times of files, since there is nothing better."""
        doubted = b"0" * 16
        for up, disk_ahead, clock_ahead, boot in (
            (1e6, 0.0, 0.0, _BOOT),
            (-1e6, 0.0, 0.0, doubted),
            # The clock of a file server, which is wrong, or ours is.
            (1e6, 2e6, 0.0, doubted),
            (1e6, 3e6, -3e6, _BOOT),
            (1e6, -2e6, 2e6, _BOOT),
            # A clock that is not set yet.
            (1e6, 0.0, -1e9, doubted),
        ):
            staged, empty = uuid4(), uuid4()
            for one in (staged, empty):
                self.older_line(one, ("a",))
            with open(os.path.join(self.directory, part_name(staged)), "wb"):
                pass
            self.table = self.opened()
            take_over(
                self.table._files,
                self.table._directory,
                self.table,
                keeps=False,
                disk_ahead=disk_ahead,
                seconds=lambda ahead=clock_ahead: time.time() + ahead,
                up=lambda up=up: up,
            )
            self.assertEqual(self.table.read(staged).boot, boot)
            # It is as old as its record says.
            self.assertEqual(self.table.read(empty).boot, b"0" * 16)
            for one in (staged, empty):
                self.table.drop(one)

    def test_what_was_published_in_an_earlier_boot_is_undecided(self):
        """Unless its line holds for every boot."""
        undecided = []
        for phase in Phase:
            for in_every_boot in (False, True):
                one = self.add()
                self.table.mark(one, phase, 5, 5, in_every_boot=in_every_boot)
                is_sure = in_every_boot or phase in (Phase.OPEN, Phase.RELEASING)
                if not is_sure:
                    undecided.append(one)
                self.assertTrue(self.table.is_current(self.table.read(one).boot))
        older = uuid4()
        self.older_line(older, ("a",), b"published", b"77")
        self.assertEqual(self.opened().undecided, [older])
        table = self.opened(b"1" * 16)
        self.assertEqual(table.undecided, [*undecided, older])
        for one in undecided:
            self.assertFalse(table.is_current(table.read(one).boot))

    def test_writing_them_anew_ends_when_nobody_waits_for_it(self):
        for _ in range(3):
            self.older_line(uuid4(), ("a",))
        self.table = self.opened()
        calls = []

        def go_on():
            calls.append(None)
            if len(calls) == 2:
                raise BackendError("stopping")

        files, directory = self.table._files, self.table._directory
        with self.assertRaises(BackendError):
            take_over(files, directory, self.table, keeps=False, go_on=go_on)
        self.assertEqual(len(self.table.older), 2)
        self.table = self.opened()
        take_over(files, directory, self.table, keeps=False, go_on=go_on)
        self.assertEqual(self.table.older, set())
        self.assertEqual(len(calls), 4)

    def test_writing_them_anew_may_be_cut_short_at_any_call(self):
        for calls in range(20):
            path = os.path.join(self.directory, "sessions-1")
            os.unlink(path)
            one = uuid4()
            self.older_line(one, ("d" * 380,))
            table = self.opened()
            table._files.die_after(calls)
            with contextlib.suppress(Killed):
                table.renew(one, False)
            is_through = not table._files._dead
            self.table = self.opened()
            self.assertEqual(self.table.damaged, [])
            self.assertEqual(self.table.read(one).destination, ("d" * 380,))
            if is_through:
                return
            self.table.renew(one, False)
            self.table.drop(one)
            self.assertEqual(os.listdir(self.directory), ["sessions-1"])
        self.fail("it never ends")

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(
            st.tuples(st.sampled_from("amd"), st.integers(0, 20), st.text()),
            max_size=30,
        )
    )
    def test_it_is_what_a_dictionary_would_be(self, steps):
        """However records come and go, another process reads what is there."""
        path = os.path.join(self.directory, "sessions-1")
        os.unlink(path)
        self.table = self.opened()
        model = {}
        for step, number, text in steps:
            ids = list(model)
            if step == "a" or not ids:
                model[self.add((text,), text, text)] = (text, Phase.OPEN, None)
            elif step == "m":
                one = ids[number % len(ids)]
                phase = list(Phase)[number % len(Phase)]
                self.table.mark(one, phase, number)
                model[one] = (model[one][0], phase, number)
            else:
                one = ids[number % len(ids)]
                self.table.drop(one)
                del model[one]
        again = self.opened()
        self.assertEqual(again.damaged, [])
        found = {}
        for one in again.ids():
            record = again.read(one)
            self.assertEqual(record.destination, (record.owner,))
            found[one] = (record.owner, record.phase, record.total)
        self.assertEqual(found, model)
        names = [n for n in os.listdir(self.directory) if n.endswith(".json")]
        for name in names:
            os.unlink(os.path.join(self.directory, name))
