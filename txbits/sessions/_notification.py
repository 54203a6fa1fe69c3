"""
A server application is asked about a complete upload (MC-BUP 3.3).

The asking belongs to the session, not to the request that began it: a client that goes
away does not end it, and one that comes again waits for the same. Cancel-Session, the
time-out and the end of the server do, and are over when it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txbits._deferreds import begun, deferred
from txbits.errors import (
    ApplicationError,
    ApplicationRefused,
    BackendError,
    BadAnswer,
    NoSuchSession,
    StagedDataLost,
    Superseded,
)
from txbits.interfaces import (
    Answer,
    CompleteUpload,
    IAnswerable,
    INotifier,
    IReadable,
    IReleasable,
    IReply,
    IReplyAddressable,
    IWriter,
)
from txbits.protocol.session import Move
from txbits.protocol.urls import fault_of_reply_url
from txbits.sessions._digest import ReadingBack
from txbits.sessions._release import Shared
from txbits.sessions.naming import destination_name, session_name, shown

if TYPE_CHECKING:
    from txbits.sessions._session import Session
    from txbits.sessions._turns import Turn
    from txbits.sessions.manager import SessionManager

_log = Logger()

#: After this status an application is not asked again (MC-BUP 3.3).
FORBIDDEN = 403


@define(eq=False)
class Waiter:
    """
    One packet that waits for the answer.

    :ivar answered: Fires with ``None`` when there is one, and fails with why not.
    """

    _waiters: list[Waiter]
    answered: Deferred[None] = field(factory=Deferred, init=False)

    def stop(self) -> None:
        """Wait no longer."""
        if self in self._waiters:
            self._waiters.remove(self)
            self.answered.errback(Superseded("a newer packet waits for the answer"))


@implementer(IWriter)
@define(eq=False)
class _ReplyWriter:
    """A writer that is closed when the asking is over, but not while it writes."""

    _writer: IWriter
    _writing: Shared[None] = field(factory=Shared, init=False)
    _is_over: bool = field(default=False, init=False)

    def write(self, data: bytes) -> Deferred[None]:
        return begun(self._write(data))

    async def _write(self, data: bytes) -> None:
        if self._is_over or self._writing.is_running:
            raise BackendError("the reply is closed, or being written to")

        async def write() -> None:
            await self._writer.write(data)

        # The writing goes on if whoever waits for it is told to stop.
        await self._writing.run(write)

    @deferred
    async def close(self) -> None:
        self._is_over = True
        await self._writing.over()
        await self._writer.close()


@implementer(IReply)
@define(eq=False)
class _Reply:
    """The place for the reply in one attempt."""

    _upload: IAnswerable
    _opening: Shared[IWriter] = field(factory=Shared, init=False)
    _writer: _ReplyWriter | None = field(default=None, init=False)
    _is_begun: bool = field(default=False, init=False)

    @deferred
    async def open(self) -> IWriter:
        if self._is_begun:
            raise BackendError("the reply was opened before, or is no longer wanted")
        self._is_begun = True
        return await self._opening.run(self._open)

    async def _open(self) -> IWriter:
        self._writer = _ReplyWriter(await self._upload.open_reply())
        return self._writer

    def address(self) -> str | None:
        upload: object = self._upload
        if not IReplyAddressable.providedBy(upload):
            return None
        return IReplyAddressable(upload).reply_address()

    async def close(self) -> None:
        """Nobody is to write any more."""
        self._is_begun = True
        await self._opening.over()
        if self._writer is not None:
            await self._writer.close()


@implementer(IReleasable)
@define(eq=False)
class Asking:
    """
    An application is being asked about a session's upload.

    Its ``release()`` ends that as far as it can be ended, and fires when it is over.

    :param request_url: The destination URL as the client gave it.
    """

    _manager: SessionManager
    _session: Session
    _notifier: INotifier
    _request_url: str
    _waiters: list[Waiter] = field(factory=list, init=False)
    _ends: list[Deferred[None]] = field(factory=list, init=False)
    _notifying: Deferred[Answer] | None = field(default=None, init=False)
    _reading: ReadingBack | None = field(default=None, init=False)
    _is_aborted: bool = field(default=False, init=False)
    _is_over: bool = field(default=False, init=False)

    def join(self) -> Waiter:
        """Wait for the answer."""
        waiter = Waiter(self._waiters)
        self._waiters.append(waiter)
        return waiter

    def start(self) -> None:
        """Begin to ask; called once."""
        begun(self._run()).addBoth(self._end)

    def release(self) -> Deferred[None]:
        over: Deferred[None] = Deferred()
        if self._is_over:
            over.callback(None)
            return over
        self._ends.append(over)
        if not self._is_aborted:
            self._is_aborted = True
            if self._reading is not None:
                self._reading.stop()
            if self._notifying is not None:
                self._notifying.cancel()
        return over

    def _end(self, outcome: Failure | None) -> None:
        self._is_over = True
        waiters = self._waiters.copy()
        # They must not be ended any more.
        self._waiters.clear()
        self._manager.asked(self._session)
        if (
            isinstance(outcome, Failure)
            and not waiters
            and not isinstance(outcome.value, (ApplicationError, Superseded))
        ):
            _log.failure("asking the application failed", outcome)
        for waiter in waiters:
            waiter.answered.callback(outcome)
        for over in self._ends:
            over.callback(None)

    async def _run(self) -> None:
        upload = self._session.upload
        answerable = IAnswerable(upload)
        fields = {
            "session": session_name(upload.session_id),
            "destination": destination_name(upload.destination),
            "bytes": upload.offset,
        }
        try:
            await self._ask(answerable)
        except Exception as error:
            _log.info(
                "the application has not taken session {session}, attempt {attempt}: "
                "{reason} ({destination})",
                attempt=answerable.attempts,
                reason=shown(f"{type(error).__name__}: {error}"),
                **fields,
            )
            raise
        answer = answerable.answer
        assert answer is not None  # noqa: S101
        _log.info(
            "the application has answered {status} for session {session}, attempt "
            "{attempt}: {destination}",
            status=answer.status,
            attempt=answerable.attempts,
            publishes=answer.publishes,
            has_reply=answer.has_reply or answer.reply_url is not None,
            **fields,
        )

    async def _ask(self, answerable: IAnswerable) -> None:
        session, manager = self._session, self._manager
        upload = session.upload
        try:
            sha256 = await self._digest()
            attempt = await answerable.begin_attempt()
            asked = CompleteUpload(
                session=upload,
                request_url=self._request_url,
                attempt=attempt,
                sha256=sha256,
            )
            reply = _Reply(answerable)
            try:
                answer = await self._notify(asked, reply)
            finally:
                await reply.close()
            await answerable.keep_answer(answer)
        except StagedDataLost:
            if upload.offset != upload.total:
                session.life.lost()
            raise
        except NoSuchSession:
            # Another process has ended it: nothing of this attempt is to be left.
            await upload.release()
            manager.forget(session)
            raise
        session.life.completed(session.rules.completion_of(upload))

    async def _digest(self) -> bytes:
        self._require_wanted()
        upload = self._session.upload
        total = upload.offset
        digests = self._manager.digests
        known = digests.known(upload.session_id, total)
        if known is not None:
            return known
        self._reading = ReadingBack(digests.begun())
        try:
            return await self._reading.run(IReadable(upload), total)
        except BackendError:
            self._require_wanted()
            raise
        finally:
            self._reading = None

    async def _notify(self, upload: CompleteUpload, reply: _Reply) -> Answer:
        self._require_wanted()
        try:
            self._notifying = self._notifier.notify(upload, reply)
            if self._is_aborted:
                # It was meanwhile: the notifier itself has cancelled the session.
                self._notifying.cancel()
            answer = await self._notifying
        except ApplicationRefused as error:
            if error.status != FORBIDDEN:
                raise
            return Answer(status=FORBIDDEN)
        except NoSuchSession as error:
            # Whether it is so is for the backend to say, not for a notifier.
            self._require_wanted()
            raise BackendError(str(error)) from error
        except (ApplicationError, BackendError):
            self._require_wanted()
            raise
        except CancelledError as error:
            self._require_wanted()
            raise ApplicationRefused("the asking was given up", 500) from error
        except Exception as error:
            self._require_wanted()
            _log.failure("a notifier failed: it is to be mended")
            raise ApplicationRefused(f"{type(error).__name__}: {error}", 500) from error
        finally:
            self._notifying = None
        _check(answer)
        return answer

    def _require_wanted(self) -> None:
        if self._is_aborted:
            raise Superseded("the session or the server ends")


def _check(answer: Answer) -> None:
    """
    Look whether an answer is one.

    :raises BadAnswer: If not.
    """
    if answer.status != FORBIDDEN and not 200 <= answer.status < 300:
        raise BadAnswer(f"{answer.status} is neither success nor 403")
    if answer.reply_url is None:
        return
    if (fault := fault_of_reply_url(answer.reply_url)) is not None:
        raise BadAnswer(f"the application's reply URL {shown(fault)}")


async def have_answered(
    manager: SessionManager, session: Session, turn: Turn, request_url: str
) -> None:
    """
    Have the application asked about a session whose turn it is, and wait for that.

    When this returns, the life of the session has moved on.

    :raises Superseded: If another packet came meanwhile, or the server is stopping.
    :raises Exception: As ``INotifier.notify`` and what keeps the answer fail.
    """
    asking = session.asking
    if asking is not None:
        waiter = asking.join()
    elif (notifier := manager.notifier_of(session)) is None:
        # There was one when the session was found.
        session.life.completed(session.rules.completion_of(session.upload))
        return
    else:
        await manager.refresh(session)
        manager.require_running()
        if session.life.fragment() is not Move.ASK:
            # Another process has asked.
            return
        asking = Asking(manager, session, notifier, request_url)
        manager.asks(session, asking)
        waiter = asking.join()
        asking.start()
    turn.waits_for(waiter)
    try:
        await waiter.answered
    finally:
        turn.arrived()
