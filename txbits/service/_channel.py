"""
What the supervisor and a worker ask and tell each other, over a pair of sockets.

Both ends are processes of one user and one program, and nobody else can reach the
sockets: messages are pickled.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Mapping
from socket import MSG_WAITALL, socket
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

from txbits.errors import InvalidSetting

_log = Logger()

#: What precedes a message, as for ``Int32StringReceiver``.
_LENGTH = struct.Struct("!I")


class PeerFailed(Exception):
    """The other process could not do what it was asked; its log has the traceback."""


def read_first(connection: socket) -> Any:
    """
    Read the first message of a channel; this blocks.

    :param connection: The socket of this end, to which no :class:`Channel` is
        connected yet.
    :raises EOFError: If the other end has closed it.
    """
    length = connection.recv(_LENGTH.size, MSG_WAITALL)
    if len(length) < _LENGTH.size:
        raise EOFError("closed by the supervisor")
    data = bytearray()
    size = _LENGTH.unpack(length)[0]
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError("closed by the supervisor")
        data += piece
    return pickle.loads(data)  # noqa: S301 - see the top of this module


# Twisted's protocols are classes of the old kind, with attributes of their own.
@define(eq=False, slots=False)
class Channel(Int32StringReceiver):
    """
    One end.

    :param handlers: What to call for what the other end asks or tells, by name. What it
        returns, or its Deferred fires with, is the answer.
    :param lost: Is called when the other end is gone.
    """

    MAX_LENGTH = 256 << 20

    handlers: Mapping[str, Callable[..., Any]]
    lost: Callable[[], None]
    _asked: dict[int, Deferred[Any]] = field(factory=dict, init=False)
    _count: int = field(default=0, init=False)
    _is_open: bool = field(default=False, init=False)

    def connectionMade(self) -> None:
        self._is_open = True

    def begin(self, message: object) -> None:
        """Send what the other end reads with :func:`read_first`."""
        self._send(message)

    def tell(self, what: str, *arguments: object) -> None:
        """Tell the other end something; if it is gone, nothing happens."""
        if self._is_open:
            self._send((what, None, arguments))

    def ask(self, what: str, *arguments: object) -> Deferred[Any]:
        """
        Ask the other end.

        :returns: A Deferred that fires with the answer. It fails with
            :class:`~txbits.errors.InvalidSetting` if that was raised there, with
            :class:`PeerFailed` if anything else was, and with
            :class:`~twisted.internet.error.ConnectionLost` if the other end is gone.
        """
        answer: Deferred[Any] = Deferred()
        if not self._is_open:
            answer.errback(ConnectionLost())
            return answer
        self._count += 1
        self._asked[self._count] = answer
        self._send((what, self._count, arguments))
        return answer

    def close(self) -> None:
        """Close it when everything is sent."""
        if self.transport is not None:
            self.transport.loseConnection()

    def stringReceived(self, string: bytes) -> None:
        what, number, arguments = pickle.loads(string)  # noqa: S301 - see above
        if what == "":
            self._answered(number, *arguments)
            return
        done = maybeDeferred(self.handlers[what], *arguments)
        if number is None:
            done.addErrback(_report, what)
        else:
            done.addCallbacks(
                self._done,
                self._failed,
                callbackArgs=(number,),
                errbackArgs=(number, what),
            )
            done.addErrback(_report, what)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_open = False
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            answer.errback(ConnectionLost())
        self.lost()

    def lengthLimitExceeded(self, length: int) -> None:
        raise AssertionError(f"a message of {length} bytes")

    def _answered(self, number: int, answer: Any, error: Exception | None) -> None:
        waiting = self._asked.pop(number)
        if error is None:
            waiting.callback(answer)
        else:
            waiting.errback(error)

    def _done(self, answer: object, number: int) -> None:
        self._send(("", number, (answer, None)))

    def _failed(self, failure: Failure, number: int, what: str) -> None:
        error: Exception
        if failure.check(InvalidSetting):
            error = InvalidSetting(str(failure.value))
        else:
            _report(failure, what)
            error = PeerFailed(f"{what}: {failure.getErrorMessage()}")
        self._send(("", number, (None, error)))

    def _send(self, message: object) -> None:
        if self._is_open:
            self.sendString(pickle.dumps(message))


def _report(failure: Failure, what: str) -> None:
    _log.failure("{what}: {log_failure}", failure, what=what)
