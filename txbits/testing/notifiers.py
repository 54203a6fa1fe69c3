"""
A server application that answers when a test tells it to.

Only a notification that does not end proves that the Ack of a Cancel waits for its
end::

    notifier = HoldableNotifier()
    resource = BITSResource(backend, notifier=notifier, reactor=clock)
    ...                             # the last fragment arrives
    (asked,) = notifier.asked       # and the application is asked
    ending = notifier.hold_ends()
    ...                             # Cancel-Session arrives
    assert asked.is_aborted         # and no byte of the Ack has left
    ending.open()                   # now the notification has ended
"""

from __future__ import annotations

from collections.abc import Set

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer
from zope.interface.interface import InterfaceClass

from txbits._deferreds import deferred
from txbits.interfaces import Answer, CompleteUpload, INotifier, IReply
from txbits.testing.faults import Gate


@define(eq=False)
class Asked:
    """
    A question to the application.

    :ivar upload: The upload that it is about.
    :ivar reply: The place for the reply.
    :ivar is_aborted: Whether the question was cancelled.
    """

    upload: CompleteUpload
    reply: IReply
    is_aborted: bool = field(default=False, init=False)
    _answer: Deferred[Answer] = field(factory=Deferred, init=False)

    @property
    def is_waiting(self) -> bool:
        """Whether it was neither answered nor cancelled."""
        return not self._answer.called

    def answer(self, answer: Answer) -> None:
        """Give the final answer."""
        self._answer.callback(answer)

    def fail(self, error: Exception) -> None:
        """Fail, as an application that refuses, or cannot be reached."""
        self._answer.errback(error)


@implementer(INotifier)
@define(eq=False)
class HoldableNotifier:
    """
    Asks an application that answers when a test tells it to.

    :ivar needs: The optional interfaces that it needs of sessions.
    :ivar asked: All questions so far.
    """

    needs: Set[InterfaceClass] = frozenset()
    asked: list[Asked] = field(factory=list, init=False)
    _ends: Gate | None = field(default=None, init=False)

    def hold_ends(self) -> Gate:
        """
        Hold the end of questions that are cancelled.

        :returns: The gate before that end, which is shut.
        """
        self._ends = Gate()
        return self._ends

    @deferred
    async def notify(self, upload: CompleteUpload, reply: IReply) -> Answer:
        """Ask; see :class:`~txbits.interfaces.INotifier`."""
        asked = Asked(upload, reply)
        self.asked.append(asked)
        try:
            return await asked._answer
        except CancelledError:
            asked.is_aborted = True
            if self._ends is not None:
                await self._ends._passed()
            raise
