"""
The resource that receives uploads: reads the packet, picks the resource for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from txbits.errors import UploadsDisabled
from txbits.interfaces import (
    IAccessPolicy,
    IBackend,
    INotifier,
    IPublicationObserver,
)
from txbits.protocol.codec import (
    METHOD,
    RemoteProtocolError,
    is_upload_request,
    parse_packet,
)
from txbits.protocol.refusals import METHOD_NOT_ALLOWED
from txbits.sessions import Caller, SessionManager, Settings
from txbits.sessions.naming import shown
from txbits.web._ack import refuse
from txbits.web._files import FileResource
from txbits.web._origin import Origins
from txbits.web._packets import HANDLERS
from txbits.web._streaming import (
    destination_of,
    head_of,
)
from txbits.web.downloads import DownloadResource
from txbits.web.replies import ReplyResource, reply_of

#: The methods that files are read with, and all of a directory whose files can be.
_READING = (b"GET", b"HEAD")
_ALLOWED = b", ".join([METHOD, *_READING])

# A connection brings many packets of one caller.
_caller = lru_cache(1024)(Caller)


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
        caller = _caller(self.user, self.origins.client(request))
        destination = destination_of(request)
        try:
            headers, is_short = head_of(request)
            # The order of the checks is that of the failure table.
            if not is_upload_request(request.method, headers):
                file = self._file(request, destination, caller)
                if file is not None:
                    return file.render(request)
                raise RemoteProtocolError(
                    f"the method is {shown(request.method.decode('latin-1'))}",
                    METHOD_NOT_ALLOWED,
                )
            self.manager.require_enabled()
            packet = parse_packet(headers, is_short=is_short)
        except (RemoteProtocolError, UploadsDisabled) as error:
            refuse(
                request,
                error,
                destination,
                caller,
                allowed=_ALLOWED if self._serves(destination) else METHOD,
            )
            return NOT_DONE_YET
        return HANDLERS[type(packet)](
            self.manager, self.policy, packet, destination, caller, self.origins
        ).render(request)

    def _serves(self, destination: tuple[str, ...]) -> bool:
        """Whether this is a URL that files are read at."""
        return (
            self.manager.settings.allow_downloads or reply_of(destination) is not None
        )

    def _file(
        self, request: Request, destination: tuple[str, ...], caller: Caller
    ) -> FileResource | None:
        """What answers a request to read a file; ``None`` if this is none."""
        if request.method not in _READING:
            return None
        session_id = reply_of(destination)
        if session_id is not None:
            return ReplyResource(self.manager, session_id, caller)
        if not self.manager.settings.allow_downloads:
            return None
        return DownloadResource(self.manager, self.policy, destination, caller)
