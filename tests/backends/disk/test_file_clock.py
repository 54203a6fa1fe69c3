"""
The clock of a file system, read off a file of ours: kernels that tick slowly, file
systems that count seconds or take no notice, clocks that are ahead, and other devices.
"""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from twisted.trial.unittest import SynchronousTestCase

from txbits.backends.disk._file_clock import FileClock

_SECOND = 1_000_000_000
_HOUR = 3600 * _SECOND

#: The descriptors of the file that is touched, and of the one that is looked at.
_OWN, _FILE = 3, 4


class _FileSystem:
    """
    A file system with two files.

    :ivar time: The time, in nanoseconds, by the clock of the machine.
    :ivar ahead: How much its own clock is ahead of that.
    :ivar tick: How long its own clock shows the same.
    :ivar takes_notice: Whether a touch changes the times of a file.
    :ivar dates_changes: Whether it keeps times of changes, or those of the making.
    :ivar fault: What a touch fails with.
    """

    def __init__(self) -> None:
        self.time = 1_700_000_000 * _SECOND + 7
        self.ahead = 0
        self.tick = 1
        self.takes_notice = True
        self.dates_changes = True
        self.fault: OSError | None = None
        self.touches = 0
        self._files: dict[int, dict[str, int]] = {}

    def make(self, fd: int, device: int = 1) -> None:
        self._files[fd] = {"st_dev": device, "st_ino": fd, "st_nlink": 1}
        self._change(fd, "st_mtime_ns", "st_ctime_ns")

    def write(self, fd: int = _FILE) -> None:
        self._change(fd, "st_mtime_ns", *["st_ctime_ns"] * self.dates_changes)

    def set_modified(self, fd: int, when: int) -> None:
        self._change(fd, *["st_ctime_ns"] * self.dates_changes)
        self._files[fd]["st_mtime_ns"] = when

    def add_link(self, fd: int) -> None:
        self._files[fd]["st_nlink"] += 1

    def _change(self, fd: int, *times: str) -> None:
        now = self.time + self.ahead
        for name in times:
            self._files[fd][name] = now - now % self.tick

    # As FileClock calls it

    def utime(self, fd: int) -> None:
        self.touches += 1
        if self.fault is not None:
            raise self.fault
        if self.takes_notice:
            self.write(fd)

    def fstat(self, fd: int) -> Any:
        there = dict(self._files[fd])
        return SimpleNamespace(
            **there,
            st_mtime=there["st_mtime_ns"] / _SECOND,
            st_ctime=there["st_ctime_ns"] / _SECOND,
        )


