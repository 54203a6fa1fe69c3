"""
How a session ends: by Close-Session (MC-BUP 3.2.5.2.7), by Cancel-Session
(MC-BUP 3.2.5.2.8), or because its time is out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txbits._deferreds import Shared
from txbits._events import log_often
from txbits.errors import BackendError, DestinationExists, NoSuchSession
from txbits.interfaces import IReleasable, PublishedUpload
from txbits.protocol.session import Move
from txbits.sessions._active import ActiveSessions
from txbits.sessions._claims import claim_for, withdraw_after
from txbits.sessions._notification import have_answered, refused
from txbits.sessions._session import Caller, Reason, Session, Turn
from txbits.sessions.naming import shown

_log = Logger()


#: How often a Close looks at a session that other processes move on meanwhile.
_MOST_ROUNDS = 10

#: A client, or an operator, wants it.
CLOSE = Reason("close", "discarded by Close-Session")
CANCEL = Reason("cancel", "cancelled")
OPERATOR = Reason("operator", "cancelled")

#: It ends by itself.
DISABLED = Reason("disabled", "uploads are disabled")
UNFINISHED = Reason("unfinished", "its release had begun before")


async def release_in_order(*links: IReleasable) -> None:
    """
    Release one after the other, each when the one before it is gone.

    A failure ends the chain there and is raised. Since every release may be repeated,
    the chain is simply walked again then, from its beginning.
    """
    for link in links:
        await link.release()


async def publish(active: ActiveSessions, session: Session, overwrite: bool) -> None:
    """
    Make a session's file appear, and tell the observer.

    :raises AccessDenied: If only one upload is permitted, and it is another.
    :raises BackendError: As ``IUploadSession.publish`` fails.
    """
    upload = session.upload
    claim = await claim_for(active, session)
    try:
        await upload.publish(
            overwrite=overwrite,
            create_directories=session.rules.settings.create_directories,
        )
    except BackendError as error:
        session.fault = active.shown(f"{type(error).__name__}: {error}")
        if upload.offset != upload.total:
            session.life.lost()
        await withdraw_after(active, claim, error)
        raise
    session.life.published()
    active.counts.published += upload.offset
    if active.observer is not None:
        published = PublishedUpload(
            session_id=upload.session_id,
            destination=upload.destination,
            owner=upload.owner,
            content_name=upload.content_name,
            length=upload.offset,
        )
        told = maybeDeferred(active.observer.published, published)
        told.addErrback(_observer_failed)


def _observer_failed(failure: Failure) -> None:
    _log.failure("the observer of published files raised an exception", failure)


async def close_session(
    active: ActiveSessions,
    session: Session,
    turn: Turn,
    caller: Caller,
    request_url: str,
) -> None:
    """
    Close a session whose turn it is: publish its file, or discard it.

    :raises Exception: As ``SessionManager.close`` fails.
    """
    for _ in range(_MOST_ROUNDS):
        active.renew(session)
        if session.upload.offset != session.upload.total:
            # What is discarded, or taken for empty, is so for all processes.
            await active.refresh(session)
        if await _close(active, session, turn, caller, request_url):
            return
    raise BackendError("other processes keep changing the session")


async def _close(
    active: ActiveSessions,
    session: Session,
    turn: Turn,
    caller: Caller,
    request_url: str,
) -> bool:
    """
    Close a session in its present state.

    :returns: Whether that was done. If not, another process has moved it on.
    """
    upload = session.upload
    move = session.life.close()
    # A Fragment may have come before a restart, and have been refused. A file that
    # exists must not be replaced by an empty one on a guess.
    is_guess = (
        move is Move.PUBLISH_EMPTY
        and session.is_found
        # A shared store has noted that a Fragment was refused.
        and not active.is_shared
    )
    if move is Move.PUBLISH_EMPTY:
        await (await upload.open_writer(0)).close()
        session.life.begun()
        session.life.completed(session.rules.completion_of(upload))
        move = session.life.close()
    if move is Move.ASK:
        await have_answered(active, session, turn, request_url)
        move = session.life.close()
    if move is Move.UNKNOWN:
        raise NoSuchSession("the session was cancelled")
    if move is Move.REFUSE:
        raise refused(session)
    if move is Move.PUBLISH:
        overwrite = session.may_overwrite
        try:
            await publish(active, session, overwrite and not is_guess)
        except DestinationExists:
            if not (is_guess and overwrite):
                raise
            session.life.lost()
        move = session.life.close()
    is_whole = upload.offset == upload.total
    if (
        move in (Move.DISCARD, Move.LOSE)
        and not is_whole
        and not await active.gives_up(session, closed=move is Move.DISCARD)
    ):
        return False
    # Some backends' sessions forget their offset when they are released.
    fields = active.fields(session, caller)
    if move is Move.LOSE:
        await _release(active, session)
        active.counts.ended["lost", CLOSE.name] += 1
        active.counts.discarded += fields["bytes"]
        _log.error(
            f"session {{session}} released with {_amount(fields)}; bytes that "
            "{who} sent may be lost, so that the client has to send the file again: "
            "{directory}/{destination}",
            outcome="lost",
            **fields,
        )
        raise NoSuchSession("bytes of the session are lost")
    await _release(active, session, remember=True)
    if move is Move.FINISH:
        outcome, log_format = "published", "published with {bytes} bytes"
    elif is_whole:
        outcome = "handed-over"
        log_format = "{bytes} bytes handed to the application, not published"
    else:
        outcome, log_format = "discarded", f"discarded with {_amount(fields)}"
        active.counts.discarded += fields["bytes"]
    active.counts.ended[outcome, CLOSE.name] += 1
    log_often(
        _log,
        "session {session} closed by {who}, "
        + log_format
        + ": {directory}/{destination}",
        outcome=outcome,
        **fields,
    )
    return True


def cancel_session(
    active: ActiveSessions,
    session: Session,
    reason: Reason,
    caller: Caller | None = None,
) -> Deferred[None]:
    """
    Release all of a session, when the packets that act in it have ended.

    :param reason: Why.
    :param caller: Who wants it; ``None`` if its time is out.
    :returns: A Deferred that fires with ``None`` when nothing is left; callers that
        come meanwhile share it. It fails as ``SessionManager.cancel`` does. If only
        the time-out wants the release, it also fires when the session has not timed
        out after all.
    """
    if session.cancellation is None:
        session.cancellation = Shared()
    if caller is not None:
        # A client that joins the release of a session that seems to have timed out
        # must not get an Ack because that session has not.
        session.canceller = caller, reason

    async def release() -> None:
        turn = session.enter(None)
        try:
            await turn.begins()
            if session.asking is not None:
                await session.asking.release()
            await active.refresh(session)
            if session.canceller is not None or active.has_ended(session):
                await _cancel(active, session, reason)
            # Otherwise, a Fragment or another process has moved it on.
        finally:
            session.canceller = None
            session.give_back(turn)

    return session.cancellation.run(release)


async def _cancel(active: ActiveSessions, session: Session, reason: Reason) -> None:
    upload, state = session.upload, session.life.state
    if session.canceller is None and state == "standing":
        # As a Close would: a client that comes late has uploaded its file.
        move = session.life.close()
    elif (
        session.canceller is None
        and not active.is_disabled
        and not session.rules.is_left_over(upload)
        and not await active.gives_up(session, closed=False)
        # A client may have cancelled it while that was found out.
        and session.canceller is None
    ):
        # Another process has moved it on just now.
        return
    else:
        move = session.life.cancel()
    caller, reason = session.canceller or (None, reason)
    if move is Move.UNKNOWN:
        raise NoSuchSession("the session was closed meanwhile")
    fields = active.fields(session, caller)
    is_published = upload.published
    await _release(active, session, remember=move is Move.FINISH)
    outcome = "released" if caller is None else "cancelled"
    ended = "published" if move is Move.FINISH else outcome
    active.counts.ended[ended, reason.name] += 1
    if not is_published:
        active.counts.discarded += fields["bytes"]
    if move is Move.FINISH and state != "standing":
        raise NoSuchSession("the file was published already")
    log_format = f"session {{session}} released with {_amount(fields)}, {{reason}}"
    if caller is not None:
        log_format += " by operator {who}" if caller.is_operator else " by {who}"
        if caller.is_operator:
            fields["operator"] = caller.user
    _log.info(
        log_format + ": {directory}/{destination}",
        outcome=outcome,
        reason=reason.text,
        **fields,
    )
    if caller is None and (why := _loss(session, state)) is not None:
        _log.warn(
            "the upload of session {session} is lost, {bytes} bytes from {sender}: "
            "{why}, and {reason}: {directory}/{destination}",
            outcome="lost",
            sender="an anonymous user" if upload.owner is None else shown(upload.owner),
            owner=upload.owner,
            why=why,
            reason=reason.text,
            **fields,
        )


def _amount(fields: Mapping[str, Any]) -> str:
    """How much of a file there is, as a format of a line of the log."""
    return "no bytes" if fields["total"] is None else "{bytes} of {total} bytes"


def _loss(session: Session, state: str) -> str | None:
    """
    Tell why an upload that was complete was not published.

    :param state: The state that its time ran out in.
    :returns: The reason; ``None`` if it was not complete.
    """
    if state == "unanswered":
        return "the application did not take it"
    if state == "refused":
        return "the application refused it"
    if state not in ("complete", "due"):
        return None
    if session.fault is not None:
        return f"it could not be published ({session.fault})"
    if state == "due":
        return "it could not be published"
    # One from before a restart may have come, and have failed.
    return f"no Close-Session {'succeeded' if session.is_found else 'came'}"


async def end_session(
    active: ActiveSessions, session_id: UUID, operator: Caller, idle: float | None
) -> bool:
    """
    Cancel a session for an operator.

    :param idle: Seconds without progress that are required; then a packet that is being
        settled keeps the session.
    :returns: Whether it was cancelled; ``False`` only if it was not idle.
    :raises NoSuchSession: If there is none.
    :raises BackendError: If something is left.
    """
    session = await active.load(session_id)
    if idle is not None:
        await active.refresh(session)
        since = active.clock.seconds() - session.progressed
        if not session.is_idle or since < idle:
            return False
    await cancel_session(active, session, OPERATOR, operator)
    return True


async def expire_session(active: ActiveSessions, session: Session) -> None:
    """
    Release a session whose time is out, or that its directory no longer takes.

    :raises BackendError: If something is left.
    """
    reason = DISABLED
    if not active.is_disabled:
        timeout = session.rules.settings.session_timeout
        reason = Reason("timed-out", f"no progress for {timeout:g} seconds")
        if active.clock.seconds() <= session.expires:
            reason = UNFINISHED
    try:
        await cancel_session(active, session, reason)
    except NoSuchSession:
        # It was published long ago, and only its release was missing.
        return


async def expire(active: ActiveSessions, session_id: UUID) -> bool:
    """
    Release a session if its time is out, or its release has begun.

    :returns: Whether nothing went wrong. A session that could not be released is
        logged, and the next clean-up tries again.
    :raises ServerStopping: If the server is stopping.
    """
    active.begin()
    try:
        session = await active.load(session_id)
        if (
            active.is_disabled
            or session.rules.is_left_over(session.upload)
            or session.is_expired(active.clock.seconds())
        ):
            await expire_session(active, session)
    except NoSuchSession:
        return True
    except BackendError as error:
        active.failed_to_expire(session_id, error)
        return False
    finally:
        active.end()
    return True


async def _release(
    active: ActiveSessions, session: Session, *, remember: bool = False
) -> None:
    if session.replies:
        # Those that are being read are closed before they are removed.
        await release_in_order(*session.replies)
    await session.upload.release(remember=remember)
    session.life.released()
    active.forget(session)
