"""
Group, permissions and ACL of published files: as of a file made in their folder.

What the kernel does is compared with files that are really made there. Where the
machine's file system has no ACLs, or this user no second group, there is less to
compare; all cases are tried once more with groups and ACLs that are only noted down.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from twisted.logger import globalLogPublisher

from tests.backends.disk.limited import LimitedFiles
from tests.backends.disk.mortal import DiskCase
from txbits._accounts import system_user
from txbits.backends.disk._ownership import _of_new_file
from txbits.errors import BackendError

_DEFAULT = "system.posix_acl_default"
_ACCESS = "system.posix_acl_access"
_ALL = 0xFFFFFFFF
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32


def acl(*entries):
    """As the kernel takes it: a tag, permissions, and an id each."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in entries)


#: Named users and groups, and a mask.
RICH = acl(
    (_USER_OBJ, 7, _ALL),
    (_USER, 7, 1234),
    (_GROUP_OBJ, 5, _ALL),
    (_GROUP, 7, 4321),
    (_MASK, 7, _ALL),
    (_OTHER, 1, _ALL),
)
#: Nothing but what fits into the permissions.
PLAIN = acl((_USER_OBJ, 7, _ALL), (_GROUP_OBJ, 7, _ALL), (_OTHER, 0, _ALL))


def other_group():
    """A group that this process may give to files, another than its own if possible."""
    if not os.geteuid():
        return 12345
    return next((one for one in os.getgroups() if one != os.getegid()), os.getegid())


class KernelTests(DiskCase):
    """Compared with what is really made there."""

    def folder(self, backend, name, *, is_group_kept, default):
        """A folder of the root, or the root itself."""
        path = os.path.join(backend.root, name)
        os.makedirs(path, exist_ok=True)
        os.chown(path, -1, other_group() if is_group_kept else os.getegid())
        os.chmod(path, 0o2775 if is_group_kept else 0o775)
        self.give_acl(path, default)
        return path

    def give_acl(self, path, default):
        try:
            if default:
                os.setxattr(path, _DEFAULT, default)
            else:
                os.removexattr(path, _DEFAULT)
        except OSError as error:
            # There are no ACLs, or there was none to be removed.
            if error.errno not in (errno.EOPNOTSUPP, errno.ENODATA):
                raise

    def looks(self, path):
        there = os.stat(path)
        try:
            attribute = os.getxattr(path, _ACCESS)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENODATA):
                raise
            attribute = None
        return there.st_uid, there.st_gid, stat.S_IMODE(there.st_mode), attribute

    def assert_all_alike(self, backend):
        for name in ("", "folder"):
            for is_group_kept in (False, True):
                for default in (None, RICH, PLAIN):
                    path = self.folder(
                        backend, name, is_group_kept=is_group_kept, default=default
                    )
                    made = os.path.join(path, "made")
                    os.close(os.open(made, os.O_CREAT | os.O_WRONLY, 0o666))
                    for overwrite in (False, True):
                        destination = (*filter(None, [name]), "published")
                        session = self.complete(
                            backend, destination, overwrite=overwrite
                        )
                        self.successResultOf(self.publish(session, overwrite))
                        self.successResultOf(session.release())
                        published = os.path.join(path, "published")
                        self.assertEqual(self.looks(published), self.looks(made))
                        os.unlink(published)
                    os.unlink(made)

    def test_published_files_are_as_if_made_there(self):
        self.assert_all_alike(self.start())

    def test_so_they_are_without_links(self):
        self.make_files = lambda: LimitedFiles(link=errno.EPERM)
        self.assert_all_alike(self.start())

    def test_what_the_staging_area_has_stays_there(self):
        """Its group is for applications, and its default ACL was the root's once."""
        for default in (RICH, PLAIN):
            backend = self.start()
            path = os.path.join(backend.root, ".bits-sessions")
            os.chown(path, -1, other_group())
            os.chmod(path, 0o2710)
            self.give_acl(path, default)
            self.assert_all_alike(self.reopened(backend))

    def test_directories_that_are_made_inherit_as_well(self):
        backend = self.start()
        path = self.folder(backend, "", is_group_kept=True, default=RICH)
        session = self.complete(backend, ("new", "name.txt"), create_directories=True)
        self.successResultOf(self.publish(session, create_directories=True))
        os.close(os.open(os.path.join(path, "new", "made"), os.O_CREAT, 0o666))
        self.assertEqual(
            self.looks(os.path.join(path, "new", "name.txt")),
            self.looks(os.path.join(path, "new", "made")),
        )


