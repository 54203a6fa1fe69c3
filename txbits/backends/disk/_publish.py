"""
How the staged file of a session appears at its destination: complete, and in one step.

If nothing may be overwritten, a second link to the file is made, or the file is renamed
without replacing another, depending on what the file system supports
(:class:`~txbits.backends.disk._probe.Way`). Otherwise, a plain rename replaces any file
at the destination. The record is changed before a rename, and right after a link, so
that a session is never found half published.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from functools import partial

from attrs import define
from twisted.internet.defer import Deferred

from txbits._deferreds import together
from txbits.backends._destinations import checked_segments
from txbits.backends._naming import shown_path
from txbits.backends.disk._files import WRITE, opened, storage_error, translated
from txbits.backends.disk._found import is_same
from txbits.backends.disk._lines import Phase
from txbits.backends.disk._ownership import Wanted
from txbits.backends.disk._probe import Way
from txbits.backends.disk._staged import SHORT, Staged
from txbits.backends.disk._staging import Staging
from txbits.backends.disk._tree import Mounted
from txbits.errors import (
    BackendError,
    DestinationExists,
    DestinationForbidden,
    DestinationIsDirectory,
    ParentMissing,
    StagedDataLost,
)

_NEW = WRITE | os.O_CREAT | os.O_EXCL


async def publish(
    staged: Staged,
    destination: tuple[str, ...],
    overwrite: bool,
    create_directories: bool,
) -> None:
    """
    Publish a complete file; see :class:`~txbits.interfaces.IUploadSession`.

    :raises BackendError: As the interface describes.
    """
    if staged.total is None or staged.offset < staged.total:
        raise BackendError("the upload is not complete")
    staging = staged.staging
    # A check that came after the last byte, for another upload, is good enough.
    root = staging.root.check_again(staged.last_progress)
    if staging.is_to_be_safe:
        await staged.make_safe()
        staged.safe = staged.offset
    # A second check: the destination of a session that was found comes from a file.
    segments = checked_segments(destination)
    parent = await _open_parent(staging, segments, create_directories)
    try:
        there = root
        if parent != staging.tree.fd:
            there = translated(staging.files.fstat, parent)
        wanted = translated(staging.ownership.wanted, parent, there)
        if wanted is not None:
            await _adapt(staged, wanted)
        if staging.is_to_be_safe and len(segments) > 1:
            await staging.sync_way(segments)
        name = segments[-1].encode()
        await _Target(staged, segments, name, parent, there).fill(overwrite)
    finally:
        translated(staging.tree.let_go, parent)


async def _open_parent(
    staging: Staging, segments: tuple[str, ...], create_directories: bool
) -> int:
    open_parent = staging.tree.open_parent
    try:
        return translated(open_parent, segments)
    except Mounted as error:
        # It was mounted after the session was created, and may be unmounted again.
        raise BackendError(str(error)) from error
    except ParentMissing:
        if not create_directories:
            raise
    made: int = await staging.in_thread(
        translated, partial(open_parent, create_directories=True), segments
    )
    return made


async def _adapt(staged: Staged, wanted: Wanted) -> None:
    """Give the file the group and ACL of a file that is created in its directory."""
    staging = staged.staging
    try:
        fd = translated(staged.open, WRITE)
    except StagedDataLost:
        if staged.is_moved:
            return  # done already
        raise
    try:
        has_changed = translated(staging.ownership.give, fd, wanted)
    finally:
        translated(staging.files.close, fd)
    if has_changed and staging.is_to_be_safe:
        staged.is_safe = False
        await staged.make_safe()


@define(eq=False, weakref_slot=False)
class _Target:
    """
    A destination, and the file to put there.

    :param name: The last segment.
    :param parent: The descriptor of its directory.
    :param folder: What ``fstat`` returned for that.
    """

    _staged: Staged
    _segments: tuple[str, ...]
    _name: bytes
    _parent: int
    _folder: os.stat_result

    async def fill(self, overwrite: bool) -> None:
        """Make the file appear."""
        staging = self._staged.staging
        way = staging.file_system.way
        if overwrite or self._staged.is_moved or way is Way.RENAME:
            await self._move(overwrite)
            return
        made: os.stat_result | None
        if way is Way.NONE:
            made = translated(self._make_empty)
        else:
            try:
                made = translated(self._link, way)
            except DestinationExists:
                if way is not Way.COMPARED or not await staging.in_thread(
                    translated, self._is_there
                ):
                    raise
                # Nothing to undo: the file may have been there before this upload.
                made = None
                translated(self._staged.mark, Phase.PUBLISHED)
        if staging.is_to_be_safe:
            await self._make_safe(made)

    def _is_there(self) -> bool:
        staged = self._staged
        return is_same(staged.staging, staged.session_id, self._segments, self._parent)

    # -- without overwriting

    def _link(self, way: Way) -> os.stat_result:
        """
        Link the file to its destination.

        :returns: The status of the file at the destination, for :meth:`_undo`.
        """
        staged = self._staged
        staging = staged.staging
        there = staged.look()
        staging.file_clock.linked[staged.session_id] = there.st_ino
        try:
            staging.files.link(
                staged.part(),
                self._name,
                src_dir_fd=staging.directory,
                dst_dir_fd=self._parent,
                follow_symlinks=False,
            )
        except FileExistsError:
            other = staging.tree.check_name(
                self._parent, self._segments, overwrite=True
            )
            # It is the file itself if it was linked before a crash.
            if other is None or not os.path.samestat(other, there):
                raise DestinationExists(
                    f"{shown_path(self._segments)} exists"
                ) from None
        except OSError as error:
            raise self._refusal(error) from error
        if way is Way.COMPARED:
            there = staging.files.lstat(self._name, dir_fd=self._parent)
            staging.file_clock.linked[staged.session_id] = there.st_ino
        self._mark_or_undo(there)
        return there

    def _make_empty(self) -> os.stat_result:
        """
        Create an empty file at the destination.

        Without links, and without renames that replace nothing, only an empty file can
        be published without overwriting.
        """
        staging = self._staged.staging
        files = staging.files
        if self._staged.total:
            raise BackendError(
                f"{shown_path(self._segments)}: this file system cannot publish "
                "without overwriting"
            )
        self._staged.look()
        try:
            with opened(files, self._name, _NEW, self._parent, 0o666) as fd:
                there = files.fstat(fd)
        except FileExistsError:
            staging.tree.check_name(self._parent, self._segments, overwrite=False)
            raise
        except OSError as error:
            raise self._refusal(error) from error
        self._mark_or_undo(there)
        return there

    def _mark_or_undo(self, made: os.stat_result) -> None:
        self._staged.staging.root.has_news = True
        try:
            self._staged.mark(Phase.PUBLISHED)
        except (OSError, BackendError):
            self._undo(made)
            raise

    async def _make_safe(self, made: os.stat_result | None) -> None:
        # The record is synced too: once the staged file is gone, only the record shows
        # that the file was published.
        staging = self._staged.staging
        try:
            await together(
                self._sync_parent(),
                *staging.sync_record(self._staged.session_id),
            )
        except BackendError:
            self._undo(made)
            raise

    def _undo(self, made: os.stat_result | None) -> None:
        """
        Undo publishing as far as possible.

        A client that is told of the failure may cancel, and then expects no file.

        :param made: The file that was created at the destination, if any.
        """
        files = self._staged.staging.files
        with suppress(OSError, BackendError):
            # In this order: if a crash comes between, two links count as published.
            self._staged.mark(Phase.OPEN)
            if made is not None and os.path.samestat(
                files.lstat(self._name, dir_fd=self._parent), made
            ):
                files.unlink(self._name, dir_fd=self._parent)

    # -- by renaming

    async def _move(self, overwrite: bool) -> None:
        staged = self._staged
        staging = staged.staging
        if not staged.is_moved:
            here = translated(staged.look)
            # A rename would replace a symbolic link to a directory.
            there = self._check_name(overwrite)
            await self._announce(here, there, overwrite)
            if there is None or there.st_size <= SHORT:
                self._rename(here, overwrite)
            else:
                # It frees the blocks of the replaced file.
                await staging.in_thread(self._rename, here, overwrite)
            # From here on, the file is at its destination. If it is not safe there,
            # another attempt makes it safe.
            staged.is_moved = True
            staging.root.has_news = True
        translated(staged.mark, Phase.PUBLISHED)
        if staging.is_to_be_safe:
            await self._sync_parent()

    def _check_name(self, overwrite: bool) -> os.stat_result | None:
        tree = self._staged.staging.tree
        return tree.check_name(self._parent, self._segments, overwrite=overwrite)

    async def _announce(
        self, here: os.stat_result, there: os.stat_result | None, overwrite: bool
    ) -> None:
        """
        Record that the file is about to be moved.

        :param here: The status of the staged file.
        :param there: The status of the file at the destination, if any.
        """
        staged = self._staged
        staging = staged.staging
        try:
            if staging.is_to_be_safe and self._needs_safe_name(here, there, overwrite):
                await staging.sync_directory()
            translated(staged.mark, Phase.PUBLISHING)
            if staging.is_to_be_safe:
                await together(*staging.sync_record(staged.session_id))
        except BackendError:
            translated(staged.mark, Phase.OPEN)
            raise

    def _needs_safe_name(
        self, here: os.stat_result, there: os.stat_result | None, overwrite: bool
    ) -> bool:
        """
        Tell whether the name of the staged file has to be synced.

        After a system crash, a session without its staged file counts as published if
        there is a file of its length at the destination. If nothing may be overwritten,
        another file may appear there at the last moment.
        """
        if self._staged.is_name_safe:
            return False
        is_alike = there is not None and there.st_size == here.st_size
        return is_alike or not overwrite

    def _rename(self, here: os.stat_result, overwrite: bool) -> None:
        """
        Move the file to its destination.

        :param here: The status of the staged file.
        :raises BackendError: If that fails; the record is as before then.
        """
        staged = self._staged
        staging = staged.staging
        files = staging.files
        try:
            (files.rename if overwrite else files.rename_no_replace)(
                staged.part(),
                self._name,
                src_dir_fd=staging.directory,
                dst_dir_fd=self._parent,
            )
        except OSError as error:
            if not self._has_moved(here):
                translated(staged.mark, Phase.OPEN)
                if isinstance(error, FileExistsError):
                    self._check_name(overwrite=False)
                raise self._refusal(error) from error

    def _sync_parent(self) -> Deferred[None]:
        way = self._segments[:-1]
        return self._staged.staging.sync_parent(self._parent, way, self._folder)

    def _has_moved(self, here: os.stat_result) -> bool:
        """
        Tell whether a rename took place although it returned an error.

        A network file system that has lost the response repeats the request, and then
        finds nothing to rename.
        """
        staging = self._staged.staging
        files = staging.files
        try:
            files.lstat(self._staged.part(), dir_fd=staging.directory)
        except FileNotFoundError:
            with suppress(OSError):  # no file is there
                there = files.lstat(self._name, dir_fd=self._parent)
                return os.path.samestat(there, here)
        except OSError:
            pass  # the staged file exists, or that is unknown
        return False

    def _refusal(self, error: OSError) -> BackendError:
        """Translate a failed link or rename."""
        if error.errno == errno.EISDIR:
            return DestinationIsDirectory(
                f"{shown_path(self._segments)} is a directory"
            )
        if self._staged.staging.tree.is_of_name(error, self._segments):
            return DestinationForbidden(
                f"{shown_path(self._segments)}: {error.strerror}"
            )
        if error.errno in (errno.EXDEV, errno.EBUSY):
            return BackendError(
                f"{shown_path(self._segments)} is not on the file system of its root "
                f"({error}); serve that file system as a separate virtual directory"
            )
        root = self._staged.staging.root.path
        return storage_error(error, os.path.join(root, *self._segments[:-1]))
