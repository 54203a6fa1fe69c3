"""
What is under way in one virtual directory: the table of active sessions, the rules for
new ones, and whether packets are accepted at all.

The other modules of this package contain what packets, the clean-up and the time-outs
do to sessions. They share one :class:`ActiveSessions`.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from txbits._counts import Counts
from txbits._deferreds import Shared, Waiters
from txbits._ledger import SessionLedger
from txbits._troubles import Troubles
from txbits.clocks import Wall
from txbits.errors import (
    BackendError,
    DestinationExists,
    DestinationForbidden,
    DestinationIsDirectory,
    NoSuchFile,
    NoSuchSession,
    ParentMissing,
    ServerStopping,
    StagedDataLost,
    UploadsDisabled,
)
from txbits.interfaces import (
    IBackend,
    INotifier,
    IPublicationObserver,
    IRefreshable,
    IShared,
    SessionSummary,
)
from txbits.sessions._ages import Ages
from txbits.sessions._digest import Digests
from txbits.sessions._quota import Quota
from txbits.sessions._rules import Rules
from txbits.sessions._session import (
    Caller,
    PendingAnswer,
    Session,
)
from txbits.sessions.naming import destination_name, session_name, shown

_log = Logger()

#: Seconds after which a client refused by a server that stops may come again.
_STOPPING_RETRY_AFTER = 30

#: Seconds after a failure of the store for which uploads may better go elsewhere.
_TROUBLE_LASTS = 60.0

#: Faults that concern one upload, and that its client hears of.
_OF_ONE_UPLOAD = (
    NoSuchSession,
    NoSuchFile,
    DestinationForbidden,
    DestinationExists,
    DestinationIsDirectory,
    ParentMissing,
    StagedDataLost,
)

#: For each act: what the log says while it fails, and when it succeeds again.
_ACTS = {
    "admit": ("permissions cannot be checked", "permissions can be checked again"),
    "create": ("no session can be created", "sessions can be created again"),
    "store": ("uploaded bytes cannot be stored", "uploaded bytes are stored again"),
    "close": ("uploads cannot be finished", "uploads can be finished again"),
    "release": ("sessions cannot be released", "sessions are released again"),
    "clean up": ("the clean-up fails", "the clean-up works again"),
}


@define(eq=False)
class ActiveSessions:
    """
    The sessions that this process knows, and what is under way in them.

    Where other processes use the store as well, sessions are only kept while something
    is under way in them.

    :param backend: Where the sessions are stored.
    :param clock: The steady clock.
    :param wall: The wall clock.
    :param digests: Of uploads that a server application is asked about.
    :param name: Where the directory is mounted, for the log, such as ``/uploads``.
    :param rules: The rules for new sessions.
    :param is_disabled: Whether every packet is refused.
    :param observer: Is told of published files.
    :param ledger: Counts the sessions of all workers; ``None`` if there is only one.
    :ivar counts: What has happened here.
    :ivar ages: Translates the times of the store.
    :ivar hides_ids: Whether the ids of sessions are secrets, which the log must not
        have.
    :ivar is_shared: Whether other processes use the store as well.
    :ivar is_stopping: Whether nothing new may begin.
    :ivar busy: How many pieces of work are under way.
    :ivar creating: Sessions that are being made, and may not be listed yet.
    :ivar created: Who waits until there are none.
    :ivar oldest_listed: The session with the oldest progress that the store has listed
        last, and the time of that by the steady clock; ``None`` if it had none.
    :ivar failing: What the store failed to do when it was last asked to, and when that
        was.
    """

    backend: IBackend
    clock: IReactorTime
    wall: Wall
    digests: Digests
    name: str
    rules: Rules
    is_disabled: bool
    observer: IPublicationObserver | None = None
    ledger: SessionLedger | None = None
    counts: Counts = field(init=False)
    ages: Ages = field(init=False)
    quota: Quota = field(init=False)
    hides_ids: bool = field(default=False, init=False)
    is_shared: bool = field(init=False)
    is_stopping: bool = field(default=False, init=False)
    table: dict[UUID, Session] = field(factory=dict, init=False)
    creating: set[UUID] = field(factory=set, init=False)
    created: Waiters[None] = field(factory=Waiters, init=False)
    oldest_listed: tuple[UUID, float] | None = field(default=None, init=False)
    failing: dict[str, float] = field(factory=dict, init=False)
    _troubles: Troubles = field(init=False)
    _loading: dict[UUID, Shared[Session]] = field(factory=dict, init=False)
    busy: int = field(default=0, init=False)
    _idle: Waiters[None] | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.quota = Quota(self.ledger)
        self.is_shared = IShared.providedBy(self.backend)
        self.counts = Counts(self.wall)
        self.ages = Ages(self.clock, self.wall, self.is_shared)
        self._troubles = Troubles(_log, self.clock.seconds)

    # Whether anything may begin

    def require_running(self) -> None:
        """
        Begin nothing new when the server is stopping.

        :raises ServerStopping: If it is.
        """
        if self.is_stopping:
            raise ServerStopping("the server is stopping", _STOPPING_RETRY_AFTER)

    def require_enabled(self) -> None:
        """
        Take nothing new when uploads are disabled.

        :raises UploadsDisabled: If they are.
        """
        if self.is_disabled:
            raise UploadsDisabled("uploads are disabled here")

    def begin(self) -> None:
        """
        Begin some work, which :meth:`end` is to be called after.

        :raises ServerStopping: If the server is stopping.
        """
        if self.is_stopping:
            self.require_running()
        self.busy += 1

    def end(self) -> None:
        """Some work has ended."""
        self.busy -= 1
        if not self.busy and self._idle is not None:
            self._idle.fire(None)

    async def idle(self) -> None:
        """Wait until no work is under way."""
        if self.busy:
            if self._idle is None:
                self._idle = Waiters()
            await self._idle.wait()

    def creation_ends(self, session_id: UUID) -> None:
        """A session is made, and listed, or never will be."""
        self.creating.discard(session_id)
        if not self.creating and self.created.is_awaited:
            self.created.fire(None)

    # Looking sessions up

    async def load(self, session_id: UUID) -> Session:
        """
        Find a session, in the table or in the store.

        :raises NoSuchSession: If there is none.
        :raises BackendError: If that cannot be told.
        """
        session = self.table.get(session_id)
        if session is None:
            loading = self._loading.setdefault(session_id, Shared())
            session = await loading.run(lambda: self._look_up(session_id))
            # Meanwhile, another packet may have begun to act in it.
            session = self.table.get(session_id, session)
        return session

    async def _look_up(self, session_id: UUID) -> Session:
        try:
            upload = await self.backend.find(session_id)
            rules = self.rules
            found = Session(
                upload=upload,
                life=rules.life_of(upload),
                rules=rules,
                progressed=self.ages.steadily(upload.last_progress),
                is_found=True,
                table=self.table if self.is_shared else None,
            )
            if not self.is_shared:
                self.table[session_id] = found
            return found
        finally:
            del self._loading[session_id]

    def is_busy_with(self, session_id: UUID) -> bool:
        """Whether something is under way in a session, or it is only being made."""
        session = self.table.get(session_id)
        if session is not None and not session.is_idle:
            return True
        return session_id in self.creating

    def has_ended(self, session: Session) -> bool:
        """Whether all that is left to do is to release a session."""
        return (
            self.is_disabled
            or session.rules.is_left_over(session.upload)
            or self.clock.seconds() > session.expires
        )

    def is_listed_as_over(self, summary: SessionSummary) -> bool:
        """Whether a session is to be released, as the store lists it."""
        if self.is_disabled:
            return True
        session = self.table.get(summary.session_id)
        rules = self.rules if session is None else session.rules
        # One that stays until Close-Session, or until its time is out.
        stands = summary.published and rules.publishes_at_once
        if summary.releasing and not stands:
            return True
        now = self.clock.seconds()
        if session is not None and not self.is_shared:
            # The store goes by a clock that may have been set since.
            return now > session.expires
        age = now - self.ages.steadily(summary.last_progress)
        return age > rules.settings.session_timeout

    def notifier_of(self, session: Session) -> INotifier | None:
        """
        The notifier that asks about a session, if one does.

        It is the present one: when an operator corrects the URL of an application, that
        applies to uploads under way.
        """
        if session.rules.notifier is None:
            return None
        return self.rules.notifier or session.rules.notifier

    # Acting in a session

    def begin_asking(self, session: Session, pending: PendingAnswer) -> None:
        """The server application is asked about a session from now on."""
        self.busy += 1
        session.asking = pending

    def end_asking(self, session: Session) -> None:
        """The server application is no longer asked about a session."""
        session.asking = None
        session.let_go()
        self.end()

    async def refresh(self, session: Session) -> None:
        """
        Find out what other processes have done in a session.

        :raises NoSuchSession: If one has ended it.
        """
        # What is being asked about is complete, and must stay as it is.
        if self.is_shared and session.asking is None:
            upload = session.upload
            if IRefreshable.providedBy(upload):
                held = upload.offset
                await IRefreshable(upload).refresh()
                if upload.offset != held:
                    # The bytes that are stored are not those that passed here.
                    self.digests.forget(upload.session_id)
            session.life = session.rules.life_of(session.upload)
            session.progressed = max(
                session.progressed, self.ages.steadily(upload.last_progress)
            )

    def renew(self, session: Session) -> None:
        """
        Set the life of a session to what this process knows of its upload.

        What a packet finds out on its way, of other processes, changes what is known of
        the upload, but not the life of the session.
        """
        if self.is_shared and session.asking is None:
            session.life = session.rules.life_of(session.upload)

    async def gives_up(self, session: Session, *, closed: bool) -> bool:
        """
        Begin to release a session because of the state that it was found in.

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

    # Its end

    def forget(self, session: Session) -> None:
        """Nothing of a session is left."""
        upload = session.upload
        self.table.pop(upload.session_id, None)
        if session.rules.notifier is not None:
            self.digests.forget(upload.session_id)
        self.quota.give_back(upload.session_id)

    def knows(self, session_id: UUID) -> bool:
        """Whether a session is taken for an open one."""
        return session_id in self.table or self.quota.counts(session_id)

    def forget_lost(self, session_id: UUID) -> None:
        """Somebody has removed a session from the store."""
        self.counts.ended["lost", "removed"] += 1
        self.table.pop(session_id, None)
        self.quota.give_back(session_id)

    # The log

    def failed(self, act: str, error: BackendError) -> None:
        """
        Log that the store fails, or what else is asked, at most once a minute. Faults
        that concern one upload are not logged here, but those of the clean-up, which
        has no client, are.

        :param act: What it failed to do: "admit", "create", "store", "close", "release"
            or "clean up".
        """
        if act != "clean up" and isinstance(error, _OF_ONE_UPLOAD):
            return
        self.failing[act] = self.clock.seconds()
        self.counts.errors[act] += 1
        self._troubles.report(
            act,
            "{directory}: " + _ACTS[act][0] + ": {reason}",
            directory=self.name or "/",
            reason=self.shown(str(error)),
        )

    def failed_to_expire(self, session_id: UUID, error: BackendError) -> None:
        """
        Log that a session whose time is out cannot be released. There is no client to
        hear of a fault that concerns only this session.
        """
        if not isinstance(error, _OF_ONE_UPLOAD):
            self.failed("release", error)
            return
        _log.error(
            "session {session} cannot be released, the next clean-up tries again: "
            "{reason} ({directory})",
            session=self.named(session_id),
            reason=self.shown(f"{type(error).__name__}: {error}"),
            directory=self.name or "/",
        )

    def succeeded(self, act: str) -> None:
        """
        Log that the store works again, if it has failed.

        :param act: What it did, see :meth:`failed`.
        """
        if act in self.failing:
            del self.failing[act]
            self._troubles.over(
                act, "{directory}: " + _ACTS[act][1], directory=self.name or "/"
            )

    def troubles(self) -> list[str]:
        """
        Tell what the store fails to do, for operators to read.

        Only failures of the last minute count: if no client came any more because of
        them, nothing would ever succeed again.
        """
        since = self.clock.seconds() - _TROUBLE_LASTS
        return [_ACTS[act][0] for act, at in self.failing.items() if at > since]

    def idle_for(self) -> float:
        """
        Tell for how many seconds the session with the oldest progress has had none, as
        far as is known: of sessions that no packet has come for since the start, the
        last listing tells. 0 if there are no sessions.
        """
        oldest = min(
            (session.progressed for session in self.table.values()), default=None
        )
        if self.oldest_listed is not None:
            session_id, progressed = self.oldest_listed
            if session_id not in self.table and self.quota.counts(session_id):
                oldest = progressed if oldest is None else min(oldest, progressed)
        return 0.0 if oldest is None else max(0.0, self.clock.seconds() - oldest)

    def report_no_claims(self) -> None:
        """Log that a permission for one upload cannot be granted here."""
        self._troubles.report(
            "claim",
            "{directory}: refused an upload link that is good once, since this backend "
            "cannot remember that (IClaimable); make links without --once, or use "
            "another backend",
            directory=self.name or "/",
        )

    def named(self, session_id: UUID) -> str:
        """The name of a session in the log."""
        return session_name(session_id, is_secret=self.hides_ids)

    def shown(self, text: str) -> str:
        """A text that may name sessions, in the log."""
        return shown(text, hides_ids=self.hides_ids)

    def fields(self, session: Session, caller: Caller | None = None) -> dict[str, Any]:
        """
        What every line of the log about a session has: ``session``, ``user``,
        ``directory``, ``destination``, ``bytes``, ``total``, ``client`` and ``scheme``.

        :param caller: Who sent the packet, for the last two, and for ``who`` in texts.
        """
        upload = session.upload
        fields = {
            "session": self.named(upload.session_id),
            "user": upload.owner,
            "directory": self.name,
            "destination": destination_name(upload.destination),
            "bytes": upload.offset,
            "total": upload.total,
            "client": None,
            "scheme": None,
        }
        if caller is not None:
            fields["client"], fields["who"] = caller.address, caller.name
            fields["scheme"] = caller.scheme
        return fields