class NotedFiles(LimitedFiles):
    """
    Groups are noted down, and ACLs kept in memory.

    :ivar folder: The group of the root, which is to be kept; ``None`` if none is.
    :ivar groups: The groups that files can be given; ``None`` for any.
    :ivar given: The groups that files were given, one after the other.
    :ivar acls: By inode numbers, and names of attributes.
    """

    def __init__(self, **lacking):
        super().__init__(**lacking)
        self.folder = None
        self.groups = None
        self.given = []
        self.acls = {}

    def fchown(self, fd, uid, gid):
        if self.groups is not None and gid not in self.groups:
            self.fail("fchown", errno.EPERM)
            self.__getattr__("fchown")(fd, uid, gid)
        self.given.append(gid)

    def getxattr(self, fd, attribute):
        self.calls.append("getxattr")
        try:
            return self.acls[os.fstat(fd).st_ino, attribute]
        except KeyError:
            raise OSError(errno.ENODATA, "none") from None

    def listxattr(self, fd):
        if "listxattr" in self.lacking:
            raise OSError(self.lacking["listxattr"], "no such call")
        self.calls.append("listxattr")
        inode = os.fstat(fd).st_ino
        return [name for which, name in self.acls if which == inode]

    def setxattr(self, fd, attribute, value):
        self.acls[os.fstat(fd).st_ino, attribute] = value

    def stat(self, path, **more):
        return self.in_group(self.__getattr__("stat")(path, **more))

    def in_group(self, there):
        if self.folder is None or not stat.S_ISDIR(there.st_mode):
            return there
        numbers = list(there)
        numbers[stat.ST_GID] = self.folder
        numbers[stat.ST_MODE] |= stat.S_ISGID
        return os.stat_result(numbers)


