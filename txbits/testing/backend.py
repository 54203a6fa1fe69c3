"""
The contract of a backend, as tests: those who write a backend run these against it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.interface import InterfaceClass
from zope.interface.verify import verifyObject

from txbits.interfaces import (
    IAbilities,
    IAddressable,
    IAnswerable,
    IClaimable,
    IDownloadable,
    IEagerWriter,
    IPaged,
    IPartitioned,
    IReadable,
    IRefreshable,
    IReplyAddressable,
    ISorted,
)
from txbits.testing._abilities_contract import AbilitiesContract
from txbits.testing._answer_contract import AnswerContract, AnswerSteps
from txbits.testing._contract import contract
from txbits.testing._creation_contract import HOSTILE, CreationContract
from txbits.testing._download_contract import DownloadContract, DownloadSteps
from txbits.testing._record_contract import RecordContract
from txbits.testing._session_contract import (
    PublishingContract,
    ReleasingContract,
    WritingContract,
)

__all__ = ["HOSTILE", "BackendContract", "contract"]

_OF_BACKENDS = (
    IAbilities,
    IClaimable,
    IDownloadable,
    IPaged,
    IPartitioned,
    ISorted,
)
_OF_SESSIONS = (IReadable, IAddressable, IAnswerable, IReplyAddressable, IRefreshable)
_OF_WRITERS = (IEagerWriter,)


class BackendContract(
    CreationContract,
    RecordContract,
    WritingContract,
    PublishingContract,
    ReleasingContract,
    AnswerSteps,
    DownloadSteps,
):
    """
    Tests of everything that :mod:`txbits.interfaces` promises of a backend.

    Mix it into a test case of trial::

        class MyBackendTests(BackendContract, TestCase):
            abilities = frozenset({IDownloadable})

            def make_backend(self):
                return MyBackend(self.mktemp())
            ...

    The subclass supplies

    - ``make_backend()``: a backend over a fresh store, not started;
    - ``reopen_backend(backend)``: another backend over the same store, not started,
      as if the process of the first had been killed; or ``None`` if the store dies
      with the process;
    - ``published(backend, destination)``: the bytes of the file at a destination, or
      ``None``;
    - ``place(backend, destination, data)``: puts a file there that no upload brought,
      with its parent directories;
    - ``leftovers(backend)``: names, for a reader, everything in the store but
      published files, records of closes, and what a store without sessions has;

    and, where it has to,

    - ``abilities``: the optional interfaces that the backend, its sessions and their
      writers provide.
      They decide which tests the class gets; one test, which is named after those that
      are lacking, checks that they are declared rightly;
    - ``has_directories = False``, if no parent directory can ever be missing;
    - ``records_total_at_once = False``, if opening a writer does not;
    - ``now(backend)``: the backend's clock, if that is not the machine's.

    ``published``, ``place`` and ``leftovers`` may return Deferreds. A backend that
    needs a running reactor (threads, a network) uses
    ``twisted.trial.unittest.TestCase``; one whose Deferreds have all fired when they
    are returned may use ``SynchronousTestCase``.
    A test of your own that is a coroutine takes the decorator :func:`contract`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not issubclass(cls, SynchronousTestCase):
            return  # a mixin
        for part in (AbilitiesContract, AnswerContract, DownloadContract):
            for name, test in vars(part).items():
                required = getattr(test, "requires", None)
                if required is not None and required <= cls.abilities:
                    _add(cls, name, test)
        lacking = set(_OF_BACKENDS + _OF_SESSIONS + _OF_WRITERS) - cls.abilities
        names = "_".join(sorted(one.__name__ for one in lacking)) or "nothing"
        _add(cls, f"test_lacks_{names}", _check_abilities())

    async def provided(self) -> set[InterfaceClass]:
        """The optional interfaces of the backend, its sessions and their writers."""
        backend: object = await self.started()
        opened = await self.new(backend, ("other.txt",))  # type: ignore[arg-type]
        writer = await opened.open_writer(1)
        await writer.close()
        session: object = await self.complete(backend)  # type: ignore[arg-type]
        provided: set[InterfaceClass] = {
            one for one in _OF_BACKENDS if one.providedBy(backend)
        }
        if IAbilities.providedBy(backend):
            verifyObject(IAbilities, backend)
            told = set(IAbilities(backend).session_abilities)
            for ability in told.union(_OF_SESSIONS) - {IRefreshable}:
                self.assertEqual(ability in told, ability.providedBy(session), ability)
        provided.update(one for one in _OF_SESSIONS if one.providedBy(session))
        return provided | {one for one in _OF_WRITERS if one.providedBy(writer)}


def _check_abilities() -> Callable[[BackendContract], Any]:
    async def check(self: BackendContract) -> None:
        """The abilities are declared: each of the others is lacking indeed."""
        provided = await self.provided()
        names = ", ".join(sorted(one.__name__ for one in provided))
        self.assertEqual(
            provided, set(self.abilities), f"abilities is to be {{{names}}}"
        )

    test: Callable[[BackendContract], Coroutine[Deferred[Any], Any, None]] = check
    return contract(test)


def _add(cls: type[BackendContract], name: str, test: Callable[..., Any]) -> None:
    if not hasattr(cls, name):
        setattr(cls, name, test)
