"""
What the service does to the process that it has for itself.

Nothing of this is for embedders: limits, the garbage collector and the exit status
belong to whoever owns the process.
"""

from __future__ import annotations

import atexit
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from threading import Timer
from typing import Any, TextIO

from attrs import define, field
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

_log = Logger()

#: File descriptors that are needed beside those of connections, generously.
_SPARE_DESCRIPTORS = 64

#: An upload in full swing holds its connection and its staged file.
_DESCRIPTORS_PER_CONNECTION = 2

#: The collector's thresholds. Its full passes look at every open session, and stall
#: everyone for that long; what a session leaves behind is freed without them.
_THRESHOLDS = (50_000, 50, 100)


def _end_with_status_one() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


@define(eq=False)
class Process:
    """
    The process, as far as the service concerns itself with it.

    :param reactor: The reactor that is stopped when the service fails.
    :param stderr: Where the one line goes; twistd makes the log of ``sys.stderr``.
    :param at_exit: Registers what runs at the process's end.
    """

    reactor: Any
    stderr: TextIO | None = field(factory=lambda: sys.__stderr__)
    at_exit: Callable[[Callable[[], None]], Any] = atexit.register

    def fail(self, line: str) -> None:
        """
        Stop the reactor, and make the process end with status 1.

        :param line: Why, for standard error.
        """
        if self.stderr is not None:
            self.stderr.write(f"{line}\n")
            self.stderr.flush()
        # twistd and twist own the process: they tidy up when the reactor has stopped,
        # and then exit with status 0 whatever happened. This comes after them.
        self.at_exit(_end_with_status_one)
        self.stop()

    def stop(self) -> None:
        """
        Stop the reactor, unless that has begun already.
        """
        try:
            self.reactor.stop()
        except ReactorNotRunning:
            _log.debug("the reactor is being stopped already")

    def on_hangup(self, react: Callable[[], None]) -> None:
        """
        Do something at each SIGHUP, in the reactor's thread.

        Without this the signal ends the process. Twisted has no use for it; logs are
        rotated at SIGUSR1.
        """

        def handle(*_: object) -> None:
            # As Twisted does with its own: a handler may interrupt anything.
            self.reactor.callFromThread(react)

        signal.signal(signal.SIGHUP, handle)

    def end_by_force(self, seconds: float) -> None:
        """
        End the process, should it still be there after so many seconds.

        A thread that hangs in a system call is waited for by the reactor and by the
        interpreter, without an end.
        """
        timer = Timer(seconds, os._exit, (1,))
        timer.daemon = True
        timer.start()

    def make_room(self, connections: int) -> None:
        """
        Raise the limit of open files as far as it goes, and warn if that is too low.

        :param connections: How many connections there may be.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError) as error:
            _log.warn(
                "the limit of open files stays at {limit}: {reason}",
                limit=soft,
                reason=str(error),
            )
        needed = connections * _DESCRIPTORS_PER_CONNECTION + _SPARE_DESCRIPTORS
        if soft != resource.RLIM_INFINITY and soft < needed:
            _log.warn(
                "the limit of open files, {limit}, is too low for max-connections "
                "{connections}, which may need {needed}: raise it (ulimit -Hn, or "
                "LimitNOFILE= in a systemd unit) or lower max-connections",
                limit=soft,
                connections=connections,
                needed=needed,
            )

    def settle(self) -> None:
        """
        Tell the garbage collector that what is there now stays.
        """
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_THRESHOLDS)
