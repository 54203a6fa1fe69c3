"""
Waiting for what happens once.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, succeed


@define(eq=False)
class Once:
    """
    Something that happens once, and that any number can wait for.

    :ivar happened: Whether it has happened.
    """

    happened: bool = field(default=False, init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)

    def happen(self) -> None:
        """Let it happen. Later calls do nothing."""
        self.happened = True
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)

    def wait(self) -> Deferred[None]:
        """
        Wait for it. Cancelling that ends the waiting and nothing else.

        :returns: A Deferred that fires with ``None`` when it has happened.
        """
        if self.happened:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    async def outlast(self) -> None:
        """Wait for it, however often that is cancelled: for ends that must come."""
        while not self.happened:
            try:
                await self.wait()
            except CancelledError:
                # Whoever cancels again wants what is coming already.
                continue
