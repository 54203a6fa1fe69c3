"""
A disk that loses what was not synced when the machine crashes.

Files are real ones. What ``fsync()`` is called with is noted; a crash leaves of each
file what a journalling file system may leave: the bytes that were synced, and beyond
them, page by page, the bytes that were written, zeros, or nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from attrs import define, field

from txbits.client._files import Files

#: Pages are small here, so that the tests' files have many.
PAGE = 4

#: What becomes of a page that was not synced.
Fate = Callable[[bytes], bytes | None]


def kept(page: bytes) -> bytes | None:
    """It had been written by chance."""
    return page


def zeroed(page: bytes) -> bytes | None:
    """The length of the file had been written, and the page had not."""
    return bytes(len(page))


def dropped(page: bytes) -> bytes | None:
    """Nothing had been written, of what follows neither."""
    return None


FATES = (kept, zeroed, dropped)


@define(eq=False)
class FragileDisk:
    """
    A folder, and what of its files is on the disk.

    :ivar failures: What the next calls of ``fsync()`` fail with; ``None`` if they do
        not.
    """

    folder: Path
    failures: list[OSError | None] = field(factory=list)
    _synced: dict[int, bytes] = field(factory=dict, init=False)

    @property
    def files(self) -> Files:
        """How the client uses it."""
        return Files(fsync=self.fsync)

    def fsync(self, descriptor: int) -> None:
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        status = os.fstat(descriptor)
        if not os.path.isdir(f"/proc/self/fd/{descriptor}"):
            data = os.pread(descriptor, status.st_size, 0)
            self._synced[status.st_ino] = data

    def crash(self, fate: Fate) -> None:
        """Leave what a crash leaves."""
        for path in self.folder.iterdir():
            data = path.read_bytes()
            safe = self._synced.get(path.stat().st_ino, b"")
            result = bytearray()
            for start in range(0, len(data), PAGE):
                page, held = data[start : start + PAGE], safe[start : start + PAGE]
                # What was synced of a page stays, unless it was written over.
                start_of_new = len(held) if page.startswith(held) else 0
                new = page[start_of_new:]
                left = fate(new) if new else b""
                result += page[:start_of_new]
                if left is None:
                    break
                result += left
            path.write_bytes(bytes(result))
