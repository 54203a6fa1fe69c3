"""
A disk that fills up, fails and dies on demand, and a case with one below it.

:class:`MortalFiles` stands where the disk backend makes its system calls. Dying means
what SIGKILL does: descriptors (and with them locks) are gone at once, and no call is
made any more, not even by a ``finally``.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import tempfile
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from txbits._workers import Worker
from txbits.backends.disk import DiskBackend
from txbits.backends.disk._files import Files
from txbits.interfaces import (
    IAbilities,
    IAddressable,
    IAnswerable,
    IClaimable,
    IDownloadable,
    IEagerWriter,
    IPaged,
    IPartitioned,
    IReadable,
    IReplyAddressable,
    ISorted,
)

_OF_A_SLOT = {"lock", "closed", "sessions-1"}
_OF_A_ROOT = _OF_A_SLOT | {"claims", "claims.lock", "slot-0.lock", "workers"}


#: A file system in memory, where fsync takes no time.
_MEMORY = "/dev/shm"

#: How many bytes it must have left. A container often has 64 MiB in all.
_ROOM = 256 << 20


class Killed(BaseException):
    """The process is dead; not an Exception, so that nothing handles it."""


def collect_no_more_than_it_makes(case):
    """
    Have ``gc.collect()`` look at what a test makes only, and not at all that there was
    before, which takes a while in a long run.
    """
    gc.collect()
    gc.freeze()
    case.addCleanup(gc.unfreeze)


def roomy():
    """
    Where the files of a backend in this process go: into memory if there is room, or
    into the working directory.

    Many tests do the same again and again on fresh roots, and would wait for the disk
    each time. Some of the contract, and all that start a server, use the disk.
    """
    try:
        free = shutil.disk_usage(_MEMORY).free
    except FileNotFoundError:
        return "."
    return _MEMORY if free >= _ROOM and os.access(_MEMORY, os.W_OK) else "."


if TYPE_CHECKING:
    _Case = SynchronousTestCase
else:
    _Case = object


class MortalFiles:
    """
    The system calls, with an end.

    :ivar calls: The names of all calls made.
    :ivar room: How many bytes may still be written; ``None`` for any number.
    :ivar free: The free space to report, in bytes; ``None`` for the truth.
    :ivar is_cached: Whether the page cache has everything, or nothing; ``None`` for the
        truth.
    """

    def __init__(self):
        self.calls = []
        self.room = None
        self.free = None
        self.is_cached = None
        self._calls_left = None
        self._faults = {}
        self._open = set()
        self._dead = False

    def die_after(self, calls):
        """Die instead of the call after so many more."""
        self._calls_left = calls

    def die(self):
        """Die now."""
        self._dead = True
        while self._open:
            os.close(self._open.pop())

    def fail(self, name, number, only=None):
        """
        Let the next call of a function fail with an errno.

        :param only: Wait for a call that has this keyword argument.
        """
        self._faults[name] = (number, only)

    def call(self, name):
        """What is called, as long as there is life."""
        return getattr(Files, name)

    def __getattr__(self, name):
        call = self.call(name)

        def made(*args, **kwargs):
            if self._calls_left is not None and not self._dead:
                if not self._calls_left:
                    self.die()
                    raise Killed
                self._calls_left -= 1
            if self._dead:
                if name == "close":
                    return None  # the kernel has done it
                raise Killed
            self.calls.append(name)
            number, only = self._faults.get(name, (None, None))
            if number is not None and (only is None or only in kwargs):
                del self._faults[name]
                if name == "close":  # which closes, also when it fails
                    self._open.discard(*args)
                    os.close(*args)
                raise OSError(number, os.strerror(number))
            result = call(*args, **kwargs)
            if name == "open":
                self._open.add(result)
            elif name == "close":
                self._open.discard(*args)
            return result

        return made

    def pwrite(self, fd, data, offset):
        if self.room is not None:
            if not self.room and data:
                self.fail("pwrite", 28)  # ENOSPC
            else:
                data = data[: self.room]
                self.room -= len(data)
        return self.__getattr__("pwrite")(fd, data, offset)

    def pread_cached(self, fd, length, offset):
        if self.is_cached is None:
            return self.__getattr__("pread_cached")(fd, length, offset)
        return memoryview(os.pread(fd, length, offset)) if self.is_cached else None

    def statvfs(self, path):
        if self.free is None:
            return self.__getattr__("statvfs")(path)
        return SimpleNamespace(f_blocks=1 << 40, f_bavail=self.free, f_frsize=1)


class OnDisk(_Case):
    """What the contract asks for, on a temporary directory. A mixin."""

    abilities = frozenset(
        {
            IAbilities,
            IAddressable,
            IAnswerable,
            IClaimable,
            IDownloadable,
            IEagerWriter,
            IPaged,
            IPartitioned,
            ISorted,
            IReadable,
            IReplyAddressable,
        }
    )
    fsync: Any = "close"
    sync: Any = None
    wall: Any = staticmethod(time.time)
    in_thread: Any = staticmethod(maybeDeferred)
    worker = Worker()
    make_files: Any = MortalFiles

    def disk(self, root):
        """A backend on mortal files."""
        files = self.make_files()
        return DiskBackend(
            root,
            reactor,
            fsync=self.fsync,
            in_thread=self.in_thread,
            sync=self.sync,
            files=files,
            wall=self.wall,
            worker=self.worker,
        )

    def after_boot(self, backend, boot=None):
        """
        The same store, after the machine was started anew; not one byte is lost.

        :param boot: Names the start.
        """
        backend._files.die()
        boot = boot or uuid4().hex[:16].encode()
        again = DiskBackend(
            backend.root,
            reactor,
            fsync=self.fsync,
            in_thread=self.in_thread,
            sync=self.sync,
            files=MortalFiles(),
            booted=lambda: boot,
            worker=self.worker,
        )
        self.successResultOf(again.start())
        self.addCleanup(lambda: self.successResultOf(again.stop()))
        return again

    def make_backend(self):
        return self.disk(self.mktemp())

    def reopen_backend(self, backend):
        backend._files.die()
        return self.disk(backend.root)

    def published(self, backend, destination):
        try:
            with open(os.path.join(backend.root, *destination), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def place(self, backend, destination, data):
        path = os.path.join(backend.root, *destination)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)

    def leftovers(self, backend):
        left = self.records(backend)
        for slot in self.slots(backend):
            at = os.path.join(backend.root, ".bits-sessions", slot)
            known = _OF_A_SLOT if slot else _OF_A_ROOT
            left += sorted(
                os.path.join(slot, name)
                for name in os.listdir(at)
                if name not in known and name not in self.slots(backend)
            )
        return left

    def slots(self, backend):
        """The directories of the slots, in the staging area; "" for slot 0."""
        names = os.listdir(os.path.join(backend.root, ".bits-sessions"))
        return ["", *sorted(one for one in names if re.fullmatch("slot-[0-9]+", one))]

    def records(self, backend):
        """The lines of the table that are in use."""
        lines = []
        for slot in self.slots(backend):
            path = os.path.join(backend.root, ".bits-sessions", slot, "sessions-1")
            # No worker may have had slot 0 yet.
            with suppress(FileNotFoundError), open(path, "rb") as file:
                lines += [line for line in file if not line.startswith(b"free")]
        return lines

    def everything(self, top):
        """All paths below a directory, relative to it."""
        return sorted(
            os.path.relpath(os.path.join(at, name), top)
            for at, directories, files in os.walk(top)
            for name in directories + files
        )


class InMemory(_Case):
    """Has temporary files where :func:`roomy` says. A mixin."""

    def mktemp(self):
        folder = tempfile.mkdtemp(prefix="txbits-", dir=roomy())
        self.addCleanup(shutil.rmtree, folder)
        return os.path.join(folder, "temp")


class DiskCase(InMemory, OnDisk, SynchronousTestCase):
    """A disk whose threads are no threads."""

    def start(self, root=None):
        """A started backend, and the directory it serves."""
        backend = self.disk(root or self.mktemp())
        self.successResultOf(backend.start())
        self.addCleanup(lambda: self.successResultOf(backend.stop()))
        return backend

    def reopened(self, backend):
        backend._files.die()
        return self.start(backend.root)

    def create(self, backend, destination=("name.txt",), **rules):
        """A new session; *rules* may set ``session_id``."""
        return self.successResultOf(self.creation(backend, destination, **rules))

    def creation(self, backend, destination=("name.txt",), **rules):
        return backend.create(
            rules.pop("session_id", None) or backend.new_id(),
            destination,
            owner=rules.pop("owner", None),
            content_name=None,
            overwrite=rules.pop("overwrite", False),
            create_directories=rules.pop("create_directories", False),
        )

    def append(self, session, total, data):
        writer = self.successResultOf(session.open_writer(total))
        self.successResultOf(writer.write(data))
        self.successResultOf(writer.close())

    def complete(self, backend, destination=("name.txt",), data=b"whole", **rules):
        session = self.create(backend, destination, **rules)
        self.append(session, len(data), data)
        return session

    def publish(self, session, overwrite=False, create_directories=False):
        return session.publish(
            overwrite=overwrite, create_directories=create_directories
        )
