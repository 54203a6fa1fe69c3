"""
What the file system below a root can do, found out by doing it.

Its name does not tell: FUSE, network and stacked file systems each leave out something
else. So a start tries, in the staging area, what publishing is going to need, and
chooses from what is there. What that leaves behind when it is killed, the next start
removes.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from enum import Enum

from attrs import field, frozen

from txbits.backends.disk._files import FULL, Files
from txbits.errors import BackendError

# A file that is always there, so that nothing need be made, also on a full disk.
_LOCK = "lock"

_LINK = "probe-link"
_MOVED = "probe-moved"
_PLACE = "probe-place"

# Never there: see can_move.
_NOTHING = "probe-nothing"

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# How file systems say that they do not have something: the fsync of a directory,
_NO_SYNC = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})

# statvfs, or ACLs,
_LACKING = _NO_SYNC | {errno.ENOTTY, errno.EPERM, errno.EACCES}

#: or locks. ENOLCK is that of NFS whose lock service is away.
NO_LOCKS = _NO_SYNC | {errno.ENOTTY, errno.ENOLCK}

# How they say that they do not take a name.
_BAD_NAME = frozenset({errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG})

#: The extended attribute of a directory for the ACL of files made there.
DEFAULT_ACL = "system.posix_acl_default"

# Owner, group and others may do everything: a version, then a tag, permissions and an
# id each.
_SOME_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, 7, 0xFFFFFFFF) for tag in (0x01, 0x04, 0x20)
)

# Characters that Windows, and file systems that come from there, have in no name.
_FOREIGN_NAME = b'a"*<>?|b'


class Way(Enum):
    """How a file is published where nothing may be overwritten."""

    LINK = "hard links"
    """A second link fails where something stands."""

    RENAME = "rename without replacing"
    """``renameat2`` with ``RENAME_NOREPLACE``."""

    COMPARED = "hard links, verified by content"
    """A second link, which does not show that it is one: after a crash the bytes tell
    whether what stands there is the upload."""

    NONE = "none"
    """A file that exists could be overwritten."""


@frozen
class FileSystem:
    """
    What one can do.

    :ivar links: Whether a file can have several names.
    :ivar shows_links: Whether these can be seen to be of one file: the same inode
        number, and a count.
    :ivar renames: Whether a file can be renamed without replacing another.
    :ivar syncs_names: Whether a directory can be synced; also if nobody wants to.
    :ivar tells_space: Whether it tells how much is free.
    :ivar limits_names: Whether it does not take every name.
    :ivar has_acls: Whether directories may have a default ACL.
    :ivar lists_acls: Whether that shows in the list of their extended attributes.
    :ivar lacking: What it lacks of this, in words.
    :ivar way: How files are published there.
    """

    links: bool
    shows_links: bool
    renames: bool
    syncs_names: bool
    tells_space: bool
    limits_names: bool
    has_acls: bool
    lists_acls: bool
    lacking: tuple[str, ...]
    way: Way = field(init=False)

    @way.default
    def _chosen(self) -> Way:
        if self.links and self.shows_links:
            return Way.LINK
        if self.renames:
            return Way.RENAME
        return Way.COMPARED if self.links else Way.NONE


def probe(files: Files, directory: int, *, syncs: bool) -> FileSystem:
    """
    Find out what a file system can do. It blocks.

    Where the disk is too full to try, it is taken to have what most have: a server must
    start then, since clients that close their uploads need no space.

    :param directory: The staging area, with its lock.
    :param syncs: Whether anything is ever to be synced.
    :raises OSError: If it fails in another way than by not having something.
    """
    _remove_leftovers(files, directory)
    lacking: list[str] = []
    try:
        links = _has(lacking, "hard links", _try_link, files, directory)
        shows_links = links and _shows_links(files, directory)
        if links and not shows_links:
            lacking.append("one inode number for all links to a file")
        renames = _has(
            lacking, "rename without replacing", _try_rename, files, directory, links
        )
        limits_names = not takes_name(files, directory, _FOREIGN_NAME)
        lists_acls = _lists_acls(files, directory)
        if limits_names:
            lacking.append("support for all characters in names")
    finally:
        with suppress(OSError):  # the next start does it
            _remove_leftovers(files, directory)
    syncs_names = not syncs or _syncs_names(lacking, files, directory)
    tells_space = _tells_space(files, directory)
    if not tells_space:
        lacking.append("free space reporting")
    has_acls = read_acl(files, directory, DEFAULT_ACL) is not None
    if not has_acls:
        lacking.append("default ACLs")
    return FileSystem(
        links,
        shows_links,
        renames,
        syncs_names,
        tells_space,
        limits_names,
        has_acls,
        lists_acls,
        tuple(lacking),
    )


def can_move(files: Files, source: int, target: int) -> bool:
    """
    Tell whether files could be moved, or linked, from one directory to another.

    There may be a mount between them, also of the same file system, which no number of
    a device shows. The kernel looks at that before it looks for the file.
    """
    try:
        files.rename(_NOTHING, _NOTHING, src_dir_fd=source, dst_dir_fd=target)
    except OSError as error:
        return error.errno != errno.EXDEV
    raise BackendError(f"{_NOTHING} exists, although txbits never creates it")


def takes_name(files: Files, directory: int, name: bytes) -> bool:
    """
    Find out whether a file could have a name. It blocks.

    :param directory: The staging area.
    :returns: Also ``True`` if that cannot be found out.
    """
    try:
        place = _open_place(files, directory)
    except OSError:
        return True
    try:
        files.close(files.open(name, _NEW, 0o600, dir_fd=place))
        files.unlink(name, dir_fd=place)
    except OSError as error:
        return error.errno not in _BAD_NAME
    finally:
        _close_place(files, directory, place)
    return True


def sync_names(files: Files, directory: int) -> None:
    """
    Make the names in a directory survive a crash of the machine. It blocks.

    :raises OSError: If that fails; not if the file system does not do it at all.
    """
    try:
        files.fsync(directory)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def syncs_no_names(error: BaseException | None) -> bool:
    """Whether the fsync of a directory failed because there is no such thing."""
    return isinstance(error, OSError) and error.errno in _NO_SYNC


def read_acl(files: Files, fd: int, attribute: str) -> bytes | None:
    """
    Read an ACL of a directory or file, as the kernel hands it out.

    :returns: Empty if it has none; ``None`` if there are no ACLs at all.
    :raises OSError: If that cannot be found out.
    """
    try:
        return files.getxattr(fd, attribute)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return b""
        if error.errno in _LACKING:
            return None
        raise


# Below: how each is tried


def _remove_leftovers(files: Files, directory: int) -> None:
    for name in (_LINK, _MOVED):
        with suppress(FileNotFoundError):
            files.unlink(name, dir_fd=directory)
    try:
        place = files.open(_PLACE, _DIRECTORY, dir_fd=directory)
    except FileNotFoundError:
        return
    try:
        for name in files.listdir(place):
            files.unlink(name, dir_fd=place)
    finally:
        files.close(place)
    files.rmdir(_PLACE, dir_fd=directory)


def _has(
    lacking: list[str], what: str, trial: Callable[..., object], *args: object
) -> bool:
    """
    Try something.

    :param lacking: Where to say that it is not there, and how that showed.
    """
    try:
        trial(*args)
    except OSError as error:
        if error.errno not in FULL:
            lacking.append(f"{what} ({error.strerror})")
            return False
    return True


def _open_place(files: Files, directory: int) -> int:
    with suppress(FileExistsError):
        files.mkdir(_PLACE, 0o700, dir_fd=directory)
    return files.open(_PLACE, _DIRECTORY, dir_fd=directory)


def _close_place(files: Files, directory: int, place: int) -> None:
    files.close(place)
    with suppress(OSError):  # somebody else uses it; the next start removes it
        files.rmdir(_PLACE, dir_fd=directory)


def _lists_acls(files: Files, directory: int) -> bool:
    try:
        place = _open_place(files, directory)
    except OSError:
        return False
    try:
        files.setxattr(place, DEFAULT_ACL, _SOME_ACL)
        return DEFAULT_ACL in files.listxattr(place)
    except OSError:
        return False  # there are none, or nobody can say; they are asked for then
    finally:
        _close_place(files, directory, place)


def _try_link(files: Files, directory: int) -> None:
    files.link(
        _LOCK,
        _LINK,
        src_dir_fd=directory,
        dst_dir_fd=directory,
        follow_symlinks=False,
    )


def _shows_links(files: Files, directory: int) -> bool:
    one = files.lstat(_LOCK, dir_fd=directory)
    try:
        other = files.lstat(_LINK, dir_fd=directory)
    except FileNotFoundError:
        return True  # there was no space for it
    return os.path.samestat(one, other) and one.st_nlink == other.st_nlink == 2


def _try_rename(files: Files, directory: int, links: bool) -> None:
    if not links:
        files.close(files.open(_LINK, _NEW, 0o600, dir_fd=directory))
    with suppress(FileNotFoundError):  # there was no space for it
        files.rename_no_replace(
            _LINK, _MOVED, src_dir_fd=directory, dst_dir_fd=directory
        )


def _syncs_names(lacking: list[str], files: Files, directory: int) -> bool:
    try:
        files.fsync(directory)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
        lacking.append(f"fsync of directories ({error.strerror})")
        return False
    return True


def _tells_space(files: Files, directory: int) -> bool:
    try:
        there = files.statvfs(directory)
        return there.f_blocks > 0 and there.f_frsize > 0
    except OSError as error:
        if error.errno in _LACKING:
            return False
        raise
