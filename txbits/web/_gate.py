"""
What stands before the handlers of packets and files: it establishes who sends a
request, and asks whether they may.
"""

from __future__ import annotations

from collections.abc import (
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    MutableMapping,
)
from typing import Any, Literal, Protocol
from uuid import UUID

from attrs import field, frozen
from attrs.validators import in_
from twisted.web.server import Request
from zope.interface import Interface

from txbits._deferreds import let_go_of_frames
from txbits.errors import (
    AccessDenied,
    CredentialsIncomplete,
    CredentialsRejected,
    CredentialsUncheckable,
    NoSuchSession,
)
from txbits.interfaces import (
    FULL_GRANT,
    Credentials,
    Grant,
    IAccessPolicy,
    IAuthenticator,
    Identity,
    IKnowing,
    IRelayable,
    IRemembering,
)
from txbits.protocol.packets import CloseSession
from txbits.protocol.urls import links_of
from txbits.sessions import Caller
from txbits.web._origin import Origins
from txbits.web._streaming import (
    TOLD_LOGINS,
    destination_of,
    headers_of,
    invite_body,
    memory_of,
)

#: What is remembered of a connection: who sent its last packet, before and after it was
#: permitted.
_KNOWN, _PERMITTED = object(), object()

SessionCredentials = Literal["every-packet", "create"]


#: Tells the destination of a request, from who sends it.
Locate = Callable[[Identity | None], Awaitable[tuple[str, ...]]]


class Owners(Protocol):
    """Knows whose sessions are."""

    async def owner_of(
        self, session_id: UUID, destination: tuple[str, ...]
    ) -> str | None: ...


def _in_order(authenticators: Iterable[IAuthenticator]) -> tuple[IAuthenticator, ...]:
    listed = tuple(authenticators)
    for one in listed:
        if not _provides(IAuthenticator, one):
            raise TypeError(f"an authenticator must provide IAuthenticator: {one!r}")
    return listed


def _provides(interface: type[Interface], value: object) -> bool:
    return bool(interface.providedBy(value))


