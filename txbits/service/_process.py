"""
The process that the service has for itself: exit status, signals, limits.

Embedders do not use this: their process is theirs.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Timer
from typing import Any, TextIO

from attrs import define, field
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

_log = Logger()

#: File descriptors for everything but connections, generously.
_SPARE_DESCRIPTORS = 64

#: An active upload uses two: its connection and its staged file.
_DESCRIPTORS_PER_CONNECTION = 2

#: Thresholds of the garbage collector. A full collection visits every open session and
#: stops the server meanwhile; what sessions leave behind is freed without it.
_THRESHOLDS = (50_000, 50, 100)

#: How many freed bytes the C library keeps for the next allocation, and from which size
#: on it asks the kernel for memory each time. A read of a long body over TLS needs
#: about 3 MiB for a moment. By default, the kernel would take and clear them each time,
#: which costs a tenth of all CPU time of such an upload.
_KEPT_FREE = 4 << 20
_MAPPED_FROM = 2 << 20

#: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def in_words(error: Exception) -> str:
    """Write an error of the system without its number."""
    error = getattr(error, "socketError", error)
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    is_of_one_file = error.filename is not None and error.filename2 is None
    return f"{error.strerror}: {error.filename}" if is_of_one_file else error.strerror


def on_one_line(error: object) -> str:
    """Write an error on one line."""
    return " ".join(str(error).split())


def one_line(error: object) -> str:
    """Write an error as one line that begins with our name."""
    return f"txbits: {on_one_line(error)}"


def remove_own_pidfile(path: str) -> None:
    """
    Remove a pid file that contains the number of this process.

    In a container the server has the same pid in each run, often 1. A killed server
    leaves its pid file, and ``twistd``, which checks whether a process of that number
    exists, would refuse to start.

    :param path: The file; if it is missing or unreadable, ``twistd`` reports that.
    """
    with suppress(OSError, ValueError):
        if int(Path(path).read_bytes()) == os.getpid():
            os.unlink(path)


def keep_freed_memory() -> bool:
    """
    Let the C library keep a little freed memory.

    :returns: Whether it can do that; others than glibc cannot.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(
        mallopt(_TRIM_THRESHOLD, _KEPT_FREE) and mallopt(_MMAP_THRESHOLD, _MAPPED_FROM)
    )


def _end_with_status_one() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


@define(eq=False)
class Process:
    """
    The process of the service.

    :param reactor: The reactor that is stopped when the service fails.
    :param logs_to_file: Whether the log goes elsewhere than to standard output; a
        failure is then also logged.
    :param stderr: Where the line about a failure goes; twistd redirects ``sys.stderr``
        to the log.
    :param at_exit: Registers a function to call at the end of the process.
    """

    reactor: Any
    logs_to_file: bool = True
    stderr: TextIO | None = field(factory=lambda: sys.__stderr__)
    at_exit: Callable[[Callable[[], None]], Any] = atexit.register

    def fail(self, line: str) -> None:
        """
        Stop the reactor, and make the process end with status 1.

        :param line: Why, for standard error.
        """
        if self.logs_to_file:
            _log.critical("{line}", line=line)
        if self.stderr is not None:
            self.stderr.write(f"{line}\n")
            self.stderr.flush()
        # twistd and twist clean up when the reactor has stopped, and exit with status 0
        # in any case. This runs after them.
        self.at_exit(_end_with_status_one)
        self.stop()

    def stop(self) -> None:
        """Stop the reactor, if it is not stopping already."""
        try:
            self.reactor.stop()
        except ReactorNotRunning:
            _log.debug("the reactor is already stopping")

    def on_hangup(self, react: Callable[[], None]) -> None:
        """
        Call a function at each SIGHUP, in the reactor's thread.

        Without this the signal ends the process. Twisted does not use it: it rotates
        logs at SIGUSR1.
        """

        def handle(*_: object) -> None:
            # As Twisted does, because a handler may interrupt anything.
            self.reactor.callFromThread(react)

        signal.signal(signal.SIGHUP, handle)

    def end_by_force(self, seconds: float) -> None:
        """
        End the process if it still exists after some seconds.

        The reactor and the interpreter would wait forever for a thread that hangs in a
        system call.
        """
        timer = Timer(seconds, os._exit, (1,))
        timer.daemon = True
        timer.start()

    def make_room(self, connections: int) -> None:
        """
        Raise the limit on open files as far as possible, and warn if it is too low.

        :param connections: The maximum number of connections.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError) as error:
            _log.warn(
                "cannot raise the limit on open files, {limit}: {reason}",
                limit=soft,
                reason=str(error),
            )
        needed = connections * _DESCRIPTORS_PER_CONNECTION + _SPARE_DESCRIPTORS
        if soft != resource.RLIM_INFINITY and soft < needed:
            _log.warn(
                "the limit on open files, {limit}, is too low for max-connections "
                "{connections}, which may need {needed}: raise it (ulimit -Hn, or "
                "LimitNOFILE= in a systemd unit) or lower max-connections",
                limit=soft,
                connections=connections,
                needed=needed,
            )

    def settle(self) -> None:
        """
        Prepare the process for a long run.

        All present objects are exempt from garbage collection, and the C library keeps
        some freed memory.
        """
        keep_freed_memory()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_THRESHOLDS)