class FileClockTests(SynchronousTestCase):
    """When a change would show, and when a file was modified."""

    def setUp(self) -> None:
        self.disk = _FileSystem()
        self.slept: list[float] = []
        self.disk.make(_OWN)

    def clock(self, **settings: bool) -> FileClock:
        files: Any = self.disk
        return FileClock(
            files,
            _OWN,
            self.sleep,
            lambda: self.disk.time / _SECOND,
            lambda: self.disk.time / _SECOND,
            **settings,
        )

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.wait(seconds)

    def wait(self, seconds: float) -> None:
        self.disk.time += int(seconds * _SECOND)

    def sure(self, clock: FileClock) -> bool | None:
        return clock.look(_FILE).is_sure

    def test_what_changed_before_our_file_did_changes_later_with_another_time(
        self,
    ) -> None:
        self.disk.make(_FILE)
        self.wait(0.001)
        self.assertIs(self.sure(self.clock()), True)
        self.assertEqual(self.slept, [])

    def test_a_tick_of_a_slow_kernel_is_waited_for(self) -> None:
        for tick in (1_000_000, 4_000_000, 10_000_000):
            self.disk.tick = tick
            self.disk.make(_FILE)
            before = self.clock().look(_FILE)
            self.disk.write()
            after = self.clock().look(_FILE)
            self.assertEqual((before.is_sure, after.is_sure), (True, True))
            self.assertNotEqual(before.there.st_ctime_ns, after.there.st_ctime_ns)
        self.assertLess(sum(self.slept), 6 * 0.02)

    def test_what_is_seen_is_what_was_there_after_the_wait(self) -> None:
        self.disk.tick = 10_000_000
        self.disk.make(_FILE)

        def write_meanwhile(seconds: float) -> None:
            self.wait(seconds)
            self.disk.write()

        self.sleep = write_meanwhile  # type: ignore[method-assign]
        look = self.clock().look(_FILE)
        self.assertIs(look.is_sure, False)
        self.assertEqual(look.there.st_ctime_ns, self.disk.fstat(_FILE).st_ctime_ns)

    def test_a_second_is_not_waited_for(self) -> None:
        self.disk.tick = _SECOND
        self.disk.make(_FILE)
        clock = self.clock()
        looks = [clock.look(_FILE)]
        self.wait(1)
        looks.append(clock.look(_FILE))
        self.assertEqual([look.is_sure for look in looks], [False, True])
        self.assertEqual(looks[0].there, looks[1].there)
        self.assertLess(sum(self.slept), 0.02)

    def test_a_clock_that_differs_from_ours_makes_no_difference(self) -> None:
        for ahead in (-_HOUR, -_SECOND, _SECOND, 24 * _HOUR):
            self.disk.ahead = ahead
            self.disk.make(_FILE)
            self.wait(0.001)
            looks = [self.clock().look(_FILE)]
            self.wait(86_400)
            looks.append(self.clock().look(_FILE))
            self.assertEqual([look.is_sure for look in looks], [True, True])
            self.assertEqual(looks[0].modified, looks[1].modified)

    def test_a_clock_that_was_set_back_is_not_waited_for(self) -> None:
        self.disk.make(_FILE)
        self.disk.ahead = -60 * _SECOND
        clock = self.clock()
        self.assertIs(self.sure(clock), False)
        self.assertEqual(self.slept, [])
        self.wait(61)
        self.assertIs(self.sure(clock), True)

    def test_the_clock_is_not_read_for_what_is_old(self) -> None:
        self.disk.make(_FILE)
        self.wait(3700)
        clock = self.clock()
        for _ in range(5):
            self.assertIs(self.sure(clock), True)
        self.assertEqual(self.disk.touches, 1)

    def test_a_clock_that_cannot_be_read_gives_way_to_ours(self) -> None:
        self.disk.make(_FILE)
        for number in (errno.EROFS, errno.EPERM):
            self.disk.fault = OSError(number, os.strerror(number))
            self.disk.write()
            clock = self.clock()
            looks = [clock.look(_FILE)]
            self.wait(2.1)
            looks.append(clock.look(_FILE))
            self.assertEqual([look.is_sure for look in looks], [False, True])
            self.assertEqual(looks[0].there, looks[1].there)

    def test_a_clock_that_takes_no_notice_gives_way_to_ours(self) -> None:
        self.disk.takes_notice = False
        clock = self.clock()
        self.disk.make(_FILE)
        self.sure(clock)
        self.wait(3600)
        self.disk.write()
        self.assertIs(self.sure(clock), False)
        self.wait(2.1)
        self.assertIs(self.sure(clock), True)

    def test_another_device_has_another_clock(self) -> None:
        """Something is mounted there, which we do not write to."""
        self.disk.make(_FILE, device=2)
        clock = self.clock()
        self.assertIs(self.sure(clock), False)
        self.wait(2.1)
        self.assertIs(self.sure(clock), True)
        self.disk.ahead = 60 * _SECOND
        self.disk.write()
        modified = set()
        for _ in range(3):
            look = clock.look(_FILE)
            self.assertIs(look.is_sure, False)
            modified.add(look.modified)
            self.wait(20)
        self.assertEqual(len(modified), 1)

    def test_a_time_of_modification_in_the_future_is_that_of_the_change(self) -> None:
        self.disk.make(_FILE)
        changed = self.disk.time / _SECOND
        self.disk.set_modified(_FILE, self.disk.time + 24 * _HOUR)
        clock = self.clock()
        modified = set()
        for _ in range(30):
            modified.add(clock.look(_FILE).modified)
            self.wait(3600)
        self.assertEqual(modified, {changed})

    def test_one_in_the_past_is_what_it_is(self) -> None:
        self.disk.make(_FILE)
        self.disk.set_modified(_FILE, 5 * _SECOND)
        self.assertEqual(self.clock().look(_FILE).modified, 5.0)

    def test_without_times_of_changes_those_of_modification_count(self) -> None:
        """Some say when a file was made, and never anything else."""
        self.disk.dates_changes = False
        self.wait(60)
        self.disk.make(_FILE)
        clock = self.clock()
        for _ in range(3):
            self.wait(60)
            self.disk.write()
            self.wait(0.001)
            look = clock.look(_FILE)
            self.assertIs(look.is_sure, True)
            self.assertEqual(look.modified, look.there.st_mtime)

    def test_of_one_that_we_take_a_name_from_soon_nothing_is_sure(self) -> None:
        self.disk.make(_FILE)
        self.disk.add_link(_FILE)
        self.wait(7200)
        clock = self.clock()
        self.assertIs(self.sure(clock), True)
        session_id = uuid4()
        clock.linked[session_id] = _FILE
        self.assertIs(self.sure(clock), None)
        del clock.linked[session_id]
        self.assertIs(self.sure(clock), True)

    def test_of_one_with_a_new_link_of_another_process_nothing_is_sure(self) -> None:
        self.disk.make(_FILE)
        shared, alone = self.clock(is_shared=True), self.clock()
        self.wait(1)
        self.assertIs(self.sure(shared), True)
        self.disk.add_link(_FILE)
        self.assertIs(self.sure(alone), True)
        for seconds, is_sure in ((0, None), (60, None), (7200, True)):
            self.wait(seconds)
            self.assertIs(self.sure(shared), is_sure)

    def test_an_old_one_with_two_names_is_sure_at_the_first_look(self) -> None:
        self.disk.make(_FILE)
        self.disk.add_link(_FILE)
        self.wait(7200)
        self.assertIs(self.sure(self.clock(is_shared=True)), True)

    def test_one_that_cannot_be_looked_at_is_a_fault(self) -> None:
        self.assertRaises(KeyError, self.clock().look, 99)
