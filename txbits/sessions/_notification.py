"""
A server application is asked about a complete upload (MC-BUP 3.3).

The question belongs to the session, not to the request that caused it: it goes on when
the client goes away, and a client that comes again waits for the same answer.
Cancel-Session, the time-out and the end of the server cancel it, and wait until it is
over.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txbits._deferreds import Event, Shared, Waiters, begun, deferred
from txbits.errors import (
    ApplicationError,
    ApplicationRefused,
    ApplicationTimedOut,
    ApplicationUnreachable,
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
from txbits.sessions._active import ActiveSessions
from txbits.sessions._claims import claim_for, withdraw
from txbits.sessions._digest import ReadingBack
from txbits.sessions._session import Session, Turn
from txbits.sessions.naming import shown

_log = Logger()

#: After this status an application is not asked again (MC-BUP 3.3).
FORBIDDEN = 403


#: What the counts call a question that has failed; a subclass precedes its base class.
_RESULTS: tuple[tuple[type[Exception], str], ...] = (
    (ApplicationRefused, "refused"),
    (ApplicationTimedOut, "timed-out"),
    (ApplicationUnreachable, "unreachable"),
    (BadAnswer, "unusable"),
    (Superseded, "given-up"),
    (NoSuchSession, "given-up"),
)


@implementer(IWriter)
@define(eq=False)
class _ReplyWriter:
    """A writer that is closed when its question is over, but not while it writes."""

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

        # It goes on when the waiting for it is cancelled.
        await self._writing.run(write)

    @deferred
    async def close(self) -> None:
        self._is_over = True
        await self._writing.over()
        await self._writer.close()


@implementer(IReply)
@define(eq=False)
class _PlaceForReply:
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
        """End the writing, and wait until it has ended."""
        self._is_begun = True
        await self._opening.over()
        if self._writer is not None:
            await self._writer.close()


@implementer(IReleasable)
@define(eq=False)
class Question:
    """
    An application is being asked about a session's upload.

    Its ``release()`` cancels that, and fires when it is over.

    :param request_url: The destination URL as the client gave it.
    """

    _active: ActiveSessions
    _session: Session
    _notifier: INotifier
    _request_url: str
    _waiters: Waiters[None] = field(factory=Waiters, init=False)
    _over: Event = field(factory=Event, init=False)
    _notifying: Deferred[Answer] | None = field(default=None, init=False)
    _reading: ReadingBack | None = field(default=None, init=False)
    _is_aborted: bool = field(default=False, init=False)

    def join(self) -> Deferred[None]:
        """
        Wait for the answer.

        :returns: A Deferred that fires with ``None`` when there is one, and fails with
            why not.
        """
        return self._waiters.wait()

    def start(self) -> None:
        """Begin to ask; called once."""
        begun(self._run()).addBoth(self._end)

    def release(self) -> Deferred[None]:
        over = self._over.wait()
        if not self._over.is_set and not self._is_aborted:
            self._is_aborted = True
            if self._reading is not None:
                self._reading.stop()
            if self._notifying is not None:
                self._notifying.cancel()
        return over

    def _end(self, outcome: Failure | None) -> None:
        self._active.end_asking(self._session)
        if (
            isinstance(outcome, Failure)
            and not self._waiters.is_awaited
            and not isinstance(outcome.value, (ApplicationError, Superseded))
        ):
            _log.failure(
                "asking the application failed",
                outcome,
                **self._active.fields(self._session),
            )
        self._waiters.fire(outcome)
        self._over.set()

    async def _run(self) -> None:
        answerable = IAnswerable(self._session.upload)
        active = self._active
        fields = active.fields(self._session)
        began, result = active.clock.seconds(), "accepted"
        try:
            await self._ask(answerable)
            answer = answerable.answer
            assert answer is not None  # noqa: S101
            if answer.status == FORBIDDEN:
                result = "refused"
        except Exception as error:
            result = _result_of(error)
            _log.info(
                "the application has not taken session {session}, attempt {attempt}: "
                "{reason} ({directory}/{destination})",
                attempt=answerable.attempts,
                reason=self._active.shown(f"{type(error).__name__}: {error}"),
                **fields,
            )
            raise
        finally:
            active.counts.notifications[result] += 1
            active.counts.asking.observe(active.clock.seconds() - began)
        _log.info(
            "the application has answered {status} for session {session}, attempt "
            "{attempt}: {directory}/{destination}",
            status=answer.status,
            attempt=answerable.attempts,
            publishes=answer.publishes,
            has_reply=answer.has_reply or answer.reply_url is not None,
            **fields,
        )

    async def _ask(self, answerable: IAnswerable) -> None:
        session = self._session
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
            reply = _PlaceForReply(answerable)
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
            # Another process has ended it. Leave nothing of this attempt.
            await upload.release()
            self._active.forget(session)
            raise
        session.life.completed(session.rules.completion_of(upload))

    async def _digest(self) -> bytes:
        self._require_wanted()
        upload = self._session.upload
        total = upload.offset
        digests = self._active.digests
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

    async def _notify(self, upload: CompleteUpload, reply: _PlaceForReply) -> Answer:
        self._require_wanted()
        try:
            self._notifying = self._notifier.notify(upload, reply)
            if self._is_aborted:
                # Meanwhile, the notifier itself has cancelled the session.
                self._notifying.cancel()
            answer = await self._notifying
        except ApplicationRefused as error:
            if error.status != FORBIDDEN:
                raise
            return Answer(status=FORBIDDEN)
        except NoSuchSession as error:
            # Only the backend can tell that, not a notifier.
            self._require_wanted()
            raise BackendError(str(error)) from error
        except (ApplicationError, BackendError):
            self._require_wanted()
            raise
        except CancelledError as error:
            self._require_wanted()
            raise ApplicationRefused("the notifier was cancelled", 500) from error
        except Exception as error:
            self._require_wanted()
            _log.failure(
                "the notifier raised an exception",
                **self._active.fields(self._session),
            )
            raise ApplicationRefused(f"{type(error).__name__}: {error}", 500) from error
        finally:
            self._notifying = None
        _check(answer)
        return answer

    def _require_wanted(self) -> None:
        if self._is_aborted:
            raise Superseded("the session or the server ends")


def _result_of(error: Exception) -> str:
    """The result of a question that has failed, for the counts."""
    return next((name for kind, name in _RESULTS if isinstance(error, kind)), "failed")


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
    active: ActiveSessions, session: Session, turn: Turn, request_url: str
) -> None:
    """
    Have the application asked about a session whose turn it is, and wait for that.

    When this returns, the life of the session has moved on.

    :raises AccessDenied: If only one upload is permitted, and it is another.
    :raises Superseded: If another packet came meanwhile, or the server is stopping.
    :raises Exception: As ``INotifier.notify`` and what keeps the answer fail.
    """
    claim = None
    if session.asking is not None:
        waiting = session.asking.join()
    elif (notifier := active.notifier_of(session)) is None:
        # There was one when the session was found.
        session.life.completed(session.rules.completion_of(session.upload))
        return
    else:
        await active.refresh(session)
        active.require_running()
        if session.life.fragment() is not Move.ASK:
            # Another process has asked.
            return
        claim = await claim_for(active, session)
        question = Question(active, session, notifier, request_url)
        active.begin_asking(session, question)
        waiting = question.join()
        question.start()
    turn.waits_for(waiting.cancel)
    try:
        await waiting
    except CancelledError as error:
        if not turn.superseded:
            raise
        raise Superseded("a newer packet waits for the answer") from error
    finally:
        turn.arrived()
    if session.life.fragment() is Move.REFUSE:
        await withdraw(active, claim)


def refused(session: Session) -> ApplicationRefused:
    """The error for a session that the application does not want."""
    return ApplicationRefused(
        f"the application answered {FORBIDDEN} to attempt "
        f"{IAnswerable(session.upload).attempts}",
        FORBIDDEN,
    )
