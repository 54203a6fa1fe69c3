"""
What several workers count together.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from time import monotonic
from types import TracebackType

from txbits._ledger._connections import ConnectionLedger
from txbits._ledger._memory import END, Memory
from txbits._ledger._parts import Parts, new_header, require_header
from txbits._ledger._sessions import Later, SessionLedger
from txbits._ledger._times import TimeLedger
from txbits._workers import Worker

#: How many sessions there may be, and how many users and addresses that have some.
_SESSIONS = 1 << 20
_CALLERS = 1 << 20

#: From how many addresses there may be connections.
_PEERS = 1 << 18

#: How many names and addresses with failed logins are remembered, and how many logins
#: that have succeeded.
_FAILURES = 1 << 16
_SUCCESSES = 1 << 16


class Ledger(Parts):
    """
    What all workers count together; made by :meth:`create` and :meth:`open`.

    As a context manager, it makes one change of all those within.

    :ivar fd: The descriptor of the memory. A worker inherits it, under any number.
    :ivar worker: Which worker this process is.
    """

    @classmethod
    def create(
        cls,
        count: int,
        *,
        sessions: int = _SESSIONS,
        callers: int = _CALLERS,
        peers: int = _PEERS,
        failures: int = _FAILURES,
        successes: int = _SUCCESSES,
    ) -> Ledger:
        """
        Make an empty ledger. It takes only as much memory as was ever used, at most
        some 170 MB for 16 workers.

        :param count: How many workers there are going to be.
        :param sessions: How many sessions there may be, in all directories together.
        :param callers: How many users and addresses with sessions there may be, counted
            separately in each directory.
        :param peers: From how many addresses there may be connections.
        :param failures: How many names and addresses with failed logins are remembered,
            at most; a multiple of 8.
        :param successes: How many logins that have succeeded are remembered, at most; a
            multiple of 8.
        """
        header = new_header(count, sessions, callers, peers, failures, successes)
        fd = os.memfd_create("txbits-ledger", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, 8 * END)
            memory = Memory(fd)
            for at, word in enumerate(header):
                memory.words[at] = word
            memory.close()
            parts = Parts(fd, Worker(0, count))
            os.ftruncate(fd, 8 * parts.end)
            parts.memory.close()
            # Whoever touches memory that is no longer there is killed.
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            return cls(fd, Worker(0, count))
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def open(
        cls, fd: int, worker: Worker, seconds: Callable[[], float] = monotonic
    ) -> Ledger:
        """
        Use the ledger that the supervisor has made.

        :param fd: The descriptor of its memory, which :meth:`close` closes.
        :param worker: Which worker this process is.
        :param seconds: A steady clock, the same in all workers.
        :raises ValueError: If this is no ledger, or one for another number of workers.
        """
        require_header(fd, worker.count)
        os.set_inheritable(fd, False)
        return cls(fd, worker, seconds)

    def close(self) -> None:
        """Stop using it. What is counted stays."""
        self.memory.close()
        os.close(self.fd)

    def __enter__(self) -> None:
        self.memory.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.memory.__exit__(kind, error, traceback)

    def sessions_of(
        self, directory: str, *, is_shared: bool, later: Later | None = None
    ) -> SessionLedger:
        """
        The sessions of a virtual directory.

        :param directory: Names the directory, in all workers, also after it was mounted
            elsewhere.
        :param is_shared: Whether each worker sees all sessions, and not only its own.
        :param later: Calls a function after some seconds, such as ``callLater`` of the
            reactor. Without it, a session never counts after its end.
        """
        return SessionLedger(self, directory, is_shared, later)

    def connections(self) -> ConnectionLedger:
        """The connections."""
        return ConnectionLedger(self)

    def failures_of(self, kind: str) -> TimeLedger:
        """
        When the failures of names, or addresses, are forgotten.

        :param kind: Names what has failed, in all workers.
        """
        return TimeLedger(self, self.failures, kind)

    def successes_of(self, kind: str) -> TimeLedger:
        """
        Which credentials were right, and until when that is remembered.

        :param kind: Names what has succeeded, in all workers.
        """
        return TimeLedger(self, self.successes, kind)

    def clear_connections(self, number: int) -> None:
        """
        Stop counting the connections of a worker that has ended, before another begins
        in its place.

        :param number: The number of the worker.
        """
        self.connections().clear(number)
