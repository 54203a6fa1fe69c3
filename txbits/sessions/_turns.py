"""
Who acts next in a session: the newest packet.

A client has one request outstanding. When a laptop changes networks in the middle of
a fragment, the server is left with a connection on which nothing will ever arrive
again, while the client is back within seconds, on a new one, for the same session.
Were the older request to hold the session until some time-out, the client would be
locked out of its own upload; so the newest wins. The older request is ended: what
it brought is kept, its connection is dropped, and only when its writer is closed does
the newer one begin.

Only a request whose body is still arriving is ended like this, and one that waits for
a server application: what it waits for goes on without it, and the newer one waits for
the same. One that the server is busy with, such as the publication at Close-Session, is
waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import define
from twisted.internet.defer import Deferred
from zope.interface import Interface, implementer

from txbits.errors import Superseded
from txbits.interfaces import IReleasable


class IRequestBody(Interface):
    """The body of a Fragment, arriving on some connection."""

    def receive(consume: Callable[[bytes], Deferred[None]]) -> Deferred[bool]:
        """
        Let the body flow. Called at most once.

        :param consume: Takes the next bytes of it, and returns a Deferred; no more
            are read until that fires.
        :returns: A Deferred that fires, when *consume* is not under way, with ``True``
            when the body is complete, or ``False`` when it ended before: its
            connection was lost, was too slow, or :meth:`stop` was called. It fails as
            *consume* fails.
        """

    def stop() -> None:
        """
        End the body, and drop the connection it comes on.

        It may be called at any time, and again.
        """


class Stoppable(Protocol):
    """What a packet waits for: it can be made to end."""

    def stop(self) -> None: ...


@implementer(IReleasable)
@define(eq=False)
class Turn:
    """
    A packet that acts in a session, or waits for those before it.

    Its ``release()`` ends it as far as it can be ended, and fires when it is over.
    """

    _body: Stoppable | None
    _previous: Turn | None = None
    superseded: bool = False
    _over: bool = False
    _waiting: list[Deferred[None]] | None = None

    @property
    def has_to_wait(self) -> bool:
        """Whether somebody was before. Most are alone, and spared the waiting."""
        return self._previous is not None

    @property
    def can_be_ended(self) -> bool:
        """Whether its body is arriving, or it waits for what can be stopped."""
        return self._body is not None

    async def begins(self) -> None:
        """
        End whoever was before, and wait until that one is over.

        :raises Superseded: If a newer packet came meanwhile.
        """
        previous, self._previous = self._previous, None
        if previous is not None:
            await previous.release()
            if self.superseded:
                raise Superseded("a newer packet came while this one waited")

    def release(self) -> Deferred[None]:
        over: Deferred[None] = Deferred()
        if self._over:
            over.callback(None)
            return over
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(over)
        if self._body is not None:
            self.superseded = True
            self._body.stop()
        return over

    def arrived(self) -> None:
        """Its body is here: it cannot be ended any more, only waited for."""
        self._body = None

    def waits_for(self, thing: Stoppable) -> None:
        """
        Its packet begins to wait for something that goes on without it: from now on, it
        can be ended.

        :param thing: It is stopped then, or now, if somebody has tried already.
        """
        if self._waiting:
            self.superseded = True
            thing.stop()
        else:
            self._body = thing

    def end(self) -> None:
        """It is over; whoever waited for that goes on."""
        self._over = True
        waiting, self._waiting = self._waiting, None
        for one in waiting or ():
            one.callback(None)


@define(eq=False)
class Turns:
    """
    The order of packets in one session.

    :ivar newest: The packet that acts, or will when those before it are over.
    """

    newest: Turn | None = None

    def enter(self, body: IRequestBody | None) -> Turn:
        """
        Become the newest.

        :param body: The packet's body, if it has one.
        :returns: The turn, whose beginning is to be waited for, and which must be
            given back, however that goes.
        """
        turn = self.newest = Turn(body, self.newest)
        return turn

    def give_back(self, turn: Turn) -> None:
        """End a turn; the next one may begin."""
        if self.newest is turn:
            self.newest = None
        turn.end()
