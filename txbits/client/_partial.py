"""
The part of a file that has been downloaded so far.

It stands beside the file to be, under a name of its own, and next to it a record of
what it is a part of, and of how much of it is safe: known to be on the disk. After a
crash of the machine, or when a drive was pulled out, a file may have its length and
zeros in place of its bytes, so that its length says nothing. A run after that goes on
from what is safe, and cuts off what is not. A kill of the process alone loses nothing
that was written. What blocks is for threads, but for writing.
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

#: The longest name that file systems take, in bytes.
_LONGEST_NAME = 255

_BOOT_ID = "/proc/sys/kernel/random/boot_id"

#: A record longer than this, in bytes, is none.
_LONGEST_RECORD = 64 * 1024

#: The longest file that there may be, in bytes.
_LARGEST = 2**63


class Busy(Exception):
    """Another process is downloading the same file."""


@frozen
class Origin:
    """
    What a part is a part of.

    :ivar url: Where it comes from, without a query, where tokens stand.
    :ivar salt: What is digested with the query.
    :ivar query: The digest, which tells whether another query is the same.
    :ivar validator: A strong ETag, or a date of change that is as good, for If-Range;
        ``None`` if the server gave neither.
    :ivar length: How many bytes the file has.
    :ivar safe: How many bytes of the part are on the disk, at least.
    :ivar boot: Which start of the machine it is being written in. While that lasts, and
        it lies on the same device, its length is to be believed. Empty if nothing tells
        that; then it is not.
    :ivar device: The device, as the kernel numbers them: a drive that is pulled out and
        put in again mostly has another number.
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
        """Make one of a whole URL."""
        salt = secrets.token_hex(16)
        return cls(without_query(url), salt, _digest(salt, url), validator, length)

    def is_of(self, url: str) -> bool:
        """Tell whether it comes from that URL."""
        is_same = secrets.compare_digest(_digest(self.salt, url), self.query)
        return self.url == without_query(url) and is_same


@define
class Partial:
    """
    A part of a file.

    :ivar path: Where the file is to appear.
    :ivar part: Where the part is.
    :ivar is_alone: Whether no other process can be at the same part; ``False`` if the
        file system has no locks.
    :ivar origin: What it is a part of, if it is one.
    :ivar held: How many bytes there are.
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
        Take up what there is, or begin. It blocks.

        :param path: Where the file is to appear.
        :param boot: Tells this start of the machine from others; what the kernel says
            if ``None``.
        :raises Busy: If another process has it.
        :raises OSError: If there can be no such file.
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
            # Something else has been at it.
            return
        is_whole = origin.boot and (origin.boot, origin.device) == (
            self._boot,
            status.st_dev,
        )
        self.origin = origin
        self.held = status.st_size if is_whole else origin.safe
        os.ftruncate(self._file, self.held)

    def goes_on(self, url: str) -> bool:
        """Whether a download of this URL can go on from what is there."""
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
        """Begin with no bytes. It blocks."""
        origin = evolve(origin, safe=0)
        if self.origin is not None:
            # Of the bytes that are there now none counts any more, neither after a kill
            # nor after a crash.
            self._write(evolve(origin, boot="", device=0))
            self._files.sync_folder_of(self._record, self._file)
        os.ftruncate(self._file, 0)
        self.held = 0
        device = os.fstat(self._file).st_dev
        # Nothing is safe yet, and a record that is none says so as well.
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
        Have what is held on the disk, and write down that it is. It blocks.

        Bytes may be written meanwhile; they do not count.

        :raises OSError: If that cannot be done.
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
        Make it the file. It blocks.

        :raises FileExistsError: If there is one, which is not to be overwritten.
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
        Let go. What can be gone on with is made safe and stays, nothing else does.
        Again is fine. It blocks.
        """
        if self._descriptor is None:
            return
        try:
            if not self._is_damaged:
                self.save()
        except OSError as error:
            # The record says what it said before, and that holds.
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
            raise ValueError("it is closed")
        return self._descriptor

    def _sync(self) -> None:
        if self._is_damaged:
            raise OSError(errno.EIO, os.strerror(errno.EIO), self.part)
        try:
            self._files.fsync(self._file)
        except OSError:
            # The next one would succeed, without the bytes that this one has lost.
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
    """What tells this start of the machine from others; empty if nothing does."""
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
    # The record's name is the longest.
    if len(os.fsencode(name)) > _LONGEST_NAME - len(f".{suffix}.json.new"):
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return os.path.join(folder, f".{name}{suffix}")


def _locked(part: str, path: str, files: Files) -> tuple[int, bool]:
    """
    Open the part, for this process alone.

    :returns: Its descriptor, and whether no other process can have it.
    """
    while True:
        try:
            descriptor, is_alone = files.open_locked(part, 0o666)
        except BlockingIOError:
            raise Busy(f"{part} is in use by another download") from None
        try:
            if not is_at(descriptor, path):
                return descriptor, is_alone
            # A run was killed after it had made it the file.
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
        # It is not ours, or was cut short: then the part is worth nothing.
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
