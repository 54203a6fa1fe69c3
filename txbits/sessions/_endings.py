"""
How a session ends: by Close-Session (MC-BUP 3.2.5.2.7), by Cancel-Session
(MC-BUP 3.2.5.2.8), or because its time is out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txbits._events import log_often
from txbits.errors import BackendError, DestinationExists, NoSuchSession
from txbits.protocol.session import Move
from txbits.sessions._fragments import publish, refused
from txbits.sessions._notification import have_answered
from txbits.sessions._release import Shared, release_in_order
from txbits.sessions._session import Session
from txbits.sessions._turns import Turn
from txbits.sessions.naming import destination_name, session_name

if TYPE_CHECKING:
    from txbits.sessions._session import Caller
    from txbits.sessions.manager import SessionManager

_log = Logger()


#: How often a Close looks at a session that other processes move on meanwhile.
_MOST_ROUNDS = 10

#: Why an upload that was complete is lost when its time is out.
_LOST = {
    "complete": "no Close-Session came",
    "unanswered": "the application did not take it",
    "refused": "the application refused it",
    "due": "it could not be published",
}


async def close_session(
    manager: SessionManager,
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
        manager.renew(session)
        if session.upload.offset != session.upload.total:
            # What is discarded, or taken for empty, is so for all processes.
            await manager.refresh(session)
        if await _close(manager, session, turn, caller, request_url):
            return
    raise BackendError("other processes keep changing the session")


async def _close(
    manager: SessionManager,
    session: Session,
    turn: Turn,
    caller: Caller,
    request_url: str,
) -> bool:
    """
    Close a session as it stands.

    :returns: Whether that was done. If not, another process has moved it on.
    """
    upload = session.upload
    move = session.life.close()
    # A Fragment may have come before a restart, and have been refused: a file that
    # exists is not replaced by an empty one on a guess.
    is_guess = (
        move is Move.PUBLISH_EMPTY
        and session.is_found
        # There it is stored that a Fragment was refused.
        and not manager.is_shared
    )
    if move is Move.PUBLISH_EMPTY:
        await (await upload.open_writer(0)).close()
        session.life.begun()
        session.life.completed(session.rules.completion_of(upload))
        move = session.life.close()
    if move is Move.ASK:
        await have_answered(manager, session, turn, request_url)
        move = session.life.close()
    if move is Move.UNKNOWN:
        raise NoSuchSession("the session was cancelled")
    if move is Move.REFUSE:
        raise refused(session)
    if move is Move.PUBLISH:
        overwrite = session.rules.settings.allow_overwrites
        try:
            await publish(session, overwrite and not is_guess)
        except DestinationExists:
            if not (is_guess and overwrite):
                raise
            session.life.lost()
        move = session.life.close()
    if (
        move in (Move.DISCARD, Move.LOSE)
        and upload.offset != upload.total
        and not await manager.gives_up(session, closed=move is Move.DISCARD)
    ):
        return False
    if move is Move.LOSE:
        await _release(manager, session)
        _log.error(
            "session {session} released with {bytes} of {total} bytes: others that "
            "{client} sent may be lost, and all are to be sent again: "
            "{destination}",
            session=session_name(upload.session_id),
            client=caller.address,
            destination=destination_name(upload.destination),
            bytes=upload.offset,
            total=upload.total,
        )
        raise NoSuchSession("bytes of the session are lost")
    await manager.backend.remember_close(
        upload.session_id, upload.destination, upload.owner
    )
    await _release(manager, session)
    if move is Move.FINISH:
        log_format = "published with {bytes} bytes"
    elif upload.offset == upload.total:
        log_format = "its {bytes} bytes were the application's"
    else:
        log_format = "discarded with {bytes} of {total} bytes"
    log_often(
        _log,
        "session {session} closed by {client}, " + log_format + ": {destination}",
        session=session_name(upload.session_id),
        client=caller.address,
        destination=destination_name(upload.destination),
        bytes=upload.offset,
        total=upload.total,
    )
    return True


def cancel_session(
    manager: SessionManager,
    session: Session,
    reason: str,
    caller: Caller | None = None,
) -> Deferred[None]:
    """
    Release all of a session, when those who act in it have ended.

    :param reason: Why, for the log.
    :param caller: Who wants it; ``None`` if nobody does, and the time is out.
    :returns: A Deferred that fires with ``None`` when nothing is left; whoever asks
        meanwhile shares it. It fails as ``SessionManager.cancel`` does.
    """
    if session.cancellation is None:
        session.cancellation = Shared()

    async def release() -> None:
        turn = manager.enter(session, None)
        try:
            await turn.begins()
            if session.asking is not None:
                await session.asking.release()
            upload = session.upload
            await manager.refresh(session)
            if caller is None and not manager.has_ended(session):
                # Another process has moved it on.
                return
            state = session.life.state
            if caller is None and state == "standing":
                # As a Close would: a client that comes late has uploaded its file.
                move = session.life.close()
            elif (
                caller is None
                and not manager.is_disabled
                and not session.rules.is_left_over(upload)
                and not await manager.gives_up(session, closed=False)
            ):
                # Another process has moved it on just now.
                return
            else:
                move = session.life.cancel()
            if move is Move.UNKNOWN:
                raise NoSuchSession("the session was closed meanwhile")
            if move is Move.FINISH:
                await manager.backend.remember_close(
                    upload.session_id, upload.destination, upload.owner
                )
            await _release(manager, session)
            if move is Move.FINISH and state != "standing":
                raise NoSuchSession("the file was published already")
            _log.info(
                "session {session} released with {bytes} of {total} bytes, "
                "{reason} by {client}: {destination}"
                if caller
                else "session {session} released with {bytes} of {total} bytes, "
                "{reason}: {destination}",
                session=session_name(upload.session_id),
                client=None if caller is None else caller.address,
                destination=destination_name(upload.destination),
                bytes=upload.offset,
                total=upload.total,
                reason=reason,
            )
            if caller is None and state in _LOST:
                _log.warn(
                    "the upload of session {session} is lost, {bytes} bytes from "
                    "{owner}: {why}, and {reason}: {destination}",
                    session=session_name(upload.session_id),
                    owner=upload.owner,
                    destination=destination_name(upload.destination),
                    bytes=upload.offset,
                    why=_LOST[state],
                    reason=reason,
                )
        finally:
            manager.give_back(session, turn)

    return session.cancellation.run(release)


async def expire_session(manager: SessionManager, session: Session) -> None:
    """
    Release a session that nobody is to go on with.

    :raises BackendError: If something is left.
    """
    try:
        timeout = session.rules.settings.session_timeout
        reason = (
            "uploads are disabled"
            if manager.is_disabled
            else f"no progress for {timeout:g} seconds"
        )
        await cancel_session(manager, session, reason)
    except NoSuchSession:
        # It was published long ago, and only its release was missing.
        return


async def _release(manager: SessionManager, session: Session) -> None:
    # Whoever reads a reply is ended before the reply goes.
    await release_in_order(*(session.replies or ()), session.upload)
    session.life.released()
    manager.forget(session)
