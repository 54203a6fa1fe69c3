"""
What a worker gets from the supervisor when it starts.
"""

from __future__ import annotations

from collections.abc import Callable
from socket import AddressFamily

from attrs import field, frozen
from twisted.logger import LogEvent

from txbits._workers import Worker
from txbits.service.settings import Configuration


@frozen
class Inherited:
    """
    A listening socket that a process has inherited.

    :ivar descriptor: Its number.
    :ivar family: Its address family.
    :ivar is_shared: Whether other workers accept connections from the same queue.
    """

    descriptor: int
    family: AddressFamily
    is_shared: bool


@frozen(kw_only=True)
class RelaySetup:
    """
    How workers reach each other.

    :ivar descriptor: The listening Unix socket of this worker.
    :ivar paths: What to connect to for each worker, by their numbers.
    :ivar secret: What shows that a connection comes from a worker of this start.
    """

    descriptor: int
    paths: tuple[str, ...]
    secret: bytes = field(repr=False)


@frozen
class LogSetup:
    """
    How a worker logs.

    :ivar descriptor: The pipe that its log goes to.
    :ivar line: Makes what goes there of an event, if anything.
    :ivar journal: The socket of the journal, to which the log goes without the
        supervisor. The pipe gets only what the journal does not take.
    """

    descriptor: int
    line: Callable[[LogEvent], str | None]
    journal: str | None


@frozen(kw_only=True)
class WorkerSetup:
    """
    What a worker gets when it starts.

    :ivar worker: Which one it is.
    :ivar configuration: The settings in effect.
    :ivar listeners: For each endpoint of the setting ``listen``, its socket.
    :ivar admin: The socket of ``admin-listen``, if there is one.
    :ivar relay: How it reaches the others.
    :ivar ledger: The descriptor of the memory in which workers count together.
    :ivar form_key: What all workers sign the tokens of forms with.
    :ivar log: How it logs.
    :ivar reactor: The module of the supervisor's reactor.
    :ivar directory: The working directory in which relative paths were understood.
    """

    worker: Worker
    configuration: Configuration
    listeners: tuple[Inherited, ...]
    admin: Inherited | None
    relay: RelaySetup
    ledger: int
    form_key: bytes = field(repr=False)
    log: LogSetup
    reactor: str
    directory: str
