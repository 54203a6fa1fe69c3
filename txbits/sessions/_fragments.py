"""
What a Fragment does to its session (MC-BUP 3.2.5.2.6), and when one without progress
is ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from txbits._deferreds import begun
from txbits.errors import (
    BodyIncomplete,
    BodyMismatch,
    FragmentTooLarge,
    NoSuchSession,
    OutOfStep,
    PolicyError,
    ServerStopping,
    SessionError,
    StagedDataLost,
    Superseded,
    TotalLengthChanged,
    UploadTooLarge,
)
from txbits.interfaces import Answer, Grant, IEagerWriter, IWriter
from txbits.protocol.codec import ContentRange
from txbits.protocol.placement import Placement, place
from txbits.protocol.session import Move
from txbits.sessions._active import ActiveSessions
from txbits.sessions._digest import UploadDigest
from txbits.sessions._endings import expire, publish
from txbits.sessions._notification import have_answered, refused
from txbits.sessions._rules import answer_of
from txbits.sessions._session import IRequestBody, Session, Turn

#: Seconds that the timer fires after the time-out, so that it has passed for sure.
_LATER = 0.001

_Bytes = TypeVar("_Bytes", bytes, memoryview)


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
class _Appender:
    """Takes a Fragment's bytes: skips those already stored, and stores the rest."""

    session: Session
    seconds: Callable[[], float]
    writer: IWriter | None
    digest: UploadDigest | None
    skip: int
    append: int
    length: int
    received: int = 0

    def consume(self, data: bytes) -> Deferred[None]:
        data = self._new(data)
        if data and self.writer is not None:
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

    @property
    def eager(self) -> Callable[[memoryview], None] | None:
        """Stores bytes at once, if the writer can and nobody else needs them."""
        if self.digest is None and IEagerWriter.providedBy(self.writer):
            return self.store
        return None

    def store(self, data: memoryview) -> None:
        """As :meth:`consume`, and do not keep the bytes."""
        data = self._new(data)
        if data:
            writer: Any = self.writer
            writer.store(data)

    def _new(self, data: _Bytes) -> _Bytes:
        """Count bytes that have arrived, and return those that are to be stored."""
        self.received += len(data)
        if self.skip:
            skipped = min(self.skip, len(data))
            self.skip -= skipped
            data = data[skipped:]
        data = data[: self.append]
        if data:
            self.append -= len(data)
            self.session.progressed = self.seconds()
        return data

    def _is_too_long(self, _: None) -> None:
        raise BodyMismatch(f"over the {self.length} bytes of the range")


async def _both(stored: Deferred[None], hashed: Deferred[None]) -> None:
    try:
        await stored
    finally:
        await hashed


def arrive(session: Session) -> Move:
    """
    A Fragment arrives in a session, whatever becomes of it.

    :raises NoSuchSession: If the session takes none any more.
    """
    move = session.life.fragment()
    if move is Move.UNKNOWN:
        raise NoSuchSession("the session was closed or cancelled")
    # Even if this Fragment is refused, the file is not an empty one.
    session.life.begun()
    return move


def placement_of(
    session: Session, content_range: ContentRange, grant: Grant
) -> Placement:
    """
    Tell which bytes of a Fragment are new, as far as this process knows.

    :param grant: What its sender may do.
    :raises SessionError: If it does not fit the session.
    :raises PolicyError: If it is over a limit.
    """
    upload = session.upload
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
    for limit, whose in (
        (settings.max_upload_size, "max-upload-size"),
        (grant.max_size, "the upload link or permission"),
    ):
        if limit is not None and content_range.total > limit:
            raise UploadTooLarge(f"{content_range.total} bytes, {whose} allows {limit}")
    limit = settings.max_fragment_size
    if limit is not None and content_range.length > limit:
        raise FragmentTooLarge(f"{content_range.length} bytes, allowed are {limit}")
    return placement


