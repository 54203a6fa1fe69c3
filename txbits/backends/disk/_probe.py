"""
What the file system of a root supports, found out by trying.

Its name does not tell: FUSE, network and stacked file systems each lack something
different. So a start tries in the staging area what publishing needs, and chooses from
what works. If it is killed meanwhile, the next start removes the leftovers.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from enum import Enum

from attrs import field, frozen

from txbits.backends.disk._files import DIRECTORY, FULL, WRITE, Files, opened, remove
from txbits.errors import BackendError

# A file that always exists, so that none has to be created, even on a full disk.
_LOCK = "lock"

_LINK = "probe-link"
_MOVED = "probe-moved"
_PLACE = "probe-place"

# Never exists: see can_move.
_NOTHING = "probe-nothing"

_NEW = WRITE | os.O_CREAT | os.O_EXCL

# The errors of file systems that lack something: the fsync of a directory,
_NO_SYNC = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})

# statvfs, or ACLs,
_LACKING = _NO_SYNC | {errno.ENOTTY, errno.EPERM, errno.EACCES}

#: or locks. NFS returns ENOLCK if its lock service does not run.
NO_LOCKS = _NO_SYNC | {errno.ENOTTY, errno.ENOLCK}

# The errors for names that they do not allow.
_BAD_NAME = frozenset({errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG})

#: The extended attribute of a directory with the ACL of new files.
DEFAULT_ACL = "system.posix_acl_default"

# Owner, group and others may do everything: a version, then entries of a tag,
# permissions and an id.
_SOME_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, 7, 0xFFFFFFFF) for tag in (0x01, 0x04, 0x20)
)

# Characters that Windows and its file systems do not allow in names.
_FOREIGN_NAME = b'a"*<>?|b'


class Way(Enum):
    """How a file is published without overwriting another one."""

    LINK = "hard links"
    """A second link, which fails if the destination exists."""

    RENAME = "rename without replacing"
    """``renameat2`` with ``RENAME_NOREPLACE``."""

    COMPARED = "hard links, verified by content"
    """A second link that does not show as one: after a crash, the bytes tell whether
    the file at the destination is the upload."""

    NONE = "none"
    """An existing file could be overwritten."""


@frozen
class FileSystem:
    """
    What a file system supports.

    :ivar links: Whether a file can have several names.
    :ivar shows_links: Whether all names show one inode number, and a count.
    :ivar renames: Whether a file can be renamed without replacing another.
    :ivar syncs_names: Whether a directory can be synced; also if that is not needed.
    :ivar tells_space: Whether it reports its free space.
    :ivar limits_names: Whether it does not allow every name.
    :ivar has_acls: Whether directories can have a default ACL.
    :ivar lists_acls: Whether extended attributes that it lists include the ACL.
    :ivar lacking: What it lacks, in words.
    :ivar way: How files are published.
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
    Find out what a file system supports. It blocks.

    If the disk is too full to try something, it counts as supported: the server has to
    start, since clients that close their uploads need no space.

    :param directory: The descriptor of the staging area, which has its lock file.
    :param syncs: Whether directories are ever synced.
    :raises OSError: If it fails for another reason than missing support.
    """
    remove_leftovers(files, directory)
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
        with suppress(OSError):  # the next start tries again
            remove_leftovers(files, directory)
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


def remove_leftovers(files: Files, directory: int) -> None:
    """
    Remove what a start that was killed has left. It blocks.

    :param directory: The descriptor of a directory that was probed.
    :raises OSError: If that fails.
    """
    for name in (_LINK, _MOVED):
        remove(files, name, directory)
    try:
        with opened(files, _PLACE, DIRECTORY, directory) as place:
            for name in files.listdir(place):
                remove(files, name, place)
    except FileNotFoundError:
        return
    files.rmdir(_PLACE, dir_fd=directory)


def can_move(files: Files, source: int, target: int) -> bool:
    """
    Tell whether files could be moved, or linked, from one directory to another.

    There may be a mount between them, even of the same file system, which device
    numbers do not show. The kernel checks that before it looks for the file.
    """
    try:
        files.rename(_NOTHING, _NOTHING, src_dir_fd=source, dst_dir_fd=target)
    except OSError as error:
        return error.errno != errno.EXDEV
    raise BackendError(f"{_NOTHING} exists, although txbits never creates it")


def takes_name(files: Files, directory: int, name: bytes) -> bool:
    """
    Find out whether a file could have a name. It blocks.

    :param directory: The descriptor of the staging area.
    :returns: ``True`` also if that cannot be found out.
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
    Make the names in a directory survive a system crash. It blocks.

    :raises OSError: If that fails, except if the file system does not support it.
    """
    try:
        files.fsync(directory)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def syncs_no_names(error: BaseException | None) -> bool:
    """Whether the fsync of a directory failed because it is not supported."""
    return isinstance(error, OSError) and error.errno in _NO_SYNC


def read_acl(files: Files, fd: int, attribute: str) -> bytes | None:
    """
    Read an ACL of a directory or file in the kernel's form.

    :returns: Empty if it has none; ``None`` if the file system has no ACLs.
    :raises OSError: If reading fails.
    """
    try:
        return files.getxattr(fd, attribute)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return b""
        if error.errno in _LACKING:
            return None
        raise


# Below: how each is tried.


def _has(
    lacking: list[str], what: str, trial: Callable[..., object], *args: object
) -> bool:
    """
    Try something.

    :param lacking: The list to append to if it is not supported.
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
    return files.open(_PLACE, DIRECTORY, dir_fd=directory)


def _close_place(files: Files, directory: int, place: int) -> None:
    files.close(place)
    with suppress(OSError):  # another thread uses it; the next start removes it
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
        return False  # none, or unknown: each is then read without this
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
        return True  # the disk is full
    return os.path.samestat(one, other) and one.st_nlink == other.st_nlink == 2


def _try_rename(files: Files, directory: int, links: bool) -> None:
    if not links:
        files.close(files.open(_LINK, _NEW, 0o600, dir_fd=directory))
    with suppress(FileNotFoundError):  # the disk is full
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
