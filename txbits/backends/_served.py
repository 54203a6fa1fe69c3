"""
What files that are served have in common, whatever store they lie in.
"""

from __future__ import annotations

from typing import Protocol

from attrs import define, field
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from txbits._deferreds import deferred
from txbits.backends._work import Joint
from txbits.errors import BackendError
from txbits.interfaces import IStoredFile


class IFeeder(Protocol):
    """Feeds a consumer, once."""

    async def run(self, start: int, end: int) -> None:
        """Feed the bytes from *start* up to, not including, *end*."""

    def stopProducing(self) -> None:
        """Let :meth:`run` fail as soon as it can."""


@implementer(IStoredFile)
@define(eq=False)
class ServedFile:
    """
    A file that was opened; see :class:`~txbits.interfaces.IStoredFile`.

    A subclass says how it is read, and closed.
    """

    length: int
    modified: float
    etag: str
    _reading: IFeeder | None = field(default=None, init=False)
    _ending: Joint | None = field(default=None, init=False)
    _is_closed: bool = field(default=False, init=False)

    def feeder(self, consumer: IConsumer) -> IFeeder:
        """Make what feeds a consumer from this file."""
        raise NotImplementedError

    def shut(self) -> None:
        """Let go of what the file is read by."""

    @deferred
    async def read_into(self, consumer: IConsumer, start: int, end: int) -> None:
        """Feed bytes of it; see :class:`~txbits.interfaces.IStoredFile`."""
        if self._reading is not None:
            raise BackendError("the file is being read already")
        if self._is_closed:
            raise BackendError("the file is closed")
        self._reading = self.feeder(consumer)
        try:
            await self._reading.run(start, end)
        finally:
            self._reading = None
            ending, self._ending = self._ending, None
            if ending is not None:
                self.shut()
                ending.end(None)

    @deferred
    async def release(self) -> None:
        """Close it; see :class:`~txbits.interfaces.IStoredFile`."""
        if not self._is_closed:
            self._is_closed = True
            if self._reading is None:
                self.shut()
                return
        if self._reading is None:
            return
        if self._ending is None:
            self._ending = Joint()
        joined = self._ending.join()
        self._reading.stopProducing()
        await joined
