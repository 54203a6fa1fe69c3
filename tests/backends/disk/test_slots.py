"""
Several processes that have slots of one root, and others that take these over.

A process is a backend with files of its own, whose locks and descriptors end with it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from typing import Any, ClassVar
from uuid import uuid4

from twisted.internet import reactor
from twisted.logger import globalLogPublisher

from tests.backends.disk.limited import LimitedFiles
from tests.backends.disk.mortal import DiskCase, Killed, MortalFiles
from tests.backends.disk.test_crashes import CrashCase
from txbits._workers import Worker, new_session_id, slot_of
from txbits.backends.disk import DiskBackend
from txbits.backends.disk._files import Files, Removed
from txbits.errors import BackendError, NoSuchSession
from txbits.interfaces import ANY_OWNER, Answer

IN_USE = "in use by another txbits"
NAME = ("name.txt",)


class QuickFiles(MortalFiles):
    """Mortal files on a machine that never crashes: fsync is nothing but a call."""

    def call(self, name):
        return (lambda fd: None) if name == "fsync" else super().call(name)


class SlotCase(DiskCase):
    """Workers of one root."""

    make_files: Any = QuickFiles

    def setUp(self):
        self.root = self.mktemp()

    def worker_of(self, number, count):
        """A backend that is not started."""
        self.worker = Worker(number, count)
        return self.disk(self.root)

    def begin(self, number=0, count=1):
        """A started backend; without arguments, a server without workers."""
        self.worker = Worker(number, count)
        return self.start(self.root)

    def begin_all(self, count):
        return [self.begin(number, count) for number in range(count)]

    def kill(self, *backends):
        for one in backends:
            one._files.die()

    def assert_in_use(self, number=0, count=1):
        starting = self.worker_of(number, count).start()
        failure = self.failureResultOf(starting, BackendError)
        (line,) = str(failure.value).splitlines()
        self.assertIn(IN_USE, line)

    def ids(self, backend):
        listed = [one.session_id for one in self.successResultOf(backend.sessions())]
        self.assertEqual(len(listed), len(set(listed)))
        return set(listed)

    def close(self, session):
        self.successResultOf(self.publish(session))
        self.successResultOf(session.release(remember=True))

    def recalls(self, backend, session, owner: Any = None):
        close = (session.session_id, session.destination, owner)
        return self.successResultOf(backend.recalls_close(*close))


class LockTests(SlotCase):
    """Who may use a root at the same time."""

    lacking: ClassVar[dict[str, int]] = {}

    def make_files(self):
        return LimitedFiles(**self.lacking)

    def test_workers_use_it_together(self):
        for number, backend in enumerate(self.begin_all(3)):
            session = self.complete(backend, (str(number),))
            self.assertEqual(slot_of(session.session_id), number)
            self.assertEqual(backend.worker_of(session.session_id), number)
            self.close(session)
            self.assertEqual(self.published(backend, (str(number),)), b"whole")
            self.assertEqual(self.leftovers(backend), [])

    def test_server_without_workers_uses_it_alone(self):
        self.begin()
        for worker in ((0, 1), (0, 2), (1, 2)):
            self.assert_in_use(*worker)

    def test_workers_keep_a_server_without_workers_out(self):
        for number in range(2):
            backend = self.begin(number, 2)
            self.assert_in_use()
            self.kill(backend)
            self.kill(self.begin())

    def test_slot_has_one_worker(self):
        for number in range(2):
            self.begin(number, 2)
            self.assert_in_use(number, 2)

    def test_workers_of_another_number_are_kept_out(self):
        backend = self.begin(1, 2)
        for worker in ((0, 3), (2, 3), (3, 4)):
            self.assert_in_use(*worker)
        self.begin(0, 2)
        self.kill(backend)
        self.assert_in_use(2, 3)

    def test_number_of_workers_may_be_another_at_the_next_start(self):
        for count in (2, 3, 1, 5, 4, 1):
            self.kill(*self.begin_all(count))

    def test_killed_worker_starts_again_beside_the_others(self):
        workers = self.begin_all(3)
        for number in (1, 0, 2):
            sessions = [self.complete(one) for one in workers]
            self.kill(workers[number])
            workers[number] = self.begin(number, 3)
            for one, session in zip(workers, sessions, strict=True):
                found = self.successResultOf(one.find(session.session_id))
                self.assertEqual(found.offset, 5)

    def test_stopped_worker_starts_again_beside_the_others(self):
        workers = self.begin_all(2)
        self.successResultOf(workers[1].stop())
        self.begin(1, 2)

    def test_two_backends_of_a_process_dispute_a_root_as_ever(self):
        one, other = self.worker_of(0, 2), self.worker_of(1, 2)
        self.assertTrue(one.disputes(other))


class OtherLockTests(LockTests):
    """The same where there is no ``flock``."""

    lacking: ClassVar = {"flock": errno.ENOLCK}


class AgreementTests(SlotCase):
    """Workers of two numbers that start at the same time."""

    def test_whoever_comes_between_two_locks_is_the_one_that_stays(self):
        late = self.worker_of(0, 2)
        early = self.worker_of(1, 3)
        ftruncate = late._files.ftruncate

        def interrupted(fd, length):
            ftruncate(fd, length)
            if length == 2:
                # As the kernel does when a lock is to become another kind of lock.
                Files.flock(fd, fcntl.LOCK_UN)
                self.successResultOf(early.start())

        late._files.ftruncate = interrupted
        failure = self.failureResultOf(late.start(), BackendError)
        self.assertIn(IN_USE, str(failure.value))
        session = self.complete(early)
        self.assertEqual(slot_of(session.session_id), 1)
        self.successResultOf(early.stop())


class PatienceTests(SlotCase):
    """A worker waits for one that was killed, and has not ended yet."""

    def waiting(self, at_the_second_try):
        """A worker of three, and what happens when it tries again."""
        files: Any = QuickFiles()
        tries = 0

        def open_(path, *args, **kwargs):
            nonlocal tries
            if os.path.basename(os.fsdecode(path)) == ".bits-sessions":
                tries += 1
                if tries == 2:
                    at_the_second_try()
            return files.__getattr__("open")(path, *args, **kwargs)

        files.open = open_
        return DiskBackend(
            self.root,
            reactor,
            in_thread=self.in_thread,
            files=files,
            worker=Worker(0, 3),
            patience=60.0,
        )

    def test_it_starts_as_soon_as_the_other_has_ended(self):
        for worker in ((0, 1), (1, 2), (0, 3)):
            other = self.begin(*worker)
            backend = self.waiting(lambda other=other: self.kill(other))
            self.successResultOf(backend.start())
            self.complete(backend)
            self.successResultOf(backend.stop())

    def test_it_waits_with_no_lock_taken(self):
        other = self.begin(1, 2)

        def change():
            self.kill(other)
            self.kill(self.begin())

        backend = self.waiting(change)
        self.successResultOf(backend.start())
        self.successResultOf(backend.stop())

    def test_it_ends_when_the_backend_stops(self):
        self.begin(1, 2)

        def stop():
            backend._stopping = True

        backend = self.waiting(stop)
        failure = self.failureResultOf(backend.start(), BackendError)
        self.assertIn("stopping", str(failure.value))

    def test_it_is_bounded(self):
        self.begin(1, 2)
        backend = self.waiting(lambda: None)
        backend._patience = 0.01
        failure = self.failureResultOf(backend.start(), BackendError)
        self.assertIn(IN_USE, str(failure.value))


class LayoutTests(SlotCase):
    """Where a slot lies."""

    def staging(self, *names):
        return os.path.join(self.root, ".bits-sessions", *names)

    def test_slot_0_is_as_without_workers(self):
        backend = self.begin()
        session_id = self.complete(backend).session_id
        self.kill(backend)
        found = self.successResultOf(self.begin(0, 2).find(session_id))
        self.assertEqual(found.offset, 5)
        self.assertNotIn("slot-0", os.listdir(self.staging()))

    def test_other_slots_are_directories_in_it(self):
        backend = self.begin(2, 3)
        session = self.complete(backend)
        self.assertEqual(
            session.address(),
            os.path.abspath(self.staging("slot-2", session.part())),
        )
        self.assertEqual(
            sorted(os.listdir(self.staging("slot-2"))),
            sorted(["closed", "lock", "sessions-1", session.part()]),
        )

    def test_server_without_workers_makes_none(self):
        self.begin()
        self.assertEqual(
            sorted(os.listdir(self.staging())), ["closed", "lock", "sessions-1"]
        )

    def test_slots_have_group_and_mode_of_the_staging_area(self):
        self.kill(self.begin())
        os.chown(self.staging(), -1, 1234)
        for mode in (0o2710, 0o2770):
            os.chmod(self.staging(), mode)
            backend = self.begin(1, 2)
            there = os.stat(self.staging("slot-1"))
            self.assertEqual(stat.S_IMODE(there.st_mode), mode)
            self.assertEqual(there.st_gid, 1234)
            self.kill(backend)

    def test_group_that_cannot_be_given_is_told(self):
        self.kill(self.begin())
        os.chown(self.staging(), -1, 1234)
        backend = self.worker_of(1, 2)
        backend._files.fail("fchown", errno.EPERM)
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.successResultOf(backend.start())
        self.addCleanup(lambda: self.successResultOf(backend.stop()))
        (line,) = [one for one in events if one.get("gid") == 1234]
        self.assertIn("slot-1", line["path"])

    def test_slot_that_is_no_directory_is_refused_in_one_line(self):
        self.kill(*self.begin_all(2))
        os.rename(self.staging("slot-1"), self.staging("moved"))
        os.symlink("moved", self.staging("slot-1"))
        for worker in ((1, 2), (0, 1)):
            failure = self.failureResultOf(
                self.worker_of(*worker).start(), BackendError
            )
            (line,) = str(failure.value).splitlines()
            self.assertIn("slot-1", line)

    def test_other_names_are_no_slots(self):
        self.kill(self.begin())
        for name in ("slot-0", "slot-01", "slot-256", "slot-x", "slot-1.old"):
            os.mkdir(self.staging(name))
        backend = self.begin()
        self.assertEqual(backend._opened.adopted, {})
        self.assertIn("slot-256", os.listdir(self.staging()))

    def test_id_of_another_slot_is_refused(self):
        for backend, slot in ((self.begin(1, 2), 1), (self.begin(0, 2), 0)):
            for other in {0, 1, 2, 3} - {slot}:
                making = self.creation(backend, session_id=new_session_id(other))
                failure = self.failureResultOf(making, BackendError)
                self.assertIn(f"slot {other}", str(failure.value))
            self.assertEqual(self.ids(backend), set())

    def test_ids_of_any_form_do_without_workers(self):
        backend = self.begin()
        session_id = new_session_id(7)
        self.create(backend, session_id=session_id)
        found = self.successResultOf(backend.find(session_id))
        self.assertEqual(found.session_id, session_id)

    def test_session_of_another_worker_is_unknown(self):
        one, other = self.begin_all(2)
        session_id = self.complete(one).session_id
        self.failureResultOf(other.find(session_id), NoSuchSession)
        self.assertEqual(self.ids(other), set())


class AdoptionTests(SlotCase):
    """What workers have left is taken over by those that come after them."""

    def left(self, count=4, **rules):
        """One complete session of each worker; they are killed then."""
        workers = self.begin_all(count)
        sessions = [
            self.complete(backend, (str(number),), **rules)
            for number, backend in enumerate(workers)
        ]
        self.kill(*workers)
        return sessions

    def test_operators_see_all_in_one_order(self):
        sessions = self.left()
        backend = self.begin()
        listed, after = [], None
        for _ in sessions:
            page, after = self.successResultOf(backend.list_after(after, 1))
            listed += [(one.session_id, one.destination, one.offset) for one in page]
        self.assertIsNone(after)
        expected = sorted((one.session_id, one.destination, 5) for one in sessions)
        self.assertEqual(listed, expected)
        for session in sessions:
            details = self.successResultOf(backend.details_of(session.session_id))
            self.assertEqual(details.destination, session.destination)

    def test_server_without_workers_goes_on_with_all(self):
        sessions = self.left()
        backend = self.begin()
        self.assertEqual(self.ids(backend), {one.session_id for one in sessions})
        for session in sessions:
            found = self.successResultOf(backend.find(session.session_id))
            self.assertEqual((found.offset, found.total), (5, 5))
            self.close(found)
            self.assertTrue(self.recalls(backend, session))
            self.assertFalse(self.recalls(backend, session, "somebody"))
            self.assertTrue(self.recalls(backend, session, ANY_OWNER))
            self.assertEqual(self.published(backend, session.destination), b"whole")
        self.assertEqual(self.leftovers(backend), [])

    def test_each_worker_goes_on_with_those_of_its_slots(self):
        sessions = self.left(5)
        for backend in self.begin_all(2):
            mine = {
                one.session_id
                for one in sessions
                if backend.worker_of(one.session_id) == backend.worker.number
            }
            self.assertEqual(self.ids(backend), mine)

    def test_more_workers_than_before_leave_each_where_it_is(self):
        sessions = self.left(2)
        self.kill(*self.begin_all(1))
        workers = self.begin_all(5)
        for session in sessions:
            owner = workers[workers[0].worker_of(session.session_id)]
            self.close(self.successResultOf(owner.find(session.session_id)))

    def test_new_sessions_are_made_in_the_own_slot(self):
        self.left(3)
        backend = self.begin()
        session = self.complete(backend)
        self.assertEqual(slot_of(session.session_id), 0)
        self.assertEqual(os.path.dirname(session.address()), backend._staging.path)
        making = self.creation(backend, session_id=new_session_id(2))
        self.failureResultOf(making, BackendError)

    def test_upload_goes_on(self):
        (backend, other) = self.begin_all(2)
        session = self.create(other)
        self.append(session, 9, b"part")
        self.kill(backend, other)
        backend = self.begin()
        found = self.successResultOf(backend.find(session.session_id))
        self.append(found, 9, b" done")
        self.close(found)
        self.assertEqual(self.published(backend, NAME), b"part done")

    def test_answer_and_reply_are_found(self):
        backend = self.begin(1, 2)
        session = self.complete(backend)
        self.successResultOf(session.begin_attempt())
        writer = self.successResultOf(session.open_reply())
        self.successResultOf(writer.write(b"reply"))
        self.successResultOf(writer.close())
        self.successResultOf(session.keep_answer(Answer(has_reply=True)))
        self.kill(backend)
        backend = self.begin()
        found = self.successResultOf(backend.find(session.session_id))
        reply = self.successResultOf(found.reply())
        self.assertEqual(reply.length, 5)
        self.successResultOf(reply.release())
        self.successResultOf(found.release())
        self.assertEqual(self.leftovers(backend), [])

    def test_close_is_recalled(self):
        backend = self.begin(1, 2)
        session = self.complete(backend)
        self.close(session)
        self.kill(backend)
        for worker in ((0, 1), (1, 3), (0, 1)):
            backend = self.begin(*worker)
            self.assertTrue(self.recalls(backend, session))
            self.kill(backend)

    def test_id_that_nobody_made_is_unknown(self):
        self.left(3)
        backend = self.begin()
        for session_id in (uuid4(), *map(new_session_id, range(5))):
            self.failureResultOf(backend.find(session_id), NoSuchSession)
            recalling = backend.recalls_close(session_id, NAME, None)
            self.assertFalse(self.successResultOf(recalling))

    def test_stopping_makes_all_bytes_safe(self):
        sessions = self.left(3)
        backend = self.begin()
        self.ids(backend)  # as the first clean-up does
        self.successResultOf(backend.stop())
        again = self.after_boot(backend)
        for session in sessions:
            found = self.successResultOf(again.find(session.session_id))
            self.assertEqual((found.offset, found.in_doubt), (5, False))

    def test_power_failure_takes_what_was_not_safe(self):
        workers = self.begin_all(2)
        session = self.create(workers[1])
        self.append(session, 9, b"part")
        self.kill(*workers)
        self.worker = Worker()
        again = self.after_boot(workers[0])
        found = self.successResultOf(again.find(session.session_id))
        self.assertEqual((found.offset, found.in_doubt), (0, True))

    def test_line_that_cannot_be_read_keeps_its_slot(self):
        (session,) = self.left(2)[1:]
        path = os.path.join(self.root, ".bits-sessions", "slot-1", "sessions-1")
        with open(path, "r+b") as file:
            file.seek(70)
            file.write(b"????")
        for _ in range(2):
            backend = self.begin()
            self.successResultOf(backend.clean_up(1e10))
            self.assertEqual(self.slots(backend), ["", "slot-1"])
            self.assertTrue(os.path.exists(session.address()))
            self.kill(backend)

    def test_start_tells_of_it(self):
        self.left(3)
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.begin()
        (line,) = [one for one in events if "slots" in one]
        self.assertEqual(line["slots"], "1, 2")


class RemovalTests(SlotCase):
    """A slot in which nothing is left goes, unless its worker makes sessions in it."""

    def test_empty_one_goes_at_the_start(self):
        self.kill(*self.begin_all(4))
        backend = self.begin(1, 3)
        self.assertEqual(self.slots(backend), ["", "slot-1", "slot-2", "slot-3"])
        self.kill(backend)
        backend = self.begin(0, 3)
        self.assertEqual(self.slots(backend), ["", "slot-1", "slot-2"])
        self.kill(backend)
        self.assertEqual(self.slots(self.begin()), [""])

    def test_start_that_was_killed_while_it_looked_leaves_nothing_in_it(self):
        self.kill(*self.begin_all(2))
        at = os.path.join(self.root, ".bits-sessions", "slot-1")
        os.mkdir(os.path.join(at, "probe-place"))
        with open(os.path.join(at, "probe-link"), "w"):
            pass
        self.assertEqual(self.slots(self.begin()), [""])

    def test_one_with_a_session_goes_after_its_end(self):
        workers = self.begin_all(2)
        session = self.complete(workers[1])
        self.kill(*workers)
        backend = self.begin()
        self.successResultOf(backend.clean_up(0.0))
        self.assertEqual(self.slots(backend), ["", "slot-1"])
        found = self.successResultOf(backend.find(session.session_id))
        self.successResultOf(found.release())
        self.successResultOf(backend.clean_up(0.0))
        self.assertEqual(self.slots(backend), [""])
        self.failureResultOf(backend.find(session.session_id), NoSuchSession)
        self.assertFalse(self.recalls(backend, session))
        self.assertEqual(self.ids(backend), set())
        self.successResultOf(backend.clean_up(0.0))

    def test_one_with_the_memory_of_a_close_goes_when_that_is_over(self):
        for self.fsync in ("close", "never"):
            workers = self.begin_all(2)
            session = self.complete(workers[1], (self.fsync,))
            self.close(session)
            self.kill(*workers)
            for _ in range(2):
                backend = self.begin()
                self.successResultOf(backend.clean_up(0.0))
                self.assertEqual(self.slots(backend), ["", "slot-1"])
                self.assertTrue(self.recalls(backend, session))
                self.kill(backend)
            backend = self.begin()
            self.successResultOf(backend.clean_up(1e10))
            self.assertEqual(self.slots(backend), [""])
            self.assertFalse(self.recalls(backend, session))
            self.kill(backend)

    def test_own_one_stays(self):
        for backend in self.begin_all(2):
            self.successResultOf(backend.clean_up(1e10))
            self.complete(backend)
        self.assertEqual(self.slots(backend), ["", "slot-1"])

    def test_failure_is_logged_and_the_next_start_goes_on(self):
        workers = self.begin_all(2)
        session = self.complete(workers[1])
        self.kill(*workers)
        backend = self.begin()
        found = self.successResultOf(backend.find(session.session_id))
        self.successResultOf(found.release())
        backend._files.fail("rmdir", errno.EIO)
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.successResultOf(backend.clean_up(0.0))
        (line,) = [one for one in events if "fault" in one]
        self.assertIn("clean-up could not remove", line["log_format"])
        self.complete(backend)
        self.kill(backend)
        self.assertEqual(self.slots(self.begin()), [""])


class CrashTests(CrashCase, SlotCase):
    """Death at each system call of what has to do with slots."""

    def setUp(self):
        CrashCase.setUp(self)
        self.root = self.model = self.mktemp()
        workers = self.begin_all(4)
        self.kept = [
            self.complete(one, (str(at),)) for at, one in enumerate(workers[:2])
        ]
        self.closed = self.complete(workers[2], ("closed",))
        self.close(self.closed)
        self.kill(*workers)

    def lay_out(self):
        """A root with sessions in two slots, a close in one, and an empty one."""
        self.root = self.mktemp()
        shutil.copytree(self.model, self.root)

    def killed_start(self, calls, number=0, count=1):
        """Start, and die at a call."""
        backend = self.worker_of(number, count)
        outcome: list[Any] = []
        backend._files.die_after(calls)
        backend.start().addBoth(outcome.append)
        self.survived = not backend._files._dead
        backend._files.die()
        if not self.survived:
            outcome[0].trap(Killed)

    def assert_all_there(self):
        backend = self.begin()
        self.assertEqual(self.ids(backend), {one.session_id for one in self.kept})
        for session in self.kept:
            found = self.successResultOf(backend.find(session.session_id))
            self.assertEqual(found.offset, 5)
        self.assertTrue(self.recalls(backend, self.closed))
        self.assertEqual(self.slots(backend), ["", "slot-1", "slot-2"])
        self.kill(backend)

    def test_adopting_goes_on_after_a_kill_at_any_call(self):
        self.survived = False
        for calls in self.rounds():
            self.lay_out()
            self.killed_start(calls)
            self.assert_all_there()

    def test_start_of_a_worker_goes_on_after_a_kill_at_any_call(self):
        for number in (0, 1):
            self.survived = False
            for calls in self.rounds():
                self.lay_out()
                self.killed_start(calls, number, 2)
                self.assert_all_there()

    def test_clean_up_goes_on_after_a_kill_at_any_call(self):
        self.survived = False
        for calls in self.rounds():
            self.lay_out()
            backend = self.begin()
            self.run_until_dead(backend, calls, backend.clean_up, 1e10)
            self.kill(backend)
            backend = self.begin()
            self.successResultOf(backend.clean_up(1e10))
            self.assertEqual(self.slots(backend), ["", "slot-1"])
            self.assertEqual(self.ids(backend), {one.session_id for one in self.kept})
            self.kill(backend)

    def rounds(self):
        """As many calls as a start with four slots takes."""
        for calls in range(500):
            yield calls
            if self.survived:
                return
        self.fail("it never ends")


class DescriptorTests(SlotCase):
    """What is opened is closed."""

    def left(self):
        workers = self.begin_all(4)
        for backend in workers[:2]:
            self.complete(backend, (str(backend.worker.number),))
        self.complete(workers[2], ("2",))
        self.kill(*workers)

    def test_stopping_closes_all(self):
        self.left()
        for worker in ((0, 1), (1, 2), (0, 2), (0, 1)):
            backend = self.worker_of(*worker)
            self.successResultOf(backend.start())
            for session_id in self.ids(backend):
                if slot_of(session_id) == 2:
                    found = self.successResultOf(backend.find(session_id))
                    self.successResultOf(found.release())
            self.successResultOf(backend.clean_up(1e10))
            self.successResultOf(backend.stop())
            self.assertEqual(backend._files._open, set())

    def test_start_that_fails_closes_all(self):
        self.left()
        os.rename(
            os.path.join(self.root, ".bits-sessions", "slot-1"),
            os.path.join(self.root, ".bits-sessions", "slot-9"),
        )
        os.symlink("slot-9", os.path.join(self.root, ".bits-sessions", "slot-8"))
        for worker in ((0, 1), (2, 3), (0, 2)):
            backend = self.worker_of(*worker)
            self.failureResultOf(backend.start(), BackendError)
            self.assertEqual(backend._files._open, set())


class SharedTests(SlotCase):
    """What workers have in common."""

    def test_claim_is_one_workers(self):
        one, other = self.begin_all(2)
        first, second = self.complete(one, ("a",)), self.complete(other, ("b",))
        claim = self.successResultOf(one.claim("x", first.session_id, 1e10))
        self.assertIsNotNone(claim)
        for backend in (one, other):
            self.assertTrue(self.successResultOf(backend.is_claimed("x")))
        taking = other.claim("x", second.session_id, 1e10)
        self.assertIsNone(self.successResultOf(taking))
        self.successResultOf(claim.withdraw())
        taking = other.claim("x", second.session_id, 1e10)
        self.assertIsNotNone(self.successResultOf(taking))

    def test_claim_outlives_the_slot_and_the_number_of_workers(self):
        one, other = self.begin_all(2)
        session = self.complete(other)
        self.successResultOf(other.claim("x", session.session_id, 1e10))
        self.successResultOf(session.release())
        self.kill(one, other)
        backend = self.begin()
        self.assertEqual(self.slots(backend), [""])
        self.assertTrue(self.successResultOf(backend.is_claimed("x")))

    def test_claims_are_locked_while_they_are_used(self):
        one, other = self.begin_all(2)
        calls = other._files.calls
        for call in (
            lambda: other.claim("x", other.new_id(), 1.0),
            lambda: other.is_claimed("x"),
            lambda: other.clean_up(0.0),
        ):
            calls.clear()
            self.successResultOf(call())
            self.assertEqual(calls.count("flock"), 1)
        self.assertFalse(self.successResultOf(one.is_claimed("x")))

    def test_claim_that_another_worker_removed_is_no_failure(self):
        one, other = self.begin_all(2)
        for name in "xy":
            self.successResultOf(one.claim(name, one.new_id(), 1.0))
        claims = other._staging.claims
        steps = claims.clean_up(2.0)
        self.assertEqual(next(steps), Removed("claim"))
        self.successResultOf(one.clean_up(0.0))
        self.assertEqual(list(steps), [None])
        self.assertEqual(one.removed_counts()["claim"], 1)

    def test_claims_of_a_server_without_workers_are_not_locked(self):
        backend = self.begin()
        backend._files.calls.clear()
        self.successResultOf(backend.claim("x", uuid4(), 1.0))
        self.assertNotIn("flock", backend._files.calls)

    def test_file_of_another_workers_open_session_has_no_tag_yet(self):
        one, other = self.begin_all(2)
        session = self.complete(other)
        self.successResultOf(self.publish(session))
        file = self.successResultOf(one.open_file(NAME))
        self.assertIsNone(file.etag)
        self.successResultOf(file.release())
        self.successResultOf(session.release())
        tags = set()
        for backend in (one, other, one):
            file = self.successResultOf(backend.open_file(NAME))
            tags.add(file.etag)
            self.successResultOf(file.release())
        self.assertEqual(len(tags - {None}), 1)
        self.assertEqual(len(tags), 1)

    def test_one_destination_is_published_once(self):
        workers = self.begin_all(3)
        sessions = [
            self.complete(one, NAME, b"%d" % at) for at, one in enumerate(workers)
        ]
        self.successResultOf(self.publish(sessions[1]))
        for session in (sessions[0], sessions[2]):
            self.failureResultOf(self.publish(session), BackendError)
        self.assertEqual(self.published(workers[0], NAME), b"1")

    def test_slots_of_a_process_share_what_is_one_for_the_root(self):
        workers = self.begin_all(3)
        for at, one in enumerate(workers):
            self.complete(one, (str(at),))
        self.kill(*workers)
        backend = self.begin()
        own = backend._staging
        for other in backend._opened.adopted.values():
            for name in (
                "tree",
                "root",
                "claims",
                "file_clock",
                "_space",
                "sync_names",
            ):
                self.assertIs(getattr(other, name), getattr(own, name), name)

    def test_worker_must_be_one(self):
        with self.assertRaises(TypeError):
            DiskBackend(self.root, reactor, worker=(0, 1))  # type: ignore[arg-type]
