"""
Group and ACL of published files: those of a file made in the folder they appear in.

A part is made in the staging area, and moved or linked from there, which changes
neither. The kernel would have given a file made in the folder the folder's group, if
that has its setgid bit, and permissions by its default ACL, if it has one.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from attrs import define, field, frozen
from twisted.logger import Logger

from txbits.backends.disk._files import Files
from txbits.backends.disk._probe import DEFAULT_ACL, FileSystem, read_acl

_log = Logger()

_ACCESS = "system.posix_acl_access"

# As the kernel hands ACLs out: a version, then a tag, permissions and an id each.
_VERSION = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_USER, _GROUP, _MASK, _OTHER = 0x01, 0x04, 0x10, 0x20

# What programs ask for when they make a file, before it is masked.
_MODE = 0o666


@frozen
class Wanted:
    """
    What a file is to have.

    :ivar gid: Its group.
    :ivar acl: Its ACL, as the kernel takes it; empty if it is to have none.
    """

    gid: int
    acl: bytes


@define(eq=False)
class Ownership:
    """
    Knows what parts have, and what files in a folder are to have.

    :param gid: The group that this process makes files with.
    :param part_gid: The group that it makes parts with.
    :param mask: The umask, if parts are made by a default ACL of the staging area's
        that a folder need not have; ``None`` if they are not.
    :param has_acls: Whether the file system has ACLs.
    :param lists_acls: Whether they are among the extended attributes that it lists.
    """

    _files: Files
    _gid: int
    _part_gid: int
    _mask: int | None
    _has_acls: bool
    _lists_acls: bool
    _complained: set[int] = field(factory=set, init=False)

    @classmethod
    def of_staging(
        cls, files: Files, gid: int, directory: int, file_system: FileSystem
    ) -> Ownership:
        """
        Look at the staging area.

        :param directory: It, opened.
        :param file_system: What its file system can do.
        :raises OSError: If that fails.
        """
        there = files.fstat(directory)
        has_acl = bool(read_acl(files, directory, DEFAULT_ACL))
        return cls(
            files,
            gid,
            there.st_gid if there.st_mode & stat.S_ISGID else gid,
            files.umask() if has_acl else None,
            file_system.has_acls,
            file_system.lists_acls,
        )

    def wanted(self, parent: int, there: os.stat_result) -> Wanted | None:
        """
        Tell what a part needs before it appears in a folder.

        :param parent: The folder, opened.
        :param there: What ``stat`` says of it.
        :returns: ``None`` if it needs nothing.
        :raises OSError: If that cannot be found out.
        """
        gid = there.st_gid if there.st_mode & stat.S_ISGID else self._gid
        acl = self._default_acl(parent) if self._has_acls else None
        if not acl and gid == self._part_gid and self._mask is None:
            return None
        return Wanted(gid, _of_new_file(acl) if acl else b"")

    def _default_acl(self, parent: int) -> bytes | None:
        # To ask for one that is not there takes an exception, and thrice the time.
        if self._lists_acls and DEFAULT_ACL not in self._files.listxattr(parent):
            return None
        return read_acl(self._files, parent, DEFAULT_ACL)

    def give(self, fd: int, wanted: Wanted) -> bool:
        """
        Give a part what it needs. It blocks.

        :param fd: The part, opened.
        :returns: Whether it had not got that already.
        :raises OSError: If that fails. That this process is in no position to give a
            group is said in the log.
        """
        files = self._files
        there = files.fstat(fd)
        has_changed = there.st_gid != wanted.gid
        if has_changed:
            self._give_group(fd, wanted.gid)
        if not wanted.acl and self._mask is None:
            return has_changed
        acl = read_acl(files, fd, _ACCESS)
        if wanted.acl:
            if acl == wanted.acl:
                return has_changed
            files.setxattr(fd, _ACCESS, wanted.acl)
        elif self._mask is not None:
            mode = _MODE & ~self._mask
            if not acl and stat.S_IMODE(there.st_mode) == mode:
                return has_changed
            if acl:
                files.removexattr(fd, _ACCESS)
            files.fchmod(fd, mode)
        return True

    def _give_group(self, fd: int, gid: int) -> None:
        try:
            self._files.fchown(fd, -1, gid)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP):
                raise
            if gid not in self._complained:
                self._complained.add(gid)
                _log.warn(
                    "cannot give published files the group of their folder, {gid} "
                    "({reason}); add the user that txbits runs as to that group",
                    gid=gid,
                    reason=error.strerror,
                )


def _of_new_file(default: bytes) -> bytes:
    """
    Make the ACL of a new file of a folder's default ACL, as the kernel does.

    What a program asks for when it makes a file bounds owner, others, and the mask, or
    where there is no mask the owning group (POSIX 1003.1e draft 17, 23.5.1).
    """
    version, entries = default[: _VERSION.size], default[_VERSION.size :]
    tags = {entry[0] for entry in _ENTRY.iter_unpack(entries)}
    bounds = {
        _USER: _MODE >> 6 & 7,
        _MASK if _MASK in tags else _GROUP: _MODE >> 3 & 7,
        _OTHER: _MODE & 7,
    }
    return version + b"".join(
        _ENTRY.pack(tag, permissions & bounds.get(tag, 7), identity)
        for tag, permissions, identity in _ENTRY.iter_unpack(entries)
    )