@define(eq=False)
class Fragments:
    """
    Takes the Fragments of one manager's sessions.

    A session without progress for its time-out is released (MC-BUP 3.2.6.1), also while
    a Fragment of it is under way on a connection that still lives: bytes may come that
    are stored already, or none. One timer watches them all. It is set again only when
    it has fired, or when a Fragment begins whose session is older than the others.
    """

    _active: ActiveSessions
    _arriving: set[Session] = field(factory=set, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)
    _fires: float = field(default=float("inf"), init=False)
    _has_stopped: bool = field(default=False, init=False)

    def require_fit(
        self, session: Session, content_range: ContentRange, grant: Grant
    ) -> None:
        """
        Check a Fragment before it ends the packet that acts in its session. One that
        fails must not disturb that packet.

        :param grant: What its sender may do.
        :raises NoSuchSession: If the session takes none any more.
        :raises SessionError: If it does not fit the session.
        :raises PolicyError: If it is over a limit.
        """
        try:
            arrive(session)
            placement_of(session, content_range, grant)
        except (SessionError, NoSuchSession):
            # Another process may have moved the session on.
            if not self._active.is_shared:
                raise

    async def receive(
        self,
        session: Session,
        turn: Turn,
        content_range: ContentRange,
        body: IRequestBody,
        request_url: str,
    ) -> Received:
        """
        Take a Fragment whose turn it is.

        :raises Exception: As ``SessionManager.fragment`` fails.
        """
        active, upload = self._active, session.upload
        if active.is_disabled or active.is_stopping:
            active.require_enabled()
            active.require_running()
        # The packet before may have moved the offset, or ended the session.
        if active.is_shared:
            move, placement = await _placed_for_sure(active, session, content_range)
        else:
            move = arrive(session)
            placement = placement_of(session, content_range, session.grant)
        if move is Move.REFUSE:
            raise refused(session)
        writer = digest = answer = None
        if move is Move.RECEIVE:
            held = upload.offset
            if upload.total is None:
                active.quota.charge(
                    upload.session_id,
                    upload.owner,
                    content_range.total,
                    active.rules.settings,
                )
            try:
                writer = await upload.open_writer(content_range.total)
            except StagedDataLost:
                session.life.lost()
                raise
            if upload.offset != held:
                # A store may find more, or less, than was known.
                placement = await _placed_again(session, content_range, writer)
            if session.rules.notifier is not None:
                digest = active.digests.going_on(upload.session_id, upload.offset)
        length = content_range.length
        sink = _Appender(
            session,
            active.clock.seconds,
            writer,
            digest,
            placement.skip,
            0 if writer is None else placement.append,
            length,
        )
        before, held = session.progressed, upload.offset
        session.arrival, session.held = active.clock.seconds(), held
        self._watch(session, session.expires)
        try:
            whole = await body.receive(sink.consume, sink.eager)
            arrived = active.clock.seconds()
            if whole:
                turn.arrived()
        finally:
            active.counts.received += sink.received
            self._arriving.discard(session)
            if writer is not None:
                try:
                    await writer.close()
                finally:
                    if digest is not None and digest.length != upload.offset:
                        # Other processes may fill the gap, and with other bytes.
                        active.digests.forget(upload.session_id)
                    if upload.offset <= held:
                        # Bytes that the store did not take are no progress.
                        session.progressed = before
                if upload.offset == upload.total:
                    answer = answer_of(upload)
                    session.life.completed(session.rules.completion(answer))
        if not whole:
            if turn.superseded:
                raise Superseded("a newer packet came, or the server is stopping")
            raise BodyIncomplete("the connection was lost, or too slow")
        if sink.received != length:
            raise BodyMismatch(
                f"the chunked body had {sink.received} bytes, its range {length}"
            )
        if upload.offset != upload.total:
            active.counts.acks.observe(active.clock.seconds() - arrived)
            return Received(upload.offset)
        move = session.life.fragment()
        if writer is None or move is not Move.REPEAT:
            if move is not Move.REPEAT:
                await _complete(active, session, turn, move, request_url)
            answer = answer_of(upload)
        active.counts.acks.observe(active.clock.seconds() - arrived)
        return _received(upload.offset, answer)

    # The end of Fragments without progress

    def stop(self) -> None:
        """Watch Fragments no longer, not even those that begin from now on."""
        self._has_stopped = True
        self._arriving.clear()
        self._set_timer(float("inf"))

    def _watch(self, session: Session, expires: float) -> None:
        if self._has_stopped:
            # The packet came before the stop, and the store took its time. It is ended
            # at once.
            return
        self._arriving.add(session)
        if expires < self._fires:
            self._set_timer(expires)

    def _set_timer(self, fires: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._fires = fires
        if fires != float("inf"):
            clock = self._active.clock
            delay = max(0.0, fires - clock.seconds()) + _LATER
            self._timer = clock.callLater(delay, self._look)

    def _look(self) -> None:
        self._timer, self._fires = None, float("inf")
        now = self._active.clock.seconds()
        stalled = [one for one in self._arriving if one.expires < now]
        for session in stalled:
            # Once is enough: that ends the Fragment, even if more cannot be released.
            self._arriving.discard(session)
            begun(self._end(session))
        if self._arriving and self._timer is None:
            self._set_timer(min(one.expires for one in self._arriving))

    async def _end(self, session: Session) -> None:
        try:
            await expire(self._active, session.upload.session_id)
        except ServerStopping:
            return  # which ends its Fragment as well


async def _placed_for_sure(
    active: ActiveSessions, session: Session, content_range: ContentRange
) -> tuple[Move, Placement]:
    """
    Place a Fragment where other processes may have moved the session on: ask the store
    before one is refused, or acknowledged without storing anything.

    When one is refused, the store notes that there was one: no process then takes the
    session for that of an empty file.
    """
    active.renew(session)
    try:
        move = arrive(session)
        placement = placement_of(session, content_range, session.grant)
        if move is not Move.RECEIVE or placement.append or session.upload.total is None:
            return move, placement
        # Nothing would be stored, and nobody asked how far the upload has got.
    except PolicyError:
        return await _placed_and_noted(active, session, content_range)
    except (SessionError, NoSuchSession):
        pass
    await active.refresh(session)
    return await _placed_and_noted(active, session, content_range)


async def _placed_and_noted(
    active: ActiveSessions, session: Session, content_range: ContentRange
) -> tuple[Move, Placement]:
    try:
        return arrive(session), placement_of(session, content_range, session.grant)
    except (SessionError, PolicyError):
        upload = session.upload
        if upload.total is not None:
            raise
        await (await upload.open_writer(content_range.total)).close()
    # Another process may have been faster, and have received what was missing.
    active.renew(session)
    return arrive(session), placement_of(session, content_range, session.grant)


async def _placed_again(
    session: Session, content_range: ContentRange, writer: IWriter
) -> Placement:
    try:
        return placement_of(session, content_range, session.grant)
    except BaseException:
        await writer.close()
        raise


async def _complete(
    active: ActiveSessions, session: Session, turn: Turn, move: Move, request_url: str
) -> None:
    """Do what a complete upload needs before the Ack of its last Fragment."""
    if move is Move.ASK:
        await have_answered(active, session, turn, request_url)
        move = session.life.fragment()
    if move is Move.UNKNOWN:
        raise NoSuchSession("the session was closed or cancelled")
    if move is Move.REFUSE:
        raise refused(session)
    if move is Move.PUBLISH:
        await publish(active, session, session.may_overwrite)


def _received(offset: int, answer: Answer | None) -> Received:
    """The result of a last Fragment, also when it is sent again."""
    if answer is None:
        return Received(offset)
    # "In place of a stored reply".
    has_reply = answer.has_reply and answer.reply_url is None
    return Received(offset, has_reply, answer.reply_url)
