"""
Replies of server applications that are open. Their sessions own them.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from txbits._deferreds import Shared, deferred
from txbits.errors import NoSuchFile, NoSuchSession, StagedDataLost
from txbits.interfaces import IAnswerable, IStoredFile
from txbits.protocol.session import Move
from txbits.sessions._active import ActiveSessions
from txbits.sessions._session import Session


@implementer(IStoredFile)
@define(eq=False)
class _OpenReply:
    """
    A reply that is open, or about to be.

    Its reader releases it, and its session does when that ends: also before it has been
    opened, so that nothing is opened after a release.
    """

    _session: Session
    length: int = field(default=0, init=False)
    modified: float = field(default=0.0, init=False)
    etag: str | None = field(default=None, init=False)
    is_weak: bool = field(default=False, init=False)
    _file: IStoredFile | None = field(default=None, init=False)
    _opening: Shared[None] = field(factory=Shared, init=False)
    _releasing: Shared[None] = field(factory=Shared, init=False)
    _is_over: bool = field(default=False, init=False)

    @deferred
    async def open(self) -> None:
        try:
            await self._opening.run(self._open)
            if self._is_over:
                raise NoSuchSession("the session ended while its reply was opened")
        except BaseException:
            await self.release()
            raise

    async def _open(self) -> None:
        file = await IAnswerable(self._session.upload).reply()
        self.length, self.modified, self.etag = file.length, file.modified, file.etag
        self.is_weak = getattr(file, "is_weak", False)
        self._file = file

    @deferred
    async def read_into(self, consumer: IConsumer, start: int, end: int) -> None:
        if self._file is None or self._is_over:
            raise StagedDataLost("the session of this reply has ended")
        await self._file.read_into(consumer, start, end)

    def release(self) -> Deferred[None]:
        self._is_over = True
        return self._releasing.run(self._release)

    async def _release(self) -> None:
        await self._opening.over()
        if self._file is not None:
            await self._file.release()
        session = self._session
        if session.replies is not None and self in session.replies:
            session.replies.discard(self)
            session.let_go()


async def open_reply(active: ActiveSessions, session: Session) -> IStoredFile:
    """
    Open the reply of a session.

    :raises NoSuchSession: If the session has ended.
    :raises NoSuchFile: If it has no reply.
    :raises BackendError: If it cannot be opened.
    :raises ServerStopping: If the server is stopping.
    """
    upload: object = session.upload
    if not IAnswerable.providedBy(upload):
        raise NoSuchFile("this backend keeps no replies")
    is_alone = session.newest is None and session.asking is None
    if active.is_shared and is_alone and IAnswerable(upload).answer is None:
        # Another process may have got the answer.
        turn = session.enter(None)
        try:
            await active.refresh(session)
        finally:
            session.give_back(turn)
    answer = IAnswerable(upload).answer
    move = session.life.fragment()
    if move is Move.UNKNOWN:
        raise NoSuchSession("the session was closed or cancelled")
    if move is Move.REFUSE or answer is None or not answer.has_reply:
        raise NoSuchFile("the session has no reply")
    # From here on stop() releases it; but that may have come meanwhile.
    active.require_running()
    reply = _OpenReply(session)
    if session.replies is None:
        session.replies = set()
    session.replies.add(reply)
    session.hold()
    await reply.open()
    return reply
