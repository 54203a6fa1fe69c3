"""
Checks of names and passwords: what is remembered, shared, and refused for a while.

A check is slow on purpose, or asks another machine. So a success is remembered for a
while, those who ask the same at the same time share one check, and failures are limited
by name and by address. This module knows neither passwords nor how they are checked.
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from hashlib import blake2b
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from txbits._addresses import client_network
from txbits._deferreds import Waiters
from txbits._ledger import Ledger, TimeLedger
from txbits._troubles import Troubles
from txbits.access._threads import Queue, new_thread
from txbits.access._throttle import Throttle
from txbits.clocks import steady
from txbits.errors import CredentialsRejected, CredentialsUncheckable
from txbits.interfaces import Identity

_log = Logger()

#: How many successes are remembered, by default.
_MOST_KNOWN = 10_000

#: An address may fail this often at once, and then once in so many seconds. Many users
#: may share one behind a router.
_ADDRESS_BURST = 20
_ADDRESS_INTERVAL = 5.0

#: The same for a name, whatever the addresses.
_NAME_BURST = 10
_NAME_INTERVAL = 10.0

#: For how many seconds other workers remember at least that credentials were right.
_RIGHT_LASTS = 7 * 24 * 3600.0

#: Longer names, in characters, are no user's. What is remembered must have a bound.
_LONGEST_NAME = 256

#: Begins a check, and says whether it is urgent. The Deferred fires with the identity,
#: or with ``None`` if name or password are wrong.
Begin = Callable[[bool], Deferred[Identity | None]]


@define
class _Known:
    """
    A success.

    :ivar identity: Who that is.
    :ivar proof: What the credentials were compared with.
    :ivar until: Until when it needs no other check, by the steady clock.
    """

    identity: Identity
    proof: bytes | None
    until: float


@define(eq=False)
class Checks:
    """
    Remembers, shares and limits checks. It outlives the authenticators that are
    replaced when settings are read again: what a check depends on belongs in its key.

    :param reactor: The clock, and where threads return to.
    :param life: For how many seconds a success needs no other check.
    :param most_known: How many successes are remembered.
    :ivar queue: For checks that need a thread.
    """

    reactor: Any
    life: float = 600.0
    most_known: int = _MOST_KNOWN
    queue: Queue = field()
    _seconds: Callable[[], float] = field(init=False, repr=False)
    _secret: bytes = field(factory=lambda: os.urandom(32), init=False, repr=False)
    _known: OrderedDict[bytes, _Known] = field(
        factory=OrderedDict, init=False, repr=False
    )
    _running: dict[tuple[bytes, bytes | None], Waiters[Identity | None]] = field(
        factory=dict, init=False, repr=False
    )
    _addresses: Throttle = field(init=False, repr=False)
    _names: Throttle = field(init=False, repr=False)
    _together: AbstractContextManager[None] = field(
        factory=nullcontext, init=False, repr=False
    )
    _elsewhere: TimeLedger | None = field(default=None, init=False, repr=False)
    _troubles: Troubles = field(init=False, repr=False)

    @queue.default
    def _new_queue(self) -> Queue:
        return Queue(new_thread(self.reactor))

    def __attrs_post_init__(self) -> None:
        self._seconds = seconds = steady(self.reactor).seconds
        self._addresses = Throttle(seconds, _ADDRESS_BURST, _ADDRESS_INTERVAL)
        self._names = Throttle(seconds, _NAME_BURST, _NAME_INTERVAL)
        self._troubles = Troubles(_log, seconds)

    def share(self, ledger: Ledger, kind: str) -> None:
        """
        Count failures together with other workers, and know whom they have let in.

        :param ledger: Counts them.
        :param kind: Names what is checked, in all workers.
        """
        seconds = ledger.seconds
        addresses = ledger.failures_of(f"{kind}, by address")
        names = ledger.failures_of(f"{kind}, by name")
        self._addresses = Throttle(
            seconds, _ADDRESS_BURST, _ADDRESS_INTERVAL, addresses
        )
        self._names = Throttle(seconds, _NAME_BURST, _NAME_INTERVAL, names)
        self._elsewhere = ledger.successes_of(kind)
        self._secret, self._together = ledger.secret, ledger

    def adopt_failures(self, previous: Checks) -> None:
        """
        Go on counting the failures of others, whose successes are not known. What is
        shared with other workers is so already.
        """
        if self._elsewhere is not None:
            return
        self._addresses, self._names = previous._addresses, previous._names

    def key(self, credentials: bytes) -> bytes:
        """
        Digest what a client has sent, to remember it by.

        The digest is keyed, so that nobody can try passwords on what is remembered,
        without the memory of this process.
        """
        # BLAKE2 has a key of its own, and takes half the time of an HMAC. Each packet
        # needs one.
        return blake2b(credentials, key=self._secret, digest_size=32).digest()

    def known(
        self, key: bytes, proof: Callable[[str], bytes | None]
    ) -> Identity | None:
        """
        Who has sent the same credentials not long ago, and was right.

        :param key: See :meth:`key`.
        :param proof: Returns what the credentials of a user, by name, are compared with
            now. If it is not what they were compared with, they are not known: a user
            who was removed, or whose password was changed, is unknown at once.
        """
        known = self._known.get(key)
        if (
            known is None
            or known.until <= self._seconds()
            or known.proof != proof(known.identity.name)
        ):
            return None
        return known.identity

    def ask(
        self, key: bytes, proof: bytes | None, name: str, address: str, begin: Begin
    ) -> Deferred[Identity | None]:
        """
        Check credentials, or join a check of the same that runs.

        Credentials that have been right before are checked again whatever others do, as
        long as they are compared with the same: nobody can lock out their user by
        failing with the name.

        :param key: See :meth:`key`.
        :param proof: What they are compared with.
        :param name: The name that they claim.
        :param address: The client's address.
        :returns: A Deferred that fires with the identity. It fails with
            :class:`~txbits.errors.CredentialsRejected` if they are wrong, or with
            :class:`~txbits.errors.CredentialsUncheckable`.
        """
        running = self._running.get((key, proof))
        if running is not None:
            return running.wait()
        was_right = self._was_right(key, proof)
        network = client_network(address)
        name = name[:_LONGEST_NAME]
        with self._together:
            wait = 0 if was_right else self._wait(name, network)
            if not wait:
                # Beforehand, so that those that run at the same time count.
                self._names.charge(name)
                self._addresses.charge(network)
        if wait:
            return fail(self._throttled(name, address, wait))
        waiting = self._running.setdefault((key, proof), Waiters()).wait()
        begin(was_right).addBoth(self._end, key, proof, name, network)
        return waiting

    def _was_right(self, key: bytes, proof: bytes | None) -> bool:
        """Whether credentials have been right before."""
        known = self._known.get(key)
        if known is not None and known.proof == proof:
            return True
        elsewhere = self._elsewhere
        return elsewhere is not None and elsewhere.get(_right(key, proof)) is not None

    def _throttled(self, name: str, address: str, wait: int) -> CredentialsUncheckable:
        self._troubles.report(
            "throttled",
            "Too many wrong passwords: credentials for {name} from {address} are not "
            "checked for {seconds} s",
            level=LogLevel.warn,
            name=_shown(name),
            address=address,
            seconds=wait,
        )
        return CredentialsUncheckable(
            f"too many wrong passwords for {_shown(name)} or from {address}", wait
        )

    def _wait(self, name: str, network: str) -> int:
        # All clients of a Unix socket have the same address.
        by_address = self._addresses.wait(network) if network != "-" else 0.0
        return math.ceil(max(by_address, self._names.wait(name)))

    def _end(
        self,
        outcome: Identity | Failure | None,
        key: bytes,
        proof: bytes | None,
        name: str,
        network: str,
    ) -> None:
        if outcome is None:
            self._known.pop(key, None)
            if self._elsewhere is not None:
                self._elsewhere.remove(_right(key, proof))
            told: Identity | Failure | None = Failure(
                CredentialsRejected(f"the name {_shown(name)} or its password is wrong")
            )
        else:
            with self._together:
                self._names.refund(name)
                self._addresses.refund(network)
            told = outcome
        if isinstance(outcome, Failure) and not outcome.check(CredentialsRejected):
            self._troubles.report(
                "uncheckable",
                "Credentials cannot be checked now: {reason}",
                level=LogLevel.warn,
                reason=outcome.getErrorMessage(),
            )
        else:
            self._troubles.over("uncheckable", "Credentials are checked again")
        if isinstance(outcome, Identity):
            self._known[key] = _Known(outcome, proof, self._seconds() + self.life)
            self._known.move_to_end(key)
            if self._elsewhere is not None:
                until = self._elsewhere.seconds() + _RIGHT_LASTS
                self._elsewhere.put(_right(key, proof), until)
            if len(self._known) > self.most_known:
                self._known.popitem(last=False)
        self._running.pop((key, proof)).fire(told)


def _right(key: bytes, proof: bytes | None) -> str:
    """What workers remember credentials by that were right."""
    return f"{key.hex()} {proof!r}"


def _shown(name: str) -> str:
    """A name that a client claims, for the log."""
    return ascii(name[:80])
