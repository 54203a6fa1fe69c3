"""
How the machine affects the figures, and how the benchmarks reduce this.

Three effects changed results by large factors, with the same code:

- ext4 does not reuse inodes that were deleted in the last minutes, but skips them one
  by one (``recently_deleted`` in its allocator). After 18,000 deletions, a new file
  cost 500 µs instead of 18, so a server that deletes files slows down the next one.
  Each run therefore uses a separate block group if possible, and the benchmarks measure
  the cost of a new file before each run.
- Under a hypervisor that reclaims free memory, or after a boot, the first write to a
  page costs many times as much as a copy: it once made nginx three times slower. The
  benchmarks therefore write to free memory at the beginning, and use the page cache
  before each run.
- Other programs run. The tables show how much CPU they used.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

from attrs import define, field

_GET_FLAGS, _SET_FLAGS, _TOP_DIRECTORY = 0x80086601, 0x40086602, 0x00020000
_NEW_FILES = 200
_NEEDED, _SPARE, _STEP = 8 << 30, 1 << 30, 1 << 20
_TICKS = os.sysconf("SC_CLK_TCK")


def spread_folders(directory: Path) -> None:
    """Have ext4 put each folder made in *directory* into another block group."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        # Other file systems have neither the flag nor the problem.
        with suppress(OSError):
            flags = fcntl.ioctl(fd, _GET_FLAGS, struct.pack("l", 0))
            flag = struct.unpack("l", flags)[0] | _TOP_DIRECTORY
            fcntl.ioctl(fd, _SET_FLAGS, struct.pack("l", flag))
    finally:
        os.close(fd)


def new_file_seconds(directory: Path) -> float:
    """
    What making a file in *directory* costs just now: the median of some.

    They are made in a new folder, and stay.
    """
    folder = directory / "new-files"
    folder.mkdir(parents=True)
    took = []
    for number in range(_NEW_FILES):
        start = time.perf_counter()
        fd = os.open(folder / str(number), os.O_CREAT | os.O_WRONLY, 0o600)
        took.append(time.perf_counter() - start)
        os.close(fd)
    return median(took)


def touch_memory() -> int:
    """
    Write to free memory, as much as the runs need, and give it back.

    The kernel then uses it first.

    :returns: How many bytes were written.
    """
    free = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, value = line.split()[:2]
        if name == "MemFree:":
            free = int(value) * 1024
    with suppress(OSError, ValueError):
        # In a container, which may have less; otherwise the file has no number.
        free = min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()) // 2)
    size = min(free - _SPARE, _NEEDED) // _STEP * _STEP
    if size <= 0:
        return 0
    zeros = bytes(_STEP)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with mmap.mmap(-1, size, flags=flags) as memory:
        for start in range(0, size, _STEP):
            memory[start : start + _STEP] = zeros
    return size


def idle_share(seconds: float = 2.0) -> float:
    """The share of one CPU that the machine uses while the benchmarks do nothing."""
    bystanders = Bystanders()
    time.sleep(seconds)
    return bystanders.share(0.0)


def warm_page_cache(directory: Path, size: int) -> None:
    """
    Use *size* bytes of page cache, in large and small pieces, and give them back.

    The kernel caches a long write in large folios. Without the largest pieces, only
    those who write as much at a time would get memory that nobody has touched.
    """
    os.sync()
    data = memoryview(bytes(1024 * 1024))
    path = directory / "warm-up"
    with path.open("wb", buffering=0) as file:
        for length in (16 * 1024, 16 * 1024, 256 * 1024, 1024 * 1024):
            for _ in range(size // length):
                file.write(data[:length])
            file.truncate(0)
            file.seek(0)
    path.unlink()


@define
class Bystanders:
    """How much CPU time the machine spends on others, from the making of this on."""

    _start: float = field(init=False, factory=time.perf_counter)
    _busy: float = field(init=False, factory=lambda: _busy_seconds())

    def share(self, ours: float) -> float:
        """
        The share of one CPU that others had.

        :param ours: The CPU seconds of the server and of the driver since then.
        """
        seconds = time.perf_counter() - self._start
        return max(0.0, _busy_seconds() - self._busy - ours) / seconds


def _busy_seconds() -> float:
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / _TICKS