@frozen(eq=False)
class Gate:
    """
    Admits requests to a virtual directory.

    :ivar authenticators: Asked one after the other, until one knows the sender. Without
        any, nobody is asked for credentials.
    :ivar policy: Permits what the sender wants; ``None`` permits everything.
    :ivar session_credentials: Which packets must carry credentials: ``"every-packet"``,
        or ``"create"`` if Fragment, Close-Session and Cancel-Session without any act
        for the owner of their session, as some clients require. Then the id of a
        session is a secret.
    :ivar is_open: Whether it admits every request.
    :ivar hides_ids: Whether the log must not have the ids of sessions.
    :ivar remembers: Whether a login on a connection holds for later requests.
    """

    authenticators: tuple[IAuthenticator, ...] = field(default=(), converter=_in_order)
    policy: IAccessPolicy | None = None
    session_credentials: SessionCredentials = field(
        default="every-packet", validator=in_(("every-packet", "create"))
    )

    is_open: bool = field(init=False)
    hides_ids: bool = field(init=False)
    remembers: bool = field(init=False)
    _remembering: tuple[Any, ...] = field(init=False)
    _takes_links: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        is_open = not self.authenticators and self.policy is None
        object.__setattr__(self, "is_open", is_open)
        hides_ids = self.session_credentials == "create"
        object.__setattr__(self, "hides_ids", hides_ids)
        remembering = [
            one for one in self.authenticators if _provides(IRemembering, one)
        ]
        object.__setattr__(self, "_remembering", tuple(remembering))
        object.__setattr__(self, "remembers", bool(remembering))
        takes_links = any(one.scheme == "link" for one in self.authenticators)
        object.__setattr__(self, "_takes_links", takes_links)

    def logins_of(self, request: Request) -> list[tuple[int, object]]:
        """
        Tell who has logged in on the connection of a request.

        :returns: The numbers of authenticators, and what each tells another worker.
        """
        memory = memory_of(request)
        told = [
            (number, one.login_of(memory))
            for number, one in enumerate(self.authenticators)
            if IRelayable.providedBy(one)
        ]
        return [(number, login) for number, login in told if login is not None]

    def _take_logins(self, memory: MutableMapping[Any, Any]) -> None:
        """Take over the logins of which another worker has told, if it has."""
        for number, login in memory.pop(TOLD_LOGINS, ()):
            one = self.authenticators[number]
            if IRelayable.providedBy(one):
                IRelayable(one).take_login(memory, login)

    async def admit(
        self,
        request: Request,
        caller: Caller,
        origins: Origins,
        destination: tuple[str, ...] | Locate,
        packet_type: str,
        owners: Owners | None = None,
        session_id: UUID | None = None,
        *,
        known: Callable[[Caller], None],
    ) -> Caller:
        """
        Establish who sends a request, and ask whether they may.

        :param caller: Who sends it, as far as is known.
        :param destination: The destination of the request, or what tells it when it is
            known who sends the request.
        :param packet_type: As in :class:`~txbits.interfaces.IAccessPolicy`.
        :param owners: Knows whose session a packet names.
        :param session_id: The session that the packet acts in; ``None`` if it acts in
            none.
        :param known: Called when it is established who sends the request, whatever they
            may do.
        :returns: Who sends it, and what they may do.
        :raises CredentialsRejected: If nobody knows who sends it, but somebody must.
        :raises CredentialsUncheckable: If that cannot be told now.
        :raises AccessDenied: If they may not.
        """
        identity = caller.identity
        credentials = None
        if self.authenticators:
            credentials = _RequestCredentials(request, origins, caller.address)
            memory = credentials.connection
            try:
                identity = await self._identify(credentials)
                if (
                    identity is None
                    and session_id is not None
                    and owners is not None
                    and self.session_credentials == "create"
                ):
                    try:
                        identity = await self._owner(
                            owners, session_id, credentials.path
                        )
                    except NoSuchSession as error:
                        # It may have been closed, and the Ack lost.
                        if packet_type != CloseSession.packet_type:
                            raise
                        let_go_of_frames(error)
                        return Caller(None, caller.address, knows_id=True)
                caller = _once(memory, _KNOWN, identity, caller.address, FULL_GRANT)
                known(caller)
                grant = await self._permit(identity, destination, packet_type)
                return _once(memory, _PERMITTED, identity, caller.address, grant)
            except CredentialsRejected as error:
                raise self._challenge(request, credentials, error) from None
            finally:
                for name, value in credentials.response_headers:
                    request.responseHeaders.addRawHeader(name, value)
        grant = await self._permit(identity, destination, packet_type)
        return Caller(identity, caller.address, grant)

    async def _identify(self, credentials: Credentials) -> Identity | None:
        if self._remembering and TOLD_LOGINS in credentials.connection:
            self._take_logins(credentials.connection)
        if self._remembering and (
            b"authorization" in credentials.headers
            or (self._takes_links and links_of(credentials.query))
        ):
            said = credentials.authorization
            for one in self._remembering:
                if said is None or said[0] != one.scheme:
                    one.forget(credentials)
        for authenticator in self.authenticators:
            try:
                identity = await authenticator.authenticate(credentials)
            except (CredentialsRejected, CredentialsUncheckable) as error:
                error.scheme = authenticator.scheme
                raise
            if identity is not None:
                return identity
        if b"authorization" in credentials.headers:
            raise CredentialsRejected("no scheme that is offered takes the credentials")
        return None

    async def _owner(
        self, owners: Owners, session_id: UUID, destination: tuple[str, ...]
    ) -> Identity | None:
        owner = await owners.owner_of(session_id, destination)
        # What has a scope, such as a link, is in the URL of every packet.
        if owner is None or "/" in owner or not self._may_know(owner):
            return None
        return Identity(owner, "session")

    def _may_know(self, name: str) -> bool:
        """Whether a user could still log in, as far as that can be told."""
        return any(
            not _provides(IKnowing, one) or IKnowing(one).knows(name)
            for one in self.authenticators
        )

    async def _permit(
        self,
        identity: Identity | None,
        destination: tuple[str, ...] | Locate,
        packet_type: str,
    ) -> Grant:
        if callable(destination):
            try:
                destination = await destination(identity)
            except NoSuchSession:
                if identity is None and self.authenticators:
                    # It may be somebody's who has not said so yet.
                    raise CredentialsRejected("no credentials") from None
                raise
        if identity is not None and identity.scope is not None:
            return identity.scope.check(destination, packet_type)
        if self.policy is None:
            if identity is None and self.authenticators:
                raise CredentialsRejected("no credentials")
            return FULL_GRANT
        try:
            grant = await self.policy.check(identity, destination, packet_type)
        except AccessDenied:
            if identity is None and self.authenticators:
                raise CredentialsRejected("no credentials") from None
            raise
        return FULL_GRANT if grant is None else grant

    def _challenge(
        self,
        request: Request,
        credentials: Credentials,
        error: CredentialsRejected,
    ) -> CredentialsRejected:
        """Tell the client which credentials are accepted, the strongest first."""
        if isinstance(error, CredentialsIncomplete):
            error.challenges = (error.challenge,)
        else:
            strongest = sorted(self.authenticators, key=lambda one: -one.strength)
            asked = [one.challenge(credentials) for one in strongest]
            error.challenges = tuple(one for one in asked if one is not None)
        if any(one.lower().startswith(b"negotiate") for one in error.challenges):
            # The client continues on this connection, so the body has to be read: with
            # "Expect: 100-continue", nobody knows whether it follows the answer.
            invite_body(request)
        return error


