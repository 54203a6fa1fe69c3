"""
A machine whose power fails, for the disk backend: what was not synced may be gone.

:class:`PowerFiles` stands where the backend makes its system calls, as
:class:`~tests.backends.disk.mortal.MortalFiles` does. What it is told to do it does to
a real directory, which is what all programs see as long as there is power: the page
cache. The :class:`Machine` keeps book beside it of what the disk would have, and makes
another directory of that, as it could be found after a power failure:

- Of a file that was not synced each sector has what was there before, or after any of
  the writes since; and the length is that of any of those moments. So a file may have
  its new length, and zeros in place of its bytes.
- Names that were not synced with their directory were made, taken away and moved, or
  were not, each on its own (``"posix"``, which promises no more); or as a journal does
  it: all up to some moment, and with any fsync all that came before it (``"journal"``,
  as ext4, XFS and btrfs do).

What is chosen follows from a seed.
"""

from __future__ import annotations

import os
import stat
from random import Random
from typing import Any

from tests.backends.disk.mortal import MortalFiles

_SECTOR = 512

#: What file systems promise of names.
PROMISES = ("posix", "journal")


class _File:
    """A file: what the disk has of it, and what was done to it since."""

    def __init__(self, stored: bytes = b""):
        self.states = [stored]

    def change(self, offset: int, data: bytes) -> None:
        last = self.states[-1]
        padded = last[:offset].ljust(offset, b"\0")
        self.states.append(padded + data + last[offset + len(data) :])

    def cut(self, length: int) -> None:
        self.states.append(self.states[-1][:length].ljust(length, b"\0"))

    def sync(self) -> None:
        del self.states[:-1]

    def after_failure(self, random: Random) -> bytes:
        first, last = self.states[0], self.states[-1]
        if len(self.states) == 1:
            return last
        how = random.randrange(5)
        if how == 0:
            return first
        if how == 1:
            return last
        if how == 2:
            # The new length, and not one byte that is new.
            return first[: len(last)].ljust(len(last), b"\0")
        length = len(random.choice(self.states))
        sectors = (
            random.choice(self.states)[at : at + _SECTOR].ljust(_SECTOR, b"\0")
            for at in range(0, length, _SECTOR)
        )
        return b"".join(sectors)[:length]


class _Directory:
    """A directory: the names that the disk has, and those that programs see."""

    def __init__(self, path: str):
        self.path = path
        self.stored: dict[str, Any] = {}
        self.present: dict[str, Any] = {}


class Machine:
    """
    What the disk has of a directory.

    :param root: The directory; all that lies there already is on the disk.
    :param promise: One of :data:`PROMISES`.
    """

    def __init__(self, root: str, promise: str):
        os.makedirs(root, exist_ok=True)
        self._promise = promise
        self._nodes: dict[int, Any] = {}
        self._held: list[int] = []
        self._changes: list[list[tuple[_Directory, str, Any]]] = []
        self.root: _Directory = self._adopted(root)

    def close(self) -> None:
        while self._held:
            os.close(self._held.pop())

    # What was done

    def directory(self, path: Any, where: int | None) -> tuple[_Directory, str]:
        """The directory that a path leads to, and the name in it."""
        path = os.fsdecode(path)
        if where is None:
            path, name = os.path.split(os.path.realpath(path))
            return self._nodes[os.stat(path).st_ino], name
        return self._nodes[os.fstat(where).st_ino], path

    def file(self, fd: int) -> Any:
        return self._nodes[os.fstat(fd).st_ino]

    def there(self, directory: _Directory, name: str) -> Any:
        """What is there by a name; others may have put it there, and synced it."""
        if directory.present.get(name) is None:
            path = os.path.join(directory.path, name)
            if not os.path.lexists(path):
                return None
            directory.stored[name] = directory.present[name] = self._adopted(path)
        return directory.present[name]

    def made(self, directory: _Directory, name: str, node: Any) -> None:
        self._hold(os.path.join(directory.path, name), node)
        self.named((directory, name, node))

    def named(self, *changes: tuple[_Directory, str, Any]) -> None:
        for directory, name, node in changes:
            directory.present[name] = node
        self._changes.append(list(changes))

    def sync(self, fd: int) -> None:
        node = self.file(fd)
        if isinstance(node, _File):
            node.sync()
        stay = []
        for changes in self._changes:
            if self._promise == "journal" or any(one[0] is node for one in changes):
                _apply(changes)
            else:
                stay.append(changes)
        self._changes = stay

    def _adopted(self, path: str) -> Any:
        there = os.lstat(path)
        if there.st_ino in self._nodes:
            return self._nodes[there.st_ino]
        if stat.S_ISDIR(there.st_mode):
            node: Any = _Directory(os.path.realpath(path))
            self._hold(path, node)
            for name in os.listdir(path):
                self.there(node, name)
        else:
            with open(path, "rb") as file:
                node = _File(file.read())
            self._hold(path, node)
        return node

    def _hold(self, path: str, node: Any) -> None:
        # Open, so that no other file gets its number.
        fd = os.open(path, os.O_RDONLY)
        self._held.append(fd)
        self._nodes[os.fstat(fd).st_ino] = node

    # What is left

    def after_failure(self, path: str, seed: object) -> None:
        """Make a directory as it could be after a power failure at this moment."""
        random = Random(repr(seed))
        for directory in self._directories():
            # Those that others have made in the meantime.
            for name in os.listdir(directory.path):
                self.there(directory, name)
        before = {one: one.stored.copy() for one in self._directories()}
        kept = random.choice((0.0, 0.5, 0.5, 1.0))
        end = random.randint(0, len(self._changes))
        for number, changes in enumerate(self._changes):
            if self._promise == "journal":
                is_kept = number < end
            else:
                is_kept = random.random() < kept
            if is_kept:
                _apply(changes)
        self._build(self.root, path, random, {})
        for directory, stored in before.items():
            directory.stored = stored

    def _directories(self) -> list[_Directory]:
        # Those that can be seen from the root.
        found: list[_Directory] = [self.root]
        for one in found:
            found += (n for n in one.present.values() if isinstance(n, _Directory))
        return found

    def _build(
        self, directory: _Directory, path: str, random: Random, built: dict[Any, str]
    ) -> None:
        os.mkdir(path)
        for name, node in sorted(directory.stored.items()):
            below = os.path.join(path, name)
            if isinstance(node, _Directory):
                self._build(node, below, random, built)
            elif node in built:
                os.link(built[node], below)
            elif node is not None:
                built[node] = below
                with open(below, "wb") as file:
                    file.write(node.after_failure(random))