class NotedTests(DiskCase):
    """What is asked of the system."""

    def setUp(self):
        self.make_files = NotedFiles
        self.backend = self.start()
        self.files = self.backend._files
        self.events = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def upload(self, name, **rules):
        session = self.complete(self.backend, (name,), **rules)
        self.successResultOf(self.publish(session, **rules))
        return os.stat(os.path.join(self.backend.root, name)).st_ino

    def test_a_folder_like_any_other_costs_one_look_for_an_acl(self):
        self.files.calls.clear()
        self.upload("a")
        for name in ("fchown", "setxattr", "removexattr", "fchmod"):
            self.assertNotIn(name, self.files.calls)
        self.assertEqual(self.files.calls.count("listxattr"), 1)
        self.assertNotIn("getxattr", self.files.calls)
        self.assertEqual(self.files.calls.count("open"), 1)
        self.assertEqual(self.files.given, [])

    def test_one_that_lists_no_acls_is_asked_for_them(self):
        self.make_files = lambda: NotedFiles(listxattr=errno.EOPNOTSUPP)
        self.backend = self.start()
        self.files = self.backend._files
        self.files.calls.clear()
        self.upload("a")
        self.assertEqual(self.files.calls.count("getxattr"), 1)
        root = os.stat(self.backend.root).st_ino
        self.files.acls[root, _DEFAULT] = RICH
        inode = self.upload("b")
        self.assertEqual(self.files.acls[inode, _ACCESS], _of_new_file(RICH))

    def test_a_file_system_without_acls_is_not_asked_for_them(self):
        self.make_files = lambda: LimitedFiles(getxattr=errno.EOPNOTSUPP)
        self.backend = self.start()
        self.backend._files.calls.clear()
        self.upload("a")
        self.assertNotIn("getxattr", self.backend._files.calls)

    def test_the_group_of_the_folder_is_given(self):
        self.files.folder = 4711
        self.upload("a")
        self.upload("b", overwrite=True)
        self.assertEqual(self.files.given, [4711, 4711])

    def test_a_group_that_cannot_be_given_is_said_once(self):
        self.files.folder, self.files.groups = 4711, ()
        self.upload("a")
        self.upload("b")
        (event,) = [one for one in self.events if "gid" in one]
        self.assertIn(
            f"add user {system_user()} to that group",
            event["log_format"].format(**event),
        )
        self.assertEqual(event["gid"], 4711)

    def test_a_group_that_could_not_be_given_for_another_reason_is_a_fault(self):
        self.files.folder = 4711
        session = self.complete(self.backend)
        fchown = self.files.fchown

        def fault(*_):
            raise OSError(errno.EIO, "a fault")

        self.files.fchown = fault
        self.failureResultOf(self.publish(session), BackendError)
        self.assertIsNone(self.published(self.backend, ("name.txt",)))
        self.files.fchown = fchown
        self.successResultOf(self.publish(session))
        self.assertEqual(self.files.given, [4711])

    def test_the_acl_of_the_folder_is_given(self):
        root = os.stat(self.backend.root).st_ino
        self.files.acls[root, _DEFAULT] = RICH
        inode = self.upload("a")
        self.assertEqual(self.files.acls[inode, _ACCESS], _of_new_file(RICH))

    def test_it_is_given_before_the_file_shows_and_made_safe_with_it(self):
        self.files.folder = 4711
        session = self.complete(self.backend)
        seen = []
        fchown, fsync = self.files.fchown, self.files.fsync

        def noted(name, call):
            def made(*args):
                seen.append((name, self.published(self.backend, ("name.txt",))))
                call(*args)

            return made

        self.files.fchown = noted("fchown", fchown)
        self.files.fsync = noted("fsync", fsync)
        self.successResultOf(self.publish(session))
        self.assertEqual(seen[:2], [("fchown", None), ("fsync", None)])

    def test_a_file_that_cannot_be_made_safe_again_is_not_published(self):
        self.files.folder = 4711
        session = self.complete(self.backend)
        self.files.fail("fsync", errno.EIO)
        self.failureResultOf(self.publish(session), BackendError)
        self.assertIsNone(self.published(self.backend, ("name.txt",)))
        self.assertEqual(session.offset, 0)

    def test_a_file_that_has_been_moved_already_has_it(self):
        self.files.folder = 4711
        session = self.complete(self.backend, overwrite=True)
        fsync = self.files.fsync

        def of_no_directory(fd):
            if fd == self.backend._staging.tree.fd:
                raise OSError(errno.EIO, "a fault")
            fsync(fd)

        self.files.fsync = of_no_directory
        self.failureResultOf(self.publish(session, overwrite=True), BackendError)
        self.assertEqual(self.published(self.backend, ("name.txt",)), b"whole")
        del self.files.fsync
        self.successResultOf(self.publish(session, overwrite=True))
        self.assertEqual(self.files.given, [4711])


class AclTests(DiskCase):
    """The ACL of a new file, of the one of its folder."""

    def test_the_mask_is_bounded_and_named_entries_are_not(self):
        self.assertEqual(
            _of_new_file(RICH),
            acl(
                (_USER_OBJ, 6, _ALL),
                (_USER, 7, 1234),
                (_GROUP_OBJ, 5, _ALL),
                (_GROUP, 7, 4321),
                (_MASK, 6, _ALL),
                (_OTHER, 0, _ALL),
            ),
        )

    def test_without_a_mask_the_group_is_bounded(self):
        self.assertEqual(
            _of_new_file(PLAIN),
            acl((_USER_OBJ, 6, _ALL), (_GROUP_OBJ, 6, _ALL), (_OTHER, 0, _ALL)),
        )

    def test_the_machine_tells_the_umask(self):
        before = os.umask(0o027)
        try:
            self.assertEqual(LimitedFiles().umask(), 0o027)
        finally:
            os.umask(before)
