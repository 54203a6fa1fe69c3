"""
The side of relay connections that has the clients: it passes requests on, and passes
the answers back.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.web.resource import IResource
from twisted.web.server import Request

from txbits._adopted import adopt
from txbits._deferreds import deferred
from txbits._workers import Worker
from txbits.errors import WorkerUnavailable
from txbits.interfaces import IPartitioned
from txbits.protocol.urls import links_of
from txbits.web._relay.exchange import Exchange
from txbits.web._relay.incoming import RelayedChannel, RelaySite
from txbits.web._relay.line import Gone, Line
from txbits.web._relay.opening import Client
from txbits.web._relay.pipe import Pipe
from txbits.web._streaming import headers_of, memory_of

#: Seconds that a request waits for a worker that is starting again.
_PATIENCE = 10.0

#: Seconds between two tries to reach it.
_PAUSE = 0.1

#: When a client may try again that has waited in vain, in seconds.
_RETRY_AFTER = 10

#: The maximum number of relay connections for one connection of a client. One that
#: makes up the ids of sessions could ask for more.
_MOST_LINES = 8

#: The minimum length of a secret, in bytes.
_SHORTEST_SECRET = 16


class Logins(Protocol):
    """
    What stands before a directory, as far as it knows connections.
    """

    @property
    def remembers(self) -> bool:
        """Whether a login on a connection is valid for later requests."""
        ...

    def logins_of(self, request: Request) -> Sequence[tuple[int, object]]:
        """Return who has logged in on the connection of a request."""
        ...


def _has_credentials(request: Request) -> bool:
    """Whether a request says who sends it, which ends what an earlier one has said."""
    query = request.uri.partition(b"?")[2]
    return b"authorization" in headers_of(request) or bool(query and links_of(query))


@define(eq=False)
class Lines:
    """
    The relay connections for one connection of a client, by worker.

    :ivar open: Those that are open, the one that was used last at the end.
    :ivar is_closed: Whether the connection of the client is closed.
    """

    open: dict[int, Line] = field(factory=dict, init=False)
    is_closed: bool = field(default=False, init=False)
    connecting: Deferred[Any] | None = field(default=None, init=False)

    def find(self, number: int) -> Line | None:
        """The open relay connection to a worker."""
        line = self.open.pop(number, None)
        if line is None or line.is_closed:
            return None
        self.open[number] = line
        return line

    def add(self, number: int, line: Line) -> None:
        """Keep a new one, and close the one that was not used for longest."""
        self.open[number] = line
        if len(self.open) > _MOST_LINES:
            self.open.pop(next(iter(self.open))).close()

    def close(self) -> None:
        """The connection of the client is lost."""
        self.is_closed = True
        if self.connecting is not None:
            self.connecting.cancel()
        self.close_all()

    def close_all(self, but: int | None = None) -> None:
        """Close those that are open, but that to one worker."""
        for number in [one for one in self.open if one != but]:
            self.open.pop(number).close()


class Relay:
    """
    Passes requests on to the worker that has their session, and receives those that
    other workers pass on.

    :param worker: Which worker this is.
    :param paths: The Unix socket of each worker, in their order. Only the user that
        runs the service may reach them.
    :param secret: At least 16 random bytes that only the workers of the service know.
    :param reactor: The reactor.
    :raises ValueError: If the number of paths is wrong, or the secret too short.
    :ivar site: The site that serves what other workers pass on, once it listens.
    :ivar passed_on: How many requests were passed on to other workers.
    """

    def __init__(
        self, worker: Worker, paths: Sequence[str], secret: bytes, reactor: Any
    ) -> None:
        if len(paths) != worker.count:
            raise ValueError(f"{len(paths)} sockets for {worker.count} workers")
        if len(secret) < _SHORTEST_SECRET:
            raise ValueError(f"a secret needs {_SHORTEST_SECRET} bytes")
        self.worker = worker
        self.site: RelaySite | None = None
        self.passed_on = 0
        self._paths = tuple(paths)
        self._secret = secret
        self._reactor = reactor
        self._pipe = Pipe()

    def listen(self, fd: int, resource: IResource) -> IListeningPort:
        """
        Take what other workers pass on.

        :param fd: The descriptor of the listening socket of this worker, which is
            duplicated. The socket stays when this process ends.
        :param resource: The root, the same as that of the site for clients.
        """
        self.site = RelaySite(resource, self._secret, reactor=self._reactor)
        return adopt(self._reactor, os.dup(fd), socket.AF_UNIX, self.site)

    def owner_of(
        self, request: Request, backend: IPartitioned | None, session_id: UUID
    ) -> int | None:
        """
        Find the worker to which a request has to be passed on.

        :param request: The request.
        :param backend: The backend of the directory that it has reached; ``None`` if
            that is not partitioned.
        :param session_id: The session that it acts in.
        :returns: The number of the worker; ``None`` if it is this one, or any may act
            in the session.
        """
        if backend is None:
            return None
        number: int = backend.worker_of(session_id)
        is_here = number == self.worker.number
        if is_here or isinstance(request.channel, RelayedChannel):
            return None
        return number

    def keep_logins_apart(self, request: Request) -> None:
        """
        Make other workers forget an earlier login of a client that sends new
        credentials.

        Called for requests that are not passed on, where logins are remembered.
        """
        lines: Lines | None = getattr(request.channel, "attached", None)
        if lines is not None and _has_credentials(request):
            # If they are needed again, the other side is told who has logged in here.
            lines.close_all()

    @deferred
    async def pass_on(self, request: Request, number: int, gate: Logins) -> None:
        """
        Pass a request on to another worker, and answer it with what that one answers.

        :param number: The number of the other worker.
        :param gate: What stands before the directory that the request has reached.
        :returns: A Deferred that fires with ``None`` when that is done, or the client
            has gone. It fails with :class:`~txbits.errors.WorkerUnavailable` if the
            other worker cannot be reached, or ends before it has begun to answer; then
            the request has yet to be answered.
        """
        self.passed_on += 1
        lines = self._lines_of(request)
        exchange = Exchange(request)  # type: ignore[arg-type]
        if gate.remembers and _has_credentials(request):
            # Whoever that is, from now on only the other worker knows.
            memory_of(request).clear()
            lines.close_all(but=number)
        until = self._reactor.seconds() + _PATIENCE
        while not lines.is_closed:
            try:
                line = await self._line_to(number, lines, request, gate, until)
                await line.carry(exchange)
            except Gone as gone:
                if lines.is_closed:
                    return
                left = until - self._reactor.seconds()
                if left <= 0 or not exchange.can_be_repeated:
                    raise WorkerUnavailable(
                        f"worker {number} cannot be reached: {gone}", _RETRY_AFTER
                    ) from None
                await deferLater(self._reactor, min(_PAUSE, left))
            else:
                return

    def _lines_of(self, request: Request) -> Lines:
        """The relay connections for the connection that a request came on."""
        channel: Any = request.channel
        lines: Lines | None = channel.attached
        if lines is None:
            lines = channel.attached = Lines()
        return lines

    async def _line_to(
        self,
        number: int,
        lines: Lines,
        request: Request,
        gate: Logins,
        until: float,
    ) -> Line:
        """
        Find or make a relay connection.

        :param until: When the other worker must have accepted it.
        """
        line = lines.find(number)
        if line is not None:
            return line
        client = Client.of(request, gate.logins_of(request))
        lines.connecting = self._connect(number, client, until)
        try:
            line = await lines.connecting
        finally:
            lines.connecting = None
        lines.add(number, line)
        return line

    @deferred
    async def _connect(self, number: int, client: Client, until: float) -> Line:
        patience = max(0.0, until - self._reactor.seconds())
        endpoint = UNIXClientEndpoint(self._reactor, self._paths[number], patience)
        factory = Factory.forProtocol(partial(Line, self._pipe))
        factory.noisy = False
        try:
            line: Line = await endpoint.connect(factory)
        except (ConnectError, ConnectingCancelledError):
            raise Gone("it takes no connections") from None
        try:
            await line.open(client.opening(self._secret)).addTimeout(
                patience, self._reactor
            )
        except (TimedOut, CancelledError):
            raise Gone(f"it did not answer within {patience:.0f} s") from None
        return line
