"""
The table of active sessions, and what each packet does to them.

A :class:`SessionManager` is given packets that are well formed and permitted, with
their bodies still to come, and settles them one after the other within a session. It
knows neither what carried a packet nor where the bytes end up.

The order of checks is the protocol's: the session, the range against the session, the
limits. A packet that fails one stores nothing, and does not disturb an older
packet of its session.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID, uuid4

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from txbits._deferreds import deferred
from txbits._events import log_often
from txbits.clocks import Wall, steady, wall_of
from txbits.errors import (
    BackendError,
    BodyIncomplete,
    InvalidSetting,
    NoSuchSession,
    ServerStopping,
    SessionError,
)
from txbits.interfaces import (
    IBackend,
    INotifier,
    IRefreshable,
    IShared,
    IStoredFile,
    SessionSummary,
)
from txbits.protocol.codec import ContentRange
from txbits.protocol.session import begin
from txbits.sessions._ages import Ages
from txbits.sessions._digest import Digests
from txbits.sessions._disabling import Disabling
from txbits.sessions._endings import cancel_session, close_session, expire_session
from txbits.sessions._fragments import Received, placed, receive_fragment
from txbits.sessions._notification import Asking, require_abilities
from txbits.sessions._quota import Quota
from txbits.sessions._release import Shared
from txbits.sessions._replies import open_reply
from txbits.sessions._rules import Rules, only_overwriting
from txbits.sessions._session import Caller, Session
from txbits.sessions._stalls import Stalls
from txbits.sessions._turns import IRequestBody, Turn
from txbits.sessions._upkeep import Upkeep
from txbits.sessions.naming import destination_name, session_name
from txbits.sessions.settings import Settings

_log = Logger()

#: Seconds after which a client refused by a server that stops may come again.
_STOPPING_RETRY_AFTER = 30


def _require_clocks(clock: object, wall: object) -> None:
    """
    Refuse one clock in place of the other.

    This is no validator: those make every change of any attribute slower.
    """
    if not IReactorTime.providedBy(clock):
        raise TypeError(f"clock must provide IReactorTime: {clock!r}")
    if not callable(wall):
        raise TypeError(f"wall must be a function: {wall!r}")


@define(eq=False)
class SessionManager:
    """
    Settles the packets of one virtual directory.

    :param backend: Where the sessions are kept.
    :param settings: The rules of the virtual directory.
    :param clock: The steady clock: time-outs go by it, and it runs the clean-up. Of a
        reactor that goes by the wall clock, only the timers are used.
    :param new_id: Makes the ids of new sessions.
    :param notifier: Asks a server application about complete uploads, if there is one.
    :param wall: Tells seconds since the epoch; if not given, the wall clock that
        belongs to *clock*, see :func:`txbits.clocks.wall_of`.
    :raises InvalidSetting: If the backend cannot do what the notifier needs.
    """

    backend: IBackend
    settings: Settings
    clock: IReactorTime
    _new_id: Callable[[], UUID] = uuid4
    notifier: INotifier | None = None
    wall: Wall = field(kw_only=True)
    digests: Digests = field(init=False)
    _rules: Rules = field(init=False)
    _disabling: Disabling = field(init=False)
    _table: dict[UUID, Session] = field(factory=dict, init=False)
    _loading: dict[UUID, Shared[Session]] = field(factory=dict, init=False)
    _creating: set[UUID] = field(factory=set, init=False)
    ages: Ages = field(init=False)
    stalls: Stalls = field(init=False)
    _upkeep: Upkeep = field(init=False)
    quota: Quota = field(init=False)
    is_shared: bool = field(init=False)
    _stopping: bool = field(default=False, init=False)
    _busy: int = field(default=0, init=False)
    _idle: Deferred[None] | None = field(default=None, init=False)

    @wall.default
    def _wall_of_the_clock(self) -> Wall:
        return wall_of(self.clock)

    def __attrs_post_init__(self) -> None:
        _require_clocks(self.clock, self.wall)
        self.digests = Digests(self.clock)
        self.clock = steady(self.clock)
        self.is_shared = IShared.providedBy(self.backend)
        self.ages = Ages(self.clock, self.wall, self.is_shared)
        self.stalls = Stalls(self, self.clock)
        self._upkeep = Upkeep(self, self.clock)
        self.quota = Quota(self._upkeep, self.is_shared)
        self._rules = Rules(self.settings, self.notifier)
        self._disabling = Disabling(self, self._upkeep, not self.settings.enabled)
        if self.notifier is not None:
            require_abilities(self.backend, self.notifier)

    # Life of the manager

    @deferred
    async def start(self) -> None:
        """
        Start the backend, and begin the clean-up, now and at the set interval.

        :returns: A Deferred that fires with ``None`` when packets may come; the first
            clean-up goes on in the background. It fails with
            :class:`~txbits.errors.BackendError` if the backend cannot work, or not by
            these settings.
        """
        await self.backend.start()
        if (reason := only_overwriting(self.backend, self.settings)) is not None:
            await self.backend.stop()
            raise BackendError(reason)
        self.ages.start()
        self._upkeep.start(self.settings.cleanup_interval)

    @deferred
    async def stop(self) -> None:
        """
        Refuse what comes from now on, end what is arriving, and stop the backend.

        The bytes of fragments under way are kept; their clients go on from there
        later. A Close or Cancel under way is finished. A server application that is
        being asked is asked again, later.

        :returns: A Deferred that fires with ``None`` when nothing is going on.
        """
        self._stopping = True
        self.stalls.stop()
        cleaned = self._upkeep.stop()
        releases: list[Deferred[None]] = []
        for session in list(self._table.values()):
            if session.newest is not None:
                session.newest.release()
            if session.asking is not None:
                session.asking.release()
            releases += [reply.release() for reply in tuple(session.replies or ())]
        await cleaned
        for released in releases:
            try:
                await released
            except BackendError:
                _log.failure("a reply could not be closed")
        if self._busy:
            self._idle = Deferred()
            await self._idle
        await self.backend.stop()

    def reconfigure(
        self, settings: Settings, notifier: INotifier | None = None
    ) -> Deferred[None]:
        """
        Go by other rules from now on. Sessions that are there keep theirs, but those
        that a server application is to be told of are told to the new one.

        :param settings: The rules of the virtual directory.
        :param notifier: As at the beginning.
        :returns: A Deferred that fires with ``None``: at once, or, if ``enabled`` is
            off, as that of :meth:`disable`.
        :raises InvalidSetting: If the backend cannot do what the notifier needs, or
            publish without overwriting.
        """
        if notifier is not None:
            require_abilities(self.backend, notifier)
        if (reason := only_overwriting(self.backend, settings)) is not None:
            raise InvalidSetting(reason)
        if settings.cleanup_interval != self.settings.cleanup_interval:
            self._upkeep.change(settings.cleanup_interval)
        self.settings, self.notifier = settings, notifier
        self._rules = Rules(settings, notifier)
        if settings.enabled:
            self._disabling.enable()
            return succeed(None)
        return self.disable()

    @property
    def is_disabled(self) -> bool:
        """Whether every packet is refused."""
        return self._disabling.is_disabled

    @deferred
    async def disable(self) -> None:
        """
        Refuse every packet from now on, and release every session (MC-BUP 3.2.4.2).

        A fragment that is arriving is ended; a Close or Cancel under way is finished.

        :returns: A Deferred that fires with ``None`` when none is left, or uploads are
            enabled again. It fails with :class:`~txbits.errors.BackendError` if one is,
            for the clean-up to go on with, or :class:`~txbits.errors.ServerStopping`.
        """
        self._enter()
        try:
            await self._disabling.disable()
        finally:
            self._leave()

    def enable(self) -> None:
        """Take packets again."""
        self._disabling.enable()

    def _enter(self) -> None:
        if self._stopping:
            self.require_running()
        self._busy += 1

    def _enter_packet(self) -> None:
        if self._disabling.is_disabled:
            self.require_enabled()
        self._enter()

    def _leave(self) -> None:
        self._busy -= 1
        if not self._busy and self._idle is not None:
            idle, self._idle = self._idle, None
            idle.callback(None)

    # Packets

    @deferred
    async def create(
        self, destination: tuple[str, ...], caller: Caller, content_name: str | None
    ) -> UUID:
        """
        Settle a Create-Session (MC-BUP 3.2.5.2.4).

        :param destination: Where the file is to go.
        :param caller: Who wants it.
        :param content_name: The client's name for the file.
        :returns: A Deferred that fires with the new session's id, when a restart would
            find it. It fails with :class:`~txbits.errors.SessionLimitReached`, as
            ``IBackend.create`` does, or with
            :class:`~txbits.errors.ServerStopping`.
        """
        self._enter_packet()
        try:
            rules = self._rules
            session_id = self._new_id()
            self._creating.add(session_id)
            self._disabling.creation_begins()
            try:
                await self.quota.reserve(
                    session_id,
                    caller.user,
                    rules.settings.session_limit,
                )
                upload = await self.backend.create(
                    session_id,
                    destination,
                    owner=caller.user,
                    content_name=content_name,
                    overwrite=rules.settings.allow_overwrites,
                    create_directories=rules.settings.create_directories,
                )
                if self.is_disabled:
                    await upload.release()
                    self.require_enabled()
            except BaseException:
                self.quota.give_back(session_id, caller.user)
                raise
            finally:
                self._creating.discard(session_id)
                self._disabling.creation_ends()
            if not self.is_shared:
                self._table[session_id] = Session(
                    upload=upload,
                    life=begin(),
                    rules=rules,
                    progressed=self.clock.seconds(),
                )
            log_often(
                _log,
                "session {session} created for {destination} by {client}",
                session=session_name(session_id),
                destination=destination_name(destination),
                client=caller.address,
                user=caller.user,
            )
            return session_id
        finally:
            self._leave()

    @deferred
    async def fragment(
        self,
        session_id: UUID,
        destination: tuple[str, ...],
        caller: Caller,
        content_range: ContentRange,
        body: IRequestBody,
        request_url: str = "",
    ) -> Received:
        """
        Settle a Fragment (MC-BUP 3.2.5.2.6).

        :param session_id: The session it names.
        :param destination: The destination it names.
        :param caller: Who sent it.
        :param content_range: Which bytes it carries.
        :param body: The bytes; not a single one is read before all checks.
        :param request_url: The URL that it came to, for a server application.
        :returns: A Deferred that fires with a :class:`Received` when all bytes up to
            its offset are stored and, if these are all there are, the server
            application has taken them. It fails with
            :class:`~txbits.errors.NoSuchSession`,
            :class:`~txbits.errors.TotalLengthChanged`,
            :class:`~txbits.errors.OutOfStep`,
            :class:`~txbits.errors.UploadTooLarge`,
            :class:`~txbits.errors.FragmentTooLarge`, as ``IUploadSession.open_writer``
            and ``IWriter`` do, with :class:`~txbits.errors.BodyMismatch`, with
            :class:`~txbits.errors.BodyIncomplete` or
            :class:`~txbits.errors.Superseded` when there is nobody left to answer,
            with :class:`~txbits.errors.ApplicationError`, as ``IUploadSession.publish``
            does where files are published at the last fragment, or with
            :class:`~txbits.errors.ServerStopping`.
        """
        self._enter_packet()
        try:
            session = await self._find(session_id, destination, caller)
            if session.newest is not None:
                # A packet that fails a check does not disturb the one before it.
                try:
                    placed(session, content_range)
                except (SessionError, NoSuchSession):
                    # Another process may have moved the session on.
                    if not self.is_shared:
                        raise
            turn = self.enter(session, body)
            try:
                if turn.has_to_wait:
                    await turn.begins()
                return await receive_fragment(
                    self, session, turn, content_range, body, request_url
                )
            except BodyIncomplete as error:
                _log.info(
                    "fragment of session {session} from {client} ended early, "
                    "{bytes} bytes are held: {reason}",
                    session=session_name(session_id),
                    client=caller.address,
                    destination=destination_name(destination),
                    bytes=session.upload.offset,
                    reason=str(error),
                )
                raise
            finally:
                self.give_back(session, turn)
        finally:
            self._leave()

    @deferred
    async def close(
        self,
        session_id: UUID,
        destination: tuple[str, ...],
        caller: Caller,
        request_url: str = "",
    ) -> None:
        """
        Settle a Close-Session (MC-BUP 3.2.5.2.7).

        :param session_id: The session it names.
        :param destination: The destination it names.
        :param caller: Who sent it.
        :param request_url: The URL that it came to, for a server application.
        :returns: A Deferred that fires with ``None`` when the file stands at its
            destination, unless a server application kept it, and everything else of the
            session is gone, now or by an earlier Close. It fails with
            :class:`~txbits.errors.NoSuchSession`, as ``IUploadSession.publish`` and
            ``release`` do, with :class:`~txbits.errors.ApplicationError`, with
            :class:`~txbits.errors.Superseded` if a newer packet came while the
            application was asked, or with :class:`~txbits.errors.ServerStopping`.
        """
        self._enter_packet()
        try:
            try:
                session = await self._find(session_id, destination, caller)
                turn = self.enter(session, None)
                try:
                    if turn.has_to_wait:
                        await turn.begins()
                    await close_session(self, session, turn, caller, request_url)
                finally:
                    self.give_back(session, turn)
            except NoSuchSession:
                if not await self.backend.recalls_close(
                    session_id, destination, caller.user
                ):
                    raise
                if (left := self._table.get(session_id)) is not None:
                    # An earlier Close discarded it, and could not finish.
                    await cancel_session(
                        self, left, "discarded by Close-Session", caller
                    )
        finally:
            self._leave()

    @deferred
    async def cancel(
        self, session_id: UUID, destination: tuple[str, ...], caller: Caller
    ) -> None:
        """
        Settle a Cancel-Session (MC-BUP 3.2.5.2.8).

        :param session_id: The session it names.
        :param destination: The destination it names.
        :param caller: Who sent it.
        :returns: A Deferred that fires with ``None`` when nothing of the session is
            left. It fails with :class:`~txbits.errors.NoSuchSession`, with
            :class:`~txbits.errors.BackendError` if something is left (the session
            then stays, for the next Cancel to finish), or with
            :class:`~txbits.errors.ServerStopping`.
        """
        self._enter_packet()
        try:
            session = await self._find(session_id, destination, caller)
            await cancel_session(self, session, "cancelled", caller)
        finally:
            self._leave()

    @deferred
    async def open_reply(self, session_id: UUID, caller: Caller) -> IStoredFile:
        """
        Open a server application's reply, to be served.

        :param session_id: The session that it is the reply of.
        :param caller: Who wants it.
        :returns: A Deferred that fires with the file, which is to be released. When the
            session ends it is released from here, and reading it fails. It fails with
            :class:`~txbits.errors.NoSuchSession`, as ``IAnswerable.reply`` does, or
            with :class:`~txbits.errors.ServerStopping`.
        """
        self._enter_packet()
        try:
            session = await self._find(session_id, None, caller)
            return await open_reply(self, session)
        finally:
            self._leave()

    # For the clean-up

    @deferred
    async def expire(self, session_id: UUID) -> None:
        """
        Release a session whose time is out, or whose release has begun.

        :returns: A Deferred that fires with ``None`` when it is gone, is not expired
            after all, or could not be released, which is logged: the next round of the
            clean-up tries again. It fails with
            :class:`~txbits.errors.ServerStopping`.
        """
        self._enter()
        try:
            session = await self._load(session_id)
            session = self._table.get(session_id, session)
            if (
                self.is_disabled
                or session.rules.is_left_over(session.upload)
                or self._is_expired(session)
            ):
                await expire_session(self, session)
        except NoSuchSession:
            return
        except BackendError:
            _log.failure(
                "session {session} could not be released; the next clean-up, or "
                "Cancel, tries again",
                session=session_name(session_id),
            )
        finally:
            self._leave()

    def is_busy_with(self, session_id: UUID) -> bool:
        """Whether something goes on in a session, or it is only being made."""
        session = self._table.get(session_id)
        if session is not None and not session.is_idle:
            return True
        return session_id in self._creating

    def forget_lost(self, session_id: UUID) -> None:
        """Somebody has removed a session from the store."""
        self._table.pop(session_id, None)
        self.quota.give_back_of_any(session_id)

    def active(self) -> set[UUID]:
        """The sessions that this process knows."""
        return {*self._table}

    def rules_of(self, session_id: UUID) -> Rules:
        """What a session goes by."""
        session = self._table.get(session_id)
        return self._rules if session is None else session.rules

    def is_listed_as_old(self, summary: SessionSummary) -> bool:
        """Whether the time of a session is out, as the store lists it."""
        session = self._table.get(summary.session_id)
        if session is not None and not self.is_shared:
            # The store goes by a clock that may have been set since.
            return self._is_old(session)
        age = self.clock.seconds() - self.ages.steadily(summary.last_progress)
        return age > self.rules_of(summary.session_id).settings.session_timeout

    # For the acts of a session

    def require_enabled(self) -> None:
        """
        Take nothing new when uploads are disabled.

        :raises UploadsDisabled: If they are.
        """
        self._disabling.require_enabled()

    def require_running(self) -> None:
        """
        Take nothing new when everything ends.

        :raises ServerStopping: If it does.
        """
        if self._stopping:
            raise ServerStopping("the server is stopping", _STOPPING_RETRY_AFTER)

    def has_ended(self, session: Session) -> bool:
        """Whether all that is left to do is to release it."""
        return (
            self.is_disabled
            or session.rules.is_left_over(session.upload)
            or self._is_old(session)
        )

    def notifier_of(self, session: Session) -> INotifier | None:
        """
        What is to ask about a session, if anything is.

        A session that was to be asked about is, by whatever does so by now: an operator
        who mends the URL of an application mends it for uploads under way.
        """
        if session.rules.notifier is None:
            return None
        return self.notifier or session.rules.notifier

    def asks(self, session: Session, asking: Asking) -> None:
        """The server application is asked about a session from now on."""
        self._busy += 1
        session.asking = asking

    def asked(self, session: Session) -> None:
        """That is over."""
        session.asking = None
        self.let_go(session)
        self._leave()

    def enter(self, session: Session, body: IRequestBody | None) -> Turn:
        """Begin to act in a session; the turn is to be given back."""
        if self.is_shared:
            self.hold(session)
        return session.enter(body)

    def give_back(self, session: Session, turn: Turn) -> None:
        """End a turn."""
        session.give_back(turn)
        self.let_go(session)

    def hold(self, session: Session) -> None:
        """Something goes on in a session."""
        self._table[session.upload.session_id] = session

    def let_go(self, session: Session) -> None:
        """Something that went on in a session does no longer."""
        if self.is_shared and session.is_idle:
            # The next packet may act in another process, and the one after that here.
            self._table.pop(session.upload.session_id, None)

    async def refresh(self, session: Session) -> None:
        """
        Find out what other processes have done in a session.

        :raises NoSuchSession: If one has ended it.
        """
        # What is being asked about is complete; and it is not to be disturbed.
        if self.is_shared and session.asking is None:
            upload = session.upload
            if IRefreshable.providedBy(upload):
                held = upload.offset
                await IRefreshable(upload).refresh()
                if upload.offset != held:
                    # What has passed here is not what is there.
                    self.digests.forget(upload.session_id)
            session.life = session.rules.life_of(session.upload)
            session.progressed = max(
                session.progressed, self.ages.steadily(upload.last_progress)
            )

    def renew(self, session: Session) -> None:
        """
        Begin from how a session stands, as far as this process knows.

        What a packet finds out on its way, of other processes, moves what is known of
        the upload, and not the life of the session.
        """
        if self.is_shared and session.asking is None:
            session.life = session.rules.life_of(session.upload)

    async def gives_up(self, session: Session, *, closed: bool) -> bool:
        """
        Begin to release a session for how it was found to stand.

        :param closed: Whether that is a success of Close-Session.
        :returns: Whether it may be released: not if another process has moved it on.
        :raises BackendError: If that cannot be told, or less is found than there was.
        """
        upload = session.upload
        if not self.is_shared or not IRefreshable.providedBy(upload):
            return True
        try:
            given_up = await IRefreshable(upload).give_up(closed=closed)
        except BackendError:
            self.renew(session)
            raise
        if not given_up:
            self.digests.forget(upload.session_id)
            self.renew(session)
        return given_up

    def forget(self, session: Session) -> None:
        """Nothing of a session is left."""
        upload = session.upload
        self._table.pop(upload.session_id, None)
        if session.rules.notifier is not None:
            self.digests.forget(upload.session_id)
        self.quota.give_back(upload.session_id, upload.owner)

    # Below: how it is done

    async def _load(self, session_id: UUID) -> Session:
        session = self._table.get(session_id)
        if session is not None:
            return session
        loading = self._loading.setdefault(session_id, Shared())

        async def look_up() -> Session:
            try:
                upload = await self.backend.find(session_id)
                rules = self._rules
                found = Session(
                    upload=upload,
                    life=rules.life_of(upload),
                    rules=rules,
                    progressed=self.ages.steadily(upload.last_progress),
                    is_found=True,
                )
                if not self.is_shared:
                    self._table[session_id] = found
                return found
            finally:
                del self._loading[session_id]

        return await loading.run(look_up)

    async def _find(
        self, session_id: UUID, destination: tuple[str, ...] | None, caller: Caller
    ) -> Session:
        session = self._table.get(session_id) or await self._load(session_id)
        session = self._table.get(session_id, session)
        upload = session.upload
        if upload.owner != caller.user or destination not in (upload.destination, None):
            raise NoSuchSession("the session is another destination's, or caller's")
        if self._is_expired(session):
            await expire_session(self, session)
            if not self.is_shared or self._is_expired(session):
                raise NoSuchSession("the session has expired")
            # A packet that came meanwhile may act in it already.
            session = self._table.get(session_id, session)
        return session

    def _is_expired(self, session: Session) -> bool:
        # Whoever waits for a server application waits no longer then, nor does a
        # Fragment without progress. What the server is busy with is waited for.
        newest = session.newest
        waits = newest is None or session.asking is not None or newest.can_be_ended
        return waits and self._is_old(session)

    def _is_old(self, session: Session) -> bool:
        return self.clock.seconds() > session.expires
