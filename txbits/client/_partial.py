"""
The part of a file that has been downloaded so far.

It stands beside the file to be, under a name of its own, and next to it a record of
what it is a part of. The length of the part is the offset to go on from: there is no
second number to disagree with it. What blocks is for threads, but for writing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from contextlib import suppress
from typing import Any

from attrs import asdict, define, field, frozen

#: The longest name that file systems take, in bytes.
_LONGEST_NAME = 255

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Busy(Exception):
    """Another process is downloading the same file."""


@frozen
class Origin:
    """
    What a part is a part of.

    :ivar url: Where it comes from.
    :ivar validator: A strong ETag, or a date of change that is as good, for If-Range;
        ``None`` if the server gave neither.
    :ivar length: How many bytes the file has.
    :ivar boot: Which start of the machine it was written in: what was not yet on the
        disk when a machine crashed may be anything.
    """

    url: str
    validator: str | None
    length: int
    boot: str


@define
class Partial:
    """
    A part of a file.

    :ivar path: Where the file is to appear.
    :ivar part: Where the part is.
    :ivar origin: What it is a part of, if it is one.
    :ivar held: How many bytes there are.
    """

    path: str
    part: str
    _descriptor: int | None
    origin: Origin | None = None
    held: int = field(default=0)

    @classmethod
    def open(cls, path: str) -> Partial:
        """
        Take up what there is, or begin. It blocks.

        :param path: Where the file is to appear.
        :raises Busy: If another process has it.
        :raises OSError: If there can be no such file.
        """
        if os.path.isdir(path):
            raise IsADirectoryError(21, "Is a directory", path)
        part = _beside(path)
        descriptor = _locked(part)
        partial = cls(path, part, descriptor)
        try:
            partial.origin = _read(partial._record)
            partial.held = os.fstat(descriptor).st_size
        except BaseException:
            os.close(descriptor)
            raise
        return partial

    def goes_on(self, url: str) -> bool:
        """Whether a download of this URL can go on from what is there."""
        origin = self.origin
        return (
            origin is not None
            and origin.url == url
            and origin.validator is not None
            and origin.boot == boot_id()
            and 0 < self.held <= origin.length
        )

    def begin(self, origin: Origin) -> None:
        """Begin with no bytes. It blocks."""
        os.ftruncate(self._file, 0)
        self.held = 0
        # First the record: bytes without one are thrown away.
        temporary = f"{self._record}.new"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(asdict(origin), file)
        os.replace(temporary, self._record)
        self.origin = origin

    def write(self, data: bytes) -> None:
        """Append bytes."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, self.held)
            self.held += written
            view = view[written:]

    def finish(self, *, overwrite: bool) -> None:
        """
        Make it the file. It blocks.

        :raises FileExistsError: If there is one, which is not to be overwritten.
        """
        os.fsync(self._file)
        if overwrite:
            os.replace(self.part, self.path)
        else:
            os.link(self.part, self.path)
            os.unlink(self.part)
        self._remove_record()
        directory = os.open(os.path.dirname(self.path) or ".", os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self._close()

    def close(self) -> None:
        """Let go. What can be gone on with stays, nothing else. Again is fine."""
        if self._descriptor is None:
            return
        if not (self.origin and self.goes_on(self.origin.url)):
            os.unlink(self.part)
            self._remove_record()
        self._close()

    @property
    def _record(self) -> str:
        return f"{self.part}.json"

    @property
    def _file(self) -> int:
        if self._descriptor is None:
            raise ValueError("it is closed")
        return self._descriptor

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


def _beside(path: str) -> str:
    folder, name = os.path.split(path)
    suffix = ".txbits-part"
    # The record's name is the longest.
    if len(os.fsencode(name)) > _LONGEST_NAME - len(f".{suffix}.json.new"):
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return os.path.join(folder, f".{name}{suffix}")


def _locked(part: str) -> int:
    """Open the part, for this process alone."""
    while True:
        descriptor = os.open(
            part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, part):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise Busy(f"{part} is in use by another download") from None
        except BaseException:
            os.close(descriptor)
            raise
        # Its owner has finished between the two calls.
        os.close(descriptor)


def _is_at(descriptor: int, path: str) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def _read(record: str) -> Origin | None:
    try:
        with open(record, encoding="utf-8") as file:
            found: Any = json.load(file)
        origin = Origin(**found)
    except (FileNotFoundError, ValueError, TypeError):
        # It is not ours, or was cut short: then the part is worth nothing.
        return None
    is_sound = (
        isinstance(origin.url, str)
        and isinstance(origin.validator, str | None)
        and isinstance(origin.length, int)
        and isinstance(origin.boot, str)
    )
    return origin if is_sound else None
