"""
An active session, and which packet acts in it next: the newest.

A client has one request outstanding. When a laptop changes networks in the middle of
a fragment, the server is left with a connection on which nothing will ever arrive
again, while the client is back within seconds, on a new one, for the same session.
Were the older request to keep the session until some time-out, the client would be
locked out of its own upload; so the newest wins. The older request is ended: what
it brought is kept, its connection is dropped, and only when its writer is closed does
the newer one begin.

Two kinds of requests are ended like this: one whose body is still arriving, and one
that waits for a server application. The application is asked to the end all the same,
and the newer request waits for the same answer. A request that the server is busy with,
such as the publication at Close-Session, is waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from zope.interface import Interface, implementer

from txbits._deferreds import Shared, Waiters
from txbits.errors import Superseded
from txbits.interfaces import (
    FULL_GRANT,
    Grant,
    Identity,
    IReleasable,
    IUploadSession,
)
from txbits.protocol.session import LifeCycle
from txbits.sessions._rules import Rules
from txbits.sessions.naming import shown


def _identity(who: Identity | str | None) -> Identity | None:
    return Identity(who) if isinstance(who, str) else who


@frozen
class Reason:
    """
    Why a session is released.

    :ivar name: What the metrics call it.
    :ivar text: What the log says.
    """

    name: str
    text: str


@frozen
class Caller:
    """
    Who sent a packet, and what they may do.

    :ivar identity: Who sent it, or just the name of the user; ``None`` if anonymous.
    :ivar address: Where it came from.
    :ivar grant: What the access policy permits.
    :ivar knows_id: Whether it acts for the owner of a session because it knows the
        session's id.
    :ivar is_operator: Whether it is an operator, who may act in every session.
    :ivar user: The name of the authenticated user; ``None`` if anonymous.
    """

    identity: Identity | None = field(default=None, converter=_identity)
    address: str = ""
    grant: Grant = FULL_GRANT
    knows_id: bool = False
    is_operator: bool = False
    user: str | None = field(init=False)

    def __attrs_post_init__(self) -> None:
        user = None if self.identity is None else self.identity.name
        object.__setattr__(self, "user", user)

    @property
    def scheme(self) -> str | None:
        """How the user was authenticated; ``None`` if anonymous."""
        return None if self.identity is None else self.identity.scheme

    @property
    def name(self) -> str:
        """User, scheme and address, for the log."""
        if self.user is None:
            return self.address
        scheme = f" ({self.scheme})" if self.scheme else ""
        return f"{shown(self.user)}{scheme} at {self.address}"


class IRequestBody(Interface):
    """The body of a Fragment, arriving on some connection."""

    def receive(
        consume: Callable[[bytes], Deferred[None]],
        store: Callable[[memoryview], Deferred[None] | None] | None = None,
    ) -> Deferred[bool]:
        """
        Let the body flow. Called at most once.

        :param consume: Takes the next bytes of it, and returns a Deferred; no more
            are read until that fires.
        :param store: Takes them as well, but does not keep the memory that they are in.
            It returns ``None`` or a Deferred; no more are read until that fires. It is
            called instead of *consume* where that saves time; ``None`` if there is no
            such way.
        :returns: A Deferred that fires, when *consume* is not under way, with ``True``
            when the body is complete, or ``False`` when it ended before: its
            connection was lost, was too slow, or :meth:`stop` was called. It fails as
            *consume* or *store* fails.
        """

    def stop() -> None:
        """
        End the body, and drop the connection it comes on.

        It may be called at any time, and again.
        """


@implementer(IReleasable)
@define(eq=False)
class Turn:
    """
    A packet that acts in a session, or waits for those before it.

    Its ``release()`` ends it as far as it can be ended, and fires when it is over.

    :ivar previous: The packet before it, which it has to wait for. Most are alone.
    :ivar superseded: Whether it was ended from outside.
    """

    _stop: Callable[[], None] | None
    previous: Turn | None = None
    superseded: bool = field(default=False, init=False)
    _is_over: bool = field(default=False, init=False)
    _waiters: Waiters[None] | None = field(default=None, init=False)

    @property
    def can_be_ended(self) -> bool:
        """Whether its body is arriving, or it waits for what can be stopped."""
        return self._stop is not None

    async def begins(self) -> None:
        """
        End the packet before it, and wait until that is over.

        :raises Superseded: If a newer packet came meanwhile.
        """
        previous, self.previous = self.previous, None
        if previous is not None:
            await previous.release()
            if self.superseded:
                raise Superseded("a newer packet came while this one waited")

    def release(self) -> Deferred[None]:
        if self._is_over:
            return succeed(None)
        if self._waiters is None:
            self._waiters = Waiters()
        over = self._waiters.wait()
        if self._stop is not None:
            self.superseded = True
            self._stop()
        return over

    def arrived(self) -> None:
        """Its body is here: it cannot be ended any more, only waited for."""
        self._stop = None

    def waits_for(self, stop: Callable[[], None]) -> None:
        """
        From now on, its packet only waits, and can be ended.

        :param stop: Ends the waiting. It is called at once if a newer packet waits
            already.
        """
        if self._waiters is not None and self._waiters.is_awaited:
            self.superseded = True
            stop()
        else:
            self._stop = stop

    def end(self) -> None:
        """It is over; those who waited for that go on."""
        self._is_over = True
        if self._waiters is not None:
            self._waiters.fire(None)


class PendingAnswer(Protocol):
    """What a server application is being asked for, about a session."""

    def join(self) -> Deferred[None]:
        """Wait for the answer."""

    def release(self) -> Deferred[None]:
        """End the asking, and wait until it is over."""


@define(eq=False)
class PacketOrder:
    """
    The order of packets in one session.

    :ivar newest: The packet that acts, or will when those before it are over.
    """

    newest: Turn | None = None

    def enter(self, body: IRequestBody | None) -> Turn:
        """
        Make a packet the newest.

        :param body: The packet's body, if it has one.
        :returns: Its turn. Wait until it begins, and give it back in any case.
        """
        turn = self.newest = Turn(None if body is None else body.stop, self.newest)
        return turn

    def give_back(self, turn: Turn) -> None:
        """End a turn; the next one may begin."""
        if self.newest is turn:
            self.newest = None
        turn.end()


@define(eq=False)
class Session(PacketOrder):
    """
    An active session: what is stored of it, its life, and who acts in it.

    Thousands are open and idle at a time, so it is kept small.

    :ivar rules: The rules that apply to it.
    :ivar progressed: When bytes of it were last stored, or it was made, by the steady
        clock.
    :ivar is_found: Whether it was found in the store, after a restart.
    :ivar cancellation: What releases it, once that has begun.
    :ivar canceller: The client that wants it released, and why; ``None`` while only its
        time-out does.
    :ivar asking: The server application is being asked about it.
    :ivar replies: The replies of it that are open.
    :ivar fault: Why the last Close-Session failed, if one has.
    :ivar grant: What the Fragment or Close-Session may do whose turn it is.
    :ivar client: The address that the last packet came from.
    :ivar scheme: How its sender was authenticated.
    :ivar arrival: When the last Fragment began to arrive, by the steady clock; ``None``
        if none did.
    :ivar held: How many bytes were stored then.
    :ivar table: Where it stands while something is under way in it; ``None`` if it
        stays there as long as this process lives. Where other processes use the store
        as well, the next packet may act in another process, and the one after that
        here.
    """

    upload: IUploadSession = field(kw_only=True)
    life: LifeCycle = field(kw_only=True)
    rules: Rules = field(kw_only=True)
    progressed: float = field(kw_only=True)
    is_found: bool = False
    cancellation: Shared[None] | None = None
    canceller: tuple[Caller, Reason] | None = None
    asking: PendingAnswer | None = None
    replies: set[IReleasable] | None = None
    fault: str | None = None
    grant: Grant = FULL_GRANT
    client: str | None = None
    scheme: str | None = None
    arrival: float | None = None
    held: int = 0
    table: dict[UUID, Session] | None = None

    def enter(self, body: IRequestBody | None) -> Turn:
        if self.table is not None:
            self.hold()
        return super().enter(body)

    def give_back(self, turn: Turn) -> None:
        super().give_back(turn)
        if self.table is not None:
            self.let_go()

    def sent_by(self, caller: Caller) -> None:
        """Note who sent the packet whose turn it is."""
        self.grant, self.client = caller.grant, caller.address
        self.scheme = caller.scheme

    def hold(self) -> None:
        """Something begins in it: keep it in the table."""
        if self.table is not None:
            self.table[self.upload.session_id] = self

    def let_go(self) -> None:
        """Something has ended in it."""
        if self.table is not None and self.is_idle:
            self.table.pop(self.upload.session_id, None)

    @property
    def may_overwrite(self) -> bool:
        """Whether its file may replace an existing one."""
        return self.rules.settings.allow_overwrites and self.grant.overwrite

    @property
    def expires(self) -> float:
        """When it times out, by the steady clock, unless there is progress."""
        return self.progressed + self.rules.settings.session_timeout

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way in it."""
        return self.newest is None and self.asking is None and not self.replies

    def is_expired(self, now: float) -> bool:
        """
        Whether it has timed out, and nothing that the server does keeps it.

        :param now: The time by the steady clock.
        """
        if now <= self.expires:
            return False
        # Neither waiting for a server application nor a Fragment without progress
        # keeps a session.
        newest = self.newest
        return newest is None or self.asking is not None or newest.can_be_ended
