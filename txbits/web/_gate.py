"""
What stands before the handlers of packets and files: it establishes who sends a
request, and asks whether they may.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Literal, Protocol
from uuid import UUID

from attrs import field, frozen
from attrs.validators import in_
from twisted.web.server import Request
from zope.interface import Interface

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
)
from txbits.protocol.packets import CloseSession
from txbits.sessions import Caller
from txbits.web._origin import Origins
from txbits.web._streaming import (
    destination_of,
    headers_of,
    invite_body,
    memory_of,
)

#: What is remembered of a connection: whether it uses TLS.
_SECURE = object()

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
    """

    authenticators: tuple[IAuthenticator, ...] = field(default=(), converter=_in_order)
    policy: IAccessPolicy | None = None
    session_credentials: SessionCredentials = field(
        default="every-packet", validator=in_(("every-packet", "create"))
    )

    is_open: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        is_open = not self.authenticators and self.policy is None
        object.__setattr__(self, "is_open", is_open)

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
            credentials = credentials_of(request, origins)
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
                    except NoSuchSession:
                        # It may have been closed, and the Ack lost.
                        if packet_type != CloseSession.packet_type:
                            raise
                        return Caller(None, caller.address, knows_id=True)
                caller = Caller(identity, caller.address)
                known(caller)
                grant = await self._permit(identity, destination, packet_type)
            except CredentialsRejected as error:
                raise self._challenge(request, credentials, error) from None
            finally:
                for name, value in credentials.response_headers:
                    request.responseHeaders.addRawHeader(name, value)
        else:
            grant = await self._permit(identity, destination, packet_type)
        # Most callers may do everything: for them it is made once.
        if grant is FULL_GRANT and caller.identity is identity:
            return caller
        return Caller(identity, caller.address, grant)

    async def _identify(self, credentials: Credentials) -> Identity | None:
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
        return None if owner is None or "/" in owner else Identity(owner, "session")

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


def credentials_of(request: Request, origins: Origins) -> Credentials:
    """Collect what a request and its connection tell about the sender."""
    headers = headers_of(request)
    trusted = origins.comes_from_trusted_proxy(request)
    transport: Any = request.transport
    memory: MutableMapping[Any, Any] = memory_of(request)
    is_secure = memory.get(_SECURE)
    if is_secure is None:
        is_secure = memory[_SECURE] = request.isSecure()
    return Credentials(
        headers=headers,
        path=destination_of(request),
        query=request.uri.partition(b"?")[2],
        method=request.method,
        address=origins.client(request),
        is_secure=is_secure,
        is_proxied=trusted or _names_proxy(headers),
        from_trusted_proxy=trusted,
        connection=memory,
        certificate=getattr(transport, "getPeerCertificate", _no_certificate),
    )


def _no_certificate() -> None:
    return None


def _names_proxy(headers: Any) -> bool:
    """Whether the headers say that the request has passed a proxy."""
    if b"via" in headers or b"forwarded" in headers:
        return True
    # Not any(), which takes twice the time: this is called for each packet.
    for name in headers:  # noqa: SIM110
        if name.startswith(b"x-forwarded-"):
            return True
    return False
