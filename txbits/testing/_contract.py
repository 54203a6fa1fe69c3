"""
The ground that the parts of the backend contract stand on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Set
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid4

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.interface import InterfaceClass

from txbits.errors import BackendError
from txbits.interfaces import IBackend, IPartitioned, IUploadSession, IWriter

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
_ERRORS = BackendError.__module__
C = TypeVar("C", bound="ContractBase")

if TYPE_CHECKING:
    _Case = SynchronousTestCase
else:
    _Case = object


def contract(
    test: Callable[[C], Coroutine[Deferred[Any], Any, None]],
) -> Callable[[C], Deferred[None] | None]:
    """
    Make a coroutine function a test method of either kind of trial's test cases.

    A ``SynchronousTestCase`` would ignore a Deferred; there, everything has to have
    happened when the method returns.
    """

    @wraps(test)
    def run(self: C) -> Deferred[None] | None:
        return self.waited(Deferred.fromCoroutine(test(self)))

    return run


def requires(*abilities: InterfaceClass) -> Callable[[F], F]:
    """
    Mark a test as one of optional abilities.

    :param abilities: Optional interfaces of backends or sessions. Only test cases that
        declare all of them get the test.
    """

    def mark(test: F) -> F:
        test.requires = frozenset(abilities)  # type: ignore[attr-defined]
        return test

    return mark


class ContractBase(_Case):
    """The methods that a subclass provides, and helpers of the tests."""

    #: The optional interfaces that the backend, or each of its sessions, provides.
    abilities: Set[InterfaceClass] = frozenset()

    #: Whether a file's parent directories must exist. Set this to False for a store of
    #: plain names, where no parent can be missing.
    has_directories = True

    #: Whether opening a writer records the total length at once. Set this to False for
    #: a store that would need a separate request for that, and records it later.
    records_total_at_once = True

    def make_backend(self) -> IBackend:
        """Make a backend over a fresh store. It is not started yet."""
        raise NotImplementedError

    def reopen_backend(self, backend: IBackend) -> IBackend | None:
        """
        Make another backend over the same store, as after SIGKILL.

        *backend* is not stopped properly: it is never used again, and has lost what the
        kernel takes from a killed process (descriptors, locks).

        :returns: The new one, not started; ``None`` if the store dies with the
            process.
        """
        raise NotImplementedError

    def published(self, backend: IBackend, destination: tuple[str, ...]) -> Any:
        """
        Read the file at a destination as its readers do.

        :returns: The bytes of the file there, ``None`` if there is none; or a Deferred
            of it.
        """
        raise NotImplementedError

    def place(
        self, backend: IBackend, destination: tuple[str, ...], data: bytes
    ) -> Any:
        """
        Create a file at a destination, without an upload, with its directories.

        :returns: ``None``, or a Deferred of it.
        """
        raise NotImplementedError

    def leftovers(self, backend: IBackend) -> Any:
        """
        Name everything in the store except published files, records of closes, and what
        a store without sessions contains.

        :returns: A list of strings, or a Deferred of it.
        """
        raise NotImplementedError

    def now(self, backend: IBackend) -> float:
        """
        The time by the backend's clock, in seconds.

        By default, the clock is the machine's.
        """
        return time.time()

    # -- for the tests

    def waited(self, result: Deferred[T]) -> Deferred[T] | None:
        """Give the Deferred to trial, or insist that it has fired."""
        if isinstance(self, TestCase):
            return result
        self.successResultOf(result)
        return None

    async def started(self) -> IBackend:
        """A backend, started, and stopped at the end of the test."""
        return await self._start(self.make_backend())

    async def _start(self, backend: IBackend) -> IBackend:
        await backend.start()
        self.addCleanup(lambda: self.waited(backend.stop()))
        return backend

    async def reopened(self, backend: IBackend) -> IBackend | None:
        """The backend after a SIGKILL; ``None`` if its store does not outlive one."""
        again = self.reopen_backend(backend)
        return None if again is None else await self._start(again)

    async def file_at(
        self, backend: IBackend, destination: tuple[str, ...]
    ) -> bytes | None:
        """What :meth:`published` tells."""
        found: bytes | None = await maybeDeferred(self.published, backend, destination)
        return found

    async def put(
        self, backend: IBackend, destination: tuple[str, ...], data: bytes
    ) -> None:
        """Do :meth:`place`."""
        await maybeDeferred(self.place, backend, destination, data)

    async def assert_nothing_left(self, backend: IBackend) -> None:
        """What is published or remembered may be there, and nothing else."""
        left: list[str] = await maybeDeferred(self.leftovers, backend)
        self.assertEqual(left, [])
        self.assertEqual(list(await backend.sessions()), [])

    async def fails(
        self, kind: type[BackendError], result: Deferred[Any]
    ) -> BackendError:
        """
        Insist that *result* fails with this kind of error and no narrower one.

        A subclass of the backend's own counts as what it is derived from.
        """
        try:
            outcome = await result
        except BackendError as error:
            known = [one for one in type(error).__mro__ if one.__module__ == _ERRORS]
            self.assertIs(known[0], kind, f"it failed with {error!r}")
            return error
        raise self.failureException(f"{kind.__name__} was due, not {outcome!r}")

    def new_id(self, backend: IBackend) -> UUID:
        """The id of a session that is about to be made."""
        if IPartitioned.providedBy(backend):
            return IPartitioned(backend).new_id()
        return uuid4()

    async def new(
        self,
        backend: IBackend,
        destination: tuple[str, ...] = ("name.txt",),
        *,
        session_id: UUID | None = None,
        owner: str | None = None,
        content_name: str | None = None,
        overwrite: bool = False,
        create_directories: bool = False,
    ) -> IUploadSession:
        """A new session."""
        return await backend.create(
            session_id or self.new_id(backend),
            destination,
            owner=owner,
            content_name=content_name,
            overwrite=overwrite,
            create_directories=create_directories,
        )

    async def append(
        self, session: IUploadSession, total: int, *pieces: bytes
    ) -> IWriter:
        """Write *pieces* through a writer; it is closed then."""
        writer = await session.open_writer(total)
        for piece in pieces:
            await writer.write(piece)
        await writer.close()
        return writer

    async def complete(
        self,
        backend: IBackend,
        destination: tuple[str, ...] = ("name.txt",),
        data: bytes = b"whole",
        **rules: Any,
    ) -> IUploadSession:
        """A new session that holds the whole of *data*."""
        session = await self.new(backend, destination, **rules)
        await self.append(session, len(data), *([data] if data else []))
        return session
