"""
What a Fragment does to its session (MC-BUP 3.2.5.2.6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import define, frozen
from twisted.internet.defer import Deferred, succeed

from txbits._deferreds import begun
from txbits.errors import (
    ApplicationRefused,
    BackendError,
    BodyIncomplete,
    BodyMismatch,
    FragmentTooLarge,
    NoSuchSession,
    OutOfStep,
    PolicyError,
    SessionError,
    StagedDataLost,
    Superseded,
    TotalLengthChanged,
    UploadTooLarge,
)
from txbits.interfaces import IAnswerable, IWriter
from txbits.protocol.codec import ContentRange
from txbits.protocol.placement import Placement, place
from txbits.protocol.session import Move
from txbits.sessions._digest import Digest
from txbits.sessions._notification import FORBIDDEN, have_answered
from txbits.sessions._rules import answer_of
from txbits.sessions._session import Session
from txbits.sessions._turns import IRequestBody, Turn

if TYPE_CHECKING:
    from txbits.sessions.manager import SessionManager


@frozen
class Received:
    """
    What the Ack of a Fragment says.

    :ivar offset: The offset of the byte that is wanted next.
    :ivar has_reply: Whether the server application's reply can be fetched.
    :ivar reply_url: Where instead, if the application said so.
    """

    offset: int
    has_reply: bool = False
    reply_url: str | None = None


@define(eq=False)
class _Sink:
    """Takes a fragment's bytes: skips what is held, stores the rest, counts all."""

    session: Session
    seconds: Callable[[], float]
    writer: IWriter | None
    digest: Digest | None
    skip: int
    append: int
    length: int
    received: int = 0

    def consume(self, data: bytes) -> Deferred[None]:
        self.received += len(data)
        if self.skip:
            skipped = min(self.skip, len(data))
            self.skip -= skipped
            data = data[skipped:]
        if self.append and data and self.writer is not None:
            data = data[: self.append]
            self.append -= len(data)
            self.session.progressed = self.seconds()
            hashed = None if self.digest is None else self.digest.update(data)
            stored = self.writer.write(data)
            if hashed is not None:
                stored = begun(_both(stored, hashed))
        else:
            stored = succeed(None)
        if self.received > self.length:
            # More than the range promised, which only a chunked body can bring.
            stored.addCallback(self._is_too_long)
        return stored

    def _is_too_long(self, _: None) -> None:
        raise BodyMismatch(f"over the {self.length} bytes of the range")


async def _both(stored: Deferred[None], hashed: Deferred[None]) -> None:
    try:
        await stored
    finally:
        await hashed


def placed(session: Session, content_range: ContentRange) -> tuple[Move, Placement]:
    """
    Find out what a fragment brings that is new.

    :raises NoSuchSession: If the session takes none any more.
    :raises SessionError: If it does not fit the session.
    :raises PolicyError: If it is over a limit.
    """
    upload = session.upload
    move = session.life.fragment()
    if move is Move.UNKNOWN:
        raise NoSuchSession("the session was closed or cancelled")
    # Whatever becomes of this fragment, the file is not one of no bytes.
    session.life.begun()
    if upload.total not in (None, content_range.total):
        raise TotalLengthChanged(
            f"the total was {upload.total} bytes and is now {content_range.total}"
        )
    placement = place(content_range, upload.offset)
    if placement is None:
        raise OutOfStep(
            f"the fragment starts at {content_range.first}, and "
            f"{upload.offset} bytes are held",
            upload.offset,
        )
    settings = session.rules.settings
    limit = settings.max_upload_size
    if limit is not None and content_range.total > limit:
        raise UploadTooLarge(f"{content_range.total} bytes, allowed are {limit}")
    limit = settings.max_fragment_size
    if limit is not None and content_range.length > limit:
        raise FragmentTooLarge(f"{content_range.length} bytes, allowed are {limit}")
    return move, placement


async def _placed_for_sure(
    manager: SessionManager, session: Session, content_range: ContentRange
) -> tuple[Move, Placement]:
    """
    Place a fragment; refuse none for what only this process still believes, and
    acknowledge none for that alone.

    When one is refused, it is stored that there was one: no process then takes
    the session for that of an empty file.
    """
    if not manager.is_shared:
        return placed(session, content_range)
    manager.renew(session)
    try:
        move, placement = placed(session, content_range)
        if move is not Move.RECEIVE or placement.append or session.upload.total is None:
            return move, placement
        # Nothing would be stored, and nobody asked how far the upload has got.
    except PolicyError:
        return await _placed_and_noted(manager, session, content_range)
    except (SessionError, NoSuchSession):
        pass
    await manager.refresh(session)
    return await _placed_and_noted(manager, session, content_range)


