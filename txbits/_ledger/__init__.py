"""
What several workers count together, so that a limit holds for all of them: sessions and
their bytes, connections, and failed logins.

The ledger is shared memory that the supervisor makes and each worker inherits. Whoever
reads or changes it has its lock, which is a POSIX record lock: the kernel takes it from
a process that is killed. What such a process has left half done is undone by whoever
has the lock next, since the old value of each word is noted before the word changes.

All of that takes microseconds. A lock of this kind belongs to a process and not to a
thread, so only the reactor's thread may use a ledger.

A process that serves alone needs none.
"""

from __future__ import annotations

from txbits._ledger._connections import ConnectionLedger
from txbits._ledger._memory import LedgerFull
from txbits._ledger._sessions import SessionLedger, Usage
from txbits._ledger._times import TimeLedger
from txbits._ledger.ledger import Ledger

__all__ = [
    "ConnectionLedger",
    "Ledger",
    "LedgerFull",
    "SessionLedger",
    "TimeLedger",
    "Usage",
]
