"""
A real file system for the tests that lacks what ext4 has: FUSE, by ``mfusepy``.

:func:`mounted` mounts it when a test first asks for it, in a folder of its own, and
hands out the same one until the process ends. It takes ``/dev/fuse``, Debian's
``fuse3`` and the right to mount; where one is missing, there is none, and system calls
that lack the same stand in for it (:mod:`tests.backends.disk.limited`).

``python -m tests.fuse KIND`` is the process that serves it, from a folder of the
machine's file system. It unmounts, and removes its files, when its own standard input
ends: however the process that holds the other end died. Run by hand it serves until
Ctrl-D. ``python -m tests.fuse`` tells whether there can be one.

What it lacks:

- hard links: EPERM, as exFAT, vfat and CIFS say
- fsync of directories: EINVAL. (The kernel takes ENOSYS of FUSE for success.)
- a word on free space: all numbers are zero
- ACLs
- of the kind ``plain``, flags of rename: EINVAL. The kind ``flags`` has them.
"""

from __future__ import annotations

import atexit
import errno
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

KINDS = ("flags", "plain")

_mounts: dict[str, Mount] = {}


class Mount:
    """
    The file system, mounted, and the process that serves it.

    :ivar path: Where it is mounted; ``None`` if it could not be.
    :ivar complaint: Why not.
    """

    def __init__(self, kind):
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.fuse", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
            # Not of the terminal's process group: it ends when this process does, and
            # not with the tests that Ctrl-C interrupts.
            start_new_session=True,
        )
        self.path = self._keeper.stdout.readline().decode().rstrip("\n") or None
        self.complaint = ""
        if self.path is None:
            _, complaint = self._keeper.communicate()
            self.complaint = complaint.decode(errors="replace").strip()

    def stop(self):
        """Unmount it, and remove its files. Again is fine."""
        if self.path is None:
            return
        self._keeper.stdin.close()
        self._keeper.wait()
        self._keeper.stdout.close()
        self._keeper.stderr.close()
        # If it was killed, nobody has.
        _unmount(self.path)
        shutil.rmtree(Path(self.path).parent, ignore_errors=True)
        self.path = None


def mounted(kind):
    """
    The file system for this process, mounted by whoever asks first.

    :param kind: One of :data:`KINDS`.
    :returns: An empty folder in it, or ``None`` where none can be mounted.
    """
    if kind not in _mounts:
        _mounts[kind] = Mount(kind)
        atexit.register(_mounts[kind].stop)
    path = _mounts[kind].path
    return None if path is None else tempfile.mkdtemp(dir=path)


def _unmount(path):
    # Lazily: a test that failed may have left something open. It may have been done.
    command = ["fusermount3", "-u", "-z", path]
    subprocess.run(command, check=False, stderr=subprocess.DEVNULL)


def serve(kind):
    """Mount one, tell where, and unmount it when standard input ends."""
    # That of FUSE 2 hands no flags of rename on.
    os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")
    import mfusepy

    folder = tempfile.mkdtemp(prefix="txbits-fuse-")
    disk, mount = (os.path.join(folder, name) for name in ("disk", "mount"))
    os.mkdir(disk)
    os.mkdir(mount)

    def end_with_standard_input():
        sys.stdin.buffer.read()
        remove()
        # FUSE itself would wait until nobody has anything open there.
        os._exit(0)

    def remove():
        _unmount(mount)
        shutil.rmtree(folder, ignore_errors=True)

    class Disk(mfusepy.Operations):
        use_ns = True

        def below(self, path):
            return disk + path

        def init(self, path):
            print(mount, flush=True)
            threading.Thread(target=end_with_standard_input, daemon=True).start()

        def getattr(self, path, fh=None):
            there = os.lstat(self.below(path))
            names = ("mode", "nlink", "uid", "gid", "size")
            times = ("atime", "mtime", "ctime")
            return {
                **{f"st_{name}": getattr(there, f"st_{name}") for name in names},
                **{f"st_{name}": getattr(there, f"st_{name}_ns") for name in times},
            }

        def readdir(self, path, fh):
            return [".", "..", *os.listdir(self.below(path))]

        def readlink(self, path):
            return os.readlink(self.below(path))

        def mkdir(self, path, mode):
            os.mkdir(self.below(path), mode)

        def rmdir(self, path):
            os.rmdir(self.below(path))

        def unlink(self, path):
            os.unlink(self.below(path))

        def symlink(self, target, source):
            os.symlink(source, self.below(target))

        def link(self, target, source):
            raise mfusepy.FuseOSError(errno.EPERM)

        def rename(self, old, new):
            os.rename(self.below(old), self.below(new))

        def chmod(self, path, mode):
            os.chmod(self.below(path), mode)

        def chown(self, path, uid, gid):
            # -1, of a C that knows unsigned numbers only, is what stays.
            ids = (-1 if one == 0xFFFFFFFF else one for one in (uid, gid))
            os.chown(self.below(path), *ids)

        def utimens(self, path, times=None):
            os.utime(self.below(path), ns=times)

        def truncate(self, path, length, fh=None):
            os.truncate(self.below(path), length)

        def create(self, path, mode, fi=None):
            return os.open(self.below(path), os.O_RDWR | os.O_CREAT, mode)

        def open(self, path, flags):
            # The kernel has seen to the other flags.
            access = flags & os.O_ACCMODE
            return os.open(self.below(path), access)

        def read(self, path, size, offset, fh):
            return os.pread(fh, size, offset)

        def write(self, path, data, offset, fh):
            return os.pwrite(fh, data, offset)

        def fsync(self, path, datasync, fh):
            os.fsync(fh)

        def fsyncdir(self, path, datasync, fh):
            raise mfusepy.FuseOSError(errno.EINVAL)

        def release(self, path, fh):
            os.close(fh)

        def statfs(self, path):
            return {}

    class Server(mfusepy.FUSE):
        def rename_fuse_3(self, old, new, flags):
            # The kernel has looked whether something stands there.
            if flags and kind == "plain":
                raise mfusepy.FuseOSError(errno.EINVAL)
            return super().rename_fuse_3(old, new, flags)

    try:
        Server(Disk(), mount, foreground=True, nothreads=True)
    finally:
        remove()


def main(*arguments):
    if arguments:
        serve(*arguments)
        return
    for kind in KINDS:
        mount = Mount(kind)
        lines = [mount.path, *reversed(mount.complaint.splitlines()), "no, and no why"]
        print(f"{kind}: {next(filter(None, lines))}")
        mount.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
