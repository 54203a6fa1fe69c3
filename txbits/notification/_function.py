"""
A server application that is a Python function in the same process.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Set
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer
from zope.interface.interface import InterfaceClass

from txbits._deferreds import deferred
from txbits.interfaces import Answer, CompleteUpload, INotifier, IReply

#: A function that returns an answer, or an awaitable of one.
Application = Callable[
    [CompleteUpload, IReply],
    Answer | Deferred[Answer] | Coroutine[Deferred[Any], Any, Answer],
]


@implementer(INotifier)
@define(eq=False)
class _FunctionNotifier:
    _function: Application
    needs: Set[InterfaceClass]

    @deferred
    async def notify(self, upload: CompleteUpload, reply: IReply) -> Answer:
        """See :meth:`txbits.interfaces.INotifier.notify`."""
        answer: object = await maybeDeferred(self._function, upload, reply)
        if not isinstance(answer, Answer):
            raise TypeError(f"{self._function!r} answered {answer!r}, not an Answer")
        return answer


def notifier(
    function: Application, needs: Set[InterfaceClass] = frozenset()
) -> INotifier:
    """
    Make a notifier of a function.

    Each attempt calls the function once, in the reactor's thread, with a
    :class:`~txbits.interfaces.CompleteUpload` and an
    :class:`~txbits.interfaces.IReply`. It may fail as
    :meth:`~txbits.interfaces.INotifier.notify` may. Any other exception is logged, and
    the client tries again later. When its Deferred or coroutine is cancelled, it must
    stop its work.

    :param function: Returns an :class:`~txbits.interfaces.Answer`, a Deferred that
        fires with one, or a coroutine.
    :param needs: The interfaces that it requires of sessions:
        :class:`~txbits.interfaces.IReadable` to read the upload,
        :class:`~txbits.interfaces.IAddressable` for its path or URL.
    """
    return _FunctionNotifier(function, frozenset(needs))
