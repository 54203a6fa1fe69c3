"""
The resource that receives uploads: it reads the packet, and chooses its handler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from txbits._deferreds import begun
from txbits._ledger import SessionLedger
from txbits.errors import UploadsDisabled
from txbits.interfaces import (
    IAccessPolicy,
    IAuthenticator,
    IBackend,
    Identity,
    INotifier,
    IPartitioned,
    IPublicationObserver,
)
from txbits.protocol.codec import (
    METHOD,
    BodyWithheld,
    RemoteProtocolError,
    is_upload_request,
    parse_packet,
)
from txbits.protocol.packets import Fragment, Packet
from txbits.protocol.refusals import METHOD_NOT_ALLOWED
from txbits.sessions import Caller, SessionManager, Settings
from txbits.sessions.naming import shown
from txbits.web._ack import refuse
from txbits.web._files import FileResource
from txbits.web._gate import Gate, SessionCredentials
from txbits.web._origin import Origins
from txbits.web._packets import HANDLERS
from txbits.web._relay import Relay
from txbits.web._streaming import (
    destination_of,
    head_of,
)
from txbits.web.downloads import DownloadResource
from txbits.web.replies import ReplyResource, reply_of

#: The methods that read files, and all methods of a directory that allows them.
_READING = (b"GET", b"HEAD")
_ALLOWED = b", ".join([METHOD, *_READING])

# Many packets come from one caller.
_caller = lru_cache(1024)(Caller)


class BITSResource(Resource):
    """
    A virtual directory: it accepts uploads to all URLs below its own, and serves the
    replies to them and, if the settings allow it, the published files.

    Under a :class:`~txbits.web.BITSSite` bodies stream into the backend. It also works
    in a plain ``twisted.web.server.Site``, where Twisted buffers bodies first.

    :param backend: Stores the uploads.
    :param settings: The settings.
    :param policy: Permits or refuses each packet; everything is permitted without one,
        to everyone that the authenticators know.
    :param authenticators: Establish who sends a request. They are asked in this order.
        Without any, all clients are anonymous.
    :param session_credentials: Which packets must carry credentials: ``"create"`` lets
        Fragment, Close-Session and Cancel-Session without any act for the owner of
        their session.
    :param notifier: Tells a server application of complete uploads.
    :param reactor: The clock, which also runs the clean-up; by default the global one.
    :param public_url: The URL of the server's root, as clients see it. Without it, URLs
        that are sent to clients begin as the URL that they used.
    :param trusted_proxies: Addresses and networks of proxies whose ``Forwarded`` or
        ``X-Forwarded-`` headers are trusted; ``unix`` stands for Unix sockets.
    :param observer: Called for each file that is published.
    :param name: Where the directory is mounted, for the log, such as ``/uploads``.
    :param log_packets: Whether the log has a line for each packet that is answered.
    :param relay: Passes packets on to the worker that has their session, if the backend
        is :class:`~txbits.interfaces.IPartitioned`. It needs a
        :class:`~txbits.web.BITSSite`. ``None`` if there is only one process.
    :param ledger: Counts the sessions of all workers that serve this directory;
        ``None`` if this process is alone.
    :raises InvalidSetting: If an argument is invalid, or the backend does not support
        what the settings or the notifier require.
    :ivar manager: The sessions of this directory. Its ``start()`` must have fired
        before packets arrive, and its ``stop()`` should before the process ends.
    """

    isLeaf = True

    def __init__(
        self,
        backend: IBackend,
        settings: Settings | None = None,
        *,
        policy: IAccessPolicy | None = None,
        authenticators: Iterable[IAuthenticator] = (),
        session_credentials: SessionCredentials = "every-packet",
        notifier: INotifier | None = None,
        reactor: IReactorTime | None = None,
        public_url: str | None = None,
        trusted_proxies: Iterable[str] = (),
        observer: IPublicationObserver | None = None,
        name: str = "",
        log_packets: bool = False,
        relay: Relay | None = None,
        ledger: SessionLedger | None = None,
    ) -> None:
        super().__init__()
        if reactor is None:
            from twisted.internet import reactor as global_reactor

            reactor = IReactorTime(global_reactor)
        settings = Settings() if settings is None else settings
        self.manager = SessionManager(
            backend,
            settings,
            reactor,
            notifier=notifier,
            observer=observer,
            name=name.rstrip("/"),
            ledger=ledger,
        )
        self.gate = Gate(authenticators, policy, session_credentials)
        self.origins = Origins.of(public_url, trusted_proxies)
        self.identity: Identity | None = None
        self.log_packets = log_packets
        self._relay = relay
        self._partitioned = IPartitioned(backend, None)

    def reconfigure(
        self,
        settings: Settings,
        *,
        notifier: INotifier | None = None,
        public_url: str | None = None,
        trusted_proxies: Iterable[str] = (),
        name: str | None = None,
        gate: Gate | None = None,
        log_packets: bool = False,
    ) -> Deferred[None]:
        """
        Use other settings from now on. Uploads under way keep theirs.

        Resources that :meth:`for_user` has returned keep the old URL and proxies.

        :param settings: The settings. If ``enabled`` is turned off, all sessions are
            released.
        :param name: The new mount of the directory; ``None`` leaves it unchanged.
        :param gate: Admits requests from now on; ``None`` leaves it unchanged.
        :param log_packets: As in the constructor.
        :returns: As for :meth:`txbits.sessions.SessionManager.reconfigure`.
        :raises InvalidSetting: As for the constructor. Then nothing changes.
        """
        origins = Origins.of(public_url, trusted_proxies)
        if name is not None:
            name = name.rstrip("/")
        changed = self.manager.reconfigure(settings, notifier, name=name)
        self.origins = origins
        self.log_packets = log_packets
        if gate is not None:
            self.gate = gate
        return changed

    @property
    def gate(self) -> Gate:
        """
        What admits requests. Another one admits those that come from then on; before it
        is assigned, its authenticators should ``adopt`` what those remember that they
        replace.
        """
        return self._gate

    @gate.setter
    def gate(self, gate: Gate) -> None:
        self._gate = gate
        self.manager.hide_ids(gate.hides_ids)

    def for_user(self, name: str) -> IResource:
        """
        The same directory, for an authenticated user.

        Authentication wraps this resource, for example with
        ``twisted.web.guard.HTTPAuthSessionWrapper``, whose realm returns this. Sessions
        belong to the user who created them.

        :param name: The user's name.
        """
        view = BITSResource.__new__(BITSResource)
        Resource.__init__(view)
        view.manager, view.origins = self.manager, self.origins
        gate = self.gate
        view._gate = Gate((), gate.policy, gate.session_credentials)
        view.identity = Identity(name)
        view.log_packets = self.log_packets
        view._relay, view._partitioned = self._relay, self._partitioned
        return view

    def render(self, request: Request) -> int:
        """Handle the packet that *request* carries. Every failure is answered."""
        is_disabled = self.manager.is_disabled
        caller = _caller(self.identity, self.origins.client(request))
        destination = destination_of(request)
        try:
            headers, is_short = head_of(request)
            # The order of the checks is that of the failure table.
            if not is_upload_request(request.method, headers):
                file = self._file(request, destination, caller)
                if file is not None:
                    session_id = getattr(file, "session_id", None)
                    if self._passes_on(request, session_id, file.refuse):
                        return NOT_DONE_YET
                    return file.render(request)
                raise RemoteProtocolError(
                    f"the method is {shown(request.method.decode('latin-1'))}",
                    METHOD_NOT_ALLOWED,
                )
            if is_disabled:
                self.manager.require_enabled()
            packet = parse_packet(headers, is_short=is_short)
        except (RemoteProtocolError, UploadsDisabled) as error:
            if isinstance(error, BodyWithheld) and not self._gate.is_open:
                refuse_it = partial(self._refuse, Fragment, destination, caller)
                if not self._passes_on(request, error.session_id, refuse_it):
                    begun(self._refuse_withheld(request, error, destination, caller))
                return NOT_DONE_YET
            refuse(
                request,
                error,
                destination,
                caller,
                counts=self.manager.counts,
                allowed=_ALLOWED if self._serves(destination) else METHOD,
                hides_id=self._gate.hides_ids,
            )
            return NOT_DONE_YET
        if self._relay is not None and self._passes_on(
            request,
            getattr(packet, "session_id", None),
            partial(self._refuse, type(packet), destination, caller),
        ):
            return NOT_DONE_YET
        handler = HANDLERS[type(packet)](
            self.manager, self._gate, packet, destination, caller, self.origins
        )
        handler.is_logged = self.log_packets
        begun(handler.answer(request))
        return NOT_DONE_YET

    def _refuse(
        self,
        packet: type[Packet],
        destination: tuple[str, ...],
        caller: Caller,
        request: Request,
        error: Exception,
    ) -> None:
        """Refuse a packet that could not be passed on."""
        refuse(
            request,
            error,
            destination,
            caller,
            packet.packet_type,
            counts=self.manager.counts,
            hides_id=self._gate.hides_ids,
        )

    def _passes_on(
        self,
        request: Request,
        session_id: UUID | None,
        refuse: Callable[[Request, Exception], None],
    ) -> bool:
        """
        Pass a request on if another worker has its session.

        :param session_id: The session that it acts in; ``None`` if it acts in none.
        :param refuse: Answers it if that worker cannot be reached.
        :returns: Whether it is passed on.
        """
        relay = self._relay
        if relay is None:
            return False
        number = None
        if session_id is not None:
            number = relay.owner_of(request, self._partitioned, session_id)
        if number is None:
            if self._gate.remembers:
                relay.keep_logins_apart(request)
            return False
        begun(self._pass_on(relay, request, number, refuse))
        return True

    async def _pass_on(
        self,
        relay: Relay,
        request: Request,
        number: int,
        refuse: Callable[[Request, Exception], None],
    ) -> None:
        try:
            await relay.pass_on(request, number, self._gate)
        except Exception as error:  # noqa: BLE001 - the edge: every error is answered
            refuse(request, error)

    async def _refuse_withheld(
        self,
        request: Request,
        error: Exception,
        destination: tuple[str, ...],
        caller: Caller,
    ) -> None:
        """Ask a client for credentials that keeps a body back until it is asked."""
        kind = Fragment.packet_type
        senders = [caller]
        try:
            await self._gate.admit(
                *(request, caller, self.origins, destination, kind),
                known=senders.append,
            )
        except Exception as refusal:  # noqa: BLE001 - the edge: every error is answered
            error = refusal
        counts = self.manager.counts
        refuse(request, error, destination, senders[-1], kind, counts=counts)

    def _serves(self, destination: tuple[str, ...]) -> bool:
        """Whether this is the URL of a file that clients may read."""
        return (
            self.manager.settings.allow_downloads or reply_of(destination) is not None
        )

    def _file(
        self, request: Request, destination: tuple[str, ...], caller: Caller
    ) -> FileResource | None:
        """The resource for a request to read a file; ``None`` for other requests."""
        if request.method not in _READING:
            return None
        session_id = reply_of(destination)
        if session_id is not None:
            return ReplyResource(
                self.manager, self._gate, caller, self.origins, session_id
            )
        if not self.manager.settings.allow_downloads:
            return None
        return DownloadResource(
            self.manager, self._gate, caller, self.origins, destination
        )
