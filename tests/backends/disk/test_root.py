"""
The root's path comes to lead elsewhere while a server runs: a volume is mounted there,
or a directory renamed.
"""

from __future__ import annotations

import os
import shutil
import stat
from uuid import uuid4

from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher

from tests.backends.disk.mortal import DiskCase
from txbits.backends.disk import DiskBackend
from txbits.errors import BackendError

_NAME = ("name.txt",)


class RootCase(DiskCase):
    """A root that can be swapped, and what the log says meanwhile."""

    def setUp(self):
        self.clock = Clock()
        self.backend = self.start()
        self.root = self.backend.root
        self.events = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def disk(self, root):
        return DiskBackend(
            root, self.clock, in_thread=self.in_thread, files=self.make_files()
        )

    def lines(self):
        return [
            (one["log_level"], one["log_format"].format(**one))
            for one in self.events
            if "root" in one
        ]

    def hide(self):
        os.rename(self.root, self.root + "-below")
        os.mkdir(self.root)
        self.clock.advance(1)

    def show(self):
        os.rmdir(self.root)
        os.rename(self.root + "-below", self.root)

    def assert_refused(self, deferred):
        failure = self.failureResultOf(deferred, BackendError)
        self.assertIs(failure.type, BackendError)
        self.assertIn(
            "is no longer the directory that txbits opened", str(failure.value)
        )


class ReplacedRootTests(RootCase):
    """Nothing is acknowledged that nobody would find."""

    def test_no_session_is_made(self):
        self.hide()
        self.assert_refused(self.creation(self.backend))
        self.show()
        self.create(self.backend)

    def test_no_file_is_published(self):
        for overwrite in (False, True):
            session = self.complete(self.backend, overwrite=overwrite)
            self.hide()
            self.assert_refused(self.publish(session, overwrite))
            self.assertEqual(os.listdir(self.root), [])
            self.assertEqual(os.listdir(self.root + "-below"), [".bits-sessions"])
            self.show()
            self.successResultOf(self.publish(session, overwrite))
            self.successResultOf(session.release())
            os.unlink(os.path.join(self.root, "name.txt"))

    def test_a_file_that_was_published_just_before_is_not_acknowledged(self):
        session = self.complete(self.backend)
        self.successResultOf(self.publish(session))
        self.hide()
        self.assert_refused(session.release(remember=True))
        self.show()
        self.successResultOf(self.publish(session))
        self.successResultOf(session.release(remember=True))

    def test_nothing_is_made_or_published_from_the_very_moment(self):
        session = self.complete(self.backend)
        self.hide()
        self.clock.rightNow -= 1
        self.assert_refused(self.publish(session))
        self.assert_refused(self.creation(self.backend, ("other",)))

    def test_nobody_looks_twice_in_a_moment(self):
        calls = self.backend._files.calls
        session = self.complete(self.backend)
        self.successResultOf(self.publish(session))
        for seconds, looks in ((0, 1), (0, 0), (0.01, 0), (1, 1), (0, 0), (-5, 1)):
            self.clock.rightNow += seconds
            calls.clear()
            self.successResultOf(session.release(remember=True))
            self.assertEqual(calls.count("stat"), looks)
        self.hide()
        for _ in range(2):
            self.assert_refused(session.release(remember=True))

    def test_files_that_are_published_together_share_their_checks(self):
        sessions = [self.complete(self.backend, (name,)) for name in "abc"]
        self.clock.advance(0.01)
        calls = self.backend._files.calls
        calls.clear()
        for session in sessions:
            self.successResultOf(self.publish(session))
        self.assertEqual(calls.count("stat"), 1)
        self.assertEqual(calls.count("listxattr"), 1)
        for session in sessions:
            self.successResultOf(session.release(remember=True))
        self.assertEqual(calls.count("stat"), 2)

    def test_a_check_before_the_last_byte_is_none(self):
        session = self.complete(self.backend)
        self.clock.advance(0.01)
        self.successResultOf(self.publish(session))
        late = self.complete(self.backend, ("late",))
        self.clock.advance(0.01)
        calls = self.backend._files.calls
        calls.clear()
        self.successResultOf(self.publish(late))
        self.assertEqual(calls.count("stat"), 1)

    def test_a_file_that_was_published_out_of_sight_is_never_acknowledged(self):
        for overwrite in (False, True):
            first = self.complete(self.backend, ("first",), overwrite=overwrite)
            session = self.complete(self.backend, overwrite=overwrite)
            self.clock.advance(0.01)
            self.successResultOf(self.publish(first, overwrite))
            self.hide()
            self.clock.rightNow -= 1
            # A moment ago, all was well.
            self.successResultOf(self.publish(session, overwrite))
            self.assert_refused(session.release(remember=True))
            self.show()
            for one in (first, session):
                self.successResultOf(one.release(remember=True))
                os.unlink(os.path.join(self.root, *one.destination))

    def test_a_close_is_not_acknowledged_again(self):
        session = self.create(self.backend)
        self.successResultOf(session.release(remember=True))
        close = (session.session_id, _NAME, None)
        self.hide()
        self.assert_refused(self.backend.recalls_close(*close))
        unknown = self.backend.recalls_close(uuid4(), _NAME, None)
        self.assertFalse(self.successResultOf(unknown))
        self.show()
        self.assertTrue(self.successResultOf(self.backend.recalls_close(*close)))

    def test_sessions_can_be_released(self):
        session = self.complete(self.backend)
        self.hide()
        self.successResultOf(session.release())
        self.show()
        self.assertEqual(self.leftovers(self.backend), [])

    def test_a_root_that_is_gone_is_refused(self):
        shutil.rmtree(self.root)
        self.clock.advance(1)
        self.assert_refused(self.creation(self.backend))

    def test_a_link_that_leads_elsewhere_is_refused(self):
        alias = self.mktemp()
        os.symlink(self.root, alias)
        self.successResultOf(self.backend.stop())
        backend = self.start(alias)
        session = self.complete(backend)
        self.successResultOf(self.publish(session))
        os.unlink(alias)
        other = self.mktemp()
        os.mkdir(other)
        os.symlink(os.path.abspath(other), alias)
        self.clock.advance(1)
        self.assert_refused(self.creation(backend, ("other",)))

    def test_the_log_says_so_once_and_that_it_is_over(self):
        self.hide()
        for _ in range(3):
            self.assert_refused(self.creation(self.backend))
        self.show()
        for _ in range(3):
            self.create(self.backend)
        (gone, line), back = self.lines()
        self.assertEqual(gone, LogLevel.error)
        self.assertTrue(
            line.startswith(
                f"{self.root} is no longer the directory that txbits opened: the path "
                "leads to another directory; "
            )
        )
        self.assertEqual(
            back, (LogLevel.info, f"{self.root} is the original directory again")
        )

    def test_a_directory_may_be_given_another_number(self):
        """As some FUSE file systems do with directories that nobody has looked at."""
        files = self.backend._files
        looks = {name: getattr(files, name) for name in ("stat", "fstat")}

        def renumbered(look):
            def looked(which):
                there = list(look(which))
                if stat.S_ISDIR(there[stat.ST_MODE]):
                    there[stat.ST_INO] += 1000
                return os.stat_result(there)

            return looked

        for name, look in looks.items():
            setattr(files, name, renumbered(look))
        for _ in range(2):
            self.clock.advance(1)
            self.create(self.backend)
        self.assertEqual(self.lines(), [])