async def _placed_and_noted(
    manager: SessionManager, session: Session, content_range: ContentRange
) -> tuple[Move, Placement]:
    try:
        return placed(session, content_range)
    except (SessionError, PolicyError):
        upload = session.upload
        if upload.total is not None:
            raise
        await (await upload.open_writer(content_range.total)).close()
    # Another process may have been faster, and have received what was missing.
    manager.renew(session)
    return placed(session, content_range)


async def receive_fragment(
    manager: SessionManager,
    session: Session,
    turn: Turn,
    content_range: ContentRange,
    body: IRequestBody,
    request_url: str,
) -> Received:
    """
    Take a fragment whose turn it is.

    :raises Exception: As ``SessionManager.fragment`` fails.
    """
    upload = session.upload
    manager.require_running()
    manager.require_enabled()
    # Whoever was before us may have moved the offset, or ended the session.
    move, placement = await _placed_for_sure(manager, session, content_range)
    if move is Move.REFUSE:
        raise refused(session)
    writer = digest = None
    if move is Move.RECEIVE:
        held = upload.offset
        try:
            writer = await upload.open_writer(content_range.total)
        except StagedDataLost:
            session.life.lost()
            raise
        if upload.offset != held:
            # A store may find more, or less, than it knew of.
            placement = await _placed_again(session, content_range, writer)
        if session.rules.notifier is not None:
            digest = manager.digests.going_on(upload.session_id, upload.offset)
    sink = _Sink(
        session,
        manager.clock.seconds,
        writer,
        digest,
        placement.skip,
        placement.append,
        content_range.length,
    )
    before, held = session.progressed, upload.offset
    manager.stalls.begins(session)
    try:
        whole = await body.receive(sink.consume)
        if whole:
            turn.arrived()
    finally:
        manager.stalls.ends(session)
        if writer is not None:
            try:
                await writer.close()
            finally:
                if digest is not None and digest.length != upload.offset:
                    # Others may fill the gap, and with other bytes.
                    manager.digests.forget(upload.session_id)
                if upload.offset <= held:
                    # What the store did not take is no progress.
                    session.progressed = before
            if upload.offset == upload.total:
                session.life.completed(session.rules.completion_of(upload))
    if not whole:
        if turn.superseded:
            raise Superseded("a newer packet came, or the server is stopping")
        raise BodyIncomplete("the connection was lost, or too slow")
    if sink.received != content_range.length:
        raise BodyMismatch(
            f"the chunked body had {sink.received} bytes, its range "
            f"{content_range.length}"
        )
    if upload.offset != upload.total:
        return Received(upload.offset)
    move = session.life.fragment()
    if move is not Move.REPEAT:
        await _complete(manager, session, turn, move, request_url)
    return _received(session)


async def _placed_again(
    session: Session, content_range: ContentRange, writer: IWriter
) -> Placement:
    try:
        _, placement = placed(session, content_range)
    except BaseException:
        await writer.close()
        raise
    return placement


async def _complete(
    manager: SessionManager, session: Session, turn: Turn, move: Move, request_url: str
) -> None:
    """Do what there is before a last fragment's Ack, however often it comes."""
    if move is Move.ASK:
        await have_answered(manager, session, turn, request_url)
        move = session.life.fragment()
    if move is Move.UNKNOWN:
        raise NoSuchSession("the session was closed or cancelled")
    if move is Move.REFUSE:
        raise refused(session)
    if move is Move.PUBLISH:
        await publish(session, session.rules.settings.allow_overwrites)


def _received(session: Session) -> Received:
    """What a last fragment is answered, and one that is sent again."""
    upload = session.upload
    answer = answer_of(upload)
    if answer is None:
        return Received(upload.offset)
    # "In place of a stored reply".
    has_reply = answer.has_reply and answer.reply_url is None
    return Received(upload.offset, has_reply, answer.reply_url)


def refused(session: Session) -> ApplicationRefused:
    """What a session is answered that the application does not want."""
    return ApplicationRefused(
        f"the application answered {FORBIDDEN} to attempt "
        f"{IAnswerable(session.upload).attempts}",
        FORBIDDEN,
    )


async def publish(session: Session, overwrite: bool) -> None:
    """
    Make a session's file appear.

    :raises BackendError: As ``IUploadSession.publish`` fails.
    """
    upload = session.upload
    try:
        await upload.publish(
            overwrite=overwrite,
            create_directories=session.rules.settings.create_directories,
        )
    except BackendError:
        if upload.offset != upload.total:
            session.life.lost()
        raise
    session.life.published()
