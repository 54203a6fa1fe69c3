"""
A server application that answers when a test says so.

That the Ack of a Cancel waits for a notification to end is only proven by one that does
not end::

    notifier = HoldableNotifier()
    resource = BITSResource(backend, notifier=notifier, reactor=clock)
    ...                             # the last fragment arrives
    (asked,) = notifier.asked       # and the application is asked
    ending = notifier.hold_ends()
    ...                             # Cancel-Session arrives
    assert asked.is_aborted         # and no byte of the Ack has left
    ending.open()                   # now nothing of the asking is left
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
    One time that the application was asked.

    :ivar upload: What about.
    :ivar reply: Where the reply goes.
    :ivar is_aborted: Whether the asking was ended from outside.
    """

    upload: CompleteUpload
    reply: IReply
    is_aborted: bool = field(default=False, init=False)
    _answer: Deferred[Answer] = field(factory=Deferred, init=False)

    @property
    def is_waiting(self) -> bool:
        """Whether it has neither answered nor been told that it need not."""
        return not self._answer.called

    def answer(self, answer: Answer) -> None:
        """The application answers for good."""
        self._answer.callback(answer)

    def fail(self, error: Exception) -> None:
        """The application, or reaching it, fails."""
        self._answer.errback(error)


@implementer(INotifier)
@define(eq=False)
class HoldableNotifier:
    """
    Asks an application that answers when a test says so.

    :ivar needs: What it needs of sessions.
    :ivar asked: The times that it was asked.
    """

    needs: Set[InterfaceClass] = frozenset()
    asked: list[Asked] = field(factory=list, init=False)
    _ends: Gate | None = field(default=None, init=False)

    def hold_ends(self) -> Gate:
        """
        Hold the end of whatever is aborted.

        :returns: The gate before it, which is shut.
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
