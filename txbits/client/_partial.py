"""
The part of a file that has been downloaded so far.

It lies beside the destination, under another name, with a record of what file it is a
part of, and of how many of its bytes are safe, which means synced. After a crash of the
machine, or when a drive was unplugged, a file may have its length but zeros in place of
its bytes. Then the next run truncates it to what is safe, and resumes from there. A
kill of the process alone loses nothing that was written. All methods but
:meth:`Partial.write` are to be called in threads, because they block.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from contextlib import suppress
from typing import Any

from attrs import asdict, define, evolve, field, frozen
from twisted.logger import Logger

from txbits.client._files import FILES, Files, check_ours, is_at, read_up_to
from txbits.client._url import without_query

#: The maximum length of a file name, in bytes.
_LONGEST_NAME = 255

_BOOT_ID = "/proc/sys/kernel/random/boot_id"

#: The maximum length of a record, in bytes.
_LONGEST_RECORD = 64 * 1024

#: The maximum length of a file, in bytes.
_LARGEST = 2**63


class Busy(Exception):
    """Another process is downloading the same file."""


@frozen
class Origin:
    """
    What file a part belongs to.

    :ivar url: The URL, without the query, which may contain tokens.
    :ivar salt: A salt for the digest of the query.
    :ivar query: The digest of the query, to compare it with another one.
    :ivar validator: A strong ETag or an equivalent date of change, for If-Range;
        ``None`` if the server sent neither.
    :ivar length: The length of the file.
    :ivar safe: How many bytes of the part are synced, at least.
    :ivar boot: The boot ID of the machine when the part was written. The length of the
        part is reliable if boot ID and device are still the same. Empty if unknown.
    :ivar device: The device number. A drive that is unplugged and plugged in again
        usually gets another one.
    """

    url: str
    salt: str
    query: str
    validator: str | None
    length: int
    safe: int = 0
    boot: str = ""
    device: int = 0

    @classmethod
    def of(cls, url: str, validator: str | None, length: int) -> Origin:
        """Make one from a URL with its query."""
        salt = secrets.token_hex(16)
        return cls(without_query(url), salt, _digest(salt, url), validator, length)

    def is_of(self, url: str) -> bool:
        """Check whether it belongs to a URL."""
        is_same = secrets.compare_digest(_digest(self.salt, url), self.query)
        return self.url == without_query(url) and is_same


@define
class Partial:
    """
    A part of a file.

    :ivar path: The destination.
    :ivar part: The path of the part.
    :ivar is_alone: Whether the part is locked; ``False`` if the file system does not
        support locks.
    :ivar origin: What file the part belongs to, if it was begun.
    :ivar held: The length of the part.
    """

    path: str
    part: str
    is_alone: bool
    _descriptor: int | None
    _files: Files
    origin: Origin | None = None
    held: int = field(default=0)
    _boot: str = ""
    _is_named: bool = field(default=False, init=False)
    _is_damaged: bool = field(default=False, init=False)
    _log = Logger()

    @classmethod
    def open(cls, path: str, files: Files = FILES, boot: str | None = None) -> Partial:
        """
        Open an existing part, or create one.

        :param path: The destination.
        :param boot: The boot ID; that of the kernel if ``None``.
        :raises Busy: If another process has the part.
        :raises OSError: If the file cannot be created.
        """
        if os.path.isdir(path):
            raise IsADirectoryError(21, "Is a directory", path)
        part = _beside(path)
        descriptor, is_alone = _locked(part, path, files)
        boot = boot_id() if boot is None else boot
        partial = cls(path, part, is_alone, descriptor, files, boot=boot)
        try:
            check_ours(descriptor, part)
            partial._take_up()
        except BaseException:
            os.close(descriptor)
            raise
        return partial

    def _take_up(self) -> None:
        origin, status = _read(self._record), os.fstat(self._file)
        if origin is None or status.st_size < origin.safe:
            # Something else has changed it.
            return
        is_whole = origin.boot and (origin.boot, origin.device) == (
            self._boot,
            status.st_dev,
        )
        self.origin = origin
        self.held = status.st_size if is_whole else origin.safe
        os.ftruncate(self._file, self.held)

    def goes_on(self, url: str) -> bool:
        """Whether a download of this URL can resume from the part."""
        origin = self.origin
        return origin is not None and origin.is_of(url) and self._is_worth_something

    @property
    def _is_worth_something(self) -> bool:
        origin = self.origin
        return (
            origin is not None
            and origin.validator is not None
            and 0 < self.held <= origin.length
        )

    def begin(self, origin: Origin) -> None:
        """Start with an empty part."""
        origin = evolve(origin, safe=0)
        if self.origin is not None:
            # From now on none of the old bytes is valid, even after a kill or a crash.
            self._write(evolve(origin, boot="", device=0))
            self._files.sync_folder_of(self._record, self._file)
        os.ftruncate(self._file, 0)
        self.held = 0
        device = os.fstat(self._file).st_dev
        # Nothing is safe yet, and an invalid record means the same.
        origin = evolve(origin, boot=self._boot, device=device)
        self._write(origin, is_durable=False)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, self.held)
            self.held += written
            view = view[written:]

    @property
    def unsafe(self) -> int:
        """How many bytes would be lost if the machine crashed now."""
        return self.held - (self.origin.safe if self.origin is not None else 0)

    def save(self) -> None:
        """
        Sync the part, and record that.

        Bytes may be written meanwhile; they do not count.

        :raises OSError: If that fails.
        """
        origin, held = self.origin, self.held
        if origin is None or not self._is_worth_something or held <= origin.safe:
            return
        self._sync()
        if not self._is_named:
            self._files.sync_folder_of(self.part, self._file)
            self._is_named = True
        device = os.fstat(self._file).st_dev
        self._write(evolve(origin, safe=held, boot=self._boot, device=device))

    def finish(self, *, overwrite: bool) -> None:
        """
        Move the complete part to the destination.

        :raises FileExistsError: If there is a file, and *overwrite* is false.
        """
        self._sync()
        if overwrite:
            os.replace(self.part, self.path)
        else:
            self._files.place(self._file, self.part, self.path)
        self._remove_record()
        self._files.sync_folder_of(self.path, self._file)
        self._close()

    def close(self) -> None:
        """
        Close the part. It is synced and kept if a download can resume from it, and
        removed otherwise. Closing it twice is safe.
        """
        if self._descriptor is None:
            return
        try:
            if not self._is_damaged:
                self.save()
        except OSError as error:
            # The record keeps its old content, which is still valid.
            self._log.info(
                "could not save the last bytes of {part}: {error}",
                part=self.part,
                error=error,
            )
        try:
            if self._is_damaged and self.origin is not None:
                self.held = self.origin.safe
                os.ftruncate(self._file, self.held)
            if not self._is_worth_something:
                os.unlink(self.part)
                self._remove_record()
        finally:
            self._close()

    @property
    def _record(self) -> str:
        return f"{self.part}.json"

    @property
    def _file(self) -> int:
        if self._descriptor is None:
            raise ValueError("the part is closed")
        return self._descriptor

    def _sync(self) -> None:
        if self._is_damaged:
            raise OSError(errno.EIO, os.strerror(errno.EIO), self.part)
        try:
            self._files.fsync(self._file)
        except OSError:
            # The next sync would succeed without the bytes that this one has lost.
            self._is_damaged = True
            raise

    def _write(self, origin: Origin, *, is_durable: bool = True) -> None:
        text = json.dumps(asdict(origin)).encode("ascii")
        self._files.write(self._record, text, is_durable=is_durable)
        self.origin = origin

    def _remove_record(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._record)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def boot_id() -> str:
    """The boot ID of the kernel; empty if unknown."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _digest(salt: str, url: str) -> str:
    query = url.partition("?")[2]
    return hashlib.sha256(f"{salt}{query}".encode()).hexdigest()


