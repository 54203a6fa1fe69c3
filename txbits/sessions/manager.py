"""
The packets of one virtual directory: a :class:`SessionManager` settles them.

It gets packets that are well formed and permitted, with their bodies still to come, and
settles them one after the other within a session. What carried a packet, and where the
bytes are stored, is not its business.

The order of checks is the protocol's: the session, the range against the session, the
limits. A packet that fails one stores nothing, and does not disturb an older
packet of its session.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID, uuid4

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from txbits._counts import Counts
from txbits._deferreds import deferred
from txbits._events import log_often
from txbits._ledger import SessionLedger
from txbits.clocks import Wall, steady, wall_of
from txbits.errors import (
    BackendError,
    BodyIncomplete,
    NoSuchSession,
)
from txbits.interfaces import (
    ANY_OWNER,
    AnyOwner,
    IBackend,
    INotifier,
    IPartitioned,
    IPublicationObserver,
    IStoredFile,
)
from txbits.protocol.codec import ContentRange
from txbits.protocol.session import begin
from txbits.sessions._abilities import require_abilities, why_only_overwriting
from txbits.sessions._active import ActiveSessions
from txbits.sessions._claims import require_unclaimed
from txbits.sessions._digest import Digests
from txbits.sessions._disabling import Disabling
from txbits.sessions._endings import (
    CANCEL,
    CLOSE,
    cancel_session,
    close_session,
    end_session,
    expire_session,
)
from txbits.sessions._fragments import Fragments, Received
from txbits.sessions._listing import OpenSession, busiest, list_open, open_session
from txbits.sessions._replies import open_reply
from txbits.sessions._rules import Rules
from txbits.sessions._session import Caller, IRequestBody, Session
from txbits.sessions._upkeep import Upkeep
from txbits.sessions.naming import destination_name
from txbits.sessions.settings import Settings

_log = Logger()


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

    :param backend: Where the sessions are stored.
    :param settings: The rules of the virtual directory.
    :param clock: The steady clock: time-outs go by it, and it runs the clean-up. Of a
        reactor that goes by the wall clock, only the timers are used.
    :param new_id: Makes the ids of new sessions. By default, a backend that is
        :class:`~txbits.interfaces.IPartitioned` does, or else they are random.
    :param notifier: Asks a server application about complete uploads, if there is one.
    :param wall: Returns the seconds since the epoch; if not given, the wall clock that
        belongs to *clock*, see :func:`txbits.clocks.wall_of`.
    :param name: Where the directory is mounted, for the log, such as ``/uploads``.
    :param observer: Is told of each file that is published.
    :param ledger: Counts the sessions of all workers that serve this directory;
        ``None`` if this process is alone.
    :ivar counts: What has happened since this was made.
    :raises InvalidSetting: If the backend cannot do what settings or notifier require.
    """

    backend: IBackend
    settings: Settings
    clock: IReactorTime
    _new_id: Callable[[], UUID] = field()
    notifier: INotifier | None = None
    wall: Wall = field(kw_only=True)
    name: str = field(default="", kw_only=True)
    observer: IPublicationObserver | None = field(default=None, kw_only=True)
    ledger: SessionLedger | None = field(default=None, kw_only=True)
    counts: Counts = field(init=False)
    _active: ActiveSessions = field(init=False)
    _fragments: Fragments = field(init=False)
    _upkeep: Upkeep = field(init=False)
    _disabling: Disabling = field(init=False)

    @_new_id.default
    def _new_id_of_the_backend(self) -> Callable[[], UUID]:
        if IPartitioned.providedBy(self.backend):
            return IPartitioned(self.backend).new_id
        return uuid4

    @wall.default
    def _wall_of_the_clock(self) -> Wall:
        return wall_of(self.clock)

    def __attrs_post_init__(self) -> None:
        _require_clocks(self.clock, self.wall)
        observer: object = self.observer
        if observer is not None and not IPublicationObserver.providedBy(observer):
            raise TypeError(f"observer must provide IPublicationObserver: {observer!r}")
        digests = Digests(self.clock)
        self.clock = steady(self.clock)
        active = self._active = ActiveSessions(
            self.backend,
            self.clock,
            self.wall,
            digests,
            self.name,
            Rules(self.settings, self.notifier),
            not self.settings.enabled,
            self.observer,
            self.ledger,
        )
        self.counts = active.counts
        self._fragments = Fragments(active)
        self._upkeep = Upkeep(active)
        self._disabling = Disabling(active, self._upkeep)
        require_abilities(self.backend, self.settings, self.notifier)

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
        if (reason := why_only_overwriting(self.backend, self.settings)) is not None:
            await self.backend.stop()
            raise BackendError(reason)
        self._active.ages.start()
        self._upkeep.start(self.settings.cleanup_interval)

    @deferred
    async def stop(self) -> None:
        """
        Refuse new packets, end what is arriving, and stop the backend.

        The bytes of fragments under way are kept; their clients continue from there
        later. A Close or Cancel under way is finished. Questions to a server
        application are cancelled, and asked again later.

        :returns: A Deferred that fires with ``None`` when nothing is under way.
        """
        active = self._active
        active.is_stopping = True
        self._fragments.stop()
        cleaned = self._upkeep.stop()
        releases: list[Deferred[None]] = []
        for session in list(active.table.values()):
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
        await active.idle()
        await self.backend.stop()

    def reconfigure(
        self,
        settings: Settings,
        notifier: INotifier | None = None,
        *,
        name: str | None = None,
    ) -> Deferred[None]:
        """
        Apply other rules from now on. Existing sessions keep theirs, except that the
        new notifier asks about those that a server application is to be asked about.

        :param settings: The rules of the virtual directory.
        :param notifier: As at the beginning.
        :param name: Where the directory is mounted now; ``None`` if that is as before.
        :returns: A Deferred that fires with ``None``: at once, or, if ``enabled`` is
            off, as that of :meth:`disable`.
        :raises InvalidSetting: If the backend cannot do what one of them requires.
        """
        require_abilities(self.backend, settings, notifier)
        if settings.cleanup_interval != self.settings.cleanup_interval:
            self._upkeep.change(settings.cleanup_interval)
        has_new_quota = settings.has_quota and not self.settings.has_quota
        self.settings, self.notifier = settings, notifier
        self._active.rules = Rules(settings, notifier)
        if name is not None:
            self.name = self._active.name = name
        if has_new_quota:
            self._upkeep.tell_sizes()
        if settings.enabled:
            self._disabling.enable()
            return succeed(None)
        return self.disable()

    def hide_ids(self, is_secret: bool) -> None:
        """
        Tell whether who knows the id of a session may act in it. Then the log has only
        the beginnings of ids.
        """
        self._active.hides_ids = is_secret

    @property
    def is_disabled(self) -> bool:
        """Whether every packet is refused."""
        return self._active.is_disabled

    @property
    def open_sessions(self) -> int:
        """How many sessions are open, as far as is known."""
        return self._active.quota.sessions

    @property
    def staged_bytes(self) -> int:
        """
        How many bytes the open sessions stage or are going to, as the quotas count
        them, as far as is known.
        """
        return self._active.quota.staged

    def idle_for(self) -> float:
        """
        Tell for how many seconds the session with the oldest progress has had none.

        This looks at each session.
        """
        return self._active.idle_for()

    def busiest(self, most: int) -> list[OpenSession]:
        """
        Tell in which sessions bytes arrive, or have arrived within the last seconds.

        This looks at each session that this process knows.

        :param most: How many to tell of, at most.
        :returns: The sessions, those first in which most bytes arrive a second.
        """
        return busiest(self._active, most)

    def troubles(self) -> list[str]:
        """
        Tell why packets would fail now, as far as is known.

        :returns: A few words for each reason. What failed last, a minute ago or later,
            counts as one.
        """
        return self._active.troubles()

    def require_enabled(self) -> None:
        """
        Refuse a packet when uploads are disabled.

        :raises UploadsDisabled: If they are.
        """
        self._active.require_enabled()

    def require_running(self) -> None:
        """
        Begin nothing new when the server is stopping.

        :raises ServerStopping: If it is.
        """
        self._active.require_running()

    @deferred
    async def disable(self) -> None:
        """
        Refuse every packet from now on, and release every session (MC-BUP 3.2.4.2).

        A fragment that is arriving is ended; a Close or Cancel under way is finished.

        :returns: A Deferred that fires with ``None`` when none is left, or uploads are
            enabled again. It fails with :class:`~txbits.errors.BackendError` if one is
            left, which the clean-up tries again to release, or with
            :class:`~txbits.errors.ServerStopping`.
        """
        self._active.begin()
        try:
            await self._disabling.disable()
        finally:
            self._active.end()

    def enable(self) -> None:
        """Take packets again."""
        self._disabling.enable()

    # Packets. A Deferred between two coroutines takes a hundredth of the time of a tiny
    # upload, so those who handle requests await the coroutines.

    def _begin_packet(self) -> None:
        """
        Begin to settle a packet, whose end the active sessions are to be told of.

        :raises UploadsDisabled: If uploads are disabled.
        :raises ServerStopping: If the server is stopping.
        """
        active = self._active
        if active.is_disabled or active.is_stopping:
            active.require_enabled()
            active.require_running()
        active.busy += 1

    async def settle_create(
        self, destination: tuple[str, ...], caller: Caller, content_name: str | None
    ) -> UUID:
        """
        Settle a Create-Session (MC-BUP 3.2.5.2.4).

        :param destination: Where the file is to go.
        :param caller: Who wants it.
        :param content_name: The client's name for the file.
        :returns: The new session's id, when a restart would find it.
        :raises SessionLimitReached: If there are too many sessions.
        :raises QuotaReached: If it could stage nothing.
        :raises BackendError: As ``IBackend.create`` fails.
        :raises ServerStopping: If the server is stopping.
        """
        active = self._active
        self._begin_packet()
        try:
            session_id = self._new_id()
            await self._make(session_id, destination, caller, content_name)
            active.counts.created += 1
            if active.failing:
                active.succeeded("create")
            log_often(
                _log,
                "session {session} created for {directory}/{destination} by {who}",
                outcome="created",
                session=active.named(session_id),
                directory=self.name,
                destination=destination_name(destination),
                bytes=0,
                client=caller.address,
                user=caller.user,
                scheme=caller.scheme,
                who=caller.name,
            )
            return session_id
        except BackendError as error:
            active.failed("create", error)
            raise
        finally:
            active.end()

    #: As :meth:`settle_create`, with a Deferred.
    create = deferred(settle_create)

    async def _make(
        self,
        session_id: UUID,
        destination: tuple[str, ...],
        caller: Caller,
        content_name: str | None,
    ) -> None:
        active, rules = self._active, self._active.rules
        settings = rules.settings
        if destination and content_name == destination[-1]:
            # As for most uploads. An open session then keeps one string, not two.
            content_name = destination[-1]
        active.creating.add(session_id)
        try:
            if caller.grant.claim is not None:
                await require_unclaimed(active, caller.grant.claim)
            await self._upkeep.counted_for(caller, settings)
            active.quota.reserve(session_id, caller, settings)
            upload = await self.backend.create(
                session_id,
                destination,
                owner=caller.user,
                content_name=content_name,
                overwrite=settings.allow_overwrites and caller.grant.overwrite,
                create_directories=settings.create_directories,
            )
            if active.is_disabled:
                await upload.release()
                active.require_enabled()
        except BaseException:
            active.quota.give_back(session_id)
            raise
        finally:
            active.creation_ends(session_id)
        if not active.is_shared:
            active.table[session_id] = Session(
                upload=upload,
                life=begin(),
                rules=rules,
                progressed=self.clock.seconds(),
                client=caller.address,
                scheme=caller.scheme,
            )

    async def settle_fragment(
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
        :param body: The bytes; none is read before all checks have passed.
        :param request_url: The URL that it came to, for a server application.
        :returns: A :class:`Received`, when all bytes up to its offset are stored and,
            if these are all there are, the server application has taken them.
        :raises NoSuchSession: If there is none, or it is another caller's.
        :raises TotalLengthChanged: If the total is not that of earlier ones.
        :raises OutOfStep: If it begins beyond the bytes that are stored.
        :raises UploadTooLarge: If the file is.
        :raises FragmentTooLarge: If the fragment is.
        :raises QuotaReached: If the file does not fit a quota.
        :raises BackendError: As ``IUploadSession.open_writer`` and ``IWriter`` fail, or
            ``IUploadSession.publish`` where files are published at the last fragment.
        :raises BodyMismatch: If the body is longer or shorter than the range.
        :raises BodyIncomplete: If its connection was lost, or too slow.
        :raises Superseded: If a newer packet came.
        :raises ApplicationError: If the server application does not take the file.
        :raises ServerStopping: If the server is stopping.
        """
        active = self._active
        self._begin_packet()
        try:
            session = await self._find(session_id, destination, caller)
            if session.newest is not None:
                self._fragments.require_fit(session, content_range, caller.grant)
            turn = session.enter(body)
            try:
                if turn.previous is not None:
                    await turn.begins()
                session.sent_by(caller)
                received = await self._fragments.receive(
                    session, turn, content_range, body, request_url
                )
            except BodyIncomplete as error:
                _log.info(
                    "fragment of session {session} from {who} ended early, {bytes} "
                    "bytes are held: {reason} ({directory}/{destination})",
                    outcome="interrupted",
                    reason=str(error),
                    **active.fields(session, caller),
                )
                raise
            finally:
                session.give_back(turn)
            if active.failing:
                active.succeeded("store")
            return received
        except BackendError as error:
            active.failed("store", error)
            raise
        finally:
            active.end()

    #: As :meth:`settle_fragment`, with a Deferred.
    fragment = deferred(settle_fragment)

    async def settle_close(
        self,
        session_id: UUID,
        destination: tuple[str, ...],
        caller: Caller,
        request_url: str = "",
    ) -> None:
        """
        Settle a Close-Session (MC-BUP 3.2.5.2.7).

        When this ends, the file stands at its destination, unless a server application
        kept it, and everything else of the session is gone, now or by an earlier Close.

        :param session_id: The session it names.
        :param destination: The destination it names.
        :param caller: Who sent it.
        :param request_url: The URL that it came to, for a server application.
        :raises NoSuchSession: If there is none, or it is another caller's.
        :raises BackendError: As ``IUploadSession.publish`` and ``release`` fail.
        :raises ApplicationError: If the server application does not take the file.
        :raises Superseded: If a newer packet came while the application was asked.
        :raises ServerStopping: If the server is stopping.
        """
        active = self._active
        self._begin_packet()
        began = self.clock.seconds()
        try:
            session = await self._find(session_id, destination, caller)
            turn = session.enter(None)
            try:
                if turn.previous is not None:
                    await turn.begins()
                session.sent_by(caller)
                await close_session(active, session, turn, caller, request_url)
            finally:
                session.give_back(turn)
            active.counts.closes.observe(self.clock.seconds() - began)
            if active.failing:
                active.succeeded("close")
        except NoSuchSession:
            if not await self._is_closed(session_id, destination, caller):
                raise
        except BackendError as error:
            active.failed("close", error)
            raise
        finally:
            active.end()

    #: As :meth:`settle_close`, with a Deferred.
    close = deferred(settle_close)

    async def _is_closed(
        self, session_id: UUID, destination: tuple[str, ...], caller: Caller
    ) -> bool:
        """Tell whether an earlier Close-Session succeeded, and finish what it left."""
        active = self._active
        try:
            owner: str | AnyOwner | None = caller.user
            if caller.knows_id:
                owner = ANY_OWNER
            recalls = self.backend.recalls_close
            is_closed = await recalls(session_id, destination, owner)
            if not is_closed and self._adopts(None, caller):
                is_closed = await recalls(session_id, destination, None)
            if not is_closed:
                return False
            if (left := active.table.get(session_id)) is not None:
                await cancel_session(active, left, CLOSE, caller)
        except BackendError as error:
            active.failed("close", error)
            raise
        return True

    async def settle_cancel(
        self, session_id: UUID, destination: tuple[str, ...], caller: Caller
    ) -> None:
        """
        Settle a Cancel-Session (MC-BUP 3.2.5.2.8).

        When this ends, nothing of the session is left.

        :param session_id: The session it names.
        :param destination: The destination it names.
        :param caller: Who sent it.
        :raises NoSuchSession: If there is none, or it is another caller's.
        :raises BackendError: If something is left. The session then stays, for the next
            Cancel to finish.
        :raises ServerStopping: If the server is stopping.
        """
        active = self._active
        self._begin_packet()
        try:
            session = await self._find(session_id, destination, caller)
            await cancel_session(active, session, CANCEL, caller)
            if active.failing:
                active.succeeded("release")
        except BackendError as error:
            active.failed("release", error)
            raise
        finally:
            active.end()

    #: As :meth:`settle_cancel`, with a Deferred.
    cancel = deferred(settle_cancel)

    @deferred
    async def open_reply(self, session_id: UUID, caller: Caller) -> IStoredFile:
        """
        Open a server application's reply, to be served.

        :param session_id: The session that it is the reply of.
        :param caller: Who wants it.
        :returns: A Deferred that fires with the file, which the caller releases. When
            the session ends, it is released too, and reading it fails. The Deferred
            fails with :class:`~txbits.errors.NoSuchSession`, as ``IAnswerable.reply``
            does, or with :class:`~txbits.errors.ServerStopping`.
        """
        active = self._active
        self._begin_packet()
        try:
            session = await self._find(session_id, None, caller)
            return await open_reply(active, session)
        finally:
            active.end()

    async def admitted(self, admission: Awaitable[Caller]) -> Caller:
        """
        Wait until a packet is admitted, and log if nobody can tell whether it is.

        :param admission: Fires with who sends it, and fails if they may not.
        :raises BackendError: If that cannot be told.
        """
        active = self._active
        try:
            caller = await admission
        except BackendError as error:
            active.failed("admit", error)
            raise
        if active.failing:
            active.succeeded("admit")
        return caller

    async def owner_of(
        self, session_id: UUID, destination: tuple[str, ...]
    ) -> str | None:
        """
        Tell who owns a session.

        :raises NoSuchSession: If there is none, or it is another destination's.
        :raises BackendError: If that cannot be told.
        """
        active = self._active
        self._begin_packet()
        try:
            session = active.table.get(session_id) or await active.load(session_id)
        finally:
            active.end()
        if session.upload.destination != destination:
            raise NoSuchSession("the session is another destination's")
        return session.upload.owner

    async def destination_of(self, session_id: UUID, caller: Caller) -> tuple[str, ...]:
        """
        Tell where a session uploads to.

        :raises NoSuchSession: If there is none, or it is another caller's.
        :raises BackendError: If that cannot be told.
        """
        active = self._active
        self._begin_packet()
        try:
            session = await self._find(session_id, None, caller)
            return session.upload.destination
        finally:
            active.end()

    # Operators

    @deferred
    async def list_open(
        self, after: UUID | None = None
    ) -> tuple[Sequence[OpenSession], UUID | None]:
        """
        List some open sessions, in the order of their ids.

        :param after: The id to go on after, from the call before; ``None`` to begin.
        :returns: A Deferred that fires with at most a few hundred sessions, maybe none,
            and with the id to go on after, ``None`` if no more follow. A session that
            is there from the first call to the last is listed once. The Deferred fails
            with :class:`~txbits.errors.BackendError` or
            :class:`~txbits.errors.ServerStopping`.
        """
        return await list_open(self._active, self._upkeep, after)

    @deferred
    async def open_session(self, session_id: UUID) -> OpenSession:
        """
        Look at one session.

        :returns: A Deferred that fires with it. It fails with
            :class:`~txbits.errors.NoSuchSession`, other kinds of
            :class:`~txbits.errors.BackendError`, or
            :class:`~txbits.errors.ServerStopping`.
        """
        return await open_session(self._active, self._upkeep, session_id)

    @deferred
    async def end_session(
        self, session_id: UUID, operator: Caller, *, idle: float | None = None
    ) -> bool:
        """
        Cancel a session, whosever it is, as a Cancel-Session would.

        :param operator: Who wants it, for the log.
        :param idle: Only if it has had no progress for so many seconds, and no packet
            is being settled in it.
        :returns: A Deferred that fires with ``True`` when nothing of the session is
            left, or with ``False`` if it was not idle. It fails as :meth:`cancel`.
        """
        active = self._active
        active.begin()
        try:
            is_ended = await end_session(
                active, session_id, evolve(operator, is_operator=True), idle
            )
            if active.failing:
                active.succeeded("release")
            return is_ended
        except BackendError as error:
            active.failed("release", error)
            raise
        finally:
            active.end()

    def _adopts(self, owner: str | None, caller: Caller) -> bool:
        """Whether a user goes on with a session that has no owner."""
        return (
            owner is None
            and caller.user is not None
            and self._active.rules.settings.adopt_anonymous_sessions
        )

    async def _find(
        self, session_id: UUID, destination: tuple[str, ...] | None, caller: Caller
    ) -> Session:
        active = self._active
        session = active.table.get(session_id) or await active.load(session_id)
        upload = session.upload
        if destination not in (upload.destination, None) or (
            upload.owner != caller.user and not self._adopts(upload.owner, caller)
        ):
            raise NoSuchSession("the session is another destination's, or caller's")
        if session.is_expired(self.clock.seconds()):
            await expire_session(active, session)
            if session.is_expired(self.clock.seconds()):
                raise NoSuchSession("the session has expired")
            # Meanwhile, another packet may have begun to act in it.
            session = active.table.get(session_id, session)
        return session