def _once(
    memory: MutableMapping[Any, Any],
    key: object,
    identity: Identity | None,
    address: str,
    grant: Grant,
) -> Caller:
    """Make a caller once for a connection, whose packets mostly have the same one."""
    made: Caller | None = memory.get(key)
    if (
        made is None
        or made.identity is not identity
        or made.grant is not grant
        or made.address != address
    ):
        made = memory[key] = Caller(identity, address, grant)
    return made


class _RequestCredentials(Credentials):
    """
    What a request and its connection tell about the sender. What is seldom asked for is
    found out when it is: most packets come from users who are known by one header.

    :param address: The address of the client.
    """

    __slots__ = ("_origins", "_request")

    def __init__(self, request: Request, origins: Origins, address: str) -> None:
        # The other fields are not set: Python calls __getattr__ for them.
        self.headers = headers_of(request)
        self.address = address
        self.connection = memory_of(request)
        self.response_headers = []
        self._request = request
        self._origins = origins

    def __getattr__(self, name: str) -> Any:
        find = _FOUND_OUT.get(name)
        if find is None:
            raise AttributeError(name)
        value = find(self, self._request)
        setattr(self, name, value)
        return value

    def _is_proxied(self) -> bool:
        return self.from_trusted_proxy or _names_proxy(self.headers)

    def _is_trusted(self) -> bool:
        return self._origins.comes_from_trusted_proxy(self._request)


#: How the fields are found out that are not set at once.
_FOUND_OUT: Mapping[str, Callable[[_RequestCredentials, Request], object]] = {
    "path": lambda _, request: destination_of(request),
    "query": lambda _, request: request.uri.partition(b"?")[2],
    "method": lambda _, request: request.method,
    "is_secure": lambda _, request: request.isSecure(),
    "is_proxied": lambda self, _: self._is_proxied(),
    "from_trusted_proxy": lambda self, _: self._is_trusted(),
    "certificate": lambda _, request: _shower(request),
}


def _shower(request: Request) -> Callable[[], Any]:
    """What returns the certificate that the client of a request has shown."""
    # The transport of a request that was passed on is that to another worker. One that
    # has been answered has no channel.
    for one in (getattr(request, "channel", None), request.transport):
        show: Callable[[], Any] | None = getattr(one, "getPeerCertificate", None)
        if show is not None:
            return show
    return _no_certificate


def _no_certificate() -> None:
    return None


def _names_proxy(headers: Any) -> bool:
    """Whether the headers say that the request has passed a proxy."""
    return any(
        name in (b"via", b"forwarded", b"x-real-ip") or name.startswith(b"x-forwarded-")
        for name in headers
    )
