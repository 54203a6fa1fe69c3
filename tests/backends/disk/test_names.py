"""
Where an upload to the disk backend can end up: below the root, and nowhere else.

Each root lies inside a directory of its own, so that what has escaped shows there.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.backends.disk.mortal import DiskCase
from txbits.errors import (
    BackendError,
    DestinationExists,
    DestinationForbidden,
    DestinationIsDirectory,
    ParentMissing,
)
from txbits.testing.backend import HOSTILE

_TRICKS = ["..", ".", "", "a", "b", ".bits-sessions", "BITS-Sessions", "closed"]
_TRICKS += ["lock", "sessions-1"]
_TRICKS += ["/", "../x", "\0", ".Bits-Sessions.", "elsewhere", "root"]

_EMPTY = ["closed", "lock", "sessions-1"]
_STAGING = [".bits-sessions", *(f".bits-sessions/{name}" for name in _EMPTY)]


class NamesCase(DiskCase):
    """A root with an outside."""

    def setUp(self):
        self.outside = self.mktemp()
        self.root = os.path.join(self.outside, "root")
        os.makedirs(self.root)
        os.mkdir(os.path.join(self.outside, "elsewhere"))
        self.backend = self.start(self.root)

    def link(self, target, *name):
        os.symlink(target, os.path.join(self.root, *name))


class HostileNameTests(NamesCase):
    """What a destination must not be."""

    def upload(self, destination, overwrite=True, create_directories=True):
        """Try to get a file to a destination; what that fails with."""
        made = self.creation(
            self.backend,
            destination,
            overwrite=overwrite,
            create_directories=create_directories,
        )
        failures: list[Any] = []
        made.addErrback(failures.append)
        session = self.successResultOf(made)
        if failures:
            return failures[0].value
        self.append(session, 5, b"whole")
        publishing = self.publish(session, overwrite, create_directories)
        publishing.addErrback(failures.append)
        self.successResultOf(publishing)
        self.successResultOf(session.release())
        return failures[0].value if failures else None

    def test_hostile_names_leave_no_trace_anywhere(self):
        before = self.everything(self.outside)
        for destination in HOSTILE:
            self.assertIsInstance(self.upload(destination), DestinationForbidden)
        self.assertEqual(self.everything(self.outside), before)
        self.assertEqual(self.everything(self.root), _STAGING)

    @settings(
        max_examples=300,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        st.lists(
            st.sampled_from(_TRICKS) | st.text(max_size=4),
            max_size=5,
        ).map(tuple)
    )
    def test_no_destination_reaches_outside_or_into_staging(self, destination):
        outside = {name for name in os.listdir(self.outside) if name != "root"}
        self.upload(destination)
        self.assertEqual(set(os.listdir(self.outside)) - {"root"}, outside)
        staging = os.path.join(self.root, ".bits-sessions")
        self.assertEqual(self.everything(staging), _EMPTY)
        self.assertEqual(os.path.getsize(os.path.join(staging, "lock")), 0)

    def test_a_name_too_long_for_the_file_system_is_forbidden(self):
        self.backend._files.fail("lstat", errno.ENAMETOOLONG)
        self.assertIsInstance(self.upload(("name.txt",)), DestinationForbidden)
        self.backend._files.fail("link", errno.EILSEQ)
        self.assertIsInstance(
            self.upload(("name.txt",), overwrite=False), DestinationForbidden
        )
        self.assertEqual(self.everything(self.root), _STAGING)


class SymbolicLinkTests(NamesCase):
    """Links lead where they lead, but not out."""

    def test_a_link_outside_is_refused_as_a_parent(self):
        self.link("../elsewhere", "relative")
        self.link(os.path.abspath(os.path.join(self.outside, "elsewhere")), "absolute")
        self.link("/", "slash")
        for name in ("relative", "absolute", "slash"):
            for destination in ((name, "x"), (name, "new", "x")):
                self.failureResultOf(
                    self.creation(self.backend, destination, create_directories=True),
                    DestinationForbidden,
                )
        self.assertEqual(os.listdir(os.path.join(self.outside, "elsewhere")), [])

    def test_a_link_into_staging_is_refused_as_a_parent(self):
        self.link(".bits-sessions", "staging")
        self.link(".bits-sessions/closed", "closed")
        for name in ("staging", "closed"):
            self.failureResultOf(
                self.creation(self.backend, (name, "x")), DestinationForbidden
            )

    def test_a_neighbour_whose_name_begins_alike_is_outside(self):
        os.mkdir(self.root + "-2")
        self.link("../root-2", "alike")
        self.failureResultOf(
            self.creation(self.backend, ("alike", "x")), DestinationForbidden
        )

    def test_a_link_inside_is_followed(self):
        os.makedirs(os.path.join(self.root, "2026", "11"))
        self.link("2026/11", "now")
        self.link("now", "alias")
        self.link(".", "here")
        destination = ("here", "alias", "x.txt")
        session = self.complete(self.backend, destination)
        self.successResultOf(self.publish(session))
        self.assertEqual(
            self.published(self.backend, ("2026", "11", "x.txt")), b"whole"
        )

    def test_a_link_to_the_root_is_the_root(self):
        self.link(".", "here")
        session = self.complete(self.backend, ("here", "x.txt"))
        self.successResultOf(self.publish(session))
        self.assertEqual(self.published(self.backend, ("x.txt",)), b"whole")

    def test_links_in_a_circle_are_refused(self):
        self.link("b", "a")
        self.link("a", "b")
        failure = self.failureResultOf(self.creation(self.backend, ("a", "x")))
        self.assertIsInstance(failure.value, DestinationForbidden)

    def test_a_link_to_nothing_is_a_missing_parent(self):
        self.link("nothing", "a")
        self.failureResultOf(self.creation(self.backend, ("a", "x")), ParentMissing)

    def test_the_last_name_is_never_followed(self):
        self.link("../elsewhere/file", "dangling")
        self.failureResultOf(
            self.creation(self.backend, ("dangling",)), DestinationExists
        )
        session = self.complete(self.backend, ("dangling",), overwrite=True)
        self.successResultOf(self.publish(session, overwrite=True))
        self.assertFalse(os.path.islink(os.path.join(self.root, "dangling")))
        self.assertEqual(self.published(self.backend, ("dangling",)), b"whole")
        self.assertEqual(os.listdir(os.path.join(self.outside, "elsewhere")), [])

    def test_a_link_to_a_directory_is_answered_as_a_directory(self):
        os.mkdir(os.path.join(self.root, "real"))
        self.link("real", "inside")
        self.link("../elsewhere", "outside")
        for name in ("real", "inside", "outside"):
            for overwrite in (False, True):
                self.failureResultOf(
                    self.creation(self.backend, (name,), overwrite=overwrite),
                    DestinationIsDirectory,
                )

    def test_a_link_to_a_directory_that_appears_is_not_replaced(self):
        for overwrite in (False, True):
            session = self.complete(self.backend, ("late",), overwrite=overwrite)
            self.link("../elsewhere", "late")
            self.failureResultOf(
                self.publish(session, overwrite=overwrite), DestinationIsDirectory
            )
            self.assertTrue(os.path.islink(os.path.join(self.root, "late")))
            os.unlink(os.path.join(self.root, "late"))
            self.successResultOf(self.publish(session, overwrite=overwrite))
            os.unlink(os.path.join(self.root, "late"))

    def test_a_link_put_in_place_of_a_parent_later_is_refused(self):
        os.mkdir(os.path.join(self.root, "a"))
        session = self.complete(self.backend, ("a", "x"))
        os.rmdir(os.path.join(self.root, "a"))
        self.link("../elsewhere", "a")
        self.failureResultOf(
            self.publish(session, create_directories=True), DestinationForbidden
        )
        self.assertEqual(os.listdir(os.path.join(self.outside, "elsewhere")), [])
        os.unlink(os.path.join(self.root, "a"))
        self.successResultOf(self.publish(session, create_directories=True))
        self.assertEqual(self.published(self.backend, ("a", "x")), b"whole")

    def test_a_link_put_in_place_of_an_opened_parent_changes_nothing(self):
        os.mkdir(os.path.join(self.root, "a"))
        session = self.complete(self.backend, ("a", "x"))
        files = self.backend._files
        link = files.link

        def late(*args, **kwargs):
            os.rename(os.path.join(self.root, "a"), os.path.join(self.root, "moved"))
            self.link("../elsewhere", "a")
            return link(*args, **kwargs)

        files.link = late
        self.successResultOf(self.publish(session))
        self.assertEqual(os.listdir(os.path.join(self.outside, "elsewhere")), [])
        self.assertEqual(self.published(self.backend, ("moved", "x")), b"whole")

    def test_the_root_itself_may_be_a_link(self):
        os.mkdir(os.path.join(self.outside, "real"))
        alias = os.path.join(self.outside, "alias")
        os.symlink("real", alias)
        backend = self.start(alias)
        os.mkdir(os.path.join(alias, "a"))
        session = self.complete(backend, ("a", "x"))
        self.successResultOf(self.publish(session))
        self.assertEqual(self.published(backend, ("a", "x")), b"whole")


class PlaceTests(NamesCase):
    """What else may stand at a destination, or on the way."""

    def test_a_pipe_is_not_written_to(self):
        os.mkfifo(os.path.join(self.root, "pipe"))
        self.failureResultOf(self.creation(self.backend, ("pipe",)), DestinationExists)
        session = self.complete(self.backend, ("pipe",), overwrite=True)
        self.successResultOf(self.publish(session, overwrite=True))
        self.assertEqual(self.published(self.backend, ("pipe",)), b"whole")

    def test_a_directory_that_appears_is_not_overwritten(self):
        session = self.complete(self.backend, ("a",), overwrite=True)
        os.mkdir(os.path.join(self.root, "a"))
        self.failureResultOf(
            self.publish(session, overwrite=True), DestinationIsDirectory
        )
        self.assertFalse(session.published)
        again = self.reopened(self.backend)
        found = self.successResultOf(again.find(session.session_id))
        self.assertEqual((found.published, found.offset), (False, 5))

    def test_another_file_system_is_refused_in_words(self):
        for overwrite, call in ((False, "link"), (True, "rename")):
            session = self.complete(self.backend, ("a",), overwrite=overwrite)
            # Only the call that reaches into the tree; the state file is renamed too.
            self.backend._files.fail(call, errno.EXDEV, only="dst_dir_fd")
            failure = self.failureResultOf(
                self.publish(session, overwrite=overwrite), BackendError
            )
            self.assertIn("not on the file system of its root", str(failure.value))
            self.assertFalse(session.published)
            again = self.successResultOf(self.backend.find(session.session_id))
            self.assertEqual((again.published, again.offset), (False, 5))
            self.successResultOf(session.release())

    def test_a_mounted_parent_is_refused_at_creation(self):
        os.mkdir(os.path.join(self.root, "mounted"))
        self.backend._staging.tree._device += 1
        failure = self.failureResultOf(
            self.creation(self.backend, ("mounted", "x")), DestinationForbidden
        )
        self.assertIn("another file system", str(failure.value))

    def test_a_mount_of_the_same_file_system_is_refused_at_creation(self):
        """Its device is the same. Only moving something there shows it."""
        os.makedirs(os.path.join(self.root, "mounted", "below"))
        for destination in (("mounted", "x"), ("mounted", "below", "x")):
            self.backend._files.fail("rename", errno.EXDEV)
            failure = self.failureResultOf(
                self.creation(self.backend, destination), DestinationForbidden
            )
            self.assertIn("another file system", str(failure.value))

    def test_that_nothing_is_mounted_is_tried_out_once_for_each_directory(self):
        for name in ("a", "b"):
            os.mkdir(os.path.join(self.root, name))
        calls = self.backend._files.calls
        calls.clear()
        for _ in range(3):
            for name in ("a", "b"):
                self.create(self.backend, (name, "x"))
        self.assertEqual(calls.count("rename"), 2)

    def test_a_mount_that_comes_later_may_go_again(self):
        os.mkdir(os.path.join(self.root, "a"))
        session = self.complete(self.backend, ("a", "x"))
        self.backend._staging.tree._device += 1
        failure = self.failureResultOf(self.publish(session), BackendError)
        self.assertIs(failure.type, BackendError)
        self.assertIn("another file system", str(failure.value))
        self.backend._staging.tree._device -= 1
        self.successResultOf(self.publish(session))
        self.assertEqual(self.published(self.backend, ("a", "x")), b"whole")

    def mounted_file(self, mounts):
        """A file on another device; *mounts* tell whether it is on another mount."""
        self.place(self.backend, ("file",), b"theirs")
        files = self.backend._files
        lstat = files.lstat

        def elsewhere(name, **where):
            there = list(lstat(name, **where))
            there[stat.ST_DEV] += 1
            return os.stat_result(there)

        files.lstat = elsewhere
        files.mount_id = lambda fd: mounts.pop()
        return self.creation(self.backend, ("file",), overwrite=True)

    def test_a_file_that_is_a_mount_is_refused_at_creation(self):
        failure = self.failureResultOf(
            self.mounted_file(["29", "30"]), DestinationForbidden
        )
        self.assertIn("another file system", str(failure.value))

    def test_a_file_of_another_layer_is_no_mount(self):
        self.successResultOf(self.mounted_file(["29", "29"]))

    def test_what_is_mounted_at_the_destination_later_is_named(self):
        session = self.complete(self.backend, overwrite=True)
        self.backend._files.fail("rename", errno.EBUSY)
        failure = self.failureResultOf(self.publish(session, overwrite=True))
        self.assertIn("not on the file system of its root", str(failure.value))
        self.successResultOf(self.publish(session, overwrite=True))

    def test_published_files_have_the_permissions_of_new_files(self):
        session = self.complete(self.backend)
        self.successResultOf(self.publish(session))
        path = os.path.join(self.root, "plain")
        with open(path, "wb"):
            pass
        self.assertEqual(
            stat.S_IMODE(os.stat(os.path.join(self.root, "name.txt")).st_mode),
            stat.S_IMODE(os.stat(path).st_mode),
        )

    def test_the_staging_area_is_private(self):
        path = os.path.join(self.root, ".bits-sessions")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o700)
