"""
The resource that receives uploads: reads the packet, picks the resource for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes as unquote

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from txbits.errors import InvalidSetting, UploadsDisabled
from txbits.interfaces import (
    IAccessPolicy,
    IBackend,
    IDownloadable,
    INotifier,
    IPublicationObserver,
)
from txbits.protocol.codec import (
    METHOD,
    RemoteProtocolError,
    is_upload_request,
    parse_request,
)
from txbits.protocol.packets import (
    CancelSession,
    CloseSession,
    CreateSession,
    Fragment,
    Packet,
    Ping,
)
from txbits.protocol.refusals import MALFORMED_HEADER, METHOD_NOT_ALLOWED, NOT_MOUNTED
from txbits.sessions import Caller, SessionManager, Settings
from txbits.web._ack import refuse
from txbits.web._cancel import CancelResource
from txbits.web._close import CloseResource
from txbits.web._create import CreateResource
from txbits.web._files import FileResource
from txbits.web._fragment import FragmentResource
from txbits.web._origin import Origins
from txbits.web._packet import PacketResource
from txbits.web._ping import PingResource
from txbits.web._streaming import (
    has_short_head,
    headers_of,
    names_its_host,
    path_of,
)
from txbits.web.downloads import DownloadResource
from txbits.web.replies import ReplyResource, reply_of

_RESOURCES: dict[type[Packet], type[PacketResource[Any]]] = {
    Ping: PingResource,
    CreateSession: CreateResource,
    Fragment: FragmentResource,
    CloseSession: CloseResource,
    CancelSession: CancelResource,
}


#: The methods that files are read with, and all of a directory whose files can be.
_READING = (b"GET", b"HEAD")
_ALLOWED = b", ".join([METHOD, *_READING])

# A connection brings many packets of one caller.
_caller = lru_cache(1024)(Caller)


def _destination_of(request: Request) -> tuple[str, ...]:
    # What is no UTF-8 becomes something that every backend refuses.
    segments: list[bytes] = request.postpath or []
    if not request.path.startswith(b"/"):
        # A plain site has taken an absolute URL for a path.
        segments = [unquote(part) for part in path_of(request.path)[1:].split(b"/")]
    return tuple([one.decode("utf-8", "surrogateescape") for one in segments])


def _require_downloads(backend: IBackend, settings: Settings) -> None:
    if settings.allow_downloads and not IDownloadable.providedBy(backend):
        raise InvalidSetting("downloads are allowed, but this backend has none")


class BITSResource(Resource):
    """
    A virtual directory: takes the uploads to all URLs below its own, hands out the
    replies to them, and, if the settings say so, the files that are there.

    Under a :class:`~txbits.web.BITSSite` bodies stream into the backend. In a plain
    ``twisted.web.server.Site`` it works as well, with bodies that Twisted has buffered
    first.

    :param backend: Where uploads go.
    :param settings: The rules.
    :param policy: Permits or refuses each packet; everything is permitted without one.
    :param notifier: Tells a server application of complete uploads.
    :param reactor: Tells the time, and runs the clean-up; the global one if not given.
    :param public_url: The URL at which clients see the root of the server; without it,
        URLs that are handed to them begin as the one that they used.
    :param trusted_proxies: Addresses and networks of proxies that are believed what
        they say of a client and its URL in ``Forwarded`` or ``X-Forwarded-`` headers;
        ``unix`` is for those that come over a socket of the file system.
    :param observer: Is told of each file that is published.
    :param name: Where the directory is mounted, for the log, such as ``/uploads``.
    :raises InvalidSetting: If one of these is wrong, or the backend cannot do what the
        settings or the notifier need.
    :ivar manager: The sessions of this directory. Its ``start()`` must have fired
        before packets come, and its ``stop()`` should before the process ends.
    """

    isLeaf = True

    def __init__(
        self,
        backend: IBackend,
        settings: Settings | None = None,
        *,
        policy: IAccessPolicy | None = None,
        notifier: INotifier | None = None,
        reactor: IReactorTime | None = None,
        public_url: str | None = None,
        trusted_proxies: Iterable[str] = (),
        observer: IPublicationObserver | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        if reactor is None:
            from twisted.internet import reactor as global_reactor

            reactor = IReactorTime(global_reactor)
        settings = Settings() if settings is None else settings
        _require_downloads(backend, settings)
        self.manager = SessionManager(
            backend,
            settings,
            reactor,
            notifier=notifier,
            observer=observer,
            name=name.rstrip("/"),
        )
        self.policy = policy
        self.origins = Origins.of(public_url, trusted_proxies)
        self.user: str | None = None

    def reconfigure(
        self,
        settings: Settings,
        *,
        notifier: INotifier | None = None,
        public_url: str | None = None,
        trusted_proxies: Iterable[str] = (),
        name: str | None = None,
    ) -> Deferred[None]:
        """
        Go by other settings from now on; uploads under way go by theirs.

        What :meth:`for_user` has returned before sees clients and URLs as before.

        :param settings: The rules. Where they turn ``enabled`` off, all sessions are
            released.
        :param name: Where the directory is mounted now; ``None`` if that is as before.
        :returns: As of :meth:`txbits.sessions.SessionManager.reconfigure`.
        :raises InvalidSetting: As at the beginning. Nothing has changed then.
        """
        _require_downloads(self.manager.backend, settings)
        origins = Origins.of(public_url, trusted_proxies)
        if name is not None:
            name = name.rstrip("/")
        changed = self.manager.reconfigure(settings, notifier, name=name)
        self.origins = origins
        return changed

    def for_user(self, name: str) -> IResource:
        """
        The same directory, as an authenticated user sees it.

        Authentication wraps this resource from outside, as with
        ``twisted.web.guard.HTTPAuthSessionWrapper``, whose realm returns this. Sessions
        belong to the user who created them.

        :param name: The user's name.
        """
        view = BITSResource.__new__(BITSResource)
        Resource.__init__(view)
        view.manager, view.policy, view.user = self.manager, self.policy, name
        view.origins = self.origins
        return view

    def render(self, request: Request) -> int:
        """Settle the packet that *request* carries; whatever goes wrong, an Ack."""
        headers = headers_of(request)
        destination = _destination_of(request)
        try:
            if not names_its_host(request):
                raise RemoteProtocolError(
                    "it does not have exactly one valid Host header", MALFORMED_HEADER
                )
            # The order of the checks is that of the failure table.
            if not is_upload_request(request.method, headers):
                file = self._file(request, destination)
                if file is not None:
                    return file.render(request)
                raise RemoteProtocolError(
                    f"the method is {request.method!r}", METHOD_NOT_ALLOWED
                )
            self.manager.require_enabled()
            packet = parse_request(
                request.method, headers, is_short=has_short_head(request)
            )
        except (RemoteProtocolError, UploadsDisabled) as error:
            refuse(
                request,
                error,
                destination,
                client=self.origins.client(request),
                allowed=_ALLOWED if self._serves(destination) else METHOD,
            )
            return NOT_DONE_YET
        caller = self._caller(request)
        return _RESOURCES[type(packet)](
            self.manager, self.policy, packet, destination, caller, self.origins
        ).render(request)

    def _caller(self, request: Request) -> Caller:
        return _caller(self.user, self.origins.client(request))

    def _serves(self, destination: tuple[str, ...]) -> bool:
        """Whether this is a URL that files are read at."""
        return (
            self.manager.settings.allow_downloads or reply_of(destination) is not None
        )

    def _file(
        self, request: Request, destination: tuple[str, ...]
    ) -> FileResource | None:
        """What answers a request to read a file; ``None`` if this is none."""
        if request.method not in _READING:
            return None
        session_id = reply_of(destination)
        if session_id is not None:
            return ReplyResource(self.manager, session_id, self._caller(request))
        if not self.manager.settings.allow_downloads:
            return None
        return DownloadResource(
            self.manager, self.policy, destination, self._caller(request)
        )


class NotMounted(Resource):
    """
    Answers for URLs that are in no virtual directory; others are put below it.
    """

    def getChild(self, path: bytes, request: Request) -> IResource:
        return _Unknown()

    def render(self, request: Request) -> int:
        return _Unknown().render(request)


class _Unknown(Resource):
    isLeaf = True

    def render(self, request: Request) -> int:
        error = RemoteProtocolError(f"the URL is {request.uri!r}", NOT_MOUNTED)
        refuse(request, error, _destination_of(request))
        return NOT_DONE_YET
