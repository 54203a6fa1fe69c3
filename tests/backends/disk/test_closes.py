"""
The closes that the disk backend remembers, in files that are only appended to.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

from tests.backends.disk.mortal import DiskCase
from txbits.backends.disk import _closes
from txbits.backends.disk._files import Files
from txbits.errors import BackendError, OutOfSpace

_LONG = tuple(letter * 200 for letter in "defgh")


class CloseRecordTests(DiskCase):
    """What stays of an upload."""

    def setUp(self):
        self.backend = self.start()
        self.closes = self.backend._staging.closes

    def files(self):
        """What lies in the directory: names and lengths."""
        directory = os.path.join(self.backend.root, ".bits-sessions", "closed")
        return {
            name: os.path.getsize(os.path.join(directory, name))
            for name in os.listdir(directory)
        }

    def remember(self, at, destination=("a",)):
        one = uuid4()
        self.closes.remember(one, destination, None, at)
        return one

    def clean_up(self, before):
        """What the disk backend does."""
        return self.faults(before, self.closes.conclude())

    def faults(self, before, concluded, now=20.0):
        steps = self.closes.clean_up(before, concluded, now)
        return [step for step in steps if isinstance(step, BackendError)]

    def recalled(self, ids, destination=("a",)):
        """Those of the ids that are."""
        recalls = self.backend.recalls_close
        return [
            one for one in ids if self.successResultOf(recalls(one, destination, None))
        ]

    def test_a_record_is_short_whatever_the_names(self):
        ids = [
            self.remember(1.0, destination)
            for destination in (("a",), ("🛰" * 60,), _LONG)
        ]
        self.assertEqual(self.files(), {"0000000001": 120})
        self.assertEqual(self.recalled(ids, _LONG), ids[2:])

    def test_what_one_process_wrote_another_adds_to_in_a_file_of_its_own(self):
        first = self.remember(1.0)
        self.backend = self.reopened(self.backend)
        self.closes = self.backend._staging.closes
        second = self.remember(2.0)
        self.assertEqual(sorted(self.files()), ["0000000001", "0000000002"])
        self.assertEqual(self.recalled([first, uuid4(), second]), [first, second])

    def test_a_record_that_was_cut_short_is_none(self):
        kept, cut = self.remember(1.0), self.remember(1.0)
        path = os.path.join(self.backend.root, ".bits-sessions/closed/0000000001")
        self.assertEqual(self.recalled([kept, cut]), [kept, cut])
        os.truncate(path, 71)
        self.closes.conclude()
        self.assertEqual(self.recalled([kept, cut]), [kept])
        self.assertEqual(self.clean_up(0.0), [])
        self.assertEqual(self.files(), {"0000000001": 40})

    def test_a_full_disk_loses_only_what_does_not_fit(self):
        first = self.remember(1.0)
        self.backend._files.room = 7
        with self.assertRaises(OutOfSpace):
            self.remember(1.0)
        self.backend._files.room = None
        second = self.remember(1.0)
        self.assertEqual(self.recalled([first, second]), [first, second])

    def noted(self, number):
        ids = [uuid4() for _ in range(number)]
        self.closes.note(*(_closes.record_of(one, ("a",), None, 1.0) for one in ids))
        return ids

    def test_what_is_noted_is_recalled_and_written_with_one_call(self):
        ids = self.noted(3)
        self.closes.conclude()
        self.assertEqual(self.recalled([*ids, uuid4()]), ids)
        self.assertEqual(self.files(), {})
        self.backend._files.calls.clear()
        self.closes.write_noted()
        self.assertEqual(self.backend._files.calls, ["open", "pwrite"])
        self.closes.write_noted()
        self.assertEqual(self.files(), {"0000000001": 120})
        self.assertEqual(self.recalled(ids), ids)
        self.closes.conclude()
        self.assertEqual(self.recalled(ids), ids)

    def test_what_does_not_fit_stays_noted(self):
        ids = self.noted(3)
        self.backend._files.room = 50
        with self.assertRaises(OutOfSpace):
            self.closes.write_noted()
        self.backend._files.room = None
        self.assertEqual(self.recalled(ids), ids)
        self.closes.write_noted()
        self.assertEqual(self.files(), {"0000000001": 120})
        self.assertEqual(self.recalled(ids), ids)

    def test_no_file_becomes_much_too_long(self):
        self.patch(_closes, "_MOST_WRITTEN", 2)
        self.patch(_closes, "_LONGEST", 3 * 40)
        ids = self.noted(7)
        self.closes.write_noted()
        self.assertEqual(self.files(), {"0000000001": 160, "0000000002": 120})
        self.assertEqual(self.recalled(ids), ids)

    def test_old_closes_are_forgotten_one_by_one(self):
        ids = [self.remember(float(at)) for at in range(6)]
        self.assertEqual(self.clean_up(3.0), [])
        self.assertEqual(self.recalled(ids), ids[3:])
        self.assertEqual(self.files(), {"0000000001": 120})
        self.assertEqual(self.clean_up(3.0), [])
        self.assertEqual(self.recalled(ids), ids[3:])
        self.assertEqual(self.clean_up(6.0), [])
        self.assertEqual(self.files(), {})

    def test_a_file_that_is_written_to_is_not_cleaned_up(self):
        first = self.remember(1.0)
        self.assertEqual(self.faults(2.0, 0), [])
        self.assertEqual(self.recalled([first]), [first])

    def test_a_clean_up_forgets_what_was_written_before_it_began(self):
        first = self.remember(1.0)
        self.successResultOf(self.backend.clean_up(2.0))
        second = self.remember(1.0)
        self.assertEqual(self.recalled([first, second]), [second])
        self.assertEqual(self.backend.removed_counts()["close"], 1)

    def test_closes_that_were_forgotten_are_counted(self):
        for at in range(6):
            self.remember(float(at))
        for before, forgotten in ((3.0, 3), (3.0, 3), (5.0, 5), (9.0, 6)):
            self.successResultOf(self.backend.clean_up(before))
            self.assertEqual(self.backend.removed_counts()["close"], forgotten)

    def test_a_clean_up_tells_what_it_could_not_do_and_does_the_rest(self):
        ids = []
        for at in (1.0, 2.0, 3.0):
            ids.append(self.remember(at))
            self.closes.conclude()
        self.backend._files.fail("unlink", 5)  # EIO
        (fault,) = self.clean_up(3.0)
        self.assertIsInstance(fault, BackendError)
        self.assertEqual(self.recalled(ids), [ids[0], ids[2]])

    def test_a_clean_up_without_space_keeps_all(self):
        ids = [self.remember(1.0), self.remember(9.0)]
        self.backend._files.room = 3
        (fault,) = self.clean_up(5.0)
        self.assertIsInstance(fault, OutOfSpace)
        self.assertEqual(self.recalled(ids), ids)
        self.backend._files.room = None
        self.assertEqual(sorted(self.files()), ["0000000001", "0000000001.new"])
        self.assertEqual(self.clean_up(10.0), [])
        self.assertEqual(self.files(), {})

    def test_two_who_look_at_the_same_time_both_see_all(self):
        """As a clean-up and a Close that was sent again do, each in a thread."""
        files = self.backend._files
        listing = self.closes._directory
        for number in range(2000):
            path = f"{number + 10:010}"
            os.close(files.open(path, os.O_CREAT | os.O_WRONLY, dir_fd=listing))
        with ThreadPoolExecutor(4) as threads:
            looks = [threads.submit(Files.listdir, listing) for _ in range(200)]
            self.assertEqual({len(look.result()) for look in looks}, {2000})

    def test_a_long_file_is_followed_by_another(self):
        first = self.remember(1.0)
        self.closes._length = _closes._LONGEST
        second = self.remember(2.0)
        self.assertEqual(sorted(self.files()), ["0000000001", "0000000002"])
        self.assertEqual(self.recalled([first, second]), [first, second])

    def test_a_file_is_looked_through_once(self):
        ids = [self.remember(1.0) for _ in range(5)]
        self.closes.conclude()
        self.assertEqual(self.recalled(ids), ids)
        self.backend._files.calls.clear()
        self.assertEqual(self.recalled([ids[3], uuid4()]), [ids[3]])
        # The one record, and nothing of the other.
        self.assertEqual(self.backend._files.calls.count("pread"), 1)

    def test_what_is_written_to_is_known_without_reading(self):
        ids = [self.remember(1.0) for _ in range(5)]
        self.backend._files.calls.clear()
        self.assertEqual(self.recalled(ids), ids)
        self.assertNotIn("pread", self.backend._files.calls)

    def test_closes_of_all_files_are_recalled_however_many_there_are(self):
        ids = []
        for number in range(70):
            ids += [self.remember(float(number)) for _ in range(3)]
            self.closes.conclude()
        self.assertEqual(self.recalled(ids), ids)
        self.assertEqual(self.recalled([uuid4(), *ids]), ids)
        self.assertLessEqual(len(self.closes._indexed), _closes._MOST_INDEXED)

    def test_sessions_whose_ids_are_alike_are_told_apart(self):
        ids = [UUID(int=number << 44 | 7) for number in range(5)]
        for one in ids[:4]:
            self.closes.remember(one, ("a",), None, 1.0)
        self.closes.conclude()
        self.assertEqual(self.recalled(ids), ids[:4])

    def test_a_file_that_was_written_anew_meanwhile_is_looked_through_anew(self):
        ids = [self.remember(float(at)) for at in range(6)]
        self.closes.conclude()
        old = self.closes.index("0000000001")
        self.assertEqual(self.clean_up(3.0), [])
        self.closes._indexed["0000000001"] = old
        self.assertEqual(self.recalled(ids), ids[3:])
        self.assertEqual(self.recalled(ids), ids[3:])

    def test_a_file_that_is_gone_meanwhile_holds_nothing(self):
        one = self.remember(1.0)
        self.closes.conclude()
        key = _closes.key_of(one, ("a",), None)
        self.assertTrue(self.closes.holds("0000000001", key))
        old = self.closes.index("0000000001")
        self.assertEqual(self.clean_up(3.0), [])
        self.closes._indexed["0000000001"] = old
        self.assertFalse(self.closes.holds("0000000001", key))

    def test_closes_from_the_future_are_not_kept_until_then(self):
        """The clock was set back."""
        one = self.remember(1e9)
        concluded = self.closes.conclude()
        self.assertEqual(self.faults(0.0, concluded, 100.0), [])
        self.assertEqual(self.recalled([one]), [one])
        self.assertEqual(self.faults(170.0, concluded, 270.0), [])
        self.assertEqual(self.recalled([one]), [])

    def test_a_clean_up_of_many_files_takes_many_steps(self):
        for _ in range(5):
            self.remember(1.0)
            self.closes.conclude()
        steps = list(self.closes.clean_up(0.0, self.closes.conclude(), 20.0))
        self.assertEqual(steps, [None] * 5)

    def test_bytes_that_only_look_like_a_record_are_none(self):
        one = self.remember(1.0)
        key = _closes.key_of(one, ("a",), None)
        self.assertTrue(_closes._begins(bytes(40) + key + bytes(8), key, 40))
        self.assertFalse(_closes._begins(bytes(39) + key + bytes(9), key, 40))
        self.assertTrue(_closes._begins(bytes(4) + key + bytes(4) + key, key, 40))
