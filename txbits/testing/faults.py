"""
A backend whose calls can be held, and made to fail.

Only a release that does not end proves that the Ack of a Cancel waits for the release::

    backend = HoldableBackend(MemoryBackend(clock))
    gate = backend.hold("release")
    ...                         # Cancel-Session arrives
    assert gate.waiting == 1    # and no byte of the Ack has left
    gate.open()                 # now the session is released, and the Ack is sent
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Any, TypeVar
from uuid import UUID

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import alsoProvides, implementer
from zope.interface.interface import InterfaceClass

from txbits._deferreds import deferred
from txbits.interfaces import (
    Answer,
    AnyOwner,
    IAbilities,
    IAddressable,
    IAnswerable,
    IBackend,
    IClaim,
    IClaimable,
    IDownloadable,
    IReadable,
    IReplyAddressable,
    IStoredFile,
    IUploadSession,
    IWriter,
    SessionSummary,
)

T = TypeVar("T")

#: What can be held: the methods of a backend, of its sessions and of their writers.
OPERATIONS = frozenset(
    {
        "begin_attempt",
        "claim",
        "clean_up",
        "close",
        "create",
        "find",
        "keep_answer",
        "open_file",
        "open_reply",
        "open_writer",
        "publish",
        "read_into",
        "recalls_close",
        "release",
        "reply",
        "sessions",
        "write",
    }
)


@define(eq=False)
class Gate:
    """
    A gate that calls of one method pass before they do anything. At first it is shut.

    :ivar waiting: How many calls wait at the gate.
    """

    _is_open: bool = field(default=False, init=False)
    _error: Exception | None = field(default=None, init=False)
    _calls: list[Deferred[None]] = field(factory=list, init=False)

    @property
    def waiting(self) -> int:
        return len(self._calls)

    def open(self) -> None:
        """Let waiting calls continue, and all later ones pass."""
        self._is_open, self._error = True, None
        self._let_go(lambda call: call.callback(None))

    def fail(self, error: Exception) -> None:
        """
        Let waiting calls fail, and all later ones too, until :meth:`open`.

        :param error: What they fail with, usually a
            :class:`~txbits.errors.BackendError`.
        """
        self._is_open, self._error = False, error
        self._let_go(lambda call: call.errback(error))

    def shut(self) -> None:
        """Hold all later calls."""
        self._is_open, self._error = False, None

    def _let_go(self, end: Callable[[Deferred[None]], None]) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            end(call)

    async def _passed(self) -> None:
        if self._error is not None:
            raise self._error
        if not self._is_open:
            call: Deferred[None] = Deferred(self._given_up)
            self._calls.append(call)
            await call

    def _given_up(self, call: Deferred[None]) -> None:
        self._calls.remove(call)


# Without slots, so that alsoProvides() works.
@implementer(IBackend)
@define(eq=False, slots=False)
class HoldableBackend:
    """
    Passes calls on to another backend, when its gates allow.

    A held call has done nothing yet: a session whose release is held, or has failed,
    still exists, though its ``releasing`` is set, and stays set. Nothing is held until
    :meth:`hold` is called. Files can be read, and claims taken, if the other backend
    supports that.

    :ivar backend: The other backend.
    """

    backend: IBackend
    session_abilities: Set[InterfaceClass] = field(init=False)
    _gates: dict[str, Gate] = field(factory=dict, init=False)
    _releasing: set[UUID] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        other: object = self.backend
        self.session_abilities = frozenset()
        if IAbilities.providedBy(other):
            self.session_abilities = IAbilities(other).session_abilities
            alsoProvides(self, IAbilities)
        for ability in (IDownloadable, IClaimable):
            if ability.providedBy(other):
                alsoProvides(self, ability)

    def hold(self, operation: str) -> Gate:
        """
        Hold the calls of a method, for all sessions.

        :param operation: The method's name, one of :data:`OPERATIONS`.
        :returns: The gate of the method, which is shut.
        """
        if operation not in OPERATIONS:
            raise ValueError(f"{operation!r} is none of {sorted(OPERATIONS)}")
        gate = self._gates.setdefault(operation, Gate())
        gate.shut()
        return gate

    @deferred
    async def through(self, operation: str, call: Callable[[], Deferred[T]]) -> T:
        """Make a call when its gate lets it pass."""
        gate = self._gates.get(operation)
        if gate is not None:
            await gate._passed()
        return await call()

    def start(self) -> Deferred[None]:
        """Start the other backend."""
        return self.backend.start()

    def stop(self) -> Deferred[None]:
        """Stop the other backend."""
        return self.backend.stop()

    @deferred
    async def create(
        self,
        session_id: UUID,
        destination: tuple[str, ...],
        *,
        owner: str | None,
        content_name: str | None,
        overwrite: bool,
        create_directories: bool,
    ) -> IUploadSession:
        """Make a session, when ``hold("create")`` allows."""
        made = await self.through(
            "create",
            lambda: self.backend.create(
                session_id,
                destination,
                owner=owner,
                content_name=content_name,
                overwrite=overwrite,
                create_directories=create_directories,
            ),
        )
        return _HoldableSession(self, made)

    @deferred
    async def find(self, session_id: UUID) -> IUploadSession:
        """Look a session up, when ``hold("find")`` allows."""
        found = await self.through("find", lambda: self.backend.find(session_id))
        return _HoldableSession(self, found)

    @deferred
    async def sessions(self) -> Sequence[SessionSummary]:
        """List the sessions, when ``hold("sessions")`` allows."""
        return [
            evolve(one, releasing=True, published=False)
            if one.session_id in self._releasing
            else one
            for one in await self.through("sessions", self.backend.sessions)
        ]

    def recalls_close(
        self,
        session_id: UUID,
        destination: tuple[str, ...],
        owner: str | AnyOwner | None,
    ) -> Deferred[bool]:
        """Look a close up, when ``hold("recalls_close")`` allows."""
        return self.through(
            "recalls_close",
            lambda: self.backend.recalls_close(session_id, destination, owner),
        )

    def clean_up(self, closed_before: float) -> Deferred[None]:
        """Clean up, when ``hold("clean_up")`` allows."""
        return self.through("clean_up", lambda: self.backend.clean_up(closed_before))

    def claim(
        self, name: str, session_id: UUID, until: float
    ) -> Deferred[IClaim | None]:
        """Take a claim, when ``hold("claim")`` allows."""
        backend: Any = self.backend
        return self.through("claim", lambda: backend.claim(name, session_id, until))

    def is_claimed(self, name: str) -> Deferred[bool]:
        """Look a claim up."""
        backend: Any = self.backend
        claimed: Deferred[bool] = backend.is_claimed(name)
        return claimed

    def open_file(self, destination: tuple[str, ...]) -> Deferred[IStoredFile]:
        """Open a published file, when ``hold("open_file")`` allows."""
        backend: Any = self.backend
        return self.through("open_file", lambda: backend.open_file(destination))


@implementer(IUploadSession)
class _HoldableSession:
    """Another backend's session behind the gates, with the same optional interfaces."""

    def __init__(self, backend: HoldableBackend, session: IUploadSession) -> None:
        self._backend = backend
        self._session = session
        for ability in (IReadable, IAddressable, IAnswerable, IReplyAddressable):
            if ability.providedBy(session):
                alsoProvides(self, ability)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def __repr__(self) -> str:
        return f"<held: {self._session!r}>"

    @property
    def releasing(self) -> bool:
        begun = self._session.session_id in self._backend._releasing
        return begun or self._session.releasing

    @deferred
    async def open_writer(self, total: int) -> IWriter:
        writer = await self._backend.through(
            "open_writer", lambda: self._session.open_writer(total)
        )
        return _HoldableWriter(self._backend, writer)

    def publish(self, *, overwrite: bool, create_directories: bool) -> Deferred[None]:
        return self._backend.through(
            "publish",
            lambda: self._session.publish(
                overwrite=overwrite, create_directories=create_directories
            ),
        )

    def read_into(self, consumer: IConsumer, start: int, end: int) -> Deferred[None]:
        return self._through("read_into", consumer, start, end)

    def begin_attempt(self) -> Deferred[int]:
        return self._through("begin_attempt")

    @deferred
    async def open_reply(self) -> IWriter:
        return _HoldableWriter(self._backend, await self._through("open_reply"))

    def keep_answer(self, answer: Answer) -> Deferred[None]:
        return self._through("keep_answer", answer)

    def reply(self) -> Deferred[IStoredFile]:
        return self._through("reply")

    def _through(self, operation: str, *args: Any) -> Deferred[Any]:
        return self._backend.through(
            operation, lambda: getattr(self._session, operation)(*args)
        )

    def release(self, *, remember: bool = False) -> Deferred[None]:
        if not remember:
            # One that remembers the close has done nothing before it has done that.
            self._backend._releasing.add(self._session.session_id)
        return self._backend.through(
            "release", lambda: self._session.release(remember=remember)
        )


@implementer(IWriter)
@define(eq=False)
class _HoldableWriter:
    _backend: HoldableBackend
    _writer: IWriter

    def write(self, data: bytes) -> Deferred[None]:
        return self._backend.through("write", lambda: self._writer.write(data))

    def close(self) -> Deferred[None]:
        return self._backend.through("close", self._writer.close)
