"""
Files that are open to be served, whatever store they lie in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from txbits._deferreds import Waiters, deferred
from txbits.backends._reading import Reading
from txbits.errors import BackendError, StagedDataLost
from txbits.interfaces import ICodedFile


class IFeeder(Protocol):
    """Feeds a consumer, once."""

    async def run(self, start: int, end: int) -> None:
        """Feed the bytes from *start* up to, not including, *end*."""

    def stopProducing(self) -> None:
        """Let :meth:`run` fail as soon as it can."""


def _nothing_to_close() -> None:
    """Close what needs no closing."""


@implementer(ICodedFile)
@define(eq=False)
class StoredFile:
    """
    A file that was opened; see :class:`~txbits.interfaces.ICodedFile`.

    It is closed when no reading uses it any more: a thread may be in the middle of one.

    :param feeder: Makes what feeds a consumer from it.
    :param close: Called once, at the end.
    """

    length: int
    modified: float
    etag: str | None
    _feeder: Callable[[IConsumer], IFeeder]
    _close: Callable[[], None] = _nothing_to_close
    content_encoding: str | None = field(default=None, kw_only=True)
    is_weak: bool = field(default=False, init=False)
    _reading: IFeeder | None = field(default=None, init=False)
    _read_over: Waiters[None] | None = field(default=None, init=False)
    _is_released: bool = field(default=False, init=False)

    @deferred
    async def read_into(self, consumer: IConsumer, start: int, end: int) -> None:
        """Feed bytes; see :class:`~txbits.interfaces.IStoredFile`."""
        if self._is_released:
            raise BackendError("the file is closed")
        if self._reading is not None:
            raise BackendError("the file is being read already")
        self._reading = self._feeder(consumer)
        try:
            await self._reading.run(start, end)
        except BackendError as error:
            if self._is_released:
                raise StagedDataLost("the file was closed") from error
            raise
        finally:
            self._reading = None
            read_over, self._read_over = self._read_over, None
            if read_over is not None:
                self._close()
                read_over.fire(None)

    def release(self) -> Deferred[None]:
        """Close it; see :class:`~txbits.interfaces.IReleasable`."""
        if self._read_over is not None:
            return self._read_over.wait()
        if self._is_released:
            return succeed(None)
        self._is_released = True
        if self._reading is None:
            self._close()
            return succeed(None)
        self._read_over = Waiters()
        released = self._read_over.wait()
        self._reading.stopProducing()
        return released


def by_pieces(
    read: Callable[[int, int], Deferred[bytes]],
) -> Callable[[IConsumer], IFeeder]:
    """
    Make a file's feeders of a function that reads it.

    :param read: Called with an offset and a length; its Deferred fires with that
        many bytes, or fewer where the bytes end.
    """
    return lambda consumer: Reading(consumer, read)