def _beside(path: str) -> str:
    folder, name = os.path.split(path)
    suffix = ".txbits-part"
    # The name of the record is the longest.
    if len(os.fsencode(name)) > _LONGEST_NAME - len(f".{suffix}.json.new"):
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return os.path.join(folder, f".{name}{suffix}")


def _locked(part: str, path: str, files: Files) -> tuple[int, bool]:
    """
    Open the part, and lock it.

    :returns: Its descriptor, and whether it is locked.
    """
    while True:
        try:
            descriptor, is_alone = files.open_locked(part, 0o666)
        except BlockingIOError:
            raise Busy(f"{part} is in use by another download") from None
        try:
            if not is_at(descriptor, path):
                return descriptor, is_alone
            # A run was killed after it had moved the part to the destination.
            os.unlink(part)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _read(record: str) -> Origin | None:
    text = read_up_to(record, _LONGEST_RECORD)
    try:
        found: Any = json.loads(text or b"")
        origin = Origin(**found)
    except (ValueError, TypeError, RecursionError):
        # It is invalid or truncated, so that the part is useless.
        return None
    is_sound = (
        isinstance(origin.url, str)
        and isinstance(origin.salt, str)
        and isinstance(origin.query, str)
        and isinstance(origin.validator, str | None)
        and isinstance(origin.length, int)
        and isinstance(origin.safe, int)
        and isinstance(origin.boot, str)
        and isinstance(origin.device, int)
        and 0 <= origin.safe <= origin.length < _LARGEST
    )
    return origin if is_sound else None
