"""
Group and ACL of published files: those of a file that is created in their directory.

A staged file is created in the staging area, and moving or linking it changes neither.
The kernel gives a file that is created in a directory the group of the directory, if
that has the setgid bit, and permissions by its default ACL, if it has one.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from attrs import define, field, frozen
from twisted.logger import Logger

from txbits._accounts import system_user
from txbits.backends.disk._files import Files
from txbits.backends.disk._probe import DEFAULT_ACL, FileSystem, read_acl

_log = Logger()

_ACCESS = "system.posix_acl_access"

# The kernel's form of an ACL: a version, then entries of a tag, permissions and an id.
_VERSION = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_USER, _GROUP, _MASK, _OTHER = 0x01, 0x04, 0x10, 0x20

# The mode with which programs create files, before it is masked.
_MODE = 0o666


@frozen
class Wanted:
    """
    The group and ACL that a file needs.

    :ivar acl: The ACL in the kernel's form; empty for none.
    """

    gid: int
    acl: bytes


@define(eq=False)
class Ownership:
    """
    Gives staged files the group and ACL that their directory asks for.

    :param gid: The group of files that this process creates.
    :param part_gid: The group of staged files.
    :param mask: The umask, if staged files get their permissions from a default ACL of
        the staging area, which other directories need not have; otherwise ``None``.
    :param has_acls: Whether the file system has ACLs.
    :param lists_acls: Whether ACLs are among the extended attributes that it lists.
    """

    _files: Files
    _gid: int
    _part_gid: int
    _mask: int | None
    _has_acls: bool
    _lists_acls: bool
    _complained: set[int] = field(factory=set, init=False)
    _last: tuple[os.stat_result, Wanted | None] | None = field(default=None, init=False)

    @classmethod
    def of_staging(
        cls, files: Files, gid: int, directory: int, file_system: FileSystem
    ) -> Ownership:
        """
        Examine the staging area.

        :param directory: Its descriptor.
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
        Tell what a staged file needs before it appears in a directory.

        :param parent: The descriptor of the directory.
        :param there: What ``stat`` returns for it. If that is the same object as last
            time, so is the answer.
        :returns: ``None`` if it needs nothing.
        :raises OSError: If that fails.
        """
        if self._last is None or self._last[0] is not there:
            self._last = there, self._wanted(parent, there)
        return self._last[1]

    def _wanted(self, parent: int, there: os.stat_result) -> Wanted | None:
        gid = there.st_gid if there.st_mode & stat.S_ISGID else self._gid
        acl = self._default_acl(parent) if self._has_acls else None
        if not acl and gid == self._part_gid and self._mask is None:
            return None
        return Wanted(gid, _of_new_file(acl) if acl else b"")

    def _default_acl(self, parent: int) -> bytes | None:
        # Asking for a missing one raises an exception, and takes three times as long.
        if self._lists_acls and DEFAULT_ACL not in self._files.listxattr(parent):
            return None
        return read_acl(self._files, parent, DEFAULT_ACL)

    def give(self, fd: int, wanted: Wanted) -> bool:
        """
        Give a staged file what it needs. It blocks.

        :param fd: Its descriptor.
        :returns: Whether that changed anything.
        :raises OSError: If that fails. If this process may not set the group, it logs
            that instead.
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
                    "cannot give published files the group of their directory, {gid} "
                    "({reason}); add user {user} to that group",
                    gid=gid,
                    reason=error.strerror,
                    user=system_user(),
                )


def _of_new_file(default: bytes) -> bytes:
    """
    Derive the ACL of a new file from a directory's default ACL, as the kernel does.

    The mode with which the file is created limits the owner, the others, and the mask,
    or the owning group if there is no mask (POSIX 1003.1e draft 17, 23.5.1).
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