def _apply(changes: list[tuple[_Directory, str, Any]]) -> None:
    for directory, name, node in changes:
        if node is None:
            directory.stored.pop(name, None)
        else:
            directory.stored[name] = node


class PowerFiles(MortalFiles):
    """The system calls, on a machine."""

    def __init__(self, machine: Machine):
        super().__init__()
        self.machine = machine

    def call(self, name: str) -> Any:
        # The disk below is not the one that matters.
        return os.fstat if name == "fsync" else super().call(name)

    def __getattr__(self, name: str) -> Any:
        call = super().__getattr__(name)
        noted = getattr(self, f"_{name}_noted", None)
        if noted is None:
            return call
        return lambda *args, **kwargs: noted(call, *args, **kwargs)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        stored: int = super().pwrite(fd, data, offset)
        self.machine.file(fd).change(offset, bytes(data[:stored]))
        return stored

    def _open_noted(self, call, path, flags, *mode, dir_fd=None):
        creates = flags & os.O_CREAT
        if not creates:
            if dir_fd is None:
                return call(path, flags, *mode)
            return call(path, flags, *mode, dir_fd=dir_fd)
        directory, name = self.machine.directory(path, dir_fd)
        before = self.machine.there(directory, name)
        fd = call(path, flags, *mode, dir_fd=dir_fd)
        if before is None:
            self.machine.made(directory, name, _File())
        elif flags & os.O_TRUNC:
            before.cut(0)
        return fd

    def _mkdir_noted(self, call, path, *mode, dir_fd=None):
        call(path, *mode, dir_fd=dir_fd)
        directory, name = self.machine.directory(path, dir_fd)
        node = _Directory(os.path.join(directory.path, name))
        self.machine.made(directory, name, node)

    def _ftruncate_noted(self, call, fd, length):
        call(fd, length)
        self.machine.file(fd).cut(length)

    def _fsync_noted(self, call, fd):
        call(fd)
        self.machine.sync(fd)

    def _link_noted(self, call, old, new, *, src_dir_fd, dst_dir_fd, **how):
        source = self.machine.directory(old, src_dir_fd)
        target = self.machine.directory(new, dst_dir_fd)
        node = self.machine.there(*source)
        call(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, **how)
        self.machine.named((*target, node))

    def _rmdir_noted(self, call, name, *, dir_fd):
        self._unlink_noted(call, name, dir_fd=dir_fd)

    def _rename_no_replace_noted(self, call, old, new, **where):
        self._rename_noted(call, old, new, **where)

    def _rename_noted(self, call, old, new, *, src_dir_fd, dst_dir_fd):
        source = self.machine.directory(old, src_dir_fd)
        target = self.machine.directory(new, dst_dir_fd)
        node = self.machine.there(*source)
        self.machine.there(*target)
        call(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        self.machine.named((*source, None), (*target, node))

    def _unlink_noted(self, call, name, *, dir_fd):
        directory, name = self.machine.directory(name, dir_fd)
        self.machine.there(directory, name)
        call(name, dir_fd=dir_fd)
        self.machine.named((directory, name, None))
