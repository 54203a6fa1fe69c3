"""
Where published files go: the root, and a destination resolved below it.

Each directory is opened relative to the one above it and never through a symbolic link,
so the directory that was checked is the one that is used, even if something is renamed
meanwhile. To follow a link that stays below the root, the walk starts over from the
root with the path that the link resolves to.
"""

from __future__ import annotations

import errno
import os
import stat
import string
from collections.abc import Callable
from contextlib import suppress

from attrs import define, field
from twisted.logger import Logger

from txbits.backends._destinations import RESERVED
from txbits.backends._naming import shown_path
from txbits.backends.disk._files import DIRECTORY, Files, storage_error
from txbits.backends.disk._probe import can_move, sync_names, takes_name
from txbits.errors import (
    BackendError,
    DestinationExists,
    DestinationForbidden,
    DestinationIsDirectory,
    ParentMissing,
)

_log = Logger()

#: How long, in seconds, a look at the file system counts.
MOMENT = 0.05

_THERE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

# The characters that every file system allows in names, and a length that it allows.
_COMMON = frozenset(string.ascii_letters + string.digits + "-_.")
_MANY = 60

# How many directories are remembered before all are forgotten.
_MOST_REACHED = 1024

# As many as Linux follows itself.
_MOST_LINKS = 40


class _NotThereYet(ParentMissing):
    """A directory that is missing, and that could be created."""


class Mounted(DestinationForbidden):
    """A mount point on the way, beyond which staged files cannot be moved."""


@define(eq=False)
class Root:
    """
    The path of a root, which may lead elsewhere later.

    A volume may be mounted there, or the directory renamed. This process still has the
    directory that it opened, and would publish files where nobody looks.

    :ivar path: The path as given; symbolic links on it are followed.
    :param fd: The directory that it led to at the start, opened.
    :param identity: The device and inode of that.
    :param seconds: A clock.
    :ivar has_news: Whether a file was published since the last check.
    """

    _files: Files
    path: str
    _fd: int
    _identity: tuple[int, int]
    _seconds: Callable[[], float]
    has_news: bool = field(default=False, init=False)
    _there: os.stat_result | None = field(default=None, init=False)
    _seen: float = field(default=float("-inf"), init=False)
    _is_astray: bool = field(default=False, init=False)

    def check(self) -> os.stat_result:
        """
        Check the path before something is acknowledged.

        :returns: What ``stat`` returns for the directory.
        :raises BackendError: If the path leads elsewhere, or nowhere.
        """
        now = self._seconds()
        self.has_news = False
        try:
            there = self._files.stat(self.path)
        except OSError as error:
            raise self._astray(str(error.strerror)) from error
        if (there.st_dev, there.st_ino) != self._identity:
            # Some file systems renumber their files.
            opened = self._files.fstat(self._fd)
            if not os.path.samestat(there, opened):
                raise self._astray("the path leads to another directory")
            self._identity = there.st_dev, there.st_ino
        if self._is_astray:
            self._is_astray = False
            _log.info("{root} is the original directory again", root=self.path)
        self._there, self._seen = there, now
        return there

    def check_again(self, after: float = float("-inf")) -> os.stat_result:
        """
        Check again, unless the last check was a moment ago.

        :param after: A time that the last check must be after, in seconds of the clock.
        :returns: What ``stat`` returned at the last check.
        :raises BackendError: As :meth:`check`.
        """
        there, seen = self._there, self._seen
        if there is None or not (after < seen <= self._seconds() < seen + MOMENT):
            there = self.check()
        return there

    def check_news(self) -> None:
        """
        Check before something that was published is acknowledged.

        Files that were published together share a check. A volume that is mounted
        between the check and the Ack hides no more than one that is mounted after both.

        :raises BackendError: As :meth:`check`.
        """
        if self.has_news:
            self.check()
        else:
            self.check_again()

    def _astray(self, reason: str) -> BackendError:
        self._there = None
        fault = BackendError(
            f"{self.path} is no longer the directory that txbits opened: {reason}"
        )
        if not self._is_astray:
            self._is_astray = True
            _log.error(
                "{root} is no longer the directory that txbits opened: {reason}; files "
                "would be published out of sight, so uploads are neither created nor "
                "closed until it is restored or txbits restarts",
                root=self.path,
                reason=reason,
            )
        return fault


