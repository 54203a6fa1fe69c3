"""
The tools of a check: connections, packets, sessions, and the clean-up after it.

All sessions that the server creates are cancelled at the end, also those that the check
expected the server to refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from txbits.check._messages import PROTOCOL, Message, content_range
from txbits.check._target import Target
from txbits.check._wire import KitAnswer, Unanswered, Wire, parsed
from txbits.protocol._fields import parse_content_range, parse_guid
from txbits.protocol.refusals import HResult

#: The file that most checks send, and its length in bytes.
LENGTH = 1000
DATA = bytes(n * 7 % 251 for n in range(LENGTH))

#: How often to send a Cancel that fails for a temporary reason, and the pause between
#: two, in seconds.
_CANCELS = 3
_CANCEL_PAUSE = 1.0


class Failed(Exception):
    """The server does not meet the expectation; the text says what it did."""


class NotApplicable(Exception):
    """The check cannot tell; the text says why."""


@frozen
class KitSession:
    """
    A session of a check.

    :ivar id: Its id, as the server wrote it.
    :ivar name: The file's name.
    :ivar target: Its request target.
    """

    id: bytes
    name: bytes
    target: bytes


def expect(is_so: bool, otherwise: str) -> None:
    """
    Expect that a condition is true.

    :raises Failed: With the text *otherwise*, if it is not.
    """
    if not is_so:
        raise Failed(otherwise)


@define(eq=False)
class Bench:
    """
    The tools of one check.

    :ivar target: The folder that it uses.
    :ivar connect: Makes a connection.
    :ivar clock: Tells the time.
    :ivar published: The files that remain at their destinations, one line each.
    :ivar answers: How many answers came.
    """

    target: Target
    connect: Callable[[], Deferred[Wire]]
    clock: IReactorTime
    published: list[str] = field(init=False, factory=list)
    answers: int = field(init=False, default=0)
    _wires: list[Wire] = field(init=False, factory=list)
    _main: Wire | None = field(init=False, default=None)
    _open: dict[bytes, KitSession] = field(init=False, factory=dict)
    _complete: dict[bytes, bytes] = field(init=False, factory=dict)

    async def wire(self) -> Wire:
        """Make another connection."""
        try:
            wire = await self.connect()
        except CancelledError:
            raise
        except Exception as error:
            raise Unanswered(f"no connection: {error}") from error
        self._wires.append(wire)
        return wire

    async def main(self) -> Wire:
        """The connection for packets; a new one if no packet can follow on the last."""
        if self._main is None or not self._main.is_usable:
            self._main = await self.wire()
        return self._main

    async def ask(self, message: Message, wire: Wire | None = None) -> KitAnswer:
        """
        Send a packet, and wait for the answer.

        :param wire: The connection, if not :meth:`main`.
        :raises Unanswered: If no answer comes, which fails the check.
        """
        wire = wire or await self.main()
        wire.send(message.to_bytes())
        return self.note(message, await wire.answer())

    async def need(self, message: Message, wire: Wire | None = None) -> KitAnswer:
        """
        Send a packet whose success a check requires, but does not test.

        :raises NotApplicable: If the server refuses it.
        """
        try:
            answer = await self.ask(message, wire)
        except Unanswered as error:
            raise NotApplicable(f"{_kind(message)}: {error}") from error
        if not answer.is_success:
            raise NotApplicable(f"{_kind(message)} was answered with {answer}")
        return answer

    def note(self, message: Message, answer: KitAnswer) -> KitAnswer:
        """Record what an answer means for the clean-up."""
        self.answers += 1
        session_id = answer.session_id
        kind = _kind(message).lower()
        if not answer.is_success:
            return answer
        headers = dict(message.headers)
        if kind in ("cancel-session", "close-session"):
            self._open.pop(_key(headers.get(b"BITS-Session-Id", b"")), None)
            if kind == "close-session":
                self._complete.pop(message.target, None)
        elif kind == "fragment":
            name = headers.get(b"Content-Name")
            if name and _is_last(headers.get(b"Content-Range", b"")):
                self._complete[message.target] = name
        elif session_id is not None and kind != "ping":
            name = message.target.partition(b"?")[0].rpartition(b"/")[2]
            found = KitSession(session_id, name, message.target)
            self._open.setdefault(_key(session_id), found)
        return answer

    def message(self, kind: bytes, target: bytes) -> Message:
        """Write a packet of a kind."""
        return Message(
            target,
            [
                (b"Accept", b"*/*"),
                (b"BITS-Packet-Type", kind),
                (b"User-Agent", b"txbits-check"),
                (b"Host", self.target.host),
                (b"Content-Length", b"0"),
                *self.target.headers,
            ],
        )

    def ping(self) -> Message:
        """Write a Ping."""
        return self.message(b"Ping", self.target.target(self.target.new_name()))

    def create(self, name: bytes | None = None) -> Message:
        """Write a Create-Session."""
        name = self.target.new_name() if name is None else name
        return self.message(b"Create-Session", self.target.target(name)).but(
            {b"BITS-Supported-Protocols": PROTOCOL, b"Content-Name": name}
        )

    async def session(self, name: bytes | None = None) -> KitSession:
        """
        Create a session that a check requires.

        :raises NotApplicable: If the server does not create one.
        """
        message = self.create(name)
        answer = await self.need(message)
        if answer.session_id is None:
            raise NotApplicable("Create-Session was answered without a session id")
        name = dict(message.headers)[b"Content-Name"]
        return KitSession(answer.session_id, name, message.target)

    def fragment(
        self,
        session: KitSession,
        first: int = 0,
        length: int | None = None,
        headers: Mapping[bytes, bytes | None] | None = None,
    ) -> Message:
        """
        Write a Fragment.

        :param length: How many bytes; all that remain if ``None``.
        """
        data = DATA[first:] if length is None else DATA[first : first + length]
        message = self.message(b"Fragment", session.target).but(
            {
                b"BITS-Session-Id": session.id,
                b"Content-Name": session.name,
                b"Content-Range": content_range(first, len(data), LENGTH),
            }
        )
        return message.with_body(data).but(headers)

    def close(self, session: KitSession) -> Message:
        """Write a Close-Session."""
        message = self.message(b"Close-Session", session.target)
        return message.but({b"BITS-Session-Id": session.id})

    def cancel(self, session: KitSession) -> Message:
        """Write a Cancel-Session."""
        message = self.message(b"Cancel-Session", session.target)
        return message.but({b"BITS-Session-Id": session.id})

    async def held(self, session: KitSession) -> int:
        """
        Find out how many bytes the server has, which must not be all.

        :raises NotApplicable: If the server does not tell.
        """
        # The last byte, which no check sends before.
        try:
            answer = await self.ask(self.fragment(session, LENGTH - 1))
        except Unanswered as error:
            raise NotApplicable(str(error)) from error
        if answer.offset is None or answer.status != 416:
            raise NotApplicable(
                f"a fragment beyond the others was answered with {answer}"
            )
        return answer.offset

    async def tidy_up(self) -> list[str]:
        """
        Drop the connections and cancel the sessions.

        :returns: What could not be removed, one line each.
        """
        for wire in self._wires:
            wire.drop()
        self._main = None
        left = []
        for session in list(self._open.values()):
            why = await self._cancel(session)
            if why is not None:
                url = self.target.shown(session.target)
                id_ = session.id.decode("latin-1")
                left.append(f"session {id_} of {url}: {why}")
        left += await self._published_too_early()
        for wire in self._wires:
            wire.drop()
        return left

    async def _published_too_early(self) -> list[str]:
        """
        Look for files of complete uploads that were cancelled.

        Some servers publish at the last Fragment. They then refuse a new session for
        the file.
        """
        left = []
        for target, name in self._complete.items():
            try:
                answer = await self.ask(self.create(name))
            except Unanswered as error:
                left.append(f"perhaps file {self.target.shown(target)}: {error}")
                continue
            if answer.status in (403, 409):
                left.append(f"file {self.target.shown(target)}")
            if answer.is_success and answer.session_id is not None:
                await self._cancel(KitSession(answer.session_id, name, target))
        return [line for line in left if line not in self.published]

    async def _cancel(self, session: KitSession) -> str | None:
        why = None
        for attempt in range(_CANCELS):
            if attempt:
                await deferLater(self.clock, _CANCEL_PAUSE)
            try:
                answer = await self.ask(self.cancel(session))
            except Unanswered as error:
                why = str(error)
                continue
            if answer.is_success or answer.hresult == HResult.BG_E_SESSION_NOT_FOUND:
                return None
            why = f"Cancel-Session was answered with {answer}"
            if answer.status < 500:
                break
        return why


def _kind(message: Message) -> str:
    kind = dict(message.headers).get(b"BITS-Packet-Type", message.method)
    return kind.decode("latin-1")


def _is_last(value: bytes) -> bool:
    found = parsed(parse_content_range, value)
    return found is not None and found.last + 1 == found.total


def is_guid(session_id: bytes) -> bool:
    """Whether a session id is a GUID, in any spelling."""
    return parsed(parse_guid, session_id) is not None


def _key(session_id: bytes) -> bytes:
    if not is_guid(session_id):
        return session_id
    return session_id.strip(b"{}").upper()


def is_same_id(one: bytes | None, other: bytes) -> bool:
    """Whether two session ids are equal, in any spelling."""
    return one is not None and _key(one) == _key(other)