@define(eq=False)
class Tree:
    """
    The directory that uploads are published below.

    :ivar path: Its absolute path, without symbolic links.
    :ivar fd: Its descriptor.
    :param device: Its device.
    :param staging: Device and inode of the staging area.
    :param sync: Whether to sync the names of new directories.
    :param staged: The descriptor of the staging area.
    :param limits_names: Whether the file system rejects some names.
    :ivar reached: The inode numbers of directories that files can be moved to. A file
        system that is mounted on one of them has another number.
    """

    _files: Files
    path: bytes
    fd: int
    _device: int
    _staging: tuple[int, int]
    _sync: bool
    _staged: int
    _limits_names: bool
    _reached: set[int] = field(factory=set, init=False)

    def check(
        self, segments: tuple[str, ...], *, overwrite: bool, create_directories: bool
    ) -> None:
        """
        Refuse a destination that currently cannot be published to.

        :param segments: What ``checked_segments`` returned.
        :raises BackendError: In the ways of ``IBackend.create``.
        """
        if self._limits_names and not self._takes_names(segments):
            raise DestinationForbidden(
                f"{shown_path(segments)}: this file system does not allow the name"
            )
        try:
            parent = self.open_parent(segments, is_new=True)
        except _NotThereYet:
            if create_directories:
                return
            raise
        try:
            there = self.check_name(parent, segments, overwrite=overwrite)
            # On stacked file systems, files have many devices.
            if there is not None and there.st_dev != self._device:
                self._check_mount(parent, segments)
        finally:
            self.let_go(parent)

    def _check_mount(self, parent: int, segments: tuple[str, ...]) -> None:
        files = self._files
        try:
            fd = files.open(segments[-1].encode(), _THERE, dir_fd=parent)
        except FileNotFoundError:
            return  # removed meanwhile
        try:
            if files.mount_id(fd) != files.mount_id(parent):
                raise _mounted(b"/".join(map(str.encode, segments)), self.path)
        finally:
            files.close(fd)

    def _takes_names(self, segments: tuple[str, ...]) -> bool:
        # One name tries the characters of all segments.
        odd = {one for segment in segments for one in segment if one not in _COMMON}
        names = ["".join(sorted(odd)[:_MANY])] if odd else []
        return all(
            takes_name(self._files, self._staged, name.encode())
            for name in (segments[-1], *names)
        )

    def check_name(
        self, parent: int, segments: tuple[str, ...], *, overwrite: bool
    ) -> os.stat_result | None:
        """
        Refuse a destination whose file may not be replaced.

        :returns: What ``lstat`` returns for it; ``None`` if it does not exist.
        :raises DestinationExists: If it exists, and *overwrite* is not set.
        :raises DestinationIsDirectory: If it is a directory, or a link to one.
        """
        try:
            there = self._files.lstat(segments[-1].encode(), dir_fd=parent)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._refusal(error, segments) from error
        if stat.S_ISDIR(there.st_mode) or (
            stat.S_ISLNK(there.st_mode) and self._leads_to_directory(parent, segments)
        ):
            raise DestinationIsDirectory(f"{shown_path(segments)} is a directory")
        if not overwrite:
            raise DestinationExists(f"{shown_path(segments)} exists")
        return there

    def open_parent(
        self,
        segments: tuple[str, ...],
        *,
        create_directories: bool = False,
        is_new: bool = False,
    ) -> int:
        """
        Open the directory of a destination.

        :param create_directories: Whether to create missing directories.
        :param is_new: Whether to check that files can be moved there.
        :returns: A descriptor, for :meth:`let_go`.
        :raises ParentMissing: If it does not exist.
        :raises DestinationForbidden: If it is outside the root, is the staging area, or
            is on another file system (:class:`Mounted`).
        :raises BackendError: If it cannot be opened.
        """
        if len(segments) == 1:
            return self.fd
        names = [segment.encode() for segment in segments[:-1]]
        for _ in range(_MOST_LINKS):
            try:
                found = self._walk(names, create_directories, is_new)
            except OSError as error:
                raise self._refusal(error, segments) from error
            if isinstance(found, int):
                return found
            names = found
        raise DestinationForbidden(f"too many symbolic links in {shown_path(segments)}")

    def sync_way(self, segments: tuple[str, ...]) -> None:
        """
        Sync the names of the directories above a destination. It blocks.

        :raises OSError: If that fails.
        :raises BackendError: In the ways of :meth:`open_parent`.
        """
        for depth in range(1, len(segments)):
            above = self.open_parent(segments[:depth])
            try:
                sync_names(self._files, above)
            finally:
                self.let_go(above)

    def let_go(self, fd: int) -> None:
        """Close a descriptor that :meth:`open_parent` returned."""
        if fd != self.fd:
            self._files.close(fd)

    def _walk(
        self, names: list[bytes], create: bool, is_new: bool
    ) -> int | list[bytes]:
        """
        Walk down once.

        :returns: A descriptor; or the path to walk instead, if there is a link.
        """
        files = self._files
        fd = self.fd
        try:
            for depth, name in enumerate(names):
                try:
                    below = files.open(name, DIRECTORY, dir_fd=fd)
                except FileNotFoundError:
                    if not create:
                        raise _NotThereYet(
                            f"no directory {shown_path(b'/'.join(names))} in "
                            f"{shown_path(self.path)}"
                        ) from None
                    below = self._make(name, fd)
                except OSError as error:
                    if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                        raise
                    return self._behind_link(names, depth, fd)
                above, fd = fd, below
                self.let_go(above)
                there = files.fstat(fd)
                if (there.st_dev, there.st_ino) == self._staging:
                    raise DestinationForbidden(
                        f"{shown_path(name)} is the staging area"
                    )
                if there.st_dev != self._device:
                    raise _mounted(b"/".join(names[: depth + 1]), self.path)
            if is_new and fd != self.fd and there.st_ino not in self._reached:
                if not can_move(files, self._staged, fd):
                    raise _mounted(b"/".join(names), self.path)
                if len(self._reached) >= _MOST_REACHED:
                    self._reached.clear()
                self._reached.add(there.st_ino)
            found, fd = fd, self.fd
            return found
        finally:
            self.let_go(fd)

    def _make(self, name: bytes, fd: int) -> int:
        with suppress(FileExistsError):  # another upload was first
            self._files.mkdir(name, dir_fd=fd)
        if self._sync:
            sync_names(self._files, fd)
        return self._files.open(name, DIRECTORY, dir_fd=fd)

    def _behind_link(self, names: list[bytes], depth: int, fd: int) -> list[bytes]:
        there = self._files.lstat(names[depth], dir_fd=fd)
        way = b"/".join(names[: depth + 1])
        if not stat.S_ISLNK(there.st_mode):
            raise ParentMissing(
                f"{shown_path(way)} in {shown_path(self.path)} is a file"
            )
        target = os.path.realpath(os.path.join(self.path, way))
        root = self.path.rstrip(b"/") + b"/"
        if not (target + b"/").startswith(root):
            raise DestinationForbidden(
                f"{shown_path(way)} leads outside {shown_path(self.path)}"
            )
        inside = [name for name in target[len(root) :].split(b"/") if name]
        if any(os.fsdecode(name).casefold() in RESERVED for name in inside):
            raise DestinationForbidden(f"{shown_path(way)} leads into a staging area")
        return inside + names[depth + 1 :]

    def _leads_to_directory(self, parent: int, segments: tuple[str, ...]) -> bool:
        try:
            there = self._files.stat(segments[-1].encode(), dir_fd=parent)
        except OSError:
            return False  # a dangling link, or one that may not be followed
        return stat.S_ISDIR(there.st_mode)

    def _refusal(self, error: OSError, segments: tuple[str, ...]) -> BackendError:
        if self.is_of_name(error, segments):
            return DestinationForbidden(f"{shown_path(segments)}: {error.strerror}")
        return storage_error(error, os.fsdecode(self.path))

    def is_of_name(self, error: OSError, segments: tuple[str, ...]) -> bool:
        """
        Tell whether a call failed because of the name of a destination, which is an
        error of the client's. It may block.
        """
        if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ):
            return True
        # File systems return this for names, and for operations that they lack.
        return error.errno == errno.EINVAL and not self._takes_names(segments)


def _mounted(way: bytes, root: bytes) -> Mounted:
    return Mounted(
        f"{shown_path(way)} in {shown_path(root)} is on another file system; serve it "
        "as a separate virtual directory"
    )
